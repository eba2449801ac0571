"""A run of one store in another store."""

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
from vaearr.recipe import FINGERPRINTS, Recipe, is_made
from vaearr.run import Run, StoreOrRun, path_of
from vaearr.run.concat import SCAN, scan_of
from vaearr.run.importing import import_model
from vaearr.run.train import SCANS, TRAINED, joined_fingerprint, named_maps
from vaearr.store import (
    check_patterns,
    check_run_name,
    has_table,
    open_store,
    publish_run,
    run_folder,
    run_manifest,
    run_names,
    staged_run,
)
from vaearr.store.remove import removable


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
    scan = _number_of_scan(run, store_path)
    if scan is None:
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
            f"run {run.name!r} was trained on points of {store_path}; they are its ROI, so leave out roi."
        )
    return _copied(run, scan, store_path, name, overwrite=overwrite)


def _number_of_scan(run: Run, store_path: Path) -> int | None:
    """Which of the scans that the run was trained on the store is; None if it is none of them."""
    store_id = open_store(store_path, chunks=None).attrs.get(n.STORE_ID)
    for number, scan in run.manifest.get("data", {}).get(SCANS, {}).items():
        if scan["store_id"] == store_id:
            return int(number)
    return None


def _copied(run: Run, scan: int, store_path: Path, name: str, *, overwrite: bool) -> Run:
    """Publish the run in the store of another scan that it was trained on, with the ROI and split
    of that scan.
    """
    check_patterns(store_path)
    data = joined_fingerprint(run.manifest["data"][SCANS], scan)
    exists = name in run_names(store_path)
    if exists:
        existing = run_manifest(store_path, name)
        inputs = {"kind": TRAINED, "weights_sha256": run.manifest["weights_sha256"], "data": data}
        stored = {key: existing.get(key) for key in inputs} | {
            "kind": existing.get("kind", TRAINED)
        }
        there = f"{store_path} already has a run {name!r}"
        if is_made(
            there,
            stored,
            Recipe(None, inputs),
            instead="choose another name with name='…'",
            overwrite=overwrite,
        ):
            return Run(store_path, name, trust=run.trust)
    store_ds = open_store(store_path)
    maps = _joined_maps(run)
    roi = on_grid(scan_of(maps[n.ROI], maps[SCAN], scan, store_ds), store_ds, fill=False)
    split = on_grid(scan_of(maps[n.SPLIT], maps[SCAN], scan, store_ds), store_ds, n.OUTSIDE)
    n_roi = int(roi.sum())
    roi.attrs = {**run.variable(n.ROI).attrs, "n": n_roi}
    roi.attrs.pop("kept", None)  # counts of all scans
    split.attrs = run.variable(n.SPLIT).attrs
    manifest = {**run.manifest, "run": name, "data": data, "n_roi": n_roi}
    manifest.pop(FINGERPRINTS, None)  # of the inputs in the other store
    replaced = removable(store_path, [f"{n.RUNS}/{name}"] if exists else [])
    with staged_run(store_path, name, replacing=replaced) as folder:
        model_folder = run_folder(run.path, run.name) / n.MODEL
        shutil.copytree(model_folder, folder / n.MODEL)
        about = read_about(model_folder) | {"data": data}
        (folder / n.MODEL / n.MODEL_CONFIG).write_text(json.dumps(about, indent=2))
        names = (n.HISTORY, n.HEALTH, n.SHEETS, n.SCANS)
        tables = {
            table: run.table(table) for table in names if has_table(run.path, run.name, table)
        }
        maps = named_maps(roi, split, name)
        publish_run(store_path, name, folder, manifest, maps, tables=tables, replacing=replaced)
    return Run(store_path, name, trust=run.trust, manifest=manifest)


def _joined_maps(run: Run) -> xr.Dataset:
    """ROI and split of all scans that a run was trained on, over the navigation dims."""
    table = run.table(n.SCANS)
    return table.rename({dim: str(dim).removeprefix(f"{SCAN}_") for dim in table.dims})
