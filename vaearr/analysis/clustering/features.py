"""Features as columns: maps and stacks of maps with a label each, at the points where all are
known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.points import navigation_of
from vaearr.analysis.association.targets import TARGET, columns, entry_of, is_map, stack
from vaearr.errors import DataError, NoInputError, RoiError, SchemaError, UsageError, did_you_mean
from vaearr.schema import is_categorical
from vaearr.schema.grid import checked_map

MIN_POINTS = 3
FEATURE = "feature"


def variables_of(data: xr.Dataset | xr.DataArray) -> dict[str, xr.DataArray]:
    """The variables of features by name, spatial latents as means over their positions."""
    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name=data.name or FEATURE)
    return {str(name): schema.vectors(variable) for name, variable in data.data_vars.items()}


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
    candidates = {name: array for name, array in variables.items() if is_map(array, nav)}
    chosen: dict[str, xr.DataArray] = {}
    for name in names:
        key = name
        if name == n.LATENTS or name.startswith(f"{n.LATENTS}: "):
            key = name.replace(n.LATENTS, n.run_name(n.LATENTS, run), 1)
        feature = candidates.get(key)
        if feature is None:
            feature = entry_of(candidates, key, nav)
        if feature is None:
            if name == n.LATENTS:
                schema.refuse_not_encoded(ds, run)
            raise NoInputError(
                f"there is no feature {name!r}.{did_you_mean(name, sorted(candidates))}"
            )
        chosen[key] = feature
    return xr.Dataset(chosen)


def columns_of(variables: Mapping[str, xr.DataArray], nav: tuple[str, ...]) -> xr.DataArray:
    """Variables as one array `(feature, *navigation)` in memory; coordinate `units`.

    A map of codes (phase, clusters) becomes one 0/1 column per code; codes below 0 are missing.
    float32 where all of them fit into that. Raises SchemaError for what is no number over the
    navigation dims and at most one more, for other grids, and for two of the same label.
    """
    maps: list[tuple[str, xr.DataArray]] = []
    units: list[str] = []
    for name, variable in variables.items():
        if 0 in variable.shape:
            raise SchemaError(f"{name!r} is empty: its sizes are {dict(variable.sizes)}.")
        maps += columns(variable.rename(name), nav)
        unit = "1" if is_categorical(variable) else str(variable.attrs.get("units", ""))
        units += [unit] * (len(maps) - len(units))
    stacked = stack(maps, nav).load().rename({TARGET: FEATURE})
    first = maps[0][1]
    of_points = [name for name, coord in first.coords.items() if {*coord.dims} & {*nav}]
    coords = first.coords.to_dataset()[of_points].coords
    return stacked.assign_coords(coords).assign_coords(units=(FEATURE, units))


def feature_table(
    features: xr.Dataset | xr.DataArray,
    *,
    roi: xr.DataArray | None = None,
    latents: Sequence[int] = (),
) -> tuple[xr.DataArray, xr.DataArray]:
    """Features `(sample, feature)` at the points of the ROI where all are finite, and their map.

    features: a DataArray, or a Dataset of them, see `columns_of`. latents: which latent dimensions
    to take; empty = all. Raises as `columns_of`, and RoiError if fewer than three points are left.
    """
    nav = navigation_of(features)
    variables = variables_of(features)
    if not variables:
        raise UsageError("no feature is given; pass maps such as ds[['latents', 'BC']].")
    if latents:
        variables = _with_latents(variables, list(dict.fromkeys(latents)))
    table = columns_of(variables, nav)
    is_finite = xr.apply_ufunc(np.isfinite, table)
    region = xr.ones_like(is_finite[0], bool).drop_vars([FEATURE, "units"])
    if roi is not None:
        region = region.copy(data=checked_map(table, roi, nav).values)
    inside = is_finite.all(FEATURE) & region
    if inside.sum() < MIN_POINTS:
        missing = (region & ~is_finite).sum(nav).to_series().to_dict()
        raise RoiError(
            f"{int(inside.sum())} scan points are left where all features are known, of "
            f"{int(region.sum())} in the region of interest; at least {MIN_POINTS} are needed. "
            f"Missing there: {missing}."
        )
    values = table.values[:, inside.values].T
    return xr.DataArray(values, {FEATURE: table[FEATURE]}, (n.SAMPLE, FEATURE)), inside


def _with_latents(
    variables: Mapping[str, xr.DataArray], latents: list[int]
) -> dict[str, xr.DataArray]:
    """The variables with some of their latent dimensions. Raises UsageError if these do not exist."""
    selected = dict(variables)
    has_latents = False
    for name, variable in variables.items():
        for dim in variable.dims:
            if str(dim).partition("_")[0] != n.LATENT:
                continue
            has_latents = True
            labels = variable[dim].values
            if not np.isin(latents, labels).all():
                raise UsageError(
                    f"latents {latents} do not all exist; there are {labels[0]} to {labels[-1]}."
                )
            selected[name] = variable.sel({dim: latents})
    if not has_latents:
        raise UsageError(
            f"latents {latents} are requested, but the features {list(variables)} are no latents."
        )
    return selected


def scaled(table: xr.DataArray, scale: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Columns `(n, f)` for clustering, (value - center) / scale, and attributes that describe them.

    `standard`: mean and standard deviation over the points used, `robust`: median and interquartile
    range, `none`: 0 and 1. Features that hold one value only are left out. The attributes:
    `features`, `scale`, `scaling` {feature: center and scale}, `warnings`. Raises DataError if
    nothing is left, or if more than half of a feature's points share one value, so that it has no
    interquartile range.
    """
    labels = table[FEATURE].values
    varies = np.ptp(table.values, axis=0) > 0
    if not varies.any():
        raise DataError(
            f"each of the features {', '.join(labels)} holds one value only; there is nothing to "
            "distinguish."
        )
    values = table.values[:, varies].astype("f8")
    center = np.zeros(values.shape[1])
    spread = np.ones(values.shape[1])
    if scale == "standard":
        center = values.mean(axis=0)
        spread = values.std(axis=0)
    elif scale == "robust":
        low, center, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
        spread = high - low
    scaling = {}
    for label, middle, width in zip(labels[varies].tolist(), center, spread, strict=True):
        if not (width > 0 and np.isfinite(width)):
            raise DataError(
                f"feature {label!r} has no finite spread to scale by ({scale}: {width:g}); use "
                "scale='standard', or leave it out."
            )
        scaling[label] = {"center": float(middle), "scale": float(width)}
    warnings = []
    if not varies.all():
        warnings.append(f"{', '.join(labels[~varies])}: one value only, left out.")
    attrs = {"features": list(scaling), "scale": scale, "scaling": scaling, "warnings": warnings}
    values -= center
    values /= spread
    return values, attrs
