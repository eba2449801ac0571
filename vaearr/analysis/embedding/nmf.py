"""Non-negative amounts of fixed endmembers: all scan points at once, exactly."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import DataError, SchemaError

TOLERANCE = 1e-13  # of slopes, per amount, for endmembers of unit length
LARGEST_CONDITION = 1e12  # of the Gram matrix of such endmembers
EXCHANGES_PER_ENDMEMBER = 50  # before the rows that are left are solved one by one
FULL_EXCHANGES = 3  # that do not lessen the violations, before single exchanges guarantee the end


def nnls(gram: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Non-negative least squares of many right-hand sides: `a >= 0` that minimises |b - A a|, for each row.

    gram: A'A `(k, k)`; products: rows b'A `(n, k)`. Returns float64 `(n, k)`, exact to rounding (the same as an active
    set method finds for one row at a time). Block principal pivoting: each step solves the normal equations of the
    amounts that are free, once for all rows with the same free set, and exchanges those that break the conditions of
    Karush, Kuhn and Tucker. Kim & Park, SIAM J. Sci. Comput. 33 (2011) 3261; grouping after Van Benthem & Keenan,
    J. Chemometrics 18 (2004) 441. Raises DataError for endmembers that depend on each other.
    """
    gram, products = np.asarray(gram, float), np.asarray(products, float)
    lengths = check_independent(gram)
    unit, wanted = gram / np.outer(lengths, lengths), products / lengths
    size = np.abs(wanted).max(1, keepdims=True, initial=0.0)
    scaled = np.divide(wanted, size, out=np.zeros_like(wanted), where=size > 0)
    return _pivoted(unit, scaled) * size / lengths


def check_independent(gram: np.ndarray) -> np.ndarray:
    """Lengths of the endmembers. Raises DataError unless they are independent of each other."""
    lengths = np.sqrt(np.diag(gram))
    if not np.isfinite(gram).all() or (lengths <= 0).any():
        raise DataError("an endmember is zero or not finite; choose other endmembers.")
    values = np.linalg.eigvalsh(gram / np.outer(lengths, lengths))
    if values[0] * LARGEST_CONDITION < values[-1]:
        raise DataError(
            f"the {len(gram)} endmembers depend on each other (condition {values[-1] / max(values[0], 1e-300):.1e}): "
            "at least two are nearly alike, or one is a mixture of the others; choose fewer or other ones."
        )
    return lengths


def _pivoted(gram: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """`nnls` for endmembers of unit length and products of size 1."""
    count, k = wanted.shape
    amounts = np.zeros((count, k))
    free = np.zeros((count, k), bool)
    fewest, patience = np.full(count, k + 1), np.full(count, FULL_EXCHANGES)
    todo, slope = np.arange(count), -wanted
    for _ in range(EXCHANGES_PER_ENDMEMBER * k):
        least = -TOLERANCE * np.maximum(1, np.abs(amounts[todo]).sum(1, keepdims=True))  # what rounding may leave
        broken = np.where(free[todo], amounts[todo] < 0, slope < least)
        violations = broken.sum(1)
        open_ = violations > 0
        todo, broken, violations = todo[open_], broken[open_], violations[open_]
        if not len(todo):
            return amounts
        better = violations < fewest[todo]
        patience[todo] = np.where(better, FULL_EXCHANGES, patience[todo] - 1)
        fewest[todo] = np.where(better, violations, fewest[todo])
        single = patience[todo] < 0  # exchange the last violation alone: cannot cycle
        last = k - 1 - broken[:, ::-1].argmax(1)
        broken[single] &= np.arange(k) == last[single, None]
        free[todo] ^= broken
        amounts[todo] = _solved(gram, wanted[todo], free[todo])
        slope = amounts[todo] @ gram - wanted[todo]
    amounts[todo] = _one_by_one(gram, wanted[todo])
    return amounts


def _solved(gram: np.ndarray, wanted: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Least squares over the free amounts of each row, 0 elsewhere; rows with the same free set together."""
    packed = np.packbits(free, axis=1)
    _, first, member = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(member.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(member.ravel()))
    sets = free[first]
    amounts = np.zeros(wanted.shape)
    step = max(1, 2**21 // gram.size)
    for start in range(0, len(sets), step):
        chosen = sets[start : start + step]
        parts = np.where(chosen[:, :, None] & chosen[:, None, :], gram, np.eye(len(gram)))
        for i, (part, inverse) in enumerate(zip(parts, np.linalg.inv(parts), strict=True), start):
            rows = order[ends[i - 1] if i else 0 : ends[i]]
            target = np.where(sets[i], wanted[rows], 0)
            found = target @ inverse
            found += (target - found @ part) @ inverse  # what the inverse's rounding left
            amounts[rows] = np.where(sets[i], found, 0)
    return amounts


def _one_by_one(gram: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The few rows that pivoting has not settled, by scipy's active set method on the Cholesky factor."""
    from scipy.linalg import solve_triangular
    from scipy.optimize import nnls as active_set

    factor = np.linalg.cholesky(gram).T
    sides = solve_triangular(factor, wanted.T, trans="T").T
    return np.stack([active_set(factor, side)[0] for side in sides])


def abundance_share(abundances: xr.DataArray) -> xr.DataArray:
    """Amounts as shares that add up to 1 at each scan point; NaN where no endmember is present at all.

    abundances: such as `ds.nmf (y, x, nmf_component)`; stays lazy. Raises SchemaError where there is no component dim.
    """
    found = [str(dim) for dim in abundances.dims if str(dim).endswith(n.COMPONENT)]
    if len(found) != 1:
        raise SchemaError(f"the array has dims {abundances.dims}; expected one component dim, such as 'nmf_component'.")
    total = abundances.sum(found[0], skipna=False)
    share: xr.DataArray = abundances / total.where(total > 0)
    return share.drop_attrs(deep=False).assign_attrs(long_name="share of the endmember", units="1")
