"""What the explorer shows: a store and a run, its layers and samples, and what the network decodes."""

from __future__ import annotations

import base64
import io
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, UsageError
from vaearr.run import StoreOrRun, load_run
from vaearr.run.nearest import typical_index
from vaearr.schema import is_categorical, meanings
from vaearr.schema.grid import measured
from vaearr.views.common import as_codes, brief, label, palette, robust_limits, text, value_text
from vaearr.views.pictures import pictures

SPREAD, MARGIN = (0.5, 99.5), 0.25  # percentiles between which sliders run, and the margin added on both sides
MAX_CLASSES = 64  # of a text variable that colours can show
MAX_WORDS = 60  # characters of a name in the heading
MAX_PICTURES = 12  # samples that are shown one by one
MAX_CELLS = 1_000_000  # of a map, beyond which cells are means over blocks of scan points
GREY = (0.5, 99.5)  # percentiles between which grey runs
PICTURE = "picture"
NO_MODEL = "the latents of this run were computed elsewhere: it has no network, so nothing can be decoded"


class State:
    """A store and a run as they were when opened. Patterns and layers are read on demand.

    Attributes
    ----------
    latents : (samples, latent)
        NaN for samples without latents; spatial latents are averaged over their positions.
    mean, spread, low, high : (latent,)
        Mean and standard deviation of the latents, and the range of the sliders.
    widest : list of int
        Latent dimensions, those that vary most first. The first two are the `axes` of the scatter.
    grid : tuple of int
        Sizes of the navigation dimensions; samples are numbered row by row in it.
    """

    def __init__(self, store: StoreOrRun, run: str = n.DEFAULT_RUN) -> None:
        """Raises NoInputError for a run or latents that do not exist."""
        self.run = load_run(store, run)
        self.path = self.run.path
        self.name = self.run.name
        self.ds = self.run.ds
        self.version = self._version()
        self.grid = self.run.grid
        self.nav = schema.navigation_dims(self.ds)
        self.signal = schema.signal_dims(self.ds)
        self.is_scan = schema.is_scan(self.ds) and len(self.grid) in (2, 3)  # can be shown as a map
        self.has_model = self.run.manifest.get("kind") != n.ATTACHED
        vectors = schema.vectors(self.run.latents)
        self.latents = np.asarray(vectors.values, np.float32).reshape(-1, vectors.shape[-1])
        self.has_latents = np.asarray(np.isfinite(self.latents).all(1))
        self.has_pattern = measured(self.ds).ravel()
        self.known = np.flatnonzero(self.has_latents)
        if not len(self.known):
            raise NoInputError(
                f"{vectors.name!r} holds no finite latents; run 'vaearr encode STORE --run {run}' again."
            )
        known_latents = self.latents[self.known]
        self.mean = known_latents.mean(0)
        self.spread = np.maximum(known_latents.std(0), 1e-6)
        low, high = np.percentile(known_latents, SPREAD, axis=0)
        margin = np.maximum(MARGIN * (high - low), 1e-3)
        self.low = low - margin
        self.high = high + margin
        self.widest = [int(i) for i in np.argsort(-self.spread, kind="stable")]
        self.axes = {"across": f"latent {self.widest[0]}", "up": f"latent {self.widest[:2][-1]}"}

    def _version(self) -> list[int]:
        """Times at which the store, the run and its latents were last written."""
        times = []
        for folder in ("", f"{n.RUNS}/{self.name}", n.run_name(n.LATENTS, self.name)):
            file = self.path / folder / "zarr.json"
            times.append(file.stat().st_mtime_ns if file.is_file() else 0)
        return times

    @property
    def is_current(self) -> bool:
        """Whether the store, the run and its latents are unchanged since they were opened."""
        return self._version() == self.version

    @property
    def summary(self) -> str:
        """The store, the run and the samples in one line."""
        grid = " × ".join(map(str, self.grid))
        pattern = " × ".join(str(self.ds.sizes[dim]) for dim in self.signal)
        return (
            f"{brief(self.path.name, MAX_WORDS)}, run {brief(self.name, MAX_WORDS)!r}: {grid} "
            f"{schema.samples_word(self.ds)} of {pattern}, {len(self.mean)} latent dimensions"
        )

    @property
    def origin_words(self) -> str:
        """Which weights made the latents, and when: "weights 253e2bc9, 2026-11-21"."""
        weights = self.run.manifest.get("weights_sha256")
        time = str(self.run.manifest.get("time", ""))
        origin = f"weights {text(str(weights)[:8])}" if weights else "latents from elsewhere"
        return f"{origin}, {text(time[:10])}" if time else origin

    # ---- layers: what a map, an axis and colours can show

    @cached_property
    def layers(self) -> dict[str, xr.DataArray]:
        """Maps over the navigation dims by title: latents, maps and coordinates, elements, components."""
        ds = self.ds
        found: dict[str, xr.DataArray] = {}

        def add_stack(prefix: str, stack: xr.DataArray, entries: Any) -> None:
            for entry, layer in zip(entries, stack.transpose(..., *self.nav), strict=True):
                title = f"{prefix} {text(entry)}"
                found[title] = layer.reset_coords(drop=True).rename(title)

        coords = {dim: ds[dim] for dim in self.nav}
        latents = xr.DataArray(self.latents.reshape(*self.grid, -1), coords, (*self.nav, n.LATENT))
        add_stack("latent", latents, range(latents.shape[-1]))
        grid_coords = [name for name in map(str, ds.coords) if set(ds[name].dims) == set(self.nav) != {name}]
        for name in [*schema.maps(ds), *grid_coords]:
            layer = _coded(ds[name].transpose(*self.nav))
            title = text(ds[name].attrs.get("long_name", name))
            if layer is not None:
                found[text(name) if title in found else title] = layer
        if n.ELEMENTS in ds and n.ELEMENT in ds.coords:
            add_stack("element", ds[n.ELEMENTS], ds[n.ELEMENT].values)
        for name in schema.decompositions(ds):
            add_stack(name, ds[name].assign_attrs(units="1"), range(ds.sizes[f"{name}_{n.COMPONENT}"]))
        return {title: layer.assign_attrs(long_name=title) for title, layer in found.items()}

    def values(self, title: str) -> np.ndarray:
        """A layer as `(samples,)`, float64; read once."""
        return np.asarray(self.layers[title].load().values, np.float64).ravel()

    def first(self, *names: str) -> str:
        """Title of the first of these variables that exists, else of the widest latent dimension."""
        titles = {layer.name: title for title, layer in self.layers.items()}
        for name in names:
            if name in titles:
                return titles[name]
        return f"latent {self.widest[0]}"

    # ---- samples

    def nearest(self, latents: np.ndarray) -> np.ndarray:
        """Numbers of the samples nearest to a latent vector, nearest first.

        Distances are in standard deviations of each dimension.
        """
        distance = (((self.latents[self.known] - latents) / self.spread) ** 2).sum(1)
        return self.known[np.argsort(distance, kind="stable")]

    def typical(self, indices: np.ndarray) -> int:
        """The most typical of some samples, see `typical_index`.

        Raises UsageError where none of several has latents.
        """
        if len(indices) == 1:
            return int(indices[0])
        encoded = indices[self.has_latents[indices]]
        if not len(encoded):
            raise UsageError("none of the selected samples has latents; select others.")
        latents = self.latents[encoded]
        return int(encoded[typical_index(latents, latents.mean(0))])

    def with_pictures(self, indices: np.ndarray) -> np.ndarray:
        """Those samples that have latents and a pattern."""
        return indices[self.has_latents[indices] & self.has_pattern[indices]]

    def places(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Positions of samples along each navigation dim."""
        return dict(zip(self.nav, np.unravel_index(indices, self.grid), strict=True))

    def where(self, indices: np.ndarray) -> list[str]:
        """Samples in words: their coordinates, and labels and files of images and volumes."""
        columns = []
        for dim, positions in self.places(indices).items():
            values = self.ds[dim].values[positions]
            columns.append([f"{dim} = {value_text(value, self.ds[dim].attrs)}" for value in values])
        for name in () if schema.is_scan(self.ds) else ("label", "path"):
            if name in self.ds.variables:
                names = meanings(self.ds[name]) if is_categorical(self.ds[name]) else {}
                values = self.ds[name].values.ravel()[indices]
                columns.append([f"{name} = {text(names.get(value, value))}" for value in values])
        return [", ".join(words) for words in zip(*columns, strict=True)]

    def stored(self, indices: np.ndarray) -> xr.DataArray:
        """Patterns of samples as stored, `(picture, [channel,] …)`."""
        values = self.run.samples(np.stack([*self.places(indices).values()], 1))
        return xr.DataArray(values, dims=(PICTURE, *self.signal), name=n.PATTERNS)

    def bases(self, indices: np.ndarray) -> np.ndarray:
        """Latents of samples for the decoder, `(k, latent[, lz, ly, lx])`; missing positions are filled."""
        from vaearr.run.nearest import filled

        positions = {dim: xr.DataArray(i, dims=PICTURE) for dim, i in self.places(indices).items()}
        latents = self.run.latents.isel(positions).transpose(PICTURE, ...).astype("f4").values
        return filled(self.run, latents)

    # ---- decoding; all raise NoInputError for a run without a network

    def moved(self, vector: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Latents of a sample moved to a vector: `(latent[, lz, ly, lx])`.

        Spatial latents keep the pattern of `base`; only their means over the positions change.
        """
        positions = base.shape[1:]
        centre = base.reshape(len(base), -1).mean(1, dtype="f8")
        shift = (vector - centre).reshape(-1, *(1 for _ in positions))
        return np.asarray(base + shift, np.float32)

    def decoded(self, latents: np.ndarray) -> xr.DataArray:
        """Decode `(k, latent[, lz, ly, lx])`: `(picture, [channel,] …)`."""
        from vaearr.run.draw import decoded_array

        return decoded_array(self.run, latents, PICTURE)

    def seen(self, indices: np.ndarray) -> xr.DataArray:
        """Stored patterns as the network sees them, in the units of `decoded`."""
        import torch

        from vaearr.run.draw import seen_batch

        stored = self.stored(indices)
        raw = torch.from_numpy(stored.values.reshape(len(indices), *schema.input_shape(self.ds)))
        return stored.copy(data=seen_batch(self.run, raw).numpy().reshape(stored.shape))


def _coded(da: xr.DataArray) -> xr.DataArray | None:
    """A map as it is, of texts as codes with names; None for texts too many to colour by, and for other kinds."""
    if da.dtype.kind in "iufb":
        return da
    names, codes = np.unique([str(value) for value in da.values.ravel()], return_inverse=True)
    if da.dtype.kind not in "OUT" or not 1 < len(names) <= MAX_CLASSES:
        return None
    attrs = da.attrs | {"flag_values": list(range(len(names))), "flag_meanings": names.tolist()}
    return da.copy(data=codes.reshape(da.shape)).assign_attrs(attrs)


def coarse(da: xr.DataArray) -> xr.DataArray:
    """A map in blocks of cells where it is large: means, of classes the first."""
    factor = int(np.ceil(np.sqrt(max(1.0, da.size / MAX_CELLS))))
    if factor == 1 or is_categorical(da):
        return da[::factor, ::factor]
    blocks: Any = da.coarsen(dict.fromkeys(da.dims, factor), boundary="trim")
    found: xr.DataArray = blocks.mean(keep_attrs=True)
    return found


def thinned(indices: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of some samples, evenly chosen in their order."""
    return indices[np.unique(np.linspace(0, len(indices) - 1, min(len(indices), most)).round().astype(int))]


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
