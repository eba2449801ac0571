"""Reconstructed samples of a store as files of their own: PNG, NIfTI or .npy, see `vaearr.sources.single`.

Collections name them after their files (`path`), scans after the numbers of the scan point. Images come in the size
and volumes in the affine of the store's source, all in stored units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import UsageError
from vaearr.sources.single import NIFTI, Kept, output_suffix, stored_affine, stored_geometry, write_sample
from vaearr.store.folders import staged

SampleWriter = Callable[[np.ndarray, np.ndarray], None]
ENDINGS = (".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy")


@contextmanager
def sample_writer(
    ds: xr.Dataset, chosen: xr.DataArray, folder: Path, units: str, dtype: Kept = "float32"
) -> Iterator[SampleWriter]:
    """A function that writes samples `(k, …)` at points `(k, navigation)`; the folder appears at the end, whole.

    Raises UsageError for preprocessed units, ExistsError where other files have these names.
    """
    check_written(units, dtype)
    names = sample_names(ds, chosen)
    suffix, stored = output_suffix(ds), ds[n.PATTERNS].dtype
    shape = tuple(ds.sizes[dim] for dim in schema.signal_dims(ds))
    about = _loaded(ds)
    with staged(folder) as aside:

        def write(points: np.ndarray, values: np.ndarray) -> None:
            for point, sample in zip(map(tuple, points.tolist()), values, strict=True):
                write_sample(
                    aside / f"{names[point]}{suffix}",
                    sample.reshape(shape),
                    stored,
                    geometry=None if schema.is_scan(ds) else stored_geometry(about, point[0]),
                    affine=stored_affine(about, point[0]) if suffix == NIFTI else None,
                    kept=dtype,
                )

        yield write


def check_written(units: str, dtype: str) -> None:
    """Raise UsageError for what files of samples cannot be."""
    if units != "stored":
        raise UsageError("files of reconstructions are in stored units; leave units='preprocessed' out.")
    if dtype not in ("float32", "source"):
        raise UsageError(f"dtype is {dtype!r}; use float32, or source for the type of the stored samples.")


def sample_names(ds: xr.Dataset, chosen: xr.DataArray) -> dict[tuple[int, ...], str]:
    """A name for the file of each chosen sample, without its ending; no two are the same, none leaves the folder."""
    nav = schema.navigation_dims(ds)
    points = [tuple(point) for point in np.argwhere(chosen.transpose(*nav).values).tolist()]
    width = [len(str(ds.sizes[dim] - 1)) for dim in nav]
    numbers = {
        point: "_".join(f"{dim}{i:0{w}d}" for dim, i, w in zip(nav, point, width, strict=True)) for point in points
    }
    if schema.is_scan(ds) or "path" not in ds.coords:
        return numbers
    paths = ds["path"].values
    given = {point: inside_name(str(paths[point[0]])) for point in points}
    count = Counter(name.lower() for name in given.values())
    return {
        point: name if name and count[name.lower()] == 1 else f"{name or 'sample'}_{numbers[point]}"
        for point, name in given.items()
    }


def inside_name(path: str) -> str:
    """A path as one that lies inside a folder, without the ending of its file."""
    parts = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    name = "/".join(part.replace(":", "_") for part in parts)
    ending = next((end for end in ENDINGS if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


def _loaded(ds: xr.Dataset) -> xr.Dataset:
    """The Dataset with what geometry needs in memory."""
    small = [name for name in ("affine", "source_rows", "source_columns") if name in ds.variables]
    return ds.assign({name: ds[name].load() for name in small if name in ds.data_vars}).assign_coords(
        {name: ds[name].load() for name in small if name in ds.coords}
    )
