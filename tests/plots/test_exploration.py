"""Sheets of an exploration: ticks where the pictures are, the vertical dimension upwards, one scale."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from vaearr.errors import SchemaError
from vaearr.plots.exploration import manifold_sheet, prototype_sheet, traversal_sheet

SIGNALS = {"grey": {"dy": 4, "dx": 6}, "colour": {"channel": 3, "y": 4, "x": 6}, "volume": {"z": 3, "y": 4, "x": 6}}


def _decoded(lead: dict[str, int], signal: dict[str, int]) -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(*lead.values(), *signal.values())).astype("f4")
    return xr.DataArray(values, dims=(*lead, *signal), name="decoded", attrs={"scale": "preprocessed"})


@pytest.mark.parametrize("kind", SIGNALS)
def test_all_kinds_of_samples(kind: str) -> None:
    signal = SIGNALS[kind]
    steps = xr.Dataset(
        {"decoded": _decoded({"latent_dim": 2, "step": 3}, signal)},
        coords={"latent_dim": [4, 7], "value": (("latent_dim", "step"), np.arange(6.0).reshape(2, 3))},
        attrs={"base": "mean of all samples"},
    )
    axes = traversal_sheet(steps).axes
    assert [ax.get_xlabel() for ax in axes[:6]] == [f"{v:.2f}" for v in range(6)]
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["latent 4", "latent 7"]
    classes = xr.Dataset(
        {
            "decoded": _decoded({"class": 3}, signal),
            "latents": (("class", "latent"), np.eye(3, 5)),
            "n": ("class", [1, 2, 3]),
        },
        coords={"class": ["a", "b", "c"]},
        attrs={"by": "label"},
    )
    assert "a\nn = 1" in [ax.get_title() for ax in prototype_sheet(classes).axes] + [
        ax.get_title() for sub in prototype_sheet(classes).subfigs for ax in sub.axes
    ]


def test_the_mosaic_lies_on_its_axes() -> None:
    decoded = _decoded({"row": 2, "column": 3}, SIGNALS["grey"])
    decoded[:] = np.arange(6.0).reshape(2, 3)[..., None, None]
    found = xr.Dataset(
        {"decoded": decoded},
        coords={"row": ("row", [-1.0, 1], {"long_name": "latent 5"}), "column": ("column", [0.0, 2, 4])},
        attrs={"base": "mean"},
    )
    found["column"].attrs["long_name"] = "latent 2"
    axes = manifold_sheet(found).axes[0]
    image = axes.images[0].get_array()
    assert image[-1, 0] < image[-1, -1] < image[0, 0]  # the first row is the lowest
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.00", "2.00", "4.00"]
    np.testing.assert_allclose(axes.get_xticks(), [3, 9, 15])
    np.testing.assert_allclose(axes.get_yticks(), [2, 6])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("latent 2", "latent 5")
    with pytest.raises(SchemaError, match="expected"):
        manifold_sheet(found.rename(row="r"))
