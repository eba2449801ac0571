"""Borders between the parts of a label map: as points, and as lines to draw over any map."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.clustering.labels import whole_numbers
from vaearr.errors import UsageError
from vaearr.schema.grid import edges, label_borders


def boundaries(labels: xr.DataArray, connectivity: Literal[4, 8] = 4) -> xr.DataArray:
    """Where a scan point has a neighbour with another label: boolean, over the dims of `labels`.

    connectivity: 4 = neighbours that share an edge (in three dimensions a face), 8 = also those at the corners. Points
    and neighbours without a label (below 0, NaN) make no boundary. Raises SchemaError for a map with fractions.
    """
    if connectivity not in (4, 8):
        raise UsageError(f"connectivity is {connectivity}; it is 4 (shared edges) or 8 (corners too).")
    codes = whole_numbers(labels)
    found = np.zeros(codes.shape, bool)
    for step in itertools.product((-1, 0, 1), repeat=codes.ndim):
        if step <= (0,) * codes.ndim or (connectivity == 4 and sum(map(abs, step)) > 1):
            continue  # each pair of neighbours is met once
        here = tuple(slice(max(0, -s), size - max(0, s)) for s, size in zip(step, codes.shape, strict=True))
        there = tuple(slice(max(0, s), size - max(0, -s)) for s, size in zip(step, codes.shape, strict=True))
        differ = (codes[here] != codes[there]) & (codes[here] >= 0) & (codes[there] >= 0)
        found[here] |= differ
        found[there] |= differ
    coords = {name: coord for name, coord in labels.coords.items() if coord.dims}
    attrs = {"long_name": f"boundary of {labels.attrs.get('long_name', labels.name)}", "connectivity": connectivity}
    return xr.DataArray(found, coords, labels.dims, name="boundaries", attrs=attrs)


def boundary_segments(labels: xr.DataArray) -> np.ndarray:
    """Borders between cells of different labels: segments `(n, 4)` of x0, y0, x1, y1 in coordinate units.

    They run along the edges of the scan points' cells, half-way to the next point; pieces in one line are merged.
    Points without a label make no border. For a map over y and x; x is the last dim (for dims (x, y) too).
    """
    if labels.ndim != 2:
        raise UsageError(f"segments are drawn on a map of two dimensions, {labels.name!r} has {labels.dims}.")
    if labels.dims == (n.X, n.Y):
        labels = labels.transpose()
    y, x = (edges(labels[dim].values) for dim in labels.dims)
    return label_borders(whole_numbers(labels), x, y)
