"""Sets of small images in one file, IDX or NPZ, as a collection (sample[, channel], y, x) with `label`.

IDX (`train-images-idx3-ubyte`, also `.gz`): big-endian, (N, rows, columns); the labels are looked for beside it, under
the same name with `labels` and `idx1`. NPZ: images `x`, `images` or `data` with labels `y`, `labels` or `label`, or
`x_train`, `y_train`, `x_test`, `y_test`, put one after the other with the coordinate `part`; images (N, y, x),
(N, y, x, channel) or (N, channel, y, x). What is compressed is unpacked once, to a temporary file that vanishes with
the Dataset, so that memory stays flat.
"""

from __future__ import annotations

import errno
import gzip
import math
import re
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.sources.collection import LABEL, Entry, collection, label_variable
from vaearr.sources.hdf5 import check_file

IDX, NPZ = "idx", "npz"
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
IMAGES, LABELS = ("x", "images", "data"), ("y", "labels", "label")
PARTS = ("train", "val", "test")
MOST_CHANNELS = 4


@dataclass(frozen=True)
class Stack:
    """Images that lie one after the other, mapped from a file: (N, …)."""

    values: np.ndarray
    labels: np.ndarray | None
    part: str = ""


def sniff_idx(path: Path) -> int:
    """2: starts as IDX does, perhaps inside gzip; 0: anything else."""
    try:
        with _opened(path) as file:
            start = file.read(4)
            dims = [int.from_bytes(file.read(4), "big") for _ in range(start[3] if len(start) == 4 else 0)]
    except (OSError, EOFError, zlib.error):
        return 0
    is_idx = len(start) == 4 and start[:2] == b"\0\0" and start[2] in IDX_TYPES and 0 < start[3] <= 4
    return 2 * (is_idx and math.prod(dims) > 0)


def sniff_npz(path: Path) -> int:
    """2: a zip file with images under a name that is known; 1: another one of .npy files; 0: anything else."""
    with path.open("rb") as file:
        if file.read(4) != ZIP:
            return 0
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return 1 * (path.suffix.lower() == ".npz")
    return 2 if _pairs(names) else 1 * bool(names)


def idx_files(path: Path, config: IngestConfig) -> list[Path]:
    """The images and, where there is one, the file with their labels."""
    beside = _labels_beside(path)
    return [path] if beside is None else [path, beside]


def open_idx(path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None) -> xr.Dataset:
    """Lazy Dataset of the images of an IDX file and their labels. Raises DataError for files that do not fit."""
    file = check_file(path)
    images = _idx(file, scratch)
    if images.ndim != 3:
        what = "labels; give the file with the images" if images.ndim == 1 else f"an array of shape {images.shape}"
        raise DataError(f"{file} holds {what}; expected images (N, rows, columns).")
    beside = _labels_beside(file)
    labels = None if beside is None else _idx(beside, scratch)
    return _dataset(file, [Stack(images, _checked_labels(beside or file, labels, images))], config)


def _labels_beside(file: Path) -> Path | None:
    name = re.sub("images", "labels", file.name, count=1)
    for suffix in ("", ".gz"):
        other = file.with_name(re.sub(r"idx\d", "idx1", name).removesuffix(".gz") + suffix)
        if other != file and other.is_file():
            return other
    return None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        packed = raw.read(2) == GZIP
    with gzip.open(path) if packed else path.open("rb") as file:
        yield file  # type: ignore[misc]  # a gzip file reads bytes too


def _idx(file: Path, scratch: Path | None) -> np.ndarray:
    """The array of an IDX file, mapped. Raises DataError for a damaged one, or one of another size than it declares."""
    try:
        with _opened(file) as opened:
            start = opened.read(4)
            if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in IDX_TYPES:
                raise DataError(f"{file} is no IDX file: it starts with {start!r}.")
            shape = tuple(int.from_bytes(opened.read(4), "big") for _ in range(start[3]))
            dtype = np.dtype(IDX_TYPES[start[2]])
            if 0 in shape:
                raise DataError(f"{file} is empty: its shape is {shape}.")
            return _mapped(file, opened, shape, dtype, scratch)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file} is cut off or damaged ({error}); fetch it again.") from error


def _mapped(file: Path, opened: IO[bytes], shape: tuple[int, ...], dtype: np.dtype, scratch: Path | None) -> np.ndarray:
    """The rest of an open file as an array, through a temporary file; exactly as many bytes as the shape needs."""
    need, buffer = math.prod(shape) * dtype.itemsize, 2**20
    with tempfile.TemporaryFile(dir=scratch) as copy:
        left = need
        while left and (data := opened.read(min(buffer, left))):
            copy.write(data)
            left -= len(data)
        if left or opened.read(1):
            has = f"{need - left} bytes" if left else "more bytes"
            raise DataError(
                f"{file} declares an array {shape} of {dtype}, {need} bytes, but holds {has}; fetch it again."
            )
        copy.flush()
        return np.memmap(copy, dtype=dtype, mode="r", shape=shape)


def open_npz(path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None) -> xr.Dataset:
    """Lazy Dataset of the images of an NPZ file and their labels. Raises DataError for files that do not fit.

    Nothing is unpickled: arrays of Python objects are refused.
    """
    file = check_file(path)
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            pairs = _pairs(names)
            if not pairs:
                raise DataError(f"{file} holds {', '.join(names)}; expected images x (labels y) or x_train (y_train).")
            stacks = []
            for part, images, labels in pairs:
                values = _npy(file, archive, images, scratch)
                if values.ndim not in (3, 4) or values.dtype.kind not in "uif" or 0 in values.shape:
                    raise DataError(
                        f"{file}: {images!r} is {values.dtype} of shape {values.shape}; expected numbers (N, y, x), "
                        f"(N, y, x, channel) or (N, channel, y, x)."
                    )
                told = _npy(file, archive, labels, scratch) if labels else None
                stacks.append(Stack(values, _checked_labels(file, told, values), part))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError, RuntimeError) as error:
        raise DataError(f"{file} is cut off or damaged ({error}); fetch it again.") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the start of the file, which damaged directories name
            raise
        raise DataError(f"{file} is cut off or damaged ({error}); fetch it again.") from error
    return _dataset(file, stacks, config)


def _pairs(names: list[str]) -> list[tuple[str, str, str | None]]:
    """(part, name of the images, name of their labels or None) for all images that are known by their name."""
    found = []
    for part in PARTS:
        for x, y in zip(IMAGES, LABELS, strict=True):
            for images, labels in ((f"{x}_{part}", f"{y}_{part}"), (f"{part}_{x}", f"{part}_{y}")):
                if images in names:
                    found.append((part, images, labels if labels in names else None))
    if found:
        return found
    only = next((name for name in IMAGES if name in names), None)
    return [] if only is None else [("", only, next((name for name in LABELS if name in names), None))]


def _npy(file: Path, archive: zipfile.ZipFile, name: str, scratch: Path | None) -> np.ndarray:
    with archive.open(f"{name}.npy") as opened:
        try:
            version = np.lib.format.read_magic(opened)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(opened)
        except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
            raise DataError(f"{file}: {name!r} is no array ({error}); save it with numpy.savez.") from error
        if dtype.hasobject:
            raise DataError(f"{file}: {name!r} holds Python objects, which are never read; save plain numbers.")
        if 0 in shape:
            return np.empty(shape, dtype)
        values = _mapped(file, opened, shape[::-1] if fortran else shape, dtype, scratch)
        return values.T if fortran else values


def _checked_labels(file: Path, labels: np.ndarray | None, images: np.ndarray) -> np.ndarray | None:
    if labels is None:
        return None
    flat = labels.reshape(-1) if labels.shape == (len(images), 1) else labels
    if flat.shape != (len(images),) or flat.dtype.kind not in "uiUSb":
        raise DataError(
            f"{file}: the labels are {flat.dtype} of shape {flat.shape}; expected one whole number or word for each of "
            f"{len(images)} images."
        )
    return np.asarray(flat)


def _dataset(file: Path, stacks: list[Stack], config: IngestConfig | None) -> xr.Dataset:
    arrays = [_channels_first(file, stack.values) for stack in stacks]
    first = arrays[0]
    for stack, array in zip(stacks, arrays, strict=True):
        if array.shape[1:] != first.shape[1:] or array.dtype != first.dtype:
            raise DataError(
                f"{file}: the images of {stack.part!r} are {array.dtype} {array.shape[1:]}, those of "
                f"{stacks[0].part!r} {first.dtype} {first.shape[1:]}; all must agree."
            )
    starts = np.cumsum([0, *map(len, arrays)])

    def read(i: int) -> np.ndarray:
        which = int(np.searchsorted(starts, i, side="right")) - 1
        return np.asarray(arrays[which][i - starts[which]])

    found = [Entry(file, f"{s.part}{'/' if s.part else ''}{i}") for s in stacks for i in range(len(s.values))]
    signal = (n.Y, n.X) if first.ndim == 3 else (n.CHANNEL, n.Y, n.X)
    about = {"long_name": "image", "units": "1"}
    ds = collection(read, first.shape[1:], first.dtype, signal, found, attrs=about, source=file)
    if any(stack.labels is not None for stack in stacks):
        told = [_words(s.labels) if s.labels is not None else [None] * len(s.values) for s in stacks]
        ds[LABEL] = label_variable([label for part in told for label in part])
    if len(stacks) > 1:
        parts = [s.part for s in stacks for _ in range(len(s.values))]
        ds = ds.assign_coords(part=(n.SAMPLE, parts, {"long_name": "part of the file"}))
    return ds


def _words(labels: np.ndarray) -> list[str | None]:
    if labels.dtype.kind == "S":
        return [value.decode(errors="replace") for value in labels.tolist()]
    return [str(value) for value in labels.tolist()]


def _channels_first(file: Path, values: np.ndarray) -> np.ndarray:
    """(N, y, x) or (N, channel, y, x), as a view."""
    if values.ndim == 3:
        return values
    if values.shape[-1] <= MOST_CHANNELS:
        values = np.moveaxis(values, -1, 1)
    if values.shape[1] > MOST_CHANNELS:
        raise DataError(f"{file}: shape {values.shape} has no axis of at most {MOST_CHANNELS} channels.")
    return values[:, 0] if values.shape[1] == 1 else values
