"""The explorer as one HTML file that works offline: maps, samples and sliders.

A slider moves one dimension, over pictures that were decoded beforehand.
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
    coloured,
    encoded_samples,
    has_depth,
    has_network,
    is_map,
    layers_of,
    names_of,
    png,
    stored,
    summary,
    thinned,
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

STEPS = 9  # pictures of a dimension
REACH = 3.0  # standard deviations
MAX_DIMS = 64
MAX_POINTS = 5000
MAX_PICTURES = 500
# pixels along the longer side
FRAME = 128
THUMBNAIL = 64
COLOURS = ("label", n.PHASE, n.CLUSTERS, n.BC)  # the first of these that exists colours the samples
TIPS = (
    '<div>@words<br><img src="@picture" alt="" '
    'style="image-rendering: pixelated; height: 96px"></div>'
)
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
    sections = [_maps(run, samples)] if is_map(run) else []
    sections.append(_points(run, samples, seed))
    if has_network(run):
        sections.append(_sliders(run, samples))
    else:
        head.say(f"{NO_MODEL}.")
    return write_new(target, page(summary(run), head, sections).encode(), overwrite)


def _maps(run: Run, samples: Encoded) -> Section:
    """Side maps and latents of a scan next to each other, each with a chooser."""
    section = Section("maps", "Maps")
    planes: dict[str, xr.DataArray] = {}
    for title, layer in layers_of(run).items():
        planes[title] = thinned(layer if layer.ndim == 2 else layer[len(layer) // 2])
    latents = [planes.pop(f"latent {i}") for i in samples.most_structured]
    section.figure(explorer([*planes.values()], latents))
    section.caption(
        "Side map and latent (posterior mean), each selected above, the latents with most "
        "structure first; zoom and cross-hair are linked. Colours run from the 1 % to the 99 % "
        "percentile; grey = no value. Of a volume the middle plane; of large maps every k-th row "
        "and column."
    )
    return section


def _points(run: Run, samples: Encoded, seed: int) -> Section:
    """Samples over the two latents with most structure, linked with their positions on the map."""
    section = Section("samples", "Samples")
    count = len(samples.numbers)
    rows = np.sort(np.random.default_rng(seed).permutation(count)[:MAX_POINTS])
    numbers = samples.numbers[rows]
    layers = layers_of(run)
    plane = [f"latent {i}" for i in samples.most_structured[:2]]
    across, up = plane[0], plane[-1]
    columns = {
        "across": layers[across].values.ravel()[numbers],
        "up": layers[up].values.ravel()[numbers],
        "words": names_of(run, numbers),
        "picture": _thumbnails(run, numbers),
    }
    colour = next((name for name in COLOURS if name in layers), across)
    colouring = coloured(layers[colour].load())
    columns["value"] = colouring.values[numbers]
    for dim, indices in grid_indices(run.ds, numbers).items():
        columns[dim] = run.ds[dim].values[indices]
    table = xr.Dataset({name: ("row", values) for name, values in columns.items()}).to_dataframe()
    frame = {"title": text(colour), "xlabel": across, "ylabel": up}
    options: dict[str, Any] = {
        "size": 5,
        "nonselection_alpha": 0.08,
        "color": "value",
        "cmap": colouring.palette,
        "clim": colouring.limits,
    }
    if is_map(run) and len(schema.navigation_shape(run.ds)) == 2:
        background = map_plot(thinned(layers[colour]), frame=400)
        figure = linked(background, table, [n.X, n.Y], ["across", "up"], frame=frame, **options)
    else:
        points = holoviews().Points(table, ["across", "up"], ["words", "picture", "value"])
        options |= {"line_color": None, "frame_width": 420, "frame_height": 380}
        figure = points.opts(**frame, **options, backend="bokeh")
    hover = HoverTool(tooltips=TIPS)
    tools = holoviews().opts.Points(tools=["box_select", hover], backend="bokeh")
    section.figure(bokeh_model(figure.opts(tools)))
    n_pictures = min(len(rows), MAX_PICTURES)
    section.caption(
        f"{len(rows):,} of {count:,} {schema.samples_word(run.ds)} with latents, selected by the "
        f"seed; {n_pictures:,} of them show their stored picture under the pointer. Draw a box: "
        "the samples inside are highlighted on both sides."
    )
    return section


def _thumbnails(run: Run, numbers: np.ndarray) -> np.ndarray:
    """Addresses of the pictures of some samples, evenly spaced; empty ones for the others."""
    thumbnails = np.full(len(numbers), "data:,", object)
    rows = evenly_spaced(len(numbers), MAX_PICTURES)
    for row, image in zip(rows, as_pictures(stored(run, numbers[rows])), strict=True):
        thumbnails[row] = png(image, robust_limits(image, GREY), THUMBNAIL)
    return thumbnails


def _sliders(run: Run, samples: Encoded) -> Section:
    """A slider for each dimension, over pictures that are decoded here."""
    section = Section("sliders", "Sliders")
    dims = samples.most_important[:MAX_DIMS]
    traversal = run.traverse(dims, span=(-REACH, REACH), steps=STEPS, others="base")
    decoded = traversal["decoded"].reset_coords(drop=True)
    frames = [as_pictures(decoded.sel(latent_dim=dim, drop=True)) for dim in dims]
    limits = robust_limits(np.stack(frames), GREY)
    section.blocks.append(f'{STYLE}<div class="dims">')
    for dim, images in zip(dims, frames, strict=True):
        cell = ""
        for move, image in zip(np.linspace(-REACH, REACH, STEPS), images, strict=True):
            cell += f'<img alt="{move:+.2f} std" src="{png(image, limits, FRAME)}">'
        cell += (
            f"<span>latent {dim} · {samples.share(dim)} of {samples.measure}: <output></output></span>"
            f"<input type='range' min='0' max='{STEPS - 1}' value='{STEPS // 2}' "
            f"oninput='moved(this)' aria-label='latent {dim}'>"
        )
        section.blocks.append(f'<label class="dim">{cell}</label>')
    section.blocks.append(
        '</div><script>document.querySelectorAll(".dim input").forEach(moved);</script>'
    )
    attrs = decoded.attrs
    units = f"Stored units ({attrs['units']})"
    if attrs["scale"] != "stored":
        units = "Preprocessed units"
    volumes = "Middle slices of volumes. " if has_depth(decoded) else ""
    section.caption(
        f"Each dimension alone, the most important {len(dims)} in order, moved by up to {REACH:g} "
        f"of its standard deviations from {text(traversal.attrs['base'])}. {volumes}{units}, "
        "one grey scale for all. 'vaearr explore' decodes any combination."
    )
    return section
