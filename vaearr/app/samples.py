"""What the explorer reads from a run: encoded samples, layers, names and pictures."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.latents import spatial_structure, typical_index
from vaearr.errors import UsageError
from vaearr.schema import is_categorical, meanings
from vaearr.schema.classes import classes_of
from vaearr.schema.grid import grid_indices, sample_words
from vaearr.store import run_names
from vaearr.views.colors import colors_of
from vaearr.views.common import SEQUENTIAL, brief, colored_classes, robust_limits, text
from vaearr.views.explorer import even_ticks
from vaearr.views.pictures import pictures

if TYPE_CHECKING:
    from vaearr import Run

MAX_WORDS = 60  # characters of a name in the heading
MAX_CELLS = 1_000_000  # of a map
CENTRE = 0.8  # share of each side of a scan that is away from its border
GREY = (0.5, 99.5)  # percentiles between which grey runs
PICTURE = "picture"
NO_MODEL = (
    "the latents of this run were computed elsewhere: it has no network, so nothing can be decoded"
)


@dataclass(frozen=True, eq=False)
class Encoded:
    """The encoded samples of a run.

    numbers: `(k,)`, of the samples in the grid, row-major. latents: `(k, *shape)`, as the decoder
    takes them. vectors: `(k, latent)`, of spatial latents the means over their positions.
    importance: `(latent,)`, shares of `measure`, which is KL or variance. structure: `(latent,)`,
    larger for maps with contrast and connected areas. typical: row of the sample to start from.
    """

    run: Run
    numbers: np.ndarray
    latents: np.ndarray
    vectors: np.ndarray
    importance: np.ndarray
    measure: str
    structure: np.ndarray
    typical: int

    @property
    def most_important(self) -> list[int]:
        """Latent dimensions, the most important first."""
        return np.argsort(-self.importance, kind="stable").tolist()

    @property
    def most_structured(self) -> list[int]:
        """Latent dimensions, those whose maps show most first."""
        return np.argsort(-self.structure, kind="stable").tolist()

    def share(self, dim: int) -> str:
        """The importance of a dimension in words, such as "12 %"."""
        return f"{100 * self.importance[dim]:.2g} %"


def encoded_samples(run: Run) -> Encoded:
    """Read the encoded samples of a run. Raises NoInputError where there is none."""
    numbers, latents = run.encoded_latents()
    vectors = latents.reshape(*latents.shape[:2], -1).mean(-1)
    measure = "KL"
    amounts = np.zeros(1)
    if has_network(run):
        amounts = run.health["kl"].values
    if not amounts.sum() > 0:
        measure = "variance"
        amounts = vectors.var(0, dtype="f8") + np.finfo("f4").tiny
    importance = amounts / amounts.sum()
    structure = importance
    if is_map(run):
        shape = schema.navigation_shape(run.ds)
        maps = np.full((math.prod(shape), vectors.shape[1]), np.nan, np.float32)
        maps[numbers] = vectors
        structure = importance * spatial_structure(maps.reshape(*shape, -1))
    rows = _central_rows(run, numbers)
    typical = rows[typical_index(vectors[rows], vectors[rows].mean(0))]
    return Encoded(run, numbers, latents, vectors, importance, measure, structure, int(typical))


class Runs:
    """The encoded runs of a store, each read when it is first used."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.opened = {run.name: encoded_samples(run)}
        names = run_names(run.path)
        self.names = [name for name in names if n.run_name(n.LATENTS, name) in run.ds]

    def __getitem__(self, name: str) -> Encoded:
        if name not in self.opened:
            first = self.run
            run = type(first)(first.path, name, device=first.device, trust=first.trust)
            self.opened[name] = encoded_samples(run)
        return self.opened[name]


def _central_rows(run: Run, numbers: np.ndarray) -> np.ndarray:
    """Rows of the samples away from the border of the scan, of all samples if there are none."""
    is_central = np.ones(len(numbers), bool)
    if is_map(run):
        indices = [*grid_indices(run.ds, numbers).values()][-2:]
        for along, size in zip(indices, schema.navigation_shape(run.ds)[-2:], strict=True):
            is_central &= np.abs(along - (size - 1) / 2) <= CENTRE * size / 2
    if not is_central.any():
        is_central[:] = True
    return np.flatnonzero(is_central)


def has_network(run: Run) -> bool:
    return bool(run.manifest.get("kind") != n.ATTACHED)


def is_map(run: Run) -> bool:
    """Whether the samples are scan points that can be shown as a map, or as planes of one."""
    return schema.is_scan(run.ds) and len(schema.navigation_shape(run.ds)) in (2, 3)


def summary(run: Run) -> str:
    """The store, the run and the samples in one line, and which weights made the latents."""
    ds = run.ds
    grid = " × ".join(map(str, schema.navigation_shape(ds)))
    pattern = " × ".join(str(ds.sizes[dim]) for dim in schema.signal_dims(ds))
    weights = str(run.manifest.get("weights_sha256") or "")
    origin = f"weights {text(weights[:8])}" if weights else "latents from elsewhere"
    return (
        f"{brief(run.path.name, MAX_WORDS)}, run {brief(run.name, MAX_WORDS)!r}: {grid} "
        f"{schema.samples_word(ds)} of {pattern}, {run.latent_shape[0]} latent dimensions "
        f"({origin})"
    )


def layers_of(run: Run) -> dict[str, xr.DataArray]:
    """Layers for maps, axes and colours, over the navigation dims, by their titles.

    These are latents, elements, maps and classes.
    """
    ds = run.ds
    navigation = schema.navigation_dims(ds)
    latents = schema.vectors(run.latents)
    layers = {f"latent {i}": latents.isel({latents.dims[-1]: i}) for i in range(latents.shape[-1])}
    if n.ELEMENTS in ds:
        for element in ds[n.ELEMENT].values:
            layers[f"element {text(element)}"] = ds[n.ELEMENTS].sel({n.ELEMENT: element})
    for name in map(str, ds.variables):
        layer: Any = ds[name]
        if set(layer.dims) != set(navigation) or layer.dims == (name,):
            continue
        if layer.dtype.kind in "OUT":
            try:
                layer = classes_of(ds, name)
            except UsageError:  # too many different texts
                continue
        layers[text(name)] = layer
    for title, layer in layers.items():
        layer = layer.transpose(*navigation).reset_coords(drop=True)
        layers[title] = layer.assign_attrs(long_name=title)
    return layers


def names_of(run: Run, numbers: np.ndarray) -> list[str]:
    """Samples in words: their coordinates, and labels and files of images and volumes."""
    ds = run.ds
    indices = grid_indices(ds, numbers)
    columns = {}
    if not schema.is_scan(ds):
        columns = {name: ds[name].values for name in ("label", "path") if name in ds.variables}
    classes = {}
    if "label" in columns and is_categorical(ds["label"]):
        classes = meanings(ds["label"])
    names = []
    for i, number in enumerate(numbers):
        words = [sample_words(ds, {dim: along[i] for dim, along in indices.items()})]
        for name, values in columns.items():
            value = values[number]
            words.append(f"{name} = {text(classes.get(value, value))}")
        names.append(", ".join(words))
    return names


# ---- pictures


def stored(run: Run, numbers: np.ndarray) -> xr.DataArray:
    """Patterns of samples as stored, `(picture, [channel,] …)`."""
    values = run.patterns_at(np.stack([*grid_indices(run.ds, numbers).values()], 1))
    return xr.DataArray(values, dims=(PICTURE, *schema.signal_dims(run.ds)), name=n.PATTERNS)


def thinned(da: xr.DataArray) -> xr.DataArray:
    """Of a large map, every k-th row and column."""
    step = math.ceil(math.sqrt(max(1, da.size / MAX_CELLS)))
    return da[::step, ::step]


class Colouring(NamedTuple):
    """Colours of a layer: the value of each sample, and the scale of its colours."""

    values: np.ndarray  # (samples,), of classes their codes
    palette: list[str]
    limits: tuple[float, float]
    ticks: list[float]
    names: list[str]  # of classes


def coloured(da: xr.DataArray) -> Colouring:
    """The colours of a layer."""
    if is_categorical(da):
        names, colors, codes = colored_classes(da)
        limits = (-0.5, len(names) - 0.5)
        ticks = [float(i) for i in range(len(names))]
        return Colouring(codes.values.astype(np.float32).ravel(), colors, limits, ticks, names)
    values = da.values.astype(np.float32).ravel()
    limits = robust_limits(values)
    return Colouring(values, colors_of(SEQUENTIAL), limits, even_ticks(*limits), [])


def has_depth(da: xr.DataArray) -> bool:
    """Whether samples have a depth along which they are sliced."""
    return n.Z in da.dims or n.DZ in da.dims


def as_pictures(da: xr.DataArray, depth: float = 0.5) -> np.ndarray:
    """Stacked samples as pictures `(k, H, W[, 3])`; of volumes the slice at a depth in 0 … 1."""
    for dim in (n.Z, n.DZ):
        if dim in da.dims:
            index = round(depth * (da.sizes[dim] - 1))
            da = da.isel({dim: [index]})
    return np.asarray(pictures(da), np.float32)


def png(image: np.ndarray, limits: tuple[float, float], side: int) -> str:
    """A picture `(H, W[, 3])` in 8 bits between two limits, as the address of an image.

    side: pixels; larger ones are shown in means over blocks.
    """
    from PIL import Image

    low, high = limits
    finite = np.nan_to_num(image, nan=low, posinf=high, neginf=low)
    shares = np.clip((finite - low) / (high - low), 0, 1)
    picture = Image.fromarray(np.rint(shares * 255).astype("u1"))
    picture = picture.reduce(-(-max(picture.size) // side))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
