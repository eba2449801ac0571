"""The served page of a scan in a real browser, driven by mouse and keys and compared with the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.app import pages as p
from tests.contract.browser import CHROMIUM, Page, browser
from vaearr.app import decoding
from vaearr.app.state import as_pictures, open_state
from vaearr.association.stored import associate_store
from vaearr.store import open_store

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
    pytest.mark.filterwarnings("default"),  # of the libraries that serve the page
]


@pytest.fixture(scope="module")
def store(trained_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained scan with a table of associations."""
    import shutil

    path = Path(shutil.copytree(trained_template, tmp_path_factory.mktemp("app") / "scan.zarr"))
    associate_store(path)
    return path


@pytest.fixture(scope="module")
def ds(store: Path) -> xr.Dataset:
    return open_store(store, chunks=None).load()


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    with p.served(store) as found:
        yield found


@pytest.fixture(scope="module")
def window(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        p.opened(page, url)
        yield page


@pytest.fixture
def page(window: Page, url: str) -> Iterator[Page]:
    """The page as the test before left it; it never asks anybody else for anything and logs no error."""
    yield window
    assert window.errors == []
    assert p.outside(window, url) == []


def click_map(page: Page, ds: xr.Dataset, row: int, column: int) -> None:
    page.click(*p.place(page, "map", float(ds["x"][column]), float(ds["y"][row])))
    page.until(f"{p.value('x (position)')} === {column} && {p.value('y (position)')} === {row}")


def test_states_what_it_shows(page: Page) -> None:
    words = page.run("document.querySelector('header').textContent")
    assert "scan.zarr, run 'vae': 40 × 35 scan points of 9 × 11, 3 latent dimensions (weights " in words
    assert page.run("document.documentElement.scrollHeight <= 768 && document.documentElement.scrollWidth <= 1366")


def test_a_click_shows_the_stored_pattern(page: Page, ds: xr.Dataset) -> None:
    click_map(page, ds, 13, 9)
    np.testing.assert_array_equal(p.picture(page, "as stored"), ds["patterns"].values[13, 9])
    np.testing.assert_allclose(p.picture(page, "from the sliders"), p.picture(page, "reconstruction"), atol=1e-4)
    shown = page.run(f"deep((e) => {p.slider(1)})[0].value")
    assert float(shown) == pytest.approx(float(ds["latents"][13, 9, 1]), abs=0.05)
    np.testing.assert_allclose(p.source(page, "map", 3)["x"], float(ds["x"][9]))
    np.testing.assert_allclose(p.source(page, "plane", 2)["x"], ds["latents"].values[13, 9, 0], rtol=1e-5)


def test_the_map_shows_the_chosen_dimension(page: Page, ds: xr.Dataset) -> None:
    np.testing.assert_array_equal(p.source(page, "map", 0)["image"][0], ds["latents"].values[..., 0].ravel())
    page.click(*p.at(page, 'e.tagName === "BUTTON" && e.title === "show latent 2 in the map"'))
    page.until(f"{p.value('Show')} === 'latent:2'")
    page.until(f"{p.FIGURE % json.dumps('map')}.title.text === 'latent 2'")
    np.testing.assert_array_equal(p.source(page, "map", 0)["image"][0], ds["latents"].values[..., 2].ravel())
    assert p.title(page, "plane") == "coloured by latent 2"


def test_a_slider_changes_what_is_decoded(page: Page, ds: xr.Dataset) -> None:
    click_map(page, ds, 13, 9)
    x, y = p.at(page, p.slider(1))
    before = p.picture(page, "from the sliders")
    page.run("window.was = " + p.canvas("from the sliders") + ".shown.at")
    page.drag((x, y), (x + 45, y), steps=30)
    page.until(f"{p.canvas('from the sliders')}.shown.at > was")
    moved = p.picture(page, "from the sliders")
    assert np.abs(moved - before).max() > 1e-3
    np.testing.assert_allclose(p.picture(page, "reconstruction"), before, atol=1e-4)
    page.until(f"+deep((e) => {p.slider(1)})[0].value !== {float(ds['latents'][13, 9, 1])}")
    p.press(page, "Back to the sample")
    page.until(f"Math.abs({p.canvas('from the sliders')}.shown.values[0] - {before.ravel()[0]}) < 1e-4")


def test_a_fast_drag_never_queues(page: Page, ds: xr.Dataset, store: Path) -> None:
    click_map(page, ds, 20, 12)
    click_map(page, ds, 13, 9)
    answered = "[...Bokeh.documents[0]._all_models.values()].find((m) => m.class_name === 'Sliders').data.answered"
    before = page.run(answered)
    last = page.run(
        f"""(() => {{ const input = deep((e) => {p.slider(0)})[0];
        for (let i = 0; i <= 100; i++) {{
          input.value = +input.min + (input.max - input.min) * i / 100;
          input.dispatchEvent(new Event("input"));
        }}
        return +input.value; }})()"""
    )
    page.until(f"{answered} === {before + 2}")  # the first, and what had come of it when that was answered
    vector = ds["latents"].values[13, 9].astype(float)
    vector[0] = last
    state = open_state(store)
    expected = as_pictures(decoding.decode(state, vector[None]))[0]
    np.testing.assert_allclose(p.picture(page, "from the sliders"), expected, atol=1e-4)
    assert page.run(answered) == before + 2


def test_a_brush_on_the_map_is_seen_in_the_plane(page: Page, ds: xr.Dataset) -> None:
    start, end = ((float(ds["x"][c]), float(ds["y"][r])) for r, c in ((10, 5), (12, 8)))
    page.drag(p.place(page, "map", *start), p.place(page, "map", *end))
    page.until("deep((e) => e.tagName === 'B').some((e) => e.textContent.startsWith('mean of'))")
    part = {"y": slice(10, 13), "x": slice(5, 9)}
    latents = ds["latents"].isel(part).values.reshape(-1, 3)
    known = np.isfinite(latents).all(1)
    assert f"mean of {known.sum()} scan points" in page.run("deep((e) => e.tagName === 'B').at(-1).textContent")
    patterns = ds["patterns"].isel(part).values.reshape(-1, 9, 11)[known]
    np.testing.assert_allclose(p.picture(page, "as stored"), patterns.astype("f4").mean(0), rtol=1e-5)
    marked = p.source(page, "plane", 2)
    np.testing.assert_allclose(sorted(marked["x"]), np.sort(latents[known, 0]), rtol=1e-5)
    assert p.picture(page, "reconstruction") is not None
    p.press(page, "Samples")
    page.until("deep((e) => e.textContent.endsWith('chosen, evenly spread')).length")
    assert p.names(page, "samples 0")[0] == f"({float(ds['y'][10]):g}, {float(ds['x'][5]):g})"


def test_a_brush_on_the_plane_is_seen_in_the_map(page: Page, ds: xr.Dataset) -> None:
    click_map(page, ds, 13, 9)
    latents = ds["latents"].values.reshape(-1, 3)
    shown = latents[:, p.widest(latents)]
    low, high = np.nanpercentile(shown, 30, axis=0), np.nanpercentile(shown, 70, axis=0)
    page.drag(p.place(page, "plane", *low), p.place(page, "plane", *high), steps=60)
    page.until("deep((e) => e.tagName === 'B').some((e) => e.textContent.startsWith('mean of'))")
    shade = p.source(page, "map", 1)["image"][0] > 0
    inside = ((shown >= low) & (shown <= high)).all(1)
    assert (shade == inside).mean() > 0.97  # to a pixel of the screen
    assert shade.sum() > 20


def test_an_outline_chooses_what_lies_in_it(page: Page, ds: xr.Dataset) -> None:
    click_map(page, ds, 13, 9)
    p.tool(page, "map", "Lasso Select")
    corners = [(5, 10), (17, 10), (17, 16), (5, 10)]  # columns and rows: half of a rectangle
    places = [p.place(page, "map", float(ds["x"][c]), float(ds["y"][r])) for c, r in corners]
    steps = np.linspace(0, 1, 12)
    path = [tuple(np.add(a, np.subtract(b, a) * t)) for a, b in pairwise(places) for t in steps]
    try:
        page.trace(path)
        page.until("deep((e) => e.tagName === 'B').some((e) => e.textContent.startsWith('mean of'))")
    finally:
        p.tool(page, "map", "Box Select")
    shade = p.source(page, "map", 1)["image"][0].reshape(ds.sizes["y"], ds.sizes["x"]) > 0
    rows, columns = np.nonzero(shade)
    assert rows.min() >= 10
    assert rows.max() <= 16
    assert columns.min() >= 5
    assert columns.max() <= 17
    assert shade[12, 15]
    assert not shade[15, 7]
    assert shade.sum() == pytest.approx(12 * 6 / 2, abs=10)  # the edge runs through the middles of points


def test_the_pointer_shows_what_it_rests_at(page: Page, ds: xr.Dataset) -> None:
    click_map(page, ds, 20, 12)
    for column in range(5, 10):
        page.hover(*p.place(page, "map", float(ds["x"][column]), float(ds["y"][13])))
    words = "deep((e) => e.className === 'words')[0].textContent"
    page.until(f"{words} === 'y = 6.5 µm, x = 4.5 µm'")
    np.testing.assert_array_equal(p.picture(page, "pointer: stored"), ds["patterns"].values[13, 9])
    decoded = p.picture(page, "pointer: decoded")
    assert p.field(page, "x (position)") == 12  # nothing was chosen
    latents = ds["latents"].values.reshape(-1, 3)
    page.hover(*p.place(page, "plane", *np.nanmedian(latents[:, :2], axis=0)))
    page.until(f"{words} && {words} !== 'y = 6.5 µm, x = 4.5 µm'")
    page.hover(900, 20)
    page.until(f"{words} === '' && !{p.canvas('pointer: stored')}.shown")
    click_map(page, ds, 13, 9)
    np.testing.assert_allclose(p.picture(page, "reconstruction"), decoded, atol=1e-4)


def test_views_are_drawn(page: Page) -> None:
    p.press(page, "Traversal")
    assert len(p.names(page, "traversal")) == 9
    image = p.source(page, "traversal", 0)["image"][0]
    assert image.size == 3 * 11 * 9 * 13
    p.press(page, "Manifold")
    assert len(p.names(page, "manifold")) == 9
    assert len(p.source(page, "manifold", 0)["image"][0]) == 9 * 11 * 9 * 13
    p.press(page, "Sliders")
    page.until(f"deep((e) => {p.slider(0)}).length")


def test_the_ranking_leads_to_the_map(page: Page, ds: xr.Dataset) -> None:
    p.press(page, "Association")
    test = 'e.tagName === "OPTION" && e.textContent.startsWith("latent") && e.parentElement.size > 1'
    page.until(f"deep((e) => {test}).length === 3")
    dims = [int(w.split()[1].rstrip(":")) for w in page.run(f"deep((e) => {test}).map((e) => e.textContent)")]
    page.click(*p.at(page, test, 1))
    page.until(f"{p.value('Show')} === 'latent:{dims[1]}'")
    page.until(f"{p.FIGURE % json.dumps('ranked')}.title.text === 'latent {dims[1]}'")
    np.testing.assert_array_equal(p.source(page, "target", 0)["image"][0], ds["BC"].values.ravel())
    assert f"latent {dims[1]} " in p.said(page)
    assert "BC" in p.said(page)


def test_keys_alone_reach_everything(page: Page) -> None:
    focus = """(() => {
      let e = document.activeElement;
      while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
      return [e.tagName, e.id, e.getAttribute("aria-label") ?? "", e.textContent.trim().slice(0, 20)].join("|");
    })()"""
    p.press(page, "Sliders")
    page.run("document.getElementById('theme').focus()")
    seen = []
    for _ in range(120):
        page.key("Tab")
        seen.append(page.run(focus))
        if seen[-1].startswith("DIV|walk|"):
            before = p.field(page, "x (position)"), p.field(page, "y (position)")
            page.key("ArrowRight")
            page.key("ArrowDown")
            page.until(f"{p.value('y (position)')} === {before[1] + 1}")
            assert p.field(page, "x (position)") == before[0] + 1
        if seen[-1].startswith("INPUT||latent 0"):
            was = page.run(f"{p.canvas('from the sliders')}.shown.at")
            page.key("ArrowRight")
            page.until(f"{p.canvas('from the sliders')}.shown.at > {was}")
        if seen[-1].startswith("INPUT||latent 2"):
            break
        if seen[-1].startswith("BUTTON|||Samples"):
            page.key("Enter")
            page.until(f"{p.FIGURE % json.dumps('samples 0')}?.below[0].major_label_overrides.size")
            page.run("deep((e) => e.tagName === 'BUTTON' && e.textContent === 'Sliders')[0].focus()")
            page.key("Enter")
            page.until(f"deep((e) => {p.slider(0)}).length")
            page.run("deep((e) => e.tagName === 'BUTTON' && e.textContent === 'Association')[0].focus()")
    order = ["SELECT|", "DIV|walk", "BUTTON|||Sliders", "BUTTON|||Back to the sample", "INPUT||latent 0"]
    where = [next((i for i, s in enumerate(seen) if s.startswith(o)), None) for o in order]
    assert None not in where, (order, where, seen)
    assert where == sorted(where), (where, seen)


def test_dark_is_kept_over_a_reload(page: Page, url: str) -> None:
    page.click(*p.at(page, 'e.id === "theme"'))
    try:
        page.until(f"document.getElementById('theme')?.textContent === 'light' && {p.LOADED}")
        p.opened(page, url)
        paper, ink = (
            np.array(page.run(f"getComputedStyle(document.body).{name}").split("(")[1].split(")")[0].split(","), float)
            for name in ("backgroundColor", "color")
        )
        assert paper.max() < 80
        assert ink.min() > 180
    finally:
        page.run("document.cookie = 'vaearr_theme=light; path=/'")


def test_a_run_written_anew_is_shown_after_a_reload(page: Page, url: str, store: Path, ds: xr.Dataset) -> None:
    files = (store / "runs/vae/zarr.json", store / "zarr.json")  # the run's own metadata, and the list of all
    given = [file.read_text() for file in files]
    own, root = map(json.loads, given)
    for changed in (own, root["consolidated_metadata"]["metadata"]["runs/vae"]):
        changed["attributes"]["weights_sha256"] = "0" * 64
    for file, text in zip(files, (own, root), strict=True):
        file.write_text(json.dumps(text))
    try:
        click_map(page, ds, 21, 12)
        page.until("deep((e) => e.id === 'said').some((e) => e.textContent.includes('load it again'))")
        p.opened(page, url, decodes=False)
        assert "weights 00000000" in page.run("document.querySelector('header').textContent")
    finally:
        for file, was in zip(files, given, strict=True):
            file.write_text(was)


def test_small_windows_can_be_used(page: Page) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=1024, height=700, deviceScaleFactor=1, mobile=False)
    try:
        assert page.run("document.documentElement.scrollWidth <= 1024")
    finally:
        page.call("Emulation.setDeviceMetricsOverride", width=1366, height=768, deviceScaleFactor=1, mobile=False)
