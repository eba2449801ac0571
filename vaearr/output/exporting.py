"""Latents and maps as plain files: tables, arrays, pictures, and files of earlier programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import ExistsError, NoInputError, UsageError, did_you_mean, need
from vaearr.ingestion.placing import step_numbers_of
from vaearr.recipe import as_json, nested
from vaearr.store.folders import output_folder

if TYPE_CHECKING:
    import pandas as pd

    from vaearr import Run


def export_run(
    run: Run, out: str | Path, format: str, *, variables: Sequence[str], latents: Sequence[int]
) -> Path:
    """Write a run of a store as plain files into a folder, see `Run.export`."""
    check_format(format, variables, latents)
    folder = Path(out).expanduser().absolute()
    resolved = folder.resolve()
    for parent in (resolved, *resolved.parents):
        if (parent / "zarr.json").exists():
            raise ExistsError(f"{parent} is a zarr store; export into a folder outside it.")
    selected = select_latents(run, latents)
    with output_folder(folder) as temporary:
        FORMATS[format](run, selected, variables, temporary)
    return folder


def check_format(format: str, variables: Sequence[str], latents: Sequence[int]) -> None:
    """Raise an error for an unknown format, and for settings that it does not have."""
    if format not in FORMATS:
        raise UsageError(f"no format is named {format!r}.{did_you_mean(format, list(FORMATS))}")
    if variables and format in ("npy", "seed0"):
        raise UsageError(
            f"variables mean nothing for the format {format}; leave them out, or choose csv or png."
        )
    is_picture = format in ("png", "pdf")
    shows_latents = not variables or any(name.startswith(n.LATENTS) for name in variables)
    if latents and is_picture and not shows_latents:
        raise UsageError(
            "latents are chosen (--latent), and the pictures are of other maps; leave out one of "
            "them."
        )
    if format == "parquet":
        need("pyarrow", "vaearr[parquet]", "the format parquet")


def select_latents(run: Run, labels: Sequence[int]) -> xr.DataArray:
    """Latents `(*navigation, latent)` in memory, spatial ones averaged over their positions."""
    latents = schema.vectors(run.latents)
    dim = str(latents.dims[-1])
    existing = latents[dim].values.tolist()
    for label in labels:
        if label not in existing:
            raise NoInputError(
                f"run {run.name!r} has no latent {label}; it has {existing[0]} to {existing[-1]}."
            )
    if labels:
        latents = latents.sel({dim: list(labels)})
    latents = latents.load()
    if not is_encoded(latents).any():
        raise NoInputError(
            f"run {run.name!r} has no sample with latents, so there is nothing to export."
        )
    return latents


def is_encoded(latents: xr.DataArray) -> np.ndarray:
    """Which samples have latents, `(samples,)`."""
    return np.asarray(latents.notnull().any(str(latents.dims[-1])).values.ravel())


def select_maps(run: Run, latents: xr.DataArray, names: Sequence[str]) -> dict[str, xr.DataArray]:
    """Variables as maps: `BC`, the elements by their names, others `<variable>_<entry>`."""
    navigation = schema.navigation_dims(run.ds)
    variables = run.ds.drop_vars(n.PATTERNS).variables.items()
    existing = [str(name) for name, values in variables if set(navigation) <= set(values.dims)]
    maps: dict[str, xr.DataArray] = {}
    for name in names:
        if name not in existing:
            raise NoInputError(f"the store has no map {name!r}.{did_you_mean(name, existing)}")
        variable = latents
        if name != latents.name:
            variable = run.ds[name].transpose(*navigation, ...).load()
        if variable.ndim == len(navigation):
            maps[name] = variable
            continue
        dim = variable.dims[-1]
        for entry in variable[dim].values:
            title = str(entry) if dim == n.ELEMENT else f"{name}_{entry}"
            values = variable.sel({dim: entry}, drop=True).rename(title)
            maps[title] = values.assign_attrs(long_name=title)
    return maps


def sample_table(ds: xr.Dataset, columns: dict[str, xr.DataArray]) -> pd.DataFrame:
    """A row for each sample, x fastest: step numbers x, y[, z] or sample numbers, then columns."""
    import pandas as pd

    dims = schema.navigation_dims(ds)
    steps = [
        np.arange(ds.sizes[dim]) if dim == n.SAMPLE else step_numbers_of(ds, dim) for dim in dims
    ]
    grids = dict(zip(dims, np.meshgrid(*steps, indexing="ij"), strict=True))
    table = {dim: grids[dim].ravel() for dim in reversed(dims)}
    table |= {name: column.values.ravel() for name, column in columns.items()}
    return pd.DataFrame(table)


def latent_table(run: Run, latents: xr.DataArray, variables: Sequence[str]) -> pd.DataFrame:
    """A row for each sample of the grid: x, y[, z], latents, variables."""
    dim = latents.dims[-1]
    columns = {f"{n.LATENT}_{label}": latents.sel({dim: label}) for label in latents[dim].values}
    columns |= select_maps(run, latents, variables)
    return sample_table(run.ds, columns)


def write_sample_table(
    ending: str, run: Run, latents: xr.DataArray, variables: Sequence[str], folder: Path
) -> None:
    """`latents.csv` or `latents_<run>.csv`: x, y[, z], latents, variables; NaN is empty."""
    table = latent_table(run, latents, variables)[is_encoded(latents)]
    if ending == "csv":
        write_table(table, folder / f"{latents.name}.csv")
    else:
        table.to_parquet(folder / f"{latents.name}.parquet", index=False, engine="pyarrow")


def write_arrays(run: Run, latents: xr.DataArray, _: Sequence[str], folder: Path) -> None:
    """`latents_full.npy`, `latents_roi.npy`; step numbers of their rows in `coords[_roi].csv`."""
    inside = is_encoded(latents)
    rows = latents.values.reshape(inside.size, -1).astype(np.float32)
    steps = sample_table(run.ds, {})
    np.save(folder / "latents_full.npy", rows)
    np.save(folder / "latents_roi.npy", rows[inside])
    write_table(steps, folder / "coords.csv")
    write_table(steps[inside], folder / "coords_roi.csv")


def write_pictures(
    ending: str, run: Run, latents: xr.DataArray, variables: Sequence[str], folder: Path
) -> None:
    """The sheet of latent maps, or one file for each map of the variables."""
    from vaearr.views import save

    check_plane(run)
    if not variables:
        save(latents, folder / f"{latents.name}.{ending}", kind="stack")
    for name, values in select_maps(run, latents, variables).items():
        if values.dtype == bool:
            values = values.astype("i1")
        save(values, folder / f"{file_name(name)}.{ending}", kind="map")


def write_earlier(run: Run, latents: xr.DataArray, _: Sequence[str], folder: Path) -> None:
    """The files of the earlier programs."""
    from vaearr.output.earlier import write_earlier_files

    check_plane(run)
    write_earlier_files(run, latents, folder)


FORMATS: dict[str, Callable[[Any, xr.DataArray, Sequence[str], Path], None]] = {
    "csv": partial(write_sample_table, "csv"),
    "parquet": partial(write_sample_table, "parquet"),
    "npy": write_arrays,
    "png": partial(write_pictures, "png"),
    "pdf": partial(write_pictures, "pdf"),
    "seed0": write_earlier,
}


def check_plane(run: Run) -> None:
    """Raise UsageError unless the samples are the points of a two-dimensional scan."""
    dims = schema.navigation_dims(run.ds)
    if len(dims) != 2:
        raise UsageError(
            f"this format is for scans over x and y; this store lies over {', '.join(dims)}. "
            "Use csv or npy."
        )


def clusterings_of(run: Run) -> list[str]:
    """Names of the cluster maps that were computed from the run."""
    names = []
    for name in schema.cluster_maps(run.ds):
        recipe = nested(run.ds[name].attrs, n.PROVENANCE)
        if isinstance(recipe, dict) and recipe.get("run") == run.name:
            names.append(name)
    return names


def write_table(table: pd.DataFrame, path: Path) -> None:
    """CSV with a line of names; NaN is empty."""
    table.to_csv(path, index=False, lineterminator="\n")


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Strict JSON: NaN and infinity become null."""
    text = json.dumps(as_json(record), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def file_name(text: str) -> str:
    """Text as part of a file name."""
    return re.sub(r"[^\w.+-]", "_", text)
