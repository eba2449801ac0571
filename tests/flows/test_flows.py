"""The flows against a temporary Prefect server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr

pytest.importorskip("prefect", reason="the flows need Prefect: pip install 'vaearr[flows]'")

from prefect.testing.utilities import prefect_test_harness

from flows.analyse_scan import analyse_scan
from flows.associate import associate_flow
from flows.cluster import cluster_flow
from flows.embed import embed_flow
from flows.encode import encode_flow, encode_task
from flows.ingest import ingest_flow
from flows.report import report_flow
from flows.train_vae import train_flow
from tests.conftest import TINY_TRAINING
from vaearr.config import AssociateConfig, ClusterConfig, EmbedConfig, EncodeConfig, IngestConfig, RoiConfig
from vaearr.errors import NoInputError, RoiError
from vaearr.testing import assert_valid, synthetic_scan, write_scan_files

pytestmark = [
    pytest.mark.flows,
    # the temporary server's own libraries
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    scan = synthetic_scan(nx=14, ny=11, pattern_shape=(16, 16), n_grains=5)
    return write_scan_files(scan, tmp_path_factory.mktemp("files"))


def _ingest(files: dict[str, Path]) -> IngestConfig:
    return IngestConfig(maps={"BC": files["BC"]}, elements=files["elements"], phases=files["phase"], step=0.25)


def test_names_are_the_deployments_names() -> None:
    flows = [ingest_flow, train_flow, encode_flow, embed_flow, associate_flow, cluster_flow, report_flow, analyse_scan]
    names = ["ingest", "train-vae", "encode", "embed", "associate", "cluster", "report", "analyse-scan"]
    assert [f.name for f in flows] == names


def test_flow_by_flow(files: dict[str, Path], tmp_path: Path) -> None:
    store = tmp_path / "scan.zarr"
    assert ingest_flow(files["patterns"], store, _ingest(files)) == str(store)
    health = train_flow(store, "vae", RoiConfig(x=(0.0, 3.0)), TINY_TRAINING)
    assert set(health) == {"n_active", "explained_variance", "warnings"}
    encode_flow(store, EncodeConfig())
    assert embed_flow(store, EmbedConfig(n_components=3)) == str(store)
    lines = associate_flow(store, AssociateConfig())
    assert any("BC" in line for line in lines)
    sizes = cluster_flow(store, ClusterConfig(method="kmeans", k=3, features=("latents", "BC")))
    assert sum(sizes.values()) == int(xr.open_zarr(store)["roi"].sum())
    assert Path(report_flow(store)).exists()
    assert_valid(xr.open_zarr(store))


def test_the_whole_line(files: dict[str, Path], tmp_path: Path) -> None:
    store = tmp_path / "scan.zarr"
    page = analyse_scan(
        files["patterns"], store, ingest=_ingest(files), train=TINY_TRAINING, embed=EmbedConfig(n_components=4)
    )
    assert Path(page).exists()
    assert {"latents", "roi", "split", "pca", "clusters"} <= set(xr.open_zarr(store).data_vars)


def test_errors_reach_the_caller(files: dict[str, Path], tmp_path: Path) -> None:
    store = tmp_path / "scan.zarr"
    ingest_flow(files["patterns"], store, _ingest(files))
    with pytest.raises(RoiError, match="the ROI is empty"):
        train_flow(store, "vae", RoiConfig(where="BC > 900"), TINY_TRAINING)
    assert "roi" not in xr.open_zarr(store)


def test_parameters_make_a_form() -> None:
    schema = train_flow.parameters.model_dump()
    assert set(schema["properties"]) == {"store", "run", "roi", "config"}
    assert "TrainConfig" in schema["definitions"]


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(OSError(5, "Input/output error"), 2), (NoInputError("there is no run"), 1), (ValueError("a bug"), 1)],
    ids=["trouble of the disk", "refusal", "bug"],
)
def test_only_trouble_of_the_disk_is_tried_again(
    error: Exception, attempts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fails_once(store: Path, **kwargs: object) -> None:
        calls.append(store)
        if len(calls) == 1:
            raise error

    monkeypatch.setattr("vaearr.latents.encode", fails_once)
    monkeypatch.setattr("flows.encode.encode_task", encode_task.with_options(retry_delay_seconds=0))
    if attempts == 1:
        with pytest.raises(type(error)):
            encode_flow(tmp_path / "scan.zarr", EncodeConfig())
    else:
        encode_flow(tmp_path / "scan.zarr", EncodeConfig())
    assert len(calls) == attempts
