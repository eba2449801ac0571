"""What a report shows: the maps, associations and clusters of a run, read once, and its files."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association import associate, strongest_latents, targets_of
from vaearr.analysis.clustering import cluster_scores, cluster_summary
from vaearr.errors import DataError, NoInputError
from vaearr.output.exporting import clusterings_of, sample_table
from vaearr.recipe import nested
from vaearr.views import on_paper, show, view
from vaearr.views.kinds import SCREEN_DPI
from vaearr.views.maps import latent_map, side_map_list
from vaearr.views.page import Section
from vaearr.views.paper import file_of

if TYPE_CHECKING:
    from vaearr import Run

PNG_DPI = 200  # pages stay small; the SVG has no resolution
COMPUTED_METRICS = ("pearson", "spearman")  # if the run has no current table of associations
MAX_TABLE_VALUES = 2_000_000  # of a CSV file next to the page
PHASE_PREFIX = f"{n.PHASE}: "


@dataclass
class Contents:
    """What the sections of a report show, read once; `files` are those next to the page."""

    run: Run
    files: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def latents(self) -> xr.DataArray:
        """Latents in memory, spatial ones averaged over their positions."""
        return schema.vectors(self.run.latents).load()

    @property
    def source(self) -> str:
        """Name of the file that the store was created from, else of the store."""
        provenance = nested(self.run.ds.attrs, n.PROVENANCE) or {}
        source = provenance.get("source") or {}
        return Path(str(source.get("file") or self.run.path)).name

    @property
    def is_scan(self) -> bool:
        """Whether the samples are points of a map."""
        ds = self.run.ds
        return schema.is_scan(ds) and len(schema.navigation_dims(ds)) > 1

    @property
    def middle(self) -> dict[str, int]:
        """Index of the plane that maps show, for a scan of several planes."""
        dims = schema.navigation_dims(self.run.ds)
        return {dim: self.run.ds.sizes[dim] // 2 for dim in dims[:-2]}

    @cached_property
    def plane(self) -> xr.Dataset:
        """The plane of the scan that maps show: maps in memory, patterns lazy."""
        ds = self.run.ds.assign({self.latents.name: self.latents})
        ds = ds.isel(self.middle, drop=True)
        ds[n.PATTERNS].attrs[n.NAVIGATION_DIMS] = list(schema.navigation_dims(self.run.ds)[-2:])
        names = [name for name in [*schema.maps(ds), n.ELEMENTS] if name in ds]
        return ds.assign({name: ds[name].load() for name in names})

    @property
    def region(self) -> xr.DataArray | None:
        """The ROI on the plane of the maps; None for attached latents."""
        return self.plane.get(n.run_name(n.ROI, self.run.name))

    @property
    def latent_numbers(self) -> list[int]:
        """Labels of the latents."""
        numbers: list[int] = self.latents[self.latents.dims[-1]].values.tolist()
        return numbers

    @cached_property
    def associations(self) -> xr.Dataset:
        """The stored table if it is up to date, else a new one.

        Raises NoInputError if the store has no map to compare with.
        """
        ds = self.run.ds
        table = self.run.current_table("association")
        if table is None:
            roi = ds.get(n.run_name(n.ROI, self.run.name))
            targets = targets_of(ds, roi=roi)
            values = associate(self.latents, targets, COMPUTED_METRICS, roi=roi)
            table = values.to_dataset(name="association")
        return table if "target" in table.dims else table.expand_dims("target", -1)

    @cached_property
    def rankings(self) -> list[dict[Any, Any]]:
        """The strongest latents for each target and metric; empty without side maps."""
        try:
            table = strongest_latents(self.associations)
        except (NoInputError, DataError):
            return []
        return table.to_dict("records")

    @cached_property
    def strongest(self) -> list[dict[Any, Any]]:
        """The strongest latent of each target by the first metric, the largest value first.

        Of two phases, one mirrors the other: only the one with the larger value is listed.
        """
        first: dict[str, dict[Any, Any]] = {}
        for row in self.rankings:
            first.setdefault(row["target"], row)
        rows = sorted(first.values(), key=lambda row: -abs(row["value"]))
        phases = [row for row in rows if row["target"].startswith(PHASE_PREFIX)]
        return [row for row in rows if row not in phases[1:]]

    @cached_property
    def clusterings(self) -> dict[str, dict[str, xr.Dataset]]:
        """The tables of each cluster map of the run, see `cluster_tables`."""
        return {name: cluster_tables(self.run.ds, name) for name in clusterings_of(self.run)}

    @cached_property
    def map_table(self) -> str:
        """Path of the table of all maps, a row for each scan point with its step numbers."""
        ds = self.plane
        columns = {str(da.name): da for da in side_map_list(ds)}
        columns |= {name: ds[name] for name in self.clusterings}
        for number in self.latent_numbers:
            columns[f"{n.LATENT}_{number}"] = latent_map(ds, self.run.name, number)
        return self.table("maps", sample_table(ds, columns))

    def table(self, name: str, table: pd.DataFrame) -> str:
        """Add a table to the files and return its path; "" if it is too large."""
        if table.size > MAX_TABLE_VALUES:
            return ""
        path = f"data/{name}.csv"
        text = table.to_csv(index=False, lineterminator="\n", float_format="%.6g")
        self.files[path] = text.encode("utf-8", errors="replace")
        return path

    def show(
        self,
        section: Section,
        name: str,
        result: Any,
        caption: str,
        data: str = "",
        *,
        kind: Any,
        is_interactive: bool = False,
        **options: Any,
    ) -> None:
        """Put the view of a result into a section, and its PNG and SVG into `files`.

        `data` is the path of its table.
        """
        picture = view(result, kind=kind, **options)
        figure = on_paper(picture, titles=True)
        links = {ending.upper(): f"{ending}/{name}.{ending}" for ending in ("png", "svg")}
        for path in links.values():
            self.files[path] = file_of(figure, Path(path).suffix, PNG_DPI)
        links["CSV"] = data
        alt = name.replace("_", " ")
        if is_interactive:
            show(section, picture, alt)
        else:
            width = SCREEN_DPI * figure.get_figwidth()
            section.picture(self.files[links["PNG"]], alt, width)
        section.caption(caption, links)


def cluster_tables(ds: xr.Dataset, name: str) -> dict[str, xr.Dataset]:
    """Means of the maps in each cluster, and the agreement with the phases, if there are any."""
    labels = ds[name].load()
    tables = {}
    is_clustered = labels >= 0
    names = [other for other in (n.BC, n.ELEMENTS) if other in ds]
    if names and is_clustered.any():
        tables["summary"] = cluster_summary(labels, ds[names].load())
    if n.PHASE in ds and (is_clustered & (ds[n.PHASE] >= 0)).any():
        tables["agreement_with_phase"] = cluster_scores(labels, ds[n.PHASE].load())
    return tables
