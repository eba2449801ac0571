"""The served page in a real browser: a click shows the stored pattern, a slider changes what is decoded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.app.browser import CHROMIUM, Page, browser
from vaearr.app.serve import address, serve
from vaearr.app.state import open_state
from vaearr.store import open_store

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
    pytest.mark.filterwarnings("default"),  # of the libraries that serve the page
]

LOADED = "!!(window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].roots().length && Bokeh.documents[0].is_idle)"
# values that a figure shows, by its title
SHOWN = """(() => {
  for (const m of Bokeh.documents[0]._all_models.values())
    if (m.type === "Figure" && m.title.text === "%s") {
      const image = m.renderers[0].data_source.data.image[0];
      return {values: Array.from(image.array ?? image).flat(), shape: image.shape};
    }
})()"""
# place in the window of a point of a figure's data space
PLACE = """(() => {
  const find = (views) => { for (const v of views) {
    if (v.model.type === "Figure" && v.model.name === "%s") return v;
    const inner = find(v.child_views ?? v.children?.() ?? []); if (inner) return inner; } };
  const view = find(Array.from(Bokeh.index));
  const box = view.canvas_view.el.getBoundingClientRect();
  const [x, y] = [view.frame.x_scale.compute(%f), view.frame.y_scale.compute(%f)];
  return [box.left + x, box.top + y];
})()"""


@pytest.fixture(scope="module")
def served(trained_template: Path) -> Iterator[str]:
    """The page's address; the server runs in a thread."""
    ready, found = threading.Event(), dict[str, Any]()

    def work() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        found["server"] = server = serve(open_state(trained_template))
        server.io_loop.add_callback(ready.set)
        server.io_loop.start()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(60)
    server = found["server"]
    yield address(server, "127.0.0.1")
    server.io_loop.add_callback(server.io_loop.stop)
    thread.join(20)


def values(page: Page, heading: str) -> np.ndarray:
    found = page.run(SHOWN % heading)
    return np.array(found["values"], float).reshape(found["shape"])


def widget(page: Page, name: str) -> str:
    """Script of the model of a widget with a title."""
    return f"[...Bokeh.documents[0]._all_models.values()].find((m) => m.title === '{name}')"


def test_page_shows_what_the_store_holds(served: str, trained_template: Path, tmp_path: Path) -> None:
    ds = open_store(trained_template)
    with browser(tmp_path / "profile") as page:
        page.go(served)
        page.until(LOADED)
        page.until(f"(() => {{ const f = {SHOWN % 'from the sliders'}; return f && f.values.length > 1; }})()")
        x, y = page.run(PLACE % ("map", float(ds["x"][9]), float(ds["y"][13])))
        page.click(x, y)
        page.until(f"{widget(page, 'x (position)')}.value === 9 && {widget(page, 'y (position)')}.value === 13")
        np.testing.assert_array_equal(values(page, "as stored"), ds["patterns"].values[13, 9])
        np.testing.assert_allclose(values(page, "from the sliders"), values(page, "reconstruction"), atol=1e-4)
        before = values(page, "from the sliders")
        page.run(f"{widget(page, 'latent 1')}.value = {widget(page, 'latent 1')}.end")
        page.until(f"{SHOWN % 'from the sliders'}.values[20] !== {before.ravel()[20]}")
        assert np.abs(values(page, "from the sliders") - values(page, "reconstruction")).max() > 1e-3
        page.run(f"{widget(page, 'Show')}.value = 'latent 2'")
        page.until("!![...Bokeh.documents[0]._all_models.values()].find((m) => m.title?.text === 'latent 2')")
        assert not page.errors
        outside = [
            u
            for u in page.requests
            if not u.startswith((served, served.replace("http", "ws"), "data:", "about:", "blob:"))
        ]
        assert not outside
        assert page.run("document.documentElement.scrollHeight <= 768 && document.documentElement.scrollWidth <= 1366")


def test_dark_page(served: str, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as page:
        page.go(f"{served}?theme=dark")
        page.until(LOADED)
        shade = page.run("getComputedStyle(document.body).backgroundColor")
        assert max(int(v) for v in shade.split("(")[1].split(")")[0].split(",")[:3]) < 80
        assert not page.errors
