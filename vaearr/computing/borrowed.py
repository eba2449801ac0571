"""What vaearr takes from dask and zarr beyond what they promise to keep: all of it here, nowhere else."""

from __future__ import annotations

from dask._task_spec import DataNode
from zarr.core.codec_pipeline import BatchedCodecPipeline

__all__ = ["BatchedCodecPipeline", "DataNode"]
