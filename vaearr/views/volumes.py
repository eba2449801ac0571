"""Volumes as three orthogonal slices, in coordinates, with a cross-hair and the sides of the
patient where known.

In RAS+ orientation x runs to the patient's right, y to the front, z to the top of the head; the
patient's left is on the left (the neurological convention).
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError, SchemaError, UsageError
from vaearr.schema.grid import edges
from vaearr.views.colors import colors_of
from vaearr.views.common import (
    DIVERGING,
    NAN_COLOR,
    holoviews,
    is_regular,
    label,
    robust_limits,
    text,
    title,
    value_text,
)
from vaearr.views.kinds import builder
from vaearr.views.page import LEVELS, UNPACK, Section, packed, page
from vaearr.views.pictures import LIMITS, numbers_of, where_of

AXES = (n.Z, n.Y, n.X)
PLANES = {
    "axial": (n.Z, n.Y, n.X),
    "coronal": (n.Y, n.Z, n.X),
    "sagittal": (n.X, n.Z, n.Y),
}  # across, up, along
SIDES = {
    n.X: ("L", "R"),
    n.Y: ("P", "A"),
    n.Z: ("I", "S"),
}  # at the lower and the upper end of an axis
CROSS = "#ffb000"
PAPER_FRAME = 250  # pixels of the longest side of a slice
FRAME = 360  # pixels of the longest side of a plane in a page

_VIEWER = f"""
<style>
.volume figure {{ display: inline-block; margin: 8px 12px 0 0; position: relative; }}
.volume canvas {{ display: block; cursor: crosshair; }}
.volume input {{ display: block; width: 100%; }}
</style>
<script>
{UNPACK}
document.querySelectorAll(".volume").forEach(async (box) => {{
  const about = JSON.parse(box.querySelector("script").textContent), [select, said] = box.querySelectorAll("select, p");
  const volumes = await Promise.all(about.volumes.map((one) => unpack(one.data)));
  const strides = [about.shape[1] * about.shape[2], about.shape[2], 1];
  const figures = [...box.querySelectorAll("figure")], sliders = figures.map((one) => one.querySelector("input"));
  const draw = () => {{
    const one = about.volumes[select.value], codes = volumes[select.value];
    const at = sliders.map((slider) => Number(slider.value));
    figures.forEach((figure, i) => {{
      const [across, up, along] = about.planes[i];
      const canvas = figure.querySelector("canvas"), pen = canvas.getContext("2d");
      const [rows, columns] = [about.shape[up], about.shape[along]], image = pen.createImageData(columns, rows);
      for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {{
        const voxel = at[across] * strides[across] + (rows - 1 - r) * strides[up] + c * strides[along];
        image.data.set(one.palette[codes[voxel]], 4 * (r * columns + c));
      }}
      const voxels = new OffscreenCanvas(columns, rows), [wide, high] = [canvas.width / columns, canvas.height / rows];
      voxels.getContext("2d").putImageData(image, 0, 0);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(voxels, 0, 0, canvas.width, canvas.height);
      pen.fillStyle = "{CROSS}";
      pen.fillRect((at[along] + 0.5) * wide, 0, 1, canvas.height);
      pen.fillRect(0, (rows - 0.5 - at[up]) * high, canvas.width, 1);
      canvas.onclick = (event) => {{
        sliders[along].value = Math.floor(event.offsetX / wide);
        sliders[up].value = rows - 1 - Math.floor(event.offsetY / high);
        draw();
      }};
    }});
    const code = codes[at.reduce((sum, place, axis) => sum + place * strides[axis], 0)];
    const value = code === 255 ? "none" : (one.low + (code * (one.high - one.low)) / {LEVELS}).toPrecision(4);
    const span = `colours from ${{one.low.toPrecision(3)}} to ${{one.high.toPrecision(3)}}`;
    said.textContent = `${{at.map((place, axis) => about.places[axis][place]).join(", ")}}: ${{value}}; ${{span}}`;
  }};
  [select, ...sliders].forEach((input) => {{ input.oninput = draw; }});
  draw();
}});
</script>
"""


def is_volume(da: xr.DataArray) -> bool:
    """Whether samples of an array have the dims z, y, x."""
    return set(AXES) <= set(map(str, da.dims))


def as_volume(da: xr.DataArray) -> xr.DataArray:
    """One volume (z, y, x) in memory as float32, all coordinates rising; of several channels the
    first.

    Raises SchemaError for other dims, UsageError for coordinates with uneven steps.
    """
    if n.CHANNEL in da.dims:
        da = da.isel({n.CHANNEL: 0}, drop=True)
    if set(map(str, da.dims)) != set(AXES) or 0 in da.shape:
        raise SchemaError(
            f"{da.name!r} has dims {da.dims}; expected one volume over z, y and x, so select a sample."
        )
    for dim in AXES:
        if dim not in da.coords:
            da = da.assign_coords(
                {dim: (dim, np.arange(da.sizes[dim], dtype="f8"), {"units": "px"})}
            )
        if not is_regular(da[dim].values):
            raise UsageError(
                f"the coordinate {dim!r} has uneven steps; slices are drawn on an even grid."
            )
    return da.transpose(*AXES).sortby(list(AXES)).astype("f4").reset_coords(drop=True).load()


def span_of(volume: xr.DataArray, dim: str) -> float:
    """Length of a volume along a dim."""
    return float(np.ptp(edges(volume[dim].values)))


@builder("volume", "array", n.Z, n.Y, n.X)
@builder("volumes")
def volume_slices(
    found: xr.DataArray | xr.Dataset, example: int = 0, position: Mapping[str, float] | None = None
) -> Any:
    """Axial, coronal and sagittal slice through one position, true proportions: of a volume (z, y,
    x) on its axes.

    Of the result of `run.reconstruct`: original, reconstruction and residual of an example, one
    below the other. Grey runs from the 0.5 % to the 99.5 % percentile of all, the residual has a
    scale half as wide to both sides of 0; the other two slices are lines. position: in coordinate
    units, such as `{"z": 12.0}`; the middle of dims that are not named. Raises SchemaError for
    other arrays, NoInputError where there is no such example.
    """
    if isinstance(found, xr.DataArray):
        volumes, heading = {text(label(found)): as_volume(found)}, ""
    else:
        volumes, heading = example_volumes(found, example)
    first = next(iter(volumes.values()))
    wanted = {dim: float(first[dim].mean()) for dim in AXES} | dict(position or {})
    at = {dim: float(first[dim].sel({dim: wanted[dim]}, method="nearest")) for dim in AXES}
    scale = PAPER_FRAME / max(span_of(first, dim) for dim in AXES)
    slices = []
    for name, (volume, limits, cmap) in scales_of(volumes).items():
        for plane, axes in PLANES.items():
            own = {
                "cmap": cmap,
                "clim": limits,
                "colorbar": plane == "sagittal",
                "clabel": text(name),
            }
            slices.append(_slice(volume, plane, axes, at, scale).opts("Image", **own))
    return holoviews().Layout(slices).cols(3).opts(title=title(heading), shared_axes=False)


def _slice(
    volume: xr.DataArray, plane: str, axes: tuple[str, ...], at: dict[str, float], scale: float
) -> Any:
    """One plane of a volume with the lines of the other two, and the sides of the patient where
    they are known.
    """
    hv, (across, up, along) = holoviews(), axes
    image = volume.sel({across: at[across]}, method="nearest").transpose(up, along)
    where = value_text(at[across], volume[across].attrs)
    shown = hv.Image((image[along].values, image[up].values, image.values), [along, up], "value").opts(
        xlabel=_axis_label(volume, along), ylabel=_axis_label(volume, up), title=f"{plane}, {across} = {where}",
        frame_width=round(scale * span_of(volume, along)), frame_height=round(scale * span_of(volume, up)),
        data_aspect=1,
    )  # fmt: skip
    for line in (hv.VLine(at[along]), hv.HLine(at[up])):
        shown = shown * line.opts(color=CROSS, line_width=1)
    return shown


def _axis_label(volume: xr.DataArray, dim: str) -> str:
    """Name and unit of an axis, and the sides of the patient at its ends where they are known."""
    name = label(volume[dim].assign_attrs(long_name=dim))
    return (
        f"{name}, {' to '.join(SIDES[dim])}" if volume.attrs.get("orientation") == "RAS+" else name
    )


def scales_of(
    volumes: Mapping[str, xr.DataArray],
) -> dict[str, tuple[xr.DataArray, tuple[float, float], str]]:
    """Each volume with its limits and colours: grey on one scale, the residual half as wide to both
    sides of 0.
    """
    grey = robust_limits(
        np.stack([one.values for name, one in volumes.items() if name != "residual"]), LIMITS
    )
    half = (grey[1] - grey[0]) / 2
    return {
        name: (one, (-half, half), DIVERGING) if name == "residual" else (one, grey, "gray")
        for name, one in volumes.items()
    }


def example_volumes(found: xr.Dataset, example: int) -> tuple[dict[str, xr.DataArray], str]:
    """Original, reconstruction and residual (reconstruction - original) of an example, and words
    for it.
    """
    count = found.sizes.get("example", 0)
    if "input" not in found or not 0 <= example < count:
        raise NoInputError(f"there is no example {example}; {count} were kept, set by 'examples'.")
    one = found.isel(example=example)
    original, recon = (as_volume(one[name]) for name in ("input", "reconstruction"))
    told = [*where_of(one, "example_", most=80).splitlines(), *numbers_of(one)]
    residual = (recon - original).assign_attrs(original.attrs)
    return {"original": original, "reconstruction": recon, "residual": residual}, text(
        ", ".join(told)
    )


def volume_page(found: xr.Dataset, *, most: int = 4) -> str:
    """An HTML page that needs nothing else, with the first examples as volumes to slide through.

    A volume travels once, deflated in 127 steps between its limits; the browser unpacks it and cuts
    the slices.
    """
    intro, sections = Section("about", "Volumes"), []
    intro.say(
        "Each sample as three slices. The sliders, or a click on a slice, move the others; the list changes between "
        "original, reconstruction and residual (reconstruction - original)."
    )
    for i in range(min(most, found.sizes["example"])):
        volumes, heading = example_volumes(found, i)
        section = Section(f"example-{i}", heading or f"example {i}")
        section.blocks.append(_viewer(volumes))
        sections.append(section)
    sections[-1].blocks.append(_VIEWER)
    return page("Volumes and their reconstructions", intro, sections)


def _viewer(volumes: Mapping[str, xr.DataArray]) -> str:
    """A list of volumes, three planes with a slider each, and what the browser draws them from."""
    first = next(iter(volumes.values()))
    scale = FRAME / max(span_of(first, dim) for dim in AXES)
    about: dict[str, Any] = {"shape": first.shape, "volumes": []}
    about["planes"] = [[AXES.index(dim) for dim in plane] for plane in PLANES.values()]
    about["places"] = [
        [f"{d} = {value_text(float(v), first[d].attrs)}" for v in first[d].values] for d in AXES
    ]
    for volume, (low, high), cmap in scales_of(volumes).values():
        colors = colors_of(cmap, LEVELS + 1) + [NAN_COLOR] * (255 - LEVELS)
        palette = [[*bytes.fromhex(color[1:]), 255] for color in colors]
        about["volumes"].append(
            {"data": packed(volume.values, (low, high)), "low": low, "high": high}
        )
        about["volumes"][-1]["palette"] = palette
    options = "".join(
        f'<option value="{i}">{html.escape(name)}</option>' for i, name in enumerate(volumes)
    )
    figures = ""
    for plane, (across, up, along) in PLANES.items():
        width, height = (max(1, round(scale * span_of(first, dim))) for dim in (along, up))
        caption = f"{plane}: {_axis_label(first, along)}; {_axis_label(first, up)}"
        figures += (
            f'<figure>{html.escape(caption)}<canvas width="{width}" height="{height}"></canvas><input type="range" '
            f'min="0" max="{first.sizes[across] - 1}" value="{first.sizes[across] // 2}" aria-label="{across}">'
            "</figure>"
        )
    data = json.dumps(about).replace("<", "\\u003c")
    body = f"<select>{options}</select><p></p>{figures}"
    return f'<div class="volume">{body}<script type="application/json">{data}</script></div>'
