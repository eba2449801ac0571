"""What is there already is found by its record: the same, made otherwise, or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import xarray as xr

from tests.conftest import TINY_TRAINING
from vaearr.completeness import ABSENT, SAME, encoded, ingested, reported, trained
from vaearr.config import EncodeConfig, IngestConfig, ReportConfig, RoiConfig
from vaearr.errors import DataError, NoInputError
from vaearr.ingestion import ingest
from vaearr.testing import synthetic_scan, write_scan_files

ROI = RoiConfig(x=(1.0, 12.0))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_scan_files(synthetic_scan(nx=6, ny=5, pattern_shape=(8, 8), n_grains=2), tmp_path / "files")


def test_a_store_is_known_by_its_source_and_settings(files: dict[str, Path], tmp_path: Path) -> None:
    source, store = files["patterns"], tmp_path / "scan.zarr"
    config = IngestConfig(step=0.25, maps={"BC": files["BC"]}, phase_names={0: "a"})
    assert ingested(source, store, config) == ABSENT
    ingest(source, store, config=config)
    assert ingested(source, store, config) == SAME
    assert ingested(source, store, config.replace(step=0.5)).differences == "ingest.step 0.25 and 0.5"
    os.utime(source, (1, 1))
    assert ingested(source, store, config).differences.startswith("source.mtime")
    with pytest.raises(NoInputError, match="does not exist"):
        ingested(tmp_path / "none.h5", store, config)
    with pytest.raises(DataError, match="not a zarr v3 store"):
        ingested(source, tmp_path / "files", config)


def test_a_run_is_known_by_its_settings_and_points(trained_store: Path) -> None:
    assert trained(trained_store, "b", None, TINY_TRAINING) == ABSENT
    assert trained(trained_store, "vae", None, TINY_TRAINING) == SAME
    assert trained(trained_store, "vae", ROI, TINY_TRAINING) == SAME
    elsewhere = TINY_TRAINING.replace(device="auto", checkpoint_minutes=9.0, log=("tensorboard",))
    assert trained(trained_store, "vae", None, elsewhere) == SAME  # where and how often, not what is learned
    other = trained(trained_store, "vae", RoiConfig(x=(2.0, 12.0)), TINY_TRAINING.replace(epochs=3))
    assert other.state == "other"
    assert other.differences.startswith("epochs 2 and 3, region of ")


def test_latents_are_known_by_weights_and_settings(trained_store: Path) -> None:
    assert encoded(trained_store, EncodeConfig(batch_size=7, overlap=0.5)) == SAME
    assert encoded(trained_store, EncodeConfig(precision="bfloat16")).differences == "precision float32 and bfloat16"
    with pytest.raises(NoInputError, match="has no run 'b'"):
        encoded(trained_store, EncodeConfig(run="b"))


@pytest.mark.long
def test_a_report_is_known_by_the_store_it_saw(trained_store: Path) -> None:
    from vaearr.reporting import report
    from vaearr.store import add_variables

    config = ReportConfig()
    assert reported(trained_store, config) == ABSENT
    report(trained_store, config=config)
    assert reported(trained_store, config) == SAME
    assert reported(trained_store, config.replace(max_maps=3)).differences == "max_maps 64 and 3"
    ds = xr.open_zarr(trained_store)
    add_variables(trained_store, (ds["roi"] * 2).rename("twice").to_dataset())
    assert reported(trained_store, config).differences == "the store holds more since"
