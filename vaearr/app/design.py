"""The look of the explorer's page: its frame, and its colours in light and dark."""

from __future__ import annotations

from typing import Any, ClassVar

import panel as pn
from panel.viewable import Viewable

TEMPLATE = """
{% extends base %}
{% block postamble %}
<meta name="viewport" content="width=device-width">
<style>body { font: 13px system-ui, sans-serif; }</style>
{% endblock %}
{% block contents %}{{ embed(roots.page) }}{{ embed(roots.location) }}{% endblock %}
"""
STYLE = """
:host {
  color: var(--ink);
  --color: var(--ink);
  --background-color: var(--paper);
  --hover-color: var(--shade);
  --border-color: var(--line);
  --panel-surface-color: var(--line);
  --panel-on-background-color: var(--ink);
}
.bk-input { color: var(--ink); }
.noUi-target { background: var(--shade); border-color: var(--line); box-shadow: none; }
.noUi-connect { background: var(--accent) !important; }
"""
PAGE = {"background": "var(--paper)", "min-height": "100vh"}
LIGHT = {
    "--paper": "#fff",
    "--ink": "#1a1d21",
    "--shade": "#eee",
    "--line": "#bbb",
    "--accent": "#0b63a5",
    "color-scheme": "light",
    **PAGE,
}
DARK = {
    "--paper": "#212529",
    "--ink": "#e4e6e8",
    "--shade": "#3a3f44",
    "--line": "#6a7078",
    "--accent": "#7cc0f5",
    "color-scheme": "dark",
    **PAGE,
}


class Design(pn.theme.Design):
    """Widgets in the colours that the page sets."""

    modifiers: ClassVar[dict[type[Viewable], dict[str, Any]]] = {Viewable: {"stylesheets": [STYLE]}}
