"""Every view renders, with rows downwards and the right limits and colours."""

from __future__ import annotations

from typing import Any

import bokeh.models as bm
import numpy as np
import pytest
import xarray as xr

from vaearr import plots
from vaearr.association import associate, targets_of
from vaearr.errors import NoInputError
from vaearr.plots.common import COLORS, NAN_COLOR, holoviews
from vaearr.plots.explorer import explorer, pack
from vaearr.plots.maps import latent_map, side_map_list


def _render(element: Any) -> Any:
    return holoviews().render(element, backend="bokeh")


def _mapper(figure: Any) -> Any:
    return figure.select_one({"type": bm.LinearColorMapper})


def test_rows_run_downwards_and_limits_are_percentiles(ds: xr.Dataset) -> None:
    figure = _render(plots.map_plot(ds["BC"], roi=ds["roi"]))
    assert figure.y_range.start > figure.y_range.end
    assert figure.x_range.start < figure.x_range.end
    low, high = np.percentile(ds["BC"].values, [1, 99])
    assert (_mapper(figure).low, _mapper(figure).high) == pytest.approx((low, high))
    assert _mapper(figure).nan_color == NAN_COLOR
    assert figure.select_one({"type": bm.ColorBar}).title == "colours span 1–99 %"
    assert figure.xaxis.axis_label == "x (µm)"


def test_image_pixels_lie_where_their_coordinates_say(ds: xr.Dataset) -> None:
    da = xr.zeros_like(ds["BC"])
    da[3, 7] = 1.0
    for order in (da, da[::-1], da[:, ::-1], da.transpose("x", "y")):
        data = _render(plots.map_plot(order)).select_one({"type": bm.ColumnDataSource}).data
        row, column = np.argwhere(np.asarray(data["image"][0]) == 1)[0]
        assert data["y"][0] + (row + 0.5) * data["dh"][0] / 12 == pytest.approx(1.5)
        assert data["x"][0] + (column + 0.5) * data["dw"][0] / 9 == pytest.approx(3.5)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda da: da.isel(y=[3]), id="one row"),
        pytest.param(lambda da: da.isel(x=[3]), id="one column"),
        pytest.param(lambda da: da.isel(y=[3], x=[3]), id="one point"),
        pytest.param(lambda da: da.where(False), id="all NaN"),
        pytest.param(lambda da: da[::-1], id="descending"),
        pytest.param(lambda da: da.isel(y=[0, 1, 4, 9]), id="irregular"),
        pytest.param(lambda da: da.drop_vars(["x", "y"]), id="no coordinates"),
        pytest.param(lambda da: da.assign_attrs(long_name="{a} $$b$$ <c>"), id="hostile name"),
        pytest.param(lambda da: da.chunk(), id="dask"),
    ],
)
def test_odd_maps_render(ds: xr.Dataset, change: Any) -> None:
    from vaearr.plots import static

    figure = _render(plots.map_plot(change(ds["BC"])))
    assert figure.y_range.start > figure.y_range.end
    with static.journal_style():
        paper = static._figure(3, 3)
        axes = paper.subplots()
        static.draw_map(axes, change(ds["BC"]), roi=None)
        paper.draw_without_rendering()
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_single_row_is_drawn_at_its_coordinate(ds: xr.Dataset) -> None:
    figure = _render(plots.map_plot(ds["BC"].isel(y=[3])))
    assert figure.y_range.end < 1.5 < figure.y_range.start


def test_phases_have_colours_that_all_can_tell_apart(ds: xr.Dataset) -> None:
    figure = _render(plots.map_plot(ds["phase"]))
    assert list(_mapper(figure).palette) == list(COLORS[:2])
    assert (_mapper(figure).low, _mapper(figure).high) == (-0.5, 1.5)
    assert figure.select_one({"type": bm.ColorBar}).major_label_overrides == {0: "ni_fcc", 1: "fe_bcc"}


def test_signed_maps_are_centred_at_zero(ds: xr.Dataset) -> None:
    mapper = _mapper(_render(plots.map_plot(ds["latents"].isel(latent=0), symmetric=True)))
    assert mapper.low == -mapper.high


def test_latent_selector_follows_limits(ds: xr.Dataset) -> None:
    held = plots.latent_maps(ds, dynamic=False)
    assert list(held.keys()) == [0, 1, 2]
    assert _mapper(_render(plots.latent_maps(ds))).low == pytest.approx(np.nanpercentile(ds["latents"][..., 0], 1))
    with pytest.raises(NoInputError, match="vae"):
        plots.latent_maps(ds, "vaee")


def test_volume_selects_latent_and_plane(ds: xr.Dataset) -> None:
    volume = ds[["latents"]].expand_dims(z=[0.0, 1.0]).transpose("z", "y", "x", "latent")
    assert len(plots.latent_maps(volume, dynamic=False)) == 6


def test_side_maps_shows_all(ds: xr.Dataset) -> None:
    assert len(plots.side_maps(ds, roi=ds["roi"])) == 4
    with pytest.raises(NoInputError, match="no band contrast"):
        plots.side_maps(ds[["latents"]])


@pytest.mark.parametrize("target", ["BC", "Fe", "phase: fe_bcc"])
def test_map_and_scatter_share_one_source(ds: xr.Dataset, target: str) -> None:
    layout = _render(plots.map_scatter(ds, latent=1, target=target, roi=ds["roi"]))
    glyphs = [g for g in layout.select({"type": bm.GlyphRenderer}) if isinstance(g.glyph, bm.Scatter)]
    assert len(glyphs) == 2
    assert glyphs[0].data_source is glyphs[1].data_source
    assert len(glyphs[0].data_source.data["x"]) == 54


def test_scatter_tells_of_a_subsample_and_keeps_r(ds: xr.Dataset) -> None:
    titles = []
    for most in (54, 10):
        layout = _render(plots.map_scatter(ds, latent=0, target="BC", most_points=most))
        titles.append(next(t.text for t in layout.select({"type": bm.Title}) if "Pearson" in t.text))
    assert titles[1] == f"{titles[0]}, 10 shown"
    r = associate(ds["latents"].isel(latent=[0]), ds["BC"], "pearson").item()
    assert f"r = {r:.2f}, n = 54" in titles[0]


def test_curves_bars_tables_and_reconstructions(
    ds: xr.Dataset, history: xr.Dataset, health: xr.Dataset, samples: xr.Dataset
) -> None:
    table = associate(ds["latents"], targets_of(ds))
    for view in (
        plots.loss_curves(history),
        plots.loss_curves(history.isel(epoch=[0])),
        plots.health_bars(health),
        plots.association_heatmap(table, "spearman"),
        plots.ranking_table(table, "pearson", "BC"),
        plots.reconstructions(samples),
    ):
        assert _render(view) is not None
    mapper = _mapper(_render(plots.association_heatmap(table)))
    assert mapper.low == -mapper.high
    with pytest.raises(NoInputError, match="trained"):
        plots.loss_curves(history.drop_vars(list(history.data_vars)))


def test_original_and_reconstruction_share_their_scale(samples: xr.Dataset) -> None:
    layout = _render(plots.reconstructions(samples))
    limits = [(m.low, m.high) for m in layout.select({"type": bm.LinearColorMapper})]
    assert len(set(limits)) == 4  # per sample one for the pair, one for the residual


def test_packed_maps_come_back(ds: xr.Dataset) -> None:
    packed = pack(ds["BC"])
    back = packed.values(ds["BC"].shape)
    clipped = np.clip(ds["BC"].values, packed.low, packed.high)
    np.testing.assert_allclose(back, clipped, atol=(packed.high - packed.low) / 250)
    phases = pack(ds["phase"]).values(ds["phase"].shape)
    np.testing.assert_array_equal(phases, np.where(ds["phase"] < 0, np.nan, ds["phase"]))
    latent = latent_map(ds, "vae", 0)
    np.testing.assert_array_equal(np.isnan(pack(latent).values(latent.shape)), np.isnan(latent.values))


def test_more_classes_than_levels_are_packed_as_numbers(ds: xr.Dataset) -> None:
    codes = np.arange(300, dtype="i4").reshape(15, 20)
    clusters = xr.DataArray(
        codes,
        dims=("y", "x"),
        name="clusters",
        attrs={"flag_values": codes.ravel().tolist(), "flag_meanings": " ".join(f"c{i}" for i in range(300))},
    )
    packed = pack(clusters)
    assert packed.names == ()
    middle = packed.values(codes.shape)[5:10]
    np.testing.assert_allclose(middle, codes[5:10], atol=0.5 * (packed.high - packed.low) / 126 + 1e-3)


@pytest.mark.parametrize("rows", [slice(None), [0, 1, 4, 9], [3]], ids=["regular", "irregular", "one row"])
def test_explorer_has_two_selectors(ds: xr.Dataset, rows: Any) -> None:
    part = ds.isel(y=rows)
    layout = explorer(side_map_list(part), [latent_map(part, "vae", k) for k in range(3)], part["roi"])
    selects = list(layout.select({"type": bm.Select}))
    assert sorted(len(s.options) for s in selects) == [3, 4]
