"""The whole line: file -> store -> run -> latents, principal components, clusters -> association -> report."""

from __future__ import annotations

from pathlib import Path

from vaearr.computing import check_where
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
from vaearr.runs import check_extras

from .associate import associate_step, has_targets
from .cluster import cluster_step
from .embed import embed_step
from .encode import encode_step
from .ingest import ingest_step
from .report import report_step
from .running import kept_flow, tell
from .train_vae import train_step

TESTED = AssociateConfig(significance=SignificanceConfig())


@kept_flow(name="analyse-scan")
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
) -> dict[str, str]:
    """Ingest a scan, train, encode, decompose, cluster, associate with p-values, report; returns where the page is.

    A scan without side maps is associated with nothing; its report says so.

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
        associate: which metrics against which maps, if there are any; with p-values from surrogate maps
        report: what the page shows
        overwrite: replace results that are there but were made otherwise
        dask: Dask workers for ingest, encode and associate: tcp://host:8786, a scheduler file, or local:4 here
    """
    check_extras(train)
    check_where(dask)
    ingest_step(source, store, ingest, overwrite, dask)
    train_step(store, run, roi, train, overwrite)
    encode_step(store, encode.replace(run=run), overwrite, dask)
    embed_step(store, embed.replace(run=run), overwrite)
    cluster_step(store, cluster.replace(run=run), overwrite)
    if associate.targets or has_targets(store):
        associate_step(store, associate.replace(run=run), overwrite, dask)
    else:
        tell("no band contrast, elements or phases: latents are associated with nothing")
    return report_step(store, report.replace(run=run))
