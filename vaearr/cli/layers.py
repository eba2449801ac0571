"""The command that compares two samples, or many pairs, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaearr.cli.common import Overwrite, RunName, Store, app, bar, say
from vaearr.errors import UsageError
from vaearr.names import DEFAULT_RUN

if TYPE_CHECKING:
    import xarray as xr

    from vaearr.artifacts import TrainedModel

HELP_PAIR = "file, X:Y[:Z] of a scan point, or number of a sample"


@app.command()
def layers(
    store: Store,
    run: RunName = DEFAULT_RUN,
    a: Annotated[str | None, typer.Option("--a", help=f"first sample: {HELP_PAIR}")] = None,
    b: Annotated[str | None, typer.Option("--b", help="second sample, given like --a")] = None,
    positive: Annotated[Path | None, typer.Option(help="folder of files, each a of a pair")] = None,
    negative: Annotated[Path | None, typer.Option(help="folder of files of the same names, each b of a pair")] = None,
    labels: Annotated[
        tuple[str, str] | None, typer.Option("--labels", help="two classes of the store, put together by chance")
    ] = None,
    by: Annotated[str, typer.Option(help="--labels: variable that holds the classes")] = "label",
    masked: Annotated[
        str | None, typer.Option(help="mask variable: samples beside themselves without what it covers")
    ] = None,
    fill: Annotated[str, typer.Option(help="--masked: what pixels become, a number or mean")] = "0",
    outside: Annotated[bool, typer.Option("--outside", help="--masked: take away what it does not cover")] = False,
    most: Annotated[int | None, typer.Option("--pairs", help="--labels, --masked: most pairs")] = None,
    seed: Annotated[int, typer.Option(min=0, help="--labels: seed of the choice")] = 0,
    part: Annotated[str, typer.Option(help="both, encoder or decoder")] = "both",
    level: Annotated[str, typer.Option(help="leaf: every single layer; block: residual blocks and the like")] = "leaf",
    top: Annotated[int, typer.Option(help="layers that are listed and whose maps are kept")] = 10,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out pairs that cannot be compared")] = False,
    out: Annotated[Path | None, typer.Option(help="folder to write tables and figures into")] = None,
    seed_files: Annotated[
        bool, typer.Option("--seed-files", help="also layer_differences.json or aggregated_results.json; needs --out")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="keep the result as a table of the run")] = False,
    name: Annotated[str, typer.Option(help="--keep: name of the table")] = "layers",
    overwrite: Overwrite = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print the whole result as JSON")] = False,
) -> None:
    """Compare two samples layer by layer: how far apart a trained model's activations are.

    One of --a with --b, --positive with --negative, --labels, or --masked says what is compared. --out writes
    layers.csv, layers.json, top_layers.png, layer_curves.png, difference_maps.png, and pairs.csv of many pairs.
    """
    way = _way({"--a": a, "--b": b, "--positive": positive, "--negative": negative, "--labels": labels,
                "--masked": masked})  # fmt: skip
    if seed_files and out is None:
        raise UsageError("--seed-files writes files; say where with --out FOLDER.")
    from vaearr.layers import keep_layers
    from vaearr.layers.stored import check_table_name
    from vaearr.run import open_run

    if keep:
        check_table_name(name)
    opened = open_run(store, run, device=device)
    how = {"part": part, "level": level, "top": top}
    if way == "--a":
        found, about = _two(opened.ds, opened.model, str(a), str(b), how)
    else:
        given = {
            "positive": positive, "negative": negative, "labels": labels, "by": by, "masked": masked, "fill": fill,
            "outside": outside, "most": most, "seed": seed,
        }  # fmt: skip
        found, about = _many(opened.ds, opened.model, way, given, how, skip_bad=skip_bad)
    found.attrs.update(opened.attrs, samples=about)
    if keep:
        keep_layers(store, run, found, name=name, about=about, overwrite=overwrite, say=say)
        say(f"the comparison is kept as table {name!r} of run {run!r}")
    if out is not None:
        _write(found, out, seed_files=seed_files)
    _print(found, as_json=as_json)


def _way(given: dict[str, Any]) -> str:
    """The first option of the one way that was chosen. Raises UsageError for none, two, or half of one."""
    ways = (("--a", "--b"), ("--positive", "--negative"), ("--labels",), ("--masked",))
    chosen = [way for way in ways if any(given[option] is not None for option in way)]
    words = ", ".join(" with ".join(way) for way in ways)
    if len(chosen) != 1:
        raise UsageError(f"{len(chosen)} ways to choose samples are given; give one of {words}.")
    for option in chosen[0]:
        if given[option] is None:
            raise UsageError(f"{' with '.join(chosen[0])} belong together; {option} is missing.")
    return chosen[0][0]


def _two(ds: xr.Dataset, model: TrainedModel, a: str, b: str, how: dict[str, Any]) -> tuple[xr.Dataset, dict[str, Any]]:
    from vaearr.layers import compare_layers, sample_of

    return compare_layers(model, sample_of(ds, a), sample_of(ds, b), **how), {"a": a, "b": b}


def _many(
    ds: xr.Dataset, model: TrainedModel, way: str, given: dict[str, Any], how: dict[str, Any], *, skip_bad: bool
) -> tuple[xr.Dataset, dict[str, Any]]:
    from vaearr.layers import compare_pairs, pairs_of_folders, pairs_of_labels, pairs_of_masks

    alone: list[str] = []
    if way == "--positive":
        about = {"positive": str(given["positive"]), "negative": str(given["negative"])}
        pairs, alone = pairs_of_folders(ds, given["positive"], given["negative"], skip_bad=skip_bad)
    elif way == "--labels":
        about = {key: given[key] for key in ("labels", "by", "seed", "most")}
        pairs = pairs_of_labels(ds, given["labels"], by=given["by"], seed=given["seed"], most=given["most"])
    else:
        about = {key: given[key] for key in ("masked", "fill", "outside", "most")}
        pairs = pairs_of_masks(ds, given["masked"], fill=given["fill"], outside=given["outside"], most=given["most"])
    with bar("comparing") as progress:
        found = compare_pairs(model, pairs, skip_bad=skip_bad, on_pair=lambda done: progress(done, len(pairs)), **how)
    return found.assign_attrs(unpaired=alone), about


def _write(found: xr.Dataset, out: Path, *, seed_files: bool) -> None:
    from vaearr.exporting.files import staged
    from vaearr.exporting.layer_files import write_layer_files

    with staged(out) as folder:
        write_layer_files(found, folder, seed_files=seed_files)
    say(f"files are in {out}")


def _print(found: xr.Dataset, *, as_json: bool) -> None:
    from vaearr.exporting.layer_files import layer_summary
    from vaearr.layers.summary import layer_lines
    from vaearr.provenance import as_json as plain

    for name in found.attrs.get("unpaired", []):
        say(f"left out: {name} has no partner")
    for reason in found.attrs.get("failed", []):
        say(f"left out: {reason}")
    for warning in found.attrs.get("warnings", []):
        say(f"warning: {warning}")
    if as_json:
        typer.echo(json.dumps(plain(layer_summary(found)), indent=2, ensure_ascii=False, allow_nan=False))
        return
    for line in layer_lines(found):
        typer.echo(line)
