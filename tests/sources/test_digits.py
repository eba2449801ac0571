"""IDX and NPZ: all images and labels arrive, what does not fit is refused, and a collection is trained on."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sources.refusals import refused
from vaearr.categories import categories
from vaearr.ingestion import ingest
from vaearr.provenance import nested
from vaearr.sources import find_source, open_source

CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}
RNG = np.random.default_rng(1)
DIGITS = RNG.integers(0, 256, (40, 9, 8), dtype=np.uint8)
LABELS = (np.arange(40) % 3 * 4).astype(np.uint8)


def idx(values: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, CODES[values.dtype.newbyteorder(">").str.lstrip("|")], values.ndim]) + sizes + values.tobytes()


def write_idx(folder: Path, *, packed: bool = False) -> Path:
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    for path, values in ((images, DIGITS), (labels, LABELS)):
        if packed:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(idx(values)))
        else:
            path.write_bytes(idx(values))
    return images.with_name(f"{images.name}.gz") if packed else images


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_idx(packed: bool, tmp_path: Path) -> None:
    path = write_idx(tmp_path, packed=packed)
    assert find_source(path) == "idx"
    ds = open_source(path)
    assert ds.patterns.dims == ("sample", "y", "x")
    np.testing.assert_array_equal(ds.patterns, DIGITS)
    np.testing.assert_array_equal(ds.patterns[3:9:2, 1:, 2], DIGITS[3:9:2, 1:, 2])
    assert categories(ds.label) == {0: "0", 1: "4", 2: "8"}
    np.testing.assert_array_equal(ds.label, LABELS // 4)
    stored = ingest(path, tmp_path / "a.zarr")
    np.testing.assert_array_equal(stored.patterns, DIGITS)
    used = [file for file in tmp_path.iterdir() if file.is_file() and "idx" in file.name]
    assert nested(stored.attrs, "provenance")["source"]["bytes"] == sum(file.stat().st_size for file in used)


@settings(max_examples=20, deadline=None)
@given(dtype=st.sampled_from(sorted(CODES)), shape=st.tuples(*[st.integers(1, 6)] * 3))
def test_idx_of_any_type(tmp_path_factory: pytest.TempPathFactory, dtype: str, shape: tuple[int, int, int]) -> None:
    path = tmp_path_factory.mktemp("idx") / "images"
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    path.write_bytes(idx(values))
    ds = open_source(path)
    np.testing.assert_array_equal(ds.patterns, values)
    assert ds.patterns.dtype == np.dtype(dtype).newbyteorder("=")
    assert "label" not in ds


def test_idx_refusals(tmp_path: Path) -> None:
    path = write_idx(tmp_path)
    whole = path.read_bytes()
    labels = tmp_path / "train-labels-idx1-ubyte"
    refused(labels, "holds uint8 of shape .40,.; expected images")
    path.write_bytes(whole[:-9])
    refused(path, r"declares uint8 of shape \(40, 9, 8\), 2880 bytes, but holds 2871; fetch it again")
    path.write_bytes(whole + b"\0")
    refused(path, "but holds 2881")
    path.write_bytes(whole)
    labels.write_bytes(idx(LABELS[:30]))
    refused(path, r"labels are uint8 of shape \(30,\); expected a whole number or a word for each of 40 images")
    packed = write_idx(tmp_path, packed=True)
    packed.write_bytes(packed.read_bytes()[:-200])
    refused(packed, "cannot be read as IDX")


NPZ: dict[str, dict[str, np.ndarray]] = {
    "plain": {"x": DIGITS, "y": LABELS},
    "channels_last": {"images": DIGITS[..., None], "labels": LABELS[:, None]},
    "channels_first": {"x": DIGITS[:, None], "y": LABELS},
    "parts": {"x_test": DIGITS[30:], "y_test": LABELS[30:], "x_train": DIGITS[:30], "y_train": LABELS[:30]},
    "parts_named_first": {"train_images": DIGITS[:30], "train_labels": LABELS[:30], "test_images": DIGITS[30:]},
    "fortran": {"x": np.asfortranarray(DIGITS), "y": LABELS.astype(str)},
}


@pytest.mark.parametrize("name", NPZ)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_npz(name: str, save: Any, tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    save(path, **NPZ[name])
    assert find_source(path) == "npz"
    ds = open_source(path)
    np.testing.assert_array_equal(ds.patterns, DIGITS)
    known = LABELS // 4 if name != "parts_named_first" else np.where(np.arange(40) < 30, LABELS.astype(int) // 4, -1)
    np.testing.assert_array_equal(ds.label, known)
    if "parts" in name:
        assert ds.part.values.tolist() == ["train"] * 30 + ["test"] * 10


def test_npz_colour(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.stack([DIGITS, DIGITS // 2, DIGITS // 3], -1))
    ds = open_source(tmp_path / "a.npz")
    assert ds.patterns.dims == ("sample", "channel", "y", "x")
    np.testing.assert_array_equal(ds.patterns[:, 1], DIGITS // 2)


def test_npz_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for arrays, match in (
        ({"weights": LABELS}, r"holds weights\.npy; expected images x"),
        ({"x": np.array([{}, []], dtype=object)}, "cannot be read as NPZ .*Python objects"),
        ({"x": LABELS}, r"holds uint8 of shape \(40,\); expected images \(N, y, x\)"),
        ({"x": DIGITS, "y": LABELS[:-1]}, r"labels are uint8 of shape \(39,\)"),
        ({"x": DIGITS, "y": LABELS / 2}, "labels are float64"),
        ({"x_train": DIGITS, "x_test": DIGITS[:, :5]}, "images of 'test' are uint8 .*all must agree"),
        ({"x": np.zeros((2, 9, 8, 7))}, "with at most 4 channels"),
    ):
        np.savez(path, **arrays)
        refused(path, match)
    np.savez(path, x=DIGITS)
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, "cannot be read as NPZ")
