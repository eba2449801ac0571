"""The command that judges what a model draws: by numbers, and by readers who do not know what they see."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaearr.cli.common import RunName, app, say
from vaearr.errors import UsageError
from vaearr.names import DEFAULT_RUN

if TYPE_CHECKING:
    import xarray as xr


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
    seed: Annotated[int, typer.Option(min=0, help="seed of the draws and choices")] = 0,
    out: Annotated[Path | None, typer.Option(help="folder for fidelity.csv and nearest.csv")] = None,
    blinded: Annotated[
        Path | None, typer.Option(help="write real and drawn files for a reader into this folder")
    ] = None,
    kind: Annotated[str, typer.Option(help="--blinded: draws or reconstructions")] = "draws",
    key: Annotated[Path | None, typer.Option(help="key.csv of a blinded set; with --answers, without a store")] = None,
    answers: Annotated[Path | None, typer.Option(help="the reader's CSV file with name, answer")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps")] = "auto",
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
    if blinded is not None:
        if out is not None:
            raise UsageError("--out is for tables of numbers; --blinded says itself where its files go.")
        from vaearr.inference import blinded_set

        size = 25 if count is None else count
        about = {"seed": seed, "kind": kind, "source": source, "part": part, "device": device}
        blinded_set(store, run, blinded, n_real=size, n_drawn=size, **about)  # type: ignore[arg-type]
        typer.echo(f"{2 * size} files for the reader are in {blinded / 'images'}; {blinded / 'key.csv'} is the key")
        return
    from vaearr.inference import nearest_training, sample_fidelity
    from vaearr.inference.fidelity import fidelity_lines
    from vaearr.inference.memorisation import nearest_lines

    size = 1000 if count is None else count
    fidelity = sample_fidelity(
        store, run, n_samples=size, source=source, features=features, weights=weights, part=part, seed=seed,
        device=device,
    )  # fmt: skip
    nearest = nearest_training(store, run, n_samples=size, source=source, seed=seed, device=device)
    if out is not None:
        _write(fidelity, nearest, out)
    for line in (*fidelity_lines(fidelity), *nearest_lines(nearest)):
        typer.echo(line)
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


def _write(fidelity: xr.Dataset, nearest: xr.Dataset, out: Path) -> None:
    from vaearr.store.folders import staged

    with staged(out) as folder:
        columns = ("frechet", "kernel", "kernel_error", "n", "n_reference")
        rows = [
            [str(name), *(fidelity[c].values[i] for c in columns)] for i, name in enumerate(fidelity["compared"].values)
        ]
        _table(folder / "fidelity.csv", ["compared", *columns], rows)
        found = nearest[["distance"]]
        near = [str(name) for name in found.coords if str(name).startswith("nearest_")]
        rows = [list(row) for row in zip(*(found[name].values for name in ("draw", "distance", *near)), strict=True)]
        _table(folder / "nearest.csv", ["draw", "distance", *near], rows)
    say(f"files are in {out}")


def _table(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
