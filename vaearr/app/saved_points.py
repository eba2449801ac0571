"""What a saved page carries of the samples: values at points, maps, pictures; all packed small.

Numbers are whole steps between two limits: 16 bits at points (to 1/65534 of the span), 8 bits on maps and in pictures;
the highest code means NaN. Bytes are deflated and written as base64.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.app import state as s
from vaearr.app.raster import MOST, block_mean
from vaearr.app.state import State
from vaearr.exploration.points import some
from vaearr.plots.common import as_codes, is_category, label, palette, robust_limits, text, value_text
from vaearr.store import read_block

PATH = "path"  # of files, in the store
FINE, COARSE = 65534, 254  # steps of a point's and of a cell's values
MOST_CLASSES = 200
LEAST_CELLS = 2500  # of a layer of a 3-D map, before layers are left out
SIDES = (256, 128, 96)  # pixels of carried pictures along their longer side, the first of which all fit
PIECE = 128  # pictures that are deflated together
MOST_SCORES = 8  # components of a decomposition that points can be drawn over


def deflated(values: np.ndarray | bytes) -> str:
    """Bytes for the page."""
    raw = values if isinstance(values, bytes) else np.ascontiguousarray(values).tobytes()
    return base64.b64encode(zlib.compress(raw, 6)).decode("ascii")


def stepped(values: np.ndarray, low: float, high: float, steps: int) -> np.ndarray:
    """Whole steps between two limits, clipped; `steps + 1` where not finite."""
    known = np.isfinite(values)
    scaled = np.rint(np.clip((np.where(known, values, low) - low) / (high - low), 0, 1) * steps)
    return np.where(known, scaled, steps + 1).astype("<u2" if steps > 255 else "u1")


def span(values: np.ndarray) -> tuple[float, float]:
    """Least and largest finite value, apart in any case."""
    low, high = robust_limits(values, (0, 100))
    return low, high


@dataclass(frozen=True, eq=False)
class Layer:
    """Values of all samples under a heading: amounts, or positions in a list of class names. name: of the variable."""

    title: str
    name: str
    values: np.ndarray
    names: tuple[str, ...] = ()

    def limits(self) -> tuple[float, float]:
        """Between which colours run."""
        return (-0.5, len(self.names) - 0.5) if self.names else robust_limits(self.values)


def layers(state: State) -> list[Layer]:
    """The latents, then maps, elements and coordinates that hold more than one value.

    Paths of files stay behind, as do texts that name every sample by itself.
    """
    found = [Layer(f"latent {i}", f"latent:{i}", state.latents[:, i]) for i in range(state.dims)]
    for key in s.layers(state).values():
        kind, _, name = key.partition(":")
        if kind == "latent" or name == PATH:
            continue
        layer = _side(s.layer(state, key), name)
        if layer is None or (kind == "map" and state.ds[name].dtype.kind in "OUT" and _is_own(layer)):
            continue
        known = {other.title for other in found}
        found.append(replace(layer, title=f"{layer.title}, {text(name)}") if layer.title in known else layer)
    return found


def _side(da: xr.DataArray, name: str) -> Layer | None:
    title = label(da)
    if is_category(da):
        positions, classes = as_codes(da)
        if len(classes) <= MOST_CLASSES:
            return Layer(title, name, np.asarray(positions.values, "f4").ravel(), tuple(classes))
    flat = np.asarray(da.values, "f4").ravel()
    known = flat[np.isfinite(flat)]
    return Layer(title, name, flat) if known.size and known.min() < known.max() else None


def _is_own(layer: Layer) -> bool:
    return len(layer.names) == layer.values.size


def chosen_points(state: State, most: int, seed: int) -> np.ndarray:
    """Numbers of at most `most` samples with latents, by the seed where there are more."""
    known = np.flatnonzero(np.isfinite(state.latents).all(1))
    return known[some(len(known), most, seed)]


def packed_layer(layer: Layer, numbers: np.ndarray) -> dict[str, Any]:
    """A layer at the points."""
    values = layer.values[numbers]
    low, high = (0.0, float(FINE)) if layer.names else span(values)
    colors = layer.limits()
    return {
        "title": layer.title, "name": layer.name, "names": list(layer.names), "low": low, "high": high,
        "palette": palette(len(layer.names)) if layer.names else [], "colors": list(colors),
        "points": deflated(stepped(values, low, high, FINE)),
    }  # fmt: skip


def scores(state: State, numbers: np.ndarray) -> list[dict[str, Any]]:
    """Stored decompositions at the points: axes that can be drawn over beside the latents."""
    found = []
    for name, values in s.planes(state).items():
        if name == "latents":
            continue
        for i in range(min(values.shape[1], MOST_SCORES)):
            column = values[numbers, i]
            low, high = span(column)
            data = deflated(stepped(column, low, high, FINE))
            found.append({"title": text(f"{name} {i}"), "low": low, "high": high, "points": data})
    return found


# ---- maps


def map_plan(state: State, count: int, budget: int) -> dict[str, Any]:
    """How `count` maps are carried in about `budget` bytes: cells per block, and which layers of a 3-D scan."""
    (*above, rows, columns) = state.nav_shape
    depth = above[0] if above else 1
    per_layer = min(MOST, budget // max(1, count) // depth)
    kept = np.arange(depth)
    if per_layer < min(LEAST_CELLS, rows * columns):
        per_layer = min(LEAST_CELLS, rows * columns)
        most = max(1, budget // max(1, count) // per_layer)
        kept = np.unique(np.linspace(0, depth - 1, min(depth, most)).round().astype(int))
    factor = 1
    while -(-rows // factor) * -(-columns // factor) > per_layer:
        factor += 1
    dims = schema.navigation_dims(state.ds)
    y0, dy, up = s.axis(state.ds[dims[-2]])
    x0, dx, across = s.axis(state.ds[dims[-1]])
    words = []
    if above:
        z = state.ds[dims[0]]
        words = [f"{dims[0]} = {value_text(z.values[i], z.attrs)}" for i in kept]
    return {
        "rows": rows, "columns": columns, "factor": factor, "depth": depth, "kept": kept.tolist(), "words": words,
        "x0": x0, "dx": dx, "y0": y0, "dy": dy, "across": across, "up": up,
        "down": -(-rows // factor), "wide": -(-columns // factor),
    }  # fmt: skip


def packed_map(layer: Layer, plan: dict[str, Any]) -> str:
    """A layer as maps `(layers, rows, columns)` of blocks: means of amounts, the first cell of codes."""
    values = layer.values.reshape(plan["depth"], plan["rows"], plan["columns"])[plan["kept"]]
    factor = plan["factor"]
    if factor > 1 and layer.names:
        values = values[:, ::factor, ::factor]
    elif factor > 1:
        values = np.stack([block_mean(part, factor) for part in values])
    low, high = (0.0, float(COARSE)) if layer.names else layer.limits()
    return deflated(np.diff(stepped(values, low, high, COARSE), axis=-1, prepend=np.uint8(0)))


# ---- words and pictures of the points


def point_words(state: State, numbers: np.ndarray) -> list[str]:
    """Each point by its coordinates, and the name of its file."""
    places = np.unravel_index(numbers, state.nav_shape)
    parts = []
    for dim, place in zip(schema.navigation_dims(state.ds), places, strict=True):
        coord = state.ds[dim]
        every = [f"{dim} = {value_text(v, coord.attrs)}" for v in coord.values]
        parts.append([every[i] for i in place])
    if not schema.is_scan(state.ds) and PATH in state.ds.variables:
        paths = state.ds[PATH].values
        known = {str(v) for v in state.ds[schema.navigation_dims(state.ds)[0]].values}
        files = [text(PurePath(str(path)).name) for path in paths]
        parts.append([files[i] if files[i] not in known else "" for i in places[0]])
    return [", ".join(filter(None, words)) for words in zip(*parts, strict=True)]


def packed_words(words: list[str]) -> str:
    """Texts, deflated."""
    return deflated(json.dumps(words, ensure_ascii=False).encode("utf-8"))


def stored_pictures(state: State, numbers: np.ndarray) -> np.ndarray:
    """Pictures of samples as stored `(k, H, W[, 3])`, of volumes the middle slice; each chunk is read once."""
    dims, signal = schema.navigation_dims(state.ds), schema.signal_dims(state.ds)
    patterns = state.ds[n.PATTERNS]
    chunks = patterns.encoding.get("chunks") or (1,) * patterns.ndim
    places = np.array(np.unravel_index(numbers, state.nav_shape))
    blocks = places // np.array(chunks[: len(dims)])[:, None]
    found: list[np.ndarray | None] = [None] * len(numbers)
    for block in np.unique(blocks, axis=1).T:
        inside = np.flatnonzero((blocks == block[:, None]).all(0))
        first, last = places[:, inside].min(1), places[:, inside].max(1) + 1
        region = {dim: slice(int(a), int(b)) for dim, a, b in zip(dims, first, last, strict=True)}
        values = read_block(patterns, region)[tuple(places[:, inside] - first[:, None])]
        shown = s.as_pictures(xr.DataArray(values, dims=("picture", *signal), name=n.PATTERNS))
        for i, picture in zip(inside, shown, strict=True):
            found[i] = picture
    return np.stack([picture for picture in found if picture is not None])


def reduced(images: np.ndarray, side: int) -> np.ndarray:
    """Pictures `(k, H, W[, 3])` in blocks until their longer side is at most `side`."""
    factor = -(-max(images.shape[1:3]) // side)
    if factor == 1:
        return images
    return np.stack([block_mean(image, factor) for image in images])


def as_bytes(image: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """A picture in 8 bits between two limits, by default its 0.5 % and 99.5 % percentile."""
    low, high = limits or robust_limits(image, (0.5, 99.5))
    known = np.nan_to_num(image, nan=low, posinf=high, neginf=low)
    return np.rint(np.clip((known - low) / (high - low), 0, 1) * 255).astype("u1")


def packed_pictures(images: np.ndarray) -> str:
    """8-bit pictures `(k, H, W[, 3])` as differences along the rows."""
    return deflated(np.diff(images, axis=2, prepend=np.uint8(0)))


def thumbnails(state: State, numbers: np.ndarray, budget: int, seed: int) -> dict[str, Any]:
    """Stored pictures of as many points as fit in a budget of bytes, chosen by the seed: which points, pieces of them.

    Points that were not measured have none.
    """
    able = np.arange(len(numbers))
    if n.PRESENT in state.ds:
        present = state.ds[n.PRESENT].transpose(*schema.navigation_dims(state.ds)).values.ravel()
        able = able[present[numbers]]
    order = np.random.default_rng(seed).permutation(able)
    if not len(order):
        return {"which": [], "pieces": [], "each": PIECE, "shape": [1, 1, 1], "stored": [1, 1]}
    first = stored_pictures(state, numbers[order[:PIECE]])
    for side in SIDES:  # larger pictures where all fit
        some = _bytes(first, side)
        fits = int(budget * 0.95 * len(some) / len(packed_pictures(some)))
        if fits >= len(order):
            break
    which = np.sort(order[: max(1, fits)])
    pieces, used = [], 0
    for part in _pieces(which):
        packed = packed_pictures(_bytes(stored_pictures(state, numbers[part]), side))
        used += len(packed)
        if used > budget:
            break
        pieces.append(packed)
    shape = (*some.shape[1:], 1)[:3]
    kept = which[: len(pieces) * PIECE].tolist()
    return {"which": kept, "pieces": pieces, "each": PIECE, "shape": list(shape), "stored": list(first.shape[1:3])}


def _bytes(images: np.ndarray, side: int) -> np.ndarray:
    return np.stack([as_bytes(image) for image in reduced(images, side)])


def _pieces(which: np.ndarray) -> Iterator[np.ndarray]:
    for begin in range(0, len(which), PIECE):
        yield which[begin : begin + PIECE]
