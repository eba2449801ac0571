"""One view per kind: found by its names, drawn on screen and paper with units, limits and colours that tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bokeh.models as bm
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from PIL import Image

import vaearr as va
from vaearr.errors import ExistsError, NoInputError, RoiError, SchemaError, UsageError
from vaearr.views import common, journal, kind_of, save
from vaearr.views.common import NAN_COLOR, holoviews
from vaearr.views.paper import SMALL

from ..data import random_patterns_dataset


def _bokeh(shown: Any) -> Any:
    return holoviews().render(shown, backend="bokeh")


def _image(shown: Any) -> tuple[np.ndarray, Any]:
    """The values of a map on the screen, the first row of its coordinates first, and its colour mapper."""
    glyph = next(g for g in _bokeh(shown).select({"type": bm.GlyphRenderer}) if isinstance(g.glyph, bm.Image))
    return np.asarray(glyph.data_source.data["image"][0]), glyph.glyph.color_mapper


@pytest.fixture
def ds() -> xr.Dataset:
    """12 x 9 scan points with band contrast, elements, phase, latents and a region of interest."""
    ds = random_patterns_dataset({"y": 12, "x": 9}, {"dy": 2, "dx": 2}, runs=["vae"], roi=True)
    ds["BC"] = ds["BC"].astype("f4").assign_attrs(ds["BC"].attrs)
    return ds


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
    """Three clusters in the region, noise points, -2 outside."""
    values = np.where(ds["roi"], np.random.default_rng(1).integers(-1, 3, ds["roi"].shape), -2).astype("i2")
    attrs = {
        "long_name": "cluster", "flag_values": [-2, -1, 0, 1, 2], "n_noise": 2,
        "flag_meanings": "not_clustered noise cluster_0 cluster_1 cluster_2",
    }  # fmt: skip
    return xr.DataArray(values, dict(ds["BC"].coords), ("y", "x"), name="clusters", attrs=attrs)


def test_every_kind_is_found_and_drawn_on_paper(ds: xr.Dataset, table: Any, clusters: Any, tmp_path: Path) -> None:
    before, rng = dict(mpl.rcParams), np.random.default_rng(0)
    latent = ds.latents.isel(latent=0, drop=True).rename("latent 0")
    losses = ["loss", "val_loss", "reconstruction_nll", "val_reconstruction_nll", "kl", "val_kl"]
    history = xr.Dataset({name: ("epoch", [3.0, 2.0, 1.5]) for name in losses}, {"epoch": [1, 2, 3]})
    health = xr.Dataset({"kl": ("latent", [2.0, 1, 0]), "is_active": ("latent", [True, True, False])})
    where = {"x": ("sample", [0.5, 1.5], {"units": "um"})}
    pair = {name: (("sample", "dy", "dx"), rng.normal(size=(2, 8, 10))) for name in ("input", "reconstruction")}
    confusion = xr.DataArray(rng.integers(0, 9, (3, 2)), dims=("cluster", "reference"), name="confusion")
    runs = {"region": ["a", "a", "b", "b"], "beta": [1.0] * 4, "latent_dim": [2, 4, 2, 4], "elbo": [-5.0, -4, -6, -5]}
    sweep = xr.Dataset({name: ("run", values) for name, values in runs.items()} | {"elbo_se": ("run", [0.1] * 4)})
    rgb = xr.DataArray(rng.random((12, 9, 3)), ds.BC.coords, ("y", "x", "channel"), name="rgb")
    found: list[tuple[str, Any, dict[str, Any]]] = [
        ("map", ds.BC, {"roi": ds.roi}), ("map", ds.phase, {}), ("stack", ds.latents, {}), ("history", history, {}),
        ("run_health", health.assign_coords(latent=range(3)), {}), ("patterns", xr.Dataset(pair, where), {}),
        ("association", table, {}), ("association", table, {"target": "BC"}), ("classes", clusters, {}),
        ("confusion", confusion, {}), ("sweep", sweep, {}), ("side_maps", ds, {"kind": "side_maps"}), ("rgb", rgb, {}),
        ("clusters", clusters, {"kind": "clusters", "latent": latent, "target": ds.BC}),
        ("comparison", clusters, {"kind": "comparison", "reference": ds.phase}),
        ("map_scatter", ds, {"kind": "map_scatter"}), ("", ds, {"kind": "map_scatter", "target": "phase: bcc"}),
    ]  # fmt: skip
    for i, (kind, result, options) in enumerate(found):
        assert "kind" in options or kind_of(result) == kind
        with Image.open(save(result, tmp_path / f"{i}.png", dpi=60, **options)) as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20, kind
    assert dict(mpl.rcParams) == before
    with pytest.raises(UsageError, match="no view shows a result"):
        va.view(xr.Dataset({"strange": 1}))
    with pytest.raises(UsageError, match="Did you mean 'stack'"):
        va.view(ds.latents, kind="stak")


def test_maps_have_units_rows_downwards_and_robust_limits(ds: xr.Dataset) -> None:
    part = ds.BC.where(ds.roi)
    _, mapper = _image(va.view(part))
    assert (mapper.low, mapper.high) == pytest.approx(tuple(np.nanpercentile(part, (1, 99))))
    assert mapper.nan_color == NAN_COLOR
    (axes,) = va.view(part, "matplotlib", roi=ds.roi).axes[:1]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (µm)", "y (µm)")
    assert axes.get_ylim() == (5.75, -0.25)
    assert axes.get_aspect() == 1
    mesh = axes.collections[0]
    assert mesh.get_clim() == pytest.approx((mapper.low, mapper.high))
    np.testing.assert_array_equal(mesh.get_array().filled(np.nan), part)
    assert mpl.colors.to_hex(mesh.get_cmap().get_bad()) == NAN_COLOR


def test_odd_maps_are_drawn_and_elements_laid_over(ds: xr.Dataset, tmp_path: Path) -> None:
    for odd in (ds.BC.isel(y=[0, 1, 4]), ds.BC.isel(y=[0]), ds.BC * np.nan, ds.BC.drop_vars(["x", "y"]), ds.BC.T):
        _bokeh(va.view(odd))
        assert va.view(odd, "matplotlib").axes
    with pytest.raises(UsageError, match="two dimensions"):
        va.view(ds.latents, kind="map")
    hv, plain = holoviews(), Image.open(save(ds.BC, tmp_path / "map.png", dpi=60)).tobytes()
    for i, element in enumerate((hv.Points(([1.0], [2.0])), hv.Rectangles([(1, 1, 2, 2)]), hv.Segments((1, 1, 2, 2)))):
        assert Image.open(save(va.view(ds.BC) * element, tmp_path / f"{i}.png", dpi=60)).tobytes() != plain


def test_classes_and_noise_never_share_a_colour(ds: xr.Dataset, clusters: xr.DataArray) -> None:
    numbers, mapper = _image(va.view(clusters))
    assert len(set(mapper.palette)) == 4
    np.testing.assert_array_equal(np.isnan(numbers), clusters == -2)
    assert set(np.unique(numbers[np.isfinite(numbers)])) == {0, 1, 2, 3}
    latent = ds.latents.isel(latent=0, drop=True).rename("latent 0")
    both = va.view(clusters, kind="clusters", latent=latent, target=ds.BC)
    shaded, mapper = _image(both)
    of = [{mapper.palette[int(v)] for v in shaded[(clusters == code).values]} for code in (-1, 0, 1, 2)]
    assert all(not (one & other) for i, one in enumerate(of) for other in of[:i])
    hover = _bokeh(both).select_one({"type": bm.HoverTool})
    assert hover.tooltips[-1] == ("latent 0", "@{latent_0}")  # the name of the column in the page
    assert va.view(clusters, "matplotlib").axes[0].patch.get_hatch() == "////"
    many = clusters.copy(data=np.arange(108).reshape(12, 9).astype("i2") % 20).drop_attrs().assign_attrs(n_noise=0)
    left = va.view(many, "matplotlib", kind="comparison", reference=ds.phase).axes[0]
    assert len(left.child_axes[0].get_yticks()) <= 12  # names that do not lie on each other
    with pytest.raises(SchemaError, match="same grid"):
        va.view(clusters, kind="comparison", reference=ds.phase.isel(x=slice(3)))


def test_map_and_scatter_share_one_source_and_many_points_are_a_density(ds: xr.Dataset) -> None:
    model = _bokeh(va.view(ds, kind="map_scatter", latent=1, roi=ds.roi))
    sources = {r.data_source.id for r in model.select({"type": bm.GlyphRenderer}) if isinstance(r.glyph, bm.Scatter)}
    assert len(sources) == 1
    many = ds.isel(y=np.arange(2400) % 12).assign_coords(y=np.arange(2400.0))
    right = va.view(many, "matplotlib", kind="map_scatter").axes[1]
    counts = next(c for c in right.collections if c.get_array() is not None).get_array()
    assert counts.sum() == np.isfinite(many.latents[..., 0]).sum()
    known, contrast = many.latents[..., 0].values.ravel(), many.BC.values.ravel()
    r = np.corrcoef(known[np.isfinite(known)], contrast[np.isfinite(known)])[0, 1]
    assert right.get_title().startswith(f"Pearson r = {common.number(r)}")
    with journal():
        for text in right.figure.findobj(lambda item: hasattr(item, "get_fontsize")):
            assert text.get_fontsize() >= SMALL - 1 or not text.get_text()
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


def test_small_panels_of_a_stack_tell_their_range(ds: xr.Dataset) -> None:
    axes = va.view(ds.latents, "matplotlib").axes
    low, high = np.nanpercentile(ds.latents[..., 2], (1, 99))
    assert axes[2].get_title() == f"2: {low:.2g} … {high:.2g}"
    assert any("µm" in word.get_text() for word in axes[0].findobj(lambda item: hasattr(item, "get_text")))
    with pytest.raises(NoInputError, match="no entry 7"):
        va.view(ds.latents, entries=[7])


def test_figures_have_300_dpi_letters_and_the_same_bytes(ds: xr.Dataset, tmp_path: Path) -> None:
    with Image.open(save(ds.BC, tmp_path / "a.png")) as picture:
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    first, second = (save(ds.BC, tmp_path / f"{i}.pdf").read_bytes() for i in "ab")
    assert first == second
    assert b"/Type3" not in first
    assert save(ds.BC, tmp_path / "a.svg").read_text().startswith("<?xml")
    for name, error in (("a.png", ExistsError), ("a.jpg", UsageError), ("no/a.png", NoInputError)):
        with pytest.raises(error):
            save(ds.BC, tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pdf", "a.png", "a.svg", "b.pdf"]


def test_limits_outlines_codes_and_labels() -> None:
    assert common.robust_limits(np.r_[np.arange(100.0), 1e9]) == (1.0, 99.0)
    assert common.robust_limits(np.full(5, np.nan), symmetric=True) == (-1.0, 1.0)
    assert common.robust_limits(np.r_[np.zeros(999), 5.0]) == (0.0, 5.0)
    mask = np.random.default_rng(0).random((20, 30)) < 0.5
    da = xr.DataArray(mask, {"y": np.arange(20.0), "x": np.arange(30.0)}, ("y", "x"))
    segments, padded = common.roi_outline(da), np.pad(mask, 1).astype(int)
    wanted = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    assert np.abs(segments[:, 2:] - segments[:, :2]).sum() == wanted
    np.testing.assert_array_equal(common.roi_outline(da[::-1]), segments)
    codes = xr.DataArray([-2, 7, 3], dims="x", attrs={"flag_values": [-2, 3, 7], "flag_meanings": "no a b"})
    positions, names = common.as_codes(codes)
    np.testing.assert_array_equal(positions, [np.nan, 1, 0])
    assert names == ["a", "b"]
    assert common.label(xr.DataArray(0, name="x", attrs={"units": "um"})) == "x (µm)"
    assert "$$" not in common.text("$$x$$ \\(y\\)\n")
