"""How latents spread: samples in a plane, histograms, heat maps by class, principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr.schema import meanings
from vaearr.views.common import DIVERGING, SEQUENTIAL, brief, holoviews, palette, robust_limits, text, title
from vaearr.views.curves import UNUSED, bars, curve, variance_curve
from vaearr.views.kinds import builder
from vaearr.views.maps import BOKEH
from vaearr.views.relations import matrix

FRAME = 420
POINTS = {
    "size": 4,
    "tools": ["hover"],
    "line_color": None,
    "frame_width": FRAME,
    "frame_height": FRAME,
    "data_aspect": 1,
}
Classes = tuple[np.ndarray, list[str], str]  # class of each point (-1 for none), the names there are, what they are of


def point_classes(found: xr.Dataset, coord: str = "class") -> Classes | None:
    """Class of each point `(k,)`, -1 for none, the names of the classes there are, and what they are of; or None."""
    if coord not in found.coords:
        return None
    codes, names = found[coord].values, meanings(found[coord])
    there = [int(code) for code in np.unique(codes) if code >= 0]
    place = np.where(codes >= 0, np.searchsorted(there, codes), -1)
    return place, legend_names([names[code] for code in there]), str(found[coord].attrs["long_name"])


def legend_names(names: list[str]) -> list[str]:
    """Names of classes cut to fit a legend, whole where two would become one."""
    cut = [brief(name, 18) for name in names]
    return cut if len(set(cut)) == len(cut) else [text(name) for name in names]


def scatter(position: np.ndarray, axes: list[str], classes: Classes | None, numbers: np.ndarray) -> Any:
    """Points `(k, 2)` in a plane in the colours of their classes; the pointer names the sample."""
    hv, dims, options = holoviews(), [text(name) for name in axes], POINTS | {"alpha": 0.6} | BOKEH
    if classes is None:
        return hv.Points((*position.T, numbers), dims, "sample").opts(color=UNUSED, **options)
    codes, names, by = classes
    kinds = [*zip(range(len(names)), names, palette(len(names)), strict=True)]
    kinds = [(-1, "none", UNUSED), *kinds] if (codes < 0).any() else kinds
    groups = {
        name: hv.Points((*position[codes == i].T, numbers[codes == i]), dims, "sample", label=name).opts(
            color=color, **options
        )
        for i, name, color in kinds
    }
    return hv.NdOverlay(groups, kdims=text(by), sort=False).opts(legend_position="right", title=title(by), **BOKEH)


@builder("embedding", "position", "axis", "point", "number")
def embedding_view(found: xr.Dataset) -> Any:
    """The positions of `embedding` by class and by each of its amounts; zoom and selection are linked."""
    hv = holoviews()
    position, axes = found["position"].values, [text(a) for a in found["axis"].values]
    if position.shape[1] == 1:
        position, axes = np.column_stack([position, np.zeros(len(position))]), [*axes, "no second component"]
    classes, numbers, shown = point_classes(found), found["number"].values, []
    if classes is not None or "amount" not in found:
        shown.append(scatter(position, axes, classes, numbers))
    for name, values in zip(found["color"].values, found["amount"].values, strict=True) if "amount" in found else ():
        points = hv.Points((*position.T, values, numbers), axes, [text(name), "sample"])
        own = {"color": text(name), "cmap": SEQUENTIAL, "clim": robust_limits(values), "colorbar": True, "clabel": ""}
        shown.append(points.opts(**POINTS | own, alpha=0.8, title=title(name), **BOKEH))
    heading = title(embedding_words(found))
    return (hv.Layout(shown).cols(2) if len(shown) > 1 else shown[0]).opts(title=heading, **BOKEH)


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


@builder("latent_pca", "loadings", "explained_variance_ratio")
def latent_pca_view(found: xr.Dataset) -> Any:
    """The result of `latent_pca`: loadings of the dimensions, and the variance that components explain.

    Of spatial latents the loading of a channel is the root of the sum of squares over its positions, without a sign.
    """
    loadings, own = found["loadings"].values, {"frame_width": 380, "frame_height": 300}
    colors: dict[str, Any] = {}
    if loadings.ndim > 2:
        loadings = np.sqrt((loadings.reshape(*loadings.shape[:2], -1) ** 2).sum(-1))
        colors = {"cmap": SEQUENTIAL, "clim": (0, float(loadings.max()) or 1.0)}
    rows, columns = ([str(i + first) for i in range(size)] for first, size in zip((1, 0), loadings.shape, strict=True))
    table = centred(loadings, rows, columns, "loadings", ylabel="principal component", **own, **colors)
    total = found["explained_variance_cumulative"].values
    enough = int(np.searchsorted(total, 0.9 - 1e-12)) + 1
    words = f"{enough} components hold 90 %"
    words = words if enough <= len(total) else f"{len(total)} components hold {total[-1]:.0%}"
    share = variance_curve(found["explained_variance_ratio"], title=title(words), **own)
    return holoviews().Layout([table, share]).opts(shared_axes=False, **BOKEH)
