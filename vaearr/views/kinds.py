"""One view per kind of result: the table of builders, `view` and `save`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config.parts import of_packages, part
from vaearr.errors import UsageError
from vaearr.schema import is_categorical, position_dims
from vaearr.views.common import Options, bokeh_is_current, holoviews, in_columns, robust_limits
from vaearr.views.page import Section, page
from vaearr.views.paper import DPI, check_new, file_of, on_paper, write_new

if TYPE_CHECKING:
    from vaearr import Run

KIND = "kind"  # attribute of a result: which builder shows it
Builder = Callable[..., Any]
PAGE_DPI = 170
SCREEN_DPI = 150  # of a figure on a page in pixels of the screen
ARRAY_SHAPES = {"array", "map", "stack", "pictures"}  # names that `_names_of` gives to an array
# builder of each kind, and the names (dims, coordinates, variables) that identify a result
# without `kind`
KINDS: dict[str, tuple[Builder, frozenset[str]]] = {}


def builder(kind: str, *has: str) -> Callable[[Builder], Builder]:
    """Register a function `(result, **options)` that shows results of a kind.

    Parameters
    ----------
    kind
        Name of the kind.
    *has
        Names (dims, coordinates, variables, attributes; "map" for an array over two dims, "stack"
        with a third) that identify a result without the attribute `kind`. Of several matching kinds
        that with the most names is chosen.

    Returns
    -------
    callable
        A decorator of the function, which returns a HoloViews object or a matplotlib Figure.
    """

    def register(build: Builder) -> Builder:
        KINDS[kind] = build, frozenset(has)
        return build

    return register


def kind_of(result: xr.Dataset | xr.DataArray) -> str:
    """Return the kind of a result: its attribute `kind` if registered, else by its names.

    The attribute is data, so nothing that it names is imported except entry points of installed
    packages. Raises UsageError if no view shows the result.
    """
    stored_kind = str(result.attrs.get(KIND, ""))
    if stored_kind in KINDS or stored_kind in of_packages("view"):
        return stored_kind
    names_of_result = _names_of(result)
    matches = []
    for kind, (_, required_names) in KINDS.items():
        if required_names and required_names <= names_of_result:
            matches.append((len(required_names), kind))
    if not matches:
        kinds = ", ".join(sorted(KINDS))
        raise UsageError(
            f"no view shows a result with {sorted(names_of_result)}; "
            f"name a view with kind=…: {kinds}."
        )
    return max(matches)[1]


def _names_of(result: xr.Dataset | xr.DataArray) -> set[str]:
    """Names that identify the kind of a result: dims, coordinates, variables, attributes, shape."""
    names = set(map(str, (*result.dims, *result.coords, *result.attrs)))
    if isinstance(result, xr.Dataset):
        names |= set(map(str, result.data_vars))
        has_map = any({n.Y, n.X} <= set(variable.dims) for variable in result.values())
        if has_map or n.PATTERNS in result:
            names.add("dataset")
        return names
    name = str(result.name)
    names |= {"array", name, name.partition("_")[2]}
    if set(result.attrs.get(n.NAVIGATION_DIMS, ["none"])) <= set(result.dims):
        names.add("samples of a dataset")
    elif set(result.attrs.get(n.SIGNAL_DIMS, [n.DY, n.DX])) <= set(result.dims):
        names.add("pictures")
    further_dims = set(result.dims) - {*n.SCAN_DIMS, *position_dims(result)}
    if result.ndim == 2:
        names.add("map")
    elif result.ndim == 3 and len(further_dims) == 1 and n.CHANNEL not in further_dims:
        names.add("stack")
    return names


@bokeh_is_current()
def view(
    result: xr.Dataset | xr.DataArray | Mapping[str, xr.DataArray] | Run,
    backend: Literal["bokeh", "matplotlib"] = "bokeh",
    *,
    kind: str | Builder | None = None,
    **options: Any,
) -> Any:
    """Plot a result of any kind.

    Parameters
    ----------
    result : xarray.Dataset, xarray.DataArray, Run or mapping of str to DataArray
        The result of an analysis, a Dataset or run (overview of its maps), patterns (a sheet of
        samples), a map, a stack of maps or decoded pictures. Maps by name, such as the same latent
        of several scans, are shown side by side on one colour scale.
    backend : {"bokeh", "matplotlib"}
        "bokeh" for notebooks and pages, "matplotlib" for figures in the style of `journal()`.
    kind : str or callable, optional
        A registered view, one of an installed package, a function `(result, **options)` or
        "package.module:Name". Default: the attribute `kind` of the result, else its names decide.
        The attribute never causes an import, so your own view must be passed here.
    **options
        Options of the view, such as `roi=` of a map.

    Returns
    -------
    HoloViews object or matplotlib.figure.Figure
        The picture; a few views of layered sheets are matplotlib figures.

    Raises
    ------
    UsageError
        If no view shows the result, or if the view does not have an option.

    Examples
    --------
    >>> import vaearr as va
    >>> from vaearr.testing import synthetic_scan
    >>> scan = synthetic_scan(nx=8, ny=6, pattern_shape=(16, 16), n_grains=3)
    >>> band_contrast = va.view(scan.BC, cmap="gray")
    >>> figure = va.view(scan, "matplotlib", kind="side_maps")
    """
    if backend not in ("bokeh", "matplotlib"):
        raise UsageError(f"backend is {backend!r}; use bokeh or matplotlib.")
    if not isinstance(result, xr.Dataset | xr.DataArray | Mapping):  # a run
        options = {"run": result.name} | options
        result = result.ds
    if isinstance(result, xr.Dataset | xr.DataArray):
        picture = _build(kind or kind_of(result), result, options)
    else:
        picture = _side_by_side(result, kind, options)
    return on_paper(picture) if backend == "matplotlib" else picture


def _build(kind: str | Builder, result: xr.Dataset | xr.DataArray, options: Options) -> Any:
    """Call the builder of a kind. Raises UsageError for unknown options, with the valid ones."""
    build: Any = kind if callable(kind) else part("view", kind, KINDS, trust=[kind])
    if isinstance(build, tuple):
        build, required_names = build
        missing = required_names - _names_of(result)
        if missing and not required_names & ARRAY_SHAPES:
            raise UsageError(
                f"the view {kind!r} shows a result with {', '.join(sorted(missing))}; "
                "this one has none."
            )
    parameters = list(inspect.signature(build).parameters)[1:]
    valid = f"Options of this view: {', '.join(parameters)}."
    try:
        inspect.signature(build).bind(result, **options)
    except TypeError as error:
        raise UsageError(f"the view cannot be made: {error}. {valid}") from None
    try:
        return build(result, **options)
    except ValueError as error:
        if not str(error).startswith("Unexpected option"):
            raise
        raise UsageError(f"{error} {valid}") from None


def _side_by_side(
    maps: Mapping[str, xr.DataArray], kind: str | Builder | None, options: Options
) -> Any:
    if not maps:
        raise UsageError("no map is given; give maps by name, such as {'a': a.BC, 'b': b.BC}.")
    if not any(is_categorical(map_) for map_ in maps.values()):
        values = np.concatenate([np.ravel(map_.values) for map_ in maps.values()])
        options = {"clim": robust_limits(values)} | options
    views = [view(map_, kind=kind, title=name, **options) for name, map_ in maps.items()]
    return in_columns(views, 4)


def save(
    shown: Any,
    path: str | os.PathLike[str],
    *,
    heading: str = "",
    overwrite: bool = False,
    dpi: int = DPI,
    width: str = "double",
    titles: bool = False,
    **options: Any,
) -> Path:
    """Save a result or a view as .png, .pdf, .svg or as a self-contained .html page.

    Parameters
    ----------
    shown
        A result, or what `view` returned.
    path
        File to write; its ending chooses the format.
    heading
        Heading of a page.
    overwrite
        Whether an existing file may be replaced.
    dpi
        Resolution of a .png.
    width
        Maximum width of a figure: "single", "middle" or "double" column of a journal (89, 140,
        183 mm).
    titles
        Whether the title of a figure is printed, see `on_paper`.
    **options
        Options of the view of a result.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    UsageError
        For another ending.
    NoInputError
        If the folder does not exist.
    ExistsError
        If the file exists and `overwrite` is false.

    Examples
    --------
    >>> path = va.save(va.view(ds.BC), "figure.pdf", width="single")
    >>> path.name
    'figure.pdf'
    """
    target = Path(path)
    ending = target.suffix.lower()
    check_new(target, overwrite)
    if isinstance(shown, xr.Dataset | xr.DataArray | Mapping):
        shown = view(shown, **options)
    if ending == ".html":
        introduction = Section("view", heading)
        show(introduction, shown, heading or target.stem)
        data = page(heading or target.stem, introduction, []).encode()
    else:
        data = file_of(on_paper(shown, width, titles=titles), ending, dpi)
    return write_new(target, data, overwrite)


def show(section: Section, shown: Any, alt: str) -> None:
    """Add a view to a section of a page: by bokeh, or a matplotlib Figure as a picture."""
    if hasattr(shown, "savefig"):
        png = file_of(shown, ".png", PAGE_DPI)
        section.picture(png, alt, SCREEN_DPI * shown.get_figwidth())
    else:
        section.figure(bokeh_model(shown))


def bokeh_model(shown: Any) -> Any:
    """A HoloViews object as a bokeh model; of a HoloMap one for each key, chosen by a selector."""
    from bokeh.layouts import column
    from bokeh.models import CustomJS
    from bokeh.models.widgets import Select

    hv = holoviews()
    renderer = hv.renderer("bokeh")
    if not isinstance(shown, hv.HoloMap):
        return renderer.get_plot(shown).state
    names: list[Any] = [str(name) for (name,) in shown.data]
    frames = [renderer.get_plot(frame).state for frame in shown]
    for frame in frames[1:]:
        frame.visible = False
    heading = str(shown.kdims[0].label)
    select = Select(title=heading, value=names[0], options=names, width=160)
    show_selected = "frames.forEach((frame, i) => { frame.visible = names[i] === cb_obj.value; });"
    callback = CustomJS(args={"frames": frames, "names": names}, code=show_selected)
    select.js_on_change("value", callback)
    return column(select, *frames)
