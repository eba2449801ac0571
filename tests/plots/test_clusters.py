"""Cluster maps: shades, linked scatter, noise and outside kept apart, comparison with a reference."""

from __future__ import annotations

import io
from typing import Any

import bokeh.models as bm
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from vaearr import plots
from vaearr.errors import RoiError, SchemaError, UsageError
from vaearr.plots import clusters, colors, static
from vaearr.plots.common import NAN_COLOR, holoviews
from vaearr.plots.maps import latent_map


@pytest.fixture
def labels(ds: xr.Dataset) -> xr.DataArray:
    """Three clusters in the region, two noise points, -2 outside."""
    values = np.where(ds["roi"], np.random.default_rng(1).integers(0, 3, ds["roi"].shape), -2).astype("i2")
    values[2, 1] = values[4, 3] = -1
    attrs = {
        "long_name": "cluster",
        "flag_values": [-2, -1, 0, 1, 2],
        "flag_meanings": "not_clustered noise cluster_0 cluster_1 cluster_2",
    }
    return xr.DataArray(values, dict(ds["BC"].coords), ("y", "x"), name="clusters", attrs=attrs)


def _render(element: Any) -> Any:
    return holoviews().render(element, backend="bokeh")


def _painted(layout: Any) -> tuple[np.ndarray, list[str], Any]:
    """Numbers of an image, its palette and mapper."""
    image = next(g for g in layout.select({"type": bm.GlyphRenderer}) if isinstance(g.glyph, bm.Image))
    mapper = image.glyph.color_mapper
    field = image.glyph.image
    return np.asarray(image.data_source.data[getattr(field, "field", field)][0]), list(mapper.palette), mapper


def test_map_and_scatter_are_linked_and_share_base_colours(ds: xr.Dataset, labels: xr.DataArray) -> None:
    layout = _render(plots.cluster_view(labels, latent_map(ds, "vae", 1), ds["BC"], segments=np.zeros((1, 4))))
    points = [g for g in layout.select({"type": bm.GlyphRenderer}) if isinstance(g.glyph, bm.Scatter)]
    linked = [g for g in points if len(g.data_source.data["latent 1"]) == 54]
    assert len(linked) == 2
    assert linked[0].data_source is linked[1].data_source
    _, palette, _ = _painted(layout)
    brightest = palette[clusters.LEVELS - 1 :: clusters.LEVELS][:3]
    mapper = layout.select_one({"type": bm.CategoricalColorMapper})
    colour_of = dict(zip(mapper.factors, mapper.palette, strict=True))
    assert [colour_of[f"cluster {i}"].lower() for i in range(3)] == [c.lower() for c in brightest]
    assert colour_of["noise"] == colors.NOISE_COLOR
    legend = next(item for item in layout.select({"type": bm.Legend}) if item.items)
    assert [item.label.value for item in legend.items] == ["cluster 0", "cluster 1", "cluster 2", "noise"]
    keys = [renderer.glyph for item in legend.items for renderer in item.renderers]
    assert [glyph.fill_color.lower() for glyph in keys[:3]] == [c.lower() for c in brightest]
    assert {glyph.fill_alpha for glyph in keys} == {1.0}


def test_noise_outside_and_clusters_never_share_a_colour(ds: xr.Dataset, labels: xr.DataArray) -> None:
    latent = latent_map(ds, "vae", 0).copy()
    latent[5, 3] = np.nan
    classes = clusters.classes_of(labels)
    numbers, paint = clusters.shaded(classes, latent)
    np.testing.assert_array_equal(np.isnan(numbers), labels == -2)
    kinds = {
        "noise": {paint[int(i)] for i in numbers[labels == -1]},
        "no latent": {paint[int(numbers[5, 3])]},
        "outside": {clusters.OUTSIDE_COLOR},
    } | {k: {paint[int(i)] for i in numbers[(labels == k) & np.isfinite(latent)]} for k in range(3)}
    assert kinds["noise"] == {colors.NOISE_COLOR}
    assert kinds["no latent"] == {NAN_COLOR}
    everything = [paint for kind in kinds.values() for paint in kind]
    assert len(everything) == len(set(everything))


def test_all_noise_and_one_cluster_are_drawn(ds: xr.Dataset, labels: xr.DataArray) -> None:
    latent = latent_map(ds, "vae", 0)
    for only in (xr.where(labels >= 0, -1, labels), xr.where(labels >= 0, 0, labels)):
        da = only.astype("i2").assign_attrs(labels.attrs).rename("clusters")
        _render(plots.cluster_view(da, latent, ds["BC"]))
        _render(plots.cluster_map(da))
        static.cluster_sheet(da, latent, ds["BC"]).draw_without_rendering()


def test_plain_map_has_the_colours_and_rows_downwards(labels: xr.DataArray) -> None:
    figure = _render(plots.cluster_map(labels, colors={1: "teal"}, outside="#eeeeee"))
    numbers, palette, mapper = _painted(figure)
    assert palette[1] == "#008080"
    assert palette[3] == colors.NOISE_COLOR
    assert mapper.nan_color == "#eeeeee"
    assert figure.y_range.start > figure.y_range.end
    assert np.isnan(numbers).sum() == int((labels == -2).sum())


@pytest.mark.parametrize("rows", [[0, 2, 3, 9], [3]], ids=["irregular", "one row"])
def test_irregular_maps_are_drawn(ds: xr.Dataset, labels: xr.DataArray, rows: list[int]) -> None:
    part = labels.isel(y=rows)
    assert _render(plots.cluster_map(part)) is not None
    view = plots.cluster_view(part, latent_map(ds, "vae", 0).isel(y=rows), ds["BC"].isel(y=rows))
    assert _render(view) is not None


def test_phases_below_zero_are_missing_not_noise(ds: xr.Dataset) -> None:
    classes = clusters.classes_of(ds["phase"])
    assert classes.names == ("ni_fcc", "fe_bcc")
    assert not classes.has_noise
    assert bool(np.isnan(classes.values[0, 0]))


@given(st.integers(0, 2**31), st.floats(0.1, 1e3), st.floats(-1e3, 1e3))
def test_brightness_does_not_depend_on_the_unit_and_is_per_class(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.integers(-1, 3, (6, 7)).astype("f4")
    values = rng.normal(size=(6, 7))
    found = clusters.brightness(positions, values)
    assert np.isnan(found[positions < 0]).all()
    inside = found[positions >= 0]
    assert ((inside >= 0) & (inside <= 1)).all()
    np.testing.assert_allclose(clusters.brightness(positions, values * scale + shift), found, atol=1e-6)
    for position in np.unique(positions[positions >= 0]):
        here = positions == position
        if here.sum() > 1:
            assert found[here].min() == 0
            assert found[here].max() == 1


def test_refusals(ds: xr.Dataset, labels: xr.DataArray) -> None:
    latent = latent_map(ds, "vae", 0)
    with pytest.raises(UsageError, match="whole numbers"):
        plots.cluster_map(ds["BC"])
    with pytest.raises(SchemaError, match="same grid"):
        plots.cluster_view(labels, latent.isel(x=slice(3)), ds["BC"])
    with pytest.raises(RoiError, match="no scan point"):
        static.cluster_sheet(labels, latent.where(False), ds["BC"])


def test_paper_has_the_same_colours(ds: xr.Dataset, labels: xr.DataArray) -> None:
    figure = static.cluster_sheet(labels, latent_map(ds, "vae", 1), ds["BC"], segments=np.array([[0, 0, 1, 1.0]]))
    left, right = figure.axes[:2]
    assert left.get_ylim()[0] > left.get_ylim()[1]
    shown = {colors.hex_of(c[:3])[0] for c in right.collections[0].get_facecolors()}
    bases = clusters.classes_of(labels).colors
    assert shown == {c.lower() for c in bases} | {colors.NOISE_COLOR}
    swatches = [colors.hex_of(np.array(patch.get_facecolor())[:3])[0] for patch in figure.legends[0].get_patches()]
    assert swatches[:3] == [c.lower() for c in bases]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "cluster 0", "cluster 1", "cluster 2", "noise", "not clustered",
    ]  # fmt: skip
    assert "n = 54" in right.get_title()


def test_comparison_and_confusion(ds: xr.Dataset, labels: xr.DataArray) -> None:
    assert _render(plots.comparison_view(labels, ds["phase"])) is not None
    sheet = static.comparison_sheet(labels, ds["phase"], scores={"ARI": -0.5})
    assert sheet.get_suptitle() == "ARI = -0.500"
    counts = np.array([[3, 0], [0, 5], [0, 0]])
    table = xr.DataArray(counts, {"cluster": [0, 1, 2], "phase": ["a", "b"]}, ("cluster", "phase"))
    figure = static.confusion_sheet(table)
    assert sorted(t.get_text() for t in figure.axes[0].texts) == ["3", "5"]
    share = figure.axes[0].collections[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(share, -1).ravel(), [1, 0, 0, 1, -1, -1])
    assert _render(plots.confusion_heatmap(table)).title.text == "n = 8"
    large = xr.DataArray(np.ones((30, 80), int), dims=("cluster", "grain"))
    buffer = io.BytesIO()
    static.confusion_sheet(large).savefig(buffer)
    with pytest.raises(SchemaError, match="two dimensions"):
        static.confusion_sheet(table[0])
    with pytest.raises(SchemaError, match="same grid"):
        plots.comparison_view(labels, ds["phase"].isel(y=[0]))
