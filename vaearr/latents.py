"""Model and Dataset -> labelled latent maps, streamed block by block, and back to patterns.

While one block is on the device, the next is read and the one before is written; on a cluster, workers read and encode
the blocks, and this process writes them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.artifacts import SEEN, TrainedModel, check_fits, check_network, load_model, read_about
from vaearr.blocks import (
    Blocks,
    check_grid,
    in_chunks,
    is_same,
    on_grid,
    read_chosen,
    seen,
    sides,
    store_of,
    take_rows,
)
from vaearr.computing import Where, check_where, connected, each, in_words
from vaearr.config import EncodeConfig, RoiConfig, resolved, settings_as_keywords
from vaearr.device import autocast, host_tensor, pick_precision
from vaearr.errors import DataError, NoInputError, UsageError
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
    open_store,
    pending,
    publish_staged,
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
from vaearr.stream import write_behind
from vaearr.training import fingerprint

VALUES = (n.LATENTS, n.LATENTS_STD, n.RECONSTRUCTION_ERROR)


class Made(NamedTuple):
    """What a block's chosen patterns became, by name (nothing for none), and the copy from the device that runs."""

    values: Mapping[str, torch.Tensor]
    copied: torch.cuda.Event | None = None


Done = Iterator[tuple[Region, np.ndarray, Made]]  # a block, its chosen points, and that


@settings_as_keywords(EncodeConfig)
def encode(
    data: str | Path | xr.Dataset,
    *,
    store: str | Path | None = None,
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

    data: the store, or the Dataset that the run was trained on, with its lazy steps, whose chunks are what is read; it
    goes into the store that it was opened from, or into `store`.

    Vector latents lie over the navigation dims and `latent`, spatial ones over `latent[, lz], ly, lx` with coordinates
    in the units of the samples; with `config.mask` they are NaN where no pixel of the mask lies. Latents of a
    collection, and all spatial ones, say what a diffusion stage needs: see `vaearr.latent_scale.channel_attrs`.

    Posterior mean and standard deviation, so the same call gives the same numbers. The unit of work is a chunk of the
    store: after an interruption the same call goes on where it stopped, and nothing is visible before all is written.
    Latents that are there, made the same way, are left as they are; `overwrite` replaces others. Keywords replace
    single settings of `config`. Returns the opened store. Raises NoInputError for a run that is not there, ExistsError
    for latents made otherwise, DataError for a damaged store or model, UsageError for a model of other data.

    source: a store whose run is taken to these data, with its weights, settings and static background: first it becomes
    a run of this store, called `name` (that of the source by default), over `roi` (as in `runs.train`), and a warning
    is said where these data look unlike its training data; see `importing.import_model`. Where this store has another
    run of that name, see `overwrite`.

    dask: the workers that read and encode the blocks, see `vaearr.computing`; by default those of the client in use, if
    there is one. They only read the store. `config.device` is picked on each of them. Raises WorkersError where they
    cannot be reached or die of a block each time; what is done by then is kept.
    """
    settings = resolved(EncodeConfig, config, given)
    check_where(dask)
    tell, path = say or (lambda text: None), store_of(data, store)
    recover(path)
    if source is not None:
        name = name or settings.run
        _take(path, data, source, settings, name, roi, overwrite=overwrite, say=tell)
        settings = settings.replace(run=name)
    elif name is not None or roi is not None:
        raise UsageError("name and roi are of a run that is taken from another store; give that store too, or run.")
    check_patterns(path)
    run, own = settings.run, open_store(path)
    manifest = run_manifest(path, run)
    check_network(manifest, run, "encode")
    recipe = _recipe(settings, manifest)
    if (replacing := _found(path, own, recipe, overwrite=overwrite, say=tell)) is None:
        return own
    with connected(dask) as client:
        model = load_model(path, run, device="cpu" if client else settings.device)
        ds = data if isinstance(data, xr.Dataset) else own
        check_fits(ds, manifest, model, is_given=ds is not own)
        roi = own[n.run_name(n.ROI, run)].load()
        ds, patterns = _as_trained(ds, own, manifest, roi)
        mask, coords = latent_mask(ds, model, settings.mask), latent_coords(ds, model, run)
        request = recipe.as_attrs() | {"data": patterns}
        specs = _specs(own, coords, run, {n.PROVENANCE: recipe.stamp() | {"data": patterns}})
        with staged_variables(path, specs, coords=coords, request=request, replacing=replacing) as staging:
            left, total = pending(staging), len(staging.regions)
            _tell_how(tell, client, own, roi, left, total)
            if client:
                done = _by_workers(client, ds, roi.values, left, staging, shown(path), manifest, settings)
            else:
                done = _here(model, ds, roi.values, left, staging, settings)
            write = functools.partial(_write, staging, run, mask)
            for i, _ in enumerate(write_behind(write, done), total - len(left) + 1):
                if on_block:
                    on_block(i, total)
            if len(model.latent_shape) > 1 or not schema.is_scan(own):
                add_channel_attrs(staging, n.run_name(n.LATENTS, run), own[n.run_name(n.SPLIT, run)].load())
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
    names = [n.run_name(name, run) for name in VALUES]
    if names[0] not in ds:
        return []
    instead = f"take the run under another name with source='{place}', name='…' (--from {place} --name …)"
    made = nested(ds[names[0]].attrs, n.PROVENANCE)
    there = f"{place} already holds {', '.join(names)}"
    if is_made(there, made, recipe, instead=instead, overwrite=overwrite, say=say):
        return None
    return removable(path, variables=[n.run_name(v, run) for v in n.OF_A_RUN if v not in (n.ROI, n.SPLIT)])


def _as_trained(
    ds: xr.Dataset, own: xr.Dataset, manifest: Mapping[str, Any], roi: xr.DataArray
) -> tuple[xr.Dataset, dict[str, Any]]:
    """The patterns on the store's grid, and their fingerprint. Raises UsageError for other ones than the run's."""
    fingerprint = data_fingerprint(own)
    if ds is own:
        return own, fingerprint
    check_grid(ds, own)
    trained_on = manifest.get("data", {}).get(SEEN)
    if not is_same(seen(ds, roi), trained_on or seen(own, roi)):
        raise UsageError(
            f"run {manifest.get('run')!r} was trained on other patterns than those of this Dataset; give the Dataset "
            "with the same steps as for training."
        )
    # what lies outside the region is never read; any value will do
    ds = ds.drop_vars([name for name in ds.data_vars if name != n.PATTERNS])
    return on_grid(ds, own, fill=0).assign_attrs(own.attrs), fingerprint | ({SEEN: trained_on} if trained_on else {})


def _take(
    path: Path,
    data: str | Path | xr.Dataset,
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

    if isinstance(data, xr.Dataset):
        raise UsageError("a run of another store is taken to a store's own patterns; give a path, or leave source out.")
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


def _tell_how(
    tell: Callable[[str], None], client: Any, own: xr.Dataset, roi: xr.DataArray, left: Sequence[Region], total: int
) -> None:
    if len(left) < total:
        tell(f"going on with an interrupted encode: {total - len(left)} blocks are done")
    count = sum(int(roi.isel(region).sum()) for region in left)
    tell(f"encoding {count} {schema.samples_word(own)}" + (f" {in_words(client)}" if client else ""))


def _specs(ds: xr.Dataset, coords: xr.Dataset, run: str, stamp: dict[str, Any]) -> dict[str, VariableSpec]:
    nav = schema.navigation_dims(ds)
    dims = {n.LATENTS: (*nav, *map(str, coords.sizes)), n.RECONSTRUCTION_ERROR: nav}
    dims[n.LATENTS_STD] = dims[n.LATENTS]
    return {
        n.run_name(name, run): VariableSpec(dims=dims[name], attrs=n.ATTRS[name] | stamp)
        for name in (n.LATENTS, n.LATENTS_STD, n.RECONSTRUCTION_ERROR)
    }


def _here(
    model: TrainedModel,
    ds: xr.Dataset,
    inside: np.ndarray,
    regions: Sequence[Region],
    staging: Staging,
    config: EncodeConfig,
) -> Done:
    """Read and encode the blocks in this process, the next one read in a thread of its own."""
    blocks = Blocks(ds[n.PATTERNS], schema.navigation_dims(ds), sides(staging.regions))
    for region, chosen, stored in read_chosen(blocks, inside, model.input_shape, regions, model.device):
        yield region, chosen, _encode_block(model, stored, config)


def _by_workers(
    client: Any,
    ds: xr.Dataset,
    inside: np.ndarray,
    regions: Sequence[Region],
    staging: Staging,
    store: str | Path,
    manifest: Mapping[str, Any],
    config: EncodeConfig,
) -> Done:
    """Have workers read and encode the blocks: one task for each, behind those that make its patterns."""
    by = sides(staging.regions)
    parts = in_chunks(ds[n.PATTERNS], schema.navigation_dims(ds), by).data.to_delayed()
    items = []
    for region in regions:
        chosen = inside[tuple(region.values())]
        if chosen.any():
            place = tuple(part.start // by[dim] for dim, part in region.items())
            items.append((region, chosen, parts[place].item()))
        else:
            yield region, chosen, Made({})
    what = (str(store), config.run, str(manifest["weights_sha256"]), config.to_attrs())
    for (region, chosen, _), made in each(client, encode_block, items, schema.input_shape(ds), *what):
        yield region, chosen, Made({name: torch.from_numpy(np.array(values)) for name, values in made.items()})


def encode_block(
    block: tuple[Region, np.ndarray, np.ndarray],
    shape: tuple[int, ...],
    store: str,
    run: str,
    weights_sha256: str,
    config: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """On a worker: latents, standard deviations and errors of one block's chosen points, by name."""
    _, chosen, patterns = block
    settings = EncodeConfig.from_attrs(dict(config))
    model = _kept_model(store, run, weights_sha256, settings.device)
    stored = np.empty((int(chosen.sum()), *shape), patterns.dtype.newbyteorder("="))
    take_rows(patterns, np.flatnonzero(chosen), stored)
    made = _encode_block(model, torch.from_numpy(stored), settings)
    if made.copied:
        made.copied.synchronize()
    return {name: values.numpy() for name, values in made.values.items()}


@functools.lru_cache(maxsize=2)
def _kept_model(store: str, run: str, weights_sha256: str, device: str) -> TrainedModel:
    """The model of a run, loaded once in a worker. Raises DataError where it has other weights than the caller's."""
    if run_manifest(store, run)["weights_sha256"] != weights_sha256:
        raise DataError(f"run {run!r} of {store} has other weights here than where the work was started.")
    return load_model(store, run, device=device)


def _encode_block(model: TrainedModel, stored: torch.Tensor, config: EncodeConfig) -> Made:
    """Latents, their standard deviation and the reconstruction error of a block's patterns `(n, C, …)`."""
    if not len(stored):
        return Made({})
    precision, parts = pick_precision(config.precision, model.device), []
    for some in stored.split(model.fitting(config.batch_size)):
        with autocast(model.device, precision):
            parts.append(_encode_batch(model, some, config))
    whole = {name: torch.cat(columns) for name, columns in zip(VALUES, zip(*parts, strict=True), strict=True)}
    if model.device.type != "cuda":
        return Made({name: values.cpu() for name, values in whole.items()})
    copies = {  # on their way back while the next block is encoded
        name: host_tensor(tuple(values.shape), values.dtype, model.device).copy_(values, non_blocking=True)
        for name, values in whole.items()
    }
    copied = torch.cuda.Event()
    copied.record()
    return Made(copies, copied)


def _write(staging: Staging, run: str, mask: LatentMask | None, block: tuple[Region, np.ndarray, Made]) -> None:
    """Write a block, NaN outside the ROI and where the mask has no pixel."""
    region, inside, made = block
    if made.copied:
        made.copied.synchronize()
    values = {}
    for name in VALUES:
        array = staging.arrays[n.run_name(name, run)]
        full = np.full((*inside.shape, *array.shape[inside.ndim :]), np.nan, np.float32)
        if name in made.values:
            full[inside] = made.values[name].numpy()
        if mask is not None and name != n.RECONSTRUCTION_ERROR:
            full = mask(full, region)
        values[n.run_name(name, run)] = full
    write_block(staging, region, values)


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
