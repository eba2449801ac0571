"""The whole line on a small scan made from crystal geometry: files on disk -> store -> latents -> report."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import vaearr as va
from vaearr import names as n
from vaearr.config import SignificanceConfig, TrainConfig
from vaearr.errors import ExistsError

MARK = ".vaearr-demo"
FILES, STORE, REPORTS = "files", "scan.zarr", "scan.reports"
OWN = (FILES, STORE, REPORTS, f".{STORE}.lock", f".{STORE}.staging")  # what a demo leaves in its folder
log = logging.getLogger("vaearr")

STEP = 0.25


def run_demo(
    folder: str | Path,
    *,
    store: str | Path | None = None,
    config: TrainConfig | None = None,
    nx: int = 48,
    ny: int = 36,
) -> list[str]:
    """Make a scan, write it as HDF5 and CSV files, and take it through every step; returns the closing lines.

    folder: everything goes there, but the store if `store` names another place for it, such as `s3://…`. What an
    earlier demo left in the folder is made anew; a folder that holds anything else is refused with ExistsError, and
    nothing is removed from it.
    """
    from vaearr.testing import synthetic_scan, write_scan_files

    config, target = config or TrainConfig(), _fresh(Path(folder))
    log.info(f"1/8 a scan of {nx} x {ny} points from crystal geometry: {target / FILES}")
    scan = synthetic_scan(nx=nx, ny=ny, step=STEP)
    files = write_scan_files(scan, target / FILES)
    store = store or target / STORE
    log.info(f"2/8 ingest: {store}")
    names = dict(zip(scan[n.PHASE].attrs["flag_values"], scan[n.PHASE].attrs["flag_meanings"].split(), strict=True))
    about: Any = {"phase_names": {int(code): name for code, name in names.items() if code >= 0}, "step": STEP}
    about |= {"maps": {n.BC: files[n.BC]}, "elements": files[n.ELEMENTS], "phases": files[n.PHASE]}
    va.ingest(files[n.PATTERNS], store, **about)
    log.info("3/8 train")

    va.train(store, config=config)
    log.info("4/8 encode")
    va.encode(store)
    log.info("5/8 embed: principal components, to compare with")
    va.embed_store(store)
    log.info("6/8 associate, tested against random maps that are as smooth")
    tested = va.describe(va.associate_store(store, significance=SignificanceConfig()), "association", top=1)
    log.info("\n".join(f"    {line}" for line in tested))
    log.info("7/8 cluster: grains, without their number being told")
    grains = va.describe(va.cluster_store(store, method="hdbscan", name="grains"), "clusters", name="grains")
    log.info("\n".join(f"    {line}" for line in grains))
    log.info("8/8 report")
    page = va.report(store, out=target / REPORTS / n.DEFAULT_RUN)
    module, opens = ("vaearr as va", "va.open_store") if "://" in str(store) else ("xarray as xr", "xr.open_zarr")
    code = [f"import {module}", f'ds = {opens}("{store}"); print(ds)']
    return [f"store:  {store}", f"report: {page}", "", *code]


def _fresh(folder: Path) -> Path:
    """The folder, empty but for the demo's mark."""
    folder = folder.expanduser()
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ExistsError(f"{folder} is a {'link' if folder.is_symlink() else 'file'}, not a folder; give a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    inside = sorted(path.name for path in folder.iterdir() if path.name != MARK)
    if others := [name for name in inside if name not in OWN or not (folder / MARK).exists()]:
        raise ExistsError(f"{folder} holds {', '.join(others)}, not the demo's; move it or give another folder.")
    (folder / MARK).touch()
    for path in (folder / name for name in inside):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return folder
