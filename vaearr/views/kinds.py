"""One view per kind of result: the table of builders, `view` that finds one, `save` that writes
what it shows.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config.parts import of_packages, part
from vaearr.errors import UsageError
from vaearr.schema import is_categorical
from vaearr.views.common import bokeh_is_current, holoviews, robust_limits
from vaearr.views.page import Section, page
from vaearr.views.paper import DPI, check_new, file_of, on_paper, write_new

if TYPE_CHECKING:
    from vaearr import Run

KIND = "kind"  # attribute of a result: which builder shows it
Builder = Callable[..., Any]
PAGE_DPI = 170
ARRAY_SHAPES = {"array", "map", "stack"}  # names by which `_names_of` tells an array
# builder of each kind, and the names (dims, coordinates, variables) by which a result without
# `kind` is known
KINDS: dict[str, tuple[Builder, frozenset[str]]] = {}


def builder(kind: str, *has: str) -> Callable[[Builder], Builder]:
    """Register a function `(result, **options)` as the one that shows results of a kind.

    It returns a HoloViews object (shown on the screen by bokeh, on paper by `vaearr.views.paper`)
    or, where pictures have to be set by hand, a matplotlib Figure that serves both. A result
    without the attribute `kind` belongs to the kind of which it has all names `has` (dims,
    coordinates, variables, attributes; "map" is an array over two dims, "stack" one with a third),
    and of several to that with the most.
    """

    def register(build: Builder) -> Builder:
        KINDS[kind] = build, frozenset(has)
        return build

    return register


def kind_of(result: xr.Dataset | xr.DataArray) -> str:
    """The kind of a result: that of its attribute `kind` if a view is registered for it, else by
    its names.

    The attribute comes from whoever wrote the result, so nothing that it names is imported, unless
    it is the entry point of an installed package. Raises UsageError where no view shows the result.
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
            f"no view shows a result with {sorted(names_of_result)}; name a view with kind=…: {kinds}."
        )
    return max(matches)[1]


def _names_of(result: xr.Dataset | xr.DataArray) -> set[str]:
    """Names by which the kind of a result is recognised: dims, coordinates, variables, attributes,
    and its shape.
    """
    names = {str(name) for name in (*result.dims, *result.coords, *result.attrs)}
    if isinstance(result, xr.Dataset):
        names |= set(map(str, result.data_vars))
        if n.PATTERNS in result or any(
            {n.Y, n.X} <= set(variable.dims) for variable in result.data_vars.values()
        ):
            names.add("dataset")
        return names
    names |= {"array", str(result.name), str(result.name).partition("_")[2]}
    if set(result.attrs.get(n.NAVIGATION_DIMS, ["none"])) <= set(result.dims):
        names.add("samples of a dataset")
    n_scan_dims = len(set(result.dims) & set(n.SCAN_DIMS))
    if result.ndim == 2:
        names.add("map")
    elif result.ndim == 3 and n_scan_dims == 2 and n.CHANNEL not in result.dims:
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
    """Show a result: a HoloViews object for the screen, or a matplotlib Figure for paper.

    Parameters
    ----------
    result
        What an analysis returned, a Dataset or a run (an overview of its maps), patterns (a sheet
        of samples), or any map, stack of maps or decoded pictures. Maps by name, such as the same
        latent of several scans, are shown side by side on one colour scale.
    backend
        "bokeh", for notebooks and pages; "matplotlib", in the style of `journal()`.
    kind
        Which view: a registered one, that of an installed package, a function `(result, **options)`
        or "package.module:Name" of your own. Default: by the attribute `kind` of the result, else
        by its names. The attribute never causes an import: a view of your own must be given here.
    **options
        Options of the view, such as `roi=` of a map.

    Raises
    ------
    UsageError
        For a result that no view shows, and for an option that the view does not have.
    """
    if backend not in ("bokeh", "matplotlib"):
        raise UsageError(f"backend is {backend!r}; use bokeh or matplotlib.")
    if not isinstance(result, xr.Dataset | xr.DataArray | Mapping):  # a run
        options = {"run": result.name} | options
        result = result.ds
    if not isinstance(result, xr.Dataset | xr.DataArray):
        shown = _side_by_side(result, kind, options)
    else:
        shown = _build(kind or kind_of(result), result, options)
    return on_paper(shown) if backend == "matplotlib" else shown


def _build(kind: str | Builder, result: xr.Dataset | xr.DataArray, options: dict[str, Any]) -> Any:
    """Call the builder of a kind. Raises UsageError, with the valid options, for one that it does
    not have.
    """
    build: Any = kind if callable(kind) else part("view", kind, KINDS, trust=[kind])
    if isinstance(build, tuple):
        build, required_names = build
        missing = required_names - _names_of(result)
        if missing and not required_names & ARRAY_SHAPES:
            raise UsageError(
                f"the view {kind!r} shows a result with {', '.join(sorted(missing))}; this one has none."
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
    maps: Mapping[str, xr.DataArray], kind: str | Builder | None, options: dict[str, Any]
) -> Any:
    if not maps:
        raise UsageError("no map is given; give maps by name, such as {'a': a.BC, 'b': b.BC}.")
    if not any(is_categorical(map_) for map_ in maps.values()):
        values = np.concatenate([np.ravel(map_.values) for map_ in maps.values()])
        options = {"clim": robust_limits(values)} | options
    views = [view(map_, kind=kind, title=name, **options) for name, map_ in maps.items()]
    return holoviews().Layout(views).opts(shared_axes=False)


def save(
    shown: Any,
    path: str | os.PathLike[str],
    *,
    heading: str = "",
    sentences: Sequence[str] = (),
    overwrite: bool = False,
    dpi: int = DPI,
    width: str = "double",
    **options: Any,
) -> Path:
    """Save a result or a view as .png, .pdf, .svg, or as an .html page that fetches nothing;
    returns the path.

    width: "single", "middle" or "double" column of a journal (89, 140, 183 mm), the most that a
    figure takes; dpi: of a .png. heading and sentences stand above the view in a page. `**options`
    are those of the result's builder. Raises UsageError for another ending, NoInputError where the
    folder is not there, ExistsError where the file is and `overwrite` is not set.
    """
    target = Path(path)
    check_new(target, overwrite)
    if isinstance(shown, xr.Dataset | xr.DataArray | Mapping):
        shown = view(shown, **options)
    if target.suffix.lower() != ".html":
        return write_new(target, file_of(on_paper(shown, width), target.suffix, dpi), overwrite)
    introduction = Section("view", heading)
    for sentence in sentences:
        introduction.say(sentence)
    show(introduction, shown, heading or target.stem)
    return write_new(target, page(heading or target.stem, introduction, []).encode(), overwrite)


def show(section: Section, shown: Any, alt: str) -> None:
    """Put a view into a section of a page: live by bokeh, a Figure as a picture."""
    if hasattr(shown, "savefig"):
        section.picture(shown, alt, dpi=PAGE_DPI)
    else:
        section.figure(bokeh_model(shown))


def bokeh_model(shown: Any) -> Any:
    """A HoloViews object as a bokeh model; of a HoloMap one for each key, of which a selector shows
    one.

    Only the frame that is shown is drawn, the others when they are chosen.
    """
    from bokeh.layouts import column
    from bokeh.models import CustomJS
    from bokeh.models.widgets import Select

    hv = holoviews()
    renderer = hv.renderer("bokeh")
    if not isinstance(shown, hv.HoloMap):
        return renderer.get_plot(shown).state
    names = [str(key) for (key,) in shown.data]
    frames = [renderer.get_plot(frame).state for frame in shown]
    for frame in frames[1:]:
        frame.visible = False
    select = Select(
        title=str(shown.kdims[0].label), value=names[0], options=list[Any](names), width=160
    )
    show_chosen = "frames.forEach((frame, i) => { frame.visible = names[i] === cb_obj.value; });"
    select.js_on_change(
        "value", CustomJS(args={"frames": frames, "names": names}, code=show_chosen)
    )
    return column(select, *frames)
