"""Any result as a picture or as text; what a store names is never imported to show it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
import zarr
from matplotlib.text import Text
from PIL import Image

import vaearr as va
from vaearr import views
from vaearr.errors import ExistsError, NoInputError, SchemaError, UsageError

from .harness import vaearr

MARKER = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()
def show(result, **options):
    return result
"""


@pytest.fixture
def hostile_store(trained_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose variables name a view of a module that lies next to it and on the path of
    imports.
    """
    (trained_store.parent / "marker.py").write_text(MARKER)
    monkeypatch.syspath_prepend(trained_store.parent)
    monkeypatch.setenv("PYTHONPATH", str(trained_store.parent))
    root = zarr.open_group(trained_store)
    for name in ("BC", "latents", "grains", "elements", "phase", "patterns"):
        root[name].attrs["kind"] = "marker:show"
    with warnings.catch_warnings():  # of the folders of runs, which are no arrays
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(trained_store)
    return trained_store


@pytest.mark.parametrize(
    "args",
    [
        ["info", "{store}"],
        ["info", "{store}", "--out", "samples.png"],
        ["explore", "{store}", "--save", "page.html"],
        ["export", "{store}", "out", "--format", "png"],
        ["look", "contrast", "{store}", "--out", "bc.png"],
    ],
    ids=lambda args: "-".join(args[:3:2]),
)
def test_commands_do_not_import_what_a_store_names(
    hostile_store: Path, tmp_path: Path, args: list[str]
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    changed = [str(folder / arg) if "." in arg or arg == "out" else arg for arg in args[1:]]
    vaearr(args[0], *[hostile_store if "{store}" in arg else arg for arg in changed])
    assert not (hostile_store.parent / "imported").exists()


def test_views_do_not_import_what_a_store_names(hostile_store: Path) -> None:
    ds = va.open_store(hostile_store)
    assert ds.BC.attrs["kind"] == "marker:show"
    for result in (
        ds,
        ds.BC,
        ds.latents,
        ds.grains,
        ds.elements,
        ds.phase,
        ds.patterns,
        va.load_run(hostile_store),
    ):
        assert va.view(result) is not result
        assert va.describe(result)
    assert "marker" not in sys.modules
    assert not (hostile_store.parent / "imported").exists()
    assert va.view(ds.BC, kind=lambda result: result).identical(ds.BC)
    assert va.view(ds.BC, kind="marker:show").identical(ds.BC)  # the user's own word
    assert (hostile_store.parent / "imported").exists()


def test_a_view_of_every_part_of_a_store(trained_template: Path, images_template: Path) -> None:
    ds = va.open_store(trained_template)
    shown = va.view(ds)
    titles = [part.opts.get("plot").kwargs["title"] for part in shown]
    for title in ("band contrast", "Fe", "phase", "latent 0"):
        assert any(title in text for text in titles), titles
    assert 7 < len(va.view(va.load_run(trained_template))) <= len(shown)
    for patterns in (
        ds.patterns,
        ds.patterns.isel(x=slice(5)),
        ds.patterns[0, 0],
        va.open_store(images_template),
    ):
        assert va.view(patterns) is not None
    assert va.view(ds.patterns, kind="patterns") is not None


KINDS: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "map": (lambda store: va.open_store(store).BC, {}),
    "phase": (lambda store: va.open_store(store).phase, {}),
    "stack": (lambda store: va.open_store(store).latents, {}),
    "pictures": (lambda store: va.open_store(store).patterns[0, :3], {}),
    "dataset": (lambda store: va.open_store(store), {}),
    "side_maps": (lambda store: va.open_store(store), {"kind": "side_maps"}),
    "samples": (lambda store: va.open_store(store), {"kind": "samples"}),
    "map_scatter": (lambda store: va.open_store(store), {"kind": "map_scatter"}),
    "classes": (lambda store: va.open_store(store).grains, {}),
    "components": (lambda store: va.load_run(store, "pca").components, {}),
    "variance": (lambda store: va.load_run(store, "pca").health.explained_variance_ratio, {}),
    "history": (lambda store: va.load_run(store).history, {}),
    "run_health": (lambda store: va.load_run(store).health, {}),
    "association": (lambda store: va.load_run(store).table("association"), {"metric": "pearson"}),
    "reconstruction": (lambda store: va.load_run(store).reconstruct(), {}),
    "traversal": (lambda store: va.load_run(store).traverse([0, 1]), {}),
    "manifold": (lambda store: va.load_run(store).manifold(steps=5), {}),
    "path": (lambda store: va.load_run(store).line(((-1.0, -1.0), (1.0, 1.0))), {}),
    "draws": (lambda store: va.load_run(store).sample(n_samples=4), {}),
    "prototypes": (lambda store: va.load_run(store).prototypes(), {}),
    "embedding": (lambda store: va.load_run(store).scatter("pca"), {}),
    "pairs": (lambda store: va.load_run(store).pairs("roi", dims=[0, 1]), {}),
    "pairs by phase": (lambda store: va.load_run(store).pairs("phase", dims=[0, 1]), {}),
    "histograms": (lambda store: va.load_run(store).histograms(dims=[0]), {}),
    "activations": (lambda store: va.load_run(store).activations("phase"), {}),
    "statistics": (lambda store: va.load_run(store).statistics(), {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_result_is_a_picture_and_a_page(
    name: str, trained_store: Path, tmp_path: Path
) -> None:
    make, options = KINDS[name]
    result = make(trained_store)
    before = dict(mpl.rcParams)
    with Image.open(views.save(result, tmp_path / "a.png", dpi=60, **options)) as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    assert dict(mpl.rcParams) == before
    assert "<html" in views.save(result, tmp_path / "a.html", **options).read_text()
    assert va.describe(result)


def test_figures_for_paper(trained_template: Path, tmp_path: Path) -> None:
    """300 dpi, widths of columns by name, panel letters, no title, units, limits, letters of 5 to 7
    pt, the same bytes again.
    """
    ds = va.open_store(trained_template)
    for width, inches in (("single", 3.5), ("double", 7.2)):
        path = views.save(ds, tmp_path / f"{width}.png", kind="side_maps", width=width)
        with Image.open(path) as picture:
            assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            assert inches * 0.6 < picture.width / 300 < inches * 1.1
    figure = va.view(ds, "matplotlib", kind="map_scatter")
    assert [axes.get_title("left") for axes in figure.axes] == ["a", "b"]
    texts = [text for text in figure.findobj(Text) if text.get_text() not in ("", "a", "b")]
    assert min(text.get_fontsize() for text in texts) >= 5
    assert max(text.get_fontsize() for text in texts) <= 7
    (axes,) = va.view(ds.BC, "matplotlib").axes
    assert axes.get_title() == ""
    assert axes.child_axes[0].get_ylabel() == "band contrast"  # the colour bar
    (axes,) = views.on_paper(va.view(ds.BC), titles=True).axes
    assert axes.get_title() == "band contrast"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (µm)", "y (µm)")
    assert axes.get_aspect() == 1
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # rows downwards
    assert axes.images[0].get_clim() == pytest.approx(tuple(np.nanpercentile(ds.BC, (1, 99))))
    first, second = (views.save(ds.BC, tmp_path / f"{name}.pdf").read_bytes() for name in "ab")
    assert first == second
    assert b"/Type3" not in first
    for name, error in (("a.pdf", ExistsError), ("a.jpg", UsageError), ("no/a.png", NoInputError)):
        with pytest.raises(error):
            views.save(ds.BC, tmp_path / name)
    with pytest.raises(UsageError, match="single, middle, double"):
        views.save(ds.BC, tmp_path / "c.png", width="wide")


def test_clusters_and_noise_never_share_a_colour(trained_template: Path) -> None:
    ds = va.open_store(trained_template)
    labels = ds.grains.load().copy()
    labels[:2] = -1  # noise
    latent = ds.latents.isel(latent=0, drop=True).rename("latent 0")
    shown = va.view(labels, kind="clusters", latent=latent, target=ds.BC)
    (picture,) = shown.traverse(lambda element: element, [views.common.holoviews().Image])[:1]
    palette = picture.opts.get("style").kwargs["cmap"]
    numbers = picture.dimension_values(2, flat=False)
    colors = {}
    for code in np.unique(labels.where(labels >= -1, drop=False).fillna(-2).astype(int)):
        inside = numbers[(labels == code).values]
        colors[code] = {palette[int(number)] for number in inside[np.isfinite(inside)]}
    codes = [code for code in colors if code >= -1]
    assert len(codes) == 5
    for code in codes:
        others = set().union(*(colors[other] for other in codes if other != code))
        assert not colors[code] & others
    with pytest.raises(SchemaError, match="same grid"):
        va.view(labels, kind="clusters", latent=latent, target=ds.BC.isel(x=slice(3)))


def test_odd_maps_and_elements_over_a_map(trained_template: Path, tmp_path: Path) -> None:
    ds = va.open_store(trained_template)
    odd = (
        ds.BC.isel(y=[0, 1, 4]),
        ds.BC.isel(y=[0]),
        ds.BC * np.nan,
        ds.BC.drop_vars(["x", "y"]),
        ds.BC.T,
    )
    for i, da in enumerate(odd):
        views.save(da, tmp_path / f"{i}.png", dpi=60)
        views.save(da, tmp_path / f"{i}.html")
    plain = views.save(ds.BC, tmp_path / "plain.png", dpi=60).read_bytes()
    element = views.common.holoviews().Points(([1.0], [2.0]))
    assert (
        views.save(va.view(ds.BC) * element, tmp_path / "point.png", dpi=60).read_bytes() != plain
    )
    with pytest.raises(UsageError, match="two dimensions"):
        va.view(ds.latents, kind="map")


def test_text_of_any_result(trained_template: Path) -> None:
    ds = va.open_store(trained_template)
    lines = va.describe(ds.BC)
    numbers = np.asarray(ds.BC.where(ds.BC.notnull()), dtype="f8")
    assert lines[0] == f"map: {ds.sizes['y']} y x {ds.sizes['x']} x"
    assert f"{np.nanmedian(numbers):.4g}" in "\n".join(lines)
    counts = dict(zip(*np.unique(va.cluster(ds.latents, k=3), return_counts=True), strict=True))
    text = "\n".join(va.describe(va.cluster(ds.latents, k=3)))
    for code, count in counts.items():
        assert f"{code}".rjust(5) in text
        assert f" {count}" in text
    table = va.associate(ds.latents, ds[["BC"]], ["pearson", "spearman"])
    strongest = abs(table.sel(metric="pearson", target="BC")).idxmax("latent").astype(int).item()
    (row,) = [
        line.split() for line in va.describe(table, top=1) if line.split()[:2] == ["pearson", "BC"]
    ]
    assert row[2] == str(strongest)
    warned = xr.DataArray([1.0, 2.0], dims="step", name="a", attrs={"warnings": ["too few points"]})
    assert va.describe(warned)[-1] == "warning: too few points"
    assert va.describe(xr.Dataset())
    wide = xr.Dataset({f"column_{i}": ("row", np.ones(9)) for i in range(20)})
    lines = va.describe(wide)
    assert max(map(len, lines)) <= 100
    assert "column_19" in lines[-1]
    steps = xr.Dataset({"decoded": (("step", "dy"), np.ones((30, 8)))})
    for i in range(20):
        steps[f"of_step_{i}"] = "step", np.ones(30)
        steps[f"other_{i}"] = ("step", "end"), np.ones((30, 4))
    assert len(va.describe(steps)) <= 10
    assert len(va.describe(va.load_run(trained_template))) < 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nosuch": 1}, "Unexpected option 'nosuch'.*Options of this view: roi, segments"),
        ({"kind": "histogram"}, "shows a result with .*bin, count"),
        ({"kind": "contrast"}, "missing a required argument: 'histogram'"),
        ({"kind": "stak"}, "Did you mean 'stack'"),
    ],
)
def test_options_that_a_view_does_not_have(
    trained_template: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        va.view(va.open_store(trained_template).BC, **options)


def test_the_legend_of_many_clusters_names_the_largest_ten() -> None:
    codes = np.repeat(np.arange(12), np.arange(1, 13)).reshape(6, 13).astype("i4")  # 11 is largest
    grid = {"y": np.arange(6.0), "x": np.arange(13.0)}
    labels = xr.DataArray(codes, grid, ("y", "x"), "grains")
    values = labels.astype("f4").rename("v") + np.arange(13)
    figure = va.view(labels, "matplotlib", kind="clusters", latent=values, target=values)
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert [text.get_text() for text in legends[0].get_texts()] == [str(i) for i in range(2, 12)]
