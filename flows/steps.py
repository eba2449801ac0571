"""The steps as flows, each one task, and the whole line through all of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import vaearr as va
from vaearr.association import ranking, targets_of
from vaearr.association.stored import table_name
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
from vaearr.errors import NoInputError
from vaearr.info import in_words, store_facts
from vaearr.names import DEFAULT_RUN, LATENTS, SAMPLE, run_name
from vaearr.provenance import as_json
from vaearr.reporting.write import is_current, report_folder
from vaearr.runs import check_extras
from vaearr.store import check_store
from vaearr.words import loss_words

from .running import (
    MOST_ROWS,
    is_recorded,
    kept_flow,
    link,
    picture,
    place,
    progress,
    stage,
    step,
    store_key,
    table,
    tell,
    text,
)

MOST_MAPS = 32  # on a sheet
TOP = 10  # latents of each ranking at most
TESTED = AssociateConfig(significance=SignificanceConfig())


@stage("ingest")
def ingest_flow(
    source: Path,
    store: Path,
    ingest: IngestConfig = IngestConfig(),
    overwrite: bool = False,
    dask: str | None = None,
) -> dict[str, str]:
    """Turn a scan file or a folder of images, with side maps, into a store; returns the store's path.

    Args:
        source: file or folder with the patterns or images
        store: path of the zarr store to make
        ingest: how the source is read
        overwrite: replace a store, with all its runs, that was made from another source or with other settings
        dask: Dask workers that read and write: tcp://host:8786, a scheduler file, or local:4 on this machine
    """
    with progress("blocks written", store_key("ingest-progress", store)) as show:
        va.ingest(source, store, config=ingest, dask=dask, overwrite=overwrite, say=tell, progress=show)
    text(store_key("ingest", store), f"```\n{in_words(store_facts(store))}\n```", f"what is in {store.name}")
    return {"store": place(store)}


@step("train-vae")
def train_step(
    store: Path,
    run: str,
    roi: RoiConfig | None,
    train: TrainConfig,
    overwrite: bool = False,
    restart: bool = False,
) -> dict[str, Any]:
    """Train a VAE, publish it as a run of the store, and show how it went."""
    how: Any = {"overwrite": overwrite, "restart": restart, "say": tell}
    with progress("training", store_key("train-progress", store, run)) as show:

        def on_epoch(epoch: int, row: dict[str, float]) -> None:
            if is_recorded():  # a log keeps what a bar shows only
                tell(f"epoch {epoch + 1} of at most {train.epochs}: {loss_words(row)}")
            show(epoch + 1, train.epochs, loss_words(row))

        made = va.train(store, run=run, roi=roi, config=train, on_epoch=on_epoch, **how)
        count = made.manifest["epochs_run"]
        show(count, count, f"trained, best epoch {made.manifest['best_epoch']}; epochs")
    text(store_key("train-vae", store, run), f"```\n{made!r}\n```", f"run {run} of {store.name}")
    rows: Any = made.health.to_dataframe().reset_index().to_dict("records")
    table(store_key("train-vae-health", store, run), rows, "health of each latent dimension (KL in nats)")
    loss, active = (store_key(f"train-vae-{what}", store, run) for what in ("loss", "active"))
    picture(store, loss, lambda: made.history, "loss curves", kind="history")
    picture(store, active, lambda: made.health, "KL of each latent dimension", kind="run_health")
    kept = {key: as_json(made.health.attrs[key]) for key in ("n_active", "explained_variance", "warnings")}
    return {"store": place(store), "run": run, **kept}


@kept_flow(name="train-vae")
def train_flow(
    store: Path,
    run: str = DEFAULT_RUN,
    roi: RoiConfig | None = None,
    train: TrainConfig = TrainConfig(),
    encode: EncodeConfig | None = EncodeConfig(),
    overwrite: bool = False,
    restart: bool = False,
) -> dict[str, Any]:
    """Train a VAE on a store's patterns and write its latents; returns their health. After an interruption it goes on.

    Args:
        store: zarr store, as made by ingest
        run: name of the run; 'vae' writes latents, 'b' writes latents_b
        roi: points to train on; none = those of the run 'vae', else all that were measured
        train: everything that decides the training
        encode: how the latents are written; those of the run that are there already stay; none = not at all
        overwrite: replace a run of this name that was trained otherwise, with its latents and tables
        restart: throw an interrupted training of this run away
    """
    health = train_step(store, run, roi, train, overwrite, restart)
    if encode and run_name(LATENTS, run) not in va.open_store(store, chunks=None):
        encode_flow.step(store, run, encode)
    return health


@stage("encode")
def encode_flow(
    store: Path,
    run: str | None = None,
    encode: EncodeConfig = EncodeConfig(),
    source: Path | None = None,
    name: str | None = None,
    roi: RoiConfig | None = None,
    overwrite: bool = False,
    dask: str | None = None,
) -> dict[str, str]:
    """Write a run's latents into the store, or those of a model trained in another; returns where they are.

    Args:
        store: zarr store with a trained run
        run: name of the run; none = the one in encode
        encode: how latents are written
        source: another store, whose run is taken to these data as it was trained
        name: with source, what the run is called here; none = its name there
        roi: with source, points to encode; none = those of the run 'vae', else all that were measured
        overwrite: replace latents that were made with other settings
        dask: Dask workers that encode: tcp://host:8786, a scheduler file, or local:4 on this machine
    """
    encode = encode.replace(run=run)
    variable = run_name(LATENTS, name or encode.run)
    how: Any = {"source": source, "name": name, "roi": roi, "dask": dask, "overwrite": overwrite, "say": tell}
    with progress("blocks encoded", store_key("encode-progress", store, name or encode.run)) as show:
        va.encode(store, config=encode, on_block=show, **how)
    key = store_key("encode-latents", store, name or encode.run)
    picture(store, key, lambda: mapped(store, variable), "maps of latents", kind="stack")
    return {"store": place(store), "run": name or encode.run, "variable": variable}


def mapped(store: Path, variable: str) -> Any:
    """The first maps of a variable. Raises NoInputError for one over samples, which has no maps."""
    da = va.open_store(store)[variable]
    if da.ndim != 3 or SAMPLE in da.dims:
        raise NoInputError(f"only {variable} over the rows and columns of a scan have maps to show.")
    return da.isel({da.dims[-1]: slice(MOST_MAPS)})


@stage("embed")
def embed_flow(
    store: Path, run: str | None = None, embed: EmbedConfig = EmbedConfig(), overwrite: bool = False
) -> dict[str, str]:
    """Decompose a store's patterns; returns where the scores are.

    Args:
        store: zarr store, as made by ingest
        run: run whose region and preprocessing are used, if it is there; none = the one in embed
        embed: which decomposition, and how
        overwrite: replace a decomposition of this name that was made otherwise
    """
    embed = embed.replace(run=run)
    name = embed.name or embed.method
    with progress("blocks decomposed", store_key("embed-progress", store, name)) as show:
        va.embed_store(store, embed, overwrite=overwrite, say=tell, on_block=show)
    picture(store, store_key("embed", store, name), lambda: mapped(store, name), f"maps of {name}", kind="stack")
    return {"store": place(store), "variable": name}


@stage("cluster")
def cluster_flow(
    store: Path, run: str | None = None, cluster: ClusterConfig = ClusterConfig(), overwrite: bool = False
) -> dict[str, Any]:
    """Group scan points by their latents and maps; the labels become a map of the store. Returns it, and their sizes.

    Args:
        store: zarr store with an encoded run
        run: run whose latents and region are used; none = the one in cluster
        cluster: by which variables, and how
        overwrite: replace clusters of this name that were made otherwise
    """
    cluster = cluster.replace(run=run)
    name = cluster.name
    found = va.cluster_store(store, cluster, overwrite=overwrite, say=tell)
    for line in va.describe(found, "clusters", name=name):
        tell(line)
    total = max(int(found["count"].sum()), 1)
    counts = zip(found["cluster"].values, found["count"].values, strict=True)
    rows = [{"cluster": str(label), "points": int(count), "share": int(count) / total} for label, count in counts]
    table(store_key("cluster", store, name), rows, f"clusters {name!r} of {store.name}")
    if found[name].ndim == 2:
        picture(store, store_key("cluster-map", store, name), lambda: found[name], f"map of {name!r}", kind="classes")
    return {"store": place(store), "variable": name, "table": rows}


@stage("associate")
def associate_flow(
    store: Path,
    run: str | None = None,
    associate: AssociateConfig = AssociateConfig(),
    overwrite: bool = False,
    dask: str | None = None,
) -> dict[str, Any]:
    """Compare latent dimensions with band contrast, elements and phases; returns the strongest, and where all are.

    Args:
        store: zarr store with an encoded run
        run: run whose latents are compared; none = the one in associate
        associate: which metrics against which targets, with or without p-values
        overwrite: replace a table that was made otherwise
        dask: Dask workers that compute: tcp://host:8786, a scheduler file, or local:4 on this machine
    """
    associate = associate.replace(run=run)
    found = va.associate_store(store, associate, dask=dask, overwrite=overwrite, say=tell)
    for line in va.describe(found, "association"):
        tell(line)
    rows, names = rankings(found), (associate.run, *filter(None, [associate.variable]))
    table(store_key("associate", store, *names), rows, "strongest associations, by target and metric")
    picture(store, store_key("associate-map", store, *names), lambda: found, "associations", kind="association")
    group = f"runs/{associate.run}/{table_name(associate.variable, associate.name)}"
    return {"store": place(store), "group": group, "table": rows}


def rankings(found: Any) -> list[dict[str, Any]]:
    """Rows: target, metric, rank, latent, value, adjusted p-value where there is one; of all rankings equally many."""
    values, rows = found["association"], list[dict[str, Any]]()
    top = max(1, min(TOP, MOST_ROWS // (values.sizes["target"] * values.sizes["metric"])))
    for target, metric in itertools.product(map(str, values["target"].values), map(str, values["metric"].values)):
        for item in ranking(values, metric, target, top).to_dataframe().reset_index().to_dict("records"):
            where = {"target": target, "metric": metric}
            row = where | {key: item[key] for key in ("rank", "latent", "value")}
            if "p_adjusted" in found:
                row["p_adjusted"] = found["p_adjusted"].sel(latent=item["latent"], **where).item()
            rows.append(as_json(row))
    return rows


@stage("report")
def report_flow(store: Path, run: str | None = None, report: ReportConfig = ReportConfig()) -> dict[str, str]:
    """Write the report of a run, unless it is there and the store has not changed since; returns where it is.

    Args:
        store: zarr store with an encoded run
        run: name of the run; none = the one in report
        report: where the report goes, and what it shows
    """
    report, path = report.replace(run=run), check_store(store)
    if is_current(path, report):
        page = report_folder(path, report) / "index.html"
        tell(f"the report is there already, and the store has not changed since: {page}")
    else:
        page = va.report(store, config=report)
        tell(f"report: {page}")
    text(store_key("report", store, report.run), link(page), f"report of run {report.run} of {store.name}")
    return {"store": place(store), "run": report.run, "page": str(page)}


@kept_flow(name="analyse-scan")
def analyse_scan(
    source: Path,
    store: Path,
    run: str = DEFAULT_RUN,
    roi: RoiConfig | None = None,
    ingest: IngestConfig = IngestConfig(),
    train: TrainConfig = TrainConfig(),
    encode: EncodeConfig = EncodeConfig(),
    embed: EmbedConfig = EmbedConfig(),
    cluster: ClusterConfig = ClusterConfig(),
    associate: AssociateConfig = TESTED,
    report: ReportConfig = ReportConfig(),
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
        roi: points to learn from and to look at; none = those of the run 'vae', else all that were measured
        ingest: how the source is read, with its side maps
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
    ingest_flow.step(source, store, ingest, overwrite, dask)
    train_step(store, run, roi, train, overwrite)
    encode_flow.step(store, run, encode, overwrite=overwrite, dask=dask)
    embed_flow.step(store, run, embed, overwrite)
    cluster_flow.step(store, run, cluster, overwrite)
    if associate.targets or _has_targets(store):
        associate_flow.step(store, run, associate, overwrite, dask)
    else:
        tell("no band contrast, elements or phases: latents are associated with nothing")
    made: dict[str, str] = report_flow.step(store, run, report)
    return made


def _has_targets(store: Path) -> bool:
    """Whether the store holds maps that latents are compared with where none is named."""
    try:
        targets_of(va.open_store(store, chunks=None))
    except NoInputError:
        return False
    return True
