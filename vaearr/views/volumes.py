"""Volumes as three orthogonal slices, in coordinates, with a cross-hair and the sides of the patient where known.

In RAS+ orientation x runs to the patient's right, y to the front, z to the top of the head; the patient's left is on
the left (the neurological convention).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError, SchemaError, UsageError
from vaearr.schema.grid import edges
from vaearr.views.common import DIVERGING, is_regular, label, robust_limits, text, unit, value_text
from vaearr.views.kinds import builder
from vaearr.views.paper import SMALL, WIDTH, colormap, journal, new_figure

AXES = (n.Z, n.Y, n.X)
PLANES = {"axial": (n.Z, n.Y, n.X), "coronal": (n.Y, n.Z, n.X), "sagittal": (n.X, n.Z, n.Y)}  # across, up, along
SIDES = {n.X: ("L", "R"), n.Y: ("P", "A"), n.Z: ("I", "S")}  # at the lower and the upper end of an axis
CROSS = "#ffb000"
LIMITS = (0.5, 99.5)  # percentiles between which grey runs


def is_volume(da: xr.DataArray) -> bool:
    """Whether samples of an array have the dims z, y, x."""
    return set(AXES) <= set(map(str, da.dims))


def as_volume(da: xr.DataArray) -> xr.DataArray:
    """One volume (z, y, x) in memory as float32, all coordinates rising; of several channels the first.

    Raises SchemaError for other dims, UsageError for coordinates with uneven steps.
    """
    if n.CHANNEL in da.dims:
        da = da.isel({n.CHANNEL: 0}, drop=True)
    if set(map(str, da.dims)) != set(AXES) or 0 in da.shape:
        raise SchemaError(f"{da.name!r} has dims {da.dims}; expected one volume over z, y and x, so select a sample.")
    for dim in AXES:
        if dim not in da.coords:
            da = da.assign_coords({dim: (dim, np.arange(da.sizes[dim], dtype="f8"), {"units": "px"})})
        if not is_regular(da[dim].values):
            raise UsageError(f"the coordinate {dim!r} has uneven steps; slices are drawn on an even grid.")
    return da.transpose(*AXES).sortby(list(AXES)).astype("f4").reset_coords(drop=True).load()


def place_of(volume: xr.DataArray, position: Mapping[str, float] | None) -> dict[str, int]:
    """Voxel numbers of a position in coordinate units, the middle where a dim is not named. Raises UsageError."""
    place = {dim: volume.sizes[dim] // 2 for dim in AXES}
    for dim, wanted in (position or {}).items():
        if dim not in AXES:
            raise UsageError(f"the position names {dim!r}; a volume has z, y and x.")
        values, borders = volume[dim].values, edges(volume[dim].values)
        if not borders[0] <= wanted <= borders[-1]:
            span = f"{values[0]:g} to {values[-1]:g} {unit(dict(volume[dim].attrs))}".rstrip()
            raise UsageError(f"{dim} = {wanted:g} lies outside the volume, which spans {span}.")
        place[dim] = int(np.argmin(abs(values - wanted)))
    return place


def is_ras(volume: xr.DataArray) -> bool:
    """Whether the sides of the patient are known."""
    return volume.attrs.get("orientation") == "RAS+"


@builder("volume", "array", n.Z, n.Y, n.X)
def volume_slices(
    volume: xr.DataArray,
    position: Mapping[str, float] | None = None,
) -> Any:
    """Axial, coronal and sagittal slice of a volume (z, y, x) through one position, one scale, true proportions.

    position: in coordinate units, such as `{"z": 12.0}`; the middle of dims that are not named. Grey runs from the
    0.5 % to the 99.5 % percentile; the other two slices are lines. Raises SchemaError for another array, UsageError
    for a position outside.
    """
    one = as_volume(volume)
    place = place_of(one, position)
    low, high = robust_limits(one.values, LIMITS)
    with journal():
        widths = [_span(one, along) for _, _, along in PLANES.values()]
        figure = new_figure(WIDTH, _row_height(one, widths) + 0.75)
        row = figure.subplots(1, 3, width_ratios=widths)
        for ax, plane in zip(row, PLANES, strict=True):
            mesh = draw_slice(ax, one, plane, place, (low, high))
            across = PLANES[plane][0]
            ax.set_title(f"{plane}, {across} = {value_text(float(one[across][place[across]]), one[across].attrs)}")
        figure.colorbar(mesh, ax=list(row), fraction=0.03, pad=0.01, label=text(label(one)))
    return figure


def draw_slice(
    ax: Any,
    volume: xr.DataArray,
    plane: str,
    place: Mapping[str, int],
    limits: tuple[float, float],
    *,
    cross: bool = True,
    diverging: bool = False,
    axes: bool = True,
) -> Any:
    """One slice of a volume as `as_volume` gives it; returns the image."""
    across, up, along = PLANES[plane]
    image = volume.isel({across: place[across]}).transpose(up, along)
    x, y = edges(image[along].values), edges(image[up].values)
    shown = ax.imshow(
        image.values,
        cmap=colormap(DIVERGING if diverging else "gray"),
        vmin=limits[0],
        vmax=limits[1],
        extent=(x[0], x[-1], y[0], y[-1]),
        origin="lower",
        aspect="equal",
    )
    if cross:
        for line, dim in ((ax.axvline, along), (ax.axhline, up)):
            line(float(volume[dim][place[dim]]), color=CROSS, lw=0.6, alpha=0.9)
    if is_ras(volume):
        _mark(ax, along, up)
    if axes:
        ax.set(xlabel=_axis_label(volume, along), ylabel=_axis_label(volume, up))
    else:
        ax.set(xticks=[], yticks=[])
    return shown


def _axis_label(volume: xr.DataArray, dim: str) -> str:
    units = unit(dict(volume[dim].attrs))
    return f"{dim} ({units})" if units else dim


def _mark(ax: Any, along: str, up: str) -> None:
    """Sides of the patient, within the picture."""
    for letter, x, y in (
        (SIDES[along][0], 0.03, 0.5),
        (SIDES[along][1], 0.97, 0.5),
        (SIDES[up][0], 0.5, 0.03),
        (SIDES[up][1], 0.5, 0.97),
    ):
        ax.text(
            x, y, letter, transform=ax.transAxes, color="white", fontsize=8, fontweight="bold",
            ha={0.03: "left", 0.97: "right"}.get(x, "center"), va={0.03: "bottom", 0.97: "top"}.get(y, "center"),
            bbox={"facecolor": "black", "alpha": 0.45, "pad": 1, "linewidth": 0},
        )  # fmt: skip


def _span(volume: xr.DataArray, dim: str) -> float:
    borders = edges(volume[dim].values)
    return float(borders[-1] - borders[0])


def _row_height(volume: xr.DataArray, widths: list[float]) -> float:
    """Inches that a row of the three planes needs, drawn at one scale over the width of a page."""
    tallest = max(_span(volume, up) for _, up, _ in PLANES.values())
    return float(np.clip((WIDTH - 1.6) * tallest / sum(widths), 0.8, 8.0))


@builder("volumes")
def volume_sheet(
    found: xr.Dataset,
    example: int = 0,
    position: Mapping[str, float] | None = None,
) -> Any:
    """Original, reconstruction and residual of a volume, each as three slices through one position.

    found: of `reconstruct_store` or `reconstruct_files`. Original and reconstruction share one scale, the residual has
    one of half its width to both sides of 0. Raises NoInputError where there is no such example, SchemaError where the
    samples are no volumes.
    """
    pair, heading = example_volumes(found, example)
    place = place_of(pair["original"], position)
    low, high = robust_limits(np.stack([pair["original"].values, pair["reconstruction"].values]), LIMITS)
    half = (high - low) / 2
    with journal():
        widths = [_span(pair["original"], along) for _, _, along in PLANES.values()]
        figure = new_figure(WIDTH, 3 * _row_height(pair["original"], widths) + 0.8)
        axes = figure.subplots(3, 3, width_ratios=widths, squeeze=False)
        for row, (name, volume) in zip(axes, pair.items(), strict=True):
            span = (-half, half) if name == "residual" else (low, high)
            for ax, plane in zip(row, PLANES, strict=True):
                mesh = draw_slice(
                    ax, volume, plane, place, span, cross=name == "original",
                    diverging=name == "residual", axes=False,
                )  # fmt: skip
            row[0].set_ylabel(name)
            figure.colorbar(mesh, ax=list(row), fraction=0.03, pad=0.01).ax.tick_params(labelsize=SMALL)
        for ax, plane in zip(axes[0], PLANES, strict=True):
            across = PLANES[plane][0]
            one = pair["original"][across]
            ax.set_title(f"{plane}, {across} = {value_text(float(one[place[across]]), one.attrs)}", fontsize=8)
        figure.suptitle(heading)
    return figure


def example_volumes(found: xr.Dataset, example: int) -> tuple[dict[str, xr.DataArray], str]:
    """Original, reconstruction and residual (reconstruction - original) of an example, and words for it."""
    count = found.sizes.get("example", 0)
    if "input" not in found or not 0 <= example < count:
        raise NoInputError(f"there is no example {example}; {count} were kept, set by 'examples'.")
    one = found.isel(example=example)
    original, recon = (as_volume(one[name]) for name in ("input", "reconstruction"))
    residual = (recon - original).assign_attrs({**original.attrs, "long_name": "residual"})
    told = [
        f"{name.removeprefix('example_')} {value_text(one[name].item(), one[name].attrs)}"
        for name in map(str, one.coords)
        if name.startswith("example_") and one[name].ndim == 0
    ]
    told += [
        f"{words} {float(one[name]):.{digits}f}{after}"
        for name, words, digits, after in (("example_psnr", "PSNR", 1, " dB"), ("example_ssim", "SSIM", 3, ""))
        if name in one
    ]
    return {"original": original, "reconstruction": recon, "residual": residual}, text(", ".join(told))


def volume_page(found: xr.Dataset, *, most: int = 4) -> str:
    """An HTML page that needs nothing else, with the first examples as volumes to slide through."""
    from vaearr.views.page import Section, page
    from vaearr.views.volume_viewer import volume_viewer

    count = min(most, found.sizes.get("example", 0))
    if not count:
        raise NoInputError("no example was kept; reconstruct with examples of 1 or more.")
    intro = Section("about", "Volumes")
    intro.say(
        "Each sample as three slices. The sliders move the slices; the list changes between original, reconstruction "
        "and residual (reconstruction - original)."
    )
    sections = []
    for i in range(count):
        volumes, heading = example_volumes(found, i)
        section = Section(f"example-{i}", heading or f"example {i}")
        section.figure(volume_viewer(volumes, diverging=("residual",)))
        sections.append(section)
    return page("Volumes and their reconstructions", intro, sections)
