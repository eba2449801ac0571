"""Patterns as shuffled torch batches: a pure plan of what to read, and a reader that carries it
out.

The unit of reading is the dask chunk. Where all chosen samples fit into the memory allowance they
are read once and kept in their own dtype, on the device if that has room; otherwise chunks are read
in random order, as many at a time as the allowance holds, mixed in that buffer and cut into
batches, while the next buffer is read ahead. Each sample comes exactly once per epoch either way.
"""

from __future__ import annotations

from vaearr.batching.plan import Walk
from vaearr.batching.reader import Batch, PatternBatches, batches

__all__ = ["Batch", "PatternBatches", "Walk", "batches"]
