"""How the encoded samples spread along single latent dimensions, over pairs of them, and in a
plane; by class too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError, UsageError
from vaearr.run.points import CLASS, POINT, classes_of, latent_points, some
from vaearr.store import check_inputs

if TYPE_CHECKING:
    from vaearr.run import Run

MOST_PAIRED = 6  # dimensions of a pair plot, unless asked for
LEAST_BINS, MOST_BINS = 5, 50
SHOWN = 2000  # samples that come with a picture


def describe(run: Run) -> xr.Dataset:
    """Count, mean, standard deviation, quartiles and range of each latent dimension over the
    encoded samples.

    They are those of `pandas.DataFrame.describe`, as variables over `latent`. Of a spatial latent a
    sample's value is the mean over its positions.

    Returns
    -------
    xarray.Dataset
        `count`, `mean`, `std`, `min`, `25%`, `50%`, `75%`, `max`, each `(latent,)`.
    """
    import pandas as pd

    points = latent_points(run)
    dims = pd.Index(points[n.LATENT].values, name=n.LATENT)
    table = pd.DataFrame(points["vectors"].values, columns=dims).describe().T
    return xr.Dataset.from_dataframe(table).assign_attrs(run.attrs)


def histograms(
    run: Run,
    by: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    dims: int | Sequence[int] | None = None,
    bins: int | None = None,
) -> xr.Dataset:
    """Count the encoded samples along each latent dimension, by class.

    Parameters
    ----------
    by
        Map or coordinate with a class for each sample; None for the first of label, phase and
        clusters that exists, else all samples together.
    classes
        Names of the classes to count; all other samples are left out.
    dims
        Latent dimensions; None for all.
    bins
        Bins of each dimension from its least to its largest value; None for twice the root of the
        number of samples, 5 to 50.

    Returns
    -------
    xarray.Dataset
        `counts ([class,] latent, bin)` and `edges (latent, edge)`. Of a spatial latent a sample's
        value is the mean over its positions.

    Raises
    ------
    NoInputError
        For a run that is not encoded, a map that does not exist, classes without samples.
    UsageError
        For a class or dimension that does not exist.
    """
    points = latent_points(run, by, classes=classes, dims=dims)
    values = points["vectors"].values
    size = bins or int(np.clip(round(2 * len(values) ** 0.5), LEAST_BINS, MOST_BINS))
    edges = [np.histogram_bin_edges(column, size) for column in values.T]

    def counted(rows: np.ndarray) -> list[np.ndarray]:
        return [np.histogram(column, ends)[0] for column, ends in zip(rows.T, edges, strict=True)]

    dims_of_counts: tuple[str, ...] = (n.LATENT, "bin")
    coords = {n.LATENT: points[n.LATENT]}
    counts: Any
    if CLASS in points.coords:
        names = points[CLASS].attrs["flag_meanings"][1:]
        counts = [counted(values[points[CLASS].values == code]) for code in range(len(names))]
        dims_of_counts = (CLASS, *dims_of_counts)
        coords[CLASS] = xr.DataArray(names, dims=CLASS, attrs={"long_name": points.attrs["by"]})
    else:
        counts = counted(values)
    data = {
        "counts": n.named(dims_of_counts, counts, "samples"),
        "edges": ((n.LATENT, "edge"), edges),
    }
    return xr.Dataset(data, coords, points.attrs)


def pairs(
    run: Run,
    by: str | None = None,
    *,
    dims: Sequence[int] | None = None,
    max_points: int = SHOWN,
    seed: int = 0,
) -> xr.Dataset:
    """Collect what a pair plot shows: the latents of some samples, and correlations of all.

    Parameters
    ----------
    by
        Map or coordinate with a class for each sample, as of `histograms`.
    dims
        Two dimensions or more; None for the six of largest variance.
    max_points, seed
        Samples to show, drawn by the seed.

    Returns
    -------
    xarray.Dataset
        `vectors (point, latent)` with the samples' coordinates and classes; `correlation (latent,
        other)`, Pearson, over all samples, NaN of a constant dimension.

    Raises
    ------
    UsageError
        For fewer than two dimensions, and as `histograms`.
    """
    from vaearr.run.statistics import correlations

    points = latent_points(run, by, dims=dims)
    if dims is None:
        widest = np.argsort(-points["vectors"].values.var(0), kind="stable")[:MOST_PAIRED]
        points = points.isel({n.LATENT: np.sort(widest)})
    if points.sizes[n.LATENT] < 2:
        raise UsageError("pairs need two dimensions or more.")
    off = (points["vectors"] - points["vectors"].mean(POINT)).values
    shown = some(points, max_points, seed).assign_coords(other=points[n.LATENT].values)
    shown["correlation"] = n.named((n.LATENT, "other"), correlations(off.T @ off), "correlation")
    return shown.assign_attrs(seed=seed)


def activations(
    run: Run,
    by: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    dims: int | Sequence[int] | None = None,
    max_points: int = SHOWN,
    seed: int = 0,
) -> xr.Dataset:
    """Sort the latents of some samples by class, and average them over the classes.

    Parameters
    ----------
    by, classes, dims
        As of `histograms`; samples without a class are left out.
    max_points, seed
        Samples to show, drawn by the seed.

    Returns
    -------
    xarray.Dataset
        `activation (point, latent)`; where there are classes, their coordinate `class_of_point`,
        and over all samples `class_mean (class, latent)` and `n (class)`.

    Raises
    ------
    NoInputError, UsageError
        As `histograms`.
    """
    import pandas as pd

    points = latent_points(run, by, classes=classes, dims=dims).rename(vectors="activation")
    if CLASS not in points.coords:
        return some(points, max_points, seed).assign_attrs(seed=seed)
    points = points.isel({POINT: np.flatnonzero(points[CLASS] >= 0)})
    if not points.sizes[POINT]:
        raise NoInputError(
            f"no encoded sample has a class by {points.attrs['by']!r}; choose another map."
        )
    groups = pd.DataFrame(points["activation"].values).groupby(points[CLASS].values)
    names = [points[CLASS].attrs["flag_meanings"][code + 1] for code in np.unique(points[CLASS])]
    points.attrs |= {"n": points.sizes[POINT], "seed": seed, "classes": names}
    shown = some(points, max_points, seed).sortby(CLASS).rename({CLASS: "class_of_point"})
    shown[CLASS] = CLASS, names, {"long_name": points.attrs["by"]}
    shown["class_mean"] = n.named((CLASS, n.LATENT), groups.mean(), "mean")
    shown["n"] = n.named(CLASS, groups.size(), "samples")
    return shown


def scatter(
    run: Run,
    method: Literal["tsne", "pca", "umap"] = "tsne",
    *,
    by: str | None = None,
    seed: int = 0,
    max_points: int = 5000,
    perplexity: float = 30.0,
    neighbours: int = 15,
) -> xr.Dataset:
    """Lay out samples in a plane by their latents, see `va.embed`, with their classes.

    The Run keeps the layout: the same call with other classes computes nothing.

    Parameters
    ----------
    by
        Map or coordinate with a class for each sample, as of `histograms`.
    method, seed, max_points, perplexity, neighbours
        As of `va.embed`.

    Returns
    -------
    xarray.Dataset
        What `va.embed` returns, with the coordinate `class` of each point where there are classes.
    """
    from vaearr.analysis.planes import embed

    codes = classes_of(run.ds, by)
    latents = run.latents
    fingerprints = check_inputs(run.path, [str(latents.name)])
    key = (method, seed, max_points, perplexity, neighbours, *fingerprints.values())
    if key not in run.layouts:
        run.layouts[key] = embed(
            latents,
            method,
            seed=seed,
            max_points=max_points,
            perplexity=perplexity,
            neighbours=neighbours,
        )
    found = run.layouts[key].copy()
    if codes is not None:
        found.coords[CLASS] = POINT, codes.values.ravel()[found["number"]], codes.attrs
    return found.assign_attrs(run.attrs)
