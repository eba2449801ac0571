"""The whole line: file -> store -> run -> latents, principal components, clusters -> association -> report."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.associate import associate_step
from flows.cluster import cluster_step
from flows.embed import embed_step
from flows.encode import encode_step
from flows.ingest import ingest_step
from flows.report import report_step
from flows.train_vae import train_step
from vaearr.config import (
    AssociateConfig,
    ClusterConfig,
    EmbedConfig,
    EncodeConfig,
    IngestConfig,
    ReportConfig,
    RoiConfig,
    SignificanceConfig,
    TrainConfig,
)
from vaearr.names import DEFAULT_RUN

TESTED = AssociateConfig(significance=SignificanceConfig())


@flow(name="analyse-scan")
def analyse_scan(
    source: Path,
    store: Path,
    run: str = DEFAULT_RUN,
    ingest: IngestConfig = IngestConfig(),  # noqa: B008  (frozen)
    roi: RoiConfig | None = None,
    train: TrainConfig = TrainConfig(),  # noqa: B008  (frozen)
    encode: EncodeConfig = EncodeConfig(),  # noqa: B008  (frozen)
    embed: EmbedConfig = EmbedConfig(),  # noqa: B008  (frozen)
    cluster: ClusterConfig = ClusterConfig(),  # noqa: B008  (frozen)
    associate: AssociateConfig = TESTED,
    report: ReportConfig = ReportConfig(),  # noqa: B008  (frozen)
    overwrite: bool = False,
    dask: str | None = None,
) -> str:
    """Ingest a scan, train, encode, decompose, cluster, associate with p-values, report; returns the report's path.

    Whatever is complete already, made with the same settings, is not made again: after an interruption or a failure
    the same call goes on where it stopped.

    Args:
        source: file or folder with the patterns
        store: path of the zarr store
        run: name of the run in all steps
        ingest: how the source is read, with its side maps
        roi: points to learn from and to look at; none = those of the run 'vae', else all that were measured
        train: everything that decides the training
        encode: how latents are written
        embed: the decomposition beside the latents
        cluster: how points are grouped
        associate: which metrics against which maps; with p-values from surrogate maps
        report: what the page shows
        overwrite: replace results that are there but were made otherwise
        dask: Dask workers for ingest, encode and associate: tcp://host:8786, a scheduler file, or local:4 here
    """
    ingest_step(source, store, ingest, overwrite, dask)
    train_step(store, run, roi, train, overwrite)
    encode_step(store, encode.replace(run=run), overwrite, dask)
    embed_step(store, embed.replace(run=run), overwrite)
    cluster_step(store, cluster.replace(run=run), overwrite)
    associate_step(store, associate.replace(run=run), dask)
    return report_step(store, report.replace(run=run))
