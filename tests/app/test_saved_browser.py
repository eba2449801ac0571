"""The saved page opened from disk in a real browser, with no host to be found: sliders, brushing, pictures, themes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.app.test_saved import three_dimensional
from tests.contract.browser import CHROMIUM, Page, browser
from vaearr.app import saved_decoding
from vaearr.app.saved import save_page
from vaearr.app.saved_points import as_bytes
from vaearr.app.state import open_state
from vaearr.association import associate_store
from vaearr.inference.decoding import decoded_array
from vaearr.store import open_store

from ..exploration.conftest import spatial_path

__all__ = ["spatial_path", "three_dimensional"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")

READY = "document.documentElement?.dataset.ready === 'yes'"
# place in the window of a point of a figure's data space
PLACE = """(() => {
  const views = Array.from(Bokeh.index);
  for (const v of views) if (v.model.name === "%s") {
    const box = v.canvas_view.el.getBoundingClientRect();
    return [box.left + v.frame.x_scale.compute(%r), box.top + v.frame.y_scale.compute(%r)];
  }
})()"""
PIXELS = """(() => {
  const c = document.getElementById("%s");
  const image = c.getContext("2d").getImageData(0, 0, c.width, c.height);
  return {shape: [c.height, c.width], values: Array.from(image.data)};
})()"""
SELECTED = "Array.from(Bokeh.documents[0].get_model_by_name('points').selected.indices)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def scan(trained_template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A scan with a table of associations, and its page."""
    folder = tmp_path_factory.mktemp("saved")
    path = Path(shutil.copytree(trained_template, folder / "scan.zarr"))
    associate_store(path)
    return path, save_page(path, out=folder / "page.html")


def opened(page: Page, path: Path) -> None:
    page.errors.clear()
    page.requests.clear()
    page.go(path.as_uri())
    page.until(READY)


def is_clean(page: Page, path: Path) -> None:
    assert not page.errors
    assert not [u for u in page.requests if u != path.as_uri() and not u.startswith(("data:", "blob:"))]


def place(page: Page, name: str, x: float, y: float) -> tuple[float, float]:
    found = page.run(PLACE % (name, float(x), float(y)))
    return float(found[0]), float(found[1])


def pixels(page: Page, name: str) -> np.ndarray:
    found = page.run(PIXELS % name)
    return np.array(found["values"], "u1").reshape(*found["shape"], 4)[..., :3]


def box_of(page: Page, selector: str) -> dict[str, float]:
    return dict(page.run(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()"))


def pull(page: Page, slider: int, part: float) -> None:
    """Drag the handle of a slider to a part of its way."""
    page.run(f"document.querySelector('[data-latent=\"{slider}\"]').scrollIntoView({{block: 'nearest'}})")
    box = box_of(page, f"[data-latent='{slider}'] input")
    low, high, now = page.run(
        f"(() => {{ const i = document.querySelector('[data-latent=\"{slider}\"] input');"
        " return [Number(i.min), Number(i.max), Number(i.value)]; })()"
    )
    y, inner = box["y"] + box["height"] / 2, box["width"] - 16
    start = (box["x"] + 8 + inner * (now - low) / (high - low), y)
    page.drag(start, (box["x"] + 8 + inner * part, y))


def settings(page: Page) -> np.ndarray:
    return np.array(page.run("[...document.querySelectorAll('#sliders input')].map((i) => Number(i.value))"), "f4")


def test_sliders_decode_as_pytorch_does(page: Page, scan: tuple[Path, Path]) -> None:
    store, saved = scan
    opened(page, saved)
    before = pixels(page, "decoded")
    count = page.run("Number(document.getElementById('decoded').dataset.count)")
    pull(page, 1, 0.95)
    pull(page, 0, 0.1)
    page.until(f"Number(document.getElementById('decoded').dataset.count) > {count} + 1")
    state = open_state(store)
    vector = settings(page)
    assert vector[1] > state.mean[1] + 0.5 * (state.high[1] - state.mean[1])
    assert vector[0] < state.mean[0]
    low, high = page.run("JSON.parse(document.getElementById('data').textContent).decoding.limits")
    exact = decoded_array(state.opened, vector[None], "one").values[0]
    made = pixels(page, "decoded")[..., 0]
    assert np.abs(made.astype(int) - as_bytes(exact, (low, high))).max() <= 1
    assert np.abs(made.astype(int) - before[..., 0]).max() > 5
    assert page.run("Number(document.getElementById('decoded').dataset.ms)") < 100
    assert page.until("document.getElementById('decoder-note').dataset.error") is not None
    assert float(page.run("document.getElementById('decoder-note').dataset.error")) < 1e-2
    assert "runs the decoder of the run itself" in page.run("document.getElementById('decoder-note').textContent")
    page.run("document.querySelector('[data-latent=\"2\"] input').focus()")
    now = settings(page)[2]
    page.key("ArrowRight")
    assert settings(page)[2] == pytest.approx(now + (state.high[2] - state.low[2]) / 200, rel=1e-4)
    is_clean(page, saved)


def test_brush_on_points_and_on_map(page: Page, scan: tuple[Path, Path], tmp_path: Path) -> None:
    store, saved = scan
    ds = open_store(store, chunks=None).load()
    opened(page, saved)
    latents = ds["latents"].values.reshape(-1, 3)
    known = np.flatnonzero(np.isfinite(latents).all(1))
    across, up = page.run("JSON.parse(document.getElementById('data').textContent).axes")
    x, y = latents[known, across], latents[known, up]
    (x0, x1), (y0, y1) = np.quantile(x, (0.55, 0.9)), np.quantile(y, (0.2, 0.8))
    page.drag(place(page, "plane", x0, y0), place(page, "plane", x1, y1))
    expected = np.flatnonzero((x > x0) & (x < x1) & (y > y0) & (y < y1))
    found = np.array(page.run(SELECTED))
    pixel = 3 * np.ptp(x) / 300
    sure = np.flatnonzero((x > x0 + pixel) & (x < x1 - pixel) & (y > y0 + pixel) & (y < y1 - pixel))
    assert abs(len(found) - len(expected)) <= max(4, 0.05 * len(expected))
    assert set(sure) <= set(found)
    assert page.run("document.getElementById('count').textContent") == f"{len(found)} of {len(known):,} points selected"
    row, column = np.unravel_index(known[found[0]], ds["BC"].shape)
    page.picture(tmp_path / "brushed.png")
    at = place(page, "map", float(ds["x"][column]), float(ds["y"][row]))
    red, green, _ = _pixel(tmp_path / "brushed.png", at)
    assert red > green + 60  # the mark's colour over the scan point
    page.run("document.getElementById('clear').click()")
    page.until(f"{SELECTED}.length === 0")
    step = float(ds["x"][1] - ds["x"][0])
    left, right, top, bottom = 4, 11, 20, 30
    corner = [float(ds["x"][left]) - step / 2, float(ds["y"][top]) - step / 2]
    other = [float(ds["x"][right]) + step / 2, float(ds["y"][bottom]) + step / 2]
    page.drag(place(page, "map", *corner), place(page, "map", *other))
    inside = np.zeros(ds["BC"].shape, bool)
    inside[top : bottom + 1, left : right + 1] = True
    wanted = known[np.isin(known, np.flatnonzero(inside.ravel()))]
    np.testing.assert_array_equal(known[np.array(page.run(SELECTED))], wanted)
    bars = page.run(
        "(() => { const d = Bokeh.documents[0].get_model_by_name('bars').data; return Array.from(d.some); })()"
    )
    values = latents[wanted, page.run("Number(document.getElementById('layer').value)")]
    assert sum(bars) == pytest.approx(100)
    assert max(bars) * len(values) / 100 == pytest.approx(round(max(bars) * len(values) / 100))
    low, high = np.quantile(latents[known, 1], (0.3, 0.6))
    page.run(
        "(() => { const s = document.getElementById('layer'); s.value = '1'; s.dispatchEvent(new Event('change'));"
        f" document.getElementById('from').value = {low}; document.getElementById('upto').value = {high}; }})()"
    )
    page.run("document.getElementById('choose').click()")
    inside = (latents[known, 1] > low) & (latents[known, 1] < high)
    assert abs(page.run(f"{SELECTED}.length") - inside.sum()) <= 2  # values are carried to 1/65534 of their span
    is_clean(page, saved)


def _pixel(path: Path, at: tuple[float, float]) -> tuple[int, int, int]:
    from PIL import Image

    with Image.open(path) as image:
        red, green, blue = image.convert("RGB").getpixel((round(at[0]), round(at[1])))  # type: ignore[misc]
    return red, green, blue


def test_click_shows_the_stored_pattern(page: Page, scan: tuple[Path, Path]) -> None:
    store, saved = scan
    ds = open_store(store, chunks=None).load()
    opened(page, saved)
    row, column = 17, 9
    page.click(*place(page, "map", float(ds["x"][column]), float(ds["y"][row])))
    page.until(f"document.getElementById('sample').value === '{row * 35 + column}'")
    page.until("document.getElementById('stored-words').textContent.startsWith('y = 8.5')")
    page.until(f"document.getElementById('stored').dataset.sample === '{row * 35 + column}'")
    np.testing.assert_array_equal(
        pixels(page, "stored")[..., 0], as_bytes(ds["patterns"].values[row, column].astype("f4"))
    )
    np.testing.assert_allclose(settings(page), ds["latents"].values[row, column], atol=2e-3)
    page.run("document.querySelector('#ranks button').click()")
    first = page.run("document.querySelector('#ranks button').textContent")
    page.until(f"Bokeh.documents[0].get_model_by_name('map').title.text === '{first}'")
    page.run("document.querySelectorAll('#classes button')[1].click()")
    state = open_state(store)
    codes = ds["phase"].values.ravel()
    mean = np.nanmean(state.latents[codes == 1], 0)
    np.testing.assert_allclose(settings(page), mean, atol=2e-3)
    is_clean(page, saved)


def test_both_themes_fit_a_laptop(page: Page, scan: tuple[Path, Path]) -> None:
    _, saved = scan
    opened(page, saved)
    assert page.run("document.documentElement.scrollWidth <= 1366")
    shade = "Math.max(...getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number))"
    assert page.run(shade) > 200
    box = box_of(page, "#theme")
    page.click(box["x"] + 5, box["y"] + 5)
    assert page.run(shade) < 80
    assert page.run("Bokeh.documents[0].get_model_by_name('plane').title.text_color") == "#e6eaee"
    unnamed = "[...document.querySelectorAll('select, input')].filter((e) => !e.closest('label')).length"
    assert page.run(unnamed) == 0
    is_clean(page, saved)


def test_hostile_texts_are_shown_as_texts(page: Page, hostile_path: Path, tmp_path: Path) -> None:
    saved = save_page(hostile_path, "own", tmp_path / "page.html")
    opened(page, saved)
    titles = page.run("[...document.getElementById('layer').options].map((o) => o.textContent)")
    for layer in range(len(titles)):
        _show(page, layer)
        page.until(f"document.getElementById('stored-words').textContent.includes({json.dumps(titles[layer])})")
    assert any("<img src=x" in title for title in titles)
    _show(page, titles.index("kind"))
    page.run("document.querySelectorAll('#legend button')[1].click()")
    page.until("document.getElementById('count').dataset.selected === '15'")
    assert "<script>alert(3)" in page.run("document.querySelector('h1').textContent")
    assert "no network" in page.run("document.getElementById('decoder-note').textContent")
    assert page.run("document.getElementById('sliders').hidden")
    assert page.run("document.getElementById('range').hidden")
    assert page.run("document.querySelectorAll('img, iframe, object').length") == 0
    is_clean(page, saved)
    page.run("document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.own = 1' }))")
    assert page.run("window.own") is None  # no script runs but the page's
    assert "Content Security Policy" in page.errors[-1]


def _show(page: Page, layer: int) -> None:
    page.run(
        f"(() => {{ const s = document.getElementById('layer'); s.value = '{layer}';"
        " s.dispatchEvent(new Event('change')); })()"
    )


def test_frames_where_the_decoder_cannot_travel(
    page: Page, spatial_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_decoding, "MOST_WORK", 10)
    saved = save_page(spatial_path, out=tmp_path / "frames.html", steps=5)
    opened(page, saved)
    note = page.run("document.getElementById('decoder-note').textContent")
    assert "several are not combined" in note
    assert "multiplications" in note
    before = pixels(page, "decoded")
    pull(page, 1, 0.98)
    page.until("Number(document.getElementById('decoded').dataset.count) > 0")
    from vaearr.exploration import traverse

    made = traverse(spatial_path, dims=1, steps=5)["decoded"].values[0, -1]
    low, high = page.run("JSON.parse(document.getElementById('data').textContent).decoding.limits")
    np.testing.assert_array_equal(pixels(page, "decoded")[..., 0], as_bytes(made, (low, high)))
    assert (pixels(page, "decoded") != before).any()
    pull(page, 0, 0.02)
    assert settings(page).tolist() == [0, 2]  # the other one is back at the base
    is_clean(page, saved)


@pytest.mark.parametrize("slow", [0, 10**9], ids=["beside", "within"])
def test_spatial_latents_decode_in_the_page(
    page: Page, spatial_path: Path, tmp_path: Path, slow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_decoding, "SLOW", slow)
    saved = save_page(spatial_path, out=tmp_path / "page.html", base=3)
    opened(page, saved)
    assert float(page.until("document.getElementById('decoder-note').dataset.error")) < 1e-2
    assert "shifts its channel as a whole; the pattern within is that of the sample 3" in page.run(
        "document.getElementById('decoder-note').textContent"
    )
    page.run("document.getElementById('to-base').click()")
    found: dict[str, Any] = page.run("JSON.parse(document.getElementById('data').textContent).decoding")
    state = open_state(spatial_path)
    page.until("Number(document.getElementById('decoded').dataset.count) > 1")
    z = open_store(spatial_path)["latents"].values[3]
    exact = decoded_array(state.opened, z[None], "one").values[0]
    made = pixels(page, "decoded")[..., 0].astype(int)
    assert np.abs(made - as_bytes(exact, tuple(found["limits"]))).max() <= 1
    is_clean(page, saved)


def test_layers_of_a_three_dimensional_scan(page: Page, three_dimensional: Path, tmp_path: Path) -> None:
    saved = save_page(three_dimensional, "given", tmp_path / "page.html")
    opened(page, saved)
    ds = open_store(three_dimensional, chunks=None).load()
    page.run("document.getElementById('depth').focus()")
    page.key("ArrowRight")
    page.until("document.getElementById('depth-words').textContent === 'z = 2 µm'")
    layer = page.run("Number(document.getElementById('layer').value)")
    page.until(f"Bokeh.documents[0].get_model_by_name('map').title.text === 'latent {layer}, z = 2 µm'")
    page.click(*place(page, "map", float(ds["x"][2]), float(ds["y"][5])))
    page.until(f"document.getElementById('sample').value === '{4 * 72 + 5 * 8 + 2}'")
    step = float(ds["x"][1] - ds["x"][0])
    page.drag(place(page, "map", -step / 2, -step / 2), place(page, "map", 3.5 * step, 1.5 * step))
    present = ds["latents_given"].notnull().all("latent_given").values[4, :2, :4]
    assert len(page.run(SELECTED)) == present.sum()
    is_clean(page, saved)
