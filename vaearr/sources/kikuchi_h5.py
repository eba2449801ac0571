"""HDF5 with a stack of patterns and the `[x, y]` step numbers of each: lazy, in any row order, with points missing.

`/images` is (N, H, W), (N, 1, H, W) or (N, C, H, W) of any integer or float type, `/coords` is (N, 2). Without coords,
or with one for each point, four dims may be rows and columns of the scan, (ny, nx, H, W). The distance of points is a
setting; without one, coordinates are the step numbers themselves. Scan points without a pattern are NaN (floats) or 0
(integers) and False in `present`.
"""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.sources.hdf5 import (
    check_file,
    find_dataset,
    in_words,
    open_hdf5,
    refuse_outside_links,
)
from vaearr.sources.lazy import Flat, H5Rows
from vaearr.sources.scan_grid import scan_dataset, scan_grid, step_numbers

log = logging.getLogger("vaearr")

ENGINE = "kikuchi-h5"
MOST_CHANNELS = 4  # of a stack of four dims; more are columns of a scan


def sniff(file: h5py.File) -> int:
    """2: HDF5 with `images` and `coords`; 1: other HDF5."""
    return 2 if {"images", "coords"} <= set(file) else 1


def open_kikuchi_h5(path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None) -> xr.Dataset:
    """Lazy Dataset of patterns (y, x[, channel], dy, dx) with `present`.

    scratch: folder for one copy of the rows, made at the first read if the rows lie so far from grid order that reading
    blocks of that size would read the file more than twice. Raises DataError or NoInputError for a file that does not
    hold what it should.
    """
    config = config or IngestConfig()
    file = check_file(path)
    with open_hdf5(file) as opened, in_words(file, "HDF5"):
        refuse_outside_links(opened)
        images = find_dataset(opened, config.images, "images")
        if images.ndim not in (3, 4) or 0 in images.shape or images.dtype.kind not in "uif":
            raise DataError(
                f"{file}: {config.images!r} has dtype {images.dtype} and shape {images.shape}; expected integers or "
                f"floats (N, H, W), (N, 1, H, W), (N, C, H, W) or (rows, columns, H, W), at least one pattern."
            )
        where = f"{file}: {config.coords!r}"
        is_grid = images.ndim == 4 and images.shape[1] > MOST_CHANNELS
        if is_grid and config.coords not in opened:
            log.info(
                f"{where} is not there: {config.images!r} {images.shape} is taken as (rows, columns, height, width)"
            )
            steps = np.indices(images.shape[1::-1]).reshape(2, -1, order="F").T
        else:
            steps = step_numbers(find_dataset(opened, config.coords, "coords")[()], where)
        if is_grid and len(steps) == images.shape[0] * images.shape[1]:
            images = Flat(images)
        if len(steps) != images.shape[0]:
            raise DataError(f"{where} has {len(steps)} rows for {images.shape[0]} patterns; expected one [x, y] each.")
        grid = scan_grid(steps, where)
        step, units = config.step, config.units if config.step else "step"
        rows, row_shape, dtype = H5Rows(images, grid.rows, scratch), images.shape[1:], images.dtype
    ds = scan_dataset(rows, grid, row_shape, dtype, (step, step), units, file)
    ds.set_close(rows.close)
    return ds
