"""Where samples come from: files, points, classes, masks; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.layers import pairs_of_folders, pairs_of_labels, pairs_of_masks, sample_of
from vaearr.layers.samples import without
from vaearr.store import open_store


@pytest.fixture
def ds(labelled: Path) -> xr.Dataset:
    """The opened store."""
    return open_store(labelled, chunks=None)


@pytest.fixture
def folders(tmp_path: Path, images: np.ndarray) -> tuple[Path, Path]:
    """Two folders with three files of the same names each."""
    found = tmp_path / "positive", tmp_path / "negative"
    for k, folder in enumerate(found):
        folder.mkdir()
        for i in range(3):
            np.save(folder / f"img{i}.npy", images[2 * i + k])
        np.save(folder / "img0_mask.npy", images[0])
        (folder / "notes.txt").write_text("no image")
    return found


def test_samples_of_the_store_and_of_files(
    ds: xr.Dataset, folders: tuple[Path, Path], images: np.ndarray, scan_store: Path
) -> None:
    for given in (3, "3"):
        np.testing.assert_array_equal(sample_of(ds, given), ds["patterns"].values[3])
    file = folders[0] / "img1.npy"
    for path in (file, str(file)):
        np.testing.assert_array_equal(sample_of(ds, path), images[2])
    scan = open_store(scan_store, chunks=None)
    point = {"x": 1.0, "y": 2.0}
    for place in (point, "1:2"):
        np.testing.assert_array_equal(sample_of(scan, place), scan["patterns"].sel(point))
    with pytest.raises(NoInputError, match=r"none.png"):
        sample_of(ds, "none.png")
    with pytest.raises(UsageError, match="nothing at sample = 99"):
        sample_of(ds, "99")


def test_files_of_the_same_name(ds: xr.Dataset, folders: tuple[Path, Path], images: np.ndarray) -> None:
    pairs, alone = pairs_of_folders(ds, *folders)
    assert [pair.name for pair in pairs] == ["img0.npy", "img1.npy", "img2.npy"]
    assert alone == []
    for i, pair in enumerate(pairs):
        a, b = pair.read()
        np.testing.assert_array_equal(a, images[2 * i])
        np.testing.assert_array_equal(b, images[2 * i + 1])


def test_files_without_partner(ds: xr.Dataset, folders: tuple[Path, Path]) -> None:
    (folders[1] / "img2.npy").rename(folders[1] / "img9.npy")
    with pytest.raises(DataError, match=r"2 files have no partner.*img2\.npy, img9\.npy"):
        pairs_of_folders(ds, *folders)
    pairs, alone = pairs_of_folders(ds, *folders, skip_bad=True)
    assert len(pairs) == 2
    assert alone == ["img2.npy", "img9.npy"]
    empty = folders[0].parent / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="has its partner, of the same name"):
        pairs_of_folders(ds, folders[0], empty, skip_bad=True)
    with pytest.raises(NoInputError, match="no folder"):
        pairs_of_folders(ds, folders[0], empty / "none")


def test_classes_are_paired_by_chance_and_each_sample_once(ds: xr.Dataset) -> None:
    pairs = pairs_of_labels(ds, ["benign", "malignant"], seed=3)
    assert len(pairs) == 9
    numbers = np.array([[int(part) for part in pair.name.split()] for pair in pairs])
    assert (numbers[:, 0] < 10).all()
    assert (np.diff(numbers[:, 0]) > 0).all()
    assert sorted(numbers[:, 1]) == list(range(10, 19))
    a, b = pairs[0].read()
    np.testing.assert_array_equal(a, ds["patterns"].values[numbers[0, 0]])
    np.testing.assert_array_equal(b, ds["patterns"].values[numbers[0, 1]])
    assert [p.name for p in pairs_of_labels(ds, ["benign", "malignant"], seed=3)] == [p.name for p in pairs]
    assert [p.name for p in pairs_of_labels(ds, ["benign", "malignant"], seed=4)] != [p.name for p in pairs]
    assert len(pairs_of_labels(ds, ["benign", "malignant"], most=2)) == 2


def test_classes_that_are_not_there(ds: xr.Dataset) -> None:
    with pytest.raises(NoInputError, match=r"no variable of classes 'labels'. Did you mean 'label'"):
        pairs_of_labels(ds, ["benign", "malignant"], by="labels")
    with pytest.raises(UsageError, match=r"no class 'begnin'. Did you mean 'benign'"):
        pairs_of_labels(ds, ["begnin", "malignant"])
    with pytest.raises(UsageError, match="two different ones"):
        pairs_of_labels(ds, ["benign", "benign"])
    with pytest.raises(DataError, match="no sample of the store has label 'normal'"):
        pairs_of_labels(ds, ["benign", "normal"])
    with pytest.raises(UsageError, match="number of pairs is 0"):
        pairs_of_labels(ds, ["benign", "malignant"], most=0)


@pytest.mark.parametrize("outside", [False, True])
def test_samples_without_what_their_mask_covers(ds: xr.Dataset, outside: bool) -> None:
    pairs = pairs_of_masks(ds, "mask", fill=7, outside=outside)
    assert [pair.name for pair in pairs] == [str(i) for i in range(24 if outside else 6)]
    a, b = pairs[0].read()
    inside = ds["mask"].values[0] ^ outside
    np.testing.assert_array_equal(a, ds["patterns"].values[0])
    assert b.dtype == a.dtype
    assert (b[:, inside] == 7).all()
    np.testing.assert_array_equal(b[:, ~inside], a[:, ~inside])


def test_fill_with_the_mean_of_each_channel() -> None:
    sample = np.random.default_rng(0).random((2, 3, 4), dtype="f4")
    taken = np.zeros((3, 4), bool)
    taken[0] = True
    found = without(sample, taken, "mean")
    np.testing.assert_allclose(found[:, 0], np.repeat(sample.mean((1, 2))[:, None], 4, 1), rtol=1e-6)
    np.testing.assert_array_equal(found[:, 1:], sample[:, 1:])
    whole = without((sample * 200).astype("u1"), taken, "mean")
    assert whole.dtype == np.uint8


def test_masks_that_are_none(ds: xr.Dataset) -> None:
    with pytest.raises(NoInputError, match=r"no mask 'masks'. Did you mean 'mask'"):
        pairs_of_masks(ds, "masks")
    with pytest.raises(UsageError, match=r"'label' is int32 over .*; a mask is boolean over"):
        pairs_of_masks(ds, "label")
    with pytest.raises(UsageError, match="fill is 'zero'; give a number, or 'mean'"):
        pairs_of_masks(ds, "mask", fill="zero")
    for fill in (300, 0.5, np.nan):
        with pytest.raises(UsageError, match="which uint8 cannot hold"):
            pairs_of_masks(ds, "mask", fill=fill)
    with pytest.raises(DataError, match="no mask of 'mask' holds a pixel"):
        pairs_of_masks(ds.assign(mask=xr.zeros_like(ds["mask"])), "mask")
