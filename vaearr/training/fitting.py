"""New models, and those that are fitted in closed form instead of being trained: `fit_model`."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import ModelConfig, TrainConfig
from vaearr.errors import UsageError
from vaearr.models.artifacts import TrainedModel, save_model
from vaearr.models.linear import Samples
from vaearr.models.quality import MIN_SAMPLES, latent_health
from vaearr.recipe import now, versions
from vaearr.training.step import seeded
from vaearr.training.verdict import add_verdict

log = logging.getLogger("vaearr")

# settings with an effect on a fit, or on where and how fast it runs
OF_A_FIT = (
    "model",
    "preprocess",
    "split",
    "seed",
    "batch_size",
    "memory",
    *TrainConfig.not_deciding,
)


def new_model(
    ds: xr.Dataset,
    network: ModelConfig,
    settings: TrainConfig,
    device: torch.device,
    trust: tuple[str, ...],
    classes: tuple[int, ...] = (),
) -> TrainedModel:
    """Return an untrained model for the samples of a Dataset. classes: of `objective.label`."""
    with seeded(settings.seed, device):
        model = TrainedModel(
            model=network,
            preprocess=settings.preprocess,
            input_shape=schema.input_shape(ds),
            signal_dims=schema.signal_dims(ds),
            input_dtype=str(ds[n.PATTERNS].dtype),
            label=settings.objective.label,
            classes=classes,
            trust=trust,
        )
        return model.to(device)


def model_facts(
    model: TrainedModel,
    settings: TrainConfig,
    identities: Mapping[str, Any],
    n_train: int,
    n_validation: int,
) -> dict[str, Any]:
    """Return entries of the manifest of a run. identities: see `train_model`."""
    return {
        "state": "trained",
        "config": settings.to_attrs(),
        "data": dict(identities["patterns"]),
        "n_train": n_train,
        "n_validation": n_validation,
        "n_weights": n_weights(model),
        "versions": versions(),
        "time": now(),
    }


def n_weights(model: TrainedModel) -> int:
    """Return the number of weights of a model's network."""
    return sum(parameter.numel() for parameter in model.network.parameters())


def fit_model(
    ds: xr.Dataset,
    split: xr.DataArray,
    settings: TrainConfig,
    folder: Path,
    device: torch.device,
    identities: Mapping[str, Any],
    trust: tuple[str, ...],
) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:
    """Fit a model to the training samples, save it in `folder`, and measure its latents.

    split: map of the parts. identities: of the patterns and of the maps that choose among them.
    Returns the tables of the run, and its manifest.
    """
    _check_settings(settings)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = new_model(ds, settings.model, settings, device, trust)
    training = (split == n.TRAIN).values
    validation = (split == n.VALIDATION).values
    samples = Samples(ds, training, training | validation, model.preprocess, settings.seed)
    n_training = int(training.sum())
    log.info(f"fitting {settings.model.name} to {n_training} {schema.samples_word(ds)}")
    if settings.preprocess.static_background != "none":
        model.preprocess.fit(stored for _, stored in samples.stored())
    findings = model.network.fit(samples)
    model.to(device)
    n_latents = model.latent_shape[0]
    model.record = model.record.replace(
        model={**settings.model.to_attrs(), "latent_dim": n_latents}
    )
    measured = samples
    if validation.sum() >= MIN_SAMPLES:
        measured = samples.at(validation)
    health = latent_health(model, (stored for _, stored in measured.stored()))
    health = health.assign(findings.data_vars)
    facts = dict(findings.attrs)
    health.attrs["warnings"] += facts.pop("warnings", [])
    add_verdict(health, model, ds, split, seed=settings.seed)
    manifest = model_facts(model, settings, identities, n_training, int(validation.sum())) | {
        "latent_dim": n_latents,
        "fit": facts,
        "versions": versions("scipy"),
    }
    manifest["weights_sha256"] = save_model(model, folder, manifest)["weights_sha256"]
    return {n.HEALTH: health}, manifest


def _check_settings(settings: TrainConfig) -> None:
    """Raise UsageError for settings that differ from the default, but have no effect on a fit."""
    default = TrainConfig()
    others = [name for name in TrainConfig.model_fields if name not in OF_A_FIT]
    unused = [name for name in others if getattr(settings, name) != getattr(default, name)]
    if unused:
        raise UsageError(
            f"{settings.model.name} is fitted in closed form; leave out {', '.join(unused)}."
        )
