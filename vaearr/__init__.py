"""Scans and image collections as labelled arrays, a VAE learned on them, the latents written back beside the data.

Data flows one way: sources -> store -> batches -> models and training -> latents -> store -> analyses -> views.
The public names are listed in `__init__.pyi`, and loaded when they are first used, so that `import vaearr` is quick.
"""

import sys
from importlib import import_module, util
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from types import ModuleType
from typing import Any

import lazy_loader

from vaearr.computing.threads import wait_briefly

_load, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("vaearr")
_ACCESSOR = "vaearr.app.accessor"


class _Explore(ModuleType):
    """`va.explore(run)` opens the page; its functions, such as `va.explore.traverse`, look around without one."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return import_module("vaearr.app.serve").explore(*args, **settings)


def __getattr__(name: str) -> Any:
    wait_briefly()
    if name != "explore":
        return _load(name)
    exploration = import_module("vaearr.analysis.exploration")
    exploration.__class__ = _Explore
    return exploration


def __dir__() -> list[str]:
    return [*_names(), "explore"]


class _WithAccessor(MetaPathFinder):
    """Makes `ds.vae` where xarray is imported after vaearr, which does not import it, to be quick."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "xarray":
            return None
        sys.meta_path.remove(self)
        spec = util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                import_module(_ACCESSOR)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "xarray" in sys.modules:
    import_module(_ACCESSOR)
else:
    sys.meta_path.insert(0, _WithAccessor())
