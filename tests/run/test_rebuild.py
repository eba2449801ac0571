"""Whole stores through the model: numbers as by hand, in the stated units, streamed, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import vaearr as va
from vaearr import names as n
from vaearr.config import ReconstructConfig, RoiConfig
from vaearr.errors import DataError, ExistsError, NoInputError, RoiError, UsageError
from vaearr.quality import image_metrics
from vaearr.run.reconstruct import summarise
from vaearr.store import open_store, open_table

from ..store.test_store import tree_hash


def _by_hand(store: Path, run: str = "vae") -> tuple[torch.Tensor, torch.Tensor]:
    """Patterns of the run's ROI as the network sees them and as it decodes them."""
    ds, model = open_store(store, chunks=None), va.load_model(store, run)
    stored = torch.from_numpy(ds["patterns"].values[ds[n.run_name("roi", run)].values])
    raw = stored.reshape(-1, *model.input_shape)
    with torch.inference_mode():
        return model.preprocess(raw), model.decode_batch(model.encode_batch(raw)[0])


def test_preprocessed_units_are_what_the_network_sees(trained_store: Path) -> None:
    config = ReconstructConfig(units="preprocessed", batch_size=7)
    found = va.reconstruct_store(trained_store, config=config)
    ds = open_store(trained_store, chunks=None)
    np.testing.assert_allclose(found["mse"], ds["reconstruction_error"], rtol=1e-4)
    seen, decoded = _by_hand(trained_store)
    span = seen.flatten(1).amax(1) - seen.flatten(1).amin(1)
    want = image_metrics(seen, decoded, span)
    for name in ("mae", "psnr"):
        np.testing.assert_allclose(found[name].values[ds["roi"].values], want[name], rtol=1e-4)
    assert "ssim" not in found  # 9 x 11 pixels
    assert "left out" in found.attrs["warnings"][0]
    assert found.attrs["given_back"] == []
    assert found["mse"].attrs["units"] == found.attrs["units"] == "1"


def test_stored_units_give_back_each_patterns_scale(trained_store: Path) -> None:
    found = va.reconstruct_store(trained_store, out="variable")
    ds = open_store(trained_store, chunks=None)
    inside = ds["roi"].values
    recon = ds["reconstruction"]
    assert recon.dims == ds["patterns"].dims
    assert recon.dtype == np.float32
    assert recon.attrs["units"] == found.attrs["units"] == "counts"
    np.testing.assert_array_equal(np.isfinite(recon.values).all((2, 3)), inside)
    error = recon.values[inside] - ds["patterns"].values[inside].astype("f4")
    np.testing.assert_allclose(found["mse"].values[inside], (error**2).mean((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(
        found["psnr"].values[inside], 10 * np.log10(255**2 / (error.astype("f8") ** 2).mean((1, 2))), rtol=1e-5
    )
    assert found.attrs["data_range"] == 255
    assert found.attrs["given_back"] == ["mean and standard deviation"]
    assert found.attrs["compression_ratio"] == 9 * 11 / 12
    assert found["mse"].attrs["units"] == "counts^2"
    example = found.isel(example=0)
    at = {"y": example["example_y"], "x": example["example_x"]}
    np.testing.assert_array_equal(example["reconstruction"], recon.sel(at))
    np.testing.assert_array_equal(example["input"], ds["patterns"].sel(at))
    assert int(ds["split"].sel(at)) == n.VALIDATION


def test_a_collection_with_channels(collection: Path) -> None:
    found = va.reconstruct_store(collection, "ae", out="variable")
    assert {"mse", "mae", "psnr", "ssim"} <= set(found)
    assert found["ssim"].dims == ("sample",)
    assert "path" in found.coords
    assert found["input"].dims == ("example", "channel", "y", "x")
    assert "reconstruction_ae" in open_store(collection, chunks=None)
    assert found.attrs["given_back"] == []
    seen, decoded = _by_hand(collection, "ae")
    mean = va.load_model(collection, "ae").preprocess.background
    np.testing.assert_allclose(found["ssim"], image_metrics(seen + mean, decoded + mean, 255.0)["ssim"], atol=1e-5)
    text = "\n".join(va.describe(found, "reconstruction"))
    assert "all: ssim" in text
    assert "validation: psnr" in text
    assert "255.0, of the stored type" in text


def test_again_is_the_same_and_other_settings_need_another_name(trained_store: Path) -> None:
    found = va.reconstruct_store(trained_store)
    before = tree_hash(trained_store)
    said: list[str] = []
    again = va.reconstruct_store(trained_store, say=said.append)
    assert "already" in said[0]
    xr.testing.assert_equal(again, found)
    with pytest.raises(ExistsError, match=r"data_range None and 100\.0.*choose another name"):
        va.reconstruct_store(trained_store, config=ReconstructConfig(data_range=100.0))
    with pytest.raises(ExistsError, match="already holds 'BC', and it is no result of this step"):
        va.reconstruct_store(trained_store, config=ReconstructConfig(name="BC", out="variable"))
    assert tree_hash(trained_store) == before
    other = va.reconstruct_store(trained_store, config=ReconstructConfig(data_range=100.0, name="other"))
    gain = (found["psnr"] - other["psnr"]).values
    np.testing.assert_allclose(gain[np.isfinite(gain)], 20 * np.log10(2.55), rtol=1e-4)
    va.reconstruct_store(trained_store, out="variable")  # the table is there, the variable comes
    assert "reconstruction" in open_store(trained_store)
    xr.testing.assert_equal(open_table(trained_store, "vae", "reconstruction"), found)


def test_part_and_region(trained_store: Path) -> None:
    ds = open_store(trained_store, chunks=None)
    found = va.reconstruct_store(trained_store, config=ReconstructConfig(part="validation", name="held"))
    np.testing.assert_array_equal(np.isfinite(found["mse"]), ds["split"] == n.VALIDATION)
    count = found["count"].sel(metric="mse")
    assert int(count.sel(part="validation")) == int(count.sel(part="all")) == found.attrs["n"]
    assert int(count.sel(part="train")) == 0
    assert np.isnan(found["summary"].sel(part="train")).all()
    box = va.reconstruct_store(trained_store, roi=RoiConfig(x=(13, 18)), config=ReconstructConfig(name="box"))
    assert not np.isfinite(box["mse"].sel(x=slice(0, 12.9))).any()
    np.testing.assert_array_equal(np.isfinite(box["mse"].sel(x=slice(13, 18))), ds["present"].sel(x=slice(13, 18)))
    given = va.reconstruct_store(trained_store, roi=va.roi(ds, x=(13, 18)), config=ReconstructConfig(name="given"))
    xr.testing.assert_equal(given["mse"], box["mse"])


KILLED = """
import os, sys
import vaearr as va
def stop(done, total):
    if done == 2:
        os._exit(9)
va.reconstruct_store(sys.argv[1], out="variable", on_block=stop)
"""


def test_killed_is_not_a_result_and_goes_on(trained_store: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(trained_store)], check=False).returncode == 9
    assert "reconstruction" not in open_store(trained_store)
    assert not (trained_store / "runs" / "vae" / "reconstruction").exists()
    found = va.reconstruct_store(trained_store, out="variable")
    ds = open_store(trained_store, chunks=None)
    np.testing.assert_array_equal(np.isfinite(ds["reconstruction"].values).all((2, 3)), ds["roi"])
    np.testing.assert_array_equal(np.isfinite(found["mse"]), ds["roi"])


def test_batches_do_not_matter(trained_store: Path) -> None:
    one = va.reconstruct_store(trained_store, config=ReconstructConfig(batch_size=3, name="one"))
    two = va.reconstruct_store(trained_store, config=ReconstructConfig(batch_size=999, name="two"))
    xr.testing.assert_allclose(one, two, rtol=1e-4)


def test_summary_by_hand() -> None:
    maps = xr.Dataset({"psnr": ("sample", [1.0, 3.0, np.nan, np.inf]), "mse": ("sample", [1.0, 2.0, 3.0, 0.0])})
    found = summarise(maps, np.array([n.TRAIN, n.TRAIN, n.VALIDATION, n.OUTSIDE]))
    assert found["summary"].sel(part="train", metric="psnr").values.tolist() == [2, 1, 1, 2, 3]
    assert found["count"].sel(metric="psnr").values.tolist() == [3, 2, 0]
    assert float(found["summary"].sel(part="all", metric="psnr", statistic="max")) == np.inf
    assert float(found["summary"].sel(part="all", metric="mse", statistic="mean")) == 1.5


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"run": "b"}, NoInputError, "no run 'b'"),
        ({"name": "patterns"}, UsageError, "a meaning of its own"),
        ({"name": "latents_x"}, UsageError, "a meaning of its own"),
        ({"name": "sheets"}, UsageError, "a meaning of its own"),
        ({"name": "a b"}, UsageError, "cannot be a name"),
        ({"data_range": -1.0}, UsageError, "must be a positive number"),
        ({"data_range": "dtype", "units": "preprocessed"}, UsageError, "whole numbers in stored units"),
        ({"data_range": "all"}, UsageError, "data_range"),
        ({"part": "test"}, UsageError, "part"),
        ({"batch_size": 0}, UsageError, "at least 1"),
        ({"examples": -1}, UsageError, "at least 0"),
        ({"roi": {"x": (90, 99)}}, RoiError, "the ROI is empty"),
        ({"roi": {"x": (14, 18)}, "part": "train"}, NoInputError, "no sample is left"),
        ({"out": "npy"}, UsageError, "out"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_refusals_leave_the_store_alone(
    trained_template: Path, settings: dict[str, object], error: type[Exception], message: str
) -> None:
    before = tree_hash(trained_template)
    with pytest.raises(error, match=message):
        va.reconstruct_store(trained_template, config=ReconstructConfig.from_attrs(settings))
    assert tree_hash(trained_template) == before


def test_a_damaged_store_is_refused(trained_store: Path) -> None:
    next(path for path in (trained_store / "patterns" / "c").rglob("0") if path.is_file()).unlink()
    with pytest.raises(DataError, match="is missing"):
        va.reconstruct_store(trained_store)
