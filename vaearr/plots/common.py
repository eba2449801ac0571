"""Where `vaearr.views.common` was."""

from vaearr.views.common import *  # noqa: F403
