"""Decompositions in a store: planned, found, written shard by shard, published at once. The edge of this package."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.embedding.methods import METHODS, fitted_stream
from vaearr.analysis.embedding.work import plan_work
from vaearr.batching.blocks import Block
from vaearr.config import EmbedConfig, resolved, settings_as_keywords
from vaearr.errors import UsageError
from vaearr.recipe import is_made, nested
from vaearr.run.stream import map_blocks
from vaearr.store import (
    check_patterns,
    check_store,
    open_store,
    publish_staged,
    recover,
    staged_variables,
)
from vaearr.store.remove import removable
from vaearr.store.write import begun

log = logging.getLogger("vaearr")


@settings_as_keywords(EmbedConfig)
def embed_store(
    store: str | Path,
    config: EmbedConfig | None = None,
    *,
    overwrite: bool = False,
    on_block: Callable[[int, int], None] | None = None,
    **given: Any,
) -> xr.Dataset:
    """Decompose the patterns of a store's region of interest and write the scores beside its latents.

    PCA writes `pca (y, x, pca_component)`, `pca_components`, `pca_mean`, `pca_background` and three variables of
    explained variance; NMF `nmf (y, x, nmf_component)`, `nmf_residual (y, x)`, `nmf_components`, `nmf_mean`,
    `nmf_background` and, with elements, `nmf_elements`; for another `name`, these names begin with it. Scores are NaN
    outside the region: that of the run if it is there, else all measured points.

    What components are found on is bounded by `max_points`; all other work goes shard by shard. After an interruption
    the same call goes on where it stopped, and nothing is visible before all is written. A decomposition that was made
    already is returned as it is; `overwrite` replaces another one of this name. on_block: told (blocks
    done, blocks in all).

    Returns the opened store. Raises ExistsError where the name is taken by anything else, NoInputError for a run that
    is not there, UsageError for settings that do not fit the data, RoiError for a region that is too small, DataError
    for patterns that cannot be decomposed or a damaged store.
    """
    settings = resolved(EmbedConfig, config, given)
    path = check_store(store)
    recover(path)
    check_patterns(path)
    ds = open_store(path, chunks=None)
    work = plan_work(path, ds, settings)
    taken, replacing = _taken(ds, work.name), list[str]()
    if taken:
        made = nested(ds[work.name].attrs, n.PROVENANCE) if work.name in ds else None
        there = f"{path} already holds {', '.join(taken)}"
        if is_made(there, made, work.recipe, overwrite=overwrite):
            return open_store(path)
        replacing = removable(path, variables=taken)
    method = METHODS[settings.method]
    own = {"name": work.name, **work.recipe.as_attrs()}
    fitted = begun(path, own)
    if fitted is None:
        log.info(f"{settings.method} of {int(work.roi.sum())} scan points: looking for components")
        fitted = method.fit(work)
    stamp = {n.PROVENANCE: work.recipe.stamp("scipy")}
    maps = method.maps(work, fitted)
    specs = {name: replace(spec, attrs={**spec.attrs, **stamp}) for name, spec in maps.items()}
    with staged_variables(path, specs, coords=fitted, request=own, replacing=replacing) as staging:
        stream, scores = fitted_stream(work, fitted), method.scores(work, fitted)

        def kernel(block: Block) -> dict[str, np.ndarray]:
            found = [scores(points, rows) for points, rows in stream.rows_of(block)]
            return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

        map_blocks(staging, stream.blocks, kernel, what="decomposition", on_block=on_block)
        staging.arrays[work.name].attrs.update(method.summary(work, fitted, staging.arrays))
        publish_staged(staging)
    return open_store(path)


def _taken(ds: xr.Dataset, name: str) -> list[str]:
    """Variables that stand where those of this name are to go. Raises UsageError for a name that cannot be used."""
    if name in n.RESERVED or name.startswith(n.OF_LATER_RUNS):
        raise UsageError(f"{name!r} has a meaning of its own; choose another name with name='…' (--name).")
    beside = (n.COMPONENT, "mean", "background", "residual", "explained_variance", n.ELEMENTS)
    beginnings = tuple(f"{name}_{part}" for part in beside)
    return [str(v) for v in ds.variables if v == name or str(v).startswith(beginnings)]
