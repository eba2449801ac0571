"""Decompositions in a store: exact, resumable, the same again, refused where they cannot be made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import nnls as one_by_one
from sklearn.decomposition import PCA

import vaearr as va
from vaearr.config import EmbedConfig, PreprocessConfig
from vaearr.embedding import abundance_share, embed_store, pca_reconstruct
from vaearr.errors import DataError, ExistsError, NoInputError, RoiError, UsageError
from vaearr.models.preprocess import preprocess
from vaearr.provenance import nested
from vaearr.store import create_store, open_store
from vaearr.testing import assert_valid, random_patterns_dataset, synthetic_scan

CPU = {"device": "cpu"}


SCAN_STEPS = PreprocessConfig(static_background="divide", normalise="zscore")  # what auto means for a scan


def rows(ds: xr.Dataset, config: PreprocessConfig, background: np.ndarray, roi: np.ndarray) -> np.ndarray:
    seen = preprocess(ds.patterns.load(), config, background=background).values
    return seen[roi].reshape(int(roi.sum()), -1).astype(float)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ds = synthetic_scan(nx=20, ny=14, pattern_shape=(12, 13), n_grains=4, seed=2)
    return create_store(ds, tmp_path_factory.mktemp("synthetic") / "scan.zarr")


@pytest.fixture
def synthetic(template: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(template, tmp_path / "scan.zarr"))


def test_pca_of_all_points_without_a_run(scan_store: Path) -> None:
    ds = embed_store(scan_store, EmbedConfig(n_components=5, batch_size=7, **CPU))
    assert_valid(ds)
    assert ds.pca.dims == ("y", "x", "pca_component")
    assert ds.pca_components.dims == ("pca_component", "dy", "dx")
    roi = ds.present.values
    np.testing.assert_array_equal(np.isfinite(ds.pca.values).all(-1), roi)
    np.testing.assert_array_equal(np.isnan(ds.pca.values).all(-1), ~roi)
    background = ds.patterns.values[roi].mean(0, dtype=float)
    np.testing.assert_allclose(ds.pca_background.values, background, rtol=1e-5)
    seen = rows(ds, SCAN_STEPS, background, roi)
    wanted = PCA(5, svd_solver="full").fit(seen)
    signs = np.sign((wanted.components_ * ds.pca_components.values.reshape(5, -1)).sum(1))
    np.testing.assert_allclose(ds.pca.values[roi], wanted.transform(seen) * signs, atol=1e-4)
    np.testing.assert_allclose(ds.pca_explained_variance.values, wanted.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(ds.pca_explained_variance_ratio.values, wanted.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(
        ds.pca_explained_variance_cumulative.values, np.cumsum(wanted.explained_variance_ratio_), rtol=1e-6
    )
    assert nested(ds.pca.attrs, "provenance")["run"] is None
    assert nested(ds.pca.attrs, "provenance")["n"] == roi.sum()


def test_pca_sees_what_the_network_of_the_run_sees(trained_store: Path) -> None:
    ds = embed_store(trained_store, EmbedConfig(n_components=40, **CPU))
    assert_valid(ds)
    roi = ds.roi.values
    np.testing.assert_array_equal(np.isfinite(ds.pca.values).all(-1), roi)
    model = va.load_model(trained_store)
    background = model.preprocess.background.numpy()[0]
    np.testing.assert_array_equal(ds.pca_background.values, background)
    seen = rows(ds, model.preprocess_config, background, roi)
    back = pca_reconstruct(ds.pca, ds.pca_components, ds.pca_mean)
    left = back.values[roi].reshape(len(seen), -1) - seen
    explained = 1 - (left**2).sum() / ((seen - seen.mean(0)) ** 2).sum()
    assert explained == pytest.approx(float(ds.pca_explained_variance_cumulative[-1]), abs=1e-5)
    assert (
        nested(ds.pca.attrs, "provenance")["weights_sha256"] == nested(ds.latents.attrs, "provenance")["weights_sha256"]
    )


def test_the_knee_decides_where_no_number_is_given(synthetic: Path) -> None:
    ds = embed_store(synthetic, EmbedConfig().from_attrs({"n_components": None, **CPU}))
    assert ds.pca.attrs["knee"] == "broken stick"
    assert 1 <= ds.sizes["pca_component"] <= 64


def test_components_may_be_found_on_fewer_points(tmp_path: Path) -> None:
    store = create_store(synthetic_scan(nx=16, ny=16, pattern_shape=(8, 8), n_grains=3), tmp_path / "scan.zarr")
    ds = embed_store(store, EmbedConfig(n_components=3, max_points=100, **CPU))
    assert ds.pca.attrs["n_fitted"] == 100
    assert np.isfinite(ds.pca.values).all()


def test_again_is_a_no_op_and_other_settings_need_another_name(scan_store: Path) -> None:
    config = EmbedConfig(n_components=3, **CPU)
    embed_store(scan_store, config)
    stamp = (scan_store / "pca" / "zarr.json").stat().st_mtime_ns
    said: list[str] = []
    embed_store(scan_store, config.replace(batch_size=3), say=said.append)
    assert "already" in said[0]
    assert (scan_store / "pca" / "zarr.json").stat().st_mtime_ns == stamp
    with pytest.raises(ExistsError, match=r"already holds .*pca.*choose another name with name='…' \(--name\)"):
        embed_store(scan_store, config.replace(n_components=4))
    ds = embed_store(scan_store, config.replace(n_components=4, name="four"))
    assert ds.four.dims == ("y", "x", "four_component")
    assert "four_explained_variance_ratio" in ds


KILLED = """
import os, sys
from vaearr.config import EmbedConfig
from vaearr.embedding import embed_store
def stop(done, total):
    if done == 2:
        os._exit(9)
config = EmbedConfig.from_attrs({"method": sys.argv[2], "n_components": 3, "device": "cpu"})
embed_store(sys.argv[1], config, on_block=stop)
"""


@pytest.mark.parametrize("method", ["pca", "nmf"])
def test_killed_and_gone_on_with_bit_for_bit(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_patterns_dataset({"y": 40, "x": 70}, {"dy": 6, "dx": 7}, missing=4)
    whole, store = (create_store(data, tmp_path / f"{name}.zarr") for name in ("whole", "cut"))
    code = subprocess.run([sys.executable, "-c", KILLED, str(store), method], check=False).returncode
    assert code == 9
    assert method not in xr.open_zarr(store)
    config = EmbedConfig.from_attrs({"method": method, "n_components": 3, **CPU})
    want = embed_store(whole, config)
    from vaearr.embedding import stored

    def never(work: object) -> None:
        raise AssertionError("components looked for again")

    with monkeypatch.context() as patch:
        patch.setitem(stored.METHODS, method, stored.replace(stored.METHODS[method], fit=never))
        said: list[str] = []
        got = embed_store(store, config, say=said.append)
    assert said[0] == "going on with an interrupted decomposition: 2 blocks are done"
    for name in [str(v) for v in want.variables if str(v).startswith(method)]:
        np.testing.assert_allclose(got[name].values, want[name].values, rtol=1e-5, atol=1e-5)
        assert got[name].attrs.keys() == want[name].attrs.keys()


def test_nmf_amounts_are_those_of_scipy(synthetic: Path) -> None:
    ds = embed_store(synthetic, EmbedConfig(method="nmf", n_components=4, **CPU))
    assert_valid(ds)
    assert ds.nmf.dims == ("y", "x", "nmf_component")
    everywhere = np.ones(ds.nmf.shape[:2], bool)
    seen = rows(
        ds, PreprocessConfig(static_background="divide", normalise="none"), ds.nmf_background.values, everywhere
    )
    ends = ds.nmf_components.values.reshape(4, -1).astype(float)
    wanted = np.stack([one_by_one(ends.T, row)[0] for row in seen])
    np.testing.assert_allclose(ds.nmf.values.reshape(-1, 4), wanted, atol=1e-5)
    left = seen - wanted @ ends
    np.testing.assert_allclose(ds.nmf_residual.values.ravel(), (left**2).mean(1), rtol=1e-4)
    about = ds.nmf.attrs
    assert about["mse"] == pytest.approx((left**2).mean(), rel=1e-4)
    assert about["r2"] == pytest.approx(1 - (left**2).sum() / ((seen - seen.mean(0)) ** 2).sum(), rel=1e-4)
    assert [item["n"] for item in about["endmembers"]] == [9] * 4
    share = abundance_share(ds.nmf).sum("nmf_component")
    np.testing.assert_allclose(share.values, 1, atol=1e-6)
    for i, place in enumerate(about["endmembers"]):  # an endmember is the mean of its own window
        reach = 1.1 * float(ds.x[1] - ds.x[0])
        window = {dim: slice(place[dim] - reach, place[dim] + reach) for dim in ("y", "x")}
        own = ds.patterns.sel(window).mean(("y", "x"), dtype=float) / ds.nmf_background.values
        np.testing.assert_allclose(own.values, ds.nmf_components[i].values, rtol=1e-4)


def test_nmf_from_places_and_from_classes(synthetic: Path) -> None:
    ds = open_store(synthetic, chunks=None)
    places = ((float(ds.x[3]), float(ds.y[4])), (float(ds.x[15]), float(ds.y[10])))
    by_place = embed_store(synthetic, EmbedConfig(method="nmf", endmembers=places, name="places", **CPU))
    assert by_place.sizes["places_component"] == 2
    by_class = embed_store(synthetic, EmbedConfig(method="nmf", clusters="phase", name="phases", **CPU))
    found = by_class.phases.attrs["endmembers"]
    assert [item["class"] for item in found] == [0, 1]
    mean = ds.patterns.values[ds.phase.values == 0].mean(0, dtype=float) / by_class.phases_background.values
    np.testing.assert_allclose(by_class.phases_components[0].values, mean, rtol=1e-4)
    assert nested(by_class.phases.attrs, "provenance")["maps"].keys() == {"phase"}


def test_nmf_with_elements_weighs_both(synthetic: Path) -> None:
    config = EmbedConfig(method="nmf", n_components=3, elements=2.0, **CPU)
    ds = embed_store(synthetic, config)
    seen = rows(
        ds,
        PreprocessConfig(static_background="divide", normalise="none"),
        ds.nmf_background.values,
        np.ones(ds.nmf.shape[:2], bool),
    )
    content = ds.elements.transpose("y", "x", "element").values.reshape(len(seen), -1).astype(float)
    ends, of_ends = ds.nmf_components.values.reshape(3, -1).astype(float), ds.nmf_elements.values
    scale = np.sqrt(((seen - seen.mean(0)) ** 2).mean() * seen.shape[1])
    weight = np.sqrt(2 / (((content - content.mean(0)) ** 2).mean() * content.shape[1]))
    joined = np.hstack([seen / scale, content * weight])
    wanted = np.stack([one_by_one(np.hstack([ends / scale, of_ends * weight]).T, row)[0] for row in joined])
    np.testing.assert_allclose(ds.nmf.values.reshape(-1, 3), wanted, atol=1e-4)
    error = ((content - wanted @ of_ends) ** 2).mean()
    assert ds.nmf.attrs["mse_elements"] == pytest.approx(error, rel=1e-3)
    assert ds.nmf.attrs["r2_elements"] > 0


def test_points_without_elements_have_no_amounts(tmp_path: Path) -> None:
    data = synthetic_scan(nx=14, ny=12, pattern_shape=(8, 9), n_grains=3)
    data["elements"] = data.elements.where(data.elements.x > float(data.x[1]))
    store = create_store(data, tmp_path / "scan.zarr")
    ds = embed_store(store, EmbedConfig(method="nmf", n_components=2, elements=1.0, **CPU))
    assert np.isnan(ds.nmf.values[:, :2]).all()
    assert np.isnan(ds.nmf_residual.values[:, :2]).all()
    assert np.isfinite(ds.nmf.values[:, 2:]).all()
    assert ds.nmf_elements.attrs["n_missing"] == 24
    assert ds.nmf.attrs["n_fitted"] == 14 * 12 - 24


def test_collections_and_channels(tmp_path: Path) -> None:
    images = create_store(random_patterns_dataset({"sample": 30}), tmp_path / "images.zarr")
    assert embed_store(images, EmbedConfig(n_components=3, **CPU)).pca.dims == ("sample", "pca_component")
    with pytest.raises(UsageError, match="reference windows need a scan"):
        embed_store(images, EmbedConfig(method="nmf", n_components=3, **CPU))
    colour = random_patterns_dataset({"y": 5, "x": 6}, {"channel": 2, "dy": 8, "dx": 9}, dtype="uint16")
    ds = embed_store(create_store(colour, tmp_path / "colour.zarr"), EmbedConfig(n_components=3, **CPU))
    assert ds.pca_components.dims == ("pca_component", "channel", "dy", "dx")


def test_negative_patterns_have_no_amounts(tmp_path: Path) -> None:
    data = random_patterns_dataset({"y": 8, "x": 8}, dtype="float32")
    data["patterns"] = data.patterns - 0.2
    store = create_store(data, tmp_path / "scan.zarr")
    with pytest.raises(DataError, match="non-negative amounts, but preprocessed patterns go down to -"):
        embed_store(store, EmbedConfig(method="nmf", n_components=2, **CPU))
    assert embed_store(store, EmbedConfig(n_components=2, **CPU)).pca.shape == (8, 8, 2)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"run": "vaee"}, NoInputError, "has no run 'vaee'"),
        ({"name": "phase"}, UsageError, "has a meaning of its own"),
        ({"name": "BC"}, ExistsError, "already holds BC"),
        ({"n_components": 500}, UsageError, "n_components is 500; 74 scan points with 72 values each have at most 72"),
        ({"elements": 1.0}, UsageError, "settings of NMF"),
        ({"clusters": "phase"}, UsageError, "settings of NMF"),
        ({"method": "nmf", "n_components": None}, UsageError, "say how many endmembers"),
        ({"method": "nmf", "n_components": 60}, UsageError, "windows of 3 x 3 scan points, 60 are to be chosen"),
        ({"method": "nmf", "clusters": "phse"}, UsageError, "no map 'phse'"),
        ({"method": "nmf", "endmembers": [[1.0, 1.0], [1.0, 1.0]]}, DataError, "depend on each other"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_refusals(scan_store: Path, settings: dict[str, object], error: type, message: str) -> None:
    before = sorted(path.name for path in scan_store.iterdir())
    with pytest.raises(error, match=message):
        embed_store(scan_store, EmbedConfig.from_attrs({**CPU, **settings}))
    assert sorted(path.name for path in scan_store.iterdir()) == before
    assert not list(scan_store.parent.glob(".*staging/variables*"))


def test_elements_that_are_not_there(tmp_path: Path) -> None:
    data = random_patterns_dataset({"y": 8, "x": 8}).drop_vars(["elements", "element"])
    store = create_store(data, tmp_path / "scan.zarr")
    with pytest.raises(UsageError, match="the store has no 'elements'"):
        embed_store(store, EmbedConfig(method="nmf", n_components=2, elements=1.0, **CPU))


def test_one_point_is_too_few(tmp_path: Path) -> None:
    data = random_patterns_dataset({"y": 2, "x": 2}, missing=3)
    with pytest.raises(RoiError):
        embed_store(create_store(data, tmp_path / "scan.zarr"), EmbedConfig(n_components=1, **CPU))


def test_a_run_computed_elsewhere_has_a_region_and_no_network(tmp_path: Path) -> None:
    from vaearr.attaching import attach

    store = create_store(random_patterns_dataset({"y": 8, "x": 8}), tmp_path / "scan.zarr")
    values = np.random.default_rng(0).normal(size=(8, 8, 2))
    values[:3] = np.nan
    attach(store, values, run="b")
    ds = embed_store(store, EmbedConfig(run="b", n_components=3, **CPU))
    np.testing.assert_array_equal(np.isfinite(ds.pca.values).all(-1), ds.roi_b.values)
    assert nested(ds.pca.attrs, "preprocess") == SCAN_STEPS.to_attrs()
    assert nested(ds.pca.attrs, "provenance")["run"] == "b"
