"""The deployments of prefect.yaml, in a work pool with a worker process: runs that outlive the terminal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import xarray as xr

from tests.conftest import TINY_TRAINING
from tests.contract.prefect_server import ROOT, Server, running, until
from vaearr.flows.serving import FLOWS
from vaearr.testing import assert_valid

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
]


def test_a_worker_trains_and_encodes(prefect_server: Server, trained_store: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(ROOT / "prefect.yaml", project)
    for words in (("work-pool", "create", "local", "--type", "process"), ("--no-prompt", "deploy", "--all")):
        made = prefect_server.command("prefect", *words, cwd=project)
        assert made.returncode == 0, made.stdout + made.stderr
    pool = {"work_pools": {"name": {"any_": ["local"]}}}
    assert {item["name"] for item in prefect_server.ask("/deployments/filter", pool)} == set(FLOWS)
    log, config = tmp_path / "worker.log", json.dumps(TINY_TRAINING.to_attrs())
    with running(
        "prefect", "worker", "start", "--pool", "local", cwd=project, env=prefect_server.env, log=log
    ) as worker:
        until(lambda: worker.poll() is not None or "started!" in log.read_text(), "the worker starts")
        given = ("-p", f"store={trained_store}", "-p", "run=w", "-p", f"train={config}", "--watch")
        made = prefect_server.command("prefect", "deployment", "run", "train-vae/train-vae", *given, cwd=tmp_path)
        assert made.returncode == 0, made.stdout + log.read_text()
        given = ("-p", f"store={trained_store}", "-p", "run=w", "--watch")
        made = prefect_server.command("vaearr", "run", "encode", *given, cwd=tmp_path)
        assert made.returncode == 0, made.stderr + log.read_text()
    ds = xr.open_zarr(trained_store)
    assert_valid(ds)
    assert bool(ds["latents_w"].notnull().any())
