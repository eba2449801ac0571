"""Clusters of known blobs: every method, its library, what is left out, what is told; outliers,
tables, borders.
"""

from __future__ import annotations

import json
from typing import Any

import hdbscan as library
import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import adjusted_rand_score

from vaearr.analysis.clustering import (
    METHODS,
    boundary_segments,
    cluster,
)
from vaearr.config import ClusterConfig
from vaearr.errors import DataError, RoiError, SchemaError, UsageError

from ..data import count_computes

SETTINGS: dict[str, dict[str, Any]] = {
    "gmm": {"k_max": 5},
    "kmeans": {"k_max": 5},
    "dbscan": {},
    "hdbscan": {"min_samples": 5},
}
EVERY = pytest.mark.parametrize("method", list(METHODS))


def blobs(ny: int = 18, nx: int = 15) -> tuple[xr.DataArray, xr.DataArray]:
    """Latents `(y, x, latent)` around three centres, in stripes of 50, 30 and 20 %, and the true
    numbers.
    """
    centres = np.array([[-6.0, 0.0, 1.0], [0.0, 5.0, -4.0], [6.0, -5.0, 3.0]])
    truth = np.searchsorted(np.array([0.5, 0.8]) * ny, np.arange(ny) + 0.5)
    truth = np.repeat(truth[:, None], nx, axis=1)
    values = centres[truth] + np.random.default_rng(0).normal(0, 0.5, (ny, nx, 3))
    coords = {"y": np.arange(ny) * 0.5, "x": np.arange(nx) * 0.5}
    latents = xr.DataArray(
        values, {**coords, "latent": np.arange(3)}, ("y", "x", "latent"), name="latents"
    )
    attrs = {"flag_values": [-1, 0, 1, 2], "flag_meanings": "unknown iron nickel oxide"}
    return latents, xr.DataArray(truth.astype("i2"), coords, ("y", "x"), name="phase", attrs=attrs)


def agreement(truth: xr.DataArray, labels: xr.DataArray) -> float:
    inside = (labels.values >= 0) & (truth.values >= 0)
    return float(adjusted_rand_score(truth.values[inside], labels.values[inside]))


@EVERY
def test_every_method_finds_the_blobs_whatever_the_layout(method: str) -> None:
    latents, truth = blobs(30, 20)
    ds = xr.Dataset({"latents": latents, "BC": truth * 10.0 + latents[..., 0]})
    labels = cluster(ds, method, **SETTINGS[method])
    assert agreement(truth, labels) == 1.0
    assert (labels.values >= 0).mean() > 0.9
    assert (labels.attrs["k"], labels.attrs["approximation"]) == (3, "")
    json.dumps(labels.attrs, allow_nan=False)
    assert ClusterConfig.from_attrs(labels.attrs["config"]).method == method
    lazy = ds.transpose("latent", "x", "y").chunk({"y": 5, "x": 4})
    with count_computes(at_most=2):
        again = cluster(
            lazy, method, roi=xr.ones_like(truth, dtype=bool).chunk({"y": 3}), **SETTINGS[method]
        )
    xr.testing.assert_identical(again, labels)
    chosen = SETTINGS[method] | {"max_points": 200, "seed": 5}
    part = cluster(latents, method, **chosen)
    xr.testing.assert_identical(part, cluster(latents, method, **chosen))
    assert part.attrs["n_fitted"] == 200
    assert "200 of 600" in part.attrs["approximation"]
    assert agreement(truth, part) == 1.0


def test_hdbscan_is_the_librarys_and_labels_what_was_not_fitted() -> None:
    rng = np.random.default_rng(0)
    turn, which = (
        rng.uniform(0, np.pi, 2000),
        rng.integers(0, 2, 2000),
    )  # two half circles that no straight line parts
    moons = np.stack([np.cos(turn), np.sin(turn)], axis=1) * np.where(which, -1, 1)[:, None]
    moons += np.where(which[:, None], [1.0, 0.3], [0.0, 0.0]) + rng.normal(0, 0.05, (2000, 2))
    moons[:80] = rng.uniform(4, 40, (80, 2))
    maps = xr.DataArray(moons, dims=("sample", "latent"))
    labels = cluster(maps[:500], "hdbscan", scale="none", min_cluster_size=25)
    model = library.HDBSCAN(min_cluster_size=25, approx_min_span_tree=False).fit(moons[:500])
    np.testing.assert_array_equal(labels == -1, model.labels_ == -1)
    assert adjusted_rand_score(model.labels_, labels) == 1.0
    part = cluster(maps, "hdbscan", scale="none", min_samples=5, max_points=700)
    inside = part.values >= 0
    assert inside.mean() > 0.7
    assert adjusted_rand_score(which[inside], part.values[inside]) > 0.9


def test_levels_of_eight_bits_do_not_become_components() -> None:
    rng = np.random.default_rng(0)
    levels = xr.DataArray(np.round(rng.normal(120, 30, (60, 50))), dims=("y", "x"), name="BC")
    assert cluster(levels, "gmm", k_min=1, k_max=6).attrs["k"] == 1


def test_features_of_many_kinds() -> None:
    latents, truth = blobs()
    elements = xr.concat([latents[..., 0] * 3, latents[..., 1]], "element").assign_coords(
        element=["Fe", "Ni"]
    )
    ds = xr.Dataset(
        {
            "elements": elements.drop_vars("latent"),
            "phase": truth.where(truth != 2, -1),
            "roi": truth > 0,
        }
    )
    labels = cluster(ds, "kmeans", k=2)
    assert labels.attrs["features"] == ["Fe", "Ni", "phase: iron", "phase: nickel", "roi"]
    assert ((labels == -2) == (truth == 2)).all()  # phase not known
    chosen = cluster(latents.assign_coords(latent=[3, 5, 8]), "gmm", k=3, latents=(8, 3))
    assert chosen.attrs["features"] == ["latents: 8", "latents: 3"]
    images = cluster(
        latents.stack(sample=("y", "x")).drop_vars(["sample", "y", "x"]), "kmeans", k=2
    )
    assert images.dims == ("sample",)


def test_what_says_nothing_is_told() -> None:
    latents, _ = blobs()
    flat = latents.copy()
    flat[..., 1], flat[..., 2] = 7.0, np.random.default_rng(0).normal(0, 1e-3, latents.shape[:2])
    labels = cluster(flat, k=2)
    text = " ".join(labels.attrs["warnings"])
    assert labels.attrs["features"] == ["latents: 0", "latents: 2"]
    assert "latents: 1: one value only" in text
    assert "all points are noise" in cluster(latents, "dbscan", eps=1e-6).attrs["warnings"][0]
    equal = xr.DataArray(
        np.repeat([[0.0, 0.0], [3, 1], [9, 9]], [50, 40, 30], axis=0), dims=("sample", "latent")
    )
    with pytest.raises(DataError, match="many are equal"):
        cluster(equal, "dbscan")


few = xr.zeros_like(blobs()[1], dtype=bool).copy()
few[0, :2] = True
LATENTS = blobs()[0]


@pytest.mark.parametrize(
    ("data", "options", "error", "words"),
    [
        (LATENTS.rename(latent="pca_component"), {"latents": (0,)}, UsageError, "are no latents"),
        ((LATENTS > 5.5).astype(float), {"scale": "robust"}, DataError, "use scale='standard'"),
        (LATENTS.rename(y="row", x="column"), {}, SchemaError, "none of y, x, z or sample"),
        (LATENTS.expand_dims(other=2), {}, SchemaError, "at most one further dim"),
        (LATENTS, {"roi": few}, RoiError, "2 scan points are left"),
        (LATENTS.where(LATENTS["latent"] > 0), {}, RoiError, r"Missing there: {'latents: 0': 270"),
        (LATENTS[:1], {"method": "hdbscan"}, UsageError, "too few for min_cluster_size=20"),
    ],
)
def test_refusals(
    data: xr.DataArray, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        cluster(data, **options)


# ---- of clusters -----------------------------------------------------------------------------------------------------


def codes_map(values: np.ndarray, **coords: object) -> xr.DataArray:
    return xr.DataArray(values, coords, ("z", "y", "x")[-values.ndim :], name="clusters")


def test_borders_lie_between_the_cells_in_coordinate_units() -> None:
    labels = codes_map(np.array([[0, 1], [0, 1], [0, -1]]), y=[1.0, 1.5, 2.0], x=[10, 14])
    for one in (labels, labels.transpose("x", "y")):
        np.testing.assert_allclose(boundary_segments(one), [[12, 0.75, 12, 1.75]])
    with pytest.raises(SchemaError, match="fractions"):
        boundary_segments(labels + 0.5)
