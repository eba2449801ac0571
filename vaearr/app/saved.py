"""The explorer as one HTML file: maps, samples, sliders, classes and ranking, with nothing to fetch.

What moves was drawn beforehand: a slider chooses among frames of one dimension, all others stay where they are.
"""

from __future__ import annotations

import html
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.app import state as s
from vaearr.app.state import NO_MODEL, State, open_state, origin_words, summary
from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.names import DEFAULT_RUN
from vaearr.recipe import now, versions
from vaearr.store import open_store
from vaearr.store.folders import replace_file
from vaearr.views.common import as_codes, is_category, label, palette, robust_limits, text, value_text
from vaearr.views.page import Section, page

STEPS, REACH = 9, 3.0  # frames of a dimension, and how many standard deviations they reach to either side
MOST_DIMS, MOST_POINTS, MOST_PICTURES, MOST_CLASSES = 64, 5000, 500, 60
FRAME, THUMBNAIL = 128, 64  # pixels along the longer side

_SLIDERS = """
<style>
.dims { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 16px; }
.dim { display: grid; gap: 4px; justify-items: center; font-size: .85rem; }
.dim div { background-repeat: no-repeat; image-rendering: pixelated; width: 150px; aspect-ratio: var(--ratio); }
.dim input { width: 150px; }
</style>
<script>
function moved(input) {
  const steps = Number(input.max), values = JSON.parse(input.dataset.values), box = input.parentElement;
  box.querySelector("div").style.backgroundPosition = `${(100 * input.value) / steps}% 0`;
  box.querySelector("output").textContent = `${values[input.value]} std`;
}
</script>
"""

_RECOLOUR = """
const of = (select) => layers[Number(select.value)];
source.data.across = source.data[of(across).key];
source.data.up = source.data[of(up).key];
source.data.value = source.data[of(colour).key];
mapper.palette = of(colour).palette;
mapper.low = of(colour).low;
mapper.high = of(colour).high;
bars.forEach((bar, i) => { bar.visible = i === kinds[Number(colour.value)]; });
plane.below[0].axis_label = of(across).title;
plane.left[0].axis_label = of(up).title;
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
    pictures are decoded beforehand from -3 to 3 standard deviations about the mean; prototypes of the classes of `by`
    (None: label, phase or clusters); the stored ranking. At most 5000 samples, drawn by the seed. What is left
    out is said on the page. Written aside and renamed into place.

    Raises NoInputError for a store, run, latents, map or folder that are not there, ExistsError where the file is and
    `overwrite` is not set, UsageError for settings that cannot be meant.
    """
    target = _checked(Path(out), overwrite)
    state = open_state(store, run)
    head = Section("top", "")
    head.say(f"{origin_words(state)}; page of {now()}, vaearr {versions()['vaearr']}, seed {seed}.")
    sections = [_maps(state), _points(state, seed), _sliders(state), _classes(state, by), _ranking(state)]
    text_of_page = page(summary(state), head, [section for section in sections if section is not None])
    replace_file(target, text_of_page.encode(), durable=False)
    return target


def _checked(target: Path, overwrite: bool) -> Path:
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{target.name!r} is a page and must end in .html.")
    if not target.absolute().parent.is_dir():
        raise NoInputError(f"there is no folder {target.parent}; make it first.")
    if target.is_dir() or (target.exists() and not overwrite):
        raise ExistsError(f"{target} is there already; give another name, or overwrite it (overwrite=True).")
    return target


# ---- maps


def _maps(state: State) -> Section | None:
    """All layers of a scan as maps, one beside the other, each with a chooser."""
    if not state.is_scan:
        return None
    from vaearr.views.explorer import explorer

    section = Section("maps", "Maps")
    layers = [s.layer(state, key) for key in s.layers(state).values()]
    (*above, rows, columns) = state.nav_shape
    if above:
        dim = schema.navigation_dims(state.ds)[0]
        layers = [da.isel({dim: above[0] // 2}) for da in layers]
        where = value_text(state.ds[dim].values[above[0] // 2], state.ds[dim].attrs)
        section.say(f"The maps show the plane {dim} = {where}; 'vaearr explore' shows all.")
    factor = int(np.ceil(np.sqrt(max(1.0, rows * columns / s.MOST_CELLS))))
    if factor > 1:
        layers = [s.coarse(da, factor) for da in layers]
        section.say(f"Cells are means over {factor} × {factor} scan points (of classes the first).")
    section.figure(explorer(layers[state.dims :], layers[: state.dims]))
    section.caption(
        "Side map and latent (posterior mean), each chosen above; zoom and cross-hair are linked. Colours run from the "
        "1 % to the 99 % percentile; grey = no value."
    )
    return section


# ---- samples


def _points(state: State, seed: int) -> Section:
    """Samples over two layers, and at their places on the map: one source, so that a selection is in both."""
    from bokeh.models import ColumnDataSource

    section, rng = Section("samples", "Samples"), np.random.default_rng(seed)
    known = np.flatnonzero(np.isfinite(state.latents).all(1))
    numbers = np.sort(rng.choice(known, min(MOST_POINTS, len(known)), replace=False))
    layers, columns = _layers(state, numbers)
    widest = s.widest(state)
    start = {"across": widest[0], "up": widest[min(1, state.dims - 1)], "colour": _first_colour(state, layers)}
    for name, i in zip(("across", "up", "value"), start.values(), strict=True):
        columns[name] = columns[layers[i]["key"]]
    pictured = np.sort(rng.choice(len(numbers), min(MOST_PICTURES, len(numbers)), replace=False))
    pictures = np.full(len(numbers), "data:,", object)
    pictures[pictured] = _thumbnails(state, numbers[pictured])
    source = ColumnDataSource(columns | {"words": _words(state, numbers), "picture": pictures})
    section.figure(_linked(state, layers, start, source))
    of_all = f"{len(numbers):,} of {len(known):,} {schema.samples_word(state.ds)} with latents"
    section.caption(
        f"{of_all}{', drawn by the seed' if len(numbers) < len(known) else ''}; {len(pictured):,} of them carry their "
        "stored picture, seen under the pointer. Draw a box or a lasso (toolbar): they light up on both sides."
    )
    return section


def _linked(state: State, layers: list[dict[str, Any]], start: dict[str, int], source: Any) -> Any:
    """The figures over one source, with choosers of what lies across, up and in the colours."""
    from bokeh.layouts import column, row
    from bokeh.models import BasicTicker, CustomJS, FixedTicker, LinearColorMapper
    from bokeh.models.annotations import ColorBar
    from bokeh.models.widgets import Select

    shown = layers[start["colour"]]
    mapper = LinearColorMapper(palette=shown["palette"], low=shown["low"], high=shown["high"], nan_color="#b8b8b8")
    figures = _figures(state, source, mapper, layers[start["across"]]["title"], layers[start["up"]]["title"])
    plane = figures[-1]
    bars = {}  # one for amounts, one for each set of names
    for names in dict.fromkeys(tuple(layer["names"]) for layer in layers):
        ticker: Any = FixedTicker(ticks=list(range(len(names)))) if names else BasicTicker()
        bars[names] = ColorBar(
            color_mapper=mapper, width=12, ticker=ticker, major_label_overrides=dict(enumerate(names)),
            visible=names == tuple(shown["names"]),
        )  # fmt: skip
        plane.add_layout(bars[names], "right")
    kinds = [list(bars).index(tuple(layer["names"])) for layer in layers]
    titles: list[Any] = [(str(i), layer["title"]) for i, layer in enumerate(layers)]
    selects = {
        name: Select(title=name.capitalize(), value=str(i), width=190, options=titles) for name, i in start.items()
    }
    parts = {"layers": layers, "kinds": kinds, "bars": list(bars.values()), "source": source, "mapper": mapper}
    call = CustomJS(args={**selects, **parts, "plane": plane}, code=_RECOLOUR)
    for select in selects.values():
        select.js_on_change("value", call)
    return column(row(*selects.values()), row(*figures, spacing=20))


def _figures(state: State, source: Any, mapper: Any, across: str, up: str) -> list[Any]:
    """The plane, and before it the places of a 2-D scan."""
    from bokeh.models import HoverTool
    from bokeh.plotting import figure

    options: Any = {
        "tools": "pan,wheel_zoom,box_select,lasso_select,reset,save",
        "frame_height": 380,
        "active_drag": None,
    }
    hover: Any = '<div>@words<br><img src="@picture" alt="" style="image-rendering: pixelated; height: 96px"></div>'
    color: Any = {"field": "value", "transform": mapper}
    plane: Any = figure(frame_width=420, x_axis_label=across, y_axis_label=up, **options)
    figures = [plane]
    plane.scatter("across", "up", source=source, size=5, fill_color=color, line_color=None, nonselection_alpha=0.08)
    if state.is_scan and len(state.nav_shape) == 2:
        y, x = (state.ds[dim] for dim in schema.navigation_dims(state.ds))
        extent = np.ptp(y.values) / max(np.ptp(x.values), 1e-12)
        options["frame_height"] = int(np.clip(420 * extent, 80, 520))
        places: Any = figure(frame_width=420, x_axis_label=label(x), y_axis_label=label(y), **options)
        places.y_range.flipped = True
        places.scatter("place_x", "place_y", source=source, marker="square", size=5, fill_color=color, line_color=None,
                       nonselection_alpha=0.08)  # fmt: skip
        figures.insert(0, places)
    for one in figures:
        one.add_tools(HoverTool(tooltips=hover))
        one.grid.visible = False
    return figures


def _layers(state: State, numbers: np.ndarray) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What samples can be placed and coloured by, and the columns of values."""
    from bokeh.palettes import Viridis256

    known: list[tuple[str, str, np.ndarray, list[str]]] = []  # name, title, values, classes
    for name, values in s.planes(state).items():
        word = "latent" if name == s.LATENTS else name
        known += [(f"{word}:{i}", f"{word} {i}", values[:, i], []) for i in range(values.shape[1])]
    for title, name in s.layers(state).items():
        if not name.startswith("latent:"):
            da = s.layer(state, name)
            codes, classes = as_codes(da) if is_category(da) else (da, [])
            known.append((name, title, np.asarray(codes.values, "f4").ravel(), classes))
    found: list[dict[str, Any]] = []
    columns: dict[str, Any] = {}
    for name, title, values, classes in known:
        finite = values[np.isfinite(values)]
        if not name.startswith("latent:") and (not finite.size or finite.min() == finite.max()):
            continue
        low, high = (-0.5, len(classes) - 0.5) if classes else robust_limits(values)
        colors = palette(len(classes)) if classes else list(Viridis256)
        key = f"v{len(found)}"
        layer = {"title": text(title), "key": key, "name": name, "names": [text(one) for one in classes]}
        found.append(layer | {"low": low, "high": high, "palette": colors})
        columns[key] = values[numbers].astype("f4")
    if state.is_scan and len(state.nav_shape) == 2:
        y, x = (state.ds[dim].values for dim in schema.navigation_dims(state.ds))
        rows, places = np.unravel_index(numbers, state.nav_shape)
        columns |= {"place_x": x[places], "place_y": y[rows]}
    return found, columns


def _first_colour(state: State, layers: list[dict[str, Any]]) -> int:
    names = [layer["name"] for layer in layers]
    usual = ("map:label", f"map:{n.PHASE}", f"map:{n.CLUSTERS}", f"map:{n.BC}")
    return next((names.index(name) for name in usual if name in names), int(np.argmax(state.spread)))


def _words(state: State, numbers: np.ndarray) -> list[str]:
    """Each sample by its coordinates, and the name of its file."""
    places = np.unravel_index(numbers, state.nav_shape)
    parts = []
    for dim, place in zip(schema.navigation_dims(state.ds), places, strict=True):
        coord = state.ds[dim]
        parts.append([f"{dim} = {value_text(coord.values[i], coord.attrs)}" for i in place])
    if not schema.is_scan(state.ds) and "path" in state.ds.variables:
        paths = state.ds["path"].values
        parts.append([text(PurePath(str(paths[i])).name) for i in places[0]])
    return [", ".join(words) for words in zip(*parts, strict=True)]


def _thumbnails(state: State, numbers: np.ndarray) -> list[str]:
    """Stored pictures of samples as PNGs, of volumes the middle slice."""
    at = zip(schema.navigation_dims(state.ds), np.unravel_index(numbers, state.nav_shape), strict=True)
    chosen = open_store(state.path)[n.PATTERNS].isel({dim: xr.DataArray(place, dims="picture") for dim, place in at})
    images = s.as_pictures(chosen.transpose("picture", *schema.signal_dims(state.ds)).load())
    return [s.png(s.reduced(image, THUMBNAIL), robust_limits(image, s.GREY)) for image in images]


# ---- what is decoded


def _sliders(state: State) -> Section:
    """A slider for each dimension, over frames that are decoded here."""
    section = Section("sliders", "Sliders")
    if not state.has_model:
        section.say(f"No sliders: {NO_MODEL}.")
        return section
    from vaearr.analysis.exploration.traversals import LATENT_DIM, traverse

    dims = np.sort(s.widest(state)[:MOST_DIMS]).tolist()
    found = traverse(state.path, state.run, dims, "mean", (-REACH, REACH), STEPS)
    frames = [s.as_pictures(found["decoded"].sel({LATENT_DIM: dim}).reset_coords(drop=True)) for dim in dims]
    limits = robust_limits(np.stack(frames), s.GREY)
    height, width = frames[0].shape[1:3]
    offsets = np.linspace(-REACH, REACH, STEPS)
    values = html.escape(str([f"{value:+.2f}" for value in offsets]).replace("'", '"'))
    rows = []
    for dim, images in zip(dims, frames, strict=True):
        sprite = s.png(np.concatenate([s.reduced(image, FRAME) for image in images], axis=1), limits)
        rows.append(
            f'<label class="dim"><div style="--ratio: {width} / {height}; background-size: {STEPS * 100}% 100%; '
            f'background-image: url({sprite})"></div><span>latent {dim}: <output></output></span>'
            f'<input type="range" min="0" max="{STEPS - 1}" value="{STEPS // 2}" data-values="{values}" '
            'oninput="moved(this)" aria-label="latent ' + str(dim) + '"></label>'
        )
    start = '<script>document.querySelectorAll(".dim input").forEach(moved);</script>'
    section.blocks.append(f'{_SLIDERS}<div class="dims">{"".join(rows)}</div>{start}')
    left_out = f" The {len(dims)} of {state.dims} dimensions that vary most." if len(dims) < state.dims else ""
    slices = " Middle slices of volumes." if s.is_volume(state) else ""
    section.caption(
        f"Each dimension alone, moved from the mean of all samples by up to {REACH:g} of its standard deviations; the "
        f"others stay at the mean. {s.scale_words(state).capitalize()}, one grey scale.{slices}{left_out} 'vaearr "
        "explore' decodes any combination."
    )
    return section


def _classes(state: State, by: str | None) -> Section | None:
    """Prototypes of the classes; None where no classes are known."""
    from vaearr.analysis.exploration.points import classes_if_any
    from vaearr.analysis.exploration.prototypes import prototypes

    if not state.has_model or classes_if_any(state.ds, by) is None:
        return None
    try:
        found = prototypes(state.path, state.run, by)
    except NoInputError:
        if by is not None:
            raise
        return None  # none of the encoded samples has a class
    section = Section("classes", "Classes")
    most = np.sort(np.argsort(-found["n"].values, kind="stable")[:MOST_CLASSES])
    images = s.as_pictures(found["decoded"].isel({"class": most}).reset_coords(drop=True))
    limits, cells = robust_limits(images, s.GREY), []
    for image, i in zip(images, most, strict=True):
        words = html.escape(f"{text(found['class'].values[i])}, n {int(found['n'].values[i]):,}")
        picture = s.png(s.reduced(image, FRAME), limits)
        cells.append(f'<span class="dim"><img src="{picture}" alt="{words}" width="150">{words}</span>')
    section.blocks.append(f'<div class="dims">{"".join(cells)}</div>')
    left_out = found.sizes["class"] - len(most)
    section.caption(
        f"The mean code of each class of {text(found.attrs['by'])}, decoded."
        + (f" {left_out} smaller classes are left out." if left_out else "")
    )
    return section


def _ranking(state: State) -> Section:
    """The strongest latents of each side map, by each measure of the stored table."""
    from vaearr.analysis.association.table import ranking

    section, table = Section("association", "Association"), s.associations(state)
    if table is None:
        section.say("No table of these latents and maps is stored; 'vaearr associate' makes one.")
        return section
    rows: list[list[object]] = []
    for target in table["target"].values:
        for metric in table["metric"].values:
            best = ranking(table, str(metric), str(target), top=3)
            pairs = zip(best[n.LATENT].values, best["value"].values, strict=True)
            words = ", ".join(f"{dim} ({float(value):+.3f})" for dim, value in pairs)
            rows.append([text(target), text(metric), words or "no value"])
    section.table(["side map", "measure", "strongest latents"], rows)
    return section
