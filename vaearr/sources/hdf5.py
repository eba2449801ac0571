"""Open an HDF5 file and its datasets safely: every refusal is one line that says what is there and
what to do.

Data in other files (external links, external storage, virtual datasets) is never read, and sizes
that a header claims are held against the size of the file before anything is read.
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

PLENTY, MAX_PACKED = 256 * 2**20, 100  # bytes above which a packed byte may stand for so many
MAX_DEPTH = 64  # groups in one another


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
    """Open for reading. Raises DataError or NoInputError in words where HDF5 itself refuses."""
    file = check_file(path)
    try:
        return h5py.File(file, mode)
    except PermissionError as error:
        raise NoInputError(
            f"{file} may not be read ({error.strerror or error}); change its permissions."
        ) from error
    except OSError as error:
        then = "close the program that writes it, or, if it is damaged, fetch it again from where it was written"
        raise DataError(
            f"{file} cannot be opened as HDF5 ({' '.join(str(error).split())}); {then}."
        ) from error


@contextmanager
def in_words(file: Path | str, kind: str) -> Iterator[None]:
    """What decoders raise for damaged files, which is anything, as one DataError; a NoInputError
    for one that is gone.

    What the system says itself, such as that a disk is full, stays as it is.
    """
    try:
        yield
    except VaearrError:
        raise
    except FileNotFoundError as error:
        raise NoInputError(f"{file} is gone; restore it, or open the source again.") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (
            None,
            errno.EINVAL,
        ):  # EINVAL: a place that is none
            raise
        cause = (
            error.__cause__ if isinstance(error, SystemError) and error.__cause__ else error
        )  # h5py's lock hides it
        told = str(cause).replace(f"{Path(file).parent}/", "") or type(cause).__name__
        reason = " ".join(told.split())[:200]
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
        names: list[str] = []
        file.visititems(
            lambda path, item: names.append(path) if isinstance(item, h5py.Dataset) else None
        )
        raise DataError(
            f"{file.filename} has no dataset {name!r} with values; choose one with {setting}=…"
            f"{did_you_mean(name, names)}"
        )
    if dataset.is_virtual or dataset.external:
        raise DataError(
            f"{where} has its values in other files; copy them into one file (h5repack)."
        )
    properties = dataset.id.get_create_plist()
    for i in range(properties.get_nfilters()):
        code, _, _, words = properties.get_filter(i)
        if not h5py.h5z.filter_avail(code):
            raise DataError(
                f"{where} is compressed with filter {code} "
                f"({words.decode(errors='replace') or 'unnamed'}), which this HDF5 lacks; rewrite "
                "it with 'h5repack -f GZIP=4', or import hdf5plugin first."
            )
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    refuse_bomb(Path(file.filename), declared, Path(file.filename).stat().st_size)
    return dataset


def refuse_outside_links(file: h5py.File) -> None:
    """Raise DataError where a link of the file leads into another file, or groups are nested too
    deeply.
    """

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
    """Raise DataError where a packed file declares far more bytes than it can be believed to hold."""
    if needed > max(PLENTY, MAX_PACKED * stored):
        raise DataError(
            f"{file} declares {needed} bytes, more than its {stored} packed bytes can be believed "
            "to hold; fetch it again, or unpack it first if that size is right."
        )
