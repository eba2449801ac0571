"""Sets of small images in one file, IDX or NPZ, as a collection (sample[, channel], y, x) with `label`, in memory.

IDX (`train-images-idx3-ubyte`, also `.gz`): big-endian, (N, rows, columns); the labels are looked for beside it, under
the same name with `labels` and `idx1`. NPZ: images `x`, `images` or `data` with labels `y`, `labels` or `label`, or
`x_train`, `y_train`, `x_test`, `y_test`, put one after the other with the coordinate `part`; images (N, y, x),
(N, y, x, channel) or (N, channel, y, x).
"""

from __future__ import annotations

import gzip
import math
import re
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.sources.collection import LABEL, collection
from vaearr.sources.hdf5 import check_file, in_words
from vaearr.store.layout import pattern_chunks

IDX, NPZ = "idx", "npz"
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
IMAGES, LABELS = ("x", "images", "data"), ("y", "labels", "label")
PARTS = ("train", "val", "test")
MOST_CHANNELS = 4
Part = tuple[str, np.ndarray, np.ndarray | None]  # its name, its images, their labels


def sniff_idx(path: Path) -> int:
    """2: starts as IDX does, perhaps inside gzip; 0: anything else."""
    try:
        return 2 * (_idx_header(_unpacked(path, 20)) is not None)
    except (OSError, EOFError, zlib.error):
        return 0


def sniff_npz(path: Path) -> int:
    """2: a zip file with images under a name that is known; 1: another one of .npy files; 0: anything else."""
    with path.open("rb") as file:
        if file.read(4) != ZIP:
            return 0
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return 1 * (path.suffix.lower() == ".npz")
    arrays = [name.removesuffix(".npy") for name in names if name.endswith(".npy")]
    return 2 if _pairs(arrays) else 1 * bool(arrays)


def idx_files(path: Path, config: IngestConfig) -> list[Path]:
    """The images and, where there is one, the file with their labels."""
    name = re.sub(r"idx\d", "idx1", re.sub("images", "labels", path.name, count=1)).removesuffix(".gz")
    beside = [path.with_name(name + suffix) for suffix in ("", ".gz")]
    return [path, *[file for file in beside if file != path and file.is_file()][:1]]


def open_idx(path: Path, config: IngestConfig, *, scratch: Path | None = None) -> xr.Dataset:
    """Dataset of the images of an IDX file and their labels. Raises DataError for files that do not fit."""
    arrays = [_idx(check_file(file)) for file in idx_files(path, config)]
    return _dataset(path, [("", arrays[0], arrays[1] if arrays[1:] else None)])


def open_npz(path: Path, config: IngestConfig, *, scratch: Path | None = None) -> xr.Dataset:
    """Dataset of the images of an NPZ file and their labels. Raises DataError for files that do not fit.

    Nothing is unpickled: arrays of Python objects are refused.
    """
    with in_words(path, "NPZ"), check_file(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
        pairs, names = _pairs(archive.files), ", ".join(archive.files)
        parts = [(part, archive[images], archive[labels] if labels else None) for part, images, labels in pairs]
    if not parts:
        raise DataError(f"{path} holds {names}; expected images x (labels y) or x_train (y_train).")
    return _dataset(path, parts)


def _unpacked(path: Path, size: int = -1) -> bytes:
    with path.open("rb") as raw:
        is_packed = raw.read(2) == GZIP
    with gzip.open(path) if is_packed else path.open("rb") as file:
        return file.read(size)


def _idx_header(start: bytes) -> tuple[np.dtype, tuple[int, ...]] | None:
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in IDX_TYPES or not 0 < start[3] <= 4:
        return None
    shape = tuple(int.from_bytes(start[4 * i : 4 * i + 4], "big") for i in range(1, start[3] + 1))
    return (np.dtype(IDX_TYPES[start[2]]), shape) if math.prod(shape) else None


def _idx(file: Path) -> np.ndarray:
    """The array of an IDX file. Raises DataError for a damaged one, or one of another size than it declares."""
    with in_words(file, "IDX"):
        content = _unpacked(file)
    dtype, shape = _idx_header(content) or (np.dtype("u1"), ())
    start, need = 4 + 4 * len(shape), math.prod(shape) * dtype.itemsize
    if (has := len(content) - start) != need:
        raise DataError(f"{file} declares {dtype} of shape {shape}, {need} bytes, but holds {has}; fetch it again.")
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _pairs(names: Collection[str]) -> list[tuple[str, str, str | None]]:
    """(part, name of the images, name of their labels or None) for all images that are known by their name."""
    known = [
        (part, form.format(part=part, name=x), form.format(part=part, name=y))
        for part in PARTS
        for x, y in zip(IMAGES, LABELS, strict=True)
        for form in ("{name}_{part}", "{part}_{name}")
    ]
    found = [(part, x, y if y in names else None) for part, x, y in known if x in names]
    labels = next((name for name in LABELS if name in names), None)
    return found or [("", name, labels) for name in IMAGES if name in names][:1]


def _dataset(file: Path, parts: list[Part]) -> xr.Dataset:
    import dask.array as da

    arrays = [_channels_first(file, values) for _, values, _ in parts]
    if len({(array.shape[1:], array.dtype) for array in arrays}) > 1:
        told = ", ".join(f"{part!r} {v.dtype} {v.shape[1:]}" for (part, *_), v in zip(parts, arrays, strict=True))
        raise DataError(f"{file}: the parts' images are {told}; all must agree.")
    values = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    tile = pattern_chunks(values.shape[:1], values.shape[1:], values.dtype.itemsize)
    found = pd.DataFrame({"part": [part for part, images, _ in parts for _ in images]})
    found[n.PATH] = [f"{part}/{i}" if part else f"{i}" for part, images, _ in parts for i in range(len(images))]
    found[LABEL] = [label for _, images, labels in parts for label in _words(file, labels, len(images))]
    found = found if len(parts) > 1 else found.drop(columns="part")
    signal, about = (n.CHANNEL, n.Y, n.X)[-values.ndim + 1 :], {"long_name": "image", "units": "1"}
    return collection(da.from_array(values, chunks=tile, name=False), signal, found, about)


def _words(file: Path, labels: np.ndarray | None, count: int) -> list[str]:
    """Labels as text. Raises DataError where they are not one whole number or word for each image."""
    if labels is None:
        return [""] * count
    if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "uiUSb":
        raise DataError(
            f"{file}: the labels are {labels.dtype} of shape {labels.shape}; expected a whole number or a word for "
            f"each of {count} images."
        )
    flat = labels.reshape(-1)
    return list((np.char.decode(flat, errors="replace") if flat.dtype.kind == "S" else flat.astype(str)).tolist())


def _channels_first(file: Path, values: np.ndarray) -> np.ndarray:
    """Images (N, y, x) or (N, channel, y, x), as a view. Raises DataError for arrays that are none."""
    if values.ndim == 4 and values.shape[-1] <= MOST_CHANNELS:
        values = np.moveaxis(values, -1, 1)
    is_colour = values.ndim == 4 and values.shape[1] <= MOST_CHANNELS
    if values.dtype.kind not in "uif" or 0 in values.shape or not (values.ndim == 3 or is_colour):
        raise DataError(
            f"{file} holds {values.dtype} of shape {values.shape}; expected images (N, y, x), (N, y, x, channel) or "
            f"(N, channel, y, x) with at most {MOST_CHANNELS} channels."
        )
    return values[:, 0] if is_colour and values.shape[1] == 1 else values
