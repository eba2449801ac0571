"""Commands that learn from a store and analyse what was learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cloup

import vaearr as va
from vaearr import config
from vaearr import names as n
from vaearr.cli.common import (
    ANALYSE,
    AS_JSON,
    LEARN,
    OVERWRITE,
    PATH,
    RUN_NAME,
    SCHEDULER,
    STORE,
    TRUST,
    command,
    folder_of,
    next_step,
    print_lines,
    refuse,
    say,
)
from vaearr.cli.settings import roi_options, settings_options
from vaearr.computing.cluster import computing_on
from vaearr.config import ProbeConfig, merged, resolved
from vaearr.config.presets import preset_settings

Settings = dict[str, Any]
TRAIN_OPTIONS = (
    "model",
    "latent_dim",
    "beta",
    "epochs",
    "batch_size",
    "learning_rate",
    "patience",
    "balance",
    "init",
    "precision",
    "device",
    "seed",
)
SCORES = (
    "ari",
    "nmi",
    "homogeneity",
    "completeness",
    "v_measure",
    "majority_accuracy",
    "hungarian_accuracy",
)


@command(
    "vaearr train scan.zarr --latent-dim 32 --where 'BC > 45'",
    "vaearr train scan.zarr --run b --set objective.beta=4 --config settings.yaml",
    section=LEARN,
)
@STORE
@settings_options(config.TrainConfig, *TRAIN_OPTIONS)
@roi_options
@RUN_NAME
@cloup.option(
    "--points", type=PATH, help="ROI as a CSV with x, y, see 'vaearr look contrast --keep'"
)
@cloup.option(
    "--preset",
    metavar="sd|maisi|digits",
    help="settings to start from; others replace single ones",
)
@cloup.option("--resume", type=PATH, help="checkpoint file to resume from")
@cloup.option("--restart", is_flag=True, help="discard an interrupted training of this run")
@TRUST
@OVERWRITE
def train(
    store: str,
    settings: Settings,
    roi: Any,
    points: Path | None,
    preset: str | None,
    **options: Any,
) -> None:
    """Train a VAE on a store's patterns.

    After an interruption the same command resumes the training.

    The ROI, if none of --x, --y, --z, --where and --points is given: that of the run 'vae' if there
    is one, else every measured point.
    """
    from vaearr.ingestion.kept_points import read_kept_coordinates

    refuse(
        points and roi, "--points lists the points of the ROI; leave out --x, --y, --z and --where."
    )
    if preset:
        settings = merged(preset_settings(preset), settings)
    if points:
        roi = read_kept_coordinates(va.open_store(store, chunks=None), points)
    chosen = resolved(config.TrainConfig, None, settings)
    report_run(store, va.train(store, roi=roi, config=chosen, **options))


def report_run(store: str, run: Any) -> None:
    """Print a run's epochs and latents, and the next command, after the verdict is logged."""
    manifest = run.manifest
    health = run.health.attrs
    epochs = ""
    if "epochs_run" in manifest:
        epochs = f"best epoch {manifest['best_epoch']} of {manifest['epochs_run']}, "
    say(
        f"run {run.name!r}: {epochs}{health['n_active']} of {run.health.sizes['latent']} latent "
        "dimensions active"
    )
    is_good = health.get("verdict_kind", n.GOOD) == n.GOOD
    say(next_step("encode", store, run.name, word="next" if is_good else "to use it as it is"))


@command("vaearr import photos.zarr vae.safetensors --run sd", name="import", section=LEARN)
@STORE
@cloup.argument(
    "checkpoint",
    type=PATH,
    help="model folder of a run, or .safetensors, .pt, .pth or .ckpt file",
)
@settings_options(config.ImportConfig, without=("options",))
@cloup.option("--run", required=True, help="name of the new run")
@TRUST
@OVERWRITE
def import_model(store: str, checkpoint: Path, settings: Settings, **options: Any) -> None:
    """Add a model that was trained elsewhere as a run.

    The model is one of vaearr or Stable Diffusion's VAE. A model folder of vaearr includes its
    settings and background. Other checkpoints are never unpickled; the options follow from the
    shapes of the weights, and --set options.groups=16 and the like replace single ones.
    """
    report_run(store, va.import_model(store, checkpoint, **options, **settings))


@command(
    "vaearr encode scan.zarr", "vaearr encode other.zarr --from scan.zarr --run vae", section=LEARN
)
@STORE
@settings_options(config.EncodeConfig)
@roi_options
@cloup.option("--from", "source", help="another store, whose run encodes these data")
@cloup.option("--name", help="--from: name of the run in this store; default: its name there")
@SCHEDULER
@TRUST
@OVERWRITE
def encode(
    store: str,
    settings: Settings,
    roi: Any,
    source: str | None,
    name: str | None,
    scheduler: str | None,
    trust: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Write the latents of a run into the store.

    With --from, a run of another store is applied to this one; only then a ROI can be chosen.
    """
    refuse(
        source is None and (name is not None or roi is not None),
        "--name and a region are for a run of another store; name that store by --from.",
    )
    chosen = resolved(config.EncodeConfig, None, settings)
    with computing_on(scheduler):
        run = va.load_run(source or store, chosen.run, trust=trust, device=chosen.device)
        if source is not None:
            run = run.apply(store, name=name, roi=roi, overwrite=overwrite, device=chosen.device)
        run.encode(overwrite=overwrite, config=chosen)
    say(f"latents of run {run.name!r} are in {store}; open it with xarray.open_zarr({store!r})")
    say(next_step("associate", store, run.name))


@command(
    "vaearr reconstruct photos.zarr --out rebuilt --files",
    section=LEARN,
)
@STORE
@settings_options(config.ReconstructConfig, without=("out", "roi"))
@roi_options
@cloup.option("--variable", is_flag=True, help="also write the reconstructions into the store")
@cloup.option("--out", type=PATH, help="folder for pictures and tables")
@cloup.option("--files", is_flag=True, help="--out: also write each reconstruction as a file")
@cloup.option(
    "--binarise", type=float, help="threshold at and above which binary.png in --out is white"
)
@TRUST
@OVERWRITE
def reconstruct(
    store: str,
    settings: Settings,
    roi: Any,
    variable: bool,
    out: Path | None,
    files: bool,
    binarise: float | None,
    trust: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Reconstruct samples, and measure the error: PSNR, SSIM, MSE, MAE.

    The ROI, if none of --x, --y, --z and --where is given: that of the run. --out writes
    reconstruction.png, metrics.csv, with --binarise binary.png, of volumes slices.png and
    slices.html; --files also the folder files: PNG, NIfTI with its affine, or .npy.
    """
    from vaearr.views.summaries import reconstruction_lines

    refuse(files and out is None, "--files needs a folder, so give one with --out.")
    if roi is not None:
        settings["roi"] = roi
    if variable:
        settings["out"] = "variable"
    chosen = resolved(config.ReconstructConfig, None, settings)
    run = va.load_run(store, chosen.run, trust=trust, device=chosen.device)
    with folder_of(out) as folder:
        inner = folder / "files" if folder and files else None
        result = run.reconstruct(folder=inner, overwrite=overwrite, config=chosen)
        if folder:
            write_reconstructions(result, folder, binarise)
    print_lines(reconstruction_lines(result))
    print_lines(f"warning: {warning}" for warning in result.attrs["warnings"])
    say(next_step("report", store, run.name))


def write_reconstructions(result: Any, folder: Path, binarise: float | None) -> None:
    """Write metrics and pictures of reconstructions."""
    from vaearr.run.reconstruct import metrics_csv
    from vaearr.views import save
    from vaearr.views.volumes import is_volume, volume_page

    (folder / "metrics.csv").write_text(metrics_csv(result), encoding="utf-8")
    if not result.sizes.get("example"):
        return
    save(result, folder / "reconstruction.png")
    if binarise is not None:
        save(result, folder / "binary.png", threshold=binarise)
    if is_volume(result["input"]):
        save(result, folder / "slices.png", kind="volumes")
        (folder / "slices.html").write_text(volume_page(result), encoding="utf-8")


# ---- analyses


@command(
    "vaearr associate scan.zarr --metric all --significance",
    "vaearr associate scan.zarr --target 'Fe + 0.5*Ni' --top 5",
    section=ANALYSE,
)
@STORE
@settings_options(config.AssociateConfig)
@cloup.option("--significance", is_flag=True, help="p-values from surrogate maps")
@cloup.option("--reference", help="also compare clusters of each dimension with those of this map")
@cloup.option(
    "--k-max",
    type=click.IntRange(min=2),
    default=12,
    help="--reference: largest number of clusters of a dimension",
)
@cloup.option(
    "--top",
    type=click.IntRange(min=1),
    help="list so many dimensions for each target and metric; default: a summary",
)
@AS_JSON
@SCHEDULER
@OVERWRITE
def associate(
    store: str,
    settings: Settings,
    significance: bool,
    reference: str | None,
    k_max: int,
    top: int | None,
    as_json: bool,
    scheduler: str | None,
    overwrite: bool,
) -> None:
    """Compare latent dimensions with band contrast, elements and phases."""
    from vaearr.views.summaries import association_lines

    if significance:
        settings = merged({"significance": {}}, settings)
    chosen = resolved(config.AssociateConfig, None, settings)
    run = va.load_run(store, chosen.run)
    partitions = None
    with computing_on(scheduler):
        if reference:  # first, so that an unknown map is refused before the work
            partitions = run.partitions(
                reference, k_max=k_max, name=chosen.name, overwrite=overwrite
            )
        table = run.associate(config=chosen, overwrite=overwrite)
    if as_json:
        print_table(table)
        return
    if top is None:
        print_lines(association_lines(table))
        print_lines(f"warning: {warning}" for warning in table.attrs.get("warnings", ()))
        say("every value: add --top 10 or --json")
    else:
        print_lines(va.describe(table, top))
    if partitions is not None:
        print_lines(va.describe(partitions, top))
    say(next_step("cluster", store, chosen.run, also=" --method hdbscan --name grains"))


def print_table(result: Any) -> None:
    """Print the values of a table as JSON, a record for each."""
    frame = result[list(result.data_vars)].to_dataframe().reset_index()
    click.echo(frame.to_json(orient="records", indent=2))


@command("vaearr probe scan.zarr --target phase --by clusters", section=ANALYSE)
@STORE
@settings_options(ProbeConfig)
@AS_JSON
@OVERWRITE
def probe(store: str, settings: Settings, as_json: bool, overwrite: bool) -> None:
    """Predict maps from latents, evaluated on points, grains or subjects left out."""
    from vaearr.views.summaries import probe_lines

    chosen = resolved(ProbeConfig, None, settings)
    run = va.load_run(store, chosen.run)
    table = run.probe(config=chosen, overwrite=overwrite)
    if as_json:
        print_table(table)
        return
    print_lines(probe_lines(table))
    print_lines(f"warning: {warning}" for warning in table.attrs["warnings"])
    say(next_step("report", store, chosen.run))


@command(
    "vaearr cluster scan.zarr --method hdbscan --name grains",
    "vaearr cluster scan.zarr --feature latents --feature BC --k 6",
    section=ANALYSE,
)
@STORE
@settings_options(config.ClusterConfig)
@OVERWRITE
def cluster(store: str, settings: Settings, overwrite: bool) -> None:
    """Group scan points by latents and maps, and write the cluster map."""
    from vaearr.views.summaries import cluster_lines

    chosen = resolved(config.ClusterConfig, None, settings)
    result = va.load_run(store, chosen.run).cluster(config=chosen, overwrite=overwrite)
    print_lines(cluster_lines(result, chosen.name))
    if chosen.method == "hdbscan":
        print_lines(
            [f"  groups below {chosen.min_cluster_size} points are noise (--min-cluster-size)"]
        )
    if "ari" in result:
        scores = ", ".join(f"{name} {float(result[name]):.3f}" for name in SCORES)
        print_lines([f"agreement with the phases at {result.attrs['n_scored']} points: {scores}"])
    say(f"labels are in {store} as {chosen.name!r}")
    say(next_step("report", store, chosen.run))
