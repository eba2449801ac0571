"""Each stage and the whole line as flows: gone on with, told of failures, and recorded by a Prefect
server.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import inputs
from .harness import FAILED, USAGE, Done, tree, vaearr, zarr
from .pages import offline

pytest.importorskip("prefect", reason="the flows need Prefect: pip install 'vaearr[flows]'")

from . import prefect_server as real

SMALL = {
    "epochs": 3, "batch_size": 64, "precision": "float32", "device": "cpu", "seed": 1,
    "model": {"latent_dim": 2, "options": {"width": 8, "max_width": 16, "hidden": 16, "squeeze": 4}},
}  # fmt: skip


def words(name: str, **parameters: Any) -> list[str]:
    """Arguments of `vaearr run`, values as JSON."""
    given = [
        f"{key}={value if isinstance(value, Path) else json.dumps(value)}"
        for key, value in parameters.items()
    ]
    return ["run", name, *(word for text in given for word in ("-p", text))]


def run(name: str, code: int = 0, **parameters: Any) -> Done:
    """A flow without a server, in this process."""
    return vaearr(*words(name, **parameters), code=code)


@pytest.fixture(scope="module")
def line(
    scan_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The store that the whole line made of a file, and what it was asked for."""
    store = tmp_path_factory.mktemp("line") / "line.zarr"
    ingest = {
        "maps": {"BC": str(scan_files["BC"])},
        "elements": str(scan_files["elements"]),
        "step": inputs.STEP,
    }
    given = {
        "source": scan_files["patterns"], "store": store, "ingest": ingest, "roi": {"x": [0, 3]}, "train": SMALL,
        "cluster": {"method": "kmeans", "k": 3},
        "associate": {"significance": {"n_surrogates": 19}},
    }  # fmt: skip
    run("analyse-scan", **given)
    return store, given


@pytest.mark.slow
def test_the_whole_line_is_made_and_what_is_gone_anew(
    line: tuple[Path, dict[str, Any]],
) -> None:
    store, given = line
    ds = zarr(store)
    assert {"patterns", "BC", "elements", "roi", "latents", "clusters"} <= set(ds.variables)
    assert "p_adjusted" in zarr(store, "runs/vae/association")
    offline(store.with_name("line.reports") / "vae" / "index.html")
    latents = zarr(store)["latents"].values
    vaearr("verify", store, "--remove", "clusters")
    run("analyse-scan", **given)  # makes what is gone anew
    assert "clusters" in zarr(store)
    np.testing.assert_array_equal(zarr(store)["latents"].values, latents)


@pytest.mark.slow
def test_many_scans_keep_what_exists_and_account_for_those_that_fail(
    line: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    store, given = line
    common = {name: given[name] for name in ("train", "cluster", "associate")}
    good = {
        "source": str(given["source"]),
        "store": str(store),
        "ingest": given["ingest"],
        "roi": given["roi"],
    }
    bad = {"source": str(tmp_path / "no.h5"), "store": str(tmp_path / "no.zarr")}
    before = tree(store.parent)
    told = run("analyse-many", code=FAILED, scans=[bad, good], **common)
    assert tree(store.parent) == before
    assert "already has a run 'vae', created with the same settings" in told.err
    assert "1 of 2 scans failed" in told.error
    assert "no.zarr" in told.error
    assert f"{store}: complete" in told.err
    assert not (tmp_path / "no.zarr").exists()


def test_a_sweep_compares_sizes_and_regions(scan_store: Path) -> None:
    sweep = {"latent_dims": [2, 3], "rois": {"left": {"x": [0, 3]}, "none": {"x": [900, 901]}}}
    train = {**SMALL, "epochs": 2, "split": {"fraction": 0.2}}
    told = run("sweep", code=FAILED, store=scan_store, sweep=sweep, train=train)
    assert "2 of 4 runs failed" in told.error
    folder = scan_store.with_name("scan.sweeps")
    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert [(row["region"], row["latent_dim"]) for row in rows] == [("left", "2"), ("left", "3")]
    assert all(float(row["elbo"]) < 0 or float(row["elbo"]) > 0 for row in rows)
    assert sorted(row["recommended"] for row in rows) == ["False", "True"]
    for row in rows:
        assert f"latents_{row['run']}" in zarr(scan_store)


def test_what_is_wrong_is_told_before_anything_is_done(scan_store: Path) -> None:
    before = tree(scan_store)
    assert (
        "Did you mean 'epochs'"
        in run("train-vae", code=USAGE, store=scan_store, train={"epoch": 3}).error
    )
    assert "Did you mean 'train-vae'" in run("train-vea", code=USAGE, store=scan_store).error
    assert tree(scan_store) == before


def test_a_model_is_taken_to_other_data(trained_template: Path, scan_store: Path) -> None:
    given = (f"store={scan_store}", f"source={trained_template}", "name=taken", "roi.x=[0, 3]")
    vaearr("run", "encode", *(word for text in given for word in ("-p", text)))
    ds = zarr(scan_store)
    np.testing.assert_array_equal(np.isfinite(ds.latents_taken).all("latent_taken"), ds.roi_taken)


RUN_AND_FETCH = """
import json, sys
import xarray as xr
import vaearr as va
from vaearr.cli import main
store, flows = sys.argv[1], json.loads(sys.argv[2])
for words in flows:
    sys.argv = ["vaearr", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    runs = client.read_flow_runs()
    results = {client.read_flow(run.flow_id).name: run.state.result() for run in runs}
run = va.load_run(store)
xr.testing.assert_identical(results["encode"], va.open_store(store))
xr.testing.assert_identical(results["associate"].load(), run.associate().load())
clusters = run.table("clusters_clusters").assign(clusters=run.ds.clusters)
xr.testing.assert_identical(results["cluster"].load(), clusters.load())
assert results["report"].is_file(), results["report"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Server]:
    with real.server(tmp_path_factory.mktemp("prefect")) as found:
        yield found


@pytest.mark.slow
def test_results_are_fetched_and_shown(server: real.Server, trained_store: Path) -> None:
    kmeans = {"method": "kmeans", "k": 3}
    flows = [
        words("report", store=trained_store, run="pca"),
        words("encode", store=trained_store, encode={"precision": "bfloat16"}, overwrite=True),
        words("associate", store=trained_store, overwrite=True),
        words("cluster", store=trained_store, cluster=kmeans, overwrite=True),
    ]
    asked = [sys.executable, "-c", RUN_AND_FETCH, str(trained_store), json.dumps(flows)]
    done = subprocess.run(asked, env=server.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stored = list((Path(server.env["PREFECT_HOME"]) / "storage").iterdir())
    assert len(stored) == len(flows)
    assert all(path.stat().st_size < 2000 for path in stored), "an address, not the data"
    shown = server.artifacts()
    for key in ("encode-latents-scan-vae", "associate-map-scan-vae", "cluster-map-scan-clusters"):
        text = shown[key]["data"]
        assert len(text) < 1000, "a link, not a picture"
        page = re.search(r"`(/[^`]+\.html)`", text)
        assert page, text
        assert "Bokeh" in offline(Path(page[1]))


SERVE = """
from prefect.flows import EntrypointType
from vaearr.flows.steps import encode_flow
if __name__ == "__main__":
    encode_flow.serve("encode", entrypoint_type=EntrypointType.MODULE_PATH)
"""


@pytest.mark.slow
def test_a_served_flow_runs_what_is_asked_of_it(
    server: real.Server, trained_store: Path, tmp_path: Path
) -> None:
    (tmp_path / "serve.py").write_text(SERVE)
    log = tmp_path / "serve.log"
    with real.running("serve", cwd=tmp_path, env=server.env, log=log):
        real.until(lambda: "your flow" in log.read_text().lower(), "the flow is served")
        encode = {"precision": "bfloat16"}
        deployment_run(server, "encode", store=trained_store, encode=encode, overwrite=True)
    assert server.runs("encode")[0]["state_type"] == "COMPLETED"


@pytest.mark.slow
def test_a_worker_runs_the_deployments_of_prefect_yaml(
    server: real.Server, trained_store: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(real.ROOT / "prefect.yaml", project)
    server.ask("/work_pools/", {"name": "local", "type": "process"})
    done = server.command("prefect", "--no-prompt", "deploy", "--all", cwd=project)
    assert done.returncode == 0, done.stdout
    log = tmp_path / "worker.log"
    start_worker = ("prefect", "worker", "start", "--pool", "local")
    with real.running(*start_worker, cwd=project, env=server.env, log=log) as worker:
        real.until(
            lambda: worker.poll() is not None or "started" in log.read_text(), "the worker starts"
        )
        deployment_run(server, "train-vae", store=trained_store, run="w", train=SMALL)
    assert bool(zarr(trained_store)["latents_w"].notnull().any())
    shown = server.artifacts()
    assert "train-vae-loss-scan-w.html" in shown["train-vae-loss-scan-w"]["data"]


def deployment_run(server: real.Server, name: str, **parameters: Any) -> None:
    """Ask for a run of a deployment and wait until it has completed."""
    values = {key: str(v) if isinstance(v, Path) else v for key, v in parameters.items()}
    deployment = server.ask(f"/deployments/name/{name}/{name}")["id"]
    body = {"parameters": values, "state": {"type": "SCHEDULED"}}
    run_id = server.ask(f"/deployments/{deployment}/create_flow_run", body)["id"]

    def ended() -> bool:
        state = server.ask(f"/flow_runs/{run_id}")["state"]
        assert state["type"] not in ("FAILED", "CRASHED"), state
        return bool(state["type"] == "COMPLETED")

    real.until(ended, f"{name} has completed")
