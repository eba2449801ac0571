"""What is told of the samples: classes, groups, sizes, masks, splits, files left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from vaearr.data_report import class_names, class_of_each, data_facts, data_lines
from vaearr.ingestion import ingest
from vaearr.run.train import train
from vaearr.store import create_store, open_store

from .conftest import TINY_TRAINING
from .data import random_patterns_dataset

FLAGS = {"flag_values": [-1, 0, 1, 2], "flag_meanings": "unknown benign malignant normal"}


def _collection() -> xr.Dataset:
    ds = random_patterns_dataset({"sample": 8}, {"channel": 3, "y": 8, "x": 9}).drop_vars(["label", "subject"])
    ds["label"] = ("sample", np.array([0, 0, 1, 1, 1, -1, 0, 1], "i4"), FLAGS)
    ds["present"] = ("sample", np.arange(8) < 7)
    ds["has_mask"] = ("sample", np.array([1, 1, 1, 0, 0, 0, 0, 1], bool))
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
    return ds.assign_attrs(skipped=["x.png: empty", "y.png: no image"])


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
        "groups": {"subject": 3, "site": 2},
        "file_sizes": {"rows": [20, 27], "columns": [30, 30]},
        "n_masks": 4,
        "n_without_mask": 4,
        "splits": {
            "vae": {"train": 4, "validation": 2, "outside": 2},
            "b": {"train": 8, "validation": 0, "outside": 0},
        },
        "skipped": ["x.png: empty", "y.png: no image"],
    }
    assert data_lines(facts, "images") == [
        "  values from 0 to 255, 1 constant images, 2 left out for NaN, infinite or too large values",
        "  files of 20 to 27 rows, 30 columns",
        "  label: unknown = 1, benign = 3, malignant = 3, normal = 0",
        "  scanner_kind: new = 3, old = 4",
        "  site: 2 different",
        "  subject: 3 different",
        "  masks: 4 images with one, 4 without",
        "  left out by ingestion: 2, the first x.png: empty",
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
    assert not facts["groups"]
    assert facts["n_masks"] is None


def test_names_of_files_are_no_classes() -> None:
    ds = random_patterns_dataset({"sample": 50})
    assert class_names(ds) == ["label"]
    codes, known = class_of_each(ds, "label")
    assert [known[code] for code in codes] == ds["label"].values.tolist()
    assert class_names(ds.assign_coords(path=("sample", ["one.gz"] * 50))) == ["label"]


def test_many_classes_are_cut_in_words() -> None:
    ds = random_patterns_dataset({"sample": 40}).drop_vars("label")
    codes = np.arange(40, dtype="i4") % 20
    ds["label"] = ("sample", codes, {"flag_values": list(range(20)), "flag_meanings": [f"k{i}" for i in range(20)]})
    line = next(line for line in data_lines(data_facts(ds), "images") if "label" in line)
    assert line.endswith("k11 = 2 and 8 more")


def test_a_trained_store_tells_its_split(trained_store: Path) -> None:
    train(trained_store, run="b", config=TINY_TRAINING)
    facts = data_facts(open_store(trained_store, chunks=None))
    assert set(facts["splits"]) == {"vae", "b"}
    assert all(parts["train"] > parts["validation"] > 0 for parts in facts["splits"].values())


def test_files_that_ingestion_left_out(tmp_path: Path) -> None:
    from PIL import Image

    from vaearr.config import IngestConfig

    folder = tmp_path / "images"
    for name, number in (("cat", 3), ("dog", 2)):
        (folder / name).mkdir(parents=True)
        for i in range(number):
            pixels = np.random.default_rng(i).integers(0, 255, (9, 10), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    (folder / "cat" / "bad.png").write_bytes(b"no image")
    facts = data_facts(ingest(folder, tmp_path / "a.zarr", config=IngestConfig(skip_bad=True)))
    assert facts["classes"] == {"label": {"cat": 3, "dog": 2}}
    assert len(facts["skipped"]) == 1
    assert "bad.png" in facts["skipped"][0]
