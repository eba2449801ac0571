"""Clusters against a reference on the screen: maps side by side, the table of how they agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr.plots.cluster_sheets import confusion_parts, confusion_share
from vaearr.plots.clusters import Colors, cluster_map
from vaearr.plots.common import NAN_COLOR, holoviews, text, title
from vaearr.plots.maps import same_grid


def comparison_view(
    labels: xr.DataArray,
    reference: xr.DataArray,
    *,
    segments: np.ndarray | None = None,
    colors: Colors | None = None,
    reference_colors: Colors | None = None,
    **kwargs: Any,
) -> Any:
    """A cluster map beside a reference (phases, true grains), boundaries on both; zoom is linked.

    `segments` are commonly those of the reference, `(n, 4)`. `**kwargs` go to `cluster_map`. Raises SchemaError where
    the maps differ in grid.
    """
    same_grid(labels, reference)
    left = cluster_map(labels, colors=colors, segments=segments, **kwargs)
    right = cluster_map(reference, colors=reference_colors, segments=segments, **kwargs)
    return (left + right).opts(shared_axes=True, backend="bokeh")


def confusion_heatmap(table: xr.DataArray, **kwargs: Any) -> Any:
    """How many points of each cluster (rows) are of each reference class (columns); colour = share of the cluster.

    `table` holds counts over two dimensions. `**kwargs` are options of `holoviews.QuadMesh`.
    """
    from bokeh.models import HoverTool

    hv = holoviews()
    counts, (rows, columns) = confusion_parts(table)
    share = confusion_share(counts).filled(np.nan)
    shape = counts.shape
    of = np.tile(np.array(rows, dtype=object)[:, None], (1, shape[1]))
    against = np.tile(np.array(columns, dtype=object), (shape[0], 1))
    x, y = np.arange(shape[1] + 1) - 0.5, np.arange(shape[0] + 1) - 0.5
    first, second = (text(dim) for dim in table.dims)
    hover = HoverTool(tooltips=[(first, "@of"), (second, "@against"), ("points", "@count"), ("share", "@share{0.0%}")])
    mesh = hv.QuadMesh((x, y, share, counts, of, against), ["column", "row"], ["share", "count", "of", "against"])
    step = max(1, -(-shape[1] // 40))
    options = {
        "cmap": "Blues", "clim": (0.0, 1.0), "colorbar": True, "clabel": "share of the row", "invert_yaxis": True,
        "xticks": [(i, columns[i]) for i in range(0, shape[1], step)], "yticks": list(enumerate(rows)),
        "xlabel": second, "ylabel": first, "title": title(f"n = {int(counts.sum()):,}"), "tools": [hover],
        "clipping_colors": {"NaN": NAN_COLOR}, "frame_width": int(np.clip(60 * shape[1], 160, 640)),
        "frame_height": int(np.clip(30 * shape[0], 150, 600)), "line_color": None, "backend": "bokeh",
        "xrotation": 90 if max(map(len, columns)) * 7 > 640 / min(shape[1], 40) else 0,
    }  # fmt: skip
    shown = mesh.opts(**options | kwargs)
    if counts.size > 200:
        return shown
    row, column = np.nonzero(counts)
    words = [f"{count:.0f}" for count in counts[row, column]]
    dark = share[row, column] > 0.6
    labels = [
        hv.Labels((column[here], row[here], np.array(words, dtype=object)[here]), ["column", "row"], "word").opts(
            text_color=color, text_font_size="8pt", backend="bokeh"
        )
        for here, color in ((dark, "white"), (~dark, "black"))
        if here.any()
    ]
    return hv.Overlay([shown, *labels])
