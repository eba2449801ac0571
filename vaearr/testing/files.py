"""A scan as the files an instrument leaves: patterns in HDF5, maps in CSV."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

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
    if navigation_dims(ds) != ("y", "x"):
        raise UsageError(f"only scans over ('y', 'x') can be written; this one has {navigation_dims(ds)}.")
    if order not in ("raster", "column", "shuffled"):
        raise UsageError(f"order={order!r} is not known; use 'raster', 'column' or 'shuffled'.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    kept = _kept(ds, drop)

    def rows() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        y, x = np.nonzero(kept) if order != "column" else np.nonzero(kept.T)[::-1]
        shuffle = rng.permutation(len(y)) if order == "shuffled" else slice(None)
        return y[shuffle], x[shuffle]

    paths = {n.PATTERNS: folder / "scan.h5"}
    _write_patterns(ds[n.PATTERNS], *rows(), path=paths[n.PATTERNS])
    if n.BC in ds:
        paths[n.BC] = folder / "bandcontrast.csv"
        _write_table({"band_contrast": ds[n.BC].values}, *rows(), path=paths[n.BC], fmt="%g")
    if n.ELEMENTS in ds:
        paths[n.ELEMENTS] = folder / "elements.csv"
        elements = ds[n.ELEMENTS].transpose("element", "y", "x")
        columns = {str(name): values for name, values in zip(ds["element"].values, elements.values, strict=True)}
        _write_table(columns, *rows(), path=paths[n.ELEMENTS], fmt="%.3f")
    if n.PHASE in ds:
        paths[n.PHASE] = folder / "phases.csv"
        _write_table({"phase_id": ds[n.PHASE].values}, *rows(), path=paths[n.PHASE], xy=("x_indice", "y_indice"))
    return paths


def _kept(ds: xr.Dataset, drop: Iterable[tuple[int, int]]) -> NDArray[np.bool_]:
    kept = np.ones((ds.sizes["y"], ds.sizes["x"]), dtype=bool)
    if n.PRESENT in ds:
        kept &= ds[n.PRESENT].transpose("y", "x").values
    for x, y in drop:
        if not (0 <= x < kept.shape[1] and 0 <= y < kept.shape[0]):
            raise UsageError(
                f"cannot drop the scan point (x={x}, y={y}): the grid is {kept.shape[1]} x {kept.shape[0]}."
            )
        kept[y, x] = False
    return kept


def _write_patterns(patterns: xr.DataArray, y: NDArray[np.int64], x: NDArray[np.int64], *, path: Path) -> None:
    import h5py

    shape = (len(y), 1, *patterns.shape[2:])
    chunk = (min(BLOCK, max(len(y), 1)), *shape[1:])
    with h5py.File(path, "w") as file:
        images = file.create_dataset(
            "images", shape, dtype=patterns.dtype, chunks=chunk, compression="gzip", compression_opts=4
        )
        for start in range(0, len(y), BLOCK * 8):
            part = slice(start, start + BLOCK * 8)
            points = {"y": xr.DataArray(y[part], dims="row"), "x": xr.DataArray(x[part], dims="row")}
            images[part, 0] = patterns.isel(points).transpose("row", "dy", "dx").values
        file.create_dataset("coords", data=np.stack([x, y], axis=1).astype(np.int32))


def _write_table(
    columns: dict[str, NDArray[Any]],
    y: NDArray[np.int64],
    x: NDArray[np.int64],
    *,
    path: Path,
    xy: tuple[str, str] = ("x", "y"),
    fmt: str | None = None,
) -> None:
    import pandas as pd

    table = pd.DataFrame({xy[0]: x, xy[1]: y, **{name: values[y, x] for name, values in columns.items()}})
    table.to_csv(path, index=False, float_format=fmt)
