"""The only door to zarr: where stores lie, reading, and writing by staging and publishing, one writer at a time.

A published variable is complete or it is not there. Everything unfinished lies in a hidden sibling of the store, or
unlisted among its objects.
"""

from vaearr.store.commit import recover
from vaearr.store.layout import Region
from vaearr.store.places import as_url, beside, desk, local_path, object_url, read_only_url, shown
from vaearr.store.read import (
    check_patterns,
    check_store,
    has_table,
    open_group,
    open_store,
    open_table,
    published_at,
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
    "create_store",
    "desk",
    "has_table",
    "local_path",
    "object_url",
    "open_group",
    "open_store",
    "open_table",
    "pending",
    "publish_run",
    "publish_staged",
    "published_at",
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
