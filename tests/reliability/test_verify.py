"""`verify_store`: a healthy store, and one without checksums."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.reliability.conftest import Stage
from tests.reliability.jobs import STORE
from tests.reliability.test_kills import hashes
from vaearr.errors import DataError
from vaearr.store.listing import SEAL
from vaearr.store.verify import in_words, seal_store, verify_store

CHUNK = "latents/c/0/0/0"


@pytest.fixture
def store(stage: Stage, tmp_path: Path) -> Path:
    """A store with a run, its latents and a table; to be damaged."""
    return Path(
        shutil.copytree(
            stage(("files", "ingest", "train", "encode", "associate")) / STORE, tmp_path / STORE
        )
    )


def test_a_healthy_store_has_no_findings(store: Path) -> None:
    before = hashes(store)
    result = verify_store(store)
    assert (result.findings, result.notes) == ([], [])
    assert result.n_files > 50
    assert hashes(store) == before
    assert [*in_words(result)][-1].startswith(f"{store} is intact (")


def test_a_store_without_checksums(store: Path) -> None:
    """As stores of earlier versions are: flipped bits are found, one chunk in the place of another
    is not.
    """
    for file in store.rglob(SEAL):
        file.unlink()
    root, runs = (
        json.loads((store / name).read_bytes()) for name in ("zarr.json", "runs/zarr.json")
    )
    root["attributes"] |= {key: runs["attributes"][key] for key in ("vaearr_schema", "store_id")}
    runs["attributes"] = root["consolidated_metadata"]["metadata"]["runs"]["attributes"] = {}
    (store / "runs" / "zarr.json").write_text(json.dumps(runs))
    (store / "zarr.json").write_text(json.dumps(root))
    result = verify_store(store)
    assert result.is_healthy
    assert "does not detect swapped chunks" in result.notes[0]
    for file in (CHUNK, "patterns/c/0/0/0/0"):
        good = (store / file).read_bytes()
        for damaged in (good[: len(good) // 2], good[:-9] + bytes([good[-9] ^ 4]) + good[-8:]):
            (store / file).write_bytes(damaged)
            assert not verify_store(store).is_healthy, file
            with pytest.raises(DataError, match=r"is damaged .* so no checksums were added"):
                seal_store(store)
        (store / file).write_bytes(good)
    good, other = (store / CHUNK).read_bytes(), (store / CHUNK.replace("/c/0", "/c/1")).read_bytes()
    (store / CHUNK).write_bytes(other)
    assert verify_store(store).is_healthy  # which the note says
    (store / CHUNK).write_bytes(good)
    assert set(seal_store(store)) == set(result.unsealed)
    assert verify_store(store).unsealed == []
    (store / CHUNK).write_bytes(other)
    assert [finding.place for finding in verify_store(store).findings] == [CHUNK]
