"""Latents -> association table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.running import step, tell
from flows.showing import MOST_ROWS, picture, store_key, table
from vaearr.config import AssociateConfig

TOP = 10  # latents of each ranking at most


@step("associate")
def associate_step(store: Path, config: AssociateConfig, dask: str | None = None) -> list[str]:
    """Compare latents with maps, store the table, return its first ranks in words.

    A table that holds what is asked, made from the same latents and maps, is not made again; any other is, since it
    can always be.
    """
    from vaearr.association import associate_store, top_lines
    from vaearr.plots.static import association_sheet

    found = associate_store(store, config, dask=dask)
    lines = top_lines(found)
    for line in lines:
        tell(line)
    names = (config.run, *([config.variable] if config.variable else []))
    table(store_key("associate", store, *names), rankings(found), "strongest associations, by target and metric")
    picture(store_key("associate-map", store, *names), lambda: association_sheet(found["association"]), "associations")
    return lines


def rankings(found: Any) -> list[dict[str, Any]]:
    """Rows: target, metric, rank, latent, value, adjusted p-value where there is one; of all rankings equally many."""
    from vaearr.association import ranking

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
                rows.append(row)
    return rows


@flow(name="associate")
def associate_flow(
    store: Path,
    config: AssociateConfig = AssociateConfig(),  # noqa: B008  (frozen)
    dask: str | None = None,
) -> list[str]:
    """Compare latent dimensions with band contrast, elements and phases; returns the strongest in words.

    Args:
        store: zarr store with an encoded run
        config: which metrics against which targets, with or without p-values
        dask: Dask workers that compute: tcp://host:8786, a scheduler file, or local:4 on this machine
    """
    return associate_step(store, config, dask)
