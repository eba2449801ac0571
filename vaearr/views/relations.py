"""A latent against a target as linked map and scatter; heat maps of associations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from vaearr.views.maps import latent_map, map_plot

MOST_POINTS = 20_000  # more make a saved page slow
DENSE = 1500  # number of points from which a density is plotted instead
DENSITY = "cividis"
ALPHA = 0.05  # adjusted p-values below it are marked
BRUSH = {"shared_datasource": True, "tools": ["box_select", "lasso_select"]}
HIDDEN = {
    "alpha": 0,
    "nonselection_alpha": 0,
    "selection_alpha": 1,
    "color": "white",
    "selection_line_color": "black",
}
SELECTION = {"alpha": 0.5, "selection_alpha": 0.9, "nonselection_alpha": 0.06}
SCATTER_FRAME: c.Options = {
    "frame_width": 340,
    "frame_height": 320,
    "fontsize": {"title": "10pt"},
    "legend_position": "right",
}


def table_of(**maps: xr.DataArray) -> pd.DataFrame:
    """The scan points where all maps are finite, a row each, with their coordinates.

    Raises RoiError if there is none.
    """
    columns = {name: c.as_map(da.astype("f4")) for name, da in maps.items()}
    table = xr.Dataset(columns).to_dataframe().dropna()
    if table.empty:
        raise RoiError(
            f"no scan point holds all of {', '.join(maps)}; choose another map or region."
        )
    return table.reset_index()


def random_rows(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` random rows in random order, so that no class covers another."""
    return table.sample(min(most, len(table)), random_state=0)


def linked(
    picture: Any,
    source: pd.DataFrame,
    map_axes: Sequence[str],
    plane: Sequence[str],
    layers: Sequence[Any] = (),
    *,
    frame: Mapping[str, Any],
    **points: Any,
) -> Any:
    """A map next to a scatter of the same points; a box or lasso in one highlights the other.

    The link works in a saved page without Python: the points on the map always exist and become
    visible when selected. `source` has columns for both axes of the map and of the plane; `layers`
    are elements of the plane below the points, `frame` are its options, `**points` those of the
    points.
    """
    hv = c.holoviews()
    hidden = hv.Points(source, list(map_axes)).opts(size=5, **HIDDEN, **BRUSH)
    visible = hv.Points(source, list(plane)).opts(line_color=None, **points, **BRUSH)
    scatter = hv.Overlay([*layers, visible]).opts(**SCATTER_FRAME, **frame)
    return (picture * hidden + scatter).opts(shared_axes=False, shared_datasource=True)


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
    """Plot the map of a latent next to that latent against a target; selections are linked.

    The link works in a saved page without Python. Many points are plotted as a density; at most
    `most_points` of them can be selected. Pearson's r in the title is computed from all points. For
    a phase ("phase: fe_bcc") the points have the colours of the phases, plotted against band
    contrast if it exists.

    Parameters
    ----------
    ds
        A Dataset with latents.
    run, latent
        Name of the run and number of the latent.
    target
        A map, element, sum of elements or phase.
    roi
        Scan points to use, and an outline on the map.
    most_points
        Number of points that can be selected.
    **options
        As of a map.

    Raises
    ------
    RoiError
        If no scan point has both values.
    """
    latent_values = latent_map(ds, run, latent)
    targets = targets_of(ds, [target], roi=roi)
    name = str(targets["target"].values[0])
    values = targets.isel(target=0, drop=True).rename(name).assign_attrs(long_name=name)
    is_phase = name.startswith(f"{n.PHASE}: ") and n.BC in ds
    vertical = ds[n.BC] if is_phase else ds.get(name, values)
    across = f"latent {latent}"
    up = c.text(vertical.name)
    inside = latent_values if roi is None else latent_values.where(roi)
    columns = {across: inside, up: vertical, "target": values}
    below: list[Any] = []
    points: c.Options = {"size": 4, "color": COLORS[0]} | SELECTION
    phases = None
    if is_phase:
        phases = c.colored_classes(ds[n.PHASE])
        columns["phase"] = phases.values
    table = table_of(**columns)
    heading = correlation_words(table, across, "target")
    source = random_rows(table, most_points).astype("f4")
    if phases:
        heading = f"{name}: {heading}"
        below = legend_points(phases.names, phases.colors, [across, up])
        source["phase"] = np.array(phases.names)[source["phase"].astype(int)]
        colors = dict(zip(phases.names, phases.colors, strict=True))
        points |= {"size": 3, "alpha": 1, "color": "phase", "cmap": colors, "show_legend": False}
    elif len(table) >= DENSE:
        points = {"size": 4} | HIDDEN
        style: c.Options = {"cmap": DENSITY, "gridsize": 40, "color": None, "grid": False}
        style["clabel"] = "points"
        below = [c.plot(table, "hexbin", x=across, y=up, **style)]
    return linked(
        map_plot(latent_values, roi=roi, **options),
        source,
        c.map_dims(latent_values)[::-1],
        [across, up],
        below,
        frame={"xlabel": across, "ylabel": c.label(vertical), "title": c.title(heading)},
        **points,
    )


def legend_points(names: Sequence[str], colors: Sequence[str], axes: Sequence[str]) -> list[Any]:
    """Points outside a plane with these axes, which name the classes in its legend."""
    legend = []
    for name, color in zip(names, colors, strict=True):
        point = c.holoviews().Points([(np.nan, np.nan)], list(axes), label=name)
        legend.append(point.opts(color=color, size=9, line_color=None))
    return legend


def correlation_words(table: pd.DataFrame, across: str, up: str) -> str:
    """Pearson's r of two columns and the number of rows; no line is broken within them."""
    r = c.number(table[across].corr(table[up]))
    return f"Pearson r\u00a0=\u00a0{r}, n\u00a0=\u00a0{len(table):,}"


def matrix(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], **options: Any) -> Any:
    """A heat map `(rows, columns)` with named rows, the first on top, and columns; NaN is grey.

    `**options` are those of `holoviews.QuadMesh`.
    """
    n_rows, n_columns = values.shape
    letters = max(map(len, columns), default=0)
    style: c.Options = {
        "colorbar": True,
        "clabel": "",
        "tools": ["hover"],
        "invert_yaxis": True,
        "clipping_colors": {"NaN": NAN_COLOR},
        "frame_width": int(np.clip(18 * n_columns, 260, 900)),
        "frame_height": int(np.clip(18 * n_rows, 120, 700)),
        "xlabel": "latent dimension",
        "ylabel": "",
        "line_width": 0.4,
    } | options
    width = style["frame_width"]
    height = style["frame_height"]
    is_coarse = width >= 20 * n_columns and height >= 20 * n_rows
    style |= {
        "line_color": "white" if is_coarse else None,
        "xticks": _ticks(columns, (10 + 8 * letters) / width),
        "yticks": _ticks(rows, 14 / height),
    } | options
    cells, style["cmap"] = c.paintable(np.asarray(values, "f4"), style["cmap"], NAN_COLOR)
    mesh = (np.arange(n_columns + 1) - 0.5, np.arange(n_rows + 1) - 0.5, cells)
    return c.holoviews().QuadMesh(mesh, ["column", "row"], "value").opts(**style)


def _ticks(names: Sequence[str], share: float) -> list[tuple[int, str]]:
    """Positions and names that fit on an axis of which each name takes a share."""
    step = math.ceil(share * len(names)) or 1
    return [(i, c.text(names[i])) for i in range(0, len(names), step)]


@builder("association", "metric", n.LATENT)
def association(table: xr.DataArray | xr.Dataset, metric: str | None = None, **options: Any) -> Any:
    """Plot an association table as heat maps of targets over latents, one for each metric.

    Parameters
    ----------
    table
        `(metric, latent[, target])` of `va.associate`, or the Dataset of `run.associate`, in which
        a dot marks adjusted p-values below 0.05.
    metric
        The only metric to show. Signed metrics have a diverging scale centred at 0.
    **options
        c.Options of `holoviews.QuadMesh`.

    Raises
    ------
    NoInputError
        If the table does not have the metric.
    """
    if isinstance(table, xr.DataArray):
        table = table.to_dataset(name="association")
    if "target" not in table.coords:
        table = table.assign_coords(target="target")
    if "target" not in table.dims:
        table = table.expand_dims("target")
    metrics = [str(name) for name in table["metric"].values]
    if metric is not None and metric not in metrics:
        raise NoInputError(f"the table has no metric {metric!r}.{did_you_mean(metric, metrics)}")
    frames = {}
    for name in metrics if metric is None else [metric]:
        frames[name] = _heat(name, table.sel(metric=name), options)
    if len(frames) == 1:
        return frames.popitem()[1]
    return c.holoviews().HoloMap(frames, kdims="metric")


def _heat(metric: str, table: xr.Dataset, options: c.Options) -> Any:
    """Heat map of targets over latents; dots mark small p-values."""
    is_signed = bool(table["signed"]) if "signed" in table.coords else METRICS[metric].signed
    table = table.transpose("target", n.LATENT, ...)
    values = table["association"].values
    targets = list(map(str, table["target"].values))
    latents = list(map(str, table[n.LATENT].values))
    note = f" (dot: adjusted p < {ALPHA:g})" if "p_adjusted" in table else ""
    style = {
        "title": c.title(f"{metric} of latent and side map{note}"),
        "frame_width": 780,
        "frame_height": max(60, 24 * len(targets)),
        "xlabel": "latent",
        "cmap": DIVERGING if is_signed else SEQUENTIAL,
        "clabel": metric,
        "clim": c.robust_limits(values, (0, 100), symmetric=is_signed),
    }
    heat_map = matrix(values, targets, latents, **style | options)
    if not note:
        return heat_map
    row, column = np.nonzero(table["p_adjusted"].values < ALPHA)
    dots = c.holoviews().Points((column, row), ["column", "row"])
    return heat_map * dots.opts(color="black", line_color="white", size=5)
