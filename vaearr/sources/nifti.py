"""NIfTI volumes, one file, a folder or a manifest of them, as a collection (sample, z, y, x) in RAS+ orientation.

Axes are swapped and flipped, never interpolated, so that x runs to the right, y to the front and z to the top of the
head (the closest such orientation to the file's affine); `orientation` keeps the axis codes of the file. `affine`
(sample, 4, 4) maps the voxel numbers (x, y, z, 1) of what is stored to millimetres, whatever was cut, padded or
resampled. Where all volumes share one affine without rotation, the coordinates z, y, x are those millimetres; where
they share the distances of voxels only, they are millimetres from the first voxel; else voxel numbers.

Volumes of other shapes need `size`, with `fit`: `pad` puts 0 around those that are smaller and refuses larger ones,
`crop` cuts larger ones and pads smaller ones, both about the middle, `squash` resamples. `spacing` resamples all to one
distance of voxels before that. Resampling is trilinear; where it makes the grid coarser by a factor f, a Gaussian of
(f - 1) / 2 voxels goes before it, so that nothing aliases. Whole numbers without a scale keep their dtype if nothing
is resampled; the rest is float32. See `collection` for labels and manifests.
"""

from __future__ import annotations

import gzip
import itertools
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError, UsageError
from vaearr.sources.collection import (
    check_exists,
    collection,
    entries,
    examined,
    files_below,
    is_manifest,
    manifest_files,
    source_files,
)

ENGINE = "nifti"
SUFFIXES = (".nii", ".nii.gz")
AFFINE, ORIENTATION = "affine", "orientation"
MOST_DEFLATED = 1100  # bytes that gzip can make of one
PLENTY, MOST_PACKED = 256 * 2**20, 100  # bytes of a packed volume, above which one byte may stand for so many
AXES = (n.Z, n.Y, n.X)
Shape = tuple[int, ...]


def sniff(path: Path) -> int:
    """4: a NIfTI file, a folder with such files or a manifest of them; 0: anything else."""
    if path.is_dir():
        return 4 * (next(iter(itertools.islice(files_below(path, SUFFIXES), 1)), None) is not None)
    if is_manifest(path):
        return 4 * any(str(file).lower().endswith(SUFFIXES) for file in manifest_files(path)[:1])
    return 4 * path.name.lower().endswith(SUFFIXES)


def files(path: Path, config: IngestConfig) -> list[Path]:
    """All files that the Dataset is made from."""
    return source_files(path, config, SUFFIXES)


@dataclass(frozen=True)
class Volume:
    """What a header says: shape (z, y, x) in RAS+, affine of (x, y, z), axis codes of the file, dtype of its values."""

    shape: Shape
    affine: np.ndarray
    codes: str
    dtype: np.dtype

    @property
    def spacing(self) -> np.ndarray:
        """Distance of voxels (z, y, x), mm."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0)[::-1])


@dataclass(frozen=True)
class Grid:
    """Where a volume is read at: for each axis (z, y, x), old voxel number = scale * new + offset, for `shape`."""

    shape: Shape
    scale: np.ndarray
    offset: np.ndarray

    @property
    def is_resampled(self) -> bool:
        """Whether values lie between voxels."""
        return bool((self.scale != 1).any())

    def affine(self, before: np.ndarray) -> np.ndarray:
        """The affine of the new voxel numbers (x, y, z)."""
        step = np.eye(4)
        step[:3, :3], step[:3, 3] = np.diag(self.scale[::-1]), self.offset[::-1]
        return np.asarray(before @ step)


def open_nifti(path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None) -> xr.Dataset:
    """Lazy Dataset of volumes (sample, z, y, x) with `affine`, orientation, paths and labels.

    Raises DataError or NoInputError that names all files that cannot be used, unless `skip_bad`; DataError for volumes
    of several shapes without `size`; UsageError for settings that cannot be meant.
    """
    config = config or IngestConfig()
    source = check_exists(Path(path).expanduser())
    if config.size is not None and len(config.size) != 3:
        raise UsageError(f"size {config.size} of volumes must be three numbers, (z, y, x).")
    kept, volumes, bad = examined(
        entries(source, config, SUFFIXES), lambda entry: _looked_at(entry.file, config), config
    )
    grids = [target_grid(volume, config) for volume in volumes]
    shapes = sorted({grid.shape for grid in grids})
    if len(shapes) > 1:
        raise DataError(
            f"{source}: the volumes have {len(shapes)} shapes (z, y, x), such as {shapes[0]} and {shapes[-1]}; give "
            f"one with size=(z, y, x) (--size ZxYxX) and fit."
        )
    plain = {volume.dtype for volume in volumes}
    keeps = len(plain) == 1 and not any(grid.is_resampled for grid in grids)
    dtype = plain.pop() if keeps else np.dtype("f4")

    def read(i: int) -> np.ndarray:
        return on_grid(volume_values(kept[i].file), grids[i]).astype(dtype, copy=False)

    attrs: dict[str, Any] = {"long_name": "volume", "units": "1", ORIENTATION: "RAS+"}
    if any(grid.shape != volume.shape for grid, volume in zip(grids, volumes, strict=True)):
        attrs |= {"size": list(shapes[0]), "fit": config.fit}
    if any(grid.is_resampled for grid in grids):
        attrs |= {"resampled": "trilinear", "spacing": None if config.spacing is None else list(config.spacing)}
    ds = collection(read, shapes[0], dtype, AXES, kept, attrs=attrs, source=source, bad=bad)
    affines = np.stack([grid.affine(volume.affine) for grid, volume in zip(grids, volumes, strict=True)])
    about = {"long_name": "affine from voxel numbers (x, y, z, 1) to mm, RAS+", "units": "mm"}
    ds[AFFINE] = ((n.SAMPLE, "affine_row", "affine_column"), affines, about)
    codes = [volume.codes for volume in volumes]
    ds = ds.assign_coords({ORIENTATION: (n.SAMPLE, codes, {"long_name": "axis codes of the file"})})
    return _in_millimetres(ds, affines)


def _looked_at(file: Path, config: IngestConfig) -> Volume:
    """The header of a volume that can become a sample. Raises DataError, for NaN and infinite values too."""
    volume = volume_header(file, config)
    if volume.dtype.kind == "f" and config.nonfinite == "error" and not np.isfinite(volume_values(file)).all():
        raise DataError(f"{file} has NaN or infinite values; correct it, or set nonfinite='mask'.")
    return volume


def volume_header(file: Path, config: IngestConfig) -> Volume:
    """The header of a volume, once all of its bytes are known to be there. Raises DataError."""
    import nibabel as nib

    image = _opened(file)
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        words = f"{shape[3]} volumes" if len(shape) == 4 else f"an array with {len(shape)} axes"
        raise DataError(f"{file} holds {words} (its shape is {image.shape}); expected one volume, so save each alone.")
    stored = np.dtype(image.header.get_data_dtype())
    if stored.kind not in "uif" or min(shape) < 1:
        raise DataError(f"{file} holds {stored} of shape {shape}; expected numbers.")
    need, has = image.dataobj.offset + math.prod(shape) * stored.itemsize, file.stat().st_size
    is_packed = file.name.lower().endswith(".gz")
    if need > (has * MOST_DEFLATED if is_packed else has):
        raise DataError(f"{file} declares {need} bytes, more than its {has} bytes can hold; fetch it again.")
    if is_packed and need > max(PLENTY, MOST_PACKED * has):
        raise DataError(
            f"{file} declares {need} bytes, {need // has} times its own; unpack it first (gunzip) if that is meant."
        )
    if is_packed and (unpacked := _check_gzip(file)) < need:
        raise DataError(f"{file} declares {need} bytes, but holds {unpacked}; fetch it again.")
    axes = nib.io_orientation(image.affine) if np.isfinite(image.affine).all() else np.full((3, 2), np.nan)
    if not np.isfinite(axes).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-12:
        raise DataError(f"{file} has an affine that maps no volume to millimetres; correct its header.")
    ras = nib.as_closest_canonical(nib.Nifti1Image(np.empty(shape, "u1"), image.affine))
    codes = "".join(nib.aff2axcodes(image.affine))
    dtype = stored.newbyteorder("=") if _is_plain(image) else np.dtype("f4")
    volume = Volume(ras.shape[::-1], ras.affine, codes, dtype)
    if config.fit == "pad" and config.size is not None:
        grid = _resampled(volume, config)
        if any(a > b for a, b in zip(grid.shape, config.size, strict=True)):
            raise DataError(
                f"{file} has {grid.shape} voxels (z, y, x), more than size {config.size}; use fit='crop' or 'squash'."
            )
    return volume


def _opened(file: Path) -> Any:
    import nibabel as nib

    try:
        image = nib.load(file)
    except Exception as error:  # readers raise what they like for damaged files
        if file.name.lower().endswith(".gz"):
            _check_gzip(file)
        raise DataError(
            f"{file} cannot be read as NIfTI ({_reason(error)}); it is damaged, so fetch it again."
        ) from error
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)):
        raise DataError(f"{file} is {type(image).__name__}; expected NIfTI.")
    return image


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _is_plain(image: Any) -> bool:
    """Whether values are whole numbers without a scale."""
    proxy = image.dataobj
    return bool(proxy.slope == 1 and proxy.inter == 0 and image.get_data_dtype().kind in "ui")


def volume_values(file: Path) -> np.ndarray:
    """The values of a volume (z, y, x) in RAS+: as stored where the header has no scale, else float32."""
    import nibabel as nib

    image = _opened(file)
    proxy = image.dataobj
    is_plain = _is_plain(image)
    try:
        values = proxy.get_unscaled() if is_plain else np.asarray(proxy, dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{file} is cut off or damaged ({_reason(error)}); fetch it again.") from error
    values = np.asarray(values)
    values = values.astype(values.dtype.newbyteorder("=") if is_plain else np.float32, copy=False)
    flat = values.reshape(values.shape[:3])
    turned = nib.apply_orientation(flat, nib.io_orientation(image.affine))
    return np.ascontiguousarray(turned.T)


def _check_gzip(file: Path) -> int:
    """Bytes inside, read to the end, where gzip keeps its checksum. Raises DataError for a damaged file."""
    try:
        with gzip.open(file) as opened:
            return sum(len(part) for part in iter(lambda: opened.read(2**20), b""))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} is cut off or damaged ({_reason(error)}); fetch it again.") from error


def _resampled(volume: Volume, config: IngestConfig) -> Grid:
    """The grid of a volume at the spacing that is asked for, about the same middle."""
    old = np.array(volume.shape, float)
    if config.spacing is None:
        return Grid(volume.shape, np.ones(3), np.zeros(3))
    scale = np.array(config.spacing) / volume.spacing
    scale = np.where(np.abs(scale - 1) < 1e-4, 1.0, scale)
    new = np.maximum(1, np.rint(old / scale))
    return Grid(tuple(map(int, new)), scale, (old - 1) / 2 - scale * (new - 1) / 2)


def target_grid(volume: Volume, config: IngestConfig) -> Grid:
    """Where a volume is read at, as spacing, size and fit say."""
    grid = _resampled(volume, config)
    if config.size is None or config.size == grid.shape:
        return grid
    old, new = np.array(grid.shape, float), np.array(config.size, float)
    scale = old / new if config.fit == "squash" else np.ones(3)
    start = (old - 1) / 2 - scale * (new - 1) / 2
    start = start if config.fit == "squash" else np.ceil(start)  # whole voxels
    return Grid(config.size, grid.scale * scale, grid.scale * start + grid.offset)


def on_grid(values: np.ndarray, grid: Grid) -> np.ndarray:
    """A volume on its new grid, 0 outside the old one."""
    if not grid.is_resampled:
        return values if grid.shape == values.shape else _moved(values, grid)
    from scipy.ndimage import affine_transform, gaussian_filter

    smooth = values.astype(np.float32)
    sigma = np.maximum(0, (grid.scale - 1) / 2)
    if (sigma > 0).any():
        smooth = gaussian_filter(smooth, sigma, mode="nearest", truncate=4.0)
    near = affine_transform(smooth, grid.scale, grid.offset, output_shape=grid.shape, order=1, mode="nearest")
    for axis, (size, scale, offset) in enumerate(zip(grid.shape, grid.scale, grid.offset, strict=True)):
        where = scale * np.arange(size) + offset
        outside = (where < -0.5 - 1e-6) | (where > values.shape[axis] - 0.5 + 1e-6)  # beyond the edge of a voxel
        near[(slice(None),) * axis + (outside,)] = 0
    return np.asarray(near)


def _moved(values: np.ndarray, grid: Grid) -> np.ndarray:
    out = np.zeros(grid.shape, values.dtype)
    starts = [round(float(offset)) for offset in grid.offset]
    source, target = [], []
    for start, old, new in zip(starts, values.shape, grid.shape, strict=True):
        low, high = max(0, start), min(old, start + new)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    out[tuple(target)] = values[tuple(source)]
    return out


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
