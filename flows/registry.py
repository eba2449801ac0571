"""The flows by name; the deployment of each has the same name. Imported when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vaearr.errors import UsageError, did_you_mean

FLOWS = {
    "ingest": "flows.ingest.ingest_flow",
    "train-vae": "flows.train_vae.train_flow",
    "encode": "flows.encode.encode_flow",
    "embed": "flows.embed.embed_flow",
    "associate": "flows.associate.associate_flow",
    "cluster": "flows.cluster.cluster_flow",
    "report": "flows.report.report_flow",
    "analyse-scan": "flows.analyse_scan.analyse_scan",
    "sweep": "flows.sweep.sweep_flow",
    "analyse-many": "flows.analyse_many.analyse_many",
}


def flow_name(text: str) -> str:
    """The name that is meant by `train-vae` or `train-vae/train-vae`. Raises UsageError, naming all, for another."""
    name, _, deployment = text.partition("/")
    if name not in FLOWS or (deployment and deployment != name):
        raise UsageError(f"there is no flow {text!r}.{did_you_mean(name, list(FLOWS))}")
    return name


def load_flow(text: str) -> Any:
    """The Prefect flow of that name."""
    module, _, function = FLOWS[flow_name(text)].rpartition(".")
    return getattr(import_module(module), function)
