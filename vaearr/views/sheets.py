"""Sheets of several views: samples of a store, maps of a Dataset, a path in a plane."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, did_you_mean
from vaearr.schema.classes import class_names, class_of_each
from vaearr.schema.grid import measured
from vaearr.views.common import (
    brief,
    holoviews,
    in_columns,
    text,
    title,
    unit,
)
from vaearr.views.kinds import builder
from vaearr.views.maps import beside_each_other, latent_map, side_map_list
from vaearr.views.mosaic import COLUMNS, in_own_limits, in_rows, sheet
from vaearr.views.pictures import framed, pictures, units_of, with_frames_explained
from vaearr.views.spread import scatter

MARK = "#111111"
MAX_CLASSES = 12
MAX_OVERVIEW_LATENTS = 6


@builder("patterns", "samples of a dataset")
@builder("samples")
def data_sheet(ds: xr.Dataset | xr.DataArray, *, by: str | None = None, seed: int = 0) -> Any:
    """Show randomly chosen samples of a Dataset or an array of patterns in stored units.

    A row for each class, or three rows without classes. Each picture has its own grey scale (colour
    pictures: brightness) from its 0.5 % to its 99.5 % percentile; volumes are shown by their middle
    slice. The number or the coordinates of a sample stand above it.

    Parameters
    ----------
    ds
        A Dataset with `patterns`, or patterns.
    by
        Variable or coordinate of classes, of which the first 12 are shown. Default: `label`, else
        the first with two or more classes (of a scan its phase).
    seed
        Seed of the random choice.

    Raises
    ------
    NoInputError
        If the variable `by` does not exist, or if no sample can be used.
    """
    if isinstance(ds, xr.DataArray):
        ds = schema.as_dataset(ds)
    by, masks = _class_masks(ds, by)
    n_pictures = COLUMNS if by else 3 * COLUMNS
    heading = schema.samples_word(ds)
    if not masks:
        raise NoInputError(f"none of the {heading} can be used; there is nothing to show.")
    rng = np.random.default_rng(seed)
    axes = schema.navigation_dims(ds)[::-1]
    rows: list[Any] = []
    row_names: list[str] = []
    words: list[str] = []
    for name in list(masks)[:MAX_CLASSES]:
        points = np.argwhere(masks[name])
        samples = _random_samples(ds, points, n_pictures, rng)
        rows += in_rows([in_own_limits(image) for image in pictures(samples)])
        words += [", ".join(_short(sample[dim].item()) for dim in axes) for sample in samples]
        if by:
            row_names.append(f"{brief(name.replace('_', ' '), 14)} ({len(points):,})")
    if by:
        heading += f" by {by}"
    if schema.is_scan(ds):
        heading += f" at {', '.join(axes)} in {unit(ds[axes[0]].attrs) or 'steps'}"
    return sheet(rows, heading, limits=(0.0, 1.0), names=row_names, words=words, colorbar=False)


def _class_masks(ds: xr.Dataset, by: str | None) -> tuple[str | None, dict[str, np.ndarray]]:
    """The requested variable of classes, else the first with several, and the samples of each class.

    Without classes None, and all samples under one name.
    """
    is_usable = measured(ds)
    names = class_names(ds)
    if by is not None and by not in names:
        raise NoInputError(f"the store has no variable of classes {by!r}.{did_you_mean(by, names)}")
    for variable in names if by is None else [by]:
        codes, classes = class_of_each(ds, variable)
        masks = {name: (codes == code) & is_usable for code, name in classes.items()}
        masks = {name: mask for name, mask in masks.items() if mask.any()}
        if by or len(masks) > 1:
            return variable, masks
    return None, {"": is_usable} if is_usable.any() else {}


def _random_samples(
    ds: xr.Dataset, points: np.ndarray, count: int, rng: np.random.Generator
) -> xr.DataArray:
    """Patterns of at most `count` of the points `(k, navigation dim)`, in the order of the points."""
    chosen = points[np.sort(rng.permutation(len(points))[:count])]
    dims = schema.navigation_dims(ds)
    indexers = {dim: ("picture", chosen[:, i]) for i, dim in enumerate(dims)}
    return ds[n.PATTERNS].isel(indexers).transpose("picture", ...).load()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else brief(value, 14)


@builder("dataset", "dataset")
def overview(ds: xr.Dataset, run: str | None = None, **options: Any) -> Any:
    """Show band contrast, elements, phase, further maps and the first latents of a scan.

    Of a collection samples are shown, of a 3-D scan the middle plane.

    Parameters
    ----------
    ds
        A Dataset as `va.open_store` gives it.
    run
        Run whose latents are shown. Default: all runs.
    **options
        Options of a map.

    Raises
    ------
    NoInputError
        If there is no map to show.
    """
    if n.PATTERNS in ds and not schema.is_scan(ds):
        return data_sheet(ds)
    if n.Z in ds.dims:
        ds = ds.isel({n.Z: ds.sizes[n.Z] // 2})
    maps = side_map_list(ds)
    maps += [da for da in ds.data_vars.values() if _is_further_map(da)]
    for name in schema.runs(ds) if run is None else [run]:
        latents = ds.get(n.run_name(n.LATENTS, name))
        if latents is not None and latents.ndim == 3:
            numbers = ds[n.run_name(n.LATENT, name)].values[:MAX_OVERVIEW_LATENTS]
            maps += [latent_map(ds, name, int(number)) for number in numbers]
    return beside_each_other(maps, **options)


def _is_further_map(da: xr.DataArray) -> bool:
    """Whether a variable is a map, but no side map, ROI, split or other selection."""
    if set(da.dims) != {n.Y, n.X} or da.dtype == bool or da.name in (n.BC, n.PHASE):
        return False
    return not str(da.name).startswith((n.SPLIT, n.ROI, n.PRESENT))


@builder("path", "decoded", "scatter", "position", "requested")
def path_sheet(path: xr.Dataset) -> Any:
    """Show samples in a plane with the numbered points of a path, and the decoded points.

    For t-SNE and UMAP a number marks the sample that is decoded; a line leads to the requested
    point.
    """
    hv = holoviews()
    images = pictures(path["decoded"])
    axes = [text(name) for name in path["axis"].values]
    position = path["position"].values
    requested = path["requested"].values
    headings = {
        "plane": f"others: {brief(path.attrs['base'], 45)}",
        "pca": "principal components, inverted",
    }
    heading = headings.get(path.attrs["space"], "nearest encoded sample")
    segments = np.hstack([requested, position])
    if np.allclose(position, requested):
        segments = np.hstack([position[:-1], position[1:]])
    lines = hv.Segments(segments, [*axes, "x1", "y1"]).opts(color=MARK, line_width=1)
    circles = hv.Points(position, axes).opts(color="white", line_color=MARK, size=13)
    numbers = [str(i + 1) for i in range(len(images))]
    words = hv.Labels((*position.T, numbers), axes).opts(text_color=MARK, text_font_size="7pt")
    plane = scatter(path, path["scatter"].values, axes) * lines * circles * words
    rows = in_rows(images, columns=max(1, round(math.sqrt(len(images)))))
    decoded_heading = with_frames_explained(f"decoded ({units_of(path['decoded'])})", path)
    decoded = sheet(rows, decoded_heading, words=numbers, **framed(path))
    return in_columns([plane.opts(title=title(heading)), decoded], 2)
