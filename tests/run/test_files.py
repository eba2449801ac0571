"""Single files and stores reconstructed as files: sizes, affines and units of the source, and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from safetensors.torch import save_file

import vaearr as va
from vaearr import interpolate, reconstruct_files, reconstruct_store
from vaearr.config import IngestConfig, ModelConfig, PreprocessConfig, ReconstructConfig
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError
from vaearr.ingestion import ingest
from vaearr.models.perceptual import BACKBONES, layers_without_weights
from vaearr.provenance import nested
from vaearr.run.reconstruct import inside_name, metrics_csv, sample_names
from vaearr.run.train import train
from vaearr.sources.images import read_image
from vaearr.sources.single import as_dtype, stored_affine
from vaearr.store import create_store, open_store

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


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A store of colour images of two sizes, brought to 12 x 14 px, with a run, and their files."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    files = []
    for i, shape in enumerate([(24, 20), (12, 14), (9, 30)] * 6):
        files.append(folder / "set" / "ab"[i % 2] / f"case {i:02d}.{('png', 'jpg')[i % 3 == 1]}")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(files[-1])
    store = folder / "a.zarr"
    ingest(folder / "set", store, config=IngestConfig(format="images", size=(12, 14)))
    train(store, config=TINY)
    return store, files


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A store of small volumes with a network of spatial latents, and their files, whose axes run left, back, up."""
    pytest.importorskip("monai")
    folder = tmp_path_factory.mktemp("brains")
    rng = np.random.default_rng(0)
    files = [folder / "set" / f"sub-{i:02d}.nii.gz" for i in range(16)]
    files[0].parent.mkdir()
    wanted = nib.orientations.axcodes2ornt("LPS")
    for file in files:
        image = nib.Nifti1Image(rng.integers(0, 900, (8, 9, 10)).astype(np.int16), AFFINE)
        image.header["descrip"] = b"made for a test"
        nib.save(image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(AFFINE), wanted)), file)
    ingest(folder / "set", folder / "a.zarr", config=IngestConfig(size=(12, 9, 6), fit="crop"))
    train(folder / "a.zarr", config=TINY.replace(model=SPATIAL.to_attrs()))
    return folder / "a.zarr", files


def test_images_come_back_in_their_own_size(pictures: tuple[Path, list[Path]], tmp_path: Path) -> None:
    store, files = pictures
    before = tree_hash(store)
    found = reconstruct_files(store, files[:3], out=tmp_path / "out")
    assert tree_hash(store) == before
    assert found.sizes["file"] == 3
    for file in files[:3]:
        with Image.open(tmp_path / "out" / f"{file.stem}.png") as image, Image.open(file) as source:
            assert image.size == source.size
            assert image.mode == "RGB"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    same = read_image(tmp_path / "out" / f"{files[1].stem}.png")  # of the samples' size: pixel for pixel
    np.testing.assert_array_equal(same, as_dtype(found["reconstruction"][1].values, np.dtype("u1")))
    assert va.describe(found, "reconstruction")[0].split() == ["file", "mse", "mae", "psnr", "ssim"]
    assert metrics_csv(found).splitlines()[1].startswith(f"{files[0]},")


def test_a_file_is_judged_as_the_store_judges_it(pictures: tuple[Path, list[Path]], tmp_path: Path) -> None:
    store = Path(shutil.copytree(pictures[0], tmp_path / "a.zarr"))
    ds = open_store(store)
    whole = reconstruct_store(store, config=ReconstructConfig(batch_size=5))
    order = [pictures[1][0].parents[1] / str(name) for name in ds["path"].values]
    single = reconstruct_files(store, order, config=ReconstructConfig(batch_size=3, examples=2))
    for name in ("mse", "mae", "psnr", "ssim"):
        np.testing.assert_allclose(single[name], whole[name], rtol=1e-5)
    assert single.attrs["data_range"] == 255
    assert single.sizes["example"] == 2
    np.testing.assert_array_equal(single["input"], ds["patterns"][:2])


def test_volumes_keep_affine_and_axes(brains: tuple[Path, list[Path]], tmp_path: Path) -> None:
    store, files = brains
    found = reconstruct_files(store, files[:2], out=tmp_path / "out")
    for i, file in enumerate(files[:2]):
        image, source = nib.load(tmp_path / "out" / file.name), nib.load(file)
        np.testing.assert_array_equal(image.affine, source.affine)
        assert image.shape == source.shape
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.get_data_dtype() == np.float32
        assert image.header["descrip"] == source.header["descrip"]
        ras = nib.as_closest_canonical(image).get_fdata()
        known = np.isfinite(ras)
        assert known.sum() == 6 * 9 * 10  # x was cut to 6 voxels, z padded to 12
        np.testing.assert_array_equal(ras[1:7].T, found["reconstruction"][i, 1:11].values)
    reconstruct_files(store, files[:1], out=tmp_path / "whole", dtype="source")
    whole = nib.load(tmp_path / "whole" / files[0].name)
    assert whole.get_data_dtype() == np.int16
    values = np.asanyarray(whole.dataobj)
    assert values.dtype == np.int16
    ras = nib.as_closest_canonical(whole).get_fdata()
    np.testing.assert_array_equal(ras[1:7].T, np.rint(found["reconstruction"][0, 1:11].values))
    assert (ras[0] == 0).all()


def test_a_store_as_files(brains: tuple[Path, list[Path]], pictures: tuple[Path, list[Path]], tmp_path: Path) -> None:
    store = Path(shutil.copytree(brains[0], tmp_path / "b.zarr"))
    table = reconstruct_store(store, out="variable", files=tmp_path / "volumes")
    ds = open_store(store)
    for i, name in enumerate(map(str, ds["path"].values)):
        image = nib.load(tmp_path / "volumes" / name)
        np.testing.assert_allclose(image.affine, ds["affine"][i])
        np.testing.assert_array_equal(image.get_fdata().T, ds["reconstruction"][i])
    again = reconstruct_store(store, out="variable", files=tmp_path / "again", dtype="source")  # the table is there
    np.testing.assert_array_equal(again["mse"], table["mse"])
    assert nib.load(tmp_path / "again" / "sub-03.nii.gz").get_data_dtype() == np.int16
    store = Path(shutil.copytree(pictures[0], tmp_path / "p.zarr"))
    reconstruct_store(store, files=tmp_path / "images", config=ReconstructConfig(part="validation"))
    chosen = open_store(store)["split"].values == 2
    paths = open_store(store)["path"].values[chosen]
    for path in map(str, paths):
        with Image.open((tmp_path / "images" / path).with_suffix(".png")) as image:
            source = pictures[1][[file.name for file in pictures[1]].index(Path(path).name)]
            assert image.size[::-1] == read_image(source).shape[-2:]
    assert len([path for path in (tmp_path / "images").rglob("*") if path.is_file()]) == chosen.sum()


def test_scans_become_arrays(trained_store: Path, tmp_path: Path) -> None:
    chosen = xr.zeros_like(open_store(trained_store, chunks=None)["present"].load())
    chosen[3, 7] = chosen[12, 20] = True
    found = reconstruct_store(
        trained_store, roi=chosen & open_store(trained_store)["present"].load(), files=tmp_path / "out", dtype="source"
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["y03_x07.npy", "y12_x20.npy"]
    values = np.load(tmp_path / "out" / "y12_x20.npy")
    assert values.dtype == np.uint8
    assert values.shape == (9, 11)
    assert int(found.attrs["n"]) == 2
    np.save(tmp_path / "one.npy", open_store(trained_store)["patterns"][12, 20].values)
    single = reconstruct_files(trained_store, [tmp_path / "one.npy"], out=tmp_path / "single", dtype="source")
    np.testing.assert_array_equal(np.load(tmp_path / "single" / "one.npy"), values)
    np.testing.assert_allclose(single["mse"][0], found["mse"][12, 20], rtol=1e-5)


def test_windows(brains: tuple[Path, list[Path]], trained_store: Path) -> None:
    store, files = brains
    plain = reconstruct_files(store, files)
    one = reconstruct_files(store, files, config=ReconstructConfig(window=(64, 64, 64), overlap=0.5))
    np.testing.assert_allclose(one["reconstruction"], plain["reconstruction"], atol=1e-2)
    assert one.attrs["window"] == [64, 64, 64]
    many = reconstruct_files(store, files, config=ReconstructConfig(window=(4, 4, 4), overlap=0.5))
    assert np.isfinite(many["reconstruction"]).all()
    assert not np.allclose(many["reconstruction"], plain["reconstruction"], atol=1e-2)
    with pytest.raises(UsageError, match=r"multiples of the network's stride \(2, 2, 2\)"):
        reconstruct_files(store, files, config=ReconstructConfig(window=(3, 4, 4)))
    with pytest.raises(UsageError, match="need a network with spatial latents"):
        reconstruct_store(trained_store, config=ReconstructConfig(window=(4, 4), name="w"))


def test_lpips(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"sample": 16}, {"y": 20, "x": 20})
    store = create_store(ds, tmp_path / "a.zarr")
    train(store, config=TINY)
    generator = torch.Generator().manual_seed(0)
    layers = layers_without_weights("vgg16").state_dict()
    weights = {f"features.{key}": 0.03 * torch.randn(v.shape, generator=generator) for key, v in layers.items()}
    lines = {f"lin{i}.model.1.weight": torch.ones(1, c, 1, 1) for i, c in enumerate(BACKBONES["vgg16"].channels)}
    save_file(weights, tmp_path / "net.safetensors")
    save_file(lines, tmp_path / "lin.safetensors")
    config = ReconstructConfig(lpips_weights=tmp_path / "net.safetensors", lpips_linear=tmp_path / "lin.safetensors")
    found = reconstruct_store(store, config=config)
    assert (found["lpips"] > 0).all()
    assert nested(found.attrs, "provenance")["config"]["lpips_weights"] == "net.safetensors"
    np.save(tmp_path / "one.npy", ds["patterns"][2].values)
    single = reconstruct_files(store, [tmp_path / "one.npy"], config=config)
    np.testing.assert_allclose(single["lpips"][0], found["lpips"][2], rtol=1e-4)
    with pytest.raises(UsageError, match="LPIPS takes two files"):
        reconstruct_store(store, config=ReconstructConfig(lpips_weights=tmp_path / "net.safetensors", name="b"))
    with pytest.raises(UsageError, match="LPIPS is measured in stored units"):
        reconstruct_store(store, config=config.replace(units="preprocessed", name="b"))


def test_between_two_files(pictures: tuple[Path, list[Path]]) -> None:
    store, files = pictures
    ds = open_store(store)
    order = [str(name) for name in ds["path"].values]
    places = [order.index(f"{file.parent.name}/{file.name}") for file in files[:2]]
    by_file, by_number = interpolate(store, "vae", *files[:2], 4), interpolate(store, "vae", *places, 4)
    np.testing.assert_allclose(by_file["latents"], by_number["latents"], atol=1e-6)
    assert by_file["file_of_end"].values.tolist() == [file.name for file in files[:2]]
    mixed = interpolate(store, "vae", files[0], places[1], 4)
    np.testing.assert_allclose(mixed["latents"], by_number["latents"], atol=1e-6)
    assert mixed["file_of_end"].values.tolist() == [files[0].name, f"sample {places[1]}"]


def test_refusals_leave_nothing(pictures: tuple[Path, list[Path]], tmp_path: Path) -> None:
    store, files = pictures
    before = tree_hash(store)
    (tmp_path / "in").mkdir()
    twin = Path(shutil.copy(files[0], tmp_path / "in" / files[0].name))
    (tmp_path / "in" / "cut.png").write_bytes(files[0].read_bytes()[:200])
    out = tmp_path / "out"
    cases: list[tuple[list[Path], dict[str, Any], type[Exception], str]] = [
        ([], {}, UsageError, "no file is given"),
        ([files[0], twin], {}, UsageError, "two files would both be written as 'case 00'"),
        ([files[0], tmp_path / "none.png"], {}, NoInputError, "does not exist"),
        ([files[0], tmp_path / "in" / "cut.png"], {}, DataError, "damaged"),
        ([files[0]], {"dtype": "uint8"}, UsageError, "use float32, or source"),
        ([files[0]], {"config": ReconstructConfig(part="train")}, UsageError, "for a store's own samples"),
        ([files[0]], {"config": ReconstructConfig(units="preprocessed")}, UsageError, "in stored units"),
        ([files[0]], {"run": "b"}, NoInputError, "no run 'b'"),
    ]
    for given, settings, error, match in cases:
        with pytest.raises(error, match=match):
            reconstruct_files(store, given, out=out, **settings)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]
    reconstruct_files(store, files[:1], out=out)
    shutil.copy(files[1], out / f"{files[0].stem}.png")
    with pytest.raises(ExistsError, match="with other content; nothing was changed"):
        reconstruct_files(store, files[:2], out=out)
    assert [path.name for path in out.iterdir()] == [f"{files[0].stem}.png"]
    with pytest.raises(UsageError, match="in stored units"):
        reconstruct_store(store, files=tmp_path / "b", config=ReconstructConfig(units="preprocessed"))
    assert tree_hash(store) == before


def test_names_stay_inside_and_apart() -> None:
    assert inside_name("../../etc/a b.nii.gz") == "etc/a b"
    assert inside_name("/data/C:/x.PNG") == "data/C_/x"
    assert inside_name("v1.2/scan.v3") == "v1.2/scan.v3"
    ds = random_patterns_dataset({"sample": 4})
    ds = ds.assign_coords(path=("sample", ["a.png", "A.jpg", "../b.png", ".."]))
    chosen = xr.DataArray(np.ones(4, bool), dims="sample")
    assert list(sample_names(ds, chosen).values()) == ["a_sample0", "A_sample1", "b", "sample_sample3"]


def test_numbers_in_whole_types() -> None:
    values = np.array([-3.0, 0.4, 254.6, 300.0, np.nan], np.float32)
    np.testing.assert_array_equal(as_dtype(values, np.dtype("u1")), [0, 0, 255, 255, 0])
    np.testing.assert_array_equal(as_dtype(values, np.dtype("i2")), [-3, 0, 255, 300, 0])
    assert as_dtype(values, np.dtype("f8")).dtype == np.float64


def test_affine_from_coordinates() -> None:
    ds = random_patterns_dataset({"sample": 2}, {"z": 4, "y": 3, "x": 5})
    assert stored_affine(ds, 0) is None
    mm = {dim: (dim, start + step * np.arange(ds.sizes[dim]), {"units": "mm"}) for dim, start, step in
          (("z", 7.0, 3.0), ("y", -2.0, 1.5), ("x", 0.0, 2.0))}  # fmt: skip
    found = stored_affine(ds.assign_coords(mm), 0)
    assert found is not None
    np.testing.assert_allclose(found @ [1, 1, 1, 1], [2, -0.5, 10, 1])
    uneven = ds.assign_coords({**mm, "z": ("z", [0.0, 1, 2, 9], {"units": "mm"})})
    with pytest.raises(DataError, match="'z' has uneven steps"):
        stored_affine(uneven, 0)
