"""Scans and image collections as labelled arrays, a VAE trained on them, and the latents written back
next to the data.

Data flows one way: sources -> store -> batches -> models and training -> latents -> store ->
analyses -> views. The public names are listed in `__init__.pyi`, and loaded when they are first
used, so that `import vaearr` is quick.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("vaearr")
