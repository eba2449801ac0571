"""Commands that train a model and write its latents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vaearr.cli.common import (
    BoxX,
    BoxY,
    BoxZ,
    ChosenRun,
    Condition,
    DaskWorkers,
    Overwrite,
    RunName,
    Sets,
    Settings,
    Store,
    app,
    bar,
    region,
    say,
    settings_from,
)
from vaearr.errors import UsageError
from vaearr.names import DEFAULT_RUN
from vaearr.presets import PRESETS, check_preset, preset_settings


@app.command()
def train(
    store: Store,
    run: RunName = DEFAULT_RUN,
    x: BoxX = None,
    y: BoxY = None,
    z: BoxZ = None,
    where: Condition = None,
    points: Annotated[
        Path | None, typer.Option(help="ROI as a CSV with x, y of the points, as written by 'vaearr contrast --keep'")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"settings that go together, which all others replace: {', '.join(PRESETS)}")
    ] = None,
    model: Annotated[str | None, typer.Option(help="registered model")] = None,
    latent_dim: Annotated[int | None, typer.Option(help="latent dimensions")] = None,
    epochs: Annotated[int | None, typer.Option(help="most epochs")] = None,
    batch_size: Annotated[int | None, typer.Option(help="patterns per step")] = None,
    beta: Annotated[float | None, typer.Option(help="weight of the KL divergence")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="highest learning rate")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="seed of split, weights and order")] = None,
    init: Annotated[
        str | None, typer.Option(help="run, model folder or checkpoint file whose weights to start from")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="checkpoint file to go on from")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="throw an interrupted training of this run away")] = False,
    overwrite: Overwrite = False,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Train a VAE on a store's patterns; after an interruption, go on where it was.

    The ROI, where none of --x, --y, --z, --where, --points is given: that of the run 'vae' if there is one, else every
    measured point.
    """
    from vaearr.config import TrainConfig, resolved
    from vaearr.runs import train as run_train
    from vaearr.side_maps import read_kept_coordinates
    from vaearr.store import open_store

    base = _preset(store, preset) if preset else None
    roi = region(x, y, z, where)
    if points:
        if roi is not None:
            raise UsageError("--points lists the points of the ROI; leave out --x, --y, --z and --where.")
        roi = read_kept_coordinates(open_store(store, chunks=None), points)
    flat = {"model": model, "latent_dim": latent_dim, "beta": beta, "epochs": epochs, "batch_size": batch_size}
    flat |= {"learning_rate": learning_rate, "device": device, "seed": seed, "init": init}
    given = {name: value for name, value in flat.items() if value is not None}
    settings = resolved(TrainConfig, settings_from(TrainConfig, config, sets, base), given)
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


def _preset(store: str, name: str) -> dict[str, Any]:
    from vaearr.schema import input_shape
    from vaearr.store import open_store

    settings = preset_settings(name)
    check_preset(name, len(input_shape(open_store(store, chunks=None))) - 1)
    return settings


@app.command()
def encode(
    store: Store,
    run: ChosenRun = None,
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
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Write a run's latents into the store; with --from, those of a model that was trained in another store.

    The ROI is chosen with --from only; else it is that of the run.
    """
    from vaearr.config import EncodeConfig
    from vaearr.latents import encode as run_encode
    from vaearr.store import as_url

    settings = settings_from(EncodeConfig, config, sets).replace(run=run)
    with bar("encoding") as progress:
        roi = region(x, y, z, where)
        run_encode(
            store, source=source, name=name, roi=roi, config=settings, dask=dask, overwrite=overwrite, say=say,
            on_block=progress,
        )  # fmt: skip
    opens = "vaearr.open_store" if as_url(store) else "xarray.open_zarr"
    say(f"latents of run {name or settings.run!r} are in {store}; open it with {opens}({str(store)!r})")
