"""A latent against a target, and associations of many: map and scatter linked, heat maps with what is significant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association import METRICS, associate, targets_of
from vaearr.errors import NoInputError, RoiError, did_you_mean
from vaearr.views.common import (
    COLORS,
    DIVERGING,
    NAN_COLOR,
    SEQUENTIAL,
    as_map,
    holoviews,
    label,
    map_dims,
    number,
    paintable,
    robust_limits,
    text,
    title,
)
from vaearr.views.kinds import builder
from vaearr.views.maps import BOKEH, latent_map, map_plot

MOST_POINTS = 20_000  # more make a saved page slow
SELECTED = "#D55E00"
DENSE = 1500  # points from which on a density is shown instead of the points
MOST_BINS = 60
DENSITY = "cividis"
ALPHA = 0.05  # adjusted p-values below it are marked
MOST_LATENTS = 128  # columns of a heat map; of more the strongest are shown
BRUSH = {"shared_datasource": True, "tools": ["box_select", "lasso_select"], **BOKEH}


@builder("map_scatter")
def map_scatter(
    ds: xr.Dataset,
    run: str = n.DEFAULT_RUN,
    latent: int = 0,
    target: str = n.BC,
    *,
    roi: xr.DataArray | None = None,
    most_points: int = MOST_POINTS,
    **options: Any,
) -> Any:
    """Map of a latent beside that latent against a target; a selection in one lights up in the other.

    The link works in a saved page without Python. Many points are a density, so that none hides another; at most
    `most_points` of them can be selected. Pearson's r in the title is over all. A phase ("phase:
    fe_bcc") is the colour of the points, against band contrast where there is one. `**options` as of a map. Raises
    RoiError where no point has both.
    """
    hv = holoviews()
    one = latent_map(ds, run, latent)
    table = scatter_points(ds, run, latent, target, roi=roi)
    shown = subsample(table, most_points)
    rows, columns = map_dims(as_map(one))
    across, up = f"latent {latent}", text(table.attrs["up"])
    names = {columns: "x", rows: "y", across: "latent", up: "up"} | ({"group": "group"} if "group" in table else {})
    source = pd.DataFrame({key: shown[item].values.astype("f4") for key, item in names.items()})
    # bokeh brushes both: the points on the map are invisible until they are selected
    lit = {"selection_alpha": 0.9, "selection_color": SELECTED, "color": SELECTED, **BRUSH}
    hidden = hv.Points(source, [columns, rows], [across, up]).opts(alpha=0, nonselection_alpha=0, size=4, **lit)
    own: list[Any] = []
    if "group" in table:
        points = hv.Points(source, [across, up], [rows, columns, "group"]).opts(
            alpha=1, nonselection_alpha=0.06, selection_alpha=0.9, color="group", cmap=[COLORS[0], COLORS[1]],
            clim=(0, 1), size=3, line_color=None, **BRUSH,
        )  # fmt: skip
    elif table.sizes["point"] < DENSE:
        points = hv.Points(source, [across, up], [rows, columns]).opts(
            alpha=0.5, nonselection_alpha=0.06, selection_alpha=0.9, color=COLORS[0], size=4, line_color=None, **BRUSH
        )
    else:
        own = [density(table["latent"].values, table["up"].values, [across, up])]
        points = hv.Points(source, [across, up], [rows, columns]).opts(alpha=0, nonselection_alpha=0, size=3, **lit)
    about = f"{table.attrs['heading']}: " if "group" in table else ""
    heading = f"{about}Pearson r = {number(table.attrs['r'])}, n = {table.sizes['point']:,}"
    right = hv.Overlay([*own, points]).opts(
        frame_width=340, frame_height=300, xlabel=across, ylabel=text(table.attrs["label"]), title=title(heading),
        fontsize={"title": "10pt"}, **BOKEH,
    )  # fmt: skip
    left = map_plot(one, roi=roi, **options) * hidden
    return (left + right).opts(shared_axes=False, shared_datasource=True, **BOKEH)


def density(x: np.ndarray, y: np.ndarray, dims: list[str]) -> Any:
    """How many points fall in each cell, on a logarithmic colour scale."""
    count, across, up = counts_of(x, y)
    mesh = holoviews().QuadMesh((across, up, count), dims, "scan points")
    return mesh.opts(
        cmap=DENSITY, logz=True, clim=(1, max(2.0, float(np.nanmax(count)))), colorbar=True, clabel="scan points",
        clipping_colors={"NaN": "white"}, line_color=None, **BOKEH,
    )  # fmt: skip


def bin_edges(values: np.ndarray, most: int = MOST_BINS) -> np.ndarray:
    """Edges of equal bins over finite values; of whole numbers each bin holds equally many."""
    low, high = float(values.min()), float(values.max())
    if (values == np.rint(values)).all():
        width = max(1, math.ceil((high - low + 1) / most))
        return np.arange(low - 0.5, high + 0.5 + width, width)
    if low == high:
        return np.array([low - 0.5, low + 0.5])
    return np.linspace(low, high, most + 1)


def counts_of(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts `(y, x)` (NaN = none) and the edges in x and y."""
    x, y = x.astype("f8"), y.astype("f8")
    most = int(np.clip(x.size**0.5 * 0.6, 16, MOST_BINS))
    across, up = bin_edges(x, most), bin_edges(y, most)
    count = np.histogram2d(y, x, bins=(up, across))[0]
    return np.where(count > 0, count, np.nan), across, up


def scatter_points(
    ds: xr.Dataset, run: str, latent: int, target: str, *, roi: xr.DataArray | None = None
) -> xr.Dataset:
    """Points where latent and target are finite: `x`, `y`, `latent`, `up` (and `group` 0/1 for a phase) over `point`.

    Attributes: `r` (Pearson, over all points), `up`, `label` and `heading` of the vertical axis.
    """
    one = latent_map(ds, run, latent)
    wanted = targets_of(ds, [target], roi=roi)
    column, heading = wanted.isel(target=0, drop=True), str(wanted["target"].values[0])
    is_phase = heading.startswith(f"{n.PHASE}: ")
    shown, name = (ds[n.BC], n.BC) if is_phase and n.BC in ds else (column, heading)
    maps = {"latent": as_map(one), "up": as_map(shown.astype("f4")), "group": as_map(column)}
    if roi is not None:
        maps["up"] = maps["up"].where(as_map(roi) > 0)
    found = points_of(maps, "group")
    heading = f"{heading} (orange)" if is_phase else heading
    found = found.assign_attrs(up=name, label=_axis(ds, name), heading=heading)
    return found if is_phase else found.drop_vars("group")


def points_of(maps: Mapping[str, xr.DataArray], against: str) -> xr.Dataset:
    """The scan points where all maps are finite: their values and `x`, `y` over `point`.

    Attribute `r`: Pearson's of `latent` and the map `against`, over all of them. Raises RoiError where there are none.
    """
    keep = np.logical_and.reduce([np.isfinite(item.values) for item in maps.values()])
    if not keep.any():
        raise RoiError(f"no scan point holds all of {', '.join(maps)}; choose another map or region.")
    rows, columns = map_dims(maps["latent"])
    row, column = np.nonzero(keep)
    found = {key: ("point", item.values[keep]) for key, item in maps.items()}
    found["x"] = ("point", maps["latent"][columns].values[column])
    found["y"] = ("point", maps["latent"][rows].values[row])
    r = associate(maps["latent"].expand_dims(n.LATENT, -1), maps[against].where(keep), "pearson")
    return xr.Dataset(found, attrs={"r": float(r.squeeze())})


def _axis(ds: xr.Dataset, name: str) -> str:
    if name in ds:
        return label(ds[name])
    if n.ELEMENTS in ds and name in ds[n.ELEMENTS][n.ELEMENT].values:
        return label(ds[n.ELEMENTS].assign_attrs(long_name=name))
    return text(name)


def subsample(points: xr.Dataset, most: int) -> xr.Dataset:
    """At most `most` points, drawn without replacement, in their order."""
    count = points.sizes["point"]
    if count <= most:
        return points
    return points.isel(point=np.sort(np.random.default_rng(0).choice(count, most, replace=False)))


@builder("association", "metric", n.LATENT)
def association(
    found: xr.DataArray | xr.Dataset,
    metric: str | None = None,
    target: str | None = None,
    *,
    p_adjusted: xr.DataArray | None = None,
    **options: Any,
) -> Any:
    """Heat maps of an association table over its latents: by metric with the targets in rows, or of one target.

    Parameters
    ----------
    found
        `(metric, latent[, target])` of `associate`, or the Dataset of `associate_store`, whose p-values are taken too.
    metric
        The one to show, signed ones centred at 0 on a diverging scale; default: a frame for each.
    target
        Shows this target instead: metrics in rows, each relative to its largest |value|, which its row names. Of a
        table without targets that is the default.
    p_adjusted
        P-values over the same dims, from `significance`: cells below 0.05 get a dot.
    **options
        Options of `holoviews.QuadMesh`.
    """
    if isinstance(found, xr.Dataset):
        p_adjusted = found.get("p_adjusted") if p_adjusted is None else p_adjusted
        found = found["association"]
    p = None if p_adjusted is None else p_adjusted.reindex_like(found).transpose(*found.dims)
    if target is not None or (metric is None and "target" not in found.dims):
        name, column = _column_of(found, target)
        return _metric_rows(column, name, None if p is None else _column_of(p, target)[1], options)
    known = [str(name) for name in found["metric"].values]
    if metric is not None and metric not in known:
        raise NoInputError(f"the table has no metric {metric!r}.{did_you_mean(metric, known)}")

    def one(name: str) -> Any:
        values = _rows(found.sel(metric=name), "target")
        signed = bool(found["signed"].sel(metric=name)) if "signed" in found.coords else METRICS[name].signed
        own = {
            "clim": robust_limits(values.values, (0, 100), symmetric=signed),
            "cmap": DIVERGING if signed else SEQUENTIAL, "clabel": name,
        }  # fmt: skip
        marked = None if p is None else _rows(p.sel(metric=name), "target").values
        return _heat(f"{name} of latent and side map", values, values.values, marked, own | options)

    if metric is not None or len(known) == 1:
        return one(metric or known[0])
    return holoviews().HoloMap({name: one(name) for name in known}, kdims="metric")


def _metric_rows(column: xr.DataArray, name: str, p: xr.DataArray | None, options: dict[str, Any]) -> Any:
    values = _rows(column, "metric")
    largest = np.array([np.max(np.abs(row[np.isfinite(row)]), initial=0.0) for row in values.values])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(largest[:, None] > 0, values.values / largest[:, None], values.values)
    short = [f"{top:.2f}" if top >= 0.01 or top == 0 else f"{top:.0e}" for top in largest]
    labels = [f"{metric} (max {top})" for metric, top in zip(values["metric"].values, short, strict=True)]
    own = {"clim": (-1.0, 1.0), "cmap": DIVERGING, "clabel": "relative to row max"}
    marked = None if p is None else _rows(p, "metric").values
    return _heat(
        f"association of latents with {name}", values.assign_coords(metric=labels), share, marked, own | options
    )


def _rows(values: xr.DataArray, dim: str) -> xr.DataArray:
    return (values if dim in values.dims else values.expand_dims(dim)).transpose(dim, n.LATENT)


def _column_of(table: xr.DataArray, target: str | None) -> tuple[str, xr.DataArray]:
    labels = [str(name) for name in np.atleast_1d(table["target"].values)] if "target" in table.coords else ["target"]
    target = labels[0] if target is None and len(labels) == 1 else target
    if target not in labels:
        raise NoInputError(f"the table has no target {target!r}.{did_you_mean(str(target), labels)}")
    return text(target), table.sel(target=target) if "target" in table.dims else table


def _heat(
    heading: str, values: xr.DataArray, shown: np.ndarray, p: np.ndarray | None,
    options: dict[str, Any],
) -> Any:  # fmt: skip
    """Rows over latents: colours stand for `shown`, `values` is told under the pointer, dots mark small p."""
    from bokeh.models import HoverTool

    hv = holoviews()
    count, chosen, notes = values.sizes[n.LATENT], np.arange(values.sizes[n.LATENT]), []
    if count > MOST_LATENTS:
        known = np.where(np.isfinite(shown), np.abs(shown), 0.0)
        strength = (known / np.maximum(known.max(axis=1, keepdims=True), 1e-300)).max(axis=0)
        chosen = np.sort(np.argsort(-strength, kind="stable")[:MOST_LATENTS])
        notes.append(f"the {MOST_LATENTS} strongest of {count} latents")
    if p is not None:
        notes.append(f"dot: adjusted p < {ALPHA:g}")
    latents, whose = (
        [text(item) for item in values[n.LATENT].values[chosen]],
        [text(name) for name in values[str(values.dims[0])].values],
    )
    rows, count = len(whose), len(latents)
    written = [[f"{v:.4g}" if np.isfinite(v) else "no value" for v in row] for row in values.values[:, chosen]]
    painted, cmap = paintable(shown[:, chosen], options["cmap"], NAN_COLOR)
    x, y = np.arange(count + 1) - 0.5, np.arange(rows + 1) - 0.5
    tips = {
        "value": np.array(written, dtype=object), "latent": np.tile(np.array(latents, dtype=object), (rows, 1)),
        "of": np.tile(np.array(whose, dtype=object)[:, None], (1, count)),
    }  # fmt: skip
    mesh = hv.QuadMesh((x, y, painted, *tips.values()), ["place", "row"], ["shown", *tips])
    hover = HoverTool(tooltips=[("latent", "@latent"), ("", "@of"), ("value", "@value")])
    step = max(1, -(-count // 32))
    own = {
        "colorbar": True, "xlabel": "latent", "ylabel": "", "frame_width": 780, "frame_height": max(60, 24 * rows),
        "tools": [hover], "invert_yaxis": True, "clipping_colors": {"NaN": NAN_COLOR},
        "title": title(f"{heading} ({', '.join(notes)})" if notes else heading),
        "xticks": [(i, latents[i]) for i in range(0, count, step)], "yticks": list(enumerate(whose)),
        "line_color": "white" if count <= 64 else None, "line_width": 0.4,
    }  # fmt: skip
    body = mesh.opts(**own | options | {"cmap": cmap}, **BOKEH)
    if p is None:
        return body
    row, column = np.nonzero(np.nan_to_num(p[:, chosen], nan=1.0) < ALPHA)
    dots = hv.Points((column, row), ["place", "row"])
    return body * dots.opts(color="black", line_color="white", size=5 if count <= 64 else 3.5, **BOKEH)
