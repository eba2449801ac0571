"""Decoded pictures: reconstructions, generated samples, interpolations, traversals, planes; as sheets and files."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError, SchemaError, UsageError
from vaearr.views.common import DIVERGING, brief, holoviews, number, robust_limits, text, unit, value_text
from vaearr.views.kinds import builder
from vaearr.views.mosaic import COLUMNS, in_rows, scaled, sheet
from vaearr.views.paper import write_new
from vaearr.views.spread import centred

LIMITS = (0.5, 99.5)  # percentiles between which grey runs
FRAME_SIDE = 240  # pixels: smaller pictures are enlarged in an animation
MAX_TICKS = 8


def pictures(da: xr.DataArray) -> np.ndarray:
    """Stacked samples `(k, [channel,] [dz,] H, W)` as pictures `(k, H, W)`, or `(k, H, W, 3)` of three channels.

    Of another number of channels the first is shown, of a volume its middle slice: axial and with the front on top of
    one over z, y, x. Raises SchemaError for other dims.
    """
    values = np.asarray(da.values, dtype="f4")
    has_channel = n.CHANNEL in da.dims
    if (has_channel and da.dims.index(n.CHANNEL) != 1) or values.ndim - has_channel not in (3, 4):
        raise SchemaError(f"{da.name!r} has dims {da.dims}; expected (sample, [channel,] rows, columns) or a volume.")
    if values.ndim - has_channel == 4:
        values = values.take(values.shape[1 + has_channel] // 2, axis=1 + has_channel)
        if da.dims[-2:] == (n.Y, n.X):  # y rises to the front
            values = values[..., ::-1, :]
    if not has_channel:
        return values
    return np.moveaxis(values, 1, -1) if values.shape[1] == 3 else values[:, 0]


def stacked(da: xr.DataArray, lead: tuple[str, ...]) -> np.ndarray:
    """Pictures over `lead` dims, `(*lead, H, W[, 3])`. Raises SchemaError for other dims."""
    if tuple(map(str, da.dims[: len(lead)])) != lead:
        raise SchemaError(f"{da.name!r} has dims {da.dims}; expected {lead} and the dims of a sample.")
    images = pictures(da.stack(flat=lead, create_index=False).transpose("flat", ...))
    return images.reshape(*da.shape[: len(lead)], *images.shape[1:])


def units_of(da: xr.DataArray) -> str:
    """Units of decoded pictures in words, and what part of a volume they are."""
    words = "preprocessed units" if da.attrs.get("scale", "preprocessed") != "stored" else unit(da.attrs)
    part = "middle axial slices, " if n.Z in da.dims else "middle slices, " if n.DZ in da.dims else ""
    return f"{part}{words or 'stored units'}"


def grey_of(images: np.ndarray) -> np.ndarray:
    """Pictures as uint8, all on one scale."""
    return (255 * scaled(images, robust_limits(images, LIMITS))).round().astype(np.uint8)


@builder("reconstruction", "input", "reconstruction")
def reconstruction_sheet(found: xr.Dataset, *, threshold: float | None = None, most: int = 8) -> Any:
    """Inputs, reconstructions and residuals (reconstruction - input), with PSNR and SSIM below each.

    All share one scale; that of the residuals is as wide and centred at 0. threshold: show, instead of the residuals,
    both as black and white, in the units of the pictures (of colours the mean of their channels), and the share of
    pixels on which the two differ. Raises NoInputError where there is no example, UsageError for a threshold that is
    not a number.
    """
    dim = "example" if "example" in found.dims else n.SAMPLE
    if "input" not in found or not found.sizes.get(dim):
        raise NoInputError("no example was kept; reconstruct with examples of 1 or more.")
    found = found.isel({dim: slice(most)})
    examples = [found.isel({dim: i}) for i in range(found.sizes[dim])]
    original, recon = (pictures(found[name]) for name in ("input", "reconstruction"))
    limits = robust_limits(np.stack([original, recon]), LIMITS)
    if dim == "example":
        titles = [where_of(example, "example_") for example in examples]
    else:
        others = [set(example.coords) - set(n.SCAN_DIMS) for example in examples]
        titles = [where_of(e.drop_vars(drop)) or f"sample {e[dim]}" for e, drop in zip(examples, others, strict=True)]
    words = [[""] * len(examples) for _ in range(2)]
    words[0] = titles
    heading = f"reconstructions ({units_of(found['input'])})"
    pair = sheet([original, recon], limits, heading, names=["input", "reconstruction"], above=words)
    if original.ndim == 4:
        original, recon = original.mean(-1), recon.mean(-1)
    if threshold is None:
        half = (limits[1] - limits[0]) / 2
        scores = [["\n".join(numbers_of(example)) for example in examples]]
        second = sheet([recon - original], (-half, half), names=["residual"], below=scores, cmap=DIVERGING)
    else:
        if not np.isfinite(threshold):
            raise UsageError(f"the threshold is {threshold}; give a number in the units of the pictures.")
        masks = [(images >= threshold).astype("f4") for images in (original, recon)]
        shares = [f"{share:.1%} differ" for share in (masks[0] != masks[1]).mean((1, 2))]
        names = [f"input ≥ {threshold:g}", f"reconstruction ≥ {threshold:g}"]
        second = sheet(masks, (0.0, 1.15), names=names, below=[[""] * len(shares), shares])
    return holoviews().Layout([pair, second]).cols(1).opts(shared_axes=False, backend="bokeh")


def where_of(one: xr.Dataset, before: str = "", after: str = "", most: int = 17) -> str:
    """Where a sample comes from: its file, else a line for each coordinate whose name begins and ends so."""
    if f"{before}file{after}" in one.coords:
        return brief(one[f"{before}file{after}"].item(), most)
    names = [name for name in map(str, one.coords) if name.startswith(before) and name.endswith(after)]
    lines = []
    for name in names[::-1]:
        if one[name].ndim == 0:
            value = value_text(one[name].item(), one[name].attrs)
            lines.append(brief(f"{name.removeprefix(before).removesuffix(after)} = {value}", most))
    return "\n".join(lines)


def numbers_of(one: xr.Dataset) -> list[str]:
    """How good a reconstruction is, as far as it is known."""
    told = [f"PSNR {float(one['example_psnr']):.1f} dB"] if "example_psnr" in one else []
    return told + ([f"SSIM {float(one['example_ssim']):.2f}"] if "example_ssim" in one else [])


@builder("progress", "input", "reconstruction", "prior", n.EPOCH)
def progress_sheet(found: xr.Dataset, *, most: int = 8) -> Any:
    """Samples decoded during training: inputs on top, below them reconstructions and prior samples by epoch.

    At most `most` epochs, spread over the training; each row has its own grey scale.
    """
    found = found.rename({dim: str(dim).removeprefix("sheet_") for dim in found.dims})
    shown = found.isel({n.EPOCH: _spread(found.sizes[n.EPOCH], most)})
    names, rows = ["input"], [pictures(shown["input"])]
    for name in ("reconstruction", "prior"):
        for part in shown[name]:
            names.append(f"{name}, epoch {int(part[n.EPOCH])}")
            rows.append(pictures(part))
    limits = [[robust_limits(row, LIMITS)] * len(row) for row in rows]
    return sheet(rows, limits, "samples during training", names=names)


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many of the numbers below `count`, evenly spread, the ends among them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


@builder("draws", "decoded", "latents", n.SAMPLE)
def sample_sheet(found: xr.Dataset, *, most: int = 64) -> Any:
    """The decoded samples of `Run.sample`, all on one grey scale."""
    images = pictures(found["decoded"])[:most]
    if not len(images):
        raise NoInputError("there are no samples to show.")
    source = "the prior" if found.attrs.get("source") == "prior" else "the fitted distribution"
    part = f", {len(images)} of {found.sizes[n.SAMPLE]}" if len(images) < found.sizes[n.SAMPLE] else ""
    heading = f"samples from {source}{part} ({units_of(found['decoded'])})"
    numbers = [str(number) for number in found[n.SAMPLE].values[:most]]
    return sheet(in_rows(images), robust_limits(images, LIMITS), heading, above=in_rows(numbers))


@builder("interpolation", "decoded", "step", "input", "end", "t")
def interpolation_strip(found: xr.Dataset, *, most: int = 9) -> Any:
    """The interpolation between two samples: input, decoded steps, input, on one grey scale.

    At most `most` steps, evenly spread, the ends among them.
    """
    picked = _spread(found.sizes["step"], most)
    steps, ends = pictures(found["decoded"])[picked], pictures(found["input"])
    titles = [f"{end}: input" for end in map(str, found["end"].values)]
    titles[1:1] = [f"t = {t:.3g}" for t in found["t"].values[picked]]
    first, last = (where_of(found.isel(end=end), after="_of_end") for end in (0, 1))
    below = [first, *[""] * len(steps), last]
    heading = f"{found.attrs['method']} between posterior means ({units_of(found['decoded'])})"
    limits = robust_limits(np.concatenate([steps, ends]), LIMITS)
    return sheet([[ends[0], *steps, ends[1]]], limits, heading, above=[titles], below=[below])


@builder("traversal", "decoded", "latent_dim", "step", "value")
def traversal_sheet(found: xr.Dataset) -> Any:
    """The pictures of `traverse`, a row for each dimension with its values below, all on one colour scale."""
    images = stacked(found["decoded"], ("latent_dim", "step"))
    heading = f"traversal from {brief(found.attrs['base'], 70)} ({units_of(found['decoded'])})"
    names = [f"latent {int(dim)}" for dim in found["latent_dim"].values]
    values = [[number(float(value)) for value in row] for row in found["value"].values]
    return sheet(images, robust_limits(images, LIMITS), text(heading), names=names, below=values)


@builder("manifold", "decoded", "row", "column")
def manifold_sheet(found: xr.Dataset) -> Any:
    """The pictures of `manifold` side by side on axes of the two dimensions, on one colour scale.

    The value on an axis is that of the middle of its picture; the vertical dimension increases upwards.
    """
    images = stacked(found["decoded"], ("row", "column"))
    heading = f"others: {brief(found.attrs['base'], 60)} ({units_of(found['decoded'])})"
    limits = robust_limits(images, LIMITS)
    white_lines = [(0, 0)] * images.ndim
    white_lines[2] = white_lines[3] = (0, 1)  # below and to the right of each picture
    images = np.pad(images, white_lines, constant_values=np.nan)
    rows, columns = (_some_ticks(found[name].values) for name in ("row", "column"))
    width = images.shape[3]
    ticks = [((i + 0.5) * width, word) for i, word in enumerate(columns) if word]
    axes: dict[str, Any] = {"xaxis": "bottom", "xticks": ticks, "show_frame": True}
    axes |= {"xlabel": text(found["column"].attrs["long_name"]), "ylabel": text(found["row"].attrs["long_name"])}
    return sheet(images[::-1], limits, text(heading), names=rows[::-1], gap=0, nan_color="white", **axes)


def _some_ticks(values: np.ndarray) -> list[str]:
    """Numbers as words, at most MAX_TICKS of them, the others empty."""
    step = math.ceil(len(values) / MAX_TICKS)
    return [number(float(value)) if i % step == 0 else "" for i, value in enumerate(values)]


def mosaic_of(images: np.ndarray) -> np.ndarray:
    """Pictures `(rows, columns, H, W[, 3])` as one."""
    rows, columns, tall, wide = images.shape[:4]
    return images.swapaxes(1, 2).reshape(rows * tall, columns * wide, *images.shape[4:])


def channel_means(latents: xr.DataArray) -> np.ndarray:
    """Latents as `(vector, latent)`; of spatial ones the mean over the positions that are known."""
    return np.asarray(latents.astype("f8").mean(latents.dims[2:]).values)


@builder("prototypes", "decoded", "latents", "class", "n")
def prototype_sheet(found: xr.Dataset) -> Any:
    """The typical sample of each class and the mean of the class, decoded, on one colour scale.

    Below, the mean latents as a heat map centred at 0; of spatial latents the mean over positions.
    """
    heat = channel_means(found["latents"])
    names = [brief(name, 18) for name in found["class"].values]
    words_of_samples, words_of_means = [], []
    for i, name in enumerate(names):
        place = where_of(found.isel({"class": i}), after="_of_sample").replace("\n", ", ")
        words_of_samples.append(f"{name}\n{place}")
        words_of_means.append(f"n = {int(found['n'][i])}")
    shown = {
        "typical sample": (stacked(found["decoded"], ("class",)), words_of_samples),
        "mean": (stacked(found["decoded_mean"], ("class",)), words_of_means),
    }
    limits = robust_limits(np.stack([images for images, _ in shown.values()]), LIMITS)
    rows, row_names, above = [], [], []
    for start in range(0, len(names), COLUMNS):
        part = slice(start, start + COLUMNS)
        for name, (images, words) in shown.items():
            rows.append(images[part])
            above.append(words[part])
            row_names.append(name)
    heading = f"classes of {text(found.attrs['by'])} ({units_of(found['decoded'])})"
    decoded = sheet(rows, limits, heading, names=row_names, above=above)
    dims = [str(i) for i in range(heat.shape[1])]
    latents = centred(heat, names, dims, "mean latent", frame_width=560, frame_height=max(60, 24 * len(names)))
    return holoviews().Layout([decoded, latents]).cols(1).opts(shared_axes=False, backend="bokeh")


@builder("components", "array", "components")
def component_sheet(components: xr.DataArray, *, most: int = 32) -> Any:
    """The first `most` component images of a decomposition.

    Signed components (PCA) are centred at 0 on a diverging scale, others (NMF) grey; limits are the 0.5 % and 99.5 %
    percentiles of each image. Raises SchemaError for other dims than (component, [channel,] dy, dx).
    """
    names = [text(name) for name in components[str(components.dims[0])].values]
    images = pictures(components[:most])
    images = images[..., 0] if images.ndim == 4 else images
    signed = bool(np.nanmin(images) < 0)
    limits = [robust_limits(image, LIMITS, symmetric=signed) for image in images]
    part = "" if len(images) == len(names) else f", {len(images)} of {len(names)}"
    cmap = DIVERGING if signed else "gray"
    words = in_rows(names[:most])
    return sheet(in_rows(images), in_rows(limits), f"component images{part}", above=words, cmap=cmap)


def frames(found: xr.Dataset) -> list[np.ndarray]:
    """The decoded steps as frames `(H, W)` or `(H, W, 3)` of uint8, one scale for all, small ones enlarged.

    Of a traversal all dimensions move at once side by side, in rows of 8.
    """
    moving = "latent_dim" in found["decoded"].dims
    images = stacked(found["decoded"], ("latent_dim", "step")) if moving else pictures(found["decoded"])[None]
    grey = grey_of(images)
    columns = min(len(grey), COLUMNS)
    grey = np.concatenate([grey, np.full((-len(grey) % columns, *grey.shape[1:]), 255, np.uint8)])
    rows = grey.reshape(-1, columns, *grey.shape[1:])
    factor = max(1, math.ceil(FRAME_SIDE / max(rows.shape[3], rows.shape[4] * columns)))
    made = [mosaic_of(rows[:, :, step]) for step in range(rows.shape[2])]
    return [frame.repeat(factor, axis=0).repeat(factor, axis=1) for frame in made]


def save_pictures(da: xr.DataArray, folder: Path, name: str) -> list[Path]:
    """One 8-bit PNG for each decoded sample, pixel for pixel, all on one scale: `<name>_000.png` and so on."""
    from PIL import Image

    grey = grey_of(pictures(da))
    paths = [folder / f"{name}_{i:03d}.png" for i in range(len(grey))]
    for image, path in zip(grey, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


def save_animation(shown: list[np.ndarray], path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Save frames as an endless GIF that runs to the end in two seconds and back; returns the path.

    Raises NoInputError where the folder is not there, ExistsError where the file is and `overwrite` is not set.
    """
    from PIL import Image

    pause, data = max(20, round(2000 / len(shown))), io.BytesIO()
    images = [Image.fromarray(frame) for frame in (*shown, *shown[-2:0:-1])]
    images[0].save(data, format="GIF", save_all=True, append_images=images[1:], duration=pause, loop=0)
    return write_new(Path(path), data.getvalue(), overwrite)
