"""Non-negative amounts of fixed endmembers: the means of windows at coordinates, of classes, or of
windows that differ most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, UsageError
from vaearr.models.linear import AUTO, BATCH_SAMPLES, Samples, fit_pca
from vaearr.models.networks import require
from vaearr.schema import grid, meanings

LARGEST_CONDITION = 1e12  # of the Gram matrix of endmembers of unit length
REACH = 1  # of a window to each side of its centre: 3 x 3 scan points
QUIET = 0.5  # share of the windows that vary least inside, from which endmembers are chosen

# scan points that each endmember is the mean of, `(k, *grid)` boolean, and its origin, as JSON
Endmembers = tuple[np.ndarray, list[dict[str, Any]]]


class NMF(nn.Module):
    """Non-negative amounts of fixed endmembers: latents are amounts, x = latents x endmembers.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of a sample, channels first.
    latent_dim : int
        Number of windows of 3 x 3 scan points to choose where no endmembers are named.
    endmembers : sequence of (x, y)
        Centres of reference windows of 3 x 3 points, in coordinate units.
    classes : str, optional
        Map of clusters or phases whose class means are the endmembers.
    elements : sequence of str
        Elements whose maps are explained too, when the store is encoded.
    weight : float
        Weight of the element maps relative to the patterns; both count by their variance.
    """

    is_deterministic = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int | str = 8,
        *,
        endmembers: Sequence[Sequence[float]] = (),
        classes: str | None = None,
        elements: Sequence[str] = (),
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        require(
            not (endmembers and classes),
            "endmembers and classes both name the endmembers: set one of them.",
        )
        require(weight > 0, f"weight is {weight}; it must be above 0.")
        self.input_shape = tuple(input_shape)
        self.latent_dim = latent_dim
        self.endmembers = endmembers
        self.classes = classes
        self.elements = tuple(elements)
        self.weight = weight
        count = 0 if latent_dim == AUTO else int(latent_dim)
        self.set(np.zeros((count, math.prod(input_shape))), np.zeros((count, len(elements))))
        # weights of a squared difference of a pixel and of an element
        self.shares = nn.Parameter(torch.ones(2), requires_grad=False)

    def set(self, components: np.ndarray, contents: np.ndarray) -> None:
        """Set endmembers `(k, p)` and their contents of elements `(k, elements)`."""
        self.components = nn.Parameter(torch.from_numpy(components).float(), requires_grad=False)
        self.contents = nn.Parameter(torch.from_numpy(contents).float(), requires_grad=False)
        self.latent_shape = (len(components),)

    def fit(self, samples: Samples) -> xr.Dataset:
        """Find the endmembers.

        Raises DataError for negative values and for endmembers that depend on each other.
        """
        samples = samples.at(samples.region)
        rows = samples.matrix()
        variance = rows.var(0, dtype=np.float64)
        _check_amounts(rows, "preprocessed patterns")
        chosen, origins = self._endmembers(samples, rows)
        components = _group_means(samples, chosen)
        contents = np.zeros((len(components), 0))
        if self.elements:
            contents, element_variance = _contents(self.content(samples.ds), samples.inside, chosen)
            element_share = self.weight / (element_variance * len(self.elements))
            self.shares.copy_(torch.tensor([1 / float(variance.sum()), element_share]))
        self.set(components, contents)
        gram = components @ components.T
        _check_independent(gram)
        squares = 0.0
        for batch in np.array_split(rows, math.ceil(len(rows) / BATCH_SAMPLES)):
            amounts = nnls(gram, batch.astype(np.float64) @ components.T)
            squares += float(np.square(batch - amounts @ components).sum())
        mse = squares / rows.size
        r2 = 1 - mse / max(float(variance.mean()), 1e-300)
        return xr.Dataset(attrs={"endmembers": origins, "mse": mse, "r2": r2})

    def content(self, ds: xr.Dataset) -> np.ndarray:
        """Return the content of the elements at each scan point, `(*grid, elements)`.

        Raises UsageError for a missing element.
        """
        if n.ELEMENTS not in ds or not {*self.elements} <= {*ds[n.ELEMENTS][n.ELEMENT].values}:
            raise UsageError(
                f"the store lacks maps of some of the elements {', '.join(self.elements)}."
            )
        maps = ds[n.ELEMENTS].sel({n.ELEMENT: list(self.elements)})
        return np.asarray(maps.transpose(*schema.navigation_dims(ds), n.ELEMENT).values, np.float64)

    def encode(
        self, x: torch.Tensor, content: np.ndarray | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode samples to amounts `(B, latent_dim)`, with a log-variance of -inf.

        content: of the elements, `(B, elements)`; amounts are NaN where it is. Without it the
        patterns alone count.
        """
        components = self.components.cpu().double().numpy()
        pixel_share, element_share = self.shares.tolist()
        gram = components @ components.T * pixel_share
        products = x.flatten(1).cpu().double().numpy() @ components.T * pixel_share
        if content is not None:
            contents = self.contents.cpu().double().numpy()
            gram += contents @ contents.T * element_share
            products += content @ contents.T * element_share
        amounts = torch.from_numpy(nnls(gram, products)).to(x.device, torch.float32)
        return amounts, torch.full_like(amounts, -torch.inf)

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        """Return samples `(B, *input_shape)` of amounts; there is no head to leave out."""
        return (z @ self.components).unflatten(1, self.input_shape)

    def _endmembers(self, samples: Samples, rows: np.ndarray) -> Endmembers:
        ds = samples.ds
        if self.endmembers:
            return _at_coordinates(ds, samples.inside, self.endmembers)
        if self.classes:
            return _of_classes(ds, samples.inside, self.classes)
        if self.latent_dim == AUTO:
            raise UsageError(
                "set latent_dim to a number of endmembers, or name them (options endmembers, "
                "classes)."
            )
        dims = schema.navigation_dims(ds)
        if dims[-2:] != (n.Y, n.X):
            raise UsageError(
                f"reference windows need a scan over y and x, not {dims}; use the option classes."
            )
        count = int(self.latent_dim)
        return _reference_windows(ds, _even_scores(samples, rows, count - 1), count)


def nnls(gram: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Solve non-negative least squares of many right-hand sides: `a >= 0` that minimises |b - A a|.

    gram: A'A `(k, k)`; products: rows b'A `(n, k)`, NaN in, NaN out. Returns float64 `(n, k)`, by
    scipy's active set method (Lawson & Hanson 1974) on the Cholesky factor of the Gram matrix.
    """
    from scipy.linalg import solve_triangular
    from scipy.optimize import nnls as active_set

    lengths = np.sqrt(np.diag(gram))
    factor = np.linalg.cholesky(gram / np.outer(lengths, lengths)).T
    is_finite = np.isfinite(products).all(1)
    sides = solve_triangular(factor, (products[is_finite] / lengths).T, trans="T").T
    size = np.linalg.norm(sides, axis=1, keepdims=True)
    sides = np.divide(sides, size, out=np.zeros_like(sides), where=size > 0)
    solutions = [active_set(factor, side, maxiter=50 * len(gram))[0] for side in sides]
    amounts = np.full(products.shape, np.nan)
    amounts[is_finite] = np.reshape(solutions, sides.shape) * size / lengths
    return amounts


def _check_independent(gram: np.ndarray) -> None:
    """Raise DataError unless the endmembers are independent of each other."""
    lengths = np.sqrt(np.diag(gram))
    if not np.isfinite(gram).all() or (lengths <= 0).any():
        raise DataError("an endmember is zero or not finite; choose other endmembers.")
    values = np.linalg.eigvalsh(gram / np.outer(lengths, lengths))
    if values[0] * LARGEST_CONDITION < values[-1]:
        raise DataError(
            f"the {len(gram)} endmembers depend on each other: at least two are nearly equal, or "
            "one is "
            "a mixture of the others; choose fewer or other ones."
        )


def _check_amounts(values: np.ndarray, what: str) -> None:
    """Raise DataError for values that non-negative mixtures cannot give."""
    low = float(values.min())
    if low < 0:
        raise DataError(
            f"NMF explains by non-negative amounts, but {what} go down to {low:.4g}; use the "
            "model pca, or "
            "store them without a negative offset."
        )


def _contents(
    content: np.ndarray, inside: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, float]:
    """Content of each endmember `(k, elements)`, and the mean variance of the element maps in the
    region.
    """
    usable = inside & np.isfinite(content).all(-1)
    used = chosen & usable
    has_points = used.reshape(len(used), -1).any(1).all()
    if not has_points or np.ptp(content[usable], axis=0).max() == 0:
        raise UsageError(
            "element values are missing at all points of an endmember, or constant in the region. "
            "Choose other endmembers, or leave out elements."
        )
    _check_amounts(content[usable], "element maps")
    contents = np.stack([content[points].mean(0) for points in used])
    return contents, float(content[usable].var(0).mean())


def _group_means(samples: Samples, chosen: np.ndarray) -> np.ndarray:
    """Mean preprocessed pattern of each of k groups of points `(k, *grid)`, `(k, values)`."""
    total = np.zeros((len(chosen), samples.n_values))
    for points, rows in samples.at(np.any(chosen, axis=0)).rows():
        weights = chosen[(slice(None), *points.T)].astype(float)
        total += weights @ rows.cpu().double().numpy()
    return np.asarray(total / chosen.reshape(len(chosen), -1).sum(1)[:, None])


def _even_scores(samples: Samples, rows: np.ndarray, count: int) -> np.ndarray:
    """Principal scores of patterns of equal brightness, `(*grid, count)`, NaN outside."""

    def even(values: np.ndarray) -> np.ndarray:
        level = values.mean(1, keepdims=True)
        return np.divide(values, level, out=np.zeros_like(values), where=level > 0)

    count = max(1, count)
    pca = fit_pca(even(rows), count, samples.seed)
    scores = np.full((*samples.inside.shape, count), np.nan)
    for points, values in samples.rows():
        scores[tuple(points.T)] = pca.transform(even(values.cpu().numpy()))
    return scores


def _at_coordinates(
    ds: xr.Dataset, inside: np.ndarray, coordinates: Sequence[Sequence[float]]
) -> Endmembers:
    """3 x 3 windows around (x, y) in coordinate units, cut at the border of the region.

    Raises UsageError for a point that is farther than half a step from every scan point, or outside
    the region.
    """
    dims = schema.navigation_dims(ds)
    if dims != (n.Y, n.X):
        raise UsageError(
            f"endmembers by (x, y) need a scan over ('y', 'x'), not {dims}; use the option classes."
        )
    chosen = []
    origins = []
    for x, y in coordinates:
        point = grid.find_point(ds, {n.X: x, n.Y: y})
        centre = (point[n.Y], point[n.X])
        if not inside[centre]:
            raise UsageError(
                f"endmember (x, y) = ({x:g}, {y:g}) lies outside the region of interest; choose "
                "another."
            )
        window = _window(inside.shape, centre) & inside
        chosen.append(window)
        origins.append(_origin(ds, centre, window))
    return np.stack(chosen), origins


def _origin(ds: xr.Dataset, centre: Sequence[int], window: np.ndarray) -> dict[str, Any]:
    """Coordinates of a window's centre, and the number of its points."""
    dims = schema.navigation_dims(ds)
    origin: dict[str, Any] = {dim: float(ds[dim][i]) for dim, i in zip(dims, centre, strict=True)}
    return origin | {"n": int(window.sum())}


def _window(shape: tuple[int, ...], centre: tuple[int, ...]) -> np.ndarray:
    """The points of a grid at most REACH rows and columns from a centre."""
    window = np.zeros(shape, bool)
    row, column = centre[-2:]
    within = np.s_[
        max(0, row - REACH) : row + REACH + 1, max(0, column - REACH) : column + REACH + 1
    ]
    window[centre[:-2]][within] = True
    return window


def _of_classes(ds: xr.Dataset, inside: np.ndarray, name: str) -> Endmembers:
    """The points of each class of a map inside the region. Raises UsageError where fewer than two
    classes occur.
    """
    positions, classes = grid.class_map(ds, name)
    class_names = meanings(ds[name])
    chosen = []
    origins = []
    for i, code in enumerate(classes):
        points = inside & (positions == i)
        if points.any():
            chosen.append(points)
            origins.append(
                {
                    "map": name,
                    "class": code,
                    "name": class_names.get(code, str(code)),
                    "n": int(points.sum()),
                }
            )
    if len(chosen) < 2:
        raise UsageError(
            f"{name!r} has {len(chosen)} class(es) in the region of interest; at least two are "
            "needed."
        )
    return np.stack(chosen), origins


def _reference_windows(ds: xr.Dataset, scores: np.ndarray, k: int) -> Endmembers:
    """k windows of 3 x 3 scan points that are as different as can be and even inside; no two
    overlap.

    scores: k - 1 principal scores of patterns of equal brightness, `(*grid, m)`, NaN outside the
    region. Of the windows completely inside, the half whose points differ least from
    their mean remains; among these, successive projection takes the window farthest from the span
    of those chosen before. Araujo et al., Chemom. Intell. Lab. Syst. 57 (2001) 65; Gillis &
    Vavasis, IEEE TPAMI 36 (2014) 698. Deterministic. Raises UsageError where the region holds too
    few windows or too few different ones.
    """
    padding = [(0, 0)] * (scores.ndim - 3) + [(REACH, REACH)] * 2 + [(0, 0)]
    side = 2 * REACH + 1
    padded = np.pad(scores, padding, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(-3, -2))
    means = windows.mean((-1, -2))
    spread = windows.var((-1, -2)).sum(-1)
    is_complete = np.isfinite(spread)
    if is_complete.sum() < k:
        raise UsageError(
            f"the region holds {int(is_complete.sum())} windows of 3 x 3 scan points, {k} are "
            "needed; "
            "set a smaller latent_dim, widen the region, or name the endmembers."
        )
    is_even = is_complete & (spread <= np.quantile(spread[is_complete], QUIET))
    centres = _successive_projection(means, is_even, k)
    chosen = [_window(spread.shape, centre) for centre in centres]
    origins = [_origin(ds, centre, window) for centre, window in zip(centres, chosen, strict=True)]
    return np.stack(chosen), origins


def _successive_projection(means: np.ndarray, allowed: np.ndarray, k: int) -> list[tuple[int, ...]]:
    """Centres of k windows, each the farthest from the span of those before; windows that overlap
    one are left out.

    means: `(*grid, m)`, to which a constant is added so that the span of points holds their
    mixtures.
    """
    centres = np.argwhere(allowed)
    values = means[tuple(centres.T)]
    size = np.sqrt((values**2).sum(1).mean())
    rest = np.column_stack([values, np.full(len(values), size if size > 0 else 1.0)])
    usable = np.ones(len(rest), bool)
    start = (rest**2).sum(1).max()
    picked: list[tuple[int, ...]] = []
    for _ in range(k):
        squares = np.where(usable, (rest**2).sum(1), -1.0)
        best = int(squares.argmax())
        if squares[best] <= 1e-18 * start:
            raise UsageError(
                f"only {len(picked)} different reference windows were found, {k} are needed; set a "
                "smaller latent_dim or name the endmembers."
            )
        axis = rest[best] / np.sqrt(squares[best])
        rest = rest - np.outer(rest @ axis, axis)
        picked.append(tuple(map(int, centres[best])))
        is_near = np.abs(centres[:, -2:] - centres[best, -2:]).max(1) <= 2 * REACH
        usable &= ~(is_near & (centres[:, :-2] == centres[best, :-2]).all(1))
    return picked
