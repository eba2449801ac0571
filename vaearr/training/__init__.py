"""Training: `fit` is the only loop, over one object, `Training`; `train_model` makes it and judges
what it learned.

`fit_model` is for models that are fitted in closed form.
"""

from __future__ import annotations

from vaearr.training.checkpoint import fingerprint
from vaearr.training.loop import train_model
from vaearr.training.processes import joined

__all__ = ["fingerprint", "joined", "train_model"]
