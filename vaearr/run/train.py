"""From a store to a trained run in it: ROI, split, training, health, artefact, all published
together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
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
from vaearr.errors import UsageError, did_you_mean, need
from vaearr.models.artifacts import SEEN
from vaearr.recipe import FINGERPRINTS, Recipe, is_made, nested
from vaearr.run import Run
from vaearr.run.concat import SCAN, scan_of, stores_of
from vaearr.schema import grid
from vaearr.schema.pattern_steps import OF_THE_VALUES
from vaearr.store import (
    check_inputs,
    check_patterns,
    check_run_name,
    check_store,
    open_store,
    publish_run,
    run_folder,
    run_manifest,
    run_names,
    same_patterns,
    sampled_fingerprint,
    staged_run,
    store_of,
)
from vaearr.store.remove import removable

log = logging.getLogger("vaearr")

FEW_SAMPLES = 16
GIVEN_AS_MAP = "given as a map"
TRAINED = "trained"  # kind of a run; others are imported and attached
SCANS = (
    "scans"  # in a manifest: what identifies the patterns of each of the joined scans, by number
)
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
    """Train a VAE on the scan points of the ROI and publish it as `/runs/<run>` with its `roi` and
    `split` maps.

    Nothing is visible in the store before the training is finished. After an interruption the same
    call resumes it, bit for bit. With torchrun, each process makes this call.

    Parameters
    ----------
    data : str, Path or xarray.Dataset
        A store, or a Dataset with any lazy steps on it, such as a crop, another background or
        binned detector pixels; its dask chunks are what is read. Its grid is that of its store or a
        part of it. Where the patterns differ from the store's, `va.encode` needs the same Dataset.
        Several scans joined by `va.concat` train one model.
    run : str
        Name of the run.
    store : str or Path, optional
        The store that a Dataset's run is published in; default: the one that it was opened from, of
        joined scans the first. `Run.apply` copies the run into other stores.
    roi : xarray.DataArray or RoiConfig, optional
        A map from `va.roi`, or conditions. Default: the ROI of the default run if the store has
        one, else all measured points.
    config : TrainConfig, optional
        Settings. Other keywords replace single ones.
    resume : str or Path, optional
        A checkpoint file (see `checkpoint_every`) of this same training to continue from.
    restart : bool
        Discard what an interrupted training left, and start anew.
    overwrite : bool
        Replace an existing run of this name, with its latents and tables, when the new one is
        trained.
    trust : str or sequence of str
        Networks of your own packages, as `package.module:Name`, that the run or model folder of
        `init` or of the perceptual term may name, see `va.load_run`. Parts that your settings name
        need not be listed.
    on_step : callable, optional
        Called with (epoch, step) after every batch.
    progress : bool or callable
        Show a progress bar, or call a function with (epochs done, most epochs, text with the
        losses).

    Returns
    -------
    Run
        The trained run; an existing one that was trained on the same data with the same settings.

    Raises
    ------
    ExistsError
        If the name is taken by a different run.
    RoiError, UsageError
        If settings do not fit the data, or differ from those of the interrupted training.
    """
    refuse_unknown(train, TrainSettings, keywords)
    settings = resolved(TrainConfig, config, keywords)
    trusted = trusted_names(trust) + parts_of_users(settings.model.name)
    check_run_name(run)
    check_extras(settings)
    store_path = _store_to_train_in(data, store)
    from vaearr.training import fingerprint, joined, train_model

    with joined(settings.device) as (team, torch_device), ExitStack() as stack:
        show = stack.enter_context(showing(progress, "training"))
        source = open_training_data(data, store_path, roi)
        settings = settled(settings, source.ds, trusted)
        inputs = {
            "kind": TRAINED,
            "data": source.fingerprint,
            "region": region_fingerprint(source.store_roi),
        }
        recipe = Recipe(settings, inputs, input_fingerprints(store_path, settings))
        if team.first_does(_is_trained, source, run, recipe, overwrite):
            return Run(store_path, run, trust=trusted)
        split = split_samples(source.ds, source.roi, settings)
        maps = {"roi": source.roi.values, "split": split.values}
        for name in (settings.objective.label, settings.balance):
            if name:
                maps[name] = grid.class_map(source.ds, name)[0]
        map_fingerprints = {name: fingerprint(values) for name, values in maps.items()}
        replaced = team.first_does(removable, store_path, [f"{n.RUNS}/{run}"])
        # the first process alone enters it, which locks the store
        staged = staged_run(store_path, run, keep=n.MODEL, replacing=replaced)
        folder = team.first_does(stack.enter_context, staged)

        def on_epoch(epoch: int, row: Mapping[str, float]) -> None:
            show(epoch + 1, settings.epochs, f"training, {_loss_text(row)}")

        tables, manifest = train_model(
            source.ds,
            split,
            settings,
            folder / n.MODEL,
            device=torch_device,
            team=team,
            data={"patterns": source.fingerprint, **map_fingerprints},
            init=_model_folder(store_path, settings.init),
            perceptual_from=_perceptual_from(store_path, settings),
            resume=Path(resume).expanduser().resolve() if resume else None,
            restart=restart,
            trust=trusted,
            logs=(store_path.with_name(f"{store_path.name}.logs"), run),
            on_step=on_step,
            on_epoch=on_epoch,
        )
        manifest |= {"run": run, FINGERPRINTS: dict(recipe.fingerprints)} | region_facts(
            source.store_roi
        )
        if team.is_first:
            if source.scan is not None:
                tables[n.SCANS] = joined_maps(source.roi, split, source.ds[SCAN])
            own_maps = source.store_maps(split, run)
            publish_run(
                store_path, run, folder, manifest, own_maps, tables=tables, replacing=replaced
            )
            for warning in tables[n.HEALTH].attrs["warnings"]:
                log.warning(warning)
    known: dict[str, Any] = {name: tables[name] for name in (n.HISTORY, n.HEALTH) if name in tables}
    return Run(store_path, run, trust=trusted, manifest=manifest, **known)


def _loss_text(row: Mapping[str, float]) -> str:
    validation = ""
    if "val_loss" in row:
        validation = f", validation {row['val_loss']:.1f}"
    return f"loss {row['loss']:.1f}{validation} nats per sample"


def _store_to_train_in(data: str | Path | xr.Dataset, store: str | Path | None) -> Path:
    """The store that the run is published in. Raises UsageError where joined scans do not include
    it.
    """
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
        raise UsageError(
            f"{store_path} is none of the joined scans; give one of {', '.join(map(str, paths))}."
        )
    return store_path


@dataclass(frozen=True)
class TrainingData:
    """What a run is trained on.

    `ds` and `roi` lie over the grid that is trained on, `store_ds` and `store_roi` over that of the
    store. They differ for a part of a store, and for joined scans, of which the store is number
    `scan`. `fingerprint` identifies the patterns, and is kept in the manifest as `data`.
    """

    store_path: Path
    ds: xr.Dataset
    roi: xr.DataArray
    store_ds: xr.Dataset
    store_roi: xr.DataArray
    fingerprint: dict[str, Any]
    scan: int | None = None

    def store_maps(self, split: xr.DataArray, run: str) -> xr.Dataset:
        """ROI and split over the grid of the store, under the names of the run."""
        if self.scan is not None:
            split = scan_of(split, self.ds[SCAN], self.scan, self.store_ds)
        return named_maps(self.store_roi, on_grid(split, self.store_ds, n.OUTSIDE), run)


def open_training_data(
    data: str | Path | xr.Dataset, store_path: Path, roi: xr.DataArray | RoiConfig | None
) -> TrainingData:
    """Open what a run is trained on, and identify it."""
    check_patterns(store_path)
    store_ds = open_store(store_path)
    ds = data if isinstance(data, xr.Dataset) else store_ds
    mask = resolve_roi(ds, roi)
    if roi is None and n.ROI in ds:
        log.info(
            f"the ROI is that of run {n.DEFAULT_RUN!r}, {int(mask.sum())} {schema.samples_word(ds)}"
        )
    stores = stores_of(ds)
    if not stores:
        store_roi, fingerprint = _scan_inputs(ds, mask, store_ds)
        if SEEN in fingerprint:
            ds = _without_value_attrs(ds)
        return TrainingData(store_path, ds, mask, store_ds, store_roi, fingerprint)
    scans: dict[str, Any] = {}
    rois = []
    paths = [check_store(path) for path in stores if path]
    for number, path in enumerate(paths):
        check_patterns(path)
        scan_store = open_store(path)
        scan_ds = xr.Dataset({n.PATTERNS: scan_of(ds[n.PATTERNS], ds[SCAN], number, scan_store)})
        scan_roi, scan_fingerprint = _scan_inputs(
            scan_ds, scan_of(mask, ds[SCAN], number, scan_store), scan_store
        )
        scans[str(number)] = scan_fingerprint | {"region": region_fingerprint(scan_roi)}
        rois.append(scan_roi)
    scan = paths.index(store_path)
    fingerprint = joined_fingerprint(scans, scan)
    return TrainingData(store_path, ds, mask, store_ds, rois[scan], fingerprint, scan)


def input_fingerprints(store_path: Path, settings: TrainConfig) -> dict[str, str]:
    """What the values of the patterns, and of the maps that the training uses, are."""
    split_by = settings.split.by or SPLIT_BY.get(settings.split.method)
    names = [n.PATTERNS, settings.objective.label, settings.balance, split_by]
    return check_inputs(store_path, [name for name in names if name])


def joined_fingerprint(scans: Mapping[str, Any], scan: int) -> dict[str, Any]:
    """Identify the patterns of joined scans, in the store of one of them. scans: by number, as
    text.
    """
    return scans[str(scan)] | {SCANS: dict(scans)}


def _scan_inputs(
    ds: xr.Dataset, roi: xr.DataArray, store_ds: xr.Dataset
) -> tuple[xr.DataArray, dict[str, Any]]:
    """ROI over the grid of the store, and what identifies the patterns, where they differ from the
    store's, too.
    """
    check_grid(ds, store_ds)
    store_roi = on_grid(roi, store_ds, fill=False)
    fingerprint = data_fingerprint(store_ds)
    if ds is not store_ds and bool(store_roi.any()):
        sampled = sampled_fingerprint(ds, store_roi)
        if not same_patterns(sampled, sampled_fingerprint(store_ds, store_roi)):
            log.info("the patterns differ from the store's; 'va.encode' needs this Dataset, too")
            fingerprint |= {SEEN: sampled}
    return store_roi, fingerprint


def _without_value_attrs(ds: xr.Dataset) -> xr.Dataset:
    """The Dataset without the attributes of its patterns that hold for their values before the lazy
    steps.
    """
    patterns = ds[n.PATTERNS].copy(deep=False)
    patterns.attrs = {
        key: value for key, value in patterns.attrs.items() if key not in OF_THE_VALUES
    }
    return ds.assign({n.PATTERNS: patterns})


def region_facts(roi: xr.DataArray) -> dict[str, Any]:
    """What a run's manifest states about its ROI."""
    return {"roi": nested(roi.attrs, "config") or GIVEN_AS_MAP, "n_roi": int(roi.sum())}


def region_fingerprint(roi: xr.DataArray) -> dict[str, Any]:
    """Identify an ROI."""
    from vaearr.training import fingerprint

    return {"points": int(roi.sum()), "sha256": fingerprint(roi.values)}


def named_maps(roi: xr.DataArray, split: xr.DataArray, run: str) -> xr.Dataset:
    """ROI and split under the names of a run, without coordinates, which the store has itself."""
    maps = {n.run_name(n.ROI, run): roi, n.run_name(n.SPLIT, run): split}
    return xr.Dataset(maps).reset_coords(drop=True)


def joined_maps(roi: xr.DataArray, split: xr.DataArray, scan: xr.DataArray) -> xr.Dataset:
    """ROI and split of joined scans as a table; its dims `scan_y, scan_x` differ from those of the
    store.
    """
    maps = xr.Dataset({n.ROI: roi.drop_attrs(), n.SPLIT: split.drop_attrs()}, coords={SCAN: scan})
    return maps.rename({dim: f"{SCAN}_{dim}" for dim in roi.dims})


def _is_trained(source: TrainingData, run: str, recipe: Recipe, overwrite: bool) -> bool:
    """Whether the run exists, trained on the same patterns and ROI with the same settings."""
    if run not in run_names(source.store_path):
        return False
    manifest = run_manifest(source.store_path, run)
    stored = {
        "kind": manifest.get("kind", TRAINED),
        "data": manifest.get("data"),
        "region": region_fingerprint(source.store_ds[n.run_name(n.ROI, run)]),
        "config": manifest["config"],
        FINGERPRINTS: manifest.get(FINGERPRINTS),
    }
    if stored["kind"] != TRAINED:
        # The config of an imported or attached run holds no training settings; its kind is the
        # difference.
        stored["config"] = recipe.as_attrs()["config"]
    existing = f"{source.store_path} already has a run {run!r}"
    other_name = "choose another name with run='…' (--run)"
    return is_made(existing, stored, recipe, instead=other_name, overwrite=overwrite)


def split_samples(ds: xr.Dataset, roi: xr.DataArray, settings: TrainConfig) -> xr.DataArray:
    """Split the samples of the ROI into training and validation.

    Raises UsageError if the map that the split goes by does not exist.
    """
    config = settings.split
    n_samples = int(roi.sum())
    if n_samples < FEW_SAMPLES:
        log.warning(
            f"{n_samples} {schema.samples_word(ds)} are few; the run shows that it works, no more."
        )
    by = None
    if config.method in SPLIT_BY:  # groups or classes by a map or coordinate
        name = config.by or SPLIT_BY[config.method]
        candidates = [
            str(v) for v in ds.variables if set(ds[v].dims) == set(roi.dims) and v not in roi.dims
        ]
        if name not in candidates:
            missing = f"there is no map or coordinate {name!r} over {roi.dims}"
            raise UsageError(f"split.by: {missing}.{did_you_mean(name, candidates)}")
        by = ds[name].transpose(*roi.dims).load()
    split = grid.split(roi, config, seed=settings.seed, by=by)
    if config.method == "blocks" and split.attrs["block_used"] != config.block:
        side = split.attrs["block_used"]
        log.info(
            f"split: blocks of side {side}, not {config.block}, so that there are enough to choose from"
        )
    return split


def _model_folder(store: Path, named: str | None) -> Path | None:
    """The model folder of a run of this store, or a path to such a folder or to a checkpoint; None
    for None.
    """
    if named and n.is_valid_name(named):
        return run_folder(store, named) / n.MODEL
    return Path(named).expanduser().resolve() if named else None


def _perceptual_from(store: Path, settings: TrainConfig) -> Path | None:
    """The model folder whose encoder a perceptual term looks with."""
    wanted = settings.objective.perceptual
    if wanted is None:
        return None
    if wanted.kind != "encoder" and wanted.run is not None:
        raise UsageError(
            f"objective.perceptual.run is for kind 'encoder', not for {wanted.kind!r}; leave it out."
        )
    if wanted.kind == "encoder" and wanted.run is None:
        raise UsageError(
            "objective.perceptual.kind 'encoder' needs a trained run: set objective.perceptual.run to its name or to a "
            "model folder."
        )
    return _model_folder(store, wanted.run)


def settled(settings: TrainConfig, ds: xr.Dataset, trust: tuple[str, ...] = ()) -> TrainConfig:
    """The settings with `auto` decided for a Dataset. Raises UsageError for neighbours where there
    is no grid.
    """
    from vaearr.models import is_fitted
    from vaearr.models.preprocess import settled as settled_preprocess

    preprocess, objective = settings.preprocess, settings.objective
    if settings.model.name == "nmf" and preprocess.normalise == "auto":  # amounts are not negative
        preprocess = preprocess.replace(normalise="none")
    preprocess = settled_preprocess(preprocess, ds[n.PATTERNS])
    if is_fitted(settings.model.name, trust):
        return settings.replace(preprocess=preprocess.to_attrs())
    is_scan = schema.is_scan(ds)
    if objective.input_noise is None:
        objective = objective.replace(input_noise=float(is_scan))
    if objective.target == "neighbour" and not is_scan:
        raise UsageError(
            "objective.target is 'neighbour', but the samples are a collection without a grid; set it to 'self'."
        )
    if objective.target == "auto":
        objective = objective.replace(target="neighbour" if is_scan else "self")
    return settings.replace(objective=objective.to_attrs(), preprocess=preprocess.to_attrs())


def check_extras(settings: TrainConfig) -> None:
    """Raise MissingExtraError where the model or a logger needs a package that is not there."""
    if settings.model.name == "autoencoder-kl":
        need("monai", "vaearr[monai]", settings.model.name)
    if settings.log:
        need("tensorboard", "vaearr[loggers]", "logging to tensorboard")


def resolve_roi(ds: xr.Dataset, roi: xr.DataArray | RoiConfig | None) -> xr.DataArray:
    """The boolean ROI map that is meant: given, by conditions, the store's own, or all measured
    points.
    """
    if isinstance(roi, RoiConfig):
        return grid.roi(ds, config=roi)
    if roi is None:
        return ds[n.ROI].load() if n.ROI in ds else grid.roi(ds)
    mask, config = grid.check_map(ds, roi), nested(roi.attrs, "config")
    if n.PRESENT in ds:
        mask = mask & ds[n.PRESENT].load()
    known = {"config": config} if isinstance(config, dict) else {}
    return (
        mask.rename(n.ROI)
        .drop_attrs()
        .assign_attrs({**n.ATTRS[n.ROI], **known, "n": int(mask.sum())})
    )


def data_fingerprint(ds: xr.Dataset) -> dict[str, Any]:
    """What identifies the patterns a model saw: the store, the checksum of the patterns, their
    shape and dtype.
    """
    patterns = ds[n.PATTERNS]
    return {
        "store_id": ds.attrs.get(n.STORE_ID),
        "fingerprint": ds.attrs.get(n.PATTERNS_FINGERPRINT),
        "dims": list(map(str, patterns.dims)),
        "shape": list(patterns.shape),
        "dtype": str(patterns.dtype),
    }
