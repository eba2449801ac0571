"""Model and store -> labelled latent maps, streamed shard by shard, and back to patterns.

While one shard is on the device, the next is read and the one before is written.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.artifacts import TrainedModel, check_fits, load_model, read_about
from vaearr.batching.reader import read_samples
from vaearr.batching.tiers import host_tensor, in_words
from vaearr.config import EncodeConfig, RoiConfig, resolved, settings_as_keywords
from vaearr.device import autocast, pick_device, pick_precision
from vaearr.errors import DataError, NoInputError, UsageError, WorkersError
from vaearr.latent_scale import LatentMask, add_channel_attrs, latent_coords, latent_mask
from vaearr.models.windows import decode_windows, encode_windows
from vaearr.provenance import nested
from vaearr.recipe import Recipe, is_made
from vaearr.runs import data_fingerprint, resolve_roi
from vaearr.store import (
    Region,
    Staging,
    VariableSpec,
    check_patterns,
    check_store,
    open_store,
    pending,
    publish_staged,
    read_ahead,
    read_block,
    recover,
    run_folder,
    run_manifest,
    run_names,
    shown,
    staged_variables,
    write_block,
)
from vaearr.store.remove import removable, remove
from vaearr.training import fingerprint
from vaearr.workers import Where, ask, block_name, check_each, check_where, connected, each, kept, store_id
from vaearr.workers import in_words as workers_in_words


@dataclass
class Block:
    """One shard on its way: its chosen points, their patterns `(n, C, …)`, then what was made of them, by name."""

    region: Region
    inside: np.ndarray
    stored: torch.Tensor
    made: dict[str, torch.Tensor]
    copied: torch.cuda.Event | None = None


Blocks = Generator[Block, None, None]


@settings_as_keywords(EncodeConfig)
def encode(
    store: str | Path,
    *,
    source: str | Path | None = None,
    name: str | None = None,
    roi: xr.DataArray | RoiConfig | None = None,
    config: EncodeConfig | None = None,
    dask: Where | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    on_block: Callable[[int, int], None] | None = None,
    **given: Any,
) -> xr.Dataset:
    """Write `latents`, `latents_std` and `reconstruction_error` of a run into its store; NaN outside the run's ROI.

    Vector latents lie over the navigation dims and `latent`, spatial ones over `latent[, lz], ly, lx` with coordinates
    in the units of the samples; with `config.mask` they are NaN where no pixel of the mask lies. Latents of a
    collection, and all spatial ones, say what a diffusion stage needs: see `vaearr.latent_scale.channel_attrs`.

    Posterior mean and standard deviation, so the same call gives the same numbers. The unit of work is a shard: after
    an interruption the same call goes on where it stopped, and nothing is visible before all is written. Latents that
    are there, made the same way, are left as they are; `overwrite` replaces others. Keywords replace single settings of
    `config`. Returns the opened store. Raises NoInputError for a run that is not there, ExistsError for latents made
    otherwise, DataError for a damaged store or model, UsageError for a model of other data.

    source: a store whose run is taken to these data, with its weights, settings and static background: first it becomes
    a run of this store, called `name` (that of the source by default), over `roi` (as in `runs.train`), and a warning
    is said where these data look unlike its training data; see `importing.import_model`. Where this
    store has another run of that name, see `overwrite`.

    dask: the workers that encode the shards, see `vaearr.workers`; they only read the store, and the numbers are those
    of this process with as many threads. `config.device` is picked on each of them. Raises WorkersError where they
    cannot be reached, do not see the store, or die of a shard each time; what is done by then is kept.
    """
    settings = resolved(EncodeConfig, config, given)
    tell = say or (lambda text: None)
    check_where(dask)
    path = check_store(store)
    recover(path)
    if source is not None:
        name = name or settings.run
        _take(path, source, settings, name, roi, overwrite=overwrite, say=tell)
        settings = settings.replace(run=name)
    elif name is not None or roi is not None:
        raise UsageError("name and roi are of a run that is taken from another store; give that store too, or run.")
    run = settings.run
    check_patterns(path)
    manifest = run_manifest(path, run)
    ds = open_store(path, chunks=None)
    recipe = _recipe(settings, manifest)
    replacing = _found(path, ds, recipe, overwrite=overwrite, say=tell)
    if replacing is None:
        return open_store(path)
    model = load_model(path, run, device="cpu" if dask is not None else settings.device)
    check_fits(ds, manifest, model)
    roi = ds[n.run_name(n.ROI, run)].load()
    coords = latent_coords(ds, model, run)
    data = {"data": data_fingerprint(ds)}
    request, specs = recipe.as_attrs() | data, _specs(ds, coords, run, {n.PROVENANCE: recipe.stamp() | data})
    mask = latent_mask(ds, model, settings.mask)
    with (
        _by_workers(path, ds, manifest, settings, dask, tell) as by_workers,
        staged_variables(path, specs, coords=coords, request=request, replacing=replacing) as staging,
    ):
        left = pending(staging)
        if len(left) < len(staging.regions):
            tell(f"going on with an interrupted encode: {len(staging.regions) - len(left)} blocks are done")
        tell(_how(ds, roi, left))
        blocks = by_workers(left, roi) if by_workers else _here(model, ds, roi, left, settings)
        for done, _ in enumerate(_written(staging, blocks, run, mask), len(staging.regions) - len(left)):
            if on_block:
                on_block(done + 1, len(staging.regions))
        if len(model.latent_shape) > 1 or not schema.is_scan(ds):
            add_channel_attrs(staging, n.run_name(n.LATENTS, run), ds[n.run_name(n.SPLIT, run)].load())
        publish_staged(staging)
    return open_store(path)


def _recipe(settings: EncodeConfig, manifest: Mapping[str, Any]) -> Recipe:
    parents = [n.PATTERNS, n.run_name(n.ROI, settings.run)]
    inputs = {"run": settings.run, "parents": parents, "weights_sha256": manifest.get("weights_sha256")}
    return Recipe(settings, inputs)


def _found(
    path: Path, ds: xr.Dataset, recipe: Recipe, *, overwrite: bool, say: Callable[[str], None]
) -> list[str] | None:
    """Variables that go when the new ones are published; None where those that are there were made the same way."""
    run, place = recipe.inputs["run"], shown(path)
    names = [n.run_name(name, run) for name in (n.LATENTS, n.LATENTS_STD, n.RECONSTRUCTION_ERROR)]
    if names[0] not in ds:
        return []
    instead = f"take the run under another name with source='{place}', name='…' (--from {place} --name …)"
    made = nested(ds[names[0]].attrs, n.PROVENANCE)
    there = f"{place} already holds {', '.join(names)}"
    if is_made(there, made, recipe, instead=instead, overwrite=overwrite, say=say):
        return None
    return removable(path, variables=[n.run_name(v, run) for v in n.OF_A_RUN if v not in (n.ROI, n.SPLIT)])


def _take(
    path: Path,
    source: str | Path,
    settings: EncodeConfig,
    name: str,
    roi: xr.DataArray | RoiConfig | None,
    *,
    overwrite: bool,
    say: Callable[[str], None],
) -> None:
    """Have `path` hold a run called `name` with the model of one of `source`."""
    from vaearr.importing import ImportConfig, import_model

    folder = run_folder(source, settings.run) / n.MODEL
    if name in run_names(path):
        own, ds = run_manifest(path, name), open_store(path, chunks=None)
        here = ds[n.run_name(n.ROI, name)].values
        wanted = here if roi is None else resolve_roi(ds, roi).values
        recipe = Recipe(None, {"weights_sha256": read_about(folder)["weights_sha256"], "region": fingerprint(wanted)})
        made = {"weights_sha256": own.get("weights_sha256"), "region": fingerprint(here)}
        if is_made(f"{shown(path)} already has a run {name!r}", made, recipe, overwrite=overwrite):
            return
        remove(path, runs=[name])
    import_model(path, folder, run=name, roi=roi, config=ImportConfig(device=settings.device), say=say)


def _specs(ds: xr.Dataset, coords: xr.Dataset, run: str, stamp: dict[str, Any]) -> dict[str, VariableSpec]:
    nav = schema.navigation_dims(ds)
    dims = {n.LATENTS: (*nav, *map(str, coords.sizes)), n.RECONSTRUCTION_ERROR: nav}
    dims[n.LATENTS_STD] = dims[n.LATENTS]
    return {
        n.run_name(name, run): VariableSpec(dims=dims[name], attrs=n.ATTRS[name] | stamp)
        for name in (n.LATENTS, n.LATENTS_STD, n.RECONSTRUCTION_ERROR)
    }


def _how(ds: xr.Dataset, roi: xr.DataArray, regions: Sequence[Region]) -> str:
    inside = [int(roi.isel(region).sum()) for region in regions]
    sample = ds[n.PATTERNS].nbytes // roi.size
    place = in_words("streamed", sum(inside) * sample, 0.0, max(inside, default=0) * sample)
    return f"encoding {sum(inside)} {schema.samples_word(ds)}, {place}"


def _here(
    model: TrainedModel, ds: xr.Dataset, roi: xr.DataArray, regions: Sequence[Region], config: EncodeConfig
) -> Blocks:
    """Read and encode the blocks in this process, the next one read in a thread of its own."""
    for block in read_ahead(lambda region: _read(model, ds, roi, region), regions):
        _encode_block(model, block, config)
        yield block


def _written(staging: Staging, blocks: Blocks, run: str, mask: LatentMask | None) -> Iterator[Region]:
    """Write the blocks as they come, in a thread of its own; yields a region when it is written."""
    with closing(blocks), ThreadPoolExecutor(1) as writer:  # where a write fails, nobody works on
        behind: Future[Region] | None = None
        for block in blocks:
            if behind:
                yield behind.result()
            behind = writer.submit(_write, staging, block, run, mask)
        if behind:
            yield behind.result()


@contextmanager
def _by_workers(
    store: Path,
    ds: xr.Dataset,
    manifest: Mapping[str, Any],
    config: EncodeConfig,
    dask: Where | None,
    tell: Callable[[str], None],
) -> Iterator[Callable[[Sequence[Region], xr.DataArray], Blocks] | None]:
    """What encodes blocks on Dask workers that all see this store; None without `dask`."""
    if dask is None:
        yield None
        return
    with connected(dask) as client:
        place = shown(store)  # of a working copy the URL: workers elsewhere have copies of their own
        check_each(client, f"the store {place}", ds.attrs[n.STORE_ID], store_id, place)
        found = ask(client, _number_format, config.device, config.precision)
        if len(set(found.values())) > 1:
            formats = ", ".join(f"{worker}: {what}" for worker, what in found.items())
            raise WorkersError(
                f"workers would encode in different ways ({formats}); set precision=float32 or a device."
            )
        tell(workers_in_words(client))
        what = (place, config.run, manifest["weights_sha256"])

        def by_workers(regions: Sequence[Region], roi: xr.DataArray) -> Blocks:
            for region, made in each(client, encode_shard, regions, *what, config.to_attrs(), name=block_name):
                tensors = {name: torch.from_numpy(np.array(values)) for name, values in made.items()}
                yield Block(region, roi.isel(region).values, torch.empty(0), tensors)

        yield by_workers


def _number_format(device: str, precision: str) -> str:
    return str(pick_precision(precision, pick_device(device))).removeprefix("torch.")


def encode_shard(
    region: Region, store: str, run: str, weights_sha256: str, config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """On a worker: latents, standard deviations and errors of one shard's points in the ROI, by name; none for none."""
    settings = EncodeConfig.from_attrs(dict(config))
    model, ds, roi = kept(_opened, store, run, weights_sha256, settings.device)
    block = _read(model, ds, roi, region)
    _encode_block(model, block, settings)
    if block.copied is not None:
        block.copied.synchronize()
    return {name: values.cpu().numpy() for name, values in block.made.items()}


def _opened(store: str, run: str, weights_sha256: str, device: str) -> tuple[TrainedModel, xr.Dataset, xr.DataArray]:
    """Model, patterns and region of a run. Raises DataError where these are other weights than the caller's."""
    if run_manifest(store, run)["weights_sha256"] != weights_sha256:
        raise DataError(f"run {run!r} of {store} has other weights here than where the work was started.")
    ds = open_store(store, chunks=None)
    return load_model(store, run, device=device), ds, ds[n.run_name(n.ROI, run)].load()


def _read(model: TrainedModel, ds: xr.Dataset, roi: xr.DataArray, region: Region) -> Block:
    inside = roi.isel(region).values
    dtype = ds[n.PATTERNS].dtype.newbyteorder("=")
    shape = (int(inside.sum()), *model.input_shape)
    stored = host_tensor(shape, torch.from_numpy(np.empty(0, dtype)).dtype, model.device)
    if len(stored):
        read_samples(ds[n.PATTERNS], region, inside, stored.numpy())
    return Block(region, inside, stored, {})


def _encode_block(model: TrainedModel, block: Block, config: EncodeConfig) -> None:
    """Latents, their standard deviation and the reconstruction error of a block, on their way back to the host."""
    precision = pick_precision(config.precision, model.device)
    parts = []
    for stored in block.stored.split(model.fitting(config.batch_size)) if len(block.stored) else ():
        with autocast(model.device, precision):
            parts.append(_encode_batch(model, stored, config))
    for name, columns in zip(
        (n.LATENTS, n.LATENTS_STD, n.RECONSTRUCTION_ERROR), zip(*parts, strict=True), strict=False
    ):
        values = torch.cat(columns)
        if model.device.type == "cuda":
            values = host_tensor(tuple(values.shape), values.dtype, model.device).copy_(values, non_blocking=True)
        block.made[name] = values
    block.stored = torch.empty(0)  # no longer needed while the block waits to be written
    if model.device.type == "cuda":
        block.copied = torch.cuda.Event()
        block.copied.record()


def _write(staging: Staging, block: Block, run: str, mask: LatentMask | None) -> Region:
    """Write a block, NaN outside the ROI and where the mask has no pixel."""
    if block.copied is not None:
        block.copied.synchronize()
    values = {}
    for name in (n.LATENTS, n.LATENTS_STD, n.RECONSTRUCTION_ERROR):
        array = staging.arrays[n.run_name(name, run)]
        full = np.full((*block.inside.shape, *array.shape[block.inside.ndim :]), np.nan, np.float32)
        if name in block.made:
            full[block.inside] = block.made[name].cpu().numpy()
        if mask is not None and name != n.RECONSTRUCTION_ERROR:
            full = mask(full, block.region)
        values[n.run_name(name, run)] = full
    write_block(staging, block.region, values)
    return block.region


@torch.inference_mode()
def _encode_batch(model: TrainedModel, stored: torch.Tensor, config: EncodeConfig) -> tuple[torch.Tensor, ...]:
    seen = model.preprocess(stored.to(model.device, non_blocking=True))
    if config.window is None:
        mean, logvar = model.network.encode(seen)
        decoded = model.network.decode(mean)
    else:
        mean, logvar = encode_windows(model.network, seen, config.window, config.overlap)
        decoded = decode_windows(model.network, mean, config.window, config.overlap)
    off = (seen - decoded).flatten(1)
    error = torch.linalg.vector_norm(off, dim=1).square() / off.shape[1]
    return mean.float(), (0.5 * logvar.float()).exp(), error


def reconstruct(store: str | Path, *, run: str = n.DEFAULT_RUN, n_samples: int = 8, seed: int = 0) -> xr.Dataset:
    """Patterns as the network sees them and as it decodes them, for scan points spread over the validation part.

    Variables `input` and `reconstruction`, `(sample, [channel,] dy, dx)`, in preprocessed units; the navigation
    coordinates of each sample as coordinates of `sample`. A seeded choice; posterior mean.
    """
    ds = open_store(store, chunks=None)
    manifest = run_manifest(store, run)
    model = load_model(store, run)
    check_fits(ds, manifest, model)
    parts = ds[n.run_name(n.SPLIT, run)].load()
    candidates = np.argwhere(parts.values == n.VALIDATION)
    if not len(candidates):
        candidates = np.argwhere(parts.values == n.TRAIN)
    if not len(candidates):
        raise NoInputError(f"run {run!r} of {store} has no scan point in its split; train it again.")
    if n_samples < 1:
        raise UsageError(f"n_samples is {n_samples}; it must be at least 1.")
    chosen = np.random.default_rng(seed).permutation(len(candidates))[:n_samples]
    points = candidates[np.sort(chosen)]
    places = [{str(dim): slice(i, i + 1) for dim, i in zip(parts.dims, map(int, p), strict=True)} for p in points]
    stored = np.concatenate([read_block(ds[n.PATTERNS], place) for place in places])
    raw = torch.from_numpy(stored.reshape(-1, *model.input_shape))
    shape = (len(points), *stored.shape[parts.ndim :])
    with torch.inference_mode():
        seen = model.preprocess(raw)
    decoded = torch.cat([model.decode_batch(model.encode_batch(s)[0]) for s in raw.split(model.fitting(len(raw)))])
    coords = {dim: (n.SAMPLE, ds[dim].values[points[:, i]], ds[dim].attrs) for i, dim in enumerate(parts.dims)}
    dims = (n.SAMPLE, *schema.signal_dims(ds))
    return xr.Dataset(
        {
            "input": (dims, seen.numpy().reshape(shape), {"long_name": "pattern as the network sees it"}),
            "reconstruction": (dims, decoded.numpy().reshape(shape), {"long_name": "decoded posterior mean"}),
        },
        coords=coords if n.SAMPLE not in parts.dims else {n.SAMPLE: ds[n.SAMPLE].isel({n.SAMPLE: points[:, 0]})},
        attrs={"run": run, "weights_sha256": manifest["weights_sha256"], "seed": seed},
    )
