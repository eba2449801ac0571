"""A self-contained HTML page: one template, BokehJS inlined, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vaearr.views.mosaic import scaled

_STYLE = """
:root { color-scheme: light; --page: #eef1f4; --card: #fff; --ink: #1d242b; --soft: #4d5965; --line: #d9dee3;
  --link: #005a8f; --note: #fff6e0; --good: #e8f5f0; --code: #f5f7f8; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --page: #12161a; --card: #1c2228; --ink: #e3e8ec; --soft: #a9b4be; --line: #38424c;
    --link: #7fc3f2; --note: #3b3118; --good: #17362a; --code: #14191e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5; font-size: 16px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 1400px; margin: 0 auto; padding: 20px 16px 64px; }
section, header { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 20px 28px; margin: 0 0 20px; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 .4rem; line-height: 1.25; }
h2 { font-size: 1.25rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
a { color: var(--link); }
p { margin: .4rem 0; max-width: 90ch; }
.note { background: var(--note); border-left: 4px solid #e69f00; padding: 8px 14px; margin: .8rem 0; }
.good { background: var(--good); border-left-color: #009e73; }
.verdict { font-size: 1.1rem; font-weight: 600; margin: .8rem 0; }
.finding::before { content: "→ "; color: #009e73; }
.small, .caption { color: var(--soft); font-size: .92rem; }
.caption { margin: .4rem 0 1.4rem; }
.files { margin-left: .4rem; } .files a { white-space: nowrap; }
.figure { overflow-x: auto; background: #fff; color: #1d242b; color-scheme: light; border-radius: 6px;
  padding: 6px; max-width: 100%; width: fit-content; margin-top: .8rem; }
.figure input { position: absolute; opacity: 0; }
.figure input:focus-visible + img { outline: 2px solid var(--link); }
img { max-width: 100%; height: auto; display: block; }
label img { cursor: zoom-in; }
input:checked + img { position: fixed; inset: 0; z-index: 9; width: 100vw !important; height: 100vh; max-width: none;
  object-fit: contain; background: #fff; padding: 12px; cursor: zoom-out; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: left; padding: 3px 16px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: normal; }
.scroll { overflow-x: auto; margin: .8rem 0; }
details { margin: .6rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; background: var(--code); padding: 12px; font-size: .82rem; border-radius: 6px; }
nav { font-size: .92rem; margin-top: .8rem; clear: both; }
nav a { margin-right: 1rem; display: inline-block; }
@media (min-width: 1000px) { header .sheet { float: right; width: 60%; margin: 0 0 0 28px; } }
@media (max-width: 999px) {
  header { display: flex; flex-direction: column; } header .sheet { order: 1; } nav { order: 2; }
}
@media (max-width: 600px) { main { padding: 8px 6px 40px; } section, header { padding: 14px 12px; }
  th, td { padding-right: 8px; overflow-wrap: anywhere; }
  input:checked + img { position: static; width: 900px !important; height: auto; } }
@media print {
  body { background: #fff; font-size: 10pt; } main { max-width: none; padding: 0; }
  nav, .files { display: none; }
  section, header { border: 0; padding: 0; } h2 { break-after: avoid; }
  .figure, .caption, tr { break-inside: avoid; } .figure { overflow: visible; } }
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

    def caption(self, sentence: str, files: Mapping[str, str] | None = None) -> None:
        """Add a sentence about the figure above it, with links to files that have a path."""
        links = []
        for name, path in (files or {}).items():
            if path:
                links.append(f'<a href="{_safe(path)}">{_safe(name)}</a>')
        ending = f'<span class="files">{" · ".join(links)}</span>' if links else ""
        self.blocks.append(f'<p class="caption">{_safe(sentence)}{ending}</p>')

    def figure(self, model: Any) -> None:
        """Add a bokeh model."""
        self.blocks.append(model)

    def picture(self, png: bytes, alt: str, width: float) -> None:
        """Add a PNG within the page, `width` pixels wide if there is room; a click enlarges it."""
        data = base64.b64encode(png).decode("ascii")
        self.blocks.append(
            f'<div class="figure"><label><input type="checkbox" aria-label="enlarge {_safe(alt)}">'
            f'<img src="data:image/png;base64,{data}" alt="{_safe(alt)}" '
            f'style="width:{width:.0f}px"></label></div>'
        )

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table."""
        frame = pd.DataFrame(list(rows), columns=list(head))
        table = frame.to_html(index=False, border=0, float_format="{:.3g}".format)
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
