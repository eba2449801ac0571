"""Views on paper: the style of a journal, and files.

`on_paper` renders a HoloViews view by HoloViews' matplotlib backend, inside `journal()`: nothing
global changes.
"""

from __future__ import annotations

import functools
import importlib
import io
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.store.folders import replace_file
from vaearr.views.common import COLORS, bokeh_is_current, holoviews
from vaearr.views.mosaic import in_rows, scaled, sheet

DPI = 300
COLUMN_WIDTHS = {"single": 3.5, "middle": 5.5, "double": 7.2}  # inches: 89, 140 and 183 mm
WIDTH = COLUMN_WIDTHS["double"]
SMALL = 6  # points: tick labels, legends and words within a picture
PIXELS_PER_INCH = 130.0  # of a frame on the screen and on paper
MAX_NAMES = 24  # in a legend or on a colour bar
LETTERS = "abcdefgh"  # of panels
FONTS = ("Arial", "Helvetica", "Liberation Sans", "DejaVu Sans")

STYLE: dict[Any, Any] = {
    "font.family": ["sans-serif", "DejaVu Sans"],
    "font.size": 7,
    "figure.titlesize": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 7,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "savefig.dpi": DPI,
    "figure.dpi": 100,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.4,
    "axes.axisbelow": True,
    "image.interpolation": "nearest",
    "text.parse_math": False,
    "text.usetex": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def journal() -> Iterator[None]:
    """Set the style of a journal inside this context: letters of 6 to 8 pt, editable text in PDF,
    300 dpi.

    Sans-serif letters, in the first of the listed fonts that is installed; letters that it lacks
    come from DejaVu Sans. The colour cycle is Okabe and Ito's, which people with any colour vision
    can tell apart.
    """
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.font_manager import fontManager

    installed = {
        font.name for font in fontManager.ttflist
    }  # matplotlib warns about each font that is missing
    fonts: dict[Any, Any] = {"font.sans-serif": [name for name in FONTS if name in installed]}
    with mpl.rc_context({**STYLE, **fonts, "axes.prop_cycle": cycler(color=COLORS)}):
        yield


# no time in a file, so that the same figure gives the same bytes
_METADATA: dict[str, dict[str, None]] = {
    ".png": {},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


def file_of(figure: Any, ending: str, dpi: int = DPI) -> bytes:
    """A figure as the bytes of a .png, .pdf or .svg file in the style of `journal()`. Raises
    UsageError for others.
    """
    if ending.lower() not in _METADATA:
        raise UsageError(
            f"a figure cannot end in {ending!r}; it is saved as {', '.join(_METADATA)} or .html."
        )
    data = io.BytesIO()
    with journal(), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from"
        )  # a script no font has: an empty box
        figure.savefig(
            data,
            format=ending.lower()[1:],
            dpi=dpi,
            bbox_inches="tight",
            pad_inches=0.04,
            metadata=_METADATA[ending.lower()],
        )
    return data.getvalue()


def check_new(path: Path, overwrite: bool) -> None:
    """Raise NoInputError where the folder is not there, ExistsError where the file is and
    `overwrite` is not set.
    """
    if not path.parent.is_dir():
        raise NoInputError(f"there is no folder {path.parent}; make it first.")
    if path.exists() and not overwrite:
        raise ExistsError(
            f"{path} is there already; give another name, or overwrite=True (--overwrite)."
        )


def write_new(path: Path, data: bytes, overwrite: bool) -> Path:
    """Write a file that takes its name once it is whole; see `check_new`."""
    check_new(path, overwrite)
    replace_file(path, data, durable=False)
    return path


@bokeh_is_current()
def on_paper(shown: Any, width: str = "double") -> Any:
    """Render a view as a matplotlib Figure, the frames of a HoloMap as panels side by side.

    Parameters
    ----------
    shown
        A HoloViews object; a matplotlib Figure is returned unchanged.
    width
        Maximum width of the figure: "single", "middle" or "double" column of a journal.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    UsageError
        For another width.
    """
    if width not in COLUMN_WIDTHS:
        raise UsageError(f"width is {width!r}; use {', '.join(COLUMN_WIDTHS)}.")
    if hasattr(shown, "savefig"):
        return shown
    # registers the backend; `hv.extension` would write into notebooks
    importlib.import_module("holoviews.plotting.mpl")
    from matplotlib import pyplot

    hv = holoviews()
    layout = _as_layout(shown)
    n_columns = layout.shape[1]
    sizes = [_frame_size(view) for view in layout]
    title = _options_of(layout).get("title", "")
    with_options = [hv.Element, hv.Overlay, hv.NdOverlay]
    views = [view.map(_for_matplotlib, with_options) for view in layout]
    converted = hv.Layout(views).cols(n_columns).opts(**LAYOUT_OPTIONS, backend="matplotlib")
    with journal(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="matplotlib")
        figure = hv.render(converted, backend="matplotlib")
        panels = _arrange(figure, sizes, n_columns, COLUMN_WIDTHS[width])
        if isinstance(shown, hv.Layout) and 1 < len(panels) <= len(LETTERS):
            for letter, axes in zip(LETTERS, panels, strict=False):
                axes.annotate(letter, (0, 1), **LETTER_STYLE)
        if title:
            figure.suptitle(textwrap.fill(title.replace("{{", "{").replace("}}", "}"), 96))
    pyplot.close(figure)
    return figure


LAYOUT_OPTIONS: dict[str, Any] = {
    "fig_inches": (WIDTH, WIDTH),
    "show_title": False,
    "sublabel_format": None,
    "hspace": 0.02,
    "vspace": 0.02,
}
LETTER_STYLE: dict[str, Any] = {
    "fontsize": 8,
    "fontweight": "bold",
    "xytext": (-22, 5),
    "xycoords": "axes fraction",
    "textcoords": "offset points",
}


def _as_layout(shown: Any) -> Any:
    """A view as a Layout: maps with a selector as one sheet, other frames side by side."""
    hv = holoviews()
    if isinstance(shown, hv.Layout):
        return shown
    if not isinstance(shown, hv.HoloMap):
        return hv.Layout([shown])
    if isinstance(shown.last, hv.Image):
        return hv.Layout([_maps_in_one(shown)])
    n_columns = 1 if _frame_size(shown.last)[0] > WIDTH / 2 else 3
    return hv.Layout(list(shown.data.values())).cols(n_columns).opts(title=str(shown.label))


def _maps_in_one(shown: Any) -> Any:
    """The maps of a HoloMap side by side, each with its colour range above it."""
    maps, words = [], []
    for key, frame in shown.data.items():
        low, high = _options_of(frame)["clim"]
        maps.append(scaled(frame.dimension_values(2, flat=False), (low, high)))
        words.append(f"{key[0]}: {low:.2g} … {high:.2g}")
    left, bottom, right, top = shown.last.bounds.lbrt()
    options = _options_of(shown.last)
    unit = str(options.get("xlabel", "")).partition("(")[2].rstrip(")")
    heading = f"{shown.label} ({right - left:.4g} x {top - bottom:.4g} {unit})"
    style = {"cmap": options["cmap"], "colorbar": False}
    return sheet(in_rows(maps), (0.0, 1.0), heading, words=words, **style)


def _arrange(
    figure: Any, sizes: list[tuple[float, float]], n_columns: int, max_width: float
) -> list[Any]:
    """Size the panels of a figure as on the screen, within a width in inches; return the panels."""
    rows = [sizes[start : start + n_columns] for start in range(0, len(sizes), n_columns)]
    widths = [max(width for width, _ in sizes[column::n_columns]) for column in range(n_columns)]
    heights = [max(height for _, height in row) for row in rows]
    panels = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    grid = panels[0].get_gridspec()
    grid.figure = figure
    grid.set_width_ratios(widths)
    grid.set_height_ratios(heights)
    margins = 0.75 * n_columns
    scale = min(1.0, max(0.5, max_width - margins) / sum(widths))
    width = min(max_width, scale * sum(widths) + margins)
    height = scale * sum(heights) + 0.75 * len(rows) + 0.2
    figure.set_size_inches(width, height)
    figure.set_layout_engine("constrained")
    return panels


def _options_of(shown: Any) -> dict[str, Any]:
    """The bokeh options of a view; its own override those of its elements, the first the later."""
    hv = holoviews()
    options: dict[str, Any] = {}
    if isinstance(shown, hv.Overlay | hv.NdOverlay):
        for element in reversed([*shown]):
            options |= _options_of(element)
        options.pop("show_legend", None)
    for group in ("style", "plot"):
        options |= hv.Store.lookup_options("bokeh", shown, group).kwargs
    return options


def _frame_size(shown: Any) -> tuple[float, float]:
    """Width and height of the frame of a view in inches."""
    options = _options_of(shown)
    width = options.get("frame_width")
    height = options.get("frame_height")
    if options.get("data_aspect") and not (width and height):
        first = next(iter(shown.traverse(lambda element: element, [holoviews().Element])))
        (x0, x1), (y0, y1) = (first.range(dim) for dim in first.dimensions()[:2])
        ratio = (x1 - x0) / (y1 - y0)
        if height:
            width = height * ratio
        else:
            width = width or 300.0
            height = width / ratio
    return (width or 400.0) / PIXELS_PER_INCH, (height or 300.0) / PIXELS_PER_INCH


# options of bokeh and those of matplotlib that mean the same
RENAMED = {
    "size": ("s",),
    "line_color": ("edgecolor", "edgecolors", "color"),
    "line_width": ("linewidth", "linewidths"),
    "line_dash": ("linestyle",),
    "fill_color": ("facecolor", "color"),
    "text_color": ("color",),
    "text_align": ("horizontalalignment",),
}
LETTERS_PER_INCH = 17  # of a title
SCREEN_ONLY = {"colorbar", "fontsize", "colorbar_opts", "hooks"}


def _for_matplotlib(shown: Any) -> Any:
    """An element or overlay with matplotlib options that correspond to its bokeh options."""
    hv = holoviews()
    screen = _options_of(shown)
    width = _frame_size(shown)[0]
    groups = hv.Store.options(backend="matplotlib")[type(shown).__name__].groups
    allowed = {name for group in groups.values() for name in group.allowed_keywords}
    options: dict[str, Any] = {"hooks": []}
    for name, value in screen.items():
        names = [other for other in RENAMED.get(name, (name,)) if other in allowed]
        if names and name not in SCREEN_ONLY:
            options[names[0]] = value
    if not screen.get("data_aspect"):
        options["aspect"] = "auto"
    if "title" in options:
        letters = max(24, int(LETTERS_PER_INCH * width))
        lines = [textwrap.fill(line, letters) for line in options["title"].splitlines()]
        options["title"] = "\n".join(lines)
    if screen.get("show_frame") is False:
        options["hooks"].append(_hide_frame)
    if screen.get("colorbar") and isinstance(shown, hv.Element):
        options["hooks"].append(functools.partial(_color_bar, screen, width))
    if isinstance(shown, hv.Element):
        _adapt_element(shown, options, screen)
    return shown.opts(**options, backend="matplotlib", clone=True)


def _adapt_element(shown: Any, options: dict[str, Any], screen: dict[str, Any]) -> None:
    """Change the options of an element where matplotlib means something else than bokeh."""
    hv = holoviews()
    options |= {"axiswise": True, "framewise": True}
    if "s" in options:
        options["s"] = float(np.clip(6000 / max(len(shown), 1), 0.6, 0.45 * options["s"] ** 2))
    for name in {"linewidth", "linewidths"} & set(options):
        options[name] = options[name] * 0.5
    if isinstance(options.get("cmap"), dict):  # matplotlib would draw a legend of its own
        options["color"] = hv.dim(options["color"]).categorize(options.pop("cmap"))
    if isinstance(shown, hv.Labels):
        options["size"] = SMALL
    if isinstance(shown, hv.Histogram):
        options["facecolor"] = options.pop("color")
    if isinstance(shown, hv.Bars):
        options["bar_padding"] = 1 - screen.get("bar_width", 1)


def _hide_frame(plot: Any, element: Any) -> None:
    plot.handles["axis"].spines[:].set_visible(False)
    plot.handles["axis"].tick_params(length=0)


def _color_bar(options: dict[str, Any], frame_width: float, plot: Any, element: Any) -> None:
    """Draw the colour bar of an element to the right of its frame, where layouts reserve space."""
    axes = plot.handles["axis"]
    label, clipped, _ = str(options.get("clabel") or "").partition("colours span")
    bar = axes.figure.colorbar(
        plot.handles["artist"],
        cax=axes.inset_axes((1 + 0.06 / frame_width, 0, 0.09 / frame_width, 1)),
        extend="both" if clipped else "neither",
    )
    bar.set_label(label.strip(", "))
    names = options.get("colorbar_opts", {}).get("major_label_overrides")
    if names:
        bar.set_ticks([*names], labels=[*names.values()])
        bar.ax.tick_params(length=0)
