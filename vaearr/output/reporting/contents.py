"""What a report is made of, each read or computed once."""

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
from vaearr.analysis.association import METRICS, associate, current_table, ranking, run_latents, targets_of
from vaearr.analysis.clustering import cluster_scores, cluster_summary
from vaearr.config import ReportConfig
from vaearr.errors import VaearrError
from vaearr.recipe import nested, now, versions
from vaearr.run import StoreOrRun, load_run
from vaearr.store import has_table, open_store, open_table
from vaearr.views import on_paper, show, view
from vaearr.views.common import holoviews, unit
from vaearr.views.kinds import KINDS
from vaearr.views.page import Section


class LeftOut(Exception):
    """Why a part of the report cannot be made."""


class Absent(LeftOut):
    """Why this kind of run never has a part, which its page does not name."""


class Contents:
    """What a report is made of, and `figures`, what its parts show, for `png/`; maps are in memory.

    whole: the store's Dataset; ds: one plane of the scan, which `plane` tells in words ("" if the scan is one).
    Raises NoInputError for a run that is not there or not encoded.
    """

    def __init__(self, store: StoreOrRun, config: ReportConfig) -> None:
        holoviews()  # before any work: say what is not installed
        self.config, self.run = config, load_run(store, config.run)
        self.store, self.manifest = self.run.path, self.run.manifest
        _ = self.run.latents
        self.figures, self.captions = dict[str, Any](), set[tuple[str, str]]()
        self.created, self.versions = now(), versions("scipy", "holoviews", "bokeh", "matplotlib")
        whole = open_store(self.store)
        latents = run_latents(whole, config.run)
        self.whole = whole.assign({str(latents.name): latents})
        roi = n.run_name(n.ROI, config.run)
        self.region = whole[roi].load() if roi in whole else None
        self.decompositions = schema.decompositions(whole)
        self.clusterings = [name for name in schema.cluster_maps(whole) if self._is_own(whole[name])]
        plane, self.plane = _plane(self.whole)
        keep = [n.PATTERNS, latents.name, roi, n.BC, n.ELEMENTS, n.PHASE, n.QUATERNION, *self.clusterings]
        keep += [
            f"{name}_{part}" for name in self.decompositions for part in ("components", "explained_variance_ratio")
        ]
        shown = plane[[name for name in keep if name in plane]]
        self.ds = shown.assign({name: shown[name].load() for name in shown.data_vars if name != n.PATTERNS})
        self.roi, self.latents = shown.get(roi), self.ds[latents.name]
        self.latent_dim = n.run_name(n.LATENT, config.run)
        self.n_grid = math.prod(schema.navigation_shape(whole))
        self.n_roi = int((latents.notnull().any(self.latent_dim) if self.region is None else self.region).sum())
        self.history, self.health, self.sheets = map(self._table, (n.HISTORY, n.HEALTH, n.SHEETS))

    def _is_own(self, labels: xr.DataArray) -> bool:
        made = nested(labels.attrs, n.PROVENANCE)
        return isinstance(made, dict) and made.get("run") == self.config.run

    def _table(self, name: str) -> xr.Dataset | None:
        is_there = has_table(self.store, self.config.run, name)
        return open_table(self.store, self.config.run, name) if is_there else None

    @property
    def name(self) -> str:
        """What was measured: the file that the store came from, else the store."""
        source = (nested(self.whole.attrs, n.PROVENANCE) or {}).get("source") or {}
        return Path(str(source.get("file") or self.store)).name

    @property
    def warnings(self) -> list[str]:
        """Sentences about the latent space that the training left."""
        return [] if self.health is None else [str(w) for w in self.health.attrs.get("warnings", [])]

    @cached_property
    def association(self) -> xr.Dataset | None:
        """The stored table, if it is up to date, else one made now: `association (metric, latent, target)`, and its
        p-values where they were asked for. None where there is nothing to compare with, which `why` tells."""
        try:
            found = current_table(self.store, self.whole, self.config.run)
            if found is None:
                targets = targets_of(self.whole, roi=self.region)
                table = associate(self.whole[self.latents.name], targets, ("pearson", "spearman"), roi=self.region)
                found = table.to_dataset(name="association")
        except VaearrError as reason:
            self.why = str(reason)
            return None
        return found if "target" in found.dims else found.expand_dims("target", -1)

    def need_association(self) -> xr.Dataset:
        """The association. Raises LeftOut that says why there is none."""
        if self.association is None:
            raise LeftOut(self.why)
        return self.association

    @property
    def table(self) -> xr.DataArray:
        """The association without p-values. Raises LeftOut as `need_association`."""
        return self.need_association()["association"]

    @property
    def targets(self) -> list[tuple[str, int]]:
        """Targets of the association with their numbers of points."""
        table = self.table
        return [(str(t), int(k)) for t, k in zip(table["target"].values, np.atleast_1d(table["n"]), strict=True)]

    @property
    def metric(self) -> str:
        """The association's first metric."""
        return str(self.table["metric"].values[0])

    @cached_property
    def rivals(self) -> dict[str, xr.DataArray]:
        """Decompositions beside the latents: their association with the same targets over the same points."""
        if self.association is None or self.metric not in METRICS:  # a name in a store is not looked up as code
            return {}
        targets = targets_of(self.whole, [target for target, _ in self.targets], roi=self.region)
        return {
            name: associate(self.whole[name], targets, self.metric, roi=self.region) for name in self.decompositions
        }

    @cached_property
    def clusters(self) -> dict[str, tuple[xr.Dataset | None, xr.Dataset | None]]:
        """Of each cluster map of the run: numbers of the clusters, and agreement with the phases; None without any."""
        found: dict[str, tuple[xr.Dataset | None, xr.Dataset | None]] = {}
        maps = [k for k in (n.BC, n.ELEMENTS) if k in self.whole]
        for name in self.clusterings:
            labels, summary, scores = self.whole[name].load(), None, None
            if maps and (labels >= 0).any():
                summary = cluster_summary(labels, self.whole[maps].load())
            if n.PHASE in self.whole and ((labels >= 0) & (self.whole[n.PHASE] >= 0)).any():
                scores = cluster_scores(labels, self.whole[n.PHASE].load())
            found[name] = summary, scores
        return found

    def strongest(self, target: str, table: xr.DataArray | None = None) -> tuple[int, float] | None:
        """The latent (of another table the component) that goes most strongly with a target; None where none does."""
        table = self.table if table is None else table
        best = ranking(table, self.metric, target if "target" in table.dims else None, top=1)
        return (int(best[n.LATENT][0]), float(best["value"][0])) if best.sizes["rank"] else None

    @cached_property
    def order(self) -> list[int]:
        """Latents, those with the strongest association (else the largest KL) first."""
        labels: list[int] = self.latents[self.latent_dim].values.tolist()
        if self.association is not None:
            strength = abs(self.table.isel(metric=0)).fillna(-1).max("target").values
        else:
            strength = np.zeros(len(labels)) if self.health is None else self.health["kl"].values
        return [labels[i] for i in np.argsort(-strength, kind="stable")]

    def need_plane(self) -> None:
        """Raise Absent unless there are maps to draw."""
        if not schema.is_scan(self.ds) or len(schema.navigation_dims(self.ds)) != 2:
            raise Absent("the samples are a collection, not scan points on a grid, so there is no map to draw.")

    def show(self, section: Section, name: str, result: Any, *backend: Any, kind: str, **options: Any) -> None:
        """Put the view of a result into the page, with what its builder says of it, and its figure into `png/`."""
        shown = view(result, *backend, kind=kind, **options)
        show(section, shown, name.replace("_", " "))
        words = inspect.cleandoc(KINDS[kind][0].__doc__ or "").partition("\n\n")[0]
        if (section.name, kind) not in self.captions:
            section.caption(" ".join(words.replace("`", "").split()))
        self.captions.add((section.name, kind))
        self.figures[name] = on_paper(shown)


def _plane(ds: xr.Dataset) -> tuple[xr.Dataset, str]:
    """The middle plane of a volume."""
    dims = schema.navigation_dims(ds)
    if not schema.is_scan(ds) or len(dims) < 3:
        return ds, ""
    middle = {dim: ds.sizes[dim] // 2 for dim in dims[:-2]}
    plane = ds.isel(middle)
    plane[n.PATTERNS].attrs[n.NAVIGATION_DIMS] = list(dims[-2:])
    words = ", ".join(f"{dim} = {float(ds[dim][i]):g} {unit(ds[dim].attrs)}".strip() for dim, i in middle.items())
    return plane.drop_vars(list(middle)), words
