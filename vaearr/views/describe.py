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

WIDTH = 100  # characters of a line
INDENT = "  "
NO_BREAK = "\N{NO-BREAK SPACE}"
MAX_ROWS = 20  # of a table
MAX_DECODED_LINES = 10  # about decoded pictures
MAX_DECODED_ROWS = 4
QUANTILES = ("min", "median", "max")
MAX_CELLS = 60  # of an array of several dims that is printed as a table
MAX_VALUES = 10_000_000  # larger variables are not read
SKIPPED_ATTRIBUTES = {
    "kind",
    "long_name",
    "units",
    "warnings",
    "weights_sha256",
    "flag_values",
    "flag_meanings",
    n.PROVENANCE,
}
# tables with sorted rows: the variable that sorts them, and the dim whose best labels are listed
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
    result : xarray.Dataset, xarray.DataArray or Run
        Any result or variable; of a run its Dataset is described.
    top : int, optional
        Number of rows of a table; of associations for each metric and target. Default: as many as
        fit on a screen.

    Returns
    -------
    list of str
        Lines: kind and sizes; attributes; minimum, median and maximum of each variable; the first
        rows of its table (the strongest of associations and layers); warnings last.

    Raises
    ------
    UsageError
        If `top` is below 1.

    Examples
    --------
    >>> import vaearr as va
    >>> from vaearr.testing import synthetic_scan
    >>> scan = synthetic_scan(nx=8, ny=6, pattern_shape=(16, 16), n_grains=3)
    >>> va.describe(scan.BC)[0]
    'map: 6 y x 8 x'
    """
    if top is not None and top < 1:
        raise UsageError(f"top is {top}; it must be 1 or more.")
    if not isinstance(result, xr.Dataset | xr.DataArray):  # a run
        result = result.ds
    try:
        kind = kind_of(result)
    except UsageError:
        kind = type(result).__name__
    sizes = " x ".join(f"{size} {dim}" for dim, size in result.sizes.items())
    if isinstance(result, xr.DataArray):
        ds = result.to_dataset(name=result.name or "value")
    else:
        ds = result
    columns = _columns(ds)
    others = ds.drop_vars(columns).data_vars.values()
    statistics = _rows(pd.DataFrame([_statistics(variable) for variable in others]))
    lines = textwrap.wrap(f"{kind}: {sizes}", WIDTH)
    lines += _attributes(result.attrs)
    if "decoded" in ds:
        lines += _table(ds, columns, top or MAX_DECODED_ROWS)
        lines += statistics[: max(0, MAX_DECODED_LINES - len(lines))]
    else:
        lines += statistics
        lines += _table(ds, columns, top)
    return lines + _warnings(ds)


def _warnings(ds: xr.Dataset) -> list[str]:
    """The warnings of a Dataset and of its variables, each once."""
    warnings: list[Any] = []
    for item in (ds, *ds.data_vars.values()):
        warnings += item.attrs.get("warnings", ())
    return [f"warning: {text(warning)}" for warning in dict.fromkeys(warnings)]


def _attributes(attrs: Mapping[Any, Any]) -> list[str]:
    """Attributes that are one value or a short list, as wrapped text."""
    entries = []
    for key, value in attrs.items():
        if key in SKIPPED_ATTRIBUTES or isinstance(value, Mapping) or not np.size(value):
            continue
        entry = f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {text(value)}"
        if len(entry) < WIDTH - len(INDENT) and value != "":
            entries.append(entry.replace(" ", NO_BREAK))
    lines = textwrap.wrap(
        "; ".join(entries), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT
    )
    return [line.replace(NO_BREAK, " ") for line in lines]


def _statistics(variable: xr.DataArray) -> dict[str, str]:
    """Shape of a variable; of numbers the minimum, median, maximum and the number of NaN."""
    row = dict.fromkeys(("variable", "shape", "min", "median", "max", "missing"), "")
    row["variable"] = text(variable.name)
    row["shape"] = " x ".join(map(str, variable.shape))
    is_numeric = variable.dtype.kind in "uifb" and not is_categorical(variable)
    if not is_numeric or variable.size > MAX_VALUES:
        return row
    values = np.asarray(variable.values, dtype="f8")
    finite = values[np.isfinite(values)]
    row["missing"] = str(values.size - finite.size)
    if finite.size:
        for key, value in zip(QUANTILES, np.quantile(finite, (0, 0.5, 1)), strict=True):
            row[key] = _cell(value)
    return row


def _table(ds: xr.Dataset, columns: list[Any], top: int | None) -> list[str]:
    """The table that a Dataset holds: sorted rows, class sizes, or columns."""
    for name, prefix in SORTED_BY.items():
        dims = [str(dim) for dim in ds.get(name, xr.DataArray()).dims]
        sorted_dims = [dim for dim in dims if dim.startswith(prefix)]
        if sorted_dims:
            return _sorted_table(ds, name, sorted_dims[0], top)
    first = next(iter(ds.data_vars.values()), xr.DataArray())
    if len(ds.data_vars) == 1 and is_categorical(first) and first.size <= MAX_VALUES:
        return _class_sizes(first)
    if not columns:
        return []
    return _rows(ds[columns].to_dataframe().reset_index(), top)


def _columns(ds: xr.Dataset) -> list[Any]:
    """The largest group of variables over the same dims that fit into a table.

    A single one of several variables is none.
    """
    if n.PATTERNS in ds:
        return []
    groups: dict[Any, list[Any]] = {}
    for name, variable in ds.data_vars.items():
        if variable.ndim == 1 or (variable.ndim and variable.size <= MAX_CELLS):
            groups.setdefault(variable.dims, []).append(name)
    largest = max(groups.values(), key=len, default=[])
    return [] if len(largest) == 1 < len(ds.data_vars) else largest


def _sorted_table(ds: xr.Dataset, name: str, along: str, top: int | None) -> list[str]:
    """The labels of a dim with the largest absolute values, for each label of the other dims.

    Ties are marked.
    """
    dims = ds[name].dims
    columns = [column for column in ds.data_vars if ds[column].dims == dims and column != name]
    frame = ds[[name, *columns]].to_dataframe().reset_index()
    frame = frame.dropna(subset=[name])
    others = [str(dim) for dim in dims if dim != along]
    size = abs(frame[name])
    frame["tied"] = frame[others].assign(size=size.round(9)).duplicated(keep=False)
    frame = frame.loc[size.sort_values(ascending=False, kind="stable").index]
    frame = frame[[*others, along, name, "tied", *columns]]
    if not others:
        return _rows(frame, top)
    groups = frame.groupby(others, sort=False)
    best = groups.head(top or max(1, MAX_ROWS // max(1, groups.ngroups)))
    return _rows(best.sort_values(others, kind="stable"), len(best) if top else None)


def _class_sizes(labels: xr.DataArray) -> list[str]:
    """The number of points of each class, the largest first."""
    counts = labels.to_series().value_counts().rename_axis("code").reset_index()
    names = meanings(labels)
    counts.insert(0, "class", [names.get(code, code) for code in counts["code"]])
    return _rows(counts)


def _rows(frame: pd.DataFrame, max_rows: int | None = None) -> list[str]:
    """The first rows of a table as lines of text, by default as many as fit on a screen.

    Columns that do not fit are named.
    """
    if frame.empty:
        return []
    max_rows = max_rows or MAX_ROWS
    cells = frame.iloc[:max_rows].map(_cell)
    widths = [max(len(str(name)), *map(len, cells[name])) + 1 for name in cells]
    n_columns = max(1, int((np.cumsum(widths) < WIDTH - 1).sum()))
    text_of_rows = cells.iloc[:, :n_columns].to_string(index=False)
    lines = [f"  {line.rstrip()}" for line in text_of_rows.splitlines()]
    if len(frame) > max_rows:
        lines.append(f"  and {len(frame) - max_rows} more rows")
    if n_columns < len(widths):
        names = ", ".join(map(str, cells.columns[n_columns:]))
        lines.append(f"  and columns {brief(names, WIDTH - 14)}")
    return lines


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else brief(value, 40)
