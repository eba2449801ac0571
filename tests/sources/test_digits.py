"""IDX: all images and labels arrive, and what does not fit is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from tests.sources.refusals import refused

CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}
DIGITS = np.random.default_rng(1).integers(0, 256, (40, 9, 8), dtype=np.uint8)
LABELS = (np.arange(40) % 3 * 4).astype(np.uint8)


def idx(values: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, CODES[values.dtype.newbyteorder(">").str.lstrip("|")], values.ndim]) + sizes + values.tobytes()


def test_idx_refusals(tmp_path: Path) -> None:
    path, labels = tmp_path / "images", tmp_path / "labels"
    whole = idx(DIGITS)
    for data, match in (
        (whole[:-9], r"declares uint8 of shape \(40, 9, 8\), 2880 bytes, but holds only 2871; fetch it again"),
        (whole + b"\0", "but holds more"),
        (gzip.compress(whole)[:-200], "cannot be read as IDX"),
    ):
        path.write_bytes(data)
        refused(path, match)
    path.write_bytes(whole)
    labels.write_bytes(idx(LABELS[:30]))
    refused(path, r"labels are of shape \(30,\); expected one for each of 40")
