"""What the explorer reads from a run: its encoded samples, layers to choose from, words and
pictures.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import UsageError
from vaearr.schema import is_categorical, meanings
from vaearr.schema.classes import classes_of
from vaearr.schema.grid import grid_indices, sample_words
from vaearr.views.common import brief, colored_classes, label, robust_limits, text
from vaearr.views.explorer import even_ticks
from vaearr.views.pictures import pictures

if TYPE_CHECKING:
    from vaearr import Run

MAX_WORDS = 60  # characters of a name in the heading
MAX_CELLS = 1_000_000  # of a map, beyond which cells are means over blocks of scan points
GREY = (0.5, 99.5)  # percentiles between which grey runs
PICTURE = "picture"
NO_MODEL = (
    "the latents of this run were computed elsewhere: it has no network, so nothing can be decoded"
)


@dataclass(frozen=True, eq=False)
class Encoded:
    """The encoded samples of a run.

    numbers: `(k,)`, of the samples in the grid, row-major. latents: `(k, *shape)`, as the decoder
    takes them.
    vectors: `(k, latent)`, of spatial latents the means over their positions.
    """

    numbers: np.ndarray
    latents: np.ndarray
    vectors: np.ndarray

    @property
    def widest(self) -> list[int]:
        """Latent dimensions, those that vary most first."""
        return [int(i) for i in np.argsort(-self.vectors.std(0), kind="stable")]


def encoded_samples(run: Run) -> Encoded:
    """Read the encoded samples of a run. Raises NoInputError where there is none."""
    numbers, latents = run.encoded_latents()
    return Encoded(numbers, latents, latents.reshape(*latents.shape[:2], -1).mean(-1))


def has_network(run: Run) -> bool:
    return bool(run.manifest.get("kind") != n.ATTACHED)


def is_map(run: Run) -> bool:
    """Whether the samples are scan points that can be shown as a map, or as planes of one."""
    return schema.is_scan(run.ds) and len(schema.navigation_shape(run.ds)) in (2, 3)


def summary(run: Run) -> str:
    """The store, the run and the samples in one line, and which weights made the latents."""
    ds = run.ds
    grid = " × ".join(map(str, schema.navigation_shape(run.ds)))
    pattern = " × ".join(str(ds.sizes[dim]) for dim in schema.signal_dims(ds))
    weights = str(run.manifest.get("weights_sha256") or "")
    origin = f"weights {text(weights[:8])}" if weights else "latents from elsewhere"
    return (
        f"{brief(run.path.name, MAX_WORDS)}, run {brief(run.name, MAX_WORDS)!r}: {grid} {schema.samples_word(ds)} of "
        f"{pattern}, {run.latent_shape[0]} latent dimensions ({origin})"
    )


def layers_of(run: Run) -> dict[str, xr.DataArray]:
    """What a map, an axis and colours can show, over the navigation dims, by title: latents, maps,
    elements, scores.
    """
    ds, nav = run.ds, schema.navigation_dims(run.ds)
    stacks = {"latent": schema.vectors(run.latents)} | {
        name: ds[name] for name in schema.decompositions(ds)
    }
    if n.ELEMENTS in ds:
        stacks["element"] = ds[n.ELEMENTS]
    layers = {}
    for prefix, stack in stacks.items():
        stack = stack.transpose(..., *nav)
        for entry, layer in zip(stack[stack.dims[0]].values, stack, strict=True):
            layers[f"{prefix} {text(entry)}"] = layer
    for name, variable in ds.variables.items():
        if set(variable.dims) == set(nav) != {name}:
            layer = ds[name]
            if layer.dtype.kind in "OUT":
                try:
                    layer = classes_of(ds, str(name))
                except UsageError:  # too many different texts
                    continue
            layers[text(name)] = layer
    return {
        title: layer.transpose(*nav).reset_coords(drop=True).assign_attrs(long_name=title)
        for title, layer in layers.items()
    }


def names_of(run: Run, numbers: np.ndarray) -> list[str]:
    """Samples in words: their coordinates, and labels and files of images and volumes."""
    ds = run.ds
    places = grid_indices(run.ds, numbers)
    names = []
    for i, number in enumerate(numbers):
        words = [sample_words(run.ds, {dim: indices[i] for dim, indices in places.items()})]
        for name in () if schema.is_scan(ds) else ("label", "path"):
            if name in ds.variables:
                value = ds[name].values.ravel()[number]
                known = meanings(ds[name]) if is_categorical(ds[name]) else {}
                words.append(f"{name} = {text(known.get(value, value))}")
        names.append(", ".join(words))
    return names


# ---- pictures


def stored(run: Run, numbers: np.ndarray) -> xr.DataArray:
    """Patterns of samples as stored, `(picture, [channel,] …)`."""
    values = run.patterns_at(np.stack([*grid_indices(run.ds, numbers).values()], 1))
    return xr.DataArray(values, dims=(PICTURE, *schema.signal_dims(run.ds)), name=n.PATTERNS)


def coarse(da: xr.DataArray) -> xr.DataArray:
    """A map in blocks of cells where it is large: means, of classes the first."""
    factor = int(np.ceil(np.sqrt(max(1.0, da.size / MAX_CELLS))))
    if factor == 1 or is_categorical(da):
        return da[::factor, ::factor]
    blocks: Any = da.coarsen(dict.fromkeys(da.dims, factor), boundary="trim")
    found: xr.DataArray = blocks.mean(keep_attrs=True)
    return found


def coloured(da: xr.DataArray) -> dict[str, Any]:
    """What draws a layer: `values` (samples,), `names` of classes, `palette`, colour `limits`,
    `ticks`, `title`.
    """
    from bokeh.palettes import Viridis256

    names, colors, codes = colored_classes(da) if is_categorical(da) else ([], list(Viridis256), da)
    values = np.asarray(codes.values, np.float32).ravel()
    limits = (-0.5, len(names) - 0.5) if names else robust_limits(values)
    ticks = list(range(len(names))) if names else even_ticks(*limits)
    return {
        "values": values,
        "title": label(da),
        "names": names,
        "palette": colors,
        "limits": limits,
        "ticks": ticks,
    }


def depth_dim(da: xr.DataArray) -> str | None:
    """The dim that volumes are cut along, None of flat pictures."""
    return next((dim for dim in (n.Z, n.DZ) if dim in da.dims), None)


def as_pictures(da: xr.DataArray, depth: float = 0.5) -> np.ndarray:
    """Stacked samples as pictures `(k, H, W[, 3])`; of volumes the slice at a depth in 0 … 1."""
    across = depth_dim(da)
    if across is not None:
        da = da.isel(
            {across: [round(depth * (da.sizes[across] - 1))]}
        )  # of one slice, the middle one is shown
    return np.asarray(pictures(da), np.float32)


def png(image: np.ndarray, limits: tuple[float, float], side: int) -> str:
    """A picture `(H, W[, 3])` in 8 bits between two limits, as the address of an image.

    side: pixels; larger ones are shown in means over blocks.
    """
    from PIL import Image

    low, high = limits
    finite = np.nan_to_num(image, nan=low, posinf=high, neginf=low)
    shares = np.clip((finite - low) / (high - low), 0, 1)
    shown = Image.fromarray(np.rint(shares * 255).astype("u1"))
    shown = shown.reduce(-(-max(shown.size) // side))
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
