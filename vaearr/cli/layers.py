"""`vaearr look layers`: two samples, or many pairs, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaearr.cli.common import Device, Overwrite, RunName, Seed, Store, bar, folder_of, look, print_lines, say
from vaearr.cli.look import Folder
from vaearr.errors import UsageError
from vaearr.names import DEFAULT_RUN

if TYPE_CHECKING:
    import xarray as xr

HELP_PAIR = "file, X:Y[:Z] of a scan point, or number of a sample"


@look.command()
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
    seed: Seed = 0,
    part: Annotated[str, typer.Option(help="both, encoder or decoder")] = "both",
    level: Annotated[str, typer.Option(help="leaf: every single layer; block: residual blocks and the like")] = "leaf",
    top: Annotated[int, typer.Option(help="layers that are listed and whose maps are kept")] = 10,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out pairs that cannot be compared")] = False,
    out: Folder = None,
    seed_files: Annotated[
        bool, typer.Option("--seed-files", help="also layer_differences.json or aggregated_results.json; needs --out")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="keep the result as a table of the run")] = False,
    overwrite: Overwrite = False,
    name: Annotated[str, typer.Option(help="--keep: name of the table")] = "layers",
    device: Device = "auto",
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
    from vaearr import layers as ways
    from vaearr.exporting.layer_files import write_layer_files
    from vaearr.layers.stored import check_table_name
    from vaearr.run import open_run

    if keep:
        check_table_name(name)
    opened = open_run(store, run, device=device)
    ds, alone = opened.ds, list[str]()
    about: dict[str, Any]
    if way == "--a":
        about = {"a": a, "b": b}
        made: Any = ways.sample_of(ds, str(a)), ways.sample_of(ds, str(b))
    elif way == "--positive":
        about = {"positive": str(positive), "negative": str(negative)}
        made, alone = ways.pairs_of_folders(ds, positive, negative, skip_bad=skip_bad)  # type: ignore[arg-type]
    elif way == "--labels":
        about = {"labels": labels, "by": by, "seed": seed, "most": most}
        made = ways.pairs_of_labels(ds, labels or (), by=by, seed=seed, most=most)
    else:
        about = {"masked": masked, "fill": fill, "outside": outside, "most": most}
        made = ways.pairs_of_masks(ds, str(masked), fill=fill, outside=outside, most=most)
    how = {"part": part, "level": level, "top": top}
    found = _compared(opened.model, made, how, skip_bad=skip_bad).assign_attrs(unpaired=alone)
    found.attrs.update(opened.attrs, samples=about)
    if keep:
        ways.keep_layers(store, run, found, name=name, about=about, overwrite=overwrite, say=say)
        say(f"the comparison is kept as table {name!r} of run {run!r}")
    with folder_of(out) as folder:
        if folder:
            write_layer_files(found, folder, seed_files=seed_files)
    _tell_layers(found, as_json=as_json)


def _compared(model: Any, made: Any, how: dict[str, Any], *, skip_bad: bool) -> xr.Dataset:
    """Two samples, which come as a tuple, or a list of pairs, with a bar."""
    from vaearr.layers import compare_layers, compare_pairs

    if isinstance(made, tuple):
        return compare_layers(model, *made, **how)
    with bar("comparing") as progress:
        return compare_pairs(model, made, skip_bad=skip_bad, on_pair=lambda done: progress(done, len(made)), **how)


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


def _tell_layers(found: xr.Dataset, *, as_json: bool) -> None:
    from vaearr.exporting.layer_files import layer_summary
    from vaearr.layers.summary import layer_lines
    from vaearr.provenance import as_json as plain

    for key, words in (
        ("unpaired", "left out: {} has no partner"),
        ("failed", "left out: {}"),
        ("warnings", "warning: {}"),
    ):
        for text in found.attrs.get(key, []):
            say(words.format(text))
    if as_json:
        typer.echo(json.dumps(plain(layer_summary(found)), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print_lines(layer_lines(found))
