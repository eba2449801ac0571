"""What sources of collections share: which files, their labels, those that cannot be read, and the lazy Dataset.

Files come from a folder, searched with its sub-folders, or from a manifest: a CSV with a column `path` (relative to the
folder, or to the manifest where that is the source) and one line for each sample. Labels come from the manifest's
column `label_column`, else from the name of the sub-folder that a file lies in; they become the integer variable
`label` with the codes 0, 1, … of the sorted names, -1 = unknown. Further columns of text, and the columns named in
`GROUPS`, become coordinates of `sample`; other columns of numbers become variables.

Every file is read once when the source is opened, so that all those that cannot be used are known, and named together,
before anything is written; samples are then read when they are asked for, and not kept.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError, NoInputError, UsageError, VaearrError, did_you_mean
from vaearr.sources.lazy import THREADS, lazy_array, one_by_one

LABEL, PATH, SKIPPED, UNKNOWN = "label", "path", "skipped", -1
GROUPS = frozenset({"subject", "person", "patient", "site", "scanner", "group", "id"})
SHOWN = 8
TABLES = (".csv", ".tsv")
Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Entry:
    """One sample to be: its file, its name in the collection, its label, what the manifest says of it besides."""

    file: Path
    name: str
    label: str | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


def is_manifest(path: Path) -> bool:
    """Whether a file is a CSV whose header names a column `path`."""
    if path.suffix.lower() not in TABLES or not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.readline(4096).decode("utf-8-sig", errors="replace")
    return PATH in [cell.strip(' "\r\n').lower() for cell in re.split("[,;\t]", header)]


def manifest_files(path: Path) -> list[Path]:
    """The files that a manifest names, none checked."""
    return [entry.file for entry in _from_manifest(path, path.parent, IngestConfig())]


def files_below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files with one of the suffixes (any case) in the folder and below it, hidden ones left out; not sorted."""
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(suffixes):
                yield Path(root, name)


def source_files(path: Path, config: IngestConfig, suffixes: tuple[str, ...]) -> list[Path]:
    """All files that a collection is made from: those of its samples, and its manifest."""
    found = [entry.file for entry in entries(path, config, suffixes)]
    table = [file for file in (config.manifest, path) if file is not None and file.is_file()]
    return [file for file in {*found, *table} if file.is_file()]


def entries(path: Path, config: IngestConfig, suffixes: tuple[str, ...]) -> list[Entry]:
    """The samples of a file, a folder or a manifest, sorted by name (a manifest: in its order), as the settings choose.

    Raises DataError where there are none or a manifest does not say what it should.
    """
    if config.manifest is not None and not path.is_dir():
        raise UsageError(f"manifest={str(config.manifest)!r} describes the files of a folder, but {path} is none.")
    if config.manifest is not None:
        found = _from_manifest(config.manifest.expanduser(), path, config)
    elif path.is_dir():
        found = [_in_folder(file, path) for file in files_below(path, suffixes)]
        found.sort(key=lambda entry: entry.name)
    elif is_manifest(path):
        found = _from_manifest(path, path.parent, config)
    else:
        found = [Entry(path, path.name)]
    if not found:
        raise DataError(f"{path} holds no files to read ({', '.join(suffixes)}); give the folder that does.")
    kept = [entry for entry in found if not any(fnmatch(entry.name, part) for part in config.exclude)]
    if config.classes:
        known = sorted({entry.label for entry in kept if entry.label is not None})
        for name in config.classes:
            if name not in known:
                raise UsageError(f"classes: no sample has the label {name!r}.{did_you_mean(name, known)}")
        kept = [entry for entry in kept if entry.label in config.classes]
    if not kept:
        raise DataError(f"{path}: exclude={list(config.exclude)} leaves none of {len(found)} files; give other parts.")
    return kept


def _in_folder(file: Path, folder: Path) -> Entry:
    name = file.relative_to(folder)
    return Entry(file, name.as_posix(), name.parent.name or None)


def _from_manifest(manifest: Path, folder: Path, config: IngestConfig) -> list[Entry]:
    from vaearr.sources.tables import read_csv

    frame = read_csv(manifest)
    frame.columns = [name.strip() if name.strip().lower() != PATH else PATH for name in map(str, frame.columns)]
    columns = list(frame.columns)
    if PATH not in columns:
        raise DataError(f"{manifest} has no column 'path' (it has {', '.join(columns)}); name the column of files so.")
    wanted = config.label_column
    if wanted != LABEL and wanted not in columns:
        raise UsageError(f"{manifest} has no column {wanted!r}.{did_you_mean(wanted, columns)}")
    paths = [_text(value) for value in frame[PATH]]
    if "" in paths:
        raise DataError(f"{manifest} line {frame.index[paths.index('')]}: the path is empty; give one file a line.")
    files = [os.path.abspath(folder / path) for path in paths]  # one file under two names is one file
    count = Counter(files)
    if twice := [path for path, file in zip(paths, files, strict=True) if count[file] > 1]:
        raise DataError(f"{manifest} names {twice[-1]!r} more than once; one line for each sample.")
    labels = [_text(value) or None for value in frame[wanted]] if wanted in columns else [None] * len(paths)
    others = [name for name in columns if name not in (PATH, wanted)]
    rows = frame[others].to_dict("records") if others else [{}] * len(paths)
    return [
        Entry(folder / path, path, label, {str(key): value for key, value in row.items()})
        for path, label, row in zip(paths, labels, rows, strict=True)
    ]


def _text(value: Any) -> str:
    """A cell as text; whole numbers without a point, empty cells as ''."""
    if isinstance(value, float):
        return "" if np.isnan(value) else (str(int(value)) if value.is_integer() else str(value))
    return str(value).strip()


def examined(
    found: Sequence[Entry], look: Callable[[Entry], Seen], config: IngestConfig
) -> tuple[list[Entry], list[Seen], list[str]]:
    """The samples that can be read, what `look` saw of each, and the others with the reason.

    Raises DataError that names those that cannot be read, unless `skip_bad` and some are left.
    """

    def tried(entry: Entry) -> Seen | str:
        if not _is_unicode(entry.name):
            return "its name is not UTF-8; rename it"
        if not entry.file.is_file():
            return "there is no such file"
        try:
            return look(entry)
        except (VaearrError, OSError) as error:
            return str(error).removeprefix(f"{entry.file} ").removeprefix(f"{entry.file}: ")

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        seen = list(pool.map(tried, found))
    bad = [f"{printable(entry.name)}: {what}" for entry, what in zip(found, seen, strict=True) if isinstance(what, str)]
    good = [(entry, what) for entry, what in zip(found, seen, strict=True) if not isinstance(what, str)]
    refuse_bad(bad, len(found), config, n_left=len(good))
    return [entry for entry, _ in good], [what for _, what in good], bad


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """A name as it is, or with escapes where it holds what no line of text can."""
    return name if name.isprintable() else ascii(name)[1:-1]


def refuse_bad(bad: Sequence[str], total: int, config: IngestConfig, *, n_left: int) -> None:
    """Raise DataError for files that cannot be used, unless the settings say to leave them out and some are left."""
    if bad and (not config.skip_bad or not n_left):
        listed = "; ".join(text.rstrip(".") for text in bad[:SHOWN])
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        then = "correct them, or leave them out with skip_bad=True (--skip-bad)" if n_left else "none is left"
        raise DataError(f"{len(bad)} of {total} files cannot be used: {listed}{more}. Of these: {then}.")


def collection(
    read: Callable[[int], np.ndarray],
    shape: tuple[int, ...],
    dtype: np.dtype,
    signal: Sequence[str],
    found: Sequence[Entry],
    *,
    attrs: Mapping[str, Any],
    source: Path,
    bad: Sequence[str] = (),
) -> xr.Dataset:
    """The lazy Dataset (sample, …) with paths, labels and what the manifest told of each sample.

    read: gives sample i, of `shape` over the dims `signal`.
    """
    dims = (n.SAMPLE, *signal)
    sizes = dict(zip(dims, (len(found), *shape), strict=True))
    about = {n.NAVIGATION_DIMS: [n.SAMPLE], n.SIGNAL_DIMS: list(signal), **attrs}
    patterns = lazy_array(one_by_one(read, shape, dtype), np.arange(len(found)), shape, dtype)
    variable = xr.Variable(dims, patterns, about)
    coords: dict[str, Any] = {n.SAMPLE: (n.SAMPLE, np.arange(sizes[n.SAMPLE]), {"long_name": "sample"})}
    coords[PATH] = (n.SAMPLE, [entry.name for entry in found], {"long_name": "file"})
    for dim in signal:
        coords[dim] = (dim, np.arange(sizes[dim]), {"long_name": dim, "units": "px"})
    data: dict[str, Any] = {n.PATTERNS: variable}
    if any(entry.label is not None for entry in found):
        data[LABEL] = label_variable([entry.label for entry in found])
    for name in dict.fromkeys(key for entry in found for key in entry.told):
        _add_column(name, [entry.told.get(name) for entry in found], coords, data)
    ds = xr.Dataset(data, coords)
    if bad:
        ds.attrs[SKIPPED] = list(bad)
    ds.encoding["source"] = str(source)
    return ds


def label_variable(labels: Sequence[str | None]) -> xr.Variable:
    """Names as codes 0, 1, … in sorted order (numbers by size), None as -1; CF flags say which is which."""
    given = sorted({label for label in labels if label is not None}, key=_by_size)
    words = [re.sub(r"\s+", "_", label) for label in given]
    if len(set(words)) < len(words):
        raise DataError(f"two labels differ only in spaces: {', '.join(map(repr, given))}; rename one of them.")
    codes = {label: code for code, label in enumerate(given)}
    values = np.array([UNKNOWN if label is None else codes[label] for label in labels], np.int32)
    flags = {"flag_values": [UNKNOWN, *codes.values()], "flag_meanings": " ".join(["unknown", *words])}
    return xr.Variable(n.SAMPLE, values, {"long_name": "label", **flags})


def _by_size(label: str) -> tuple[float, str]:
    try:
        return float(label), label
    except ValueError:
        return float("inf"), label


def _add_column(name: str, values: list[Any], coords: dict[str, Any], data: dict[str, Any]) -> None:
    """A column of a manifest: a coordinate where it is text or names groups, else a variable of numbers."""
    plain = re.sub(r"[^0-9A-Za-z_]+", "_", name).strip("_")
    plain = "manifest_label" if plain == LABEL else plain  # where another column was chosen for the labels
    if not n.is_valid_name(plain) or plain in n.RESERVED or plain in coords or plain in data:
        raise DataError(f"the manifest's column {name!r} cannot be kept under this name; rename it.")
    if plain.startswith(n.OF_LATER_RUNS):
        raise DataError(f"the manifest's column {name!r} begins like the variables of a run; rename it.")
    if plain.lower() not in GROUPS and all(isinstance(value, (int, float, np.number)) for value in values):
        data[plain] = (n.SAMPLE, np.array(values, np.float32), {"long_name": name, "units": "1"})
    else:
        coords[plain] = (n.SAMPLE, [_text(value) for value in values], {"long_name": name})


def check_exists(path: Path) -> Path:
    """The path of a file or folder that is there. Raises NoInputError."""
    if not path.exists():
        raise NoInputError(f"{path} does not exist; check the path.")
    return path
