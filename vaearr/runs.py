"""From a store to a trained run in it: ROI, split, training, health, artefact, all published together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import grid, schema
from vaearr import names as n
from vaearr.config import RoiConfig, TrainConfig
from vaearr.errors import RoiError, UsageError
from vaearr.provenance import now, versions
from vaearr.store import (
    check_patterns,
    check_run_name,
    check_store,
    open_store,
    publish_run,
    recover,
    staged_run,
    write_dataset,
)

MIN_SAMPLES = 16
GIVEN = "given as a map"


@dataclass(frozen=True)
class Run:
    """A finished training: where it is, how it went, whether its latents are alive."""

    store: Path
    name: str
    history: xr.Dataset
    health: xr.Dataset
    manifest: Mapping[str, Any]


def train(
    store: str | Path,
    *,
    run: str = n.DEFAULT_RUN,
    roi: xr.DataArray | RoiConfig | None = None,
    config: TrainConfig | None = None,
    model: str | None = None,
    latent_dim: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    beta: float | None = None,
    learning_rate: float | None = None,
    device: str | None = None,
    seed: int | None = None,
    say: Callable[[str], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> Run:
    """Train a VAE on the scan points of the ROI and publish it as `/runs/<run>` with its `roi` and `split` maps.

    roi: a map from `va.roi`, or conditions; None takes the ROI of the default run if the store has one, else every
    measured point. Other keywords replace single settings of `config`. Nothing is visible in the store before all is
    finished. Raises ExistsError for a run name that is taken, RoiError and UsageError for settings that do not fit.
    """
    settings = settings_for(
        config,
        model=model,
        latent_dim=latent_dim,
        epochs=epochs,
        batch_size=batch_size,
        beta=beta,
        learning_rate=learning_rate,
        device=device,
        seed=seed,
    )
    check_run_name(run)
    tell = say or (lambda text: None)
    path = check_store(store)
    recover(path)
    check_patterns(path)
    ds = open_store(path, chunks=None)
    mask = resolve_roi(ds, roi)
    if int(mask.sum()) < MIN_SAMPLES:
        raise RoiError(f"the ROI has {int(mask.sum())} scan points; training needs at least {MIN_SAMPLES}. Widen it.")
    parts = grid.split(mask, settings.split, seed=settings.seed)
    with staged_run(path, run) as folder:
        if roi is None and n.ROI in ds:
            tell(f"the ROI is that of run {n.DEFAULT_RUN!r}, {int(mask.sum())} scan points")
        history, health, about = _train_into(ds, parts, settings, folder / n.MODEL, tell, on_step, on_epoch)
        manifest = {
            **about,
            "run": run,
            "state": "trained",
            "roi": mask.attrs.get("config", GIVEN),
            "n_roi": int(mask.sum()),
        }
        write_dataset(history, folder / n.HISTORY, run=run)
        write_dataset(health, folder / n.HEALTH, run=run)
        maps = xr.Dataset({n.run_name(n.ROI, run): mask, n.run_name(n.SPLIT, run): parts})
        publish_run(path, run, folder, manifest, maps)
    for warning in health.attrs["warnings"]:
        tell(f"warning: {warning}")
    return Run(path, run, history, health, manifest)


def settings_for(
    config: TrainConfig | None,
    *,
    model: str | None = None,
    latent_dim: int | None = None,
    beta: float | None = None,
    **flat: Any,
) -> TrainConfig:
    """The training settings with single ones replaced; None leaves a setting as it is."""
    base = config or TrainConfig()
    return base.replace(
        model=base.model.replace(name=model, latent_dim=latent_dim).to_attrs(),
        objective=base.objective.replace(beta=beta).to_attrs(),
        **flat,
    )


def resolve_roi(ds: xr.Dataset, roi: xr.DataArray | RoiConfig | None) -> xr.DataArray:
    """The boolean ROI map that is meant: given, by conditions, the store's own, or all measured points."""
    if isinstance(roi, RoiConfig):
        return grid.roi(ds, config=roi)
    if roi is None:
        return ds[n.ROI].load() if n.ROI in ds else grid.roi(ds)
    mask = grid.check_map(ds, roi)
    if n.PRESENT in ds:
        mask = mask & ds[n.PRESENT].load()
    config = roi.attrs.get("config")
    known = {"config": config} if isinstance(config, dict) else {}
    return mask.rename(n.ROI).drop_attrs().assign_attrs({**n.ATTRS[n.ROI], **known, "n": int(mask.sum())})


def _train_into(
    ds: xr.Dataset,
    parts: xr.DataArray,
    settings: TrainConfig,
    folder: Path,
    tell: Callable[[str], None],
    on_step: Callable[[int, int], None] | None,
    on_epoch: Callable[[int, dict[str, float]], None] | None,
) -> tuple[xr.Dataset, xr.Dataset, dict[str, Any]]:
    from vaearr.artifacts import TrainedModel, save_model
    from vaearr.batching import PatternBatches, batches
    from vaearr.device import pick_device, pick_precision
    from vaearr.quality import MIN_SAMPLES as HEALTH_SAMPLES
    from vaearr.quality import latent_health
    from vaearr.training import fit, seeded

    device = pick_device(settings.device)

    def part(value: int) -> PatternBatches:
        return batches(
            ds,
            split=parts,
            part=value,
            batch_size=settings.batch_size,
            shuffle=value == n.TRAIN,
            seed=settings.seed,
            memory=settings.memory,
            device=device,
        )

    train = part(n.TRAIN)
    validation = part(n.VALIDATION) if bool((parts == n.VALIDATION).any()) else None
    with seeded(settings.seed, device):
        model = TrainedModel(
            model=settings.model,
            preprocess=settings.preprocess,
            input_shape=schema.input_shape(ds),
            signal_dims=schema.signal_dims(ds),
            dtype=str(ds[n.PATTERNS].dtype),
        ).to(device)
    folder.mkdir(parents=True)
    model.preprocess.fit(train)
    n_weights = sum(p.numel() for p in model.network.parameters())
    n_validation = validation.n_samples if validation else 0
    precision = str(pick_precision(settings.precision, device)).removeprefix("torch.")
    tell(
        f"training {settings.model.name} ({n_weights / 1e6:.2f} M weights) on {train.n_samples} scan points, "
        f"{n_validation} for validation, {'in memory' if train.is_resident else 'streamed'}, on {device} in {precision}"
    )
    result = fit(model, train, validation, settings, folder, on_step=on_step, on_epoch=on_epoch)
    judged = validation if n_validation >= HEALTH_SAMPLES else train
    health = latent_health(model, judged or train)
    about = {
        "config": settings.to_attrs(),
        "data": data_fingerprint(ds),
        "n_train": train.n_samples,
        "n_validation": n_validation,
        "n_weights": n_weights,
        "best_epoch": result.best_epoch,  # counted from 1, as in the history
        "epochs_run": int(result.history.sizes[n.EPOCH]),
        "stopped_early": result.stopped_early,
        "versions": versions(),
        "time": now(),
    }
    described = save_model(model, folder, about)
    return result.history, health, {**about, "weights_sha256": described["weights_sha256"]}


def data_fingerprint(ds: xr.Dataset) -> dict[str, Any]:
    """What identifies the patterns a model saw: the store, the checksum of the patterns, their shape and dtype."""
    patterns = ds[n.PATTERNS]
    return {
        "store_id": ds.attrs.get(n.STORE_ID),
        "sha256": patterns.attrs.get("sha256"),
        "dims": list(map(str, patterns.dims)),
        "shape": list(patterns.shape),
        "dtype": str(patterns.dtype),
    }


def check_fits(ds: xr.Dataset, manifest: Mapping[str, Any], model: Any) -> None:
    """Raise UsageError, naming both sides, unless the model was trained on samples of this shape."""
    if tuple(model.input_shape) != schema.input_shape(ds):
        raise UsageError(
            f"run {manifest.get('run')!r} was trained on samples of shape {tuple(model.input_shape)}, the store has "
            f"{schema.input_shape(ds)}; train a run on this store."
        )
