"""Prefect flows: the functions of vaearr from left to right. Installed as `vaearr.flows`, which
nothing else in vaearr imports.

No telemetry: both switches below are read by Prefect when it is imported; set them yourself to
decide otherwise.
"""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
