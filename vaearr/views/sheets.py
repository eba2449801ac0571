"""Sheets of several parts: samples of a store, overviews, paths in a plane, pairs of latents."""

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
from vaearr.views.common import brief, holoviews, robust_limits, text, title, unit
from vaearr.views.kinds import builder
from vaearr.views.maps import beside_each_other, latent_map, side_map_list
from vaearr.views.mosaic import COLUMNS, in_rows, sheet
from vaearr.views.pictures import LIMITS, in_own_limits, pictures, units_of
from vaearr.views.spread import scatter

MARK = "#111111"
MOST_ROWS = 12


@builder("patterns", "samples of a dataset")
@builder("samples")
def data_sheet(ds: xr.Dataset | xr.DataArray, *, by: str | None = None, seed: int = 0) -> Any:
    """Samples of a Dataset or an array of patterns as they are stored, chosen by chance.

    A row for each class, or three rows where there are none.

    Each picture has a grey scale (of colours a brightness) of its own, from its 0.5 % to its 99.5 %
    percentile; of volumes the middle slice is shown. Above each stands its number or its
    coordinates.

    by : variable or coordinate of classes; default: `label`, else the first (for a scan its phase)
    with two or more
    seed : of the choice

    At most 12 classes are shown, the first. Raises NoInputError for a variable that is not there
    and for a store none of whose samples can be used.
    """
    if isinstance(ds, xr.DataArray):
        ds = schema.as_dataset(ds)
    present, known = measured(ds), class_names(ds)
    if by is not None and by not in known:
        raise NoInputError(f"the store has no variable of classes {by!r}.{did_you_mean(by, known)}")
    several = [name for name in known if len(np.unique(class_of_each(ds, name)[0][present])) > 1]
    by = by or next(iter(several), None)
    codes, class_words = class_of_each(ds, by) if by else (np.zeros(present.shape), {0: ""})
    groups = {name: np.argwhere((codes == code) & present) for code, name in class_words.items()}
    groups = {name: places for name, places in groups.items() if len(places)}
    if not groups:
        raise NoInputError(
            f"none of the {schema.samples_word(ds)} can be used; there is nothing to show."
        )
    rng = np.random.default_rng(seed)
    nav = schema.navigation_dims(ds)
    n_shown = COLUMNS if by else 3 * COLUMNS
    rows, names, words = [], [], []
    for name, places in list(groups.items())[:MOST_ROWS]:
        chosen = places[np.sort(rng.permutation(len(places))[:n_shown])]
        at = {
            dim: xr.DataArray(place, dims="picture")
            for dim, place in zip(nav, chosen.T, strict=True)
        }
        samples = ds[n.PATTERNS].isel(at).transpose("picture", ...).load()
        rows += in_rows([in_own_limits(image) for image in pictures(samples)])
        coordinates = zip(*(samples[dim].values for dim in nav[::-1]), strict=True)
        words += [", ".join(map(_short, place)) for place in coordinates]
        names.append(f"{brief(name.replace('_', ' '), 14)} ({len(places):,})")
    heading = f"{schema.samples_word(ds)} by {by}" if by else schema.samples_word(ds)
    if schema.is_scan(ds):
        heading += f" at {', '.join(nav[::-1])} in {unit(ds[nav[-1]].attrs) or 'steps'}"
    return sheet(rows, (0.0, 1.0), heading, names=names if by else (), words=words, colorbar=False)


MAX_OVERVIEW_LATENTS = 6


@builder("dataset", "dataset")
def overview(ds: xr.Dataset, run: str | None = None, **options: Any) -> Any:
    """The maps of a scan: band contrast, elements, phase, clusters, the first latents; of a
    collection its samples.

    run: whose latents are shown; default: each run's. Of a 3-D scan the middle plane is shown.
    `**options` are those of a map. Raises NoInputError where there is nothing to show.
    """
    if n.PATTERNS in ds and not schema.is_scan(ds):
        return data_sheet(ds)
    if n.Z in ds.dims:
        ds = ds.isel({n.Z: ds.sizes[n.Z] // 2})
    maps = side_map_list(ds)
    for name, variable in ds.data_vars.items():
        is_map = set(variable.dims) == {n.Y, n.X} and variable.dtype != bool
        if (
            is_map
            and name not in (n.BC, n.PHASE)
            and not str(name).startswith((n.SPLIT, n.ROI, n.PRESENT))
        ):
            maps.append(variable)
    for run_name in schema.runs(ds) if run is None else [run]:
        if ds.get(n.run_name(n.LATENTS, run_name), xr.DataArray()).ndim == 3:
            for latent in ds[n.run_name(n.LATENT, run_name)].values[:MAX_OVERVIEW_LATENTS]:
                maps.append(latent_map(ds, run_name, int(latent)))
    return beside_each_other(maps, **options)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else brief(value, 14)


@builder("path", "decoded", "scatter", "position", "requested")
def path_sheet(found: xr.Dataset) -> Any:
    """The samples in a plane with the numbered points of `path`, and what the points decode to.

    For t-SNE and UMAP a number stands at the sample that is decoded, a line leads to the requested
    point.
    """
    images = pictures(found["decoded"])
    axes = [text(name) for name in found["axis"].values]
    position, requested = found["position"].values, found["requested"].values
    ways = {
        "plane": f"others: {brief(found.attrs['base'], 45)}",
        "pca": "principal components, inverted",
    }
    heading = title(ways.get(found.attrs["space"], "nearest encoded sample"))
    hv = holoviews()
    cloud = scatter(found, found["scatter"].values, axes)
    ends = (
        (position[:-1], position[1:]) if np.allclose(position, requested) else (requested, position)
    )
    line = hv.Segments(np.hstack(ends), [*axes, "x1", "y1"]).opts(color=MARK, line_width=1)
    circles = hv.Points(position, axes).opts(color="white", line_color=MARK, size=13)
    numbers = [str(i + 1) for i in range(len(images))]
    words = hv.Labels((*position.T, numbers), axes).opts(text_color=MARK, text_font_size="7pt")
    plane = (cloud * line * circles * words).opts(title=heading, frame_width=420, frame_height=420)
    columns = max(1, round(math.sqrt(len(images))))
    heading = f"decoded ({units_of(found['decoded'])})"
    decoded = sheet(in_rows(images, columns), robust_limits(images, LIMITS), heading, words=numbers)
    return hv.Layout([plane, decoded]).opts(shared_axes=False)
