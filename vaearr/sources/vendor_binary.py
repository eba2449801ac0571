"""Raw pattern files: EDAX UP1/UP2 with a short header, NORDIF `.dat` with a `Setting.txt` beside it."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from vaearr.errors import DataError, NoInputError

UP_DTYPES = {".up1": "<u1", ".up2": "<u2"}
UP_HEADER, UP_GRID = struct.Struct("<4I"), struct.Struct("<x2IB2d")  # then, from version 3 on: grid, hexagonal, steps
LARGEST_SIDE = 2**15  # of a pattern, in detector pixels
SETTING, MARK = "Setting.txt", b"[NORDIF]"


@dataclass(frozen=True, kw_only=True)
class RawLayout:
    """Where patterns (n, rows, columns) lie in a file; the scan's shape and step (y, x) as far as they are known."""

    offset: int
    dtype: str
    pattern: tuple[int, int]
    n_patterns: int
    nav: tuple[int, int] | None
    step: tuple[float | None, float | None]


def is_up(path: Path) -> bool:
    """Whether this is an EDAX UP1/UP2 file: by its suffix (the format has no signature) and a header that can be."""
    if path.suffix.lower() not in UP_DTYPES:
        return False
    with path.open("rb") as file:
        head = file.read(UP_HEADER.size)
    return len(head) == UP_HEADER.size and 1 <= UP_HEADER.unpack(head)[0] < 100


def up_layout(path: Path) -> RawLayout:
    """From the header of an EDAX file. Raises DataError for version 2, hexagonal grids and sizes that cannot be."""
    size, dtype = path.stat().st_size, UP_DTYPES[path.suffix.lower()]
    with path.open("rb") as file:
        head = file.read(UP_HEADER.size + UP_GRID.size)
    version, columns, rows, offset = UP_HEADER.unpack(head[: UP_HEADER.size])
    if version == 2:
        raise DataError(f"{path} has version 2 of the EDAX format; versions 1, 3 and later can be read, export it so.")
    if not (0 < columns <= LARGEST_SIDE and 0 < rows <= LARGEST_SIDE and UP_HEADER.size <= offset < size):
        raise DataError(
            f"{path}: the header gives patterns of {rows} x {columns} px from byte {offset} on, which cannot be in a "
            f"file of {size} bytes; it is damaged, so fetch it again."
        )
    n_bytes = rows * columns * int(dtype[-1])
    n_patterns, rest = divmod(size - offset, n_bytes)
    nav: tuple[int, int] | None = None
    step: tuple[float | None, float | None] = (None, None)
    if version > 2:
        if len(head) < UP_HEADER.size + UP_GRID.size:
            raise DataError(f"{path} ends in its header; fetch it again from where it was written.")
        nx, ny, is_hexagonal, dx, dy = UP_GRID.unpack(head[UP_HEADER.size :])
        if is_hexagonal:
            raise DataError(
                f"{path}: the scan points lie on a hexagonal grid ({nx} x {ny}); only square grids can be read, so "
                f"convert the scan to a square grid in OIM Analysis first."
            )
        nav, step = (ny, nx), (dy if 0 < dy < math.inf else None, dx if 0 < dx < math.inf else None)
    if n_patterns == 0 or (rest and (nav is None or nav[0] * nav[1] > n_patterns)):
        expected = f"{nav[0]} x {nav[1]} patterns" if nav else "whole patterns"
        raise DataError(
            f"{path} is truncated: {size - offset} bytes after the header are {n_patterns} patterns of {n_bytes} bytes "
            f"and {rest} bytes more, expected {expected}; fetch it again from where it was written."
        )
    return RawLayout(offset=offset, dtype=dtype, pattern=(rows, columns), n_patterns=n_patterns, nav=nav, step=step)


def is_nordif(path: Path) -> bool:
    """Whether this is NORDIF's pattern file: a `.dat` beside a `Setting.txt` that NORDIF wrote."""
    setting = path.with_name(SETTING)
    if path.suffix.lower() != ".dat" or not setting.is_file():
        return False
    with setting.open("rb") as file:
        return MARK in file.read(4096)


def nordif_layout(path: Path) -> RawLayout:
    """From `Setting.txt` beside the file. Raises DataError for settings or a size that cannot be."""
    setting = path.with_name(SETTING)
    try:
        lines = setting.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise NoInputError(f"{setting} cannot be read ({error.strerror or error}); check its permissions.") from error
    rows, columns = _pair(setting, lines, "[Acquisition settings]", "Resolution")[::-1]
    ny, nx = _pair(setting, lines, "[Area]", "Number of samples")
    step = _entry(lines, "[Area]", "Step size")
    distance = float(step.replace(",", ".")) if re.fullmatch(r"\d+([.,]\d+)?", step) else 0.0
    size, n_bytes = path.stat().st_size, rows * columns
    n_patterns, rest = divmod(size, n_bytes)
    if n_patterns == 0 or rest:
        raise DataError(
            f"{path} is truncated or belongs to another {SETTING}: {size} bytes are {n_patterns} patterns of "
            f"{rows} x {columns} px and {rest} bytes more; put the file and its {SETTING} together."
        )
    known = distance if distance > 0 else None
    return RawLayout(
        offset=0, dtype="|u1", pattern=(rows, columns), n_patterns=n_patterns, nav=(ny, nx), step=(known, known)
    )


def _entry(lines: list[str], block: str, key: str) -> str:
    """The value of a line `key<tab>value<tab>unit` below the line `block`, "" where there is none."""
    inside = False
    for line in lines:
        if line.startswith("["):
            inside = line.startswith(block)
        elif inside and line.split("\t")[0].strip() == key:
            return [*line.split("\t"), ""][1].strip()
    return ""


def _pair(setting: Path, lines: list[str], block: str, key: str) -> tuple[int, int]:
    found = _entry(lines, block, key)
    match = re.fullmatch(r"(\d+)\s*x\s*(\d+)", found)
    if match is None or not all(0 < int(side) < 10**6 for side in match.groups()):
        raise DataError(f"{setting}: {key!r} below {block} is {found!r}; expected two whole numbers such as 60x60.")
    return int(match[1]), int(match[2])
