"""Decoded pictures as sheets and files: reconstructions, samples, interpolations, traversals."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.latents import evenly_spaced
from vaearr.errors import NoInputError, SchemaError
from vaearr.views.common import (
    DIVERGING,
    Options,
    brief,
    in_columns,
    number,
    robust_limits,
    text,
    title,
    unit,
    value_text,
)
from vaearr.views.kinds import builder
from vaearr.views.mosaic import LIMITS, in_own_limits, in_rows, picture_width, sheet
from vaearr.views.paper import write_new
from vaearr.views.spread import centred

TINY = 1e-12
FRAME_SIDE = 240  # pixels: smaller pictures are enlarged in an animation


def pictures(da: xr.DataArray) -> np.ndarray:
    """Samples `(k, [channel,] [dz,] H, W)` as pictures `(k, H, W)`, or `(k, H, W, 3)` in colour.

    Three channels are colours, else the first channel is used; of a volume the middle slice (of one
    over z, y, x the axial slice with the front on top). Raises SchemaError for other dims.
    """
    values = np.asarray(da.values, dtype="f4")
    has_channel = n.CHANNEL in da.dims
    if not has_channel:
        values = values[:, None]
    if values.ndim not in (4, 5) or (has_channel and da.dims.index(n.CHANNEL) != 1):
        raise SchemaError(
            f"{da.name!r} has dims {da.dims}; "
            "expected (sample, [channel,] rows, columns) or a volume."
        )
    if values.ndim == 5:
        values = values[:, :, values.shape[2] // 2]
        if da.dims[-2:] == (n.Y, n.X):  # y increases to the front
            values = values[..., ::-1, :]
    if values.shape[1] == 3:
        return np.moveaxis(values, 1, -1)
    return values[:, 0]


def stacked(da: xr.DataArray, lead: tuple[str, str]) -> np.ndarray:
    """Pictures over two leading dims, `(*lead, H, W[, 3])`."""
    images = pictures(da.stack(flat=lead, create_index=False).transpose("flat", ...))
    return images.reshape(*(da.sizes[dim] for dim in lead), *images.shape[1:])


def units_of(da: xr.DataArray) -> str:
    """Units of decoded pictures, and which slices of volumes they show."""
    units = "preprocessed units"
    if da.attrs.get("scale") == "stored":
        units = unit(da.attrs) or "stored units"
    if n.Z in da.dims:
        return f"middle axial slices, {units}"
    return f"middle slices, {units}" if n.DZ in da.dims else units


def framed(decoded: xr.Dataset) -> dict[str, Any]:
    """Option `marked` of a sheet of decoded pictures: those far from every sample."""
    if "is_far" not in decoded:
        return {}
    return {"marked": decoded["is_far"].values.ravel()}


def with_frames_explained(heading: str, decoded: xr.Dataset) -> str:
    """A heading that explains the frames of `framed`, if a picture has one."""
    if "is_far" in decoded and decoded["is_far"].values.any():
        return f"{heading}\nframed: far from every sample"
    return heading


def grey_of(images: np.ndarray) -> np.ndarray:
    """Pictures as uint8, all on one scale."""
    grey = 255 * in_own_limits(images)
    return grey.round().astype(np.uint8)


@builder("pictures", "pictures")
def picture_sheet(da: xr.DataArray, **options: Any) -> Any:
    """Plot selected or decoded patterns in their order, their coordinates above them.

    All have one grey scale. `**options` are those of `holoviews.Image`.
    """
    signal = da.attrs.get(n.SIGNAL_DIMS, [n.DY, n.DX])
    dims = [dim for dim in da.dims if dim not in signal]
    samples = da.expand_dims("picture")
    if dims:
        samples = da.stack(picture=dims, create_index=False)
    samples = samples.transpose("picture", *signal)
    words = []
    for sample in samples:
        places = [f"{dim} = {value_text(sample[dim].item(), sample[dim].attrs)}" for dim in dims]
        words.append("\n".join(places))
    rows = in_rows(pictures(samples))
    return sheet(rows, limits=options.pop("clim", None), words=words, **options)


@builder("reconstruction", "input", "reconstruction")
def reconstruction_sheet(
    examples: xr.Dataset, *, threshold: float | None = None, most: int = 8
) -> Any:
    """Plot inputs, reconstructions and residuals with PSNR and SSIM of each.

    Inputs and reconstructions share one scale; that of the residuals (reconstruction - input) has
    the same width and is centred at 0.

    Parameters
    ----------
    examples
        Result of `Run.reconstruct`.
    threshold
        In units of the pictures: instead of the residuals, show both as black and white (colours by
        the mean of their channels) and the share of pixels that differ.
    most
        Number of examples.

    Raises
    ------
    NoInputError
        If the result holds no example.
    """
    if not examples.sizes.get("example"):
        raise NoInputError("no example was kept; reconstruct with examples of 1 or more.")
    examples = examples.isel(example=slice(most))
    original = pictures(examples["input"])
    recon = pictures(examples["reconstruction"])
    limits = robust_limits(np.stack([original, recon]), LIMITS)
    sources = []
    scores = []
    for i in range(len(original)):
        example = examples.isel(example=i)
        sources.append("\n".join(source_of(example, "example_{}")))
        scores.append("\n".join(scores_of(example)).removeprefix("PSNR "))  # dB identifies it
    heading = f"reconstructions ({units_of(examples['input'])})"
    names = ["input", "reconstruction"]
    pair = sheet([original, recon], heading, limits=limits, names=names, words=sources)
    if original.ndim == 4:
        original = original.mean(-1)
        recon = recon.mean(-1)
    if threshold is None:
        half = (limits[1] - limits[0]) / 2
        style: Options = {"limits": (-half, half), "cmap": DIVERGING}
        second = sheet([recon - original], names=["residual"], words=scores, **style)
    else:
        masks = np.stack([original, recon]) >= threshold
        shares = (masks[0] != masks[1]).mean((1, 2))
        words = [f"{share:.1%} differ" for share in shares]
        names = [f"{name} ≥ {threshold:g}" for name in names]
        style = {"limits": (0.0, 1.15), "colorbar": False}
        second = sheet(masks.astype("f4"), names=names, words=words, **style)
    return in_columns([pair, second], 1)


def source_of(sample: xr.Dataset, names: str, most: int = 17) -> list[str]:
    """The coordinates of a sample, or its number, from coordinates with names like "example_{}"."""
    lines = []
    for dim in (n.X, n.Y, n.Z, n.SAMPLE):
        coord = sample.coords.get(names.format(dim))
        if coord is not None:
            lines.append(brief(f"{dim} = {value_text(coord.item(), coord.attrs)}", most))
    return lines


def scores_of(example: xr.Dataset) -> list[str]:
    """PSNR and SSIM of a reconstruction, if they were computed."""
    scores = []
    if "example_psnr" in example:
        scores.append(f"PSNR {float(example['example_psnr']):.1f} dB")
    if "example_ssim" in example:
        scores.append(f"SSIM {float(example['example_ssim']):.2f}")
    return scores


@builder("progress", "input", "reconstruction", "prior", n.EPOCH)
def progress_sheet(progress: xr.Dataset, *, most: int = 8) -> Any:
    """Plot inputs, reconstructions and prior samples that were decoded during training.

    At most `most` epochs, evenly spaced; all on one scale.
    """
    dims = {dim: str(dim).removeprefix("sheet_") for dim in progress.dims}
    progress = progress.rename(dims)
    epochs = evenly_spaced(progress.sizes[n.EPOCH], most)
    progress = progress.isel({n.EPOCH: epochs})
    names = ["input"]
    rows = [pictures(progress["input"])]
    for name in ("reconstruction", "prior"):
        for samples in progress[name]:
            names.append(f"{name}, epoch {int(samples[n.EPOCH])}")
            rows.append(pictures(samples))
    return sheet(rows, "samples during training", names=names)


@builder("draws", "decoded", "latents", n.SAMPLE)
def sample_sheet(samples: xr.Dataset, *, most: int = 64) -> Any:
    """Plot the decoded samples of `Run.sample` on one grey scale.

    Raises NoInputError if there is none.
    """
    samples = samples.isel({n.SAMPLE: slice(most)})
    images = pictures(samples["decoded"])
    if not len(images):
        raise NoInputError("there are no samples to show.")
    source = "the prior" if samples.attrs.get("source") == "prior" else "the fitted distribution"
    heading = f"samples from {source} ({units_of(samples['decoded'])})"
    numbers = list(map(str, samples[n.SAMPLE].values))
    heading = with_frames_explained(heading, samples)
    return sheet(in_rows(images), heading, words=numbers, **framed(samples))


@builder("interpolation", "decoded", "step", "input", "end", "t")
def interpolation_strip(interpolation: xr.Dataset, *, most: int = 9) -> Any:
    """Plot the interpolation between two samples: input, decoded steps, input.

    At most `most` evenly spaced steps, including both ends, on one grey scale.
    """
    steps = interpolation.isel(step=evenly_spaced(interpolation.sizes["step"], most))
    first, last = pictures(interpolation["input"])
    images = np.stack([first, *pictures(steps["decoded"]), last])
    ends = []
    for end in range(2):
        sample = interpolation.isel(end=end)
        source = "\n".join(source_of(sample, "{}_of_end"))
        ends.append(f"{sample['end'].item()}: {source}")
    words = [ends[0], *(f"t = {t:.2g}" for t in steps["t"].values), ends[1]]
    method = interpolation.attrs["method"]
    heading = f"{method} between posterior means ({units_of(steps['decoded'])})"
    heading = with_frames_explained(heading, steps)
    marks = framed(steps)
    if marks:
        marks["marked"] = np.pad(marks["marked"], 1)  # the two ends are data
    return sheet([images], heading, words=words, **marks)


@builder("traversal", "decoded", "latent_dim", "step", "value")
def traversal_sheet(traversal: xr.Dataset, *, most: int = 8) -> Any:
    """Plot the pictures of `Run.traverse` on one scale, a row for each latent with its values.

    Next to each row stands the difference between its last and its first picture, on a diverging
    scale, and its standard deviation in percent of that of the pictures.

    Parameters
    ----------
    traversal
        Result of `Run.traverse`.
    most
        Number of latents.
    """
    n_dims = traversal.sizes["latent_dim"]
    traversal = traversal.isel(latent_dim=slice(most))
    images = stacked(traversal["decoded"], ("latent_dim", "step"))
    units = units_of(traversal["decoded"])
    heading = f"traversal from {brief(traversal.attrs['base'], 70)} ({units})"
    if n_dims > most:
        heading += f", {most} of {n_dims} latents"
    if traversal.attrs["others"] == "data":
        heading += ";\nat each value the sample most similar to the base"
    names = [f"latent {int(dim)}" for dim in traversal["latent_dim"].values]
    values = list(map(number, traversal["value"].values.ravel()))
    side = picture_width(images.shape[1] + 1)
    style: Options = {"side": side, "colorbar": False, **framed(traversal)}
    heading = with_frames_explained(heading, traversal)
    moves = sheet(images, names=names, words=values, **style)
    change = images[:, -1] - images[:, 0]
    if change.ndim == 4:
        change = change.mean(-1)
    contrast = images[:, [0, -1]].std((2, 3)).reshape(len(images), -1).mean(1)
    words = [f"{share:.0%}" for share in change.std((1, 2)) / np.maximum(contrast, TINY)]
    limits = robust_limits(change, LIMITS, symmetric=True)
    style = {"limits": limits, "cmap": DIVERGING, "side": side}
    change_sheet = sheet(change[:, None], "last − first", words=words, **style)
    return in_columns([moves, change_sheet], 2, title=title(heading))


@builder("manifold", "decoded", "row", "column")
def manifold_sheet(manifold: xr.Dataset) -> Any:
    """Plot the pictures of `Run.manifold` on axes of the two latents, on one scale.

    The vertical latent increases upwards.
    """
    manifold = manifold.isel(row=slice(None, None, -1))
    units = units_of(manifold["decoded"])
    heading = f"others: {brief(manifold.attrs['base'], 60)} ({units})"
    return sheet(
        stacked(manifold["decoded"], ("row", "column")),
        with_frames_explained(heading, manifold),
        names=[number(value, ".1f") for value in manifold["row"].values],
        columns=[number(value, ".1f") for value in manifold["column"].values],
        xlabel=text(manifold["column"].attrs["long_name"]),
        ylabel=text(manifold["row"].attrs["long_name"]),
        **framed(manifold),
    )


@builder("prototypes", "decoded", "latents", "class", "n")
def prototype_sheet(prototypes: xr.Dataset) -> Any:
    """Plot the decoded typical sample and mean of each class, and the mean latents as a heat map.

    Spatial latents are averaged over positions.
    """
    names = [brief(name, 18) for name in prototypes["class"].values]
    words = []
    for i, name in enumerate(names):
        source = source_of(prototypes.isel({"class": i}), "{}_of_sample")
        words.append("\n".join([name, *source]))
    words += [f"n = {count}" for count in prototypes["n"].values]
    rows = [pictures(prototypes["decoded"]), pictures(prototypes["decoded_mean"])]
    heading = f"classes of {prototypes.attrs['by']} ({units_of(prototypes['decoded'])})"
    decoded = sheet(rows, heading, names=["typical sample", "mean"], words=words)
    latents = prototypes["latents"].astype("f8")
    means = latents.mean(latents.dims[2:]).values
    dims = list(map(str, range(means.shape[1])))
    size = {"frame_width": 560, "frame_height": max(60, 24 * len(names))}
    table = centred(means, names, dims, "mean latent", **size)
    return in_columns([decoded, table], 1)


@builder("components", "array", "components")
def component_sheet(components: xr.DataArray, *, most: int = 32) -> Any:
    """Plot the first component images of a decomposition.

    Signed components (PCA) have a diverging scale centred at 0, others (NMF) a grey scale; limits
    are the 0.5 % and 99.5 % percentiles of each image. Raises SchemaError for dims other than
    (component, [channel,] dy, dx).
    """
    names = [text(name) for name in components[str(components.dims[0])].values]
    images = pictures(components[:most])
    if images.ndim == 4:
        images = images[..., 0]
    heading = "component images"
    if len(images) < len(names):
        heading += f", {len(images)} of {len(names)}"
    is_signed = bool(np.nanmin(images) < 0)
    rows = in_rows([in_own_limits(image, is_signed) for image in images])
    cmap = DIVERGING if is_signed else "gray"
    return sheet(rows, heading, limits=(0.0, 1.0), words=names, cmap=cmap, colorbar=False)


def frames(steps: xr.Dataset) -> list[np.ndarray]:
    """Decoded steps as frames `(H, W)` or `(H, W, 3)` of uint8 on one scale, small ones enlarged.

    All latents of a traversal are animated side by side.
    """
    decoded = steps["decoded"]
    if "latent_dim" in decoded.dims:
        images = stacked(decoded, ("latent_dim", "step"))
    else:
        images = pictures(decoded)[None]
    height, width = images.shape[2:4]
    factor = math.ceil(FRAME_SIDE / max(height, width * len(images)))
    images = grey_of(images).repeat(factor, axis=2).repeat(factor, axis=3)
    return [np.concatenate(step, axis=1) for step in images.swapaxes(0, 1)]


def save_pictures(da: xr.DataArray, folder: Path, name: str) -> list[Path]:
    """Save each decoded sample as an 8-bit PNG `<name>_000.png`, …, pixel by pixel, on one scale."""
    from PIL import Image

    grey = grey_of(pictures(da))
    paths = [folder / f"{name}_{i:03d}.png" for i in range(len(grey))]
    for image, path in zip(grey, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


def save_animation(
    frames: list[np.ndarray], path: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Save frames as an endless GIF that plays forwards and backwards in two seconds each.

    Raises NoInputError if the folder does not exist, ExistsError if the file exists and `overwrite`
    is false.
    """
    from PIL import Image

    forth_and_back = [*frames, *frames[-2:0:-1]]
    images = [Image.fromarray(frame) for frame in forth_and_back]
    milliseconds = max(20, round(2000 / len(frames)))
    data = io.BytesIO()
    first, *others = images
    first.save(data, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return write_new(Path(path), data.getvalue(), overwrite)
