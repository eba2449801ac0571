"""Files in, lazy labelled Datasets out. A format is one module and one `Source`; content decides, not the suffix."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import schema
from vaearr.config import IngestConfig
from vaearr.errors import DataError, NoInputError, UsageError, did_you_mean
from vaearr.sources import digits, image_folders, kikuchi_h5, nifti, orientation_maps, point_images, vendor
from vaearr.sources.hdf5 import check_file
from vaearr.sources.orientation_maps import open_orientation_map

__all__ = [
    "SOURCES",
    "ZARR",
    "Source",
    "check_source",
    "find_source",
    "open_orientation_map",
    "open_source",
    "source_files",
]


ZARR = "zarr"


def _itself(path: Path, config: IngestConfig) -> list[Path]:
    return [path]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A format: what it holds, how sure it is of a path (0 no, 1 the container, 2 the content), how it is opened.

    Where several formats are possible, a higher number wins. packages: those beyond the usual ones whose versions
    decide what is read. files: all files that a path stands for. is_folder: whether a path may be a folder.
    """

    holds: str
    sniff: Callable[[Path], int]
    open: Callable[..., xr.Dataset]
    packages: tuple[str, ...] = ()
    files: Callable[[Path, IngestConfig], list[Path]] = _itself
    is_folder: bool = False


def _sniff_zarr(path: Path) -> int:
    return 2 * any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def _open_zarr(path: Path, config: IngestConfig, *, scratch: Path | None = None) -> xr.Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that are not consolidated
            ds = xr.open_zarr(path, chunks=None, use_zarr_fill_value_as_mask=False)
    except Exception as error:  # zarr raises many kinds for damaged metadata
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{path} cannot be opened by xarray ({reason}); write it again.") from error
    return schema.as_dataset(ds)


def _zarr_files(path: Path, config: IngestConfig) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def _sniff_vendor(name: str) -> Callable[[Path], int]:
    return lambda path: 2 * (path.is_file() and vendor.format_of(path) == name)


SOURCES: dict[str, Source] = {
    kikuchi_h5.ENGINE: Source(
        holds="HDF5 with patterns 'images' and step numbers 'coords'",
        sniff=kikuchi_h5.sniff,
        open=kikuchi_h5.open_kikuchi_h5,
    ),
    point_images.ENGINE: Source(
        holds="a folder with one image for each scan point",
        sniff=point_images.sniff,
        open=point_images.open_point_images,
        packages=("pillow",),
        files=lambda path, config: point_images.image_files(path),
        is_folder=True,
    ),
    image_folders.ENGINE: Source(
        holds="a folder or manifest of images, each a sample",
        sniff=image_folders.sniff,
        open=image_folders.open_image_folder,
        packages=("pillow",),
        files=image_folders.files,
        is_folder=True,
    ),
    nifti.ENGINE: Source(
        holds="NIfTI volumes: a file, a folder or a manifest of them",
        sniff=nifti.sniff,
        open=nifti.open_nifti,
        packages=("nibabel",),
        files=nifti.files,
        is_folder=True,
    ),
    ZARR: Source(
        holds="a zarr store that xarray opens, with patterns",
        sniff=_sniff_zarr,
        open=_open_zarr,
        files=_zarr_files,
        is_folder=True,
    ),
    digits.IDX: Source(
        holds="IDX images with their labels beside them",
        sniff=digits.sniff_idx,
        open=digits.open_idx,
        files=digits.idx_files,
    ),
    digits.NPZ: Source(holds="NPZ with images x and labels y", sniff=digits.sniff_npz, open=digits.open_npz),
    **{
        name: Source(holds=holds, sniff=_sniff_vendor(name), open=vendor.open_vendor, packages=("kikuchipy",))
        for name, holds in vendor.FORMATS.items()
    },
    vendor.MASTER: Source(
        holds="EMsoft master pattern (no scan)",
        sniff=_sniff_vendor(vendor.MASTER),
        open=vendor.open_vendor,
    ),
    orientation_maps.ENGINE: Source(
        holds=".ang or .ctf map (no patterns)",
        sniff=orientation_maps.sniff,
        open=orientation_maps.refuse_without_patterns,
    ),
}


COLLECTION_SETTINGS = ("size", "manifest", "classes", "exclude", "spacing")  # given, a folder is no scan


def check_source(path: str | Path) -> Path:
    """The path of a readable file, or of a folder of images or volumes. Raises NoInputError or DataError."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return check_file(path)
    if not any(source.sniff(folder) for source in SOURCES.values() if source.is_folder):
        suffixes = ", ".join((*image_folders.SUFFIXES, *nifti.SUFFIXES))
        raise DataError(
            f"{folder} is a folder; give a file, or a folder that holds images or volumes ({suffixes}) or a zarr store."
        )
    return folder


def find_source(path: str | Path, config: IngestConfig | None = None) -> str:
    """Name of the format that fits the path best; `config.format` decides, then settings that only one format has.

    Raises NoInputError or DataError where none fits, UsageError for a format that is not known or not one of folders.
    """
    config = config or IngestConfig()
    if config.format is not None:
        return _chosen(Path(path).expanduser(), config.format)
    file = check_source(path)
    scores = {name: source.sniff(file) for name, source in SOURCES.items() if source.is_folder or file.is_file()}
    if file.is_dir() and config.filenames is not None:
        return point_images.ENGINE
    if file.is_dir() and any(getattr(config, key) for key in COLLECTION_SETTINGS):
        scores[point_images.ENGINE] = 0
    best = max(scores, key=lambda name: scores[name])
    if scores[best] == 0:
        with file.open("rb") as opened:
            start = opened.read(8)
        known = "; ".join(f"{name}: {source.holds}" for name, source in SOURCES.items())
        raise DataError(f"{file} is in no format that vaearr reads (it starts with {start!r}); expected {known}.")
    return best


def _chosen(path: Path, name: str) -> str:
    if name not in SOURCES:
        raise UsageError(f"there is no format {name!r}.{did_you_mean(name, list(SOURCES))}")
    if not path.exists():
        raise NoInputError(f"{path} does not exist; check the path.")
    if not path.is_dir():
        check_file(path)
    elif not SOURCES[name].is_folder:
        raise UsageError(f"{path} is a folder, which format={name!r} does not read; give a file.")
    return name


def source_files(path: str | Path, config: IngestConfig | None = None) -> list[Path]:
    """All files that the Dataset of a path is made from."""
    settings = config or IngestConfig()
    return SOURCES[find_source(path, settings)].files(Path(path).expanduser(), settings)


def open_source(
    path: str | Path, config: IngestConfig | None = None, *, scratch: str | Path | None = None, **settings: Any
) -> xr.Dataset:
    """Open a file, or a folder of images, as a lazy, valid Dataset; `settings` are those of IngestConfig: `step=0.5`.

    scratch: folder for a temporary copy where the file's own order makes reading blocks slow. Raises NoInputError or
    DataError, in one line, for a file that does not hold what it should.
    """
    config = (config or IngestConfig()).replace(**settings)
    source = SOURCES[find_source(path, config)]
    ds = source.open(Path(path).expanduser(), config, scratch=None if scratch is None else Path(scratch))
    schema.validate(ds)
    return ds
