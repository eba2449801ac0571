"""What latents are compared with: side maps as columns with a label each, and maps made of several elements."""

from __future__ import annotations

import ast
import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, SchemaError, UsageError, did_you_mean
from vaearr.schema import categories, is_categorical

TARGET = "target"
RGB, MOST_CHANNELS = "rgb", 3
MOST_CHARACTERS = 400  # of a combination; deep nesting would end the parser
CHANNELS = ("red", "green", "blue")
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear red, green, blue: ITU-R BT.709
Quantiles = tuple[float, float]


def columns(target: xr.DataArray, dims: Sequence[str]) -> Iterator[tuple[str, xr.DataArray]]:
    """A target as maps over exactly `dims`, each with its label; categories become 0/1 indicators, missing ones NaN."""
    name = str(target.name) if target.name is not None else TARGET
    if target.dtype.kind not in "biuf":
        raise SchemaError(f"target {name!r} is {target.dtype}; expected numbers.")
    extra = [str(dim) for dim in target.dims if dim not in dims]
    if missing := [dim for dim in dims if dim not in target.dims]:
        raise SchemaError(f"target {name!r} has dims {target.dims} and lacks {missing}; the latents lie over {dims}.")
    if len(extra) > 1:
        raise SchemaError(f"target {name!r} has more than one further dimension ({extra}); reduce or select one first.")
    if extra:
        labels = target[extra[0]].values if extra[0] in target.coords else range(target.sizes[extra[0]])
        for i, label in enumerate(labels):
            plain = extra[0] in (n.ELEMENT, TARGET)
            yield (str(label) if plain else f"{name}: {label}"), target.isel({extra[0]: i}, drop=True)
    elif is_categorical(target):
        for code, label in categories(target).items():
            yield f"{name}: {label}", (target == code).astype("f4").where(target >= 0)
    else:
        yield name, target


def stacked(target: xr.DataArray | xr.Dataset, dims: Sequence[str]) -> xr.DataArray:
    """All columns of a target as one DataArray, see `stack`."""
    parts = target.data_vars.values() if isinstance(target, xr.Dataset) else [target]
    return stack([column for part in parts for column in columns(part, dims)], dims)


def is_single(target: xr.DataArray | xr.Dataset, dims: Sequence[str]) -> bool:
    """Whether a target is one plain map, so that the result needs no target dimension."""
    return isinstance(target, xr.DataArray) and set(target.dims) == set(dims) and not is_categorical(target)


def stack(maps: Sequence[tuple[str, xr.DataArray]], dims: Sequence[str]) -> xr.DataArray:
    """Labelled maps as one float DataArray `(target, *dims)`, lazy where they are."""
    labels = [label for label, _ in maps]
    if not labels:
        raise NoInputError("there is nothing to compare with: the targets hold no entry and no known class.")
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise SchemaError(f"several maps are called {', '.join(map(repr, twice))}; rename one of them.")
    plain = [
        item.transpose(*dims).astype(_float_type(item.dtype), copy=False).drop_attrs(deep=False).reset_coords(drop=True)
        for _, item in maps
    ]
    try:
        both = xr.concat(plain, dim=TARGET, join="exact", combine_attrs="drop", coords="minimal", compat="override")
    except ValueError as error:
        raise SchemaError(f"the maps do not lie on the same grid: {error} Select the same points of each.") from None
    return both.assign_coords({TARGET: labels}).rename("targets").assign_attrs(long_name="association targets")


def _float_type(dtype: np.dtype) -> str:
    small = np.dtype(dtype).kind in "biu" and np.dtype(dtype).itemsize <= 2
    return "f4" if small or np.dtype(dtype) in (np.dtype("f2"), np.dtype("f4")) else "f8"


def targets_of(
    ds: xr.Dataset,
    names: Sequence[str] = (),
    *,
    roi: xr.DataArray | None = None,
    quantiles: Quantiles = (0.0, 1.0),
) -> xr.DataArray:
    """Targets of a Dataset as `(target, *navigation_dims)`, with labels such as "BC", "Fe", "phase: ni_fcc".

    Without `names`: BC, every element and every phase, as far as present; of a collection without these, every class
    and number that came with the samples. A name is a variable ("BC", "elements",
    "phase", "clusters", "pca", any map), one label ("Fe", "phase: ni_fcc", "pca: 0"), a weighted sum of elements
    ("Fe + 0.5*Ni", see `element_sum`), or the luminance of an RGB map of one to three elements ("rgb(Fe, Ni, Cr)", see
    `element_rgb`: 0.2126 red + 0.7152 green + 0.0722 blue). Elements whose symbol is no plain word are quoted
    ("'Fe Ka' + Ni"). For sums and luminance, elements are scaled between `quantiles` of their values in `roi`.

    Only elements, numbers, + - * / and rgb(...) are read; nothing is executed. Raises NoInputError for an unknown name
    or where there is nothing to compare with; UsageError for a combination that cannot be read.
    """
    dims = schema.navigation_dims(ds)
    known = {str(name): var for name, var in ds.data_vars.items() if _is_target(str(name), var, dims)}
    if not names:
        names = [name for name in (n.BC, n.ELEMENTS, n.PHASE) if name in known]
        if not names and not schema.is_scan(ds):
            brought = {name: var for name, var in known.items() if n.PROVENANCE not in var.attrs}
            names = [name for name, var in brought.items() if var.dtype.kind in "iuf"]
        if not names:
            raise NoInputError(
                f"the Dataset holds no band contrast, elements or phases to compare latents with; name a map."
                f"{did_you_mean(n.BC, sorted(known))}"
            )
    chosen: dict[str, xr.DataArray] = {}
    labels: dict[str, xr.DataArray] = {}
    if any(name not in known for name in names):
        labels = {label: item for var in known.values() for label, item in columns(var, dims)}
    for name in names:
        if name in known:
            chosen.update(columns(known[name], dims))
        elif name in labels:
            chosen[name] = labels[name]
        elif (tree := _combination(name)) is not None:
            chosen[name] = _combined(ds, tree, name, roi, quantiles)
        else:
            raise NoInputError(f"no target is named {name!r}.{did_you_mean(name, sorted({*known, *labels}))}")
    return stack(list(chosen.items()), dims)


def element_sum(
    ds: xr.Dataset,
    weights: Mapping[str, float],
    *,
    roi: xr.DataArray | None = None,
    quantiles: Quantiles = (0.0, 1.0),
) -> xr.DataArray:
    """Weighted sum of element maps over the navigation dims, so that abundant elements do not drown the others.

    Each element is scaled to 0 … 1 between two quantiles of its values in `roi` (0 and 1: least and greatest), and
    clipped there; one without spread counts 0. Weights are divided by the sum of their absolute values: the sum of
    positive weights lies in 0 … 1. NaN where any element is. Raises NoInputError for an unknown element, UsageError
    for no weight, weights that are all 0 or not finite, or quantiles out of order.
    """
    total = sum(abs(float(weight)) for weight in weights.values())
    if not (0 < total < np.inf):
        raise UsageError(f"the weights {dict(weights)} must be finite numbers, and one of them not 0.")
    shares = {str(name): float(weight) / total for name, weight in weights.items()}
    parts = [share * _scaled(ds, name, roi, quantiles) for name, share in shares.items()]
    mixed = reduce(operator.add, parts)
    words = " + ".join(f"{share:.3g} {name}" for name, share in shares.items()).replace("+ -", "- ")
    attrs = {"long_name": words, "units": "1", "weights": shares, "quantiles": list(quantiles)}
    return mixed.rename("element_sum").assign_attrs(attrs)


def element_rgb(
    ds: xr.Dataset,
    elements: Sequence[str],
    quantiles: Quantiles = (0.0, 1.0),
    *,
    roi: xr.DataArray | None = None,
) -> xr.DataArray:
    """Colour map of one to three elements, `(*navigation dims, channel)` in 0 … 1, NaN where any of them is.

    Red, green and blue are the elements in this order, each scaled between two quantiles of its values in `roi` and
    clipped there. One element gives grey; of two, blue is their mean. attrs: `elements` of the channels. Raises
    NoInputError for an unknown element, UsageError for none, more than three, or quantiles out of order.
    """
    if isinstance(elements, str) or not 1 <= len(elements) <= MOST_CHANNELS:
        raise UsageError(f"an RGB map takes one to three elements, in a list; got {elements!r}.")
    parts = [_scaled(ds, str(name), roi, quantiles) for name in elements]
    shown = [str(name) for name in elements]
    if len(parts) == 1:
        parts, shown = parts * MOST_CHANNELS, shown * MOST_CHANNELS
    elif len(parts) == 2:
        parts, shown = [*parts, (parts[0] + parts[1]) / 2], [*shown, f"mean of {shown[0]} and {shown[1]}"]
    dims = schema.navigation_dims(ds)
    channels = xr.concat(parts, dim=n.CHANNEL, combine_attrs="drop", coords="minimal", compat="override")
    channels = channels.assign_coords({n.CHANNEL: list(CHANNELS)}).transpose(*dims, n.CHANNEL)
    complete = channels.notnull().all(n.CHANNEL)
    attrs = {"long_name": "elements as colours", "units": "1", "elements": shown, "quantiles": list(quantiles)}
    return channels.where(complete).rename(RGB).assign_attrs(attrs)


def _scaled(ds: xr.Dataset, name: str, roi: xr.DataArray | None, quantiles: Quantiles) -> xr.DataArray:
    """One element as float64 in 0 … 1 between two quantiles of its values in the ROI; lazy where it is."""
    low, high = quantiles
    if not 0 <= low < high <= 1:
        raise UsageError(f"the quantiles {quantiles} must be two numbers, 0 <= first < second <= 1.")
    entries = [str(item) for item in ds[n.ELEMENT].values] if n.ELEMENTS in ds and n.ELEMENT in ds.coords else []
    if name not in entries:
        raise NoInputError(f"no element is named {name!r}.{did_you_mean(name, entries)}")
    part = ds[n.ELEMENTS].isel({n.ELEMENT: entries.index(name)}, drop=True).astype("f8").drop_attrs(deep=False)
    part = part.where(np.isfinite(part))
    used = part if roi is None else part.where(roi)
    if quantiles == (0.0, 1.0):
        least, most = used.min(), used.max()
    else:
        whole = used if used.chunks is None else used.chunk(dict.fromkeys(used.dims, -1))
        least, most = (whole.quantile(q).drop_vars("quantile") for q in quantiles)
    spread = most - least
    return ((part - least) / spread.where(spread > 0, 1.0)).clip(0, 1).where(part.notnull())


def _combination(text: str) -> ast.expr | None:
    """The parsed text if it combines elements by operators or a call, else None: it is then meant as a name."""
    if len(text) > MOST_CHARACTERS:
        return None
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):  # ValueError: a null character
        return None
    return tree if isinstance(tree, ast.BinOp | ast.UnaryOp | ast.Call) else None


def _combined(
    ds: xr.Dataset, tree: ast.expr, text: str, roi: xr.DataArray | None, quantiles: Quantiles
) -> xr.DataArray:
    """The map that a combination of elements describes."""
    match tree:
        case ast.Call(func=ast.Name(id="rgb"), args=args, keywords=[]):
            if not all(isinstance(item, ast.Name | ast.Constant) for item in args):
                raise UsageError(f"the target {text!r} takes one to three elements, such as 'rgb(Fe, Ni, Cr)'.")
            names = [str(item.id if isinstance(item, ast.Name) else ast.literal_eval(item)) for item in args]
            channels = element_rgb(ds, names, quantiles, roi=roi)
            return channels.dot(xr.DataArray(list(LUMINANCE), dims=n.CHANNEL), dim=n.CHANNEL)
        case ast.Call():
            raise UsageError(f"the target {text!r} calls something other than rgb(...), such as 'rgb(Fe, Ni, Cr)'.")
    return element_sum(ds, _weights(tree, text), roi=roi, quantiles=quantiles)


def _number(node: ast.expr) -> float | None:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _weights(node: ast.expr, text: str, factor: float = 1.0) -> dict[str, float]:
    """Weight of each element in a sum such as 2*Fe - Ni/3; brackets may be multiplied by numbers."""
    match node:
        case ast.Name(id=name) | ast.Constant(value=str(name)):
            return {name: factor}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=part):
            return _weights(part, text, -factor if isinstance(sign, ast.USub) else factor)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as sign, right=right):
            total = _weights(left, text, factor)
            for name, weight in _weights(right, text, -factor if isinstance(sign, ast.Sub) else factor).items():
                total[name] = total.get(name, 0.0) + weight
            return total
        case ast.BinOp(left=other, op=ast.Mult(), right=part) if (number := _number(other)) is not None:
            return _weights(part, text, factor * number)
        case ast.BinOp(left=part, op=ast.Mult(), right=other) if (number := _number(other)) is not None:
            return _weights(part, text, factor * number)
        case ast.BinOp(left=part, op=ast.Div(), right=other) if number := _number(other):
            return _weights(part, text, factor / number)
    raise UsageError(
        f"the target {text!r} holds {ast.unparse(node)!r}, which is no element times a number; write a sum like "
        f"'Fe + 0.5*Ni' or 'rgb(Fe, Ni, Cr)'."
    )


def _is_target(name: str, variable: xr.DataArray, dims: tuple[str, ...]) -> bool:
    own = (n.PATTERNS, n.LATENTS, n.ROI, n.SPLIT, n.PRESENT)
    if variable.dtype.kind not in "biuf" or any(name == item or name.startswith(f"{item}_") for item in own):
        return False
    return set(dims) <= set(map(str, variable.dims)) and len(variable.dims) <= len(dims) + 1
