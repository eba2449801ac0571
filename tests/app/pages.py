"""The page served in a thread, and what tests look at and press in it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.contract.browser import Page
from vaearr.app.serve import address, serve
from vaearr.app.state import open_state

LOADED = """!!(window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle
  && window.deep && deep((e) => e.tagName === "CANVAS" && e.shown).length)"""
# place in the window of a point of a figure's data space
PLACE = """(() => {
  const find = (views) => { for (const v of views) {
    if (v.model.type === "Figure" && v.model.name === %s) return v;
    const inner = find(v.child_views ?? v.children?.() ?? []); if (inner) return inner; } };
  const view = find(Array.from(Bokeh.index));
  const box = view.canvas_view.el.getBoundingClientRect();
  const [x, y] = [view.frame.x_scale.compute(%f), view.frame.y_scale.compute(%f)];
  return [box.left + x, box.top + y];
})()"""
FIGURE = "[...Bokeh.documents[0]._all_models.values()].find((m) => m.type === 'Figure' && m.name === %s)"


@contextmanager
def served(store: Path, run: str = "vae") -> Iterator[str]:
    """The page's address; the server runs in a thread."""
    ready, found = threading.Event(), dict[str, Any]()

    def work() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        found["server"] = server = serve(open_state(store, run))
        server.io_loop.add_callback(ready.set)
        server.io_loop.start()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(60)
    server = found["server"]
    yield address(server, "127.0.0.1")
    server.io_loop.add_callback(server.io_loop.stop)
    thread.join(20)


def opened(page: Page, url: str, *, decodes: bool = True) -> None:
    """Open the page and wait until it is drawn, and where it decodes until that is."""
    page.errors.clear()
    page.requests.clear()
    page.go(url)
    page.until(f"location.href.startsWith({json.dumps(url)}) && {LOADED}")
    if decodes:
        page.until(f"{canvas('from the sliders')}?.shown")


def canvas(heading: str) -> str:
    """Script of the canvas of a picture."""
    return f'deep((e) => e.tagName === "CANVAS" && e.getAttribute("aria-label") === {json.dumps(heading)})[0]'


def picture(page: Page, heading: str) -> np.ndarray | None:
    """Values of the picture with a heading, `(H, W[, 3])`; None where none is shown."""
    found = page.run(
        f"(({{shown}}) => shown && {{...shown, values: Array.from(shown.values, String)}})({canvas(heading)})"
    )
    if not found:
        return None
    shape = (found["height"], found["width"], found["channels"])
    values = np.array(found["values"], float).reshape(shape)
    return values[..., 0] if shape[2] == 1 else values


def source(page: Page, figure: str, number: int) -> dict[str, np.ndarray]:
    """Columns of the data source of a figure's glyph; of an image its values in a row."""
    found = page.run(
        f"""(() => {{ const data = {FIGURE % json.dumps(figure)}.renderers[{number}].data_source.data;
        const get = (name) => data.get ? data.get(name) : data[name];
        const names = data.keys ? [...data.keys()] : Object.keys(data);
        return Object.fromEntries(names.map((name) => [name,
          Array.from(get(name), (v) => typeof v === "number" ? v : Array.from(v.array ?? v).flat())])); }})()"""
    )
    return {name: np.array(values, float) for name, values in found.items()}


def names(page: Page, figure: str) -> list[str]:
    """Names under the columns of a sheet, once it is there."""
    axis = f"{FIGURE % json.dumps(figure)}?.below[0].major_label_overrides"
    page.until(f"{axis}?.size")
    return [str(name) for name in page.run(f"[...{axis}.values()]")]


def title(page: Page, figure: str) -> str:
    """Title of a figure."""
    return str(page.run(f"{FIGURE % json.dumps(figure)}.title.text"))


def place(page: Page, figure: str, x: float, y: float) -> tuple[float, float]:
    """Where in the window a point of a figure lies."""
    across, down = page.run(PLACE % (json.dumps(figure), x, y))
    return across, down


def at(page: Page, test: str, number: int = 0) -> tuple[float, float]:
    """The middle in the window of an element, of all that pass a test of `e` the one of this number."""
    page.until(f"deep((e) => {test}).length > {number}")
    x, y = page.run(
        f"""(() => {{ const e = deep((e) => {test})[{number}]; e.scrollIntoView({{block: "nearest"}});
        const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; }})()"""
    )
    return x, y


def press(page: Page, words: str) -> None:
    """Click the button with these words."""
    page.click(*at(page, f'e.tagName === "BUTTON" && e.textContent.trim() === {json.dumps(words)}'))


def tool(page: Page, figure: str, words: str) -> None:
    """Click a figure's tool by its title."""
    number = ["map", "plane"].index(figure)
    page.click(*at(page, f'e.title === {json.dumps(words)} && e.className.includes("OnOffButton")', number))


def slider(dim: int) -> str:
    """Test of the slider of a dimension."""
    return f'e.tagName === "INPUT" && e.getAttribute("aria-label") === "latent {dim}"'


def field(page: Page, name: str) -> Any:
    """Value of the widget with a name."""
    return page.run(value(name))


def value(name: str) -> str:
    """Script of the value of the widget with a name."""
    return f"[...Bokeh.documents[0]._all_models.values()].find((m) => m.title === {json.dumps(name)}).value"


def said(page: Page) -> str:
    """What the page says beside what is chosen."""
    return str(page.run('deep((e) => e.id === "said").map((e) => e.textContent).join(" ")'))


def outside(page: Page, url: str) -> list[str]:
    """Requests to anywhere else than the page's own server."""
    known = (url, url.replace("http", "ws"), "data:", "about:", "blob:")
    return [u for u in page.requests if not u.startswith(known)]


def widest(latents: np.ndarray) -> list[int]:
    """The two latent dimensions that a plane begins with, `(…, L)`."""
    flat = latents.reshape(-1, latents.shape[-1])
    return [int(i) for i in np.argsort(-flat[np.isfinite(flat).all(1)].std(0), kind="stable")[:2]]
