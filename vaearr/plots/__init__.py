from vaearr.views import journal  # noqa: F401
