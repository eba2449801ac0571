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
    nav, shape, dtype = tuple(navigation), tuple(navigation.values()), np.dtype(dtype)
    if clash := set(navigation) & set(signal):
        raise UsageError(f"{sorted(clash)} cannot be both navigation and signal dims.")
    if dtype.kind not in "uif":
        raise UsageError(f"dtype={dtype} is not a type of patterns; use an integer or float type.")
    if not 0 <= missing < np.prod(shape):
        raise UsageError(f"missing={missing} must be at least 0 and less than the {np.prod(shape)} samples.")
    rng = np.random.default_rng(seed)
    present = np.ones(shape, bool)
    present.reshape(-1)[rng.choice(present.size, missing, replace=False)] = False
    whole = (*shape, *signal.values())
    if dtype.kind == "f":
        patterns = rng.random(whole).astype(dtype)
    else:
        patterns = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, whole, dtype, endpoint=True)
    patterns[~present] = np.nan if dtype.kind == "f" else 0
    about = {**n.ATTRS[n.PATTERNS], n.NAVIGATION_DIMS: list(nav), n.SIGNAL_DIMS: list(signal)}
    band_contrast = np.where(present, rng.integers(0, 256, shape), np.nan).astype(np.float32)
    data: dict[str, Any] = {n.PATTERNS: ((*nav, *signal), patterns, about), n.BC: (nav, band_contrast, n.ATTRS[n.BC])}
    if is_scan:
        data |= _scan_maps(nav, present, rng)
    if missing:
        data[n.PRESENT] = (nav, present, n.ATTRS[n.PRESENT])
    inside = present
    if roi:  # the first two present samples, and about two of three others
        inside = present & (rng.random(shape) < 2 / 3)
        inside.reshape(-1)[np.flatnonzero(present)[:2]] = True
        data |= {n.run_name(n.ROI, run): (nav, inside, n.ATTRS[n.ROI]) for run in runs or [n.DEFAULT_RUN]}
    coords = scan_coords(navigation, step, ()) if is_scan else _sample_coords(navigation[n.SAMPLE], rng)
    if is_scan:
        coords[n.ELEMENT] = list(ELEMENT_NAMES)
    coords |= {dim: (dim, np.arange(size), n.ATTRS.get(dim, {})) for dim, size in signal.items()}
    for run in runs:
        dim = n.run_name(n.LATENT, run)
        coords[dim] = (dim, np.arange(latent_dim), n.ATTRS[n.LATENT])
        data |= _derived(run, nav, inside, latent_dim, rng)
    ds = xr.Dataset(data, coords)
    return ds if chunks is None else ds.chunk(chunks)


def _scan_maps(nav: tuple[str, ...], present: NDArray[np.bool_], rng: np.random.Generator) -> dict[str, Any]:
    content = rng.dirichlet(np.ones(len(ELEMENT_NAMES)), present.shape).astype(np.float32) * 100
    elements = np.where(present, np.moveaxis(content, -1, 0), np.nan).astype(np.float32)
    phase = np.where(present, rng.integers(-1, 2, present.shape), n.PHASE_MISSING).astype(np.int16)
    flags = {"flag_values": [n.PHASE_MISSING, n.PHASE_UNKNOWN, 0, 1], "flag_meanings": "missing not_indexed fcc bcc"}
    return {
        n.ELEMENTS: ((n.ELEMENT, *nav), elements, {**n.ATTRS[n.ELEMENTS], "units": "wt%"}),
        n.PHASE: (nav, phase, {**n.ATTRS[n.PHASE], **flags}),
    }


def _sample_coords(count: int, rng: np.random.Generator) -> dict[str, Any]:
    return {
        n.SAMPLE: (n.SAMPLE, np.arange(count)),
        "path": (n.SAMPLE, [f"img{i:03d}.png" for i in range(count)]),
        "label": (n.SAMPLE, rng.choice(LABELS, count)),
        "subject": (n.SAMPLE, rng.integers(0, max(count // 2, 1), count)),
    }


def _derived(
    run: str, nav: tuple[str, ...], inside: NDArray[np.bool_], latent_dim: int, rng: np.random.Generator
) -> dict[str, Any]:
    """What encoding adds for one run, NaN where `inside` is false."""
    dims, shape, found = (*nav, n.run_name(n.LATENT, run)), (*inside.shape, latent_dim), {}
    for name, values, over in (
        (n.LATENTS, rng.standard_normal(shape), dims),
        (n.LATENTS_STD, rng.uniform(0.05, 1, shape), dims),
        (n.RECONSTRUCTION_ERROR, rng.gamma(4, 0.1, inside.shape), nav),
    ):
        values[~inside] = np.nan
        found[n.run_name(name, run)] = (over, values.astype(np.float32), {**n.ATTRS[name], "run": run})
    return found
