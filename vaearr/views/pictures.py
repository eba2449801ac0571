"""Decoded pictures: reconstructions, generated samples, interpolations, traversals, planes; as
sheets and files.
"""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError, SchemaError
from vaearr.views.common import (
    DIVERGING,
    brief,
    holoviews,
    number,
    robust_limits,
    text,
    unit,
    value_text,
)
from vaearr.views.kinds import builder
from vaearr.views.mosaic import in_rows, scaled, sheet
from vaearr.views.paper import write_new
from vaearr.views.spread import centred

LIMITS = (0.5, 99.5)  # percentiles between which grey runs
FRAME_SIDE = 240  # pixels: smaller pictures are enlarged in an animation


def pictures(da: xr.DataArray) -> np.ndarray:
    """Stacked samples `(k, [channel,] [dz,] H, W)` as pictures `(k, H, W)`, or `(k, H, W, 3)` of
    three channels.

    Of another number of channels the first is shown, of a volume its middle slice: axial and with
    the front on top of one over z, y, x. Raises SchemaError for other dims.
    """
    values = np.asarray(da.values, dtype="f4")
    has_channel = n.CHANNEL in da.dims
    if (has_channel and da.dims.index(n.CHANNEL) != 1) or values.ndim - has_channel not in (3, 4):
        raise SchemaError(
            f"{da.name!r} has dims {da.dims}; expected (sample, [channel,] rows, columns) or a volume."
        )
    if values.ndim - has_channel == 4:
        values = values.take(values.shape[1 + has_channel] // 2, axis=1 + has_channel)
        if da.dims[-2:] == (n.Y, n.X):  # y rises to the front
            values = values[..., ::-1, :]
    if not has_channel:
        return values
    return np.moveaxis(values, 1, -1) if values.shape[1] == 3 else values[:, 0]


def stacked(da: xr.DataArray, lead: tuple[str, str]) -> np.ndarray:
    """Pictures over two leading dims, `(*lead, H, W[, 3])`."""
    images = pictures(da.stack(flat=lead, create_index=False).transpose("flat", ...))
    return images.reshape(*(da.sizes[dim] for dim in lead), *images.shape[1:])


def in_own_limits(image: np.ndarray, symmetric: bool = False) -> np.ndarray:
    """A picture between 0 and 1 (-1 and 1), from its 0.5 % to its 99.5 % percentile."""
    low, high = robust_limits(image, LIMITS, symmetric)
    return image / high if symmetric else scaled(image, (low, high))


def units_of(da: xr.DataArray) -> str:
    """Units of decoded pictures in words, and what part of a volume they are."""
    words = (
        "preprocessed units"
        if da.attrs.get("scale", "preprocessed") != "stored"
        else unit(da.attrs)
    )
    part = (
        "middle axial slices, " if n.Z in da.dims else "middle slices, " if n.DZ in da.dims else ""
    )
    return f"{part}{words or 'stored units'}"


def grey_of(images: np.ndarray) -> np.ndarray:
    """Pictures as uint8, all on one scale."""
    return (255 * scaled(images, robust_limits(images, LIMITS))).round().astype(np.uint8)


@builder("reconstruction", "input", "reconstruction")
def reconstruction_sheet(
    found: xr.Dataset, *, threshold: float | None = None, most: int = 8
) -> Any:
    """Inputs, reconstructions and residuals (reconstruction - input), with PSNR and SSIM below
    each.

    All share one scale; that of the residuals is as wide and centred at 0. threshold: show, instead
    of the residuals, both as black and white, in the units of the pictures (of colours the mean of
    their channels), and the share of pixels on which the two differ. Raises NoInputError where
    there is no example.
    """
    dim = "example" if "example" in found.dims else n.SAMPLE
    if "input" not in found or not found.sizes.get(dim):
        raise NoInputError("no example was kept; reconstruct with examples of 1 or more.")
    found = found.isel({dim: slice(most)})
    original, recon = (pictures(found[name]) for name in ("input", "reconstruction"))
    limits = robust_limits(np.stack([original, recon]), LIMITS)
    words, scores = [], []
    for i in range(found.sizes[dim]):
        example = found.isel({dim: i})
        words.append(where_of(example, "example_" if dim == "example" else ""))
        scores.append("\n".join(numbers_of(example)))
    heading = f"reconstructions ({units_of(found['input'])})"
    pair = sheet([original, recon], limits, heading, names=["input", "reconstruction"], words=words)
    if original.ndim == 4:
        original, recon = original.mean(-1), recon.mean(-1)
    if threshold is None:
        half = (limits[1] - limits[0]) / 2
        second = sheet(
            [recon - original], (-half, half), names=["residual"], words=scores, cmap=DIVERGING
        )
    else:
        masks = [(images >= threshold).astype("f4") for images in (original, recon)]
        shares = [f"{share:.1%} differ" for share in (masks[0] != masks[1]).mean((1, 2))]
        names = [f"input ≥ {threshold:g}", f"reconstruction ≥ {threshold:g}"]
        second = sheet(masks, (0.0, 1.15), names=names, words=shares, colorbar=False)
    return holoviews().Layout([pair, second]).cols(1).opts(shared_axes=False)


def where_of(one: xr.Dataset, before: str = "", after: str = "", most: int = 17) -> str:
    """Where a sample comes from: its file, else its number or its coordinates, by names that begin
    and end so.
    """
    if f"{before}file{after}" in one.coords:
        return brief(one[f"{before}file{after}"].item(), most)
    lines = []
    for dim in (n.X, n.Y, n.Z, n.SAMPLE):
        name = f"{before}{dim}{after}"
        if name in one.coords and one[name].ndim == 0:
            lines.append(brief(f"{dim} = {value_text(one[name].item(), one[name].attrs)}", most))
    return "\n".join(lines)


def numbers_of(one: xr.Dataset) -> list[str]:
    """How good a reconstruction is, as far as it is known."""
    told = [f"PSNR {float(one['example_psnr']):.1f} dB"] if "example_psnr" in one else []
    return told + ([f"SSIM {float(one['example_ssim']):.2f}"] if "example_ssim" in one else [])


@builder("progress", "input", "reconstruction", "prior", n.EPOCH)
def progress_sheet(found: xr.Dataset, *, most: int = 8) -> Any:
    """Samples decoded during training: inputs on top, below them reconstructions and prior samples
    by epoch.

    At most `most` epochs, spread over the training; all on one scale.
    """
    found = found.rename({dim: str(dim).removeprefix("sheet_") for dim in found.dims})
    shown = found.isel({n.EPOCH: _spread(found.sizes[n.EPOCH], most)})
    names, rows = ["input"], [pictures(shown["input"])]
    for name in ("reconstruction", "prior"):
        for part in shown[name]:
            names.append(f"{name}, epoch {int(part[n.EPOCH])}")
            rows.append(pictures(part))
    limits = robust_limits(np.concatenate([row.ravel() for row in rows]), LIMITS)
    return sheet(rows, limits, "samples during training", names=names)


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many of the numbers below `count`, evenly spread, the ends among them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


@builder("draws", "decoded", "latents", n.SAMPLE)
def sample_sheet(found: xr.Dataset, *, most: int = 64) -> Any:
    """The decoded samples of `Run.sample`, all on one grey scale."""
    found = found.isel({n.SAMPLE: slice(most)})
    images = pictures(found["decoded"])
    if not len(images):
        raise NoInputError("there are no samples to show.")
    source = "the prior" if found.attrs.get("source") == "prior" else "the fitted distribution"
    heading = f"samples from {source} ({units_of(found['decoded'])})"
    words = [str(number) for number in found[n.SAMPLE].values]
    return sheet(in_rows(images), robust_limits(images, LIMITS), heading, words=words)


@builder("interpolation", "decoded", "step", "input", "end", "t")
def interpolation_strip(found: xr.Dataset, *, most: int = 9) -> Any:
    """The interpolation between two samples: input, decoded steps, input, on one grey scale.

    At most `most` steps, evenly spread, the ends among them.
    """
    picked = _spread(found.sizes["step"], most)
    steps, ends = pictures(found["decoded"])[picked], pictures(found["input"])
    first, last = (
        f"{name}: {where_of(found.sel(end=name), after='_of_end')}" for name in found["end"].values
    )
    words = [first, *(f"t = {t:.3g}" for t in found["t"].values[picked]), last]
    images = np.stack([ends[0], *steps, ends[1]])
    heading = f"{found.attrs['method']} between posterior means ({units_of(found['decoded'])})"
    return sheet([images], robust_limits(images, LIMITS), heading, words=words)


@builder("traversal", "decoded", "latent_dim", "step", "value")
def traversal_sheet(found: xr.Dataset) -> Any:
    """The pictures of `traverse`, a row for each dimension with its values below, all on one colour
    scale.
    """
    images = stacked(found["decoded"], ("latent_dim", "step"))
    heading = f"traversal from {brief(found.attrs['base'], 70)} ({units_of(found['decoded'])})"
    names = [f"latent {int(dim)}" for dim in found["latent_dim"].values]
    values = [number(value) for value in found["value"].values.ravel()]
    return sheet(images, robust_limits(images, LIMITS), text(heading), names=names, words=values)


@builder("manifold", "decoded", "row", "column")
def manifold_sheet(found: xr.Dataset) -> Any:
    """The pictures of `manifold` side by side on axes of the two dimensions, on one colour scale.

    The value on an axis is that of the middle of its picture; the vertical dimension increases
    upwards.
    """
    images = stacked(found["decoded"], ("row", "column"))
    heading = f"others: {brief(found.attrs['base'], 60)} ({units_of(found['decoded'])})"
    rows, columns = ([number(value) for value in found[dim].values] for dim in ("row", "column"))
    words = {
        "xlabel": text(found["column"].attrs["long_name"]),
        "ylabel": text(found["row"].attrs["long_name"]),
    }
    limits = robust_limits(images, LIMITS)
    return sheet(images[::-1], limits, text(heading), names=rows[::-1], columns=columns, **words)


@builder("prototypes", "decoded", "latents", "class", "n")
def prototype_sheet(found: xr.Dataset) -> Any:
    """The typical sample of each class and the mean of the class, decoded, on one colour scale.

    Below, the mean latents as a heat map centred at 0; of spatial latents the mean over positions.
    """
    names = [brief(name, 18) for name in found["class"].values]
    samples, means = pictures(found["decoded"]), pictures(found["decoded_mean"])
    words = []
    for i, name in enumerate(names):
        place = where_of(found.isel({"class": i}), after="_of_sample").replace("\n", ", ")
        words.append(f"{name}\n{place}")
    words += [f"n = {count}" for count in found["n"].values]
    limits = robust_limits(np.stack([samples, means]), LIMITS)
    heading = f"classes of {text(found.attrs['by'])} ({units_of(found['decoded'])})"
    decoded = sheet(
        [samples, means], limits, heading, names=["typical sample", "mean"], words=words
    )
    latents = found["latents"].astype("f8")
    heat = latents.mean(latents.dims[2:]).values
    dims = [str(i) for i in range(heat.shape[1])]
    table = centred(
        heat, names, dims, "mean latent", frame_width=560, frame_height=max(60, 24 * len(names))
    )
    return holoviews().Layout([decoded, table]).cols(1).opts(shared_axes=False)


@builder("components", "array", "components")
def component_sheet(components: xr.DataArray, *, most: int = 32) -> Any:
    """The first `most` component images of a decomposition.

    Signed components (PCA) are centred at 0 on a diverging scale, others (NMF) grey; limits are the
    0.5 % and 99.5 % percentiles of each image. Raises SchemaError for other dims than (component,
    [channel,] dy, dx).
    """
    names = [text(name) for name in components[str(components.dims[0])].values]
    images = pictures(components[:most])
    images = images[..., 0] if images.ndim == 4 else images
    signed = bool(np.nanmin(images) < 0)
    part = "" if len(images) == len(names) else f", {len(images)} of {len(names)}"
    rows = in_rows([in_own_limits(image, signed) for image in images])
    heading = f"component images{part}"
    limits, cmap = ((-1.0, 1.0), DIVERGING) if signed else ((0.0, 1.0), "gray")
    return sheet(rows, limits, heading, words=names[:most], cmap=cmap, colorbar=False)


def frames(found: xr.Dataset) -> list[np.ndarray]:
    """The decoded steps as frames `(H, W)` or `(H, W, 3)` of uint8, one scale for all, small ones
    enlarged.

    Of a traversal all dimensions move at once side by side.
    """
    decoded = found["decoded"]
    images = (
        stacked(decoded, ("latent_dim", "step"))
        if "latent_dim" in decoded.dims
        else pictures(decoded)[None]
    )
    factor = max(1, math.ceil(FRAME_SIDE / max(images.shape[2], images.shape[3] * len(images))))
    made = [np.concatenate(step, axis=1) for step in grey_of(images).swapaxes(0, 1)]
    return [frame.repeat(factor, axis=0).repeat(factor, axis=1) for frame in made]


def save_pictures(da: xr.DataArray, folder: Path, name: str) -> list[Path]:
    """One 8-bit PNG for each decoded sample, pixel for pixel, all on one scale: `<name>_000.png`
    and so on.
    """
    from PIL import Image

    grey = grey_of(pictures(da))
    paths = [folder / f"{name}_{i:03d}.png" for i in range(len(grey))]
    for image, path in zip(grey, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


def save_animation(
    shown: list[np.ndarray], path: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Save frames as an endless GIF that runs to the end in two seconds and back; returns the path.

    Raises NoInputError where the folder is not there, ExistsError where the file is and `overwrite`
    is not set.
    """
    from PIL import Image

    pause, data = max(20, round(2000 / len(shown))), io.BytesIO()
    images = [Image.fromarray(frame) for frame in (*shown, *shown[-2:0:-1])]
    images[0].save(
        data, format="GIF", save_all=True, append_images=images[1:], duration=pause, loop=0
    )
    return write_new(Path(path), data.getvalue(), overwrite)
