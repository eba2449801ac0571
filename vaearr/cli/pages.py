"""Commands that write pages and files of a run, or run a flow."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click
import cloup

import vaearr as va
from vaearr.cli.common import (
    LOOK,
    PATH,
    RUN_NAME,
    SEED,
    SHARE,
    STORE,
    TRUST,
    command,
    next_step,
    say,
)
from vaearr.cli.settings import nested_values
from vaearr.computing.progress import working


@command("vaearr explore scan.zarr", "vaearr explore scan.zarr --save scan.html", section=LOOK)
@STORE
@RUN_NAME
@cloup.option("--port", type=click.IntRange(min=0), default=0, help="port; 0 selects a free one")
@cloup.option(
    "--host",
    default="127.0.0.1",
    help="address; any other than 127.0.0.1 opens the store to the network",
)
@cloup.option("--show/--no-show", default=True, help="open the page in the browser")
@cloup.option("--save", type=PATH, help="serve nothing; write one .html file that works offline")
@SEED
@TRUST
@cloup.option("--overwrite", is_flag=True, help="--save: replace the file")
def explore(
    store: str,
    run: str,
    port: int,
    host: str,
    show: bool,
    save: Path | None,
    seed: int,
    trust: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Explore a run in the browser.

    Click a map, move the latents, and see the decoded pattern. Nothing is written into the store.
    """
    opened = va.load_run(store, run, trust=trust)
    if save is None:
        opened.explore(port=port, host=host, show=show)
        return
    page = opened.explore(save=save, seed=seed, overwrite=overwrite)
    say(f"written: {page} ({page.stat().st_size / 1e6:.1f} MB)")


@command("vaearr report scan.zarr", "vaearr report scan.zarr --run b --out report", section=LOOK)
@STORE
@RUN_NAME
@cloup.option("--out", type=PATH, help="folder of the report; default: <store>.reports/<run>")
@TRUST
def report(store: str, run: str, out: Path | None, trust: tuple[str, ...]) -> None:
    """Write one HTML page about a run, and PNGs of its main views."""
    opened = va.load_run(store, run, trust=trust)
    with working("writing the report"):
        page = opened.report(out)
    say(f"the report is {page}; open it in a browser")
    say(next_step("explore", store, run))


@command(
    "vaearr export scan.zarr tables --format parquet",
    "vaearr export scan.zarr pictures --format png --variable latents --latent 3",
    section=SHARE,
)
@STORE
@cloup.argument("out", type=PATH, help="folder to write into")
@cloup.option(
    "--format",
    "file_format",
    default="csv",
    metavar="csv|parquet|npy|png|pdf|seed0",
    help="seed0: the files of the earlier programs",
)
@RUN_NAME
@cloup.option(
    "--variable",
    "variables",
    multiple=True,
    help="tables: further column; pictures: map to draw; repeatable",
)
@cloup.option(
    "--latent",
    "latents",
    type=int,
    multiple=True,
    help="latent dimension; default: all; repeatable",
)
def export(store: str, out: Path, file_format: Any, run: str, **options: Any) -> None:
    """Write latents, tables or pictures as files."""
    from vaearr.output.exporting import check_format

    check_format(file_format, options["variables"], options["latents"])
    say(f"files are in {va.load_run(store, run).export(out, file_format, **options)}")


@command(
    "vaearr run train-vae -p store=scan.zarr",
    "vaearr run sweep -p store=scan.zarr -p sweep.latent_dims=[4,16]",
    section=SHARE,
)
@cloup.argument("name", help="flow, such as train-vae; an unknown name lists them all")
@cloup.option(
    "-p",
    "--param",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="value in JSON or plain text; NAME.SETTING=VALUE for a single setting",
)
def run(name: str, parameters: tuple[str, ...]) -> None:
    """Run a flow in this process.

    A Prefect server records it if one is configured (PREFECT_API_URL).
    """
    flows = import_module("vaearr.flows.by_name")  # by name: only this command imports the flows
    flows.run(name, nested_values(parameters, "-p"))
