"""Training: `train_model` prepares a training and measures what it learned; `fit` is the only loop,
over one object, `Training`.

`fit_model` is for models that are fitted in closed form.
"""

from __future__ import annotations

from vaearr.training.checkpoint import array_sha256
from vaearr.training.processes import joined_processes
from vaearr.training.train import train_model

__all__ = ["array_sha256", "joined_processes", "train_model"]
