"""Publish a model that was trained elsewhere as a run of a store."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching import PatternBatches, batches
from vaearr.computing.device import pick_device
from vaearr.config import ImportConfig, RoiConfig, refuse_unknown, resolved
from vaearr.config.keywords import ImportSettings
from vaearr.config.parts import trusted_names
from vaearr.errors import DataError, NoInputError, RoiError, UsageError
from vaearr.models.artifacts import (
    CONFIG,
    WEIGHTS,
    TrainedModel,
    load_folder,
    read_about,
    save_model,
)
from vaearr.models.foreign import in_words, infer_options, load_foreign, read_foreign
from vaearr.models.preprocess import decide_preprocess
from vaearr.models.quality import latent_health
from vaearr.recipe import Recipe, can_reuse, now, versions
from vaearr.run import Run
from vaearr.run.train import (
    TRAINED,
    announce,
    named_maps,
    patterns_identity,
    region_facts,
    resolve_roi,
)
from vaearr.store import (
    check_patterns,
    check_run_name,
    check_store,
    finish_run,
    open_store,
    open_table,
    run_manifest,
    run_names,
    stage_run,
)
from vaearr.store.folders import sha256_of
from vaearr.store.remove import removable
from vaearr.training import array_sha256
from vaearr.training.verdict import add_verdict

log = logging.getLogger("vaearr")

N_HEALTH = 256  # samples that the health of the latents is computed from
MIN_ODDS = 0.5  # of the explained variance, relative to training; below it data count as different
OTHER_RUN_NAME = "choose another name with run='…' (--run; of encode: name='…', --name)"


def import_model(
    store: str | Path,
    checkpoint: str | Path,
    *,
    run: str,
    roi: xr.DataArray | RoiConfig | None = None,
    config: ImportConfig | None = None,
    overwrite: bool = False,
    trust: str | Collection[str] = (),
    **keywords: Unpack[ImportSettings],
) -> Run:
    """Publish the network of a checkpoint as a run of a store; nothing is trained.

    The split counts every sample of the region as validation, and there is no history.
    `Run.encode`, `Run.reconstruct` and all other steps work on the run.

    Parameters
    ----------
    store : str or Path
        The store.
    checkpoint : str or Path
        A file of weights of another program; or the model folder of a vaearr run (or the weights in
        it), from which settings and static background are taken as well. If the samples of the
        store are reconstructed much worse than those of its training, a warning says so.
    run : str
        Name of the new run.
    roi : xarray.DataArray or RoiConfig, optional
        As in `va.train`; default: that of an existing run of this name.
    config : ImportConfig, optional
        Settings. Other keywords replace single ones.
    overwrite : bool
        Replace a different run of this name, with its latents and tables.
    trust : str or sequence of str
        Networks of your packages that a model folder may name, see `va.load_run`.
    **keywords
        Fields of `ImportConfig`, such as ``device``.

    Returns
    -------
    Run
        The new run; an existing one if it was imported the same way.

    Raises
    ------
    ExistsError
        If a different run of this name exists.
    NoInputError
        If the checkpoint does not exist.
    UsageError
        If the model does not fit the samples, or a model folder fixes a setting that is given.
    UntrustedError
        If a model folder names a network that is not in `trust`.
    RoiError
        If the region is empty.
    DataError
        If the checkpoint is damaged or does not fit.

    Examples
    --------
    >>> run = va.import_model("other.zarr", "scan.zarr/runs/vae/model", run="imported")
    >>> run.encode().latents_imported.dims
    ('y', 'x', 'latent_imported')

    Weights of Stable Diffusion:

    >>> run = va.import_model("scan.zarr", "vae.ckpt", run="sd")  # doctest: +SKIP
    """
    refuse_unknown(import_model, ImportSettings, keywords)
    settings = resolved(ImportConfig, config, keywords)
    trusted = trusted_names(trust)
    check_run_name(run)
    path = check_store(store)
    file, is_run = _weights_of(checkpoint)
    check_patterns(path)
    ds = open_store(path, chunks=None)
    exists = run in run_names(path)
    if exists and roi is None:
        roi = ds[n.run_name(n.ROI, run)]
    mask = resolve_roi(ds, roi)
    if not bool(mask.any()):
        raise RoiError("the ROI has no scan point; widen it.")
    sha256 = sha256_of(file)
    if exists:
        region = array_sha256(mask.values)
        recipe = Recipe(settings, {"kind": n.IMPORTED, "weights_sha256": sha256, "region": region})
        stored = _stored_recipe(ds, run, path, settings)
        existing = f"{path} already has a run {run!r}"
        if can_reuse(existing, stored, recipe, way_out=OTHER_RUN_NAME, overwrite=overwrite):
            return Run(path, run, trust=trusted)
    replaced = removable(path, [f"{n.RUNS}/{run}"])
    with stage_run(path, run, replacing=replaced) as folder:
        split = _validation_split(mask)
        if is_run:
            model, origin = _model_of_run(ds, file.parent, settings, trusted)
        else:
            model, origin = _model_of_file(ds, file, split, settings)
        sample = _validation_split(mask, seed=settings.seed)
        health = latent_health(model, _batches(ds, sample, model))
        add_verdict(health, model, ds, split, seed=0, max_samples=N_HEALTH)
        if is_run:
            health.attrs["warnings"] += _likeness(origin["explained_variance"], health.attrs)
        imported = {"file": file.name, "sha256": sha256, **origin}
        (folder / n.MODEL).mkdir()
        facts = {
            "kind": n.IMPORTED,
            "config": {
                "model": model.model_config.to_attrs(),
                "preprocess": model.preprocess_config.to_attrs(),
                n.IMPORTED: {**imported, "settings": settings.to_attrs()},
            },
            **region_facts(mask),
            "n_train": 0,
            "n_validation": int(mask.sum()),
            "data": patterns_identity(ds),
            "versions": versions(),
            "time": now(),
        }
        manifest = {**save_model(model, folder / n.MODEL, facts), "run": run}
        maps = named_maps(mask, split, run)
        tables = {n.HEALTH: health}
        finish_run(path, run, folder, manifest, maps, tables=tables, replacing=replaced)
    announce(health)
    return Run(path, run, trust=trusted)


def _weights_of(checkpoint: str | Path) -> tuple[Path, bool]:
    """The file with the weights, and whether it lies in the model folder of a run.

    Raises NoInputError if it does not exist.
    """
    file = Path(checkpoint).expanduser().resolve()
    folder = file.parent if file.name == WEIGHTS else file
    if (folder / CONFIG).is_file():
        return folder / WEIGHTS, True
    if not file.is_file():
        raise NoInputError(
            f"{file} does not exist, or is no model folder; give a .safetensors, .pt, .pth or .ckpt "
            "file, or the folder 'model' of a run."
        )
    return file, False


def _stored_recipe(ds: xr.Dataset, run: str, path: Path, settings: ImportConfig) -> dict[str, Any]:
    """The recipe of an existing run; the settings are no difference if it was not imported."""
    manifest = run_manifest(path, run)
    imported = manifest["config"].get(n.IMPORTED) or {}
    return {
        "kind": manifest.get("kind", TRAINED),
        "weights_sha256": imported.get("sha256", manifest.get("weights_sha256")),
        "region": array_sha256(ds[n.run_name(n.ROI, run)].values),
        "config": imported.get("settings", settings.to_attrs()),
    }


def _model_of_run(
    ds: xr.Dataset, folder: Path, settings: ImportConfig, trust: tuple[str, ...]
) -> tuple[TrainedModel, dict[str, Any]]:
    """The trained model of a run, and its origin."""
    values = settings.deciding()
    defaults = ImportConfig().deciding()
    changed = [key for key in values if key != "seed" and values[key] != defaults[key]]
    if changed:
        raise UsageError(
            f"{folder} defines its model and how samples are prepared; leave out {changed[0]}."
        )
    record = read_about(folder)
    model = load_folder(folder, trust=trust).to(pick_device(settings.device))
    if model.input_shape != schema.input_shape(ds):
        raise UsageError(
            f"the model in {folder} was trained on samples of shape {model.input_shape}, channels "
            f"first; those of the store have {schema.input_shape(ds)}. Ingest them the same way, "
            "or train a run on this store."
        )
    model.signal_dims = schema.signal_dims(ds)
    log.info(f"weights, settings and static background are those in {folder}")
    origin = dict(record["config"].get(n.IMPORTED) or {})
    if "weights_sha256" in origin:  # the model was imported there, from its training
        return model, origin
    origin = {
        "run": None,
        "store_id": record.get("data", {}).get("store_id"),
        "weights_sha256": record["weights_sha256"],
        "explained_variance": None,
        "config": record["config"],
    }
    run_folder = folder.parent
    if run_folder.parent.name == n.RUNS:
        health = open_table(run_folder.parents[1], run_folder.name, n.HEALTH)
        origin["run"] = run_folder.name
        origin["explained_variance"] = health.attrs["explained_variance"]
    return model, origin


def _likeness(trained: float | None, health: Mapping[str, Any]) -> list[str]:
    """A warning if the data are reconstructed much worse than those of the training."""
    if trained is None or trained <= 0:
        return [
            "Whether these data look like the training data is not known: no variance that the model "
            "explained in training is stored with it."
        ]
    explained = float(health["explained_variance"])
    if explained * (1 - trained) >= MIN_ODDS * trained * (1 - explained):
        return []
    return [
        f"These data look unlike the training data: the model explains {explained:.1%} of their "
        f"variance (of {health['n_samples']} samples), and {trained:.1%} of that of the training "
        "data. The latents may have another meaning here: see 'vaearr reconstruct', or train a run "
        "on these data."
    ]


def _model_of_file(
    ds: xr.Dataset, file: Path, split: xr.DataArray, settings: ImportConfig
) -> tuple[TrainedModel, dict[str, Any]]:
    """The network that a checkpoint of another program fits, with its weights, and a report."""
    shape = schema.input_shape(ds)
    preprocess = settings.preprocess
    if preprocess.bin == "auto":  # such a network was trained on samples of this size
        preprocess = preprocess.replace(bin=1)
    checkpoint = read_foreign(file, prefix=settings.prefix)
    config, (channels, n_dims) = infer_options(checkpoint)
    if (channels, n_dims) != (shape[0], len(shape) - 1):
        raise DataError(
            f"{file} is for samples of {channels} channel(s) in {n_dims} dimensions; those of the "
            f"store have shape {shape}, channels first. Ingest them as the checkpoint needs them."
        )
    options = {**config.options, **(settings.options or {})}
    with torch.random.fork_rng(devices=[]):  # weights are initialised, then replaced
        model = TrainedModel(
            model=config.replace(options=options, latent_dim=settings.latent_dim),
            preprocess=decide_preprocess(preprocess, ds[n.PATTERNS]),
            input_shape=shape,
            signal_dims=schema.signal_dims(ds),
            input_dtype=str(ds[n.PATTERNS].dtype),
        )
    report = load_foreign(model.network, checkpoint)
    log.info(in_words(report))
    model = model.eval().to(pick_device(settings.device))
    if model.preprocess_config.static_background != "none":
        model.preprocess.fit(_batches(ds, split, model))
    return model, report


def _validation_split(mask: xr.DataArray, seed: int | None = None) -> xr.DataArray:
    """A split with every sample of the region as validation; with a seed, a choice of them."""
    samples = np.flatnonzero(mask.values)
    if seed is not None:
        samples = np.random.default_rng(seed).permutation(samples)[:N_HEALTH]
    values = np.full(mask.size, n.OUTSIDE, np.int8)
    values[samples] = n.VALIDATION
    attrs = {**n.ATTRS[n.SPLIT], "config": "imported model: no point was trained on here"}
    coords = {dim: mask[dim] for dim in mask.dims}
    return xr.DataArray(values.reshape(mask.shape), coords, mask.dims, n.SPLIT, attrs)


def _batches(ds: xr.Dataset, parts: xr.DataArray, model: TrainedModel) -> PatternBatches:
    size = model.fitting(256)
    return batches(
        ds, split=parts, part=n.VALIDATION, shuffle=False, batch_size=size, device=model.device
    )
