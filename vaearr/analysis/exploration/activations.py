"""The latents of many samples side by side, sorted by class, and what each class has in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.exploration.points import (
    POINT,
    all_vectors,
    class_coords,
    classes_if_any,
    dimensions,
    kept_classes,
    open_encoded,
    point_coords,
    some,
)
from vaearr.errors import NoInputError, UsageError

CLASS = "class"
SHOWN = 2000


def activations(
    store: str | Path,
    run: str = n.DEFAULT_RUN,
    by: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    dims: int | list[int] | None = None,
    max_points: int = SHOWN,
    seed: int = 0,
) -> xr.Dataset:
    """Latents of samples sorted by class, `activation (point, latent)`, and of classes, `class_mean`, `class_std`.

    by: map or coordinate with the classes; None for label, phase or clusters where one is there, else all samples in
    their order, without classes. classes: only these; samples without a class are left out. At most `max_points`
    samples by the seed are shown; `class_mean`, `class_std` `(class, latent)` (standard deviation over the samples) and
    `n (class)` are over all. Of a spatial latent a sample's value is the mean over its positions. `all_mean`,
    `all_std (latent)` are over all encoded samples, so that values can be told in standard deviations.

    Raises NoInputError for a run not encoded, a map that is not there or classes without samples, UsageError for a
    class, dimension or seed that cannot be.
    """
    if max_points < 1:
        raise UsageError(f"max_points is {max_points}; it must be at least 1.")
    encoded = open_encoded(store, run)
    chosen = dimensions(dims, encoded.latent_shape[0])
    found = classes_if_any(encoded.ds, by) if classes is None else kept_classes(encoded.ds, by, classes)
    numbers, values = all_vectors(encoded)
    values = values[:, chosen]
    words = {"units": "1"}
    data: dict[str, Any] = {
        "all_mean": (n.LATENT, values.mean(0), {"long_name": "mean of all samples", **words}),
        "all_std": (n.LATENT, values.std(0), {"long_name": "standard deviation of all samples", **words}),
    }
    coords: dict[str, Any] = {n.LATENT: (n.LATENT, chosen, dict(n.ATTRS[n.LATENT]))}
    if found is not None:
        kept = found.codes[numbers] >= 0
        if not kept.any():
            raise NoInputError(f"no encoded sample has one of the classes by {found.by!r}; choose others.")
        numbers, values = numbers[kept], values[kept]
        codes = found.codes[numbers]
        there = np.unique(codes)
        groups = [values[codes == code] for code in there]
        data |= {
            "class_mean": ((CLASS, n.LATENT), np.stack([g.mean(0) for g in groups]), {"long_name": "mean", **words}),
            "class_std": (
                (CLASS, n.LATENT),
                np.stack([g.std(0) for g in groups]),
                {"long_name": "standard deviation", **words},
            ),
            "n": (CLASS, [len(g) for g in groups], {"long_name": "samples", **words}),
        }
        coords[CLASS] = (CLASS, [found.names[code] for code in there], {"long_name": found.by})
    picked = some(len(numbers), max_points, seed)
    if found is not None:
        picked = picked[np.argsort(found.codes[numbers[picked]], kind="stable")]
        coords["class_of_point"] = class_coords(found, numbers[picked])[CLASS]
    data["activation"] = ((POINT, n.LATENT), values[picked], {"long_name": "latent (posterior mean)", **words})
    coords |= point_coords(encoded, numbers[picked])
    attrs = {**encoded.attrs, "by": None if found is None else found.by, "n": len(numbers), "seed": seed}
    return xr.Dataset(data, coords=coords, attrs=attrs)
