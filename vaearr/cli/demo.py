"""All steps on a small simulated scan: files on disk -> store -> latents -> report."""

from __future__ import annotations

import logging
from pathlib import Path

import vaearr as va
from vaearr import names as n
from vaearr import schema
from vaearr.config import TrainConfig
from vaearr.errors import ExistsError

MARK = ".vaearr-demo"
FILES, STORE, REPORTS = "files", "scan.zarr", "scan.reports"
STEP = 0.25  # um between scan points
log = logging.getLogger("vaearr")


def run_demo(
    folder: str | Path, *, config: TrainConfig | None = None, nx: int = 48, ny: int = 36
) -> list[str]:
    """Simulate a scan, write it as HDF5 and CSV files, and take it through every step; returns the
    closing lines.

    The files of an earlier demo in the folder are replaced. A folder that holds anything else is
    refused with ExistsError.
    """
    from vaearr.testing import synthetic_scan, write_scan_files
    from vaearr.views.summaries import association_lines, cluster_lines

    target = Path(folder).expanduser()
    if target.exists() and not (target / MARK).exists() and any(target.iterdir()):
        raise ExistsError(f"{target} holds something else than a demo; give another folder.")
    target.mkdir(parents=True, exist_ok=True)
    (target / MARK).touch()
    log.info(f"1/8 simulate a scan of {nx} x {ny} points: {target / FILES}")
    scan = synthetic_scan(nx=nx, ny=ny, step=STEP)
    files = write_scan_files(scan, target / FILES)
    store = target / STORE
    log.info(f"2/8 ingest: {store}")
    va.ingest(
        files[n.PATTERNS],
        store,
        step=STEP,
        maps={n.BC: files[n.BC]},
        elements=files[n.ELEMENTS],
        phases=files[n.PHASE],
        phase_names=schema.categories(scan[n.PHASE]),
        overwrite=True,
    )
    log.info("3/8 train")
    va.train(store, config=config or TrainConfig())
    log.info("4/8 encode")
    va.encode(store)
    log.info("5/8 principal components, to compare with")
    va.encode(va.train(store, run=n.PCA, model=n.PCA))
    log.info("6/8 associate, tested against random maps of the same smoothness")
    tested = association_lines(va.load_run(store).associate(significance=True))
    log.info("\n".join(f"    {line}" for line in tested))
    log.info("7/8 cluster: grains, without knowing their number")
    grains = cluster_lines(va.load_run(store).cluster(method="hdbscan", name="grains"), "grains")
    log.info("\n".join(f"    {line}" for line in grains))
    log.info("8/8 report")
    page = va.load_run(store).report(target / REPORTS / n.DEFAULT_RUN)
    code = ["import xarray as xr", f'ds = xr.open_zarr("{store}"); print(ds)']
    return [f"store:  {store}", f"report: {page}", "", *code]
