"""The parts of a report about what latents mean: association, decompositions beside them, clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association import P_ADJUSTED, ranking
from vaearr.analysis.clustering import boundary_segments
from vaearr.output.reporting.facts import Clustering, Facts, LeftOut, labels_and_n
from vaearr.output.reporting.sections import HEADINGS, latents_by_strength, show_both, slug
from vaearr.views import show, view
from vaearr.views.maps import latent_map
from vaearr.views.page import Section
from vaearr.views.words import strongest

MOST_METRICS, MOST_CLUSTERINGS, CLUSTER_POINTS = 2, 3, 8_000
SHOWN_SCORES = ("ari", "nmi", "homogeneity", "completeness", "hungarian_accuracy")


def association(facts: Facts, figures: dict[str, Any]) -> Section:
    """Heat maps and ranking table."""
    if facts.table is None:
        raise LeftOut(facts.no_table)
    section = Section("association", HEADINGS["association"])
    table, p = facts.table, None if facts.tested is None else facts.tested[P_ADJUSTED]
    metrics = [str(name) for name in table["metric"].values]
    labels, counts = labels_and_n(table)
    for metric in metrics[:MOST_METRICS]:
        show(section, view(table, kind="association", metric=metric, p_adjusted=p), metric)
    for metric in metrics:
        figures[f"association_{metric}"] = view(table, "matplotlib", kind="association", metric=metric, p_adjusted=p)
    if len(metrics) > MOST_METRICS:
        show(section, view(table, kind="association", target=labels[0], p_adjusted=p), labels[0])
        for label in labels:
            shown = view(table, "matplotlib", kind="association", target=label, p_adjusted=p)
            figures[f"metrics_{slug(label)}"] = shown
    about = table.attrs.get("metrics", {})
    section.caption(
        "Rows are side maps (of the last figure, if there are many metrics: these), columns latents; values have no "
        "unit, grey = no value."
    )
    formulas = [f"{name}: {item['formula']} ({item['reference']})" for name, item in about.items()]
    section.folded("How the metrics are defined", "\n".join(formulas))
    section.caption(
        "Dots: adjusted p < 0.05 against surrogate maps that are as smooth as the target."
        if p is not None
        else "No value is a proof: neighbouring scan points are not independent. 'vaearr associate --significance' "
        "tests against surrogate maps that are as smooth."
    )
    rows = [
        [label, count, *(_strongest(facts, metric, label, 3 if len(metrics) <= 3 else 1) for metric in metrics)]
        for label, count in zip(labels, counts, strict=True)
    ]
    section.table(["target", "n", *(f"strongest latents, {m}" for m in metrics)], rows)
    section.caption("The strongest latents of each target, by absolute value; n = finite scan points.")
    if facts.classes:
        section.table(["phases as a whole", *facts.classes], _whole(facts.classes))
        section.caption(
            "The strongest dimension and its number. eta_squared: share of its variance that the phase explains; "
            "adjusted_mutual_information: with the dimension in equally full bins, 0 by chance."
        )
    return section


def _strongest(facts: Facts, metric: str, target: str, top: int) -> str:
    assert facts.table is not None
    words = strongest(facts.table if facts.tested is None else facts.tested, metric, target, top)
    return ", ".join(words) or "no value"


def _whole(classes: dict[str, xr.DataArray]) -> list[list[object]]:
    rows: list[list[object]] = []
    for metric in map(str, next(iter(classes.values()))["metric"].values):
        row: list[object] = [metric]
        for values in classes.values():
            one = values.sel(metric=metric).fillna(-np.inf)
            best = int(one.argmax(n.LATENT))
            known = np.isfinite(float(one[best]))
            row.append(f"{float(one[best]):.2f} ({int(one[n.LATENT][best])})" if known else "no value")
        rows.append(row)
    return rows


def decomposition(facts: Facts, figures: dict[str, Any]) -> Section:
    """Components, explained variance, and how the best of them compares with the best latent."""
    names = [str(v).removesuffix("_components") for v in facts.ds.data_vars if str(v).endswith("_components")]
    if not names and not facts.rivals:
        raise LeftOut("the store holds no linear decomposition to compare with; 'vaearr embed STORE' adds one.")
    section = Section("decomposition", HEADINGS["decomposition"])
    for name in names:
        ratio = facts.ds.get(f"{name}_explained_variance_ratio")
        if ratio is not None:
            alt = f"variance explained by {name}"
            figures[f"{name}_variance"] = show_both(section, view(ratio, kind="variance"), alt)
        figures[f"{name}_components"] = view(facts.ds[f"{name}_components"], kind="components")
        section.picture(figures[f"{name}_components"], f"components of {name}", dpi=130)
    if facts.table is None:
        section.say(facts.no_table, "note")
        return section
    metric = str(facts.table["metric"].values[0])
    rows = []
    for label, count in zip(*labels_and_n(facts.table), strict=True):
        row: list[object] = [label, count, _best(facts.table, metric, label)]
        rows.append(row + [_best(rival, metric, label) for rival in facts.rivals.values()])
    section.table(["target", "n", "latents", *facts.rivals], rows)
    section.caption(
        f"The strongest single dimension of each, by |{metric}|, over the same points. A latent that does no better "
        "than a principal component tells nothing new about that target."
    )
    return section


def _best(table: xr.DataArray, metric: str, target: str) -> str:
    best = ranking(table, metric, target if "target" in table.dims else None, top=1)
    return f"{float(best['value'][0]):+.2f} ({int(best[n.LATENT][0])})" if best.sizes["rank"] else "no value"


def clusters(facts: Facts, figures: dict[str, Any]) -> Section:
    """Cluster maps of the run, each shaded by a latent beside a scatter, in numbers, against the phases."""
    facts.need_plane()
    if not facts.clusters:
        option = "" if facts.run == n.DEFAULT_RUN else f" --run {facts.run}"
        raise LeftOut(f"the run has no clusters; 'vaearr cluster STORE{option}' finds some.")
    section = Section("clusters", HEADINGS["clusters"])
    shown = list(facts.clusters)[-MOST_CLUSTERINGS:]
    for name in shown:
        _one_clustering(section, facts, name, facts.clusters[name], figures)
    if len(shown) < len(facts.clusters):
        left = ", ".join(name for name in facts.clusters if name not in shown)
        section.say(f"Not shown here: {left}.", "note")
    return section


def _one_clustering(section: Section, facts: Facts, name: str, found: Clustering, figures: dict[str, Any]) -> None:
    labels = facts.ds[name]
    about = labels.attrs
    features = [str(item) for item in about.get("features", [])]
    many = f"{features[0]} … {features[-1]} ({len(features)})" if len(features) > 4 else ", ".join(features)
    section.say(
        f"{name}: {about.get('k')} clusters of {about.get('n'):,} scan points by {about['method']}, of {many}; "
        f"noise: {about.get('n_noise', 0):,} points."
    )
    for text in [*about.get("warnings", []), *([about["approximation"]] if about.get("approximation") else [])]:
        section.say(str(text), "note")
    latent, target = _pair(facts)
    segments = boundary_segments(labels)
    if (labels >= n.NOISE).any():
        pair: dict[str, Any] = {"latent": latent, "target": target, "segments": segments, "most_points": CLUSTER_POINTS}
        figures[f"{name}_sheet"] = show_both(section, view(labels, kind="clusters", **pair), name)
        section.caption(
            "One colour per cluster, brighter where the latent is larger within its cluster; the same colours in the "
            "scatter. Grey = noise. Draw a box or a lasso in one side, and the points light up in the other."
        )
    if found.summary is not None:
        section.table(*_numbers(found.summary))
        section.caption("Mean ± standard deviation of the maps in each cluster, in their own units.")
    if found.scores is not None:
        scores = {key: float(found.scores[key]) for key in SHOWN_SCORES}
        section.table(["agreement with the phases", "value"], [[key, value] for key, value in scores.items()])
        phase, ari = facts.ds[n.PHASE], {"ARI": scores["ari"]}
        against: dict[str, Any] = {"reference": phase, "segments": boundary_segments(phase), "scores": ari}
        figures[f"{name}_against_phase"] = view(labels, "matplotlib", kind="comparison", **against)
        figures[f"{name}_confusion"] = view(found.scores["confusion"], "matplotlib", kind="confusion")
        section.picture(figures[f"{name}_against_phase"], "clusters beside phases", dpi=110)
        section.caption(f"Over {found.scores.attrs['n']:,} points with both; lines are the borders of the phases.")


def _pair(facts: Facts) -> tuple[xr.DataArray, xr.DataArray]:
    """The latent and the target of the scatter: band contrast and its strongest latent, else the two strongest."""
    order = latents_by_strength(facts)
    if n.BC in facts.ds:
        if facts.table is not None and n.BC in facts.table["target"].values:
            best = ranking(facts.table, str(facts.table["metric"].values[0]), n.BC, top=1)
            order = [int(best[n.LATENT][0])] if best.sizes["rank"] else order
        return latent_map(facts.ds, facts.run, order[0]), facts.ds[n.BC]
    second = order[1] if len(order) > 1 else order[0]
    return latent_map(facts.ds, facts.run, order[0]), latent_map(facts.ds, facts.run, second)


def _numbers(summary: xr.Dataset) -> tuple[list[str], list[list[object]]]:
    features = [str(item) for item in summary["feature"].values]
    head = ["cluster", "points", "share", "stability", *features]
    rows = []
    for i, number in enumerate(summary["cluster"].values):
        one = summary.isel(cluster=i)
        stability = float(one["stability"])
        cells = [f"{m:.4g} ± {s:.2g}" for m, s in zip(one["mean"].values, one["std"].values, strict=True)]
        rows.append([
            int(number), int(one["count"]), f"{float(one['share']):.1%}",
            f"{stability:.2f}" if np.isfinite(stability) else "", *cells,
        ])  # fmt: skip
    return head, rows
