"""What an export is made of: a run's latents, its region, the step numbers of its points; read block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import ExportConfig
from vaearr.errors import NoInputError, RoiError, UsageError, did_you_mean
from vaearr.ingestion.placing import step_numbers_of
from vaearr.recipe import nested

BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Content:
    """A run to export: the store's Dataset, the run's region and latents `(navigation…, latent)`, the settings."""

    ds: xr.Dataset
    roi: xr.DataArray
    latents: xr.DataArray
    config: ExportConfig

    @property
    def dims(self) -> tuple[str, ...]:
        """Navigation dims."""
        return schema.navigation_dims(self.ds)

    def labels(self) -> list[int]:
        """Labels of all latents of the run."""
        return [int(label) for label in self.latents[self.latents.dims[-1]].values]

    def position(self, label: int) -> int:
        """Where a latent lies among all. Raises NoInputError for one that is not there."""
        known = self.labels()
        if label not in known:
            raise NoInputError(f"run {self.config.run!r} has no latent {label}; it has {known[0]} to {known[-1]}.")
        return known.index(label)

    def latent(self, label: int) -> xr.DataArray:
        """One latent as a map, in memory."""
        one = self.latents.isel({self.latents.dims[-1]: self.position(label)}, drop=True).load()
        return one.rename(f"latent {label}").assign_attrs(long_name=f"latent {label}")

    def variable(self, name: str) -> xr.DataArray:
        """A variable or coordinate over the navigation dims and at most one more, which comes last."""
        known = [
            str(key)
            for key, one in self.ds.variables.items()
            if key not in (n.PATTERNS, *self.dims)
            and {*self.dims} <= {*one.dims}
            and len(one.dims) <= len(self.dims) + 1
        ]
        if name not in known:
            raise NoInputError(f"the store has no map {name!r}.{did_you_mean(name, known)}")
        return self.ds[name].transpose(*self.dims, ...)

    def maps(self, name: str, region: Mapping[str, slice] | None = None) -> dict[str, xr.DataArray]:
        """A variable as maps in memory: itself, or one for each entry of its further dim, named after it.

        Elements have their names, others `<variable>_<entry>`.
        """
        variable = self.variable(name).isel(region or {}).load()
        if variable.ndim == len(self.dims):
            return {name: variable}
        dim = variable.dims[-1]
        return {
            str(entry) if dim == n.ELEMENT else f"{name}_{entry}": variable.isel({dim: i}, drop=True)
            for i, entry in enumerate(variable[dim].values)
        }

    def blocks(self, bytes_per_point: int) -> Iterator[dict[str, slice]]:
        """Regions of whole rows along the first navigation dim, in order, each of bounded size."""
        first, *rest = self.dims
        size, row = self.ds.sizes[first], int(np.prod([self.ds.sizes[dim] for dim in rest])) * max(bytes_per_point, 1)
        stored = (self.latents.encoding.get("chunks") or (1,))[0]
        step = max(1, BLOCK_BYTES // row // stored) * stored
        return ({first: slice(start, min(start + step, size))} for start in range(0, size, step))

    def steps(self, region: Mapping[str, slice] | None = None) -> dict[str, np.ndarray]:
        """Whole step numbers of the points, row-major, x first: `{"x": …, "y": …}`; of a collection the positions."""

        def axis(dim: str) -> np.ndarray:
            of_all = np.arange(self.ds.sizes[dim]) if dim == n.SAMPLE else step_numbers_of(self.ds, dim)
            return np.asarray(of_all[(region or {}).get(dim, slice(None))])

        grids = np.meshgrid(*map(axis, self.dims), indexing="ij")
        return {dim: grid.reshape(-1) for dim, grid in reversed([*zip(self.dims, grids, strict=True)])}

    def need_plane(self) -> None:
        """Raise UsageError unless the samples are the points of a two-dimensional scan."""
        if len(self.dims) != 2:
            raise UsageError(
                f"format {self.config.format!r} holds scans over x and y; this store lies over {', '.join(self.dims)}. "
                "Use csv or npy."
            )

    def about(self) -> dict[str, Any]:
        """Where the numbers come from, for JSON."""
        return {
            "run": self.config.run,
            "latents": str(self.latents.name),
            "store_id": self.ds.attrs.get(n.STORE_ID),
            "provenance": nested(self.latents.attrs, n.PROVENANCE),
        }


def gather(store: str | Path, config: ExportConfig) -> Content:
    """Open what the export is made of. Raises NoInputError for a run that has no latents, naming those that have,
    RoiError for an empty region."""
    from vaearr.store import open_store

    ds = open_store(store, chunks=None)
    name, roi_name = n.run_name(n.LATENTS, config.run), n.run_name(n.ROI, config.run)
    if name not in ds:
        hint = did_you_mean(config.run, schema.runs(ds))
        raise NoInputError(f"run {config.run!r} has no latents in {store}: 'vaearr encode' writes them.{hint}")
    nav = schema.navigation_dims(ds)
    latents = schema.vectors(ds[name]).transpose(*nav, ...)
    roi = ds[roi_name] if roi_name in ds else latents.notnull().any(str(latents.dims[-1]))
    mask = roi.transpose(*nav).astype(bool).load()
    if not mask.any():
        raise RoiError(f"the region of run {config.run!r} holds no scan point, so there is nothing to export.")
    return Content(ds, mask, latents, config)
