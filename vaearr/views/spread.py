"""How latents spread: samples in a plane, pairs, histograms, heat maps by class, principal
components.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr.schema import meanings
from vaearr.views.colors import palette
from vaearr.views.common import (
    DIVERGING,
    SEQUENTIAL,
    brief,
    by_class,
    holoviews,
    number,
    plot,
    robust_limits,
    text,
    title,
)
from vaearr.views.kinds import builder
from vaearr.views.relations import matrix

FRAME = 420
PAIR_FRAME = 150  # pixels of a panel of a pair plot
SQUARE = {"frame_width": FRAME, "frame_height": FRAME}


def scatter(found: xr.Dataset, position: np.ndarray, axes: list[str]) -> Any:
    """Points `(k, 2)` in a plane, each of a sample, in the colours of their classes; the pointer
    names the sample.
    """
    table = pd.DataFrame(position, columns=axes).assign(sample=found["number"].values)
    labels = found.coords.get("class")
    return by_class(
        table, labels, "scatter", x=axes[0], y=axes[1], hover_cols=["sample"], alpha=0.6, **SQUARE
    )


@builder("embedding", "position", "axis", "point", "number")
def embedding_view(found: xr.Dataset) -> Any:
    """The positions of `va.embed`, coloured by class."""
    position, axes = found["position"].values, [text(name) for name in found["axis"].values]
    if len(axes) == 1:
        position, axes = np.pad(position, ((0, 0), (0, 1))), [*axes, "no second component"]
    attrs = found.attrs
    names = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
    heading = f"{names[attrs['method']]} of the latents, {attrs['n_points']:,} of {attrs['n_known']:,} samples"
    return scatter(found, position, axes).opts(title=heading)


@builder("pairs", "vectors", "correlation", "point")
def pair_sheet(found: xr.Dataset) -> Any:
    """The result of `pairs`: histograms on the diagonal, below it kernel densities, above it
    samples by class and r.
    """
    names = [f"latent {int(dim)}" for dim in found["latent"].values]
    table = pd.DataFrame(found["vectors"].values, columns=names)
    labels = found.coords.get("class")
    panels = []
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            own: dict[str, Any] = {"frame_width": PAIR_FRAME, "frame_height": PAIR_FRAME}
            own |= {"xaxis": i == len(names) - 1, "yaxis": j == 0, "title": ""}
            if i == j:
                panel = by_class(
                    table, labels, "hist", y=row, xlabel=row, ylabel=row, bins=30, alpha=0.5, **own
                )
            elif i > j:
                panel = plot(
                    table,
                    "bivariate",
                    x=column,
                    y=row,
                    cmap=SEQUENTIAL,
                    colorbar=False,
                    color=None,
                    **own,
                )
            else:
                own["title"] = f"r = {number(float(found['correlation'].values[i, j]))}"
                panel = by_class(
                    table, labels, "scatter", x=column, y=row, alpha=0.6, size=9, **own
                )
            is_corner = i == 0 and j == len(names) - 1
            panels.append(panel.opts(show_legend=is_corner))
    heading = f"pairs of latents, {len(table):,} of {found.attrs['n']:,} samples"
    return holoviews().Layout(panels).cols(len(names)).opts(title=heading, shared_axes=False)


@builder("histograms", "counts", "edges", "latent", "bin")
def histogram_view(found: xr.Dataset) -> Any:
    """The result of `histograms` as a HoloMap over the dimensions; by class, the share of each
    class's samples.
    """
    frames = {}
    is_by_class = "class" in found["counts"].dims
    for dim in found["latent"].values:
        one = found.sel(latent=dim)
        edges, counts = one["edges"].values, one["counts"].values
        middles = (edges[1:] + edges[:-1]) / 2
        name = f"latent {int(dim)}"
        own: dict[str, Any] = {
            "frame_width": FRAME,
            "frame_height": 260,
            "title": name,
            "xlabel": name,
        }
        if is_by_class:
            names = [brief(name, 18) for name in found["class"].values]
            table = pd.DataFrame(
                (counts / np.maximum(counts.sum(1, keepdims=True), 1)).T, middles, names
            )
            own |= {"color": palette(len(names)), "where": "mid", "ylabel": "share of the class"}
            frames[int(dim)] = plot(table, "step", group_label=text(found.attrs["by"]), **own)
        else:
            frames[int(dim)] = plot(pd.DataFrame({"samples": counts}, middles), "bar", **own)
    what = "share of each class" if is_by_class else "samples"
    heading = f"latents (posterior mean), {what} per bin, {found.attrs['n']:,} samples"
    return holoviews().HoloMap(frames, kdims="latent").relabel(heading)


def centred(
    values: np.ndarray, rows: list[str], columns: list[str], what: str, **options: Any
) -> Any:
    """A heat map `(rows, columns)` centred at 0."""
    own = {
        "cmap": DIVERGING,
        "clim": robust_limits(values, (0, 100), symmetric=True),
        "title": title(what),
    }
    return matrix(values, rows, columns, **own | options)


@builder("activations", "activation", "latent")
def activation_view(found: xr.Dataset) -> Any:
    """The result of `activations`: samples sorted by class, and the means of the classes, as heat
    maps.
    """
    values, dims = found["activation"].values, [str(int(dim)) for dim in found["latent"].values]
    ticks: list[tuple[float, str]] = []
    if "class_of_point" in found.coords:
        codes, words = found["class_of_point"].values, meanings(found["class_of_point"])
        for code in np.unique(codes):
            place = np.flatnonzero(codes == code)
            if len(place) > len(codes) / 40:
                ticks.append((float(place.mean()), brief(words[int(code)], 14)))
    limits, heading = (
        robust_limits(values, symmetric=True),
        f"{len(values):,} of {found.attrs['n']:,} samples",
    )
    samples = centred(values, [], dims, heading, yticks=ticks or 5, clim=limits, **SQUARE)
    if "class_mean" not in found:
        return samples
    names = [brief(name, 14) for name in found["class"].values]
    means = centred(
        found["class_mean"].values, names, dims, f"means by {found.attrs['by']}", **SQUARE
    )
    return holoviews().Layout([samples, means]).opts(shared_axes=False)
