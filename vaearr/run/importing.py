"""A model that was trained elsewhere as a run of a store, so that encode, reconstruct, sample and
layers work on it.

Of a run of another store all is taken that decides its latents: weights, settings and static
background.
"""

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
from vaearr.errors import DataError, RoiError, UsageError
from vaearr.models.artifacts import (
    CONFIG,
    WEIGHTS,
    TrainedModel,
    load_folder,
    read_about,
    save_model,
)
from vaearr.models.foreign import in_words, infer_options, load_foreign, read_foreign
from vaearr.models.preprocess import settled
from vaearr.models.quality import latent_health
from vaearr.recipe import Recipe, is_made, now, versions
from vaearr.run import Run
from vaearr.run.train import data_fingerprint, region_facts, resolve_roi
from vaearr.store import (
    check_patterns,
    check_run_name,
    check_store,
    open_store,
    open_table,
    publish_run,
    run_manifest,
    run_names,
    staged_run,
)
from vaearr.store.folders import sha256_of
from vaearr.store.remove import removable
from vaearr.training import fingerprint

log = logging.getLogger("vaearr")

N_JUDGED = 256  # samples that the health of the latents is told from
UNLIKE = 0.5  # of the odds of the explained variance in training: below, new data are unlike
ELSEWHERE = "choose another name with run='…' (--run; of encode: name='…', --name)"


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
    """Publish the network of a checkpoint as `/runs/<run>` with its `roi` and `split` maps; nothing
    is trained.

    checkpoint: a file of weights from elsewhere, or the model folder of a vaearr run (or the
    weights in it), which brings its own settings and static background; where the new samples are
    reconstructed much worse than the training was, a warning says so. The split counts every point
    of the region as validation: none of them was trained on here (whether the checkpoint's own
    training saw them is not known). There is no history. All or nothing is written. For `roi` see
    `va.train`; of a run that is there, None means its own. A run that is there, imported the same
    way, is returned; `overwrite` replaces another one of this name, with its latents and tables.
    Raises ExistsError for a name that is taken, UsageError for a model that cannot be built for the
    store's samples or for settings that a model folder has itself, UntrustedError for a model
    folder that names a network that is not in `trust` (see `va.load_run`), and what `read_foreign`,
    `load_foreign` and `load_folder` raise for a checkpoint that is damaged or does not fit.
    """
    refuse_unknown(import_model, ImportSettings, keywords)
    settings = resolved(ImportConfig, config, keywords)
    names = trusted_names(trust)
    check_run_name(run)
    path, file = check_store(store), Path(checkpoint).expanduser().resolve()
    own = (
        file.parent if file.name == WEIGHTS else file
    )  # the model folder of a vaearr run, by itself or its weights
    is_own = (own / CONFIG).is_file()
    file = own / WEIGHTS if is_own else file
    check_patterns(path)
    ds, device, is_there = (
        open_store(path, chunks=None),
        pick_device(settings.device),
        run in run_names(path),
    )
    here = ds[n.run_name(n.ROI, run)].load() if is_there else None
    mask = here if here is not None and roi is None else resolve_roi(ds, roi)
    if not bool(mask.any()):
        raise RoiError("the ROI has no scan point; widen it.")
    if here is not None:
        inputs = {
            "kind": n.IMPORTED,
            "weights_sha256": sha256_of(file),
            "region": fingerprint(mask.values),
        }
        there, known = f"{path} already has a run {run!r}", run_manifest(path, run)
        imported = known["config"].get(n.IMPORTED) or {}
        made = {
            "kind": known.get("kind", "trained"),
            "weights_sha256": imported.get("sha256", known.get("weights_sha256")),
            "region": fingerprint(here.values),
            "config": imported.get("settings", settings.to_attrs()),
        }
        if is_made(there, made, Recipe(settings, inputs), instead=ELSEWHERE, overwrite=overwrite):
            return Run(path, run, trust=names)
    old = removable(path, [f"{n.RUNS}/{run}"] if is_there else [])
    with staged_run(path, run, replacing=old) as folder:
        model, origin, words = (
            _of_run(ds, own, settings, names) if is_own else _of_file(ds, file, settings)
        )
        model = model.to(device)
        log.info(words)
        if not is_own and model.preprocess_config.static_background != "none":
            model.preprocess.fit(_batches(ds, _validating(mask), model))
        health = latent_health(model, _batches(ds, _validating(mask, settings.seed), model))
        if is_own:
            health.attrs["warnings"] += _unlike(origin["explained_variance"], health.attrs)
        (folder / n.MODEL).mkdir()
        about = {
            "kind": n.IMPORTED,
            "state": n.IMPORTED,
            "config": {
                "model": model.model_config.to_attrs(),
                "preprocess": model.preprocess_config.to_attrs(),
                n.IMPORTED: {
                    "file": file.name, "sha256": sha256_of(file), **origin, "settings": settings.to_attrs(),
                },
            },
            **region_facts(mask),
            "n_train": 0,
            "n_validation": int(mask.sum()),
            "n_weights": sum(p.numel() for p in model.network.parameters()),
            "data": data_fingerprint(ds),
            "versions": versions(),
            "time": now(),
        }  # fmt: skip
        manifest = save_model(model, folder / n.MODEL, about) | {"run": run}
        maps = xr.Dataset(
            {n.run_name(n.ROI, run): mask, n.run_name(n.SPLIT, run): _validating(mask)}
        )
        publish_run(path, run, folder, manifest, maps, tables={n.HEALTH: health}, replacing=old)
    for warning in health.attrs["warnings"]:
        log.warning(warning)
    return Run(path, run, trust=names, health=health, manifest=manifest)


def _of_run(
    ds: xr.Dataset, folder: Path, settings: ImportConfig, trust: tuple[str, ...]
) -> tuple[TrainedModel, dict[str, Any], str]:
    """The model of a run, as it was trained, where it comes from, and that in words."""
    plain, default = settings.deciding(), ImportConfig().deciding()
    if given := [key for key in plain if key != "seed" and plain[key] != default[key]]:
        raise UsageError(
            f"{folder} says itself what its model is and how samples are prepared; leave out {given[0]}."
        )
    about, model = read_about(folder), load_folder(folder, trust=trust)
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
    """What to know where new data are reconstructed much worse than the model's own: its health,
    theirs; in words.
    """
    new = float(found["explained_variance"])
    if trained is None or trained <= 0:
        why = "is not known from this folder" if trained is None else f"was none ({trained:.1%})"
        return [
            f"Whether these data look like the training data cannot be told: what the model explained there {why}."
        ]
    if new * (1 - trained) >= UNLIKE * trained * (1 - new):
        return []
    return [
        f"These data look unlike the training data: the model explains {new:.1%} of their variance (judged by "
        f"{found['n_samples']} samples), of the training's {trained:.1%}. The latents may mean something else here: "
        "see 'vaearr reconstruct', or train a run on these data."
    ]


def _of_file(
    ds: xr.Dataset, file: Path, settings: ImportConfig
) -> tuple[TrainedModel, dict[str, Any], str]:
    """The network that a checkpoint from elsewhere fits, with its weights, where they come from,
    and that in words.
    """
    shape = schema.input_shape(ds)
    steps = settings.preprocess
    if steps.bin == "auto":  # a network from elsewhere was made for the samples as they are
        steps = steps.replace(bin=1)
    checkpoint = read_foreign(file, prefix=settings.prefix)
    config, (channels, n_dims) = infer_options(checkpoint)
    if (channels, n_dims) != (shape[0], len(shape) - 1):
        raise DataError(
            f"{file} is for samples of {channels} channel(s) in {n_dims} dimensions; the store's have shape "
            f"{shape}, channels first. Ingest them as the checkpoint needs them."
        )
    options = {**config.options, **(settings.options or {})}
    with torch.random.fork_rng(devices=[]):  # weights are initialised, then replaced
        model = TrainedModel(
            model=config.replace(options=options, latent_dim=settings.latent_dim),
            preprocess=settled(steps, ds[n.PATTERNS]),
            input_shape=shape,
            signal_dims=schema.signal_dims(ds),
            input_dtype=str(ds[n.PATTERNS].dtype),
        )
    report = load_foreign(model.network, checkpoint)
    return model.eval(), report, in_words(report)


def _validating(mask: xr.DataArray, seed: int | None = None) -> xr.DataArray:
    """Every point of the region, or a choice of `N_JUDGED` of them by a seed, as one that was not
    trained on.
    """
    points = np.flatnonzero(mask.values)
    if seed is not None:
        points = np.random.default_rng(seed).permutation(points)[:N_JUDGED]
    values = np.full(mask.size, n.OUTSIDE, np.int8)
    values[points] = n.VALIDATION
    attrs = {**n.ATTRS[n.SPLIT], "config": "imported model: no point was trained on here"}
    return xr.DataArray(
        values.reshape(mask.shape), {d: mask[d] for d in mask.dims}, mask.dims, n.SPLIT, attrs
    )


def _batches(ds: xr.Dataset, parts: xr.DataArray, model: TrainedModel) -> PatternBatches:
    size = model.fitting(256)
    return batches(
        ds, split=parts, part=n.VALIDATION, shuffle=False, batch_size=size, device=model.device
    )
