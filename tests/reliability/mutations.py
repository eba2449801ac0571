"""Damaged files, read in a process of their own: for each, what came of it.

A damaged file is a whole one with bits flipped, bytes replaced, a part cut off the end, left out,
or copied elsewhere. What comes of it: `error` (one of ours, in one line), `same` (the values of the
whole file), `silent` (other values and no error), `raw` (an error that is not ours), `memory`. A
crash and a hang are seen from outside.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import xarray as xr
from PIL import Image

from tests.contract.test_orientation_files import write_ang
from tests.reliability.jobs import contents
from vaearr.errors import DataError, VaearrError
from vaearr.ingestion.attaching import side_map
from vaearr.ingestion.ingest import ingest
from vaearr.models.artifacts import load_folder
from vaearr.models.tensors import read_tensors, write_tensors
from vaearr.sources import open_source
from vaearr.sources.orientation_maps import read_orientation_map
from vaearr.store.verify import verify_store
from vaearr.testing import write_scan_files

from ..data import random_patterns_dataset

SECONDS = 60  # that one file may take, on a machine with other work too
NAVIGATION = {"y": 6, "x": 7}
RNG_VALUES = np.random.default_rng(3)


def digest(ds: xr.Dataset) -> str:
    """Checksum over names, shapes, types and values of all variables."""
    seal = hashlib.sha256()
    for name in sorted(map(str, ds.variables)):
        values = np.asarray(ds[name].values)
        plain = values.tobytes() if values.dtype.kind in "iufb" else repr(values.tolist()).encode()
        seal.update(f"{name} {values.shape} {values.dtype}".encode() + plain)
    return seal.hexdigest()


def _scan() -> xr.Dataset:
    return random_patterns_dataset(NAVIGATION, {"dy": 8, "dx": 9})


def _source(path: Path) -> str:
    with open_source(path) as ds:
        return digest(ds)


def _ingested(path: Path) -> str:
    """Like `_source`, by way of a store; a refusal must leave nothing of it."""
    store = path.parent / "out.zarr"
    shutil.rmtree(store, ignore_errors=True)
    try:
        ds = ingest(path.parent if path.suffix in (".png", ".tif") else path, store)
        return digest(ds.drop_vars("present"))
    except Exception:
        left = {item.name for item in path.parent.iterdir()} - {path.name, ".out.zarr.lock"}
        assert not left, f"{left} are left behind"
        raise
    finally:
        shutil.rmtree(store, ignore_errors=True)


def _h5(path: Path) -> None:
    scan = _scan()
    images = scan.patterns.values.reshape(-1, 1, 8, 9)
    coords = np.stack(np.meshgrid(np.arange(6), np.arange(7), indexing="ij")[::-1], -1).reshape(
        -1, 2
    )
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images)
        file.create_dataset("coords", data=coords.astype("i4"))


def _table(variable: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        shutil.copy(write_scan_files(_scan(), path.parent / "files")[variable], path)
        shutil.rmtree(path.parent / "files")

    return make


def _side(read: Callable[[Path], xr.DataArray]) -> Callable[[Path], str]:
    return lambda path: digest(read(path).to_dataset(name="read"))


def _volume(path: Path) -> None:
    values = RNG_VALUES.integers(0, 900, (6, 7, 8)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2, 3, 1])), path)


def _picture(path: Path) -> None:
    Image.fromarray(RNG_VALUES.integers(0, 60000, (24, 20)).astype(np.uint16)).save(path)


def _folder(path: Path) -> str:
    return _source(path.parent)


def _checkpoint(path: Path) -> None:
    import torch

    torch.manual_seed(0)
    tensors = {
        "weights.a": torch.randn(40, 7),
        "weights.b": torch.randn(3),
        "optimizer.0.step": torch.tensor(3.0),
    }
    write_tensors(
        path, tensors, {"format": 1, "about": {"settings": {"epochs": 3}}, "state": {"epoch": 2}}
    )


def _checkpoint_read(path: Path) -> str:
    tensors, header = read_tensors(path)
    plain = {key: value.numpy().tolist() for key, value in tensors.items()}
    return repr((sorted(plain.items()), header))


def _model_read(path: Path) -> str:
    model = load_folder(path.parent)
    return hashlib.sha256(model.encode(np.ones((2, 8, 9), np.uint8)).tobytes()).hexdigest()


def _store_read(path: Path) -> str:
    """The file's own bytes, so that damage that `verify` does not find is silent; so are other
    values of a chunk.
    """
    store = next(parent for parent in path.parents if parent.suffix == ".zarr")
    found = verify_store(store).findings
    if not found:
        content = path.read_bytes()
        if (
            path == store / "zarr.json"
        ):  # other programs may write its attributes; /runs has those of the store
            content = json.dumps(
                {**json.loads(content), "attributes": None}, sort_keys=True
            ).encode()
        return hashlib.sha256(content).hexdigest()
    if "c" in path.relative_to(store).parts:
        try:
            now = contents(store)
        except Exception as error:  # any error is what we want: zarr has many kinds
            raise DataError(str(found[0])) from error
        if now != _whole(store.with_name("whole.zarr")):
            return "the chunk is read as other values"
    raise DataError(str(found[0]))


@cache
def _whole(store: Path) -> dict[str, Any]:
    return contents(store)


@dataclass(frozen=True)
class Format:
    """Files, by a name or pattern: how a whole one is made, how it is read, whether damage must not
    pass in silence.
    """

    name: str
    make: Callable[[Path], None] | None
    read: Callable[[Path], str]
    is_sealed: bool = False
    is_source: bool = False


FORMATS: dict[str, Format] = {
    "hdf5": Format("scan.h5", _h5, _source, is_source=True),
    "csv of a map": Format("bc.csv", _table("BC"), _side(lambda p: side_map(_scan(), p, "BC"))),
    "csv of elements": Format(
        "e.csv", _table("elements"), _side(lambda p: side_map(_scan(), p, "elements"))
    ),
    "nii.gz": Format("a.nii.gz", _volume, _source, is_sealed=True, is_source=True),
    "png": Format("a.png", _picture, _folder, is_sealed=True, is_source=True),
    "tiff": Format("a.tif", _picture, _folder, is_source=True),
    "ang": Format(
        "a.ang",
        lambda p: write_ang(p) and None,
        lambda p: digest(xr.Dataset(read_orientation_map(p))),
    ),
    "checkpoint": Format("checkpoint.safetensors", _checkpoint, _checkpoint_read, is_sealed=True),
    "weights": Format("weights.safetensors", None, _model_read, is_sealed=True),
    "model config": Format("config.json", None, _model_read),
    "chunks of a store": Format("scan.zarr/**/c/**/*", None, _store_read, is_sealed=True),
    "metadata of a store": Format("scan.zarr/**/zarr.json", None, _store_read, is_sealed=True),
}


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with one kind of damage, drawn at random."""
    raw, size = bytearray(data), len(data)
    at = int(rng.integers(size))
    match int(rng.integers(4)):
        case 0:
            raw[at] ^= 1 << int(rng.integers(8))
        case 1:
            return bytes(raw[:at])
        case 2:  # a part stands where another was
            start = int(rng.integers(size))
            part = raw[start : start + int(rng.integers(1, 200))]
            raw[at : at + len(part)] = part
        case _:  # several
            for place in rng.integers(size, size=int(rng.integers(2, 20))):
                raw[int(place)] = int(rng.integers(256))
    return bytes(raw)


def outcome(read: Callable[[], str], whole: str) -> tuple[str, str]:
    """What came of it, and the error's words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as at work
            return ("same" if read() == whole else "silent"), ""
    except VaearrError as error:
        return ("error" if "\n" not in str(error) else "raw"), str(error)[:300]
    except MemoryError as error:
        return "memory", repr(error)
    except Exception as error:
        return "raw", f"{type(error).__name__}: {error}"[:300]


def fuzz(folder: Path, *, format: str, count: int, seed: int) -> list[tuple[str, str]]:
    """What came of reading so many damaged files; `at` in the folder is the number of the one that
    is read.
    """
    kind = FORMATS[format]
    if kind.make is not None:
        kind.make(folder / "in" / kind.name)
    paths = sorted(path for path in (folder / "in").glob(kind.name) if path.is_file())
    told = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        path = paths[int(rng.integers(len(paths)))]
        read = _ingested if kind.is_source and i % 4 == 0 else kind.read
        good, whole = path.read_bytes(), read(path)
        (folder / "at").write_text(str(i))
        signal.alarm(SECONDS)
        path.write_bytes(damaged(good, rng))
        found, words = outcome(lambda read=read, path=path: read(path), whole)
        is_damaged = path.read_bytes() != good
        told.append(
            (
                found if is_damaged or found not in ("error", "same") else "same",
                f"{path.name}: {words}",
            )
        )
        path.write_bytes(good)
    signal.alarm(0)
    return told


JOBS: dict[str, Callable[..., Any]] = {"fuzz": fuzz}
