"""Write the latents of a run into its store, block by block.

While one block is on the device, the next is read and the previous one is written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import dask
import dask.array as da
import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import (
    Blocks,
    check_grid,
    in_chunks,
    on_grid,
    read_chosen,
    sides,
)
from vaearr.computing.device import autocast, pick_precision
from vaearr.computing.progress import Progress
from vaearr.config import EncodeConfig
from vaearr.config.keywords import EncodeSettings
from vaearr.errors import UsageError
from vaearr.models.artifacts import OTHER_PATTERNS, TrainedModel, check_fits, check_network
from vaearr.models.preprocess import binned_patterns
from vaearr.models.windows import AGREEMENT, window_agreement
from vaearr.recipe import Recipe
from vaearr.run import Run, StoreOrRun, load_run
from vaearr.run.step import is_stored, step_recipe, to_replace
from vaearr.run.stream import BlockResult, Values, encode_and_decode, write_blocks
from vaearr.run.train import patterns_identity
from vaearr.store import (
    Region,
    VariableSpec,
    finish_variables,
    open_store,
    pending,
    same_patterns,
    sampled_identity,
    stage_variables,
)

log = logging.getLogger("vaearr")


def encode(
    data: StoreOrRun,
    run: str | Run | None = None,
    *,
    config: EncodeConfig | None = None,
    overwrite: bool = False,
    progress: Progress = True,
    **settings: Unpack[EncodeSettings],
) -> xr.Dataset:
    """Write the latents of a run into its store, as `Run.encode` does.

    Parameters
    ----------
    data
        The store, its Run, or the Dataset that the run was trained on, with its lazy steps.
    run
        The run, by its name in the store of `data` (default: "vae"), or as a Run.
    config, overwrite, progress, **settings
        As of `Run.encode`.

    Returns
    -------
    xarray.Dataset
        The opened store.

    Examples
    --------
    >>> va.encode("scan.zarr").latents.dims
    ('y', 'x', 'latent')
    """
    ds = data if isinstance(data, xr.Dataset) else None
    if not isinstance(run, Run):
        run = load_run(data, run)
    return run.encode(ds, config=config, overwrite=overwrite, progress=progress, **settings)


def encode_run(
    run: Run,
    data: xr.Dataset | None,
    settings: EncodeConfig,
    *,
    overwrite: bool,
    progress: Progress,
) -> xr.Dataset:
    """Write the latents of a run, see `Run.encode`."""
    check_network(run.manifest, run.name, "encode")
    path = run.path
    store_ds = open_store(path)
    variables = [n.run_name(name, run.name) for name in n.ENCODED]
    latents = n.run_name(n.LATENTS, run.name)
    recipe = _recipe(run, settings)
    way_out = (
        f"apply the run under another name with run.apply('{path}', name='…') "
        f"(--from {path} --name …)"
    )
    if is_stored(run, recipe, variables=[latents], way_out=way_out, overwrite=overwrite):
        return store_ds
    model = run.to(settings.device).model
    ds = store_ds if data is None else data
    check_fits(ds, run.manifest, model, is_compared=data is not None)
    _check_draws(run.name, model, settings)
    roi = run.variable(n.ROI).load()
    ds, patterns_record = _trained_patterns(ds, store_ds, run.manifest, roi)
    chunked = in_chunks(ds[n.PATTERNS], schema.navigation_dims(store_ds))
    patterns = binned_patterns(chunked, model.preprocess_config)
    chosen = evenly_spread(roi, settings.max_points)
    coords = latent_coords(ds, model, run.name, draws=settings.draws)
    provenance = {n.PROVENANCE: recipe.stamp() | {"data": patterns_record}}
    specs = _specs(store_ds, coords, run.name, settings, provenance)
    request = recipe.as_attrs() | {"data": patterns_record}
    replacing = to_replace(run, variables=variables)
    with stage_variables(
        path, specs, coords=coords, request=request, replacing=replacing
    ) as staged:
        unwritten = pending(staged)
        log.info(f"encoding {int(chosen.sum())} {schema.samples_word(store_ds)}")
        if settings.window is not None:
            _check_windows(model, patterns, chosen, settings.window, settings.overlap)
        patterns = patterns.chunk(sides(staged.regions))
        results = _encode_blocks(run.name, model, store_ds, patterns, unwritten, chosen, settings)
        write_blocks(staged, unwritten, results, what="encoding", progress=progress)
        if len(model.latent_shape) > 1 or not schema.is_scan(store_ds):  # for diffusion models
            split = run.variable(n.SPLIT).load()
            _add_channel_attrs(staged.arrays[latents], specs[latents].dims, split)
        finish_variables(staged, replacing=replacing)
    return open_store(path)


def _check_draws(run: str, model: TrainedModel, settings: EncodeConfig) -> None:
    if settings.draws and model.network.is_deterministic:
        raise UsageError(
            f"run {run!r} is an autoencoder, whose posterior has no spread; leave out draws."
        )


def _recipe(run: Run, settings: EncodeConfig) -> Recipe:
    used = [n.PATTERNS, n.run_name(n.ROI, run.name)]
    if run.config["model"].get("options", {}).get("elements"):
        used.append(n.ELEMENTS)
    inputs = {"run": run.name, "weights_sha256": run.manifest.get("weights_sha256")}
    return step_recipe(run, settings, used, inputs)


def _specs(
    ds: xr.Dataset,
    coords: xr.Dataset,
    run: str,
    settings: EncodeConfig,
    attrs: Mapping[str, Any],
) -> dict[str, VariableSpec]:
    """Dims and attributes of the variables to write, by name."""
    navigation = schema.navigation_dims(ds)
    draw = n.run_name(n.DRAW, run)
    latent = [str(dim) for dim in coords.sizes if dim != draw]
    dims = {
        n.LATENTS: (*navigation, *latent),
        n.LATENTS_STD: (*navigation, *latent),
        n.RECONSTRUCTION_ERROR: navigation,
    }
    if settings.draws:
        dims[n.Z_DRAWS] = (*navigation, draw, *latent)
    specs = {}
    for variable, variable_dims in dims.items():
        variable_attrs = {**n.ATTRS[variable], **attrs}
        if variable == n.Z_DRAWS:
            variable_attrs["seed"] = settings.seed
        name = n.run_name(variable, run)
        specs[name] = VariableSpec(dims=variable_dims, attrs=variable_attrs)
    return specs


def evenly_spread(roi: xr.DataArray, max_points: int | None) -> xr.DataArray:
    """At most `max_points` points of a map, evenly spread.

    Points are ordered along a Z-order curve, on which neighbours stay together, and evenly spaced
    ones are kept.
    """
    points = np.argwhere(roi.values)
    if max_points is None or len(points) <= max_points:
        return roi
    n_dims = points.shape[1]
    codes = np.zeros(len(points), np.int64)
    for bit in range(int(points.max()).bit_length()):
        for dim in range(n_dims):
            codes |= ((points[:, dim] >> bit) & 1) << (bit * n_dims + dim)
    numbers = np.linspace(0, len(points) - 1, max_points).round().astype(int)
    kept = points[np.argsort(codes)[numbers]]
    values = np.zeros(roi.shape, bool)
    values[tuple(kept.T)] = True
    return roi.copy(data=values)


def _encode_blocks(
    run: str,
    model: TrainedModel,
    store_ds: xr.Dataset,
    patterns: xr.DataArray,
    unwritten: Sequence[Region],
    chosen: xr.DataArray,
    settings: EncodeConfig,
) -> Iterator[BlockResult]:
    """Latents of the blocks that are not written yet, with the names of the run."""
    elements = None
    if model.network.elements:
        elements = model.network.content(store_ds).reshape(chosen.size, -1)
    blocks = Blocks(patterns, list(map(str, chosen.dims)))
    shape = model.preprocess.shape  # the patterns are binned already
    for block in read_chosen(blocks, chosen.values, shape, unwritten, model.device):
        numbers = np.ravel_multi_index(tuple(block.points.T), chosen.shape)
        values = _encoded(model, block.stored, numbers, settings, elements)
        named = {n.run_name(variable, run): values[variable] for variable in values}
        yield BlockResult(block.region, block.inside, named)


@torch.inference_mode()
def _check_windows(
    model: TrainedModel,
    patterns: xr.DataArray,
    chosen: xr.DataArray,
    window: Sequence[int],
    overlap: float,
) -> None:
    """Warn if latents by windows differ from those of an undivided sample."""
    indices = np.argwhere(chosen.values)[0].tolist()
    first = dict(zip(chosen.dims, indices, strict=True))
    sample = np.asarray(patterns.isel(first).values).reshape(1, *model.preprocess.shape)
    sample = sample.astype(sample.dtype.newbyteorder("="), copy=False)
    target = model.preprocess(torch.from_numpy(sample).to(model.device))
    agreement, size_px = window_agreement(model.network, target, window, overlap)
    size = " x ".join(map(str, size_px))
    words = (
        "away from the borders, latents by windows correlate with those of an undivided sample of "
        f"{size} px by r = {agreement:.4f}"
    )
    if agreement >= AGREEMENT:
        log.info(words)
    else:
        log.warning(
            f"{words}: the group norms and the attention of the network are computed in each "
            "window. Larger windows or a larger overlap reduce the difference."
        )


def _trained_patterns(
    ds: xr.Dataset, store_ds: xr.Dataset, manifest: Mapping[str, Any], roi: xr.DataArray
) -> tuple[xr.Dataset, dict[str, Any]]:
    """The patterns on the grid of the store, and their identity.

    Raises UsageError if the run was trained on other patterns.
    """
    record = patterns_identity(store_ds)
    if ds is store_ds:
        return ds, record
    check_grid(ds, store_ds)
    trained_on = manifest.get("data", {}).get(OTHER_PATTERNS)
    if not same_patterns(sampled_identity(ds, roi), trained_on or sampled_identity(store_ds, roi)):
        raise UsageError(
            f"run {manifest.get('run')!r} was trained on other patterns than those of this "
            "Dataset; give the Dataset with the same steps as for training."
        )
    if trained_on:
        record |= {OTHER_PATTERNS: trained_on}
    # points outside the ROI, such as the filled ones, are not read
    on_store_grid = on_grid(ds[[n.PATTERNS]], store_ds, fill=0)
    return on_store_grid.assign_attrs(store_ds.attrs), record


@torch.inference_mode()
def _encoded(
    model: TrainedModel,
    stored: torch.Tensor,
    numbers: np.ndarray,
    settings: EncodeConfig,
    elements: np.ndarray | None,
) -> Values:
    """Latents, standard deviations, errors and samples of the patterns `(n, C, …)` of a block.

    numbers: row-major numbers of the patterns. elements: the element content at all grid points,
    for a model that explains it.
    """
    if not len(stored):
        return {}
    precision = pick_precision(settings.precision, model.device)
    size = model.fitting(settings.batch_size)
    batches: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(stored), size):
        batch = slice(start, start + size)
        content = None
        if elements is not None:
            content = elements[numbers[batch]]
        with autocast(model.device, precision):
            output = encode_and_decode(
                model, stored[batch], settings.window, settings.overlap, content
            )
        mean = output.mean.float()
        std = (0.5 * output.logvar.float()).exp()
        residual = (output.target - output.decoded).flatten(1)
        error = torch.linalg.vector_norm(residual, dim=1).square() / residual.shape[1]
        values = {n.LATENTS: mean, n.LATENTS_STD: std, n.RECONSTRUCTION_ERROR: error}
        if settings.draws:
            shape = (settings.draws, *mean.shape[1:])
            noise = _noise(numbers[batch], shape, settings.seed).to(mean.device)
            values[n.Z_DRAWS] = mean[:, None] + std[:, None] * noise
        for variable, value in values.items():
            batches.setdefault(variable, []).append(value)
    return {name: torch.cat(parts).numpy(force=True) for name, parts in batches.items()}


def _noise(numbers: np.ndarray, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Standard normal numbers `(n, *shape)`, by the seed and the number of each sample."""
    noise = np.empty((len(numbers), *shape), np.float32)
    for row, number in zip(noise, numbers.tolist(), strict=True):
        row[...] = np.random.default_rng([seed, number]).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(noise)


def latent_coords(
    ds: xr.Dataset, model: TrainedModel, run: str = n.DEFAULT_RUN, *, draws: int = 0
) -> xr.Dataset:
    """Coordinates of the latent dims of a run: numbers of dimensions, and positions.

    A position of a spatial latent is the centre of the pixels that it covers, in units of the
    sample's coordinate; the outer ones may lie in the padding of the sample.
    """
    coords: dict[str, Any] = {}
    if draws:
        draw = n.run_name(n.DRAW, run)
        coords[draw] = (draw, np.arange(draws), n.ATTRS[n.DRAW])
    latent = n.run_name(n.LATENT, run)
    coords[latent] = (latent, np.arange(model.latent_shape[0]), n.ATTRS[n.LATENT])
    counts = model.latent_shape[1:]
    signal_dims = schema.signal_dims(ds)[-len(counts) :]
    for axis, count in enumerate(counts):
        signal = ds[signal_dims[axis]]
        pixels = _pixel_positions(signal, model.preprocess.side)
        stride = model.network.stride[axis]
        before = model.network.padding[axis][0]
        after = count * stride - before - pixels.size
        padded = np.pad(pixels, (before, after), mode="reflect", reflect_type="odd")
        units = "px"
        if signal.name in ds.coords:
            units = str(signal.attrs.get("units", "px"))
        attrs = {"long_name": f"position of the latent along {signal.name}", "units": units}
        name = n.run_name(n.POSITIONS[axis - len(counts)], run)
        coords[name] = (name, padded.reshape(-1, stride).mean(1), attrs)
    return xr.Dataset(coords=coords)


def _pixel_positions(signal: xr.DataArray, side: int) -> np.ndarray:
    """Positions of the network's pixels along a signal dim: means of `side` detector pixels."""
    values = np.arange(signal.size, dtype=float)
    if signal.name in signal.coords and signal.dtype.kind in "iuf":
        values = signal.values.astype("f8")
    positions: np.ndarray = values[: values.size // side * side].reshape(-1, side).mean(1)
    return positions


def _add_channel_attrs(array: Any, dims: Sequence[str], split: xr.DataArray) -> None:
    """Add to staged latents the attributes that a diffusion model on them needs.

    `channel_mean` and `channel_std` of each dimension, over samples and positions;
    `diffusion_scale`, 1 / standard deviation over all values, by which latents are multiplied
    before diffusion: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion
    Models", CVPR 2022, appendix G; `channel_statistics_of`, the samples used.
    """
    is_used = split == n.TRAIN
    samples = "training samples"
    if not is_used.any():
        is_used = split != n.OUTSIDE
        samples = "all samples"
    latents = xr.DataArray(da.from_zarr(array), dims=dims).astype("f8")
    latents = latents.where(is_used.reset_coords(drop=True).drop_vars(split.dims, errors="ignore"))
    latent = dims[split.ndim]
    others = [dim for dim in dims if dim != latent]
    mean, variance = dask.compute(latents.mean(others), latents.var(others))
    std = float(np.sqrt(variance.mean() + mean.var()))
    if not np.isfinite(std):  # no sample has latents
        return
    attrs = {
        "channel_mean": mean.values.tolist(),
        "channel_std": np.sqrt(variance).values.tolist(),
        "diffusion_scale": 1 / std if std > 0 else None,
        "channel_statistics_of": samples,
    }
    array.update_attributes({**array.attrs, **attrs})
