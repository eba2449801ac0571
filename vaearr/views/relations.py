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
    table = found.to_dataset(name="value")
    if p_adjusted is not None:
        table["p"] = p_adjusted.reindex_like(found)
    if "target" not in table.dims:
        name = str(table["target"].item()) if "target" in table.coords else "target"
        table = table.drop_vars("target", errors="ignore").expand_dims(target=[name])
        target = name if metric is None and target is None else target
    for dim, wanted in (("metric", metric), ("target", target)):
        known = [str(name) for name in table[dim].values]
        if wanted is not None and wanted not in known:
            raise NoInputError(f"the table has no {dim} {wanted!r}.{did_you_mean(wanted, known)}")
    if target is not None:
        one = table.sel(target=target).transpose("metric", n.LATENT)
        largest = abs(one["value"]).max(n.LATENT).fillna(0)
        tops = [f"{top:.2f}" if top >= 0.01 or top == 0 else f"{top:.0e}" for top in largest.values]
        rows = [f"{name} (max {top})" for name, top in zip(one["metric"].values, tops, strict=True)]
        own = {"clim": (-1.0, 1.0), "cmap": DIVERGING, "clabel": "relative to row max"} | options
        shown = one["value"] / largest.where(largest > 0, 1)
        return _heat(f"association of latents with {c.text(target)}", rows, one, shown, own)
    frames = {}
    for name in [metric] if metric else map(str, table["metric"].values):
        one = table.sel(metric=name).transpose("target", n.LATENT)
        signed = bool(one["signed"]) if "signed" in one else METRICS[name].signed
        own = {"cmap": DIVERGING if signed else SEQUENTIAL, "clabel": name}
        own |= {"clim": c.robust_limits(one["value"].values, (0, 100), symmetric=signed)} | options
        rows = [str(target) for target in one["target"].values]
        frames[name] = _heat(f"{name} of latent and side map", rows, one, one["value"], own)
    return c.holoviews().HoloMap(frames, kdims="metric") if len(frames) > 1 else next(iter(frames.values()))


def _heat(heading: str, rows: list[str], one: xr.Dataset, shown: xr.DataArray, options: dict[str, Any]) -> Any:
    """Rows over latents: colours stand for `shown`, `value` is told under the pointer, dots mark small `p`."""
    count, notes = one.sizes[n.LATENT], []
    if count > MOST_LATENTS:
        strength = (abs(shown) / abs(shown).max(n.LATENT)).max(str(shown.dims[0])).fillna(0).values
        places = np.sort(np.argsort(-strength, kind="stable")[:MOST_LATENTS])
        one, shown = one.isel({n.LATENT: places}), shown[:, places]
        notes.append(f"the {MOST_LATENTS} strongest of {count} latents")
    notes += [f"dot: adjusted p < {ALPHA:g}"] if "p" in one else []
    own = {
        "frame_width": 780,
        "frame_height": max(60, 24 * len(rows)),
        "xlabel": "latent",
    }
    own["title"] = c.title(f"{heading} ({', '.join(notes)})" if notes else heading)
    latents = [str(name) for name in one[n.LATENT].values]
    body = matrix(shown.values, rows, latents, told=one["value"].values, **own | options)
    if "p" not in one:
        return body
    row, column = np.nonzero(one["p"].fillna(1).values < ALPHA)
    dots = c.holoviews().Points((column, row), ["column", "row"])
    return body * dots.opts(color="black", line_color="white", size=5 if count <= 64 else 3.5, **BOKEH)
