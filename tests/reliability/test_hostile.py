"""Files made to do harm: nothing in them is run, no other file is read, what they claim is not believed."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import vaearr as va
from tests.reliability.conftest import Stage
from tests.reliability.jobs import STORE
from tests.reliability.test_kills import hashes
from vaearr.errors import DataError, VaearrError
from vaearr.store.verify import verify_store


@pytest.fixture
def store(stage: Stage, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stage(("files", "ingest", "train", "encode")) / STORE, tmp_path / STORE))


class Canary:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_pickles_are_not_run(store: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    before = hashes(store)
    for name in ("a.pt", "a.pth", "a.ckpt", "a.pkl", "a.safetensors"):
        torch.save({"state_dict": Canary(canary)}, tmp_path / name)
        with pytest.raises(VaearrError):
            va.train(store, run="b", config=_one_epoch(init=str(tmp_path / name)))
    np.save(tmp_path / "a.npy", np.array([Canary(canary)], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([Canary(canary)], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(VaearrError):
            va.attach(store, tmp_path / name, run="b")
        with pytest.raises(VaearrError):
            va.ingest(tmp_path / name, tmp_path / "new.zarr")
    assert not canary.exists()
    assert hashes(store) == before


def _one_epoch(**settings: Any) -> Any:
    from tests.reliability.jobs import TRAINING

    return TRAINING.replace(epochs=1, **settings)


def _listed(store: Path, key: str, about: dict[str, Any]) -> None:
    """Change the metadata of a variable where it is, and where it is listed."""
    root = json.loads((store / "zarr.json").read_bytes())
    root["consolidated_metadata"]["metadata"][key] = about
    (store / "zarr.json").write_text(json.dumps(root))
    (store / key / "zarr.json").write_text(json.dumps(about))


ABSURD: tuple[dict[str, Any], ...] = (
    {"shape": [10**12, 10**12]},
    {"shape": [-1, 35]},
    {"shape": "many"},
    {"data_type": "int32"},
    {"data_type": "nothing"},
    {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 0]}}},
    {"dimension_names": ["y", "y"]},
    {"node_type": "group"},
    {"codecs": [{"name": "nothing"}]},
)


def test_absurd_metadata(store: Path) -> None:
    about = json.loads((store / "BC" / "zarr.json").read_bytes())
    for change in ABSURD:
        _listed(store, "BC", about | change)
        began = time.monotonic()
        found = verify_store(store)
        assert time.monotonic() - began < 20, change
        assert "BC" in {item.variable for item in found.findings}, change


def _links(file: h5py.File, secret: Path) -> None:
    file["images"] = h5py.ExternalLink(str(secret), "/images")


def _storage(file: h5py.File, secret: Path) -> None:
    file.create_dataset("images", (6, 1, 4, 4), "u1", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout(shape=(6, 1, 4, 4), dtype="u1")
    layout[:] = h5py.VirtualSource(str(secret), "images", shape=(6, 1, 4, 4))
    file.create_virtual_dataset("images", layout)


def _claims(file: h5py.File, secret: Path) -> None:
    file.create_dataset("images", (10**6, 1, 800, 800), "u1", chunks=(1, 1, 800, 800), compression="gzip")


@pytest.mark.parametrize("build", [_links, _storage, _virtual, _claims])
def test_hdf5_that_leads_out_or_lies(build: Callable[[h5py.File, Path], None], tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["images"] = np.full((6, 1, 4, 4), 7, "u1")
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        build(file, secret)
        file["coords"] = np.stack([np.arange(6) % 3, np.arange(6) // 3], 1).astype("i4")
    before = hashes(tmp_path)
    with pytest.raises(DataError) as caught:
        va.ingest(tmp_path / "scan.h5", tmp_path / "scan.zarr")
    assert "\n" not in str(caught.value)
    assert hashes(tmp_path) == before


def _nifti_header(shape: tuple[int, ...], code: int = 2, bits: int = 8) -> bytes:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, code, bits)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352)
    struct.pack_into("<h", head, 254, 1)
    struct.pack_into("<12f", head, 280, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    head[344:348] = b"n+1\0"
    return bytes(head)


@pytest.mark.parametrize("shape", [(32767, 32767, 32767), (-5, 4, 4), (0, 4, 4)])
def test_nifti_that_lies(shape: tuple[int, ...], tmp_path: Path) -> None:
    data = _nifti_header(shape) + bytes(64)
    for name, content in (("a.nii", data), ("a.nii.gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            va.ingest(tmp_path / name, tmp_path / "a.zarr")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "a.zarr").exists()
