"""The list of variables in a store, made anew from what is there."""

from __future__ import annotations

from pathlib import Path

from vaearr.store.commit import refresh_listing, writer
from vaearr.store.read import check_store
from vaearr.store.sending import sending


def relist(path: str | Path) -> None:
    """Make the list of variables anew, in one atomic step; a killed publication is completed before."""
    store = check_store(path)
    with writer(store), sending(store) as send:
        refresh_listing(store)
        send([])
