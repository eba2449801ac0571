from vaearr.views.pictures import pictures  # noqa: F401
