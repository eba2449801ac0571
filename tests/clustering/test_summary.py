"""What is in the clusters, in original units; stability by resampling."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from vaearr.clustering import METHODS, cluster, cluster_stability, cluster_summary
from vaearr.errors import DataError, SchemaError, UsageError
from vaearr.testing import random_patterns_dataset

Blobs = tuple[xr.DataArray, xr.DataArray]


def test_numbers_are_in_original_units(blobs: Blobs) -> None:
    latents, truth = blobs
    bc = (latents[..., 0] * 1000 + 5e4).drop_vars("latent").assign_attrs(units="counts")
    bc[3, 3] = np.nan
    labels = cluster(latents, "gmm", k=3)
    summary = cluster_summary(labels, xr.Dataset({"latents": latents, "BC": bc, "phase": truth}))
    expected = ["latents: 0", "latents: 1", "latents: 2", "BC", "phase: iron", "phase: nickel", "phase: oxide"]
    assert summary["feature"].values.tolist() == expected
    inside = labels.values == 0
    values = bc.values[inside]
    first = summary.sel(cluster=0, feature="BC")
    assert float(first["mean"]) == pytest.approx(np.nanmean(values))
    assert float(first["std"]) == pytest.approx(np.nanstd(values))
    assert int(first["n"]) == np.isfinite(values).sum() == int(first["count"]) - 1
    assert str(first["units"].values) == "counts"
    assert summary["count"].values.tolist() == labels.attrs["sizes"]
    assert float(summary["share"].sum()) == pytest.approx(1.0)
    assert summary["mean"].sel(feature="phase: iron").values.tolist() == [1.0, 0.0, 0.0]
    assert summary["stability"].attrs["long_name"] == "mean posterior probability"
    assert (summary["stability"] > 0.99).all()


def test_noise_counts_in_the_share() -> None:
    labels = xr.DataArray([[0, 0, 2], [-1, -2, 2]], dims=("y", "x"), name="mine")
    height = xr.DataArray([[1.0, 3.0, np.nan], [9, 9, np.nan]], dims=("y", "x"), name="height")
    summary = cluster_summary(labels, height)
    assert summary["count"].values.tolist() == [2, 0, 2]
    np.testing.assert_allclose(summary["share"], [0.4, 0, 0.4])
    np.testing.assert_allclose(summary["mean"][:, 0], [2.0, np.nan, np.nan])
    assert (summary.attrs["n"], summary.attrs["n_noise"], summary.attrs["n_not_clustered"]) == (5, 1, 1)
    assert summary["stability"].isnull().all()


def test_whole_dataset_leaves_out_what_is_no_map() -> None:
    ds = random_patterns_dataset({"y": 12, "x": 10}, roi=True, runs=["vae"]).chunk({"y": 4})
    labels = cluster(ds, "kmeans", k=2)
    features = cluster_summary(labels, ds)["feature"].values.tolist()
    assert {"BC", "Fe", "phase: fcc", "latents: 0", "reconstruction_error"} <= set(features)
    assert not [name for name in features if "roi" in name or "std" in name or "patterns" in name]


@pytest.mark.parametrize("method", list(METHODS))
def test_clear_clusters_come_back_from_halves(method: str, blobs: Blobs) -> None:
    latents, _ = blobs
    own = {"min_samples": 5} if method == "hdbscan" else {"k_max": 4} if method in ("gmm", "kmeans") else {}
    labels = cluster(latents, method, **own)
    jaccard = cluster_stability(latents, labels, n_resamples=3)
    assert jaccard.sizes == {"cluster": 3}
    assert (jaccard > 0.75).all()
    xr.testing.assert_identical(jaccard, cluster_stability(latents, labels, n_resamples=3))
    table = cluster_summary(labels, latents, jaccard=jaccard)
    np.testing.assert_array_equal(table["jaccard"], jaccard)


def test_clusters_without_structure_do_not_come_back() -> None:
    rng = np.random.default_rng(0)
    latents = xr.DataArray(rng.normal(size=(20, 20, 2)), dims=("y", "x", "latent"), name="latents")
    labels = cluster(latents, "kmeans", k=6)
    assert float(cluster_stability(latents, labels, n_resamples=5).mean()) < 0.75


def test_refusals(blobs: Blobs) -> None:
    latents, truth = blobs
    labels = cluster(latents, k=2)
    with pytest.raises(UsageError, match="at least 1"):
        cluster_stability(latents, labels, n_resamples=0)
    with pytest.raises(UsageError, match="how they were made"):
        cluster_stability(latents, truth)
    with pytest.raises(SchemaError, match="same grid"):
        cluster_summary(labels, latents.assign_coords(x=latents["x"] + 1))
    with pytest.raises(SchemaError, match="at most one more"):
        cluster_summary(labels, xr.Dataset({"cube": latents.expand_dims(other=2)}))
    with pytest.raises(SchemaError, match="expected a map"):
        cluster_summary(latents, latents)
    with pytest.raises(SchemaError, match="2 entries for 3 clusters"):
        cluster_summary(truth.assign_attrs(stability=[1, 1]), latents)
    with pytest.raises(DataError, match="no cluster"):
        cluster_summary(xr.full_like(labels, -1), latents)
    with pytest.raises(UsageError, match="no map"):
        cluster_summary(labels, xr.Dataset({"clusters": labels}))
