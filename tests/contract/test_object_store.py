"""Stores on S3: the same results as in a folder, and the same promises to those who read and write at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vaearr as va

from .bucket import Bucket
from .harness import BAD_DATA, BUSY, OK, TINY, command, spawn, vaearr, zarr

NEW = {"latents", "latents_std", "reconstruction_error", "latent"}


def attach_map(store: Any, folder: Path, name: str, code: int | None = OK, **others: Any) -> int:
    """`vaearr attach` of a small map, in a process of its own; returns its exit code."""
    np.save(folder / f"{name}.npy", np.arange(17 * 22, dtype="f4").reshape(17, 22))
    return spawn("attach", store, folder / f"{name}.npy", "--kind", "map", "--name", name, code=code, **others).code


@pytest.fixture
def url(bucket: Bucket, scan_files: dict[str, Path]) -> str:
    """A scan on S3."""
    vaearr("ingest", scan_files["patterns"], f"{bucket.url}/scan.zarr", "--bc", scan_files["BC"])
    return f"{bucket.url}/scan.zarr"


@pytest.mark.slow
def test_a_small_life(bucket: Bucket, scan_files: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    folder, url = tmp_path / "scan.zarr", f"{bucket.url}/deep/scan.zarr"
    for store, out in ((folder, tmp_path / "one"), (url, tmp_path / "two")):
        vaearr("ingest", scan_files["patterns"], store, "--bc", scan_files["BC"])
        vaearr("train", store, "--epochs", 2, "--set", "batch_size=64", *TINY)
        vaearr("encode", store)
        vaearr("cluster", store, "--method", "kmeans", "--k", 3, "--name", "grains")
        vaearr("associate", store, "--metric", "pearson")
        vaearr("reconstruct", store)
        vaearr("export", store, out)
        assert "is whole" in vaearr("verify", store).out
    mine, theirs, ours = zarr(folder), bucket.plain("deep/scan.zarr"), va.open_store(url)
    assert set(mine.variables) == set(theirs.variables) == set(ours.variables)
    for name in mine.variables:
        np.testing.assert_array_equal(mine[name].values, theirs[name].values, err_msg=str(name))
    np.testing.assert_array_equal(ours.latents.values, mine.latents.values)
    draws = [va.load_run(store).sample(3)["decoded"] for store in (folder, url)]
    np.testing.assert_array_equal(*draws)
    found = [{path.relative_to(out) for path in out.rglob("*")} for out in (tmp_path / "one", tmp_path / "two")]
    assert found[0] == found[1]
    assert f"{url}: scan of 17 y x 22 x" in vaearr("info", url).out
    assert "checkpoint" not in " ".join(bucket.names())
    vaearr("verify", url, "--remove", "runs/vae")
    assert not NEW & set(bucket.plain("deep/scan.zarr").variables)
    assert not {name for name in bucket.names("deep/scan.zarr") if name.startswith(("latents", "runs/vae"))}
    assert "is whole" in vaearr("verify", url).out


def test_readers_during_a_write_see_old_or_new(bucket: Bucket, url: str, tmp_path: Path) -> None:
    seen: list[bool] = []

    def look(name: str) -> None:
        ds = bucket.plain("scan.zarr")
        seen.append("one" in ds)
        ds.load()

    bucket.before_write = look
    attach_map(url, tmp_path, "one")
    assert seen
    assert sorted(seen) == seen
    assert "one" in bucket.plain("scan.zarr")


def test_of_two_writers_one_is_told_and_nothing_is_lost(bucket: Bucket, url: str, tmp_path: Path) -> None:
    """The second machine comes while the first one sends its map."""
    codes: list[int] = []
    other = {"env": {"VAEARR_CACHE": str(tmp_path / "second")}}

    def meanwhile(name: str) -> None:
        if "/one/c/" in name:
            bucket.before_write = lambda name: None
            codes.append(attach_map(url, tmp_path, "two", code=None, **other))

    bucket.before_write = meanwhile
    codes.append(attach_map(url, tmp_path, "one", code=None))
    assert sorted(codes) == [OK, BUSY]
    ds = bucket.plain("scan.zarr")
    assert {"one", "two"} & set(ds.variables) == {("two", "one")[codes.index(OK)]}
    again = ("two", "one")[codes.index(BUSY)]
    attach_map(url, tmp_path, again, **(other if again == "two" else {}))
    ds = bucket.plain("scan.zarr")
    np.testing.assert_array_equal(ds.one.values, ds.two.values)
    assert "is whole" in vaearr("verify", url).out


@pytest.mark.slow
def test_a_killed_encoding_goes_on(bucket: Bucket, url: str) -> None:
    vaearr("train", url, "--epochs", 1, "--set", "batch_size=64", *TINY)
    held: list[subprocess.Popen[bytes]] = []

    def kill(name: str) -> None:
        if "/latents/c/" in name and held:
            held.pop().send_signal(signal.SIGKILL)

    bucket.before_write = kill
    held.append(process := subprocess.Popen(command("encode", url), env=os.environ))
    assert process.wait() == -signal.SIGKILL
    assert not NEW & set(bucket.plain("scan.zarr").variables)
    assert "is whole" in vaearr("verify", url).out
    vaearr("encode", url)
    got = bucket.plain("scan.zarr").latents.values
    assert "is whole" in vaearr("verify", url).out
    vaearr("verify", url, "--remove", "latents")
    vaearr("encode", url)
    np.testing.assert_array_equal(got, bucket.plain("scan.zarr").latents.values)


def test_missing_and_empty_objects_are_damage(bucket: Bucket, url: str, tmp_path: Path) -> None:
    attach_map(url, tmp_path, "one")
    for name in ("BC/c/0/0", "one/c/0/0", "patterns/c/0/0/0/0"):
        store = bucket.store("scan.zarr")
        good = bytes(store.get(name).bytes())
        for spoil in (lambda: store.put(name, b""), lambda: store.delete(name)):  # noqa: B023
            spoil()
            with pytest.raises(ValueError, match=name):
                va.open_store(url)[name.split("/")[0]].values  # noqa: B018
            found = json.loads(vaearr("verify", url, "--json", code=BAD_DATA).out)["findings"]
            assert [item["place"] for item in found] == [name]
            if name.startswith("patterns"):
                assert name in vaearr("embed", url, "--components", 3, code=BAD_DATA).error
            store.put(name, good)
    assert "is whole" in vaearr("verify", url).out
