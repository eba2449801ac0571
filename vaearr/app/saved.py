"""The explorer as one HTML file: map, samples, sliders that decode, classes and ranking, with nothing to fetch."""

from __future__ import annotations

import inspect
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.palettes import Viridis256

from vaearr import schema
from vaearr.app import saved_decoding as decoding
from vaearr.app import saved_points as points
from vaearr.app.saved_figures import as_script, embedded, figures, library, page
from vaearr.app.saved_machine import MACHINE
from vaearr.app.saved_script import script
from vaearr.app.state import NO_MODEL, State, is_volume, open_state, summary
from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.exploration.bases import Base
from vaearr.exploration.points import USUAL_CLASSES
from vaearr.names import DEFAULT_RUN
from vaearr.plots.common import text
from vaearr.provenance import now, versions

MOST_POINTS = 8000
MEGABYTES = 15.0
LEAST_MEGABYTES = 3.0
LIMITS = "Colours of amounts end at their 1 % and 99 % percentiles."
SHARES = {
    "sliders": 0.4,
    "maps": 0.25,
    "points": 0.15,
    "classes": 0.1,
}  # of what is left beside the library; pictures get the rest


def save_page(
    store: str | Path,
    run: str = DEFAULT_RUN,
    out: str | Path = "explore.html",
    *,
    dims: list[int] | None = None,
    steps: int = 9,
    base: Base = "mean",
    by: str | None = None,
    max_points: int = MOST_POINTS,
    max_megabytes: float = MEGABYTES,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Save the views of a run as one HTML file that works without a network or a server; returns its path.

    Map (of a scan), samples over two latents or stored components, stored pictures, histograms and class prototypes,
    linked by selecting; one slider for each of `dims` (None: all). The decoder itself travels where it can be written
    down (`saved_decoder`), and the page says how far its pictures differ from PyTorch's; else `steps` frames of each
    dimension, decoded here, moved alone from `base` (see `explore.traverse`). by: the map of classes, None for label,
    phase or clusters. At most `max_points` samples by the seed; pictures of as many as fit in `max_megabytes`. What is
    left out is said on the page. Written aside and renamed into place.

    Raises NoInputError for a store, run, latents, map or folder that are not there, ExistsError where the file is and
    `overwrite` is not set, UsageError for settings that cannot be meant.
    """
    target = _checked(Path(out), max_points, max_megabytes, steps, overwrite)
    state = open_state(store, run)
    whole = int(max_megabytes * 1e6)
    budget = whole - len(library()) - len(MACHINE) - len(script()) - 60_000
    numbers, data, plan = _samples(state, max_points, budget, seed)
    found = decoding.decoding(state, base, by, dims, seed)
    data["decoding"] = data["classes"] = None
    if found is not None:
        made = decoding.sliders(found, steps=steps, seed=seed, budget=int(SHARES["sliders"] * budget))
        data |= {"decoding": made, "classes": decoding.class_pictures(found, by, int(SHARES["classes"] * budget))}
    data |= {
        "ranking": decoding.ranking(state),
        "no_network": text(f"No sliders: {NO_MODEL}."),
        "no_ranking": text(f"No table of these latents is stored; {_command(state, 'associate')!r} makes one."),
    }
    if by is not None:
        names = [item["name"] for item in data["layers"]]
        data["layer"] = names.index(by) if by in names else data["layer"]
    left = max(0, budget - len(as_script(data)) - _map_bytes(plan))
    data["thumbnails"] = points.thumbnails(state, numbers, left, seed)
    data["plane_note"] = _plane_note(state, data, len(numbers))
    data["first"] = _first(state, numbers, data["thumbnails"]["which"])
    embed, places = embedded(figures(plan))
    scripts, packed = {"figures": embed, "machine": MACHINE, "view": script()}, as_script(data)
    size = (len(library()) + sum(map(len, scripts.values())) + len(packed.encode())) / 1e6
    given = {
        "dims": dims,
        "base": base,
        "by": by,
        "max_points": max_points,
        "max_megabytes": max_megabytes,
        "seed": seed,
    }
    facts = _facts(state, target.name, given | {"steps": steps}, size)
    html = page(summary(state), facts, packed, places, scripts).encode("utf-8")
    if len(html) > whole:
        raise UsageError(
            f"the page takes {len(html) / 1e6:.1f} MB without any picture, more than max_megabytes={max_megabytes:g}; "
            "allow more, or fewer max_points."
        )
    return _written(target, html)


def _checked(target: Path, max_points: int, max_megabytes: float, steps: int, overwrite: bool) -> Path:
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{target.name!r} is a page and must end in .html.")
    if not target.absolute().parent.is_dir():
        raise NoInputError(f"there is no folder {target.parent}; make it first.")
    if target.is_dir() or (target.exists() and not overwrite):
        raise ExistsError(f"{target} is there already; give another name, or overwrite=True.")
    if max_points < 2:
        raise UsageError(f"max_points is {max_points}; it must be at least 2.")
    if not max_megabytes >= LEAST_MEGABYTES:
        raise UsageError(f"max_megabytes is {max_megabytes:g}; a page needs {LEAST_MEGABYTES:g} or more.")
    if steps < 2:
        raise UsageError(f"steps is {steps}; there must be at least 2.")
    return target


def _samples(state: State, max_points: int, budget: int, seed: int) -> tuple[np.ndarray, dict[str, Any], Any]:
    """Points, what the page holds of them, and the plan of the map (None of a collection)."""
    layers = points.layers(state)
    each = 3 * (len(layers) + points.MOST_SCORES + 8)  # bytes of a point in the page
    most = min(max_points, int(SHARES["points"] * budget) // each)
    numbers = points.chosen_points(state, max(2, most), seed)
    packed = [points.packed_layer(layer, numbers) for layer in layers]
    plan = None
    if state.is_scan:
        plan = points.map_plan(state, len(layers), int(SHARES["maps"] * budget))
        for item, layer in zip(packed, layers, strict=True):
            item["map"] = points.packed_map(layer, plan)
        plan |= {"note": _map_note(plan), "apart": float(np.sqrt(np.prod(state.nav_shape) / len(numbers)))}
    widest = np.argsort(-state.spread, kind="stable")
    names = [layer.name for layer in layers]
    usual = next((names.index(name) for name in USUAL_CLASSES if name in names), int(widest[0]))
    data = {
        "dims": state.dims, "std": state.spread.tolist(), "numbers": numbers.tolist(), "layers": packed, "map": plan,
        "scores": points.scores(state, numbers), "words": points.packed_words(points.point_words(state, numbers)),
        "axes": [int(widest[0]), int(widest[min(1, state.dims - 1)])], "scale": list(Viridis256),
        "layer": int(widest[0]) if state.is_scan else usual,
    }  # fmt: skip
    return numbers, data, plan


def _first(state: State, numbers: np.ndarray, carried: list[int]) -> int:
    """The point that is chosen at first: the one nearest to the middle of the grid, with a picture where one has it."""
    some = np.array(carried) if carried else np.arange(len(numbers))
    places = np.array(np.unravel_index(numbers[some], state.nav_shape)).T
    return int(some[((places - np.array(state.nav_shape) / 2) ** 2).sum(1).argmin()])


def _map_bytes(plan: dict[str, Any] | None) -> int:
    return 0 if plan is None else 6 * plan["down"] * plan["wide"]  # the empty image of the figure


def _map_note(plan: dict[str, Any]) -> str:
    words = []
    if plan["factor"] > 1:
        words.append(f"Cells are means over {plan['factor']} × {plan['factor']} scan points (of classes the first).")
    if len(plan["kept"]) < plan["depth"]:
        words.append(
            f"{len(plan['kept'])} of {plan['depth']} layers are carried, evenly chosen; 'vaearr explore' shows all."
        )
    return " ".join([*words, LIMITS])


def _plane_note(state: State, data: dict[str, Any], count: int) -> str:
    known = int(np.isfinite(state.latents).all(1).sum())
    word = schema.samples_word(state.ds)
    words = [
        f"{count:,} of {known:,} {word} with latents are shown" + (", drawn by the seed." if count < known else ".")
    ]
    found = data["thumbnails"]
    kind = "the middle slice of their stored volume" if is_volume(state) else "their stored picture"
    words.append(f"{len(found['which']):,} of them carry {kind}, each between its 0.5 % and 99.5 % value.")
    (height, width), (rows, columns) = found["stored"], found["shape"][:2]
    if (height, width) != (rows, columns) and found["which"]:
        words.append(f"Pictures are reduced from {height} × {width} to {rows} × {columns} pixels.")
    if not state.is_scan:
        words.append(LIMITS)
    return " ".join(words)


def _command(state: State, name: str, *more: str) -> str:
    run = [] if state.run == DEFAULT_RUN else ["--run", state.run]
    return shlex.join(["vaearr", name, state.path.name, *run, *more])


def _facts(state: State, name: str, given: dict[str, Any], size: float) -> list[str]:
    sha = state.manifest.get("weights_sha256")
    weights = f"weights {text(sha)}" if sha else "latents computed elsewhere"
    version = versions()
    usual = {key: p.default for key, p in inspect.signature(save_page).parameters.items()}
    other = {key: value for key, value in given.items() if repr(value) != repr(usual[key])}
    again = _command(state, "explore", "--save", name)
    if other:
        options = "".join(f", {key}={value!r}" for key, value in other.items())
        again = f"vaearr.app.saved.save_page({state.path.name!r}, {state.run!r}, {name!r}{options})"
    return [
        f"{weights[:20] if sha else weights}, made {now()[:10]}, {size:.1f} MB",
        f"Store {state.path.name}, run {state.run}, {weights}.",
        f"Made {now()} by vaearr {version['vaearr']} (torch {version['torch']}), seed {given['seed']}.",
        f"The same page again: {text(again)}",
    ]


def _written(target: Path, html: bytes) -> Path:
    part = target.with_name(f".{target.name}.part")
    try:
        part.write_bytes(html)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target
