"""A saved view in a real browser: pictures are drawn and the selector works, with nothing to ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaearr.plots.exploration_pages import save_view
from vaearr.plots.exploration_views import traversal_view

from ..contract.browser import CHROMIUM, browser
from .exploration_results import SIGNALS, traversal

_SHOWN = """[...Bokeh.documents[0]._all_models.values()]
  .filter(m => m.type == 'Figure' && m.visible).map(m => m.title.text)"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_the_selector_changes_the_strip(tmp_path: Path) -> None:
    out = save_view(traversal_view(traversal(SIGNALS["grey"])), tmp_path / "t.html")
    with browser(tmp_path / "profile") as page:
        page.go(out.resolve().as_uri())
        page.until("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
        (before,) = page.run(_SHOWN)
        assert before.startswith("latent 4")
        page.run(
            "{ for (const m of Bokeh.documents[0]._all_models.values()) if (m.type == 'Select') m.value = '1'; 0 }"
        )
        (after,) = page.run(_SHOWN)
        assert after.startswith("latent 7")
        assert page.errors == []
        assert all(address.startswith(("file:", "data:", "blob:", "about:")) for address in page.requests)
