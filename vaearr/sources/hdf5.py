"""Open an HDF5 file and its datasets safely, with error messages of one line.

Data in other files (external links, external storage, virtual datasets) is never read, and sizes
that a header declares are compared with the size of the file before anything is read.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from vaearr.errors import DataError, NoInputError, VaearrError, did_you_mean

PLENTY = 256 * 2**20  # bytes that any file may declare
MAX_RATIO = 100  # of declared to stored bytes, above that
MAX_DEPTH = 64  # of nested groups


def check_file(path: str | Path) -> Path:
    """The path of a readable, ordinary, non-empty file. Raises NoInputError or DataError."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise DataError(f"{file} is a folder; give a file.")
    if not file.exists():
        raise NoInputError(f"{file} does not exist; check the path.")
    if not file.is_file():
        raise DataError(f"{file} is not an ordinary file; copy the data into one.")
    if file.stat().st_size == 0:
        raise DataError(f"{file} is empty (0 bytes); fetch it again from where it was written.")
    return file


def open_hdf5(path: str | Path, mode: str = "r") -> h5py.File:
    """Open for reading. Raises DataError or NoInputError where that fails."""
    file = check_file(path)
    try:
        return h5py.File(file, mode)
    except PermissionError as error:
        raise NoInputError(
            f"{file} may not be read ({error.strerror or error}); change its permissions."
        ) from error
    except OSError as error:
        raise DataError(
            f"{file} cannot be opened as HDF5 ({' '.join(str(error).split())}); close the program "
            "that writes it, or, if it is damaged, fetch it again from where it was written."
        ) from error


@contextmanager
def in_words(file: Path | str, kind: str) -> Iterator[None]:
    """Turn any error of a decoder into a DataError, or a NoInputError for a file that is gone.

    Errors of the system, such as a full disk, are not changed.
    """
    try:
        yield
    except VaearrError:
        raise
    except FileNotFoundError as error:
        raise NoInputError(f"{file} is gone; restore it, or open the source again.") from error
    except Exception as error:
        is_of_system = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if is_of_system:
            raise
        cause: BaseException = error
        if isinstance(error, SystemError) and error.__cause__:
            cause = error.__cause__  # h5py's lock hides it
        message = str(cause).replace(f"{Path(file).parent}/", "") or type(cause).__name__
        reason = " ".join(message.split())[:200]
        raise DataError(
            f"{file} cannot be read as {kind} ({reason}); it is damaged, so fetch it again."
        ) from error


def find_dataset(file: h5py.File, name: str, setting: str) -> h5py.Dataset:
    """The dataset `name`, whose values all lie in this file.

    `refuse_outside_links` must have been called before. `setting` names the argument that chooses
    another dataset.
    """
    dataset = file.get(name)
    where = f"{file.filename}: dataset {name!r}"
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise DataError(
            f"{file.filename} has no dataset {name!r} with values; choose one with {setting}=…"
            f"{did_you_mean(name, _dataset_names(file))}"
        )
    if dataset.is_virtual or dataset.external:
        raise DataError(
            f"{where} has its values in other files; copy them into one file (h5repack)."
        )
    properties = dataset.id.get_create_plist()
    for i in range(properties.get_nfilters()):
        code, _, _, label = properties.get_filter(i)
        if not h5py.h5z.filter_avail(code):
            filter_name = label.decode(errors="replace") or "unnamed"
            raise DataError(
                f"{where} is compressed with filter {code} ({filter_name}), which this HDF5 lacks; "
                "rewrite it with 'h5repack -f GZIP=4', or import hdf5plugin first."
            )
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    refuse_bomb(Path(file.filename), declared, Path(file.filename).stat().st_size)
    return dataset


def _dataset_names(file: h5py.File) -> list[str]:
    names: list[str] = []

    def visit(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            names.append(path)

    file.visititems(visit)
    return names


def refuse_outside_links(file: h5py.File) -> None:
    """Raise DataError for a link into another file, and for groups that are nested too deeply."""

    def check(path: str, link: Any) -> None:
        where = f"{file.filename}: {path[:100]!r}"
        if isinstance(link, h5py.ExternalLink):
            raise DataError(
                f"{where} is a link to another file ({link.filename}); copy the data into one file."
            )
        if path.count("/") > MAX_DEPTH:
            raise DataError(
                f"{where} is nested more than {MAX_DEPTH} deep; copy the data into a flat file."
            )

    file.visititems_links(check)


def refuse_bomb(file: Path, needed: int, stored: int) -> None:
    """Raise DataError where a packed file declares far more bytes than it can plausibly hold."""
    if needed > max(PLENTY, MAX_RATIO * stored):
        raise DataError(
            f"{file} declares {needed} bytes, more than its {stored} packed bytes can be believed "
            "to hold; fetch it again, or unpack it first if that size is right."
        )
