"""NIfTI volumes: a file, folder or manifest as a collection (sample, z, y, x) in RAS+ orientation.

Axes are swapped and flipped, never interpolated, so that x runs to the right, y to the front and z
to the top of the head (the orientation closest to the file's affine). `affine` (sample, 4, 4) maps
the stored voxel numbers (x, y, z, 1) to millimetres, whatever was cropped, padded or resampled.
Where all volumes share one affine without rotation, the coordinates z, y, x are those millimetres;
where they share only the voxel spacing, they are millimetres from the first voxel; else voxel
numbers.

Volumes of other shapes need `size`, with `fit`: `pad` puts 0 around those that are smaller and
refuses larger ones, `crop` cuts larger ones and pads smaller ones, both about the middle, `squash`
resamples. `spacing` first resamples all volumes to one voxel spacing. Resampling is trilinear;
where it makes the grid coarser by a factor f, a Gaussian of (f - 1) / 2 voxels is applied before
it, so that nothing aliases. Integers without a scale keep their dtype if nothing is resampled; all
others become float32. See `collection` for labels and manifests.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError, UsageError
from vaearr.sources.collection import (
    collection,
    examined,
    refuse_nonfinite,
    samples,
    samples_of,
    some_files,
    source_files,
)
from vaearr.sources.hdf5 import in_words, refuse_bomb

ENGINE = "nifti"
SUFFIXES = (".nii", ".nii.gz")
AFFINE, ORIENTATION = "affine", "orientation"
AXES = (n.Z, n.Y, n.X)
EDGE = 1e-6  # of a voxel
MAX_CONDITION = 1e6  # of an affine; a flat one has no three axes


def sniff(path: Path) -> bool:
    """Whether a path is a NIfTI file, a folder with such files or a manifest of them."""
    return bool(some_files(path, SUFFIXES)) or (
        path.is_file() and path.name.lower().endswith(SUFFIXES)
    )


def files(path: Path, config: IngestConfig) -> list[Path]:
    """All files that the Dataset is made from."""
    return source_files(path, config, SUFFIXES)


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume of a file and its sample: voxel of the file = scale * voxel of the sample + offset.

    shape: of the file, (z, y, x) in RAS+. size: of the sample. affine: from voxel numbers (x, y, z,
    1) of the sample to mm. dtype: of the file's values.
    """

    file: Path
    shape: tuple[int, ...]
    size: tuple[int, ...]
    scale: np.ndarray
    offset: np.ndarray
    affine: np.ndarray
    dtype: np.dtype

    @property
    def is_resampled(self) -> bool:
        """Whether values of the sample lie between voxels of the file."""
        return bool((self.scale != 1).any())


def open_nifti(source: Path, config: IngestConfig) -> xr.Dataset:
    """Open volumes (sample, z, y, x), lazy, with `affine`, paths and labels.

    Raises DataError or NoInputError that names all files that cannot be used; DataError for volumes
    of several shapes without `size`; UsageError for an invalid size.
    """
    if config.size is not None and len(config.size) != 3:
        raise UsageError(f"size {config.size} of volumes must be three numbers, (z, y, x).")

    def check(file: Path) -> Volume:
        volume = read_header(file, config)
        if volume.dtype.kind == "f" and config.nonfinite == "error":
            refuse_nonfinite(file, _values(file))
        return volume

    sample_table = samples_of(source, config, SUFFIXES)
    volumes = examined(sample_table, check)
    sizes = sorted({volume.size for volume in volumes})
    if len(sizes) > 1:
        raise DataError(
            f"{source}: the volumes have {len(sizes)} shapes (z, y, x), such as {sizes[0]} and "
            f"{sizes[-1]}; give one with size=(z, y, x) (--size ZxYxX) and fit."
        )
    dtype = _common_dtype(volumes)

    def read(i: int) -> np.ndarray:
        return read_volume(volumes[i]).astype(dtype, copy=False)

    patterns = samples(read, len(volumes), sizes[0], dtype)
    ds = collection(patterns, AXES, sample_table, _attributes(volumes, config))
    affines = np.stack([volume.affine for volume in volumes])
    affine_attrs = {
        "long_name": "affine from voxel numbers (x, y, z, 1) to mm, RAS+",
        "units": "mm",
    }
    ds[AFFINE] = ((n.SAMPLE, "affine_row", "affine_column"), affines, affine_attrs)
    return _in_millimetres(ds, affines)


def _common_dtype(volumes: list[Volume]) -> np.dtype:
    """The dtype of all volumes, float32 where they differ or are resampled."""
    dtypes = {volume.dtype for volume in volumes}
    if len(dtypes) > 1 or any(volume.is_resampled for volume in volumes):
        return np.dtype("f4")
    return dtypes.pop()


def _attributes(volumes: list[Volume], config: IngestConfig) -> dict[str, Any]:
    attrs: dict[str, Any] = {"long_name": "volume", "units": "1", ORIENTATION: "RAS+"}
    if any(volume.size != volume.shape for volume in volumes):
        attrs |= {"size": list(volumes[0].size), "fit": config.fit}
    if any(volume.is_resampled for volume in volumes):
        attrs |= {"resampled": "trilinear", "spacing": config.spacing and list(config.spacing)}
    return attrs


def read_header(file: Path, config: IngestConfig) -> Volume:
    """Read the header of a volume. Raises DataError for one that is damaged or not plausible."""
    import nibabel as nib

    image = _opened(file)
    stored = image.get_data_dtype()
    shape = image.shape
    if len(shape) > 3 and math.prod(shape[3:]) != 1:
        raise DataError(
            f"{file} holds {math.prod(shape[3:])} volumes (its shape is {shape}); expected one "
            "volume."
        )
    shape = shape[:3]
    if stored.kind not in "uif" or len(shape) < 3 or min(shape) < 1:
        raise DataError(f"{file} holds {stored} of shape {shape}; expected numbers.")
    _check_size(file, image.dataobj.offset + math.prod(shape) * stored.itemsize)
    affine = image.affine
    if not np.isfinite(affine).all() or np.linalg.cond(affine[:3, :3]) > MAX_CONDITION:
        raise DataError(
            f"{file} has an affine that maps no volume to millimetres; correct its header."
        )
    axes = nib.io_orientation(affine)
    ras_shape = tuple(int(shape[i]) for i in np.argsort(axes[:, 0]))[::-1]
    ras_affine = affine @ nib.orientations.inv_ornt_aff(axes, shape)
    spacing = np.linalg.norm(ras_affine[:3, :3], axis=0)[::-1]
    size, scale, offset = _sampling(file, ras_shape, spacing, config)
    to_file = np.diag([*scale[::-1], 1.0])
    to_file[:3, 3] = offset[::-1]
    dtype = stored.newbyteorder("=") if _is_plain(image) else np.dtype("f4")
    return Volume(file, ras_shape, size, scale, offset, ras_affine @ to_file, dtype)


def _check_size(file: Path, needed: int) -> None:
    """Raise DataError where a file has fewer bytes than its header declares."""
    stored = file.stat().st_size
    if file.name.lower().endswith(".gz"):
        refuse_bomb(file, needed, stored)
        with in_words(file, "NIfTI"), gzip.open(file) as opened:
            while opened.read(2**20):  # to its end, where gzip keeps the checksum
                pass
    elif needed > stored:
        raise DataError(f"{file} declares {needed} bytes, but has {stored}; fetch it again.")


def _sampling(
    file: Path, shape: tuple[int, ...], spacing: np.ndarray, config: IngestConfig
) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """Size, scale and offset of a sample, by spacing, size and fit, always about its middle."""
    scale = np.ones(3)
    size = shape
    if config.spacing is not None:
        scale = np.array(config.spacing) / spacing
        scale = np.where(np.abs(scale - 1) < 1e-4, 1.0, scale)
        size = tuple(max(1, round(side)) for side in shape / scale)
    offset = (np.array(shape) - 1) / 2 - scale * (np.array(size) - 1) / 2
    if config.size is None or config.size == size:
        return size, scale, offset
    old = np.array(size)
    new = np.array(config.size)
    if config.fit == "pad" and (old > new).any():
        raise DataError(
            f"{file} has {size} voxels (z, y, x), more than size {config.size}; use fit='crop' "
            "or 'squash'."
        )
    step = old / new if config.fit == "squash" else np.ones(3)
    start = (old - 1) / 2 - step * (new - 1) / 2
    if config.fit != "squash":
        start = np.ceil(start)  # whole voxels
    return config.size, scale * step, scale * start + offset


def read_volume(volume: Volume) -> np.ndarray:
    """Read the values of a sample (z, y, x), 0 outside the file.

    As stored where the header has no scale and nothing is resampled, else float32.
    """
    values = _values(volume.file)
    if volume.is_resampled:
        return _resampled(values, volume)
    first = np.rint(volume.offset).astype(int)
    after = first + volume.size - volume.shape
    margins = np.maximum(0, np.stack([-first, after], axis=1))
    start = np.maximum(0, first)
    z, y, x = map(slice, start, start + volume.size)
    return np.pad(values, margins)[z, y, x]


def _resampled(values: np.ndarray, volume: Volume) -> np.ndarray:
    from scipy.ndimage import affine_transform, gaussian_filter

    sigma = np.maximum(0, (volume.scale - 1) / 2)
    smooth = gaussian_filter(values.astype(np.float32), sigma, mode="nearest", truncate=4.0)
    sample: np.ndarray = affine_transform(
        smooth, volume.scale, volume.offset, output_shape=volume.size, order=1, mode="nearest"
    )
    for axis, size in enumerate(volume.size):
        position = volume.scale[axis] * np.arange(size) + volume.offset[axis]
        is_before = position < -0.5 - EDGE
        is_after = position > values.shape[axis] - 0.5 + EDGE
        np.moveaxis(sample, axis, 0)[is_before | is_after] = 0
    return sample


def _opened(file: Path) -> Any:
    import nibabel as nib

    with in_words(file, "NIfTI"):
        image = nib.load(file)
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)):
        raise DataError(f"{file} is {type(image).__name__}; expected NIfTI.")
    return image


def _is_plain(image: Any) -> bool:
    """Whether values are whole numbers without a scale."""
    proxy = image.dataobj
    return bool(proxy.slope == 1 and proxy.inter == 0 and image.get_data_dtype().kind in "ui")


def _values(file: Path) -> np.ndarray:
    """Values of a file (z, y, x) in RAS+: as stored if the header has no scale, else float32."""
    import nibabel as nib

    image = _opened(file)
    with in_words(file, "NIfTI"):
        if _is_plain(image):
            values = image.dataobj.get_unscaled()
        else:
            values = np.asarray(image.dataobj, np.float32)
    volume = np.asarray(values, values.dtype.newbyteorder("=")).reshape(values.shape[:3])
    turned = nib.apply_orientation(volume, nib.io_orientation(image.affine))
    return np.ascontiguousarray(turned.T)


def _in_millimetres(ds: xr.Dataset, affines: np.ndarray) -> xr.Dataset:
    """The Dataset with z, y, x in mm where all volumes share them."""
    axes = affines[:, :3, :3]
    spacing = np.linalg.norm(axes, axis=1)
    is_straight = np.allclose(axes[0], np.diag(axes[0].diagonal()), atol=1e-4)
    if is_straight and np.allclose(affines, affines[0], atol=1e-3):
        origin = affines[0, :3, 3]
        meaning = "position, RAS+"
    elif np.allclose(spacing, spacing[0], rtol=1e-4):
        origin = np.zeros(3)
        meaning = "distance from the first voxel"
    else:
        return ds
    for axis, dim in enumerate((n.X, n.Y, n.Z)):
        values = origin[axis] + np.arange(ds.sizes[dim]) * spacing[0, axis]
        attrs = {"long_name": f"{dim} {meaning}", "units": "mm"}
        ds = ds.assign_coords({dim: (dim, values, attrs)})
    return ds
