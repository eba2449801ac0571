"""Write samples as files: images as PNG, volumes as NIfTI, everything else as .npy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.sources import images, nifti

PNG, NIFTI, NUMPY = ".png", ".nii.gz", ".npy"
EDGE = 1e-6  # of a pixel


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


def on_file_pixels(ds: xr.Dataset, i: int, values: np.ndarray) -> np.ndarray:
    """Return sample `i` of a store of images on the pixels of its file; others unchanged."""
    if "source_rows" not in ds.coords or "fit" not in ds[n.PATTERNS].attrs:
        return values
    shape = (int(ds["source_rows"][i]), int(ds["source_columns"][i]))
    return restore(values, shape, ds[n.PATTERNS].attrs["fit"])


def restore(values: np.ndarray, shape: tuple[int, int], fit: images.Fit) -> np.ndarray:
    """Undo the fit of an image `([channel,] rows, columns)`: return it on the pixels of its file.

    float32. Padding is removed; scaling is reversed with triangular weights as wide as the larger
    of both steps; pixels of the file that were cropped are NaN.
    """
    out = np.asarray(values, np.float32)
    if out.shape[-2:] == shape:
        return out
    vertical, horizontal = images.placement(shape, out.shape[-2:], fit)
    filled = out[..., vertical[2], horizontal[2]]
    rows = _weights(shape[0], *vertical)
    columns = _weights(shape[1], *horizontal)
    return rows @ filled @ columns.T


def _weights(n_file: int, start: float, stop: float, filled: slice) -> np.ndarray:
    """Weights `(n_file, n_filled)` of the filled pixels in those of the file, NaN outside."""
    n_filled = filled.stop - filled.start
    scale = (stop - start) / n_filled
    position = (np.arange(n_file) + 0.5 - start) / scale - 0.5
    is_sampled = (position > -0.5 - EDGE) & (position < n_filled - 0.5 + EDGE)
    inside = np.clip(position, 0, n_filled - 1)[:, None]
    near = np.maximum(0, 1 - np.abs(inside - np.arange(n_filled)) / max(1, 1 / scale))
    weights = near / near.sum(1, keepdims=True)
    return np.where(is_sampled[:, None], weights, np.nan).astype(np.float32)


def stored_affine(ds: xr.Dataset, i: int) -> np.ndarray:
    """Affine of a volume from voxel numbers (x, y, z, 1) to mm, stored or by its coordinates."""
    if nifti.AFFINE in ds:
        return np.asarray(ds[nifti.AFFINE].isel({n.SAMPLE: i}).values, float)
    affine = np.eye(4)
    for axis, dim in enumerate(nifti.AXES[::-1]):
        values = ds[dim].values
        if ds[dim].attrs.get("units") == "mm" and len(values) > 1:
            affine[axis, axis] = values[1] - values[0]
            affine[axis, 3] = values[0]
    return affine


def write_sample(
    path: Path, values: np.ndarray, dtype: np.dtype, affine: np.ndarray | None = None
) -> None:
    """Write a sample in stored units as a file, whose suffix decides the format.

    affine: of a volume, from voxel numbers (x, y, z, 1) in RAS+ to mm. dtype: of the stored
    samples; PNG has it, the others float32.
    """
    values = np.asarray(values, np.float32)
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
