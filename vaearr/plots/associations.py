"""Views of association tables: heat maps over latents, rankings, with what is significant and what is tied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.association import METRICS, ranking
from vaearr.errors import NoInputError, SchemaError, did_you_mean
from vaearr.plots.common import DIVERGING, NAN_COLOR, SEQUENTIAL, holoviews, paintable, robust_limits, text, title

ALPHA = 0.05  # adjusted p-values below it are marked
MOST_LATENTS = 128  # columns of a heat map; of more the strongest are shown


@dataclass(frozen=True)
class HeatTable:
    """A heat map over latents, ready to draw."""

    heading: str
    rows: tuple[str, ...]
    latents: tuple[str, ...]
    values: np.ndarray  # (row, latent)
    shown: np.ndarray  # (row, latent), what the colours stand for
    limits: tuple[float, float]
    cmap: str
    clabel: str
    marked: np.ndarray | None  # (row, latent), significant; None = not known
    note: str  # on what is left out and marked, "" for nothing

    @property
    def title(self) -> str:
        """Heading and note in one line."""
        return f"{self.heading} ({self.note})" if self.note else self.heading


def target_heat(
    table: xr.DataArray,
    metric: str | None = None,
    *,
    p_adjusted: xr.DataArray | None = None,
    most: int | None = MOST_LATENTS,
) -> HeatTable:
    """One metric: targets in rows, latents in columns; signed metrics centred at 0.

    Raises NoInputError for a metric that the table has not.
    """
    known = [str(name) for name in table["metric"].values]
    metric = metric or known[0]
    if metric not in known:
        raise NoInputError(f"the table has no metric {metric!r}.{did_you_mean(metric, known)}")
    values = _rows(table.sel(metric=metric), "target")
    signed = _is_signed(table, metric)
    limits = robust_limits(values.values, (0, 100), symmetric=signed)
    p = None if p_adjusted is None else _rows(like(p_adjusted, table).sel(metric=metric), "target").values
    return _heat(
        f"{metric} of latent and side map", values, values.values, limits, DIVERGING if signed else SEQUENTIAL, metric,
        p,
        most,
    )  # fmt: skip


def metric_heat(
    table: xr.DataArray,
    target: str | None = None,
    *,
    p_adjusted: xr.DataArray | None = None,
    most: int | None = MOST_LATENTS,
) -> HeatTable:
    """One target: metrics in rows, latents in columns; each row relative to its largest |value|, named in the row.

    Raises NoInputError for a target that the table has not.
    """
    name, column = column_of(table, target)
    p = None if p_adjusted is None else _rows(column_of(like(p_adjusted, table), target)[1], "metric").values
    values = _rows(column, "metric")
    largest = np.array([np.max(np.abs(row[np.isfinite(row)]), initial=0.0) for row in values.values])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(largest[:, None] > 0, values.values / largest[:, None], values.values)
    labels = [f"{metric} (max {_short(top)})" for metric, top in zip(values["metric"].values, largest, strict=True)]
    return _heat(
        f"association of latents with {name}", values.assign_coords(metric=labels), share, (-1.0, 1.0), DIVERGING,
        "relative to row max", p, most,
    )  # fmt: skip


def _short(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 or value == 0 else f"{value:.0e}"


def _is_signed(table: xr.DataArray, metric: str) -> bool:
    if "signed" in table.coords:
        return bool(table["signed"].sel(metric=metric))
    return METRICS[metric].signed


def _rows(values: xr.DataArray, dim: str) -> xr.DataArray:
    return (values if dim in values.dims else values.expand_dims(dim)).transpose(dim, n.LATENT)


def like(p_adjusted: xr.DataArray, table: xr.DataArray) -> xr.DataArray:
    """P-values in the order of the table. Raises SchemaError where they are of another table."""
    if set(p_adjusted.dims) != set(table.dims):
        raise SchemaError(f"the p-values have dims {p_adjusted.dims}, the table {table.dims}; give those of the table.")
    try:
        return p_adjusted.sel({dim: table[dim] for dim in table.dims}).transpose(*table.dims)
    except KeyError as error:
        raise SchemaError(f"the p-values are of another table: they lack {error}.") from None


def column_of(table: xr.DataArray, target: str | None) -> tuple[str, xr.DataArray]:
    labels = [str(name) for name in np.atleast_1d(table["target"].values)]
    target = labels[0] if target is None and len(labels) == 1 else target
    if target not in labels:
        raise NoInputError(f"the table has no target {target!r}.{did_you_mean(str(target), labels)}")
    return text(target), table.sel(target=target) if "target" in table.dims else table


def _heat(
    heading: str, values: xr.DataArray, shown: np.ndarray, limits: tuple[float, float], cmap: str, clabel: str,
    p: np.ndarray | None, most: int | None,
) -> HeatTable:  # fmt: skip
    count = values.sizes[n.LATENT]
    chosen = np.arange(count)
    notes = []
    if most is not None and count > most:
        with np.errstate(invalid="ignore", divide="ignore"):
            strength = np.abs(shown) / np.nanmax(
                np.abs(shown), axis=1, keepdims=True, initial=0, where=np.isfinite(shown)
            )
        best = np.max(np.where(np.isfinite(strength), strength, -1.0), axis=0)
        chosen = np.sort(np.argsort(-best, kind="stable")[:most])
        notes.append(f"the {most} strongest of {count} latents")
    if p is not None:
        notes.append(f"dot: adjusted p < {ALPHA:g}")
    rows, latents = str(values.dims[0]), values[n.LATENT].values[chosen]
    return HeatTable(
        heading, tuple(text(name) for name in values[rows].values), tuple(text(item) for item in latents),
        values.values[:, chosen], shown[:, chosen], limits, cmap, clabel,
        None if p is None else np.nan_to_num(p[:, chosen], nan=1.0) < ALPHA, ", ".join(notes),
    )  # fmt: skip


def association_heatmap(
    table: xr.DataArray,
    metric: str | None = None,
    *,
    p_adjusted: xr.DataArray | None = None,
    most: int | None = MOST_LATENTS,
    **kwargs: Any,
) -> Any:
    """Association of every latent with every target by one metric; signed metrics centred at 0 on a diverging scale.

    Parameters
    ----------
    table
        `(metric, latent[, target])`, from `associate`.
    p_adjusted
        P-values over the same dims, from `significance`: cells below 0.05 get a dot.
    most
        Latents that are shown at most, those with the strongest association; None = all.
    **kwargs
        Options of `holoviews.QuadMesh`.
    """
    return _draw(target_heat(table, metric, p_adjusted=p_adjusted, most=most), kwargs)


def metric_heatmap(
    table: xr.DataArray,
    target: str | None = None,
    *,
    p_adjusted: xr.DataArray | None = None,
    most: int | None = MOST_LATENTS,
    **kwargs: Any,
) -> Any:
    """Association of every latent with one target by every metric; each row relative to its largest |value|.

    Parameters as of `association_heatmap`.
    """
    return _draw(metric_heat(table, target, p_adjusted=p_adjusted, most=most), kwargs)


def _draw(heat: HeatTable, kwargs: dict[str, Any]) -> Any:
    from bokeh.models import HoverTool

    hv = holoviews()
    rows, count = len(heat.rows), len(heat.latents)
    names = np.tile(np.array(heat.latents, dtype=object), (rows, 1))
    whose = np.tile(np.array(heat.rows, dtype=object)[:, None], (1, count))
    written = np.array(
        [[f"{v:.4g}" if np.isfinite(v) else "no value" for v in row] for row in heat.values], dtype=object
    )
    shown, cmap = paintable(heat.shown, heat.cmap, NAN_COLOR)
    x, y = np.arange(count + 1) - 0.5, np.arange(rows + 1) - 0.5
    step = max(1, -(-count // 32))
    mesh = hv.QuadMesh((x, y, shown, written, names, whose), ["place", "row"], ["shown", "value", "latent", "of"])
    hover = HoverTool(tooltips=[("latent", "@latent"), ("", "@of"), ("value", "@value")])
    options = {
        "cmap": cmap, "clim": heat.limits, "colorbar": True, "clabel": heat.clabel, "xlabel": "latent",
        "ylabel": "", "frame_width": 780, "frame_height": max(60, 24 * rows), "tools": [hover], "invert_yaxis": True,
        "title": title(heat.title), "clipping_colors": {"NaN": NAN_COLOR}, "backend": "bokeh",
        "xticks": [(i, heat.latents[i]) for i in range(0, count, step)], "yticks": list(enumerate(heat.rows)),
        "line_color": "white" if count <= 64 else None, "line_width": 0.4,
    }  # fmt: skip
    body = mesh.opts(**options | kwargs)
    if heat.marked is None:
        return body
    row, column = np.nonzero(heat.marked)
    dots = hv.Points((column, row), ["place", "row"]).opts(
        color="black", line_color="white", size=5 if count <= 64 else 3.5, backend="bokeh"
    )
    return body * dots


def ranking_table(
    table: xr.DataArray,
    metric: str,
    target: str | None = None,
    top: int = 10,
    *,
    p_adjusted: xr.DataArray | None = None,
    n_effective: xr.DataArray | None = None,
    **kwargs: Any,
) -> Any:
    """The latents that go most strongly with a target, as a table that names ties and what is significant.

    `p_adjusted` and `n_effective` are of the same table, from `significance`. `**kwargs` are options of
    `holoviews.Table`.
    """
    hv = holoviews()
    ranked = ranking(table, metric, target, top)
    columns: dict[str, list[Any]] = {
        "position": ranked["position"].values.tolist(),
        "latent": ranked[n.LATENT].values.tolist(),
        metric: [float(f"{v:.4g}") for v in ranked["value"].values.tolist()],
    }
    notes = [["tied"] if tied else [] for tied in ranked["is_tied"].values]
    for name, given in (("adjusted p", p_adjusted), ("effective n", n_effective)):
        if given is not None:
            found = column_of(like(given, table).sel(metric=metric), target)[1].sel({n.LATENT: columns["latent"]})
            columns[name] = [float(f"{v:.4g}") for v in found.values.tolist()]
    for note, p in zip(notes, columns.get("adjusted p", []), strict=False):
        note += [f"p < {ALPHA:g}"] if p < ALPHA else []
    columns["note"] = [", ".join(note) for note in notes]
    made = hv.Table(tuple(columns.values()), ["position", "latent"], list(columns)[2:])
    named = f" with {text(target)}" if target else ""
    return made.opts(**{"title": title(f"{metric}{named}"), "backend": "bokeh", "width": 520} | kwargs)
