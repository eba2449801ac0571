"""The commands in the order of the work: the demo, the steps from a file to its report, pages, flows.

Steps have an option for every setting, made from their config.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

import vaearr as va
from vaearr import config
from vaearr.cli.common import Given, command, folder_of, nested_values, print_lines, refuse, say, tell, trusted_run
from vaearr.config import over, resolved
from vaearr.config.presets import check_preset, preset_settings
from vaearr.config.probes import ProbeConfig
from vaearr.errors import DataError
from vaearr.names import BC, DEFAULT_RUN


@command()
def demo(folder: Path = Path("stores/demo"), store: str | None = None) -> None:
    """Make a small EBSD scan from crystal geometry and take it all the way to a report.

    Args:
        folder (argument): where to put files, store and report
        store: another place for the store, such as s3://bucket/scan.zarr
    """
    from vaearr.cli.demo import run_demo

    print_lines(run_demo(folder, store=store))


@command(config.IngestConfig, phase_names="--phase", classes="--class")
def ingest(
    source: Path, store: str, given: Given, bc: Path | None = None, dask: str | None = None, overwrite: bool = False
) -> None:
    """Turn a scan file (HDF5, vendor formats), an image folder, digits or NIfTI volumes into a store.

    Args:
        source: file, image folder or zarr store to read, for example scan.h5
        store: store to make, for example stores/scan.zarr
        bc: CSV with x, y, band contrast
    """
    refuse(bc and BC in given.get("maps", {}), f"--bc and --map {BC} are the same map; give one of them.")
    given = over(given, {"maps": {BC: bc}}) if bc else given
    va.ingest(source, store, dask=dask, overwrite=overwrite, **given)
    say(f"{store} is ready; look at it with 'vaearr info {store}'")


@command()
def attach(
    store: str,
    file: Path,
    run: str | None = None,
    kind: str = "latents",
    name: str | None = None,
    coords: Path | None = None,
    roi: str | None = None,
    prefix: str | None = None,
    column: list[str] | None = None,
    units: str | None = None,
    overwrite: bool = False,
) -> None:
    """Add latents or maps computed elsewhere, to be analysed like the store's own.

    Args:
        file: .npy, .npz or CSV with values computed elsewhere
        run: latents: name of the run they become
        kind: latents, map, classes, elements or scores
        name: the rest: name of the variable they become
        coords: CSV or .npy with x, y of each row
        roi: run whose points the rows are, in row-major order
        prefix: CSV: columns that begin with this
        column: CSV: column to take; repeatable
        units: unit of the values
    """
    about: Given = {"kind": kind, "run": run, "name": name, "coords": coords, "roi": roi, "prefix": prefix}
    va.attach(store, file, columns=column or (), units=units, overwrite=overwrite, **about)


@command()
def info(
    store: str,
    model: bool = False,
    run: str = DEFAULT_RUN,
    out: Path | None = None,
    seed: int = 0,
    trust: list[str] | None = None,
    as_json: bool = False,
) -> None:
    """Tell in words what is in a store, or what a run's network is made of; --out draws it.

    Args:
        model: the layers of a run's network instead
        out: PNG or PDF: samples of each class, or with --model the network
        as_json (--json): facts for programs
    """
    if model:
        from vaearr.models.card import as_record, model_card

        shown: Any = model_card(trusted_run(store, run, trust).model)
        facts, words, how = as_record(shown), va.describe(shown, "network"), Given()
    else:
        from vaearr.run.facts import in_words, store_facts

        facts, shown, how = store_facts(store), va.open_store(store, chunks=None), {"kind": "samples", "seed": seed}
        words = [in_words(facts)]
    if out:
        from vaearr.views import save

        say(f"{'the network is drawn' if model else 'samples are'} in {save(shown, out, **how)}")
    print_lines([json.dumps(facts, indent=2, default=str)] if as_json else words)


@command()
def verify(
    store: str,
    as_json: bool = False,
    remove: str | None = None,
    seal: bool = False,
    relist: bool = False,
    clean: bool = False,
    unfinished: bool = False,
    yes: bool = False,
) -> None:
    """Check every file of a store; exit code 65 where it is damaged.

    One line for each finding says which variable and chunk it is and what to do.

    Args:
        as_json (--json): findings for programs
        remove: take a variable that can be made again, a table or runs/NAME out
        seal: add checksums to variables that have none
        relist: list the variables anew, put the store's attributes back
        clean: list what killed commands left, older than a day
        unfinished: --clean: also work that a command could go on with
        yes: --clean: remove it
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


@command(config.TrainConfig)
def train(
    store: list[str],
    given: Given,
    roi: Any,
    run: str = DEFAULT_RUN,
    points: Path | None = None,
    preset: str | None = None,
    resume: Path | None = None,
    restart: bool = False,
    trust: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Train a VAE on a store's patterns; after an interruption, go on where it was.

    Several stores train one model, which each of them gets as a run.

    The ROI, where none of --x, --y, --z, --where, --points is given: that of the run 'vae' if there is one, else every
    measured point.

    Args:
        points: ROI as a CSV with x, y, see 'vaearr look contrast --keep'
        preset: settings that others replace: sd, maisi, beta-vae or digits
        resume: checkpoint file to go on from
        restart: throw an interrupted training of this run away
    """
    from vaearr.analysis.side_maps import read_kept_coordinates
    from vaearr.schema import input_shape

    refuse(points and roi, "--points lists the points of the ROI; leave out --x, --y, --z and --where.")
    refuse(points and store[1:], "--points lists the points of one store; choose by --x, --y, --where for several.")
    if preset:
        given = over(preset_settings(preset), given)
        check_preset(preset, len(input_shape(va.open_store(store[0], chunks=None))) - 1)
    if points:
        roi = read_kept_coordinates(va.open_store(store[0], chunks=None), points)
    settings = resolved(config.TrainConfig, None, given)
    about: Given = {"resume": resume, "restart": restart, "trust": trust or (), "overwrite": overwrite}
    _tell_run(store[0], va.train(store if store[1:] else store[0], run=run, roi=roi, config=settings, **about))


def _tell_run(store: str, run: Any) -> None:
    about, health = run.manifest, run.health.attrs
    epochs = f"best epoch {about['best_epoch']} of {about['epochs_run']}, " if "epochs_run" in about else ""
    say(
        f"run {run.name!r}: {epochs}{health['n_active']} of {run.health.sizes['latent']} latent dimensions active, "
        f"{health['explained_variance']:.1%} of the patterns' variance, noise included, explained"
    )
    say(f"next: 'vaearr encode {store} --run {run.name}'")


@command(config.ImportConfig, name="import")
def import_model(
    store: str,
    checkpoint: Path,
    run: str,
    given: Given,
    trust: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Make a model trained elsewhere, by vaearr or as Stable Diffusion's VAE, a run of a store.

    A model folder of vaearr's brings its settings and background. Of other checkpoints, of which nothing is unpickled,
    the options come from the shapes of the weights; --set options.groups=16 and the like replace single ones.

    Args:
        checkpoint: model folder of a run, or .safetensors, .pt, .pth or .ckpt file
        run (--run): name of the run that the model becomes
    """
    imported = va.import_model(store, checkpoint, run=run, trust=trust or (), overwrite=overwrite, **given)
    _tell_run(store, imported)


@command(config.EncodeConfig)
def encode(
    store: str,
    given: Given,
    roi: config.RoiConfig | None,
    source: str | None = None,
    name: str | None = None,
    dask: str | None = None,
    trust: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a run's latents into the store; with --from, those of a model that was trained in another store.

    The ROI is chosen with --from only; else it is that of the run.

    Args:
        source (--from): another store, whose run is taken to these data
        name: with --from: what the run is called here; default: its name there
    """
    about: Given = {"name": name, "roi": roi, "dask": dask, "overwrite": overwrite}
    run = given.get("run", DEFAULT_RUN)
    if source is None:
        va.encode(trusted_run(store, run, trust), **about, **given)
    else:
        va.encode(store, source=trusted_run(source, run, trust), **about, **given)
    opens = "vaearr.open_store" if "://" in store else "xarray.open_zarr"
    say(f"latents of run {name or run!r} are in {store}; open it with {opens}({store!r})")


@command(config.ReconstructConfig, "out", "roi")
def reconstruct(
    store: str,
    given: Given,
    roi: config.RoiConfig | None,
    file: list[Path] | None = None,
    variable: bool = False,
    out: Path | None = None,
    files: bool = False,
    binarise: float | None = None,
    trust: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Reconstruct a store's samples, or single files, and judge them: PSNR, SSIM, MSE, MAE, compression.

    Without --x, --y, --z, --where: the region of the run. --out writes reconstruction.png, metrics.csv, with --binarise
    binary.png, of volumes slices.png and slices.html; --files or --file also the folder files: PNG, NIfTI with its
    affine, or .npy.

    Args:
        file: single file instead of the store's samples; repeat
        variable: also write the reconstructions into the store
        files: also write each reconstruction as a file into --out
        binarise: value from which on binary.png in --out is white
    """
    refuse(files and out is None, "--files needs a folder, so give one with --out.")
    given |= ({"roi": roi} if roi else {}) | ({"out": "variable"} if variable else {})
    settings = resolved(config.ReconstructConfig, None, given)
    opened = trusted_run(store, settings.run, trust, device=settings.device)
    with folder_of(out) as folder:
        inner = folder / "files" if folder and (files or file) else None
        if file:
            found = va.reconstruct_files(opened, file, out=inner, config=settings)
        else:
            found = va.reconstruct_store(opened, files=inner, overwrite=overwrite, config=settings)
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


@command(config.AssociateConfig)
def associate(
    store: str,
    given: Given,
    significance: bool = False,
    reference: str | None = None,
    k_max: int = 12,
    top: int = 3,
    dask: str | None = None,
    overwrite: bool = False,
) -> None:
    """Compare latent dimensions with band contrast, elements and phases.

    Args:
        significance: p-values from surrogate maps
        reference: also: clusters of each dimension against this map's
        k_max: most clusters of a dimension that --reference tries
        top: dimensions to list per target
    """
    from vaearr.analysis.association import check_reference, partitions_store

    settings = resolved(config.AssociateConfig, None, over({"significance": {}} if significance else {}, given))
    if reference:
        check_reference(va.open_store(store, chunks=None), reference)
    found = va.associate_store(store, settings, dask=dask, overwrite=overwrite)
    print_lines(va.describe(found, "association", top=top))
    if reference:
        groups = partitions_store(store, settings, reference, k_max=k_max, overwrite=overwrite)
        print_lines(va.describe(groups, "partitions", top=top))


@command(ProbeConfig)
def probe(store: str, given: Given, overwrite: bool = False) -> None:
    """Tell how well maps are known from latents, judged at points, grains or subjects that were left out."""
    print_lines(va.describe(va.probe_store(store, overwrite=overwrite, **given), "probe"))


@command(config.ClusterConfig)
def cluster(store: str, given: Given, overwrite: bool = False) -> None:
    """Group scan points by latents and maps, and write the cluster map."""
    settings = resolved(config.ClusterConfig, None, given)
    found = va.cluster_store(store, settings, overwrite=overwrite)
    print_lines(va.describe(found, "clusters", name=settings.name))
    say(f"labels are in {store} as {settings.name!r}")


@command(config.EmbedConfig, n_components="--components", clusters="--clusters")
def embed(store: str, given: Given, trust: list[str] | None = None, overwrite: bool = False) -> None:
    """Decompose the patterns (PCA, NMF with fixed endmembers), beside the latents."""
    settings = resolved(config.EmbedConfig, None, given)
    found = va.embed_store(store, settings, trust=trust or (), overwrite=overwrite)
    print_lines(va.describe(found, "decomposition", name=settings.name or settings.method))


@command()
def judge(
    store: Path | None = None,
    run: str = DEFAULT_RUN,
    count: int | None = None,
    source: str = "prior",
    features: str = "latents",
    weights: Path | None = None,
    part: str = "validation",
    seed: int = 0,
    out: Path | None = None,
    blinded: Path | None = None,
    key: Path | None = None,
    answers: Path | None = None,
    device: str = "auto",
) -> None:
    """Judge draws: how like the data they are, whether they are copies, whether a reader can tell them apart.

    STORE alone prints Fréchet distances and the distance to the nearest training sample. --blinded writes
    images/ for the reader, answers.csv to fill, and key.csv to keep. --key with --answers prints the reader's score.

    Args:
        store (argument): zarr store; not with --key
        count (--n): draws; default 1000, --blinded: 25 and as many real
        features: latents, encoder or image (with --weights)
        weights: weights of an image network, for --features image
        part: data to compare with: validation, train or all
        out: folder for fidelity.csv and nearest.csv
        blinded: write real and drawn files for a reader into this folder
        key: key.csv of a blinded set; with --answers, without a store
        answers: the reader's CSV file with name, answer
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


@command()
def explore(
    store: str,
    run: str = DEFAULT_RUN,
    port: int = 0,
    host: str = "127.0.0.1",
    show: bool = True,
    save: Path | None = None,
    by: str | None = None,
    seed: int = 0,
    trust: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Explore a run in the browser: click a map, move the latents, see what is decoded. The store stays as it is.

    Args:
        port: port; 0 takes a free one
        host: address; another than 127.0.0.1 opens the store to the network
        show (--show/--no-show): open the page in the browser
        save: serve nothing; write one .html file that works offline
        by: with --save: map with the classes; default: label, phase or clusters
        overwrite: with --save: replace the file
    """
    opened = trusted_run(store, run, trust)
    if save is not None:
        from vaearr.app.saved import save_page

        written = save_page(opened, run, save, by=by, seed=seed, overwrite=overwrite)
        tell(f"written: {written} ({written.stat().st_size / 1e6:.1f} MB)")
        return
    from vaearr.app.serve import explore as serve_page

    serve_page(opened, run, port=port, host=host, show=show)


@command(config.ReportConfig)
def report(store: str, given: Given, trust: list[str] | None = None) -> None:
    """Write one self-contained HTML page about a run, and PNGs of its main views."""
    opened = trusted_run(store, given.get("run", DEFAULT_RUN), trust)
    say(f"the report is {va.report(opened, **given)}")


@command(config.ExportConfig, latent="--beside")
def export(store: str, out: Path, given: Given) -> None:
    """Write latents, tables, pictures or the first seed's files into a folder.

    Args:
        out: folder to write into
    """
    say(f"files are in {va.export(store, out, **given)}")


@command()
def run(name: str, parameters: list[str] | None = None) -> None:
    """Run a flow in this process, recorded by the Prefect server where one is configured (PREFECT_API_URL).

    Args:
        name: flow, such as train-vae; an unknown name lists them all
        parameters (-p --param): NAME=VALUE, a value in JSON or plain; NAME.SETTING=VALUE for a single one
    """
    flows = import_module("vaearr.flows.by_name")  # by name: nothing else in vaearr imports the flows
    flows.run(name, nested_values(parameters or (), "-p"))
