"""The formats: tables and arrays, streamed, and pictures at journal resolution; `export` writes one of them."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaearr import names as n
from vaearr.config import ExportConfig, resolved, settings_as_keywords
from vaearr.errors import ExistsError, UsageError, did_you_mean, need
from vaearr.output.exporting.content import Content, gather
from vaearr.recipe import as_json
from vaearr.store.folders import staged

if TYPE_CHECKING:
    import pandas as pd


@settings_as_keywords(ExportConfig)
def export(
    store: str | Path,
    out: str | Path,
    format: str | None = None,
    *,
    config: ExportConfig | None = None,
    **settings: Any,
) -> Path:
    """Write a run of a store as plain files into the folder `out`; returns it.

    format: a name from FORMATS (`seed0` by default); settings replace single ones of `config`, see ExportConfig. Files
    are written aside and renamed in. Nothing is overwritten: a file that is there with the same content stays, one with
    other content is an ExistsError before anything is changed, so that two modes or runs never mix.
    Which parts cannot be made, and why, is logged. Raises NoInputError for runs and variables that are not there,
    UsageError for settings that cannot be meant, ExistsError for a folder in a store, MissingExtraError where an
    optional package is lacking.
    """
    wanted = resolved(ExportConfig, config, {"format": format, **settings})
    if wanted.format not in FORMATS:
        raise UsageError(f"no format is named {wanted.format!r}.{did_you_mean(wanted.format, list(FORMATS))}")
    if wanted.format == "parquet":
        need("pyarrow", "vaearr[parquet]", "the format parquet")
    folder = Path(out).expanduser().absolute()
    within = next((p for p in (folder.resolve(), *folder.resolve().parents) if (p / "zarr.json").exists()), None)
    if within is not None:
        raise ExistsError(f"{within} is a zarr store; export into a folder outside it.")
    content = gather(store, wanted)
    with staged(folder) as aside:
        FORMATS[wanted.format](content, aside)
    return folder


def csv(content: Content, folder: Path) -> None:
    """`latents.csv` (of a run b `latents_b.csv`): x, y[, z], latent_<number> …, then the variables; NaN is empty."""
    with (folder / f"{content.latents.name}.csv").open("w", encoding="utf-8", newline="") as file:
        for i, frame in enumerate(frames(content)):
            frame.to_csv(file, index=False, header=i == 0, lineterminator="\n")


def parquet(content: Content, folder: Path) -> None:
    """The same table as `latents.parquet`; needs pyarrow."""
    pyarrow, storage = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    tables = (pyarrow.Table.from_pandas(frame, preserve_index=False) for frame in frames(content))
    first = next(tables)
    with storage.ParquetWriter(folder / f"{content.latents.name}.parquet", first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def frames(content: Content) -> Iterator[pd.DataFrame]:
    """The table in pieces, row-major; the points of the region, or all where the settings say so."""
    import pandas as pd

    config, latents = content.config, content.latents
    labels = config.latents or content.labels()
    positions = [content.position(label) for label in labels]
    further = sum(content.variable(name).sizes.get(content.variable(name).dims[-1], 1) for name in config.variables)
    for region in content.blocks(8 * (len(labels) + len(content.dims) + further)):
        inside = content.roi.isel(region).values.reshape(-1) | (config.points == "all")
        columns = {dim: values[inside] for dim, values in content.steps(region).items()}
        values = latents.isel(region).values.reshape(inside.size, -1)[inside][:, positions]
        columns |= {f"{n.LATENT}_{label}": values[:, i] for i, label in enumerate(labels)}
        for name in config.variables:
            for column, one in content.maps(name, region).items():
                if column in columns:
                    raise UsageError(f"two columns of the table would be called {column!r}; name one variable less.")
                columns[column] = one.values.reshape(-1)[inside]
        yield pd.DataFrame(columns)


def npy(content: Content, folder: Path) -> None:
    """All latents of the run: every scan point, NaN outside the region, and the region's alone; rows have x fastest.

    `coords.csv` and `coords_roi.csv` hold the step numbers x, y[, z] of the rows.
    """
    import pandas as pd

    inside, n_latents = content.roi.values.reshape(-1), content.latents.shape[-1]

    def array(name: str, n_rows: int) -> np.memmap:
        return np.lib.format.open_memmap(folder / name, mode="w+", dtype=np.float32, shape=(n_rows, n_latents))

    full, own = array("latents_full.npy", inside.size), array("latents_roi.npy", int(inside.sum()))
    start = done = 0
    for region in content.blocks(8 * n_latents):
        rows = content.latents.isel(region).values.reshape(-1, n_latents).astype(np.float32)
        here = inside[start : start + len(rows)]
        rows[~here] = np.nan
        full[start : start + len(rows)] = rows
        own[done : done + int(here.sum())] = rows[here]
        start, done = start + len(rows), done + int(here.sum())
    full.flush()
    own.flush()
    coords = pd.DataFrame(content.steps())
    write_table(coords, folder / "coords.csv")
    write_table(coords[inside], folder / "coords_roi.csv")


def pictures(ending: str, content: Content, folder: Path) -> None:
    """The sheet of latent maps, or one file for each map of the variables asked for."""
    content.need_plane()
    from vaearr.views import save

    dpi = content.config.dpi
    if not content.config.variables:
        sheet = folder / f"{content.latents.name}.{ending}"
        entries = list(content.config.latents) or content.labels()
        _ = [content.position(label) for label in entries]
        save(content.latents, sheet, dpi=dpi, kind="stack", entries=entries)
    for name in content.config.variables:
        outline = None if name.startswith((n.ROI, n.LATENTS)) else content.roi
        for column, one in content.maps(name).items():
            path = folder / f"{file_name(column)}.{ending}"
            if path.exists():
                raise UsageError(f"two pictures would be called {path.name!r}; name one variable less.")
            if column != name:
                one = one.rename(column).assign_attrs(long_name=column)
            save(one.astype("i1") if one.dtype == bool else one, path, dpi=dpi, kind="map", roi=outline)


def _seed0(content: Content, folder: Path) -> None:
    """The first seed's files: arrays, latent maps, cluster, score and ranking files."""
    from vaearr.output.exporting.seed import seed0

    seed0(content, folder)


FORMATS: dict[str, Callable[[Content, Path], None]] = {
    "npy": npy,
    "png": partial(pictures, "png"),
    "pdf": partial(pictures, "pdf"),
    "seed0": _seed0,
    "csv": csv,
    "parquet": parquet,
}


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """CSV with a line of names; NaN is empty."""
    frame.to_csv(path, index=False, lineterminator="\n")


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Strict JSON: NaN and infinity become null."""
    text = json.dumps(as_json(record), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def file_name(text: str) -> str:
    """Text as part of a file name."""
    return re.sub(r"[^\w.+-]+", "_", text)
