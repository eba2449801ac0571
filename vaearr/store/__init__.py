"""The only door to zarr: layout, reading, and writing by publish-and-rename under one lock.

A published variable is complete or it is not there. Everything unfinished lies in a hidden sibling of the store.
"""

from vaearr.store.commit import recover
from vaearr.store.copies import beside, shown
from vaearr.store.layout import Region
from vaearr.store.read import (
    check_patterns,
    check_store,
    has_table,
    here,
    open_group,
    open_store,
    open_table,
    place_of,
    read_ahead,
    read_block,
    reading,
    refuse_taken,
    run_folder,
    run_manifest,
    run_names,
    store_blocks,
    stored_bytes,
)
from vaearr.store.shards import Elsewhere, write_shard
from vaearr.store.urls import as_url, copied_url, local_path, read_only_url
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
    "beside",
    "check_patterns",
    "check_run_name",
    "check_store",
    "copied_url",
    "create_store",
    "has_table",
    "here",
    "local_path",
    "open_group",
    "open_store",
    "open_table",
    "pending",
    "place_of",
    "publish_run",
    "publish_staged",
    "read_ahead",
    "read_block",
    "read_only_url",
    "reading",
    "recover",
    "refuse_taken",
    "run_folder",
    "run_manifest",
    "run_names",
    "shown",
    "staged_run",
    "staged_variables",
    "store_blocks",
    "stored_bytes",
    "write_block",
    "write_dataset",
    "write_shard",
    "write_table",
]
