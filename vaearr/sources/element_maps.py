"""Element maps as plain text: a .tsv file for each element, with one line for each row of the map.

Values are separated by tabs and may have decimal commas; shorter lines end in missing values. The
name of a file holds the symbol of the element: `Fe.tsv`, `Map 3_Fe K series.tsv`.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from vaearr.errors import DataError, NoInputError, shortened
from vaearr.sources.hdf5 import check_file
from vaearr.sources.tables import NO_VALUE, read_text

SUFFIX = ".tsv"
SYMBOLS = re.findall(
    "[A-Z][a-z]?",
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf "
    "Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og",
)
XRAY_LINES = ("K", "L", "M", "Ka", "Kb", "La", "Lb", "Ma", "Mb")  # after the symbol of the element


def map_files(path: str | Path) -> list[Path]:
    """The element maps of a folder, or the file itself unless it is another table."""
    file = Path(path).expanduser()
    if file.is_dir():
        files = sorted(child for child in file.iterdir() if child.suffix.lower() == SUFFIX)
        if not files:
            raise NoInputError(
                f"{file} holds no element maps ({SUFFIX}); give the folder that does."
            )
        return files
    check_file(file)
    if file.suffix.lower() != SUFFIX:
        return []
    first_line = read_text(file).lstrip("\n").partition("\n")[0]
    is_map = all(_is_number(cell) for cell in first_line.split("\t"))
    return [file] if is_map else []


def _is_number(cell: str) -> bool:
    text = cell.strip().lower()
    return text in NO_VALUE or re.fullmatch(r"[-+]?[\d.,]+(e[-+]?\d+)?", text) is not None


def read_element_map(file: Path) -> np.ndarray:
    """Read values (rows, columns), NaN where a line is shorter or a cell empty."""
    lines = pd.Series(read_text(file).rstrip("\n").split("\n"))
    rows = lines.str.rstrip("\t ").str.split("\t", expand=True)
    cells = rows.fillna("").map(str.strip)
    texts = cells.replace(",", ".", regex=True)
    values = texts.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    is_wrong = ~np.isfinite(values) & ~cells.map(str.lower).isin(NO_VALUE).to_numpy()
    if is_wrong.any():
        row, column = np.argwhere(is_wrong)[0]
        cell = shortened(str(cells.iat[row, column]))
        raise DataError(
            f"{file} line {row + 1}, value {column + 1}: {cell!r} is no finite number; write a "
            "number, or leave the cell empty."
        )
    return values


def element_of(file: Path) -> str:
    """The symbol in the name of a file. Raises DataError unless it holds exactly one."""
    symbols: list[str] = []
    for word in re.findall("[A-Za-z]+", file.stem):
        is_line = bool(symbols) and word in XRAY_LINES
        if word in SYMBOLS and not is_line:
            symbols.append(word)
    if len(symbols) != 1:
        found = ", ".join(symbols) or "no element"
        raise DataError(
            f"{file}: the file name holds {found}, expected one symbol; rename it, for example to "
            "Fe.tsv."
        )
    return symbols[0]


def resample(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map of the same field on another grid: means over the measured area of each new cell."""
    rows = _overlaps(values.shape[0], shape[0])
    columns = _overlaps(values.shape[1], shape[1])
    is_measured = np.isfinite(values)
    total = rows @ np.where(is_measured, values, 0.0) @ columns.T
    area = rows @ is_measured.astype(float) @ columns.T
    area[area == 0] = np.nan
    return total / area


def _overlaps(n_old: int, n_new: int) -> np.ndarray:
    """Length that each new cell shares with each old cell, (new, old), along one side."""
    new_edges = np.arange(n_new + 1) * n_old / n_new
    old_edges = np.arange(n_old + 1)
    start = np.maximum.outer(new_edges[:-1], old_edges[:-1])
    stop = np.minimum.outer(new_edges[1:], old_edges[1:])
    return np.maximum(stop - start, 0)
