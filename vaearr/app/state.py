"""What the page shows, as plain functions: a store and a run opened once, its layers and samples, what is decoded."""

from __future__ import annotations

import base64
import io
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.stored import current_table
from vaearr.analysis.association.table import ASSOCIATION
from vaearr.analysis.association.targets import TARGET, targets_of
from vaearr.errors import DataError, NoInputError, UsageError, VaearrError, did_you_mean
from vaearr.schema import is_categorical, meanings
from vaearr.store import check_store, object_url, open_store, read_block, run_folder, run_manifest
from vaearr.store.places import place
from vaearr.views.common import brief, text, value_text
from vaearr.views.pictures import pictures

SPREAD = (0.5, 99.5)  # percentiles between which sliders run, with a margin
MARGIN = 0.25
CONTENTS = "zarr.json"
LATENTS = "latents"  # the plane of them
CLASSES = ("map:label", f"map:{n.CLUSTERS}")  # layers that collections begin with
MOST_CLASSES = 64  # of texts that are shown as colours
MOST_WORDS = 60  # characters of a name in the heading
REGION_MOST, SOME = 64, 12  # samples of a region whose mean is shown, and that are shown one by one
MOST_CELLS = 1_000_000  # of a map, beyond which cells are means over blocks of scan points
GREY = (0.5, 99.5)  # percentiles between which grey runs
PICTURE = "picture"
NO_MODEL = "this run's latents were computed elsewhere: it has no network, so nothing can be decoded"


@dataclass
class State:
    """A store and a run. `latents` `(samples, latent)`, NaN where a sample has none; spatial ones as their means."""

    path: Path
    run: str
    ds: xr.Dataset
    manifest: Mapping[str, Any]
    latents: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    has_model: bool
    version: Hashable = ()
    is_ready: bool = False  # the network is loaded and has decoded once
    problem: str = ""  # why nothing can be decoded

    @property
    def dims(self) -> int:
        """Number of latent dimensions."""
        return int(self.latents.shape[1])

    @property
    def nav_shape(self) -> tuple[int, ...]:
        """Sizes of the navigation dims."""
        return schema.navigation_shape(self.ds)

    @property
    def is_scan(self) -> bool:
        """Whether the samples can be shown as a map."""
        return schema.is_scan(self.ds) and len(self.nav_shape) in (2, 3)

    @cached_property
    def network(self) -> tuple[Any, Any]:
        """The run with its network, and the mean of all samples that vectors are moved from; loaded on first use.

        Raises what `open_run` raises, DataError for a run without a network.
        """
        if not self.has_model:
            raise DataError(f"run {self.run!r}: {NO_MODEL}.")
        from vaearr.analysis.exploration.bases import start
        from vaearr.analysis.exploration.points import open_encoded
        from vaearr.run import open_run

        opened = open_run(self.path, self.run)
        return opened, start(open_encoded(self.path, self.run), opened, "mean")

    def load(self) -> None:
        """Load the network and decode once, which is slow; `is_ready` or `problem` tell how it went."""
        try:
            decode(self, self.network[1].centre[None])
            self.is_ready = True
        except (VaearrError, OSError) as error:
            self.problem = str(error)


def open_state(store: str | Path, run: str = n.DEFAULT_RUN) -> State:
    """Open a store and a run for exploring, without the network. Raises NoInputError for a run or latents not there."""
    path = check_store(store)
    manifest = run_manifest(path, run)
    ds = open_store(path, chunks=None)
    variable = n.run_name(n.LATENTS, run)
    if variable not in ds:
        hint = did_you_mean(run, schema.runs(ds))
        raise NoInputError(f"run {run!r} has no latents: 'vaearr encode STORE --run {run}' writes them.{hint}")
    pooled = schema.vectors(ds[variable]).transpose(*schema.navigation_dims(ds), ...)
    latents = np.asarray(pooled.values, np.float32).reshape(-1, pooled.shape[-1])
    known = latents[np.isfinite(latents).all(1)]
    if not len(known):
        raise NoInputError(f"{variable!r} holds no finite latents; run 'vaearr encode STORE --run {run}' again.")
    low, high = np.percentile(known, SPREAD, axis=0)
    margin = np.maximum(MARGIN * (high - low), 1e-3)
    has_model = (run_folder(path, run) / n.MODEL / "config.json").is_file()
    return State(
        path, run, ds, manifest, latents, low - margin, high + margin, known.mean(0), np.maximum(known.std(0), 1e-6),
        has_model, version(path, run), problem="" if has_model else NO_MODEL,
    )  # fmt: skip


def version(path: Path, run: str) -> Hashable:
    """What is another once the store's list of contents, the run or its latents were written again."""
    if object_url(path):
        return place(path).tag()
    files = (path / CONTENTS, path / n.RUNS / run / CONTENTS, path / n.run_name(n.LATENTS, run) / CONTENTS)
    return tuple(file.stat().st_mtime_ns if file.is_file() else 0 for file in files)


def is_current(state: State) -> bool:
    """Whether neither the store nor the run has been written since it was opened."""
    return version(state.path, state.run) == state.version


def summary(state: State) -> str:
    """What is shown, in one line: the store, the run, the samples."""
    size = " × ".join(map(str, state.nav_shape))
    picture = " × ".join(str(state.ds.sizes[dim]) for dim in schema.signal_dims(state.ds))
    return (
        f"{brief(state.path.name, MOST_WORDS)}, run {brief(state.run, MOST_WORDS)!r}: {size} "
        f"{schema.samples_word(state.ds)} of {picture}, {state.dims} latent dimensions"
    )


def origin_words(state: State) -> str:
    """Which weights made the latents, and when: "weights 253e2bc9, 2026-11-21"."""
    sha, time = state.manifest.get("weights_sha256"), str(state.manifest.get("time", ""))
    parts = [f"weights {text(str(sha)[:8])}" if sha else "latents from elsewhere", text(time[:10])]
    return ", ".join(part for part in parts if part)


# ---- layers


def layers(state: State) -> dict[str, str]:
    """What a map or the colour of points can show: its words and name, latents first."""
    ds, nav = state.ds, set(schema.navigation_dims(state.ds))
    found = {f"latent {i}": f"latent:{i}" for i in range(state.dims)}
    names = [*schema.maps(ds), *(str(c) for c in ds.coords if set(ds[c].dims) == nav and c not in ds.dims)]
    for name in names:
        kind = ds[name].dtype.kind
        if kind not in "iufbOUT" or (kind in "OUT" and _texts(state, name) is None):
            continue
        words = text(ds[name].attrs.get("long_name", name))
        found[words if words not in found and words != name else text(name)] = f"map:{name}"
    elements: Any = ds[n.ELEMENT].values if n.ELEMENTS in ds and n.ELEMENT in ds.coords else []
    return found | {f"element {text(name)}": f"element:{name}" for name in elements}


def layer(state: State, name: str) -> xr.DataArray:
    """The values of a layer over the navigation dims, in memory; texts as codes with names.

    Raises UsageError for one that is not there.
    """
    kind, _, rest = name.partition(":")
    nav = schema.navigation_dims(state.ds)
    if kind == "latent" and rest.isdigit() and int(rest) < state.dims:
        values = state.latents[:, int(rest)].reshape(state.nav_shape)
        coords = {dim: state.ds[dim] for dim in nav}
        return xr.DataArray(values, dims=nav, coords=coords, name=f"latent {rest}", attrs={"units": "1"})
    if name not in layers(state).values():
        raise UsageError(f"there is no layer {name!r}.{did_you_mean(name, list(layers(state).values()))}")
    if kind == "element":
        one = state.ds[n.ELEMENTS].sel({n.ELEMENT: rest}).transpose(*nav).load()
        return one.rename(text(rest)).assign_attrs(long_name=text(rest))
    found = state.ds[rest].transpose(*nav).load()
    if found.dtype.kind not in "OUT":
        return found
    names, codes = _texts(state, rest) or ([], np.zeros(0))
    attrs = found.attrs | {"flag_values": list(range(len(names))), "flag_meanings": names}
    return found.copy(data=codes.reshape(found.shape).astype(np.int32)).assign_attrs(attrs)


def _texts(state: State, name: str) -> tuple[list[str], np.ndarray] | None:
    """Different texts of a map and their numbers, where there are few enough to colour by."""
    values = np.asarray([str(v) for v in state.ds[name].transpose(*schema.navigation_dims(state.ds)).values.ravel()])
    found, codes = np.unique(values, return_inverse=True)
    return (found.tolist(), codes) if 1 < len(found) <= MOST_CLASSES else None


def coarse(da: xr.DataArray, factor: int) -> xr.DataArray:
    """A map in blocks of `factor` x `factor` cells: their means, of classes the first cell."""
    if is_categorical(da):
        return da[::factor, ::factor]
    blocks: Any = da.coarsen(dict.fromkeys(da.dims, factor), boundary="trim")
    return blocks.mean(keep_attrs=True).rename(da.name)


def planes(state: State) -> dict[str, np.ndarray]:
    """What points can be drawn over: the latents, and scores of two or more components, each `(samples, k)`."""
    nav = schema.navigation_dims(state.ds)
    found = {LATENTS: state.latents}
    for name in schema.decompositions(state.ds):
        scores = state.ds[name].transpose(*nav, ...)
        if scores.shape[-1] > 1:
            found[name] = np.asarray(scores.values, np.float32).reshape(-1, scores.shape[-1])
    return found


def widest(state: State) -> list[int]:
    """Dimensions that vary most, first."""
    return [int(i) for i in np.argsort(-state.spread, kind="stable")]


def associations(state: State) -> xr.DataArray | None:
    """The stored table `(metric, latent, target)` of the run if it is of these latents and maps, else None."""
    table = current_table(state.path, state.ds, state.run)
    return None if table is None else table[ASSOCIATION].load()


def target(state: State, name: str) -> xr.DataArray:
    """A target of the table as a map over the navigation dims."""
    found = targets_of(state.ds, [name]).isel({TARGET: 0}).transpose(*schema.navigation_dims(state.ds))
    return found.load().rename(text(name)).assign_attrs(long_name=text(name))


# ---- pictures


def as_pictures(da: xr.DataArray, depth: float = 0.5) -> np.ndarray:
    """Stacked samples as pictures `(k, H, W[, 3])`; of volumes the slice at a depth in 0 … 1."""
    across = next((dim for dim in (n.Z, n.DZ) if dim in da.dims), None)
    if across is not None:
        at = round(depth * (da.sizes[across] - 1))
        da = da.isel({across: slice(at, at + 1)})  # of one slice, the middle one is shown
    return np.asarray(pictures(da), np.float32)


def is_volume(state: State) -> bool:
    """Whether samples are volumes, shown slice by slice."""
    return bool({n.Z, n.DZ} & set(schema.signal_dims(state.ds)))


def reduced(image: np.ndarray, side: int) -> np.ndarray:
    """A picture `(H, W[, 3])` in means over blocks until its longer side is at most `side`."""
    factor = -(-max(image.shape[:2]) // side)
    if factor == 1:
        return image
    stacked = xr.DataArray(image).coarsen(dim_0=factor, dim_1=factor, boundary="pad")
    return np.asarray(stacked.mean().values, np.float32)


def png(image: np.ndarray, limits: tuple[float, float]) -> str:
    """A picture `(H, W[, 3])` in 8 bits between two limits, as the address of an image; what is missing is clear."""
    from PIL import Image

    low, high = limits
    levels = np.rint(np.clip((np.nan_to_num(image, nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1) * 255)
    known = np.isfinite(image) if image.ndim == 2 else np.isfinite(image).all(-1)
    shown = Image.fromarray(levels.astype("u1"))
    if not known.all():
        shown.putalpha(Image.fromarray(known.astype("u1") * 255))
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def scale_words(state: State) -> str:
    """Units of decoded pictures in words."""
    from vaearr.run.draw import scale_attrs

    found = scale_attrs(state.network[0])
    return "preprocessed units" if found["scale"] != "stored" else f"stored units ({found['units']})"


# ---- samples


@dataclass(frozen=True)
class Sample:
    """One sample, or the mean of several: `latents (latent)`, `base` as decoded, the stored pattern (None: none).

    members: the samples that the picture is the mean of.
    """

    words: str
    latents: np.ndarray
    base: np.ndarray
    stored: xr.DataArray | None
    members: list[int]


def sample(state: State, indices: np.ndarray) -> Sample:
    """One sample; of several the mean of all latents, and of the pictures of at most 64 evenly chosen ones.

    Raises UsageError where none of several has latents.
    """
    if len(indices) == 1:
        index = int(indices[0])
        measured = _measured(state, indices)
        found = stored(state, [index]) if len(measured) else None
        return Sample(where(state, index), state.latents[index], base_of(state, index), found, measured.tolist())
    known = with_latents(state, indices)
    if not len(known):
        raise UsageError("none of the chosen samples has latents; choose others.")
    some, members = thinned(known, REGION_MOST), some_of(state, known, REGION_MOST).tolist()
    mean = stored(state, members).astype("f4").mean(PICTURE, keepdims=True) if members else None
    words = f"mean of {len(known):,} {schema.samples_word(state.ds)}"
    if len(known) > len(some):
        words += f" (picture: of {len(some)})"
    bases = np.stack([base_of(state, int(i)) for i in some])
    count = np.isfinite(bases).sum(0)
    base = np.where(count > 0, np.nansum(bases, 0) / np.maximum(count, 1), np.nan)
    return Sample(words, state.latents[known].mean(0), base, mean, members)


def place_of(state: State, index: int) -> dict[str, int]:
    """Where a sample lies in the grid."""
    place = np.unravel_index(index, state.nav_shape)
    return {dim: int(i) for dim, i in zip(schema.navigation_dims(state.ds), place, strict=True)}


def with_latents(state: State, indices: np.ndarray) -> np.ndarray:
    """Those of some samples that have latents."""
    return indices[np.isfinite(state.latents[indices]).all(1)]


def thinned(indices: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of some samples, evenly chosen in their order."""
    return indices[np.unique(np.linspace(0, len(indices) - 1, min(len(indices), most)).round().astype(int))]


def some_of(state: State, indices: np.ndarray, most: int = SOME) -> np.ndarray:
    """At most `most` of some samples, evenly chosen, that have latents and a pattern."""
    return thinned(_measured(state, with_latents(state, indices)), most)


def _measured(state: State, indices: np.ndarray) -> np.ndarray:
    if n.PRESENT not in state.ds:
        return indices
    return indices[state.ds[n.PRESENT].transpose(*schema.navigation_dims(state.ds)).values.ravel()[indices]]


def alike(state: State, latents: np.ndarray, most: int = SOME) -> np.ndarray:
    """The samples nearest to a vector, each dimension in its standard deviations over the store; the nearest first."""
    away = (((state.latents - latents) / state.spread) ** 2).sum(1)
    away[~np.isfinite(away)] = np.inf
    order = np.argsort(away, kind="stable")[:most]
    return order[np.isfinite(away[order])]


def in_polygon(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Which points `(k, 2)` lie in a polygon `(m, 2)`: a ray to the right crosses its sides an odd number of times."""
    inside = np.zeros(len(points), bool)
    x, y = points.T
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return inside


def where(state: State, index: int) -> str:
    """A sample in words: its coordinates, and the class or file it is known by."""
    at = place_of(state, index)
    parts = [f"{dim} = {value_text(state.ds[dim].values[i], state.ds[dim].attrs)}" for dim, i in at.items()]
    for name in ("label", "path") if not schema.is_scan(state.ds) else ():
        if name in state.ds.variables:
            one = state.ds[name]
            value = one.isel(at).item()
            parts.append(f"{name} = {text(meanings(one).get(value, value) if is_categorical(one) else value)}")
    return ", ".join(parts)


def brief_place(state: State, index: int) -> str:
    """A sample in as few characters as will do, for under its picture."""
    found = [str(state.ds[dim].values[i])[:9] for dim, i in place_of(state, index).items()]
    return text(found[0] if len(found) == 1 else f"({', '.join(f'{float(v):.4g}' for v in found)})")


def stored(state: State, indices: Sequence[int]) -> xr.DataArray:
    """Samples as stored, `(picture, [channel,] …)`."""
    signal = schema.signal_dims(state.ds)
    blocks = [
        read_block(state.ds[n.PATTERNS], {dim: slice(i, i + 1) for dim, i in place_of(state, index).items()})
        for index in indices
    ]
    values = np.stack(blocks).reshape(len(blocks), *(state.ds.sizes[dim] for dim in signal))
    return xr.DataArray(values, dims=(PICTURE, *signal), name=n.PATTERNS)


def base_of(state: State, index: int) -> np.ndarray:
    """The latents of a sample as the decoder takes them, `latent_shape`."""
    found = state.ds[n.run_name(n.LATENTS, state.run)]
    if not schema.position_dims(found):
        return state.latents[index]
    order = (n.LATENT, *n.POSITIONS)
    one = found.isel(place_of(state, index))
    stems = {d: next((s for s in order if d == s or str(d).startswith(f"{s}_")), n.LATENT) for d in one.dims}
    return np.asarray(one.transpose(*sorted(one.dims, key=lambda d: order.index(stems[d]))).values, np.float32)


# ---- decoding


def begin_at(state: State, base: np.ndarray | None) -> Any:
    """A `Start` at the latents of a sample; where a mask left positions out, at their channel's mean."""
    origin = state.network[1]
    if base is None:
        return origin
    if not np.isfinite(base).all():
        from vaearr.analysis.exploration.bases import filled
        from vaearr.analysis.exploration.points import open_encoded

        base = filled(open_encoded(state.path, state.run), base[None])[0]
    return replace(origin, latents=np.asarray(base, np.float64))


def moved(state: State, vectors: np.ndarray, base: np.ndarray | None = None) -> np.ndarray:
    """Latents at vectors `(k, latent)`, as the decoder takes them: `(k, *latent_shape)`.

    A spatial latent keeps the pattern of `base` (None: of the mean of all) and is moved to the vector's means.
    """
    z: np.ndarray = begin_at(state, base).moved(range(state.dims), np.asarray(vectors, np.float64))
    return z


def decode(state: State, vectors: np.ndarray, base: np.ndarray | None = None) -> xr.DataArray:
    """Latent vectors `(k, latent)` decoded in one go, see `moved`: `(picture, [channel,] …)`."""
    return decode_latents(state, moved(state, vectors, base))


def decode_latents(state: State, z: np.ndarray) -> xr.DataArray:
    """Latents `(k, *latent_shape)` decoded: `(picture, [channel,] …)`."""
    from vaearr.run.draw import decoded_array

    return decoded_array(state.network[0], z, PICTURE)


def seen(state: State, indices: Sequence[int]) -> xr.DataArray:
    """Samples in the units in which latents are decoded, `(picture, [channel,] …)`."""
    import torch

    from vaearr.run.draw import seen_batch

    found = stored(state, indices)
    raw = found.values.reshape(len(indices), *schema.input_shape(state.ds))
    raw = np.ascontiguousarray(raw, raw.dtype.newbyteorder("="))
    return found.copy(data=seen_batch(state.network[0], torch.from_numpy(raw)).numpy().reshape(found.shape))


def rebuilt(state: State, indices: Sequence[int]) -> xr.DataArray:
    """Samples decoded from their stored latents, `(picture, [channel,] …)`."""
    return decode_latents(state, np.stack([begin_at(state, base_of(state, i)).latents for i in indices]))
