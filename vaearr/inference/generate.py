"""Pictures that no input stands for: draws from the prior, and the way between two samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, UsageError, did_you_mean
from vaearr.inference.decoding import BATCH, decoded_array, scale_attrs, seen_batch
from vaearr.inference.draws import draw_latents, draw_warnings
from vaearr.inference.paths import METHODS
from vaearr.run import Run, open_run
from vaearr.sources.single import read_single
from vaearr.store import read_block

Source = Literal["prior", "fitted"]
STEP = "step"

Point = Mapping[str, Any] | int | Path


def sample_prior(
    store: str | Path | Run,
    run: str = n.DEFAULT_RUN,
    n_samples: int = 16,
    seed: int = 0,
    *,
    source: Source = "prior",
) -> xr.Dataset:
    """Draws of latents, decoded: `latents (sample, latent[, lz, ly, lx])` and `decoded (sample, [channel,] dy, dx)`.

    source: prior = N(0, 1); fitted = the Gaussian with mean and covariances of the aggregate posterior of an encoded
    run. The positions of a spatial latent are drawn one by one, so that what they decode to has no large structure:
    that is the work of a diffusion stage. The same seed gives the same draws, and fewer samples are the first of more.
    The attribute `scale` of `decoded` says in which units it is, see `decoded_array`; `warnings` of an encoded run, why
    its prior is not its data. Raises UsageError for an autoencoder's prior, which does not exist, NoInputError for a
    run that is not there.
    """
    opened = open_run(store, run)
    z = np.concatenate([batch.numpy() for batch in draw_latents(opened, n_samples, seed, source, BATCH)])
    name = "draw from the prior" if source == "prior" else "draw from the fitted distribution"
    return xr.Dataset(
        {
            "latents": ((n.SAMPLE, *n.latent_dims(z.ndim - 1)), z, {"long_name": name, "units": "1"}),
            "decoded": decoded_array(opened, z, n.SAMPLE).assign_attrs(long_name=f"decoded {name}"),
        },
        coords={n.SAMPLE: np.arange(n_samples), n.LATENT: np.arange(z.shape[1])},
        attrs={**opened.attrs, "source": source, "seed": seed, "warnings": draw_warnings(opened, source)},
    )


def interpolate(
    store: str | Path | Run,
    run: str = n.DEFAULT_RUN,
    a: Point | None = None,
    b: Point | None = None,
    steps: int = 9,
    method: str = "lerp",
) -> xr.Dataset:
    """The way between the posterior means of two scan points or samples, decoded at `steps` points, ends included.

    a, b: coordinates such as `{"x": 2.0, "y": 0.5}`, the nearest scan point within half a step; for a collection the
    value of its coordinate `sample`; or a Path, of a file that becomes a sample as the store's own did
    (`vaearr.sources.single`). method: lerp or slerp. Variables `latents (step, latent[, lz, ly, lx])`,
    `decoded (step, …)` and `input (end, …)`, the two patterns in the units of `decoded` (its attribute `scale`);
    coordinate `t` from 0 to 1. Raises UsageError for a method or point that is not there, and as `slerp` does.
    """
    if method not in METHODS:
        raise UsageError(f"there is no interpolation {method!r}.{did_you_mean(method, sorted(METHODS))}")
    if steps < 2:
        raise UsageError(f"steps is {steps}; both ends are steps, so it must be at least 2.")
    if a is None or b is None:
        raise UsageError('an interpolation needs two points, a={"x": …, "y": …} and b={…}.')
    opened = open_run(store, run)
    stored = [_stored(opened, point).reshape(1, *opened.model.input_shape) for point in (a, b)]
    raw = torch.from_numpy(np.concatenate(stored).astype(stored[0].dtype.newbyteorder("="), copy=False))
    ends = opened.model.encode_batch(raw)[0].cpu().numpy()
    if not np.isfinite(ends).all():
        raise NoInputError("one of the two patterns holds values that are not finite; choose other points.")
    t = np.linspace(0, 1, steps)
    z = METHODS[method](ends[0].ravel(), ends[1].ravel(), t).astype(np.float32).reshape(steps, *ends.shape[1:])
    signal = schema.signal_dims(opened.ds)
    seen = seen_batch(opened, raw).numpy().reshape(2, *(opened.ds.sizes[d] for d in signal))
    where = _ends(opened.ds, (a, b))
    return xr.Dataset(
        {
            "latents": ((STEP, *n.latent_dims(z.ndim - 1)), z, {"long_name": "latent on the way", "units": "1"}),
            "decoded": decoded_array(opened, z, STEP),
            "input": (("end", *signal), seen, {"long_name": "pattern at the end", **scale_attrs(opened)}),
        },
        coords={STEP: np.arange(steps), "t": (STEP, t), n.LATENT: np.arange(z.shape[1]), "end": ["a", "b"], **where},
        attrs={**opened.attrs, "method": method, "distance": float(np.linalg.norm((ends[1] - ends[0]).ravel()))},
    )


def _stored(opened: Run, point: Point) -> np.ndarray:
    """The sample at a point, or of a file."""
    if isinstance(point, Path):
        return read_single(opened.ds, point).values
    place = find_point(opened.ds, point)
    return read_block(opened.ds[n.PATTERNS], {d: slice(i, i + 1) for d, i in place.items()})


def _ends(ds: xr.Dataset, points: tuple[Point, Point]) -> dict[str, Any]:
    """Coordinates that say what the two ends are."""
    if not any(isinstance(point, Path) for point in points):
        places = [find_point(ds, point) for point in points]
        return {
            f"{dim}_of_end": ("end", [ds[dim].values[place[dim]] for place in places], ds[dim].attrs)
            for dim in places[0]
        }
    words = []
    for point in points:
        place = {} if isinstance(point, Path) else find_point(ds, point)
        told = ", ".join(f"{dim} {ds[dim].values[i]}" for dim, i in place.items())
        words.append(point.name if isinstance(point, Path) else told)
    return {"file_of_end": ("end", words)}


def find_point(ds: xr.Dataset, point: Point) -> dict[str, int]:
    """Position of a scan point or sample along each navigation dim. Raises UsageError that says what there is."""
    nav = schema.navigation_dims(ds)
    given = dict(point) if isinstance(point, Mapping) else {nav[0]: point} if len(nav) == 1 else {}
    if set(given) != set(nav):
        raise UsageError(f"a point needs a value for each of {', '.join(nav)}, such as {dict.fromkeys(nav, 0)}.")
    place = {dim: _position(ds, dim, given[dim]) for dim in nav}
    if n.PRESENT in ds and not bool(ds[n.PRESENT].isel(place)):
        raise UsageError(f"the point {given} was not measured; choose another one.")
    return place


def _position(ds: xr.Dataset, dim: str, value: Any) -> int:
    values = ds[dim].values
    if values.dtype.kind not in "iuf":
        hits = np.flatnonzero(values == value)
    else:
        try:
            off = abs(values.astype("f8") - float(value))
        except (TypeError, ValueError):
            raise UsageError(f"{dim} = {value!r} is not a number.") from None
        step = float(np.median(np.diff(np.sort(values.astype("f8"))))) if len(values) > 1 else 1.0
        hits = np.flatnonzero(off == off.min())[:1] if off.min() <= step / 2 * (1 + 1e-9) else np.zeros(0, int)
    if not len(hits):
        units = str(ds[dim].attrs.get("units", ""))
        raise UsageError(
            f"there is nothing at {dim} = {value}; it spans {values[0]} to {values[-1]} {units}".strip() + "."
        )
    return int(hits[0])
