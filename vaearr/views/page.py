"""One self-contained HTML page: our own template, BokehJS inlined, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import html
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vaearr.views.paper import file_of

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #eceff2; color: #1d242b; line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; font-size: 16px; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 16px 64px; }
section, header { background: #fff; border: 1px solid #d9dee3; border-radius: 8px; padding: 20px 28px;
  margin: 0 0 20px; }
h1 { font-size: 1.7rem; margin: 0 0 .4rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .4rem 0; max-width: 90ch; }
.note { background: #fff6e0; border-left: 4px solid #e69f00; padding: 8px 14px; margin: .8rem 0; }
.good { background: #e8f5f0; border-left-color: #009e73; }
.caption { color: #4d5965; font-size: .92rem; margin: .3rem 0 1rem; }
.figure { overflow-x: auto; }
img { max-width: 100%; height: auto; display: block; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: left; padding: 3px 14px 3px 0; border-bottom: 1px solid #e4e8eb; vertical-align: top; }
.scroll { max-height: 420px; overflow: auto; display: inline-block; max-width: 100%; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; background: #f5f7f8; padding: 12px; font-size: .82rem; border-radius: 6px; }
nav { font-size: .92rem; margin-top: .8rem; }
nav a { margin-right: 1rem; color: #005a8f; }
"""


@dataclass
class Section:
    """A part of the page: a heading and blocks of safe HTML; bokeh models are put in where they are
    named.
    """

    name: str
    heading: str
    blocks: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def say(self, sentence: str, style: str = "") -> None:
        """A paragraph of plain text."""
        self.blocks.append(f'<p class="{style}">{_safe(sentence)}</p>')

    def caption(self, sentence: str) -> None:
        """What the figure before shows, and in which units."""
        self.say(sentence, "caption")

    def figure(self, model: Any) -> None:
        """A bokeh model."""
        key = f"{self.name}-{len(self.figures)}"
        self.figures[key] = model
        self.blocks.append(f"\x00{key}\x00")

    def picture(self, figure: Any, alt: str, dpi: int = 130) -> None:
        """A matplotlib figure as a PNG within the page."""
        data = base64.b64encode(png(figure, dpi)).decode("ascii")
        width = round(150 * figure.get_figwidth())
        self.blocks.append(
            f'<div class="figure"><img src="data:image/png;base64,{data}" alt="{_safe(alt)}" '
            f'style="width:{width}px"></div>'
        )

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table."""
        table = pd.DataFrame(list(rows), columns=list(head)).to_html(
            index=False, border=0, float_format="{:.4g}".format
        )
        self.blocks.append(f'<div class="scroll">{table}</div>')

    def folded(self, summary: str, content: str) -> None:
        """Preformatted text that opens on a click."""
        self.blocks.append(
            f"<details><summary>{_safe(summary)}</summary><pre>{_safe(content)}</pre></details>"
        )


def _safe(text: str) -> str:
    """Text that HTML shows as it is."""
    return html.escape(text.replace("\x00", ""), quote=True)


LEVELS = (
    126  # steps between the limits of what travels packed: finer than colours can be told apart
)
MISSING = 255  # stands for NaN
UNPACK = """
const unpack = async (data) => {
  const packed = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const codes = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let i = 1; i < codes.length; i++) codes[i] = (codes[i] + codes[i - 1]) & 255;
  return codes;
};
"""


def packed(values: np.ndarray, limits: tuple[float, float]) -> str:
    """An array in steps between its limits as text for a page, which `UNPACK` reads: differences,
    deflated.
    """
    low, high = limits
    scaled = np.rint(np.clip((values - low) / (high - low), 0, 1) * LEVELS)
    codes = np.where(np.isfinite(values), scaled, MISSING).astype("u1").ravel()
    steps = np.diff(codes, prepend=np.uint8(0))  # wraps modulo 256, as the sum in the page does
    return base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode("ascii")


def png(figure: Any, dpi: int) -> bytes:
    """A matplotlib figure as the bytes of a PNG file."""
    return file_of(figure, ".png", dpi)


def page(heading: str, introduction: Section, sections: Sequence[Section]) -> str:
    """The page as text. It loads nothing: style, BokehJS, data and pictures are within."""
    from bokeh.embed import components

    everything = [introduction, *sections]
    models = {
        key: _plain_toolbar(model)
        for section in everything
        for key, model in section.figures.items()
    }
    with _frames_without_size():
        script, divs = components(models) if models else ("", {})
    library = _library() if models else ""
    links = "".join(f'<a href="#{s.name}">{_safe(s.heading)}</a>' for s in sections)
    parts = [
        f"<header><h1>{_safe(heading)}</h1>{_body(introduction, divs)}<nav>{links}</nav></header>",
        *(
            f'<section id="{s.name}"><h2>{_safe(s.heading)}</h2>{_body(s, divs)}</section>'
            for s in sections
        ),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{_safe(heading)}</title>\n<style>{_STYLE}</style>\n{library}\n'
        f"</head>\n<body>\n<main>\n{''.join(parts)}\n</main>\n{script}\n</body>\n</html>\n"
    )


def _library() -> str:
    """BokehJS itself. Not by `bokeh.resources`: panel, which hvplot brings, adds scripts from
    elsewhere there.
    """
    from bokeh.settings import settings

    folder = Path(settings.bokehjs_path()) / "js"
    texts = [
        (folder / f"{name}.min.js").read_text(encoding="utf-8")
        for name in ("bokeh", "bokeh-widgets")
    ]
    return "\n".join(
        "<script>\n" + text.replace("</script", "<\\/script") + "\n</script>" for text in texts
    )


def _body(section: Section, divs: dict[str, str]) -> str:
    body = "\n".join(section.blocks)
    for key in section.figures:
        body = body.replace(f"\x00{key}\x00", f'<div class="figure">{divs[key]}</div>')
    return body


def _plain_toolbar(model: Any) -> Any:
    """Without the logo, which is a link to elsewhere."""
    from bokeh.models import Toolbar

    for toolbar in model.select({"type": Toolbar}):
        toolbar.logo = None
    return model


@contextmanager
def _frames_without_size() -> Iterator[None]:
    """HoloViews sizes frames, not figures; bokeh draws them well, but tells of it figure by figure."""
    from bokeh.core.validation.check import is_silenced, silence
    from bokeh.core.validation.warnings import FIXED_SIZING_MODE

    before = is_silenced(FIXED_SIZING_MODE)
    silence(FIXED_SIZING_MODE, True)
    try:
        yield
    finally:
        silence(FIXED_SIZING_MODE, before)
