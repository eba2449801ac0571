"""Files in, lazy labelled Datasets out. A format is one module and one `Source`; content decides, not the suffix."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import schema
from vaearr.config import IngestConfig
from vaearr.config.parts import of_packages, part
from vaearr.errors import DataError, UsageError, VaearrError
from vaearr.sources import digits, images, kikuchi_h5, nifti, orientation_maps, vendor
from vaearr.sources.hdf5 import check_file, in_words, open_hdf5
from vaearr.sources.orientation_maps import open_orientation_map

__all__ = ["SOURCES", "Detected", "Source", "detect", "find_source", "open_orientation_map", "open_source"]
ZARR, HDF5_SIGNATURE = "zarr", b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Source:
    """A format.

    Attributes
    ----------
    holds : str
        What a file of this format holds, in words.
    sniff : callable
        How sure the format is of a path: 0 no, 1 it knows the container, 2 and more it knows the content. The highest
        number wins, of equal numbers the first format. Formats in HDF5 get the opened file instead of the path.
    open : callable
        (path, config, scratch=…) -> Dataset.
    files : callable
        All files that a path stands for.
    packages : tuple of str
        Packages, besides the usual ones, whose versions decide what is read.
    """

    holds: str
    sniff: Callable[[Any], int]
    open: Callable[..., xr.Dataset]
    files: Callable[[Path, IngestConfig], list[Path]] = lambda path, config: [path]
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Detected:
    """A path with its format."""

    path: Path
    format: str
    source: Source

    def open(self, config: IngestConfig, scratch: Path | None = None) -> xr.Dataset:
        """The lazy, valid Dataset; see `open_source`."""
        ds = self.source.open(self.path, config, scratch=scratch)
        if self.format not in SOURCES:
            ds = schema.as_dataset(ds)
        ds.encoding.setdefault("source", str(self.path))
        schema.validate(ds)
        return ds

    def files(self, config: IngestConfig) -> list[Path]:
        """All files that the Dataset is made from."""
        return self.source.files(self.path, config)


def _sniff_zarr(path: Path) -> int:
    return 2 * any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def _open_zarr(path: Path, config: IngestConfig, *, scratch: Path | None = None) -> xr.Dataset:
    with in_words(path, "a zarr store"), warnings.catch_warnings(action="ignore"):  # of metadata not consolidated
        return schema.as_dataset(xr.open_zarr(path, chunks=None, use_zarr_fill_value_as_mask=False))


def _zarr_files(path: Path, config: IngestConfig) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def _vendor_source(name: str, holds: str) -> Source:
    if name in vendor.HDF5_FORMATS:
        return Source(holds, partial(vendor.sniff_hdf5, name), vendor.open_vendor, packages=("kikuchipy",))
    return Source(holds, partial(vendor.sniff, name), vendor.open_vendor, packages=("kikuchipy",))


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
    ZARR: Source("a zarr store that xarray opens, with patterns", _sniff_zarr, _open_zarr, _zarr_files),
    digits.IDX: Source("IDX images, their labels next to them", digits.sniff_idx, digits.open_idx, digits.idx_files),
    digits.NPZ: Source("NPZ with images x and labels y", digits.sniff_npz, digits.open_npz),
    digits.BUNDLED: Source(
        "the digits that come with scikit-learn, without a file",
        digits.sniff_bundled,
        digits.open_bundled,
        lambda path, config: [],
        ("scikit-learn",),
    ),
    **{name: _vendor_source(name, holds) for name, holds in vendor.FORMATS.items()},
    orientation_maps.ENGINE: Source(
        ".ang or .ctf map (no patterns)", orientation_maps.sniff, orientation_maps.refuse_without_patterns
    ),
}
FOLDERS = (images.POINTS, images.COLLECTION, nifti.ENGINE, ZARR)  # formats of which a path may be a folder
IN_HDF5 = (kikuchi_h5.ENGINE, *vendor.HDF5_FORMATS)
# settings that say that a folder is a collection, not a scan
COLLECTION_SETTINGS = ("size", "manifest", "label_map", "classes", "exclude", "n_samples", "spacing")


def named_source(name: str) -> Source:
    """A format by its name; of another package a Source, or a function `path -> Dataset` that is used by name only."""
    found = part("source", name, SOURCES, called="format", trust=[name])
    if isinstance(found, Source):
        return found

    def open_by_function(path: Path, config: IngestConfig, *, scratch: Path | None = None) -> xr.Dataset:
        ds: xr.Dataset = found(path)
        return ds

    holds = " ".join((found.__doc__ or name).split())
    return Source(holds, lambda path: 0, open_by_function)


def detect(path: str | Path, config: IngestConfig | None = None) -> Detected:
    """The format that fits a path best; `config.format` decides, then settings that only one format has.

    Raises NoInputError or DataError where none fits, UsageError for an unknown format or one not of folders.
    """
    config = config or IngestConfig()
    file = Path(path).expanduser()
    name = config.format or _best_format(file, config)
    source = named_source(name)
    if file.is_dir() and name in SOURCES and name not in FOLDERS:
        raise UsageError(f"{file} is a folder, which format={name!r} does not read; give a file.")
    if not file.is_dir() and name != digits.BUNDLED:
        check_file(file)
    return Detected(file, name, source)


def find_source(path: str | Path, config: IngestConfig | None = None) -> str:
    """Name of the format that fits a path best; see `detect`."""
    return detect(path, config).format


def _best_format(file: Path, config: IngestConfig) -> str:
    if str(file) == digits.BUNDLED:
        return digits.BUNDLED
    if not file.is_dir():
        check_file(file)
    scores = sniff_all(file)
    if file.is_dir():
        if not any(scores.values()):
            suffixes = ", ".join((*images.SUFFIXES, *nifti.SUFFIXES))
            raise DataError(
                f"{file} is a folder; give a file, or a folder that holds images or volumes ({suffixes}) or a zarr "
                "store."
            )
        if config.filenames is not None:
            return images.POINTS
        if any(getattr(config, key) for key in COLLECTION_SETTINGS):
            scores[images.POINTS] = 0
    best = max(scores, key=lambda name: scores[name])
    if scores[best] == 0:
        with file.open("rb") as opened:
            start = opened.read(len(HDF5_SIGNATURE))
        if start == HDF5_SIGNATURE:
            open_hdf5(file).close()  # raises the error that says what is wrong
        known = "; ".join(f"{name}: {source.holds}" for name, source in SOURCES.items())
        raise DataError(f"{file} is in no format that vaearr reads (it starts with {start!r}); expected {known}.")
    return best


def sniff_all(file: Path) -> dict[str, int]:
    """How sure each format is of a file or folder, those of other packages first."""
    scores = {name: named_source(name).sniff(file) for name in of_packages("source")}
    if not file.is_dir() and (in_hdf5 := _sniff_hdf5(file)):
        return scores | in_hdf5
    for name in FOLDERS if file.is_dir() else SOURCES:
        if name not in IN_HDF5:
            scores[name] = SOURCES[name].sniff(file)
    return scores


def _sniff_hdf5(file: Path) -> dict[str, int]:
    """The same for formats in HDF5; empty for a file that cannot be opened as HDF5."""
    scores = dict.fromkeys(IN_HDF5, 0)
    try:
        opened = open_hdf5(file)
    except VaearrError:
        return {}
    with opened:
        try:
            for name in IN_HDF5:
                scores[name] = SOURCES[name].sniff(opened)
        except Exception:  # of a damaged file, whatever it raises; opening it says what is wrong
            scores[kikuchi_h5.ENGINE] = 1
    return scores


def open_source(
    path: str | Path, config: IngestConfig | None = None, *, scratch: str | Path | None = None, **settings: Any
) -> xr.Dataset:
    """Open a file or folder as a lazy, labelled Dataset.

    Parameters
    ----------
    path : str or Path
        File, folder of images or volumes, zarr store, or `sklearn:digits`.
    config : IngestConfig, optional
        How the files are read.
    scratch : str or Path, optional
        Folder for a temporary copy where the order of the file makes reading blocks slow.
    **settings
        Single settings of IngestConfig, such as `step=0.5`.

    Returns
    -------
    xr.Dataset
        `patterns` with dask chunks, coordinates, and the maps of the file.

    Raises
    ------
    NoInputError, DataError
        If the file does not exist or does not hold what it should.
    """
    config = (config or IngestConfig()).replace(**settings)
    return detect(path, config).open(config, None if scratch is None else Path(scratch))
