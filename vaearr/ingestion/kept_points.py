"""Lists of the points of a region as CSV files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, ExistsError
from vaearr.ingestion.placing import place_points, point_dims, step_numbers_of
from vaearr.ingestion.values import read_points
from vaearr.schema import grid
from vaearr.sources.tables import read_table
from vaearr.store.folders import replace_file


def write_kept_coordinates(ds: xr.Dataset, mask: xr.DataArray, path: str | Path) -> Path:
    """Write the points that a boolean map keeps to a CSV file.

    Parameters
    ----------
    ds
        The scan that the map belongs to.
    mask
        Boolean map, True = written.
    path
        The file.

    Returns
    -------
    Path
        The file: step numbers `x, y[, z]` and `x_position, y_position[, …]` in the scan's
        coordinate units, a row for each point, in row-major order.

    Raises
    ------
    ExistsError
        If the file exists.
    """
    file = Path(path).expanduser()
    if file.exists():
        raise ExistsError(f"{file} exists; give another name.")
    mask = grid.check_map(ds, mask)
    text = points_table(ds, np.flatnonzero(mask.values))
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, text.encode())
    return file


def points_table(ds: xr.Dataset, numbers: np.ndarray) -> str:
    """List points of a scan, given by their row-major numbers, as a CSV for `--points`."""
    points = grid.grid_indices(ds, numbers)
    dims = point_dims(ds)
    columns = {dim: step_numbers_of(ds, dim)[points[dim]] for dim in dims}
    columns |= {f"{dim}_position": ds[dim].values[points[dim]] for dim in dims}
    table: str = pd.DataFrame(columns).to_csv(index=False, lineterminator="\n")
    return table


def read_kept_coordinates(ds: xr.Dataset, path: str | Path) -> xr.DataArray:
    """Read a list of points as a boolean map, for `roi=`.

    Parameters
    ----------
    ds
        The scan on which the points lie.
    path
        Table with the columns x, y[, z], step numbers or coordinates. Columns such as `x_position`,
        as `write_kept_coordinates` writes them, must agree.

    Returns
    -------
    xarray.DataArray
        Boolean over the navigation dims, True at the listed points that were measured.

    Raises
    ------
    DataError
        For points that repeat or lie outside the scan, and for positions of another scan.
    """
    dims = point_dims(ds)
    file = Path(path).expanduser()
    points = read_points(file, dims)
    what = f"the points of {path}"
    placement = place_points(ds, points.values, read_as=points.read_as, what=what)
    n_outside = placement.counts()["n_outside"]
    if n_outside:
        raise DataError(
            f"{path}: {n_outside} of {placement.cells.size} points lie outside the scan."
        )
    if file.suffix.lower() == ".csv":
        _check_positions(ds, file, dims, placement.cells)
    listed = placement.covered()
    kept = listed & grid.measured(ds)
    nav = schema.navigation_dims(ds)
    attrs = {
        "source": file.name,
        "n": int(kept.sum()),
        "n_not_measured": int((listed & ~kept).sum()),
    }
    coords = {dim: ds[dim].variable for dim in nav}
    return xr.DataArray(kept, coords, nav, n.ROI, n.ATTRS[n.ROI] | attrs)


def _check_positions(ds: xr.Dataset, file: Path, dims: tuple[str, ...], cells: np.ndarray) -> None:
    """Raise DataError if the file has positions that are not those of the points `cells`."""
    positions = [f"{dim}_position" for dim in dims]
    table = read_table(file, dims)
    if not set(positions) <= set(table.frame.columns):
        return
    what = f"the positions of {file}"
    placement = place_points(ds, table.numbers(positions), read_as="coordinates", what=what)
    if not np.array_equal(placement.cells, cells):
        raise DataError(
            f"{file}: positions and step numbers are not the same points; the list belongs to "
            "another scan."
        )
