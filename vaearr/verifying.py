"""Is a store whole? Every file against its checksum, runs against their manifests, and what to do where it is not.

Nothing is changed. What killed commands left behind is named too; it does no harm.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, NoInputError, UsageError, VaearrError
from vaearr.provenance import nested
from vaearr.store import check_store, open_store, run_manifest, run_names
from vaearr.store.checks import Leftover, OnFile, check_arrays, check_listing, is_as_ingested, leftovers
from vaearr.store.commit import journalled, writer
from vaearr.store.listing import LISTING, is_of, refresh_listing, tree, write_seal
from vaearr.store.places import METADATA, Folder, object_url, place, store_path
from vaearr.store.remove import remove
from vaearr.store.settling import is_copy

ROOT = ""
_MOST_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """Damage: of which variable (empty: the store itself), in which file or part, what it is, what to do."""

    variable: str
    place: str
    found: str
    do: str

    def __str__(self) -> str:
        return f"{self.place or self.variable}: {self.found}; {self.do}"


@dataclass
class Verification:
    """What was looked at, and what was found. notes: what is not damage, such as what could not be checked."""

    store: Path
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


def verify_store(path: str | Path, *, on_file: OnFile | None = None) -> Verification:
    """Check a store: all files, the list of variables, the schema, the runs and where things came from.

    Files are held against the checksums that were taken when they were published. Variables without (of an earlier
    version, or written by other programs) are decoded instead, which finds all but a chunk in the place of another; of
    patterns that is found too. Memory stays small: one chunk or shard per thread. on_file: told the bytes of each file.

    Of a store at `s3://…` every object is read where it is, once.

    Raises NoInputError where there is no store, UsageError for a URL that can only be read. All other damage is in
    `findings`.
    """
    store = store_path(path)
    if place(store).tag() is None and not (not object_url(store) and store.is_dir()):
        raise NoInputError(f"there is no store at {store}; make one with 'vaearr ingest SOURCE {store}'.")
    result, maker = Verification(store), _Makers(store)

    def find(variable: str, where: str, what: str) -> None:
        result.findings.append(Finding(variable, where, what, maker.advice(variable)))

    again, can_be_opened = "restore the store from a copy or ingest again", True
    try:
        check_store(store)
    except DataError as error:
        result.findings.append(Finding(ROOT, METADATA, str(error), again))
        can_be_opened = False
    for variable, where, what in _file_damage(result, maker.listed, on_file):
        find(variable, where, what)
    if can_be_opened and not result.findings:
        try:
            schema.validate(open_store(store, chunks=None))
        except (VaearrError, ValueError, KeyError, TypeError) as error:
            what = f"it is not laid out as a store ({' '.join(str(error).split())})"
            result.findings.append(Finding(ROOT, METADATA, what, again))
    for run in run_names(store) if can_be_opened else ():
        known = {finding.place for finding in result.findings}
        for where, what in _run_damage(store, run, maker.attributes):
            if where not in known:
                result.findings.append(Finding(f"{n.RUNS}/{run}", where, what, maker.advice(f"{n.RUNS}/{run}")))
    result.leftovers = [*leftovers(store)] if can_be_opened or not object_url(store) else []
    if result.unsealed:
        named = ", ".join(result.unsealed[:_MOST_NAMED]) + (" …" if len(result.unsealed) > _MOST_NAMED else "")
        result.notes.append(
            f"{len(result.unsealed)} variables have no checksums of their own ({named}) and were decoded instead: one "
            "chunk in the place of another would not be found; 'vaearr verify STORE --seal' adds them."
        )
    return result


def _file_damage(
    result: Verification, listed: Mapping[str, Any], on_file: OnFile | None
) -> Iterator[tuple[str, str, str]]:
    """(variable, file, what) of what is wrong with the listing and the arrays; what was looked at is counted."""
    files = place(result.store)
    there, is_here = tree(files), isinstance(files, Folder)
    try:
        under_way = tuple(journalled(result.store))  # keys that a killed publication was about to add
    except (OSError, ValueError):
        under_way = ()
    for key, what in check_listing(files, there):
        if is_of(key, under_way):
            result.notes.append(f"{key}: a command that changed it was killed; the next one that writes completes it.")
        else:
            yield key, f"{key}/{METADATA}".lstrip("/"), what
    damaged = set()
    for check in check_arrays(files, there, on_file):
        key = check.variable
        if not is_here and (key if key in there.arrays else key.rpartition("/")[0]) not in listed:
            continue  # what is not listed is left over, see `leftovers`
        yield from ((key, *found) for found in check.found)
        result.notes += [
            f"{name}: it is missing, which stands for the fill value (NaN or 0) throughout; whether it was ever there "
            "is not known."
            for name in check.absent
        ]
        result.n_variables += not key.endswith(f"/{n.MODEL}")
        result.n_files += check.n_files
        result.n_bytes += check.n_bytes
        if check.found:
            damaged.add(key)
        elif not check.is_sealed:
            result.unsealed.append(key)
    if is_here and is_copy(result.store):
        result.notes.append(
            "it is a copy or part of another store, as other programs write them: chunks of zeros may be left out. The "
            "next command that writes, or 'vaearr verify STORE --seal', gives it an identity and checksums of its own."
        )
    elif n.PATTERNS in result.unsealed and not is_as_ingested(result.store):
        what = "the values are not those that were ingested, though each chunk is whole"
        yield n.PATTERNS, n.PATTERNS, what


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


class _Makers:
    """What is written together in a store, and by which command: what can be made again, and how."""

    def __init__(self, store: Path) -> None:
        self.store, files = store, place(store)
        try:
            self.listed = dict(json.loads(files.read(METADATA) or b"")[LISTING]["metadata"])
            self.attributes = {
                key: dict(found.get("attributes", {})) for key, found in self.listed.items() if "/" not in key
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
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


def take_out(path: str | Path, variable: str) -> list[str]:
    """Remove a derived variable with all that was written with it, or a table or run (`runs/vae`); returns the names.

    Raises UsageError for what came with the source, NoInputError for a name that nothing has.
    """
    store, parts = check_store(path), variable.split("/")
    if parts[0] == n.RUNS:
        gone = remove(store, runs=parts[1:]) if len(parts) == 2 else remove(store, variables=[variable])
    else:
        gone = remove(store, variables=_Makers(store).together(variable)[0])
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
