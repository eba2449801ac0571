"""A damaged store is told from a whole one: no number comes out of it, every finding can be mended as it says."""

from __future__ import annotations

import json
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr as zarr_python

import vaearr as va

from .harness import BAD_DATA, CANNOT_WRITE, OK, Done, tree, vaearr, zarr

SUMS = "checksums.sha256"


def chunk_of(store: Path, variable: str) -> Path:
    """A file of a variable that holds values."""
    return min(file for file in (store / variable / "c").rglob("*") if file.is_file())


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def findings(store: Path) -> list[dict[str, Any]]:
    done = vaearr("verify", store, "--json", code=None)
    found = list(json.loads(done.out)["findings"])
    assert done.code == (BAD_DATA if found else OK)
    return found


def places(store: Path) -> set[str]:
    return {str(found["place"]) for found in findings(store)}


@pytest.mark.parametrize("variable", ["BC", "latents"])
@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "without-checksums"])
def test_a_damaged_chunk_is_named_by_every_reader(trained_store: Path, variable: str, is_sealed: bool) -> None:
    chunk = chunk_of(trained_store, variable)
    name = str(chunk.relative_to(trained_store))
    if is_sealed and variable == "BC":  # so that `associate` reads
        vaearr("verify", trained_store, "--remove", "runs/vae/association")
    if not is_sealed:
        (trained_store / variable / SUMS).unlink()
    flip(chunk)
    before = tree(trained_store)
    commands: list[tuple[Any, ...]] = [("look contrast",)] if variable == "BC" else [("look stats",)]
    if is_sealed:
        commands += [("export", trained_store.parent / "out")]
        commands += [("cluster", "--k", "2")] if variable == "latents" else [("associate", "--metric", "pearson")]
    for command, *rest in commands:
        said = vaearr(*command.split(), trained_store, *rest, code=BAD_DATA).error
        assert name in said, said
        assert f"vaearr verify {trained_store}" in said
    for chunks in ("shards", None):
        with pytest.raises(ValueError, match=name):
            va.open_store(trained_store, chunks=chunks)[variable].values  # noqa: B018
    assert tree(trained_store) == before


def test_an_empty_file_is_damage(trained_store: Path) -> None:
    chunks = {variable: chunk_of(trained_store, variable) for variable in ("patterns", "BC", "latents")}
    for chunk in chunks.values():
        chunk.write_bytes(b"")
    for variable, chunk in chunks.items():
        with pytest.raises(ValueError, match=str(chunk.relative_to(trained_store))):
            va.open_store(trained_store, chunks=None)[variable].values  # noqa: B018
    assert {str(chunk.relative_to(trained_store)) for chunk in chunks.values()} <= places(trained_store)


def test_group_metadata_changed_by_hand_stay_damage(trained_store: Path) -> None:
    files = {f"{group}/zarr.json" for group in ("runs/vae", "runs/vae/history", "runs/vae/association")}
    for file in files:
        about = json.loads((trained_store / file).read_bytes())
        about["attributes"] |= {"n_roi": 7, "explained_variance": 0.99}
        (trained_store / file).write_text(json.dumps(about))
    attach(trained_store, "other")
    assert files <= places(trained_store)


def test_what_was_published_is_read_not_what_was_changed(trained_store: Path) -> None:
    def told(done: Done) -> list[str]:  # all but the size on disk
        return [line for line in done.out.splitlines() if " on disk" not in line]

    before = vaearr("info", trained_store)
    file = trained_store / "runs/vae/zarr.json"
    about = json.loads(file.read_bytes())
    about["attributes"]["n_roi"] = 123456
    file.write_text(json.dumps(about))
    done = vaearr("info", trained_store, code=None)
    assert "123456" not in done.out
    assert done.code == BAD_DATA or told(done) == told(before)


def attach(store: Path, name: str) -> Done:
    ds = zarr(store)
    np.save(store.parent / f"{name}.npy", np.ones((ds.sizes["y"], ds.sizes["x"]), "f4"))
    return vaearr("attach", store, store.parent / f"{name}.npy", "--kind", "map", "--name", name)


def test_one_broken_variable_hinders_no_other_and_can_be_repaired(trained_store: Path) -> None:
    want = zarr(trained_store).pca.values
    for variable, text in (("BC", "{"), ("pca", '{"zarr_format": 3, "node_type": "array"}')):
        (trained_store / variable / "zarr.json").write_text(text)
    attach(trained_store, "other")
    assert "other" in zarr(trained_store)
    assert not list(trained_store.parent.glob(".scan.zarr.staging"))  # nothing is left of the publication
    found = {item["variable"]: item for item in findings(trained_store)}
    assert set(found) == {"BC", "pca"}
    assert f"vaearr verify {trained_store} --remove pca" in found["pca"]["do"]
    vaearr("verify", trained_store, "--remove", "pca")
    vaearr("embed", trained_store, "--components", 4)
    np.testing.assert_array_equal(zarr(trained_store).pca.values, want)
    assert {item["variable"] for item in findings(trained_store)} == {"BC"}


def test_a_run_whose_folder_is_gone_is_a_finding(trained_store: Path) -> None:
    shutil.rmtree(trained_store / "runs" / "vae")
    found = findings(trained_store)
    assert "runs/vae" in {item["variable"] for item in found}
    assert any(f"vaearr verify {trained_store} --remove runs/vae" in item["do"] for item in found)
    vaearr("verify", trained_store, "--remove", "runs/vae")
    vaearr("verify", trained_store)


@pytest.fixture
def small_files() -> Iterator[Any]:
    """Files of this process cannot grow beyond so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))

    yield limit
    limit(None)


def test_a_disk_that_is_full_while_checksums_are_added(scan_store: Path, small_files: Any) -> None:
    mine = zarr_python.open_group(scan_store, mode="r+").create_array(
        "mine", shape=(17, 22), chunks=(1, 1), dtype="float32", dimension_names=("y", "x")
    )
    mine[:] = np.random.default_rng(0).normal(size=(17, 22))
    vaearr("verify", scan_store, "--relist")
    for file in scan_store.rglob(SUMS):
        file.unlink()
    small_files(12_000)  # the checksums of `mine` take 30 kB
    vaearr("verify", scan_store, "--seal", code=CANNOT_WRITE)
    small_files(None)
    assert findings(scan_store) == []
    vaearr("verify", scan_store, "--seal")
    assert "checksums" not in vaearr("verify", scan_store).out
    assert len((scan_store / "mine" / SUMS).read_text().splitlines()) == 17 * 22 + 1


class Stopped(BaseException):
    """The program ends here."""


_left = [-1]


def _stop(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "os.rename" and _left[0] >= 0:
        _left[0] -= 1
        if _left[0] < 0:
            raise Stopped


def test_a_removal_that_was_stopped_is_no_damage(trained_store: Path, tmp_path: Path) -> None:
    """Stopped before a rename: nothing is damaged, all of it is listed or none, and any writer completes it."""
    sys.addaudithook(_stop)
    names = {"latents", "latents_std", "reconstruction_error", "latent"}
    for renames in (1, 3, 50):
        store = Path(shutil.copytree(trained_store, tmp_path / str(renames) / "scan.zarr"))
        _left[0] = renames
        try:
            vaearr("verify", store, "--remove", "latents")
        except Stopped:
            assert findings(store) == []
            assert len(names & set(zarr(store).variables)) in (0, 4)
            if renames == 3:
                attach(store, "other")
                assert not names & {path.name for path in store.iterdir()}
                assert findings(store) == []
        else:
            assert renames == 50
        finally:
            _left[0] = -1
            shutil.rmtree(store.parent)
