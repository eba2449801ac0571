"""Model and Dataset -> labelled latent maps, streamed block by block.

While one block is on the device, the next is read and the one before is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import (
    Blocks,
    check_grid,
    in_chunks,
    is_same,
    on_grid,
    read_chosen,
    seen,
    sides,
)
from vaearr.computing.device import autocast, host_tensor, pick_precision
from vaearr.computing.progress import Progress
from vaearr.config import EncodeConfig, RoiConfig, resolved, settings_as_keywords
from vaearr.errors import UsageError
from vaearr.models.artifacts import SEEN, TrainedModel, check_fits, check_network, load_model
from vaearr.models.preprocess import seen_patterns, side_of
from vaearr.recipe import Recipe, is_made, nested
from vaearr.run import Run, load_run
from vaearr.run.statistics import Sums
from vaearr.run.stream import Made, Values, through, write_made
from vaearr.run.train import data_fingerprint
from vaearr.store import (
    Region,
    Staging,
    VariableSpec,
    check_inputs,
    open_store,
    publish_staged,
    run_manifest,
    staged_variables,
    store_of,
)
from vaearr.store.remove import removable

log = logging.getLogger("vaearr")

VALUES = (n.LATENTS, n.LATENTS_STD, n.RECONSTRUCTION_ERROR)


@settings_as_keywords(EncodeConfig)
def encode(
    data: str | Path | xr.Dataset | Run,
    *runs: str | Run,
    store: str | Path | None = None,
    source: str | Path | Run | None = None,
    name: str | None = None,
    roi: xr.DataArray | RoiConfig | None = None,
    config: EncodeConfig | None = None,
    overwrite: bool = False,
    progress: Progress = True,
    **given: Any,
) -> xr.Dataset:
    """Write `latents`, `latents_std` and `reconstruction_error` of a run into its store; NaN outside the run's ROI.

    data: the store, the Run itself, or the Dataset that the run was trained on, with its lazy steps, whose chunks are
    what is read; it goes into the store that it was opened from, or into `store`. runs: the run, by its name or as a
    Run, which may stand second instead of `run=`.

    Vector latents lie over the navigation dims and `latent`, spatial ones over `latent[, lz], ly, lx` with coordinates
    in the units of the samples. Latents of a collection, and all spatial ones, say what a diffusion stage needs:
    `channel_mean`, `channel_std` and `diffusion_scale`.

    Posterior mean and standard deviation, so the same call gives the same numbers. The unit of work is a chunk of the
    store: after an interruption the same call goes on where it stopped, and nothing is visible before all is written.
    Latents that are there, made the same way, are left as they are; `overwrite` replaces others. Keywords replace
    single settings of `config`. Returns the opened store. Raises NoInputError for a run that is not there, ExistsError
    for latents made otherwise, DataError for a damaged store or model, UsageError for a model of other data.

    source: a store, or a Run of it, whose run is taken to these data, with its weights, settings and static background:
    first it becomes a run of this store, called `name` (that of the source by default), over `roi` (as in `va.train`),
    see `Run.apply`. Where this store has another run of that name, see `overwrite`.
    """
    named: str | Run | None = next(iter(runs), given.get("run"))
    trust: tuple[str, ...] = ()
    if isinstance(data, Run):
        trust = data.trust
        data, named = data.path, named or data.name
    if isinstance(named, Run):
        trust = named.trust
        store = store or (named.path if isinstance(data, xr.Dataset) else None)
        named = named.name
    if isinstance(source, Run):
        trust = source.trust
        source, named = source.path, named or source.name
    settings = resolved(EncodeConfig, config, given | {"run": named})
    path = store_of(data, store)
    if source is not None:
        if isinstance(data, xr.Dataset):
            raise UsageError("a run of another store is taken to a store's own patterns; give a path, or no source.")
        applied = load_run(source, settings.run, trust=trust).apply(
            path, name=name, roi=roi, overwrite=overwrite, device=settings.device
        )
        settings = settings.replace(run=applied.name)
    elif name is not None or roi is not None:
        raise UsageError("name and roi are of a run that is taken from another store; give that store too, or run.")
    run, own = settings.run, open_store(path)
    manifest, place = run_manifest(path, run), str(path)
    check_network(manifest, run, "encode")
    parents, names = [n.PATTERNS, n.run_name(n.ROI, run)], [n.run_name(name, run) for name in VALUES]
    inputs = {"run": run, "parents": parents, "weights_sha256": manifest.get("weights_sha256")}
    recipe = Recipe(settings, inputs, check_inputs(path, parents))
    replacing: list[str] = []
    if names[0] in own:
        instead = f"take the run under another name with source='{place}', name='…' (--from {place} --name …)"
        made, there = nested(own[names[0]].attrs, n.PROVENANCE), f"{place} already holds {', '.join(names)}"
        if is_made(there, made, recipe, instead=instead, overwrite=overwrite):
            return own
        replacing = removable(path, variables=[n.run_name(v, run) for v in n.OF_A_RUN if v not in (n.ROI, n.SPLIT)])
    model = load_model(path, run, device=settings.device, trust=trust)
    ds = data if isinstance(data, xr.Dataset) else own
    check_fits(ds, manifest, model, is_given=ds is not own)
    inside = own[n.run_name(n.ROI, run)].load()
    ds, patterns = _as_trained(ds, own, manifest, inside)
    coords, nav = latent_coords(ds, model, run), schema.navigation_dims(own)
    dims = dict.fromkeys(VALUES, (*nav, *map(str, coords.sizes))) | {n.RECONSTRUCTION_ERROR: nav}
    stamp = {n.PROVENANCE: recipe.stamp() | {"data": patterns}}
    specs = {name: VariableSpec(dims=dims[v], attrs=n.ATTRS[v] | stamp) for v, name in zip(VALUES, names, strict=True)}
    request = recipe.as_attrs() | {"data": patterns}
    as_seen = seen_patterns(in_chunks(ds[n.PATTERNS], nav), model.preprocess_config)
    with staged_variables(path, specs, coords=coords, request=request, replacing=replacing) as staging:

        def make(left: Sequence[Region]) -> Iterator[Made]:
            count, by = sum(int(inside.isel(region).sum()) for region in left), sides(staging.regions)
            log.info(f"encoding {count} {schema.samples_word(own)}")
            blocks = Blocks(as_seen, nav, by)
            for block in read_chosen(blocks, inside.values, model.seen_shape, left, model.device):
                yield block.region, block.inside, _encoded(model, block.stored, settings)

        write_made(staging, make, what="encoding", progress=progress)
        if len(model.latent_shape) > 1 or not schema.is_scan(own):
            _add_channel_attrs(staging, names[0], own[n.run_name(n.SPLIT, run)].load())
        publish_staged(staging)
    return open_store(path)


def _as_trained(
    ds: xr.Dataset, own: xr.Dataset, manifest: Mapping[str, Any], roi: xr.DataArray
) -> tuple[xr.Dataset, dict[str, Any]]:
    """The patterns on the store's grid, and their fingerprint. Raises UsageError for other ones than the run's."""
    patterns = data_fingerprint(own)
    if ds is own:
        return own, patterns
    check_grid(ds, own)
    trained_on = manifest.get("data", {}).get(SEEN)
    if not is_same(seen(ds, roi), trained_on or seen(own, roi)):
        raise UsageError(
            f"run {manifest.get('run')!r} was trained on other patterns than those of this Dataset; give the Dataset "
            "with the same steps as for training."
        )
    # what lies outside the region is never read; any value will do
    whole = on_grid(ds[[n.PATTERNS]], own, fill=0).assign_attrs(own.attrs)
    return whole, patterns | ({SEEN: trained_on} if trained_on else {})


@torch.inference_mode()
def _encoded(model: TrainedModel, stored: torch.Tensor, config: EncodeConfig) -> Callable[[], Values]:
    """Latents, their standard deviation and the reconstruction error of a block's patterns `(n, C, …)`, by name.

    They come from a GPU while the next block is encoded there; what is returned waits for them.
    """
    if not len(stored):
        return dict
    precision, parts = pick_precision(config.precision, model.device), []
    for some in stored.split(model.fitting(config.batch_size)):
        with autocast(model.device, precision):
            seen, mean, logvar, decoded = through(model, some, config.window, config.overlap)
        off = (seen - decoded).flatten(1)
        error = torch.linalg.vector_norm(off, dim=1).square() / off.shape[1]
        parts.append((mean.float(), (0.5 * logvar.float()).exp(), error))
    names = [n.run_name(name, config.run) for name in VALUES]
    whole = dict(zip(names, (torch.cat(column) for column in zip(*parts, strict=True)), strict=True))
    if model.device.type != "cuda":
        found = {name: values.cpu().numpy() for name, values in whole.items()}
        return lambda: found
    copies = {
        k: host_tensor(tuple(v.shape), v.dtype, model.device).copy_(v, non_blocking=True) for k, v in whole.items()
    }
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> Values:
        copied.synchronize()
        return {name: values.numpy() for name, values in copies.items()}

    return wait


def latent_coords(ds: xr.Dataset, model: TrainedModel, run: str = n.DEFAULT_RUN) -> xr.Dataset:
    """Coordinates of a run's latent dims: numbers of the dimensions, and where the positions of spatial ones lie.

    A position stands in the middle of the pixels that it is the coarse grid of, in units of the sample's own
    coordinate; the first and last may lie beyond the sample's edge, in its padding.
    """
    side = side_of(model.preprocess_config)
    dim, sizes = n.run_name(n.LATENT, run), model.latent_shape[1:]
    coords: dict[str, Any] = {dim: (dim, np.arange(model.latent_shape[0]), n.ATTRS[n.LATENT])}
    signals = schema.signal_dims(ds)[-len(sizes) :] if sizes else ()
    for k, (own, signal) in enumerate(zip(n.POSITIONS[-len(sizes) :], signals, strict=False)):
        along, name = ds[signal], n.run_name(own, run)
        step, before = model.network.stride[k], model.network.pad_before[k]
        known = signal in ds.coords and along.dtype.kind in "iuf"
        values = along.values.astype("f8") if known else np.arange(along.size, dtype=float)
        values = values[: values.size // side * side].reshape(-1, side).mean(1)  # of what the network sees
        pads = before, sizes[k] * step - before - values.size
        values = np.pad(values, pads, mode="reflect", reflect_type="odd").reshape(-1, step).mean(1)
        units = str(along.attrs.get("units", "px")) if signal in ds.coords else "px"
        coords[name] = (name, values, {"long_name": f"position of the latent along {signal}", "units": units})
    return xr.Dataset(coords=coords)


def _add_channel_attrs(staging: Staging, name: str, split: xr.DataArray) -> None:
    """Tell of staged latents what a diffusion stage needs, read back block by block, before they are published.

    `channel_mean`, `channel_std`: of each dimension, over samples and positions. `diffusion_scale`: 1 / standard
    deviation over all values, by which latents are multiplied before diffusion: Rombach et al., "High-Resolution Image
    Synthesis with Latent Diffusion Models", CVPR 2022, appendix G (there called scale factor, a name that readers of
    zarr would apply). `channel_statistics_of`: which samples.
    """
    array, sums, is_train = staging.arrays[name], Sums(), bool((split == n.TRAIN).any())
    for region in staging.regions:
        parts = split.isel(region).values
        chosen = parts == n.TRAIN if is_train else parts != n.OUTSIDE
        values = np.asarray(array[tuple(region.values())])[chosen].astype("f8")  # (k, latent, positions…)
        rows = np.moveaxis(values, 1, -1).reshape(-1, values.shape[1])
        if len(rows := rows[np.isfinite(rows).all(1)]):
            sums.add(rows)
    if sums.count:
        variance = np.maximum(np.diag(sums.covariance), 0)
        total = float(np.sqrt(variance.mean() + sums.mean.var()))
        about = {
            "channel_mean": sums.mean.tolist(),
            "channel_std": np.sqrt(variance).tolist(),
            "diffusion_scale": 1 / total if total > 0 else None,
            "channel_statistics_of": "training samples" if is_train else "all samples",
        }
        array.update_attributes({**array.attrs, **about})
