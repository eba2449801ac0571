"""Non-negative amounts of fixed endmembers: the means of windows at coordinates, of classes, or of
windows that differ most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import binary_dilation
from scipy.optimize import nnls
from torch import nn

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, UsageError
from vaearr.models.linear import AUTO, BATCH_SAMPLES, Samples, fit_pca
from vaearr.models.networks import require
from vaearr.schema import grid, meanings

LARGEST_CONDITION = 1e6  # of endmembers of unit length
SIDE = 3  # of a window, in scan points
EVEN_SHARE = 0.5  # of the windows: those that vary least inside, from which endmembers are chosen

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
        components = np.zeros((count, math.prod(input_shape)))
        self.set(components, np.zeros((count, len(elements))))
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
        _check_independent(components)
        contents = np.zeros((len(components), 0))
        if self.elements:
            contents, element_variance = _contents(self.content(samples.ds), samples.inside, chosen)
            element_share = self.weight / (element_variance * len(self.elements))
            self.shares.copy_(torch.tensor([1 / float(variance.sum()), element_share]))
        self.set(components, contents)
        squares = 0.0
        for batch in torch.from_numpy(rows).split(BATCH_SAMPLES):
            decoded = self.decode(self.encode(batch)[0]).flatten(1)
            squares += float((batch - decoded).double().square().sum())
        mse = squares / rows.size
        r2 = 1 - mse / max(float(variance.mean()), 1e-300)
        return xr.Dataset(attrs={"endmembers": origins, "mse": mse, "r2": r2})

    def content(self, ds: xr.Dataset) -> np.ndarray:
        """Return the content of the elements at each scan point, `(*grid, elements)`.

        Raises UsageError for a missing element.
        """
        mapped = set(ds[n.ELEMENTS][n.ELEMENT].values) if n.ELEMENTS in ds else set()
        if not mapped.issuperset(self.elements):
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
        pixel_scale, element_scale = self.shares.sqrt().tolist()
        endmembers = [self.components * pixel_scale]
        samples = [x.flatten(1) * pixel_scale]
        if content is not None:
            endmembers.append(self.contents * element_scale)
            samples.append(torch.from_numpy(content).to(x) * element_scale)
        amounts = _nnls(torch.cat(endmembers, 1), torch.cat(samples, 1))
        return amounts, torch.full_like(amounts, -torch.inf)

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        """Return samples `(B, *input_shape)` of amounts; the model has no head to leave out."""
        return (z @ self.components).unflatten(1, self.input_shape)

    def _endmembers(self, samples: Samples, rows: np.ndarray) -> Endmembers:
        ds = samples.ds
        if self.classes:
            return _of_classes(ds, samples.inside, self.classes)
        dims = schema.navigation_dims(ds)
        if dims != (n.Y, n.X):
            raise UsageError(
                f"windows of 3 x 3 points need a scan over ('y', 'x'), not {dims}; use the option "
                "classes."
            )
        centres: Iterable[Sequence[int]]
        if self.endmembers:
            centres = [_point(ds, samples.inside, x, y) for x, y in self.endmembers]
        elif self.latent_dim == AUTO:
            raise UsageError(
                "set latent_dim to a number of endmembers, or name them (options endmembers, "
                "classes)."
            )
        else:
            count = int(self.latent_dim)
            centres = _reference_centres(_even_scores(samples, rows, count - 1), count)
        return _windows(ds, samples.inside, centres)


def _nnls(endmembers: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    """Non-negative amounts `(B, k)` of endmembers `(k, p)` that are nearest to samples `(B, p)`.

    By scipy's active set method (Lawson & Hanson 1974); NaN for samples with a NaN.
    """
    design = endmembers.cpu().double().numpy().T
    amounts = np.full((len(samples), len(endmembers)), np.nan)
    for i, sample in enumerate(samples.cpu().double().numpy()):
        if np.isfinite(sample).all():
            amounts[i], _ = nnls(design, sample, maxiter=50 * len(endmembers))
    return torch.from_numpy(amounts).to(samples)


def _check_independent(endmembers: np.ndarray) -> None:
    """Raise DataError unless the endmembers `(k, p)` are independent of each other."""
    lengths = np.linalg.norm(endmembers, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise DataError("an endmember is zero or not finite; choose other endmembers.")
    if np.linalg.cond(endmembers / lengths) > LARGEST_CONDITION:
        raise DataError(
            f"the {len(endmembers)} endmembers depend on each other: at least two are nearly "
            "equal, or one is a mixture of the others; choose fewer or other ones."
        )


def _check_amounts(values: np.ndarray, what: str) -> None:
    """Raise DataError for values that non-negative mixtures cannot give."""
    low = float(values.min())
    if low < 0:
        raise DataError(
            f"NMF explains by non-negative amounts, but {what} go down to {low:.4g}; use the "
            "model pca, or store them without a negative offset."
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
            origin = {"map": name, "class": code, "name": class_names.get(code, str(code))}
            chosen.append(points)
            origins.append({**origin, "n": int(points.sum())})
    if len(chosen) < 2:
        raise UsageError(
            f"{name!r} has {len(chosen)} class(es) in the region of interest; at least two are "
            "needed."
        )
    return np.stack(chosen), origins


def _windows(ds: xr.Dataset, inside: np.ndarray, centres: Iterable[Sequence[int]]) -> Endmembers:
    """Windows of 3 x 3 points around centres, cut at the border of the region."""
    chosen = []
    origins = []
    for row, column in centres:
        point = np.zeros(inside.shape, bool)
        point[row, column] = True
        window = binary_dilation(point, np.ones((SIDE, SIDE))) & inside
        chosen.append(window)
        y = float(ds[n.Y][row])
        x = float(ds[n.X][column])
        origins.append({n.Y: y, n.X: x, "n": int(window.sum())})
    return np.stack(chosen), origins


def _point(ds: xr.Dataset, inside: np.ndarray, x: float, y: float) -> tuple[int, int]:
    """Row and column of the scan point at coordinates.

    Raises UsageError for a point that is farther than half a step from every scan point, or outside
    the region.
    """
    point = grid.find_point(ds, {n.X: x, n.Y: y})
    if not inside[point[n.Y], point[n.X]]:
        raise UsageError(
            f"endmember (x, y) = ({x:g}, {y:g}) lies outside the region of interest; choose "
            "another."
        )
    return point[n.Y], point[n.X]


def _even_scores(samples: Samples, rows: np.ndarray, count: int) -> xr.DataArray:
    """Principal scores of patterns of equal brightness, `(y, x, component)`, NaN outside."""

    def even(values: np.ndarray) -> np.ndarray:
        level = values.mean(1, keepdims=True)
        return np.divide(values, level, out=np.zeros_like(values), where=level > 0)

    count = max(1, count)
    pca = fit_pca(even(rows), count, samples.seed)
    scores = np.full((*samples.inside.shape, count), np.nan)
    for points, values in samples.rows():
        scores[tuple(points.T)] = pca.transform(even(values.cpu().numpy()))
    return xr.DataArray(scores, dims=(n.Y, n.X, "component"))


def _reference_centres(scores: xr.DataArray, k: int) -> np.ndarray:
    """Centres `(k, 2)` of windows that differ as much as can be and are even inside; no two
    overlap.

    scores: k - 1 principal scores of patterns of equal brightness. Of the windows completely inside
    the region, the half whose points differ least from their mean remains; among these, successive
    projection takes the window farthest from the span of those chosen before. Araujo et al.,
    Chemom. Intell. Lab. Syst. 57 (2001) 65; Gillis & Vavasis, IEEE TPAMI 36 (2014) 698.
    Deterministic. Raises UsageError where the region holds too few windows or too few different ones.
    """
    windows = scores.rolling({n.Y: SIDE, n.X: SIDE}, center=True)
    means = windows.mean().values
    spread = windows.var().sum("component", skipna=False).values
    complete = spread[np.isfinite(spread)]
    if len(complete) < k:
        raise UsageError(
            f"the region holds {len(complete)} windows of 3 x 3 scan points, {k} are needed; set a "
            "smaller latent_dim, widen the region, or name the endmembers."
        )
    is_even = spread <= np.quantile(complete, EVEN_SHARE)
    centres = np.argwhere(is_even)
    values = means[is_even]
    size = np.sqrt((values**2).sum(1).mean())
    # with a constant, the span of points holds their mixtures
    rest = np.column_stack([values, np.full(len(values), size if size > 0 else 1.0)])
    smallest = 1e-18 * (rest**2).sum(1).max()
    picked: list[int] = []
    while len(picked) < k:
        squares = (rest**2).sum(1)
        if squares.max() <= smallest:
            raise UsageError(
                f"only {len(picked)} different reference windows were found, {k} are needed; set a "
                "smaller latent_dim or name the endmembers."
            )
        farthest = int(squares.argmax())
        picked.append(farthest)
        axis = rest[farthest] / np.sqrt(squares[farthest])
        rest = rest - np.outer(rest @ axis, axis)
        overlaps = np.abs(centres - centres[farthest]).max(1) < SIDE
        rest[overlaps] = 0
    return centres[picked]
