"""Amounts that points are coloured by: latents and side maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.targets import targets_of
from vaearr.analysis.exploration.points import all_vectors
from vaearr.errors import UsageError
from vaearr.run import Run

COLOR = "color"
POINT = "point"
OF_LATENT = f"{n.LATENT}:"


def check_amounts(encoded: Run, names: Sequence[str]) -> None:
    """Raise UsageError or NoInputError for an amount that is not there, before anything is worked out."""
    for name in names:
        if name.startswith(OF_LATENT):
            _dimension(encoded, name)
        else:
            _column(encoded, name)


def amounts(encoded: Run, names: Sequence[str], numbers: np.ndarray) -> xr.DataArray:
    """Amounts `(color, point)` of samples by their numbers; a `color` that is a map of classes becomes one of each."""
    labels: list[str] = []
    rows: list[np.ndarray] = []
    vectors: np.ndarray | None = None
    for name in names:
        if name.startswith(OF_LATENT):
            if vectors is None:
                every, values = all_vectors(encoded)
                vectors = values[np.searchsorted(every, numbers)]
            labels.append(f"{n.LATENT} {_dimension(encoded, name)}")
            rows.append(vectors[:, _dimension(encoded, name)])
        else:
            column = _column(encoded, name)
            labels += [str(label) for label in column["target"].values]
            rows += list(column.values.reshape(column.sizes["target"], -1)[:, numbers])
    return xr.DataArray(
        np.stack(rows).astype(np.float32), dims=(COLOR, POINT), coords={COLOR: labels}, attrs={"long_name": "amount"}
    )


def _dimension(encoded: Run, name: str) -> int:
    text = name.removeprefix(OF_LATENT).strip()
    if not text.isdigit() or int(text) >= encoded.latent_shape[0]:
        raise UsageError(f"{name!r} is no latent dimension; give latent:0 to latent:{encoded.latent_shape[0] - 1}.")
    return int(text)


def _column(encoded: Run, name: str) -> xr.DataArray:
    return targets_of(encoded.ds, [name]).transpose("target", *schema.navigation_dims(encoded.ds))
