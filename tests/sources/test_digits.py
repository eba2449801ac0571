"""IDX and NPZ: all images and labels arrive, and what does not fit is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.sources.refusals import refused
from vaearr.sources import detect, open_source

CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}
DIGITS = np.random.default_rng(1).integers(0, 256, (40, 9, 8), dtype=np.uint8)
LABELS = (np.arange(40) % 3 * 4).astype(np.uint8)
COLOUR = np.stack([DIGITS, DIGITS // 2, DIGITS // 3], -1)


def idx(values: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return (
        bytes([0, 0, CODES[values.dtype.newbyteorder(">").str.lstrip("|")], values.ndim])
        + sizes
        + values.tobytes()
    )


def test_idx_refusals(tmp_path: Path) -> None:
    path, labels = tmp_path / "images", tmp_path / "labels"
    whole = idx(DIGITS)
    for data, match in (
        (
            whole[:-9],
            r"declares uint8 of shape \(40, 9, 8\), 2880 bytes, but holds only 2871; fetch it again",
        ),
        (whole + b"\0", "but holds more"),
        (gzip.compress(whole)[:-200], "cannot be read as IDX"),
    ):
        path.write_bytes(data)
        refused(path, match)
    path.write_bytes(whole)
    labels.write_bytes(idx(LABELS[:30]))
    refused(
        path,
        r"labels are uint8 of shape \(30,\); expected a whole number or a word for each of 40 images",
    )


@pytest.mark.parametrize(
    ("arrays", "images"),
    [
        ({"x": DIGITS[..., None], "y": LABELS[:, None]}, DIGITS),
        (
            {
                "x_test": DIGITS[30:],
                "y_test": LABELS[30:],
                "x_train": DIGITS[:30],
                "y_train": LABELS[:30],
            },
            DIGITS,
        ),
        ({"x": COLOUR, "y": LABELS}, np.moveaxis(COLOUR, -1, 1)),
    ],
    ids=["one channel", "parts", "colour"],
)
def test_npz(arrays: dict[str, np.ndarray], images: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    assert detect(path).format == "npz"
    ds = open_source(path)
    np.testing.assert_array_equal(ds.patterns, images)
    np.testing.assert_array_equal(ds.label, LABELS.astype(int) // 4)
    if len(arrays) > 2:
        assert ds.part.values.tolist() == ["train"] * 30 + ["test"] * 10


def test_npz_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays: dict[str, np.ndarray]
    for arrays, match in (
        ({"weights": LABELS}, r"holds weights; expected images x"),
        (
            {"x": np.array([{}, []], dtype=object)},
            "cannot be read as plain numbers .*Object arrays",
        ),
        ({"x": DIGITS, "y": LABELS[:-1]}, r"labels are uint8 of shape \(39,\)"),
        ({"x": DIGITS, "y": LABELS / 2}, "labels are float64"),
        ({"x_train": DIGITS, "x_test": DIGITS[:, :5]}, "uint8 .* uint8 .*; all must agree"),
        ({"x": np.zeros((2, 9, 8, 7))}, "with at most 4 channels"),
    ):
        np.savez(path, **arrays)  # type: ignore[arg-type]
        refused(path, match)
    np.savez(path, x=DIGITS)
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, "cannot be read as plain numbers")
