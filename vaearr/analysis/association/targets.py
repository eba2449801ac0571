"""What latents are compared with: side maps as columns with a label each, and maps made of several
elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, SchemaError, UsageError, did_you_mean
from vaearr.schema import categories, is_categorical

TARGET = "target"
RGB, MOST_CHANNELS = "rgb", 3
COLOURS = re.compile(r"\s*rgb\((.*)\)\s*")
TERM = re.compile(
    r"\s*([+-]?)\s*(?:(\d+\.?\d*|\.\d+)\s*\*\s*)?(\w+|'[^']+')\s*"
)  # such as - 0.5*Ni or 'Fe Ka'
CHANNELS = ("red", "green", "blue")
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear red, green, blue: ITU-R BT.709
Quantiles = tuple[float, float]


def columns(target: xr.DataArray, dims: Sequence[str]) -> Iterator[tuple[str, xr.DataArray]]:
    """A target as maps over exactly `dims`, each with its label; categories become 0/1 indicators,
    missing ones NaN.
    """
    name = str(target.name) if target.name is not None else TARGET
    if target.dtype.kind not in "biuf":
        raise SchemaError(f"target {name!r} is {target.dtype}; expected numbers.")
    extra = [str(dim) for dim in target.dims if dim not in dims]
    if missing := [dim for dim in dims if dim not in target.dims]:
        raise SchemaError(
            f"target {name!r} has dims {target.dims} and lacks {missing}; the latents lie over {dims}."
        )
    if len(extra) > 1:
        raise SchemaError(
            f"target {name!r} has more than one further dimension ({extra}); reduce or select one first."
        )
    if extra:
        labels = (
            target[extra[0]].values if extra[0] in target.coords else range(target.sizes[extra[0]])
        )
        for i, label in enumerate(labels):
            plain = extra[0] in (n.ELEMENT, TARGET)
            yield (
                (str(label) if plain else f"{name}: {label}"),
                target.isel({extra[0]: i}, drop=True),
            )
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
    return (
        isinstance(target, xr.DataArray)
        and set(target.dims) == set(dims)
        and not is_categorical(target)
    )


def stack(maps: Sequence[tuple[str, xr.DataArray]], dims: Sequence[str]) -> xr.DataArray:
    """Labelled maps as one float DataArray `(target, *dims)`, lazy where they are."""
    labels = [label for label, _ in maps]
    if not labels:
        raise NoInputError(
            "there is nothing to compare with: the targets hold no entry and no known class."
        )
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise SchemaError(
            f"several maps are called {', '.join(map(repr, twice))}; rename one of them."
        )
    plain = [
        item.transpose(*dims)
        .astype(_float_type(item.dtype), copy=False)
        .drop_attrs(deep=False)
        .reset_coords(drop=True)
        for _, item in maps
    ]
    try:
        both = xr.concat(
            plain,
            dim=TARGET,
            join="exact",
            combine_attrs="drop",
            coords="minimal",
            compat="override",
        )
    except ValueError as error:
        raise SchemaError(
            f"the maps do not lie on the same grid: {error} Select the same points of each."
        ) from None
    return (
        both.assign_coords({TARGET: labels})
        .rename("targets")
        .assign_attrs(long_name="association targets")
    )


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
    """Targets of a Dataset as `(target, *navigation_dims)`, with labels such as "BC", "Fe", "phase:
    ni_fcc".

    Without `names`: BC, every element and every phase, as far as present; of a collection without
    these, every class and number that came with the samples. A name is a variable ("BC",
    "elements", "phase", "clusters", "pca", any map), one label ("Fe", "phase: ni_fcc", "pca: 0"), a
    weighted sum of elements ("Fe + 0.5*Ni", divided by the sum of the weights), or the luminance of
    an RGB map of one to three elements ("rgb(Fe, Ni, Cr)", see `element_rgb`: 0.2126 red + 0.7152
    green + 0.0722 blue). Elements whose symbol is no plain word are quoted ("'Fe Ka' + Ni"). For
    sums and luminance, elements are scaled between `quantiles` of their values in `roi`.

    Raises NoInputError for an unknown name or where there is nothing to compare with; UsageError
    for weights that are all 0 and for more than three colours.
    """
    dims = schema.navigation_dims(ds)
    known = {
        str(name): var for name, var in ds.data_vars.items() if _is_target(str(name), var, dims)
    }
    if not names:
        names = [name for name in (n.BC, n.ELEMENTS, n.PHASE) if name in known]
        if not names and not schema.is_scan(ds):
            names = [
                name
                for name, var in known.items()
                if n.PROVENANCE not in var.attrs and var.dtype.kind in "iuf"
            ]
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
        else:
            combined = _combined(ds, name, roi, quantiles)
            if combined is None:
                raise NoInputError(
                    f"no target is named {name!r}, and it is no sum such as 'Fe + 0.5*Ni' and no 'rgb(Fe, Ni, Cr)'."
                    f"{did_you_mean(name, sorted({*known, *labels}))}"
                )
            chosen[name] = combined
    return stack(list(chosen.items()), dims)


def element_rgb(
    ds: xr.Dataset,
    elements: Sequence[str],
    quantiles: Quantiles = (0.0, 1.0),
    *,
    roi: xr.DataArray | None = None,
) -> xr.DataArray:
    """Colour map of one to three elements, `(*navigation dims, channel)` in 0 … 1, NaN where any of
    them is.

    Red, green and blue are the elements in this order, each scaled between two quantiles of its
    values in `roi` and clipped there. One element gives grey; of two, blue is their mean. attrs:
    `elements` of the channels. Raises NoInputError for an unknown element, UsageError for none,
    more than three, or quantiles out of order.
    """
    if isinstance(elements, str) or not 1 <= len(elements) <= MOST_CHANNELS:
        raise UsageError(f"an RGB map takes one to three elements, in a list; got {elements!r}.")
    parts = [_scaled(ds, str(name), roi, quantiles) for name in elements]
    shown = [str(name) for name in elements]
    if len(parts) == 1:
        parts, shown = parts * MOST_CHANNELS, shown * MOST_CHANNELS
    elif len(parts) == 2:
        parts, shown = (
            [*parts, (parts[0] + parts[1]) / 2],
            [*shown, f"mean of {shown[0]} and {shown[1]}"],
        )
    dims = schema.navigation_dims(ds)
    channels = xr.concat(
        parts, dim=n.CHANNEL, combine_attrs="drop", coords="minimal", compat="override"
    )
    channels = channels.assign_coords({n.CHANNEL: list(CHANNELS)}).transpose(*dims, n.CHANNEL)
    complete = channels.notnull().all(n.CHANNEL)
    attrs = {
        "long_name": "elements as colours",
        "units": "1",
        "elements": shown,
        "quantiles": list(quantiles),
    }
    return channels.where(complete).rename(RGB).assign_attrs(attrs)


def _scaled(
    ds: xr.Dataset, name: str, roi: xr.DataArray | None, quantiles: Quantiles
) -> xr.DataArray:
    """One element as float64 in 0 … 1 between two quantiles of its values in the ROI."""
    low, high = quantiles
    if not 0 <= low < high <= 1:
        raise UsageError(
            f"the quantiles {quantiles} must be two numbers, 0 <= first < second <= 1."
        )
    entries = (
        [str(item) for item in ds[n.ELEMENT].values]
        if n.ELEMENTS in ds and n.ELEMENT in ds.coords
        else []
    )
    if name not in entries:
        raise NoInputError(f"no element is named {name!r}.{did_you_mean(name, entries)}")
    part = (
        ds[n.ELEMENTS]
        .isel({n.ELEMENT: entries.index(name)}, drop=True)
        .astype("f8")
        .drop_attrs(deep=False)
    )
    part = part.where(np.isfinite(part)).compute()
    used = part if roi is None else part.where(roi)
    least, most = (used.quantile(q).drop_vars("quantile") for q in quantiles)
    spread = most - least
    return ((part - least) / spread.where(spread > 0, 1.0)).clip(0, 1).where(part.notnull())


def _combined(
    ds: xr.Dataset, text: str, roi: xr.DataArray | None, quantiles: Quantiles
) -> xr.DataArray | None:
    """The map that a combination of elements describes; None where the text is none."""
    if colours := COLOURS.fullmatch(text):
        names = [name.strip().strip("'") for name in colours[1].split(",")]
        channels = element_rgb(ds, names, quantiles, roi=roi)
        return channels.dot(xr.DataArray(list(LUMINANCE), dims=n.CHANNEL), dim=n.CHANNEL)
    weights = _weights(text)
    if weights is None or list(weights) == [text]:
        return None
    return _element_sum(ds, weights, roi, quantiles)


def _element_sum(
    ds: xr.Dataset, weights: Mapping[str, float], roi: xr.DataArray | None, quantiles: Quantiles
) -> xr.DataArray:
    """Weighted sum of element maps over the navigation dims, so that abundant elements do not drown
    the others.

    Each element is scaled to 0 … 1 between two quantiles of its values in `roi` (0 and 1: least and
    greatest), and clipped there; one without spread counts 0. Weights are divided by the sum of
    their absolute values. NaN where any element is. Raises NoInputError for an unknown element,
    UsageError for weights that are all 0.
    """
    total = sum(abs(weight) for weight in weights.values())
    if total == 0:
        raise UsageError(f"the weights {dict(weights)} are all 0; one of them must not be.")
    parts = [weight / total * _scaled(ds, name, roi, quantiles) for name, weight in weights.items()]
    return xr.concat(parts, "part").sum("part", skipna=False)


def _weights(text: str) -> dict[str, float] | None:
    """Weight of each element in a sum such as Fe - 0.5*Ni; None where the text is no sum."""
    weights: dict[str, float] = {}
    position = 0
    while position < len(text):
        term = TERM.match(text, position)
        if term is None or (position > 0 and not term[1]):
            return None
        name = term[3].strip("'")
        weight = float(term[2] or 1)
        weights[name] = weights.get(name, 0.0) + (-weight if term[1] == "-" else weight)
        position = term.end()
    return weights


def _is_target(name: str, variable: xr.DataArray, dims: tuple[str, ...]) -> bool:
    own = (n.PATTERNS, n.LATENTS, n.ROI, n.SPLIT, n.PRESENT)
    if variable.dtype.kind not in "biuf" or any(
        name == item or name.startswith(f"{item}_") for item in own
    ):
        return False
    return set(dims) <= set(map(str, variable.dims)) and len(variable.dims) <= len(dims) + 1
