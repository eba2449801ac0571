"""One view per kind of result: the table of builders, `view` that finds one, `save` that writes what it shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from vaearr import names as n
from vaearr.errors import UsageError, did_you_mean
from vaearr.views.common import holoviews
from vaearr.views.page import Section, page
from vaearr.views.paper import DPI, new_file, on_paper, save_figure

KIND = "kind"  # attribute of a result: which builder shows it
Builder = Callable[..., Any]
_CHOOSE = "frames.forEach((frame, i) => { frame.visible = String(i) === select.value; });"
PAGE_DPI = 170


@dataclass(frozen=True)
class Kind:
    """A builder and the names (dims, coordinates, variables) by which a result without `kind` is known."""

    build: Builder
    has: frozenset[str]


KINDS: dict[str, Kind] = {}


def builder(kind: str, *has: str) -> Callable[[Builder], Builder]:
    """Register a function `(result, **options)` as the one that shows results of a kind.

    It returns a HoloViews object (shown on the screen by bokeh, on paper by `vaearr.views.paper`) or, where pictures
    have to be set by hand, a matplotlib Figure that serves both. A result without the attribute `kind` belongs to the
    kind of which it has all names `has` (dims, coordinates, variables, attributes as "@name"; "map" is an array over
    two dims, "stack" one with a third), and of several to that with the most.
    """

    def register(build: Builder) -> Builder:
        KINDS[kind] = Kind(build, frozenset(has))
        return build

    return register


def kind_of(result: xr.Dataset | xr.DataArray) -> str:
    """The kind of a result, by its attribute `kind` or its names. Raises UsageError where nothing shows it."""
    given = str(result.attrs.get(KIND, ""))
    if given in KINDS:
        return given
    known = {str(name) for name in (*result.dims, *result.coords)}
    known |= {str(result.name)} if isinstance(result, xr.DataArray) else {str(name) for name in result.data_vars}
    known |= {f"@{key}" for key in result.attrs}
    if isinstance(result, xr.DataArray):
        known |= (
            {"array", str(result.name).partition("_")[2]}
            | ({"map"} if result.ndim == 2 else set())
            | ({"stack"} if _is_stack(result) else set())
        )
    found = [(len(kind.has), name) for name, kind in KINDS.items() if kind.has and kind.has <= known]
    if not found:
        there = ", ".join(sorted(name for name in known if name[0] != "@")) or "nothing in it"
        raise UsageError(f"no view shows a result with {there}; name one with kind=…: {', '.join(sorted(KINDS))}.")
    return max(found)[1]


def _is_stack(da: xr.DataArray) -> bool:
    return da.ndim == 3 and sum(dim in n.SCAN_DIMS for dim in map(str, da.dims)) == 2 and n.CHANNEL not in da.dims


def view(
    result: xr.Dataset | xr.DataArray,
    backend: Literal["bokeh", "matplotlib"] = "bokeh",
    *,
    kind: str | None = None,
    **options: Any,
) -> Any:
    """Show a result: a HoloViews object for the screen, or a matplotlib Figure for paper.

    Parameters
    ----------
    result
        What an analysis returned, or any map, stack of maps or decoded pictures of a store.
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
    name = kind or kind_of(result)
    if name not in KINDS:
        raise UsageError(f"there is no kind of view {name!r}.{did_you_mean(name, sorted(KINDS))}")
    shown = KINDS[name].build(result, **options)
    return on_paper(shown) if backend == "matplotlib" else shown


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
    if target.suffix.lower() != ".html":
        if isinstance(shown, xr.Dataset | xr.DataArray):
            shown = view(shown, "matplotlib", **options)
        return save_figure(on_paper(shown), target, dpi, overwrite=overwrite)
    with new_file(target, overwrite=overwrite) as part:
        if isinstance(shown, xr.Dataset | xr.DataArray):
            shown = view(shown, **options)
        introduction = Section("view", heading)
        for sentence in sentences:
            introduction.say(sentence)
        show(introduction, shown, heading or target.stem)
        part.write_text(page(heading or target.stem, introduction, []), encoding="utf-8")
    return target


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
    hv = holoviews()
    renderer = hv.renderer("bokeh")
    if not isinstance(shown, hv.HoloMap):
        return renderer.get_plot(shown).state
    from bokeh.layouts import column
    from bokeh.models import CustomJS
    from bokeh.models.widgets import Select

    frames = [renderer.get_plot(frame).state for frame in shown.data.values()]
    for frame in frames[1:]:
        frame.visible = False
    names = [", ".join(str(part) for part in key) for key in shown.data]
    choices: list[Any] = [(str(i), name) for i, name in enumerate(names)]
    select = Select(title=", ".join(str(d.label) for d in shown.kdims), value="0", options=choices, width=160)
    select.js_on_change("value", CustomJS(args={"frames": frames, "select": select}, code=_CHOOSE))
    return column(select, *frames)
