"""All steps on a small simulated scan: files on disk -> store -> latents -> report."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import vaearr as va
from vaearr import names as n
from vaearr.config import SignificanceConfig, TrainConfig
from vaearr.errors import ExistsError

MARK = ".vaearr-demo"
FILES, STORE, REPORTS = "files", "scan.zarr", "scan.reports"
OWN = (FILES, STORE, REPORTS, f".{STORE}.lock", f".{STORE}.staging")  # what a demo leaves in its folder
STEP = 0.25  # um between scan points
log = logging.getLogger("vaearr")


def run_demo(folder: str | Path, *, config: TrainConfig | None = None, nx: int = 48, ny: int = 36) -> list[str]:
    """Simulate a scan, write it as HDF5 and CSV files, and take it through every step; returns the closing lines.

    An earlier demo in the folder is replaced. A folder that holds anything else is refused with ExistsError, and
    nothing is removed from it.
    """
    from vaearr.testing import synthetic_scan, write_scan_files

    target = _fresh(Path(folder))
    log.info(f"1/8 simulate a scan of {nx} x {ny} points: {target / FILES}")
    scan = synthetic_scan(nx=nx, ny=ny, step=STEP)
    files = write_scan_files(scan, target / FILES)
    store = target / STORE
    log.info(f"2/8 ingest: {store}")
    attrs = scan[n.PHASE].attrs
    phases = zip(attrs["flag_values"], attrs["flag_meanings"].split(), strict=True)
    va.ingest(
        files[n.PATTERNS],
        store,
        step=STEP,
        maps={n.BC: files[n.BC]},
        elements=files[n.ELEMENTS],
        phases=files[n.PHASE],
        phase_names={int(code): name for code, name in phases if code >= 0},
    )
    log.info("3/8 train")
    va.train(store, config=config or TrainConfig())
    log.info("4/8 encode")
    va.encode(store)
    log.info("5/8 principal components, to compare with")
    va.encode(va.train(store, run=n.PCA, model=n.PCA))
    log.info("6/8 associate, tested against random maps of the same smoothness")
    tested = va.describe(va.associate_store(store, significance=SignificanceConfig()), top=1)
    log.info("\n".join(f"    {line}" for line in tested))
    log.info("7/8 cluster: grains, without knowing their number")
    grains = va.describe(va.cluster_store(store, method="hdbscan", name="grains"))
    log.info("\n".join(f"    {line}" for line in grains))
    log.info("8/8 report")
    page = va.report(store, out=target / REPORTS / n.DEFAULT_RUN)
    code = ["import xarray as xr", f'ds = xr.open_zarr("{store}"); print(ds)']
    return [f"store:  {store}", f"report: {page}", "", *code]


def _fresh(folder: Path) -> Path:
    """The folder, empty except for the demo's mark."""
    folder = folder.expanduser()
    if folder.is_symlink():
        raise ExistsError(f"{folder} is a link, not a folder; give a folder.")
    if folder.exists() and not folder.is_dir():
        raise ExistsError(f"{folder} is a file, not a folder; give a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    existing = sorted(path.name for path in folder.iterdir() if path.name != MARK)
    is_demo = (folder / MARK).exists()
    others = [name for name in existing if name not in OWN or not is_demo]
    if others:
        raise ExistsError(f"{folder} holds {', '.join(others)}, not the demo's; move it or give another folder.")
    (folder / MARK).touch()
    for name in existing:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return folder
