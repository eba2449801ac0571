"""Parameters of flows as `vaearr run` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.contract.prefect_server import ROOT, free_port
from vaearr.errors import NoInputError, UsageError
from vaearr.flows.by_name import FLOWS, run
from vaearr.flows.running import key_of

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
        (
            "train-vae",
            {"store": "a", "overwrite": "perhaps"},
            "overwrite: true or false is expected",
        ),
        ("train-vae", {"store": "a", "roi": {"x": [3, 1]}}, "RoiConfig.x: the interval is empty"),
        ("analyse-many", {"scans": []}, "scans: List should have at least 1 item"),
        ("analyse-many", {"scans": [SCAN, SCAN | {"store": "./s.zarr"}]}, "more than one scan"),
        ("analyse-many", {"scans": [SCAN | {"inges": {}}]}, "Did you mean 'ingest'"),
        ("sweep", {"store": "a", "sweep": {"rois": {"1": {}}}}, "must be letters, digits and _"),
        ("train", {}, "there is no flow 'train'"),
    ],
)
def test_wrong_parameters_are_named(name: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        run(name, given)
    assert words in str(raised.value)


def test_parameters_make_forms_and_deployments() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    found = {name: f"vaearr.flows.steps.{flow.fn.__name__}" for name, flow in FLOWS.items()}
    assert {item["name"]: item["entrypoint"] for item in deployments} == found
    for name in FLOWS:
        form = FLOWS[name].parameters.model_dump()
        assert all(item.get("description") for item in form["properties"].values()), name
    train = FLOWS["train-vae"].parameters.model_dump()["definitions"]
    assert train["TrainConfig"]["properties"]["epochs"]["minimum"] == 1
    assert key_of("train-vae", "My scan_1 (µm)", "B") == "train-vae-my-scan-1-m-b"


def test_a_server_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    unused = temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"})
    with unused, pytest.raises(NoInputError, match=r"cannot be reached .*unset PREFECT_API_URL"):
        run("encode", {"store": tmp_path / "scan.zarr"})
