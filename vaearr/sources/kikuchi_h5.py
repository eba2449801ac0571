"""HDF5 with a stack of patterns and the `[x, y]` step numbers of each: lazy, in any row order, with points missing.

`/images` is (N, H, W), (N, 1, H, W) or (N, C, H, W) of any integer or float type, `/coords` is (N, 2). The distance of
scan points is taken from the settings, else from an attribute `step` or `step_size` (with `unit` or `units`) of
`/coords`, `/images` or the file; without one, coordinates are the step numbers themselves. Scan points without a
pattern are NaN (floats) or 0 (integers) and False in `present`.

Also an xarray engine: `xr.open_dataset("scan.h5", engine="kikuchi-h5")`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from xarray.backends import BackendEntrypoint

from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.sources.hdf5 import (
    check_file,
    damage_in_words,
    find_dataset,
    has_hdf5_signature,
    open_hdf5,
    refuse_outside_links,
)
from vaearr.sources.lazy import H5Rows
from vaearr.sources.scan_grid import scan_dataset, scan_grid, step_numbers

ENGINE = "kikuchi-h5"


def sniff(path: Path) -> int:
    """2: HDF5 with `images` and `coords`; 1: some HDF5; 0: another format."""
    if not has_hdf5_signature(path):
        return 0
    try:
        with open_hdf5(path) as file:
            links = [file.get(name, getlink=True) for name in ("images", "coords")]
            is_ours = all(isinstance(link, h5py.HardLink) for link in links) and all(
                issubclass(file.get(name, getclass=True), h5py.Dataset) for name in ("images", "coords")
            )
            return 2 if is_ours else 1
    except (DataError, OSError, RuntimeError, KeyError, ValueError, TypeError, SystemError):  # opening it says how
        return 1


def open_kikuchi_h5(path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None) -> xr.Dataset:
    """Lazy Dataset of patterns (y, x[, channel], dy, dx) with `present`.

    scratch: folder for one copy of the rows, made at the first read if the rows lie so far from grid order that reading
    blocks of that size would read the file more than twice. Raises DataError or NoInputError for a file that does not
    hold what it should.
    """
    config = config or IngestConfig()
    file = check_file(path)
    with open_hdf5(file) as opened, damage_in_words(file):
        refuse_outside_links(opened)
        images = _images(opened, config.images)
        coords = find_dataset(opened, config.coords, "coords")
        where = f"{file}: {config.coords!r}"
        if coords.ndim != 2 or coords.shape[1] != 2:
            raise DataError(f"{where} has shape {coords.shape}; expected (N, 2), one row [x, y] for each pattern.")
        if coords.shape[0] != images.shape[0]:
            raise DataError(
                f"{file}: {config.images!r} holds {images.shape[0]} patterns, {config.coords!r} {coords.shape[0]} "
                f"rows; expected one row [x, y] for each pattern."
            )
        grid = scan_grid(step_numbers(coords[()], where), where)
        step, units = _step(opened, images, coords, config)
        row_shape, dtype = images.shape[1:], images.dtype
    rows = H5Rows(file, config.images, grid.rows, scratch)
    ds = scan_dataset(rows, grid, row_shape, dtype, (step, step), units, file)
    ds.set_close(rows.close)
    return ds


def _images(file: h5py.File, name: str) -> h5py.Dataset:
    images = find_dataset(file, name, "images")
    where = f"{file.filename}: {name!r}"
    if images.ndim not in (3, 4):
        raise DataError(f"{where} has shape {images.shape}; expected (N, H, W), (N, 1, H, W) or (N, C, H, W).")
    if images.dtype.kind not in "uif" or h5py.check_enum_dtype(images.dtype):
        raise DataError(f"{where} has dtype {images.dtype}; expected an integer or float type.")
    if 0 in images.shape:
        raise DataError(f"{where} is empty: its shape is {images.shape}; expected at least one pattern.")
    return images


def _step(
    file: h5py.File, images: h5py.Dataset, coords: h5py.Dataset, config: IngestConfig
) -> tuple[float | None, str]:
    """Distance of scan points and its unit: from the settings, else from the file."""
    if config.step is not None:
        return config.step, config.units
    for item in (coords, images, file):
        step = _number(_attribute(item, ("step", "step_size")))
        if step is not None:
            return step, _text(_attribute(item, ("units", "unit"))) or config.units
    return None, "step"


def _attribute(item: Any, keys: Iterable[str]) -> Any:
    for key in keys:
        try:
            if key in item.attrs:
                return item.attrs[key]
        except (OSError, TypeError, ValueError, RuntimeError):  # a type that h5py cannot read is no step size
            continue
    return None


def _number(value: Any) -> float | None:
    try:
        number = float(np.asarray(value, dtype="f8").item())
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _text(value: Any) -> str:
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    return value.strip() if isinstance(value, str) else ""


class KikuchiH5Backend(BackendEntrypoint):
    """`xr.open_dataset(path, engine="kikuchi-h5")`."""

    description = "Pattern stacks with scan coordinates in HDF5 (images, coords)"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "images", "coords", "step", "units")

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        images: str | None = None,
        coords: str | None = None,
        step: float | None = None,
        units: str | None = None,
    ) -> xr.Dataset:
        """See `open_kikuchi_h5`."""
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            raise DataError(f"the {ENGINE} engine reads files by path, not {type(filename_or_obj).__name__} objects.")
        config = IngestConfig().replace(images=images, coords=coords, step=step, units=units)
        ds = open_kikuchi_h5(Path(filename_or_obj), config)
        drop = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return ds.drop_vars(drop, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Only files that hold both datasets."""
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            return False
        try:
            return Path(filename_or_obj).is_file() and sniff(Path(filename_or_obj)) == 2
        except OSError:
            return False
