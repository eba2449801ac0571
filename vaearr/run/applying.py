"""Copy a run into another store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import xarray as xr

from vaearr import names as n
from vaearr.batching.blocks import on_grid
from vaearr.config import RoiConfig
from vaearr.errors import UsageError
from vaearr.models.artifacts import read_about
from vaearr.recipe import FINGERPRINTS, Recipe, can_reuse
from vaearr.run import Run, StoreOrRun, path_of
from vaearr.run.concat import SCAN, scan_of
from vaearr.run.importing import import_model
from vaearr.run.train import SCAN_IDENTITIES, TRAINED, joined_identity, named_maps
from vaearr.store import (
    check_patterns,
    check_run_name,
    finish_run,
    has_table,
    open_store,
    run_folder,
    run_manifest,
    run_names,
    stage_run,
)
from vaearr.store.remove import removable

TABLES = (n.HISTORY, n.HEALTH, n.SHEETS, n.SCANS)


def apply_run(
    run: Run,
    store: StoreOrRun,
    *,
    name: str | None,
    roi: xr.DataArray | RoiConfig | None,
    overwrite: bool,
    device: str,
) -> Run:
    """Copy a run into another store, see `Run.apply`."""
    store_path = path_of(store)
    name = name or run.name
    check_run_name(name)
    number = _number_of_scan(run, store_path)
    if number is None:
        model_folder = run_folder(run.path, run.name) / n.MODEL
        return import_model(
            store_path,
            model_folder,
            run=name,
            roi=roi,
            overwrite=overwrite,
            device=device,
            trust=run.trust,
        )
    if roi is not None:
        raise UsageError(
            f"run {run.name!r} was trained on points of {store_path}; they are its ROI, so leave "
            "out roi."
        )
    return _copy_run(run, number, store_path, name, overwrite=overwrite)


def _number_of_scan(run: Run, store_path: Path) -> int | None:
    """Number of the store among the scans of the training; None if it is none of them."""
    store_id = open_store(store_path, chunks=None).attrs.get(n.STORE_ID)
    for number, scan in run.manifest.get("data", {}).get(SCAN_IDENTITIES, {}).items():
        if scan["store_id"] == store_id:
            return int(number)
    return None


def _copy_run(run: Run, number: int, store_path: Path, name: str, *, overwrite: bool) -> Run:
    """Publish a run in the store of another scan of its training, with the maps of that scan."""
    check_patterns(store_path)
    data = joined_identity(run.manifest["data"][SCAN_IDENTITIES], number)
    if name in run_names(store_path):
        inputs = {"kind": TRAINED, "weights_sha256": run.manifest["weights_sha256"], "data": data}
        stored = {"kind": TRAINED, **run_manifest(store_path, name)}
        existing = f"{store_path} already has a run {name!r}"
        way_out = "choose another name with name='…'"
        recipe = Recipe(None, inputs)
        if can_reuse(existing, stored, recipe, way_out=way_out, overwrite=overwrite):
            return Run(store_path, name, trust=run.trust)
    store_ds = open_store(store_path)
    joined = run.table(n.SCANS)
    joined = joined.rename({dim: str(dim).removeprefix(f"{SCAN}_") for dim in joined.dims})
    roi = on_grid(scan_of(joined[n.ROI], joined[SCAN], number, store_ds), store_ds, fill=False)
    split = on_grid(scan_of(joined[n.SPLIT], joined[SCAN], number, store_ds), store_ds, n.OUTSIDE)
    n_roi = int(roi.sum())
    roi.attrs = {**run.variable(n.ROI).attrs, "n": n_roi}
    roi.attrs.pop("kept", None)  # counts of all scans
    split.attrs = run.variable(n.SPLIT).attrs
    manifest = {**run.manifest, "run": name, "data": data, "n_roi": n_roi}
    manifest.pop(FINGERPRINTS, None)  # of the inputs in the other store
    replaced = removable(store_path, [f"{n.RUNS}/{name}"])
    tables = {table: run.table(table) for table in TABLES if has_table(run.path, run.name, table)}
    with stage_run(store_path, name, replacing=replaced) as folder:
        model_folder = run_folder(run.path, run.name) / n.MODEL
        shutil.copytree(model_folder, folder / n.MODEL)
        model_config = read_about(model_folder) | {"data": data}
        (folder / n.MODEL / n.MODEL_CONFIG).write_text(json.dumps(model_config, indent=2))
        maps = named_maps(roi, split, name)
        finish_run(store_path, name, folder, manifest, maps, tables=tables, replacing=replaced)
    return Run(store_path, name, trust=run.trust)
