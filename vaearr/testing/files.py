"""A scan as the files an instrument leaves: patterns in HDF5, maps in CSV."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.schema import navigation_dims

BLOCK = 64  # patterns in an HDF5 chunk


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

    if n.PATTERNS in ds and navigation_dims(ds) != ("y", "x"):
        raise UsageError(f"only scans over ('y', 'x') can be written; this one has {navigation_dims(ds)}.")
    if order not in ("raster", "column", "shuffled"):
        raise UsageError(f"order={order!r} is not known; use 'raster', 'column' or 'shuffled'.")
    ny, nx = ds.sizes["y"], ds.sizes["x"]
    kept = np.ones((ny, nx), bool) if n.PRESENT not in ds else ds[n.PRESENT].transpose("y", "x").values.copy()
    for x, y in drop:
        if not (0 <= x < nx and 0 <= y < ny):
            raise UsageError(f"cannot drop the scan point (x={x}, y={y}): the grid is {nx} x {ny}.")
        kept[y, x] = False
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)

    def rows() -> tuple[Any, Any]:
        y, x = np.nonzero(kept) if order != "column" else np.nonzero(kept.T)[::-1]
        shuffle = rng.permutation(len(y)) if order == "shuffled" else slice(None)
        return y[shuffle], x[shuffle]

    paths = {}
    if n.PATTERNS in ds:
        paths[n.PATTERNS] = folder / "scan.h5"
        _write_patterns(ds[n.PATTERNS], *rows(), path=paths[n.PATTERNS])
    tables: dict[str, tuple[str, dict[str, Any], tuple[str, str], str | None]] = {}
    if n.BC in ds:
        tables[n.BC] = ("bandcontrast.csv", {"band_contrast": ds[n.BC].values}, ("x", "y"), "%g")
    if n.ELEMENTS in ds:
        columns = {
            str(name): ds[n.ELEMENTS].sel(element=name).transpose("y", "x").values for name in ds["element"].values
        }
        tables[n.ELEMENTS] = ("elements.csv", columns, ("x", "y"), "%.3f")
    if n.PHASE in ds:
        tables[n.PHASE] = ("phases.csv", {"phase_id": ds[n.PHASE].values}, ("x_indice", "y_indice"), None)
    for variable, (name, columns, (first, second), digits) in tables.items():
        y, x = rows()
        table = pd.DataFrame({first: x, second: y, **{column: values[y, x] for column, values in columns.items()}})
        table.to_csv(folder / name, index=False, float_format=digits)
        paths[variable] = folder / name
    return paths


def _write_patterns(patterns: xr.DataArray, y: Any, x: Any, *, path: Path) -> None:
    import h5py

    shape = (len(y), 1, *patterns.shape[2:])
    chunk = (min(BLOCK, max(len(y), 1)), *shape[1:])
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", shape, patterns.dtype, chunks=chunk, compression="gzip")
        for start in range(0, len(y), BLOCK * 8):
            part = slice(start, start + BLOCK * 8)
            points = {"y": xr.DataArray(y[part], dims="row"), "x": xr.DataArray(x[part], dims="row")}
            images[part, 0] = patterns.isel(points).transpose("row", "dy", "dx").values
        file.create_dataset("coords", data=np.stack([x, y], axis=1).astype(np.int32))
