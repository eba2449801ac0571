"""Pairs of maps that know nothing of each other, to see how often a test says that they do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

import vaearr as va
from vaearr.config import SignificanceConfig

SHAPE = (48, 64)
Draw = Callable[[np.random.Generator, int], np.ndarray]  # -> (count, y, x)


def gaussian_maps(
    rng: np.random.Generator, count: int, length: float, shape: tuple[int, int] = SHAPE
) -> np.ndarray:
    """Stationary Gaussian fields (count, y, x) with covariance exp(-h^2 / 2 length^2), drawn on a
    torus far larger than the map.
    """
    torus = tuple(4 * size + 8 * int(np.ceil(length)) for size in shape)
    y, x = np.meshgrid(*(np.fft.fftfreq(size) * size for size in torus), indexing="ij")
    h = np.hypot(y, x) / length
    power = np.maximum(np.fft.fft2(np.exp(-0.5 * h**2)).real, 0)
    fields = []
    while len(fields) < count:
        noise = rng.standard_normal(torus) + 1j * rng.standard_normal(torus)
        both = np.fft.ifft2(noise * np.sqrt(power * power.size))[: shape[0], : shape[1]]
        fields += [both.real, both.imag]
    return np.array(fields[:count])


def two_classes(maps: np.ndarray) -> np.ndarray:
    """1 in about three of ten points, else 0."""
    return (maps > 0.5).astype(float)


def irregular_region(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """An ellipse with a hole, a bite and one point in ten missing."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    inside = (y / 0.95) ** 2 + (x / 0.9) ** 2 < 1
    inside &= ((y - 0.2) ** 2 + (x + 0.3) ** 2 > 0.04) & ~((x > 0.4) & (y > 0.3))
    return np.asarray(inside & (np.random.default_rng(5).random(shape) > 0.1))


def null_p_values(
    draw: Draw, n_targets: int, *, n_latents: int = 2, irregular: bool = False, seed: int = 0
) -> np.ndarray:
    """p-values of Pearson's r of independent maps, `n_latents` for each of `n_targets` targets."""
    rng = np.random.default_rng(seed)
    config = SignificanceConfig(n_surrogates=99, seed=seed)
    roi = xr.DataArray(irregular_region(), dims=("y", "x")) if irregular else None
    found = []
    for _ in range(n_targets):
        maps = draw(rng, n_latents + 1)
        latents = xr.DataArray(np.moveaxis(maps[1:], 0, -1), dims=("y", "x", "latent"))
        table = va.associate(
            latents,
            xr.DataArray(maps[0], dims=("y", "x"), name="map"),
            ["pearson"],
            roi,
            significance=config,
        )
        found.append(table.p_value.values.ravel())
    return np.concatenate(found)
