"""What sources of collections share: which files, their labels, those that cannot be read, and the
lazy Dataset.

Files come from a folder, searched with its sub-folders, or from a manifest: a CSV with a column
`path` (relative to the folder, or to the manifest where that is the source) and one line for each
sample. Labels come from the manifest's column `label_column`, else from the name of the sub-folder
that a file lies in; they become the integer variable `label` with the codes 0, 1, … of the sorted
names, -1 = unknown. Further columns of text, and the columns named in `names.GROUPS`, become
coordinates of `sample`; other columns of numbers become variables.

Every file is read once when the source is opened, so that all those that cannot be used are known,
and named together, before anything is written; samples are then read when they are asked for, and
not kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
SHOWN = 8
TABLES = (".csv", ".tsv")
Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of a sample lie in its file: along each spatial dim, pixel of the file =
    scale * pixel + offset.

    file: what was read. shape: spatial shape of the file, (y, x) of an image as one sees it, (z, y,
    x) in RAS+ of a volume. size: that of the sample. affine: of a volume, from the file's voxel
    numbers (x, y, z, 1) in RAS+ to mm.
    """

    file: Path
    shape: tuple[int, ...]
    size: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    affine: np.ndarray | None = None

    @property
    def is_resampled(self) -> bool:
        """Whether values of the sample lie between pixels of the file."""
        return set(self.scale) != {1.0}

    @property
    def is_same(self) -> bool:
        """Whether the pixels of the sample are those of the file."""
        return self.shape == self.size and not self.is_resampled and set(self.offset) == {0.0}


def files_below(folder: Path, suffixes: tuple[str, ...], *, deep: bool = True) -> Iterator[Path]:
    """Files with one of the suffixes (any case) in the folder and, if `deep`, below it; hidden ones
    left out; unsorted.

    Raises NoInputError for a folder that cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise NoInputError(
            f"{error.filename} cannot be listed ({error.strerror}); check its permissions."
        ) from error

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
        yield from (
            Path(root, name) for name in files if name[0] != "." and name.lower().endswith(suffixes)
        )


def some_files(path: Path, suffixes: tuple[str, ...], count: int = 1) -> list[Path]:
    """The first files with one of the suffixes in a folder, or the first file of a manifest if it
    has one.
    """
    if path.is_dir():
        return list(islice(files_below(path, suffixes), count))
    found = (
        _from_manifest(path, path.parent, IngestConfig()) if _is_manifest(path) else pd.DataFrame()
    )
    return [file for file in found.index[:1] if file.name.lower().endswith(suffixes)]


def _is_manifest(path: Path) -> bool:
    """Whether a file is a CSV whose header names a column `path`."""
    if path.suffix.lower() not in TABLES or not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.readline(4096).decode("utf-8-sig", errors="replace")
    return n.PATH in [cell.strip(' "\r\n').lower() for cell in re.split("[,;\t]", header)]


def source_files(path: Path, config: IngestConfig, suffixes: tuple[str, ...]) -> list[Path]:
    """All files that a collection is made from: those of its samples, and its manifest."""
    found = {*samples_of(path, config, suffixes).index, path, config.manifest or path}
    return [file for file in found if file.is_file()]


def samples_of(path: Path, config: IngestConfig, suffixes: tuple[str, ...]) -> pd.DataFrame:
    """The samples of a file, a folder or a manifest, sorted by name (a manifest: in its order), as
    the settings choose.

    Indexed by file: columns `path`, the name in the collection, `label`, "" where there is none,
    and what the manifest says besides, all text. Raises NoInputError for a path that is not there,
    DataError where there are none or a manifest does not say what it should.
    """
    if not path.exists():
        raise NoInputError(f"{path} does not exist; check the path.")
    if config.manifest is not None and not path.is_dir():
        raise UsageError(
            f"manifest={str(config.manifest)!r} describes the files of a folder, but {path} is none."
        )
    if config.manifest is not None or _is_manifest(path):
        found = _from_manifest(
            config.manifest or path, path if path.is_dir() else path.parent, config
        )
    else:
        files = list(files_below(path, suffixes)) if path.is_dir() else [path]
        names = [
            file.relative_to(path if path.is_dir() else path.parent).as_posix() for file in files
        ]
        labels = [
            file.parent.name if "/" in name else "" for file, name in zip(files, names, strict=True)
        ]
        found = pd.DataFrame({n.PATH: names, LABEL: labels}, index=files).sort_values(n.PATH)
    return choose(found, config, f"{path} ({', '.join(suffixes)})")


def choose(samples: pd.DataFrame, config: IngestConfig, where: str) -> pd.DataFrame:
    """Samples with their labels renamed, of some classes, without excluded paths, and of these a
    random subset.

    Raises UsageError for labels that no sample has, and for more samples than there are; DataError
    where none is left.
    """
    labels = set(samples[LABEL]) - {""}
    _refuse_unknown_label("label_map", config.label_map, labels)
    samples = samples.assign(**{LABEL: samples[LABEL].replace(config.label_map)})
    is_excluded = [
        any(fnmatch(path, pattern) for pattern in config.exclude) for path in samples[n.PATH]
    ]
    kept = samples[~np.array(is_excluded, bool)]
    _refuse_unknown_label("classes", config.classes, set(kept[LABEL]) - {""})
    if config.classes:
        kept = kept[kept[LABEL].isin(config.classes)]
    if kept.empty:
        raise DataError(
            f"{where} holds {len(samples)} samples, of which exclude={list(config.exclude)} leaves none; give a folder "
            "that holds some, or exclude fewer."
        )
    if config.n_samples is None:
        return kept
    if config.n_samples > len(kept):
        raise UsageError(
            f"n_samples is {config.n_samples}, but {where} has {len(kept)} such samples; ask for fewer."
        )
    chosen = np.random.default_rng(config.subset_seed).permutation(len(kept))[: config.n_samples]
    return kept.iloc[np.sort(chosen)]


def _refuse_unknown_label(setting: str, wanted: Iterable[str], labels: set[str]) -> None:
    for label in wanted:
        if label not in labels:
            raise UsageError(
                f"{setting}: no sample has the label {label!r}.{did_you_mean(label, sorted(labels))}"
            )


def _from_manifest(manifest: Path, folder: Path, config: IngestConfig) -> pd.DataFrame:
    manifest = manifest.expanduser()
    frame = read_csv(manifest)
    frame.columns = [n.PATH if name.lower() == n.PATH else name for name in frame.columns]
    columns, wanted = list(frame.columns), config.label_column
    if columns.count(n.PATH) != 1:
        raise DataError(
            f"{manifest} has columns {listed(columns)}; name the one of files, and no other, 'path'."
        )
    if wanted != LABEL and wanted not in columns:
        raise UsageError(f"{manifest} has no column {wanted!r}.{did_you_mean(wanted, columns)}")
    if (frame[n.PATH] == "").any():
        raise DataError(
            f"{manifest} line {(frame[n.PATH] == '').idxmax()}: the path is empty; give one file a line."
        )
    twice = (
        frame[n.PATH].map(lambda path: os.path.abspath(folder / path)).duplicated()
    )  # one file under two names
    if twice.any():
        raise DataError(
            f"{manifest} names {frame[n.PATH][twice].iloc[0]!r} more than once; one line for each sample."
        )
    if wanted != LABEL:
        frame = frame.rename(columns={LABEL: f"manifest_{LABEL}", wanted: LABEL})
    frame.index = pd.Index([folder / path for path in frame[n.PATH]])
    return frame if LABEL in frame else frame.assign(**{LABEL: ""})


def examined(found: pd.DataFrame, look: Callable[[Path], Seen]) -> list[Seen]:
    """What `look` saw of each sample's file. Raises DataError that names all those that cannot be
    read.
    """

    def tried(file: Path, name: str) -> tuple[Seen | None, str]:
        try:
            if not name.isprintable():
                raise DataError("its name cannot be written down; rename it")
            if not file.is_file():
                raise DataError("there is no such file")
            return look(file), ""
        except (VaearrError, OSError) as error:
            return (
                None,
                f"{ascii(name)[1:-1]}: {str(error).removeprefix(str(file)).lstrip(': ').rstrip('.')}",
            )

    with ThreadPoolExecutor(THREADS) as pool:
        seen = list(pool.map(tried, found.index, found[n.PATH]))
    if bad := [why for _, why in seen if why]:
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise DataError(
            f"{len(bad)} of {len(found)} files cannot be used: {'; '.join(bad[:SHOWN])}{more}. Correct them, or leave "
            "them out with exclude=['NAME', …] (--exclude)."
        )
    return [what for what, _ in seen if what is not None]


def collection(
    patterns: Any, signal: Sequence[str], found: pd.DataFrame, attrs: Mapping[str, Any]
) -> xr.Dataset:
    """The lazy Dataset (sample, …) with paths, labels and what the manifest told of each sample.

    patterns: a dask array (sample, *signal). found: see `samples_of`.
    """
    about = {n.NAVIGATION_DIMS: [n.SAMPLE], n.SIGNAL_DIMS: list(signal), **attrs}
    data: dict[str, Any] = {n.PATTERNS: ((n.SAMPLE, *signal), patterns, about)}
    coords: dict[str, Any] = {n.SAMPLE: (n.SAMPLE, np.arange(len(found)), {"long_name": "sample"})}
    coords[n.PATH] = (n.SAMPLE, found[n.PATH].tolist(), {"long_name": "file"})
    for dim, size in zip(signal, patterns.shape[1:], strict=True):
        coords[dim] = (dim, np.arange(size), {"long_name": dim, "units": "px"})
    if (found[LABEL] != "").any():
        data[LABEL] = _label_variable(found[LABEL])
    for name in found.columns.drop([n.PATH, LABEL]):
        _add_column(name, found[name], coords, data)
    return xr.Dataset(data, coords)


def samples(
    read: Callable[[int], np.ndarray], count: int, shape: tuple[int, ...], dtype: np.dtype
) -> Any:
    """A dask array (sample, *shape) of what `read` gives for each sample."""
    return lazy_array(one_by_one(read), np.arange(count), shape, dtype)


def _label_variable(labels: pd.Series) -> xr.Variable:
    """Names as codes 0, 1, … in sorted order (numbers by size), "" as -1; CF flags say which is
    which.
    """
    names = sorted(set(labels) - {""}, key=lambda label: (_number(label), label))
    codes = pd.Index(names).get_indexer(labels).astype(np.int32)
    meanings = flags(codes, dict(enumerate(names)), {UNKNOWN: "unknown"}, LABEL)
    return xr.Variable(n.SAMPLE, codes, {"long_name": LABEL, **meanings})


def _number(label: str) -> float:
    return float(label) if re.fullmatch(r"[-+]?\d+(\.\d*)?", label) else np.inf


def _add_column(name: str, cells: pd.Series, coords: dict[str, Any], data: dict[str, Any]) -> None:
    """A column of a manifest: a variable where it holds numbers, a coordinate where it is text or
    names groups.

    Numbers with zeros in front, such as 0012, are names, and stay text.
    """
    plain = re.sub(r"[^0-9A-Za-z_]+", "_", name).strip("_")
    is_taken = (
        plain in n.RESERVED or plain in coords or plain in data or plain.startswith(n.OF_LATER_RUNS)
    )
    if is_taken or not n.is_valid_name(plain):
        raise DataError(
            f"the manifest's column {name!r} has a name that is taken, or no name; rename it."
        )
    values = pd.to_numeric(cells.mask(cells.str.lower().isin(NO_VALUE)), errors="coerce")
    is_text = (values.isna() & ~cells.str.lower().isin(NO_VALUE)).any() or cells.str.match(
        r"0\d"
    ).any()
    if plain.lower() in n.GROUPS or is_text:
        coords[plain] = (n.SAMPLE, cells.tolist(), {"long_name": name})
    else:
        data[plain] = (
            n.SAMPLE,
            values.to_numpy(np.float32, na_value=np.nan),
            {"long_name": name, "units": "1"},
        )
