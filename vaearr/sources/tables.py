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
# Each tuple: names that mean the same, as `plain_name` gives them; the first that a file holds is taken.
COORDINATES: dict[str, tuple[str, ...]] = {
    axis: tuple(
        name.replace("#", axis)
        for name in ("#index", "#indice", "#idx", "#i", "i#", "#step", "#", "#position", "#pos", "#coord",
                     "#coordinate", "#coords", "#pixel", "#px")
    )
    for axis in ("x", "y", "z")
}  # fmt: skip
SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("bc", "bandcontrast", "bandcontr"),
    ("bs", "bandslope"),
    ("mad", "meanangulardeviation"),
    ("iq", "imagequality"),
    ("ci", "confidenceindex"),
    ("phase", "phaseid", "phaseindex", "phaseindice", "phaseno", "phasenumber", "phasenum"),
)
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
            found = f"{len(fitting)} columns" if fitting else "no column"
            raise DataError(
                f"{self.file} has {found} for {name!r}; keep one.{did_you_mean(name, fitting or self.values)}"
            )
        return fitting[0]


def read_table(path: str | Path, dims: Sequence[str] = ()) -> Table:
    """A CSV and which of its columns are coordinates along `dims`: for all of them, or for none."""
    frame = read_csv(path)
    file = Path(path).expanduser()
    named = [name for name in map(str, frame.columns) if not name.startswith("\0") and name[:8].lower() != "unnamed:"]
    found: dict[str, list[str]] = {}
    for dim in dims:
        ranked = [(COORDINATES[dim].index(plain), name != name.lower(), name) for name in named
                  if (plain := plain_name(name)) in COORDINATES[dim]]  # fmt: skip
        found[dim] = [name for *_, name in sorted(ranked)]
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
    units = [re.search(r"[\[(]([^\])]*)[\])]\s*$", name) for name in names]
    return "coordinates" if any(unit and unit[1].strip().lower() not in NOT_A_UNIT for unit in units) else "auto"


def plain_name(name: str) -> str:
    """A column name as it is compared: lower case, letters and digits only, no unit in brackets."""
    without_unit = re.sub(r"[\[(][^\])]*[\])]\s*$", "", name.strip())
    return re.sub(r"[^0-9a-zµ]", "", (without_unit or name).lower())


def read_csv(path: str | Path) -> pd.DataFrame:
    """All columns as numbers or text, indexed by line number of the file. Raises DataError or NoInputError."""
    file = check_file(path)
    lines = _lines(file)
    numbers = [i for i, line in enumerate(lines) if line.strip()]
    if len(numbers) < 2:
        raise DataError(f"{file} has {len(numbers)} lines; expected a header line and one line for each scan point.")
    separator = max(SEPARATORS, key=lines[numbers[0]].count)
    names = _header(file, lines[numbers[0]], separator)
    for i in numbers:
        n_fields = len(_fields(file, i, lines[i], separator)) if '"' in lines[i] else lines[i].count(separator) + 1
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
    except pd.errors.ParserError as error:
        raise DataError(f"{file} has quotes that do not close ({error}); correct the file.") from error
    if len(frame) != len(body):
        raise DataError(f"{file} has {len(body)} lines but {len(frame)} rows; look for unbalanced quotes.")
    frame.index = pd.Index(np.array(numbers[1:]) + 1, name="line")
    return frame


def _lines(file: Path) -> list[str]:
    raw = file.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{file} is UTF-16 text; save it as UTF-8.")
    if b"\0" in raw:
        line = raw[: raw.index(b"\0")].count(b"\n") + 1
        raise DataError(f"{file} line {line} holds a NUL byte; it is damaged or not text, so export it again.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # older instruments write units so
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _header(file: Path, line: str, separator: str) -> list[str]:
    if separator not in line:
        raise DataError(
            f"{file}: the header {line[:60]!r} is one column; expected columns separated by comma, semicolon or tab."
        )
    names = [name.strip() for name in _fields(file, 0, line, separator)]
    if not pd.to_numeric(pd.Series(names), errors="coerce").isna().any():
        raise DataError(f"{file} has no header: its first line holds numbers only; expected names such as x,y,BC.")
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{file} has {len(names)} columns; at most {MOST_COLUMNS} are read.")
    (name, count), *_ = [*Counter(name for name in names if name).most_common(1), ("", 0)]
    if count > 1:
        raise DataError(f"{file}: the header names column {name!r} {count} times; name each once.")
    return names


def _fields(file: Path, i: int, line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error as error:
        raise DataError(f"{file} line {i + 1} is no line of a table ({error}); correct it.") from error


def numbers_of(frame: pd.DataFrame, column: str, file: Path, *, dtype: str) -> np.ndarray:
    """A column as floats, NaN where it says so. Raises DataError that names the line of text or infinite values."""
    values = frame[column]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        converted = pd.to_numeric(values.astype(str).str.strip(), errors="coerce")
        bad = converted.isna() & values.notna()
        if bad.any():
            row = int(bad.to_numpy().argmax())
            text = str(values.iloc[row])
            hint = " (decimal comma? write a decimal point)" if re.fullmatch(r"[-+ ]*\d+,\d+\s*", text) else ""
            raise DataError(f"{file} line {frame.index[row]}, column {column!r}: {text[:40]!r} is not a number{hint}.")
        values = converted
    with np.errstate(over="ignore"):
        result = values.to_numpy(dtype)
    infinite = np.isinf(result)
    if infinite.any():
        row = int(infinite.argmax())
        raise DataError(
            f"{file} line {frame.index[row]}, column {column!r}: {values.iloc[row]} is infinite or too large; "
            f"leave the field empty where there is no value."
        )
    return result
