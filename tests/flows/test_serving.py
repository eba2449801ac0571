"""`vaearr serve` and `vaearr run` against a real server: deployments run to their end, killed in the midst, stopped."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import xarray as xr
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from tests.conftest import TINY_TRAINING
from tests.contract import prefect_server as real
from tests.contract.prefect_server import ROOT, Server, children, running, served, until
from vaearr.errors import NoInputError, UsageError
from vaearr.flows.serving import FLOWS, run, serve
from vaearr.testing import assert_valid

pytestmark = [
    pytest.mark.slow,
    # of the libraries that Prefect talks to its server with
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def serving(prefect_server: Server, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`vaearr serve` in the background; stopped by SIGTERM, which it must follow cleanly."""
    with served(prefect_server, folder, "train-vae", "encode") as process:
        yield process
        assert not children(process.pid), "a flow run is left over"
        process.terminate()
        assert process.wait(60) == 0
        log = (folder / "serve.log").read_text()
        assert log.splitlines()[-1].startswith("no longer serving")
        assert "RuntimeWarning" not in log
    found = prefect_server.ask("/deployments/filter", {"deployments": {"name": {"any_": ["encode"]}}})
    assert found[0]["paused"]


@pytest.fixture(scope="module")
def store(trained_template: Path, folder: Path) -> Path:
    return Path(shutil.copytree(trained_template, folder / "scan.zarr"))


def test_a_deployment_runs_to_its_end(
    serving: subprocess.Popen[bytes], prefect_server: Server, recorded: Server, store: Path, folder: Path
) -> None:
    given = ("-p", f"store={store.name}", "-p", "run=b")  # seen from where the command is given, and it is served
    words = (*given, "-p", f"train={json.dumps(TINY_TRAINING.to_attrs())}", "--watch")
    made = prefect_server.command("prefect", "deployment", "run", "train-vae/train-vae", *words, cwd=folder)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "latents_b" in xr.open_zarr(store)
    made = prefect_server.command("vaearr", "run", "encode", *given, "--watch", cwd=folder)
    assert made.returncode == 0, made.stderr
    assert "submitted to" in made.stderr
    assert "Completed" in made.stderr
    assert_valid(xr.open_zarr(store))
    shown = prefect_server.artifacts()
    assert shown["train-progress-scan-b"]["data"] == 100.0
    assert "](data:image/png;base64," in shown["train-vae-loss-scan-b"]["data"]
    assert prefect_server.runs("encode")[0]["parameters"]["store"] == str(store)
    count = len(prefect_server.runs("train-vae"))
    with pytest.raises(UsageError, match="greater than or equal to 1"):
        run("train-vae", {"store": "a.zarr", "train": {"epochs": 0}})
    assert len(prefect_server.runs("train-vae")) == count


def test_without_a_deployment_it_runs_here_and_is_recorded(
    serving: subprocess.Popen[bytes],
    recorded: Server,
    store: Path,
    said: list[str],
) -> None:
    run("associate", {"store": store})
    assert said[0].endswith("running here, recorded there")
    assert recorded.runs("associate")[0]["state_type"] == "COMPLETED"


def test_a_server_that_goes_while_a_flow_runs_is_one_line(
    prefect_server: Server, recorded: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = FLOWS["report"].with_options()  # no deployment of it is served here
    monkeypatch.setattr(flow, "fn", _lose_server)
    monkeypatch.setitem(FLOWS, "report", flow)
    with pytest.raises(NoInputError, match=r"went away while 'report' ran \(ConnectError\)"):
        run("report", {"store": "a.zarr"})


def _lose_server(store: Path) -> None:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize(
    ("call", "url", "said"),
    [
        (serve, None, "prefect server start --host 127.0.0.1' and name it with"),
        (serve, "dead", "cannot be reached"),
        (partial(serve, limit=0), "dead", "limit is 0"),
        (partial(serve, ["nothing"]), "dead", "there is no flow 'nothing'"),
        (partial(run, "encode", {"store": "a"}), "dead", "or run without one: 'vaearr run --here'"),
    ],
    ids=["none", "dead", "limit", "name", "run"],
)
def test_what_cannot_be_is_one_line(call: Callable[..., None], url: str | None, said: str, tmp_path: Path) -> None:
    address = {PREFECT_API_URL: f"http://127.0.0.1:{real.free_port()}/api"} if url else {}
    cleared = None if url else {PREFECT_API_URL}
    settings = temporary_settings({**address, PREFECT_HOME: tmp_path}, restore_defaults=cleared)
    with settings, pytest.raises((UsageError, NoInputError)) as raised:
        call()
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.long
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
