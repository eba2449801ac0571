"""Stores through the model: numbers as by hand, whole or not at all, refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import vaearr as va
from vaearr import names as n
from vaearr.config import IngestConfig, PreprocessConfig, RoiConfig
from vaearr.errors import ExistsError, NoInputError, RoiError, UsageError
from vaearr.models.quality import image_metrics
from vaearr.run.sample_files import sample_names
from vaearr.store import open_store

from ..conftest import TINY_TRAINING
from ..data import random_patterns_dataset
from ..store.test_store import tree_hash

TINY = TINY_TRAINING.replace(
    objective=TINY_TRAINING.objective.replace(target="self").to_attrs(), epochs=1, batch_size=4,
    preprocess=PreprocessConfig(static_background="none", normalise="zscore").to_attrs(),
)  # fmt: skip


def _by_hand(store: Path, run: str = "vae") -> tuple[torch.Tensor, torch.Tensor]:
    """Patterns of the run's ROI as the network sees them and as it decodes them."""
    ds, model = open_store(store, chunks=None), va.load_model(store, run)
    raw = torch.from_numpy(ds["patterns"].values[ds[n.run_name("roi", run)].values]).reshape(
        -1, *model.input_shape
    )
    with torch.inference_mode():
        return model.preprocess(raw), model.decode_batch(model.encode_batch(raw)[0])


def test_preprocessed_units_are_what_the_network_sees(trained_store: Path) -> None:
    found = va.load_run(trained_store).reconstruct(units="preprocessed", batch_size=7)
    ds = open_store(trained_store, chunks=None)
    np.testing.assert_allclose(found["mse"], ds["reconstruction_error"], rtol=1e-4)
    seen, decoded = _by_hand(trained_store)
    want = image_metrics(seen, decoded, seen.flatten(1).amax(1) - seen.flatten(1).amin(1))
    for name in ("mae", "psnr"):
        np.testing.assert_allclose(found[name].values[ds["roi"].values], want[name], rtol=1e-4)
    assert "ssim" not in found, "9 x 11 pixels"
    assert "left out" in found.attrs["warnings"][0]
    assert found["mse"].attrs["units"] == found.attrs["units"] == "1"


KILLED = """
import os, sys
import vaearr as va
run = va.load_run(sys.argv[1])
run.reconstruct(out="variable", progress=lambda done, total, text: os._exit(9) if done == 2 else None)
"""


def test_killed_is_not_a_result_and_goes_on(trained_store: Path, said: list[str]) -> None:
    assert (
        subprocess.run([sys.executable, "-c", KILLED, str(trained_store)], check=False).returncode
        == 9
    )
    assert "reconstruction" not in open_store(trained_store)
    said.clear()
    found = va.load_run(trained_store).reconstruct(out="variable")
    assert said[0].startswith("resuming reconstructing")
    ds = open_store(trained_store, chunks=None)
    np.testing.assert_array_equal(np.isfinite(ds["reconstruction"].values).all((2, 3)), ds["roi"])
    np.testing.assert_array_equal(np.isfinite(found["mse"]), ds["roi"])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"name": "patterns"}, UsageError, "a meaning of its own"),
        ({"name": "latents_x"}, UsageError, "a meaning of its own"),
        (
            {"name": "BC", "out": "variable"},
            ExistsError,
            "already holds 'BC', and it is no result of this step",
        ),
        ({"name": "a b"}, UsageError, "cannot be a name"),
        ({"data_range": -1.0}, UsageError, "must be a positive number"),
        (
            {"data_range": "dtype", "units": "preprocessed"},
            UsageError,
            "whole numbers in stored units",
        ),
        ({"data_range": "all"}, UsageError, "data_range"),
        ({"batch_size": 0}, UsageError, "ReconstructConfig.batch_size"),
        ({"roi": RoiConfig(x=(90, 99))}, RoiError, "the ROI is empty"),
        ({"roi": RoiConfig(x=(14, 18)), "part": "train"}, NoInputError, "no sample is left"),
        ({"window": (4, 4)}, UsageError, "need a network with spatial latents"),
        ({"units": "preprocessed", "folder": "b"}, UsageError, "in stored units"),
        ({"lpips_weights": "net.safetensors"}, UsageError, "LPIPS takes two files"),
        (
            {"lpips_weights": "n", "lpips_linear": "l", "units": "preprocessed"},
            UsageError,
            "in stored units",
        ),
    ],
    ids=lambda v: str(v)[:40],
)
def test_refusals_leave_the_store_alone(
    trained_template: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = tree_hash(trained_template)
    with pytest.raises(error, match=message):
        va.load_run(trained_template).reconstruct(**settings)
    assert tree_hash(trained_template) == before


def test_scans_become_arrays(trained_store: Path, tmp_path: Path) -> None:
    ds = open_store(trained_store, chunks=None)
    chosen = xr.zeros_like(ds["present"].load())
    chosen[3, 7] = chosen[12, 20] = True
    found = va.load_run(trained_store).reconstruct(roi=chosen, folder=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "y03_x07.npy",
        "y12_x20.npy",
    ]
    values = np.load(tmp_path / "out" / "y12_x20.npy")
    assert (values.dtype, values.shape, int(found.attrs["n"])) == (np.float32, (9, 11), 2)
    error = np.square(values - ds["patterns"][12, 20].values.astype("f4")).mean()
    np.testing.assert_allclose(error, found["mse"][12, 20], rtol=1e-4)


def test_images_get_the_size_of_their_files(tmp_path: Path) -> None:
    rng, folder = np.random.default_rng(0), tmp_path / "set"
    folder.mkdir()
    shapes = [(24, 20), (12, 14), (9, 30)] * 6
    for i, shape in enumerate(shapes):
        values = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"case {i:02d}.png")
    config = IngestConfig(format="images", size=(12, 14))
    va.ingest(folder, tmp_path / "a.zarr", config=config)
    run, out = va.train(tmp_path / "a.zarr", config=TINY), tmp_path / "out"
    run.reconstruct(folder=out)
    for i, shape in enumerate(shapes):
        with Image.open(out / f"case {i:02d}.png") as image:
            assert image.size == shape[::-1]
    (out / "case 01.png").write_bytes(b"changed")
    with pytest.raises(ExistsError, match="with other content; nothing was changed"):
        run.reconstruct(folder=out)


def test_names_stay_inside_and_apart() -> None:
    paths = ["a.png", "A.jpg", "../../etc/b c.nii.gz", "..", "/data/C:/x.PNG", "v1.2/scan.v3"]
    ds = random_patterns_dataset({"sample": len(paths)}).assign_coords(path=("sample", paths))
    found = sample_names(ds, xr.DataArray(np.ones(len(paths), bool), dims="sample"))
    wanted = ["a_sample0", "A_sample1", "etc/b c", "sample_sample3", "data/C_/x", "v1.2/scan.v3"]
    assert list(found.values()) == wanted
