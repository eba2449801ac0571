"""What the page shows, as plain functions: a store and a run opened once, samples, decoded vectors. Reads only."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.association.stored import current_table
from vaearr.errors import DataError, NoInputError, UsageError, VaearrError, did_you_mean
from vaearr.plots.common import value_text
from vaearr.plots.decoded import pictures
from vaearr.store import check_store, open_store, read_block, run_folder, run_manifest

SPREAD = (0.5, 99.5)  # percentiles between which sliders run, with a margin
MARGIN = 0.25
REGION_MOST = 64  # samples whose patterns are read for the mean of a region
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
    _opened: Any = None
    _error: str = ""
    _thread: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

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

    @property
    def is_ready(self) -> bool:
        """Whether the network is loaded."""
        return self._opened is not None

    @property
    def problem(self) -> str:
        """Why nothing can be decoded, "" where it can or is about to be."""
        return self._error if self.has_model else NO_MODEL

    @property
    def opened(self) -> Any:
        """The run with its network, loaded on first use. Raises what `open_run` raises, DataError for no network."""
        with self._lock:
            if self._opened is None:
                if not self.has_model:
                    raise DataError(f"run {self.run!r}: {NO_MODEL}.")
                from vaearr.inference.decoding import open_run

                self._opened = open_run(self.path, self.run)
            return self._opened

    def load_aside(self) -> None:
        """Load the network in a thread, so that the page comes up first; `is_ready` and `problem` tell when."""
        if self._thread is None and self.has_model:
            self._thread = threading.Thread(target=self._load, daemon=True)
            self._thread.start()

    def _load(self) -> None:
        try:
            decode(self, self.mean[None])  # the first one is slow
        except (VaearrError, OSError) as error:
            self._error = str(error)
        except Exception as error:
            self._error = f"the network cannot be loaded: {type(error).__name__}: {error}"
            raise


def open_state(store: str | Path, run: str = n.DEFAULT_RUN) -> State:
    """Open a store and a run for exploring, without the network. Raises NoInputError for a run or latents not there."""
    path = check_store(store)
    manifest = run_manifest(path, run)
    ds = open_store(path, chunks=None)
    variable = n.run_name(n.LATENTS, run)
    if variable not in ds:
        hint = did_you_mean(run, schema.runs(ds))
        raise NoInputError(f"run {run!r} has no latents: 'vaearr encode STORE --run {run}' writes them.{hint}")
    nav = schema.navigation_dims(ds)
    pooled = schema.vectors(ds[variable]).transpose(*nav, ...)
    latents = np.asarray(pooled.values, np.float32).reshape(-1, pooled.shape[-1])
    known = latents[np.isfinite(latents).all(1)]
    if not len(known):
        raise NoInputError(f"{variable!r} holds no finite latents; run 'vaearr encode STORE --run {run}' again.")
    low, high = np.percentile(known, SPREAD, axis=0)
    margin = np.maximum(MARGIN * (high - low), 1e-3)
    return State(
        path, run, ds, manifest, latents, low - margin, high + margin, known.mean(0), np.maximum(known.std(0), 1e-6),
        has_model=(run_folder(path, run) / n.MODEL / "config.json").is_file(),
    )  # fmt: skip


def summary(state: State) -> str:
    """What is shown, in one line: the store, the run, the samples."""
    size = " × ".join(map(str, state.nav_shape))
    picture = " × ".join(str(state.ds.sizes[dim]) for dim in schema.signal_dims(state.ds))
    return (
        f"{state.path.name}, run {state.run!r}: {size} {schema.samples_word(state.ds)} of {picture}, "
        f"{state.dims} latent dimensions"
    )


def layers(state: State) -> dict[str, str]:
    """What a map or the colour of points can show: its words and name, latents first."""
    found = {f"latent {i}": f"latent:{i}" for i in range(state.dims)}
    for name in schema.maps(state.ds):
        words = str(state.ds[name].attrs.get("long_name", name))
        found[words if words not in found and words != name else name] = f"map:{name}"
    coords = [str(c) for c in state.ds.coords if state.ds[c].dims == schema.navigation_dims(state.ds)]
    plain = [c for c in coords if c not in state.ds.dims and state.ds[c].dtype.kind in "iufb"]
    return found | {c: f"map:{c}" for c in plain if f"map:{c}" not in found.values()}


def layer(state: State, name: str) -> xr.DataArray:
    """The values of a layer over the navigation dims, in memory. Raises UsageError for one that is not there."""
    kind, _, rest = name.partition(":")
    nav = schema.navigation_dims(state.ds)
    if kind == "latent" and rest.isdigit() and int(rest) < state.dims:
        values = state.latents[:, int(rest)].reshape(state.nav_shape)
        coords = {dim: state.ds[dim] for dim in nav}
        return xr.DataArray(values, dims=nav, coords=coords, name=f"latent {rest}", attrs={"units": "1"})
    if name not in layers(state).values():
        raise UsageError(f"there is no layer {name!r}.{did_you_mean(name, list(layers(state).values()))}")
    return state.ds[rest].transpose(*nav).load()


def planes(state: State) -> dict[str, np.ndarray]:
    """What points can be drawn over: the latents, and scores of two or more components, each `(samples, k)`."""
    nav = schema.navigation_dims(state.ds)
    found = {"latents": state.latents}
    for name in schema.decompositions(state.ds):
        scores = state.ds[name].transpose(*nav, ...)
        if scores.shape[-1] > 1:
            found[name] = np.asarray(scores.values, np.float32).reshape(-1, scores.shape[-1])
    return found


@dataclass(frozen=True)
class Sample:
    """One sample, or the mean of a region (`index` -1): `latents (latent)`, `base` as decoded, a picture as stored."""

    index: int
    words: str
    latents: np.ndarray
    base: np.ndarray
    stored: np.ndarray | None


def flat_index(state: State, place: tuple[int, ...]) -> int:
    """Number of the sample at a place of the grid. Raises UsageError outside."""
    if len(place) != len(state.nav_shape) or any(
        not 0 <= i < size for i, size in zip(place, state.nav_shape, strict=True)
    ):
        raise UsageError(f"{place} is not one of {state.nav_shape} {schema.samples_word(state.ds)}.")
    return int(np.ravel_multi_index(place, state.nav_shape))


def sample_at(state: State, index: int, *, depth: float = 0.5) -> Sample:
    """The sample of a number: its words, latents and stored picture (None where none was measured)."""
    place = tuple(map(int, np.unravel_index(index, state.nav_shape)))
    return Sample(index, where(state, index), state.latents[index], base_of(state, index), _stored(state, place, depth))


def region(state: State, indices: np.ndarray, *, depth: float = 0.5) -> Sample:
    """The mean of several samples: latents of all of them, the mean picture of at most 64 evenly chosen ones."""
    known = indices[np.isfinite(state.latents[indices]).all(1)]
    if not len(known):
        raise UsageError("none of the chosen samples has latents; choose others.")
    some = known[np.linspace(0, len(known) - 1, min(len(known), REGION_MOST)).round().astype(int)]
    places = [tuple(map(int, np.unravel_index(i, state.nav_shape))) for i in some]
    stored = [picture for place in places if (picture := _stored(state, place, depth)) is not None]
    vector = state.latents[known].mean(0)
    base = np.mean([base_of(state, int(i)) for i in some], 0)
    words = f"mean of {len(known)} {schema.samples_word(state.ds)}"
    if len(known) > len(some):
        words += f" (picture: of {len(some)})"
    return Sample(-1, words, vector, base, np.mean(stored, 0) if stored else None)


def where(state: State, index: int) -> str:
    """A sample in words: its coordinates, and the class or file it is known by."""
    place = np.unravel_index(index, state.nav_shape)
    dims = schema.navigation_dims(state.ds)
    parts = []
    for dim, i in zip(dims, place, strict=True):
        parts.append(f"{dim} = {value_text(state.ds[dim].values[i], state.ds[dim].attrs)}")
    if not schema.is_scan(state.ds):
        at = {dim: int(i) for dim, i in zip(dims, place, strict=True)}
        parts += [f"{c} = {state.ds[c].isel(at).item()}" for c in ("label", "path") if c in state.ds.variables]
    return ", ".join(parts)


def base_of(state: State, index: int) -> np.ndarray:
    """The latents of a sample as the decoder takes them, `latent_shape`."""
    place = np.unravel_index(index, state.nav_shape)
    at = {dim: int(i) for dim, i in zip(schema.navigation_dims(state.ds), place, strict=True)}
    found = state.ds[n.run_name(n.LATENTS, state.run)].isel(at)
    return np.asarray(found.transpose(*_latent_order(found)).values, np.float32)


def _latent_order(found: xr.DataArray) -> list[str]:
    order = (n.LATENT, *n.POSITIONS)
    stems = {
        str(dim): next((s for s in order if dim == s or str(dim).startswith(f"{s}_")), n.LATENT) for dim in found.dims
    }
    return sorted(map(str, found.dims), key=lambda dim: order.index(stems[dim]))


def _stored(state: State, place: tuple[int, ...], depth: float) -> np.ndarray | None:
    dims, signal = schema.navigation_dims(state.ds), schema.signal_dims(state.ds)
    at = {dim: slice(i, i + 1) for dim, i in zip(dims, place, strict=True)}
    if n.PRESENT in state.ds and not bool(state.ds[n.PRESENT].isel(dict(zip(dims, place, strict=True)))):
        return None
    shape = tuple(state.ds.sizes[dim] for dim in signal)
    values = read_block(state.ds[n.PATTERNS], at).reshape(1, *shape)
    return as_pictures(xr.DataArray(values, dims=("picture", *signal), name=n.PATTERNS), depth)[0]


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


def decode(state: State, vectors: np.ndarray, *, base: np.ndarray | None = None, depth: float = 0.5) -> np.ndarray:
    """Latent vectors `(k, latent)` decoded in one go: pictures `(k, H, W[, 3])`.

    A spatial latent keeps the shape of `base` (zero where there is none) and is moved to the vector's mean.
    """
    from vaearr.inference.decoding import decoded_array

    opened = state.opened
    vectors = np.asarray(vectors, np.float32)
    shape = tuple(opened.model.latent_shape)
    if vectors.ndim != 2 or vectors.shape[1] != shape[0]:
        raise DataError(f"vectors have shape {vectors.shape}; expected (k, {shape[0]}).")
    z = vectors
    if len(shape) > 1:
        start = np.zeros(shape, np.float32) if base is None or base.shape != shape else np.nan_to_num(base)
        centre = start.reshape(shape[0], -1).mean(1)
        z = start + (vectors - centre).reshape(*vectors.shape, *(1,) * (len(shape) - 1))
    return as_pictures(decoded_array(opened, z, "picture"), depth)


def scale_words(state: State) -> str:
    """Units of decoded pictures in words."""
    from vaearr.inference.decoding import scale_attrs

    found = scale_attrs(state.opened)
    return "preprocessed units" if found["scale"] != "stored" else f"stored units ({found['units']})"


def seen(state: State, index: int, *, depth: float = 0.5) -> np.ndarray:
    """A sample's picture in the units in which pictures are decoded, `(H, W[, 3])`."""
    import torch

    from vaearr.inference.decoding import seen_batch

    dims, signal = schema.navigation_dims(state.ds), schema.signal_dims(state.ds)
    place = np.unravel_index(index, state.nav_shape)
    at = {dim: slice(int(i), int(i) + 1) for dim, i in zip(dims, place, strict=True)}
    raw = read_block(state.ds[n.PATTERNS], at).reshape(1, *schema.input_shape(state.ds))
    raw = np.ascontiguousarray(raw, raw.dtype.newbyteorder("="))
    shape = tuple(state.ds.sizes[dim] for dim in signal)
    values = seen_batch(state.opened, torch.from_numpy(raw)).numpy().reshape(1, *shape)
    return as_pictures(xr.DataArray(values, dims=("picture", *signal)), depth)[0]


def traversal(
    state: State, vector: np.ndarray, dims: list[int], *, steps: int = 9, reach: float = 3.0,
    base: np.ndarray | None = None, depth: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Each dimension alone moved by up to `reach` standard deviations of the store's latents about a vector.

    Returns the offsets `(steps,)` in standard deviations and pictures `(dims, steps, H, W[, 3])`.
    """
    offsets = np.linspace(-reach, reach, steps)
    vectors = np.repeat(np.asarray(vector, np.float32)[None], len(dims) * steps, 0).reshape(len(dims), steps, -1)
    for row, dim in enumerate(dims):
        vectors[row, :, dim] += offsets * state.spread[dim]
    found = decode(state, vectors.reshape(-1, state.dims), base=base, depth=depth)
    return offsets, found.reshape(len(dims), steps, *found.shape[1:])


def manifold(
    state: State, vector: np.ndarray, across: int, up: int, *, steps: int = 9, base: np.ndarray | None = None,
    depth: float = 0.5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Two dimensions over the range of their sliders, the others as in a vector.

    Returns the values across and up, both ascending, and pictures `(up, across, H, W[, 3])`.
    """
    if across == up:
        raise UsageError(f"a plane needs two dimensions; both are {across}.")
    xs, ys = (np.linspace(state.low[d], state.high[d], steps, dtype=np.float32) for d in (across, up))
    vectors = np.repeat(np.asarray(vector, np.float32)[None], steps * steps, 0).reshape(steps, steps, -1)
    vectors[..., across], vectors[..., up] = xs[None, :], ys[:, None]
    found = decode(state, vectors.reshape(-1, state.dims), base=base, depth=depth)
    return xs, ys, found.reshape(steps, steps, *found.shape[1:])


def associations(state: State) -> xr.DataArray | None:
    """The stored table `(metric, latent, target)` of the run if it is of these latents and maps, else None."""
    table = current_table(state.path, state.ds, state.run)
    if table is None:
        return None
    (name,) = [v for v in table.data_vars if str(v) == "association"]
    return table[name].load()


def ranking(table: xr.DataArray, metric: str, target: str) -> list[tuple[int, float]]:
    """Latent dimensions by the size of their association with a target, the strongest first; NaN last."""
    across = next(str(dim) for dim in table.dims if str(dim).partition("_")[0] == n.LATENT)
    values = table.sel(metric=metric, target=target).transpose(across).values
    order = np.argsort(-np.nan_to_num(np.abs(values), nan=-1), kind="stable")
    return [(int(i), float(values[i])) for i in order]
