"""A latent against a target, and associations of many: map and scatter linked, heat maps with what is significant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association import METRICS, targets_of
from vaearr.errors import NoInputError, RoiError, did_you_mean
from vaearr.views import common as c
from vaearr.views.common import COLORS, DIVERGING, NAN_COLOR, SEQUENTIAL
from vaearr.views.kinds import builder
from vaearr.views.maps import BOKEH, latent_map, map_plot

MOST_POINTS = 20_000  # more make a saved page slow
DENSE = 1500  # points from which on a density is shown instead of the points
MOST_BINS = 60
DENSITY = "cividis"
ALPHA = 0.05  # adjusted p-values below it are marked
MOST_LATENTS = 128  # columns of a heat map; of more the strongest are shown
BRUSH = {"shared_datasource": True, "tools": ["box_select", "lasso_select"], **BOKEH}
HIDDEN = {"alpha": 0, "nonselection_alpha": 0, "selection_alpha": 1, "color": "white", "selection_line_color": "black"}


def table_of(**maps: xr.DataArray) -> pd.DataFrame:
    """The scan points where all maps are finite: a row each, with their coordinates. Raises RoiError where none is."""
    table = xr.Dataset({name: c.as_map(da.astype("f4")) for name, da in maps.items()}).to_dataframe().dropna()
    if table.empty:
        raise RoiError(f"no scan point holds all of {', '.join(maps)}; choose another map or region.")
    return table.reset_index()


def drawn(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows by chance, in an order by chance, so that no class lies on top."""
    return table.sample(min(most, len(table)), random_state=0)


def linked(
    picture: Any, source: pd.DataFrame, place: Sequence[str], plane: Sequence[str], over: Sequence[Any] = (), **how: Any
) -> Any:
    """A map beside a scatter of the same points: a box or a lasso in one side lights up in the other.

    The link works in a saved page without Python: the points on the map are there all the time, and seen when they are
    selected. source: columns of the places and of the plane, and what else is told; over: elements of the plane below
    or beside the points, and options of these and of the frame in `how`.
    """
    hv = c.holoviews()
    frame = {key: how.pop(key) for key in ("xlabel", "ylabel", "title")}
    others = [name for name in source if name not in (*place, *plane)]
    hidden = hv.Points(source, list(place), [*plane, *others]).opts(size=5, **HIDDEN, **BRUSH)
    points = hv.Points(source, list(plane), [*place, *others]).opts(line_color=None, **how, **BRUSH)
    right = hv.Overlay([*over, points]).opts(
        frame_width=340, frame_height=320, fontsize={"title": "10pt"}, legend_position="right", **frame, **BOKEH
    )
    return (picture * hidden + right).opts(shared_axes=False, shared_datasource=True, **BOKEH)


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
    one, wanted = latent_map(ds, run, latent), targets_of(ds, [target], roi=roi)
    column, heading = wanted.isel(target=0, drop=True), str(wanted["target"].values[0])
    is_phase = heading.startswith(f"{n.PHASE}: ")
    name = n.BC if is_phase and n.BC in ds else heading
    shown = ds[n.BC] if is_phase and n.BC in ds else column
    across, up, places = f"latent {latent}", c.text(name), list(c.map_dims(one))[::-1]
    table = table_of(**{across: one if roi is None else one.where(roi), up: shown, "group": column})
    r = table[across].corr(table["group"])
    source = drawn(table, most_points).astype("f4")
    over, how = [], {"alpha": 0.5, "selection_alpha": 0.9, "nonselection_alpha": 0.06, "color": COLORS[0], "size": 4}
    if is_phase:
        how |= {"alpha": 1, "color": "group", "cmap": list(COLORS[:2]), "clim": (0, 1), "size": 3}
    else:
        source = source.drop(columns="group")
        if len(table) >= DENSE:
            over, how = [density(table[across].to_numpy(), table[up].to_numpy(), [across, up])], {"size": 4, **HIDDEN}
    about = f"{heading} (orange): " if is_phase else ""
    frame = {"xlabel": across, "title": c.title(f"{about}Pearson r = {c.number(r)}, n = {len(table):,}")}
    if name not in ds and n.ELEMENTS in ds and name in ds[n.ELEMENTS][n.ELEMENT].values:
        frame["ylabel"] = c.label(ds[n.ELEMENTS].assign_attrs(long_name=name))
    else:
        frame["ylabel"] = c.label(ds[name]) if name in ds else up
    return linked(map_plot(one, roi=roi, **options), source, places, [across, up], over, **frame, **how)


def density(x: np.ndarray, y: np.ndarray, dims: list[str]) -> Any:
    """How many points fall in each cell, on a logarithmic colour scale."""
    most = int(np.clip(x.size**0.5 * 0.6, 16, MOST_BINS))
    across, up = bin_edges(x.astype("f8"), most), bin_edges(y.astype("f8"), most)
    count = np.histogram2d(y, x, bins=(up, across))[0]
    mesh = c.holoviews().QuadMesh((across, up, np.where(count > 0, count, np.nan)), dims, "scan points")
    return mesh.opts(
        cmap=DENSITY, logz=True, clim=(1, max(2.0, float(count.max()))), colorbar=True, clabel="scan points",
        clipping_colors={"NaN": "white"}, line_color=None, **BOKEH,
    )  # fmt: skip


def bin_edges(values: np.ndarray, most: int) -> np.ndarray:
    """Edges of equal bins over finite values; of whole numbers each bin holds equally many."""
    low, high = float(values.min()), float(values.max())
    if (values == np.rint(values)).all():
        width = max(1, math.ceil((high - low + 1) / most))
        return np.arange(low - 0.5, high + 0.5 + width, width)
    return np.linspace(low, high, most + 1)


def matrix(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, told: np.ndarray | None = None, **how: Any
) -> Any:
    """A heat map `(rows, columns)` of named rows, the first on top, and columns; NaN grey.

    told: for each cell what the pointer tells beside the names; default: its value.
    """
    from bokeh.models import HoverTool

    hv, (height, width) = c.holoviews(), values.shape
    own: dict[str, Any] = {
        "colorbar": True, "clabel": "", "tools": ["hover"], "invert_yaxis": True, "clipping_colors": {"NaN": NAN_COLOR},
        "frame_width": int(np.clip(18 * width, 260, 900)), "frame_height": int(np.clip(18 * height, 120, 700)),
        "xlabel": "latent dimension", "ylabel": "", "line_width": 0.4,
    } | how  # fmt: skip
    cell = own["frame_width"] / width, own["frame_height"] / height
    own.setdefault("line_color", "white" if min(cell) >= 20 else None)
    for ticks, names, pixels in (("xticks", columns, cell[0]), ("yticks", rows, cell[1])):
        letters = max(map(len, names), default=0) if ticks == "xticks" and not own.get("xrotation") else 0.5
        step = math.ceil((10 + 8 * letters) / pixels)
        own.setdefault(ticks, [(i, c.text(names[i])) for i in range(0, len(names), step)])
    painted, own["cmap"] = c.paintable(np.asarray(values, "f4"), own["cmap"], NAN_COLOR)
    tips: dict[str, Any] = {}
    if told is not None:
        of, at = np.meshgrid(
            np.array([*map(c.text, rows)], object), np.array([*map(c.text, columns)], object), indexing="ij"
        )
        tips = {"of": of, "at": at, "told": told}
        tooltips = [(own["xlabel"], "@at"), (own["ylabel"], "@of"), ("value", "@told{0.[0000]}")]
        own["tools"] = [HoverTool(tooltips=tooltips)]
    x, y = np.arange(width + 1) - 0.5, np.arange(height + 1) - 0.5
    mesh = hv.QuadMesh((x, y, painted, *tips.values()), ["column", "row"], ["value", *tips])
    return mesh.opts(**own, **BOKEH)


@builder("association", "metric", n.LATENT)
def association(found: xr.DataArray | xr.Dataset, metric: str | None = None, **options: Any) -> Any:
    """Heat maps of an association table, a frame for each metric: the targets over the latents.

    Parameters
    ----------
    found
        `(metric, latent[, target])` of `associate`, or the Dataset of `associate_store`, whose adjusted p-values are
        marked: cells below 0.05 get a dot.
    metric
        The only one to show. Signed ones are centred at 0 on a diverging scale.
    **options
        Options of `holoviews.QuadMesh`.
    """
    table = found if isinstance(found, xr.Dataset) else found.to_dataset(name="association")
    table = table[[name for name in ("association", "p_adjusted") if name in table]]
    if "target" not in table.dims:
        name = str(table["target"].item()) if "target" in table.coords else "target"
        table = table.drop_vars("target", errors="ignore").expand_dims(target=[name])
    metrics = [str(name) for name in table["metric"].values]
    if metric is not None and metric not in metrics:
        raise NoInputError(f"the table has no metric {metric!r}.{did_you_mean(metric, metrics)}")
    frames = {}
    for name in metrics if metric is None else [metric]:
        frames[name] = _heat(name, table.sel(metric=name).transpose("target", n.LATENT), options)
    return c.holoviews().HoloMap(frames, kdims="metric") if len(frames) > 1 else next(iter(frames.values()))


def _heat(metric: str, table: xr.Dataset, options: dict[str, Any]) -> Any:
    """Targets over latents, the value under the pointer; dots mark small p-values."""
    n_latents, notes = table.sizes[n.LATENT], []
    is_signed = bool(table["signed"]) if "signed" in table.coords else METRICS[metric].signed
    clim = c.robust_limits(table["association"].values, (0, 100), symmetric=is_signed)
    if n_latents > MOST_LATENTS:
        strength = abs(table["association"]).max("target").fillna(0).values
        table = table.isel({n.LATENT: np.sort(np.argsort(-strength, kind="stable")[:MOST_LATENTS])})
        notes.append(f"the {MOST_LATENTS} strongest of {n_latents} latents")
    if "p_adjusted" in table:
        notes.append(f"dot: adjusted p < {ALPHA:g}")
    heading = f"{metric} of latent and side map"
    targets, latents = ([str(label) for label in table[dim].values] for dim in ("target", n.LATENT))
    own = {
        "title": c.title(f"{heading} ({', '.join(notes)})" if notes else heading),
        "frame_width": 780,
        "frame_height": max(60, 24 * len(targets)),
        "xlabel": "latent",
        "cmap": DIVERGING if is_signed else SEQUENTIAL,
        "clabel": metric,
        "clim": clim,
    }
    values = table["association"].values
    body = matrix(values, targets, latents, told=values, **own | options)
    if "p_adjusted" not in table:
        return body
    row, column = np.nonzero(table["p_adjusted"].fillna(1).values < ALPHA)
    dots = c.holoviews().Points((column, row), ["column", "row"])
    return body * dots.opts(color="black", line_color="white", size=5 if len(latents) <= 64 else 3.5, **BOKEH)
