"""Results of exploration as its functions give them, of any kind of sample, without a store."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

SIGNALS = {"grey": {"dy": 4, "dx": 6}, "colour": {"channel": 3, "y": 4, "x": 6}, "volume": {"z": 3, "y": 4, "x": 6}}
ATTRS = {"run": "vae", "weights_sha256": "0" * 64}


def decoded(lead: dict[str, int], signal: dict[str, int]) -> xr.DataArray:
    """Random pictures."""
    values = np.random.default_rng(0).normal(size=(*lead.values(), *signal.values())).astype("f4")
    return xr.DataArray(values, dims=(*lead, *signal), name="decoded", attrs={"scale": "preprocessed"})


def codes(count: int, names: list[str]) -> tuple[str, np.ndarray, dict[str, Any]]:
    """A class for each point, the last without one."""
    values = np.arange(count) % len(names)
    values[-1] = -1
    flags = {"flag_values": [-1, *range(len(names))], "flag_meanings": ["none", *names]}
    return "point", values, {"long_name": "label", **flags}


def traversal(signal: dict[str, int]) -> xr.Dataset:
    """Two dimensions in three steps."""
    return xr.Dataset(
        {"decoded": decoded({"latent_dim": 2, "step": 3}, signal)},
        coords={"latent_dim": [4, 7], "value": (("latent_dim", "step"), np.arange(6.0).reshape(2, 3))},
        attrs={"base": "mean of all samples", **ATTRS},
    )


def plane(signal: dict[str, int]) -> xr.Dataset:
    """A manifold of 2 x 3 pictures."""
    return xr.Dataset(
        {"decoded": decoded({"row": 2, "column": 3}, signal)},
        coords={
            "row": ("row", [-1.0, 1], {"long_name": "latent 5"}),
            "column": ("column", [0.0, 2, 4], {"long_name": "latent 2"}),
        },
        attrs={"base": "mean", **ATTRS},
    )


def classes(signal: dict[str, int]) -> xr.Dataset:
    """Three prototypes."""
    latents = np.eye(3, 5)
    return xr.Dataset(
        {
            "decoded": decoded({"class": 3}, signal),
            "latents": (("class", "latent"), latents),
            "n": ("class", [1, 2, 3]),
        },
        coords={"class": ["a", "b", "c"]},
        attrs={"by": "label", **ATTRS},
    )


def way(signal: dict[str, int], space: str = "plane") -> xr.Dataset:
    """A path of three points among ten samples; for another space than the plane the second one is moved."""
    asked = np.array([[0.0, 0], [1, 1], [2, 0]])
    position = asked.copy()
    position[1] += 0 if space == "plane" else 0.5
    scatter = np.random.default_rng(1).normal(size=(10, 2))
    return xr.Dataset(
        {
            "decoded": decoded({"step": 3}, signal),
            "requested": (("step", "axis"), asked),
            "position": (("step", "axis"), position),
            "scatter": (("point", "axis"), scatter),
        },
        coords={
            "axis": ["latent 0", "latent 1"],
            "number": ("point", np.arange(10)),
            "class": codes(10, ["one", "two"]),
        },
        attrs={"space": space, "base": "mean", **ATTRS},
    )


def embedded() -> xr.Dataset:
    """Ten samples in a plane, coloured by class and by two amounts, one of which is not known everywhere."""
    found = way(SIGNALS["grey"]).rename(scatter="p")[["p"]].rename(p="position")
    found.attrs = {"method": "tsne", "n_points": 10, "n_known": 40, "perplexity": 3.0, **ATTRS}
    values = np.arange(20.0).reshape(2, 10)
    values[1, 2] = np.nan
    found["amount"] = (("color", "point"), values)
    return found.assign_coords(color=["BC", "latent 3"])
