"""Agreement with a reference against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from sklearn import metrics

from vaearr.clustering import cluster, cluster_scores
from vaearr.errors import RoiError, SchemaError

Blobs = tuple[xr.DataArray, xr.DataArray]


def _map(values: object, name: str = "clusters", **attrs: object) -> xr.DataArray:
    return xr.DataArray(np.atleast_2d(np.asarray(values)), dims=("y", "x"), name=name, attrs=attrs)


def test_by_hand() -> None:
    labels = _map([0, 0, 0, 1, 1, 2, -1, -2, 0, 1])
    phase = _map([1, 1, 0, 0, 0, 0, 1, 0, -1, -2], "phase", flag_values=[-1, 0, 1], flag_meanings="no fcc bcc")
    scores = cluster_scores(labels, phase)
    assert scores["confusion"].values.tolist() == [[1, 2], [2, 0], [1, 0]]
    assert scores["reference_name"].values.tolist() == ["fcc", "bcc"]
    assert (scores.attrs["n"], scores.attrs["n_noise"], scores.attrs["n_without_reference"]) == (6, 1, 2)
    assert float(scores["majority_accuracy"]) == pytest.approx(5 / 6)
    assert float(scores["hungarian_accuracy"]) == pytest.approx(4 / 6)
    with_noise = cluster_scores(labels, phase, count_noise=True)
    assert with_noise["cluster"].values.tolist() == [-1, 0, 1, 2]
    assert with_noise["cluster_name"].values.tolist()[0] == "noise"
    assert with_noise["confusion"].sel(cluster=-1).values.tolist() == [0, 1]
    assert with_noise.attrs["n"] == 7
    assert with_noise["confusion"].sum() == 7


def test_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(-1, 5, (30, 20))
    labels = np.where(rng.random((30, 20)) < 0.6, truth // 2, rng.integers(-2, 4, (30, 20)))
    scores = cluster_scores(_map(labels), _map(truth, "grain"))
    both = (labels >= 0) & (truth >= 0)
    ours, theirs = labels[both], truth[both]
    expected = {
        "ari": metrics.adjusted_rand_score(theirs, ours),
        "nmi": metrics.normalized_mutual_info_score(theirs, ours),
        "ami": metrics.adjusted_mutual_info_score(theirs, ours),
        "homogeneity": metrics.homogeneity_score(theirs, ours),
        "completeness": metrics.completeness_score(theirs, ours),
        "v_measure": metrics.v_measure_score(theirs, ours),
    }
    for name, value in expected.items():
        assert float(scores[name]) == pytest.approx(value, abs=1e-12)
    table = metrics.cluster.contingency_matrix(ours, theirs)
    np.testing.assert_array_equal(scores["confusion"], table)
    assert float(scores["majority_accuracy"]) == pytest.approx(table.max(axis=1).sum() / table.sum())


def test_dims_order_float_maps_and_coarse_references(blobs: Blobs) -> None:
    latents, truth = blobs
    labels = cluster(latents, k=3)
    scores = cluster_scores(labels, truth.where(truth != 1).transpose("x", "y"))
    assert float(scores["ari"]) == 1.0
    assert scores["reference_name"].values.tolist() == ["iron", "nickel", "oxide"]
    assert scores.attrs["n"] == int((truth != 1).sum())
    assert scores["confusion"].sel(reference=1).sum() == 0


def test_refusals() -> None:
    labels = _map([0, 1, -1])
    with pytest.raises(RoiError, match="2 have a cluster, 1 a reference"):
        cluster_scores(labels, _map([-1, -1, 0], "phase"))
    with pytest.raises(SchemaError, match="fractions"):
        cluster_scores(labels, _map([0.5, 1, 0], "phase"))
    with pytest.raises(SchemaError, match="whole numbers"):
        cluster_scores(labels, _map(["a", "b", "c"], "phase"))
    with pytest.raises(SchemaError, match="pass maps of one grid"):
        cluster_scores(labels, labels[0])
    with pytest.raises(SchemaError, match="same grid"):
        cluster_scores(labels.assign_coords(x=[0, 1, 2]), labels.assign_coords(x=[1, 2, 3]))
