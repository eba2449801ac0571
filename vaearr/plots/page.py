"""Where `vaearr.views.page` was."""

from vaearr.views.page import *  # noqa: F403
