"""A Dask cluster gives what one process gives; the calling process publishes."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

import vaearr as va

from .harness import OK, TINY, USAGE, tree, vaearr, zarr

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """Two worker processes of one thread each."""
    options = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": ":0",
    }
    with distributed.LocalCluster(**options) as made:
        yield made


@pytest.mark.slow
def test_commands_on_a_cluster(
    scan_files: dict[str, Path], cluster: object, tmp_path: Path
) -> None:
    address = cluster.scheduler_address  # type: ignore[attr-defined]
    stores = {"alone": (), "cluster": ("--scheduler", address)}
    for name, scheduler in stores.items():
        store = tmp_path / f"{name}.zarr"
        maps = ("--bc", scan_files["BC"])
        vaearr("ingest", scan_files["patterns"], store, *maps, *scheduler)
        vaearr("train", store, "--epochs", 1, "--x", "0:5", *TINY)
        vaearr("encode", store, *scheduler)
        vaearr("associate", store, "--metric", "pearson", "--metric", "hsic", *scheduler)
        assert vaearr("verify", store).code == OK
    one, two = (tmp_path / f"{name}.zarr" for name in stores)
    chunks = [
        {k: v for k, v in tree(store).items() if k.startswith("patterns/c")} for store in (one, two)
    ]
    assert chunks[0] == chunks[1] != {}
    np.testing.assert_allclose(zarr(one)["latents"], zarr(two)["latents"], rtol=1e-5, atol=1e-6)
    tables = [zarr(store, "runs/vae/association")["association"] for store in (one, two)]
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_lazy_steps_on_a_cluster(scan_store: Path, cluster: object) -> None:
    ds = va.open_store(scan_store).isel(x=slice(2, 18))
    even = ds.patterns.astype("f4") - ds.patterns.mean(("y", "x"))
    ds = ds.assign(patterns=even.assign_attrs(ds.patterns.attrs))
    with distributed.Client(cluster):
        va.train(ds, run="even", epochs=2, batch_size=64, latent_dim=3)
        va.encode(ds, run="even")
    stored = xr.open_zarr(scan_store)
    is_encoded = stored.latents_even.notnull().all("latent_even")
    assert (is_encoded == (stored.present & stored.x.isin(stored.x[2:18]))).all(), (
        "NaN outside the crop"
    )
    assert (is_encoded == stored.roi_even).all()
    assert vaearr("verify", scan_store).code == OK


def test_a_task_on_the_only_worker_computes_by_itself(trained_template: Path) -> None:
    """It would wait for itself otherwise."""
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        task = client.submit(_streamed, str(trained_template))
        assert task.result(timeout=120) == zarr(trained_template)["present"].sum()


def _streamed(store: str) -> int:
    import vaearr as va

    few = 10 * zarr(Path(store))["patterns"][0, 0].nbytes / 2**30
    return sum(len(batch) for batch in va.batches(va.open_store(store), batch_size=16, memory=few))


def test_an_address_without_a_scheduler_is_refused(trained_template: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(trained_template, tmp_path / "scan.zarr"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    for scheduler in (nobody, tmp_path / "nowhere.json", "somewhere"):
        with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
            refused = vaearr("encode", store, "--overwrite", "--scheduler", scheduler, code=USAGE)
        assert f"--scheduler {scheduler}: no Dask scheduler answers there" in refused.error
        assert dask.config.get("scheduler", None) is None, "later work is not sent there"
