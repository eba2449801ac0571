"""Principal components of patterns that are streamed: exact by the covariance, or by randomised subspace iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr.errors import DataError, RoiError, SchemaError, UsageError

EXACT_VALUES = 8_000  # values per pattern up to which the covariance is formed: 512 MB in float64
KNEE_LIMIT = 64  # components among which the knee is looked for
MAX_PASSES, TOLERANCE = 8, 1e-4  # of the randomised method

Passes = Callable[[], Iterator[torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Pca:
    """mean `(p,)`, components `(k, p)` of unit length, explained variance `(k,)` (divisor n - 1), all float64.

    total: variance of all p values together. facts: method, passes, how many components were asked for and why.
    """

    mean: np.ndarray
    components: np.ndarray
    variance: np.ndarray
    total: float
    facts: dict[str, Any]

    @property
    def ratio(self) -> np.ndarray:
        """Share of the total variance, `(k,)`."""
        return self.variance / self.total


def fit_pca(
    passes: Passes,
    *,
    n_samples: int,
    n_values: int,
    n_components: int | None,
    seed: int = 0,
    exact_values: int = EXACT_VALUES,
) -> Pca:
    """Principal components of rows `(b, p)` float64 that `passes()` yields, any number of times, in batches.

    n_components: None takes those before the knee by the broken stick, see `broken_stick`. Up to `exact_values` values
    per row the covariance is accumulated and its leading eigenvectors are found by Lanczos iteration; above, see
    `_randomised`. The component's value of largest size is positive. Raises UsageError for more components than there
    can be, RoiError for fewer than two rows, DataError for rows that are all alike or not finite.
    """
    if n_samples < 2:
        raise RoiError(f"PCA needs at least two scan points, the region has {n_samples}; widen it.")
    most = min(n_samples - 1, n_values)
    if n_components is not None and n_components > most:
        raise UsageError(
            f"n_components is {n_components}; {n_samples} scan points with {n_values} values each have at most {most}."
        )
    wanted = n_components or min(KNEE_LIMIT, most)
    find = _exact if n_values <= exact_values else _randomised
    found = find(passes, n_samples, n_values, wanted, seed)
    if n_components is not None:
        return found
    kept = broken_stick(found.ratio, most)
    at_bound = kept == wanted < most
    beyond = f"the knee lies beyond the {wanted} components that were tried: say how many (n_components, --components)."
    knee = {"knee": "broken stick", "knee_at_bound": at_bound, "warnings": [beyond] if at_bound else []}
    components, variance = found.components[:kept], found.variance[:kept]
    return replace(found, components=components, variance=variance, facts=found.facts | knee)


def broken_stick(ratio: np.ndarray, n_pieces: int) -> int:
    """How many components explain more than the pieces of a stick that is broken at random; at least 1.

    The i-th largest of N random pieces has the expected length sum over k = i..N of 1 / (k N). ratio: shares of the
    total variance, decreasing. Jackson, Ecology 74 (1993) 2204.
    """
    lengths = np.cumsum((1 / np.arange(1, n_pieces + 1))[::-1])[::-1] / n_pieces
    below = np.flatnonzero(ratio <= lengths[: len(ratio)])
    return max(1, int(below[0]) if below.size else len(ratio))


def _exact(passes: Passes, n_samples: int, n_values: int, wanted: int, seed: int) -> Pca:
    """By the leading eigenvectors of the covariance."""
    mean, total, covariance = _covariance_times(passes, n_samples)
    values, vectors = _leading(covariance.cpu().numpy(), wanted, seed)
    return Pca(mean, _signed(vectors.T), values, total, {"algorithm": "covariance"})


def _leading(covariance: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues and their vectors, largest first; reads the upper triangle."""
    from scipy.linalg import eigh
    from scipy.linalg.blas import dsymv
    from scipy.sparse.linalg import LinearOperator, eigsh

    size = len(covariance)
    if size > 256 and 4 * k < size:
        view = covariance.T
        operator = LinearOperator((size, size), matvec=lambda v: dsymv(1.0, view, v.ravel(), lower=1), dtype=float)
        start = np.random.default_rng(seed).standard_normal(size)
        values, vectors = eigsh(operator, k, v0=start, ncv=min(size - 1, max(2 * k + 1, k + 20)))
    else:
        values, vectors = eigh(covariance, lower=False, subset_by_index=(size - k, size - 1))
    return np.maximum(values[::-1], 0), vectors[:, ::-1]


def _randomised(passes: Passes, n_samples: int, n_values: int, wanted: int, seed: int) -> Pca:
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
    return Pca(mean, _signed(vectors.T.cpu().numpy()), values.clamp_min(0).cpu().numpy(), total, facts)


def _covariance_times(
    passes: Passes, n_samples: int, basis: torch.Tensor | None = None
) -> tuple[np.ndarray, float, torch.Tensor]:
    """Mean `(p,)`, total variance, and covariance times `basis` `(p, l)` by one pass; without it the covariance itself.

    About a pilot mean (that of the first batch), so that large offsets cost no digits. Of the covariance only the
    upper triangle counts.
    """
    count, squares = 0, 0.0
    for rows in passes():
        if not count:
            pilot = rows.mean(0)
            total = torch.zeros_like(pilot)
            basis = None if basis is None else basis.to(rows.device)
            shape = (len(pilot), len(pilot) if basis is None else basis.shape[1])
            product = torch.zeros(shape, dtype=rows.dtype, device=rows.device)
        count += len(rows)
        off = rows - pilot
        total += off.sum(0)
        squares += float(off.square().sum())
        if basis is None:
            _add_scatter(product, off)
        else:
            product.addmm_(off.T, off @ basis)
    shift = total / n_samples
    product.addr_(shift, shift if basis is None else shift @ basis, alpha=-n_samples).div_(n_samples - 1)
    variance = (squares - n_samples * float(shift.square().sum())) / (n_samples - 1)
    if not np.isfinite(variance):
        raise DataError("patterns of the region hold NaN or infinite values; leave these points out of the region.")
    if variance <= 1e-14 * (float(pilot.square().sum()) + squares):
        raise DataError("all patterns of the region are alike, there is no variance to explain; choose another region.")
    return (pilot + shift).cpu().numpy(), variance, product


def _add_scatter(scatter: torch.Tensor, rows: torch.Tensor) -> None:
    """`scatter += rows.T @ rows`, in place; on the CPU the upper triangle alone, which takes half the time."""
    if scatter.device.type != "cpu":
        scatter.addmm_(rows.T, rows)
        return
    from scipy.linalg.blas import dsyrk

    view = scatter.numpy().T  # the same memory in Fortran's order
    dsyrk(1.0, np.ascontiguousarray(rows.numpy()).T, beta=1.0, c=view, overwrite_c=1, lower=1)


def _signed(components: np.ndarray) -> np.ndarray:
    """Each row with the sign that makes its value of largest size positive."""
    places = np.abs(components).argmax(1)
    signs = np.sign(components[np.arange(len(components)), places])
    return np.ascontiguousarray(components * np.where(signs == 0, 1, signs)[:, None])


def pca_reconstruct(scores: xr.DataArray, components: xr.DataArray, mean: xr.DataArray) -> xr.DataArray:
    """Patterns that the components give back, `mean + scores x components`, over the dims of both; lazy where they are.

    scores: such as `ds.pca (y, x, pca_component)`; components: `ds.pca_components (pca_component, dy, dx)`; a selection
    of components, the same of both, gives the part that it explains. In preprocessed units; NaN where scores are.
    Raises SchemaError where scores and components do not share the same components.
    """
    shared = [str(dim) for dim in scores.dims if dim in components.dims]
    if len(shared) != 1 or not scores[shared[0]].equals(components[shared[0]]):
        raise SchemaError(
            f"scores over {scores.dims} and components over {components.dims} must share the same components; pass "
            "ds.pca and ds.pca_components, or the same selection of both."
        )
    lead = [str(dim) for dim in scores.dims if dim != shared[0]]
    signal = [str(dim) for dim in components.dims if dim != shared[0]]
    result: xr.DataArray = (xr.dot(scores, components, dim=shared[0]) + mean).transpose(*lead, *signal)
    about: dict[str, Any] = {"long_name": "pattern from principal components", "units": "1"}
    about |= {n.NAVIGATION_DIMS: lead, n.SIGNAL_DIMS: signal}
    return result.rename("reconstruction").drop_attrs(deep=False).assign_attrs(about)
