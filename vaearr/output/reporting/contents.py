"""What a report is made of, each part read or computed once."""

from __future__ import annotations

import inspect
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association import METRICS, associate, ranking, targets_of
from vaearr.analysis.clustering import cluster_scores, cluster_summary
from vaearr.config import ReportConfig
from vaearr.errors import VaearrError
from vaearr.recipe import nested, now, versions
from vaearr.run import StoreOrRun, load_run
from vaearr.run.associating import current_table
from vaearr.store import has_table, open_store, open_table
from vaearr.views import on_paper, show, view
from vaearr.views.common import holoviews, unit
from vaearr.views.kinds import KINDS
from vaearr.views.page import Section

COMPUTED_METRICS = ("pearson", "spearman")  # of an association that is computed for the report


class LeftOut(Exception):
    """Why a part of the report cannot be made."""


class Absent(LeftOut):
    """Why this kind of run never has a part; the page does not mention the part."""


class Contents:
    """What a report is made of.

    Attributes
    ----------
    whole : Dataset
        The store, lazy.
    ds : Dataset
        One plane of the scan in memory (patterns stay lazy); `plane` describes which one, "" for a scan of one plane.
    figures : dict
        What the sections show, for the folder `png`.
    """

    def __init__(self, store: StoreOrRun, config: ReportConfig) -> None:
        """Raises NoInputError for a run that does not exist or is not encoded."""
        holoviews()  # fails before any work if it is not installed
        self.config = config
        self.run = load_run(store, config.run)
        self.store = self.run.path
        self.manifest = self.run.manifest
        _ = self.run.latents
        self.created = now()
        self.versions = versions("scipy", "holoviews", "bokeh", "matplotlib")
        self.figures: dict[str, Any] = {}
        self.captions: set[tuple[str, str]] = set()
        whole = open_store(self.store)
        latents = schema.run_latents(whole, config.run)
        latents_name = str(latents.name)
        roi_name = n.run_name(n.ROI, config.run)
        self.whole = whole.assign({latents_name: latents})
        self.decompositions = schema.decompositions(whole)
        self.clusterings = [name for name in schema.cluster_maps(whole) if self._is_of_run(whole[name])]
        plane, self.plane = _middle_plane(self.whole)
        names = [n.PATTERNS, latents_name, roi_name, n.BC, n.ELEMENTS, n.PHASE, *self.clusterings]
        for name in self.decompositions:
            names += [f"{name}_components", f"{name}_explained_variance_ratio"]
        shown = plane[[name for name in names if name in plane]]
        self.ds = shown.assign({name: shown[name].load() for name in shown.data_vars if name != n.PATTERNS})
        self.latents = self.ds[latents_name]
        self.latent_dim = n.run_name(n.LATENT, config.run)
        self.roi = shown.get(roi_name)
        self.whole_roi = whole[roi_name].load() if roi_name in whole else None
        self.n_grid = math.prod(schema.navigation_shape(whole))
        encoded = latents.notnull().any(self.latent_dim) if self.whole_roi is None else self.whole_roi
        self.n_roi = int(encoded.sum())
        self.history = self._table(n.HISTORY)
        self.health = self._table(n.HEALTH)
        self.sheets = self._table(n.SHEETS)

    def _is_of_run(self, labels: xr.DataArray) -> bool:
        provenance = nested(labels.attrs, n.PROVENANCE)
        return isinstance(provenance, dict) and provenance.get("run") == self.config.run

    def _table(self, name: str) -> xr.Dataset | None:
        if not has_table(self.store, self.config.run, name):
            return None
        return open_table(self.store, self.config.run, name)

    @property
    def name(self) -> str:
        """What was measured: the file that the store came from, else the store."""
        source = (nested(self.whole.attrs, n.PROVENANCE) or {}).get("source") or {}
        return Path(str(source.get("file") or self.store)).name

    # ---- associations

    @cached_property
    def association(self) -> xr.Dataset | str:
        """The stored table if it is up to date, else one computed now; the reason in words if there is none.

        `association (metric, latent, target)`, and its p-values where they were asked for.
        """
        try:
            found = current_table(self.store, self.whole, self.config.run)
            if found is None:
                targets = targets_of(self.whole, roi=self.whole_roi)
                table = associate(self.whole[self.latents.name], targets, COMPUTED_METRICS, roi=self.whole_roi)
                found = table.to_dataset(name="association")
        except VaearrError as reason:
            return str(reason)
        return found if "target" in found.dims else found.expand_dims("target", -1)

    @property
    def has_association(self) -> bool:
        return isinstance(self.association, xr.Dataset)

    def need_association(self) -> xr.Dataset:
        """The association. Raises LeftOut with the reason why there is none."""
        if isinstance(self.association, str):
            raise LeftOut(self.association)
        return self.association

    @property
    def table(self) -> xr.DataArray:
        """The association without p-values; raises LeftOut."""
        return self.need_association()["association"]

    @property
    def targets(self) -> dict[str, int]:
        """Targets of the association and their numbers of points."""
        counts = np.atleast_1d(self.table["n"])
        return {str(target): int(count) for target, count in zip(self.table["target"].values, counts, strict=True)}

    @property
    def metric(self) -> str:
        """The first metric of the association."""
        return str(self.table["metric"].values[0])

    @cached_property
    def rivals(self) -> dict[str, xr.DataArray]:
        """Associations of the decompositions with the same targets over the same points."""
        if not self.has_association or self.metric not in METRICS:  # a name in a store is not looked up as code
            return {}
        targets = targets_of(self.whole, list(self.targets), roi=self.whole_roi)
        tables = {}
        for name in self.decompositions:
            tables[name] = associate(self.whole[name], targets, self.metric, roi=self.whole_roi)
        return tables

    def strongest(self, target: str, table: xr.DataArray | None = None) -> tuple[int, float] | None:
        """The latent (of another table the component) that is associated most with a target, and its value."""
        table = self.table if table is None else table
        best = ranking(table, self.metric, target if "target" in table.dims else None, top=1)
        if not best.sizes["rank"]:
            return None
        return int(best[n.LATENT][0]), float(best["value"][0])

    @cached_property
    def order(self) -> list[int]:
        """Latents, those with the strongest association (else the largest KL) first."""
        labels = self.latents[self.latent_dim].values
        if self.has_association:
            strength = abs(self.table.isel(metric=0)).fillna(-1).max("target").values
        elif self.health is not None:
            strength = self.health["kl"].values
        else:
            strength = np.zeros(len(labels))
        return [int(labels[i]) for i in np.argsort(-strength, kind="stable")]

    # ---- clusters

    @cached_property
    def cluster_summaries(self) -> dict[str, xr.Dataset]:
        """Numbers of the clusters of each cluster map, where there are maps to describe them by."""
        maps = [name for name in (n.BC, n.ELEMENTS) if name in self.whole]
        found = {}
        for name in self.clusterings:
            labels = self.whole[name].load()
            if maps and (labels >= 0).any():
                found[name] = cluster_summary(labels, self.whole[maps].load())
        return found

    @cached_property
    def cluster_agreements(self) -> dict[str, xr.Dataset]:
        """Agreement of each cluster map with the phases, where both are known."""
        found = {}
        for name in self.clusterings if n.PHASE in self.whole else ():
            labels, phase = self.whole[name].load(), self.whole[n.PHASE].load()
            if ((labels >= 0) & (phase >= 0)).any():
                found[name] = cluster_scores(labels, phase)
        return found

    # ---- the page

    def need_plane(self) -> None:
        """Raise Absent unless there are maps to draw."""
        if not schema.is_scan(self.ds) or len(schema.navigation_dims(self.ds)) != 2:
            raise Absent("the samples are a collection, not scan points on a grid, so there is no map to draw.")

    def show(self, section: Section, name: str, result: Any, *backend: Any, kind: str, **options: Any) -> None:
        """Put the view of a result into the page, with what its builder says of it, and its figure into `png/`."""
        shown = view(result, *backend, kind=kind, **options)
        show(section, shown, name.replace("_", " "))
        if (section.name, kind) not in self.captions:
            summary = inspect.cleandoc(KINDS[kind][0].__doc__ or "").partition("\n\n")[0]
            section.caption(" ".join(summary.replace("`", "").split()))
        self.captions.add((section.name, kind))
        self.figures[name] = on_paper(shown)


def _middle_plane(ds: xr.Dataset) -> tuple[xr.Dataset, str]:
    """The middle plane of a scan of several planes, and which one it is in words."""
    dims = schema.navigation_dims(ds)
    if not schema.is_scan(ds) or len(dims) < 3:
        return ds, ""
    middle = {dim: ds.sizes[dim] // 2 for dim in dims[:-2]}
    plane = ds.isel(middle).drop_vars(list(middle))
    plane[n.PATTERNS].attrs[n.NAVIGATION_DIMS] = list(dims[-2:])
    words = [f"{dim} = {float(ds[dim][i]):g} {unit(ds[dim].attrs)}".strip() for dim, i in middle.items()]
    return plane, ", ".join(words)
