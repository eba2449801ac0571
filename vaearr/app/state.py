"""What the page shows, as plain functions: a store and a run opened once, its layers, planes, tables. Reads only."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.association.stored import current_table
from vaearr.association.table import ASSOCIATION
from vaearr.association.targets import TARGET, targets_of
from vaearr.errors import DataError, NoInputError, UsageError, VaearrError, did_you_mean
from vaearr.plots.common import brief, is_regular, label, text
from vaearr.plots.decoded import pictures
from vaearr.store import check_store, object_url, open_store, run_folder, run_manifest
from vaearr.store.places import place

SPREAD = (0.5, 99.5)  # percentiles between which sliders run, with a margin
MARGIN = 0.25
CONTENTS = "zarr.json"
LATENTS = "latents"  # the plane of them
CLASSES = ("map:label", f"map:{n.CLUSTERS}")  # layers that collections begin with
MOST_CLASSES = 64  # of texts that are shown as colours
MOST_WORDS = 60  # characters of a name in the heading
QUICK = 0.1  # seconds that a decoding may take to be made without being asked for
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
    _opened: Any = None
    _origin: Any = None
    tunes: bool = False  # whether decoding may set torch's number of threads, which holds for the whole process
    threads: int = 0  # with which torch decodes fastest; 0 for as many as it takes by itself
    seconds: float = 0.0  # that a decoding takes, once `is_ready`
    _is_warm: bool = False
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
        """Whether the network is loaded and has decoded once."""
        return self._is_warm

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
                from vaearr.run import open_run

                self._opened = open_run(self.path, self.run)
            return self._opened

    @property
    def origin(self) -> Any:
        """Mean of all samples and spread of the aggregate posterior, what vectors are moved from. As `opened`."""
        opened = self.opened
        with self._lock:
            if self._origin is None:
                from vaearr.exploration.bases import start
                from vaearr.exploration.points import open_encoded

                self._origin = start(open_encoded(self.path, self.run), opened, "mean")
            return self._origin

    def load_aside(self) -> None:
        """Load the network in a thread, so that the page comes up first; `is_ready` and `problem` tell when."""
        if self._thread is None and self.has_model:
            self._thread = threading.Thread(target=self._load)  # no daemon: cut off inside torch it would abort
            self._thread.start()

    def _load(self) -> None:
        try:
            from vaearr.app.decoding import warm

            warm(self)
        except (VaearrError, OSError) as error:
            self._error = str(error)
        except Exception as error:
            self._error = f"the network cannot be loaded: {type(error).__name__}: {error}"
            raise
        else:
            self._is_warm = True


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
        has_model=(run_folder(path, run) / n.MODEL / "config.json").is_file(), version=version(path, run),
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


def current(state: State) -> State:
    """The state, or one opened anew where the store or the run has been written since. Raises as `open_state`."""
    if is_current(state):
        return state
    return replace(open_state(state.path, state.run), tunes=state.tunes)


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


def layers(state: State) -> dict[str, str]:
    """What a map or the colour of points can show: its words and name, latents first."""
    ds, nav = state.ds, set(schema.navigation_dims(state.ds))
    found = {f"latent {i}": f"latent:{i}" for i in range(state.dims)}
    names = [name for name in schema.maps(ds) if ds[name].dtype.kind in "iufbOUT"]
    names += [
        str(c) for c in ds.coords if set(ds[c].dims) == nav and c not in ds.dims and ds[c].dtype.kind in "iufbOUT"
    ]
    for name in names:
        if ds[name].dtype.kind in "OUT" and _texts(state, name) is None:
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
    return found if found.dtype.kind not in "OUT" else _coded(found, *_texts(state, rest) or ([], np.zeros(0)))


def _texts(state: State, name: str) -> tuple[list[str], np.ndarray] | None:
    """Different texts of a map and their numbers, where there are few enough to colour by."""
    values = np.asarray([str(v) for v in state.ds[name].transpose(*schema.navigation_dims(state.ds)).values.ravel()])
    found, codes = np.unique(values, return_inverse=True)
    return (found.tolist(), codes) if 1 < len(found) <= MOST_CLASSES else None


def _coded(found: xr.DataArray, names: list[str], codes: np.ndarray) -> xr.DataArray:
    attrs = found.attrs | {"flag_values": list(range(len(names))), "flag_meanings": names}
    return found.copy(data=codes.reshape(found.shape).astype(np.int32)).assign_attrs(attrs)


def planes(state: State) -> dict[str, np.ndarray]:
    """What points can be drawn over: the latents, and scores of two or more components, each `(samples, k)`."""
    nav = schema.navigation_dims(state.ds)
    found = {LATENTS: state.latents}
    for name in schema.decompositions(state.ds):
        scores = state.ds[name].transpose(*nav, ...)
        if scores.shape[-1] > 1:
            found[name] = np.asarray(scores.values, np.float32).reshape(-1, scores.shape[-1])
    return found


def base_of(state: State, index: int) -> np.ndarray:
    """The latents of a sample as the decoder takes them, `latent_shape`."""
    if not is_spatial(state):
        return state.latents[index]
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


def as_pictures(da: xr.DataArray, depth: float = 0.5) -> np.ndarray:
    """Stacked samples as pictures `(k, H, W[, 3])`; of volumes the slice at a depth in 0 … 1."""
    across = next((dim for dim in (n.Z, n.DZ) if dim in da.dims), None)
    if across is not None:
        at = round(depth * (da.sizes[across] - 1))
        da = da.isel({across: slice(at, at + 1)})  # of one slice, the middle one is shown
    return np.asarray(pictures(da), np.float32)


def is_spatial(state: State) -> bool:
    """Whether latents lie at positions."""
    return bool(schema.position_dims(state.ds[n.run_name(n.LATENTS, state.run)]))


def is_turned(state: State) -> bool:
    """Whether slices of volumes are shown upside down: y rises to the front, see `pictures`."""
    return is_volume(state) and schema.signal_dims(state.ds)[-2:] == (n.Y, n.X)


def is_volume(state: State) -> bool:
    """Whether samples are volumes, shown slice by slice."""
    return bool({n.Z, n.DZ} & set(schema.signal_dims(state.ds)))


def scale_words(state: State) -> str:
    """Units of decoded pictures in words."""
    from vaearr.inference.decoding import scale_attrs

    found = scale_attrs(state.opened)
    return "preprocessed units" if found["scale"] != "stored" else f"stored units ({found['units']})"


def associations(state: State) -> xr.DataArray | None:
    """The stored table `(metric, latent, target)` of the run if it is of these latents and maps, else None."""
    table = current_table(state.path, state.ds, state.run)
    return None if table is None else table[ASSOCIATION].load()


def target(state: State, name: str) -> xr.DataArray:
    """A target of the table as a map over the navigation dims."""
    found = targets_of(state.ds, [name]).isel({TARGET: 0}).transpose(*schema.navigation_dims(state.ds))
    return found.load().rename(text(name)).assign_attrs(long_name=text(name))


def axis(coord: xr.DataArray) -> tuple[float, float, str]:
    """Edge of the first cell, step and heading of an axis: positions where coordinates are not even and rising."""
    values = coord.values
    if values.dtype.kind in "iuf" and len(values) > 1 and is_regular(values) and values[1] > values[0]:
        step = float(values[-1] - values[0]) / (len(values) - 1)
        return float(values[0]) - step / 2, step, label(coord)
    return -0.5, 1.0, text(f"{coord.name} (position)")
