"""The parts of a report: what was found, in words, figures and captions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association import element_rgb, ranking
from vaearr.analysis.orientations import kernel_average_misorientation, max_misorientation
from vaearr.errors import VaearrError
from vaearr.output.reporting.facts import Facts, LeftOut, labels_and_n
from vaearr.run.facts import roi_words
from vaearr.store import run_folder
from vaearr.views import on_paper, show, view
from vaearr.views.common import unit
from vaearr.views.explorer import explorer, pack
from vaearr.views.maps import latent_map, side_map_list
from vaearr.views.page import Section
from vaearr.views.words import describe

HEADINGS = {
    "overview": "Overview of the scan",
    "maps": "Latent maps beside side maps",
    "linked": "Strongest latents, map and scatter linked",
    "association": "Association of latents and side maps",
    "decomposition": "Linear decompositions beside the latents",
    "clusters": "Clusters",
    "model": "Model",
    "training": "Training",
    "health": "Health of the latent space",
    "reconstructions": "Reconstructions",
}
MOST_PAIRS, PAIR_POINTS, ALL_PAIR_POINTS = 6, 20_000, 60_000
PAIR_PIXELS = 240_000  # of all maps beside a scatter together: larger scans show fewer pairs
PACKED_MAPS = 5_000_000  # characters of latent maps in the page, which keeps it at about 10 MB
SHEET_MAPS = 64


def _extent(facts: Facts) -> str:
    spans = [
        f"{dim} from {low:g} to {high:g} {unit({'units': units})}".strip()
        for dim, (low, high, units) in facts.description["extent"].items()
    ]
    return f" ({', '.join(spans)})" if spans else ""


def introduction(facts: Facts) -> Section:
    """The head of the page in words."""
    section = Section("top", "")
    d, manifest = facts.description, facts.manifest
    grid = " × ".join(f"{size} ({dim})" for dim, size in d["grid"].items())
    pattern = " × ".join(str(size) for size in d["pattern"].values())
    section.say(
        f"Data: {facts.name}, {grid} scan points{_extent(facts)}, each a pattern of {pattern} pixels ({d['dtype']})."
        if d["kind"] == "scan"
        else f"Data: {facts.name}, {grid} samples of {pattern} values ({d['dtype']})."
    )
    config = manifest.get("config") or {}
    model = config.get("model") or {}
    is_scan, one = schema.is_scan(facts.ds), schema.samples_word(facts.ds)
    section.say(
        f"Region of interest: {facts.n_roi:,} of {facts.n_grid:,} {'points' if is_scan else one} "
        f"({facts.n_roi / facts.n_grid:.1%}): {roi_words(manifest.get('roi'), one)}."
        f"{' Points outside are grey in the latent maps.' if is_scan else ''}"
    )
    size = facts.latents.sizes[facts.latent_dim]
    epochs = f", {manifest['epochs_run']} epochs" if "epochs_run" in manifest else ""
    if manifest.get("kind") == n.ATTACHED:
        section.say(
            f"Run “{facts.run}”: {size} latent dimensions computed elsewhere, attached {manifest['time']} from "
            f"{manifest['config'][n.ATTACHED]['values']['file']}."
        )
    else:
        made = "trained elsewhere, taken here" if manifest.get("kind") == n.IMPORTED else "trained"
        section.say(
            f"Run “{facts.run}”: model {model.get('name', 'unknown')} with {size} latent dimensions{epochs}, {made} "
            f"{manifest.get('time', 'at an unknown time')}. Latents are posterior means, without unit."
        )
    section.say(f"Report of {facts.created}, vaearr {facts.versions.get('vaearr', '')}, store {facts.store.name}.")
    if facts.plane:
        section.say(f"Maps show the plane {facts.plane}; associations are over the whole volume.")
    for warning in facts.warnings:
        section.say(f"Warning: {warning}", "note")
    if facts.health is not None and not facts.warnings:
        active = int(facts.health["is_active"].sum())
        section.say(f"No sign of posterior collapse: {active} of {size} latent dimensions are in use.", "note good")
    return section


def overview(facts: Facts, figures: dict[str, Any]) -> Section:
    """Band contrast, elements, phase."""
    facts.need_plane()
    section = Section("overview", HEADINGS["overview"])
    figures["side_maps"] = view(facts.ds, "matplotlib", kind="side_maps", roi=facts.roi)
    section.picture(figures["side_maps"], "band contrast, element and phase maps", dpi=110)
    section.caption(
        "Side maps in scan coordinates, with units in the headings. Colours run from the 1 % to the 99 % percentile of "
        "each map; grey = not measured or not indexed. The line is the border of the region of interest."
    )
    if n.ELEMENTS in facts.ds and facts.ds.sizes[n.ELEMENT] > 1:
        _element_colours(facts, section, figures)
    if n.QUATERNION in facts.ds:
        _misorientation(facts, section, figures)
    return section


def _element_colours(facts: Facts, section: Section, figures: dict[str, Any]) -> None:
    """The up to three elements that vary most, as red, green and blue."""
    elements = facts.ds[n.ELEMENTS]
    spread = elements.std([dim for dim in elements.dims if dim != n.ELEMENT]).fillna(0)
    chosen = [str(elements[n.ELEMENT].values[i]) for i in np.argsort(-spread.values, kind="stable")[:3]]
    rgb = element_rgb(facts.ds, chosen, (0.01, 0.99), roi=facts.roi)
    figures["elements_rgb"] = view(rgb, "matplotlib", kind="rgb", roi=facts.roi)
    section.picture(figures["elements_rgb"], f"{', '.join(chosen)} as colours", dpi=110)
    section.caption(
        f"{', '.join(chosen)}, which vary most, as colours; each from its 1 % to its 99 % percentile in the region."
    )


def _misorientation(facts: Facts, section: Section, figures: dict[str, Any]) -> None:
    """Kernel average misorientation and the largest misorientation with a neighbour."""
    try:
        kam, largest = kernel_average_misorientation(facts.ds), max_misorientation(facts.ds)
    except VaearrError as reason:
        section.say(f"No map of misorientation: {reason}", "note")
        return
    for name, da in (("kernel_average_misorientation", kam), ("largest_misorientation", largest)):
        figures[name] = view(da.rename(name), "matplotlib", roi=facts.roi)
        section.picture(figures[name], name.replace("_", " "), dpi=110)
    section.caption(
        "From the orientations: mean misorientation with the neighbours of the same grain (up to 5 degrees), and the "
        "largest with any neighbour of the same phase; degrees, grey = not indexed."
    )


def latents_by_strength(facts: Facts) -> list[int]:
    """Latents, those with the strongest association (else the largest KL) first."""
    names = facts.ds[facts.latent_dim].values.tolist() if facts.latent_dim in facts.ds.coords else None
    known = names if names is not None else list(range(facts.latents.sizes[facts.latent_dim]))
    if facts.table is not None:
        strength = abs(facts.table.isel(metric=0)).fillna(-1).max("target").values
    elif facts.health is not None:
        strength = facts.health["kl"].values
    else:
        return list(known)
    return [known[i] for i in np.argsort(-strength, kind="stable")]


def explorer_section(facts: Facts, max_maps: int, figures: dict[str, Any]) -> Section:
    """All latent maps (or the most telling), selectable, beside the side maps."""
    facts.need_plane()
    section = Section("maps", HEADINGS["maps"])
    order = latents_by_strength(facts)
    chosen = sorted(fitting(facts, order[:max_maps]))
    section.figure(explorer(side_map_list(facts.ds), [latent_map(facts.ds, facts.run, k) for k in chosen], facts.roi))
    section.caption(
        "Left: side map, right: latent (posterior mean, no unit), each chosen above the map. Zoom and cross-hair are "
        "linked. Colours run from the 1 % to the 99 % percentile of the map; values here are rounded to 1/126 of that "
        "range and cut at its ends, the store holds them in full. Grey = outside the region of interest or missing."
    )
    if len(chosen) < len(order):
        section.say(
            f"The page holds the {len(chosen)} of {len(order)} latents with the strongest association "
            f"(setting max_maps = {max_maps}, and a page of about 10 MB at most); the store holds all of them.", "note",
        )  # fmt: skip
    figures["latent_maps"] = view(facts.latents, "matplotlib", kind="stack", entries=chosen[:SHEET_MAPS])
    return section


def fitting(facts: Facts, order: list[int]) -> list[int]:
    """The first latents of an order whose maps together are not too much for a page; at least one."""
    total, chosen = 0, list[int]()
    for latent in order:
        total += len(pack(latent_map(facts.ds, facts.run, latent))["data"])
        if chosen and total > PACKED_MAPS:
            break
        chosen.append(latent)
    return chosen


def linked(facts: Facts, figures: dict[str, Any]) -> Section:
    """For each target its strongest latent, map and scatter linked."""
    facts.need_plane()
    if facts.table is None:
        raise LeftOut(facts.no_table)
    section = Section("linked", HEADINGS["linked"])
    most_pairs = int(np.clip(PAIR_PIXELS // max(facts.n_grid, 1), 2, MOST_PAIRS))
    pairs = strongest_pairs(facts.table, most_pairs)
    if not pairs:
        raise LeftOut("no latent has an association with any target (all are constant or missing).")
    section.say(
        "Draw a box or a lasso (toolbar) in a scatter or on a map: the same scan points light up on the other "
        "side. A double click ends the selection."
    )
    most = min(PAIR_POINTS, ALL_PAIR_POINTS // len(pairs))
    for target, latent in pairs:
        name = f"latent_{latent}_against_{slug(target)}"
        pair: dict[str, Any] = {
            "run": facts.run,
            "latent": latent,
            "target": target,
            "roi": facts.roi,
            "most_points": most,
        }
        figures[name] = show_both(section, view(facts.ds, kind="map_scatter", **pair), name)
    metric = str(facts.table["metric"].values[0])
    which = "each target" if len(pairs) < most_pairs else f"{len(pairs)} targets (band contrast, then the strongest)"
    section.caption(
        f"For {which} the latent with the largest |{metric}|, as a map (no unit) and against the target. r is "
        f"Pearson's, over all n points of the region; a scatter shows at most {most:,} of them, drawn at random "
        "(seed 0). For a phase the scatter is against band contrast, points of that phase in orange."
    )
    return section


def strongest_pairs(table: xr.DataArray, most: int) -> list[tuple[str, int]]:
    """(target, latent) of the strongest association of each target: BC first, one phase only, at most `most`."""
    metric = str(table["metric"].values[0])
    found = []
    for target in labels_and_n(table)[0]:
        best = ranking(table, metric, target, top=1)
        if best.sizes["rank"]:
            found.append((target, int(best[n.LATENT][0]), abs(float(best["value"][0]))))
    found.sort(key=lambda item: (item[0] != n.BC, -item[2]))
    pairs, phase_seen = [], False
    for target, latent, _ in found:
        if target.startswith(f"{n.PHASE}: "):
            if phase_seen:  # of two phases one is the mirror image of the other
                continue
            phase_seen = True
        pairs.append((target, latent))
    return pairs[:most]


def has_model(facts: Facts) -> bool:
    """Whether the run has a network; attached latents, for example, have none."""
    return (run_folder(facts.store, facts.run) / n.MODEL).is_dir()


def model(facts: Facts, figures: dict[str, Any]) -> Section:
    """The network as a picture, and its layers."""
    from vaearr.models.artifacts import load_model
    from vaearr.models.card import model_card

    card = model_card(load_model(facts.store, facts.run))
    section = Section("model", HEADINGS["model"])
    figures["model"] = view(card)
    section.picture(figures["model"], "the network from input to output", dpi=170)
    section.caption(
        "A bar is what is run at one resolution, as wide as its feature maps have rows, to scale; to the left its "
        "blocks and layers, to the right channels, positions and parameters."
    )
    section.folded("All layers, in order of execution", "\n".join(describe(card, "network")))
    return section


def training(facts: Facts, figures: dict[str, Any]) -> Section:
    """Loss curves."""
    if facts.history is None:
        raise LeftOut("the run has no training history.")
    section = Section("training", HEADINGS["training"])
    figures["loss_curves"] = show_both(section, view(facts.history, kind="history"), "loss curves")
    best = facts.manifest.get("best_epoch")
    note = f" The weights are those of epoch {best}." if best is not None else ""
    amplitude = (
        " The amplitude NLL is that of the point's own pattern at the decoded strength; the reconstruction NLL is "
        "that of its partner's."
        if "amplitude_nll" in facts.history
        else ""
    )
    section.caption(
        f"Loss = reconstruction NLL {'+ amplitude NLL ' if amplitude else ''}+ beta × KL, in nats per sample, lower is "
        f"better; NLL is summed over the pixels of a pattern, KL over the latents.{amplitude} Validation points were "
        f"never trained on.{note}"
    )
    if facts.sheets is not None:
        figures["progress"] = view(facts.sheets, kind="progress")
        section.picture(figures["progress"], "samples decoded as training went on", dpi=170)
        section.caption(
            "The same validation patterns and the same draws from the prior, decoded after the epochs named on the "
            "left; preprocessed units, one grey scale per row."
        )
    return section


def health(facts: Facts, figures: dict[str, Any]) -> Section:
    """KL of each latent, as bars and table."""
    if facts.health is None:
        raise LeftOut("the run has no table of latent health.")
    section = Section("health", HEADINGS["health"])
    found = facts.health
    figures["latent_health"] = show_both(section, view(found, kind="run_health"), "KL of each latent")
    explained = found.attrs.get("explained_variance")
    share = f" The reconstruction explains {float(explained):.1%} of the patterns' variance." if explained else ""
    section.caption(
        "Kullback-Leibler divergence of each latent from the prior, in nats per sample. A latent near 0 "
        f"carries nothing about the pattern (grey).{share}"
    )
    rows = [
        [int(k), float(kl), float(variance), "in use" if on else "unused"]
        for k, kl, variance, on in zip(
            found[n.LATENT].values, found["kl"].values, found["mean_variance"].values, found["is_active"].values,
            strict=True,
        )
    ]  # fmt: skip
    section.table(["latent", "KL (nats)", "variance of the posterior mean", "state"], rows)
    return section


def reconstructions(
    facts: Facts, samples: xr.Dataset | Callable[[], xr.Dataset] | None, figures: dict[str, Any]
) -> Section:
    """Patterns, reconstructions, residuals."""
    if samples is None:
        from vaearr.run.reconstruct import reconstruct

        samples = reconstruct(facts.store, run=facts.run)
    elif callable(samples):
        samples = samples()
    section = Section("reconstructions", HEADINGS["reconstructions"])
    figures["reconstructions"] = view(samples, kind="patterns")
    section.picture(figures["reconstructions"], "patterns, their reconstructions and residuals", dpi=170)
    section.caption(
        "Scan points by coordinate. Top: pattern as the network sees it (after preprocessing); middle: decoded "
        "posterior mean, same grey scale (0.5–99.5 % of all); bottom: reconstruction − original, blue negative, red "
        "positive, a scale of the same width centred at 0."
    )
    return section


def provenance(facts: Facts) -> Section:
    """Settings and origins, folded."""
    section = Section("provenance", "Parameters and provenance")
    section.folded("Training parameters", _pretty(facts.manifest.get("config")))
    section.folded("Run", _pretty({k: v for k, v in facts.manifest.items() if k != "config"}))
    section.folded("Latents", _pretty(facts.latents.attrs))
    section.folded("Dataset", _pretty(facts.ds.attrs))
    section.folded("Versions of this report", _pretty(facts.versions))
    return section


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, default=str, ensure_ascii=False)


def show_both(section: Section, shown: Any, alt: str) -> Any:
    """Put a view into the page, and return it as a figure."""
    show(section, shown, alt)
    return on_paper(shown)


def slug(label: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in label).strip("_") or "target"
