"""Linear models, fitted in closed form instead of being trained: principal components (`pca`), `ppca`, and `nmf`.

Each has `fit(samples)`, which sets its parameters and returns what the fit found: variables over `latent` for the table
of the run's health, and facts as attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import Blocks, in_chunks, read_chosen
from vaearr.errors import DataError, RoiError, UsageError
from vaearr.models.networks import Variational, require
from vaearr.models.preprocess import Preprocess, seen_patterns

AUTO = "auto"  # as many latent dimensions as the fit finds
BATCH_SAMPLES, BATCH_VALUES = 1024, 2**23  # in a batch at most
EXACT_VALUES = 8_000  # values per sample up to which the covariance is formed: 512 MB in float64
KNEE_LIMIT = 64  # components among which the knee is looked for
MAX_PASSES, TOLERANCE = 8, 1e-4  # of the randomised method
MAX_POINTS = 50_000

Passes = Callable[[], Iterator[torch.Tensor]]


@dataclass(frozen=True)
class Samples:
    """Samples that a model is fitted to, read block by block as often as they are needed.

    ds: their patterns and maps. inside: which ones, over the navigation dims, of those of a `region`.
    """

    ds: xr.Dataset
    inside: np.ndarray
    region: np.ndarray
    preprocess: Preprocess
    seed: int = 0

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return int(self.inside.sum())

    @property
    def n_values(self) -> int:
        """Values of a preprocessed sample."""
        return self.preprocess.background.numel()

    def at(self, inside: np.ndarray) -> Samples:
        """Other samples of the same Dataset."""
        return replace(self, inside=inside)

    def at_most(self, count: int) -> Samples:
        """All samples, or a random choice by the seed."""
        if self.n_samples <= count:
            return self
        numbers = np.flatnonzero(self.inside)
        chosen = np.zeros(self.inside.size, bool)
        chosen[np.random.default_rng(self.seed).choice(numbers, count, replace=False)] = True
        return self.at(chosen.reshape(self.inside.shape))

    def stored(self) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Grid points `(b, navigation)` and their patterns as stored, `(b, C, …)`."""
        shape = tuple(self.preprocess.background.shape)
        nav = schema.navigation_dims(self.ds)
        blocks = Blocks(seen_patterns(in_chunks(self.ds[n.PATTERNS], nav), self.preprocess.config), nav)
        size = max(1, min(BATCH_SAMPLES, BATCH_VALUES // math.prod(shape)))
        for block in read_chosen(blocks, self.inside, shape, device=self.preprocess.background.device):
            for start in range(0, len(block.points), size):
                batch = slice(start, start + size)
                yield block.points[batch], block.stored[batch]

    def rows(self) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Grid points, and what is seen of their patterns as rows `(b, values)`."""
        device = self.preprocess.background.device
        for points, stored in self.stored():
            yield points, self.preprocess(stored.to(device)).flatten(1)

    def passes(self) -> Iterator[torch.Tensor]:
        """The rows alone."""
        return (rows for _, rows in self.rows())


class PCA(Variational):
    """Principal components: latents are scores, x = mean + latents x components.

    Parameters
    ----------
    input_shape: shape of a sample, channels first.
    latent_dim: number of components; "auto" for those before the knee of the explained variance (`broken_stick`).
    max_points: number of samples that the components are fitted to at most.
    """

    is_deterministic = True

    def __init__(
        self, input_shape: tuple[int, ...], latent_dim: int | str = 32, *, max_points: int = MAX_POINTS
    ) -> None:
        super().__init__()
        require(max_points > 1, f"max_points is {max_points}; it must be at least 2.")
        self.input_shape, self.latent_dim, self.max_points = tuple(input_shape), latent_dim, max_points
        size = math.prod(input_shape)
        count = 0 if latent_dim == AUTO else int(latent_dim)
        self.set(torch.zeros(size), torch.zeros(count, size))

    def set(self, mean: torch.Tensor, components: torch.Tensor) -> None:
        """Take these parameters."""
        self.mean = nn.Parameter(mean.float(), requires_grad=False)
        self.components = nn.Parameter(components.float(), requires_grad=False)
        self.latent_shape = (len(components),)

    def fit(self, samples: Samples) -> xr.Dataset:
        """Find the components."""
        found = _components(samples.at_most(self.max_points), self.latent_dim)
        self.set(torch.from_numpy(found.mean), torch.from_numpy(found.components))
        return found.explained()

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores `(B, *input_shape) -> (B, latent_dim)`, and a log-variance of -inf."""
        scores = (x.flatten(1) - self.mean) @ self.components.T
        return scores, torch.full_like(scores, -torch.inf)

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        """Samples of scores, `(B, latent_dim) -> (B, *input_shape)`; there is no head to leave out."""
        return (self.mean + z @ self.components).unflatten(1, self.input_shape)


class PPCA(Variational):
    """Factors of a small collection: x = mean + scale * (weight z) + noise, with z of the prior N(0, 1).

    Probabilistic principal components of standardised values (Tipping & Bishop, J. R. Stat. Soc. B 61, 611 (1999)), by
    their closed form. `scale` is the deviation of each value plus the root mean square of all, so that what changes
    little counts too and what never changes does not count much. For samples of any shape `(B, C, …)`, latents
    `(B, latent_dim)`.
    """

    def __init__(self, input_shape: tuple[int, ...], latent_dim: int = 5) -> None:
        super().__init__()
        size = math.prod(input_shape)
        require(size > int(latent_dim) > 0, f"{latent_dim} latents of samples of {size} values.")
        self.input_shape, self.latent_dim, self.latent_shape = tuple(input_shape), latent_dim, (latent_dim,)
        self.seen = nn.BatchNorm1d(size, affine=False)  # mean and variance, under the names of stored weights
        self.weight = nn.Parameter(torch.zeros(size, latent_dim), requires_grad=False)
        self.noise = nn.Parameter(torch.zeros(()), requires_grad=False)

    def fit(self, samples: Samples) -> xr.Dataset:
        """Find the factors of the highest likelihood."""
        mean, variance, _ = moments(samples.passes)
        self.seen.get_buffer("running_mean").copy_(mean)
        self.seen.get_buffer("running_var").copy_(variance)
        scale = self._scale()
        found = fit_pca(
            lambda: (rows / scale for rows in samples.passes()),
            n_samples=samples.n_samples,
            n_values=samples.n_values,
            n_components=self.latent_dim,
            seed=samples.seed,
        )
        noise = max((found.total - found.variance.sum()) / (samples.n_values - self.latent_dim), 1e-12)
        lengths = np.sqrt(np.maximum(found.variance - noise, 0))
        self.weight.copy_(torch.from_numpy(found.components.T * lengths))
        self.noise.fill_(math.log(noise))
        return found.explained()

    def _scale(self) -> torch.Tensor:
        deviation = self.seen.get_buffer("running_var").sqrt()
        return (deviation + deviation.square().mean().sqrt()).clamp_min(1e-12)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of the posterior, `(B, *input_shape) -> 2 x (B, latent_dim)`, float32."""
        with torch.autocast(x.device.type, enabled=False):
            noise, weight = self.noise.exp(), self.weight
            inverse = torch.linalg.inv(weight.T @ weight + noise * torch.eye(self.latent_dim, device=x.device))
            centred = x.float().flatten(1) - self.seen.get_buffer("running_mean")
            mean = (centred / self._scale()) @ weight @ inverse
            return mean, (noise * inverse.diagonal()).log().expand_as(mean)

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        """Samples expected for latents, `(B, latent_dim) -> (B, *input_shape)`; there is no head to leave out."""
        with torch.autocast(z.device.type, enabled=False):
            decoded: torch.Tensor = z.float() @ self.weight.T * self._scale() + self.seen.get_buffer("running_mean")
            return decoded.unflatten(1, self.input_shape)


def moments(passes: Passes) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mean and variance of each value, `(p,)` float64, and the least value of all."""
    count, low = 0, math.inf
    for rows in passes():
        if not count:
            pilot = rows.mean(0).double()
            total, squares = torch.zeros_like(pilot), torch.zeros_like(pilot)
        off = rows.double() - pilot
        count += len(rows)
        total += off.sum(0)
        squares += off.square().sum(0)
        low = float(np.minimum(low, float(rows.min())))  # NaN stays
    shift = total / count
    return pilot + shift, squares / count - shift.square(), low


# ---- principal components of rows ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Components:
    """mean `(p,)`, components `(k, p)` of unit length, explained variance `(k,)` (divisor n - 1), all float64.

    total: variance of all p values together. facts: how they were found.
    """

    mean: np.ndarray
    components: np.ndarray
    variance: np.ndarray
    total: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> np.ndarray:
        """Share of the total variance, `(k,)`."""
        return self.variance / self.total

    def explained(self) -> xr.Dataset:
        """What the components explain, over `latent`."""
        share = {"units": "1", "comment": "of the total variance of all values"}
        cumulative = {"long_name": "share of the variance explained up to here", **share}
        return xr.Dataset(
            {
                "explained_variance": (n.LATENT, self.variance, {"long_name": "explained variance", "units": "1"}),
                "explained_variance_ratio": (n.LATENT, self.ratio, {"long_name": "explained share", **share}),
                "explained_variance_cumulative": (n.LATENT, np.cumsum(self.ratio), cumulative),
            },
            attrs={"total_variance": self.total, **self.facts},
        )


def _components(samples: Samples, count: int | str) -> Components:
    """Principal components of samples; "auto": those before the knee."""
    return fit_pca(
        samples.passes,
        n_samples=samples.n_samples,
        n_values=samples.n_values,
        n_components=None if count == AUTO else int(count),
        seed=samples.seed,
    )


def fit_pca(
    passes: Passes,
    *,
    n_samples: int,
    n_values: int,
    n_components: int | None,
    seed: int = 0,
    exact_values: int = EXACT_VALUES,
) -> Components:
    """Principal components of rows `(b, p)` that `passes()` yields, any number of times, in batches.

    n_components: None takes those before the knee by the broken stick, see `broken_stick`. Up to `exact_values` values
    per row the covariance is accumulated and its leading eigenvectors are found; above, see `_randomised`. The
    component's value of largest size is positive. Raises UsageError for more components than there can be, RoiError for
    fewer than two rows, DataError for rows that are all alike or not finite.
    """
    if n_samples < 2:
        raise RoiError(f"PCA needs at least two scan points, the region has {n_samples}; widen it.")
    most = min(n_samples - 1, n_values)
    if n_components is not None and n_components > most:
        raise UsageError(
            f"{n_components} components are asked for; {n_samples} scan points with {n_values} values each have at "
            f"most {most}."
        )
    wanted = n_components or min(KNEE_LIMIT, most)
    find = _exact if n_values <= exact_values else _randomised
    found = find(passes, n_samples, n_values, wanted, seed)
    if n_components is not None:
        return found
    kept = broken_stick(found.ratio, most)
    warnings = []
    if kept == wanted < most:
        warnings.append(f"The knee lies beyond the {wanted} components that were tried: set latent_dim to a number.")
    return replace(
        found,
        components=found.components[:kept],
        variance=found.variance[:kept],
        facts=found.facts | {"knee": "broken stick", "warnings": warnings},
    )


def broken_stick(ratio: np.ndarray, n_pieces: int) -> int:
    """How many components explain more than the pieces of a stick that is broken at random; at least 1.

    The i-th largest of N random pieces has the expected length sum over k = i..N of 1 / (k N). ratio: shares of the
    total variance, decreasing. Jackson, Ecology 74 (1993) 2204.
    """
    lengths = np.cumsum((1 / np.arange(1, n_pieces + 1))[::-1])[::-1] / n_pieces
    below = np.flatnonzero(ratio <= lengths[: len(ratio)])
    return max(1, int(below[0]) if below.size else len(ratio))


def _exact(passes: Passes, n_samples: int, n_values: int, wanted: int, seed: int) -> Components:
    """By the leading eigenvectors of the covariance."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import eigsh

    mean, total, product = _covariance_times(passes, n_samples)
    covariance = product.cpu().numpy()
    if n_values > 256 and 4 * wanted < n_values:
        start = np.random.default_rng(seed).standard_normal(n_values)
        values, vectors = eigsh(covariance, wanted, v0=start, ncv=max(2 * wanted + 1, wanted + 20))
    else:
        values, vectors = eigh(covariance, subset_by_index=(n_values - wanted, n_values - 1))
    order = np.argsort(-values)
    facts = {"algorithm": "covariance"}
    return Components(mean, _signed(vectors.T[order]), np.maximum(values[order], 0), total, facts)


def _randomised(passes: Passes, n_samples: int, n_values: int, wanted: int, seed: int) -> Components:
    """Randomised subspace iteration with Rayleigh-Ritz values, `2 x p x l` numbers in memory.

    Each pass applies the covariance C to an orthonormal block Q of l > k columns and takes C Q as the next block. The
    same product gives Q' C Q, so that components, variances and the residual |C v - lambda v| of each come for free;
    it ends when the largest residual, as a share of the component's variance, is below TOLERANCE, or after MAX_PASSES.
    Halko, Martinsson & Tropp, SIAM Review 53 (2011) 217, algorithm 4.4.
    """
    columns = min(wanted + max(10, wanted // 2), n_values, n_samples)
    product = torch.randn((n_values, columns), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    done, worst = 0, np.inf
    while worst >= TOLERANCE and done < MAX_PASSES:
        basis = torch.linalg.qr(product)[0]
        mean, total, product = _covariance_times(passes, n_samples, basis)
        basis = basis.to(product.device)
        small = basis.T @ product
        values, rotation = torch.linalg.eigh((small + small.T) / 2)
        values, rotation = values.flip(0)[:wanted], rotation.flip(1)[:, :wanted]
        vectors = basis @ rotation
        residual = torch.linalg.vector_norm(product @ rotation - vectors * values, dim=0)
        worst, done = float((residual / values.clamp_min(1e-300)).max()), done + 1
    facts = {"algorithm": "randomised subspace iteration", "passes": done, "residual": worst, "columns": columns}
    return Components(mean, _signed(vectors.T.cpu().numpy()), values.clamp_min(0).cpu().numpy(), total, facts)


def _covariance_times(
    passes: Passes, n_samples: int, basis: torch.Tensor | None = None
) -> tuple[np.ndarray, float, torch.Tensor]:
    """Mean `(p,)`, total variance, and covariance times `basis` `(p, l)` by one pass; without it the covariance itself.

    About a pilot mean (that of the first batch), so that large offsets cost no digits; products of a batch in the
    precision of its rows, sums over batches in float64.
    """
    count, squares = 0, 0.0
    for rows in passes():
        if not count:
            pilot = rows.mean(0)
            total = torch.zeros_like(pilot, dtype=torch.float64)
            basis = None if basis is None else basis.to(rows.device)
            shape = (len(pilot), len(pilot) if basis is None else basis.shape[1])
            product = torch.zeros(shape, dtype=torch.float64, device=rows.device)
        count += len(rows)
        off = rows - pilot
        total += off.sum(0, dtype=torch.float64)
        squares += float(off.square().sum(dtype=torch.float64))
        product += off.T @ (off if basis is None else off @ basis.to(off.dtype))
    shift = total / n_samples
    product.addr_(shift, shift if basis is None else shift @ basis, alpha=-n_samples).div_(n_samples - 1)
    variance = (squares - n_samples * float(shift.square().sum())) / (n_samples - 1)
    if not np.isfinite(variance):
        raise DataError("patterns of the region hold NaN or infinite values; leave these points out of the region.")
    if variance <= 1e-12 * (float(pilot.double().square().sum()) + squares):
        raise DataError("all patterns of the region are alike, there is no variance to explain; choose another region.")
    return (pilot + shift).cpu().numpy(), variance, product


def _signed(components: np.ndarray) -> np.ndarray:
    """Each row with the sign that makes its value of largest size positive."""
    places = np.abs(components).argmax(1)
    signs = np.sign(components[np.arange(len(components)), places])
    return np.ascontiguousarray(components * np.where(signs == 0, 1, signs)[:, None])
