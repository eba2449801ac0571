"""Open files as lazy labelled Datasets. A format is one `Source`, detected by content."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import h5py
import xarray as xr

from vaearr import schema
from vaearr.config import IngestConfig, refuse_unknown, resolved
from vaearr.config.keywords import IngestSettings
from vaearr.config.parts import of_packages, part
from vaearr.errors import DataError, UsageError
from vaearr.sources import digits, images, kikuchi_h5, nifti, orientation_maps, vendor
from vaearr.sources.hdf5 import check_file, in_words, open_hdf5

__all__ = ["SOURCES", "Detected", "Source", "detect", "open_source"]
ZARR = "zarr"


@dataclass(frozen=True)
class Source:
    """A format.

    Attributes
    ----------
    holds : str
        Description of a file of this format.
    open : callable
        (path, config) -> Dataset.
    sniff : callable
        Whether a path is of this format, by its content. Without it the format must be named.
    files : callable
        All files that belong to a path.
    packages : tuple of str
        Further packages whose versions decide what is read.
    """

    holds: str
    open: Callable[[Path, IngestConfig], xr.Dataset]
    sniff: Callable[[Path], bool] = lambda path: False
    files: Callable[[Path, IngestConfig], list[Path]] = lambda path, config: [path]
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Detected:
    """A path with its format."""

    path: Path
    format: str
    source: Source

    def open(self, config: IngestConfig) -> xr.Dataset:
        """The lazy, valid Dataset; see `open_source`."""
        ds = self.source.open(self.path, config)
        if self.format not in SOURCES:
            ds = schema.as_dataset(ds)
        ds.encoding.setdefault("source", str(self.path))
        schema.validate(ds)
        return ds

    def files(self, config: IngestConfig) -> list[Path]:
        """All files that the Dataset is made from."""
        return self.source.files(self.path, config)


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def _open_zarr(path: Path, config: IngestConfig) -> xr.Dataset:
    with in_words(path, "a zarr store"), warnings.catch_warnings(action="ignore"):
        return schema.as_dataset(xr.open_zarr(path, chunks=None, use_zarr_fill_value_as_mask=False))


def _zarr_files(path: Path, config: IngestConfig) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


KIKUCHIPY = ("kikuchipy",)
SOURCES: dict[str, Source] = {  # of several that match, the first is used
    kikuchi_h5.ENGINE: Source(
        "HDF5 with patterns 'images' and step numbers 'coords'", kikuchi_h5.open_kikuchi_h5
    ),
    **{
        name: Source(holds, vendor.open_vendor_hdf5, packages=KIKUCHIPY)
        for name, holds in vendor.HDF5_FORMATS.items()
    },
    "edax-up": Source(
        "EDAX UP1 or UP2 patterns", vendor.open_binary, vendor.is_up, packages=KIKUCHIPY
    ),
    "nordif": Source(
        "NORDIF patterns (.dat) with Setting.txt next to them",
        vendor.open_binary,
        vendor.is_nordif,
        packages=KIKUCHIPY,
    ),
    nifti.ENGINE: Source(
        "NIfTI volumes: a file, folder or manifest of them",
        nifti.open_nifti,
        nifti.sniff,
        nifti.files,
        ("nibabel",),
    ),
    ZARR: Source(
        "a zarr store that xarray opens, with patterns", _open_zarr, _is_zarr, _zarr_files
    ),
    images.POINTS: Source(
        "a folder with one image for each scan point",
        images.open_points,
        images.sniff_points,
        images.point_files,
        ("pillow",),
    ),
    images.COLLECTION: Source(
        "a folder or manifest of images, each a sample",
        images.open_images,
        images.sniff,
        images.files,
        ("pillow",),
    ),
    digits.IDX: Source(
        "IDX images, their labels next to them", digits.open_idx, digits.sniff_idx, digits.idx_files
    ),
    digits.NPZ: Source("NPZ with images x and labels y", digits.open_npz, digits.sniff_npz),
    digits.BUNDLED: Source(
        "the digits that come with scikit-learn, without a file",
        digits.open_bundled,
        files=lambda path, config: [],
        packages=("scikit-learn",),
    ),
    orientation_maps.ENGINE: Source(
        ".ang or .ctf map (no patterns)",
        orientation_maps.refuse_without_patterns,
        orientation_maps.sniff,
    ),
}
FOLDERS = (nifti.ENGINE, ZARR, images.POINTS, images.COLLECTION)  # formats that read folders
# settings of a collection, not of a scan
COLLECTION_SETTINGS = (
    "size",
    "manifest",
    "label_map",
    "classes",
    "exclude",
    "n_samples",
    "spacing",
)


def named_source(name: str) -> Source:
    """A format by its name; plug-ins are a Source, or a function `path -> Dataset`."""
    source = part("source", name, SOURCES, called="format", trust=[name])
    if isinstance(source, Source):
        return source
    return Source(" ".join((source.__doc__ or name).split()), lambda path, config: source(path))


def detect(path: str | Path, config: IngestConfig | None = None) -> Detected:
    """Detect the format of a path, unless `config.format` or a setting of one format decides.

    Raises NoInputError or DataError where no format matches, UsageError for an unknown format or
    one that does not read folders.
    """
    config = config or IngestConfig()
    file = Path(path).expanduser()
    if not file.is_dir() and digits.BUNDLED not in (str(file), config.format):
        check_file(file)
    name = config.format or _format_of(file, config)
    source = named_source(name)
    if file.is_dir() and name in SOURCES and name not in FOLDERS:
        raise UsageError(f"{file} is a folder, which format={name!r} does not read; give a file.")
    return Detected(file, name, source)


def _format_of(file: Path, config: IngestConfig) -> str:
    if str(file) == digits.BUNDLED:
        return digits.BUNDLED
    if file.is_dir() and config.filenames is not None:
        return images.POINTS
    name = _sniffed(file)
    if name == images.POINTS and any(getattr(config, key) for key in COLLECTION_SETTINGS):
        return images.COLLECTION
    return name


def _sniffed(file: Path) -> str:
    """The format of a file or folder by its content. Raises DataError where none matches."""
    for name in of_packages("source"):
        if named_source(name).sniff(file):
            return name
    if file.is_file() and h5py.is_hdf5(file):
        with in_words(file, "HDF5"), open_hdf5(file) as opened:
            return vendor.hdf5_format(opened) or kikuchi_h5.ENGINE
    for name in FOLDERS if file.is_dir() else SOURCES:
        if SOURCES[name].sniff(file):
            return name
    if file.is_dir():
        suffixes = ", ".join((*images.SUFFIXES, *nifti.SUFFIXES))
        raise DataError(
            f"{file} is a folder; give a file, or a folder that holds images or volumes "
            f"({suffixes}) or a zarr store."
        )
    with file.open("rb") as opened:
        start = opened.read(8)
    formats = "; ".join(f"{name}: {source.holds}" for name, source in SOURCES.items())
    raise DataError(
        f"{file} is in no format that vaearr reads (it starts with {start!r}); expected {formats}."
    )


def open_source(
    path: str | Path, config: IngestConfig | None = None, **settings: Unpack[IngestSettings]
) -> xr.Dataset:
    """Open a file or folder as a lazy, labelled Dataset.

    Parameters
    ----------
    path : str or Path
        File, folder of images or volumes, zarr store, or `sklearn:digits`.
    config : IngestConfig, optional
        How the files are read.
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

    Examples
    --------
    >>> scan = va.open_source("scan.h5")  # doctest: +SKIP
    >>> scan.patterns.dims  # doctest: +SKIP
    ('y', 'x', 'dy', 'dx')
    """
    refuse_unknown(open_source, IngestSettings, settings)
    chosen = resolved(IngestConfig, config, settings)
    return detect(path, chosen).open(chosen)
