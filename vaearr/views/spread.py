"""How latents spread: samples in a plane, histograms, heat maps by class, principal components, health."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr.schema import meanings
from vaearr.views.colors import distinct_colors
from vaearr.views.common import (
    COLORS,
    DIVERGING,
    SEQUENTIAL,
    brief,
    holoviews,
    number,
    palette,
    robust_limits,
    text,
    title,
)
from vaearr.views.curves import UNUSED, activity_bars, bars, variance_curve
from vaearr.views.kinds import builder
from vaearr.views.maps import BOKEH

FRAME = 420
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


def colors_of(count: int) -> list[str]:
    """A colour for each of so many classes, told apart by all eyes; of more than 40 a run through the spectrum."""
    return distinct_colors(count) if count <= 40 else palette(count)


def scatter(position: np.ndarray, axes: list[str], classes: Classes | None, numbers: np.ndarray) -> Any:
    """Points `(k, 2)` in a plane in the colours of their classes; the pointer names the sample."""
    hv = holoviews()
    dims = [text(name) for name in axes]
    options = {"size": 4, "alpha": 0.6, "tools": ["hover"], "line_color": None, "frame_width": FRAME,
               "frame_height": FRAME, "data_aspect": 1, **BOKEH}  # fmt: skip
    if classes is None:
        return hv.Points((*position.T, numbers), dims, "sample").opts(color=UNUSED, **options)
    codes, names, by = classes
    kinds = [(i, name, color) for i, (name, color) in enumerate(zip(names, colors_of(len(names)), strict=True))]
    if (codes < 0).any():
        kinds.insert(0, (-1, "none", UNUSED))
    groups = {
        name: hv.Points((*position[codes == i].T, numbers[codes == i]), dims, "sample", label=name).opts(
            color=color, **options
        )
        for i, name, color in kinds
    }
    return hv.NdOverlay(groups, kdims=text(by), sort=False).opts(legend_position="right", title=title(by), **BOKEH)


def heat(values: np.ndarray, names: list[str], what: str, **options: Any) -> Any:
    """A heat map `(rows, dimensions)` centred at 0, a name for each row, the first on top."""
    rows, size = values.shape
    reach = float(np.nanmax(abs(values), initial=0)) or 1.0
    own = {
        "cmap": DIVERGING, "clim": (-reach, reach), "colorbar": True, "tools": ["hover"], "xlabel": "latent dimension",
        "clabel": "", "ylabel": "", "yticks": [(i, text(name)) for i, name in enumerate(names)], "invert_yaxis": True,
        "frame_width": max(260, min(900, 18 * size)), "frame_height": int(np.clip(18 * rows, 120, 700)),
        "title": title(what), "xticks": 12, "line_color": None,
    }  # fmt: skip
    where = np.arange(size + 1) - 0.5, np.arange(rows + 1) - 0.5
    mesh = holoviews().QuadMesh((*where, np.asarray(values, "f4")), ["latent", "row"], text(what))
    return mesh.opts(**own | options, **BOKEH)


@builder("embedding", "position", "axis", "point", "number")
def embedding_view(found: xr.Dataset) -> Any:
    """The positions of `embedding` by class and by each of its amounts; zoom and selection are linked."""
    hv = holoviews()
    position, axes = found["position"].values, [str(a) for a in found["axis"].values]
    if position.shape[1] == 1:
        position, axes = np.column_stack([position, np.zeros(len(position))]), [*axes, "no second component"]
    classes, numbers = point_classes(found), found["number"].values
    shown = []
    if classes is not None or "amount" not in found:
        shown.append(scatter(position, axes, classes, numbers))
    dims = [text(name) for name in axes]
    for name, values in zip(found["color"].values, found["amount"].values, strict=True) if "amount" in found else ():
        options = {
            "color": text(name), "cmap": SEQUENTIAL, "clim": robust_limits(values), "colorbar": True, "size": 4,
            "alpha": 0.8, "line_color": None, "tools": ["hover"], "frame_width": FRAME, "frame_height": FRAME,
            "data_aspect": 1, "title": title(name), "clabel": "",
        }  # fmt: skip
        points = hv.Points((*position.T, values, numbers), dims, [text(name), "sample"])
        shown.append(points.opts(**options, **BOKEH))
    heading = title(embedding_words(found))
    if len(shown) == 1:
        return shown[0].opts(title=heading, **BOKEH)
    return hv.Layout(shown).cols(2).opts(title=heading, **BOKEH)


def embedding_words(found: xr.Dataset) -> str:
    """What an embedding is of."""
    names = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
    attrs = found.attrs
    few = "" if attrs["n_points"] == attrs["n_known"] else f" of {attrs['n_known']:,}"
    about = f"{names.get(attrs['method'], attrs['method'])} of the latents, {attrs['n_points']:,}{few} samples"
    if "explained_variance_ratio" in attrs:
        about += f", {sum(attrs['explained_variance_ratio']):.0%} of their variance"
    for key, word in (("perplexity", "perplexity"), ("neighbours", "neighbours")):
        if key in attrs:
            about += f", {word} {attrs[key]:.3g}"
    return about


@builder("histograms", "counts", "edges", "latent", "bin")
def histogram_view(found: xr.Dataset) -> Any:
    """The result of `histograms` as a HoloMap over the dimensions; by class, the share of each class's samples."""
    hv = holoviews()
    frames = {}
    by_class = "class" in found["counts"].dims
    for i, dim in enumerate(found["latent"].values):
        name, edges = f"latent {int(dim)}", found["edges"].values[i]
        options = {"frame_width": FRAME, "frame_height": 260, "title": name, **BOKEH}
        if not by_class:
            frames[int(dim)] = bars(edges, found["counts"].values[i], (name, "samples"), **options)
            continue
        counts = found["counts"].values[:, i]
        kept = [k for k, every in enumerate(found["counts"].values) if every.any()]
        labels = legend_names([found["class"].values[k] for k in kept])
        middles = (edges[1:] + edges[:-1]) / 2
        curves = {
            label: hv.Curve((middles, counts[k] / max(counts[k].sum(), 1)), name, "share of the class").opts(
                color=color, interpolation="steps-mid", line_width=1.5, **BOKEH
            )
            for k, label, color in zip(kept, labels, colors_of(len(kept)), strict=True)
        }
        overlay = hv.NdOverlay(curves, kdims=text(found.attrs["by"]), sort=False)
        frames[int(dim)] = overlay.opts(legend_position="right", **options)
    what = "share of each class" if by_class else "samples"
    heading = f"latents (posterior mean), {what} per bin, {found.attrs['n']:,} samples"
    return hv.HoloMap(frames, kdims="latent").relabel(heading)


@builder("activations", "activation", "latent")
def activation_view(found: xr.Dataset) -> Any:
    """The result of `activations`: samples sorted by class, and the means of the classes, as heat maps."""
    values, dims = found["activation"].values, [str(int(d)) for d in found["latent"].values]
    own: dict[str, Any] = {"frame_width": FRAME, "frame_height": FRAME}
    if dims != [str(i) for i in range(len(dims))]:
        own["xticks"] = list(enumerate(dims))
    ticks: list[tuple[float, str]] = []
    if "class_of_point" in found.coords:
        codes, words = found["class_of_point"].values, meanings(found["class_of_point"])
        for code in np.unique(codes):
            place = np.flatnonzero(codes == code)
            if len(place) > len(codes) / 40:
                ticks.append((float(place.mean()), brief(words[int(code)], 14)))
    cut = "" if len(values) == found.attrs["n"] else f"{len(values):,} of "
    samples = heat(
        values, [], f"{cut}{found.attrs['n']:,} samples", yticks=ticks or 5, clim=robust_limits(values, symmetric=True),
        **own,
    )  # fmt: skip
    if "class_mean" not in found:
        return samples
    names = [brief(name, 14) for name in found["class"].values]
    own |= {"frame_height": int(np.clip(18 * len(names), 200, FRAME))}
    means = heat(found["class_mean"].values, names, f"means by {brief(found.attrs['by'])}", **own)
    return holoviews().Layout([samples, means]).opts(shared_axes=False, **BOKEH)


@builder("latent_pca", "loadings", "explained_variance_ratio")
def latent_pca_view(found: xr.Dataset) -> Any:
    """The result of `latent_pca`: loadings of the dimensions, and the variance that components explain.

    Of spatial latents the loading of a channel is the root of the sum of squares over its positions, without a sign.
    """
    loadings, spatial = found["loadings"].values, found["loadings"].ndim > 2
    own: dict[str, Any] = {}
    if spatial:
        loadings = np.sqrt((loadings.reshape(*loadings.shape[:2], -1) ** 2).sum(-1))
        own = {"cmap": SEQUENTIAL, "clim": (0, float(loadings.max()) or 1.0)}
    names = [str(i + 1) if i % max(1, len(loadings) // 16) == 0 else "" for i in range(len(loadings))]
    table = heat(loadings, names, "loadings", ylabel="principal component", frame_width=380, frame_height=300, **own)
    total = found["explained_variance_cumulative"].values
    enough = int(np.searchsorted(total, 0.9 - 1e-12)) + 1
    words = (
        f"{enough} components hold 90 %" if enough <= len(total) else f"{len(total)} components hold {total[-1]:.0%}"
    )
    share = variance_curve(found["explained_variance_ratio"], title=title(words), frame_width=380, frame_height=300)
    return holoviews().Layout([table, share]).opts(shared_axes=False, **BOKEH)


def _on_its_own(plot: Any, _: Any) -> None:
    """Borders of its own width, not matched to the plots around it, which would push what stands last out of view."""
    plot.state.frame_align = False


@builder("health", "kl", "correlation", "density", "prior", "wasserstein")
def latent_health_view(found: xr.Dataset) -> Any:
    """The result of `health`: KL, correlation, the aggregate posterior beside the prior and how far from it."""
    hv = holoviews()
    dims, active = found["latent"].values, found["is_active"].values.astype(bool)
    edges = np.append(dims, len(dims)) - 0.5
    size = {"frame_width": 350, "frame_height": 260, **BOKEH}
    known = np.isfinite(found["kl"].values).any()
    heights = found["kl"].values if known else found["aggregate_std"].values ** 2
    what = "KL (nats per sample)" if known else "variance of the latents"
    total = f", KL {found.attrs['kl_total']:.4g} nats" if known else ""
    kl = activity_bars(edges, heights, active, ("latent", text(what))).opts(
        title=f"{int(active.sum())} of {active.size} latents active{total}", xlabel="latent dimension", ylabel=what,
        show_legend=False, **size,
    )  # fmt: skip
    names = [str(d) if i % max(1, len(dims) // 12) == 0 else "" for i, d in enumerate(dims)]
    correlation = heat(
        found["correlation"].values, names, correlation_words(found), clim=(-1, 1), frame_width=260, frame_height=260,
        ylabel="latent dimension", hooks=[_on_its_own],
    )  # fmt: skip
    density, prior = found["density"].values, found["prior"].values
    columns = np.column_stack([prior, np.full_like(prior, np.nan), *density])
    # where colours end: one narrow dimension does not darken the others
    top = max(float(np.quantile(density.max(1), 0.75)), float(prior.max()))
    ticks = [(-2, "prior"), *((d, name) for d, name in zip(dims.tolist(), names, strict=True) if name)]
    mesh = hv.QuadMesh((np.concatenate([[-2.5, -1.5], edges]), found["edges"].values, columns), ["latent", "value"],
                       "share per unit").opts(
        cmap=SEQUENTIAL, colorbar=True, line_color=None, xticks=[ticks[0], *ticks[1 if len(dims) < 13 else 2 :]],
        clipping_colors={"NaN": "white"}, clim=(0, top), title="aggregate posterior (share per unit)",
        xlabel="latent dimension", ylabel="latent", tools=["hover"], **size,
    )  # fmt: skip
    distances = [
        hv.Curve((dims, found[name].values), "latent", "distance from the prior", label=words).opts(
            color=color, interpolation="steps-mid", **BOKEH
        )
        for name, words, color in (
            ("wasserstein", "Wasserstein (σ)", COLORS[0]), ("kolmogorov", "Kolmogorov-Smirnov", COLORS[1]),
        )
    ]  # fmt: skip
    far = max(float(found["wasserstein"].max()), float(found["kolmogorov"].max()), 0.05)
    last = hv.Overlay(distances).opts(
        title="distance from the prior", legend_position="top_right", ylim=(0, 1.4 * far), ylabel="distance",
        xlabel="latent dimension", show_grid=True, **size,
    )  # fmt: skip
    heading = title(", ".join(health_words(found)))
    return hv.Layout([kl, correlation, mesh, last]).cols(2).opts(shared_axes=False, title=heading, **BOKEH)


def health_words(found: xr.Dataset) -> list[str]:
    """The numbers about all dimensions together, in lines."""
    attrs = found.attrs
    lines = [f"{attrs['n']:,} samples"]
    if attrs["aggregate_kl_total"] is not None:
        lines[0] += f", KL of the aggregate posterior from the prior {attrs['aggregate_kl_total']:.3g} nats"
    if attrs["total_correlation"] is not None:
        lines.append(f"total correlation if Gaussian {attrs['total_correlation']:.2g} nats")
    return lines


def correlation_words(found: xr.Dataset) -> str:
    """The largest correlation and of which dimensions."""
    if not found.attrs["largest_pair"]:
        return "correlation of the means"
    i, j = (int(found["latent"][k]) for k in found.attrs["largest_pair"])
    return f"largest correlation {number(found.attrs['largest_correlation'])} ({i}, {j})"
