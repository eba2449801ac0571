"""Commands that tell what the latents mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaearr.cli.common import (
    ChosenRun,
    DaskWorkers,
    Overwrite,
    Sets,
    Settings,
    Store,
    app,
    bar,
    number_pairs,
    say,
    settings_from,
)
from vaearr.errors import UsageError
from vaearr.names import BC


@app.command()
def associate(
    store: Store,
    run: ChosenRun = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help='map, element, sum such as "Fe + 0.5*Ni", or "rgb(Fe, Ni)"; repeatable; default: all'),
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help="registered metric, or all; repeatable")] = None,
    variable: Annotated[str | None, typer.Option(help="pca, nmf … instead of the run's latents")] = None,
    significance: Annotated[bool, typer.Option("--significance", help="p-values from surrogate maps")] = False,
    reference: Annotated[
        str | None, typer.Option(help="also: clusters of each dimension against those of this map or these scores")
    ] = None,
    k_max: Annotated[int, typer.Option(help="most clusters of a dimension that --reference tries")] = 12,
    top: Annotated[int, typer.Option(help="dimensions to list per target")] = 3,
    name: Annotated[str | None, typer.Option(help="keep the table as association_NAME of the run")] = None,
    dask: DaskWorkers = None,
    overwrite: Overwrite = False,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Compare latent dimensions with band contrast, elements and phases."""
    from vaearr.association import associate_store, check_reference, partition_lines, partitions_store, top_lines
    from vaearr.config import AssociateConfig, SignificanceConfig
    from vaearr.store import open_store

    base = settings_from(AssociateConfig, config, sets)
    settings = base.replace(
        run=run,
        targets=target or None,
        metrics=metric or None,
        variable=variable,
        name=name,
        significance=(base.significance or SignificanceConfig()).to_attrs() if significance else None,
    )
    if reference:
        check_reference(open_store(store, chunks=None), reference)
    for line in top_lines(associate_store(store, settings, dask=dask, overwrite=overwrite, say=say), top=top):
        typer.echo(line)
    if reference:
        found = partitions_store(store, settings, reference, k_max=k_max, overwrite=overwrite, say=say)
        for line in partition_lines(found, top=top):
            typer.echo(line)


@app.command()
def cluster(
    store: Store,
    run: ChosenRun = None,
    method: Annotated[str | None, typer.Option(help="gmm, kmeans, dbscan or hdbscan")] = None,
    feature: Annotated[
        list[str] | None, typer.Option(help="variable to cluster by, such as latents, BC, pca; repeatable")
    ] = None,
    latent: Annotated[list[int] | None, typer.Option(help="latent dimension to use; repeatable; default: all")] = None,
    k: Annotated[int | None, typer.Option(help="number of clusters; default: the best of a range")] = None,
    name: Annotated[str | None, typer.Option(help="variable to write; default: clusters")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="seed of starts and sub-samples")] = None,
    overwrite: Overwrite = False,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Group scan points by latents and maps, and write the cluster map."""
    from vaearr.clustering import cluster_lines, cluster_store
    from vaearr.config import ClusterConfig

    settings = settings_from(ClusterConfig, config, sets).replace(
        run=run, method=method, features=feature or None, latents=latent or None, k=k, name=name, seed=seed
    )
    for line in cluster_lines(cluster_store(store, settings, overwrite=overwrite, say=say), settings.name):
        typer.echo(line)
    say(f"labels are in {store} as {settings.name!r}")


@app.command()
def embed(
    store: Store,
    run: ChosenRun = None,
    method: Annotated[str | None, typer.Option(help="pca or nmf")] = None,
    components: Annotated[int | None, typer.Option(help="number of components")] = None,
    name: Annotated[str | None, typer.Option(help="variable to write; default: the method's name")] = None,
    endmember: Annotated[
        list[str] | None, typer.Option(help="NMF: X:Y of a reference point, coordinate units; repeatable")
    ] = None,
    clusters: Annotated[str | None, typer.Option(help="NMF: map whose class means are the endmembers")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps")] = None,
    overwrite: Overwrite = False,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Decompose the patterns (PCA, NMF with fixed endmembers), beside the latents."""
    from vaearr.config import EmbedConfig
    from vaearr.embedding import embed_lines, embed_store

    settings = settings_from(EmbedConfig, config, sets).replace(
        run=run,
        method=method,
        n_components=components,
        name=name,
        endmembers=number_pairs(endmember, "--endmember") or None,
        clusters=clusters,
        device=device,
    )
    with bar("embedding") as progress:
        ds = embed_store(store, settings, overwrite=overwrite, say=say, on_block=progress)
    for line in embed_lines(ds, settings.name or settings.method):
        typer.echo(line)


@app.command()
def contrast(
    store: Store,
    variable: Annotated[str, typer.Option("--map", help="map to look at")] = BC,
    out: Annotated[Path | None, typer.Option(help="PNG or PDF with map, histogram and profiles")] = None,
    width: Annotated[float, typer.Option(help="width of a bin of the histogram")] = 10.0,
    row: Annotated[list[float] | None, typer.Option(help="profile along the row at this y; repeatable")] = None,
    column: Annotated[list[float] | None, typer.Option(help="profile along the column at this x; repeatable")] = None,
    top: Annotated[float | None, typer.Option(help="percent of the points with the largest values")] = None,
    where: Annotated[str | None, typer.Option(help='points by a condition, such as "BC >= 45"')] = None,
    keep: Annotated[Path | None, typer.Option(help="CSV to write the points of --top or --where to")] = None,
) -> None:
    """Histogram, profiles and kept points of band contrast or any other map."""
    from vaearr.errors import NoInputError, did_you_mean
    from vaearr.grid import roi as roi_of
    from vaearr.schema import maps
    from vaearr.side_maps import histogram, profile, top_percent, write_kept_coordinates
    from vaearr.store import open_store

    if keep and (top is None) == (where is None):
        raise UsageError("--keep writes the points of --top or of --where; give one of them.")
    ds = open_store(store, chunks=None)
    if variable not in maps(ds):
        raise NoInputError(f"{store} has no map {variable!r}.{did_you_mean(variable, maps(ds))}")
    da = ds[variable].load()
    counts = histogram(da, width)
    profiles = [profile(da, y=y) for y in row or ()] + [profile(da, x=x) for x in column or ()]
    typer.echo(f"{variable}: {counts.attrs['n']} points, {counts.attrs['n_missing']} missing")
    for left, count in zip(counts["bin"].values, counts["count"].values, strict=True):
        typer.echo(f"  {left:g} to below {left + width:g}: {count}")
    mask = None
    if top is not None:
        mask = top_percent(da, top)
        typer.echo(f"the strongest {top:g} %: {mask.attrs['n_kept']} points from {mask.attrs['threshold']:g} on")
    elif where is not None:
        mask = roi_of(ds, where=where)
        typer.echo(f"{where}: {mask.attrs['n']} points")
    if keep and mask is not None:
        say(f"their coordinates are in {write_kept_coordinates(ds, mask, keep)}")
    if out:
        from vaearr.views import save

        figure = save(da, out, kind="contrast", histogram=counts, profiles=profiles, roi=mask)
        say(f"the figure is {figure}")


@app.command()
def report(
    store: Store,
    run: ChosenRun = None,
    out: Annotated[Path | None, typer.Option(help="folder of the report; default: beside the store")] = None,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Write one self-contained HTML page about a run, and PNGs of its main views."""
    from vaearr.config import ReportConfig
    from vaearr.reporting import report as run_report

    settings = settings_from(ReportConfig, config, sets).replace(run=run, out=out)
    page = run_report(store, config=settings)
    say(f"the report is {page}")


@app.command()
def export(
    store: Store,
    out: Annotated[Path, typer.Argument(help="folder to write into")],
    format: Annotated[str | None, typer.Option(help="csv, parquet, npy, png, pdf, or seed0")] = None,
    run: ChosenRun = None,
    variable: Annotated[
        list[str] | None, typer.Option(help="tables: further column; pictures: map to draw; repeatable")
    ] = None,
    latent: Annotated[list[int] | None, typer.Option(help="latent dimension; repeatable; default: all")] = None,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Write latents, tables, pictures or the first seed's files into a folder."""
    from vaearr.exporting import ExportConfig
    from vaearr.exporting import export as run_export

    settings = settings_from(ExportConfig, config, sets).replace(
        format=format, run=run, variables=variable or None, latents=latent or None
    )
    folder = run_export(store, out, config=settings, say=say)
    say(f"files are in {folder}")
