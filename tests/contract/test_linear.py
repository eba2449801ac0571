"""Linear models: PCA against scikit-learn, NMF against scipy's NNLS, the automatic number,
refusals.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.optimize
import xarray as xr
from sklearn.decomposition import PCA

import vaearr as va
from vaearr import testing
from vaearr.errors import UsageError
from vaearr.views import save

from . import inputs
from .harness import attributes, nested, vaearr, zarr

WHOLE = ("--set", "split.fraction=0")


def measured(store: Path) -> tuple[np.ndarray, np.ndarray]:
    """Where patterns are, and the patterns there as rows, divided by their mean."""
    ds = zarr(store)
    there = ds.present.values.astype(bool)
    rows = ds.patterns.values[there].reshape(there.sum(), -1).astype(float)
    return there, rows / rows.mean(0)


def fitted(store: Path, run: str, model: str, *options: object) -> va.Run:
    """A linear run of all points, encoded."""
    vaearr("train", store, "--run", run, "--model", model, *WHOLE, *options)
    vaearr("encode", store, "--run", run)
    return va.load_run(store, run)


def test_pca_is_that_of_scikit_learn(known_template: Path) -> None:
    run, ds = va.load_run(known_template, "pca"), zarr(known_template)
    there, rows = measured(known_template)
    rows = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    theirs = PCA(4, svd_solver="full").fit(rows)
    health = run.health
    np.testing.assert_allclose(health.explained_variance, theirs.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(
        health.explained_variance_ratio, theirs.explained_variance_ratio_, rtol=1e-4
    )
    np.testing.assert_allclose(
        health.explained_variance_cumulative, np.cumsum(health.explained_variance_ratio)
    )
    assert health.attrs["explained_variance"] == pytest.approx(
        float(health.explained_variance_ratio.sum()), abs=1e-3
    )
    ours = run.components.values.reshape(4, -1)
    sign = np.sign((ours * theirs.components_).sum(1))
    np.testing.assert_allclose(ours * sign[:, None], theirs.components_, atol=1e-3)
    assert (
        ours[np.arange(4), np.abs(ours).argmax(1)] > 0
    ).all()  # so that signs do not change by chance
    scores = ds.latents_pca.values
    np.testing.assert_allclose(
        scores[there] * sign, theirs.transform(rows), atol=1e-3 * scores[there].std()
    )
    assert np.isnan(scores[~there]).all()
    back = run.decode(theirs.transform(rows) * sign)
    np.testing.assert_allclose(
        back.reshape(len(rows), -1), theirs.inverse_transform(theirs.transform(rows)), atol=2e-3
    )


def test_components_of_training_points_alone(scan_store: Path) -> None:
    vaearr("train", scan_store, "--run", "pca", "--model", "pca", "--latent-dim", 3)
    ds = zarr(scan_store)
    assert 0 < (ds.split_pca == 2).sum() < (ds.split_pca == 1).sum()
    rows = ds.patterns.values[ds.split_pca.values == 1].astype(float).reshape(-1, 400)
    rows /= rows.mean(0)
    rows = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    found = va.load_run(scan_store, "pca").health.explained_variance
    np.testing.assert_allclose(
        found, PCA(3, svd_solver="full").fit(rows).explained_variance_, rtol=1e-4
    )


def test_all_steps_work_on_a_linear_run(known_store: Path, tmp_path: Path) -> None:
    run = va.load_run(known_store, "pca")
    vaearr("associate", known_store, "--run", "pca")
    vaearr(
        "cluster", known_store, "--run", "pca", "--method", "kmeans", "--k", 3, "--name", "of_pca"
    )
    vaearr("probe", known_store, "--run", "pca", "--target", "BC")
    vaearr("reconstruct", known_store, "--run", "pca")
    vaearr("look", "traverse", known_store, "--run", "pca", "--out", tmp_path / "t.png")
    assert "pca, 4 latent dimensions" in vaearr("info", known_store).out
    assert run.model.reconstruct(run.ds.patterns[0, :3]).shape == (3, 20, 20)
    assert len(va.view(run.components)) > 0
    assert va.view(run.health.explained_variance_ratio) is not None
    found = va.compare([run, va.load_run(known_store, "nmf")])
    assert found.run.values.tolist() == ["pca", "nmf"]
    assert found.explained_variance[0] == run.health.attrs["explained_variance"]
    best = abs(va.associate(run.latents, run.ds.BC, "pearson")).max()
    assert float(found.association.sel(run="pca", target="BC")) == pytest.approx(float(best))
    assert np.isfinite(found.psnr[0])
    assert np.isfinite(found.score.sel(run="pca", target="BC"))
    save(va.view(found), tmp_path / "runs.png")
    assert (tmp_path / "runs.png").stat().st_size > 5000


def test_nmf_is_least_squares_without_negative_amounts(known_template: Path) -> None:
    run, ds = va.load_run(known_template, "nmf"), zarr(known_template)
    there, rows = measured(known_template)
    ends = run.components.values.reshape(3, -1).astype(float)
    amounts, misfit = zip(*(scipy.optimize.nnls(ends.T, row) for row in rows), strict=True)
    np.testing.assert_allclose(ds.latents_nmf.values[there], amounts, atol=1e-4)
    squares = np.square(misfit) / rows.shape[1]
    np.testing.assert_allclose(ds.reconstruction_error_nmf.values[there], squares, rtol=1e-3)
    told = run.manifest["fit"]
    assert told["mse"] == pytest.approx(squares.mean(), rel=1e-4)
    assert told["r2"] == pytest.approx(1 - squares.mean() / rows.var(0).mean(), rel=1e-4)
    assert np.isnan(ds.latents_nmf.values[~there]).all()


def test_endmembers_by_coordinate_and_by_class(known_store: Path) -> None:
    points = ((2.0, 1.0), (4.5, 3.0))
    run = fitted(
        known_store, "ends", "nmf", "--set", f"model.options.endmembers={[list(p) for p in points]}"
    )
    there, rows = measured(known_store)
    grid = np.full((*there.shape, rows.shape[1]), np.nan)
    grid[there] = rows
    for i, (x, y) in enumerate(points):
        row, column = round(y / inputs.STEP), round(x / inputs.STEP)
        window = grid[row - 1 : row + 2, column - 1 : column + 2].reshape(9, -1).mean(0)
        np.testing.assert_allclose(run.components[i].values.ravel(), window, rtol=1e-4)
    run = fitted(known_store, "classes", "nmf", "--set", "model.options.classes=phase")
    phase = zarr(known_store).phase.values
    np.testing.assert_allclose(
        run.components[0].values.ravel(), grid[(phase == 0) & there].mean(0), rtol=1e-4
    )


def test_nmf_explains_elements_too(tmp_path: Path) -> None:
    data = testing.synthetic_scan(nx=20, ny=14, pattern_shape=(12, 13), n_grains=4, seed=2)
    data["elements"] = data.elements.where(data.elements.x > float(data.x[1]))
    store = tmp_path / "scan.zarr"
    va.ingest(data, store)
    options = ("--latent-dim", 3, "--set", 'model.options={"elements": ["Fe", "Ni"], "weight": 2}')
    run, ds = fitted(store, "nmf", "nmf", *options), zarr(store)
    there = np.isfinite(ds.elements.values).all(0)
    assert np.isnan(ds.latents_nmf.values[~there]).all()
    _, rows = measured(store)
    rows = rows.reshape(*there.shape, -1)
    content = ds.elements.sel(element=["Fe", "Ni"]).values[:, there].T.astype(float)
    ends, contents = run.components.values.reshape(3, -1), run.model.network.contents.numpy()
    scale = np.sqrt(rows.reshape(-1, rows.shape[-1]).var(0).sum())
    weight = np.sqrt(2 / (content.var(0).mean() * 2))
    joined = np.hstack([rows[there] / scale, content * weight])
    wanted = [
        scipy.optimize.nnls(np.hstack([ends / scale, contents * weight]).T, row)[0]
        for row in joined
    ]
    np.testing.assert_allclose(ds.latents_nmf.values[there], wanted, atol=1e-4)


def stick(pieces: int) -> np.ndarray:
    """Expected lengths of the pieces of a stick broken at random, the largest first."""
    return np.cumsum((1 / np.arange(1, pieces + 1))[::-1])[::-1] / pieces


def rich_scan(path: Path, components: int) -> Path:
    """20 x 20 points of 20 x 20 pixels: so many components, each well above a broken stick's piece,
    nothing else.
    """
    rng = np.random.default_rng(0)
    shapes = np.linalg.qr(rng.normal(size=(400, components)))[0].T
    amounts = np.linalg.qr(rng.normal(size=(400, components)))[0] * np.sqrt(stick(399)[:components])
    values = amounts @ shapes
    with h5py.File(path, "w") as file:
        file["images"] = (
            (128 + values * (25 / values.std())).clip(0, 255).astype("uint8").reshape(-1, 20, 20)
        )
        file["coords"] = np.argwhere(np.ones((20, 20)))[:, ::-1].astype("int32")
    return path


def test_an_automatic_number_at_its_limit_is_told(tmp_path: Path) -> None:
    store = tmp_path / "rich.zarr"
    vaearr("ingest", rich_scan(tmp_path / "rich.h5", 80), store)
    done = vaearr("train", store, "--run", "auto", "--model", "pca", "--latent-dim", "auto", *WHOLE)
    (warning,) = (line for line in done.err.splitlines() if "The knee" in line)
    assert "64 components" in warning
    assert "latent_dim" in warning
    assert va.load_run(store, "auto").health.sizes["latent"] == 64
    assert "created with the same settings" in str(
        vaearr(
            "train", store, "--run", "auto", "--model", "pca", "--latent-dim", "auto", *WHOLE
        ).err
    )


def test_an_automatic_number_below_its_limit_is_just_taken(tmp_path: Path) -> None:
    store = tmp_path / "few.zarr"
    vaearr("ingest", rich_scan(tmp_path / "few.h5", 9), store)
    run = fitted(store, "pca", "pca", "--latent-dim", "auto")
    ratio = run.health.explained_variance_ratio.values
    assert zarr(store).latents_pca.sizes["latent_pca"] == len(ratio) <= 9
    assert (ratio > stick(399)[: len(ratio)]).all()


def test_collections_colours_and_volumes(images_store: Path, tmp_path: Path) -> None:
    assert fitted(images_store, "pca", "pca", "--latent-dim", 3).components.dims[0] == "component"
    store = tmp_path / "volumes.zarr"
    volumes = testing.synthetic_volumes(4, seed=3)
    va.ingest(testing.write_volume_files(volumes, tmp_path / "files"), store)
    run = fitted(
        store, "pca", "pca", "--latent-dim", 2
    )  # more values than a covariance is formed of
    rows = run.model.preprocess(
        run.model.preprocess.background.new_tensor(run.ds.patterns.values)[:, None]
    ).flatten(1)
    theirs = PCA(2, svd_solver="full").fit(rows.numpy())
    np.testing.assert_allclose(run.health.explained_variance, theirs.explained_variance_, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("pca", "--latent-dim", 5000), "a value of 4096 or less"),
        (("pca", "--latent-dim", 400), "at most 371 components"),
        (("pca", "--epochs", 3), "leave out epochs"),
        (("conv", "--latent-dim", "auto"), "'auto' is for pca"),
        (("nmf", "--latent-dim", "auto"), "a number of endmembers"),
        (
            ("nmf", "--latent-dim", 90),
            "different reference windows were found, 90 are needed",
        ),
        (("nmf", "--set", "model.options.endmembers=[[99, 1]]"), "99"),
        (("nmf", "--set", "model.options.endmembers=[[2, 1], [2, 1]]"), "depend on each other"),
        (("nmf", "--set", "model.options.classes=phases"), "'phase'"),
        (("nmf", "--latent-dim", 2, "--set", 'model.options.elements=["Xx"]'), "Xx"),
        (("pca", "--restart"), "leave out"),
        (("pca", "--resume", "nothing.safetensors"), "leave out"),
        (("nmf", "--set", "preprocess.normalise=zscore"), "non-negative amounts"),
    ],
)
def test_refusals(scan_template: Path, options: tuple[object, ...], words: str) -> None:
    done = vaearr("train", scan_template, "--run", "no", *WHOLE, "--model", *options, code=None)
    assert done.code in (2, 65, 66)
    assert words in done.error


def test_a_linear_run_of_a_dataset_in_steps(scan_store: Path) -> None:
    ds = va.crop(va.open_store(scan_store), dy=(2, 18))
    run = va.train(ds, run="cropped", model="pca", latent_dim=2)
    with pytest.raises(UsageError, match="not the store's own"):
        va.encode(scan_store, run="cropped")
    va.encode(ds, run="cropped")
    assert xr.open_zarr(scan_store).latents_cropped.sizes["latent_cropped"] == 2
    assert nested(attributes(scan_store, "latents_cropped")["provenance"])["run"] == "cropped"
    assert run.manifest["latent_dim"] == 2
