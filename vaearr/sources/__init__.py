"""Files in, lazy labelled Datasets out. A format is one module and one `Source`; content decides, not the suffix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import schema
from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.sources import kikuchi_h5, orientation_maps, point_images, vendor
from vaearr.sources.hdf5 import check_file
from vaearr.sources.orientation_maps import open_orientation_map

__all__ = ["SOURCES", "Source", "check_source", "find_source", "open_orientation_map", "open_source"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A format: what it holds, how sure it is of a path (0 no, 1 the container, 2 the content), how it is opened.

    packages: those beyond the usual ones whose versions decide what is read.
    """

    holds: str
    sniff: Callable[[Path], int]
    open: Callable[..., xr.Dataset]
    packages: tuple[str, ...] = ()


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
    ),
    **{
        name: Source(holds=holds, sniff=_sniff_vendor(name), open=vendor.open_vendor, packages=("kikuchipy",))
        for name, holds in vendor.FORMATS.items()
    },
    vendor.MASTER: Source(
        holds="EMsoft master pattern (no scan)",
        sniff=_sniff_vendor(vendor.MASTER),
        open=vendor.refuse_master_pattern,
    ),
    orientation_maps.ENGINE: Source(
        holds=".ang or .ctf map (no patterns)",
        sniff=orientation_maps.sniff,
        open=orientation_maps.refuse_without_patterns,
    ),
}


def check_source(path: str | Path) -> Path:
    """The path of a readable file, or of a folder of images. Raises NoInputError or DataError."""
    folder = Path(path).expanduser()
    return folder if folder.is_dir() and point_images.sniff(folder) else check_file(path)


def find_source(path: str | Path) -> str:
    """Name of the format that fits the path best. Raises NoInputError or DataError where none does."""
    file = check_source(path)
    if file.is_dir():
        return point_images.ENGINE
    scores = {name: source.sniff(file) for name, source in SOURCES.items()}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] == 0:
        with file.open("rb") as opened:
            start = opened.read(8)
        known = "; ".join(f"{name}: {source.holds}" for name, source in SOURCES.items())
        raise DataError(f"{file} is in no format that vaearr reads (it starts with {start!r}); expected {known}.")
    return best


def open_source(
    path: str | Path, config: IngestConfig | None = None, *, scratch: str | Path | None = None, **settings: Any
) -> xr.Dataset:
    """Open a file, or a folder of images, as a lazy, valid Dataset; `settings` are those of IngestConfig: `step=0.5`.

    scratch: folder for a temporary copy where the file's own order makes reading blocks slow. Raises NoInputError or
    DataError, in one line, for a file that does not hold what it should.
    """
    config = (config or IngestConfig()).replace(**settings)
    source = SOURCES[find_source(path)]
    ds = source.open(Path(path).expanduser(), config, scratch=None if scratch is None else Path(scratch))
    schema.validate(ds)
    return ds
