"""Arrays in .npy and .npz files: sizes are checked before anything is unpacked, and nothing is unpickled."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from vaearr.errors import DataError
from vaearr.sources.hdf5 import check_file, in_words, refuse_bomb

KIND = "plain numbers"


def read_npy(path: str | Path) -> np.ndarray:
    """The array of a .npy file, mapped into memory. Raises DataError or NoInputError."""
    file = check_file(path)
    with in_words(file, KIND):
        return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def npz_names(path: str | Path) -> list[str]:
    """Names of the arrays in an .npz file. Raises DataError or NoInputError."""
    file = check_file(path)
    with in_words(file, KIND), zipfile.ZipFile(file) as archive:
        members = archive.namelist()
    return [name.removesuffix(".npy") for name in members if name.endswith(".npy")]


def read_npz(path: str | Path, name: str) -> np.ndarray:
    """One array of an .npz file. Raises DataError where its declared size cannot be true."""
    file = check_file(path)
    with in_words(file, KIND), zipfile.ZipFile(file) as archive:
        member = archive.getinfo(f"{name}.npy")
        refuse_bomb(file, member.file_size, member.compress_size)
        with archive.open(member) as opened:
            version = npy.read_magic(opened)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read_header(opened)
        declared = math.prod(shape) * dtype.itemsize
        if declared > member.file_size:
            raise DataError(
                f"{file}: array {name!r} declares {declared} bytes (shape {shape}), but has {member.file_size}; "
                "fetch the file again."
            )
        with archive.open(member) as opened:
            return np.asarray(npy.read_array(opened, allow_pickle=False))
