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
from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.names import DEFAULT_RUN
from vaearr.recipe import now, versions
from vaearr.store.folders import replace_file
from vaearr.views import view
from vaearr.views.common import NAN_COLOR, label, robust_limits, text, value_text
from vaearr.views.kinds import show
from vaearr.views.page import Section, page

STEPS, REACH, PLANE = 9, 3.0, 9  # frames of a dimension, the standard deviations they reach, and pictures of a plane
MOST_DIMS, MOST_POINTS, MOST_PICTURES, MOST_CLASSES = 64, 5000, 500, 60
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
    store: str | Path,
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
    pictures are decoded beforehand from -3 to 3 standard deviations about the mean; the plane of the two widest;
    prototypes of the classes of `by` (None: label, phase or clusters). At most 5000 samples, drawn by the seed. What is
    left out is said on the page. Written aside and renamed into place.

    Raises NoInputError for a store, run, latents, map or folder that are not there, ExistsError where the file is and
    `overwrite` is not set, UsageError for settings that cannot be meant.
    """
    target = Path(out)
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{target.name!r} is a page and must end in .html.")
    if not target.absolute().parent.is_dir():
        raise NoInputError(f"there is no folder {target.parent}; make it first.")
    if target.is_dir() or (target.exists() and not overwrite):
        raise ExistsError(f"{target} is there already; give another name, or overwrite it (overwrite=True).")
    state, head = State(store, run), Section("top", "")
    head.say(f"{state.origin_words}; page of {now()}, vaearr {versions()['vaearr']}, seed {seed}.")
    sections = [_maps(state)] if state.is_scan else []
    sections += [_points(state, seed), _sliders(state)]
    if state.has_model:
        sections += [*_plane(state), *_classes(state, by)]
    replace_file(target, page(state.summary, head, sections).encode(), durable=False)
    return target


def _maps(state: State) -> Section:
    """All layers of a scan as maps, one beside the other, each with a chooser."""
    from vaearr.views.explorer import explorer

    section, (dim, *_), layers = Section("maps", "Maps"), state.nav, list(state.layers.values())
    if len(state.nav) == 3:
        middle = state.grid[0] // 2
        layers = [da.isel({dim: middle}) for da in layers]
        where = value_text(state.ds[dim].values[middle], state.ds[dim].attrs)
        section.say(f"The maps show the plane {dim} = {where}; 'vaearr explore' shows all.")
    factor, layers = coarse(layers[0])[1], [coarse(da)[0] for da in layers]
    if factor > 1:
        section.say(f"Cells are means over {factor} × {factor} scan points (of classes the first).")
    count = len(state.mean)
    section.figure(explorer(layers[count:], layers[:count]))
    section.caption(
        "Side map and latent (posterior mean), each chosen above; zoom and cross-hair are linked. Colours run from the "
        "1 % to the 99 % percentile; grey = no value."
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
    of_all = f"{len(numbers):,} of {len(known):,} {schema.samples_word(state.ds)} with latents"
    section.caption(
        f"{of_all}{', drawn by the seed' if len(numbers) < len(known) else ''}; {len(pictured):,} of them carry their "
        "stored picture, seen under the pointer. Draw a box or a lasso (toolbar): they light up on both sides."
    )
    return section


def _linked(state: State, numbers: np.ndarray, columns: dict[str, Any]) -> Any:
    """The figures over one source, with choosers of what lies across, up and in the colours."""
    from bokeh.layouts import column, row
    from bokeh.models import ColumnDataSource, CustomJS, FixedTicker, LinearColorMapper
    from bokeh.models.annotations import ColorBar
    from bokeh.models.widgets import Select
    from bokeh.plotting import figure

    layers = {f"layer{i}": coloured(da.load()) for i, da in enumerate(state.layers.values())}
    keys, words = dict(zip(state.layers, layers, strict=True)), state.axes | {"value": state.first(*COLOURS)}
    start = {name: keys[layer] for name, layer in words.items()}
    columns |= {key: layer.pop("values")[numbers] for key, layer in layers.items()}
    columns |= {name: columns[key] for name, key in start.items()}
    columns |= {dim: state.ds[dim].values[at] for dim, at in state.places(numbers).items()}
    source, shown = ColumnDataSource(columns), layers[start["value"]]
    mapper = LinearColorMapper(
        palette=shown["palette"], low=shown["limits"][0], high=shown["limits"][1], nan_color=NAN_COLOR
    )
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
        drawn.grid.visible = False
        return drawn

    plane = scatter("across", "up", [layers[start[name]]["title"] for name in ("across", "up")], 380)
    plane.add_layout(bar, "right")
    figures = [plane]
    if state.is_scan and len(state.grid) == 2:
        y, x = (state.ds[dim] for dim in state.nav)
        height = int(np.clip(420 * np.ptp(y.values) / max(np.ptp(x.values), 1e-12), 80, 520))
        figures.insert(0, scatter(str(x.name), str(y.name), [label(x), label(y)], height))
        figures[0].y_range.flipped = True
    options: list[Any] = [(key, layer["title"]) for key, layer in layers.items()]
    selects = {
        name: Select(title=heading, value=start[name], width=190, options=options)
        for name, heading in (("across", "Across"), ("up", "Up"), ("value", "Colour"))
    }
    parts = {"selects": selects, "layers": layers, "source": source, "mapper": mapper, "bar": bar, "plane": plane}
    for select in selects.values():
        select.js_on_change("value", CustomJS(args=parts, code=_CHOSEN))
    return column(row(*selects.values()), row(*figures, spacing=20))


# ---- what is decoded


def _sliders(state: State) -> Section:
    """A slider for each dimension, over frames that are decoded here."""
    from vaearr.analysis.exploration.traversals import LATENT_DIM, traverse

    section, dims = Section("sliders", "Sliders"), sorted(state.widest[:MOST_DIMS])
    if not state.has_model:
        section.say(f"No sliders: {NO_MODEL}.")
        return section
    found = traverse(state.path, state.name, dims=dims, span=(-REACH, REACH), steps=STEPS)
    frames = [as_pictures(found["decoded"].sel({LATENT_DIM: dim}).reset_coords(drop=True)) for dim in dims]
    limits, cells = robust_limits(np.stack(frames), GREY), []
    for dim, images in zip(dims, frames, strict=True):
        offsets = [f"{offset:+.2f} std" for offset in np.linspace(-REACH, REACH, STEPS)]
        cells.append(
            f"{_pictures(images, offsets, limits)}<span>latent {dim}: <output></output></span><input type='range' "
            f"min='0' max='{STEPS - 1}' value='{STEPS // 2}' oninput='moved(this)' aria-label='latent {dim}'>"
        )
    _cells(section, cells)
    section.blocks.append('<script>document.querySelectorAll(".dim input").forEach(moved);</script>')
    count = len(state.mean)
    left_out = f" The {len(dims)} of {count} dimensions that vary most." if len(dims) < count else ""
    section.caption(
        f"Each dimension alone, moved from the mean of all samples by up to {REACH:g} of its standard deviations; the "
        f"others stay at the mean. {_units(found)}, one grey scale.{left_out} 'vaearr explore' decodes any combination."
    )
    return section


def _pictures(images: np.ndarray, words: list[str], limits: tuple[float, float]) -> str:
    """Pictures `(k, H, W[, 3])` on one scale, told in words where they are not seen."""
    return "".join(
        f'<img alt="{html.escape(told)}" src="{png(image, limits, FRAME)}">'
        for image, told in zip(images, words, strict=True)
    )


def _cells(section: Section, cells: list[str]) -> None:
    labels = "".join(f'<label class="dim">{cell}</label>' for cell in cells)
    section.blocks.append(f'{_STYLE}<div class="dims">{labels}</div>')


def _units(found: xr.Dataset) -> str:
    """Units of decoded pictures in words, and what part of a volume they are."""
    about = found["decoded"].attrs
    words = f"Stored units ({about['units']})" if about["scale"] == "stored" else "Preprocessed units"
    return f"Middle slices of volumes. {words}" if depth_dim(found["decoded"]) else words


def _plane(state: State) -> list[Section]:
    """Pictures over the two widest dimensions; none where only one varies."""
    from vaearr.analysis.exploration.traversals import manifold

    dims = [dim for dim in state.widest[:2] if state.spread[dim] > LEAST]
    if len(dims) < 2:
        return []
    section = Section("plane", "Plane")
    found = manifold(state.path, state.name, dims=(dims[0], dims[1]), span=(-REACH, REACH), steps=PLANE)
    show(section, view(found), f"decoded pictures over latent {dims[0]} and latent {dims[1]}")
    section.caption(f"The two dimensions that vary most; the others stay at the mean of all samples. {_units(found)}.")
    return [section]


def _classes(state: State, by: str | None) -> list[Section]:
    """Prototypes of the classes; none where no classes are known."""
    from vaearr.analysis.exploration.points import classes_if_any
    from vaearr.analysis.exploration.prototypes import prototypes

    if classes_if_any(state.ds, by) is None:
        return []
    try:
        found = prototypes(state.path, state.name, by)
    except NoInputError:
        if by is not None:
            raise
        return []  # none of the encoded samples has a class
    section = Section("classes", "Classes")
    most = np.sort(np.argsort(-found["n"].values, kind="stable")[:MOST_CLASSES])
    images = as_pictures(found["decoded"].isel({"class": most}).reset_coords(drop=True))
    names = [f"{text(found['class'].values[i])}, n {int(found['n'].values[i]):,}" for i in most]
    limits = robust_limits(images, GREY)
    _cells(section, [_pictures(images[i : i + 1], [name], limits) + html.escape(name) for i, name in enumerate(names)])
    left_out = found.sizes["class"] - len(most)
    more = f" {left_out} smaller classes are left out." if left_out else ""
    section.caption(f"The mean code of each class of {text(found.attrs['by'])}, decoded.{more}")
    return [section]
