"""Work on Dask workers gives what one process gives, and says in one line what is wrong."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import DataError
from vaearr.schema.pattern_steps import bin_patterns

from .harness import NO_INPUT, OK, UNAVAILABLE, USAGE, spawn, tree, vaearr, zarr
from .test_training import history, weights

pytest.importorskip("distributed", reason="the extra dask is not installed")

NAMES = ["latents", "latents_std", "reconstruction_error"]
GUARD = "if __name__ == '__main__':\n    main()\n"  # worker processes import the script


@pytest.fixture(scope="module")
def two_stores(scan_template: Path, trained_template: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The scan with a trained run that is not encoded, twice."""
    folder = tmp_path_factory.mktemp("dask")
    stores = [Path(shutil.copytree(trained_template, folder / f"{name}.zarr")) for name in ("one", "two")]
    for store in stores:
        vaearr("train", store, "--run", "vae2", "--init", "vae", "--epochs", 1, "--set", "seed=1", "--x", "0:5", *SMALL)
    return stores


SMALL = ("--set", 'model.options={"width": 8, "max_width": 16, "hidden": 16, "squeeze": 4}')
SMALL = (*SMALL, "--set", "model.latent_dim=3", "--set", "precision=float32", "--set", "device=cpu")


@pytest.mark.slow
def test_encode_and_associate(two_stores: list[Path]) -> None:
    one, two = two_stores
    for store, dask in ((one, ()), (two, ("--dask", "local:2"))):
        spawn("encode", store, "--run", "vae2", "--set", "batch_size=64", *dask)
        spawn("associate", store, "--run", "vae2", "--metric", "all", *dask)
    for name in (f"{name}_vae2" for name in NAMES):
        np.testing.assert_allclose(zarr(one)[name], zarr(two)[name], rtol=1e-5, atol=1e-6)
    tables = [zarr(store, "runs/vae2/association") for store in two_stores]
    np.testing.assert_allclose(tables[0].association, tables[1].association, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_ingest(scan_files: dict[str, Path], tmp_path: Path) -> None:
    """The chunks are the same, byte for byte."""
    for name, dask in (("one", ()), ("two", ("--dask", "local:2"))):
        spawn("ingest", scan_files["patterns"], tmp_path / f"{name}.zarr", *dask)
    one, two = (
        {name: sha for name, sha in tree(tmp_path / f"{name}.zarr").items() if name.startswith("patterns/c")}
        for name in ("one", "two")
    )
    assert one == two != {}
    assert spawn("verify", tmp_path / "two.zarr").code == OK


def test_a_task_on_the_only_worker_computes_by_itself(trained_template: Path) -> None:
    """It would wait for itself otherwise."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        task = client.submit(_streamed, str(trained_template))
        assert task.result(timeout=120) == zarr(trained_template)["present"].sum()


def _streamed(store: str) -> int:
    import vaearr as va

    few = 10 * zarr(Path(store))["patterns"][0, 0].nbytes / 2**30
    return sum(len(batch) for batch in va.batches(va.open_store(store), batch_size=16, memory=few))


def test_places_that_cannot_be_meant(trained_template: Path, tmp_path: Path) -> None:
    """One line each, and nothing is changed."""
    before = tree(trained_template)
    (tmp_path / "other.json").write_text("[]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    for where, code, said in (
        ("somewhere", USAGE, "local:4"),
        ("local:0", USAGE, "at least 1"),
        (tmp_path / "nowhere.json", NO_INPUT, "nowhere.json"),
        (tmp_path / "other.json", USAGE, "other.json"),
        (nobody, UNAVAILABLE, nobody),
    ):
        shutil.rmtree(tmp_path / "out.zarr", ignore_errors=True)
        store = Path(shutil.copytree(trained_template, tmp_path / "out.zarr"))
        vaearr("train", store, "--run", "new", "--epochs", 1, "--x", "0:2", *SMALL)
        assert said in vaearr("encode", store, "--run", "new", "--dask", where, code=code).error
    assert tree(trained_template) == before


TEN_LINES = """
import vaearr as va
import xarray as xr
from distributed import Client, LocalCluster

def main():
    ds = va.open_store("scan.zarr").isel(x=slice(2, 18))
    ds = ds.assign(patterns=(ds.patterns.astype("f4") - ds.patterns.mean(("y", "x"))).assign_attrs(ds.patterns.attrs))
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        with Client(cluster):
            va.train(ds, run="even", epochs=2, batch_size=64)
            va.encode(ds, run="even")
    print(int(xr.open_zarr("scan.zarr").latents_even.notnull().all("latent_even").sum()))
"""


@pytest.mark.slow
def test_ten_lines_from_a_lazy_dataset_to_latents(scan_store: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(TEN_LINES + GUARD)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    ds = xr.open_zarr(scan_store)
    known = ds.latents_even.notnull().all("latent_even")
    assert int(done.stdout.split()[-1]) == int(known.sum())
    assert (known == (ds.present & ds.x.isin(ds.x[2:18]))).all(), "NaN outside the crop"
    assert (known == ds.roi_even).all()
    assert vaearr("verify", scan_store).code == OK


@pytest.mark.slow
def test_torchrun_learns_what_one_process_learns(scan_store: Path, tmp_path: Path) -> None:
    """Without noise the mean gradient of two halves is that of the whole: the same weights but for rounding."""
    plain = ("--set", "objective.likelihood=gaussian", "--set", "objective.input_noise=0", "--set", "split.fraction=0")
    plain = (*plain, "--set", "objective.target=self", "--set", "model.name=conv_ae", "--set", "optimizer=sgd")
    options = ("--epochs", "3", "--set", "seed=1", *SMALL, *plain, "--x", "0:4")  # 16 x 17 points
    vaearr("train", scan_store, "--run", "one", *options, "--set", "batch_size=272")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vaearr"]
    both = [*start, "--", "train", str(scan_store), "--run", "two", *options, "--set", "batch_size=136"]
    done = subprocess.run(both, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 processes") == 1
    assert zarr(scan_store, "runs/two").attrs["processes"] == 2
    np.testing.assert_allclose(history(scan_store, "two")["loss"], history(scan_store, "one")["loss"], rtol=1e-4)
    one, two = weights(scan_store, "one"), weights(scan_store, "two")
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-3, atol=1e-3, err_msg=name)


def test_a_step_that_lost_the_patterns_is_told_before_a_training(scan_store: Path) -> None:
    """What is assigned to a Dataset is aligned with its old coordinates, of which none is a binned one."""
    ds = xr.open_zarr(scan_store)
    with pytest.raises(DataError, match="hold NaN or infinite values, such as at y = "):
        va.train(ds.assign(patterns=bin_patterns(ds.patterns, 2)), epochs=1)
    binned = bin_patterns(ds, 2)
    np.testing.assert_allclose(binned.patterns, ds.patterns.coarsen(dy=2, dx=2).mean(), rtol=1e-6)
    run = va.train(binned, latent_dim=3, epochs=1)
    latents = va.encode(binned, run).latents
    np.testing.assert_allclose(run.model.encode(binned.patterns[:2, :2]), latents[:2, :2], atol=1e-5)
    assert run.decode(latents[0, 0]).sizes == {"dy": binned.sizes["dy"], "dx": binned.sizes["dx"]}
    assert run.reconstruct(binned.patterns[0, :2]).shape == (2, binned.sizes["dy"], binned.sizes["dx"])
