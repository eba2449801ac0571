"""Commands that bring data in and tell what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vaearr.cli.common import (
    DaskWorkers,
    NewStore,
    Overwrite,
    RunName,
    Sets,
    Settings,
    Store,
    app,
    bar,
    key_values,
    say,
    settings_from,
    sides,
)
from vaearr.errors import UsageError
from vaearr.names import BC, DEFAULT_RUN


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(help="file, image folder or zarr store to read, for example scan.h5")],
    store: NewStore,
    bc: Annotated[Path | None, typer.Option("--bc", help="CSV with x, y, band contrast")] = None,
    maps: Annotated[list[str] | None, typer.Option("--map", help="further map as NAME=CSV; repeatable")] = None,
    elements: Annotated[Path | None, typer.Option(help="CSV with x, y and a column per element")] = None,
    phases: Annotated[Path | None, typer.Option(help="CSV with x, y and a phase number")] = None,
    phase: Annotated[
        list[str] | None, typer.Option("--phase", help="name of a phase as NUMBER=NAME; repeatable")
    ] = None,
    orientations: Annotated[Path | None, typer.Option(help=".ang or .ctf map: orientations, phases, quality")] = None,
    nav_shape: Annotated[
        str | None, typer.Option(help="ROWSxCOLUMNS, for a vendor file that stores no scan shape")
    ] = None,
    filenames: Annotated[
        str | None, typer.Option(help="how names in a folder of images tell the scan point, such as x{x}_y{y}")
    ] = None,
    step: Annotated[float | None, typer.Option(help="distance of neighbouring scan points")] = None,
    units: Annotated[str | None, typer.Option(help="unit of --step")] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="source format, such as images, where the path tells another")
    ] = None,
    size: Annotated[str | None, typer.Option(help="size of images (ROWSxCOLUMNS) or volumes (ZxYxX)")] = None,
    fit: Annotated[str | None, typer.Option(help="how they get it: pad, crop or squash")] = None,
    channels: Annotated[str | None, typer.Option(help="images: auto, grey or colour")] = None,
    masks: Annotated[str | None, typer.Option(help="names of mask files, such as '*_mask*'")] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV with path, label, subject, … of a folder's files")] = None,
    spacing: Annotated[str | None, typer.Option(help="distance of voxels ZxYxX in mm to resample volumes to")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out files that cannot be read")] = False,
    dask: DaskWorkers = None,
    overwrite: Overwrite = False,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Turn a scan file (HDF5, vendor formats), an image folder, digits or NIfTI volumes into a store."""
    from vaearr.config import IngestConfig
    from vaearr.ingestion import ingest as run_ingest

    given: dict[str, Any] = key_values(maps, "--map")
    if bc:
        if BC in given:
            raise UsageError(f"--bc and --map {BC} are the same map; give one of them.")
        given[BC] = bc
    base = settings_from(IngestConfig, config, sets)
    settings = base.replace(
        maps={**base.maps, **given} or None,
        elements=elements,
        phases=phases,
        phase_names=key_values(phase, "--phase") or None,
        orientations=orientations,
        nav_shape=_shape(nav_shape),
        filenames=filenames,
        step=step,
        units=units,
        format=form,
        size=sides(size, "--size", int),
        fit=fit,
        channels=channels,
        masks=masks,
        manifest=manifest,
        spacing=sides(spacing, "--spacing", float),
        skip_bad=skip_bad or None,
    )
    with bar("reading") as progress:
        run_ingest(source, store, config=settings, dask=dask, overwrite=overwrite, say=say, progress=progress)
    say(f"{store} is ready; look at it with 'vaearr info {store}'")


@app.command()
def info(
    store: Store,
    model: Annotated[bool, typer.Option("--model", help="the layers of a run's network instead")] = False,
    run: RunName = DEFAULT_RUN,
    out: Annotated[Path | None, typer.Option(help="--model: PNG or PDF to draw the network into")] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG or PDF to draw some samples of each class into")] = None,
    seed: Annotated[int, typer.Option(min=0, help="--sheet: seed of the choice")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="facts for programs")] = False,
) -> None:
    """Tell in words what is in a store, or what a run's network is made of."""
    if out is not None and not model:
        raise UsageError("--out draws the network; add --model, or draw samples with --sheet.")
    if sheet is not None and model:
        raise UsageError("--sheet draws samples; leave out --model, or draw the network with --out.")
    if model:
        _tell_model(store, run, out, as_json=as_json)
        return
    from vaearr.info import in_words, store_facts

    facts = store_facts(store)
    if sheet is not None:
        from vaearr.store import open_store
        from vaearr.views import save

        say(f"samples are in {save(open_store(store, chunks=None), sheet, kind='samples', seed=seed)}")
    typer.echo(json.dumps(facts, indent=2, default=str) if as_json else in_words(facts))


def _tell_model(store: str, run: str, out: Path | None, *, as_json: bool) -> None:
    from vaearr.artifacts import load_model
    from vaearr.model_card import as_record, card_lines, model_card

    card = model_card(load_model(store, run))
    if out is not None:
        from vaearr.views import save

        say(f"the network is drawn in {save(card, out)}")
    typer.echo(json.dumps(as_record(card), indent=2) if as_json else "\n".join(card_lines(card)))


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="where to put files, store and report")] = Path("stores/demo"),
    store: Annotated[
        str | None, typer.Option(help="another place for the store, such as s3://bucket/scan.zarr")
    ] = None,
) -> None:
    """Make a small EBSD scan from crystal geometry and take it all the way to a report."""
    from vaearr.demo import run_demo

    with bar("demo") as progress:
        closing = run_demo(folder, store=store, say=say, progress=progress)
    for line in closing:
        typer.echo(line)


@app.command()
def attach(
    store: Store,
    file: Annotated[Path, typer.Argument(help=".npy, .npz or CSV with values computed elsewhere")],
    run: Annotated[str | None, typer.Option("--run", help="latents: name of the run they become")] = None,
    kind: Annotated[str, typer.Option(help="latents, map, classes, elements or scores")] = "latents",
    name: Annotated[str | None, typer.Option(help="the rest: name of the variable they become")] = None,
    coords: Annotated[Path | None, typer.Option(help="CSV or .npy with x, y of each row")] = None,
    roi: Annotated[str | None, typer.Option(help="run whose points the rows are, in row-major order")] = None,
    prefix: Annotated[str | None, typer.Option(help="CSV: columns that begin with this")] = None,
    column: Annotated[list[str] | None, typer.Option(help="CSV: column to take; repeatable")] = None,
    units: Annotated[str | None, typer.Option(help="unit of the values")] = None,
) -> None:
    """Add latents or maps computed elsewhere, to be analysed like the store's own."""
    from vaearr.attaching import attach as run_attach

    run_attach(
        store, file, kind=kind, run=run, name=name, coords=coords, roi=roi, prefix=prefix, columns=column or (),
        units=units, say=say,
    )  # fmt: skip


def _shape(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        rows, columns = map(int, text.lower().split("x"))
    except ValueError:
        raise UsageError(f"--nav-shape {text!r} is not ROWSxCOLUMNS, such as 60x80.") from None
    return rows, columns
