"""Latent against target as density: no point is lost, no stripes, quantiles where they belong."""

from __future__ import annotations

from typing import Any

import bokeh.models as bm
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vaearr import plots
from vaearr.errors import NoInputError, RoiError, SchemaError
from vaearr.plots import density, static
from vaearr.plots.common import holoviews
from vaearr.plots.maps import latent_map


@pytest.fixture
def pair() -> tuple[xr.DataArray, xr.DataArray]:
    """A latent and whole numbers that go with it, 60 x 50 scan points, one missing."""
    rng = np.random.default_rng(0)
    latent = xr.DataArray(rng.normal(size=(60, 50)).astype("f4"), dims=("y", "x"), name="latent 2")
    target = np.rint(latent * 20 + rng.normal(size=(60, 50)) * 5 + 120).astype("f4")
    target[0, 0] = np.nan
    return latent, target.rename("BC")


def _render(element: Any) -> Any:
    return holoviews().render(element, backend="bokeh")


@given(arrays("f8", st.integers(2, 300), elements=st.floats(-1e6, 1e6)), st.booleans())
def test_every_point_is_counted(values: np.ndarray, whole: bool) -> None:
    values = np.rint(values) if whole else values
    count, across, up = density.counts_of(values, values[::-1].copy())
    assert np.nansum(count) == values.size
    assert count.shape == (up.size - 1, across.size - 1)


def test_whole_numbers_fall_evenly_into_bins() -> None:
    edges = density.bin_edges(np.arange(256.0), 48)
    each = np.histogram(np.arange(256), edges)[0]
    assert set(each[:-1]) == {6}


def test_quantiles_rise_and_follow(pair: tuple[xr.DataArray, xr.DataArray]) -> None:
    both = density.pair_of(*pair)
    middle, levels = density.running_quantiles(both.x, both.y)
    assert (np.diff(middle) > 0).all()
    assert (np.diff(levels, axis=0) >= 0).all()
    np.testing.assert_allclose(levels[1], 120 + 20 * middle, atol=4)
    assert density.running_quantiles(both.x[:20], both.y[:20])[0].size == 0


def test_many_points_become_a_density_few_stay_points(ds: xr.Dataset, pair: tuple[xr.DataArray, xr.DataArray]) -> None:
    figure = _render(plots.density_plot(*pair))
    assert isinstance(figure.select_one({"type": bm.ColorMapper}), bm.LogColorMapper)
    assert figure.title.text.endswith("n = 2,999")
    few = _render(plots.density_plot(latent_map(ds, "vae", 0), ds["BC"], roi=ds["roi"]))
    assert few.title.text.endswith("n = 54")
    assert list(few.select({"type": bm.Scatter}))


def test_panels_share_one_scale(ds: xr.Dataset, pair: tuple[xr.DataArray, xr.DataArray]) -> None:
    latent, target = pair
    figure = static.density_sheet([latent, latent**3, -latent, latent], target, columns=3)
    limits = {ax.collections[0].get_clim() for ax in figure.axes[:4]}
    assert len(limits) == 1
    assert figure.axes[2].get_title().startswith("r = −0.9")
    static.density_sheet([latent_map(ds, "vae", 0)], ds["BC"]).draw_without_rendering()


def test_refusals(pair: tuple[xr.DataArray, xr.DataArray]) -> None:
    latent, target = pair
    with pytest.raises(SchemaError, match="same grid"):
        plots.density_plot(latent, target.isel(y=slice(5)))
    with pytest.raises(RoiError, match="no scan point"):
        plots.density_plot(latent, target, roi=xr.zeros_like(target, dtype=bool))
    with pytest.raises(NoInputError, match="no latent"):
        static.density_sheet([], target)
