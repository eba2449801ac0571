"""Sheets of decoded pictures, set by matplotlib: reconstructions, draws, ways between samples, traversals, planes."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError, SchemaError, UsageError
from vaearr.views.common import DIVERGING, brief, number, robust_limits, text, unit, value_text
from vaearr.views.kinds import builder
from vaearr.views.paper import SMALL, WIDTH, integer_ticks, journal, new_figure, new_file

LIMITS = (0.5, 99.5)  # percentiles between which grey runs
FRAME_SIDE = 240  # pixels: smaller pictures are enlarged in an animation
COLUMNS = 8  # pictures beside each other
SIDE = WIDTH / (COLUMNS + 0.6)  # inches of a picture
MOST_TICKS = 8


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


@dataclass
class Row:
    """Pictures beside each other on one scale, or each on its own."""

    name: str
    images: Sequence[np.ndarray] | np.ndarray
    limits: tuple[float, float] | Sequence[tuple[float, float]]
    above: Sequence[str] = ()
    below: Sequence[str] = ()
    diverging: bool = False
    bar: bool = False


def show_picture(axes: Any, image: np.ndarray, limits: tuple[float, float], *, diverging: bool = False) -> Any:
    """A picture of `pictures` on axes without ticks, between two limits."""
    axes.set(xticks=[], yticks=[])
    if image.ndim == 3:
        low, high = limits
        return axes.imshow(np.clip((image - low) / (high - low), 0, 1))
    return axes.imshow(image, cmap=DIVERGING if diverging else "gray", vmin=limits[0], vmax=limits[1])


def draw_rows(figure: Any, rows: Sequence[Row], side: float, *, bar: bool = False, turn: bool = False) -> list[Any]:
    """Draw rows of pictures into a figure, `side` inches wide each; `bar`: one grey scale for all. Returns the axes."""
    columns = max(len(row.images) for row in rows)
    drawn = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(drawn, rows, strict=True):
        for i, (ax, image) in enumerate(zip(line, row.images, strict=False)):
            limits = row.limits if isinstance(row.limits, tuple) else row.limits[i]
            mesh = show_picture(ax, image, limits, diverging=row.diverging)
            if row.above:
                ax.set_title(row.above[i], fontsize=SMALL, pad=2)
            if row.below:
                ax.set_xlabel(row.below[i], fontsize=SMALL, labelpad=2)
        style: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center"} if turn else {}
        line[0].set_ylabel(row.name, fontsize=SMALL, **style)
        for spare in line[len(row.images) :]:
            spare.remove()
        if row.bar:
            scale = figure.colorbar(mesh, ax=list(line), fraction=0.03, pad=0.01)
            scale.ax.tick_params(labelsize=SMALL)
            scale.ax.set_visible(mesh.get_array().ndim == 2)  # hidden: the columns stay in line
    if bar and rows[0].images[0].ndim == 2:
        axes = [ax for ax in drawn.ravel() if ax.figure is not None]
        figure.colorbar(mesh, ax=axes, fraction=0.02, pad=0.01).ax.tick_params(labelsize=SMALL)
    return list(drawn.ravel())


def height_of(rows: Sequence[Row], side: float) -> float:
    """Inches that rows of pictures need."""
    words = [max((text.count("\n") + 1 for text in some), default=0) for row in rows for some in (row.above, row.below)]
    high = sum(side * row.images[0].shape[0] / row.images[0].shape[1] + 0.04 for row in rows)
    return high + 0.13 * sum(words) + 0.06 * sum(1 for some in words if some)


def sheet(rows: Sequence[Row], heading: str, *, side: float = SIDE, bar: bool = False, turn: bool = False) -> Any:
    """A figure of rows of pictures, `side` inches wide each."""
    columns = max(len(row.images) for row in rows)
    with journal():
        figure = new_figure(
            max(side * columns + (0.9 if turn else 0.6), 2.8),
            height_of(rows, side) + 0.3 + 0.17 * heading.count("\n"),
        )
        draw_rows(figure, rows, side, bar=bar, turn=turn)
        figure.suptitle(heading)
    return figure


def tiles(
    images: np.ndarray,
    limits: tuple[float, float] | Sequence[tuple[float, float]],
    above: Sequence[str],
    below: Sequence[str] = (),
    *,
    diverging: bool = False,
) -> list[Row]:
    """Pictures as rows of at most 8, on one scale or each on its own."""
    columns = math.ceil(len(images) / math.ceil(len(images) / COLUMNS))
    cut = [slice(i, i + columns) for i in range(0, len(images), columns)]
    spans = [limits if isinstance(limits, tuple) else limits[here] for here in cut]
    return [
        Row("", images[here], span, above[here], below[here], diverging) for here, span in zip(cut, spans, strict=True)
    ]


def grey_of(images: np.ndarray) -> np.ndarray:
    """Pictures as uint8, all on one scale."""
    low, high = robust_limits(images, LIMITS)
    return np.asarray((255 * np.clip((images - low) / (high - low), 0, 1)).round().astype(np.uint8))


def _grey_scale(images: np.ndarray) -> np.ndarray:
    """Pictures `(k, H, W)`: of colours the mean of their channels."""
    return images.mean(-1) if images.ndim == 4 else images


@builder("reconstruction", "input", "reconstruction", "example")
def reconstruction_sheet(found: xr.Dataset, *, threshold: float | None = None, most: int = 8) -> Any:
    """Inputs, reconstructions and residuals (reconstruction - input) of the examples of `reconstruct_store`.

    All share one scale, the residuals one of the same width centred at 0; PSNR and SSIM under each. threshold: instead
    of the residuals both as black and white, at or above it, in the units of the pictures (of colours the mean of their
    channels), and the share of pixels on which the two differ. Raises NoInputError where there is no example,
    UsageError for a threshold that is no number.
    """
    if "input" not in found or not found.sizes.get("example"):
        raise NoInputError("no example was kept; reconstruct with examples of 1 or more.")
    ones = [found.isel(example=i) for i in range(min(most, found.sizes["example"]))]
    original, recon = (pictures(found[name].isel(example=slice(most))) for name in ("input", "reconstruction"))
    limits = robust_limits(np.stack([original, recon]), LIMITS)
    half = (limits[1] - limits[0]) / 2
    rows = [
        Row("input", original, limits, [where_of(one, "example_") for one in ones]),
        Row("reconstruction", recon, limits),
    ]
    heading = "reconstructions"
    if threshold is None:
        below = [_numbers(one) for one in ones]
        rows.append(Row("residual", _grey_scale(recon - original), (-half, half), below=below, diverging=True))
        for row in rows:
            row.bar = True
    else:
        if not np.isfinite(threshold):
            raise UsageError(f"the threshold is {threshold}; give a number in the units of the pictures.")
        masks = [(_grey_scale(images) >= threshold).astype("f4") for images in (original, recon)]
        rows += [Row(f"{row.name}\n≥ {threshold:g}", mask, (0, 1)) for row, mask in zip(rows, masks, strict=True)]
        rows[-1].below = [f"{share:.1%} differ" for share in (masks[0] != masks[1]).mean((1, 2))]
        heading = "reconstructions, black and white"
    gap = "\n" if len(ones) < 4 else " "
    return sheet(rows, f"{heading}{gap}({units_of(found['input'])})")


def where_of(one: xr.Dataset, before: str = "", after: str = "", skipped: Collection[str] = ()) -> str:
    """Where a sample comes from: its file, else a line for each coordinate whose name begins and ends so."""
    if f"{before}file{after}" in one.coords:
        return brief(one[f"{before}file{after}"].item(), 17)
    names = [name for name in map(str, one.coords) if name.startswith(before) and name.endswith(after)]
    return "\n".join(
        brief(f"{name.removeprefix(before).removesuffix(after)} = {value_text(one[name].item(), one[name].attrs)}", 17)
        for name in names[::-1]
        if one[name].ndim == 0 and name not in skipped
    )


def _numbers(one: xr.Dataset) -> str:
    lines = [f"{float(one['example_psnr']):.1f} dB"] if "example_psnr" in one else []
    return "\n".join([*lines, *([f"SSIM {float(one['example_ssim']):.2f}"] if "example_ssim" in one else [])])


@builder("patterns", "input", "reconstruction", n.SAMPLE)
def patterns_sheet(samples: xr.Dataset) -> Any:
    """Patterns as the network sees them, reconstructions and residuals of `vaearr.reconstruct`; a scale per sample.

    The residual (of colour the mean over channels) has a scale of the same width centred at 0.
    """
    if not samples.sizes[n.SAMPLE]:
        raise NoInputError("there are no samples to reconstruct.")
    original, recon = (pictures(samples[name]) for name in ("input", "reconstruction"))
    spans = [robust_limits(np.stack(both)) for both in zip(original, recon, strict=True)]
    halves = [((low - high) / 2, (high - low) / 2) for low, high in spans]
    where = [_sample_title(samples.isel({n.SAMPLE: i}), i) for i in range(len(spans))]
    rows = [Row("original", original, spans, where), Row("reconstruction", recon, spans)]
    return sheet([*rows, Row("residual", _grey_scale(recon - original), halves, diverging=True)], "")


def _sample_title(one: xr.Dataset, position: int) -> str:
    """Where a sample comes from: its coordinates, or its number."""
    found = [f"{d} = {value_text(one[d].item(), one[d].attrs)}" for d in (n.X, n.Y, n.Z) if d in one.coords]
    return "\n".join(found) or f"sample {one[n.SAMPLE].item() if n.SAMPLE in one.coords else position}"


@builder("progress", "input", "reconstruction", "prior", n.EPOCH)
def progress_sheet(found: xr.Dataset, *, most: int = 8) -> Any:
    """Samples decoded as training went on: inputs on top, below them reconstructions and prior draws by epoch.

    At most `most` epochs, spread over the training; one grey scale per row.
    """
    picked = np.unique(np.linspace(0, found.sizes[n.EPOCH] - 1, most).round().astype(int))
    shown = found.isel({n.EPOCH: picked})
    parts = [("input", shown["input"])]
    for name in ("reconstruction", "prior"):
        parts += [(f"{name}\nepoch {int(part[n.EPOCH])}", part) for part in shown[name]]
    images = [(name, pictures(part)) for name, part in parts]
    return sheet([Row(name, some, robust_limits(some, LIMITS)) for name, some in images], "", turn=True)


@builder("draws", "decoded", "latents", n.SAMPLE)
def sample_sheet(found: xr.Dataset, *, most: int = 64) -> Any:
    """The decoded draws of `sample_prior`, all on one grey scale."""
    images = pictures(found["decoded"])[:most]
    if not len(images):
        raise NoInputError("there are no draws to show.")
    source = "the prior" if found.attrs.get("source") == "prior" else "the fitted distribution"
    cut = f", {len(images)} of {found.sizes[n.SAMPLE]}" if len(images) < found.sizes[n.SAMPLE] else ""
    heading = f"draws from {source}{cut} ({units_of(found['decoded'])})"
    numbers = [str(value) for value in found[n.SAMPLE].values[:most]]
    return sheet(tiles(images, robust_limits(images, LIMITS), numbers), heading, bar=True)


@builder("interpolation", "decoded", "step", "input", "end", "t")
def interpolation_strip(found: xr.Dataset, *, most: int = 9) -> Any:
    """The way of `interpolate`: input, decoded steps, input; the samples they lead from and to, on one grey scale.

    At most `most` steps, evenly spread, the ends among them.
    """
    picked = np.unique(np.linspace(0, found.sizes["step"] - 1, min(most, found.sizes["step"])).round().astype(int))
    steps, ends = pictures(found["decoded"])[picked], pictures(found["input"])
    titles = [f"{end}: input" for end in map(str, found["end"].values)]
    titles[1:1] = [f"t = {t:.3g}" for t in found["t"].values[picked]]
    first, last = (where_of(found.isel(end=end), after="_of_end") for end in (0, 1))
    below = [first, *[""] * len(steps), last]
    row = Row("", [ends[0], *steps, ends[1]], robust_limits(np.concatenate([steps, ends]), LIMITS), titles, below)
    heading = f"{found.attrs['method']} between posterior means ({units_of(found['decoded'])})"
    return sheet([row], heading, side=max((WIDTH - 0.6) / len(row.images), 0.62))


@builder("traversal", "decoded", "latent_dim", "step", "value")
def traversal_sheet(found: xr.Dataset) -> Any:
    """The pictures of `traverse`, a row for each dimension with its values underneath, all on one colour scale."""
    images = stacked(found["decoded"], ("latent_dim", "step"))
    limits = robust_limits(images, LIMITS)
    values = [[number(float(value)) for value in row] for row in found["value"].values]
    dims = [f"latent {int(dim)}" for dim in found["latent_dim"].values]
    rows = [Row(name, row, limits, below=words) for name, row, words in zip(dims, images, values, strict=True)]
    about = f"from {brief(found.attrs['base'], 40)} ({units_of(found['decoded'])})"
    heading = text(f"traversal {about}") if images.shape[1] >= 5 else f"traversal\n{text(about)}"
    return sheet(rows, heading, side=max((WIDTH - 0.6) / (images.shape[1] + 0.5), 0.62), bar=True)


@builder("manifold", "decoded", "row", "column")
def manifold_sheet(found: xr.Dataset) -> Any:
    """The pictures of `manifold` as one mosaic on axes of the two dimensions, on one colour scale.

    The value on an axis is that of the middle of its picture; the vertical dimension rises upwards.
    """
    images = stacked(found["decoded"], ("row", "column"))
    low, high = robust_limits(images, LIMITS)
    rows, columns, tall, wide = images.shape[:4]
    mosaic = np.concatenate([np.concatenate(list(line), axis=1) for line in images[::-1]], axis=0)
    with journal():
        beside = 1.55 if mosaic.ndim == 2 else 0.95
        figure = new_figure(WIDTH * 0.8 + beside, min(WIDTH * 0.8 * tall * rows / (wide * columns), 2 * WIDTH) + 0.75)
        axes = figure.subplots()
        shown = np.clip((mosaic - low) / (high - low), 0, 1) if mosaic.ndim == 3 else mosaic
        mesh = axes.imshow(shown, cmap="gray", vmin=low, vmax=high, extent=(0, columns * wide, 0, rows * tall))
        for axis, name, side, line in (
            (axes.xaxis, "column", wide, axes.axvline),
            (axes.yaxis, "row", tall, axes.axhline),
        ):
            values = found[name].values
            kept = np.arange(0, len(values), math.ceil(len(values) / MOST_TICKS))
            axis.set_ticks((kept + 0.5) * side, [number(values[i]) for i in kept])
            axis.set_label_text(text(found[name].attrs["long_name"]))
            for i in range(1, len(values)):
                line(i * side, color="white", lw=0.4)
        if mosaic.ndim == 2:
            figure.colorbar(mesh, ax=axes, fraction=0.04, pad=0.02).ax.tick_params(labelsize=SMALL)
        axes.set_title(text(f"others: {brief(found.attrs['base'], 30)} ({units_of(found['decoded'])})"))
    return figure


def channel_means(latents: xr.DataArray) -> np.ndarray:
    """Latents as `(vector, latent)`; of spatial ones the mean over the positions that are known."""
    values = latents.values.reshape(*latents.shape[:2], -1)
    known = np.isfinite(values)
    return np.asarray(np.where(known, values, 0).sum(-1) / np.maximum(known.sum(-1), 1))


@builder("prototypes", "decoded", "latents", "class", "n")
def prototype_sheet(found: xr.Dataset) -> Any:
    """The decoded prototypes on one colour scale, and their latents beneath as a heat map centred at 0.

    Of spatial latents the heat map shows the mean over positions.
    """
    images = stacked(found["decoded"], ("class",))
    names = [brief(name, 18) for name in found["class"].values]
    above = [f"{name}\nn = {int(count)}" for name, count in zip(names, found["n"].values, strict=True)]
    rows, heat = tiles(images, robust_limits(images, LIMITS), above), channel_means(found["latents"])
    top, bottom = height_of(rows, SIDE) + 0.55, 0.17 * len(names) + 0.9
    with journal():
        figure = new_figure(max(SIDE * len(rows[0].images) + 0.6, 4.0), top + bottom)
        upper, lower = figure.subfigures(2, 1, height_ratios=[top, bottom])
        draw_rows(upper, rows, SIDE, bar=True)
        upper.suptitle(text(f"means by {found.attrs['by']}\n({units_of(found['decoded'])})"))
        table = lower.subplots()
        reach = float(np.abs(heat).max()) or 1.0
        mesh = table.imshow(heat, cmap=DIVERGING, vmin=-reach, vmax=reach, aspect="auto")
        table.set_xlabel("latent dimension")
        table.xaxis.set_major_locator(integer_ticks(heat.shape[1]))
        table.set_yticks(range(len(names)), names, fontsize=SMALL)
        lower.colorbar(mesh, ax=table, fraction=0.03, pad=0.01, label="mean latent").ax.tick_params(labelsize=SMALL)
    return figure


@builder("components", "array", "components")
def component_sheet(components: xr.DataArray, ratio: xr.DataArray | None = None, *, most: int = 32) -> Any:
    """The first `most` component images of a decomposition, with the share of the variance each explains.

    Signed components (PCA) are centred at 0 on a diverging scale, others (NMF) grey; limits are the 0.5 % and 99.5 %
    percentiles of each image. Raises SchemaError for other dims than (component, [channel,] dy, dx).
    """
    if components.ndim not in (3, 4) or 0 in components.shape:
        dims = dict(components.sizes)
        raise SchemaError(f"{components.name!r} has dims {dims}; expected (component, [channel,] dy, dx).")
    first = str(components.dims[0])
    names = components[first].values.tolist() if first in components.coords else range(components.sizes[first])
    images = np.asarray(components.values[:most], dtype="f4")
    images = images[:, 0] if images.ndim == 4 else images
    signed = bool(np.nanmin(images) < 0)
    shares = ["" if ratio is None else f": {float(ratio[i]):.1%}" for i in range(len(images))]
    above = [f"{text(name)}{share}" for name, share in zip(names, shares, strict=False)]
    spans = [robust_limits(image, LIMITS, symmetric=signed) for image in images]
    rows = tiles(images, spans, above, diverging=signed)
    part = "" if len(images) == len(names) else f", {len(images)} of {len(names)}"
    return sheet(rows, f"component images{part}" + (", share of the variance" if ratio is not None else ""))


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
    made = [
        np.concatenate([np.concatenate(list(line), axis=1) for line in rows[:, :, step]], axis=0)
        for step in range(rows.shape[2])
    ]
    return [frame.repeat(factor, axis=0).repeat(factor, axis=1) for frame in made]


def save_pictures(da: xr.DataArray, folder: Path, name: str) -> list[Path]:
    """One 8-bit PNG for each decoded sample, pixel for pixel, all on one scale: `<name>_000.png` and so on."""
    from PIL import Image

    grey = grey_of(pictures(da))
    paths = [folder / f"{name}_{i:03d}.png" for i in range(len(grey))]
    for image, path in zip(grey, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


def save_animation(
    shown: list[np.ndarray], path: str | os.PathLike[str], *, seconds: float = 2.0, overwrite: bool = False
) -> Path:
    """Save frames as an endless GIF that runs to the end in `seconds` and back; returns the path.

    Raises UsageError for another ending than .gif or fewer than two frames, NoInputError where the folder is not there,
    ExistsError where the file is and `overwrite` is not set.
    """
    from PIL import Image

    target = Path(path)
    if target.suffix.lower() != ".gif":
        raise UsageError(f"{target.name!r} is not a name of a GIF; let it end in .gif.")
    if len(shown) < 2 or not seconds > 0:
        raise UsageError("an animation needs two frames or more and a positive time.")
    pause = max(20, round(1000 * seconds / len(shown)))
    images = [Image.fromarray(frame) for frame in (*shown, *shown[-2:0:-1])]
    with new_file(target, overwrite=overwrite) as part:
        images[0].save(part, format="GIF", save_all=True, append_images=images[1:], duration=pause, loop=0)
    return target
