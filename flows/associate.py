"""Latents -> association table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaearr.config import AssociateConfig

from .running import kept_flow, place, step, tell
from .showing import MOST_ROWS, picture, store_key, table

TOP = 10  # latents of each ranking at most


@step("associate")
def associate_step(
    store: Path, config: AssociateConfig, overwrite: bool = False, dask: str | None = None
) -> list[dict[str, Any]]:
    """Compare latents with maps, store the table, return its first ranks.

    A table that holds what is asked, made from the same latents and maps, is not made again.
    """
    from vaearr.association import associate_store, top_lines
    from vaearr.views import view

    found = associate_store(store, config, dask=dask, overwrite=overwrite, say=tell)
    for line in top_lines(found):
        tell(line)
    names = (config.run, *([config.variable] if config.variable else []))
    rows = rankings(found)
    table(store_key("associate", store, *names), rows, "strongest associations, by target and metric")
    picture(
        store,
        store_key("associate-map", store, *names),
        lambda: view(found, kind="association"),
        "associations",
    )
    return rows


def has_targets(store: Path) -> bool:
    """Whether the store holds maps that latents are compared with where none is named."""
    from vaearr.association import targets_of
    from vaearr.errors import NoInputError
    from vaearr.store import open_store

    try:
        targets_of(open_store(store, chunks=None))
    except NoInputError:
        return False
    return True


def rankings(found: Any) -> list[dict[str, Any]]:
    """Rows: target, metric, rank, latent, value, adjusted p-value where there is one; of all rankings equally many."""
    from vaearr.association import ranking
    from vaearr.provenance import as_json

    values = found["association"]
    top = max(1, min(TOP, MOST_ROWS // (values.sizes["target"] * values.sizes["metric"])))
    rows = []
    for target in values["target"].values:
        for metric in map(str, values["metric"].values):
            best = ranking(values, metric, str(target), top)
            for rank, latent, value in zip(
                best["rank"].values, best["latent"].values, best["value"].values, strict=True
            ):
                row = {"target": target, "metric": metric, "rank": rank, "latent": latent, "value": value}
                if "p_adjusted" in found:
                    where = {"target": target, "metric": metric, "latent": latent}
                    row["p_adjusted"] = found["p_adjusted"].sel(where).item()
                rows.append(as_json(row))
    return rows


@kept_flow(name="associate")
def associate_flow(
    store: Path,
    config: AssociateConfig = AssociateConfig(),  # noqa: B008  (frozen)
    overwrite: bool = False,
    dask: str | None = None,
) -> dict[str, Any]:
    """Compare latent dimensions with band contrast, elements and phases; returns the strongest, and where all are.

    Args:
        store: zarr store with an encoded run
        config: which metrics against which targets, with or without p-values
        overwrite: replace a table that was made otherwise
        dask: Dask workers that compute: tcp://host:8786, a scheduler file, or local:4 on this machine
    """
    from vaearr.association.stored import table_name

    rows = associate_step(store, config, overwrite, dask)
    group = f"runs/{config.run}/{table_name(config.variable, config.name)}"
    return {"store": place(store), "group": group, "table": rows}
