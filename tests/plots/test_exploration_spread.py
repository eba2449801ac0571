"""Sheets of how latents spread: densities integrate, histograms are of their classes, numbers are the result's."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex
from scipy.stats import gaussian_kde

from vaearr.plots.colors import distinct_colors
from vaearr.plots.exploration_health import latent_health_sheet, table_sheet, table_text, unusual_sheet
from vaearr.plots.exploration_spread import (
    activation_sheet,
    histogram_sheet,
    latent_pca_sheet,
    levels_of,
    pair_sheet,
    smoothed,
)

from .exploration_results import ATTRS, SIGNALS, codes, decoded, spread


def _histograms(by_class: bool) -> xr.Dataset:
    z = spread()
    edges = np.stack([np.linspace(c.min(), c.max(), 6) for c in z.T])
    whole = np.stack([np.histogram(c, e)[0] for c, e in zip(z.T, edges, strict=True)])
    counts = np.stack([whole, 0 * whole, 2 * whole]) if by_class else whole
    dims = ("class", "latent", "bin") if by_class else ("latent", "bin")
    coords: dict[str, object] = {"latent": [0, 1, 2]} | ({"class": ["a", "empty", "b"]} if by_class else {})
    return xr.Dataset(
        {"counts": (dims, counts), "edges": (("latent", "edge"), edges)}, coords=coords, attrs={"n": 200, "by": "label"}
    )


def _pairs(by_class: bool) -> xr.Dataset:
    z, one = spread(), _histograms(False)
    edges = one["edges"].values
    both = list(combinations(range(3), 2))
    density = [np.histogram2d(z[:, j], z[:, i], [edges[j], edges[i]], density=True)[0] for i, j in both]
    found = xr.Dataset(
        {
            "density": (("pair", "bin_y", "bin_x"), np.stack(density)),
            "counts": one["counts"],
            "edges": one["edges"],
            "correlation": (("latent", "other"), np.corrcoef(z.T)),
            "vectors": (("point", "latent"), z[:50]),
        },
        coords={"latent": [0, 1, 2], "x_dim": ("pair", [i for i, _ in both]), "y_dim": ("pair", [j for _, j in both])},
        attrs={"n": 200, **ATTRS},
    )
    if by_class:
        found = found.assign_coords(class_of_point=codes(50, ["a", "b"]), **{"class": ["a", "b"]})
        found["class_counts"] = (("class", "latent", "bin"), np.stack([one["counts"], one["counts"]]))
    return found


def test_smoothed_densities_are_kernel_estimates() -> None:
    z = np.random.default_rng(1).normal(size=(2000, 2)) * [1, 3]
    edges = [np.linspace(-4, 4, 61), np.linspace(-12, 12, 61)]
    density = np.histogram2d(z[:, 1], z[:, 0], edges[::-1], density=True)[0]
    soft = smoothed(density, len(z))
    middles = [(e[1:] + e[:-1]) / 2 for e in edges]
    across, up = np.meshgrid(*middles)
    kernel = gaussian_kde(z.T, bw_method=lambda k: k.scotts_factor() / 2)
    want = kernel(np.stack([across.ravel(), up.ravel()])).reshape(60, 60)
    np.testing.assert_allclose(soft, want, atol=0.1 * want.max())
    levels = levels_of(soft)
    for level, share in zip(levels, (0.9, 0.5), strict=True):
        assert soft[soft >= level].sum() / soft.sum() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("by_class", [False, True])
def test_pairs(by_class: bool) -> None:
    found = _pairs(by_class)
    axes = pair_sheet(found).axes
    r = f"{float(found['correlation'][0, 1]):.2f}".replace("-", "−")
    mesh = axes[3].collections[0].get_array()
    np.testing.assert_allclose(mesh.filled(0), found["density"][0])
    assert (axes[6].get_xlabel(), axes[6].get_ylabel()) == ("latent 0", "latent 2")
    if by_class:
        assert axes[3].get_title() == f"r = {r}"
        np.testing.assert_allclose(axes[1].collections[0].get_offsets().mean(0), spread()[:50, [1, 0]].mean(0))
    else:
        assert (axes[1].texts[0].get_text(), axes[3].get_title()) == (r, "")


def test_histograms_of_classes_are_shares() -> None:
    axes = histogram_sheet(_histograms(True)).axes
    one, other = (patch.get_data().values for patch in axes[0].patches)  # the empty class is left out
    np.testing.assert_allclose(one, other)
    assert one.sum() == pytest.approx(1)
    colors = [to_hex(p.get_edgecolor()) for p in axes[0].patches]
    assert colors == [c.lower() for c in distinct_colors(2)]
    plain = histogram_sheet(_histograms(False)).axes[0].patches[0].get_data().values
    np.testing.assert_array_equal(plain, _histograms(False)["counts"][0])


def _activations() -> xr.Dataset:
    z = spread()[:30]
    order = np.sort(np.arange(30) % 2)
    flags = {"long_name": "label", "flag_values": [-1, 0, 1], "flag_meanings": ["none", "a", "b"]}
    return xr.Dataset(
        {"activation": (("point", "latent"), z), "class_mean": (("class", "latent"), z[:2])},
        coords={"latent": [0, 4, 2], "class": ["a", "b"], "class_of_point": ("point", order, flags)},
        attrs={"n": 90, "by": "label"},
    )


def test_activations_have_their_classes_beside_them() -> None:
    found = _activations()
    axes = activation_sheet(found).axes
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["a", "b"]
    np.testing.assert_allclose(axes[0].get_yticks(), [7, 22])
    assert [t.get_text() for t in axes[0].get_xticklabels()] == ["0", "4", "2"]
    np.testing.assert_allclose(axes[1].images[0].get_array(), found["class_mean"])
    assert axes[0].get_title() == "30 of 90 samples"
    assert len(activation_sheet(found.drop_vars(["class_mean", "class_of_point", "class"])).axes) == 2


@pytest.mark.parametrize("spatial", [False, True])
def test_loadings(spatial: bool) -> None:
    loadings = np.random.default_rng(0).normal(size=(2, 3, 4) if spatial else (2, 3))
    share = np.array([0.7, 0.25])
    found = xr.Dataset(
        {
            "loadings": (("component", "latent", "ly") if spatial else ("component", "latent"), loadings),
            "explained_variance_ratio": ("component", share),
            "explained_variance_cumulative": ("component", share.cumsum()),
        }
    )
    left, right = latent_pca_sheet(found).axes[:2]
    want = np.sqrt((loadings**2).sum(-1)) if spatial else loadings
    np.testing.assert_allclose(left.images[0].get_array(), want)
    assert right.get_title() == "2 components hold 90 %"


def _health(kl: float, pair: list[int]) -> xr.Dataset:
    names = ("aggregate_mean", "aggregate_std", "aggregate_kl", "kolmogorov", "wasserstein")
    data: dict[str, object] = {name: ("latent", [0.1, 0.2, 0.3]) for name in names}
    return xr.Dataset(
        data
        | {
            "kl": ("latent", [kl] * 3),
            "is_active": ("latent", [True, True, False]),
            "correlation": (("latent", "other"), np.eye(3)),
            "density": (("latent", "bin"), np.full((3, 4), 0.125)),
            "prior": ("bin", np.full(4, 0.1)),
            "edges": ("edge", np.linspace(-4, 4, 5)),
        },
        coords={"latent": [0, 1, 2]},
        attrs={
            "n": 1000, "kl_total": 3 * kl, "aggregate_kl_total": None if np.isnan(kl) else 0.5,
            "total_correlation": 0.25, "total_correlation_bound": None, "largest_correlation": -0.5,
            "largest_pair": pair,
        },
    )  # fmt: skip


def test_health() -> None:
    figure = latent_health_sheet(_health(1.5, [0, 1]))
    titles = [ax.get_title() for ax in figure.axes]
    assert "2 of 3 latents active, KL 4.5 nats" in titles
    assert "largest correlation −0.50 (0, 1)" in titles
    assert "total correlation if Gaussian 0.25 nats" in figure.get_suptitle()
    assert [p.get_height() for p in figure.axes[0].patches] == [1.5] * 3
    attached = latent_health_sheet(_health(np.nan, []))
    assert attached.axes[0].get_ylabel() == "variance of the latents"
    assert "KL" not in attached.get_suptitle()


@pytest.mark.parametrize("kind", SIGNALS)
def test_unusual_samples_on_a_map_and_in_the_histogram(kind: str) -> None:
    rng = np.random.default_rng(0)
    grid = rng.chisquare(3, (9, 8)) ** 0.5
    grid[0, 0] = np.nan
    coords = {"y": np.arange(9) * 0.5, "x": np.arange(8) * 0.5}
    maps = xr.Dataset({"distance": (("y", "x"), grid), "p_value": (("y", "x"), grid)}, coords, {"degrees": 3})
    place = xr.Dataset(coords={"y": ("point", [1.0, 4.0, 4.0]), "x": ("point", [0.5, 3.0, 3.0])})
    signal = SIGNALS["grey"] if kind == "volume" else SIGNALS[kind]
    if kind == "colour":
        signal = {"channel": 3, "dy": 4, "dx": 6}
    found = place.assign(input=decoded({"point": 3}, signal), distance=("point", [5.0, 4, 4]))
    found = found.assign_coords({"class": codes(3, ["a"])})
    figure = unusual_sheet(found, maps)
    below = figure.subfigs[1].axes
    assert [t.get_text() for t in below[0].texts] == ["1", "2"]  # the third would lie on the second
    assert figure.subfigs[0].axes[0].get_xlabel() == "label a\nx = 0.5\ny = 1"
    assert below[1].get_legend() is not None
    line = xr.Dataset({"distance": ("sample", grid.ravel())})  # of spatial latents: no distribution to compare with
    (alone,) = unusual_sheet(found, line).subfigs[1].axes
    assert alone.get_legend() is None


def test_the_table() -> None:
    found = xr.Dataset(
        {"summary": (("latent", "statistic"), [[1234.0, -0.5, np.nan]])},
        coords={"latent": [3], "statistic": ["count", "mean", "std"]},
        attrs={"n": 1234},
    )
    words = [t.get_text() for t in table_sheet(found).axes[0].texts]
    assert words == ["latent", "count", "mean", "std", "3", "1,234", "−0.5", "–"]
    assert table_text(12345.678) == "1.235e+04"
