"""A folder with one grey image for each scan point, whose name tells where: lazy, in any order, with points missing.

Names are matched without their suffix by `IngestConfig.filenames`: a template such as `x{x}_y{y}` or `scan_{y}_{x}`
(`*` stands for anything), or a regular expression with the groups `x` and `y`. Without it, names that label both
numbers (`x12_y7`, `Y7-X12`) are read by their labels, and names that end in two numbers (`scan_7_12`) as y, then x;
a dash between those is no sign, so that names with signs or decimals in them need a template or an expression.
A name that does not match, or a scan point that two files claim, is refused: no file is left out or put at (0, 0).
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr.config import IngestConfig
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.sources.image_files import read_image
from vaearr.sources.lazy import one_by_one
from vaearr.sources.scan_grid import LARGEST_STEP_NUMBER, scan_dataset, scan_grid

ENGINE = "point-images"
SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg"})
LABELLED = re.compile(
    r"(?i)(?:^|[^a-z])(?:x[ =_]?(?P<x>-?\d+)[^0-9a-z]*y[ =_]?(?P<y>-?\d+)|"
    r"y[ =_]?(?P<y2>-?\d+)[^0-9a-z]*x[ =_]?(?P<x2>-?\d+))(?![0-9]|\.[0-9])"
)
UNLABELLED = re.compile(r"(?<![0-9])(?<![0-9]\.)(?<!^-)(?<![_,; -]-)(?P<y>\d+)(?:[_,; ]+|-| +- +)(?P<x>\d+)$")
NUMBER = r"-?\d+"
SHOWN = 3


def sniff(path: Path) -> int:
    """2: a folder with image files; 0: anything else."""
    return 2 if path.is_dir() and next(_image_names(path), None) is not None else 0


def _image_names(folder: Path) -> Any:
    with os.scandir(folder) as entries:
        for entry in entries:
            is_hidden = entry.name.startswith(".")
            if not is_hidden and os.path.splitext(entry.name)[1].lower() in SUFFIXES and _is_file(entry):
                yield entry.name


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link to one that is gone, which `image_files` refuses."""
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))


def image_files(folder: Path) -> list[Path]:
    """The image files directly in the folder, sorted by name.

    Raises DataError where there are none, NoInputError for a link that leads nowhere.
    """
    try:
        names = sorted(_image_names(folder))
    except OSError as error:
        raise NoInputError(f"{folder} cannot be listed ({error.strerror or error}); check its permissions.") from error
    if not names:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}); give the folder that does.")
    files = [folder / name for name in names]
    gone = [file for file in files if file.is_symlink() and not file.exists()]
    if gone:
        raise NoInputError(f"{gone[0]} is a link to a file that is not there; restore the file, or remove the link.")
    return files


def open_point_images(
    path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None
) -> xr.Dataset:
    """Lazy Dataset of patterns (y, x, dy, dx) with `present`; 8 and 16 bit grey values are kept as they are.

    Raises DataError for names that do not match or repeat a scan point, and for a first image that is not grey;
    UsageError for `filenames` that cannot be meant. An image that is damaged or of another size is a DataError when it
    is read.
    """
    config = config or IngestConfig()
    folder = Path(path).expanduser()
    files = image_files(folder)
    steps, note = _steps(folder, [file.stem for file in files], config.filenames)
    grid = scan_grid(steps, str(folder), [file.name for file in files])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what Pillow only warns of: more pixels than a detector has, damaged headers
        first = read_grey(files[0])

    def read(i: int) -> np.ndarray:
        values = read_grey(files[i], first.shape)
        if values.dtype != first.dtype:
            raise DataError(
                f"{files[i]} holds {values.dtype}, the first image {first.dtype}; all images of a scan must agree."
            )
        return values

    units = config.units if config.step is not None else "step"
    reader = one_by_one(read, first.shape, first.dtype)
    ds = scan_dataset(reader, grid, first.shape, first.dtype, (config.step, config.step), units, folder)
    if note:
        ds.attrs["notes"] = [note]
    return ds


def _steps(folder: Path, stems: list[str], wanted: str | None) -> tuple[np.ndarray, str]:
    """[x, y] of each name, and what to say about how they were read."""
    note = ""
    if wanted is not None:
        pattern, how = _pattern(wanted), f"filenames={wanted!r}"
    else:
        n_labelled = sum(LABELLED.search(stem) is not None for stem in stems)
        n_plain = sum(UNLABELLED.search(stem) is not None for stem in stems)
        pattern = LABELLED if n_labelled >= n_plain else UNLABELLED
        how = "x and y numbers (such as x12_y7)" if pattern is LABELLED else "y_x numbers at the end (such as 7_12)"
        if pattern is UNLABELLED:
            note = "file names are read as y_x; if they mean x_y, give filenames='*{x}_{y}'."
    matches = [pattern.search(stem) for stem in stems]
    unmatched = [stem for stem, match in zip(stems, matches, strict=True) if match is None]
    if unmatched:
        raise DataError(
            f"{folder}: {len(unmatched)} of {len(stems)} image names do not tell their scan point by {how}: "
            f"{_some(unmatched)}; move other images away, or give a template: filenames='x{{x}}_y{{y}}'."
        )
    named = [match.groupdict() for match in matches if match is not None]
    found = [(group["x"] or group.get("x2"), group["y"] or group.get("y2")) for group in named]
    for stem, pair in zip(stems, found, strict=True):
        if not all(text and re.fullmatch(NUMBER, text) for text in pair):
            raise DataError(f"{folder}: {how} takes {pair} for x and y of {stem!r}; expected whole step numbers.")
    steps = [[int(str(x)), int(str(y))] for x, y in found]
    largest = max(max(map(abs, pair)) for pair in steps)
    if largest > LARGEST_STEP_NUMBER:
        raise DataError(f"{folder}: a name holds the number {largest}, too large for a step number; check {how}.")
    return np.array(steps, dtype=np.int64), note


def _pattern(wanted: str) -> re.Pattern[str]:
    """A template or a regular expression, compiled. Raises UsageError unless it tells both x and y."""
    if "(?P<" in wanted:
        text = wanted
    else:
        parts = re.split(r"(\{x\}|\{y\}|\*)", wanted)
        meaning = {"{x}": f"(?P<x>{NUMBER})", "{y}": f"(?P<y>{NUMBER})", "*": ".*?"}
        text = "^" + "".join(meaning.get(part, re.escape(part)) for part in parts) + "$"
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise UsageError(
            f"filenames={wanted!r} cannot be read ({error}); write a template with {{x}} and {{y}} once each, or a "
            f"regular expression with the groups (?P<x>…) and (?P<y>…)."
        ) from None
    if not {"x", "y"} <= set(compiled.groupindex):
        raise UsageError(
            f"filenames={wanted!r} does not tell both coordinates; write a template such as 'x{{x}}_y{{y}}', or a "
            f"regular expression with the groups (?P<x>…) and (?P<y>…)."
        )
    return compiled


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def read_grey(file: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The grey values (dy, dx) of an image, of `shape` where that is given. Raises DataError for others."""
    values = read_image(file)
    if values.ndim != 2:
        raise DataError(f"{file} is in colour; expected one grey image of 8 or 16 bits, so convert it.")
    if shape is not None and values.shape != shape:
        raise DataError(
            f"{file} is {values.shape[0]} x {values.shape[1]} px, the first image is {shape[0]} x {shape[1]} px; all "
            f"images of a scan must agree."
        )
    return values
