"""The parts of a report: what was found, in words, figures and captions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association import P_ADJUSTED, element_rgb, ranking
from vaearr.analysis.clustering import boundary_segments
from vaearr.output.reporting.contents import Absent, Contents, LeftOut
from vaearr.run.facts import run_facts, run_lines
from vaearr.run.reconstruct import reconstruct
from vaearr.views import view
from vaearr.views.describe import describe
from vaearr.views.explorer import explorer
from vaearr.views.maps import latent_map, side_map_list
from vaearr.views.page import Section

MOST_PAIRS, PAIR_POINTS = 6, 10_000
PAIR_PIXELS = 240_000  # of all maps beside a scatter together: larger scans show fewer pairs
PACKED_MAPS = 10_000_000  # scan points of all latent maps in the page, which keeps it at about 10 MB
SHEET_MAPS = 64
MOST_METRICS, MOST_CLUSTERINGS, CLUSTER_POINTS = 2, 3, 8_000
SHOWN_SCORES = ("ari", "nmi", "homogeneity", "completeness", "hungarian_accuracy")


def introduction(contents: Contents) -> Section:
    """The head of the page in words."""
    section = Section("top", "")
    run = contents.config.run
    description = schema.describe(contents.whole)
    grid = " × ".join(f"{size} {dim}" for dim, size in description["grid"].items())
    pattern = " × ".join(f"{size} {dim}" for dim, size in description["pattern"].items())
    samples = schema.samples_word(contents.ds)
    section.say(f"Data: {contents.name}, {samples} {grid}, each of {pattern} values ({description['dtype']}).")
    head, *lines = run_lines(run_facts(contents.store, contents.whole, run), samples)
    section.say(f"Run “{run}”: {head}.")
    for line in lines:
        section.say(f"{line[0].upper()}{line[1:]}.", "note" if line.startswith("warning") else "")
    version = contents.versions["vaearr"]
    section.say(f"Report of {contents.created}, vaearr {version}, store {contents.store.name}.")
    if contents.plane:
        section.say(f"Maps show the plane {contents.plane}; associations are over the whole volume.")
    return section


def overview(contents: Contents, section: Section) -> None:
    """Band contrast, elements, phase; the elements as colours."""
    contents.need_plane()
    ds = contents.ds
    contents.show(section, "side_maps", ds, "matplotlib", kind="side_maps", roi=contents.roi)
    if n.ELEMENTS not in ds or ds.sizes[n.ELEMENT] == 1:
        return
    map_dims = [dim for dim in ds[n.ELEMENTS].dims if dim != n.ELEMENT]
    spread = ds[n.ELEMENTS].std(map_dims).fillna(0).values
    most_varied = np.argsort(-spread, kind="stable")[:3]
    elements = [str(ds[n.ELEMENT].values[i]) for i in most_varied]
    rgb = element_rgb(ds, elements, (0.01, 0.99), roi=contents.roi)
    contents.show(section, "elements_rgb", rgb, "matplotlib", kind="rgb", roi=contents.roi)


def maps(contents: Contents, section: Section) -> None:
    """All latent maps (or those with the strongest associations), selectable, next to the side maps."""
    contents.need_plane()
    ds, run = contents.ds, contents.config.run
    count = min(contents.config.max_maps, max(1, PACKED_MAPS // contents.n_grid))
    chosen = sorted(contents.order[:count])
    latent_maps = [latent_map(ds, run, label) for label in chosen]
    section.figure(explorer(side_map_list(ds), latent_maps, contents.roi))
    section.caption("Left: side map, right: latent, each chosen above the map; zoom and cross-hair are linked.")
    total = len(contents.order)
    if count < total:
        section.say(
            f"{count} of {total} latents, the strongest first; the setting max_maps changes the number.", "note"
        )
    contents.figures["latent_maps"] = view(contents.latents, "matplotlib", kind="stack", entries=chosen[:SHEET_MAPS])


def linked(contents: Contents, section: Section) -> None:
    """For each target its strongest latent, map and scatter linked: band contrast first, then the strongest."""
    contents.need_plane()
    strongest = {}
    for target in contents.targets:
        best = contents.strongest(target)
        if best is not None:
            strongest[target] = best
    if not strongest:
        raise LeftOut("no latent has an association with any target (all are constant or missing).")
    targets = sorted(strongest, key=lambda target: (target != n.BC, -abs(strongest[target][1])))
    phases = [target for target in targets if target.startswith(f"{n.PHASE}: ")]
    targets = [target for target in targets if target not in phases[1:]]  # of two phases, one mirrors the other
    count = int(np.clip(PAIR_PIXELS // max(contents.n_grid, 1), 2, MOST_PAIRS))
    options: dict[str, Any] = {"run": contents.config.run, "roi": contents.roi, "most_points": PAIR_POINTS}
    for target in targets[:count]:
        latent, _ = strongest[target]
        key = f"latent_{latent}_against_{_plain_name(target)}"
        contents.show(section, key, contents.ds, kind="map_scatter", latent=latent, target=target, **options)
    shown = min(count, len(targets))
    section.say(f"For {shown} of {len(targets)} targets, the latent with the largest |{contents.metric}|.")


def _plain_name(target: str) -> str:
    """A target as part of a file name."""
    letters = [letter if letter.isalnum() and letter.isascii() else "_" for letter in target]
    return "".join(letters).strip("_") or "target"


def association(contents: Contents, section: Section) -> None:
    """Heat maps and ranking table."""
    found = contents.need_association()
    table = contents.table
    metrics = [str(name) for name in table["metric"].values]
    for i, metric in enumerate(metrics):
        place = section if i < MOST_METRICS else Section("", "")  # further ones only in png/
        contents.show(place, f"association_{metric}", found, kind="association", metric=metric)
    if P_ADJUSTED in found:
        section.say("Dots: adjusted p < 0.05 against surrogate maps of the same smoothness as the target.")
    else:
        section.say(
            "No value is a proof: neighbouring scan points are not independent. 'vaearr associate --significance' "
            "tests against surrogate maps of the same smoothness."
        )
    formulas = []
    for metric, definition in table.attrs.get("metrics", {}).items():
        formulas.append(f"{metric}: {definition['formula']} ({definition['reference']})")
    section.folded("How the metrics are defined", "\n".join(formulas))
    top = 3 if len(metrics) <= 3 else 1
    rows: list[list[object]] = []
    for target, count in contents.targets.items():
        rows.append([target, count, *(_strongest(found, metric, target, top) for metric in metrics)])
    section.table(["target", "n", *(f"strongest latents, {metric}" for metric in metrics)], rows)


def _strongest(found: xr.Dataset, metric: str, target: str, top: int) -> str:
    """The latents that are most strongly associated with a target, such as "3 (+0.50, p = 0.01), 7 (-0.31)"."""
    best = ranking(found["association"], metric, target, top)
    words = []
    for latent, value in zip(best[n.LATENT].values, best["value"].values, strict=True):
        number = f"{value:+.2f}"
        if P_ADJUSTED in found:
            p_value = float(found[P_ADJUSTED].sel(metric=metric, target=target, latent=latent))
            number += ", too smooth for a p-value" if np.isnan(p_value) else f", p = {p_value:.2g}"
        words.append(f"{latent} ({number})")
    return ", ".join(words) or "no value"


def decomposition(contents: Contents, section: Section) -> None:
    """Components, explained variance, and how the best of them compares with the best latent."""
    if not contents.decompositions:
        raise LeftOut("the store holds no linear decomposition to compare with; 'vaearr embed STORE' adds one.")
    for name in contents.decompositions:
        for part, kind in (("explained_variance_ratio", "variance"), ("components", "components")):
            if f"{name}_{part}" in contents.ds:
                contents.show(section, f"{name}_{kind}", contents.ds[f"{name}_{part}"], kind=kind)
    if not contents.has_association:
        section.say("No latent and no component is compared with anything: there is no association.", "note")
        return
    tables = {"latents": contents.table, **contents.rivals}
    rows: list[list[object]] = []
    for target, count in contents.targets.items():
        row: list[object] = [target, count]
        for table in tables.values():
            best = contents.strongest(target, table)
            row.append("no value" if best is None else f"{best[1]:+.2f} ({best[0]})")
        rows.append(row)
    section.table(["target", "n", *tables], rows)
    section.caption(
        f"The strongest single dimension of each, by |{contents.metric}|, over the same points. A latent that does no "
        "better than a principal component tells nothing new about that target."
    )


def clusters(contents: Contents, section: Section) -> None:
    """Cluster maps of the run, each shaded by a latent beside a scatter, in numbers, against the phases."""
    contents.need_plane()
    if not contents.clusterings:
        option = "" if contents.config.run == n.DEFAULT_RUN else f" --run {contents.config.run}"
        raise LeftOut(f"the run has no clusters; 'vaearr cluster STORE{option}' finds some.")
    names = contents.clusterings
    for name in names[-MOST_CLUSTERINGS:]:
        _clustering(contents, section, name)
    not_shown = names[:-MOST_CLUSTERINGS]
    if not_shown:
        section.say(f"Not shown here: {', '.join(not_shown)}.", "note")


def _clustering(contents: Contents, section: Section, name: str) -> None:
    """One cluster map: the sheet, its clusters in numbers, and its agreement with the phases."""
    labels = contents.ds[name]
    attrs = labels.attrs
    section.say(
        f"{name}: {attrs.get('k')} clusters of {attrs.get('n'):,} scan points by {attrs['method']}, of "
        f"{len(attrs.get('features', []))} features; noise: {attrs.get('n_noise', 0):,} points."
    )
    notes = [*attrs.get("warnings", []), attrs.get("approximation")]
    for note in notes:
        if note:
            section.say(str(note), "note")
    if (labels >= n.NOISE).any():
        latent, target = _pair(contents)
        options: dict[str, Any] = {"segments": boundary_segments(labels), "most_points": CLUSTER_POINTS}
        contents.show(section, f"{name}_sheet", labels, kind="clusters", latent=latent, target=target, **options)
    if name in contents.cluster_summaries:
        summary = contents.cluster_summaries[name]
        table = summary[["count", "share"]].to_dataframe().reset_index()
        for feature in summary["feature"].values:
            of_feature = summary.sel(feature=feature)
            means, deviations = of_feature["mean"].values, of_feature["std"].values
            table[str(feature)] = [f"{mean:.4g} ± {std:.2g}" for mean, std in zip(means, deviations, strict=True)]
        section.table([*map(str, table)], table.values.tolist())
        section.caption("Mean ± standard deviation of the maps in each cluster, in their own units.")
    if name in contents.cluster_agreements:
        scores = contents.cluster_agreements[name]
        phase = contents.ds[n.PHASE]
        section.table(["agreement with the phases", "value"], [[key, float(scores[key])] for key in SHOWN_SCORES])
        options = {"segments": boundary_segments(phase), "scores": {"ARI": float(scores["ari"])}}
        contents.show(
            section, f"{name}_against_phase", labels, "matplotlib", kind="comparison", reference=phase, **options
        )
        contents.figures[f"{name}_confusion"] = view(scores["confusion"], "matplotlib", kind="confusion")


def _pair(contents: Contents) -> tuple[xr.DataArray, xr.DataArray]:
    """The latent and the target of the scatter: band contrast and its strongest latent, else the two strongest."""
    ds, run, order = contents.ds, contents.config.run, contents.order
    if n.BC not in ds:
        return latent_map(ds, run, order[0]), latent_map(ds, run, order[min(1, len(order) - 1)])
    best = contents.strongest(n.BC) if contents.has_association and n.BC in contents.targets else None
    return latent_map(ds, run, best[0] if best else order[0]), ds[n.BC]


def model(contents: Contents, section: Section) -> None:
    """The network as a picture, and its layers."""
    if contents.manifest.get("kind") == n.ATTACHED:
        raise Absent("the latents were computed elsewhere, so there is no network.")
    from vaearr.models.card import model_card

    card = model_card(contents.run.model)
    contents.show(section, "model", card, kind="network")
    section.folded("All layers, in order of execution", "\n".join(describe(card, top=card.sizes["layer"])))


def training(contents: Contents, section: Section) -> None:
    """Loss curves."""
    if contents.history is None:
        raise LeftOut("the run has no training history.")
    contents.show(section, "loss_curves", contents.history, kind="history")
    section.say(f"The weights are those of epoch {contents.manifest.get('best_epoch', 'that was last')}.")
    if contents.sheets is not None:
        contents.show(section, "progress", contents.sheets, kind="progress")


def health(contents: Contents, section: Section) -> None:
    """KL of each latent, as bars and table."""
    found = contents.health
    if found is None:
        raise LeftOut("the run has no table of latent health.")
    contents.show(section, "latent_health", found, kind="run_health")
    table = found[["kl", "mean_variance", "is_active"]].to_dataframe().reset_index()
    section.table(["latent", "KL (nats)", "variance of the posterior mean", "in use"], table.values.tolist())


def reconstructions(contents: Contents, section: Section) -> None:
    """Patterns, reconstructions, residuals."""
    samples = reconstruct(contents.run, run=contents.config.run)
    contents.show(section, "reconstructions", samples, kind="reconstruction")


def provenance(contents: Contents) -> Section:
    """Settings and origins, folded."""
    section = Section("provenance", "Parameters and provenance")
    manifest = dict(contents.manifest)
    parts = {
        "Training parameters": manifest.pop("config"),
        "Run": manifest,
        "Latents": contents.latents.attrs,
        "Dataset": contents.whole.attrs,
        "Versions of this report": contents.versions,
    }
    for heading, values in parts.items():
        section.folded(heading, json.dumps(values, indent=2, default=str, ensure_ascii=False))
    return section


PARTS: dict[str, tuple[str, Callable[[Contents, Section], None]]] = {
    "overview": ("Overview of the scan", overview),
    "maps": ("Latent maps beside side maps", maps),
    "linked": ("Strongest latents, map and scatter linked", linked),
    "association": ("Association of latents and side maps", association),
    "decomposition": ("Linear decompositions beside the latents", decomposition),
    "clusters": ("Clusters", clusters),
    "model": ("Model", model),
    "training": ("Training", training),
    "health": ("Health of the latent space", health),
    "reconstructions": ("Reconstructions", reconstructions),
}
