"""A scan as the files an instrument leaves: patterns in HDF5, maps in CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.schema import navigation_dims

BLOCK = 64  # patterns in an HDF5 chunk
# file, names of the columns x and y, of the values, format of numbers
TABLES: dict[str, tuple[str, str, str, str, str | None]] = {
    n.BC: ("bandcontrast.csv", "x", "y", "band_contrast", "%g"),
    n.ELEMENTS: ("elements.csv", "x", "y", "", "%.3f"),
    n.PHASE: ("phases.csv", "x_indice", "y_indice", "phase_id", None),
}


def write_scan_files(ds: xr.Dataset, folder: str | Path) -> dict[str, Path]:
    """Write a (y, x) scan into `folder`, and return the path of each file by the variable it holds.

    - `patterns`: scan.h5 with `/images` (N, 1, dy, dx) and `/coords` (N, 2) int32, [x, y] as step numbers
    - `BC`: bandcontrast.csv with x, y, band_contrast
    - `elements`: elements.csv with x, y and one column per element
    - `phase`: phases.csv with x_indice, y_indice, phase_id

    Only variables that `ds` has are written, in rows with x fastest; scan points that `present` denies are left out.
    """
    import h5py
    import pandas as pd

    if navigation_dims(ds) != ("y", "x"):
        raise UsageError(f"only scans over ('y', 'x') can be written; this one has {navigation_dims(ds)}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    everywhere = np.ones((ds.sizes["y"], ds.sizes["x"]), bool)
    y, x = np.nonzero(ds[n.PRESENT].transpose("y", "x").values if n.PRESENT in ds else everywhere)
    points = {"y": xr.DataArray(y, dims="row"), "x": xr.DataArray(x, dims="row")}
    paths = {n.PATTERNS: folder / "scan.h5"}
    patterns = ds[n.PATTERNS]
    with h5py.File(paths[n.PATTERNS], "w") as file:
        file["coords"] = np.stack([x, y], axis=1).astype(np.int32)
        shape = (len(x), 1, *patterns.shape[2:])
        chunk = (min(BLOCK, max(len(x), 1)), *shape[1:])
        images = file.create_dataset("images", shape, patterns.dtype, chunks=chunk, compression="gzip")
        for start in range(0, len(x), BLOCK * 8):
            part = slice(start, start + BLOCK * 8)
            some = patterns.isel({dim: places[part] for dim, places in points.items()})
            images[part, 0] = some.transpose("row", "dy", "dx").values
    for variable, (name, first, second, column, digits) in TABLES.items():
        if variable in ds:
            values = ds[variable].isel(points).transpose("row", ...).values.reshape(len(x), -1)
            columns = ds["element"].values.tolist() if variable == n.ELEMENTS else [column]
            table = pd.DataFrame({first: x, second: y} | dict(zip(columns, values.T, strict=True)))
            paths[variable] = folder / name
            table.to_csv(paths[variable], index=False, float_format=digits)
    return paths
