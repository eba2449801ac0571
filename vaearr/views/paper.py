"""Views on paper: the style of a journal, and files.

`on_paper` renders a HoloViews view by HoloViews' matplotlib backend, inside `journal()`: nothing global changes.
"""

from __future__ import annotations

import importlib
import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.store.folders import replace_file
from vaearr.views.common import COLORS, NAN_COLOR, holoviews
from vaearr.views.mosaic import in_rows, sheet

DPI = 300
COLUMN_WIDTHS = {"single": 3.5, "middle": 5.5, "double": 7.2}  # inches: 89, 140 and 183 mm
WIDTH = COLUMN_WIDTHS["double"]
SMALL = 6  # points: tick labels, legends and words within a picture
PIXELS_PER_INCH = 130.0  # of a frame on the screen and on paper
SMALL_COLUMNS = 4  # of the frames of a HoloMap
MAX_NAMES = 24  # in a legend or on a colour bar
NARROW = 1.5  # inches: a frame with room for few numbers
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
    """Set the style of a journal inside this context: letters of 6 to 8 pt, editable text in PDF, 300 dpi.

    Sans-serif letters, in the first of the listed fonts that is installed; letters that it lacks come from DejaVu
    Sans. The colour cycle is Okabe and Ito's, which people with any colour vision can tell apart.
    """
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}  # matplotlib warns about each font that is missing
    fonts: dict[Any, Any] = {"font.sans-serif": [name for name in FONTS if name in installed]}
    with mpl.rc_context({**STYLE, **fonts, "axes.prop_cycle": cycler(color=COLORS)}):
        yield


# no time in a file, so that the same figure gives the same bytes
_METADATA: dict[str, dict[str, None]] = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def file_of(figure: Any, ending: str, dpi: int = DPI) -> bytes:
    """A figure as the bytes of a .png, .pdf or .svg file in the style of `journal()`. Raises UsageError for others."""
    if ending.lower() not in _METADATA:
        raise UsageError(f"a figure cannot end in {ending!r}; it is saved as {', '.join(_METADATA)} or .html.")
    data = io.BytesIO()
    with journal(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a script no font has: an empty box
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


def colormap(name: str | Sequence[str], bad: str = NAN_COLOR) -> Any:
    """A colour map by name or from a list of colours, with a colour for missing values."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    colors = colormaps[name] if isinstance(name, str) else ListedColormap(list(name))
    return colors.with_extremes(bad=(0, 0, 0, 0) if bad == "transparent" else bad)


def on_paper(shown: Any, width: str = "double") -> Any:
    """Render a view as a matplotlib Figure; the frames of a HoloMap as panels side by side.

    width: "single", "middle" or "double" column of a journal, the most that the figure takes.
    """
    if width not in COLUMN_WIDTHS:
        raise UsageError(f"width is {width!r}; use {', '.join(COLUMN_WIDTHS)}.")
    if hasattr(shown, "savefig"):
        return shown
    hv = holoviews()
    layout, n_columns = _as_layout(shown)
    parts = list(layout)
    title = _options_of(layout).get("title", "")
    importlib.import_module("holoviews.plotting.mpl")  # registers the backend; `hv.extension` writes into notebooks
    converted = hv.Layout([_for_matplotlib(part) for part in parts]).cols(n_columns)
    converted = converted.opts(
        fig_inches=(WIDTH, WIDTH),
        show_title=False,
        sublabel_format=None,
        hspace=0.02,
        vspace=0.02,
        backend="matplotlib",
    )
    with journal(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="matplotlib")
        figure = hv.render(converted, backend="matplotlib")
        _arrange(figure, [_frame_size(part) for part in parts], n_columns, COLUMN_WIDTHS[width])
        if isinstance(shown, hv.Layout) and 1 < len(parts) <= len(LETTERS):
            _add_letters(figure)
        if title:
            figure.suptitle(textwrap.fill(title.replace("{{", "{").replace("}}", "}"), 96))
    from matplotlib import pyplot

    pyplot.close(figure)
    return figure


def _as_layout(shown: Any) -> tuple[Any, int]:
    """A view as a Layout and its number of columns."""
    hv = holoviews()
    if isinstance(shown, hv.Layout):
        return shown, min(len(shown), shown._max_cols)
    if not isinstance(shown, hv.HoloMap):
        return hv.Layout([shown]), 1
    if isinstance(shown.last, hv.Image):
        return hv.Layout([_maps_in_one(shown)]), 1
    frames = list(shown.data.values())
    n_columns = min(len(frames), max(1, int(WIDTH / _frame_size(shown.last)[0])))
    if n_columns > 1 and len(frames) > SMALL_COLUMNS:
        n_columns = SMALL_COLUMNS
        frames = [_small(frame, has_legend=i == 0) for i, frame in enumerate(frames)]
    return hv.Layout(frames).opts(title=str(shown.label or ""), backend="bokeh"), n_columns


def _small(frame: Any, has_legend: bool) -> Any:
    """A frame of a HoloMap as a small panel."""
    options: dict[str, Any] = {"frame_width": 190, "frame_height": 120}
    if isinstance(frame, holoviews().NdOverlay):
        options |= {"show_legend": has_legend, "legend_position": "top_right"}
    return frame.opts(**options, backend="bokeh", clone=True)


def _maps_in_one(shown: Any) -> Any:
    """The maps of a HoloMap side by side, each with its colour range above it."""
    maps, limits, words = [], [], []
    for key, frame in shown.data.items():
        low, high = _options_of(frame)["clim"]
        maps.append(frame.dimension_values(2, flat=False))
        limits.append((low, high))
        words.append(f"{key[0]}: {low:.2g} … {high:.2g}")
    left, bottom, right, top = shown.last.bounds.lbrt()
    unit = str(_options_of(shown.last).get("xlabel", "")).partition("(")[2].rstrip(")")
    heading = f"{shown.label} ({right - left:.4g} x {top - bottom:.4g} {unit})"
    cmap = _options_of(shown.last)["cmap"]
    return sheet(in_rows(maps), in_rows(limits), heading, above=in_rows(words), cmap=cmap)


def _arrange(figure: Any, sizes: list[tuple[float, float]], n_columns: int, most: float) -> None:
    """Give the axes of a layout the sizes that their frames have on the screen, at most so many inches wide."""
    rows = [sizes[start : start + n_columns] for start in range(0, len(sizes), n_columns)]
    widths = [max(row[column][0] for row in rows if column < len(row)) for column in range(n_columns)]
    heights = [max(height for _, height in row) for row in rows]
    from matplotlib.ticker import ScalarFormatter

    panels = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    grid = panels[0].get_gridspec()
    grid.figure = figure
    grid.set_width_ratios(widths)
    grid.set_height_ratios(heights)
    beside = 0.75 * n_columns
    scale = min(1.0, (most - beside) / sum(widths)) if most > beside else 0.5
    figure.set_size_inches(min(most, scale * sum(widths) + beside), scale * sum(heights) + 0.75 * len(rows) + 0.2)
    for axes, (frame_width, _) in zip(panels, sizes, strict=False):
        if frame_width * scale < NARROW and isinstance(axes.xaxis.get_major_formatter(), ScalarFormatter):
            axes.locator_params(axis="x", nbins=3)
    figure.set_layout_engine("constrained")


def _add_letters(figure: Any) -> None:
    """Letters a, b, … to the upper left of the panels."""
    panels = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    for letter, axes in zip(LETTERS, panels, strict=False):
        axes.annotate(
            letter, (0, 1), xytext=(-22, 5), xycoords="axes fraction", textcoords="offset points", fontsize=8,
            fontweight="bold",
        )  # fmt: skip


def _options_of(shown: Any) -> dict[str, Any]:
    """The bokeh options of a view; of an overlay its own, then those of its elements, the first one's first."""
    hv = holoviews()
    options: dict[str, Any] = {}
    if isinstance(shown, hv.Overlay | hv.NdOverlay):
        for element in reversed([*shown]):
            options |= _options_of(element)
        options.pop("show_legend", None)
    for group in ("style", "plot"):
        options |= hv.Store.lookup_options("bokeh", shown, group).kwargs
    return {name: value for name, value in options.items() if not isinstance(value, hv.Cycle)}


def _frame_size(shown: Any) -> tuple[float, float]:
    """Width and height of the frame of a view in inches."""
    options = _options_of(shown)
    width, height = options.get("frame_width"), options.get("frame_height")
    if options.get("data_aspect") and not (width and height):
        first = next(iter(shown.traverse(lambda element: element, [holoviews().Element])))
        (x0, x1), (y0, y1) = (first.range(dim) for dim in first.dimensions()[:2])
        ratio = (x1 - x0) / (y1 - y0)
        width = width or (height * ratio if height else 300.0)
        height = height or width / ratio
    return (width or 400.0) / PIXELS_PER_INCH, (height or 300.0) / PIXELS_PER_INCH


# options of bokeh and those of matplotlib that mean the same
RENAMED = {
    "size": ("s",),
    "line_color": ("edgecolor", "edgecolors", "color"),
    "line_width": ("linewidth", "linewidths"),
    "line_dash": ("linestyle",),
    "fill_color": ("facecolor",),
    "text_color": ("color",),
    "text_align": ("horizontalalignment",),
}
LETTERS_PER_INCH = 17  # of a title
SCREEN_ONLY = {"colorbar", "aspect", "bgcolor", "fontsize", "colorbar_opts", "padding"}


def _for_matplotlib(shown: Any) -> Any:
    """A view whose elements have the options for matplotlib that they have for bokeh."""
    hv = holoviews()
    converted = shown.map(_element_for_matplotlib, hv.Element)
    if isinstance(converted, hv.Overlay | hv.NdOverlay):
        allowed = _allowed_options(converted)
        options = {name: value for name, value in _options_of(shown).items() if name in allowed}
        least = 1 if options.get("legend_position") == "right" else 2
        if not least <= _n_names(shown) <= MAX_NAMES:
            options["show_legend"] = False
        if options.get("show_frame") is False:
            options["hooks"] = [_hide_frame]
        converted = converted.opts(**_frame_options(options, shown), backend="matplotlib")
    return converted


def _n_names(shown: Any) -> int:
    """How many names the legend of an overlay has."""
    if isinstance(shown, holoviews().NdOverlay):
        return len(shown)
    if isinstance(shown, holoviews().Overlay):
        return sum(_n_names(part) for part in shown)
    return int(bool(shown.label))


def _allowed_options(shown: Any) -> set[str]:
    groups = holoviews().Store.options(backend="matplotlib")[type(shown).__name__].groups
    return {name for group in ("style", "plot") if group in groups for name in groups[group].allowed_keywords}


def _frame_options(options: dict[str, Any], shown: Any) -> dict[str, Any]:
    options = {name: value for name, value in options.items() if name not in SCREEN_ONLY}
    if not options.get("data_aspect"):
        options["aspect"] = "auto"
    if "title" in options:
        letters = max(24, int(LETTERS_PER_INCH * _frame_size(shown)[0]))
        lines = [textwrap.fill(line, letters) for line in options["title"].splitlines()]
        options["title"] = "\n".join(lines)
    return options


def _element_for_matplotlib(element: Any) -> Any:
    allowed, screen = _allowed_options(element), _options_of(element)
    options = {}
    for name, value in screen.items():
        if name == "hooks":
            continue
        for other in RENAMED.get(name, (name,)):
            if other in allowed:
                options[other] = value
                break
    options = _frame_options(options, element)
    if "s" in options:
        options["s"] = float(np.clip(6000 / max(len(element), 1), 0.6, 0.45 * options["s"] ** 2))
    for width in ("linewidth", "linewidths"):
        if width in options:
            options[width] = options[width] * 0.5
    if isinstance(options.get("cmap"), dict):  # matplotlib would draw a legend of its own
        options["color"] = holoviews().dim(options["color"]).categorize(options.pop("cmap"))
    if isinstance(element, holoviews().Labels):
        options["size"] = SMALL
    if options.get("marker") == "square":
        options["marker"] = "s"
    options["hooks"] = [_ColorBar(screen, _frame_size(element)[0])] if screen.get("colorbar") else []
    if screen.get("show_frame") is False:
        options["hooks"].append(_hide_frame)
    return element.opts(**options, axiswise=True, framewise=True, backend="matplotlib", clone=True)


def _hide_frame(plot: Any, element: Any) -> None:
    plot.handles["axis"].spines[:].set_visible(False)
    plot.handles["axis"].tick_params(length=0)


class _ColorBar:
    """Draws the colour bar of an element beside its frame, as high as the frame, where layouts make room for it."""

    def __init__(self, options: dict[str, Any], frame_width: float) -> None:
        self.options = options
        self.frame_width = frame_width

    def __call__(self, plot: Any, element: Any) -> None:
        axes = plot.handles["axis"]
        left = 1 + (0.06 + 0.5 * len(axes.child_axes)) / self.frame_width
        label = str(self.options.get("clabel") or "")
        bar = axes.figure.colorbar(
            plot.handles["artist"],
            cax=axes.inset_axes((left, 0, 0.09 / self.frame_width, 1)),
            extend="both" if "colours span" in label else "neither",
            format="%g" if self.options.get("logz") else None,
        )
        bar.set_label(label.partition("colours span")[0].strip(", "))
        names = self.options.get("colorbar_opts", {}).get("major_label_overrides")
        if names:
            step = -(-len(names) // MAX_NAMES)
            bar.set_ticks([*names][::step], labels=[*names.values()][::step])
            bar.ax.tick_params(length=0)
