"""Encoded latents as shuffled torch batches, by class and split: what a second stage, such as diffusion, trains on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
import xarray as xr
from torch.utils.data import IterableDataset

from vaearr import names as n
from vaearr import schema
from vaearr.batching import PatternBatches, batches
from vaearr.errors import DataError, UsageError, did_you_mean
from vaearr.run import StoreOrRun, load_run
from vaearr.run.stream import part_map
from vaearr.schema import categories
from vaearr.schema.grid import class_map


class LatentBatch(NamedTuple):
    """latents: `(B, *latent_shape)` float32, 0 where missing. known: `(B, 1, *positions)` bool, `(B, 1)` for vectors.
    labels: class code of each sample, int64 `(B,)`, -1 where unknown; None without labels."""

    latents: torch.Tensor
    known: torch.Tensor
    labels: torch.Tensor | None


class LatentBatches(IterableDataset[LatentBatch]):
    """Batches of a run's latents, made by `latent_batches`; each iteration is the next epoch.

    latent_shape: of one sample. scale: what stored latents were multiplied by. n_samples: per epoch. classes: the codes
    that `labels` may hold.
    """

    def __init__(
        self, stored: PatternBatches, scale: float, latent_shape: tuple[int, ...], classes: Sequence[int]
    ) -> None:
        self.stored, self.scale, self.latent_shape = stored, scale, latent_shape
        self.n_samples, self.classes = stored.n_samples_total, tuple(int(code) for code in classes)
        self._epoch = 0

    def __iter__(self) -> Iterator[LatentBatch]:
        yield from self.epoch(self._epoch)
        self._epoch += 1

    def __len__(self) -> int:
        return len(self.stored)

    def __repr__(self) -> str:
        return f"<latents times {self.scale:.3g}: {self.stored!r}>"

    def epoch(self, number: int) -> Iterator[LatentBatch]:
        """The batches of an epoch; the same number gives the same ones."""
        for batch in self.stored.epoch(number):
            z, labels = batch.patterns.reshape(-1, *self.latent_shape) * self.scale, batch.labels
            known = torch.isfinite(z).all(1, keepdim=True)
            if labels is not None:  # positions among the classes, the last for unknown
                labels = torch.tensor([*self.classes, -1], device=labels.device)[labels]
            yield LatentBatch(torch.where(known, z, 0.0), known, labels)


def latent_batches(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    *,
    batch_size: int = 64,
    part: Literal["train", "validation", "all"] = "train",
    label: str | None = None,
    classes: Sequence[str | int] = (),
    scaled: bool = True,
    shuffle: bool = True,
    seed: int = 0,
    memory: float = 2.0,
    device: torch.device | str = "cpu",
) -> LatentBatches:
    """Latents (posterior means) that `encode` wrote, streamed from the store and from nowhere else.

    part: of the run's split. label: map of classes that comes with the batches. classes: take samples of these alone,
    by name or code. scaled: times `diffusion_scale`, so that all values have standard deviation 1 over the training
    part. memory: GiB that latents may take; more is streamed. Deterministic by (seed, epoch).

    Raises NoInputError for a run that is not there or not encoded, DataError for latents without a scale, UsageError
    for a part, label or class that is not there, RoiError where no sample is left.
    """
    opened = load_run(store, run)
    ds, latents, nav = opened.ds, opened.latents, schema.navigation_dims(opened.ds)
    scale, own = latents.attrs.get("diffusion_scale"), latents.dims[len(nav) :]
    if scaled and not scale:
        raise DataError(
            f"{latents.name!r} says no 'diffusion_scale': it was written for a scan, by another program, or all its "
            "values are equal; pass scaled=False."
        )
    view = xr.Dataset({n.PATTERNS: latents.rename({own[0]: n.CHANNEL}).drop_vars([*own], errors="ignore")})
    view[n.PATTERNS].attrs = {n.NAVIGATION_DIMS: list(nav), n.SIGNAL_DIMS: [n.CHANNEL, *map(str, own[1:])]}
    chosen, (positions, codes) = part_map(opened, part), class_map(ds, label) if label else (None, ())
    if classes:
        chosen = chosen & _of_classes(ds, label, classes).transpose(*nav)
    stored = batches(
        view,
        batch_size=batch_size,
        roi=chosen.drop_attrs().rename(n.ROI),
        shuffle=shuffle,
        seed=seed,
        memory=memory,
        device_memory=0.0,
        device=device,
        labels=positions,
    )
    return LatentBatches(stored, float(scale) if scaled and scale else 1.0, opened.latent_shape, codes)


def _of_classes(ds: xr.Dataset, label: str | None, classes: Sequence[str | int]) -> xr.DataArray:
    """Samples of the classes that are meant, as a boolean map."""
    if label is None:
        raise UsageError("classes need the map that they are classes of: label='label'.")
    named = categories(ds[label])
    known = {str(code): code for code in named} | {text: code for code, text in named.items()}
    if unknown := [item for item in classes if str(item) not in known]:
        raise UsageError(
            f"{label!r} has no class {unknown[0]!r}.{did_you_mean(str(unknown[0]), sorted(named.values()))}"
        )
    return ds[label].load().isin([known[str(item)] for item in classes])
