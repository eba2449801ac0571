"""Patterns as shuffled torch batches: a pure plan of what to read, and a reader that follows it.

The unit of reading is the dask chunk. Where all chosen samples fit into the allowed memory they are
read once and kept in their dtype, on the device if that has room. Otherwise chunks are read in
random order, as many at a time as the allowed memory holds, shuffled in that buffer and cut into
batches, while the next buffer is read. Each sample comes exactly once per epoch either way.
"""

from __future__ import annotations

from vaearr.batching.partners import Walk
from vaearr.batching.reader import Batch, PatternBatches, batches

__all__ = ["Batch", "PatternBatches", "Walk", "batches"]
