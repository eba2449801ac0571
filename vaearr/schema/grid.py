"""Regions of interest, splits, and the scan grid as a list of samples and back.

Boxes are half-open and in coordinate units; samples are the points of the ROI in row-major order;
outside the ROI floats are NaN.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Hashable, Mapping
from functools import reduce
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import Interval, RoiConfig, SplitConfig
from vaearr.errors import RoiError, SchemaError, UsageError, VaearrError, did_you_mean, shortened

MIN_ROI = 2
MAX_CONDITION = 2000  # characters

OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.And: operator.and_,
    ast.Or: operator.or_,
}


def roi(
    ds: xr.Dataset,
    *,
    x: Interval | None = None,
    y: Interval | None = None,
    z: Interval | None = None,
    where: str | None = None,
    config: RoiConfig | None = None,
) -> xr.DataArray:
    """Select the scan points to analyse.

    Parameters
    ----------
    ds : xr.Dataset
        Data with maps over the navigation dims.
    x, y, z : (float, float), optional
        Half-open boxes `start <= coordinate < stop`, in coordinate units.
    where : str, optional
        Condition on maps, such as `"BC > 45"` or `"BC > 45 and elements['Fe'] < 20"`. It excludes
        every point where a map that it names is NaN, see `condition`.
    config : RoiConfig, optional
        The same settings as one object.

    Returns
    -------
    xr.DataArray
        Boolean over the navigation dims, True where all conditions hold and the scan point was
        measured (`present`).

    Raises
    ------
    RoiError
        If fewer than two points are left, with the number of points that each condition kept.
    UsageError
        For a condition that cannot be read.

    Examples
    --------
    >>> region = va.roi(ds, x=(2, 12), where="BC > 45")
    >>> region.dims, region.dtype
    (('y', 'x'), dtype('bool'))
    """
    settings = (config or RoiConfig()).replace(x=x, y=y, z=z, where=where)
    nav = schema.navigation_dims(ds)
    coords = {dim: ds[dim] for dim in nav}
    mask = xr.DataArray(measured(ds), coords, nav)
    conditions = {"measured": mask, **_boxes(ds, settings)}
    if settings.where is not None:
        conditions[settings.where] = condition(ds, settings.where)
    counts = {}
    for name, kept in conditions.items():
        mask = mask & kept
        counts[name] = int(kept.broadcast_like(mask).sum())
    count = int(mask.sum())
    if count < MIN_ROI:
        problem = "has only one scan point" if count else "is empty"
        kept_points = "; ".join(f"{name}: {kept}" for name, kept in counts.items())
        raise RoiError(
            f"the ROI {problem}; of {mask.size} scan points each condition kept: {kept_points}"
            f"{_extent(ds)}. Widen the conditions."
        )
    attrs = {**n.ATTRS[n.ROI], "config": settings.to_attrs(), "kept": counts, "n": count}
    return xr.DataArray(mask.transpose(*nav).values, coords, nav, n.ROI, attrs)


def _boxes(ds: xr.Dataset, settings: RoiConfig) -> dict[str, xr.DataArray]:
    """The condition of each box along its dim, by its text."""
    nav = schema.navigation_dims(ds)
    conditions = {}
    for dim in n.SCAN_DIMS:
        box = getattr(settings, dim)
        if box is None:
            continue
        if dim not in nav:
            raise UsageError(
                f"a box along {dim!r} was given, but the data has the dimensions {', '.join(nav)}."
            )
        start, stop = box
        conditions[f"{start:g} <= {dim} < {stop:g}"] = (ds[dim] >= start) & (ds[dim] < stop)
    return conditions


def _extent(ds: xr.Dataset) -> str:
    spans = []
    for dim, (first, last, units) in schema.describe(ds)["extent"].items():
        spans.append(f"{dim} spans {first:g} to {last:g} {units}".strip())
    return f" ({', '.join(spans)})" if spans else ""


def condition(ds: xr.Dataset, text: str) -> xr.DataArray:
    """Evaluate a condition such as `"BC > 45 and (phase == 0 or elements['Fe'] > 20)"` to a map.

    A point where any map in the condition is NaN is never kept: neither by `not BC > 45` or
    `BC != 45`, nor by the other side of an `or`. Integer maps have no NaN: `phase` marks points
    without a phase by numbers below 0, which compare like any number.

    Only names of maps, numbers, comparisons, `and or not` and brackets are read; nothing is
    executed. Raises UsageError for anything else, and for a condition that is too long or too
    deeply nested.
    """
    if len(text) > MAX_CONDITION:
        raise UsageError(
            f"the condition {shortened(text)!r} has {len(text)} characters, expected at most "
            f"{MAX_CONDITION}; compute the map in Python, store it with va.keep, and name it in "
            "the condition."
        )
    try:
        return _Condition(ds, text).evaluate()
    except VaearrError:
        raise
    except (SyntaxError, ValueError, KeyError, TypeError, MemoryError, RecursionError):
        raise UsageError(
            f"cannot read the condition {shortened(text)!r}; write it like "
            '"BC > 45 and phase == 0".'
        ) from None


class _Condition:
    """The text of a condition, and the maps that it names."""

    def __init__(self, ds: xr.Dataset, text: str) -> None:
        self.ds = ds
        self.text = text
        self.maps: list[xr.DataArray] = []

    def evaluate(self) -> xr.DataArray:
        result = self.truth(ast.parse(self.text.strip(), mode="eval").body)
        for layer in self.maps:
            result = result & layer.notnull()
        return result.load()

    def truth(self, node: ast.AST) -> xr.DataArray:
        result = self.value(node)
        if not isinstance(result, xr.DataArray) or result.dtype != bool:
            raise UsageError(
                f"the condition {self.text!r} holds {ast.unparse(node)!r}, which is no comparison "
                'or true/false map; write it like "BC > 45".'
            )
        return result

    def value(self, node: ast.AST) -> Any:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.Name(id=name):
                return self.map(name, None)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=entry)):
                return self.map(name, entry)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.value(operand)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.truth(operand)
            case ast.BoolOp(op=op, values=operands):
                return reduce(OPERATORS[type(op)], map(self.truth, operands))
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [self.value(side) for side in (left, *others)]
                results = []
                for i, comparison in enumerate(ops):
                    compare = OPERATORS[type(comparison)]
                    results.append(compare(sides[i], sides[i + 1]))
                return reduce(operator.and_, results)
        raise UsageError(
            f"the condition {self.text!r} holds {ast.unparse(node)!r}, which is not a map, a number "
            "or a comparison by < <= > >= == !=; join comparisons by and, or, not."
        )

    def map(self, name: str, entry: object) -> xr.DataArray:
        layer = _map(self.ds, name, entry)
        self.maps.append(layer)
        return layer


def _map(ds: xr.Dataset, name: str, entry: object = None) -> xr.DataArray:
    nav = set(schema.navigation_dims(ds))
    variables = map(str, ds.drop_vars(n.PATTERNS).data_vars)
    names = [variable for variable in variables if nav <= set(ds[variable].dims)]
    if name not in names and name not in nav:
        raise UsageError(f"there is no map {name!r}.{did_you_mean(name, names)}")
    array = ds[name]
    extra = [str(dim) for dim in array.dims if dim not in nav]
    if not extra:
        return array
    if len(extra) > 1 or entry is None:
        raise UsageError(
            f"{name!r} has the further dimension {', '.join(extra)}; pick one entry, like "
            f"{name}['…']."
        )
    entries = ds[extra[0]].values.tolist()
    if entry not in entries:
        raise UsageError(
            f"{name!r} has no entry {entry!r}.{did_you_mean(str(entry), list(map(str, entries)))}"
        )
    return array.isel({extra[0]: entries.index(entry)}, drop=True)


def split(
    roi: xr.DataArray,
    config: SplitConfig,
    *,
    seed: int,
    by: xr.DataArray | np.ndarray | None = None,
) -> xr.DataArray:
    """Split a ROI into points for training and validation, deterministic by seed.

    `blocks` keeps square blocks of scan points together, because neighbouring patterns are similar;
    the side is halved until there are enough blocks. `random` samples single points. `groups` keeps
    points with the same value of `by` together; `stratified` samples the same share of each class
    of `by`, at least one point if the class has two; points without a class form one class. by:
    over the dims of the ROI.

    Returns an int8 map with `names.OUTSIDE`, `TRAIN`, `VALIDATION`. Raises RoiError for a ROI or a
    number of groups below 2, or a point without a group; SchemaError without `by`.
    """
    inside = checked_map(roi, roi, roi.dims).values
    if inside.sum() < MIN_ROI:
        raise RoiError(
            f"the ROI has {int(inside.sum())} scan points; at least {MIN_ROI} are needed. Widen it."
        )
    rng = np.random.default_rng(seed)
    side = 1
    if config.method in ("groups", "stratified"):
        member = _members(by, inside, config)
    else:
        side, member = _blocks_within(inside, config)
    choose = _share_of_each if config.method == "stratified" else _some_groups
    values = np.full(inside.shape, n.OUTSIDE, np.int8)
    values[inside] = np.where(choose(member, config.fraction, rng), n.VALIDATION, n.TRAIN)
    attrs = {**n.ATTRS[n.SPLIT], "config": config.to_attrs(), "seed": seed, "block_used": side}
    coords = {dim: roi[dim] for dim in roi.dims}
    return xr.DataArray(values, coords, roi.dims, n.SPLIT, attrs)


def _blocks_within(inside: np.ndarray, config: SplitConfig) -> tuple[int, np.ndarray]:
    """Side of the blocks, and the block of each point of the ROI."""
    side = config.block if config.method == "blocks" else 1
    n_needed = max(4, 2 / max(config.fraction, 1e-9))
    while True:
        axes = [np.arange(size) // side for size in inside.shape]
        counts = [axis[-1] + 1 for axis in axes]
        indices = np.meshgrid(*axes, indexing="ij")
        block = np.ravel_multi_index(indices, counts)[inside]
        if side == 1 or len(np.unique(block)) >= n_needed:
            return side, block
        side //= 2


def _some_groups(member: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Which points lie in groups, sampled until they hold the fraction; one or more, never all."""
    ids, sizes = np.unique(member, return_counts=True)
    order = rng.permutation(len(ids))
    count = 0
    if fraction > 0:
        totals = np.cumsum(sizes[order])
        count = int(np.searchsorted(totals, fraction * len(member))) + 1
    count = min(count, len(ids) - 1)
    return np.isin(member, ids[order[:count]])


def _share_of_each(member: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Which points are sampled: a share of each class, at least one of a class with two points."""
    chosen = np.zeros(len(member), bool)
    for value in np.unique(member):
        points = rng.permutation(np.flatnonzero(member == value))
        if fraction > 0:
            count = max(1, round(fraction * len(points)))
            chosen[points[: min(count, len(points) - 1)]] = True
    return chosen


def _members(
    by: xr.DataArray | np.ndarray | None, inside: np.ndarray, config: SplitConfig
) -> np.ndarray:
    """Number of the group or class of each point of the ROI."""
    if by is None or np.shape(by) != inside.shape:
        received = "nothing" if by is None else f"shape {np.shape(by)}"
        raise SchemaError(
            f"split method {config.method!r} needs a value of `by` for each point; got {received}."
        )
    values = np.asarray(by)[inside]
    if values.dtype.kind in "iuf":
        is_missing = ~(values >= 0)  # NaN too
    else:
        values = np.array([str(value) for value in values])
        is_missing = values == ""
    ids, member = np.unique(values, return_inverse=True)
    if config.method == "groups" and is_missing.any():
        raise RoiError(
            f"{int(is_missing.sum())} points of the ROI have no group; leave them out of the ROI."
        )
    if config.method == "groups" and len(ids) < 2:
        raise RoiError(
            "all points of the ROI are in one group; at least two are needed to split by groups."
        )
    return np.asarray(member).reshape(-1)


def class_map(ds: xr.Dataset, name: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """A map of classes: positions in the sorted class numbers, int64, and these numbers.

    Negative numbers and NaN mean "no class" and become -1. Raises SchemaError unless `name` is a
    map over the navigation dims with whole numbers and at least two classes.
    """
    values = _map(ds, name).transpose(*schema.navigation_dims(ds)).values
    numbers = np.where(values >= 0, values, np.nan)
    positions, classes = pd.factorize(numbers.ravel(), sort=True)
    if not np.array_equal(classes, np.round(classes)):
        raise SchemaError(
            f"{name!r} holds fractions; a map of classes holds whole numbers, -1 for no class."
        )
    if len(classes) < 2:
        raise SchemaError(
            f"{name!r} holds {len(classes)} class(es); at least two are needed to tell them apart."
        )
    return positions.reshape(values.shape), tuple(map(int, classes))


def to_samples(data: xr.DataArray, roi: xr.DataArray) -> xr.DataArray:
    """Select the points of a region of interest as `(sample, ...)`.

    Parameters
    ----------
    data : xr.DataArray
        Values over the navigation dims and any further dims. Lazy data stays lazy.
    roi : xr.DataArray
        Boolean map over the navigation dims.

    Returns
    -------
    xr.DataArray
        The points in row-major order. Their navigation coordinates become coordinates of
        `sample`, so that `to_grid` puts each sample back at its point, whatever the order of the
        samples is then.

    Examples
    --------
    >>> samples = va.to_samples(ds.latents, ds.roi)
    >>> samples.dims
    ('sample', 'latent')
    """
    inside = checked_map(data, roi, roi.dims)
    positions = np.nonzero(inside.values)
    points = {}
    for dim, along in zip(roi.dims, positions, strict=True):
        points[dim] = xr.Variable(n.SAMPLE, along)
        if dim not in data.coords:
            data = data.assign_coords({dim: np.arange(data.sizes[dim])})
    return data.isel(points).transpose(n.SAMPLE, ...)


def to_grid(samples: xr.DataArray, roi: xr.DataArray, *, fill: float = np.nan) -> xr.DataArray:
    """Put samples back onto the navigation grid, each at the coordinates that it carries.

    Parameters
    ----------
    samples : xr.DataArray
        `(sample, ...)`, one for each point of the region, in any order. They carry the navigation
        coordinates as `to_samples` gives them. For values computed from samples, use
        `samples.copy(data=values)` or `xr.DataArray(values, samples.coords, "sample")`.
    roi : xr.DataArray
        The region that the samples came from.
    fill : float, optional
        Value outside the region; NaN by default. Integer samples need a value that their dtype can
        hold.

    Returns
    -------
    xr.DataArray
        `(navigation dims, ...)`, in memory, with all coordinates along the dims of the region.

    Raises
    ------
    SchemaError
        If the samples carry no coordinates, or other points than those of the region, or if `fill`
        does not fit.

    Examples
    --------
    >>> samples = va.to_samples(ds.latents, ds.roi)
    >>> va.to_grid(samples, ds.roi).equals(ds.latents)
    True
    """
    inside = checked_map(roi, roi, roi.dims)
    if not isinstance(samples, xr.DataArray) or n.SAMPLE not in samples.dims:
        dims = getattr(samples, "dims", "no dims")
        raise SchemaError(
            f"the samples are a {type(samples).__name__} with {dims} and do not say where they "
            "belong; expected a DataArray over 'sample' with the coordinates of va.to_samples. Use "
            "samples.copy(data=values) for values computed from samples."
        )
    expected = to_samples(inside, inside)
    samples = align_samples(expected, samples, "the ROI").transpose(n.SAMPLE, ...)
    values = samples.values
    _refuse_fill(values.dtype, fill)
    grid = np.full((*inside.shape, *values.shape[1:]), fill, values.dtype)
    grid[inside.values] = values
    further_dims = samples.dims[1:]
    coords = {name: coord for name, coord in inside.coords.items() if coord.dims}
    for dim in further_dims:
        if dim in samples.coords:
            coords[dim] = samples[dim]
    dims = (*inside.dims, *further_dims)
    return xr.DataArray(grid, coords, dims, samples.name, samples.attrs)


def _refuse_fill(dtype: np.dtype, fill: float) -> None:
    """Raise SchemaError for a value outside the region that integers cannot hold."""
    if dtype.kind not in "iub":
        return
    with np.errstate(invalid="ignore"):
        stored_fill = np.array(fill).astype(dtype)
    if stored_fill != fill:
        raise SchemaError(
            f"samples are {dtype}, which has no {fill}; pass another fill= or convert to float."
        )


Samples = TypeVar("Samples", bound=xr.DataArray | xr.Dataset)


def align_samples(reference: xr.DataArray | xr.Dataset, data: Samples, what: str) -> Samples:
    """Flattened samples in the order of those of `reference`, by the coordinates of both.

    Data over a grid is returned as it is. Raises SchemaError where the two have other points.
    """
    if n.SAMPLE not in reference.dims or n.SAMPLE not in data.dims:
        return data
    names = _sample_coords(data)
    expected_names = _sample_coords(reference)
    if names != expected_names:
        if {*names, *expected_names} == {n.SAMPLE}:
            return data  # numbered and unnumbered samples are matched by position
        raise SchemaError(
            f"the samples of {what} carry the coordinates {sorted(names)}, expected "
            f"{sorted(expected_names)}; take both from va.to_samples, and use "
            "samples.copy(data=values) for values computed from samples."
        )
    if all(np.array_equal(reference[name].values, data[name].values) for name in names):
        return data
    points = pd.MultiIndex.from_arrays([data[name].values for name in names])
    expected = pd.MultiIndex.from_arrays([reference[name].values for name in names])
    if not expected.is_unique or not points.sort_values().equals(expected.sort_values()):
        raise SchemaError(
            f"{what} has samples at other {', '.join(names)}; select the same points of each, "
            "such as with one ROI."
        )
    return cast(Samples, data.isel({n.SAMPLE: points.get_indexer(expected)}))


def _sample_coords(data: xr.DataArray | xr.Dataset) -> list[str]:
    """Coordinates that identify each sample: those of the scan, else the number."""
    names = [name for name in n.SCAN_DIMS if name in data.coords]
    of_scan = [name for name in names if data[name].dims == (n.SAMPLE,)]
    if not of_scan and n.SAMPLE in data.coords:
        return [n.SAMPLE]
    return of_scan


def measured(ds: xr.Dataset) -> np.ndarray:
    """Boolean over the navigation dims: the sample was measured and can be used."""
    if n.PRESENT not in ds:
        return np.ones(schema.navigation_shape(ds), bool)
    return np.array(ds[n.PRESENT].transpose(*schema.navigation_dims(ds)))


def check_map(ds: xr.Dataset, mask: xr.DataArray, *, boolean: bool = True) -> xr.DataArray:
    """A ROI (`boolean`) or split map, in memory, over the navigation dims, see `checked_map`."""
    return checked_map(ds, mask, schema.navigation_dims(ds), boolean=boolean)


def checked_map(
    data: xr.Dataset | xr.DataArray,
    mask: xr.DataArray,
    dims: tuple[Hashable, ...],
    *,
    boolean: bool = True,
) -> xr.DataArray:
    """A map in memory, its dims in the order of `dims`.

    Flattened samples are put into the order of the data's, see `align_samples`. Raises SchemaError,
    naming the difference, unless the map lies over exactly these dims of the data, with the same
    coordinate values, and holds true/false where `boolean`.
    """
    what = "ROI" if boolean else str(getattr(mask, "name", None) or "map")
    expected = f"expected {'boolean' if boolean else 'a map'} over {dims}, as va.roi makes it."
    if not isinstance(mask, xr.DataArray):
        raise SchemaError(f"the {what} is a {type(mask).__name__} without dimensions; {expected}")
    if (boolean and mask.dtype != bool) or set(mask.dims) != set(dims):
        raise SchemaError(f"the {what} is {mask.dtype} over {mask.dims}; {expected}")
    mask = align_samples(data, mask, f"the {what}")
    for dim in dims:
        if dim not in data.dims or not data[dim].to_index().equals(mask[dim].to_index()):
            raise SchemaError(
                f"the {what}'s coordinate {dim!r} is not the store's; make the {what} from this "
                "store."
            )
    return mask.transpose(*dims).load()


def find_point(ds: xr.Dataset, point: Mapping[str, Any] | float | str) -> dict[str, int]:
    """Position of a scan point or sample along each navigation dim. Raises UsageError."""
    nav = schema.navigation_dims(ds)
    if len(nav) == 1 and not isinstance(point, Mapping):
        point = {nav[0]: point}
    if not isinstance(point, Mapping) or set(point) != set(nav):
        raise UsageError(
            f"a point needs a value for each of {', '.join(nav)}, such as {dict.fromkeys(nav, 0)}."
        )
    position = {dim: _position(ds[dim], point[dim]) for dim in nav}
    if n.PRESENT in ds and not bool(ds[n.PRESENT].isel(position)):
        raise UsageError(f"the point {dict(point)} was not measured; choose another one.")
    return position


def _position(coordinate: xr.DataArray, value: Any) -> int:
    """Position of a value in a coordinate; of a number the nearest within half a step."""
    values = coordinate.values
    step = 1.0
    if values.dtype.kind in "iuf":
        try:
            distance = abs(values.astype("f8") - float(value))
        except (TypeError, ValueError):
            raise UsageError(f"{coordinate.name} = {value!r} is not a number.") from None
        if len(values) > 1:
            step = abs(np.median(np.diff(values.astype("f8"))))
    else:
        distance = np.asarray(values != value, float)
    nearest = int(distance.argmin())
    if distance[nearest] > step / 2 * (1 + 1e-9):
        span = f"{values[0]} to {values[-1]} {coordinate.attrs.get('units', '')}".strip()
        raise UsageError(f"there is nothing at {coordinate.name} = {value}; it spans {span}.")
    return nearest


def grid_indices(ds: xr.Dataset, number: Any) -> dict[str, Any]:
    """Indices along each navigation dim of samples with these row-major numbers."""
    shape = schema.navigation_shape(ds)
    indices = np.unravel_index(number, shape)
    return dict(zip(schema.navigation_dims(ds), indices, strict=True))


def sample_words(ds: xr.Dataset, indices: Mapping[str, int]) -> str:
    """Describe a sample, such as `sample at x 1.5, y 0.25` or `sample 12`."""
    values = {dim: ds[dim].values[index] for dim, index in indices.items()}
    if n.SAMPLE in values:
        return f"sample {values[n.SAMPLE]}"
    return "sample at " + ", ".join(f"{dim} {value:g}" for dim, value in reversed(values.items()))


def edges(coord: np.ndarray) -> np.ndarray:
    """Borders `(n + 1,)` of the cells of `n` sorted coordinates, half-way between neighbours."""
    values = np.asarray(coord, dtype="f8")
    if values.size == 1:
        return values[0] + np.array([-0.5, 0.5])
    middle = (values[1:] + values[:-1]) / 2
    first = 2 * values[0] - middle[0]
    last = 2 * values[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def label_borders(codes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Borders between cells of different `codes` (rows, columns) from 0 on.

    Returns lines `(n, 4)` of x0, y0, x1, y1 along the edges of cells; adjoining edges are merged.
    x (columns + 1,), y (rows + 1,): positions of the edges, see `edges`.
    """
    column, start, stop = _runs(_differ(codes[:, :-1], codes[:, 1:]).T)
    at = x[column + 1]
    vertical = np.stack([at, y[start], at, y[stop]], axis=1)
    row, start, stop = _runs(_differ(codes[:-1], codes[1:]))
    at = y[row + 1]
    horizontal = np.stack([x[start], at, x[stop], at], axis=1)
    return np.concatenate([vertical, horizontal])


def _differ(codes: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    return (codes != neighbours) & (codes >= 0) & (neighbours >= 0)


def _runs(border: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of True in each row: row, first index, index after the last."""
    padded = np.pad(border, ((0, 0), (1, 1)))
    change = np.diff(padded.astype("i1"), axis=1)
    row, start = np.nonzero(change == 1)
    _, stop = np.nonzero(change == -1)
    return row, start, stop
