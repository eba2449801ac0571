"""The command that takes a model which was trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaearr.cli.common import Sets, Settings, Store, app, say, settings_from


@app.command("import")
def import_model(
    store: Store,
    checkpoint: Annotated[Path, typer.Argument(help="model folder of a run, or .safetensors, .pt, .pth or .ckpt file")],
    run: Annotated[str, typer.Option("--run", help="name of the run that the model becomes")],
    layout: Annotated[str | None, typer.Option(help="of its names: auto, ldm, diffusers, monai or vaearr")] = None,
    prefix: Annotated[str | None, typer.Option(help="before its names, where the file holds several models")] = None,
    model: Annotated[str | None, typer.Option(help="registered model; default: autoencoder-kl")] = None,
    latent_dim: Annotated[int | None, typer.Option(help="latent dimensions; default: from the checkpoint")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps")] = None,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Make a model trained elsewhere, by vaearr or as Stable Diffusion's VAE, a run of a store.

    A model folder of vaearr's brings its settings and background. Of other checkpoints, of which nothing is unpickled,
    the options come from the shapes of the weights; --set options.groups=16 and the like replace single ones.
    """
    from vaearr.importing import ImportConfig
    from vaearr.importing import import_model as run_import

    settings = settings_from(ImportConfig, config, sets).replace(
        layout=layout, prefix=prefix, model=model, latent_dim=latent_dim, device=device
    )
    result = run_import(store, checkpoint, run=run, config=settings, say=say)
    health = result.health.attrs
    say(
        f"run {run!r}: {health['n_active']} of {result.health.sizes['latent']} latent dimensions active, "
        f"{health['explained_variance']:.1%} of the patterns' variance explained"
    )
    say(f"next: 'vaearr encode {store} --run {run}'")
