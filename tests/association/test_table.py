"""Association tables: targets, laziness, region, rankings."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr.association import associate, ranking, targets_of
from vaearr.errors import NoInputError, RoiError, SchemaError, UsageError
from vaearr.words import describe

from .reference import partial_pearson


@pytest.fixture
def ds() -> xr.Dataset:
    rng = np.random.default_rng(0)
    bc = rng.integers(0, 255, (9, 7)).astype("u1")
    latents = rng.normal(size=(9, 7, 4)).astype("f4")
    latents[..., 2] = -bc.astype("f4")
    latents[:2] = np.nan
    phase = rng.integers(0, 2, (9, 7)).astype("i2")
    phase[5, 3], phase[8, 6] = -1, -2
    attrs = {"navigation_dims": ["y", "x"], "signal_dims": ["dy", "dx"]}
    return xr.Dataset(
        {
            "patterns": (("y", "x", "dy", "dx"), np.zeros((9, 7, 2, 2), "u1"), attrs),
            "BC": (("y", "x"), bc),
            "elements": (("element", "y", "x"), rng.random((2, 9, 7)), {"units": "wt%"}),
            "phase": (
                ("y", "x"),
                phase,
                {"flag_values": [-2, -1, 0, 1], "flag_meanings": "no_entry not_indexed ni_fcc fe_bcc"},
            ),
            "latents": (("y", "x", "latent"), latents),
        },
        coords={"y": np.arange(9) * 0.5, "x": np.arange(7) * 0.5, "element": ["Fe", "Ni"], "latent": np.arange(4)},
    )


def test_default_targets_are_labelled(ds: xr.Dataset) -> None:
    targets = targets_of(ds)
    assert targets["target"].values.tolist() == ["BC", "Fe", "Ni", "phase: ni_fcc", "phase: fe_bcc"]
    indicator = targets.sel(target="phase: fe_bcc")
    assert np.isnan(indicator[5, 3])
    assert np.isnan(indicator[8, 6])
    assert set(np.unique(indicator.values[np.isfinite(indicator)])) == {0.0, 1.0}


def test_targets_by_variable_or_label(ds: xr.Dataset) -> None:
    assert targets_of(ds, ["Ni", "phase: ni_fcc"])["target"].values.tolist() == ["Ni", "phase: ni_fcc"]
    assert targets_of(ds, ["elements"])["target"].values.tolist() == ["Fe", "Ni"]
    with pytest.raises(NoInputError, match="Did you mean 'Ni'"):
        targets_of(ds, ["Nii"])
    with pytest.raises(NoInputError, match="no band contrast"):
        targets_of(ds[["patterns", "latents"]])


def test_table_is_labelled_and_counts_points(ds: xr.Dataset) -> None:
    table = associate(ds["latents"], targets_of(ds))
    assert table.dims == ("metric", "latent", "target")
    assert table["n"].sel(target="BC") == 49
    assert table["n"].sel(target="phase: ni_fcc") == 47
    assert table.sel(metric="pearson", latent=2, target="BC") == pytest.approx(-1)
    assert table.attrs["metrics"]["spearman"]["signed"] is True


def test_one_plain_map_needs_no_target_dimension(ds: xr.Dataset) -> None:
    table = associate(ds["latents"], ds["BC"], metrics=["spearman"])
    assert table.dims == ("metric", "latent")
    assert int(table["n"]) == 49


@pytest.mark.parametrize("target", ["elements", "phase"])
def test_many_targets_in_one_variable(ds: xr.Dataset, target: str) -> None:
    assert associate(ds["latents"], ds[target]).sizes["target"] == 2


def test_a_dataset_of_targets(ds: xr.Dataset) -> None:
    labels = associate(ds["latents"], ds[["phase", "BC"]])["target"].values.tolist()
    assert labels == ["phase: ni_fcc", "phase: fe_bcc", "BC"]


def test_dask_gives_the_same_and_reads_once_under_the_scheduler_in_use(ds: xr.Dataset) -> None:
    calls, reads = [], []

    def count(dsk: Any, keys: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return dask.get(dsk, keys, **kwargs)

    def read(block: np.ndarray) -> np.ndarray:
        reads.append(block.shape)
        return block

    chunked = ds.chunk({"y": 3})
    watched = chunked["latents"].copy(data=chunked["latents"].data.map_blocks(read, meta=chunked["latents"].data._meta))
    with dask.config.set(scheduler=count):
        lazy = associate(watched, targets_of(chunked))
    assert len(calls) == 2  # one to read, one for the metrics
    assert len(reads) == 3
    xr.testing.assert_identical(lazy, associate(ds["latents"], targets_of(ds)))


@settings(max_examples=10, deadline=None)
@given(y=st.integers(1, 12), x=st.integers(1, 10), of_targets=st.integers(1, 12))
def test_chunks_do_not_matter(y: int, x: int, of_targets: int) -> None:
    rng = np.random.default_rng(5)
    latents = xr.DataArray(rng.normal(size=(12, 10, 3)), dims=("y", "x", "latent"), name="latents")
    maps = xr.DataArray(rng.integers(0, 9, (12, 10)).astype("u1"), dims=("y", "x"), name="BC")
    lazy = associate(latents.chunk({"y": y, "x": x, "latent": 2}), maps.chunk({"y": of_targets}))
    xr.testing.assert_identical(lazy, associate(latents, maps))


def test_roi_and_transposed_latents(ds: xr.Dataset) -> None:
    roi = (ds["x"] < 1.5) & (ds["y"] >= 0)
    small = associate(ds["latents"].transpose("latent", "x", "y"), ds["BC"], roi=roi)
    xr.testing.assert_allclose(small, associate(ds["latents"][:, :3], ds["BC"][:, :3]))
    assert int(small["n"]) == 21
    with pytest.raises(RoiError, match="no scan point"):
        associate(ds["latents"], ds["BC"], roi=xr.zeros_like(roi))


def test_other_grid_is_refused(ds: xr.Dataset) -> None:
    with pytest.raises(SchemaError, match="same grid"):
        associate(ds["latents"], ds["BC"].assign_coords(y=ds["y"] + 1))
    with pytest.raises(SchemaError, match="one further dimension"):
        associate(ds["BC"], ds["BC"])
    with pytest.raises(SchemaError, match="one further dimension"):
        associate(ds["patterns"], ds["BC"])
    with pytest.raises(SchemaError, match="navigation dims"):
        associate(ds["latents"].isel(y=0, x=0), ds["BC"])
    with pytest.raises(SchemaError, match="the latents are empty"):
        associate(ds["latents"].isel(latent=[]), ds["BC"])


def test_region_must_be_a_boolean_map(ds: xr.Dataset) -> None:
    roi = xr.ones_like(ds["BC"], dtype=bool)
    for wrong in (roi.isel(x=0), roi.expand_dims(z=2), roi.astype(float), roi.values):
        with pytest.raises(SchemaError, match="expected a boolean map over"):
            associate(ds["latents"], ds["BC"], roi=wrong)


def test_latents_of_another_run_keep_their_numbers(ds: xr.Dataset) -> None:
    other = ds["latents"].rename({"latent": "latent_b"}).isel(latent_b=[3, 1])
    assert associate(other, ds["BC"])["latent"].values.tolist() == [3, 1]


def test_scores_stand_in_for_latents(ds: xr.Dataset) -> None:
    scores = ds["latents"].rename({"latent": "pca_component"}).assign_coords(pca_component=[0, 1, 2, 3]).rename("pca")
    table = associate(scores, ds["BC"])
    assert table.dims == ("metric", "latent")
    assert table.attrs["latents"] == "pca"
    np.testing.assert_array_equal(table, associate(ds["latents"], ds["BC"]))


def test_trends_follow_the_coordinates(ds: xr.Dataset) -> None:
    warped = ds.assign_coords(x=ds["x"] ** 3)
    ours = associate(warped["latents"], warped["BC"], metrics=["pearson", "partial_pearson"])
    theirs = associate(ds["latents"], ds["BC"], metrics=["pearson", "partial_pearson"])
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert not np.allclose(ours[1], theirs[1])
    y, x = np.meshgrid(ds["y"], ds["x"], indexing="ij")
    keep = np.isfinite(ds["latents"].values[..., 0])
    expected = partial_pearson(
        ds["latents"].values[..., 1][keep].astype("f8"), ds["BC"].values[keep], np.stack([y[keep], x[keep]], axis=1), 1
    )
    assert float(theirs[1, 1]) == pytest.approx(expected, rel=1e-9)


def test_samples_lie_where_their_coordinates_say(ds: xr.Dataset) -> None:
    flat = ds[["latents", "BC"]].stack(sample=("y", "x")).reset_index("sample").transpose("sample", "latent")
    stacked = associate(flat["latents"], flat["BC"], metrics=["partial_pearson", "kendall"])
    np.testing.assert_array_equal(stacked, associate(ds["latents"], ds["BC"], metrics=["partial_pearson", "kendall"]))
    by_index = associate(flat["latents"].drop_vars(["y", "x"]), flat["BC"].drop_vars(["y", "x"]), ["partial_pearson"])
    assert np.isfinite(by_index.values[0, 0])
    with pytest.raises(SchemaError, match="not finite"):
        associate(flat["latents"].assign_coords(y=flat["y"] * np.nan), flat["BC"].drop_vars("y"))


def test_ranking_sorts_by_strength_and_marks_ties() -> None:
    values = [[0.1, -0.9, np.nan, 0.5, -0.5, 0.2]]
    table = xr.DataArray(
        values,
        dims=("metric", "latent"),
        coords={"metric": ["pearson"], "latent": np.arange(6), "target": "BC", "n": 9},
    )
    ranked = ranking(table, "pearson", top=2)
    assert ranked["latent"].values.tolist() == [1, 3]
    assert ranked["is_tied"].values.tolist() == [False, True]  # with latent 4, beyond the cut
    every = ranking(table, "pearson")
    assert every["position"].values.tolist() == [1, 2, 2, 4, 5]
    assert every["value"].values.tolist() == [-0.9, 0.5, -0.5, 0.2, 0.1]
    assert "latent 3 (+0.50, tied)" in describe(table, "association")[0]


def test_ranking_of_nothing_is_empty(ds: xr.Dataset) -> None:
    table = associate(ds["latents"], ds["BC"] * 0)
    assert ranking(table, "pearson").sizes["rank"] == 0
    with pytest.raises(NoInputError, match="spearman"):
        ranking(table, "sperman")
    with pytest.raises(UsageError, match="top is -1"):
        ranking(table, "pearson", top=-1)
