"""A whole training: labels that are partly missing, balanced batches, fine-tuning, what the run records."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import vaearr as va
from vaearr import names as n
from vaearr.errors import DataError, MissingExtraError, NoInputError, SchemaError, TrainingError, UsageError
from vaearr.models.files import read_tensors
from vaearr.store import create_store, open_store, open_table, run_folder, run_names

from ..conftest import SMALL_NETWORK, TINY_TRAINING
from ..data import random_patterns_dataset


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Two kinds of pattern, 7 and 3, the left half of the scan unlabelled."""
    ds = random_patterns_dataset({"y": 20, "x": 20}, {"dy": 9, "dx": 11})
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, (20, 20))
    values = ds.patterns.values.astype("i4") // 2
    values[..., :5, :] += (kind * 100)[..., None, None]
    label = np.where(np.arange(20) < 10, -1, np.where(kind, 7, 3))
    ds = ds.assign(
        patterns=ds.patterns.copy(data=values.astype("u1")),
        kind=(("y", "x"), label.astype("i2"), {"long_name": "kind"}),
        truth=(("y", "x"), np.where(kind, 7, 3).astype("i2"), {"long_name": "true kind"}),
    )
    return create_store(ds, tmp_path / "labelled.zarr")


def test_a_head_learns_labels_that_are_partly_missing(labelled: Path) -> None:
    config = TINY_TRAINING.replace(
        epochs=12,
        objective={"label": "kind", "label_weight": 20.0, "input_noise": 0.1},
        preprocess={"static_background": "none"},
    )
    run = va.train(labelled, config=config)
    assert float(run.history.val_label_accuracy[-1]) > 0.95
    assert float(run.history.label_nll[-1]) < 0.5 * float(run.history.label_nll[0])
    va.encode(labelled)
    model = va.load_model(labelled)
    assert model.classes == (3, 7)
    ds = open_store(labelled)
    named = model.classify(ds.latents.values)
    left = ds.truth.values[:, :10]
    assert (named[:, :10] == left).mean() > 0.95, "points without a label are named as well"
    assert (model.classify(np.full((2, 3), np.nan, "f4")) == -1).all()


def test_without_labels_there_is_no_head(trained_store: Path) -> None:
    with pytest.raises(DataError, match=r"objective\.label"):
        va.load_model(trained_store).classify(np.zeros((1, 3), "f4"))
    assert "label_nll" not in open_table(trained_store, "vae", n.HISTORY)


@pytest.mark.parametrize(
    ("setting", "value", "error", "match"),
    [
        ("label", "nowhere", UsageError, "there is no map 'nowhere'"),
        ("label", "BC", SchemaError, "fractions"),
        ("balance", "one", SchemaError, "at least two"),
    ],
)
def test_maps_that_hold_no_classes_are_refused(
    tmp_path: Path, setting: str, value: str, error: type[Exception], match: str
) -> None:
    ds = random_patterns_dataset({"y": 8, "x": 8})
    ds = ds.assign(one=(("y", "x"), np.ones((8, 8), "i2")), BC=(("y", "x"), np.random.default_rng(0).random((8, 8))))
    path = create_store(ds, tmp_path / "s.zarr")
    changes = {"objective": {"label": value}} if setting == "label" else {"balance": value}
    with pytest.raises(error, match=match):
        va.train(path, config=TINY_TRAINING.replace(**changes))
    assert run_names(path) == []


def test_balanced_batches_show_rare_classes_more_often(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 20, "x": 20}, {"dy": 9, "dx": 11})
    rare = np.zeros((20, 20), "i2")
    rare[:2, :10] = 1  # 5 %
    values = np.where(rare[..., None, None] == 1, 200, 20) + ds.patterns.values // 16
    ds = ds.assign(patterns=ds.patterns.copy(data=values.astype("u1")), rare=(("y", "x"), rare))
    path = create_store(ds, tmp_path / "s.zarr")
    store = open_store(path, chunks=None)
    share = [
        float(np.concatenate([x.numpy().mean((1, 2, 3)) > 100 for x in va.batches(store, balance=balance)]).mean())
        for balance in (None, rare.astype("i8"))
    ]
    assert share[0] == pytest.approx(0.05)
    assert 0.4 < share[1] < 0.6
    assert va.train(path, config=TINY_TRAINING.replace(balance="rare")).manifest["config"]["balance"] == "rare"


def test_fine_tuning_starts_from_another_run(trained_store: Path) -> None:
    config = TINY_TRAINING.replace(init="vae", epochs=1, learning_rate=1e-12, weight_decay=0.0)
    va.train(trained_store, run="tuned", config=config)
    old, new = (
        read_tensors(run_folder(trained_store, run) / n.MODEL / "weights.safetensors")[0] for run in ("vae", "tuned")
    )
    for key in old:
        torch.testing.assert_close(new[key], old[key], rtol=1e-5, atol=1e-6)
    folder = run_folder(trained_store, "vae") / n.MODEL
    va.train(trained_store, run="by_path", config=config.replace(init=str(folder)))
    assert open_table(trained_store, "by_path", n.HISTORY).identical(
        open_table(trained_store, "tuned", n.HISTORY).assign(
            seconds=open_table(trained_store, "by_path", n.HISTORY).seconds
        )
    )


def test_fine_tuning_refuses_what_does_not_fit(trained_store: Path) -> None:
    with pytest.raises(NoInputError, match="no run 'nope'"):
        va.train(trained_store, run="b", config=TINY_TRAINING.replace(init="nope"))
    other = TINY_TRAINING.replace(init="vae", model={"latent_dim": 5, "options": SMALL_NETWORK})
    with pytest.raises(UsageError, match="latent_dim 3 and 5"):
        va.train(trained_store, run="b", config=other)
    assert run_names(trained_store) == ["vae"]


def test_sheets_are_a_table_of_the_run(trained_store: Path) -> None:
    va.train(trained_store, run="b", config=TINY_TRAINING.replace(sheets_every=1))
    sheets = open_table(trained_store, "b", n.SHEETS)
    assert sheets.reconstruction.dims == ("epoch", "sample", "dy", "dx")
    assert list(sheets.epoch.values) == [1, 2]
    assert isinstance(sheets, xr.Dataset)
    assert bool(np.isfinite(sheets.prior).all())


def test_a_bernoulli_model_decodes_probabilities(trained_store: Path) -> None:
    config = TINY_TRAINING.replace(objective={"likelihood": "bernoulli"}, preprocess={"normalise": "minmax"})
    va.train(trained_store, run="b", config=config)
    decoded = va.load_model(trained_store, "b").decode(np.random.default_rng(0).normal(size=(5, 3)) * 10)
    assert 0 <= decoded.min() < decoded.max() <= 1


def test_bernoulli_refuses_patterns_beyond_0_and_1(trained_store: Path) -> None:
    with pytest.raises(TrainingError, match="minmax"):
        va.train(trained_store, run="b", config=TINY_TRAINING.replace(objective={"likelihood": "bernoulli"}))
    assert run_names(trained_store) == ["vae"]


def test_a_deterministic_autoencoder_has_no_kl_and_no_spread(trained_store: Path) -> None:
    model = {"name": "conv_ae", "latent_dim": 3, "options": SMALL_NETWORK}
    objective = {"free_bits": 2.0, "target": "self"}
    run = va.train(trained_store, run="ae", config=TINY_TRAINING.replace(model=model, objective=objective))
    assert float(run.history.kl.max()) == 0
    np.testing.assert_allclose(run.history.loss, run.history.reconstruction_nll, rtol=1e-6)
    va.encode(trained_store, run="ae")
    assert float(open_store(trained_store).latents_std_ae.max()) == 0


def test_fine_tuning_refuses_another_network_and_names_another_preprocessing(trained_store: Path) -> None:
    options = {**SMALL_NETWORK, "activation": "relu"}
    with pytest.raises(UsageError, match=r"options\.activation"):
        va.train(
            trained_store,
            run="b",
            config=TINY_TRAINING.replace(init="vae", model={"latent_dim": 3, "options": options}),
        )
    said: list[str] = []
    config = TINY_TRAINING.replace(init="vae", preprocess={"static_background": "none"})
    va.train(trained_store, run="b", config=config, say=said.append)
    assert any("another preprocessing: static_background divide and none" in text for text in said)


@pytest.mark.parametrize("batch_size", [4, 128])
def test_sheets_of_few_samples(tmp_path: Path, batch_size: int) -> None:
    path = create_store(random_patterns_dataset({"y": 8, "x": 8}, {"dy": 9, "dx": 11}), tmp_path / "s.zarr")
    va.train(path, config=TINY_TRAINING.replace(sheets_every=1, batch_size=batch_size))
    sheets = open_table(path, "vae", n.SHEETS)
    assert sheets.sizes["sample"] == min(batch_size, int((open_store(path).split == n.VALIDATION).sum()), 8)


def test_without_validation_the_last_epoch_is_the_best(tmp_path: Path) -> None:
    path = create_store(random_patterns_dataset({"y": 8, "x": 8}, {"dy": 9, "dx": 11}), tmp_path / "s.zarr")
    run = va.train(path, config=TINY_TRAINING.replace(split={"fraction": 0.0}, min_delta=100.0, patience=1, epochs=4))
    assert (run.manifest["best_epoch"], run.manifest["stopped_early"]) == (4, False)


def test_balanced_batches_leave_the_static_background_alone(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 12, "x": 12}, {"dy": 9, "dx": 11})
    rare = np.zeros((12, 12), "i2")
    rare[0, :6] = 1
    ds = ds.assign(rare=(("y", "x"), rare))
    path = create_store(ds, tmp_path / "s.zarr")
    va.train(path, config=TINY_TRAINING.replace(balance="rare", split={"fraction": 0.0}))
    want = ds.patterns.values.astype("f8").mean((0, 1))
    np.testing.assert_allclose(va.load_model(path).preprocess.background[0], want, rtol=1e-5)


def test_a_missing_logger_is_told_before_anything_is_thrown_away(
    trained_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(epoch: int, step: int) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        va.train(trained_store, run="b", config=TINY_TRAINING, on_step=interrupt)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError):
        va.train(trained_store, run="b", config=TINY_TRAINING.replace(log=["tensorboard"]), restart=True)
    said: list[str] = []
    va.train(trained_store, run="b", config=TINY_TRAINING, say=said.append)
    assert "going on from checkpoint.safetensors" in said
