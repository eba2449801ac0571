"""Samples of latents, decoded, and interpolations between two samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, UsageError, did_you_mean
from vaearr.run import Run
from vaearr.run.decode import BATCH_SIZE, comparable_inputs, decoded_latents, scale_attrs
from vaearr.run.statistics import aggregate_posterior, latent_statistics
from vaearr.schema.grid import find_point

PARALLEL = 1e-6  # sine of the angle below which two vectors count as parallel
SOURCES = ("fitted", "prior")
STEP = "step"

Point = Mapping[str, Any] | int


def sample(run: Run, n_samples: int, seed: int, source: str) -> xr.Dataset:
    """Sample latents and decode them, see `Run.sample`."""
    run.check_patterns()
    latents = np.concatenate(list(sampled_latents(run, n_samples, seed, source)))
    name = f"sample of the {source} distribution"
    result = decoded_latents(run, latents, {n.SAMPLE: n_samples}, name)
    result["decoded"].attrs["long_name"] = f"decoded {name}"
    result[n.SAMPLE] = np.arange(n_samples)
    warnings = prior_warnings_of(run, source)
    return result.assign_attrs(source=source, seed=seed, warnings=warnings)


def check_source(run: Run, n_samples: int, source: str) -> None:
    """Raise UsageError for samples that the run cannot generate."""
    if n_samples < 1:
        raise UsageError(f"n_samples is {n_samples}; it must be at least 1.")
    if source not in SOURCES:
        raise UsageError(f"there is no source {source!r}.{did_you_mean(source, SOURCES)}")
    if source == "prior" and run.model.network.is_deterministic:
        raise UsageError(
            f"run {run.name!r} is an autoencoder, which has no prior; sample the fitted "
            "distribution of its latents with source='fitted' (--source fitted)."
        )


def sampled_latents(run: Run, n_samples: int, seed: int, source: str) -> Iterator[np.ndarray]:
    """Batches of sampled latents `(k, L[, lz, ly, lx])` float32, see `Run.sample`."""
    check_source(run, n_samples, source)
    rng = np.random.default_rng(seed)
    shape = run.model.latent_shape
    size = run.model.fitting(BATCH_SIZE)
    if source == "fitted":
        mean, covariance = aggregate_posterior(run)
        eigenvalues, eigenvectors = np.linalg.eigh(covariance)
        root = eigenvectors * np.sqrt(np.maximum(eigenvalues, 0))
    for start in range(0, n_samples, size):
        latents = rng.standard_normal((min(size, n_samples - start), *shape))
        if source == "fitted":
            latents = np.moveaxis(mean + np.moveaxis(latents, 1, -1) @ root.T, -1, 1)
        yield latents.astype(np.float32)


def prior_warnings_of(run: Run, source: str) -> list[str]:
    """Reasons why samples of the prior of an encoded run would not resemble its data."""
    if source != "prior" or n.run_name(n.LATENTS, run.name) not in run.ds:
        return []
    return list(latent_statistics(run).attrs["warnings"])


def interpolate(run: Run, a: Point, b: Point, steps: int, method: str) -> xr.Dataset:
    """Interpolate between two samples and decode, see `Run.interpolate`."""
    if method not in METHODS:
        hint = did_you_mean(method, sorted(METHODS))
        raise UsageError(f"there is no interpolation {method!r}.{hint}")
    if steps < 2:
        raise UsageError(f"steps is {steps}; it includes both ends, so it must be at least 2.")
    run.check_patterns()
    model = run.model
    indices = [find_point(run.ds, end) for end in (a, b)]
    stored = run.patterns_at([list(index.values()) for index in indices])
    patterns = torch.from_numpy(stored.reshape(2, *model.input_shape))
    ends = model.encode_batch(patterns)[0].cpu().numpy().astype(float)
    if not np.isfinite(ends).all():
        raise NoInputError(
            "one of the two patterns holds values that are not finite; choose other points."
        )
    t = np.linspace(0, 1, steps)
    path = METHODS[method](ends[0].ravel(), ends[1].ravel(), t)
    latents = path.astype(np.float32).reshape(steps, *ends.shape[1:])
    result = decoded_latents(run, latents, {STEP: steps}, "interpolated latent")
    result["input"] = (
        ("end", *schema.signal_dims(run.ds)),
        comparable_inputs(run, patterns).numpy().reshape(stored.shape),
        {"long_name": "pattern at the end", **scale_attrs(run)},
    )
    result = result.assign_coords({STEP: np.arange(steps), "t": (STEP, t), "end": ["a", "b"]})
    for dim in indices[0]:
        coordinate = run.ds[dim]
        positions = coordinate.values[[index[dim] for index in indices]]
        result.coords[f"{dim}_of_end"] = "end", positions, coordinate.attrs
    distance = float(np.linalg.norm(ends[1] - ends[0]))
    return result.assign_attrs(method=method, distance=distance)


def stored_sample(run: Run, point: Point | np.ndarray | xr.DataArray) -> Any:
    """Read the stored pattern at a point.

    Parameters
    ----------
    run : Run
        A run of the store.
    point : mapping, int or array
        As in `Run.interpolate`; a pattern is returned unchanged.

    Returns
    -------
    numpy.ndarray or xarray.DataArray
        The pattern ``(*signal)``.

    Raises
    ------
    UsageError
        If the point does not exist or was not measured.
    """
    if isinstance(point, np.ndarray | xr.DataArray):
        return point
    indices = find_point(run.ds, point)
    return run.patterns_at([list(indices.values())])[0]


def lerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Interpolate linearly: (1 - t) a + t b.

    Parameters
    ----------
    a, b : numpy.ndarray, shape (L,)
        Start and end.
    t : numpy.ndarray, shape (T,)
        Positions from 0 to 1.

    Returns
    -------
    numpy.ndarray
        ``(T, L)``.
    """
    share = t[:, None]
    return (1 - share) * a + share * b


def slerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Interpolate along a great circle, at constant angular speed.

    sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b with the angle w between a and b; the linear
    interpolation for parallel vectors, its limit.

    Parameters
    ----------
    a, b : numpy.ndarray, shape (L,)
        Start and end.
    t : numpy.ndarray, shape (T,)
        Positions from 0 to 1.

    Returns
    -------
    numpy.ndarray
        ``(T, L)``.

    Raises
    ------
    UsageError
        For a zero vector and for opposite ones.

    References
    ----------
    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985; for latents of a Gaussian
    prior: White, "Sampling Generative Networks", arXiv:1609.04468.
    """
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    if not min(lengths) > 0:
        raise UsageError(
            "slerp needs two latent vectors with a direction, one is all zeros; use lerp."
        )
    unit_a = a / lengths[0]
    unit_b = b / lengths[1]
    chord = np.linalg.norm(unit_a - unit_b)
    angle = 2 * np.arctan2(chord, np.linalg.norm(unit_a + unit_b))  # exact for small angles
    if np.sin(angle) < PARALLEL:
        if angle > 1:
            raise UsageError("slerp has no unique arc between opposite latent vectors; use lerp.")
        return lerp(a, b, t)
    share = t[:, None]
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "lerp": lerp,
    "slerp": slerp,
}
