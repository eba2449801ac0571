"""Parameters of flows as `vaearr run` reads them, and flows as a Prefect server records them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import xarray as xr
import yaml
from prefect import flow

from tests.conftest import TINY_TRAINING
from tests.contract.prefect_server import ROOT, Server
from vaearr.config import (
    EncodeConfig,
    IngestConfig,
    TrainConfig,
)
from vaearr.errors import DataError, NoInputError, UsageError, VaearrError
from vaearr.flows.running import RETRIES, is_passing, key_of, step
from vaearr.flows.serving import FLOWS, flow_name, run, submittable, validated
from vaearr.flows.steps import encode_flow

pytestmark = [
    pytest.mark.slow,
    # of the libraries that Prefect talks to its server with
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SCAN = {"source": "a", "store": "s.zarr"}


@pytest.mark.usefixtures("unrecorded")
@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("train-vae", {}, "store: Field required"),
        ("train-vae", {"store": "a", "overwrite": "perhaps"}, "overwrite: Input should be a valid boolean"),
        ("train-vae", {"store": "a", "roi": {"x": [3, 1]}}, "RoiConfig.x: the interval is empty"),
        ("analyse-many", {"scans": []}, "scans: List should have at least 1 item"),
        ("analyse-many", {"scans": [SCAN, SCAN | {"store": "./s.zarr"}]}, "more than one scan"),
        ("analyse-many", {"scans": [SCAN | {"inges": {}}]}, "Did you mean 'ingest'"),
        ("sweep", {"store": "a", "sweep": {"rois": {"1": {}}}}, "must be letters, digits and _"),
        ("train-vae/encode", {}, "there is no flow 'train-vae/encode'"),
    ],
)
def test_wrong_parameters_are_named(name: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        run(name, given)
    assert words in str(raised.value)


def test_parameters_become_their_types() -> None:
    given = {"store": "a.zarr", "roi": None, "train": {"epochs": 3}}
    assert validated(FLOWS["train-vae"], given) == {
        "store": Path("a.zarr"), "roi": None, "train": TrainConfig(epochs=3)
    }  # fmt: skip
    given = {"source": "a.h5", "store": "a.zarr", "associate": {"metrics": ["pearson"]}}
    assert validated(FLOWS["analyse-scan"], given)["associate"].significance is not None  # as the flow sets it


def test_paths_of_a_submitted_run_are_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    scan = {"source": "a.h5", "store": "s/a.zarr", "ingest": {"maps": {"BC": "bc.csv"}, "step": 0.5}}
    far = {"source": "a.h5", "store": "s3://bucket/a.zarr"}
    checked = validated(FLOWS["analyse-many"], {"scans": [scan, far], "dask": "local:2"})
    ingest = {"maps": {"BC": f"{tmp_path}/bc.csv"}, "step": 0.5}
    whole = {"source": f"{tmp_path}/a.h5", "store": f"{tmp_path}/s/a.zarr", "ingest": ingest}
    assert {name: submittable(value) for name, value in checked.items()} == {
        "scans": [whole, far | {"source": f"{tmp_path}/a.h5"}], "dask": "local:2"
    }  # fmt: skip
    assert submittable(Path("file:///data/a.zarr")) == "/data/a.zarr"


def test_parameters_make_forms_and_deployments() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    found = {name: f"vaearr.flows.steps.{flow.fn.__name__}" for name, flow in FLOWS.items()}
    assert {item["name"]: item["entrypoint"] for item in deployments} == found
    for name in FLOWS:
        assert flow_name(f"{name}/{name}") == name
        form = FLOWS[name].parameters.model_dump()
        assert all(item.get("description") for item in form["properties"].values()), name
    train = FLOWS["train-vae"].parameters.model_dump()["definitions"]
    assert train["TrainConfig"]["properties"]["epochs"]["minimum"] == 1
    assert key_of("train-vae", "My scan_1 (µm)", "B") == "train-vae-my-scan-1-m-b"


@pytest.mark.long
@pytest.mark.usefixtures("unrecorded")
def test_many_side_by_side(
    scan_files: dict[str, Path],
    reading: IngestConfig,
    tmp_path: Path,
    said: list[str],
) -> None:
    scans = [{"source": scan_files["patterns"], "store": tmp_path / f"{n}.zarr", "ingest": reading} for n in "ab"]
    scans.append({"source": tmp_path / "nothing.h5", "store": tmp_path / "c.zarr"})
    given = {"scans": scans, "train": TINY_TRAINING, "associate": {}, "embed": {"n_components": 3}, "dask": "local:2"}
    with pytest.raises(VaearrError, match="1 of 3 scans failed"):
        run("analyse-many", {"cluster": {"method": "kmeans", "k": 3}, **given})
    assert any(line.startswith(f"{tmp_path / 'c.zarr'}: failed: NoInputError: ") for line in said)
    for name in "ab":
        assert {"latents", "pca", "clusters"} <= set(xr.open_zarr(tmp_path / f"{name}.zarr").data_vars)
        assert (tmp_path / f"{name}.reports" / "vae" / "index.html").is_file()
    assert not (tmp_path / "c.zarr").exists()


def test_what_passes_is_tried_again() -> None:
    def tried(error: Exception, cause: Exception | None = None) -> bool:
        class State:
            def result(self) -> None:
                raise error from cause

        return is_passing(None, None, State())

    disk, full = OSError(5, "Input/output error"), OSError(28, "No space left on device")
    assert tried(disk)
    assert tried(DataError("'patterns' cannot be read"), disk)
    assert not tried(full)
    assert not tried(DataError("'patterns' cannot be read"), ValueError("checksum"))
    assert not tried(NoInputError("there is no run"))


def test_three_times_at_most(recorded: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaearr.flows.running.RETRY_DELAYS", 0)
    calls: list[int] = []

    @step("reads")
    def reads(good_at: int) -> int:
        calls.append(len(calls))
        if len(calls) < good_at:
            raise OSError(5, "Input/output error")
        return len(calls)

    @flow
    def reading_flow(good_at: int) -> int:
        return reads(good_at)

    assert reading_flow(3) == 3
    calls.clear()
    with pytest.raises(OSError, match="Input/output"):
        reading_flow(99)
    assert len(calls) == 1 + RETRIES


def test_a_server_that_goes_costs_pictures_only(
    recorded: Server, trained_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object, **kwargs: object) -> None:
        raise ConnectionError("the server is gone")

    for name in ("create_progress_artifact", "create_markdown_artifact", "create_table_artifact"):
        monkeypatch.setattr(f"vaearr.flows.running.{name}", gone)
    encode_flow(trained_store, encode=EncodeConfig(precision="bfloat16"), overwrite=True)
    assert "latents" in xr.open_zarr(trained_store)
