"""Orientation maps as text, `.ang` (EDAX, and EMsoft, ASTAR, orix in its form) and `.ctf` (Oxford, Bruker, MTEX).

They hold no patterns. `open_orientation_map` gives the map as it is; `side_maps` puts it beside a scan of the same
size. Points go to the grid by the rank of their coordinates: values closer than 0.45 steps are one column or row, and
each gap between neighbouring columns is rounded to whole steps by itself, so that rounded coordinates do not add up.
Text is read as UTF-8, and as Latin-1 where it is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.sources import ebsd_maps as m
from vaearr.sources.hdf5 import check_file, damage_in_words

ENGINE = "orientation-map"
EULER_COLUMNS = ("phi1", "phi", "phi2")
ANG_COLUMNS = (*EULER_COLUMNS, "x", "y", m.IQ_HOUGH, m.CI, n.PHASE, m.SEM_SIGNAL, m.FIT)
ANG_MAKERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "EMsoft": ("EMsoft", (*EULER_COLUMNS, "x", "y", m.IQ_FFT, "dot_product", n.PHASE)),
    "ACOM": ("ASTAR", (*EULER_COLUMNS, "x", "y", "correlation_index", "reliability", n.PHASE)),
}
CTF_COLUMNS = {
    "phase": n.PHASE, "x": "x", "y": "y", "bands": m.BANDS, "error": m.INDEXING_ERROR, "euler1": "phi1",
    "euler2": "phi", "euler3": "phi2", "mad": m.MAD, "bc": n.BC, "bs": m.BAND_SLOPE,
}  # fmt: skip
CTF_OF_EMSOFT = {m.MAD: "dot_product", n.BC: "orientation_similarity", m.BAND_SLOPE: m.IQ_FFT, m.BANDS: "pattern_index"}
COLUMN_NAMES = {
    "iq": m.IQ_HOUGH, "image_quality": m.IQ_HOUGH, "ci": m.CI, "confidence_index": m.CI, "phase_index": n.PHASE,
    "phase_id": n.PHASE, "sem": m.SEM_SIGNAL, "detector_signal": m.SEM_SIGNAL, "pattern_fit": m.FIT,
    "prias_bottom_strip": "prias_bottom", "prias_center_square": "prias_centre", "prias_top_strip": "prias_top",
}  # fmt: skip
MAX_CELLS_PER_POINT = 16
SAME_COLUMN = 0.45  # of a step; a hexagonal grid has columns half a step apart
LARGEST = float(np.finfo("f4").max)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Names that a column cannot have, since they mean something else in a store, or begin the names of what a run writes.
TAKEN = {n.PATTERNS, n.PRESENT, n.ELEMENTS, n.RUNS, n.HISTORY, n.HEALTH, n.MODEL, m.EULER, m.QUATERNION, m.ANGLE}
TAKEN |= {m.QUATERNION_COMPONENT, *n.SCAN_DIMS, *(f"{dim}_index" for dim in n.SCAN_DIMS), n.DZ, n.DY, n.DX, n.CHANNEL}
TAKEN |= {n.SAMPLE, n.ELEMENT, n.EPOCH, *n.OF_A_RUN}
TAKEN_PREFIXES = tuple(f"{name}_" for name in n.OF_A_RUN)


@dataclass(frozen=True, kw_only=True)
class _Text:
    """A parsed file: its columns by name, phases as number -> (name, Laue group), and what the header says."""

    columns: dict[str, np.ndarray]
    phases: dict[int, tuple[str, str]]
    step: tuple[float | None, float | None]
    units: str = "um"
    degrees: bool = False
    notes: list[str] = field(default_factory=list)


def sniff(path: Path) -> int:
    """2: a file that starts as `.ang` or `.ctf` files do; 0: anything else."""
    return 2 if _kind(path) else 0


def _kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(2**14).removeprefix(BYTE_ORDER_MARK).decode("latin-1")
    except OSError:
        return ""
    if head.startswith("Channel Text File"):
        return "ctf"
    is_ang = head.startswith("#") and re.search(r"^#\s*(GRID|TEM_PIXperUM|Phase|MaterialName|Column names)", head, re.M)
    return "ang" if is_ang else ""


def refuse_without_patterns(
    path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None
) -> NoReturn:
    """Raises DataError: a map without patterns is no source."""
    raise DataError(
        f"{path} is an orientation map without patterns; give it beside the file of the patterns (orientations=…), or "
        f"open it alone with vaearr.sources.open_orientation_map."
    )


def open_orientation_map(path: str | Path) -> xr.Dataset:
    """The maps of an `.ang` or `.ctf` file over (y, x), in memory, without patterns.

    `phase` with names and Laue groups from the header, `euler` and `quaternion` (see `ebsd_maps`), and what else the
    file has, such as `iq_hough`, `ci`, `fit`, `BC`, `band_slope`, `mad`. Points without a line are NaN (phase: -2);
    attribute `n_missing` counts them. Raises DataError for another format, a hexagonal grid, points that occur twice,
    lines that are not numbers, and columns named like something else in a store.
    """
    file = check_file(path)
    kind = _kind(file)
    if not kind:
        raise DataError(f"{file} is neither an .ang nor a .ctf file; export the map in one of these formats.")
    parsed = _parse_ang(file, _lines(file)) if kind == "ang" else _parse_ctf(file, _lines(file))
    _refuse_taken(file, list(parsed.columns))
    ix, x = _ranks(parsed.columns["x"], parsed.step[1])
    iy, y = _ranks(parsed.columns["y"], parsed.step[0])
    _check_grid(file, parsed, ix, iy)
    covered = np.zeros((y.size, x.size), dtype=bool)
    covered[iy, ix] = True
    with damage_in_words(file):
        variables = _variables(parsed, ix, iy, covered)
    ds = xr.Dataset(
        variables,
        coords={
            n.Y: (n.Y, y, {**n.ATTRS[n.Y], "units": parsed.units}),
            n.X: (n.X, x, {**n.ATTRS[n.X], "units": parsed.units}),
        },
        attrs={"source": file.name, "n_missing": int((~covered).sum())},
    )
    if parsed.notes:
        ds.attrs["notes"] = parsed.notes
    ds.encoding["source"] = str(file)
    return ds


def _lines(file: Path) -> list[str]:
    raw = file.read_bytes().removeprefix(BYTE_ORDER_MARK)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # str.splitlines() also cuts at other characters


def _refuse_taken(file: Path, names: list[str]) -> None:
    own = (*EULER_COLUMNS, "x", "y", n.PHASE)
    taken = [name for name in names if name not in own and (name in TAKEN or name.startswith(TAKEN_PREFIXES))]
    if taken:
        raise DataError(
            f"{file} has a column {taken[0]!r}, a name with a meaning of its own; rename the column in the header."
        )


def side_maps(path: str | Path, ds: xr.Dataset) -> dict[str, xr.DataArray]:
    """The maps of an `.ang` or `.ctf` file on the grid of the scan `ds`, by rank of their coordinates.

    Raises DataError where the map has another number of rows or columns than the scan.
    """
    found = open_orientation_map(path)
    if n.Y not in ds.sizes or n.X not in ds.sizes:
        raise DataError(
            f"{path} is a map over y and x, but the data has the dimensions {', '.join(map(str, ds.dims))}."
        )
    have, want = (found.sizes[n.Y], found.sizes[n.X]), (ds.sizes[n.Y], ds.sizes[n.X])
    if have != want:
        raise DataError(
            f"{path} is a map of {have[0]} x {have[1]} points (rows x columns), the scan has {want[0]} x {want[1]}; "
            f"export the map of the whole scan, neither cropped nor of another one."
        )
    missing = found[n.PHASE].values == n.PHASE_MISSING
    if n.PRESENT in ds:
        missing = missing & ds[n.PRESENT].values
    origin = {"source": Path(path).name, "n_missing": int(missing.sum()), "n_outside": 0, "n_dropped": 0}
    on_scan = found.assign_coords({n.Y: ds[n.Y], n.X: ds[n.X]})
    return {str(name): variable.assign_attrs(origin) for name, variable in on_scan.data_vars.items()}


def _ranks(values: np.ndarray, step: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Column (or row) number of each point, from 0, and the coordinate of each column."""
    found, inverse = np.unique(values, return_inverse=True)
    gaps = np.diff(found)
    if gaps.size == 0:
        return np.zeros(values.size, dtype=np.int64), found
    real = gaps > (SAME_COLUMN * step if step is not None else 0.1 * gaps.max())
    group = np.concatenate([[0], np.cumsum(real)])
    centres = np.bincount(group, weights=found) / np.bincount(group)
    if centres.size == 1:
        return np.zeros(values.size, dtype=np.int64), centres
    unit = float(np.median(np.diff(centres)))
    numbers = np.concatenate([[0], np.cumsum(np.maximum(np.rint(np.diff(centres) / unit), 1))])
    if numbers[-1] >= MAX_CELLS_PER_POINT * values.size:
        return np.arange(centres.size)[group[inverse]], centres
    return numbers.astype(np.int64)[group[inverse]], np.interp(np.arange(int(numbers[-1]) + 1), numbers, centres)


def _check_grid(file: Path, parsed: _Text, ix: np.ndarray, iy: np.ndarray) -> None:
    ny, nx = int(iy.max()) + 1, int(ix.max()) + 1
    if ix.size > 4 and min(ny, nx) > 1 and 2 * ix.size <= ny * nx + max(ny, nx) and np.unique((ix + iy) % 2).size == 1:
        raise DataError(
            f"{file}: every second row is shifted by half a step, so the points lie on a hexagonal grid; only square "
            f"grids can be read, so convert the map to a square grid first."
        )
    if ny * nx > MAX_CELLS_PER_POINT * ix.size:
        raise DataError(
            f"{file}: the {ix.size} points lie scattered over {ny} rows and {nx} columns; expected a scan grid."
        )
    cells = iy * nx + ix
    order = np.argsort(cells, kind="stable")
    again = np.flatnonzero(np.diff(cells[order]) == 0)
    if again.size:
        second = int(order[again + 1].min())
        first = int(np.flatnonzero(cells == cells[second])[0])
        x, y = parsed.columns["x"][second], parsed.columns["y"][second]
        raise DataError(
            f"{file}: points {first + 1} and {second + 1} are both at x = {x:g}, y = {y:g} ({again.size} points repeat "
            f"another); keep one of each."
        )


def _variables(parsed: _Text, ix: np.ndarray, iy: np.ndarray, covered: np.ndarray) -> dict[str, xr.DataArray]:
    def on_grid(values: np.ndarray, fill: float = np.nan) -> np.ndarray:
        grid = np.full((*covered.shape, *values.shape[1:]), fill, dtype="f8")
        grid[iy, ix] = values
        return grid

    numbers = on_grid(parsed.columns[n.PHASE], n.PHASE_MISSING)
    names = {i: name for i, (name, _) in parsed.phases.items()}
    variables = {n.PHASE: m.phase_map(numbers, names, {i: laue for i, (_, laue) in parsed.phases.items()})}
    euler = np.stack([parsed.columns[name] for name in EULER_COLUMNS], axis=-1)
    variables |= m.orientation_arrays(on_grid(np.deg2rad(euler) if parsed.degrees else euler), numbers >= 0)
    for name, values in parsed.columns.items():
        if name not in (*EULER_COLUMNS, "x", "y", n.PHASE):
            attrs = m.ATTRS.get(name, {"long_name": name.replace("_", " ")})
            variables[name] = xr.DataArray(on_grid(values).astype("f4"), dims=(n.Y, n.X), attrs=dict(attrs))
    return variables


def _numbers(file: Path, lines: list[str], first: int) -> np.ndarray:
    """Lines of numbers (points, columns). Raises DataError that names the first line that is something else."""
    body = [line for line in lines[first:] if line.strip()]
    if not body:
        raise DataError(f"{file} has a header but no points below it; it is truncated, so export it again.")
    try:
        values = np.loadtxt(body, dtype="f8", ndmin=2, comments=None)
    except ValueError:
        values = None
    if values is None or not (np.abs(values) <= LARGEST).all():
        n_fields = len(body[0].split())
        for i, line in enumerate(lines[first:], start=first + 1):
            fields = line.split()
            if fields and (len(fields) != n_fields or not all(map(_is_finite, fields))):
                raise DataError(
                    f"{file} line {i} has {len(fields)} fields or no number in one of them ({line.strip()[:40]!r}); "
                    f"expected {n_fields} finite numbers, so correct the line or export the map again."
                )
        raise DataError(f"{file} cannot be read as lines of numbers; export the map again.")
    return values


def _is_finite(text: str) -> bool:
    try:
        return bool(abs(float(text)) <= LARGEST)
    except ValueError:
        return False


def _parse_ang(file: Path, lines: list[str]) -> _Text:
    size = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    header = [line.lstrip("# \t").rstrip() for line in lines[:size]]
    entries = _entries(header)
    grid = entries.get("grid", "SqrGrid")
    if grid.lower() != "sqrgrid" or entries.get("ncols_odd") != entries.get("ncols_even"):
        raise DataError(
            f"{file}: the points lie on the grid {grid!r} with {entries.get('ncols_odd')} and "
            f"{entries.get('ncols_even')} columns in turn; only square grids ('SqrGrid') can be read, so convert the "
            f"map to a square grid in OIM Analysis first."
        )
    values = _numbers(file, lines, size)
    maker, names = _ang_columns(entries, "\n".join(header), values.shape[1])
    if n.PHASE not in names[: values.shape[1]]:
        raise DataError(
            f"{file} has {values.shape[1]} columns; expected at least 8: phi1 PHI phi2 x y IQ CI phase (version 3 of "
            f"the format), so export it in a newer version."
        )
    columns = dict(zip(names, values.T, strict=False))
    notes = [f"{values.shape[1] - len(names)} columns without a name are left out."] * (values.shape[1] > len(names))
    phases = _ang_phases(header)
    if set(np.unique(columns[n.PHASE])) <= {-1, 0} and len(phases) == 1:
        phases = {0: next(iter(phases.values()))}  # a single phase is number 0, several count from 1
    not_indexed = (columns[n.PHASE] < 0) | (columns.get(m.CI, columns[n.PHASE]) < 0)
    not_indexed |= np.min([columns[name] for name in EULER_COLUMNS], axis=0) > m.EDAX_NO_ANGLE
    columns[n.PHASE] = np.where(not_indexed, n.PHASE_UNKNOWN, columns[n.PHASE])
    step = (_positive(entries.get("ystep")), _positive(entries.get("xstep")))
    units = "nm" if maker == "ASTAR" else "um"
    return _Text(columns=columns, phases=phases, step=step, units=units, notes=notes)


def _entries(header: list[str]) -> dict[str, str]:
    """Lines `key: value`, keys in lower case."""
    pairs = [line.split(":", 1) for line in header if ":" in line]
    return {key.strip().lower(): value.strip() for key, value in pairs}


def _ang_columns(entries: Mapping[str, str], header: str, n_columns: int) -> tuple[str, list[str]]:
    """Who wrote the file, and the names of its columns as far as they are known."""
    listed = entries.get("column_headers") or entries.get("column names")
    if listed:
        plain = [re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_") for name in listed.split(",")]
        named = [COLUMN_NAMES.get(name, name) for name in plain]
        if len(named) == n_columns and {*EULER_COLUMNS, "x", "y", n.PHASE} <= set(named) and _usable(named):
            return "EDAX", named
    for mark, (maker, names) in ANG_MAKERS.items():
        if mark in header:
            return maker, list(names)
    return "EDAX", list(ANG_COLUMNS[:n_columns])


def _usable(names: list[str]) -> bool:
    return len(set(names)) == len(names) and all(map(n.is_valid_name, names))


def _ang_phases(header: list[str]) -> dict[int, tuple[str, str]]:
    """Phases by number, from the blocks `Phase`, `MaterialName`, `Symmetry` of the header."""
    phases: dict[int, tuple[str, str]] = {}
    current = 0
    for line in header:
        words = line.split(None, 1)
        key, value = (words[0].lower(), words[1].strip() if len(words) > 1 else "") if words else ("", "")
        if key == "phase" and value.isdigit():
            current = int(value)
            phases[current] = ("", "")
        elif key == "materialname" and current in phases:
            phases[current] = (value, phases[current][1])
        elif key == "symmetry" and current in phases:
            phases[current] = (phases[current][0], m.LAUE_BY_EDAX.get(value, ""))
    return phases


def _parse_ctf(file: Path, lines: list[str]) -> _Text:
    size = next((i for i, line in enumerate(lines) if line.lower().startswith("phase\tx\ty")), -1)
    if size < 0:
        raise DataError(f"{file} has no line of column names (Phase, X, Y, …); it is truncated, so export it again.")
    header = [line.rstrip() for line in lines[:size]]
    entries = {line.split("\t")[0].lower(): line.split("\t")[1].strip() for line in header if "\t" in line}
    names = [CTF_COLUMNS.get(name.strip().lower(), name.strip().lower()) for name in lines[size].split("\t")]
    if any("EMsoft" in line for line in header):
        names = [CTF_OF_EMSOFT.get(name, name) for name in names]
    values = _numbers(file, [line.replace(",", ".") for line in lines], size + 1)
    lacking = {*EULER_COLUMNS, "x", "y", n.PHASE} - set(names)
    if lacking or values.shape[1] != len(names) or not _usable(names):
        raise DataError(
            f"{file} has {values.shape[1]} columns under the names {', '.join(names)}; expected each once, with Phase, "
            f"X, Y and Euler1 to Euler3 among them."
        )
    columns = dict(zip(names, values.T, strict=True))
    columns[n.PHASE] = np.where(columns[n.PHASE] <= 0, n.PHASE_UNKNOWN, columns[n.PHASE])
    step = (_positive(entries.get("ystep")), _positive(entries.get("xstep")))
    return _Text(columns=columns, phases=_ctf_phases(header), step=step, degrees=True)


def _ctf_phases(header: list[str]) -> dict[int, tuple[str, str]]:
    """Phases in the order of the lines below `Phases`, from 1: lengths, angles, name, Laue group, space group."""
    start = next((i for i, line in enumerate(header) if line.startswith("Phases")), len(header))
    phases = {}
    for number, line in enumerate(header[start + 1 :], start=1):
        parts = line.split("\t")
        if len(parts) < 4:
            break
        laue = int(parts[3]) if parts[3].strip().isdigit() else 0
        phases[number] = (parts[2].strip(), m.LAUE_BY_NUMBER.get(laue, ""))
    return phases


def _positive(text: str | None) -> float | None:
    try:
        number = float((text or "").replace(",", "."))
    except ValueError:
        return None
    return number if np.isfinite(number) and number > 0 else None
