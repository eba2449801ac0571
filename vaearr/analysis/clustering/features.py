"""What is clustered by: maps and stacks of maps as columns with a label each, at the points where
all are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.targets import TARGET, columns, stack
from vaearr.errors import DataError, NoInputError, RoiError, SchemaError, UsageError, did_you_mean
from vaearr.schema import is_categorical
from vaearr.schema.grid import laid_over

MIN_POINTS = 3
FEATURE = "feature"


def navigation_of(data: xr.Dataset | xr.DataArray) -> tuple[str, ...]:
    """Navigation dims of features: those a Dataset with patterns declares, else the ones called z,
    y, x or sample.

    In this order, however the features are transposed. Raises SchemaError where there is none.
    """
    if isinstance(data, xr.Dataset) and n.PATTERNS in data:
        return schema.navigation_dims(data)
    found = (
        (n.SAMPLE,)
        if n.SAMPLE in data.dims
        else tuple(dim for dim in n.SCAN_DIMS if dim in data.dims)
    )
    if not found:
        raise SchemaError(
            f"the data has dims {[str(dim) for dim in data.dims]} and none of y, x, z or sample, "
            f"so no scan points; "
            "rename its dims."
        )
    return found


def variables_of(data: xr.Dataset | xr.DataArray) -> dict[str, xr.DataArray]:
    """The variables of features by name, spatial latents as means over their positions; a DataArray
    without a name is called "feature".
    """
    given = data.data_vars if isinstance(data, xr.Dataset) else {data.name or FEATURE: data}
    return {str(name): schema.vectors(variable) for name, variable in given.items()}


def select_features(ds: xr.Dataset, names: Sequence[str], run: str) -> xr.Dataset:
    """The named variables of a Dataset, lazy.

    A name is a variable ("BC", "elements", "pca", any map), "latents" for the latents of the run,
    or one entry of a variable with a further dim ("Fe", "pca: 0", "latents: 3"). Raises
    NoInputError for an unknown name, UsageError if there is none.
    """
    if not names:
        raise UsageError(
            "no feature is named; name variables to cluster by, such as latents, pca or BC."
        )
    nav = navigation_of(ds)
    variables = variables_of(ds)
    candidates = {name: array for name, array in variables.items() if is_usable(array, nav)}
    entries: dict[str, xr.DataArray] = {}
    for key, variable in candidates.items():
        entries.update(columns(variable.rename(key), nav))
    chosen: dict[str, xr.DataArray] = {}
    for name in names:
        key = name
        if name == n.LATENTS or name.startswith(f"{n.LATENTS}: "):
            key = name.replace(n.LATENTS, n.run_name(n.LATENTS, run), 1)
        if key in candidates:
            chosen[key] = candidates[key]
        elif key in entries:
            chosen[key] = entries[key]
        else:
            if name == n.LATENTS:
                schema.refuse_not_encoded(ds, run)
            hint = did_you_mean(name, sorted({*candidates, *entries}))
            raise NoInputError(f"there is no feature {name!r}.{hint}")
    return xr.Dataset(chosen)


def is_usable(variable: xr.DataArray, nav: Sequence[str]) -> bool:
    """Whether a variable holds numbers over the navigation dims and at most one further dim."""
    return (
        set(nav) <= set(variable.dims)
        and variable.ndim <= len(nav) + 1
        and variable.dtype.kind in "biuf"
    )


def columns_of(variables: dict[str, xr.DataArray], nav: tuple[str, ...]) -> xr.DataArray:
    """Variables as one array `(feature, *navigation)` in memory; coordinate `units`.

    A map of codes (phase, clusters) becomes one 0/1 column per code; codes below 0 are missing.
    float32 where all of them fit into that. Raises SchemaError for what is no number over the
    navigation dims and at most one more, for other grids, and for two of the same label.
    """
    found: list[tuple[str, xr.DataArray]] = []
    units: list[str] = []
    for name, variable in variables.items():
        if not is_usable(variable, nav) or 0 in variable.shape:
            raise SchemaError(
                f"{name!r} is {variable.dtype} over {dict(variable.sizes)}; expected numbers "
                f"over {tuple(nav)} and at "
                "most one further dim, none of them empty. Select or reduce, or pass only the "
                "variables that are "
                "meant, such as ds[['latents', 'BC']]."
            )
        own = list(columns(variable.rename(name), nav))
        found += own
        unit = "1" if is_categorical(variable) else str(variable.attrs.get("units", ""))
        units += [unit] * len(own)
    stacked = stack(found, nav).load().rename({TARGET: FEATURE})
    first = found[0][1].coords
    coords = {
        name: coord for name, coord in first.items() if coord.dims and set(coord.dims) <= set(nav)
    }
    return stacked.assign_coords({**coords, "units": (FEATURE, units)})


def _latent_dim(variable: xr.DataArray) -> str | None:
    found = [
        str(dim) for dim in variable.dims if dim == n.LATENT or str(dim).startswith(f"{n.LATENT}_")
    ]
    return found[0] if found else None


def feature_table(
    features: xr.Dataset | xr.DataArray,
    *,
    roi: xr.DataArray | None = None,
    latents: Sequence[int] = (),
) -> tuple[xr.DataArray, xr.DataArray]:
    """Features `(sample, feature)` at the points of the ROI where each of them is finite, and the
    map of these points.

    features: a DataArray, or a Dataset of them, see `columns_of`. latents: which latent dimensions
    to take; empty = all. Raises as `columns_of`, and RoiError where fewer than three points are
    left.
    """
    nav, given = navigation_of(features), variables_of(features)
    if not given:
        raise UsageError("no feature is given; pass maps such as ds[['latents', 'BC']].")
    if latents:
        of_latents = {name: dim for name, one in given.items() if (dim := _latent_dim(one))}
        if not of_latents:
            raise UsageError(
                f"latents {list(latents)} are asked for, but the features {list(given)} are no "
                f"latents."
            )
        for name, dim in of_latents.items():
            known = given[name][dim].values
            if not np.isin(latents, known).all():
                raise UsageError(
                    f"latents {list(latents)} do not all exist; there are {known[0]} to "
                    f"{known[-1]}."
                )
            given[name] = given[name].sel({dim: list(dict.fromkeys(latents))})
    table = columns_of(given, nav)
    is_known = table.notnull() & (abs(table) < np.inf)
    keep = xr.ones_like(is_known[0], bool).drop_vars([FEATURE, "units"])
    if roi is not None:
        keep = keep.copy(data=laid_over(table, roi, nav).values)
    inside = is_known.all(FEATURE) & keep
    if inside.sum() < MIN_POINTS:
        missing = dict(
            zip(
                table[FEATURE].values.tolist(),
                (keep & ~is_known).sum(nav).values.tolist(),
                strict=True,
            )
        )
        raise RoiError(
            f"{int(inside.sum())} scan points are left where all features are known, of "
            f"{int(keep.sum())} in the "
            f"region of interest; at least {MIN_POINTS} are needed. Missing there: {missing}."
        )
    return xr.DataArray(
        table.values[:, inside.values].T, {FEATURE: table[FEATURE]}, (n.SAMPLE, FEATURE)
    ), inside


def scaled(table: xr.DataArray, scale: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Columns `(n, f)` as they are clustered, (value - center) / scale, and the attributes that
    tell of it.

    `standard`: mean and standard deviation over the points used, `robust`: median and interquartile
    range, `none`: 0 and 1. Features that hold one value only are left out. The attributes:
    `features`, `scale`, `scaling` {feature: center and scale}, `warnings`. Raises DataError where
    nothing is left, or where more than half of a feature's points share one value, so that it has
    no interquartile range.
    """
    values, labels = table.values, table[FEATURE].values.tolist()
    center, spread = np.zeros(len(labels)), np.ones(len(labels))
    if scale == "standard":
        center, spread = values.mean(axis=0, dtype="f8"), values.std(axis=0, dtype="f8")
    elif scale == "robust":
        low, center, high = np.quantile(values.astype("f8"), (0.25, 0.5, 0.75), axis=0)
        spread = high - low
    varies = np.ptp(values, axis=0) > 0
    if not varies.any():
        raise DataError(
            f"each of the features {', '.join(labels)} holds one value only: there is nothing to "
            f"tell."
        )
    for i in np.flatnonzero(varies & ~((spread > 0) & np.isfinite(spread))):
        raise DataError(
            f"feature {labels[i]!r} has no finite spread to scale by ({scale}: {spread[i]:g}); "
            f"use scale='standard', "
            "or leave it out."
        )
    kept = np.flatnonzero(varies)
    by = {labels[i]: {"center": float(center[i]), "scale": float(spread[i])} for i in kept}
    warnings = []
    if constant := [label for label in labels if label not in by]:
        warnings.append(f"{', '.join(constant)}: one value only, left out.")
    about = {"features": list(by), "scale": scale, "scaling": by, "warnings": warnings}
    columns = values[:, kept].astype("f8")
    columns -= center[kept]
    columns /= spread[kept]
    return columns, about
