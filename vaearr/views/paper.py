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
from vaearr.views.common import COLORS, Options, bokeh_is_current, holoviews
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
    """Set the style of a journal inside this context.

    Sans-serif letters of 6 to 8 pt in the first of the listed fonts that is installed, DejaVu Sans
    for letters that it lacks; editable text in PDF; 300 dpi; Okabe and Ito's colours, which are
    distinguishable with any colour vision.
    """
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}  # matplotlib warns about others
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
    """A figure as the bytes of a .png, .pdf or .svg file in the style of `journal()`.

    Raises UsageError for other endings.
    """
    ending = ending.lower()
    if ending not in _METADATA:
        raise UsageError(
            f"a figure cannot end in {ending!r}; it is saved as {', '.join(_METADATA)} or .html."
        )
    data = io.BytesIO()
    with journal(), warnings.catch_warnings():
        # a letter that no font has is drawn as an empty box
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(
            data,
            format=ending[1:],
            dpi=dpi,
            bbox_inches="tight",
            pad_inches=0.04,
            metadata=_METADATA[ending],
        )
    return data.getvalue()


def check_new(path: Path, overwrite: bool) -> None:
    """Raise NoInputError if the folder does not exist, ExistsError if the file does.

    An existing file is no error with `overwrite`.
    """
    if not path.parent.is_dir():
        raise NoInputError(f"the folder {path.parent} does not exist; create it first.")
    if path.exists() and not overwrite:
        raise ExistsError(f"{path} exists; choose another name, or overwrite=True (--overwrite).")


def write_new(path: Path, data: bytes, overwrite: bool) -> Path:
    """Write a file that gets its name once it is complete; see `check_new`."""
    check_new(path, overwrite)
    replace_file(path, data, durable=False)
    return path


@bokeh_is_current()
def on_paper(picture: Any, width: str = "double") -> Any:
    """Render a view as a matplotlib Figure, the frames of a HoloMap as panels side by side.

    Parameters
    ----------
    picture
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
    if hasattr(picture, "savefig"):
        return picture
    hv = holoviews()
    layout = _as_layout(picture)
    has_letters = isinstance(picture, hv.Layout) and 1 < len(layout) <= len(LETTERS)
    with journal(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="matplotlib")
        figure, panels = _rendered(layout, COLUMN_WIDTHS[width])
        if has_letters:
            for letter, axes in zip(LETTERS, panels, strict=False):
                axes.annotate(letter, (0, 1), **LETTER_STYLE)
        heading = _options_of(layout).get("title", "")
        if heading:
            heading = heading.replace("{{", "{").replace("}}", "}")
            figure.suptitle(_wrapped(heading, LETTERS_PER_LINE))
    return figure


LAYOUT_OPTIONS: Options = {
    "fig_inches": (WIDTH, WIDTH),
    "show_title": False,
    "sublabel_format": None,
    "hspace": 0.02,
    "vspace": 0.02,
}
LETTER_STYLE: Options = {
    "fontsize": 8,
    "fontweight": "bold",
    "xytext": (-22, 5),
    "xycoords": "axes fraction",
    "textcoords": "offset points",
}
MARGIN = 0.75  # inches of a panel for its labels


def _as_layout(picture: Any) -> Any:
    """A view as a Layout: maps with a selector as one sheet, other frames side by side."""
    hv = holoviews()
    if isinstance(picture, hv.Layout):
        return picture
    if not isinstance(picture, hv.HoloMap):
        return hv.Layout([picture])
    if isinstance(picture.last, hv.Image):
        return hv.Layout([_maps_in_one(picture)])
    n_columns = 1 if _frame_size(picture.last)[0] > WIDTH / 2 else 3
    return hv.Layout(list(picture)).cols(n_columns).opts(title=str(picture.label))


def _maps_in_one(maps: Any) -> Any:
    """The maps of a HoloMap side by side, each with its colour range above it."""
    images = []
    words = []
    for (name,), frame in maps.data.items():
        low, high = _options_of(frame)["clim"]
        images.append(scaled(frame.dimension_values(2, flat=False), (low, high)))
        words.append(f"{name}: {low:.2g} … {high:.2g}")
    left, bottom, right, top = maps.last.bounds.lbrt()
    options = _options_of(maps.last)
    unit = options["xlabel"].partition("(")[2].rstrip(")")
    heading = f"{maps.label} ({right - left:.4g} x {top - bottom:.4g} {unit})"
    style = {"cmap": options["cmap"], "colorbar": False}
    return sheet(in_rows(images), heading, limits=(0.0, 1.0), words=words, **style)


def _rendered(layout: Any, max_width: float) -> tuple[Any, list[Any]]:
    """A Layout as a matplotlib figure with panels sized as on the screen; and its panels."""
    # registers the backend; `hv.extension` would write into notebooks
    importlib.import_module("holoviews.plotting.mpl")
    from matplotlib import pyplot

    hv = holoviews()
    n_rows, n_columns = layout.shape
    sizes = np.zeros((n_rows * n_columns, 2))
    sizes[: len(layout)] = [_frame_size(view) for view in layout]
    sizes = sizes.reshape(n_rows, n_columns, 2)
    widths = sizes[..., 0].max(axis=0)
    heights = sizes[..., 1].max(axis=1)
    with_options = [hv.Element, hv.Overlay, hv.NdOverlay]
    views = [_visible(view).map(_for_matplotlib, with_options) for view in layout]
    converted = hv.Layout(views).cols(n_columns).opts(**LAYOUT_OPTIONS, backend="matplotlib")
    figure = hv.renderer("matplotlib").get_plot(converted).state  # `hv.render` plots it twice
    pyplot.close(figure)
    panels = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    grid = panels[0].get_gridspec()
    grid.figure = figure
    grid.set_width_ratios(widths)
    grid.set_height_ratios(heights)
    margins = MARGIN * n_columns
    scale = min(1.0, max(0.5, max_width - margins) / widths.sum())
    width = min(max_width, scale * widths.sum() + margins)
    figure.set_size_inches(width, scale * heights.sum() + MARGIN * n_rows + 0.2)
    figure.set_layout_engine("constrained")
    return figure, panels


def _visible(view: Any) -> Any:
    """A view without the points that only a selection on the screen shows."""
    if not isinstance(view, holoviews().Overlay):
        return view
    return view.clone([element for element in view if _options_of(element).get("alpha") != 0])


def _options_of(view: Any) -> Options:
    """The bokeh options of a view; they override those of its elements, the first the later."""
    hv = holoviews()
    options: Options = {}
    if isinstance(view, hv.Overlay | hv.NdOverlay):
        for element in reversed([*view]):
            options |= _options_of(element)
        options.pop("show_legend", None)
    for group in ("style", "plot"):
        options |= hv.Store.lookup_options("bokeh", view, group).kwargs
    return options


def _frame_size(view: Any) -> tuple[float, float]:
    """Width and height of the frame of a view in inches."""
    options = _options_of(view)
    width = options.get("frame_width")
    height = options.get("frame_height")
    if options.get("data_aspect") and not (width and height):
        element = next(iter(view.traverse(lambda element: element, [holoviews().Element])))
        left, right = element.range(0)
        bottom, top = element.range(1)
        ratio = (right - left) / (top - bottom)
        width = width or height * ratio
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
LETTERS_PER_LINE = 96  # of the title of a figure
SCREEN_ONLY = {"colorbar", "fontsize", "colorbar_opts", "hooks"}


def _for_matplotlib(view: Any) -> Any:
    """An element or overlay with matplotlib options that correspond to its bokeh options."""
    hv = holoviews()
    screen = _options_of(view)
    width = _frame_size(view)[0]
    groups = hv.Store.options(backend="matplotlib")[type(view).__name__].groups
    allowed = {name for group in groups.values() for name in group.allowed_keywords}
    options: Options = {"hooks": []}
    for name, value in screen.items():
        names = [other for other in RENAMED.get(name, (name,)) if other in allowed]
        if names and name not in SCREEN_ONLY:
            options[names[0]] = value
    if not screen.get("data_aspect"):
        options["aspect"] = "auto"
    if "title" in options:
        options["title"] = _wrapped(options["title"], max(24, int(LETTERS_PER_INCH * width)))
    if screen.get("show_frame") is False:
        options["hooks"].append(_hide_frame)
    if isinstance(view, hv.Element):
        if screen.get("colorbar"):
            options["hooks"].append(functools.partial(_color_bar, screen, width))
        _adapt_element(view, options, screen)
    return view.opts(**options, backend="matplotlib", clone=True)


def _wrapped(title: str, n_letters: int) -> str:
    return "\n".join(textwrap.fill(line, n_letters) for line in title.splitlines())


def _adapt_element(element: Any, options: Options, screen: Options) -> None:
    """Change the options of an element where matplotlib means something else than bokeh."""
    hv = holoviews()
    options |= {"axiswise": True, "framewise": True}
    if "s" in options:
        area = 0.45 * options["s"] ** 2
        options["s"] = float(np.clip(6000 / max(len(element), 1), 0.6, area))
    for name in {"linewidth", "linewidths"} & set(options):
        options[name] *= 0.5
    if isinstance(options.get("cmap"), dict):  # matplotlib would draw a legend
        options["color"] = hv.dim(options["color"]).categorize(options.pop("cmap"))
    if isinstance(element, hv.Labels):
        options["size"] = SMALL
    elif isinstance(element, hv.Histogram):
        options["facecolor"] = options.pop("color")
    elif isinstance(element, hv.Bars):
        options["bar_padding"] = 1 - screen.get("bar_width", 1)


def _hide_frame(plot: Any, element: Any) -> None:
    plot.handles["axis"].spines[:].set_visible(False)
    plot.handles["axis"].tick_params(length=0)


def _color_bar(options: Options, frame_width: float, plot: Any, element: Any) -> None:
    """Draw the colour bar of an element to the right of its frame, where layouts reserve space."""
    axes = plot.handles["axis"]
    label, is_clipped, _ = options.get("clabel", "").partition("colours span")
    bar = axes.figure.colorbar(
        plot.handles["artist"],
        cax=axes.inset_axes((1 + 0.06 / frame_width, 0, 0.09 / frame_width, 1)),
        extend="both" if is_clipped else "neither",
    )
    bar.set_label(label.strip(", "))
    names = options.get("colorbar_opts", {}).get("major_label_overrides")
    if names:
        bar.set_ticks([*names], labels=[*names.values()])
        bar.ax.tick_params(length=0)
