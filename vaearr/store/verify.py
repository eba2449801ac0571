"""Check every file of a store against its checksum; on request, accept the present state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zarr

from vaearr import names as n
from vaearr import schema
from vaearr.computing.progress import Progress, Show, showing
from vaearr.errors import DamagedError, DataError, NoInputError, UsageError, VaearrError, listed
from vaearr.store.commit import edit_store, recover, staging_root, write_identity
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
from vaearr.store.read import check_store, open_store
from vaearr.store.remove import removable, written_together

MAX_ABSENT_CHUNKS = 10**6  # of an array, without a file
CHANGED = "its bytes are not those that were written"
UNLISTED = "it is not listed"
OTHER_METADATA = "its metadata is not as listed"
GONE = "it is listed, but missing"
NOT_A_FILE = "it is a symbolic link, or not an ordinary file"
ACCEPTABLE = (CHANGED, UNLISTED, OTHER_METADATA, GONE)  # by `seal_store`, if all can be decoded
RESTORE = "restore it from a copy or ingest again"
RESUMABLE = "*-*"  # work folders that a command resumes: run-NAME, variables-NAMES
_FILES_AT_ONCE = 8


@dataclass(frozen=True)
class Finding:
    """Damage: the variable (empty: the store itself), the file, the problem, what to do."""

    variable: str
    place: str
    found: str
    do: str

    def __str__(self) -> str:
        return f"{self.place}: {self.found}; {self.do}"


@dataclass
class Verification:
    """The result of a check. notes: no damage. unsealed: variables without checksums."""

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
        advice = _to_do(self.store, variable, found)
        self.findings.append(Finding(variable, place, found, advice))


def _to_do(store: Path, variable: str, found: str) -> str:
    """Return what to do about damage."""
    try:
        if variable and removable(store, [variable]):
            first = written_together(store, variable)[0]
            return (
                f"'vaearr verify {store} --remove {first}' removes it, then run the command that "
                "wrote it again"
            )
    except (UsageError, *BAD_JSON):
        pass
    if found in ACCEPTABLE:
        return f"restore it from a copy, or accept the change with 'vaearr verify {store} --seal'"
    return RESTORE


def verify_store(path: str | Path, *, progress: Progress = True) -> Verification:
    """Check all files of a store, the list of variables, and the schema. Nothing is changed.

    Files are compared with the checksums of their publication. Variables without checksums (of
    earlier versions, or written by other programs) are decoded instead, which detects everything
    but swapped chunks. At most one chunk per thread is in memory.

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
    recover(store)
    if not store.is_dir():
        raise NoInputError(
            f"there is no store at {store}; create one with 'vaearr ingest SOURCE {store}'."
        )
    result = Verification(store)
    _check_listing(result)
    with showing(progress, "verifying") as show:
        _check_files(result, show)
    if not any(finding.variable == n.PATTERNS for finding in result.findings):
        try:
            check_patterns(store)
        except (DamagedError, *BAD_JSON):
            result.find(n.PATTERNS, n.PATTERNS, CHANGED)
    if all(finding.found in ACCEPTABLE for finding in result.findings):
        _check_layout(result)
    for work in staging_root(store).glob(RESUMABLE):
        result.notes.append(f"{work} is unfinished work; run its command again, or remove it.")
    if result.unsealed:
        result.notes.append(
            f"{len(result.unsealed)} variables have no checksums ({listed(result.unsealed)}) and "
            "were decoded instead, which does not detect swapped chunks; "
            f"'vaearr verify {store} --seal' adds checksums."
        )
    return result


def _check_layout(result: Verification) -> None:
    """Check that the store opens as a valid Dataset."""
    try:
        schema.validate(open_store(result.store, chunks=None))
    except DamagedError:
        return  # a chunk of a coordinate, which is among the findings
    except (VaearrError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        result.find("", METADATA, f"it is not laid out as a store ({reason})")


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
    nodes = files_by_node(store)
    stored = {node for node, files in nodes.items() if node and METADATA in files}
    for key in sorted(stored | metadata.keys()):
        if key not in stored:
            problem = GONE
        elif key not in metadata:
            problem = UNLISTED
        else:
            problem = _differing_metadata(store / key, metadata[key])
        if problem:
            result.find(key, join(key, METADATA), problem)


def _differing_metadata(node: Path, listed_metadata: dict[str, Any]) -> str:
    """Return the problem of metadata that is not as listed, "" for none."""
    no_listing = {LISTING: None}  # lists of variables are not compared
    try:
        is_same = read_metadata(node) | no_listing == listed_metadata | no_listing
    except BAD_JSON:
        return "its metadata cannot be read"
    return "" if is_same else OTHER_METADATA


def _check_files(result: Verification, show: Show) -> None:
    """Check every file of every array and model by its checksum, or decode it."""
    sizes = file_sizes(result.store)
    total = sum(sizes.values())
    for node, files in files_by_node(result.store).items():
        folder = result.store / node
        problems = {}
        for name in files:
            if (folder / name).is_symlink() or not (folder / name).is_file():
                problems[name] = NOT_A_FILE
        if SEAL in files or not is_group(folder):
            regular_files = [name for name in files if name not in problems]
            problems |= _problems(folder, regular_files)
            if SEAL not in files and not problems:
                result.unsealed.append(node)
        for name, problem in problems.items():
            result.find(node, join(node, name), problem)
        result.n_files += len(files)
        result.n_bytes += sum(sizes[join(node, name)] for name in files)
        show(result.n_bytes, total)


def _problems(folder: Path, files: list[str]) -> dict[str, str]:
    """Return the problems of the files of an array or a model, by file."""
    try:
        seal = read_seal(folder)
    except (ValueError, OSError) as error:
        return {SEAL: f"its checksums cannot be read ({error})"}
    if seal is None:
        return _undecodable(folder, files) if METADATA in files else {}
    problems = dict.fromkeys(seal.keys() - set(files), "it is missing")
    if METADATA in files:  # checkpoints may be next to a model
        problems |= dict.fromkeys(set(files) - seal.keys() - {SEAL}, "it does not belong there")
    sealed = [name for name in files if name in seal]

    def check(name: str) -> str:
        try:
            return "" if sha256_of(folder / name) == seal[name] else CHANGED
        except OSError as error:
            return f"it cannot be read ({error.strerror})"

    for name, problem in zip(sealed, read_ahead(check, sealed, _FILES_AT_ONCE), strict=True):
        if problem:
            problems[name] = problem
    return problems


def _undecodable(folder: Path, files: list[str]) -> dict[str, str]:
    """Return the problems of an array without checksums: chunks that cannot be decoded."""
    try:
        array = zarr.open_array(folder, mode="r", zarr_format=3)
        if array.nchunks > len(files) + MAX_ABSENT_CHUNKS:
            raise ValueError(f"it declares {array.nchunks} chunks, {len(files)} files exist")
        return {name: f"it cannot be read ({reason})" for name, reason in undecodable(array)}
    except Exception as error:  # zarr raises many kinds for damaged metadata
        return {METADATA: f"its metadata cannot be used ({' '.join(str(error).split())[:120]})"}


def seal_store(path: str | Path) -> list[str]:
    """Accept the present state of a store: write missing checksums, list the variables again.

    Each variable is decoded first. After an interruption, call it again.

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
        If damage cannot be accepted, such as a missing or undecodable chunk.
    """
    store = check_store(path)
    with edit_store(store):
        result = verify_store(store)
        refused = [str(finding) for finding in result.findings if finding.found not in ACCEPTABLE]
        candidates = {finding.variable for finding in result.findings} | set(result.unsealed)
        existing = [name for name in sorted(candidates) if (store / name).exists()]
        variables = [name for name in existing if not is_group(store / name)]
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
                write_seal(store / name, files_by_node(store / name)[""], {})
            refresh_listing(store)
            identity = attributes_of(store / n.RUNS)
            identity[n.PATTERNS_FINGERPRINT] = variable_fingerprint(store, n.PATTERNS)
            write_identity(store, identity)
    return variables


def in_words(result: Verification) -> Iterator[str]:
    """Yield the result in lines: damage, notes, summary."""
    for finding in result.findings:
        yield f"damaged: {finding}"
    for note in result.notes:
        yield f"note: {note}"
    state = "is intact" if result.is_healthy else f"is damaged, {len(result.findings)} findings"
    yield f"{result.store} {state} ({result.n_files} files, {result.n_bytes / 1e6:.1f} MB checked)"
