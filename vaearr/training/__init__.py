"""Training: `train_model` prepares a training and measures what it learned; `fit` is the only loop,
over one object, `Training`.

`fit_model` is for models that are fitted in closed form.
"""

from __future__ import annotations

from vaearr.training.checkpoint import fingerprint
from vaearr.training.processes import joined
from vaearr.training.train import train_model

__all__ = ["fingerprint", "joined", "train_model"]
