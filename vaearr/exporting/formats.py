"""The registry of formats, and `export`: read once, write aside, rename in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaearr.config import ExportConfig, resolved, settings_as_keywords
from vaearr.errors import ExistsError, UsageError, did_you_mean, need
from vaearr.exporting.content import Content, gather
from vaearr.exporting.files import staged

Write = Callable[[Content, Path], None]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A registered format: the function that writes its files into a folder, and what they are."""

    name: str
    write: Write
    holds: str
    package: str | None = None


FORMATS: dict[str, Format] = {}
LARGEST_DPI = 2400


def fmt(name: str, *, holds: str, package: str | None = None) -> Callable[[Write], Write]:
    """Register the decorated function as the writer of a format. package: that it needs, of the extra of that name."""

    def register(write: Write) -> Write:
        FORMATS[name] = Format(name=name, write=write, holds=holds, package=package)
        return write

    return register


@settings_as_keywords(ExportConfig)
def export(
    store: str | Path,
    out: str | Path,
    format: str | None = None,
    *,
    config: ExportConfig | None = None,
    say: Callable[[str], None] | None = None,
    **settings: Any,
) -> Path:
    """Write a run of a store as plain files into the folder `out`; returns it.

    format: a name from FORMATS (`seed0` by default); settings replace single ones of `config`, see ExportConfig. Files
    are written aside and renamed in. Nothing is overwritten: a file that is there with the same content stays, one with
    other content is an ExistsError before anything is changed, so that two modes or runs never mix.
    say: is told which parts cannot be made, and why. Raises NoInputError for runs and variables that are not there,
    UsageError for settings that cannot be meant, ExistsError for a folder in a store, MissingExtraError where an
    optional package is lacking.
    """
    wanted = resolved(ExportConfig, config, {"format": format, **settings})
    if wanted.format not in FORMATS:
        raise UsageError(f"no format is named {wanted.format!r}.{did_you_mean(wanted.format, list(FORMATS))}")
    if package := FORMATS[wanted.format].package:
        need(package, f"vaearr[{wanted.format}]", f"the format {wanted.format}")
    if not 1 <= wanted.dpi <= LARGEST_DPI:
        raise UsageError(f"dpi is {wanted.dpi}; expected dots per inch from 1 to {LARGEST_DPI}, such as 300.")
    folder = Path(out).expanduser().absolute()
    _refuse_stores(folder)
    content = gather(store, wanted, say or (lambda text: None))
    with staged(folder) as aside:
        FORMATS[wanted.format].write(content, aside)
    return folder


def _refuse_stores(folder: Path) -> None:
    real = folder.resolve()
    store = next((parent for parent in (real, *real.parents) if (parent / "zarr.json").exists()), None)
    if store is not None:
        raise ExistsError(f"{store} is a zarr store; export into a folder outside it.")
