"""Decompositions: PCA against scikit-learn, NMF against scipy's NNLS, the automatic number, refusals."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.optimize
from sklearn.decomposition import PCA

import vaearr as va
from vaearr.errors import UsageError

from . import inputs
from .harness import attributes, nested, tree, vaearr, zarr

RUN = ("--run", "theirs")


def measured(store: Path) -> tuple[np.ndarray, np.ndarray]:
    """Where patterns are, and the patterns there as rows, divided by their mean."""
    ds = zarr(store)
    there = ds.present.values.astype(bool)
    rows = ds.patterns.values[there].reshape(there.sum(), -1).astype(float)
    return there, rows / rows.mean(0)


def test_pca_is_that_of_scikit_learn(known_template: Path) -> None:
    ds = zarr(known_template)
    there, rows = measured(known_template)
    told = nested(attributes(known_template, "pca")["preprocess"])
    assert (told["static_background"], told["normalise"], told["dynamic_background"]) == ("divide", "zscore", 0.0)
    np.testing.assert_allclose(ds.pca_background, ds.patterns.values[there].mean(0), rtol=1e-5)
    rows = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    theirs = PCA(4, svd_solver="full").fit(rows)
    np.testing.assert_allclose(ds.pca_explained_variance, theirs.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(ds.pca_explained_variance_ratio, theirs.explained_variance_ratio_, rtol=1e-4)
    np.testing.assert_allclose(ds.pca_explained_variance_cumulative, np.cumsum(ds.pca_explained_variance_ratio))
    np.testing.assert_allclose(ds.pca_mean.values.ravel(), theirs.mean_, atol=1e-5)
    ours = ds.pca_components.values.reshape(4, -1)
    sign = np.sign((ours * theirs.components_).sum(1))
    np.testing.assert_allclose(ours * sign[:, None], theirs.components_, atol=1e-3)
    assert (ours[np.arange(4), np.abs(ours).argmax(1)] > 0).all()  # so that signs do not change by chance
    np.testing.assert_allclose(
        ds.pca.values[there] * sign, theirs.transform(rows), atol=1e-3 * ds.pca.values[there].std()
    )
    assert np.isnan(ds.pca.values[~there]).all()


def test_nmf_is_least_squares_without_negative_amounts(known_template: Path) -> None:
    ds = zarr(known_template)
    there, rows = measured(known_template)
    ends = ds.nmf_components.values.reshape(3, -1).astype(float)
    amounts, misfit = zip(*(scipy.optimize.nnls(ends.T, row) for row in rows), strict=True)
    np.testing.assert_allclose(ds.nmf.values[there], amounts, atol=1e-4)
    squares = np.square(misfit) / rows.shape[1]
    np.testing.assert_allclose(ds.nmf_residual.values[there], squares, rtol=1e-3)
    told = attributes(known_template, "nmf")
    assert told["mse"] == pytest.approx(squares.mean(), rel=1e-4)
    assert told["r2"] == pytest.approx(1 - squares.mean() / rows.var(0).mean(), rel=1e-4)
    assert np.isnan(ds.nmf.values[~there]).all()


def test_endmembers_by_coordinate_are_windows_of_nine_points(known_store: Path) -> None:
    points = ((2.0, 1.0), (4.5, 3.0))
    options = [option for x, y in points for option in ("--endmember", f"{x}:{y}")]
    vaearr("embed", known_store, *RUN, "--method", "nmf", "--name", "ends", *options)
    there, rows = measured(known_store)
    grid = np.full((*there.shape, rows.shape[1]), np.nan)
    grid[there] = rows
    for i, (x, y) in enumerate(points):
        row, column = round(y / inputs.STEP), round(x / inputs.STEP)
        window = grid[row - 1 : row + 2, column - 1 : column + 2].reshape(9, -1).mean(0)
        np.testing.assert_allclose(zarr(known_store).ends_components.values[i].ravel(), window, rtol=1e-4)


def stick(pieces: int) -> np.ndarray:
    """Expected lengths of the pieces of a stick broken at random, the largest first."""
    return np.cumsum((1 / np.arange(1, pieces + 1))[::-1])[::-1] / pieces


def rich_scan(path: Path, components: int) -> Path:
    """20 x 20 points of 20 x 20 pixels: so many components, each well above a broken stick's piece, nothing else."""
    rng = np.random.default_rng(0)
    shapes = np.linalg.qr(rng.normal(size=(400, components)))[0].T
    amounts = np.linalg.qr(rng.normal(size=(400, components)))[0] * np.sqrt(stick(399)[:components])
    values = amounts @ shapes
    with h5py.File(path, "w") as file:
        file["images"] = (128 + values * (25 / values.std())).clip(0, 255).astype("uint8").reshape(-1, 20, 20)
        file["coords"] = np.argwhere(np.ones((20, 20)))[:, ::-1].astype("int32")
    return path


def test_an_automatic_number_at_its_limit_is_told(tmp_path: Path) -> None:
    store = tmp_path / "rich.zarr"
    vaearr("ingest", rich_scan(tmp_path / "rich.h5", 80), store)
    done = vaearr("embed", store, "--components", "none", "--name", "auto")
    (warning,) = (line for line in done.out.splitlines() if line.startswith("warning: "))
    assert "64 components" in warning
    assert "--components" in warning  # which the command has:
    told = attributes(store, "auto")
    assert told["knee_at_bound"] == 1
    assert told["warnings"] == [warning.removeprefix("warning: ")]
    assert zarr(store)["auto"].sizes["auto_component"] == 64
    assert "warning" not in vaearr("embed", store, "--components", 70, "--name", "given").out


def test_an_automatic_number_below_its_limit_is_just_taken(tmp_path: Path) -> None:
    store = tmp_path / "few.zarr"
    vaearr("ingest", rich_scan(tmp_path / "few.h5", 9), store)
    assert "warning" not in vaearr("embed", store, "--set", "n_components=null").out
    assert attributes(store, "pca")["knee_at_bound"] == 0
    ratio = zarr(store).pca_explained_variance_ratio.values
    assert zarr(store).pca.sizes["pca_component"] == len(ratio) <= 9
    assert (ratio > stick(399)[: len(ratio)]).all()


def test_the_same_again_is_there_already_and_other_settings_are_refused(known_store: Path) -> None:
    before = tree(known_store)
    assert "already" in vaearr("embed", known_store, *RUN, "--components", 4).err
    assert "--name" in vaearr("embed", known_store, *RUN, "--components", 5, code=73).error
    assert "--name" in vaearr("embed", known_store, *RUN, "--name", "BC", code=73).error
    assert tree(known_store) == before


def test_a_run_stands_for_its_store_and_means_nothing_for_a_dataset(known_store: Path) -> None:
    ds = va.embed_store(va.load_run(known_store, "theirs"), n_components=3, name="by_run")
    again = va.embed_store(va.open_store(known_store), run="theirs", n_components=3, name="by_run")
    np.testing.assert_array_equal(ds.by_run, again.by_run)
    with pytest.raises(UsageError, match=r"run is a setting of va\.embed_store.*va\.embed takes arrays"):
        va.embed(ds, run="nonsense")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--method", "tsne"), 2, "pca"),
        (("--components", "many"), 2, "n_components"),
        (("--components", 5000, "--name", "many"), 2, "at most 371"),
        (("--name", "latents"), 2, "--name"),
        (("--clusters", "phase"), 2, "--method nmf"),
        (("--method", "nmf", "--name", "far", "--endmember", "99:1"), None, "99"),
        (("--method", "nmf", "--name", "odd", "--endmember", "1"), 2, "--endmember"),
        (("--method", "nmf", "--name", "odd", "--clusters", "phases"), 2, "'phase'"),
        (("--run", "ours"), 66, "theirs"),
    ],
)
def test_refusals(known_template: Path, options: tuple[object, ...], code: int | None, words: str) -> None:
    run = () if "--run" in options else RUN
    done = vaearr("embed", known_template, *run, *options, code=code)
    assert done.code in (2, 65, 66)
    assert words in done.error
