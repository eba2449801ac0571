"""Endmembers: reference patterns from coordinates, from the classes of a map, or from windows found by projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.embedding.pca import fit_pca
from vaearr.analysis.embedding.stream import PatternStream
from vaearr.errors import DataError, UsageError
from vaearr.schema import grid, meanings

REACH = 1  # of a window to each side of its centre: 3 x 3 scan points
QUIET = 0.5  # share of the windows that vary least inside, from which endmembers are chosen


@dataclass(frozen=True, eq=False)
class Members:
    """Which scan points each endmember is the mean of, `(k, *grid)` boolean, and where it comes from, as JSON."""

    chosen: np.ndarray
    described: list[dict[str, Any]]


def group_means(stream: PatternStream, chosen: np.ndarray) -> np.ndarray:
    """Mean of what is seen at the points of each of k groups, which may overlap: `(k, *grid) -> (k, values)`."""
    counts = chosen.reshape(len(chosen), -1).sum(1)
    total: torch.Tensor | None = None
    for points, rows in stream.of(np.any(chosen, axis=0)).batches():
        weights = torch.from_numpy(chosen[(slice(None), *points.T)].astype(float)).to(rows.device)
        part = weights @ rows
        total = part if total is None else total.add_(part)
    assert total is not None
    return total.cpu().numpy() / counts[:, None]


def at_coordinates(ds: xr.Dataset, inside: np.ndarray, places: tuple[tuple[float, float], ...]) -> Members:
    """3 x 3 windows around (x, y) in coordinate units, cut at the border of the region.

    Raises UsageError for a place that is farther than half a step from every scan point, or outside the region.
    """
    dims = schema.navigation_dims(ds)
    if dims != (n.Y, n.X):
        raise UsageError(f"endmembers by (x, y) need a scan over ('y', 'x'); this one lies over {dims}. Use clusters.")
    chosen, described = [], []
    for x, y in places:
        ix, iy = _nearest(ds, n.X, x), _nearest(ds, n.Y, y)
        if not inside[iy, ix]:
            raise UsageError(f"endmember (x, y) = ({x:g}, {y:g}) lies outside the region of interest; choose another.")
        window = np.zeros(inside.shape, bool)
        window[max(0, iy - REACH) : iy + REACH + 1, max(0, ix - REACH) : ix + REACH + 1] = True
        window &= inside
        chosen.append(window)
        described.append({"x": float(ds[n.X][ix]), "y": float(ds[n.Y][iy]), "n": int(window.sum())})
    return Members(np.stack(chosen), described)


def _nearest(ds: xr.Dataset, dim: str, value: float) -> int:
    places = np.asarray(ds[dim].values, float)
    i = int(np.abs(places - value).argmin())
    half = 0.5 * float(np.abs(np.diff(places)).min()) if len(places) > 1 else 0.5
    if abs(places[i] - value) > half * (1 + 1e-9):
        raise UsageError(
            f"endmember at {dim} = {value:g} is on no scan point; {dim} runs from {places.min():g} to "
            f"{places.max():g} {ds[dim].attrs.get('units', '')}."
        )
    return i


def of_classes(ds: xr.Dataset, inside: np.ndarray, name: str) -> Members:
    """The points of each class of a map inside the region. Raises UsageError where fewer than two classes occur."""
    positions, classes = grid.class_map(ds, name)
    words = meanings(ds[name])
    found = [i for i in range(len(classes)) if (inside & (positions == i)).any()]
    if len(found) < 2:
        raise UsageError(f"{name!r} has {len(found)} class(es) in the region of interest; at least two are needed.")
    chosen = np.stack([inside & (positions == i) for i in found])
    described = [
        {"map": name, "class": classes[i], "name": words.get(classes[i], str(classes[i])), "n": int(members.sum())}
        for i, members in zip(found, chosen, strict=True)
    ]
    return Members(chosen, described)


def reference_windows(ds: xr.Dataset, stream: PatternStream, sample: np.ndarray, k: int, seed: int) -> Members:
    """k windows of 3 x 3 scan points that are as different as can be and even inside; no two overlap.

    Patterns are divided by their mean, so that brightness does not count, and reduced to k - 1 principal components
    (found on the points of `sample`). Of the windows that lie wholly in the region, the half whose points differ least
    from their mean remains; among these, successive projection takes the window farthest from the span of those chosen
    before. Araujo et al., Chemom. Intell. Lab. Syst. 57 (2001) 65; Gillis & Vavasis, IEEE TPAMI 36 (2014) 698.
    Deterministic. Raises UsageError where the region holds too few windows or too few different ones.
    """
    dims = schema.navigation_dims(ds)
    if dims[-2:] != (n.Y, n.X):
        raise UsageError(f"reference windows need a scan over y and x; this one lies over {dims}. Use clusters.")
    means, spread = _windows(_even_scores(stream, sample, max(1, k - 1), seed))
    whole = np.isfinite(spread)
    if whole.sum() < k:
        raise UsageError(
            f"the region holds {int(whole.sum())} windows of 3 x 3 scan points, {k} are to be chosen; ask for fewer "
            "(n_components), widen the region, or name the endmembers."
        )
    allowed = whole & (spread <= np.quantile(spread[whole], QUIET))
    chosen, described = [], []
    for corner in successive_projection(means, allowed, k):
        place = {dim: int(i) for dim, i in zip(dims, corner, strict=True)}
        window = np.zeros(stream.inside.shape, bool)
        window[tuple(slice(i, i + (2 * REACH + 1 if dim in (n.Y, n.X) else 1)) for dim, i in place.items())] = True
        chosen.append(window)
        centre = {dim: i + (REACH if dim in (n.Y, n.X) else 0) for dim, i in place.items()}
        described.append({dim: float(ds[dim][i]) for dim, i in centre.items()} | {"n": int(window.sum())})
    return Members(np.stack(chosen), described)


def _even_scores(stream: PatternStream, sample: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Principal scores of patterns of equal brightness, `(*grid, k)`, NaN outside the region."""

    def evened(batch: torch.Tensor) -> torch.Tensor:
        seen = stream.view(batch)
        level = seen.flatten(1).mean(1).view(-1, *[1] * (seen.ndim - 1))
        return torch.where(level > 0, seen / torch.where(level > 0, level, 1.0), 0.0)

    even = stream.seen_as(evened)
    reduced = even.of(sample)
    found = fit_pca(reduced.passes, n_samples=reduced.n_samples, n_values=stream.n_values, n_components=k, seed=seed)
    scores = np.full((*stream.inside.shape, k), np.nan)
    for points, rows in even.batches():
        mean, axes = (torch.from_numpy(part).to(rows.device) for part in (found.mean, found.components.T))
        scores[tuple(points.T)] = ((rows - mean) @ axes).cpu().numpy()
    return scores


def _windows(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of 3 x 3 windows over the last two grid dims, by their first corner; NaN unless all 9 count."""
    side = 2 * REACH + 1
    height, width = scores.shape[-3] - side + 1, scores.shape[-2] - side + 1
    if height < 1 or width < 1:
        return np.empty((*scores.shape[:-3], 0, 0, scores.shape[-1])), np.empty((*scores.shape[:-3], 0, 0))
    parts = [scores[..., i : i + height, j : j + width, :] for i in range(side) for j in range(side)]
    mean = sum(parts) / len(parts)
    spread = sum(((part - mean) ** 2).sum(-1) for part in parts) / len(parts)
    return np.asarray(mean), np.asarray(spread)


def successive_projection(means: np.ndarray, allowed: np.ndarray, k: int) -> list[tuple[int, ...]]:
    """Corners of k windows, each the farthest from the span of those before; windows that overlap one are left out.

    means: `(*grid, m)`, to which a constant is added so that the span of points holds their mixtures.
    """
    corners = np.argwhere(allowed)
    values = means[tuple(corners.T)]
    size = np.sqrt((values**2).sum(1).mean()) if len(values) else 0.0
    left = np.column_stack([values, np.full(len(values), size if size > 0 else 1.0)])
    usable = np.ones(len(left), bool)
    start = (left**2).sum(1).max(initial=0.0)
    picked: list[tuple[int, ...]] = []
    for _ in range(k):
        squares = np.where(usable, (left**2).sum(1), -1.0)
        best = int(squares.argmax()) if len(squares) else -1
        if best < 0 or squares[best] <= 1e-18 * start:
            raise UsageError(
                f"only {len(picked)} different reference windows were found, {k} are to be chosen; ask for fewer "
                "(n_components) or name the endmembers."
            )
        axis = left[best] / np.sqrt(squares[best])
        left = left - np.outer(left @ axis, axis)
        picked.append(tuple(map(int, corners[best])))
        near = np.abs(corners[:, -2:] - corners[best, -2:]).max(1) <= 2 * REACH
        usable &= ~(near & (corners[:, :-2] == corners[best, :-2]).all(1))
    return picked


def check_amounts(low: float, what: str) -> None:
    """Raise DataError for values that non-negative mixtures cannot give."""
    if not np.isfinite(low):
        raise DataError(f"{what} of the region hold NaN or infinite values; leave these points out of the region.")
    if low < 0:
        raise DataError(
            f"NMF explains by non-negative amounts, but {what} go down to {low:.4g}; use method='pca', or store them "
            "without an offset below zero."
        )
