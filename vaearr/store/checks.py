"""Is every array whole? Each file is held against the checksums of its publication; without them it is decoded."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr

from vaearr import names as n
from vaearr.store.commit import METADATA
from vaearr.store.folders import PART
from vaearr.store.layout import blocks
from vaearr.store.seals import (
    AT_ONCE,
    LISTING,
    ROOT_SEAL,
    SEAL,
    attributes_seal,
    files_of,
    nodes,
    plain_folders,
    read_seal,
    sha256_of,
)

MOST_ABSENT = 10**6  # chunks that an array may declare beyond those that have files
Item = TypeVar("Item")
OnFile = Callable[[int], None]

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


def check_listing(store: Path) -> list[Found]:
    """Root metadata against the folders: all that is listed is there as it is listed, all that is there is listed."""
    try:
        root = json.loads((store / METADATA).read_bytes())
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
    present = {key: folder for key, folder, _ in nodes(store)}
    for key, entry in listed.items():
        file = f"{key}/{METADATA}"
        if key not in present:
            found.append(Found(key, file, "it is listed and not there"))
        elif not _is_same(entry, present[key] / METADATA) and not (
            key == n.RUNS and _is_same({**entry, "attributes": attributes}, present[key] / METADATA)
        ):  # the copy of the root's attributes is listed by the next command that writes
            found.append(Found(key, file, "its metadata cannot be read or is not the listed one"))
    found += [Found(key, f"{key}/{METADATA}", "it is there and not listed") for key in present if key not in listed]
    return found


def _is_same(entry: Any, file: Path) -> bool:
    try:
        own = json.loads(file.read_bytes())
        return bool(_alone(own) == _alone(entry))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _alone(entry: Any) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != LISTING}


def check_arrays(store: Path, on_file: OnFile | None = None) -> Iterator[ArrayCheck]:
    """Every array of the store, one after the other; on_file is told the bytes of each file that was looked at."""
    for key, folder, is_array in nodes(store):
        if folder.is_symlink():
            yield ArrayCheck(key, False, 0, 0, (Found(key, key, "it is a symbolic link, which may lead anywhere"),))
        elif is_array:
            yield _check_array(key, folder, on_file or _nobody)
        else:
            for plain in plain_folders(folder):
                if (plain / SEAL).exists():
                    yield _check_array(f"{key}/{plain.name}", plain, on_file or _nobody)


def _nobody(size: int) -> None:
    """Nobody wants to know."""


def _check_array(key: str, folder: Path, on_file: OnFile) -> ArrayCheck:
    found: list[Found] = []
    names = files_of(folder)
    try:
        seal = read_seal(folder)
    except (ValueError, OSError) as error:
        return ArrayCheck(key, False, 0, 0, (Found(key, key, f"its checksums cannot be read ({error})"),))
    links = {name for name in names if (folder / name).is_symlink()}
    found += [Found(key, f"{key}/{name}", "it is a symbolic link, which may lead anywhere") for name in sorted(links)]
    names = [name for name in names if name not in links and not name.endswith(PART)]
    if seal is not None:
        absent = [name for name in seal if name not in {*names, *links}]
        found += [Found(key, f"{key}/{name}", "it is missing") for name in absent]
        if METADATA in names:  # beside a model, checkpoints may lie
            found += [Found(key, f"{key}/{name}", "it does not belong there") for name in names if name not in seal]
        sums = seal
        looks = _looks(
            [name for name in names if name in seal], folder, on_file, lambda name: _differs(folder, name, sums)
        )
    else:
        try:
            array = zarr.open_array(folder, mode="r", zarr_format=3)
            chunks = _expected(array, len(names))
        except Exception as error:  # zarr raises many kinds for damaged metadata
            what = f"its metadata cannot be used ({' '.join(str(error).split())[:120]})"
            return ArrayCheck(key, False, 0, 0, (*found, Found(key, f"{key}/{METADATA}", what)))
        absent = [name for name in chunks if name not in {*names, *links}]
        is_whole = key in _ALWAYS_WHOLE and (folder.parent / n.RUNS / METADATA).exists()  # else a copy, see `is_copy`
        sure, what = (True, "it is missing") if is_whole else (False, _MAYBE)
        found += [Found(key, f"{key}/{name}", what, sure) for name in absent]
        looks = _looks(
            [name for name in names if name in chunks], folder, on_file, lambda name: _unreadable(array, chunks[name])
        )
    n_files = n_bytes = 0
    for name, size, what in looks:
        n_files, n_bytes = n_files + 1, n_bytes + size
        if what:
            found.append(Found(key, f"{key}/{name}", what))
    return ArrayCheck(key, seal is not None, n_files, n_bytes, tuple(found))


def _looks(
    names: Iterable[str], folder: Path, on_file: OnFile, look: Callable[[str], str]
) -> Iterator[tuple[str, int, str]]:
    """(name, bytes, what is wrong or nothing) of each file, some side by side, never many in memory."""

    def one(name: str) -> tuple[str, int, str]:
        try:
            if not (folder / name).is_file():  # to read a pipe is to wait for ever
                return name, 0, "it is not an ordinary file"
            return name, (folder / name).stat().st_size, look(name)
        except OSError as error:
            return name, 0, f"it cannot be read ({error.strerror or error})"

    ahead: deque[Future[tuple[str, int, str]]] = deque()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name in [*names, None]:
            if name is not None:
                ahead.append(pool.submit(one, name))
            while ahead and (name is None or len(ahead) > 2 * AT_ONCE):
                result = ahead.popleft().result()
                on_file(result[1])
                yield result


def _differs(folder: Path, name: str, seal: Mapping[str, str]) -> str:
    return "" if sha256_of(folder / name) == seal[name] else "its bytes are not those that were written"


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


def check_values(store: Path, on_file: OnFile | None = None) -> Found | None:
    """The patterns' values against the checksum that the ingest took of them; shard after shard, all decoded."""
    array = zarr.open_array(store / n.PATTERNS, mode="r", zarr_format=3)
    if array.attrs.get("sha256") in (None, values_sha256(array, on_file)):
        return None
    return Found(n.PATTERNS, n.PATTERNS, "the values are not those that were ingested, though each chunk is whole")


def values_sha256(array: zarr.Array, on_file: OnFile | None = None) -> str:
    """The checksum that the ingest took of the patterns' values.

    With the attribute `sha256_of` = `shards`: of the binary checksums of the shards, in row-major order, each of its
    values in C order, so that shards may be written side by side. Without it, as older stores have it: of the values
    themselves, one shard after the other.
    """
    sides = dict(enumerate(array.shards or array.chunks))
    by_shard = array.attrs.get(n.SHA256_OF) == n.SHARDS
    values = hashlib.sha256()
    for region in blocks(dict(enumerate(array.shape)), sides):
        block = np.ascontiguousarray(array[tuple(region.values())])
        values.update(hashlib.sha256(block.data).digest() if by_shard else block.data)
        if on_file:
            on_file(block.nbytes)
    return values.hexdigest()
