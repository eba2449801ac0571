"""One view per kind of result: the table of builders, `view` that finds one, `save` that writes what it shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config.parts import of_packages, part
from vaearr.errors import UsageError
from vaearr.schema import is_categorical
from vaearr.views.common import holoviews, robust_limits
from vaearr.views.page import Section, page
from vaearr.views.paper import DPI, check_new, file_of, on_paper, write_new

KIND = "kind"  # attribute of a result: which builder shows it
Builder = Callable[..., Any]
PAGE_DPI = 170
# builder of each kind, and the names (dims, coordinates, variables) by which a result without `kind` is known
KINDS: dict[str, tuple[Builder, frozenset[str]]] = {}


def builder(kind: str, *has: str) -> Callable[[Builder], Builder]:
    """Register a function `(result, **options)` as the one that shows results of a kind.

    It returns a HoloViews object (shown on the screen by bokeh, on paper by `vaearr.views.paper`) or, where pictures
    have to be set by hand, a matplotlib Figure that serves both. A result without the attribute `kind` belongs to the
    kind of which it has all names `has` (dims, coordinates, variables, attributes as "@name"; "map" is an array over
    two dims, "stack" one with a third), and of several to that with the most.
    """

    def register(build: Builder) -> Builder:
        KINDS[kind] = build, frozenset(has)
        return build

    return register


def kind_of(result: xr.Dataset | xr.DataArray) -> str:
    """The kind of a result, by its attribute `kind` or its names. Raises UsageError where nothing shows it."""
    given = str(result.attrs.get(KIND, ""))
    if given in KINDS or given in of_packages("view") or ":" in given:
        return given
    known = {str(name) for name in (*result.dims, *result.coords)} | {f"@{key}" for key in result.attrs}
    if isinstance(result, xr.Dataset):
        known |= set(map(str, result.data_vars))
    else:
        known |= {"array", str(result.name), str(result.name).partition("_")[2]}
        n_scan = sum(dim in n.SCAN_DIMS for dim in map(str, result.dims))
        known |= {"map"} if result.ndim == 2 else set()
        known |= {"stack"} if result.ndim == 3 and n_scan == 2 and n.CHANNEL not in result.dims else set()
    found = [(len(has), name) for name, (_, has) in KINDS.items() if has and has <= known]
    if not found:
        there = ", ".join(sorted(name for name in known if name[:1] != "@")) or "nothing in it"
        raise UsageError(f"no view shows a result with {there}; name one with kind=…: {', '.join(sorted(KINDS))}.")
    return max(found)[1]


def view(
    result: xr.Dataset | xr.DataArray | Mapping[str, xr.DataArray],
    backend: Literal["bokeh", "matplotlib"] = "bokeh",
    *,
    kind: str | None = None,
    **options: Any,
) -> Any:
    """Show a result: a HoloViews object for the screen, or a matplotlib Figure for paper.

    Parameters
    ----------
    result
        What an analysis returned, or any map, stack of maps or decoded pictures of a store. Maps by name, such as the
        same latent of several scans, stand side by side on one colour scale.
    backend
        "bokeh", for notebooks and pages; "matplotlib", in the style of `journal()`. Sheets of many decoded pictures,
        slices of volumes and the network are Figures in both.
    kind
        Which builder; by default that of the result's attribute `kind`, else by its dims and names.
    **options
        As of the builder, such as `roi=` of a map.
    """
    if backend not in ("bokeh", "matplotlib"):
        raise UsageError(f"backend is {backend!r}; use bokeh or matplotlib.")
    if not isinstance(result, xr.Dataset | xr.DataArray):
        shown = _side_by_side(result, kind, options)
    else:
        found = part("view", kind or kind_of(result), KINDS, trust=[kind or ""])
        shown = (found[0] if isinstance(found, tuple) else found)(result, **options)
    return on_paper(shown) if backend == "matplotlib" else shown


def _side_by_side(maps: Mapping[str, xr.DataArray], kind: str | None, options: dict[str, Any]) -> Any:
    if not maps:
        raise UsageError("no map is given; give maps by name, such as {'a': a.BC, 'b': b.BC}.")
    if not any(is_categorical(one) for one in maps.values()):
        every = np.concatenate([np.ravel(one.values) for one in maps.values()])
        options = {"clim": robust_limits(every)} | options
    shown = [view(one, kind=kind, title=name, **options) for name, one in maps.items()]
    return holoviews().Layout(shown).opts(shared_axes=False)


def save(
    shown: Any,
    path: str | os.PathLike[str],
    *,
    heading: str = "",
    sentences: Sequence[str] = (),
    overwrite: bool = False,
    dpi: int = DPI,
    **options: Any,
) -> Path:
    """Save a result or a view as .png, .pdf, .svg, or as an .html page that fetches nothing; returns the path.

    heading and sentences stand above the view in a page. `**options` are those of the result's builder. Raises
    UsageError for another ending, NoInputError where the folder is not there, ExistsError where the file is and
    `overwrite` is not set.
    """
    target = Path(path)
    check_new(target, overwrite)
    if isinstance(shown, xr.Dataset | xr.DataArray | Mapping):
        shown = view(shown, **options)
    if target.suffix.lower() != ".html":
        return write_new(target, file_of(on_paper(shown), target.suffix, dpi), overwrite)
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
    """A HoloViews object as a bokeh model; of a HoloMap one for each key, of which a selector shows one.

    Only the frame that is shown is drawn, the others when they are chosen.
    """
    from bokeh.layouts import column
    from bokeh.models.widgets import Select

    hv = holoviews()
    plots = (
        {", ".join(map(str, key)): frame for key, frame in shown.data.items()} if isinstance(shown, hv.HoloMap) else {}
    )
    frames = [hv.renderer("bokeh").get_plot(frame).state for frame in plots.values() or [shown]]
    if not plots:
        return frames[0]
    select = Select(title=str(shown.kdims[0].label), value=next(iter(plots)), options=list[Any](plots), width=160)
    for name, frame in zip(plots, frames, strict=True):
        frame.visible = name == select.value
        select.js_on_change("value", _choose(frame, name))
    return column(select, *frames)


def _choose(frame: Any, name: str) -> Any:
    from bokeh.models import CustomJS

    return CustomJS(args={"frame": frame, "name": name}, code="frame.visible = cb_obj.value === name;")
