"""The whole line: file -> store -> run -> latents, principal components, clusters -> association -> report."""

from pathlib import Path

from prefect import flow

from flows.associate import associate_flow
from flows.cluster import cluster_flow
from flows.embed import embed_flow
from flows.encode import encode_flow
from flows.ingest import ingest_flow
from flows.report import report_flow
from flows.train_vae import train_flow
from vaearr.config import (
    AssociateConfig,
    ClusterConfig,
    EmbedConfig,
    EncodeConfig,
    IngestConfig,
    ReportConfig,
    RoiConfig,
    TrainConfig,
)
from vaearr.names import DEFAULT_RUN


@flow(name="analyse-scan")
def analyse_scan(
    source: Path,
    store: Path,
    run: str = DEFAULT_RUN,
    ingest: IngestConfig = IngestConfig(),  # noqa: B008  (frozen)
    roi: RoiConfig | None = None,
    train: TrainConfig = TrainConfig(),  # noqa: B008  (frozen)
    embed: EmbedConfig = EmbedConfig(),  # noqa: B008  (frozen)
    cluster: ClusterConfig = ClusterConfig(),  # noqa: B008  (frozen)
    associate: AssociateConfig = AssociateConfig(),  # noqa: B008  (frozen)
) -> str:
    """Ingest a scan, train, encode, decompose, cluster, associate and report; returns the path of the report page."""
    ingest_flow(source, store, ingest)
    train_flow(store, run, roi, train)
    encode_flow(store, EncodeConfig(run=run))
    embed_flow(store, embed.replace(run=run))
    cluster_flow(store, cluster.replace(run=run))
    associate_flow(store, associate.replace(run=run))
    return report_flow(store, ReportConfig(run=run))
