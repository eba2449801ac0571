"""How latents spread: samples in a plane, histograms, heat maps by class, principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr.schema import meanings
from vaearr.views.common import DIVERGING, brief, holoviews, palette, robust_limits, text, title
from vaearr.views.curves import UNUSED, bars, curve
from vaearr.views.kinds import builder
from vaearr.views.maps import BOKEH
from vaearr.views.relations import matrix

FRAME = 420
POINTS = {"size": 4, "tools": ["hover"], "line_color": None, "data_aspect": 1, "frame_width": 420, "frame_height": 420}


def legend_names(names: list[str]) -> list[str]:
    """Names of classes cut to fit a legend, whole where two would become one."""
    cut = [brief(name, 18) for name in names]
    return cut if len(set(cut)) == len(cut) else [text(name) for name in names]


def scatter(found: xr.Dataset, position: np.ndarray, axes: list[str]) -> Any:
    """Points `(k, 2)` in a plane, each of a sample, in the colours of their classes; the pointer names the sample."""
    hv, numbers, options = holoviews(), found["number"].values, POINTS | {"alpha": 0.6} | BOKEH
    if "class" not in found.coords:
        return hv.Points((*position.T, numbers), axes, "sample").opts(color=UNUSED, **options)
    codes, names, by = found["class"].values, meanings(found["class"]), text(found["class"].attrs["long_name"])
    there = np.unique(codes[codes >= 0])
    labels = legend_names([names[int(code)] for code in there])
    groups = {"none": (codes < 0, UNUSED)} if (codes < 0).any() else {}
    groups |= {label: (codes == i, color) for i, label, color in zip(there, labels, palette(len(there)), strict=True)}
    points = {
        name: hv.Points((*position[here].T, numbers[here]), axes, "sample", label=name).opts(color=color, **options)
        for name, (here, color) in groups.items()
    }
    return hv.NdOverlay(points, kdims=by, sort=False).opts(legend_position="right", title=title(by), **BOKEH)


@builder("embedding", "position", "axis", "point", "number")
def embedding_view(found: xr.Dataset) -> Any:
    """The positions of `va.embed`, coloured by class."""
    position, axes = found["position"].values, [text(a) for a in found["axis"].values]
    if position.shape[1] == 1:
        position, axes = np.column_stack([position, np.zeros(len(position))]), [*axes, "no second component"]
    return scatter(found, position, axes).opts(title=title(embedding_words(found)), **BOKEH)


def embedding_words(found: xr.Dataset) -> str:
    """What an embedding is of."""
    names, attrs = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}, found.attrs
    few = "" if attrs["n_points"] == attrs["n_known"] else f" of {attrs['n_known']:,}"
    about = f"{names.get(attrs['method'], attrs['method'])} of the latents, {attrs['n_points']:,}{few} samples"
    if "explained_variance_ratio" in attrs:
        about += f", {sum(attrs['explained_variance_ratio']):.0%} of their variance"
    return about + "".join(f", {key} {attrs[key]:.3g}" for key in ("perplexity", "neighbours") if key in attrs)


@builder("histograms", "counts", "edges", "latent", "bin")
def histogram_view(found: xr.Dataset) -> Any:
    """The result of `histograms` as a HoloMap over the dimensions; by class, the share of each class's samples."""
    hv, frames, by_class = holoviews(), {}, "class" in found["counts"].dims
    for dim in found["latent"].values:
        one, name = found.sel(latent=dim), f"latent {int(dim)}"
        counts, edges = one["counts"].values, one["edges"].values
        options = {"frame_width": FRAME, "frame_height": 260, "title": name, **BOKEH}
        if not by_class:
            frames[int(dim)] = bars(edges, counts, (name, "samples"), **options)
            continue
        kept = [k for k, every in enumerate(found["counts"].values) if every.any()]
        labels, middles = legend_names([found["class"].values[k] for k in kept]), (edges[1:] + edges[:-1]) / 2
        curves = {
            label: curve(middles, counts[k] / max(counts[k].sum(), 1), (name, "share of the class"), "", color,
                         interpolation="steps-mid", line_width=1.5)[0]
            for k, label, color in zip(kept, labels, palette(len(kept)), strict=True)
        }  # fmt: skip
        overlay = hv.NdOverlay(curves, kdims=text(found.attrs["by"]), sort=False)
        frames[int(dim)] = overlay.opts(legend_position="right", **options)
    what = "share of each class" if by_class else "samples"
    heading = f"latents (posterior mean), {what} per bin, {found.attrs['n']:,} samples"
    return hv.HoloMap(frames, kdims="latent").relabel(heading)


def centred(values: np.ndarray, rows: list[str], columns: list[str], what: str, **options: Any) -> Any:
    """A heat map `(rows, columns)` centred at 0."""
    reach = float(np.nanmax(abs(values), initial=0)) or 1.0
    return matrix(values, rows, columns, **{"cmap": DIVERGING, "clim": (-reach, reach), "title": title(what)} | options)


@builder("activations", "activation", "latent")
def activation_view(found: xr.Dataset) -> Any:
    """The result of `activations`: samples sorted by class, and the means of the classes, as heat maps."""
    values, dims = found["activation"].values, [str(int(d)) for d in found["latent"].values]
    own: dict[str, Any] = {"frame_width": FRAME, "frame_height": FRAME}
    ticks: list[tuple[float, str]] = []
    if "class_of_point" in found.coords:
        codes, words = found["class_of_point"].values, meanings(found["class_of_point"])
        for code in np.unique(codes):
            place = np.flatnonzero(codes == code)
            if len(place) > len(codes) / 40:
                ticks.append((float(place.mean()), brief(words[int(code)], 14)))
    cut = "" if len(values) == found.attrs["n"] else f"{len(values):,} of "
    limits, heading = robust_limits(values, symmetric=True), f"{cut}{found.attrs['n']:,} samples"
    samples = centred(values, [], dims, heading, yticks=ticks or 5, clim=limits, **own)
    if "class_mean" not in found:
        return samples
    names = [brief(name, 14) for name in found["class"].values]
    own["frame_height"] = int(np.clip(18 * len(names), 200, FRAME))
    means = centred(found["class_mean"].values, names, dims, f"means by {brief(found.attrs['by'])}", **own)
    return holoviews().Layout([samples, means]).opts(shared_axes=False, **BOKEH)
