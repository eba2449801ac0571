"""Latents and maps that were computed elsewhere: read, placed, written, analysed like our own."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr.association import associate_store, targets_of
from vaearr.attaching import KINDS, attach
from vaearr.config import AssociateConfig
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError
from vaearr.info import in_words, store_facts
from vaearr.placing import place_in_order, place_points
from vaearr.provenance import nested
from vaearr.run.encode import encode
from vaearr.store import add_variables, create_store, open_store, run_manifest, run_names

from .data import random_patterns_dataset

NY, NX, L = 5, 6, 3


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


@pytest.fixture(scope="module")
def full() -> np.ndarray:
    """Latents of the full field, float32, NaN at two points."""
    values = np.random.default_rng(3).normal(size=(NY * NX, L)).astype("f4")
    values[[4, 17]] = np.nan
    return values


def _save(folder: Path, name: str, values: np.ndarray) -> Path:
    np.save(folder / name, values)
    return folder / name


def _points(scan: xr.Dataset, kind: str) -> np.ndarray:
    """All scan points in row-major order, [x, y]."""
    x, y = (scan["x_index"], scan["y_index"]) if kind == "steps" else (scan["x"], scan["y"])
    return np.stack([np.tile(x, NY), np.repeat(y, NX)], axis=1)


def test_full_field_with_nan_becomes_a_run(store: Path, full: np.ndarray, tmp_path: Path) -> None:
    file = _save(tmp_path, "z.npy", full)
    said: list[str] = []
    result = attach(store, file, run="foreign", say=said.append)
    ds = open_store(store)
    assert ds["latents_foreign"].dims == ("y", "x", "latent_foreign")
    assert ds["latents_foreign"].dtype == np.float32
    np.testing.assert_array_equal(ds["latents_foreign"].values, full.reshape(NY, NX, L))
    np.testing.assert_array_equal(ds["roi_foreign"].values, np.isfinite(full[:, 0]).reshape(NY, NX))
    made = nested(ds["latents_foreign"].attrs, "provenance")
    assert made["values"]["file"] == "z.npy"
    assert made["values"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert {"time", "versions", "placing"} <= set(made)
    manifest = run_manifest(store, "foreign")
    assert (manifest["kind"], manifest["n_roi"], manifest["latent_dim"]) == ("attached", 28, L)
    assert result.attrs["n_placed"] == NY * NX
    assert "30 of 30 rows placed by full field" in said[0]


def test_an_array_over_the_grid_is_the_full_field(store: Path, full: np.ndarray) -> None:
    attach(store, full.reshape(NY, NX, L), run="a")
    np.testing.assert_array_equal(open_store(store)["latents_a"].values, full.reshape(NY, NX, L))


def test_a_vector_of_the_region_fills_its_points(store: Path, scan: xr.Dataset) -> None:
    inside = scan["roi"].values
    values = np.arange(inside.sum(), dtype="f8")
    with pytest.raises(DataError, match=r"rows found, 30 expected .* roi='vae'"):
        attach(store, values, run="a")
    attach(store, values, run="a", roi="vae")
    got = open_store(store)["latents_a"].values[..., 0]
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got[inside], values)
    assert np.isnan(got[~inside]).all()
    attach(store, values, run="b", roi=scan["roi"])
    np.testing.assert_array_equal(open_store(store)["latents_b"].values[..., 0], got)


def test_a_wrong_length_names_both_numbers(store: Path, scan: xr.Dataset) -> None:
    n_roi = int(scan["roi"].sum())
    with pytest.raises(DataError, match=rf"7 rows found, expected 30 .* or {n_roi} "):
        attach(store, np.zeros(7), run="a", roi="vae")
    with pytest.raises(DataError, match=r"7 rows, .* has 6 points"):
        attach(store, np.zeros(7), coords=np.zeros((6, 2)), run="a")
    assert run_names(store) == []


@pytest.mark.parametrize("kind", ["steps", "coordinates"])
@pytest.mark.parametrize("form", ["npy", "csv", "array"])
def test_coordinates_place_rows_in_any_order(
    store: Path, scan: xr.Dataset, full: np.ndarray, tmp_path: Path, kind: str, form: str
) -> None:
    order = np.random.default_rng(0).permutation(NY * NX)[:20]
    points = _points(scan, kind)[order]
    coords: Any = points
    if form == "npy":
        coords = _save(tmp_path, "coords.npy", points)
    elif form == "csv":
        coords = tmp_path / "coords.csv"
        pd.DataFrame(points, columns=["x", "y"]).to_csv(coords, index=False)
    result = attach(store, full[order], coords=coords, run="a")
    expected = np.full_like(full, np.nan)
    expected[order] = full[order]
    np.testing.assert_array_equal(open_store(store)["latents_a"].values.reshape(-1, L), expected)
    assert result.attrs["read_as"] == kind
    assert result.attrs["n_missing"] == 10


def test_csv_with_prefixed_columns(store: Path, scan: xr.Dataset, tmp_path: Path) -> None:
    points = _points(scan, "steps")
    frame = pd.DataFrame({"x": points[:, 0], "y": points[:, 1], "note": np.arange(30)})
    for number in (10, 2, 7):
        frame[f"PCA_{number}"] = np.arange(30) + number / 100
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "z.csv", index=False)
    attach(store, tmp_path / "z.csv", run="pca")
    ds = open_store(store)
    assert ds["latent_pca"].values.tolist() == [2, 7, 10]
    np.testing.assert_allclose(ds["latents_pca"].values.reshape(-1, 3), np.arange(30)[:, None] + [0.02, 0.07, 0.1])
    frame["latent_0"] = 1.0
    frame.to_csv(tmp_path / "both.csv", index=False)
    with pytest.raises(UsageError, match="prefix="):
        attach(store, tmp_path / "both.csv", run="b")
    attach(store, tmp_path / "both.csv", run="b", prefix="latent_")
    assert open_store(store)["latents_b"].sizes["latent_b"] == 1
    attach(store, tmp_path / "both.csv", run="c", columns=["PCA_10", "note"])
    assert nested(open_store(store)["latents_c"].attrs, "provenance")["values"]["columns"] == ["PCA_10", "note"]


def test_a_unit_or_a_step_in_the_name_decides(store: Path, scan: xr.Dataset, tmp_path: Path) -> None:
    # x = 5, 6, 7 and y = 5, 6 um lie on the scan only as coordinates; 10, 12 as both steps and … not
    frame = pd.DataFrame({"X [um]": [5.0, 6.0, 7.0], "Y [um]": [5.0, 6.0, 7.0], "v": [1.0, 2.0, 3.0]})
    frame.to_csv(tmp_path / "um.csv", index=False)
    assert attach(store, tmp_path / "um.csv", kind="map", name="m").attrs["read_as"] == "coordinates"
    frame.columns = pd.Index(["x_index", "y_index", "v"])
    frame.to_csv(tmp_path / "steps.csv", index=False)
    with pytest.raises(DataError, match="none lies on the scan"):
        attach(store, tmp_path / "steps.csv", kind="map", name="m2")


def test_x_beside_step_numbers_is_a_coordinate_and_a_lone_capital_is_not(store: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame({"x_index": [10, 11], "y_index": [10, 10], "X": [5.0, 5.5], "Y": [5.0, 5.0], "v": [1.0, 2.0]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    attach(store, tmp_path / "a.csv", kind="map", name="m")
    assert open_store(store)["m"].values[0, :2].tolist() == [1.0, 2.0]
    frame = pd.DataFrame({"x": [10, 11], "y": [10, 10], "Y": [0.5, 0.6]})  # yttrium
    frame.to_csv(tmp_path / "b.csv", index=False)
    attach(store, tmp_path / "b.csv", kind="map", name="yttrium")
    np.testing.assert_allclose(open_store(store)["yttrium"].values[0, :2], [0.5, 0.6])


def test_points_that_fit_both_ways_are_not_guessed(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 8, "x": 8}, step=0.5)
    store = create_store(ds, tmp_path / "scan.zarr")
    points = np.array([[0, 0], [1, 1], [2, 3]])  # steps, or every other point in um
    with pytest.raises(UsageError, match="read_as='steps' or read_as='coordinates'"):
        attach(store, np.arange(3.0), coords=points, kind="map", name="m")
    attach(store, np.arange(3.0), coords=points, kind="map", name="m", read_as="steps")
    attach(store, np.arange(3.0), coords=points, kind="map", name="m2", read_as="coordinates")
    ds = open_store(store)
    assert float(ds["m"][3, 2]) == 2.0
    assert float(ds["m2"][6, 4]) == 2.0


def test_repeats_outside_and_nan_points(store: Path, scan: xr.Dataset) -> None:
    points = _points(scan, "steps")[:4].astype("f8")
    twice = points[[0, 1, 2, 0]]
    with pytest.raises(DataError, match="rows 0 and 3 are both the scan point x = 10, y = 10"):
        attach(store, np.zeros(4), coords=twice, run="a")
    with pytest.raises(DataError, match="row 1 is"):
        attach(store, np.zeros(4), coords=np.where(np.arange(4)[:, None] == 1, np.nan, points), run="a")
    with pytest.raises(DataError, match="none lies on the scan: they cover x 1010 to 1013"):
        attach(store, np.zeros(4), coords=points + np.array([1000, 0]), run="a")
    with pytest.raises(DataError, match=r"shape \(4, 3\); expected \(N, 2\)"):
        attach(store, np.zeros(4), coords=np.zeros((4, 3)), run="a")
    partly = np.where(np.arange(4)[:, None] == 3, 999, points)
    assert attach(store, np.arange(4.0), coords=partly, kind="map", name="m").attrs["n_outside"] == 1


def test_points_not_measured_or_outside_the_region_are_left_out(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 4, "x": 5}, missing=3, roi=True)
    store = create_store(ds, tmp_path / "scan.zarr")
    result = attach(store, np.arange(20.0), run="a")
    assert result.attrs["n_left_out"] == 3
    np.testing.assert_array_equal(open_store(store)["roi_a"].values, ds["present"].values)
    attach(store, np.arange(20.0), run="b", roi="vae")
    np.testing.assert_array_equal(open_store(store)["roi_b"].values, ds["roi"].values)


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


def test_elements_and_scores(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 3, "x": 4}).drop_vars(["elements", "element"])
    store = create_store(ds, tmp_path / "scan.zarr")
    points = [(x, y) for y in range(3) for x in range(4)]
    frame = pd.DataFrame(points, columns=["x", "y"]).assign(**{"Fe [wt%]": np.arange(12), "Ni (at%)": 1.0})
    frame.to_csv(tmp_path / "e.csv", index=False)
    attach(store, tmp_path / "e.csv", kind="elements", units="wt%", read_as="steps")
    attach(store, tmp_path / "e.csv", kind="elements", name="eds2", read_as="steps")
    attach(store, np.zeros((12, 2)), kind="scores", name="pca")
    got = open_store(store)
    assert got["elements"].dims == ("element", "y", "x")
    assert got["element"].values.tolist() == ["Fe", "Ni"]
    assert got["elements"].attrs["units"] == "wt%"
    assert got["eds2"].dims == ("eds2_element", "y", "x")
    assert got["pca"].dims == ("y", "x", "pca_component")
    with pytest.raises(DataError, match="names no elements"):
        attach(store, np.zeros((12, 2)), kind="elements", name="eds3")


def test_npz_and_what_cannot_be_read(store: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros(30), b=np.ones(30))
    with pytest.raises(UsageError, match="array="):
        attach(store, tmp_path / "two.npz", run="a")
    with pytest.raises(NoInputError, match="no array 'c'"):
        attach(store, tmp_path / "two.npz", run="a", array="c")
    attach(store, tmp_path / "two.npz", run="a", array="b")
    assert open_store(store)["latents_a"].values.min() == 1
    np.save(tmp_path / "o.npy", np.array([{}, 1], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"o\.npy cannot be read as plain numbers"):
        attach(store, tmp_path / "o.npy", run="b")
    (tmp_path / "cut.npy").write_bytes(_save(tmp_path, "whole.npy", np.zeros((30, 4))).read_bytes()[:300])
    with pytest.raises(DataError, match=r"cut\.npy cannot be read"):
        attach(store, tmp_path / "cut.npy", run="b")
    (tmp_path / "x.npz").write_bytes(b"no zip at all")
    with pytest.raises(DataError, match=r"x\.npz cannot be read"):
        attach(store, tmp_path / "x.npz", run="b")
    (tmp_path / "z.txt").write_text("1")
    with pytest.raises(UsageError, match=r"expected \.npy, \.npz or \.csv"):
        attach(store, tmp_path / "z.txt", run="b")
    with pytest.raises(NoInputError, match="does not exist"):
        attach(store, tmp_path / "none.npy", run="b")
    with pytest.raises(DataError, match="expected numbers"):
        attach(store, np.array(["a"] * 30), run="b")
    with pytest.raises(DataError, match="row 3 holds an infinite value"):
        attach(store, np.where(np.arange(30) == 3, np.inf, 0), run="b")
    with pytest.raises(DataError, match="no value for any"):
        attach(store, np.full(30, np.nan), run="b")
    with pytest.raises(DataError, match="has shape"):
        attach(store, np.zeros((30, 2, 2)), run="b")
    with pytest.raises(DataError, match="3 values for each point"):
        attach(store, np.zeros((30, 3)), kind="map", name="m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,v\n1,2\n", "no column for y"),
        ("x,y\n1,2\n", "no value column"),
        ("x,y,latent_0\n10,10,a\n", "'a' is not a number"),
    ],
)
def test_csv_refusals(store: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "z.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        attach(store, tmp_path / "z.csv", run="a")


def test_columns_that_are_not_there(store: Path, scan: xr.Dataset, tmp_path: Path) -> None:
    (tmp_path / "z.csv").write_text("x,y,latent_0\n10,10,1\n")
    with pytest.raises(NoInputError, match="Did you mean 'latent_0'"):
        attach(store, tmp_path / "z.csv", run="a", columns=["latent_1"])
    with pytest.raises(DataError, match="no value column PCA_…"):
        attach(store, tmp_path / "z.csv", run="a", prefix="PCA_")
    with pytest.raises(UsageError, match="give one of them"):
        attach(store, tmp_path / "z.csv", run="a", prefix="PCA_", columns=["latent_0"])
    with pytest.raises(UsageError, match="points of its own"):
        attach(store, tmp_path / "z.csv", run="a", coords=_points(scan, "steps"))
    with pytest.raises(UsageError, match="is not one"):
        attach(store, _save(tmp_path, "z.npy", np.zeros(30)), run="a", prefix="PCA_")


def test_names_that_are_taken_or_reserved(store: Path) -> None:
    attach(store, np.zeros(30), run="a")
    before = sorted(open_store(store).variables)
    with pytest.raises(ExistsError, match="'latents_a'"):
        attach(store, np.zeros(30), run="a")
    with pytest.raises(ExistsError, match="'BC'"):
        attach(store, np.zeros(30), kind="map", name="BC")
    for name in ("latents_c", "roi_c", "patterns", "elements"):
        with pytest.raises(UsageError, match="a meaning of its own"):
            attach(store, np.zeros(30), kind="map", name=name)
    with pytest.raises(UsageError, match="cannot be a variable name"):
        attach(store, np.zeros(30), kind="map", name="a-b")
    with pytest.raises(UsageError, match="cannot name a run"):
        attach(store, np.zeros(30), run="std")
    with pytest.raises(UsageError, match="give run="):
        attach(store, np.zeros(30), name="a")
    with pytest.raises(UsageError, match="give name="):
        attach(store, np.zeros(30), kind="map", run="a")
    with pytest.raises(UsageError, match="Did you mean 'map'"):
        attach(store, np.zeros(30), kind="maps", name="a")
    with pytest.raises(NoInputError, match="'vae'"):
        attach(store, np.zeros(30), run="c", roi="vaee")
    with pytest.raises(UsageError, match="read_as is"):
        attach(store, np.zeros(1), coords=np.zeros((1, 2)), run="c", read_as="um")  # type: ignore[arg-type]
    assert sorted(open_store(store).variables) == before
    assert set(KINDS) == {"latents", "map", "classes", "elements", "scores"}


def test_an_attached_run_is_associated_like_ours(store: Path, scan: xr.Dataset) -> None:
    latents = np.stack([scan["BC"].values.ravel(), np.random.default_rng(0).normal(size=30)], axis=1)
    attach(store, latents, run="foreign")
    config = AssociateConfig(run="foreign", targets=("BC",), metrics=("pearson",))
    table = associate_store(store, config)["association"]
    assert table.sel(metric="pearson", latent=0).item() == pytest.approx(1.0)
    again = associate_store(store, config)["association"]
    np.testing.assert_array_equal(again.values, table.values)
    assert "foreign: 2 latent dimensions of 30 scan points, attached" in in_words(store_facts(store))
    with pytest.raises(NoInputError, match="no network to encode with"):
        encode(store, run="foreign")


def test_a_collection_takes_rows_in_order(tmp_path: Path) -> None:
    store = create_store(random_patterns_dataset({"sample": 7}), tmp_path / "c.zarr")
    attach(store, np.arange(14.0).reshape(7, 2), run="a")
    assert open_store(store)["latents_a"].dims == ("sample", "latent_a")
    with pytest.raises(UsageError, match="a collection"):
        attach(store, np.zeros(7), coords=np.zeros((7, 2)), run="b")


def test_a_volume_takes_x_y_z(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"z": 2, "y": 3, "x": 4})
    store = create_store(ds, tmp_path / "v.zarr")
    z, y, x = (v.ravel() for v in np.meshgrid(range(2), range(3), range(4), indexing="ij"))
    frame = pd.DataFrame({"x_index": x, "y_index": y, "z_index": z, "v": np.arange(24.0)})
    frame.sample(frac=1, random_state=1).to_csv(tmp_path / "v.csv", index=False)
    attach(store, tmp_path / "v.csv", kind="map", name="m")
    np.testing.assert_array_equal(open_store(store)["m"].values.ravel(), np.arange(24.0))


def test_a_refused_map_leaves_the_store_as_it_was(store: Path) -> None:
    add_variables(store, xr.Dataset({"grains": (("y", "x"), np.zeros((NY, NX), "i2"))}))
    with pytest.raises(ExistsError):
        attach(store, np.zeros(30), kind="classes", name="grains")
    assert [p.name for p in store.parent.iterdir() if "staging" in p.name] == []


@given(
    st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.25, 1.0, 3.7]), st.integers(0, 9), st.booleans(),
    st.randoms(use_true_random=False),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_placing_inverts_the_coordinates(ny: int, nx: int, step: float, first: int, flip: bool, rnd: Any) -> None:
    sign = -1 if flip else 1
    x, y = (np.arange(first, first + size)[::sign] for size in (nx, ny))
    ds = xr.Dataset(
        {"patterns": (("y", "x", "dy"), np.zeros((ny, nx, 1)), {"navigation_dims": ["y", "x"], "signal_dims": ["dy"]})},
        coords={"x": x * step, "y": y * step, "x_index": ("x", x), "y_index": ("y", y)},
    )
    rows = list(range(nx * ny))
    rnd.shuffle(rows)
    steps = np.stack([np.tile(x, ny), np.repeat(y, nx)], axis=1)[rows]
    values = np.array(rows, "f8")
    for points, way in ((steps, "steps"), (steps * step * (1 + 1e-9), "coordinates")):
        placement = place_points(ds, points, read_as=way)  # type: ignore[arg-type]
        np.testing.assert_array_equal(placement.on_grid(values, np.nan).ravel(), np.arange(nx * ny))
        assert placement.n_missing == placement.n_outside == 0
    in_order = place_in_order(ds, nx * ny)
    np.testing.assert_array_equal(in_order.on_grid(values, np.nan).ravel(), values)


def _header(text: str, data: bytes = bytes(80)) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


def test_bundles_without_an_array(store: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as bundle:
        bundle.writestr("a.txt", "hello")
    with pytest.raises(DataError, match=r"'a\.txt' is no array"):
        attach(store, tmp_path / "a.npz", run="a")


def test_points_that_are_one_number(store: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"have shape \(\); expected \(N, 2\)"):
        attach(store, np.zeros(3), run="a", coords=_save(tmp_path, "p.npy", np.float64(1)))


@pytest.mark.parametrize("name", ["z", "x", "sample", "channel", "history", "model", "dz"])
def test_names_of_dims_and_parts_of_runs_are_no_maps(store: Path, name: str) -> None:
    with pytest.raises(UsageError, match="a meaning of its own"):
        attach(store, np.zeros(30), kind="map", name=name)


def test_a_class_without_a_word_keeps_its_number(store: Path) -> None:
    attach(store, np.arange(30) % 2, kind="classes", name="c", classes={0: "a b", 1: " "})
    attrs = open_store(store)["c"].attrs
    assert attrs["flag_meanings"].split() == ["no_value", "no_class", "a_b", "class_1"]
    assert len(attrs["flag_values"]) == 4
