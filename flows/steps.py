"""The steps as flows; the whole line through all of them, for one scan and for many; sweeps.

Annotations are no strings here: a flow that is served is sent to another process without the names
of this module.
"""

import itertools
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import xarray as xr
from pydantic import Field, NonNegativeFloat, PositiveInt

import vaearr as va
from vaearr.analysis.association import targets_of
from vaearr.config import (
    AssociateConfig,
    ClusterConfig,
    Config,
    EncodeConfig,
    IngestConfig,
    Name,
    RoiConfig,
    SignificanceConfig,
    TrainConfig,
    field,
    resolved,
)
from vaearr.config.parts import parts_of_users
from vaearr.errors import NoInputError, RoiError, TrainingError, UsageError, VaearrError
from vaearr.names import DEFAULT_RUN, LATENTS, SAMPLE, run_name
from vaearr.output.reporting import is_current, report_folder
from vaearr.recipe import as_json
from vaearr.run.statistics import recommend, score_run
from vaearr.run.train import check_extras
from vaearr.store import check_store
from vaearr.store.folders import replace_file, write_errors

from .running import (
    kept_flow,
    key_of,
    link,
    log,
    picture,
    place,
    progress,
    step,
    store_key,
    table,
    text,
)

MOST_MAPS = 32  # on a sheet
TOP = 3  # latents of each ranking
TESTED = AssociateConfig(significance=SignificanceConfig())


@kept_flow(name="ingest")
def ingest_flow(
    source: Path,
    store: Path,
    ingest: IngestConfig = IngestConfig(),
    overwrite: bool = False,
) -> dict[str, str]:
    """Turn a scan file or a folder of images, with side maps, into a store; returns the store's
    path.

    Args:
        source: file or folder with the patterns or images
        store: path of the zarr store to make
        ingest: how the source is read
        overwrite: replace a store, with all its runs, that was made from another source or with
        other settings
    """
    with progress("blocks written", store_key("ingest-progress", store)) as show:
        va.ingest(source, store, config=ingest, overwrite=overwrite, progress=show)
    return {"store": place(store)}


@kept_flow(name="train-vae")
def train_flow(
    store: Path,
    run: str = DEFAULT_RUN,
    roi: RoiConfig | None = None,
    train: TrainConfig = TrainConfig(),
    encode: EncodeConfig | None = EncodeConfig(),
    overwrite: bool = False,
    restart: bool = False,
    trust: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Train a VAE on a store's patterns and write its latents; returns their health. After an
    interruption it resumes.

    Args:
        store: zarr store, as made by ingest
        run: name of the run; 'vae' writes latents, 'b' writes latents_b
        roi: points to train on; none = those of the run 'vae', else all that were measured
        train: everything that decides the training
        encode: how the latents are written; latents that exist are kept; none = not at all
        overwrite: replace a run of this name trained with different settings, with its latents and
        tables
        restart: throw an interrupted training of this run away
        trust: networks of your own packages that other runs may name (init), as package.module:Name
    """
    with progress("epochs", store_key("train-progress", store, run)) as show:
        trained = va.train(
            store,
            run=run,
            roi=roi,
            config=train,
            progress=show,
            overwrite=overwrite,
            restart=restart,
            trust=trust,
        )
        if n_epochs := trained.manifest.get("epochs_run"):
            show(
                n_epochs, n_epochs, f"trained, best epoch {trained.manifest['best_epoch']}; epochs"
            )
    if n_epochs:
        picture(
            store,
            store_key("train-vae-loss", store, run),
            trained.history,
            "loss curves",
            kind="history",
        )
    key = store_key("train-vae-active", store, run)
    picture(store, key, trained.health, "KL of each latent dimension", kind="run_health")
    if encode and run_name(LATENTS, run) not in va.open_store(store, chunks=None):
        step(encode_flow, store, run, encode, trust=parts_of_users(train.model.name))
    health = {
        name: as_json(trained.health.attrs[name])
        for name in ("n_active", "explained_variance", "warnings")
    }
    return {"store": place(store), "run": run, **health}


@kept_flow(name="encode")
def encode_flow(
    store: Path,
    run: str | None = None,
    encode: EncodeConfig = EncodeConfig(),
    source: Path | None = None,
    name: str | None = None,
    roi: RoiConfig | None = None,
    overwrite: bool = False,
    trust: tuple[str, ...] = (),
) -> dict[str, str]:
    """Write a run's latents into the store, or those of a model trained in another; returns where
    they are.

    Args:
        store: zarr store with a trained run
        run: name of the run; none = the one in encode
        encode: how latents are written
        source: another store, whose run is taken to these data as it was trained
        name: with source, what the run is called here; none = its name there
        roi: with source, points to encode; none = those of the run 'vae', else all that were
        measured
        overwrite: replace latents that were created with different settings
        trust: networks of your own packages that the run may name, as package.module:Name
    """
    encode = encode.replace(run=run)
    variable = run_name(LATENTS, name or encode.run)
    opened = va.load_run(store if source is None else source, encode.run, trust=trust)
    if source is not None:
        opened = opened.apply(store, name=name, roi=roi, overwrite=overwrite, device=encode.device)
    elif name is not None or roi is not None:
        raise UsageError("name and roi are for a run of another store; give that store as source.")
    with progress(
        "blocks encoded", store_key("encode-progress", store, name or encode.run)
    ) as show:
        opened.encode(config=encode, overwrite=overwrite, progress=show)
    latents = va.open_store(store)[variable]
    if latents.ndim == 3 and SAMPLE not in latents.dims:
        maps = latents.isel({latents.dims[-1]: slice(MOST_MAPS)})
        picture(
            store,
            store_key("encode-latents", store, name or encode.run),
            maps,
            "maps of latents",
            kind="stack",
        )
    return {"store": place(store), "run": name or encode.run, "variable": variable}


@kept_flow(name="cluster")
def cluster_flow(
    store: Path,
    run: str | None = None,
    cluster: ClusterConfig = ClusterConfig(),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Group scan points by their latents and maps; the labels become a map of the store. Returns
    it, and their sizes.

    Args:
        store: zarr store with an encoded run
        run: run whose latents and region are used; none = the one in cluster
        cluster: by which variables, and how
        overwrite: replace clusters of this name that were made otherwise
    """
    cluster = cluster.replace(run=run)
    name = cluster.name
    found = va.load_run(store, cluster.run).cluster(config=cluster, overwrite=overwrite)
    for line in va.describe(found):
        log.info(line)
    rows = as_json(
        found["count"].to_dataframe(name="points")["points"].reset_index().to_dict("records")
    )
    table(store_key("cluster", store, name), rows, f"clusters {name!r} of {store.name}")
    if found[name].ndim == 2:
        picture(
            store,
            store_key("cluster-map", store, name),
            found[name],
            f"map of {name!r}",
            kind="map",
        )
    return {"store": place(store), "variable": name, "table": rows}


@kept_flow(name="associate")
def associate_flow(
    store: Path,
    run: str | None = None,
    associate: AssociateConfig = AssociateConfig(),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Compare latent dimensions with band contrast, elements and phases; returns the strongest, and
    where all are.

    Args:
        store: zarr store with an encoded run
        run: run whose latents are compared; none = the one in associate
        associate: which metrics against which targets, with or without p-values
        overwrite: replace a table that was made otherwise
    """
    associate = associate.replace(run=run)
    found = va.load_run(store, associate.run).associate(config=associate, overwrite=overwrite)
    for line in va.describe(found):
        log.info(line)
    rows, run = rankings(found), associate.run
    table(store_key("associate", store, run), rows, "strongest associations, by target and metric")
    picture(
        store, store_key("associate-map", store, run), found, "associations", kind="association"
    )
    group = "_".join(filter(None, [f"runs/{run}/association", associate.name]))
    return {"store": place(store), "group": group, "table": rows}


def rankings(found: xr.Dataset) -> list[dict[str, Any]]:
    """The strongest latents of each target and metric: target, metric, rank, latent, value,
    adjusted p-value if any.
    """
    values = found["association"]
    columns = {"value": values, "strength": xr.where(values["signed"], abs(values), values)}
    names = ["target", "metric", "rank", "latent", "value"]
    if "p_adjusted" in found:
        columns["p_adjusted"] = found["p_adjusted"]
        names.append("p_adjusted")
    frame = xr.Dataset(columns).to_dataframe().dropna(subset="value").reset_index()
    strength = frame.groupby(["target", "metric"])["strength"]
    frame["rank"] = strength.rank(ascending=False, method="first").astype(int)
    strongest = frame[frame["rank"] <= TOP].sort_values(["target", "metric", "rank"])
    rows: list[dict[str, Any]] = as_json(strongest[names].to_dict("records"))
    return rows


@kept_flow(name="report")
def report_flow(
    store: Path,
    run: str = DEFAULT_RUN,
    out: Path | None = None,
    trust: tuple[str, ...] = (),
) -> dict[str, str]:
    """Write the report of a run, unless it is there and the store has not changed since; returns
    where it is.

    Args:
        store: zarr store with an encoded run
        run: name of the run
        out: folder of the report; none = beside the store
        trust: networks of your own packages that the run may name, as package.module:Name
    """
    path = check_store(store)
    folder = report_folder(path, run, out)
    if is_current(path, folder):
        page = folder / "index.html"
        log.info(f"the report is there already, and the store has not changed since: {page}")
    else:
        page = va.load_run(store, run, trust=trust).report(out)
        log.info(f"report: {page}")
    text(store_key("report", store, run), link(page), f"report of run {run} of {store.name}")
    return {"store": place(store), "run": run, "page": str(page)}


@kept_flow(name="analyse-scan")
def analyse_scan(
    source: Path,
    store: Path,
    run: str = DEFAULT_RUN,
    roi: RoiConfig | None = None,
    ingest: IngestConfig = IngestConfig(),
    train: TrainConfig = TrainConfig(),
    encode: EncodeConfig = EncodeConfig(),
    cluster: ClusterConfig = ClusterConfig(),
    associate: AssociateConfig = TESTED,
    overwrite: bool = False,
) -> dict[str, str]:
    """Ingest a scan, train, encode, cluster, associate with p-values, report; returns where the
    page is.

    A scan without side maps is associated with nothing; its report says so.

    Whatever is complete already, made with the same settings, is not made again: after an
    interruption or a failure the same call resumes.

    Args:
        source: file or folder with the patterns
        store: path of the zarr store
        run: name of the run in all steps
        roi: points to learn from and to look at; none = those of the run 'vae', else all that were
        measured
        ingest: how the source is read, with its side maps
        train: everything that decides the training
        encode: how latents are written
        cluster: how points are grouped
        associate: which metrics against which maps, if there are any; with p-values from surrogate
        maps
        overwrite: replace results that are there but were made otherwise
    """
    check_extras(train)
    trust = parts_of_users(train.model.name)
    step(ingest_flow, source, store, ingest, overwrite)
    step(train_flow, store, run, roi, train, None, overwrite)
    step(encode_flow, store, run, encode, overwrite=overwrite, trust=trust)
    step(cluster_flow, store, run, cluster, overwrite)
    if associate.targets or _has_targets(store):
        step(associate_flow, store, run, associate, overwrite)
    else:
        log.info("no band contrast, elements or phases: latents are associated with nothing")
    made: dict[str, str] = step(report_flow, store, run, trust=trust)
    return made


def _has_targets(store: Path) -> bool:
    """Whether the store holds maps that latents are compared with where none is named."""
    try:
        targets_of(va.open_store(store, chunks=None))
    except NoInputError:
        return False
    return True


# ---- many scans ------------------------------------------------------------------------------------------------------


class Scan(Config):
    """One scan: where it is, where its store goes, how it is read."""

    source: Path = field(..., "file or folder with the patterns")
    store: Path = field(..., "path of its zarr store")
    ingest: IngestConfig = field(IngestConfig(), "how it is read")
    roi: RoiConfig | None = field(None, "points to look at; none = all that were measured")


@kept_flow(name="analyse-many")
def analyse_many(
    scans: Annotated[list[Scan], Field(min_length=1)],
    run: str = DEFAULT_RUN,
    train: TrainConfig = TrainConfig(),
    encode: EncodeConfig = EncodeConfig(),
    cluster: ClusterConfig = ClusterConfig(),
    associate: AssociateConfig = TESTED,
    overwrite: bool = False,
) -> list[dict[str, str]]:
    """Take many scans through the whole line, one after the other; returns a row for each: state,
    report, error.

    A scan that fails does not stop the others; the flow fails at its end and names those that did.
    The same call again resumes with what is not complete.

    Args:
        scans: source, store and reading of each
        run: name of the run in all stores
        train: everything that decides the trainings
        encode: how latents are written
        cluster: how points are grouped
        associate: which metrics against which maps
        overwrite: replace results that are there but were made otherwise
    """
    stores = [place(scan.store) for scan in scans]
    if twice := [store for store in stores if stores.count(store) > 1]:
        raise UsageError(
            f"{twice[0]} is named for more than one scan; give each a store of its own."
        )
    check_extras(train)
    settings = {"run": run, "train": train, "encode": encode, "cluster": cluster}
    settings |= {"associate": associate, "overwrite": overwrite}
    rows: list[dict[str, str]] = []
    with progress("scans", key_of("analyse-many-progress")) as show:
        for scan in scans:
            row = {"source": str(scan.source), "store": str(scan.store)}
            try:
                made = step(
                    analyse_scan,
                    scan.source,
                    scan.store,
                    ingest=scan.ingest,
                    roi=scan.roi,
                    **settings,
                )
                row |= {"state": "complete", "report": made["page"], "error": ""}
            except Exception as error:  # of one scan: of whatever kind it is, the others go on
                row |= {
                    "state": "failed",
                    "report": "",
                    "error": f"{type(error).__name__}: {error}",
                }
            rows.append(row)
            log.info(f"{row['store']}: {row['state']} {row['error']}")
            show(len(rows), len(scans))
    table(key_of("analyse-many"), rows, "scans")
    if failed := [row["store"] for row in rows if row["state"] == "failed"]:
        raise VaearrError(f"{len(failed)} of {len(rows)} scans failed: {', '.join(failed)}")
    return rows


# ---- many trainings of one store ------------------------------------------------------------------------------------

WHOLE = "all"  # name of the region where none is given
PASSED_OVER = (
    RoiError,
    TrainingError,
    NoInputError,
    UsageError,
)  # of one combination; the others go on


class SweepConfig(Config):
    """Which trainings: every combination of a region, a latent size and a beta."""

    latent_dims: tuple[PositiveInt, ...] = field(
        (4, 8, 16, 32), "numbers of latent dimensions", min_length=1
    )
    betas: tuple[NonNegativeFloat, ...] = field(
        (1.0,), "weights of the KL divergence", min_length=1
    )
    rois: dict[Name, RoiConfig] = field(
        {}, "name -> conditions; empty = that of the run 'vae', else all measured points"
    )
    name: Name = field("sweep", "what the names of all runs begin with")

    def combinations(self) -> list[tuple[str, str, int, float]]:
        """(name of the run, region, latent size, beta) of each training; the same settings give the
        same names.
        """
        regions = tuple(self.rois) or (WHOLE,)
        found = []
        for region, beta, size in itertools.product(
            regions, dict.fromkeys(self.betas), sorted({*self.latent_dims})
        ):
            number = (
                repr(beta)
                .removesuffix(".0")
                .replace(".", "p")
                .replace("e-", "em")
                .replace("e+", "e")
            )
            name = "_".join([self.name, *([region] if self.rois else []), f"l{size}", f"b{number}"])
            found.append((name, region, size, beta))
        return found


RULE = (
    "recommended: the fewest latent dimensions whose held-out ELBO is within one standard error of the best; the "
    "standard error is that of means over validation blocks"
)


@kept_flow(name="sweep")
def sweep_flow(
    store: Path,
    sweep: SweepConfig = SweepConfig(),
    train: TrainConfig = TrainConfig(),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train a run for each combination of region, latent size and beta, compare them; returns the
    table.

    Each run is encoded and scored on its validation points: ELBO, active dimensions, explained
    variance. Recommended are the fewest latent dimensions whose held-out ELBO is within one
    standard error of the best, for each region. Runs that are complete are not trained again. A
    combination that cannot be trained (such as a region that is too small) is reported and the
    others continue; the flow then fails at its end.

    Args:
        store: zarr store, as made by ingest
        sweep: which combinations
        train: everything else that decides the trainings
        overwrite: replace runs of these names trained with different settings
    """
    trust = parts_of_users(train.model.name)
    combinations = sweep.combinations()
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    with progress("runs", store_key("sweep-progress", store, sweep.name)) as show:
        for done, (run, region, size, beta) in enumerate(combinations, 1):
            settings = resolved(TrainConfig, train, {"latent_dim": size, "beta": beta})
            try:
                step(train_flow, store, run, sweep.rois.get(region), settings, overwrite=overwrite)
                rows.append({"region": region, **score_run(va.load_run(store, run, trust=trust))})
            except PASSED_OVER as error:
                failed[run] = str(error)
                log.info(f"run {run!r} failed: {error}")
            show(done, len(combinations))
    if not rows:
        raise TrainingError(
            f"none of {len(combinations)} runs could be made: {next(iter(failed.values()))}"
        )
    made = compared(store, sweep, rows)
    if failed:
        raise VaearrError(
            f"{len(failed)} of {len(combinations)} runs failed: {', '.join(failed)}; see {made['file']}"
        )
    return made


def compared(store: Path, sweep: SweepConfig, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the table of a sweep beside the store as CSV, and say what is recommended for each
    region.
    """
    frame = pd.DataFrame(rows)
    recommended = set()
    for region in frame["region"].unique():
        best = recommend([row for row in rows if row["region"] == region])
        recommended.add(best["run"])
        log.info(
            f"{region}: {best['latent_dim']} latent dimensions are recommended (run {best['run']!r}, "
            f"{best['n_active']} active, held-out ELBO {best['elbo']:.1f} nats per sample)"
        )
    frame["recommended"] = frame["run"].isin(recommended)
    path = check_store(store)
    file = path.with_name(f"{path.name.removesuffix('.zarr')}.sweeps") / f"{sweep.name}.csv"
    with write_errors(file.parent):
        file.parent.mkdir(exist_ok=True)
        replace_file(file, frame.to_csv(index=False, lineterminator="\n").encode())
    log.info(f"table: {file}")
    key = store_key("sweep", path, sweep.name)
    records = as_json(frame.to_dict("records"))
    table(key, records, f"sweep {sweep.name!r} of {path.name}; {RULE}")
    lines = frame[["region", "beta", "latent_dim", "elbo", "elbo_se"]].fillna({"elbo_se": 0.0})
    picture(
        store,
        f"{key}-elbo",
        lines.to_xarray(),
        "held-out ELBO over latent dimensions",
        kind="sweep",
    )
    return {"store": place(store), "file": str(file), "table": records}
