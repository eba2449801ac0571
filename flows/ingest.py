"""File -> store."""

from __future__ import annotations

from pathlib import Path

from vaearr.config import IngestConfig

from .running import kept_flow, place, progress, step, tell
from .showing import store_key, text


@step("ingest")
def ingest_step(
    source: Path, store: Path, config: IngestConfig, overwrite: bool = False, dask: str | None = None
) -> None:
    """Read the source and its side maps into a store; one that was made so already is left as it is."""
    from vaearr.info import in_words, store_facts
    from vaearr.ingestion import ingest

    with progress("blocks written", store_key("ingest-progress", store)) as show:
        ingest(source, store, config=config, dask=dask, overwrite=overwrite, say=tell, progress=show)
    text(store_key("ingest", store), f"```\n{in_words(store_facts(store))}\n```", f"what is in {store.name}")


@kept_flow(name="ingest")
def ingest_flow(
    source: Path,
    store: Path,
    config: IngestConfig = IngestConfig(),  # noqa: B008  (frozen)
    overwrite: bool = False,
    dask: str | None = None,
) -> dict[str, str]:
    """Turn a scan file or a folder of images, with side maps, into a store; returns the store's path.

    Args:
        source: file or folder with the patterns or images
        store: path of the zarr store to make
        config: how the source is read
        overwrite: replace a store, with all its runs, that was made from another source or with other settings
        dask: Dask workers that read and write: tcp://host:8786, a scheduler file, or local:4 on this machine
    """
    ingest_step(source, store, config, overwrite, dask)
    return {"store": place(store)}
