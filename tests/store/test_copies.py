"""Working copies: what another machine wrote arrives, what was cut short is completed, readers see all or none."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr import names as n
from vaearr import store as vs
from vaearr.association import associate_store
from vaearr.errors import DataError, ExistsError, NoInputError, WriteError
from vaearr.store import copies, sending
from vaearr.store.commit import staging_root, writer
from vaearr.store.copies import record_of
from vaearr.store.creation import MARK
from vaearr.store.objects import Objects
from vaearr.store.remove import remove
from vaearr.testing import random_patterns_dataset
from vaearr.verifying import verify_store

from .s3 import Server
from .test_objects import plain

RUN = n.DEFAULT_RUN


def machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as another machine."""
    monkeypatch.setenv("VAEARR_CACHE", str(tmp_path / name))


def table(value: float) -> xr.Dataset:
    return xr.Dataset({"score": ("metric", np.full(5, value)), "metric": list("abcde")})


def published(url: str) -> dict[str, Any]:
    """Everything that a stranger sees, values included."""
    ds = plain(url)
    return {str(name): ds[name].values for name in ds.variables} | {"listed": sorted(map(str, ds.variables))}


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[k], two[k], equal_nan=_is_float(one[k])) for k in one)


def _is_float(values: Any) -> bool:
    return getattr(values, "dtype", np.dtype(int)).kind == "f"


@pytest.fixture(scope="module")
def scan() -> xr.Dataset:
    return random_patterns_dataset({"y": 11, "x": 7}, missing=3)


@pytest.fixture
def with_run(s3: Server, url: str, trained_template: Path) -> str:
    """A store with a run, put there file by file as other programs do."""
    objects = Objects(url)
    for file in trained_template.rglob("*"):
        if file.is_file():
            objects.put(file.relative_to(trained_template).as_posix(), file)
    return url


@pytest.fixture
def made(s3: Server, url: str, scan: xr.Dataset) -> str:
    vs.create_store(scan, url)
    return url


def test_another_machine_sees_the_results_and_writes_next(
    with_run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = with_run
    remove(made, variables=["latents", "latents_std", "reconstruction_error", "latent"])
    machine("second", tmp_path, monkeypatch)
    va.encode(made)
    associate_store(made)
    assert vs.run_names(made) == [RUN]
    monkeypatch.setenv("VAEARR_CACHE", str(tmp_path / "cache"))
    assert "latents" in vs.open_store(made)
    first = vs.open_table(made, RUN, "association")
    vs.write_table(made, RUN, "association", table(1.0), replace=True)
    machine("second", tmp_path, monkeypatch)
    assert not first.equals(vs.open_table(made, RUN, "association"))
    xr.testing.assert_equal(vs.open_table(made, RUN, "association"), table(1.0))
    remove(made, runs=[RUN])
    monkeypatch.setenv("VAEARR_CACHE", str(tmp_path / "cache"))
    assert vs.run_names(made) == []
    assert "latents" not in vs.open_store(made)
    copy = vs.check_store(made)
    assert not (copy / "latents").exists()
    assert verify_store(made).is_healthy


def test_a_table_of_equal_form_in_place_of_another_is_seen(
    with_run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = with_run
    vs.write_table(made, RUN, "scores", table(1.0))
    machine("second", tmp_path, monkeypatch)
    xr.testing.assert_equal(vs.open_table(made, RUN, "scores"), table(1.0))
    monkeypatch.setenv("VAEARR_CACHE", str(tmp_path / "cache"))
    vs.write_table(made, RUN, "scores", table(2.0), replace=True)
    machine("second", tmp_path, monkeypatch)
    xr.testing.assert_equal(vs.open_table(made, RUN, "scores"), table(2.0))


def test_only_what_changed_is_fetched(s3: Server, made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("second", tmp_path, monkeypatch)
    vs.check_store(made)
    s3.forget()
    assert not [path for _, path in s3.seen if "/patterns/c" in path]
    monkeypatch.setenv("VAEARR_CACHE", str(tmp_path / "cache"))
    vs.add_variables(made, xr.Dataset({"extra": vs.open_store(made).BC.load()}))
    machine("second", tmp_path, monkeypatch)
    s3.forget()
    vs.check_store(made)
    got = [path.split("scan.zarr/")[-1] for method, path in s3.seen if method == "GET" and not path.endswith("?")]
    assert {"extra/zarr.json", "extra/checksums.sha256", "extra/c/0/0"} == {name for name in got if name != "zarr.json"}


@pytest.mark.long
@pytest.mark.parametrize("what", ["new variable", "table in place of another", "removal"])
def test_a_push_cut_short_anywhere_is_all_or_nothing_and_completed(
    s3: Server, with_run: str, what: str, impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network goes at the first, second, third … request that writes; nobody sees a part, and a rerun completes."""
    made = with_run
    bc = vs.open_store(made).BC.load()
    vs.write_table(made, RUN, "scores", table(1.0))
    work = {
        "new variable": lambda i: vs.add_variables(made, xr.Dataset({f"extra{i}": bc, f"other{i}": bc + 1})),
        "table in place of another": lambda i: vs.write_table(made, RUN, "scores", table(2.0 + i), replace=True),
        "removal": lambda i: remove(made, variables=[f"gone{i}"]),
    }[what]
    for i in range(100):
        if what == "removal":
            vs.add_variables(made, xr.Dataset({f"gone{i}": bc.assign_attrs({n.PROVENANCE: {}})}))
        vs.check_store(made)
        before = published(made)
        s3.forget()
        s3.go_away(i + 1)  # the first PUT takes the lease
        try:
            work(i)
            break  # it needs no more requests than that
        except (WriteError, NoInputError) as error:
            assert "s3://" in str(error)  # noqa: PT017
        s3.forget()
        after = published(made)
        if what == "new variable":
            assert same(before, after)
        elif what == "removal":
            assert set(before) - set(after) in ({f"gone{i}"}, set())
        machine("stranger", tmp_path, monkeypatch)
        if what.startswith("table") and vs.has_table(made, RUN, "scores"):
            assert float(vs.open_table(made, RUN, "scores").score[0]) in (1.0 + i, 2.0 + i)
        monkeypatch.setenv("VAEARR_CACHE", str(tmp_path / "cache"))
        if what == "removal":
            work(i)
            assert f"gone{i}" not in plain(made)
            assert not list(Objects(made).below(f"gone{i}/"))
            continue
        vs.recover(vs.check_store(made))
        if what == "new variable":
            assert set(published(made)["listed"]) - set(before["listed"]) == {f"extra{i}", f"other{i}"}
        else:
            xr.testing.assert_equal(vs.open_table(made, RUN, "scores"), table(2.0 + i))
    assert i > {"new variable": 6, "removal": 1, "table in place of another": 6}[what]
    machine("last", tmp_path, monkeypatch)
    assert verify_store(made).is_healthy
    assert set(vs.open_store(made).variables) == set(plain(made).variables)


def test_readers_during_a_push_see_all_or_none(s3: Server, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bc = vs.open_store(made).BC.load()
    new, seen, over = {"one", "two", "three"}, [], threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.append(new & set(map(str, plain(made).variables)))

    reader = threading.Thread(target=read)
    reader.start()
    vs.add_variables(made, xr.Dataset(dict.fromkeys(new, bc)))
    seen_until_now = len(seen)
    while len(seen) < seen_until_now + 2 and reader.is_alive():
        time.sleep(0.01)
    over.set()
    reader.join()
    assert {frozenset(found) for found in seen} == {frozenset(), frozenset(new)}


def test_results_kept_here_are_seen_here_and_merged_with_what_others_wrote(
    s3: Server, made: str, impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bc = vs.open_store(made).BC.load()
    s3.go_away(2)
    with pytest.raises(WriteError, match=r"cannot be written .*What was published here is kept in .*run the same comm"):
        vs.add_variables(made, xr.Dataset({"mine": bc}))
    s3.forget()
    assert "mine" in vs.open_store(made)
    found = verify_store(made)
    assert found.is_healthy
    assert found.notes == ["mine: it is not sent yet; the next command that writes from here does."]
    machine("second", tmp_path, monkeypatch)
    Objects(made).beside.delete([".scan.zarr.lock"])  # a minute later
    assert "mine" not in vs.open_store(made)
    vs.add_variables(made, xr.Dataset({"theirs": bc}))
    monkeypatch.setenv("VAEARR_CACHE", str(tmp_path / "cache"))
    assert {"mine", "theirs"} <= set(vs.open_store(made).variables)
    with pytest.raises(ExistsError, match="already holds mine"):  # completed, and so there
        vs.add_variables(made, xr.Dataset({"mine": bc}))
    assert {"mine", "theirs"} <= set(plain(made).variables)


@pytest.mark.parametrize("after", [2, 4])
def test_what_another_machine_made_meanwhile_is_not_replaced(
    s3: Server, made: str, impatient: None, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two make the same variable: one is cut short by the network, the other takes over and publishes."""
    bc = vs.open_store(made).BC.load()
    s3.go_away(after)
    with pytest.raises(WriteError, match="What was published here is kept in"):
        vs.add_variables(made, xr.Dataset({"extra": bc, "more": bc}))
    s3.forget()
    machine("second", tmp_path, monkeypatch)
    Objects(made).beside.delete([".scan.zarr.lock"])  # a minute later
    vs.add_variables(made, xr.Dataset({"extra": bc + 1}))
    before = published(made)
    monkeypatch.setenv("VAEARR_CACHE", str(tmp_path / "cache"))
    late = r"extra in s3://.* was written from another machine .*theirs stays, and yours was moved to (.*)\. Look at"
    with pytest.raises(ExistsError, match=late) as refused:
        vs.recover(vs.check_store(made))
    assert same(before, published(made))
    aside = re.search(late, str(refused.value))
    assert aside is not None
    assert sorted(path.name for path in Path(aside[1]).iterdir()) == ["extra", "more"]
    np.testing.assert_array_equal(vs.open_store(made).extra.values, bc.values + 1)
    assert "more" not in vs.open_store(made)
    vs.add_variables(made, xr.Dataset({"more": bc}))
    assert {"extra", "more"} <= set(plain(made).variables)
    assert verify_store(made).is_healthy


def test_a_store_changed_by_another_program_is_not_overwritten(made: str) -> None:
    objects, bc = Objects(made), vs.open_store(made).BC.load()
    push = sending._push

    def first(copy: Path, keys: list[str], *of: Any) -> None:
        found = objects.fetch("zarr.json")
        assert found is not None
        objects.put("zarr.json", found[0] + b"\n")
        push(copy, keys, *of)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sending, "_push", first)
        with pytest.raises(WriteError, match=r"was changed by another program meanwhile. What was published"):
            vs.add_variables(made, xr.Dataset({"mine": bc}))
    assert "mine" not in plain(made)
    vs.recover(vs.check_store(made))
    assert "mine" in plain(made)


def test_a_reader_works_while_another_process_writes(made: str) -> None:
    with writer(vs.check_store(made)):
        assert int(vs.open_store(made).patterns.max()) > 0


def test_a_spoilt_copy_is_found_and_mended(made: str, scan: xr.Dataset) -> None:
    copy = vs.check_store(made)
    chunk = copy / "BC/c/0/0"
    good = chunk.read_bytes()
    chunk.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert verify_store(made).is_healthy  # the store is
    np.testing.assert_array_equal(vs.open_store(made).BC.values, scan.BC.values)
    (copy / "BC/c/0/0").unlink()
    with pytest.raises(DataError, match=rf"^{made} is damaged: BC/c/0/0 is missing; 'vaearr verify {made}' says"):
        vs.open_store(made).BC.load()
    assert verify_store(made).is_healthy
    np.testing.assert_array_equal(vs.open_store(made).BC.values, scan.BC.values)
    shutil.rmtree(copy)
    np.testing.assert_array_equal(vs.open_store(made).BC.values, scan.BC.values)
    copies._record_file(copy).write_text("{")
    with pytest.raises(DataError, match=r"origin cannot be read .*; remove .*, a copy"):
        vs.open_store(made)


def test_a_store_made_anew_at_the_url_takes_the_place_of_the_copy(
    made: str, scan: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vs.add_variables(made, xr.Dataset({"extra": vs.open_store(made).BC.load()}))
    left = staging_root(vs.check_store(made)) / "run-vae"
    left.mkdir(parents=True)
    machine("second", tmp_path, monkeypatch)
    objects = Objects(made)
    objects.delete([stamp.name for stamp in objects.below()])
    with pytest.raises(NoInputError, match="there is no store at"):
        vs.check_store(made)
    vs.create_store(scan, made)
    monkeypatch.setenv("VAEARR_CACHE", str(tmp_path / "cache"))
    assert "extra" not in vs.open_store(made)
    with writer(vs.check_store(made)):
        assert not left.exists()


def test_a_failed_ingest_leaves_nothing(s3: Server, url: str, scan: xr.Dataset) -> None:
    def fail(ds: xr.Dataset) -> xr.Dataset:
        assert [stamp.name for stamp in Objects(url).below()] == [MARK, "patterns/c/0/0/0/0"]
        raise DataError("no good")

    with pytest.raises(DataError, match="no good"):
        vs.create_store(scan, url, finalise=fail)
    assert list(Objects(url).beside.below()) == []


def test_an_ingest_without_a_network_is_begun_anew(s3: Server, url: str, scan: xr.Dataset, impatient: None) -> None:
    vs.create_store(scan, f"{url}.other")
    count = s3.requests["PUT"]
    for i in (0, 1, 2, 3, count // 2, count - 1):
        s3.forget()
        s3.go_away(i)
        with pytest.raises((WriteError, NoInputError), match="cannot be"):
            vs.create_store(scan, url)
        s3.forget()
        with pytest.raises(NoInputError, match="there is no store at"):
            vs.open_store(url)
    vs.create_store(scan, url)
    assert verify_store(url).is_healthy
    assert Objects(url).stamp(MARK) is None


INGEST = """
import sys
from vaearr.store import create_store
from vaearr.testing import random_patterns_dataset
import time
ds = random_patterns_dataset({"y": 70, "x": 70}, {"dy": 9, "dx": 11})
def slowly(block, region):
    time.sleep(0.3)
    print("block", flush=True)
    return block
create_store(ds, sys.argv[1], transform=slowly)
"""


def test_a_killed_ingest_is_recognised_and_begun_anew(
    s3: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = subprocess.Popen(
        [sys.executable, "-c", INGEST, url], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.getcwd()}
    )
    assert killed.stdout is not None
    for _ in range(4):
        assert killed.stdout.readline() == b"block\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    objects = Objects(url)
    there = {stamp.name for stamp in objects.below()}
    assert MARK in there
    assert any(name.startswith("patterns/c/") for name in there)
    objects.put("patterns/c/9/9/0/0", b"of a larger one")
    with pytest.raises(NoInputError, match="there is no store at"):
        vs.open_store(url)
    ds = random_patterns_dataset({"y": 40, "x": 70}, {"dy": 9, "dx": 11})
    vs.create_store(ds, url)
    np.testing.assert_array_equal(vs.open_store(url).patterns.values, ds.patterns.values)
    assert MARK not in {stamp.name for stamp in objects.below()}
    assert objects.stamp("patterns/c/9/9/0/0") is None
    copy = vs.check_store(url)
    record = record_of(copy)
    assert record is not None
    assert not list(staging_root(copy).glob("*"))


def test_the_disk_stays_free_while_shards_are_sent(s3: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ds, most = random_patterns_dataset({"y": 200, "x": 200}, {"dy": 4, "dx": 4}), 0
    copy = vs.place_of(url)

    def look(done: int, total: int) -> None:
        nonlocal most
        most = max(most, sum(1 for file in staging_root(copy).rglob("c/*/*/*/*")))

    monkeypatch.setattr("vaearr.store.shards.MOST_WAITING", 2)
    vs.create_store(ds, url, progress=look)
    assert len(vs.store_blocks(url)) == 49
    assert most <= 6


def test_a_reader_may_come_as_a_store_appears(
    s3: Server, url: str, scan: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    readers = [threading.Thread(target=lambda: found.append(vs.open_store(url).BC.load()))]
    delete = Objects.delete

    def slow(self: Objects, names: Any) -> None:
        if MARK in (listed := list(names)) and not readers[0].ident:
            readers[0].start()
            readers[0].join(1.0)
        delete(self, listed)

    monkeypatch.setattr(Objects, "delete", slow)
    vs.create_store(scan, url)
    readers[0].join()
    xr.testing.assert_equal(found[0], scan.BC)


KILLED = """
import os, signal, sys
import xarray as xr
from vaearr import store
from vaearr.store.objects import Objects
put, count = Objects._put, 0
def dying(self, *of):
    global count
    count += 1
    if count > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return put(self, *of)
bc = store.open_store(sys.argv[1]).BC.load()
Objects._put = dying
store.add_variables(sys.argv[1], xr.Dataset({"one": bc, "two": bc + 1}))
"""


@pytest.mark.parametrize("after", [1, 5])
def test_a_killed_push_is_completed_at_once(made: str, after: int) -> None:
    """The lease of the dead process does not keep its own machine waiting."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, made, str(after)], env=os.environ | {"PYTHONPATH": os.getcwd()}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not {"one", "two"} & set(plain(made).variables)
    vs.recover(vs.check_store(made))
    ds = plain(made)
    np.testing.assert_array_equal(ds.two.values, ds.one.values + 1)
    assert verify_store(made).is_healthy
