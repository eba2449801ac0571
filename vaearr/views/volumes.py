"""Volumes as three orthogonal slices with cross-hair, and the sides of the patient if known.

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
    Options,
    holoviews,
    in_columns,
    is_regular,
    label,
    robust_limits,
    text,
    title,
    value_text,
)
from vaearr.views.kinds import builder
from vaearr.views.mosaic import LIMITS
from vaearr.views.page import LEVELS, UNPACK, Section, packed, page
from vaearr.views.pictures import scores_of, source_of

AXES = (n.Z, n.Y, n.X)
# dims of a plane: across, up, along
PLANES = {
    "axial": (n.Z, n.Y, n.X),
    "coronal": (n.Y, n.Z, n.X),
    "sagittal": (n.X, n.Z, n.Y),
}
# sides of the patient at the lower and the upper end of an axis
SIDES = {n.X: "L to R", n.Y: "P to A", n.Z: "I to S"}
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
  const data = JSON.parse(box.querySelector("script").textContent), [select, line] = box.querySelectorAll("select, p");
  const volumes = await Promise.all(data.volumes.map((volume) => unpack(volume.data)));
  const strides = [data.shape[1] * data.shape[2], data.shape[2], 1];
  const figures = [...box.querySelectorAll("figure")], sliders = figures.map((figure) => figure.querySelector("input"));
  const draw = () => {{
    const volume = data.volumes[select.value], codes = volumes[select.value];
    const at = sliders.map((slider) => Number(slider.value));
    figures.forEach((figure, i) => {{
      const [across, up, along] = data.planes[i];
      const canvas = figure.querySelector("canvas"), pen = canvas.getContext("2d");
      const [rows, columns] = [data.shape[up], data.shape[along]], image = pen.createImageData(columns, rows);
      for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {{
        const voxel = at[across] * strides[across] + (rows - 1 - r) * strides[up] + c * strides[along];
        image.data.set(volume.palette[codes[voxel]], 4 * (r * columns + c));
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
    const code = codes[at.reduce((sum, i, axis) => sum + i * strides[axis], 0)];
    const value = code === 255 ? "none" : (volume.low + (code * (volume.high - volume.low)) / {LEVELS}).toPrecision(4);
    const span = `colours from ${{volume.low.toPrecision(3)}} to ${{volume.high.toPrecision(3)}}`;
    line.textContent = `${{at.map((i, axis) => data.positions[axis][i]).join(", ")}}: ${{value}}; ${{span}}`;
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
    """One volume (z, y, x) in memory as float32 with ascending coordinates; the first channel.

    Raises SchemaError for other dims, UsageError for coordinates with uneven steps.
    """
    if n.CHANNEL in da.dims:
        da = da.isel({n.CHANNEL: 0}, drop=True)
    if set(map(str, da.dims)) != set(AXES) or 0 in da.shape:
        raise SchemaError(
            f"{da.name!r} has dims {da.dims}; "
            "expected one volume over z, y and x, so select a sample."
        )
    for dim in AXES:
        if dim not in da.coords:
            index = np.arange(da.sizes[dim], dtype="f8")
            da = da.assign_coords({dim: (dim, index, {"units": "px"})})
        if not is_regular(da[dim].values):
            raise UsageError(
                f"the coordinate {dim!r} has uneven steps; slices are drawn on an even grid."
            )
    volume = da.transpose(*AXES).sortby(list(AXES))
    return volume.astype("f4").reset_coords(drop=True).load()


@builder("volume", "array", n.Z, n.Y, n.X)
@builder("volumes")
def volume_slices(
    result: xr.DataArray | xr.Dataset, example: int = 0, position: Mapping[str, float] | None = None
) -> Any:
    """Plot the axial, coronal and sagittal slice through one position in true proportions.

    Lines mark the other two slices. Grey spans the 0.5 % to the 99.5 % percentile of all volumes;
    the scale of the residual has the same width and is centred at 0.

    Parameters
    ----------
    result
        A volume (z, y, x), or the result of `Run.reconstruct`, of which original, reconstruction
        and residual are shown.
    example
        Number of the example.
    position
        In coordinate units, such as `{"z": 12.0}`. Default: the middle of each dim.

    Raises
    ------
    SchemaError
        For other arrays.
    NoInputError
        If the example does not exist.
    """
    if isinstance(result, xr.DataArray):
        volumes = {text(label(result)): as_volume(result)}
        heading = text(label(result))
    else:
        volumes, heading = example_volumes(result, example)
    first = next(iter(volumes.values()))
    middle = {dim: float(first[dim].mean()) for dim in AXES}
    cross = first.sel(middle | dict(position or {}), method="nearest")
    at = {dim: cross[dim].item() for dim in AXES}
    slices = []
    for name, (volume, limits, cmap) in scales_of(volumes).items():
        for plane in PLANES:
            style = {
                "cmap": cmap,
                "clim": limits,
                "colorbar": plane == "sagittal",
                "clabel": text(name),
            }
            slices.append(_slice(volume, plane, at).opts("Image", **style))
    return in_columns(slices, 3, title=title(heading))


def _slice(volume: xr.DataArray, plane: str, at: dict[str, float]) -> Any:
    """One plane of a volume with the lines of the other two."""
    hv = holoviews()
    across, up, along = PLANES[plane]
    image = volume.sel({across: at[across]}).transpose(up, along)
    width, height = frame_of(volume, plane, PAPER_FRAME)
    data = (image[along].values, image[up].values, image.values)
    picture = hv.Image(data, [along, up], "value").opts(
        title=f"{plane}, {across} = {value_text(at[across], volume[across].attrs)}",
        xlabel=_axis_label(volume, along),
        ylabel=_axis_label(volume, up),
        frame_width=width,
        frame_height=height,
        data_aspect=1,
    )
    for line in (hv.VLine(at[along]), hv.HLine(at[up])):
        picture = picture * line.opts(color=CROSS, line_width=1)
    return picture


def frame_of(volume: xr.DataArray, plane: str, longest: int) -> tuple[int, int]:
    """Width and height of a plane in pixels, of which the longest side of the volume has some."""
    lengths = {dim: float(np.ptp(edges(volume[dim].values))) for dim in AXES}
    _, up, along = PLANES[plane]
    scale = longest / max(lengths.values())
    width = round(scale * lengths[along])
    height = round(scale * lengths[up])
    return max(1, width), max(1, height)


def _axis_label(volume: xr.DataArray, dim: str) -> str:
    """Name and unit of an axis, and the sides of the patient at its ends if they are known."""
    name = label(volume[dim].assign_attrs(long_name=dim))
    return f"{name}, {SIDES[dim]}" if volume.attrs.get("orientation") == "RAS+" else name


def scales_of(
    volumes: Mapping[str, xr.DataArray],
) -> dict[str, tuple[xr.DataArray, tuple[float, float], str]]:
    """Each volume with its limits and colours: grey on one scale, the residual centred at 0."""
    grey_volumes = [volume.values for name, volume in volumes.items() if name != "residual"]
    grey = robust_limits(np.stack(grey_volumes), LIMITS)
    half = (grey[1] - grey[0]) / 2
    scales = {name: (volume, grey, "gray") for name, volume in volumes.items()}
    if "residual" in scales:
        scales["residual"] = (volumes["residual"], (-half, half), DIVERGING)
    return scales


def example_volumes(result: xr.Dataset, example: int) -> tuple[dict[str, xr.DataArray], str]:
    """Original, reconstruction and residual (reconstruction - original) of an example; heading."""
    count = result.sizes.get("example", 0)
    if "input" not in result or not 0 <= example < count:
        raise NoInputError(f"there is no example {example}; {count} were kept, set by 'examples'.")
    sample = result.isel(example=example)
    original = as_volume(sample["input"])
    recon = as_volume(sample["reconstruction"])
    residual = (recon - original).assign_attrs(original.attrs)
    volumes = {"original": original, "reconstruction": recon, "residual": residual}
    words = [*source_of(sample, "example_{}", most=80), *scores_of(sample)]
    return volumes, text(", ".join(words))


def volume_page(result: xr.Dataset, *, most: int = 4) -> str:
    """A self-contained HTML page with the first examples as volumes to slide through.

    Each volume is stored once, compressed to 127 levels; the browser unpacks it and cuts the
    slices.
    """
    intro = Section("about", "Volumes")
    intro.say(
        "Each sample as three slices. The sliders, or a click on a slice, move the others; the "
        "list changes between original, reconstruction and residual (reconstruction - original)."
    )
    sections = []
    for i in range(min(most, result.sizes["example"])):
        volumes, heading = example_volumes(result, i)
        sections.append(Section(f"example-{i}", heading or f"example {i}", [_viewer(volumes)]))
    sections[-1].blocks.append(_VIEWER)
    return page("Volumes and their reconstructions", intro, sections)


def _viewer(volumes: Mapping[str, xr.DataArray]) -> str:
    """A list of volumes, three planes with a slider each, and the data that the browser draws."""
    first = next(iter(volumes.values()))
    data: Options = {"shape": first.shape, "volumes": [], "planes": [], "positions": []}
    for dim in AXES:
        attrs = first[dim].attrs
        values = first[dim].values.tolist()
        data["positions"].append([f"{dim} = {value_text(value, attrs)}" for value in values])
    options = ""
    for i, (name, (volume, limits, cmap)) in enumerate(scales_of(volumes).items()):
        colors = colors_of(cmap, LEVELS + 1) + [NAN_COLOR] * (255 - LEVELS)
        entry = {
            "data": packed(volume.values, limits),
            "low": limits[0],
            "high": limits[1],
            "palette": [[*bytes.fromhex(color[1:]), 255] for color in colors],
        }
        data["volumes"].append(entry)
        options += f'<option value="{i}">{html.escape(name)}</option>'
    figures = ""
    for plane, dims in PLANES.items():
        data["planes"].append(list(map(AXES.index, dims)))
        across, up, along = dims
        width, height = frame_of(first, plane, FRAME)
        caption = html.escape(f"{plane}: {_axis_label(first, along)}; {_axis_label(first, up)}")
        last = first.sizes[across] - 1
        figures += (
            f'<figure>{caption}<canvas width="{width}" height="{height}"></canvas>'
            f'<input type="range" min="0" max="{last}" value="{(last + 1) // 2}" '
            f'aria-label="{across}"></figure>'
        )
    script = json.dumps(data).replace("<", "\\u003c")
    body = f"<select>{options}</select><p></p>{figures}"
    return f'<div class="volume">{body}<script type="application/json">{script}</script></div>'
