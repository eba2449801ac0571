"""Datasets as objects of other packages: HyperSpy signals, AnnData."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vaearr as va
from vaearr.errors import MissingExtraError


def test_a_hyperspy_signal_has_the_same_values_and_axes(trained_template: Path) -> None:
    pytest.importorskip("hyperspy", reason="HyperSpy is not installed")
    ds = va.open_store(trained_template)
    signal = ds.vae.to_hyperspy()
    assert signal._lazy
    assert type(signal).__name__ in ("LazyEBSD", "LazySignal2D")
    np.testing.assert_array_equal(signal.inav[3, 2].data, ds.patterns[2, 3])
    for axis, dim in zip(signal.axes_manager._axes, ("y", "x", "dy", "dx"), strict=True):
        assert (axis.name, axis.size) == (dim, ds.sizes[dim])
        np.testing.assert_allclose(axis.offset + axis.scale * np.arange(axis.size), ds[dim], atol=1e-9)
    assert signal.axes_manager["x"].units == ds.x.attrs["units"]
    whole = va.to_hyperspy(ds.BC.compute())
    np.testing.assert_array_equal(whole.data, ds.BC)
    assert [axis.name for axis in whole.axes_manager.navigation_axes] == ["x", "y"]


def test_an_anndata_holds_latents_maps_and_places(trained_template: Path, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata", reason="anndata is not installed")
    ds = va.open_store(trained_template)
    found = va.to_anndata(ds)
    inside = ds.roi.values
    np.testing.assert_array_equal(found.X, ds.latents.values[inside])
    np.testing.assert_array_equal(found.obs["BC"], ds.BC.values[inside])
    np.testing.assert_array_equal(
        found.obsm["spatial"], np.stack([ds.x.values[np.nonzero(inside)[1]], ds.y.values[np.nonzero(inside)[0]]], 1)
    )
    np.testing.assert_array_equal(found.obsm["pca"], ds.pca.values[inside])
    codes = ds.grains.values[inside]
    for code in np.unique(codes[codes >= 0]):
        assert set(found.obs["grains"][codes == code]) == {f"cluster_{code}"}
    found.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.X, found.X)
    assert again.uns["vaearr"]["run"] == "vae"


def test_packages_are_asked_for(trained_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaearr.errors.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install"):
        va.to_anndata(trained_template)
    with pytest.raises(MissingExtraError, match="pip install"):
        va.to_hyperspy(va.open_store(trained_template))
