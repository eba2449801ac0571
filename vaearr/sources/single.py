"""One file in, one file out: a sample as a store's ingest would have made it, and samples as files
of their own.

Which files fit follows from the samples: images (png, jpg, tif, bmp) where these have rows and
columns, NIfTI where they have z, y, x, and for every store `.npy` with an array of a sample's own
shape. They are read as the ingest of the store read its own, with its channels, size, fit and
distance of voxels. Written are PNG for images, NIfTI for volumes, .npy for everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.recipe import nested
from vaearr.sources import images, nifti
from vaearr.sources.collection import Geometry
from vaearr.sources.hdf5 import check_file
from vaearr.sources.numpy_files import read_npy

PNG, NIFTI, NUMPY = ".png", ".nii.gz", ".npy"
SUFFIXES = (*images.SUFFIXES, *nifti.SUFFIXES, NUMPY)
OF_A_SAMPLE = (
    "channels",
    "size",
    "fit",
    "spacing",
)  # settings that say how a file becomes a sample
EDGE = 1e-6  # of a pixel


@dataclass(frozen=True)
class Single:
    """A sample from a file of its own: values over the store's signal dims, in the store's dtype,
    and its geometry.
    """

    values: np.ndarray
    geometry: Geometry


def read_single(ds: xr.Dataset, path: str | Path) -> Single:
    """One file as a sample of a store, byte for byte what its ingest makes of it, with its
    geometry.

    Raises NoInputError for a file that does not exist, DataError for one that is damaged, holds NaN
    or infinite values, or cannot become a sample of this store: another kind of file, shape, number
    of channels or dtype.
    """
    file = check_file(path)
    name = file.name.lower()
    dims = schema.signal_dims(ds)
    shape = tuple(ds.sizes[dim] for dim in dims)
    spatial = tuple(ds.sizes[dim] for dim in dims if dim != n.CHANNEL)
    geometry = Geometry(file, spatial, spatial, (1.0,) * len(spatial), (0.0,) * len(spatial))
    settings = (nested(ds.attrs, n.PROVENANCE) or {}).get("ingest", {})
    config = IngestConfig.from_attrs(
        {key: settings[key] for key in OF_A_SAMPLE if key in settings} | {"masks": ""}
    )
    if name.endswith(NUMPY):
        values = read_npy(file)
    elif name.endswith(images.SUFFIXES) and len(spatial) == 2:
        one = images.open_images(file, config)
        values = one[n.PATTERNS][0].values
        geometry = stored_geometry(one, 0) or geometry
    elif name.endswith(nifti.SUFFIXES) and dims == nifti.AXES:
        values = nifti.open_nifti(file, config)[n.PATTERNS][0].values
        geometry = nifti.read_header(file, config).geometry
    else:
        known = nifti.SUFFIXES if dims == nifti.AXES else images.SUFFIXES
        raise _misfit(ds, file, f"is none of {', '.join((*known, NUMPY))}")
    if values.shape != shape or values.dtype.kind not in "uif":
        raise _misfit(ds, file, f"holds {values.dtype} of shape {values.shape}")
    stored = values.astype(ds[n.PATTERNS].dtype.newbyteorder("="), copy=False)
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise DataError(f"{file} has NaN or infinite values; correct the file.")
    if stored.dtype.kind != "f" and (stored != values).any():
        raise _misfit(ds, file, f"holds {values.dtype} from {values.min():g} to {values.max():g}")
    return Single(stored, geometry)


def _misfit(ds: xr.Dataset, file: Path, found: str) -> DataError:
    """The error for a file that cannot become a sample of the store."""
    sizes = " x ".join(f"{ds.sizes[dim]} {dim}" for dim in schema.signal_dims(ds))
    dtype = ds[n.PATTERNS].dtype.newbyteorder("=")
    return DataError(
        f"{file} {found}; the samples of this store are {dtype} of {sizes}, so convert the file."
    )


def restore(values: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A sample `([channel,] *size)` on the pixels of its file `([channel,] *shape)`, float32: the
    inverse of the fit.

    Padding is cut off; what was scaled is scaled back by triangular weights as wide as the larger
    of both steps; where the file was cut, nothing is known: NaN.
    """
    out = np.asarray(values, np.float32)
    if geometry.is_same:
        return out
    first = out.ndim - len(geometry.shape)
    for axis, parts in enumerate(
        zip(geometry.shape, geometry.size, geometry.scale, geometry.offset, strict=True)
    ):
        out = np.moveaxis(
            np.tensordot(_weights(*parts), out, axes=(1, first + axis)), 0, first + axis
        )
    return np.ascontiguousarray(out)


def _weights(n_file: int, n_sample: int, scale: float, offset: float) -> np.ndarray:
    """Weights `(n_file, n_sample)` of the pixels of a sample for those of its file along one dim;
    NaN = not known.
    """
    pixel = np.arange(n_sample)
    there = scale * pixel + offset
    filled = pixel[(there > -0.5 - EDGE) & (there < n_file - 0.5 + EDGE)]
    where = (np.arange(n_file) - offset) / scale
    is_known = (where > -0.5 - EDGE) & (where < n_sample - 0.5 + EDGE) & (len(filled) > 0)
    weights = np.full((n_file, n_sample), np.nan, np.float32)
    if is_known.any():
        inside = np.clip(where[is_known], filled[0], filled[-1])
        near = np.maximum(0.0, 1 - np.abs(inside[:, None] - filled) / max(1.0, 1 / scale))
        weights[is_known] = 0
        weights[np.ix_(is_known, filled)] = near / near.sum(1, keepdims=True)
    return weights


def output_suffix(ds: xr.Dataset) -> str:
    """Ending of the files that a store's samples are written to.

    .png for images of a collection, of 8 bits in grey or three colours or of 16 bits in grey;
    .nii.gz for its volumes (z, y, x); .npy for scans and all others.
    """
    dims = schema.signal_dims(ds)
    if schema.is_scan(ds):
        return NUMPY
    if dims == nifti.AXES:
        return NIFTI
    n_channels = ds.sizes[n.CHANNEL] if n.CHANNEL in dims else 0
    fitting = {"uint8": (0, 3), "uint16": (0,)}.get(str(ds[n.PATTERNS].dtype), ())
    return PNG if n_channels in fitting else NUMPY


def write_sample(
    path: Path,
    values: np.ndarray,
    dtype: np.dtype,
    *,
    geometry: Geometry | None = None,
    affine: np.ndarray | None = None,
) -> None:
    """A sample in stored units as a file; the ending of its name says of which kind.

    geometry: of the file that the sample was read from. Then PNG and NIfTI have its pixels, NIfTI
    its affine and axes too; what the file had beyond the sample is 0, of floats NaN. affine: of a
    volume without such a file, from voxel numbers (x, y, z, 1) in RAS+ to mm. dtype: of the stored
    samples; PNG has it, the others float32.
    """
    whole = np.asarray(values, np.float32)
    if geometry is not None and not path.name.endswith(NUMPY):
        whole = restore(whole, geometry)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(PNG):
        from PIL import Image

        limits = np.iinfo(dtype)
        pixels: Any = np.clip(np.rint(np.nan_to_num(whole)), limits.min, limits.max).astype(dtype)
        if whole.ndim == 3:
            pixels = np.moveaxis(pixels, 0, -1)
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    elif path.name.endswith(NIFTI):
        write_nifti(path, whole, affine, geometry)
    else:
        np.save(path, whole, allow_pickle=False)


def write_nifti(
    path: Path, values: np.ndarray, affine: np.ndarray | None, geometry: Geometry | None = None
) -> None:
    """Values (z, y, x) in RAS+, turned to the axes of the file they came from where there is one."""
    import nibabel as nib

    if geometry is None or geometry.affine is None:
        image: Any = nib.Nifti1Image(values.T, affine)
        image.header.set_xyzt_units("mm")
    else:
        source: Any = nib.load(geometry.file)
        axes = nib.orientations
        turn = axes.ornt_transform(axes.axcodes2ornt("RAS"), nib.io_orientation(source.affine))
        header = source.header.copy()
        header.set_data_dtype(values.dtype)
        header["cal_min"] = header["cal_max"] = (
            0  # the range to show: that of the file need not be ours
        )
        header.set_slope_inter(1, 0)
        image = type(source)(nib.apply_orientation(values.T, turn), source.affine, header)
    nib.save(image, path)


def stored_geometry(ds: xr.Dataset, i: int) -> Geometry | None:
    """Geometry of sample `i` of a collection of images whose files had other sizes; None for all
    others.
    """
    if "source_rows" not in ds.coords or "fit" not in ds[n.PATTERNS].attrs:
        return None
    rows, columns = schema.signal_dims(ds)[-2:]
    shape = (int(ds["source_rows"][i]), int(ds["source_columns"][i]))
    return images.image_geometry(
        Path(), shape, (ds.sizes[rows], ds.sizes[columns]), ds[n.PATTERNS].attrs["fit"]
    )


def stored_affine(ds: xr.Dataset, i: int) -> np.ndarray:
    """Affine of volume `i` from voxel numbers (x, y, z, 1) to mm: the store's own, else from its
    coordinates in mm.
    """
    if nifti.AFFINE in ds:
        return np.asarray(ds[nifti.AFFINE].isel({n.SAMPLE: i}).values, float)
    affine = np.eye(4)
    for axis, dim in enumerate(nifti.AXES[::-1]):
        values = ds[dim].values
        if ds[dim].attrs.get("units") == "mm" and len(values) > 1:
            affine[axis, axis], affine[axis, 3] = values[1] - values[0], values[0]
    return affine
