"""Training: `fit` is the only loop, over one object, `Training`; `train_model` makes it and judges what it learned."""

from __future__ import annotations

from vaearr.training.checkpoint import CHECKPOINT, Training, fingerprint
from vaearr.training.job import train_model
from vaearr.training.loop import evaluate, fit
from vaearr.training.processes import Processes, joined
from vaearr.training.schedule import make_optimizer, rate_at
from vaearr.training.step import Step, seeded

__all__ = [
    "CHECKPOINT",
    "Processes",
    "Step",
    "Training",
    "evaluate",
    "fingerprint",
    "fit",
    "joined",
    "make_optimizer",
    "rate_at",
    "seeded",
    "train_model",
]
