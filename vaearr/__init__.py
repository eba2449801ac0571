"""Scans and image collections as labelled arrays, a VAE learned on them, the latents written back beside the data.

Data flows one way: sources -> store -> batches -> models and training -> latents -> store -> analyses -> plots.
Everything below is loaded when it is first used, so that `import vaearr` is quick.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaearr.association import associate, associate_store, significance
    from vaearr.attaching import attach
    from vaearr.batching import batches
    from vaearr.clustering import cluster, cluster_store
    from vaearr.embedding import embed_store
    from vaearr.exporting import export
    from vaearr.grid import roi, to_grid, to_samples
    from vaearr.inference import interpolate, latent_statistics, reconstruct_store, sample_prior
    from vaearr.ingestion import ingest
    from vaearr.latents import encode, load_model, reconstruct
    from vaearr.reporting import report
    from vaearr.runs import train
    from vaearr.sources import open_source
    from vaearr.store import open_store

_HOME = {
    "associate": "vaearr.association",
    "associate_store": "vaearr.association",
    "attach": "vaearr.attaching",
    "batches": "vaearr.batching",
    "cluster": "vaearr.clustering",
    "cluster_store": "vaearr.clustering",
    "embed_store": "vaearr.embedding",
    "encode": "vaearr.latents",
    "export": "vaearr.exporting",
    "ingest": "vaearr.ingestion",
    "interpolate": "vaearr.inference",
    "latent_statistics": "vaearr.inference",
    "load_model": "vaearr.latents",
    "open_source": "vaearr.sources",
    "open_store": "vaearr.store",
    "reconstruct": "vaearr.latents",
    "reconstruct_store": "vaearr.inference",
    "report": "vaearr.reporting",
    "roi": "vaearr.grid",
    "sample_prior": "vaearr.inference",
    "significance": "vaearr.association",
    "to_grid": "vaearr.grid",
    "to_samples": "vaearr.grid",
    "train": "vaearr.runs",
}

__version__ = _version("vaearr")
__all__ = [
    "associate",
    "associate_store",
    "attach",
    "batches",
    "cluster",
    "cluster_store",
    "embed_store",
    "encode",
    "export",
    "ingest",
    "interpolate",
    "latent_statistics",
    "load_model",
    "open_source",
    "open_store",
    "reconstruct",
    "reconstruct_store",
    "report",
    "roi",
    "sample_prior",
    "significance",
    "to_grid",
    "to_samples",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'vaearr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
