"""Principal components (`pca`), and the samples that a model is fitted to in closed form.

Such a model has `fit(samples)`, which sets its parameters and returns what was found: variables
over `latent` for the table of the run's health, and facts as attributes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import Blocks, in_chunks, read_chosen
from vaearr.errors import DataError, UsageError
from vaearr.models.preprocess import Preprocess, binned_patterns

AUTO = "auto"  # as many latent dimensions as the fit finds
BATCH_SAMPLES, BATCH_VALUES = 1024, 2**23  # in a batch at most
MOST_SAMPLES, MOST_VALUES = 50_000, 2**28  # that components are found on: 1 GiB in float32
EXACT_VALUES = 4_000  # values per sample up to which the covariance is formed
KNEE_LIMIT = 64  # components among which the knee is looked for


@dataclass(frozen=True)
class Samples:
    """Samples that a model is fitted to, read block by block as often as they are needed.

    ds: patterns and maps. inside: the samples, boolean over the navigation dims. region:
    training and validation samples, likewise.
    """

    ds: xr.Dataset
    inside: np.ndarray
    region: np.ndarray
    preprocess: Preprocess
    seed: int = 0

    @property
    def n_values(self) -> int:
        """Number of values of a preprocessed sample."""
        return self.preprocess.background.numel()

    def at(self, inside: np.ndarray) -> Samples:
        """Return other samples of the same Dataset."""
        return replace(self, inside=inside)

    def stored(self) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield grid points `(b, navigation)` and their stored patterns, `(b, C, …)`."""
        shape = self.preprocess.shape
        device = self.preprocess.background.device
        dims = schema.navigation_dims(self.ds)
        patterns = binned_patterns(in_chunks(self.ds[n.PATTERNS], dims), self.preprocess.config)
        size = max(1, min(BATCH_SAMPLES, BATCH_VALUES // math.prod(shape)))
        for block in read_chosen(Blocks(patterns, dims), self.inside, shape, device=device):
            for start in range(0, len(block.points), size):
                batch = slice(start, start + size)
                yield block.points[batch], block.stored[batch]

    def rows(self) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield grid points and their preprocessed patterns as rows `(b, values)`."""
        device = self.preprocess.background.device
        for points, stored in self.stored():
            yield points, self.preprocess(stored.to(device)).flatten(1)

    def matrix(self) -> np.ndarray:
        """Return the rows of all samples, or of a random choice of as many as memory holds, `(k,
        values)` float32.
        """
        numbers = np.flatnonzero(self.inside)
        count = min(len(numbers), MOST_SAMPLES, MOST_VALUES // self.n_values)
        if count < 2:
            raise UsageError(
                f"{len(numbers)} training samples are too few to fit a model to; widen the region."
            )
        chosen = np.zeros(self.inside.size, bool)
        chosen[np.random.default_rng(self.seed).choice(numbers, count, replace=False)] = True
        matrix = np.empty((count, self.n_values), np.float32)
        start = 0
        for _, rows in self.at(chosen.reshape(self.inside.shape)).rows():
            matrix[start : start + len(rows)] = rows.cpu().numpy()
            start += len(rows)
        if not np.isfinite(matrix).all():
            raise DataError(
                "patterns of the region hold NaN or infinite values; exclude these points from "
                "the region."
            )
        return matrix


class PCA(nn.Module):
    """Principal components: latents are scores, x = mean + latents x components.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of a sample, channels first.
    latent_dim : int or "auto"
        Number of components; "auto": those before the knee of the explained variance
        (`broken_stick`).
    """

    is_deterministic = True

    def __init__(self, input_shape: tuple[int, ...], latent_dim: int | str = 32) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.latent_dim = latent_dim
        size = math.prod(input_shape)
        count = 0 if latent_dim == AUTO else int(latent_dim)
        self.set(np.zeros(size), np.zeros((count, size)))

    def set(self, mean: np.ndarray, components: np.ndarray) -> None:
        """Set the parameters."""
        self.mean = nn.Parameter(torch.from_numpy(mean).float(), requires_grad=False)
        self.components = nn.Parameter(torch.from_numpy(components).float(), requires_grad=False)
        self.latent_shape = (len(components),)

    def fit(self, samples: Samples) -> xr.Dataset:
        """Find the components."""
        pca = fit_pca(samples.matrix(), self.latent_dim, samples.seed)
        self.set(pca.mean_, pca.components_)
        return explained(pca)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode samples to scores `(B, latent_dim)`, with a log-variance of -inf."""
        scores = (x.flatten(1) - self.mean) @ self.components.T
        return scores, torch.full_like(scores, -torch.inf)

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        """Return samples `(B, *input_shape)` of scores; the model has no head to leave out."""
        return (self.mean + z @ self.components).unflatten(1, self.input_shape)


def fit_pca(rows: np.ndarray, count: int | str, seed: int, *, solver: str | None = None) -> Any:
    """Fit scikit-learn's PCA to rows; "auto": the components before the knee.

    With more than EXACT_VALUES values per row by its randomised method, unless a solver is given.
    Raises UsageError for more components than possible, DataError for rows that are all equal.
    """
    from sklearn.decomposition import PCA as Components

    limit = min(len(rows) - 1, rows.shape[1])
    n_components = min(KNEE_LIMIT, limit) if count == AUTO else int(count)
    if n_components > limit:
        raise UsageError(
            f"latent_dim is {n_components}; {len(rows)} samples with {rows.shape[1]} values each "
            f"have at most {limit} components."
        )
    if np.ptp(rows, axis=0).max() == 0:
        raise DataError(
            "all patterns of the region are equal, so no variance can be explained; choose "
            "another region."
        )
    if solver is None:
        solver = _solver(rows)
    pca = Components(n_components, svd_solver=solver, random_state=seed).fit(rows)
    pca.at_limit_ = False
    if count == AUTO:
        kept = broken_stick(pca.explained_variance_ratio_, limit)
        pca.at_limit_ = kept == n_components < limit
        pca.components_ = pca.components_[:kept]
        pca.explained_variance_ = pca.explained_variance_[:kept]
        pca.explained_variance_ratio_ = pca.explained_variance_ratio_[:kept]
    return pca


def _solver(rows: np.ndarray) -> str:
    if rows.shape[1] > EXACT_VALUES:
        return "randomized"
    return "full" if len(rows) < rows.shape[1] else "covariance_eigh"


def broken_stick(ratio: np.ndarray, n_pieces: int) -> int:
    """Return the number of components that explain more than pieces of a randomly broken stick.

    At least 1. The i-th largest of N random pieces has the expected length sum over k = i..N of 1 /
    (k N). ratio: shares of the total variance, decreasing. Jackson, Ecology 74 (1993) 2204.
    """
    terms = 1 / np.arange(1, n_pieces + 1)
    lengths = np.cumsum(terms[::-1])[::-1] / n_pieces
    below = np.flatnonzero(ratio <= lengths[: len(ratio)])
    return max(1, int(below[0]) if below.size else len(ratio))


def explained(pca: Any) -> xr.Dataset:
    """Return the variance that components explain, over `latent`."""
    variance = pca.explained_variance_
    ratio = pca.explained_variance_ratio_
    of_total = {"units": "1", "comment": "of the total variance of all values"}
    share = {"long_name": "explained share", **of_total}
    cumulative = {"long_name": "up to here", **of_total}
    variables = {
        "explained_variance": (n.LATENT, variance, {"long_name": "explained variance"}),
        "explained_variance_ratio": (n.LATENT, ratio, share),
        "explained_variance_cumulative": (n.LATENT, np.cumsum(ratio), cumulative),
    }
    warnings = []
    if pca.at_limit_:
        warnings.append(
            f"The knee lies beyond the {len(ratio)} components that were computed: set latent_dim "
            "to a number."
        )
    return xr.Dataset(variables, attrs={"warnings": warnings})
