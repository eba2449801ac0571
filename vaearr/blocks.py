"""An array block by block: its dask chunks over the navigation dims are what is read, shuffled, encoded and written."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from vaearr.borrowed import DataNode
from vaearr.computing import in_use
from vaearr.device import host_tensor
from vaearr.store import Region, read_ahead, reading
from vaearr.store.layout import pattern_chunks

CPU = torch.device("cpu")
NEIGHBOURS = 27  # blocks that a task of a lazy step may serve and still be done again for each


def in_chunks(variable: xr.DataArray, nav: Sequence[str], by: Mapping[str, int] | None = None) -> xr.DataArray:
    """The variable with dask chunks that hold whole samples; one without dask is cut as it is, or would be, stored.

    by: sides of the chunks along the navigation dims `nav`, to be brought to.
    """
    whole = {dim: -1 for dim in variable.dims if dim not in nav}
    if by is None and not variable.chunks:
        signal = tuple(variable.sizes[dim] for dim in whole)
        rule = pattern_chunks(tuple(variable.sizes[dim] for dim in nav), signal, variable.dtype.itemsize)
        stored = variable.encoding.get("shards") or variable.encoding.get("chunks") or rule
        by = dict(zip(nav, stored, strict=False))
    return variable.chunk({**whole, **(by or {})})


class Blocks:
    """The blocks of a variable whose first dims are the navigation dims `nav`; each can be read from any thread.

    regions: `{dim: slice}`, row-major. What a lazy step computes once for all, such as a mean over the scan, is
    computed at the first read and kept; all else is computed for the block that is read, in the thread that reads it,
    or by the cluster in use.
    """

    def __init__(self, variable: xr.DataArray, nav: Sequence[str], by: Mapping[str, int] | None = None) -> None:
        from dask import optimize

        variable = in_chunks(variable, nav, by)
        self.name, self.dtype = variable.name, variable.dtype.newbyteorder("=")
        self.shape = variable.shape[len(nav) :]
        ends = [np.cumsum((0, *chunks)).tolist() for chunks in variable.data.chunks[: len(nav)]]
        sides = [[slice(*pair) for pair in itertools.pairwise(end)] for end in ends]
        self.regions: list[Region] = [dict(zip(nav, corner, strict=True)) for corner in itertools.product(*sides)]
        (array,) = optimize(variable.data)
        places = itertools.product(*(range(len(side)) for side in sides))
        self._keys = [(array.name, *place, *(0,) * len(self.shape)) for place in places]
        self._graph = dict(array.__dask_graph__())
        self._is_prepared, self._client = False, in_use()

    @property
    def largest(self) -> int:
        """Samples of the largest block."""
        return max(int(np.prod([part.stop - part.start for part in region.values()])) for region in self.regions)

    def read(self, i: int) -> np.ndarray:
        """Values of block i. Raises DataError that names the place when a chunk is damaged."""
        from dask.optimization import cull

        self.prepare()
        with reading(self.name, self.regions[i]):
            graph, _ = cull(self._graph, self._keys[i])
            return np.asarray(self._computed(graph, self._keys[i]))

    def prepare(self) -> None:
        """Compute, once, what more blocks need than lie side by side, and put the values in the place of the tasks."""
        from dask.core import get_deps, toposort

        if self._is_prepared:
            return
        most = min(NEIGHBOURS, len(self._keys) - 1)
        needs, _ = get_deps(self._graph)
        serves: dict[Any, set[int]] = {key: set() for key in self._graph}
        for i, key in enumerate(self._keys):
            serves[key].add(i)
        shared = []
        for key in reversed(toposort(self._graph, dependencies=needs)):
            if len(serves[key]) > max(most, 1) and not isinstance(self._graph[key], DataNode):
                shared.append(key)
                continue
            for needed in needs[key]:
                serves[needed] |= serves[key]
        for key, value in zip(shared, self._computed(self._graph, shared), strict=True):
            self._graph[key] = DataNode(key, value)
        self._is_prepared = True

    def _computed(self, graph: Mapping[Any, Any], keys: Any) -> Any:
        import dask

        return self._client.get(graph, keys) if self._client else dask.get(graph, keys)


def corner(region: Region) -> tuple[int, ...]:
    """The first grid point of a region."""
    return tuple(part.start for part in region.values())


def sides(regions: Sequence[Region]) -> dict[str, int]:
    """Sides of the blocks that tile a grid, of which the first is a whole one."""
    return {dim: part.stop - part.start for dim, part in regions[0].items()}


class Block(NamedTuple):
    """One block of the grid: which of its points are chosen, and their samples `(k, C, …)` as stored."""

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
    """The chosen samples, block by block; the next block is read meanwhile, those without a chosen point are not read.

    chosen: boolean over the navigation grid. regions: some of the blocks, each once, instead of all. device: where the
    samples go next, which decides what kind of memory they wait in.
    """
    number = {corner(region): i for i, region in enumerate(blocks.regions)}
    wanted = range(len(blocks.regions)) if regions is None else [number[corner(region)] for region in regions]
    like = torch.from_numpy(np.empty(0, blocks.dtype)).dtype

    def read(i: int) -> Block:
        inside = chosen[tuple(blocks.regions[i].values())]
        stored = host_tensor((int(inside.sum()), *input_shape), like, device)
        if len(stored):
            take_rows(blocks.read(i), np.flatnonzero(inside), stored.numpy())
        return Block(blocks.regions[i], inside, stored)

    return read_ahead(read, wanted)


def take_rows(block: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """Samples of a block by their row-major number, channels first, into `out` `(k, C, …)`: the one copy there is."""
    np.take(block.reshape(-1, *out.shape[1:]), rows, axis=0, out=out, mode="clip")
