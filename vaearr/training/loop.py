"""The training loop, `fit`, over one object, `Training`; `train_model` creates it and measures what
it learned.
"""

from __future__ import annotations

import logging
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr import schema
from vaearr.batching import Batch, PatternBatches, Walk, batches
from vaearr.batching.blocks import in_chunks
from vaearr.config import PerceptualConfig, TrainConfig
from vaearr.errors import TrainingError, UsageError, VaearrError
from vaearr.models import for_training, is_fitted
from vaearr.models.artifacts import TrainedModel, load_folder, save_model
from vaearr.models.foreign import in_words, load_foreign
from vaearr.models.losses import check_targets, takes_logits
from vaearr.models.perceptual import PerceptualLoss
from vaearr.models.preprocess import seen_patterns
from vaearr.models.quality import ACTIVE_VARIANCE, MIN_SAMPLES, latent_health
from vaearr.models.tensors import check_fit, write_tensors
from vaearr.recipe import now, versions
from vaearr.schema import grid
from vaearr.training.checkpoint import (
    CHECKPOINT,
    KEPT,
    REMEDY,
    History,
    Training,
    check_checkpoint,
    newest_checkpoint,
)
from vaearr.training.fitting import fit_model
from vaearr.training.objective import KL
from vaearr.training.processes import ALONE, Processes
from vaearr.training.records import (
    history_dataset,
    read_sheets,
    tensorboard,
    write_history,
    write_sheet,
)
from vaearr.training.step import Sums, seed_step, seeded

log = logging.getLogger("vaearr")

# range of preprocessed values, which image networks take as -1 to 1
RANGES = {
    "unit": (0.0, 1.0),
    "minmax": (0.0, 1.0),
    "quantile": (0.0, 1.0),
    "symmetric": (-1.0, 1.0),
}
OTHER_RANGE = (-3.0, 3.0)  # deviations, within which most values lie
OF_CRITIC = ("adversarial", "critic")  # of the updates with a discriminator
# columns of an epoch without labels, or without a discriminator
MAY_BE_NAN = ("label_nll", "label_accuracy", *OF_CRITIC)
AGREE_EVERY = 16  # updates after which several processes ask each other whether to stop or to save
# of a scan: neighbours are similar, so fewer passes teach as much
MIN_EPOCH_SAMPLES = 1408
MAX_EPOCH_SAMPLES = 8192
MAX_VALIDATED = 2048  # samples by which an epoch is evaluated
MAX_MEASURED = 256  # training samples by which latents are measured without validation

OnEpoch = Callable[[int, History], object]
OnStep = Callable[[int, int], None]


def train_model(
    ds: xr.Dataset,
    split: xr.DataArray,
    settings: TrainConfig,
    folder: Path,
    *,
    device: torch.device,
    team: Processes,
    data: Mapping[str, Any],
    init: Path | None = None,
    perceptual_from: Path | None = None,
    resume: Path | None = None,
    restart: bool = False,
    trust: tuple[str, ...] = (),
    logs: tuple[Path, str],
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:
    """Train a model into `folder`, or fit it (see `fit_model`), and measure its latents.

    Parameters
    ----------
    ds : xarray.Dataset
        Patterns, and the maps that the settings name.
    split : xarray.DataArray
        Part of each sample, over the navigation dims.
    settings : TrainConfig
        Settings, with everything decided that depends on the data.
    folder : Path
        Gets config.json, weights, history and, during the training, checkpoints.
    device : torch.device
        Device of this process.
    team : Processes
        The processes that train together.
    data : mapping
        Fingerprints of the patterns, and of the maps that choose among them.
    init : Path, optional
        Model folder, or third-party checkpoint file, whose weights to start from.
    perceptual_from : Path, optional
        Model folder whose encoder the perceptual term uses.
    resume : Path, optional
        Checkpoint to resume. Default: what an interruption left in the folder.
    restart : bool
        Discard what an interruption left.
    trust : tuple of str
        Networks of the user's packages that model folders may name.
    logs : tuple of (Path, str)
        Folder and name for loggers.
    on_step, on_epoch : callable, optional
        Called with (epoch, step) after every update, with (epoch, row of the history) after every
        epoch.

    Returns
    -------
    tuple of (dict, dict)
        Tables of the run (history, health, and sheets if requested), and its manifest.
    """
    if is_fitted(settings.model.name, trust):
        return team.first_does(fit_model, ds, split, settings, folder, device, data, trust)
    labels, classes = _class_map(ds, settings.objective.label)
    balance, _ = _class_map(ds, settings.balance)
    parts = Parts(_with_network_pixels(ds, settings), split, settings, device)
    train = parts.batches(n.TRAIN, team, labels=labels, balance=balance)
    validation = None
    if parts.n_samples(n.VALIDATION) >= team.size:
        validation = parts.batches(n.VALIDATION, team, labels=labels)
    recipe = {
        "settings": {
            key: value
            for key, value in settings.to_attrs().items()
            if key not in TrainConfig.passing
        },
        "data": dict(data),
        "processes": team.size,
        "streamed": train.tier == "streamed",
    }
    checkpoint = team.first_does(_checkpoint_to_resume, folder, recipe, resume, restart)
    folder.mkdir(parents=True, exist_ok=True)
    model = _fresh_model(ds, settings, classes, device)
    if checkpoint is None:
        if init is not None:
            _start_from(model, init, trust)
        if settings.preprocess.static_background != "none":
            every_sample_once = train if balance is None else parts.batches(n.TRAIN, team)
            model.preprocess.fit(every_sample_once, team.total)
    perceptual = None
    if settings.objective.perceptual:
        perceptual = _perceptual(model, settings.objective.perceptual, perceptual_from, trust)
    state = Training(
        model,
        train,
        validation,
        settings,
        folder,
        team,
        recipe,
        perceptual,
        _epoch_samples(ds, settings, train.n_samples_total),
    )
    _log_start(state, ds, parts.n_samples(n.VALIDATION), checkpoint)
    _fit_or_clear(state, checkpoint, logs, on_step, on_epoch)
    tables = {
        n.HISTORY: history_dataset(state),
        n.HEALTH: latent_health(model, _samples_of_health(state, parts)),
    }
    manifest = _manifest(state, dict(data["patterns"]), parts.n_samples(n.VALIDATION))
    if team.is_first:
        manifest["weights_sha256"] = save_model(model, folder, manifest)["weights_sha256"]
    return tables | read_sheets(folder, schema.signal_dims(ds)), manifest


def _class_map(ds: xr.Dataset, name: str | None) -> tuple[Any, tuple[int, ...]]:
    """A map of classes as positions among its classes, and these; None and no classes without a
    name.
    """
    if not name:
        return None, ()
    return grid.class_map(ds, name)


def _with_network_pixels(ds: xr.Dataset, settings: TrainConfig) -> xr.Dataset:
    patterns = in_chunks(ds[n.PATTERNS], schema.navigation_dims(ds))
    patterns = seen_patterns(patterns, settings.preprocess)
    return ds.drop_dims(schema.signal_dims(ds)).assign({n.PATTERNS: patterns})


def _fresh_model(
    ds: xr.Dataset, settings: TrainConfig, classes: tuple[int, ...], device: torch.device
) -> TrainedModel:
    """An untrained model for the samples of a Dataset."""
    network = for_training(
        settings.model,
        likelihood=settings.objective.likelihood,
        normalise=settings.preprocess.normalise,
        target=settings.objective.target,
    )
    with seeded(settings.seed, device):
        model = TrainedModel(
            model=network,
            preprocess=settings.preprocess,
            input_shape=schema.input_shape(ds),
            signal_dims=schema.signal_dims(ds),
            input_dtype=str(ds[n.PATTERNS].dtype),
            label=settings.objective.label,
            classes=classes,
            trust=[settings.model.name],
        )
        return model.to(device)


@dataclass(frozen=True)
class Parts:
    """The parts of a split as batches, each with its share of the memory that patterns may take."""

    ds: xr.Dataset
    split: xr.DataArray
    settings: TrainConfig
    device: torch.device

    def n_samples(self, part: int) -> int:
        """Return the number of samples of a part."""
        return int((self.split == part).sum())

    def batches(self, part: int, team: Processes, **class_maps: Any) -> PatternBatches:
        """Return batches of a process. class_maps: `labels` and `balance` of `va.batches`."""
        n_samples = self.n_samples(part)
        share = float(n_samples / (self.split != n.OUTSIDE).sum())
        # only a part of many validation samples is used, which stands for all of them
        is_shuffled = part == n.TRAIN or n_samples > MAX_VALIDATED
        return batches(
            self.ds,
            split=self.split,
            part=part,
            batch_size=self.settings.batch_size,
            memory=self.settings.memory * share,
            device_memory=self.settings.device_memory * share,
            device=self.device,
            shuffle=is_shuffled,
            rank=team.rank,
            world_size=team.size,
            seed=self.settings.seed,
            **class_maps,
        )


def _epoch_samples(ds: xr.Dataset, settings: TrainConfig, n_samples: int) -> int:
    """Samples of an epoch: as set, else all (0) of a collection, half of a scan within limits."""
    if settings.epoch_samples is not None:
        return settings.epoch_samples
    if not schema.is_scan(ds):
        return 0
    return min(max(n_samples // 2, MIN_EPOCH_SAMPLES), MAX_EPOCH_SAMPLES)


def _log_start(state: Training, ds: xr.Dataset, n_validation: int, checkpoint: Path | None) -> None:
    samples = f"{state.train.n_samples_total} {schema.samples_word(ds)}"
    precision = str(state.loss_step.precision).removeprefix("torch.")
    processes = ""
    if state.team.size > 1:
        processes = f", {state.team.size} processes"
    n_weights = _n_weights(state.model)
    log.info(
        f"training {state.config.model.name} ({n_weights / 1e6:.2f} M weights) on {samples}, "
        f"{n_validation} for validation, {state.train.describe()}, on {state.model.device} "
        f"in {precision}{processes}"
    )
    if checkpoint:
        log.info(f"resuming {checkpoint.name}")


def _n_weights(model: TrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())


def _fit_or_clear(
    state: Training,
    checkpoint: Path | None,
    logs: tuple[Path, str],
    on_step: OnStep | None,
    on_epoch: OnEpoch | None,
) -> None:
    """Run `fit`; if it ends early without a checkpoint, remove the folder."""
    callbacks: list[OnEpoch] = []
    if on_epoch is not None:
        callbacks.append(on_epoch)
    try:
        with ExitStack() as stack:
            if state.config.log and state.team.is_first:
                callbacks.append(stack.enter_context(tensorboard(*logs, state.config)))
            fit(state, resume=checkpoint, on_step=on_step, on_epochs=callbacks)
    except BaseException:
        if state.team.is_first and newest_checkpoint(state.folder) is None:
            shutil.rmtree(state.folder, ignore_errors=True)
        raise


def _samples_of_health(state: Training, parts: Parts) -> PatternBatches:
    """Each validation sample once, or each training sample where they are too few, to measure the
    latents by.
    """
    part = n.TRAIN
    batches_of_part = state.train
    if state.validation is not None and parts.n_samples(n.VALIDATION) >= MIN_SAMPLES:
        part = n.VALIDATION
        batches_of_part = state.validation
    if state.team.size > 1 or state.config.balance:
        return parts.batches(part, ALONE)
    return batches_of_part


def _manifest(state: Training, patterns: dict[str, Any], n_validation: int) -> dict[str, Any]:
    return {
        "state": "trained",
        "config": state.config.to_attrs(),
        "data": patterns,
        "n_train": state.train.n_samples_total,
        "n_validation": n_validation,
        "n_weights": _n_weights(state.model),
        "best_epoch": state.best_epoch + 1,  # counted from 1, as in the history
        "epochs_run": state.epoch,
        "stopped_early": state.epoch < state.config.epochs,
        "processes": state.team.size,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "time": now(),
    }


def _checkpoint_to_resume(
    folder: Path, recipe: Mapping[str, Any], resume: Path | None, restart: bool
) -> Path | None:
    """The checkpoint to resume, if any: the given one, or what an interruption left in the folder.

    All else that an earlier training left in the folder is removed. Raises UsageError or DataError
    if the checkpoint does not fit this training, or if another one is in the way.
    """
    left_over = newest_checkpoint(folder)
    if restart:
        left_over = None
    ways_out = "discard it with restart=True (--restart), or choose another run name."
    if resume is not None:
        check_checkpoint(resume, recipe)
        if left_over is not None and not resume.is_relative_to(folder):
            raise UsageError(
                f"an interrupted training of this run is at {left_over}; leave --resume out, "
                f"{ways_out}"
            )
    elif left_over is not None:
        try:
            check_checkpoint(left_over, recipe)
        except VaearrError as error:
            raise type(error)(
                f"an interrupted training of this run is in the way: {error} Or {ways_out}"
            ) from None
    checkpoint = resume or left_over
    if checkpoint is None or not checkpoint.is_relative_to(folder):
        shutil.rmtree(folder, ignore_errors=True)
    for unfinished in folder.glob(".*"):  # of a write that was killed
        unfinished.unlink()
    return checkpoint


def _start_from(model: TrainedModel, source: Path, trust: tuple[str, ...]) -> None:
    """Load the weights of a trained network; the background is that of the model's own data."""
    if source.is_file():
        log.info(in_words(load_foreign(model.network, source)))
        return
    other = load_folder(source, trust=trust)
    weights = other.network.state_dict()
    check_fit(model.network.state_dict(), weights, f"the weights in {source} do not fit")
    model.network.load_state_dict(weights)
    has_same_head = (other.label, other.classes) == (model.label, model.classes)
    if model.classifier is not None and other.classifier is not None and has_same_head:
        model.classifier.load_state_dict(other.classifier.state_dict())


def _perceptual(
    model: TrainedModel, config: PerceptualConfig, folder: Path | None, trust: tuple[str, ...]
) -> PerceptualLoss:
    """The module that the settings ask for, on the model's device.

    folder: of the trained model whose encoder is used. Raises UsageError for one of other samples,
    and what `PerceptualLoss` raises.
    """
    network = None
    if folder is not None:
        other = load_folder(folder, trust=trust)
        has_same_channels = other.input_shape[0] == model.input_shape[0]
        if not has_same_channels or len(other.input_shape) != len(model.input_shape):
            raise UsageError(
                f"objective.perceptual: the model in {folder} was trained on samples "
                f"{other.input_shape}, these are {model.input_shape}; choose a run on such samples."
            )
        network = other.network
    value_range = RANGES.get(model.preprocess_config.normalise, OTHER_RANGE)
    return PerceptualLoss(config, value_range, network).to(model.device)


def fit(
    state: Training,
    *,
    resume: Path | None = None,
    on_epochs: Sequence[OnEpoch] = (),
    on_step: OnStep | None = None,
) -> None:
    """Train in place; the model ends with the weights of the best epoch.

    The best epoch is the one with the lowest validation loss at the final weights, lower by
    `config.min_delta` than the best before it (without validation, the last); with a discriminator,
    of those that end with its full weight, and patience begins there. `folder` gets history.csv
    and .json after every epoch, a checkpoint every `config.checkpoint_minutes`, at SIGINT and
    SIGTERM and at the end, one under its own name every `config.checkpoint_every` epochs, and at
    the end the weights of the last epoch.

    resume: a checkpoint to continue from: on the same machine the result is bit for bit that of an
    uninterrupted training. Of several processes (`state.team`) each trains on its own share. Raises
    TrainingError as soon as an epoch's loss is not finite, and when the GPU's memory does not
    suffice.
    """
    config = state.config
    team = state.team
    step = team.parallel(state.loss_step, state.model.device)
    critic = None
    if state.critic:
        critic = team.parallel(state.critic, state.model.device)
    if resume:
        state.load(resume)
    if not team.is_first:
        # a checkpoint holds the sums over all processes; the first one carries them on
        state.sums = {name: torch.zeros_like(pair) for name, pair in state.sums.items()}
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    with signals_wait() as received, seeded(config.seed, state.model.device):
        try:
            torch.use_deterministic_algorithms(config.deterministic or was_deterministic)
            if takes_logits(config.objective.likelihood):
                first = next(state.train.epoch(0)).patterns
                check_targets(state.model.preprocess(first), config.objective.likelihood)
            stream = _stream(state)
            while not state.is_over:
                began = time.perf_counter() - state.seconds
                for _ in _updates(state, stream, step, critic, on_step):
                    _pause(state, received, time.perf_counter() - began)
                row = _finish_epoch(state, began)
                for on_epoch in on_epochs:
                    on_epoch(state.epoch - 1, row)
                _pause(state, received, 0.0)
        except torch.OutOfMemoryError as error:
            reason = str(error).split(". ")[0]
            raise TrainingError(
                f"batch_size {config.batch_size} needs more memory than the GPU has ({reason}); "
                "halve it."
            ) from None
        finally:
            torch.use_deterministic_algorithms(was_deterministic)
        if team.is_first:
            write_tensors(state.folder / "last.safetensors", state.model.state_dict())
            state.save(state.folder / CHECKPOINT, {})  # what follows may fail and be done again
    state.model.load_state_dict(state.best_weights)


@contextmanager
def signals_wait() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list until the block ends, then raise the last one again.

    A second signal ends the block at once.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise SystemExit(128 + number)

    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                handlers[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[-1])


def _stream(state: Training) -> Iterator[Batch]:
    """Batches from where the training stands, pass after pass over the samples, without an end."""
    first_pass, start = divmod(state.n_batches, len(state.train))
    for number in count(first_pass):
        yield from state.train.epoch(number, start=start, walk=_walk(state))
        start = 0


def _updates(
    state: Training,
    stream: Iterator[Batch],
    step: nn.Module,
    critic: nn.Module | None,
    on_step: OnStep | None,
) -> Iterator[None]:
    """The rest of the running epoch; yields after every update."""
    step.train()  # with the model and the perceptual term, which validation has set to evaluation
    while state.batch < state.epoch_batches:
        batch = next(stream)
        learning_rate = float(state.learning_rates[state.n_batches])
        discriminator = None
        if state.critic and state.critic_shares[state.n_batches] > 0:
            discriminator = state.critic.network
        seed_step(state.config.seed, state.team.rank, state.n_batches)
        weights = state.weights[state.n_batches]
        output = step(batch.patterns, batch.target, batch.labels, weights, discriminator)
        state.scaler.scale(output.loss).backward()
        _add(state.sums, output.sums)
        if critic is not None and discriminator is not None:
            loss = critic(output.target, output.decoded.detach())
            state.scaler.scale(loss).backward()
            n_samples = loss.new_full((), len(batch.patterns))
            _add(state.sums, {"critic": torch.stack([loss.detach() * n_samples, n_samples])})
            share = learning_rate / state.config.learning_rate
            _take_step(state, "critic_optimizer", state.critic_rate * share)
        _take_step(state, "optimizer", learning_rate)
        state.scaler.update()
        state.batch += 1
        if on_step:
            on_step(state.epoch, state.n_batches)
        yield


def _add(sums: Sums, more: Sums) -> None:
    for name, pair in more.items():
        sums[name] = sums[name] + pair if name in sums else pair


def _take_step(state: Training, name: str, learning_rate: float) -> None:
    """Update the parameters of an optimizer; in float16 an update with infinite gradients is
    skipped.
    """
    optimizer = state.optimizers[name]
    parameters = []
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        parameters += group["params"]
    state.scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(parameters, state.config.clip)
    state.scaler.step(optimizer)
    optimizer.zero_grad(set_to_none=True)


def _walk(state: Training) -> Walk | None:
    objective = state.config.objective
    if objective.target != "neighbour":
        return None
    return Walk(state.model.preprocess, objective.walk)


def _pause(state: Training, received: list[int], seconds: float) -> None:
    """Between updates: save if it is time, end after a signal; processes decide together."""
    must_end = bool(received)
    must_save = time.monotonic() > state.due
    if state.team.size > 1:
        if state.n_batches % AGREE_EVERY and state.batch:
            return
        votes = torch.tensor([must_end, must_save], dtype=torch.float32, device=state.model.device)
        must_end, must_save = (state.team.total(votes) > 0).tolist()
    if not (must_end or must_save):
        return
    state.seconds = seconds
    sums = state.summed()
    if state.team.is_first:
        state.save(state.folder / CHECKPOINT, sums)
        state.due = time.monotonic() + 60 * state.config.checkpoint_minutes
    state.seconds = 0.0
    if must_end:
        log.info(f"saved after {state.progress}; run the same command again to resume")
        if not received:  # the signal went to another process
            received.append(int(signal.SIGTERM))
        raise SystemExit(128 + received[-1])


def _finish_epoch(state: Training, began: float) -> History:
    """Complete an epoch: history, validation, best weights, checkpoints."""
    config = state.config
    state.team.agree(state.model.network)
    row = _means(state.summed())
    if config.objective.adversarial:
        for name in OF_CRITIC:
            row.setdefault(name, math.nan)
    row |= evaluate(state)
    last_update = state.n_batches - 1
    names = [term.name for term in state.loss_step.terms]
    row["beta"] = float(state.weights[last_update, names.index(KL)])
    row["learning_rate"] = float(state.learning_rates[last_update])
    row["seconds"] = time.perf_counter() - began
    _check_finite(state, row)
    _keep_if_best(state, row)
    if state.team.is_first and config.sheets_every and (state.epoch + 1) % config.sheets_every == 0:
        write_sheet(state)
    state.rows.append(row)
    state.epoch += 1
    state.batch = 0
    state.seconds = 0.0
    state.sums = {}
    if state.team.is_first:
        write_history(state)
        if config.checkpoint_every and state.epoch % config.checkpoint_every == 0:
            state.save(state.folder / KEPT.replace("*", f"{state.epoch:04d}"), {})
    return row


def _check_finite(state: Training, row: History) -> None:
    """Raise TrainingError if the losses of an epoch are not finite; its checkpoint is removed."""
    checked = [np.ravel(value) for name, value in row.items() if not name.endswith(MAY_BE_NAN)]
    if np.isfinite(np.concatenate(checked)).all():
        return
    (state.folder / CHECKPOINT).unlink(missing_ok=True)  # resuming it would end here again
    earlier = newest_checkpoint(state.folder)
    hint = ""
    if earlier:
        hint = f"; the last checkpoint before is {earlier}"
    raise TrainingError(
        f"the loss is not finite in epoch {state.epoch + 1} (loss {row['loss']:g}{hint}). "
        f"{REMEDY} or check the patterns for extreme values."
    )


def _keep_if_best(state: Training, row: History) -> None:
    """Keep the weights if the epoch is the best so far; without validation the last one is."""
    score = row.get("val_loss", math.inf)
    if state.has_full_critic(state.epoch) and not state.has_full_critic(state.epoch - 1):
        state.best = math.inf  # epochs before it are no candidates
    if state.validation is None or score < state.best - state.config.min_delta:
        state.best = score
        state.best_epoch = state.epoch
        weights = state.model.state_dict()
        state.best_weights = {name: value.to("cpu", copy=True) for name, value in weights.items()}


@torch.inference_mode()
def evaluate(state: Training) -> History:
    """Evaluate the model after an epoch: validation terms, posterior mean decoded, at the final
    weights, and the latents.

    The adversarial term is left out, which compares nothing from one epoch to the next. Without
    validation only the latents are measured, on a few training samples. Weights and random state
    stay as they are.
    """
    model = state.model
    step = state.loss_step.eval()
    weights = torch.tensor([term.weight for term in step.terms], device=model.device)
    sums: Sums = {}
    latents = np.zeros((3, *model.latent_shape))  # sums of the KL divergence, the mean, its square
    n_samples = 0
    for batch in _evaluation_batches(state):
        size = len(batch.patterns)
        n_samples += size
        if state.config.augment.crop is not None:
            # samples from which windows are cut in training may be too large for a batch
            size = model.fitting(size)
        for start in range(0, len(batch.patterns), size):
            piece = slice(start, start + size)
            target = None if batch.target is None else batch.target[piece]
            labels = None if batch.labels is None else batch.labels[piece]
            output = step.forward(batch.patterns[piece], target, labels, weights)
            _add(sums, output.sums)
            for i, values in enumerate((output.kl, output.mean, output.mean.float().square())):
                latents[i] += values.cpu().double().sum(0).numpy()
    row = _latent_columns(state, latents, n_samples)
    if state.validation is not None:
        totals = state.team.total(torch.stack(list(sums.values())))
        means = _means(dict(zip(sums, totals.tolist(), strict=True)))
        row |= {f"val_{name}": value for name, value in means.items()}
    return row


def _evaluation_batches(state: Training) -> Iterator[Batch]:
    batches_of_part = state.train
    max_samples = MAX_MEASURED
    walk = None
    if state.validation is not None:
        batches_of_part = state.validation
        max_samples = MAX_VALIDATED
        walk = _walk(state)
    n_batches = math.ceil(max_samples / (state.config.batch_size * state.team.size))
    return islice(batches_of_part.epoch(0, walk=walk), min(len(batches_of_part), n_batches))


def _latent_columns(state: Training, latents: np.ndarray, n_samples: int) -> History:
    """KL divergence of each latent dimension and number of active ones, from sums over samples."""
    sums = torch.tensor(np.append(latents.ravel(), n_samples), dtype=torch.float64)
    if state.team.size > 1:
        sums = state.team.total(sums.to(state.model.device)).cpu()
    means = (sums[:-1] / sums[-1]).numpy()
    kl, mean, squared = means.reshape(3, latents.shape[1], -1)
    variance = (squared - mean**2).mean(1)
    return {
        "latent_kl": kl.sum(1).tolist(),
        "active_units": int((variance > ACTIVE_VARIANCE).sum()),
    }


def _means(sums: Mapping[str, Sequence[float]]) -> History:
    """Means of the terms, the loss first, from their sums over samples and the number of these."""
    means = {name: total / count if count else math.nan for name, (total, count) in sums.items()}
    return {"loss": means.pop("loss"), **means}
