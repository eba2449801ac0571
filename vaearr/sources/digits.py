"""Small images in one IDX or NPZ file as a collection (sample[, channel], y, x), in memory.

IDX (`train-images-idx3-ubyte`, also `.gz`): big-endian, (N, rows, columns); the labels are in the
same folder, under the same name with `labels` and `idx1`. NPZ: images `x` with labels `y`, or
`x_train`, `y_train`, `x_test`, `y_test`, concatenated with the coordinate `part`; images (N, y, x)
or (N, y, x, channel). `sklearn:digits` names the digits that come with scikit-learn.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from io import BufferedReader
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError, listed
from vaearr.sources.collection import LABEL, choose, collection
from vaearr.sources.hdf5 import check_file, in_words, refuse_bomb
from vaearr.sources.numpy_files import npz_names, read_npz
from vaearr.store.layout import pattern_chunks

IDX, NPZ = "idx", "npz"
BUNDLED = "sklearn:digits"  # name of the set that needs no file
GZIP = b"\x1f\x8b"
MAX_IDX_HEADER = 20  # bytes
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
PARTS = ("", "train", "val", "test")
MOST_CHANNELS = 4
Part = tuple[str, np.ndarray, np.ndarray | None]  # its name, its images, their labels


def sniff_idx(path: Path) -> bool:
    """Whether a file starts as IDX does, perhaps inside gzip."""
    try:
        with _opened(path) as file:
            return _idx_header(file.read(MAX_IDX_HEADER)) is not None
    except (OSError, EOFError, zlib.error):
        return False


def sniff_npz(path: Path) -> bool:
    """Whether a file is named .npz."""
    return path.suffix.lower() == ".npz"


def idx_files(path: Path, config: IngestConfig) -> list[Path]:
    """The images and, if it exists, the file with their labels."""
    name = path.name.removesuffix(".gz").replace("images", "labels", 1)
    name = re.sub(r"idx\d", "idx1", name)
    for labels in (path.with_name(name), path.with_name(f"{name}.gz")):
        if labels != path and labels.is_file():
            return [path, labels]
    return [path]


def open_idx(path: Path, config: IngestConfig) -> xr.Dataset:
    """Open the images of an IDX file and their labels. Raises DataError if they do not match."""
    images, *labels = [_read_idx(check_file(file)) for file in idx_files(path, config)]
    return _dataset(path, config, [("", images, labels[0] if labels else None)])


def open_npz(path: Path, config: IngestConfig) -> xr.Dataset:
    """Open the images of an NPZ file and their labels. Raises DataError if they do not match.

    Nothing is unpickled: arrays of Python objects are refused.
    """
    names = npz_names(path)
    parts: list[Part] = []
    for part in PARTS:
        images = f"x_{part}".rstrip("_")
        labels = f"y_{part}".rstrip("_")
        if images in names:
            classes = read_npz(path, labels) if labels in names else None
            parts.append((part, read_npz(path, images), classes))
    if not parts:
        raise DataError(
            f"{path} holds {listed(names)}; expected images x (labels y) or x_train (y_train)."
        )
    return _dataset(path, config, parts)


def open_bundled(path: Path, config: IngestConfig) -> xr.Dataset:
    """The digits that come with scikit-learn: 1 797 images of 8 x 8 pixels, labels 0 to 9."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return _dataset(path, config, [("", digits.images.astype(np.uint8), digits.target)])


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    """The file, unpacked as it is read where it is a gzip file."""
    with path.open("rb") as raw:
        is_packed = raw.read(2) == GZIP
    return gzip.open(path) if is_packed else path.open("rb")


def _idx_header(start: bytes) -> tuple[np.dtype, tuple[int, ...]] | None:
    """Dtype and shape of an IDX file that begins with these bytes; None where it is no IDX file."""
    if len(start) < 4 or start[:2] != b"\0\0":
        return None
    code, n_dims = start[2:4]
    end = 4 + 4 * n_dims
    if code not in IDX_TYPES or not 0 < n_dims <= 4 or len(start) < end:
        return None
    shape = tuple(np.frombuffer(start[4:end], ">u4").tolist())
    if 0 in shape:
        return None
    return np.dtype(IDX_TYPES[code]), shape


def _read_idx(file: Path) -> np.ndarray:
    """Read the array of an IDX file. Raises DataError unless it has the size that it declares."""
    with in_words(file, "IDX"), _opened(file) as opened:
        header = _idx_header(opened.read(MAX_IDX_HEADER))
        if header is None:
            raise DataError(f"{file} does not begin as an IDX file does; fetch it again.")
        dtype, shape = header
        needed = math.prod(shape) * dtype.itemsize
        refuse_bomb(file, needed, file.stat().st_size)
        opened.seek(4 + 4 * len(shape))
        content = opened.read(needed + 1)
    if len(content) != needed:
        size = "more" if len(content) > needed else f"only {len(content)}"
        raise DataError(
            f"{file} declares {dtype} of shape {shape}, {needed} bytes, but holds {size}; fetch it "
            "again."
        )
    return np.frombuffer(content, dtype).reshape(shape)


def _dataset(file: Path, config: IngestConfig, parts: list[Part]) -> xr.Dataset:
    import dask.array as da

    arrays: list[np.ndarray] = []
    tables: list[pd.DataFrame] = []
    for part, images, labels in parts:
        arrays.append(_channels_first(file, images))
        paths = [f"{part}/{i}".lstrip("/") for i in range(len(images))]
        names = _label_names(file, labels, len(images))
        tables.append(pd.DataFrame({n.PATH: paths, LABEL: names, "part": part}))
    if len({(array.shape[1:], array.dtype) for array in arrays}) > 1:
        shapes = ", ".join(f"{array.dtype} {array.shape[1:]}" for array in arrays)
        raise DataError(f"{file}: the images of its parts are {shapes}; all must agree.")
    samples = choose(pd.concat(tables, ignore_index=True), config, str(file))
    if len(parts) == 1:
        samples = samples.drop(columns="part")
    values = np.concatenate(arrays)[samples.index]
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    tile = pattern_chunks(values.shape[:1], values.shape[1:], values.dtype.itemsize)
    signal = (n.CHANNEL, n.Y, n.X)[-values.ndim + 1 :]
    lazy = da.from_array(values, chunks=tile, name=False)
    return collection(lazy, signal, samples, {"long_name": "image", "units": "1"})


def _label_names(file: Path, labels: np.ndarray | None, count: int) -> list[str]:
    """Labels as text. Raises DataError unless each image has a whole number or word."""
    if labels is None:
        return [""] * count
    if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "uiU":
        raise DataError(
            f"{file}: the labels are {labels.dtype} of shape {labels.shape}; expected a whole "
            f"number or a word for each of {count} images."
        )
    return list(labels.reshape(-1).astype(str).tolist())


def _channels_first(file: Path, values: np.ndarray) -> np.ndarray:
    """Images (N, y, x) or (N, channel, y, x), as a view. Raises DataError for other arrays."""
    if values.ndim == 4 and values.shape[-1] == 1:
        values = values[..., 0]
    is_colour = values.ndim == 4 and values.shape[-1] <= MOST_CHANNELS
    if values.dtype.kind not in "uif" or 0 in values.shape or not (values.ndim == 3 or is_colour):
        raise DataError(
            f"{file} holds {values.dtype} of shape {values.shape}; expected images (N, y, x) or "
            f"(N, y, x, channel) with at most {MOST_CHANNELS} channels."
        )
    return np.moveaxis(values, -1, 1) if is_colour else values
