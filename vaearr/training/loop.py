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
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count, islice, repeat
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
from vaearr.models.artifacts import TrainedModel, load_folder, save_model, write_tensors
from vaearr.models.foreign import in_words, load_foreign
from vaearr.models.losses import check_targets, takes_logits
from vaearr.models.perceptual import PerceptualLoss
from vaearr.models.preprocess import seen_patterns
from vaearr.models.quality import ACTIVE_VARIANCE, MIN_SAMPLES, latent_health
from vaearr.recipe import differing, now, stored_and_requested, versions
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

# range of preprocessed values, which image networks take as -1 to 1; of the others, most lie within
# three deviations
RANGES = {
    "unit": (0.0, 1.0),
    "minmax": (0.0, 1.0),
    "quantile": (0.0, 1.0),
    "symmetric": (-1.0, 1.0),
}
DEVIATIONS = (-3.0, 3.0)
OF_JUDGES = ("adversarial", "critic")  # of the updates with a discriminator
MAY_BE_NAN = (
    "label_nll",
    "label_accuracy",
    *OF_JUDGES,
)  # of an epoch without labels, or without a discriminator
AGREE_EVERY = 16  # updates after which several processes ask each other whether to stop or to save
MIN_EPOCH_SAMPLES, MAX_EPOCH_SAMPLES = (
    1408,
    8192,
)  # of a scan: neighbours are alike, so fewer passes teach as much
VALIDATED = 2048  # samples by which an epoch is judged at most
MEASURED = 256  # training samples by which the latents are measured where there is no validation

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
    """Train (or fit, see `fit_model`) into `folder` (config.json, weights, history) and judge the
    latents: the tables of the run (history, health, and sheets where they were asked for), and what
    its manifest says.

    split: map of the parts. data: fingerprints of the patterns and of the maps that choose among
    them. init: model folder, or checkpoint file made elsewhere, whose weights to start from.
    perceptual_from: model folder whose encoder the perceptual term looks with. resume: checkpoint
    to go on from; None looks for what an interruption left in the folder, and `restart` throws that
    away. trust: networks of the user's own that model folders may name.
    logs: folder and name for loggers.
    """
    if is_fitted(settings.model.name, trust):
        return team.first_does(fit_model, ds, split, settings, folder, device, data, trust)
    n_validation = int((split == n.VALIDATION).sum())
    patterns = seen_patterns(
        in_chunks(ds[n.PATTERNS], schema.navigation_dims(ds)), settings.preprocess
    )
    preprocessed = ds.drop_dims(schema.signal_dims(ds)).assign({n.PATTERNS: patterns})
    labels, classes = _class_map(ds, settings.objective.label)
    balance, _ = _class_map(ds, settings.balance)
    parts = Parts(preprocessed, split, settings, device)
    train = parts.batches(n.TRAIN, team, labels=labels, balance=balance)
    validation = None
    if n_validation >= team.size:
        validation = parts.batches(n.VALIDATION, team, labels=labels)
    about = {
        "settings": {
            key: value
            for key, value in settings.to_attrs().items()
            if key not in TrainConfig.passing
        },
        "data": dict(data),
        "processes": team.size,
        "streamed": train.tier == "streamed",
    }
    checkpoint = team.first_does(_checkpoint_to_resume, folder, about, resume, restart)
    team.first_does(_clear, folder, checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    model = _fresh_model(ds, settings, classes, device)
    if checkpoint is None and init is not None:
        _start_from(model, init, trust)
    if checkpoint is None and settings.preprocess.static_background != "none":
        every_sample_once = train if balance is None else parts.batches(n.TRAIN, team)
        model.preprocess.fit(every_sample_once, team.total)
    perceptual = None
    if settings.objective.perceptual:
        perceptual = _perceptual(model, settings.objective.perceptual, perceptual_from, trust)
    epoch_samples = settings.epoch_samples
    if epoch_samples is None:
        epoch_samples = _default_epoch_samples(ds, train.n_samples_total)
    state = Training(
        model, train, validation, settings, folder, team, about, perceptual, epoch_samples
    )
    n_weights = sum(p.numel() for p in model.network.parameters())
    _log_start(state, ds, n_weights, n_validation)
    if checkpoint:
        log.info(f"going on from {checkpoint.name}")
    board: Any = nullcontext()
    if settings.log and team.is_first:
        board = tensorboard(*logs, settings)
    try:
        with board as write_row:
            callbacks = [callback for callback in (write_row, on_epoch) if callback]
            fit(state, resume=checkpoint, on_step=on_step, on_epochs=callbacks)
    except BaseException:
        if team.is_first and newest_checkpoint(folder) is None:  # nothing to go on from
            shutil.rmtree(folder, ignore_errors=True)
        raise
    tables = {
        n.HISTORY: history_dataset(state),
        n.HEALTH: latent_health(model, _samples_of_health(state, parts, n_validation)),
    }
    manifest = _manifest(state, dict(data["patterns"]), n_validation, n_weights)
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

    def batches(self, part: int, team: Processes, **class_maps: Any) -> PatternBatches:
        """Batches of a process. class_maps: `labels` and `balance` of `va.batches`."""
        n_samples = int((self.split == part).sum())
        share = float(n_samples / (self.split != n.OUTSIDE).sum())
        # only a part of many validation samples is used, which stands for all of them
        is_shuffled = part == n.TRAIN or n_samples > VALIDATED
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


def _default_epoch_samples(ds: xr.Dataset, n_samples: int) -> int:
    """Samples of an epoch: all (0) of a collection, half of a scan within limits."""
    if not schema.is_scan(ds):
        return 0
    return min(max(n_samples // 2, MIN_EPOCH_SAMPLES), MAX_EPOCH_SAMPLES)


def _log_start(state: Training, ds: xr.Dataset, n_weights: int, n_validation: int) -> None:
    model, settings = state.model, state.config
    samples = f"{state.train.n_samples_total} {schema.samples_word(ds)}"
    precision = str(state.loss_step.precision).removeprefix("torch.")
    processes = ""
    if state.team.size > 1:
        processes = f", {state.team.size} processes"
    log.info(
        f"training {settings.model.name} ({n_weights / 1e6:.2f} M weights) on {samples}, "
        f"{n_validation} for validation, {state.train.describe()}, on {model.device} in {precision}{processes}"
    )


def _samples_of_health(state: Training, parts: Parts, n_validation: int) -> PatternBatches:
    """Each validation sample once, or each training sample where they are too few, to measure the
    latents by.
    """
    part, batches_of_part = n.TRAIN, state.train
    if state.validation is not None and n_validation >= MIN_SAMPLES:
        part, batches_of_part = n.VALIDATION, state.validation
    if state.team.size > 1 or state.config.balance:
        return parts.batches(part, ALONE)
    return batches_of_part


def _manifest(
    state: Training, patterns: dict[str, Any], n_validation: int, n_weights: int
) -> dict[str, Any]:
    return {
        "state": "trained",
        "config": state.config.to_attrs(),
        "data": patterns,
        "n_train": state.train.n_samples_total,
        "n_validation": n_validation,
        "n_weights": n_weights,
        "best_epoch": state.best_epoch + 1,  # counted from 1, as in the history
        "epochs_run": state.epoch,
        "stopped_early": state.epoch < state.config.epochs,
        "processes": state.team.size,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "time": now(),
    }


def _checkpoint_to_resume(
    folder: Path, about: Mapping[str, Any], resume: Path | None, restart: bool
) -> Path | None:
    """The checkpoint to resume, if any: the given one, or what an interruption left in the folder.

    Raises UsageError or DataError if it does not fit this training, or if another one is in the
    way.
    """
    left_over = newest_checkpoint(folder)
    ways_out = "throw it away with restart=True (--restart), or give another run name."
    if resume is not None:
        check_checkpoint(resume, about)
        if left_over is not None and not resume.is_relative_to(folder) and not restart:
            raise UsageError(
                f"an interrupted training of this run is at {left_over}; leave --resume out, {ways_out}"
            )
        return resume
    if left_over is None or restart:
        return None
    try:
        check_checkpoint(left_over, about)
    except VaearrError as error:
        raise type(error)(
            f"an interrupted training of this run is in the way: {error} Or {ways_out}"
        ) from None
    return left_over


def _clear(folder: Path, checkpoint: Path | None) -> None:
    """Remove what an earlier training left in the folder, unless its checkpoint is resumed."""
    if checkpoint is None or not checkpoint.is_relative_to(folder):
        shutil.rmtree(folder, ignore_errors=True)
    for unfinished in folder.glob(".*"):  # of a write that was killed
        unfinished.unlink()


def _start_from(model: TrainedModel, folder: Path, trust: tuple[str, ...]) -> None:
    """Give a fresh model the weights of a trained one; its backgrounds are its own data's."""
    if folder.is_file():
        log.info(in_words(load_foreign(model.network, folder)))
        return
    other = load_folder(folder, trust=trust)
    one, two = (
        m.model_config.replace(options={**m.model_config.options, "dropout": 0})
        for m in (other, model)
    )
    found = differing(one.to_attrs(), two.to_attrs()) + differing(
        other.seen_shape, model.seen_shape, "samples"
    )
    if found:
        words = stored_and_requested(found)
        raise UsageError(
            f"the weights in {folder} do not fit ({words}); use the same model settings."
        )
    model.network.load_state_dict(other.network.state_dict(), strict=True)
    is_head_known = (other.label, other.classes) == (model.label, model.classes)
    if model.classifier is not None and other.classifier is not None and is_head_known:
        model.classifier.load_state_dict(other.classifier.state_dict())


def _perceptual(
    model: TrainedModel, config: PerceptualConfig, folder: Path | None, trust: tuple[str, ...]
) -> PerceptualLoss:
    """The module that the settings ask for, on the model's device.

    folder: of the trained model whose encoder is meant. Raises UsageError for one of other samples,
    and what `PerceptualLoss` raises.
    """
    network = None
    if folder is not None:
        other = load_folder(folder, trust=trust)
        if other.input_shape[0] != model.input_shape[0] or len(other.input_shape) != len(
            model.input_shape
        ):
            known = f"the model in {folder} knows samples {other.input_shape}, these are {model.input_shape}"
            raise UsageError(f"objective.perceptual: {known}; name a run on samples of this kind.")
        network = other.network
    value_range = RANGES.get(model.preprocess_config.normalise, DEVIATIONS)
    return PerceptualLoss(config, value_range, network).to(model.device)


def fit(
    state: Training,
    *,
    resume: Path | None = None,
    on_epochs: Sequence[OnEpoch] = (),
    on_step: OnStep | None = None,
) -> None:
    """Train in place; the model ends with the weights of the best epoch.

    The best epoch is the one with the lowest validation loss at the final beta, lower by
    `config.min_delta` than the best before it (without validation, the last); with a discriminator,
    of those that end with its whole weight, and patience begins there. `folder` gets history.csv
    and .json after every epoch, a checkpoint every `config.checkpoint_minutes`, at SIGINT and
    SIGTERM (which then take their course) and at the end, one under its own name every
    `config.checkpoint_every` epochs, and at the end the weights of the last epoch as trained.

    resume: a checkpoint to go on from, exactly: on the same machine the result is bit for bit that
    of a training that was never interrupted. Of several processes (`state.team`) each trains on its
    own share. Raises TrainingError as soon as an epoch's loss is not finite, and when the GPU's
    memory does not suffice.
    """
    config, team, device = state.config, state.team, state.model.device
    step = team.parallel(state.loss_step, device)
    critic = team.parallel(state.critic, device) if state.critic else None
    if resume and (found := state.load(resume)):
        log.warning(
            f"it goes on with {found}; the last digits may differ from an undisturbed training's"
        )
    if (
        not team.is_first
    ):  # a checkpoint holds the sums over all processes; the first one carries them on
        state.sums = {name: torch.zeros_like(pair) for name, pair in state.sums.items()}
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    with signals_wait() as asked, seeded(config.seed, device):
        try:
            torch.use_deterministic_algorithms(config.deterministic or was_deterministic)
            if takes_logits(config.objective.likelihood):
                check_targets(
                    state.model.preprocess(next(state.train.epoch(0)).patterns),
                    config.objective.likelihood,
                )
            stream = _stream(state)
            while not state.is_over:
                began = time.perf_counter() - state.seconds
                for _ in _updates(state, stream, step, critic, on_step):
                    _pause(state, asked, time.perf_counter() - began)
                row = _finish_epoch(state, began)
                for on_epoch in on_epochs:
                    on_epoch(state.epoch - 1, row)
                _pause(state, asked, 0.0)
        except torch.OutOfMemoryError as error:
            needs = f"batch_size {config.batch_size} needs more memory than the GPU has ({str(error).split('. ')[0]})"
            raise TrainingError(f"{needs}; halve it.") from None
        finally:
            torch.use_deterministic_algorithms(was_deterministic)
        if team.is_first:
            write_tensors(state.folder / "last.safetensors", state.model.state_dict())
            state.save(state.folder / CHECKPOINT, {})  # what follows may fail and be done again
    state.model.load_state_dict(state.best_weights)


@contextmanager
def signals_wait() -> Iterator[list[int]]:
    """SIGINT and SIGTERM only leave their number in the list, until the block ends; then they take
    their course with whoever handled them before. A second one ends the block at once.
    """
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise SystemExit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    handled = [
        s
        for s in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(s) not in (signal.SIG_IGN, None)
    ]
    before = {number: signal.signal(number, note) for number in (handled if is_main else ())}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked:
            signal.raise_signal(asked[-1])


def _stream(state: Training) -> Iterator[Batch]:
    """The batches from where the training is on, pass after pass over the samples, without an end."""
    number, start = divmod(state.n_batches, len(state.train))
    for later in count(number):
        yield from state.train.epoch(later, start=start, walk=_walk(state))
        start = 0


def _updates(
    state: Training,
    stream: Iterator[Batch],
    step: nn.Module,
    critic: nn.Module | None,
    on_step: OnStep | None,
) -> Iterator[None]:
    """The rest of the running epoch; yields after every update."""
    config, scaler = state.config, state.scaler
    step.train()  # with the model and the perceptual term, which validation has set to evaluation
    while state.batch < state.epoch_batches:
        batch = next(stream)
        weights = state.weights[state.n_batches]
        learning_rate = float(state.learning_rates[state.n_batches])
        discriminator = None
        if state.critic and state.critic_shares[state.n_batches] > 0:
            discriminator = state.critic.network
        seed_step(config.seed, state.team.rank, state.n_batches)
        output = step(batch.patterns, batch.target, batch.labels, weights, discriminator)
        scaler.scale(output.loss).backward()
        _add(state.sums, output.sums)
        if critic is not None and discriminator is not None:
            critic_loss = critic(output.target, output.decoded.detach())
            scaler.scale(critic_loss).backward()
            n_samples = critic_loss.new_full((), len(batch.patterns))
            _add(state.sums, {"critic": torch.stack([critic_loss.detach() * n_samples, n_samples])})
            _take_step(
                state,
                "critic_optimizer",
                state.critic_rate * (learning_rate / config.learning_rate),
            )
        _take_step(state, "optimizer", learning_rate)
        scaler.update()
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
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    state.scaler.unscale_(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    nn.utils.clip_grad_norm_(parameters, state.config.clip)
    state.scaler.step(optimizer)
    optimizer.zero_grad(set_to_none=True)


def _walk(state: Training) -> Walk | None:
    objective = state.config.objective
    return Walk(state.model.preprocess, objective.walk) if objective.target == "neighbour" else None


def _pause(state: Training, asked: list[int], seconds: float) -> None:
    """Between updates: save if it is time, end if a signal came. Several processes decide together."""
    wanted = [bool(asked), time.monotonic() > state.due]
    if state.team.size > 1:
        if state.n_batches % AGREE_EVERY and state.batch:
            return
        votes = torch.tensor(wanted, dtype=torch.float32, device=state.model.device)
        wanted = [value > 0 for value in state.team.total(votes).tolist()]
    if not any(wanted):
        return
    state.seconds = seconds
    sums = state.summed()
    if state.team.is_first:
        state.save(state.folder / CHECKPOINT, sums)
        state.due = time.monotonic() + 60 * state.config.checkpoint_minutes
    state.seconds = 0.0
    if wanted[0]:
        log.info(f"saved after {state.place}; the same command goes on from there")
        asked[:] = asked or [int(signal.SIGTERM)]  # of another process
        raise SystemExit(128 + asked[-1])


def _finish_epoch(state: Training, began: float) -> History:
    """Close the books of an epoch: history, validation, best weights, checkpoints."""
    config = state.config
    state.team.agree(state.model.network)
    row = _means(state.summed())
    if config.objective.adversarial:
        for name in OF_JUDGES:
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
    state.batch, state.seconds, state.sums = 0, 0.0, {}
    if state.team.is_first:
        write_history(state)
        if config.checkpoint_every and state.epoch % config.checkpoint_every == 0:
            state.save(state.folder / KEPT.replace("*", f"{state.epoch:04d}"), {})
    return row


def _check_finite(state: Training, row: History) -> None:
    """Raise TrainingError if the losses of an epoch are not finite; its checkpoint is removed."""
    checked = [value for name, value in row.items() if not name.endswith(MAY_BE_NAN)]
    if np.isfinite(np.concatenate([np.ravel(value) for value in checked])).all():
        return
    (state.folder / CHECKPOINT).unlink(missing_ok=True)  # going on from there would end here again
    earlier = newest_checkpoint(state.folder)
    hint = f"; the last checkpoint before is {earlier}" if earlier else ""
    found = f"the loss is not finite in epoch {state.epoch + 1} (loss {row['loss']:g}{hint})"
    raise TrainingError(f"{found}. {REMEDY} or check the patterns for extreme values.")


def _keep_if_best(state: Training, row: History) -> None:
    """Keep the weights if the epoch is the best so far; without validation the last one is."""
    score = row.get("val_loss", math.inf)
    if state.has_full_critic(state.epoch) and not state.has_full_critic(state.epoch - 1):
        state.best = math.inf  # epochs before it are no candidates
    if state.validation is None or score < state.best - state.config.min_delta:
        state.best, state.best_epoch = score, state.epoch
        weights = state.model.state_dict()
        state.best_weights = {name: value.to("cpu", copy=True) for name, value in weights.items()}


@torch.inference_mode()
def evaluate(state: Training) -> History:
    """Evaluate the model after an epoch: validation terms, posterior mean decoded, at the final
    beta, and the latents.

    The adversarial term is left out, which compares nothing from one epoch to the next. Without
    validation only the latents are measured, on a few training samples. Weights and random state
    stay as they are.
    """
    model, step = state.model, state.loss_step.eval()
    samples, most = state.validation or state.train, VALIDATED if state.validation else MEASURED
    weights = torch.tensor([term.weight for term in step.terms], device=model.device)
    sums: Sums = {}
    latents = np.zeros((3, *model.latent_shape))  # sums of the KL divergence, the mean, its square
    n_samples, n_batches = (
        0,
        min(len(samples), -(-most // (state.config.batch_size * state.team.size))),
    )
    walk = _walk(state) if state.validation else None
    for batch in islice(samples.epoch(0, walk=walk), n_batches):
        n_samples += len(batch.patterns)
        # samples from which windows are cut in training may be too large for a batch
        size = (
            len(batch.patterns)
            if state.config.augment.crop is None
            else model.fitting(len(batch.patterns))
        )
        columns = (batch.patterns, batch.target, batch.labels)
        each = [column.split(size) if column is not None else repeat(None) for column in columns]
        for patterns, target, labels in zip(*each, strict=False):
            output = step.forward(patterns, target, labels, weights)
            _add(sums, output.sums)
            for i, values in enumerate((output.kl, output.mean, output.mean.float().square())):
                latents[i] += values.cpu().double().sum(0).numpy()
    row = _latent_columns(state, latents, n_samples)
    if state.validation is not None:
        together = state.team.total(torch.stack(list(sums.values())))
        means = _means(dict(zip(sums, together.tolist(), strict=True)))
        row |= {f"val_{name}": value for name, value in means.items()}
    return row


def _latent_columns(state: Training, latents: np.ndarray, n_samples: int) -> History:
    """KL divergence of each latent dimension and the number of active ones, from sums over samples."""
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
