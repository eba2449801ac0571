"""Read the dask chunks ("blocks") of a Dataset: the unit of reading, shuffling and encoding.

A Dataset may differ from its store by any lazy steps. Its grid is that of the store or a part of
it, and results are NaN on the rest. Results are written to the store that it was opened from
(`ds.encoding["source"]`), or to the one that is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any, NamedTuple, TypeVar

import dask
import numpy as np
import torch
import xarray as xr
from dask.array.core import slices_from_chunks
from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from vaearr import schema
from vaearr.computing.cluster import dask_get
from vaearr.computing.device import CPU, host_tensor
from vaearr.errors import SchemaError
from vaearr.store import Region, read_ahead, reading
from vaearr.store.layout import pattern_chunks

NEIGHBOURS = 27  # 3 x 3 x 3 blocks; a result that more of them need is computed once and kept
Labelled = TypeVar("Labelled", xr.Dataset, xr.DataArray)


def in_chunks(variable: xr.DataArray, nav: Sequence[str]) -> xr.DataArray:
    """Return the variable with dask chunks that hold complete samples.

    Along the navigation dims `nav`, the chunks of a lazy variable stay, and others are chunked as
    they are, or would be, stored.
    """
    signal = [dim for dim in variable.dims if dim not in nav]
    chunks: dict[Any, int] = dict.fromkeys(signal, -1)
    if not variable.chunks:
        stored = variable.encoding.get("shards") or variable.encoding.get("chunks")
        if not stored:
            nav_shape = tuple(variable.sizes[dim] for dim in nav)
            signal_shape = tuple(variable.sizes[dim] for dim in signal)
            stored = pattern_chunks(nav_shape, signal_shape, variable.dtype.itemsize)
        chunks |= dict(zip(nav, stored, strict=False))
    return variable.chunk(chunks)


class Blocks:
    """The blocks of a variable whose first dims are the navigation dims `nav`.

    Each can be read from any thread. Intermediate results of lazy steps that serve the complete
    scan, such as its mean, are computed at the first read and kept. Everything else is computed for
    the block that is read, in the thread that reads it or on the Dask cluster in use.

    Attributes
    ----------
    regions : list of dict
        Slice along each navigation dim, for each block in row-major order.
    largest : int
        Samples of the largest block.
    """

    def __init__(self, variable: xr.DataArray, nav: Sequence[str]) -> None:
        variable = in_chunks(variable, nav)
        self.name = variable.name
        self.dtype = variable.dtype.newbyteorder("=")
        (array,) = dask.optimize(variable.data)
        chunks = array.chunks[: len(nav)]
        self.regions: list[Region] = []
        for slices in slices_from_chunks(chunks):
            self.regions.append(dict(zip(nav, slices, strict=True)))
        self.largest = math.prod(map(max, chunks))
        self._optimized: HighLevelGraph = array.__dask_graph__()
        self._keys = list(flatten(array.__dask_keys__()))
        self._compute = dask_get()

    def read(self, i: int) -> np.ndarray:
        """Return the values of block i. Raises DataError, with the region, for a damaged chunk."""
        key = self._keys[i]
        with reading(self.name, self.regions[i]):
            tasks = dict(self.graph.cull([key]))
            return np.asarray(self._compute(tasks, key))

    @cached_property
    def graph(self) -> HighLevelGraph:
        """The tasks of all blocks, in which shared results are computed already."""
        tasks = dict(self._optimized)
        shared = [Delayed(key, tasks) for key in shared_keys(self._optimized, self._keys)]
        for result in dask.persist(*shared, scheduler=self._compute):
            tasks |= result.__dask_graph__()
        return HighLevelGraph.from_collections("blocks", tasks)


def shared_keys(graph: HighLevelGraph, block_keys: Sequence[Any]) -> list[Any]:
    """Return the keys of tasks whose results more than `NEIGHBOURS` blocks need.

    Tasks that are needed only to compute these results are not listed.
    """
    most = max(min(NEIGHBOURS, len(block_keys) - 1), 1)
    needs = graph.get_all_dependencies()
    served: dict[Any, set[int]] = {key: set() for key in needs}
    for i, key in enumerate(block_keys):
        served[key].add(i)
    shared = []
    sources_first = list(TopologicalSorter(needs).static_order())
    for key in reversed(sources_first):
        if len(served[key]) > most:
            shared.append(key)
            continue
        for needed in needs[key]:
            served[needed] |= served[key]
    return shared


def corner(region: Region) -> tuple[int, ...]:
    """Return the first grid point of a region."""
    return tuple(extent.start for extent in region.values())


def sides(regions: Sequence[Region]) -> dict[str, int]:
    """Return the sides of the blocks that tile a grid; the first block has the full size."""
    return {dim: extent.stop - extent.start for dim, extent in regions[0].items()}


class Block(NamedTuple):
    """One block of the grid: its chosen points, and their samples `(k, C, …)` as stored."""

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
    """Yield the chosen samples block by block, while the next block is read.

    Blocks without a chosen point are not read. chosen: boolean over the navigation grid. regions:
    the blocks to read; all by default. device: the samples are held in memory that copies fast to
    it.
    """
    number = {corner(region): i for i, region in enumerate(blocks.regions)}
    like = torch.from_numpy(np.empty(0, blocks.dtype)).dtype

    def read(region: Region) -> Block:
        inside = chosen[tuple(region.values())]
        rows = np.flatnonzero(inside)
        stored = host_tensor((len(rows), *input_shape), like, device)
        if len(rows):
            values = blocks.read(number[corner(region)])
            take_rows(values, rows, stored.numpy())
        return Block(region, inside, stored)

    return read_ahead(read, blocks.regions if regions is None else regions)


def take_rows(block: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """Copy the samples of a block with these row-major numbers into `out` `(k, C, …)`."""
    samples = block.reshape(-1, *out.shape[1:])
    np.take(samples, rows, axis=0, out=out, mode="clip")


def check_grid(ds: xr.Dataset, store_ds: xr.Dataset) -> None:
    """Raise SchemaError unless all samples of a Dataset lie on the grid of a store."""
    schema.validate(ds)
    nav = schema.navigation_dims(store_ds)
    if schema.navigation_dims(ds) != nav:
        raise SchemaError(
            f"the Dataset has samples over {schema.navigation_dims(ds)}, the store over {nav}."
        )
    for dim in nav:
        positions = ds[dim].values
        outside = positions[~np.isin(positions, store_ds[dim].values)]
        if len(outside):
            raise SchemaError(
                f"the Dataset has {dim} = {outside[0]}, which is not on the grid of the store; "
                "create a store from it first: va.ingest(ds, 'NEW.zarr')."
            )


def on_grid(values: Labelled, store_ds: xr.Dataset, fill: Any) -> Labelled:
    """Return values over the complete grid of a store, `fill` where there are none."""
    grid = {dim: store_ds[dim] for dim in schema.navigation_dims(store_ds)}
    return values.reindex(grid, fill_value=fill)
