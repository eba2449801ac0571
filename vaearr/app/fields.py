"""Fields to choose and type in, in the colours of the page."""

from __future__ import annotations

from functools import partial
from typing import Any

import panel as pn

FIELD = """
select:not([multiple]) { appearance: auto !important; background-image: none !important; }
select, option, input { background-color: var(--paper) !important; color: var(--ink) !important; }
.bk-spin-btn { filter: var(--glyphs); }
.bk-btn.bk-active { box-shadow: inset 0 -3px 0 var(--accent) !important; font-weight: 600; }
.bk-btn:focus-visible, select:focus-visible, input:focus-visible { outline: 2px solid var(--accent); }
"""

Select: Any = partial(pn.widgets.Select, stylesheets=[FIELD])
IntInput: Any = partial(pn.widgets.IntInput, stylesheets=[FIELD])
FloatInput: Any = partial(pn.widgets.FloatInput, stylesheets=[FIELD])
MultiChoice: Any = partial(pn.widgets.MultiChoice, stylesheets=[FIELD])
RadioButtonGroup: Any = partial(pn.widgets.RadioButtonGroup, stylesheets=[FIELD])
Button: Any = partial(pn.widgets.Button, stylesheets=[FIELD])
IntSlider: Any = partial(pn.widgets.IntSlider, stylesheets=[FIELD])
