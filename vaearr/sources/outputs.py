"""Samples as files of the kind they came from: PNG for images, NIfTI for volumes, .npy for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.sources.nifti import AFFINE, AXES
from vaearr.sources.single import Geometry, image_geometry, restore

PNG, NIFTI, NUMPY = ".png", ".nii.gz", ".npy"
Kept = Literal["float32", "source"]


def output_suffix(ds: xr.Dataset) -> str:
    """Ending of the files that a store's samples are written to.

    .png for images of a collection, of 8 bits in grey or three colours or of 16 bits in grey; .nii.gz for its volumes
    (z, y, x); .npy for scans and all others.
    """
    dims, dtype = schema.signal_dims(ds), ds[n.PATTERNS].dtype
    if schema.is_scan(ds):
        return NUMPY
    if dims == AXES:
        return NIFTI
    is_grey, is_colour = len(dims) == 2, len(dims) == 3 and dims[0] == n.CHANNEL and ds.sizes[n.CHANNEL] == 3
    is_image = (dtype == np.uint8 and (is_grey or is_colour)) or (dtype == np.uint16 and is_grey)
    return PNG if is_image else NUMPY


def write_sample(
    path: Path,
    values: np.ndarray,
    dtype: np.dtype,
    *,
    geometry: Geometry | None = None,
    affine: np.ndarray | None = None,
    kept: Kept = "float32",
) -> None:
    """A sample in stored units as a file; the ending of its name says of which kind.

    geometry: of the file that the sample was read from. Then PNG and NIfTI have its pixels, NIfTI its affine and axes
    too; what the file had beyond the sample is 0, of floats NaN. affine: of a volume without such a file, from voxel
    numbers (x, y, z, 1) in RAS+ to mm. dtype: of the stored samples; PNG has it, the others with `kept="source"`, their
    values rounded and cut to its range.
    """
    whole = np.asarray(values, np.float32)
    if geometry is not None and not path.name.endswith(NUMPY):
        whole = restore(whole, geometry)
    if path.name.endswith(PNG) or kept == "source":
        whole = as_dtype(whole, dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(PNG):
        _write_png(path, whole)
    elif path.name.endswith(NIFTI):
        write_nifti(path, whole, geometry, affine)
    else:
        np.save(path, whole, allow_pickle=False)


def as_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Numbers in another dtype: for whole numbers rounded, cut to its range, 0 for NaN."""
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    rounded = np.rint(np.nan_to_num(values.astype(np.float64), nan=0.0))
    return np.clip(rounded, limits.min, limits.max).astype(dtype)


def _write_png(path: Path, values: np.ndarray) -> None:
    from PIL import Image

    image: Any = np.moveaxis(values, 0, -1) if values.ndim == 3 else values
    Image.fromarray(np.ascontiguousarray(image)).save(path)


def write_nifti(path: Path, values: np.ndarray, geometry: Geometry | None, affine: np.ndarray | None) -> None:
    """Values (z, y, x) in RAS+, turned to the axes of the file they came from where there is one."""
    import nibabel as nib

    if geometry is None or geometry.affine is None:
        image: Any = nib.Nifti1Image(values.T, np.eye(4) if affine is None else np.asarray(affine, float))
        image.header.set_xyzt_units("mm")
    else:
        source: Any = nib.load(geometry.file)
        axes = nib.orientations
        turn = axes.ornt_transform(axes.axcodes2ornt("RAS"), nib.io_orientation(source.affine))
        header = source.header.copy()
        header.set_data_dtype(values.dtype)
        header["cal_min"] = header["cal_max"] = 0  # the range to show: that of the file need not be ours
        header.set_slope_inter(1, 0)
        image = type(source)(nib.apply_orientation(values.T, turn), source.affine, header)
    image.set_data_dtype(values.dtype)
    nib.save(image, path)


def stored_geometry(ds: xr.Dataset, i: int) -> Geometry | None:
    """Geometry of sample `i` of a collection of images whose files had other sizes; None for all others."""
    if "source_rows" not in ds.coords or "fit" not in ds[n.PATTERNS].attrs:
        return None
    dims = schema.signal_dims(ds)
    shape = (int(ds["source_rows"][i]), int(ds["source_columns"][i]))
    fit = IngestConfig(fit=ds[n.PATTERNS].attrs["fit"]).fit
    return image_geometry(Path(), shape, (ds.sizes[dims[-2]], ds.sizes[dims[-1]]), fit)


def stored_affine(ds: xr.Dataset, i: int) -> np.ndarray | None:
    """Affine of volume `i` from voxel numbers (x, y, z, 1) to mm: the store's own, else from its coordinates in mm.

    None where neither says. Raises DataError for coordinates with uneven steps.
    """
    if AFFINE in ds:
        return np.asarray(ds[AFFINE].isel({n.SAMPLE: i}).values, float)
    if any(ds[dim].attrs.get("units") != "mm" for dim in AXES):
        return None
    affine = np.eye(4)
    for axis, dim in enumerate(AXES[::-1]):
        values = ds[dim].values.astype(float)
        steps = np.diff(values) if len(values) > 1 else np.ones(1)
        if not np.allclose(steps, steps[0], rtol=1e-3):
            raise DataError(f"the coordinate {dim!r} has uneven steps, which no affine can say; write .npy instead.")
        affine[axis, axis], affine[axis, 3] = steps.mean(), values[0]
    return affine
