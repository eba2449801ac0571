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
from vaearr.errors import NoInputError, UsageError
from vaearr.models import for_training
from vaearr.provenance import now, versions
from vaearr.quality import MIN_SAMPLES, latent_health
from vaearr.training.checkpoint import CHECKPOINT, checkpoint_about, differences
from vaearr.training.loggers import open_loggers
from vaearr.training.loop import OnEpoch, OnStep, fit
from vaearr.training.processes import Processes
from vaearr.training.sheets import read_sheets
from vaearr.training.step import seeded

# settings that say where and how often, not what is learned
NOT_COMPARED = ("device", "device_memory", "checkpoint_minutes", "checkpoint_every", "sheets_every", "log")


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
        compared = {key: value for key, value in self.settings.to_attrs().items() if key not in NOT_COMPARED}
        return {"settings": compared, "data": dict(self.data), "processes": self.processes.size}

    def part(self, value: int, processes: Processes, labels: Any = None) -> PatternBatches:
        """Batches of one part of the split."""
        settings, training = self.settings, value == n.TRAIN
        return batches(
            self.ds,
            split=self.parts,
            part=value,
            batch_size=settings.batch_size,
            shuffle=training,
            seed=settings.seed,
            memory=settings.memory,
            device_memory=settings.device_memory,
            device=self.device,
            rank=processes.rank,
            world_size=processes.size,
            labels=labels,
            balance=grid.class_map(self.ds, settings.balance)[0] if training and settings.balance else None,
        )


def train_model(
    job: Job,
    *,
    init: Path | None = None,
    resume: Path | None = None,
    restart: bool = False,
    logs: tuple[Path, str] | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Train into `job.folder` (config.json, weights, history) and judge the latents.

    init: model folder whose weights to start from. resume: checkpoint to go on from; None looks for what an
    interruption left in the folder, and `restart` throws that away. logs: folder and name for experiment loggers.
    """
    settings, team, device = job.settings, job.processes, job.device
    labels, classes = grid.class_map(job.ds, settings.objective.label) if settings.objective.label else (None, ())
    train = job.part(n.TRAIN, team, labels)
    n_validation = int((job.parts == n.VALIDATION).sum())
    validation = job.part(n.VALIDATION, team, labels) if n_validation >= team.size else None
    model = _make_model(job, classes, init)
    begin = team.from_first(_where_to_begin(job, resume, restart) if team.is_first else None)
    if team.is_first:
        job.folder.mkdir(parents=True, exist_ok=True)
    model.preprocess.fit(train, team.total)
    n_weights = sum(p.numel() for p in model.network.parameters())
    precision = str(pick_precision(settings.precision, device)).removeprefix("torch.")
    job.say(
        f"training {settings.model.name} ({n_weights / 1e6:.2f} M weights) on {train.n_samples_total} scan points, "
        f"{n_validation} for validation, {train.describe()}, on {device} in {precision}"
        + (f", {team.size} processes" if team.size > 1 else "")
    )
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
            about=job.about,
            resume=begin,
            processes=team,
            loggers=loggers,
            say=job.say,
            on_step=on_step,
            on_epoch=on_epoch,
        )
    about: dict[str, Any] = {
        "config": settings.to_attrs(),
        "data": dict(job.data["patterns"]),
        "n_train": train.n_samples_total,
        "n_validation": n_validation,
        "n_weights": n_weights,
        "best_epoch": result.best_epoch,  # counted from 1, as in the history
        "epochs_run": int(result.history.sizes[n.EPOCH]),
        "stopped_early": result.stopped_early,
        "processes": team.size,
        "versions": versions(),
        "time": now(),
    }
    health = latent_health(model, job.part(n.VALIDATION if n_validation >= MIN_SAMPLES else n.TRAIN, Processes()))
    if team.is_first:
        about["weights_sha256"] = save_model(model, job.folder, about)["weights_sha256"]
    return Trained(result.history, health, read_sheets(job.folder, schema.signal_dims(job.ds)), about)


@contextmanager
def _tidy(job: Job) -> Iterator[None]:
    """Leave nothing of a training that failed before its first checkpoint."""
    try:
        yield
    except BaseException:
        if job.processes.is_first and not (job.folder / CHECKPOINT).exists():
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
        _start_from(model, init)
    return model


def _start_from(model: TrainedModel, folder: Path) -> None:
    """Give a fresh model the weights of a trained one; its backgrounds are its own data's."""
    other = load_folder(folder)
    try:
        model.network.load_state_dict(other.network.state_dict(), strict=True)
    except RuntimeError:
        found = differences(other.model_config.to_attrs(), model.model_config.to_attrs())
        raise UsageError(
            f"the weights in {folder} do not fit: input {other.input_shape} and {model.input_shape}"
            f"{', ' + found if found else ''}; use the same model settings."
        ) from None
    if model.classifier is not None and other.classifier is not None and other.classes == model.classes:
        model.classifier.load_state_dict(other.classifier.state_dict())


def _where_to_begin(job: Job, resume: Path | None, restart: bool) -> Path | None:
    """The checkpoint to go on from, if any; a folder without one is emptied."""
    left = job.folder / CHECKPOINT
    if resume is not None:
        if not resume.exists():
            raise NoInputError(f"there is no checkpoint {resume}.")
        if not resume.is_relative_to(job.folder):
            shutil.rmtree(job.folder, ignore_errors=True)
        return resume
    if left.exists() and not restart:
        if differing := differences(checkpoint_about(left), job.about):
            raise UsageError(
                f"an interrupted training of this run was made with other settings: {differing}. Give the same "
                "settings to go on with it, restart=True (--restart) to throw it away, or another run name."
            )
        return left
    shutil.rmtree(job.folder, ignore_errors=True)
    return None
