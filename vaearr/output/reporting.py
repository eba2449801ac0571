"""A run as one self-contained HTML page, its main views as PNG, its numbers as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association import P_ADJUSTED, associate, ranking, targets_of
from vaearr.analysis.clustering import boundary_segments, cluster_scores, cluster_summary
from vaearr.errors import DataError, ExistsError, NoInputError
from vaearr.output.exporting import clusterings_of, file_name, is_encoded, write_json
from vaearr.recipe import FINGERPRINTS, nested, now, versions
from vaearr.store import check_inputs, has_table, published_at
from vaearr.store.folders import output_folder
from vaearr.views import on_paper, show, view
from vaearr.views.common import holoviews, unit
from vaearr.views.describe import describe
from vaearr.views.explorer import explorer
from vaearr.views.maps import latent_map, side_map_list
from vaearr.views.page import Section, page
from vaearr.views.paper import file_of

if TYPE_CHECKING:
    from vaearr import Run

GENERATOR = "vaearr report"
RECORD = "report.json"
PAGE = "index.html"
PNG_DPI = 300
COMPUTED_METRICS = ("pearson", "spearman")  # if the run has no current table of associations
TOP = 3  # latents in a ranking
# the page stays at about 10 MB: latent maps, and their scan points in all
MAX_LATENT_MAPS = 64
MAX_MAP_POINTS = 10_000_000
# linked maps and scatters: larger scans show fewer
MIN_PAIRS = 2
MAX_PAIRS = 4
MAX_PAIR_PIXELS = 240_000
MAX_PAIR_POINTS = 10_000
MAX_METRICS = 2
MAX_CLUSTERINGS = 3
MAX_CLUSTER_POINTS = 8_000
SHOWN_SCORES = ("ari", "nmi", "homogeneity", "completeness", "hungarian_accuracy")


def write_report(run: Run, out: str | Path | None) -> Path:
    """Write the report of a run into a folder, see `Run.report`."""
    holoviews()  # fails before any work if it is not installed
    if run.manifest.get("kind") != n.ATTACHED:
        run.model.eval()  # the network is loaded first: it may need the user's trust
    contents = Contents(run)
    folder = report_folder(run.path, run.name, out)
    fingerprints = check_inputs(run.path, _variables_of(run))
    sections: list[Section] = []
    left_out: dict[str, str] = {}
    for name, heading, fill in section_table(run):
        section = Section(name, heading)
        try:
            fill(contents, section)
        except (NoInputError, DataError) as reason:
            left_out[name] = str(reason)
            section = Section(name, heading)
            section.say(f"Left out: {reason}")
        sections.append(section)
    heading = f"Latents of run “{run.name}” of {contents.source}"
    text = page(heading, introduction(contents), [*sections, provenance(run)])
    record = record_of(contents, folder, left_out) | {FINGERPRINTS: fingerprints}
    with output_folder(folder, last=RECORD) as temporary:
        (temporary / "png").mkdir()
        for name, figure in contents.figures.items():
            (temporary / "png" / f"{name}.png").write_bytes(file_of(figure, ".png", PNG_DPI))
        (temporary / PAGE).write_text(text, encoding="utf-8", errors="replace")
        write_json(temporary / RECORD, record)
    return folder / PAGE


def _variables_of(run: Run) -> list[str]:
    """Names of all variables but the results of other runs, which may be outdated."""
    names = []
    for name, variable in run.ds.variables.items():
        recipe = nested(variable.attrs, n.PROVENANCE)
        made_by = recipe.get("run") if isinstance(recipe, dict) else None
        if made_by in (None, run.name):
            names.append(str(name))
    return names


def is_current(store: Path, folder: Path) -> bool:
    """Whether a report by this version is in the folder and newer than all results of the store."""
    record = _read_record(folder)
    if record is None or (folder / RECORD).stat().st_mtime <= published_at(store):
        return False
    return bool(record["versions"]["vaearr"] == versions()["vaearr"])


def report_folder(store: Path, run: str, out: str | Path | None = None) -> Path:
    """The folder of a report, by default next to the store.

    Raises ExistsError for a folder that holds anything else.
    """
    folder = store.with_name(f"{store.name.removesuffix('.zarr')}.reports") / run
    if out:
        folder = Path(out).expanduser()
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free and _read_record(folder) is None:
        raise ExistsError(
            f"{folder} exists and is not a report of vaearr; name another folder with out='…' "
            "(--out)."
        )
    return folder.resolve()


def _read_record(folder: Path) -> dict[str, Any] | None:
    """The record of the report in a folder, None if it holds none."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("generator") == GENERATOR else None


def rankings(associations: xr.Dataset) -> list[dict[Any, Any]]:
    """The strongest latents for each target and metric, one row each."""
    rows = []
    for target in map(str, associations["target"].values):
        for metric in map(str, associations["metric"].values):
            strongest = ranking(associations["association"], metric, target, TOP)
            for row in strongest.to_dataframe().to_dict("records"):
                row = {"target": target, "metric": metric, **row}
                if P_ADJUSTED in associations:
                    labels = {dim: row[dim] for dim in associations[P_ADJUSTED].dims}
                    row["p_adjusted"] = associations[P_ADJUSTED].sel(labels).item()
                rows.append(row)
    return rows


@dataclass
class Contents:
    """What the sections of a report show, read once; `figures` are those of the folder `png`."""

    run: Run
    figures: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def latents(self) -> xr.DataArray:
        """Latents in memory, spatial ones averaged over their positions."""
        return schema.vectors(self.run.latents).load()

    @property
    def source(self) -> str:
        """Name of the file that the store was created from, else of the store."""
        provenance = nested(self.run.ds.attrs, n.PROVENANCE) or {}
        source = provenance.get("source") or {}
        return Path(str(source.get("file") or self.run.path)).name

    @property
    def middle(self) -> dict[str, int]:
        """Index of the plane that maps show, for a scan of several planes."""
        dims = schema.navigation_dims(self.run.ds)
        return {dim: self.run.ds.sizes[dim] // 2 for dim in dims[:-2]}

    @cached_property
    def plane(self) -> xr.Dataset:
        """The plane of the scan that maps show: maps in memory, patterns lazy."""
        ds = self.run.ds.assign({self.latents.name: self.latents})
        ds = ds.isel(self.middle, drop=True)
        ds[n.PATTERNS].attrs[n.NAVIGATION_DIMS] = list(schema.navigation_dims(self.run.ds)[-2:])
        names = [name for name in [*schema.maps(ds), n.ELEMENTS] if name in ds]
        return ds.assign({name: ds[name].load() for name in names})

    @property
    def region(self) -> xr.DataArray | None:
        """The ROI on the plane of the maps; None for attached latents."""
        return self.plane.get(n.run_name(n.ROI, self.run.name))

    @cached_property
    def associations(self) -> xr.Dataset:
        """The stored table if it is up to date, else a new one.

        Raises NoInputError if the store has no map to compare with.
        """
        ds = self.run.ds
        table = self.run.current_table("association")
        if table is None:
            roi = ds.get(n.run_name(n.ROI, self.run.name))
            targets = targets_of(ds, roi=roi)
            values = associate(self.latents, targets, COMPUTED_METRICS, roi=roi)
            table = values.to_dataset(name="association")
        return table if "target" in table.dims else table.expand_dims("target", -1)

    @cached_property
    def rankings(self) -> list[dict[Any, Any]]:
        """The strongest latents for each target and metric; empty without side maps."""
        try:
            return rankings(self.associations)
        except (NoInputError, DataError):
            return []

    @cached_property
    def strongest(self) -> dict[str, tuple[int, float]]:
        """The strongest latent of each target by the first metric, and its association."""
        strongest: dict[str, tuple[int, float]] = {}
        for row in self.rankings:
            strongest.setdefault(row["target"], (int(row[n.LATENT]), float(row["value"])))
        return strongest

    def show(
        self, section: Section, name: str, result: Any, *backend: Any, kind: str, **options: Any
    ) -> None:
        """Put the view of a result into a section, and its figure into `figures`."""
        figure = view(result, *backend, kind=kind, **options)
        show(section, figure, name.replace("_", " "))
        self.figures[name] = on_paper(figure)


Fill = Callable[[Contents, Section], None]


def section_table(run: Run) -> list[tuple[str, str, Fill]]:
    """Name, heading and function of each section that this kind of run has."""
    is_scan = schema.is_scan(run.ds) and len(schema.navigation_dims(run.ds)) > 1
    is_fitted = "fit" in run.manifest
    sections: list[tuple[str, str, Fill]] = []
    if is_scan:
        sections.append(("overview", "Overview of the scan", overview))
        sections.append(("maps", "Latent maps and side maps", maps))
        sections.append(("linked", "Strongest latents, map and scatter linked", linked))
    sections.append(("association", "Association of latents and side maps", association))
    if is_scan:
        sections.append(("clusters", "Clusters", clusters))
    if run.manifest.get("kind") != n.ATTACHED:
        sections.append(("model", "Model", components if is_fitted else model))
    if not is_fitted:
        sections.append(("training", "Training", training))
    sections.append(("health", "Health of the latent space", health))
    sections.append(("reconstructions", "Reconstructions", reconstructions))
    return sections


# ---- the sections


def introduction(contents: Contents) -> Section:
    """The head of the page: data, run and store."""
    section = Section("top", "")
    run = contents.run
    description = schema.describe(run.ds)
    grid = " × ".join(f"{size} {dim}" for dim, size in description["grid"].items())
    pattern = " × ".join(f"{size} {dim}" for dim, size in description["pattern"].items())
    samples = schema.samples_word(run.ds)
    section.say(
        f"Data: {contents.source}, {samples} {grid}, each of {pattern} values "
        f"({description['dtype']})."
    )
    for line in repr(run).splitlines()[1:]:
        style = "note" if line.startswith("warning") else ""
        section.say(f"{line[0].upper()}{line[1:]}.", style)
    section.say(f"Report of {now()}, vaearr {versions()['vaearr']}, store {run.path.name}.")
    for dim, index in contents.middle.items():
        coordinate = run.ds[dim]
        section.say(
            f"Maps show the plane {dim} = {float(coordinate[index]):g} {unit(coordinate.attrs)}; "
            "associations are over the complete volume."
        )
    return section


def overview(contents: Contents, section: Section) -> None:
    """Band contrast, elements, phase."""
    contents.show(
        section, "side_maps", contents.plane, "matplotlib", kind="side_maps", roi=contents.region
    )


def maps(contents: Contents, section: Section) -> None:
    """The latent maps, selectable, next to the side maps."""
    ds = contents.plane
    latents = contents.latents
    labels = latents[latents.dims[-1]].values.tolist()
    strongest = [latent for latent, _ in contents.strongest.values()]
    by_strength = list(dict.fromkeys([*strongest, *labels]))
    most = max(1, MAX_MAP_POINTS * len(labels) // latents.size)
    selected = sorted(by_strength[: min(MAX_LATENT_MAPS, most)])
    latent_maps = [latent_map(ds, contents.run.name, label) for label in selected]
    section.figure(explorer(side_map_list(ds), latent_maps, contents.region))
    section.caption(
        "Left: side map, right: latent, each selected above the map; zoom and cross-hair are "
        "linked."
    )
    if len(selected) < len(labels):
        section.say(
            f"{len(selected)} of {len(labels)} latents, including the strongest of each target.",
            "note",
        )
    sheet = view(ds[latents.name], "matplotlib", kind="stack", entries=selected)
    contents.figures["latent_maps"] = sheet


def linked(contents: Contents, section: Section) -> None:
    """For each target its strongest latent, map and scatter linked; band contrast first."""
    strongest = contents.strongest
    if not strongest:
        raise NoInputError("no latent has an association with any target.")
    targets = sorted(strongest, key=lambda name: (name != n.BC, -abs(strongest[name][1])))
    phases = [target for target in targets if target.startswith(f"{n.PHASE}: ")]
    for target in phases[1:]:  # of two phases, one mirrors the other
        targets.remove(target)
    sizes = contents.plane.sizes
    n_pairs = MAX_PAIR_PIXELS // (sizes[n.Y] * sizes[n.X])
    for target in targets[: min(max(MIN_PAIRS, n_pairs), MAX_PAIRS)]:
        latent, _ = strongest[target]
        contents.show(
            section,
            f"latent_{latent}_against_{file_name(target)}",
            contents.plane,
            kind="map_scatter",
            latent=latent,
            target=target,
            run=contents.run.name,
            roi=contents.region,
            most_points=MAX_PAIR_POINTS,
        )
    section.caption(
        "The latent with the largest association; a selection in the map is also selected in the "
        "scatter."
    )


def association(contents: Contents, section: Section) -> None:
    """Heat maps and ranking table."""
    table = contents.associations
    for metric in map(str, table["metric"].values[:MAX_METRICS]):
        contents.show(section, f"association_{metric}", table, kind="association", metric=metric)
    if P_ADJUSTED in table:
        section.say(
            "Dots: adjusted p < 0.05 against surrogate maps of the same smoothness as the target."
        )
    else:
        section.say(
            "A value alone is no evidence: neighbouring scan points are not independent. "
            "'vaearr associate --significance' tests against surrogate maps of the same smoothness."
        )
    if contents.rankings:
        columns = list(contents.rankings[0])
        section.table(columns, [[row[name] for name in columns] for row in contents.rankings])
    formulas = []
    for metric, definition in table["association"].attrs.get("metrics", {}).items():
        formulas.append(f"{metric}: {definition['formula']} ({definition['reference']})")
    section.folded("Definitions of the metrics", "\n".join(formulas))


def clusters(contents: Contents, section: Section) -> None:
    """The cluster maps of the run."""
    names = clusterings_of(contents.run)
    if not names:
        raise NoInputError("the run has no clusters; 'vaearr cluster STORE' finds some.")
    for name in names[-MAX_CLUSTERINGS:]:
        clustering(contents, section, name)


def clustering(contents: Contents, section: Section, name: str) -> None:
    """One cluster map: the sheet, the summary, and its agreement with the phases."""
    ds = contents.plane
    labels = ds[name]
    section.say(f"{name}: {labels.attrs['k']} clusters by {labels.attrs['method']}.")
    for note in labels.attrs.get("warnings", []):
        section.say(str(note), "note")
    strongest = [latent for latent, _ in contents.strongest.values()]
    first, second = [*strongest, 0, 1][:2]
    target = ds[n.BC] if n.BC in ds else latent_map(ds, contents.run.name, second)
    contents.show(
        section,
        f"{name}_sheet",
        labels,
        kind="clusters",
        latent=latent_map(ds, contents.run.name, first),
        target=target,
        segments=boundary_segments(labels),
        most_points=MAX_CLUSTER_POINTS,
    )
    tables = cluster_tables(contents, name)
    if "summary" in tables:
        section.folded("Summary of the clusters", "\n".join(describe(tables["summary"])))
    if "agreement_with_phase" in tables:
        scores = tables["agreement_with_phase"]
        rows = [[key, float(scores[key])] for key in SHOWN_SCORES]
        section.table(["agreement with the phases", "value"], rows)


def cluster_tables(contents: Contents, name: str) -> dict[str, xr.Dataset]:
    """Means of the maps in each cluster, and the agreement with the phases, if there are any."""
    ds = contents.run.ds
    labels = ds[name].load()
    tables = {}
    is_clustered = labels >= 0
    names = [other for other in (n.BC, n.ELEMENTS) if other in ds]
    if names and is_clustered.any():
        tables["summary"] = cluster_summary(labels, ds[names].load())
    if n.PHASE in ds and (is_clustered & (ds[n.PHASE] >= 0)).any():
        tables["agreement_with_phase"] = cluster_scores(labels, ds[n.PHASE].load())
    return tables


def model(contents: Contents, section: Section) -> None:
    """The network as a picture, and its layers."""
    from vaearr.models.card import model_card

    card = model_card(contents.run.model)
    contents.show(section, "model", card, kind="network")
    layers = describe(card, top=card.sizes["layer"])
    section.folded("All layers, in order of execution", "\n".join(layers))


def components(contents: Contents, section: Section) -> None:
    """Components of a linear model, and the variance that each of them explains."""
    contents.show(section, "components", contents.run.components, kind="components")
    if "explained_variance_ratio" in contents.run.health:
        ratio = contents.run.health["explained_variance_ratio"]
        contents.show(section, "variance", ratio, kind="variance")


def training(contents: Contents, section: Section) -> None:
    """Loss curves, and samples that were decoded during the training."""
    run = contents.run
    contents.show(section, "loss_curves", run.history, kind="history")
    if has_table(run.path, run.name, n.SHEETS):
        contents.show(section, "progress", run.table(n.SHEETS), kind="progress")


def health(contents: Contents, section: Section) -> None:
    """KL of each latent."""
    contents.show(section, "latent_health", contents.run.health, kind="run_health")
    section.caption(
        "KL divergence of each latent from the prior; grey: unused, without variance over the "
        "samples."
    )


def reconstructions(contents: Contents, section: Section) -> None:
    """Patterns, reconstructions, residuals."""
    samples = contents.run.example_reconstructions()
    contents.show(section, "reconstructions", samples, kind="reconstruction")


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


def record_of(contents: Contents, folder: Path, left_out: dict[str, str]) -> dict[str, Any]:
    """The numbers of the page and their origin, for other programs."""
    run = contents.run
    clusters = {}
    for name in clusterings_of(run):
        tables = {key: table.to_dict() for key, table in cluster_tables(contents, name).items()}
        clusters[name] = {"attributes": run.ds[name].attrs, **tables}
    record = {
        "generator": GENERATOR,
        "created": now(),
        "run": run.name,
        "store": os.path.relpath(run.path, folder),
        "png": {name: f"png/{name}.png" for name in contents.figures},
        "left_out": left_out,
        "training_parameters": run.manifest.get("config"),
        "versions": versions("scipy", "holoviews", "bokeh", "matplotlib"),
        "roi": {
            "n_points": int(is_encoded(contents.latents).sum()),
            "config": run.manifest.get("roi"),
        },
        "rankings": contents.rankings,
        "clusters": clusters,
        "provenance": origins(run),
    }
    for name in (n.HISTORY, n.HEALTH):
        if has_table(run.path, run.name, name):
            record[name] = run.table(name).to_dict()
    return record
