"""Is every array whole? Each file is held against the checksums of its publication; without them it is decoded."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from vaearr import names as n
from vaearr.errors import VaearrError
from vaearr.store.folders import PART
from vaearr.store.layout import blocks
from vaearr.store.places import AT_ONCE, METADATA, Folder, Objects, sha256_of
from vaearr.store.seals import LISTING, ROOT_SEAL, SEAL, Tree, attributes_seal, read_seal

MOST_ABSENT = 10**6  # chunks that an array may declare beyond those that have files
OnFile = Callable[[int], None]
Place = Folder | Objects

_ALWAYS_WHOLE = (n.PATTERNS,)
_MAYBE = "it is missing, which stands for the fill value (NaN or 0) throughout; whether it was ever there is not known"


@dataclass(frozen=True)
class Found:
    """Something that is not as it was published: of which variable, in which file below the store, and what."""

    variable: str
    file: str
    what: str
    is_sure: bool = True


@dataclass(frozen=True)
class ArrayCheck:
    """What was looked at of one array: files and bytes, whether by checksums of its publication, and what was found."""

    variable: str
    is_sealed: bool
    n_files: int
    n_bytes: int
    found: tuple[Found, ...]


def check_listing(place: Place, there: Tree) -> list[Found]:
    """Root metadata against what is there: all that is listed is there as it is listed, all that is there is listed.

    Objects that no listing mentions are no damage: a killed command left them, or one is at work.
    """
    try:
        root = json.loads(place.read(METADATA) or b"")
        listed = root[LISTING]["metadata"]
        attributes = root["attributes"]
        assert isinstance(listed, dict)
        assert isinstance(attributes, dict)
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        return [Found("", METADATA, f"the list of variables cannot be read ({type(error).__name__}: {error})")]
    found = []
    if n.SCHEMA_VERSION not in attributes:
        found.append(Found("", METADATA, "another program replaced the attributes of the store"))
    elif ROOT_SEAL in attributes and attributes[ROOT_SEAL] != attributes_seal(attributes):
        found.append(Found("", METADATA, "the attributes of the store are not those that were written"))
    present = {key for key in (*there.arrays, *there.groups) if key}
    for key, entry in listed.items():
        file = f"{key}/{METADATA}"
        if key not in present:
            found.append(Found(key, file, "it is listed and not there"))
        elif not _is_same(entry, place, file) and not (
            key == n.RUNS and _is_same({**entry, "attributes": attributes}, place, file)
        ):  # the copy of the root's attributes is listed by the next command that writes
            found.append(Found(key, file, "its metadata cannot be read or is not the listed one"))
    if isinstance(place, Folder):
        new = sorted(present - listed.keys())
        found += [Found(key, f"{key}/{METADATA}", "it is there and not listed") for key in new]
    return found


def _is_same(entry: Any, place: Place, file: str) -> bool:
    try:
        return bool(_alone(json.loads(place.read(file) or b"")) == _alone(entry))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _alone(entry: Any) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != LISTING}


def check_arrays(place: Place, there: Tree, on_file: OnFile | None = None) -> Iterator[ArrayCheck]:
    """Every array of the store, one after the other; on_file is told the bytes of each file that was looked at."""
    for key, names in there.parts.items():
        if key and (key in there.arrays or f"{key}/{SEAL}" in there.sizes):
            yield _check_array(place, there, key, names, on_file or (lambda size: None))
    for name in sorted(there.sizes):  # links in the place of variables
        if name.rpartition("/")[0] in ("", *there.groups) and (what := place.odd(name)):
            yield ArrayCheck(name, False, 0, 0, (Found(name, name, what),))


def _check_array(place: Place, there: Tree, key: str, names: list[str], on_file: OnFile) -> ArrayCheck:
    try:
        seal = read_seal(place, key)
    except (ValueError, OSError) as error:
        return ArrayCheck(key, False, 0, 0, (Found(key, key, f"its checksums cannot be read ({error})"),))
    odd = {name: what for name in names if not name.endswith(PART) and (what := place.odd(f"{key}/{name}"))}
    found = [Found(key, f"{key}/{name}", what) for name, what in sorted(odd.items())]
    names = [name for name in names if name not in odd and not name.endswith(PART)]
    chunks: dict[str, tuple[int, ...]] = {}
    array: Any = None
    if seal is not None:
        found += [Found(key, f"{key}/{name}", "it is missing") for name in seal if name not in {*names, *odd}]
        if METADATA in names:  # beside a model, checkpoints may lie
            found += [Found(key, f"{key}/{name}", "it does not belong there") for name in names if name not in seal]
    elif isinstance(place, Objects):
        return ArrayCheck(key, True, 0, 0, (Found(key, f"{key}/{SEAL}", "it is missing"),))
    else:
        try:
            array = zarr.open_array(place.path / key, mode="r", zarr_format=3)
            chunks = _expected(array, len(names))
        except Exception as error:  # zarr raises many kinds for damaged metadata
            what = f"its metadata cannot be used ({' '.join(str(error).split())[:120]})"
            return ArrayCheck(key, False, 0, 0, (*found, Found(key, f"{key}/{METADATA}", what)))
        is_whole = key in _ALWAYS_WHOLE and n.RUNS in there.groups  # else a copy, see `is_copy`
        sure, what = (True, "it is missing") if is_whole else (False, _MAYBE)
        absent = [name for name in chunks if name not in {*names, *odd}]
        found += [Found(key, f"{key}/{name}", what, sure) for name in absent]

    def look(name: str) -> str:
        if seal is None:
            return _unreadable(array, chunks[name])
        same = sha256_of(place, f"{key}/{name}") == seal[name]
        return "" if same else "its bytes are not those that were written"

    n_files = n_bytes = 0
    for name, what in _looks([name for name in names if name in (chunks if seal is None else seal)], look):
        size = there.sizes[f"{key}/{name}"]
        n_files, n_bytes = n_files + 1, n_bytes + size
        on_file(size)
        if what:
            found.append(Found(key, f"{key}/{name}", what))
    return ArrayCheck(key, seal is not None, n_files, n_bytes, tuple(found))


def _looks(names: Iterable[str], look: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """(name, what is wrong or nothing) of each file, some side by side, never many in memory."""

    def one(name: str) -> tuple[str, str]:
        try:
            return name, look(name)
        except OSError as error:
            if isinstance(error, VaearrError):
                raise
            return name, f"it cannot be read ({error.strerror or error})"

    ahead: deque[Future[tuple[str, str]]] = deque()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name in names:
            ahead.append(pool.submit(one, name))
            if len(ahead) > 2 * AT_ONCE:
                yield ahead.popleft().result()
        for future in ahead:
            yield future.result()


def _expected(array: zarr.Array, n_files: int) -> dict[str, tuple[int, ...]]:
    """Name of each chunk's file, and its place. Raises ValueError where there are far more than files."""
    sides = array.shards or array.chunks
    grid = [math.ceil(size / side) for size, side in zip(array.shape, sides, strict=True)]
    if math.prod(grid) > n_files + MOST_ABSENT:
        raise ValueError(f"it declares {math.prod(grid)} chunks, {n_files} files are there")
    places = itertools.product(*map(range, grid))
    return {array.metadata.encode_chunk_key(place): place for place in places}


def _unreadable(array: zarr.Array, place: tuple[int, ...]) -> str:
    """Why a chunk cannot be decoded; nothing where it can."""
    sides = array.shards or array.chunks
    try:
        array[tuple(slice(i * side, (i + 1) * side) for i, side in zip(place, sides, strict=True))]
    except Exception as error:  # codecs have errors of their own
        return f"it cannot be decoded ({' '.join(str(error).split())[:120]})"
    return ""


def check_values(place: Folder) -> Found | None:
    """The patterns' values against the checksum that the ingest took of them; chunk after chunk, all decoded."""
    array = zarr.open_array(place.path / n.PATTERNS, mode="r", zarr_format=3)
    if array.attrs.get("sha256") in (None, values_sha256(array)):
        return None
    return Found(n.PATTERNS, n.PATTERNS, "the values are not those that were ingested, though each chunk is whole")


def values_sha256(array: zarr.Array) -> str:
    """The checksum that the ingest took of the patterns' values.

    With the attribute `sha256_of` = `shards`: of the binary checksums of the chunks (shards), in row-major order, each
    of its values in C order, so that they may be written side by side. Without it, as older stores have it: of the
    values themselves, one shard after the other.
    """
    sides = dict(enumerate(array.shards or array.chunks))
    by_shard = array.attrs.get(n.SHA256_OF) == n.SHARDS
    values = hashlib.sha256()
    for region in blocks(dict(enumerate(array.shape)), sides):
        block = np.ascontiguousarray(array[tuple(region.values())])
        values.update(hashlib.sha256(block.data).digest() if by_shard else block.data)
    return values.hexdigest()
