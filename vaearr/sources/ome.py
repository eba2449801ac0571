"""OME-Zarr images, versions 0.4 and 0.5 of the format: the full resolution, with axes and units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.sources.hdf5 import in_words

ENGINE = "ome-zarr"
DIMS = {"t": n.SAMPLE, "c": n.CHANNEL, "z": n.Z, "y": n.Y, "x": n.X}
UNITS = {"micrometer": "um", "nanometer": "nm", "millimeter": "mm", "angstrom": "Å", "second": "s"}


def multiscale(path: Path) -> dict[str, Any]:
    """What an image says of itself: the first entry of its `multiscales`; nothing where it is none."""
    for name in ("zarr.json", ".zattrs"):
        try:
            told = json.loads((path / name).read_bytes())
        except (OSError, ValueError):
            continue
        told = told.get("attributes", {}).get("ome", {}) if name == "zarr.json" else told
        if told.get("multiscales"):
            return dict(told["multiscales"][0])
    return {}


def sniff(path: Path) -> int:
    """2 for an OME-Zarr image, 0 else; a zarr store with patterns is none."""
    return 2 * bool(multiscale(path))


def open_ome(path: Path, config: IngestConfig, *, scratch: Path | None = None) -> xr.Dataset:
    """Each time point a sample, `(sample, [channel,] y, x)` or `(sample, z, y, x)`; axes of one entry are left out.

    Raises DataError for what is no whole image, and for volumes of several channels.
    """
    import dask.array as da

    with in_words(path, "an OME-Zarr image"):
        told = multiscale(path)
        full = told["datasets"][0]
        array = da.from_zarr(str(path), component=full["path"])
        scale = next(t["scale"] for t in full["coordinateTransformations"] if t["type"] == "scale")
        axes = [axis["name"].lower() for axis in told["axes"]]
        units = [str(axis.get("unit", "")) for axis in told["axes"]]
        coords = {
            DIMS[axis]: (DIMS[axis], np.arange(size) * float(step), {"units": UNITS.get(unit, unit) or "px"})
            for axis, size, step, unit in zip(axes, array.shape, scale, units, strict=True)
        }
        found = xr.DataArray(array, coords, [DIMS[axis] for axis in axes], n.PATTERNS)
    found = found.squeeze([dim for dim in (n.CHANNEL, n.Z) if found.sizes.get(dim) == 1], drop=True)
    if {n.CHANNEL, n.Z} <= {*found.dims}:
        raise DataError(f"{path} holds volumes of {found.sizes[n.CHANNEL]} channels; choose one of them before.")
    if n.SAMPLE not in found.dims:
        found = found.expand_dims({n.SAMPLE: [0]})
    if n.CHANNEL in found.dims:
        found = found.drop_vars(n.CHANNEL)
    return schema.as_dataset(found)
