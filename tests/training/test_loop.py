"""The loop: every weight learns, evaluation changes nothing, schedule, early stopping, the loss's parts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vaearr import grid, training
from vaearr import names as n
from vaearr.artifacts import TrainedModel
from vaearr.batching import PatternBatches, batches
from vaearr.config import AugmentConfig, ModelConfig, ObjectiveConfig, PreprocessConfig, SplitConfig, TrainConfig
from vaearr.errors import TrainingError
from vaearr.models.files import read_tensors
from vaearr.training import Step, Training, evaluate, seeded
from vaearr.training.records import read_sheets
from vaearr.training.step import TERMS

from ..conftest import SMALL_NETWORK
from ..data import random_patterns_dataset

MODEL = ModelConfig(latent_dim=3, options=SMALL_NETWORK)
CPU = torch.device("cpu")


@pytest.fixture
def parts() -> tuple[PatternBatches, PatternBatches]:
    ds = random_patterns_dataset({"y": 12, "x": 10}, {"dy": 9, "dx": 11})
    split = grid.split(grid.roi(ds), SplitConfig(fraction=0.2, block=2), seed=0)
    train = batches(ds, split=split, batch_size=16)
    return train, batches(ds, split=split, part=n.VALIDATION, batch_size=16, shuffle=False)


def _model(
    shape: tuple[int, ...] = (1, 9, 11), *, model: ModelConfig = MODEL, preprocess: PreprocessConfig | None = None
) -> TrainedModel:
    dims = ("dy", "dx") if shape[0] == 1 else ("channel", "dy", "dx")
    with seeded(0, CPU):
        return TrainedModel(
            model=model,
            preprocess=preprocess or PreprocessConfig(static_background="divide", normalise="zscore"),
            input_shape=shape,
            signal_dims=dims,
            dtype="uint8",
        )


def fit(
    model: TrainedModel,
    train: PatternBatches,
    validation: PatternBatches | None,
    config: TrainConfig,
    folder: Path,
    **calls: Any,
) -> Training:
    state = Training(model, train, validation, config, folder)
    training.fit(state, **calls)
    return state


def _config(**changes: Any) -> TrainConfig:
    objective = ObjectiveConfig(target="neighbour", input_noise=1.0)
    base = TrainConfig(model=MODEL, objective=objective, epochs=3, batch_size=16, precision="float32", device="cpu")
    if isinstance(given := changes.get("objective"), dict):
        changes["objective"] = {"input_noise": 1.0, **given}
    changes["preprocess"] = {"static_background": "divide", "normalise": "zscore", **changes.get("preprocess", {})}
    return base.replace(**changes)


def test_every_weight_changes(parts: tuple[PatternBatches, PatternBatches], tmp_path: Path) -> None:
    model = _model()
    before = {key: value.clone() for key, value in model.network.named_parameters()}
    fit(model, parts[0], None, _config(epochs=1), tmp_path)
    for key, value in model.network.named_parameters():
        assert not torch.equal(value, before[key]), key


def _terms(model: TrainedModel, x: torch.Tensor, objective: ObjectiveConfig) -> dict[str, float]:
    step = Step(model, objective, AugmentConfig(), torch.float32).eval()
    with torch.inference_mode():
        terms, _, _ = step(x, None, None, torch.tensor([objective.beta, 1.0, 0.0]))
    return dict(zip(TERMS, terms.tolist(), strict=True))


@pytest.mark.parametrize("target", ["self", "neighbour"])
def test_evaluation_changes_nothing(parts: tuple[PatternBatches, PatternBatches], target: str) -> None:
    model, config = _model(), _config(objective={"target": target}, augment={"flip_x": True, "noise": 1.0})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (evaluate(model, parts[1], config) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert first["val_loss"] == pytest.approx(first["val_reconstruction_nll"] + first["val_kl"], rel=1e-5)


def test_beta_weighs_the_kl(parts: tuple[PatternBatches, PatternBatches]) -> None:
    row = evaluate(_model(), parts[1], _config(objective={"target": "neighbour", "beta": 4.0}))
    assert row["val_loss"] == pytest.approx(row["val_reconstruction_nll"] + 4 * row["val_kl"], rel=1e-5)


def test_free_bits_spare_small_kl(parts: tuple[PatternBatches, PatternBatches]) -> None:
    terms = _terms(_model(), next(iter(parts[1])), ObjectiveConfig(free_bits=1000.0))
    assert terms["loss"] - terms["reconstruction_nll"] == pytest.approx(3000.0, rel=1e-4)
    assert terms["kl"] < 3000.0


def test_capacity_holds_the_kl(parts: tuple[PatternBatches, PatternBatches]) -> None:
    row = evaluate(_model(), parts[1], _config(objective={"target": "neighbour", "capacity": 7.0, "beta": 10.0}))
    want = row["val_reconstruction_nll"] + 10 * abs(row["val_kl"] - 7)
    assert row["val_loss"] == pytest.approx(want, rel=1e-5)


def test_losses_are_sums_over_pixels(parts: tuple[PatternBatches, PatternBatches]) -> None:
    model = _model().eval()
    x = next(iter(parts[1]))
    nll = _terms(model, x, ObjectiveConfig(likelihood="gaussian"))["reconstruction_nll"]
    with torch.inference_mode():
        seen = model.preprocess(x)
        recon = model.network(seen)[0]
    want = 0.5 * ((seen - recon) ** 2 + np.log(2 * np.pi)).flatten(1).sum(1).mean()
    assert nll == pytest.approx(float(want), rel=1e-5)


def test_early_stopping_keeps_the_best(parts: tuple[PatternBatches, PatternBatches], tmp_path: Path) -> None:
    model = _model()
    result = fit(model, *parts, _config(epochs=60, patience=2, learning_rate=0.02), tmp_path)
    assert result.epoch == result.best_epoch + 1 + 2 < 60
    best = float(result.history.val_loss[result.best_epoch])
    assert best == float(result.history.val_loss.min())
    assert evaluate(model, parts[1], _config())["val_loss"] == pytest.approx(best, rel=1e-4)


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


@pytest.mark.parametrize("shape", [(1, 9, 11), (3, 8, 8)])
def test_channels(shape: tuple[int, int, int], tmp_path: Path) -> None:
    signal = {"channel": shape[0], "dy": shape[1], "dx": shape[2]} if shape[0] > 1 else {"dy": 9, "dx": 11}
    ds = random_patterns_dataset({"y": 6, "x": 7}, signal)
    fit(_model(shape), batches(ds, batch_size=16), None, _config(epochs=1), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam"},
        {"optimizer": "sgd", "learning_rate": 1e-5},
        {"accumulate": 3},
        {"ema": 0.9},
        {"objective": {"likelihood": "laplace", "target": "self"}},
        {"objective": {"target": "neighbour", "capacity": 5.0}},
        {"augment": {"flip_x": True, "flip_y": True, "rotate": 10.0, "noise": 0.5, "circle": True}},
        {"model": {**MODEL.to_attrs(), "name": "conv_ae"}},
        {
            "model": {**MODEL.to_attrs(), "options": {**SMALL_NETWORK, "head": "sigmoid"}},
            "objective": {"target": "neighbour", "likelihood": "bernoulli"},
            "preprocess": {"normalise": "minmax"},
        },
        {"model": {**MODEL.to_attrs(), "options": {**SMALL_NETWORK, "attention": "cbam", "norm": "batch"}}},
    ],
    ids=lambda changes: "-".join(map(str, changes)),
)
def test_every_option_learns(
    parts: tuple[PatternBatches, PatternBatches], tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = _config(epochs=6, **changes)
    model = _model(model=config.model, preprocess=config.preprocess)
    result = fit(model, *parts, config, tmp_path)
    assert float(result.history.val_reconstruction_nll.min()) < float(result.history.val_reconstruction_nll[0])
    assert np.isfinite(result.history.to_dataarray()).all()


def test_averaged_weights_are_used_and_differ_from_the_last_ones(
    parts: tuple[PatternBatches, PatternBatches], tmp_path: Path
) -> None:
    model = _model()
    result = fit(model, *parts, _config(ema=0.99, epochs=2), tmp_path)
    last, _ = read_tensors(tmp_path / "last.safetensors")
    assert any(not torch.equal(value, last[key]) for key, value in model.state_dict().items())
    best = float(result.history.val_loss[result.best_epoch])
    assert evaluate(model, parts[1], _config())["val_loss"] == pytest.approx(best, rel=1e-4)


def test_accumulated_batches_make_one_update(parts: tuple[PatternBatches, PatternBatches], tmp_path: Path) -> None:
    """Without noise, 4 batches of a quarter give the update of the whole."""
    ds = random_patterns_dataset({"y": 8, "x": 8}, {"dy": 9, "dx": 11})
    objective = {"likelihood": "gaussian", "input_noise": 0.0, "target": "self"}
    models = []
    for size, accumulate in ((64, 1), (16, 4)):
        config = _config(epochs=3, batch_size=size, accumulate=accumulate, objective=objective, optimizer="adam")
        model = _model(model=ModelConfig(name="conv_ae", latent_dim=3, options=SMALL_NETWORK))
        fit(model, batches(ds, batch_size=size, shuffle=False), None, config, tmp_path)
        models.append(model)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_no_value_leaves_the_device_within_an_epoch(
    parts: tuple[PatternBatches, PatternBatches], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    steps: list[int] = []
    for name in ("item", "tolist", "__float__", "__bool__"):
        original = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, *args: Any, original: Any = original, **kwargs: Any) -> Any:
            reads.append(len(steps))
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    config = _config(epochs=1)
    fit(_model(), parts[0], None, config, tmp_path, on_step=lambda epoch, step: steps.append(step))
    assert len(steps) == len(parts[0]) > 2
    assert reads, "the epoch's row must be read at its end"
    assert not [step for step in reads if 0 < step < len(steps)]


def test_running_out_of_gpu_memory_names_a_batch_size(
    parts: tuple[PatternBatches, PatternBatches], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Step, *args: object, **kwargs: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")

    monkeypatch.setattr(Step, "forward", full)
    with pytest.raises(TrainingError, match=r"batch_size 16: CUDA out of memory. Try batch_size=8 with accumulate=2"):
        fit(_model(), *parts, _config(), tmp_path)


def test_deterministic_is_switched_off_again(parts: tuple[PatternBatches, PatternBatches], tmp_path: Path) -> None:
    seen = []
    fit(
        _model(),
        *parts,
        _config(deterministic=True, epochs=1),
        tmp_path,
        on_step=lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()),
    )
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()


def test_sheets_hold_the_same_samples_every_time(parts: tuple[PatternBatches, PatternBatches], tmp_path: Path) -> None:
    fit(_model(), *parts, _config(epochs=4, sheets_every=2), tmp_path)
    sheets = read_sheets(tmp_path, ("dy", "dx"))
    assert sheets is not None
    assert list(sheets.epoch.values) == [2, 4]
    assert sheets.prior.dims == ("epoch", "sample", "dy", "dx")
    assert sheets.input.sizes == {"sample": 8, "dy": 9, "dx": 11}
    assert float(abs(sheets.prior[1] - sheets.prior[0]).max()) > 0


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_step_gives_the_same_losses(parts: tuple[PatternBatches, PatternBatches], tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile on a CPU needs g++, which is not installed")
    config = _config(
        epochs=1, objective={"input_noise": 0.0, "target": "self"}, model={**MODEL.to_attrs(), "name": "conv_ae"}
    )
    rows = [
        fit(_model(model=config.model), *parts, config.replace(compile=mode), tmp_path).history
        for mode in ("off", "default")
    ]
    np.testing.assert_allclose(rows[0].loss, rows[1].loss, rtol=1e-4)
