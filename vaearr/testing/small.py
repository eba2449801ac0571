"""Tiny valid Datasets of random numbers, for unit tests that do not care what a pattern looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.testing.scan import scan_coords

ELEMENT_NAMES = ("Fe", "Ni", "Cr")
LABELS = ("benign", "malignant", "normal")


def random_patterns_dataset(
    navigation: Mapping[str, int] | None = None,
    signal: Mapping[str, int] | None = None,
    *,
    dtype: DTypeLike = "uint8",
    seed: int = 0,
    step: float = 0.5,
    missing: int = 0,
    roi: bool = False,
    runs: Sequence[str] = (),
    latent_dim: int = 3,
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """A small valid Dataset of random numbers; equal arguments give an equal Dataset.

    A scan also holds `BC`, `elements` and `phase`; a collection (dim `sample`) holds `BC` and the coordinates `path`,
    `label` and `subject`.

    Parameters
    ----------
    navigation : sizes of the navigation dims in order, default {"y": 5, "x": 6}; or {"sample": 7}
    signal : sizes of the signal dims in order, default {"dy": 8, "dx": 9}; for a collection {"y": 8, "x": 9}
    dtype : of the patterns; integers span the type's range, floats lie in [0, 1)
    step : distance of scan points in um
    missing : number of scan points without an entry: adds `present`, their patterns are 0 (floats NaN)
    roi : adds the boolean map `roi`, true at about two of three samples; with `runs`, the ROI of each of them
    runs : names of runs whose `latents`, `latents_std` and `reconstruction_error` to add, NaN outside their ROI
    latent_dim : latent dimensions of each run
    chunks : dask chunks of the result; None keeps plain arrays
    """
    navigation = dict(navigation or {"y": 5, "x": 6})
    is_scan = n.SAMPLE not in navigation
    signal = dict(signal or ({"dy": 8, "dx": 9} if is_scan else {"y": 8, "x": 9}))
    if clash := set(navigation) & set(signal):
        raise UsageError(f"{sorted(clash)} cannot be both navigation and signal dims.")
    rng = np.random.default_rng(seed)
    nav, shape = tuple(navigation), tuple(navigation.values())
    present = _all_but(shape, missing, rng)
    attrs = {**n.ATTRS[n.PATTERNS], n.NAVIGATION_DIMS: list(nav), n.SIGNAL_DIMS: list(signal)}
    patterns = _numbers((*shape, *signal.values()), np.dtype(dtype), rng)
    patterns[~present] = np.nan if patterns.dtype.kind == "f" else 0
    band_contrast = np.where(present, rng.integers(0, 256, shape), np.nan).astype(np.float32)
    data: dict[str, Any] = {
        n.PATTERNS: ((*nav, *signal), patterns, attrs),
        n.BC: (nav, band_contrast, n.ATTRS[n.BC]),
    }
    if is_scan:
        data |= _scan_maps(nav, present, rng)
    if missing:
        data[n.PRESENT] = (nav, present, n.ATTRS[n.PRESENT])
    inside = _some(present, rng) if roi else present
    if roi:
        data |= {n.run_name(n.ROI, run): (nav, inside, n.ATTRS[n.ROI]) for run in runs or [n.DEFAULT_RUN]}
    coords = _coords(navigation, signal, step, rng)
    for run in runs:
        dim = n.run_name(n.LATENT, run)
        coords[dim] = (dim, np.arange(latent_dim), n.ATTRS[n.LATENT])
        data |= _derived(run, nav, inside, latent_dim, rng)
    ds = xr.Dataset(data, coords)
    return ds if chunks is None else ds.chunk(chunks)


def _all_but(shape: tuple[int, ...], missing: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    present = np.ones(shape, dtype=bool)
    if not 0 <= missing < present.size:
        raise UsageError(f"missing={missing} must be at least 0 and less than the {present.size} samples.")
    present.reshape(-1)[rng.choice(present.size, missing, replace=False)] = False
    return present


def _some(present: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """About two of three present samples, the first two among them."""
    inside = present & (rng.random(present.shape) < 2 / 3)
    inside.reshape(-1)[np.flatnonzero(present)[:2]] = True
    return inside


def _numbers(shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    if dtype.kind == "f":
        return rng.random(shape).astype(dtype)
    if dtype.kind not in "ui":
        raise UsageError(f"dtype={dtype} is not a type of patterns; use an integer or float type.")
    return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def _scan_maps(nav: tuple[str, ...], present: NDArray[np.bool_], rng: np.random.Generator) -> dict[str, Any]:
    content = rng.dirichlet(np.ones(len(ELEMENT_NAMES)), present.shape).astype(np.float32) * 100
    phase = np.where(present, rng.integers(-1, 2, present.shape), n.PHASE_MISSING).astype(np.int16)
    flags = {"flag_values": [n.PHASE_MISSING, n.PHASE_UNKNOWN, 0, 1], "flag_meanings": "missing not_indexed fcc bcc"}
    return {
        n.ELEMENTS: (
            (n.ELEMENT, *nav),
            np.where(present, np.moveaxis(content, -1, 0), np.nan).astype(np.float32),
            {**n.ATTRS[n.ELEMENTS], "units": "wt%"},
        ),
        n.PHASE: (nav, phase, {**n.ATTRS[n.PHASE], **flags}),
    }


def _coords(
    navigation: Mapping[str, int], signal: Mapping[str, int], step: float, rng: np.random.Generator
) -> dict[str, Any]:
    coords: dict[str, Any]
    if n.SAMPLE in navigation:
        size = navigation[n.SAMPLE]
        names = [f"img{i:03d}.png" for i in range(size)]
        coords = {
            n.SAMPLE: (n.SAMPLE, np.arange(size)),
            "path": (n.SAMPLE, names),
            "label": (n.SAMPLE, rng.choice(LABELS, size)),
            "subject": (n.SAMPLE, rng.integers(0, max(size // 2, 1), size)),
        }
    else:
        coords = {**scan_coords(navigation, step, ()), n.ELEMENT: list(ELEMENT_NAMES)}
    for dim, size in signal.items():
        coords[dim] = (dim, np.arange(size), n.ATTRS.get(dim, {}))
    return coords


def _derived(
    run: str, nav: tuple[str, ...], inside: NDArray[np.bool_], latent_dim: int, rng: np.random.Generator
) -> dict[str, Any]:
    """What encoding adds for one run, NaN where `inside` is false."""
    dim = n.run_name(n.LATENT, run)
    shape = (*inside.shape, latent_dim)
    values = {
        n.LATENTS: (rng.standard_normal(shape), (*nav, dim)),
        n.LATENTS_STD: (rng.uniform(0.05, 1, shape), (*nav, dim)),
        n.RECONSTRUCTION_ERROR: (rng.gamma(4, 0.1, inside.shape), nav),
    }
    out = {}
    for name, (numbers, dims) in values.items():
        numbers[~inside] = np.nan
        out[n.run_name(name, run)] = (dims, numbers.astype(np.float32), {**n.ATTRS[name], "run": run})
    return out
