"""A scan as the files an instrument leaves: patterns in HDF5, maps in CSV."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

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


def write_scan_files(
    ds: xr.Dataset,
    folder: str | Path,
    *,
    order: Literal["raster", "column", "shuffled"] = "raster",
    drop: Iterable[tuple[int, int]] = (),
    seed: int = 0,
) -> dict[str, Path]:
    """Write a (y, x) scan into `folder`, and return the path of each file by the variable it holds.

    - `patterns`: scan.h5 with `/images` (N, 1, dy, dx) and `/coords` (N, 2) int32, [x, y] as step numbers
    - `BC`: bandcontrast.csv with x, y, band_contrast
    - `elements`: elements.csv with x, y and one column per element
    - `phase`: phases.csv with x_indice, y_indice, phase_id

    Only variables that `ds` has are written. Scan points that `present` denies and the points (x, y) in `drop` are left
    out of every file. `order` is the order of the rows: x fastest, y fastest, or shuffled by `seed`, differently in
    each file.
    """
    import pandas as pd

    if navigation_dims(ds) != ("y", "x"):
        raise UsageError(f"only scans over ('y', 'x') can be written; this one has {navigation_dims(ds)}.")
    ny, nx = ds.sizes["y"], ds.sizes["x"]
    kept = np.ones((ny, nx), bool) if n.PRESENT not in ds else ds[n.PRESENT].transpose("y", "x").values.copy()
    for column, row in drop:
        kept[row, column] = False
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    y, x = np.nonzero(kept) if order != "column" else np.nonzero(kept.T)[::-1]

    def points() -> dict[str, xr.DataArray]:
        rows = rng.permutation(len(y)) if order == "shuffled" else slice(None)
        return {"y": xr.DataArray(y[rows], dims="row"), "x": xr.DataArray(x[rows], dims="row")}

    paths = {n.PATTERNS: folder / "scan.h5"}
    _write_patterns(ds[n.PATTERNS], points(), paths[n.PATTERNS])
    for variable, (file, first, second, name, digits) in TABLES.items():
        if variable in ds:
            at = points()
            values = ds[variable].isel(at).drop_vars(["x", "y"]).transpose("row", ...)
            names = values["element"].values.tolist() if variable == n.ELEMENTS else [name]
            columns = values.values.reshape(len(x), -1).T
            points_of = {first: at["x"].values, second: at["y"].values}
            table = pd.DataFrame(points_of | dict(zip(names, columns, strict=True)))
            paths[variable] = folder / file
            table.to_csv(paths[variable], index=False, float_format=digits)
    return paths


def _write_patterns(patterns: xr.DataArray, points: dict[str, xr.DataArray], path: Path) -> None:
    import h5py

    count = len(points["x"])
    shape = (count, 1, *patterns.shape[2:])
    with h5py.File(path, "w") as file:
        chunk = (min(BLOCK, max(count, 1)), *shape[1:])
        images = file.create_dataset("images", shape, patterns.dtype, chunks=chunk, compression="gzip")
        for start in range(0, count, BLOCK * 8):
            part = slice(start, start + BLOCK * 8)
            some = patterns.isel({dim: places[part] for dim, places in points.items()})
            images[part, 0] = some.transpose("row", "dy", "dx").values
        coords = np.stack([points["x"], points["y"]], axis=1)
        file.create_dataset("coords", data=coords.astype(np.int32))
