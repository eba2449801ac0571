"""Arrays in .npy and .npz files: sizes are checked before anything is unpacked, and nothing is
unpickled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
    with (
        in_words(file, KIND),
        file.open("rb") as opened,
        np.load(opened, allow_pickle=False) as archive,
    ):
        return list(archive.files)


def read_npz(path: str | Path, name: str) -> np.ndarray:
    """One array of an .npz file. Raises DataError where its declared size cannot be true."""
    file = check_file(path)
    with (
        in_words(file, KIND),
        file.open("rb") as opened,
        np.load(opened, allow_pickle=False) as archive,
    ):
        member = archive.zip.getinfo(f"{name}.npy")
        refuse_bomb(file, member.file_size, member.compress_size)
        return np.asarray(archive[name])
