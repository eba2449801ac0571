"""The commands in the order of the work: the demo, the steps from a file to its report, pages, flows.

Steps have an option for every setting, made from their config.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

import vaearr as va
from vaearr import config
from vaearr.cli.common import (
    SOURCE,
    Dask,
    Device,
    Folder,
    Given,
    Overwrite,
    RunName,
    Seed,
    Store,
    app,
    arg,
    folder_of,
    nested_values,
    opt,
    print_lines,
    refuse,
    say,
    tell,
    with_settings,
)
from vaearr.config import over, resolved
from vaearr.config.presets import PRESETS, check_preset, preset_settings
from vaearr.errors import DataError
from vaearr.names import BC, DEFAULT_RUN


@app.command()
def demo(
    folder: Annotated[Path, arg("where to put files, store and report")] = Path("stores/demo"),
    store: Annotated[str | None, opt("another place for the store, such as s3://bucket/scan.zarr")] = None,
) -> None:
    """Make a small EBSD scan from crystal geometry and take it all the way to a report."""
    from vaearr.cli.demo import run_demo

    print_lines(run_demo(folder, store=store))


@app.command()
@with_settings(config.IngestConfig, phase_names="--phase", classes="--class")
def ingest(
    source: Annotated[Path, arg("file, image folder or zarr store to read, for example scan.h5")],
    store: Annotated[str, arg("store to make, for example stores/scan.zarr")],
    given: Given,
    bc: Annotated[Path | None, opt("CSV with x, y, band contrast", "--bc")] = None,
    dask: Dask = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a scan file (HDF5, vendor formats), an image folder, digits or NIfTI volumes into a store."""
    refuse(bc and BC in given.get("maps", {}), f"--bc and --map {BC} are the same map; give one of them.")
    given = over(given, {"maps": {BC: bc}}) if bc else given
    va.ingest(source, store, dask=dask, overwrite=overwrite, **given)
    say(f"{store} is ready; look at it with 'vaearr info {store}'")


@app.command()
def attach(
    store: Store,
    file: Annotated[Path, arg(".npy, .npz or CSV with values computed elsewhere")],
    run: Annotated[str | None, opt("latents: name of the run they become", "--run")] = None,
    kind: Annotated[str, opt("latents, map, classes, elements or scores")] = "latents",
    name: Annotated[str | None, opt("the rest: name of the variable they become")] = None,
    coords: Annotated[Path | None, opt("CSV or .npy with x, y of each row")] = None,
    roi: Annotated[str | None, opt("run whose points the rows are, in row-major order")] = None,
    prefix: Annotated[str | None, opt("CSV: columns that begin with this")] = None,
    column: Annotated[list[str] | None, opt("CSV: column to take; repeatable")] = None,
    units: Annotated[str | None, opt("unit of the values")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Add latents or maps computed elsewhere, to be analysed like the store's own."""
    about: Given = {"kind": kind, "run": run, "name": name, "coords": coords, "roi": roi, "prefix": prefix}
    va.attach(store, file, columns=column or (), units=units, overwrite=overwrite, **about)


@app.command()
def info(
    store: Store,
    model: Annotated[bool, opt("the layers of a run's network instead", "--model")] = False,
    run: RunName = DEFAULT_RUN,
    out: Annotated[Path | None, opt("PNG or PDF: samples of each class, or with --model the network")] = None,
    seed: Seed = 0,
    as_json: Annotated[bool, opt("facts for programs", "--json")] = False,
) -> None:
    """Tell in words what is in a store, or what a run's network is made of; --out draws it."""
    from vaearr.models.card import as_record, model_card
    from vaearr.run.facts import in_words, store_facts

    if model:
        shown: Any = model_card(va.load_model(store, run))
        facts, words, how = as_record(shown), va.describe(shown, "network"), Given()
    else:
        facts, shown, how = store_facts(store), va.open_store(store, chunks=None), {"kind": "samples", "seed": seed}
        words = [in_words(facts)]
    if out:
        from vaearr.views import save

        say(f"{'the network is drawn' if model else 'samples are'} in {save(shown, out, **how)}")
    print_lines([json.dumps(facts, indent=2, default=str)] if as_json else words)


@app.command()
def verify(
    store: Store,
    as_json: Annotated[bool, opt("findings for programs", "--json")] = False,
    remove: Annotated[str | None, opt("take a variable that can be made again, a table or runs/NAME out")] = None,
    seal: Annotated[bool, opt("add checksums to variables that have none", "--seal")] = False,
    relist: Annotated[bool, opt("list the variables anew, put the store's attributes back", "--relist")] = False,
    clean: Annotated[bool, opt("list what killed commands left, older than a day", "--clean")] = False,
    unfinished: Annotated[bool, opt("--clean: also work that a command could go on with", "--unfinished")] = False,
    yes: Annotated[bool, opt("--clean: remove it", "--yes")] = False,
) -> None:
    """Check every file of a store; exit code 65 where it is damaged.

    One line for each finding says which variable and chunk it is and what to do.
    """
    from vaearr.store import check_store
    from vaearr.store import verify as verifying

    chosen = (remove is not None, seal, relist, clean)
    refuse(sum(chosen) > 1, "give --remove, --seal, --relist and --clean one at a time.")
    refuse((unfinished or yes) and not clean, "--yes and --unfinished are for --clean; add it.")
    if remove is not None:
        say(f"taken out of {store}: {', '.join(verifying.take_out(store, remove))}")
    elif seal:
        say(f"checksums added to {len(verifying.seal_store(store))} variables of {store}")
    elif relist:
        verifying.relist(store)
        say(f"the variables of {store} are listed anew")
    elif clean:
        found = (verifying.clean if yes else verifying.removable)(check_store(store), unfinished=unfinished)
        print_lines(f"{left.path}: {left.what}" for left in found)
        say(f"{len(found)} {'removed' if yes else 'to remove; the same with --yes removes them'}")
    else:
        result = verifying.verify_store(store)
        print_lines([json.dumps(result.record(), indent=2)] if as_json else verifying.in_words(result))
        if not result.is_healthy:
            raise typer.Exit(DataError.exit_code)


@app.command()
@with_settings(config.TrainConfig)
def train(
    store: Store,
    given: Given,
    roi: Any,
    run: RunName = DEFAULT_RUN,
    points: Annotated[Path | None, opt("ROI as a CSV with x, y, see 'vaearr look contrast --keep'")] = None,
    preset: Annotated[str | None, opt(f"settings that others replace: {', '.join(PRESETS)}")] = None,
    resume: Annotated[Path | None, opt("checkpoint file to go on from")] = None,
    restart: Annotated[bool, opt("throw an interrupted training of this run away", "--restart")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a VAE on a store's patterns; after an interruption, go on where it was.

    The ROI, where none of --x, --y, --z, --where, --points is given: that of the run 'vae' if there is one, else every
    measured point.
    """
    from vaearr.analysis.side_maps import read_kept_coordinates
    from vaearr.schema import input_shape

    refuse(points and roi, "--points lists the points of the ROI; leave out --x, --y, --z and --where.")
    if preset:
        given = over(preset_settings(preset), given)
        check_preset(preset, len(input_shape(va.open_store(store, chunks=None))) - 1)
    if points:
        roi = read_kept_coordinates(va.open_store(store, chunks=None), points)
    settings = resolved(config.TrainConfig, None, given)
    about: Given = {"resume": resume, "restart": restart, "overwrite": overwrite}
    _tell_run(store, va.train(store, run=run, roi=roi, config=settings, **about))


def _tell_run(store: str, run: Any) -> None:
    about, health = run.manifest, run.health.attrs
    epochs = f"best epoch {about['best_epoch']} of {about['epochs_run']}, " if "epochs_run" in about else ""
    say(
        f"run {run.name!r}: {epochs}{health['n_active']} of {run.health.sizes['latent']} latent dimensions active, "
        f"{health['explained_variance']:.1%} of the patterns' variance, noise included, explained"
    )
    say(f"next: 'vaearr encode {store} --run {run.name}'")


@app.command("import")
@with_settings(config.ImportConfig)
def import_model(
    store: Store,
    checkpoint: Annotated[Path, arg("model folder of a run, or .safetensors, .pt, .pth or .ckpt file")],
    run: Annotated[str, opt("name of the run that the model becomes", "--run")],
    given: Given,
    overwrite: Overwrite = False,
) -> None:
    """Make a model trained elsewhere, by vaearr or as Stable Diffusion's VAE, a run of a store.

    A model folder of vaearr's brings its settings and background. Of other checkpoints, of which nothing is unpickled,
    the options come from the shapes of the weights; --set options.groups=16 and the like replace single ones.
    """
    _tell_run(store, va.import_model(store, checkpoint, run=run, overwrite=overwrite, **given))


@app.command()
@with_settings(config.EncodeConfig)
def encode(
    store: Store,
    given: Given,
    roi: config.RoiConfig | None,
    source: Annotated[str | None, opt("another store, whose run is taken to these data", "--from")] = None,
    name: Annotated[str | None, opt("with --from: what the run is called here; default: its name there")] = None,
    dask: Dask = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a run's latents into the store; with --from, those of a model that was trained in another store.

    The ROI is chosen with --from only; else it is that of the run.
    """
    about: Given = {"source": source, "name": name, "roi": roi, "dask": dask, "overwrite": overwrite}
    va.encode(store, **about, **given)
    opens = "vaearr.open_store" if "://" in store else "xarray.open_zarr"
    say(f"latents of run {name or given.get('run', DEFAULT_RUN)!r} are in {store}; open it with {opens}({store!r})")


@app.command()
@with_settings(config.ReconstructConfig, "out", "roi")
def reconstruct(
    store: Store,
    given: Given,
    roi: config.RoiConfig | None,
    file: Annotated[list[Path] | None, opt("single file instead of the store's samples; repeat")] = None,
    variable: Annotated[bool, opt("also write the reconstructions into the store", "--variable")] = False,
    out: Folder = None,
    files: Annotated[bool, opt("also write each reconstruction as a file into --out", "--files")] = False,
    binarise: Annotated[float | None, opt("value from which on binary.png in --out is white")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Reconstruct a store's samples, or single files, and judge them: PSNR, SSIM, MSE, MAE, compression.

    Without --x, --y, --z, --where: the region of the run. --out writes reconstruction.png, metrics.csv, with --binarise
    binary.png, of volumes slices.png and slices.html; --files or --file also the folder files: PNG, NIfTI with its
    affine, or .npy.
    """
    refuse(files and out is None, "--files needs a folder, so give one with --out.")
    given |= ({"roi": roi} if roi else {}) | ({"out": "variable"} if variable else {})
    about: Given = {"config": resolved(config.ReconstructConfig, None, given)}
    with folder_of(out) as folder:
        inner = folder / "files" if folder and (files or file) else None
        if file:
            found = va.reconstruct_files(store, file, out=inner, **about)
        else:
            found = va.reconstruct_store(store, files=inner, overwrite=overwrite, **about)
        if folder:
            _write_reconstructions(found, folder, binarise)
    print_lines(va.describe(found, "reconstruction"))


def _write_reconstructions(found: Any, folder: Path, binarise: float | None) -> None:
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
@with_settings(config.AssociateConfig)
def associate(
    store: Store,
    given: Given,
    significance: Annotated[bool, opt("p-values from surrogate maps", "--significance")] = False,
    reference: Annotated[str | None, opt("also: clusters of each dimension against this map's")] = None,
    k_max: Annotated[int, opt("most clusters of a dimension that --reference tries")] = 12,
    top: Annotated[int, opt("dimensions to list per target")] = 3,
    dask: Dask = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare latent dimensions with band contrast, elements and phases."""
    from vaearr.analysis.association import check_reference, partitions_store

    settings = resolved(config.AssociateConfig, None, over({"significance": {}} if significance else {}, given))
    if reference:
        check_reference(va.open_store(store, chunks=None), reference)
    found = va.associate_store(store, settings, dask=dask, overwrite=overwrite)
    print_lines(va.describe(found, "association", top=top))
    if reference:
        groups = partitions_store(store, settings, reference, k_max=k_max, overwrite=overwrite)
        print_lines(va.describe(groups, "partitions", top=top))


@app.command()
@with_settings(config.ClusterConfig)
def cluster(store: Store, given: Given, overwrite: Overwrite = False) -> None:
    """Group scan points by latents and maps, and write the cluster map."""
    settings = resolved(config.ClusterConfig, None, given)
    found = va.cluster_store(store, settings, overwrite=overwrite)
    print_lines(va.describe(found, "clusters", name=settings.name))
    say(f"labels are in {store} as {settings.name!r}")


@app.command()
@with_settings(config.EmbedConfig, n_components="--components", clusters="--clusters")
def embed(store: Store, given: Given, overwrite: Overwrite = False) -> None:
    """Decompose the patterns (PCA, NMF with fixed endmembers), beside the latents."""
    settings = resolved(config.EmbedConfig, None, given)
    found = va.embed_store(store, settings, overwrite=overwrite)
    print_lines(va.describe(found, "decomposition", name=settings.name or settings.method))


@app.command()
def judge(
    store: Annotated[Path | None, arg("zarr store; not with --key")] = None,
    run: RunName = DEFAULT_RUN,
    count: Annotated[int | None, opt("draws; default 1000, --blinded: 25 and as many real", "--n")] = None,
    source: Annotated[str, opt(SOURCE)] = "prior",
    features: Annotated[str, opt("latents, encoder or image (with --weights)")] = "latents",
    weights: Annotated[Path | None, opt("weights of an image network, for --features image")] = None,
    part: Annotated[str, opt("data to compare with: validation, train or all")] = "validation",
    seed: Seed = 0,
    out: Annotated[Path | None, opt("folder for fidelity.csv and nearest.csv")] = None,
    blinded: Annotated[Path | None, opt("write real and drawn files for a reader into this folder")] = None,
    key: Annotated[Path | None, opt("key.csv of a blinded set; with --answers, without a store")] = None,
    answers: Annotated[Path | None, opt("the reader's CSV file with name, answer")] = None,
    device: Device = "auto",
) -> None:
    """Judge draws: how like the data they are, whether they are copies, whether a reader can tell them apart.

    STORE alone prints Fréchet distances and the distance to the nearest training sample. --blinded writes
    images/ for the reader, answers.csv to fill, and key.csv to keep. --key with --answers prints the reader's score.
    """
    is_score = key is not None or answers is not None
    words = "give a store to judge, or --key with --answers, without a store, to score a reader."
    refuse(is_score is (store is not None) or (key is None) is not (answers is None), words)
    refuse(blinded and out, "--out is for tables of numbers; --blinded says itself where its files go.")
    if key is not None and answers is not None:
        print_lines(va.describe(va.score_blinded(key, answers), "score"))
        return
    assert store is not None
    about: Given = {"source": source, "seed": seed, "device": device}
    if blinded is not None:
        size = 25 if count is None else count
        va.blinded_set(store, run, blinded, n_real=size, n_drawn=size, part=part, **about)
        typer.echo(f"{2 * size} files for the reader are in {blinded / 'images'}; {blinded / 'key.csv'} is the key")
        return
    about["n_samples"] = 1000 if count is None else count
    fidelity = va.sample_fidelity(store, run, features=features, weights=weights, part=part, **about)
    nearest = va.nearest_training(store, run, **about)
    with folder_of(out) as folder:
        if folder:
            fidelity[["frechet", "n", "n_reference"]].to_dataframe().to_csv(
                folder / "fidelity.csv", columns=["frechet", "n", "n_reference"], index_label="compared"
            )
            places = [str(name) for name in nearest.coords if str(name).startswith("nearest_")]
            nearest["distance"].to_dataframe().to_csv(folder / "nearest.csv", columns=["distance", *places])
    print_lines([*va.describe(fidelity, "fidelity"), *va.describe(nearest, "nearest")], warnings_aside=True)


@app.command()
def explore(
    store: Store,
    run: RunName = DEFAULT_RUN,
    port: Annotated[int, opt("port; 0 takes a free one")] = 0,
    host: Annotated[str, opt("address; another than 127.0.0.1 opens the store to the network")] = "127.0.0.1",
    show: Annotated[bool, opt("open the page in the browser", "--show/--no-show")] = True,
    save: Annotated[Path | None, opt("serve nothing; write one .html file that works offline")] = None,
    by: Annotated[str | None, opt("with --save: map with the classes; default: label, phase or clusters")] = None,
    seed: Seed = 0,
    overwrite: Annotated[bool, opt("with --save: replace the file")] = False,
) -> None:
    """Explore a run in the browser: click a map, move the latents, see what is decoded. The store stays as it is."""
    if save is not None:
        from vaearr.app.saved import save_page

        written = save_page(store, run, save, by=by, seed=seed, overwrite=overwrite)
        tell(f"written: {written} ({written.stat().st_size / 1e6:.1f} MB)")
        return
    from vaearr.app.serve import explore as serve_page

    serve_page(store, run, port=port, host=host, show=show)


@app.command()
@with_settings(config.ReportConfig)
def report(store: Store, given: Given) -> None:
    """Write one self-contained HTML page about a run, and PNGs of its main views."""
    say(f"the report is {va.report(store, **given)}")


@app.command()
@with_settings(config.ExportConfig, latent="--beside")
def export(store: Store, out: Annotated[Path, arg("folder to write into")], given: Given) -> None:
    """Write latents, tables, pictures or the first seed's files into a folder."""
    say(f"files are in {va.export(store, out, **given)}")


def serving() -> Any:
    """The flows, by name: nothing else in vaearr imports them, they call vaearr."""
    return import_module("vaearr.flows.serving")


PARAMETER = "NAME=VALUE, a value in JSON or plain; NAME.SETTING=VALUE for a single one"


@app.command()
def run(
    name: Annotated[str, arg("flow, such as train-vae; an unknown name lists them all")],
    parameters: Annotated[list[str] | None, opt(PARAMETER, "-p", "--param")] = None,
    watch: Annotated[bool, opt("follow a run on a server to its end", "--watch")] = False,
    here: Annotated[bool, opt("run in this process even where a server is configured", "--here")] = False,
) -> None:
    """Run a flow: on the Prefect server that is configured (PREFECT_API_URL), else right here without any."""
    given = nested_values(parameters or (), "-p")
    serving().run(name, given, watch=watch, here=here)


@app.command()
def serve(
    names: Annotated[list[str] | None, arg("flows to serve; default: all")] = None,
    limit: Annotated[int, opt("flow runs at a time")] = 1,
) -> None:
    """Register all flows with the configured Prefect server and run what is asked of them, until stopped."""
    serving().serve(names, limit=limit)
