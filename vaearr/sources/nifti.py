"""NIfTI volumes, one file, a folder or a manifest of them, as a collection (sample, z, y, x) in
RAS+ orientation.

Axes are swapped and flipped, never interpolated, so that x runs to the right, y to the front and z
to the top of the head (the closest such orientation to the file's affine); `orientation` keeps the
axis codes of the file. `affine` (sample, 4, 4) maps the voxel numbers (x, y, z, 1) of what is
stored to millimetres, whatever was cut, padded or resampled. Where all volumes share one affine
without rotation, the coordinates z, y, x are those millimetres; where they share the distances of
voxels only, they are millimetres from the first voxel; else voxel numbers.

Volumes of other shapes need `size`, with `fit`: `pad` puts 0 around those that are smaller and
refuses larger ones, `crop` cuts larger ones and pads smaller ones, both about the middle, `squash`
resamples. `spacing` resamples all to one distance of voxels before that. Resampling is trilinear;
where it makes the grid coarser by a factor f, a Gaussian of (f - 1) / 2 voxels goes before it, so
that nothing aliases. Whole numbers without a scale keep their dtype if nothing is resampled; the
rest is float32. See `collection` for labels and manifests.
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
    Geometry,
    collection,
    examined,
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


def sniff(path: Path) -> bool:
    """Whether a path is a NIfTI file, a folder with such files or a manifest of them."""
    return bool(some_files(path, SUFFIXES)) or (
        path.is_file() and path.name.lower().endswith(SUFFIXES)
    )


def files(path: Path, config: IngestConfig) -> list[Path]:
    """All files that the Dataset is made from."""
    return source_files(path, config, SUFFIXES)


@dataclass(frozen=True)
class Volume:
    """What a header says: where the sample's voxels lie in it, axis codes of the file, dtype of its
    values.
    """

    geometry: Geometry
    codes: str
    dtype: np.dtype

    @property
    def affine(self) -> np.ndarray:
        """The affine of the sample's voxel numbers (x, y, z, 1)."""
        step = np.diag([*self.geometry.scale[::-1], 1.0])
        step[:3, 3] = self.geometry.offset[::-1]
        return np.asarray(self.geometry.affine @ step)


def open_nifti(source: Path, config: IngestConfig) -> xr.Dataset:
    """Lazy Dataset of volumes (sample, z, y, x) with `affine`, orientation, paths and labels.

    Raises DataError or NoInputError that names all files that cannot be used; DataError for volumes
    of several shapes without `size`; UsageError for config that cannot be meant.
    """
    if config.size is not None and len(config.size) != 3:
        raise UsageError(f"size {config.size} of volumes must be three numbers, (z, y, x).")

    def look(file: Path) -> Volume:
        volume = read_header(file, config)
        is_checked = volume.dtype.kind == "f" and config.nonfinite == "error"
        if is_checked and not np.isfinite(_values(file)).all():
            raise DataError(
                f"{file} has NaN or infinite values; correct it, or set nonfinite='mask'."
            )
        return volume

    found = samples_of(source, config, SUFFIXES)
    volumes = examined(found, look)
    shapes = sorted({volume.geometry.size for volume in volumes})
    if len(shapes) > 1:
        raise DataError(
            f"{source}: the volumes have {len(shapes)} shapes (z, y, x), such as {shapes[0]} and {shapes[-1]}; give "
            f"one with size=(z, y, x) (--size ZxYxX) and fit."
        )
    is_resampled = any(volume.geometry.is_resampled for volume in volumes)
    plain = {volume.dtype for volume in volumes}
    dtype = plain.pop() if len(plain) == 1 and not is_resampled else np.dtype("f4")

    def read(i: int) -> np.ndarray:
        return read_volume(volumes[i]).astype(dtype, copy=False)

    attrs: dict[str, Any] = {"long_name": "volume", "units": "1", ORIENTATION: "RAS+"}
    if any(volume.geometry.size != volume.geometry.shape for volume in volumes):
        attrs |= {"size": list(shapes[0]), "fit": config.fit}
    if is_resampled:
        attrs |= {"resampled": "trilinear", "spacing": config.spacing and list(config.spacing)}
    ds = collection(samples(read, len(found), shapes[0], dtype), AXES, found, attrs)
    affines = np.stack([volume.affine for volume in volumes])
    about = {"long_name": "affine from voxel numbers (x, y, z, 1) to mm, RAS+", "units": "mm"}
    ds[AFFINE] = ((n.SAMPLE, "affine_row", "affine_column"), affines, about)
    codes = (
        n.SAMPLE,
        [volume.codes for volume in volumes],
        {"long_name": "axis codes of the file"},
    )
    return _in_millimetres(ds.assign_coords({ORIENTATION: codes}), affines)


def read_header(file: Path, config: IngestConfig) -> Volume:
    """The header of a volume that can become a sample. Raises DataError for one that is damaged, or
    not believed.
    """
    import nibabel as nib

    image = _opened(file)
    stored, shape = image.get_data_dtype(), image.shape
    if len(shape) > 3 and math.prod(shape[3:]) != 1:
        raise DataError(
            f"{file} holds {math.prod(shape[3:])} volumes (its shape is {shape}); expected one volume."
        )
    shape = shape[:3]
    if stored.kind not in "uif" or len(shape) < 3 or min(shape) < 1:
        raise DataError(f"{file} holds {stored} of shape {shape}; expected numbers.")
    needed, stored_bytes = (
        image.dataobj.offset + math.prod(shape) * stored.itemsize,
        file.stat().st_size,
    )
    is_packed = file.name.lower().endswith(".gz")
    if not is_packed and needed > stored_bytes:
        raise DataError(f"{file} declares {needed} bytes, but has {stored_bytes}; fetch it again.")
    if is_packed:
        refuse_bomb(file, needed, stored_bytes)
        with (
            in_words(file, "NIfTI"),
            gzip.open(file) as opened,
        ):  # to its end, where gzip keeps the checksum
            while opened.read(2**20):
                pass
    axes = (
        nib.io_orientation(image.affine)
        if np.isfinite(image.affine).all()
        else np.full((3, 2), np.nan)
    )
    if not np.isfinite(axes).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-12:
        raise DataError(
            f"{file} has an affine that maps no volume to millimetres; correct its header."
        )
    ras_shape = tuple(int(shape[i]) for i in np.argsort(axes[:, 0]))
    ras_affine = image.affine @ nib.orientations.inv_ornt_aff(axes, shape)
    dtype = stored.newbyteorder("=") if _is_plain(image) else np.dtype("f4")
    return Volume(
        _geometry(file, ras_shape[::-1], ras_affine, config),
        "".join(nib.aff2axcodes(image.affine)),
        dtype,
    )


def read_volume(volume: Volume) -> np.ndarray:
    """The values of a sample (z, y, x): as stored where the header has no scale and nothing is
    resampled, else float32; 0 outside the file.
    """
    values, geometry = _values(volume.geometry.file), volume.geometry
    if geometry.is_same:
        return values
    if not geometry.is_resampled:
        starts = [round(offset) for offset in geometry.offset]
        sides = list(zip(starts, geometry.size, geometry.shape, strict=True))
        padded = np.pad(
            values, [(max(0, -start), max(0, start + new - old)) for start, new, old in sides]
        )
        return padded[tuple(slice(max(0, start), max(0, start) + new) for start, new, _ in sides)]
    from scipy.ndimage import affine_transform, gaussian_filter

    smooth = values.astype(np.float32)
    sigma = np.maximum(0, (np.array(geometry.scale) - 1) / 2)
    if (sigma > 0).any():
        smooth = gaussian_filter(smooth, sigma, mode="nearest", truncate=4.0)
    near = affine_transform(
        smooth, geometry.scale, geometry.offset, output_shape=geometry.size, order=1, mode="nearest"
    )
    for axis, (size, scale, offset) in enumerate(
        zip(geometry.size, geometry.scale, geometry.offset, strict=True)
    ):
        where = scale * np.arange(size) + offset
        outside = (where < -0.5 - 1e-6) | (
            where > values.shape[axis] - 0.5 + 1e-6
        )  # beyond the edge of a voxel
        near[(slice(None),) * axis + (outside,)] = 0
    return np.asarray(near)


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
    """The values of a file (z, y, x) in RAS+: as stored where the header has no scale, else
    float32.
    """
    import nibabel as nib

    image = _opened(file)
    with in_words(file, "NIfTI"):
        values = (
            image.dataobj.get_unscaled()
            if _is_plain(image)
            else np.asarray(image.dataobj, np.float32)
        )
    values = np.asarray(values, values.dtype.newbyteorder("="))
    turned = nib.apply_orientation(
        values.reshape(values.shape[:3]), nib.io_orientation(image.affine)
    )
    return np.ascontiguousarray(turned.T)


def _geometry(
    file: Path, shape: tuple[int, ...], affine: np.ndarray, config: IngestConfig
) -> Geometry:
    """Where a volume is read at, as spacing, size and fit say, always about its middle."""
    scale, size = np.ones(3), shape
    if config.spacing is not None:
        scale = np.array(config.spacing) / np.linalg.norm(affine[:3, :3], axis=0)[::-1]
        scale = np.where(np.abs(scale - 1) < 1e-4, 1.0, scale)
        size = tuple(int(side) for side in np.maximum(1, np.rint(np.array(shape) / scale)))
    offset = (np.array(shape) - 1) / 2 - scale * (np.array(size) - 1) / 2
    if config.size is not None and config.size != size:
        if config.fit == "pad" and any(a > b for a, b in zip(size, config.size, strict=True)):
            raise DataError(
                f"{file} has {size} voxels (z, y, x), more than size {config.size}; use fit='crop' or 'squash'."
            )
        old, new = np.array(size, float), np.array(config.size, float)
        step = old / new if config.fit == "squash" else np.ones(3)
        start = (old - 1) / 2 - step * (new - 1) / 2
        start = start if config.fit == "squash" else np.ceil(start)  # whole voxels
        scale, size, offset = scale * step, config.size, scale * start + offset
    return Geometry(file, shape, size, tuple(map(float, scale)), tuple(map(float, offset)), affine)


def _in_millimetres(ds: xr.Dataset, affines: np.ndarray) -> xr.Dataset:
    """The Dataset with z, y, x in mm, as far as the volumes share them."""
    first = affines[0]
    spacing = np.linalg.norm(affines[:, :3, :3], axis=1)
    straight = np.allclose(first[:3, :3], np.diag(np.diag(first[:3, :3])), atol=1e-4)
    if np.allclose(affines, first, atol=1e-3) and straight:
        origin, about = first[:3, 3], "position, RAS+"
    elif np.allclose(spacing, spacing[0], rtol=1e-4):
        origin, about = np.zeros(3), "distance from the first voxel"
    else:
        return ds
    for axis, dim in enumerate((n.X, n.Y, n.Z)):
        values = origin[axis] + np.arange(ds.sizes[dim]) * spacing[0, axis]
        ds = ds.assign_coords({dim: (dim, values, {"long_name": f"{dim} {about}", "units": "mm"})})
    return ds
