"""What writers that were killed left behind: named, and removed on request where it is ours and of no more use."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vaearr.store.commit import journalled, remove_if_empty, staged_names, staging_root, writer
from vaearr.store.folders import PART
from vaearr.store.listing import is_of, listed
from vaearr.store.places import METADATA, Folder, Objects, StorePath, object_url
from vaearr.store.seals import tree
from vaearr.store.sending import read_root

KEPT_SECONDS = 24 * 3600.0  # what is younger may belong to a command that runs
_HEX = r"[0-9a-f]{8}"
_OF_A_FILE = re.compile(rf"\..+\.({_HEX}|[0-9a-f]{{32}}{re.escape(PART)})")  # of `folders.replace_file`
_OF_AN_ARRAY = re.compile(rf".*\.[0-9a-f]{{32}}{re.escape(PART)}")  # of zarr, and of `write_seal`
_OF_A_REPORT = re.compile(r"\..+\.\d+\.(part|old)")
_STAGED = (
    (
        re.compile(r"publishing\.json"),
        "a publication that was killed; the next command that writes completes it",
        False,
    ),
    (_OF_A_FILE, "an unfinished file", True),
    (re.compile(r"variables-.+"), "unfinished variables; the same command goes on with them", False),
    (re.compile(r"run-.+-maps"), "maps of a run that was not published", True),
    (re.compile(r"run-.+"), "an unfinished training; 'vaearr train' with the same run goes on with it", False),
    (re.compile(r"new-.+"), "a store that was not finished", True),
    (re.compile(r"replaced-.+"), "what was replaced", True),
    (re.compile(rf".+-{_HEX}"), "maps or a table that were not published", True),
)
_OURS = {"store.id", "ingest.claim"}  # of `sending`; small, and no trouble


@dataclass(frozen=True)
class Leftover:
    """Something a killed writer left. is_rubbish: no command goes on with it. age: seconds since its last change."""

    path: Path
    what: str
    is_rubbish: bool
    age: float

    @property
    def is_old(self) -> bool:
        """Whether no running command can be at it any more."""
        return self.age > KEPT_SECONDS


def leftovers(store: Path) -> list[Leftover]:
    """All that killed writers of a store left: in it, among its objects, in its hidden sibling, among its reports."""
    inside = _objects(store) if object_url(store) else _files(store)
    return [*_staged(store), *inside]


def _staged(store: Path) -> Iterator[Leftover]:
    staging = staging_root(store)
    try:
        needed = staged_names(journalled(store)) | _OURS
    except ValueError:
        needed = _OURS
    for path in sorted(staging.iterdir()) if staging.is_dir() else ():
        if path.name in needed:
            continue
        for pattern, what, is_rubbish in _STAGED:
            if pattern.fullmatch(path.name):
                yield Leftover(path, what, is_rubbish, _age(path))
                break
        else:
            yield Leftover(path, "nothing that vaearr wrote", False, _age(path))


def _objects(store: Path) -> Iterator[Leftover]:
    """Objects that no listing mentions, by the key that they were to be published under."""
    objects = Objects(store)
    stamps, known = [*objects.listed()], listed(read_root(objects)[0])
    there = [stamp["path"] for stamp in stamps]
    keys = {name.removesuffix(f"/{METADATA}") for name in there if name.endswith(f"/{METADATA}")} - known.keys()
    for key in sorted(keys - set(journalled(store))):
        if not is_of(key, keys - {key}):
            newest = max(stamp["last_modified"] for stamp in stamps if is_of(stamp["path"], (key,)))
            what = "objects that no list of variables mentions: of a command that was killed, or is at work elsewhere"
            yield Leftover(StorePath(f"{objects.url}/{key}"), what, True, time.time() - newest.timestamp())


def _files(store: Path) -> Iterator[Leftover]:
    there = tree(Folder(store))
    for name in sorted(there.sizes):
        folder, _, file = name.rpartition("/")
        if folder in ("", *there.groups) and _OF_A_FILE.fullmatch(file):
            yield Leftover(store / name, "an unfinished file", True, _age(store / name))
        elif _OF_AN_ARRAY.fullmatch(file):
            yield Leftover(store / name, "an unfinished chunk", True, _age(store / name))
    reports = store.with_name(f"{store.name.removesuffix('.zarr')}.reports")
    for path in sorted(reports.iterdir()) if reports.is_dir() else ():
        if _OF_A_REPORT.fullmatch(path.name):
            yield Leftover(path, "an unfinished or replaced report", True, _age(path))


def _age(path: Path) -> float:
    newest = max((p.lstat().st_mtime for p in (path, *path.rglob("*"))), default=0.0)
    return time.time() - newest


def removable(store: Path, *, unfinished: bool = False) -> list[Leftover]:
    """Rubbish older than a day; with `unfinished` also work that a command could go on with."""
    return [left for left in leftovers(store) if left.is_old and (left.is_rubbish or (unfinished and _is_work(left)))]


def _is_work(left: Leftover) -> bool:
    return left.path.name.startswith(("variables-", "run-"))


def clean(store: Path, *, unfinished: bool = False) -> list[Leftover]:
    """Remove what is `removable`, as the one writer of the store; returns what went. Completes a killed publication."""
    with writer(store):
        gone = removable(store, unfinished=unfinished)
        for left in gone:
            if url := object_url(left.path):
                objects = Objects(store)
                key = url.removeprefix(f"{objects.url}/")
                objects.remove([name for name in objects.files() if is_of(name, (key,))])
            else:
                shutil.rmtree(left.path) if left.path.is_dir() else left.path.unlink()
        remove_if_empty(staging_root(store))
    return gone
