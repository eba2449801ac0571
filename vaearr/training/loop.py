"""`fit`: the only training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import nn

from vaearr.artifacts import TrainedModel, save_weights
from vaearr.batching import Batch, PatternBatches, Walk
from vaearr.config import TrainConfig
from vaearr.device import pick_precision
from vaearr.errors import TrainingError, UsageError
from vaearr.models.objectives import check_targets
from vaearr.training.checkpoint import CHECKPOINT, KEPT, Due, State, Stop, load_state, save_state, weights_of
from vaearr.training.critic import Critic
from vaearr.training.history import History, history_dataset, write_history
from vaearr.training.loggers import Logger
from vaearr.training.processes import Processes
from vaearr.training.schedule import Average, make_optimizer, rate_at
from vaearr.training.sheets import write_sheet
from vaearr.training.step import (
    TERMS,
    Step,
    adversarial_shares,
    deterministic,
    final_weights,
    memory_advice,
    seed_step,
    seeded,
    seen_shape,
    splits_amplitude,
    weights_over,
)

MAY_BE_NAN = ("accuracy", "adversarial", "critic")
CRITIC = TERMS.index("critic")
AGREE_EVERY = 16  # updates after which several processes ask each other whether to stop or to save

OnEpoch = Callable[[int, History], None]
OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Fit:
    """What a training leaves: the history over epochs, the best epoch (both counted from 1), and why it ended."""

    history: xr.Dataset
    best_epoch: int
    stopped_early: bool
    changed: tuple[str, ...] = ()  # where it went on with other threads or versions than before


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
    shares: list[float]  # of the adversarial weight at each update
    perceptual: nn.Module | None = None

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
    perceptual: nn.Module | None = None,
    processes: Processes | None = None,
    loggers: Sequence[Logger] = (),
    say: Callable[[str], None] | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> Fit:
    """Train in place; the model ends with the weights of the best epoch (the averaged ones if `config.ema`).

    The best epoch is the one with the lowest validation loss at the final beta, lower by `config.min_delta` than the
    best before it (without validation, the last); with a discriminator, of those that end with its whole weight, and
    patience begins there. `folder` gets history.csv and .json after every epoch, a checkpoint
    every `config.checkpoint_minutes`, at SIGINT and SIGTERM (which then take their course) and at the end, one under
    its own name every `config.checkpoint_every` epochs, and at the end the weights of the last epoch as trained.

    resume: a checkpoint to go on from, exactly: on the same machine the result is bit for bit that of a training that
    was never interrupted. perceptual: the module that `objective.perceptual` asks for. about: what a checkpoint must
    agree with. processes: of `joined`; each trains on its own share. Raises TrainingError as soon as an epoch's loss
    is not finite, and when the GPU's memory does not suffice.
    """
    team = processes or Processes()
    n_updates = math.ceil(len(train) / config.accumulate) * config.epochs
    plan = _Plan(
        model,
        train,
        validation,
        config,
        folder,
        about or {},
        team,
        say or (lambda text: None),
        weights_over(config.objective, n_updates, model.device),
        adversarial_shares(config.objective, n_updates),
        perceptual,
    )
    model.network.to(memory_format=torch.channels_last if len(model.input_shape) == 3 else torch.contiguous_format)
    seen_shape(model, config.augment)
    state = _make_state(plan)
    step = _make_step(plan, state.critic)
    if resume:
        if found := load_state(state, resume, plan.about):
            plan.say(f"warning: it goes on with {found}; the last digits may differ from an undisturbed training's")
        if not team.is_first:
            state.totals.zero_()
    due = Due(config.checkpoint_minutes)
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        stack.enter_context(seeded(config.seed, model.device))
        stack.enter_context(deterministic(config.deterministic))
        stack.enter_context(memory_advice(config))
        check_targets(model.preprocess(next(train.epoch(0)).patterns), config.objective.likelihood)
        while state.epoch < config.epochs and not _is_out_of_patience(plan, state):
            began = time.perf_counter() - state.seconds
            for _ in _updates(plan, step, state, on_step):
                _pause(plan, state, stop, due, time.perf_counter() - began)
            row = _finish_epoch(plan, state, began)
            for logger in loggers:
                logger.log(state.epoch, row)
            if on_epoch:
                on_epoch(state.epoch - 1, row)
            _pause(plan, state, stop, due, 0.0)
    if team.is_first:
        save_weights(model, folder / "last.safetensors")
        save_state(state, folder / CHECKPOINT, plan.about, state.totals)  # what follows may fail and be done again
    model.load_state_dict(state.best_weights)
    is_early = state.epoch < config.epochs
    return Fit(history_dataset(state.rows), state.best_epoch + 1, stopped_early=is_early, changed=tuple(state.changed))


def _make_step(plan: _Plan, critic: Critic | None) -> nn.Module:
    config, device = plan.config, plan.model.device
    precision = pick_precision(config.precision, device)
    judge = critic.network if critic else None
    step = Step(plan.model, config.objective, config.augment, precision, perceptual=plan.perceptual, critic=judge)
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
        _make_critic(plan),
    )


def _make_critic(plan: _Plan) -> Critic | None:
    config, device = plan.config.objective.adversarial, plan.model.device
    if config is None:
        return None
    with seeded(plan.config.seed, device):
        precision = pick_precision(plan.config.precision, device)
        return Critic(
            config, plan.config, seen_shape(plan.model, plan.config.augment), device, precision, plan.processes
        )


def _updates(plan: _Plan, step: nn.Module, state: State, on_step: OnStep | None) -> Iterator[None]:
    """The rest of the running epoch; yields after every update."""
    config, model = plan.config, plan.model
    step.train()  # with the model and the perceptual term, which validation has set to evaluation
    epoch = plan.train.epoch(state.epoch, start=state.batch, walk=_walk(model, config))
    while parts := list(islice(epoch, config.accumulate)):
        for values in state.optimizer.param_groups:
            values["lr"] = _rate(plan, state.update)
        state.optimizer.zero_grad(set_to_none=True)
        critic = state.critic if plan.shares[state.update] > 0 else None
        for i, batch in enumerate(parts):
            seed_step(config.seed, plan.processes.rank, state.step + i)
            no_sync = getattr(step, "no_sync", None)  # of several processes; gradients meet at the last batch
            with no_sync() if no_sync and i < len(parts) - 1 else nullcontext():
                weights = plan.weights[state.update]
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
            critic.update(_rate(plan, state.update) / config.learning_rate)
        state.update += 1
        if state.average:
            state.average.update(state.update)
        yield


def _rate(plan: _Plan, update: int) -> float:
    share = rate_at(update, len(plan.weights), plan.config, per_epoch=plan.per_epoch)
    return plan.config.learning_rate * share


def _walk(model: TrainedModel, config: TrainConfig) -> Walk | None:
    objective = config.objective
    if objective.target == "auto":
        raise UsageError("objective.target is 'auto'; `vaearr.runs.settled` decides it for a Dataset.")
    return Walk(model.preprocess, objective.walk) if objective.target == "neighbour" else None


def _target(batch: Batch) -> torch.Tensor | None:
    return None if batch.target is batch.patterns else batch.target


def _pieces(batch: Batch, size: int) -> Iterator[list[Any]]:
    """Patterns, target and labels of a batch, `size` samples at a time."""
    for start in range(0, len(batch.patterns), size):
        whole = (batch.patterns, _target(batch), batch.labels)
        yield [None if part is None else part[start : start + size] for part in whole]


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
    team.agree(plan.model.network)
    row = _row(team.total(state.totals), plan.train.n_samples_total, plan.model, config)
    if config.objective.adversarial:
        row |= _of_judged(row, plan, state.epoch)
    if state.average:
        state.average.swap()
    if plan.validation is not None:
        row |= evaluate(plan.model, plan.validation, config, processes=team, perceptual=plan.perceptual)
    last = state.update - 1
    kind = "beta" if config.objective.capacity is None else "capacity"
    row |= {kind: float(plan.weights[last, 0]), "learning_rate": _rate(plan, last)}
    row["seconds"] = time.perf_counter() - began
    _check_finite(row, state, plan.folder)
    score = row.get("val_loss", math.inf)
    if _is_judged_fully(plan, state.epoch) and not _is_judged_fully(plan, state.epoch - 1):
        state.best = math.inf  # epochs before it are no candidates
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
        write_history(state.rows, plan.folder)
        if config.checkpoint_every and state.epoch % config.checkpoint_every == 0:
            save_state(state, plan.folder / KEPT.replace("*", f"{state.epoch:04d}"), plan.about, state.totals)
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


def _is_judged_fully(plan: _Plan, epoch: int) -> bool:
    """Whether an epoch ends with the adversarial term at its final weight; always so where there is none."""
    return epoch >= 0 and plan.shares[(epoch + 1) * plan.per_epoch - 1] == plan.shares[-1]


def _is_out_of_patience(plan: _Plan, state: State) -> bool:
    waited = state.epoch - 1 - state.best_epoch
    return waited >= plan.config.patience and _is_judged_fully(plan, state.epoch - 1)


def _of_judged(row: History, plan: _Plan, epoch: int) -> History:
    """Terms of the discriminator as means over the updates of an epoch that had one; NaN where none had."""
    shares = plan.shares[epoch * plan.per_epoch : (epoch + 1) * plan.per_epoch]
    part = sum(share > 0 for share in shares) / len(shares)
    return {name: row[name] / part if part else math.nan for name in ("adversarial", "critic")}


def _check_finite(row: History, state: State, folder: Path) -> None:
    if all(math.isfinite(value) for name, value in row.items() if not name.endswith(MAY_BE_NAN)):
        return
    (folder / CHECKPOINT).unlink(missing_ok=True)  # going on from there would end here again
    earlier = sorted(folder.glob(KEPT))
    kept = f"the best epoch was {state.best_epoch + 1}" if state.best_epoch >= 0 else "it was the first epoch"
    raise TrainingError(
        f"the loss is not finite in epoch {state.epoch + 1} (loss {row['loss']:g}; {kept}). Lower learning_rate, use "
        "precision='float32' or check the patterns for extreme values."
        + (f" The last checkpoint before is {earlier[-1]}." if earlier else "")
    )
