"""A latent's map linked to the scatter of that latent against a side map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.association import associate, targets_of
from vaearr.errors import RoiError
from vaearr.plots.common import COLORS, as_map, holoviews, label, map_dims, text, title
from vaearr.plots.maps import latent_map, map_plot

MOST_POINTS = 20_000  # more make a saved page slow
SELECTED = "#D55E00"


def map_scatter(
    ds: xr.Dataset,
    run: str = n.DEFAULT_RUN,
    latent: int = 0,
    target: str = n.BC,
    *,
    roi: xr.DataArray | None = None,
    most_points: int = MOST_POINTS,
    seed: int = 0,
    **kwargs: Any,
) -> Any:
    """Map of a latent beside the scatter of that latent against a target; a selection in one lights up in the other.

    The link works in a saved page without Python: both sides share one data source. Box and lasso select on either
    side. Pearson's r in the title is over all points; above `most_points` the scatter shows a random part of them
    (`seed`) and says so. A phase ("phase: fe_bcc") is shown as the colour of the points, against band contrast where
    there is one. `**kwargs` go to `map_plot` and from there unchanged to hvplot.
    """
    hv = holoviews()
    one = latent_map(ds, run, latent)
    table = scatter_points(ds, run, latent, target, roi=roi)
    values = as_map(one)
    rows, columns = map_dims(values)
    shown = subsample(table, most_points, seed)
    part = "" if shown.sizes["point"] == table.sizes["point"] else f", {shown.sizes['point']:,} shown"
    across, up = f"latent {latent}", text(table.attrs["up"])
    frame = {
        columns: shown["x"].values,
        rows: shown["y"].values,
        across: shown["latent"].values,
        up: shown["up"].values,
    }
    data = {key: item.astype("f4") for key, item in frame.items()}
    color: Any = COLORS[0]
    vdims = [rows, columns]
    if "group" in shown:
        data["group"], color = shown["group"].values.astype("f4"), "group"
        vdims = [*vdims, "group"]
    source = pd.DataFrame(data)
    # bokeh brushes both: the points on the map are invisible until they are selected
    hidden = hv.Points(source, [columns, rows], [across, up]).opts(
        alpha=0, selection_alpha=0.9, nonselection_alpha=0, color=SELECTED, selection_color=SELECTED, size=4,
        shared_datasource=True, tools=["box_select", "lasso_select"], backend="bokeh",
    )  # fmt: skip
    about = f"{table.attrs['heading']}: " if "group" in table else ""
    heading = f"{about}Pearson r = {table.attrs['r']:.2f}, n = {table.sizes['point']:,}{part}"
    points = hv.Points(source, [across, up], vdims).opts(
        alpha=0.6 if "group" in shown else 0.35, nonselection_alpha=0.06, selection_alpha=0.9, color=color, size=3,
        line_color=None,
        shared_datasource=True, tools=["box_select", "lasso_select"], backend="bokeh", frame_width=340,
        frame_height=340, xlabel=across, ylabel=text(table.attrs["label"]),
        title=title(heading), fontsize={"title": "10pt"},
    )  # fmt: skip
    if "group" in shown:
        points = points.opts(cmap=[COLORS[0], COLORS[1]], clim=(0, 1), backend="bokeh")
    picture = map_plot(one, roi=roi, **kwargs) * hidden
    return (picture + points).opts(shared_axes=False, shared_datasource=True, backend="bokeh")


def scatter_points(
    ds: xr.Dataset, run: str, latent: int, target: str, *, roi: xr.DataArray | None = None
) -> xr.Dataset:
    """Points where latent and target are finite: `x`, `y`, `latent`, `up` (and `group` 0/1 for a phase) over `point`.

    Attributes: `r` (Pearson, over all points), `up`, `label` and `heading` of the vertical axis.
    """
    one = latent_map(ds, run, latent)
    rows, columns = map_dims(one)
    wanted = targets_of(ds, [target], roi=roi)
    column = wanted.isel(target=0, drop=True)
    heading, group = str(wanted["target"].values[0]), None
    shown, name = column, heading
    if heading.startswith(f"{n.PHASE}: "):
        group = column
        if n.BC in ds:
            shown, name = ds[n.BC], n.BC
    maps = {"latent": as_map(one), "up": as_map(shown.astype("f4")), "target": as_map(column)}
    keep = np.isfinite(maps["latent"].values) & np.isfinite(maps["up"].values) & np.isfinite(maps["target"].values)
    if roi is not None:
        keep &= as_map(roi).values > 0
    if not keep.any():
        raise RoiError(f"no scan point holds both latent {latent} and {target!r}; choose another target or region.")
    r = associate(maps["latent"].expand_dims(n.LATENT, -1), maps["target"].where(keep), "pearson")
    row, col = np.nonzero(keep)
    variables = {key: ("point", item.values[keep]) for key, item in maps.items() if key != "target"}
    if group is not None:
        variables["group"] = ("point", maps["target"].values[keep])
    variables |= {"x": ("point", maps["latent"][columns].values[col]), "y": ("point", maps["latent"][rows].values[row])}
    attrs = {"r": float(r.squeeze()), "up": name, "label": _axis(ds, name), "heading": heading}
    if group is not None:
        attrs["heading"] = f"{heading} (orange)"
    return xr.Dataset(variables, attrs=attrs)


def _axis(ds: xr.Dataset, name: str) -> str:
    if name in ds:
        return label(ds[name])
    if n.ELEMENTS in ds and name in ds[n.ELEMENTS][n.ELEMENT].values:
        return label(ds[n.ELEMENTS].assign_attrs(long_name=name))
    return text(name)


def subsample(points: xr.Dataset, most: int, seed: int) -> xr.Dataset:
    """At most `most` points, drawn without replacement, in their order."""
    count = points.sizes["point"]
    if count <= most:
        return points
    chosen = np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
    return points.isel(point=chosen)


def is_plain_scan(ds: xr.Dataset) -> bool:
    """Whether the navigation dims span one plane, so that variables can be drawn as maps as they are."""
    return schema.is_scan(ds) and len(schema.navigation_dims(ds)) == 2
