"""What is told of the samples: classes, values, splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr

from tests.data import random_patterns_dataset
from vaearr.run.facts import in_words, store_facts
from vaearr.store import create_store

FLAGS = {"flag_values": [-1, 0, 1, 2], "flag_meanings": "unknown benign malignant normal"}


def _collection() -> xr.Dataset:
    ds = random_patterns_dataset({"sample": 8}, {"channel": 3, "y": 8, "x": 9}).drop_vars(
        ["label", "subject"]
    )
    ds["label"] = ("sample", np.array([0, 0, 1, 1, 1, -1, 0, 1], "i4"), FLAGS)
    ds["present"] = ("sample", np.arange(8) < 7)
    ds = ds.assign_coords(
        subject=("sample", ["a", "a", "b", "c", "c", "c", "c", "z"]),
        site=("sample", ["here", "there"] * 4),
        scanner_kind=("sample", ["old", "new"] * 4),
        source_rows=("sample", np.arange(20, 28)),
        source_columns=("sample", np.full(8, 30)),
    )
    ds["patterns"].attrs.update(value_min=0.0, value_max=255.0)
    return ds


def test_a_collection(tmp_path: Path) -> None:
    facts = json.loads(json.dumps(store_facts(create_store(_collection(), tmp_path / "a.zarr"))))
    assert facts["value_range"] == [0, 255]
    assert facts["classes"] == {
        "label": {"unknown": 1, "benign": 3, "malignant": 3, "normal": 0},
        "scanner_kind": {"new": 3, "old": 4},
    }
    words = in_words(facts)
    assert (
        "  values from 0 to 255\n  label: unknown = 1, benign = 3, malignant = 3, normal = 0\n"
        in words
    )
