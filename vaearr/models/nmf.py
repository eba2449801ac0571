"""Non-negative amounts of fixed endmembers: means at coordinates, of classes, or of windows that
differ most.
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

Members = tuple[np.ndarray, list[dict[str, Any]]]
# which scan points each endmember is the mean of, `(k, *grid)` boolean, and where it comes from, as
# JSON


class NMF(nn.Module):
    """Non-negative amounts of fixed endmembers: latents are amounts, x = latents x endmembers.

    Parameters
    ----------
    input_shape: shape of a sample, channels first.
    latent_dim: number of endmembers that are looked for where none are named: windows of 3 x 3 scan
    points.
    endmembers: (x, y) of reference windows of 3 x 3 points, in coordinate units.
    classes: map of clusters or phases whose class means are the endmembers.
    elements: names of elements whose maps are explained too, when the store is encoded.
    weight: of the element maps beside the patterns; both count by their variance.
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
        self.input_shape, self.latent_dim = tuple(input_shape), latent_dim
        self.endmembers, self.classes = endmembers, classes
        self.elements, self.weight = tuple(elements), weight
        count = 0 if latent_dim == AUTO else int(latent_dim)
        self.set(np.zeros((count, math.prod(input_shape))), np.zeros((count, len(elements))))
        # what a squared difference counts, of a pixel and of an element
        self.shares = nn.Parameter(torch.ones(2), requires_grad=False)

    def set(self, components: np.ndarray, contents: np.ndarray) -> None:
        """Take endmembers `(k, p)` and their contents of elements `(k, elements)`."""
        self.components = nn.Parameter(torch.from_numpy(components).float(), requires_grad=False)
        self.contents = nn.Parameter(torch.from_numpy(contents).float(), requires_grad=False)
        self.latent_shape = (len(components),)

    def fit(self, samples: Samples) -> xr.Dataset:
        """Find the endmembers. Raises DataError for negative values and endmembers that depend on
        each other.
        """
        samples = samples.at(samples.region)
        rows = samples.matrix()
        variance = rows.var(0, dtype=np.float64)
        _check_amounts(rows, "preprocessed patterns")
        chosen, described = self._members(samples, rows)
        components = _group_means(samples, chosen)
        contents = np.zeros((len(components), 0))
        if self.elements:
            content = self.content(samples.ds)
            contents, element_variance = _contents(content, samples.inside, chosen)
            shares = [
                1 / float(variance.sum()),
                self.weight / (element_variance * len(self.elements)),
            ]
            self.shares.copy_(torch.tensor(shares))
        self.set(components, contents)
        _check_independent(components @ components.T)
        squares = 0.0
        for batch in np.array_split(rows, -(-len(rows) // BATCH_SAMPLES)):
            amounts = nnls(components @ components.T, batch.astype(np.float64) @ components.T)
            squares += float(np.square(batch - amounts @ components).sum())
        mse = squares / rows.size
        r2 = 1 - mse / max(float(variance.mean()), 1e-300)
        return xr.Dataset(attrs={"endmembers": described, "mse": mse, "r2": r2})

    def content(self, ds: xr.Dataset) -> np.ndarray:
        """Content of the elements at each scan point, `(*grid, elements)`. Raises UsageError for a
        missing element.
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
        """Amounts `(B, *input_shape) -> (B, latent_dim)`, and a log-variance of -inf.

        content: of the elements, `(B, elements)`; amounts are NaN where it is. Without it the
        patterns alone count.
        """
        ends, contents = (
            self.components.cpu().double().numpy(),
            self.contents.cpu().double().numpy(),
        )
        share, element_share = self.shares.tolist()
        gram = ends @ ends.T * share
        products = x.flatten(1).cpu().double().numpy() @ ends.T * share
        if content is not None:
            gram += contents @ contents.T * element_share
            products += content @ contents.T * element_share
        amounts = torch.from_numpy(nnls(gram, products)).to(x.device, torch.float32)
        return amounts, torch.full_like(amounts, -torch.inf)

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        """Samples of amounts, `(B, latent_dim) -> (B, *input_shape)`; there is no head to leave
        out.
        """
        return (z @ self.components).unflatten(1, self.input_shape)

    def _members(self, samples: Samples, rows: np.ndarray) -> Members:
        ds, inside = samples.ds, samples.inside
        if self.endmembers:
            return _at_coordinates(ds, inside, self.endmembers)
        if self.classes:
            return _of_classes(ds, inside, self.classes)
        if self.latent_dim == AUTO:
            raise UsageError(
                "set latent_dim to a number of endmembers, or name them (options endmembers, classes)."
            )
        dims = schema.navigation_dims(ds)
        if dims[-2:] != (n.Y, n.X):
            raise UsageError(
                f"reference windows need a scan over y and x; this one lies over {dims}. Use the option classes."
            )
        return _reference_windows(
            ds, _even_scores(samples, rows, int(self.latent_dim) - 1), int(self.latent_dim)
        )


def nnls(gram: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Non-negative least squares of many right-hand sides: `a >= 0` that minimises |b - A a|, for
    each row.

    gram: A'A `(k, k)`; products: rows b'A `(n, k)`, NaN in, NaN out. Returns float64 `(n, k)`, by
    scipy's active set method (Lawson & Hanson 1974) on the Cholesky factor of the Gram matrix.
    """
    from scipy.linalg import solve_triangular
    from scipy.optimize import nnls as active_set

    lengths = np.sqrt(np.diag(gram))
    factor = np.linalg.cholesky(gram / np.outer(lengths, lengths)).T
    known = np.isfinite(products).all(1)
    sides = solve_triangular(factor, (products[known] / lengths).T, trans="T").T
    size = np.linalg.norm(sides, axis=1, keepdims=True)
    sides = np.divide(sides, size, out=np.zeros_like(sides), where=size > 0)
    amounts = np.full(products.shape, np.nan)
    found = [active_set(factor, side, maxiter=50 * len(gram))[0] for side in sides]
    amounts[known] = np.reshape(found, sides.shape) * size / lengths
    return amounts


def _check_independent(gram: np.ndarray) -> None:
    """Raise DataError unless the endmembers are independent of each other."""
    lengths = np.sqrt(np.diag(gram))
    if not np.isfinite(gram).all() or (lengths <= 0).any():
        raise DataError("an endmember is zero or not finite; choose other endmembers.")
    values = np.linalg.eigvalsh(gram / np.outer(lengths, lengths))
    if values[0] * LARGEST_CONDITION < values[-1]:
        raise DataError(
            f"the {len(gram)} endmembers depend on each other (condition {values[-1] / max(values[0], 1e-300):.1e}): "
            "at least two are nearly alike, or one is a mixture of the others; choose fewer or other ones."
        )


def _check_amounts(values: np.ndarray, what: str) -> None:
    """Raise DataError for values that non-negative mixtures cannot give."""
    low = float(values.min())
    if low < 0:
        raise DataError(
            f"NMF explains by non-negative amounts, but {what} go down to {low:.4g}; use the model pca, or store them "
            "without an offset below zero."
        )


def _contents(
    content: np.ndarray, inside: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, float]:
    """Content of each endmember `(k, elements)`, and the mean variance of the element maps in the
    region.
    """
    known = inside & np.isfinite(content).all(-1)
    used = chosen & known
    if not used.reshape(len(used), -1).any(1).all() or np.ptp(content[known], axis=0).max() == 0:
        raise UsageError(
            "element values are missing at all points of an endmember, or constant in the region: they cannot be "
            "weighed in. Choose other endmembers, or leave out elements."
        )
    _check_amounts(content[known], "element maps")
    contents = np.stack([content[members].mean(0) for members in used])
    return contents, float(content[known].var(0).mean())


def _group_means(samples: Samples, chosen: np.ndarray) -> np.ndarray:
    """Mean of what is seen at the points of each of k groups, which may overlap: `(k, *grid) -> (k,
    values)`.
    """
    total = np.zeros((len(chosen), samples.n_values))
    for points, rows in samples.at(np.any(chosen, axis=0)).rows():
        weights = chosen[(slice(None), *points.T)].astype(float)
        total += weights @ rows.cpu().double().numpy()
    return np.asarray(total / chosen.reshape(len(chosen), -1).sum(1)[:, None])


def _even_scores(samples: Samples, rows: np.ndarray, count: int) -> np.ndarray:
    """Principal scores of patterns of equal brightness, `(*grid, count)`, NaN outside the region."""

    def even(values: np.ndarray) -> np.ndarray:
        level = values.mean(1, keepdims=True)
        return np.divide(values, level, out=np.zeros_like(values), where=level > 0)

    found = fit_pca(even(rows), max(1, count), samples.seed)
    scores = np.full((*samples.inside.shape, max(1, count)), np.nan)
    for points, values in samples.rows():
        scores[tuple(points.T)] = found.transform(even(values.cpu().numpy()))
    return scores


def _at_coordinates(
    ds: xr.Dataset, inside: np.ndarray, places: Sequence[Sequence[float]]
) -> Members:
    """3 x 3 windows around (x, y) in coordinate units, cut at the border of the region.

    Raises UsageError for a place that is farther than half a step from every scan point, or outside
    the region.
    """
    dims = schema.navigation_dims(ds)
    if dims != (n.Y, n.X):
        raise UsageError(
            f"endmembers by (x, y) need a scan over ('y', 'x'); this one lies over {dims}. Use the option classes."
        )
    chosen, described = [], []
    for x, y in places:
        place = grid.find_point(ds, {n.X: x, n.Y: y})
        iy, ix = place[n.Y], place[n.X]
        if not inside[iy, ix]:
            raise UsageError(
                f"endmember (x, y) = ({x:g}, {y:g}) lies outside the region of interest; choose another."
            )
        window = _window(inside.shape, (iy, ix)) & inside
        chosen.append(window)
        described.append({"x": float(ds[n.X][ix]), "y": float(ds[n.Y][iy]), "n": int(window.sum())})
    return np.stack(chosen), described


def _window(shape: tuple[int, ...], centre: tuple[int, ...]) -> np.ndarray:
    """The points of a grid at most REACH rows and columns from a centre."""
    window = np.zeros(shape, bool)
    row, column = centre[-2:]
    within = np.s_[
        max(0, row - REACH) : row + REACH + 1, max(0, column - REACH) : column + REACH + 1
    ]
    window[centre[:-2]][within] = True
    return window


def _of_classes(ds: xr.Dataset, inside: np.ndarray, name: str) -> Members:
    """The points of each class of a map inside the region. Raises UsageError where fewer than two
    classes occur.
    """
    positions, classes = grid.class_map(ds, name)
    words = meanings(ds[name])
    chosen, described = [], []
    for i, code in enumerate(classes):
        if (members := inside & (positions == i)).any():
            chosen.append(members)
            about = {
                "map": name,
                "class": code,
                "name": words.get(code, str(code)),
                "n": int(members.sum()),
            }
            described.append(about)
    if len(chosen) < 2:
        raise UsageError(
            f"{name!r} has {len(chosen)} class(es) in the region of interest; at least two are needed."
        )
    return np.stack(chosen), described


def _reference_windows(ds: xr.Dataset, scores: np.ndarray, k: int) -> Members:
    """k windows of 3 x 3 scan points that are as different as can be and even inside; no two
    overlap.

    scores: k - 1 principal scores of patterns of equal brightness, `(*grid, m)`, NaN outside the
    region. Of the windows that lie wholly in the region, the half whose points differ least from
    their mean remains; among these, successive projection takes the window farthest from the span
    of those chosen before. Araujo et al., Chemom. Intell. Lab. Syst. 57 (2001) 65; Gillis &
    Vavasis, IEEE TPAMI 36 (2014) 698. Deterministic. Raises UsageError where the region holds too
    few windows or too few different ones.
    """
    dims = schema.navigation_dims(ds)
    around = [(0, 0)] * (scores.ndim - 3) + [(REACH, REACH)] * 2 + [(0, 0)]
    side = 2 * REACH + 1
    padded = np.pad(scores, around, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(-3, -2))
    means, spread = windows.mean((-1, -2)), windows.var((-1, -2)).sum(-1)
    whole = np.isfinite(spread)
    if whole.sum() < k:
        raise UsageError(
            f"the region holds {int(whole.sum())} windows of 3 x 3 scan points, {k} are to be chosen; ask for fewer "
            "(latent_dim), widen the region, or name the endmembers."
        )
    centres = _successive_projection(
        means, whole & (spread <= np.quantile(spread[whole], QUIET)), k
    )
    chosen = np.stack([_window(spread.shape, centre) for centre in centres])
    described = [
        {dim: float(ds[dim][i]) for dim, i in zip(dims, centre, strict=True)} for centre in centres
    ]
    return chosen, [
        about | {"n": int(members.sum())} for about, members in zip(described, chosen, strict=True)
    ]


def _successive_projection(means: np.ndarray, allowed: np.ndarray, k: int) -> list[tuple[int, ...]]:
    """Centres of k windows, each the farthest from the span of those before; windows that overlap
    one are left out.

    means: `(*grid, m)`, to which a constant is added so that the span of points holds their
    mixtures.
    """
    centres = np.argwhere(allowed)
    values = means[tuple(centres.T)]
    size = np.sqrt((values**2).sum(1).mean())
    left = np.column_stack([values, np.full(len(values), size if size > 0 else 1.0)])
    usable = np.ones(len(left), bool)
    start = (left**2).sum(1).max()
    picked: list[tuple[int, ...]] = []
    for _ in range(k):
        squares = np.where(usable, (left**2).sum(1), -1.0)
        best = int(squares.argmax())
        if squares[best] <= 1e-18 * start:
            raise UsageError(
                f"only {len(picked)} different reference windows were found, {k} are to be chosen; ask for fewer "
                "(latent_dim) or name the endmembers."
            )
        axis = left[best] / np.sqrt(squares[best])
        left = left - np.outer(left @ axis, axis)
        picked.append(tuple(map(int, centres[best])))
        near = np.abs(centres[:, -2:] - centres[best, -2:]).max(1) <= 2 * REACH
        usable &= ~(near & (centres[:, :-2] == centres[best, :-2]).all(1))
    return picked
