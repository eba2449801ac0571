"""The training loop, `fit`, over one object, `Training`."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from vaearr.batching import Batch
from vaearr.computing.signals import handled_by
from vaearr.errors import TrainingError
from vaearr.models.quality import ACTIVE_VARIANCE
from vaearr.models.tensors import write_tensors
from vaearr.training.checkpoint import (
    CHECKPOINT,
    REMEDY,
    kept_checkpoint,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from vaearr.training.objective import ADVERSARIAL, DISCRIMINATOR, KL
from vaearr.training.records import write_history, write_sheet
from vaearr.training.state import Row, Training
from vaearr.training.step import Sums, seed_step, seeded

log = logging.getLogger("vaearr")

AGREE_EVERY = 16  # updates after which several processes ask each other whether to stop or to save
MAX_VALIDATED = 2048  # samples by which an epoch is evaluated
MAX_UNVALIDATED = 256  # training samples by which latents are measured without validation

OnEpoch = Callable[[int, Row], object]
OnStep = Callable[[int, int], None]


def fit(
    state: Training,
    *,
    resume: Path | None = None,
    on_epochs: Sequence[OnEpoch] = (),
    on_step: OnStep | None = None,
) -> None:
    """Train in place; the model ends with the weights of the best epoch.

    The best epoch has the lowest validation loss, computed at the final weights of the terms. Each
    new best must be lower by `config.min_delta`. Without validation the last epoch is the best.
    With a discriminator only epochs that end with its full weight count, and patience begins with
    them.

    `folder` gets history.csv and .json after every epoch, a checkpoint every
    `config.checkpoint_minutes`, at SIGINT and SIGTERM and at the end, one that is kept every
    `config.checkpoint_every` epochs, and at the end the weights of the last epoch. Of several
    processes each trains on its share of the samples.

    Parameters
    ----------
    state : Training
        What is trained.
    resume : Path, optional
        A checkpoint to continue from: on the same machine the result is bit for bit that of an
        uninterrupted training.
    on_epochs : sequence of callable
        Called with (number of the epoch from 1, row of the history) after every epoch.
    on_step : callable, optional
        Called with (epoch, step) after every update: the running epoch from 0, and the number of
        updates since the start of the training.

    Raises
    ------
    TrainingError
        If the loss of an epoch is not finite, or the memory of the GPU does not suffice.
    """
    config = state.config
    if resume is not None:
        load_checkpoint(state, resume)
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(config.deterministic or was_deterministic)
    try:
        with collected_signals() as signals, seeded(config.seed, state.model.device):
            _run_epochs(state, signals, on_epochs, on_step)
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ")[0]
        raise TrainingError(
            f"batch_size {config.batch_size} needs more memory than the GPU has ({reason}); halve "
            "it."
        ) from None
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
    state.model.load_state_dict(state.best_weights)


@contextmanager
def collected_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list until the block ends, then raise the last one again.

    A second signal ends the block at once.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise SystemExit(128 + number)

    try:
        with handled_by(note):
            yield received
    finally:
        if received:
            signal.raise_signal(received[-1])


def _run_epochs(
    state: Training, signals: list[int], on_epochs: Sequence[OnEpoch], on_step: OnStep | None
) -> None:
    loss_step = state.team.parallel(state.loss_step)
    parallel_discriminator = None
    if state.discriminator_loss is not None:
        parallel_discriminator = state.team.parallel(state.discriminator_loss)
    stream = _stream(state)
    while not state.is_over:
        # when the epoch would have begun without an interruption
        began = time.perf_counter() - state.seconds
        loss_step.train()  # with its model and perceptual term, after validation in eval mode
        while state.batch < state.epoch_batches:
            _update(state, next(stream), loss_step, parallel_discriminator)
            if on_step is not None:
                on_step(state.epoch, state.n_updates_done)
            _save_or_stop(state, signals, time.perf_counter() - began)
        row = _finish_epoch(state, began)
        for on_epoch in on_epochs:
            on_epoch(state.epoch, row)
        _save_or_stop(state, signals, 0.0)
    if state.team.is_first:
        write_tensors(state.folder / "last.safetensors", state.model.state_dict())
        save_checkpoint(state, state.folder / CHECKPOINT, {})  # what follows may fail


def _stream(state: Training) -> Iterator[Batch]:
    """Batches from where the training stands, pass after pass over the samples, without an end.

    An epoch that is shorter than a pass begins where the previous one ended.
    """
    first_pass, start = divmod(state.n_updates_done, len(state.train))
    for number in count(first_pass):
        yield from state.train.epoch(number, start=start, walk=state.walk)
        start = 0


def _update(
    state: Training, batch: Batch, loss_step: nn.Module, parallel_discriminator: nn.Module | None
) -> None:
    """One update of the model, and of the discriminator once it is in use.

    loss_step, parallel_discriminator: those of `state`, over all processes.
    """
    number = state.n_updates_done
    term_weights = state.term_weights[number]
    discriminator = None
    if state.discriminator_loss is not None and state.adversarial_shares[number] > 0:
        discriminator = state.discriminator_loss.network
    seed_step(state.config.seed, state.team.rank, number)
    output = loss_step(batch.patterns, batch.target, batch.labels, term_weights, discriminator)
    state.scaler.scale(output.loss).backward()
    _add(state.sums, output.sums)
    if parallel_discriminator is not None and discriminator is not None:
        loss = parallel_discriminator(
            output.prediction.target, output.prediction.decoded_values.detach()
        )
        state.scaler.scale(loss).backward()
        n_samples = loss.new_full((), len(batch.patterns))
        pair = torch.stack([loss.detach() * n_samples, n_samples])
        _add(state.sums, {DISCRIMINATOR: pair})
        _take_step(state, state.optimizers[f"{DISCRIMINATOR}_optimizer"])
    _take_step(state, state.optimizers["optimizer"])
    state.scaler.update()
    state.batch += 1


def _add(sums: Sums, more: Sums) -> None:
    for name, pair in more.items():
        sums[name] = sums[name] + pair if name in sums else pair


def _take_step(state: Training, optimizer: torch.optim.Optimizer) -> None:
    """Update the parameters of an optimizer; in float16 an update with infinite gradients is
    skipped.
    """
    rate_share = float(state.rate_shares[state.n_updates_done])
    parameters = []
    for group in optimizer.param_groups:
        group["lr"] = optimizer.defaults["lr"] * rate_share  # defaults: the highest rate
        parameters += group["params"]
    state.scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(parameters, state.config.clip)
    state.scaler.step(optimizer)
    optimizer.zero_grad(set_to_none=True)


def _save_or_stop(state: Training, signals: list[int], seconds: float) -> None:
    """Between updates, save if it is time and end after a signal; processes decide together.

    seconds: spent in the running epoch.
    """
    must_end = bool(signals)
    must_save = time.monotonic() > state.next_save
    if state.team.size > 1:
        # they exchange votes every few updates, and after each epoch
        if state.n_updates_done % AGREE_EVERY and state.batch:
            return
        votes = torch.tensor([must_end, must_save], dtype=torch.float32, device=state.model.device)
        must_end, must_save = (state.team.total(votes) > 0).tolist()
    if not (must_end or must_save):
        return
    sums = state.team.totals(state.sums)
    if state.team.is_first:
        save_checkpoint(state, state.folder / CHECKPOINT, sums, seconds)
    state.next_save = time.monotonic() + 60 * state.config.checkpoint_minutes
    if must_end:
        log.info(f"saved after {state.progress}; run the same command again to resume")
        if not signals:  # the signal went to another process
            signals.append(int(signal.SIGTERM))
        raise SystemExit(128 + signals[-1])  # `collected_signals` raises the signal


def _finish_epoch(state: Training, began: float) -> Row:
    """Complete an epoch: history, validation, best weights, checkpoints."""
    config = state.config
    state.team.copy_buffers(state.model.network)
    row = _means(state.team.totals(state.sums))
    if config.objective.adversarial is not None:
        row.setdefault(ADVERSARIAL, math.nan)
        row.setdefault(DISCRIMINATOR, math.nan)
    row |= evaluate(state)
    last_update = state.n_updates_done - 1
    names = [term.name for term in state.loss_step.terms]
    row["beta"] = float(state.term_weights[last_update, names.index(KL)])
    row["learning_rate"] = config.learning_rate * float(state.rate_shares[last_update])
    row["seconds"] = time.perf_counter() - began
    _check_finite(state, row)
    _keep_if_best(state, row)
    state.rows.append(row)
    state.epoch += 1
    state.batch = 0
    state.seconds = 0.0
    state.sums = {}
    if state.team.is_first:
        write_history(state)
        if config.sheets_every and state.epoch % config.sheets_every == 0:
            write_sheet(state)
        if config.checkpoint_every and state.epoch % config.checkpoint_every == 0:
            save_checkpoint(state, state.folder / kept_checkpoint(state.epoch), {})
    return row


def _check_finite(state: Training, row: Row) -> None:
    """Raise TrainingError if the losses of an epoch are not finite; its checkpoint is removed."""
    if math.isfinite(row["loss"] + row.get("val_loss", 0.0)):
        return
    (state.folder / CHECKPOINT).unlink(missing_ok=True)  # resuming it would end here again
    earlier = newest_checkpoint(state.folder)
    hint = ""
    if earlier is not None:
        hint = f"; the last checkpoint before is {earlier}"
    raise TrainingError(
        f"the loss is not finite in epoch {state.epoch + 1} (loss {row['loss']:g}{hint}). "
        f"{REMEDY} or check the patterns for extreme values."
    )


def _keep_if_best(state: Training, row: Row) -> None:
    """Keep the weights if the epoch is the best so far; without validation the last one is."""
    score = row.get("val_loss", math.inf)
    if state.has_full_adversarial(state.epoch) and not state.has_full_adversarial(state.epoch - 1):
        state.best = math.inf  # epochs before it are no candidates
    if state.validation is None or score < state.best - state.config.min_delta:
        state.best = score
        state.best_epoch = state.epoch
        weights = state.model.state_dict()
        for name, value in weights.items():
            state.best_weights[name] = value.to("cpu", copy=True)


@torch.inference_mode()
def evaluate(state: Training) -> Row:
    """Evaluate the terms of the loss on the validation samples, and the latents, after an epoch.

    The posterior mean is decoded, and the terms have their final weights. The adversarial term is
    left out, because its values cannot be compared between epochs. Without validation only the
    latents are measured, on a few training samples. The model and the random state do not change.
    """
    model = state.model
    loss_step = state.loss_step.eval()
    term_weights = torch.tensor([term.weight for term in loss_step.terms], device=model.device)
    sums: Sums = {}
    latents = torch.zeros(3, *model.latent_shape, dtype=torch.float64)
    n_samples = 0
    for batch in _evaluation_batches(state):
        output = loss_step.forward(batch.patterns, batch.target, batch.labels, term_weights)
        kl = output.prediction.kl
        mean = output.prediction.mean
        _add(sums, output.sums)
        moments = torch.stack([kl, mean, mean.square()])
        latents += moments.cpu().double().sum(1)
        n_samples += len(mean)
    row = _latent_columns(state, latents, n_samples)
    if state.validation is not None:
        means = _means(state.team.totals(sums))
        row |= {f"val_{name}": value for name, value in means.items()}
    return row


def _evaluation_batches(state: Training) -> Iterator[Batch]:
    batches = state.train.epoch(0)
    max_samples = MAX_UNVALIDATED
    if state.validation is not None:
        batches = state.validation.epoch(0, walk=state.walk)
        max_samples = MAX_VALIDATED
    n_batches = math.ceil(max_samples / (state.config.batch_size * state.team.size))
    return islice(batches, n_batches)


def _latent_columns(state: Training, sums: torch.Tensor, n_samples: int) -> Row:
    """KL divergence of each latent dimension and number of active ones.

    sums: of the KL divergence, the posterior mean and its square over samples, `(3, L, …)`.
    """
    totals = torch.cat([sums.flatten(), sums.new_tensor([n_samples])])
    if state.team.size > 1:
        totals = state.team.total(totals.to(state.model.device)).cpu()
    means = (totals[:-1] / totals[-1]).numpy()
    kl, mean, square = means.reshape(3, len(sums[0]), -1)
    variance = (square - mean**2).mean(1)
    return {
        "latent_kl": kl.sum(1).tolist(),
        "active_units": int((variance > ACTIVE_VARIANCE).sum()),
    }


def _means(sums: Mapping[str, Sequence[float]]) -> Row:
    """Means of the terms, the loss first, from their sums over samples and the number of these."""
    means = {}
    for name, (total, n_samples) in sums.items():
        means[name] = total / n_samples if n_samples else math.nan
    return {"loss": means.pop("loss"), **means}
