"""What the page shows: a store and a run, its layers and samples, and what is decoded of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.stored import current_table
from vaearr.analysis.association.table import ASSOCIATION
from vaearr.analysis.association.targets import TARGET, targets_of
from vaearr.errors import NoInputError, UsageError
from vaearr.run import StoreOrRun, load_run
from vaearr.schema import is_categorical, meanings
from vaearr.schema.grid import measured
from vaearr.store import object_url
from vaearr.store.places import place
from vaearr.views.common import as_codes, brief, label, palette, robust_limits, text, value_text
from vaearr.views.pictures import pictures

SPREAD, MARGIN = (0.5, 99.5), 0.25  # percentiles between which sliders run, and what is added to either side
MOST_CLASSES = 64  # of texts that are shown as colours
MOST_WORDS = 60  # characters of a name in the heading
REGION_MOST, SOME = 64, 12  # samples of a region whose mean is shown, and that are shown one by one
MOST_CELLS = 1_000_000  # of a map, beyond which cells are means over blocks of scan points
GREY = (0.5, 99.5)  # percentiles between which grey runs
PICTURE = "picture"
NO_MODEL = "this run's latents were computed elsewhere: it has no network, so nothing can be decoded"


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample, or the mean of several: `latents (latent)`, `base` as decoded, the stored pattern (None: none).

    members: the samples that the picture is the mean of.
    """

    words: str
    latents: np.ndarray
    base: np.ndarray
    stored: xr.DataArray | None
    members: np.ndarray


class State:
    """A store and a run as they were when opened; what is large is read when it is asked for, the network last.

    `latents` `(samples, latent)`, NaN where a sample has none, spatial ones as their means; their `mean`, their
    `spread` (standard deviation) and the values from `low` to `high` that sliders take, each `(latent,)`; `widest`, the
    dimensions that vary most first, the first two of which are the `axes` of the plane. Samples are numbered row by row
    in the `grid`.
    """

    def __init__(self, store: StoreOrRun, run: str = n.DEFAULT_RUN) -> None:
        """Raises NoInputError for a run or latents that are not there."""
        self.run = load_run(store, run)
        self.path, self.name, self.ds = self.run.path, run, self.run.ds
        self.version, self.grid = self._version(), self.run.grid
        self.nav, self.signal = schema.navigation_dims(self.ds), schema.signal_dims(self.ds)
        self.is_scan = schema.is_scan(self.ds) and len(self.grid) in (2, 3)  # which can be shown as a map
        self.has_model = self.run.manifest.get("kind") != n.ATTACHED
        pooled = schema.vectors(self.run.latents)
        self.latents = np.asarray(pooled.values, np.float32).reshape(-1, pooled.shape[-1])
        self.has_latents = np.asarray(np.isfinite(self.latents).all(1))
        self.has_pattern = measured(self.ds).ravel()
        self.known = np.flatnonzero(self.has_latents)
        if not len(self.known):
            raise NoInputError(f"{pooled.name!r} holds no finite latents; run 'vaearr encode STORE --run {run}' again.")
        known = self.latents[self.known]
        self.mean, self.spread = known.mean(0), np.maximum(known.std(0), 1e-6)
        low, high = np.percentile(known, SPREAD, axis=0)
        margin = np.maximum(MARGIN * (high - low), 1e-3)
        self.low, self.high = low - margin, high + margin
        self.widest = [int(i) for i in np.argsort(-self.spread, kind="stable")]
        self.axes = {"across": f"latent {self.widest[0]}", "up": f"latent {self.widest[:2][-1]}"}

    def _version(self) -> Hashable:
        if object_url(self.path):
            return place(self.path).tag()
        folders = ("", f"{n.RUNS}/{self.name}", n.run_name(n.LATENTS, self.name))
        files = [self.path / folder / "zarr.json" for folder in folders]
        return tuple(file.stat().st_mtime_ns if file.is_file() else 0 for file in files)

    @property
    def is_current(self) -> bool:
        """Whether neither the store nor the run nor its latents have been written since they were opened."""
        return self._version() == self.version

    @property
    def summary(self) -> str:
        """What is shown, in one line: the store, the run, the samples."""
        size, picture = " × ".join(map(str, self.grid)), " × ".join(str(self.ds.sizes[dim]) for dim in self.signal)
        return (
            f"{brief(self.path.name, MOST_WORDS)}, run {brief(self.name, MOST_WORDS)!r}: {size} "
            f"{schema.samples_word(self.ds)} of {picture}, {len(self.mean)} latent dimensions"
        )

    @property
    def origin_words(self) -> str:
        """Which weights made the latents, and when: "weights 253e2bc9, 2026-11-21"."""
        sha, time = self.run.manifest.get("weights_sha256"), str(self.run.manifest.get("time", ""))
        parts = [f"weights {text(str(sha)[:8])}" if sha else "latents from elsewhere", text(time[:10])]
        return ", ".join(part for part in parts if part)

    # ---- layers: what a map, an axis and colours can show

    @cached_property
    def layers(self) -> dict[str, xr.DataArray]:
        """By their words: latents, components, maps and coordinates, elements; texts as codes."""
        ds, coords = self.ds, {dim: self.ds[dim] for dim in self.nav}
        latents = xr.DataArray(self.latents.reshape(*self.grid, -1), coords, (*self.nav, n.LATENT))
        found: dict[str, xr.DataArray] = {}

        def add(prefix: str, stack: xr.DataArray, names: Any) -> None:
            for name, one in zip(names, stack.transpose(..., *self.nav), strict=True):
                words = f"{prefix} {text(name)}"
                found[words] = one.reset_coords(drop=True).rename(words)

        add("latent", latents, range(latents.shape[-1]))
        for name in [*schema.maps(ds), *(c for c in map(str, ds.coords) if set(ds[c].dims) == set(self.nav) != {c})]:
            coded, words = _coded(ds[name].transpose(*self.nav)), text(ds[name].attrs.get("long_name", name))
            if coded is not None:
                found[text(name) if words in found else words] = coded
        if n.ELEMENTS in ds and n.ELEMENT in ds.coords:
            add("element", ds[n.ELEMENTS], ds[n.ELEMENT].values)
        for name in schema.decompositions(ds):
            add(name, ds[name].assign_attrs(units="1"), range(ds.sizes[f"{name}_{n.COMPONENT}"]))
        return {words: da.assign_attrs(long_name=words) for words, da in found.items()}

    def values(self, words: str) -> np.ndarray:
        """A layer's values `(samples,)`, float64, read once."""
        return np.asarray(self.layers[words].load().values, np.float64).ravel()

    def first(self, *names: str) -> str:
        """The layer of the first of these variables that is there, else of the widest latent dimension."""
        words = {da.name: words for words, da in self.layers.items()}
        return next((words[name] for name in names if name in words), f"latent {self.widest[0]}")

    @cached_property
    def associations(self) -> xr.DataArray | None:
        """The stored table `(metric, latent, target)` of the run if it is of these latents and maps, else None."""
        table = current_table(self.path, self.ds, self.name)
        return table if table is None else table[ASSOCIATION].load()

    def target(self, name: str) -> xr.DataArray:
        """A target of the table as a map over the navigation dims."""
        found = targets_of(self.ds, [name]).isel({TARGET: 0}).transpose(*self.nav)
        return found.load().rename(text(name)).assign_attrs(long_name=text(name))

    # ---- samples

    def sample(self, indices: np.ndarray) -> Sample:
        """One sample; of several the mean of all latents, and of the pictures of at most 64 evenly chosen ones.

        Raises UsageError where none of several has latents.
        """
        if len(indices) > 1:
            indices = indices[self.has_latents[indices]]
            if not len(indices):
                raise UsageError("none of the chosen samples has latents; choose others.")
        members, words = thinned(indices[self.has_pattern[indices]], REGION_MOST), self.where(indices[:1])[0]
        if len(indices) > 1:
            part = f" (picture: of {len(members)})" if len(members) < len(indices) else ""
            words = f"mean of {len(indices):,} {schema.samples_word(self.ds)}{part}"
        stored = self.stored(members).astype("f4").mean(PICTURE, keepdims=True) if len(members) else None
        base = self.bases(thinned(indices, REGION_MOST)).mean(PICTURE).values
        return Sample(words, self.latents[indices].mean(0), base, stored, members)

    def places(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Where samples lie along each navigation dim."""
        return dict(zip(self.nav, np.unravel_index(indices, self.grid), strict=True))

    def shown_of(self, indices: np.ndarray, most: int = SOME) -> np.ndarray:
        """At most `most` of some samples, evenly chosen, that have latents and a pattern."""
        return thinned(indices[self.has_latents[indices] & self.has_pattern[indices]], most)

    def alike(self, latents: np.ndarray, most: int = SOME) -> np.ndarray:
        """The samples nearest to a vector, each dimension in its standard deviations over the store, nearest first."""
        away = (((self.latents[self.known] - latents) / self.spread) ** 2).sum(1)
        return self.known[np.argsort(away, kind="stable")[:most]] if np.isfinite(latents).all() else self.known[:0]

    def where(self, indices: np.ndarray) -> list[str]:
        """Samples in words: their coordinates, and the classes or files they are known by."""
        columns = [
            [f"{dim} = {value_text(value, self.ds[dim].attrs)}" for value in self.ds[dim].values[at]]
            for dim, at in self.places(indices).items()
        ]
        for name in ("label", "path") if not schema.is_scan(self.ds) else ():
            if name in self.ds.variables:
                known = meanings(self.ds[name]) if is_categorical(self.ds[name]) else {}
                values = self.ds[name].values.ravel()[indices]
                columns.append([f"{name} = {text(known.get(value, value))}" for value in values])
        return [", ".join(words) for words in zip(*columns, strict=True)]

    def stored(self, indices: np.ndarray) -> xr.DataArray:
        """Samples as stored, `(picture, [channel,] …)`."""
        values = self.run.samples(np.stack([*self.places(indices).values()], 1))
        return xr.DataArray(values, dims=(PICTURE, *self.signal), name=n.PATTERNS)

    def bases(self, indices: np.ndarray) -> xr.DataArray:
        """Latents of samples as the decoder takes them, `(picture, latent[, lz, ly, lx])`."""
        at = {dim: xr.DataArray(i, dims=PICTURE) for dim, i in self.places(indices).items()}
        return self.run.latents.isel(at).transpose(PICTURE, ...).astype("f4").load()

    # ---- decoding; all raise NoInputError for a run without a network

    @cached_property
    def origin(self) -> np.ndarray:
        """The mean of all samples as the decoder takes it."""
        from vaearr.analysis.exploration.traversals import start

        return start(self.run, "mean").latents

    def moved(self, vectors: np.ndarray, base: np.ndarray | None = None) -> np.ndarray:
        """Latents at vectors `(k, latent)`, as the decoder takes them: `(k, *latent_shape)`.

        A spatial latent keeps the pattern of `base` (None: of the mean of all) and is moved to the vector's means.
        """
        from vaearr.analysis.exploration.points import filled
        from vaearr.analysis.exploration.traversals import Start

        base = self.origin if base is None else base
        if not np.isfinite(base).all():
            base = filled(self.run, base[None])[0]
        return Start(base.astype("f8"), self.spread, "").moved(range(len(self.mean)), vectors)

    def at(self, vector: np.ndarray, base: np.ndarray | None) -> xr.DataArray:
        """One vector decoded, see `moved`: `(picture, [channel,] …)`."""
        from vaearr.run.draw import decoded_array

        return decoded_array(self.run, self.moved(vector[None], base), PICTURE)

    def rebuilt(self, indices: np.ndarray) -> xr.DataArray:
        """Samples decoded from their stored latents."""
        from vaearr.analysis.exploration.points import filled
        from vaearr.run.draw import decoded_array

        return decoded_array(self.run, filled(self.run, self.bases(indices).values), PICTURE)

    def seen(self, indices: np.ndarray) -> xr.DataArray:
        """Samples in the units in which latents are decoded."""
        import torch

        from vaearr.run.draw import seen_batch

        found = self.stored(indices)
        raw = torch.from_numpy(found.values.reshape(len(indices), *schema.input_shape(self.ds)))
        return found.copy(data=seen_batch(self.run, raw).numpy().reshape(found.shape))


def _coded(da: xr.DataArray) -> xr.DataArray | None:
    """A map as it is, of texts as codes with names; None for texts too many to colour by, and for other kinds."""
    if da.dtype.kind in "iufb":
        return da
    names, codes = np.unique([str(value) for value in da.values.ravel()], return_inverse=True)
    if da.dtype.kind not in "OUT" or not 1 < len(names) <= MOST_CLASSES:
        return None
    attrs = da.attrs | {"flag_values": list(range(len(names))), "flag_meanings": names.tolist()}
    return da.copy(data=codes.reshape(da.shape)).assign_attrs(attrs)


def coarse(da: xr.DataArray) -> xr.DataArray:
    """A map in blocks of cells where it is large: means, of classes the first."""
    factor = int(np.ceil(np.sqrt(max(1.0, da.size / MOST_CELLS))))
    if factor == 1 or is_categorical(da):
        return da[::factor, ::factor]
    blocks: Any = da.coarsen(dict.fromkeys(da.dims, factor), boundary="trim")
    found: xr.DataArray = blocks.mean(keep_attrs=True)
    return found


def thinned(indices: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of some samples, evenly chosen in their order."""
    return indices[np.unique(np.linspace(0, len(indices) - 1, min(len(indices), most)).round().astype(int))]


def in_polygon(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Which points `(k, 2)` lie in a polygon `(m, 2)`: a ray to the right crosses its sides an odd number of times."""
    inside, (x, y) = np.zeros(len(points), bool), points.T
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return inside


def coloured(da: xr.DataArray) -> dict[str, Any]:
    """What draws a layer: `values` (samples,), `names` of classes, `palette`, colour `limits`, `ticks`, `title`."""
    from bokeh.palettes import Viridis256

    codes, names = as_codes(da) if is_categorical(da) else (da, [])
    values = np.asarray(codes.values, np.float32).ravel()
    low, high = (-0.5, len(names) - 0.5) if names else robust_limits(values)
    step = 10.0 ** np.floor(np.log10((high - low) / 2))
    step *= next(part for part in (0.2, 0.5, 1, 2) if (high - low) / (part * step) <= 10)
    even = (step * np.arange(np.ceil(low / step), np.floor(high / step) + 1)).tolist()
    ticks, colors = (list(range(len(names))), palette(len(names))) if names else (even, list(Viridis256))
    about = {"names": names, "palette": colors, "limits": (low, high), "ticks": ticks}
    return {"values": values, "title": label(da), **about}


def depth_dim(da: xr.DataArray) -> str | None:
    """The dim that volumes are cut along, None of flat pictures."""
    return next((dim for dim in (n.Z, n.DZ) if dim in da.dims), None)


def as_pictures(da: xr.DataArray, depth: float = 0.5) -> np.ndarray:
    """Stacked samples as pictures `(k, H, W[, 3])`; of volumes the slice at a depth in 0 … 1."""
    across = depth_dim(da)
    if across is not None:
        da = da.isel({across: [round(depth * (da.sizes[across] - 1))]})  # of one slice, the middle one is shown
    return np.asarray(pictures(da), np.float32)


def png(image: np.ndarray, limits: tuple[float, float], side: int) -> str:
    """A picture `(H, W[, 3])` in 8 bits between two limits, as the address of an image; what is missing is clear.

    side: pixels; larger ones are shown in means over blocks.
    """
    from PIL import Image

    low, high = limits
    levels = np.rint(np.clip((np.nan_to_num(image, nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1) * 255)
    known = np.isfinite(image) if image.ndim == 2 else np.isfinite(image).all(-1)
    shown = Image.fromarray(levels.astype("u1"))
    if not known.all():
        shown.putalpha(Image.fromarray(known.astype("u1") * 255))
    shown, buffer = shown.reduce(-(-max(shown.size) // side)), io.BytesIO()
    shown.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
