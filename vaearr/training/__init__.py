"""Training: `fit` is the only loop; what it needs (step, schedule, checkpoint, processes, loggers) stands beside it."""

from __future__ import annotations

from vaearr.training.checkpoint import CHECKPOINT, fingerprint
from vaearr.training.job import Job, Trained, train_model
from vaearr.training.loop import Fit, OnEpoch, OnStep, evaluate, fit
from vaearr.training.processes import Processes, joined
from vaearr.training.schedule import make_optimizer, rate_at
from vaearr.training.step import Step, seeded

__all__ = [
    "CHECKPOINT",
    "Fit",
    "Job",
    "OnEpoch",
    "OnStep",
    "Processes",
    "Step",
    "Trained",
    "evaluate",
    "fingerprint",
    "fit",
    "joined",
    "make_optimizer",
    "rate_at",
    "seeded",
    "train_model",
]
