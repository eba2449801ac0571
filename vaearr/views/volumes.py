"""Volumes as three orthogonal slices, in coordinates, with a cross-hair and the sides of the patient where known.

In RAS+ orientation x runs to the patient's right, y to the front, z to the top of the head; the patient's left is on
the left (the neurological convention).
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
from vaearr.views.common import DIVERGING, NAN_COLOR, is_regular, label, robust_limits, text, unit, value_text
from vaearr.views.kinds import builder
from vaearr.views.page import LEVELS, UNPACK, Section, packed, page
from vaearr.views.paper import SMALL, WIDTH, colormap, journal, new_figure
from vaearr.views.pictures import LIMITS

AXES = (n.Z, n.Y, n.X)
PLANES = {"axial": (n.Z, n.Y, n.X), "coronal": (n.Y, n.Z, n.X), "sagittal": (n.X, n.Z, n.Y)}  # across, up, along
SIDES = {n.X: ("L", "R"), n.Y: ("P", "A"), n.Z: ("I", "S")}  # at the lower and the upper end of an axis
CROSS = "#ffb000"
FRAME = 360  # pixels of the longest side of a plane in a page

_VIEWER = f"""
<style>
.volume figure {{ display: inline-block; margin: 8px 12px 0 0; position: relative; }}
.volume canvas {{ display: block; cursor: crosshair; }}
.volume input {{ display: block; width: 100%; }}
.volume b {{ position: absolute; top: 45%; color: white; background: #0008; padding: 0 3px; }}
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


def span_of(volume: xr.DataArray, dim: str) -> float:
    """Length of a volume along a dim."""
    return float(np.ptp(edges(volume[dim].values)))


@builder("volume", "array", n.Z, n.Y, n.X)
def volume_slices(volume: xr.DataArray, position: Mapping[str, float] | None = None) -> Any:
    """Axial, coronal and sagittal slice of a volume (z, y, x) through one position, one scale, true proportions.

    position: in coordinate units, such as `{"z": 12.0}`; the middle of dims that are not named. Grey runs from the
    0.5 % to the 99.5 % percentile; the other two slices are lines. Raises SchemaError for another array, UsageError
    for a position outside.
    """
    return _slices({text(label(volume)): as_volume(volume)}, position, "")


@builder("volumes")
def volume_sheet(found: xr.Dataset, example: int = 0, position: Mapping[str, float] | None = None) -> Any:
    """Original, reconstruction and residual of a volume, each as three slices through one position.

    found: of `reconstruct_store` or `reconstruct_files`. Original and reconstruction share one scale, the residual has
    one of half its width to both sides of 0. Raises NoInputError where there is no such example, SchemaError where the
    samples are no volumes.
    """
    volumes, heading = example_volumes(found, example)
    return _slices(volumes, position, heading)


def _slices(volumes: Mapping[str, xr.DataArray], position: Mapping[str, float] | None, heading: str) -> Any:
    """A row of three planes for each volume; one alone has axes."""
    first = next(iter(volumes.values()))
    place, alone, widths = place_of(first, position), len(volumes) == 1, [span_of(first, p[2]) for p in PLANES.values()]
    tallest = max(span_of(first, up) for _, up, _ in PLANES.values())
    high = float(np.clip((WIDTH - 1.6) * tallest / sum(widths), 0.8, 8.0))
    with journal():
        figure = new_figure(WIDTH, len(volumes) * high + 0.8)
        axes = figure.subplots(len(volumes), 3, width_ratios=widths, squeeze=False)
        for row, (name, (volume, limits, cmap)) in zip(axes, scales_of(volumes).items(), strict=True):
            for ax, (plane, (across, up, along)) in zip(row, PLANES.items(), strict=True):
                image = volume.isel({across: place[across]}).transpose(up, along)
                x, y = edges(image[along].values), edges(image[up].values)
                mesh = ax.imshow(
                    image.values, cmap=colormap(cmap), vmin=limits[0], vmax=limits[1], origin="lower", aspect="equal",
                    extent=(x[0], x[-1], y[0], y[-1]),
                )  # fmt: skip
                if volume is first:
                    where = value_text(float(first[across][place[across]]), first[across].attrs)
                    ax.set_title(f"{plane}, {across} = {where}", fontsize=10 if alone else 8)
                    for line, dim in ((ax.axvline, along), (ax.axhline, up)):
                        line(float(volume[dim][place[dim]]), color=CROSS, lw=0.6, alpha=0.9)
                _mark(ax, volume, along, up)
                if alone:
                    ax.set(xlabel=label(volume[along], along), ylabel=label(volume[up], up))
                else:
                    ax.set(xticks=[], yticks=[])
            bar = figure.colorbar(mesh, ax=list(row), fraction=0.03, pad=0.01, label=name if alone else None)
            bar.ax.tick_params(labelsize=SMALL)
            row[0].set_ylabel(row[0].get_ylabel() if alone else name)
        figure.suptitle(heading)
    return figure


def scales_of(volumes: Mapping[str, xr.DataArray]) -> dict[str, tuple[xr.DataArray, tuple[float, float], str]]:
    """Each volume with its limits and colours: grey on one scale, the residual half as wide to both sides of 0."""
    grey = robust_limits(np.stack([one.values for name, one in volumes.items() if name != "residual"]), LIMITS)
    half = (grey[1] - grey[0]) / 2
    return {
        name: (one, (-half, half), DIVERGING) if name == "residual" else (one, grey, "gray")
        for name, one in volumes.items()
    }


def _mark(ax: Any, volume: xr.DataArray, along: str, up: str) -> None:
    """Sides of the patient, where they are known, within the picture."""
    if volume.attrs.get("orientation") != "RAS+":
        return
    box = {"facecolor": "black", "alpha": 0.45, "pad": 1, "linewidth": 0}
    places = ((0.05, 0.5), (0.95, 0.5), (0.5, 0.06), (0.5, 0.94))
    for letter, (x, y) in zip((*SIDES[along], *SIDES[up]), places, strict=True):
        ax.text(x, y, letter, transform=ax.transAxes, color="white", fontsize=8, fontweight="bold", ha="center",
                va="center", bbox=box)  # fmt: skip


def example_volumes(found: xr.Dataset, example: int) -> tuple[dict[str, xr.DataArray], str]:
    """Original, reconstruction and residual (reconstruction - original) of an example, and words for it."""
    count = found.sizes.get("example", 0)
    if "input" not in found or not 0 <= example < count:
        raise NoInputError(f"there is no example {example}; {count} were kept, set by 'examples'.")
    one = found.isel(example=example)
    original, recon = (as_volume(one[name]) for name in ("input", "reconstruction"))
    told = [
        f"{name.removeprefix('example_')} {value_text(one[name].item(), one[name].attrs)}"
        for name in map(str, one.coords)
        if name.startswith("example_") and one[name].ndim == 0
    ]
    told += [f"PSNR {float(one['example_psnr']):.1f} dB"] if "example_psnr" in one else []
    told += [f"SSIM {float(one['example_ssim']):.3f}"] if "example_ssim" in one else []
    residual = (recon - original).assign_attrs(original.attrs)
    return {"original": original, "reconstruction": recon, "residual": residual}, text(", ".join(told))


def volume_page(found: xr.Dataset, *, most: int = 4) -> str:
    """An HTML page that needs nothing else, with the first examples as volumes to slide through.

    A volume travels once, deflated in 127 steps between its limits; the browser unpacks it and cuts the slices.
    """
    intro, sections = Section("about", "Volumes"), []
    intro.say(
        "Each sample as three slices. The sliders, or a click on a slice, move the others; the list changes between "
        "original, reconstruction and residual (reconstruction - original)."
    )
    for i in range(max(1, min(most, found.sizes.get("example", 0)))):
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
    about["places"] = [[f"{d} = {value_text(float(v), first[d].attrs)}" for v in first[d].values] for d in AXES]
    for volume, (low, high), cmap in scales_of(volumes).values():
        colors = colormap(cmap)(np.linspace(0, 1, LEVELS + 1), bytes=True).tolist()
        colors += [colormap([NAN_COLOR])(0, bytes=True)] * (256 - len(colors))
        palette = [[int(part) for part in color] for color in colors]
        data = packed(volume.values, (low, high))
        about["volumes"].append({"data": data, "low": low, "high": high, "palette": palette})
    options = "".join(f'<option value="{i}">{html.escape(name)}</option>' for i, name in enumerate(volumes))
    figures = []
    for plane, (across, up, along) in PLANES.items():
        width, height = (max(1, round(scale * span_of(first, dim))) for dim in (along, up))
        left, right = SIDES[along] if first.attrs.get("orientation") == "RAS+" else ("", "")
        figures.append(
            f'<figure>{plane}<canvas width="{width}" height="{height}"></canvas>'
            f'<b style="left: 0">{left}</b><b style="right: 0">{right}</b><input type="range" min="0" '
            f'max="{first.sizes[across] - 1}" value="{first.sizes[across] // 2}" aria-label="{across}"></figure>'
        )
    data = json.dumps(about).replace("<", "\\u003c")
    body = f"<select>{options}</select><p></p>{''.join(figures)}"
    return f'<div class="volume">{body}<script type="application/json">{data}</script></div>'
