"""A result of any kind as one screen of text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.schema import is_categorical, meanings
from vaearr.views.common import brief, text
from vaearr.views.kinds import kind_of

if TYPE_CHECKING:
    from vaearr import Run

WIDTH = 110  # characters of a line
ROWS = 20  # of a table
MAX_COLUMNS = 10
MAX_CELLS = 60  # of an array of several dims that is printed as a table
MAX_VALUES = 10_000_000  # larger variables are not read
SKIPPED_ATTRIBUTES = {
    "kind",
    "long_name",
    "units",
    "warnings",
    "flag_values",
    "flag_meanings",
    n.PROVENANCE,
}
# tables whose rows are sorted: the variable that sorts them, and the dim along which the best are
# listed
SORTED_BY = {
    "association": n.LATENT,
    "relative_l2_mean": "layer",
    "relative_l2": "layer",
    "ari": n.LATENT,
}


def describe(result: xr.Dataset | xr.DataArray | Run, top: int | None = None) -> list[str]:
    """Describe a result in one screen of text.

    Parameters
    ----------
    result
        Any Dataset or DataArray, or a run (its Dataset).
    top
        Rows to list of a table; of associations for each metric and target. Default: as many as fit
        a screen.

    Returns
    -------
    list of str
        Kind and sizes; attributes; least, median and largest value of each variable; the first (of
        associations and layers the strongest) rows of its table; warnings last.
    """
    if top is not None and top < 1:
        raise UsageError(f"top is {top}; it must be 1 or more.")
    if not isinstance(result, xr.Dataset | xr.DataArray):  # a run
        result = result.ds
    ds = (
        result.to_dataset(name=result.name or "value")
        if isinstance(result, xr.DataArray)
        else result
    )
    try:
        kind = kind_of(result)
    except UsageError:
        kind = type(result).__name__
    sizes = " x ".join(f"{size} {dim}" for dim, size in result.sizes.items())
    lines = textwrap.wrap(f"{kind}: {sizes}", WIDTH)
    lines += _attributes(result.attrs)
    lines += _rows(
        pd.DataFrame([_statistics(name, variable) for name, variable in ds.data_vars.items()]), ROWS
    )
    lines += _table(ds, top)
    warnings = [*ds.attrs.get("warnings", ())]
    for variable in ds.data_vars.values():
        warnings += variable.attrs.get("warnings", ())
    return lines + [f"warning: {text(warning)}" for warning in dict.fromkeys(warnings)]


def _attributes(attrs: Mapping[Any, Any]) -> list[str]:
    """Attributes that are one value or a short list, as wrapped text."""
    words = []
    for key, value in attrs.items():
        if key not in SKIPPED_ATTRIBUTES and not isinstance(value, Mapping) and np.size(value):
            shown = f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {text(value)}"
            if len(shown) < WIDTH and value != "":
                words.append(shown)
    return textwrap.wrap("; ".join(words), WIDTH, initial_indent="  ", subsequent_indent="  ")


def _statistics(name: Any, variable: xr.DataArray) -> dict[str, str]:
    """Shape of a variable; of numbers the least, median and largest value, and how many are
    missing.
    """
    row = dict.fromkeys(("variable", "shape", "min", "median", "max", "missing"), "")
    row |= {"variable": text(name), "shape": " x ".join(map(str, variable.shape))}
    if (
        variable.dtype.kind in "uifb"
        and not is_categorical(variable)
        and variable.size <= MAX_VALUES
    ):
        values = np.asarray(variable.values, dtype="f8")
        finite = values[np.isfinite(values)]
        row["missing"] = str(values.size - finite.size)
        if finite.size:
            low, middle, high = np.quantile(finite, (0, 0.5, 1))
            row |= {"min": f"{low:.4g}", "median": f"{middle:.4g}", "max": f"{high:.4g}"}
    return row


def _table(ds: xr.Dataset, top: int | None) -> list[str]:
    """The rows of the table that a Dataset holds: sorted, sizes of classes, vectors, or small
    arrays side by side.
    """
    most = top or ROWS
    for sorting, along in SORTED_BY.items():
        dims = [str(dim) for dim in ds[sorting].dims] if sorting in ds else []
        if any(dim.startswith(along) for dim in dims):
            return _sorted_table(
                ds, sorting, next(dim for dim in dims if dim.startswith(along)), top
            )
    variables = list(ds.data_vars.values())
    if len(variables) == 1 and is_categorical(variables[0]) and variables[0].size <= MAX_VALUES:
        return _class_sizes(variables[0])
    if "decoded" in ds and ds[n.LATENTS].ndim == 2:
        vectors: Any = ds[n.LATENTS].to_pandas()
        return _rows(vectors.reset_index(), most, max_columns=None)
    columns_of: dict[Any, list[Any]] = {}
    for name, variable in ds.data_vars.items():
        if variable.ndim == 1 or (variable.ndim and variable.size <= MAX_CELLS):
            columns_of.setdefault(variable.dims, []).append(name)
    if not columns_of or n.PATTERNS in ds:
        return []
    columns: list[Any] = max(columns_of.values(), key=lambda names: len(names))
    return _rows(ds[columns].to_dataframe().reset_index(), most)


def _sorted_table(ds: xr.Dataset, name: str, along: str, top: int | None) -> list[str]:
    """The labels of a dim with the largest absolute values, for each label of the other dims; ties
    are marked.
    """
    dims = ds[name].dims
    columns = [
        other for other, variable in ds.data_vars.items() if variable.dims == dims and other != name
    ]
    frame = ds[[name, *columns]].to_dataframe().reset_index().dropna(subset=[name])
    others = [str(dim) for dim in dims if dim != along]
    frame = frame.sort_values(name, key=lambda value: -abs(value), kind="stable")
    frame["tied"] = frame.assign(size=abs(frame[name]).round(9)).duplicated(
        [*others, "size"], keep=False
    )
    frame = frame[[*others, along, name, "tied", *columns]]
    if not others:
        return _rows(frame, top or ROWS)
    groups = frame.groupby(others, sort=False)
    best = groups.head(top or max(1, ROWS // max(1, groups.ngroups)))
    return _rows(best.sort_values(others, kind="stable"), len(best) if top else ROWS)


def _class_sizes(labels: xr.DataArray) -> list[str]:
    """How many points each class holds, the largest first."""
    counts = labels.to_series().value_counts().rename_axis("code").reset_index()
    names = meanings(labels)
    counts.insert(0, "class", [names.get(code, code) for code in counts["code"]])
    return _rows(counts, ROWS)


def _rows(frame: pd.DataFrame, most: int, max_columns: int | None = MAX_COLUMNS) -> list[str]:
    """The first rows of a table as lines of text."""
    if frame.empty:
        return []
    shown = frame.iloc[:most, :max_columns]
    cells = shown.map(lambda cell: f"{cell:.4g}" if isinstance(cell, float) else brief(cell, 40))
    lines = [f"  {line.rstrip()}" for line in cells.to_string(index=False).splitlines()]
    return lines + [f"  and {len(frame) - most} more rows"] * (len(frame) > most)
