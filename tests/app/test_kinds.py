"""The page in a real browser for every kind of store: images, volumes, slices, no network, hostile names."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.app import pages as p
from tests.contract.browser import CHROMIUM, Page, browser
from vaearr.app import scatter, views
from vaearr.app.maps import Map
from vaearr.app.raster import block_mean
from vaearr.store import open_store

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
    pytest.mark.filterwarnings("default"),  # of the libraries that serve the page
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


def clean(page: Page, url: str) -> None:
    assert page.errors == []
    assert p.outside(page, url) == []


def type_into(page: Page, name: str, number: int) -> None:
    """Put a number into a field with the keys."""
    page.click(*p.at(page, f"e.tagName === 'INPUT' && e.getRootNode().textContent.includes({name!r})"))
    page.run(
        "(() => { let e = document.activeElement; while (e.shadowRoot) e = e.shadowRoot.activeElement; e.select(); })()"
    )
    page.call("Input.insertText", text=str(number))
    page.key("Enter")
    page.until(f"{p.value(name)} === {number}")


def test_colour_images(page: Page, collection_template: Path) -> None:
    ds = open_store(collection_template, chunks=None)
    with p.served(collection_template) as url:
        p.opened(page, url)
        assert not page.run("!!document.getElementById('walk')")
        type_into(page, "sample (position)", 17)
        page.until("deep((e) => e.tagName === 'B').some((e) => e.textContent.startsWith('sample = 17'))")
        np.testing.assert_array_equal(p.picture(page, "as stored"), np.moveaxis(ds["patterns"].values[17], 0, -1))
        latents = ds["latents"].values
        shown = latents[:, p.widest(latents)].astype(float)
        page.click(*p.place(page, "plane", *shown[23]))
        page.until(f"{p.value('sample (position)')} !== 17")
        found = int(p.field(page, "sample (position)"))
        np.testing.assert_allclose(shown[found], shown[23], atol=0.1 * np.ptp(shown[:, 0]))
        p.press(page, "Samples")
        assert len(p.names(page, "samples 0")) == 6
        assert p.names(page, "samples 0")[0] == str(found)
        p.press(page, "Manifold")
        assert len(p.names(page, "manifold")) == 9
        p.press(page, "Association")
        page.until("deep((e) => e.tagName === 'PRE').length")
        assert "vaearr associate" in page.run("deep((e) => e.tagName === 'PRE')[0].textContent")
        clean(page, url)


def closer(page: Page, at: tuple[float, float], figure: str, is_enough: Callable[[], bool]) -> None:
    """Turn the wheel over a figure until it is enough, each time once what the last turn shows has been drawn."""
    drawn = f"{p.FIGURE % json.dumps(figure)}.renderers[0].data_source.data"
    for _ in range(20):
        page.run(f"window.before = {drawn}; 0")
        page.wheel(*at, -200)
        end = time.monotonic() + 3  # a turn may show the same blocks
        while page.run(f"{drawn} === window.before") and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)
        if is_enough():
            return
    raise AssertionError("the wheel never brought it near enough")


def test_of_many_points_the_window_shows_more_the_closer_it_is(
    page: Page, trained_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "Map", partial(Map, most=400))
    monkeypatch.setattr(scatter, "MOST_POINTS", 300)
    ds = open_store(trained_template, chunks=None)
    latents = ds["latents"].values
    with p.served(trained_template) as url:
        p.opened(page, url)
        np.testing.assert_array_equal(p.source(page, "map", 0)["image"][0], block_mean(latents[..., 0], 2).ravel())
        cells = p.source(page, "plane", 0)["image"][0]
        assert 300 < np.isfinite(cells).sum() < np.isfinite(latents[..., 0]).sum()
        assert np.nanmin(latents[..., 0]) <= np.nanmin(cells) < np.nanmax(cells) <= np.nanmax(latents[..., 0])
        assert p.source(page, "plane", 1)["x"].size == 0
        for figure in ("map", "plane"):
            p.tool(page, figure, "Wheel Zoom")
        at = p.place(page, "map", float(ds["x"][17]), float(ds["y"][20]))
        source = f"{p.FIGURE % json.dumps('map')}.renderers[0].data_source.data"
        size = f"({source}.get?.('image') ?? {source}.image)[0].shape"
        closer(page, at, "map", lambda: p.source(page, "map", 0)["dw"][0] < 8)
        part = p.source(page, "map", 0)
        rows, columns = page.run(f"[...{size}]")
        top, left = round(part["y"][0] / 0.5 + 0.5), round(part["x"][0] / 0.5 + 0.5)
        expected = latents[top : top + rows, left : left + columns, 0]
        np.testing.assert_array_equal(part["image"][0], expected.ravel())
        assert expected.size < latents[..., 0].size / 2
        flat = latents[..., p.widest(latents)].reshape(-1, 2)
        near = int(np.nanargmin(((flat - np.nanmedian(flat, axis=0)) ** 2).sum(1)))
        at = p.place(page, "plane", *flat[near].astype(float))
        closer(page, at, "plane", lambda: p.source(page, "plane", 1)["x"].size > 0)
        figure = p.FIGURE % json.dumps("plane")
        (x0, x1), (y0, y1) = (page.run(f"(({{start, end}}) => [start, end])({figure}.{i}_range)") for i in "xy")
        inside = (flat[:, 0] >= x0) & (flat[:, 0] <= x1) & (flat[:, 1] >= y0) & (flat[:, 1] <= y1)
        np.testing.assert_array_equal(p.source(page, "plane", 1)["x"], flat[inside, 0])
        assert 0 < inside.sum() <= 300
        clean(page, url)


def test_a_network_that_is_gone_is_told(page: Page, trained_store: Path) -> None:
    (trained_store / "runs/vae/model/weights.safetensors").unlink()
    with p.served(trained_store) as url:
        p.opened(page, url, decodes=False)
        page.until("deep((e) => e.id === 'said').some((e) => e.textContent.includes('weights.safetensors is missing'))")
        assert p.picture(page, "as stored") is not None
        assert p.picture(page, "reconstruction") is None
        p.press(page, "Manifold")
        page.until("deep((e) => e.children.length === 0 && e.textContent.includes('is missing;')).length === 2")
        clean(page, url)


def test_spatial_latents(page: Page, spatial_path: Path) -> None:
    with p.served(spatial_path) as url:
        p.opened(page, url)
        p.press(page, "Channels")
        assert p.names(page, "channels") == ["latent 0", "latent 1"]
        base = open_store(spatial_path)["latents"].values[0]
        shown = p.source(page, "channels", 0)["image"][0].reshape(base.shape[1] + 2, -1)
        np.testing.assert_array_equal(shown[: base.shape[1], : base.shape[2]], base[0])
        np.testing.assert_allclose(p.picture(page, "from the sliders"), p.picture(page, "reconstruction"), atol=1e-4)
        clean(page, url)


def test_volumes(page: Page, volumes_path: Path) -> None:
    ds = open_store(volumes_path, chunks=None)
    with p.served(volumes_path) as url:
        p.opened(page, url)
        before = p.picture(page, "from the sliders")
        np.testing.assert_array_equal(p.picture(page, "as stored"), ds["patterns"].values[0, 3, ::-1])
        page.run("deep((e) => e.classList.contains('noUi-handle'))[0].focus()")
        page.key("ArrowRight")
        page.until(f"{p.value('Slice z')} === 4")
        page.until(f"{p.canvas('as stored')}.shown.values[0] === {float(ds['patterns'].values[0, 4, -1, 0])}")
        np.testing.assert_array_equal(p.picture(page, "as stored"), ds["patterns"].values[0, 4, ::-1])
        assert np.abs(p.picture(page, "from the sliders") - before).max() > 0
        p.press(page, "Traversal")
        assert len(p.names(page, "traversal")) == 9
        clean(page, url)


def test_slices_without_a_network(page: Page, layered_path: Path) -> None:
    ds = open_store(layered_path, chunks=None)
    with p.served(layered_path, "own") as url:
        p.opened(page, url, decodes=False)
        assert "no network" in p.said(page)
        assert page.run("deep((e) => e.tagName === 'BUTTON').map((e) => e.textContent).includes('Traversal')") is False
        type_into(page, "z (position)", 2)
        image = ds["latents_own"].values[2, ..., 0]
        page.until("deep((e) => e.tagName === 'B').some((e) => e.textContent.startsWith('z = 1 µm'))")
        np.testing.assert_array_equal(p.source(page, "map", 0)["image"][0], image.ravel())
        page.click(*p.place(page, "map", float(ds["x"][4]), float(ds["y"][7])))
        page.until(f"{p.value('x (position)')} === 4 && {p.value('y (position)')} === 7")
        np.testing.assert_array_equal(p.picture(page, "as stored"), ds["patterns"].values[2, 7, 4])
        p.press(page, "Samples")
        assert len(p.names(page, "samples 0")) == 6
        clean(page, url)


def test_names_are_never_run(page: Page, hostile_path: Path) -> None:
    with p.served(hostile_path, "own") as url:
        p.opened(page, url, decodes=False)
        page.until("deep((e) => e.tagName === 'B').some((e) => e.textContent.includes('onerror'))")
        assert page.run("deep((e) => e.tagName === 'IMG' && e.getAttribute('src') === 'x').length") == 0
        options = page.run("deep((e) => e.tagName === 'OPTION').map((e) => e.textContent)")
        assert any("<script>" in words for words in options)
        for words in ("Samples", "Association"):
            p.press(page, words)
            page.until("Bokeh.documents[0].is_idle")
        assert page.run("deep((e) => e.tagName === 'SCRIPT' && e.textContent.includes('alert')).length") == 0
        assert "\x07" not in page.run("document.body.textContent")
        clean(page, url)
