"""The explorer as one HTML file: maps, samples, sliders, plane and classes, with nothing to fetch.

What moves was drawn beforehand: a slider chooses among frames of one dimension, all others stay where they are.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.app.state import GREY, NO_MODEL, PICTURE, State, as_pictures, coarse, coloured, depth_dim, png
from vaearr.errors import NoInputError, UsageError
from vaearr.names import DEFAULT_RUN
from vaearr.recipe import now, versions
from vaearr.run import StoreOrRun
from vaearr.views import view
from vaearr.views.common import NAN_COLOR, label, robust_limits, text, value_text
from vaearr.views.kinds import show
from vaearr.views.page import Section, page
from vaearr.views.paper import check_new, write_new

STEPS, REACH, PLANE = 9, 3.0, 9  # frames of a dimension, the standard deviations they reach, and pictures of a plane
MOST_DIMS, MOST_POINTS, MOST_PICTURES = 64, 5000, 500
FRAME, THUMBNAIL = 128, 64  # pixels along the longer side
LEAST = 1e-5  # standard deviation of a dimension that varies
COLOURS = ("label", n.PHASE, n.CLUSTERS, n.BC)  # layers that the samples begin with

_STYLE = """
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

_CHOSEN = """
for (const name in selects) source.data[name] = source.data[selects[name].value];
const shown = layers[selects.value.value];
mapper.palette = shown.palette;
[mapper.low, mapper.high] = shown.limits;
bar.ticker.ticks = shown.ticks;
bar.major_label_overrides = new Map(shown.names.map((word, i) => [i, word]));
plane.below[0].axis_label = layers[selects.across.value].title;
plane.left[0].axis_label = layers[selects.up.value].title;
source.change.emit();
"""


def save_page(
    store: StoreOrRun,
    run: str = DEFAULT_RUN,
    out: str | Path = "explore.html",
    *,
    by: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Save the views of a run as one HTML file that works without a network or a server; returns its path.

    Maps of a scan with a chooser; samples over two latents, components or maps, selected together with their places on
    the map, with their stored pictures under the pointer; a slider for each of the dimensions (the 64 widest), whose
    pictures are decoded beforehand from -3 to 3 standard deviations about a typical sample; the plane of the two
    widest; typical samples and means of the classes of `by` (None: label, phase or clusters). At most 5000 samples,
    drawn by the seed. Written aside and renamed into place.

    Raises NoInputError for a store, run, latents, map or folder that are not there, ExistsError where the file is and
    `overwrite` is not set, UsageError for settings that cannot be meant.
    """
    target = Path(out)
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{target.name!r} is a page and must end in .html.")
    check_new(target, overwrite)
    state, head = State(store, run), Section("top", "")
    head.say(f"{state.origin_words}; page of {now()}, vaearr {versions()['vaearr']}, seed {seed}.")
    sections = [_maps(state)] if state.is_scan else []
    sections.append(_points(state, seed))
    if state.has_model:
        sections += [_sliders(state), *_plane(state), *_classes(state, by)]
    else:
        head.say(f"{NO_MODEL}.")
    return write_new(target, page(state.summary, head, sections).encode(), overwrite)


def _maps(state: State) -> Section:
    """All layers of a scan as maps, one beside the other, each with a chooser."""
    from vaearr.views.explorer import explorer

    section, (dim, *_), layers = Section("maps", "Maps"), state.nav, list(state.layers.values())
    if len(state.nav) == 3:
        middle = state.grid[0] // 2
        layers = [da.isel({dim: middle}) for da in layers]
        where = value_text(state.ds[dim].values[middle], state.ds[dim].attrs)
        section.say(f"The maps show the plane {dim} = {where}; 'vaearr explore' shows all.")
    layers, count = [coarse(da) for da in layers], len(state.mean)
    section.figure(explorer(layers[count:], layers[:count]))
    section.caption(
        "Side map and latent (posterior mean), each chosen above; zoom and cross-hair are linked. Colours run from the "
        "1 % to the 99 % percentile; grey = no value. Large maps are shown in blocks of scan points."
    )
    return section


# ---- samples


def _points(state: State, seed: int) -> Section:
    """Samples over two layers, and at their places on the map: one source, so that a selection is in both."""
    section, rng, known = Section("samples", "Samples"), np.random.default_rng(seed), state.known
    numbers = np.sort(rng.choice(known, min(MOST_POINTS, len(known)), replace=False))
    pictured = np.sort(rng.choice(len(numbers), min(MOST_PICTURES, len(numbers)), replace=False))
    pictures = np.full(len(numbers), "data:,", object)
    at = {dim: xr.DataArray(place, dims=PICTURE) for dim, place in state.places(numbers[pictured]).items()}
    stored = as_pictures(state.ds[n.PATTERNS].isel(at).transpose(PICTURE, *state.signal).load())
    pictures[pictured] = [png(image, robust_limits(image, GREY), THUMBNAIL) for image in stored]
    section.figure(_linked(state, numbers, {"words": state.where(numbers), "picture": pictures}))
    section.caption(
        f"{len(numbers):,} of {len(known):,} {schema.samples_word(state.ds)} with latents, drawn by the seed; "
        f"{len(pictured):,} of them carry their stored picture, seen under the pointer. Draw a box or a lasso "
        "(toolbar): they light up on both sides."
    )
    return section


def _linked(state: State, numbers: np.ndarray, columns: dict[str, Any]) -> Any:
    """The figures over one source, with choosers of what lies across, up and in the colours."""
    from bokeh.layouts import column, row
    from bokeh.models import ColumnDataSource, CustomJS, FixedTicker, LinearColorMapper
    from bokeh.models.annotations import ColorBar
    from bokeh.models.widgets import Select
    from bokeh.plotting import figure

    layers = {f"layer {words}": coloured(da.load()) for words, da in state.layers.items()}
    start = {name: f"layer {words}" for name, words in (state.axes | {"value": state.first(*COLOURS)}).items()}
    columns |= {key: layer.pop("values")[numbers] for key, layer in layers.items()}
    columns |= {name: columns[key] for name, key in start.items()}
    columns |= {f"at {dim}": state.ds[dim].values[at] for dim, at in state.places(numbers).items()}
    source, shown = ColumnDataSource(columns), layers[start["value"]]
    low, high = shown["limits"]
    mapper = LinearColorMapper(palette=shown["palette"], low=low, high=high, nan_color=NAN_COLOR)
    ticker, named = FixedTicker(ticks=shown["ticks"]), dict[Any, Any](enumerate(shown["names"]))
    bar = ColorBar(color_mapper=mapper, width=12, ticker=ticker, major_label_overrides=named)

    def scatter(x: str, y: str, titles: list[str], height: int) -> Any:
        tips: Any = '<div>@words<br><img src="@picture" alt="" style="image-rendering: pixelated; height: 96px"></div>'
        drawn = figure(
            frame_width=420, frame_height=height, x_axis_label=titles[0], y_axis_label=titles[1], active_drag=None,
            tooltips=tips, tools="pan,wheel_zoom,box_select,lasso_select,reset,save",
        )  # fmt: skip
        color: Any = {"field": "value", "transform": mapper}
        drawn.scatter(x, y, source=source, size=5, fill_color=color, line_color=None, nonselection_alpha=0.08)
        return drawn

    plane = scatter("across", "up", [layers[start[name]]["title"] for name in ("across", "up")], 380)
    plane.add_layout(bar, "right")
    figures = [plane]
    if state.is_scan and len(state.grid) == 2:
        y, x = (state.ds[dim] for dim in state.nav)
        height = int(np.clip(420 * np.ptp(y.values) / max(np.ptp(x.values), 1e-12), 80, 520))
        figures.insert(0, scatter(f"at {x.name}", f"at {y.name}", [label(x), label(y)], height))
        figures[0].y_range.flipped = True
    options: list[Any] = [(key, layer["title"]) for key, layer in layers.items()]
    headings = {"across": "Across", "up": "Up", "value": "Colour"}
    selects = {k: Select(title=headings[k], value=start[k], width=190, options=options) for k in headings}
    parts = {"selects": selects, "layers": layers, "source": source, "mapper": mapper, "bar": bar, "plane": plane}
    for select in selects.values():
        select.js_on_change("value", CustomJS(args=parts, code=_CHOSEN))
    return column(row(*selects.values()), row(*figures, spacing=20))


# ---- what is decoded


def _sliders(state: State) -> Section:
    """A slider for each dimension, over frames that are decoded here."""
    from vaearr.run.traversals import LATENT_DIM, traverse

    section, dims = Section("sliders", "Sliders"), sorted(state.widest[:MOST_DIMS])
    found = traverse(state.run, dims=dims, span=(-REACH, REACH), steps=STEPS)
    frames = [as_pictures(found["decoded"].sel({LATENT_DIM: dim}).reset_coords(drop=True)) for dim in dims]
    limits, moves = robust_limits(np.stack(frames), GREY), np.linspace(-REACH, REACH, STEPS)
    pictures = ["".join(_drawn(images, [f"{move:+.2f} std" for move in moves], limits)) for images in frames]
    slider = f"type='range' min='0' max='{STEPS - 1}' value='{STEPS // 2}' oninput='moved(this)'"
    _cells(
        section,
        [
            f"{drawn}<span>latent {dim}: <output></output></span><input {slider} aria-label='latent {dim}'>"
            for dim, drawn in zip(dims, pictures, strict=True)
        ],
    )
    section.blocks.append('<script>document.querySelectorAll(".dim input").forEach(moved);</script>')
    section.caption(
        f"Each dimension (of many the {MOST_DIMS} that vary most) alone, moved by up to {REACH:g} of its standard "
        f"deviations from {text(found.attrs['base'])}. {_units(found)}, one grey scale for all. 'vaearr explore' "
        "decodes any combination."
    )
    return section


def _drawn(images: np.ndarray, words: list[str], limits: tuple[float, float]) -> list[str]:
    """Pictures `(k, H, W[, 3])` on one scale, told in words where they are not seen."""
    sources = [png(image, limits, FRAME) for image in images]
    return [f'<img alt="{html.escape(told)}" src="{source}">' for told, source in zip(words, sources, strict=True)]


def _cells(section: Section, cells: list[str]) -> None:
    labels = "".join(f'<label class="dim">{cell}</label>' for cell in cells)
    section.blocks.append(f'{_STYLE}<div class="dims">{labels}</div>')


def _units(found: xr.Dataset) -> str:
    """Units of decoded pictures in words, and what part of a volume they are."""
    about = found["decoded"].attrs
    words = f"Stored units ({about['units']})" if about["scale"] == "stored" else "Preprocessed units"
    return f"Middle slices of volumes. {words}, one grey scale" if depth_dim(found["decoded"]) else words


def _plane(state: State) -> list[Section]:
    """Pictures over the two widest dimensions; none where only one varies."""
    from vaearr.run.traversals import manifold

    dims = [dim for dim in state.widest[:2] if state.spread[dim] > LEAST]
    if len(dims) < 2:
        return []
    section = Section("plane", "Plane")
    found = manifold(state.run, dims=(dims[0], dims[1]), span=(-REACH, REACH), steps=PLANE)
    show(section, view(found), f"decoded pictures over latent {dims[0]} and latent {dims[1]}")
    base = text(found.attrs["base"])
    section.caption(f"The two dimensions that vary most; the others stay as in {base}. {_units(found)}.")
    return [section]


def _classes(state: State, by: str | None) -> list[Section]:
    """Prototypes of the classes; none where no classes are known."""
    from vaearr.run.points import classes_of
    from vaearr.run.traversals import prototypes

    try:
        found = prototypes(state.run, by=by) if classes_of(state.ds, by) is not None else None
    except NoInputError:
        if by is not None:
            raise
        found = None  # none of the encoded samples has a class
    if found is None:
        return []
    section = Section("classes", "Classes")
    typical = as_pictures(found["decoded"].reset_coords(drop=True))
    means = as_pictures(found["decoded_mean"].reset_coords(drop=True))
    limits = robust_limits(np.stack([typical, means]), GREY)
    counts = found["n"].values
    names = [f"{text(name)}, n {count:,}" for name, count in zip(found["class"].values, counts, strict=True)]
    typical_pictures = _drawn(typical, [f"{name}: typical sample" for name in names], limits)
    mean_pictures = _drawn(means, [f"{name}: mean" for name in names], limits)
    cells = []
    for name, typical_picture, mean_picture in zip(names, typical_pictures, mean_pictures, strict=True):
        cells.append(f"{typical_picture}{mean_picture}{html.escape(name)}")
    _cells(section, cells)
    section.caption(
        f"Classes of {text(found.attrs['by'])}: above, a typical sample of each, decoded; below, the mean of its "
        "latents, decoded, which looks like a sample only where the class is of one shape. One grey scale for all."
    )
    return [section]
