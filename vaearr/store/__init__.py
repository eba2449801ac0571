# ruff: noqa: F401
"""The only door to zarr: where stores lie, reading, and writing by staging and publishing, one writer at a time.

A published variable is complete or it is not there. Everything unfinished lies in a hidden sibling of the store, or
unlisted among its objects.
"""

from vaearr.store.commit import recover
from vaearr.store.layout import Region
from vaearr.store.places import as_url, beside, desk, local_path, object_url, read_ahead, read_only_url
from vaearr.store.read import (
    check_patterns,
    check_store,
    has_table,
    open_group,
    open_store,
    open_table,
    published_at,
    read_block,
    reading,
    refuse_taken,
    run_folder,
    run_manifest,
    run_names,
    store_blocks,
    store_of,
    stored_bytes,
)
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
