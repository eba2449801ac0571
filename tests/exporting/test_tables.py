"""Tables of latents as CSV and Parquet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from vaearr.attaching import attach
from vaearr.errors import NoInputError, UsageError
from vaearr.exporting import content as module
from vaearr.exporting import export
from vaearr.store import create_store, open_store

from ..data import random_patterns_dataset


def test_rows_are_the_points_of_the_region(scored: Path, ds: xr.Dataset, tmp_path: Path) -> None:
    variables = ("BC", "phase", "clusters", "elements", "pca")
    out = export(scored, tmp_path / "out", "csv", run="b", variables=variables)
    assert [file.name for file in out.iterdir()] == ["latents_b.csv"]
    frame = pd.read_csv(out / "latents_b.csv")
    elements = ds["element"].values.tolist()
    latents = [f"latent_{i}" for i in range(4)]
    assert list(frame) == ["x", "y", *latents, "BC", "phase", "clusters", *elements, "pca_0", "pca_1"]
    inside = ds["roi_b"].values
    assert len(frame) == inside.sum()
    np.testing.assert_array_equal(frame["x"], np.broadcast_to(ds["x_index"].values, inside.shape)[inside])
    np.testing.assert_array_equal(frame["y"], np.broadcast_to(ds["y_index"].values[:, None], inside.shape)[inside])
    np.testing.assert_array_equal(frame[latents].to_numpy("f4"), ds["latents_b"].values[inside])
    np.testing.assert_array_equal(frame["BC"].to_numpy("f4"), ds["BC"].values[inside])
    np.testing.assert_array_equal(frame["phase"], ds["phase"].values[inside])  # -1 and -2 are kept
    np.testing.assert_array_equal(frame["Ni"].to_numpy("f4"), ds["elements"].sel(element="Ni").values[inside])


def test_all_points_and_chosen_latents(template: Path, ds: xr.Dataset, tmp_path: Path) -> None:
    export(template, tmp_path / "out", "csv", run="b", points="all", latents=(2, 0))
    frame = pd.read_csv(tmp_path / "out" / "latents_b.csv")
    assert list(frame) == ["x", "y", "latent_2", "latent_0"]
    assert len(frame) == ds["BC"].size
    np.testing.assert_array_equal(frame["latent_2"].to_numpy("f4"), ds["latents_b"].values[..., 2].ravel())


def test_small_blocks_give_the_same_file(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = export(template, tmp_path / "a", "csv", run="b", variables=("BC",))
    monkeypatch.setattr(module, "BLOCK_BYTES", 1)
    pieces = export(template, tmp_path / "b", "csv", run="b", variables=("BC",))
    assert (pieces / "latents_b.csv").read_bytes() == (whole / "latents_b.csv").read_bytes()


def test_a_table_comes_back_as_a_run(store: Path, ds: xr.Dataset, tmp_path: Path) -> None:
    out = export(store, tmp_path / "out", "csv", run="b")
    attach(store, out / "latents_b.csv", run="again")
    np.testing.assert_array_equal(open_store(store)["latents_again"].values.astype("f4"), ds["latents_b"].values)


def test_a_collection_and_a_volume(tmp_path: Path) -> None:
    store = create_store(random_patterns_dataset({"sample": 7}), tmp_path / "c.zarr")
    attach(store, np.arange(14.0).reshape(7, 2), run="a")
    export(store, tmp_path / "c", "csv", run="a", variables=("label",))
    assert list(pd.read_csv(tmp_path / "c" / "latents_a.csv")) == ["sample", "latent_0", "latent_1", "label"]
    store = create_store(random_patterns_dataset({"z": 2, "y": 3, "x": 4}), tmp_path / "v.zarr")
    attach(store, np.arange(24.0), run="a")
    export(store, tmp_path / "v", "csv", run="a")
    frame = pd.read_csv(tmp_path / "v" / "latents_a.csv")
    assert list(frame) == ["x", "y", "z", "latent_0"]
    assert frame["x"].tolist()[:5] == [0, 1, 2, 3, 0]
    np.testing.assert_array_equal(frame["latent_0"], np.arange(24))


def test_what_is_not_there(template: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="Did you mean 'BC'"):
        export(template, tmp_path / "out", "csv", run="b", variables=("BCC",))
    with pytest.raises(NoInputError, match="no latent 9; it has 0 to 3"):
        export(template, tmp_path / "out", "csv", run="b", latents=(9,))
    with pytest.raises(NoInputError, match=r"run 'c' has no latents .* Known: b"):
        export(template, tmp_path / "out", "csv", run="c")
    with pytest.raises(UsageError, match="Did you mean 'csv'"):
        export(template, tmp_path / "out", "cvs", run="b")
    with pytest.raises(UsageError, match="no argument 'runn'"):
        export(template, tmp_path / "out", "csv", runn="b")
    with pytest.raises(NoInputError, match="no map 'patterns'"):
        export(template, tmp_path / "out", "csv", run="b", variables=("patterns",))
    assert list(tmp_path.iterdir()) == []


def test_two_columns_of_one_name(store: Path, tmp_path: Path) -> None:
    attach(store, np.zeros((14, 12)), kind="map", name="Ni")
    with pytest.raises(UsageError, match="two columns of the table would be called 'Ni'"):
        export(store, tmp_path / "out", "csv", run="b", variables=("elements", "Ni"))


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_holds_the_table(template: Path, tmp_path: Path) -> None:
    out = export(template, tmp_path / "out", "parquet", run="b", variables=("BC",))
    text = export(template, tmp_path / "text", "csv", run="b", variables=("BC",))
    pd.testing.assert_frame_equal(
        pd.read_parquet(out / "latents_b.parquet"), pd.read_csv(text / "latents_b.csv"), check_dtype=False
    )
