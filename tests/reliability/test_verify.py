"""`vaearr verify`: a healthy store, one without checksums, what commands that were killed left."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import zarr

from tests.reliability.conftest import Stage
from tests.reliability.jobs import STORE
from tests.reliability.test_kills import hashes
from vaearr.errors import DataError, LockedError
from vaearr.store.commit import lock_store, staging_root
from vaearr.store.listing import SEAL
from vaearr.store.verify import clean, in_words, leftovers, removable, seal_store, verify_store

WHOLE = ("files", "ingest", "train", "encode", "associate")


@pytest.fixture
def store(stage: Stage, tmp_path: Path) -> Path:
    """A store with a run, its latents and a table; to be damaged."""
    return Path(shutil.copytree(stage(WHOLE) / STORE, tmp_path / STORE))


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 4
    file.write_bytes(raw)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def swap(file: Path) -> None:
    """Another whole chunk of the same array in its place."""
    other = Path(str(file).replace("/c/0/0", "/c/1/0", 1))
    file.write_bytes(other.read_bytes())


def test_a_healthy_store_has_no_findings(store: Path) -> None:
    before = hashes(store)
    found = verify_store(store)
    assert found.findings == []
    assert found.notes == []
    assert found.leftovers == []
    assert found.n_files > 50
    assert found.n_bytes == sum(f.stat().st_size for f in store.rglob("*") if f.is_file() and f.name != SEAL) - sum(
        f.stat().st_size for f in (store / "zarr.json", *_groups(store))
    )
    assert hashes(store) == before
    assert [*in_words(found)][-1].startswith(f"{store} is whole (")


def _groups(store: Path) -> list[Path]:
    group = zarr.open_group(store, mode="r")
    return [store / name / "zarr.json" for name, item in group.members(max_depth=None) if isinstance(item, zarr.Group)]


def without_checksums(store: Path) -> None:
    """As stores of earlier versions are."""
    for file in store.rglob(SEAL):
        file.unlink()
    root = json.loads((store / "zarr.json").read_bytes())
    runs = json.loads((store / "runs" / "zarr.json").read_bytes())
    identity = {key: runs["attributes"][key] for key in ("vaearr_schema", "store_id")}
    root["attributes"] |= identity
    runs["attributes"] = root["consolidated_metadata"]["metadata"]["runs"]["attributes"] = {}
    (store / "runs" / "zarr.json").write_text(json.dumps(runs))
    (store / "zarr.json").write_text(json.dumps(root))


def test_a_store_without_checksums(store: Path) -> None:
    without_checksums(store)
    found = verify_store(store)
    assert found.is_healthy
    assert found.unsealed
    assert "one chunk in the place of another would not be found" in found.notes[0]
    for file, damage in (
        ("latents/c/0/0/0", flip),
        ("latents/c/0/0/0", truncate),
        ("patterns/c/0/0/0/0", flip),
        ("runs/vae/model/weights.safetensors", flip),
        ("runs/vae/model/config.json", flip),
    ):
        intact = shutil.copytree(store, store.with_name("intact.zarr"))
        damage(store / file)
        assert not verify_store(store).is_healthy, (file, damage.__name__)
        with pytest.raises(DataError, match=r"is damaged .* so no checksums were added"):
            seal_store(store)
        shutil.rmtree(store)
        intact.rename(store)
    latents = store / "latents/c/0/0/0"
    good = latents.read_bytes()
    swap(latents)
    assert verify_store(store).is_healthy  # which the note says
    latents.write_bytes(good)
    assert set(seal_store(store)) == set(found.unsealed)
    assert verify_store(store).unsealed == []
    swap(latents)
    assert [item.place for item in verify_store(store).findings] == ["latents/c/0/0/0"]


@pytest.fixture
def littered(store: Path) -> tuple[Path, dict[str, Path]]:
    """A store with all kinds of leftovers, two days old."""
    staging = staging_root(store)
    kinds = {
        "new": staging / "new-0123abcd" / "zarr.json",
        "table": staging / "tables-0123abcd" / "zarr.json",
        "variables": staging / "variables-latents" / "zarr.json",
        "run": staging / "run-b" / "model" / "checkpoint.safetensors",
        "stranger": staging / "notes.txt",
        "photo": store / "photo.png",
    }
    for path in kinds.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        old = time.time() - 2 * 24 * 3600
        for place in (path, *path.parents[:2]):
            os.utime(place, (old, old))
    return store, kinds


def test_leftovers_are_named_and_only_ours_go(littered: tuple[Path, dict[str, Path]]) -> None:
    store, kinds = littered
    found = verify_store(store)
    assert found.is_healthy
    assert {left.path.name for left in found.leftovers} == {
        *("new-0123abcd", "tables-0123abcd", "variables-latents", "run-b", "notes.txt"),
    }
    before = hashes(store.parent)
    rubbish = {kinds[name] for name in ("new", "table")}
    assert all(any(path.is_relative_to(left.path) for left in removable(store)) for path in rubbish)
    assert len(removable(store)) == len(rubbish)
    assert hashes(store.parent) == before  # a list is all it is
    with lock_store(store), pytest.raises(LockedError):
        clean(store)
    clean(store)
    assert {name for name, path in kinds.items() if path.exists()} == {"variables", "run", "stranger", "photo"}
    clean(store, unfinished=True)
    assert {name for name, path in kinds.items() if path.exists()} == {"stranger", "photo"}
    assert next(leftovers(store)).what == "nothing that vaearr wrote"
