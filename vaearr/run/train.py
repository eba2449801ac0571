"""From a store to a trained run in it: ROI, split, training, health, artefact, all published together."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import check_grid, in_chunks, is_same, on_grid, seen
from vaearr.computing.progress import Progress, showing
from vaearr.config import RoiConfig, TrainConfig, resolved, settings_as_keywords
from vaearr.config.parts import parts_of_users, trusted_names
from vaearr.errors import UsageError, did_you_mean, need
from vaearr.models.artifacts import SEEN
from vaearr.recipe import Recipe, as_json, differing, is_made, nested
from vaearr.run import Run
from vaearr.schema import grid
from vaearr.schema.pattern_steps import OF_THE_VALUES
from vaearr.store import (
    beside,
    check_patterns,
    check_run_name,
    check_store,
    has_table,
    open_store,
    open_table,
    publish_run,
    recover,
    run_folder,
    run_manifest,
    run_names,
    staged_run,
    store_of,
    write_dataset,
)
from vaearr.store.remove import removable

log = logging.getLogger("vaearr")

FEW_SAMPLES = 16
GIVEN = "given as a map"
TOGETHER = "together"  # in a manifest: the patterns of all stores that trained the model
SPLIT_BY = {"groups": "subject", "stratified": "label"}


@settings_as_keywords(TrainConfig)
def train(
    data: str | Path | xr.Dataset | Sequence[str | Path],
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
    **given: Any,
) -> Run:
    """Train a VAE on the scan points of the ROI and publish it as `/runs/<run>` with its `roi` and `split` maps.

    data: a store, or a Dataset with dask chunks and any lazy steps on it, such as a crop, another background or binned
    detector pixels; its chunks are what is read. Its run goes into the store that it was opened from, or into `store`,
    whose grid it has or a part of. Where the patterns are not the store's own the run says so, and `va.encode` takes
    the same Dataset again. Several stores train one model, on all their points alike; neighbours and validation points
    are each store's own, and each gets the run, with its own `roi` and `split`. The first one's is returned.

    roi: a map from `va.roi`, or conditions; None takes the ROI of the default run if the store has one, else every
    measured point. Other keywords replace single settings of `config`. Nothing is visible in the store before all is
    finished. After an interruption the same call goes on where it was, exactly; `restart` throws that away instead.
    resume: a checkpoint file (of `checkpoint_every`) to go on from. Several processes: start them with torchrun; each
    makes this call. A run that is there, trained the same way, is returned; `overwrite` replaces another one of this
    name, with its latents and tables, when the new one is trained. Raises ExistsError for a name that is taken,
    RoiError and UsageError for settings that do not fit, or that differ from those of the interrupted training.

    trust: networks of your own packages, as `package.module:Name`, that the run or model folder of `init` or of the
    perceptual term may name; see `va.load_run`. Parts that your settings name need no such word.

    progress: False shows none; a function is told (epochs done, in all at most, text with the losses).
    """
    settings = resolved(TrainConfig, config, given)
    trusted = trusted_names(trust) + parts_of_users(settings.model.name)
    check_run_name(run)
    check_extras(settings)
    if isinstance(data, str | Path | xr.Dataset):
        paths = [store_of(data, store)]
    else:
        paths = check_together(data, store, roi, settings)
    path = paths[0]
    from vaearr.training import fingerprint, joined, train_model

    with joined(settings.device) as (team, torch_device), ExitStack() as stack:
        show = stack.enter_context(showing(progress, "training"))
        team.first_does(lambda: list(map(recover, paths)))
        given_by = [_given(data if len(paths) == 1 else one, one, roi) for one in paths]
        settings = settled(settings, given_by[0].ds)
        kind = "trained" if resume is None else f"trained from {resume}"
        together = {TOGETHER: [one.patterns for one in given_by]} if len(paths) > 1 else {}

        def is_there(one: Given) -> bool:
            inputs = {"kind": kind, "data": one.patterns | together, "region": _region(one.everywhere.values)}
            return _is_trained(one, run, Recipe(settings, inputs), overwrite=overwrite)

        there = team.first_does(lambda: [is_there(one) for one in given_by])
        shares = [_parts(one.ds, one.mask, settings) for one in given_by]
        if there[0]:
            team.first_does(lambda: _publish_in_others(given_by, there, shares, run, together))
            return Run(path, run, trust=trusted)
        ds, mask, parts = given_by[0].ds, given_by[0].mask, shares[0]
        if len(paths) > 1:
            ds, mask, parts = laid_together([one.ds for one in given_by], [one.mask for one in given_by], shares)
        patterns = given_by[0].patterns | together
        old = team.first_does(lambda: removable(path, runs=[run] if run in run_names(path) else []))
        folder = team.first_does(lambda: stack.enter_context(staged_run(path, run, keep=n.MODEL, replacing=old)))
        maps = {"roi": mask.values, "split": parts.values}
        maps |= {name: grid.class_map(ds, name)[0] for name in (settings.objective.label, settings.balance) if name}
        tables, manifest = train_model(
            ds,
            parts,
            settings,
            folder / n.MODEL,
            device=torch_device,
            team=team,
            data={"patterns": patterns, **{name: fingerprint(values) for name, values in maps.items()}},
            init=_model_folder(path, settings.init),
            perceptual_from=_perceptual_from(path, settings),
            resume=Path(resume).expanduser().resolve() if resume else None,
            restart=restart,
            trust=trusted,
            logs=(beside(path).with_name(f"{path.name}.logs"), run),
            on_step=on_step,
            on_epoch=lambda epoch, row: show(epoch + 1, settings.epochs, f"training, {_loss_words(row)}"),
        )
        manifest |= {"run": run} | _about(given_by[0])
        if team.is_first:
            for name, table in tables.items():
                write_dataset(table, folder / name, run=run)
            publish_run(path, run, folder, manifest, _maps_of(given_by[0], shares[0], run), replacing=old)
            _publish_in_others(given_by, there, shares, run, together)
            for warning in tables[n.HEALTH].attrs["warnings"]:
                log.warning(warning)
    return Run(path, run, trust=trusted, history=tables[n.HISTORY], health=tables[n.HEALTH], manifest=manifest)


def _loss_words(row: Mapping[str, float]) -> str:
    held_out = f", validation {row['val_loss']:.1f}" if "val_loss" in row else ""
    return f"loss {row['loss']:.1f}{held_out} nats per sample"


class Given(NamedTuple):
    """What is learned from: a store, its Dataset, that which is given, the region, the same on the store's grid, and
    what identifies the patterns."""

    path: Path
    own: xr.Dataset
    ds: xr.Dataset
    mask: xr.DataArray
    everywhere: xr.DataArray
    patterns: dict[str, Any]


def _given(data: Any, path: Path, roi: xr.DataArray | RoiConfig | None) -> Given:
    check_patterns(path)
    own = open_store(path)
    ds = data if isinstance(data, xr.Dataset) else own
    check_grid(ds, own)
    mask, patterns = resolve_roi(ds, roi), data_fingerprint(own)
    everywhere = on_grid(mask, own, fill=False)
    if roi is None and n.ROI in ds:
        log.info(f"the ROI is that of run {n.DEFAULT_RUN!r}, {int(mask.sum())} {schema.samples_word(ds)}")
    if ds is not own and not is_same(found := seen(ds, everywhere), seen(own, everywhere)):
        log.info("the patterns are not the store's own; 'va.encode' needs this Dataset, too")
        changed = ds[n.PATTERNS].copy(deep=False)  # its attributes are of the values before the steps
        changed.attrs = {key: value for key, value in changed.attrs.items() if key not in OF_THE_VALUES}
        ds, patterns = ds.assign({n.PATTERNS: changed}), patterns | {SEEN: found}
    return Given(path, own, ds, mask, everywhere, patterns)


def _about(one: Given) -> dict[str, Any]:
    """What a run's manifest says of its region in a store."""
    return {"roi": nested(one.mask.attrs, "config") or GIVEN, "n_roi": int(one.mask.sum())}


def _maps_of(one: Given, parts: xr.DataArray, run: str) -> xr.Dataset:
    """Region and split on the store's grid; the store has its own coordinates beside the grid's."""
    maps = {n.run_name(n.ROI, run): one.everywhere, n.run_name(n.SPLIT, run): on_grid(parts, one.own, n.OUTSIDE)}
    return xr.Dataset(maps).reset_coords(drop=True)


def _publish_in_others(
    given: Sequence[Given], there: Sequence[bool], shares: Sequence[xr.DataArray], run: str, together: dict[str, Any]
) -> None:
    """Put the run of the first store into those of the others that do not have it."""
    source = given[0].path
    for one, is_there, parts in zip(given[1:], there[1:], shares[1:], strict=True):
        if is_there:
            continue
        old = removable(one.path, runs=[run] if run in run_names(one.path) else [])
        manifest = run_manifest(source, run) | {"data": one.patterns | together} | _about(one)
        with staged_run(one.path, run, replacing=old) as folder:
            shutil.copytree(run_folder(source, run) / n.MODEL, folder / n.MODEL)
            for name in (n.HISTORY, n.HEALTH, n.SHEETS):
                if has_table(source, run, name):
                    write_dataset(open_table(source, run, name), folder / name, run=run)
            publish_run(one.path, run, folder, manifest, _maps_of(one, parts, run), replacing=old)
        log.info(f"{one.path} has run {run!r}, too")


def check_together(
    stores: Sequence[str | Path], store: Any, roi: xr.DataArray | RoiConfig | None, settings: TrainConfig
) -> list[Path]:
    """Their paths. Raises UsageError unless these stores can train one model: alike in detector and dtype."""
    if not stores or store is not None or not all(isinstance(one, str | Path) for one in stores):
        raise UsageError("several stores are given by their paths; store= is for a single Dataset.")
    if isinstance(roi, xr.DataArray):
        raise UsageError("a map of a region is one store's; give conditions (va.RoiConfig) for several.")
    if settings.objective.label or settings.balance:
        raise UsageError("objective.label and balance go by a map of one store; leave them out, or train on one store.")
    paths, kinds = [check_store(one) for one in stores], list[Any]()
    if twice := [one for one in paths if paths.count(one) > 1]:
        raise UsageError(f"{twice[0]} is named twice; name each store once.")
    for path in paths:
        ds = open_store(path)
        about = {"sides": schema.input_shape(ds), "dtype": ds[n.PATTERNS].dtype, "over": schema.navigation_dims(ds)}
        kinds.append(as_json(about))
        if found := differing(kinds[0], kinds[-1], "patterns"):
            raise UsageError(
                f"{paths[0]} and {path} cannot train one model: {', '.join(found)}; bin or crop them alike."
            )
    return paths


def laid_together(
    scans: Sequence[xr.Dataset], masks: Sequence[xr.DataArray], parts: Sequence[xr.DataArray]
) -> tuple[xr.Dataset, xr.DataArray, xr.DataArray]:
    """Scans one after the other along their first navigation dim, as one lazy Dataset, with its region and split.

    Narrower ones are filled up, and a gap that nobody measured keeps neighbours apart.
    """
    nav = schema.navigation_dims(scans[0])
    most = {dim: max(ds.sizes[dim] for ds in scans) for dim in nav[1:]}
    pieces = []
    for ds, mask, part in zip(scans, masks, parts, strict=True):
        one = xr.Dataset({n.PATTERNS: in_chunks(ds[n.PATTERNS], nav), n.ROI: mask, n.SPLIT: part})
        one = one.drop_vars([name for name, coord in one.coords.items() if set(coord.dims) & set(nav)])
        gaps = {dim: (0, size - ds.sizes[dim]) for dim, size in most.items()} | ({nav[0]: (0, 1)} if most else {})
        pieces.append(one.pad(gaps, constant_values=0, keep_attrs=True))
    ds = xr.concat(pieces, nav[0], combine_attrs="override")
    ds = ds.assign_coords({dim: np.arange(ds.sizes[dim]) for dim in nav}).assign_attrs(scans[0].attrs)
    return ds[[n.PATTERNS]], ds[n.ROI].astype(bool).load(), ds[n.SPLIT].load()


def _is_trained(one: Given, run: str, recipe: Recipe, *, overwrite: bool) -> bool:
    """Whether the run is there, trained the same way: on the same patterns and region, with the same settings."""
    if run not in run_names(one.path):
        return False
    manifest, region = run_manifest(one.path, run), one.own[n.run_name(n.ROI, run)].values
    kind = manifest.get("kind", "trained")
    made = {"kind": kind, "data": manifest.get("data"), "region": _region(region)}
    made["config"] = manifest["config"] if kind == "trained" else recipe.as_attrs()["config"]
    there, instead = f"{one.path} already has a run {run!r}", "choose another name with run='…' (--run)"
    return is_made(there, made, recipe, instead=instead, overwrite=overwrite)


def _region(mask: Any) -> dict[str, Any]:
    from vaearr.training import fingerprint

    return {"points": int(mask.sum()), "sha256": fingerprint(mask)}


def _parts(ds: xr.Dataset, roi: xr.DataArray, settings: TrainConfig) -> xr.DataArray:
    """The split of the region. Raises UsageError where the map that it goes by is not there."""
    config, by = settings.split, None
    if int(roi.sum()) < FEW_SAMPLES:
        log.warning(f"{int(roi.sum())} {schema.samples_word(ds)} are few; the run shows that it works, no more.")
    if config.method in SPLIT_BY:  # groups or classes by a map or coordinate
        name = config.by or SPLIT_BY[config.method]
        over = [str(v) for v in ds.variables if set(ds[v].dims) == set(roi.dims) and v not in roi.dims]
        if name not in over:
            there = f"there is no map or coordinate {name!r} over {roi.dims}"
            raise UsageError(f"split.by: {there}.{did_you_mean(name, over)}")
        by = ds[name].transpose(*roi.dims).load()
    parts = grid.split(roi, config, seed=settings.seed, by=by)
    if config.method == "blocks" and (side := parts.attrs["block_used"]) != config.block:
        log.info(f"split: blocks of side {side}, not {config.block}, so that there are enough to choose from")
    return parts


def _model_folder(store: Path, named: str | None) -> Path | None:
    """The model folder of a run of this store, or a path to such a folder or to a checkpoint; None for None."""
    if named and n.is_valid_name(named):
        return run_folder(store, named) / n.MODEL
    return Path(named).expanduser().resolve() if named else None


def _perceptual_from(store: Path, settings: TrainConfig) -> Path | None:
    """The model folder whose encoder a perceptual term looks with."""
    wanted = settings.objective.perceptual
    if wanted is None:
        return None
    if wanted.kind != "encoder" and wanted.run is not None:
        raise UsageError(f"objective.perceptual.run is for kind 'encoder', not for {wanted.kind!r}; leave it out.")
    if wanted.kind == "encoder" and wanted.run is None:
        raise UsageError(
            "objective.perceptual.kind 'encoder' needs a trained run: set objective.perceptual.run to its name or to a "
            "model folder."
        )
    return _model_folder(store, wanted.run)


def settled(settings: TrainConfig, ds: xr.Dataset) -> TrainConfig:
    """The settings with `auto` decided for a Dataset. Raises UsageError for neighbours where there is no grid."""
    from vaearr.models.preprocess import settled as settled_preprocess

    objective, is_scan = settings.objective, schema.is_scan(ds)
    if objective.input_noise is None:
        objective = objective.replace(input_noise=float(is_scan))
    if objective.target == "neighbour" and not is_scan:
        raise UsageError(
            "objective.target is 'neighbour', but the samples are a collection without a grid; set it to 'self'."
        )
    if objective.target == "auto":
        objective = objective.replace(target="neighbour" if is_scan else "self")
    preprocess = settled_preprocess(settings.preprocess, ds[n.PATTERNS])
    return settings.replace(objective=objective.to_attrs(), preprocess=preprocess.to_attrs())


def check_extras(settings: TrainConfig) -> None:
    """Raise MissingExtraError where the model or a logger needs a package that is not there."""
    if settings.model.name == "autoencoder-kl":
        need("monai", "vaearr[monai]", settings.model.name)
    if settings.log:
        need("tensorboard", "vaearr[loggers]", "logging to tensorboard")


def resolve_roi(ds: xr.Dataset, roi: xr.DataArray | RoiConfig | None) -> xr.DataArray:
    """The boolean ROI map that is meant: given, by conditions, the store's own, or all measured points."""
    if isinstance(roi, RoiConfig):
        return grid.roi(ds, config=roi)
    if roi is None:
        return ds[n.ROI].load() if n.ROI in ds else grid.roi(ds)
    mask, config = grid.check_map(ds, roi), nested(roi.attrs, "config")
    if n.PRESENT in ds:
        mask = mask & ds[n.PRESENT].load()
    known = {"config": config} if isinstance(config, dict) else {}
    return mask.rename(n.ROI).drop_attrs().assign_attrs({**n.ATTRS[n.ROI], **known, "n": int(mask.sum())})


def data_fingerprint(ds: xr.Dataset) -> dict[str, Any]:
    """What identifies the patterns a model saw: the store, the checksum of the patterns, their shape and dtype."""
    patterns = ds[n.PATTERNS]
    return {
        "store_id": ds.attrs.get(n.STORE_ID),
        "sha256": patterns.attrs.get("sha256"),
        "dims": list(map(str, patterns.dims)),
        "shape": list(patterns.shape),
        "dtype": str(patterns.dtype),
    }
