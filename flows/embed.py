"""Patterns -> principal components or non-negative factors, beside the latents."""

from __future__ import annotations

from pathlib import Path

from vaearr.config import EmbedConfig

from .encode import mapped
from .running import kept_flow, place, progress, step, tell
from .showing import picture, store_key


@step("embed")
def embed_step(store: Path, config: EmbedConfig, overwrite: bool = False) -> None:
    """Write the scores; a repeated call goes on where the last one stopped."""
    from vaearr.embedding import embed_store

    name = config.name or config.method
    with progress("blocks decomposed", store_key("embed-progress", store, name)) as show:
        embed_store(store, config, overwrite=overwrite, say=tell, on_block=show)
    from vaearr.views import view

    picture(
        store, store_key("embed", store, name), lambda: view(mapped(store, name)[name], kind="stack"), f"maps of {name}"
    )


@kept_flow(name="embed")
def embed_flow(
    store: Path,
    config: EmbedConfig = EmbedConfig(),  # noqa: B008  (frozen)
    overwrite: bool = False,
) -> dict[str, str]:
    """Decompose a store's patterns; returns where the scores are.

    Args:
        store: zarr store, as made by ingest
        config: which decomposition, and how
        overwrite: replace a decomposition of this name that was made otherwise
    """
    embed_step(store, config, overwrite)
    return {"store": place(store), "variable": config.name or config.method}
