"""Latent vectors decoded for the page, by the kernels of `vaearr.exploration`. Imports torch when first used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.app.samples import PICTURE, stored_values
from vaearr.app.state import State, base_of
from vaearr.errors import DataError

TRIES = 3


def warm(state: State) -> None:
    """Load the network, decode once, which is slow, and find out how long it takes from then on.

    Where the state may tune it, also whether one thread is faster than all. It is for small networks, the more so where
    the processors are busy: threads wait for each other.
    """
    vector = state.origin.centre[None]
    decode(state, vector)
    taken = {}
    for count in (0, 1) if state.tunes else (0,):
        state.threads, times = count, []
        for _ in range(TRIES):
            began = perf_counter()
            decode(state, vector)
            times.append(perf_counter() - began)
        taken[count] = sorted(times)[TRIES // 2]
    state.threads = min(taken, key=lambda count: taken[count])
    state.seconds = taken[state.threads]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """torch with so many threads; with 0 it is left alone."""
    import torch

    if not count:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def begin(state: State, vector: np.ndarray, base: np.ndarray | None = None) -> Any:
    """A `Start` at a vector `(latent)`: `base` (a spatial latent's own pattern; the mean of all) moved to it.

    Raises DataError for a vector of another length.
    """
    origin = state.origin
    vector = np.asarray(vector, np.float64)
    if vector.shape != origin.centre.shape:
        raise DataError(f"the vector has shape {vector.shape}; expected ({len(origin.centre)},).")
    z = begin_at(state, base).moved(range(len(vector)), vector[None])[0]
    return replace(origin, latents=z.astype(np.float64), name="the sliders")


def begin_at(state: State, base: np.ndarray | None) -> Any:
    """A `Start` at the latents of a sample; where a mask left positions out, at their channel's mean."""
    origin = state.origin
    if base is None:
        return origin
    from vaearr.exploration.bases import filled
    from vaearr.exploration.points import open_encoded

    known = base if np.isfinite(base).all() else filled(open_encoded(state.path, state.run), base[None])[0]
    return replace(origin, latents=np.asarray(known, np.float64))


def decode(state: State, vectors: np.ndarray, *, base: np.ndarray | None = None) -> xr.DataArray:
    """Latent vectors `(k, latent)` decoded in one go: `(picture, [channel,] …)`.

    A spatial latent keeps the pattern of `base` (None: of the mean of all) and is moved to the vector's means. Raises
    DataError for vectors of another length.
    """
    vectors = np.asarray(vectors, np.float64)
    size = len(state.origin.centre)
    if vectors.ndim != 2 or vectors.shape[1] != size:
        raise DataError(f"vectors have shape {vectors.shape}; expected (k, {size}).")
    return decode_latents(state, begin_at(state, base).moved(range(size), vectors))


def decode_latents(state: State, z: np.ndarray) -> xr.DataArray:
    """Latents `(k, *latent_shape)` decoded: `(picture, [channel,] …)`."""
    from vaearr.inference.decoding import decoded_array

    with _threads(state.threads):
        return decoded_array(state.opened, z, PICTURE)


def seen(state: State, indices: list[int]) -> xr.DataArray:
    """Samples in the units in which latents are decoded, `(picture, [channel,] …)`."""
    import torch

    from vaearr.inference.decoding import seen_batch

    signal = schema.signal_dims(state.ds)
    raw = np.stack([stored_values(state, i).reshape(schema.input_shape(state.ds)) for i in indices])
    raw = np.ascontiguousarray(raw, raw.dtype.newbyteorder("="))
    values = seen_batch(state.opened, torch.from_numpy(raw)).numpy()
    shape = (len(indices), *(state.ds.sizes[dim] for dim in signal))
    return xr.DataArray(values.reshape(shape), dims=(PICTURE, *signal), name=n.PATTERNS)


def rebuilt(state: State, indices: list[int]) -> xr.DataArray:
    """Samples decoded from their stored latents, `(picture, [channel,] …)`."""
    z = np.stack([begin_at(state, base_of(state, i)).latents for i in indices])
    return decode_latents(state, z)


@dataclass(frozen=True)
class Traversal:
    """offsets `(steps,)` in standard deviations, values `(dims, steps)`, `decoded (picture, …)` row by row."""

    offsets: np.ndarray
    values: np.ndarray
    decoded: xr.DataArray


def traversal(
    state: State, vector: np.ndarray, dims: list[int], *, steps: int = 9, reach: float = 3.0,
    base: np.ndarray | None = None,
) -> Traversal:  # fmt: skip
    """Each dimension alone moved by `reach` standard deviations of the aggregate posterior to both sides of a vector.

    Raises UsageError for dimensions or a reach that cannot be meant.
    """
    from vaearr.exploration.bases import STD, values_along
    from vaearr.exploration.points import dimensions
    from vaearr.exploration.traversals import traversal_latents

    start = begin(state, vector, base)
    chosen = dimensions(dims, len(start.centre))
    values = values_along(start, chosen, (-reach, reach), steps, STD)
    found = decode_latents(state, traversal_latents(start, chosen, values))
    return Traversal(np.linspace(-reach, reach, steps), values, found)


@dataclass(frozen=True)
class Plane:
    """Values across and up, both ascending `(steps,)`, `decoded (picture, …)` row by row."""

    across: np.ndarray
    up: np.ndarray
    decoded: xr.DataArray


def plane(
    state: State, vector: np.ndarray, across: int, up: int, *, steps: int = 9, reach: float = 3.0,
    base: np.ndarray | None = None,
) -> Plane:  # fmt: skip
    """Two dimensions moved as in `traversal`, the others as in a vector. Raises UsageError for two that are one."""
    from vaearr.exploration.points import dimensions
    from vaearr.exploration.traversals import plane_latents

    start = begin(state, vector, base)
    chosen = dimensions([across, up], len(start.centre))
    xs, ys, z = plane_latents(start, chosen, (-reach, reach), steps)
    found = decode_latents(state, z)
    return Plane(xs, ys, found)
