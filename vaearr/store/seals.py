"""Checksums of published arrays: in each array's folder one file that `sha256sum --check` reads.

zarr's own checksums tell a damaged chunk from a whole one. These also tell a chunk that is not there, or that stands in
the place of another, and changed metadata. The attributes of the root, which no array's file covers, carry their own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vaearr import names as n
from vaearr.store.folders import PART, replace_file

SEAL = "checksums.sha256"
ROOT_SEAL = "vaearr_attributes_sha256"
METADATA = "zarr.json"
LISTING = "consolidated_metadata"  # where the root's metadata list all that is below
AT_ONCE = 4  # files that are read side by side
PIECE = 2**20


def nodes(root: Path) -> Iterator[tuple[str, Path, bool]]:
    """Arrays and groups below a folder: (key, folder, whether it is an array), without a look at the chunks.

    A folder whose metadata cannot be read counts as an array, and so does a link to a folder: what it leads to is not
    looked at.
    """
    for entry in sorted(root.iterdir()):
        if not entry.is_dir() or not (entry / METADATA).is_file():
            continue
        is_array = _is_array(entry)
        yield entry.name, entry, is_array
        if not is_array:
            yield from ((f"{entry.name}/{key}", folder, found) for key, folder, found in nodes(entry))


def _is_array(folder: Path) -> bool:
    if folder.is_symlink() or (folder / SEAL).exists():  # whatever its metadata says now
        return True
    try:
        return bool(json.loads((folder / METADATA).read_bytes()).get("node_type") != "group")
    except (OSError, ValueError, AttributeError, RecursionError):
        return True


def files_of(array: Path) -> list[str]:
    """Names of all files of an array, below its folder, in order; not that of the checksums."""
    found = []
    for root, folders, names in os.walk(array):
        names += [name for name in folders if os.path.islink(os.path.join(root, name))]
        found += [os.path.relpath(os.path.join(root, name), array) for name in names]
    return sorted(name for name in found if name != SEAL)


def sha256_of(file: Path) -> str:
    """Checksum of a file, read piece by piece."""
    seal = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(PIECE):
            seal.update(piece)
    return seal.hexdigest()


def seal(folder: Path, known: Mapping[Path, str] | None = None) -> None:
    """Write the checksums of a finished array, or of all that lies in a finished group, that nobody reads yet.

    known: checksums that were taken while the files were written. Unfinished files of a write that was killed go.
    """
    if not (folder / METADATA).is_file():
        return
    is_array = _is_array(folder)
    arrays = [folder] if is_array else [below for _, below, is_array in nodes(folder) if is_array]
    for array in [*arrays, *([] if is_array else plain_folders(folder))]:
        for name in files_of(array):
            if name.endswith(PART):
                (array / name).unlink()
        write_seal(array, known or {})


def plain_folders(group: Path) -> list[Path]:
    """Folders in a group that are no part of the zarr hierarchy, such as a run's model."""
    return [folder for folder in sorted(group.iterdir()) if folder.is_dir() and not (folder / METADATA).exists()]


def write_seal(array: Path, known: Mapping[Path, str], *, durable: bool = False) -> None:
    """The checksums of what lies in an array's folder now; whole or not there."""
    sent = [os.path.relpath(file, array) for file in known if file.is_relative_to(array)]  # may not be here any more
    names = sorted({*files_of(array), *sent} - {n.CHECKPOINT})  # which goes when the run is there
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sums = pool.map(lambda name: known.get(array / name) or sha256_of(array / name), names)
        text = "".join(f"{found}  {name}\n" for name, found in zip(names, sums, strict=True))
    replace_file(array / SEAL, text.encode(), durable=durable)


def read_seal(array: Path) -> dict[str, str] | None:
    """Checksum of each file of an array as it was published, None where none are kept. Raises ValueError."""
    try:
        return parse_seal((array / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def was_published(file: Path, root: Path) -> bool | None:
    """Whether the checksums of an array, somewhere below `root`, name a file; None where none are kept."""
    for folder in file.parents:
        if folder == root.parent:
            return None
        if (folder / SEAL).exists():
            try:
                return os.path.relpath(file, folder) in (read_seal(folder) or {})
            except (OSError, ValueError):
                return None  # `vaearr verify` tells
    return None


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
