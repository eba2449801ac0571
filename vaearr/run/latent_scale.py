"""Where the positions of a spatial latent lie in the sample, which of them a mask covers, and how large latents are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.artifacts import TrainedModel
from vaearr.errors import UsageError, did_you_mean
from vaearr.store import Region, Staging, read_block

LatentMask = Callable[[np.ndarray, Region], np.ndarray]  # latents `(navigation…, latent, positions…)` of a region


def latent_coords(ds: xr.Dataset, model: TrainedModel, run: str = n.DEFAULT_RUN) -> xr.Dataset:
    """Coordinates of a run's latent dims: numbers of the dimensions, and where the positions of spatial ones lie.

    Position i stands at the middle of the pixels `stride * i - pad_before …` that it is the coarse grid of, in units of
    the sample's own coordinate; the first and last may lie beyond the sample's edge, in its padding.
    """
    dim = n.run_name(n.LATENT, run)
    coords: dict[str, Any] = {dim: (dim, np.arange(model.latent_shape[0]), n.ATTRS[n.LATENT])}
    network = model.network
    for name, along, size, k in _positions(ds, model, run):
        pixel = network.stride[k] * np.arange(size) + (network.stride[k] - 1) / 2 - network.pad_before[k]
        values = ds[along].values if along in ds.coords and ds[along].dtype.kind in "iuf" else None
        units = str(ds[along].attrs.get("units", "px")) if along in ds.coords else "px"
        attrs = {"long_name": f"position of the latent along {along}", "units": units}
        coords[name] = (name, pixel if values is None else _at(values.astype("f8"), pixel), attrs)
    return xr.Dataset(coords=coords)


def _positions(ds: xr.Dataset, model: TrainedModel, run: str) -> list[tuple[str, str, int, int]]:
    """Of each dim of positions: its name, the signal dim that it is the coarse grid of, its size, its number."""
    sizes = model.latent_shape[1:]
    if not sizes:
        return []
    along = schema.signal_dims(ds)[-len(sizes) :]
    names = [n.run_name(name, run) for name in n.POSITIONS[-len(sizes) :]]
    return [(name, dim, size, k) for k, (name, dim, size) in enumerate(zip(names, along, sizes, strict=True))]


def _at(values: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Values of a coordinate at fractional pixels, straight on beyond both ends."""
    if len(values) == 1:
        return values[0] + pixel
    inside = np.interp(pixel, np.arange(len(values)), values)
    before, after = np.minimum(pixel, 0), np.maximum(pixel - (len(values) - 1), 0)
    return np.asarray(inside + before * (values[1] - values[0]) + after * (values[-1] - values[-2]))


def latent_mask(ds: xr.Dataset, model: TrainedModel, name: str | None) -> LatentMask | None:
    """What sets a block of spatial latents to NaN where the pixels under a position hold none of the mask.

    The mask lies over the spatial dims of a sample, or over those and the navigation dims. Raises UsageError for a
    variable that is not there or no such mask, and for vector latents, which have no positions.
    """
    if name is None:
        return None
    sizes = model.latent_shape[1:]
    if not sizes:
        raise UsageError("the latents of this model are vectors without positions, so a mask of pixels cannot apply.")
    nav, spatial = schema.navigation_dims(ds), schema.signal_dims(ds)[-len(sizes) :]
    fitting = [str(v) for v in ds.data_vars if ds[v].dtype == bool and set(spatial) <= set(ds[v].dims)]
    if name not in fitting or set(ds[name].dims) not in (set(spatial), {*nav, *spatial}):
        raise UsageError(f"mask: there is no boolean variable {name!r} over {spatial}.{did_you_mean(name, fitting)}")
    has_nav = set(ds[name].dims) > set(spatial)
    variable = ds[name].transpose(*(nav if has_nav else ()), *spatial)
    network = model.network

    def apply(latents: np.ndarray, region: Region) -> np.ndarray:
        pixels = read_block(variable, region) if has_nav else variable.values
        covered = _covered(pixels, sizes, network.stride, network.pad_before)
        covered = np.expand_dims(covered, -len(sizes) - 1)  # over the latent dim
        return np.where(covered, latents, np.float32(np.nan))

    return apply


def _covered(mask: np.ndarray, sizes: tuple[int, ...], stride: tuple[int, ...], before: tuple[int, ...]) -> np.ndarray:
    """Whether any pixel under each position is true: `(…, y, x) -> (…, ly, lx)`."""
    lead = mask.ndim - len(sizes)
    pads = [(0, 0)] * lead
    for size, step, first, have in zip(sizes, stride, before, mask.shape[lead:], strict=True):
        pads.append((first, size * step - first - have))
    padded = np.pad(mask, pads)
    blocks = [part for size, step in zip(sizes, stride, strict=True) for part in (size, step)]
    folded = padded.reshape(*mask.shape[:lead], *blocks)
    return np.asarray(folded.any(axis=tuple(range(lead + 1, lead + 2 * len(sizes), 2))))


def add_channel_attrs(staging: Staging, name: str, split: xr.DataArray) -> None:
    """Give staged latents the attributes of `channel_attrs`, read back block by block, before they are published."""
    array = staging.arrays[name]
    count, sums, squares = 0, np.zeros(()), np.zeros(())
    is_train = bool((split == n.TRAIN).any())
    for region in staging.regions:
        parts = split.isel(region).values
        chosen = parts == n.TRAIN if is_train else parts != n.OUTSIDE
        values = np.asarray(array[tuple(region.values())])[chosen].astype("f8")  # (k, latent, positions…)
        rows = np.moveaxis(values, 1, -1).reshape(-1, values.shape[1])
        rows = rows[np.isfinite(rows).all(1)]
        count, sums, squares = count + len(rows), sums + rows.sum(0), squares + (rows**2).sum(0)
    if count:
        array.update_attributes({**array.attrs, **channel_attrs(count, sums, squares, is_train)})


def channel_attrs(count: int, sums: np.ndarray, squares: np.ndarray, is_train: bool) -> dict[str, Any]:
    """What a diffusion stage needs to know of latents, from sums over samples and positions `(latent,)`.

    `channel_mean`, `channel_std`: of each dimension. `diffusion_scale`: 1 / standard deviation over all values, by
    which latents are multiplied before diffusion: Rombach et al., "High-Resolution Image Synthesis with Latent
    Diffusion Models", CVPR 2022, appendix G (there called scale factor, a name that readers of zarr would apply).
    `channel_statistics_of`: which samples.
    """
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    total = float(np.sqrt(max(float((squares / count).mean() - mean.mean() ** 2), 0.0)))
    return {
        "channel_mean": mean.tolist(),
        "channel_std": std.tolist(),
        "diffusion_scale": 1 / total if total > 0 else None,
        "channel_statistics_of": "training samples" if is_train else "all samples",
    }
