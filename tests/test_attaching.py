"""Latents and maps that were computed elsewhere: read, placed, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data import random_patterns_dataset
from vaearr.analysis.association import targets_of
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError
from vaearr.ingestion.attaching import attach
from vaearr.ingestion.placing import place_in_order, place_points
from vaearr.store import create_store, open_store, run_names

NY, NX = 5, 6


@pytest.fixture(scope="module")
def scan() -> xr.Dataset:
    """A scan of 5 x 6 points, 0.5 um apart, whose step numbers begin at 10."""
    ds = random_patterns_dataset({"y": NY, "x": NX}, roi=True)
    steps = {d: np.arange(10, 10 + ds.sizes[d]) for d in ("y", "x")}
    return ds.assign_coords(
        x=("x", steps["x"] * 0.5, {"units": "um"}),
        y=("y", steps["y"] * 0.5, {"units": "um"}),
        x_index=("x", steps["x"]),
        y_index=("y", steps["y"]),
    )


@pytest.fixture
def store(scan: xr.Dataset, tmp_path: Path) -> Path:
    """The scan as a store; it has a region of interest."""
    return create_store(scan, tmp_path / "scan.zarr")


def test_classes_become_a_map_of_codes(store: Path) -> None:
    codes = np.arange(30.0) % 3 - 1
    codes[5] = np.nan
    attach(store, codes, kind="classes", name="grains", classes={0: "matrix phase"})
    one = open_store(store)["grains"]
    assert one.dtype == np.int16
    assert int(one.values.flat[5]) == -2
    assert one.attrs["flag_values"] == [-2, -1, 0, 1]
    assert one.attrs["flag_meanings"] == "no_value no_class matrix_phase class_1"
    labels = targets_of(open_store(store), ["grains"])["target"].values.tolist()
    assert labels == ["grains: matrix_phase", "grains: class_1"]
    with pytest.raises(DataError, match=r"row 1 holds 0\.5"):
        attach(store, np.where(np.arange(30) == 1, 0.5, 0), kind="classes", name="x2")
    with pytest.raises(DataError, match="row 2 holds -7"):
        attach(store, np.where(np.arange(30) == 2, -7, 0), kind="classes", name="x2")


@given(
    st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.25, 1.0, 3.7]), st.integers(0, 9), st.booleans(),
    st.randoms(use_true_random=False),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_placing_inverts_the_coordinates(
    ny: int, nx: int, step: float, first: int, flip: bool, rnd: Any
) -> None:
    sign = -1 if flip else 1
    x, y = (np.arange(first, first + size)[::sign] for size in (nx, ny))
    ds = xr.Dataset(
        {
            "patterns": (
                ("y", "x", "dy"),
                np.zeros((ny, nx, 1)),
                {"navigation_dims": ["y", "x"], "signal_dims": ["dy"]},
            )
        },
        coords={"x": x * step, "y": y * step, "x_index": ("x", x), "y_index": ("y", y)},
    )
    rows = list(range(nx * ny))
    rnd.shuffle(rows)
    steps = np.stack([np.tile(x, ny), np.repeat(y, nx)], axis=1)[rows]
    values = np.array(rows, "f8")
    for points, way in ((steps, "steps"), (steps * step * (1 + 1e-9), "coordinates")):
        placement = place_points(ds, points, read_as=way)  # type: ignore[arg-type]
        np.testing.assert_array_equal(placement.on_grid(values, np.nan).ravel(), np.arange(nx * ny))
        assert placement.counts()["n_missing"] == placement.counts()["n_outside"] == 0
    in_order = place_in_order(ds, nx * ny)
    np.testing.assert_array_equal(in_order.on_grid(values, np.nan).ravel(), values)


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a length": (
        {"values": np.zeros(7), "roi": "vae"},
        DataError,
        r"7 rows found, expected 30 .* or \d+ ",
    ),
    "points": ({"coords": np.zeros((6, 2))}, DataError, "30 rows, .* has 6 points"),
    "a point twice": (
        {"values": np.zeros(2), "coords": np.full((2, 2), 10)},
        DataError,
        "row 0 and row 1 are both",
    ),
    "a point of NaN": (
        {"values": np.zeros(1), "coords": np.array([[np.nan, 1]])},
        DataError,
        "row 0 is",
    ),
    "far points": (
        {"values": np.zeros(1), "coords": np.array([[999, 1]])},
        DataError,
        "none lies on the scan",
    ),
    "infinity": (
        {"values": np.where(np.arange(30) == 3, np.inf, 0)},
        DataError,
        "row 3 holds an infinite",
    ),
    "NaN only": ({"values": np.full(30, np.nan)}, DataError, "no value for any"),
    "two columns": (
        {"values": np.zeros((30, 2)), "kind": "map", "run": None, "name": "m"},
        DataError,
        "2 values",
    ),
    "a name": ({"kind": "map", "run": None, "name": "latents_c"}, UsageError, "reserved"),
    "a run": ({"run": "std"}, UsageError, "cannot name a run"),
    "none": ({"run": None}, UsageError, "give run="),
    "BC": (
        {"kind": "map", "run": None, "name": "BC"},
        ExistsError,
        "'BC'.* no result of this step",
    ),
    "a region": ({"roi": "b"}, NoInputError, "no region of interest of a run 'b'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(store: Path, case: str) -> None:
    given, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        attach(store, **{"values": np.zeros(30), "run": "a"} | given)
    assert run_names(store) == []


def test_what_cannot_be_read(store: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{}, 1], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"o.npy cannot be read as plain numbers"):
        attach(store, tmp_path / "o.npy", run="b")
    (tmp_path / "z.txt").write_text("1")
    with pytest.raises(UsageError, match=r"expected \.npy, \.csv or \.tsv"):
        attach(store, tmp_path / "z.txt", run="b")


def test_names_of_columns_say_what_they_are(tmp_path: Path) -> None:
    """Numbered columns of a prefix, in order of their numbers; where both readings of points fit,
    it is asked.
    """
    store = create_store(
        random_patterns_dataset({"y": 8, "x": 8}, step=0.5), tmp_path / "scan.zarr"
    )
    frame = pd.DataFrame(
        {"x": [0, 1, 2], "y": [0, 1, 3], "PCA_10": 0.1, "PCA_2": [1.0, 2.0, 3.0], "note": 1}
    )
    frame.to_csv(tmp_path / "z.csv", index=False)
    attach(store, tmp_path / "z.csv", run="own", read_as="steps")
    found = open_store(store)["latents_own"]
    assert found["latent_own"].values.tolist() == [2, 10]
    np.testing.assert_array_equal(found[3, 2], [3, 0.1])
    with pytest.raises(UsageError, match="read_as='steps' or read_as='coordinates'"):
        attach(store, tmp_path / "z.csv", run="z")
