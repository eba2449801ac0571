"""Join several scans into one lazy Dataset, to train one model on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import in_chunks
from vaearr.errors import SchemaError, UsageError
from vaearr.recipe import as_json, differing, stored_and_requested
from vaearr.run import StoreOrRun, path_of
from vaearr.schema.pattern_steps import VALUE_ATTRS
from vaearr.store import open_store

SCAN = "scan"  # coordinate along the first navigation dim: the number of the scan of a row
GAP = -1  # its value in the row between two scans
STORES, FIRST_ROWS = "stores", "first_rows"  # attributes of that coordinate


def concat(scans: Sequence[StoreOrRun]) -> xr.Dataset:
    """Join several scans into one lazy Dataset, one below the other.

    A row of unmeasured points separates two scans, so that points of different scans are never
    neighbours. Narrower scans are padded with unmeasured points. `present` is False at both.

    Parameters
    ----------
    scans : sequence of str, Path, Run or xarray.Dataset
        Stores, runs (their stores), or Datasets with lazy steps, with the same detector and data
        type. Image collections are joined without a gap.

    Returns
    -------
    xarray.Dataset
        ``patterns``, ``present`` and the maps that all scans have in common, without results of
        runs. Navigation coordinates count rows and columns from 0. The coordinate ``scan`` is the
        number of the scan of each row, -1 in a gap.

    Raises
    ------
    SchemaError
        If the patterns differ in detector pixels, data type or dimensions.
    UsageError
        If no scan is given, or one is given twice.

    Examples
    --------
    >>> both = va.concat(["scan.zarr", "other.zarr"])
    >>> run = va.train(both, run="both", model="pca", latent_dim=3)
    >>> run.apply("other.zarr").encode().latents_both.dims
    ('y', 'x', 'latent_both')
    """
    if isinstance(scans, str | Path | xr.Dataset) or not scans:
        raise UsageError(
            "va.concat takes a list of scans, such as va.concat(['a.zarr', 'b.zarr'])."
        )
    datasets = [_opened(scan) for scan in scans]
    stores = [ds.encoding.get("source") for ds in datasets]
    _check_similar(datasets, stores)
    names = _common_maps(datasets)
    navigation = schema.navigation_dims(datasets[0])
    first, *others = navigation
    sizes = {dim: max(ds.sizes[dim] for ds in datasets) for dim in others}
    gap = 1 if schema.is_scan(datasets[0]) else 0
    pieces = []
    first_rows = []
    n_rows = 0
    for number, ds in enumerate(datasets):
        padding = {first: (0, gap)}
        for dim, size in sizes.items():
            padding[dim] = (0, size - ds.sizes[dim])
        scan_numbers = [number] * ds.sizes[first] + [GAP] * gap
        piece = _padded(ds, names, padding).assign_coords({SCAN: (first, scan_numbers)})
        pieces.append(piece)
        first_rows.append(n_rows)
        n_rows += piece.sizes[first]
    joined = xr.concat(pieces, first, combine_attrs="override")
    joined = joined.isel({first: slice(n_rows - gap)})  # no gap after the last scan
    for key in VALUE_ATTRS:  # of the first scan only
        joined[n.PATTERNS].attrs.pop(key, None)
    joined = joined.assign_coords({dim: np.arange(joined.sizes[dim]) for dim in navigation})
    joined[SCAN].attrs = {"long_name": "number of the scan", STORES: stores, FIRST_ROWS: first_rows}
    return joined.drop_attrs(deep=False)


def stores_of(ds: xr.Dataset) -> list[str | None]:
    """Stores of the scans in a Dataset made by `concat`; an empty list for any other Dataset."""
    if SCAN not in ds.coords:
        return []
    stores: list[str | None] = ds[SCAN].attrs.get(STORES, [])
    return stores


def scan_of(
    values: xr.DataArray, scan: xr.DataArray, number: int, store_ds: xr.Dataset
) -> xr.DataArray:
    """Values of one scan of a joined array, with the coordinates of the store of that scan.

    scan: the coordinate `scan` of the joined Dataset. number: of the scan.
    """
    navigation = schema.navigation_dims(store_ds)
    first = navigation[0]
    rows = values.isel({first: np.flatnonzero(scan == number)})
    indexers = {}
    coords = {}
    for dim in navigation:
        positions = rows[dim].values
        if dim == first:
            positions = positions - scan.attrs[FIRST_ROWS][number]
        indexers[dim] = np.flatnonzero(positions < store_ds.sizes[dim])  # without the padding
        coords[dim] = store_ds[dim].values[positions[indexers[dim]]]
    return rows.isel(indexers).drop_vars(SCAN, errors="ignore").assign_coords(coords)


def _opened(scan: StoreOrRun) -> xr.Dataset:
    return scan if isinstance(scan, xr.Dataset) else open_store(path_of(scan))


def _check_similar(datasets: Sequence[xr.Dataset], stores: Sequence[str | None]) -> None:
    """Raise UsageError for a scan given twice, SchemaError for patterns that differ."""
    labels = [store or f"Dataset {number}" for number, store in enumerate(stores)]
    first_kind = _pattern_kind(datasets[0])
    for label, ds in zip(labels, datasets, strict=True):
        if labels.count(label) > 1:
            raise UsageError(f"{label} is given twice; give each scan once.")
        differences = differing(first_kind, _pattern_kind(ds), "patterns")
        if differences:
            words = stored_and_requested(differences, labels[0], label)
            raise SchemaError(
                f"{labels[0]} and {label} cannot be joined ({words}); bin, crop or convert the "
                "patterns so that they agree."
            )


def _pattern_kind(ds: xr.Dataset) -> Any:
    """What the patterns of all scans must have in common."""
    schema.validate(ds)
    kind = {
        "sample shape": schema.input_shape(ds),
        "dtype": ds[n.PATTERNS].dtype,
        "navigation dims": schema.navigation_dims(ds),
        "signal dims": schema.signal_dims(ds),
    }
    return as_json(kind)


def _common_maps(datasets: Sequence[xr.Dataset]) -> list[str]:
    """Names of the maps that all Datasets have with the same meaning, without results."""
    kinds, *others = map(_map_kinds, datasets)
    return [name for name in kinds if all(kinds[name] == other.get(name) for other in others)]


def _map_kinds(ds: xr.Dataset) -> dict[str, Any]:
    """Data type, units and classes of each map, which must agree between scans."""
    kinds = {}
    for name in schema.maps(ds):
        attrs = ds[name].attrs
        is_of_a_run = name in n.OF_A_RUN or name.startswith(n.PREFIXES_OF_RUNS)
        if is_of_a_run or n.PROVENANCE in attrs or name == n.PRESENT:
            continue
        meaning = as_json([attrs.get(key) for key in ("units", "flag_values", "flag_meanings")])
        kinds[name] = (ds[name].dtype.str, meaning)
    return kinds


def _padded(
    ds: xr.Dataset, names: Iterable[str], padding: Mapping[str, tuple[int, int]]
) -> xr.Dataset:
    """Patterns, `present` and maps of a scan, padded with unmeasured points."""
    navigation = schema.navigation_dims(ds)
    shape = schema.navigation_shape(ds)
    all_present = xr.DataArray(np.ones(shape, bool), dims=navigation, attrs=n.ATTRS[n.PRESENT])
    variables = {
        n.PATTERNS: in_chunks(ds[n.PATTERNS], navigation),
        n.PRESENT: ds.get(n.PRESENT, all_present),
    }
    scan = xr.Dataset(variables | {name: ds[name] for name in names})
    fills = {name: _missing(values.dtype) for name, values in scan.data_vars.items()}
    fills[n.PATTERNS] = 0
    scan = scan.drop_vars([name for name in scan.coords if set(navigation) & set(scan[name].dims)])
    return scan.pad(padding, constant_values=fills, keep_attrs=True)


def _missing(dtype: np.dtype) -> Any:
    """The value of a map at points that were not measured."""
    if dtype.kind == "f":
        return np.nan
    return n.PHASE_MISSING if dtype.kind == "i" else 0
