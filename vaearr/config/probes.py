"""Settings of probes."""

from __future__ import annotations

from typing import ClassVar

from vaearr.config import RUN, Config, Name, field
from vaearr.names import DEFAULT_RUN


class ProbeConfig(Config):
    """How well targets are told from features, at points that were left out."""

    passing: ClassVar[tuple[str, ...]] = ("name",)

    run: str = field(DEFAULT_RUN, RUN)
    targets: tuple[str, ...] = field(
        (), "variables; empty = BC, every element, phase, as far as present"
    )
    features: tuple[str, ...] = field(
        (), "variables, each a set: patterns, BC, any; empty = latents, and those of a run pca"
    )
    by: str | None = field(
        None,
        "what folds leave out whole: a map or coordinate, blocks, random; default: blocks; groups of a collection",
    )
    folds: int = field(5, "folds", ge=2)
    max_points: int = field(
        5000, "points that probes learn from and are judged at, drawn from the region", ge=100
    )
    n_permutations: int = field(
        99, "random targets for the p-value, 0 = none; the least is 1 / (n + 1)", ge=0
    )
    name: Name | None = field(None, "table probe_<name> of the run; default: probe")
    seed: int = field(0, "of points, folds and random targets", ge=0)
