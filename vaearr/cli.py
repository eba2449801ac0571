"""Command line: thin commands over the functions; one-line errors, progress bars, exit codes of `vaearr.errors`."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from vaearr.errors import INTERNAL_ERROR, NoInputError, UsageError, VaearrError, WriteError
from vaearr.names import BC, DEFAULT_RUN

app = typer.Typer(
    name="vaearr",
    help="Scans and image collections as labelled arrays, a VAE learned on them, the latents written back beside them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Store = Annotated[Path, typer.Argument(help="zarr store, as made by 'vaearr ingest'")]
RunName = Annotated[str, typer.Option("--run", help="name of the run; 'vae' writes `latents`, 'b' writes `latents_b`")]
ChosenRun = Annotated[
    str | None, typer.Option("--run", help=f"name of the run; default: the one in --config, else {DEFAULT_RUN!r}")
]
Settings = Annotated[Path | None, typer.Option("--config", help="JSON file with settings")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="one setting, such as objective.target=self")]


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(help="file to read, for example scan.h5")],
    store: Annotated[Path, typer.Argument(help="store to make, for example stores/scan.zarr")],
    bc: Annotated[Path | None, typer.Option("--bc", help="CSV with x, y, band contrast")] = None,
    maps: Annotated[list[str] | None, typer.Option("--map", help="further map as NAME=CSV; repeatable")] = None,
    elements: Annotated[Path | None, typer.Option(help="CSV with x, y and a column per element")] = None,
    phases: Annotated[Path | None, typer.Option(help="CSV with x, y and a phase number")] = None,
    phase: Annotated[
        list[str] | None, typer.Option("--phase", help="name of a phase as NUMBER=NAME; repeatable")
    ] = None,
    step: Annotated[float | None, typer.Option(help="distance of neighbouring scan points")] = None,
    units: Annotated[str | None, typer.Option(help="unit of --step")] = None,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Turn a scan file and its side maps into a store."""
    from vaearr.config import IngestConfig
    from vaearr.ingestion import ingest as run_ingest

    given: dict[str, Any] = _key_values(maps, "--map")
    if bc:
        if BC in given:
            raise UsageError(f"--bc and --map {BC} are the same map; give one of them.")
        given[BC] = bc
    base = _settings(IngestConfig, config, sets)
    settings = base.replace(
        maps={**base.maps, **given} or None,
        elements=elements,
        phases=phases,
        phase_names=_key_values(phase, "--phase") or None,
        step=step,
        units=units,
    )
    with _bar("reading") as progress:
        run_ingest(source, store, config=settings, say=_say, progress=progress)
    _say(f"{store} is ready; look at it with 'vaearr info {store}'")


@app.command()
def info(store: Store, as_json: Annotated[bool, typer.Option("--json", help="facts for programs")] = False) -> None:
    """Tell in words what is in a store."""
    from vaearr.info import in_words, store_facts

    facts = store_facts(store)
    typer.echo(json.dumps(facts, indent=2, default=str) if as_json else in_words(facts))


@app.command()
def train(
    store: Store,
    run: RunName = DEFAULT_RUN,
    x: Annotated[str | None, typer.Option(help="ROI box START:STOP in coordinate units, half-open")] = None,
    y: Annotated[str | None, typer.Option(help="ROI box START:STOP in coordinate units, half-open")] = None,
    z: Annotated[str | None, typer.Option(help="ROI box START:STOP in coordinate units, half-open")] = None,
    where: Annotated[str | None, typer.Option(help='ROI condition on maps, such as "BC > 45"')] = None,
    model: Annotated[str | None, typer.Option(help="registered model")] = None,
    latent_dim: Annotated[int | None, typer.Option(help="latent dimensions")] = None,
    epochs: Annotated[int | None, typer.Option(help="most epochs")] = None,
    batch_size: Annotated[int | None, typer.Option(help="patterns per step")] = None,
    beta: Annotated[float | None, typer.Option(help="weight of the KL divergence")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="highest learning rate")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps")] = None,
    seed: Annotated[int | None, typer.Option(help="seed of split, weights and order")] = None,
    init: Annotated[str | None, typer.Option(help="run (or model folder) whose weights to start from")] = None,
    resume: Annotated[Path | None, typer.Option(help="checkpoint file to go on from")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="throw an interrupted training of this run away")] = False,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Train a VAE on a store's patterns; after an interruption, go on where it was.

    The ROI, without --x, --y, --z and --where: that of the run 'vae' if there is one, else every measured point.
    """
    from vaearr.config import RoiConfig, TrainConfig
    from vaearr.runs import settings_for
    from vaearr.runs import train as run_train

    boxes = {"x": _box(x, "--x"), "y": _box(y, "--y"), "z": _box(z, "--z"), "where": where}
    roi = RoiConfig.from_attrs(boxes) if any(v is not None for v in boxes.values()) else None
    settings = settings_for(
        _settings(TrainConfig, config, sets),
        model=model,
        latent_dim=latent_dim,
        beta=beta,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        device=device,
        seed=seed,
        init=init,
    )
    with _bar("training") as progress:

        def on_epoch(epoch: int, row: dict[str, float]) -> None:
            text = f"loss {row['loss']:.1f}" + (f", validation {row['val_loss']:.1f}" if "val_loss" in row else "")
            progress(epoch + 1, settings.epochs, f"training, {text} nats per sample")

        result = run_train(
            store, run=run, roi=roi, config=settings, resume=resume, restart=restart, say=_say, on_epoch=on_epoch
        )
    health = result.health.attrs
    _say(
        f"run {run!r}: best epoch {result.manifest['best_epoch']} of {result.manifest['epochs_run']}, "
        f"{health['n_active']} of {settings.model.latent_dim} latent dimensions active, "
        f"{health['explained_variance']:.1%} of the patterns' variance, noise included, explained"
    )
    _say(f"next: 'vaearr encode {store} --run {run}'")


@app.command()
def encode(store: Store, run: ChosenRun = None, config: Settings = None, sets: Sets = None) -> None:
    """Write a run's latents into the store."""
    from vaearr.config import EncodeConfig
    from vaearr.latents import encode as run_encode

    settings = _settings(EncodeConfig, config, sets).replace(run=run)
    with _bar("encoding") as progress:
        run_encode(store, config=settings, say=_say, on_block=progress)
    _say(f"latents of run {settings.run!r} are in {store}; open it with xarray.open_zarr({str(store)!r})")


@app.command()
def associate(
    store: Store,
    run: ChosenRun = None,
    target: Annotated[list[str] | None, typer.Option(help="variable to compare with; repeatable; default: all")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="registered metric; repeatable")] = None,
    top: Annotated[int, typer.Option(help="dimensions to list per target")] = 3,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Compare latent dimensions with band contrast, elements and phases."""
    from vaearr.association import associate_store, top_lines
    from vaearr.config import AssociateConfig

    settings = _settings(AssociateConfig, config, sets).replace(run=run, targets=target or None, metrics=metric or None)
    table = associate_store(store, settings)
    for line in top_lines(table, top=top):
        typer.echo(line)


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

    settings = _settings(ReportConfig, config, sets).replace(run=run, out=out)
    page = run_report(store, config=settings)
    _say(f"the report is {page}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="where to put files, store and report")] = Path("stores/demo"),
) -> None:
    """Make a small EBSD scan from crystal geometry and take it all the way to a report."""
    from vaearr.demo import run_demo

    with _bar("demo") as progress:
        closing = run_demo(folder, say=_say, progress=progress)
    for line in closing:
        typer.echo(line)


def _settings(cls: Any, file: Path | None, sets: list[str] | None) -> Any:
    """Settings from a JSON file and single `key.sub=value` changes."""
    values = {} if file is None else _json_object(file)
    for key, text in _key_values(sets, "--set").items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        *path, last = key.split(".")
        inner = values
        for i, part in enumerate(path, 1):
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                group = ".".join(path[:i])
                raise UsageError(
                    f"--set {key}: {group!r} is set to {inner!r} already, so nothing can be set inside it."
                )
        inner[last] = value
    return cls.from_attrs(values)


def _json_object(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except FileNotFoundError:
        raise UsageError(f"there is no settings file {file}.") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read as a settings file: {error.strerror or error}.") from None
    except ValueError as error:
        raise UsageError(f"{file} is not JSON: {error}.") from None
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise UsageError(f'{file} holds a JSON {kind}; settings are an object, such as {{"epochs": 20}}.')
    return values


def _key_values(items: list[str] | None, option: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{option} {name!r} is not NAME=VALUE.")
        if name in given:
            raise UsageError(f"{option} {name} is given twice, as {given[name]!r} and {value!r}; give it once.")
        given[name] = value
    return given


def _box(text: str | None, option: str) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        start, stop = map(float, text.split(":"))
    except ValueError:
        raise UsageError(f"{option} {text!r} is not START:STOP, such as 20:90.") from None
    return start, stop


def _tell(text: str) -> None:
    typer.echo(text, err=True)


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes, the first speaks
        _tell(text)


@contextmanager
def _bar(what: str) -> Iterator[Callable[..., None]]:
    """A progress bar on a terminal, ten lines elsewhere; `progress(done, total, text)` moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)

        def progress(done: int, total: int, text: str = what) -> None:
            bar.update(task, completed=done, total=total, description=text)
            if not console.is_terminal and done * 10 // total > (done - 1) * 10 // total:
                _say(f"{text}: {done} of {total}")

        yield progress


STOPS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def _explain(error: Exception) -> tuple[str, int]:
    """An error as one line, and its exit code."""
    if isinstance(error, VaearrError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        where = "" if error.filename is None else f" {error.filename}"
        code = NoInputError.exit_code if isinstance(error, FileNotFoundError) else WriteError.exit_code
        return f"cannot read/write{where}: {error.strerror or error}", code
    name = type(error).__name__
    return f"internal error: {name}: {error}; run again with --debug and report it", INTERNAL_ERROR


def main() -> None:
    """Entry point: whatever goes wrong is one line on stderr; `--debug` shows where it came from."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    stops: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stops.append(number)
        raise SystemExit(128 + number)  # not KeyboardInterrupt: typer would end that without a word

    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and the like stay in force
            signal.signal(number, stop)
    try:
        app()
    except (Exception, SystemExit) as error:
        if stops:  # whatever a library made of the SystemExit on its way here
            _tell(f"vaearr: {STOPS[stops[0]]}; nothing unfinished was published, run the same command again")
            raise SystemExit(128 + stops[0]) from None
        if isinstance(error, SystemExit):
            raise
        if debug:
            traceback.print_exc()
        text, code = _explain(error)
        _tell(f"vaearr: {' '.join(text.split())}")
        raise SystemExit(code) from None
