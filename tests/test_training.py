"""The loop: every weight learns, evaluation changes nothing, schedule, early stopping, the loss's parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vaearr import grid
from vaearr import names as n
from vaearr.artifacts import TrainedModel
from vaearr.batching import PatternBatches, batches
from vaearr.config import ModelConfig, ObjectiveConfig, PreprocessConfig, SplitConfig, TrainConfig
from vaearr.testing import random_patterns_dataset
from vaearr.training import evaluate, fit, loss_terms, rate_at, seeded

from .conftest import SMALL_NETWORK

MODEL = ModelConfig(latent_dim=3, options=SMALL_NETWORK)
CPU = torch.device("cpu")


@pytest.fixture
def parts() -> tuple[PatternBatches, PatternBatches]:
    ds = random_patterns_dataset({"y": 12, "x": 10}, {"dy": 9, "dx": 11})
    split = grid.split(grid.roi(ds), SplitConfig(fraction=0.2, block=2), seed=0)
    train = batches(ds, split=split, batch_size=16)
    return train, batches(ds, split=split, part=n.VALIDATION, batch_size=16, shuffle=False)


def _model(shape: tuple[int, ...] = (1, 9, 11)) -> TrainedModel:
    dims = ("dy", "dx") if shape[0] == 1 else ("channel", "dy", "dx")
    with seeded(0, CPU):
        return TrainedModel(
            model=MODEL, preprocess=PreprocessConfig(), input_shape=shape, signal_dims=dims, dtype="uint8"
        )


def _config(**changes: object) -> TrainConfig:
    base = TrainConfig(model=MODEL, epochs=3, batch_size=16, precision="float32", device="cpu")
    return base.replace(**changes)


def test_every_weight_changes(parts: tuple[PatternBatches, PatternBatches], tmp_path: Path) -> None:
    model = _model()
    before = {key: value.clone() for key, value in model.network.named_parameters()}
    fit(model, parts[0], None, _config(epochs=1), tmp_path)
    for key, value in model.network.named_parameters():
        assert not torch.equal(value, before[key]), key


@pytest.mark.parametrize("target", ["self", "neighbour"])
def test_evaluation_changes_nothing(parts: tuple[PatternBatches, PatternBatches], target: str) -> None:
    model, objective = _model(), ObjectiveConfig(target=target)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (evaluate(model, parts[1], objective) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert first["val_loss"] == pytest.approx(first["val_reconstruction_nll"] + first["val_kl"], rel=1e-5)


def test_beta_weighs_the_kl(parts: tuple[PatternBatches, PatternBatches]) -> None:
    model = _model()
    row = evaluate(model, parts[1], ObjectiveConfig(beta=4.0))
    assert row["val_loss"] == pytest.approx(row["val_reconstruction_nll"] + 4 * row["val_kl"], rel=1e-5)


def test_free_bits_spare_small_kl(parts: tuple[PatternBatches, PatternBatches]) -> None:
    model = _model().eval()
    x = next(iter(parts[1]))
    with torch.inference_mode():
        _, kl, penalty = loss_terms(model, x, x, ObjectiveConfig(free_bits=1000.0))
    assert float(penalty) == pytest.approx(3000.0)
    assert float(kl) < 3000.0


def test_losses_are_sums_over_pixels(parts: tuple[PatternBatches, PatternBatches]) -> None:
    model = _model().eval()
    x = next(iter(parts[1]))
    with torch.inference_mode():
        nll, _, _ = loss_terms(model, x, x, ObjectiveConfig(likelihood="gaussian"))
        seen = model.preprocess(x)
        recon = model.network(seen)[0]
    want = 0.5 * ((seen - recon) ** 2 + np.log(2 * np.pi)).flatten(1).sum(1).mean()
    assert float(nll) == pytest.approx(float(want), rel=1e-5)


def test_early_stopping_keeps_the_best(parts: tuple[PatternBatches, PatternBatches], tmp_path: Path) -> None:
    model = _model()
    result = fit(model, *parts, _config(epochs=60, patience=2, learning_rate=0.02), tmp_path)
    assert result.stopped_early
    assert result.history.sizes["epoch"] == result.best_epoch + 2
    best = float(result.history.val_loss.sel(epoch=result.best_epoch))
    assert best == float(result.history.val_loss.min())
    assert evaluate(model, parts[1], ObjectiveConfig())["val_loss"] == pytest.approx(best, rel=1e-4)


def test_history_is_on_disk_after_every_epoch(parts: tuple[PatternBatches, PatternBatches], tmp_path: Path) -> None:
    lines = []
    fit(
        _model(),
        *parts,
        _config(),
        tmp_path,
        on_epoch=lambda e, row: lines.append((tmp_path / "history.csv").read_text()),
    )
    assert [text.count("\n") for text in lines] == [2, 3, 4]
    assert lines[0].startswith("epoch,loss,reconstruction_nll,kl,val_loss")


def test_learning_rate_rises_and_falls_over_the_run() -> None:
    rates = [rate_at(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 15)
    assert max(rates) == rates[15] == 1.0
    assert rates[15:] == sorted(rates[15:], reverse=True)
    assert rates[-1] == pytest.approx(0.001)
    assert rate_at(0, 1) == 1.0


@pytest.mark.parametrize("shape", [(1, 9, 11), (3, 8, 8)])
def test_channels(shape: tuple[int, int, int], tmp_path: Path) -> None:
    signal = {"channel": shape[0], "dy": shape[1], "dx": shape[2]} if shape[0] > 1 else {"dy": 9, "dx": 11}
    ds = random_patterns_dataset({"y": 6, "x": 7}, signal)
    fit(_model(shape), batches(ds, batch_size=16), None, _config(epochs=1), tmp_path)
