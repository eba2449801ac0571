"""A latent against a target, and associations of many: map and scatter linked, heat maps with what
is significant.
"""

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
from vaearr.views.maps import latent_map, map_plot

MOST_POINTS = 20_000  # more make a saved page slow
DENSE = 1500  # points from which on a density is shown instead of the points
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


def table_of(**maps: xr.DataArray) -> pd.DataFrame:
    """The scan points where all maps are finite: a row each, with their coordinates. Raises
    RoiError where none is.
    """
    table = (
        xr.Dataset({name: c.as_map(da.astype("f4")) for name, da in maps.items()})
        .to_dataframe()
        .dropna()
    )
    if table.empty:
        raise RoiError(
            f"no scan point holds all of {', '.join(maps)}; choose another map or region."
        )
    return table.reset_index()


def drawn(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows by chance, in an order by chance, so that no class lies on top."""
    return table.sample(min(most, len(table)), random_state=0)


def linked(
    picture: Any,
    source: pd.DataFrame,
    place: Sequence[str],
    plane: Sequence[str],
    over: Sequence[Any] = (),
    **how: Any,
) -> Any:
    """A map beside a scatter of the same points: a box or a lasso in one side lights up in the
    other.

    The link works in a saved page without Python: the points on the map are there all the time, and
    seen when they are selected. source: columns of the places on the map and of the plane, and what
    else is told; over: elements of the plane below or beside the points, and options of these and
    of the frame in `how`.
    """
    hv = c.holoviews()
    frame = {
        "frame_width": 340,
        "frame_height": 320,
        "fontsize": {"title": "10pt"},
        "legend_position": "right",
    }
    frame |= {key: how.pop(key) for key in ("xlabel", "ylabel", "title")}
    hidden = hv.Points(source, list(place)).opts(size=5, **HIDDEN, **BRUSH)
    points = hv.Points(source, list(plane)).opts(line_color=None, **how, **BRUSH)
    right = hv.Overlay([*over, points]).opts(**frame)
    return (picture * hidden + right).opts(shared_axes=False, shared_datasource=True)


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
    """Map of a latent beside that latent against a target; a selection in one lights up in the
    other.

    The link works in a saved page without Python. Many points are a density, so that none hides
    another; at most `most_points` of them can be selected. Pearson's r in the title is over all. A
    phase ("phase: fe_bcc") is the colour of the points, against band contrast where there is one.
    `**options` as of a map. Raises RoiError where no point has both.
    """
    one, wanted = latent_map(ds, run, latent), targets_of(ds, [target], roi=roi)
    column, name = wanted.isel(target=0, drop=True), str(wanted["target"].values[0])
    shown, about = column.assign_attrs(long_name=name), ""
    is_phase = name.startswith(f"{n.PHASE}: ") and n.BC in ds
    if is_phase:
        shown, about = ds[n.BC], f"{name} (orange): "
    elif name in ds:
        shown = ds[name]
    across, up = f"latent {latent}", c.text(shown.name if is_phase else name)
    table = table_of(**{across: one if roi is None else one.where(roi), up: shown, "group": column})
    r = table[across].corr(table["group"])
    source = drawn(table, most_points).astype("f4")
    over, how = (
        [],
        {
            "alpha": 0.5,
            "selection_alpha": 0.9,
            "nonselection_alpha": 0.06,
            "color": COLORS[0],
            "size": 4,
        },
    )
    if is_phase:
        how |= {"alpha": 1, "color": "group", "cmap": list(COLORS[:2]), "clim": (0, 1), "size": 3}
    elif len(table) >= DENSE:
        density = {
            "x": across,
            "y": up,
            "cmap": DENSITY,
            "gridsize": 40,
            "color": None,
            "grid": False,
        }
        over, how = [c.plot(table, "hexbin", **density)], {"size": 4, **HIDDEN}
    heading = c.title(f"{about}Pearson r = {c.number(r)}, n = {len(table):,}")
    frame = {"xlabel": across, "ylabel": c.label(shown), "title": heading}
    picture = map_plot(one, roi=roi, **options)
    return linked(picture, source, c.map_dims(one)[::-1], [across, up], over, **frame, **how)


def matrix(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], **how: Any) -> Any:
    """A heat map `(rows, columns)` of named rows, the first on top, and columns; NaN grey.

    `**how` are options of `holoviews.QuadMesh`.
    """
    height, width = values.shape
    own: dict[str, Any] = {
        "colorbar": True, "clabel": "", "tools": ["hover"], "invert_yaxis": True, "clipping_colors": {"NaN": NAN_COLOR},
        "frame_width": int(np.clip(18 * width, 260, 900)), "frame_height": int(np.clip(18 * height, 120, 700)),
        "xlabel": "latent dimension", "ylabel": "", "line_width": 0.4,
    } | how  # fmt: skip
    letters = max(map(len, columns), default=0)
    cells_are_large = own["frame_width"] >= 20 * width and own["frame_height"] >= 20 * height
    own.setdefault("line_color", "white" if cells_are_large else None)
    own.setdefault("xticks", _ticks(columns, (10 + 8 * letters) / own["frame_width"]))
    own.setdefault("yticks", _ticks(rows, 14 / own["frame_height"]))
    painted, own["cmap"] = c.paintable(np.asarray(values, "f4"), own["cmap"], NAN_COLOR)
    mesh = (np.arange(width + 1) - 0.5, np.arange(height + 1) - 0.5, painted)
    return c.holoviews().QuadMesh(mesh, ["column", "row"], "value").opts(**own)


def _ticks(names: Sequence[str], share: float) -> list[tuple[int, str]]:
    """Places and names along an axis of which each name takes a share: not more than there is room
    for.
    """
    step = math.ceil(share * len(names)) or 1
    return [(i, c.text(names[i])) for i in range(0, len(names), step)]


@builder("association", "metric", n.LATENT)
def association(found: xr.DataArray | xr.Dataset, metric: str | None = None, **options: Any) -> Any:
    """Heat maps of an association table, a frame for each metric: the targets over the latents.

    Parameters
    ----------
    found
        `(metric, latent[, target])` of `va.associate`, or the Dataset of `run.associate`, whose
        adjusted p-values are
        marked: cells below 0.05 get a dot.
    metric
        The only one to show. Signed ones are centred at 0 on a diverging scale.
    **options
        Options of `holoviews.QuadMesh`.
    """
    table = found if isinstance(found, xr.Dataset) else found.to_dataset(name="association")
    if "target" not in table.dims:
        table = (
            table.expand_dims("target")
            if "target" in table.coords
            else table.expand_dims(target=["target"])
        )
    metrics = [str(name) for name in table["metric"].values]
    if metric is not None and metric not in metrics:
        raise NoInputError(f"the table has no metric {metric!r}.{did_you_mean(metric, metrics)}")
    frames = {}
    for name in metrics if metric is None else [metric]:
        frames[name] = _heat(name, table.sel(metric=name), options)
    return (
        c.holoviews().HoloMap(frames, kdims="metric")
        if len(frames) > 1
        else next(iter(frames.values()))
    )


def _heat(metric: str, table: xr.Dataset, options: dict[str, Any]) -> Any:
    """Targets over latents; dots mark small p-values."""
    is_signed = bool(table["signed"]) if "signed" in table.coords else METRICS[metric].signed
    values = table["association"].transpose("target", n.LATENT).values
    targets, latents = ([str(label) for label in table[dim].values] for dim in ("target", n.LATENT))
    note = f" (dot: adjusted p < {ALPHA:g})" if "p_adjusted" in table else ""
    own = {
        "title": c.title(f"{metric} of latent and side map{note}"),
        "frame_width": 780,
        "frame_height": max(60, 24 * len(targets)),
        "xlabel": "latent",
        "cmap": DIVERGING if is_signed else SEQUENTIAL,
        "clabel": metric,
        "clim": c.robust_limits(values, (0, 100), symmetric=is_signed),
    }
    body = matrix(values, targets, latents, **own | options)
    if not note:
        return body
    row, column = np.nonzero(table["p_adjusted"].transpose("target", n.LATENT).values < ALPHA)
    dots = c.holoviews().Points((column, row), ["column", "row"])
    return body * dots.opts(color="black", line_color="white", size=5)
