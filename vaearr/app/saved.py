"""The explorer as one HTML file: maps, samples and sliders, with nothing to fetch.

What moves was drawn beforehand: a slider chooses among frames of one dimension, all others stay
where they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from bokeh.models import HoverTool

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.latents import evenly_spaced
from vaearr.app.samples import (
    GREY,
    NO_MODEL,
    Encoded,
    as_pictures,
    coarse,
    coloured,
    depth_dim,
    encoded_samples,
    has_network,
    is_map,
    layers_of,
    names_of,
    png,
    stored,
    summary,
)
from vaearr.errors import UsageError
from vaearr.recipe import now, versions
from vaearr.schema.grid import grid_indices
from vaearr.views.common import holoviews, robust_limits, text
from vaearr.views.explorer import explorer
from vaearr.views.kinds import bokeh_model
from vaearr.views.maps import map_plot
from vaearr.views.page import Section, page
from vaearr.views.paper import check_new, write_new
from vaearr.views.relations import linked

if TYPE_CHECKING:
    from vaearr import Run

STEPS, REACH = 9, 3.0  # frames of a dimension, and the standard deviations they reach
MOST_DIMS, MOST_POINTS, MOST_PICTURES = 64, 5000, 500
FRAME, THUMBNAIL = 128, 64  # pixels along the longer side
COLOURS = ("label", n.PHASE, n.CLUSTERS, n.BC)  # the first of these that exists colours the samples
TIPS = '<div>@words<br><img src="@picture" alt="" style="image-rendering: pixelated; height: 96px"></div>'
STYLE = """
<style>
.dims { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 16px; }
.dim { display: grid; gap: 4px; justify-items: center; font-size: .85rem; }
.dim img { image-rendering: pixelated; width: 150px; } .dim img[hidden] { display: none; }
</style>
<script>
function moved(input) {
  const frames = input.parentElement.querySelectorAll("img"), chosen = Number(input.value);
  frames.forEach((frame, i) => { frame.hidden = i !== chosen; });
  input.parentElement.querySelector("output").textContent = frames[chosen].alt;
}
</script>
"""


def save_page(run: Run, out: str | Path, *, seed: int, overwrite: bool) -> Path:
    """Save the views of a run as one HTML file that works offline, see `Run.explore`."""
    target = Path(out)
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{target.name!r} is a page and must end in .html.")
    check_new(target, overwrite)
    samples = encoded_samples(run)
    head = Section("top", "")
    head.say(f"Page of {now()}, vaearr {versions()['vaearr']}, seed {seed}.")
    sections = [_maps(run)] if is_map(run) else []
    sections.append(_points(run, samples, seed))
    if has_network(run):
        sections.append(_sliders(run, samples))
    else:
        head.say(f"{NO_MODEL}.")
    return write_new(target, page(summary(run), head, sections).encode(), overwrite)


def middle_plane(layer: xr.DataArray) -> xr.DataArray:
    """A layer of a scan as a map, of several planes the middle one."""
    return coarse(layer if layer.ndim == 2 else layer[len(layer) // 2])


def _maps(run: Run) -> Section:
    """All layers of a scan as maps, one beside the other, each with a chooser."""
    section = Section("maps", "Maps")
    layers = {title: middle_plane(layer) for title, layer in layers_of(run).items()}
    latents = [layer for title, layer in layers.items() if title.startswith("latent ")]
    section.figure(
        explorer(
            [layer for title, layer in layers.items() if not title.startswith("latent ")], latents
        )
    )
    section.caption(
        "Side map and latent (posterior mean), each chosen above; zoom and cross-hair are linked. Colours run from the "
        "1 % to the 99 % percentile; grey = no value. Of a volume the middle plane; large maps are shown in blocks of "
        "scan points."
    )
    return section


def _points(run: Run, samples: Encoded, seed: int) -> Section:
    """Samples over the two widest latents, and at their places on the map: a selection is in both."""
    hv = holoviews()
    section = Section("samples", "Samples")
    rows = np.sort(np.random.default_rng(seed).permutation(len(samples.numbers))[:MOST_POINTS])
    numbers = samples.numbers[rows]
    pictured = evenly_spaced(len(rows), MOST_PICTURES)
    thumbnails = np.full(len(rows), "data:,", object)
    for place, image in zip(pictured, as_pictures(stored(run, numbers[pictured])), strict=True):
        thumbnails[place] = png(image, robust_limits(image, GREY), THUMBNAIL)
    layers = layers_of(run)
    colour = next((name for name in COLOURS if name in layers), None)
    plane = (
        [f"latent {i}" for i in samples.widest[:2]]
        if samples.vectors.shape[1] > 1
        else ["latent 0"] * 2
    )
    columns: dict[str, Any] = {"words": names_of(run, numbers), "picture": thumbnails}
    how: dict[str, Any] = {
        "size": 5,
        "nonselection_alpha": 0.08,
    }
    frame = {"title": text(colour or ""), "xlabel": plane[0], "ylabel": plane[1]}
    for axis, title in zip(("across", "up"), plane, strict=True):
        columns[axis] = layers[title].values.ravel()[numbers]
    if colour:
        look = coloured(layers[colour].load())
        columns["value"] = look["values"][numbers]
        how |= {
            "color": "value",
            "cmap": look["palette"],
            "clim": look["limits"],
        }
    columns |= {
        dim: run.ds[dim].values[place] for dim, place in grid_indices(run.ds, numbers).items()
    }
    source = xr.Dataset({name: ("row", values) for name, values in columns.items()}).to_dataframe()
    if is_map(run) and len(schema.navigation_shape(run.ds)) == 2:
        background = map_plot(coarse(layers[colour or plane[0]].load()), frame=400)
        shown = linked(background, source, [n.X, n.Y], ["across", "up"], frame=frame, **how)
    else:
        points = hv.Points(
            source, ["across", "up"], ["words", "picture", *(["value"] if colour else [])]
        )
        shown = points.opts(
            line_color=None, frame_width=420, frame_height=380, **frame, **how, backend="bokeh"
        )
    tools = hv.opts.Points(tools=["box_select", HoverTool(tooltips=TIPS)], backend="bokeh")
    section.figure(bokeh_model(shown.opts(tools)))
    section.caption(
        f"{len(rows):,} of {len(samples.numbers):,} {schema.samples_word(run.ds)} with latents, drawn by the seed; "
        f"{len(pictured):,} of them carry their stored picture, seen under the pointer. Draw a box: the samples inside "
        "light up on both sides."
    )
    return section


def _sliders(run: Run, samples: Encoded) -> Section:
    """A slider for each dimension, over frames that are decoded here."""
    section = Section("sliders", "Sliders")
    dims = sorted(samples.widest[:MOST_DIMS])
    found = run.traverse(dims, span=(-REACH, REACH), steps=STEPS)
    decoded = found["decoded"].reset_coords(drop=True)
    frames = [as_pictures(decoded.sel(latent_dim=dim, drop=True)) for dim in dims]
    limits = robust_limits(np.stack(frames), GREY)
    section.blocks.append(f'{STYLE}<div class="dims">')
    for dim, images in zip(dims, frames, strict=True):
        cell = ""
        for move, image in zip(np.linspace(-REACH, REACH, STEPS), images, strict=True):
            cell += f'<img alt="{move:+.2f} std" src="{png(image, limits, FRAME)}">'
        slider = (
            f"type='range' min='0' max='{STEPS - 1}' value='{STEPS // 2}' oninput='moved(this)'"
        )
        cell += f"<span>latent {dim}: <output></output></span><input {slider} aria-label='latent {dim}'>"
        section.blocks.append(f'<label class="dim">{cell}</label>')
    section.blocks.append(
        '</div><script>document.querySelectorAll(".dim input").forEach(moved);</script>'
    )
    attrs = found["decoded"].attrs
    units = (
        f"Stored units ({attrs['units']})" if attrs["scale"] == "stored" else "Preprocessed units"
    )
    volumes = "Middle slices of volumes. " if depth_dim(found["decoded"]) else ""
    section.caption(
        f"Each dimension (of many the {MOST_DIMS} that vary most) alone, moved by up to {REACH:g} of its standard "
        f"deviations from {text(found.attrs['base'])}. {volumes}{units}, one grey scale for all. "
        "'vaearr explore' decodes any combination."
    )
    return section
