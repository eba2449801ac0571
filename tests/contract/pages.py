"""What a page on the disk may not do: load anything from anywhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

HERE = ("#", "data:", "about:", "blob:")
STYLE = re.compile(r"""@import|url\(\s*["']?(?:https?:)?//""", re.IGNORECASE)
LARGEST = 30e6  # bytes


class _Loaded(HTMLParser):
    """Addresses that the tags of a page name, but for links to click; what scripts hold is not
    looked at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tag = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tag = tag
        for name, value in attrs:
            is_link = tag == "a" and name == "href"
            if name in ("src", "href", "srcset", "data", "action", "poster") and not is_link:
                self.found += [value or ""]
            if name == "style":
                self.found += STYLE.findall(value or "")

    def handle_data(self, data: str) -> None:
        if self.tag == "style":
            self.found += STYLE.findall(data)


def offline(page: Path) -> str:
    """The text of a page of one file, which its tags do not let load anything else."""
    text = page.read_text(encoding="utf-8")
    assert text.lstrip().lower().startswith("<!doctype html")
    parser = _Loaded()
    parser.feed(text)
    assert [address for address in parser.found if not address.startswith(HERE)] == []
    assert page.stat().st_size < LARGEST
    return text
