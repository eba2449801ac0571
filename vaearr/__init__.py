"""Scans and image collections as labelled arrays, a VAE learned on them, the latents written back beside the data.

Data flows one way: sources -> store -> batches -> models and training -> latents -> store -> analyses -> views.
The public names are listed in `__init__.pyi`, and loaded when they are first used, so that `import vaearr` is quick.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

import lazy_loader

from vaearr.computing.threads import wait_briefly

_load, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("vaearr")


def __getattr__(name: str) -> Any:
    wait_briefly()
    return import_module("vaearr.analysis.exploration") if name == "explore" else _load(name)


def __dir__() -> list[str]:
    return [*_names(), "explore"]
