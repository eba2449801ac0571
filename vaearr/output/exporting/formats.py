"""The formats: tables, arrays and pictures of a run's latents and of the store's maps; `export` writes one of them."""

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
    """Write a run of a store as plain files into the folder `out`; returns it.

    format: a name from FORMATS (`seed0` by default); settings replace single ones of `config`, see ExportConfig. Files
    are written aside and renamed in. Nothing is overwritten: a file that is there with the same content stays, one with
    other content is an ExistsError before anything is changed, so that two modes or runs never mix. The latents and
    maps that are written are held in memory.
    Which parts cannot be made, and why, is logged. Raises NoInputError for runs and variables that are not there,
    UsageError for settings that cannot be meant, ExistsError for a folder in a store, MissingExtraError where an
    optional package is lacking.
    """
    if isinstance(store, Run):
        settings = {"run": store.name, **settings}
    wanted = resolved(ExportConfig, config, {"format": format, **settings})
    if wanted.format not in FORMATS:
        raise UsageError(f"no format is named {wanted.format!r}.{did_you_mean(wanted.format, list(FORMATS))}")
    if wanted.format == "parquet":
        need("pyarrow", "vaearr[parquet]", "the format parquet")
    folder = Path(out).expanduser().absolute()
    within = next((p for p in (folder.resolve(), *folder.resolve().parents) if (p / "zarr.json").exists()), None)
    if within is not None:
        raise ExistsError(f"{within} is a zarr store; export into a folder outside it.")
    content = Content(store, wanted)
    with staged(folder) as aside:
        FORMATS[wanted.format](content, aside)
    return folder


class Content:
    """A run to export: the store's Dataset `ds`, the run's region `roi`, its `latents` `(navigation…, latent)`.

    Raises NoInputError for a run that has no latents, naming those that have, RoiError for an empty region.
    """

    def __init__(self, store: StoreOrRun, config: ExportConfig) -> None:
        self.config, self.ds = config, open_store(path_of(store), chunks=None)
        name, roi_name = n.run_name(n.LATENTS, config.run), n.run_name(n.ROI, config.run)
        if name not in self.ds:
            hint = did_you_mean(config.run, schema.runs(self.ds))
            raise NoInputError(f"run {config.run!r} has no latents in {store}: 'vaearr encode' writes them.{hint}")
        self.dims = schema.navigation_dims(self.ds)
        self.latents = schema.vectors(self.ds[name]).transpose(*self.dims, ...).load()
        roi = self.ds[roi_name] if roi_name in self.ds else self.latents.notnull().any(str(self.latents.dims[-1]))
        self.roi = roi.transpose(*self.dims).astype(bool).load()
        self.inside = self.roi.values.reshape(-1)
        if not self.inside.any():
            raise RoiError(f"the region of run {config.run!r} holds no scan point, so there is nothing to export.")

    def labels(self) -> list[int]:
        """Labels of the latents that are asked for, by default all. Raises NoInputError for one that is not there."""
        known = [int(label) for label in self.latents[self.latents.dims[-1]].values]
        asked = {*self.config.latents, *([] if self.config.latent is None else [self.config.latent])}
        if lost := sorted(asked - {*known}):
            raise NoInputError(f"run {self.config.run!r} has no latent {lost[0]}; it has {known[0]} to {known[-1]}.")
        return list(self.config.latents) or known

    def latent(self, label: int) -> xr.DataArray:
        """One latent as a map."""
        dim = self.latents.dims[-1]
        one = self.latents.isel({dim: self.latents[dim].values.tolist().index(label)}, drop=True)
        return one.rename(f"latent {label}").assign_attrs(long_name=f"latent {label}")

    def variable(self, name: str) -> xr.DataArray:
        """A variable or coordinate over the navigation dims and at most one more, which comes last."""
        most, own = len(self.dims) + 1, (n.PATTERNS, *self.dims)
        found = {str(key): one for key, one in self.ds.variables.items() if {*self.dims} <= {*one.dims}}
        known = [key for key, one in found.items() if key not in own and len(one.dims) <= most]
        if name not in known:
            raise NoInputError(f"the store has no map {name!r}.{did_you_mean(name, known)}")
        return self.ds[name].transpose(*self.dims, ...).load()

    def maps(self, names: Sequence[str]) -> dict[str, xr.DataArray]:
        """Variables as maps: itself, or one for each entry of a further dim: elements, others `<variable>_<entry>`."""
        found = dict[str, xr.DataArray]()
        for name in names:
            variable = self.variable(name)
            dim = variable.dims[-1]
            maps = {name: variable}
            if variable.ndim > len(self.dims):
                entries = map(str, variable[dim].values)
                words = [entry if dim == n.ELEMENT else f"{name}_{entry}" for entry in entries]
                maps = {word: variable.isel({dim: i}, drop=True) for i, word in enumerate(words)}
                maps = {word: one.rename(word).assign_attrs(long_name=word) for word, one in maps.items()}
            if twice := sorted({*maps} & {*found}):
                raise UsageError(f"two maps would be called {twice[0]!r}; name one variable less.")
            found |= maps
        return found

    def table(self, maps: Mapping[str, xr.DataArray], inside: np.ndarray | None = None) -> pd.DataFrame:
        """Step numbers x, y[, z] (of a collection positions) and maps as columns; a row for each point, x fastest."""
        import pandas as pd

        steps = [np.arange(self.ds.sizes[d]) if d == n.SAMPLE else step_numbers_of(self.ds, d) for d in self.dims]
        grids = zip(self.dims, np.meshgrid(*steps, indexing="ij"), strict=True)
        columns = {dim: grid.reshape(-1) for dim, grid in reversed([*grids])}
        frame = pd.DataFrame(columns | {name: one.values.reshape(-1) for name, one in maps.items()})
        return frame if inside is None else frame[inside]

    def need_plane(self) -> None:
        """Raise UsageError unless the samples are the points of a two-dimensional scan."""
        if len(self.dims) != 2:
            raise UsageError(
                f"format {self.config.format!r} holds scans over x and y; this store lies over {', '.join(self.dims)}. "
                "Use csv or npy."
            )


def _frame(content: Content) -> pd.DataFrame:
    latents = {f"{n.LATENT}_{label}": content.latent(label) for label in content.labels()}
    inside = content.inside | (content.config.points == "all")
    return content.table(latents | content.maps(content.config.variables), inside)


def csv(content: Content, folder: Path) -> None:
    """`latents.csv` (of a run b `latents_b.csv`): x, y[, z], latent_<number> …, then the variables; NaN is empty."""
    write_table(_frame(content), folder / f"{content.latents.name}.csv")


def parquet(content: Content, folder: Path) -> None:
    """The same table as `latents.parquet`; needs pyarrow."""
    _frame(content).to_parquet(folder / f"{content.latents.name}.parquet", index=False, engine="pyarrow")


def npy(content: Content, folder: Path) -> None:
    """All latents of the run: every scan point, NaN outside the region, and the region's alone; rows have x fastest.

    `coords.csv` and `coords_roi.csv` hold the step numbers x, y[, z] of the rows.
    """
    rows = content.latents.where(content.roi).values.reshape(content.inside.size, -1).astype(np.float32)
    np.save(folder / "latents_full.npy", rows)
    np.save(folder / "latents_roi.npy", rows[content.inside])
    write_table(content.table({}), folder / "coords.csv")
    write_table(content.table({}, content.inside), folder / "coords_roi.csv")


def pictures(ending: str, content: Content, folder: Path) -> None:
    """The sheet of latent maps, or one file for each map of the variables asked for."""
    content.need_plane()
    from vaearr.views import save

    config, entries = content.config, content.labels()
    if not config.variables:
        save(
            content.latents, folder / f"{content.latents.name}.{ending}", dpi=config.dpi, kind="stack", entries=entries
        )
    for name, one in content.maps(config.variables).items():
        outline = None if name.startswith((n.ROI, n.LATENTS)) else content.roi
        shown = one.astype("i1") if one.dtype == bool else one
        save(shown, folder / f"{file_name(name)}.{ending}", dpi=config.dpi, kind="map", roi=outline)


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
