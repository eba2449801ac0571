"""A store among xarray's other arrays: plain copies, crops, added variables, netCDF, and Datasets
as sources.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr as plain_zarr

import vaearr as va

from . import inputs
from .harness import BAD_DATA, EXISTS, TINY, tree, vaearr, zarr

pytestmark = [
    pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part"),
    pytest.mark.filterwarnings("ignore:Object at model is not recognized"),
]
TRAIN = ("--epochs", 1, "--set", "batch_size=64", *TINY)


def _add_by_xarray(store: Path, name: str = "mine") -> None:
    """A variable of one's own, by plain xarray: what replaces the root's attributes."""
    (xr.open_zarr(store).BC * 2).rename(name).drop_attrs().to_dataset().to_zarr(store, mode="a")


# chunks and copies


def test_chunks_are_those_that_dask_reads(scan_store: Path) -> None:
    ds = xr.open_zarr(scan_store)
    assert (
        ds.patterns.data.npartitions == 1
    )  # 22 x 17 patterns of 20 x 20: one tile of at most 32 x 32
    metadata = json.loads((scan_store / "patterns" / "zarr.json").read_text())
    assert "sharding" not in json.dumps(metadata["codecs"])
    assert len([file for file in (scan_store / "patterns" / "c").rglob("*") if file.is_file()]) == 1


def store_id(store: Path) -> str:
    return str(va.open_store(store).attrs["store_id"])


def test_plain_copy_is_a_store_of_its_own(scan_store: Path, tmp_path: Path) -> None:
    copy, ds = tmp_path / "copy.zarr", xr.open_zarr(scan_store)
    ds.to_zarr(copy)
    xr.testing.assert_equal(xr.open_zarr(copy), ds)
    assert "scan of 17 y x 22 x" in vaearr("info", copy).out
    vaearr("verify", copy)
    vaearr("train", copy, *TRAIN)
    assert store_id(copy) != store_id(scan_store)
    vaearr("encode", copy)
    assert "is intact" in vaearr("verify", copy).out


def test_patterns_as_a_dask_table(scan_store: Path) -> None:
    pytest.importorskip("pyarrow", reason="dask's tables need pyarrow")
    frame = (
        xr.open_zarr(scan_store)[["patterns"]].isel(dy=slice(2), dx=slice(2)).to_dask_dataframe()
    )
    assert len(frame) == inputs.NX * inputs.NY * 4


@pytest.mark.parametrize("opened", ["vaearr", "xarray"])
def test_a_crop_by_xarray_is_a_store_of_its_own(
    scan_store: Path, tmp_path: Path, opened: str
) -> None:
    crop = tmp_path / "crop.zarr"
    ds = va.open_store(scan_store) if opened == "vaearr" else xr.open_zarr(scan_store)
    ds.sel(x=slice(1, 4)).to_zarr(crop)
    before = tree(crop)
    assert "13 x" in vaearr("info", crop).out
    vaearr("verify", crop)
    assert tree(crop) == before  # what only reads changes nothing
    vaearr("train", crop, *TRAIN)
    assert store_id(crop) != store_id(scan_store)
    vaearr("encode", crop)
    vaearr("cluster", crop, "--method", "kmeans", "--k", 2)
    assert "is intact" in vaearr("verify", crop).out
    vaearr("verify", crop, "--seal")
    assert "no checksums" not in vaearr("verify", crop).out


def test_a_crop_of_a_trained_store_says_what_it_lacks_before_it_works(
    trained_store: Path, tmp_path: Path
) -> None:
    crop = tmp_path / "crop.zarr"
    va.open_store(trained_store).sel(x=slice(1, 4)).to_zarr(crop)
    assert "already holds" in vaearr("train", crop, *TRAIN, code=EXISTS).error
    vaearr("train", crop, "--run", "b", *TRAIN)
    vaearr("encode", crop, "--run", "b")
    assert "is intact" in vaearr("verify", crop).out


def test_zeros_that_a_copy_leaves_out_are_not_lost(tmp_path: Path) -> None:
    values = inputs.patterns()
    source = tmp_path / "a.zarr"
    va.ingest(xr.DataArray(np.concatenate([values] * 2), dims=("y", "x", "dy", "dx")), source)
    ds = xr.open_zarr(source)
    copy = tmp_path / "b.zarr"
    ds.assign(patterns=ds.patterns.where(ds.y < 32, 0).assign_attrs(ds.patterns.attrs)).to_zarr(
        copy
    )
    assert len([file for file in (copy / "patterns" / "c").rglob("*") if file.is_file()]) == 1
    vaearr("train", copy, *TRAIN)
    assert va.open_store(copy).patterns.values[32:].max() == 0
    assert "is intact" in vaearr("verify", copy).out


# variables added by plain xarray


def test_a_variable_added_by_plain_xarray_costs_nothing(trained_store: Path) -> None:
    before = va.open_store(trained_store)
    _add_by_xarray(trained_store)
    for command in ("info", "verify", "associate", "encode"):
        done = vaearr(command, trained_store, *["--metric", "all"] * (command == "associate"))
        assert "warning" not in done.err
    vaearr("cluster", trained_store, "--method", "kmeans", "--k", 2, "--name", "two")
    assert "is intact" in vaearr("verify", trained_store).out
    assert {"mine", "two"} <= set(zarr(trained_store).data_vars)
    np.testing.assert_array_equal(zarr(trained_store).mine, zarr(trained_store).BC * 2)
    assert va.open_store(trained_store).attrs == before.attrs
    assert "from scan.h5" in vaearr("info", trained_store).out


def test_attributes_of_ones_own_stay(scan_store: Path) -> None:
    before = store_id(scan_store)
    xr.Dataset({"mine": xr.open_zarr(scan_store).BC}, attrs={"operator": "me"}).to_zarr(
        scan_store, mode="a"
    )
    vaearr("train", scan_store, *TRAIN)
    assert xr.open_zarr(scan_store).attrs["operator"] == "me"
    assert va.open_store(scan_store).attrs["operator"] == "me"
    assert store_id(scan_store) == before
    assert "is intact" in vaearr("verify", scan_store).out


# netCDF and CF


def test_variables_go_to_netcdf(trained_store: Path, tmp_path: Path) -> None:
    ds = xr.open_zarr(trained_store)
    names = [name for name, variable in ds.data_vars.items() if variable.dtype.kind == "f"]
    assert {"BC", "latents", "latents_pca"} <= set(names)
    chosen = ds[names].drop_vars("element", errors="ignore")
    chosen.drop_dims("element", errors="ignore").to_netcdf(tmp_path / "a.nc", engine="scipy")
    back = xr.open_dataset(tmp_path / "a.nc", engine="scipy")
    np.testing.assert_array_equal(back.BC, ds.BC)
    assert json.loads(back.attrs["provenance"])["source"]["file"] == "scan.h5"
    assert {coord: back[coord].attrs["axis"] for coord in ("x", "y")} == {"x": "X", "y": "Y"}


@pytest.mark.parametrize("which", ["trained", "images", "volumes"])
def test_attributes_are_text_numbers_or_flat_lists(
    which: str, request: pytest.FixtureRequest
) -> None:
    store = request.getfixturevalue(f"{which}_template")
    ds = xr.open_zarr(store)
    for name, attrs in [("root", ds.attrs), *((name, v.attrs) for name, v in ds.variables.items())]:
        for key, value in attrs.items():
            kinds = {type(item) for item in value} if isinstance(value, list) else {type(value)}
            assert kinds <= {str} or kinds <= {int, float}, f"{name}: {key} is {value!r}"


# Datasets as sources


def test_a_dataset_becomes_a_store(trained_store: Path, tmp_path: Path, said: list[str]) -> None:
    crop = va.open_store(trained_store).isel(x=slice(3, 15), y=slice(2, None))
    ds = va.ingest(crop, tmp_path / "crop.zarr")
    np.testing.assert_array_equal(ds.patterns, crop.patterns)
    np.testing.assert_array_equal(ds.BC, crop.BC)
    assert "latents" not in ds
    assert any("latents" in line for line in said)
    assert ds.attrs["store_id"] != crop.attrs["store_id"]
    made = json.loads(ds.attrs["provenance"])
    assert made["source"]["format"] == "xarray"
    assert made["source"]["of"]["source"]["file"] == "scan.h5"
    assert "is intact" in vaearr("verify", tmp_path / "crop.zarr").out
    vaearr("train", tmp_path / "crop.zarr", *TRAIN)


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        (("y", "x", "dy", "dx"), (4, 5, 6, 7)),
        (("z", "y", "x", "dy", "dx"), (2, 3, 4, 5, 6)),
        (("sample", "y", "x"), (12, 6, 7)),
        (("sample", "channel", "y", "x"), (12, 3, 6, 7)),
        (("sample", "z", "y", "x"), (12, 4, 6, 7)),
        (("dx", "dy", "x", "y"), (7, 6, 5, 4)),
    ],
    ids=["scan", "scan of slices", "images", "in colour", "volumes", "in any order"],
)
def test_dims_that_are_obvious(
    dims: tuple[str, ...], shape: tuple[int, ...], tmp_path: Path
) -> None:
    values = np.random.default_rng(0).integers(0, 255, shape, dtype="u1")
    ds = va.ingest(xr.DataArray(values, dims=dims), tmp_path / "a.zarr")
    np.testing.assert_array_equal(ds.patterns.transpose(*dims), values)
    assert "is intact" in vaearr("verify", tmp_path / "a.zarr").out
    assert len(list(va.batches(ds, batch_size=5))) > 1


def test_dims_that_are_not_obvious_are_asked_for(tmp_path: Path) -> None:
    array = xr.DataArray(np.zeros((3, 4, 5, 6), "u1"), dims=("row", "column", "u", "v"))
    with pytest.raises(Exception, match=r"rename.*'row'.*y.*x.*dy.*dx|'row'.*rename") as caught:
        va.ingest(array, tmp_path / "a.zarr")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.zarr").exists()
    with pytest.raises(Exception, match="patterns"):
        va.ingest(xr.Dataset({"a": array, "b": array}), tmp_path / "a.zarr")
    with pytest.raises(Exception, match="step"):
        va.ingest(array.rename(row="y", column="x", u="dy", v="dx"), tmp_path / "a.zarr", step=0.5)


def test_a_lazy_dataset_is_streamed(scan_files: dict[str, Path], tmp_path: Path) -> None:
    dask = pytest.importorskip("dask.array")
    most: list[int] = []

    def block(block_info: dict[Any, dict[str, list[tuple[int, int]]]]) -> np.ndarray:
        sides = [stop - start for start, stop in block_info[None]["array-location"]]
        most.append(int(np.prod(sides)))
        return np.random.default_rng(sides[0]).integers(0, 255, sides, dtype="u1")

    values = dask.map_blocks(
        block,
        chunks=((16,) * 6, (16,) * 6, (40,), (40,)),
        dtype="u1",
        meta=np.empty((0,) * 4, "u1"),
    )
    va.ingest(xr.DataArray(values, dims=("y", "x", "dy", "dx")), tmp_path / "a.zarr")
    assert zarr(tmp_path / "a.zarr").patterns.shape == (96, 96, 40, 40)
    assert len(most) == 36  # each block once


def test_plain_zarr_is_a_source(scan_store: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.zarr"
    ds = zarr(scan_store)[["patterns", "BC"]].drop_attrs().drop_vars(["x_index", "y_index"])
    ds.assign_coords(x=ds.x, y=ds.y).drop_encoding().to_zarr(plain, consolidated=False)
    refused = vaearr("train", plain, *TRAIN, code=BAD_DATA).error
    assert f"vaearr ingest {plain}" in refused
    vaearr("ingest", plain, tmp_path / "own.zarr")
    np.testing.assert_array_equal(zarr(tmp_path / "own.zarr").patterns, ds.patterns)
    np.testing.assert_array_equal(zarr(tmp_path / "own.zarr").BC, ds.BC)
    vaearr("verify", tmp_path / "own.zarr")
    vaearr("ingest", scan_store, tmp_path / "again.zarr")  # one of vaearr's too
    np.testing.assert_array_equal(zarr(tmp_path / "again.zarr").x, ds.x)


def test_a_zarr_without_patterns_is_refused(tmp_path: Path) -> None:
    xr.Dataset({"a": ("t", np.arange(3))}).to_zarr(tmp_path / "t.zarr")
    assert (
        "patterns" in vaearr("ingest", tmp_path / "t.zarr", tmp_path / "own.zarr", code=None).error
    )
    assert not (tmp_path / "own.zarr").exists()


# arrays to attach


def test_arrays_are_attached_by_their_coordinates(scan_store: Path) -> None:
    ds = va.open_store(scan_store)
    va.attach(scan_store, (ds.BC * 2).rename("double"), kind="map")
    part = (ds.BC.isel(x=slice(3, 9), y=slice(1, 5)) * 3).transpose("x", "y")
    va.attach(scan_store, part, kind="map", name="part")
    np.testing.assert_array_equal(va.open_store(scan_store).double, ds.BC * 2)
    back = va.open_store(scan_store).part
    np.testing.assert_array_equal(
        back.isel(x=slice(3, 9), y=slice(1, 5)), (ds.BC * 3).isel(x=slice(3, 9), y=slice(1, 5))
    )
    assert int(back.notnull().sum()) == int(part.notnull().sum())
    codes = xr.concat([ds.BC, ds.BC**2], "code").chunk()
    va.attach(scan_store, codes, run="mine")
    assert va.open_store(scan_store).latents_mine.dims == ("y", "x", "latent_mine")
    assert "is intact" in vaearr("verify", scan_store).out


def test_arrays_that_cannot_be_placed_are_refused(scan_store: Path) -> None:
    ds, before = va.open_store(scan_store), tree(scan_store)
    with pytest.raises(Exception, match=r"row.*rename"):
        va.attach(scan_store, ds.BC.rename(y="row"), kind="map", name="q")
    with pytest.raises(Exception, match="none lies on the scan"):
        va.attach(scan_store, ds.BC.assign_coords(x=ds.x + 1000), kind="map", name="q")
    assert tree(scan_store) == before


def test_the_listing_is_what_zarr_itself_would_write(trained_store: Path) -> None:
    before = json.loads((trained_store / "zarr.json").read_text())
    plain_zarr.consolidate_metadata(trained_store)
    assert json.loads((trained_store / "zarr.json").read_text()) == before
