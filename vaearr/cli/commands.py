"""The commands in the order of the work: the demo, the steps from a file to its report, pages,
flows.

Steps have an option for every setting, made from their config.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

import vaearr as va
from vaearr import config
from vaearr.cli.common import (
    SOURCE,
    AsJson,
    Device,
    Given,
    Overwrite,
    RunName,
    Scheduler,
    Seed,
    Store,
    Trust,
    app,
    folder_of,
    given,
    nested_values,
    print_lines,
    refuse,
    say,
    trusted_run,
    with_settings,
)
from vaearr.computing.cluster import computing_on
from vaearr.config import over, resolved
from vaearr.config.presets import preset_settings
from vaearr.config.probes import ProbeConfig
from vaearr.errors import DataError
from vaearr.names import BC, DEFAULT_RUN


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="folder for files, store and report")] = Path(
        "stores/demo"
    ),
) -> None:
    """Simulate a small EBSD scan and take it all the way to a report."""
    from vaearr.cli.demo import run_demo

    print_lines(run_demo(folder))


@app.command()
@with_settings(config.IngestConfig, flags={"phase_names": "--phase", "classes": "--class"})
def ingest(
    source: Annotated[
        Path, typer.Argument(help="file, image folder or zarr store to read, such as scan.h5")
    ],
    store: Annotated[str, typer.Argument(help="store to create, such as stores/scan.zarr")],
    *,
    settings: Given,
    bc: Annotated[Path | None, typer.Option(help="CSV with x, y, band contrast")] = None,
    scheduler: Scheduler = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a scan file (HDF5, vendor formats), an image folder, digits or NIfTI volumes into a
    store.
    """
    if bc:
        refuse(
            BC in settings.get("maps", {}),
            f"--bc and --map {BC} are the same map; give one of them.",
        )
        settings = over(settings, {"maps": {BC: bc}})
    with computing_on(scheduler):
        va.ingest(source, store, overwrite=overwrite, **settings)
    say(f"{store} is ready; look at it with 'vaearr info {store}'")


@app.command()
def attach(
    store: Store,
    file: Annotated[Path, typer.Argument(help=".npy, CSV or .tsv maps of elements")],
    run: Annotated[str | None, typer.Option(help="latents: name of the run they become")] = None,
    kind: Annotated[
        str, typer.Option(help="latents, map, classes, elements or scores")
    ] = "latents",
    name: Annotated[
        str | None, typer.Option(help="all but latents: name of the variable they become")
    ] = None,
    coords: Annotated[Path | None, typer.Option(help="CSV or .npy with x, y of each row")] = None,
    roi: Annotated[
        str | None, typer.Option(help="run whose points the rows are, in row-major order")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="CSV: columns that begin with this")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="CSV: column to take; repeatable")
    ] = None,
    units: Annotated[str | None, typer.Option(help="unit of the values")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Add latents or maps computed elsewhere, to be analysed like the store's own."""
    va.attach(
        store,
        file,
        kind=kind,
        run=run,
        name=name,
        coords=coords,
        roi=roi,
        prefix=prefix,
        columns=column or (),
        units=units,
        overwrite=overwrite,
    )


@app.command()
def info(
    store: Store,
    model: Annotated[
        bool, typer.Option("--model", help="the layers of a run's network instead")
    ] = False,
    run: RunName = DEFAULT_RUN,
    out: Annotated[
        Path | None,
        typer.Option(help="PNG or PDF: samples of each class, or with --model the network"),
    ] = None,
    seed: Seed = 0,
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Describe the contents of a store, or the network of a run; --out draws it."""
    options: Given = {}
    if model:
        from vaearr.models.card import as_record, model_card

        shown: Any = model_card(trusted_run(store, run, trust).model)
        facts = as_record(shown)
        words = va.describe(shown)
    else:
        from vaearr.run.facts import in_words, store_facts

        facts = store_facts(store)
        shown = va.open_store(store, chunks=None)
        words = [in_words(facts)]
        options = {"kind": "samples", "seed": seed}
    if out:
        from vaearr.views import save

        say(f"written: {save(shown, out, **options)}")
    print_lines([json.dumps(facts, indent=2, default=str)] if as_json else words)


@app.command()
def verify(
    store: Store,
    as_json: AsJson = False,
    remove: Annotated[
        str | None,
        typer.Option(help="remove a variable that can be computed again, a table or runs/NAME"),
    ] = None,
    seal: Annotated[
        bool,
        typer.Option(
            "--seal", help="accept what the store holds: new checksums and a new list of variables"
        ),
    ] = False,
) -> None:
    """Check every file of a store; exit code 65 if it is damaged.

    One line for each finding names the variable and chunk, and what to do.
    """
    from vaearr.store import remove as removing
    from vaearr.store import verify as verifying

    refuse(remove is not None and seal, "give --remove and --seal one at a time.")
    if remove is not None:
        say(f"removed from {store}: {', '.join(removing.remove(store, remove))}")
    elif seal:
        say(f"checksums added to {len(verifying.seal_store(store))} variables of {store}")
    else:
        result = verifying.verify_store(store)
        print_lines(
            [json.dumps(asdict(result), indent=2, default=str)]
            if as_json
            else verifying.in_words(result)
        )
        if not result.is_healthy:
            raise typer.Exit(DataError.exit_code)


@app.command()
@with_settings(config.TrainConfig, has_roi=True)
def train(
    store: Store,
    *,
    settings: Given,
    roi: Any,
    run: RunName = DEFAULT_RUN,
    points: Annotated[
        Path | None, typer.Option(help="ROI as a CSV with x, y, see 'vaearr look contrast --keep'")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="settings that others replace: sd, maisi, beta-vae or digits")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="checkpoint file to resume from")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="discard an interrupted training of this run")
    ] = False,
    trust: Trust = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a VAE on a store's patterns; after an interruption the same command resumes.

    The ROI, where none of --x, --y, --z, --where, --points is given: that of the run 'vae' if there
    is one, else every measured point.
    """
    from vaearr.analysis.side_maps import read_kept_coordinates

    refuse(
        points and roi, "--points lists the points of the ROI; leave out --x, --y, --z and --where."
    )
    if preset:
        settings = over(preset_settings(preset), settings)
    if points:
        roi = read_kept_coordinates(va.open_store(store, chunks=None), points)
    trained = va.train(
        store,
        run=run,
        roi=roi,
        config=resolved(config.TrainConfig, None, settings),
        resume=resume,
        restart=restart,
        trust=trust or (),
        overwrite=overwrite,
    )
    tell_run(store, trained)


def tell_run(store: str, run: Any) -> None:
    """Print how good a run is, and the next command."""
    manifest = run.manifest
    health = run.health.attrs
    epochs = ""
    if "epochs_run" in manifest:
        epochs = f"best epoch {manifest['best_epoch']} of {manifest['epochs_run']}, "
    say(
        f"run {run.name!r}: {epochs}{health['n_active']} of {run.health.sizes['latent']} latent dimensions active, "
        f"{health['explained_variance']:.1%} of the patterns' variance, noise included, explained"
    )
    say(f"next: 'vaearr encode {store} --run {run.name}'")


@app.command("import")
@with_settings(config.ImportConfig)
def import_model(
    store: Store,
    checkpoint: Annotated[
        Path, typer.Argument(help="model folder of a run, or .safetensors, .pt, .pth or .ckpt file")
    ],
    *,
    settings: Given,
    run: Annotated[str, typer.Option(help="name of the run that the model becomes")],
    trust: Trust = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a model trained elsewhere, by vaearr or as Stable Diffusion's VAE, a run of a store.

    A model folder of vaearr's brings its settings and background. Of other checkpoints, of which
    nothing is unpickled, the options come from the shapes of the weights; --set options.groups=16
    and the like replace single ones.
    """
    imported = va.import_model(
        store, checkpoint, run=run, trust=trust or (), overwrite=overwrite, **settings
    )
    tell_run(store, imported)


@app.command()
@with_settings(config.EncodeConfig, has_roi=True)
def encode(
    store: Store,
    *,
    settings: Given,
    roi: Any,
    source: Annotated[
        str | None, typer.Option("--from", help="another store, whose run encodes these data")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="--from: name of the run in this store; default: its name there"),
    ] = None,
    scheduler: Scheduler = None,
    trust: Trust = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a run's latents into the store; with --from, those of a model that was trained in
    another store.

    The ROI is chosen with --from only; else it is that of the run.
    """
    refuse(
        source is None and (name is not None or roi is not None),
        "--name and a region are for a run of another store; name that store by --from.",
    )
    chosen = resolved(config.EncodeConfig, None, settings)
    with computing_on(scheduler):
        opened = trusted_run(source or store, chosen.run, trust, device=chosen.device)
        if source is not None:
            opened = opened.apply(
                store, name=name, roi=roi, overwrite=overwrite, device=chosen.device
            )
        opened.encode(overwrite=overwrite, config=chosen)
    say(f"latents of run {opened.name!r} are in {store}; open it with xarray.open_zarr({store!r})")


@app.command()
@with_settings(config.ReconstructConfig, without=("out", "roi"), has_roi=True)
def reconstruct(
    store: Store,
    *,
    settings: Given,
    roi: Any,
    file: Annotated[
        list[Path] | None,
        typer.Option(help="single file instead of the store's samples; repeatable"),
    ] = None,
    variable: Annotated[
        bool, typer.Option("--variable", help="also write the reconstructions into the store")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="folder for pictures and tables")] = None,
    files: Annotated[
        bool, typer.Option("--files", help="--out: also write each reconstruction as a file")
    ] = False,
    binarise: Annotated[
        float | None, typer.Option(help="value from which on binary.png in --out is white")
    ] = None,
    trust: Trust = None,
    overwrite: Overwrite = False,
) -> None:
    """Reconstruct a store's samples, or single files, and evaluate them: PSNR, SSIM, MSE, MAE,
    compression.

    Without --x, --y, --z, --where: the ROI of the run. --out writes reconstruction.png,
    metrics.csv, with --binarise binary.png, of volumes slices.png and slices.html; --files or
    --file also the folder files: PNG, NIfTI with its affine, or .npy.
    """
    refuse(files and out is None, "--files needs a folder, so give one with --out.")
    settings |= given(roi=roi, out="variable" if variable else None)
    chosen = resolved(config.ReconstructConfig, None, settings)
    opened = trusted_run(store, chosen.run, trust, device=chosen.device)
    with folder_of(out) as folder:
        inner = folder / "files" if folder and (files or file) else None
        found = opened.reconstruct(file or (), folder=inner, overwrite=overwrite, config=chosen)
        if folder:
            write_reconstructions(found, folder, binarise)
    print_lines(va.describe(found))


def write_reconstructions(found: Any, folder: Path, binarise: float | None) -> None:
    """Write metrics and pictures of reconstructions."""
    from vaearr.run.reconstruct import metrics_csv
    from vaearr.views import save
    from vaearr.views.volumes import is_volume, volume_page

    (folder / "metrics.csv").write_text(metrics_csv(found), encoding="utf-8")
    if not found.sizes.get("example"):
        return
    save(found, folder / "reconstruction.png")
    if binarise is not None:
        save(found, folder / "binary.png", threshold=binarise)
    if is_volume(found["input"]):
        save(found, folder / "slices.png", kind="volumes")
        (folder / "slices.html").write_text(volume_page(found), encoding="utf-8")


@app.command()
@with_settings(config.AssociateConfig, flags={"quantiles": "--quantiles"})
def associate(
    store: Store,
    *,
    settings: Given,
    significance: Annotated[
        bool, typer.Option("--significance", help="p-values from surrogate maps")
    ] = False,
    reference: Annotated[
        str | None, typer.Option(help="also: clusters of each dimension against those of this map")
    ] = None,
    k_max: Annotated[
        int, typer.Option(min=2, help="--reference: largest number of clusters of a dimension")
    ] = 12,
    top: Annotated[int, typer.Option(min=1, help="dimensions to list per target")] = 3,
    scheduler: Scheduler = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare latent dimensions with band contrast, elements and phases."""
    if significance:
        settings = over({"significance": {}}, settings)
    chosen = resolved(config.AssociateConfig, None, settings)
    opened = va.load_run(store, chosen.run)
    groups = None
    with computing_on(scheduler):
        if reference:  # an unknown one is refused before work
            groups = opened.partitions(
                reference, k_max=k_max, name=chosen.name, overwrite=overwrite
            )
        print_lines(va.describe(opened.associate(config=chosen, overwrite=overwrite), top))
    if groups is not None:
        print_lines(va.describe(groups, top))


@app.command()
@with_settings(ProbeConfig)
def probe(store: Store, *, settings: Given, overwrite: Overwrite = False) -> None:
    """Predict maps from latents, evaluated on points, grains or subjects that were left out."""
    chosen = resolved(ProbeConfig, None, settings)
    print_lines(
        va.describe(va.load_run(store, chosen.run).probe(config=chosen, overwrite=overwrite))
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


@app.command()
@with_settings(config.ClusterConfig)
def cluster(store: Store, *, settings: Given, overwrite: Overwrite = False) -> None:
    """Group scan points by latents and maps, and write the cluster map."""
    chosen = resolved(config.ClusterConfig, None, settings)
    found = va.load_run(store, chosen.run).cluster(config=chosen, overwrite=overwrite)
    print_lines(va.describe(found))
    if "ari" in found:
        scores = ", ".join(f"{name} {float(found[name]):.3f}" for name in SCORES)
        print_lines([f"agreement with the phases at {found.attrs['n_scored']} points: {scores}"])
    say(f"labels are in {store} as {chosen.name!r}")


@app.command()
def judge(
    store: Store,
    run: RunName = DEFAULT_RUN,
    count: Annotated[int, typer.Option("--n", min=1, help="number of generated samples")] = 1000,
    source: Annotated[str, typer.Option(help=SOURCE)] = "prior",
    weights: Annotated[
        Path | None,
        typer.Option(
            help="weights of an image network whose features are compared; default: latents"
        ),
    ] = None,
    part: Annotated[
        str, typer.Option(help="data to compare with: validation, train or all")
    ] = "validation",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="folder for fidelity.csv")] = None,
    device: Device = "auto",
    trust: Trust = None,
) -> None:
    """Compare generated samples with the data by Fréchet distances; needs the extra vaearr[monai]."""
    opened = trusted_run(store, run, trust, device=device)
    fidelity = opened.fidelity(count, source=source, weights=weights, part=part, seed=seed)
    with folder_of(out) as folder:
        if folder:
            table = fidelity[["frechet", "n", "n_reference"]].to_dataframe()
            table.to_csv(
                folder / "fidelity.csv",
                columns=["frechet", "n", "n_reference"],
                index_label="compared",
            )
    print_lines(va.describe(fidelity))


@app.command()
def explore(
    store: Store,
    run: RunName = DEFAULT_RUN,
    port: Annotated[int, typer.Option(min=0, help="port; 0 takes a free one")] = 0,
    host: Annotated[
        str, typer.Option(help="address; any other than 127.0.0.1 opens the store to the network")
    ] = "127.0.0.1",
    show: Annotated[
        bool, typer.Option("--show/--no-show", help="open the page in the browser")
    ] = True,
    save: Annotated[
        Path | None, typer.Option(help="serve nothing; write one .html file that works offline")
    ] = None,
    seed: Seed = 0,
    trust: Trust = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="--save: replace the file")
    ] = False,
) -> None:
    """Explore a run in the browser: click a map, move the latents, see what is decoded. Nothing is
    written.
    """
    opened = trusted_run(store, run, trust)
    if save is not None:
        page = opened.explore(save=save, seed=seed, overwrite=overwrite)
        say(f"written: {page} ({page.stat().st_size / 1e6:.1f} MB)")
        return
    opened.explore(port=port, host=host, show=show)


@app.command()
def report(
    store: Store,
    run: RunName = DEFAULT_RUN,
    out: Annotated[
        Path | None, typer.Option(help="folder of the report; default: <store>.reports/<run>")
    ] = None,
    trust: Trust = None,
) -> None:
    """Write one self-contained HTML page about a run, and PNGs of its main views."""
    say(f"the report is {trusted_run(store, run, trust).report(out)}")


@app.command()
def export(
    store: Store,
    out: Annotated[Path, typer.Argument(help="folder to write into")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="csv, parquet, npy, png, pdf, or seed0: the files of the earlier programs",
        ),
    ] = "csv",
    run: RunName = DEFAULT_RUN,
    variable: Annotated[
        list[str] | None,
        typer.Option(help="tables: further column; pictures: map to draw; repeatable"),
    ] = None,
    latent: Annotated[
        list[int] | None, typer.Option(help="latent dimension; default: all; repeatable")
    ] = None,
) -> None:
    """Write latents, tables, pictures or the files of the earlier programs into a folder."""
    opened = va.load_run(store, run)
    format_name: Any = format_
    folder = opened.export(out, format_name, variables=variable or (), latents=latent or ())
    say(f"files are in {folder}")


@app.command()
def run(
    name: Annotated[
        str, typer.Argument(help="flow, such as train-vae; an unknown name lists them all")
    ],
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--param",
            help="NAME=VALUE, a value in JSON or plain; NAME.SETTING=VALUE for a single one",
        ),
    ] = None,
) -> None:
    """Run a flow in this process, recorded by the Prefect server where one is configured
    (PREFECT_API_URL).
    """
    flows = import_module(
        "vaearr.flows.by_name"
    )  # by name: nothing else in vaearr imports the flows
    flows.run(name, nested_values(parameters or (), "-p"))
