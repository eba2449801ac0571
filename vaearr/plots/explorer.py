"""Where `vaearr.views.explorer` was."""

from vaearr.views.explorer import *  # noqa: F403
