"""Networks, losses and training: every option does what it says, and is recorded (features 19 to
45).
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from safetensors.numpy import load_file

import vaearr as va
from vaearr.errors import DataError, ExistsError, UsageError
from vaearr.schema.pattern_steps import bin_patterns

from .harness import HAS_MONAI, MONAI, TINY, USAGE, nested, sets, vaearr, zarr

TWO = ("--x", "0:2", "--epochs", 2, "--set", "batch_size=64", *TINY)


@pytest.fixture(scope="module")
def store(scan_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy of the scan for all runs of this module, with the run `plain`."""
    path = Path(shutil.copytree(scan_template, tmp_path_factory.mktemp("training") / "scan.zarr"))
    vaearr("train", path, "--run", "plain", *TWO)
    return path


def trained(store: Path, run: str, *options: object) -> dict[str, Any]:
    """Train a run; its recorded settings."""
    vaearr("train", store, "--run", run, *TWO, *options)
    return nested(zarr(store, f"runs/{run}").attrs["config"])


def history(store: Path, run: str) -> dict[str, np.ndarray]:
    ds = zarr(store, f"runs/{run}/history")
    return {str(name): ds[name].values for name in ds.data_vars}


def weights(store: Path, run: str) -> dict[str, np.ndarray]:
    return dict(load_file(store / "runs" / run / "model" / "weights.safetensors"))


def differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> set[str]:
    assert set(one) == set(other)
    return {name for name in one if not np.array_equal(one[name], other[name])}


VARIANTS: dict[
    str, tuple[dict[str, Any], dict[str, Any]]
] = {  # settings, what else makes them possible
    "sgd": ({"optimizer": "sgd", "rate_end": 1, "rise": 0}, {}),
    "adam": ({"optimizer": "adam", "schedule_per": "epoch"}, {}),
    "decay": ({"weight_decay": 0.9}, {}),
    "clip": ({"clip": 1e-3}, {}),
    "laplace": ({"objective.likelihood": "laplace", "objective.free_bits": 2}, {}),
    "bernoulli": ({"objective.likelihood": "bernoulli"}, {"preprocess.normalise": "minmax"}),
    "unweighted": (
        {"objective.beta": 0, "objective.target": "self", "objective.input_noise": 0},
        {},
    ),
    "labelled": ({"objective.label": "phase", "balance": "phase"}, {}),
    "augmented": (
        {
            "augment.flip_x": True,
            "augment.rotate": 15,
            "augment.noise": 0.2,
            "augment.circle": True,
        },
        {},
    ),
    "nearest": ({"model.options.upsampling": "nearest", "model.options.norm": "batch"}, {}),
    "attention": ({"model.options.attention": "cbam", "model.options.activation": "gelu"}, {}),
    "transpose": ({"model.options.upsampling": "transpose", "model.options.dropout": 0.2}, {}),
    "bilinear": ({"model.options.upsampling": "bilinear", "model.options.norm": "group"}, {}),
    "autoencoder": ({"model.name": "conv_ae"}, {}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_settings_are_honoured_and_recorded(name: str, store: Path) -> None:
    asked, needed = VARIANTS[name]
    options = sets(*(f"{key}={json.dumps(value)}" for key, value in (asked | needed).items()))
    recorded = trained(store, name, *options)
    for key, value in asked.items():
        found = recorded
        for part in key.split("."):
            found = found[part]
        assert found == value, key
    values = history(store, name)
    assert all(
        np.isfinite(values[key]).all() for key in ("loss", "reconstruction_nll", "kl", "val_loss")
    )
    now, plain = weights(store, name), weights(store, "plain")
    assert set(now) != set(plain) or differing(now, plain), "the setting changes what is learned"
    model = va.load_model(store, name)
    decoded = np.asarray(model.decode(np.zeros((2, 3), "float32")))  # without an encode before
    assert decoded.shape == (2, 20, 20)
    assert np.isfinite(decoded).all()
    if name == "sgd":
        np.testing.assert_allclose(values["learning_rate"], 0.002)
    if name == "autoencoder":
        assert (values["kl"] == 0).all()
    if name == "unweighted":
        want = values["reconstruction_nll"] + rest(values)
        np.testing.assert_allclose(values["loss"][1:], want[1:], rtol=1e-5)


def rest(values: dict[str, np.ndarray]) -> np.ndarray:
    """Further terms of the reconstruction, where the latent 0 carries the contrast."""
    return np.asarray(values.get("amplitude_nll", 0.0))


def test_loss_is_reconstruction_plus_beta_kl(store: Path) -> None:
    """In nats per sample, both logged; after the warm-up beta is the one asked for."""
    trained(store, "heavy", "--beta", 3, "--set", "objective.warmup=0")
    values = history(store, "heavy")
    np.testing.assert_allclose(values["beta"], 3)
    np.testing.assert_allclose(
        values["loss"], values["reconstruction_nll"] + rest(values) + 3 * values["kl"], rtol=1e-5
    )
    assert values["reconstruction_nll"].min() > 20 * 20 / 10  # a sum over pixels, not a mean
    table = zarr(store, "runs/heavy/history")
    terms = [name for name in table if "weight" in table[name].attrs and name.startswith("val_")]
    total = sum(table[name].attrs["weight"] * table[name] for name in terms)
    np.testing.assert_allclose(table["val_loss"], total, rtol=1e-5)


def test_history_is_in_three_places(store: Path) -> None:
    folder = store / "runs" / "plain" / "model"
    kept = history(store, "plain")
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    for name in ("loss", "val_loss", "kl", "learning_rate"):
        np.testing.assert_allclose([float(row[name]) for row in rows], kept[name], rtol=1e-6)
    assert "val_loss" in (folder / "history.json").read_text()


def test_history_holds_nats_per_value_and_the_latents(store: Path) -> None:
    """Per value of a pattern next to per sample; KL of each latent dimension and active units,
    after every epoch.
    """
    table = zarr(store, "runs/plain/history")
    n_values = np.prod(va.load_model(store, "plain").preprocess.shape)
    for name in ("reconstruction_nll", "kl", "val_reconstruction_nll", "val_kl"):
        assert table[name].attrs["units"] == "nats per sample"
        assert table[f"{name}_per_value"].attrs["units"] == "nats per value"
        np.testing.assert_allclose(table[f"{name}_per_value"] * n_values, table[name])
    assert table.latent_kl.sizes == {"epoch": 2, "latent_plain": 3}
    np.testing.assert_allclose(table.latent_kl.sum("latent_plain"), table.val_kl, rtol=1e-4)
    assert set(table.active_units.values) <= {0, 1, 2, 3}
    trained(store, "unvalidated", "--set", "split.fraction=0")
    alone = zarr(store, "runs/unvalidated/history")
    assert alone.latent_kl.shape == (2, 3)
    assert (alone.latent_kl > 0).any()
    assert not [name for name in alone if name.startswith("val_")]


def test_every_weight_changes(store: Path) -> None:
    """Against the same seed with a learning rate that moves nothing; what equals then is of the
    data, not learned.
    """
    trained(store, "still", "--learning-rate", 1e-30, "--set", "weight_decay=0")
    still, plain = weights(store, "still"), weights(store, "plain")
    same = set(plain) - differing(still, plain)
    learned = {name for name in plain if name.endswith((".weight", ".bias"))}
    assert len(learned) > 10
    assert not same & learned


def test_seeds(store: Path) -> None:
    trained(store, "again")
    assert not differing(weights(store, "again"), weights(store, "plain"))
    trained(store, "other", "--seed", 2)
    assert differing(weights(store, "other"), weights(store, "plain"))


def test_schedule_with_restarts_spans_the_training(store: Path) -> None:
    options = (
        "--epochs",
        8,
        "--set",
        "restarts=1",
        "--set",
        "schedule_per=epoch",
        "--set",
        "rise=0",
    )
    vaearr(
        "train", store, "--run", "restarts", "--x", "0:2", *TINY, *options, "--learning-rate", 0.01
    )
    rates = history(store, "restarts")["learning_rate"]
    np.testing.assert_allclose(rates[[0, 4]], 0.01)
    assert (np.diff(rates[:4]) < 0).all()
    assert (np.diff(rates[4:]) < 0).all()
    assert rates[-1] < 0.003


def test_early_stopping_and_kept_checkpoints(store: Path) -> None:
    options = sets("patience=1", "min_delta=1e9", "checkpoint_every=1", "sheets_every=1")
    vaearr("train", store, "--run", "short", "--x", "0:2", "--epochs", 9, *TINY, *options)
    attrs = zarr(store, "runs/short").attrs
    assert attrs["stopped_early"]
    assert attrs["epochs_run"] == 2
    assert attrs["best_epoch"] == 1
    folder = store / "runs" / "short" / "model"
    assert [path.name for path in sorted(folder.glob("checkpoint-*"))] == [
        "checkpoint-0001.safetensors",
        "checkpoint-0002.safetensors",
    ]
    assert (folder / "weights.safetensors").exists()
    assert (folder / "last.safetensors").exists()
    assert (folder / "weights.safetensors").read_bytes() != (
        folder / "last.safetensors"
    ).read_bytes()


def test_fine_tuning_starts_from_the_weights_of_a_run(store: Path) -> None:
    frozen = ("--learning-rate", 1e-30, "--set", "weight_decay=0", "--seed", 5)
    assert trained(store, "tuned", "--init", "plain", *frozen)["init"] == "plain"
    changed = differing(weights(store, "tuned"), weights(store, "plain"))
    assert not [
        name for name in changed if name.startswith("network.")
    ]  # the background is that of its own split
    done = vaearr(
        "train", store, "--run", "wrong", *TWO, "--init", "plain", "--latent-dim", 5, code=None
    )
    assert done.code != 0
    assert done.error


def test_classes_are_told_from_the_latents(images_store: Path) -> None:
    """A linear head over any class numbers, partly missing (-1)."""
    codes = zarr(images_store).label.values.astype(float) * 7 + 3
    codes[::5] = -1
    np.save(images_store.parent / "codes.npy", codes.astype(int))
    vaearr(
        "attach",
        images_store,
        images_store.parent / "codes.npy",
        "--kind",
        "classes",
        "--name",
        "codes",
    )
    options = ("--epochs", 3, "--set", "objective.label=codes", "--set", "batch_size=8", *TINY)
    vaearr("train", images_store, "--run", "head", *options)
    values = history(images_store, "head")
    told = [name for name in values if "label" in name or "class" in name]
    assert told, list(values)
    assert all(np.isfinite(values[name]).all() for name in told)
    assert values["kl"][-1] > 0


def test_label_loss_is_averaged_over_labelled_samples(images_store: Path) -> None:
    codes = zarr(images_store).label.values.astype(int)
    codes[np.arange(36) % 3 > 0] = -1
    np.save(images_store.parent / "codes.npy", codes)
    vaearr(
        "attach",
        images_store,
        images_store.parent / "codes.npy",
        "--kind",
        "classes",
        "--name",
        "codes",
    )
    options = ("--epochs", 1, "--learning-rate", 1e-30, "--set", "objective.label=codes", *TINY)
    vaearr("train", images_store, "--run", "untrained", *options, "--set", "split.fraction=0.5")
    values = history(images_store, "untrained")
    n_classes = len(set(codes) - {-1})
    for name in ("label_nll", "val_label_nll"):  # an untrained head guesses
        assert values[name][0] == pytest.approx(np.log(n_classes), rel=0.3)


@pytest.fixture
def unbalanced(tmp_path: Path) -> Path:
    """88 images bright on top, with label 0, and 8 bright on the left, with label 1."""
    label = np.zeros(96, "i4")
    label[::12] = 1
    images = np.random.default_rng(0).normal(100, 10, (96, 16, 16))
    images[label == 0, :8] += 60
    images[label == 1, :, :8] += 60
    ds = xr.Dataset(
        {"patterns": (("sample", "y", "x"), images.astype("u1")), "label": ("sample", label)}
    )
    va.ingest(ds, tmp_path / "unbalanced.zarr", progress=False)
    return tmp_path / "unbalanced.zarr"


def test_balance_improves_the_rare_class(unbalanced: Path) -> None:
    options = (
        "--epochs",
        8,
        "--set",
        "batch_size=16",
        "--set",
        "preprocess.static_background=none",
        *TINY,
    )
    errors = {}
    for run, balance in (("plain", ()), ("balanced", ("--balance", "label"))):
        vaearr("train", unbalanced, "--run", run, *options, *balance)
        vaearr("encode", unbalanced, "--run", run)
        ds = zarr(unbalanced).load()
        errors[run] = float(ds[f"reconstruction_error_{run}"][ds.label == 1].mean())
    assert errors["balanced"] < 0.7 * errors["plain"]
    ds = va.open_store(unbalanced)
    batches = va.batches(ds, balance=ds.label.load(), labels=ds.label.load())
    drawn = np.concatenate([batch.labels for batch in batches.epoch(0)])
    assert 0.35 < drawn.mean() < 0.65


def test_float16_and_a_resumed_checkpoint(unbalanced: Path) -> None:
    """Scaled gradients; from a checkpoint on the same weights come out, and the same call again
    returns the run.
    """
    settings = {
        "latent_dim": 3,
        "epochs": 4,
        "batch_size": 16,
        "device": "cpu",
        "precision": "float16",
    }
    settings |= {
        "model": {"options": {"width": 8, "max_width": 8, "hidden": 16}},
        "progress": False,
    }
    whole = va.train(unbalanced, run="whole", checkpoint_every=2, **settings)
    assert np.isfinite(whole.history.val_loss).all()
    assert whole.history.loss[-1] < whole.history.loss[0]
    checkpoint = unbalanced / "runs" / "whole" / "model" / "checkpoint-0002.safetensors"
    resumed = va.train(unbalanced, run="resumed", resume=checkpoint, **settings)
    assert resumed.manifest["weights_sha256"] == whole.manifest["weights_sha256"]
    again = va.train(unbalanced, run="resumed", resume=checkpoint, **settings)
    assert again.manifest["time"] == resumed.manifest["time"]
    with pytest.raises(UsageError, match="other settings"):
        va.train(unbalanced, run="other", resume=checkpoint, **(settings | {"latent_dim": 2}))


def test_a_run_of_another_kind_is_not_compared_setting_by_setting(unbalanced: Path) -> None:
    settings = {"latent_dim": 3, "epochs": 1, "device": "cpu", "progress": False}
    run = va.train(unbalanced, **settings)
    run.apply(unbalanced, name="copy")
    with pytest.raises(ExistsError, match="imported") as refused:
        va.train(unbalanced, run="copy", **settings)
    assert "latent_dim" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:Object at model is not recognized")
def test_sheets_lie_in_the_tree(unbalanced: Path) -> None:
    vaearr("train", unbalanced, "--epochs", 2, "--set", "sheets_every=1", *TINY)
    with xr.open_datatree(unbalanced, engine="zarr") as tree:
        sheets = tree["runs/vae/sheets"].to_dataset(inherit=False).load()
    assert sheets.reconstruction.dims == ("epoch", "sheet_sample", "sheet_y", "sheet_x")
    assert float(abs(sheets.prior[1] - sheets.prior[0]).max()) > 0
    earlier = sheets.rename(
        {f"sheet_{dim}": dim for dim in ("sample", "y", "x")}
    )  # as earlier versions stored them
    for table in (sheets, earlier):
        va.view(table, backend="matplotlib")


@pytest.mark.parametrize(("size", "mode"), [((33, 17), "L"), ((13, 21), "RGB")])
def test_any_size(size: tuple[int, int], mode: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    rng = np.random.default_rng(0)
    shape = size if mode == "L" else (*size, 3)
    for number in range(16):
        Image.fromarray(rng.integers(0, 255, shape).astype("uint8")).save(
            tmp_path / "set" / f"{number:02d}.png"
        )
    vaearr("ingest", tmp_path / "set", tmp_path / "a.zarr")
    vaearr("train", tmp_path / "a.zarr", "--epochs", 1, *TINY)
    vaearr("encode", tmp_path / "a.zarr")
    ds = zarr(tmp_path / "a.zarr")
    assert np.isfinite(ds.latents).all()
    decoded = np.asarray(va.load_model(tmp_path / "a.zarr").decode(ds.latents.values))
    assert decoded.shape == ds.patterns.shape


@pytest.mark.skipif(not HAS_MONAI, reason=MONAI)
def test_spatial_latents_of_the_sd_preset(images_store: Path) -> None:
    """f = 8, four channels, attention in the middle, a discriminator: built from settings, without
    a network.
    """
    small = 'model.options={"channels": [4, 4, 4, 4], "groups": 2, "res_blocks": 1, "decoder_res_blocks": 1}'
    critic = 'objective.adversarial.options={"channels": 4, "layers": 1}'
    options = ("--preset", "sd", "--epochs", 2, "--set", small, "--set", critic, *TINY[4:])
    vaearr(
        "train", images_store, "--run", "sd", *options, "--set", "objective.adversarial.start=0.3"
    )
    vaearr("encode", images_store, "--run", "sd")
    ds = zarr(images_store)
    assert ds.latents_sd.shape == (36, 4, 3, 4)
    values = history(images_store, "sd")
    assert all(
        np.isfinite(column).all() for name, column in values.items() if "adversarial" not in name
    )
    assert any(
        "discriminator" in name or "critic" in name or "adversarial" in name for name in values
    ), list(values)
    assert any("attn" in name for name in weights(images_store, "sd"))


@pytest.mark.skipif(not HAS_MONAI, reason=MONAI)
def test_activations_computed_again_change_nothing(images_store: Path) -> None:
    small = {"channels": [4, 4], "groups": 2, "res_blocks": 1}
    for run, again in {"kept": False, "computed": True}.items():
        options = f"model.options={json.dumps({**small, 'checkpointing': again})}"
        vaearr(
            "train",
            images_store,
            "--run",
            run,
            "--model",
            "autoencoder-kl",
            "--epochs",
            1,
            "--set",
            options,
            *TINY[4:],
        )
    kept, computed = (weights(images_store, run) for run in ("kept", "computed"))
    assert kept.keys() == computed.keys()
    for name in kept:
        np.testing.assert_allclose(kept[name], computed[name], atol=1e-6, err_msg=name)


def test_model_card(trained_template: Path) -> None:
    told = vaearr("info", trained_template, "--model").out
    count = sum(
        array.size
        for name, array in load_file(
            trained_template / "runs" / "vae" / "model" / "weights.safetensors"
        ).items()
        if name.endswith((".weight", ".bias"))
    )
    assert f"n_parameters = {count};" in told
    assert "n_parameters_encoder" in told


def test_presets_and_unknown_settings(store: Path) -> None:
    assert va.preset("sd").model.latent_dim == 4
    for options in (
        ("--set", "optimiser=adam"),
        ("--set", "model.options.wdith=3"),
        ("--preset", "stable"),
        ("--set", "epochs=many"),
        ("--model", "resnet900"),
        ("--set", "balance=nosuch"),
        ("--set", 'log=["wandb"]'),
    ):
        done = vaearr("train", store, "--run", "never", "--x", "0:2", *options, code=None)
        assert done.code != 0
        assert done.error
    assert "roi_never" not in zarr(store)


def test_collapse_is_told(store: Path) -> None:
    done = vaearr("train", store, "--run", "collapsed", *TWO, "--beta", 1000)
    assert "collapse" in done.out + done.err
    health = zarr(store, "runs/collapsed/health")
    assert set(health.data_vars) >= {"kl", "is_active", "mean_variance"}
    assert not health.is_active.any()


def test_streamed_and_resident_are_both_possible(store: Path) -> None:
    done = vaearr("train", store, "--run", "streamed", *TWO, "--set", "memory=1e-5")
    assert "stream" in done.out + done.err
    assert np.isfinite(history(store, "streamed")["val_loss"]).all()
    ds = va.open_store(store)
    batches = va.batches(ds, batch_size=32, roi=ds.roi_plain, memory=1e-5, seed=3)
    seen = np.concatenate(
        [np.asarray(batch.patterns if hasattr(batch, "patterns") else batch) for batch in batches]
    )
    wanted = ds.patterns.values[ds.roi_plain.values]
    assert len(seen) == len(wanted)
    key = lambda rows: np.sort(rows.reshape(len(rows), -1).astype("int64") @ np.arange(400))  # noqa: E731
    np.testing.assert_array_equal(key(seen), key(wanted))


def test_truth_values_are_no_numbers(store: Path) -> None:
    assert (
        "epochs"
        in vaearr("train", store, "--run", "true", "--set", "epochs=true", code=USAGE).error
    )
    with pytest.raises(UsageError, match="batch_size"):
        va.train(store, run="true", batch_size=True)


def test_smaller_blocks_of_the_split_are_told(store: Path) -> None:
    said = vaearr("train", store, "--run", "blocks", *TWO, "--set", "split.block=64").err
    assert "blocks of side" in said
    assert "not 64" in said


@pytest.mark.slow
def test_torchrun_learns_what_one_process_learns(scan_store: Path, tmp_path: Path) -> None:
    """Without noise the mean gradient of two halves is that of the whole: the same weights but for
    rounding.
    """
    plain = (
        "--set",
        "objective.likelihood=gaussian",
        "--set",
        "objective.input_noise=0",
        "--set",
        "split.fraction=0",
    )
    plain = (
        *plain,
        "--set",
        "objective.target=self",
        "--set",
        "model.name=conv_ae",
        "--set",
        "optimizer=sgd",
    )
    options = ("--epochs", "3", *TINY, *plain, "--x", "0:4")  # 16 x 17 points
    vaearr("train", scan_store, "--run", "one", *options, "--set", "batch_size=272")
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "vaearr",
    ]
    both = [
        *start,
        "--",
        "train",
        str(scan_store),
        "--run",
        "two",
        *options,
        "--set",
        "batch_size=136",
    ]
    done = subprocess.run(
        both, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 processes") == 1
    assert zarr(scan_store, "runs/two").attrs["processes"] == 2
    np.testing.assert_allclose(
        history(scan_store, "two")["loss"], history(scan_store, "one")["loss"], rtol=1e-4
    )
    one, two = weights(scan_store, "one"), weights(scan_store, "two")
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-3, atol=1e-3, err_msg=name)


def test_a_step_that_lost_the_patterns_is_told_before_a_training(scan_store: Path) -> None:
    """What is assigned to a Dataset is aligned with its old coordinates, of which none is a binned
    one.
    """
    ds = xr.open_zarr(scan_store)
    with pytest.raises(DataError, match="hold NaN or infinite values, such as at y = "):
        va.train(ds.assign(patterns=bin_patterns(ds.patterns, 2)), epochs=1)
    binned = bin_patterns(ds, 2)
    np.testing.assert_allclose(binned.patterns, ds.patterns.coarsen(dy=2, dx=2).mean(), rtol=1e-6)
    run = va.train(binned, latent_dim=3, epochs=1)
    latents = va.encode(binned, run).latents
    np.testing.assert_allclose(
        run.model.encode(binned.patterns[:2, :2]), latents[:2, :2], atol=1e-5
    )
    assert run.decode(latents[0, 0]).sizes == {"dy": binned.sizes["dy"], "dx": binned.sizes["dx"]}
    assert run.model.reconstruct(binned.patterns[0, :2]).shape == (
        2,
        binned.sizes["dy"],
        binned.sizes["dx"],
    )
