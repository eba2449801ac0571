"""Export a run's latents and the store's maps as tables, arrays and pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import ExportConfig, resolved, settings_as_keywords
from vaearr.errors import ExistsError, NoInputError, RoiError, UsageError, did_you_mean, need
from vaearr.ingestion.placing import step_numbers_of
from vaearr.recipe import as_json
from vaearr.run import Run, StoreOrRun, path_of
from vaearr.store import open_store
from vaearr.store.folders import staged

if TYPE_CHECKING:
    import pandas as pd


@settings_as_keywords(ExportConfig)
def export(
    store: StoreOrRun,
    out: str | Path,
    format: str | None = None,
    *,
    config: ExportConfig | None = None,
    **settings: Any,
) -> Path:
    """Write a run of a store as plain files into a folder.

    The latents and maps that are written are held in memory. Nothing is overwritten: a file with the same content
    stays, one with other content is an error before anything is changed.

    Parameters
    ----------
    store
        Path of a store, a Run, or a Dataset that was opened from a store.
    out
        Folder for the files.
    format
        csv (default), parquet, npy, png, pdf, or seed0: the files of the earlier programs.
    config, **settings
        See ExportConfig; keywords replace single settings of `config`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    NoInputError
        If the run or a variable does not exist.
    UsageError
        If a setting is wrong or means nothing for the format.
    ExistsError
        If the folder lies in a store, or holds a file with other content.
    MissingExtraError
        If an optional package is missing.
    """
    if isinstance(store, Run):
        settings = {"run": store.name, **settings}
    chosen = resolved(ExportConfig, config, {"format": format, **settings})
    _check_settings(chosen)
    folder = Path(out).expanduser().absolute()
    for parent in (folder.resolve(), *folder.resolve().parents):
        if (parent / "zarr.json").exists():
            raise ExistsError(f"{parent} is a zarr store; export into a folder outside it.")
    content = Content(path_of(store), chosen)
    write, _ = FORMATS[chosen.format]
    with staged(folder) as aside:
        write(content, aside)
    return folder


def _check_settings(config: ExportConfig) -> None:
    """Raise UsageError for an unknown format, or a setting that means nothing for the format."""
    if config.format not in FORMATS:
        raise UsageError(f"no format is named {config.format!r}.{did_you_mean(config.format, list(FORMATS))}")
    if config.format == "parquet":
        need("pyarrow", "vaearr[parquet]", "the format parquet")
    _, meaningful = FORMATS[config.format]
    for name in config.model_fields_set - {"format", "run", *meaningful}:
        if getattr(config, name) == ExportConfig.model_fields[name].get_default(call_default_factory=True):
            continue
        formats = [other for other, (_, names) in FORMATS.items() if name in names]
        raise UsageError(
            f"the setting {name!r} means nothing for the format {config.format}; leave it out, or choose the format "
            f"{' or '.join(formats)}."
        )


class Content:
    """What is exported: the store's Dataset and the latents and ROI of a run.

    Attributes
    ----------
    all_latents, latents : (navigation…, latent)
        In memory; `latents` holds the chosen dimensions only.
    inside : (samples,)
        Which samples lie in the ROI.
    """

    def __init__(self, path: Path, config: ExportConfig) -> None:
        """Raises NoInputError for a run or latent dimension that does not exist, RoiError for an empty ROI."""
        run = config.run
        self.config = config
        self.path = path
        self.ds = open_store(path, chunks=None)
        self.dims = schema.navigation_dims(self.ds)
        name = n.run_name(n.LATENTS, run)
        if name not in self.ds:
            hint = did_you_mean(run, schema.runs(self.ds))
            raise NoInputError(f"run {run!r} has no latents in {path}; 'vaearr encode' writes them.{hint}")
        self.all_latents = schema.vectors(self.ds[name]).transpose(*self.dims, ...).load()
        self.latent_dim = str(self.all_latents.dims[-1])
        self.labels = self._chosen_labels()
        self.latents = self.all_latents.sel({self.latent_dim: self.labels})
        roi_name = n.run_name(n.ROI, run)
        if roi_name in self.ds:
            self.roi = self.ds[roi_name].transpose(*self.dims).astype(bool).load()
        else:
            self.roi = self.all_latents.notnull().any(self.latent_dim)
        self.inside = self.roi.values.reshape(-1)
        if not self.inside.any():
            raise RoiError(f"the ROI of run {run!r} holds no scan point, so there is nothing to export.")

    def _chosen_labels(self) -> list[int]:
        """Labels of the chosen latent dimensions, by default all."""
        existing = [int(label) for label in self.all_latents[self.latent_dim].values]
        chosen = list(self.config.latents)
        asked = chosen if self.config.latent is None else [*chosen, self.config.latent]
        for label in asked:
            if label not in existing:
                raise NoInputError(
                    f"run {self.config.run!r} has no latent {label}; it has {existing[0]} to {existing[-1]}."
                )
        return chosen or existing

    def latent(self, label: int) -> xr.DataArray:
        """One latent dimension as a map."""
        name = f"latent {label}"
        return self.all_latents.sel({self.latent_dim: label}, drop=True).rename(name).assign_attrs(long_name=name)

    def variable(self, name: str) -> xr.DataArray:
        """A map, or a variable with one more dim, which comes last; over latents only the chosen dimensions."""
        known = []
        for key, stored in self.ds.variables.items():
            is_map = {*self.dims} <= {*stored.dims} and len(stored.dims) <= len(self.dims) + 1
            if is_map and key not in (n.PATTERNS, *self.dims):
                known.append(str(key))
        if name not in known:
            raise NoInputError(f"the store has no map {name!r}.{did_you_mean(name, known)}")
        variable = self.ds[name].transpose(*self.dims, ...)
        if self.latent_dim in variable.dims:
            variable = variable.sel({self.latent_dim: self.labels})
        return variable.load()

    def maps(self) -> dict[str, xr.DataArray]:
        """The chosen variables as maps: `BC`, the elements by their names, others `<variable>_<entry>`."""
        found: dict[str, xr.DataArray] = {}
        for name in self.config.variables:
            variable = self.variable(name)
            maps = {name: variable}
            if variable.ndim > len(self.dims):
                maps = _entries_as_maps(variable)
            for title, one in maps.items():
                if title in found:
                    raise UsageError(f"two maps would be called {title!r}; name one variable less.")
                found[title] = one
        return found

    def table(self, maps: Mapping[str, xr.DataArray], inside: np.ndarray | None = None) -> pd.DataFrame:
        """Step numbers x, y[, z] (of a collection sample numbers) and maps as columns.

        One row per sample, x fastest.
        """
        import pandas as pd

        steps = [self._steps(dim) for dim in self.dims]
        grids = np.meshgrid(*steps, indexing="ij")
        columns = {}
        for dim, grid in zip(reversed(self.dims), reversed(grids), strict=True):
            columns[dim] = grid.reshape(-1)
        for name, one in maps.items():
            columns[name] = one.values.reshape(-1)
        frame = pd.DataFrame(columns)
        return frame if inside is None else frame[inside]

    def _steps(self, dim: str) -> np.ndarray:
        return np.arange(self.ds.sizes[dim]) if dim == n.SAMPLE else step_numbers_of(self.ds, dim)

    def need_plane(self) -> None:
        """Raise UsageError unless the samples are the points of a two-dimensional scan."""
        if len(self.dims) != 2:
            raise UsageError(
                f"the format {self.config.format} is for scans over x and y; this store lies over "
                f"{', '.join(self.dims)}. Use csv or npy."
            )


def _entries_as_maps(variable: xr.DataArray) -> dict[str, xr.DataArray]:
    """One map for each entry of the last dim."""
    dim = variable.dims[-1]
    maps = {}
    for i, entry in enumerate(map(str, variable[dim].values)):
        title = entry if dim == n.ELEMENT else f"{variable.name}_{entry}"
        maps[title] = variable.isel({dim: i}, drop=True).rename(title).assign_attrs(long_name=title)
    return maps


def _frame(content: Content) -> pd.DataFrame:
    latents = {f"{n.LATENT}_{label}": content.latent(label) for label in content.labels}
    inside = None if content.config.points == "all" else content.inside
    return content.table(latents | content.maps(), inside)


def csv(content: Content, folder: Path) -> None:
    """`latents.csv` (of a run b `latents_b.csv`): x, y[, z], latent_<number> …, then the variables; NaN is empty."""
    write_table(_frame(content), folder / f"{content.latents.name}.csv")


def parquet(content: Content, folder: Path) -> None:
    """The same table as `latents.parquet`; needs pyarrow."""
    _frame(content).to_parquet(folder / f"{content.latents.name}.parquet", index=False, engine="pyarrow")


def npy(content: Content, folder: Path) -> None:
    """Latents as arrays: of every scan point, NaN outside the ROI, and of the ROI alone; rows have x fastest.

    `coords.csv` and `coords_roi.csv` hold the step numbers x, y[, z] of the rows.
    """
    rows = content.latents.where(content.roi).values.reshape(content.inside.size, -1).astype(np.float32)
    np.save(folder / "latents_full.npy", rows)
    np.save(folder / "latents_roi.npy", rows[content.inside])
    write_table(content.table({}), folder / "coords.csv")
    write_table(content.table({}, content.inside), folder / "coords_roi.csv")


def pictures(ending: str, content: Content, folder: Path) -> None:
    """The sheet of latent maps, or one file for each map of the chosen variables."""
    content.need_plane()
    from vaearr.views import save

    config = content.config
    if not config.variables:
        save(content.latents, folder / f"{content.latents.name}.{ending}", dpi=config.dpi, kind="stack")
        return
    if config.latents and not any(content.latent_dim in content.ds[name].dims for name in config.variables):
        raise UsageError(
            f"latents are chosen, but none of the variables has them; add the variable {content.latents.name!r}, or "
            "leave the latents out."
        )
    for name, one in content.maps().items():
        roi = None if name.startswith((n.ROI, n.LATENTS)) else content.roi
        shown = one.astype("i1") if one.dtype == bool else one
        save(shown, folder / f"{file_name(name)}.{ending}", dpi=config.dpi, kind="map", roi=roi)


def _seed0(content: Content, folder: Path) -> None:
    from vaearr.output.exporting.seed import seed0

    seed0(content, folder)


TABLE_SETTINGS = ("variables", "points", "latents")
PICTURE_SETTINGS = ("variables", "latents", "dpi")
SEED_SETTINGS = ("latents", "dpi", "target", "clusters", "latent", "elements", "weights")

# What writes a format, and the settings that mean something for it.
FORMATS: dict[str, tuple[Callable[[Content, Path], None], Sequence[str]]] = {
    "csv": (csv, TABLE_SETTINGS),
    "parquet": (parquet, TABLE_SETTINGS),
    "npy": (npy, ("latents",)),
    "png": (partial(pictures, "png"), PICTURE_SETTINGS),
    "pdf": (partial(pictures, "pdf"), PICTURE_SETTINGS),
    "seed0": (_seed0, SEED_SETTINGS),
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
