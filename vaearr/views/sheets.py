"""Sheets of several parts: samples of a store, overviews, paths in a plane, pairs of latents."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, did_you_mean
from vaearr.run.facts import class_names, class_of_each
from vaearr.schema import meanings
from vaearr.schema.grid import measured
from vaearr.views.common import SEQUENTIAL, brief, holoviews, number, palette, robust_limits, text, title, unit
from vaearr.views.curves import UNUSED, bars, curve
from vaearr.views.kinds import builder
from vaearr.views.maps import BOKEH, latent_map, map_plot, side_map_list
from vaearr.views.mosaic import COLUMNS, in_rows, sheet
from vaearr.views.pictures import LIMITS, pictures, units_of
from vaearr.views.spread import scatter

MARK = "#111111"
MOST_ROWS = 12
PAIR_FRAME = 150  # pixels of a panel of a pair plot


@builder("samples")
def data_sheet(ds: xr.Dataset, *, by: str | None = None, seed: int = 0) -> Any:
    """Samples as they are stored, chosen by chance: a row for each class, or three rows where there are none.

    Each picture has a grey scale (of colours a brightness) of its own, from its 0.5 % to its 99.5 % percentile; of
    volumes the middle slice is shown. Above each stands its number or its coordinates.

    by : variable or coordinate of classes; default: `label`, else the first (for a scan its phase) with two or more
    seed : of the choice

    At most 12 classes are shown, the first. Raises NoInputError for a variable that is not there and for a store none
    of whose samples can be used.
    """
    by = _class_variable(ds, by)
    groups = _samples_by_class(ds, by)
    if not groups:
        raise NoInputError(f"none of the {schema.samples_word(ds)} can be used; there is nothing to show.")
    rng = np.random.default_rng(seed)
    nav = schema.navigation_dims(ds)
    n_shown = COLUMNS if by else 3 * COLUMNS
    rows, limits, names_of_rows, above = [], [], [], []
    for name, places in list(groups.items())[:MOST_ROWS]:
        chosen = places[np.sort(rng.permutation(len(places))[:n_shown])]
        at = {dim: xr.DataArray(place, dims="picture") for dim, place in zip(nav, chosen.T, strict=True)}
        samples = ds[n.PATTERNS].isel(at).transpose("picture", ...).load()
        images = pictures(samples)
        coordinates = zip(*(samples[dim].values for dim in nav[::-1]), strict=True)
        words = [", ".join(map(_short, place)) for place in coordinates]
        new_rows = in_rows(images)
        rows += new_rows
        limits += in_rows([robust_limits(image, LIMITS) for image in images])
        above += in_rows(words)
        names_of_rows += [f"{brief(name.replace('_', ' '), 14)} ({len(places):,})"]
        names_of_rows += [""] * (len(new_rows) - 1)
    heading = _samples_heading(ds, by, len(groups))
    return sheet(rows, limits, heading, names=names_of_rows if by else (), above=above)


def _class_variable(ds: xr.Dataset, by: str | None) -> str | None:
    """The variable of classes to sort samples by: the given one, else the first with two classes or more."""
    known = class_names(ds)
    if by is not None and by not in known:
        raise NoInputError(f"the store has no variable of classes {by!r}.{did_you_mean(by, known)}")
    if by is not None:
        return by
    present = measured(ds)
    for name in known:
        if len(np.unique(class_of_each(ds, name)[0][present])) > 1:
            return name
    return None


def _samples_by_class(ds: xr.Dataset, by: str | None) -> dict[str, np.ndarray]:
    """Grid points of the samples of each class `(k, navigation dim)`, without empty classes."""
    present = measured(ds)
    codes, names = class_of_each(ds, by) if by else (np.zeros(present.shape), {0: ""})
    groups = {name: np.argwhere((codes == code) & present) for code, name in names.items()}
    return {name: places for name, places in groups.items() if len(places)}


def _samples_heading(ds: xr.Dataset, by: str | None, n_classes: int) -> str:
    heading = schema.samples_word(ds)
    if by:
        heading += f" by {by}"
    if n_classes > MOST_ROWS:
        heading += f", {MOST_ROWS} of {n_classes} classes"
    if n.Z in schema.signal_dims(ds):
        heading += ", middle slices"
    if not schema.is_scan(ds):
        return heading
    nav = schema.navigation_dims(ds)
    units = unit(ds[nav[-1]].attrs)
    heading += f" at {', '.join(nav[::-1])}"
    return f"{heading} in {units}" if units else heading


@builder("patterns", "samples of a dataset")
def patterns_sheet(patterns: xr.DataArray, *, seed: int = 0) -> Any:
    """Samples of an array of patterns, chosen at random, see `data_sheet`."""
    return data_sheet(schema.as_dataset(patterns), seed=seed)


MAX_OVERVIEW_LATENTS = 6


@builder("dataset", "dataset")
def overview(ds: xr.Dataset, run: str | None = None, *, columns: int = 3, **options: Any) -> Any:
    """The maps of a scan: band contrast, elements, phase, clusters, the first latents; of a collection its samples.

    run: whose latents are shown; default: each run's. Of a 3-D scan the middle plane is shown. `**options` are those
    of a map. Raises NoInputError where there is nothing to show.
    """
    if n.PATTERNS in ds and not schema.is_scan(ds):
        return data_sheet(ds)
    if n.Z in ds.dims:
        ds = ds.isel({n.Z: ds.sizes[n.Z] // 2})
    maps = side_map_list(ds)
    shown_names = {n.BC, n.PHASE}
    for name, variable in ds.data_vars.items():
        is_map = set(variable.dims) == {n.Y, n.X} and variable.dtype != bool
        if is_map and name not in shown_names and not str(name).startswith((n.SPLIT, n.ROI, n.PRESENT)):
            maps.append(variable)
    for run_name in schema.runs(ds) if run is None else [run]:
        latents = ds.get(n.run_name(n.LATENTS, run_name))
        if latents is None or latents.ndim != 3:
            continue
        for latent in latents[n.run_name(n.LATENT, run_name)].values[:MAX_OVERVIEW_LATENTS]:
            maps.append(latent_map(ds, run_name, int(latent)))
    if not maps:
        raise NoInputError("the Dataset has no maps to show; view one of its variables, such as ds.patterns.")
    views = [map_plot(map_, **{"frame": 260} | options) for map_ in maps]
    return holoviews().Layout(views).cols(columns)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else brief(value, 14)


@builder("path", "decoded", "scatter", "position", "requested")
def path_sheet(found: xr.Dataset) -> Any:
    """The samples in a plane with the numbered points of `path`, and what the points decode to.

    For t-SNE and UMAP a number stands at the sample that is decoded, a line leads to the requested point.
    """
    images = pictures(found["decoded"])
    axes = [text(name) for name in found["axis"].values]
    position, requested = found["position"].values, found["requested"].values
    words = {"plane": f"others: {brief(found.attrs['base'], 45)}", "pca": "principal components, inverted"}
    heading = title(words.get(found.attrs["space"], "nearest encoded sample"))
    cloud = scatter(found, found["scatter"].values, axes)
    line = holoviews().Segments((*requested.T, *position.T), [*axes, "x1", "y1"])
    if np.allclose(position, requested):
        line = holoviews().Segments((*position[:-1].T, *position[1:].T), [*axes, "x1", "y1"])
    plane = cloud * line.opts(color=MARK, line_width=1, **BOKEH) * numbered(position, axes)
    plane = plane.opts(title=heading, frame_width=420, frame_height=420, **BOKEH)
    numbers = [str(i + 1) for i in range(len(images))]
    columns = max(1, round(math.sqrt(len(images))))
    decoded = sheet(
        in_rows(images, columns),
        robust_limits(images, LIMITS),
        f"decoded ({units_of(found['decoded'])})",
        above=in_rows(numbers, columns),
    )
    return holoviews().Layout([plane, decoded]).opts(shared_axes=False, **BOKEH)


def numbered(position: np.ndarray, axes: list[str]) -> Any:
    """Points `(k, 2)` of a plane as white circles with their numbers."""
    hv = holoviews()
    circles = hv.Points(position, axes).opts(color="white", line_color=MARK, size=13, **BOKEH)
    numbers = [str(i + 1) for i in range(len(position))]
    words = hv.Labels((*position.T, numbers), axes, "number")
    words = words.opts(text_color=MARK, text_font_size="7pt", **BOKEH)
    return circles * words


@builder("pairs", "vectors", "correlation", "point")
def pair_sheet(found: xr.Dataset) -> Any:
    """The result of `pairs`: histograms on the diagonal, below it kernel densities, above it samples by class, or r."""
    hv = holoviews()
    names = [f"latent {int(dim)}" for dim in found["latent"].values]
    vectors = found["vectors"].values
    class_color = _colors_by_class(found)
    panels = []
    for i, row_name in enumerate(names):
        for j, column_name in enumerate(names):
            axes = [column_name, row_name]
            correlation = f"r = {number(float(found['correlation'].values[i, j]))}"
            if i == j:
                panel = _pair_histogram(found, i, row_name, class_color)
            elif i > j:
                panel = hv.Bivariate(vectors[:, [j, i]], axes)
                heading = correlation if class_color else ""
                panel = panel.opts(filled=False, cmap=SEQUENTIAL, bandwidth=0.25, title=heading, **BOKEH)
            elif class_color:
                panel = _pair_points(found, vectors[:, [j, i]], axes, class_color)
                is_corner = i == 0 and j == len(names) - 1
                panel = panel.opts(show_legend=is_corner, legend_position="right", **BOKEH)
            else:
                panel = hv.Labels([(0.5, 0.5, correlation)], ["across", "up"], "word")
                panel = panel.opts(text_color="black", xlim=(0, 1), ylim=(0, 1), show_frame=False, **BOKEH)
            frame: dict[str, Any] = {"frame_width": PAIR_FRAME, "frame_height": PAIR_FRAME}
            if i < len(names) - 1:
                frame["xaxis"] = None
            if j > 0 or i == 0:
                frame["yaxis"] = None
            panels.append(panel.opts(**frame, **BOKEH))
    count = f"{found.attrs['n']:,} samples"
    if class_color and found.sizes["point"] < found.attrs["n"]:
        count += f", {found.sizes['point']:,} shown"
    heading = f"pairs of latents, {count}"
    return hv.Layout(panels).cols(len(names)).opts(title=heading, shared_axes=False, **BOKEH)


def _colors_by_class(found: xr.Dataset) -> dict[str, str]:
    """Colours of the classes that the points have, empty where there are none."""
    if "class" not in found.coords:
        return {}
    words = meanings(found["class"])
    codes = np.unique(found["class"].values)
    names = [words[int(code)] for code in codes if code >= 0]
    return dict(zip(names, palette(len(names)), strict=True))


def _pair_histogram(found: xr.Dataset, i: int, name: str, class_color: dict[str, str]) -> Any:
    values = found["vectors"].values[:, i]
    counts, edges = np.histogram(values, bins=30)
    if not class_color:
        return bars(edges, counts, (name, "samples"), line_color=None)
    middles = (edges[1:] + edges[:-1]) / 2
    names = _class_names(found)
    lines = []
    for class_name, color in class_color.items():
        counts, _ = np.histogram(values[names == class_name], edges)
        lines += curve(middles, counts, (name, "samples"), "", color, interpolation="steps-mid", line_width=1.5)
    return holoviews().Overlay(lines)


def _pair_points(found: xr.Dataset, points: np.ndarray, axes: list[str], class_color: dict[str, str]) -> Any:
    hv = holoviews()
    names = _class_names(found)
    parts = []
    for name, color in {"": UNUSED, **class_color}.items():
        chosen = names == name if name else ~np.isin(names, list(class_color))
        if chosen.any():
            part = hv.Points(points[chosen], axes, label=brief(name, 18))
            parts.append(part.opts(color=color, size=3, line_color=None, alpha=0.6, **BOKEH))
    return hv.Overlay(parts)


def _class_names(found: xr.Dataset) -> np.ndarray:
    words = meanings(found["class"])
    return np.array([words.get(int(code), "") for code in found["class"].values])
