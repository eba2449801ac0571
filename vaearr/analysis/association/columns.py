"""Columns of values that metrics take; what is derived from a column is computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Columns:
    """Finite float64 values `(n, k)`, column by column, and the positions of their points."""

    values: np.ndarray
    positions: Columns | None = None  # (n, d) coordinates of the points
    _results: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Copy the cached results: other threads may add to them while this is pickled."""
        return {**vars(self), "_results": dict(self._results)}

    def cached(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(self, *args)`, computed at the first call and then kept."""
        key = (function, args)
        if key not in self._results:
            self._results[key] = function(self, *args)
        return self._results[key]

    @property
    def n(self) -> int:
        """Number of points."""
        return int(self.values.shape[0])

    @property
    def k(self) -> int:
        """Number of columns."""
        return int(self.values.shape[1])


def columns_of(values: np.ndarray, positions: Columns | None = None) -> Columns:
    """Values `(n, k)` of any real dtype as Columns."""
    return Columns(np.asfortranarray(values, dtype="f8"), positions)


def order(columns: Columns) -> np.ndarray:
    """Indices `(n, k)` that sort each column; equal values keep their order."""
    return np.asfortranarray(np.argsort(columns.values, axis=0, kind="stable"))


def varying(columns: Columns) -> np.ndarray:
    """Indices of the columns that hold more than one value."""
    return np.flatnonzero(np.ptp(columns.values, axis=0) != 0)


def each_pair(latents: Columns, targets: Columns, pair: Callable[[int, int], float]) -> np.ndarray:
    """`pair(i, j)` for each latent and target column, `(L, T)`; NaN where a column is constant."""
    values = np.full((latents.k, targets.k), np.nan)
    for i in latents.cached(varying):
        for j in targets.cached(varying):
            values[i, j] = pair(i, j)
    return values
