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
from vaearr.config.parts import of_packages, part
from vaearr.errors import DataError, UsageError
from vaearr.sources import digits, images, kikuchi_h5, nifti, ome, orientation_maps, vendor
from vaearr.sources.hdf5 import check_file, in_words
from vaearr.sources.orientation_maps import open_orientation_map

__all__ = ["SOURCES", "Source", "check_source", "find_source", "open_orientation_map", "open_source", "source_files"]
ZARR = "zarr"


@dataclass(frozen=True)
class Source:
    """A format: what it holds, how sure it is of a path (0 no, 1 the container, 2 the content), how it is opened.

    Where several formats are possible, a higher number wins, of two the first. files: all files that a path stands for.
    packages: those beyond the usual ones whose versions decide what is read.
    """

    holds: str
    sniff: Callable[[Path], int]
    open: Callable[..., xr.Dataset]
    files: Callable[[Path, IngestConfig], list[Path]] = lambda path, config: [path]
    packages: tuple[str, ...] = ()


def _sniff_zarr(path: Path) -> int:
    return 2 * any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def _open_zarr(path: Path, config: IngestConfig, *, scratch: Path | None = None) -> xr.Dataset:
    with in_words(path, "a zarr store"), warnings.catch_warnings(action="ignore"):  # of metadata not consolidated
        return schema.as_dataset(xr.open_zarr(path, chunks=None, use_zarr_fill_value_as_mask=False))


def _zarr_files(path: Path, config: IngestConfig) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def _vendor(name: str) -> Callable[[Path], int]:
    return lambda path: 2 * (path.is_file() and vendor.format_of(path) == name)


SOURCES: dict[str, Source] = {
    kikuchi_h5.ENGINE: Source(
        "HDF5 with patterns 'images' and step numbers 'coords'", kikuchi_h5.sniff, kikuchi_h5.open_kikuchi_h5
    ),
    images.POINTS: Source(
        "a folder with one image for each scan point",
        images.sniff_points,
        images.open_points,
        images.point_files,
        ("pillow",),
    ),
    images.COLLECTION: Source(
        "a folder or manifest of images, each a sample", images.sniff, images.open_images, images.files, ("pillow",)
    ),
    nifti.ENGINE: Source(
        "NIfTI volumes: a file, folder or manifest of them", nifti.sniff, nifti.open_nifti, nifti.files, ("nibabel",)
    ),
    ome.ENGINE: Source("an OME-Zarr image, a time series or one", ome.sniff, ome.open_ome, _zarr_files),
    ZARR: Source("a zarr store that xarray opens, with patterns", _sniff_zarr, _open_zarr, _zarr_files),
    digits.IDX: Source("IDX images with their labels beside them", digits.sniff_idx, digits.open_idx, digits.idx_files),
    digits.NPZ: Source("NPZ with images x and labels y", digits.sniff_npz, digits.open_npz),
    **{
        name: Source(holds, _vendor(name), vendor.open_vendor, packages=("kikuchipy",))
        for name, holds in vendor.FORMATS.items()
    },
    vendor.MASTER: Source("EMsoft master pattern (no scan)", _vendor(vendor.MASTER), vendor.open_vendor),
    orientation_maps.ENGINE: Source(
        ".ang or .ctf map (no patterns)", orientation_maps.sniff, orientation_maps.refuse_without_patterns
    ),
}
FOLDERS = (images.POINTS, images.COLLECTION, nifti.ENGINE, ome.ENGINE, ZARR)  # formats of which a path may be a folder
COLLECTION_SETTINGS = ("size", "manifest", "classes", "exclude", "spacing")  # given, a folder is no scan


def named_source(name: str) -> Source:
    """A format by its name; of another package a Source, or a function `path -> Dataset` meant by name alone."""
    found = part("source", name, SOURCES, called="format", trust=[name])
    if isinstance(found, Source):
        return found

    def opened(path: Path, config: IngestConfig, *, scratch: Path | None = None) -> xr.Dataset:
        made: xr.Dataset = found(path)
        return made

    return Source(" ".join((found.__doc__ or name).split()), lambda path: 0, opened)


def _possible(file: Path) -> list[str]:
    """Formats that a file or folder may have, those of other packages first."""
    return [*of_packages("source"), *(FOLDERS if file.is_dir() else SOURCES)]


def check_source(path: str | Path) -> Path:
    """The path of a readable file, or of a folder of images or volumes. Raises NoInputError or DataError."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return check_file(path)
    if not any(named_source(name).sniff(folder) for name in _possible(folder)):
        suffixes = ", ".join((*images.SUFFIXES, *nifti.SUFFIXES))
        raise DataError(
            f"{folder} is a folder; give a file, or a folder that holds images or volumes ({suffixes}) or a zarr store."
        )
    return folder


def find_source(path: str | Path, config: IngestConfig | None = None) -> str:
    """Name of the format that fits the path best; `config.format` decides, then settings that only one format has.

    Raises NoInputError or DataError where none fits, UsageError for a format that is not known or not one of folders.
    """
    config, file = config or IngestConfig(), Path(path).expanduser()
    if (name := config.format) is not None:
        named_source(name)
        if file.is_dir() and name in SOURCES and name not in FOLDERS:
            raise UsageError(f"{file} is a folder, which format={name!r} does not read; give a file.")
        if not file.is_dir():
            check_file(file)
        return name
    check_source(file)
    scores = {name: named_source(name).sniff(file) for name in _possible(file)}
    if file.is_dir() and config.filenames is not None:
        return images.POINTS
    if file.is_dir() and any(getattr(config, key) for key in COLLECTION_SETTINGS):
        scores[images.POINTS] = 0
    best = max(scores, key=lambda name: scores[name])
    if scores[best] == 0:
        with file.open("rb") as opened:
            start = opened.read(8)
        known = "; ".join(f"{name}: {source.holds}" for name, source in SOURCES.items())
        raise DataError(f"{file} is in no format that vaearr reads (it starts with {start!r}); expected {known}.")
    return best


def source_files(path: str | Path, config: IngestConfig | None = None) -> list[Path]:
    """All files that the Dataset of a path is made from."""
    settings = config or IngestConfig()
    return named_source(find_source(path, settings)).files(Path(path).expanduser(), settings)


def open_source(
    path: str | Path, config: IngestConfig | None = None, *, scratch: str | Path | None = None, **settings: Any
) -> xr.Dataset:
    """Open a file, or a folder of images, as a lazy, valid Dataset; `settings` are those of IngestConfig: `step=0.5`.

    scratch: folder for a temporary copy where the file's own order makes reading blocks slow. Raises NoInputError or
    DataError, in one line, for a file that does not hold what it should.
    """
    config = (config or IngestConfig()).replace(**settings)
    name = find_source(path, config)
    ds = named_source(name).open(Path(path).expanduser(), config, scratch=None if scratch is None else Path(scratch))
    ds = ds if name in SOURCES else schema.as_dataset(ds)
    ds.encoding.setdefault("source", str(path))
    schema.validate(ds)
    return ds
