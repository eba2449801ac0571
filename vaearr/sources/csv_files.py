"""CSV files of numbers, read strictly: each fault is one line that names the file's line and column.

Columns are separated by comma, semicolon or tab, whichever the header uses. Names are compared without case, spaces,
punctuation and a unit in brackets: `X Position [um]` is `xposition`.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from vaearr.errors import DataError
from vaearr.sources.hdf5 import check_file
from vaearr.sources.scan_grid import LARGEST_STEP_NUMBER

MOST_COLUMNS = 10_000
SEPARATORS = (",", ";", "\t")
NO_VALUE = {"", "nan", "na", "n/a", "null", "none", "-"}
UTF16 = (b"\xff\xfe", b"\xfe\xff")


def plain_name(name: str) -> str:
    """A column name as it is compared: lower case, letters and digits only, no unit in brackets."""
    without_unit = re.sub(r"[\[(][^\])]*[\])]\s*$", "", name.strip())
    return re.sub(r"[^0-9a-zµ]", "", (without_unit or name).lower())


def read_csv(path: str | Path) -> pd.DataFrame:
    """All columns as numbers or text, indexed by line number of the file. Raises DataError or NoInputError."""
    file = check_file(path)
    lines = _lines(file)
    numbers = [i for i, line in enumerate(lines) if line.strip()]
    if not numbers:
        raise DataError(f"{file} holds no text; expected a header line and one line for each scan point.")
    header = lines[numbers[0]]
    separator = max(SEPARATORS, key=header.count)
    if separator not in header:
        raise DataError(
            f"{file}: the header {header[:60]!r} is one column; expected columns separated by comma, semicolon or tab."
        )
    names = [name.strip() for name in _fields(file, numbers[0], header, separator)]
    _check_header(file, names)
    if len(numbers) == 1:
        raise DataError(f"{file} has a header but no lines below it; expected one line for each scan point.")
    _check_field_counts(file, lines, numbers, separator, len(names))
    text = "\n".join(lines[i] for i in numbers[1:])
    columns = [name or f"\0{i}" for i, name in enumerate(names)]
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,
            names=columns,
            index_col=False,
            skipinitialspace=True,
            na_values=sorted(NO_VALUE),
            low_memory=False,
        )
    except pd.errors.ParserError as error:
        raise DataError(f"{file} has quotes that do not close ({error}); correct the file.") from error
    if len(frame) != len(numbers) - 1:
        raise DataError(f"{file} has {len(numbers) - 1} lines but {len(frame)} rows; look for unbalanced quotes.")
    frame.index = pd.Index(np.array(numbers[1:]) + 1, name="line")
    return frame


def _lines(file: Path) -> list[str]:
    raw = file.read_bytes()
    if raw.startswith(UTF16):
        raise DataError(f"{file} is UTF-16 text; save it as UTF-8.")
    if b"\0" in raw:
        line = raw[: raw.index(b"\0")].count(b"\n") + 1
        raise DataError(f"{file} line {line} holds a NUL byte; it is damaged or not text, so export it again.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # older instruments write units so
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _check_header(file: Path, names: list[str]) -> None:
    if all(_is_number(name) for name in names):
        raise DataError(f"{file} has no header: its first line holds numbers only; expected names such as x,y,BC.")
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{file} has {len(names)} columns; at most {MOST_COLUMNS} are read.")
    for name, count in Counter(name for name in names if name).items():
        if count > 1:
            raise DataError(f"{file}: the header names column {name!r} {count} times; name each once.")


def _check_field_counts(file: Path, lines: list[str], numbers: list[int], separator: str, expected: int) -> None:
    for i in numbers:
        line = lines[i]
        is_quoted = '"' in line
        n_fields = len(_fields(file, i, line, separator)) if is_quoted else line.count(separator) + 1
        if n_fields != expected:
            hint = " (decimal commas? write decimal points)" if separator == "," and n_fields > expected else ""
            raise DataError(f"{file} line {i + 1} has {n_fields} fields, the header {expected}{hint}; correct it.")


def _fields(file: Path, i: int, line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error as error:
        raise DataError(f"{file} line {i + 1} is no line of a table ({error}); correct it.") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def numbers_of(frame: pd.DataFrame, column: str, file: Path, *, dtype: str) -> np.ndarray:
    """A column as floats, NaN where it says so. Raises DataError that names the line of text or infinite values."""
    values = frame[column]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        converted = pd.to_numeric(values.astype(str).str.strip(), errors="coerce")
        bad = converted.isna() & values.notna()
        if bad.any():
            row = int(bad.to_numpy().argmax())
            line, text = frame.index[row], str(values.iloc[row])
            hint = " (decimal comma? write a decimal point)" if re.fullmatch(r"[-+ ]*\d+,\d+\s*", text) else ""
            raise DataError(f"{file} line {line}, column {column!r}: {text[:40]!r} is not a number{hint}.")
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


def whole_numbers_of(frame: pd.DataFrame, column: str, file: Path, what: str) -> np.ndarray:
    """A column as int64. Raises DataError that names the first line that is empty or not a whole number."""
    values = numbers_of(frame, column, file, dtype="f8")
    bad = ~(np.abs(values - np.rint(values)) <= 1e-6) | (np.abs(values) > LARGEST_STEP_NUMBER)
    if bad.any():
        row = int(bad.argmax())
        found = "empty" if np.isnan(values[row]) else repr(float(values[row]))
        raise DataError(f"{file} line {frame.index[row]}, column {column!r}: {found}; expected {what}.")
    return np.rint(values).astype(np.int64)
