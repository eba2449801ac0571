"""Results as pictures: one builder for each kind of result, for the screen, pages and paper.

`view` finds the builder of a result and returns a HoloViews object (or a matplotlib Figure with
`backend="matplotlib"`); `save` writes it as .png, .pdf, .svg or as a self-contained .html page;
`journal` is the style of all figures. `KINDS` is the table of builders. The plotting libraries are
imported when a view is made.
"""

from vaearr.views import (  # noqa: F401  (they register their builders)
    clusters,
    curves,
    layers,
    maps,
    pictures,
    relations,
    sheets,
    spread,
    volumes,
)
from vaearr.views.kinds import KINDS, builder, kind_of, save, show, view
from vaearr.views.paper import journal, on_paper

__all__ = ["KINDS", "builder", "journal", "kind_of", "on_paper", "save", "show", "view"]
