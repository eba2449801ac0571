"""The distribution of latents: samples in a plane, pairs, histograms, heat maps by class."""

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
    Options,
    brief,
    by_class,
    holoviews,
    in_columns,
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


def scatter(ds: xr.Dataset, position: np.ndarray, axes: list[str]) -> Any:
    """Samples at points `(k, 2)` of a plane in the colours of their classes."""
    table = pd.DataFrame(position, columns=axes).assign(sample=ds["number"].values)
    style = {"x": axes[0], "y": axes[1], "hover_cols": ["sample"], "alpha": 0.6} | SQUARE
    return by_class(table, ds.coords.get("class"), "scatter", **style)


@builder("embedding", "position", "axis", "point", "number")
def embedding_view(embedding: xr.Dataset) -> Any:
    """Plot the positions of `va.embed`, coloured by class."""
    position = embedding["position"].values
    axes = [text(name) for name in embedding["axis"].values]
    if len(axes) == 1:
        position = np.pad(position, ((0, 0), (0, 1)))
        axes.append("no second component")
    attrs = embedding.attrs
    method = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}[attrs["method"]]
    count = f"{attrs['n_points']:,} of {attrs['n_known']:,} samples"
    return scatter(embedding, position, axes).opts(title=f"{method} of the latents, {count}")


@builder("pairs", "vectors", "correlation", "point")
def pair_sheet(pairs: xr.Dataset) -> Any:
    """Plot the result of `Run.pairs` as a matrix of panels.

    Histograms on the diagonal, kernel densities below it, samples by class with r above it.
    """
    names = [f"latent {int(dim)}" for dim in pairs["latent"].values]
    table = pd.DataFrame(pairs["vectors"].values, columns=names)
    correlation = pairs["correlation"].values
    labels = pairs.coords.get("class")
    last = len(names) - 1
    panels = []
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            style: Options = {
                "y": row,
                "title": "",
                "frame_width": PAIR_FRAME,
                "frame_height": PAIR_FRAME,
                "xaxis": i == last,
                "yaxis": j == 0,
            }
            if i == j:
                style |= {"xlabel": row, "ylabel": row, "bins": 30, "alpha": 0.5}
                panel = by_class(table, labels, "hist", **style)
            elif i > j:
                style |= {"x": column, "cmap": SEQUENTIAL, "colorbar": False, "color": None}
                panel = plot(table, "bivariate", **style)
            else:
                r = number(correlation[i, j].item())
                style |= {"x": column, "title": f"r = {r}", "alpha": 0.6, "size": 9}
                panel = by_class(table, labels, "scatter", **style)
            panels.append(panel.opts(show_legend=i == 0 and j == last))
    heading = f"pairs of latents, {len(table):,} of {pairs.attrs['n']:,} samples"
    return in_columns(panels, len(names), title=heading)


@builder("histograms", "counts", "edges", "latent", "bin")
def histogram_view(histograms: xr.Dataset) -> Any:
    """Plot the result of `Run.histograms`, a frame for each latent; by class as shares."""
    names = ["samples"]
    content = "samples"
    by = ""
    if "class" in histograms.dims:
        names = [brief(name, 18) for name in histograms["class"].values]
        content = "share of the class"
        by = text(histograms.attrs["by"])
    frames = {}
    for latent in map(int, histograms["latent"].values):
        histogram = histograms.sel(latent=latent)
        edges = histogram["edges"].values
        middles = (edges[1:] + edges[:-1]) / 2
        counts = np.atleast_2d(histogram["counts"].values)
        if by:
            counts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        table = pd.DataFrame(counts.T, middles, names)
        style: Options = {
            "frame_width": FRAME,
            "frame_height": 260,
            "title": f"latent {latent}",
            "xlabel": f"latent {latent}",
            "ylabel": content,
            "where": "mid",
            "color": palette(len(names)),
            "group_label": by,
        }
        frames[latent] = plot(table, "step", **style)
    heading = f"latents (posterior mean), {content} per bin, {histograms.attrs['n']:,} samples"
    return holoviews().HoloMap(frames, kdims="latent").relabel(heading)


def centred(
    values: np.ndarray, rows: list[str], columns: list[str], heading: str, **options: Any
) -> Any:
    """A heat map `(rows, columns)` centred at 0."""
    limits = robust_limits(values, (0, 100), symmetric=True)
    style = {"cmap": DIVERGING, "clim": limits, "title": title(heading)}
    return matrix(values, rows, columns, **style | options)


@builder("activations", "activation", "latent")
def activation_view(activations: xr.Dataset) -> Any:
    """Plot the result of `Run.activations`: samples sorted by class, and means of the classes."""
    values = activations["activation"].values
    dims = [str(int(dim)) for dim in activations["latent"].values]
    ticks: Any = 5
    if "class_of_point" in activations.coords:
        codes = activations["class_of_point"].values
        names = meanings(activations["class_of_point"])
        ticks = []
        for code in np.unique(codes).tolist():
            rows = np.flatnonzero(codes == code)
            if len(rows) > len(codes) / 40:
                ticks.append((float(rows.mean()), brief(names[code], 14)))
    limits = robust_limits(values, symmetric=True)
    heading = f"{len(values):,} of {activations.attrs['n']:,} samples"
    samples = centred(values, [], dims, heading, yticks=ticks or 5, clim=limits, **SQUARE)
    if "class_mean" not in activations:
        return samples
    class_names = [brief(name, 14) for name in activations["class"].values]
    heading = f"means by {activations.attrs['by']}"
    means = centred(activations["class_mean"].values, class_names, dims, heading, **SQUARE)
    return in_columns([samples, means], 2)
