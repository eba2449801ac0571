"""The page that `vaearr explore` serves: who gets an answer, and that what was closed is forgotten."""

from __future__ import annotations

import http.client
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
