"""The label map: codes, attributes, invariances, refusals; the same for every method."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from tests.clustering.conftest import blob_maps
from vaearr.clustering import METHODS, cluster
from vaearr.config import ClusterConfig
from vaearr.errors import DataError, NoInputError, RoiError, SchemaError, UsageError
from vaearr.testing import count_computes, random_patterns_dataset

EVERY = pytest.mark.parametrize("method", list(METHODS))
SETTINGS: dict[str, dict[str, Any]] = {
    "gmm": {"k_max": 5},
    "kmeans": {"k_max": 5},
    "dbscan": {},
    "hdbscan": {"min_samples": 5},
}
Blobs = tuple[xr.DataArray, xr.DataArray]


@EVERY
def test_finds_the_blobs(method: str, blobs: Blobs) -> None:
    latents, truth = blobs
    labels = cluster(latents, method, **SETTINGS[method])
    attrs = labels.attrs
    assert (labels.dims, labels.dtype, labels.name) == (("y", "x"), np.dtype("i4"), "clusters")
    xr.testing.assert_equal(labels["y"], latents["y"])
    inside = labels.values >= 0
    assert inside.mean() > 0.9
    assert adjusted_rand_score(truth.values[inside], labels.values[inside]) == 1.0
    assert attrs["k"] == 3
    assert attrs["flag_values"] == [-2, -1, 0, 1, 2]
    assert attrs["flag_meanings"] == "not_clustered noise cluster_0 cluster_1 cluster_2"
    assert attrs["sizes"] == sorted(attrs["sizes"], reverse=True)
    assert sum(attrs["sizes"]) + attrs["n_noise"] == attrs["n"] == labels.size
    assert list(attrs["scaling"]) == attrs["features"] == ["latents: 0", "latents: 1", "latents: 2"]
    assert attrs["scaling"]["latents: 1"]["scale"] == pytest.approx(float(latents[..., 1].std()))
    assert len(attrs["stability"]) == 3
    assert attrs["approximation"] == ""
    json.dumps(attrs, allow_nan=False)
    assert ClusterConfig.from_attrs(attrs["config"]).method == method


@EVERY
def test_outside_and_noise_stay_apart(method: str, blobs: Blobs) -> None:
    latents, _ = blobs
    latents = latents.copy()
    latents[0, 0, 1], latents[2, 2, 0] = np.nan, np.inf
    latents[5, 5] = 60.0  # far from everything
    roi = xr.ones_like(latents[..., 0], dtype=bool)
    roi[:, -2:] = False
    labels = cluster(latents, method, roi=roi, **SETTINGS[method])
    outside = labels == -2
    expected = ~roi
    expected[0, 0] = expected[2, 2] = True
    np.testing.assert_array_equal(outside, expected)
    assert labels.attrs["n_not_clustered"] == int(expected.sum())
    assert labels.attrs["n_noise"] == int((labels == -1).sum())
    if method in ("dbscan", "hdbscan"):
        assert int(labels[5, 5]) == -1
    else:
        assert labels.attrs["n_noise"] == 0


UNITS = st.floats(1e-6, 1e6)


@EVERY
@settings(max_examples=8, deadline=None)
@given(factors=st.tuples(UNITS, UNITS, UNITS), offset=st.floats(-10, 10), scale=st.sampled_from(["standard", "robust"]))
def test_units_do_not_matter(method: str, factors: tuple[float, ...], offset: float, scale: str) -> None:
    latents, _ = blob_maps(12, 10)
    given_settings = {**SETTINGS[method], "scale": scale} | ({"min_cluster_size": 10} if method == "hdbscan" else {})
    labels = cluster(latents, method, **given_settings)
    other = cluster((latents + offset) * xr.DataArray(list(factors), dims="latent"), method, **given_settings)
    np.testing.assert_array_equal(other, labels)


@EVERY
def test_lazy_transposed_and_chunked_give_the_same(method: str, blobs: Blobs) -> None:
    latents, truth = blobs
    ds = xr.Dataset({"latents": latents, "BC": truth * 10.0 + latents[..., 0]})
    labels = cluster(ds, method, **SETTINGS[method])
    lazy = ds.transpose("latent", "x", "y").chunk({"y": 5, "x": 4})
    with count_computes(at_most=1):
        again = cluster(lazy, method, roi=xr.ones_like(truth, dtype=bool).chunk({"y": 3}), **SETTINGS[method])
    xr.testing.assert_identical(again, labels)


@EVERY
def test_same_seed_same_labels_on_a_sub_sample(method: str) -> None:
    latents, truth = blob_maps(30, 20)
    chosen = SETTINGS[method] | {"max_points": 200, "seed": 5}
    labels = cluster(latents, method, **chosen)
    xr.testing.assert_identical(labels, cluster(latents, method, **chosen))
    assert labels.attrs["n_fitted"] == 200
    assert "200 of 600" in labels.attrs["approximation"]
    inside = labels.values >= 0
    assert adjusted_rand_score(truth.values[inside], labels.values[inside]) == 1.0


def test_features_of_many_kinds(blobs: Blobs) -> None:
    latents, truth = blobs
    elements = xr.concat([latents[..., 0] * 3, latents[..., 1]], "element").assign_coords(element=["Fe", "Ni"])
    ds = xr.Dataset({"elements": elements.drop_vars("latent"), "phase": truth.where(truth != 2, -1), "roi": truth > 0})
    labels = cluster(ds, "kmeans", k=2)
    assert labels.attrs["features"] == ["Fe", "Ni", "phase: iron", "phase: nickel", "roi"]
    assert ((labels == -2) == (truth == 2)).all()  # phase not known


def test_latent_dimensions_are_chosen(blobs: Blobs) -> None:
    latents, _ = blobs
    labels = cluster(latents.assign_coords(latent=[3, 5, 8]), "gmm", k=3, latents=(8, 3))
    assert labels.attrs["features"] == ["latents: 8", "latents: 3"]
    with pytest.raises(UsageError, match=r"\[4\]; there are 3 to 8"):
        cluster(latents.assign_coords(latent=[3, 5, 8]), latents=(4,))
    with pytest.raises(UsageError, match="are no latents"):
        cluster(latents.rename(latent="pca_component"), latents=(0,))


def test_constant_and_idle_features_are_told(blobs: Blobs) -> None:
    latents, _ = blobs
    rng = np.random.default_rng(0)
    latents = latents.copy()
    latents[..., 1], latents[..., 2] = 7.0, rng.normal(0, 1e-3, latents.shape[:2])
    labels = cluster(latents, k=2)
    assert labels.attrs["features"] == ["latents: 0", "latents: 2"]
    text = " ".join(labels.attrs["warnings"])
    assert "latents: 1: one value only" in text
    assert "latents: 2: variance at most 0.01" in text
    with pytest.raises(DataError, match="one value only"):
        cluster(latents[..., 1:2], k=2)


def test_without_scaling_the_unit_counts(blobs: Blobs) -> None:
    latents, _ = blobs
    labels = cluster(latents * [1.0, 1.0, 1e4], "kmeans", scale="none", k=2)
    assert labels.attrs["scaling"]["latents: 2"] == {"center": 0.0, "scale": 1.0}
    with pytest.raises(DataError, match="use scale='standard'"):
        cluster((latents > 5.5).astype(float), "kmeans", scale="robust", k=2)


def test_whole_dataset_takes_the_named_features() -> None:
    ds = random_patterns_dataset({"y": 12, "x": 10}, roi=True, runs=["vae", "b"], missing=4)
    config = ClusterConfig(run="b", features=("latents: 2", "Fe", "BC", "latents: 1"), method="kmeans", k=2)
    labels = cluster(ds, config=config)
    assert labels.attrs["features"] == ["latents_b: 2", "Fe", "BC", "latents_b: 1"]
    outside = ds["latents_b"].isnull().any("latent_b") | ds["BC"].isnull()
    np.testing.assert_array_equal(labels == -2, outside)
    with pytest.raises(NoInputError, match="vaearr encode STORE --run c"):
        cluster(ds, run="c")
    with pytest.raises(NoInputError, match="Did you mean 'BC'"):
        cluster(ds, features=("BCC",))
    with pytest.raises(UsageError, match="no feature is named"):
        cluster(ds, features=())


def test_collection_of_images() -> None:
    ds = random_patterns_dataset({"sample": 30}, runs=["vae"])
    labels = cluster(ds["latents"], "kmeans", k=2)
    assert labels.dims == ("sample",)
    assert "path" in labels.coords


def test_settings_are_checked(blobs: Blobs) -> None:
    latents, _ = blobs
    with pytest.raises(UsageError, match="Did you mean 'hdbscan'"):
        cluster(latents, "hdbscn")
    with pytest.raises(UsageError, match="method 'gmm' does not use 'eps'"):
        cluster(latents, eps=0.3)
    with pytest.raises(UsageError, match="Did you mean 'k_max'"):
        cluster(latents, kmax=3)
    with pytest.raises(UsageError, match="select them in what you pass"):
        cluster(latents, features=("BC",))
    with pytest.raises(UsageError, match="400 different points"):
        cluster(latents, "gmm", k=400)


def test_layout_is_checked(blobs: Blobs) -> None:
    latents, truth = blobs
    with pytest.raises(SchemaError, match="none of y, x, z or sample"):
        cluster(latents.rename(y="row", x="column"))
    with pytest.raises(SchemaError, match="one is the most"):
        cluster(latents.expand_dims(other=2))
    with pytest.raises(SchemaError, match=r"lacks \['x'\]"):
        cluster(xr.Dataset({"latents": latents, "line": truth[:, 0].drop_vars("x")}))
    with pytest.raises(SchemaError, match="expected numbers"):
        cluster(truth.astype(str))
    with pytest.raises(SchemaError, match="expected boolean"):
        cluster(latents, roi=truth)
    with pytest.raises(SchemaError, match="same grid"):
        cluster(latents, roi=(truth >= 0).assign_coords(x=truth["x"] + 1))
    with pytest.raises(UsageError, match="no feature is given"):
        cluster(xr.Dataset(coords={"y": [0], "x": [0]}))
    with pytest.raises(SchemaError, match="is empty"):
        cluster(latents.isel(y=slice(0)))
    fe = xr.concat([latents[..., 0]], "element").assign_coords(element=["Fe"]).drop_vars("latent")
    with pytest.raises(SchemaError, match="several features are called 'Fe'"):
        cluster(xr.Dataset({"elements": fe, "Fe": latents[..., 0].drop_vars("latent")}))


def test_too_few_points_are_refused(blobs: Blobs) -> None:
    latents, _ = blobs
    roi = xr.zeros_like(latents[..., 0], dtype=bool)
    roi[0, :2] = True
    with pytest.raises(RoiError, match="2 scan points are left"):
        cluster(latents, roi=roi)
    with pytest.raises(RoiError, match=r"Missing there: {'latents: 0': 270"):
        cluster(latents.where(latents["latent"] > 0))
