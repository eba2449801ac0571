"""A self-contained HTML page: one template, BokehJS inlined, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vaearr.views.mosaic import scaled
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
    """A section of a page: a heading and blocks, each safe HTML or a bokeh model."""

    name: str
    heading: str
    blocks: list[Any] = field(default_factory=list)

    def say(self, sentence: str, style: str = "") -> None:
        """Add a paragraph of plain text."""
        self.blocks.append(f'<p class="{style}">{_safe(sentence)}</p>')

    def caption(self, sentence: str) -> None:
        """Add a sentence that explains the figure above it."""
        self.say(sentence, "caption")

    def figure(self, model: Any) -> None:
        """Add a bokeh model."""
        self.blocks.append(model)

    def picture(self, figure: Any, alt: str, dpi: int = 130) -> None:
        """Add a matplotlib figure as a PNG within the page."""
        data = base64.b64encode(file_of(figure, ".png", dpi)).decode("ascii")
        width = round(150 * figure.get_figwidth())
        self.blocks.append(
            f'<div class="figure"><img src="data:image/png;base64,{data}" alt="{_safe(alt)}" '
            f'style="width:{width}px"></div>'
        )

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table."""
        frame = pd.DataFrame(list(rows), columns=list(head))
        table = frame.to_html(index=False, border=0, float_format="{:.4g}".format)
        self.blocks.append(f'<div class="scroll">{table}</div>')

    def folded(self, summary: str, content: str) -> None:
        """Add preformatted text that opens on a click."""
        self.blocks.append(
            f"<details><summary>{_safe(summary)}</summary><pre>{_safe(content)}</pre></details>"
        )


def _safe(text: str) -> str:
    """Text in which HTML finds no markup."""
    return html.escape(text, quote=True)


LEVELS = 126  # steps between the limits of a packed array: finer than the eye distinguishes
MISSING = 255  # code of NaN
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
    """Compress an array to text for a page, which `UNPACK` reads: steps between its limits."""
    steps = np.rint(scaled(values, limits) * LEVELS)
    codes = np.where(np.isfinite(values), steps, MISSING).astype("u1").ravel()
    differences = np.diff(codes, prepend=np.uint8(0))  # modulo 256, like the sum in the page
    return base64.b64encode(zlib.compress(differences.tobytes(), 9)).decode("ascii")


def page(heading: str, introduction: Section, sections: Sequence[Section]) -> str:
    """Write a page as HTML that loads nothing: style, BokehJS, data and pictures are inline."""
    blocks = [block for section in (introduction, *sections) for block in section.blocks]
    models = {str(id(block)): block for block in blocks if not isinstance(block, str)}
    script, library = "", ""
    divs: dict[str, str] = {}
    if models:
        script, divs = _embedded(models)
        library = _library()
    links = ""
    bodies = ""
    for section in sections:
        section_heading = _safe(section.heading)
        links += f'<a href="#{section.name}">{section_heading}</a>'
        body = _body(section, divs)
        bodies += f'<section id="{section.name}"><h2>{section_heading}</h2>{body}</section>'
    title = _safe(heading)
    header = f"<header><h1>{title}</h1>{_body(introduction, divs)}<nav>{links}</nav></header>"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n{library}\n</head>\n"
        f"<body>\n<main>\n{header}{bodies}\n</main>\n{script}\n</body>\n</html>\n"
    )


def _embedded(models: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The script that draws bokeh models, and the element of each; without bokeh's logo and link.

    HoloViews sizes frames, not figures, about which bokeh would warn.
    """
    from bokeh.core.validation.check import silence
    from bokeh.core.validation.warnings import FIXED_SIZING_MODE
    from bokeh.embed import components
    from bokeh.models import Toolbar

    for model in models.values():
        for toolbar in model.select({"type": Toolbar}):
            toolbar.logo = None
    silence(FIXED_SIZING_MODE, True)
    try:
        script, divs = components(models)
    finally:
        silence(FIXED_SIZING_MODE, False)
    return script, divs


def _library() -> str:
    """BokehJS as inline scripts.

    `bokeh.resources` is not used: panel, which hvplot imports, adds scripts of other sites to it.
    """
    from bokeh.settings import settings

    folder = Path(settings.bokehjs_path()) / "js"
    scripts = ""
    for name in ("bokeh", "bokeh-widgets"):
        text = (folder / f"{name}.min.js").read_text(encoding="utf-8")
        text = text.replace("</script", "<\\/script")
        scripts += f"<script>\n{text}\n</script>\n"
    return scripts


def _body(section: Section, divs: dict[str, str]) -> str:
    body = []
    for block in section.blocks:
        html_block = block
        if not isinstance(block, str):
            html_block = f'<div class="figure">{divs[str(id(block))]}</div>'
        body.append(html_block)
    return "\n".join(body)
