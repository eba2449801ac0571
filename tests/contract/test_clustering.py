"""Clusters: against scikit-learn, in any units, the number chosen, noise, what is left out,
agreement with phases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment
from sklearn import metrics
from sklearn.cluster import DBSCAN, KMeans
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

import vaearr as va
from vaearr.errors import UsageError

from .harness import attributes, nested, tree, vaearr, zarr

RUN = ("--run", "theirs")
LATENTS = ("--latent", 0, "--latent", 1, "--latent", 3)
NOISE, OUTSIDE = -1, -2
METHODS: dict[str, dict[str, Any]] = {
    "gmm": {"k": 3},
    "kmeans": {"k": 3},
    "dbscan": {"eps": 0.4},
    "hdbscan": {"min_cluster_size": 15},
}


def blobs() -> xr.Dataset:
    """Three clouds of unlike size in two features of unlike units, a few stray points, one missing,
    over 15 x 16.
    """
    rng = np.random.default_rng(5)
    group = np.repeat([0, 1, 2], [120, 70, 50])
    points = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 7.0]])[group] + rng.normal(size=(240, 2)) * 0.7
    points[::40] += rng.normal(size=(6, 2)) * 9
    points = points[rng.permutation(240)].reshape(15, 16, 2)
    points[4, 7, 0] = np.nan
    coords = {"y": np.arange(15.0), "x": np.arange(16.0)}
    return xr.Dataset(
        {"a": (("y", "x"), points[..., 0]), "b": (("y", "x"), 1e4 * points[..., 1] - 3e6)}, coords
    )


def scaled(ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Where all features are, and their values there, each with mean 0 and deviation 1."""
    values = np.stack([ds[name].values for name in ds], axis=-1).astype(float)
    there = np.isfinite(values).all(-1)
    return there, (values[there] - values[there].mean(0)) / values[there].std(0)


@pytest.mark.parametrize("method", METHODS)
def test_labels_do_not_depend_on_units(method: str) -> None:
    ds = blobs()
    labels = va.cluster(ds, method, **METHODS[method])
    other = va.cluster(ds.assign(a=ds.a * 1e-7 + 4, b=-3 * ds.b), method, **METHODS[method])
    np.testing.assert_array_equal(labels, other)
    sizes = np.bincount(labels.values[labels.values >= 0])
    assert sizes.tolist() == sorted(sizes, reverse=True) == labels.attrs["sizes"]
    assert len(sizes) == labels.attrs["k"] == 3
    assert labels.values[4, 7] == OUTSIDE
    assert (labels == OUTSIDE).sum() == labels.attrs["n_not_clustered"] == 1
    assert (labels == NOISE).sum() == labels.attrs["n_noise"]
    assert (labels.attrs["n_noise"] > 0) == (method in ("dbscan", "hdbscan"))
    words = dict(
        zip(labels.attrs["flag_values"], labels.attrs["flag_meanings"].split(), strict=True)
    )
    assert words == {
        -2: "not_clustered",
        -1: "noise",
        0: "cluster_0",
        1: "cluster_1",
        2: "cluster_2",
    }
    there, _ = scaled(ds)
    for name, by in labels.attrs["scaling"].items():
        assert by["center"] == pytest.approx(ds[name].values[there].mean())
        assert by["scale"] == pytest.approx(ds[name].values[there].std())


def test_kmeans_and_mixture_agree_with_scikit_learn() -> None:
    there, values = scaled(blobs())
    ours = va.cluster(blobs(), "kmeans", k=3).values[there]
    theirs = KMeans(3, n_init=20, random_state=0).fit(values)
    inertia = sum(((values[ours == i] - values[ours == i].mean(0)) ** 2).sum() for i in range(3))
    assert inertia <= theirs.inertia_ * 1.001
    ours = va.cluster(blobs(), "gmm", k=3).values[there]
    best = GaussianMixture(3, n_init=20, random_state=0, reg_covar=1e-6).fit(values)
    assert metrics.adjusted_rand_score(best.predict(values), ours) > 0.95


def test_dbscan_with_its_radius_from_the_distances() -> None:
    there, values = scaled(blobs())
    eighth = NearestNeighbors(n_neighbors=9).fit(values).kneighbors(values)[0][:, 8]
    labels = va.cluster(blobs(), "dbscan")
    used = labels.attrs["parameters"]
    assert used["min_samples"] == 8
    assert used["eps"] == pytest.approx(np.quantile(eighth, 0.98))
    assert (
        va.cluster(blobs(), "dbscan", eps_rule="elbow").attrs["parameters"]["eps"]
        == used["eps_elbow"]
        < used["eps"]
    )
    for eps in (0.25, 0.6):
        ours = va.cluster(blobs(), "dbscan", eps=eps).values[there]
        theirs = DBSCAN(eps, min_samples=9).fit(values)  # which counts the point itself
        np.testing.assert_array_equal(ours == NOISE, theirs.labels_ == NOISE)
        core = theirs.core_sample_indices_
        assert metrics.adjusted_rand_score(theirs.labels_[core], ours[core]) == 1


@pytest.mark.parametrize("criterion", ["bic", "silhouette", "hybrid"])
def test_the_number_is_chosen_and_a_bound_is_told(criterion: str) -> None:
    ds = blobs().where(lambda ds: abs(ds.a) < 9)
    free = va.cluster(ds, "gmm", k_min=2, criterion=criterion)
    assert free.attrs["k"] in (3, 4)  # the stray points may make one of their own
    assert not free.attrs["k_at_bound"]
    best = (max if criterion == "silhouette" else min)(
        free.attrs["scores"], key=lambda k: free.attrs["scores"][k]
    )
    assert int(best) == free.attrs["k"]
    tight = va.cluster(ds, "gmm", k_min=2, k_max=2, criterion=criterion)
    assert tight.attrs["k_at_bound"]
    assert any("k_max" in text for text in tight.attrs["warnings"])


def test_hybrid_is_the_mean_rank_of_the_three_criteria() -> None:
    ds = blobs().where(lambda ds: abs(ds.a) < 9)
    found = {
        name: va.cluster(ds, "gmm", criterion=name, k_max=6).attrs
        for name in ("bic", "aic", "silhouette", "hybrid")
    }
    columns = {name: attrs["scores"] for name, attrs in found.items()}
    table = pd.DataFrame(columns)[["bic", "aic", "silhouette"]].assign(
        silhouette=lambda table: -table.silhouette
    )
    expected = table.rank().mean(axis=1)
    np.testing.assert_allclose(list(columns["hybrid"].values()), expected)
    assert found["hybrid"]["k"] == int(expected.idxmin())
    with pytest.raises(UsageError, match="2 <= k_min"):
        va.cluster(ds, "gmm", criterion="hybrid", k_min=1)


def test_settings_of_stores_are_refused_for_arrays() -> None:
    for name, value in {"name": "grains", "run": "b", "features": ("BC",)}.items():
        with pytest.raises(UsageError, match=f"cluster has no argument '{name}'"):
            va.cluster(blobs(), "kmeans", k=3, **{name: value})


def test_a_run_stands_for_its_store(known_store: Path) -> None:
    run = va.load_run(known_store, "theirs")
    found = run.cluster(method="kmeans", k=2, name="two")
    assert found.two.attrs["features"][0] == "latents_theirs: 0"
    again = va.load_run(va.open_store(known_store), "theirs").cluster(
        method="kmeans", k=2, name="two"
    )
    np.testing.assert_array_equal(again.two, found.two)
    with pytest.raises(UsageError, match="the run 'theirs' is given together with run='other'"):
        va.load_run(run, "other")
    with pytest.raises(UsageError, match="cluster has no argument 'run'"):
        run.cluster(run="other")


def test_the_map_and_its_tables(known_template: Path) -> None:
    ds, summary = zarr(known_template), zarr(known_template, "runs/theirs/clusters_three")
    labels = ds.three.values
    assert ds.three.dims == ("y", "x")
    assert labels.dtype == "int32"
    np.testing.assert_array_equal(labels == OUTSIDE, ~ds.present.values)
    assert ds.three.attrs["features"] == [
        "latents_theirs: 0",
        "latents_theirs: 1",
        "latents_theirs: 3",
    ]
    for i in range(3):
        here = labels == i
        assert int(summary["count"][i]) == here.sum()
        assert float(summary.share[i]) == pytest.approx(here.sum() / (labels >= NOISE).sum())
        contrast = ds.BC.values[here]
        contrast = contrast[np.isfinite(contrast)]
        at = summary.sel(cluster=i, feature="BC")
        assert float(at["mean"]) == pytest.approx(contrast.mean(), rel=1e-6)
        assert float(at["std"]) == pytest.approx(contrast.std(), rel=1e-5)


def test_agreement_with_the_phases(known_template: Path) -> None:
    ds, found = zarr(known_template), zarr(known_template, "runs/theirs/clusters_three_scores")
    both = (ds.three.values >= 0) & (ds.phase.values >= 0)
    ours, phase = ds.three.values[both], ds.phase.values[both]
    confusion = np.array(
        [[((ours == i) & (phase == code)).sum() for code in (0, 1)] for i in range(3)]
    )
    np.testing.assert_array_equal(found.confusion, confusion)
    homogeneity, completeness, v_measure = metrics.homogeneity_completeness_v_measure(phase, ours)
    expected = {
        "ari": metrics.adjusted_rand_score(phase, ours),
        "nmi": metrics.normalized_mutual_info_score(phase, ours),
        "homogeneity": homogeneity,
        "completeness": completeness,
        "v_measure": v_measure,
        "majority_accuracy": confusion.max(1).sum() / both.sum(),
        "hungarian_accuracy": confusion[linear_sum_assignment(-confusion)].sum() / both.sum(),
    }
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value), name
    out = vaearr("cluster", known_template, *RUN, "--k", 3, "--name", "three", *LATENTS).out
    (line,) = (
        line
        for line in out.splitlines()
        if line.startswith(f"agreement with the phases at {both.sum()} points")
    )
    for name, value in expected.items():
        assert f"{name} {value:.3f}" in line


def test_noise_is_not_what_was_left_out(known_template: Path) -> None:
    ds = zarr(known_template)
    dense = ds.dense.values
    assert (dense == NOISE).any()
    np.testing.assert_array_equal(dense == OUTSIDE, ~ds.present.values)
    assert nested(attributes(known_template, "dense")["parameters"])["eps"] > 0


def test_the_same_again_is_there_already_and_other_settings_are_refused(known_store: Path) -> None:
    before = tree(known_store)
    vaearr("cluster", known_store, *RUN, "--k", 3, "--name", "contrasts", "--feature", "BC")
    assert (
        "--name"
        in vaearr("cluster", known_store, *RUN, "--k", 4, "--name", "contrasts", code=73).error
    )
    assert "--name" in vaearr("cluster", known_store, *RUN, "--k", 4, "--name", "BC", code=73).error
    assert tree(known_store) == before


def test_tables_of_replaced_clusters_do_not_survive(known_store: Path) -> None:
    run = va.load_run(known_store, "theirs")
    assert run.cluster(["BC"], method="kmeans", k=3, name="spots").sizes["cluster"] == 3
    nothing_dense = {"method": "dbscan", "eps": 1e-9, "name": "spots"}
    for overwrite in (True, False):  # computed, and as stored
        replaced = run.cluster(["BC"], overwrite=overwrite, **nothing_dense)
        assert replaced.sizes["cluster"] == 0
    assert "clusters_spots_scores" not in xr.open_datatree(known_store)["runs/theirs"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--method", "gm"), 2, "'gmm'"),
        (("--feature", "BD"), 66, "'BC'"),
        (("--latent", 9), 2, "0 to 4"),
        (("--k", 0), 2, "k"),
        (("--name", "patterns"), 2, "--name"),
        (("--name", "no good"), 2, "letters"),
        (("--method", "kmeans", "--set", "eps=0.5"), 2, "eps"),
        (("--set", "k_min=9", "--set", "k_max=5"), 2, "k_min"),
        (("--run", "ours"), 66, "theirs"),
    ],
)
def test_refusals(known_template: Path, options: tuple[object, ...], code: int, words: str) -> None:
    run = () if "--run" in options else RUN
    assert words in vaearr("cluster", known_template, *run, *options, code=code).error
