"""What is done with a store beside the steps: the demo, what it holds and whether it is whole, pages, flows."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaearr.cli.common import (
    Device,
    Overwrite,
    RunName,
    Seed,
    Store,
    app,
    bar,
    folder_of,
    nested_values,
    print_lines,
    say,
    tell,
)
from vaearr.errors import DataError, UsageError
from vaearr.names import DEFAULT_RUN

if TYPE_CHECKING:
    pass

FLOWS = "vaearr.flows.serving"  # called by name: nothing else in vaearr imports the flows, they call vaearr


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
    print_lines(closing)


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
    overwrite: Overwrite = False,
) -> None:
    """Add latents or maps computed elsewhere, to be analysed like the store's own."""
    from vaearr.attaching import attach as run_attach

    about = {"kind": kind, "run": run, "name": name, "coords": coords, "roi": roi, "prefix": prefix, "units": units}
    run_attach(store, file, columns=column or (), overwrite=overwrite, say=say, **about)  # type: ignore[arg-type]


@app.command()
def info(
    store: Store,
    model: Annotated[bool, typer.Option("--model", help="the layers of a run's network instead")] = False,
    run: RunName = DEFAULT_RUN,
    out: Annotated[Path | None, typer.Option(help="--model: PNG or PDF to draw the network into")] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG or PDF to draw some samples of each class into")] = None,
    seed: Seed = 0,
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
def verify(
    store: Store,
    as_json: Annotated[bool, typer.Option("--json", help="findings for programs")] = False,
    remove: Annotated[
        str | None, typer.Option(help="take a variable that can be made again, a table or runs/NAME out of the store")
    ] = None,
    seal: Annotated[bool, typer.Option("--seal", help="add checksums to variables that have none")] = False,
    relist: Annotated[
        bool, typer.Option("--relist", help="list the variables anew, put the store's attributes back")
    ] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="list what killed commands left and is older than a day; --yes removes it")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="--clean: also work that a command could go on with")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="--clean: remove it")] = False,
) -> None:
    """Check every file of a store; exit code 65 where it is damaged.

    One line for each finding says which variable and chunk it is and what to do.
    """
    if sum((remove is not None, seal, relist, clean)) > 1:
        raise UsageError("--remove, --seal, --relist and --clean are things to do one at a time; give one of them.")
    if (unfinished or yes) and not clean:
        raise UsageError("--yes and --unfinished are for --clean; add it.")
    from vaearr import verifying

    if remove is not None:
        say(f"taken out of {store}: {', '.join(verifying.take_out(store, remove))}")
    elif seal:
        say(f"checksums added to {len(verifying.seal_store(store))} variables of {store}")
    elif relist:
        verifying.relist(store)
        say(f"the variables of {store} are listed anew")
    elif clean:
        _clean(store, unfinished=unfinished, yes=yes)
    else:
        _verify(store, as_json=as_json)


def _verify(store: str, *, as_json: bool) -> None:
    from vaearr.store import stored_bytes
    from vaearr.verifying import in_words, verify_store

    total = max(stored_bytes(store), 1)
    done = 0
    with bar("verifying") as progress:

        def on_file(size: int) -> None:
            nonlocal done
            done = min(done + size, total)
            progress(done, total)

        result = verify_store(store, on_file=on_file)
    print_lines([json.dumps(result.record(), indent=2)] if as_json else in_words(result))
    if not result.is_healthy:
        raise typer.Exit(DataError.exit_code)


def _clean(store: str, *, unfinished: bool, yes: bool) -> None:
    from vaearr.store import check_store
    from vaearr.store.leftovers import clean, removable

    path = check_store(store)
    found = clean(path, unfinished=unfinished) if yes else removable(path, unfinished=unfinished)
    print_lines([f"{left.path}: {left.what}" for left in found])
    if yes:
        say(f"{len(found)} removed")
    else:
        say(f"{len(found)} to remove; 'vaearr verify {store} --clean{' --unfinished' * unfinished} --yes' removes them")


@app.command()
def judge(
    store: Annotated[Path | None, typer.Argument(help="zarr store; not with --key")] = None,
    run: RunName = DEFAULT_RUN,
    count: Annotated[
        int | None, typer.Option("--n", help="draws; default 1000, --blinded: 25 and as many real")
    ] = None,
    source: Annotated[str, typer.Option(help="prior, or fitted: the Gaussian of the run's own latents")] = "prior",
    features: Annotated[str, typer.Option(help="latents, encoder or image (with --weights)")] = "latents",
    weights: Annotated[Path | None, typer.Option(help="weights of an image network, for --features image")] = None,
    part: Annotated[str, typer.Option(help="data to compare with: validation, train or all")] = "validation",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="folder for fidelity.csv and nearest.csv")] = None,
    blinded: Annotated[
        Path | None, typer.Option(help="write real and drawn files for a reader into this folder")
    ] = None,
    kind: Annotated[str, typer.Option(help="--blinded: draws or reconstructions")] = "draws",
    key: Annotated[Path | None, typer.Option(help="key.csv of a blinded set; with --answers, without a store")] = None,
    answers: Annotated[Path | None, typer.Option(help="the reader's CSV file with name, answer")] = None,
    device: Device = "auto",
) -> None:
    """Judge draws: how like the data they are, whether they are copies, whether a reader can tell them apart.

    STORE alone prints Fréchet and kernel distances and the distance to the nearest training sample. --blinded writes
    images/ for the reader, answers.csv to fill, and key.csv to keep. --key with --answers prints the reader's score.
    """
    if key is not None or answers is not None:
        _score(store, key, answers)
        return
    if store is None:
        raise UsageError("give a store to judge, or --key with --answers to score a reader.")
    about: dict[str, Any] = {"source": source, "seed": seed, "device": device}
    if blinded is not None:
        if out is not None:
            raise UsageError("--out is for tables of numbers; --blinded says itself where its files go.")
        from vaearr.inference import blinded_set

        size = 25 if count is None else count
        blinded_set(store, run, blinded, n_real=size, n_drawn=size, kind=kind, part=part, **about)
        typer.echo(f"{2 * size} files for the reader are in {blinded / 'images'}; {blinded / 'key.csv'} is the key")
        return
    from vaearr.inference import nearest_training, sample_fidelity
    from vaearr.inference.fidelity import fidelity_lines
    from vaearr.inference.memorisation import nearest_lines

    about["n_samples"] = 1000 if count is None else count
    fidelity = sample_fidelity(store, run, features=features, weights=weights, part=part, **about)
    nearest = nearest_training(store, run, **about)
    with folder_of(out) as folder:
        if folder:
            columns = ["frechet", "kernel", "kernel_error", "n", "n_reference"]
            fidelity[columns].to_dataframe().to_csv(folder / "fidelity.csv", columns=columns, index_label="compared")
            places = [str(name) for name in nearest.coords if str(name).startswith("nearest_")]
            table = nearest[["distance"]].to_dataframe().reset_index()
            table.to_csv(folder / "nearest.csv", columns=["draw", "distance", *places], index=False)
    print_lines([*fidelity_lines(fidelity), *nearest_lines(nearest)])
    for warning in (*fidelity.attrs["warnings"], *nearest.attrs["warnings"]):
        say(f"warning: {warning}")


def _score(store: Path | None, key: Path | None, answers: Path | None) -> None:
    if key is None or answers is None:
        raise UsageError("--key and --answers belong together; give both.")
    if store is not None:
        raise UsageError("--key and --answers need no store; leave it out.")
    from vaearr.inference import score_blinded

    found = score_blinded(key, answers)
    typer.echo(found.attrs["sentence"])
    for truth in found["truth"].values:
        row = found["confusion"].sel(truth=truth)
        typer.echo(f"{truth}: " + ", ".join(f"{int(row.sel(answer=a))} said {a}" for a in found["answer"].values))
    p = "none: only one kind was answered" if found.attrs["p_value"] is None else f"{found.attrs['p_value']:.3g}"
    typer.echo(f"binomial p {p}; Fisher p {found.attrs['fisher_p']:.3g}; {found.attrs['n_unanswered']} not answered")


@app.command()
def explore(
    store: Store,
    run: RunName = DEFAULT_RUN,
    port: Annotated[int, typer.Option(help="port; 0 takes a free one")] = 0,
    host: Annotated[
        str, typer.Option(help="address to listen at; another than 127.0.0.1 opens the store to the network")
    ] = "127.0.0.1",
    show: Annotated[bool, typer.Option("--show/--no-show", help="open the page in the browser")] = True,
    save: Annotated[
        Path | None, typer.Option(help="serve nothing; write the main views as one .html file that works offline")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="with --save: map with the classes; default: label, phase or clusters")
    ] = None,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option(help="with --save: replace the file")] = False,
) -> None:
    """Explore a run in the browser: click a map, move the latents, see what is decoded. The store stays as it is."""
    if save is not None:
        from vaearr.app.saved import save_page

        written = save_page(store, run, save, by=by, seed=seed, overwrite=overwrite)
        tell(f"written: {written} ({written.stat().st_size / 1e6:.1f} MB)")
        return
    from vaearr.app.serve import explore as serve_page

    serve_page(store, run, port=port, host=host, show=show, say=tell)


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="flow, such as train-vae; an unknown name lists them all")],
    parameters: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", help="NAME=VALUE, a value in JSON or plain; NAME.SETTING=VALUE for a single one"),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="follow a run on a server to its end")] = False,
    here: Annotated[bool, typer.Option("--here", help="run in this process even where a server is configured")] = False,
) -> None:
    """Run a flow: on the Prefect server that is configured (PREFECT_API_URL), else right here without any."""
    given = nested_values(parameters, "-p")
    import_module(FLOWS).run(name, given, watch=watch, here=here, say=say, bar=bar)


@app.command()
def serve(
    names: Annotated[list[str] | None, typer.Argument(help="flows to serve; default: all")] = None,
    limit: Annotated[int, typer.Option(help="flow runs at a time")] = 1,
) -> None:
    """Register all flows with the configured Prefect server and run what is asked of them, until stopped."""
    import_module(FLOWS).serve(names, limit=limit, say=say)
