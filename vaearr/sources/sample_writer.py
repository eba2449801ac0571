"""Write samples as files: images as PNG, volumes as NIfTI, everything else as .npy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.sources import images, nifti
from vaearr.sources.collection import Geometry

PNG, NIFTI, NUMPY = ".png", ".nii.gz", ".npy"
SUFFIXES = (*images.SUFFIXES, *nifti.SUFFIXES, NUMPY)
SAMPLE_SETTINGS = ("channels", "size", "fit", "spacing")  # how a file becomes a sample
EDGE = 1e-6  # of a pixel
MAX_NAMES = 8  # of files in an error


def restore(values: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Undo the fit: a sample `([channel,] *size)` on the pixels of its file `([channel,] *shape)`.

    float32. Padding is removed; scaling is reversed with triangular weights as wide as the larger
    of both steps; pixels of the file that were cropped are NaN.
    """
    out = np.asarray(values, np.float32)
    if geometry.is_same:
        return out
    sides = zip(geometry.shape, geometry.size, geometry.scale, geometry.offset, strict=True)
    for axis, side in enumerate(sides, out.ndim - len(geometry.shape)):
        out = np.moveaxis(np.tensordot(_weights(*side), out, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(out)


def _weights(n_file: int, n_sample: int, scale: float, offset: float) -> np.ndarray:
    """Weights `(n_file, n_sample)` of the pixels of a sample in those of its file, NaN outside."""
    pixels = np.arange(n_sample)
    in_file = scale * pixels + offset
    filled = pixels[(in_file > -0.5 - EDGE) & (in_file < n_file - 0.5 + EDGE)]
    in_sample = (np.arange(n_file) - offset) / scale
    is_sampled = (in_sample > -0.5 - EDGE) & (in_sample < n_sample - 0.5 + EDGE)
    weights = np.full((n_file, n_sample), np.nan, np.float32)
    if is_sampled.any() and len(filled):
        inside = np.clip(in_sample[is_sampled], filled[0], filled[-1])
        near = np.maximum(0.0, 1 - np.abs(inside[:, None] - filled) / max(1.0, 1 / scale))
        weights[is_sampled] = 0
        weights[np.ix_(is_sampled, filled)] = near / near.sum(1, keepdims=True)
    return weights


def output_suffix(ds: xr.Dataset) -> str:
    """Suffix of the files to which a store's samples are written.

    .png for images of a collection, 8 bits in grey or colour or 16 bits in grey; .nii.gz for its
    volumes (z, y, x); .npy for scans and all others.
    """
    dims = schema.signal_dims(ds)
    if schema.is_scan(ds):
        return NUMPY
    if dims == nifti.AXES:
        return NIFTI
    n_channels = ds.sizes.get(n.CHANNEL, 0)
    png_channels = {"uint8": (0, 3), "uint16": (0,)}
    return PNG if n_channels in png_channels.get(str(ds[n.PATTERNS].dtype), ()) else NUMPY


def write_sample(
    path: Path,
    values: np.ndarray,
    dtype: np.dtype,
    *,
    geometry: Geometry | None = None,
    affine: np.ndarray | None = None,
) -> None:
    """Write a sample in stored units as a file, whose suffix decides the format.

    geometry: of an image whose file had another size; PNG then has the pixels of the file. affine:
    of a volume, from voxel numbers (x, y, z, 1) in RAS+ to mm. dtype: of the stored samples; PNG
    has it, the others float32.
    """
    values = np.asarray(values, np.float32)
    if geometry is not None and not path.name.endswith(NUMPY):
        values = restore(values, geometry)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(PNG):
        from PIL import Image

        limits = np.iinfo(dtype)
        pixels = np.clip(np.rint(np.nan_to_num(values)), limits.min, limits.max).astype(dtype)
        if pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, -1)
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    elif path.name.endswith(NIFTI):
        write_nifti(path, values, affine)
    else:
        np.save(path, values, allow_pickle=False)


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray | None) -> None:
    """Write values (z, y, x) in RAS+, in mm."""
    import nibabel as nib

    image: Any = nib.Nifti1Image(values.T, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def stored_geometry(ds: xr.Dataset, i: int) -> Geometry | None:
    """Geometry of a sample of images whose files had other sizes; None for others."""
    if "source_rows" not in ds.coords or "fit" not in ds[n.PATTERNS].attrs:
        return None
    rows, columns = schema.signal_dims(ds)[-2:]
    shape = (int(ds["source_rows"][i]), int(ds["source_columns"][i]))
    return images.image_geometry(
        Path(), shape, (ds.sizes[rows], ds.sizes[columns]), ds[n.PATTERNS].attrs["fit"]
    )


def stored_affine(ds: xr.Dataset, i: int) -> np.ndarray:
    """Affine of a volume from voxel numbers (x, y, z, 1) to mm, stored or by its coordinates."""
    if nifti.AFFINE in ds:
        return np.asarray(ds[nifti.AFFINE].isel({n.SAMPLE: i}).values, float)
    affine = np.eye(4)
    for axis, dim in enumerate(nifti.AXES[::-1]):
        values = ds[dim].values
        if ds[dim].attrs.get("units") == "mm" and len(values) > 1:
            affine[axis, axis], affine[axis, 3] = values[1] - values[0], values[0]
    return affine
