"""CSV files of numbers for scan points or samples; errors name the line of the file.

Columns are separated by comma, semicolon or tab, whichever the header uses; with the last two, a
comma may be the decimal point. Names are compared without case, spaces, punctuation and a unit in
brackets: `X Position [um]` is `xposition`. Cells stay text until they are converted, so that a
subject `0012` keeps its zeros.
"""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from vaearr.errors import DataError, did_you_mean, shortened
from vaearr.sources.hdf5 import check_file

SEPARATORS = (",", ";", "\t")
NO_VALUE = ["", "nan", "na", "n/a", "null", "none", "-"]
# plain names of a coordinate, # for its letter; the first that a file holds is used
COORDINATES = [
    "#index",
    "#indice",
    "#idx",
    "#i",
    "i#",
    "#step",
    "#",
    "#position",
    "#pos",
    "#coord",
    "#coordinate",
    "#coords",
    "#pixel",
    "#px",
]
SYNONYMS: tuple[set[str], ...] = (
    {"bc", "bandcontrast", "bandcontr"},
    {"bs", "bandslope"},
    {"mad", "meanangulardeviation"},
    {"iq", "imagequality"},
    {"ci", "confidenceindex"},
    {"phase", "phaseid", "phaseindex", "phaseindice", "phaseno", "phasenumber", "phasenum"},
)
DECIMAL_COMMA = r"^([-+]?\d*),(\d+(?:[eE][-+]?\d+)?)$"
UNIT = r"[\[(]([^\])]*)[\])]\s*$"
NOT_A_UNIT = {"", "1", "px", "pixel", "pixels", "step", "steps"}
STEP_NAMES = ("index", "indice", "idx", "step", "pixel", "px", "i")

ReadAs = Literal["auto", "steps", "coordinates"]


@dataclass(frozen=True, eq=False)
class Table:
    """A CSV: all columns as text by line number, and the names of its columns.

    read_as: what the coordinates are, by their names.
    """

    file: Path
    frame: pd.DataFrame
    values: list[str]
    coordinates: list[str]
    read_as: ReadAs

    def numbers(self, columns: Sequence[str]) -> np.ndarray:
        """Columns as floats `(N, K)`, NaN where a field is empty. Raises DataError for text."""
        return np.stack([_numbers(self.frame[name], self.file) for name in columns], axis=1)

    def meant(self, name: str) -> str:
        """The column of a map: the only one, or the one named `name` or a synonym."""
        fitting = self.values
        if len(self.values) > 1:
            plain = plain_name(name)
            synonyms = {plain}.union(*(group for group in SYNONYMS if plain in group))
            fitting = [column for column in self.values if plain_name(column) in synonyms]
        if len(fitting) != 1:
            raise DataError(
                f"{self.file} has {len(fitting) or 'no'} columns for {name!r}; keep one."
                f"{did_you_mean(name, fitting or self.values)}"
            )
        return fitting[0]


def read_table(path: str | Path, dims: Sequence[str] = ()) -> Table:
    """Read a CSV and find its columns of coordinates along `dims`: for all of them, or none."""
    frame = read_csv(path)
    file = Path(path).expanduser()
    named = [name for name in frame.columns if name and name[:8].lower() != "unnamed:"]
    forms = {dim: _columns_of(dim, named) for dim in dims}
    missing_dims = [dim for dim in dims if not forms[dim]]
    if 0 < len(missing_dims) < len(dims):
        raise DataError(
            f"{file} has no column for {', '.join(missing_dims)}; expected one for each of "
            f"{', '.join(dims)}."
        )
    coordinates = [] if missing_dims else [forms[dim][0] for dim in dims]
    no_values = set(coordinates)
    if coordinates:  # others are the same in a second form; but a lone `Y` is yttrium
        for dim in dims:
            no_values.update(name for name in forms[dim] if plain_name(name) != dim)
    values = [name for name in named if name not in no_values]
    return Table(file, frame, values, coordinates, _read_as(coordinates))


def _columns_of(dim: str, names: Sequence[str]) -> list[str]:
    """Columns that may hold coordinates along a dim, the preferred first."""
    forms = [form.replace("#", dim) for form in COORDINATES]
    fitting = [name for name in names if plain_name(name) in forms]
    return sorted(fitting, key=lambda c: (forms.index(plain_name(c)), c != c.lower(), c))


def _read_as(names: Sequence[str]) -> ReadAs:
    for name in map(plain_name, names):
        if name[1:] in STEP_NAMES or name.startswith("i"):
            return "steps"
    for name in names:
        unit = re.search(UNIT, name)
        if unit and unit[1].strip().lower() not in NOT_A_UNIT:
            return "coordinates"
    return "auto"


def plain_name(name: str) -> str:
    """A column name for comparison: lower case, letters and digits only, no unit in brackets."""
    return re.sub(r"[^0-9a-zµ]", "", (re.sub(UNIT, "", name.strip()) or name).lower())


def read_text(file: Path) -> str:
    """The text of a file in UTF-8 or Latin-1 (of older instruments); lines end with a line feed."""
    raw = file.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.removeprefix(codecs.BOM_UTF8).decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_csv(path: str | Path) -> pd.DataFrame:
    """Read all columns as stripped text, indexed by line number; numbers have decimal points."""
    file = check_file(path)
    text = read_text(file)
    if "\0" in text:
        raise DataError(
            f"{file} holds NUL bytes; it is damaged, UTF-16 or not text, so export it again as "
            "UTF-8."
        )
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "skipinitialspace": True}
    try:
        frame = pd.read_csv(
            io.StringIO(text), sep=separator, header=None, skip_blank_lines=False, **options
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{file} is no table ({reason}); with decimal commas, separate columns by ; or tab."
        ) from error
    raw = frame.to_numpy(object)
    is_missing = pd.isna(raw)
    cells = np.asarray(np.frompyfunc(str.strip, 1, 1)(np.where(is_missing, "", raw)))
    lines = np.flatnonzero((cells != "").any(axis=1))
    if len(lines) < 2 or cells.shape[1] < 2:
        raise DataError(
            f"{file}: expected a header of 2 names or more and a line for each point, split by , ; "
            "or tab."
        )
    for line in lines[is_missing[lines].any(axis=1)]:
        raise DataError(
            f"{file} line {line + 1} has fewer fields than the header has names; correct it."
        )
    header = cells[lines[0]].tolist()
    _check_header(file, header)
    index = pd.Index(lines[1:] + 1, name="line")
    frame = pd.DataFrame(cells[lines[1:]], index=index, columns=header, dtype=str)
    if separator != "," and "," in text:
        frame = frame.replace(DECIMAL_COMMA, r"\1.\2", regex=True)
    return frame


def _check_header(file: Path, header: list[str]) -> None:
    """Raise DataError for a header of numbers, or one that names a column twice."""
    if pd.to_numeric(pd.Series(header), errors="coerce").notna().any():
        raise DataError(
            f"{file} has no header: its first line holds numbers; expected names such as x,y,BC."
        )
    for name, count in Counter(header).items():
        if name and count > 1:
            raise DataError(
                f"{file}: the header names column {shortened(name)!r} {count} times; name each "
                "once."
            )


def _numbers(cells: pd.Series, file: Path) -> np.ndarray:
    """A column as floats, NaN where empty. Raises DataError for text or infinite values."""
    is_empty = cells.str.lower().isin(NO_VALUE)
    values = pd.to_numeric(cells.mask(is_empty), errors="coerce").to_numpy("f8", na_value=np.nan)
    is_wrong = ~np.isfinite(values) & ~is_empty.to_numpy()
    if is_wrong.any():
        row = int(is_wrong.argmax())
        column, cell = shortened(str(cells.name)), shortened(cells.iloc[row])
        raise DataError(
            f"{file} line {cells.index[row]}, column {column!r}: {cell!r} is not a number, or not "
            "finite; write numbers with a decimal point, and leave the field empty where there is "
            "no value."
        )
    return values
