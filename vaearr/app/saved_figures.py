"""Figures of a saved page, without any text of the store: the script fills them. And the page around them."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.embed import components
from bokeh.events import MouseLeave, MouseMove, Tap
from bokeh.models import BoxSelectTool, ColumnDataSource, CustomJS, LassoSelectTool, LinearColorMapper, Range1d
from bokeh.models.annotations import ColorBar
from bokeh.palettes import Viridis256
from bokeh.plotting import figure as new
from bokeh.settings import settings

from vaearr.app.figures import MARK
from vaearr.app.saved_style import STYLE, body
from vaearr.plots.common import NAN_COLOR

SIDE = 316  # pixels of a frame
POLICY = (  # nothing is fetched, whatever a library may want, and no other script than the page's own runs
    "default-src 'none'; script-src {} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; worker-src blob:; base-uri 'none'; form-action 'none'"
)
PLACE = (
    "document.dispatchEvent(new CustomEvent('place', {detail: "
    "{kind: cb_obj.event_name, name: cb_obj.origin.name, x: cb_obj.x, y: cb_obj.y}}));"
)


def figures(plan: dict[str, Any] | None) -> dict[str, Any]:
    """Bokeh models by their names: `map` where there is a plan of one, `plane`, `histogram`.

    Points of map and plane are one source, so that what is chosen in one is chosen in both.
    """
    columns = ("x", "y", "mx", "my", "value")
    points = ColumnDataSource({name: np.zeros(0, "f4") for name in columns}, name="points")
    mapper = LinearColorMapper(palette=list(Viridis256), low=0, high=1, nan_color=NAN_COLOR, name="colors")
    mark = ColumnDataSource({name: [] for name in ("x", "y", "mx", "my")}, name="mark")
    found = {} if plan is None else {"map": _map(plan, points, mapper, mark)}
    found["plane"] = _plane(points, mapper, mark, has_bar=plan is None)
    found["histogram"] = _histogram()
    return found


def _map(plan: dict[str, Any], points: Any, mapper: Any, mark: Any) -> Any:
    width, height = plan["columns"] * plan["dx"], plan["rows"] * plan["dy"]
    scale = min(SIDE / width, SIDE / height)
    figure = _selectable(
        "map", (plan["x0"], plan["x0"] + width), (plan["y0"] + height, plan["y0"]),
        max(60, int(width * scale)), max(60, int(height * scale)),
    )  # fmt: skip
    tall, wide = plan["down"] * plan["factor"] * plan["dy"], plan["wide"] * plan["factor"] * plan["dx"]
    empty = np.full((plan["down"], plan["wide"]), np.nan, "f4")
    cells = ColumnDataSource(
        {"image": [empty], "x": [plan["x0"]], "y": [plan["y0"]], "dw": [wide], "dh": [tall]}, name="cells"
    )
    figure.image("image", "x", "y", "dw", "dh", source=cells, color_mapper=mapper)
    cell = max(1.0, 0.6 * plan["apart"])  # of drawn points the size that lets them be seen
    shown = figure.rect(
        "mx", "my", cell * plan["dx"], cell * plan["dy"], source=points, fill_alpha=0, line_alpha=0, fill_color=MARK
    )
    shown.selection_glyph = shown.glyph.clone(fill_alpha=0.6)
    shown.nonselection_glyph = shown.glyph.clone()
    _chosen_by(figure, figure.scatter("mx", "my", source=points, size=4, alpha=0, nonselection_alpha=0))
    figure.scatter("mx", "my", source=mark, size=16, marker="circle_cross", fill_alpha=0, line_color=MARK, line_width=2)
    return _barred(figure, mapper)


def _plane(points: Any, mapper: Any, mark: Any, *, has_bar: bool) -> Any:
    figure = _selectable("plane", (0, 1), (0, 1), SIDE, SIDE, has_bar=has_bar)
    color: Any = {"field": "value", "transform": mapper}
    drawn = figure.scatter(
        "x", "y", source=points, size=5, fill_color=color, line_color=None, fill_alpha=0.8,
        nonselection_fill_alpha=0.15, nonselection_line_color=None,
    )  # fmt: skip
    _chosen_by(figure, drawn)
    figure.scatter("x", "y", source=mark, size=14, marker="circle", fill_alpha=0, line_color=MARK, line_width=2.5)
    return _barred(figure, mapper) if has_bar else figure


def _histogram() -> Any:
    shown: Any = new(
        name="histogram", frame_width=SIDE, frame_height=150, tools="", toolbar_location=None,
        border_fill_color=None, background_fill_color=None, x_range=Range1d(start=0, end=1),
        y_range=Range1d(start=0, end=1), y_axis_label="% of the points", title=" ",
    )  # fmt: skip
    bars = ColumnDataSource({key: [] for key in ("left", "right", "every", "some")}, name="bars")
    shown.quad("left", "right", "every", 0, source=bars, fill_color="#9aa4ad", line_color=None, fill_alpha=0.75)
    shown.quad("left", "right", "some", 0, source=bars, fill_color=MARK, fill_alpha=0.35, line_color=MARK)
    return shown


def _selectable(
    name: str, x: tuple[float, float], y: tuple[float, float], width: int, height: int, *, has_bar: bool = True
) -> Any:
    shown: Any = new(
        name=name, frame_width=width, frame_height=height, x_range=Range1d(start=x[0], end=x[1]),
        y_range=Range1d(start=y[0], end=y[1]), title=" ", border_fill_color=None, background_fill_color=None,
        tools="pan,wheel_zoom,reset,save", active_scroll="wheel_zoom", toolbar_location="above", x_axis_label=" ",
        y_axis_label=" ", min_border_left=50, min_border_right=66 if has_bar else 12,
    )  # fmt: skip
    box = BoxSelectTool()
    shown.add_tools(box, LassoSelectTool(continuous=False))
    shown.toolbar.active_drag = box
    shown.toolbar.logo = None
    shown.grid.grid_line_alpha = 0.3 if name == "plane" else 0
    for event in (Tap, MouseMove, MouseLeave):
        shown.js_on_event(event, CustomJS(code=PLACE))
    return shown


def _chosen_by(figure: Any, renderer: Any) -> None:
    for tool in figure.select({"type": BoxSelectTool}):
        tool.renderers = [renderer]
    for tool in figure.select({"type": LassoSelectTool}):
        tool.renderers = [renderer]


def _barred(figure: Any, mapper: Any) -> Any:
    figure.add_layout(ColorBar(color_mapper=mapper, width=10, padding=4, background_fill_alpha=0, name="bar"), "right")
    return figure


def library() -> str:
    """BokehJS itself, without parts that this page does not use."""
    path = Path(settings.bokehjs_path()) / "js" / "bokeh.min.js"
    return path.read_text(encoding="utf-8").replace("</script", "<\\/script")


def embedded(models: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Script and places of models in a page."""
    script, places = components(models, wrap_script=False)
    return script, dict(places)


def as_script(data: Any) -> str:
    """JSON that is safe within a script element, whatever texts it holds."""
    plain = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        plain = plain.replace(sign, f"\\u{ord(sign):04x}")
    return plain


def safe(text: str) -> str:
    """Text that HTML shows as it is."""
    return html.escape(text.replace("\x00", ""), quote=True)


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')}'"


def page(heading: str, facts: list[str], data: str, places: dict[str, str], scripts: dict[str, str]) -> str:
    """The page as text; it loads nothing. scripts: after the library, by the ids of their elements."""
    own = library()
    policy = POLICY.format(" ".join(map(_hash, (own, *scripts.values()))))
    elements = "\n".join(f'<script id="{name}">{script}</script>' for name, script in scripts.items())
    lines = "".join(f"<p>{safe(fact)}</p>" for fact in facts[1:])
    panels = body("scan" if "map" in places else "collection")
    for name, place in places.items():
        panels = panels.replace(f"\x00{name}\x00", place)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{safe(heading)}</title>\n<style>{STYLE}</style>\n<script>{own}</script>\n</head>\n<body>\n"
        f'<header><h1>{safe(heading)}</h1><button id="theme" type="button">dark</button><span class="note">'
        f"{safe(facts[0])}</span><details><summary>about this page</summary>{lines}</details></header>\n{panels}\n"
        f'<script type="application/json" id="data">{data}</script>\n{elements}\n</body>\n</html>\n'
    )
