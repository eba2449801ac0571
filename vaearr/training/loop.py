"""`fit`: the only training loop. All that a training is stands in one object, `checkpoint.Training`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vaearr.artifacts import TrainedModel, save_weights
from vaearr.batching import Batch, PatternBatches, Walk
from vaearr.config import TrainConfig
from vaearr.device import pick_precision
from vaearr.errors import TrainingError, UsageError
from vaearr.models.losses import check_targets
from vaearr.training.checkpoint import CHECKPOINT, KEPT, Due, Stop, Training, load_state, save_state, weights_of
from vaearr.training.processes import Processes
from vaearr.training.records import History, write_history, write_sheet
from vaearr.training.schedule import rate_at
from vaearr.training.step import (
    TERMS,
    Step,
    deterministic,
    final_weights,
    memory_advice,
    seed_step,
    seeded,
    splits_amplitude,
)

MAY_BE_NAN = ("accuracy", "adversarial", "critic")
CRITIC = TERMS.index("critic")
AGREE_EVERY = 16  # updates after which several processes ask each other whether to stop or to save

OnEpoch = Callable[[int, History], None]
OnStep = Callable[[int, int], None]


def fit(
    state: Training,
    *,
    resume: Path | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> None:
    """Train in place; the model ends with the weights of the best epoch (the averaged ones if `config.ema`).

    The best epoch is the one with the lowest validation loss at the final beta, lower by `config.min_delta` than the
    best before it (without validation, the last); with a discriminator, of those that end with its whole weight, and
    patience begins there. `folder` gets history.csv and .json after every epoch, a checkpoint
    every `config.checkpoint_minutes`, at SIGINT and SIGTERM (which then take their course) and at the end, one under
    its own name every `config.checkpoint_every` epochs, and at the end the weights of the last epoch as trained.

    resume: a checkpoint to go on from, exactly: on the same machine the result is bit for bit that of a training that
    was never interrupted. Of several processes (`state.team`) each trains on its own share. Raises TrainingError as
    soon as an epoch's loss is not finite, and when the GPU's memory does not suffice.
    """
    config = state.config
    step = _make_step(state)
    if resume:
        if found := load_state(state, resume):
            state.say(f"warning: it goes on with {found}; the last digits may differ from an undisturbed training's")
        if not state.team.is_first:
            state.totals.zero_()
    due = Due(config.checkpoint_minutes)
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        stack.enter_context(seeded(config.seed, state.model.device))
        stack.enter_context(deterministic(config.deterministic))
        stack.enter_context(memory_advice(config))
        check_targets(state.model.preprocess(next(state.train.epoch(0)).patterns), config.objective.likelihood)
        while state.epoch < config.epochs and not _is_out_of_patience(state):
            began = time.perf_counter() - state.seconds
            for _ in _updates(state, step, on_step):
                _pause(state, stop, due, time.perf_counter() - began)
            row = _finish_epoch(state, began)
            if on_epoch:
                on_epoch(state.epoch - 1, row)
            _pause(state, stop, due, 0.0)
    if state.team.is_first:
        save_weights(state.model, state.folder / "last.safetensors")
        save_state(state, state.folder / CHECKPOINT, state.totals)  # what follows may fail and be done again
    state.model.load_state_dict(state.best_weights)


def _make_step(state: Training) -> nn.Module:
    config, device = state.config, state.model.device
    precision = pick_precision(config.precision, device)
    judge = state.critic.network if state.critic else None
    step = Step(state.model, config.objective, config.augment, precision, perceptual=state.perceptual, critic=judge)
    shared = state.team.share(step, device)
    if config.compile != "off":
        shared.compile(mode=config.compile, dynamic=False)
    return shared


def _updates(state: Training, step: nn.Module, on_step: OnStep | None) -> Iterator[None]:
    """The rest of the running epoch; yields after every update."""
    config, model = state.config, state.model
    step.train()  # with the model and the perceptual term, which validation has set to evaluation
    epoch = state.train.epoch(state.epoch, start=state.batch, walk=_walk(model, config))
    while parts := list(islice(epoch, config.accumulate)):
        for values in state.optimizer.param_groups:
            values["lr"] = _rate(state, state.update)
        state.optimizer.zero_grad(set_to_none=True)
        critic = state.critic if state.shares[state.update] > 0 else None
        for i, batch in enumerate(parts):
            seed_step(config.seed, state.team.rank, state.step + i)
            no_sync = getattr(step, "no_sync", None)  # of several processes; gradients meet at the last batch
            with no_sync() if no_sync and i < len(parts) - 1 else nullcontext():
                weights = state.weights[state.update]
                terms, wanted, recon = step(
                    batch.patterns, _target(batch), batch.labels, weights, is_judged=critic is not None
                )
                (terms[0] / len(parts)).backward()
            terms = terms.detach()
            if critic:
                terms[CRITIC] += critic.learn(wanted, recon, len(parts))
            state.totals += terms * len(batch.patterns)
        for _ in parts:
            state.step += 1
            state.batch += 1
            if on_step:
                on_step(state.epoch, state.step)
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        state.optimizer.step()
        if critic:
            critic.update(_rate(state, state.update) / config.learning_rate)
        state.update += 1
        if state.average:
            state.average.update(state.update)
        yield


def _rate(state: Training, update: int) -> float:
    share = rate_at(update, len(state.weights), state.config, per_epoch=state.per_epoch)
    return state.config.learning_rate * share


def _walk(model: TrainedModel, config: TrainConfig) -> Walk | None:
    objective = config.objective
    if objective.target == "auto":
        raise UsageError("objective.target is 'auto'; `vaearr.run.train.settled` decides it for a Dataset.")
    return Walk(model.preprocess, objective.walk) if objective.target == "neighbour" else None


def _target(batch: Batch) -> torch.Tensor | None:
    return None if batch.target is batch.patterns else batch.target


def _pieces(batch: Batch, size: int) -> Iterator[list[Any]]:
    """Patterns, target and labels of a batch, `size` samples at a time."""
    for start in range(0, len(batch.patterns), size):
        whole = (batch.patterns, _target(batch), batch.labels)
        yield [None if part is None else part[start : start + size] for part in whole]


def _pause(state: Training, stop: Stop, due: Due, seconds: float) -> None:
    """Between updates: save if it is time, end if a signal came. Several processes decide together."""
    wanted = [bool(stop.number), bool(due)]
    if state.team.size > 1:
        if state.update % AGREE_EVERY and state.batch:
            return
        asked = torch.tensor(wanted, dtype=torch.float32, device=state.totals.device)
        wanted = [bool(value) for value in state.team.highest(asked).tolist()]
    if not any(wanted):
        return
    state.seconds = seconds
    totals = state.team.total(state.totals.clone())
    if state.team.is_first:
        with due.writing():
            save_state(state, state.folder / CHECKPOINT, totals)
    state.seconds = 0.0
    if wanted[0]:
        state.say(f"saved after {state.place}; the same command goes on from there")
        stop.deliver()


def _finish_epoch(state: Training, began: float) -> History:
    """Close the books of an epoch: history, validation, best weights, checkpoints."""
    config, team, model = state.config, state.team, state.model
    team.agree(model.network)
    row = _row(team.total(state.totals), state.train.n_samples_total, model, config)
    if config.objective.adversarial:
        row |= _of_judged(row, state)
    if state.average:
        state.average.swap()
    if state.validation is not None:
        row |= evaluate(model, state.validation, config, processes=team, perceptual=state.perceptual)
    last = state.update - 1
    kind = "beta" if config.objective.capacity is None else "capacity"
    row |= {kind: float(state.weights[last, 0]), "learning_rate": _rate(state, last)}
    row["seconds"] = time.perf_counter() - began
    _check_finite(row, state)
    score = row.get("val_loss", math.inf)
    if _is_judged_fully(state, state.epoch) and not _is_judged_fully(state, state.epoch - 1):
        state.best = math.inf  # epochs before it are no candidates
    if state.validation is None or score < state.best - config.min_delta:
        state.best, state.best_epoch, state.best_weights = score, state.epoch, weights_of(model)
    if team.is_first and config.sheets_every and (state.epoch + 1) % config.sheets_every == 0:
        write_sheet(model, state.validation or state.train, state.folder, state.epoch + 1, seed=config.seed)
    if state.average:
        state.average.swap()
    state.rows.append(row)
    state.epoch, state.batch, state.seconds = state.epoch + 1, 0, 0.0
    state.totals.zero_()
    if team.is_first:
        write_history(state.rows, state.folder)
        if config.checkpoint_every and state.epoch % config.checkpoint_every == 0:
            save_state(state, state.folder / KEPT.replace("*", f"{state.epoch:04d}"), state.totals)
    return row


@torch.inference_mode()
def evaluate(
    model: TrainedModel,
    batches: PatternBatches,
    config: TrainConfig,
    *,
    processes: Processes | None = None,
    perceptual: nn.Module | None = None,
) -> History:
    """Validation terms, posterior mean decoded, at the final beta; weights and random state stay as they are."""
    model.eval()
    precision = pick_precision(config.precision, model.device)
    step = Step(model, config.objective, config.augment, precision, perceptual=perceptual).eval()
    weights = final_weights(config.objective, model.device)
    totals = torch.zeros(len(TERMS), device=model.device)
    for batch in batches.epoch(0, walk=_walk(model, config)):
        # samples from which windows are cut in training may be too large for a batch
        size = len(batch.patterns) if config.augment.crop is None else model.fitting(len(batch.patterns))
        for patterns, target, labels in _pieces(batch, size):
            totals += step(patterns, target, labels, weights)[0] * len(patterns)
    totals = (processes or Processes()).total(totals)
    row = _row(totals, batches.n_samples_total, model, config)
    return {f"val_{key}": value for key, value in row.items() if key not in ("adversarial", "critic")}


def _row(totals: torch.Tensor, n_samples: int, model: TrainedModel, config: TrainConfig) -> History:
    """Means over an epoch, from sums over its samples."""
    means = {name: value / n_samples for name, value in zip(TERMS, totals.tolist(), strict=True)}
    if not splits_amplitude(model, config.objective):
        del means["amplitude_nll"]
    if config.objective.perceptual is None:
        del means["perceptual"]
    if config.objective.adversarial is None:
        del means["adversarial"], means["critic"]
    right, known = means.pop("label_right"), means.pop("label_known")
    if config.objective.label is None:
        del means["label_nll"]
        return means
    return means | {"label_accuracy": right / known if known else math.nan}


def _is_judged_fully(state: Training, epoch: int) -> bool:
    """Whether an epoch ends with the adversarial term at its final weight; always so where there is none."""
    return epoch >= 0 and state.shares[(epoch + 1) * state.per_epoch - 1] == state.shares[-1]


def _is_out_of_patience(state: Training) -> bool:
    waited = state.epoch - 1 - state.best_epoch
    return waited >= state.config.patience and _is_judged_fully(state, state.epoch - 1)


def _of_judged(row: History, state: Training) -> History:
    """Terms of the discriminator as means over the updates of the epoch that had one; NaN where none had."""
    shares = state.shares[state.epoch * state.per_epoch : (state.epoch + 1) * state.per_epoch]
    part = sum(share > 0 for share in shares) / len(shares)
    return {name: row[name] / part if part else math.nan for name in ("adversarial", "critic")}


def _check_finite(row: History, state: Training) -> None:
    if all(math.isfinite(value) for name, value in row.items() if not name.endswith(MAY_BE_NAN)):
        return
    (state.folder / CHECKPOINT).unlink(missing_ok=True)  # going on from there would end here again
    earlier = sorted(state.folder.glob(KEPT))
    kept = f"the best epoch was {state.best_epoch + 1}" if state.best_epoch >= 0 else "it was the first epoch"
    raise TrainingError(
        f"the loss is not finite in epoch {state.epoch + 1} (loss {row['loss']:g}; {kept}). Lower learning_rate, use "
        "precision='float32' or check the patterns for extreme values."
        + (f" The last checkpoint before is {earlier[-1]}." if earlier else "")
    )
