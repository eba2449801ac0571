"""Histogram, profiles, component images, explained variance."""

from __future__ import annotations

from typing import Any

import bokeh.models as bm
import numpy as np
import pytest
import xarray as xr

from vaearr import plots
from vaearr.errors import NoInputError, SchemaError
from vaearr.plots import contrast, static
from vaearr.plots.common import holoviews
from vaearr.side_maps import histogram, profile


def _render(element: Any) -> Any:
    return holoviews().render(element, backend="bokeh")


def test_bars_stand_on_their_bins(ds: xr.Dataset) -> None:
    found = histogram(ds["BC"], 10)
    figure = _render(plots.histogram_plot(found))
    data = figure.select_one({"type": bm.GlyphRenderer}).data_source.data
    np.testing.assert_allclose(data["left"], found["bin"])
    np.testing.assert_allclose(data["right"] - data["left"], 10)
    assert figure.title.text == "n = 108, bins of 10"
    bars = static.contrast_sheet(ds["BC"], found).axes[1]
    assert [patch.get_height() for patch in bars.patches] == found["count"].values.tolist()


def test_profiles_are_marked_where_they_were_taken(ds: xr.Dataset) -> None:
    taken = [profile(ds["BC"], y=1.5), profile(ds["BC"], y=[2.0, 2.5])]
    assert [(name, rows) for _, name, _, rows in contrast.as_profiles(taken)] == [
        ("y = 1.5", [1.5]),
        ("mean of 2 at y = 2 … 2.5", [2.0, 2.5]),
    ]
    layout = _render(plots.profile_plot(ds["BC"], taken, roi=ds["roi"]))
    assert sorted(span.location for span in layout.select({"type": bm.Span})) == [1.5, 2.0, 2.5]
    figure = static.contrast_sheet(ds["BC"], histogram(ds["BC"], 10), taken, roi=ds["roi"])
    curve = next(ax for ax in figure.axes if ax.get_legend()).lines[0]
    np.testing.assert_allclose(curve.get_xdata(), ds["x"])
    np.testing.assert_allclose(curve.get_ydata(), ds["BC"].sel(y=1.5))
    column = profile(ds["BC"], x=1.0)
    assert _render(plots.profile_plot(ds["BC"], column)) is not None
    static.contrast_sheet(ds["BC"], histogram(ds["BC"]), column).draw_without_rendering()


def test_contrast_refusals(ds: xr.Dataset) -> None:
    with pytest.raises(SchemaError, match=r"vaearr\.side_maps\.histogram"):
        plots.histogram_plot(ds[["BC"]])
    with pytest.raises(SchemaError, match="a profile runs along"):
        plots.profile_plot(ds["BC"], ds["BC"])


@pytest.fixture
def components() -> xr.DataArray:
    """Five images of 6 x 8 values with one channel."""
    values = np.random.default_rng(0).normal(size=(5, 1, 6, 8)).astype("f4")
    return xr.DataArray(values, dims=("pca_component", "channel", "dy", "dx"), name="pca_components")


def test_signed_images_are_centred_and_others_grey(components: xr.DataArray) -> None:
    ratio = xr.DataArray([0.4, 0.3, 0.1, 0.05, 0.01], dims="pca_component")
    figure = static.component_sheet(components, ratio, most=4)
    assert len(figure.axes) == 4
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high
    assert figure.axes[1].get_title() == "1: 30.0%"
    grey = static.component_sheet(abs(components)).axes[0].images[0]
    assert grey.get_cmap().name == "gray"
    assert _render(plots.component_images(components, [0, 3])) is not None
    with pytest.raises(SchemaError, match="expected"):
        static.component_sheet(components[0, 0])
    with pytest.raises(NoInputError, match="cannot be shown"):
        plots.component_images(components, [7])


def test_variance_and_its_knee() -> None:
    ratio = xr.DataArray([0.4, 0.3, 0.1, 0.05, 0.0], dims="pca_component", name="ratio")
    figure = _render(plots.variance_curve(ratio, knee=2))
    assert figure.title.text == "5 components: 85.0%, 2 before the knee: 70.0%"
    assert figure.select_one({"type": bm.Span}).location == 2.5
    paper = static.variance_sheet(ratio, knee=2)
    np.testing.assert_allclose(paper.axes[1].lines[0].get_ydata(), [0.4, 0.7, 0.8, 0.85, 0.85])
    paper.draw_without_rendering()
    assert not any("$" in text.get_text() for text in paper.axes[0].get_yticklabels())
    with pytest.raises(SchemaError, match="one value for each"):
        static.variance_sheet(ratio.expand_dims("y"))
    with pytest.raises(NoInputError, match="no component"):
        plots.variance_curve(ratio[:0])
