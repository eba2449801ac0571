"""The only door to zarr: layout, reading, and writing by publish-and-rename under one lock.

A published variable is complete or it is not there. Everything unfinished lies in a hidden sibling of the store.
"""

from vaearr.store.commit import recover
from vaearr.store.elsewhere import Elsewhere
from vaearr.store.layout import Region
from vaearr.store.read import (
    check_patterns,
    check_store,
    decoder,
    has_table,
    open_group,
    open_store,
    open_table,
    read_ahead,
    read_block,
    read_into,
    reading,
    run_folder,
    run_manifest,
    run_names,
    store_blocks,
    without_dask,
)
from vaearr.store.shards import can_write, write_shard
from vaearr.store.urls import as_url, local_path
from vaearr.store.write import (
    Staging,
    VariableSpec,
    add_variables,
    check_run_name,
    create_store,
    pending,
    publish_run,
    publish_staged,
    staged_run,
    staged_variables,
    write_block,
    write_dataset,
    write_table,
)

__all__ = [
    "Elsewhere",
    "Region",
    "Staging",
    "VariableSpec",
    "add_variables",
    "as_url",
    "can_write",
    "check_patterns",
    "check_run_name",
    "check_store",
    "create_store",
    "decoder",
    "has_table",
    "local_path",
    "open_group",
    "open_store",
    "open_table",
    "pending",
    "publish_run",
    "publish_staged",
    "read_ahead",
    "read_block",
    "read_into",
    "reading",
    "recover",
    "run_folder",
    "run_manifest",
    "run_names",
    "staged_run",
    "staged_variables",
    "store_blocks",
    "without_dask",
    "write_block",
    "write_dataset",
    "write_shard",
    "write_table",
]
