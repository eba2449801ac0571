"""Scans and image collections as labelled arrays, a VAE learned on them, the latents written back beside the data.

Data flows one way: sources -> store -> batches -> models and training -> latents -> store -> analyses -> views.
Everything in `__init__.pyi` is loaded when it is first used, so that `import vaearr` is quick.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

import lazy_loader

from vaearr.computing.threads import wait_briefly

__version__ = version("vaearr")
_load, _, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = [name for name in _names if name != "exploration"]  # which is called `explore`


def __getattr__(name: str) -> Any:
    wait_briefly()
    return import_module("vaearr.analysis.exploration") if name == "explore" else _load(name)


def __dir__() -> list[str]:
    return [*__all__, "explore", "__version__"]
