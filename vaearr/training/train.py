"""Train a model and measure what it learned: `train_model`."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching import PatternBatches, batches
from vaearr.batching.blocks import in_chunks
from vaearr.config import ModelConfig, PerceptualConfig, TrainConfig
from vaearr.errors import UsageError, VaearrError
from vaearr.models import for_training, is_fitted
from vaearr.models.artifacts import TrainedModel, load_folder, save_model
from vaearr.models.foreign import in_words, load_foreign, read_foreign
from vaearr.models.losses import check_targets, takes_logits
from vaearr.models.perceptual import PerceptualLoss
from vaearr.models.preprocess import binned_patterns
from vaearr.models.quality import MIN_SAMPLES, latent_health
from vaearr.models.tensors import check_fit
from vaearr.schema import grid
from vaearr.training.checkpoint import check_checkpoint, newest_checkpoint
from vaearr.training.fitting import fit_model, model_facts, n_weights, new_model
from vaearr.training.loop import MAX_VALIDATED, OnEpoch, OnStep, fit
from vaearr.training.processes import Processes
from vaearr.training.records import history_dataset, read_sheets, tensorboard
from vaearr.training.state import Training
from vaearr.training.verdict import add_verdict

log = logging.getLogger("vaearr")

# range of preprocessed values, which image networks take as -1 to 1
RANGES = {
    "unit": (0.0, 1.0),
    "minmax": (0.0, 1.0),
    "quantile": (0.0, 1.0),
    "symmetric": (-1.0, 1.0),
}
OTHER_RANGE = (-3.0, 3.0)  # deviations, within which most values lie
# of a scan: neighbours are similar, so fewer passes teach as much
MIN_EPOCH_SAMPLES = 1408
MAX_EPOCH_SAMPLES = 8192


def train_model(
    ds: xr.Dataset,
    split: xr.DataArray,
    settings: TrainConfig,
    folder: Path,
    *,
    team: Processes,
    identities: Mapping[str, Any],
    init: Path | None,
    perceptual_from: Path | None,
    resume: Path | None,
    restart: bool,
    trust: tuple[str, ...],
    logs: tuple[Path, str],
    on_step: OnStep | None,
    on_epoch: OnEpoch,
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
    team : Processes
        The processes that train together, and the device of this one.
    identities : mapping
        Of the patterns, and of the maps that choose among them.
    init : Path or None
        Model folder, or third-party checkpoint file, whose weights to start from.
    perceptual_from : Path or None
        Model folder whose encoder the perceptual term uses.
    resume : Path or None
        Checkpoint to resume; None for what an interruption left in the folder.
    restart : bool
        Discard what an interruption left.
    trust : tuple of str
        Networks of the user's packages that model folders may name.
    logs : tuple of (Path, str)
        Folder and name for loggers.
    on_step : callable or None
        Called with (epoch, step) after every update, see `fit`.
    on_epoch : callable
        Called with (number of the epoch from 1, row of the history) after every epoch.

    Returns
    -------
    tuple of (dict, dict)
        Tables of the run (history, health, and sheets if requested), and its manifest.
    """
    if is_fitted(settings.model.name, trust):
        if resume or restart:
            raise UsageError(
                f"{settings.model.name} is fitted in one pass and has no checkpoints; leave out "
                "resume and restart (--resume, --restart)."
            )
        return team.first_does(
            fit_model, ds, split, settings, folder, team.device, identities, trust
        )
    labels, classes = _class_map(ds, settings.objective.label)
    balance, _ = _class_map(ds, settings.balance)
    part_batches = partial(_part_batches, _with_binned_patterns(ds, settings), split, settings)
    train = part_batches(n.TRAIN, team, labels=labels, balance=balance)
    n_validation = int((split == n.VALIDATION).sum())
    can_validate = n_validation >= team.size
    validation = part_batches(n.VALIDATION, team, labels=labels) if can_validate else None
    must_agree = {
        "settings": settings.deciding(),
        "data": dict(identities),
        "processes": team.size,
        "streamed": train.tier == "streamed",  # the order of samples depends on it
    }
    checkpoint = team.first_does(_checkpoint_to_resume, folder, must_agree, resume, restart)
    model = new_model(ds, _network(settings), settings, team.device, trust, classes)
    if checkpoint is None:  # a checkpoint holds the weights and the background
        _start_from(model, init, trust)
        _fit_preprocessing(model, settings, train, part_batches, team)
    perceptual = _perceptual(model, settings.objective.perceptual, perceptual_from, trust)
    epoch_samples = _epoch_samples(ds, settings, train.n_samples_total)
    state = Training(
        model, train, validation, settings, folder, team, must_agree, perceptual, epoch_samples
    )
    _log_start(state, schema.samples_word(ds), n_validation, checkpoint)
    _fit_or_clear(state, checkpoint, logs, on_step, on_epoch)
    health = latent_health(model, _health_samples(state, part_batches, n_validation))
    history = history_dataset(state)
    add_verdict(
        health, model, ds, split, seed=settings.seed, history=history, epochs=settings.epochs
    )
    tables = {n.HISTORY: history, n.HEALTH: health}
    manifest = _manifest(state, identities, n_validation)
    saved = team.first_does(save_model, model, folder, manifest)
    manifest["weights_sha256"] = saved["weights_sha256"]
    return tables | read_sheets(folder, schema.signal_dims(ds)), manifest


def _class_map(ds: xr.Dataset, name: str | None) -> tuple[Any, tuple[int, ...]]:
    """Positions of the samples in the classes of a map, and these classes; none without a name."""
    return grid.class_map(ds, name) if name else (None, ())


def _with_binned_patterns(ds: xr.Dataset, settings: TrainConfig) -> xr.Dataset:
    patterns = in_chunks(ds[n.PATTERNS], schema.navigation_dims(ds))
    patterns = binned_patterns(patterns, settings.preprocess)
    return ds.drop_dims(schema.signal_dims(ds)).assign({n.PATTERNS: patterns})


def _part_batches(
    ds: xr.Dataset,
    split: xr.DataArray,
    settings: TrainConfig,
    part: int,
    team: Processes,
    **class_maps: Any,
) -> PatternBatches:
    """Batches of a part of a split; it gets its share of the memory that patterns may take.

    class_maps: `labels` and `balance` of `va.batches`.
    """
    n_samples = int((split == part).sum())
    share = float(n_samples / (split != n.OUTSIDE).sum())
    return batches(
        ds,
        split=split,
        part=part,
        batch_size=settings.batch_size,
        memory=settings.memory * share,
        device_memory=settings.device_memory * share,
        device=team.device,
        # of more validation samples only the first batches are used, which must represent all
        shuffle=part == n.TRAIN or n_samples > MAX_VALIDATED,
        rank=team.rank,
        world_size=team.size,
        seed=settings.seed,
        **class_maps,
    )


def _checkpoint_to_resume(
    folder: Path, must_agree: Mapping[str, Any], resume: Path | None, restart: bool
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
        check_checkpoint(resume, must_agree)
        if left_over is not None and not resume.is_relative_to(folder):
            raise UsageError(
                f"an interrupted training of this run is at {left_over}; leave --resume out, "
                f"{ways_out}"
            )
    elif left_over is not None:
        try:
            check_checkpoint(left_over, must_agree)
        except VaearrError as error:
            raise type(error)(
                f"an interrupted training of this run is in the way: {error} Or {ways_out}"
            ) from None
    checkpoint = resume or left_over
    if checkpoint is None or not checkpoint.is_relative_to(folder):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(".*"):  # of a write that was killed
        unfinished.unlink()
    return checkpoint


def _network(settings: TrainConfig) -> ModelConfig:
    """The network with the options that follow from other settings."""
    return for_training(
        settings.model,
        likelihood=settings.objective.likelihood,
        normalise=settings.preprocess.normalise,
        target=settings.objective.target,
    )


def _fit_preprocessing(
    model: TrainedModel,
    settings: TrainConfig,
    train: PatternBatches,
    part_batches: Callable[..., PatternBatches],
    team: Processes,
) -> None:
    """Set the background. Raises DataError for patterns that the likelihood does not allow."""
    samples = train
    if settings.balance:  # each sample once
        samples = part_batches(n.TRAIN, team)
    if settings.preprocess.static_background != "none":
        model.preprocess.fit(samples, team.total)
    if takes_logits(settings.objective.likelihood):
        first = next(samples.epoch(0)).patterns
        check_targets(model.preprocess(first), settings.objective.likelihood)


def _start_from(model: TrainedModel, source: Path | None, trust: tuple[str, ...]) -> None:
    """Load the weights of a trained network, if any; the background is that of the new data."""
    if source is None:
        return
    if source.is_file():
        log.info(in_words(load_foreign(model.network, read_foreign(source))))
        return
    other = load_folder(source, trust=trust)
    weights = other.network.state_dict()
    check_fit(model.network.state_dict(), weights, f"the weights in {source} do not fit")
    model.network.load_state_dict(weights)
    has_same_head = (other.label, other.classes) == (model.label, model.classes)
    if model.classifier is not None and other.classifier is not None and has_same_head:
        model.classifier.load_state_dict(other.classifier.state_dict())


def _perceptual(
    model: TrainedModel,
    config: PerceptualConfig | None,
    folder: Path | None,
    trust: tuple[str, ...],
) -> PerceptualLoss | None:
    """The module that the settings ask for, on the model's device.

    folder: of the trained model whose encoder is used. Raises UsageError for one of other samples,
    and what `PerceptualLoss` raises.
    """
    if config is None:
        return None
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


def _epoch_samples(ds: xr.Dataset, settings: TrainConfig, n_samples: int) -> int:
    """Samples of an epoch: as set, else all (0) of a collection, half of a scan within limits."""
    if settings.epoch_samples is not None:
        return settings.epoch_samples
    if not schema.is_scan(ds):
        return 0
    return min(max(n_samples // 2, MIN_EPOCH_SAMPLES), MAX_EPOCH_SAMPLES)


def _log_start(
    state: Training, samples_word: str, n_validation: int, checkpoint: Path | None
) -> None:
    precision = str(state.loss_step.precision).removeprefix("torch.")
    processes = ""
    if state.team.size > 1:
        processes = f", {state.team.size} processes"
    log.info(
        f"training {state.config.model.name} ({n_weights(state.model) / 1e6:.2f} M weights) on "
        f"{state.train.n_samples_total} {samples_word}, {n_validation} for validation, "
        f"{state.train.describe()}, on {state.model.device} in {precision}{processes}"
    )
    if checkpoint is not None:
        log.info(f"resuming {checkpoint.name}")


def _fit_or_clear(
    state: Training,
    checkpoint: Path | None,
    logs: tuple[Path, str],
    on_step: OnStep | None,
    on_epoch: OnEpoch,
) -> None:
    """Run `fit`; if it ends early without a checkpoint, remove the folder."""
    on_epochs = [on_epoch]
    try:
        with ExitStack() as stack:
            if state.config.log and state.team.is_first:
                on_epochs.append(stack.enter_context(tensorboard(*logs, state.config)))
            fit(state, resume=checkpoint, on_step=on_step, on_epochs=on_epochs)
    except BaseException:
        if state.team.is_first and newest_checkpoint(state.folder) is None:
            shutil.rmtree(state.folder, ignore_errors=True)
        raise


def _health_samples(
    state: Training, part_batches: Callable[..., PatternBatches], n_validation: int
) -> PatternBatches:
    """Samples to measure the latents by: for validation, or for training if those are too few.

    Each sample occurs once.
    """
    samples = state.train
    part = n.TRAIN
    if state.validation is not None and n_validation >= MIN_SAMPLES:
        samples = state.validation
        part = n.VALIDATION
    if state.team.size > 1 or state.config.balance:
        return part_batches(part, Processes(device=state.team.device))
    return samples


def _manifest(state: Training, identities: Mapping[str, Any], n_validation: int) -> dict[str, Any]:
    config = state.config
    facts = model_facts(state.model, config, identities, state.train.n_samples_total, n_validation)
    return facts | {
        "best_epoch": state.best_epoch + 1,  # counted from 1, as in the history
        "epochs_run": state.epoch,
        "stopped_early": state.epoch < config.epochs,
        "processes": state.team.size,
        "threads": torch.get_num_threads(),
    }
