"""How good reconstructions and draws are, layers compared, pairs (features 50, 51, 59 to 65)."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import vaearr as va

from . import inputs
from .harness import HAS_MONAI, NO_INPUT, TINY, UNAVAILABLE, nested, tree, vaearr, zarr
from .record import read_csv


@pytest.fixture(scope="module")
def evaluated(images_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the image store after `reconstruct`: `metrics.csv` in `out`, reconstructions in
    the store.
    """
    import shutil

    folder = tmp_path_factory.mktemp("evaluated")
    store = shutil.copytree(images_template, folder / "images.zarr")
    (folder / "said").write_text(
        vaearr("reconstruct", store, "--variable", "--out", folder / "out").out
    )
    return folder


def test_metrics_are_those_of_scikit_image(evaluated: Path) -> None:
    """In stored units over a declared range, for each sample, by the implementation that others
    use.
    """
    metrics = pytest.importorskip(
        "skimage.metrics", reason="SCIKIT-IMAGE IS MISSING: PSNR and SSIM not compared"
    )
    ds = zarr(evaluated / "images.zarr")
    found = {
        name: read_csv(evaluated / "out" / "metrics.csv", name)[:, 0]
        for name in ("mse", "mae", "psnr", "ssim")
    }
    for i in range(0, 36, 5):
        one, other = ds.patterns.values[i].astype(float), ds.reconstruction.values[i].astype(float)
        assert found["mse"][i] == pytest.approx(np.mean((one - other) ** 2), rel=1e-4)
        assert found["mae"][i] == pytest.approx(np.mean(abs(one - other)), rel=1e-4)
        assert found["psnr"][i] == pytest.approx(
            metrics.peak_signal_noise_ratio(one, other, data_range=255), rel=1e-4
        )
        gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        wanted = metrics.structural_similarity(one, other, data_range=255, **gaussian)
        assert found["ssim"][i] == pytest.approx(wanted, abs=2e-3)
    said = (evaluated / "said").read_text()
    assert "data_range = 255" in said
    assert f"{np.mean(found['psnr']):.4g}" in said
    assert "compression_ratio = 64" in said  # 24 x 32 bytes in, three float32 out


def test_reconstruction_is_what_the_model_decodes(evaluated: Path) -> None:
    ds, model = zarr(evaluated / "images.zarr"), va.load_model(evaluated / "images.zarr")
    direct = np.asarray(model.decode(np.asarray(model.encode(ds.patterns.values[:4]))))
    np.testing.assert_allclose(
        ds.reconstruction.values[:4], 127.5 * (direct + 1), atol=0.05
    )  # symmetric, of 8 bits


def test_another_range_and_units(evaluated: Path) -> None:
    store = evaluated / "images.zarr"
    vaearr("reconstruct", store, "--name", "wide", "--data-range", 510, "--out", evaluated / "wide")
    psnr, wide = (
        read_csv(evaluated / name / "metrics.csv", "psnr")[:, 0] for name in ("out", "wide")
    )
    np.testing.assert_allclose(wide - psnr, 20 * np.log10(2), rtol=1e-4)


def test_files_have_the_geometry_of_their_sources(
    images_store: Path, volumes_store: Path, volumes_template: Path, tmp_path: Path
) -> None:
    vaearr("reconstruct", images_store, "--files", "--out", tmp_path / "pictures")
    with Image.open(tmp_path / "pictures" / "files" / "bar" / "03.png") as image:
        assert image.size == (32, 24)
        assert image.mode == "L"
    vaearr("reconstruct", volumes_store, "--files", "--out", tmp_path / "volumes")
    (file,) = (tmp_path / "volumes" / "files").rglob("v03.nii*")
    written = nibabel.load(file)
    source = nibabel.load(volumes_template.parent / "volumes" / "v03.nii.gz")
    source = nibabel.as_closest_canonical(source)
    np.testing.assert_allclose(written.affine, source.affine)
    assert written.shape == source.shape
    rebuilt, original = written.get_fdata(), source.get_fdata()
    assert np.corrcoef(rebuilt.ravel(), original.ravel())[0, 1] > 0.2  # not turned, not mirrored


def test_windows_give_nearly_the_whole(volumes_store: Path) -> None:
    part = ("--part", "validation")
    vaearr("reconstruct", volumes_store, "--name", "whole", *part)
    vaearr(
        "reconstruct",
        volumes_store,
        "--name",
        "windows",
        *part,
        "--window",
        "8x10x10",
        "--overlap",
        0.5,
    )
    whole, pieces = (zarr(volumes_store, f"runs/vae/{name}").psnr for name in ("whole", "windows"))
    assert abs(whole - pieces).max() < 3


MODES = {"zscore": True, "minmax": True, "quantile": True, "unit": False}


@pytest.mark.parametrize("mode", MODES)
def test_normalisation_and_back(mode: str, tmp_path: Path) -> None:
    """A constant sample becomes zeros, not NaN; what was taken off a sample is put back in stored
    units.
    """
    (tmp_path / "set").mkdir()
    for number in range(16):
        image = (
            inputs.picture(number % 3, number, (16, 16))
            if number
            else np.full((16, 16), 77, "uint8")
        )
        Image.fromarray(image).save(tmp_path / "set" / f"{number:02d}.png")
    store = tmp_path / "a.zarr"
    vaearr("ingest", tmp_path / "set", store)
    vaearr("train", store, "--epochs", 1, "--set", f"preprocess.normalise={mode}", *TINY)
    vaearr("encode", store)
    vaearr("reconstruct", store, "--variable")
    ds = zarr(store)
    assert np.isfinite(ds.latents).all()
    assert np.isfinite(ds.reconstruction).all()
    if MODES[
        mode
    ]:  # of each sample by itself: nothing is left of the constant one but what was taken off
        np.testing.assert_allclose(ds.reconstruction.values[0], 77, atol=0.5)
    if mode == "zscore":
        means = ds.patterns.values.mean((1, 2))
        assert abs(ds.reconstruction.values.mean((1, 2)) - means).max() < 25
    recorded = nested(zarr(store, "runs/vae").attrs["config"])["preprocess"]
    assert recorded["normalise"] == mode


@pytest.mark.skipif(not HAS_MONAI, reason="the Fréchet distance needs monai")
def test_fidelity_of_generated_samples(images_template: Path, tmp_path: Path) -> None:
    command = ("look", "fidelity", images_template, "--n", 40, "--seed", 1)
    result = vaearr(*command, "--out", tmp_path / "fidelity.csv")
    again = vaearr(*command)
    first = [line for line in result.out.splitlines() if line.strip().startswith("draws")]
    assert first
    assert first == [line for line in again.out.splitlines() if line.strip().startswith("draws")]
    assert "warning" in result.err or "warning" in result.out  # few samples
    with (tmp_path / "fidelity.csv").open() as file:
        rows = {row["compared"]: float(row["frechet"]) for row in csv.DictReader(file)}
    assert list(rows) == ["draws", "reconstructions", "data"]
    assert all(value >= 0 for value in rows.values())


def test_fidelity_needs_monai(images_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaearr.errors.find_spec", lambda package: None)
    assert (
        'pip install "vaearr[monai]"'
        in vaearr("look", "fidelity", images_template, code=UNAVAILABLE).error
    )


# ---- layers ----------------------------------------------------------------------------------------------------------


def layers(out: Path, store: Path, *options: object) -> pd.DataFrame:
    shutil.rmtree(out, ignore_errors=True)
    vaearr("look", "layers", store, *options, "--out", out)
    return pd.read_csv(out / "layers.csv")


def test_the_same_input_twice_is_no_difference(images_template: Path, tmp_path: Path) -> None:
    found = layers(tmp_path / "a", images_template, "--a", 4, "--b", 4)
    assert (found[["l2", "relative_l2", "mean_abs"]] == 0).all(axis=None)
    np.testing.assert_allclose(found["cosine"], 1, atol=1e-6)


def test_layers_in_the_order_of_execution(images_template: Path, tmp_path: Path) -> None:
    ds, model = zarr(images_template), va.load_model(images_template)
    compared = ("--a", 4, "--b", 29, "--top", 3)
    found = layers(tmp_path / "a", images_template, *compared)
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names >= {"layers.csv", "layer_differences.json", "difference_maps.png"}
    again = layers(tmp_path / "a", images_template, *compared)
    pd.testing.assert_frame_equal(found, again)  # deterministic: posterior means, no draws
    parts = found["part"].tolist()
    assert parts == sorted(parts, key=["input", "encoder", "latent", "decoder", "output"].index)
    assert found["order"].tolist() == list(range(len(found)))
    a, b = (np.asarray(model.encode(ds.patterns.values[i])).astype(float) for i in (4, 29))
    latent = found.set_index("part").loc["latent"]
    assert latent["l2"] == pytest.approx(np.linalg.norm(a - b), rel=1e-4)
    assert latent["cosine"] == pytest.approx(
        a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-4
    )
    assert latent["rms"] == pytest.approx(np.linalg.norm(a - b) / np.sqrt(3), rel=1e-4)
    pictures = [np.asarray(model.decode(z.astype("float32"))).astype(float) for z in (a, b)]
    assert found["l2"].iloc[-1] == pytest.approx(
        np.linalg.norm(pictures[0] - pictures[1]), rel=1e-3
    )
    maps = va.load_run(images_template).layers(ds.patterns.values[4], ds.patterns.values[29], top=3)
    assert len(maps.attrs["maps"]) == 3


def test_pairs_by_name(images_template: Path, tmp_path: Path) -> None:
    pictures = images_template.parent / "pictures"
    for side, label in (("ill", "both"), ("well", "bar")):
        (tmp_path / "set" / side).mkdir(parents=True)
        for number in range(4 if side == "ill" else 3):
            data = (pictures / label / f"{number:02d}.png").read_bytes()
            (tmp_path / "set" / side / f"{number}.png").write_bytes(data)
    store = tmp_path / "set.zarr"
    vaearr("ingest", tmp_path / "set", store)
    vaearr("encode", store, "--from", images_template)
    command = ("look", "layers", store, "--a", "ill")
    assert "Did you mean 'well'" in vaearr(*command, "--b", "wel", code=NO_INPUT).error
    result = vaearr(*command, "--b", "well", "--out", tmp_path / "out")
    assert "n = 3" in result.out
    assert "3.png has no partner" in result.out + result.err
    with (tmp_path / "out" / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "out" / "layers.csv").open() as file:
        table = {row["layer"]: row for row in csv.DictReader(file)}
    for name, row in table.items():
        values = [float(pair["l2"]) for pair in rows if pair["layer"] == name]
        assert len(values) == 3
        assert float(row["l2_mean"]) == pytest.approx(np.mean(values), rel=1e-4)
        assert float(row["l2_std"]) == pytest.approx(np.std(values, ddof=1), rel=1e-3, abs=1e-9)
    assert any("p" in column for column in next(iter(table.values())))


def test_nothing_is_written_by_looking(images_template: Path) -> None:
    before = tree(images_template)
    vaearr("look", "layers", images_template, "--a", 1, "--b", 2)
    vaearr("look", "fidelity", images_template, "--n", 10)
    assert tree(images_template) == before
