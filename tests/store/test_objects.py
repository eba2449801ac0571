"""Stores on S3 at every moment: all or nothing, whatever is cut short; the right words; few requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from vaearr import names as n
from vaearr import store as vs
from vaearr.errors import DataError, ExistsError, LockedError, NoInputError, UsageError, WriteError
from vaearr.store.commit import staging_root
from vaearr.store.places import Objects, StorePath
from vaearr.store.remove import remove
from vaearr.store.verify import clean, leftovers, verify_store

from ..contract.bucket import Bucket, plain
from ..data import random_patterns_dataset

RUN = n.DEFAULT_RUN


def machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as another machine."""
    monkeypatch.setenv("VAEARR_CACHE", str(tmp_path / name))


def table(value: float) -> xr.Dataset:
    return xr.Dataset({"score": ("metric", np.full(5, value)), "metric": list("abcde")})


@pytest.fixture(scope="module")
def scan() -> xr.Dataset:
    return random_patterns_dataset({"y": 11, "x": 7}, missing=3)


@pytest.fixture
def made(bucket: Bucket, url: str, scan: xr.Dataset) -> str:
    vs.create_store(scan, url)
    return url


@pytest.fixture
def with_run(bucket: Bucket, url: str, trained_template: Path) -> str:
    """A store with a run, put there file by file as other programs do."""
    objects = Objects(url)
    for file in trained_template.rglob("*"):
        if file.is_file():
            objects.put(file.relative_to(trained_template).as_posix(), file)
    return url


def test_few_requests_where_nothing_changed(bucket: Bucket, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vs.check_store(made)
    bucket.forget()
    vs.check_store(made)
    assert not bucket.requests
    monkeypatch.setattr("vaearr.store.places.FRESH_SECONDS", -1.0)
    vs.check_store(made)
    assert dict(bucket.requests) == {"HEAD": 1}


@pytest.mark.long
@pytest.mark.parametrize("what", ["new variable", "table in place of another", "removal"])
def test_a_commit_cut_short_anywhere_is_all_or_nothing_and_completed(
    bucket: Bucket, with_run: str, what: str, impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network goes at the first, second, third … request that writes; nobody sees a part, and a rerun completes."""
    bc = vs.open_store(with_run).BC.load()
    vs.write_table(with_run, RUN, "scores", table(1.0))
    work = {
        "new variable": lambda i: vs.add_variables(with_run, xr.Dataset({f"extra{i}": bc, f"other{i}": bc + 1})),
        "table in place of another": lambda i: vs.write_table(with_run, RUN, "scores", table(2.0 + i), replace=True),
        "removal": lambda i: remove(with_run, variables=[f"gone{i}"]),
    }[what]
    for i in range(100):
        if what == "removal":
            vs.add_variables(with_run, xr.Dataset({f"gone{i}": bc.assign_attrs({n.PROVENANCE: {}})}))
        before = set(plain(with_run).load().variables)
        bucket.go_away(i)
        try:
            work(i)
            break  # it needs no more requests than that
        except (WriteError, NoInputError) as error:
            assert "s3://" in str(error)  # noqa: PT017
        bucket.forget()
        after = set(plain(with_run).load().variables)
        assert before - after in (set(), {f"gone{i}"})
        machine("stranger", tmp_path, monkeypatch)
        if what.startswith("table") and vs.has_table(with_run, RUN, "scores"):
            assert float(vs.open_table(with_run, RUN, "scores").score[0]) in (1.0 + i, 2.0 + i)
        assert verify_store(with_run).is_healthy
        machine("cache", tmp_path, monkeypatch)
        vs.recover(vs.check_store(with_run))
        if what == "new variable" and f"extra{i}" not in vs.open_store(with_run):  # it had not begun to send
            work(i)
        if what == "removal":
            work(i)
            assert not Objects(with_run).files(f"gone{i}")
        elif what.startswith("table"):
            work(i)
            xr.testing.assert_equal(vs.open_table(with_run, RUN, "scores"), table(2.0 + i))
        assert not list(leftovers(vs.check_store(with_run)))
    assert i > {"new variable": 6, "removal": 0, "table in place of another": 6}[what]
    assert verify_store(with_run).is_healthy
    assert set(vs.open_store(with_run).variables) == set(plain(with_run).variables)


KILLED = """
import os, signal, sys
import xarray as xr
from vaearr import store
from vaearr.store.places import Objects
put, count = Objects.put, 0
def dying(self, *of):
    global count
    count += 1
    if count > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return put(self, *of)
bc = store.open_store(sys.argv[1]).BC.load()
Objects.put = dying
store.add_variables(sys.argv[1], xr.Dataset({"one": bc, "two": bc + 1}))
"""


def killed(url: str, after: int) -> None:
    """Publish two variables, and die before so many objects are written."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, url, str(after)], env=os.environ | {"PYTHONPATH": os.getcwd()}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert not {"one", "two"} & set(plain(url).variables)


@pytest.mark.parametrize("after", [1, 2, 6])
def test_a_killed_commit_is_completed(made: str, after: int) -> None:
    killed(made, after)
    vs.recover(vs.check_store(made))
    np.testing.assert_array_equal(plain(made).two.values, plain(made).one.values + 1)
    assert verify_store(made).is_healthy
    assert not list(leftovers(vs.check_store(made)))


def test_what_another_machine_left_is_named_and_cleared(
    made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(made, 4)
    machine("second", tmp_path, monkeypatch)
    bc = vs.open_store(made).BC.load()
    with pytest.raises(LockedError, match=r"is being written by another command, or one was killed on another machine"):
        vs.add_variables(made, xr.Dataset({"one": bc}))
    store = vs.check_store(made)
    left = list(leftovers(store))
    assert [str(one.path) for one in left] == [f"{made}/one"]
    assert verify_store(made).is_healthy
    assert clean(store) == []  # it may be at work
    monkeypatch.setattr("vaearr.store.sending.RESTING_SECONDS", -1.0)
    vs.add_variables(made, xr.Dataset({"one": bc}))  # it is not
    np.testing.assert_array_equal(plain(made).one.values, bc.values)
    Objects(made).put("three/zarr.json", b"{}")
    monkeypatch.setattr("vaearr.store.verify.KEPT_SECONDS", -1.0)
    assert [str(one.path) for one in clean(store)] == [f"{made}/three"]
    assert "three/zarr.json" not in Objects(made).files()
    assert verify_store(made).is_healthy
    machine("cache", tmp_path, monkeypatch)
    vs.recover(store)  # the one that was killed comes back, and what others wrote meanwhile stays
    assert "two" not in plain(made)
    np.testing.assert_array_equal(plain(made).one.values, bc.values)
    assert not list(leftovers(store))


def test_killed_while_tidying_up(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is published, and what was staged not yet forgotten: nothing is sent again, and nothing is lost."""
    unlink = Path.unlink

    def killed(self: Path, **how: bool) -> None:
        if self.name == "publishing.json":
            raise KeyboardInterrupt
        unlink(self, **how)

    bc = vs.open_store(made).BC.load()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            vs.add_variables(made, xr.Dataset({"mine": bc}))
    vs.recover(vs.check_store(made))
    np.testing.assert_array_equal(plain(made).mine.values, bc.values)
    assert verify_store(made).is_healthy
    assert not list(leftovers(vs.check_store(made)))


def test_a_listing_that_another_program_writes_meanwhile_stays(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bc, put = vs.open_store(made).BC.load(), Objects.put

    def meanwhile(self: Objects, name: str, *of: Any) -> str:
        if name == "zarr.json" and Objects(made).files("mine"):
            monkeypatch.setattr(Objects, "put", put)
            root = json.loads(Objects(made).read(name) or b"")
            root["attributes"]["operator"] = "me"
            put(self, name, json.dumps(root).encode())
        return put(self, name, *of)

    monkeypatch.setattr(Objects, "put", meanwhile)
    vs.add_variables(made, xr.Dataset({"mine": bc}))
    assert plain(made).attrs["operator"] == "me"
    assert "mine" in plain(made)


def test_a_store_made_anew_at_the_url_forgets_what_was_staged(
    made: str, scan: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vs.add_variables(made, xr.Dataset({"extra": vs.open_store(made).BC.load()}))
    left = staging_root(vs.check_store(made)) / "run-vae"
    left.mkdir(parents=True)
    machine("second", tmp_path, monkeypatch)
    objects = Objects(made)
    objects.remove(objects.files())
    with pytest.raises(NoInputError, match="there is no store at"):
        vs.check_store(made)
    vs.create_store(scan, made)
    machine("cache", tmp_path, monkeypatch)
    assert "extra" not in vs.open_store(made)
    vs.add_variables(made, xr.Dataset({"extra": vs.open_store(made).BC.load()}))
    assert not left.exists()


def test_a_failed_ingest_leaves_nothing(bucket: Bucket, url: str, scan: xr.Dataset) -> None:
    def fail(ds: xr.Dataset) -> xr.Dataset:
        assert "patterns/c/0/0/0/0" in Objects(url).files()
        raise DataError("no good")

    with pytest.raises(DataError, match="no good"):
        vs.create_store(scan, url, finalise=fail)
    assert not Objects(url).files()


def test_an_ingest_without_a_network_is_begun_anew(bucket: Bucket, url: str, scan: xr.Dataset, impatient: None) -> None:
    bucket.forget()
    vs.create_store(scan, f"{url}.other")
    count = bucket.requests["PUT"]
    for i in (0, 1, 2, 3, count // 2, count - 1):
        bucket.go_away(i)
        with pytest.raises((WriteError, NoInputError), match="cannot be"):
            vs.create_store(scan, url)
        bucket.forget()
        with pytest.raises(NoInputError, match="there is no store at"):
            vs.open_store(url)
    vs.create_store(scan, url)
    assert verify_store(url).is_healthy
    assert set(Objects(url).files()) == set(Objects(f"{url}.other").files())


INGEST = """
import sys
from vaearr.store import create_store
from tests.data import random_patterns_dataset
import time
ds = random_patterns_dataset({"y": 70, "x": 70}, {"dy": 9, "dx": 11})
def slowly(block, region):
    time.sleep(0.3)
    print("block", flush=True)
    return block
create_store(ds, sys.argv[1], transform=slowly)
"""


def test_a_killed_ingest_is_recognised_and_begun_anew(
    bucket: Bucket, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert any(name.startswith("patterns/c/") for name in objects.files())
    objects.put("patterns/c/9/9/0/0", b"of a larger one")
    ds = random_patterns_dataset({"y": 40, "x": 70}, {"dy": 9, "dx": 11})
    machine("second", tmp_path, monkeypatch)
    with pytest.raises(ExistsError, match=r"an ingest that runs elsewhere, or was killed there.*remove them first"):
        vs.create_store(ds, url)
    machine("cache", tmp_path, monkeypatch)
    vs.create_store(ds, url)
    np.testing.assert_array_equal(vs.open_store(url).patterns.values, ds.patterns.values)
    assert objects.head("patterns/c/9/9/0/0") is None
    assert verify_store(url).is_healthy


def test_the_disk_stays_free_while_chunks_are_sent(bucket: Bucket, url: str) -> None:
    ds, most = random_patterns_dataset({"y": 200, "x": 200}, {"dy": 4, "dx": 4}), 0
    staging = staging_root(StorePath(url))

    def look(done: int, total: int) -> None:
        nonlocal most
        most = max(most, sum(1 for file in staging.rglob("c/*/*/*/*")))

    vs.create_store(ds, url, progress=look)
    assert len(vs.store_blocks(url)) == 49
    assert most <= 9  # those that are sent at once, and one that is made


@pytest.mark.parametrize("taken", ["store", "other"])
def test_what_is_there_is_never_replaced(bucket: Bucket, url: str, scan: xr.Dataset, taken: str) -> None:
    if taken == "store":
        vs.create_store(scan, url)
        message = "already exists; give another URL"
    else:
        Objects(url).put("notes.txt", b"mine")
        message = "holds objects that are no store, such as 'notes.txt'"
    before = Objects(url).files()
    with pytest.raises(ExistsError, match=message):
        vs.create_store(scan, url)
    assert Objects(url).files() == before


def test_refusals(bucket: Bucket, url: str, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoInputError, match=r"there is no store at s3://.*scan.zarr; make one with 'vaearr ingest"):
        vs.open_store(url)
    with pytest.raises(NoInputError, match=r"there is no store at s3://no-such-bucket/scan.zarr"):
        vs.open_store("s3://no-such-bucket/scan.zarr")
    for short in ("s3://bucket", "s3://bucket/"):
        with pytest.raises(UsageError, match=r"names no store in a bucket; give a URL such as s3://bucket/scan.zarr"):
            vs.open_store(short)
    with pytest.raises(UsageError, match=r"cannot be used .*nonsense.*check the URL and the options"):
        vs.open_store(url, storage_options={"nonsense": 1})
    for root in (b"no JSON", b"{}", b'{"attributes": {}, "consolidated_metadata": null}'):
        Objects(url).put("zarr.json", root)
        with pytest.raises(DataError, match="is not a zarr v3 store with a list of its variables"):
            vs.open_store(url)
    monkeypatch.setattr("vaearr.store.places.FRESH_SECONDS", -1.0)
    bucket.go_away(0, "HEAD")
    with pytest.raises(NoInputError, match=r"cannot be reached .*check the URL, the AWS_\* variables") as caught:
        vs.open_store(url)
    assert "\n" not in str(caught.value)
