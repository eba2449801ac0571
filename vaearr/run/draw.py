"""Pictures that no input stands for: latents decoded, draws from the prior, and the way between two
samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, UsageError, did_you_mean
from vaearr.models.preprocess import needs_input, undo_without_input
from vaearr.run import Run
from vaearr.run.statistics import latent_statistics, latent_sums
from vaearr.schema.grid import find_point
from vaearr.sources.single import read_single

BATCH = 256
PARALLEL = 1e-6  # sine of the angle below which two directions are one
SOURCES = ("fitted", "prior")
STEP = "step"

Point = Mapping[str, Any] | int | Path


def decoded_array(opened: Run, z: np.ndarray, dim: str) -> xr.DataArray:
    """Latents `(k, *latent_shape)` decoded: `(dim, [channel,] dy, dx)`.

    In stored units where the preprocessing treats all patterns alike (no normalisation, no dynamic
    background), else in preprocessed ones, because there is no input whose scale could be given
    back; the attribute `scale` says which.
    """
    model, signal, parts = opened.model, schema.signal_dims(opened.ds), []
    for some in torch.from_numpy(np.asarray(z, np.float32)).split(model.fitting(BATCH)):
        decoded = model.decode_batch(some)
        if not needs_input(model.preprocess_config):
            decoded = undo_without_input(
                decoded, model.preprocess.background, model.preprocess_config
            )
        parts.append(model.preprocess.enlarged(decoded).cpu().numpy())
    return xr.DataArray(
        np.concatenate(parts).reshape(-1, *(opened.ds.sizes[d] for d in signal)),
        dims=(dim, *signal),
        coords={d: opened.ds[d] for d in signal if d in opened.ds.coords},
        name="decoded",
        attrs={"long_name": "decoded pattern", n.SIGNAL_DIMS: list(signal), **scale_attrs(opened)},
    )


def scale_attrs(opened: Run, *, stored: bool | None = None) -> dict[str, str]:
    """Units of pictures: those of the stored patterns, or 1 for preprocessed ones; None: as of
    `decoded_array`.
    """
    if not needs_input(opened.model.preprocess_config) if stored is None else stored:
        return {"units": str(opened.ds[n.PATTERNS].attrs.get("units", "1")), "scale": "stored"}
    return {"units": "1", "scale": "preprocessed"}


@torch.inference_mode()
def seen_batch(opened: Run, raw: torch.Tensor) -> torch.Tensor:
    """Stored patterns `(B, C, …)` in the units of `decoded_array`."""
    if not needs_input(opened.model.preprocess_config):
        return raw.float()
    steps = opened.model.preprocess
    return steps.enlarged(steps(raw.to(opened.model.device))).cpu()


def check_draws(opened: Run, n_samples: int, source: str) -> None:
    """Raise UsageError for draws that cannot be made."""
    if n_samples < 1:
        raise UsageError(f"n_samples is {n_samples}; it must be at least 1.")
    if source not in SOURCES:
        raise UsageError(f"there is no source {source!r}.{did_you_mean(source, list(SOURCES))}")
    if source == "prior" and opened.model.network.is_deterministic:
        raise UsageError(
            f"run {opened.name!r} is an autoencoder, which has no prior; draw from the fitted distribution of its "
            "latents with source='fitted' (--source fitted)."
        )


def draw_latents(
    opened: Run, n_samples: int, seed: int, source: str, batch_size: int = BATCH
) -> Iterator[np.ndarray]:
    """Batches of draws `(k, *latent_shape)`, float32: those of `sample` with the same seed, one
    after another.

    Raises UsageError for draws that cannot be made, NoInputError for a fitted distribution of a run
    not encoded.
    """
    check_draws(opened, n_samples, source)
    rng, shape, size = (
        np.random.default_rng(seed),
        opened.model.latent_shape,
        opened.model.fitting(batch_size),
    )
    mean, root = np.zeros(shape[0]), np.eye(shape[0])
    if source == "fitted":
        sums = latent_sums(opened)
        values, vectors = np.linalg.eigh(sums.covariance + np.diag(sums.variance / sums.count))
        mean, root = sums.mean, vectors * np.sqrt(np.maximum(values, 0))
    for start in range(0, n_samples, size):
        draws = rng.standard_normal((min(size, n_samples - start), *shape))
        if source == "fitted":
            draws = np.moveaxis(mean + np.moveaxis(draws, 1, -1) @ root.T, -1, 1)
        yield draws.astype(np.float32)


def draw_warnings(opened: Run, source: str) -> list[str]:
    """Why draws from the prior of an encoded run would not look like its data."""
    if source != "prior" or n.run_name(n.LATENTS, opened.name) not in opened.ds:
        return []
    return list(latent_statistics(opened).attrs["warnings"])


def sample(opened: Run, n_samples: int, seed: int, source: str) -> xr.Dataset:
    """Sample latents and decode them, see `Run.sample`."""
    opened.check_model()
    z = np.concatenate(list(draw_latents(opened, n_samples, seed, source)))
    name = "draw from the prior" if source == "prior" else "draw from the fitted distribution"
    return xr.Dataset(
        {
            "latents": (
                (n.SAMPLE, *n.latent_dims(z.ndim - 1)),
                z,
                {"long_name": name, "units": "1"},
            ),
            "decoded": decoded_array(opened, z, n.SAMPLE).assign_attrs(long_name=f"decoded {name}"),
        },
        coords={n.SAMPLE: np.arange(n_samples), n.LATENT: np.arange(z.shape[1])},
        attrs={
            **opened.attrs,
            "source": source,
            "seed": seed,
            "warnings": draw_warnings(opened, source),
        },
    )


def interpolate(opened: Run, a: Point, b: Point, steps: int, method: str) -> xr.Dataset:
    """Interpolate between two samples and decode, see `Run.interpolate`."""
    if method not in METHODS:
        raise UsageError(
            f"there is no interpolation {method!r}.{did_you_mean(method, sorted(METHODS))}"
        )
    if steps < 2:
        raise UsageError(f"steps is {steps}; both ends are steps, so it must be at least 2.")
    opened.check_model()
    ds, model, signal = opened.ds, opened.model, schema.signal_dims(opened.ds)
    stored = np.stack([stored_sample(opened, point) for point in (a, b)])
    raw = torch.from_numpy(stored.reshape(2, *model.input_shape))
    ends = model.encode_batch(raw)[0].cpu().numpy()
    if not np.isfinite(ends).all():
        raise NoInputError(
            "one of the two patterns holds values that are not finite; choose other points."
        )
    t = np.linspace(0, 1, steps)
    z = (
        METHODS[method](ends[0].ravel(), ends[1].ravel(), t)
        .astype(np.float32)
        .reshape(steps, *ends.shape[1:])
    )
    return xr.Dataset(
        {
            "latents": (
                (STEP, *n.latent_dims(z.ndim - 1)),
                z,
                {"long_name": "latent on the way", "units": "1"},
            ),
            "decoded": decoded_array(opened, z, STEP),
            "input": (
                ("end", *signal),
                seen_batch(opened, raw).numpy().reshape(stored.shape),
                {"long_name": "pattern at the end", **scale_attrs(opened)},
            ),
        },
        coords={
            STEP: np.arange(steps),
            "t": (STEP, t),
            n.LATENT: np.arange(z.shape[1]),
            "end": ["a", "b"],
        }
        | _end_coords(ds, (a, b)),
        attrs={
            **opened.attrs,
            "method": method,
            "distance": float(np.linalg.norm((ends[1] - ends[0]).ravel())),
        },
    )


def stored_sample(opened: Run, point: Point) -> np.ndarray:
    """The sample at a point, or of a file, over the signal dims, as it is stored."""
    if isinstance(point, Path):
        found = read_single(opened.ds, point).values
        return found.astype(found.dtype.newbyteorder("="), copy=False)
    return opened.samples([list(find_point(opened.ds, point).values())])[0]


def _end_coords(ds: xr.Dataset, points: tuple[Point, Point]) -> dict[str, Any]:
    """Coordinates that say what the two ends are."""
    places = [{} if isinstance(point, Path) else find_point(ds, point) for point in points]
    if all(places):
        return {
            f"{dim}_of_end": (
                "end",
                [ds[dim].values[place[dim]] for place in places],
                ds[dim].attrs,
            )
            for dim in places[0]
        }
    told = [", ".join(f"{dim} {ds[dim].values[i]}" for dim, i in place.items()) for place in places]
    words = [
        point.name if isinstance(point, Path) else text
        for point, text in zip(points, told, strict=True)
    ]
    return {"file_of_end": ("end", words)}


def lerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The straight path (1 - t) a + t b: `2 x (L,), (T,) -> (T, L)`."""
    a, b, t = np.asarray(a, float), np.asarray(b, float), np.asarray(t, float)[:, None]
    return (1 - t) * a + t * b


def slerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The path at constant angular speed: `2 x (L,), (T,) -> (T, L)`; vectors of one length keep it
    on the way.

    sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b with the angle w between a and b; the straight
    path where they point the same way, its limit. Shoemake, "Animating rotation with quaternion
    curves", SIGGRAPH 1985; for latents of a Gaussian prior: White, "Sampling Generative Networks",
    arXiv:1609.04468. Raises UsageError for a vector of zeros and for opposite ones, between which
    there is no one arc.
    """
    a, b, t = np.asarray(a, float), np.asarray(b, float), np.asarray(t, float)
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    if not min(lengths) > 0:
        raise UsageError(
            "slerp needs two latent vectors that point somewhere, one is all zeros; use lerp."
        )
    one, two = a / lengths[0], b / lengths[1]
    angle = 2 * np.arctan2(
        np.linalg.norm(one - two), np.linalg.norm(one + two)
    )  # exact for small and large angles
    if np.sin(angle) < PARALLEL:
        if angle > 1:
            raise UsageError("slerp has no one arc between opposite latent vectors; use lerp.")
        return lerp(a, b, t)
    first, second = np.sin((1 - t) * angle), np.sin(t * angle)
    return (first[:, None] * a + second[:, None] * b) / np.sin(angle)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "lerp": lerp,
    "slerp": slerp,
}
