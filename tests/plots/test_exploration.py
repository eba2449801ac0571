"""Sheets of what is decoded: ticks where the pictures are, the vertical dimension upwards, numbered points."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from vaearr.errors import NoInputError, SchemaError, UsageError
from vaearr.plots.exploration import manifold_sheet, prototype_sheet, traversal_frames, traversal_sheet
from vaearr.plots.exploration_binary import binary_strip
from vaearr.plots.exploration_scatter import embedding_sheet, path_sheet, vector_sheet

from .exploration_results import SIGNALS, classes, decoded, embedded, plane, traversal, way


@pytest.mark.parametrize("kind", SIGNALS)
def test_all_kinds_of_samples(kind: str) -> None:
    signal = SIGNALS[kind]
    axes = traversal_sheet(traversal(signal)).axes
    assert [ax.get_xlabel() for ax in axes[:6]] == [f"{v:.2f}" for v in range(6)]
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["latent 4", "latent 7"]
    sheet = prototype_sheet(classes(signal))
    assert "a\nn = 1" in [ax.get_title() for part in (sheet, *sheet.subfigs) for ax in part.axes]
    titles = [ax.get_title() for ax in path_sheet(way(signal)).subfigs[1].axes]
    assert titles[:3] == ["1", "2", "3"]


def test_the_mosaic_lies_on_its_axes() -> None:
    found = plane(SIGNALS["grey"])
    found["decoded"][:] = np.arange(6.0).reshape(2, 3)[..., None, None]
    axes = manifold_sheet(found).axes[0]
    image = axes.images[0].get_array()
    assert image[-1, 0] < image[-1, -1] < image[0, 0]  # the first row is the lowest
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.00", "2.00", "4.00"]
    np.testing.assert_allclose(axes.get_xticks(), [3, 9, 15])
    np.testing.assert_allclose(axes.get_yticks(), [2, 6])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("latent 2", "latent 5")
    with pytest.raises(SchemaError, match="expected"):
        manifold_sheet(found.rename(row="r"))


def test_the_heat_map_of_spatial_prototypes_leaves_out_what_is_missing() -> None:
    table = prototype_sheet(classes(SIGNALS["grey"], spatial=True)).subfigs[1].axes[0]
    np.testing.assert_allclose(table.images[0].get_array(), np.eye(3, 5))


def test_frames_run_through_all_dimensions_at_once() -> None:
    found = traversal(SIGNALS["grey"])
    frames = traversal_frames(found)
    assert len(frames) == 3
    factor = 20  # 2 pictures of 6 pixels beside each other, to 240
    assert frames[0].shape == (4 * factor, 12 * factor)
    values = found["decoded"].values
    low, high = np.percentile(values, (0.5, 99.5))
    want = (255 * np.clip((values[1, 2, 3, 5] - low) / (high - low), 0, 1)).round()
    assert frames[2][-1, -1] == want
    assert traversal_frames(traversal(SIGNALS["colour"]))[0].shape[-1] == 3


@pytest.mark.parametrize("space", ["plane", "tsne"])
def test_numbers_stand_at_the_positions(space: str) -> None:
    found = way(SIGNALS["grey"], space)
    axes = path_sheet(found).subfigs[0].axes[0]
    marks = {t.get_text(): t.get_position() for t in axes.texts}
    for i, place in enumerate(found["position"].values):
        np.testing.assert_allclose(marks[str(i + 1)], place)
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert len(crosses) == (space == "tsne")
    if crosses:
        np.testing.assert_allclose(crosses[0].get_xydata(), found["requested"].values[1:2])
    names = [entry.get_text() for entry in axes.get_legend().get_texts()]
    assert names == ["one", "two", "none"]


def test_an_embedding_once_for_each_colour() -> None:
    figure = embedding_sheet(embedded())
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:3] == ["label", "BC", "latent 3"]
    assert "10 of 40 samples, perplexity 3" in figure.get_suptitle()
    known = figure.axes[2].collections[1].get_array()
    assert len(known) == 9  # the one without an amount is grey
    assert len(embedding_sheet(embedded(amounts=False)).axes) == 1


def test_vectors_beside_their_pictures() -> None:
    z = np.random.default_rng(0).normal(size=(20, 4)).astype("f4")
    found = xr.Dataset(
        {"decoded": decoded({"sample": 20}, SIGNALS["grey"]), "latents": (("sample", "latent"), z)},
        attrs={"source": "prior"},
    )
    figure = vector_sheet(found, most=5)
    rows = [ax.images[0].get_array() for ax in figure.axes[1:10:2]]
    np.testing.assert_allclose(np.concatenate(rows), z[:5])
    assert figure.axes[1].texts[0].get_text() == f"{z[0, 0]:.1f}".replace("-", "−")
    steps = xr.Dataset(
        {"decoded": decoded({"step": 9}, SIGNALS["volume"]), "latents": (("step", "latent", "ly"), np.ones((9, 2, 3)))},
        coords={"t": ("step", np.linspace(0, 1, 9))},
        attrs={"method": "lerp"},
    )
    assert vector_sheet(steps, most=3).axes[4].get_ylabel() == "t = 1"


def test_black_and_white_counts_what_differs() -> None:
    pair = decoded({"example": 2}, SIGNALS["grey"])
    pair[:] = 0
    pair[:, 0] = 10
    other = pair.copy()
    other[1, 1] = 10
    found = xr.Dataset({"input": pair, "reconstruction": other})
    axes = binary_strip(found, 5).axes
    assert [ax.get_xlabel() for ax in axes[-2:]] == ["0.0% differ", "25.0% differ"]
    assert [ax.get_xlabel() for ax in binary_strip(found, 11).axes[-2:]] == ["0.0% differ"] * 2
    with pytest.raises(UsageError, match="threshold is nan"):
        binary_strip(found, float("nan"))
    with pytest.raises(NoInputError, match="no example"):
        binary_strip(xr.Dataset(), 5)
