"""A view saved as one HTML page that works offline: BokehJS within, HoloMaps with a selector that needs no server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.plots.common import holoviews

_CHOOSE = "frames.forEach((frame, i) => { frame.visible = String(i) === select.value; });"


def bokeh_model(view: Any) -> Any:
    """A HoloViews object as a bokeh model; of a HoloMap one for each key, of which a selector shows one.

    Only the frame that is shown is drawn, the others when they are chosen.
    """
    hv = holoviews()
    renderer = hv.renderer("bokeh")
    if not isinstance(view, hv.HoloMap):
        return renderer.get_plot(view).state
    from bokeh.layouts import column
    from bokeh.models import CustomJS
    from bokeh.models.widgets import Select

    frames = [renderer.get_plot(frame).state for frame in view.data.values()]
    for frame in frames[1:]:
        frame.visible = False
    names = [", ".join(str(part) for part in key) for key in view.data]
    options: list[Any] = [(str(i), name) for i, name in enumerate(names)]
    select = Select(title=", ".join(str(d.label) for d in view.kdims), value="0", options=options, width=160)
    select.js_on_change("value", CustomJS(args={"frames": frames, "select": select}, code=_CHOOSE))
    return column(select, *frames)


def save_view(
    view: Any, path: str | Path, *, heading: str = "", sentences: Sequence[str] = (), overwrite: bool = False
) -> Path:
    """Save a HoloViews object as an HTML page that fetches nothing; returns the path. A table becomes one of the page.

    heading and sentences stand above the view. Raises UsageError for another ending than .html, NoInputError where the
    folder is not there, ExistsError where the file is and `overwrite` is not set.
    """
    from vaearr.plots.page import Section, page

    target = Path(path)
    if target.suffix.lower() != ".html":
        raise UsageError(f"{target.name!r} is not a name of a page; let it end in .html.")
    if not target.parent.is_dir():
        raise NoInputError(f"there is no folder {target.parent}; make it first.")
    if target.exists() and not overwrite:
        raise ExistsError(f"{target} is there already; give another name, or overwrite=True.")
    introduction = Section("view", heading)
    for sentence in sentences:
        introduction.say(sentence)
    if isinstance(view, holoviews().Table):
        names = [str(d) for d in view.dimensions()]
        introduction.table(names, list(zip(*(view[name].tolist() for name in names), strict=True)))
    else:
        introduction.figure(bokeh_model(view))
    part = target.with_name(f".{target.name}.part")
    try:
        part.write_text(page(heading or target.stem, introduction, []), encoding="utf-8")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target
