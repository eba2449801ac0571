"""What lies in a store: the tree of its files, the list of its variables, the checksums of its arrays.

The list is zarr's consolidated metadata in the root's `zarr.json`, replaced in one atomic step. The
checksums of each published array are one file in its folder, which `sha256sum --check` reads. They
detect what a chunk's own checksum cannot: a missing chunk, one chunk in the place of another, and
changed metadata. The group `/runs` keeps what identifies the store (plain xarray replaces the
attributes of the root), and the keys that have checksums.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaearr import names as n
from vaearr.errors import DamagedError
from vaearr.store.folders import PART, file_sizes, is_there, replace_file, sha256_of
from vaearr.store.layout import read_ahead
from vaearr.store.paths import METADATA

SEAL = "checksums.sha256"
SEALED = "sealed"  # attribute of /runs: the published keys; all arrays below them have checksums
LISTING = "consolidated_metadata"  # of the root's metadata
INLINE = {"kind": "inline", "must_understand": False}  # zarr's consolidated metadata
BAD_JSON = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
_FILES_AT_ONCE = 4


@dataclass(frozen=True)
class Tree:
    """What lies in a store.

    sizes: of every file. arrays, groups: their keys. parts: file names in each array, and in each
    plain folder of a group, such as a run's model; each of these has checksums of its own.
    """

    sizes: Mapping[str, int]
    arrays: list[str]
    groups: list[str]
    parts: dict[str, list[str]]


def tree(folder: Path) -> Tree:
    """Find arrays, groups and plain folders, without a look at the chunks.

    "" is the key of the folder itself. A folder whose metadata cannot be read counts as an array.
    """
    sizes = file_sizes(folder)
    nodes = {name.rpartition("/")[0] for name in sizes if name.rpartition("/")[2] == METADATA}
    arrays = {key for key in nodes if _is_array(folder, key, sizes)}
    parts: dict[str, list[str]] = {key: [] for key in sorted(arrays)}
    for name in sorted(sizes):
        key = name.rpartition("/")[0]
        part = key
        while key and key not in nodes:
            part = key
            key = key.rpartition("/")[0]
        is_in_array = key in arrays
        is_in_plain_folder = part != key and key in nodes
        if is_in_array:
            part = key
        if (is_in_array or is_in_plain_folder) and name != join(part, SEAL):
            parts.setdefault(part, []).append(name.removeprefix(join(part, "")))
    return Tree(sizes, sorted(arrays), sorted(nodes - arrays), parts)


def join(key: str, name: str) -> str:
    """The name of a file below a key."""
    return f"{key}/{name}" if key else name


def _is_array(folder: Path, key: str, sizes: Mapping[str, int]) -> bool:
    if join(key, SEAL) in sizes:  # whatever its metadata says now
        return True
    if not sizes[join(key, METADATA)]:
        return True
    try:
        return read_metadata(folder / key).get("node_type") != "group"
    except BAD_JSON:
        return True


def is_of(name: str, keys: Collection[str]) -> bool:
    """Whether a name is one of some keys or below one."""
    return name in keys or name.startswith(tuple(f"{key}/" for key in keys))


def read_metadata(node: Path) -> dict[str, Any]:
    """Metadata of an array or group. Raises DamagedError, or FileNotFoundError where it has none."""
    is_there(node, METADATA)
    try:
        return dict(json.loads((node / METADATA).read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError(
            f"{node / METADATA} cannot be read ({type(error).__name__}); restore it from a copy."
        ) from None


def attributes_of(group: Path) -> dict[str, Any]:
    """Attributes of an array or group; empty where its metadata is missing or cannot be read."""
    try:
        return dict(read_metadata(group)["attributes"])
    except BAD_JSON:
        return {}


def write_attributes(group: Path, attributes: Mapping[str, Any]) -> None:
    """Replace the attributes of an array or group in one step; a missing group is created."""
    group.mkdir(exist_ok=True)
    try:
        metadata = read_metadata(group)
    except FileNotFoundError:
        metadata = {"zarr_format": 3, "node_type": "group"}
    metadata["attributes"] = dict(attributes)
    replace_file(group / METADATA, json.dumps(metadata, indent=2).encode())


def listed(root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Metadata of everything that the root's metadata list, by key."""
    consolidated = root.get(LISTING) or {}
    metadata: Mapping[str, Any] = consolidated.get("metadata", {})
    return metadata


def listed_in(store: Path) -> Mapping[str, Any]:
    """Metadata of everything that a store lists, by key. Raises ValueError for damaged metadata."""
    try:
        return listed(read_metadata(store))
    except FileNotFoundError:
        return {}


def entries(folder: Path, key: str = "") -> dict[str, Any]:
    """Metadata of a folder, if it has a key, and of all arrays and groups in it, by listed key."""
    found = tree(folder)
    metadata = {}
    for below in (*found.arrays, *found.groups):
        if key or below:
            listed_key = join(key, below).rstrip("/")
            metadata[listed_key] = read_metadata(folder / below)
    return metadata


def refresh_listing(store: Path, changed: Collection[str] | None = None, *, without: Collection[str] = ()) -> None:
    """Rewrite the list of variables in the root's metadata, in one atomic step.

    Parameters
    ----------
    store
        The folder of the store.
    changed
        Keys that are listed again, with all below them. Other keys keep their published entries,
        so that later damage is not accepted. None lists everything again.
    without
        Keys that are no longer listed.
    """
    root = read_metadata(store)
    if changed is None or not listed(root):
        metadata = {key: entry for key, entry in entries(store).items() if not is_of(key, without)}
    else:
        gone = [*changed, *without]
        metadata = {key: entry for key, entry in listed(root).items() if not is_of(key, gone)}
        for key in changed:
            metadata |= entries(store / key, key)
    if (store / n.RUNS / METADATA).exists():
        metadata[n.RUNS] = read_metadata(store / n.RUNS)
    for entry in metadata.values():
        if entry["node_type"] == "group":
            entry[LISTING] = {**INLINE, "metadata": {}}
    ordered = sorted(metadata.items(), key=lambda item: (item[0].count("/"), item[0]))
    root[LISTING] = {**INLINE, "metadata": dict(ordered)}
    replace_file(store / METADATA, json.dumps(root, indent=2).encode())


def seal(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Write the checksums of a finished array, or of all arrays in a finished group.

    Nobody reads the folder yet; files of an interrupted write in it are removed. known: checksums
    that were taken while files were written.
    """
    if not (folder / METADATA).is_file():
        return
    for name in file_sizes(folder):
        if name.endswith(PART):
            (folder / name).unlink()
    for key, names in tree(folder).parts.items():
        before = join(key, "")
        sums = {name: (known or {}).get(before + name) for name in names}
        write_seal(folder / key, names, {name: value for name, value in sums.items() if value})


def write_seal(
    array: Path,
    names: Iterable[str],
    known: Mapping[str, str] | None = None,
    *,
    durable: bool = False,
) -> None:
    """Write the checksums of an array's files, some of which may be known."""
    known = known or {}
    left_out = (SEAL, n.CHECKPOINT)  # a checkpoint is removed when the run is published
    names = sorted(name for name in names if name not in left_out and not name.endswith(PART))
    sums = read_ahead(lambda name: known.get(name) or sha256_of(array / name), names, _FILES_AT_ONCE)
    lines = [f"{checksum}  {name}\n" for name, checksum in zip(names, sums, strict=True)]
    replace_file(array / SEAL, "".join(lines).encode(), durable=durable)


def read_seal(array: Path) -> dict[str, str] | None:
    """Checksum of each file of an array by its name, None without checksums. Raises ValueError."""
    if not is_there(array, SEAL):
        return None
    sums = {}
    for line in (array / SEAL).read_text().splitlines():
        checksum, between, name = line[:64], line[64:66], line[66:]
        if between != "  " or not name or set(checksum) - set("0123456789abcdef"):
            raise ValueError(f"{line[:80]!r} is not a checksum and a name")
        sums[name] = checksum
    return sums
