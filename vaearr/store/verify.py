"""Is a store whole? Every file against its checksum, runs against their manifests, and what to do where it is not.

Nothing is changed. What killed commands left behind is named too; it does no harm, and is removed on request where it
is ours and of no more use.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from vaearr import names as n
from vaearr import schema
from vaearr.computing.progress import Progress, Show, showing
from vaearr.errors import DataError, NoInputError, UsageError, VaearrError
from vaearr.recipe import nested
from vaearr.store import check_store, open_store, run_manifest, run_names
from vaearr.store.commit import journalled, remove_if_empty, staged_names, staging_root, writer
from vaearr.store.folders import PART
from vaearr.store.layout import chunks_of
from vaearr.store.listing import (
    LISTING,
    ROOT_SEAL,
    SEAL,
    Tree,
    attributes_seal,
    is_of,
    read_seal,
    refresh_listing,
    tree,
    write_seal,
)
from vaearr.store.places import (
    AT_ONCE,
    METADATA,
    Folder,
    Objects,
    Place,
    StorePath,
    object_url,
    place,
    read_ahead,
    store_path,
)
from vaearr.store.read import stored_array
from vaearr.store.remove import remove
from vaearr.store.sending import TOKEN, unlisted
from vaearr.store.settling import is_copy

ROOT = ""
MOST_ABSENT = 10**6  # chunks that an array may declare beyond those that have files
KEPT_SECONDS = 24 * 3600.0  # what is younger may belong to a command that runs
_MOST_NAMED = 5
_DAMAGED_JSON = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Finding:
    """Damage: of which variable (empty: the store itself), in which file or part, what it is, what to do."""

    variable: str
    place: str
    found: str
    do: str

    def __str__(self) -> str:
        return f"{self.place or self.variable}: {self.found}; {self.do}"


@dataclass(frozen=True)
class Leftover:
    """Something a killed writer left. kind: `rubbish` where no command goes on with it. age: seconds since its last
    change."""

    path: Path
    what: str
    kind: str
    age: float

    @property
    def is_rubbish(self) -> bool:
        """Whether no command goes on with it."""
        return self.kind == _RUBBISH


class Known:
    """What a store lists, and what of it is written together by which command: what can be made again, and how."""

    def __init__(self, store: Path) -> None:
        self.store, files = store, place(store)
        try:
            self.listed = dict(json.loads(files.read(METADATA) or b"")[LISTING]["metadata"])
            self.attributes = {
                key: dict(found.get("attributes", {})) for key, found in self.listed.items() if "/" not in key
            }
        except _DAMAGED_JSON:
            self.listed, self.attributes = {}, {}
        names = [name.split("/") for name in (*self.listed, *files.files(n.RUNS))]
        self.runs = sorted({name[1] for name in names if name[0] == n.RUNS and len(name) > 1} - {METADATA})

    def together(self, variable: str) -> tuple[list[str], str]:
        """The names that one command wrote, the one to take out first; and what makes them again, if anything."""
        again = "the command that wrote it makes it again"
        if (parts := variable.split("/"))[0] == n.RUNS and len(parts) > 1:
            if len(parts) > 2 and parts[2] not in (n.MODEL, n.HISTORY, n.HEALTH):
                return [variable], again
            return ["/".join(parts[:2])], "all of the run is to be trained again, where no copy can be restored"
        for run in self.runs:
            names = [n.run_name(name, run) for name in (n.LATENTS, *n.OF_A_RUN) if name not in (n.ROI, n.SPLIT)]
            if variable in names:
                return list(dict.fromkeys(names)), f"'vaearr encode {self.store} --run {run}' makes it again"
        made = [key for key, found in self.attributes.items() if n.PROVENANCE in found and key not in n.RESERVED]
        if beside := [key for key in made if variable == key or variable.startswith(f"{key}_")]:
            key = max(beside, key=len)
            return [key, *(name for name in self.attributes if name.startswith(f"{key}_") and name not in made)], again
        return [variable], ""

    def advice(self, variable: str) -> str:
        """What to do about a damaged variable, by who can make it again."""
        names, again = self.together(variable)
        if again:
            return f"'vaearr verify {self.store} --remove {names[0]}' takes it out, then {again}"
        if variable == ROOT:
            return (
                f"'vaearr verify {self.store} --relist' lists the variables anew and puts the attributes back; else "
                "restore it from a copy"
            )
        return "restore it from a copy or ingest again"


@dataclass
class Verification:
    """What was looked at, and what was found. notes: what is not damage, such as what could not be checked."""

    store: Path
    known: Known
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
        return {
            "store": str(self.store),
            "healthy": self.is_healthy,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": self.notes,
            "leftovers": [
                {"path": str(left.path), "what": left.what, "rubbish": left.is_rubbish, "age_seconds": round(left.age)}
                for left in self.leftovers
            ],
            "without_checksums": self.unsealed,
            "variables": self.n_variables,
            "files": self.n_files,
            "bytes": self.n_bytes,
        }

    def find(self, variable: str, where: str, what: str, do: str | None = None) -> None:
        """Add damage, with what to do about it."""
        self.findings.append(Finding(variable, where, what, do or self.known.advice(variable)))


def verify_store(path: str | Path, *, progress: Progress = True) -> Verification:
    """Check a store: all files, the list of variables, the schema, the runs and where things came from.

    Files are held against the checksums that were taken when they were published. Variables without (of an earlier
    version, or written by other programs) are decoded instead, which finds all but a chunk in the place of another; of
    patterns that is found too. Memory stays small: one chunk or shard per thread.

    Of a store at `s3://…` every object is read where it is, once.

    Raises NoInputError where there is no store, UsageError for a URL that can only be read. All other damage is in
    `findings`.
    """
    store = store_path(path)
    if place(store).tag() is None and not (not object_url(store) and store.is_dir()):
        raise NoInputError(f"there is no store at {store}; make one with 'vaearr ingest SOURCE {store}'.")
    result = Verification(store, Known(store))
    again = "restore the store from a copy or ingest again"
    try:
        check_store(store)
    except DataError as error:
        result.find(ROOT, METADATA, str(error), again)
    can_be_opened = result.is_healthy
    with showing(progress, "verifying") as show:
        _check_files(result, show)
    if result.is_healthy:
        try:
            schema.validate(open_store(store, chunks=None))
        except (VaearrError, ValueError, KeyError, TypeError) as error:
            result.find(ROOT, METADATA, f"it is not laid out as a store ({' '.join(str(error).split())})", again)
    for run in run_names(store) if can_be_opened else ():
        found = {finding.place for finding in result.findings}
        for where, what in _run_damage(store, run, result.known.attributes):
            if where not in found:
                result.find(f"{n.RUNS}/{run}", where, what)
    result.leftovers = [*leftovers(store)] if can_be_opened or not object_url(store) else []
    if result.unsealed:
        named = ", ".join(result.unsealed[:_MOST_NAMED]) + (" …" if len(result.unsealed) > _MOST_NAMED else "")
        result.notes.append(
            f"{len(result.unsealed)} variables have no checksums of their own ({named}) and were decoded instead: one "
            "chunk in the place of another would not be found; 'vaearr verify STORE --seal' adds them."
        )
    return result


def _check_files(result: Verification, show: Show) -> None:
    """The listing, then every array; of objects only what is listed: all else is left over, see `leftovers`."""
    files = place(result.store)
    there, is_here = tree(files), isinstance(files, Folder)
    try:
        under_way = tuple(journalled(result.store))  # keys that a killed publication was about to change
    except (OSError, ValueError):
        under_way = ()
    for key, what in _listing_damage(files, there):
        if is_of(key, under_way):
            result.notes.append(f"{key}: a command that changed it was killed; the next one that writes completes it.")
        else:
            result.find(key, f"{key}/{METADATA}".lstrip("/"), what)
    for key, names in there.parts.items():
        is_node = key in there.arrays
        if not key or not (is_node or f"{key}/{SEAL}" in there.sizes):
            continue
        if is_here or (key if is_node else key.rpartition("/")[0]) in result.known.listed:
            _check_array(result, files, there, key, names, show)
    for name in sorted(there.sizes):  # links in the place of variables
        if name.rpartition("/")[0] in ("", *there.groups) and (what := files.odd(name)):
            result.find(name, name, what)
    if is_here and is_copy(result.store):
        result.notes.append(
            "it is a copy or part of another store, as other programs write them: chunks of zeros may be left out. The "
            "next command that writes, or 'vaearr verify STORE --seal', gives it an identity and checksums of its own."
        )
    elif n.PATTERNS in result.unsealed and not _is_as_ingested(result.store):
        result.find(n.PATTERNS, n.PATTERNS, "the values are not those that were ingested, though each chunk is whole")


def _listing_damage(place: Place, there: Tree) -> Iterator[tuple[str, str]]:
    """Root metadata against what is there: (key, what is wrong); all that is listed is there as it is listed.

    Objects that no listing mentions are no damage: a killed command left them, or one is at work.
    """
    try:
        root = json.loads(place.read(METADATA) or b"")
        listed, attributes = dict(root[LISTING]["metadata"]), dict(root["attributes"])
    except _DAMAGED_JSON as error:
        yield "", f"the list of variables cannot be read ({type(error).__name__}: {error})"
        return
    if n.SCHEMA_VERSION not in attributes:
        yield "", "another program replaced the attributes of the store"
    elif attributes.get(ROOT_SEAL, attributes_seal(attributes)) != attributes_seal(attributes):
        yield "", "the attributes of the store are not those that were written"
    present = {key for key in (*there.arrays, *there.groups) if key}
    for key, entry in listed.items():
        if key not in present:
            yield key, "it is listed and not there"
        elif not _is_same(entry, place, key) and not (
            key == n.RUNS and _is_same({**entry, "attributes": attributes}, place, key)
        ):  # the copy of the root's attributes is listed by the next command that writes
            yield key, "its metadata cannot be read or is not the listed one"
    if isinstance(place, Folder):
        yield from ((key, "it is there and not listed") for key in sorted(present - listed.keys()))


def _is_same(entry: Any, place: Place, key: str) -> bool:
    try:
        own = json.loads(place.read(f"{key}/{METADATA}") or b"")
        return {**own, LISTING: None} == {**entry, LISTING: None}
    except _DAMAGED_JSON:
        return False


def _check_array(result: Verification, files: Place, there: Tree, key: str, names: list[str], show: Show) -> None:
    """Each file of an array, or of a model, against the checksums of its publication; without them it is decoded."""
    result.n_variables += not key.endswith(f"/{n.MODEL}")
    odd = {name: what for name in names if not name.endswith(PART) and (what := files.odd(f"{key}/{name}"))}
    names = [name for name in names if name not in odd and not name.endswith(PART)]
    wrong = list(odd.items())
    try:
        seal = read_seal(files, key)
    except (ValueError, OSError) as error:
        result.find(key, key, f"its checksums cannot be read ({error})")
        return
    known: Mapping[str, Any] = seal or {}
    if seal is None and isinstance(files, Objects):
        wrong.append((SEAL, "it is missing"))
    elif METADATA in odd:
        pass  # nothing more can be told
    elif seal is None:
        try:
            array = stored_array(result.store / key)
            known = _chunks(array, len(names))
        except Exception as error:  # zarr raises many kinds for damaged metadata
            wrong.append((METADATA, f"its metadata cannot be used ({' '.join(str(error).split())[:120]})"))
    elif METADATA in names:  # beside a model, checkpoints may lie
        wrong += [(name, "it does not belong there") for name in names if name not in seal]
    missing = [name for name in known if name not in {*names, *odd}]
    if seal is None and (key != n.PATTERNS or n.RUNS not in there.groups):  # of a copy, see `is_copy`
        what = "it is missing, which stands for the fill value (NaN or 0) throughout; whether it was ever there is not"
        result.notes += [f"{key}/{name}: {what} known." for name in missing]
    else:
        wrong += [(name, "it is missing") for name in missing]

    def look(name: str) -> str:
        try:
            if seal is not None:
                same = files.sha256(f"{key}/{name}") == known[name]
                return "" if same else "its bytes are not those that were written"
            array[known[name]]
            return ""
        except VaearrError:
            raise
        except Exception as error:  # codecs have errors of their own
            return f"it cannot be read ({' '.join(str(error).split())[:120]})"

    looked = [name for name in names if name in known]
    for name, what in zip(looked, read_ahead(look, looked, AT_ONCE), strict=True):
        size = there.sizes[f"{key}/{name}"]
        result.n_files, result.n_bytes = result.n_files + 1, result.n_bytes + size
        show(result.n_bytes, sum(there.sizes.values()))
        if what:
            wrong.append((name, what))
    for name, what in wrong:
        result.find(key, f"{key}/{name}", what)
    if seal is None and not wrong:
        result.unsealed.append(key)


def _chunks(array: Any, n_files: int) -> dict[str, tuple[slice, ...]]:
    """Name and region of each chunk. Raises ValueError where there are far more than files."""
    sides = array.shards or array.chunks
    count = math.prod(math.ceil(size / side) for size, side in zip(array.shape, sides, strict=True))
    if count > n_files + MOST_ABSENT:
        raise ValueError(f"it declares {count} chunks, {n_files} files are there")
    return dict(chunks_of(array))


def _is_as_ingested(store: Path) -> bool:
    """Whether the patterns' values have the checksum that the ingest took of them; chunk after chunk, all decoded.

    With the attribute `sha256_of` = `shards`: of the binary checksums of the chunks (shards), in row-major order, each
    of its values in C order, so that they may be written side by side. Without it, as older stores have it: of the
    values themselves, one shard after the other.
    """
    array = stored_array(store / n.PATTERNS)
    by_shard, values = array.attrs.get(n.SHA256_OF) == n.SHARDS, hashlib.sha256()
    if "sha256" not in array.attrs:
        return True
    for _, region in chunks_of(array):
        block = np.ascontiguousarray(array[region])
        values.update(hashlib.sha256(block.data).digest() if by_shard else block.data)
    return bool(array.attrs["sha256"] == values.hexdigest())


def _run_damage(store: Path, run: str, attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with a run: (place, what)."""
    try:
        manifest = run_manifest(store, run)
    except DataError:
        yield f"{n.RUNS}/{run}/{METADATA}", "its manifest cannot be read"
        return
    folder, roi = f"{n.RUNS}/{run}/{n.MODEL}", n.run_name(n.ROI, run)
    if roi not in attributes:
        yield roi, f"run {run!r} has no map {roi!r}"
    if manifest.get("kind") == n.ATTACHED:
        return
    files, wanted = place(store), manifest.get("weights_sha256")
    weights, config = f"{folder}/{n.MODEL_WEIGHTS}", f"{folder}/{n.MODEL_CONFIG}"
    try:
        if files.read(weights) is None:
            yield weights, "the weights are missing"
        elif files.sha256(weights) != wanted:
            yield weights, "the weights are not those of the manifest"
    except (OSError, DataError) as error:
        yield weights, f"it cannot be read ({error})"
    try:
        described = json.loads(files.read(config) or b"{}")
        differing = sorted(key for key in described.keys() & manifest.keys() if described[key] != manifest[key])
        if differing or not described:
            yield config, f"it differs from the manifest in {', '.join(differing)}" if described else "it is missing"
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        yield config, f"it cannot be read ({type(error).__name__})"
    data, own = manifest.get("data"), attributes.get(n.PATTERNS, {}).get("sha256")
    if not isinstance(data, Mapping) or data.get("sha256") != own:
        yield n.PATTERNS, f"run {run!r} was trained on patterns with another checksum"
    latents = nested(attributes.get(n.run_name(n.LATENTS, run), {}), n.PROVENANCE)
    if isinstance(latents, Mapping) and latents.get("weights_sha256") != wanted:
        yield n.run_name(n.LATENTS, run), f"the latents were not made by the weights of run {run!r}"


_RUBBISH, _WORK, _NEEDED = "rubbish", "work", "needed"
_STAGED = {  # what lies in the staging folder: its name, what it is, and whether a command goes on with it
    "publishing.json": ("a publication that was killed; the next command that writes completes it", _NEEDED),
    f".*{PART}": ("an unfinished file", _RUBBISH),
    "variables-*": ("unfinished variables; the same command goes on with them", _WORK),
    "run-*": ("an unfinished training; 'vaearr train' with the same run goes on with it", _WORK),
    "new-*": ("a store that was not finished", _RUBBISH),
    "replaced-*": ("what was replaced", _RUBBISH),
    "*-[0-9a-f]*": ("maps or a table that were not published", _RUBBISH),
    "*": ("nothing that vaearr wrote", _NEEDED),
}
_OF_OBJECTS = "objects that no list of variables mentions: of a command that was killed, or is at work elsewhere"
_OF_A_REPORT = re.compile(r"\..+\.\d+\.(part|old)")


def leftovers(store: Path) -> Iterator[Leftover]:
    """What killed writers of a store left: in its hidden sibling, among its objects, among its reports."""
    needed = {*staged_names(store), TOKEN}
    for path in _within(staging_root(store)):
        if path.name not in needed:
            what = next(what for pattern, what in _STAGED.items() if fnmatchcase(path.name, pattern))
            yield Leftover(path, *what, _age(path))
    if url := object_url(store):
        for key, age in unlisted(Objects(store)).items():
            if key not in journalled(store):
                yield Leftover(StorePath(f"{url}/{key}"), _OF_OBJECTS, _RUBBISH, age)
    else:
        for path in sorted(path for place in ("", "*/", "runs/*/") for path in store.glob(f"{place}.*{PART}")):
            yield Leftover(path, "an unfinished file", _RUBBISH, _age(path))
    for path in _within(store.with_name(f"{store.name.removesuffix('.zarr')}.reports")):
        if _OF_A_REPORT.fullmatch(path.name):
            yield Leftover(path, "an unfinished or replaced report", _RUBBISH, _age(path))


def _within(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _age(path: Path) -> float:
    return time.time() - max((p.lstat().st_mtime for p in (path, *path.rglob("*"))), default=0.0)


def removable(store: Path, *, unfinished: bool = False) -> list[Leftover]:
    """Rubbish older than a day; with `unfinished` also work that a command could go on with."""
    kinds = {_RUBBISH, _WORK} if unfinished else {_RUBBISH}
    return [left for left in leftovers(store) if left.age > KEPT_SECONDS and left.kind in kinds]


def clean(store: Path, *, unfinished: bool = False) -> list[Leftover]:
    """Remove what is `removable`, as the one writer of the store; returns what went. Completes a killed publication."""
    with writer(store):
        gone = removable(store, unfinished=unfinished)
        for left in gone:
            if url := object_url(left.path):
                objects = Objects(store)
                key = url.removeprefix(f"{objects.url}/")
                objects.remove([name for name in objects.files() if is_of(name, (key,))])
            else:
                shutil.rmtree(left.path) if left.path.is_dir() else left.path.unlink()
        remove_if_empty(staging_root(store))
    return gone


def take_out(path: str | Path, variable: str) -> list[str]:
    """Remove a derived variable with all that was written with it, or a table or run (`runs/vae`); returns the names.

    Raises UsageError for what came with the source, NoInputError for a name that nothing has.
    """
    store, parts = check_store(path), variable.split("/")
    if parts[0] == n.RUNS:
        gone = remove(store, runs=parts[1:]) if len(parts) == 2 else remove(store, variables=[variable])
    else:
        gone = remove(store, variables=Known(store).together(variable)[0])
    if not gone:
        raise NoInputError(f"{store} has no {variable!r}; 'vaearr info {store}' lists what it has.")
    return gone


def seal_store(path: str | Path) -> list[str]:
    """Add checksums to the variables that have none, once they are found whole; returns their names.

    Raises DataError where the store is damaged, with the number of findings.
    """
    store = _folder(path, "checksums are added")
    with writer(store):
        found = verify_store(store)
        if not found.is_healthy:
            raise DataError(
                f"{store} is damaged ({len(found.findings)} findings), so no checksums were added; 'vaearr verify' "
                "says what to do."
            )
        for variable in found.unsealed:
            write_seal(store / variable, Folder(store / variable).files(), durable=True)
    return found.unsealed


def relist(path: str | Path) -> None:
    """Make the list of variables anew, in one atomic step; a killed publication is completed before."""
    store = _folder(path, "variables are listed anew")
    with writer(store):
        try:
            refresh_listing(store)
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # zarr's for damaged metadata
            raise DataError(
                f"{store} holds a variable whose metadata cannot be read ({' '.join(str(error).split())[:120]}); "
                f"'vaearr verify {store}' says which one, take it out first."
            ) from error


def _folder(path: str | Path, what: str) -> Path:
    store = check_store(path)
    if url := object_url(store):
        raise UsageError(f"{url}: {what} where a store is a folder; one at a URL has them from the start.")
    return store


def in_words(result: Verification) -> Iterator[str]:
    """The result in lines: damage first, one line each, then notes and leftovers, then the sum."""
    yield from (f"damaged: {finding}" for finding in result.findings)
    yield from (f"note: {note}" for note in result.notes)
    for left in result.leftovers:
        hours = left.age / 3600
        yield f"left over: {left.path}, {left.what}, {hours:.1f} hours old"
    size = f"{result.n_files} files, {result.n_bytes / 1e6:.1f} MB of {result.n_variables} variables"
    state = "is whole" if result.is_healthy else f"is damaged, {len(result.findings)} findings"
    yield f"{result.store} {state} ({size} looked at)"
