"""How the samples spread along single latent dimensions and over pairs of them, by class too; as tables of all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.exploration.points import CLASS, POINT, class_names, latent_points, open_encoded, some
from vaearr.errors import ExistsError, NoInputError, UsageError, did_you_mean, need
from vaearr.run.statistics import correlations
from vaearr.schema import meanings

if TYPE_CHECKING:
    import pandas as pd

BIN, EDGE, PAIR = "bin", "edge", "pair"
MOST_DIMS = 6  # of a pair plot, unless asked for
LEAST_BINS, MOST_BINS = 5, 50
SHOWN = 2000  # samples that come with a picture


def histograms(
    store: str | Path,
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
    counts, edges, _ = _binned(points, bins)
    words = {"long_name": "samples", "units": "1"}
    found = xr.Dataset({"counts": ((n.LATENT, BIN), counts(None), words), "edges": edges}, attrs=points.attrs)
    if CLASS in points.coords:
        attrs = points[CLASS].attrs
        names = np.asarray(attrs["flag_meanings"][1:], dtype=str)
        each = [counts(code) for code in range(len(names))]
        found["unclassified"] = ((n.LATENT, BIN), counts(-1), words)
        found = found.assign_coords({CLASS: (CLASS, names, {"long_name": attrs["long_name"]})})
        found["counts"] = ((CLASS, n.LATENT, BIN), np.reshape(each, (len(names), *found["counts"].shape)), words)
    return found


def pairs(
    store: str | Path,
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
    counts, edges, place = _binned(points, bins)
    both, size = list(combinations(range(len(chosen)), 2)), edges.sizes[EDGE] - 1
    width, density = np.diff(edges.values[:, :2])[:, 0], []
    for i, j in both:
        joint = np.bincount(place[:, j] * size + place[:, i], minlength=size * size).reshape(size, size)
        density.append(joint / (len(values) * width[i] * width[j]))
    off = values - values.mean(0)
    samples = points.isel({POINT: some(points.sizes[POINT], max_points, seed)})
    coords = {name: coord for name, coord in samples.coords.items() if name != CLASS}
    words, by_class = {"long_name": "samples", "units": "1"}, {}
    if CLASS in points.coords:
        codes = [code for code in np.unique(points[CLASS]) if code >= 0]
        coords["class_of_point"] = samples[CLASS]
        if codes:
            names = [points[CLASS].attrs["flag_meanings"][code + 1] for code in codes]
            coords[CLASS] = xr.DataArray(names, dims=CLASS, attrs={"long_name": by})
            by_class["class_counts"] = ((CLASS, n.LATENT, BIN), np.stack([counts(code) for code in codes]), words)
    of_area = {"long_name": "share of samples per area", "units": "1"}
    return xr.Dataset(
        {
            **by_class,
            "density": ((PAIR, "bin_y", "bin_x"), np.stack(density), of_area),
            "counts": ((n.LATENT, BIN), counts(None), words),
            "edges": edges,
            "correlation": ((n.LATENT, "other"), correlations(off.T @ off), {"long_name": "correlation", "units": "1"}),
            "vectors": ((POINT, n.LATENT), samples["vectors"].values, {"long_name": "latents of some samples"}),
        },
        coords={
            **{str(name): coord.drop_vars(CLASS, errors="ignore") for name, coord in coords.items()},
            "other": chosen,
            "x_dim": (PAIR, chosen[[i for i, _ in both]]),
            "y_dim": (PAIR, chosen[[j for _, j in both]]),
        },
        attrs={**points.attrs, "seed": seed},
    )


def _binned(points: xr.Dataset, bins: int | None) -> tuple[Any, xr.DataArray, np.ndarray]:
    """Counts `(latent, bin)` as a function of a class (None: of all), edges `(latent, edge)`, the bin of each value."""
    if bins is not None and bins < 1:
        raise UsageError(f"bins is {bins}; it must be at least 1.")
    values = points["vectors"].values
    size = bins or int(np.clip(round(2 * len(values) ** 0.5), LEAST_BINS, MOST_BINS))
    low, high = values.min(0), values.max(0)
    low, high = np.where(low < high, low, low - 0.5), np.where(low < high, high, high + 0.5)
    edges = np.linspace(low, high, size + 1, axis=1)
    place = [np.searchsorted(own, column, side="right") - 1 for own, column in zip(edges, values.T, strict=True)]
    place = np.clip(np.stack(place, axis=1), 0, size - 1)

    def counts(code: int | None) -> np.ndarray:
        own = place if code is None else place[points[CLASS].values == code]
        return np.stack([np.bincount(column, minlength=size) for column in own.T])

    words = {"long_name": "edges of the bins", "units": "1"}
    return counts, xr.DataArray(edges, {n.LATENT: points[n.LATENT]}, (n.LATENT, EDGE), attrs=words), place


def activations(
    store: str | Path,
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
    `n (class)` are over all. Of a spatial latent a sample's value is the mean over its positions. `all_mean`,
    `all_std (latent)` are over all encoded samples, so that values can be told in standard deviations.

    Raises NoInputError for a run not encoded, a map that is not there or classes without samples, UsageError for a
    class, dimension or seed that cannot be.
    """
    import pandas as pd

    encoded = open_encoded(store, run)
    every = latent_points(encoded, dims=dims)["vectors"]
    points, one = latent_points(encoded, by, classes=classes, dims=dims, usual=True), {"units": "1"}
    data: dict[str, Any] = {
        "all_mean": (n.LATENT, every.values.mean(0), {"long_name": "mean of all samples", **one}),
        "all_std": (n.LATENT, every.values.std(0), {"long_name": "standard deviation of all samples", **one}),
    }
    coords: dict[str, Any] = {}
    if CLASS in points.coords:
        points = points.isel({POINT: np.flatnonzero(points[CLASS] >= 0)})
        if not points.sizes[POINT]:
            raise NoInputError(f"no encoded sample has one of the classes by {points.attrs['by']!r}; choose others.")
        groups = pd.DataFrame(points["vectors"].values).groupby(points[CLASS].values)
        data |= {
            "class_mean": ((CLASS, n.LATENT), groups.mean(), {"long_name": "mean", **one}),
            "class_std": ((CLASS, n.LATENT), groups.std(ddof=0), {"long_name": "standard deviation", **one}),
            "n": (CLASS, groups.size(), {"long_name": "samples", **one}),
        }
        names = [points[CLASS].attrs["flag_meanings"][code + 1] for code in groups.groups]
        coords[CLASS] = (CLASS, names, {"long_name": points.attrs["by"]})
    shown = points.isel({POINT: some(points.sizes[POINT], max_points, seed)})
    if CLASS in points.coords:
        shown = shown.isel({POINT: np.argsort(shown[CLASS].values, kind="stable")}).rename({CLASS: "class_of_point"})
    attrs = {**points.attrs, "n": points.sizes[POINT], "seed": seed}
    return shown.rename(vectors="activation").assign(data).assign_coords(coords).assign_attrs(attrs)


def latent_table(store: str | Path, run: str = n.DEFAULT_RUN) -> xr.Dataset:
    """Summary of each latent dimension over the encoded samples: `summary (latent, statistic)`.

    Statistics are those of pandas' `describe`: count, mean, std (divisor n - 1, NaN of a single sample), min, quartiles
    by linear interpolation, max. Of a spatial latent a sample's value is the mean over its positions. `.to_pandas()` of
    `summary` is the table. Raises NoInputError for a run that is not there or not encoded.
    """
    import pandas as pd

    points = latent_points(open_encoded(store, run))
    table = pd.DataFrame(points["vectors"].values).describe().T
    words = {"long_name": "summary of latents", "units": "1"}
    return xr.Dataset(
        {"summary": ((n.LATENT, "statistic"), table.to_numpy(), words)},
        coords={n.LATENT: points[n.LATENT], "statistic": table.columns.tolist()},
        attrs={key: value for key, value in points.attrs.items() if key != "by"},
    )


def activation_table(
    store: str | Path,
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


def save_table(table: pd.DataFrame, path: str | Path, *, overwrite: bool = False) -> Path:
    """Save a table as CSV or, with pyarrow, Parquet, by the ending of the name; returns the path.

    Raises UsageError for another ending, NoInputError where the folder is not there, ExistsError where the file is and
    `overwrite` is not set, MissingExtraError without pyarrow.
    """
    target = Path(path)
    ending = target.suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise UsageError(f"{target.name!r} ends in {ending!r}; tables are saved as .csv or .parquet.")
    if not target.parent.is_dir():
        raise NoInputError(f"there is no folder {target.parent}; make it first.")
    if target.exists() and not overwrite:
        raise ExistsError(f"{target} is there already; give another name, or overwrite=True.")
    if ending == ".parquet":
        need("pyarrow", "vaearr[parquet]", target.name)
    part = target.with_name(f".{target.name}.part")
    try:
        if ending == ".csv":
            table.to_csv(part, index=False, lineterminator="\n")
        else:
            table.to_parquet(part, index=False, engine="pyarrow")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target
