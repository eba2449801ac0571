"""`fit`: the only training loop."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr.artifacts import TrainedModel, save_weights
from vaearr.batching import Batch, PatternBatches, Walk
from vaearr.config import TrainConfig
from vaearr.device import pick_precision
from vaearr.errors import TrainingError, UsageError
from vaearr.objectives import check_targets
from vaearr.store.commit import replace_file
from vaearr.training.checkpoint import CHECKPOINT, KEPT, Due, History, State, Stop, load_state, save_state, weights_of
from vaearr.training.loggers import Logger
from vaearr.training.processes import Processes
from vaearr.training.schedule import Average, make_optimizer, rate_at
from vaearr.training.sheets import write_sheet
from vaearr.training.step import TERMS, Step, final_weights, seed_step, seeded, splits_amplitude, weights_over

AGREE_EVERY = 16  # updates after which several processes ask each other whether to stop or to save

OnEpoch = Callable[[int, History], None]
OnStep = Callable[[int, int], None]

UNITS = {
    "loss": ("loss = reconstruction_nll (+ amplitude_nll) + beta * kl (+ label_weight * label_nll)", "nats per sample"),
    "reconstruction_nll": ("negative log likelihood of the pattern", "nats per sample"),
    "amplitude_nll": (
        "negative log likelihood of the own pattern at the decoded size; learned from after the warm-up",
        "nats per sample",
    ),
    "kl": ("KL divergence, posterior against prior", "nats per sample"),
    "label_nll": ("cross entropy of the labels, mean over all samples", "nats per sample"),
    "label_accuracy": ("share of the labelled samples that the head names right", "1"),
    "val_loss": ("loss on the validation points, at the final beta", "nats per sample"),
    "val_reconstruction_nll": ("negative log likelihood on the validation points", "nats per sample"),
    "val_amplitude_nll": ("amplitude_nll on the validation points", "nats per sample"),
    "val_kl": ("KL divergence on the validation points", "nats per sample"),
    "val_label_nll": ("cross entropy of the labels of validation points", "nats per sample"),
    "val_label_accuracy": ("share of the labelled validation points that the head names right", "1"),
    "beta": ("weight of the KL divergence at the end of the epoch", "1"),
    "capacity": ("nats that the KL divergence is held at, at the end of the epoch", "nats per sample"),
    "learning_rate": ("learning rate of the epoch's last update", "1"),
    "seconds": ("time of the epoch, validation included", "s"),
}


@dataclass(frozen=True)
class Fit:
    """What a training leaves: the history over epochs, the best epoch (both counted from 1), and why it ended."""

    history: xr.Dataset
    best_epoch: int
    stopped_early: bool


@dataclass(frozen=True)
class _Plan:
    """What does not change while a training runs."""

    model: TrainedModel
    train: PatternBatches
    validation: PatternBatches | None
    config: TrainConfig
    folder: Path
    about: Mapping[str, Any]
    processes: Processes
    say: Callable[[str], None]
    weights: torch.Tensor  # of the loss's terms at each update

    @property
    def per_epoch(self) -> int:
        """Updates per epoch."""
        return len(self.weights) // self.config.epochs


def fit(
    model: TrainedModel,
    train: PatternBatches,
    validation: PatternBatches | None,
    config: TrainConfig,
    folder: Path,
    *,
    about: Mapping[str, Any] | None = None,
    resume: Path | None = None,
    processes: Processes | None = None,
    loggers: Sequence[Logger] = (),
    say: Callable[[str], None] | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> Fit:
    """Train in place; the model ends with the weights of the best epoch (the averaged ones if `config.ema`).

    The best epoch is the one with the lowest validation loss at the final beta, lower by `config.min_delta` than the
    best before it (without validation, the last). `folder` gets history.csv and .json after every epoch, a checkpoint
    every `config.checkpoint_minutes`, at SIGINT and SIGTERM (which then take their course) and at the end, one under
    its own name every `config.checkpoint_every` epochs, and at the end the weights of the last epoch as trained.

    resume: a checkpoint to go on from, exactly: on the same machine the result is bit for bit that of a training that
    was never interrupted. about: what a checkpoint must agree with. processes: of `joined`; each trains on its own
    batches. Raises TrainingError as soon as an epoch's loss is not finite, and when the GPU's memory does not suffice.
    """
    plan = _Plan(
        model,
        train,
        validation,
        config,
        folder,
        about or {},
        processes or Processes(),
        say or (lambda text: None),
        weights_over(config.objective, math.ceil(len(train) / config.accumulate) * config.epochs, model.device),
    )
    model.network.to(memory_format=torch.channels_last if len(model.input_shape) == 3 else torch.contiguous_format)
    step, state = _make_step(plan), _make_state(plan)
    if resume:
        load_state(state, resume, plan.about)
        if not plan.processes.is_first:
            state.totals.zero_()
    due = Due(config.checkpoint_minutes)
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        stack.enter_context(seeded(config.seed, model.device))
        stack.enter_context(_deterministic(config.deterministic))
        stack.enter_context(_memory_advice(config))
        check_targets(model.preprocess(next(train.epoch(0)).patterns), config.objective.likelihood)
        while state.epoch < config.epochs and state.epoch - 1 - state.best_epoch < config.patience:
            began = time.perf_counter() - state.seconds
            for _ in _updates(plan, step, state, on_step):
                _pause(plan, state, stop, due, time.perf_counter() - began)
            row = _finish_epoch(plan, state, began)
            for logger in loggers:
                logger.log(state.epoch, row)
            if on_epoch:
                on_epoch(state.epoch - 1, row)
            _pause(plan, state, stop, due, 0.0)
    if plan.processes.is_first:
        save_weights(model, folder / "last.safetensors")
        save_state(state, folder / CHECKPOINT, plan.about, state.totals)  # what follows may fail and be done again
    model.load_state_dict(state.best_weights)
    return Fit(_history(state.rows), state.best_epoch + 1, stopped_early=state.epoch < config.epochs)


def _make_step(plan: _Plan) -> nn.Module:
    config, device = plan.config, plan.model.device
    step = Step(plan.model, config.objective, config.augment, pick_precision(config.precision, device))
    shared = plan.processes.share(step, device)
    if config.compile != "off":
        shared.compile(mode=config.compile, dynamic=False)
    return shared


def _make_state(plan: _Plan) -> State:
    model, config = plan.model, plan.config
    return State(
        model,
        make_optimizer([p for p in model.parameters() if p.requires_grad], config),
        Average(model, config.ema) if config.ema else None,
        torch.zeros(len(TERMS), device=model.device),
    )


def _updates(plan: _Plan, step: nn.Module, state: State, on_step: OnStep | None) -> Iterator[None]:
    """The rest of the running epoch; yields after every update."""
    config, model = plan.config, plan.model
    model.train()
    batches = _epoch(plan.train, plan, state.epoch, start=state.batch)
    while group := list(islice(batches, config.accumulate)):
        for values in state.optimizer.param_groups:
            values["lr"] = _rate(plan, state.update)
        state.optimizer.zero_grad(set_to_none=True)
        for i, batch in enumerate(group, 1):
            seed_step(config.seed, plan.processes.rank, state.step)
            no_sync = getattr(step, "no_sync", None)  # of several processes; gradients meet at the last batch
            with no_sync() if no_sync and i < len(group) else nullcontext():
                terms = step(batch.patterns, _target(batch), batch.labels, plan.weights[state.update])
                (terms[0] / len(group)).backward()
            state.totals += terms.detach() * len(batch.patterns)
            state.step += 1
            state.batch += 1
            if on_step:
                on_step(state.epoch, state.step)
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        state.optimizer.step()
        state.update += 1
        if state.average:
            state.average.update(state.update)
        yield


def _rate(plan: _Plan, update: int) -> float:
    share = rate_at(update, len(plan.weights), plan.config, per_epoch=plan.per_epoch)
    return plan.config.learning_rate * share


def _epoch(batches: PatternBatches, plan: _Plan, number: int, start: int = 0) -> Iterator[Batch]:
    return batches.epoch(number, start=start, walk=_walk(plan.model, plan.config))


def _walk(model: TrainedModel, config: TrainConfig) -> Walk | None:
    objective = config.objective
    if objective.target == "auto":
        raise UsageError("objective.target is 'auto'; `vaearr.runs.settled` decides it for a Dataset.")
    return Walk(model.preprocess, objective.walk) if objective.target == "neighbour" else None


def _target(batch: Batch) -> torch.Tensor | None:
    return None if batch.target is batch.patterns else batch.target


def _pause(plan: _Plan, state: State, stop: Stop, due: Due, seconds: float) -> None:
    """Between updates: save if it is time, end if a signal came. Several processes decide together."""
    wanted = [bool(stop.number), bool(due)]
    if plan.processes.size > 1:
        if state.update % AGREE_EVERY and state.batch:
            return
        asked = torch.tensor(wanted, dtype=torch.float32, device=state.totals.device)
        wanted = [bool(value) for value in plan.processes.highest(asked).tolist()]
    if not any(wanted):
        return
    state.seconds = seconds
    totals = plan.processes.total(state.totals.clone())
    if plan.processes.is_first:
        with due.writing():
            save_state(state, plan.folder / CHECKPOINT, plan.about, totals)
    state.seconds = 0.0
    if wanted[0]:
        plan.say(f"saved after {state.place}; the same command goes on from there")
        stop.deliver()


def _finish_epoch(plan: _Plan, state: State, began: float) -> History:
    """Close the books of an epoch: history, validation, best weights, checkpoints."""
    config, team = plan.config, plan.processes
    row = _row(team.total(state.totals), plan.train.n_samples_total, plan.model, config)
    if state.average:
        state.average.swap()
    if plan.validation is not None:
        row |= evaluate(plan.model, plan.validation, config, processes=team)
    last = state.update - 1
    kind = "beta" if config.objective.capacity is None else "capacity"
    row |= {kind: float(plan.weights[last, 0]), "learning_rate": _rate(plan, last)}
    row["seconds"] = time.perf_counter() - began
    _check_finite(row, state, plan.folder)
    score = row.get("val_loss", math.inf)
    if plan.validation is None or score < state.best - config.min_delta:
        state.best, state.best_epoch, state.best_weights = score, state.epoch, weights_of(plan.model)
    if team.is_first and config.sheets_every and (state.epoch + 1) % config.sheets_every == 0:
        write_sheet(plan.model, plan.validation or plan.train, plan.folder, state.epoch + 1, seed=config.seed)
    if state.average:
        state.average.swap()
    state.rows.append(row)
    state.epoch, state.batch, state.seconds = state.epoch + 1, 0, 0.0
    state.totals.zero_()
    if team.is_first:
        _write_history(state.rows, plan.folder)
        if config.checkpoint_every and state.epoch % config.checkpoint_every == 0:
            save_state(state, plan.folder / KEPT.replace("*", f"{state.epoch:04d}"), plan.about, state.totals)
    return row


@torch.inference_mode()
def evaluate(
    model: TrainedModel, batches: PatternBatches, config: TrainConfig, *, processes: Processes | None = None
) -> History:
    """Validation terms, posterior mean decoded, at the final beta; weights and random state stay as they are."""
    model.eval()
    step = Step(model, config.objective, config.augment, pick_precision(config.precision, model.device)).eval()
    weights = final_weights(config.objective, model.device)
    totals = torch.zeros(len(TERMS), device=model.device)
    for batch in batches.epoch(0, walk=_walk(model, config)):
        totals += step(batch.patterns, _target(batch), batch.labels, weights) * len(batch.patterns)
    totals = (processes or Processes()).total(totals)
    return {f"val_{key}": value for key, value in _row(totals, batches.n_samples_total, model, config).items()}


def _row(totals: torch.Tensor, n_samples: int, model: TrainedModel, config: TrainConfig) -> History:
    """Means over an epoch, from sums over its samples."""
    means = {name: value / n_samples for name, value in zip(TERMS, totals.tolist(), strict=True)}
    if not splits_amplitude(model, config.objective):
        del means["amplitude_nll"]
    right, known = means.pop("label_right"), means.pop("label_known")
    if config.objective.label is None:
        del means["label_nll"]
        return means
    return means | {"label_accuracy": right / known if known else math.nan}


def _check_finite(row: History, state: State, folder: Path) -> None:
    if all(math.isfinite(value) for name, value in row.items() if not name.endswith("accuracy")):
        return
    (folder / CHECKPOINT).unlink(missing_ok=True)  # going on from there would end here again
    earlier = sorted(folder.glob(KEPT))
    kept = f"the best epoch was {state.best_epoch + 1}" if state.best_epoch >= 0 else "it was the first epoch"
    raise TrainingError(
        f"the loss is not finite in epoch {state.epoch + 1} (loss {row['loss']:g}; {kept}). Lower learning_rate, use "
        "precision='float32' or check the patterns for extreme values."
        + (f" The last checkpoint before is {earlier[-1]}." if earlier else "")
    )


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def _memory_advice(config: TrainConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        half = max(2, config.batch_size // 2)
        raise TrainingError(
            f"the GPU's memory does not suffice for batch_size {config.batch_size}: {str(error).split('. ')[0]}. Try "
            f"batch_size={half} with accumulate={2 * config.accumulate}, which learns from as many patterns per update."
        ) from None


def _write_history(rows: list[History], folder: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["epoch", *rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": i, **row} for i, row in enumerate(rows, 1))
    replace_file(folder / "history.csv", text.getvalue().encode(), durable=False)
    plain = [{key: value if math.isfinite(value) else None for key, value in row.items()} for row in rows]
    replace_file(folder / "history.json", json.dumps(plain).encode(), durable=False)


def _history(rows: list[History]) -> xr.Dataset:
    variables = {
        key: (n.EPOCH, [row[key] for row in rows], {"long_name": UNITS[key][0], "units": UNITS[key][1]})
        for key in rows[0]
    }
    return xr.Dataset(variables, coords={n.EPOCH: range(1, len(rows) + 1)})
