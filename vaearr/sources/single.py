"""Single files made into samples of a store as its ingest made them, and the way back to the pixels of the file.

Which files fit follows from the samples: images (png, jpg, tif, bmp) where these have rows and columns, NIfTI where
they have z, y, x, and for every store `.npy` with an array of a sample's own shape. The settings are those that the
store keeps of its ingest: channels, size and fit, distance of voxels. Files of another size than the store's samples
are taken where the ingest had a `size`, or volumes a `spacing`, that makes them alike; nothing is resized otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.provenance import nested
from vaearr.sources import image_folders, nifti
from vaearr.sources.hdf5 import check_file
from vaearr.sources.image_files import Fit, placement, read_image, refit

NUMPY = ".npy"
EDGE = 1e-6  # of a pixel


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of a sample lie in its file: along each spatial dim, pixel of the file = scale * pixel + offset.

    file: what was read. shape: spatial shape of the file, (y, x) of an image as one sees it, (z, y, x) in RAS+ of a
    volume. size: that of the sample. affine: of a volume, from the file's voxel numbers (x, y, z, 1) in RAS+ to mm.
    """

    file: Path
    shape: tuple[int, ...]
    size: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    affine: np.ndarray | None = None

    @property
    def is_same(self) -> bool:
        """Whether the pixels of the sample are those of the file."""
        return self.shape == self.size and set(self.scale) == {1.0} and set(self.offset) == {0.0}


@dataclass(frozen=True)
class Single:
    """A sample from a file of its own: values over the store's signal dims, in the store's dtype, and its geometry."""

    values: np.ndarray
    geometry: Geometry


def read_like(ds: xr.Dataset, paths: Sequence[str | Path]) -> np.ndarray:
    """Files as samples of a store, `(n, *signal shape)` in its dtype: byte for byte what its ingest makes of them.

    For errors see `read_single`.
    """
    shape = tuple(ds.sizes[dim] for dim in schema.signal_dims(ds))
    out = np.empty((len(paths), *shape), _dtype(ds))
    for i, path in enumerate(paths):
        out[i] = read_single(ds, path).values
    return out


def read_single(ds: xr.Dataset, path: str | Path) -> Single:
    """One file as a sample of a store, with its geometry.

    Raises NoInputError for a file that is not there, DataError for one that is damaged, holds NaN or infinite values,
    or cannot become a sample of this store: another kind of file, shape, number of channels or dtype.
    """
    file = check_file(path)
    dims = schema.signal_dims(ds)
    spatial = [dim for dim in dims if dim != n.CHANNEL]
    name = file.name.lower()
    if name.endswith(NUMPY):
        found = _from_numpy(ds, file)
    elif name.endswith(image_folders.SUFFIXES) and len(spatial) == 2:
        found = _from_image(ds, file)
    elif name.endswith(nifti.SUFFIXES) and spatial == list(nifti.AXES):
        found = _from_nifti(ds, file)
    else:
        kinds = {2: image_folders.SUFFIXES, 3: nifti.SUFFIXES}.get(len(spatial), ())
        raise DataError(
            f"{file} cannot become a sample of this store, whose samples are {_words(ds)}; give files "
            f"{', '.join((*kinds, NUMPY))}."
        )
    if found.values.dtype.kind == "f" and not np.isfinite(found.values).all():
        raise DataError(f"{file} has NaN or infinite values; correct the file.")
    return found


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
        weights = _weights(*parts)
        out = np.moveaxis(np.tensordot(weights, out, axes=(1, first + axis)), 0, first + axis)
    return np.ascontiguousarray(out)


def _weights(n_file: int, n_sample: int, scale: float, offset: float) -> np.ndarray:
    """Weights `(n_file, n_sample)` of the pixels of a sample for those of its file along one dim; NaN = not known."""
    pixel = np.arange(n_sample)
    there = scale * pixel + offset
    filled = pixel[(there > -0.5 - EDGE) & (there < n_file - 0.5 + EDGE)]
    where = (np.arange(n_file) - offset) / scale
    is_known = (where > -0.5 - EDGE) & (where < n_sample - 0.5 + EDGE) & (len(filled) > 0)
    weights = np.full((n_file, n_sample), np.nan, np.float32)
    if not is_known.any():
        return weights
    inside = np.clip(where[is_known], filled[0], filled[-1])
    near = np.maximum(0.0, 1 - np.abs(inside[:, None] - filled) / max(1.0, 1 / scale))
    known = np.zeros((len(inside), n_sample), np.float32)
    known[:, filled] = near / near.sum(1, keepdims=True)
    weights[is_known] = known
    return weights


def _from_numpy(ds: xr.Dataset, file: Path) -> Single:
    try:
        values: Any = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{file} cannot be read as an array ({reason}); save plain numbers with numpy.save.") from error
    shape = tuple(ds.sizes[dim] for dim in schema.signal_dims(ds))
    if values.shape not in (shape, (1, *shape)) or values.dtype.kind not in "uif":
        raise DataError(
            f"{file} holds {values.dtype} of shape {values.shape}; the samples of this store are {_words(ds)}."
        )
    return _plain(_as_stored(ds, file, np.asarray(values).reshape(shape)), file, schema.signal_dims(ds))


def _plain(values: np.ndarray, file: Path, dims: Sequence[str]) -> Single:
    size = values.shape[-(len(dims) - (n.CHANNEL in dims)) :]
    return Single(values, Geometry(file, size, size, (1.0,) * len(size), (0.0,) * len(size)))


def _from_image(ds: xr.Dataset, file: Path) -> Single:
    config, dims = _settings(ds), schema.signal_dims(ds)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what Pillow only warns of: damaged headers, cut-off files
        values = read_image(file, config.channels)
    n_wanted = ds.sizes[n.CHANNEL] if n.CHANNEL in dims else 1
    n_found = 1 if values.ndim == 2 else len(values)
    if n_found != n_wanted or (n.CHANNEL in dims and values.ndim == 2):
        kind = "grey" if n_found == 1 else "in colour"
        raise DataError(f"{file} is {kind}; the samples of this store are {_words(ds)}, so convert the file.")
    wanted = _dtype(ds)
    if values.dtype != wanted and wanted.kind != "f":
        raise DataError(f"{file} holds {values.dtype}; the samples of this store are {_words(ds)}, so save it alike.")
    size = (ds.sizes[dims[-2]], ds.sizes[dims[-1]])
    shape = (int(values.shape[-2]), int(values.shape[-1]))
    if shape != size and config.size != size:
        raise DataError(
            f"{file} is {shape[0]} x {shape[1]} px; the samples of this store are {_words(ds)}, so bring it to that "
            "size."
        )
    made = refit(values, size, config.fit).astype(wanted, copy=False)
    return Single(made, image_geometry(file, shape, size, config.fit))


def image_geometry(file: Path, shape: tuple[int, int], size: tuple[int, int], fit: Fit) -> Geometry:
    """Where the pixels of an image of `shape` lie once it was refitted to `size`."""
    if shape == size:
        return Geometry(file, shape, size, (1.0, 1.0), (0.0, 0.0))
    (left, top, right, bottom), target = placement(shape, size, fit)
    spans = ((top, bottom - top), (left, right - left))
    scale, offset = [], []
    for (start, taken), whole, part in zip(spans, size, target, strict=True):
        first, step = (whole - part) // 2, taken / part
        scale.append(step)
        offset.append(start + (0.5 - first) * step - 0.5)
    return Geometry(file, shape, size, tuple(scale), tuple(offset))


def _from_nifti(ds: xr.Dataset, file: Path) -> Single:
    config = _settings(ds)
    volume = nifti.volume_header(file, config)
    grid = nifti.target_grid(volume, config)
    size = tuple(ds.sizes[dim] for dim in nifti.AXES)
    if grid.shape != size:
        raise DataError(
            f"{file} has {grid.shape} voxels (z, y, x); the samples of this store are {_words(ds)}, so bring it to "
            "that grid."
        )
    values = nifti.on_grid(nifti.volume_values(file), grid)
    scale, offset = tuple(map(float, grid.scale)), tuple(map(float, grid.offset))
    geometry = Geometry(file, volume.shape, size, scale, offset, volume.affine)
    return Single(_as_stored(ds, file, values), geometry)


def _as_stored(ds: xr.Dataset, file: Path, values: np.ndarray) -> np.ndarray:
    """Numbers in the store's dtype, which must hold them: floats as near as they come, all others exactly."""
    wanted = _dtype(ds)
    if wanted.kind == "f" or np.can_cast(values.dtype, wanted):
        return values.astype(wanted, copy=False)
    limits = np.iinfo(wanted)
    fits = np.isfinite(values).all() and values.min() >= limits.min and values.max() <= limits.max
    if not fits or (values.dtype.kind == "f" and (values != np.rint(values)).any()):
        raise DataError(
            f"{file} holds {values.dtype} values from {values.min():g} to {values.max():g}, which {wanted} of the "
            "store's samples cannot hold; bring them to the store's units."
        )
    return values.astype(wanted)


def _settings(ds: xr.Dataset) -> IngestConfig:
    """How the store's samples were made."""
    return IngestConfig.from_attrs((nested(ds.attrs, n.PROVENANCE) or {}).get("ingest", {}))


def _dtype(ds: xr.Dataset) -> np.dtype:
    return ds[n.PATTERNS].dtype.newbyteorder("=")


def _words(ds: xr.Dataset) -> str:
    """What a sample is: "uint8 of 3 channel x 96 y x 128 x"."""
    return f"{_dtype(ds)} of " + " x ".join(f"{ds.sizes[dim]} {dim}" for dim in schema.signal_dims(ds))
