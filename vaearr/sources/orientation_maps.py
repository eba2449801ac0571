"""Orientation maps as text, `.ang` (EDAX, and EMsoft, ASTAR, orix in its form) and `.ctf` (Oxford, Bruker, MTEX).

orix (an optional package, GPL) parses them. Ours is what it lacks: text in any encoding and with decimal commas, names
for the columns, points put on the grid by the rank of their coordinates, refusals in one line. The maps hold no
patterns: `open_orientation_map` gives one as it is, `side_maps` puts it beside a scan of the same size. Values closer
than 0.45 steps are one column or row, and each gap between neighbouring columns is rounded to whole steps by itself, so
that rounded coordinates do not add up.
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
from vaearr.errors import DataError, listed, need
from vaearr.sources import ebsd_maps as m
from vaearr.sources.hdf5 import check_file, in_words
from vaearr.sources.scan_grid import LARGEST_STEP_NUMBER, scan_grid
from vaearr.sources.tables import read_text

ENGINE = "orientation-map"
POINT = ("phi1", "phi", "phi2", "x", "y", n.PHASE)  # columns that orix names itself
ANG_COLUMNS = (m.IQ_HOUGH, m.CI, m.SEM_SIGNAL, m.FIT)  # in the order of the file, without those
ANG_MAKERS = {"EMsoft": (m.IQ_FFT, "dot_product"), "ACOM": ("correlation_index", "reliability")}  # ACOM: of ASTAR
CTF_HEADER = "Phase X Y Bands Error Euler1 Euler2 Euler3 MAD BC BS".lower().split()
CTF_NAMES = {
    "bands": m.BANDS, "error": m.INDEXING_ERROR, "MAD": m.MAD, "BC": n.BC, "BS": m.BAND_SLOPE,
    "DP": "dot_product", "OSM": "orientation_similarity", "IQ": m.IQ_FFT,
}  # fmt: skip
COLUMN_NAMES = {
    "iq": m.IQ_HOUGH, "image_quality": m.IQ_HOUGH, "ci": m.CI, "confidence_index": m.CI, "phase_index": n.PHASE,
    "phase_id": n.PHASE, "sem": m.SEM_SIGNAL, "detector_signal": m.SEM_SIGNAL, "pattern_fit": m.FIT,
    "prias_bottom_strip": "prias_bottom", "prias_center_square": "prias_centre", "prias_top_strip": "prias_top",
}  # fmt: skip
SAME_COLUMN = 0.45  # of a step; a hexagonal grid has columns half a step apart
LARGEST = float(np.finfo("f4").max)
# Names that a column cannot have, since they mean something else in a store.
TAKEN = (n.RESERVED - {n.PHASE}) | {m.EULER, m.ANGLE}
TAKEN |= {f"{dim}_index" for dim in n.SCAN_DIMS}


def sniff(path: Path) -> bool:
    """Whether a file starts as `.ang` or `.ctf` files do."""
    return bool(_kind(path))


def _kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(2**14).removeprefix(codecs.BOM_UTF8).decode("latin-1")
    except OSError:
        return ""
    if head.startswith("Channel Text File"):
        return "ctf"
    is_ang = head.startswith("#") and re.search(r"^#\s*(GRID|TEM_PIXperUM|Phase|MaterialName|Column names)", head, re.M)
    return "ang" if is_ang else ""


def refuse_without_patterns(path: Path, config: IngestConfig) -> NoReturn:
    """Raises DataError: a map without patterns is no source."""
    raise DataError(
        f"{path} is an orientation map without patterns; give it beside the file of the patterns (orientations=…), or "
        f"open it alone with vaearr.sources.open_orientation_map."
    )


def open_orientation_map(path: str | Path) -> xr.Dataset:
    """The maps of an `.ang` or `.ctf` file over (y, x), in memory, without patterns.

    `phase` with names from the header, `euler` (see `ebsd_maps`), and what else the file has, such as `iq_hough`, `ci`,
    `fit`, `BC`, `band_slope`, `mad`. Points without a line are NaN (phase: -2); attribute `n_missing` counts them.
    Raises DataError for another format, a hexagonal grid, points that occur twice, lines that are not numbers, and
    columns named like something else in a store; MissingExtraError without orix.
    """
    file = check_file(path)
    kind = _kind(file)
    if not kind:
        raise DataError(f"{file} is neither an .ang nor a .ctf file; export the map in one of these formats.")
    lines = read_text(file).split("\n")  # str.splitlines() also cuts at other characters
    header = _header(file, lines, kind)
    xmap = _by_orix(file, kind, header, lines[len(header) :])
    entries = _entries(header)
    columns = _columns(file, xmap, kind, header, entries)
    (ix, step_x), (iy, step_y) = (
        _step_numbers(getattr(xmap, dim), _positive(entries.get(f"{dim}step"))) for dim in (n.X, n.Y)
    )
    _refuse_hexagonal(file, entries, ix, iy)
    grid = scan_grid(np.stack([ix, iy], axis=1), str(file))
    indexed = (xmap.phase_id >= 0) & (columns.get(m.CI, xmap.phase_id) >= 0)
    euler, numbers = xmap.rotations.to_euler().reshape(-1, 3), np.where(indexed, xmap.phase_id, n.PHASE_UNKNOWN)
    with in_words(file, f"an .{kind} map"):
        maps = m.indexed_maps(grid, columns, numbers, m.phase_names(xmap), euler)
    units = "nm" if any("ACOM" in line for line in header) else "um"
    coords = {
        dim: (dim, getattr(xmap, dim).min() + step * (axis - axis[0]), {**n.ATTRS[dim], "units": units})
        for dim, step, axis in ((n.X, step_x, grid.x), (n.Y, step_y, grid.y))
    }
    ds = xr.Dataset(maps, coords, attrs={"source": file.name, "n_missing": int((~grid.present).sum())})
    ds.encoding["source"] = str(file)
    return ds


def _header(file: Path, lines: list[str], kind: str) -> list[str]:
    """The lines above the points."""
    if kind == "ang":
        return lines[: next((i for i, line in enumerate(lines) if line.strip() and line[0] != "#"), len(lines))]
    last = next((i for i, line in enumerate(lines) if line.lower().split()[: len(CTF_HEADER)] == CTF_HEADER), -1)
    if last < 0:
        raise DataError(f"{file} has no line of column names ({', '.join(CTF_HEADER)}); export it again, with all.")
    return lines[: last + 1]


def _entries(header: list[str]) -> dict[str, str]:
    """Keys in small letters and values of a header: `# XSTEP: 0.5`, `XStep<tab>0,5`."""
    pairs = (line.partition("\t" if "\t" in line and not line.startswith("#") else ":") for line in header)
    return {key.strip("# ").lower(): value.strip() for key, _, value in pairs}


def _by_orix(file: Path, kind: str, header: list[str], body: list[str]) -> Any:
    """The crystal map that orix makes of the text, in plain UTF-8 and with decimal points; all numbers finite."""
    need("orix", "vaearr[ebsd]", file.name)
    body = [line.replace(",", ".") for line in body if line.strip()]
    first = [line.replace(",", ".") for line in header] if kind == "ctf" else header
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        from orix.io import load

        plain = Path(folder) / f"map.{kind}"
        plain.write_text("\n".join([*first, *body, ""]), encoding="utf-8")
        try:
            xmap = load(str(plain), **({"autogen_names": False} if kind == "ang" else {}))
            halves = [line for line in body if float(line.split()[7 if kind == "ang" else 0]) % 1]
        except Exception as error:  # whatever no points, or lines that are no numbers, make it raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(
                f"{file} cannot be read by orix ({reason}); expected lines with the same number of columns, all finite "
                "numbers, so correct the file or export the map again."
            ) from error
    if halves:
        raise DataError(f"{file}: a phase number is no whole number, in {halves[0].strip()[:40]!r}; export it again.")
    if not all((np.abs(v) <= LARGEST).all() for v in (xmap.x, xmap.y, xmap.rotations.data, *xmap.prop.values())):
        raise DataError(f"{file} has values that are NaN, infinite or too large; expected finite numbers, correct it.")
    return xmap


def _columns(file: Path, xmap: Any, kind: str, header: list[str], entries: dict[str, str]) -> dict[str, np.ndarray]:
    """The columns beside place, phase and orientation, under our names; those that no name is known for stay out."""
    values = list(xmap.prop.values())
    if kind == "ctf":
        names = [CTF_NAMES[name] for name in xmap.prop]
    else:
        headers = (entries.get("column_headers") or entries.get("column names") or "").split(",")
        plain = [re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_") for name in headers]
        named = [COLUMN_NAMES.get(name, name) for name in plain]
        names = [name for name in named if name not in POINT]
        if len(set(names)) < len(values) or len(names) > len(values) or not all(map(n.is_valid_name, names)):
            makers = (columns for mark, columns in ANG_MAKERS.items() if any(mark in line for line in header))
            names = list(next(makers, ANG_COLUMNS))
        elif len(named) < 8 or (named[0], named[3:5], named[7]) != ("phi1", ["x", "y"], n.PHASE):
            raise DataError(f"{file} has columns {listed(headers)}; expected phi1, PHI, phi2, x, y, …, phase the 8th.")
    if taken := [name for name in names if name in TAKEN or name.startswith(n.OF_LATER_RUNS)]:
        raise DataError(
            f"{file} has a column {taken[0]!r}, a name with a meaning of its own; rename the column in the header."
        )
    return dict(zip(names, values, strict=False))


def side_maps(path: str | Path, ds: xr.Dataset) -> dict[str, xr.DataArray]:
    """The maps of an `.ang` or `.ctf` file on the grid of the scan `ds`, by rank of their coordinates.

    Raises DataError where the map has another number of rows or columns than the scan.
    """
    found = open_orientation_map(path)
    have, want = ([one.sizes.get(dim) for dim in (n.Y, n.X)] for one in (found, ds))
    if have != want or not schema.is_scan(ds):
        raise DataError(
            f"{path} is a map of {have[0]} x {have[1]} points (rows x columns), the scan has {want[0]} x {want[1]}; "
            f"export the map of the whole scan, neither cropped nor of another one."
        )
    missing = (found[n.PHASE].values == n.PHASE_MISSING) & (ds[n.PRESENT].values if n.PRESENT in ds else True)
    origin = {"source": Path(path).name, "n_missing": int(missing.sum()), "n_outside": 0, "n_dropped": 0}
    on_scan = found.assign_coords({n.Y: ds[n.Y], n.X: ds[n.X]})
    return {str(name): variable.assign_attrs(origin) for name, variable in on_scan.data_vars.items()}


def _step_numbers(values: np.ndarray, step: float | None) -> tuple[np.ndarray, float]:
    """Column (or row) number of each point, from 0, and the distance of neighbouring columns."""
    found, inverse = np.unique(values, return_inverse=True)
    gaps = np.diff(found)
    real = gaps > (SAME_COLUMN * step if step is not None else 0.1 * gaps.max(initial=0))
    group = np.concatenate([[0], np.cumsum(real)])
    centres = np.bincount(group, weights=found) / np.bincount(group)
    distances = np.diff(centres)
    unit = float(np.median(distances)) if distances.size else 1.0
    between = np.clip(np.rint(distances / unit), 1, LARGEST_STEP_NUMBER / (distances.size + 1))
    return np.concatenate([[0], np.cumsum(between)]).astype(np.int64)[group[inverse]], unit


def _refuse_hexagonal(file: Path, entries: dict[str, str], ix: np.ndarray, iy: np.ndarray) -> None:
    """Raise DataError where the header says that the grid is not square, or every second row is shifted."""
    odd, even = entries.get("ncols_odd"), entries.get("ncols_even")
    is_square = entries.get("grid", "SqrGrid").lower() == "sqrgrid" and odd == even
    ny, nx = int(iy.max()) + 1, int(ix.max()) + 1
    is_half_full = ix.size > 4 and min(ny, nx) > 1 and 2 * ix.size <= ny * nx + max(ny, nx)
    if not is_square or (is_half_full and np.unique((ix + iy) % 2).size == 1):
        raise DataError(
            f"{file}: the points lie on a hexagonal grid (by its header {entries.get('grid')!r}, {odd} and {even} "
            "columns in turn, or by their places); only square grids can be read, so convert it to one first."
        )


def _positive(text: str | None) -> float | None:
    try:
        number = float((text or "").replace(",", "."))
    except ValueError:
        return None
    return number if np.isfinite(number) and number > 0 else None
