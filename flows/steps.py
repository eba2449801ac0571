"""The steps as flows; all steps in a row, for one scan and for many; sweeps.

Annotations are objects here, not strings: a flow that is served is sent to another process without
the names of this module.
"""

import itertools
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import xarray as xr
from pydantic import Field, NonNegativeFloat, PositiveInt

import vaearr as va
from vaearr.analysis.association import strongest_latents, targets_of
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
from vaearr.names import DEFAULT_RUN, LATENTS, SCAN_DIMS, run_name
from vaearr.output.reporting import is_current, report_folder
from vaearr.run.statistics import recommend, score_run
from vaearr.run.train import check_extras
from vaearr.store import check_store, store_path
from vaearr.store.folders import replace_file, write_errors

from .running import (
    kept_flow,
    key_of,
    link,
    log,
    open_sweep,
    page,
    step,
    store_key,
    sweep_file,
    table,
    with_address,
)

MAX_MAPS = 32  # on a sheet
TESTED = AssociateConfig(significance=SignificanceConfig())


@kept_flow(name="ingest")
def ingest_flow(
    source: Path,
    store: Path,
    ingest: IngestConfig = IngestConfig(),
    overwrite: bool = False,
) -> xr.Dataset:
    """Turn a scan file or a folder of images, with side maps, into a store; returns its Dataset.

    Args:
        source: file or folder with the patterns or images
        store: path of the zarr store to create
        ingest: how the source is read
        overwrite: replace a store, with all its runs, that was created from another source or with
        different settings
    """
    ds = va.ingest(source, store, config=ingest, overwrite=overwrite)
    return with_address(ds, store)


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
) -> xr.Dataset:
    """Train a VAE on a store's patterns and write its latents; returns the store's Dataset. After
    an interruption it resumes.

    Args:
        store: zarr store, as created by ingest
        run: name of the run; 'vae' writes latents, 'b' writes latents_b
        roi: points to train on; none = those of the run 'vae', else all measured points
        train: all settings of the training
        encode: how the latents are written; existing latents are kept; none = not at all
        overwrite: replace a run of this name trained with different settings, with its latents and
        tables
        restart: discard an interrupted training of this run
        trust: networks of your own packages that other runs may name (init), as package.module:Name
    """
    trained = va.train(
        store,
        run=run,
        roi=roi,
        config=train,
        overwrite=overwrite,
        restart=restart,
        trust=trust,
    )
    if trained.manifest.get("epochs_run"):
        key = store_key("train-vae-loss", store, run)
        page(store, key, trained.history, "loss curves", kind="history")
    key = store_key("train-vae-active", store, run)
    page(store, key, trained.health, "KL of each latent dimension", kind="run_health")
    if encode and run_name(LATENTS, run) not in trained.ds:
        step(encode_flow, store, run, encode, trust=parts_of_users(train.model.name))
    return with_address(va.open_store(store), store, run)


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
) -> xr.Dataset:
    """Write the latents of a run, or of a model trained in another store; returns the store's
    Dataset.

    Args:
        store: zarr store with a trained run
        run: name of the run; none = the one in encode
        encode: how latents are written
        source: another store, whose run is applied to these data
        name: with source, the name of the run here; none = its name there
        roi: with source, points to encode; none = those of the run 'vae', else all measured points
        overwrite: replace latents that were created with different settings
        trust: networks of your own packages that the run may name, as package.module:Name
    """
    encode = encode.replace(run=run)
    opened = va.load_run(store if source is None else source, encode.run, trust=trust)
    if source is not None:
        opened = opened.apply(store, name=name, roi=roi, overwrite=overwrite, device=encode.device)
    elif name is not None or roi is not None:
        raise UsageError("name and roi are for a run of another store; give that store as source.")
    ds = opened.encode(config=encode, overwrite=overwrite)
    latents = ds[run_name(LATENTS, opened.name)]
    if latents.ndim == 3 and set(SCAN_DIMS) & set(latents.dims):
        maps = latents.isel({latents.dims[-1]: slice(MAX_MAPS)})
        key = store_key("encode-latents", store, opened.name)
        page(store, key, maps, "maps of latents", kind="stack")
    return with_address(ds, store, opened.name)


@kept_flow(name="cluster")
def cluster_flow(
    store: Path,
    run: str | None = None,
    cluster: ClusterConfig = ClusterConfig(),
    overwrite: bool = False,
) -> xr.Dataset:
    """Group scan points by their latents and maps, and write the labels as a map of the store;
    returns the map and its summary.

    Args:
        store: zarr store with an encoded run
        run: run whose latents and region are used; none = the one in cluster
        cluster: by which variables, and how
        overwrite: replace clusters of this name that were created with different settings
    """
    cluster = cluster.replace(run=run)
    name = cluster.name
    result = va.load_run(store, cluster.run).cluster(config=cluster, overwrite=overwrite)
    for line in va.describe(result):
        log.info(line)
    counts = result["count"].to_dataframe(name="points")["points"].reset_index()
    rows = counts.to_dict("records")
    table(store_key("cluster", store, name), rows, f"clusters {name!r} of {store.name}")
    if result[name].ndim == 2:
        key = store_key("cluster-map", store, name)
        page(store, key, result[name], f"map of {name!r}", kind="map")
    return with_address(result, store, cluster.run, name)


@kept_flow(name="associate")
def associate_flow(
    store: Path,
    run: str | None = None,
    associate: AssociateConfig = AssociateConfig(),
    overwrite: bool = False,
) -> xr.Dataset:
    """Compare latent dimensions with band contrast, elements and phases; returns the table.

    Args:
        store: zarr store with an encoded run
        run: run whose latents are compared; none = the one in associate
        associate: which metrics against which targets, with or without p-values
        overwrite: replace a table that was created with different settings
    """
    associate = associate.replace(run=run)
    result = va.load_run(store, associate.run).associate(config=associate, overwrite=overwrite)
    for line in va.describe(result):
        log.info(line)
    key = store_key("associate", store, associate.run)
    strongest = strongest_latents(result).to_dict("records")
    table(key, strongest, "strongest associations, by target and metric")
    key = store_key("associate-map", store, associate.run)
    page(store, key, result, "associations", kind="association")
    name = f"association_{associate.name}" if associate.name else "association"
    return with_address(result, store, associate.run, name)


@kept_flow(name="report")
def report_flow(
    store: Path,
    run: str = DEFAULT_RUN,
    out: Path | None = None,
    trust: tuple[str, ...] = (),
) -> Path:
    """Write the report of a run, unless it exists and the store has not changed since; returns the
    path of its page.

    Args:
        store: zarr store with an encoded run
        run: name of the run
        out: folder of the report; none = next to the store
        trust: networks of your own packages that the run may name, as package.module:Name
    """
    path = check_store(store)
    folder = report_folder(path, run, out)
    file = folder / "index.html"
    if is_current(path, folder):
        log.info(f"the report exists, and the store has not changed since: {file}")
    else:
        file = va.load_run(store, run, trust=trust).report(out)
        log.info(f"report: {file}")
    link(store_key("report", store, run), file, f"report of run {run} of {store.name}")
    return file


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
) -> Path:
    """Ingest a scan, train, encode, cluster, associate with p-values, report; returns the path of
    the report's page.

    A scan without side maps is not associated; its report states so.

    Results that were created with the same settings are kept: after an interruption or a failure
    the same call resumes.

    Args:
        source: file or folder with the patterns
        store: path of the zarr store
        run: name of the run in all steps
        roi: points to train on and to analyse; none = those of the run 'vae', else all measured
        points
        ingest: how the source is read, with its side maps
        train: all settings of the training
        encode: how latents are written
        cluster: how points are grouped
        associate: which metrics against which maps, if there are any; with p-values from surrogate
        maps
        overwrite: replace existing results that were created with different settings
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
        log.info("no band contrast, elements or phases: the latents are not associated")
    file: Path = step(report_flow, store, run, trust=trust)
    return file


def _has_targets(store: Path) -> bool:
    """Whether the store holds maps that latents are compared with by default."""
    try:
        targets_of(va.open_store(store, chunks=None))
    except NoInputError:
        return False
    return True


# ---- many scans


class Scan(Config):
    """One scan: its source, its store, how it is read."""

    source: Path = field(..., "file or folder with the patterns")
    store: Path = field(..., "path of its zarr store")
    ingest: IngestConfig = field(IngestConfig(), "how it is read")
    roi: RoiConfig | None = field(None, "points to analyse; none = all measured points")


@kept_flow(name="analyse-many")
def analyse_many(
    scans: Annotated[list[Scan], Field(min_length=1)],
    run: str = DEFAULT_RUN,
    train: TrainConfig = TrainConfig(),
    encode: EncodeConfig = EncodeConfig(),
    cluster: ClusterConfig = ClusterConfig(),
    associate: AssociateConfig = TESTED,
    overwrite: bool = False,
) -> list[Path]:
    """Take several scans through all steps, one after the other; returns the paths of the reports.

    A scan that fails does not stop the others; the flow fails at its end and names those that did.
    The same call again resumes with what is not complete.

    Args:
        scans: source, store and reading of each
        run: name of the run in all stores
        train: all settings of the trainings
        encode: how latents are written
        cluster: how points are grouped
        associate: which metrics against which maps
        overwrite: replace existing results that were created with different settings
    """
    stores = [store_path(scan.store) for scan in scans]
    for store in stores:
        if stores.count(store) > 1:
            raise UsageError(
                f"{store} is named for more than one scan; give each a store of its own."
            )
    check_extras(train)
    settings = {"run": run, "train": train, "encode": encode, "cluster": cluster}
    settings |= {"associate": associate, "overwrite": overwrite}
    rows: list[dict[str, str]] = []
    for scan in scans:
        row = {"source": str(scan.source), "store": str(scan.store), "report": "", "error": ""}
        inputs = {"ingest": scan.ingest, "roi": scan.roi}
        try:
            row["report"] = str(step(analyse_scan, scan.source, scan.store, **inputs, **settings))
        except Exception as error:  # of any kind: the other scans continue
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append(row)
        log.info(f"{scan.store}: {row['error'] or 'complete'} ({len(rows)} of {len(scans)} scans)")
    table(key_of("analyse-many"), rows, "scans")
    failed = [row["store"] for row in rows if row["error"]]
    if failed:
        raise VaearrError(f"{len(failed)} of {len(rows)} scans failed: {', '.join(failed)}")
    return [Path(row["report"]) for row in rows]


# ---- many trainings of one store

ALL_POINTS = "all"  # name of the region if none is given
# errors of one combination; the others continue
COMBINATION_ERRORS = (RoiError, TrainingError, NoInputError, UsageError)


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
    name: Name = field("sweep", "first part of the names of all runs")

    def combinations(self) -> list[tuple[str, str, int, float]]:
        """(name of the run, region, latent size, beta) of each training."""
        regions = tuple(self.rois) or (ALL_POINTS,)
        betas = dict.fromkeys(self.betas)
        sizes = sorted(set(self.latent_dims))
        combinations = []
        for region, beta, size in itertools.product(regions, betas, sizes):
            parts = [self.name, f"l{size}", _beta_name(beta)]
            if self.rois:
                parts.insert(1, region)
            combinations.append(("_".join(parts), region, size, beta))
        return combinations


def _beta_name(beta: float) -> str:
    """A number as part of a name, such as `b0p5` or `b1em05`."""
    name = f"b{beta!r}".removesuffix(".0")
    return name.replace(".", "p").replace("e-", "em").replace("e+", "e")


RULE = (
    "recommended: the fewest latent dimensions whose held-out ELBO is within one standard error of "
    "the best; the standard error is that of means over validation blocks"
)


@kept_flow(name="sweep")
def sweep_flow(
    store: Path,
    sweep: SweepConfig = SweepConfig(),
    train: TrainConfig = TrainConfig(),
    overwrite: bool = False,
) -> xr.Dataset:
    """Train a run for each combination of region, latent size and beta, and compare them; returns
    the table.

    Each run is encoded and scored on its validation points: ELBO, active dimensions, explained
    variance. Recommended are the fewest latent dimensions whose held-out ELBO is within one
    standard error of the best, for each region. Complete runs are not trained again. A combination
    that cannot be trained (such as a region that is too small) is reported and the others continue;
    the flow then fails at its end.

    Args:
        store: zarr store, as created by ingest
        sweep: which combinations
        train: all other settings of the trainings
        overwrite: replace runs of these names trained with different settings
    """
    trust = parts_of_users(train.model.name)
    combinations = sweep.combinations()
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for number, (run, region, size, beta) in enumerate(combinations, 1):
        log.info(f"run {run!r}: {number} of {len(combinations)}")
        settings = resolved(TrainConfig, train, {"latent_dim": size, "beta": beta})
        try:
            step(train_flow, store, run, sweep.rois.get(region), settings, overwrite=overwrite)
            rows.append({"region": region, **score_run(va.load_run(store, run, trust=trust))})
        except COMBINATION_ERRORS as error:
            failed[run] = str(error)
            log.info(f"run {run!r} failed: {error}")
    if not rows:
        reason = next(iter(failed.values()))
        raise TrainingError(f"none of {len(combinations)} runs could be trained: {reason}")
    file = _write_sweep(store, sweep.name, rows)
    if failed:
        raise VaearrError(
            f"{len(failed)} of {len(combinations)} runs failed: {', '.join(failed)}; see {file}"
        )
    return with_address(open_sweep(store, sweep.name), store, name=sweep.name)


def _write_sweep(store: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """Write the table of a sweep as CSV, and log the recommended run of each region."""
    frame = pd.DataFrame(rows)
    frame["recommended"] = False
    for region in frame["region"].unique():
        best = recommend([row for row in rows if row["region"] == region])
        frame["recommended"] |= frame["run"] == best["run"]
        log.info(
            f"{region}: {best['latent_dim']} latent dimensions are recommended "
            f"(run {best['run']!r}, {best['n_active']} active, "
            f"held-out ELBO {best['elbo']:.1f} nats per sample)"
        )
    file = sweep_file(store, name)
    with write_errors(file.parent):
        file.parent.mkdir(exist_ok=True)
        replace_file(file, frame.to_csv(index=False, lineterminator="\n").encode())
    log.info(f"table: {file}")
    key = store_key("sweep", store, name)
    table(key, frame.to_dict("records"), f"sweep {name!r} of {store.name}; {RULE}")
    elbo = frame[["region", "beta", "latent_dim", "elbo", "elbo_se"]].fillna({"elbo_se": 0.0})
    description = "held-out ELBO over latent dimensions"
    page(store, f"{key}-elbo", elbo.to_xarray(), description, kind="sweep")
    return file
