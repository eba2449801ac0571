"""Scans and image collections as labelled arrays, a VAE learned on them, the latents written back beside the data.

Data flows one way: sources -> store -> batches -> models and training -> latents -> store -> analyses -> views.
Everything below is loaded when it is first used, so that `import vaearr` is quick.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from vaearr.computing.threads import wait_briefly as _wait_briefly

if TYPE_CHECKING:
    from vaearr.analysis import exploration as explore  # noqa: F401
    from vaearr.analysis.association import associate, associate_store, significance
    from vaearr.analysis.clustering import cluster, cluster_store
    from vaearr.analysis.embedding import embed_store
    from vaearr.analysis.layers import compare_layers, compare_pairs
    from vaearr.batching import batches
    from vaearr.config.presets import preset
    from vaearr.ingestion.attaching import attach
    from vaearr.ingestion.ingest import ingest
    from vaearr.models.artifacts import load_model
    from vaearr.output.exporting import export
    from vaearr.output.reporting import report
    from vaearr.run import load_run
    from vaearr.run.blinded import blinded_set, score_blinded
    from vaearr.run.draw import interpolate, sample_prior
    from vaearr.run.encode import encode
    from vaearr.run.importing import import_model
    from vaearr.run.judge import nearest_training, sample_fidelity
    from vaearr.run.reconstruct import reconstruct, reconstruct_files, reconstruct_store
    from vaearr.run.second_stage import latent_batches
    from vaearr.run.statistics import latent_statistics
    from vaearr.run.train import train
    from vaearr.schema.grid import roi, to_grid, to_samples
    from vaearr.sources import open_source
    from vaearr.store import open_store
    from vaearr.views import view
    from vaearr.views.words import describe

_HOME = {
    "associate": "vaearr.analysis.association",
    "associate_store": "vaearr.analysis.association",
    "attach": "vaearr.ingestion.attaching",
    "batches": "vaearr.batching",
    "blinded_set": "vaearr.run.blinded",
    "cluster": "vaearr.analysis.clustering",
    "cluster_store": "vaearr.analysis.clustering",
    "compare_layers": "vaearr.analysis.layers",
    "compare_pairs": "vaearr.analysis.layers",
    "describe": "vaearr.views.words",
    "embed_store": "vaearr.analysis.embedding",
    "encode": "vaearr.run.encode",
    "export": "vaearr.output.exporting",
    "import_model": "vaearr.run.importing",
    "ingest": "vaearr.ingestion.ingest",
    "interpolate": "vaearr.run.draw",
    "latent_batches": "vaearr.run.second_stage",
    "latent_statistics": "vaearr.run.statistics",
    "load_model": "vaearr.models.artifacts",
    "load_run": "vaearr.run",
    "nearest_training": "vaearr.run.judge",
    "open_source": "vaearr.sources",
    "open_store": "vaearr.store",
    "preset": "vaearr.config.presets",
    "reconstruct": "vaearr.run.reconstruct",
    "reconstruct_files": "vaearr.run.reconstruct",
    "reconstruct_store": "vaearr.run.reconstruct",
    "report": "vaearr.output.reporting",
    "roi": "vaearr.schema.grid",
    "sample_fidelity": "vaearr.run.judge",
    "sample_prior": "vaearr.run.draw",
    "score_blinded": "vaearr.run.blinded",
    "significance": "vaearr.analysis.association",
    "to_grid": "vaearr.schema.grid",
    "to_samples": "vaearr.schema.grid",
    "train": "vaearr.run.train",
    "view": "vaearr.views",
}

__version__ = _version("vaearr")
__all__ = [
    "associate",
    "associate_store",
    "attach",
    "batches",
    "blinded_set",
    "cluster",
    "cluster_store",
    "compare_layers",
    "compare_pairs",
    "describe",
    "embed_store",
    "encode",
    "export",
    "import_model",
    "ingest",
    "interpolate",
    "latent_batches",
    "latent_statistics",
    "load_model",
    "load_run",
    "nearest_training",
    "open_source",
    "open_store",
    "preset",
    "reconstruct",
    "reconstruct_files",
    "reconstruct_store",
    "report",
    "roi",
    "sample_fidelity",
    "sample_prior",
    "score_blinded",
    "significance",
    "to_grid",
    "to_samples",
    "train",
    "view",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        _wait_briefly()
        return getattr(importlib.import_module(_HOME[name]), name)
    if name == "explore":
        _wait_briefly()
        return importlib.import_module("vaearr.analysis.exploration")
    raise AttributeError(f"module 'vaearr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, "explore"])
