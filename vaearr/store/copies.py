"""The working copy of a store on object storage: all of it but the patterns, in a folder of this machine.

`pull` brings what others changed; commands then work on the copy as on any store; `sending` sends what they publish.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vaearr import names as n
from vaearr.errors import DataError, NoInputError
from vaearr.store.commit import journalled, refresh_listing, staged_folder, staging_root, unlist
from vaearr.store.folders import replace_file
from vaearr.store.objects import Objects, Stamp, side_by_side
from vaearr.store.seals import LISTING, METADATA, SEAL

CACHE = "VAEARR_CACHE"
MOST_TRIES = 10


@dataclass
class Record:
    """Where a copy comes from, and what of it is the same there: name -> tag there, size and time of change here."""

    url: str
    endpoint: str
    machine: str = field(default_factory=lambda: uuid.uuid4().hex)
    store_id: str | None = None
    staged_for: str | None = None  # the store, by its id, that was written from here last
    root: str | None = None  # tag of the listing that the copy is up to; None while it is not
    objects: dict[str, tuple[str, int, int]] = field(default_factory=dict)

    def is_fresh(self, copy: Path, name: str, tag: str) -> bool:
        """Whether the copy's file is the object of this tag."""
        return self.objects.get(name, ("",))[0] == tag and self.objects.get(name) == kept(copy / name, tag)


def kept(file: Path, tag: str) -> tuple[str, int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return tag, stat.st_size, stat.st_mtime_ns


def place(url: str, endpoint: str) -> Path:
    """The folder of a URL's working copy, which need not be there."""
    base = os.environ.get(CACHE) or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vaearr"
    key = hashlib.sha256(f"{endpoint} {url}".encode()).hexdigest()[:16]
    return Path(base).expanduser().resolve() / key / url.rsplit("/", 1)[1]


def _record_file(copy: Path) -> Path:
    return copy.with_name(f".{copy.name}.origin")


def record_of(store: Path) -> Record | None:
    """Where a folder is the working copy of a store on object storage: of which; else None."""
    try:
        found = json.loads(_record_file(store).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise DataError(f"{_record_file(store)} cannot be read ({error}); remove {store.parent}, a copy.") from None
    return Record(**found | {"objects": {name: tuple(last) for name, last in found["objects"].items()}})


def save(copy: Path, record: Record) -> None:
    """Write the record of a copy."""
    replace_file(_record_file(copy), json.dumps(asdict(record)).encode(), durable=False)


def objects_of(record: Record) -> Objects:
    """The objects of a copy's store."""
    return Objects(record.url, {"endpoint": record.endpoint} if record.endpoint else None)


def shown(store: Path) -> str:
    """A store as users know it: the URL of a working copy, the path of any other."""
    record = record_of(store)
    return record.url if record else str(store)


def beside(store: Path) -> Path:
    """The path that names of files beside a store are made from; of a working copy, in the current folder."""
    return store if record_of(store) is None else Path.cwd() / store.name


def patterns_there(store: Path) -> set[str] | None:
    """Names of the shards of a working copy's patterns, where they are; None for any other store."""
    record = record_of(store)
    if record is None:
        return None
    return {stamp.name for stamp in objects_of(record).below(f"{n.PATTERNS}/c/")}


@contextmanager
def alone(copy: Path) -> Iterator[None]:
    """Nobody else on this machine changes the copy meanwhile; held while it is brought up to date or sent."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(copy.with_name(f".{copy.name}.pull"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def pull(url: str, options: Any = None) -> Path:
    """The working copy of a URL, up to date; one request where nothing changed. Raises NoInputError."""
    objects = Objects(url, options)
    copy = place(objects.url, objects.endpoint)
    record = record_of(copy)
    if record and record.root and (copy / METADATA).exists() and not objects.differs(METADATA, record.root):
        return copy
    with alone(copy):
        bring(copy, objects)
    return copy


def bring(copy: Path, objects: Objects) -> Record:
    """Bring a copy up to date, inside `alone`; what was published here and not sent yet stays as it is."""
    for _ in range(MOST_TRIES):
        record = record_of(copy) or Record(objects.url, objects.endpoint)
        found = objects.fetch(METADATA)
        if found is None:
            raise NoInputError(
                f"there is no store at {objects.url}; make one with 'vaearr ingest SOURCE {objects.url}'."
            )
        data, stamp = found
        if record.root == stamp.tag and (copy / METADATA).exists():
            return record
        root = parsed(data, objects.url)
        store_id = root["attributes"].get(n.STORE_ID)
        with _staging(copy) as staging:
            work = _Pull(copy, objects, record, staging, root)
            work.fetch()
            if objects.differs(METADATA, stamp.tag):
                continue
            record.store_id, record.root = store_id, None
            save(copy, record)
            work.install(data)
            record.root = stamp.tag
            save(copy, record)
            return record
    raise NoInputError(f"{objects.url} is being changed all the time; try again in a moment.")


def parsed(data: bytes, url: str) -> dict[str, Any]:
    try:
        root: dict[str, Any] = json.loads(data)
        assert isinstance(root["attributes"], dict)
        assert isinstance(root[LISTING]["metadata"], dict)
        return root
    except (ValueError, KeyError, TypeError, AssertionError):
        raise DataError(
            f"{url} is not a zarr v3 store with a list of its variables; give the URL of one that 'vaearr ingest' made."
        ) from None


@contextmanager
def _staging(copy: Path) -> Iterator[Path]:
    for left in staging_root(copy).glob("pulled-*"):  # of a pull that was killed
        shutil.rmtree(left, ignore_errors=True)
    with staged_folder(copy, "pulled") as folder:
        yield folder


class _Pull:
    """One pull: what changed is put together aside, variable by variable and run by run, then renamed in."""

    def __init__(self, copy: Path, objects: Objects, record: Record, staging: Path, root: dict[str, Any]) -> None:
        self.copy, self.objects, self.record, self.staging = copy, objects, record, staging
        self.listed: dict[str, Any] = root[LISTING]["metadata"]
        self.pending = tuple(journalled(copy))
        self.changed: list[str] = []
        self.brought: dict[str, tuple[str, int, int]] = {}

    def fetch(self) -> None:
        """Stage what differs from the copy."""
        arrays = [key for key in self.listed if "/" not in key and key not in (n.PATTERNS, n.RUNS)]
        found = side_by_side(lambda key: [*self.objects.below(f"{key}/")], [*arrays, n.RUNS])
        units = dict(zip(arrays, found, strict=False))
        for run in [key for key in self.listed if key.startswith(f"{n.RUNS}/") and key.count("/") == 1]:
            units[run] = [stamp for stamp in found[-1] if self._is_of_run(stamp.name, run, found[-1])]
        units[n.PATTERNS] = [s for name in (METADATA, SEAL) if (s := self.objects.stamp(f"{n.PATTERNS}/{name}"))]
        self.single = [stamp for stamp in found[-1] if stamp.name == f"{n.RUNS}/{METADATA}"]
        downloads: list[tuple[Stamp, Path]] = []
        for unit, stamps in units.items():
            if not self._is_pending(unit):
                downloads += self._stage(unit, [s for s in stamps if not self._is_pending(s.name)])
        self.single = [stamp for stamp in self.single if not self._is_fresh(stamp)]
        downloads += [(stamp, self.staging / stamp.name) for stamp in self.single]
        for _, file in downloads:
            file.parent.mkdir(parents=True, exist_ok=True)
        side_by_side(lambda item: self._download(*item), downloads)
        self.gone = [key for key in self._units_here() if key not in units and not self._is_pending(key)]

    def _is_of_run(self, name: str, run: str, stamps: list[Stamp]) -> bool:
        """Whether an object belongs to a run: not to another, nor to a table of it that is not listed."""
        if not name.startswith(f"{run}/"):
            return False
        part = name.removeprefix(f"{run}/").split("/")[0]
        table = f"{run}/{part}"
        return part == METADATA or table in self.listed or not any(s.name == f"{table}/{METADATA}" for s in stamps)

    def _is_pending(self, name: str) -> bool:
        return any(name == key or name.startswith(f"{key}/") for key in self.pending)

    def _is_fresh(self, stamp: Stamp) -> bool:
        return self.record.is_fresh(self.copy, stamp.name, stamp.tag)

    def _stage(self, unit: str, stamps: list[Stamp]) -> list[tuple[Stamp, Path]]:
        """Put a unit together from what is here, where anything in it changed; returns what is to be downloaded."""
        here = {f"{unit}/{name}" for name in files_of_folder(self.copy / unit)}
        ours = {name for name in here if self._is_pending(name)}
        fresh = {stamp.name for stamp in stamps if self._is_fresh(stamp)}
        if here == fresh | ours and len(fresh) == len(stamps):
            return []
        self.changed.append(unit)
        for name in fresh | ours:
            _link(self.copy / name, self.staging / name)
        return [(stamp, self.staging / stamp.name) for stamp in stamps if stamp.name not in fresh]

    def _download(self, stamp: Stamp, file: Path) -> None:
        tag, _ = self.objects.download(stamp.name, file)
        found = kept(file, tag)
        assert found is not None
        self.brought[stamp.name] = found

    def _units_here(self) -> list[str]:
        """Variables and runs of the copy that came from there."""
        parts = {tuple(name.split("/")) for name in self.record.objects}
        units = {"/".join(p[:2]) if p[0] == n.RUNS else p[0] for p in parts if p != (n.RUNS, METADATA)}
        return sorted(unit for unit in units if (self.copy / unit).exists())

    def install(self, root: bytes) -> None:
        """Rename in what is staged, take away what is gone; the root comes last."""
        away = [*self.gone, *(unit for unit in self.changed if (self.copy / unit).exists())]
        if away and (self.copy / METADATA).exists():
            unlist(self.copy, away)
        for unit in away:
            trash = self.staging / "away" / unit
            trash.parent.mkdir(parents=True, exist_ok=True)
            (self.copy / unit).rename(trash)
        for unit in self.changed:
            (self.copy / unit).parent.mkdir(parents=True, exist_ok=True)
            (self.staging / unit).rename(self.copy / unit)
        for stamp in self.single:
            (self.copy / stamp.name).parent.mkdir(parents=True, exist_ok=True)
            (self.staging / stamp.name).replace(self.copy / stamp.name)
        below = tuple(f"{unit}/" for unit in away)
        stay = {k: v for k, v in self.record.objects.items() if not k.startswith(below) or (self.copy / k).exists()}
        self.record.objects = stay | self.brought
        self.copy.mkdir(exist_ok=True)
        replace_file(self.copy / METADATA, root)
        if self.pending:
            refresh_listing(self.copy, self.pending)


def files_of_folder(folder: Path) -> list[str]:
    """Names of all files below a folder."""
    return [os.path.relpath(os.path.join(root, name), folder) for root, _, names in os.walk(folder) for name in names]


def _link(old: Path, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except OSError:  # a file system without hard links
        shutil.copy2(old, new)
