"""What is clustered by: maps and stacks of maps as columns with a label each, at the points where all are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import ClusterConfig
from vaearr.errors import DataError, NoInputError, RoiError, SchemaError, UsageError, did_you_mean
from vaearr.models.quality import ACTIVE_VARIANCE
from vaearr.schema import categories, is_categorical

Scale = Literal["standard", "robust", "none"]
MIN_POINTS = 3


@dataclass(frozen=True, kw_only=True)
class FeatureTable:
    """Features as columns `(n, f)` in their own units, for the points of `inside` in row-major order."""

    values: np.ndarray
    labels: tuple[str, ...]
    units: tuple[str, ...]
    is_latent: np.ndarray
    inside: xr.DataArray


@dataclass(frozen=True, kw_only=True)
class Column:
    """One feature as a map `(*navigation,)`, float64, NaN where it is missing."""

    label: str
    values: np.ndarray
    units: str
    is_latent: bool


def navigation_of(data: xr.Dataset | xr.DataArray) -> tuple[str, ...]:
    """Navigation dims of features: those a Dataset with patterns declares, else the ones called z, y, x or sample.

    In this order, however the features are transposed. Raises SchemaError where there is none.
    """
    if isinstance(data, xr.Dataset) and n.PATTERNS in data:
        return schema.navigation_dims(data)
    if n.SAMPLE in data.dims:
        return (n.SAMPLE,)
    found = tuple(dim for dim in n.SCAN_DIMS if dim in data.dims)
    if not found:
        raise SchemaError(
            f"the data has dims {[str(dim) for dim in data.dims]} and none of y, x, z or sample, so no scan points; "
            "rename its dims."
        )
    return found


def variables_of(data: xr.Dataset | xr.DataArray) -> dict[str, xr.DataArray]:
    """The variables of features by name, spatial latents as means over their positions; a DataArray without a name is
    called "feature"."""
    if isinstance(data, xr.Dataset):
        return {str(name): schema.vectors(variable) for name, variable in data.data_vars.items()}
    return {str(data.name) if data.name is not None else "feature": schema.vectors(data)}


def select_features(ds: xr.Dataset, config: ClusterConfig) -> xr.Dataset:
    """The variables of a Dataset that the settings name, lazy.

    A name is a variable ("BC", "elements", "pca", any map), "latents" for the latents of the settings' run, or one
    entry of a variable with a further dim ("Fe", "pca: 0", "latents: 3"). Raises NoInputError for one that is not
    there, UsageError where none is named.
    """
    if not config.features:
        raise UsageError("no feature is named; name variables to cluster by, such as latents, pca or BC.")
    nav = navigation_of(ds)
    usable = {name: var for name, var in variables_of(ds).items() if _is_usable(var, nav)}
    parts = {label: (name, i) for name, var in usable.items() for i, label in enumerate(entries(name, var, nav))}
    chosen: dict[str, xr.DataArray] = {}
    for name in dict.fromkeys(config.features):
        of_run = name == n.LATENTS or name.startswith(f"{n.LATENTS}: ")
        own = name.replace(n.LATENTS, n.run_name(n.LATENTS, config.run), 1) if of_run else name
        if own in usable:
            chosen[own] = usable[own]
        elif own in parts:
            variable, i = parts[own]
            extra = _extra(usable[variable], nav)[0]
            chosen[own] = usable[variable].isel({extra: i}, drop=True)
        elif name == n.LATENTS:
            hint = did_you_mean(config.run, schema.runs(ds))
            raise NoInputError(
                f"run {config.run!r} has no latents: 'vaearr encode STORE --run {config.run}' writes them.{hint}"
            )
        else:
            raise NoInputError(f"there is no feature {name!r}.{did_you_mean(name, sorted({*usable, *parts}))}")
    return xr.Dataset(chosen)


def _is_usable(variable: xr.DataArray, nav: Sequence[str]) -> bool:
    own = set(map(str, variable.dims))
    return set(nav) <= own and len(own) <= len(nav) + 1 and variable.dtype.kind in "biuf"


def _extra(variable: xr.DataArray, nav: Sequence[str]) -> list[str]:
    return [str(dim) for dim in variable.dims if dim not in nav]


def entries(name: str, variable: xr.DataArray, nav: Sequence[str]) -> list[str]:
    """Labels along a variable's further dim: "Fe" for elements, "pca: 0" for others; none for a plain map."""
    extra = _extra(variable, nav)
    if not extra:
        return []
    values = variable[extra[0]].values if extra[0] in variable.coords else range(variable.sizes[extra[0]])
    return [str(value) if extra[0] == n.ELEMENT else f"{name}: {value}" for value in values]


def feature_table(
    features: xr.Dataset | xr.DataArray, *, roi: xr.DataArray | None = None, latents: Sequence[int] = ()
) -> FeatureTable:
    """Features as columns, read in one pass, at the points of the ROI where every one of them is finite.

    features: a DataArray, or a Dataset of them, each over the navigation dims and at most one further dim. A map of
    codes (phase, clusters) becomes one 0/1 column per code, codes below 0 are missing. latents: which latent
    dimensions to take; empty = all. Raises SchemaError for what is laid out otherwise, RoiError where fewer than three
    points are left.
    """
    import dask

    nav = navigation_of(features)
    given = variables_of(features)
    if not given:
        raise UsageError("no feature is given; pass maps such as ds[['latents', 'BC']].")
    for name, variable in given.items():
        _check(name, variable, nav)
    chosen = {name: _latents(variable, nav, latents) for name, variable in given.items()}
    if latents and not any(_latent_dim(variable, nav) for variable in chosen.values()):
        raise UsageError(f"latents {list(latents)} are asked for, but the features {list(given)} are no latents.")
    mask = _mask(next(iter(chosen.values())), roi, nav)
    try:
        aligned = xr.align(mask, *chosen.values(), join="exact", copy=False)
    except ValueError as error:
        raise SchemaError(
            f"features and region of interest do not lie on the same grid: {error} Select the same points of each."
        ) from None
    loaded = dask.compute(*aligned)
    columns = columns_of(dict(zip(chosen, loaded[1:], strict=True)), nav)
    keep = loaded[0].transpose(*nav)
    inside = keep.copy(data=np.logical_and.reduce([keep.values, *(np.isfinite(c.values) for c in columns)]))
    if inside.sum() < MIN_POINTS:
        missing = {c.label: int((keep.values & ~np.isfinite(c.values)).sum()) for c in columns}
        raise RoiError(
            f"{int(inside.sum())} scan points are left where all features are known, of {int(keep.sum())} in the "
            f"region of interest; at least {MIN_POINTS} are needed. Missing there: {missing}."
        )
    return FeatureTable(
        values=np.stack([column.values[inside.values] for column in columns], axis=1),
        labels=tuple(column.label for column in columns),
        units=tuple(column.units for column in columns),
        is_latent=np.array([column.is_latent for column in columns]),
        inside=inside,
    )


def _check(name: str, variable: xr.DataArray, nav: Sequence[str]) -> None:
    if missing := [dim for dim in nav if dim not in variable.dims]:
        raise SchemaError(f"feature {name!r} has dims {variable.dims} and lacks {missing} of the others.")
    if len(extra := _extra(variable, nav)) > 1:
        raise SchemaError(
            f"feature {name!r} has the further dims {extra}; one is the most. Select or reduce, or pass only the "
            "variables to cluster by, such as ds[['latents', 'BC']]."
        )
    if variable.dtype.kind not in "biuf":
        raise SchemaError(f"feature {name!r} has dtype {variable.dtype}; expected numbers.")
    if 0 in variable.shape:
        raise SchemaError(f"feature {name!r} is empty: its sizes are {dict(variable.sizes)}.")


def _latent_dim(variable: xr.DataArray, nav: Sequence[str]) -> str | None:
    extra = _extra(variable, nav)
    return extra[0] if extra and (extra[0] == n.LATENT or extra[0].startswith(f"{n.LATENT}_")) else None


def _latents(variable: xr.DataArray, nav: Sequence[str], latents: Sequence[int]) -> xr.DataArray:
    dim = _latent_dim(variable, nav)
    if dim is None or not latents:
        return variable
    known = [int(v) for v in (variable[dim].values if dim in variable.coords else range(variable.sizes[dim]))]
    if unknown := [i for i in latents if i not in known]:
        raise UsageError(f"there is no latent dimension {unknown}; there are {known[0]} to {known[-1]}.")
    return variable.isel({dim: [known.index(i) for i in dict.fromkeys(latents)]})


def _mask(like: xr.DataArray, roi: xr.DataArray | None, nav: Sequence[str]) -> xr.DataArray:
    """The ROI, or True everywhere, with the coordinates of the features' grid."""
    if roi is not None:
        if not isinstance(roi, xr.DataArray) or roi.dtype != bool or set(roi.dims) != set(nav):
            found = f"{roi.dtype} over {roi.dims}" if isinstance(roi, xr.DataArray) else type(roi).__name__
            raise SchemaError(f"the ROI is {found}; expected boolean over {tuple(nav)}, as va.roi makes it.")
        return roi
    corner = like.isel(dict.fromkeys(_extra(like, nav), 0), drop=True).transpose(*nav)
    coords = {name: coord for name, coord in corner.coords.items() if coord.dims}
    return xr.DataArray(np.ones(corner.shape, bool), coords, nav)


def columns_of(variables: dict[str, xr.DataArray], nav: Sequence[str]) -> list[Column]:
    """Variables as maps with a label each, read in one pass. Raises SchemaError where two have the same label."""
    import dask

    for name, variable in variables.items():
        _check(name, variable, nav)
    loaded = dask.compute(*variables.values())
    columns = [
        column
        for name, variable in zip(variables, loaded, strict=True)
        for column in _columns(name, variable.transpose(*nav, ...), nav)
    ]
    labels = [column.label for column in columns]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise SchemaError(f"several features are called {', '.join(map(repr, twice))}; rename one of them.")
    return columns


def _columns(name: str, variable: xr.DataArray, nav: Sequence[str]) -> Iterable[Column]:
    units = str(variable.attrs.get("units", ""))
    values = variable.values
    if variable.ndim > len(nav):
        is_latent = _latent_dim(variable, nav) is not None
        for i, label in enumerate(entries(name, variable, nav)):
            yield Column(label=label, values=values[..., i].astype("f8"), units=units, is_latent=is_latent)
    elif is_categorical(variable):
        for code, word in categories(variable).items():
            one = np.where(values >= 0, values == code, np.nan)
            yield Column(label=f"{name}: {word}", values=one, units="1", is_latent=False)
    else:
        yield Column(label=name, values=values.astype("f8"), units=units, is_latent=False)


def scaling(table: FeatureTable, scale: Scale) -> dict[str, dict[str, float]]:
    """Feature -> `center` and `scale`, so that (value - center) / scale is what is clustered.

    `standard`: mean and standard deviation over the points used, `robust`: median and interquartile range, `none`: 0
    and 1. Features that hold one value only are left out. Raises DataError where nothing is left, or where more than
    half of a feature's points share one value, so that it has no interquartile range.
    """
    found: dict[str, dict[str, float]] = {}
    for label, column in zip(table.labels, table.values.T, strict=True):
        if np.ptp(column) == 0:
            continue
        center, spread = 0.0, 1.0
        if scale == "standard":
            center, spread = float(column.mean()), float(column.std())
        elif scale == "robust":
            low, center, high = (float(v) for v in np.quantile(column, (0.25, 0.5, 0.75)))
            spread = high - low
        if spread <= 0 or not np.isfinite(spread):
            raise DataError(
                f"feature {label!r} has no finite spread to scale by ({scale}: {spread:g}); use scale='standard', or "
                "leave it out."
            )
        found[label] = {"center": center, "scale": spread}
    if not found:
        raise DataError(
            f"each of the features {', '.join(table.labels)} holds one value only: there is nothing to tell."
        )
    return found


def scaled(table: FeatureTable, by: dict[str, dict[str, float]]) -> np.ndarray:
    """The columns that `by` names, scaled: `(n, f)`."""
    index = [table.labels.index(label) for label in by]
    center = np.array([entry["center"] for entry in by.values()])
    return np.asarray((table.values[:, index] - center) / np.array([entry["scale"] for entry in by.values()]))


def feature_warnings(table: FeatureTable, by: dict[str, dict[str, float]], scale: Scale) -> list[str]:
    """What a user should know about the features, in words."""
    warnings = []
    if constant := [label for label in table.labels if label not in by]:
        warnings.append(f"{', '.join(constant)}: one value only, left out.")
    idle = [
        label
        for label, is_latent, column in zip(table.labels, table.is_latent, table.values.T, strict=True)
        if is_latent and label in by and column.var() <= ACTIVE_VARIANCE
    ]
    if idle and scale != "none":
        warnings.append(
            f"{', '.join(idle)}: variance at most {ACTIVE_VARIANCE}, so these latents carry hardly anything, and "
            "scaling makes their noise as large as the others' signal; choose dimensions by latents."
        )
    return warnings


def table_attrs(by: dict[str, dict[str, float]], scale: Scale) -> dict[str, Any]:
    """Features and scaling as attributes."""
    return {"features": list(by), "scale": scale, "scaling": by}
