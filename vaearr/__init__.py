"""Scans and image collections as labelled arrays, a VAE learned on them, the latents written back beside the data.

Data flows one way: sources -> store -> batches -> models and training -> latents -> store -> analyses -> views.
The public names are listed in `__init__.pyi`, and loaded when they are first used, so that `import vaearr` is quick.
"""

from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any

import lazy_loader

_load, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("vaearr")


class _Explore(ModuleType):
    """`va.explore(run)` opens the page; its functions, such as `va.explore.traverse`, look around without one."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return import_module("vaearr.app.serve").explore(*args, **settings)


def __getattr__(name: str) -> Any:
    if name != "explore":
        return _load(name)
    exploration = import_module("vaearr.run.exploration")
    exploration.__class__ = _Explore
    return exploration


def __dir__() -> list[str]:
    return [*_names(), "explore"]
