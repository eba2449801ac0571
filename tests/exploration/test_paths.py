"""Lines and points: evenly spread, at the positions they claim, exact where they can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import UsageError
from vaearr.exploration.paths import spread

path, embedding = va.explore.path, va.explore.embedding


def test_points_at_equal_distances_along_the_line() -> None:
    found = spread(np.array([[0.0, 0], [0, 0], [3, 0], [3, 1]]), 5)
    np.testing.assert_allclose(found, [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1]])
    with pytest.raises(UsageError, match="all the same"):
        spread(np.zeros((2, 2)), 3)
    with pytest.raises(UsageError, match="two points"):
        spread(np.zeros((1, 2)), 3)


def test_a_line_in_a_plane_of_latents(scan_path: Path, scan_ds: xr.Dataset) -> None:
    found = path(scan_path, points=[[0, 0], [1, 2]], dims=(2, 1), steps=3, base=[5, 0, 0])
    np.testing.assert_allclose(found["latents"], [[5, 0, 0], [5, 1, 0.5], [5, 2, 1]])
    np.testing.assert_allclose(found["decoded"], va.load_model(scan_path).decode(found["latents"].values), atol=1e-5)
    flat = scan_ds["latents"].values.reshape(-1, 3)[found["number"].values]
    np.testing.assert_allclose(found["scatter"], flat[:, [2, 1]])
    assert found["axis"].values.tolist() == ["latent 2", "latent 1"]


@pytest.mark.parametrize("kind", ["scan_path", "spatial_path"])
def test_pca_inverts_exactly(kind: str, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue(kind)
    asked = [[0.0, 0.0], [1.5, -0.7]]
    found = path(store, points=asked, space="pca")
    scatter = embedding(store, method="pca")
    z = found["latents"].values.reshape(2, -1) - scatter["mean"].values.ravel()
    components = scatter["components"].values.reshape(2, -1)
    np.testing.assert_allclose(z @ components.T, asked, atol=1e-5)
    np.testing.assert_allclose(z, np.asarray(asked) @ components, atol=1e-5)  # nothing beside the plane
    np.testing.assert_allclose(found["position"], asked, atol=1e-5)
    np.testing.assert_allclose(found["scatter"], scatter["position"])


def test_elsewhere_the_nearest_sample_is_decoded(scan_path: Path, scan_ds: xr.Dataset) -> None:
    scatter = embedding(scan_path, max_points=60)
    target = scatter["position"].values[[4, 20]]
    found = path(scan_path, points=target + 1e-6, space="tsne", scatter=scatter)
    np.testing.assert_array_equal(found["nearest"], [4, 20])
    np.testing.assert_allclose(found["position"], target)
    want = scan_ds["latents"].values.reshape(-1, 3)[scatter["number"].values[[4, 20]]]
    np.testing.assert_array_equal(found["latents"], want)


def test_refusals(scan_path: Path, spatial_path: Path) -> None:
    for wrong in ([], [1, 2], [[1, 2, 3]], [[np.nan, 0]], [["a", "b"]], [[1], [1, 2]]):
        with pytest.raises(UsageError, match="give one or more"):
            path(scan_path, points=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no space 'tnse'\. Did you mean 'tsne'"):
        path(scan_path, points=[[0, 0]], space="tnse")
    with pytest.raises(UsageError, match="give one of 'tsne'"):
        path(scan_path, points=[[0, 0]], space="tsne", scatter=embedding(scan_path, method="pca"))
    with pytest.raises(UsageError, match="pooled latents"):
        path(spatial_path, points=[[0, 0]], space="pca", scatter=embedding(spatial_path, method="pca", pooled=True))
