"""Comparisons in the store: as they were, once, under a name of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from vaearr.artifacts import load_model
from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.layers import compare_layers, compare_pairs, keep_layers, pairs_of_masks, sample_of
from vaearr.provenance import nested
from vaearr.store import open_store, open_table


def test_kept_and_read_back(labelled: Path) -> None:
    ds, model = open_store(labelled, chunks=None), load_model(labelled)
    found = compare_pairs(model, pairs_of_masks(ds, "mask"), top=2)
    kept = keep_layers(labelled, "vae", found, about={"masked": "mask"})
    read = open_table(labelled, "vae", "layers")
    xr.testing.assert_equal(read, found)
    assert read.attrs["maps"] == found.attrs["maps"]
    assert nested(read.attrs, "provenance")["samples"] == {"masked": "mask"}
    assert nested(read.attrs, "provenance")["weights_sha256"]
    xr.testing.assert_equal(keep_layers(labelled, "vae", found, about={"masked": "mask"}), kept)
    assert "patterns" in open_store(labelled)


def test_another_comparison_needs_another_name(labelled: Path) -> None:
    ds, model = open_store(labelled, chunks=None), load_model(labelled)
    one, two, three = (sample_of(ds, i) for i in range(3))
    found = compare_layers(model, one, two)
    keep_layers(labelled, "vae", found)
    for other in (compare_layers(model, one, three), compare_layers(model, one, two, part="encoder")):
        with pytest.raises(ExistsError, match=r"already holds 'layers'.*another name"):
            keep_layers(labelled, "vae", other)
    keep_layers(labelled, "vae", compare_layers(model, one, three), name="second")
    for name, words in (
        ("history", "meaning of its own"),
        ("roi_b", "meaning of its own"),
        ("a b", "cannot be a name"),
    ):
        with pytest.raises(UsageError, match=words):
            keep_layers(labelled, "vae", found, name=name)
    with pytest.raises(NoInputError, match="no run 'other'"):
        keep_layers(labelled, "other", found)
