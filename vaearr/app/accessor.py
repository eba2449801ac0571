"""The accessor `ds.vae`: what vaearr does with a Dataset, called from the Dataset. No logic of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import xarray as xr

import vaearr as va
from vaearr.errors import did_you_mean

NAMES = (
    "batches", "cluster", "embed", "encode", "explore", "export", "interpolate", "keep", "latent_batches",
    "latent_statistics", "load_run", "reconstruct", "reconstruct_store", "report", "roi", "sample_prior",
    "to_anndata", "to_hyperspy", "train", "view",
)  # fmt: skip


@xr.register_dataset_accessor("vae")
class Accessor:
    """`ds.vae.train(latent_dim=8)` is `va.train(ds, latent_dim=8)`, and so on."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in NAMES:
            raise AttributeError(f"ds.vae has no {name!r}.{did_you_mean(name, list(NAMES))}")
        return partial(getattr(va, name), self._ds)

    def __dir__(self) -> tuple[str, ...]:
        return NAMES
