"""The sections of a report, each a function that fills a `Section` of a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association import P_ADJUSTED
from vaearr.analysis.clustering import boundary_segments
from vaearr.errors import NoInputError
from vaearr.output.comparing import compare
from vaearr.output.contents import PHASE_PREFIX, Contents
from vaearr.output.exporting import file_name
from vaearr.recipe import now, versions
from vaearr.store import check_inputs, has_table, run_manifest, run_names
from vaearr.views import common as c
from vaearr.views.describe import describe
from vaearr.views.explorer import explorer
from vaearr.views.maps import latent_map, side_map_list
from vaearr.views.page import Section
from vaearr.views.relations import ALPHA

if TYPE_CHECKING:
    from vaearr import Run

# the page stays at about 10 MB: latent maps, and their scan points in all
MAX_LATENT_MAPS = 64
MAX_MAP_POINTS = 10_000_000
MAX_PAIRS = 2
MAX_PAIR_POINTS = 10_000
MAX_METRICS = 2
MAX_CLUSTERINGS = 3
MAX_CLUSTER_POINTS = 8_000
MAX_CLUSTER_ROWS = 10
MAX_FINDINGS = 3
STRONG = 0.7  # absolute association from which a latent "follows" a map
MODERATE = 0.5  # from which an association without a p-value is a finding
METRIC_WORDS = {"pearson": "Pearson r", "spearman": "Spearman ρ"}
SCORE_WORDS = {
    "majority_accuracy": "share of points in the most frequent phase of their cluster",
    "homogeneity": "homogeneity (1: each cluster lies in one phase)",
    "completeness": "completeness (1: each phase is one cluster)",
    "nmi": "normalised mutual information",
    "ari": "adjusted Rand index (1: clusters and phases are the same partition)",
}
RANKING_COLUMNS = {
    "target": "map or class",
    "metric": "metric",
    n.LATENT: "strongest latent",
    "value": "value",
    P_ADJUSTED: "p",
}
RUN_WORDS = {
    "explained_variance": "share of the variance explained, noise included",
    "n_active": "active latents",
    "psnr": "PSNR of the reconstructions (dB)",
}
Fill = Callable[[Contents, Section], None]


def section_table(contents: Contents) -> list[tuple[str, str, Fill]]:
    """Name, heading and function of each section that this kind of run has."""
    run = contents.run
    is_fitted = "fit" in run.manifest
    table: list[tuple[str, str, Fill]] = []
    if contents.is_scan:
        table.append(("maps", "Latent maps and side maps", maps))
        table.append(("overview", "Overview of the side maps", overview))
        table.append(("linked", "Strongest latents", linked))
    table.append(("association", "Associations of the latents", association))
    if contents.is_scan:
        table.append(("clusters", "Clusters", clusters))
    if pca_runs(run):
        table.append(("comparison", "Comparison with principal components", comparison))
    if not is_fitted:
        table.append(("training", "Training", training))
    table.append(("reconstructions", "Reconstructions", reconstructions))
    table.append(("health", "Health of the latent space", health))
    if run.manifest.get("kind") != n.ATTACHED:
        table.append(("model", "Model", components if is_fitted else model))
    return table


# ---- the first screen


def introduction(contents: Contents) -> Section:
    """The first screen: verdict, strongest findings, latent maps, and what the data are."""
    section = Section("top", "")
    run = contents.run
    if contents.is_scan:
        latent_sheet(contents, section)
    lines = repr(run).splitlines()[1:]
    verdict = verdict_of(run) or next((line for line in lines if "explained" in line), "")
    if verdict:
        section.say(f"{verdict[0].upper()}{verdict[1:].rstrip('.')}.", "verdict")
    for finding in findings(contents):
        section.say(finding, "finding")
    facts = [f"Data: {contents.source}, {schema.contents(run.ds)}."]
    for line in lines:
        if line.startswith("warning"):
            section.say(f"{line[0].upper()}{line[1:].rstrip('.')}.", "note")
        elif not verdict or verdict not in line:
            facts.append(f"{line[0].upper()}{line[1:]}.")
    facts.append(f"Report of {now()}, vaearr {versions()['vaearr']}, store {run.path.name}.")
    for dim, index in contents.middle.items():
        coordinate = run.ds[dim]
        facts.append(
            f"Maps show the plane {dim} = {float(coordinate[index]):g} {c.unit(coordinate.attrs)}; "
            "associations are over the complete volume."
        )
    section.say(" ".join(facts), "small")
    return section


def verdict_of(run: Run) -> str:
    """The verdict that is stored with the health of a run; "" if there is none."""
    if not has_table(run.path, run.name, n.HEALTH):
        return ""
    return str(run.health.attrs.get("verdict", ""))


def selected_latents(contents: Contents) -> list[int]:
    """The latents whose maps the page holds: all, or the strongest of each target and the first."""
    numbers = contents.latent_numbers
    strongest = [int(row[n.LATENT]) for row in contents.strongest]
    by_strength = list(dict.fromkeys([*strongest, *numbers]))
    most = max(1, MAX_MAP_POINTS * len(numbers) // contents.latents.size)
    return sorted(by_strength[: min(MAX_LATENT_MAPS, most)])


def latent_sheet(contents: Contents, section: Section) -> None:
    """The maps of the latents in one figure."""
    selected = selected_latents(contents)
    section.blocks.append('<div class="sheet">')
    contents.show(
        section,
        "latent_maps",
        contents.plane[contents.latents.name],
        "The latents (posterior mean) as maps. Above each: its number, and the values of "
        "the darkest and the brightest colour (1 % and 99 % percentile).",
        contents.map_table,
        kind="stack",
        entries=selected,
    )
    section.blocks.append("</div>")


def findings(contents: Contents) -> list[str]:
    """The strongest findings as sentences: latents that follow maps, and the clusters."""
    sentences = association_findings(contents)
    names = list(contents.clusterings)
    if not names:
        return sentences[:MAX_FINDINGS]
    return [*sentences[: MAX_FINDINGS - 1], cluster_finding(contents, names[-1])]


def association_findings(contents: Contents) -> list[str]:
    """A sentence for each latent that is the strongest of a side map, the largest value first."""
    rows = contents.strongest
    if rows and P_ADJUSTED not in rows[0]:
        rows = [row for row in rows if abs(row["value"]) >= MODERATE]
    significant = [row for row in rows if row.get(P_ADJUSTED, 0.0) < ALPHA]
    if rows and not significant:
        return [
            "No association of a latent with a side map is larger than chance explains "
            f"(adjusted p ≥ {ALPHA:g} for each)."
        ]
    by_latent: dict[int, list[dict[Any, Any]]] = {}
    for row in significant:
        by_latent.setdefault(int(row[n.LATENT]), []).append(row)
    return [_finding(contents, latent, rows) for latent, rows in by_latent.items()]


def _finding(contents: Contents, latent: int, rows: list[dict[Any, Any]]) -> str:
    """A sentence about a latent, from the rows of the targets for which it is the strongest."""
    row, *others = rows
    verb = "follows" if abs(row["value"]) >= STRONG else "is associated with"
    evidence = f"{metric_words(row['metric'])} = {c.number(row['value'])}"
    if P_ADJUSTED in row:
        evidence += f", p = {row[P_ADJUSTED]:.2g}"
    sentence = f"Latent {latent} {verb} {target_words(contents, row['target'])} ({evidence})"
    names = [target_words(contents, other["target"]) for other in others[:2]]
    if names:
        sentence += f"; it is also the strongest latent for {' and '.join(names)}"
    return f"{sentence}."


def metric_words(metric: str) -> str:
    """The metric as it is written in a sentence."""
    return METRIC_WORDS.get(metric, metric)


def target_words(contents: Contents, target: str) -> str:
    """The name of a target as it is written in a sentence."""
    if target in contents.run.ds:
        return c.text(contents.run.ds[target].attrs.get("long_name", target))
    return c.text(target).replace(": ", " ")


def cluster_finding(contents: Contents, name: str) -> str:
    """The number of clusters, and how they agree with the phases."""
    sentence = f"Clusters “{name}”: {contents.run.ds[name].attrs['k']} groups"
    scores = contents.clusterings[name].get("agreement_with_phase")
    if scores is not None:
        counts = scores["confusion"].sum("cluster")
        chance = float(counts.max() / counts.sum())
        sentence += (
            f"; {float(scores['majority_accuracy']):.1%} of the points are in the most frequent "
            f"phase of their group (in one group: {chance:.1%})"
        )
    return f"{sentence}."


# ---- the sections


def maps(contents: Contents, section: Section) -> None:
    """The latent maps, selectable, next to the side maps."""
    ds = contents.plane
    selected = selected_latents(contents)
    latent_maps = [latent_map(ds, contents.run.name, label) for label in selected]
    section.figure(explorer(side_map_list(ds), latent_maps, contents.region))
    section.caption(
        "Choose a side map and a latent above the maps; zoom and cross-hair are linked. Colours "
        "span the 1 % to the 99 % percentile, points without a value are grey.",
        {"CSV": contents.map_table},
    )
    n_latents = len(contents.latent_numbers)
    if len(selected) < n_latents:
        section.say(
            f"{len(selected)} of {n_latents} latents, including the strongest of each target.",
            "note",
        )


def overview(contents: Contents, section: Section) -> None:
    """Band contrast, elements and phase in one figure."""
    contents.show(
        section,
        "side_maps",
        contents.plane,
        "The side maps that the scan came with. Colours span the 1 % to the 99 % percentile.",
        contents.map_table,
        kind="side_maps",
    )


def linked(contents: Contents, section: Section) -> None:
    """Map and scatter of the strongest latents: for band contrast, a phase, then other maps."""
    rows = contents.strongest
    if not rows:
        raise NoInputError("no latent has an association with any target.")

    def order(row: dict[Any, Any]) -> tuple[bool, bool]:
        return row["target"] != n.BC, not row["target"].startswith(PHASE_PREFIX)

    for row in sorted(rows, key=order)[:MAX_PAIRS]:
        latent = int(row[n.LATENT])
        target = row["target"]
        contents.show(
            section,
            f"latent_{latent}_against_{file_name(target)}",
            contents.plane,
            f"Latent {latent} has the strongest association with "
            f"{target_words(contents, target)} ({metric_words(row['metric'])} = "
            f"{c.number(row['value'])}). Select a region in the map or in the plot to see its "
            "points in the other.",
            contents.map_table,
            kind="map_scatter",
            latent=latent,
            target=target,
            run=contents.run.name,
            roi=contents.region,
            most_points=MAX_PAIR_POINTS,
            clabel="",
            is_interactive=True,
        )


def association(contents: Contents, section: Section) -> None:
    """The strongest latents as a table, and heat maps of all associations."""
    table = contents.associations
    frame = table.reset_coords(drop=True).to_dataframe().reset_index()
    data = contents.table("association", frame)
    has_p = P_ADJUSTED in table
    if has_p:
        section.say(
            "p: probability of a value this large for surrogate maps of the same smoothness as "
            "the side map, adjusted for the number of latents."
        )
    elif contents.is_scan:
        section.say(
            "A value alone is no evidence: neighbouring scan points are not independent. "
            "'vaearr associate --significance' tests against surrogate maps of the same smoothness."
        )
    if contents.rankings:
        strongest = pd.DataFrame(contents.rankings).drop_duplicates(["target", "metric"])
        columns = [name for name in RANKING_COLUMNS if name in strongest]
        head = [RANKING_COLUMNS[name] for name in columns]
        section.table(head, strongest[columns].values.tolist())
    dots = f" Dots: adjusted p < {ALPHA:g}." if has_p else ""
    for metric in map(str, table["metric"].values[:MAX_METRICS]):
        contents.show(
            section,
            f"association_{metric}",
            table,
            f"{metric_words(metric)} of each latent with each map or class.{dots}",
            data,
            kind="association",
            metric=metric,
        )
    formulas = []
    for metric, definition in table["association"].attrs.get("metrics", {}).items():
        formulas.append(f"{metric}: {definition['formula']} ({definition['reference']})")
    section.folded("Definitions of the metrics", "\n".join(formulas))


def clusters(contents: Contents, section: Section) -> None:
    """The cluster maps of the run."""
    names = list(contents.clusterings)
    if not names:
        raise NoInputError("the run has no clusters; 'vaearr cluster STORE' finds some.")
    for name in names[-MAX_CLUSTERINGS:]:
        clustering(contents, section, name)


def clustering(contents: Contents, section: Section, name: str) -> None:
    """One cluster map: the sheet, the summary, and its agreement with the phases."""
    ds = contents.plane
    labels = ds[name]
    attrs = labels.attrs
    section.say(f"{name}: {attrs['k']} clusters by {attrs['method']}.")
    for note in attrs.get("warnings", []):
        section.say(str(note), "note")
    strongest = [int(row[n.LATENT]) for row in contents.strongest]
    first, second = [*dict.fromkeys([*strongest, *contents.latent_numbers]), 0][:2]
    target = ds[n.BC] if n.BC in ds else latent_map(ds, contents.run.name, second)
    contents.show(
        section,
        f"{name}_sheet",
        labels,
        f"Left: the clusters, one hue each, noise grey; the brightness is latent {first} within "
        f"the cluster. Right: latent {first} against {c.label(target)} in the same colours.",
        contents.map_table,
        kind="clusters",
        latent=latent_map(ds, contents.run.name, first),
        target=target,
        segments=boundary_segments(labels),
        most_points=MAX_CLUSTER_POINTS,
    )
    tables = contents.clusterings[name]
    if "agreement_with_phase" in tables:
        scores = tables["agreement_with_phase"]
        rows = [[words, float(scores[key])] for key, words in SCORE_WORDS.items()]
        section.table(["agreement with the phases", "value"], rows)
    if "summary" in tables:
        summary_table(contents, section, name, tables["summary"])


def summary_table(contents: Contents, section: Section, name: str, summary: xr.Dataset) -> None:
    """Size of each cluster and means of the maps in it, the largest clusters first."""
    features = summary["feature"].values.tolist()
    means = summary["mean"].to_series().unstack("feature")
    frame = means[features].reset_index()
    frame.insert(1, "points", summary["count"].values)
    data = contents.table(f"{name}_summary", frame)
    section.table(frame.columns.tolist(), frame.head(MAX_CLUSTER_ROWS).values.tolist())
    caption = f"Means of the maps in each cluster, at most {MAX_CLUSTER_ROWS} clusters."
    section.caption(caption, {"CSV": data})


def pca_runs(run: Run) -> list[str]:
    """Names of the other runs of the store that are principal components."""
    names = []
    for name in run_names(run.path):
        model_settings = (run_manifest(run.path, name).get("config") or {}).get("model") or {}
        is_encoded = n.run_name(n.LATENTS, name) in run.ds
        if name != run.name and is_encoded and model_settings.get("name") == "pca":
            names.append(name)
    return names


def comparison(contents: Contents, section: Section) -> None:
    """The run next to principal components of the same store."""
    run = contents.run
    names = pca_runs(run)
    check_inputs(run.path, [n.run_name(n.LATENTS, name) for name in names])
    scores = compare([run, *(type(run)(run.path, name) for name in names)])
    words = [name for name in RUN_WORDS if name in scores]
    frame = scores[words].to_dataframe().T.rename(RUN_WORDS)
    if "association" in scores:
        targets = scores["association"].to_series().unstack("run")
        heading = "largest |Pearson r| of a latent with {}".format
        targets.index = [heading(target_words(contents, str(name))) for name in targets.index]
        frame = pd.concat([frame, targets[frame.columns]])
    frame = frame.reset_index(names="")
    section.table(frame.columns.tolist(), frame.values.tolist())
    caption = "The same samples by this run and by principal components."
    section.caption(caption, {"CSV": contents.table("comparison", frame)})


def model(contents: Contents, section: Section) -> None:
    """The network as a picture, and its layers."""
    from vaearr.models.card import model_card

    card = model_card(contents.run.model)
    caption = "Layers of the network in order of execution, with the sizes of their outputs."
    contents.show(section, "model", card, caption, kind="network")
    layers = describe(card, top=card.sizes["layer"])
    section.folded("All layers, in order of execution", "\n".join(layers))


def components(contents: Contents, section: Section) -> None:
    """Components of a linear model, and the variance that each of them explains."""
    contents.show(
        section,
        "components",
        contents.run.components,
        "The components as pictures, in the order of the latents.",
        kind="components",
    )
    if "explained_variance_ratio" in contents.run.health:
        ratio = contents.run.health["explained_variance_ratio"]
        data = contents.table("variance", ratio.to_dataframe().reset_index())
        caption = "Share of the variance that each component explains, and their sum."
        contents.show(section, "variance", ratio, caption, data, kind="variance")


def training(contents: Contents, section: Section) -> None:
    """Loss curves, and samples that were decoded during the training."""
    run = contents.run
    history = run.history
    curves = history[[name for name in history if history[name].dims == (n.EPOCH,)]]
    data = contents.table("loss_curves", curves.to_dataframe().reset_index())
    caption = loss_words(history, run.manifest.get("best_epoch"))
    contents.show(section, "loss_curves", history, caption, data, kind="history")
    if has_table(run.path, run.name, n.SHEETS):
        caption = "The same samples, decoded at several epochs of the training."
        contents.show(section, "progress", run.table(n.SHEETS), caption, kind="progress")


def loss_words(history: xr.Dataset, best_epoch: int | None) -> str:
    """Say of which terms the loss is the sum, with the values of the stored network."""
    prefix = "val_" if "val_loss" in history else ""
    weights = {}
    for name, variable in history.items():
        if "weight" in variable.attrs and str(name).startswith("val_") == bool(prefix):
            weights[str(name)] = variable.attrs["weight"]
    words = [name.removeprefix("val_").replace("_", " ") for name in weights]
    sentence = f"The loss is the sum of its terms times their weights: {', '.join(words)}."
    if best_epoch not in history[n.EPOCH].values:
        return sentence
    at_best = history.sel({n.EPOCH: best_epoch})
    loss = float(at_best[f"{prefix}loss"])
    parts = [float(at_best[name]) * weight for name, weight in weights.items()]
    if not np.isclose(sum(parts), loss, rtol=1e-3):  # weights differed in that epoch
        return sentence
    total = " + ".join(f"{part:.1f}" for part in parts)
    samples = "validation" if prefix else "training"
    return (
        f"{sentence} Of the stored network (epoch {best_epoch}), {samples} samples: "
        f"{total} = {loss:.1f} nats per sample."
    )


def reconstructions(contents: Contents, section: Section) -> None:
    """Patterns, reconstructions, residuals."""
    samples = contents.run.example_reconstructions()
    columns = {}
    for name in ("input", "reconstruction"):
        for i, values in enumerate(samples[name].values):
            columns[f"{name}_{i}"] = values.ravel()
    contents.show(
        section,
        "reconstructions",
        samples,
        "Samples that were not used for training: the input of the network, its reconstruction, "
        "and what remains.",
        contents.table("reconstructions", pd.DataFrame(columns)),
        kind="reconstruction",
    )


def health(contents: Contents, section: Section) -> None:
    """KL of each latent."""
    table = contents.run.health
    columns = [name for name in table if len(table[name].dims) == 1]
    data = contents.table("latent_health", table[columns].to_dataframe().reset_index())
    part = table.attrs.get("measured_on", "validation")
    caption = "How much each latent is used; grey: unused, without variance over the samples."
    if np.isfinite(table["kl"]).all() and table["kl"].any():
        caption = (
            "KL divergence of each latent from the prior, mean over "
            f"{table.attrs['n_samples']} {part} samples by the stored network; the curve of the "
            "losses differs. Grey: unused, without variance over the samples."
        )
    contents.show(section, "latent_health", table, caption, data, kind="run_health")


def provenance(run: Run) -> Section:
    """Settings and origins, folded."""
    section = Section("provenance", "Parameters and provenance")
    for heading, values in origins(run).items():
        text = json.dumps(values, indent=2, default=str, ensure_ascii=False)
        section.folded(heading.capitalize(), text)
    return section


def origins(run: Run) -> dict[str, Any]:
    """Recipes and settings of the run, its latents and the Dataset."""
    return {"run": dict(run.manifest), "latents": run.latents.attrs, "dataset": run.ds.attrs}
