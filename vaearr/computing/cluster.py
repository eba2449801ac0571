"""Computing on a Dask cluster, chosen by `with distributed.Client(...):`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask

from vaearr.errors import UsageError, need


def dask_get() -> Callable[..., Any]:
    """Return the function that computes a dask graph: on the current cluster or in this thread."""
    if "distributed" not in sys.modules:
        return dask.get
    from distributed import get_client, get_worker

    try:
        get_worker()
    except ValueError:  # not inside a task
        try:
            return get_client().get
        except ValueError:  # no cluster in use
            return dask.get
    return dask.get  # a task that waits for other tasks could block them


@contextmanager
def computing_on(scheduler: str | None) -> Iterator[None]:
    """Compute on a Dask cluster inside the block; None computes in this process."""
    if scheduler is None:
        yield
        return
    need("distributed", "vaearr[dask]", "--scheduler")
    from distributed import Client

    try:
        address = scheduler
        if scheduler.endswith(".json"):
            address = json.loads(Path(scheduler).read_text())["address"]
        # a client that fails to connect would stay the default of this process
        Client(address, timeout=10, set_as_default=False).close()
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({error})."
        ) from None
    with Client(address):
        yield
