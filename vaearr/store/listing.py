"""What lies in a store: the tree of its files, the list of its variables, the checksums of its arrays.

The list is zarr's consolidated metadata in the root's `zarr.json`, replaced in one atomic step. The checksums are in
each array's folder one file that `sha256sum --check` reads: zarr's own tell a damaged chunk from a whole one, these
also tell a chunk that is not there, or that stands in the place of another, and changed metadata. The attributes of
the root, which no array's file covers, carry their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaearr import names as n
from vaearr.store.folders import PART, replace_file
from vaearr.store.places import METADATA, Folder, Place, read_ahead

SEAL = "checksums.sha256"
ROOT_SEAL = "vaearr_attributes_sha256"
LISTING = "consolidated_metadata"  # where the root's metadata list all that is below
INLINE = {"kind": "inline", "must_understand": False}  # zarr's consolidated metadata
_AT_ONCE = 4  # files whose checksums are taken side by side


@dataclass(frozen=True)
class Tree:
    """What lies below a name. sizes: of every file. groups: keys of zarr groups. parts: the files, by their names in
    it, of every array and of every plain folder in a group, such as a run's model; checksums are kept for each."""

    sizes: Mapping[str, int]
    arrays: list[str]
    groups: list[str]
    parts: dict[str, list[str]]


def tree(place: Place, below: str = "") -> Tree:
    """Arrays, groups and plain folders, without a look at the chunks; "" is the key of the place itself.

    A folder whose metadata cannot be read counts as an array.
    """
    sizes = place.files(below)
    nodes = sorted(name.rpartition("/")[0] for name in sizes if name.rpartition("/")[2] == METADATA)
    arrays = [key for key in nodes if _is_array(place, key, sizes)]
    groups = sorted({*nodes} - {*arrays})
    of_array, known, parts = {*arrays}, {*nodes}, {key: list[str]() for key in arrays}
    for name in sorted(sizes):
        key = outer = name.rpartition("/")[0]
        while key and key not in known:
            key, outer = key.rpartition("/")[0], key
        part = key if key in of_array else outer
        if (key in of_array or (outer != key and key in known)) and name != join(part, SEAL):
            parts.setdefault(part, []).append(name.removeprefix(join(part, "")))
    return Tree(sizes, arrays, groups, parts)


def join(key: str, name: str) -> str:
    """The name of a file below a key."""
    return f"{key}/{name}" if key else name


def _is_array(place: Place, key: str, names: Mapping[str, int]) -> bool:
    if join(key, SEAL) in names:  # whatever its metadata says now
        return True
    try:
        return bool(json.loads(place.read(join(key, METADATA)) or b"").get("node_type") != "group")
    except (OSError, ValueError, AttributeError, RecursionError):
        return True


def is_of(name: str, keys: Collection[str]) -> bool:
    """Whether a name is one of some keys or below one."""
    return name in keys or name.startswith(tuple(f"{key}/" for key in keys))


def listed(root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Metadata of all that the root's metadata list, by key; empty where they list nothing."""
    found: Mapping[str, Any] = (root.get(LISTING) or {}).get("metadata", {})
    return found


def listed_in(place: Place) -> Mapping[str, Any]:
    """Metadata of all that a store lists, by key. Raises ValueError where its metadata cannot be read."""
    return listed(json.loads(place.read(METADATA) or b"{}"))


def entries(folder: Path, key: str = "") -> dict[str, Any]:
    """Metadata of a folder, if it has a key, and of all arrays and groups in it, as they are to be listed."""
    found = tree(Folder(folder))
    keys = [below for below in (*found.arrays, *found.groups) if key or below]
    return {join(key, below).rstrip("/"): json.loads((folder / below / METADATA).read_bytes()) for below in keys}


def listing(root: Mapping[str, Any], gone: Collection[str], new: Mapping[str, Any]) -> bytes:
    """Root metadata that list all they listed but what is `gone`, and what is `new`, in zarr's consolidated form."""
    below = {key: value for key, value in listed(root).items() if not is_of(key, gone)} | dict(new)
    for metadata in below.values():
        if metadata["node_type"] == "group":
            metadata[LISTING] = {**INLINE, "metadata": {}}
    ordered = sorted(below.items(), key=lambda item: (item[0].count("/"), item[0]))
    return json.dumps({**root, LISTING: {**INLINE, "metadata": dict(ordered)}}, indent=2).encode()


def refresh_listing(
    store: Path,
    changed: Collection[str] | None = None,
    attributes: Mapping[str, Any] | None = None,
    *,
    without: Collection[str] = (),
) -> None:
    """Rewrite the root metadata of a folder with the list of everything below, in one atomic step.

    changed: keys that are listed anew, with all below them, from what is there now. All else stays listed as it was
    published, so that nothing that was damaged since is taken for good. None: everything is. without: keys that are
    listed no longer. attributes: new ones of the root.
    """
    root: dict[str, Any] = json.loads((store / METADATA).read_bytes())
    if changed is None or not listed(root):
        gone: Collection[str] = [*listed(root)]
        new = {key: entry for key, entry in entries(store).items() if not is_of(key, without)}
    else:
        gone = [*changed, *without]
        new = {name: entry for key in changed for name, entry in entries(store / key, key).items()}
    if attributes is not None:
        root["attributes"] = attributes
        new[n.RUNS] = json.loads((store / n.RUNS / METADATA).read_bytes())  # which keeps a copy of them
    replace_file(store / METADATA, listing(root, gone, new))


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
        before = join(key, "")
        own = {name.removeprefix(before): sha for name, sha in (known or {}).items() if name.startswith(before)}
        write_seal(folder / key, names, own)


def write_seal(
    array: Path, names: Iterable[str], known: Mapping[str, str] | None = None, *, durable: bool = False
) -> None:
    """The checksums of an array's files, some of which may be known; whole or not there."""
    known, place = known or {}, Folder(array)
    names = sorted({*names, *known} - {n.CHECKPOINT, SEAL})  # a checkpoint goes when the run is there
    sums = read_ahead(lambda name: known.get(name) or place.sha256(name), names, _AT_ONCE)
    text = "".join(f"{found}  {name}\n" for name, found in zip(names, sums, strict=True))
    replace_file(array / SEAL, text.encode(), durable=durable)


def read_seal(place: Place, key: str) -> dict[str, str] | None:
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
    own = {key: value for key, value in attributes.items() if key != ROOT_SEAL}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
