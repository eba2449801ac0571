"""Non-negative amounts of fixed endmembers, and endmembers by coordinates, classes, or windows that differ most."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, UsageError
from vaearr.schema import grid, meanings
from vaearr.schema.grid import find_point

LARGEST_CONDITION = 1e12  # of the Gram matrix of endmembers of unit length
REACH = 1  # of a window to each side of its centre: 3 x 3 scan points
QUIET = 0.5  # share of the windows that vary least inside, from which endmembers are chosen

Members = tuple[np.ndarray, list[dict[str, Any]]]
# which scan points each endmember is the mean of, `(k, *grid)` boolean, and where it comes from, as JSON


def nnls(gram: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Non-negative least squares of many right-hand sides: `a >= 0` that minimises |b - A a|, for each row.

    gram: A'A `(k, k)`; products: rows b'A `(n, k)`. Returns float64 `(n, k)`, by scipy's active set method (Lawson &
    Hanson 1974) on the Cholesky factor of the Gram matrix. Raises DataError for endmembers that depend on each other.
    """
    from scipy.linalg import solve_triangular
    from scipy.optimize import nnls as active_set

    lengths = check_independent(gram)
    factor = np.linalg.cholesky(gram / np.outer(lengths, lengths)).T
    sides = solve_triangular(factor, (products / lengths).T, trans="T").T
    size = np.linalg.norm(sides, axis=1, keepdims=True)
    sides = np.divide(sides, size, out=np.zeros_like(sides), where=size > 0)
    most = 50 * len(gram)
    return np.stack([active_set(factor, side, maxiter=most)[0] for side in sides]) * size / lengths


def check_independent(gram: np.ndarray) -> np.ndarray:
    """Lengths of the endmembers. Raises DataError unless they are independent of each other."""
    lengths = np.sqrt(np.diag(gram))
    if not np.isfinite(gram).all() or (lengths <= 0).any():
        raise DataError("an endmember is zero or not finite; choose other endmembers.")
    values = np.linalg.eigvalsh(gram / np.outer(lengths, lengths))
    if values[0] * LARGEST_CONDITION < values[-1]:
        raise DataError(
            f"the {len(gram)} endmembers depend on each other (condition {values[-1] / max(values[0], 1e-300):.1e}): "
            "at least two are nearly alike, or one is a mixture of the others; choose fewer or other ones."
        )
    return lengths


def at_coordinates(ds: xr.Dataset, inside: np.ndarray, places: tuple[tuple[float, float], ...]) -> Members:
    """3 x 3 windows around (x, y) in coordinate units, cut at the border of the region.

    Raises UsageError for a place that is farther than half a step from every scan point, or outside the region.
    """
    dims = schema.navigation_dims(ds)
    if dims != (n.Y, n.X):
        raise UsageError(f"endmembers by (x, y) need a scan over ('y', 'x'); this one lies over {dims}. Use clusters.")
    chosen, described = [], []
    for x, y in places:
        place = find_point(ds, {n.X: x, n.Y: y})
        iy, ix = place[n.Y], place[n.X]
        if not inside[iy, ix]:
            raise UsageError(f"endmember (x, y) = ({x:g}, {y:g}) lies outside the region of interest; choose another.")
        window = _window(inside.shape, (iy, ix)) & inside
        chosen.append(window)
        described.append({"x": float(ds[n.X][ix]), "y": float(ds[n.Y][iy]), "n": int(window.sum())})
    return np.stack(chosen), described


def _window(shape: tuple[int, ...], centre: tuple[int, ...]) -> np.ndarray:
    """The points of a grid at most REACH rows and columns from a centre."""
    window = np.zeros(shape, bool)
    row, column = centre[-2:]
    within = np.s_[max(0, row - REACH) : row + REACH + 1, max(0, column - REACH) : column + REACH + 1]
    window[centre[:-2]][within] = True
    return window


def of_classes(ds: xr.Dataset, inside: np.ndarray, name: str) -> Members:
    """The points of each class of a map inside the region. Raises UsageError where fewer than two classes occur."""
    positions, classes = grid.class_map(ds, name)
    words = meanings(ds[name])
    chosen, described = [], []
    for i, code in enumerate(classes):
        if (members := inside & (positions == i)).any():
            chosen.append(members)
            about = {"map": name, "class": code, "name": words.get(code, str(code)), "n": int(members.sum())}
            described.append(about)
    if len(chosen) < 2:
        raise UsageError(f"{name!r} has {len(chosen)} class(es) in the region of interest; at least two are needed.")
    return np.stack(chosen), described


def reference_windows(ds: xr.Dataset, scores: np.ndarray, k: int) -> Members:
    """k windows of 3 x 3 scan points that are as different as can be and even inside; no two overlap.

    scores: k - 1 principal scores of patterns of equal brightness, `(*grid, m)`, NaN outside the region. Of the windows
    that lie wholly in the region, the half whose points differ least from their mean remains; among these, successive
    projection takes the window farthest from the span of those chosen before. Araujo et al., Chemom. Intell. Lab. Syst.
    57 (2001) 65; Gillis & Vavasis, IEEE TPAMI 36 (2014) 698. Deterministic. Raises UsageError where the region holds
    too few windows or too few different ones.
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
            "(n_components), widen the region, or name the endmembers."
        )
    centres = successive_projection(means, whole & (spread <= np.quantile(spread[whole], QUIET)), k)
    chosen = np.stack([_window(spread.shape, centre) for centre in centres])
    described = [{dim: float(ds[dim][i]) for dim, i in zip(dims, centre, strict=True)} for centre in centres]
    return chosen, [about | {"n": int(members.sum())} for about, members in zip(described, chosen, strict=True)]


def successive_projection(means: np.ndarray, allowed: np.ndarray, k: int) -> list[tuple[int, ...]]:
    """Centres of k windows, each the farthest from the span of those before; windows that overlap one are left out.

    means: `(*grid, m)`, to which a constant is added so that the span of points holds their mixtures.
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
                "(n_components) or name the endmembers."
            )
        axis = left[best] / np.sqrt(squares[best])
        left = left - np.outer(left @ axis, axis)
        picked.append(tuple(map(int, centres[best])))
        near = np.abs(centres[:, -2:] - centres[best, -2:]).max(1) <= 2 * REACH
        usable &= ~(near & (centres[:, :-2] == centres[best, :-2]).all(1))
    return picked
