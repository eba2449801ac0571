"""Arrays in .npy files: nothing is unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaearr.sources.hdf5 import check_file, in_words

KIND = "plain numbers"


def read_npy(path: str | Path) -> np.ndarray:
    """The array of a .npy file, mapped into memory. Raises DataError or NoInputError."""
    file = check_file(path)
    with in_words(file, KIND):
        return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
