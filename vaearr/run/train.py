"""Train a run on the patterns of a store, and publish it there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import check_grid, on_grid
from vaearr.computing.progress import Progress, showing
from vaearr.config import RoiConfig, TrainConfig, refuse_unknown, resolved
from vaearr.config.keywords import TrainSettings
from vaearr.config.parts import parts_of_users, trusted_names
from vaearr.errors import UsageError, did_you_mean, listed, need
from vaearr.models.artifacts import OTHER_PATTERNS
from vaearr.recipe import FINGERPRINTS, Recipe, can_reuse, nested
from vaearr.run import Run
from vaearr.run.concat import SCAN, scan_of, stores_of
from vaearr.schema import grid
from vaearr.schema.pattern_steps import VALUE_ATTRS
from vaearr.store import (
    check_inputs,
    check_patterns,
    check_run_name,
    check_store,
    finish_run,
    open_store,
    run_folder,
    run_manifest,
    run_names,
    same_patterns,
    sampled_identity,
    stage_run,
    store_of,
)
from vaearr.store.folders import sha256_of
from vaearr.store.remove import removable

log = logging.getLogger("vaearr")

FEW_SAMPLES = 16
GIVEN_AS_MAP = "given as a map"
TRAINED = "trained"  # kind of a run; others are imported and attached
SCAN_IDENTITIES = "scans"  # in a manifest: identity of each of the joined scans, by number
SPLIT_BY = {"groups": "subject", "stratified": "label"}


def train(
    data: str | Path | xr.Dataset,
    *,
    run: str = n.DEFAULT_RUN,
    store: str | Path | None = None,
    roi: xr.DataArray | RoiConfig | None = None,
    config: TrainConfig | None = None,
    resume: str | Path | None = None,
    restart: bool = False,
    overwrite: bool = False,
    trust: str | Collection[str] = (),
    on_step: Callable[[int, int], None] | None = None,
    progress: Progress = True,
    **keywords: Unpack[TrainSettings],
) -> Run:
    """Train a model on the samples of a region, and publish it as a run of the store.

    The run appears in the store, with its maps `roi` and `split`, when the training is complete.
    After an interruption the same call resumes it, bit for bit. With torchrun, each process makes
    this call.

    Parameters
    ----------
    data : str, Path or xarray.Dataset
        A store, or a Dataset opened from one, with lazy steps such as a crop, another background or
        binned detector pixels. Its grid is that of the store or a part of it. If its patterns
        differ from those of the store, `Run.encode` needs the same Dataset. Several scans joined by
        `va.concat` train one model.
    run : str
        Name of the run.
    store : str or Path, optional
        Store of the run. Default: the one that the Dataset was opened from; for joined scans,
        that of the first. `Run.apply` copies the run into other stores.
    roi : xarray.DataArray or RoiConfig, optional
        A map from `va.roi`, or conditions. Default: the ROI of the default run if the store has
        one, otherwise all measured points.
    config : TrainConfig, optional
        Settings. Other keywords replace single ones.
    resume : str or Path, optional
        A checkpoint file (see `checkpoint_every`) of this same training to continue from.
    restart : bool
        Discard what an interrupted training left, and start again.
    overwrite : bool
        Replace an existing run of this name, with its latents and tables, once the new one is
        trained.
    trust : str or sequence of str
        Networks of your packages, as `package.module:Name`, see `va.load_run`. Models that
        `init` or the perceptual term loads may contain them. Parts that your settings name need
        not be listed.
    on_step : callable, optional
        Called with (epoch, step) after every batch: the running epoch from 0, and the number of
        batches since the start of the training.
    progress : bool or callable
        Show a progress bar, or call a function with the epochs done, the largest number of epochs
        and a text with the losses.
    **keywords
        Fields of `TrainConfig`, such as ``latent_dim``, ``epochs`` and ``objective``.

    Returns
    -------
    Run
        The trained run; an existing one if it was trained on the same data with the same settings.

    Raises
    ------
    ExistsError
        If a different run of this name exists.
    RoiError, UsageError
        If settings do not fit the data, or differ from those of the interrupted training.

    Examples
    --------
    >>> run = va.train("other.zarr", run="small", latent_dim=4, epochs=1, epoch_samples=128)
    >>> run.history.sizes["epoch"]
    1
    """
    refuse_unknown(train, TrainSettings, keywords)
    settings = resolved(TrainConfig, config, keywords)
    trusted = trusted_names(trust) + parts_of_users(settings.model.name)
    check_run_name(run)
    check_extras(settings)
    store_path = _store_to_train_in(data, store)
    from vaearr.training import joined_processes, train_model

    with joined_processes(settings.device) as team, ExitStack() as stack:
        show = stack.enter_context(showing(progress, "training", "epoch"))
        training_data = open_training_data(data, store_path, roi)
        settings = decide_settings(settings, training_data.ds, trusted)
        init = _model_path(store_path, settings.init)
        perceptual_from = _perceptual_from(store_path, settings)
        weights = {"initial weights": init, "perceptual weights": perceptual_from}
        used_weights = {name: _weights_sha256(path) for name, path in weights.items() if path}
        recipe = _recipe(training_data, settings, used_weights)
        if team.first_does(_is_trained, training_data, run, recipe, overwrite):
            trained = Run(store_path, run, trust=trusted)
            announce(trained.health)
            return trained
        split = split_samples(training_data.ds, training_data.roi, settings)
        to_replace = team.first_does(removable, store_path, [f"{n.RUNS}/{run}"])
        staged = stage_run(store_path, run, keep=n.MODEL, replacing=to_replace)
        # only the first process enters it, and so locks the store
        folder = team.first_does(stack.enter_context, staged)

        def on_epoch(epoch: int, losses: Mapping[str, float]) -> None:
            show(epoch, settings.epochs, _loss_text(losses))

        tables, manifest = train_model(
            training_data.ds,
            split,
            settings,
            folder / n.MODEL,
            team=team,
            identities=_identities(training_data, split, settings) | used_weights,
            init=init,
            perceptual_from=perceptual_from,
            resume=Path(resume).expanduser().resolve() if resume else None,
            restart=restart,
            trust=trusted,
            logs=(store_path.with_name(f"{store_path.name}.logs"), run),
            on_step=on_step,
            on_epoch=on_epoch,
        )
        manifest |= {"run": run, FINGERPRINTS: dict(recipe.fingerprints)}
        manifest |= region_facts(training_data.store_roi)
        if training_data.number is not None:
            tables[n.SCANS] = joined_maps(training_data.roi, split, training_data.ds[SCAN])
        maps = training_data.store_maps(split, run)
        publish = partial(finish_run, tables=tables, replacing=to_replace)
        team.first_does(publish, store_path, run, folder, manifest, maps)
        announce(tables[n.HEALTH])
    return Run(store_path, run, trust=trusted)


def announce(health: xr.Dataset) -> None:
    """Log the verdict on a run, of earlier versions none, and the warnings."""
    verdict = health.attrs.get("verdict")
    if verdict:
        level = logging.INFO if health.attrs["verdict_kind"] == n.GOOD else logging.WARNING
        log.log(level, verdict)
    for warning in health.attrs["warnings"]:
        log.warning(warning)


def _loss_text(losses: Mapping[str, float]) -> str:
    validation = ""
    if "val_loss" in losses:
        validation = f", validation {losses['val_loss']:.1f}"
    return f"loss {losses['loss']:.1f}{validation}"


def _recipe(
    training_data: TrainingData, settings: TrainConfig, used_weights: Mapping[str, str]
) -> Recipe:
    """The recipe of a training: settings, patterns, region, maps and weights that it reads.

    It decides whether the run exists already. Whether a checkpoint can be resumed is decided by the
    settings and the `identities` of `train_model`.
    """
    split_by = settings.split.by or SPLIT_BY.get(settings.split.method)
    names = [n.PATTERNS, settings.objective.label, settings.balance, split_by]
    fingerprints = check_inputs(training_data.store_path, [name for name in names if name])
    inputs = {
        "kind": TRAINED,
        "data": training_data.identity,
        "region": region_identity(training_data.store_roi),
    }
    return Recipe(settings, inputs, {**fingerprints, **used_weights})


def _identities(
    training_data: TrainingData, split: xr.DataArray, settings: TrainConfig
) -> dict[str, Any]:
    """Fingerprints of patterns and maps, which a checkpoint must share to be resumed."""
    from vaearr.training import array_sha256

    maps = {"roi": training_data.roi.values, "split": split.values}
    for name in (settings.objective.label, settings.balance):
        if name:
            maps[name] = grid.class_map(training_data.ds, name)[0]
    hashes = {name: array_sha256(values) for name, values in maps.items()}
    return {"patterns": training_data.identity, **hashes}


def _store_to_train_in(data: str | Path | xr.Dataset, store: str | Path | None) -> Path:
    """Store of the run. Raises UsageError unless it is one of the joined scans."""
    stores = stores_of(data) if isinstance(data, xr.Dataset) else []
    if not stores:
        return store_of(data, store)
    if None in stores:
        raise UsageError(
            "a scan of va.concat was not opened from a store; ingest it first, and join the stores."
        )
    paths = [check_store(path) for path in stores if path]
    store_path = paths[0] if store is None else check_store(store)
    if store_path not in paths:
        raise UsageError(f"{store_path} is none of the joined scans; give one of {listed(paths)}.")
    return store_path


@dataclass(frozen=True)
class TrainingData:
    """Patterns and region of a training.

    `ds` and `roi` lie on the grid of the training, `store_roi` on that of the store. They differ
    for a part of a store, and for joined scans, of which the store holds scan `number`.
    `identity`: what identifies the patterns.
    """

    store_path: Path
    ds: xr.Dataset
    roi: xr.DataArray
    store_ds: xr.Dataset
    store_roi: xr.DataArray
    identity: dict[str, Any]
    number: int | None = None

    def store_maps(self, split: xr.DataArray, run: str) -> xr.Dataset:
        """ROI and split on the grid of the store, under the names of the run."""
        if self.number is not None:
            split = scan_of(split, self.ds[SCAN], self.number, self.store_ds)
        return named_maps(self.store_roi, on_grid(split, self.store_ds, n.OUTSIDE), run)


def open_training_data(
    data: str | Path | xr.Dataset, store_path: Path, roi: xr.DataArray | RoiConfig | None
) -> TrainingData:
    """Open and identify the patterns of a training."""
    check_patterns(store_path)
    store_ds = open_store(store_path)
    ds = data if isinstance(data, xr.Dataset) else store_ds
    mask = resolve_roi(ds, roi)
    if roi is None and n.ROI in ds:
        count = f"{int(mask.sum())} {schema.samples_word(ds)}"
        log.info(f"the ROI is that of run {n.DEFAULT_RUN!r}, {count}")
    if roi is not None:
        log_roi(mask)
    stores = stores_of(ds)
    if stores:
        return _joined_data(ds, mask, store_path, [check_store(path) for path in stores if path])
    store_roi, identity = _scan_inputs(ds, mask, store_ds)
    if OTHER_PATTERNS in identity:  # lazy steps have made some attributes untrue
        patterns = ds[n.PATTERNS].copy(deep=False)
        for key in VALUE_ATTRS:
            patterns.attrs.pop(key, None)
        ds = ds.assign({n.PATTERNS: patterns})
    return TrainingData(store_path, ds, mask, store_ds, store_roi, identity)


def log_roi(mask: xr.DataArray) -> None:
    """Log how many points the conditions of an ROI left out."""
    kept = mask.attrs.get("kept")
    if not isinstance(kept, Mapping):  # no conditions
        return
    left_out = []
    for condition, n_kept in kept.items():
        if n_kept < mask.size:
            left_out.append(f"{condition}: {mask.size - n_kept}")
    if left_out:
        log.info(
            f"ROI: {int(mask.sum())} of {mask.size} points; left out by each condition: "
            f"{'; '.join(left_out)}"
        )


def _joined_data(
    ds: xr.Dataset, mask: xr.DataArray, store_path: Path, paths: list[Path]
) -> TrainingData:
    """Training data of scans joined by `va.concat`."""
    stores = []
    rois = []
    identities: dict[str, Any] = {}
    for number, path in enumerate(paths):
        check_patterns(path)
        store_ds = open_store(path)
        patterns = scan_of(ds[n.PATTERNS], ds[SCAN], number, store_ds)
        scan_mask = scan_of(mask, ds[SCAN], number, store_ds)
        roi, identity = _scan_inputs(patterns.to_dataset(), scan_mask, store_ds)
        identities[str(number)] = identity | {"region": region_identity(roi)}
        stores.append(store_ds)
        rois.append(roi)
    number = paths.index(store_path)
    identity = joined_identity(identities, number)
    return TrainingData(store_path, ds, mask, stores[number], rois[number], identity, number)


def joined_identity(scans: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the identity of joined scans, for the store of scan `number`.

    scans: identities of all scans, by number as text.
    """
    return scans[str(number)] | {SCAN_IDENTITIES: dict(scans)}


def _scan_inputs(
    ds: xr.Dataset, roi: xr.DataArray, store_ds: xr.Dataset
) -> tuple[xr.DataArray, dict[str, Any]]:
    """ROI on the grid of the store, and the identity of the patterns.

    It contains a sampled identity if the patterns differ from those of the store.
    """
    check_grid(ds, store_ds)
    store_roi = on_grid(roi, store_ds, fill=False)
    identity = patterns_identity(store_ds)
    if ds is not store_ds and bool(store_roi.any()):
        sampled = sampled_identity(ds, store_roi)
        if not same_patterns(sampled, sampled_identity(store_ds, store_roi)):
            log.info("the patterns differ from those of the store; encode needs this Dataset, too")
            identity |= {OTHER_PATTERNS: sampled}
    return store_roi, identity


def region_facts(roi: xr.DataArray) -> dict[str, Any]:
    """Entries of a manifest about the ROI."""
    return {"roi": nested(roi.attrs, "config") or GIVEN_AS_MAP, "n_roi": int(roi.sum())}


def region_identity(roi: xr.DataArray) -> dict[str, Any]:
    """Identify an ROI."""
    from vaearr.training import array_sha256

    return {"points": int(roi.sum()), "sha256": array_sha256(roi.values)}


def named_maps(roi: xr.DataArray, split: xr.DataArray, run: str) -> xr.Dataset:
    """ROI and split under the names of a run, without coordinates."""
    maps = {n.run_name(n.ROI, run): roi, n.run_name(n.SPLIT, run): split}
    return xr.Dataset(maps).reset_coords(drop=True)


def joined_maps(roi: xr.DataArray, split: xr.DataArray, scan: xr.DataArray) -> xr.Dataset:
    """ROI and split of joined scans as a table over `scan_y, scan_x`."""
    maps = xr.Dataset({n.ROI: roi.drop_attrs(), n.SPLIT: split.drop_attrs()}, coords={SCAN: scan})
    return maps.rename({dim: f"{SCAN}_{dim}" for dim in roi.dims})


def _is_trained(training_data: TrainingData, run: str, recipe: Recipe, overwrite: bool) -> bool:
    """Whether the run exists, trained on the same patterns and ROI with the same settings.

    Raises ExistsError if it was trained differently, unless it may be overwritten.
    """
    if run not in run_names(training_data.store_path):
        return False
    manifest = run_manifest(training_data.store_path, run)
    stored = {
        "kind": manifest.get("kind", TRAINED),
        "data": manifest.get("data"),
        "region": region_identity(training_data.store_ds[n.run_name(n.ROI, run)]),
        "config": manifest["config"],
        FINGERPRINTS: manifest.get(FINGERPRINTS),
    }
    if stored["kind"] != TRAINED:  # without settings of a training: only the kind counts
        stored["config"] = recipe.as_attrs()["config"]
    existing = f"{training_data.store_path} already has a run {run!r}"
    other_name = "choose another name with run='…' (--run)"
    return can_reuse(existing, stored, recipe, way_out=other_name, overwrite=overwrite)


def split_samples(ds: xr.Dataset, roi: xr.DataArray, settings: TrainConfig) -> xr.DataArray:
    """Split the samples of the ROI into training and validation.

    Raises UsageError if the map that the split is made by does not exist.
    """
    config = settings.split
    n_samples = int(roi.sum())
    if n_samples < FEW_SAMPLES:
        log.warning(
            f"{n_samples} {schema.samples_word(ds)} are few; such a run only tests the program."
        )
    by = None
    if config.method in SPLIT_BY:
        name = config.by or SPLIT_BY[config.method]
        candidates = [
            str(variable) for variable in ds.variables if set(ds[variable].dims) == set(roi.dims)
        ]
        if name not in candidates or name in roi.dims:
            hint = did_you_mean(name, candidates)
            raise UsageError(
                f"split.by: there is no map or coordinate {name!r} over {roi.dims}.{hint}"
            )
        by = ds[name].transpose(*roi.dims).load()
    split = grid.split(roi, config, seed=settings.seed, by=by)
    side = split.attrs.get("block_used")
    is_smaller = config.method == "blocks" and side != config.block
    if is_smaller and schema.is_scan(ds):
        log.info(
            f"split: blocks of side {side}, not {config.block}, so that there are enough of them"
        )
    return split


def _model_path(store: Path, source: str | None) -> Path | None:
    """Path of a model: the folder of a run of this store, another folder, or a checkpoint."""
    if not source:
        return None
    if n.is_valid_name(source):
        return run_folder(store, source) / n.MODEL
    return Path(source).expanduser().resolve()


def _weights_sha256(model: Path) -> str:
    """Checksum of the weights in a model folder or a checkpoint file; "" if it does not exist."""
    file = model / n.MODEL_WEIGHTS if model.is_dir() else model
    return sha256_of(file)[:16] if file.is_file() else ""


def _perceptual_from(store: Path, settings: TrainConfig) -> Path | None:
    """The model folder whose encoder a perceptual term uses."""
    perceptual = settings.objective.perceptual
    if perceptual is None:
        return None
    if perceptual.kind != "encoder" and perceptual.run is not None:
        raise UsageError(
            f"objective.perceptual.run is for kind 'encoder', not for {perceptual.kind!r}; leave "
            "it out."
        )
    if perceptual.kind == "encoder" and perceptual.run is None:
        raise UsageError(
            "objective.perceptual.kind 'encoder' needs a trained run: set objective.perceptual.run "
            "to its name or to a model folder."
        )
    return _model_path(store, perceptual.run)


def decide_settings(
    settings: TrainConfig, ds: xr.Dataset, trust: tuple[str, ...] = ()
) -> TrainConfig:
    """Replace `auto` in the settings by what fits a Dataset.

    Parameters
    ----------
    settings : TrainConfig
        Settings of the training.
    ds : xarray.Dataset
        The data.
    trust : tuple of str
        Models that are imported, as `package.module:Name`.

    Returns
    -------
    TrainConfig
        Settings without `auto`.

    Raises
    ------
    UsageError
        If the target is a neighbour but the samples have no grid.
    """
    from vaearr.models import is_fitted
    from vaearr.models.preprocess import decide_preprocess

    preprocess = settings.preprocess
    if settings.model.name == "nmf" and preprocess.normalise == "auto":
        preprocess = preprocess.replace(normalise="none")  # no value may be negative
    preprocess = decide_preprocess(preprocess, ds[n.PATTERNS])
    settings = settings.replace(preprocess=preprocess.to_attrs())
    if is_fitted(settings.model.name, trust):
        return settings
    objective = settings.objective
    is_scan = schema.is_scan(ds)
    if objective.input_noise is None:
        objective = objective.replace(input_noise=float(is_scan))
    if objective.target == "neighbour" and not is_scan:
        raise UsageError(
            "objective.target is 'neighbour', but the samples are a collection without a grid; set "
            "it to 'self'."
        )
    if objective.target == "auto":
        objective = objective.replace(target="neighbour" if is_scan else "self")
    return settings.replace(objective=objective.to_attrs())


def check_extras(settings: TrainConfig) -> None:
    """Check that the packages of the model and of the logger are installed.

    Parameters
    ----------
    settings : TrainConfig
        Settings of the training.

    Raises
    ------
    MissingExtraError
        If one is not installed.
    """
    if settings.model.name == "autoencoder-kl":
        need("monai", "vaearr[monai]", settings.model.name)
    if settings.log:
        need("tensorboard", "vaearr[loggers]", "logging to tensorboard")


def resolve_roi(ds: xr.Dataset, roi: xr.DataArray | RoiConfig | None) -> xr.DataArray:
    """Resolve an ROI to a map of measured points.

    Parameters
    ----------
    ds : xarray.Dataset
        The data.
    roi : xarray.DataArray, RoiConfig or None
        A map, or conditions. None: the map `roi` of the Dataset, otherwise all measured points.

    Returns
    -------
    xarray.DataArray
        Boolean, over the navigation dims.

    Raises
    ------
    RoiError
        If conditions select no point.
    SchemaError
        If a map lies on another grid.
    """
    if isinstance(roi, RoiConfig):
        return grid.roi(ds, config=roi)
    if roi is None:
        return ds[n.ROI].load() if n.ROI in ds else grid.roi(ds)
    mask = grid.check_map(ds, roi)
    if n.PRESENT in ds:
        mask = mask & ds[n.PRESENT].load()
    attrs = {**n.ATTRS[n.ROI], "n": int(mask.sum())}
    config = nested(roi.attrs, "config")
    if isinstance(config, dict):
        attrs["config"] = config
    return mask.rename(n.ROI).drop_attrs().assign_attrs(attrs)


def patterns_identity(ds: xr.Dataset) -> dict[str, Any]:
    """Identify the patterns of a store: its id, their checksum, shape and dtype."""
    patterns = ds[n.PATTERNS]
    return {
        "store_id": ds.attrs.get(n.STORE_ID),
        "fingerprint": ds.attrs.get(n.PATTERNS_FINGERPRINT),
        "dims": list(map(str, patterns.dims)),
        "shape": list(patterns.shape),
        "dtype": str(patterns.dtype),
    }
