"""One view per kind: found by its names, drawn on screen and paper with units, limits and colours that tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bokeh.models as bm
import numpy as np
import pytest
import xarray as xr
from PIL import Image

import vaearr as va
from tests.views import exploration_results as results
from vaearr.errors import ExistsError, NoInputError, RoiError, SchemaError, UsageError
from vaearr.views import journal, kind_of, save
from vaearr.views.common import NAN_COLOR, holoviews
from vaearr.views.paper import SMALL


def _bokeh(shown: Any) -> Any:
    return holoviews().render(shown, backend="bokeh")


def _image(shown: Any) -> tuple[np.ndarray, Any]:
    """The values of a map on the screen, the first row of its coordinates first, and its colour mapper."""
    glyph = next(g for g in _bokeh(shown).select({"type": bm.GlyphRenderer}) if isinstance(g.glyph, bm.Image))
    return np.asarray(glyph.data_source.data["image"][0]), glyph.glyph.color_mapper


@pytest.fixture
def table() -> xr.DataArray:
    """Two metrics, six latents, three targets."""
    values = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 6, 3))
    coords = {
        "metric": ["pearson", "hsic"], "latent": np.arange(6), "target": ["BC", "Fe", "phase: a"],
        "signed": ("metric", [True, False]),
    }  # fmt: skip
    return xr.DataArray(values, coords, ("metric", "latent", "target"), name="association")


@pytest.fixture
def clusters(ds: xr.Dataset) -> xr.DataArray:
    """Three clusters in the region, two noise points, -2 outside."""
    values = np.where(ds["roi"], np.random.default_rng(1).integers(0, 3, ds["roi"].shape), -2).astype("i2")
    values[2, 1] = values[4, 3] = -1
    attrs = {
        "long_name": "cluster", "flag_values": [-2, -1, 0, 1, 2], "n_noise": 2,
        "flag_meanings": "not_clustered noise cluster_0 cluster_1 cluster_2",
    }  # fmt: skip
    return xr.DataArray(values, dict(ds["BC"].coords), ("y", "x"), name="clusters", attrs=attrs)


def test_a_result_finds_its_builder(
    ds: xr.Dataset, history: xr.Dataset, health: xr.Dataset, samples: xr.Dataset, table: Any, clusters: Any
) -> None:
    grey = results.SIGNALS["grey"]
    found = {
        "map": ds.BC, "stack": ds.latents, "history": history, "run_health": health, "patterns": samples,
        "association": table, "classes": clusters, "traversal": results.traversal(grey),
        "manifold": results.plane(grey), "prototypes": results.classes(grey), "path": results.way(grey),
        "embedding": results.embedded(),
    }  # fmt: skip
    for kind, result in found.items():
        assert kind_of(result) == kind
    assert kind_of(xr.DataArray(np.eye(2), dims=("cluster", "reference"), name="confusion")) == "confusion"
    assert kind_of(ds.BC.assign_attrs(kind="contrast")) == "contrast"
    with pytest.raises(UsageError, match="no view shows a result"):
        va.view(xr.Dataset({"strange": 1}))
    with pytest.raises(UsageError, match="Did you mean 'stack'"):
        va.view(ds.latents, kind="stak")
    with pytest.raises(UsageError, match="use bokeh or matplotlib"):
        va.view(ds.BC, "plotly")  # type: ignore[arg-type]


def test_every_kind_is_drawn_on_paper_and_leaves_no_trace(
    ds: xr.Dataset,
    history: xr.Dataset,
    health: xr.Dataset,
    samples: xr.Dataset,
    table: Any,
    clusters: Any,
    tmp_path: Any,
) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    latent = ds.latents.isel(latent=0, drop=True).rename("latent 0")
    shown = [
        (ds.BC, {"roi": ds.roi}), (ds.phase, {}), (ds.latents, {}), (ds, {"kind": "side_maps"}), (history, {}),
        (health, {}), (samples, {}), (table, {}), (table, {"target": "BC"}), (clusters, {}),
        (clusters, {"kind": "clusters", "latent": latent, "target": ds.BC}),
        (clusters, {"kind": "comparison", "reference": ds.phase}),
        (ds, {"kind": "map_scatter"}), (ds, {"kind": "map_scatter", "target": "phase: fe_bcc"}),
    ]  # fmt: skip
    for i, (result, options) in enumerate(shown):
        path = save(result, tmp_path / f"{i}.png", dpi=60, **options)
        with Image.open(path) as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20, options
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("kind", list(results.SIGNALS))
def test_decoded_pictures_of_every_kind_of_sample(kind: str, tmp_path: Path) -> None:
    signal = results.SIGNALS[kind]
    made = (results.traversal(signal), results.plane(signal), results.classes(signal), results.way(signal, "tsne"))
    for found in made:
        figure = va.view(found)
        assert any(ax.images for part in (figure, *figure.subfigs) for ax in part.axes)
    strip = va.view(made[0])
    assert [ax.get_xlabel() for ax in strip.axes[:6]] == ["0.00", "1.00", "2.00", "3.00", "4.00", "5.00"]
    if kind != "colour":
        assert len({image.get_clim() for ax in strip.axes[:6] for image in ax.images}) == 1  # one scale for all


def test_maps_have_units_rows_downwards_and_robust_limits(ds: xr.Dataset) -> None:
    _, mapper = _image(va.view(ds.BC))
    assert (mapper.low, mapper.high) == pytest.approx(tuple(np.percentile(ds.BC, (1, 99))))
    (axes,) = va.view(ds.BC, "matplotlib", roi=ds.roi).axes[:1]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (µm)", "y (µm)")
    assert axes.get_ylim() == (5.75, -0.25)
    assert axes.get_aspect() == 1
    mesh = axes.collections[0]
    assert mesh.get_clim() == pytest.approx((mapper.low, mapper.high))
    np.testing.assert_array_equal(mesh.get_array(), ds.BC)
    assert axes.get_title() == "band contrast"


def test_missing_values_are_grey_on_both(ds: xr.Dataset) -> None:
    _, mapper = _image(va.view(ds.BC.where(ds.roi)))
    assert mapper.nan_color == NAN_COLOR
    axes = va.view(ds.BC.where(ds.roi), "matplotlib").axes[0]
    from matplotlib.colors import to_hex

    assert to_hex(axes.collections[0].get_cmap().get_bad()) == NAN_COLOR


def test_odd_maps_are_drawn(ds: xr.Dataset) -> None:
    for odd in (ds.BC.isel(y=[0, 1, 4]), ds.BC.isel(y=[0]), ds.BC * np.nan, ds.BC.drop_vars(["x", "y"]), ds.BC.T):
        _bokeh(va.view(odd))
        assert va.view(odd, "matplotlib").axes
    with pytest.raises(UsageError, match="two dimensions"):
        va.view(ds.latents, kind="map")


def test_plain_elements_are_laid_over_a_map_on_paper(ds: xr.Dataset, tmp_path: Path) -> None:
    hv = holoviews()
    before = Image.open(save(ds.BC, tmp_path / "map.png", dpi=60)).tobytes()
    for i, element in enumerate((hv.Points(([1.0], [2.0])), hv.Rectangles([(1, 1, 2, 2)]), hv.Segments((1, 1, 2, 2)))):
        path = save(va.view(ds.BC) * element, tmp_path / f"{i}.png", dpi=60)
        assert Image.open(path).tobytes() != before


def test_classes_and_noise_never_share_a_colour(ds: xr.Dataset, clusters: xr.DataArray) -> None:
    numbers, mapper = _image(va.view(clusters))
    assert len(set(mapper.palette)) == 4
    np.testing.assert_array_equal(np.isnan(numbers), clusters == -2)
    assert set(np.unique(numbers[np.isfinite(numbers)])) == {0, 1, 2, 3}
    latent = ds.latents.isel(latent=0, drop=True).rename("latent 0")
    shaded, mapper = _image(va.view(clusters, kind="clusters", latent=latent, target=ds.BC))
    of = [{mapper.palette[int(v)] for v in shaded[(clusters == code).values]} for code in (-1, 0, 1, 2)]
    assert all(not (one & other) for i, one in enumerate(of) for other in of[:i])
    hover = _bokeh(va.view(clusters, kind="clusters", latent=latent, target=ds.BC)).select_one({"type": bm.HoverTool})
    assert hover.tooltips[-1] == ("latent 0", "@{latent_0}")  # the name of the column in the page
    assert va.view(clusters, "matplotlib").axes[0].patch.get_hatch() == "////"
    with pytest.raises(SchemaError, match="same grid"):
        va.view(clusters, kind="comparison", reference=ds.phase.isel(x=slice(3)))


def test_map_and_scatter_share_one_source_and_many_points_are_a_density(ds: xr.Dataset) -> None:
    model = _bokeh(va.view(ds, kind="map_scatter", latent=1, roi=ds.roi))
    sources = {r.data_source.id for r in model.select({"type": bm.GlyphRenderer}) if isinstance(r.glyph, bm.Scatter)}
    assert len(sources) == 1
    many = ds.isel(y=np.arange(1200) % 12, x=np.arange(9)).assign_coords(y=np.arange(1200.0))
    right = va.view(many, "matplotlib", kind="map_scatter").axes[1]
    counts = next(c for c in right.collections if c.get_array() is not None).get_array()
    assert counts.sum() == np.isfinite(many.latents[..., 0]).sum()
    assert right.get_title().startswith("Pearson r = ")
    with pytest.raises(RoiError, match="no scan point"):
        va.view(ds, kind="map_scatter", roi=~ds.roi)


def test_heat_maps_are_centred_and_mark_what_is_significant(table: xr.DataArray) -> None:
    p = xr.full_like(table, 0.5)
    p.loc[{"metric": "pearson", "latent": 4}] = 0.01
    axes = va.view(table, "matplotlib", metric="pearson", p_adjusted=p).axes[0]
    mesh, dots = axes.collections
    assert mesh.get_clim()[0] == -mesh.get_clim()[1]
    assert dots.get_offsets()[:, 0].tolist() == [4, 4, 4]
    assert "dot: adjusted p < 0.05" in axes.get_title()
    assert [t.get_text() for t in axes.get_yticklabels()] == ["BC", "Fe", "phase: a"]
    with pytest.raises(NoInputError, match="Did you mean 'pearson'"):
        va.view(table, metric="pearso")


def test_a_sweep_has_a_line_for_each_region_and_beta(tmp_path: Path) -> None:
    names = {"region": ["a", "a", "b", "b"], "beta": [1.0] * 4, "latent_dim": [2, 4, 2, 4]}
    rows = names | {"elbo": [-5.0, -4.0, -6.0, -5.5], "elbo_se": [0.1, 0.2, 0.0, 0.1]}
    table = xr.Dataset({name: ("run", values) for name, values in rows.items()})
    axes = va.view(table, "matplotlib").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a, beta 1", "b, beta 1"]
    assert axes.get_ylabel() == "held-out ELBO (nats per sample)"
    assert "Bokeh" in save(table, tmp_path / "sweep.html").read_text()


def test_small_panels_of_a_stack_tell_their_range(ds: xr.Dataset) -> None:
    figure = va.view(ds.latents, "matplotlib")
    titles = [ax.get_title() for ax in figure.axes[:3]]
    low, high = np.nanpercentile(ds.latents[..., 2], (1, 99))
    assert titles[2] == f"2: {low:.2g} … {high:.2g}"
    words = figure.axes[0].findobj(lambda item: hasattr(item, "get_text"))
    assert any("µm" in word.get_text() for word in words)  # the scale bar
    with pytest.raises(NoInputError, match="no entry 7"):
        va.view(ds.latents, entries=[7])


def test_figures_have_300_dpi_letters_and_the_same_bytes(ds: xr.Dataset, tmp_path: Path) -> None:
    with Image.open(save(ds.BC, tmp_path / "a.png")) as picture:
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    first, second = (save(ds.BC, tmp_path / f"{i}.pdf").read_bytes() for i in "ab")
    assert first == second
    assert b"/Type3" not in first
    assert save(ds.BC, tmp_path / "a.svg").read_text().startswith("<?xml")
    for path, error in ((tmp_path / "a.png", ExistsError), (tmp_path / "a.jpg", UsageError)):
        with pytest.raises(error):
            save(ds.BC, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pdf", "a.png", "a.svg", "b.pdf"]


def test_letters_are_never_below_7_points(ds: xr.Dataset) -> None:
    with journal():
        for text in va.view(ds, "matplotlib", kind="map_scatter").findobj(lambda item: hasattr(item, "get_fontsize")):
            assert text.get_fontsize() >= SMALL - 1 or not text.get_text()
