"""HDF5 with a stack of patterns and their `[x, y]` step numbers, in any order, with gaps.

`/images` is (N, H, W), (N, 1, H, W) or (N, C, H, W) of any integer or float type, `/coords` is (N,
2). Without coords, or with one for each point, four dims may be rows and columns of the scan, (ny,
nx, H, W). The distance of points is a setting; without one, coordinates are the step numbers
themselves. Scan points without a pattern are NaN (floats) or 0 (integers) and False in `present`.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import xarray as xr

from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.sources.hdf5 import find_dataset, in_words, open_hdf5, refuse_outside_links
from vaearr.sources.lazy import H5Rows, lazy_array
from vaearr.sources.scan_grid import scan_dataset, scan_grid, step_numbers

log = logging.getLogger("vaearr")

ENGINE = "kikuchi-h5"
MOST_CHANNELS = 4  # of a stack of four dims; more are columns of a scan


def open_kikuchi_h5(file: Path, config: IngestConfig) -> xr.Dataset:
    """Open patterns (y, x[, channel], dy, dx), lazy, with `present`.

    Raises DataError or NoInputError for an invalid file.
    """
    with open_hdf5(file) as opened, in_words(file, "HDF5"):
        refuse_outside_links(opened)
        images = find_dataset(opened, config.images, "images")
        if images.ndim not in (3, 4) or 0 in images.shape or images.dtype.kind not in "uif":
            raise DataError(
                f"{file}: {config.images!r} has dtype {images.dtype} and shape {images.shape}; "
                "expected integers or floats (N, H, W), (N, 1, H, W), (N, C, H, W) or (rows, "
                "columns, H, W), at least one pattern."
            )
        where = f"{file}: {config.coords!r}"
        is_grid = images.ndim == 4 and images.shape[1] > MOST_CHANNELS
        if is_grid and config.coords not in opened:
            log.info(
                f"{where} does not exist: {config.images!r} {images.shape} is read as (rows, "
                "columns, height, width)"
            )
            steps = np.indices(images.shape[1::-1]).reshape(2, -1, order="F").T
        else:
            steps = step_numbers(find_dataset(opened, config.coords, "coords")[()], where)
        is_grid = is_grid and len(steps) == images.shape[0] * images.shape[1]
        if len(steps) != images.shape[0] and not is_grid:
            raise DataError(
                f"{where} has {len(steps)} rows for {images.shape[0]} patterns; expected one [x, "
                "y] each."
            )
        grid = scan_grid(steps, where)
        shape = images.shape[2:] if is_grid or images.shape[1] == 1 else images.shape[1:]
        rows = H5Rows(images, is_grid=is_grid)
        patterns = lazy_array(rows, grid.rows, shape, images.dtype)
    ds = scan_dataset(patterns, grid, config, file)
    ds.set_close(rows.close)
    return ds
