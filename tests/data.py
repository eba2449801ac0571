"""Tiny valid Datasets of random numbers, for tests that do not care what a pattern looks like; a
count of computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import DTypeLike

from vaearr import names as n
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

    A scan also holds `BC`, `elements` and `phase`; a collection (dim `sample`) holds `BC` and the
    coordinates `path`, `label` and `subject`. missing: scan points without an entry, which adds
    `present`. roi: adds a boolean map of about two of three samples, with `runs` one for each of
    them. runs: whose latents to add, NaN outside their ROI.
    """
    navigation = dict(navigation or {"y": 5, "x": 6})
    is_scan = n.SAMPLE not in navigation
    signal = dict(signal or ({"dy": 8, "dx": 9} if is_scan else {"y": 8, "x": 9}))
    nav, shape, dtype = tuple(navigation), tuple(navigation.values()), np.dtype(dtype)
    rng = np.random.default_rng(seed)
    present = np.ones(shape, bool)
    present.reshape(-1)[rng.choice(present.size, missing, replace=False)] = False
    whole, is_float = (*shape, *signal.values()), dtype.kind == "f"
    limits = (0, 1) if is_float else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    patterns = (
        rng.random(whole).astype(dtype)
        if is_float
        else rng.integers(*limits, whole, dtype, endpoint=True)
    )
    patterns[~present] = np.nan if is_float else 0
    about = {**n.ATTRS[n.PATTERNS], n.NAVIGATION_DIMS: list(nav), n.SIGNAL_DIMS: list(signal)}
    contrast = np.where(present, rng.integers(0, 256, shape), np.nan).astype(np.float32)
    data: dict[str, Any] = {
        n.PATTERNS: ((*nav, *signal), patterns, about),
        n.BC: (nav, contrast, n.ATTRS[n.BC]),
    }
    if is_scan:
        content = rng.dirichlet(np.ones(len(ELEMENT_NAMES)), shape).astype(np.float32) * 100
        elements = np.where(present, np.moveaxis(content, -1, 0), np.nan).astype(np.float32)
        phase = np.where(present, rng.integers(-1, 2, shape), n.PHASE_MISSING).astype(np.int16)
        meanings = "missing not_indexed fcc bcc"
        flags = {"flag_values": [n.PHASE_MISSING, n.PHASE_UNKNOWN, 0, 1], "flag_meanings": meanings}
        data[n.ELEMENTS] = ((n.ELEMENT, *nav), elements, {**n.ATTRS[n.ELEMENTS], "units": "wt%"})
        data[n.PHASE] = (nav, phase, {**n.ATTRS[n.PHASE], **flags})
    if missing:
        data[n.PRESENT] = (nav, present, n.ATTRS[n.PRESENT])
    inside = present
    if roi:  # the first two present samples, and about two of three others
        inside = present & (rng.random(shape) < 2 / 3)
        inside.reshape(-1)[np.flatnonzero(present)[:2]] = True
        data |= {
            n.run_name(n.ROI, run): (nav, inside, n.ATTRS[n.ROI]) for run in runs or [n.DEFAULT_RUN]
        }
    if is_scan:
        coords = scan_coords(navigation, step, ()) | {n.ELEMENT: list(ELEMENT_NAMES)}
    else:
        count = navigation[n.SAMPLE]
        coords = {
            n.SAMPLE: (n.SAMPLE, np.arange(count)),
            "path": (n.SAMPLE, [f"img{i:03d}.png" for i in range(count)]),
            "label": (n.SAMPLE, rng.choice(LABELS, count)),
            "subject": (n.SAMPLE, rng.integers(0, max(count // 2, 1), count)),
        }
    coords |= {dim: (dim, np.arange(size), n.ATTRS.get(dim, {})) for dim, size in signal.items()}
    for run in runs:
        dim = n.run_name(n.LATENT, run)
        coords[dim] = (dim, np.arange(latent_dim), n.ATTRS[n.LATENT])
        for name, values, over in (
            (n.LATENTS, rng.standard_normal((*shape, latent_dim)), (*nav, dim)),
            (n.LATENTS_STD, rng.uniform(0.05, 1, (*shape, latent_dim)), (*nav, dim)),
            (n.RECONSTRUCTION_ERROR, rng.gamma(4, 0.1, shape), nav),
        ):
            values[~inside] = np.nan
            data[n.run_name(name, run)] = (
                over,
                values.astype(np.float32),
                {**n.ATTRS[name], "run": run},
            )
    ds = xr.Dataset(data, coords)
    return ds if chunks is None else ds.chunk(chunks)


@contextmanager
def count_computes(at_most: int | None = None) -> Iterator[list[Any]]:
    """Yields a list that grows by one with every dask compute in the block; more than `at_most` is
    an AssertionError.

    One `compute`, `load` or `persist` of any number of arrays counts once; computes that name their
    own `scheduler=` are not seen. Tasks run one after another inside the block.
    """
    computes: list[Any] = []

    def check() -> None:
        assert at_most is None or len(computes) <= at_most, (
            f"dask computed {len(computes)} times, at most {at_most}"
        )

    def scheduler(graph: Any, keys: Any, **kwargs: Any) -> Any:
        computes.append(keys)
        check()
        return dask.get(graph, keys, **kwargs)

    with dask.config.set(scheduler=scheduler):
        yield computes
    check()
