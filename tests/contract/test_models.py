"""A trained model goes to other data as it was trained; what decides its numbers is checked when it
is read.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import vaearr as va

from . import inputs
from .conftest import Template
from .harness import BAD_DATA, EXISTS, NO_INPUT, TINY, USAGE, attributes, tree, vaearr, zarr

UNLIKE = "look unlike the training data"


def ingested(patterns: np.ndarray, folder: Path, name: str, *more: object) -> Path:
    """A store of patterns (y, x, dy, dx) on a grid."""
    folder.mkdir(exist_ok=True)
    rows, columns = (axis.ravel() for axis in np.mgrid[: patterns.shape[0], : patterns.shape[1]])
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["images"] = patterns.reshape(-1, 1, *patterns.shape[2:])
        file["coords"] = np.stack([columns, rows], 1).astype("int32")
    vaearr("ingest", folder / f"{name}.h5", folder / f"{name}.zarr", "--step", inputs.STEP, *more)
    return folder / f"{name}.zarr"


def noisier(seed: int = 7) -> np.ndarray:
    """The scan's patterns measured again: the same bands, more noise on them."""
    rng = np.random.default_rng(seed)
    return (
        (inputs.patterns()[:12] + rng.normal(0, 3, (12, inputs.NX, 20, 20)))
        .clip(0, 255)
        .astype(np.uint8)
    )


@pytest.fixture(scope="module")
def good(template: Template) -> Path:
    """A scan with a run `vae` that explains most of its patterns, not encoded."""

    def make(folder: Path) -> None:
        store = ingested(inputs.patterns(), folder, "scan")
        better = ("--set", "learning_rate=0.01", "--set", "batch_size=32")
        vaearr("train", store, "--epochs", 12, *better, *TINY)

    return template("good", make) / "scan.zarr"


@pytest.fixture(scope="module")
def others(template: Template) -> Path:
    """Stores of other patterns of the same shape: `again.zarr`, the scan once more;
    `inverted.zarr`, its negative.
    """

    def make(folder: Path) -> None:
        ingested(noisier(), folder, "again")
        ingested(255 - noisier(), folder, "inverted")

    return template("others", make)


@pytest.fixture
def again(others: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(others / "again.zarr", tmp_path / "again.zarr"))


def model_folder(store: Path, run: str = "vae") -> Path:
    return store / "runs" / run / "model"


def test_a_run_is_taken_to_other_data(good: Path, again: Path) -> None:
    done = vaearr("encode", again, "--from", good)
    assert UNLIKE not in done.err
    ds = zarr(again)
    expected = va.load_model(good).encode(ds.patterns)
    np.testing.assert_allclose(ds.latents, expected, atol=1e-5)
    assert np.isfinite(ds.latents_std).all()
    assert np.isfinite(ds.reconstruction_error).all()
    own, trained = (
        json.loads((model_folder(store) / "config.json").read_text()) for store in (again, good)
    )
    assert own["preprocess"] == trained["preprocess"]
    assert own["weights_sha256"] == trained["weights_sha256"]
    origin = attributes(again / "runs" / "vae")["config"]["imported"]
    assert origin["run"] == "vae"
    assert origin["store_id"] == va.open_store(good).attrs["store_id"]
    assert origin["weights_sha256"] == trained["weights_sha256"]
    assert "is intact" in vaearr("verify", again).out
    assert "already holds 'latents'" in vaearr("encode", again, "--from", good).err


def test_what_follows_works_on_it(good: Path, again: Path, tmp_path: Path) -> None:
    va.load_run(good).apply(again).encode()
    vaearr("reconstruct", again)
    vaearr("cluster", again, "--method", "kmeans", "--k", 3, "--name", "grains")
    vaearr("look", "statistics", again)
    vaearr("export", again, tmp_path / "out")
    vaearr("look", "traverse", again, "--out", tmp_path / "traverse.png")
    assert "trained elsewhere" in vaearr("info", again).out


def test_by_function_under_another_name_over_a_region(good: Path, again: Path) -> None:
    ds = (
        va.load_run(good)
        .apply(again, name="b", roi=va.roi(va.open_store(again), x=(1, 3)))
        .encode()
    )
    assert "latents" not in ds
    inside = (ds.x >= 1) & (ds.x < 3) & (ds.y >= 0)
    np.testing.assert_array_equal(
        np.isfinite(ds.latents_b).all("latent_b"), inside.transpose("y", "x")
    )
    expected = va.load_model(good).encode(ds.patterns.load())
    np.testing.assert_allclose(
        ds.latents_b.where(inside, 0).values, expected.where(inside, 0).values, atol=1e-5
    )
    again_by_command = vaearr("encode", again, "--from", good, "--name", "c", "--x", "1:3")
    assert "'c'" in again_by_command.err
    np.testing.assert_array_equal(zarr(again).latents_c, ds.latents_b)


def test_data_unlike_the_training_data(good: Path, others: Path, tmp_path: Path) -> None:
    inverted = Path(shutil.copytree(others / "inverted.zarr", tmp_path / "inverted.zarr"))
    assert UNLIKE in vaearr("encode", inverted, "--from", good).err
    assert UNLIKE in vaearr("info", inverted).out
    strange = ingested(inputs.patterns(seed=1), tmp_path, "strange")
    assert UNLIKE in vaearr("import", strange, model_folder(good), "--run", "vae").err
    vaearr("encode", strange)
    onwards = ingested(
        noisier(3), tmp_path, "onwards"
    )  # held against the training, not against the stranger
    assert UNLIKE not in vaearr("encode", onwards, "--from", strange).err


def test_refusals_of_encode_from(
    good: Path, again: Path, trained_store: Path, images_store: Path
) -> None:
    before = tree(again)
    assert (
        "has no run 'other'"
        in vaearr("encode", again, "--from", good, "--run", "other", code=NO_INPUT).error
    )
    error = vaearr("encode", images_store, "--from", good, "--name", "b", code=USAGE).error
    assert "(1, 20, 20)" in error
    assert "(1, 24, 32)" in error
    assert "another store" in vaearr("encode", again, "--name", "b", code=USAGE).error
    assert tree(again) == before
    error = vaearr("encode", trained_store, "--from", good, code=EXISTS).error
    assert "weights_sha256" in error
    assert "--name" in error
    assert "--overwrite" in error
    vaearr("encode", again, "--from", good)
    assert "region" in vaearr("encode", again, "--from", good, "--x", "1:2", code=EXISTS).error


def test_channels_have_to_be_there(images_template: Path, tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 255, (20, 24, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / "colour.npz", x=colour)
    vaearr("ingest", tmp_path / "colour.npz", tmp_path / "colour.zarr")
    error = vaearr("encode", tmp_path / "colour.zarr", "--from", images_template, code=USAGE).error
    assert "(1, 24, 32)" in error
    assert "(3, 24, 32)" in error


@pytest.mark.parametrize("named", ["", "weights.safetensors"])
def test_import_takes_settings_and_background_from_beside_the_weights(
    good: Path, again: Path, tmp_path: Path, named: str
) -> None:
    folder = shutil.copytree(model_folder(good), tmp_path / "alone")
    done = vaearr("import", again, folder / named, "--run", "b")
    assert "is not known" in done.err  # how well it did in training stayed in the store
    vaearr("encode", again, "--run", "b")
    ds = zarr(again)
    np.testing.assert_allclose(ds.latents_b, va.load_model(good).encode(ds.patterns), atol=1e-5)


def test_refusals_of_import(good: Path, again: Path, tmp_path: Path) -> None:
    before = tree(again)
    error = vaearr(
        "import", again, model_folder(good), "--run", "b", "--latent-dim", 9, code=USAGE
    ).error
    assert "leave out latent_dim" in error
    shutil.copy(model_folder(good) / "weights.safetensors", tmp_path / "lone.safetensors")
    error = vaearr(
        "import", again, tmp_path / "lone.safetensors", "--run", "b", code=BAD_DATA
    ).error
    assert "model folder" in error
    assert tree(again) == before


def edited(folder: Path, **changes: Any) -> None:
    about = json.loads((folder / "config.json").read_text())
    about["preprocess"] |= changes
    (folder / "config.json").write_text(json.dumps(about, indent=2))


def test_a_config_changed_by_hand_is_refused(
    good: Path, again: Path, trained_store: Path, tmp_path: Path
) -> None:
    edited(model_folder(trained_store), normalise="none")
    for command in (
        ("reconstruct", trained_store),
        ("look", "traverse", trained_store, "--out", tmp_path / "t.png"),
    ):
        error = vaearr(*command, code=BAD_DATA).error
        assert "config.json" in error
        assert "restore it" in error
    assert not (tmp_path / "t.png").exists()
    assert "config.json" in vaearr("encode", again, "--from", trained_store, code=BAD_DATA).error
    store = Path(shutil.copytree(good, tmp_path / "good.zarr"))
    edited(model_folder(store), normalise="none")
    assert "restore it" in vaearr("encode", store, code=BAD_DATA).error
    assert "latents" not in zarr(store)
    folder = Path(shutil.copytree(model_folder(store), tmp_path / "alone"))
    assert "restore it" in vaearr("import", again, folder, "--run", "b", code=BAD_DATA).error


def test_every_changed_byte_of_a_config_is_seen(good: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(good, tmp_path / "good.zarr"))
    file = model_folder(store) / "config.json"
    whole = file.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 20):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Exception, match=r"config\.json"):
            va.load_model(store)
    file.write_bytes(whole)
    va.load_model(store)


def strokes(count: int = 48) -> np.ndarray:
    """Sparse images (count, 16, 16): a bar or two of random grey on black, most pixels 0."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, 16, 16), np.uint8)
    for image in images:
        row, column = rng.integers(2, 13, 2)
        image[row : row + 2, 2:14] = rng.integers(100, 256)
        image[2:14, column] = rng.integers(100, 256)
    return images


@pytest.mark.parametrize("normalise", ["robust", "quantile"])
def test_sparse_images_keep_their_content(tmp_path: Path, normalise: str) -> None:
    images = (
        strokes()
        if normalise == "robust"
        else np.where(np.arange(256).reshape(16, 16) == 40, strokes(), 0)
    )
    images[:, 2, 8] = 200  # no image is empty
    images[3] = 7  # but this one has one value
    np.savez(tmp_path / "digits.npz", x=images)
    store = tmp_path / "digits.zarr"
    vaearr("ingest", tmp_path / "digits.npz", store)
    vaearr("train", store, "--epochs", 1, "--set", f"preprocess.normalise={normalise}", *TINY)
    seen = (
        va.load_run(store).reconstruct(examples=48, units="preprocessed", name="seen").input.values
    )
    assert (seen.reshape(len(seen), -1).std(1) > 0.05).sum() >= len(seen) - 1
    vaearr("reconstruct", store, "--variable", "--set", "units=stored")
    back = zarr(store)
    (name,) = [
        str(v) for v in back.data_vars if str(v).startswith("reconstruction") and back[v].ndim == 3
    ]
    assert (back[name].values[3] == 7).all()
    assert (np.delete(back[name].values, 3, 0).reshape(47, -1).std(1) > 0).all()


def test_values_that_float32_cannot_hold(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(0, 1, (20, 8, 8))
    images[4, 3, 3] = 1e308
    np.savez(tmp_path / "huge.npz", x=images)
    error = vaearr("ingest", tmp_path / "huge.npz", tmp_path / "huge.zarr", code=BAD_DATA).error
    assert "1e+308" in error
    assert "nonfinite" in error
    assert not (tmp_path / "huge.zarr").exists()
    done = vaearr(
        "ingest", tmp_path / "huge.npz", tmp_path / "huge.zarr", "--set", "nonfinite=mask"
    )
    assert "1 patterns" in done.err
    np.testing.assert_array_equal(zarr(tmp_path / "huge.zarr").present, np.arange(20) != 4)


@pytest.mark.parametrize("dtype", ["int64", "uint32"])
def test_integers_that_float32_cannot_tell_apart(tmp_path: Path, dtype: str) -> None:
    small = np.random.default_rng(0).integers(0, 100, (20, 8, 8))
    images = (small - 2**62 if dtype == "int64" else small + 2**31).astype(dtype)
    images[0] = 0  # a constant is no loss
    images[1] = small[1]
    np.savez(tmp_path / "far.npz", x=images)
    error = vaearr("ingest", tmp_path / "far.npz", tmp_path / "far.zarr", code=BAD_DATA).error
    assert "offset" in error
    vaearr("ingest", tmp_path / "far.npz", tmp_path / "far.zarr", "--set", "nonfinite=mask")
    ds = zarr(tmp_path / "far.zarr")
    np.testing.assert_array_equal(ds.present, np.arange(20) < 2)
    np.testing.assert_array_equal(ds.patterns[1], images[1])
    assert ds.patterns.dtype == dtype


@pytest.mark.parametrize("count", [2, 15])
def test_few_images_are_enough_to_begin(tmp_path: Path, count: int) -> None:
    np.savez(tmp_path / "few.npz", x=strokes(count))
    vaearr("ingest", tmp_path / "few.npz", tmp_path / "few.zarr")
    done = vaearr("train", tmp_path / "few.zarr", "--epochs", 1, *TINY)
    assert "are few" in done.err
    vaearr("encode", tmp_path / "few.zarr")
    assert np.isfinite(zarr(tmp_path / "few.zarr").latents).all()


def test_one_image_is_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=strokes(1))
    vaearr("ingest", tmp_path / "one.npz", tmp_path / "one.zarr")
    assert "only one" in vaearr("train", tmp_path / "one.zarr", *TINY, code=None).error


def test_few_scan_points_are_enough_to_begin(scan_store: Path) -> None:
    vaearr("train", scan_store, "--x", "0:0.5", "--y", "0:0.5", "--epochs", 1, *TINY)
    vaearr("encode", scan_store)
    assert np.isfinite(zarr(scan_store).latents.values).all(-1).sum() == 4
