"""Images: read and resize one; open a folder of them as a collection or as a scan.

A collection (sample[, channel], y, x): a folder of png, jpg, jpeg, tif, tiff and bmp in any case,
with its sub-folders, or a manifest; see `collection` for labels and manifests. Images of several
sizes need `size`; a mixture of grey and colour needs `channels`. Files whose name matches `masks`
(`*_mask*`: `a_mask.png`, `a_mask_1.png`) are left out.

A scan (y, x, dy, dx): a folder with one grey image for each scan point, in any order, with points
missing. The names, without suffix, are matched with `IngestConfig.filenames`: a template such as
`x{x}_y{y}` or `scan_{y}_{x}` (`*` stands for anything), or a regular expression with the groups `x`
and `y`. Without it, names that label both numbers (`x12_y7`, `Y7-X12`) are read by their labels,
and names that end in two numbers (`scan_7_12`) as y, then x; a dash between those is no sign, so
names with signs or decimals need a template or an expression. A name that does not match, or a scan
point that two files claim, is refused.

A folder is read as a collection where its sub-folders hold images, or where most names of images
directly in it do not hold two numbers; else as a scan. `format="images"` or
`format="point-images"` overrides this.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError, NoInputError, UsageError, shortened
from vaearr.sources.collection import (
    collection,
    examined,
    files_below,
    refuse_nonfinite,
    samples,
    samples_of,
    some_files,
    source_files,
)
from vaearr.sources.hdf5 import in_words
from vaearr.sources.lazy import lazy_array, one_by_one
from vaearr.sources.scan_grid import LARGEST_STEP_NUMBER, scan_dataset, scan_grid

log = logging.getLogger("vaearr")

COLLECTION, POINTS = "images", "point-images"
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
COLOURS = ("red", "green", "blue")
MAX_NAMES = 200  # that decide whether a folder is a scan
MAX_LISTED = 3  # names in an error
Fit = Literal["pad", "crop", "squash"]
Channels = Literal["auto", "grey", "colour"]
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # no other decoder is tried: that of EPS starts a program
MODES = ("1", "L", "P", "PA", "LA", "RGB", "RGBA", "F")
NUMBER = r"-?\d+"
LABELLED = re.compile(
    r"(?i)(?:^|[^a-z])(?:x[ =_]?(?P<x>-?\d+)[^0-9a-z]*y[ =_]?(?P<y>-?\d+)|"
    r"y[ =_]?(?P<y2>-?\d+)[^0-9a-z]*x[ =_]?(?P<x2>-?\d+))(?![0-9]|\.[0-9])"
)
UNLABELLED = re.compile(
    r"(?<![0-9])(?<![0-9]\.)(?<!^-)(?<![_,; -]-)(?P<y>\d+)(?:[_,; ]+|-| +- +)(?P<x>\d+)$"
)


# one image


def read_image(file: Path, channels: Channels = "auto") -> np.ndarray:
    """Read grey values (y, x), or red, green and blue (channel, y, x), upright, as stored.

    Values have 8 or 16 bits or are float32. channels: `grey` converts colour by the weights of
    ITU-R BT.601, `colour` repeats grey three times. Raises DataError for a file that is damaged,
    holds several images, has transparent pixels, CMYK or another colour model, or 16-bit colour
    (which decoders cut down to 8).
    """
    from PIL import Image, ImageOps

    with in_words(file, "an image"), Image.open(file, formats=FORMATS) as image:
        problem = _header_problem(image)
        if problem:
            raise DataError(f"{file} {problem}.")
        plain: Any = ImageOps.exif_transpose(image)
        if plain.mode == "1":
            plain = plain.convert("L")
        if plain.mode in ("P", "PA"):
            plain = plain.convert("RGBA")
        return _values(file, plain, channels)


def _header_problem(image: Any) -> str:
    """Why an image cannot be used, by its header, before anything is decoded; "" if it can."""
    n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1:
        return f"holds {n_frames} images; expected one, so save each as a file"
    if image.mode not in MODES and not image.mode.startswith("I"):
        return f"is an image of mode {image.mode!r}; expected grey or RGB, so convert it"
    raw_modes = str([tile[3:] for tile in image.tile])
    if image.mode in ("RGB", "RGBA", "LA") and ";16" in raw_modes:
        return "is a colour image of 16 bits; expected 8 bits, or grey of 16 bits, so convert it"
    return ""


def _values(file: Path, image: Any, channels: Channels) -> np.ndarray:
    if image.mode in ("LA", "RGBA"):
        if np.asarray(image)[..., -1].min() < 255:
            raise DataError(
                f"{file} has transparent pixels; expected a filled image, so flatten it."
            )
        image = image.convert(image.mode[:-1])
    if image.mode == "RGB" and channels == "grey":
        image = image.convert("L")
    values = np.asarray(image)
    if image.mode == "RGB":
        return np.moveaxis(values, -1, 0)
    dtype = values.dtype.newbyteorder("=")
    if image.mode == "I" and values.min() >= 0 and values.max() < 2**16:
        dtype = np.dtype(np.uint16)  # some versions read 16 bits as 32
    values = values.astype(dtype, copy=False)
    return np.repeat(values[None], 3, axis=0) if channels == "colour" else values


def refit(values: np.ndarray, size: tuple[int, ...], fit: Fit) -> np.ndarray:
    """Resize an image (…, y, x), its dtype kept.

    `pad` scales it to fit inside, centred, with 0 around; `crop` scales it to cover and cuts out
    the centre; `squash` stretches both sides. Scaling uses triangular weights as wide as the step,
    so that nothing aliases.
    """
    from PIL import Image

    height, width = values.shape[-2:]
    if (height, width) == size:
        return values
    (top, bottom, rows), (left, right, columns) = placement((height, width), size, fit)
    target = (rows.stop - rows.start, columns.stop - columns.start)
    planes = []
    for plane in values.reshape(-1, height, width).astype(np.float32):
        image = Image.fromarray(plane)
        box = (left, top, right, bottom)
        planes.append(np.asarray(image.resize(target[::-1], Image.Resampling.BILINEAR, box=box)))
    scaled = np.stack(planes)
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        scaled = np.clip(np.rint(scaled), limits.min, limits.max)
    out = np.zeros((*values.shape[:-2], *size), values.dtype)
    out[..., rows, columns] = scaled.reshape(*values.shape[:-2], *target)
    return out


def placement(
    shape: tuple[int, ...], size: tuple[int, ...], fit: Fit
) -> list[tuple[float, float, slice]]:
    """Return, for each side, start and stop in the image that `refit` takes, and the slice it
    fills.
    """
    scales = [new / old for old, new in zip(shape, size, strict=True)]
    sides = []
    for old, new in zip(shape, size, strict=True):
        start = 0.0
        length = new
        if fit == "pad":
            length = max(1, min(new, round(old * min(scales))))
        elif fit == "crop":
            start = max(0.0, (old - new / max(scales)) / 2)
        first = (new - length) // 2
        sides.append((start, float(old) - start, slice(first, first + length)))
    return sides


# a collection


def sniff(path: Path) -> bool:
    """Whether a path is a folder or a manifest of images."""
    return bool(some_files(path, SUFFIXES))


def files(path: Path, config: IngestConfig) -> list[Path]:
    """All files that the Dataset of a collection is made from."""
    return source_files(path, config, SUFFIXES)


def open_images(folder: Path, config: IngestConfig) -> xr.Dataset:
    """Open images (sample[, channel], y, x), lazy, with paths and labels, in their dtype.

    Raises DataError or NoInputError that names all files that cannot be used (see `read_image`);
    DataError for images that do not agree in channels, dtype or (without `size`) size; UsageError
    for an invalid size.
    """
    if config.size is not None and len(config.size) != 2:
        raise UsageError(f"size {config.size} of images must be two numbers, (rows, columns).")
    sample_table = _without_masks(samples_of(folder, config, SUFFIXES), config.masks)

    def check(path: Path) -> tuple[tuple[int, ...], np.dtype]:
        values = read_image(path, config.channels)
        if values.dtype.kind == "f" and config.nonfinite == "error":
            refuse_nonfinite(path, values)
        return values.shape, values.dtype

    with warnings.catch_warnings(action="error"):  # Pillow only warns of damaged headers
        images = examined(sample_table, check)
    shape, dtype = _agreed(folder, sample_table, images, config)
    size = (shape[-2], shape[-1])

    def read(i: int) -> np.ndarray:
        return refit(read_image(sample_table.index[i], config.channels), size, config.fit)

    signal = (n.CHANNEL, n.Y, n.X)[-len(shape) :]
    attrs: dict[str, Any] = {"long_name": "image", "units": "1"}
    file_shapes = np.array([image_shape[-2:] for image_shape, _ in images], np.int32)
    if (file_shapes != size).any():
        attrs |= {"size": list(size), "fit": config.fit}
    patterns = samples(read, len(sample_table), shape, dtype)
    ds = collection(patterns, signal, sample_table, attrs)
    if n.CHANNEL in signal:
        ds = ds.assign_coords({n.CHANNEL: list(COLOURS)})
    for axis, side in enumerate(("rows", "columns")):
        side_attrs = {"long_name": f"{side} of the file", "units": "px"}
        ds.coords[f"source_{side}"] = (n.SAMPLE, file_shapes[:, axis], side_attrs)
    return ds


def _px(shape: tuple[int, ...]) -> str:
    return f"{shape[-2]} x {shape[-1]} px"


def _without_masks(samples: pd.DataFrame, masks: str) -> pd.DataFrame:
    """The samples without those named as masks."""
    is_mask = np.array([bool(masks) and fnmatch(file.stem, masks) for file in samples.index], bool)
    if is_mask.all():
        raise DataError(
            f"all {len(samples)} images are masks by their names ({masks}); give masks='' to read "
            "them."
        )
    if is_mask.any():
        log.info(f"{is_mask.sum()} files are masks by their names ({masks}) and left out.")
    return samples[~is_mask]


def _agreed(
    folder: Path,
    sample_table: pd.DataFrame,
    images: list[tuple[tuple[int, ...], np.dtype]],
    config: IngestConfig,
) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of all samples. Raises DataError where images differ."""
    kinds = []
    for shape, dtype in images:
        kind = f"{'grey' if len(shape) == 2 else 'colour'} {dtype}"
        kinds.append(kind if config.size else f"{kind} {_px(shape)}")
    (most, many), *others = Counter(kinds).most_common()
    if others:
        other = others[0][0]
        raise DataError(
            f"{folder}: the images differ: {most} in {many} of {len(kinds)}, but {other} in "
            f"{sample_table[n.PATH].iloc[kinds.index(other)]}; make them equal with size=(rows, "
            "columns) (--size ROWSxCOLUMNS) and channels='grey' or 'colour' (--channels), and save "
            "them with the same number of bits."
        )
    shape, dtype = images[0]
    return (*shape[:-2], *(config.size or shape[-2:])), dtype


# a scan


def sniff_points(path: Path) -> bool:
    """Whether a folder holds images directly, of whose names at least half have two numbers."""
    images = some_files(path, SUFFIXES, MAX_NAMES)
    stems = [file.stem for file in images if file.parent == path]
    n_positions = sum(len(re.findall(r"\d+", stem)) >= 2 for stem in stems)
    return path.is_dir() and bool(stems) and 2 * n_positions >= len(stems)


def point_files(folder: Path, config: IngestConfig) -> list[Path]:
    """The image files directly in the folder, sorted by name.

    Raises DataError where there are none, NoInputError for a link that leads nowhere.
    """
    images = sorted(files_below(folder, SUFFIXES, deep=False))
    if not images:
        raise DataError(
            f"{folder} holds no images ({', '.join(SUFFIXES)}); give the folder that does."
        )
    for file in images:
        if not file.exists():
            raise NoInputError(
                f"{file} is a link to a file that does not exist; restore the file, or remove the "
                "link."
            )
    return images


def open_points(folder: Path, config: IngestConfig) -> xr.Dataset:
    """Open patterns (y, x, dy, dx), lazy, with `present`, in their dtype.

    Raises DataError for names that do not match or repeat a scan point, and for a first image that
    is not grey; UsageError for invalid `filenames`. An image that is damaged or differs from the
    first is a DataError when it is read.
    """
    images = point_files(folder, config)
    steps, note = _steps(folder, [file.stem for file in images], config.filenames)
    grid = scan_grid(steps, str(folder), [file.name for file in images])
    with warnings.catch_warnings(action="error"):
        first = read_image(images[0])
    if first.ndim != 2:
        raise DataError(
            f"{images[0]} is in colour; expected one grey image of 8 or 16 bits, so convert it."
        )

    def read(i: int) -> np.ndarray:
        values = read_image(images[i])
        if values.shape != first.shape or values.dtype != first.dtype:
            colour = "in colour, " if values.ndim > 2 else ""
            raise DataError(
                f"{images[i]} is {colour}{_px(values.shape)}, {values.dtype}, the first image "
                f"{_px(first.shape)}, {first.dtype}; all images of a scan must agree."
            )
        return values

    patterns = lazy_array(one_by_one(read), grid.rows, first.shape, first.dtype)
    ds = scan_dataset(patterns, grid, config, folder)
    if note:
        ds.attrs["notes"] = [note]
    return ds


def _steps(folder: Path, stems: list[str], filenames: str | None) -> tuple[np.ndarray, str]:
    """Step numbers [x, y] of each file name, and a note on how they were read."""
    note = ""
    reading = (
        "The images are points of a scan, as their names hold {}; if not, choose format images."
    )
    remedy = "move other images away, or give a template: filenames='x{x}_y{y}'."
    if filenames is not None:
        pattern, rule = _pattern(filenames), f"filenames={filenames!r}"
        remedy = "correct the template so that it fits these names, or move other images away."
    elif _count_matches(LABELLED, stems) >= _count_matches(UNLABELLED, stems):
        pattern, rule = LABELLED, "x and y numbers (such as x12_y7)"
        note = reading.format(rule)
    else:
        pattern, rule = UNLABELLED, "y_x numbers at the end (such as 7_12)"
        note = reading.format(rule) + " If they mean x_y, give filenames '*{x}_{y}'."
    steps = []
    unmatched = []
    for stem in stems:
        step = _step_numbers(pattern.search(stem))
        if step is None:
            unmatched.append(repr(shortened(stem)))
        else:
            steps.append(step)
    if unmatched:
        names = ", ".join(unmatched[:MAX_LISTED])
        if len(unmatched) > MAX_LISTED:
            names += f" and {len(unmatched) - MAX_LISTED} more"
        raise DataError(
            f"{folder}: {len(unmatched)} of {len(stems)} image names hold no scan point (whole "
            f"step numbers) by {rule}: {names}; {remedy}"
        )
    return np.array(steps, dtype=np.int64), note


def _count_matches(pattern: re.Pattern[str], stems: list[str]) -> int:
    return sum(pattern.search(stem) is not None for stem in stems)


def _step_numbers(match: re.Match[str] | None) -> tuple[int, int] | None:
    """The step numbers x and y of a matched name; None where it holds none."""
    groups = match.groupdict() if match else {}
    numbers = []
    for axis in ("x", "y"):
        text = str(groups.get(axis) or groups.get(f"{axis}2"))
        if not re.fullmatch(NUMBER, text) or abs(int(text)) > LARGEST_STEP_NUMBER:
            return None
        numbers.append(int(text))
    return numbers[0], numbers[1]


def _pattern(filenames: str) -> re.Pattern[str]:
    """Compile a template or a regular expression, which must match both x and y."""
    text = filenames
    if "(?P<" not in filenames:
        meaning = {"{x}": f"(?P<x>{NUMBER})", "{y}": f"(?P<y>{NUMBER})", "*": ".*?"}
        parts = re.split(r"(\{x\}|\{y\}|\*)", filenames)
        text = "^" + "".join(meaning.get(part, re.escape(part)) for part in parts) + "$"
    problem = "does not hold both coordinates"
    try:
        compiled = re.compile(text)
        if {"x", "y"} <= set(compiled.groupindex):
            return compiled
    except re.error as error:
        problem = f"cannot be read ({error})"
    raise UsageError(
        f"filenames={filenames!r} {problem}; write a template with {{x}} and {{y}} once each, such "
        "as 'x{x}_y{y}', or a regular expression with the groups (?P<x>…) and (?P<y>…)."
    )
