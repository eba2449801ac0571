"""A model that was trained elsewhere as a run of a store, so that encode, reconstruct, sample and layers work on it.

Of a run of another store all is taken that decides its latents: weights, settings and static background.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.artifacts import CONFIG, WEIGHTS, TrainedModel, load_folder, read_about, save_model
from vaearr.batching import PatternBatches, batches
from vaearr.config import ImportConfig, ModelConfig, RoiConfig, resolved, settings_as_keywords
from vaearr.device import pick_device
from vaearr.errors import DataError, RoiError, UsageError
from vaearr.models.foreign import MODEL, Foreign, infer_options, load_foreign, read_foreign
from vaearr.models.preprocess import settled
from vaearr.provenance import nested, now, versions
from vaearr.quality import latent_health
from vaearr.run import Run
from vaearr.runs import GIVEN, data_fingerprint, resolve_roi
from vaearr.store import (
    check_patterns,
    check_run_name,
    check_store,
    open_store,
    open_table,
    publish_run,
    recover,
    staged_run,
    write_dataset,
)
from vaearr.store.folders import sha256_of

N_JUDGED = 256  # samples that the health of the latents is told from
UNLIKE = 0.5  # of the odds of the explained variance in training: below, new data are unlike


@settings_as_keywords(ImportConfig)
def import_model(
    store: str | Path,
    checkpoint: str | Path,
    *,
    run: str,
    roi: xr.DataArray | RoiConfig | None = None,
    config: ImportConfig | None = None,
    say: Callable[[str], None] | None = None,
    **given: Any,
) -> Run:
    """Publish the network of a checkpoint as `/runs/<run>` with its `roi` and `split` maps; nothing is trained.

    checkpoint: a file of weights from elsewhere, or the model folder of a vaearr run (or the weights in it), which
    brings its own settings and static background; where the new samples are reconstructed much worse than the training
    was, a warning says so. The split counts every point of the region as validation: none of them was trained on here
    (whether the checkpoint's own training saw them is not known). There is no history. All or nothing is written. For
    `roi` see `runs.train`. Raises ExistsError for a run name that is taken, UsageError for a model that cannot be built
    for the store's samples or for settings that a model folder has itself, and what `read_foreign`, `load_foreign` and
    `load_folder` raise for a checkpoint that is damaged or does not fit.
    """
    settings, tell = resolved(ImportConfig, config, given), say or (lambda text: None)
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
        own = _own_folder(file)
        model, origin, words = _taken(ds, own, settings) if own else _model(ds, file, settings)
        model = model.to(device)
        tell(words)
        parts = _all_validate(mask)
        if own is None and model.preprocess_config.static_background != "none":
            model.preprocess.fit(_batches(ds, parts, model))
        health = latent_health(model, _batches(ds, _judged(parts, settings.seed), model))
        if own is not None:
            health.attrs["warnings"] += _unlike(origin["explained_variance"], health.attrs)
        (folder / n.MODEL).mkdir()
        manifest = _describe(ds, own / WEIGHTS if own else file, settings, model, origin, mask)
        manifest = save_model(model, folder / n.MODEL, manifest) | {"run": run}
        write_dataset(health, folder / n.HEALTH, run=run)
        maps = xr.Dataset({n.run_name(n.ROI, run): mask, n.run_name(n.SPLIT, run): parts})
        publish_run(path, run, folder, manifest, maps)
    for warning in health.attrs["warnings"]:
        tell(f"warning: {warning}")
    return Run(path, run, health=health, manifest=manifest)


def _own_folder(file: Path) -> Path | None:
    """The model folder of a vaearr run that is meant by itself or by its weights; None for anything else."""
    folder = file.parent if file.name == WEIGHTS else file
    return folder if (folder / CONFIG).is_file() else None


def _taken(ds: xr.Dataset, folder: Path, settings: ImportConfig) -> tuple[TrainedModel, dict[str, Any], str]:
    """The model of a run, as it was trained, where it comes from, and that in words."""
    plain, default = settings.to_attrs(), ImportConfig().to_attrs()
    if given := [key for key in plain if key not in ("device", "seed") and plain[key] != default[key]]:
        raise UsageError(f"{folder} says itself what its model is and how samples are prepared; leave out {given[0]}.")
    about, model = read_about(folder), load_folder(folder)
    if model.input_shape != schema.input_shape(ds):
        raise UsageError(
            f"the model in {folder} was trained on samples of shape {model.input_shape}, channels first; the store's "
            f"have {schema.input_shape(ds)}. Ingest them as those were, or train a run on this store."
        )
    model.signal_dims = schema.signal_dims(ds)
    origin = dict(about["config"].get(n.IMPORTED) or {})
    if "weights_sha256" not in origin:  # the training itself, not another store that took its model
        in_store = folder.parent.parent.name == n.RUNS
        health = open_table(folder.parents[2], folder.parent.name, n.HEALTH) if in_store else None
        origin = {
            "run": folder.parent.name if in_store else None,
            "store_id": about.get("data", {}).get("store_id"),
            "weights_sha256": about["weights_sha256"],
            "explained_variance": None if health is None else health.attrs["explained_variance"],
            "config": about["config"],
        }
    return model, origin, f"weights, settings and static background are those in {folder}"


def _unlike(trained: float | None, found: Mapping[str, Any]) -> list[str]:
    """What to know where new data are reconstructed much worse than the model's own: its health, theirs; in words."""
    new = float(found["explained_variance"])
    if trained is None or trained <= 0:
        why = "is not known from this folder" if trained is None else f"was none ({trained:.1%})"
        return [f"Whether these data look like the training data cannot be told: what the model explained there {why}."]
    if new * (1 - trained) >= UNLIKE * trained * (1 - new):
        return []
    return [
        f"These data look unlike the training data: the model explains {new:.1%} of their variance (judged by "
        f"{found['n_samples']} samples), of the training's {trained:.1%}. The latents may mean something else here: "
        "see 'vaearr reconstruct', or train a run on these data."
    ]


def _model(ds: xr.Dataset, file: Path, settings: ImportConfig) -> tuple[TrainedModel, dict[str, Any], str]:
    """The network that the checkpoint fits, with its weights, where they come from, and that in words."""
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
    if report.prefix == "network.":  # a run's weights, which lie beside its background
        raise DataError(
            f"{file} holds the weights of a vaearr run, without the {CONFIG} that says how its samples are prepared; "
            "give the run's model folder."
        )
    origin = {"layout": report.layout, "prefix": report.prefix, "n_weights_read": report.n_loaded}
    return model.eval(), {**origin, "n_ignored": report.ignored, "added": list(report.added)}, report.in_words()


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
    ds: xr.Dataset,
    file: Path,
    settings: ImportConfig,
    model: TrainedModel,
    origin: Mapping[str, Any],
    mask: xr.DataArray,
) -> dict[str, Any]:
    """What the manifest says beside the model itself."""
    imported = {
        "file": file.name,
        "sha256": sha256_of(file),
        **origin,
        "settings": settings.to_attrs(),
    }
    config = {"model": model.model_config.to_attrs(), "preprocess": model.preprocess_config.to_attrs()}
    return {
        "kind": n.IMPORTED,
        "state": n.IMPORTED,
        "config": {**config, n.IMPORTED: imported},
        "roi": nested(mask.attrs, "config") or GIVEN,
        "n_roi": int(mask.sum()),
        "n_train": 0,
        "n_validation": int(mask.sum()),
        "n_weights": sum(p.numel() for p in model.network.parameters()),
        "data": data_fingerprint(ds),
        "versions": versions(),
        "time": now(),
    }
