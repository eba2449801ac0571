"""Stores on S3: the same functions, the same values, few requests, and refusals in words."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner
from zarr.storage import ObjectStore

import vaearr as va
from vaearr import names as n
from vaearr import store as vs
from vaearr.association import associate_store
from vaearr.batching import batches
from vaearr.cli import app
from vaearr.clustering import cluster_store
from vaearr.config import ClusterConfig, IngestConfig, ReportConfig
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError, WorkersError
from vaearr.info import store_facts
from vaearr.reporting.write import report_folder
from vaearr.store.objects import ConflictError, Objects
from vaearr.store.remove import remove
from vaearr.testing import random_patterns_dataset, write_scan_files
from vaearr.verifying import seal_store, take_out, verify_store

from ..conftest import TINY_TRAINING
from .s3 import Server

ONE_EPOCH = TINY_TRAINING.replace(epochs=1)


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    ds = random_patterns_dataset({"y": 40, "x": 35}, {"dy": 9, "dx": 11}, missing=5)
    return write_scan_files(ds, tmp_path_factory.mktemp("files"))


def plain(url: str) -> xr.Dataset:
    """What any program sees that knows nothing of working copies."""
    from obstore.store import S3Store

    store = S3Store.from_url(url, client_options={"allow_http": True})
    return xr.open_zarr(ObjectStore(store, read_only=True), chunks=None, zarr_format=3)


def test_workers_of_other_machines_encode_with_copies_of_their_own(
    s3: Server, url: str, scan_file: dict[str, Path], tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    va.ingest(scan_file[n.PATTERNS], url)
    va.train(url, config=ONE_EPOCH)
    local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
    env = {"VAEARR_CACHE": str(tmp_path / "elsewhere")}

    def use(endpoint: str) -> None:  # on a worker
        os.environ["AWS_ENDPOINT_URL"] = endpoint

    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, env=env, silence_logs=50, **local) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.run(use, "http://127.0.0.1:9")
        with pytest.raises(WorkersError, match=rf"cannot see the store {url} .*give all workers the network, keys"):
            va.encode(url, dask=client)
        client.run(use, s3.endpoint)
        va.encode(url, dask=client)
    assert list((tmp_path / "elsewhere").glob("*/scan.zarr/runs/vae/model"))
    got = va.open_store(url)[[n.LATENTS, n.LATENTS_STD]].load()
    remove(url, variables=[n.LATENTS, n.LATENTS_STD, n.RECONSTRUCTION_ERROR, n.LATENT])
    xr.testing.assert_equal(got, va.encode(url)[[n.LATENTS, n.LATENTS_STD]].load())


def test_the_whole_path_is_the_same_as_on_a_folder(
    s3: Server, url: str, scan_file: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder.zarr"
    asked = IngestConfig(maps={n.BC: scan_file[n.BC]})
    for store in (folder, url):
        va.ingest(scan_file[n.PATTERNS], store, config=asked)
        va.train(store, config=ONE_EPOCH)
        va.encode(store)
        associate_store(store)
        cluster_store(store, ClusterConfig(method="gmm", name="grains"))
        said: list[str] = []
        va.ingest(scan_file[n.PATTERNS], store, config=asked, say=said.append)
        va.train(store, config=ONE_EPOCH, say=said.append)
        va.encode(store, say=said.append)
        assert [line.endswith("made the same way") for line in said] == [True] * 3
        assert verify_store(store).is_healthy
    here, there, others = vs.open_store(folder).load(), vs.open_store(url).load(), plain(url).load()
    assert set(here.variables) == set(there.variables) == set(others.variables)
    for name in here.variables:
        np.testing.assert_array_equal(here[name].values, there[name].values)
        np.testing.assert_array_equal(here[name].values, others[name].values)
    one, two = vs.run_manifest(folder, n.DEFAULT_RUN), vs.run_manifest(url, n.DEFAULT_RUN)
    assert one["weights_sha256"] == two["weights_sha256"]
    for table in (n.HISTORY, n.HEALTH, "association"):
        xr.testing.assert_equal(
            *(vs.open_table(s, n.DEFAULT_RUN, table).drop_vars("seconds", errors="ignore") for s in (folder, url))
        )
    assert batches(vs.open_store(url)).describe().startswith("in memory")
    facts = store_facts(url)
    assert facts["store"] == url
    assert facts["stored_bytes"] == pytest.approx(store_facts(folder)["stored_bytes"], rel=0.05)
    assert report_folder(vs.check_store(url), ReportConfig()) == tmp_path / "scan.reports" / n.DEFAULT_RUN
    assert not [name for name in vs.check_store(url).glob("patterns/c/**/*") if name.is_file()]
    assert not [stamp.name for stamp in Objects(url).below() if n.CHECKPOINT in stamp.name]
    assert [s.name for s in Objects(url).beside.below() if not s.name.startswith("scan.zarr/")] == []


def test_one_request_where_nothing_changed(s3: Server, url: str, scan: xr.Dataset) -> None:
    vs.create_store(scan, url)
    s3.forget()
    vs.check_store(url)
    assert dict(s3.requests) == {"GET": 1}
    assert s3.sent["GET"] == 0


def test_chunks_are_read_by_one_request(s3: Server, url: str, tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 100, "x": 70}, {"dy": 24, "dx": 20})
    vs.create_store(ds, url)
    folder = vs.create_store(ds, tmp_path / "folder.zarr")
    stored = sum(file.stat().st_size for file in folder.glob("patterns/c/**/*") if file.is_file())
    patterns = vs.open_store(url, chunks=None).patterns
    regions = [  # a whole chunk, a corner, nearly a whole one, a part of one at the edge, a single point
        {"y": slice(0, 32), "x": slice(32, 64)},
        {"y": slice(0, 8), "x": slice(8, 24)},
        {"y": slice(3, 32), "x": slice(0, 32)},
        {"y": slice(96, 100), "x": slice(64, 70)},
        {"y": slice(40, 41), "x": slice(33, 34)},
    ]
    for region in regions:
        s3.forget()
        found = vs.read_block(patterns, region)
        np.testing.assert_array_equal(found, ds.patterns.isel(region).values)
        assert sum(s3.requests.values()) == 1, region
    blocks = vs.store_blocks(url)
    s3.forget()
    for region in blocks:
        vs.read_block(patterns, region)
    assert s3.sent["GET"] < 1.05 * stored
    assert s3.requests["GET"] == len(blocks)


def test_damaged_patterns_are_named(s3: Server, url: str, scan: xr.Dataset) -> None:
    vs.create_store(scan, url)
    objects, shard = Objects(url), "patterns/c/0/0/0/0"
    found = objects.fetch(shard)
    assert found is not None
    good = found[0]
    objects.put(shard, good[:50] + bytes([good[50] ^ 1]) + good[51:])
    ds = vs.open_store(url, chunks=None)
    for region in ({"y": slice(0, 11), "x": slice(0, 7)}, {"y": slice(0, 1), "x": slice(0, 1)}):
        with pytest.raises(DataError, match=f"the store is damaged: .*{shard} cannot be decoded"):
            vs.read_block(ds.patterns, region)
    result = verify_store(url)
    assert [(f.place, f.found) for f in result.findings] == [(shard, "its bytes are not those that were written")]
    objects.put(shard, good[:3])
    with pytest.raises(DataError, match=f"the store is damaged: .*{shard}"):
        vs.read_block(ds.patterns, {"y": slice(0, 1), "x": slice(0, 1)})
    objects.delete([shard])
    with pytest.raises(DataError, match=f"s3://.* is damaged: {shard} is missing"):
        vs.check_patterns(url)
    with pytest.raises(DataError, match=f"{shard} is missing"):
        vs.read_block(ds.patterns, {"y": slice(0, 1), "x": slice(0, 1)})
    with pytest.raises(DataError, match="is missing"):
        va.train(url, config=ONE_EPOCH)
    assert [(f.place, f.found) for f in verify_store(url).findings] == [(shard, "it is missing")]
    objects.put(shard, good)
    objects.delete(["BC/c/0/0"])
    assert [(f.place, f.found) for f in verify_store(url).findings] == [("BC/c/0/0", "it is missing")]


def test_what_is_taken_out_is_gone_everywhere(s3: Server, url: str, scan: xr.Dataset) -> None:
    vs.create_store(scan, url)
    vs.add_variables(url, xr.Dataset({"extra": vs.open_store(url).BC.load().assign_attrs({n.PROVENANCE: {}})}))
    assert "extra" in plain(url)
    assert remove(url, variables=["extra"]) == ["extra"]
    assert "extra" not in plain(url)
    assert "extra" not in vs.open_store(url)
    assert not list(Objects(url).below("extra/"))
    assert remove(url, variables=["extra"]) == []
    with pytest.raises(UsageError, match="BC came with the source"):
        remove(url, variables=["BC"])


@pytest.mark.parametrize("taken", ["store", "other"])
def test_what_is_there_is_never_replaced(
    s3: Server, url: str, scan: xr.Dataset, scan_file: dict[str, Path], taken: str
) -> None:
    if taken == "store":
        vs.create_store(scan, url)
        message = "already exists; give another URL"
    else:
        Objects(url).put("notes.txt", b"mine")
        message = "holds objects that are no store, such as 'notes.txt'; nothing was changed"
    before = {stamp.name: stamp.tag for stamp in Objects(url).below()}
    with pytest.raises(ExistsError, match=message):
        va.ingest(scan_file[n.PATTERNS].with_name("not read"), url)
    with pytest.raises(ExistsError, match=message):
        vs.create_store(scan, url)
    assert {stamp.name: stamp.tag for stamp in Objects(url).below()} == before


def test_refusals(s3: Server, url: str, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
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
    s3.go_away(0, "GET")
    with pytest.raises(NoInputError, match=r"cannot be reached .*check the URL, the AWS_\* variables") as caught:
        vs.open_store(url)
    assert "\n" not in str(caught.value)


def test_commands_take_urls(s3: Server, url: str, scan: xr.Dataset) -> None:
    vs.create_store(scan, url)
    for command, words in (("info", f"{url}: scan of 11 y x 7 x"), ("verify", f"{url} is whole (")):
        found = CliRunner().invoke(app, [command, url])
        assert (found.exit_code, found.exception) == (0, None)
        assert words in found.stdout


def test_commands_name_the_url(s3: Server, url: str, scan_file: dict[str, Path]) -> None:
    found = CliRunner().invoke(app, ["ingest", str(scan_file[n.PATTERNS]), url, "--step", "0.25"])
    assert (found.exit_code, found.exception) == (0, None)
    assert f"{url} is ready; look at it with 'vaearr info {url}'" in found.stderr
    with pytest.raises(NoInputError, match=rf"^{url} has no 'nothing'; 'vaearr info {url}' lists what it has"):
        take_out(url, "nothing")


def test_trouble_of_this_disk_is_not_taken_for_the_networks(s3: Server, url: str, scan: xr.Dataset) -> None:
    vs.create_store(scan, url)
    with pytest.raises(NotADirectoryError):
        Objects(url).download("zarr.json", vs.check_store(url) / "zarr.json/file")


def test_what_needs_a_folder(s3: Server, url: str, scan: xr.Dataset) -> None:
    vs.create_store(scan, url)
    before = {stamp.name: stamp.tag for stamp in Objects(url).below()}
    with pytest.raises(UsageError, match="checksums are added where a store is a folder"):
        seal_store(url)
    from vaearr.flows.ingest import _replace

    with pytest.raises(UsageError, match="cannot be replaced in one step; remove it first, or give another URL"):
        _replace(Path("scan.h5"), Path(url), IngestConfig(), None)
    assert {stamp.name: stamp.tag for stamp in Objects(url).below()} == before


def test_options_take_the_place_of_the_environment(
    s3: Server, url: str, scan: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    vs.create_store(scan, url)
    options = {
        "endpoint": s3.endpoint,
        "access_key_id": "nobody",
        "secret_access_key": "nothing",
        "region": "us-east-1",
    }
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    found = vs.open_store(url, storage_options=options).load()
    np.testing.assert_array_equal(found.patterns.values, scan.patterns.values)


def test_conditions_of_writing(s3: Server, url: str) -> None:
    objects = Objects(url)
    tag = objects.create("a", b"1")
    with pytest.raises(ConflictError):
        objects.create("a", b"2")
    assert objects.create("a", b"1") == tag  # as after an answer that was lost
    newer = objects.replace("a", b"2", tag)
    with pytest.raises(ConflictError):
        objects.replace("a", b"3", tag)
    assert objects.replace("a", b"2", tag) == newer
    with pytest.raises(ConflictError):
        objects.replace("gone", b"3", tag)
    assert objects.fetch("a") == (b"2", objects.stamp("a"))
