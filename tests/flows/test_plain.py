"""Parameters of flows as `vaearr run` reads them: typed, named where they are wrong, whole where they are submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vaearr.cli.common import nested_values
from vaearr.config import SignificanceConfig, TrainConfig
from vaearr.errors import UsageError
from vaearr.flows.serving import FLOWS, flow_name, run, submittable, validated

pytestmark = pytest.mark.usefixtures("unrecorded")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "store: Field required"),
        ({"store": "a", "trian": {}}, "Did you mean 'train'"),
        ({"store": "a", "train": {"epoch": 3}}, "Did you mean 'epochs'"),
        ({"store": "a", "train": {"epochs": 0}}, "epochs: Input should be greater than or equal to 1"),
        ({"store": "a", "train": 3}, "train: "),
        ({"store": "a", "overwrite": "perhaps"}, "overwrite: Input should be a valid boolean"),
        ({"store": "a", "roi": {"x": [3, 1]}}, "the box x="),
    ],
    ids=["lacking", "unknown", "unknown setting", "bound", "no object", "no boolean", "region"],
)
def test_wrong_parameters_are_named(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        run("train-vae", parameters, say=lambda text: None)
    assert words in str(raised.value)


def test_parameters_become_their_types() -> None:
    given = {"store": "a.zarr", "roi": None, "train": {"epochs": 3}}
    assert validated(FLOWS["train-vae"], given) == {
        "store": Path("a.zarr"), "roi": None, "train": TrainConfig(epochs=3)
    }  # fmt: skip


def test_a_single_setting_leaves_the_flows_own_presets() -> None:
    given = {"source": "a.h5", "store": "a.zarr", "associate": {"metrics": ["pearson"]}}
    found = validated(FLOWS["analyse-scan"], given)["associate"]
    assert (found.metrics, found.significance) == (("pearson",), SignificanceConfig())


def test_paths_of_a_submitted_run_are_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    scan = {"source": "a.h5", "store": "s/a.zarr", "ingest": {"maps": {"BC": "bc.csv"}, "step": 0.5}}
    far = {"source": "a.h5", "store": "s3://bucket/a.zarr"}
    checked = validated(FLOWS["analyse-many"], {"scans": [scan, far], "processes": 2})
    assert {name: submittable(value) for name, value in checked.items()} == {
        "scans": [
            {
                "source": f"{tmp_path}/a.h5",
                "store": f"{tmp_path}/s/a.zarr",
                "ingest": {"maps": {"BC": f"{tmp_path}/bc.csv"}, "step": 0.5},
            },
            {"source": f"{tmp_path}/a.h5", "store": "s3://bucket/a.zarr"},
        ],
        "processes": 2,
    }
    given = {"store": "s3://bucket/lab/a.zarr", "encode": {"run": "b"}}
    checked = validated(FLOWS["encode"], given)
    assert {name: submittable(value) for name, value in checked.items()} == given
    assert submittable(Path("file:///data/a.zarr")) == "/data/a.zarr"


@pytest.mark.parametrize("name", ["train-vea", "train-vae/encode", ""])
def test_unknown_flows_are_named(name: str) -> None:
    with pytest.raises(UsageError, match="Known: ingest, train-vae, encode") as raised:
        flow_name(name)
    assert ("Did you mean 'train-vae'?" in str(raised.value)) == bool(name)


def test_a_value_is_json_or_plain() -> None:
    found = nested_values(
        [
            "store=a b.zarr",
            'config={"epochs": 3, "seed": 1}',
            "config.epochs=4",
            "roi.where=BC > 45",
            "config.model.latent_dim=8",
        ],
        "-p",
    )
    assert found == {
        "store": "a b.zarr",
        "config": {"epochs": 4, "seed": 1, "model": {"latent_dim": 8}},
        "roi": {"where": "BC > 45"},
    }
    with pytest.raises(UsageError, match="'run' is set to 'b' already"):
        nested_values(["run=b", "run.x=1"], "-p")
    with pytest.raises(UsageError, match="is not NAME=VALUE"):
        nested_values(["store"], "-p")
    with pytest.raises(UsageError, match="is given twice"):
        nested_values(["store=a", "store=b"], "-p")


def test_flows_and_deployments_have_one_name() -> None:
    import yaml

    file = Path(__file__).parents[2] / "prefect.yaml"
    deployments = {item["name"]: item["entrypoint"] for item in yaml.safe_load(file.read_text())["deployments"]}
    assert deployments == {name: f"vaearr.flows.steps.{found.fn.__name__}" for name, found in FLOWS.items()}


def test_names_of_a_sweep_are_stable() -> None:
    from vaearr.flows.steps import SweepConfig

    config = SweepConfig(latent_dims=(8, 4, 8), betas=(1.0, 0.5, 1e-06), name="s")
    names = [run for run, *_ in config.combinations()]
    assert names == ["s_l4_b1", "s_l8_b1", "s_l4_b0p5", "s_l8_b0p5", "s_l4_b1em06", "s_l8_b1em06"]
    for wrong in ({"latent_dims": ()}, {"latent_dims": (0,)}, {"betas": (-1.0,)}, {"name": "a b"}, {"rois": {"1": {}}}):
        with pytest.raises(UsageError):
            SweepConfig.from_attrs(wrong)
