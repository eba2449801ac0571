"""Random maps with the smoothness, patchiness and distribution of a map, independent of any other map.

Neighbouring scan points are similar, so shuffling single points makes maps that are far too rough,
and every smooth latent then seems significant. A surrogate here is a Gaussian random field with the
map's spatial autocovariance, sampled on the complete grid, read at the points of the map, and given
the map's values in the order of the field's. Holes and irregular regions need no filling: the
autocovariance is estimated from pairs of points that both exist.

How the autocovariance is estimated:

1. Values become normal scores, so that outliers and skew do not decide it.
2. Semivariogram gamma(h) = mean of (z(s) - z(s + h))^2 / 2 over all pairs, by FFT of the zero-padded
   map and its mask (Marcotte, Comput. Geosci. 22, 1175 (1996), doi:10.1016/S0098-3004(96)00026-X),
   in bins of distance and direction. Unlike a sample autocovariance it does not suffer from the
   removal of the mean (Cressie, Statistics for Spatial Data (1993), ch. 2.4).
3. It is fitted by a sum with weights >= 0 of Gaussian covariances of many lengths, along some
   directions also elongated, and a nugget (non-negative least squares with relative errors).
   Mixtures of Gaussians are every isotropic covariance that is valid in any number of dimensions
   (Schoenberg, Ann. Math. 39, 811 (1938), doi:10.2307/1968466), and the fit is smooth where single
   lags are noise. Lengths reach up to the size of the map, so trends are kept.
4. Fields come from the square root of the spectrum on a torus twice the grid (Dietrich & Newsam,
   SIAM J. Sci. Comput. 18, 1088 (1997), doi:10.1137/S1064827592240555). The Gaussians are periodic
   on that torus, so the spectrum is never negative and nothing is cut off.
5. A smooth map shows only part of its variance on a small grid, and equal values make a map rougher
   than the underlying field. So surrogates of the first fit are measured like the map itself, the
   fit is corrected by the ratio of the two semivariograms, and again (indirect inference,
   Gourieroux, Monfort & Renault, J. Appl. Econometrics 8, S85 (1993), doi:10.1002/jae.3950080507).

Limits: the map is taken for one sample of a stationary field. Periodic textures (negative
correlation at some distance) and a smoothness that differs between regions are not reproduced.
Under a strong plane trend p-values come out too large: of unrelated maps only about one in 100, not
five, gets a p-value below 0.05. That is safe, but weak; `partial_pearson` removes the trend. The
smoothness of maps with few independent points cannot be estimated well enough: `p_values` gives no
p-value for these.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

N_LENGTHS = 12  # Gaussian lengths, from half a step to the longest side
STRETCHES = (2.0, 4.0)  # how many times longer along a direction than across it
RING = 1.2  # outer over inner radius of a bin of lags
LAGS_PER_BIN = 32
REACH = 0.9  # of each side: lags that decide the fit; with half of it, trends are underestimated
CORRECTIONS = 3  # rounds in which the fit is corrected
N_TRIALS = 16  # surrogates that each round measures
LARGEST_CORRECTION = 4.0  # of a bin of lags in one round
MIN_CORRELATION = 0.1  # below it points count as unrelated, for the side of a block


class Atom(NamedTuple):
    """A Gaussian covariance: `length` along a direction, `length / stretch` across it."""

    length: float
    stretch: float
    direction: np.ndarray


class LagTable(NamedTuple):
    """The pairs of points in a mask, in bins by their lag (offset), and candidate covariances.

    The candidates, called components, are the atoms and, last, the nugget.
    """

    mask: np.ndarray  # (*grid) bool
    steps: np.ndarray  # (d,) spacing along each axis, in units of the smallest
    torus: tuple[int, ...]
    atoms: list[Atom]
    on_torus: np.ndarray  # flat index on the torus of each lag
    bins: np.ndarray  # bin of each lag
    pairs: np.ndarray  # pairs of points per bin
    distance: np.ndarray  # mean distance per bin
    design: np.ndarray  # (bin, component) semivariogram of each component

    @property
    def n(self) -> int:
        """Number of points."""
        return int(self.mask.sum())


def lag_table(mask: np.ndarray, spacing: np.ndarray) -> LagTable:
    """Table of lags between the true points of `mask` (*grid).

    `spacing`: distance of neighbours along each axis. Axes of length 1 are fine. Lags reach REACH of each side.
    """
    import scipy.fft

    steps = spacing / spacing.min()
    shape = np.array(mask.shape)
    torus = tuple(int(scipy.fft.next_fast_len(2 * size)) for size in mask.shape)
    periods = np.array(torus) * steps
    pairs = _pairs_by_lag(mask, torus).ravel()
    offsets = _torus_offsets(torus).reshape(-1, mask.ndim)
    is_within_reach = (np.abs(offsets) <= np.maximum(REACH * shape, 1)).all(axis=1)
    on_torus = np.flatnonzero(_is_forward(offsets) & is_within_reach & (pairs > 0))
    directions = _directions(mask.ndim)
    chosen, bins = _bin_lags(offsets[on_torus] * steps, directions)
    on_torus = on_torus[chosen]
    h = offsets[on_torus] * steps
    pairs_in_bin = np.bincount(bins, pairs[on_torus])

    def bin_means(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.bincount(bins, pairs[on_torus] * values) / pairs_in_bin)

    atoms = _atoms(float((shape * steps).max()), directions, mask.ndim)
    origin = np.zeros((1, mask.ndim))
    semivariogram = []
    for atom in atoms:
        correlation = _gaussian(atom, h, periods) / _gaussian(atom, origin, periods)
        semivariogram.append(bin_means(1 - correlation))
    nugget = np.ones(len(pairs_in_bin))
    design = np.stack([*semivariogram, nugget], axis=1)
    distance = bin_means(np.linalg.norm(h, axis=1))
    return LagTable(mask, steps, torus, atoms, on_torus, bins, pairs_in_bin, distance, design)


def _pairs_by_lag(mask: np.ndarray, torus: tuple[int, ...]) -> np.ndarray:
    """Pairs of points of a mask at each offset, (*torus)."""
    import scipy.fft

    transformed = scipy.fft.rfftn(mask.astype(float), torus)
    pairs = scipy.fft.irfftn(np.abs(transformed) ** 2, torus)
    return np.asarray(np.rint(pairs))


def _torus_offsets(torus: tuple[int, ...]) -> np.ndarray:
    """Signed offset in steps of each torus point from the origin, (*torus, d)."""
    axes = [np.rint(np.fft.fftfreq(size) * size) for size in torus]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def _is_forward(offsets: np.ndarray) -> np.ndarray:
    """Whether the first coordinate other than 0 is positive: one of each pair h, -h, and not 0."""
    base = 2 * np.abs(offsets).max() + 1
    place_values = base ** np.arange(offsets.shape[1])[::-1]
    return np.asarray(offsets @ place_values > 0)


def _directions(ndim: int) -> np.ndarray:
    """Unit vectors along axes and diagonals: 4 in the plane, 13 in space."""
    steps = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=ndim)))
    steps = steps[_is_forward(steps)]
    lengths = np.linalg.norm(steps, axis=1, keepdims=True)
    return np.asarray(steps / lengths)


def _bin_lags(h: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lags that are kept, at most LAGS_PER_BIN evenly from each bin, and the bin of each.

    A bin is a ring of distances in one direction. Up to a distance of 3 steps each distance has its
    own ring; beyond, the radii grow by the factor RING. 100 is added to the numbers of the latter,
    so that the two numberings do not overlap.
    """
    r = np.linalg.norm(h, axis=1)
    wide_ring = np.floor(np.log(np.maximum(r, 1)) / np.log(RING))
    ring = np.where(r <= 3, np.rint(r * r), 100 + wide_ring)
    direction = np.abs(h @ directions.T).argmax(axis=1)
    frame = pd.DataFrame({"ring": ring, "direction": direction})
    bins = frame.groupby(["ring", "direction"])
    n_lags = bins["ring"].transform("size")
    step = np.ceil(n_lags / LAGS_PER_BIN)
    kept = np.flatnonzero(bins.cumcount() % step == 0)
    return kept, bins.ngroup().to_numpy()[kept]


def _atoms(longest: float, directions: np.ndarray, ndim: int) -> list[Atom]:
    """Round covariances of all lengths, then elongated ones, in space flattened ones too."""
    lengths = np.geomspace(0.5, max(longest, 1.0), N_LENGTHS).tolist()
    stretches = list(STRETCHES) if ndim > 1 else []
    if ndim > 2:
        stretches += [1 / stretch for stretch in STRETCHES]
    atoms = [Atom(length, 1.0, directions[0]) for length in lengths]
    for length, stretch, direction in itertools.product(lengths, stretches, directions):
        atoms.append(Atom(length, stretch, direction))
    return atoms


def _gaussian(atom: Atom, h: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """Covariance at offsets h (..., d), summed over its periodic images."""
    # no images of a Gaussian that falls to exp(-7^2 / 2) = 2e-11 within half a period
    widest = max(atom.length, atom.length / atom.stretch)
    images = [range(-1, 2) if 14 * widest > period else range(1) for period in periods]
    total = np.zeros(h.shape[:-1])
    for image in itertools.product(*images):
        shifted = h + np.array(image) * periods
        along = (shifted @ atom.direction) ** 2
        across = np.einsum("...d,...d->...", shifted, shifted) - along
        squared_distance = along + across * atom.stretch**2
        total += np.exp(-0.5 * squared_distance / atom.length**2)
    return total


def semivariograms(lags: LagTable, values: np.ndarray) -> np.ndarray:
    """gamma (k, bin) of columns `values` (n, k) at the points of the mask."""
    import scipy.fft

    mask = scipy.fft.rfftn(lags.mask.astype(float), lags.torus)
    gamma = np.empty((values.shape[1], len(lags.pairs)))
    for k, column in enumerate(values.T):
        grid = np.zeros(lags.mask.shape)
        grid[lags.mask] = column - column.mean()
        transformed = scipy.fft.rfftn(grid, lags.torus)
        transformed_squares = scipy.fft.rfftn(grid**2, lags.torus)
        # sum of (a - b)^2 / 2 over pairs = sum of (a^2 + b^2) / 2 - a b. The real part averages the
        # sums of squares at h and -h, which are those of a and of b
        of_squares = (np.conj(transformed_squares) * mask).real
        of_products = np.abs(transformed) ** 2
        sums = scipy.fft.irfftn(of_squares - of_products, lags.torus)
        sums_in_bin = np.bincount(lags.bins, sums.ravel()[lags.on_torus], len(lags.pairs))
        gamma[k] = sums_in_bin / lags.pairs
    return np.maximum(gamma, 0)


def covariance_weights(lags: LagTable, gamma: np.ndarray) -> np.ndarray:
    """Weights >= 0 (k, component) of covariances with the semivariograms `gamma` (k, bin).

    NaN where all are 0. Weighted by 1 / gamma, in two rounds: close lags matter as much as far ones
    (Cressie, Math. Geol. 17, 563 (1985), doi:10.1007/BF01032109).
    """
    from scipy.optimize import nnls

    weights = np.full((len(gamma), lags.design.shape[1]), np.nan)
    for k, observed in enumerate(gamma):
        top = observed.max(initial=0)
        if not top > 0:
            continue
        expected = np.maximum(observed, 1e-3 * top)
        for _ in range(2):
            weights[k], _ = nnls(lags.design / expected[:, None], observed / expected)
            expected = np.maximum(lags.design @ weights[k], 1e-4 * top)
    return weights


def _covariance(lags: LagTable, component: np.integer) -> np.ndarray:
    """Covariance (*torus) of a component, by its number, 1 at offset 0."""
    if component == len(lags.atoms):
        nugget = np.zeros(lags.torus)
        nugget.flat[0] = 1.0
        return nugget
    offsets = _torus_offsets(lags.torus) * lags.steps
    periods = np.array(lags.torus) * lags.steps
    values = _gaussian(lags.atoms[component], offsets, periods)
    return np.asarray(values / values.flat[0])


def _on_points(lags: LagTable, field: np.ndarray) -> np.ndarray:
    """A field (*torus) at the points of the mask, (n,)."""
    inside = tuple(slice(size) for size in lags.mask.shape)
    return np.asarray(field[inside][lags.mask])


def effective_points(lags: LagTable, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Effective sample size `(a, b)` of the correlation of maps with these covariance weights.

    1 + tr(HA) tr(HB) / tr(HAHB), A and B the covariance matrices at the points and H the removal of
    the mean (Dutilleul, Biometrics 49, 305 (1993), doi:10.2307/2532625): under independence the
    variance of r is 1 / (n_effective - 1). Without forming a matrix: sums over lags and
    convolutions with the mask. NaN for NaN weights.
    """
    import scipy.fft

    weights = np.concatenate([first, second])
    used = np.flatnonzero(np.nansum(weights, axis=0))
    mask = scipy.fft.rfftn(lags.mask.astype(float), lags.torus)
    pairs = np.maximum(_pairs_by_lag(lags.mask, lags.torus), 0)
    occurs = pairs > 0
    by_lag = np.empty((len(used), occurs.sum()))
    sums = np.empty((len(used), lags.n))
    for row, component in enumerate(used):
        values = _covariance(lags, component)
        by_lag[row] = values[occurs] * np.sqrt(pairs[occurs])
        convolved = scipy.fft.irfftn(scipy.fft.rfftn(values) * mask, lags.torus)
        sums[row] = _on_points(lags, convolved)
    total = sums.sum(axis=1)
    # tr(HCHD) for each pair of components, C and D their covariance matrices
    cross = by_lag @ by_lag.T - 2 / lags.n * sums @ sums.T
    cross += np.outer(total, total) / lags.n**2
    trace = lags.n - total / lags.n  # tr(HC) of each component
    a = first[:, used]
    b = second[:, used]
    traces = np.outer(a @ trace, b @ trace)
    n_effective = 1 + traces / (a @ cross @ b.T)
    return np.asarray(np.clip(n_effective, 2.0, lags.n))


def surrogate_maps(
    lags: LagTable | None, values: np.ndarray, count: int, seed: np.random.SeedSequence
) -> Iterator[np.ndarray]:
    """`count` rearrangements (n,) of the map `values` (n,), as smooth as the map.

    Values are permuted for samples without neighbours (`lags` is None), constant maps and maps
    whose points are all out of reach of each other.
    """
    rng = np.random.default_rng(seed)
    if lags is not None:
        weights = _fit_map(lags, values, rng)
        if np.isfinite(weights).all():
            yield from _rearranged(lags, weights, values, count, rng)
            return
    for _ in range(count):
        yield rng.permutation(values)


def _fit_map(lags: LagTable, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Weights (component,) of the field whose surrogates are on average as smooth as a map."""
    scores = _normal_scores(values)
    observed = semivariograms(lags, scores[:, None])
    aim = observed
    weights = covariance_weights(lags, aim)[0]
    if not np.isfinite(weights).all():
        return weights
    for _ in range(CORRECTIONS):
        trials = np.column_stack(list(_rearranged(lags, weights, scores, N_TRIALS, rng)))
        simulated = semivariograms(lags, trials).mean(axis=0)
        ratio = np.divide(observed, simulated, out=np.ones_like(observed), where=simulated > 0)
        aim = aim * np.clip(ratio, 1 / LARGEST_CORRECTION, LARGEST_CORRECTION)
        weights = covariance_weights(lags, aim)[0]
    return weights


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Expected standard normal of each value's rank (n,); tied values share the mean over ranks."""
    from scipy.special import ndtri
    from scipy.stats import norm

    _, rank, count = np.unique(values, return_inverse=True, return_counts=True)
    if len(count) == len(values):
        return np.asarray(ndtri((rank + 0.5) / len(values)))
    edges = np.r_[0, np.cumsum(count)] / len(values)
    density = norm.pdf(ndtri(edges))  # 0 at both ends
    scores = -np.diff(density) / np.diff(edges)
    return np.asarray(scores[rank])


def _rearranged(
    lags: LagTable,
    weights: np.ndarray,
    values: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """The values (n,) in the order of `count` random fields of the covariance with these weights."""
    import scipy.fft

    ordered = np.sort(values)
    power = np.zeros(lags.torus)
    for component in np.flatnonzero(weights):
        spectrum = scipy.fft.fftn(_covariance(lags, component)).real
        power += weights[component] * np.maximum(spectrum, 0)
    root = np.sqrt(power)  # fields are not normalised: only their order is used
    for number in range(0, count, 2):
        noise = rng.standard_normal(lags.torus) + 1j * rng.standard_normal(lags.torus)
        two_fields = _on_points(lags, scipy.fft.ifftn(noise * root, overwrite_x=True))
        # independent fields; of the last pair one if `count` is odd
        for field in (two_fields.real, two_fields.imag)[: count - number]:
            surrogate = np.empty_like(ordered)
            surrogate[np.argsort(field, kind="stable")] = ordered
            yield surrogate


def block_side(lags: LagTable, values: np.ndarray) -> int:
    """Side of a block in scan points: twice the correlation length of a map, at least one.

    At most a quarter of the longest axis. Beyond the correlation length points of the fitted field
    correlate by less than MIN_CORRELATION.
    """
    weights = _fit_map(lags, values, np.random.default_rng(0))
    if not np.isfinite(weights).all():
        return 1
    correlation = 1 - lags.design @ weights / weights.sum()
    related = lags.distance[correlation >= MIN_CORRELATION]
    length = max(related.max(initial=0.0), 1.0)
    largest = max(1, max(lags.mask.shape) // 4)
    return int(np.clip(np.ceil(2 * length), 1, largest))
