"""One row for each scan point: CSV, and Parquet where pyarrow is installed; streamed."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.exporting.content import Content
from vaearr.exporting.formats import fmt

if TYPE_CHECKING:
    import pandas as pd


@fmt("csv", holds="one table: step numbers x, y, latent_0 … and the variables asked for")
def csv(content: Content, folder: Path) -> None:
    """`latents.csv` (of a run b `latents_b.csv`): x, y[, z], latent_<number> …, then the variables; NaN is empty."""
    with (folder / f"{content.latents.name}.csv").open("w", encoding="utf-8", newline="") as file:
        for i, frame in enumerate(frames(content)):
            frame.to_csv(file, index=False, header=i == 0, lineterminator="\n")


@fmt("parquet", holds="the table of csv as Parquet; needs pyarrow", package="pyarrow")
def parquet(content: Content, folder: Path) -> None:
    """The same table as `latents.parquet`."""
    pyarrow, storage = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    writer = None
    try:
        for frame in frames(content):
            table = pyarrow.Table.from_pandas(frame, preserve_index=False)
            writer = writer or storage.ParquetWriter(folder / f"{content.latents.name}.parquet", table.schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()


def frames(content: Content) -> Iterator[pd.DataFrame]:
    """The table in pieces, row-major; the points of the ROI, or all where the settings say so.

    Variables with one further dim become one column for each entry: elements by their name, others `<name>_<entry>`.
    """
    import pandas as pd

    labels = content.chosen()
    positions = [content.latent_labels().index(label) for label in labels]
    further = {name: content.variable(name) for name in content.config.variables}
    width = 8 * (len(labels) + len(content.dims) + sum(v.sizes.get(v.dims[-1], 1) for v in further.values()))
    for region in content.blocks(width):
        inside = content.roi.isel(region).values.reshape(-1)
        inside = np.ones_like(inside) if content.config.points == "all" else inside
        columns = {dim: values[inside] for dim, values in content.steps(region).items()}
        values = content.latents.isel(region).values.reshape(inside.size, -1)[inside][:, positions]
        columns |= {f"{n.LATENT}_{label}": values[:, i] for i, label in enumerate(labels)}
        for name, variable in further.items():
            part = variable.isel(region).values.reshape(inside.size, -1)[inside]
            for i, column in enumerate(column_names(content, name)):
                if column in columns:
                    raise UsageError(f"two columns of the table would be called {column!r}; name one variable less.")
                columns[column] = part[:, i]
        yield pd.DataFrame(columns)


def column_names(content: Content, name: str) -> list[str]:
    """Columns that a variable becomes."""
    variable = content.variable(name)
    extra = [str(dim) for dim in variable.dims if dim not in content.dims]
    if not extra:
        return [name]
    dim = extra[0]
    entries = variable[dim].values if dim in variable.coords else range(variable.sizes[dim])
    return [str(entry) if dim == n.ELEMENT else f"{name}_{entry}" for entry in entries]


def file_name(text: str) -> str:
    """Text as part of a file name."""
    return re.sub(r"[^\w.+-]+", "_", text)
