"""Model and Dataset -> labelled latent maps, block by block.

While one block is on the device, the next is read and the one before is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Unpack

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
from vaearr.computing.device import autocast, host_tensor, pick_precision
from vaearr.computing.progress import Progress
from vaearr.config import EncodeConfig
from vaearr.config.keywords import EncodeSettings
from vaearr.errors import UsageError
from vaearr.models.artifacts import SEEN, TrainedModel, check_fits, check_network
from vaearr.models.preprocess import seen_patterns, side_of
from vaearr.models.windows import AGREEMENT, window_agreement
from vaearr.run import Run, StoreOrRun, load_run
from vaearr.run.statistics import Sums
from vaearr.run.step import is_stored, replaced, step_recipe
from vaearr.run.stream import BlockResult, Values, through, write_blocks
from vaearr.run.train import data_fingerprint
from vaearr.store import (
    Staging,
    VariableSpec,
    open_store,
    pending,
    publish_staged,
    same_patterns,
    sampled_fingerprint,
    staged_variables,
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
    """Write the latents of a run into its store, see `Run.encode`.

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
    """
    given = data if isinstance(data, xr.Dataset) else None
    opened = run if isinstance(run, Run) else load_run(data, run)
    return opened.encode(given, config=config, overwrite=overwrite, progress=progress, **settings)


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
    own = open_store(path)
    latents, roi_name = n.run_name(n.LATENTS, run.name), n.run_name(n.ROI, run.name)
    inputs = {"run": run.name, "weights_sha256": run.manifest.get("weights_sha256")}
    parents = [n.PATTERNS, roi_name]
    if run.config["model"].get("options", {}).get("elements"):
        parents.append(n.ELEMENTS)
    recipe = step_recipe(run, settings, parents, inputs)
    instead = f"apply the run under another name with run.apply('{path}', name='…') (--from {path} --name …)"
    if is_stored(run, recipe, variables=[latents], instead=instead, overwrite=overwrite):
        return own
    of_run = [
        n.run_name(variable, run.name)
        for variable in n.OF_A_RUN
        if variable not in (n.ROI, n.SPLIT)
    ]
    replacing = replaced(run, variables=of_run)

    model = run.to(settings.device).model
    ds = own if data is None else data
    check_fits(ds, run.manifest, model, is_given=data is not None)
    if settings.draws and model.network.is_deterministic:
        raise UsageError(
            f"run {run.name!r} is an autoencoder, whose posterior has no spread; leave draws out."
        )
    region = own[roi_name].load()
    ds, data_record = _as_trained(ds, own, run.manifest, region)
    patterns = seen_patterns(
        in_chunks(ds[n.PATTERNS], schema.navigation_dims(own)), model.preprocess_config
    )
    inside = evenly_spread(region, settings.max_points)
    elements = None
    if getattr(model.network, "elements", ()):
        elements = model.network.content(own).reshape(inside.size, -1)
    coords = latent_coords(ds, model, run.name, draws=settings.draws)
    provenance = {n.PROVENANCE: recipe.stamp() | {"data": data_record}}
    specs = _specs(own, coords, settings, provenance)
    request = recipe.as_attrs() | {"data": data_record}
    with staged_variables(
        path, specs, coords=coords, request=request, replacing=replacing
    ) as staging:
        log.info(f"encoding {int(inside.sum())} {schema.samples_word(own)}")
        if settings.window is not None:
            _check_windows(model, patterns, inside, settings)
        results = _encode_blocks(model, patterns, inside, staging, settings, elements)
        write_blocks(staging, results, what="encoding", progress=progress)
        if len(model.latent_shape) > 1 or not schema.is_scan(own):
            _add_channel_attrs(staging, latents, own[n.run_name(n.SPLIT, run.name)].load())
        publish_staged(staging)
    return open_store(path)


def _specs(
    own: xr.Dataset, coords: xr.Dataset, settings: EncodeConfig, attrs: Mapping[str, Any]
) -> dict[str, VariableSpec]:
    """The variables to write: dims and attributes by name."""
    nav = schema.navigation_dims(own)
    draw = n.run_name(n.DRAW, settings.run)
    latent = [str(dim) for dim in coords.sizes if dim != draw]
    dims = {
        n.LATENTS: (*nav, *latent),
        n.LATENTS_STD: (*nav, *latent),
        n.RECONSTRUCTION_ERROR: nav,
    }
    if settings.draws:
        dims[n.Z_DRAWS] = (*nav, draw, *latent)
    specs = {}
    for variable, dims_of_variable in dims.items():
        variable_attrs = {**n.ATTRS[variable], **attrs}
        if variable == n.Z_DRAWS:
            variable_attrs["seed"] = settings.seed
        specs[n.run_name(variable, settings.run)] = VariableSpec(
            dims=dims_of_variable, attrs=variable_attrs
        )
    return specs


def evenly_spread(region: xr.DataArray, max_points: int | None) -> xr.DataArray:
    """A region with at most so many of its points, evenly spread.

    Points are ordered along a Z-order curve, which keeps neighbours together, and every k-th is
    kept.
    """
    points = np.argwhere(region.values)
    if max_points is None or len(points) <= max_points:
        return region
    codes = np.zeros(len(points), np.int64)
    for bit in range(int(points.max()).bit_length()):
        for dim in range(points.shape[1]):
            codes |= ((points[:, dim] >> bit) & 1) << (bit * points.shape[1] + dim)
    numbers = np.linspace(0, len(points) - 1, max_points).round().astype(int)
    kept = points[np.argsort(codes)[numbers]]
    values = np.zeros(region.shape, bool)
    values[tuple(kept.T)] = True
    return region.copy(data=values)


def _encode_blocks(
    model: TrainedModel,
    patterns: xr.DataArray,
    inside: xr.DataArray,
    staging: Staging,
    settings: EncodeConfig,
    elements: np.ndarray | None,
) -> Iterator[BlockResult]:
    """Latents of the blocks that are not written yet. elements: see `_encoded`."""
    blocks = Blocks(patterns, list(map(str, inside.dims)), sides(staging.regions))
    for block in read_chosen(
        blocks, inside.values, model.seen_shape, pending(staging), model.device
    ):
        numbers = np.ravel_multi_index(tuple(block.points.T), inside.shape)
        yield BlockResult(
            block.region, block.inside, _encoded(model, block.stored, numbers, settings, elements)
        )


@torch.inference_mode()
def _check_windows(
    model: TrainedModel, patterns: xr.DataArray, inside: xr.DataArray, settings: EncodeConfig
) -> None:
    """Warn where latents by windows differ from those of an undivided sample."""
    assert settings.window is not None
    first = dict(zip(inside.dims, np.argwhere(inside.values)[0].tolist(), strict=True))
    sample = np.asarray(patterns.isel(first).values).reshape(1, *model.seen_shape)
    sample = sample.astype(sample.dtype.newbyteorder("="), copy=False)
    target = model.preprocess(torch.from_numpy(sample).to(model.device))
    agreement, sides = window_agreement(model.network, target, settings.window, settings.overlap)
    size = " x ".join(map(str, sides))
    words = (
        f"away from the borders, latents by windows correlate with those of an undivided sample of {size} px "
        f"by r = {agreement:.4f}"
    )
    if agreement >= AGREEMENT:
        log.info(words)
    else:
        log.warning(
            f"{words}: the network's group norms and attention see one window at a time. Larger windows or a larger "
            "overlap bring them closer; training on windows (augment.crop) makes the network used to them."
        )


def _as_trained(
    ds: xr.Dataset, own: xr.Dataset, manifest: Mapping[str, Any], roi: xr.DataArray
) -> tuple[xr.Dataset, dict[str, Any]]:
    """The patterns on the store's grid, and their fingerprint. Raises UsageError for other ones
    than the run's.
    """
    patterns = data_fingerprint(own)
    if ds is own:
        return own, patterns
    check_grid(ds, own)
    trained_on = manifest.get("data", {}).get(SEEN)
    expected = trained_on or sampled_fingerprint(own, roi)
    if not same_patterns(sampled_fingerprint(ds, roi), expected):
        raise UsageError(
            f"run {manifest.get('run')!r} was trained on other patterns than those of this Dataset; give the Dataset "
            "with the same steps as for training."
        )
    # what lies outside the region is never read; any value will do
    whole = on_grid(ds[[n.PATTERNS]], own, fill=0).assign_attrs(own.attrs)
    return whole, patterns | ({SEEN: trained_on} if trained_on else {})


@torch.inference_mode()
def _encoded(
    model: TrainedModel,
    stored: torch.Tensor,
    numbers: np.ndarray,
    settings: EncodeConfig,
    elements: np.ndarray | None,
) -> Callable[[], Values]:
    """Latents, standard deviation, reconstruction error and draws of a block's patterns `(n, C,
    …)`, by name.

    numbers: of the samples in the grid. elements: their content at all grid points, for a model
    that explains it too. Results come from a GPU while the next block is encoded there; what is
    returned waits for them.
    """
    if not len(stored):
        return dict
    precision = pick_precision(settings.precision, model.device)
    size = model.fitting(settings.batch_size)
    parts: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(stored), size):
        batch = slice(start, start + size)
        content = None
        if elements is not None:
            content = elements[numbers[batch]]
        with autocast(model.device, precision):
            passed = through(model, stored[batch], settings.window, settings.overlap, content)
        mean = passed.mean.float()
        std = (0.5 * passed.logvar.float()).exp()
        residual = (passed.target - passed.decoded).flatten(1)
        error = torch.linalg.vector_norm(residual, dim=1).square() / residual.shape[1]
        batch_values = {n.LATENTS: mean, n.LATENTS_STD: std, n.RECONSTRUCTION_ERROR: error}
        if settings.draws:
            noise = _noise(numbers[batch], (settings.draws, *mean.shape[1:]), settings.seed).to(
                mean.device
            )
            batch_values[n.Z_DRAWS] = mean[:, None] + std[:, None] * noise
        for variable, value in batch_values.items():
            parts.setdefault(n.run_name(variable, settings.run), []).append(value)
    joined = {name: torch.cat(values) for name, values in parts.items()}
    if model.device.type != "cuda":
        found = {name: values.cpu().numpy() for name, values in joined.items()}
        return lambda: found
    copies = {}
    for name, values in joined.items():
        copies[name] = host_tensor(tuple(values.shape), values.dtype, model.device).copy_(
            values, non_blocking=True
        )
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> Values:
        copied.synchronize()
        return {name: values.numpy() for name, values in copies.items()}

    return wait


def _noise(numbers: np.ndarray, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Standard normal numbers `(n, *shape)`: the same for a sample in whatever block or batch it
    is.
    """
    noise = np.empty((len(numbers), *shape), np.float32)
    for row, number in zip(noise, numbers.tolist(), strict=True):
        row[...] = np.random.default_rng([seed, number]).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(noise)


def latent_coords(
    ds: xr.Dataset, model: TrainedModel, run: str = n.DEFAULT_RUN, *, draws: int = 0
) -> xr.Dataset:
    """Coordinates of a run's latent dims: numbers of the dimensions, and where the positions of
    spatial ones lie.

    A position stands in the middle of the pixels that it covers, in units of the sample's own
    coordinate; the first and last may lie beyond the sample's edge, in its padding.
    """
    coords: dict[str, Any] = {}
    if draws:
        draw = n.run_name(n.DRAW, run)
        coords[draw] = (draw, np.arange(draws), n.ATTRS[n.DRAW])
    latent = n.run_name(n.LATENT, run)
    coords[latent] = (latent, np.arange(model.latent_shape[0]), n.ATTRS[n.LATENT])
    counts = model.latent_shape[1:]
    if not counts:
        return xr.Dataset(coords=coords)
    signal_dims = schema.signal_dims(ds)[-len(counts) :]
    for k, (position, signal) in enumerate(
        zip(n.POSITIONS[-len(counts) :], signal_dims, strict=True)
    ):
        pixels = _pixel_places(ds[signal], side_of(model.preprocess_config))
        stride, before = model.network.stride[k], model.network.padding[k][0]
        after = counts[k] * stride - before - pixels.size
        padded = np.pad(pixels, (before, after), mode="reflect", reflect_type="odd")
        units = "px"
        if signal in ds.coords:
            units = str(ds[signal].attrs.get("units", "px"))
        name = n.run_name(position, run)
        attrs = {"long_name": f"position of the latent along {signal}", "units": units}
        coords[name] = (name, padded.reshape(-1, stride).mean(1), attrs)
    return xr.Dataset(coords=coords)


def _pixel_places(along: xr.DataArray, side: int) -> np.ndarray:
    """Where the network's pixels lie along a signal dim: means of `side` pixels of the detector."""
    values = np.arange(along.size, dtype=float)
    if along.name in along.coords and along.dtype.kind in "iuf":
        values = along.values.astype("f8")
    places: np.ndarray = values[: values.size // side * side].reshape(-1, side).mean(1)
    return places


def _add_channel_attrs(staging: Staging, name: str, split: xr.DataArray) -> None:
    """Tell of staged latents what a diffusion stage needs, read back block by block, before they
    are published.

    `channel_mean`, `channel_std`: of each dimension, over samples and positions. `diffusion_scale`:
    1 / standard deviation over all values, by which latents are multiplied before diffusion:
    Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022,
    appendix G (there called scale factor, a name that readers of zarr would apply).
    `channel_statistics_of`: which samples.
    """
    array, sums, is_train = staging.arrays[name], Sums(), bool((split == n.TRAIN).any())
    for region in staging.regions:
        parts = split.isel(region).values
        chosen = parts == n.TRAIN if is_train else parts != n.OUTSIDE
        values = np.asarray(array[tuple(region.values())])[chosen].astype(
            "f8"
        )  # (k, latent, positions…)
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
