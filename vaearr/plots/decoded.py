"""Decoded pictures on paper and on the move: reconstructions with residuals, draws, the way between two samples."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import ExistsError, NoInputError, SchemaError, UsageError
from vaearr.plots.common import COLORS, DIVERGING, brief, robust_limits, text, unit, value_text
from vaearr.plots.paper import SMALL, WIDTH, journal, new_figure, panels

UNUSED = "#9a9a9a"
LIMITS = (0.5, 99.5)  # percentiles between which grey runs
FRAME_SIDE = 240  # pixels: smaller pictures are enlarged in an animation


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


def show_picture(axes: Any, image: np.ndarray, limits: tuple[float, float], *, diverging: bool = False) -> Any:
    """A picture of `pictures` on axes without ticks, between two limits."""
    axes.set(xticks=[], yticks=[])
    if image.ndim == 3:
        low, high = limits
        return axes.imshow(np.clip((image - low) / (high - low), 0, 1))
    return axes.imshow(image, cmap=DIVERGING if diverging else "gray", vmin=limits[0], vmax=limits[1])


def _scale_words(da: xr.DataArray) -> str:
    if da.attrs.get("scale") == "preprocessed":
        return "preprocessed units"
    return unit(da.attrs) or "stored units"


def reconstruction_strip(found: xr.Dataset, *, most: int = 8) -> Any:
    """Inputs, reconstructions and residuals (reconstruction - input) of the examples of `reconstruct_store`.

    All share one scale, the residuals one of the same width centred at 0; PSNR and SSIM under each. Raises NoInputError
    where there is no example.
    """
    if "input" not in found or not found.sizes.get("example"):
        raise NoInputError("no example was kept; reconstruct with examples of 1 or more.")
    shown = found.isel(example=slice(most))
    pair = [pictures(shown[name]) for name in ("input", "reconstruction")]
    low, high = robust_limits(np.stack(pair), LIMITS)
    half = (high - low) / 2
    rows = [("input", pair[0]), ("reconstruction", pair[1]), ("residual", pair[1] - pair[0])]
    count = shown.sizes["example"]
    with journal():
        side = WIDTH / 8.6
        height = side * pair[0].shape[1] / pair[0].shape[2]
        figure = new_figure(max(side * count + 0.6, 2.8), 3 * height + (1.1 if count < 4 else 0.9))
        axes = figure.subplots(3, count, squeeze=False)
        for line, (name, images) in zip(axes, rows, strict=True):
            limits = (-half, half) if name == "residual" else (low, high)
            for ax, image in zip(line, images, strict=True):
                if name == "residual" and image.ndim == 3:
                    image = image.mean(-1)
                mesh = show_picture(ax, image, limits, diverging=name == "residual")
            line[0].set_ylabel(name, fontsize=8)
            scale = figure.colorbar(mesh, ax=list(line), fraction=0.03, pad=0.01)
            scale.ax.tick_params(labelsize=SMALL)
            scale.ax.set_visible(pair[0].ndim == 3 or name == "residual")  # hidden: the columns stay in line
        for i in range(count):
            axes[0, i].set_title(_where(shown.isel(example=i)), fontsize=SMALL, pad=2)
            axes[2, i].set_xlabel(_numbers(shown.isel(example=i)), fontsize=SMALL, labelpad=2)
        slices = "middle axial slices, " if n.Z in shown["input"].dims else ""
        gap = "\n" if count < 4 else " "
        figure.suptitle(f"reconstructions{gap}({slices}{_scale_words(shown['input'])})")
    return figure


def _where(one: xr.Dataset) -> str:
    if "example_file" in one.coords:
        return brief(one["example_file"].item(), 17)
    found = [
        f"{name.removeprefix('example_')} = {value_text(one[name].item(), one[name].attrs)}"
        for name in map(str, one.coords)
        if name.startswith("example_") and one[name].ndim == 0
    ]
    return "\n".join(text(part) for part in found[::-1])


def _numbers(one: xr.Dataset) -> str:
    lines = []
    if "example_psnr" in one:
        lines.append(f"{float(one['example_psnr']):.1f} dB")
    if "example_ssim" in one:
        lines.append(f"SSIM {float(one['example_ssim']):.2f}")
    return "\n".join(lines)


def sample_sheet(found: xr.Dataset, *, most: int = 64, columns: int = 8) -> Any:
    """The decoded draws of `sample_prior`, all on one grey scale."""
    images = pictures(found["decoded"])[:most]
    if not len(images):
        raise NoInputError("there are no draws to show.")
    limits = robust_limits(images, LIMITS)
    columns = min(columns, len(images))
    with journal():
        side = WIDTH / 8.6
        height = side * images.shape[1] / images.shape[2] + 0.16
        figure = new_figure(
            max(side * columns + 0.6, 2.8), math.ceil(len(images) / columns) * height + (0.5 if columns < 4 else 0.3)
        )
        axes = panels(figure, len(images), columns)
        for i, (ax, image) in enumerate(zip(axes, images, strict=True)):
            mesh = show_picture(ax, image, limits)
            ax.set_title(text(found[n.SAMPLE].values[i]), fontsize=SMALL, pad=2)
        if images.ndim == 3:
            figure.colorbar(mesh, ax=axes, fraction=0.02, pad=0.01).ax.tick_params(labelsize=SMALL)
        cut = f", {len(images)} of {found.sizes[n.SAMPLE]}" if len(images) < found.sizes[n.SAMPLE] else ""
        source = "the prior" if found.attrs.get("source") == "prior" else "the fitted distribution"
        gap = "\n" if columns < 4 else " "
        figure.suptitle(f"draws from {source}{cut}{gap}({_scale_words(found['decoded'])})")
    return figure


def interpolation_strip(found: xr.Dataset, *, most: int = 12) -> Any:
    """The decoded steps of `interpolate` between the two patterns they lead from and to, on one grey scale.

    At most `most` steps, evenly spread, the ends among them.
    """
    picked = np.unique(np.linspace(0, found.sizes["step"] - 1, min(most, found.sizes["step"])).round().astype(int))
    steps, ends = pictures(found["decoded"])[picked], pictures(found["input"])
    limits = robust_limits(np.concatenate([steps, ends]), LIMITS)
    images = [ends[0], *steps, ends[1]]
    titles = [f"{end}: input" for end in map(str, found["end"].values)]
    titles[1:1] = [f"t = {t:.3g}" for t in found["t"].values[picked]]
    with journal():
        side = max(WIDTH / len(images), 0.62)
        figure = new_figure(side * len(images) + 0.1, side * steps.shape[1] / steps.shape[2] + 0.7)
        for ax, image, heading in zip(figure.subplots(1, len(images)), images, titles, strict=True):
            show_picture(ax, image, limits)
            ax.set_title(heading, fontsize=SMALL, pad=2)
        figure.axes[0].set_xlabel(_end(found, 0), fontsize=SMALL)
        figure.axes[-1].set_xlabel(_end(found, 1), fontsize=SMALL)
        figure.suptitle(f"{found.attrs['method']} between posterior means ({_scale_words(found['decoded'])})")
    return figure


def _end(found: xr.Dataset, position: int) -> str:
    one = found.isel(end=position)
    if "file_of_end" in one.coords:
        return brief(one["file_of_end"].item(), 15)
    parts = [str(name) for name in one.coords if str(name).endswith("_of_end")]
    return "\n".join(
        text(f"{name.removesuffix('_of_end')} = {value_text(one[name].item(), one[name].attrs)}")
        for name in parts[::-1]
    )


def animation_frames(found: xr.Dataset) -> list[np.ndarray]:
    """The decoded steps as frames `(H, W)` or `(H, W, 3)` of uint8, one scale for all, small ones enlarged."""
    images = pictures(found["decoded"])
    low, high = robust_limits(images, LIMITS)
    frames = (255 * np.clip((images - low) / (high - low), 0, 1)).round().astype(np.uint8)
    factor = max(1, math.ceil(FRAME_SIDE / max(frames.shape[1:3])))
    return list(frames.repeat(factor, axis=1).repeat(factor, axis=2))


def save_pictures(da: xr.DataArray, folder: Path, name: str) -> list[Path]:
    """One 8-bit PNG for each decoded sample, pixel for pixel, all on one scale: `<name>_000.png` and so on."""
    from PIL import Image

    images = pictures(da)
    low, high = robust_limits(images, LIMITS)
    grey = (255 * np.clip((images - low) / (high - low), 0, 1)).round().astype(np.uint8)
    paths = [folder / f"{name}_{i:03d}.png" for i in range(len(grey))]
    for image, path in zip(grey, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


def save_animation(
    frames: list[np.ndarray], path: str | os.PathLike[str], *, seconds: float = 2.0, overwrite: bool = False
) -> Path:
    """Save frames as an endless GIF that runs to the end in `seconds` and back; returns the path.

    Raises UsageError for another ending than .gif or fewer than two frames, NoInputError where the folder is not there,
    ExistsError where the file is and `overwrite` is not set.
    """
    from PIL import Image

    target = Path(path)
    if target.suffix.lower() != ".gif":
        raise UsageError(f"{target.name!r} is not a name of a GIF; let it end in .gif.")
    if len(frames) < 2 or not seconds > 0:
        raise UsageError("an animation needs two frames or more and a positive time.")
    if not target.parent.is_dir():
        raise NoInputError(f"there is no folder {target.parent}; make it first.")
    if target.exists() and not overwrite:
        raise ExistsError(f"{target} is there already; give another name, or overwrite=True.")
    pause = max(20, round(1000 * seconds / len(frames)))
    images = [Image.fromarray(frame) for frame in (*frames, *frames[-2:0:-1])]
    part = target.with_name(f".{target.name}.part")
    try:
        images[0].save(part, format="GIF", save_all=True, append_images=images[1:], duration=pause, loop=0)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def statistics_sheet(statistics: xr.Dataset) -> Any:
    """Latent statistics: KL per dimension; aggregate posterior beside the prior; range of the means; log-variance."""
    number = statistics[n.LATENT].values
    active = statistics["is_active"].values.astype(bool)
    colors = np.where(active, COLORS[0], UNUSED).tolist()
    with journal():
        figure = new_figure(WIDTH, 4.4)
        (kl, aggregate), (means, logvar) = figure.subplots(2, 2)
        kl.bar(number, statistics["kl"].values, color=colors)
        kl.set(title=f"{int(active.sum())} of {active.size} latents active", ylabel="KL (nats per sample)")
        mean, std = statistics["aggregate_mean"].values, statistics["aggregate_std"].values
        aggregate.axhspan(-1, 1, color="#e8e8e8", lw=0)
        aggregate.errorbar(number, mean, std, fmt="o", ms=2.5, lw=1, color=COLORS[0])
        aggregate.set(title="aggregate posterior (grey: prior)", ylabel="latent")
        low, high = statistics["min"].values, statistics["max"].values
        means.vlines(number, low, high, color="#b5b5b5", lw=1)
        means.errorbar(number, statistics["mean"].values, statistics["std"].values, fmt="o", ms=2.5, color=COLORS[0])
        means.set(title="posterior mean: mean ± std, range", ylabel="latent", xlabel="latent dimension")
        logs = statistics["logvar_mean"].values
        if np.isfinite(logs).any():
            logvar.errorbar(number, logs, statistics["logvar_std"].values, fmt="o", ms=2.5, lw=1, color=COLORS[0])
        else:
            logvar.text(0.5, 0.5, "no posterior", ha="center", va="center", transform=logvar.transAxes)
        logvar.set(title="posterior log-variance, mean ± std", ylabel="log-variance", xlabel="latent dimension")
        for ax in (kl, aggregate, means, logvar):
            ax.set_xlim(-0.7, active.size - 0.3)
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.grid(alpha=0.25, lw=0.4)
            ax.set_axisbelow(True)
    return figure
