"""One whole training: batches, model and where to begin, `fit`, and whether the latents are alive."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from vaearr import grid, schema
from vaearr import names as n
from vaearr.artifacts import TrainedModel, load_folder, save_model
from vaearr.batching import PatternBatches, batches
from vaearr.config import TrainConfig
from vaearr.device import pick_precision
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.models import for_training
from vaearr.models.foreign import load_foreign
from vaearr.provenance import now, versions
from vaearr.quality import MIN_SAMPLES, latent_health
from vaearr.training.checkpoint import check_checkpoint, differences, newest_checkpoint
from vaearr.training.judges import make_perceptual
from vaearr.training.loggers import open_loggers
from vaearr.training.loop import OnEpoch, OnStep, fit
from vaearr.training.processes import Processes
from vaearr.training.sheets import read_sheets
from vaearr.training.step import seeded


@dataclass(frozen=True)
class Trained:
    """What a training leaves beside the files in its folder."""

    history: xr.Dataset
    health: xr.Dataset
    sheets: xr.Dataset | None
    about: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A training to do: on what, with which settings, where, by which processes."""

    ds: xr.Dataset
    parts: xr.DataArray
    settings: TrainConfig
    folder: Path
    device: torch.device
    processes: Processes
    data: Mapping[str, Any]  # fingerprints of the patterns and of the maps that choose among them
    say: Callable[[str], None]

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be gone on from."""
        compared = {key: value for key, value in self.settings.to_attrs().items() if key not in TrainConfig.passing}
        return {"settings": compared, "data": dict(self.data), "processes": self.processes.size}

    def part(self, value: int, labels: Any = None, *, balanced: bool = False, whole: bool = False) -> PatternBatches:
        """This process's batches of one part of the split, with its share of the memory that patterns may take.

        whole: those of all processes.
        """
        settings, training = self.settings, value == n.TRAIN
        share = float((self.parts == value).sum() / (self.parts != n.OUTSIDE).sum())
        return batches(
            self.ds,
            split=self.parts,
            part=value,
            batch_size=settings.batch_size,
            shuffle=training,
            seed=settings.seed,
            memory=settings.memory * share,
            device_memory=settings.device_memory * share,
            device=self.device,
            rank=0 if whole else self.processes.rank,
            world_size=1 if whole else self.processes.size,
            labels=labels,
            balance=grid.class_map(self.ds, settings.balance)[0] if balanced and settings.balance else None,
        )


def train_model(
    job: Job,
    *,
    init: Path | None = None,
    perceptual_from: Path | None = None,
    resume: Path | None = None,
    restart: bool = False,
    logs: tuple[Path, str] | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Train into `job.folder` (config.json, weights, history) and judge the latents.

    init: model folder, or checkpoint file made elsewhere, whose weights to start from. perceptual_from: model folder
    whose encoder the perceptual term looks with. resume: checkpoint to go on from; None looks for what an
    interruption left in the folder, and `restart` throws that away. logs: folder and name for experiment loggers.
    """
    settings, team = job.settings, job.processes
    labels, classes = grid.class_map(job.ds, settings.objective.label) if settings.objective.label else (None, ())
    train = job.part(n.TRAIN, labels, balanced=True)
    n_validation = int((job.parts == n.VALIDATION).sum())
    validation = job.part(n.VALIDATION, labels) if n_validation >= team.size else None
    about = job.about | {"streamed": not train.is_resident}
    begin = team.first_does(lambda: _where_to_begin(job, about, resume, restart))
    model = _make_model(job, classes, init if begin is None else None)
    if team.is_first:
        job.folder.mkdir(parents=True, exist_ok=True)
    if begin is None and settings.preprocess.static_background != "none":
        model.preprocess.fit(job.part(n.TRAIN) if settings.balance else train, team.total)
    perceptual = make_perceptual(model, settings.objective.perceptual, perceptual_from, job.say)
    n_weights = sum(p.numel() for p in model.network.parameters())
    job.say(_announcement(job, train, n_weights, n_validation))
    if begin:
        job.say(f"going on from {begin.name}")
    names = settings.log if team.is_first else ()
    with open_loggers(names, logs, settings.to_attrs()) as loggers, _tidy(job):
        result = fit(
            model,
            train,
            validation,
            settings,
            job.folder,
            about=about,
            perceptual=perceptual,
            resume=begin,
            processes=team,
            loggers=loggers,
            say=job.say,
            on_step=on_step,
            on_epoch=on_epoch,
        )
    described: dict[str, Any] = {
        "config": settings.to_attrs(),
        "data": dict(job.data["patterns"]),
        "n_train": train.n_samples_total,
        "n_validation": n_validation,
        "n_weights": n_weights,
        "best_epoch": result.best_epoch,  # counted from 1, as in the history
        "epochs_run": int(result.history.sizes[n.EPOCH]),
        "stopped_early": result.stopped_early,
        "processes": team.size,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "time": now(),
    } | ({"resumed_with": list(result.changed)} if result.changed else {})
    health = latent_health(model, _judged(job, train, validation))
    if team.is_first:
        described["weights_sha256"] = save_model(model, job.folder, described)["weights_sha256"]
    return Trained(result.history, health, read_sheets(job.folder, schema.signal_dims(job.ds)), described)


def _judged(job: Job, train: PatternBatches, validation: PatternBatches | None) -> PatternBatches:
    """All samples that the latents are judged by, each once: those for validation, where they are enough."""
    is_enough = validation is not None and validation.n_samples_total >= MIN_SAMPLES
    if job.processes.size > 1 or job.settings.balance:
        return job.part(n.VALIDATION if is_enough else n.TRAIN, whole=True)
    return validation if validation is not None and is_enough else train


def _announcement(job: Job, train: PatternBatches, n_weights: int, n_validation: int) -> str:
    settings, device, size = job.settings, job.device, job.processes.size
    precision = str(pick_precision(settings.precision, device)).removeprefix("torch.")
    samples = schema.samples_word(job.ds)
    return (
        f"training {settings.model.name} ({n_weights / 1e6:.2f} M weights) on {train.n_samples_total} {samples}, "
        f"{n_validation} for validation, {train.describe()}, on {device} in {precision}"
    ) + (f", {size} processes" if size > 1 else "")


@contextmanager
def _tidy(job: Job) -> Iterator[None]:
    """Leave nothing of a training that failed before its first checkpoint."""
    try:
        yield
    except BaseException:
        if job.processes.is_first and newest_checkpoint(job.folder) is None:
            shutil.rmtree(job.folder, ignore_errors=True)
        raise


def _make_model(job: Job, classes: tuple[int, ...], init: Path | None) -> TrainedModel:
    with seeded(job.settings.seed, job.device):
        model = TrainedModel(
            model=for_training(
                job.settings.model,
                likelihood=job.settings.objective.likelihood,
                normalise=job.settings.preprocess.normalise,
            ),
            preprocess=job.settings.preprocess,
            input_shape=schema.input_shape(job.ds),
            signal_dims=schema.signal_dims(job.ds),
            dtype=str(job.ds[n.PATTERNS].dtype),
            label=job.settings.objective.label,
            classes=classes,
        ).to(job.device)
    if init is not None:
        _start_from(model, init, job.say)
    return model


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


def _where_to_begin(job: Job, about: Mapping[str, Any], resume: Path | None, restart: bool) -> Path | None:
    """The checkpoint to go on from, if any. Nothing is removed before it is known to fit."""
    left = newest_checkpoint(job.folder)
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
        if left is not None and not restart and not begin.is_relative_to(job.folder):
            raise UsageError(
                f"an interrupted training of this run is at {left}; go on with it (without --resume), throw it away "
                "(--restart), or give another run name."
            )
    if begin is None or not begin.is_relative_to(job.folder):
        shutil.rmtree(job.folder, ignore_errors=True)
    for part in job.folder.glob(".*"):  # of a write that was killed
        part.unlink()
    return begin
