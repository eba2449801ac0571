"""What a vaearr Dataset looks like. Looks at names, dimensions, dtypes and attributes, never at
values.

`patterns` is the one variable every Dataset has. Its attributes `navigation_dims` (dims that index
samples, for a scan `y, x`) and `signal_dims` (dims of one sample, for a scan `dy, dx`) say what its
axes mean; nothing is guessed from shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError, SchemaError, did_you_mean


def navigation_dims(ds: xr.Dataset) -> tuple[str, ...]:
    """Dims that index samples: `("y", "x")` for a scan, `("sample",)` for a collection."""
    return _declared(ds, n.NAVIGATION_DIMS)


def signal_dims(ds: xr.Dataset) -> tuple[str, ...]:
    """Dims of one sample: `("dy", "dx")` for a scan, with `channel` in front where there are
    several.
    """
    return _declared(ds, n.SIGNAL_DIMS)


def navigation_shape(ds: xr.Dataset) -> tuple[int, ...]:
    """Sizes of the navigation dims."""
    return tuple(ds.sizes[dim] for dim in navigation_dims(ds))


def input_shape(ds: xr.Dataset) -> tuple[int, ...]:
    """Shape of one sample as a network sees it: channels first, `(1, H, W)` for a scan with plain
    patterns.
    """
    dims = signal_dims(ds)
    sizes = tuple(ds.sizes[dim] for dim in dims)
    return sizes if dims[0] == n.CHANNEL else (1, *sizes)


def is_scan(ds: xr.Dataset) -> bool:
    """Whether samples lie on a grid of scan points (rather than in a collection)."""
    return n.SAMPLE not in navigation_dims(ds)


def samples_word(ds: xr.Dataset) -> str:
    """What the samples are called in plain words: scan points, volumes or images."""
    if is_scan(ds):
        return "scan points"
    return "volumes" if n.Z in signal_dims(ds) else "images"


def position_dims(latents: xr.DataArray) -> list[str]:
    """Dims along which a spatial latent lies, in the order lz, ly, lx: `ly`, or `ly_b` of a run b;
    none of a vector.
    """
    known = {str(dim).partition("_")[0]: str(dim) for dim in latents.dims}
    return [known[name] for name in n.POSITIONS if name in known]


def vectors(latents: xr.DataArray) -> xr.DataArray:
    """Latents with one value per dimension: spatial ones as the mean over their positions, lazy;
    others as they are.

    The attribute `pooled_over` names the dims that are gone. Positions that are missing (NaN) do
    not count.
    """
    positions = position_dims(latents)
    if not positions:
        return latents
    pooled = latents.mean(positions, skipna=True, keep_attrs=True)
    text = f"{latents.attrs.get('long_name', 'latent')}, mean over positions"
    return pooled.assign_attrs(long_name=text, pooled_over=positions)


def run_latents(ds: xr.Dataset, run: str) -> xr.DataArray:
    """Latents of a run, lazy; of spatial ones the means over their positions. Raises NoInputError,
    naming the runs that have some, if it has none.
    """
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
        raise SchemaError(
            "the Dataset has no variable "
            f"{n.PATTERNS!r}.{did_you_mean(n.PATTERNS, [str(v) for v in ds.data_vars])}"
        )
    dims = ds[n.PATTERNS].attrs.get(key)
    if not dims:
        raise SchemaError(
            f"'patterns' lacks the attribute {key!r}; set it, for a scan to "
            f"{['y', 'x'] if key == n.NAVIGATION_DIMS else ['dy', 'dx']}."
        )
    return tuple(dims)


LAYOUTS = (  # navigation dims and signal dims that their names tell
    *(
        ((*nav,), (*channel, n.DY, n.DX))
        for nav in ((n.Y, n.X), n.SCAN_DIMS)
        for channel in ((), (n.CHANNEL,))
    ),
    *(((n.SAMPLE,), sig) for sig in ((n.Y, n.X), (n.CHANNEL, n.Y, n.X), n.SCAN_DIMS)),
)


def as_dataset(given: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """A valid Dataset of any that holds patterns, lazy where it was; their dims are told by
    attributes or by name.

    The patterns are a DataArray, the variable `patterns`, or a Dataset's only one. Dims come in
    order, missing coordinates are numbers 0, 1, …; what belongs to trained runs, which stay behind,
    is left out, and the attribute `notes` says so. Raises SchemaError that says what to rename.
    """
    ds = given.to_dataset(name=n.PATTERNS) if isinstance(given, xr.DataArray) else given
    if n.PATTERNS not in ds and len(ds.data_vars) == 1:
        ds = ds.rename({next(iter(ds.data_vars)): n.PATTERNS})
    if n.PATTERNS not in ds:
        known = ", ".join(map(repr, ds.data_vars)) or "no variables"
        raise SchemaError(
            f"which of {known} holds the patterns? Rename it with "
            f"ds.rename({{NAME: {n.PATTERNS!r}}})."
        )
    patterns = ds[n.PATTERNS]
    declared = [tuple(patterns.attrs.get(key) or ()) for key in (n.NAVIGATION_DIMS, n.SIGNAL_DIMS)]
    known_layouts = [declared] if all(declared) else LAYOUTS
    found = [
        (nav, sig)
        for nav, sig in known_layouts
        if sorted((*nav, *sig)) == sorted(map(str, patterns.dims))
    ]
    if not found:
        known = "; ".join(", ".join((*nav, *sig)) for nav, sig in known_layouts)
        raise SchemaError(
            f"the patterns have dims {tuple(patterns.dims)}; rename them with .rename(…) to one "
            f"of: {known} (dy, dx of the detector), keep a dim of one entry by .isel(y=[0]), or "
            f"correct {n.NAVIGATION_DIMS!r} and {n.SIGNAL_DIMS!r} among the attributes."
        )
    nav, sig = found[0]
    patterns = patterns.transpose(*nav, *sig).assign_attrs(
        {
            **n.ATTRS[n.PATTERNS],
            **patterns.attrs,
            n.NAVIGATION_DIMS: list(nav),
            n.SIGNAL_DIMS: list(sig),
        }
    )
    ds = ds.assign({n.PATTERNS: patterns})
    for dim in [dim for dim in (*nav, *sig) if dim not in ds.coords]:
        about = {
            **n.ATTRS.get(dim, {"long_name": dim}),
            **({"units": "step"} if dim in nav else {}),
        }
        ds = ds.assign_coords({dim: (dim, np.arange(ds.sizes[dim]), about)})
    if of_runs := [
        name for name in ds.variables if name in n.OF_A_RUN or str(name).startswith(n.OF_LATER_RUNS)
    ]:
        note = f"left out, of runs that stay behind: {', '.join(map(str, of_runs))}"
        ds = ds.drop_vars(of_runs).assign_attrs(notes=[note])
    validate(ds)
    return ds


def validate(ds: xr.Dataset) -> None:
    """Raise SchemaError, with what to do, unless `ds` is laid out as this module says."""
    nav, sig = navigation_dims(ds), signal_dims(ds)
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
        if not n.is_valid_name(str(name)):
            raise SchemaError(
                f"variable name {name!r} is not usable; use letters, digits and _, a letter first."
            )
        if str(name) in (n.PRESENT, n.ROI) or str(name).startswith(f"{n.ROI}_"):
            if variable.dtype != np.dtype(bool) or set(variable.dims) != set(nav):
                raise SchemaError(
                    f"{name!r} must be boolean over {nav}; it is {variable.dtype} over "
                    f"{variable.dims}."
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
    """Names of the variables that lie over exactly the navigation dims: BC, phase, roi and the
    like.
    """
    nav = set(navigation_dims(ds))
    return [str(name) for name, variable in ds.data_vars.items() if set(variable.dims) == nav]


def runs(ds: xr.Dataset) -> list[str]:
    """Names of the runs whose latents the Dataset holds, the default run first."""
    names = [str(name) for name in ds.data_vars if not str(name).startswith(n.LATENTS_STD)]
    others = [
        name.removeprefix(f"{n.LATENTS}_") for name in names if name.startswith(f"{n.LATENTS}_")
    ]
    return [n.DEFAULT_RUN] * (n.LATENTS in names) + others


def decompositions(ds: xr.Dataset) -> list[str]:
    """Names of the linear decompositions in a Dataset: `pca` over the navigation dims and
    `pca_component`, `nmf` …
    """
    nav = set(navigation_dims(ds))
    found = [
        str(name)
        for name, v in ds.data_vars.items()
        if set(v.dims) == nav | {f"{name}_{n.COMPONENT}"}
    ]
    return [name for name in found if name != n.QUATERNION]


def cluster_maps(ds: xr.Dataset) -> list[str]:
    """Names of the maps of clusters in a Dataset: whole numbers that say by which method they were
    found.
    """
    return [
        name
        for name in maps(ds)
        if ds[name].dtype.kind == "i"
        and "method" in ds[name].attrs
        and "flag_values" in ds[name].attrs
    ]


def describe(ds: xr.Dataset) -> dict[str, Any]:
    """Facts about a Dataset from its metadata: grid, pattern shape, dtype, maps, elements, runs,
    bytes.
    """
    nav = navigation_dims(ds)
    return {
        "kind": "scan" if is_scan(ds) else "collection",
        "grid": {dim: ds.sizes[dim] for dim in nav},
        "extent": {
            dim: (
                float(ds[dim].values[0]),
                float(ds[dim].values[-1]),
                str(ds[dim].attrs.get("units", "")),
            )
            for dim in (nav if is_scan(ds) else ())
        },
        "pattern": {dim: ds.sizes[dim] for dim in signal_dims(ds)},
        "dtype": str(ds[n.PATTERNS].dtype),
        "nbytes": int(ds[n.PATTERNS].nbytes),
        "maps": maps(ds),
        "elements": [str(e) for e in ds[n.ELEMENT].values] if n.ELEMENT in ds.coords else [],
        "runs": runs(ds),
    }


def is_categorical(variable: xr.DataArray) -> bool:
    """Whether the integers of a map are codes (phase, clusters), not amounts: named `phase`, or
    with `flag_values`.
    """
    return variable.dtype.kind in "iu" and (
        variable.name == n.PHASE or "flag_values" in variable.attrs
    )


def meanings(variable: xr.DataArray) -> dict[int, str]:
    """Code -> name by `flag_values` and `flag_meanings` (CF), codes below 0 too; empty where there
    are none.

    Where the names are not as many as the codes, each code is named by its number.
    """
    codes = [int(code) for code in np.atleast_1d(variable.attrs.get("flag_values", []))]
    given = variable.attrs.get("flag_meanings", "")
    words = given.split() if isinstance(given, str) else [str(word) for word in given]
    return dict(zip(codes, words if len(words) == len(codes) else map(str, codes), strict=True))


def categories(variable: xr.DataArray) -> dict[int, str]:
    """Code -> name of a categorical map, codes below 0 (missing) left out.

    Read from `flag_values` and `flag_meanings` (CF); without them the codes found in the values,
    named by their number.
    """
    if "flag_values" in variable.attrs:
        return {code: name for code, name in meanings(variable).items() if code >= 0}
    found = np.unique(np.asarray(variable.values))
    return {int(code): str(int(code)) for code in found if np.isfinite(code) and code >= 0}


def flags(
    codes: np.ndarray, names: Mapping[int, str], below: Mapping[int, str], one: str
) -> dict[str, Any]:
    """`flag_values` and `flag_meanings` (CF) of a map of codes: names that are known,
    `<one>_<code>` for the others.

    below: what the codes below 0 mean.
    """
    words = dict(below) | {int(code): f"{one}_{code}" for code in np.unique(codes) if code >= 0}
    words |= {
        int(code): "_".join(str(name).split()) for code, name in names.items() if str(name).strip()
    }
    words = dict(sorted(words.items()))
    return {"flag_values": list(words), "flag_meanings": " ".join(words.values())}
