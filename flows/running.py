"""How a step runs as a flow: its result, its artifacts and its log.

Inside a flow run, Prefect records the log, tables and links to pages. Without a server the same
functions run and record nothing.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from prefect import Flow, flow, get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.context import FlowRunContext
from prefect.serializers import (
    JSONSerializer,
    prefect_json_object_decoder,
    prefect_json_object_encoder,
)

import vaearr as va
from vaearr.recipe import as_json
from vaearr.store import check_store, has_table, store_path
from vaearr.store.folders import write_errors
from vaearr.views import save

MAX_ROWS = 100  # of a table artifact
ADDRESS = "address"  # where a result lies, in its encoding

log = logging.getLogger("vaearr")


# ---- results


def with_address(
    result: xr.Dataset, store: Path, run: str | None = None, name: str | None = None
) -> xr.Dataset:
    """Note the address of a result: the store, the run, and the name of the table or clusters."""
    result = result.copy(deep=False)
    result.encoding[ADDRESS] = {"store": str(store_path(store)), "run": run, "name": name}
    return result


def address_of(result: Any) -> dict[str, Any]:
    """What Prefect stores instead of the result of a flow."""
    if isinstance(result, xr.Dataset):
        return dict(result.encoding[ADDRESS])
    if isinstance(result, Path):
        return {"path": str(result)}
    return dict(prefect_json_object_encoder(result))  # the error of a failed flow


def open_result(address: dict[str, Any]) -> Any:
    """Open the result of a flow from its address."""
    if "path" in address:
        return Path(address["path"])
    if "store" not in address:
        return prefect_json_object_decoder(address)
    store = Path(address["store"])
    run_name = address["run"]
    name = address["name"]
    if name is None:
        result = va.open_store(store)
    elif run_name is None:
        result = open_sweep(store, name)
    else:
        run = va.load_run(store, run_name)
        result = _clusters(run, name) if name in run.ds else run.table(name)
    return with_address(result, store, run_name, name)


def _clusters(run: va.Run, name: str) -> xr.Dataset:
    """A map of clusters, with the summary that was stored with it."""
    labels = run.ds[[name]].load()
    table = f"clusters_{name}"
    return run.table(table).assign(labels) if has_table(run.path, run.name, table) else labels


def sweep_file(store: Path, name: str) -> Path:
    """The table of a sweep, next to the store."""
    path = check_store(store)
    return path.with_name(f"{path.name.removesuffix('.zarr')}.sweeps") / f"{name}.csv"


def open_sweep(store: Path, name: str) -> xr.Dataset:
    """The table of a sweep, over `run`."""
    return pd.read_csv(sweep_file(store, name)).set_index("run").to_xarray()


# a flow whose result can be opened afterwards: `run_deployment(…).state.result()`
kept_flow: Any = functools.partial(
    flow,
    persist_result=True,
    result_serializer=JSONSerializer(
        object_encoder=f"{__name__}.{address_of.__name__}",
        object_decoder=f"{__name__}.{open_result.__name__}",
    ),
)


# ---- recording


def is_recorded() -> bool:
    """Whether this runs inside a flow run, which a server records."""
    return FlowRunContext.get() is not None


def _log_to_server(record: logging.LogRecord) -> bool:
    """A filter of vaearr's log: inside a flow run, messages go to the log of that run only."""
    if is_recorded():
        get_run_logger().log(record.levelno, record.getMessage())
    return not is_recorded()


log.addFilter(_log_to_server)
log.setLevel(logging.INFO)


def step(part: Flow[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a flow as a step of another: as a flow run of its own if a server records it."""
    return part(*args, **kwargs) if is_recorded() else part.fn(*args, **kwargs)


def key_of(*parts: str) -> str:
    """A key that Prefect accepts: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def store_key(what: str, store: Path, *parts: str) -> str:
    """Key of an artifact of a store, such as `train-vae-loss-scan-vae`."""
    return key_of(what, store.name.removesuffix(".zarr"), *parts)


def table(key: str, rows: Sequence[Mapping[Any, Any]], description: str) -> None:
    """Record the first rows of a table."""
    if is_recorded():
        plain_rows = [as_json(dict(row)) for row in rows[:MAX_ROWS]]
        create_table_artifact(plain_rows, key, f"{description}, {len(rows)} in all")


def page(store: Path, key: str, result: Any, description: str, **options: Any) -> None:
    """Save the view of a result as a page next to the store, and record a link to it."""
    if not is_recorded():
        return
    path = check_store(store)
    folder = path.with_name(f"{path.name.removesuffix('.zarr')}.views")
    heading = f"{path.name}: {description}"
    with write_errors(folder):
        folder.mkdir(exist_ok=True)
        file = save(result, folder / f"{key}.html", heading=heading, overwrite=True, **options)
    link(key, file, description)


def link(key: str, file: Path, description: str) -> None:
    """Record a link to a page on this disk."""
    if is_recorded():
        address = file.absolute().as_uri()
        text = (
            f"[{address}]({address})\n\nThe page is a file of the machine that ran the flow, "
            f"`{file}`. Browsers do not follow links from a server to a disk: copy the address "
            "into the address bar."
        )
        create_markdown_artifact(text, key, description)
