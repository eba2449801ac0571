"""Side maps from CSV: one value, several elements or a phase number for scan points given by x and y step numbers.

`read_*` gives a small frame with integer columns x and y, indexed by line number; `place_on_grid` puts its columns on
the grid of a scan, whatever their order, and counts what is missing; `map_array`, `element_array` and `phase_array` go
from a file to the labelled variable in one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.errors import DataError, did_you_mean
from vaearr.sources.csv_files import numbers_of, plain_name, read_csv, whole_numbers_of
from vaearr.sources.ebsd_maps import phase_flags

# Each tuple: names that mean the same, as `plain_name` gives them; the first that a file holds is taken.
COORDINATES: dict[str, tuple[str, ...]] = {
    axis: tuple(
        name.replace("#", axis)
        for name in ("#index", "#indice", "#idx", "#i", "i#", "#step", "#", "#position", "#pos", "#coord",
                     "#coordinate", "#coords", "#pixel", "#px")
    )
    for axis in ("x", "y")
}  # fmt: skip
SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("bc", "bandcontrast", "bandcontr"),
    ("bs", "bandslope"),
    ("mad", "meanangulardeviation"),
    ("iq", "imagequality"),
    ("ci", "confidenceindex"),
    ("phase", "phaseid", "phaseindex", "phaseindice", "phaseno", "phasenumber", "phasenum"),
)


@dataclass(frozen=True)
class Placed:
    """Columns on the grid, and how well they cover it."""

    values: dict[str, np.ndarray]
    n_missing: int
    n_outside: int

    def counts(self) -> dict[str, int]:
        """For the attributes of the variable."""
        return {"n_missing": self.n_missing, "n_outside": self.n_outside}


def read_map(path: str | Path, name: str) -> pd.DataFrame:
    """Columns x, y and `name`: the only other column of the file, or the one whose name means the same."""
    file, frame, steps, others = _read(path)
    if len(others) != 1:
        meant = _synonyms(name)
        fitting = [column for column in others if plain_name(column) in meant]
        if len(fitting) != 1:
            found = f"{len(fitting)} columns" if fitting else "no column"
            raise DataError(f"{file} has {found} for {name!r}; keep one.{did_you_mean(name, fitting or others)}")
        others = fitting
    return _note(steps.assign(**{name: numbers_of(frame, others[0], file, dtype="f4")}), frame, column=others[0])


def read_elements(path: str | Path) -> pd.DataFrame:
    """Columns x, y and one for each element: all other columns, without a unit in brackets."""
    file, frame, steps, others = _read(path)
    if not others:
        raise DataError(f"{file} has no element columns; expected x, y and one column for each element.")
    for column in others:
        name = column.split("(")[0].split("[")[0].strip() or column
        if name in steps:
            raise DataError(f"{file}: two columns are element {name!r} (one is {column!r}); keep one.")
        steps[name] = numbers_of(frame, column, file, dtype="f4")
    return _note(steps, frame, column=", ".join(others))


def read_phases(path: str | Path) -> pd.DataFrame:
    """Columns x, y and phase: whole numbers, -1 = not indexed, -2 where the field is empty."""
    frame = read_map(path, n.PHASE)
    filled = frame.assign(**{n.PHASE: frame[n.PHASE].fillna(n.PHASE_MISSING)})
    numbers = whole_numbers_of(filled, n.PHASE, Path(path), "a phase number, or -1 for not indexed")
    bad = (numbers < n.PHASE_UNKNOWN) & frame[n.PHASE].notna().to_numpy() | (numbers > np.iinfo("i2").max)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{path} line {frame.index[row]}, column {frame.attrs['column']!r}: {numbers[row]}; expected a phase "
            f"number, or -1 for not indexed."
        )
    return frame.assign(**{n.PHASE: numbers.astype("i2")})


def _read(path: str | Path) -> tuple[Path, pd.DataFrame, pd.DataFrame, list[str]]:
    """The file, its columns, the step numbers x and y, and the names of the value columns."""
    file = Path(path).expanduser()
    frame = read_csv(file)
    columns = [str(column) for column in frame.columns]
    unnamed = [column for column in columns if column.startswith("\0") or column.lower().startswith("unnamed:")]
    named = [column for column in columns if column not in unnamed]
    steps = pd.DataFrame(index=frame.index)
    taken: set[str] = set()
    for axis, meant in COORDINATES.items():
        fitting = [c for c in named if plain_name(c) in meant]
        fitting.sort(key=lambda c: (meant.index(plain_name(c)), c != c.lower()))
        if not fitting:
            listed = ", ".join(named[:30])
            raise DataError(f"{file} has no column for {axis}; expected {axis} or {axis}_index. It has: {listed}.")
        steps[axis] = whole_numbers_of(frame, fitting[0], file, f"a whole step number {axis}")
        taken |= {fitting[0], *(c for c in fitting if _twin(c, axis) in named)}
    frame.attrs["dropped"] = len(unnamed)
    return file, frame, steps, [column for column in named if column not in taken]


def _twin(column: str, axis: str) -> str:
    """The name of the other axis' column: a lone `Y` beside `x, y` is yttrium, `X, Y` beside `x_index, y_index` not."""
    other = "y" if axis == "x" else "x"
    return column.replace(axis, other).replace(axis.upper(), other.upper())


def _note(result: pd.DataFrame, frame: pd.DataFrame, *, column: str) -> pd.DataFrame:
    result.attrs = {**frame.attrs, "column": column}
    return result


def _synonyms(name: str) -> set[str]:
    plain = plain_name(name)
    return {plain}.union(*(group for group in SYNONYMS if plain in group))


def place_on_grid(
    frame: pd.DataFrame,
    x_index: np.ndarray,
    y_index: np.ndarray,
    *,
    file: str | Path,
    present: np.ndarray | None = None,
    fill: float = np.nan,
) -> Placed:
    """Columns of `frame` other than x and y as arrays (y, x), `fill` where the frame has no line.

    present: boolean (y, x), the scan points that count as missing where they have no line; all of them by default.
    Raises DataError for repeated scan points, and where no line lies on the grid.
    """
    repeated = frame.duplicated(["x", "y"])
    if repeated.any():
        second = frame.iloc[int(repeated.to_numpy().argmax())]
        same = frame.index[(frame["x"] == second["x"]) & (frame["y"] == second["y"])]
        raise DataError(
            f"{file}: lines {same[0]} and {same[1]} both have x = {int(second['x'])}, y = {int(second['y'])} "
            f"({int(repeated.sum())} lines repeat a scan point); keep one of each."
        )
    ix, in_x = _lookup(frame["x"].to_numpy(), x_index)
    iy, in_y = _lookup(frame["y"].to_numpy(), y_index)
    on_grid = in_x & in_y
    if not on_grid.any():
        raise DataError(
            f"{file}: no line lies on the scan: the file covers {_extent(frame['x'], frame['y'])}, the scan "
            f"{_extent(x_index, y_index)}; check that both count from the same origin and in steps."
        )
    iy, ix = iy[on_grid], ix[on_grid]
    covered = np.zeros((y_index.size, x_index.size), dtype=bool)
    covered[iy, ix] = True
    values = {}
    for name in frame.columns.drop(["x", "y"]):
        column = frame[name].to_numpy()
        grid = np.full(covered.shape, fill, dtype=column.dtype)
        grid[iy, ix] = column[on_grid]
        values[str(name)] = grid
    n_missing = int((~covered if present is None else ~covered & present).sum())
    return Placed(values, n_missing=n_missing, n_outside=int((~on_grid).sum()))


def _lookup(values: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(axis, kind="stable")
    found = order[np.clip(np.searchsorted(axis, values, sorter=order), 0, axis.size - 1)]
    return found, axis[found] == values


def _extent(x: pd.Series | np.ndarray, y: pd.Series | np.ndarray) -> str:
    return f"x {x.min()} to {x.max()}, y {y.min()} to {y.max()}"


def map_array(path: str | Path, name: str, ds: xr.Dataset) -> xr.DataArray:
    """A side map as a float32 variable (y, x), NaN where the file has no value."""
    frame = read_map(path, name)
    placed = _place(frame, path, ds)
    attrs = n.ATTRS.get(name, {"long_name": frame.attrs["column"]})
    return _variable(ds, (n.Y, n.X), placed.values[name], {**attrs, **_origin(path, frame, placed)})


def element_array(path: str | Path, ds: xr.Dataset, units: str) -> xr.DataArray:
    """Element maps as one float32 variable (element, y, x), NaN where the file has no value."""
    frame = read_elements(path)
    placed = _place(frame, path, ds)
    attrs = {**n.ATTRS[n.ELEMENTS], "units": units, **_origin(path, frame, placed)}
    stack = np.stack(list(placed.values.values()))
    return _variable(ds, (n.ELEMENT, n.Y, n.X), stack, attrs).assign_coords({n.ELEMENT: list(placed.values)})


def phase_array(path: str | Path, ds: xr.Dataset, names: Mapping[int, str]) -> xr.DataArray:
    """Phase numbers as an int16 variable (y, x) with CF flags; -1 = not indexed, -2 = no entry."""
    frame = read_phases(path)
    placed = _place(frame, path, ds, fill=n.PHASE_MISSING)
    numbers = placed.values[n.PHASE]
    attrs = {**phase_flags(numbers, names), **_origin(path, frame, placed)}
    return _variable(ds, (n.Y, n.X), numbers, attrs)


def _place(frame: pd.DataFrame, path: str | Path, ds: xr.Dataset, fill: float = np.nan) -> Placed:
    present = ds[n.PRESENT].values if n.PRESENT in ds else None
    return place_on_grid(frame, ds["x_index"].values, ds["y_index"].values, file=path, present=present, fill=fill)


def _origin(path: str | Path, frame: pd.DataFrame, placed: Placed) -> dict[str, object]:
    origin = {"source": Path(path).name, "column": frame.attrs["column"], "n_dropped": frame.attrs["dropped"]}
    return {**origin, **placed.counts()}


def _variable(ds: xr.Dataset, dims: tuple[str, ...], values: np.ndarray, attrs: Mapping[str, object]) -> xr.DataArray:
    return xr.DataArray(values, dims=dims, coords={d: ds[d] for d in dims if d in ds.coords}, attrs=dict(attrs))
