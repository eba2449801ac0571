"""Latents as tables: a summary per dimension, and one row per sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.exploration.points import (
    all_vectors,
    class_names,
    dimensions,
    kept_classes,
    open_encoded,
    point_coords,
)
from vaearr.errors import ExistsError, NoInputError, UsageError, did_you_mean, need
from vaearr.schema import meanings

if TYPE_CHECKING:
    import pandas as pd

STATISTIC = "statistic"
STATISTICS = ("count", "mean", "std", "min", "25%", "50%", "75%", "max")
QUARTILES = (0.25, 0.5, 0.75)


def latent_table(store: str | Path, run: str = n.DEFAULT_RUN) -> xr.Dataset:
    """Summary of each latent dimension over the encoded samples: `summary (latent, statistic)`.

    Statistics as in pandas' `describe`: count, mean, std (divisor n - 1, NaN of a single sample), min, quartiles by
    linear interpolation, max. Of a spatial latent a sample's value is the mean over its positions. `.to_pandas()` of
    `summary` is the table. Raises NoInputError for a run that is not there or not encoded.
    """
    encoded = open_encoded(store, run)
    _, values = all_vectors(encoded)
    count, size = values.shape
    std = values.std(0, ddof=1) if count > 1 else np.full(size, np.nan)
    columns = [
        *(np.full(size, count), values.mean(0), std, values.min(0)),
        *np.quantile(values, QUARTILES, axis=0),
        values.max(0),
    ]
    return xr.Dataset(
        {
            "summary": (
                (n.LATENT, STATISTIC),
                np.stack(columns, 1),
                {"long_name": "summary of latents", "units": "1"},
            )
        },
        coords={n.LATENT: (n.LATENT, np.arange(size), dict(n.ATTRS[n.LATENT])), STATISTIC: list(STATISTICS)},
        attrs={**encoded.attrs, "n": count},
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
    chosen = dimensions(dims, encoded.latent_shape[0])
    numbers, values = all_vectors(encoded)
    if classes is not None:
        found = kept_classes(encoded.ds, by[0] if by else None, classes)
        kept = found.codes[numbers] >= 0
        numbers, values = numbers[kept], values[kept]
    columns: dict[str, np.ndarray] = {}
    for name, (_, coord, *_) in point_coords(encoded, numbers).items():
        columns[name] = coord
    nav = tuple(encoded.latents.dims[: len(encoded.grid)])
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
    columns |= {f"{n.LATENT}_{i}": values[:, i].astype(np.float32) for i in chosen}
    return pd.DataFrame(columns)


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
