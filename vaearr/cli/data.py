"""Commands about data: from files to a store, and what stores hold."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import cloup

import vaearr as va
from vaearr.cli.common import (
    AS_JSON,
    DATA,
    OVERWRITE,
    PATH,
    RUN_NAME,
    SCHEDULER,
    SEED,
    STORE,
    TRUST,
    command,
    next_step,
    print_lines,
    refuse,
    say,
)
from vaearr.cli.settings import settings_options
from vaearr.computing.cluster import computing_on
from vaearr.config import IngestConfig, merged
from vaearr.errors import DataError, NoInputError, VaearrError
from vaearr.names import BC


@command("vaearr demo", "vaearr demo my-demo", section=DATA)
@cloup.argument(
    "folder",
    type=PATH,
    default=Path("stores/demo"),
    help="folder for files, store and report [default: stores/demo]",
)
def demo(folder: Path) -> None:
    """Take a small simulated EBSD scan through every step to a report."""
    from vaearr.cli.demo import run_demo

    print_lines(run_demo(folder))


@command(
    "vaearr ingest scan.h5 scan.zarr --step 0.25 --bc bc.csv --elements elements.csv",
    "vaearr ingest photos photos.zarr --size 96x128 --fit pad",
    section=DATA,
)
@cloup.argument("source", type=PATH, help="file, image folder or zarr store, such as scan.h5")
@cloup.argument("store", help="store to create, such as stores/scan.zarr")
@settings_options(IngestConfig, flags={"phase_names": "--phase", "classes": "--class"})
@cloup.option("--bc", type=PATH, help="CSV with x, y, band contrast")
@SCHEDULER
@OVERWRITE
def ingest(
    source: Path,
    store: str,
    settings: dict[str, Any],
    bc: Path | None,
    scheduler: str | None,
    overwrite: bool,
) -> None:
    """Write a scan, an image folder, digits or NIfTI volumes as a new store.

    A folder of images named by scan points, such as x0_y0.png, becomes a scan; with --format images
    a collection.
    """
    if bc:
        refuse(
            BC in settings.get("maps", {}),
            f"--bc and --map {BC} are the same map; give one of them.",
        )
        settings = merged(settings, {"maps": {BC: bc}})
    with computing_on(scheduler):
        ds = va.ingest(source, store, overwrite=overwrite, **settings)
    from vaearr import schema
    from vaearr.run.facts import preset_option
    from vaearr.views.summaries import store_lines

    print_lines(store_lines(ds, store))
    say(next_step("train", store, also=preset_option(schema.samples_word(ds))))


@command(
    "vaearr attach scan.zarr hardness.csv --kind map --name hardness",
    "vaearr attach scan.zarr latents.npy --run other",
    section=DATA,
)
@STORE
@cloup.argument("file", type=PATH, help=".npy, CSV or .tsv maps of elements")
@cloup.option("--run", help="latents: name of the run that holds them")
@cloup.option(
    "--kind",
    default="latents",
    metavar="latents|map|classes|elements|scores",
    help="what the file holds",
)
@cloup.option("--name", help="all but latents: name of the new variable")
@cloup.option("--coords", type=PATH, help="CSV or .npy with x, y of each row")
@cloup.option("--roi", help="run whose points the rows are, in row-major order")
@cloup.option("--prefix", help="CSV: columns that begin with this")
@cloup.option("--column", "columns", multiple=True, help="CSV: column to read; repeatable")
@cloup.option("--units", help="unit of the values")
@OVERWRITE
def attach(store: str, file: Path, **options: Any) -> None:
    """Add latents or maps that were computed elsewhere."""
    va.attach(store, file, **options)


@command(
    "vaearr info scan.zarr",
    "vaearr info scan.zarr --model --run vae --out network.png",
    section=DATA,
)
@STORE
@cloup.option("--model", is_flag=True, help="describe the network of a run instead")
@RUN_NAME
@cloup.option(
    "--out", type=PATH, help="PNG or PDF: samples of each class, or with --model the network"
)
@SEED
@TRUST
@AS_JSON
def info(
    store: str,
    model: bool,
    run: str,
    out: Path | None,
    seed: int,
    trust: tuple[str, ...],
    as_json: bool,
) -> None:
    """Describe the contents of a store, or the network of a run."""
    picture: Any
    options: dict[str, Any] = {}
    if model:
        from vaearr.models.card import as_record, model_card

        picture = model_card(va.load_run(store, run, trust=trust).model)
        facts = as_record(picture)
        lines = va.describe(picture)
    else:
        from vaearr.run.facts import in_words, store_facts

        facts = store_facts(store)
        lines = [in_words(facts)]
    if out:
        from vaearr.views import save

        if not model:
            picture = va.open_store(store, chunks=None)
            options = {"kind": "samples", "seed": seed}
        say(f"written: {save(picture, out, **options)}")
    print_lines([json.dumps(facts, indent=2, default=str)] if as_json else lines)


@command("vaearr list", "vaearr list stores --json", name="list", section=DATA)
@cloup.argument("folder", type=PATH, default=Path(), help="folder that is searched for stores")
@AS_JSON
def list_stores(folder: Path, as_json: bool) -> None:
    """List the stores below a folder with their size and their runs."""
    if not folder.is_dir():
        raise NoInputError(f"there is no folder {folder}.")
    rows = []
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "zarr.json" in files:
            folders.clear()
            rows.append(_store_row(Path(path)))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        runs = ", ".join(f"{name} ({state})" for name, state in row["runs"].items())
        click.echo(f"{row['store']}: {row['contents']}; runs: {runs or 'none'}")
    if not rows:
        say(f"there is no store below {folder}")


def _store_row(path: Path) -> dict[str, Any]:
    """Path, contents and runs of a store."""
    from vaearr import schema
    from vaearr.run.facts import run_facts
    from vaearr.store import open_store, run_names

    try:
        ds = open_store(path, chunks=None)
        contents = schema.contents(ds)
        states = {}
        for run in run_names(path):
            run_state = run_facts(path, ds, run)
            state = "damaged"
            if "damaged" not in run_state:
                state = run_state["kind"]
                state += ", encoded" if run_state["encoded"] else ", not encoded"
            states[run] = state
    except VaearrError as error:
        return {"store": str(path), "contents": f"cannot be read: {error}", "runs": {}}
    return {"store": str(path), "contents": contents, "runs": states}


@command("vaearr verify scan.zarr", "vaearr verify scan.zarr --remove runs/old", section=DATA)
@STORE
@AS_JSON
@cloup.option("--remove", help="remove a variable that can be computed again, a table or runs/NAME")
@cloup.option(
    "--seal",
    is_flag=True,
    help="accept what the store holds: new checksums and a new list of variables",
)
def verify(store: str, as_json: bool, remove: str | None, seal: bool) -> None:
    """Check every file of a store; exit code 65 if it is damaged.

    One line for each finding names the variable and chunk, and what to do.
    """
    from vaearr.store import remove as removing
    from vaearr.store import verify as verifying

    refuse(remove is not None and seal, "give --remove and --seal one at a time.")
    if remove is not None:
        say(f"removed from {store}: {', '.join(removing.remove(store, remove))}")
        return
    if seal:
        say(f"checksums added to {len(verifying.seal_store(store))} variables of {store}")
        return
    result = verifying.verify_store(store)
    if as_json:
        click.echo(json.dumps(asdict(result), indent=2, default=str))
    else:
        print_lines(verifying.in_words(result))
    if not result.is_healthy:
        raise SystemExit(DataError.exit_code)
