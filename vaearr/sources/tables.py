"""CSV files of numbers for scan points or samples, read strictly: each fault is one line that names the file's line.

Columns are separated by comma, semicolon or tab, whichever the header uses; beside the last two, a comma may be the
decimal point. Names are compared without case, spaces, punctuation and a unit in brackets: `X Position [um]` is
`xposition`.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from vaearr.errors import DataError, did_you_mean
from vaearr.sources.hdf5 import check_file

MOST_COLUMNS = 10_000
SEPARATORS = (",", ";", "\t")
NO_VALUE = ["", "nan", "na", "n/a", "null", "none", "-"]
# Names of a coordinate, # for its letter, and of maps that mean the same, as `plain_name` gives them; the first that a
# file holds is taken.
COORDINATES = ("#index", "#indice", "#idx", "#i", "i#", "#step", "#", "#position", "#pos", "#coord", "#coordinate",
               "#coords", "#pixel", "#px")  # fmt: skip
SYNONYMS: tuple[set[str], ...] = (
    {"bc", "bandcontrast", "bandcontr"},
    {"bs", "bandslope"},
    {"mad", "meanangulardeviation"},
    {"iq", "imagequality"},
    {"ci", "confidenceindex"},
    {"phase", "phaseid", "phaseindex", "phaseindice", "phaseno", "phasenumber", "phasenum"},
)
UNIT = r"[\[(]([^\])]*)[\])]\s*$"
NOT_A_UNIT = {"", "1", "px", "pixel", "pixels", "step", "steps"}
STEP_NAMES = ("index", "indice", "idx", "step", "pixel", "px", "i")

ReadAs = Literal["auto", "steps", "coordinates"]


@dataclass(frozen=True, eq=False)
class Table:
    """A CSV: all columns by line number, names of the columns of values, of coordinates, and what these are.

    read_as: what the names of the coordinates say. n_dropped: columns without a name.
    """

    file: Path
    frame: pd.DataFrame
    values: list[str]
    coordinates: list[str]
    read_as: ReadAs
    n_dropped: int

    def numbers(self, columns: Sequence[str], dtype: str = "f8") -> np.ndarray:
        """Columns as floats `(N, K)`, NaN where a field is empty. Raises DataError that names a line of text."""
        return np.stack([numbers_of(self.frame, name, self.file, dtype=dtype) for name in columns], axis=1)

    def meant(self, name: str) -> str:
        """The column of a map: the only one, or the one whose name means the same as `name`. Raises DataError."""
        plain = plain_name(name)
        same = {plain}.union(*(group for group in SYNONYMS if plain in group))
        fitting = self.values if len(self.values) == 1 else [c for c in self.values if plain_name(c) in same]
        if len(fitting) != 1:
            raise DataError(
                f"{self.file} has {len(fitting) or 'no'} columns for {name!r}; keep one."
                f"{did_you_mean(name, fitting or self.values)}"
            )
        return fitting[0]


def read_table(path: str | Path, dims: Sequence[str] = ()) -> Table:
    """A CSV and which of its columns are coordinates along `dims`: for all of them, or for none."""
    frame, file = read_csv(path), Path(path).expanduser()
    named = [name for name in map(str, frame.columns) if not name.startswith("\0") and name[:8].lower() != "unnamed:"]
    found: dict[str, list[str]] = {}
    for dim in dims:
        known = [form.replace("#", dim) for form in COORDINATES]
        fitting = [name for name in named if plain_name(name) in known]
        found[dim] = sorted(fitting, key=lambda name: (known.index(plain_name(name)), name != name.lower(), name))
    lacking = [dim for dim in dims if not found[dim]]
    if 0 < len(lacking) < len(dims):
        raise DataError(f"{file} has no column for {', '.join(lacking)}; expected one for each of {', '.join(dims)}.")
    coordinates = [] if lacking else [found[dim][0] for dim in dims]
    # of coordinates in two forms, `x, y` beside `x_index, y_index`, all are such; a lone `Y` beside `x, y` is yttrium
    common = set.intersection(*({_form(name, dim) for name in found[dim]} for dim in dims)) if coordinates else set()
    taken = {name for dim in dims for name in found[dim] if _form(name, dim) in common} | set(coordinates)
    values = [name for name in named if name not in taken]
    return Table(file, frame, values, coordinates, _read_as(coordinates), len(frame.columns) - len(named))


def _form(name: str, dim: str) -> str:
    """A coordinate's column name with its letter replaced, so that `x_um` and `y_um` are alike; `X` is not `x`."""
    return re.sub(f"^([iI]?){dim.upper()}", r"\1#!", re.sub(f"^([iI]?){dim}", r"\1#", name))


def _read_as(names: Sequence[str]) -> ReadAs:
    plain = [plain_name(name) for name in names]
    if any(name[1:] in STEP_NAMES or name.startswith("i") for name in plain):
        return "steps"
    units = [match[1].strip().lower() for name in names if (match := re.search(UNIT, name))]
    return "coordinates" if set(units) - NOT_A_UNIT else "auto"


def plain_name(name: str) -> str:
    """A column name as it is compared: lower case, letters and digits only, no unit in brackets."""
    return re.sub(r"[^0-9a-zµ]", "", (re.sub(UNIT, "", name.strip()) or name).lower())


def read_csv(path: str | Path) -> pd.DataFrame:
    """All columns as numbers or text, indexed by line number of the file. Raises DataError or NoInputError."""
    file = check_file(path)
    raw = file.read_bytes()
    if b"\0" in raw:
        raise DataError(f"{file} holds NUL bytes; it is damaged, UTF-16 or not text, so export it again as UTF-8.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # older instruments write units so
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    numbers = [i for i, line in enumerate(lines) if line.strip()]
    if len(numbers) < 2:
        raise DataError(f"{file} has {len(numbers)} lines; expected a header line and one line for each scan point.")
    separator = max(SEPARATORS, key=lines[numbers[0]].count)

    def fields(i: int) -> list[str]:
        try:
            return next(csv.reader([lines[i]], delimiter=separator, skipinitialspace=True, strict=True))
        except csv.Error as error:
            raise DataError(f"{file} line {i + 1} is no line of a table ({error}); correct it.") from error

    names = [name.strip() for name in fields(numbers[0])]
    _check_header(file, names)
    for i in numbers:
        n_fields = len(fields(i)) if '"' in lines[i] else lines[i].count(separator) + 1
        if n_fields != len(names):
            hint = " (decimal commas? write decimal points)" if separator == "," and n_fields > len(names) else ""
            raise DataError(f"{file} line {i + 1} has {n_fields} fields, the header {len(names)}{hint}; correct it.")
    body = [lines[i] for i in numbers[1:]]
    try:
        frame = pd.read_csv(
            io.StringIO("\n".join(body)),
            sep=separator,
            decimal="," if separator != "," and any(re.search(r"\d,\d", line) for line in body) else ".",
            header=None,
            names=[name or f"\0{i}" for i, name in enumerate(names)],
            index_col=False,
            skipinitialspace=True,
            na_values=NO_VALUE,
            low_memory=False,
        )
    except pd.errors.ParserError:
        frame = pd.DataFrame()
    if len(frame) != len(body):
        raise DataError(f"{file} has {len(body)} lines but {len(frame)} rows; look for unbalanced quotes.")
    frame.index = pd.Index(np.array(numbers[1:]) + 1, name="line")
    return frame


def _check_header(file: Path, names: Sequence[str]) -> None:
    if not 1 < len(names) <= MOST_COLUMNS:
        raise DataError(
            f"{file}: the header has {len(names)} columns; expected 2 to {MOST_COLUMNS}, separated by comma, semicolon "
            "or tab."
        )
    if not pd.to_numeric(pd.Series(names), errors="coerce").isna().any():
        raise DataError(f"{file} has no header: its first line holds numbers only; expected names such as x,y,BC.")
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise DataError(f"{file}: the header names column {twice[0]!r} {names.count(twice[0])} times; name each once.")


def numbers_of(frame: pd.DataFrame, column: str, file: Path, *, dtype: str) -> np.ndarray:
    """A column as floats, NaN where it says so. Raises DataError that names the line of text or infinite values."""
    told = frame[column]
    is_text = not pd.api.types.is_numeric_dtype(told) or pd.api.types.is_bool_dtype(told)
    values = pd.to_numeric(told.astype(str).str.strip(), errors="coerce") if is_text else told
    with np.errstate(over="ignore"):
        result = values.to_numpy(dtype)
    bad = (values.isna() & told.notna()).to_numpy() | np.isinf(result)
    if bad.any():
        row = int(bad.argmax())
        found = str(told.iloc[row])[:40]
        is_comma = re.fullmatch(r"[-+ ]*\d+,\d+\s*", found)
        then = "write a decimal point" if is_comma else "leave the field empty where there is no value"
        raise DataError(
            f"{file} line {frame.index[row]}, column {column!r}: {found!r} is not a number, or not finite; {then}."
        )
    return result
