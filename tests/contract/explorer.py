"""The page that `vaearr explore` serves, in a process of its own, and what tests look at and press
in it.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .browser import Page, browser
from .harness import command

SECONDS = 120
SEEN = "(e) => e.getBoundingClientRect().width > 0"
SLIDER = f"deep((e) => e.getAttribute('role') === 'slider').find({SEEN})"


@contextmanager
def explored(store: Path, *options: str, quiet: bool = False) -> Iterator[str]:
    """Address of the page while it is served, in a process of its own.

    quiet: the server must print nothing more, no warning of any library.
    """
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
            assert not quiet or said == "", said


@contextmanager
def opened(store: Path, folder: Path, *options: str) -> Iterator[Page]:
    """The page in a browser, drawn; it logs no error and asks nobody else for anything."""
    with explored(store, *options, quiet=True) as address, browser(folder / "profile") as page:
        page.go(address)
        page.until(
            "!!window.deep && deep((e) => e.tagName === 'CANVAS').some((e) => e.width > 100)"
        )
        page.until(f"!!{SLIDER}")
        page.until("Bokeh.documents.length > 0 && Bokeh.documents.every((d) => d.is_idle)")
        before = None
        while before != (before := on_map(page, 0.5, 0.5)):
            time.sleep(1)
        yield page
        assert page.errors == []
        known = (address, address.replace("http", "ws"), "data:", "about:", "blob:")
        assert [url for url in page.requests if not url.startswith(known)] == []


def says(page: Page, words: str) -> None:
    """Wait until the page says something."""
    page.until(
        f"deep((e) => !e.children.length && e.textContent.includes({json.dumps(words)})).some({SEEN})"
    )


def box(page: Page, words: str) -> list[float]:
    """Left, top, right and bottom in the window of what carries these words, once it is seen."""
    own = "[...e.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim() === "
    element = f"deep((e) => {own}{json.dumps(words)})).find({SEEN})"
    page.until(f"!!{element}")
    return [
        float(v)
        for v in page.run(
            f"(r => [r.left, r.top, r.right, r.bottom])({element}.getBoundingClientRect())"
        )
    ]


def press(page: Page, words: str) -> None:
    """Click what carries these words."""
    left, top, right, bottom = box(page, words)
    page.click((left + right) / 2, (top + bottom) / 2)


def picture(page: Page, heading: str) -> str:
    """The picture that is seen below a heading, as its address, which holds its pixels."""
    image = f"deep((e) => e.alt === {json.dumps(heading)}).find({SEEN})?.src"
    return str(page.until(image))


def changed(page: Page, heading: str, before: str) -> str:
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
