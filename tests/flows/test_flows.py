"""The flows as a Prefect server records them: runs, artifacts, retries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from prefect import flow

from tests.conftest import TINY_TRAINING
from tests.contract.prefect_server import Server
from vaearr.config import (
    AssociateConfig,
    ClusterConfig,
    EmbedConfig,
    EncodeConfig,
    IngestConfig,
    RoiConfig,
    SignificanceConfig,
)
from vaearr.errors import DataError, NoInputError
from vaearr.flows.running import MOST_BYTES, RETRIES, is_passing, key_of, step
from vaearr.flows.serving import FLOWS
from vaearr.flows.steps import analyse_scan, encode_flow
from vaearr.testing import assert_valid

QUICK = AssociateConfig(significance=SignificanceConfig(n_surrogates=19))
pytestmark = [
    pytest.mark.slow,
    # of the libraries that Prefect talks to its server with
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.long
def test_the_whole_line_with_its_artifacts(
    recorded: Server, scan_files: dict[str, Path], reading: IngestConfig, tmp_path: Path
) -> None:
    store = tmp_path / "line.zarr"
    page = analyse_scan(
        scan_files["patterns"], store, ingest=reading, roi=RoiConfig(x=(0.0, 3.0)), train=TINY_TRAINING,
        embed=EmbedConfig(n_components=4), cluster=ClusterConfig(method="kmeans", k=3, features=("latents", "BC")),
        associate=QUICK,
    )["page"]  # fmt: skip
    assert Path(page).exists()
    ds = xr.open_zarr(store)
    assert_valid(ds)
    assert {"latents", "roi", "split", "pca", "clusters"} <= set(ds.data_vars)
    tasks = recorded.ask(
        "/task_runs/filter", {"flow_runs": {"name": {"any_": [recorded.runs("analyse-scan")[0]["name"]]}}}
    )
    assert {run["state_type"] for run in tasks} == {"COMPLETED"}
    assert len(tasks) == 7
    shown = recorded.artifacts()
    _check_artifacts(shown)
    assert page in shown["report-line-vae"]["data"]


def _check_artifacts(shown: dict[str, dict[str, Any]]) -> None:
    kinds = {key: item["type"] for key, item in shown.items() if "line" in key}
    assert {key for key, kind in kinds.items() if kind == "progress"} >= {
        "ingest-progress-line", "train-progress-line-vae", "encode-progress-line-vae"
    }  # fmt: skip
    assert all(shown[key]["data"] == 100.0 for key, kind in kinds.items() if kind == "progress")
    assert {key for key, kind in kinds.items() if kind == "table"} >= {
        "train-vae-health-line-vae", "associate-line-vae", "cluster-line-clusters"
    }  # fmt: skip
    pictures = [item["data"] for key, item in shown.items() if str(item["data"]).startswith("![") and "line" in key]
    assert len(pictures) == 6
    assert all(len(data) < 1.1 * MOST_BYTES and "](data:image/png;base64," in data for data in pictures)
    assert '"p_adjusted"' in str(shown["associate-line-vae"]["data"])


def _damaged(cause: Exception) -> Exception:
    error = DataError("'patterns' cannot be read")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(5, "Input/output error"), True),
        (_damaged(OSError(11, "Resource temporarily unavailable")), True),
        (OSError(28, "No space left on device"), False),
        (_damaged(ValueError("checksum")), False),
        (NoInputError("there is no run"), False),
        (ValueError("a bug"), False),
    ],
    ids=["disk", "disk in words", "full", "damage", "refusal", "bug"],
)
def test_what_passes_is_tried_again(error: Exception, again: bool) -> None:
    class State:
        def result(self) -> None:
            raise error

    assert is_passing(None, None, State()) is again


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


def test_parameters_make_forms() -> None:
    for name in FLOWS:
        schema = FLOWS[name].parameters.model_dump()
        assert all(item.get("description") for item in schema["properties"].values()), name
    train = FLOWS["train-vae"].parameters.model_dump()["definitions"]
    assert train["TrainConfig"]["properties"]["epochs"]["minimum"] == 1
    assert train["ObjectiveConfig"]["properties"]["likelihood"]["enum"][0] == "optimal_sigma"


def test_keys_are_what_prefect_takes() -> None:
    assert key_of("train-vae", "My scan_1 (µm)", "B") == "train-vae-my-scan-1-m-b"
