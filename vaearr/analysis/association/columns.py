"""Columns of values that metrics take, with what is derived from a column computed once and shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Columns:
    """Finite float64 values `(n, k)`, stored column by column, and where their points lie."""

    values: np.ndarray
    positions: Columns | None = None  # (n, d) coordinates of the points
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """As it is at one moment, while other threads add to it."""
        return {**vars(self), "_made": dict(self._made)}

    def made(
        self, make: Callable[Concatenate[Columns, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """`make(self, ...)`, made at the first call and kept: orders, ranks and sums serve many
        partners.
        """
        key = (make, args, tuple(kwargs.items()))
        if key not in self._made:
            self._made[key] = make(self, *args, **kwargs)
        return cast(R, self._made[key])

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


def is_constant(columns: Columns) -> np.ndarray:
    """Which columns `(k,)` hold one value only."""
    return np.asarray(np.ptp(columns.values, axis=0) == 0)


def each_pair(latents: Columns, targets: Columns, pair: Callable[[int, int], float]) -> np.ndarray:
    """`pair(i, j)` of each latent column with each target column, `(L, T)`; NaN where one of them
    is constant.
    """
    dead, still = latents.made(is_constant), targets.made(is_constant)
    values = np.full((latents.k, targets.k), np.nan)
    for i in np.flatnonzero(~dead).tolist():
        for j in np.flatnonzero(~still).tolist():
            values[i, j] = pair(i, j)
    return values
