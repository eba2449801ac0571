"""The whole line on a small scan made from crystal geometry: files on disk -> store -> latents -> report."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from vaearr import names as n
from vaearr.config import AssociateConfig, ClusterConfig, EmbedConfig, IngestConfig, SignificanceConfig, TrainConfig
from vaearr.errors import ExistsError, WriteError

MARK = ".vaearr-demo"
FILES, STORE, REPORTS = "files", "scan.zarr", "scan.reports"
OWN = (FILES, STORE, REPORTS, f".{STORE}.lock", f".{STORE}.staging")  # what a demo leaves in its folder
STEP = 0.25


def run_demo(
    folder: str | Path,
    *,
    store: str | Path | None = None,
    config: TrainConfig | None = None,
    nx: int = 48,
    ny: int = 36,
    say: Callable[[str], None],
    progress: Callable[..., None] | None = None,
) -> list[str]:
    """Make a scan, write it as HDF5 and CSV files, and take it through every step; returns the closing lines.

    folder: everything goes there, but the store if `store` names another place for it, such as `s3://…`. What an
    earlier demo left in the folder is made anew; a folder that holds anything else is refused with ExistsError, and
    nothing is removed from it.
    """
    from vaearr.association import associate_store, top_lines
    from vaearr.clustering import cluster_lines, cluster_store
    from vaearr.embedding import embed_store
    from vaearr.ingestion import ingest
    from vaearr.reporting import report
    from vaearr.run.encode import encode
    from vaearr.run.train import train
    from vaearr.store import as_url
    from vaearr.testing import synthetic_scan, write_scan_files

    config = config or TrainConfig()
    target = _fresh(Path(folder))
    say(f"1/8 a scan of {nx} x {ny} points from crystal geometry: {target / FILES}")
    scan = synthetic_scan(nx=nx, ny=ny, step=STEP)
    files = write_scan_files(scan, target / FILES)
    store = store or target / STORE
    say(f"2/8 ingest: {store}")
    names = dict(zip(scan[n.PHASE].attrs["flag_values"], scan[n.PHASE].attrs["flag_meanings"].split(), strict=True))
    settings = IngestConfig(
        maps={n.BC: files[n.BC]},
        elements=files[n.ELEMENTS],
        phases=files[n.PHASE],
        phase_names={int(code): name for code, name in names.items() if code >= 0},
        step=STEP,
    )
    ingest(files[n.PATTERNS], store, config=settings, say=say)
    say("3/8 train")

    def on_epoch(epoch: int, row: dict[str, float]) -> None:
        if progress:
            progress(epoch + 1, config.epochs, "training")

    train(store, config=config, say=say, on_epoch=on_epoch)
    say("4/8 encode")
    encode(store, say=say)
    say("5/8 embed: principal components, to compare with")
    embed_store(store, EmbedConfig(), say=say)
    say("6/8 associate, tested against random maps that are as smooth")
    tested = AssociateConfig(significance=SignificanceConfig())
    for line in top_lines(associate_store(store, tested), top=1):
        say(f"    {line}")
    say("7/8 cluster: grains, without their number being told")
    grains = cluster_store(store, ClusterConfig(method="hdbscan", name="grains"))
    for line in cluster_lines(grains, "grains"):
        say(f"    {line}")
    say("8/8 report")
    page = report(store, out=target / REPORTS / n.DEFAULT_RUN)
    opens = "va.open_store" if as_url(store) else "xr.open_zarr"
    return [
        f"store:  {store}",
        f"report: {page}",
        "",
        "import vaearr as va" if as_url(store) else "import xarray as xr",
        f'ds = {opens}("{store}"); print(ds)',
    ]


def _fresh(folder: Path) -> Path:
    """The folder, empty but for the demo's mark."""
    folder = folder.expanduser()
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ExistsError(f"{folder} is a {'link' if folder.is_symlink() else 'file'}, not a folder; give a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        inside = sorted(path.name for path in folder.iterdir() if path.name != MARK)
        if inside and not (folder / MARK).exists():
            raise ExistsError(f"{folder} is there and was not made by the demo; give another folder.")
        if others := [name for name in inside if name not in OWN]:
            raise ExistsError(f"{folder} holds {', '.join(others)}, not the demo's; move it or give another folder.")
        (folder / MARK).touch()
        for path in (folder / name for name in inside):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except ExistsError:
        raise
    except OSError as error:
        raise WriteError(f"the demo cannot be made in {folder}: {error.strerror or error}.") from error
    return folder
