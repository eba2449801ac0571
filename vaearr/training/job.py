"""One whole training: batches, model and where to begin, `fit`, and whether the latents are alive."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from vaearr import grid, schema
from vaearr import names as n
from vaearr.artifacts import TrainedModel, load_folder, save_model
from vaearr.batching import PatternBatches, batches
from vaearr.config import PerceptualConfig, TrainConfig
from vaearr.device import pick_precision
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.models import for_training
from vaearr.models.foreign import load_foreign
from vaearr.models.perceptual import PerceptualLoss
from vaearr.provenance import now, versions
from vaearr.quality import MIN_SAMPLES, latent_health
from vaearr.training.checkpoint import Training, check_checkpoint, differences, newest_checkpoint
from vaearr.training.loop import OnEpoch, OnStep, fit
from vaearr.training.processes import Processes
from vaearr.training.records import logging_to, read_sheets
from vaearr.training.step import seeded

# range of preprocessed values, which image networks take as -1 to 1; of the others, most lie within three deviations
RANGES = {"unit": (0.0, 1.0), "minmax": (0.0, 1.0), "quantile": (0.0, 1.0), "symmetric": (-1.0, 1.0)}
DEVIATIONS = (-3.0, 3.0)


def train_model(
    ds: xr.Dataset,
    parts: xr.DataArray,
    settings: TrainConfig,
    folder: Path,
    *,
    device: torch.device,
    team: Processes,
    data: Mapping[str, Any],
    say: Callable[[str], None],
    init: Path | None = None,
    perceptual_from: Path | None = None,
    resume: Path | None = None,
    restart: bool = False,
    logs: tuple[Path, str],
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:
    """Train into `folder` (config.json, weights, history) and judge the latents: the tables of the run (history,
    health, and sheets where they were asked for), and what its manifest says.

    parts: map of the split. data: fingerprints of the patterns and of the maps that choose among them. init: model
    folder, or checkpoint file made elsewhere, whose weights to start from. perceptual_from: model folder whose encoder
    the perceptual term looks with. resume: checkpoint to go on from; None looks for what an interruption left in the
    folder, and `restart` throws that away. logs: folder and name for loggers.
    """
    compared = {key: value for key, value in settings.to_attrs().items() if key not in TrainConfig.passing}
    labels, classes = grid.class_map(ds, settings.objective.label) if settings.objective.label else (None, ())
    balance = grid.class_map(ds, settings.balance)[0] if settings.balance else None
    train = _part(ds, parts, n.TRAIN, settings, device, team, labels=labels, balance=balance)
    n_validation, validation = int((parts == n.VALIDATION).sum()), None
    if n_validation >= team.size:
        validation = _part(ds, parts, n.VALIDATION, settings, device, team, labels=labels)
    about = {"settings": compared, "data": dict(data), "processes": team.size, "streamed": not train.is_resident}
    begin = team.first_does(lambda: _where_to_begin(folder, about, resume, restart))
    with seeded(settings.seed, device):
        model = _fresh_model(ds, settings, classes).to(device)
    if init is not None and begin is None:
        _start_from(model, init, say)
    if team.is_first:
        folder.mkdir(parents=True, exist_ok=True)
    if begin is None and settings.preprocess.static_background != "none":
        whole = train if balance is None else _part(ds, parts, n.TRAIN, settings, device, team)
        model.preprocess.fit(whole, team.total)
    perceptual = _make_perceptual(model, settings.objective.perceptual, perceptual_from, say)
    state = Training(model, train, validation, settings, folder, team, about, perceptual, say)
    say(_announcement(state, schema.samples_word(ds), n_validation))
    if begin:
        say(f"going on from {begin.name}")
    with logging_to(settings.log if team.is_first else (), *logs, settings.to_attrs()) as log:

        def after(epoch: int, row: dict[str, float]) -> None:
            log(epoch + 1, row)
            if on_epoch:
                on_epoch(epoch, row)

        try:
            fit(state, resume=begin, on_step=on_step, on_epoch=after)
        except BaseException:
            if team.is_first and newest_checkpoint(folder) is None:  # nothing to go on from
                shutil.rmtree(folder, ignore_errors=True)
            raise
    is_enough = n_validation >= MIN_SAMPLES
    judged = validation if validation is not None and is_enough else train
    if team.size > 1 or balance is not None:  # every sample once
        judged = _part(ds, parts, n.VALIDATION if is_enough else n.TRAIN, settings, device, Processes())
    tables = {n.HISTORY: state.history, n.HEALTH: latent_health(model, judged)}
    manifest = _manifest(state, data["patterns"], n_validation)
    if team.is_first:
        manifest["weights_sha256"] = save_model(model, folder, manifest)["weights_sha256"]
    sheets = read_sheets(folder, schema.signal_dims(ds))
    return tables if sheets is None else tables | {n.SHEETS: sheets}, manifest


def _manifest(state: Training, patterns: Mapping[str, Any], n_validation: int) -> dict[str, Any]:
    manifest = {
        "state": "trained",
        "config": state.config.to_attrs(),
        "data": dict(patterns),
        "n_train": state.train.n_samples_total,
        "n_validation": n_validation,
        "n_weights": state.n_weights,
        "best_epoch": state.best_epoch + 1,  # counted from 1, as in the history
        "epochs_run": state.epoch,
        "stopped_early": state.epoch < state.config.epochs,
        "processes": state.team.size,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "time": now(),
    }
    return manifest | ({"resumed_with": state.changed} if state.changed else {})


def _announcement(state: Training, samples: str, n_validation: int) -> str:
    config, device, size = state.config, state.model.device, state.team.size
    precision = str(pick_precision(config.precision, device)).removeprefix("torch.")
    return (
        f"training {config.model.name} ({state.n_weights / 1e6:.2f} M weights) on {state.train.n_samples_total} "
        f"{samples}, {n_validation} for validation, {state.train.describe()}, on {device} in {precision}"
    ) + (f", {size} processes" if size > 1 else "")


def _part(
    ds: xr.Dataset,
    parts: xr.DataArray,
    part: int,
    settings: TrainConfig,
    device: torch.device,
    team: Processes,
    *,
    labels: Any = None,
    balance: Any = None,
) -> PatternBatches:
    """This process's batches of one part of the split, with its share of the memory that patterns may take."""
    share = float((parts == part).sum() / (parts != n.OUTSIDE).sum())
    return batches(
        ds,
        split=parts,
        part=part,
        batch_size=settings.batch_size,
        shuffle=part == n.TRAIN,
        seed=settings.seed,
        memory=settings.memory * share,
        device_memory=settings.device_memory * share,
        device=device,
        rank=team.rank,
        world_size=team.size,
        labels=labels,
        balance=balance,
    )


def _fresh_model(ds: xr.Dataset, settings: TrainConfig, classes: tuple[int, ...]) -> TrainedModel:
    likelihood, normalise = settings.objective.likelihood, settings.preprocess.normalise
    return TrainedModel(
        model=for_training(settings.model, likelihood=likelihood, normalise=normalise),
        preprocess=settings.preprocess,
        input_shape=schema.input_shape(ds),
        signal_dims=schema.signal_dims(ds),
        dtype=str(ds[n.PATTERNS].dtype),
        label=settings.objective.label,
        classes=classes,
    )


def _make_perceptual(
    model: TrainedModel, config: PerceptualConfig | None, folder: Path | None, say: Callable[[str], None]
) -> PerceptualLoss | None:
    """The module that the settings ask for, on the model's device; None where they ask for none.

    folder: of the trained model whose encoder is meant. Raises UsageError for one of other samples, and what
    `PerceptualLoss` raises.
    """
    if config is None:
        return None
    network = None
    if folder is not None:
        other = load_folder(folder)
        if other.input_shape[0] != model.input_shape[0] or len(other.input_shape) != len(model.input_shape):
            raise UsageError(
                f"objective.perceptual: the model in {folder} knows samples {other.input_shape}, these are "
                f"{model.input_shape}; name a run on samples of this kind."
            )
        if found := differences(other.preprocess_config.to_attrs(), model.preprocess_config.to_attrs()):
            say(f"the encoder of the perceptual term was trained with another preprocessing: {found}")
        network = other.network
    value_range = RANGES.get(model.preprocess_config.normalise, DEVIATIONS)
    return PerceptualLoss(config, value_range, network).to(model.device)


def _start_from(model: TrainedModel, folder: Path, say: Callable[[str], None]) -> None:
    """Give a fresh model the weights of a trained one; its backgrounds are its own data's."""
    if folder.is_file():
        say(load_foreign(model.network, folder).in_words())
        return
    other = load_folder(folder)
    one, two = (m.model_config.replace(options={**m.model_config.options, "dropout": 0}) for m in (other, model))
    found = differences(one.to_attrs(), two.to_attrs())
    if found or other.input_shape != model.input_shape:
        raise UsageError(
            f"the weights in {folder} do not fit: samples {other.input_shape} and {model.input_shape}"
            f"{', ' + found if found else ''}; use the same model settings."
        )
    if found := differences(other.preprocess_config.to_attrs(), model.preprocess_config.to_attrs()):
        say(f"the weights to start from were trained with another preprocessing: {found}")
    model.network.load_state_dict(other.network.state_dict(), strict=True)
    if model.classifier is not None and other.classifier is not None:
        if (other.label, other.classes) == (model.label, model.classes):
            model.classifier.load_state_dict(other.classifier.state_dict())
        else:
            say(f"the classification head starts anew: the weights to start from know {other.label} {other.classes}")


def _where_to_begin(folder: Path, about: Mapping[str, Any], resume: Path | None, restart: bool) -> Path | None:
    """The checkpoint to go on from, if any. Nothing is removed before it is known to fit."""
    left = newest_checkpoint(folder)
    begin = resume or (None if restart else left)
    if resume is not None and not resume.is_file():
        raise NoInputError(f"there is no checkpoint {resume}.")
    if resume is None and begin is not None:
        try:
            check_checkpoint(begin, about)
        except DataError as error:
            raise type(error)(
                f"an interrupted training of this run is in the way: {error} Or throw it away with restart=True "
                "(--restart), or give another run name."
            ) from None
        except UsageError as error:
            raise UsageError(
                f"an interrupted training of this run was made with other settings: {error} Or throw it away with "
                "restart=True (--restart), or give another run name."
            ) from None
    elif begin is not None:
        check_checkpoint(begin, about)
        if left is not None and not restart and not begin.is_relative_to(folder):
            raise UsageError(
                f"an interrupted training of this run is at {left}; go on with it (without --resume), throw it away "
                "(--restart), or give another run name."
            )
    if begin is None or not begin.is_relative_to(folder):
        shutil.rmtree(folder, ignore_errors=True)
    for part in folder.glob(".*"):  # of a write that was killed
        part.unlink()
    return begin
