"""A folder of images, with its sub-folders, or a manifest of images, as a collection (sample[, channel], y, x).

png, jpg, jpeg, tif, tiff and bmp in any case; see `collection` for labels and manifests. Images of several sizes need
`size`; grey and colour among each other need `channels`. Files whose name is that of an image with the addition that
`masks` says (`*_mask*`: `a.png` and `a_mask.png`, `a_mask_1.png` …) are no samples: their union is the variable `mask`,
with `has_mask` where there was one.

A folder is taken for a collection where its sub-folders hold images, or where most names of images directly in it do
not hold two numbers; else for one image for each scan point (`point_images`). `format="images"` decides otherwise.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError, UsageError
from vaearr.sources.collection import (
    Entry,
    check_exists,
    collection,
    entries,
    examined,
    files_below,
    is_manifest,
    manifest_files,
    printable,
    refuse_bad,
    source_files,
)
from vaearr.sources.image_files import read_image, read_mask, refit, refit_mask
from vaearr.sources.lazy import lazy_array, one_by_one

ENGINE = "images"
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
MASK, HAS_MASK = "mask", "has_mask"
COLOURS = ("red", "green", "blue")
LOOKED_AT = 200  # names that decide what a folder is


def sniff(path: Path) -> int:
    """3: a folder with images that are no scan points, or a manifest of images; 1: other images; 0: anything else."""
    if path.is_file():
        return 3 * (is_manifest(path) and any(str(f).lower().endswith(SUFFIXES) for f in manifest_files(path)[:1]))
    if not path.is_dir():
        return 0
    some = list(itertools.islice(files_below(path, SUFFIXES), LOOKED_AT))
    if not some:
        return 0
    direct = [file.stem for file in some if file.parent == path]
    n_places = sum(len(re.findall(r"\d+", stem)) >= 2 for stem in direct)
    return 1 if direct and 2 * n_places >= len(direct) else 3


def files(path: Path, config: IngestConfig) -> list[Path]:
    """All files that the Dataset is made from."""
    return source_files(path, config, SUFFIXES)


@dataclass(frozen=True)
class Image:
    """A sample: its entry and its masks; what was seen of it: (y, x), channels, dtype."""

    entry: Entry
    masks: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Look:
    shape: tuple[int, int]
    n_channels: int
    dtype: np.dtype


def open_image_folder(
    path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None
) -> xr.Dataset:
    """Lazy Dataset of images (sample[, channel], y, x) with paths, labels and masks; 8 and 16 bits are kept.

    Raises DataError or NoInputError that names all files that cannot be used (see `read_image`), unless `skip_bad`;
    DataError for images that do not agree in channels, dtype or (without `size`) size; UsageError for settings that
    cannot be meant.
    """
    config = config or IngestConfig()
    folder = check_exists(Path(path).expanduser())
    if config.size is not None and len(config.size) != 2:
        raise UsageError(f"size {config.size} of images must be two numbers, (rows, columns).")
    found, alone = _with_masks(_all(folder, config), config)
    by_entry = {image.entry.name: image for image in found}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what Pillow only warns of: damaged headers, cut-off files
        kept, looks, bad = examined(
            [image.entry for image in found], lambda entry: _look(by_entry[entry.name], config), config
        )
    bad = [*bad, *(f"{printable(entry.name)}: a mask without its image" for entry in alone)]
    refuse_bad(bad, len(found) + len(alone), config, n_left=len(kept))
    size, n_channels, dtype = _agreed(folder, kept, looks, config)
    images = [by_entry[entry.name] for entry in kept]

    def read(i: int) -> np.ndarray:
        return refit(read_image(images[i].entry.file, config.channels), size, config.fit)

    signal = (n.Y, n.X) if n_channels == 1 else (n.CHANNEL, n.Y, n.X)
    shape = (*((n_channels,) if n_channels > 1 else ()), *size)
    attrs: dict[str, Any] = {"long_name": "image", "units": "1"}
    if any(look.shape != size for look in looks):
        attrs |= {"size": list(size), "fit": config.fit}
    ds = collection(read, shape, dtype, signal, kept, attrs=attrs, source=folder, bad=bad)
    if n_channels > 1:
        ds = ds.assign_coords({n.CHANNEL: list(COLOURS)})
    for name, axis in (("source_rows", 0), ("source_columns", 1)):
        values = np.array([look.shape[axis] for look in looks], np.int32)
        about = {"long_name": f"{name.removeprefix('source_')} of the file", "units": "px"}
        ds = ds.assign_coords({name: (n.SAMPLE, values, about)})
    return _masked(ds, images, size, config)


def _all(folder: Path, config: IngestConfig) -> list[Entry]:
    """Entries with those masks that lie beside the images of a manifest."""
    found = entries(folder, config, SUFFIXES)
    if not config.masks or (folder.is_dir() and config.manifest is None):
        return found
    named = {entry.file for entry in found}
    name = re.compile(translate(config.masks))
    beside = {
        file
        for place in sorted({entry.file.parent for entry in found})
        if place.is_dir()
        for file in place.iterdir()
        if file.suffix.lower() in SUFFIXES and name.match(file.stem)
    }
    stems = {(entry.file.parent, entry.file.stem) for entry in found}
    ours = [file for file in sorted(beside - named) if (file.parent, _of(file.stem, config.masks)) in stems]
    return [*found, *(Entry(file, file.name) for file in ours)]


def _of(stem: str, masks: str) -> str | None:
    """The name of the image that a mask belongs to; None for a file that is no mask."""
    match = re.fullmatch(f"(?s:(?P<image>.+?){translate(masks[1:])[4:-3]})", stem) if masks else None
    return match["image"] if match else None


def _with_masks(found: list[Entry], config: IngestConfig) -> tuple[list[Image], list[Entry]]:
    """The images with their masks, and the masks that have no image."""
    owners = [_of(entry.file.stem, config.masks) for entry in found]
    masks: dict[tuple[Path, str], list[Entry]] = {}
    for entry, owner in zip(found, owners, strict=True):
        if owner is not None:
            masks.setdefault((entry.file.parent, owner), []).append(entry)
    images = [
        Image(entry, tuple(mask.file for mask in masks.pop((entry.file.parent, entry.file.stem), ())))
        for entry, owner in zip(found, owners, strict=True)
        if owner is None
    ]
    return images, [entry for left in masks.values() for entry in left]


def _look(image: Image, config: IngestConfig) -> Look:
    values = read_image(image.entry.file, config.channels)
    if values.dtype.kind == "f" and config.nonfinite == "error" and not np.isfinite(values).all():
        raise DataError(f"{image.entry.file} has NaN or infinite values; correct it, or set nonfinite='mask'.")
    shape = (int(values.shape[-2]), int(values.shape[-1]))
    for file in image.masks:
        if (found := read_mask(file).shape) != shape:
            raise DataError(
                f"its mask {file.name} is {found[0]} x {found[1]} px, the image {shape[0]} x {shape[1]} px; they must "
                f"agree."
            )
    return Look(shape, 1 if values.ndim == 2 else len(values), values.dtype)


def _agreed(
    folder: Path, found: list[Entry], looks: list[Look], config: IngestConfig
) -> tuple[tuple[int, int], int, np.dtype]:
    """Size, channels and dtype of all images. Raises DataError where they differ."""
    if not looks:
        raise DataError(f"{folder} holds masks but no images; check the setting masks={config.masks!r}.")

    def one(values: list[Any], words: str, then: str) -> Any:
        counts = Counter(values).most_common()
        if len(counts) > 1:
            (most, many), (other, _) = counts[:2]
            odd = found[values.index(other)].name
            raise DataError(
                f"{folder}: the images differ in {words}: {most} in {many} of {len(values)}, but {other} in {odd}"
                f"{f' ({len(counts)} kinds)' if len(counts) > 2 else ''}; {then}."
            )
        return values[0]

    kinds = ["grey" if look.n_channels == 1 else "colour" for look in looks]
    one(kinds, "channels", "convert them with channels='grey' or 'colour' (--channels)")
    dtype = one([look.dtype for look in looks], "bits", "save them alike")
    if config.size is not None:
        size = (config.size[0], config.size[1])
    else:
        sizes = [f"{look.shape[0]} x {look.shape[1]} px" for look in looks]
        one(sizes, "size", "give one with size=(rows, columns) (--size ROWSxCOLUMNS)")
        size = looks[0].shape
    return size, looks[0].n_channels, dtype


def _masked(ds: xr.Dataset, images: list[Image], size: tuple[int, int], config: IngestConfig) -> xr.Dataset:
    """The Dataset with `mask` and `has_mask`, as far as any image has one; the masks are read when they are written."""
    has = np.array([bool(image.masks) for image in images])
    if not has.any():
        return ds

    def read(i: int) -> np.ndarray:
        union = np.zeros(size, bool)
        for file in images[i].masks:
            union |= refit_mask(read_mask(file), size, config.fit)
        return union

    data = lazy_array(one_by_one(read, size, np.dtype(bool)), np.arange(len(images)), size, np.dtype(bool))
    about = {"long_name": "mask", "flag_values": [0, 1], "flag_meanings": "outside inside"}
    new = {
        MASK: xr.Variable((n.SAMPLE, n.Y, n.X), data, about),
        HAS_MASK: xr.Variable(n.SAMPLE, has, {"long_name": "image has a mask"}),
    }
    if not has.all():
        ds.attrs["notes"] = [f"{int((~has).sum())} of {len(has)} images have no mask; 'has_mask' marks the others."]
    return ds.assign(new)
