"""Views on paper: the style of a journal, HoloViews objects drawn with matplotlib, figures of many pictures, saving.

HoloViews' own matplotlib backend sets neither colour bars nor layouts well enough for print, so `on_paper` draws the
elements of a view itself, with the very options that bokeh gets. Figures are made without pyplot, and the style holds
inside `journal()` only: nothing global changes.
"""

from __future__ import annotations

import logging
import math
import os
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.views.common import COLORS, NAN_COLOR, holoviews, robust_limits

WIDTH = 7.0  # inches: two columns of a journal
DPI = 300
SMALL = 7  # points: the least size of a letter
INCH = 130.0  # pixels of a frame on the screen that become an inch of paper
LEFT, BAR, NAMES = 0.5, 0.4, 0.75  # inches beside a frame: axis, colour bar, names on it or of a legend
HEAD = 0.62  # inches above and below a frame
MOST_NAMES = 24  # that a colour bar or a legend can hold
HATCH: dict[str, Any] = {"hatch": "////", "facecolor": "white", "edgecolor": "#d0d0d0", "linewidth": 0}
OUTSIDE_COLOR = "#ffffff"  # on the screen, of what belongs to no class; hatched on paper

STYLE: dict[Any, Any] = {
    "font.size": 9, "figure.titlesize": 10, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "font.family": ["sans-serif", "DejaVu Sans"],
    "font.sans-serif": ["Arial", "Helvetica", "Liberation Sans", "DejaVu Sans"],
    "pdf.fonttype": 42, "ps.fonttype": 42, "savefig.dpi": DPI, "figure.dpi": 100,
    "axes.linewidth": 0.6, "lines.linewidth": 1.2, "legend.frameon": False, "image.interpolation": "nearest",
    "text.parse_math": False, "text.usetex": False, "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip


@contextmanager
def journal() -> Iterator[None]:
    """The style of a journal inside this context only: 10/9/8 pt, editable text in PDF, colours for all eyes, 300 dpi.

    Sans-serif letters, the first of the listed fonts that is there; a letter that font lacks comes from DejaVu Sans.
    """
    import matplotlib as mpl
    from cycler import cycler

    with mpl.rc_context({**STYLE, "axes.prop_cycle": cycler(color=COLORS)}):
        logger = logging.getLogger("matplotlib.font_manager")  # tells of every font of the list that is not there
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


# what a file holds beside the picture: no time, so that the same figure gives the same bytes
_METADATA: dict[str, dict[str, None]] = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def save_figure(figure: Any, path: str | os.PathLike[str], dpi: int = DPI, *, overwrite: bool = False) -> Path:
    """Save a figure as PNG, PDF or SVG, by the ending of `path`, in the style of `journal()`; returns the path.

    Raises UsageError for another ending, NoInputError where the folder is not there, ExistsError where the file is
    there and `overwrite` is not set.
    """
    ending = Path(path).suffix.lower()
    if ending not in _METADATA:
        name = Path(path).name
        raise UsageError(f"{name!r} ends in {ending!r}; figures are saved as {', '.join(_METADATA)} or .html.")
    with new_file(path, overwrite=overwrite) as part, journal(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a script no font has: an empty box
        figure.savefig(part, format=ending[1:], dpi=dpi, metadata=_METADATA[ending])
    return Path(path)


@contextmanager
def new_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A file beside `path` that takes its name once it is written. Raises NoInputError where the folder is not there,
    ExistsError where the file is and `overwrite` is not set.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise NoInputError(f"there is no folder {target.parent}; make it first.")
    if target.exists() and not overwrite:
        raise ExistsError(f"{target} is there already; give another name, or overwrite=True.")
    part = target.with_name(f".{target.name}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches, without pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def colormap(name: str | Sequence[str], bad: str = NAN_COLOR) -> Any:
    """A colour map by name or from a list of colours, with a colour for missing values."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, to_rgba

    colors = colormaps[name] if isinstance(name, str) else ListedColormap([to_rgba(color) for color in name])
    return colors.with_extremes(bad=(0, 0, 0, 0) if bad == "transparent" else bad)


def panels(figure: Any, count: int, columns: int) -> list[Any]:
    """Axes for `count` panels; unused ones are removed."""
    columns = min(columns, count)
    axes = figure.subplots(math.ceil(count / columns), columns, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.remove()
    return list(axes[:count])


def scale_bar(axes: Any, units: str) -> None:
    """A bar of a round length, about a quarter of the width, in the lower left corner."""
    from matplotlib.patches import Rectangle

    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    width, height = right - left, top - bottom
    target = abs(width) / 4
    power = 10.0 ** math.floor(math.log10(target))
    length = max(step * power for step in (1, 2, 5) if step * power <= target)
    corner = (left + 0.05 * width, bottom + 0.05 * height)
    axes.add_patch(Rectangle(corner, math.copysign(length, width), 0.03 * height, color="white", ec="black", lw=0.4))
    axes.text(
        corner[0], bottom + 0.1 * height, f"{length:g} {units or 'steps'}", color="white", fontsize=6, va="bottom",
        bbox={"facecolor": "black", "alpha": 0.45, "pad": 1, "lw": 0},
    )  # fmt: skip


def integer_ticks(size: int, most: int = 24) -> Any:
    """Ticks at whole numbers from 0, every one where `most` fit."""
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    return MultipleLocator(1) if size <= most else MaxNLocator(integer=True, nbins=2 * most // 3)


def options_of(shown: Any) -> dict[str, Any]:
    """The bokeh options of an element; of an overlay its own, then those of its first elements."""
    hv = holoviews()
    found: dict[str, Any] = {}
    if isinstance(shown, hv.Overlay | hv.NdOverlay):
        for part in reversed([*shown]):
            found |= options_of(part)
        found.pop("show_legend", None)
    for group in ("style", "plot"):
        found |= hv.Store.lookup_options("bokeh", shown, group).kwargs
    return {name: value for name, value in found.items() if not isinstance(value, hv.Cycle)}


def elements_of(shown: Any) -> list[tuple[str, Any]]:
    """The elements of a view from below to above, each with its name in a legend ("" for none)."""
    hv = holoviews()
    if isinstance(shown, hv.NdOverlay):
        return [(str(key), element) for key, element in zip(shown.keys(), shown.values(), strict=True)]
    if isinstance(shown, hv.Overlay):
        return [pair for part in shown for pair in elements_of(part)]
    return [(shown.label, shown)]


def on_paper(shown: Any) -> Any:
    """A view as a matplotlib Figure: a layout row by row, the frames of a HoloMap as small panels beside each other."""
    hv = holoviews()
    if hasattr(shown, "savefig"):
        return shown
    if isinstance(shown, hv.DynamicMap):
        raise UsageError("a view that follows Python cannot be printed; make it with dynamic=False.")
    with journal():
        if isinstance(shown, hv.HoloMap) and _size(shown.last)[0] < 600:
            return _frames(shown)
        if isinstance(shown, hv.HoloMap):  # wide ones below each other
            return _layout(hv.Layout([*shown.data.values()]).cols(1))
        return _layout(shown)


def _layout(shown: Any) -> Any:
    hv = holoviews()
    parts = [*shown] if isinstance(shown, hv.Layout) else [shown]
    columns = min(len(parts), shown._max_cols if isinstance(shown, hv.Layout) else 1)
    rows = [parts[i : i + columns] for i in range(0, len(parts), columns)]
    sizes = [[_size(part) for part in row] for row in rows]
    scale = max(1.0, max(sum(frame for frame, _, _ in row) for row in sizes) / INCH / 0.999 / max(
        WIDTH - max(sum(beside for _, _, beside in row) for row in sizes), 1.0))  # fmt: skip
    heights = [max(high for _, high, _ in row) / INCH / scale + HEAD for row in sizes]
    heading = textwrap.fill(_plain(options_of(shown).get("title", "")), 96) if len(parts) > 1 else ""
    width = max(sum(frame / INCH / scale + beside for frame, _, beside in row) for row in sizes)
    figure = new_figure(
        min(max(width, 2.8), WIDTH + 0.01), sum(heights) + (0.15 + 0.15 * len(heading.splitlines()) if heading else 0)
    )
    bands = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for band, row, size in zip(bands, rows, sizes, strict=True):
        ratios = [frame / INCH / scale + beside for frame, _, beside in size]
        ratios += ratios[-1:] * (columns - len(row))
        drawn = band.subplots(1, columns, width_ratios=ratios, squeeze=False)[0]
        for axes, part in zip(drawn, row, strict=False):
            draw(axes, part)
        for spare in drawn[len(row) :]:
            spare.remove()
    if heading:
        figure.suptitle(heading)
    return figure


def _size(part: Any) -> tuple[float, float, float]:
    """Width and height of a frame in pixels, and the inches that stand beside it."""
    o = options_of(part)
    wide, high = o.get("frame_width"), o.get("frame_height")
    if o.get("data_aspect") and not (wide and high):
        x, y = (part.range(dim) for dim in _axes_of(part))
        ratio = (x[1] - x[0]) / (y[1] - y[0])
        wide, high = wide or high * ratio, high or wide / ratio
    named = o.get("legend_position") == "right" or "colorbar_opts" in o
    return wide or 400.0, high or 300.0, LEFT + (BAR if o.get("colorbar") else 0.05) + (NAMES if named else 0)


def _axes_of(part: Any) -> list[Any]:
    """The dimensions of the axes of a view."""
    first = elements_of(part)[0][1]
    return list((first.kdims if len(first.kdims) > 1 else first.dimensions())[:2])


def _plain(title: object) -> str:
    """A title as HoloViews formats it, without its doubled braces."""
    return str(title).replace("{{", "{").replace("}}", "}")


def _frames(shown: Any) -> Any:
    """All frames of a HoloMap beside each other, small: what is special to each stands above it."""
    count = len(shown)
    columns = min(count, 8 if count > 20 or _is_map(shown.last) else 4 if count <= 8 else 5)
    wide, high, _ = _size(shown.last)
    side = max(WIDTH / max(columns, 4) if columns < 8 else WIDTH / 8, 2.6 / columns)
    lines = math.ceil(count / columns)
    small = side - (0.1 if _is_map(shown.last) else 0.25)
    named = options_of(shown.last).get("legend_position") == "right"
    head = 0.34
    figure = new_figure(side * columns + (NAMES if named else 0), lines * (small * high / wide + 0.28) + head)
    drawn = panels(figure, count, columns)
    for axes, (key, frame) in zip(drawn, shown.data.items(), strict=True):
        draw(axes, frame, small=True)
        limits = options_of(frame).get("clim") if _is_map(frame) else None
        words = ", ".join(str(part) for part in key)
        words = f"{words}: {limits[0]:.2g} … {limits[1]:.2g}" if limits else f"{shown.kdims[0].label} {words}"
        axes.set_title(words, fontsize=SMALL, pad=2)
    if _is_map(shown.last):
        across = str(options_of(shown.last).get("xlabel", ""))  # such as "x (µm)"
        scale_bar(drawn[0], across.rpartition("(")[2].rstrip(")") if across.endswith(")") else "")
    if named:
        figure.legend(*drawn[0].get_legend_handles_labels(), loc="outside right upper", fontsize=SMALL,
                      title=_legend_title(shown.last), title_fontsize=SMALL)  # fmt: skip
    figure.suptitle(str(shown.label or options_of(shown).get("title", "")), fontsize=9, wrap=True)
    return figure


def _is_map(frame: Any) -> bool:
    return bool(options_of(frame).get("data_aspect"))


def _legend_title(shown: Any) -> str | None:
    return str(shown.kdims[0].label) if isinstance(shown, holoviews().NdOverlay) else None


def draw(axes: Any, shown: Any, *, small: bool = False) -> None:
    """Draw an element or overlay into axes, with titles, limits, colour bar and legend as on the screen."""
    o = options_of(shown)
    first = elements_of(shown)[0][1]
    bars = []
    for order, (name, element) in enumerate(elements_of(shown)):
        own = options_of(element)
        if own.get("alpha") == 0 and not name:
            continue  # there to be selected on the screen
        mesh = _PAINT[type(element).__name__](axes, element, own, name, 1.5 + 0.1 * order)
        if own.get("colorbar"):
            bars.append((mesh, own))
    x, y = _axes_of(shown)
    axes.set(xlabel=o.get("xlabel", x.label), ylabel=o.get("ylabel", y.label))
    axes.set_title(_plain(o.get("title", "")), fontsize=10 if axes.get_subplotspec().get_gridspec().ncols < 2 else 9,
                   wrap=True)  # fmt: skip
    for side, setter in (("x", axes.set_xlim), ("y", axes.set_ylim)):
        limits = o.get(f"{side}lim")
        if limits and limits[0] is not None:
            setter(*limits)
        elif type(first).__name__ in ("Image", "QuadMesh", "RGB"):
            edge = _edges(first, "xy".index(side))
            setter(edge[0], edge[-1])
    if o.get("invert_yaxis"):
        axes.invert_yaxis()
    if o.get("data_aspect"):
        axes.set_aspect("equal", adjustable="box" if o.get("invert_yaxis") else "datalim")
    for side, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        _ticks(axis, o.get(f"{side}ticks"), hidden=(small and _is_map(shown)) or o.get(f"{side}axis", "") is None,
               turned=o.get("xrotation") if side == "x" else None)  # fmt: skip
    if o.get("show_grid"):
        axes.grid(alpha=0.25, lw=0.4)
        axes.set_axisbelow(True)
    if small:
        axes.set(xlabel="", ylabel="")
        axes.tick_params(labelsize=SMALL)
        axes.locator_params(nbins=3)
        return
    for mesh, own in bars:
        _bar(axes, mesh, own)
    _legend(axes, o, _legend_title(shown))


def _ticks(axis: Any, ticks: Any, *, hidden: bool, turned: float | None) -> None:
    from matplotlib.ticker import MaxNLocator

    if hidden:
        axis.set_ticks([])
    elif isinstance(ticks, int):
        axis.set_major_locator(MaxNLocator(ticks, integer=True))
    elif ticks:
        pairs = [tick if isinstance(tick, tuple) else (tick, f"{tick:g}") for tick in ticks]
        axis.set_ticks([place for place, _ in pairs], labels=[str(name) for _, name in pairs])
        axis.set_tick_params(length=0)
    if turned:
        axis.set_tick_params(rotation=turned)


def _bar(axes: Any, mesh: Any, o: dict[str, Any]) -> None:
    """A colour bar as high as the frame beside it."""
    names = o.get("colorbar_opts", {}).get("major_label_overrides")
    cut = names is None and not o.get("logz") and o.get("cmap") is not None and "%" in str(o.get("clabel"))
    bar = axes.figure.colorbar(
        mesh, cax=axes.inset_axes((1.03, 0, 0.045, 1)), extend="both" if cut else "neither",
        format="%g" if o.get("logz") else None,
    )  # fmt: skip
    words = str(o.get("clabel") or "").partition("colours span")[0].strip(", ")
    bar.set_label(words if 5 * len(words) < (o.get("frame_height") or 1000) else "")
    if names:
        step = math.ceil(len(names) / MOST_NAMES)
        bar.set_ticks([*names][::step], labels=[*names.values()][::step])
        bar.ax.tick_params(length=0)


def _legend(axes: Any, o: dict[str, Any], heading: str | None) -> None:
    handles, labels = axes.get_legend_handles_labels()
    kept = dict(zip(labels, handles, strict=True))
    if not kept or o.get("show_legend") is False or (len(kept) < 2 and o.get("legend_position") != "right"):
        return
    if len(kept) > MOST_NAMES:
        axes.set_title(f"{axes.get_title()} ({len(kept)} {heading or 'classes'})")
        return
    where: dict[str, Any] = {"loc": "best"}
    if o.get("legend_position") == "right":
        where = {
            "loc": "upper left",
            "bbox_to_anchor": (1.0 + 0.3 * bool(o.get("colorbar")), 1.0),
            "borderaxespad": 0.3,
        }
    shown = axes.legend(
        kept.values(), kept, title=heading, handletextpad=0.5, fontsize=SMALL if len(kept) > 8 else 8, title_fontsize=8,
        ncols=1 if len(kept) <= 12 else 2, **where,
    )  # fmt: skip
    for handle in shown.legend_handles:
        handle.set_alpha(None if handle.get_alpha() is None else 1)
        if hasattr(handle, "set_sizes"):
            handle.set_sizes([16])


def _edges(element: Any, axis: int) -> np.ndarray:
    return np.asarray(element.interface.coords(element, element.kdims[axis], ordered=True, edges=True), dtype="f8")


def _mesh(axes: Any, element: Any, o: dict[str, Any], name: str, order: float) -> Any:
    from matplotlib.colors import LogNorm, Normalize

    if type(element).__name__ == "RGB":
        paint = np.stack([element.dimension_values(i, flat=False) for i in range(2, 5)], axis=-1)
        return axes.pcolormesh(_edges(element, 0), _edges(element, 1), paint, rasterized=True, zorder=order)
    values = np.asarray(element.dimension_values(2, flat=False), dtype="f8")
    low, high = o.get("clim") or robust_limits(values, (0, 100))
    missing = o.get("clipping_colors", {}).get("NaN", NAN_COLOR)
    mesh = axes.pcolormesh(
        _edges(element, 0), _edges(element, 1), np.ma.masked_invalid(values), rasterized=True, zorder=order,
        cmap=colormap(o["cmap"], missing if missing != OUTSIDE_COLOR else "transparent"),
        norm=LogNorm(low, high) if o.get("logz") else Normalize(low, high),
        edgecolors=o.get("line_color") or "none", linewidth=0.3,
    )  # fmt: skip
    if missing == OUTSIDE_COLOR:
        axes.patch.set(**HATCH)
    elif missing not in ("white", "transparent"):
        axes.set_facecolor(missing)
    return mesh


def _points(axes: Any, element: Any, o: dict[str, Any], name: str, order: float) -> Any:
    place = [np.asarray(element.dimension_values(i), dtype="f8") for i in range(2)]
    count = len(place[0])
    size = o.get("size", 4)
    given = o.get("color")
    style: dict[str, Any] = {"color": given}
    if given is None:
        style = {"facecolors": "none", "edgecolors": "black", "linewidths": 0.8}
    elif given in element:
        values = element.dimension_values(given)
        if isinstance(o.get("cmap"), dict):
            style = {"color": [o["cmap"][value] for value in values]}
        else:
            style = {"c": values, "cmap": colormap(o["cmap"])}
            style |= dict(zip(("vmin", "vmax"), o.get("clim") or (None, None), strict=True))
    if o.get("line_color"):
        style |= {"edgecolors": o["line_color"], "linewidths": 0.5 * o.get("line_width", 1)}
    elif given is not None:
        style["linewidths"] = 0
    area = float(np.clip(6000 / max(count, 1), 0.6, size**2 * 0.45))
    return axes.scatter(*place, s=area, marker="s" if o.get("marker") == "square" else "o", alpha=o.get("alpha"),
                        label=name or None, zorder=order, rasterized=count > 400, **style)  # fmt: skip


def _curve(axes: Any, element: Any, o: dict[str, Any], name: str, order: float) -> None:
    x, y = (np.asarray(element.dimension_values(i), dtype="f8") for i in range(2))
    style = "steps-mid" if o.get("interpolation") == "steps-mid" else "default"
    axes.plot(x, y, color=o.get("color"), lw=0.7 * o.get("line_width", 1.8), marker="o" if x.size < 3 else None,
              drawstyle=style, label=name or None, zorder=order)  # fmt: skip


def _bars(axes: Any, element: Any, o: dict[str, Any], name: str, order: float) -> None:
    edges, counts = np.asarray(element.edges, dtype="f8"), np.asarray(element.dimension_values(1), dtype="f8")
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=o["fill_color"], label=name or None, zorder=order,
             edgecolor=(len(counts) < 40 and o.get("line_color")) or o["fill_color"], linewidth=0.4)  # fmt: skip


def _segments(axes: Any, element: Any, o: dict[str, Any], name: str, order: float) -> None:
    from matplotlib.collections import LineCollection

    lines = np.stack([np.asarray(element.dimension_values(i), dtype="f8") for i in range(4)], 1).reshape(-1, 2, 2)
    axes.add_collection(
        LineCollection(list(lines), colors=o.get("color", "black"), linewidths=0.5 * o.get("line_width", 2),
                       capstyle="projecting", zorder=order), autolim=False,
    )  # fmt: skip


def _boxes(axes: Any, element: Any, o: dict[str, Any], name: str, order: float) -> None:
    from matplotlib.patches import Rectangle

    for x0, y0, x1, y1 in np.stack([element.dimension_values(i) for i in range(4)], 1):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, lw=0.6 * o.get("line_width", 2),
                                 ec=o.get("line_color", "black"), zorder=order))  # fmt: skip


def _words(axes: Any, element: Any, o: dict[str, Any], name: str, order: float) -> None:
    for x, y, word in zip(*(element.dimension_values(i) for i in range(3)), strict=True):
        axes.text(x, y, str(word), fontsize=SMALL, color=o["text_color"], ha="center", va="center", zorder=order + 1)


def _line(axes: Any, element: Any, o: dict[str, Any], name: str, order: float) -> None:
    mark = axes.axhline if type(element).__name__ == "HLine" else axes.axvline
    mark(element.data, color="white", lw=1.6, alpha=0.6, zorder=order)
    mark(element.data, color=o["color"], lw=1, ls="--", zorder=order)


def _errors(axes: Any, element: Any, o: dict[str, Any], name: str, order: float) -> None:
    x, y, error = (np.asarray(element.dimension_values(i), dtype="f8") for i in range(3))
    axes.errorbar(x, y, error, fmt="none", ecolor=o.get("line_color", "black"), lw=0.8, capsize=2, zorder=order)


_PAINT = {
    "Image": _mesh, "QuadMesh": _mesh, "RGB": _mesh, "Points": _points, "Scatter": _points, "Curve": _curve,
    "Histogram": _bars, "Segments": _segments, "Rectangles": _boxes, "Labels": _words, "HLine": _line, "VLine": _line,
    "ErrorBars": _errors,
}  # fmt: skip
