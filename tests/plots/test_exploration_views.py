"""Views of exploration on the screen: HoloViews objects with the numbers of a result, and pages that fetch nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from bokeh.models import Plot, Select

from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.plots import exploration_plots as plots
from vaearr.plots import exploration_views as views
from vaearr.plots.exploration_pages import bokeh_model, save_view

from .exploration_results import SIGNALS, classes, decoded, embedded, plane, spread, traversal, way
from .test_exploration_spread import _activations, _health, _histograms, _pairs


def _drawn(view: Any) -> list[Any]:
    """The bokeh figures of a view."""
    return list(bokeh_model(view).select({"type": Plot}))


@pytest.mark.parametrize("kind", SIGNALS)
def test_decoded_pictures_of_all_kinds(kind: str) -> None:
    signal = SIGNALS[kind]
    view = views.traversal_view(traversal(signal))
    assert isinstance(view, hv.HoloMap)
    assert list(view.keys()) == [4, 7]
    for made in (
        view,
        views.manifold_view(plane(signal)),
        views.prototype_view(classes(signal)),
        views.path_view(way(signal)),
        views.path_view(way(signal, "tsne")),
    ):
        assert _drawn(made)


def test_tiles_lie_row_by_row_and_their_middles_count_from_below() -> None:
    images = np.arange(3.0)[:, None, None] * np.ones((3, 2, 4))
    sheet, x, y = views.tiled(images, 2)
    gap = views.GAP
    assert sheet.shape == (4 + gap, 8 + gap)
    np.testing.assert_array_equal(sheet[:2, 4 + gap :], 1)
    np.testing.assert_array_equal(sheet[2 + gap :, :4], 2)
    assert np.isnan(sheet[2 + gap :, 4 + gap :]).all()
    np.testing.assert_allclose(x, [2, 6 + gap])
    np.testing.assert_allclose(y, [3 + gap, 1])


def test_the_plane_rises_upwards() -> None:
    found = plane(SIGNALS["grey"])
    found["decoded"][:] = np.arange(6.0).reshape(2, 3)[..., None, None]
    image = views.manifold_view(found)
    values = image.dimension_values(2, flat=False)  # from below
    assert values[0, 0] < values[0, -1] < values[-1, 0]
    ticks = dict(hv.Store.lookup_options("bokeh", image, "plot").kwargs["yticks"])
    assert ticks == {2.0: "−1.00", 8.0: "1.00"}


def test_spreads(tmp_path: Path) -> None:
    assert len(plots.embedding_view(embedded())) == 3
    assert _drawn(plots.embedding_view(embedded()))
    assert _drawn(plots.embedding_view(embedded(amounts=False)))
    grid = plots.pair_view(_pairs(True))
    assert isinstance(grid, hv.GridMatrix)
    mesh = grid[2, 0].QuadMesh.I.dimension_values(2, flat=False)
    np.testing.assert_allclose(np.nan_to_num(mesh), _pairs(True)["density"][1].T)
    assert _drawn(grid)
    for by_class in (True, False):
        frames = plots.histogram_view(_histograms(by_class))
        assert list(frames.keys()) == [0, 1, 2]
        assert _drawn(frames)
    assert _drawn(plots.activation_view(_activations()))
    assert _drawn(plots.latent_health_view(_health(1.5, [0, 1])))
    assert _drawn(plots.latent_health_view(_health(np.nan, [])))
    pca = xr.Dataset(
        {
            "loadings": (("component", "latent", "ly"), np.ones((2, 3, 4))),
            "explained_variance_ratio": ("component", [0.7, 0.2]),
        }
    )
    assert _drawn(plots.latent_pca_view(pca))


def test_vectors_and_unusual_samples() -> None:
    found = xr.Dataset(
        {"decoded": decoded({"sample": 20}, SIGNALS["grey"]), "latents": (("sample", "latent"), spread()[:20])},
        coords={"sample": np.arange(20)},
        attrs={"source": "prior"},
    )
    view = views.vector_view(found)
    np.testing.assert_allclose(view[1].dimension_values(2, flat=False), spread()[:20], rtol=1e-6)
    maps = xr.Dataset({"distance": (("y", "x"), np.arange(20.0).reshape(4, 5))}, coords={"y": range(4), "x": range(5)})
    place = xr.Dataset(coords={"y": ("point", [3, 3]), "x": ("point", [4, 3])})
    few = place.assign(input=decoded({"point": 2}, {"dy": 4, "dx": 6}), distance=("point", [19.0, 18]))
    assert len(_drawn(plots.unusual_view(few, maps))) == 3


def test_a_page_with_a_selector_that_fetches_nothing(tmp_path: Path) -> None:
    view = views.traversal_view(traversal(SIGNALS["grey"]))
    model = bokeh_model(view)
    (select,) = model.select({"type": Select})
    assert select.options == [("0", "4"), ("1", "7")]
    assert [figure.visible for figure in model.select({"type": Plot})].count(True) == 1
    out = save_view(view, tmp_path / "t.html", heading="<b>", sentences=["Run 'vae'."])
    text = out.read_text()
    assert "&lt;b&gt;" in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", text)
    with pytest.raises(ExistsError, match="overwrite"):
        save_view(view, out)
    with pytest.raises(UsageError, match=r"end in \.html"):
        save_view(view, tmp_path / "t.png")
    with pytest.raises(NoInputError, match="no folder"):
        save_view(view, tmp_path / "no" / "t.html")
    assert [path.name for path in tmp_path.iterdir()] == ["t.html"]


def test_a_table_is_one_of_the_page(tmp_path: Path) -> None:
    found = xr.Dataset(
        {"summary": (("latent", "statistic"), [[12.0, -0.5]])}, coords={"latent": [3], "statistic": ["count", "mean"]}
    )
    view = plots.table_view(found)
    assert isinstance(view, hv.Table)
    text = save_view(view, tmp_path / "t.html").read_text()
    assert "<th" in text
    assert "-0.5</td>" in text


def test_classes_of_one_beginning_keep_their_curves() -> None:
    found = _histograms(True)
    long = ["carcinoma of the upper left lobe", "carcinoma of the right left lobe", "none"]
    named = found.assign_coords({"class": ("class", long[: found.sizes["class"]], found["class"].attrs)})
    shown = [len(frame) for frame in plots.histogram_view(named).data.values()]
    assert shown == [len(frame) for frame in plots.histogram_view(found).data.values()]


def test_bars_and_columns_of_health_stand_on_their_dimension() -> None:
    parts = list(plots.latent_health_view(_health(1.5, [0, 1])))
    np.testing.assert_allclose(parts[0].edges, [-0.5, 0.5, 1.5, 2.5])
    columns = parts[2]
    np.testing.assert_allclose(columns.interface.coords(columns, 0, edges=True), [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
