"""Images: how one is read and brought to another size, folders of them as a collection, or as a
scan.

A collection (sample[, channel], y, x): a folder of png, jpg, jpeg, tif, tiff and bmp in any case,
with its sub-folders, or a manifest; see `collection` for labels and manifests. Images of several
sizes need `size`; grey and colour among each other need `channels`. Files whose name fits `masks`
(`*_mask*`: `a_mask.png`, `a_mask_1.png`) are left out.

A scan (y, x, dy, dx): a folder with one grey image for each scan point, whose name tells where: in
any order, with points missing. Names are matched without their suffix by `IngestConfig.filenames`:
a template such as `x{x}_y{y}` or `scan_{y}_{x}` (`*` stands for anything), or a regular expression
with the groups `x` and `y`. Without it, names that label both numbers (`x12_y7`, `Y7-X12`) are read
by their labels, and names that end in two numbers (`scan_7_12`) as y, then x; a dash between those
is no sign, so that names with signs or decimals in them need a template or an expression. A name
that does not match, or a scan point that two files claim, is refused: no file is left out or put at
(0, 0).

A folder is taken for a collection where its sub-folders hold images, or where most names of images
directly in it do not hold two numbers; else for a scan. `format="images"` or
`format="point-images"` decides otherwise.
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
    Geometry,
    collection,
    examined,
    files_below,
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
LOOKED_AT = 200  # names that decide what a folder is
SHOWN = 3
Fit = Literal["pad", "crop", "squash"]
Channels = Literal["auto", "grey", "colour"]
FORMATS = (
    "PNG",
    "JPEG",
    "TIFF",
    "BMP",
)  # of no other is the decoder tried: that of EPS starts a program
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
    """Grey values (y, x), or red, green and blue (channel, y, x), 8 or 16 bits or float32 as
    stored, upright.

    channels: `grey` converts colour by the weights of ITU-R BT.601, `colour` repeats grey three
    times. Raises DataError for a file that is damaged, holds several images, has transparent
    pixels, CMYK or another colour model, or 16-bit colour (which decoders cut down to 8).
    """
    from PIL import Image, ImageOps

    with in_words(file, "an image"), Image.open(file, formats=FORMATS) as image:
        if why := _why_not(image):
            raise DataError(f"{file} {why}.")
        plain: Any = ImageOps.exif_transpose(image)
        if plain.mode == "1":
            plain = plain.convert("L")
        if plain.mode in ("P", "PA"):
            plain = plain.convert("RGBA")
        return _values(file, plain, channels)


def _why_not(image: Any) -> str:
    """What the header says that cannot be used, known before anything is decoded; "" = nothing."""
    raw = " ".join(str(part) for tile in image.tile for part in tile[3:])
    if (frames := getattr(image, "n_frames", 1)) > 1:
        return f"holds {frames} images; expected one, so save them as files of their own"
    if image.mode not in MODES and not image.mode.startswith("I"):
        return f"is an image of mode {image.mode!r}; expected grey or RGB, so convert it"
    if image.mode in ("RGB", "RGBA", "LA") and ";16" in raw:
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
    is_16_bit = (
        image.mode == "I" and values.min() >= 0 and values.max() < 2**16
    )  # how some versions give 16 bits
    values = values.astype(np.uint16 if is_16_bit else values.dtype.newbyteorder("="), copy=False)
    return np.repeat(values[None], 3, axis=0) if channels == "colour" else values


def refit(values: np.ndarray, size: tuple[int, ...], fit: Fit) -> np.ndarray:
    """An image (…, y, x) at another size, its dtype kept; unchanged where it has that size already.

    `pad` scales it to fit inside, in the middle, with 0 around; `crop` scales it to cover and cuts
    the middle out; `squash` stretches both sides. Scaling is by triangular weights as wide as the
    step, so that nothing aliases.
    """
    from PIL import Image

    height, width = values.shape[-2:]
    if (height, width) == size:
        return values
    (top, bottom, rows), (left, right, columns) = _placement((height, width), size, fit)
    target, box = (rows.stop - rows.start, columns.stop - columns.start), (left, top, right, bottom)
    planes = [
        Image.fromarray(plane) for plane in values.reshape(-1, height, width).astype(np.float32)
    ]
    scaled = np.stack(
        [np.asarray(p.resize(target[::-1], Image.Resampling.BILINEAR, box=box)) for p in planes]
    )
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        scaled = np.clip(np.rint(scaled), limits.min, limits.max)
    out = np.zeros((*values.shape[:-2], *size), values.dtype)
    out[..., rows, columns] = scaled.reshape(*values.shape[:-2], *target)
    return out


def _placement(
    shape: tuple[int, ...], size: tuple[int, ...], fit: Fit
) -> list[tuple[float, float, slice]]:
    """How `refit` moves an image along each side: from where to where it is taken, and where this
    comes to lie.
    """
    scales = [new / old for old, new in zip(shape, size, strict=True)]
    sides = []
    for old, new in zip(shape, size, strict=True):
        part = max(1, min(new, round(old * min(scales)))) if fit == "pad" else new
        start = max(0.0, (old - new / max(scales)) / 2) if fit == "crop" else 0.0
        first = (new - part) // 2
        sides.append((start, float(old) - start, slice(first, first + part)))
    return sides


def image_geometry(file: Path, shape: tuple[int, ...], size: tuple[int, ...], fit: Fit) -> Geometry:
    """Where the pixels of an image of `shape` lie once it was refitted to `size`."""
    sides = _placement(shape, size, fit)
    scale = [(stop - start) / (at.stop - at.start) for start, stop, at in sides]
    offset = [
        start + (0.5 - at.start) * step - 0.5
        for (start, _, at), step in zip(sides, scale, strict=True)
    ]
    return Geometry(file, shape, size, tuple(scale), tuple(offset))


# a collection


def sniff(path: Path) -> bool:
    """Whether a path is a folder with images, or a manifest of images."""
    return bool(some_files(path, SUFFIXES))


def files(path: Path, config: IngestConfig) -> list[Path]:
    """All files that the Dataset of a collection is made from."""
    return source_files(path, config, SUFFIXES)


def open_images(folder: Path, config: IngestConfig) -> xr.Dataset:
    """Lazy Dataset of images (sample[, channel], y, x) with paths, labels and masks; 8 and 16 bits
    are kept.

    Raises DataError or NoInputError that names all files that cannot be used (see `read_image`);
    DataError for images that do not agree in channels, dtype or (without `size`) size; UsageError
    for settings that cannot be meant.
    """
    if config.size is not None and len(config.size) != 2:
        raise UsageError(f"size {config.size} of images must be two numbers, (rows, columns).")
    found = _without_masks(samples_of(folder, config, SUFFIXES), config.masks)

    def look(path: Path) -> tuple[tuple[int, ...], np.dtype]:
        values = read_image(path, config.channels)
        if (
            values.dtype.kind == "f"
            and config.nonfinite == "error"
            and not np.isfinite(values).all()
        ):
            raise DataError(
                f"{path} has NaN or infinite values; correct it, or set nonfinite='mask'."
            )
        return values.shape, values.dtype

    with warnings.catch_warnings(
        action="error"
    ):  # what Pillow only warns of: damaged headers, cut-off files
        looks = examined(found, look)
    shape, dtype = _agreed(folder, found, looks, config)
    size = (shape[-2], shape[-1])

    def read(i: int) -> np.ndarray:
        return refit(read_image(found.index[i], config.channels), size, config.fit)

    signal = (n.CHANNEL, n.Y, n.X)[-len(shape) :]
    attrs: dict[str, Any] = {"long_name": "image", "units": "1"}
    file_shapes = [file_shape[-2:] for file_shape, _ in looks]
    if set(file_shapes) != {size}:
        attrs |= {"size": list(size), "fit": config.fit}
    ds = collection(samples(read, len(found), shape, dtype), signal, found, attrs)
    if n.CHANNEL in signal:
        ds = ds.assign_coords({n.CHANNEL: list(COLOURS)})
    for word, sizes in zip(("rows", "columns"), zip(*file_shapes, strict=True), strict=True):
        about = {"long_name": f"{word} of the file", "units": "px"}
        ds.coords[f"source_{word}"] = (n.SAMPLE, np.array(sizes, np.int32), about)
    return ds


def _px(shape: tuple[int, ...]) -> str:
    return f"{shape[-2]} x {shape[-1]} px"


def _without_masks(samples: pd.DataFrame, masks: str) -> pd.DataFrame:
    """The samples without files whose name says that they are masks."""
    is_mask = np.array([bool(masks) and fnmatch(file.stem, masks) for file in samples.index], bool)
    if is_mask.all():
        raise DataError(
            f"all {len(samples)} images are masks by their names ({masks}); give masks='' to read them."
        )
    if is_mask.any():
        log.info(f"{is_mask.sum()} files are masks by their names ({masks}) and left out.")
    return samples[~is_mask]


def _agreed(
    folder: Path,
    found: pd.DataFrame,
    looks: list[tuple[tuple[int, ...], np.dtype]],
    config: IngestConfig,
) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of all samples. Raises DataError where images differ."""
    kinds = [
        f"{'grey' if len(shape) == 2 else 'colour'} {dtype}{'' if config.size else f' {_px(shape)}'}"
        for shape, dtype in looks
    ]
    (most, many), *others = Counter(kinds).most_common()
    if others:
        raise DataError(
            f"{folder}: the images differ: {most} in {many} of {len(kinds)}, but {others[0][0]} in "
            f"{found[n.PATH].iloc[kinds.index(others[0][0])]}; make them alike with size=(rows, columns) (--size "
            "ROWSxCOLUMNS) and channels='grey' or 'colour' (--channels), and save them with the same number of bits."
        )
    shape, dtype = looks[0]
    return (*shape[:-2], *(config.size or shape[-2:])), dtype


# a scan


def sniff_points(path: Path) -> bool:
    """Whether a path is a folder with images directly in it, half of which or more have two numbers
    in their name.
    """
    some = some_files(path, SUFFIXES, LOOKED_AT)
    direct = [file.stem for file in some if file.parent == path]
    n_places = sum(len(re.findall(r"\d+", stem)) >= 2 for stem in direct)
    return path.is_dir() and bool(direct) and 2 * n_places >= len(direct)


def point_files(folder: Path, config: IngestConfig) -> list[Path]:
    """The image files directly in the folder, sorted by name.

    Raises DataError where there are none, NoInputError for a link that leads nowhere.
    """
    found = sorted(files_below(folder, SUFFIXES, deep=False))
    if not found:
        raise DataError(
            f"{folder} holds no images ({', '.join(SUFFIXES)}); give the folder that does."
        )
    if gone := [file for file in found if not file.exists()]:
        raise NoInputError(
            f"{gone[0]} is a link to a file that is not there; restore the file, or remove the link."
        )
    return found


def open_points(folder: Path, config: IngestConfig) -> xr.Dataset:
    """Lazy Dataset of patterns (y, x, dy, dx) with `present`; 8 and 16 bit grey values are kept as
    they are.

    Raises DataError for names that do not match or repeat a scan point, and for a first image that
    is not grey; UsageError for `filenames` that cannot be meant. An image that is damaged or unlike
    the first is a DataError when it is read.
    """
    found = point_files(folder, config)
    steps, note = _steps(folder, [file.stem for file in found], config.filenames)
    grid = scan_grid(steps, str(folder), [file.name for file in found])
    with warnings.catch_warnings(action="error"):
        first = read_image(found[0])
    if first.ndim != 2:
        raise DataError(
            f"{found[0]} is in colour; expected one grey image of 8 or 16 bits, so convert it."
        )

    def read(i: int) -> np.ndarray:
        values = read_image(found[i])
        if values.shape != first.shape or values.dtype != first.dtype:
            here, there = (
                f"{'in colour, ' * (v.ndim > 2)}{_px(v.shape)}, {v.dtype}" for v in (values, first)
            )
            raise DataError(
                f"{found[i]} is {here}, the first image {there}; all images of a scan must agree."
            )
        return values

    units = config.units if config.step is not None else "step"
    patterns = lazy_array(one_by_one(read), grid.rows, first.shape, first.dtype)
    ds = scan_dataset(patterns, grid, (config.step, config.step), units, folder)
    if note:
        ds.attrs["notes"] = [note]
    return ds


def _steps(folder: Path, stems: list[str], filenames: str | None) -> tuple[np.ndarray, str]:
    """Step numbers [x, y] of each file name, and a note on how they were read.

    Raises DataError with the names that hold no step numbers.
    """
    note = ""
    remedy = "move other images away, or give a template: filenames='x{x}_y{y}'."
    if filenames is not None:
        pattern, rule = _pattern(filenames), f"filenames={filenames!r}"
        remedy = "correct the template so that it fits these names, or move other images away."
    elif _count_matches(LABELLED, stems) >= _count_matches(UNLABELLED, stems):
        pattern, rule = LABELLED, "x and y numbers (such as x12_y7)"
    else:
        pattern, rule = UNLABELLED, "y_x numbers at the end (such as 7_12)"
        note = "file names are read as y_x; if they mean x_y, give filenames='*{x}_{y}'."
    steps = [_place(pattern.search(stem)) for stem in stems]
    unmatched = [stem for stem, place in zip(stems, steps, strict=True) if place is None]
    if unmatched:
        names = ", ".join(map(repr, map(shortened, unmatched[:SHOWN])))
        if len(unmatched) > SHOWN:
            names += f" and {len(unmatched) - SHOWN} more"
        raise DataError(
            f"{folder}: {len(unmatched)} of {len(stems)} image names hold no scan point (whole step numbers) by "
            f"{rule}: {names}; {remedy}"
        )
    return np.array(steps, dtype=np.int64), note


def _count_matches(pattern: re.Pattern[str], stems: list[str]) -> int:
    return sum(pattern.search(stem) is not None for stem in stems)


def _place(match: re.Match[str] | None) -> tuple[int, int] | None:
    """The step numbers x and y of a name; None where it tells none."""
    named = match.groupdict() if match else {}
    texts = [str(named.get(axis) or named.get(f"{axis}2")) for axis in ("x", "y")]
    x, y = (int(text) if re.fullmatch(NUMBER, text) else LARGEST_STEP_NUMBER + 1 for text in texts)
    return (x, y) if max(abs(x), abs(y)) <= LARGEST_STEP_NUMBER else None


def _pattern(wanted: str) -> re.Pattern[str]:
    """A template or a regular expression, compiled. Raises UsageError unless it tells both x and y."""
    text = wanted
    if "(?P<" not in wanted:
        meaning = {"{x}": f"(?P<x>{NUMBER})", "{y}": f"(?P<y>{NUMBER})", "*": ".*?"}
        parts = re.split(r"(\{x\}|\{y\}|\*)", wanted)
        text = "^" + "".join(meaning.get(part, re.escape(part)) for part in parts) + "$"
    why = "does not tell both coordinates"
    try:
        compiled = re.compile(text)
        if {"x", "y"} <= set(compiled.groupindex):
            return compiled
    except re.error as error:
        why = f"cannot be read ({error})"
    raise UsageError(
        f"filenames={wanted!r} {why}; write a template with {{x}} and {{y}} once each, such as 'x{{x}}_y{{y}}', or a "
        "regular expression with the groups (?P<x>…) and (?P<y>…)."
    )
