"""The steps of an analysis, from a file to its report: each an option for every setting, made from the config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaearr.cli.common import (
    BoxX,
    BoxY,
    BoxZ,
    Condition,
    DaskWorkers,
    Overwrite,
    RunName,
    Store,
    app,
    bar,
    folder_of,
    print_lines,
    region,
    say,
    with_settings,
)
from vaearr.config import (
    AssociateConfig,
    ClusterConfig,
    EmbedConfig,
    EncodeConfig,
    ExportConfig,
    ImportConfig,
    IngestConfig,
    ReconstructConfig,
    ReportConfig,
    TrainConfig,
    over,
    resolved,
)
from vaearr.errors import UsageError
from vaearr.names import BC, DEFAULT_RUN
from vaearr.presets import PRESETS, check_preset, preset_settings

if TYPE_CHECKING:
    import xarray as xr

Given = dict[str, Any]


@app.command()
@with_settings(IngestConfig, phase_names="--phase", classes="--class")
def ingest(
    source: Annotated[Path, typer.Argument(help="file, image folder or zarr store to read, for example scan.h5")],
    store: Annotated[str, typer.Argument(help="store to make, for example stores/scan.zarr")],
    given: Given,
    bc: Annotated[Path | None, typer.Option("--bc", help="CSV with x, y, band contrast")] = None,
    dask: DaskWorkers = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a scan file (HDF5, vendor formats), an image folder, digits or NIfTI volumes into a store."""
    from vaearr.ingestion import ingest as run_ingest

    if bc and BC in given.get("maps", {}):
        raise UsageError(f"--bc and --map {BC} are the same map; give one of them.")
    given = over(given, {"maps": {BC: bc}}) if bc else given
    with bar("reading") as progress:
        run_ingest(source, store, dask=dask, overwrite=overwrite, say=say, progress=progress, **given)
    say(f"{store} is ready; look at it with 'vaearr info {store}'")


@app.command()
@with_settings(TrainConfig)
def train(
    store: Store,
    given: Given,
    run: RunName = DEFAULT_RUN,
    x: BoxX = None,
    y: BoxY = None,
    z: BoxZ = None,
    where: Condition = None,
    points: Annotated[
        Path | None, typer.Option(help="ROI as a CSV with x, y of the points, see 'vaearr look contrast --keep'")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"settings that go together, which all others replace: {', '.join(PRESETS)}")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="checkpoint file to go on from")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="throw an interrupted training of this run away")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a VAE on a store's patterns; after an interruption, go on where it was.

    The ROI, where none of --x, --y, --z, --where, --points is given: that of the run 'vae' if there is one, else every
    measured point.
    """
    from vaearr.run.train import train as run_train
    from vaearr.schema import input_shape
    from vaearr.side_maps import read_kept_coordinates
    from vaearr.store import open_store

    base = preset_settings(preset) if preset else {}
    roi: Any = region(x, y, z, where)
    if preset:
        check_preset(preset, len(input_shape(open_store(store, chunks=None))) - 1)
    if points:
        if roi is not None:
            raise UsageError("--points lists the points of the ROI; leave out --x, --y, --z and --where.")
        roi = read_kept_coordinates(open_store(store, chunks=None), points)
    settings = resolved(TrainConfig, None, over(base, given))
    with bar("training") as progress:

        def on_epoch(epoch: int, row: dict[str, float]) -> None:
            text = f"loss {row['loss']:.1f}" + (f", validation {row['val_loss']:.1f}" if "val_loss" in row else "")
            progress(epoch + 1, settings.epochs, f"training, {text} nats per sample")

        result = run_train(
            store, run=run, roi=roi, config=settings, resume=resume, restart=restart, overwrite=overwrite, say=say,
            on_epoch=on_epoch,
        )  # fmt: skip
    health = result.health.attrs
    say(
        f"run {run!r}: best epoch {result.manifest['best_epoch']} of {result.manifest['epochs_run']}, "
        f"{health['n_active']} of {settings.model.latent_dim} latent dimensions active, "
        f"{health['explained_variance']:.1%} of the patterns' variance, noise included, explained"
    )
    say(f"next: 'vaearr encode {store} --run {run}'")


@app.command("import")
@with_settings(ImportConfig)
def import_model(
    store: Store,
    checkpoint: Annotated[Path, typer.Argument(help="model folder of a run, or .safetensors, .pt, .pth or .ckpt file")],
    run: Annotated[str, typer.Option("--run", help="name of the run that the model becomes")],
    given: Given,
) -> None:
    """Make a model trained elsewhere, by vaearr or as Stable Diffusion's VAE, a run of a store.

    A model folder of vaearr's brings its settings and background. Of other checkpoints, of which nothing is unpickled,
    the options come from the shapes of the weights; --set options.groups=16 and the like replace single ones.
    """
    from vaearr.importing import import_model as run_import

    result = run_import(store, checkpoint, run=run, say=say, **given)
    health = result.health.attrs
    say(
        f"run {run!r}: {health['n_active']} of {result.health.sizes['latent']} latent dimensions active, "
        f"{health['explained_variance']:.1%} of the patterns' variance explained"
    )
    say(f"next: 'vaearr encode {store} --run {run}'")


@app.command()
@with_settings(EncodeConfig)
def encode(
    store: Store,
    given: Given,
    source: Annotated[
        str | None, typer.Option("--from", help="another store, whose run is taken to these data as it was trained")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="with --from: what the run is called here; default: its name there")
    ] = None,
    x: BoxX = None,
    y: BoxY = None,
    z: BoxZ = None,
    where: Condition = None,
    dask: DaskWorkers = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a run's latents into the store; with --from, those of a model that was trained in another store.

    The ROI is chosen with --from only; else it is that of the run.
    """
    from vaearr.run.encode import encode as run_encode
    from vaearr.store import as_url

    with bar("encoding") as progress:
        roi = region(x, y, z, where)
        run_encode(
            store,
            source=source,
            name=name,
            roi=roi,
            dask=dask,
            overwrite=overwrite,
            say=say,
            on_block=progress,
            **given,
        )
    opens = "vaearr.open_store" if as_url(store) else "xarray.open_zarr"
    say(f"latents of run {name or given.get('run', DEFAULT_RUN)!r} are in {store}; open it with {opens}({store!r})")


@app.command()
@with_settings(ReconstructConfig, "out", "roi")
def reconstruct(
    store: Store,
    given: Given,
    file: Annotated[list[Path] | None, typer.Option(help="single file instead of the store's samples; repeat")] = None,
    x: BoxX = None,
    y: BoxY = None,
    z: BoxZ = None,
    where: Condition = None,
    variable: Annotated[bool, typer.Option("--variable", help="also write the reconstructions into the store")] = False,
    out: Annotated[Path | None, typer.Option(help="folder to write pictures and tables into")] = None,
    files: Annotated[bool, typer.Option("--files", help="also write each reconstruction as a file into --out")] = False,
    binarise: Annotated[float | None, typer.Option(help="value from which on binary.png in --out is white")] = None,
    dtype: Annotated[str | None, typer.Option(help="of NIfTI and .npy: float32 (default) or source")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Reconstruct a store's samples, or single files, and judge them: PSNR, SSIM, MSE, MAE, compression.

    Without --x, --y, --z, --where: the region of the run. --out writes reconstruction.png, metrics.csv, with --binarise
    binary.png, of volumes slices.png and slices.html; --files or --file also the folder files: PNG, NIfTI with its
    affine, or .npy.
    """
    from vaearr.run.reconstruct import (
        file_lines,
        metrics_csv,
        reconstruct_files,
        reconstruct_store,
        reconstruction_lines,
    )

    if binarise is not None and out is None:
        raise UsageError("--binarise is of a picture; give its folder with --out.")
    if files and out is None:
        raise UsageError("--files needs a folder, so give one with --out.")
    if dtype is not None and not (out is not None and (files or file)):
        raise UsageError("--dtype is of written files; give --out FOLDER, with --files or --file, or leave it out.")
    roi, kept = region(x, y, z, where), {"dtype": dtype or "float32"}
    given |= ({"roi": roi} if roi else {}) | ({"out": "variable"} if variable else {})
    about: Any = {"config": resolved(ReconstructConfig, None, given), **kept}
    with folder_of(out) as folder:
        inner = folder / "files" if folder and (files or file) else None
        with bar("reconstructing") as progress:
            if file:
                found = reconstruct_files(store, file, out=inner, on_file=progress, **about)
            else:
                found = reconstruct_store(store, files=inner, overwrite=overwrite, say=say, on_block=progress, **about)
        if folder:
            (folder / "metrics.csv").write_text(metrics_csv(found), encoding="utf-8")
            _write_figures(found, folder, binarise)
    print_lines([*(file_lines(found) if file else ()), *reconstruction_lines(found)])


def _write_figures(found: xr.Dataset, folder: Path, binarise: float | None) -> None:
    from vaearr.views import save
    from vaearr.views.volumes import is_volume, volume_page

    if not found.sizes.get("example"):
        return
    save(found, folder / "reconstruction.png")
    if binarise is not None:
        save(found, folder / "binary.png", threshold=binarise)
    if is_volume(found["input"]):
        save(found, folder / "slices.png", kind="volumes")
        (folder / "slices.html").write_text(volume_page(found), encoding="utf-8")


@app.command()
@with_settings(AssociateConfig)
def associate(
    store: Store,
    given: Given,
    significance: Annotated[bool, typer.Option("--significance", help="p-values from surrogate maps")] = False,
    reference: Annotated[
        str | None, typer.Option(help="also: clusters of each dimension against those of this map or these scores")
    ] = None,
    k_max: Annotated[int, typer.Option(help="most clusters of a dimension that --reference tries")] = 12,
    top: Annotated[int, typer.Option(help="dimensions to list per target")] = 3,
    dask: DaskWorkers = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare latent dimensions with band contrast, elements and phases."""
    from vaearr.association import associate_store, check_reference, partition_lines, partitions_store, top_lines
    from vaearr.store import open_store

    settings = resolved(AssociateConfig, None, over({"significance": {}} if significance else {}, given))
    if reference:
        check_reference(open_store(store, chunks=None), reference)
    print_lines(top_lines(associate_store(store, settings, dask=dask, overwrite=overwrite, say=say), top=top))
    if reference:
        found = partitions_store(store, settings, reference, k_max=k_max, overwrite=overwrite, say=say)
        print_lines(partition_lines(found, top=top))


@app.command()
@with_settings(ClusterConfig)
def cluster(store: Store, given: Given, overwrite: Overwrite = False) -> None:
    """Group scan points by latents and maps, and write the cluster map."""
    from vaearr.clustering import cluster_lines, cluster_store

    settings = resolved(ClusterConfig, None, given)
    print_lines(cluster_lines(cluster_store(store, settings, overwrite=overwrite, say=say), settings.name))
    say(f"labels are in {store} as {settings.name!r}")


@app.command()
@with_settings(EmbedConfig, n_components="--components", clusters="--clusters")
def embed(store: Store, given: Given, overwrite: Overwrite = False) -> None:
    """Decompose the patterns (PCA, NMF with fixed endmembers), beside the latents."""
    from vaearr.embedding import embed_lines, embed_store

    settings = resolved(EmbedConfig, None, given)
    with bar("embedding") as progress:
        ds = embed_store(store, settings, overwrite=overwrite, say=say, on_block=progress)
    print_lines(embed_lines(ds, settings.name or settings.method))


@app.command()
@with_settings(ReportConfig)
def report(store: Store, given: Given) -> None:
    """Write one self-contained HTML page about a run, and PNGs of its main views."""
    from vaearr.reporting import report as run_report

    say(f"the report is {run_report(store, **given)}")


@app.command()
@with_settings(ExportConfig, latent="--beside")
def export(store: Store, out: Annotated[Path, typer.Argument(help="folder to write into")], given: Given) -> None:
    """Write latents, tables, pictures or the first seed's files into a folder."""
    from vaearr.exporting import export as run_export

    say(f"files are in {run_export(store, out, say=say, **given)}")
