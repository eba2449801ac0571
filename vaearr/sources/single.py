"""One file in, one file out: a sample as a store's ingest would have made it, and samples as files of their own.

Which files fit follows from the samples: images (png, jpg, tif, bmp) where these have rows and columns, NIfTI where
they have z, y, x, and for every store `.npy` with an array of a sample's own shape. The settings are those that the
store keeps of its ingest: channels, size and fit, distance of voxels. Files of another size than the store's samples
are taken where the ingest had a `size`, or volumes a `spacing`, that makes them alike; nothing is resized otherwise.
Written are PNG for images, NIfTI for volumes, .npy for everything else.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
EDGE = 1e-6  # of a pixel
Kept = Literal["float32", "source"]


@dataclass(frozen=True)
class Single:
    """A sample from a file of its own: values over the store's signal dims, in the store's dtype, and its geometry."""

    values: np.ndarray
    geometry: Geometry


def read_single(ds: xr.Dataset, path: str | Path) -> Single:
    """One file as a sample of a store, byte for byte what its ingest makes of it, with its geometry.

    Raises NoInputError for a file that does not exist, DataError for one that is damaged, holds NaN or infinite values,
    or cannot become a sample of this store: another kind of file, shape, number of channels or dtype.
    """
    file = check_file(path)
    name = file.name.lower()
    dims = schema.signal_dims(ds)
    n_spatial = len([dim for dim in dims if dim != n.CHANNEL])
    suffixes: tuple[str, ...] = ()
    if n_spatial == 2:
        suffixes = images.SUFFIXES
    elif dims == nifti.AXES:
        suffixes = nifti.SUFFIXES
    if name.endswith(NUMPY):
        single = _read_array(ds, file)
    elif not (suffixes and name.endswith(suffixes)):
        raise _misfit(ds, file, f"is none of {', '.join((*suffixes, NUMPY))}")
    elif n_spatial == 2:
        single = _read_image(ds, file)
    else:
        single = _read_volume(ds, file)
    wanted = ds[n.PATTERNS].dtype.newbyteorder("=")
    values = as_dtype(single.values, wanted)
    if wanted.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{file} has NaN or infinite values; correct the file.")
    is_same_dtype = single.values.dtype == wanted
    is_image = name.endswith(images.SUFFIXES)
    if wanted.kind != "f" and not is_same_dtype and (is_image or (values != single.values).any()):
        least, largest = single.values.min(), single.values.max()
        raise _misfit(ds, file, f"holds {single.values.dtype} from {least:g} to {largest:g}")
    return Single(values, single.geometry)


def _misfit(ds: xr.Dataset, file: Path, found: str) -> DataError:
    """The error for a file that cannot become a sample of the store."""
    sizes = " x ".join(f"{ds.sizes[dim]} {dim}" for dim in schema.signal_dims(ds))
    dtype = ds[n.PATTERNS].dtype.newbyteorder("=")
    return DataError(f"{file} {found}; the samples of this store are {dtype} of {sizes}, so convert the file.")


def _sample_shape(ds: xr.Dataset) -> tuple[int, ...]:
    return tuple(ds.sizes[dim] for dim in schema.signal_dims(ds))


def _ingest_settings(ds: xr.Dataset) -> IngestConfig:
    """The settings that the store was ingested with."""
    stored = (nested(ds.attrs, n.PROVENANCE) or {}).get("ingest", {})
    return IngestConfig.from_attrs({key: stored[key] for key in IngestConfig.model_fields if key in stored})


def _read_array(ds: xr.Dataset, file: Path) -> Single:
    shape = _sample_shape(ds)
    values = read_npy(file)
    if values.shape not in (shape, (1, *shape)) or values.dtype.kind not in "uif":
        raise _misfit(ds, file, f"holds {values.dtype} of shape {values.shape}")
    spatial = tuple(ds.sizes[dim] for dim in schema.signal_dims(ds) if dim != n.CHANNEL)
    geometry = Geometry(file, spatial, spatial, (1.0,) * len(spatial), (0.0,) * len(spatial))
    return Single(values.reshape(shape), geometry)


def _read_volume(ds: xr.Dataset, file: Path) -> Single:
    volume = nifti.read_header(file, _ingest_settings(ds))
    if volume.geometry.size != _sample_shape(ds):
        raise _misfit(ds, file, f"has {volume.geometry.size} voxels (z, y, x)")
    return Single(nifti.read_volume(volume), volume.geometry)


def _read_image(ds: xr.Dataset, file: Path) -> Single:
    config = _ingest_settings(ds)
    *channels, rows, columns = _sample_shape(ds)
    with warnings.catch_warnings(action="error"):  # what Pillow only warns of: damaged headers, cut-off files
        values = images.read_image(file, config.channels)
    if list(values.shape[:-2]) != channels:
        raise _misfit(ds, file, "is grey" if values.ndim == 2 else "is in colour")
    shape = (values.shape[-2], values.shape[-1])
    if shape != (rows, columns) and config.size != (rows, columns):
        raise _misfit(ds, file, f"is {shape[0]} x {shape[1]} px")
    geometry = images.image_geometry(file, shape, (rows, columns), config.fit)
    return Single(images.refit(values, (rows, columns), config.fit), geometry)


def restore(values: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A sample `([channel,] *size)` on the pixels of its file `([channel,] *shape)`, float32: the inverse of the fit.

    Padding is cut off; what was scaled is scaled back by triangular weights as wide as the larger of both steps; where
    the file was cut, nothing is known: NaN.
    """
    out = np.asarray(values, np.float32)
    if geometry.is_same:
        return out
    first = out.ndim - len(geometry.shape)
    for axis, parts in enumerate(zip(geometry.shape, geometry.size, geometry.scale, geometry.offset, strict=True)):
        out = np.moveaxis(np.tensordot(_weights(*parts), out, axes=(1, first + axis)), 0, first + axis)
    return np.ascontiguousarray(out)


def _weights(n_file: int, n_sample: int, scale: float, offset: float) -> np.ndarray:
    """Weights `(n_file, n_sample)` of the pixels of a sample for those of its file along one dim; NaN = not known."""
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

    .png for images of a collection, of 8 bits in grey or three colours or of 16 bits in grey; .nii.gz for its volumes
    (z, y, x); .npy for scans and all others.
    """
    dims, dtype = schema.signal_dims(ds), ds[n.PATTERNS].dtype
    if schema.is_scan(ds) or dims == nifti.AXES:
        return NUMPY if schema.is_scan(ds) else NIFTI
    is_grey, is_colour = len(dims) == 2, dims[0] == n.CHANNEL and len(dims) == 3 and ds.sizes[n.CHANNEL] == 3
    return PNG if (dtype == np.uint8 and (is_grey or is_colour)) or (dtype == np.uint16 and is_grey) else NUMPY


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
        from PIL import Image

        pixels: Any = np.moveaxis(whole, 0, -1) if whole.ndim == 3 else whole
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    elif path.name.endswith(NIFTI):
        write_nifti(path, whole, geometry, affine)
    else:
        np.save(path, whole, allow_pickle=False)


def as_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Numbers in another dtype: for whole numbers rounded, cut to its range, 0 for NaN."""
    if dtype.kind == "f" or np.can_cast(values.dtype, dtype):
        return np.asarray(values, dtype)
    limits = np.iinfo(dtype)
    rounded = np.rint(np.nan_to_num(values.astype(np.float64), nan=0.0))
    return np.clip(rounded, limits.min, limits.max).astype(dtype)


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
    rows, columns = schema.signal_dims(ds)[-2:]
    shape = (int(ds["source_rows"][i]), int(ds["source_columns"][i]))
    return images.image_geometry(Path(), shape, (ds.sizes[rows], ds.sizes[columns]), ds[n.PATTERNS].attrs["fit"])


def stored_affine(ds: xr.Dataset, i: int) -> np.ndarray | None:
    """Affine of volume `i` from voxel numbers (x, y, z, 1) to mm: the store's own, else from its coordinates in mm.

    None where neither says. Raises DataError for coordinates with uneven steps.
    """
    if nifti.AFFINE in ds:
        return np.asarray(ds[nifti.AFFINE].isel({n.SAMPLE: i}).values, float)
    if any(ds[dim].attrs.get("units") != "mm" for dim in nifti.AXES):
        return None
    affine = np.eye(4)
    for axis, dim in enumerate(nifti.AXES[::-1]):
        values = ds[dim].values.astype(float)
        steps = np.diff(values) if len(values) > 1 else np.ones(1)
        if not np.allclose(steps, steps[0], rtol=1e-3):
            raise DataError(f"the coordinate {dim!r} has uneven steps, which no affine can say; write .npy instead.")
        affine[axis, axis], affine[axis, 3] = steps.mean(), values[0]
    return affine
