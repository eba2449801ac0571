"""The steps as flows, each one task, and the whole line through all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from vaearr.names import DEFAULT_RUN, LATENT, LATENTS, run_name
from vaearr.run.train import check_extras

from .running import is_recorded, kept_flow, place, progress, stage, step, tell
from .showing import MOST_ROWS, link, picture, store_key, table, text

MOST_MAPS = 32  # on a sheet
TOP = 10  # latents of each ranking at most
TESTED = AssociateConfig(significance=SignificanceConfig())


@stage("ingest")
def ingest_flow(
    source: Path, store: Path, ingest: IngestConfig = IngestConfig(), overwrite: bool = False, dask: str | None = None
) -> dict[str, str]:
    """Turn a scan file or a folder of images, with side maps, into a store; returns the store's path.

    Args:
        source: file or folder with the patterns or images
        store: path of the zarr store to make
        ingest: how the source is read
        overwrite: replace a store, with all its runs, that was made from another source or with other settings
        dask: Dask workers that read and write: tcp://host:8786, a scheduler file, or local:4 on this machine
    """
    from vaearr.info import in_words, store_facts
    from vaearr.ingestion import ingest as run_ingest

    with progress("blocks written", store_key("ingest-progress", store)) as show:
        run_ingest(source, store, config=ingest, dask=dask, overwrite=overwrite, say=tell, progress=show)
    text(store_key("ingest", store), f"```\n{in_words(store_facts(store))}\n```", f"what is in {store.name}")
    return {"store": place(store)}


@step("train-vae")
def train_step(
    store: Path, run: str, roi: RoiConfig | None, train: TrainConfig, overwrite: bool = False, restart: bool = False
) -> dict[str, Any]:
    """Train a VAE, publish it as a run of the store, and show how it went."""
    from vaearr.provenance import as_json
    from vaearr.run.train import train as run_train
    from vaearr.views import view

    with progress("training", store_key("train-progress", store, run)) as show:

        def on_epoch(epoch: int, row: dict[str, float]) -> None:
            held_out = f", validation {row['val_loss']:.1f}" if "val_loss" in row else ""
            words = f"loss {row['loss']:.1f}{held_out} nats per sample"
            if is_recorded():  # a log keeps what a bar shows only
                tell(f"epoch {epoch + 1} of at most {train.epochs}: {words}")
            show(epoch + 1, train.epochs, words)

        made = run_train(
            store, run=run, roi=roi, config=train, overwrite=overwrite, restart=restart, say=tell, on_epoch=on_epoch
        )
        count = made.manifest["epochs_run"]
        show(count, count, f"trained, best epoch {made.manifest['best_epoch']}; epochs")
    health, history, about = made.health, made.history, made.manifest
    words = [
        f"**{store.name}, run {run}**: {health.attrs['n_active']} of {health.sizes[LATENT]} latent dimensions active, "
        f"{health.attrs['explained_variance']:.1%} of the patterns' variance, noise included, explained; best epoch "
        f"{about['best_epoch']} of {count}, {about['n_train']} points trained, {about['n_validation']} validated.",
        *(f"- {warning}" for warning in health.attrs["warnings"]),
    ]
    text(store_key("train-vae", store, run), "\n\n".join(words), f"run {run} of {store.name}")
    rows: Any = health.to_dataframe().reset_index().to_dict("records")
    table(store_key("train-vae-health", store, run), rows, "health of each latent dimension (KL in nats)")
    loss, active = (store_key(f"train-vae-{what}", store, run) for what in ("loss", "active"))
    picture(store, loss, lambda: view(history, kind="history"), "loss curves")
    picture(store, active, lambda: view(health, kind="run_health"), "KL of each latent dimension")
    kept = {key: as_json(health.attrs[key]) for key in ("n_active", "explained_variance", "warnings")}
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
    from vaearr.store import open_store

    health = train_step(store, run, roi, train, overwrite, restart)
    if encode and run_name(LATENTS, run) not in open_store(store, chunks=None):
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
    from vaearr.run.encode import encode as run_encode
    from vaearr.views import view

    encode = encode.replace(run=run)
    run = name or encode.run
    variable = run_name(LATENTS, run)
    with progress("blocks encoded", store_key("encode-progress", store, run)) as show:
        run_encode(
            store, source=source, name=name, roi=roi, config=encode, dask=dask, overwrite=overwrite, say=tell,
            on_block=show,
        )  # fmt: skip
    key = store_key("encode-latents", store, run)
    picture(store, key, lambda: view(mapped(store, variable)[variable], kind="stack"), "maps of latents")
    return {"store": place(store), "run": run, "variable": variable}


def mapped(store: Path, variable: str) -> Any:
    """A scan with the first maps of a variable. Raises NoInputError for one over samples, which has no maps."""
    from vaearr import schema
    from vaearr.store import open_store

    ds = open_store(store)
    if not schema.is_scan(ds) or ds[variable].ndim != 3:
        raise NoInputError(f"only {variable} over the rows and columns of a scan have maps to show.")
    return ds.isel({ds[variable].dims[-1]: slice(MOST_MAPS)})


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
    from vaearr.embedding import embed_store
    from vaearr.views import view

    embed = embed.replace(run=run)
    name = embed.name or embed.method
    with progress("blocks decomposed", store_key("embed-progress", store, name)) as show:
        embed_store(store, embed, overwrite=overwrite, say=tell, on_block=show)
    key = store_key("embed", store, name)
    picture(store, key, lambda: view(mapped(store, name)[name], kind="stack"), f"maps of {name}")
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
    from vaearr.clustering import cluster_lines, cluster_store
    from vaearr.views import view

    cluster = cluster.replace(run=run)
    name = cluster.name
    found = cluster_store(store, cluster, overwrite=overwrite, say=tell)
    for line in cluster_lines(found, name):
        tell(line)
    total = max(int(found["count"].sum()), 1)
    counts = zip(found["cluster"].values, found["count"].values, strict=True)
    rows = [{"cluster": str(label), "points": int(count), "share": int(count) / total} for label, count in counts]
    table(store_key("cluster", store, name), rows, f"clusters {name!r} of {store.name}")
    labels = found[name]
    if labels.ndim == 2:
        key = store_key("cluster-map", store, name)
        picture(store, key, lambda: view(labels, kind="classes"), f"map of {name!r}")
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
    from vaearr.association import associate_store, top_lines
    from vaearr.association.stored import table_name
    from vaearr.views import view

    associate = associate.replace(run=run)
    found = associate_store(store, associate, dask=dask, overwrite=overwrite, say=tell)
    for line in top_lines(found):
        tell(line)
    rows, names = rankings(found), (associate.run, *filter(None, [associate.variable]))
    table(store_key("associate", store, *names), rows, "strongest associations, by target and metric")
    key = store_key("associate-map", store, *names)
    picture(store, key, lambda: view(found, kind="association"), "associations")
    group = f"runs/{associate.run}/{table_name(associate.variable, associate.name)}"
    return {"store": place(store), "group": group, "table": rows}


def rankings(found: Any) -> list[dict[str, Any]]:
    """Rows: target, metric, rank, latent, value, adjusted p-value where there is one; of all rankings equally many."""
    from vaearr.association import ranking
    from vaearr.provenance import as_json

    values = found["association"]
    top = max(1, min(TOP, MOST_ROWS // (values.sizes["target"] * values.sizes["metric"])))
    rows = []
    for target in values["target"].values:
        for metric in map(str, values["metric"].values):
            best = ranking(values, metric, str(target), top)
            for item in best.to_dataframe().reset_index().to_dict("records"):
                row = {"target": target, "metric": metric} | {key: item[key] for key in ("rank", "latent", "value")}
                if "p_adjusted" in found:
                    where = {"target": target, "metric": metric, "latent": item["latent"]}
                    row["p_adjusted"] = found["p_adjusted"].sel(where).item()
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
    from vaearr.reporting import report as write_report
    from vaearr.reporting.write import is_current, report_folder
    from vaearr.store import check_store

    report = report.replace(run=run)
    if is_current(check_store(store), report):
        page = report_folder(check_store(store), report) / "index.html"
        tell(f"the report is there already, and the store has not changed since: {page}")
    else:
        page = write_report(store, config=report)
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
    from vaearr.association import targets_of
    from vaearr.store import open_store

    try:
        targets_of(open_store(store, chunks=None))
    except NoInputError:
        return False
    return True
