"""Clusters in a store: written once, with provenance and tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.clustering.conftest import blob_maps
from vaearr.clustering import cluster_store
from vaearr.clustering import stored as module
from vaearr.config import ClusterConfig
from vaearr.errors import NoInputError, UsageError
from vaearr.provenance import nested
from vaearr.store import add_variables, create_store, open_store, open_table, publish_run, staged_run
from vaearr.testing import assert_valid, random_patterns_dataset
from vaearr.words import describe

KMEANS = ClusterConfig(method="kmeans", k_max=4)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a run whose ROI leaves out the first column."""
    ds = random_patterns_dataset({"y": 18, "x": 15})
    path = create_store(ds, tmp_path / "scan.zarr")
    latents, _ = blob_maps()
    roi = (latents[..., 0] == latents[..., 0]).drop_vars("latent").rename("roi")
    roi[:, 0] = False
    with staged_run(path, "vae") as folder:
        publish_run(path, "vae", folder, {"config": {}}, roi.to_dataset())
    latents = latents.astype("f4").where(roi).assign_attrs(provenance={"time": "one"})
    add_variables(path, latents.to_dataset())
    return path


def test_writes_once_with_provenance_and_tables(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cluster_store(store, KMEANS)
    ds = open_store(store)
    assert_valid(ds)
    labels = ds["clusters"].load()
    assert labels.attrs["k"] == 3
    assert (labels[:, 0] == -2).all()
    np.testing.assert_array_equal(found["clusters"], labels)
    provenance = nested(labels.attrs, "provenance")
    assert ClusterConfig.from_attrs(provenance["config"]) == KMEANS
    assert provenance["parents"]["latents"] == {"time": "one"}
    assert "scikit-learn" in provenance["versions"]
    summary = open_table(store, "vae", "clusters_clusters")
    assert summary["count"].values.tolist() == labels.attrs["sizes"]
    assert {"BC", "Fe", "phase: fcc", "latents: 2"} <= set(summary["feature"].values.tolist())
    scores = open_table(store, "vae", "clusters_clusters_scores")
    assert scores["reference_name"].values.tolist() == ["fcc", "bcc"]

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "cluster", never)
    monkeypatch.setattr(module, "cluster_summary", never)
    again = cluster_store(store, KMEANS)
    np.testing.assert_array_equal(again["clusters"], labels)
    np.testing.assert_array_equal(again["mean"], found["mean"])
    lines = describe(again, "clusters", name="clusters")
    assert lines[0] == "3 clusters of 252 scan points by kmeans of latents: 0, latents: 1, latents: 2"
    assert lines[1].startswith("cluster 0: 126 points (50.0%), mean silhouette width 0.")


def test_interrupted_before_the_tables(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "cluster_summary", broken)
        with pytest.raises(KeyboardInterrupt):
            cluster_store(store, KMEANS)
    assert cluster_store(store, KMEANS).sizes["cluster"] == 3
    assert open_table(store, "vae", "clusters_clusters").sizes["cluster"] == 3


def test_without_a_run_maps_can_be_clustered(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 18, "x": 15}, missing=6)
    path = create_store(ds, tmp_path / "scan.zarr")
    found = cluster_store(path, ClusterConfig(features=("BC", "Fe"), method="kmeans", k=3))
    assert int((found["clusters"] == -2).sum()) == 6
    assert found["feature"].values.tolist()[:2] == ["BC", "Fe"]
    with pytest.raises(NoInputError, match="no run 'vae'"):
        cluster_store(path)
    with pytest.raises(NoInputError, match="no run 'b'"):
        cluster_store(path, ClusterConfig(run="b", features=("BC",)))


def test_noise_only_is_no_failure(store: Path) -> None:
    config = ClusterConfig(method="dbscan", eps=1e-9)
    for _ in range(2):
        found = cluster_store(store, config)
        assert found.sizes["cluster"] == 0
        assert "noise: 252 points (100.0%)" in describe(found, "clusters", name="clusters")
        assert any("all points are noise" in line for line in describe(found, "clusters", name="clusters"))


def test_run_that_is_not_encoded(store: Path) -> None:
    with pytest.raises(NoInputError, match="no feature 'pca'"):
        cluster_store(store, ClusterConfig(features=("pca",)))
    with pytest.raises(NoInputError, match="no run 'vaee'"):
        cluster_store(store, ClusterConfig(run="vaee"))


@pytest.mark.parametrize(
    ("k", "rest"), [(10, ""), (11, "and 1 smaller cluster, 1 points"), (13, "3 smaller clusters, 6")]
)
def test_many_clusters_are_told_in_few_lines(k: int, rest: str) -> None:
    counts = np.arange(k, 0, -1)
    attrs = {"k": k, "n": 200, "method": "dbscan", "features": ["BC"], "n_noise": 0, "approximation": ""}
    attrs |= {"stability": [0.5] * k, "stability_is": "mean silhouette width", "warnings": ["w"]}
    found = xr.Dataset({"count": ("cluster", counts), "clusters": ("x", [0], attrs)}, {"cluster": np.arange(k)})
    lines = describe(found, "clusters", name="clusters")
    assert lines[1] == f"cluster 0: {k} points ({k / 200:.1%}), mean silhouette width 0.50"
    assert lines[10].startswith(f"cluster 9: {k - 9} points")
    assert len(lines) == 12 + bool(rest)
    assert rest in lines[11]
    assert lines[-1] == "warning: w"


@pytest.mark.parametrize("name", ["present", "roi", "latents_b", "roi_b", "split", "x", "count", "cluster"])
def test_names_with_a_meaning_are_refused_before_anything_is_done(store: Path, name: str) -> None:
    before = sorted(map(str, open_store(store).variables))
    with pytest.raises(UsageError, match="has a meaning of its own"):
        cluster_store(store, KMEANS.replace(name=name))
    assert sorted(map(str, open_store(store).variables)) == before


def test_settings_that_the_method_ignores_are_refused(store: Path) -> None:
    with pytest.raises(UsageError, match="'dbscan' does not use 'k'"):
        cluster_store(store, ClusterConfig(method="dbscan", k=3))


def test_one_latent_is_that_of_the_run(store: Path) -> None:
    ds = open_store(store)
    other = (-ds["latents"]).rename("latents_b").rename(latent="latent_b")
    roi = ds["roi"].rename("roi_b").drop_attrs()
    with staged_run(store, "b") as folder:
        publish_run(store, "b", folder, {"config": {}}, xr.Dataset({"latents_b": other.drop_attrs(), "roi_b": roi}))
    found = cluster_store(store, KMEANS.replace(run="b", features=("latents: 1",), name="one"))
    assert list(nested(found["one"].attrs, "scaling")) == ["latents_b: 1"]
