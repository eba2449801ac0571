"""The page that `vaearr explore` serves: what is seen in it, who gets an answer, that what was closed is forgotten."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from .browser import CHROMIUM, Page, browser
from .harness import command

TOKEN = re.compile(r'"token":\s*"([^"]+)"')  # by which the page opens its WebSocket
MOST, SECONDS = 30, 120


@contextmanager
def explored(store: Path, *options: str) -> Iterator[str]:
    """Address of the page while it is served, in a process of its own."""
    words = command("explore", store, "--no-show", *options)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"http://\S+/", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        try:
            yield found[0]
        finally:
            process.terminate()
            said = process.stderr.read()
            assert process.wait(20) == 0, said


@pytest.fixture(scope="module")
def page(trained_template: Path) -> Iterator[str]:
    with explored(trained_template) as address:
        yield address


def get(page: str, **headers: str) -> tuple[int, str]:
    """Status and text of the page; `Sec_Fetch_Site="none"` is the header Sec-Fetch-Site."""
    where = urlsplit(page)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=SECONDS)
    connection.request("GET", "/", headers={name.replace("_", "-"): value for name, value in headers.items()})
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


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}"])
def test_another_name_gets_no_answer(page: str, host: str) -> None:
    status, text = get(page, Host=host.format(port=urlsplit(page).port))
    assert status == 403
    assert "scan" not in text


def test_other_sites_may_link_but_not_load(page: str) -> None:
    assert get(page, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="image")[0] == 403
    assert get(page, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe")[0] == 403
    followed = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert get(page, Sec_Fetch_Site="cross-site", **followed)[0] == 200


def test_only_the_page_itself_connects(page: str) -> None:
    port = urlsplit(page).port
    status, text = get(page, Host=f"localhost:{port}")
    assert status == 200
    for origin in (None, "null", "https://evil.example", f"http://127.0.0.1:{port - 1 if port else 0}"):
        with pytest.raises(InvalidStatus, match="403"):
            linked(page, text, origin)
    with linked(page, text, page.rstrip("/")) as connection:
        assert connection.recv(timeout=SECONDS)


@pytest.mark.slow
def test_pages_are_few_and_forgotten_when_closed(page: str) -> None:
    with ExitStack() as held:
        for _ in range(MOST):
            status, text = get(page)
            if status != 200:
                break
            held.enter_context(linked(page, text, page.rstrip("/")))
        assert status == 503
        assert "close one" in text
    end = time.monotonic() + SECONDS
    while get(page)[0] == 503:
        assert time.monotonic() < end, "pages that were closed still count"
        time.sleep(0.5)


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

SEEN = "(e) => e.getBoundingClientRect().width > 0"


@contextmanager
def opened(store: Path, folder: Path, *options: str) -> Iterator[Page]:
    """The page in a browser, drawn; it logs no error and asks nobody else for anything."""
    with explored(store, *options) as address, browser(folder / "profile") as page:
        page.go(address)
        page.until("!!window.deep && deep((e) => e.tagName === 'CANVAS').some((e) => e.width > 100)")
        yield page
        assert page.errors == []
        known = (address, address.replace("http", "ws"), "data:", "about:", "blob:")
        assert [url for url in page.requests if not url.startswith(known)] == []


def says(page: Page, words: str) -> None:
    """Wait until the page says something."""
    page.until(f"deep((e) => !e.children.length && e.textContent.includes({json.dumps(words)})).some({SEEN})")


def box(page: Page, words: str) -> list[float]:
    """Left, top, right and bottom in the window of what carries these words, once it is seen."""
    element = f"deep((e) => !e.children.length && e.textContent.trim() === {json.dumps(words)}).find({SEEN})"
    page.until(f"!!{element}")
    return [float(v) for v in page.run(f"(r => [r.left, r.top, r.right, r.bottom])({element}.getBoundingClientRect())")]


def press(page: Page, words: str) -> None:
    """Click what carries these words."""
    left, top, right, bottom = box(page, words)
    page.click((left + right) / 2, (top + bottom) / 2)


def picture(page: Page, heading: str) -> bytes:
    """What is seen below a heading, as PNG."""
    left, _, _, bottom = box(page, heading)
    clip = {"x": left, "y": bottom + 4, "width": 120, "height": 100, "scale": 1}
    return bytes(page.call("Page.captureScreenshot", format="png", clip=clip)["data"], "ascii")


def changed(page: Page, heading: str, before: bytes) -> bytes:
    """The picture below a heading once it is another one."""
    end = time.monotonic() + SECONDS
    while (found := picture(page, heading)) == before:
        assert time.monotonic() < end, f"{heading} never changed"
        time.sleep(0.1)
    return found


def on_map(page: Page, across: float, down: float) -> tuple[float, float]:
    """A place of the window on the first figure, in parts of its width and height."""
    left, top, width, height = page.run(
        "((r) => [r.left, r.top, r.width, r.height])"
        "(deep((e) => e.tagName === 'CANVAS' && e.width > 100)[0].getBoundingClientRect())"
    )
    return left + across * width, top + down * height


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_the_page_is_driven_by_mouse_and_keys(trained_store: Path, tmp_path: Path) -> None:
    with opened(trained_store, tmp_path) as page:
        says(page, "22 scan points of 20 × 20")
        blank = picture(page, "reconstruction")
        stored = picture(page, "as stored")
        page.until("deep((e) => e.tagName === 'INPUT' && e.type === 'range' || e.getAttribute('role') === 'slider')"
                   f".filter({SEEN}).length >= 3")  # fmt: skip
        page.click(*on_map(page, 0.3, 0.3))
        stored = changed(page, "as stored", stored)
        rebuilt = changed(page, "reconstruction", blank)  # the network is there
        live = picture(page, "from the sliders")
        page.run(
            "deep((e) => e.tagName === 'INPUT' && e.type === 'range' || e.getAttribute('role') === 'slider')"
            f".find({SEEN}).focus()"
        )
        page.key("End")
        live = changed(page, "from the sliders", live)
        assert picture(page, "reconstruction") == rebuilt
        assert picture(page, "as stored") == stored
        press(page, "Back to the sample")
        changed(page, "from the sliders", live)
        page.drag(on_map(page, 0.25, 0.3), on_map(page, 0.45, 0.6))
        says(page, "mean of ")
        changed(page, "as stored", stored)
        press(page, "Samples")
        says(page, "chosen, evenly spread")
        for name, words in (("Traversal", "latent dimension"), ("Manifold", "latent 0"), ("Association", "over ")):
            press(page, name)
            says(page, words) if name == "Association" else says(page, "Draw about the sliders")
        (trained_store / "runs/vae/zarr.json").touch()
        page.click(*on_map(page, 0.3, 0.4))
        says(page, "load it again")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_a_run_without_a_network_says_so(known_template: Path, tmp_path: Path) -> None:
    with opened(known_template, tmp_path, "--run", "theirs") as page:
        says(page, "no network")
        stored = picture(page, "as stored")
        page.click(*on_map(page, 0.3, 0.3))
        changed(page, "as stored", stored)
        press(page, "Association")
        says(page, "over ")
        assert page.run("deep((e) => !e.children.length && e.textContent === 'Traversal').length") == 0


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_images_and_volumes_have_pages_too(images_template: Path, volumes_template: Path, tmp_path: Path) -> None:
    with opened(images_template, tmp_path / "images") as page:
        says(page, "36 images of 24 × 32")
        says(page, "sample = 0, label = ")
        press(page, "Association")
        says(page, "vaearr associate")
    with opened(volumes_template, tmp_path / "volumes") as page:
        stored = picture(page, "as stored")
        page.run("deep((e) => e.getAttribute('role') === 'slider').find((e) => e.offsetParent).focus()")
        page.key("End")
        changed(page, "as stored", stored)  # another slice
        press(page, "Channels")
        says(page, "latents at each position")
