"""File -> store."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from vaearr.config import IngestConfig
from vaearr.errors import UsageError

from .running import kept_flow, place, progress, refuse_other, step, tell
from .showing import store_key, text


@step("ingest")
def ingest_step(
    source: Path, store: Path, config: IngestConfig, overwrite: bool = False, dask: str | None = None
) -> None:
    """Read the source and its side maps into a store; one that was made so already is left as it is."""
    from vaearr.completeness import ingested
    from vaearr.info import in_words, store_facts

    found = ingested(source, store, config)
    if found.state == "same":
        tell(f"{store} is complete already, made from {source} with the same settings")
        return
    if found.state == "other" and not overwrite:
        raise refuse_other(f"the store {store}", found.differences, "give another path")
    (_replace if found.state == "other" else _read)(source, store, config, dask)
    text(store_key("ingest", store), f"```\n{in_words(store_facts(store))}\n```", f"what is in {store.name}")


def _read(source: Path, store: Path, config: IngestConfig, dask: str | None) -> None:
    from vaearr.ingestion import ingest

    with progress("blocks written", store_key("ingest-progress", store)) as show:
        ingest(source, store, config=config, dask=dask, say=tell, progress=show)


def _replace(source: Path, store: Path, config: IngestConfig, dask: str | None) -> None:
    """Make the new store beside the old one, which is removed, with all its runs, when the new one is complete."""
    from vaearr.store import check_store, copied_url
    from vaearr.store.lock import locked

    if url := copied_url(store):
        raise UsageError(f"{url} cannot be replaced in one step; remove it first, or give another URL.")
    old = check_store(store)
    new, aside = (old.with_name(f"{old.name.removesuffix('.zarr')}-{uuid.uuid4().hex[:8]}.zarr") for _ in range(2))
    _read(source, new, config, dask)
    with locked(old):
        old.rename(aside)
        new.rename(old)
    shutil.rmtree(aside)
    shutil.rmtree(old.with_name(f".{old.name}.staging"), ignore_errors=True)
    new.with_name(f".{new.name}.lock").unlink(missing_ok=True)
    tell(f"replaced, as asked: {store} with everything that was in it")


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
