"""Stores and single files through the model: numbers as by hand, in the stated units, whole or not at all."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import vaearr as va
from vaearr import names as n
from vaearr.config import IngestConfig, ModelConfig, PreprocessConfig, RoiConfig
from vaearr.errors import DataError, ExistsError, NoInputError, RoiError, UsageError
from vaearr.models.quality import image_metrics
from vaearr.run.reconstruct import metrics_csv, sample_names, summarise
from vaearr.sources.images import read_image
from vaearr.sources.single import as_dtype
from vaearr.store import open_store, open_table

from ..conftest import TINY_TRAINING
from ..data import random_patterns_dataset
from ..store.test_store import tree_hash

AFFINE = np.array([[2.0, 0, 0, -5], [0, 2, 0, -6], [0, 0, 3, -7], [0, 0, 0, 1]])
TINY = TINY_TRAINING.replace(
    objective=TINY_TRAINING.objective.replace(target="self").to_attrs(), epochs=1, batch_size=4,
    preprocess=PreprocessConfig(static_background="none", normalise="zscore").to_attrs(),
)  # fmt: skip
SPATIAL = ModelConfig(
    name="autoencoder-kl", latent_dim=2, options={"channels": (4, 4), "groups": 2, "mid_attention": False}
)
Kept = tuple[Path, list[Path]]


def _by_hand(store: Path, run: str = "vae") -> tuple[torch.Tensor, torch.Tensor]:
    """Patterns of the run's ROI as the network sees them and as it decodes them."""
    ds, model = open_store(store, chunks=None), va.load_model(store, run)
    raw = torch.from_numpy(ds["patterns"].values[ds[n.run_name("roi", run)].values]).reshape(-1, *model.input_shape)
    with torch.inference_mode():
        return model.preprocess(raw), model.decode_batch(model.encode_batch(raw)[0])


def test_preprocessed_units_are_what_the_network_sees(trained_store: Path) -> None:
    found = va.reconstruct_store(trained_store, units="preprocessed", batch_size=7)
    ds = open_store(trained_store, chunks=None)
    np.testing.assert_allclose(found["mse"], ds["reconstruction_error"], rtol=1e-4)
    seen, decoded = _by_hand(trained_store)
    want = image_metrics(seen, decoded, seen.flatten(1).amax(1) - seen.flatten(1).amin(1))
    for name in ("mae", "psnr"):
        np.testing.assert_allclose(found[name].values[ds["roi"].values], want[name], rtol=1e-4)
    assert "ssim" not in found, "9 x 11 pixels"
    assert "left out" in found.attrs["warnings"][0]
    assert found.attrs["given_back"] == []
    assert found["mse"].attrs["units"] == found.attrs["units"] == "1"


def test_stored_units_give_back_each_patterns_scale(trained_store: Path) -> None:
    found = va.reconstruct_store(trained_store, out="variable")
    ds = open_store(trained_store, chunks=None)
    inside, recon = ds["roi"].values, ds["reconstruction"]
    assert (recon.dims, recon.dtype) == (ds["patterns"].dims, np.float32)
    assert recon.attrs["units"] == found.attrs["units"] == "counts"
    np.testing.assert_array_equal(np.isfinite(recon.values).all((2, 3)), inside)
    error = recon.values[inside] - ds["patterns"].values[inside].astype("f4")
    np.testing.assert_allclose(found["mse"].values[inside], (error**2).mean((1, 2)), rtol=1e-4)
    wanted = {"data_range": 255, "given_back": ["mean and standard deviation"], "compression_ratio": 9 * 11 / 12}
    assert {key: found.attrs[key] for key in wanted} == wanted
    assert found["mse"].attrs["units"] == "counts^2"
    example = found.isel(example=0)
    at = {"y": example["example_y"], "x": example["example_x"]}
    np.testing.assert_array_equal(example["reconstruction"], recon.sel(at))
    np.testing.assert_array_equal(example["input"], ds["patterns"].sel(at))
    assert int(ds["split"].sel(at)) == n.VALIDATION


def test_a_collection_with_channels(collection: Path) -> None:
    found = va.reconstruct_store(collection, "ae", out="variable")
    assert found["ssim"].dims == ("sample",)
    assert "path" in found.coords
    assert found["input"].dims == ("example", "channel", "y", "x")
    assert "reconstruction_ae" in open_store(collection, chunks=None)
    seen, decoded = _by_hand(collection, "ae")
    mean = va.load_model(collection, "ae").preprocess.background
    np.testing.assert_allclose(found["ssim"], image_metrics(seen + mean, decoded + mean, 255.0)["ssim"], atol=1e-5)


def test_what_is_replaced_stays_until_the_new_is_there(trained_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    va.reconstruct_store(trained_store, out="variable")
    before = tree_hash(trained_store)
    with monkeypatch.context() as broken:
        broken.setattr("vaearr.run.reconstruct.write_results", lambda *given, **how: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            va.reconstruct_store(trained_store, seed=1, overwrite=True)
    assert tree_hash(trained_store) == before
    found = va.reconstruct_store(trained_store, seed=1, overwrite=True)
    assert "reconstruction" not in open_store(trained_store), "it was made otherwise"
    xr.testing.assert_equal(open_table(trained_store, "vae", "reconstruction"), found)


def test_part_and_region(trained_store: Path) -> None:
    ds = open_store(trained_store, chunks=None)
    found = va.reconstruct_store(trained_store, part="validation", name="held")
    np.testing.assert_array_equal(np.isfinite(found["mse"]), ds["split"] == n.VALIDATION)
    count = found["count"].sel(metric="mse")
    assert int(count.sel(part="validation")) == int(count.sel(part="all")) == found.attrs["n"]
    assert int(count.sel(part="train")) == 0
    box = va.reconstruct_store(trained_store, roi=RoiConfig(x=(13, 18)), name="box")
    np.testing.assert_array_equal(np.isfinite(box["mse"]), ds["present"] & (ds["x"] >= 13) & (ds["x"] < 18))
    given = va.reconstruct_store(trained_store, roi=va.roi(ds, x=(13, 18)), name="given")
    xr.testing.assert_equal(given["mse"], box["mse"])


KILLED = """
import os, sys
import vaearr as va
va.reconstruct_store(sys.argv[1], out="variable", progress=lambda done, total, text: os._exit(9) if done == 2 else None)
"""


def test_killed_is_not_a_result_and_goes_on(trained_store: Path, said: list[str]) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(trained_store)], check=False).returncode == 9
    assert "reconstruction" not in open_store(trained_store)
    said.clear()
    found = va.reconstruct_store(trained_store, out="variable")
    assert said[0].startswith("resuming reconstructing")
    ds = open_store(trained_store, chunks=None)
    np.testing.assert_array_equal(np.isfinite(ds["reconstruction"].values).all((2, 3)), ds["roi"])
    np.testing.assert_array_equal(np.isfinite(found["mse"]), ds["roi"])


def test_summary_by_hand() -> None:
    maps = xr.Dataset({"psnr": ("sample", [1.0, 3.0, np.nan, np.inf]), "mse": ("sample", [1.0, 2.0, 3.0, 0.0])})
    found = summarise(maps, xr.DataArray([n.TRAIN, n.TRAIN, n.VALIDATION, n.OUTSIDE], dims="sample"))
    assert found["summary"].sel(part="train", metric="psnr").values.tolist() == [2, 1, 1, 2, 3]
    assert np.isnan(found["summary"].sel(part="validation", metric="psnr")).all()
    assert found["count"].sel(metric="psnr").values.tolist() == [3, 2, 0]
    assert float(found["summary"].sel(part="all", metric="psnr", statistic="max")) == np.inf
    assert float(found["summary"].sel(part="all", metric="mse", statistic="mean")) == 1.5


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"run": "b"}, NoInputError, "no run 'b'"),
        ({"name": "patterns"}, UsageError, "a meaning of its own"),
        ({"name": "latents_x"}, UsageError, "a meaning of its own"),
        ({"name": "BC", "out": "variable"}, ExistsError, "already holds 'BC', and it is no result of this step"),
        ({"name": "a b"}, UsageError, "cannot be a name"),
        ({"data_range": -1.0}, UsageError, "must be a positive number"),
        ({"data_range": "dtype", "units": "preprocessed"}, UsageError, "whole numbers in stored units"),
        ({"data_range": "all"}, UsageError, "data_range"),
        ({"batch_size": 0}, UsageError, "ReconstructConfig.batch_size"),
        ({"roi": RoiConfig(x=(90, 99))}, RoiError, "the ROI is empty"),
        ({"roi": RoiConfig(x=(14, 18)), "part": "train"}, NoInputError, "no sample is left"),
        ({"window": (4, 4)}, UsageError, "need a network with spatial latents"),
        ({"units": "preprocessed", "files": "b"}, UsageError, "in stored units"),
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
        va.reconstruct_store(trained_template, **settings)
    assert tree_hash(trained_template) == before


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A store of colour images of two sizes, brought to 12 x 14 px, with a run, and their files."""
    folder, rng, files = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for i, shape in enumerate([(24, 20), (12, 14), (9, 30)] * 6):
        files.append(folder / "set" / "ab"[i % 2] / f"case {i:02d}.{('png', 'jpg')[i % 3 == 1]}")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(files[-1])
    va.ingest(folder / "set", folder / "a.zarr", config=IngestConfig(format="images", size=(12, 14)))
    va.train(folder / "a.zarr", config=TINY)
    return folder / "a.zarr", files


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A store of small volumes with a network of spatial latents, and their files, whose axes run left, back, up."""
    pytest.importorskip("monai")
    folder, rng = tmp_path_factory.mktemp("brains"), np.random.default_rng(0)
    files = [folder / "set" / f"sub-{i:02d}.nii.gz" for i in range(16)]
    files[0].parent.mkdir()
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt("LPS"))
    for file in files:
        image = nib.Nifti1Image(rng.integers(0, 900, (8, 9, 10)).astype(np.int16), AFFINE)
        image.header["descrip"] = b"made for a test"
        nib.save(image.as_reoriented(turn), file)
    va.ingest(folder / "set", folder / "a.zarr", config=IngestConfig(size=(12, 9, 6), fit="crop"))
    va.train(folder / "a.zarr", config=TINY.replace(model=SPATIAL.to_attrs()))
    return folder / "a.zarr", files


def test_images_come_back_in_their_own_size(pictures: Kept, tmp_path: Path) -> None:
    store, files = Path(shutil.copytree(pictures[0], tmp_path / "a.zarr")), pictures[1]
    found = va.reconstruct_files(store, files[:3], out=tmp_path / "out")
    for file in files[:3]:
        with Image.open(tmp_path / "out" / f"{file.stem}.png") as image, Image.open(file) as source:
            assert (image.size, image.mode) == (source.size, "RGB")
    same = read_image(tmp_path / "out" / f"{files[1].stem}.png")  # of the samples' size: pixel for pixel
    np.testing.assert_array_equal(same, as_dtype(found["reconstruction"][1].values, np.dtype("u1")))
    assert metrics_csv(found).splitlines()[1].startswith(f"{files[0]},")
    whole = va.reconstruct_store(store, batch_size=5, files=tmp_path / "images")
    names = [str(name) for name in open_store(store)["path"].values]
    order = [files[0].parents[1] / name for name in names]
    single = va.reconstruct_files(store, order, batch_size=3, examples=2)
    for name in ("mse", "mae", "psnr", "ssim"):  # a file is judged as the store judges it
        np.testing.assert_allclose(single[name], whole[name], rtol=1e-5)
    assert single.sizes["example"] == 2
    np.testing.assert_array_equal(single["input"], open_store(store)["patterns"][:2])
    for file, name in zip(order, names, strict=True):
        with Image.open((tmp_path / "images" / name).with_suffix(".png")) as image:
            assert image.size[::-1] == read_image(file).shape[-2:]


def test_volumes_keep_affine_and_axes(brains: Kept, tmp_path: Path) -> None:
    store, files = Path(shutil.copytree(brains[0], tmp_path / "b.zarr")), brains[1]
    found = va.reconstruct_files(store, files[:2], out=tmp_path / "out")
    name = files[0].name
    image, source = (nib.load(path / name) for path in (tmp_path / "out", files[0].parent))
    np.testing.assert_array_equal(image.affine, source.affine)
    assert image.shape == source.shape
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.get_data_dtype() == np.float32
    assert image.header["descrip"] == source.header["descrip"]
    ras = nib.as_closest_canonical(image).get_fdata()
    assert np.isfinite(ras).sum() == 6 * 9 * 10, "x was cut to 6 voxels, z padded to 12"
    np.testing.assert_array_equal(ras[1:7].T, found["reconstruction"][0, 1:11].values)
    table = va.reconstruct_store(store, out="variable", files=tmp_path / "volumes")
    ds = open_store(store)
    for i, name in enumerate(map(str, ds["path"].values)):
        image = nib.load(tmp_path / "volumes" / name)
        np.testing.assert_allclose(image.affine, ds["affine"][i])
        np.testing.assert_array_equal(image.get_fdata().T, ds["reconstruction"][i])
    again = va.reconstruct_store(store, out="variable", files=tmp_path / "again")  # the table is there
    np.testing.assert_array_equal(again["mse"], table["mse"])
    assert (tmp_path / "again" / "sub-03.nii.gz").exists()


def test_scans_become_arrays(trained_store: Path, tmp_path: Path) -> None:
    ds = open_store(trained_store, chunks=None)
    chosen = xr.zeros_like(ds["present"].load())
    chosen[3, 7] = chosen[12, 20] = True
    found = va.reconstruct_store(trained_store, roi=chosen, files=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["y03_x07.npy", "y12_x20.npy"]
    values = np.load(tmp_path / "out" / "y12_x20.npy")
    assert (values.dtype, values.shape, int(found.attrs["n"])) == (np.float32, (9, 11), 2)
    np.save(tmp_path / "one.npy", ds["patterns"][12, 20].values)
    single = va.reconstruct_files(trained_store, [tmp_path / "one.npy"], out=tmp_path / "single")
    np.testing.assert_allclose(np.load(tmp_path / "single" / "one.npy"), values, rtol=1e-4)
    np.testing.assert_allclose(single["mse"][0], found["mse"][12, 20], rtol=1e-5)


def test_between_two_files(pictures: Kept) -> None:
    store, files = pictures
    order = [str(name) for name in open_store(store)["path"].values]
    places = [order.index(f"{file.parent.name}/{file.name}") for file in files[:2]]
    by_file, mixed, by_number = (
        va.interpolate(store, "vae", *ends, 4) for ends in (files[:2], (files[0], places[1]), places)
    )
    for found in (by_file, mixed):
        np.testing.assert_allclose(found["latents"], by_number["latents"], atol=1e-6)
    assert mixed["file_of_end"].values.tolist() == [files[0].name, f"sample {places[1]}"]


def test_refusals_leave_nothing(pictures: Kept, tmp_path: Path) -> None:
    store, files = pictures
    before, out = tree_hash(store), tmp_path / "out"
    (tmp_path / "in").mkdir()
    twin = Path(shutil.copy(files[0], tmp_path / "in" / files[0].name))
    (tmp_path / "in" / "cut.png").write_bytes(files[0].read_bytes()[:200])
    cases: list[tuple[list[Path], dict[str, Any], type[Exception], str]] = [
        ([], {}, UsageError, "no file is given"),
        ([files[0], twin], {}, UsageError, "two files would both be written as 'case 00'"),
        ([files[0], tmp_path / "none.png"], {}, NoInputError, "does not exist"),
        ([files[0], tmp_path / "in" / "cut.png"], {}, DataError, "damaged"),
        ([files[0]], {"part": "train"}, UsageError, "for a store's own samples"),
        ([files[0]], {"units": "preprocessed"}, UsageError, "in stored units"),
        ([files[0]], {"run": "b"}, NoInputError, "no run 'b'"),
    ]
    for given, settings, error, match in cases:
        with pytest.raises(error, match=match):
            va.reconstruct_files(store, given, out=out, **settings)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]
    va.reconstruct_files(store, files[:1], out=out)
    shutil.copy(files[1], out / f"{files[0].stem}.png")
    with pytest.raises(ExistsError, match="with other content; nothing was changed"):
        va.reconstruct_files(store, files[:2], out=out)
    assert [path.name for path in out.iterdir()] == [f"{files[0].stem}.png"]
    assert tree_hash(store) == before


def test_names_stay_inside_and_apart() -> None:
    paths = ["a.png", "A.jpg", "../../etc/b c.nii.gz", "..", "/data/C:/x.PNG", "v1.2/scan.v3"]
    ds = random_patterns_dataset({"sample": len(paths)}).assign_coords(path=("sample", paths))
    found = sample_names(ds, xr.DataArray(np.ones(len(paths), bool), dims="sample"))
    wanted = ["a_sample0", "A_sample1", "etc/b c", "sample_sample3", "data/C_/x", "v1.2/scan.v3"]
    assert list(found.values()) == wanted
