"""The page that `vaearr explore` serves: what is seen in it, and who gets an answer."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from . import inputs
from .browser import CHROMIUM
from .explorer import SECONDS, SLIDER, changed, explored, on_map, opened, picture, press, says
from .harness import USAGE, vaearr
from .prefect_server import until

TOKEN = re.compile(r'"token":\s*"([^"]+)"')  # by which the page opens its WebSocket
# the picture of each figure, which holds the pointer
DRAWN = """deep((e) => e.tagName === 'CANVAS' && e.width > 100)
  .map((e) => e.toDataURL()).filter((_, i) => i % 2 === 0)"""
# the colour of the corner of each figure, and that of the page
COLOURS = """[...deep((e) => e.tagName === 'CANVAS' && e.width > 100).filter((_, i) => i % 2 === 0)
  .map((e) => [...e.getContext('2d').getImageData(2, 2, 1, 1).data].slice(0, 3).join(", ")),
  getComputedStyle(document.querySelector('[style*="--paper"]')).backgroundColor.slice(4, -1)]"""
DARK = f"{COLOURS}.every((colour) => colour === '33, 37, 41')"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page(trained_template: Path) -> Iterator[str]:
    with explored(trained_template) as address:
        yield address


def get(page: str, **headers: str) -> tuple[int, str]:
    """Status and text of the page; `Sec_Fetch_Site="none"` is the header Sec-Fetch-Site."""
    where = urlsplit(page)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=SECONDS)
    connection.request(
        "GET", "/", headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def linked(page: str, text: str, origin: str | None) -> ClientConnection:
    """The WebSocket of a page with this text, as opened by a page from `origin`."""
    token = TOKEN.search(text)
    assert token, text
    return connect(
        page.replace("http://", "ws://") + "ws", origin=None if origin is None else Origin(origin), proxy=None,
        subprotocols=[Subprotocol("bokeh"), Subprotocol(token[1])], open_timeout=SECONDS, close_timeout=SECONDS,
    )  # fmt: skip


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}"]
)
def test_another_name_gets_no_answer(page: str, host: str) -> None:
    status, text = get(page, Host=host.format(port=urlsplit(page).port))
    assert status == 403
    assert "scan" not in text


def test_other_sites_may_link_but_not_load(page: str) -> None:
    assert (
        get(page, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="image")[0]
        == 403
    )
    assert (
        get(page, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe")[0]
        == 403
    )
    followed = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert get(page, Sec_Fetch_Site="cross-site", **followed)[0] == 200


def test_only_the_page_itself_connects(page: str) -> None:
    port = urlsplit(page).port
    status, text = get(page, Host=f"localhost:{port}")
    assert status == 200
    for origin in (
        None,
        "null",
        "https://evil.example",
        f"http://127.0.0.1:{port - 1 if port else 0}",
    ):
        with pytest.raises(InvalidStatus, match="403"):
            linked(page, text, origin)
    with linked(page, text, page.rstrip("/")) as connection:
        assert connection.recv(timeout=SECONDS)


def test_an_ipv6_address(trained_template: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
    with explored(trained_template, "--host", "::1") as page:
        assert page.startswith("http://[::1]:")
        status, text = get(page)
        assert status == 200
        with linked(page, text, page.rstrip("/")) as connection:
            assert connection.recv(timeout=SECONDS)


# ---- what is seen, by mouse and keys


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_the_page_is_driven_by_mouse_and_keys(trained_store: Path, tmp_path: Path) -> None:
    with opened(trained_store, tmp_path) as page:
        page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        says(page, "22 scan points of 20 × 20")
        blank = picture(page, "reconstruction")
        stored = picture(page, "as stored")
        page.click(*on_map(page, 0.3, 0.3))
        stored = changed(page, "as stored", stored)
        rebuilt = changed(page, "reconstruction", blank)  # the network is there
        live = picture(page, "from the sliders")
        page.run(f"{SLIDER}.focus()")
        page.key("End")
        live = changed(page, "from the sliders", live)
        assert picture(page, "reconstruction") == rebuilt
        assert picture(page, "as stored") == stored
        press(page, "Back to the sample")
        changed(page, "from the sliders", live)
        page.drag(on_map(page, 0.25, 0.3), on_map(page, 0.45, 0.6))
        says(page, "most typical of ")
        changed(page, "as stored", stored)
        says(page, "mean of ")
        says(page, "their spread")
        press(page, "Keep as ROI")
        says(page, "--points roi.csv")
        until((tmp_path / "roi.csv").exists, "the ROI is downloaded", SECONDS)
    vaearr("train", trained_store, "--points", tmp_path / "roi.csv", "--run", "part", "--epochs", 1)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_the_address_remembers_what_is_chosen(trained_template: Path, tmp_path: Path) -> None:
    """Dark without loading again; the address alone opens the page in the same state."""
    with opened(trained_template, tmp_path) as page:
        page.run("window.loaded = 1")
        page.click(*on_map(page, 0.3, 0.3))
        page.until("location.search.includes('sample=')")
        press(page, "Selection")
        page.until("location.search.includes('tab=1')")
        press(page, "Dark")
        page.until("location.search.includes('dark=true')")
        page.until(DARK)
        assert page.run("window.loaded") == 1
        page.go(page.run("location.href") + "&compare=pca")
        says(page, "by the other run")
        says(page, "most typical")
        page.until(DARK)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_two_runs_share_the_pointer(trained_template: Path, tmp_path: Path) -> None:
    with opened(trained_template, tmp_path) as page:
        page.go(page.run("location.href") + "?compare=pca")
        says(page, "by the other run")
        page.until(f"{DRAWN}.length === 3 && Bokeh.documents.every((d) => d.is_idle)")
        time.sleep(2)
        page.run(f"window.before = {DRAWN}")
        page.hover(*on_map(page, 0.4, 0.4))
        page.until(f"{DRAWN}.slice(0, 2).every((drawn, i) => drawn !== before[i])")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_a_run_without_a_network_says_so(known_template: Path, tmp_path: Path) -> None:
    with opened(known_template, tmp_path, "--run", "theirs") as page:
        says(page, "no network")
        stored = picture(page, "as stored")
        page.click(*on_map(page, 0.3, 0.3))
        changed(page, "as stored", stored)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_images_and_volumes_have_pages_too(
    images_template: Path, volumes_template: Path, tmp_path: Path
) -> None:
    with opened(images_template, tmp_path / "images") as page:
        says(page, "36 images of 24 × 32")
        says(page, ", label = ")
    with opened(volumes_template, tmp_path / "volumes") as page:
        stored = picture(page, "as stored")
        page.run(f"{SLIDER}.focus()")
        page.key("End")
        changed(page, "as stored", stored)  # another slice


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_names_are_shown_and_never_run(tmp_path: Path) -> None:
    folder, store = tmp_path / "pictures", tmp_path / "<script>alert(3)<:script>.zarr"
    for number in range(6):
        (folder / f"{HOSTILE}{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(inputs.picture(number % 3, number)).save(
            folder / f"{HOSTILE}{number % 2}" / f"{number}.png"
        )
    vaearr("ingest", folder, store)
    np.save(tmp_path / "own.npy", np.random.default_rng(4).normal(size=(6, 3)).astype("f4"))
    vaearr("attach", store, tmp_path / "own.npy", "--run", "own")
    with opened(store, tmp_path, "--run", "own") as page:
        says(page, "onerror")
        page.drag(on_map(page, 0.15, 0.15), on_map(page, 0.8, 0.85))
        says(page, "most typical of ")
        assert (
            page.run("deep((e) => e.tagName === 'IMG' && e.getAttribute('src') === 'x').length")
            == 0
        )
        assert (
            page.run(
                "deep((e) => e.tagName === 'SCRIPT' && e.textContent.includes('alert(3)')).length"
            )
            == 0
        )


def test_places_that_cannot_be_listened_at(trained_template: Path) -> None:
    for options in (["--port", 70000], ["--host", "192.0.2.1"]):
        vaearr("explore", trained_template, "--no-show", *options, code=USAGE)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = vaearr(
            "explore", trained_template, "--no-show", "--port", taken.getsockname()[1], code=USAGE
        )
    assert "cannot listen" in words.error
