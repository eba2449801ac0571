"""A made-up polycrystal on a scan grid: grains, twins, phases, orientations, quality, a scratch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaearr.testing.kikuchi import Floats, multiply, random_orientations, rotation

FCC, BCC = 0, 1
BCC_SHARE = 0.35  # of the grains
GRADIENT = 0.1  # mean orientation gradient in a grain, degrees per scan point
JITTER = 0.05  # orientation noise per scan point, degrees
MIXING = 0.45  # standard deviation of the interaction volume, scan points


@dataclass(frozen=True)
class Microstructure:
    """Truth of a scan, every array over (y, x); `orientation` has four components more."""

    grain: NDArray[np.int32]
    phase: NDArray[np.int16]
    orientation: Floats
    quality: NDArray[np.float32]
    own_fraction: NDArray[np.float32]
    scratch: NDArray[np.float32]
    brightness: NDArray[np.float32]


def microstructure(
    ny: int, nx: int, *, n_grains: int, n_twins: int, scratch: bool, rng: np.random.Generator
) -> Microstructure:
    """Voronoi grains with wavy boundaries, `n_twins` twin lamellae in fcc grains, two clustered phases."""
    y, x = np.meshgrid(np.arange(ny, dtype=float), np.arange(nx, dtype=float), indexing="ij")
    grain, centres = _grains(y, x, n_grains, rng)
    grain_phase = _grain_phases(centres, rng)
    grain_orientation = random_orientations(n_grains, rng)
    for _ in range(n_twins):
        twin = _twin(grain, grain_phase, grain_orientation, y, x, rng)
        if twin is not None:
            grain, grain_orientation = twin
            grain_phase = np.append(grain_phase, FCC)
    phase = grain_phase[grain].astype(np.int16)
    wound = _scratch(y, x, rng) if scratch else np.zeros((ny, nx))
    waves = _waves(y, x, rng, amplitude=1.0, wavelength=0.6 * max(ny, nx))
    grain_quality = rng.uniform(0.8, 1.0, len(grain_phase))
    quality = grain_quality[grain] * (1 + 0.06 * waves) * (1 - 0.85 * wound)
    brightness = 1 + 0.06 * _waves(y, x, rng, amplitude=1.0, wavelength=1.2 * max(ny, nx))
    brightness = brightness * np.where(phase == FCC, 1.02, 0.98)  # more electrons come back from the heavier phase
    return Microstructure(
        grain=grain.astype(np.int32),
        phase=phase,
        orientation=_orientations(grain, grain_orientation, y, x, rng),
        quality=np.clip(quality, 0, 1).astype(np.float32),
        own_fraction=_own_fraction(grain).astype(np.float32),
        scratch=wound.astype(np.float32),
        brightness=brightness.astype(np.float32),
    )


def _waves(y: Floats, x: Floats, rng: np.random.Generator, *, amplitude: float, wavelength: float) -> Floats:
    """A smooth random field: five plane waves of about the given wavelength, mean near 0."""
    total = np.zeros_like(y)
    for _ in range(5):
        direction, phase = rng.uniform(0, 2 * np.pi, 2)
        k = 2 * np.pi / (wavelength * rng.uniform(0.7, 1.6))
        total += np.sin(k * (np.cos(direction) * x + np.sin(direction) * y) + phase)
    return amplitude * total / np.sqrt(5)


def _grains(y: Floats, x: Floats, n_grains: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
    """Grain numbers, and the grains' centres (n, 2) as shares of the field. Every number occurs, if there is room."""
    from scipy.spatial import cKDTree

    ny, nx = y.shape
    size = np.sqrt(ny * nx / n_grains)
    candidates = rng.random((n_grains * 8, 2)) * (ny, nx)
    centres = candidates[:1]
    for start in range(1, n_grains):  # Mitchell's best candidate: grains of similar size
        group = candidates[start * 8 : start * 8 + 8]
        distance = np.linalg.norm(group[:, None] - centres[None], axis=-1).min(axis=1)
        centres = np.vstack([centres, group[distance.argmax()]])
    shift = 0.12 * size
    points = [part + _waves(y, x, rng, amplitude=shift, wavelength=0.8 * size) for part in (y, x)]
    _, grain = cKDTree(centres).query(np.stack(points, axis=-1))
    return grain, centres / (ny, nx)


def _grain_phases(centres: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Phase of each grain: bcc grains cluster, since a smooth field decides."""
    field = _waves(centres[:, 0], centres[:, 1], rng, amplitude=1.0, wavelength=0.6)
    n_bcc = min(len(centres) - 1, max(1, round(BCC_SHARE * len(centres))))
    phases = np.full(len(centres), FCC)
    phases[np.argsort(field)[:n_bcc]] = BCC
    return phases


def _twin(
    grain: NDArray[np.int64],
    grain_phase: NDArray[np.int64],
    grain_orientation: Floats,
    y: Floats,
    x: Floats,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], Floats] | None:
    """A lamella through an fcc grain, turned by 60 degrees about a <111> of the crystal (Sigma 3), or None."""
    counts = np.bincount(grain.ravel(), minlength=len(grain_phase))
    parents = np.flatnonzero((grain_phase == FCC) & (counts > 30))
    if not len(parents):
        return None
    parent = rng.choice(parents)
    inside = grain == parent
    angle = rng.uniform(0, np.pi)
    offset = (y - y[inside].mean()) * np.cos(angle) + (x - x[inside].mean()) * np.sin(angle)
    lamella = inside & (np.abs(offset) < 0.16 * np.sqrt(counts[parent]))
    axis = rng.choice([[1, 1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    orientation = multiply(rotation(axis, np.deg2rad(60)), grain_orientation[parent])
    return np.where(lamella, len(grain_phase), grain), np.vstack([grain_orientation, orientation])


def _orientations(
    grain: NDArray[np.int64], grain_orientation: Floats, y: Floats, x: Floats, rng: np.random.Generator
) -> Floats:
    """Orientation of each scan point: its grain's, with a linear gradient inside the grain and a little jitter."""
    n = len(grain_orientation)
    counts = np.maximum(np.bincount(grain.ravel(), minlength=n), 1)
    offset = np.stack([part - (np.bincount(grain.ravel(), part.ravel(), n) / counts)[grain] for part in (y, x)], -1)
    direction, axis = rng.standard_normal((n, 2)), rng.standard_normal((n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    axis *= (rng.gamma(4, GRADIENT / 4, n) / np.linalg.norm(axis, axis=1))[:, None]
    bend = (offset * direction[grain]).sum(-1)[..., None] * axis[grain]
    vector = np.deg2rad(bend + JITTER * rng.standard_normal(bend.shape))
    return multiply(rotation(vector, np.linalg.norm(vector, axis=-1)), grain_orientation[grain])


def _own_fraction(grain: NDArray[np.int64]) -> Floats:
    """Share of a scan point's signal that comes from its own grain."""
    side = mixing_weights()
    padded = np.pad(grain, 1, mode="edge")
    ny, nx = grain.shape
    return sum(
        (side[i] * side[j] * (padded[i : i + ny, j : j + nx] == grain) for i in range(3) for j in range(3)),
        start=np.zeros(grain.shape),
    )


def mixing_weights() -> Floats:
    """Shares of the previous, the own and the next scan point along one axis; they sum to 1."""
    weights = np.exp(-0.5 * (np.array([-1.0, 0.0, 1.0]) / MIXING) ** 2)
    return weights / weights.sum()


def _scratch(y: Floats, x: Floats, rng: np.random.Generator) -> Floats:
    """A slightly bent scratch from edge to edge, 1 in its middle and 0 away from it."""
    ny, nx = y.shape
    angle = rng.uniform(0.15, 0.6) * rng.choice([-1, 1])
    bend = 0.03 * ny * np.sin(2 * np.pi * x / nx + rng.uniform(0, 2 * np.pi))
    distance = (y - rng.uniform(0.35, 0.65) * ny - bend) * np.cos(angle) - (x - nx / 2) * np.sin(angle)
    width = max(0.8, 0.02 * min(ny, nx))
    return 1 / (1 + (np.abs(distance) / (1.4 * width)) ** 6)
