"""What other programs do to the root of a store, mended: replaced attributes, copies and parts."""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr

from vaearr import names as n
from vaearr.errors import StoreWarning
from vaearr.store.folders import replace_file
from vaearr.store.listing import ROOT_SEAL, SEAL, attributes_seal, listed_in, refresh_listing, seal, tree
from vaearr.store.places import METADATA, Folder

Attributes = dict[str, Any]


def sealed(attributes: Mapping[str, Any]) -> Attributes:
    """Attributes of a root with a checksum of their own."""
    return {**attributes, ROOT_SEAL: attributes_seal(attributes)}


def root_attributes(group: zarr.Group, named: object) -> Attributes:
    """Attributes of a store's root; where another program replaced them, those that `/runs` has a copy of.

    Stores of earlier versions have no copy; they are known by `/runs` and patterns that name their dims. Warns then.
    """
    own, runs, patterns = dict(group.attrs), group.get(n.RUNS), group.get(n.PATTERNS)
    if n.SCHEMA_VERSION in own or not isinstance(runs, zarr.Group):
        return own
    kept = dict(runs.attrs)
    if n.SCHEMA_VERSION not in kept:
        if patterns is None or n.NAVIGATION_DIMS not in patterns.attrs:
            return own
        kept = {n.SCHEMA_VERSION: n.SCHEMA}
    warnings.warn(
        f"another program replaced the attributes of {named}; 'vaearr verify {named} --relist', or the next command "
        "that writes, puts them back.",
        StoreWarning,
        stacklevel=2,
    )
    return {**own, **kept}


def is_copy(store: Path) -> bool:
    """Whether a store is a copy or part of another, written by other programs: it has no runs and no checksums."""
    return not ((store / n.RUNS / METADATA).exists() or (store / n.PATTERNS / SEAL).exists())


def is_settled(store: Path) -> bool:
    """Whether `settle` has nothing to mend; stores of earlier versions, without a second copy, count as settled."""
    own, kept = _attributes(store), _attributes(store / n.RUNS)
    return own is None or (n.SCHEMA_VERSION in own and not is_copy(store) and (not kept or kept == own))


def settle(store: Path) -> None:
    """Put back root attributes that another program replaced; make a copy, or part, of another store one of its own.

    Needs the lock. A copy gets an identity and checksums, and loses those of the values it came from. What other
    programs added to the root's attributes stays.
    """
    own, kept = _attributes(store), _attributes(store / n.RUNS) or {}
    if own is None:
        return
    known = listed_in(Folder(store))
    copy = known.get(n.RUNS, {}).get("attributes")  # which a kill may have left unlisted
    if n.SCHEMA_VERSION in own and own == kept == copy:
        return
    changed: list[str] = []
    said = f"the attributes of {store}, which another program had replaced, were put back."
    if n.SCHEMA_VERSION in own and is_copy(store):
        said = f"{store} is a copy or part of another store; it has an identity and checksums of its own from now on."
        attributes, changed = {**own, n.STORE_ID: uuid.uuid4().hex}, [n.PATTERNS]
        patterns, stale = _attributes(store / n.PATTERNS) or {}, ("sha256", n.SHA256_OF)  # of those it came from
        _write_attributes(store / n.PATTERNS, {key: value for key, value in patterns.items() if key not in stale})
        seal(store)
    elif kept and sealed(kept) == kept:
        attributes, said = {**own, **kept}, said if own != kept else ""
    elif own.get(ROOT_SEAL, attributes_seal(own)) == attributes_seal(own):
        attributes = {n.SCHEMA_VERSION: n.SCHEMA, n.STORE_ID: _id_in_runs(store) or uuid.uuid4().hex, **own}
        said = said if n.SCHEMA_VERSION not in own else ""
    else:
        return  # damage, which `vaearr verify` tells
    attributes = sealed(attributes)
    _write_attributes(store / n.RUNS, attributes)
    found = tree(Folder(store))
    changed += [key for key in (*found.arrays, *found.groups) if key and key not in known]
    refresh_listing(store, changed, attributes)
    if said:
        warnings.warn(said, StoreWarning, stacklevel=2)


def _id_in_runs(store: Path) -> str | None:
    """The identity that a run says its store has, for stores of earlier versions, which keep no copy of it."""
    manifests = [_attributes(file.parent) or {} for file in sorted((store / n.RUNS).glob(f"*/{METADATA}"))]
    data = [found["data"] for found in manifests if isinstance(found.get("data"), dict)]
    return next((str(found[n.STORE_ID]) for found in data if found.get(n.STORE_ID)), None)


def _attributes(group: Path) -> Attributes | None:
    """Attributes of an array or group; None where its metadata are not there or cannot be read."""
    try:
        found = json.loads((group / METADATA).read_bytes()).get("attributes", {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _write_attributes(group: Path, attributes: Attributes) -> None:
    """Replace the attributes of an array or group in one step; a group that is not there is made."""
    group.mkdir(exist_ok=True)
    file = group / METADATA
    metadata = json.loads(file.read_bytes()) if file.exists() else {"zarr_format": 3, "node_type": "group"}
    replace_file(file, json.dumps({**metadata, "attributes": attributes}, indent=2).encode())
