"""Targets that latents are compared with: maps with labels, and combinations of elements."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, SchemaError, UsageError, did_you_mean
from vaearr.schema import categories, is_categorical

TARGET = "target"
RGB = "rgb"
CHANNELS = ("red", "green", "blue")
SHARES = {  # of one to three elements (element, channel); of two, blue is the mean
    1: [[1.0, 1.0, 1.0]],
    2: [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]],
    3: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
}
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear red, green, blue: ITU-R BT.709
RGB_TEXT = re.compile(r"\s*rgb\((.*)\)\s*")
TERM = re.compile(  # such as - 0.5*Ni or 'Fe Ka'
    r"\s*([+-]?)\s*(?:(\d+\.?\d*|\.\d+)\s*\*\s*)?(\w+|'[^']+')\s*"
)
# with and without a further name, such as roi and roi_b
NEVER_TARGETS = (n.PATTERNS, n.LATENTS, n.ROI, n.SPLIT, n.PRESENT)
Quantiles = tuple[float, float]


def targets_of(
    ds: xr.Dataset,
    names: Sequence[str] = (),
    *,
    roi: xr.DataArray | None = None,
    quantiles: Quantiles = (0.0, 1.0),
) -> xr.DataArray:
    """Collect the targets of a Dataset as labelled maps.

    Parameters
    ----------
    ds
        A scan or collection.
    names
        Variables ("BC", "elements", "phase", "clusters", "pca", any map), labels ("Fe", "phase:
        ni_fcc", "pca: 0"), weighted sums of elements ("Fe + 0.5*Ni", divided by the sum of the
        absolute weights), or the luminance of an RGB map of one to three elements ("rgb(Fe, Ni,
        Cr)": 0.2126 red + 0.7152 green + 0.0722 blue, see `element_rgb`). Elements whose symbol is
        no plain word are quoted ("'Fe Ka' + Ni"). Default: BC, elements and phase, as far as
        present; of a collection without these, the classes and numbers of its samples.
    roi, quantiles
        In sums and RGB maps, each element is scaled to 0 … 1 between these quantiles of its values
        in this region, and clipped.

    Returns
    -------
    xarray.DataArray
        Dims `target` and the navigation dims.

    Raises
    ------
    NoInputError
        For an unknown name, and if there is no target.
    UsageError
        For weights that are all 0 and for more than three colours.
    """
    dims = schema.navigation_dims(ds)
    maps: dict[str, xr.DataArray] = {}
    for name, variable in ds.data_vars.items():
        if is_map(variable, dims) and not _is_excluded(str(name)):
            maps[str(name)] = variable
    chosen: dict[str, xr.DataArray] = {}
    for name in names or _default_names(ds, maps):
        if name in maps:
            chosen.update(columns(maps[name], dims))
            continue
        target = entry_of(maps, name, dims)
        if target is None:
            target = _combination(ds, name, roi, quantiles)
        if target is None:
            raise NoInputError(
                f"no target is named {name!r}, and it is no sum such as 'Fe + 0.5*Ni' and no "
                f"'rgb(Fe, Ni, Cr)'.{_similar_target(maps, name, dims)}"
            )
        chosen[name] = target
    return stack(chosen.items(), dims)


def _similar_target(maps: dict[str, xr.DataArray], name: str, dims: tuple[str, ...]) -> str:
    """The hint at a target with a similar name or long name; "" if there is none."""
    labels = [label for variable in maps.values() for label, _ in columns(variable, dims)]
    labels = [label for label in labels if ": " not in label]  # classes of a listed map
    long_names = {text: variable.attrs.get("long_name", "") for text, variable in maps.items()}
    return did_you_mean(name, sorted({*maps, *labels}), long_names)


def _is_excluded(name: str) -> bool:
    """Whether a variable is never a target, whatever its run."""
    return any(name == item or name.startswith(f"{item}_") for item in NEVER_TARGETS)


def _default_names(ds: xr.Dataset, maps: dict[str, xr.DataArray]) -> list[str]:
    names = [name for name in (n.BC, n.ELEMENTS, n.PHASE) if name in maps]
    if not names and not schema.is_scan(ds):
        for name, variable in maps.items():
            if n.PROVENANCE not in variable.attrs and variable.dtype.kind in "iuf":
                names.append(name)
    if not names:
        usual = "band contrast, elements or phases"
        if not schema.is_scan(ds):
            usual = "labels or numbers of its samples"
        raise NoInputError(
            f"the Dataset holds no {usual} to compare latents with; name a map."
            f"{did_you_mean(n.BC, sorted(maps))}"
        )
    return names


def is_map(variable: xr.DataArray, dims: Sequence[Hashable]) -> bool:
    """Whether a variable holds numbers over `dims` and at most one further dim."""
    is_over_dims = set(dims) <= set(variable.dims) and variable.ndim <= len(dims) + 1
    return is_over_dims and variable.dtype.kind in "biuf"


def columns(
    target: xr.DataArray | xr.Dataset, dims: Sequence[Hashable]
) -> Iterator[tuple[str, xr.DataArray]]:
    """A target as labelled maps over `dims`; categories become 0/1 indicators, NaN if missing."""
    if isinstance(target, xr.Dataset):
        for variable in target.data_vars.values():
            yield from columns(variable, dims)
        return
    name = TARGET if target.name is None else str(target.name)
    if not is_map(target, dims):
        raise SchemaError(
            f"{name!r} is {target.dtype} over {target.dims}; expected numbers over {tuple(dims)} "
            "and at most one further dimension; select or reduce."
        )
    further = [dim for dim in target.dims if dim not in dims]
    if further:
        prefix = "" if further[0] in (n.ELEMENT, TARGET) else f"{name}: "
        for i, label in enumerate(target[further[0]].values):  # the index if it has no coordinate
            yield f"{prefix}{label}", target.isel({further[0]: i}, drop=True)
    elif is_categorical(target):
        for code, label in categories(target).items():
            yield f"{name}: {label}", (target == code).astype("f4").where(target >= 0)
    else:
        yield name, target


def entry_of(
    maps: Mapping[str, xr.DataArray], label: str, dims: Sequence[Hashable]
) -> xr.DataArray | None:
    """The entry of one of the maps that has this label, see `columns`; None if none has it."""
    for name, variable in maps.items():
        for entry_label, entry in columns(variable.rename(name), dims):
            if entry_label == label:
                return entry
    return None


def stack(maps: Iterable[tuple[str, xr.DataArray]], dims: Sequence[Hashable]) -> xr.DataArray:
    """Labelled maps as one float DataArray `(target, *dims)`, lazy if the maps are."""
    labels = []
    arrays = []
    for label, values in maps:
        if label in labels:
            raise SchemaError(f"several maps are called {label!r}; rename one of them.")
        dtype = np.result_type(values.dtype, np.float32)  # float64 only where float32 is not exact
        values = values.transpose(*dims).astype(dtype, copy=False)
        labels.append(label)
        arrays.append(values.drop_attrs(deep=False).reset_coords(drop=True))
    if not arrays:
        raise NoInputError(
            "the targets hold no entry and no class; give maps with values to compare with."
        )
    try:
        stacked = xr.concat(
            arrays, TARGET, join="exact", combine_attrs="drop", coords="minimal", compat="override"
        )
    except ValueError as error:
        raise SchemaError(
            f"the maps do not lie on the same grid: {error} Select the same points of each."
        ) from None
    stacked = stacked.assign_coords({TARGET: labels}).rename("targets")
    return stacked.assign_attrs(long_name="association targets")


def element_rgb(
    ds: xr.Dataset,
    elements: Sequence[str],
    quantiles: Quantiles = (0.0, 1.0),
    *,
    roi: xr.DataArray | None = None,
) -> xr.DataArray:
    """Combine one to three elements into a colour map.

    Parameters
    ----------
    ds
        A Dataset with `elements`.
    elements
        Red, green and blue. One element gives grey; of two, blue is their mean.
    quantiles, roi
        Each element is scaled to 0 … 1 between these quantiles of its values in this region, and
        clipped.

    Returns
    -------
    xarray.DataArray
        Dims navigation dims and `channel`, 0 … 1, NaN where any element is. Attribute `elements`:
        those of the channels.

    Raises
    ------
    NoInputError
        For an unknown element.
    UsageError
        For none or more than three elements, and for quantiles out of order.
    """
    if isinstance(elements, str) or not 1 <= len(elements) <= len(CHANNELS):
        raise UsageError(f"an RGB map takes one to three elements, in a list; got {elements!r}.")
    names = [str(name) for name in elements]
    shares = xr.DataArray(
        SHARES[len(names)], {n.CHANNEL: list(CHANNELS)}, dims=(n.ELEMENT, n.CHANNEL)
    )
    channels = _scaled(ds, names, roi, quantiles).dot(shares, dim=n.ELEMENT).rename(RGB)
    if len(names) == 1:
        names *= 3
    elif len(names) == 2:
        names.append(f"mean of {names[0]} and {names[1]}")
    return channels.assign_attrs(
        long_name="elements as colours", units="1", elements=names, quantiles=list(quantiles)
    )


def _scaled(
    ds: xr.Dataset, names: Sequence[str], roi: xr.DataArray | None, quantiles: Quantiles
) -> xr.DataArray:
    """Elements `(*navigation, element)` in 0 … 1 between two quantiles of their values in the ROI.

    float64, NaN if missing; 0 for an element without spread.
    """
    low, high = quantiles
    if not 0 <= low < high <= 1:
        raise UsageError(
            f"the quantiles {quantiles} must be two numbers, 0 <= first < second <= 1."
        )
    labels: list[str] = []
    if n.ELEMENTS in ds and n.ELEMENT in ds.coords:
        labels = [str(label) for label in ds[n.ELEMENT].values]
    for name in names:
        if name not in labels:
            raise NoInputError(f"no element is named {name!r}.{did_you_mean(name, labels)}")
    dims = schema.navigation_dims(ds)
    values = ds[n.ELEMENTS].isel({n.ELEMENT: [labels.index(name) for name in names]})
    values = values.drop_vars(n.ELEMENT).drop_attrs(deep=False).transpose(*dims, n.ELEMENT)
    values = values.where(np.isfinite(values)).astype("f8").compute()
    inside = values if roi is None else values.where(roi)
    least, most = inside.quantile([low, high], dims).drop_vars("quantile")
    spread = most - least
    scaled = (values - least) / spread.where(spread > 0, 1.0)
    return scaled.clip(0, 1).where(values.notnull())


def _combination(
    ds: xr.Dataset, text: str, roi: xr.DataArray | None, quantiles: Quantiles
) -> xr.DataArray | None:
    """The map of a weighted sum of elements or of "rgb(...)"; None for any other text.

    NaN where any element is.
    """
    colours = RGB_TEXT.fullmatch(text)
    if colours:
        names = [name.strip().strip("'") for name in colours[1].split(",")]
        channels = element_rgb(ds, names, quantiles, roi=roi)
        return channels.dot(xr.DataArray(list(LUMINANCE), dims=n.CHANNEL), dim=n.CHANNEL)
    weights = _weights(text)
    is_plain_name = weights is not None and list(weights) == [text]
    if weights is None or is_plain_name:
        return None
    shares = xr.DataArray(list(weights.values()), dims=n.ELEMENT)
    total = abs(shares).sum()
    if total == 0:
        raise UsageError(f"the weights {weights} are all 0; one of them must not be.")
    return _scaled(ds, list(weights), roi, quantiles).dot(shares / total, dim=n.ELEMENT)


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
        if term[1] == "-":
            weight = -weight
        weights[name] = weights.get(name, 0.0) + weight
        position = term.end()
    return weights
