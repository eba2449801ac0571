"""How the samples spread along single latent dimensions and over pairs of them, by class too; as tables of all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, UsageError, did_you_mean
from vaearr.run import StoreOrRun
from vaearr.run.exploration.points import CLASS, POINT, class_names, latent_points, named, open_encoded, some
from vaearr.run.statistics import correlations
from vaearr.schema import meanings

if TYPE_CHECKING:
    import pandas as pd

BIN, EDGE, PAIR = "bin", "edge", "pair"
MOST_DIMS = 6  # of a pair plot, unless asked for
LEAST_BINS, MOST_BINS = 5, 50
SHOWN = 2000  # samples that come with a picture


def histograms(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    by: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    dims: int | list[int] | None = None,
    bins: int | None = None,
) -> xr.Dataset:
    """Histogram of each latent dimension, by class where `by` names a map: `counts ([class,] latent, bin)`.

    `edges (latent, edge)`: `bins` equal bins (None: twice the root of the number of samples, 5 to 50) from the least to
    the largest value; of a constant dimension half a unit to either side. With `by`, samples without a class are
    counted in `unclassified (latent, bin)`. classes: only these of `by` (None: of label, phase or clusters); all other
    samples are left out. Of a spatial latent a sample's value is the mean over its positions. Raises NoInputError for a
    run not encoded, a map that is not there or classes without samples, UsageError for a class, dimension or number of
    bins that cannot be.
    """
    points = latent_points(open_encoded(store, run), by, classes=classes, dims=dims)
    edges, place = _binned(points, bins)
    over, attrs = (n.LATENT, BIN), points.attrs
    if CLASS not in points.coords:
        counts = _counts(place, edges, np.zeros(len(place), int), 1)[0]
        return xr.Dataset({"counts": named(over, counts, "samples"), "edges": edges}, attrs=attrs)
    names = np.asarray(points[CLASS].attrs["flag_meanings"][1:], dtype=str)
    counts = _counts(place, edges, points[CLASS].values + 1, len(names) + 1)
    each, others = named((CLASS, *over), counts[1:], "samples"), named(over, counts[0], "samples")
    about = {"long_name": points[CLASS].attrs["long_name"]}
    return xr.Dataset({"counts": each, "edges": edges, "unclassified": others}, {CLASS: (CLASS, names, about)}, attrs)


def pairs(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    dims: list[int] | tuple[int, ...] | None = None,
    *,
    bins: int | None = None,
    by: str | None = None,
    max_points: int = SHOWN,
    seed: int = 0,
) -> xr.Dataset:
    """What a pair plot shows: densities of every two dimensions, histograms of each, correlations, some samples.

    dims: two dimensions or more; None for the six of largest variance. `density (pair, bin_y, bin_x)`, samples per unit
    area as a share of all, so that it integrates to 1; coordinates `x_dim`, `y_dim` of each pair; `counts (latent,
    bin)` and `edges (latent, edge)`, shared by the densities; `correlation (latent, other)`, Pearson, NaN of a
    constant dimension; `vectors (point, latent)`, of at most `max_points` samples by the seed, with their coordinates
    and, with `by`, their `class_of_point`, beside `class_counts (class, latent, bin)` of all samples that have one.
    Raises UsageError for fewer than two dimensions, and as `histograms`.
    """
    points = latent_points(open_encoded(store, run), by, dims=dims)
    if dims is None:
        widest = np.argsort(-points["vectors"].values.var(0), kind="stable")[:MOST_DIMS]
        points = points.isel({n.LATENT: np.sort(widest)})
    chosen, values = points[n.LATENT].values, points["vectors"].values
    if len(chosen) < 2:
        raise UsageError(f"pairs need two dimensions or more, {len(chosen)} is there: {chosen.tolist()}.")
    edges, place = _binned(points, bins)
    both, size = list(combinations(range(len(chosen)), 2)), edges.sizes[EDGE] - 1
    width, density = np.diff(edges.values[:, :2])[:, 0], []
    for i, j in both:
        joint = np.bincount(place[:, j] * size + place[:, i], minlength=size * size).reshape(size, size)
        density.append(joint / (len(values) * width[i] * width[j]))
    off = values - values.mean(0)
    samples = points.isel({POINT: some(points.sizes[POINT], max_points, seed)})
    coords = {name: coord for name, coord in samples.coords.items() if name != CLASS}
    by_class = {}
    if CLASS in points.coords:
        names = np.asarray(points[CLASS].attrs["flag_meanings"][1:], dtype=str)
        own = _counts(place, edges, points[CLASS].values + 1, len(names) + 1)[1:]
        there = own.any((1, 2))
        coords["class_of_point"] = samples[CLASS]
        if there.any():
            coords[CLASS] = xr.DataArray(names[there], dims=CLASS, attrs={"long_name": by})
            by_class["class_counts"] = named((CLASS, n.LATENT, BIN), own[there], "samples of each class")
    return xr.Dataset(
        {
            **by_class,
            "density": named((PAIR, "bin_y", "bin_x"), np.stack(density), "share of samples per area"),
            "counts": named((n.LATENT, BIN), _counts(place, edges, np.zeros(len(place), int), 1)[0], "samples"),
            "edges": edges,
            "correlation": named((n.LATENT, "other"), correlations(off.T @ off), "correlation"),
            "vectors": named((POINT, n.LATENT), samples["vectors"].values, "latents of some samples"),
        },
        coords={
            **{str(name): coord.drop_vars(CLASS, errors="ignore") for name, coord in coords.items()},
            "other": chosen,
            "x_dim": (PAIR, chosen[[i for i, _ in both]]),
            "y_dim": (PAIR, chosen[[j for _, j in both]]),
        },
        attrs={**points.attrs, "seed": seed},
    )


def _binned(points: xr.Dataset, bins: int | None) -> tuple[xr.DataArray, np.ndarray]:
    """Edges `(latent, edge)` of equal bins, and the bin of each value `(point, latent)`."""
    if bins is not None and bins < 1:
        raise UsageError(f"bins is {bins}; it must be at least 1.")
    values = points["vectors"].values
    size = bins or int(np.clip(round(2 * len(values) ** 0.5), LEAST_BINS, MOST_BINS))
    edges = np.stack([np.histogram_bin_edges(column, size) for column in values.T])
    place = [np.searchsorted(own, column, side="right") - 1 for own, column in zip(edges, values.T, strict=True)]
    return xr.DataArray(edges, {n.LATENT: points[n.LATENT]}, (n.LATENT, EDGE)), np.clip(place, 0, size - 1).T


def _counts(place: np.ndarray, edges: xr.DataArray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Points of each group 0, 1, … `(point,)` in each bin: `(group, latent, bin)`."""
    size = edges.sizes[EDGE] - 1
    flat = [np.bincount(groups * size + column, minlength=n_groups * size) for column in place.T]
    return np.stack(flat).reshape(-1, n_groups, size).swapaxes(0, 1)


def activations(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    by: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    dims: int | list[int] | None = None,
    max_points: int = SHOWN,
    seed: int = 0,
) -> xr.Dataset:
    """Latents of samples sorted by class, `activation (point, latent)`, and of classes, `class_mean`, `class_std`.

    by: map or coordinate with the classes; None for label, phase or clusters where one is there, else all samples in
    their order, without classes. classes: only these; samples without a class are left out. At most `max_points`
    samples by the seed are shown; `class_mean`, `class_std` `(class, latent)` (standard deviation over the samples) and
    `n (class)` are over all. Of a spatial latent a sample's value is the mean over its positions.

    Raises NoInputError for a run not encoded, a map that is not there or classes without samples, UsageError for a
    class, dimension or seed that cannot be.
    """
    import pandas as pd

    points = latent_points(open_encoded(store, run), by, classes=classes, dims=dims, usual=True)
    data, coords = dict[str, Any](), dict[str, Any]()
    if CLASS in points.coords:
        points = points.isel({POINT: np.flatnonzero(points[CLASS] >= 0)})
        if not points.sizes[POINT]:
            raise NoInputError(f"no encoded sample has one of the classes by {points.attrs['by']!r}; choose others.")
        groups = pd.DataFrame(points["vectors"].values).groupby(points[CLASS].values)
        data = {
            "class_mean": named((CLASS, n.LATENT), groups.mean(), "mean"),
            "class_std": named((CLASS, n.LATENT), groups.std(ddof=0), "standard deviation"),
            "n": named(CLASS, groups.size(), "samples"),
        }
        names = [points[CLASS].attrs["flag_meanings"][code + 1] for code in np.unique(points[CLASS])]
        coords[CLASS] = (CLASS, names, {"long_name": points.attrs["by"]})
    shown = points.isel({POINT: some(points.sizes[POINT], max_points, seed)})
    if CLASS in points.coords:
        shown = shown.isel({POINT: np.argsort(shown[CLASS].values, kind="stable")}).rename({CLASS: "class_of_point"})
    attrs = {**points.attrs, "n": points.sizes[POINT], "seed": seed}
    return shown.rename(vectors="activation").assign(data).assign_coords(coords).assign_attrs(attrs)


def latent_table(store: StoreOrRun, run: str = n.DEFAULT_RUN) -> xr.Dataset:
    """Summary of each latent dimension over the encoded samples: `summary (latent, statistic)`.

    Statistics are those of pandas' `describe`: count, mean, std (divisor n - 1, NaN of a single sample), min, quartiles
    by linear interpolation, max. Of a spatial latent a sample's value is the mean over its positions. `.to_pandas()` of
    `summary` is the table. Raises NoInputError for a run that is not there or not encoded.
    """
    import pandas as pd

    points = latent_points(open_encoded(store, run))
    table = pd.DataFrame(points["vectors"].values).describe().T
    return xr.Dataset(
        {"summary": named((n.LATENT, "statistic"), table.to_numpy(), "summary of latents")},
        coords={n.LATENT: points[n.LATENT], "statistic": table.columns.tolist()},
        attrs={key: value for key, value in points.attrs.items() if key != "by"},
    )


def activation_table(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    by: list[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    dims: int | list[int] | None = None,
) -> pd.DataFrame:
    """One row for each encoded sample: its coordinates, its classes, then `latent_0`, `latent_1`, ….

    by: maps and coordinates to add as columns, None for all that hold classes; a class with a name becomes two columns,
    the code and `<map>_name`, codes below 0 kept. classes: only samples of these classes of the first map of `by`
    (None: of label, phase or clusters). dims: of the latents, None for all; of a spatial latent the means over its
    positions. Raises NoInputError for a run not encoded or a map that is not there, UsageError for a class or dimension
    that is not there or a map of other dims.
    """
    import pandas as pd

    encoded = open_encoded(store, run)
    first = by[0] if by and classes is not None else None
    points = latent_points(encoded, first, classes=classes, dims=dims).drop_vars(CLASS, errors="ignore")
    columns = {str(name): coord.values for name, coord in points.coords.items() if coord.dims == (POINT,)}
    nav, numbers = schema.navigation_dims(encoded.ds), points["number"].values
    for name in class_names(encoded.ds) if by is None else by:
        if name not in encoded.ds.variables:
            raise NoInputError(f"there is no map or coordinate {name!r}.{did_you_mean(name, class_names(encoded.ds))}")
        variable = encoded.ds[name]
        if set(variable.dims) != set(nav):
            raise UsageError(f"{name!r} lies over {variable.dims}; a column needs one value for each of {nav}.")
        column = variable.transpose(*nav).values.ravel()[numbers]
        columns[name] = column.astype(object) if column.dtype.kind in "UT" else column
        if words := meanings(variable):
            columns[f"{name}_name"] = np.asarray([words.get(int(code), "") for code in column], dtype=object)
    vectors = points["vectors"].astype("f4")
    return pd.DataFrame(
        columns | {f"{n.LATENT}_{i}": vectors.sel({n.LATENT: i}).values for i in points[n.LATENT].values}
    )
