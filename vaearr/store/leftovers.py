"""What writers that were killed left behind: named, and removed on request where it is ours and of no more use."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vaearr.store.commit import journalled, remove_if_empty, staging_root, writer
from vaearr.store.folders import PART
from vaearr.store.seals import nodes

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
    """All that killed writers of a store left: in it, in its hidden sibling, among its reports."""
    return list(_found(store))


def _found(store: Path) -> Iterator[Leftover]:
    staging = staging_root(store)
    publishing = _publishing(store)
    for path in sorted(staging.iterdir()) if staging.is_dir() else ():
        if path.name in publishing:
            continue
        for pattern, what, is_rubbish in _STAGED:
            if pattern.fullmatch(path.name):
                yield Leftover(path, what, is_rubbish, _age(path))
                break
        else:
            yield Leftover(path, "nothing that vaearr wrote", False, _age(path))
    folders = [store, *(folder for _, folder, is_array in nodes(store) if not is_array)]
    for path in sorted(path for folder in folders for path in folder.iterdir()):
        if _OF_A_FILE.fullmatch(path.name) and path.is_file():
            yield Leftover(path, "an unfinished file", True, _age(path))
    for _, folder, is_array in nodes(store):
        for path in sorted(folder.rglob(f"*{PART}")) if is_array else ():
            if _OF_AN_ARRAY.fullmatch(path.name):
                yield Leftover(path, "an unfinished chunk", True, _age(path))
    reports = store.with_name(f"{store.name.removesuffix('.zarr')}.reports")
    for path in sorted(reports.iterdir()) if reports.is_dir() else ():
        if _OF_A_REPORT.fullmatch(path.name):
            yield Leftover(path, "an unfinished or replaced report", True, _age(path))


def _publishing(store: Path) -> set[str]:
    """Folders that a killed publication still has to move."""
    try:
        return {Path(folder).parts[0] for folder in journalled(store).values() if folder}
    except (OSError, ValueError):
        return set()


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
            shutil.rmtree(left.path) if left.path.is_dir() else left.path.unlink()
        remove_if_empty(staging_root(store))
    return gone
