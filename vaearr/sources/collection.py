"""Shared by sources of collections: the files, their labels, and the lazy Dataset.

Files come from a folder, searched with its sub-folders, or from a manifest: a CSV with a column
`path` (relative to the folder, or to the manifest where that is the source) and one line for each
sample. Labels come from the manifest's column `label_column`, else from the name of the sub-folder
that holds a file; they become the integer variable `label` with the codes 0, 1, … of the sorted
names, -1 = unknown. Further columns of text, and the columns named in `names.GROUPS`, become
coordinates of `sample`; other columns of numbers become variables.

Every file is read once when the source is opened, so that all unusable files are reported together
before anything is written; samples are read again when they are needed, and not kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError, NoInputError, UsageError, VaearrError, did_you_mean, listed
from vaearr.schema import flags
from vaearr.sources.lazy import THREADS, lazy_array, one_by_one
from vaearr.sources.tables import NO_VALUE, read_csv

LABEL, UNKNOWN = "label", -1
MAX_LISTED = 8  # files in an error
TABLES = (".csv", ".tsv")
Checked = TypeVar("Checked")


def files_below(folder: Path, suffixes: tuple[str, ...], *, deep: bool = True) -> Iterator[Path]:
    """Yield files with one of the suffixes (any case) in a folder and, if `deep`, below it.

    Hidden files are left out. Raises NoInputError for a folder that cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise NoInputError(
            f"{error.filename} cannot be listed ({error.strerror}); check its permissions."
        ) from error

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(suffixes):
                yield Path(root, name)


def some_files(path: Path, suffixes: tuple[str, ...], count: int = 1) -> list[Path]:
    """The first files of a folder, or the first file of a manifest, with one of the suffixes."""
    if path.is_dir():
        return list(islice(files_below(path, suffixes), count))
    if not _is_manifest(path):
        return []
    first = _from_manifest(path, path.parent, IngestConfig()).index[0]
    return [first] if first.name.lower().endswith(suffixes) else []


def _is_manifest(path: Path) -> bool:
    """Whether a file is a CSV whose header names a column `path`."""
    if path.suffix.lower() not in TABLES or not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.readline(4096).decode("utf-8-sig", errors="replace")
    return n.PATH in [cell.strip(' "\r\n').lower() for cell in re.split("[,;\t]", header)]


def source_files(path: Path, config: IngestConfig, suffixes: tuple[str, ...]) -> list[Path]:
    """All files that a collection is made from: those of its samples, and its manifest."""
    files = {*samples_of(path, config, suffixes).index, path, config.manifest or path}
    return [file for file in files if file.is_file()]


def samples_of(path: Path, config: IngestConfig, suffixes: tuple[str, ...]) -> pd.DataFrame:
    """Table of the samples of a file, a folder or a manifest, as the settings choose.

    Sorted by name, or in the order of the manifest, and indexed by file: columns `path`, the name
    in the collection, `label`, "" for none, and further columns of the manifest, all text. Raises
    NoInputError for a path that does not exist, DataError where there are no samples or the
    manifest is invalid.
    """
    if not path.exists():
        raise NoInputError(f"{path} does not exist; check the path.")
    if config.manifest is not None and not path.is_dir():
        raise UsageError(
            f"manifest={str(config.manifest)!r} describes the files of a folder, but {path} is "
            "none."
        )
    folder = path if path.is_dir() else path.parent
    if config.manifest is not None or _is_manifest(path):
        samples = _from_manifest(config.manifest or path, folder, config)
    else:
        files = list(files_below(path, suffixes)) if path.is_dir() else [path]
        names = [file.relative_to(folder).as_posix() for file in files]
        labels = [file.parent.name if file.parent != folder else "" for file in files]
        samples = pd.DataFrame({n.PATH: names, LABEL: labels}, index=files).sort_values(n.PATH)
    return choose(samples, config, f"{path} ({', '.join(suffixes)})")


def choose(samples: pd.DataFrame, config: IngestConfig, where: str) -> pd.DataFrame:
    """Rename labels, keep some classes, exclude paths, and choose a random subset of samples.

    Raises UsageError for labels that no sample has, and for a subset that is too large; DataError
    where no sample is left.
    """
    labels = set(samples[LABEL]) - {""}
    _refuse_unknown_label("label_map", config.label_map, labels)
    samples = samples.assign(**{LABEL: samples[LABEL].replace(config.label_map)})
    kept = samples
    for pattern in config.exclude:
        kept = kept[[not fnmatch(path, pattern) for path in kept[n.PATH]]]
    _refuse_unknown_label("classes", config.classes, set(kept[LABEL]) - {""})
    if config.classes:
        kept = kept[kept[LABEL].isin(config.classes)]
    if kept.empty:
        raise DataError(
            f"{where} holds {len(samples)} samples, of which exclude={list(config.exclude)} leaves "
            "none; give a folder that holds some, or exclude fewer."
        )
    if config.n_samples is None:
        return kept
    if config.n_samples > len(kept):
        raise UsageError(
            f"n_samples is {config.n_samples}, but {where} has {len(kept)} such samples; ask for "
            "fewer."
        )
    chosen = np.random.default_rng(config.subset_seed).permutation(len(kept))[: config.n_samples]
    return kept.iloc[np.sort(chosen)]


def _refuse_unknown_label(setting: str, wanted: Iterable[str], labels: set[str]) -> None:
    for label in wanted:
        if label not in labels:
            raise UsageError(
                f"{setting}: no sample has the label "
                f"{label!r}.{did_you_mean(label, sorted(labels))}"
            )


def _from_manifest(manifest: Path, folder: Path, config: IngestConfig) -> pd.DataFrame:
    """The table of a manifest, indexed by file, see `samples_of`."""
    manifest = manifest.expanduser()
    frame = read_csv(manifest)
    frame.columns = [n.PATH if name.lower() == n.PATH else name for name in frame.columns]
    columns = list(frame.columns)
    label_column = config.label_column
    if columns.count(n.PATH) != 1:
        raise DataError(
            f"{manifest} has columns {listed(columns)}; name the one of files, and no other, "
            "'path'."
        )
    if label_column != LABEL and label_column not in columns:
        hint = did_you_mean(label_column, columns)
        raise UsageError(f"{manifest} has no column {label_column!r}.{hint}")
    paths = frame[n.PATH]
    is_empty = paths == ""
    if is_empty.any():
        raise DataError(
            f"{manifest} line {is_empty.idxmax()}: the path is empty; give one file a line."
        )
    is_repeated = paths.map(lambda path: os.path.abspath(folder / path)).duplicated()
    if is_repeated.any():
        raise DataError(
            f"{manifest} names {paths[is_repeated].iloc[0]!r} more than once; one line for each "
            "sample."
        )
    if label_column != LABEL:
        frame = frame.rename(columns={LABEL: f"manifest_{LABEL}", label_column: LABEL})
    frame.index = pd.Index([folder / path for path in paths])
    return frame if LABEL in frame else frame.assign(**{LABEL: ""})


def examined(samples: pd.DataFrame, check: Callable[[Path], Checked]) -> list[Checked]:
    """What `check` returns for each sample's file.

    Raises DataError that names all files that cannot be read.
    """
    problems = []

    def checked(file: Path, name: str) -> Checked | None:
        try:
            if not name.isprintable():
                raise DataError("its name cannot be printed; rename it")
            if not file.exists():
                raise DataError("the file does not exist")
            if not file.is_file():
                raise DataError("it is not an ordinary file")
            return check(file)
        except (VaearrError, OSError) as error:
            problem = str(error).removeprefix(str(file)).lstrip(": ").rstrip(".")
            problems.append(f"{ascii(name)[1:-1]}: {problem}")
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(checked, samples.index, samples[n.PATH]))
    if problems:
        listed_problems = "; ".join(sorted(problems)[:MAX_LISTED])
        if len(problems) > MAX_LISTED:
            listed_problems += f"; and {len(problems) - MAX_LISTED} more"
        raise DataError(
            f"{len(problems)} of {len(samples)} files cannot be used: {listed_problems}. Correct "
            "them, or leave them out with exclude=['NAME', …] (--exclude)."
        )
    return [result for result in results if result is not None]


def refuse_nonfinite(file: Path, values: np.ndarray) -> None:
    """Raise DataError where values are NaN or infinite."""
    if not np.isfinite(values).all():
        raise DataError(f"{file} has NaN or infinite values; correct it, or set nonfinite='mask'.")


def collection(
    patterns: Any, signal: Sequence[str], samples: pd.DataFrame, attrs: Mapping[str, Any]
) -> xr.Dataset:
    """The lazy Dataset (sample, …) with paths, labels and further columns of the manifest.

    patterns: a dask array (sample, *signal). samples: see `samples_of`.
    """
    dims = {n.NAVIGATION_DIMS: [n.SAMPLE], n.SIGNAL_DIMS: list(signal)}
    data: dict[str, Any] = {n.PATTERNS: ((n.SAMPLE, *signal), patterns, {**dims, **attrs})}
    coords: dict[str, Any] = {
        n.SAMPLE: (n.SAMPLE, np.arange(len(samples)), {"long_name": "sample"}),
        n.PATH: (n.SAMPLE, samples[n.PATH].tolist(), {"long_name": "file"}),
    }
    for dim, size in zip(signal, patterns.shape[1:], strict=True):
        coords[dim] = (dim, np.arange(size), {"long_name": dim, "units": "px"})
    if (samples[LABEL] != "").any():
        data[LABEL] = _label_variable(samples[LABEL])
    for name in samples.columns.drop([n.PATH, LABEL]):
        _add_column(name, samples[name], coords, data)
    return xr.Dataset(data, coords)


def samples(
    read: Callable[[int], np.ndarray], count: int, shape: tuple[int, ...], dtype: np.dtype
) -> Any:
    """A dask array (sample, *shape) of what `read` gives for each sample."""
    return lazy_array(one_by_one(read), np.arange(count), shape, dtype)


def _label_variable(labels: pd.Series) -> xr.Variable:
    """Codes 0, 1, … of the sorted names (numbers by size) with CF flags; -1 for ""."""
    names = sorted(set(labels) - {""}, key=lambda label: (_number(label), label))
    codes = pd.Index(names).get_indexer(labels).astype(np.int32)
    meanings = flags(codes, dict(enumerate(names)), {UNKNOWN: "unknown"}, LABEL)
    return xr.Variable(n.SAMPLE, codes, {"long_name": LABEL, **meanings})


def _number(label: str) -> float:
    return float(label) if re.fullmatch(r"[-+]?\d+(\.\d*)?", label) else np.inf


def _add_column(name: str, cells: pd.Series, coords: dict[str, Any], data: dict[str, Any]) -> None:
    """Add a column of a manifest: a variable of numbers, or a coordinate of text or groups.

    Numbers with leading zeros, such as 0012, are names, and stay text.
    """
    plain = re.sub(r"[^0-9A-Za-z_]+", "_", name).strip("_")
    is_reserved = plain in n.RESERVED or plain.startswith(n.PREFIXES_OF_RUNS)
    if is_reserved or plain in coords or plain in data or not n.is_valid_name(plain):
        raise DataError(
            f"the manifest's column {name!r} has a name that is taken, or no name; rename it."
        )
    is_empty = cells.str.lower().isin(NO_VALUE)
    values = pd.to_numeric(cells.mask(is_empty), errors="coerce")
    has_text = (values.isna() & ~is_empty).any()
    if plain.lower() in n.GROUPS or has_text or cells.str.match(r"0\d").any():
        coords[plain] = (n.SAMPLE, cells.tolist(), {"long_name": name})
    else:
        numbers = values.to_numpy(np.float32, na_value=np.nan)
        data[plain] = (n.SAMPLE, numbers, {"long_name": name, "units": "1"})
