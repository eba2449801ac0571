"""Flows as plain functions, without any server: what `vaearr run` does where none is configured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from tests.conftest import TINY_TRAINING
from vaearr.cli.run import parameters_of
from vaearr.config import IngestConfig, SignificanceConfig, TrainConfig
from vaearr.errors import ExistsError, RoiError, UsageError
from vaearr.flows.registry import FLOWS, flow_name, load_flow
from vaearr.flows.serving import run, submittable, validated
from vaearr.testing import assert_valid

TINY = TINY_TRAINING.to_attrs()
pytestmark = pytest.mark.usefixtures("unrecorded")


def _state(store: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()}


def test_flow_by_flow_then_again(scan_files: dict[str, Path], reading: IngestConfig, tmp_path: Path) -> None:
    store = tmp_path / "scan.zarr"
    calls: list[tuple[str, dict[str, Any]]] = [
        ("ingest", {"source": str(scan_files["patterns"]), "config": reading.to_attrs()}),
        ("train-vae", {"roi": {"x": [0, 3]}, "config": TINY}),
        ("encode/encode", {}),
        ("embed", {"config": {"n_components": 3}}),
        ("cluster", {"config": {"method": "kmeans", "k": 3, "features": ["latents", "BC"]}}),
        ("associate", {}),
    ]
    news: list[str] = []
    for name, parameters in calls:
        run(name, {"store": str(store), **parameters}, say=news.append)
    assert "ingest: running here, without a Prefect server" in news
    assert any(line.startswith("BC") for line in news)
    assert_valid(xr.open_zarr(store))
    before = _state(store)
    news.clear()
    for name, parameters in calls:
        run(name, {"store": str(store), **parameters}, say=news.append)
    assert _state(store) == before
    assert len([line for line in news if " already " in line and line.endswith("made the same way")]) == len(calls)


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("train-vae", {"config": {**TINY, "seed": 5}}, "there and asked: seed 1 and 5"),
        ("train-vae", {"config": TINY, "roi": {"x": [0, 5]}}, r"region\.points 877 and 400"),
        ("encode", {"config": {"precision": "bfloat16"}}, "precision float32 and bfloat16"),
    ],
    ids=["training", "region", "encoding"],
)
def test_a_changed_setting_is_a_choice(name: str, changed: dict[str, Any], words: str, trained_store: Path) -> None:
    before = _state(trained_store)
    with pytest.raises(ExistsError, match=words) as raised:
        run(name, {"store": str(trained_store), **changed}, say=lambda text: None)
    assert "overwrite=True" in str(raised.value)
    assert _state(trained_store) == before
    news: list[str] = []
    run(name, {"store": str(trained_store), **changed, "overwrite": True}, say=news.append)
    assert any(line.endswith("replaced, as asked") for line in news)
    assert_valid(xr.open_zarr(trained_store))
    assert "latents" in xr.open_zarr(trained_store)


def test_clusters_and_decompositions_are_replaced_when_asked(trained_store: Path) -> None:
    for name, one, other in (
        ("cluster", {"method": "kmeans", "k": 2}, {"method": "kmeans", "k": 4}),
        ("embed", {"n_components": 2}, {"n_components": 4}),
    ):
        run(name, {"store": trained_store, "config": one}, say=lambda text: None)
        with pytest.raises(ExistsError, match="overwrite=True"):
            run(name, {"store": trained_store, "config": other}, say=lambda text: None)
        run(name, {"store": trained_store, "config": other, "overwrite": True}, say=lambda text: None)
    ds = xr.open_zarr(trained_store)
    assert ds["clusters"].max() == 3
    assert ds.sizes["pca_component"] == 4


def test_a_store_is_replaced_by_a_finished_one_only(
    scan_files: dict[str, Path], reading: IngestConfig, tmp_path: Path
) -> None:
    store, source = tmp_path / "scan.zarr", scan_files["patterns"]
    given = {"source": source, "store": store}
    run("ingest", given, say=lambda text: None)
    before = _state(store)
    with pytest.raises(ExistsError, match=r"step None and 0\.25"):
        run("ingest", {**given, "config": reading.to_attrs()}, say=lambda text: None)
    broken = {**reading.to_attrs(), "maps": {"BC": str(scan_files["elements"])}}
    with pytest.raises(ValueError, match=r"elements"):
        run("ingest", {**given, "config": broken, "overwrite": True}, say=lambda text: None)
    assert _state(store) == before
    run("ingest", {**given, "config": reading.to_attrs(), "overwrite": True}, say=lambda text: None)
    assert "BC" in xr.open_zarr(store)
    assert {path.name for path in tmp_path.iterdir()} <= {"scan.zarr", ".scan.zarr.lock", "home"}


def test_refusals_leave_the_store_alone(trained_store: Path) -> None:
    before = _state(trained_store)
    with pytest.raises(RoiError, match="the ROI is empty"):
        run("train-vae", {"store": trained_store, "run": "b", "roi": {"x": [900, 901]}}, say=lambda text: None)
    assert _state(trained_store) == before


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "needs store: -p store=VALUE"),
        ({"store": "a", "confg": {}}, "Did you mean 'config'"),
        ({"store": "a", "config": {"epoch": 3}}, "Did you mean 'epochs'"),
        ({"store": "a", "config": {"epochs": 0}}, "epochs: Input should be greater than or equal to 1"),
        ({"store": "a", "config": 3}, "config: "),
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
    given = {"store": "a.zarr", "roi": None, "config": {"epochs": 3}}
    assert validated(load_flow("train-vae"), given) == {
        "store": Path("a.zarr"), "roi": None, "config": TrainConfig(epochs=3)
    }  # fmt: skip


def test_a_single_setting_leaves_the_flows_own_presets() -> None:
    given = {"source": "a.h5", "store": "a.zarr", "associate": {"metrics": ["pearson"]}}
    found = validated(load_flow("analyse-scan"), given)["associate"]
    assert (found.metrics, found.significance) == (("pearson",), SignificanceConfig())


def test_paths_of_a_submitted_run_are_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    scan = {"source": "a.h5", "store": "s/a.zarr", "ingest": {"maps": {"BC": "bc.csv"}, "step": 0.5}}
    far = {"source": "a.h5", "store": "s3://bucket/a.zarr"}
    checked = validated(load_flow("analyse-many"), {"scans": [scan, far], "processes": 2})
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
    given = {"store": "s3://bucket/lab/a.zarr", "config": {"run": "b"}}
    checked = validated(load_flow("encode"), given)
    assert {name: submittable(value) for name, value in checked.items()} == given
    assert submittable(Path("file:///data/a.zarr")) == "/data/a.zarr"


@pytest.mark.parametrize("name", ["train-vea", "train-vae/encode", ""])
def test_unknown_flows_are_named(name: str) -> None:
    with pytest.raises(UsageError, match="Known: ingest, train-vae, encode") as raised:
        flow_name(name)
    assert ("Did you mean 'train-vae'?" in str(raised.value)) == bool(name)


def test_a_value_is_json_or_plain() -> None:
    found = parameters_of(
        [
            "store=a b.zarr",
            'config={"epochs": 3, "seed": 1}',
            "config.epochs=4",
            "roi.where=BC > 45",
            "config.model.latent_dim=8",
        ]
    )
    assert found == {
        "store": "a b.zarr",
        "config": {"epochs": 4, "seed": 1, "model": {"latent_dim": 8}},
        "roi": {"where": "BC > 45"},
    }
    with pytest.raises(UsageError, match="'run' is set to 'b' already"):
        parameters_of(["run=b", "run.x=1"])
    with pytest.raises(UsageError, match="is not NAME=VALUE"):
        parameters_of(["store"])
    with pytest.raises(UsageError, match="is given twice"):
        parameters_of(["store=a", "store=b"])


def test_flows_and_deployments_have_one_name() -> None:
    import yaml

    file = Path(__file__).parents[2] / "prefect.yaml"
    deployments = {item["name"]: item["entrypoint"] for item in yaml.safe_load(file.read_text())["deployments"]}
    assert deployments == FLOWS
    assert {name: load_flow(name).name for name in FLOWS} == {name: name for name in FLOWS}


@pytest.mark.long
def test_sweep_compares_and_recommends(trained_store: Path) -> None:
    news: list[str] = []
    given = {
        "store": trained_store,
        "sweep": {"latent_dims": [3, 2], "rois": {"left": {"x": [1, 12]}, "none": {"x": [900, 901]}}},
        "train": {**TINY, "split": {"fraction": 0.2}},
    }
    with pytest.raises(Exception, match=r"2 of 4 runs failed: sweep_none_l2_b1, sweep_none_l3_b1"):
        run("sweep", given, say=news.append)
    folder = trained_store.with_name("scan.sweeps")
    made = json.loads((folder / "sweep.json").read_text())
    assert [row["run"] for row in made["runs"]] == ["sweep_left_l2_b1", "sweep_left_l3_b1"]
    assert set(made["failed"]) == {"sweep_none_l2_b1", "sweep_none_l3_b1"}
    assert made["recommended"]["left"] in (2, 3)
    assert sum(row["recommended"] for row in made["runs"]) == 1
    assert all(row["elbo_se"] > 0 and row["psnr"] > 0 for row in made["runs"])
    assert len((folder / "sweep.csv").read_text().splitlines()) == 3
    assert any("latent dimensions are recommended" in line for line in news)
    before = _state(trained_store)
    with pytest.raises(Exception, match="2 of 4 runs failed"):
        run("sweep", given, say=news.append)
    assert _state(trained_store) == before


def test_names_of_a_sweep_are_stable() -> None:
    from vaearr.flows.sweep import SweepConfig

    config = SweepConfig(latent_dims=(8, 4, 8), betas=(1.0, 0.5, 1e-06), name="s")
    names = [run for run, *_ in config.combinations()]
    assert names == ["s_l4_b1", "s_l8_b1", "s_l4_b0p5", "s_l8_b0p5", "s_l4_b1em06", "s_l8_b1em06"]
    for wrong in ({"latent_dims": ()}, {"latent_dims": (0,)}, {"betas": (-1.0,)}, {"name": "a b"}, {"rois": {"1": {}}}):
        with pytest.raises(UsageError):
            SweepConfig.from_attrs(wrong)
