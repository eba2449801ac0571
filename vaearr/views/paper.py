"""Views on paper: the style of a journal, HoloViews objects drawn with matplotlib, files.

HoloViews' own matplotlib backend sets neither colour bars nor layouts well enough for print, so `on_paper` draws the
elements of a view itself, with the very options that bokeh gets. Figures are made without pyplot, and the style holds
inside `journal()` only: nothing global changes.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.store.folders import replace_file
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
FONTS = ("Arial", "Helvetica", "Liberation Sans", "DejaVu Sans")

STYLE: dict[Any, Any] = {
    "font.size": 9, "figure.titlesize": 10, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "font.family": ["sans-serif", "DejaVu Sans"],
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
    from matplotlib.font_manager import fontManager

    known = {font.name for font in fontManager.ttflist}  # matplotlib tells of every one it looks for in vain
    fonts: dict[Any, Any] = {"font.sans-serif": [name for name in FONTS if name in known]}
    with mpl.rc_context({**STYLE, **fonts, "axes.prop_cycle": cycler(color=COLORS)}):
        yield


# what a file holds beside the picture: no time, so that the same figure gives the same bytes
_METADATA: dict[str, dict[str, None]] = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def file_of(figure: Any, ending: str, dpi: int = DPI) -> bytes:
    """A figure as the bytes of a .png, .pdf or .svg file in the style of `journal()`. Raises UsageError for others."""
    if ending.lower() not in _METADATA:
        raise UsageError(f"a figure cannot end in {ending!r}; it is saved as {', '.join(_METADATA)} or .html.")
    data = io.BytesIO()
    with journal(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a script no font has: an empty box
        figure.savefig(data, format=ending.lower()[1:], dpi=dpi, metadata=_METADATA[ending.lower()])
    return data.getvalue()


def check_new(path: Path, overwrite: bool) -> None:
    """Raise NoInputError where the folder is not there, ExistsError where the file is and `overwrite` is not set."""
    if not path.parent.is_dir():
        raise NoInputError(f"there is no folder {path.parent}; make it first.")
    if path.exists() and not overwrite:
        raise ExistsError(f"{path} is there already; give another name, or overwrite=True (--overwrite).")


def write_new(path: Path, data: bytes, overwrite: bool) -> Path:
    """Write a file that takes its name once it is whole; see `check_new`."""
    check_new(path, overwrite)
    replace_file(path, data, durable=False)
    return path


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
    from matplotlib.colors import ListedColormap

    colors = colormaps[name] if isinstance(name, str) else ListedColormap(list(name))
    return colors.with_extremes(bad=(0, 0, 0, 0) if bad == "transparent" else bad)


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
    with journal():
        if isinstance(shown, hv.HoloMap) and _size(shown.last)[0] * INCH < 600:
            return _frames(shown)
        if isinstance(shown, hv.HoloMap):  # wide ones below each other
            return _layout([[frame] for frame in shown.data.values()], "")
        if not isinstance(shown, hv.Layout):
            return _layout([[shown]], "")
        parts, columns = [*shown], min(len(shown), shown._max_cols)
        return _layout([parts[i : i + columns] for i in range(0, len(parts), columns)], _title(options_of(shown)))


def _layout(rows: list[list[Any]], heading: str) -> Any:
    """Views in rows, made smaller alike until the widest row fits the page."""
    sizes = [[_size(part) for part in row] for row in rows]
    room = WIDTH - max(sum(beside for _, _, beside in row) for row in sizes)
    scale = min(1.0, max(room, 1.0) / max(sum(wide for wide, _, _ in row) for row in sizes))
    heights = [max(high for _, high, _ in row) * scale + HEAD for row in sizes]
    widths = [[wide * scale + beside for wide, _, beside in row] for row in sizes]
    heading, columns = textwrap.fill(heading, 96), max(map(len, rows))
    above = 0.15 + 0.15 * len(heading.splitlines()) if heading else 0
    figure = new_figure(min(max(max(map(sum, widths)), 2.8), WIDTH + 0.01), sum(heights) + above)
    bands = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for band, row, ratios in zip(bands, rows, widths, strict=True):
        ratios += ratios[-1:] * (columns - len(row))
        drawn = band.subplots(1, columns, width_ratios=ratios, squeeze=False)[0]
        for axes, part in zip(drawn, row, strict=False):
            draw(axes, part)
        for spare in drawn[len(row) :]:
            spare.remove()
    figure.suptitle(heading)
    return figure


def _size(part: Any) -> tuple[float, float, float]:
    """Width and height of a frame and what stands beside it, in inches."""
    o = options_of(part)
    wide, high = o.get("frame_width"), o.get("frame_height")
    if o.get("data_aspect") and not (wide and high):
        (x0, x1), (y0, y1) = (part.range(dim) for dim in _axes_of(part))
        wide, high = wide or high * (x1 - x0) / (y1 - y0), high or wide * (y1 - y0) / (x1 - x0)
    named = o.get("legend_position") == "right" or "colorbar_opts" in o
    beside = LEFT + (BAR if o.get("colorbar") else 0.05) + (NAMES if named else 0)
    return (wide or 400.0) / INCH, (high or 300.0) / INCH, beside


def _axes_of(part: Any) -> list[Any]:
    """The dimensions of the axes of a view."""
    first = elements_of(part)[0][1]
    return list((first.kdims if len(first.kdims) > 1 else first.dimensions())[:2])


def _title(options: dict[str, Any]) -> str:
    """A title as HoloViews formats it, without its doubled braces."""
    return str(options.get("title", "")).replace("{{", "{").replace("}}", "}")


def _frames(shown: Any) -> Any:
    """All frames of a HoloMap beside each other, small: what is special to each stands above it."""
    o, count, (wide, high, _) = options_of(shown.last), len(shown), _size(shown.last)
    is_map, named = bool(o.get("data_aspect")), o.get("legend_position") == "right"
    columns = min(count, 8 if count > 20 or is_map else 4 if count <= 8 else 5)
    side = max(WIDTH / max(columns, 4), 2.6 / columns)
    lines = math.ceil(count / columns)
    height = lines * ((side - (0.1 if is_map else 0.25)) * high / wide + 0.28) + 0.34
    figure = new_figure(side * columns + (NAMES if named else 0), height)
    drawn = figure.subplots(lines, columns, squeeze=False).ravel()
    for spare in drawn[count:]:
        spare.remove()
    for axes, (key, frame) in zip(drawn, shown.data.items(), strict=False):
        draw(axes, frame, small=True)
        limits, words = options_of(frame).get("clim"), ", ".join(str(part) for part in key)
        about = f"{words}: {limits[0]:.2g} … {limits[1]:.2g}" if limits else f"{shown.kdims[0].label} {words}"
        axes.set_title(about, fontsize=SMALL, pad=2)
    if is_map:
        _scale_bar(drawn[0], str(o.get("xlabel", "")))
    if named:
        figure.legend(*drawn[0].get_legend_handles_labels(), loc="outside right upper", fontsize=SMALL,
                      title=_legend_title(shown.last), title_fontsize=SMALL)  # fmt: skip
    figure.suptitle(str(shown.label or ""), fontsize=9, wrap=True)
    return figure


def _scale_bar(axes: Any, label: str) -> None:
    """A bar of a round length, about a quarter of the width, in the lower left corner; label: such as "x (µm)"."""
    from matplotlib.font_manager import FontProperties
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar  # type: ignore[import-untyped]

    width, units = abs(np.ptp(axes.get_xlim())), label.partition("(")[2].rstrip(")") or "steps"
    power = 10.0 ** math.floor(math.log10(width / 4))
    length = max(step * power for step in (1, 2, 5) if step * power <= width / 4)
    bar = AnchoredSizeBar(
        axes.transData, length, f"{length:g} {units}", "lower left", pad=0.2, borderpad=0.2, sep=1, label_top=True,
        color="white", size_vertical=width / 80, fontproperties=FontProperties(size=6),
    )  # fmt: skip
    bar.patch.set(facecolor="black", alpha=0.45, linewidth=0)
    axes.add_artist(bar)


def _legend_title(shown: Any) -> str | None:
    return str(shown.kdims[0].label) if isinstance(shown, holoviews().NdOverlay) else None


def draw(axes: Any, shown: Any, *, small: bool = False) -> None:
    """Draw an element or overlay into axes, with titles, limits, colour bar and legend as on the screen."""
    o, bars = options_of(shown), []
    for order, (name, element) in enumerate(elements_of(shown)):
        own = options_of(element)
        if own.get("alpha") == 0 and not name:
            continue  # there to be selected on the screen
        kind = type(element).__name__
        columns = [element.dimension_values(i) for i in range(0 if kind in _SPECIAL else len(element.dimensions()))]
        mesh = _PAINT[kind](axes, element, columns, own, {"label": name or None, "zorder": 1.5 + 0.1 * order})
        bars += [(mesh, own)] if own.get("colorbar") else []
    x, y = _axes_of(shown)
    alone = axes.get_subplotspec().get_gridspec().ncols < 2
    axes.set(xlabel=o.get("xlabel", x.label), ylabel=o.get("ylabel", y.label))
    axes.set_title(_title(o), fontsize=10 if alone else 9, wrap=True)
    for limits, setter in ((o.get("xlim"), axes.set_xlim), (o.get("ylim"), axes.set_ylim)):
        if limits and limits[0] is not None:
            setter(*limits)
    if o.get("invert_yaxis"):
        axes.invert_yaxis()
    is_map = bool(o.get("data_aspect"))
    if is_map:
        axes.set_aspect("equal", adjustable="box" if o.get("invert_yaxis") else "datalim")
    _ticks(axes.xaxis, [] if small and is_map else o.get("xticks"), o.get("xrotation"))
    _ticks(axes.yaxis, [] if small and is_map else o.get("yticks"), None)
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


def _ticks(axis: Any, ticks: Any, turned: float | None) -> None:
    from matplotlib.ticker import MaxNLocator

    if isinstance(ticks, int):
        axis.set_major_locator(MaxNLocator(ticks, integer=True))
    elif ticks is not None:
        pairs = [tick if isinstance(tick, tuple) else (tick, f"{tick:g}") for tick in ticks]
        axis.set_ticks([place for place, _ in pairs], labels=[str(name) for _, name in pairs])
        axis.set_tick_params(length=0)
    if turned:
        axis.set_tick_params(rotation=turned)


def _bar(axes: Any, mesh: Any, o: dict[str, Any]) -> None:
    """A colour bar as high as the frame beside it."""
    names, clabel = o.get("colorbar_opts", {}).get("major_label_overrides"), str(o.get("clabel") or "")
    bar = axes.figure.colorbar(
        mesh, cax=axes.inset_axes((1.03, 0, 0.045, 1)), extend="both" if "colours span" in clabel else "neither",
        format="%g" if o.get("logz") else None,
    )  # fmt: skip
    words = clabel.partition("colours span")[0].strip(", ")
    bar.set_label(words if 5 * len(words) < (o.get("frame_height") or 1000) else "")
    if names:
        beside = axes.get_subplotspec().get_gridspec().ncols  # the smaller, the fewer names have room
        step = math.ceil(len(names) * beside / MOST_NAMES)
        bar.set_ticks([*names][::step], labels=[*names.values()][::step])
        bar.ax.tick_params(length=0)


def _legend(axes: Any, o: dict[str, Any], heading: str | None) -> None:
    kept: dict[str, Any] = {}
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
        kept.setdefault(label, handle)
    beside = o.get("legend_position") == "right"
    if not kept or o.get("show_legend") is False or (len(kept) < 2 and not beside):
        return
    if len(kept) > MOST_NAMES:
        axes.set_title(f"{axes.get_title()} ({len(kept)} {heading or 'classes'})")
        return
    where: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0 + 0.3 * bool(o.get("colorbar")), 1.0)}
    shown = axes.legend(
        kept.values(), kept, title=heading, handletextpad=0.5, fontsize=SMALL if len(kept) > 8 else 8, title_fontsize=8,
        ncols=1 if len(kept) <= 12 else 2, borderaxespad=0.3, **where if beside else {"loc": "best"},
    )  # fmt: skip
    for handle in shown.legend_handles:
        handle.set_alpha(None if handle.get_alpha() is None else 1)
        if hasattr(handle, "set_sizes"):
            handle.set_sizes([16])


# ---- how each element is drawn: axes, the element, its columns, its options, its name and order

_SPECIAL = ("Image", "QuadMesh", "HLine", "VLine")  # which have no columns


def _mesh(axes: Any, element: Any, _: Any, o: dict[str, Any], how: dict[str, Any]) -> Any:
    from matplotlib.colors import LogNorm, Normalize

    x, y = (element.interface.coords(element, dim, ordered=True, edges=True) for dim in element.kdims)
    values = np.asarray(element.dimension_values(2, flat=False), dtype="f8")
    low, high = o.get("clim") or robust_limits(values, (0, 100))
    missing = o.get("clipping_colors", {}).get("NaN", NAN_COLOR)
    mesh = axes.pcolormesh(
        x, y, np.ma.masked_invalid(values), rasterized=True, zorder=how["zorder"],
        cmap=colormap(o["cmap"], missing if missing != OUTSIDE_COLOR else "transparent"),
        norm=LogNorm(low, high) if o.get("logz") else Normalize(low, high),
        edgecolors=o.get("line_color") or "none", linewidth=0.3,
    )  # fmt: skip
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    if missing == OUTSIDE_COLOR:
        axes.patch.set(**HATCH)
    elif missing not in ("white", "transparent"):
        axes.set_facecolor(missing)
    return mesh


def _points(axes: Any, element: Any, columns: list[Any], o: dict[str, Any], how: dict[str, Any]) -> Any:
    given, count = o.get("color"), len(columns[0])
    style: dict[str, Any] = {"color": given, "linewidths": 0}
    if given is None:
        style = {"facecolors": "none", "edgecolors": "black", "linewidths": 0.8}
    elif given in element:
        values = element.dimension_values(given)
        if isinstance(o.get("cmap"), dict):
            style["color"] = [o["cmap"][value] for value in values]
        else:
            low, high = o.get("clim") or (None, None)
            style = {"c": values, "cmap": colormap(o["cmap"]), "vmin": low, "vmax": high, "linewidths": 0}
    if o.get("line_color"):
        style |= {"edgecolors": o["line_color"], "linewidths": 0.5 * o.get("line_width", 1)}
    area = float(np.clip(6000 / max(count, 1), 0.6, o.get("size", 4) ** 2 * 0.45))
    return axes.scatter(*columns[:2], s=area, marker="s" if o.get("marker") == "square" else "o", alpha=o.get("alpha"),
                        rasterized=count > 400, **style, **how)  # fmt: skip


def _curve(axes: Any, element: Any, columns: list[Any], o: dict[str, Any], how: dict[str, Any]) -> None:
    style = "steps-mid" if o.get("interpolation") == "steps-mid" else "default"
    axes.plot(*columns[:2], color=o.get("color"), lw=0.7 * o.get("line_width", 1.8), drawstyle=style,
              marker="o" if len(columns[0]) < 3 else None, **how)  # fmt: skip


def _bars(axes: Any, element: Any, columns: list[Any], o: dict[str, Any], how: dict[str, Any]) -> None:
    edges, counts = np.asarray(element.edges, dtype="f8"), np.asarray(columns[1], dtype="f8")
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=o["fill_color"], linewidth=0.4,
             edgecolor=(len(counts) < 40 and o.get("line_color")) or o["fill_color"], **how)  # fmt: skip


def _lines(axes: Any, element: Any, columns: list[Any], o: dict[str, Any], how: dict[str, Any]) -> None:
    from matplotlib.collections import LineCollection

    x0, y0, x1, y1 = (np.asarray(column, dtype="f8") for column in columns[:4])
    corners = [(x0, y0), (x1, y1)]
    style = {"colors": o.get("color", "black"), "linewidths": 0.5 * o.get("line_width", 2)}
    if type(element).__name__ == "Rectangles":
        corners, style["colors"] = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], o.get("line_color", "black")
    made = LineCollection([*np.array(corners).transpose(2, 0, 1)], capstyle="projecting", **style, **how)
    axes.add_collection(made, autolim=False)


def _words(axes: Any, element: Any, columns: list[Any], o: dict[str, Any], how: dict[str, Any]) -> None:
    for x, y, word in zip(*columns[:3], strict=True):
        axes.text(x, y, str(word), fontsize=SMALL, color=o["text_color"], ha="center", va="center", zorder=4)


def _line(axes: Any, element: Any, _: Any, o: dict[str, Any], how: dict[str, Any]) -> None:
    mark = axes.axhline if type(element).__name__ == "HLine" else axes.axvline
    mark(element.data, color="white", lw=1.6, alpha=0.6, **how)
    mark(element.data, color=o["color"], lw=1, ls="--", **how)


def _errors(axes: Any, element: Any, columns: list[Any], o: dict[str, Any], how: dict[str, Any]) -> None:
    x, y, *ends = columns  # one for both sides, or below and above
    style = {"fmt": "none", "ecolor": o.get("line_color", "black"), "lw": 0.8, "capsize": 2}
    axes.errorbar(x, y, ends[0] if len(ends) == 1 else ends, **style, **how)


_PAINT = {
    "Image": _mesh, "QuadMesh": _mesh, "Points": _points, "Scatter": _points, "Curve": _curve, "Histogram": _bars,
    "Segments": _lines, "Rectangles": _lines, "Labels": _words, "HLine": _line, "VLine": _line, "ErrorBars": _errors,
}  # fmt: skip
