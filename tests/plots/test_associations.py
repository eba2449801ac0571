"""Heat maps and rankings: both directions, significance and ties, many latents."""

from __future__ import annotations

from typing import Any

import bokeh.models as bm
import numpy as np
import pytest
import xarray as xr

from vaearr import plots
from vaearr.errors import NoInputError, SchemaError
from vaearr.plots import associations, static
from vaearr.plots.common import holoviews


def _table(latents: int) -> xr.DataArray:
    rng = np.random.default_rng(0)
    values = rng.uniform(-0.5, 0.5, (2, latents, 3))
    values[1] = np.abs(values[1]) * 0.01
    values[:, 1] = np.nan
    values[:, 3] = values[:, 2]
    coords = {
        "metric": ["pearson", "hsic"],
        "latent": np.arange(latents),
        "target": ["BC", "Fe", "phase: a"],
        "n": ("target", [90, 80, 70]),
        "signed": ("metric", [True, False]),
    }
    return xr.DataArray(values, coords, ("metric", "latent", "target"), name="association")


@pytest.fixture
def table() -> xr.DataArray:
    """Two metrics, six latents (1 without value, 2 and 3 tied), three targets."""
    return _table(6)


@pytest.fixture
def p_adjusted(table: xr.DataArray) -> xr.DataArray:
    """Latent 4 is significant for all targets, by pearson."""
    p = xr.full_like(table, 0.5)
    p.loc[{"metric": "pearson", "latent": 4}] = 0.01
    return p


def _render(element: Any) -> Any:
    return holoviews().render(element, backend="bokeh")


def test_rows_are_targets_or_metrics(table: xr.DataArray) -> None:
    heat = associations.target_heat(table, "hsic")
    assert heat.rows == ("BC", "Fe", "phase: a")
    np.testing.assert_array_equal(heat.values, table.sel(metric="hsic").T)
    assert heat.limits[0] >= 0
    heat = associations.metric_heat(table, "Fe")
    assert [row.split()[0] for row in heat.rows] == ["pearson", "hsic"]
    np.testing.assert_allclose(np.nanmax(np.abs(heat.shown), axis=1), 1)
    np.testing.assert_array_equal(np.sign(heat.shown), np.sign(table.sel(target="Fe")))
    assert "max" in heat.rows[1]


def test_significant_cells_are_marked(table: xr.DataArray, p_adjusted: xr.DataArray) -> None:
    shuffled = p_adjusted.transpose("target", "metric", "latent").isel(latent=[5, 4, 3, 2, 1, 0])
    for p in (p_adjusted, shuffled):
        marked = associations.target_heat(table, "pearson", p_adjusted=p).marked
        assert marked is not None
        np.testing.assert_array_equal(np.argwhere(marked), [[0, 4], [1, 4], [2, 4]])
    figure = static.association_sheet(table, "pearson", p_adjusted=p_adjusted)
    dots = figure.axes[0].collections[1].get_offsets()
    np.testing.assert_allclose(dots, [[4.5, 0.5], [4.5, 1.5], [4.5, 2.5]])
    assert "p < 0.05" in figure.axes[0].get_title()
    layout = _render(plots.metric_heatmap(table, "BC", p_adjusted=p_adjusted))
    dot = next(g for g in layout.select({"type": bm.GlyphRenderer}) if isinstance(g.glyph, bm.Scatter))
    assert (list(dot.data_source.data["place"]), list(dot.data_source.data["row"])) == ([4], [0])


def test_of_many_latents_the_strongest_are_shown_and_told() -> None:
    table = _table(512)
    table[0, 300, 1] = 0.9
    heat = associations.target_heat(table, "pearson", most=64)
    assert len(heat.latents) == 64
    assert "300" in heat.latents
    assert "the 64 strongest of 512 latents" in heat.title
    assert [int(name) for name in heat.latents] == sorted(map(int, heat.latents))
    assert len(static.metric_sheet(table, "Fe").axes) == 3  # two lines of 64 and the colour bar
    whole = static.association_sheet(table, most=None)
    assert len(whole.axes) == 9
    whole.draw_without_rendering()
    assert _render(plots.association_heatmap(table)) is not None


def test_one_target_and_no_value_at_all(table: xr.DataArray) -> None:
    single = table.sel(target="Fe")
    for view in (
        plots.association_heatmap(single),
        plots.metric_heatmap(single * np.nan),
        plots.metric_heatmap(single),
    ):
        assert _render(view) is not None
    static.metric_sheet(single * np.nan).draw_without_rendering()
    with pytest.raises(NoInputError, match="nothing to rank"):
        static.ranking_sheet(single * np.nan)


def test_ranking_tells_ties_significance_and_n(table: xr.DataArray, p_adjusted: xr.DataArray) -> None:
    made = plots.ranking_table(
        table, "pearson", "BC", p_adjusted=p_adjusted, n_effective=xr.full_like(table, 12.0)
    ).dframe()
    notes = dict(zip(made["latent"], made["note"], strict=True))
    assert notes[4] == "p < 0.05"
    assert notes[2] == notes[3] == "tied"
    assert set(made["effective n"]) == {12.0}
    figure = static.ranking_sheet(table, "BC", p_adjusted=p_adjusted)
    assert "n = 90" in figure.get_suptitle()
    assert "tied" in figure.get_suptitle()
    pearson = figure.axes[0]
    assert [text.get_text() for text in pearson.texts] == ["=", "="]
    solid = {patch.get_facecolor() for patch in pearson.patches}
    assert len(solid) == 2
    assert len(static.ranking_sheet(table, "Fe", ["hsic"], top=2).axes[0].patches) == 2


def test_refusals(table: xr.DataArray, p_adjusted: xr.DataArray) -> None:
    with pytest.raises(NoInputError, match="Did you mean 'pearson'"):
        plots.association_heatmap(table, "pearsn")
    with pytest.raises(NoInputError, match="no target 'Ni'"):
        static.metric_sheet(table, "Ni")
    with pytest.raises(NoInputError, match="no target"):
        plots.metric_heatmap(table)
    with pytest.raises(SchemaError, match="another table"):
        plots.association_heatmap(table, p_adjusted=p_adjusted.isel(latent=slice(3)))
    with pytest.raises(SchemaError, match="those of the table"):
        plots.association_heatmap(table, p_adjusted=p_adjusted.isel(target=0))


def test_calibration_shows_every_list_and_its_share() -> None:
    rng = np.random.default_rng(0)
    figure = static.calibration_sheet({"surrogates": rng.random(200), "naive": np.append(rng.random(99) ** 9, np.nan)})
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any(text.startswith("surrogates: ") for text in texts)
    figure.draw_without_rendering()
    with pytest.raises(NoInputError, match="no p-values"):
        static.calibration_sheet({"a": np.array([np.nan])})
