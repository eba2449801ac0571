"""The flows by name; the deployment of each has the same name. Imported when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vaearr.errors import UsageError, did_you_mean

FLOWS = {
    "ingest": "vaearr.flows.ingest.ingest_flow",
    "train-vae": "vaearr.flows.train_vae.train_flow",
    "encode": "vaearr.flows.encode.encode_flow",
    "embed": "vaearr.flows.embed.embed_flow",
    "associate": "vaearr.flows.associate.associate_flow",
    "cluster": "vaearr.flows.cluster.cluster_flow",
    "report": "vaearr.flows.report.report_flow",
    "analyse-scan": "vaearr.flows.analyse_scan.analyse_scan",
    "sweep": "vaearr.flows.sweep.sweep_flow",
    "analyse-many": "vaearr.flows.analyse_many.analyse_many",
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
