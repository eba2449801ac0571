"""Settings of probes, and of maps filled from labels of some points or from crystal structures."""

from __future__ import annotations

from typing import ClassVar

from vaearr.config import RUN, Config, Name, field
from vaearr.names import DEFAULT_RUN


class ProbeConfig(Config):
    """How well targets are told from features, at points that were left out."""

    passing: ClassVar[tuple[str, ...]] = ("name", "maps")

    run: str = field(DEFAULT_RUN, RUN)
    targets: tuple[str, ...] = field((), "variables; empty = BC, every element, phase, as far as present")
    features: tuple[str, ...] = field((), "variables, each a set: patterns, BC, any; empty = latents, and pca if there")
    by: str | None = field(
        None, "what folds leave out whole: a map or coordinate, blocks, random; default: blocks; groups of a collection"
    )
    folds: int = field(5, "folds", ge=2)
    max_points: int = field(5000, "points that probes learn from and are judged at, drawn from the region", ge=100)
    n_permutations: int = field(99, "random targets for the p-value, 0 = none; the least is 1 / (n + 1)", ge=0)
    maps: bool = field(False, "also what is predicted for each point, and the residual")
    name: Name | None = field(None, "table probe_<name> of the run; default: probe")
    seed: int = field(0, "of points, folds and random targets", ge=0)


class PredictConfig(Config):
    """From labels of some points to a map of all."""

    passing: ClassVar[tuple[str, ...]] = ("name",)

    run: str = field(DEFAULT_RUN, "run whose latents and region of interest are used")
    name: Name = field("predicted", "variable that the map is written to")
    features: tuple[str, ...] = field(("latents",), "variables to predict from: latents, pca, BC, elements, any map")
    max_points: int = field(20_000, "labelled points that are learned from at most", ge=100)
    seed: int = field(0, "of the choice among more", ge=0)


class MatchConfig(Config):
    """How phases are told by their crystal structures."""

    passing: ClassVar[tuple[str, ...]] = ("name",)

    run: str = field(DEFAULT_RUN, "run whose decoded patterns are matched")
    name: Name = field("phase_matched", "variable that the map is written to")
    projection_centre: tuple[float, float, float] | None = field(
        None, "Bruker's convention: x, y, distance in detector sides; default: as the scan's file says"
    )
    sample_tilt: float = field(70.0, "tilt of the sample in degrees")
    tilt: float = field(0.0, "tilt of the detector in degrees")
    energy: float = field(20.0, "beam energy in keV", gt=0)
    resolution: float = field(3.0, "distance of simulated orientations in degrees", gt=0.5)
    spacing: float = field(0.7, "of a CIF: least distance of the lattice planes in angstrom", gt=0)
