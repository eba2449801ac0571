"""Sheets of decoded pictures, set by matplotlib: reconstructions, draws, ways between samples, traversals, planes."""

from __future__ import annotations

import io
import itertools
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
from vaearr.views.paper import SMALL, WIDTH, draw, journal, new_figure, write_new
from vaearr.views.spread import centred

LIMITS = (0.5, 99.5)  # percentiles between which grey runs
FRAME_SIDE = 240  # pixels: smaller pictures are enlarged in an animation
COLUMNS = 8  # pictures beside each other
SIDE = WIDTH / (COLUMNS + 0.6)  # inches of a picture
MOST_TICKS = 8
Limits = tuple[float, float]


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
    """Pictures beside each other: on one scale, which a colour bar shows, or (a list of limits) each on its own."""

    name: str
    images: Sequence[np.ndarray] | np.ndarray
    limits: Limits | list[Limits]
    above: Sequence[str] = ()
    below: Sequence[str] = ()
    cmap: str = "gray"

    @property
    def scale(self) -> tuple[str, Limits] | None:
        """What rows that share a colour bar have in common."""
        return (self.cmap, self.limits) if isinstance(self.limits, tuple) else None


def scaled(image: np.ndarray, limits: Limits) -> np.ndarray:
    """Values between the limits as 0 to 1."""
    return np.asarray(np.clip((image - limits[0]) / (limits[1] - limits[0]), 0, 1))


def draw_rows(figure: Any, rows: Sequence[Row], *, turn: bool = False) -> list[Any]:
    """Draw rows of pictures into a figure, all in frames like the first; rows on one scale share a colour bar.

    turn: names of rows are written across. Returns the axes of the pictures.
    """
    columns = max(len(row.images) for row in rows)
    tall, wide = rows[0].images[0].shape[:2]
    drawn = figure.subplots(len(rows), columns, squeeze=False)
    for scale, group in itertools.groupby(zip(rows, drawn, strict=True), lambda pair: pair[0].scale):
        axes: list[Any] = []
        for row, line in group:
            spans: Any = itertools.repeat(row.limits) if scale else row.limits
            for i, (ax, image, span) in enumerate(zip(line, row.images, spans, strict=False)):
                shown = scaled(image, span) if image.ndim == 3 else image
                mesh = ax.imshow(shown, cmap=row.cmap, vmin=span[0], vmax=span[1], extent=(0, wide, tall, 0))
                if row.above:
                    ax.set_title(row.above[i], fontsize=SMALL, pad=2)
                if row.below:
                    ax.set_xlabel(row.below[i], fontsize=SMALL, labelpad=2)
                ax.set(xticks=[], yticks=[])
            style: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center"} if turn else {}
            line[0].set_ylabel(row.name, fontsize=SMALL, **style)
            for spare in line[len(row.images) :]:
                spare.remove()
            axes += [*line[: len(row.images)]]
        if scale:
            bar = figure.colorbar(mesh, ax=axes, fraction=0.03, pad=0.01)
            bar.ax.tick_params(labelsize=SMALL)
            bar.ax.set_visible(row.images[0].ndim == 2)  # hidden of colours: the columns stay in line
    return [ax for ax in drawn.ravel() if ax.figure is not None]


def sheet(
    rows: Sequence[Row], heading: str, *, side: float = SIDE, turn: bool = False, below: float = 0.0, least: float = 2.8
) -> Any:
    """A figure of rows of pictures, `side` inches wide each; `below`: inches of a free part, its last subfigure."""
    columns = max(len(row.images) for row in rows)
    words = [max((text.count("\n") + 1 for text in some), default=0) for row in rows for some in (row.above, row.below)]
    shape = rows[0].images[0].shape
    height = len(rows) * (side * shape[0] / shape[1] + 0.04) + 0.13 * sum(words) + 0.06 * sum(map(bool, words))
    height += 0.3 + 0.17 * heading.count("\n")
    with journal():
        figure = new_figure(max(side * columns + (0.9 if turn else 0.6), least), height + below)
        upper = figure.subfigures(2, 1, height_ratios=[height, below])[0] if below else figure
        draw_rows(upper, rows, turn=turn)
        upper.suptitle(heading)
    return figure


def tiles(
    images: np.ndarray | Sequence[np.ndarray], limits: Limits | list[Limits], above: Sequence[str],
    below: Sequence[str] = (), *, cmap: str = "gray", most: int = COLUMNS,
) -> list[Row]:  # fmt: skip
    """Pictures as rows of at most so many, on one scale or each on its own."""
    columns = math.ceil(len(images) / math.ceil(len(images) / most))
    cut = [slice(i, i + columns) for i in range(0, len(images), columns)]
    spans = [limits if isinstance(limits, tuple) else limits[here] for here in cut]
    return [Row("", images[here], span, above[here], below[here], cmap) for here, span in zip(cut, spans, strict=True)]


def grey_of(images: np.ndarray) -> np.ndarray:
    """Pictures as uint8, all on one scale."""
    return (255 * scaled(images, robust_limits(images, LIMITS))).round().astype(np.uint8)


@builder("reconstruction", "input", "reconstruction")
def reconstruction_sheet(found: xr.Dataset, *, threshold: float | None = None, most: int = 8) -> Any:
    """Inputs, reconstructions and residuals (reconstruction - input) of `reconstruct` or `reconstruct_store`.

    All share one scale, the residuals one of the same width centred at 0; PSNR and SSIM under each. threshold: instead
    of the residuals both as black and white, at or above it, in the units of the pictures (of colours the mean of their
    channels), and the share of pixels on which the two differ. Raises NoInputError where there is no example,
    UsageError for a threshold that is no number.
    """
    dim = "example" if "example" in found.dims else n.SAMPLE
    if "input" not in found or not found.sizes.get(dim):
        raise NoInputError("no example was kept; reconstruct with examples of 1 or more.")
    found = found.isel({dim: slice(most)})
    ones = [found.isel({dim: i}) for i in range(found.sizes[dim])]
    original, recon = (pictures(found[name]) for name in ("input", "reconstruction"))
    limits, grey = robust_limits(np.stack([original, recon]), LIMITS), (-1,) if original.ndim == 4 else ()
    if dim == "example":
        names = [where_of(one, "example_") for one in ones]
    else:
        names = [where_of(one.drop_vars({*one.coords} - {*n.SCAN_DIMS})) or f"sample {one[dim]}" for one in ones]
    rows = [Row("input", original, limits, names), Row("reconstruction", recon, limits)]
    heading = "reconstructions"
    if threshold is None:
        half = (limits[1] - limits[0]) / 2
        below = ["\n".join(numbers_of(one)).removeprefix("PSNR ") for one in ones]
        rows.append(Row("residual", (recon - original).mean(grey), (-half, half), (), below, DIVERGING))
    else:
        if not np.isfinite(threshold):
            raise UsageError(f"the threshold is {threshold}; give a number in the units of the pictures.")
        masks = [(images.mean(grey) >= threshold).astype("f4") for images in (original, recon)]
        both = [(0.0, 1.0)] * len(ones)
        rows += [Row(f"{row.name}\n≥ {threshold:g}", mask, both) for row, mask in zip(rows, masks, strict=True)]
        rows[-1].below = [f"{share:.1%} differ" for share in (masks[0] != masks[1]).mean((1, 2))]
        heading = "reconstructions, black and white"
    gap = "\n" if len(ones) < 4 else " "
    return sheet(rows, f"{heading}{gap}({units_of(found['input'])})")


def where_of(one: xr.Dataset, before: str = "", after: str = "", skipped: Collection[str] = (), most: int = 17) -> str:
    """Where a sample comes from: its file, else a line for each coordinate whose name begins and ends so."""
    if f"{before}file{after}" in one.coords:
        return brief(one[f"{before}file{after}"].item(), most)
    names = [name for name in map(str, one.coords) if name.startswith(before) and name.endswith(after)]
    return "\n".join(
        brief(
            f"{name.removeprefix(before).removesuffix(after)} = {value_text(one[name].item(), one[name].attrs)}", most
        )
        for name in names[::-1]
        if one[name].ndim == 0 and name not in skipped
    )


def numbers_of(one: xr.Dataset) -> list[str]:
    """How good a reconstruction is, as far as it is known."""
    told = [f"PSNR {float(one['example_psnr']):.1f} dB"] if "example_psnr" in one else []
    return told + ([f"SSIM {float(one['example_ssim']):.2f}"] if "example_ssim" in one else [])


@builder("progress", "input", "reconstruction", "prior", n.EPOCH)
def progress_sheet(found: xr.Dataset, *, most: int = 8) -> Any:
    """Samples decoded as training went on: inputs on top, below them reconstructions and prior draws by epoch.

    At most `most` epochs, spread over the training; one grey scale per row.
    """
    found = found.rename({dim: str(dim).removeprefix("sheet_") for dim in found.dims})
    shown = found.isel({n.EPOCH: _spread(found.sizes[n.EPOCH], most)})
    parts = [("input", shown["input"])]
    for name in ("reconstruction", "prior"):
        parts += [(f"{name}\nepoch {int(part[n.EPOCH])}", part) for part in shown[name]]
    images = [(name, pictures(part)) for name, part in parts]
    return sheet([Row(name, some, [robust_limits(some, LIMITS)] * len(some)) for name, some in images], "", turn=True)


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many of the numbers below `count`, evenly spread, the ends among them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def _distance_words(found: xr.Dataset) -> str:
    """A line of a heading: how far the decoded latents lie from the encoded samples."""
    usual = found.attrs.get("usual_distance", 0.0)
    if not usual > 0:
        return ""
    ratio = float(found["sample_distance"].median()) / usual
    return f"\ndistance to the nearest sample: {ratio:.2g} times that of neighbouring samples (median)"


@builder("draws", "decoded", "latents", n.SAMPLE)
def sample_sheet(found: xr.Dataset, *, most: int = 64) -> Any:
    """The decoded draws of `sample_prior`, below each the nearest encoded sample, all on one grey scale."""
    images = pictures(found["decoded"])[:most]
    if not len(images):
        raise NoInputError("there are no draws to show.")
    source = "the prior" if found.attrs.get("source") == "prior" else "the fitted distribution"
    cut = f", {len(images)} of {found.sizes[n.SAMPLE]}" if len(images) < found.sizes[n.SAMPLE] else ""
    heading = f"draws from {source}{cut} ({units_of(found['decoded'])})"
    numbers = [*map(str, found[n.SAMPLE].values[:most])]
    if "nearest" not in found:
        return sheet(tiles(images, robust_limits(images, LIMITS), numbers), heading)
    nearest = pictures(found["nearest"])[:most]
    limits = robust_limits(np.concatenate([images, nearest]), LIMITS)
    rows = []
    pairs = zip(tiles(images, limits, numbers), tiles(nearest, limits, [""] * len(nearest)), strict=True)
    for drawn, real in pairs:
        drawn.name, real.name = "draw", "nearest\nsample"
        rows += [drawn, real]
    return sheet(rows, f"{heading}{_distance_words(found)}")


@builder("interpolation", "decoded", "step", "input", "end", "t")
def interpolation_strip(found: xr.Dataset, *, most: int = 9) -> Any:
    """The way of `interpolate`: input, decoded steps, input; the samples they lead from and to, on one grey scale.

    At most `most` steps, evenly spread, the ends among them.
    """
    picked = _spread(found.sizes["step"], most)
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
    rows = [
        Row(f"latent {int(dim)}", row, limits, (), [number(float(value)) for value in values])
        for dim, row, values in zip(found["latent_dim"].values, images, found["value"].values, strict=True)
    ]
    base = text(brief(found.attrs["base"], 70))
    heading = f"traversal from {base}\n({units_of(found['decoded'])})"
    return sheet(rows, heading, side=max((WIDTH - 0.6) / (images.shape[1] + 0.5), 0.62))


@builder("manifold", "decoded", "row", "column")
def manifold_sheet(found: xr.Dataset) -> Any:
    """The pictures of `manifold` as one mosaic on axes of the two dimensions, on one colour scale.

    The value on an axis is that of the middle of its picture; the vertical dimension rises upwards.
    """
    images = stacked(found["decoded"], ("row", "column"))
    limits = robust_limits(images, LIMITS)
    rows, columns, tall, wide = images.shape[:4]
    mosaic = mosaic_of(images[::-1])
    with journal():
        figure = new_figure(WIDTH * 0.8 + 1.55, min(WIDTH * 0.8 * tall * rows / (wide * columns), 2 * WIDTH) + 0.75)
        axes = figure.subplots()
        shown = scaled(mosaic, limits) if mosaic.ndim == 3 else mosaic
        mesh = axes.imshow(
            shown, cmap="gray", vmin=limits[0], vmax=limits[1], extent=(0, columns * wide, 0, rows * tall)
        )
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
        axes.set_title(f"others: {text(brief(found.attrs['base'], 60))}\n({units_of(found['decoded'])})")
    return figure


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

    Beneath, the mean latents as a heat map centred at 0; of spatial latents the mean over positions.
    """
    images, heat = stacked(found["decoded"], ("class",)), channel_means(found["latents"])
    names = [brief(name, 18) for name in found["class"].values]
    above = [f"{name}\nn = {int(count)}" for name, count in zip(names, found["n"].values, strict=True)]
    means = stacked(found["decoded_mean"], ("class",))
    limits = robust_limits(np.stack([images, means]), LIMITS)
    places = [where_of(found.isel({"class": i}), after="_of_sample") for i in range(len(names))]
    rows = []
    for typical, mean in zip(tiles(images, limits, above), tiles(means, limits, places), strict=True):
        typical.name, mean.name = "typical\nsample", "mean"
        rows += [typical, mean]
    heading = f"classes of {text(found.attrs['by'])}\n({units_of(found['decoded'])})"
    figure = sheet(rows, heading, below=0.17 * len(names) + 0.9, least=4.0)
    with journal():
        dims = [str(i) for i in range(heat.shape[1])]
        draw(figure.subfigs[1].subplots(), centred(heat, names, dims, "", clabel="mean latent", frame_height=600))
    return figure


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
    spans = [robust_limits(image, LIMITS, symmetric=signed) for image in images]
    part = "" if len(images) == len(names) else f", {len(images)} of {len(names)}"
    return sheet(tiles(images, spans, names[:most], cmap=DIVERGING if signed else "gray"), f"component images{part}")


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
