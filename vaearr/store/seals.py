"""Checksums of published arrays: in each array's folder one file that `sha256sum --check` reads.

zarr's own checksums tell a damaged chunk from a whole one. These also tell a chunk that is not there, or that stands in
the place of another, and changed metadata. The attributes of the root, which no array's file covers, carry their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vaearr import names as n
from vaearr.store.folders import PART, replace_file
from vaearr.store.places import METADATA, Folder, Objects, sha256_of

SEAL = "checksums.sha256"
ROOT_SEAL = "vaearr_attributes_sha256"
LISTING = "consolidated_metadata"  # where the root's metadata list all that is below
AT_ONCE = 4  # files that are read side by side


@dataclass(frozen=True)
class Tree:
    """What lies below a name. sizes: of every file. groups: keys of zarr groups. parts: the files, by their names in
    it, of every array and of every plain folder in a group, such as a run's model; checksums are kept for each."""

    sizes: Mapping[str, int]
    arrays: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    parts: dict[str, list[str]] = field(default_factory=dict)


def tree(place: Folder | Objects, below: str = "") -> Tree:
    """Arrays, groups and plain folders, without a look at the chunks; "" is the key of the place itself.

    A folder whose metadata cannot be read counts as an array.
    """
    found = Tree(place.files(below))
    keys = {name.rpartition("/")[0] for name in found.sizes if name.endswith(f"/{METADATA}") or name == METADATA}
    for key in sorted(keys):
        (found.arrays if _is_array(place, key, found.sizes) else found.groups).append(key)
    arrays, groups = set(found.arrays), set(found.groups)
    found.parts.update({key: [] for key in found.arrays})
    for name in sorted(found.sizes):
        key = outer = name.rpartition("/")[0]
        while key and key not in arrays | groups:
            key, outer = key.rpartition("/")[0], key
        part = key if key in arrays else outer
        if (key in arrays or (outer != key and key in groups)) and name != join(part, SEAL):
            found.parts.setdefault(part, []).append(name.removeprefix(join(part, "")))
    return found


def join(key: str, name: str) -> str:
    """The name of a file below a key."""
    return f"{key}/{name}" if key else name


def _is_array(place: Folder | Objects, key: str, names: Mapping[str, int]) -> bool:
    if join(key, SEAL) in names:  # whatever its metadata says now
        return True
    try:
        return bool(json.loads(place.read(join(key, METADATA)) or b"").get("node_type") != "group")
    except (OSError, ValueError, AttributeError, RecursionError):
        return True


def seal(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Write the checksums of a finished array, or of all that lies in a finished group, that nobody reads yet.

    known: checksums that were taken while files were written, of some that are not here any more too. Unfinished files
    of a write that was killed go.
    """
    if not (folder / METADATA).is_file():
        return
    for name in Folder(folder).files():
        if name.endswith(PART):
            (folder / name).unlink()
    for key, names in tree(Folder(folder)).parts.items():
        own = {name.removeprefix(join(key, "")): found for name, found in (known or {}).items() if _is_in(name, key)}
        write_seal(folder / key, names, own)


def _is_in(name: str, key: str) -> bool:
    return not key or name.startswith(f"{key}/")


def write_seal(array: Path, names: Iterable[str], known: Mapping[str, str], *, durable: bool = False) -> None:
    """The checksums of an array's files; whole or not there."""
    names = sorted({*names, *known} - {n.CHECKPOINT, SEAL})  # a checkpoint goes when the run is there
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sums = pool.map(lambda name: known.get(name) or sha256_of(Folder(array), name), names)
        text = "".join(f"{found}  {name}\n" for name, found in zip(names, sums, strict=True))
    replace_file(array / SEAL, text.encode(), durable=durable)


def read_seal(place: Folder | Objects, key: str) -> dict[str, str] | None:
    """Checksum of each file of an array as it was published, None where none are kept. Raises ValueError."""
    data = place.read(join(key, SEAL))
    return None if data is None else parse_seal(data.decode())


def parse_seal(text: str) -> dict[str, str]:
    """Checksum of each file by its name, as `sha256sum` writes them. Raises ValueError."""
    found = {}
    for line in text.splitlines():
        digest, between, name = line[:64], line[64:66], line[66:]
        if between != "  " or not name or set(digest) - set("0123456789abcdef"):
            raise ValueError(f"{line[:80]!r} is not a checksum and a name")
        found[name] = digest
    return found


def attributes_seal(attributes: Mapping[str, Any]) -> str:
    """Checksum of the root's attributes, itself left out."""
    plain = {key: value for key, value in attributes.items() if key != ROOT_SEAL}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
