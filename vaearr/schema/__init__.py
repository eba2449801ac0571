"""The layout of a vaearr Dataset: names, dimensions, dtypes and attributes, not values.

`patterns` is the one variable every Dataset has. Its attributes `navigation_dims` (dims that index
samples, for a scan `y, x`) and `signal_dims` (dims of one sample, for a scan `dy, dx`) say what its
axes mean; nothing is guessed from shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError, SchemaError, did_you_mean


def navigation_dims(ds: xr.Dataset) -> tuple[str, ...]:
    """Dims that index samples: `("y", "x")` for a scan, `("sample",)` for a collection."""
    return _declared(ds, n.NAVIGATION_DIMS)


def signal_dims(ds: xr.Dataset) -> tuple[str, ...]:
    """Dims of one sample: `("dy", "dx")` for a scan, with `channel` first where it exists."""
    return _declared(ds, n.SIGNAL_DIMS)


def navigation_shape(ds: xr.Dataset) -> tuple[int, ...]:
    """Sizes of the navigation dims."""
    return tuple(ds.sizes[dim] for dim in navigation_dims(ds))


def input_shape(ds: xr.Dataset) -> tuple[int, ...]:
    """Shape of one sample as input of a network: channels first, `(1, H, W)` for a scan."""
    dims = signal_dims(ds)
    sizes = tuple(ds.sizes[dim] for dim in dims)
    return sizes if dims[0] == n.CHANNEL else (1, *sizes)


def is_scan(ds: xr.Dataset) -> bool:
    """Whether samples lie on a grid of scan points (rather than in a collection)."""
    return n.SAMPLE not in navigation_dims(ds)


def samples_word(ds: xr.Dataset) -> str:
    """The word for the samples: scan points, volumes or images."""
    if is_scan(ds):
        return "scan points"
    return "volumes" if n.Z in signal_dims(ds) else "images"


def position_dims(latents: xr.DataArray) -> list[str]:
    """Spatial dims of latents in the order lz, ly, lx: `ly`, or `ly_b` of a run b."""
    by_prefix = {str(dim).split("_")[0]: str(dim) for dim in latents.dims}
    return [by_prefix[prefix] for prefix in n.POSITIONS if prefix in by_prefix]


def vectors(latents: xr.DataArray) -> xr.DataArray:
    """Latents with one value per dimension: the mean over the positions of spatial ones, lazy.

    The attribute `pooled_over` names the averaged dims. Missing positions (NaN) do not count.
    """
    positions = position_dims(latents)
    if not positions:
        return latents
    pooled = latents.mean(positions, keep_attrs=True)
    text = f"{latents.attrs.get('long_name', 'latent')}, mean over positions"
    return pooled.assign_attrs(long_name=text, pooled_over=positions)


def run_latents(ds: xr.Dataset, run: str) -> xr.DataArray:
    """Latents of a run, lazy, see `vectors`. Raises NoInputError if it has none."""
    if n.run_name(n.LATENTS, run) not in ds:
        refuse_not_encoded(ds, run)
    return vectors(ds[n.run_name(n.LATENTS, run)])


def refuse_not_encoded(ds: xr.Dataset, run: str) -> NoReturn:
    """Raise NoInputError that names the runs with latents."""
    hint = did_you_mean(run, runs(ds))
    raise NoInputError(
        f"run {run!r} has no latents: 'vaearr encode STORE --run {run}' writes them.{hint}"
    )


def _declared(ds: xr.Dataset, key: str) -> tuple[str, ...]:
    if n.PATTERNS not in ds:
        hint = did_you_mean(n.PATTERNS, [str(name) for name in ds.data_vars])
        raise SchemaError(f"the Dataset has no variable {n.PATTERNS!r}.{hint}")
    dims = ds[n.PATTERNS].attrs.get(key)
    if not dims:
        example = ["y", "x"] if key == n.NAVIGATION_DIMS else ["dy", "dx"]
        raise SchemaError(
            f"'patterns' lacks the attribute {key!r}; set it, for a scan to {example}."
        )
    return tuple(dims)


LAYOUTS: Sequence[
    tuple[tuple[str, ...], tuple[str, ...]]
] = (  # navigation dims and signal dims that are recognised by their names
    ((n.Y, n.X), (n.DY, n.DX)),
    ((n.Y, n.X), (n.CHANNEL, n.DY, n.DX)),
    (n.SCAN_DIMS, (n.DY, n.DX)),
    (n.SCAN_DIMS, (n.CHANNEL, n.DY, n.DX)),
    ((n.SAMPLE,), (n.Y, n.X)),
    ((n.SAMPLE,), (n.CHANNEL, n.Y, n.X)),
    ((n.SAMPLE,), n.SCAN_DIMS),
)


def as_dataset(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Make a valid Dataset of any data with patterns, lazy where it was.

    The patterns are a DataArray, the variable `patterns`, or a Dataset's only one; their dims are
    identified by attributes or by name. Dims are put in order, missing coordinates are numbers 0,
    1, …; results of runs are left out, which the attribute `notes` records. Raises SchemaError that
    says what to rename.
    """
    ds = data
    if isinstance(ds, xr.DataArray):
        ds = ds.to_dataset(name=n.PATTERNS)
    if n.PATTERNS not in ds and len(ds.data_vars) == 1:
        ds = ds.rename({next(iter(ds.data_vars)): n.PATTERNS})
    if n.PATTERNS not in ds:
        names = ", ".join(map(repr, ds.data_vars)) or "no variables"
        raise SchemaError(
            f"which of {names} holds the patterns? Rename it with "
            f"ds.rename({{NAME: {n.PATTERNS!r}}})."
        )
    nav, sig = _layout(ds[n.PATTERNS])
    patterns = ds[n.PATTERNS].transpose(*nav, *sig)
    dims = {n.NAVIGATION_DIMS: list(nav), n.SIGNAL_DIMS: list(sig)}
    patterns.attrs = {**n.ATTRS[n.PATTERNS], **patterns.attrs, **dims}
    ds = ds.assign({n.PATTERNS: patterns})
    for dim in (*nav, *sig):
        if dim not in ds.coords:
            attrs = dict(n.ATTRS.get(dim, {"long_name": dim}))
            if dim in nav:
                attrs["units"] = "step"
            numbers = np.arange(ds.sizes[dim])
            ds = ds.assign_coords({dim: (dim, numbers, attrs)})
    variables = map(str, ds.variables)
    of_runs = [v for v in variables if v in n.OF_A_RUN or v.startswith(n.PREFIXES_OF_RUNS)]
    if of_runs:
        note = f"left out, of runs that stay behind: {', '.join(of_runs)}"
        ds = ds.drop_vars(of_runs).assign_attrs(notes=[note])
    validate(ds)
    return ds


def _layout(patterns: xr.DataArray) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Navigation and signal dims by the attributes, else by the names of the dims."""
    layouts = LAYOUTS
    if patterns.attrs.get(n.NAVIGATION_DIMS) and patterns.attrs.get(n.SIGNAL_DIMS):
        nav = tuple(patterns.attrs[n.NAVIGATION_DIMS])
        layouts = [(nav, tuple(patterns.attrs[n.SIGNAL_DIMS]))]
    for nav, sig in layouts:
        if {*nav, *sig} == set(patterns.dims):
            return nav, sig
    expected = "; ".join(", ".join(nav + sig) for nav, sig in layouts)
    raise SchemaError(
        f"the patterns have dims {tuple(patterns.dims)}; rename them with .rename(…) to one of: "
        f"{expected} (dy, dx of the detector), keep a dim of one entry by .isel(y=[0]), or correct "
        f"{n.NAVIGATION_DIMS!r} and {n.SIGNAL_DIMS!r} among the attributes."
    )


def validate(ds: xr.Dataset) -> None:
    """Raise SchemaError, with what to do, unless `ds` is laid out as this module says."""
    nav = navigation_dims(ds)
    sig = signal_dims(ds)
    patterns = ds[n.PATTERNS]
    if tuple(patterns.dims) != (*nav, *sig):
        order = ", ".join(map(repr, (*nav, *sig)))
        raise SchemaError(
            f"'patterns' has dims {tuple(patterns.dims)}, expected ({order}); use "
            f"ds.transpose({order})."
        )
    if patterns.dtype.kind not in "uif" or patterns.dtype.itemsize > 8 or 0 in patterns.shape:
        raise SchemaError(
            f"'patterns' has dtype {patterns.dtype} and shape {patterns.shape}; expected integers "
            "or floats of at most 64 bits, at least one."
        )
    for dim in nav:
        if dim not in ds.coords:
            raise SchemaError(
                f"dimension {dim!r} has no coordinate; add ds.assign_coords({dim}=…)."
            )
        _validate_coordinate(ds[dim])
    for name, variable in ds.data_vars.items():
        _validate_variable(str(name), variable, nav)


def _validate_variable(name: str, variable: xr.DataArray, nav: tuple[str, ...]) -> None:
    """Raise SchemaError for a name, dtype or dims that a variable must not have."""
    if not n.is_valid_name(name):
        raise SchemaError(
            f"variable name {name!r} is not usable; use letters, digits and _, a letter first."
        )
    if name in (n.PRESENT, n.ROI) or name.startswith(f"{n.ROI}_"):
        if variable.dtype != np.dtype(bool) or set(variable.dims) != set(nav):
            raise SchemaError(
                f"{name!r} must be boolean over {nav}; it is {variable.dtype} over {variable.dims}."
            )
    elif name == n.ELEMENTS and n.ELEMENT not in variable.dims:
        raise SchemaError(
            f"'elements' has dims {variable.dims}; expected ('element', {', '.join(nav)})."
        )


def _validate_coordinate(coordinate: xr.DataArray) -> None:
    """Raise SchemaError unless the values are finite numbers, or names along `sample`, and each
    occurs once.
    """
    name, values = coordinate.name, coordinate.values
    kinds = "iufOUST" if name == n.SAMPLE else "iuf"
    if values.dtype.kind not in kinds:
        raise SchemaError(
            f"coordinate {name!r} has dtype {values.dtype}, expected numbers; replace it, for "
            f"example with ds.assign_coords({name}=range({values.size}))."
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise SchemaError(
            f"coordinate {name!r} holds {values[~np.isfinite(values)][0]}, expected finite "
            f"numbers; leave these points out with ds.sel({name}=numpy.isfinite(ds.{name})), or "
            "correct the coordinate with ds.assign_coords."
        )
    index = coordinate.to_index()
    if not index.is_unique:
        raise SchemaError(
            f"coordinate {name!r} holds the value {index[index.duplicated()][0]} twice."
        )


def maps(ds: xr.Dataset) -> list[str]:
    """Names of the variables over exactly the navigation dims, such as BC, phase and roi."""
    nav = set(navigation_dims(ds))
    names = map(str, ds.data_vars)
    return [name for name in names if set(ds[name].dims) == nav]


def runs(ds: xr.Dataset) -> list[str]:
    """Names of the runs whose latents the Dataset holds, the default run first."""
    prefix = f"{n.LATENTS}_"
    latents = [name for name in map(str, ds.data_vars) if name.startswith(prefix)]
    names = [name.removeprefix(prefix) for name in latents if not name.startswith(n.LATENTS_STD)]
    return [n.DEFAULT_RUN, *names] if n.LATENTS in ds else names


def cluster_maps(ds: xr.Dataset) -> list[str]:
    """Names of the maps of clusters: integers with the attributes `method` and `flag_values`."""
    names = []
    for name in maps(ds):
        is_result = "method" in ds[name].attrs and "flag_values" in ds[name].attrs
        if is_result and ds[name].dtype.kind == "i":
            names.append(name)
    return names


def describe(ds: xr.Dataset) -> dict[str, Any]:
    """Grid, extent, pattern shape, dtype, elements and bytes, from the metadata."""
    nav = navigation_dims(ds)
    elements = ds[n.ELEMENT].values.tolist() if n.ELEMENT in ds.coords else []
    extent = {}
    if is_scan(ds):
        for dim in nav:
            values = ds[dim].values
            units = str(ds[dim].attrs.get("units", ""))
            extent[dim] = (float(values[0]), float(values[-1]), units)
    return {
        "kind": "scan" if is_scan(ds) else "collection",
        "contents": contents(ds),
        "grid": {dim: ds.sizes[dim] for dim in nav},
        "extent": extent,
        "pattern": {dim: ds.sizes[dim] for dim in signal_dims(ds)},
        "dtype": str(ds[n.PATTERNS].dtype),
        "nbytes": int(ds[n.PATTERNS].nbytes),
        "elements": list(map(str, elements)),
    }


def contents(ds: xr.Dataset) -> str:
    """The samples in a line, such as `scan of 48 y x 64 x, patterns of 60 x 60 uint8`."""
    pattern = " x ".join(str(ds.sizes[dim]) for dim in signal_dims(ds))
    values = f"{pattern} {ds[n.PATTERNS].dtype}"
    if not is_scan(ds):
        return f"collection of {ds.sizes[n.SAMPLE]} {samples_word(ds)}, {values}"
    grid = " x ".join(f"{ds.sizes[dim]} {dim}" for dim in navigation_dims(ds))
    return f"scan of {grid}, patterns of {values}"


def is_categorical(variable: xr.DataArray) -> bool:
    """Whether the integers of a map are codes: named `phase`, or with `flag_values`."""
    has_codes = variable.name == n.PHASE or "flag_values" in variable.attrs
    return variable.dtype.kind in "iu" and has_codes


def meanings(variable: xr.DataArray) -> dict[int, str]:
    """Code -> name by `flag_values` and `flag_meanings` (CF), codes below 0 too.

    Unless there are as many names as codes, each code is named by its number.
    """
    codes = np.atleast_1d(variable.attrs.get("flag_values", [])).tolist()
    names = variable.attrs.get("flag_meanings", "")
    if isinstance(names, str):
        names = names.split()
    if len(names) != len(codes):
        names = codes
    return {int(code): str(name) for code, name in zip(codes, names, strict=True)}


def categories(variable: xr.DataArray) -> dict[int, str]:
    """Code -> name of a categorical map, codes below 0 (missing) left out.

    Read from `flag_values` and `flag_meanings` (CF); without them the codes found in the values,
    named by their number.
    """
    names = meanings(variable)
    if "flag_values" not in variable.attrs:
        values = variable.values
        codes = np.unique(values[np.isfinite(values)])
        names = {int(code): str(int(code)) for code in codes}
    return {code: name for code, name in names.items() if code >= 0}


def flags(
    codes: np.ndarray, names: Mapping[int, str], below: Mapping[int, str], prefix: str
) -> dict[str, Any]:
    """`flag_values` and `flag_meanings` (CF) of a map of codes.

    names: by code; codes without one are called `<prefix>_<code>`. below: names of codes below 0.
    """
    meaning = dict(below)
    for code in np.unique(codes[codes >= 0]):
        meaning[int(code)] = f"{prefix}_{code}"
    for code, name in names.items():
        if str(name).strip():
            meaning[int(code)] = "_".join(str(name).split())
    meaning = dict(sorted(meaning.items()))
    return {"flag_values": list(meaning), "flag_meanings": " ".join(meaning.values())}
