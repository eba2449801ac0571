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
from vaearr.store.checks import ArrayCheck, Found, OnFile, check_arrays, check_listing, check_values
from vaearr.store.commit import journalled, writer
from vaearr.store.leftovers import Leftover, leftovers
from vaearr.store.listing import is_of, refresh_listing
from vaearr.store.places import METADATA, Folder, object_url, place, sha256_of, store_path
from vaearr.store.remove import remove
from vaearr.store.seals import LISTING, tree, write_seal
from vaearr.store.settling import is_copy

ROOT = ""
_MODEL = f"/{n.MODEL}"
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
    result = Verification(store)
    try:
        check_store(store)
        can_be_opened = True
    except DataError as error:
        result.findings.append(Finding(ROOT, "zarr.json", str(error), "restore the store from a copy or ingest again"))
        can_be_opened = False
    attributes = _attributes(store)
    if _check_files(result, attributes, on_file) and can_be_opened:
        _check_schema(result)
    for run in run_names(store) if can_be_opened else ():
        advice = _advice(store, f"{n.RUNS}/{run}", attributes)
        for where, what in _run_damage(store, run, attributes):
            if where not in {finding.place for finding in result.findings}:
                result.findings.append(Finding(f"{n.RUNS}/{run}", where, what, advice))
    result.leftovers = leftovers(store) if can_be_opened or not object_url(store) else []
    if result.unsealed:
        named = ", ".join(result.unsealed[:_MOST_NAMED]) + (" …" if len(result.unsealed) > _MOST_NAMED else "")
        result.notes.append(
            f"{len(result.unsealed)} variables have no checksums of their own ({named}) and were decoded instead: one "
            "chunk in the place of another would not be found; 'vaearr verify STORE --seal' adds them."
        )
    return result


def _check_files(result: Verification, attributes: Mapping[str, Any], on_file: OnFile | None) -> bool:
    """Listing and arrays; returns whether the store can be opened and its schema looked at."""
    files = place(result.store)
    there, under_way = tree(files), _under_way(result.store)
    found: list[Found] = []
    for item in check_listing(files, there):
        if is_of(item.variable, under_way):
            result.notes.append(
                f"{item.variable}: a command that changed it was killed; the next one that writes completes it."
            )
        else:
            found.append(item)
    listed = {*_listed(result.store)}
    for check in check_arrays(files, there, on_file):
        node = check.variable if check.variable in there.arrays else check.variable.rpartition("/")[0]
        if object_url(result.store) and node not in listed:
            continue  # what is not listed is left over, see `leftovers`
        found += check.found
        _count(result, check)
    if isinstance(files, Folder) and is_copy(result.store):
        result.notes.append(
            "it is a copy or part of another store, as other programs write them: chunks of zeros may be left out. The "
            "next command that writes, or 'vaearr verify STORE --seal', gives it an identity and checksums of its own."
        )
    elif isinstance(files, Folder) and n.PATTERNS in result.unsealed and n.PATTERNS not in {x.variable for x in found}:
        wrong = check_values(files)
        found += [] if wrong is None else [wrong]
    for item in found:
        if item.is_sure:
            result.findings.append(
                Finding(item.variable, item.file, item.what, _advice(result.store, item.variable, attributes))
            )
        else:
            result.notes.append(f"{item.file}: {item.what}.")
    return not found


def _count(result: Verification, check: ArrayCheck) -> None:
    result.n_variables += not check.variable.endswith(_MODEL)
    result.n_files += check.n_files
    result.n_bytes += check.n_bytes
    if not check.is_sealed and not any(item.is_sure for item in check.found):
        result.unsealed.append(check.variable)


def _under_way(store: Path) -> tuple[str, ...]:
    """Keys that a killed publication was about to add."""
    try:
        return tuple(journalled(store))
    except (OSError, ValueError):
        return ()


def _check_schema(result: Verification) -> None:
    try:
        schema.validate(open_store(result.store, chunks=None))
    except (VaearrError, ValueError, KeyError, TypeError) as error:
        what = f"it is not laid out as a store ({' '.join(str(error).split())})"
        result.findings.append(Finding(ROOT, "zarr.json", what, "restore it from a copy or ingest again"))


def _run_damage(store: Path, run: str, attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with a run: (place, what)."""
    try:
        manifest = run_manifest(store, run)
    except DataError:
        yield f"{n.RUNS}/{run}/zarr.json", "its manifest cannot be read"
        return
    folder = f"{n.RUNS}/{run}/{n.MODEL}"
    for name in (n.run_name(n.ROI, run),):
        if name not in attributes:
            yield name, f"run {run!r} has no map {name!r}"
    if manifest.get("kind") == n.ATTACHED:
        return
    files, wanted = place(store), manifest.get("weights_sha256")
    weights, config = f"{folder}/{n.MODEL_WEIGHTS}", f"{folder}/{n.MODEL_CONFIG}"
    try:
        if files.read(weights) is None:
            yield weights, "the weights are missing"
        elif sha256_of(files, weights) != wanted:
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
    yield from _origin_damage(run, manifest, attributes)


def _origin_damage(run: str, manifest: Mapping[str, Any], attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where the weights and the latents say that they come from."""
    data = manifest.get("data")
    own = attributes.get(n.PATTERNS, {}).get("sha256")
    if not isinstance(data, Mapping) or data.get("sha256") != own:
        yield n.PATTERNS, f"run {run!r} was trained on patterns with another checksum"
    latents = nested(attributes.get(n.run_name(n.LATENTS, run), {}), n.PROVENANCE)
    if isinstance(latents, Mapping) and latents.get("weights_sha256") != manifest.get("weights_sha256"):
        yield n.run_name(n.LATENTS, run), f"the latents were not made by the weights of run {run!r}"


def _listed(store: Path) -> dict[str, Any]:
    """Metadata of all that is listed, by key."""
    try:
        return dict(json.loads(place(store).read(METADATA) or b"")[LISTING]["metadata"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _attributes(store: Path) -> dict[str, dict[str, Any]]:
    """Attributes of the variables in the root, as they are listed."""
    try:
        return {key: dict(found.get("attributes", {})) for key, found in _listed(store).items() if "/" not in key}
    except (AttributeError, TypeError, ValueError):
        return {}


def _advice(store: Path, variable: str, attributes: Mapping[str, Any]) -> str:
    """What to do about a damaged variable, by who can make it again."""
    take_out = f"'vaearr verify {store} --remove {{}}' takes it out"
    parts = variable.split("/")
    if parts[0] == n.RUNS and len(parts) > 1:
        if len(parts) > 2 and parts[2] not in (n.MODEL, n.HISTORY, n.HEALTH):
            return f"{take_out.format(variable)}, then the command that wrote it makes it again"
        return (
            f"restore it from a copy, or {take_out.format('/'.join(parts[:2]))} with all of the run, then train again"
        )
    run = _run_of(variable, _runs(store))
    if run is not None:
        again = f"'vaearr encode {store} --run {run}' makes it again"
        return f"{take_out.format(n.run_name(n.LATENTS, run))}, then {again}"
    made = _made_with(variable, attributes)
    if made is not None:
        return f"{take_out.format(made)}, then the command that wrote it makes it again"
    if variable == ROOT:
        return (
            f"'vaearr verify {store} --relist' lists the variables anew and puts the attributes back; else "
            "restore it from a copy"
        )
    return "restore it from a copy or ingest again"


def _runs(store: Path) -> list[str]:
    """Names of runs, whole or not."""
    names = [*_listed(store), *place(store).files(n.RUNS)]
    return sorted({name.split("/")[1] for name in names if name.startswith(f"{n.RUNS}/")} - {METADATA})


def _run_of(variable: str, runs: list[str]) -> str | None:
    """The run whose encoding wrote a variable; None for others."""
    of_encoding = set(n.OF_A_RUN) - {n.ROI, n.SPLIT}
    return next((run for run in runs if variable in {n.run_name(name, run) for name in of_encoding}), None)


def _made_with(variable: str, attributes: Mapping[str, Any]) -> str | None:
    """The variable with a provenance that this one is, or stands beside."""
    made = [key for key, found in attributes.items() if n.PROVENANCE in found and key not in n.RESERVED]
    beside = [key for key in made if variable == key or variable.startswith(f"{key}_")]
    return max(beside, key=len, default=None)


def take_out(path: str | Path, variable: str) -> list[str]:
    """Remove a derived variable with all that was written with it, or a table or run (`runs/vae`); returns the names.

    Raises UsageError for what came with the source, NoInputError for a name that nothing has.
    """
    store = check_store(path)
    attributes = _attributes(store)
    parts = variable.split("/")
    if parts[0] == n.RUNS and len(parts) == 2:
        gone = remove(store, runs=[parts[1]])
    else:
        gone = remove(store, variables=_together(variable, _runs(store), attributes))
    if not gone:
        raise NoInputError(f"{store} has no {variable!r}; 'vaearr info {store}' lists what it has.")
    return gone


def _together(variable: str, runs: list[str], attributes: Mapping[str, Any]) -> list[str]:
    """The names that one command wrote, this one among them."""
    run = _run_of(variable, runs)
    if run is not None:
        return [n.run_name(name, run) for name in n.OF_A_RUN if name not in (n.ROI, n.SPLIT)]
    made = _made_with(variable, attributes)
    if made is None:
        return [variable]
    return [made, *(key for key in attributes if key.startswith(f"{made}_") and n.PROVENANCE not in attributes[key])]


def seal_store(path: str | Path) -> list[str]:
    """Add checksums to the variables that have none, once they are found whole; returns their names.

    Raises DataError where the store is damaged, with the number of findings.
    """
    store = check_store(path)
    _refuse_url(store, "checksums are added")
    with writer(store):
        found = verify_store(store)
        if not found.is_healthy:
            raise DataError(
                f"{store} is damaged ({len(found.findings)} findings), so no checksums were added; 'vaearr verify' "
                "says what to do."
            )
        for variable in found.unsealed:
            write_seal(store / variable, Folder(store / variable).files(), {}, durable=True)
    return found.unsealed


def relist(path: str | Path) -> None:
    """Make the list of variables anew, in one atomic step; a killed publication is completed before."""
    store = check_store(path)
    _refuse_url(store, "variables are listed anew")
    with writer(store):
        try:
            refresh_listing(store)
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # zarr's for damaged metadata
            raise DataError(
                f"{store} holds a variable whose metadata cannot be read ({' '.join(str(error).split())[:120]}); "
                f"'vaearr verify {store}' says which one, take it out first."
            ) from error


def _refuse_url(store: Path, what: str) -> None:
    if url := object_url(store):
        raise UsageError(f"{url}: {what} where a store is a folder; one at a URL has them from the start.")


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
