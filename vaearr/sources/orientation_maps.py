"""Orientation maps as text: `.ang` (EDAX, EMsoft, ASTAR, orix) and `.ctf` (Oxford, Bruker, MTEX).

orix (an optional package, GPL) reads them. This module adds what it lacks: text in any encoding,
decimal commas of `.ctf`, points put on the grid by the rank of their coordinates, error messages of
one line. The maps hold no patterns: they are added to a scan of the same size. Values closer than
0.45 steps are one column or row, and each gap between neighbouring columns is rounded to whole
steps separately, so that rounding errors do not add up.
"""

from __future__ import annotations

import codecs
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import IngestConfig
from vaearr.errors import DataError, need
from vaearr.schema.grid import measured
from vaearr.sources import ebsd_maps as m
from vaearr.sources.hdf5 import check_file, in_words
from vaearr.sources.scan_grid import LARGEST_STEP_NUMBER, scan_grid
from vaearr.sources.tables import read_text

ENGINE = "orientation-map"
COLUMN_NAMES = {  # by the names in orix; other columns are left out
    "iq": m.IQ_HOUGH,
    "ci": m.CI,
    "detector_signal": m.SEM_SIGNAL,
    "fit": m.FIT,
    "dp": "dot_product",
    "ind": "correlation_index",
    "rel": "reliability",
    "bands": m.BANDS,
    "error": m.INDEXING_ERROR,
    "MAD": m.MAD,
    "BC": n.BC,
    "BS": m.BAND_SLOPE,
    "DP": "dot_product",
    "OSM": "orientation_similarity",
    "IQ": m.IQ_FFT,
}
# of an .ang file with further columns, which orix does not name
UNNAMED = {"unknown1": m.IQ_HOUGH, "unknown2": m.CI, "unknown3": m.SEM_SIGNAL, "unknown4": m.FIT}
SAME_COLUMN = 0.45  # of a step; a hexagonal grid has columns half a step apart
LARGEST = float(np.finfo("f4").max)


def sniff(path: Path) -> bool:
    """Whether a file starts as `.ang` or `.ctf` files do."""
    return bool(_kind(path))


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(2**14).removeprefix(codecs.BOM_UTF8).decode("latin-1")
    if head.startswith("Channel Text File"):
        return "ctf"
    is_ang = head.startswith("#") and re.search(
        r"^#\s*(GRID|TEM_PIXperUM|Phase|MaterialName|Column names)", head, re.M
    )
    return "ang" if is_ang else ""


def refuse_without_patterns(path: Path, config: IngestConfig) -> NoReturn:
    """Raises DataError: a map without patterns is no source."""
    raise DataError(
        f"{path} is an orientation map without patterns; ingest the file of the patterns, with this "
        "map as orientations=…"
    )


def side_maps(path: str | Path, ds: xr.Dataset) -> dict[str, xr.DataArray]:
    """Read the maps of an `.ang` or `.ctf` file for the points of a scan.

    Raises DataError where the map has another number of rows or columns than the scan, and see
    `read_orientation_map`.
    """
    maps = read_orientation_map(path)
    phase = maps[n.PHASE].values
    scan_shape = (ds.sizes.get(n.Y), ds.sizes.get(n.X))
    if phase.shape != scan_shape or not schema.is_scan(ds):
        raise DataError(
            f"{path} is a map of {phase.shape[0]} x {phase.shape[1]} points (rows x columns), the "
            f"scan has {scan_shape[0]} x {scan_shape[1]}; export the map of the complete scan, neither "
            "cropped nor of another one."
        )
    is_missing = (phase == n.PHASE_MISSING) & measured(ds)
    attrs = {"source": Path(path).name, "n_missing": int(is_missing.sum())}
    coords = {n.Y: ds[n.Y], n.X: ds[n.X]}
    return {name: values.assign_coords(coords).assign_attrs(attrs) for name, values in maps.items()}


def read_orientation_map(path: str | Path) -> dict[str, xr.DataArray]:
    """Read the maps (y, x) of an `.ang` or `.ctf` file by their names.

    `phase` with names from the header, `euler` (see `ebsd_maps`), and what else the file has, such
    as `iq_hough`, `ci`, `fit`, `BC`, `band_slope`, `mad`. Points without a line are NaN (phase:
    -2). Raises DataError for another format, a hexagonal grid, points that occur twice and lines
    that are not numbers; MissingExtraError without orix.
    """
    file = check_file(path)
    kind = _kind(file)
    if not kind:
        raise DataError(
            f"{file} is neither an .ang nor a .ctf file; export the map in one of these formats."
        )
    text = read_text(file)
    if kind == "ctf":
        text = text.replace(",", ".")  # decimal commas
    with in_words(file, f"an .{kind} map"):
        xmap = _by_orix(file, kind, text)
        ix = _step_numbers(xmap.x, _entry(text, "XStep"))
        iy = _step_numbers(xmap.y, _entry(text, "YStep"))
        _refuse_hexagonal(file, text, ix, iy)
        grid = scan_grid(np.stack([ix, iy], axis=1), str(file))
        columns = _columns(xmap)
        is_indexed = (xmap.phase_id >= 0) & (columns.get(m.CI, xmap.phase_id) >= 0)
        numbers = np.where(is_indexed, xmap.phase_id, n.PHASE_UNKNOWN)
        euler = xmap.rotations.to_euler().reshape(-1, 3)
        return m.indexed_maps(grid, columns, numbers, m.phase_names(xmap), euler)


def _by_orix(file: Path, kind: str, text: str) -> Any:
    """The crystal map that orix reads from the text; all numbers are finite."""
    need("orix", "vaearr[ebsd]", file.name)
    options = {"autogen_names": False} if kind == "ang" else {}
    with warnings.catch_warnings(action="ignore"), tempfile.TemporaryDirectory() as folder:
        from orix.io import load

        plain = Path(folder) / f"map.{kind}"
        plain.write_text(text, encoding="utf-8")
        xmap = load(str(plain), **options)
    for values in (xmap.x, xmap.y, xmap.rotations.data, *xmap.prop.values()):
        if not (np.abs(values) <= LARGEST).all():
            raise DataError(
                f"{file} has values that are NaN, infinite or too large; expected finite numbers."
            )
    return xmap


def _columns(xmap: Any) -> dict[str, np.ndarray]:
    """The columns other than position, phase and orientation, by their names in the Dataset."""
    names = dict(COLUMN_NAMES)
    if "dp" in xmap.prop:  # EMsoft
        names["iq"] = m.IQ_FFT
    if "iq" not in xmap.prop:
        names |= UNNAMED
    return {names[name]: values for name, values in xmap.prop.items() if name in names}


def _entry(text: str, name: str) -> str:
    """An entry of the header, `# XSTEP: 0.5` or `XStep<tab>0.5`; "" if it does not exist."""
    match = re.search(rf"^#?[ \t]*{name}[: \t]+(\S+)", text, re.M | re.I)
    return match[1] if match else ""


def _step_numbers(values: np.ndarray, step: str) -> np.ndarray:
    """Column (or row) number of each point, from 0. step: of the header, "" if unknown."""
    distinct, inverse = np.unique(values, return_inverse=True)
    gaps = np.diff(distinct)
    tolerance = SAME_COLUMN * float(step or 0)
    if tolerance <= 0:
        tolerance = 0.1 * gaps.max(initial=0)
    column = np.concatenate([[0], np.cumsum(gaps > tolerance)])
    centres = np.bincount(column, weights=distinct) / np.bincount(column)
    distances = np.diff(centres)
    unit = np.median(distances) if distances.size else 1
    between = np.clip(np.rint(distances / unit), 1, LARGEST_STEP_NUMBER / (distances.size + 1))
    numbers = np.concatenate([[0], np.cumsum(between)]).astype(np.int64)
    return numbers[column[inverse]]


def _refuse_hexagonal(file: Path, text: str, ix: np.ndarray, iy: np.ndarray) -> None:
    """Raise DataError where the grid is not square by the header, or every other row is shifted."""
    is_square = _entry(text, "GRID").lower() in ("", "sqrgrid")
    is_square &= _entry(text, "NCOLS_ODD") == _entry(text, "NCOLS_EVEN")
    is_checkered = ix.any() and iy.any() and np.unique((ix + iy) % 2).size == 1
    if is_checkered or not is_square:
        raise DataError(
            f"{file}: the points lie on a hexagonal grid, by its header or by their coordinates; "
            "only square grids can be read, so convert it to one first."
        )
