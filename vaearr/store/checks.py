"""Is every array whole, and what did killed writers leave behind?

Each file is held against the checksums of its publication; without them it is decoded. What is left over is named, and
removed on request where it is ours and of no more use.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from vaearr import names as n
from vaearr.errors import VaearrError
from vaearr.store.commit import journalled, remove_if_empty, staged_names, staging_root, writer
from vaearr.store.folders import PART
from vaearr.store.layout import chunks_of
from vaearr.store.listing import LISTING, ROOT_SEAL, SEAL, Tree, attributes_seal, is_of, read_seal, tree
from vaearr.store.places import AT_ONCE, METADATA, Folder, Objects, Place, StorePath, object_url, read_ahead
from vaearr.store.sending import TOKEN, unlisted

MOST_ABSENT = 10**6  # chunks that an array may declare beyond those that have files
KEPT_SECONDS = 24 * 3600.0  # what is younger may belong to a command that runs
OnFile = Callable[[int], None]
_DAMAGED_JSON = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class ArrayCheck:
    """What was looked at of one array: files and bytes, whether by checksums of its publication, and what was found.

    found: files below the store and what is wrong with them; absent: files that may never have been there.
    """

    variable: str
    is_sealed: bool
    found: list[tuple[str, str]]
    absent: list[str]
    n_files: int = 0
    n_bytes: int = 0


def check_listing(place: Place, there: Tree) -> Iterator[tuple[str, str]]:
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


def check_arrays(place: Place, there: Tree, on_file: OnFile | None = None) -> Iterator[ArrayCheck]:
    """Every array of the store, one after the other; on_file is told the bytes of each file that was looked at."""
    for key, names in there.parts.items():
        if key and (key in there.arrays or f"{key}/{SEAL}" in there.sizes):
            yield _check_array(place, there, key, names, on_file or (lambda size: None))
    for name in sorted(there.sizes):  # links in the place of variables
        if name.rpartition("/")[0] in ("", *there.groups) and (what := place.odd(name)):
            yield ArrayCheck(name, False, [(name, what)], [])


def _check_array(place: Place, there: Tree, key: str, names: list[str], on_file: OnFile) -> ArrayCheck:
    odd = {name: what for name in names if not name.endswith(PART) and (what := place.odd(f"{key}/{name}"))}
    files = [name for name in names if name not in odd and not name.endswith(PART)]
    found, absent = [(f"{key}/{name}", what) for name, what in sorted(odd.items())], list[str]()
    try:
        seal = read_seal(place, key)
    except (ValueError, OSError) as error:
        return ArrayCheck(key, False, [(key, f"its checksums cannot be read ({error})")], [])
    known: Mapping[str, Any] = seal or {}
    missing = [f"{key}/{name}" for name in known if name not in {*files, *odd}]
    if seal is not None and METADATA in files:  # beside a model, checkpoints may lie
        found += [(f"{key}/{name}", "it does not belong there") for name in files if name not in seal]
    elif seal is None and isinstance(place, Objects):
        return ArrayCheck(key, True, [(f"{key}/{SEAL}", "it is missing")], [])
    elif seal is None:
        try:
            array = zarr.open_array(place.path / key, mode="r", zarr_format=3)
            known = _chunks(array, len(files))
        except Exception as error:  # zarr raises many kinds for damaged metadata
            what = f"its metadata cannot be used ({' '.join(str(error).split())[:120]})"
            return ArrayCheck(key, False, [*found, (f"{key}/{METADATA}", what)], [])
        missing = [f"{key}/{name}" for name in known if name not in {*files, *odd}]
        if key != n.PATTERNS or n.RUNS not in there.groups:  # of a copy, see `is_copy`
            missing, absent = [], missing
    found += [(name, "it is missing") for name in missing]

    def look(name: str) -> str:
        try:
            if seal is not None:
                same = place.sha256(f"{key}/{name}") == known[name]
                return "" if same else "its bytes are not those that were written"
            array[known[name]]
            return ""
        except VaearrError:
            raise
        except Exception as error:  # codecs have errors of their own
            return f"it cannot be read ({' '.join(str(error).split())[:120]})"

    looked = [name for name in files if name in known]
    for name, what in zip(looked, read_ahead(look, looked, AT_ONCE), strict=True):
        on_file(there.sizes[f"{key}/{name}"])
        if what:
            found.append((f"{key}/{name}", what))
    n_bytes = sum(there.sizes[f"{key}/{name}"] for name in looked)
    return ArrayCheck(key, seal is not None, found, absent, len(looked), n_bytes)


def _chunks(array: zarr.Array, n_files: int) -> dict[str, tuple[slice, ...]]:
    """Name and region of each chunk. Raises ValueError where there are far more than files."""
    sides = array.shards or array.chunks
    count = math.prod(math.ceil(size / side) for size, side in zip(array.shape, sides, strict=True))
    if count > n_files + MOST_ABSENT:
        raise ValueError(f"it declares {count} chunks, {n_files} files are there")
    return dict(chunks_of(array))


def is_as_ingested(store: Path) -> bool:
    """Whether the patterns' values have the checksum that the ingest took of them; chunk after chunk, all decoded.

    With the attribute `sha256_of` = `shards`: of the binary checksums of the chunks (shards), in row-major order, each
    of its values in C order, so that they may be written side by side. Without it, as older stores have it: of the
    values themselves, one shard after the other.
    """
    array = zarr.open_array(store / n.PATTERNS, mode="r", zarr_format=3)
    by_shard, values = array.attrs.get(n.SHA256_OF) == n.SHARDS, hashlib.sha256()
    if "sha256" not in array.attrs:
        return True
    for _, region in chunks_of(array):
        block = np.ascontiguousarray(array[region])
        values.update(hashlib.sha256(block.data).digest() if by_shard else block.data)
    return bool(array.attrs["sha256"] == values.hexdigest())


_HEX = r"[0-9a-f]{8}"
_OF_A_FILE = rf"\..+\.({_HEX}|[0-9a-f]{{32}}{re.escape(PART)})"  # of `folders.replace_file`
_OF_AN_ARRAY = rf".*\.[0-9a-f]{{32}}{re.escape(PART)}"  # of zarr
_OF_A_REPORT = r"\..+\.\d+\.(part|old)"
_RUBBISH, _WORK, _NEEDED = "rubbish", "work", "needed"
_STAGED = {  # what lies in the staging folder: its name, what it is, and whether a command goes on with it
    r"publishing\.json": ("a publication that was killed; the next command that writes completes it", _NEEDED),
    _OF_A_FILE: ("an unfinished file", _RUBBISH),
    r"variables-.+": ("unfinished variables; the same command goes on with them", _WORK),
    r"run-.+-maps": ("maps of a run that was not published", _RUBBISH),
    r"run-.+": ("an unfinished training; 'vaearr train' with the same run goes on with it", _WORK),
    r"new-.+": ("a store that was not finished", _RUBBISH),
    r"replaced-.+": ("what was replaced", _RUBBISH),
    rf".+-{_HEX}": ("maps or a table that were not published", _RUBBISH),
    r".+": ("nothing that vaearr wrote", _NEEDED),
}
_OURS = {TOKEN, "store.id", "ingest.claim"}  # of `sending`, and as earlier versions called it; small, and no trouble
_OF_OBJECTS = "objects that no list of variables mentions: of a command that was killed, or is at work elsewhere"


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


def leftovers(store: Path) -> Iterator[Leftover]:
    """All that killed writers of a store left: in its hidden sibling, in it or among its objects, among its reports."""
    try:
        needed = {*staged_names(store), *_OURS}
    except ValueError:
        needed = _OURS
    for path in _within(staging_root(store)):
        if path.name not in needed:
            what = next(what for pattern, what in _STAGED.items() if re.fullmatch(pattern, path.name))
            yield Leftover(path, *what, _age(path))
    if url := object_url(store):
        for key, age in unlisted(Objects(store)).items():
            if key not in journalled(store):
                yield Leftover(StorePath(f"{url}/{key}"), _OF_OBJECTS, _RUBBISH, age)
        return
    there = tree(Folder(store))
    for name in sorted(there.sizes):
        folder, _, file = name.rpartition("/")
        if folder in ("", *there.groups) and re.fullmatch(_OF_A_FILE, file):
            yield Leftover(store / name, "an unfinished file", _RUBBISH, _age(store / name))
        elif re.fullmatch(_OF_AN_ARRAY, file):
            yield Leftover(store / name, "an unfinished chunk", _RUBBISH, _age(store / name))
    for path in _within(store.with_name(f"{store.name.removesuffix('.zarr')}.reports")):
        if re.fullmatch(_OF_A_REPORT, path.name):
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
