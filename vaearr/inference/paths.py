"""Paths between two latent vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vaearr.errors import UsageError

PARALLEL = 1e-6  # sine of the angle below which two directions are one


def lerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The straight path (1 - t) a + t b: `2 x (L,), (T,) -> (T, L)`."""
    a, b, t = np.asarray(a, float), np.asarray(b, float), np.asarray(t, float)[:, None]
    return (1 - t) * a + t * b


def slerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The path at constant angular speed: `2 x (L,), (T,) -> (T, L)`; vectors of one length keep it on the way.

    sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b with the angle w between a and b; the straight path where they point
    the same way, its limit. Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985; for latents of a
    Gaussian prior: White, "Sampling Generative Networks", arXiv:1609.04468. Raises UsageError for a vector of zeros and
    for opposite ones, between which there is no one arc.
    """
    a, b, t = np.asarray(a, float), np.asarray(b, float), np.asarray(t, float)
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    if not min(lengths) > 0:
        raise UsageError("slerp needs two latent vectors that point somewhere, one is all zeros; use lerp.")
    one, two = a / lengths[0], b / lengths[1]
    angle = 2 * np.arctan2(np.linalg.norm(one - two), np.linalg.norm(one + two))  # exact for small and large angles
    if np.sin(angle) < PARALLEL:
        if angle > 1:
            raise UsageError("slerp has no one arc between opposite latent vectors; use lerp.")
        return lerp(a, b, t)
    first, second = np.sin((1 - t) * angle), np.sin(t * angle)
    return (first[:, None] * a + second[:, None] * b) / np.sin(angle)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {"lerp": lerp, "slerp": slerp}
