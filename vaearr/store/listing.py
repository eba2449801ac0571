"""The files of a store's arrays, the list of its variables, and the checksums of its arrays.

The list is zarr's consolidated metadata in the root's `zarr.json`, replaced in one atomic step. The
checksums of each published array are a file in its folder, which `sha256sum --check` reads. They
detect what the checksum in a chunk cannot: a missing chunk, swapped chunks, and changed metadata.
The group `/runs` keeps what identifies the store, because plain xarray replaces the attributes of
the root.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from vaearr import names as n
from vaearr.errors import DamagedError
from vaearr.store.folders import PART, file_sizes, has_file, replace_file, sha256_of
from vaearr.store.layout import read_ahead
from vaearr.store.paths import METADATA

SEAL = "checksums.sha256"
LISTING = "consolidated_metadata"  # of the root's metadata
INLINE = {"kind": "inline", "must_understand": False}  # zarr's consolidated metadata
BAD_JSON = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
_FILES_AT_ONCE = 4


def files_by_node(folder: Path) -> dict[str, list[str]]:
    """Return the files of each array, group and model in a folder, by its key ("": the folder)."""
    paths = [path for path in sorted(file_sizes(folder)) if not path.endswith(PART)]
    nodes = {""}
    for path in paths:
        parent, _, name = path.rpartition("/")
        if name in (METADATA, SEAL) or Path(parent).name == n.MODEL:
            nodes.add(parent)
    files: dict[str, list[str]] = {node: [] for node in sorted(nodes)}
    for path in paths:
        node = path.rpartition("/")[0]
        while node not in nodes:
            node = node.rpartition("/")[0]
        files[node].append(path.removeprefix(join(node, "")))
    return files


def join(key: str, name: str) -> str:
    """Return the name of a file below a key."""
    return f"{key}/{name}" if key else name


def is_group(folder: Path) -> bool:
    """Whether a folder is a group; one with unreadable metadata counts as an array."""
    try:
        return read_metadata(folder)["node_type"] == "group"
    except BAD_JSON:
        return False


def is_at_or_below(name: str, keys: Collection[str]) -> bool:
    """Whether a name is one of the keys or below one."""
    return name in keys or name.startswith(tuple(f"{key}/" for key in keys))


def read_metadata(node: Path) -> dict[str, Any]:
    """Return the metadata of an array or group. Raises DamagedError or FileNotFoundError."""
    has_file(node, METADATA)
    try:
        return dict(json.loads((node / METADATA).read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError(
            f"{node / METADATA} cannot be read ({type(error).__name__}); restore it from a copy."
        ) from None


def attributes_of(node: Path) -> dict[str, Any]:
    """Return the attributes of an array or group; empty if its metadata cannot be read."""
    try:
        return dict(read_metadata(node)["attributes"])
    except BAD_JSON:
        return {}


def listed_in(store: Path) -> dict[str, Any]:
    """Return the metadata of everything that a store lists, by key. Raises DamagedError."""
    try:
        listing = read_metadata(store).get(LISTING)
    except FileNotFoundError:
        return {}
    return dict(listing["metadata"]) if listing else {}


def entries(folder: Path, key: str = "") -> dict[str, Any]:
    """Return the metadata of all arrays and groups in a folder and, if it has a key, its own."""
    metadata = {}
    for node, files in files_by_node(folder).items():
        if METADATA in files and (key or node):
            metadata[join(key, node).rstrip("/")] = read_metadata(folder / node)
    return metadata


def refresh_listing(
    store: Path, changed: Collection[str] | None = None, *, without: Collection[str] = ()
) -> None:
    """Replace the list of variables in the root's metadata, in one atomic step.

    Parameters
    ----------
    store
        The folder of the store.
    changed
        Keys that are listed again, with everything below them. Other keys keep their published
        entries: metadata that were damaged since then still differ from the list, so `verify`
        finds them. None lists everything again.
    without
        Keys that are no longer listed.
    """
    root = read_metadata(store)
    metadata = listed_in(store)
    if changed is None or not metadata:
        metadata = entries(store)
        changed = ()
    outdated = [*changed, *without]
    metadata = {key: entry for key, entry in metadata.items() if not is_at_or_below(key, outdated)}
    for key in changed:
        metadata |= entries(store / key, key)
    if (store / n.RUNS / METADATA).exists():
        metadata[n.RUNS] = read_metadata(store / n.RUNS)
    for entry in metadata.values():
        if entry["node_type"] == "group":
            entry[LISTING] = {**INLINE, "metadata": {}}
    keys = sorted(metadata, key=lambda key: (key.count("/"), key))
    root[LISTING] = {**INLINE, "metadata": {key: metadata[key] for key in keys}}
    replace_file(store / METADATA, json.dumps(root, indent=2).encode())


def seal(folder: Path, known: Mapping[Path, str] | None = None) -> None:
    """Write the checksums of an unpublished array, or of all arrays and models in a group.

    Files of an interrupted write in the folder are removed. known: checksums by file that were
    computed while files were written.
    """
    for path in file_sizes(folder):
        if path.endswith(PART):
            (folder / path).unlink()
    for node, files in files_by_node(folder).items():
        if not is_group(folder / node):
            write_seal(folder / node, files, known or {})


def write_seal(array: Path, names: Iterable[str], known: Mapping[Path, str]) -> None:
    """Write the checksums of an array's files, some of which may be known."""
    # a checkpoint is removed when the run is published
    files = [array / name for name in sorted(set(names) - {SEAL, n.CHECKPOINT})]
    sums = read_ahead(lambda file: known.get(file) or sha256_of(file), files, _FILES_AT_ONCE)
    lines = []
    for file, checksum in zip(files, sums, strict=True):
        lines.append(f"{checksum}  {file.relative_to(array).as_posix()}\n")
    replace_file(array / SEAL, "".join(lines).encode())


def read_seal(array: Path) -> dict[str, str] | None:
    """Return the checksums of an array's files by name, None without any. Raises ValueError."""
    if not has_file(array, SEAL):
        return None
    sums = {}
    for line in (array / SEAL).read_text().splitlines():
        checksum, _, name = line.partition("  ")
        if len(checksum) != 64 or not name or set(checksum) - set("0123456789abcdef"):
            raise ValueError(f"{line[:80]!r} is not a checksum and a name")
        sums[name] = checksum
    return sums
