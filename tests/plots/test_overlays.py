"""Boundaries, misorientation, outliers and windows over any map; elements as colours; sheets of scores."""

from __future__ import annotations

from typing import Any

import bokeh.models as bm
import numpy as np
import pytest
import xarray as xr

from vaearr import plots
from vaearr.errors import NoInputError, SchemaError, UsageError
from vaearr.plots import overlays, static
from vaearr.plots.common import holoviews
from vaearr.plots.maps import rgb_legend

SEGMENTS = np.array([[0.25, -0.25, 0.25, 1.25], [0.25, 1.25, 2.25, 1.25]])
BOXES = np.array([[0.25, 0.25, 1.75, 1.75], [3.0, 3.0, 4.0, 4.0]])


def _render(element: Any) -> Any:
    return holoviews().render(element, backend="bokeh")


@pytest.fixture
def kam(ds: xr.Dataset) -> xr.DataArray:
    """Misorientation with one extreme point and a hole."""
    values = np.random.default_rng(0).uniform(0, 1, (12, 9)).astype("f4")
    values[0, 0], values[3, 3] = 60, np.nan
    return ds["BC"].copy(data=values).rename("kam").assign_attrs(long_name="KAM", units="deg")


@pytest.fixture
def rgb(ds: xr.Dataset) -> xr.DataArray:
    """Three channels of an asymmetric map, one point missing."""
    values = np.zeros((12, 9, 3))
    values[2, 7] = [1, 0.5, 0]
    values[5, 5] = np.nan
    da = xr.DataArray(values, dims=("y", "x", "channel"), name="rgb", attrs={"elements": ["Fe", "Ni", "Cr"]})
    return da.assign_coords(x=ds["x"], y=ds["y"])


def test_all_overlays_keep_the_map_where_it_is(ds: xr.Dataset, kam: xr.DataArray) -> None:
    plain = _render(plots.map_plot(ds["BC"]))
    outliers = ds["BC"] > 250
    figure = _render(
        plots.map_plot(ds["BC"])
        * plots.kam_overlay(kam)
        * plots.boundary_overlay(SEGMENTS, color="red")
        * plots.outlier_overlay(outliers)
        * plots.window_overlay(BOXES, ["a", "b"])
    )
    for one, other in ((figure.x_range, plain.x_range), (figure.y_range, plain.y_range)):
        assert (one.start, one.end) == (other.start, other.end)
    lines = [g for g in figure.select({"type": bm.GlyphRenderer}) if isinstance(g.glyph, bm.Segment)]
    assert sorted(line.glyph.line_color for line in lines) == ["red", "white"]
    np.testing.assert_allclose(lines[1].data_source.data["x"], SEGMENTS[:, 0])
    circles = next(g for g in figure.select({"type": bm.GlyphRenderer}) if isinstance(g.glyph, bm.Scatter))
    assert len(circles.data_source.data["x"]) == int(outliers.sum())


def test_misorientation_is_capped_and_fades(kam: xr.DataArray) -> None:
    _, top = overlays.kam_values(kam, 95)
    assert top == pytest.approx(np.nanpercentile(kam.values, 95), rel=1e-5)
    assert top < 2
    alpha = overlays.fading("black")[:, 3]
    assert (alpha[0], alpha[-1]) == (0, 1)
    mapper = _render(plots.kam_overlay(kam)).select_one({"type": bm.LinearColorMapper})
    assert (mapper.low, mapper.high) == (0, pytest.approx(top))
    assert mapper.palette[0].endswith("00")
    assert _render(plots.kam_overlay(kam.isel(y=[0, 1, 5]))) is not None


def test_paper_map_carries_all_overlays(ds: xr.Dataset, kam: xr.DataArray) -> None:
    figure = static.map_sheet(
        ds["BC"], roi=ds["roi"], segments=SEGMENTS, kam=kam, outliers=ds["BC"] > 250, windows=BOXES,
        window_names=["a", "b"], cmap="gray", limits=(0, 255),
    )  # fmt: skip
    axes = figure.axes[0]
    assert axes.collections[0].get_clim() == (0, 255)
    assert [text.get_text() for text in axes.texts] == ["a", "b"]
    assert axes.get_xlim() == pytest.approx((-0.25, 4.25))
    figure.draw_without_rendering()


def test_window_of_a_point_holds_its_neighbours() -> None:
    np.testing.assert_allclose(overlays.window_of(1.0, 2.0, 0.5), [0.25, 1.25, 1.75, 2.75])
    with pytest.raises(UsageError, match="has no size"):
        overlays.window_of(1.0, 2.0, 0.0)


def test_overlay_refusals(ds: xr.Dataset, kam: xr.DataArray) -> None:
    with pytest.raises(SchemaError, match=r"expected \(n, 4\)"):
        plots.boundary_overlay(np.zeros((3, 2)))
    with pytest.raises(UsageError, match="percentile"):
        plots.kam_overlay(kam, cap=0)
    with pytest.raises(SchemaError, match="boolean map"):
        plots.outlier_overlay(ds["BC"])
    with pytest.raises(UsageError, match="2 windows and 1 names"):
        plots.window_overlay(BOXES, ["a"])


def test_colours_of_elements_lie_where_they_belong(rgb: xr.DataArray) -> None:
    figure = _render(plots.rgb_map(rgb, nan_color="#0000ff"))
    assert figure.y_range.start > figure.y_range.end
    image = next(g for g in figure.select({"type": bm.GlyphRenderer}) if isinstance(g.glyph, bm.ImageRGBA))
    packed = np.ascontiguousarray(image.data_source.data["image"][0])
    parts = packed.view("u1").reshape(*packed.shape, 4)
    y, height = image.data_source.data["y"][0], image.data_source.data["dh"][0]
    row, column = np.argwhere(parts[..., 0] == 255)[0]
    assert y + (row + 0.5) * height / 12 == pytest.approx(1.0)
    assert column == 7
    assert tuple(parts[row, column, :3]) in {(255, 127, 0), (255, 128, 0)}
    assert [item.label.value for item in figure.select_one({"type": bm.Legend}).items] == ["Fe", "Ni", "Cr", "missing"]
    axes = static.rgb_sheet(rgb, segments=SEGMENTS).axes[0]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    shown = np.asarray(axes.collections[0].get_array()).reshape(12, 9, 4)
    np.testing.assert_allclose(shown[2, 7], [1, 0.5, 0, 1])
    assert shown[5, 5, 3] == 0


def test_irregular_colour_maps_and_legends(ds: xr.Dataset, rgb: xr.DataArray) -> None:
    figure = _render(plots.rgb_map(rgb.isel(y=[0, 1, 5]), ["Fe", "Ni"], roi=ds["roi"].isel(y=[0, 1, 5])))
    assert figure.y_range.start > figure.y_range.end
    assert [name for name, _ in rgb_legend(rgb, ["Fe", "Ni"])] == ["Fe", "Ni", "mean of both"]
    assert rgb_legend(rgb, ["Fe"]) == [("Fe", "#808080")]
    assert rgb_legend(rgb.assign_attrs(elements=["Fe"] * 3)) == [("Fe", "#808080")]
    with pytest.raises(SchemaError, match="one to three"):
        rgb_legend(rgb, ["a", "b", "c", "d"])
    with pytest.raises(SchemaError, match="expected 0 to 1"):
        plots.rgb_map(rgb * 255)
    with pytest.raises(SchemaError, match="channel"):
        static.rgb_sheet(rgb.isel(channel=slice(2)))


def test_scores_of_any_name(ds: xr.Dataset) -> None:
    pca = ds["latents"].rename(latent="pca_component").rename("pca").drop_vars("pca_component")
    figure = static.score_sheet(pca)
    assert [ax.get_title().split(":")[0] for ax in figure.axes] == ["0", "1", "2"]
    assert len(static.score_sheet(ds["elements"], ["Ni"]).axes) == 1
    assert list(plots.score_maps(pca, dynamic=False).keys()) == [0, 1, 2]
    assert _render(plots.score_maps(pca)) is not None
    with pytest.raises(NoInputError, match="no entry 'Cu'"):
        static.score_sheet(ds["elements"], ["Cu"])
    with pytest.raises(NoInputError, match="is named"):
        static.score_sheet(pca, [])
    with pytest.raises(SchemaError, match="one further dimension"):
        static.score_sheet(ds["BC"])
