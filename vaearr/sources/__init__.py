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
from vaearr.sources import kikuchi_h5
from vaearr.sources.hdf5 import check_file


@dataclass(frozen=True, kw_only=True)
class Source:
    """A format: what it holds, how sure it is of a file (0 no, 1 the container, 2 the content), how it is opened."""

    holds: str
    sniff: Callable[[Path], int]
    open: Callable[..., xr.Dataset]


SOURCES: dict[str, Source] = {
    kikuchi_h5.ENGINE: Source(
        holds="HDF5 with patterns 'images' and step numbers 'coords'",
        sniff=kikuchi_h5.sniff,
        open=kikuchi_h5.open_kikuchi_h5,
    ),
}


def find_source(path: str | Path) -> str:
    """Name of the format that fits the file best. Raises NoInputError or DataError where none does."""
    file = check_file(path)
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
    """Open a file as a lazy, valid Dataset; `settings` are those of IngestConfig, such as `step=0.5`.

    scratch: folder for a temporary copy where the file's own order makes reading blocks slow. Raises NoInputError or
    DataError, in one line, for a file that does not hold what it should.
    """
    config = (config or IngestConfig()).replace(**settings)
    source = SOURCES[find_source(path)]
    ds = source.open(Path(path).expanduser(), config, scratch=None if scratch is None else Path(scratch))
    schema.validate(ds)
    return ds
