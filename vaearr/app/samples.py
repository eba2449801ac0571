"""Samples as the page shows them: one, the mean of a region, some of it one by one, those most alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.app.raster import thinned
from vaearr.app.state import State, base_of
from vaearr.errors import UsageError
from vaearr.plots.common import text, value_text
from vaearr.store import read_block

PICTURE = "picture"
REGION_MOST = 64  # samples whose patterns are read for the mean of a region
SOME = 12  # samples of a region that are shown one by one


@dataclass(frozen=True)
class Sample:
    """One sample, or the mean of a region (`index` -1): `latents (latent)`, `base` as decoded, the stored pattern.

    members: the samples that the picture is the mean of.
    """

    index: int
    words: str
    latents: np.ndarray
    base: np.ndarray
    stored: xr.DataArray | None
    members: list[int]


def flat_index(state: State, place: tuple[int, ...]) -> int:
    """Number of the sample at a place of the grid. Raises UsageError outside."""
    if len(place) != len(state.nav_shape) or any(
        not 0 <= i < size for i, size in zip(place, state.nav_shape, strict=True)
    ):
        raise UsageError(f"{place} is not one of {state.nav_shape} {schema.samples_word(state.ds)}.")
    return int(np.ravel_multi_index(place, state.nav_shape))


def place_of(state: State, index: int) -> tuple[int, ...]:
    """Where a sample lies in the grid."""
    return tuple(map(int, np.unravel_index(index, state.nav_shape)))


def sample_at(state: State, index: int) -> Sample:
    """The sample of a number: its words, latents and stored picture (None where none was measured)."""
    found = stored(state, index)
    members = [] if found is None else [index]
    return Sample(index, where(state, index), state.latents[index], base_of(state, index), found, members)


def region(state: State, indices: np.ndarray) -> Sample:
    """The mean of several samples: latents of all of them, the mean picture of at most 64 evenly chosen ones.

    Raises UsageError where none of them has latents.
    """
    known = with_latents(state, indices)
    if not len(known):
        raise UsageError("none of the chosen samples has latents; choose others.")
    some = known[thinned(np.ones(len(known), bool), most=REGION_MOST)]
    members = [int(i) for i in some_of(state, known, most=REGION_MOST)]
    found = [one for i in members if (one := stored(state, i)) is not None]
    mean = xr.concat(found, PICTURE).astype("f4").mean(PICTURE, keepdims=True) if found else None
    base = _known_mean(np.stack([base_of(state, int(i)) for i in some]))
    words = f"mean of {len(known):,} {schema.samples_word(state.ds)}"
    if len(known) > len(some):
        words += f" (picture: of {len(some)})"
    return Sample(-1, words, state.latents[known].mean(0), base, mean, members)


def _known_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is finite, NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, values, 0).sum(0) / np.maximum(count, 1), np.nan)


def with_latents(state: State, indices: np.ndarray) -> np.ndarray:
    """Those of some samples that have latents."""
    return indices[np.isfinite(state.latents[indices]).all(1)]


def some_of(state: State, indices: np.ndarray, *, most: int = SOME) -> np.ndarray:
    """At most `most` samples of a region, evenly spread in its order, that have latents and a pattern."""
    known = with_latents(state, indices)
    if n.PRESENT in state.ds:
        known = known[state.ds[n.PRESENT].transpose(*schema.navigation_dims(state.ds)).values.ravel()[known]]
    return known[thinned(np.ones(len(known), bool), most=most)]


def alike(state: State, latents: np.ndarray, *, most: int = SOME) -> np.ndarray:
    """The samples nearest to a vector, each dimension in its standard deviations over the store; the nearest first."""
    away = (((state.latents - latents) / state.spread) ** 2).sum(1)
    away[~np.isfinite(away)] = np.inf
    order = np.argpartition(away, min(most, len(away) - 1))[:most]
    order = order[np.argsort(away[order], kind="stable")]
    return order[np.isfinite(away[order])]


def where(state: State, index: int) -> str:
    """A sample in words: its coordinates, and the class or file it is known by."""
    place, dims = place_of(state, index), schema.navigation_dims(state.ds)
    parts = [
        f"{dim} = {value_text(state.ds[dim].values[i], state.ds[dim].attrs)}"
        for dim, i in zip(dims, place, strict=True)
    ]
    if not schema.is_scan(state.ds):
        at = dict(zip(dims, place, strict=True))
        parts += [f"{c} = {_value(state.ds[c], at)}" for c in ("label", "path") if c in state.ds.variables]
    return ", ".join(parts)


def brief_place(state: State, index: int) -> str:
    """A sample in as few characters as will do, for under its picture."""
    dims = schema.navigation_dims(state.ds)
    found = [str(state.ds[dim].values[i])[:9] for dim, i in zip(dims, place_of(state, index), strict=True)]
    return text(found[0] if len(found) == 1 else f"({', '.join(f'{float(v):.4g}' for v in found)})")


def _value(variable: xr.DataArray, at: dict[str, int]) -> str:
    from vaearr.categories import is_categorical, meanings

    value = variable.isel(at).item()
    return text(meanings(variable).get(value, value) if is_categorical(variable) else value)


def stored(state: State, index: int) -> xr.DataArray | None:
    """A sample as stored, `(picture, [channel,] …)` with one picture; None where none was measured."""
    dims, signal = schema.navigation_dims(state.ds), schema.signal_dims(state.ds)
    place = place_of(state, index)
    if n.PRESENT in state.ds and not bool(state.ds[n.PRESENT].isel(dict(zip(dims, place, strict=True)))):
        return None
    values = stored_values(state, index).reshape(1, *(state.ds.sizes[dim] for dim in signal))
    return xr.DataArray(values, dims=(PICTURE, *signal), name=n.PATTERNS)


def stored_values(state: State, index: int) -> np.ndarray:
    """A sample's pattern as stored, with its navigation dims of size 1."""
    dims = schema.navigation_dims(state.ds)
    at = {dim: slice(i, i + 1) for dim, i in zip(dims, place_of(state, index), strict=True)}
    return np.asarray(read_block(state.ds[n.PATTERNS], at))
