"""Samples, their latents and classes, read as they are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import NoInputError, UsageError
from vaearr.exploration.points import (
    all_vectors,
    classes_if_any,
    classes_of,
    dimensions,
    open_encoded,
    point_coords,
    pooled,
    some_rows,
)
from vaearr.store import create_store
from vaearr.testing import random_patterns_dataset


def test_the_package_is_an_attribute() -> None:
    assert va.explore.traverse.__module__ == "vaearr.exploration.traversals"
    assert "explore" in dir(va)


def test_known_samples_in_row_major_order(scan_path: Path, scan_ds: xr.Dataset) -> None:
    encoded = open_encoded(scan_path, "vae")
    numbers, values = all_vectors(encoded)
    flat = scan_ds["latents"].values.reshape(-1, 3)
    known = np.flatnonzero(np.isfinite(flat).all(1))
    np.testing.assert_array_equal(numbers, known)
    np.testing.assert_allclose(values, flat[known])
    coords = point_coords(encoded, numbers[:5])
    np.testing.assert_array_equal(coords["x"][1], scan_ds["x"].values[known[:5] % 35])


def test_a_seeded_choice_has_the_rows_of_its_numbers(scan_path: Path, scan_ds: xr.Dataset) -> None:
    numbers, rows, total = some_rows(open_encoded(scan_path, "vae"), 50, 3)
    assert len(numbers) == 50 < total
    np.testing.assert_allclose(rows, scan_ds["latents"].values.reshape(-1, 3)[numbers])
    np.testing.assert_array_equal(numbers, some_rows(open_encoded(scan_path, "vae"), 50, 3)[0])
    assert set(numbers) != set(some_rows(open_encoded(scan_path, "vae"), 50, 4)[0])


def test_pooling_leaves_out_what_is_missing() -> None:
    rows = np.array([[[[1.0, np.nan], [3.0, 5.0]], [[np.nan] * 2] * 2]])
    np.testing.assert_array_equal(pooled(rows), [[3.0, np.nan]])


def test_classes_of_codes_texts_and_booleans() -> None:
    scan = random_patterns_dataset({"y": 5, "x": 6}, roi=True)
    found = classes_of(scan, None)
    assert (found.by, found.names) == ("phase", ["fcc", "bcc"])
    np.testing.assert_array_equal(found.codes, np.maximum(scan["phase"].values.ravel(), -1))
    by_roi = classes_of(scan, "roi")
    np.testing.assert_array_equal(by_roi.codes == by_roi.names.index("True"), scan["roi"].values.ravel())
    images = random_patterns_dataset({"sample": 30})
    labels = classes_of(images, None)
    assert [labels.names[i] for i in labels.codes] == images["label"].values.tolist()


def test_no_classes_where_none_are_asked_for() -> None:
    images = random_patterns_dataset({"sample": 30}).drop_vars("label")
    assert classes_if_any(images, None) is None
    found = classes_if_any(images, "path")
    assert found is not None
    assert len(found.names) == 30


def test_refusals(scan_path: Path, scan_store: Path) -> None:
    scan = random_patterns_dataset()
    with pytest.raises(NoInputError, match=r"no map or coordinate 'phas'\. Did you mean 'phase'"):
        classes_of(scan, "phas")
    with pytest.raises(UsageError, match=r"'BC' .* does not hold one class"):
        classes_of(scan, "BC")
    with pytest.raises(NoInputError, match="none of label, phase, clusters"):
        classes_of(scan.drop_vars("phase"), None)
    for wrong in ([], [3], [-1], [0, 0], [True], [0.5]):
        with pytest.raises(UsageError, match="different whole numbers from 0 to 2"):
            dimensions(wrong, 3)  # type: ignore[arg-type]
    with pytest.raises(NoInputError, match="no run 'other'"):
        open_encoded(scan_path, "other")
    with pytest.raises(NoInputError, match="no run"):
        open_encoded(scan_store, "vae")
    with pytest.raises(UsageError, match="max_points is 1"):
        some_rows(open_encoded(scan_path, "vae"), 1, 0)


@pytest.mark.parametrize("view", ["activations", "health", "pairs", "embedding", "latent_pca"])
def test_a_seed_below_0_is_refused(scan_path: Path, view: str) -> None:
    with pytest.raises(UsageError, match="seed is -1"):
        getattr(va.explore, view)(scan_path, seed=-1)


def test_a_sample_that_lacks_one_latent_is_not_known(tmp_path: Path) -> None:
    path = create_store(random_patterns_dataset({"y": 4, "x": 5}), tmp_path / "scan.zarr")
    values = np.random.default_rng(2).normal(size=(20, 3)).astype("f4")
    values[7, 1] = np.nan
    va.attach(path, values, run="own")
    numbers, vectors = all_vectors(open_encoded(path, "own"))
    np.testing.assert_array_equal(numbers, np.delete(np.arange(20), 7))
    np.testing.assert_allclose(vectors, np.delete(values, 7, axis=0))
    assert np.isfinite(va.explore.histograms(path, "own")["edges"]).all()


@pytest.mark.parametrize("view", ["prototypes", "traverse", "manifold"])
def test_attached_latents_do_not_decode(attached_path: Path, view: str) -> None:
    with pytest.raises(NoInputError, match="no network to decode with"):
        getattr(va.explore, view)(attached_path, "own")
