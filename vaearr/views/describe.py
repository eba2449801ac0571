"""A result of any kind as one screen of text."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.run import Run
from vaearr.schema import is_categorical, meanings
from vaearr.views.common import brief, text
from vaearr.views.kinds import kind_of

WIDTH = 110  # characters of a line
ROWS = 20  # of a table
MAX_DIMS = 6  # in the first line
MAX_COLUMNS = 10
MAX_CELLS = 60  # of an array of several dims that is printed as a table
MAX_VALUES = 10_000_000  # larger variables are not read
LISTED_ATTRIBUTE = 60  # characters of an attribute that is printed
SKIPPED_ATTRIBUTES = {"kind", "long_name", "units", "warnings", "flag_values", "flag_meanings", n.PROVENANCE}
# tables whose rows are sorted: the variable that sorts them; of the same labels over other dims the best are listed
SORTED_BY = {"association": n.LATENT, "relative_l2_mean": "layer", "relative_l2": "layer", "ari": n.LATENT}


def describe(result: xr.Dataset | xr.DataArray | Run, top: int | None = None) -> list[str]:
    """Describe a result in one screen of text.

    Parameters
    ----------
    result
        Any Dataset or DataArray, or a run (its Dataset).
    top
        Rows to list of a table; of associations for each metric and target. Default: as many as fit a screen.

    Returns
    -------
    list of str
        Kind and sizes; attributes; least, median and largest value of each variable; the first (of associations and
        layers the strongest) rows of its table; warnings last.
    """
    if top is not None and top < 1:
        raise UsageError(f"top is {top}; it must be 1 or more.")
    if isinstance(result, Run):
        result = result.ds
    lines = [_heading(result)]
    lines += _attributes(result)
    ds = result.to_dataset(name=result.name or "value") if isinstance(result, xr.DataArray) else result
    lines += _statistics(ds)
    lines += _table(ds, top)
    warnings = list(ds.attrs.get("warnings", ()))
    for variable in ds.data_vars.values():
        warnings += variable.attrs.get("warnings", ())
    return lines + [f"warning: {text(warning)}" for warning in dict.fromkeys(warnings)]


def _heading(result: xr.Dataset | xr.DataArray) -> str:
    try:
        kind = kind_of(result)
    except UsageError:
        kind = type(result).__name__
    sizes = " x ".join(f"{size} {dim}" for dim, size in list(result.sizes.items())[:MAX_DIMS])
    if len(result.sizes) > MAX_DIMS:
        sizes += f" and {len(result.sizes) - MAX_DIMS} more dims"
    return f"{kind}: {sizes}" if sizes else kind


def _attributes(result: xr.Dataset | xr.DataArray) -> list[str]:
    """Attributes that are one value or a short list, as wrapped text."""
    words = []
    for key, value in result.attrs.items():
        is_short = isinstance(value, str | int | float | np.number | list | tuple)
        is_empty = isinstance(value, str | list | tuple) and len(value) == 0
        if key in SKIPPED_ATTRIBUTES or not is_short or is_empty:
            continue
        number = f"{value:.4g}" if isinstance(value, float | np.floating) else text(value)
        if len(number) <= LISTED_ATTRIBUTE:
            words.append(f"{key} = {number}")
    return textwrap.wrap("; ".join(words), WIDTH, initial_indent="  ", subsequent_indent="  ")


def _statistics(ds: xr.Dataset) -> list[str]:
    """A line for each numeric variable: least, median and largest value, and how many are missing."""
    rows = []
    for name, variable in ds.data_vars.items():
        sizes = " x ".join(map(str, variable.shape))
        row: dict[str, Any] = {
            "variable": text(name),
            "shape": sizes,
            "min": "",
            "median": "",
            "max": "",
            "missing": "",
        }
        is_number = variable.dtype.kind in "uifb" and not is_categorical(variable)
        if is_number and 0 < variable.size <= MAX_VALUES:
            values = np.asarray(variable.values, dtype="f8")
            finite = values[np.isfinite(values)]
            row["missing"] = str(values.size - finite.size)
            if finite.size:
                row["min"] = f"{finite.min():.4g}"
                row["median"] = f"{np.median(finite):.4g}"
                row["max"] = f"{finite.max():.4g}"
        rows.append(row)
    return _rows(pd.DataFrame(rows), ROWS)


def _table(ds: xr.Dataset, top: int | None) -> list[str]:
    """The rows of the table that a Dataset holds: sorted, sizes of classes, vectors, or small arrays side by side."""
    for sorting, along in SORTED_BY.items():
        dims = [dim for dim in ds[sorting].dims if str(dim).startswith(along)] if sorting in ds else []
        if dims:
            return _sorted_table(ds, sorting, str(dims[0]), top)
    if len(ds.data_vars) == 1:
        (only,) = ds.data_vars.values()
        if is_categorical(only) and only.size <= MAX_VALUES:
            return _class_sizes(only)
    matrix = ds.get(n.LATENTS if "decoded" in ds else "summary")
    if matrix is not None and matrix.ndim == 2:
        return _matrix(matrix, top or ROWS)
    if n.PATTERNS in ds:
        return []
    return _small_arrays(ds, top or ROWS)


def _small_arrays(ds: xr.Dataset, most: int) -> list[str]:
    """The largest group of small arrays with the same dims as a table."""
    columns_of: dict[tuple[Any, ...], list[Any]] = {}
    for name, variable in ds.data_vars.items():
        is_small = variable.ndim > 1 and variable.size <= MAX_CELLS
        if variable.ndim == 1 or is_small:
            columns_of.setdefault(variable.dims, []).append(name)
    if not columns_of:
        return []
    columns = max(columns_of.values(), key=len)
    return _rows(ds[columns].to_dataframe().reset_index(), most)


def _sorted_table(ds: xr.Dataset, name: str, along: str, top: int | None) -> list[str]:
    """The labels of a dim with the largest absolute values, for each label of the other dims."""
    dims = ds[name].dims
    columns = [other for other, variable in ds.data_vars.items() if variable.dims == dims and other != name]
    frame = ds[[name, *columns]].to_dataframe().reset_index().dropna(subset=[name])
    frame = frame.iloc[np.argsort(-abs(frame[name].to_numpy()), kind="stable")]
    others = [str(dim) for dim in dims if dim != along]
    rounded = frame.assign(size=abs(frame[name]).round(9))
    frame["tied"] = rounded.duplicated([*others, "size"], keep=False)
    if not others:
        return _rows(frame, top or ROWS)
    groups = frame.groupby(others, sort=False)
    per_group = top or max(1, ROWS // max(1, groups.ngroups))
    best = groups.head(per_group).sort_values(others, kind="stable")
    return _rows(best[[*others, along, name, "tied", *columns]], len(best) if top else ROWS)


def _matrix(values: xr.DataArray, most: int) -> list[str]:
    """An array of two dims as a table: latents of decoded pictures, statistics of latents."""
    rows, columns = values.dims
    frame = pd.DataFrame(values.values, columns=[f"{columns} {i}" for i in range(values.sizes[columns])])
    if columns in values.coords and values[columns].dtype.kind not in "iuf":
        frame.columns = pd.Index([str(label) for label in values[columns].values])
    frame.insert(0, str(rows), values[rows].values)
    return _rows(frame, most, max_columns=None)


def _class_sizes(labels: xr.DataArray) -> list[str]:
    """How many points each class holds, the largest first."""
    names = meanings(labels)
    codes, counts = np.unique(labels.values, return_counts=True)
    classes = [names.get(int(code), str(code)) for code in codes]
    frame = pd.DataFrame({"class": classes, "code": codes, "count": counts})
    return _rows(frame.sort_values("count", ascending=False, kind="stable"), ROWS)


def _rows(frame: pd.DataFrame, most: int, max_columns: int | None = MAX_COLUMNS) -> list[str]:
    lines = _aligned(frame.iloc[:most, :max_columns])
    if len(frame) > most:
        lines.append(f"  and {len(frame) - most} more rows")
    return lines


def _aligned(frame: pd.DataFrame) -> list[str]:
    """A table as lines of text, its columns aligned."""
    if frame.empty:
        return []
    cells = frame.map(lambda cell: f"{cell:.4g}" if isinstance(cell, float) else brief(cell, 40))
    return [f"  {line.rstrip()}" for line in cells.to_string(index=False).splitlines()]
