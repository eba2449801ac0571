"""Patterns -> principal components or non-negative factors, beside the latents."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.running import progress, replacing, step, tell
from flows.showing import picture, store_key
from vaearr.config import EmbedConfig


@step("embed")
def embed_step(store: Path, config: EmbedConfig, overwrite: bool = False) -> None:
    """Write the scores; a repeated call goes on where the last one stopped."""
    from vaearr.embedding import embed_store
    from vaearr.embedding.stored import companions
    from vaearr.store import open_store
    from vaearr.store.remove import remove

    name = config.name or config.method

    def make() -> None:
        with progress("blocks decomposed", store_key("embed-progress", store, name)) as show:
            embed_store(store, config, say=tell, on_block=show)

    def clear() -> list[str]:
        there = [str(v) for v in open_store(store, chunks=None).variables]
        return remove(store, variables=[v for v in there if v == name or v.startswith(tuple(companions(name)))])

    replacing(make, clear, overwrite=overwrite)
    picture(store_key("embed", store, name), lambda: _maps(store, name), f"maps of {name}")


def _maps(store: Path, name: str) -> object:
    from vaearr import schema
    from vaearr.errors import NoInputError
    from vaearr.plots.static import score_sheet
    from vaearr.store import open_store

    ds = open_store(store)
    if not schema.is_scan(ds) or ds[name].ndim != 3:
        raise NoInputError("only scores over the rows and columns of a scan have maps to show.")
    return score_sheet(ds[name].isel({ds[name].dims[-1]: slice(32)}).load())


@flow(name="embed")
def embed_flow(
    store: Path,
    config: EmbedConfig = EmbedConfig(),  # noqa: B008  (frozen)
    overwrite: bool = False,
) -> str:
    """Decompose a store's patterns; returns the store's path.

    Args:
        store: zarr store, as made by ingest
        config: which decomposition, and how
        overwrite: replace a decomposition of this name that was made otherwise
    """
    embed_step(store, config, overwrite)
    return str(store)
