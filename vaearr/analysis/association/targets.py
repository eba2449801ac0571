"""Targets that latents are compared with: maps with labels, and combinations of elements."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, SchemaError, UsageError, did_you_mean
from vaearr.schema import categories, is_categorical

TARGET = "target"
RGB = "rgb"
CHANNELS = ("red", "green", "blue")
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear red, green, blue: ITU-R BT.709
RGB_TEXT = re.compile(r"\s*rgb\((.*)\)\s*")
TERM = re.compile(  # such as - 0.5*Ni or 'Fe Ka'
    r"\s*([+-]?)\s*(?:(\d+\.?\d*|\.\d+)\s*\*\s*)?(\w+|'[^']+')\s*"
)
COMPUTED = (n.PATTERNS, n.LATENTS, n.ROI, n.SPLIT, n.PRESENT)  # no targets unless named
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
    maps = {
        str(name): variable
        for name, variable in ds.data_vars.items()
        if _is_target(str(name), variable, dims)
    }
    names = names or _default_names(ds, maps)
    if not names:
        raise NoInputError(
            "the Dataset holds no band contrast, elements or phases to compare latents with; name "
            f"a map.{did_you_mean(n.BC, sorted(maps))}"
        )
    labels: dict[str, xr.DataArray] = {}
    if any(name not in maps for name in names):
        for variable in maps.values():
            labels.update(columns(variable, dims))
    chosen: dict[str, xr.DataArray] = {}
    for name in names:
        if name in maps:
            chosen.update(columns(maps[name], dims))
            continue
        target = labels[name] if name in labels else _combination(ds, name, roi, quantiles)
        if target is None:
            raise NoInputError(
                f"no target is named {name!r}, and it is no sum such as 'Fe + 0.5*Ni' and no "
                f"'rgb(Fe, Ni, Cr)'.{did_you_mean(name, sorted({*maps, *labels}))}"
            )
        chosen[name] = target
    return stack(list(chosen.items()), dims)


def _is_target(name: str, variable: xr.DataArray, dims: tuple[str, ...]) -> bool:
    if any(name == item or name.startswith(f"{item}_") for item in COMPUTED):
        return False
    is_map = set(dims) <= set(map(str, variable.dims)) and variable.ndim <= len(dims) + 1
    return is_map and variable.dtype.kind in "biuf"


def _default_names(ds: xr.Dataset, maps: dict[str, xr.DataArray]) -> list[str]:
    names = [name for name in (n.BC, n.ELEMENTS, n.PHASE) if name in maps]
    if names or schema.is_scan(ds):
        return names
    for name, variable in maps.items():
        if n.PROVENANCE not in variable.attrs and variable.dtype.kind in "iuf":
            names.append(name)
    return names


def columns(target: xr.DataArray, dims: Sequence[str]) -> Iterator[tuple[str, xr.DataArray]]:
    """A target as labelled maps over `dims`; categories become 0/1 indicators, NaN if missing."""
    name = str(target.name) if target.name is not None else TARGET
    if target.dtype.kind not in "biuf":
        raise SchemaError(f"target {name!r} is {target.dtype}; expected numbers.")
    extra = [str(dim) for dim in target.dims if dim not in dims]
    missing = [dim for dim in dims if dim not in target.dims]
    if missing:
        raise SchemaError(
            f"target {name!r} has dims {target.dims} and lacks {missing}; the latents lie over "
            f"{dims}."
        )
    if len(extra) > 1:
        raise SchemaError(
            f"target {name!r} has more than one further dimension ({extra}); reduce or select one "
            "first."
        )
    if extra:
        dim = extra[0]
        prefix = "" if dim in (n.ELEMENT, TARGET) else f"{name}: "
        for i, label in enumerate(target[dim].values):  # the index where it has no coordinate
            yield f"{prefix}{label}", target.isel({dim: i}, drop=True)
    elif is_categorical(target):
        for code, label in categories(target).items():
            yield f"{name}: {label}", (target == code).astype("f4").where(target >= 0)
    else:
        yield name, target


def stacked(target: xr.DataArray | xr.Dataset, dims: Sequence[str]) -> xr.DataArray:
    """All columns of a target as one DataArray, see `stack`."""
    variables = target.data_vars.values() if isinstance(target, xr.Dataset) else [target]
    maps: list[tuple[str, xr.DataArray]] = []
    for variable in variables:
        maps += columns(variable, dims)
    return stack(maps, dims)


def is_single(target: xr.DataArray | xr.Dataset, dims: Sequence[str]) -> bool:
    """Whether a target is one plain map, so that the result needs no target dimension."""
    if isinstance(target, xr.Dataset) or is_categorical(target):
        return False
    return set(target.dims) == set(dims)


def stack(maps: Sequence[tuple[str, xr.DataArray]], dims: Sequence[str]) -> xr.DataArray:
    """Labelled maps as one float DataArray `(target, *dims)`, lazy if the maps are."""
    labels = [label for label, _ in maps]
    if not labels:
        raise NoInputError(
            "there is nothing to compare with: the targets hold no entry and no known class."
        )
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise SchemaError(
            f"several maps are called {', '.join(map(repr, repeated))}; rename one of them."
        )
    plain = []
    for _, values in maps:
        dtype = np.result_type(values.dtype, np.float32)  # float64 only where float32 is not exact
        values = values.transpose(*dims).astype(dtype, copy=False)
        plain.append(values.drop_attrs(deep=False).reset_coords(drop=True))
    try:
        result = xr.concat(
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
    result = result.assign_coords({TARGET: labels}).rename("targets")
    return result.assign_attrs(long_name="association targets")


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
    maps = [_scaled(ds, name, roi, quantiles) for name in names]
    if len(names) == 1:
        names *= 3
        maps *= 3
    elif len(names) == 2:
        names.append(f"mean of {names[0]} and {names[1]}")
        maps.append((maps[0] + maps[1]) / 2)
    channels = xr.concat(
        maps, dim=n.CHANNEL, combine_attrs="drop", coords="minimal", compat="override"
    )
    channels = channels.assign_coords({n.CHANNEL: list(CHANNELS)})
    channels = channels.transpose(*schema.navigation_dims(ds), n.CHANNEL)
    channels = channels.where(channels.notnull().all(n.CHANNEL)).rename(RGB)
    return channels.assign_attrs(
        long_name="elements as colours", units="1", elements=names, quantiles=list(quantiles)
    )


def _scaled(
    ds: xr.Dataset, name: str, roi: xr.DataArray | None, quantiles: Quantiles
) -> xr.DataArray:
    """One element as float64 in 0 … 1 between two quantiles of its values in the ROI."""
    low, high = quantiles
    if not 0 <= low < high <= 1:
        raise UsageError(
            f"the quantiles {quantiles} must be two numbers, 0 <= first < second <= 1."
        )
    names = []
    if n.ELEMENTS in ds and n.ELEMENT in ds.coords:
        names = [str(label) for label in ds[n.ELEMENT].values]
    if name not in names:
        raise NoInputError(f"no element is named {name!r}.{did_you_mean(name, names)}")
    values = ds[n.ELEMENTS].isel({n.ELEMENT: names.index(name)}, drop=True)
    values = values.astype("f8").drop_attrs(deep=False)
    values = values.where(np.isfinite(values)).compute()
    inside = values if roi is None else values.where(roi)
    least = inside.quantile(low).drop_vars("quantile")
    spread = inside.quantile(high).drop_vars("quantile") - least
    scaled = (values - least) / spread.where(spread > 0, 1.0)
    return scaled.clip(0, 1).where(values.notnull())


def _combination(
    ds: xr.Dataset, text: str, roi: xr.DataArray | None, quantiles: Quantiles
) -> xr.DataArray | None:
    """The map of a weighted sum of elements or of "rgb(...)"; None for any other text.

    NaN where any element is; an element without spread counts as 0.
    """
    colours = RGB_TEXT.fullmatch(text)
    if colours:
        names = [name.strip().strip("'") for name in colours[1].split(",")]
        channels = element_rgb(ds, names, quantiles, roi=roi)
        return channels.dot(xr.DataArray(list(LUMINANCE), dims=n.CHANNEL), dim=n.CHANNEL)
    weights = _weights(text)
    if weights is None or list(weights) == [text]:
        return None
    total = sum(abs(weight) for weight in weights.values())
    if total == 0:
        raise UsageError(f"the weights {weights} are all 0; one of them must not be.")
    terms = []
    for name, weight in weights.items():
        terms.append(weight / total * _scaled(ds, name, roi, quantiles))
    return xr.concat(terms, "term").sum("term", skipna=False)


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
