"""What a report is made of, read once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association import P_ADJUSTED, associate, associate_classes, current_table, run_latents, targets_of
from vaearr.analysis.clustering import cluster_scores, cluster_summary
from vaearr.config import ReportConfig
from vaearr.errors import NoInputError, VaearrError
from vaearr.recipe import nested, now, versions
from vaearr.views.common import holoviews, unit


class LeftOut(Exception):
    """Why a part of the report cannot be made."""


class NoMaps(LeftOut):
    """A part that a collection never has, which its page does not name."""


VIEWS = ("scipy", "holoviews", "bokeh", "matplotlib")


@dataclass
class Clustering:
    """A cluster map of the store in numbers, over the whole scan."""

    summary: xr.Dataset | None  # None: noise only
    scores: xr.Dataset | None  # agreement with the phases, where these are known


@dataclass
class Facts:
    """What a report is made of, read once; maps are in memory."""

    store: Path
    name: str
    run: str
    ds: xr.Dataset  # one plane of the scan: patterns lazy, maps and latents loaded
    plane: str  # which plane, in words; "" if the scan is one
    roi: xr.DataArray | None
    latents: xr.DataArray
    table: xr.DataArray | None
    tested: xr.Dataset | None  # p-values and intervals over the same dims as the table, where they were asked for
    no_table: str
    rivals: dict[str, xr.DataArray]  # decomposition -> its association by the table's first metric
    classes: dict[str, xr.DataArray]  # latents and decompositions -> how they tell the phases apart, as a whole
    clusters: dict[str, Clustering]
    history: xr.Dataset | None
    health: xr.Dataset | None
    sheets: xr.Dataset | None
    manifest: dict[str, Any]
    description: dict[str, Any]
    n_roi: int
    n_grid: int
    versions: dict[str, str]
    created: str

    @property
    def warnings(self) -> list[str]:
        """Sentences about the latent space that the training left."""
        return [] if self.health is None else [str(w) for w in self.health.attrs.get("warnings", [])]

    @property
    def latent_dim(self) -> str:
        """The run's latent dimension."""
        return n.run_name(n.LATENT, self.run)

    def need_plane(self) -> None:
        """Raise LeftOut unless there are maps to draw."""
        if not is_plain_scan(self.ds):
            raise NoMaps("the samples are a collection, not scan points on a grid, so there is no map to draw.")


def gather(store: str | Path, settings: ReportConfig) -> Facts:
    """Read what the report needs. Raises NoInputError for a run that is not there or not encoded."""
    from vaearr.store import check_store, has_table, open_store, open_table, run_manifest

    holoviews()  # before any work: say what is not installed
    manifest = run_manifest(store, settings.run)
    ds = open_store(store)
    if n.run_name(n.LATENTS, settings.run) not in ds:
        option = "" if settings.run == n.DEFAULT_RUN else f" --run {settings.run}"
        raise NoInputError(f"run {settings.run!r} is not encoded yet: 'vaearr encode {store}{option}'.")
    latents = run_latents(ds, settings.run)
    ds = ds.assign({str(latents.name): latents})
    roi_name, latent_dim = n.run_name(n.ROI, settings.run), n.run_name(n.LATENT, settings.run)
    roi = ds[roi_name].load() if roi_name in ds else None
    table, tested, no_table = _table(store, ds, settings.run, latents, roi)
    others = schema.decompositions(ds)
    found_clusters = [name for name in schema.cluster_maps(ds) if _is_of(ds[name], settings.run)]
    tables = {
        name: open_table(store, settings.run, name) if has_table(store, settings.run, name) else None
        for name in (n.HISTORY, n.HEALTH, n.SHEETS)
    }
    plane, words = _plane(ds)
    keep = [n.PATTERNS, latents.name, roi_name, n.BC, n.ELEMENTS, n.PHASE, n.QUATERNION, *found_clusters]
    keep += [f"{name}_{part}" for name in others for part in ("components", "explained_variance_ratio")]
    shown = plane[[name for name in keep if name in plane]]
    shown = shown.assign({name: shown[name].load() for name in shown.data_vars if name != n.PATTERNS})
    path = check_store(store)
    return Facts(
        store=path, name=_source(ds, path), run=settings.run, ds=shown, plane=words,
        roi=shown.get(roi_name), latents=shown[latents.name], table=table,
        tested=tested, no_table=no_table, rivals=_rivals(ds, others, table, roi),
        classes=_classes(ds, latents, others, roi),
        clusters={name: _clustering(ds, name) for name in found_clusters},
        history=tables[n.HISTORY], health=tables[n.HEALTH],
        sheets=tables[n.SHEETS], manifest=manifest,
        description=schema.describe(ds),
        n_roi=int((latents.notnull().any(latent_dim) if roi is None else roi).sum()),
        n_grid=int(np.prod(schema.navigation_shape(ds))), versions=versions(*VIEWS),
        created=now(),
    )  # fmt: skip


def _table(
    store: str | Path, ds: xr.Dataset, run: str, latents: xr.DataArray, roi: xr.DataArray | None
) -> tuple[xr.DataArray | None, xr.Dataset | None, str]:
    """The stored table, with its p-values, if it is up to date, else one made now; or why there is none."""
    stored = current_table(store, ds, run)
    if stored is not None:
        whole = _with_targets(stored)
        return whole["association"], whole if P_ADJUSTED in whole else None, ""
    try:
        return _with_targets(associate(latents, targets_of(ds, roi=roi), ("pearson", "spearman"), roi=roi)), None, ""
    except VaearrError as reason:
        return None, None, str(reason)


def _with_targets(table: Any) -> Any:
    return table if table is None or "target" in table.dims else table.expand_dims("target", -1)


def _is_of(labels: xr.DataArray, run: str) -> bool:
    made = nested(labels.attrs, n.PROVENANCE)
    return isinstance(made, dict) and made.get("run") == run


def _rivals(
    ds: xr.Dataset, names: list[str], table: xr.DataArray | None, roi: xr.DataArray | None
) -> dict[str, xr.DataArray]:
    """Decompositions on the same footing: same targets, same points, the table's first metric."""
    if table is None:
        return {}
    targets, metric = targets_of(ds, [str(t) for t in table["target"].values], roi=roi), str(table["metric"].values[0])
    return {name: associate(ds[name], targets, metric, roi=roi) for name in names}


def _classes(
    ds: xr.Dataset, latents: xr.DataArray, others: list[str], roi: xr.DataArray | None
) -> dict[str, xr.DataArray]:
    if n.PHASE not in ds:
        return {}
    phase = ds[n.PHASE].load()
    return {
        name: associate_classes(scores, phase, roi)
        for name, scores in {"latents": latents, **{k: ds[k] for k in others}}.items()
    }


def _clustering(ds: xr.Dataset, name: str) -> Clustering:
    labels = ds[name].load()
    known = {k: ds[k].load() for k in (n.BC, n.ELEMENTS) if k in ds}
    summary = scores = None
    if (labels >= 0).any():
        summary = cluster_summary(labels, xr.Dataset(known)) if known else None
        if n.PHASE in ds and ((labels >= 0) & (ds[n.PHASE] >= 0)).any():
            scores = cluster_scores(labels, ds[n.PHASE].load())
    return Clustering(summary, scores)


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


def _source(ds: xr.Dataset, store: Path) -> str:
    given = nested(ds.attrs, n.PROVENANCE)
    source = given.get("source") if isinstance(given, dict) else None
    file = source.get("file") if isinstance(source, dict) else None
    return Path(str(file)).name if file else store.name


def labels_and_n(table: xr.DataArray) -> tuple[list[str], list[int]]:
    """Targets of a table and their numbers of points."""
    return [str(t) for t in np.atleast_1d(table["target"].values)], [int(k) for k in np.atleast_1d(table["n"].values)]


def is_plain_scan(ds: xr.Dataset) -> bool:
    """Whether the navigation dims span one plane, so that variables can be drawn as maps as they are."""
    return schema.is_scan(ds) and len(schema.navigation_dims(ds)) == 2
