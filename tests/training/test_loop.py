"""The loop: terms of the loss, what it may not touch, what it leaves to be looked at, and what it
refuses.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaearr as va
from vaearr import names as n
from vaearr.batching import PatternBatches, batches
from vaearr.config import SplitConfig, TrainConfig
from vaearr.errors import MissingExtraError, TrainingError, UsageError
from vaearr.models.artifacts import TrainedModel
from vaearr.models.tensors import read_tensors
from vaearr.schema import grid
from vaearr.store import create_store, open_store, run_folder
from vaearr.training.loop import evaluate
from vaearr.training.loop import fit as _fit
from vaearr.training.processes import Processes
from vaearr.training.state import Training
from vaearr.training.step import Step, seeded

from ..conftest import SMALL_NETWORK, TINY_TRAINING
from ..data import random_patterns_dataset

CPU = torch.device("cpu")
AUTOENCODER = {"name": "conv_ae", "latent_dim": 3, "options": SMALL_NETWORK}
PLAIN = {"likelihood": "gaussian", "input_noise": 0.0, "target": "self"}
CRITIC = {
    "discriminator": "conv",
    "options": {"channels": 8, "layers": 2},
    "start": 0.5,
    "rise": 0.0,
}
RECORDED_LOSSES = [140.560099, 140.377157, 140.313843]
Parts = tuple[PatternBatches, PatternBatches]


@pytest.fixture
def parts() -> Parts:
    ds = random_patterns_dataset({"y": 12, "x": 10}, {"dy": 9, "dx": 11})
    split = grid.split(grid.roi(ds), SplitConfig(fraction=0.2, block=2), seed=0)
    train = batches(ds, split=split, batch_size=16)
    return train, batches(ds, split=split, part=n.VALIDATION, batch_size=16, shuffle=False)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return create_store(
        random_patterns_dataset({"sample": 40}, {"y": 12, "x": 13}), tmp_path / "images.zarr"
    )


def _config(**objective: Any) -> TrainConfig:
    """Of images."""
    return TINY_TRAINING.replace(
        objective={"target": "self", "input_noise": 0.0, **objective},
        preprocess={"normalise": "symmetric"},
        split={"method": "random", "fraction": 0.2},
        epochs=4,
    )


def _objective(**changes: Any) -> TrainConfig:
    return TINY_TRAINING.replace(objective={**TINY_TRAINING.objective.to_attrs(), **changes})


def _model(config: TrainConfig = TINY_TRAINING) -> TrainedModel:
    about: dict[str, Any] = {
        "input_shape": (1, 9, 11),
        "signal_dims": ("dy", "dx"),
        "input_dtype": "uint8",
    }
    with seeded(0, CPU):
        return TrainedModel(model=config.model, preprocess=config.preprocess, **about)


def fit(
    train: PatternBatches,
    validation: PatternBatches | None,
    config: TrainConfig,
    folder: Path,
    **calls: Any,
) -> Any:
    state = Training(_model(config), train, validation, config, folder)
    _fit(state, **calls)
    return state


def _weights(store: Path, run: str) -> dict[str, torch.Tensor]:
    return read_tensors(run_folder(store, run) / n.MODEL / "last.safetensors")[0]


@pytest.mark.parametrize("target", ["self", "neighbour"])
def test_evaluation_changes_nothing(parts: Parts, target: str, tmp_path: Path) -> None:
    config = _objective(target=target).replace(augment={"flip_x": True, "noise": 1.0})
    training = Training(_model(), *parts, config, tmp_path)
    model = training.model
    before, state = (
        {key: value.clone() for key, value in model.state_dict().items()},
        torch.get_rng_state(),
    )
    first, second = (evaluate(training) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_losses_are_those_recorded(parts: Parts, tmp_path: Path) -> None:
    state = fit(*parts, _objective(target="neighbour").replace(epochs=3), tmp_path)
    assert [row["loss"] for row in state.rows] == pytest.approx(RECORDED_LOSSES, rel=1e-5)


def test_terms_of_the_loss(parts: Parts) -> None:
    """Sums over pixels; beta weighs the KL, free bits spare it."""
    model, x = _model().eval(), next(iter(parts[1]))
    for changes in ({"beta": 4.0}, {"free_bits": 1000.0}):
        config = _objective(**PLAIN, **changes)
        with torch.inference_mode():
            found = Step(model, config).eval()(x, None, None, torch.tensor([1.0, 4.0])).sums
            seen = model.preprocess(x)
            recon = model.network.decode(model.network.encode(seen)[0])
        terms = {name: float(total / count) for name, (total, count) in found.items()}
        want = 0.5 * ((seen - recon) ** 2 + np.log(2 * np.pi)).flatten(1).sum(1).mean()
        assert terms["reconstruction_nll"] == pytest.approx(float(want), rel=1e-5)
        penalty = 4 * terms["kl"] if "free_bits" not in changes else 4 * 3000.0
        assert terms["loss"] == pytest.approx(terms["reconstruction_nll"] + penalty, rel=1e-4)


def test_the_best_weights_are_used_and_the_last_ones_kept(parts: Parts, tmp_path: Path) -> None:
    lines = []
    config = TINY_TRAINING.replace(epochs=60, patience=2, learning_rate=0.02)
    state = fit(
        *parts,
        config,
        tmp_path,
        on_epochs=[lambda *_: lines.append((tmp_path / "history.csv").read_text())],
    )
    assert state.epoch == state.best_epoch + 1 + 2 < 60
    best = state.rows[state.best_epoch]["val_loss"]
    assert best == min(row["val_loss"] for row in state.rows)
    assert evaluate(state)["val_loss"] == pytest.approx(best, rel=1e-4)
    last = read_tensors(tmp_path / "last.safetensors")[0]
    assert any(not torch.equal(value, last[key]) for key, value in state.model.state_dict().items())
    assert [text.count("\n") for text in lines] == list(range(2, len(lines) + 2)), (
        "history after every epoch"
    )
    assert lines[0].startswith("epoch,loss,reconstruction_nll")


def test_a_full_gpu_and_determinism(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    config = TINY_TRAINING.replace(deterministic=True, epochs=1)
    fit(
        *parts,
        config,
        tmp_path,
        on_step=lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()),
    )
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()

    def full(self: Step, *args: object, **kwargs: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")

    monkeypatch.setattr(Step, "forward", full)
    with pytest.raises(
        TrainingError, match=r"batch_size 16 needs more memory .*CUDA out of memory.*halve it"
    ):
        fit(*parts, TINY_TRAINING, tmp_path)


def test_tensorboard_gets_every_epoch_where_it_is_asked_for(
    trained_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logs, config = (
        trained_store.with_name("scan.zarr.logs"),
        TINY_TRAINING.replace(log=["tensorboard"]),
    )
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard", None)
        with pytest.raises(MissingExtraError):
            va.train(trained_store, run="b", config=config)
    assert not logs.exists()
    run = va.train(trained_store, run="b", config=config)
    events = reader.EventAccumulator(str(logs / "tensorboard" / "b")).Reload()
    written = [(event.step, event.value) for event in events.Scalars("loss")]
    assert written == [
        (i, pytest.approx(float(loss))) for i, loss in enumerate(run.history.loss, 1)
    ]


def test_discriminators(images: Path) -> None:
    """One without weight changes nothing; the best epoch is one with the whole one, where patience
    begins.
    """
    va.train(images, run="plain", config=_config())
    va.train(
        images, run="judged", config=_config(adversarial={**CRITIC, "weight": 0.0, "start": 0.0})
    )
    one, other = _weights(images, "plain"), _weights(images, "judged")
    assert one.keys() == other.keys(), "nothing but the VAE is published"
    assert all(torch.equal(one[key], other[key]) for key in one)
    config = _config(adversarial=CRITIC).replace(learning_rate=1e-9, patience=1, min_delta=1e3)
    run = va.train(images, config=config)
    assert run.manifest["best_epoch"] == 3, (
        "the first two cannot be, and no other is better by min_delta"
    )
    assert run.manifest["epochs_run"] == 4 == 3 + config.patience
    config = _config(adversarial={**CRITIC, "kind": "wgan-gp"})
    with pytest.raises(UsageError, match="wgan-gp runs in one process"):
        Training(
            _model(),
            batches(open_store(images)),
            None,
            config,
            images,
            team=Processes(rank=0, size=2),
        )


def test_what_does_not_fit_is_refused(images: Path) -> None:
    for changes, match in (
        (
            {"objective": {"perceptual": {"kind": "encoder"}}},
            r"needs a trained run: set objective\.perceptual\.run",
        ),
        (
            {"objective": {"perceptual": {"kind": "features", "run": "plain"}}},
            "is for kind 'encoder', not for",
        ),
    ):
        with pytest.raises(UsageError, match=match):
            va.train(images, config=_config().replace(**changes))
