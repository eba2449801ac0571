"""Is a store intact? Checks every file against its checksum, and runs against their manifests.

Checking changes nothing. What killed commands left is named, too; it does no harm.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import zarr

from vaearr import names as n
from vaearr import schema
from vaearr.computing.progress import Progress, Show, showing
from vaearr.errors import DataError, NoInputError, VaearrError
from vaearr.recipe import FINGERPRINTS, nested
from vaearr.store.commit import (
    RUBBISH,
    complete_publication,
    edit_store,
    journalled,
    remove_if_empty,
    staged_names,
    staging_root,
    write_identity,
)
from vaearr.store.fingerprints import stored_array, variable_fingerprint
from vaearr.store.folders import PART, file_sizes, is_there, sha256_of, write_errors
from vaearr.store.layout import chunks_of, read_ahead
from vaearr.store.listing import (
    BAD_JSON,
    LISTING,
    SEAL,
    SEALED,
    Tree,
    attributes_of,
    is_of,
    join,
    listed,
    read_metadata,
    read_seal,
    refresh_listing,
    tree,
    write_seal,
)
from vaearr.store.paths import METADATA, store_path
from vaearr.store.read import (
    check_store,
    common_sizes,
    named_sizes,
    open_group,
    open_store,
    run_manifest,
    run_names,
)
from vaearr.store.remove import remove

MAX_ABSENT_CHUNKS = 10**6  # that an array may declare beyond those that have files
KEPT_SECONDS = 24 * 3600.0  # anything younger may belong to a running command
CHANGED = "its bytes are not those that were written"
UNSEALED = "its checksums were removed"
ACCEPTABLE = (CHANGED, UNSEALED)  # `seal_store` accepts these where every chunk can be decoded
RESTORE = "restore the store from a copy or ingest again"
_FILES_AT_ONCE = 8
_MOST_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """Damage: the variable (empty: the store itself), the file, what is wrong, what to do."""

    variable: str
    place: str
    found: str
    do: str

    def __str__(self) -> str:
        return f"{self.place or self.variable}: {self.found}; {self.do}"


@dataclass(frozen=True)
class Leftover:
    """What a killed command left.

    kind: `rubbish` where no command can resume it. age: seconds since its last change.
    """

    path: Path
    what: str
    kind: str
    age: float

    @property
    def is_rubbish(self) -> bool:
        """Whether no command can resume it."""
        return self.kind == _RUBBISH


class Advice:
    """What to do about damage: which variables one command writes together, and which command."""

    def __init__(self, store: Path) -> None:
        self.store = store
        try:
            metadata = listed(read_metadata(store))
        except (*BAD_JSON, DataError):
            metadata = {}
        self.attributes = {}
        for key, entry in metadata.items():
            if "/" not in key:
                self.attributes[key] = dict(entry.get("attributes", {}))
        runs = {key.split("/")[1] for key in metadata if key.startswith(f"{n.RUNS}/")}
        folder = store / n.RUNS
        if folder.is_dir():
            runs |= {run.name for run in folder.iterdir() if run.is_dir()}
        self.runs = sorted(runs)

    def written_together(self, variable: str) -> tuple[list[str], str]:
        """Names that one command wrote, and what creates them again, if anything does."""
        again = "the command that wrote it creates it again"
        parts = variable.split("/")
        if parts[0] == n.RUNS and len(parts) > 1:
            if len(parts) > 2 and parts[2] not in (n.MODEL, n.HISTORY, n.HEALTH):
                return [variable], again
            return ["/".join(parts[:2])], "train the run again, where no copy can be restored"
        of_encode = [name for name in n.OF_A_RUN if name not in (n.ROI, n.SPLIT, n.LATENTS)]
        for run in self.runs:
            names = [n.run_name(name, run) for name in (n.LATENTS, *of_encode)]
            if variable in names:
                return names, f"'vaearr encode {self.store} --run {run}' creates it again"
        derived = []
        for key, attributes in self.attributes.items():
            if n.PROVENANCE in attributes and key not in n.RESERVED:
                derived.append(key)
        owners = [key for key in derived if variable == key or variable.startswith(f"{key}_")]
        if not owners:
            return [variable], ""
        owner = max(owners, key=len)
        related = [key for key in self.attributes if key.startswith(f"{owner}_")]
        return [owner, *(key for key in related if key not in derived)], again

    def for_damage(self, variable: str, found: str) -> str:
        """What to do about a damaged variable."""
        if not variable:
            return f"'vaearr verify {self.store} --relist' lists the variables again; else restore it from a copy"
        names, again = self.written_together(variable)
        if again:
            return f"'vaearr verify {self.store} --remove {names[0]}' removes it, then {again}"
        if found in ACCEPTABLE:
            return f"restore it from a copy, or accept the present values with 'vaearr verify {self.store} --seal'"
        return "restore it from a copy or ingest again"


@dataclass
class Verification:
    """What was checked, and what was found. notes: what is no damage, such as missing checksums."""

    store: Path
    advice: Advice
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    unsealed: list[str] = field(default_factory=list)
    n_variables: int = 0
    n_files: int = 0
    n_bytes: int = 0

    @property
    def is_healthy(self) -> bool:
        """Whether no damage was found."""
        return not self.findings

    def record(self) -> dict[str, Any]:
        """The same as plain JSON."""
        leftovers = []
        for left in self.leftovers:
            about = {"path": str(left.path), "what": left.what, "rubbish": left.is_rubbish}
            leftovers.append(about | {"age_seconds": round(left.age)})
        return {
            "store": str(self.store),
            "healthy": self.is_healthy,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": self.notes,
            "leftovers": leftovers,
            "without_checksums": self.unsealed,
            "variables": self.n_variables,
            "files": self.n_files,
            "bytes": self.n_bytes,
        }

    def find(self, variable: str, place: str, found: str, do: str = "") -> None:
        """Add damage, with what to do about it."""
        to_do = do or self.advice.for_damage(variable, found)
        self.findings.append(Finding(variable, place, found, to_do))


def verify_store(path: str | Path, *, progress: Progress = True) -> Verification:
    """Check a store: all files, the list of variables, the schema and the runs.

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
    if not store.is_dir():
        raise NoInputError(f"there is no store at {store}; create one with 'vaearr ingest SOURCE {store}'.")
    complete_publication(store)
    result = Verification(store, Advice(store))
    try:
        check_store(store)
    except DataError as error:
        result.find("", METADATA, str(error), RESTORE)
    can_be_opened = result.is_healthy
    with showing(progress, "verifying") as show:
        _check_files(result, show)
    if result.is_healthy:
        try:
            schema.validate(open_store(store, chunks=None))
        except (VaearrError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            result.find("", METADATA, f"it is not laid out as a store ({reason})", RESTORE)
    if can_be_opened:
        _check_sizes(result)
        _check_fingerprint(result)
        for run in run_names(store):
            _check_run(result, run)
    result.leftovers = list(leftovers(store))
    if result.unsealed:
        some = ", ".join(result.unsealed[:_MOST_NAMED])
        more = " …" if len(result.unsealed) > _MOST_NAMED else ""
        result.notes.append(
            f"{len(result.unsealed)} variables have no checksums ({some}{more}) and were decoded "
            f"instead: one chunk in the place of another would not be found; 'vaearr verify {store} "
            "--seal' adds them."
        )
    return result


def _check_files(result: Verification, show: Show) -> None:
    """The list of variables, then every array."""
    store, found = result.store, tree(result.store)
    try:
        under_way = list(journalled(store))  # keys of a publication that could not be completed
    except (OSError, ValueError):
        under_way = []
    for key, what in _listing_damage(store, found):
        if is_of(key, under_way):
            result.notes.append(f"{key}: a command that changed it was killed; run it again.")
        else:
            result.find(key, join(key, METADATA), what)
    sealed = attributes_of(store / n.RUNS).get(SEALED, [])
    total = sum(found.sizes.values())
    for key, names in found.parts.items():
        if key and (key in found.arrays or is_of(key, sealed) or join(key, SEAL) in found.sizes):
            names = [name for name in names if not name.endswith(PART)]
            _check_part(result, key, names, must_be_sealed=is_of(key, sealed))
            result.n_variables += not key.endswith(f"/{n.MODEL}")
            result.n_files += len(names)
            result.n_bytes += sum(found.sizes[join(key, name)] for name in names)
            show(result.n_bytes, total)
    for name in sorted(found.sizes):  # links in the place of variables
        if name.rpartition("/")[0] in ("", *found.groups) and (what := _odd(store / name)):
            result.find(name, name, what)


def _check_part(result: Verification, key: str, names: list[str], *, must_be_sealed: bool) -> None:
    """The files of an array, or of a run's model, by their checksums, else by decoding them."""
    folder = result.store / key
    problems = {name: what for name in names if (what := _odd(folder / name))}
    try:
        seal = read_seal(folder)
    except (ValueError, OSError) as error:
        result.find(key, key, f"its checksums cannot be read ({error})")
        return
    if seal is not None:
        unknown = [name for name in names if name not in seal]
        if METADATA in names:  # next to a model, checkpoints may lie
            problems |= dict.fromkeys(unknown, "it does not belong there")
        problems |= dict.fromkeys(seal.keys() - set(names), "it is missing")
        readable = [name for name in names if name in seal and name not in problems]
        problems |= _problems(readable, lambda name: _by_checksum(folder / name, seal[name]))
    else:
        if must_be_sealed:
            problems[SEAL] = UNSEALED
        if METADATA not in problems:
            problems |= _undecodable(folder, names)
    for name, what in problems.items():
        result.find(key, join(key, name), what)
    if seal is None and not problems:
        result.unsealed.append(key)


def _problems(names: list[str], check: Callable[[str], str]) -> dict[str, str]:
    """What is wrong with files, by their names."""
    found = zip(names, read_ahead(check, names, _FILES_AT_ONCE), strict=True)
    return {name: what for name, what in found if what}


def _by_checksum(file: Path, checksum: str) -> str:
    try:
        return "" if sha256_of(file) == checksum else CHANGED
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def _undecodable(folder: Path, names: list[str]) -> dict[str, str]:
    """What is wrong with an array without (valid) checksums: chunks that cannot be decoded."""
    try:
        array = stored_array(folder)
        sides = array.shards or array.chunks
        counts = [math.ceil(size / side) for size, side in zip(array.shape, sides, strict=True)]
        if math.prod(counts) > len(names) + MAX_ABSENT_CHUNKS:
            raise ValueError(f"it declares {math.prod(counts)} chunks, {len(names)} files are there")
        chunks = dict(chunks_of(array))
    except Exception as error:  # zarr raises many kinds for damaged metadata
        return {METADATA: f"its metadata cannot be used ({' '.join(str(error).split())[:120]})"}

    def decode(name: str) -> str:
        try:
            array[chunks[name]]
            return ""
        except Exception as error:  # codecs have errors of their own
            return f"it cannot be read ({' '.join(str(error).split())[:120]})"

    return _problems([name for name in names if name in chunks], decode)


def _listing_damage(store: Path, found: Tree) -> Iterator[tuple[str, str]]:
    """Compare the list of variables with the stored ones: key, and what is wrong."""
    try:
        metadata = dict(read_metadata(store)[LISTING]["metadata"])
    except BAD_JSON as error:
        yield "", f"the list of variables cannot be read ({type(error).__name__}: {error})"
        return
    present = {key for key in (*found.arrays, *found.groups) if key}
    for key, entry in metadata.items():
        if key not in present:
            yield key, "it is listed, but missing"
        elif not _is_as_listed(store / key, entry):
            yield key, "its metadata cannot be read or is not as listed"
    for key in sorted(present - metadata.keys()):
        yield key, "it is not listed"


def _is_as_listed(node: Path, entry: Mapping[str, Any]) -> bool:
    try:
        return {**read_metadata(node), LISTING: None} == {**entry, LISTING: None}
    except BAD_JSON:
        return False


def _odd(path: Path) -> str:
    """What keeps a name from being that of an ordinary file; nothing where it is one."""
    if path.is_symlink():
        return "it is a symbolic link, which may lead anywhere"
    if path.exists() and not path.is_file():
        return "it is not an ordinary file"
    return ""


def _check_sizes(result: Verification) -> None:
    """Variables to which another program has appended, so that they do not fit the others."""
    group = open_group(result.store)
    sizes = common_sizes(group)
    for name, array in group.arrays():
        for dim, size in named_sizes(array).items():
            if size > sizes[dim]:
                result.find(
                    name,
                    f"{name}/{METADATA}",
                    f"it has {size} values along {dim}, other variables {sizes[dim]}: another program appended to it",
                    f"'vaearr verify {result.store} --relist' removes what was appended",
                )


def _check_fingerprint(result: Verification) -> None:
    """Patterns without checksums against the fingerprint of their ingest."""
    recorded = attributes_of(result.store / n.RUNS).get(n.PATTERNS_FINGERPRINT)
    if recorded is None or any(finding.variable == n.PATTERNS for finding in result.findings):
        return
    if variable_fingerprint(result.store, n.PATTERNS) != recorded:
        result.find(n.PATTERNS, n.PATTERNS, CHANGED)


def _check_run(result: Verification, run: str) -> None:
    """A run against its manifest."""
    store, key = result.store, f"{n.RUNS}/{run}"
    attributes = result.advice.attributes
    known = {finding.place for finding in result.findings}

    def find(place: str, what: str) -> None:
        if place not in known:
            result.find(key, place, what)

    try:
        manifest = run_manifest(store, run)
    except DataError:
        find(f"{key}/{METADATA}", "its manifest cannot be read")
        return
    roi = n.run_name(n.ROI, run)
    if roi not in attributes:
        find(roi, f"run {run!r} has no map {roi!r}")
    if manifest.get("kind") == n.ATTACHED:
        return
    wanted = manifest.get("weights_sha256")
    weights = f"{key}/{n.MODEL}/{n.MODEL_WEIGHTS}"
    config = f"{key}/{n.MODEL}/{n.MODEL_CONFIG}"
    try:
        if not is_there(store, weights):
            find(weights, "the weights are missing")
        elif sha256_of(store / weights) != wanted:
            find(weights, "the weights are not those of the manifest")
    except (OSError, DataError) as error:
        find(weights, f"it cannot be read ({error})")
    try:
        is_there(store, config)
        described = dict(json.loads((store / config).read_bytes()))
        common = sorted(described.keys() & manifest.keys())
        differing = [name for name in common if described[name] != manifest[name]]
        if differing:
            find(config, f"it differs from the manifest in {', '.join(differing)}")
    except BAD_JSON as error:
        find(config, f"it cannot be read ({type(error).__name__})")
    latents = n.run_name(n.LATENTS, run)
    recipe = nested(attributes.get(latents, {}), n.PROVENANCE)
    if isinstance(recipe, Mapping) and recipe.get("weights_sha256") != wanted:
        find(latents, f"the latents were not made by the weights of run {run!r}")
    trained_on = (manifest.get(FINGERPRINTS) or {}).get(n.PATTERNS)
    present = attributes_of(store / n.RUNS).get(n.PATTERNS_FINGERPRINT)
    if None not in (trained_on, present) and trained_on != present:
        result.notes.append(f"run {run!r} was trained on other patterns than the present ones.")


_RUBBISH, _WORK, _NEEDED = "rubbish", "work", "needed"
_STAGED = {  # names in the staging folder, what they are, whether a command can resume them
    "publishing.json": ("an interrupted publication; the next command completes it", _NEEDED),
    "replacing.json": ("an interrupted replacement; the next command completes it", _NEEDED),
    "variables-*": ("unfinished variables; the same command resumes", _WORK),
    "run-*": ("an unfinished training; 'vaearr train' with the same run resumes", _WORK),
    **dict.fromkeys((*RUBBISH, f".*{PART}"), ("what was not published or was replaced", _RUBBISH)),
    "*": ("nothing that vaearr wrote", _NEEDED),
}


def leftovers(store: Path) -> Iterator[Leftover]:
    """What killed writers of a store left, in its hidden sibling and in it."""
    needed, staging = staged_names(store), staging_root(store)
    for path in sorted(staging.iterdir()) if staging.is_dir() else ():
        if path.name not in needed:
            pattern = next(pattern for pattern in _STAGED if fnmatchcase(path.name, pattern))
            yield Leftover(path, *_STAGED[pattern], _age(path))
    for name in sorted(file_sizes(store)):
        if name.endswith(PART):
            yield Leftover(store / name, "an unfinished file", _RUBBISH, _age(store / name))


def _age(path: Path) -> float:
    """Seconds since the last change; 0 where a running command has just removed it."""
    times = []
    for item in (path, *path.rglob("*")):
        try:
            times.append(item.lstat().st_mtime)
        except FileNotFoundError:
            continue
    return time.time() - max(times, default=time.time())


def removable(store: Path, *, unfinished: bool = False) -> list[Leftover]:
    """Rubbish older than a day; with `unfinished` also work that a command could resume."""
    kinds = {_RUBBISH, _WORK} if unfinished else {_RUBBISH}
    return [left for left in leftovers(store) if left.age > KEPT_SECONDS and left.kind in kinds]


def clean(store: Path, *, unfinished: bool = False) -> list[Leftover]:
    """Remove what is `removable`; returns what was removed."""
    with edit_store(store), write_errors(store):
        removed = removable(store, unfinished=unfinished)
        for left in removed:
            if left.path.is_dir():
                shutil.rmtree(left.path)
            else:
                left.path.unlink()
        remove_if_empty(staging_root(store))
    return removed


def take_out(path: str | Path, variable: str) -> list[str]:
    """Remove a derived variable with all that was written with it, or a table or run (`runs/vae`).

    Returns the removed names. Raises UsageError for what came with the source, NoInputError for an
    unknown name.
    """
    store, parts = check_store(path), variable.split("/")
    if parts[0] == n.RUNS and len(parts) == 2:
        removed = remove(store, runs=parts[1:])
    elif parts[0] == n.RUNS:
        removed = remove(store, variables=[variable])
    else:
        removed = remove(store, variables=Advice(store).written_together(variable)[0])
    if not removed:
        raise NoInputError(f"{store} has no {variable!r}; 'vaearr info {store}' lists what it has.")
    return removed


def seal_store(path: str | Path) -> list[str]:
    """Take the present values of a store as right: checksums where they are missing or differ.

    Each variable is decoded first. An interrupted call damages nothing; call it again.

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
        result = verify_store(store)
        changed = sorted({item.variable for item in result.findings})
        refused = [str(item) for item in result.findings if item.found not in ACCEPTABLE]
        for variable in changed:
            if (store / variable / METADATA).is_file():  # not a run's model
                for name, what in _undecodable(store / variable, list(file_sizes(store / variable))).items():
                    refused.append(f"{variable}/{name}: {what}")
        if refused:
            raise DataError(
                f"{store} is damaged ({refused[0]}), so no checksums were added; "
                f"'vaearr verify {store}' says what to do."
            )
        variables = sorted({*changed, *result.unsealed})
        with write_errors(store):
            for variable in variables:
                write_seal(store / variable, file_sizes(store / variable), durable=True)
            recorded = attributes_of(store / n.RUNS)
            recorded[SEALED] = sorted({*recorded.get(SEALED, []), *variables})
            recorded[n.PATTERNS_FINGERPRINT] = variable_fingerprint(store, n.PATTERNS)
            write_identity(store, recorded)
    return variables


def relist(path: str | Path) -> None:
    """List the variables again, without what another program appended to them, in one atomic step."""
    store = check_store(path)
    with edit_store(store), write_errors(store):
        group = zarr.open_group(store, mode="r+", zarr_format=3)
        sizes = common_sizes(group)
        for _, array in group.arrays():
            own = named_sizes(array)
            shape = tuple(sizes[dim] for dim in own)
            if own and shape != array.shape:
                array.resize(shape)
        try:
            refresh_listing(store)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(
                f"{store} holds a variable whose metadata cannot be read ({reason}); 'vaearr verify "
                f"{store}' says which one, remove it first."
            ) from error


def in_words(result: Verification) -> Iterator[str]:
    """The result in lines: damage first, one line each, then notes and leftovers, then the sum."""
    yield from (f"damaged: {finding}" for finding in result.findings)
    yield from (f"note: {note}" for note in result.notes)
    for left in result.leftovers:
        yield f"left over: {left.path}, {left.what}, {left.age / 3600:.1f} hours old"
    size = f"{result.n_files} files, {result.n_bytes / 1e6:.1f} MB of {result.n_variables} variables"
    state = "is whole" if result.is_healthy else f"is damaged, {len(result.findings)} findings"
    yield f"{result.store} {state} ({size} checked)"
