"""A model that was trained elsewhere as a run of a store, so that encode, reconstruct, sample and layers work on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.artifacts import TrainedModel, save_model
from vaearr.batching import PatternBatches, batches
from vaearr.config import Config, ModelConfig, PreprocessConfig, RoiConfig
from vaearr.device import pick_device
from vaearr.errors import DataError, RoiError, UsageError
from vaearr.foreign import MODEL, Foreign, Report, infer_options, load_foreign, read_foreign
from vaearr.preprocess import settled
from vaearr.provenance import now, versions
from vaearr.quality import latent_health
from vaearr.runs import GIVEN, data_fingerprint, resolve_roi
from vaearr.store import (
    check_patterns,
    check_run_name,
    check_store,
    open_store,
    publish_run,
    recover,
    staged_run,
    write_dataset,
)

IMPORTED = "imported"
N_JUDGED = 256  # samples that the health of the latents is told from


class ImportConfig(Config):
    """What a checkpoint is read as.

    layout: of its names, ldm, diffusers, monai or vaearr; auto tells it by them. prefix: what stands before its names;
    found where only one fits. model: registered model; autoencoder-kl takes its options from the shapes in the
    checkpoint, and `latent_dim` and `options` replace single ones (`groups`, which no weight tells, or a `head`); other
    models are built from `latent_dim` and `options` alone. preprocess: what the network was trained to see; by default
    what a training would choose, -1 to 1 for a collection of 8-bit samples. device: for the health of the latents:
    auto, cpu, cuda, mps. seed: of the samples that it is told from.
    """

    layout: Literal["auto", "ldm", "diffusers", "monai", "vaearr"] = "auto"
    prefix: str | None = None
    model: str = MODEL
    latent_dim: int | None = None
    options: dict[str, Any] | None = None
    preprocess: PreprocessConfig = PreprocessConfig()
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class Imported:
    """A published import: where it is, what became of the checkpoint's weights, whether the latents are alive."""

    store: Path
    name: str
    report: Report
    health: xr.Dataset
    manifest: Mapping[str, Any]


def import_model(
    store: str | Path,
    checkpoint: str | Path,
    *,
    run: str,
    roi: xr.DataArray | RoiConfig | None = None,
    config: ImportConfig | None = None,
    say: Callable[[str], None] | None = None,
) -> Imported:
    """Publish the network of a checkpoint as `/runs/<run>` with its `roi` and `split` maps; nothing is trained.

    The split counts every point of the region as validation: none of them was trained on here (whether the checkpoint's
    own training saw them is not known). There is no history. All or nothing is written. For `roi` see `runs.train`.
    Raises ExistsError for a run name that is taken, UsageError for a model that cannot be built for the store's
    samples, and what `read_foreign` and `load_foreign` raise for a checkpoint that is damaged or does not fit.
    """
    settings, tell = config or ImportConfig(), say or (lambda text: None)
    check_run_name(run)
    path, file = check_store(store), Path(checkpoint).expanduser().resolve()
    recover(path)
    check_patterns(path)
    ds = open_store(path, chunks=None)
    device = pick_device(settings.device)
    mask = resolve_roi(ds, roi)
    if not bool(mask.any()):
        raise RoiError("the ROI has no scan point; widen it.")
    with staged_run(path, run) as folder:
        model, report = _model(ds, file, settings)
        model = model.to(device)
        tell(report.in_words())
        parts = _all_validate(mask)
        if model.preprocess_config.static_background != "none":
            model.preprocess.fit(_batches(ds, parts, model))
        health = latent_health(model, _batches(ds, _judged(parts, settings.seed), model))
        (folder / n.MODEL).mkdir()
        manifest = _describe(ds, file, settings, model, report, mask)
        manifest = save_model(model, folder / n.MODEL, manifest) | {"run": run}
        write_dataset(health, folder / n.HEALTH, run=run)
        maps = xr.Dataset({n.run_name(n.ROI, run): mask, n.run_name(n.SPLIT, run): parts})
        publish_run(path, run, folder, manifest, maps)
    for warning in health.attrs["warnings"]:
        tell(f"warning: {warning}")
    return Imported(path, run, report, health, manifest)


def _model(ds: xr.Dataset, file: Path, settings: ImportConfig) -> tuple[TrainedModel, Report]:
    """The network that the checkpoint fits, with its weights."""
    shape, given = schema.input_shape(ds), None
    if settings.model == MODEL:
        given = read_foreign(file, layout=settings.layout, prefix=settings.prefix)
    chosen = _model_config(settings, given, shape)
    with torch.random.fork_rng(devices=[]):  # weights are drawn, then replaced
        model = TrainedModel(
            model=chosen,
            preprocess=settled(settings.preprocess, ds[n.PATTERNS]),
            input_shape=shape,
            signal_dims=schema.signal_dims(ds),
            dtype=str(ds[n.PATTERNS].dtype),
        )
    report = load_foreign(model.network, given or file, layout=settings.layout, prefix=settings.prefix)
    return model.eval(), report


def _model_config(settings: ImportConfig, given: Foreign | None, shape: tuple[int, ...]) -> ModelConfig:
    if given is None:
        if settings.latent_dim is None:
            raise UsageError(f"the model {settings.model!r} is not told by a checkpoint: give latent_dim and options.")
        return ModelConfig(name=settings.model, latent_dim=settings.latent_dim, options=settings.options or {})
    found = infer_options(given)
    if (found.n_channels, found.n_spatial_dims) != (shape[0], len(shape) - 1):
        raise DataError(
            f"{given.path} is for samples of {found.n_channels} channel(s) in {found.n_spatial_dims} dimensions; the "
            f"store's have shape {shape}, channels first. Ingest them as the checkpoint needs them."
        )
    return found.model.replace(
        latent_dim=settings.latent_dim, options={**found.model.options, **(settings.options or {})}
    )


def _all_validate(mask: xr.DataArray) -> xr.DataArray:
    """Every point of the region as one that was not trained on."""
    values = np.where(mask.values, n.VALIDATION, n.OUTSIDE).astype(np.int8)
    attrs = {**n.ATTRS[n.SPLIT], "config": "imported model: no point was trained on here"}
    return xr.DataArray(values, dims=mask.dims, coords={d: mask[d] for d in mask.dims}, name=n.SPLIT, attrs=attrs)


def _judged(parts: xr.DataArray, seed: int) -> xr.DataArray:
    """At most `N_JUDGED` of the points, a seeded choice."""
    points = np.flatnonzero(parts.values == n.VALIDATION)
    chosen = np.random.default_rng(seed).permutation(points)[:N_JUDGED]
    values = np.full(parts.size, n.OUTSIDE, np.int8)
    values[chosen] = n.VALIDATION
    return parts.copy(data=values.reshape(parts.shape))


def _batches(ds: xr.Dataset, parts: xr.DataArray, model: TrainedModel) -> PatternBatches:
    return batches(
        ds, split=parts, part=n.VALIDATION, shuffle=False, batch_size=model.fitting(256), device=model.device
    )


def _describe(
    ds: xr.Dataset, file: Path, settings: ImportConfig, model: TrainedModel, report: Report, mask: xr.DataArray
) -> dict[str, Any]:
    """What the manifest says beside the model itself."""
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    origin: dict[str, Any] = {"file": file.name, "sha256": sha256, "layout": report.layout, "prefix": report.prefix}
    origin |= {"n_weights_read": report.n_loaded, "n_ignored": report.ignored, "added": list(report.added)}
    config = {"model": model.model_config.to_attrs(), "preprocess": model.preprocess_config.to_attrs()}
    return {
        "kind": IMPORTED,
        "state": IMPORTED,
        "config": {**config, IMPORTED: {**origin, "settings": settings.to_attrs()}},
        "roi": mask.attrs.get("config", GIVEN),
        "n_roi": int(mask.sum()),
        "n_train": 0,
        "n_validation": int(mask.sum()),
        "n_weights": sum(p.numel() for p in model.network.parameters()),
        "data": data_fingerprint(ds),
        "versions": versions(),
        "time": now(),
    }
