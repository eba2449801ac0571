"""The sheet of samples: a row for each class, a seeded choice, for images, volumes and scans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from vaearr.errors import NoInputError, UsageError
from vaearr.views.samples import data_sheet

from ..data import random_patterns_dataset


def _rows(figure: Any) -> list[str]:
    return [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]


def _titles(figure: Any) -> list[str]:
    return [ax.get_title() for ax in figure.axes]


def _images(n_samples: int = 30, **signal: int) -> xr.Dataset:
    ds = random_patterns_dataset({"sample": n_samples}, signal or {"y": 8, "x": 9}).drop_vars("label")
    flags = {"flag_values": [-1, 0, 1], "flag_meanings": "unknown benign malignant"}
    ds["label"] = ("sample", np.repeat([0, 1, -1], (n_samples - 8, 3, 5)).astype("i4"), flags)
    return ds


@pytest.mark.parametrize(
    "signal",
    [{"y": 8, "x": 9}, {"channel": 3, "y": 8, "x": 9}, {"z": 4, "y": 8, "x": 9}],
    ids=["grey", "colour", "volumes"],
)
def test_a_row_for_each_class(signal: dict[str, int]) -> None:
    ds = _images(**signal)
    figure = data_sheet(ds, columns=4)
    assert _rows(figure) == ["unknown\n5", "benign\n22", "malignant\n3"]
    assert len(figure.axes) == 4 + 4 + 3
    numbers = [int(title) for title in _titles(figure)]
    labels = ds["label"].values[numbers].tolist()
    assert labels == [-1] * 4 + [0] * 4 + [1] * 3
    assert ("middle slices" in figure.get_suptitle()) == ("z" in signal)


def test_the_pixels_are_those_of_the_samples() -> None:
    ds = _images()
    figure = data_sheet(ds, columns=3)
    for ax in figure.axes:
        raw = ds["patterns"].values[int(ax.get_title())].astype("f4")
        shown = np.asarray(ax.images[0].get_array(), "f4")
        low, high = np.percentile(raw, (0.5, 99.5))
        np.testing.assert_allclose(shown, np.clip((raw - low) / (high - low), 0, 1), atol=1e-5)


def test_the_choice_is_seeded() -> None:
    ds = _images(60)
    assert _titles(data_sheet(ds, seed=1)) == _titles(data_sheet(ds, seed=1)) != _titles(data_sheet(ds, seed=2))


def test_without_classes() -> None:
    ds = random_patterns_dataset({"sample": 7}, missing=2).drop_vars("label")
    figure = data_sheet(ds, columns=4)
    shown = [int(title) for title in _titles(figure)]
    assert shown == np.flatnonzero(ds["present"].values).tolist()
    assert figure.get_suptitle() == "images"


def test_a_scan_by_phase() -> None:
    figure = data_sheet(random_patterns_dataset({"y": 9, "x": 8}, missing=3), columns=5)
    assert [row.split("\n")[0] for row in _rows(figure)] == ["not indexed", "fcc", "bcc"]
    assert figure.get_suptitle() == "scan points by phase at x, y in µm"
    assert all("," in title for title in _titles(figure))


def test_the_outline_of_a_mask() -> None:
    ds = _images()
    mask = np.zeros((30, 8, 9), bool)
    mask[:22, 2:5, 3:6] = True
    ds["mask"] = (("sample", "y", "x"), mask)
    figure = data_sheet(ds, columns=4)
    n_outlines = [len(ax.collections) for ax in figure.axes]
    assert n_outlines == [0] * 4 + [1] * 4 + [0] * 3


def test_of_many_classes_the_first_are_shown() -> None:
    ds = random_patterns_dataset({"sample": 30}).drop_vars("label")
    ds["label"] = ("sample", (np.arange(30) % 15).astype("i4"), {"flag_values": list(range(15))})
    figure = data_sheet(ds, columns=2)
    assert len(_rows(figure)) == 12
    assert figure.get_suptitle() == "images by label, 12 of 15 classes"


def test_refusals() -> None:
    ds = _images()
    with pytest.raises(NoInputError, match=r"no variable of classes 'lable'.*label"):
        data_sheet(ds, by="lable")
    with pytest.raises(UsageError, match="columns is 0"):
        data_sheet(ds, columns=0)
    ds["present"] = ("sample", np.zeros(30, bool))
    with pytest.raises(NoInputError, match="none of the images can be used"):
        data_sheet(ds)
    with pytest.raises(NoInputError, match="no sample has a class of 'label'"):
        data_sheet(
            ds.assign(present=("sample", np.ones(30, bool)), label=ds["label"].copy(data=np.full(30, 7))), by="label"
        )
