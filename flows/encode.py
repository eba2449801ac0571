"""Trained run -> latents in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaearr.config import EncodeConfig
from vaearr.names import LATENTS, run_name

from .running import kept_flow, place, progress, step, tell
from .showing import picture, store_key

MOST_MAPS = 32  # on a sheet


@step("encode")
def encode_step(store: Path, config: EncodeConfig, overwrite: bool = False, dask: str | None = None) -> None:
    """Write the latents; a repeated call goes on where the last one stopped."""
    from vaearr.latents import encode

    with progress("blocks encoded", store_key("encode-progress", store, config.run)) as show:
        encode(store, config=config, dask=dask, overwrite=overwrite, say=tell, on_block=show)
    from vaearr.views import view

    name = run_name(LATENTS, config.run)
    key = store_key("encode-latents", store, config.run)
    picture(store, key, lambda: view(mapped(store, name)[name], kind="stack"), "maps of latents")


def mapped(store: Path, variable: str) -> Any:
    """A scan with the first maps of a variable. Raises NoInputError for one over samples, which has no maps."""
    from vaearr import schema
    from vaearr.errors import NoInputError
    from vaearr.store import open_store

    ds = open_store(store)
    if not schema.is_scan(ds) or ds[variable].ndim != 3:
        raise NoInputError(f"only {variable} over the rows and columns of a scan have maps to show.")
    return ds.isel({ds[variable].dims[-1]: slice(MOST_MAPS)})


@kept_flow(name="encode")
def encode_flow(
    store: Path,
    config: EncodeConfig = EncodeConfig(),  # noqa: B008  (frozen)
    overwrite: bool = False,
    dask: str | None = None,
) -> dict[str, str]:
    """Write a run's latents into the store; returns where they are.

    Args:
        store: zarr store with a trained run
        config: which run, and how
        overwrite: replace latents that were made with other settings
        dask: Dask workers that encode: tcp://host:8786, a scheduler file, or local:4 on this machine
    """
    encode_step(store, config, overwrite, dask)
    return {"store": place(store), "run": config.run, "variable": run_name(LATENTS, config.run)}
