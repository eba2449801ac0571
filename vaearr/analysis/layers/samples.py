"""Where two samples to compare come from: files, samples of the store, its classes, its masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.layers.pairs import Pair
from vaearr.config import IngestConfig
from vaearr.errors import DataError, NoInputError, UsageError, did_you_mean
from vaearr.recipe import nested
from vaearr.run.draw import find_point
from vaearr.schema import categories
from vaearr.sources.single import SUFFIXES, read_single
from vaearr.store import read_block

MEAN = "mean"
SHOWN = 8


def sample_of(ds: xr.Dataset, given: str | Path | float | Mapping[str, float]) -> np.ndarray:
    """One sample `(*signal shape)`: of a file as the store's ingest would make it, or a sample of the store.

    given: path of a file; coordinates such as `{"x": 2.0, "y": 0.5}`; text such as "2:0.5"; or, for a collection, the
    value of its coordinate `sample`. A text that is a file's name is that file. Raises NoInputError or DataError for a
    file that is not there or does not fit, UsageError for a point that is not in the store.
    """
    if isinstance(given, Path):
        return read_single(ds, given).values
    if isinstance(given, str):
        point = None if Path(given).is_file() else _point(given)
        if point is None:
            return read_single(ds, given).values
        given = point
    return _stored(ds, find_point(ds, given))  # type: ignore[arg-type]  # a float coordinate is a number too


def _point(text: str) -> Any:
    """The point that a text means, X:Y, X:Y:Z or the number of a sample; None where it is none."""
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        return None
    if not all(map(math.isfinite, values)) or len(values) > 3:
        return None
    if len(values) == 1:
        return int(values[0]) if values[0].is_integer() else values[0]
    return dict(zip("xyz", values, strict=False))


def _stored(ds: xr.Dataset, place: Mapping[str, int], name: str = n.PATTERNS) -> np.ndarray:
    region = {dim: slice(i, i + 1) for dim, i in place.items()}
    return read_block(ds[name], region)[(0,) * len(region)]


def pairs_of_folders(
    ds: xr.Dataset, positive: str | Path, negative: str | Path, *, skip_bad: bool = False
) -> tuple[list[Pair], list[str]]:
    """Files of the same name in two folders as pairs `(positive, negative)`, sorted; and the names in one only.

    Images, NIfTI volumes and .npy files, without sub-folders; masks, by the name that the store's ingest knows them by,
    are left out. Raises NoInputError for a folder that is not there, DataError where no name is in both, and for names
    in one folder only unless `skip_bad`.
    """
    masks = IngestConfig.from_attrs((nested(ds.attrs, n.PROVENANCE) or {}).get("ingest", {})).masks
    one, two = (_files(Path(folder), masks) for folder in (positive, negative))
    both, alone = sorted(one.keys() & two.keys()), sorted(one.keys() ^ two.keys())
    listed = ", ".join(alone[:SHOWN]) + (f" and {len(alone) - SHOWN} more" if len(alone) > SHOWN else "")
    if not both:
        raise DataError(
            f"no file of {positive} has its partner, of the same name, in {negative}; found {listed or 'no files'}."
        )
    if alone and not skip_bad:
        raise DataError(
            f"{len(alone)} files have no partner of the same name in the other folder: {listed}. Add their partners, "
            "or leave them out with skip_bad=True (--skip-bad)."
        )
    return [Pair(name, partial(_read_two, ds, one[name], two[name])) for name in both], alone


def _files(folder: Path, masks: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise NoInputError(f"there is no folder {folder}; give one that holds the files to compare.")
    found = [p for p in folder.iterdir() if p.is_file() and p.name.lower().endswith(SUFFIXES) and p.name[0] != "."]
    return {path.name: path for path in found if not (masks and fnmatch(path.stem, masks))}


def _read_two(ds: xr.Dataset, one: Path, two: Path) -> tuple[np.ndarray, np.ndarray]:
    return read_single(ds, one).values, read_single(ds, two).values


def pairs_of_labels(
    ds: xr.Dataset, labels: Sequence[str], *, by: str = "label", seed: int = 0, most: int | None = None
) -> list[Pair]:
    """Samples of the store of two classes, put together by chance: `(first class, second class)`, each sample once.

    As many pairs as the smaller class has samples, at most `most`. by: categorical variable over the navigation dims.
    Raises NoInputError for a variable that is not there, UsageError for classes that are not two of its own, DataError
    for a class without samples.
    """
    nav = schema.navigation_dims(ds)
    known = [str(v) for v in ds.data_vars if set(ds[v].dims) == set(nav) and categories_of(ds[v])]
    if by not in known:
        raise NoInputError(f"the store has no variable of classes {by!r}.{did_you_mean(by, known)}")
    if most is not None and most < 1:
        raise UsageError(f"the number of pairs is {most}; it must be at least 1.")
    codes = {name: code for code, name in categories_of(ds[by]).items()}
    for label in labels:
        if label not in codes:
            raise UsageError(f"{by!r} has no class {label!r}.{did_you_mean(label, list(codes))}")
    if len(labels) != 2 or labels[0] == labels[1]:
        raise UsageError(f"the classes are {', '.join(labels)}; give two different ones.")
    values = ds[by].transpose(*nav).values
    present = ds[n.PRESENT].transpose(*nav).values if n.PRESENT in ds else np.ones(values.shape, bool)
    rng = np.random.default_rng(seed)
    places = []
    for label in labels:
        points = np.argwhere((values == codes[label]) & present)
        if not len(points):
            raise DataError(f"no sample of the store has {by} {label!r}; choose other classes.")
        places.append(rng.permutation(points))
    count = min(len(places[0]), len(places[1]), most or len(values.ravel()))
    order = np.lexsort(places[0][:count].T[::-1])
    return [_stored_pair(ds, nav, places[0][i], places[1][i]) for i in order]


def categories_of(variable: xr.DataArray) -> dict[int, str]:
    """Code -> name where the variable holds classes, else empty."""
    return categories(variable) if "flag_values" in variable.attrs and variable.dtype.kind in "iu" else {}


def _stored_pair(ds: xr.Dataset, nav: tuple[str, ...], one: np.ndarray, two: np.ndarray) -> Pair:
    first, second = ({dim: int(i) for dim, i in zip(nav, point, strict=True)} for point in (one, two))
    return Pair(f"{_where(ds, first)} {_where(ds, second)}", lambda: (_stored(ds, first), _stored(ds, second)))


def _where(ds: xr.Dataset, place: Mapping[str, int]) -> str:
    return ":".join(f"{ds[dim].values[i]}" for dim, i in reversed(list(place.items())))


def pairs_of_masks(
    ds: xr.Dataset, mask: str, *, fill: float | str = 0.0, outside: bool = False, most: int | None = None
) -> list[Pair]:
    """Samples of the store beside themselves with the pixels inside (or outside) their mask taken away.

    mask: boolean variable over the navigation dims and a sample's spatial dims. fill: what the pixels become, a number
    in stored units, or "mean", the mean of each channel over all of its pixels. Samples of which nothing would be taken
    are left out; of the others the first `most`. Raises NoInputError for a variable that is not there, UsageError for
    one of another kind or another fill, DataError where no mask holds a pixel.
    """
    nav, spatial = schema.navigation_dims(ds), [d for d in schema.signal_dims(ds) if d != n.CHANNEL]
    known = [str(v) for v in ds.data_vars if ds[v].dtype == bool and set(ds[v].dims) == {*nav, *spatial}]
    if mask not in ds.data_vars:
        raise NoInputError(f"the store has no mask {mask!r}.{did_you_mean(mask, known)}")
    if mask not in known:
        raise UsageError(
            f"{mask!r} is {ds[mask].dtype} over {ds[mask].dims}; a mask is boolean over {(*nav, *spatial)}."
            f"{did_you_mean(mask, known)}"
        )
    if most is not None and most < 1:
        raise UsageError(f"the number of pairs is {most}; it must be at least 1.")
    filling = check_fill(fill, ds[n.PATTERNS].dtype)
    taken = ~ds[mask] if outside else ds[mask]
    touched = taken.any(spatial).transpose(*nav).values
    if n.PRESENT in ds:
        touched &= ds[n.PRESENT].transpose(*nav).values
    points = np.argwhere(touched)
    if not len(points):
        raise DataError(f"no mask of {mask!r} {'leaves' if outside else 'holds'} a pixel to take away.")
    places = [{dim: int(i) for dim, i in zip(nav, point, strict=True)} for point in points[:most]]
    return [Pair(_where(ds, place), partial(_masked_pair, ds, place, mask, filling, outside)) for place in places]


def check_fill(fill: float | str, dtype: np.dtype) -> float | str:
    """The fill as it is meant. Raises UsageError for one that the stored type cannot hold."""
    if fill == MEAN:
        return MEAN
    try:
        value = float(fill)
    except ValueError:
        raise UsageError(f"fill is {fill!r}; give a number, or {MEAN!r}.") from None
    fits = math.isfinite(value)
    if fits and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        fits = value.is_integer() and limits.min <= value <= limits.max
    if not fits:
        raise UsageError(f"fill is {value:g}, which {dtype} cannot hold; give another number, or {MEAN!r}.")
    return value


def _masked_pair(
    ds: xr.Dataset, place: Mapping[str, int], mask: str, fill: float | str, outside: bool
) -> tuple[np.ndarray, np.ndarray]:
    nav, signal = schema.navigation_dims(ds), schema.signal_dims(ds)
    a = _stored(ds, place)
    spatial = [dim for dim in signal if dim != n.CHANNEL]
    one = ds[mask].isel({dim: place[dim] for dim in nav}).transpose(*spatial).values
    return a, without(a, ~one if outside else one, fill)


def without(sample: np.ndarray, taken: np.ndarray, fill: float | str) -> np.ndarray:
    """A sample `([C,] *spatial)` with the fill where `taken` `(*spatial)` is true, in its own type."""
    if fill != MEAN:
        return np.where(taken, np.asarray(fill).astype(sample.dtype), sample)
    axes = tuple(range(sample.ndim - taken.ndim, sample.ndim))
    mean = sample.mean(axes, keepdims=True, dtype=np.float64)
    if sample.dtype.kind in "iu":
        mean = np.rint(mean)
    return np.where(taken, mean.astype(sample.dtype), sample)
