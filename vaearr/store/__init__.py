# ruff: noqa: F401
"""Read stores, and write them by staging and publishing, one writer at a time.

A variable of a store is complete or does not exist. Unfinished work is in a hidden folder next to
the store. Stores are written on a file system; they can also be read from a URL.
"""

from vaearr.store.fingerprints import (
    check_inputs,
    check_patterns,
    same_patterns,
    sampled_identity,
    variable_fingerprint,
)
from vaearr.store.layout import Region, read_ahead
from vaearr.store.paths import as_url, store_path
from vaearr.store.read import (
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
    store_of,
    stored_bytes,
)
from vaearr.store.write import (
    StagedVariables,
    VariableSpec,
    check_run_name,
    create_store,
    finish_run,
    finish_variables,
    pending,
    stage_run,
    stage_variables,
    write_block,
    write_results,
)
