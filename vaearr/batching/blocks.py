"""The Dataset as it was given, in its dask chunks: what is read, shuffled, encoded and written is a
block.

A path stands for a store's own patterns. A Dataset may differ from them by any lazy steps: it
brings the patterns, its grid is the store's or a part of it, and results are NaN, or outside, on
the rest. It goes into the store that it was opened from (`va.open_store` and `xr.open_zarr` note
that in `ds.encoding["source"]`, which most steps keep), or into the one that is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import dask
import numpy as np
import torch
import xarray as xr
from dask.array.core import slices_from_chunks
from dask.core import flatten, get_deps, toposort
from dask.optimization import cull

from vaearr import names as n
from vaearr import schema
from vaearr.computing.borrowed import DataNode
from vaearr.computing.cluster import dask_get
from vaearr.computing.device import host_tensor
from vaearr.errors import DataError, SchemaError, UsageError
from vaearr.recipe import nested
from vaearr.schema.pattern_steps import STEPS
from vaearr.store import Region, read_ahead, reading
from vaearr.store.layout import pattern_chunks

CPU = torch.device("cpu")
NEIGHBOURS = 27  # blocks that a task of a lazy step may serve and still be done again for each
N_SEEN = 16  # samples by which patterns are told from others
SAME = 1e-3  # relative difference of their means that another machine may make
Labelled = TypeVar("Labelled", xr.Dataset, xr.DataArray)


def in_chunks(
    variable: xr.DataArray, nav: Sequence[str], by: Mapping[str, int] | None = None
) -> xr.DataArray:
    """The variable with dask chunks that hold whole samples; one without dask is cut as it is, or
    would be, stored.

    by: sides of the chunks along the navigation dims `nav`, to be brought to.
    """
    whole = {dim: -1 for dim in variable.dims if dim not in nav}
    if by is None and not variable.chunks:
        signal = tuple(variable.sizes[dim] for dim in whole)
        rule = pattern_chunks(
            tuple(variable.sizes[dim] for dim in nav), signal, variable.dtype.itemsize
        )
        stored = variable.encoding.get("shards") or variable.encoding.get("chunks") or rule
        by = dict(zip(nav, stored, strict=False))
    return variable.chunk({**whole, **(by or {})})


class Blocks:
    """The blocks of a variable whose first dims are the navigation dims `nav`; each can be read
    from any thread.

    regions: `{dim: slice}`, row-major. What a lazy step computes once for all, such as a mean over
    the scan, is computed at the first read and kept; all else is computed for the block that is
    read, in the thread that reads it, or on the Dask cluster in use.
    """

    def __init__(
        self, variable: xr.DataArray, nav: Sequence[str], by: Mapping[str, int] | None = None
    ) -> None:
        variable = in_chunks(variable, nav, by)
        self.name, self.dtype = variable.name, variable.dtype.newbyteorder("=")
        (array,) = dask.optimize(variable.data)
        chunks = array.chunks[: len(nav)]
        self.regions: list[Region] = [
            dict(zip(nav, each, strict=True)) for each in slices_from_chunks(chunks)
        ]
        self.largest = math.prod(map(max, chunks))  # samples of the largest block
        self._keys, self._tasks = list(flatten(array.__dask_keys__())), dict(array.__dask_graph__())
        self._get = dask_get()

    def read(self, i: int) -> np.ndarray:
        """Values of block i. Raises DataError that names the place when a chunk is damaged."""
        with reading(self.name, self.regions[i]):
            graph, _ = cull(self.graph, self._keys[i])
            return np.asarray(self._get(graph, self._keys[i]))

    @cached_property
    def graph(self) -> dict[Any, Any]:
        """The tasks; what more blocks need than lie side by side is computed, once, its value in
        the task's place.
        """
        graph, most = self._tasks, max(min(NEIGHBOURS, len(self._keys) - 1), 1)
        needs, _ = get_deps(graph)
        serves: dict[Any, set[int]] = {key: set() for key in graph} | {
            key: {i} for i, key in enumerate(self._keys)
        }
        shared = []
        for key in reversed(toposort(graph, dependencies=needs)):
            if len(serves[key]) > most and not isinstance(graph[key], DataNode):
                shared.append(key)
                continue
            for needed in needs[key]:
                serves[needed] |= serves[key]
        values = zip(shared, self._get(graph, shared), strict=True)
        return graph | {key: DataNode(key, value) for key, value in values}


def corner(region: Region) -> tuple[int, ...]:
    """The first grid point of a region."""
    return tuple(part.start for part in region.values())


def sides(regions: Sequence[Region]) -> dict[str, int]:
    """Sides of the blocks that tile a grid, of which the first is a whole one."""
    return {dim: part.stop - part.start for dim, part in regions[0].items()}


class Block(NamedTuple):
    """One block of the grid: which of its points are chosen, and their samples `(k, C, …)` as
    stored.
    """

    region: Region
    inside: np.ndarray
    stored: torch.Tensor

    @property
    def points(self) -> np.ndarray:
        """Grid points of the samples, `(k, n_nav)`, row-major."""
        return np.argwhere(self.inside) + corner(self.region)


def read_chosen(
    blocks: Blocks,
    chosen: np.ndarray,
    input_shape: tuple[int, ...],
    regions: Sequence[Region] | None = None,
    device: torch.device = CPU,
) -> Iterator[Block]:
    """The chosen samples, block by block; the next block is read meanwhile, those without a chosen
    point are not read.

    chosen: boolean over the navigation grid. regions: some of the blocks, each once, instead of
    all. device: where the samples go next, which decides what kind of memory they wait in.
    """
    number = {corner(region): i for i, region in enumerate(blocks.regions)}
    like = torch.from_numpy(np.empty(0, blocks.dtype)).dtype

    def read(region: Region) -> Block:
        inside = chosen[tuple(region.values())]
        stored = host_tensor((int(inside.sum()), *input_shape), like, device)
        if len(stored):
            take_rows(blocks.read(number[corner(region)]), np.flatnonzero(inside), stored.numpy())
        return Block(region, inside, stored)

    return read_ahead(read, blocks.regions if regions is None else regions)


def take_rows(block: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """Samples of a block by their row-major number, channels first, into `out` `(k, C, …)`: the one
    copy there is.
    """
    np.take(block.reshape(-1, *out.shape[1:]), rows, axis=0, out=out, mode="clip")


def check_grid(ds: xr.Dataset, own: xr.Dataset) -> None:
    """Raise SchemaError unless the samples of a Dataset have a place each on the grid of a store."""
    schema.validate(ds)
    nav = schema.navigation_dims(own)
    if schema.navigation_dims(ds) != nav:
        raise SchemaError(
            f"the Dataset has samples over {schema.navigation_dims(ds)}, the store over {nav}."
        )
    for dim in nav:
        foreign = ds[dim].values[~np.isin(ds[dim].values, own[dim].values)]
        if len(foreign):
            place = f"the Dataset has {dim} = {foreign[0]}, which is no place on the store's grid"
            raise SchemaError(f"{place}; make a store of it first: va.ingest(ds, 'NEW.zarr').")


def on_grid(values: Labelled, own: xr.Dataset, fill: Any) -> Labelled:
    """Values over the whole grid of a store, `fill` where there were none."""
    return values.reindex({dim: own[dim] for dim in schema.navigation_dims(own)}, fill_value=fill)


def seen(ds: xr.Dataset, roi: xr.DataArray) -> dict[str, Any]:
    """What patterns of a region look like: form, mean and deviation of a few of them, spread over
    the region.
    """
    points = np.argwhere(roi.values)
    points = points[np.linspace(0, len(points) - 1, min(N_SEEN, len(points))).astype(int)]
    at = {dim: roi[dim].values[points[:, i]] for i, dim in enumerate(roi.dims)}
    lacking = [
        f"{dim} = {value}"
        for dim, values in at.items()
        for value in values
        if value not in ds.indexes[dim]
    ]
    if lacking:
        raise UsageError(
            f"the Dataset lacks points of the run's region, such as {lacking[0]}; give the whole region."
        )
    some = ds[n.PATTERNS].sel(
        {dim: xr.DataArray(values, dims="seen") for dim, values in at.items()}
    )
    rows = some.transpose("seen", ...).values.reshape(len(points), -1).astype("f8")
    if not (finite := np.isfinite(rows).all(1)).all():
        where = ", ".join(f"{dim} = {values[~finite][0]}" for dim, values in at.items())
        raise DataError(
            f"patterns of the region hold NaN or infinite values, such as at {where}; leave these points out, or see "
            "that steps gave patterns coordinates of their own: what is assigned to a Dataset is aligned with the old "
            "ones (ds.drop_dims before, or vaearr.schema.pattern_steps, which does)."
        )
    return {
        "sample_shape": list(schema.input_shape(ds)),
        "dtype": str(ds[n.PATTERNS].dtype),
        "mean": rows.mean(1).tolist(),
        "std": rows.std(1).tolist(),
        "steps": nested(ds[n.PATTERNS].attrs, STEPS),
    }


def is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two times the same patterns were seen."""
    if any(one[key] != other[key] for key in ("sample_shape", "dtype")) or len(one["mean"]) != len(
        other["mean"]
    ):
        return False
    return all(
        np.allclose(one[key], other[key], rtol=SAME, atol=SAME, equal_nan=True)
        for key in ("mean", "std")
    )
