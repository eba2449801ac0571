"""The list of variables: zarr's consolidated metadata in a store's root `zarr.json`, replaced in one atomic step."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vaearr.names import RUNS
from vaearr.store.folders import replace_file
from vaearr.store.places import METADATA, Folder
from vaearr.store.seals import LISTING, join, tree

INLINE = {"kind": "inline", "must_understand": False}  # zarr's consolidated metadata


def refresh_listing(
    store: Path, changed: Collection[str] | None = None, attributes: Mapping[str, Any] | None = None
) -> None:
    """Rewrite the root metadata of a folder with the list of everything below, in one atomic step.

    changed: keys that are listed anew, with all below them, from what is there now. All else stays listed as it was
    published, so that nothing that was damaged since is taken for good. None: everything is. attributes: new ones of
    the root.
    """
    root: dict[str, Any] = json.loads((store / METADATA).read_bytes())
    if changed is None or not listed(root):
        gone: Collection[str] = [*listed(root)]
        new = entries(store)
    else:
        gone, new = changed, {}
        for key in changed:
            new |= entries(store / key, key)
    if attributes is not None:
        root["attributes"] = attributes
        new[RUNS] = json.loads((store / RUNS / METADATA).read_bytes())  # which keeps a copy of them
    replace_file(store / METADATA, listing(root, gone, new))


def unlist(store: Path, keys: Collection[str]) -> None:
    """Take keys, and all below them, out of the listing, in one atomic step."""
    root = json.loads((store / METADATA).read_bytes())
    replace_file(store / METADATA, listing(root, keys, {}))


def listed(root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Metadata of all that the root's metadata list, by key; empty where they list nothing."""
    found: Mapping[str, Any] = (root.get(LISTING) or {}).get("metadata", {})
    return found


def entries(folder: Path, key: str = "") -> dict[str, Any]:
    """Metadata of a folder, if it has a key, and of all arrays and groups in it, as they are to be listed."""
    found = tree(Folder(folder))
    keys = [below for below in (*found.arrays, *found.groups) if key or below]
    there = {"/".join(filter(None, (key, below))): folder / join(below, METADATA) for below in keys}
    return {name: json.loads(file.read_bytes()) for name, file in there.items()}


def is_of(name: str, keys: Collection[str]) -> bool:
    """Whether a name is one of some keys or below one."""
    return name in keys or name.startswith(tuple(f"{key}/" for key in keys))


def listing(root: Mapping[str, Any], gone: Collection[str], new: Mapping[str, Any]) -> bytes:
    """Root metadata that list all they listed but what is `gone`, and what is `new`, in zarr's consolidated form."""
    below = {key: value for key, value in listed(root).items() if not is_of(key, gone)} | dict(new)
    for metadata in below.values():
        if metadata["node_type"] == "group":
            metadata[LISTING] = {**INLINE, "metadata": {}}
    ordered = sorted(below.items(), key=lambda item: (item[0].count("/"), item[0]))
    return json.dumps({**root, LISTING: {**INLINE, "metadata": dict(ordered)}}, indent=2).encode()
