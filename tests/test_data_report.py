"""What is told of the samples: classes, values, splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.data import random_patterns_dataset
from vaearr.run.facts import class_names, data_facts, data_lines
from vaearr.store import create_store, open_store

FLAGS = {"flag_values": [-1, 0, 1, 2], "flag_meanings": "unknown benign malignant normal"}


def _collection() -> xr.Dataset:
    ds = random_patterns_dataset({"sample": 8}, {"channel": 3, "y": 8, "x": 9}).drop_vars(["label", "subject"])
    ds["label"] = ("sample", np.array([0, 0, 1, 1, 1, -1, 0, 1], "i4"), FLAGS)
    ds["present"] = ("sample", np.arange(8) < 7)
    ds["roi"] = ("sample", np.ones(8, bool))
    ds["split"] = ("sample", np.array([1, 1, 1, 1, 2, 2, 0, 0], "i1"), {"flag_values": [0, 1, 2]})
    ds["split_b"] = ("sample", np.ones(8, "i1"), {"flag_values": [0, 1, 2]})
    ds = ds.assign_coords(
        subject=("sample", ["a", "a", "b", "c", "c", "c", "c", "z"]),
        site=("sample", ["here", "there"] * 4),
        scanner_kind=("sample", ["old", "new"] * 4),
        source_rows=("sample", np.arange(20, 28)),
        source_columns=("sample", np.full(8, 30)),
    )
    ds["patterns"].attrs.update(value_min=0.0, value_max=255.0, n_constant=1, n_masked=2)
    return ds


@pytest.mark.parametrize("is_stored", [False, True], ids=["in memory", "in a store"])
def test_a_collection(is_stored: bool, tmp_path: Path) -> None:
    ds = _collection()
    if is_stored:
        ds = open_store(create_store(ds, tmp_path / "a.zarr"), chunks=None)
    facts = json.loads(json.dumps(data_facts(ds)))
    assert facts == {
        "value_range": [0, 255],
        "n_constant": 1,
        "n_nonfinite": 2,
        "classes": {
            "label": {"unknown": 1, "benign": 3, "malignant": 3, "normal": 0},
            "scanner_kind": {"new": 3, "old": 4},
        },
        "splits": {
            "vae": {"train": 4, "validation": 2, "outside": 2},
            "b": {"train": 8, "validation": 0, "outside": 0},
        },
    }
    assert data_lines(facts, "images") == [
        "  values from 0 to 255, 1 constant images, 2 left out for NaN, infinite or too large values",
        "  label: unknown = 1, benign = 3, malignant = 3, normal = 0",
        "  scanner_kind: new = 3, old = 4",
        "  split of vae: 4 train, 2 validation, 2 outside",
        "  split of b: 8 train, 0 validation",
    ]


def test_a_scan() -> None:
    ds = random_patterns_dataset(missing=4, roi=True)
    facts = data_facts(ds)
    assert class_names(ds) == ["phase"]
    counts = facts["classes"]["phase"]
    assert sum(counts.values()) == 26
    assert "missing" not in counts
    assert facts["value_range"] is None
