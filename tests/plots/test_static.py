"""Figures for paper."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from vaearr.association import associate, targets_of
from vaearr.errors import NoInputError
from vaearr.plots import static


def _sheets(ds: xr.Dataset, history: xr.Dataset, health: xr.Dataset, samples: xr.Dataset) -> dict[str, Any]:
    table = associate(ds["latents"], targets_of(ds))
    return {
        "latents": static.latent_sheet(ds),
        "sides": static.side_sheet(ds, roi=ds["roi"]),
        "target": static.latent_target(ds, latent=1, target="BC", roi=ds["roi"]),
        "phase": static.latent_target(ds, latent=1, target="phase: fe_bcc"),
        "loss": static.loss_sheet(history),
        "health": static.health_sheet(health),
        "samples": static.reconstruction_sheet(samples),
        "association": static.association_sheet(table),
    }


def test_sheets_render_and_leave_no_trace(
    ds: xr.Dataset, history: xr.Dataset, health: xr.Dataset, samples: xr.Dataset
) -> None:
    before = dict(mpl.rcParams)
    for name, figure in _sheets(ds, history, health, samples).items():
        buffer = io.BytesIO()
        with static.journal_style():
            figure.savefig(buffer, format="png", dpi=50)
        assert buffer.getvalue().startswith(b"\x89PNG"), name
    assert dict(mpl.rcParams) == before


def test_maps_have_units_rows_downwards_and_limits(ds: xr.Dataset) -> None:
    axes = static.side_sheet(ds).axes[0]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_aspect() == 1
    assert axes.get_xlabel() == "x (µm)"
    low, high = np.percentile(ds["BC"].values, [1, 99])
    assert axes.collections[0].get_clim() == pytest.approx((low, high), rel=1e-5)


def test_association_is_centred_at_zero(ds: xr.Dataset) -> None:
    low, high = static.association_sheet(associate(ds["latents"], targets_of(ds))).axes[0].collections[0].get_clim()
    assert low == -high


def test_dollar_signs_are_text(ds: xr.Dataset) -> None:
    figure = static.side_sheet(ds.assign(BC=ds["BC"].assign_attrs(long_name=r"$\frac{$ {x}")))
    with static.journal_style():
        figure.draw_without_rendering()


def test_nothing_to_show_is_told(ds: xr.Dataset) -> None:
    with pytest.raises(NoInputError, match="no band contrast"):
        static.side_sheet(ds[["latents"]])
    with pytest.raises(NoInputError, match="no latent"):
        static.latent_sheet(ds, latents=[])
