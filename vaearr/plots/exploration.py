"""Sheets of what latents decode to: class prototypes, traversals of single dimensions, planes of two."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import SchemaError
from vaearr.plots.common import DIVERGING, brief, number, robust_limits, text
from vaearr.plots.decoded import FRAME_SIDE, LIMITS, pictures, show_picture
from vaearr.plots.paper import SMALL, WIDTH, journal, new_figure, panels

SIDE = 0.62  # inches: the least side of a picture in a row
MOST_TICKS = 8


def stacked(da: xr.DataArray, lead: tuple[str, ...]) -> np.ndarray:
    """Pictures over `lead` dims, `(*lead, H, W[, 3])`. Raises SchemaError for other dims."""
    if tuple(map(str, da.dims[: len(lead)])) != lead:
        raise SchemaError(f"{da.name!r} has dims {da.dims}; expected {lead} and the dims of a sample.")
    flat = da.stack(flat=lead, create_index=False).transpose("flat", ...)
    images = pictures(flat)
    return images.reshape(*da.shape[: len(lead)], *images.shape[1:])


def units_of(da: xr.DataArray) -> str:
    """Units of decoded pictures in words, and what part of a volume they are."""
    words = str(da.attrs.get("units", "1")) if da.attrs.get("scale") == "stored" else "preprocessed units"
    return (
        f"{'middle slices, ' if n.Z in da.dims or n.DZ in da.dims else ''}{'stored units' if words == '1' else words}"
    )


def traversal_sheet(found: xr.Dataset) -> Any:
    """The pictures of `traverse`, a row for each dimension with its values underneath, all on one colour scale."""
    images = stacked(found["decoded"], ("latent_dim", "step"))
    rows, steps = images.shape[:2]
    limits = robust_limits(images, LIMITS)
    side = max(WIDTH / (steps + 1.5), SIDE)
    height = side * images.shape[2] / images.shape[3] + 0.17
    with journal():
        figure = new_figure(max(side * steps + 1.0, 2.8), height * rows + 0.6)
        axes = figure.subplots(rows, steps, squeeze=False)
        for i in range(rows):
            for j in range(steps):
                mesh = show_picture(axes[i, j], images[i, j], limits)
                axes[i, j].set_xlabel(number(float(found["value"][i, j])), fontsize=SMALL, labelpad=1)
            axes[i, 0].set_ylabel(f"latent {int(found['latent_dim'][i])}", fontsize=SMALL)
        if images.ndim == 4:
            figure.colorbar(mesh, ax=list(axes.ravel()), fraction=0.02, pad=0.01).ax.tick_params(labelsize=SMALL)
        about = f"from {brief(found.attrs['base'], 40)} ({units_of(found['decoded'])})"
        figure.suptitle(text(f"traversal {about}" if steps >= 5 else f"traversal\n{about}"))
    return figure


def traversal_frames(found: xr.Dataset) -> list[np.ndarray]:
    """The steps of `traverse` as frames of an animation, all dimensions moving at once side by side, in rows of 8.

    uint8 `(H, W)` or `(H, W, 3)`, one scale for all.
    """
    images = stacked(found["decoded"], ("latent_dim", "step"))
    low, high = robust_limits(images, LIMITS)
    grey = (255 * np.clip((images - low) / (high - low), 0, 1)).round().astype(np.uint8)
    columns = min(len(grey), 8)
    spare = -len(grey) % columns
    grey = np.concatenate([grey, np.full((spare, *grey.shape[1:]), 255, np.uint8)])
    rows = grey.reshape(-1, columns, *grey.shape[1:])
    factor = max(1, math.ceil(FRAME_SIDE / max(rows.shape[3], rows.shape[4] * columns)))
    frames = []
    for step in range(rows.shape[2]):
        frame = np.concatenate([np.concatenate(list(line), axis=1) for line in rows[:, :, step]], axis=0)
        frames.append(frame.repeat(factor, axis=0).repeat(factor, axis=1))
    return frames


def manifold_sheet(found: xr.Dataset) -> Any:
    """The pictures of `manifold` as one mosaic on axes of the two dimensions, on one colour scale.

    The value on an axis is that of the middle of its picture; the vertical dimension rises upwards.
    """
    images = stacked(found["decoded"], ("row", "column"))
    low, high = robust_limits(images, LIMITS)
    rows, columns, tall, wide = images.shape[:4]
    mosaic = np.concatenate([np.concatenate(list(line), axis=1) for line in images[::-1]], axis=0)
    across, up = found["column"].values, found["row"].values
    with journal():
        beside = 1.55 if mosaic.ndim == 2 else 0.95
        figure = new_figure(WIDTH * 0.8 + beside, min(WIDTH * 0.8 * tall * rows / (wide * columns), 2 * WIDTH) + 0.75)
        axes = figure.subplots()
        shown = np.clip((mosaic - low) / (high - low), 0, 1) if mosaic.ndim == 3 else mosaic
        mesh = axes.imshow(shown, cmap="gray", vmin=low, vmax=high, extent=(0, columns * wide, 0, rows * tall))
        for axis, values, side in ((axes.xaxis, across, wide), (axes.yaxis, up, tall)):
            kept = np.arange(0, len(values), math.ceil(len(values) / MOST_TICKS))
            axis.set_ticks((kept + 0.5) * side, [number(values[i]) for i in kept])
        for count, side, line in ((columns, wide, axes.axvline), (rows, tall, axes.axhline)):
            for i in range(1, count):
                line(i * side, color="white", lw=0.4)
        axes.set(xlabel=text(found["column"].attrs["long_name"]), ylabel=text(found["row"].attrs["long_name"]))
        if mosaic.ndim == 2:
            figure.colorbar(mesh, ax=axes, fraction=0.04, pad=0.02).ax.tick_params(labelsize=SMALL)
        axes.set_title(text(f"others: {brief(found.attrs['base'], 30)} ({units_of(found['decoded'])})"))
    return figure


def class_heat(found: xr.Dataset) -> np.ndarray:
    """Latents of prototypes as `(class, latent)`; of spatial ones the mean over the positions that are known."""
    values = found["latents"].values.reshape(*found["latents"].shape[:2], -1)
    known = np.isfinite(values)
    return np.asarray(np.where(known, values, 0).sum(-1) / np.maximum(known.sum(-1), 1))


def prototype_sheet(found: xr.Dataset, *, columns: int = 8) -> Any:
    """The decoded prototypes on one colour scale, and their latents beneath as a heat map centred at 0.

    Of spatial latents the heat map shows the mean over positions.
    """
    images = stacked(found["decoded"], ("class",))
    limits = robust_limits(images, LIMITS)
    names = [brief(name, 18) for name in found["class"].values]
    heat = class_heat(found)
    lines = math.ceil(len(images) / min(columns, len(images)))
    columns = math.ceil(len(images) / lines)
    side = WIDTH / 8.6
    top = lines * (side * images.shape[1] / images.shape[2] + 0.35) + 0.3
    bottom = 0.17 * len(names) + 0.9
    reach = float(np.abs(heat).max()) or 1.0
    with journal():
        figure = new_figure(max(side * columns + 0.6, 4.0), top + bottom)
        above, below = figure.subfigures(2, 1, height_ratios=[top, bottom])
        axes = panels(above, len(images), columns)
        for ax, image, name, count in zip(axes, images, names, found["n"].values, strict=True):
            mesh = show_picture(ax, image, limits)
            ax.set_title(f"{name}\nn = {int(count)}", fontsize=SMALL, pad=2)
        if images.ndim == 3:
            above.colorbar(mesh, ax=list(axes), fraction=0.02, pad=0.01).ax.tick_params(labelsize=SMALL)
        above.suptitle(text(f"means by {found.attrs['by']}\n({units_of(found['decoded'])})"))
        table = below.subplots()
        drawn = table.imshow(heat, cmap=DIVERGING, vmin=-reach, vmax=reach, aspect="auto")
        table.set_yticks(range(len(names)), names, fontsize=SMALL)
        table.set_xlabel("latent dimension")
        table.xaxis.get_major_locator().set_params(integer=True)
        below.colorbar(drawn, ax=table, fraction=0.03, pad=0.01, label="mean latent").ax.tick_params(labelsize=SMALL)
    return figure
