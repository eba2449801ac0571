"""Is a store intact? Checks every file against its checksum, and accepts what other programs
changed on request.

Checking changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import zarr

from vaearr import names as n
from vaearr import schema
from vaearr.computing.progress import Progress, Show, showing
from vaearr.errors import DamagedError, DataError, NoInputError, UsageError, VaearrError, listed
from vaearr.store.commit import complete_publication, edit_store, staging_root, write_identity
from vaearr.store.fingerprints import check_patterns, undecodable, variable_fingerprint
from vaearr.store.folders import file_sizes, sha256_of, write_errors
from vaearr.store.layout import read_ahead
from vaearr.store.listing import (
    BAD_JSON,
    LISTING,
    SEAL,
    attributes_of,
    files_by_node,
    is_group,
    join,
    read_metadata,
    read_seal,
    refresh_listing,
    write_seal,
)
from vaearr.store.paths import METADATA, store_path
from vaearr.store.read import check_store, common_sizes, named_sizes, open_group, open_store
from vaearr.store.remove import removable, written_together

MAX_ABSENT_CHUNKS = 10**6  # that an array may declare beyond those that have files
CHANGED = "its bytes are not those that were written"
UNLISTED = "it is not listed"
OTHER_METADATA = "its metadata is not as listed"
GONE = "it is listed, but missing"
APPENDED = "another program appended to it"
ACCEPTABLE = (
    CHANGED,
    UNLISTED,
    OTHER_METADATA,
    GONE,
)  # `seal_store` accepts these where all can be decoded
RESTORE = "restore it from a copy or ingest again"
_FILES_AT_ONCE = 8


@dataclass(frozen=True)
class Finding:
    """Damage: the variable (empty: the store itself), the file, what is wrong, what to do."""

    variable: str
    place: str
    found: str
    do: str

    def __str__(self) -> str:
        return f"{self.place}: {self.found}; {self.do}"


@dataclass
class Verification:
    """What was checked, and what was found. notes: what is no damage. unsealed: variables without
    checksums.
    """

    store: Path
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unsealed: list[str] = field(default_factory=list)
    n_files: int = 0
    n_bytes: int = 0

    @property
    def is_healthy(self) -> bool:
        """Whether no damage was found."""
        return not self.findings

    def find(self, variable: str, place: str, found: str) -> None:
        """Add damage, with what to do about it."""
        self.findings.append(Finding(variable, place, found, _to_do(self.store, variable, found)))


def _to_do(store: Path, variable: str, found: str) -> str:
    """What to do about damage."""
    try:
        if variable and removable(store, [variable]):
            first = written_together(store, variable)[0]
            return f"'vaearr verify {store} --remove {first}' removes it, then run the command that wrote it again"
    except (UsageError, *BAD_JSON):
        pass
    if found == APPENDED:
        return f"'vaearr verify {store} --seal' removes what was appended"
    if found in ACCEPTABLE:
        return (
            f"restore it from a copy, or accept what is there with 'vaearr verify {store} --seal'"
        )
    return RESTORE


def verify_store(path: str | Path, *, progress: Progress = True) -> Verification:
    """Check a store: all files, the list of variables, and the schema.

    Files are checked against the checksums that were taken when they were published. Variables
    without (of an earlier version, or written by other programs) are decoded instead, which finds
    everything but a chunk in the place of another. At most one chunk per thread is in memory.

    Parameters
    ----------
    path
        The store.
    progress
        False shows none.

    Returns
    -------
    Verification
        All damage is in `findings`.

    Raises
    ------
    NoInputError
        If there is no store.
    """
    store = store_path(path)
    complete_publication(store)
    if not store.is_dir():
        raise NoInputError(
            f"there is no store at {store}; create one with 'vaearr ingest SOURCE {store}'."
        )
    result = Verification(store)
    for name in _appended(store):
        result.find(name, join(name, METADATA), APPENDED)
    _check_listing(result)
    with showing(progress, "verifying") as show:
        _check_files(result, show)
    if not any(finding.variable == n.PATTERNS for finding in result.findings):
        try:
            check_patterns(store)
        except (DamagedError, *BAD_JSON):
            result.find(n.PATTERNS, n.PATTERNS, CHANGED)
    if result.is_healthy:
        try:
            schema.validate(open_store(store, chunks=None))
        except (VaearrError, ValueError, KeyError, TypeError) as error:
            result.find(
                "", METADATA, f"it is not laid out as a store ({' '.join(str(error).split())})"
            )
    for work in staging_root(store).glob("*-*"):
        result.notes.append(f"{work} is unfinished work; run its command again, or remove it.")
    if result.unsealed:
        result.notes.append(
            f"{len(result.unsealed)} variables have no checksums ({listed(result.unsealed)}) and were decoded "
            f"instead: one chunk in the place of another would not be found; 'vaearr verify {store} "
            "--seal' adds them."
        )
    return result


def _appended(store: Path) -> dict[str, tuple[int, ...]]:
    """Variables that are longer than others along a dimension, and the shape that fits."""
    try:
        group = open_group(store)
        arrays = list(group.arrays())
    except (VaearrError, ValueError, KeyError, TypeError):  # `_check_listing` says what is wrong
        return {}
    sizes = common_sizes(group)
    shapes = {name: tuple(sizes[dim] for dim in named_sizes(array)) for name, array in arrays}
    return {name: shapes[name] for name, array in arrays if shapes[name] not in ((), array.shape)}


def _check_listing(result: Verification) -> None:
    """Compare the list of variables with the stored ones."""
    store = result.store
    try:
        metadata = dict(read_metadata(store)[LISTING]["metadata"])
    except BAD_JSON as error:
        result.find(
            "", METADATA, f"the list of variables cannot be read ({type(error).__name__}: {error})"
        )
        return
    present = {node for node, files in files_by_node(store).items() if node and METADATA in files}
    for key in sorted(present | metadata.keys()):
        problem = ""
        if key not in present:
            problem = GONE
        elif key not in metadata:
            problem = UNLISTED
        else:
            try:
                if {**read_metadata(store / key), LISTING: None} != {
                    **metadata[key],
                    LISTING: None,
                }:
                    problem = OTHER_METADATA
            except BAD_JSON:
                problem = "its metadata cannot be read"
        if problem:
            result.find(key, join(key, METADATA), problem)


def _check_files(result: Verification, show: Show) -> None:
    """Every file of every array and model, by its checksum, or by decoding what has none."""
    sizes = file_sizes(result.store)
    total = sum(sizes.values())
    for node, files in files_by_node(result.store).items():
        odd = [name for name in files if _is_odd(result.store / node / name)]
        problems = dict.fromkeys(
            odd, "it is a symbolic link, which may lead anywhere, or not an ordinary file"
        )
        if SEAL not in files and is_group(result.store / node):
            for name, problem in problems.items():
                result.find(join(node, name), join(node, name), problem)
            continue
        problems = (
            _problems(result.store / node, [name for name in files if name not in odd]) | problems
        )
        for name, problem in problems.items():
            result.find(node, join(node, name), problem)
        if SEAL not in files and not problems:
            result.unsealed.append(node)
        result.n_files += len(files)
        result.n_bytes += sum(sizes[join(node, name)] for name in files)
        show(result.n_bytes, total)


def _is_odd(path: Path) -> bool:
    return path.is_symlink() or not path.is_file()


def _problems(folder: Path, files: list[str]) -> dict[str, str]:
    """What is wrong with files of an array or a model, by their names."""
    try:
        seal = read_seal(folder)
    except (ValueError, OSError) as error:
        return {SEAL: f"its checksums cannot be read ({error})"}
    if seal is None:
        return _undecodable(folder, files) if METADATA in files else {}
    problems = dict.fromkeys(seal.keys() - set(files), "it is missing")
    if METADATA in files:  # next to a model, checkpoints may lie
        problems |= dict.fromkeys(set(files) - seal.keys() - {SEAL}, "it does not belong there")
    sealed = [name for name in files if name in seal]

    def check(name: str) -> str:
        try:
            return "" if sha256_of(folder / name) == seal[name] else CHANGED
        except OSError as error:
            return f"it cannot be read ({error.strerror})"

    found = zip(sealed, read_ahead(check, sealed, _FILES_AT_ONCE), strict=True)
    return problems | {name: problem for name, problem in found if problem}


def _undecodable(folder: Path, files: list[str]) -> dict[str, str]:
    """What is wrong with an array without (valid) checksums: chunks that cannot be decoded."""
    try:
        array = zarr.open_array(folder, mode="r", zarr_format=3)
        if array.nchunks > len(files) + MAX_ABSENT_CHUNKS:
            raise ValueError(f"it declares {array.nchunks} chunks, {len(files)} files exist")
        return {name: f"it cannot be read ({reason})" for name, reason in undecodable(array)}
    except Exception as error:  # zarr raises many kinds for damaged metadata
        return {METADATA: f"its metadata cannot be used ({' '.join(str(error).split())[:120]})"}


def seal_store(path: str | Path) -> list[str]:
    """Accept what a store holds: checksums where they are missing or differ, and a new list of
    variables.

    What another program appended to single variables is removed. Each variable is decoded first. An
    interrupted call damages nothing; call it again.

    Parameters
    ----------
    path
        The store.

    Returns
    -------
    list of str
        The variables that have new checksums.

    Raises
    ------
    DataError
        If anything is damaged that this cannot accept, such as a missing or undecodable chunk.
    """
    store = check_store(path)
    with edit_store(store):
        appended = _appended(store)
        with write_errors(store):
            for name, shape in appended.items():
                zarr.open_array(store / name, mode="r+", zarr_format=3).resize(shape)
            if appended:
                refresh_listing(store)
        result = verify_store(store)
        refused = [str(finding) for finding in result.findings if finding.found not in ACCEPTABLE]
        found = {finding.variable for finding in result.findings} | set(result.unsealed)
        variables = sorted(
            name for name in found if (store / name).exists() and not is_group(store / name)
        )
        for name in variables:
            if (store / name / METADATA).is_file():  # not a run's model
                problems = _undecodable(store / name, list(file_sizes(store / name)))
                refused += [f"{name}/{file}: {problem}" for file, problem in problems.items()]
        if refused:
            raise DataError(
                f"{store} is damaged ({refused[0]}), so no checksums were added; "
                f"'vaearr verify {store}' says what to do."
            )
        with write_errors(store):
            for name in variables:
                write_seal(store / name, files_by_node(store / name)[""], {}, durable=True)
            refresh_listing(store)
            recorded = attributes_of(store / n.RUNS)
            write_identity(
                store, recorded | {n.PATTERNS_FINGERPRINT: variable_fingerprint(store, n.PATTERNS)}
            )
    return variables


def in_words(result: Verification) -> Iterator[str]:
    """The result in lines: damage first, one line each, then notes, then the sum."""
    yield from (f"damaged: {finding}" for finding in result.findings)
    yield from (f"note: {note}" for note in result.notes)
    state = "is whole" if result.is_healthy else f"is damaged, {len(result.findings)} findings"
    yield f"{result.store} {state} ({result.n_files} files, {result.n_bytes / 1e6:.1f} MB checked)"
