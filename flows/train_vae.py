"""Store -> trained run and its latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaearr.config import EncodeConfig, RoiConfig, TrainConfig
from vaearr.names import DEFAULT_RUN, HEALTH, LATENT, LATENTS, run_name

from .encode import encode_step
from .running import is_recorded, kept_flow, place, progress, step, tell
from .showing import picture, store_key, table, text


@step("train-vae")
def train_step(
    store: Path, run: str, roi: RoiConfig | None, config: TrainConfig, overwrite: bool = False, restart: bool = False
) -> dict[str, Any]:
    """Train a VAE and publish it as a run of the store; one that was trained so already is left as it is."""
    from vaearr.provenance import as_json
    from vaearr.store import open_table

    _train(store, run, roi, config, overwrite, restart)
    health = open_table(store, run, HEALTH).attrs
    kept = {key: as_json(health[key]) for key in ("n_active", "explained_variance", "warnings")}
    return {"store": place(store), "run": run, **kept}


def _train(store: Path, run: str, roi: RoiConfig | None, config: TrainConfig, overwrite: bool, restart: bool) -> None:
    from vaearr.runs import train

    with progress("training", store_key("train-progress", store, run)) as show:

        def on_epoch(epoch: int, row: dict[str, float]) -> None:
            held_out = f", validation {row['val_loss']:.1f}" if "val_loss" in row else ""
            words = f"loss {row['loss']:.1f}{held_out} nats per sample"
            if is_recorded():  # a log keeps what a bar shows only
                tell(f"epoch {epoch + 1} of at most {config.epochs}: {words}")
            show(epoch + 1, config.epochs, words)

        result = train(
            store, run=run, roi=roi, config=config, overwrite=overwrite, restart=restart, say=tell, on_epoch=on_epoch
        )
        count = result.manifest["epochs_run"]
        show(count, count, f"trained, best epoch {result.manifest['best_epoch']}; epochs")
    _show(store, run, result)


def _show(store: Path, run: str, result: Any) -> None:
    from vaearr.views import view

    health, manifest = result.health, result.manifest
    words = [
        f"**{store.name}, run {run}**: {health.attrs['n_active']} of {health.sizes[LATENT]} latent dimensions active, "
        f"{health.attrs['explained_variance']:.1%} of the patterns' variance, noise included, explained; best epoch "
        f"{manifest['best_epoch']} of {manifest['epochs_run']}, {manifest['n_train']} points trained, "
        f"{manifest['n_validation']} validated.",
        *(f"- {warning}" for warning in health.attrs["warnings"]),
    ]
    text(store_key("train-vae", store, run), "\n\n".join(words), f"run {run} of {store.name}")
    rows = health.to_dataframe().reset_index().to_dict("records")
    table(store_key("train-vae-health", store, run), rows, "health of each latent dimension (KL in nats)")
    history = result.history
    loss, active = (store_key(f"train-vae-{what}", store, run) for what in ("loss", "active"))
    picture(store, loss, lambda: view(history, kind="history"), "loss curves")
    picture(store, active, lambda: view(health, kind="run_health"), "KL of each latent dimension")


@kept_flow(name="train-vae")
def train_flow(
    store: Path,
    run: str = DEFAULT_RUN,
    roi: RoiConfig | None = None,
    config: TrainConfig = TrainConfig(),  # noqa: B008  (frozen)
    overwrite: bool = False,
    restart: bool = False,
    encode: bool = True,
) -> dict[str, Any]:
    """Train a VAE on a store's patterns and write its latents; returns their health. After an interruption it goes on.

    Args:
        store: zarr store, as made by ingest
        run: name of the run; 'vae' writes latents, 'b' writes latents_b
        roi: points to train on; none = those of the run 'vae', else all that were measured
        config: everything that decides the training
        overwrite: replace a run of this name that was trained otherwise, with its latents and tables
        restart: throw an interrupted training of this run away
        encode: write the latents into the store too; those of the run that are there already stay
    """
    from vaearr.store import open_store

    health = train_step(store, run, roi, config, overwrite, restart)
    if encode and run_name(LATENTS, run) not in open_store(store, chunks=None):
        encode_step(store, EncodeConfig(run=run))
    return health
