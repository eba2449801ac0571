"""What other programs do to the root of a store in a folder, mended: replaced attributes, copies and parts."""

from __future__ import annotations

import json
import uuid
import warnings
from pathlib import Path
from typing import Any

from vaearr import names as n
from vaearr.errors import StoreWarning
from vaearr.store.folders import replace_file
from vaearr.store.listing import listed, refresh_listing
from vaearr.store.places import METADATA, Folder
from vaearr.store.seals import ROOT_SEAL, SEAL, attributes_seal, seal, tree


def is_copy(store: Path) -> bool:
    """Whether a store is a copy or part of another, written by other programs: it has no runs and no checksums."""
    return not ((store / n.RUNS / METADATA).exists() or (store / n.PATTERNS / SEAL).exists())


def is_settled(store: Path) -> bool:
    """Whether `settle` has nothing to mend; stores of earlier versions, without a second copy, count as settled."""
    own, kept = _attributes(store), _attributes(store / n.RUNS)
    return own is None or (n.SCHEMA_VERSION in own and not is_copy(store) and (not kept or kept == own))


def settle(store: Path) -> None:
    """Put back root attributes that another program replaced; make a copy, or part, of another store one of its own.

    Needs the lock (`writer`). A copy gets an identity and checksums, and loses those of the values it came from. What
    other programs added to the root's attributes stays.
    """
    own, kept = _attributes(store), _attributes(store / n.RUNS) or {}
    if own is None:
        return
    known = listed(json.loads((store / METADATA).read_bytes()))
    copy = known.get(n.RUNS, {}).get("attributes")  # which a kill may have left unlisted
    if n.SCHEMA_VERSION in own and own == kept == copy:
        return
    was_copied = is_copy(store) and n.SCHEMA_VERSION in own
    is_kept = bool(kept) and kept.get(ROOT_SEAL) == attributes_seal(kept)
    if was_copied:
        _adopt(store)
        attrs = {**own, n.STORE_ID: uuid.uuid4().hex}
    elif is_kept:
        attrs = {**own, **kept}
    elif own.get(ROOT_SEAL, attributes_seal(own)) == attributes_seal(own):
        attrs = {n.SCHEMA_VERSION: n.SCHEMA, n.STORE_ID: _id_in_runs(store) or uuid.uuid4().hex, **own}
    else:
        return  # damage, which `vaearr verify` tells
    attrs[ROOT_SEAL] = attributes_seal(attrs)
    _write_attributes(store / n.RUNS, attrs)
    found = tree(Folder(store))
    new = [key for key in (*found.arrays, *found.groups) if key and key not in known]
    refresh_listing(store, [*new, n.PATTERNS] if was_copied else new, attrs)
    if was_copied:
        text = "is a copy or part of another store; it has an identity and checksums of its own from now on"
        warnings.warn(f"{store} {text}.", StoreWarning, stacklevel=2)
    elif (is_kept and own != kept) or n.SCHEMA_VERSION not in own:
        text = f"the attributes of {store}, which another program had replaced, were put back."
        warnings.warn(text, StoreWarning, stacklevel=2)


def _adopt(store: Path) -> None:
    """Checksums of what is in a copy, and no longer those of the patterns that it came from."""
    patterns = _attributes(store / n.PATTERNS) or {}
    stale = ("sha256", n.SHA256_OF)
    _write_attributes(store / n.PATTERNS, {key: value for key, value in patterns.items() if key not in stale})
    seal(store)


def _id_in_runs(store: Path) -> str | None:
    """The identity that a run says its store has, for stores of earlier versions, which keep no copy of it."""
    manifests = [_attributes(file.parent) or {} for file in sorted((store / n.RUNS).glob(f"*/{METADATA}"))]
    data = [found["data"] for found in manifests if isinstance(found.get("data"), dict)]
    return next((str(found[n.STORE_ID]) for found in data if found.get(n.STORE_ID)), None)


def _attributes(group: Path) -> dict[str, Any] | None:
    """Attributes of an array or group; None where its metadata are not there or cannot be read."""
    try:
        found = json.loads((group / METADATA).read_bytes()).get("attributes", {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _write_attributes(group: Path, attributes: dict[str, Any]) -> None:
    """Replace the attributes of an array or group in one step; a group that is not there is made."""
    group.mkdir(exist_ok=True)
    file = group / METADATA
    metadata = json.loads(file.read_bytes()) if file.exists() else {"zarr_format": 3, "node_type": "group"}
    replace_file(file, json.dumps({**metadata, "attributes": attributes}, indent=2).encode())
