"""Views on paper: the style of a journal, and files.

`on_paper` renders a HoloViews view by HoloViews' matplotlib backend, inside `journal()`: nothing
global changes.
"""

from __future__ import annotations

import functools
import importlib
import io
import math
import string
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.store.folders import replace_file
from vaearr.views.common import COLORS, Options, bokeh_is_current, holoviews, number
from vaearr.views.mosaic import in_rows, scaled, sheet

DPI = 300
COLUMN_WIDTHS = {"single": 3.5, "middle": 5.5, "double": 7.2}  # inches: 89, 140 and 183 mm
WIDTH = COLUMN_WIDTHS["double"]
SMALL = 6  # points: tick labels, legends and words within a picture
SMALLEST = 5  # points: words within small pictures
PIXELS_PER_INCH = 130.0  # of a frame on the screen and on paper
MAX_NAMES = 24  # on a colour bar
MAX_LEGEND = 12  # names in a legend; more have none
# the first that is installed; those after Helvetica have the widths of its letters
FONTS = (
    "Arial",
    "Helvetica",
    "Liberation Sans",
    "Arimo",
    "Nimbus Sans",
    "TeX Gyre Heros",
    "DejaVu Sans",
)

STYLE: dict[Any, Any] = {
    "font.family": ["sans-serif", "DejaVu Sans"],
    "font.size": 7,
    "figure.titlesize": 7,
    "axes.titlesize": 7,
    "axes.titlepad": 3,
    "axes.labelsize": 7,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.labelspacing": 0.3,
    "legend.borderpad": 0.2,
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

    Letters of 5 to 7 pt in Arial, Helvetica or a font with the same widths if one is installed,
    DejaVu Sans for letters that it lacks; editable text in PDF; 300 dpi; Okabe and Ito's colours,
    which are distinguishable with any colour vision.
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
def on_paper(picture: Any, width: str = "double", *, titles: bool = False) -> Any:
    """Render a view as a matplotlib Figure, the frames of a HoloMap as panels side by side.

    As journals require, a figure has no title; that of a map becomes the label of its colour bar.
    Of several panels each has a letter and its title.

    Parameters
    ----------
    picture
        A HoloViews object; a matplotlib Figure is returned unchanged.
    width
        Maximum width of the figure: "single", "middle" or "double" column of a journal.
    titles
        Whether the title is printed.

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
    max_width = COLUMN_WIDTHS[width]
    layout = _as_layout(picture, max_width)
    heading = _options_of(layout).get("title", "")
    with journal(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="matplotlib")
        figure, panels = _rendered(layout, max_width, titles)
        if titles and heading:
            figure.suptitle(_wrapped(heading.format(), LETTERS_PER_LINE))
        elif not heading and len(panels) > 1:  # else they are parts of one panel
            for letter, axes in zip(string.ascii_lowercase, panels, strict=False):
                axes.set_title(letter, loc="left", ha="right", fontsize=8, fontweight="bold")
        _fit(figure, panels, layout, max_width)
    return figure


LAYOUT_OPTIONS: Options = {
    "fig_inches": (WIDTH, WIDTH),
    "show_title": False,
    "sublabel_format": None,
    "hspace": 0.02,
    "vspace": 0.02,
}
MARGIN = 0.6  # inches of a panel for its labels
LOWEST = 0.75  # smallest scale of the height of a curve or table, whose labels keep their size
SMALLEST_SCALE = 0.1  # of panels in a row of many
MIN_SCALE = 0.45  # smaller panels are arranged in fewer columns


def _as_layout(picture: Any, max_width: float) -> Any:
    """A view as a Layout: maps with a selector as one sheet, other frames side by side.

    Panels that belong into rows have a common title; others are arranged to fit.
    """
    hv = holoviews()
    if isinstance(picture, hv.HoloMap) and isinstance(picture.last, hv.Image):
        picture = _maps_in_one(picture, round(max_width * MAPS_PER_INCH))
    if isinstance(picture, hv.Layout):
        layout = picture
    elif isinstance(picture, hv.HoloMap):
        layout = hv.Layout(list(picture)).cols(3)
    else:
        return hv.Layout([picture])
    n_columns = layout.shape[1]
    if _options_of(layout).get("title"):
        return layout
    while n_columns > 1 and _scale(layout, n_columns, max_width) < MIN_SCALE:
        n_columns -= 1
    return hv.Layout(list(layout)).cols(n_columns)


def _scale(layout: Any, n_columns: int, max_width: float) -> float:
    """Size of the frames of a Layout relative to their size on the screen, before they are fitted."""
    widths = sorted(_frame_size(view)[0] for view in layout)
    scale = (max_width - MARGIN * n_columns) / sum(widths[-n_columns:])
    return float(np.clip(scale, SMALLEST_SCALE, 1))


MAPS_PER_INCH = 1.15


def _maps_in_one(maps: Any, n_columns: int) -> Any:
    """The maps of a HoloMap side by side, each with its colour range above it."""
    images = []
    words = []
    for (name,), frame in maps.data.items():
        low, high = _options_of(frame)["clim"]
        images.append(scaled(frame.dimension_values(2, flat=False), (low, high)))
        words.append(f"{name}: {number(low, '.2g')} … {number(high, '.2g')}")
    left, bottom, right, top = maps.last.bounds.lbrt()
    options = _options_of(maps.last)
    unit = options["xlabel"].partition("(")[2].rstrip(")")
    heading = f"{maps.label} ({right - left:.4g} x {top - bottom:.4g} {unit})"
    style = {"cmap": options["cmap"], "colorbar": False}
    return sheet(in_rows(images, n_columns), heading, limits=(0.0, 1.0), words=words, **style)


def _rendered(layout: Any, max_width: float, titles: bool) -> tuple[Any, list[Any]]:
    """A Layout as a matplotlib figure; and its panels."""
    # registers the backend; `hv.extension` would write into notebooks
    importlib.import_module("holoviews.plotting.mpl")
    from matplotlib import pyplot

    hv = holoviews()
    n_columns = layout.shape[1]
    scale = _scale(layout, n_columns, max_width)
    has_title = titles or len(layout) > 1
    convert = functools.partial(_for_matplotlib, scale=scale, has_title=has_title)
    with_options = [hv.Element, hv.Overlay, hv.NdOverlay]
    views = [_visible(view).map(convert, with_options) for view in layout]
    converted = hv.Layout(views).cols(n_columns).opts(**LAYOUT_OPTIONS, backend="matplotlib")
    with _without_fitting():
        figure = hv.renderer("matplotlib").get_plot(converted).state  # `hv.render` plots it twice
    pyplot.close(figure)
    panels = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    return figure, panels


def _fit(figure: Any, panels: list[Any], layout: Any, max_width: float) -> None:
    """Size a figure so that its frames have the proportions of the screen."""
    n_rows, n_columns = layout.shape
    _remove_repeated_labels(panels, n_columns)
    grid = panels[0].get_gridspec()
    grid.figure = figure
    figure.set_layout_engine("constrained")
    scale = _scale(layout, n_columns, max_width)
    figure_width = 0.0
    margin = MARGIN * n_rows
    for _ in range(2):  # the second time with the space that the labels have taken
        sizes = np.zeros((n_rows * n_columns, 2))
        sizes[: len(layout)] = [_frame_size(view, scale) for view in layout]
        sizes = sizes.reshape(n_rows, n_columns, 2)
        widths = sizes[..., 0].max(axis=0)
        heights = sizes[..., 1].max(axis=1)
        grid.set_width_ratios(widths)
        grid.set_height_ratios(heights)
        figure_width = figure_width or widths.sum() + MARGIN * n_columns
        height = heights.sum() + margin
        figure.set_size_inches(figure_width, height)
        figure.draw_without_rendering()
        frames = [axes.get_position(original=True) for axes in panels]
        row_width = figure_width * sum(frame.width for frame in frames[:n_columns])
        scale *= min(1, row_width / widths.sum())
        margin = height * (1 - sum(frame.height for frame in frames[::n_columns]))
    for axes in panels:
        _fit_ticks(axes)
        _fit_words(axes)


def _fit_ticks(axes: Any) -> None:
    """Leave as many names below a panel as do not touch each other."""
    low, high = sorted(axes.get_xlim())
    ticks = []
    widest = 0.0
    for tick in axes.xaxis.get_major_ticks():
        label = tick.label1
        if low <= tick.get_loc() <= high and not label.get_rotation():
            ticks.append((tick.get_loc(), label.get_text()))
            widest = max(widest, label.get_window_extent().width)
    step = math.ceil(1.2 * widest * len(ticks) / axes.bbox.width)
    if step > 1:
        axes.set_xticks(*zip(*ticks[::step], strict=True))


def _remove_repeated_labels(panels: list[Any], n_columns: int) -> None:
    """Leave the labels of the outer panels if all panels have the same axes."""
    axes_words = {
        (axes.get_xlabel(), axes.get_ylabel(), axes.get_xlim(), axes.get_ylim()) for axes in panels
    }
    if len(axes_words) > 1:
        return
    for i, axes in enumerate(panels):
        if i % n_columns:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
        if i + n_columns < len(panels):
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)


def _fit_words(axes: Any) -> None:
    """Size the words between pictures so that neighbours do not touch.

    Words that are too long in the smallest letters are hidden, all of them if these are most.
    """
    words = [text for text in axes.texts if text.get_text()]
    if not words:
        return
    places = axes.transData.transform([text.get_position() for text in words])
    space = 0.9 * np.diff(np.unique(places[:, 0].round())).min(initial=axes.bbox.width)
    widths = np.array([text.get_window_extent().width for text in words])
    scale = np.clip(0.8 * space / widths.max(), SMALLEST / SMALL, 1)
    fits = scale * widths <= space
    for text, is_short in zip(words, fits & (fits.mean() > 0.5), strict=True):
        text.set(fontsize=scale * SMALL, linespacing=1.1, visible=is_short)


@contextmanager
def _without_fitting() -> Iterator[None]:
    """Omit HoloViews' search for the size of a figure, which draws it twice: its size is set here."""
    from holoviews.plotting.mpl import LayoutPlot

    before = LayoutPlot.v17_layout_format
    LayoutPlot.v17_layout_format = False
    try:
        yield
    finally:
        LayoutPlot.v17_layout_format = before


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


def _frame_size(view: Any, scale: float = 1.0) -> tuple[float, float]:
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
    across = scale * (width or 400.0) / PIXELS_PER_INCH
    if not options.get("data_aspect"):
        scale = max(scale, LOWEST)
    return across, scale * (height or 300.0) / PIXELS_PER_INCH


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
LETTERS_PER_INCH = 15  # of a title
LETTERS_PER_LINE = 96  # of the title of a figure
SCREEN_ONLY = {"colorbar", "fontsize", "colorbar_opts", "hooks"}


def _for_matplotlib(view: Any, scale: float, has_title: bool) -> Any:
    """An element or overlay with matplotlib options that correspond to its bokeh options."""
    hv = holoviews()
    screen = _options_of(view)
    width = scale * _frame_size(view)[0]
    options: Options = {"hooks": []} | _renamed(screen, type(view).__name__)
    if not screen.get("data_aspect"):
        options["aspect"] = "auto"
    if not has_title:
        options["title"] = ""
    elif "title" in options:
        options["title"] = _wrapped(options["title"], max(12, int(LETTERS_PER_INCH * width)))
    if isinstance(view, hv.NdOverlay | hv.Overlay) and len(view) > MAX_LEGEND:
        options["show_legend"] = False
    if screen.get("show_frame") is False:
        options["hooks"].append(_hide_frame)
    if isinstance(view, hv.Element):
        if screen.get("colorbar"):
            color_bar = functools.partial(_color_bar, screen, has_title, width)
            options["hooks"].append(color_bar)
        _adapt_element(view, options, screen)
    return view.opts(**options, backend="matplotlib", clone=True)


def _renamed(screen: Options, kind: str) -> Options:
    """The bokeh options of a kind of element that matplotlib has too, under its names."""
    groups = holoviews().Store.options(backend="matplotlib")[kind].groups
    allowed = {name for group in groups.values() for name in group.allowed_keywords}
    options = {}
    for name, value in screen.items():
        names = [other for other in RENAMED.get(name, (name,)) if other in allowed]
        if names and name not in SCREEN_ONLY:
            options[names[0]] = value
    return options


def _wrapped(title: str, n_letters: int) -> str:
    return "\n".join(
        textwrap.fill(line, n_letters, break_long_words=False) for line in title.splitlines()
    )


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


CLIPPED = "colours span"  # begins the note on a colour bar that does not show all values


def _color_bar(options: Options, has_title: bool, width: float, plot: Any, element: Any) -> None:
    """Draw the colour bar of an element to the right of its frame, where layouts reserve space.

    Its label is the unit, of a map without a title the title.
    """
    axes = plot.handles["axis"]
    label, is_clipped, _ = options.get("clabel", "").partition(CLIPPED)
    label = label.strip(", ")
    title = options.get("title", "")
    if is_clipped and not has_title:
        label = title.format()  # HoloViews titles are format strings
    elif f"({label})" in title:
        label = ""
    bar = axes.figure.colorbar(
        plot.handles["artist"],
        cax=axes.inset_axes((1 + 0.06 / width, 0, 0.09 / width, 1)),
        extend="both" if is_clipped else "neither",
    )
    bar.set_label(label)
    names = options.get("colorbar_opts", {}).get("major_label_overrides")
    if names:
        bar.set_ticks([*names], labels=[*names.values()])
        bar.ax.tick_params(length=0)
