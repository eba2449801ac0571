"""A run as one self-contained HTML page, its main views as PNG, its numbers as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association import P_ADJUSTED, associate, element_rgb, ranking, targets_of
from vaearr.analysis.clustering import boundary_segments, cluster_scores, cluster_summary
from vaearr.errors import DataError, ExistsError, NoInputError
from vaearr.recipe import FINGERPRINTS, as_json, nested, now, versions
from vaearr.store import check_inputs, has_table, published_at
from vaearr.store.folders import staged
from vaearr.views import on_paper, show, view
from vaearr.views.common import holoviews, unit
from vaearr.views.describe import describe
from vaearr.views.explorer import explorer
from vaearr.views.maps import latent_map, side_map_list
from vaearr.views.page import Section, page, png

if TYPE_CHECKING:
    from vaearr import Run

GENERATOR = "vaearr report"
RECORD, PAGE = "report.json", "index.html"
PNG_DPI = 300
COMPUTED_METRICS = ("pearson", "spearman")  # of an association that is computed for the report
TOP = 3  # latents in a ranking
MOST_MAPS, PACKED_MAPS = (
    64,
    10_000_000,
)  # latent maps in the page, and their scan points, which keep it at about 10 MB
MOST_PAIRS, PAIR_PIXELS, PAIR_POINTS = (
    6,
    240_000,
    10_000,
)  # maps beside a scatter: larger scans show fewer
MOST_METRICS, MOST_CLUSTERINGS, CLUSTER_POINTS = 2, 3, 8_000
SHOWN_SCORES = ("ari", "nmi", "homogeneity", "completeness", "hungarian_accuracy")


def write_report(run: Run, out: str | Path | None) -> Path:
    """Write the report of a run into a folder, see `Run.report`."""
    holoviews()  # fails before any work if it is not installed
    contents = Contents(run)
    folder = report_folder(run.path, run.name, out)
    fingerprints = check_inputs(run.path, list(map(str, run.ds.variables)))
    sections: list[Section] = []
    left_out: dict[str, str] = {}
    for name, (heading, fill) in contents.parts().items():
        section = Section(name, heading)
        try:
            fill(contents, section)
        except (NoInputError, DataError) as reason:
            left_out[name] = str(reason)
            section = Section(name, heading)
            section.say(f"Left out: {reason}")
        sections.append(section)
    heading = f"Latents of run “{run.name}” of {contents.source}"
    text = page(heading, introduction(contents), [*sections, provenance(contents)])
    record = as_json(record_of(contents, folder, left_out) | {FINGERPRINTS: fingerprints})
    with staged(folder, last=RECORD) as aside:
        (aside / "png").mkdir()
        for name, figure in contents.figures.items():
            (aside / "png" / f"{name}.png").write_bytes(png(figure, PNG_DPI))
        (aside / PAGE).write_text(text, encoding="utf-8", errors="replace")
        (aside / RECORD).write_text(
            json.dumps(record, indent=2, ensure_ascii=False), encoding="utf-8"
        )
    return folder / PAGE


def is_current(store: Path, folder: Path) -> bool:
    """Whether a report by this version is in the folder, and nothing was published in the store
    since.
    """
    known = _read_record(folder)
    if not known or (folder / RECORD).stat().st_mtime <= published_at(store):
        return False
    return known["versions"]["vaearr"] == versions()["vaearr"]


def report_folder(store: Path, run: str, out: str | Path | None = None) -> Path:
    """Where the report goes: next to the store. Raises ExistsError for a folder that holds
    something else.
    """
    folder = (
        Path(out).expanduser()
        if out
        else store.with_name(f"{store.name.removesuffix('.zarr')}.reports") / run
    )
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not (is_free or _read_record(folder)):
        raise ExistsError(
            f"{folder} exists and is not a report of vaearr; name another folder with out='…' (--out)."
        )
    return folder.resolve()


def _read_record(folder: Path) -> dict[str, Any] | None:
    """The record of the report in a folder, None if it holds none."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("generator") == GENERATOR else None


@dataclass
class Contents:
    """What a report is made of; `figures` are what the sections show, for the folder `png`."""

    run: Run
    figures: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def latents(self) -> xr.DataArray:
        """Of spatial ones the means over their positions."""
        return schema.vectors(self.run.latents).load()

    @cached_property
    def roi(self) -> xr.DataArray | None:
        """None for attached latents that lie everywhere."""
        name = n.run_name(n.ROI, self.run.name)
        return self.run.ds[name].load() if name in self.run.ds else None

    @property
    def source(self) -> str:
        """What was measured: the file that the store came from, else the store."""
        made_of = (nested(self.run.ds.attrs, n.PROVENANCE) or {}).get("source") or {}
        return Path(str(made_of.get("file") or self.run.path)).name

    @cached_property
    def plane(self) -> xr.Dataset:
        """What maps show, in memory, patterns lazy: the scan, of several planes the middle one."""
        ds = self.run.ds.assign({self.latents.name: self.latents})
        dims = schema.navigation_dims(ds)
        ds = ds.isel(self.middle).drop_vars(list(self.middle))
        ds[n.PATTERNS].attrs[n.NAVIGATION_DIMS] = list(dims[-2:])
        return ds.assign(
            {name: ds[name].load() for name in [*schema.maps(ds), n.ELEMENTS] if name in ds}
        )

    @property
    def region(self) -> xr.DataArray | None:
        """The ROI on the plane of the maps."""
        return self.plane.get(n.run_name(n.ROI, self.run.name))

    @property
    def middle(self) -> dict[str, int]:
        """Which plane of a scan of several planes the maps show."""
        dims = schema.navigation_dims(self.run.ds)
        return {dim: self.run.ds.sizes[dim] // 2 for dim in dims[:-2]}

    @cached_property
    def clusterings(self) -> list[str]:
        """Names of the cluster maps that were made from the run."""
        made_of = {
            name: nested(self.run.ds[name].attrs, n.PROVENANCE)
            for name in schema.cluster_maps(self.run.ds)
        }
        return [
            name
            for name, recipe in made_of.items()
            if isinstance(recipe, dict) and recipe["run"] == self.run.name
        ]

    @cached_property
    def association(self) -> xr.Dataset:
        """The stored table if it is up to date, else one computed now; raises NoInputError without
        any map.
        """
        ds = self.run.ds
        found = self.run.current_table("association")
        if found is None:
            table = associate(
                self.latents, targets_of(ds, roi=self.roi), COMPUTED_METRICS, roi=self.roi
            )
            found = table.to_dataset(name="association")
        return found if "target" in found.dims else found.expand_dims("target", -1)

    @cached_property
    def rankings(self) -> list[dict[str, Any]]:
        """The strongest latents for each target and metric; no rows without an association."""
        rows: list[dict[str, Any]] = []
        try:
            found = self.association
        except (NoInputError, DataError):
            return []
        for target in map(str, found["target"].values):
            for metric in map(str, found["metric"].values):
                for row in (
                    ranking(found["association"], metric, target, TOP)
                    .to_dataframe()
                    .to_dict("records")
                ):
                    if P_ADJUSTED in found:
                        place = {"metric": metric, "target": target, n.LATENT: row[n.LATENT]}
                        row["p_adjusted"] = found[P_ADJUSTED].sel(place).item()
                    rows.append(
                        {"target": target, "metric": metric}
                        | {str(key): value for key, value in row.items()}
                    )
        return rows

    @cached_property
    def strongest(self) -> dict[str, tuple[int, float]]:
        """For each target the latent of the largest association by the first metric, and its value."""
        best: dict[str, tuple[int, float]] = {}
        for row in self.rankings:
            best.setdefault(row["target"], (int(row[n.LATENT]), float(row["value"])))
        return best

    def parts(self) -> dict[str, tuple[str, Callable[[Contents, Section], None]]]:
        """The sections that this kind of run has: heading, and what fills it. Maps are for scans."""
        ds = self.run.ds
        is_scan = schema.is_scan(ds) and len(schema.navigation_dims(ds)) > 1
        has_network = self.run.manifest.get("kind") != n.ATTACHED
        is_fitted = "fit" in self.run.manifest
        parts: dict[str, tuple[str, Callable[[Contents, Section], None]]] = {}
        if is_scan:
            parts["overview"] = "Overview of the scan", overview
            parts["maps"] = "Latent maps beside side maps", maps
            parts["linked"] = "Strongest latents, map and scatter linked", linked
        parts["association"] = "Association of latents and side maps", association
        if is_scan:
            parts["clusters"] = "Clusters", clusters
        if has_network:
            parts["model"] = "Model", components if is_fitted else model
        if not is_fitted:
            parts["training"] = "Training", training
        parts["health"] = "Health of the latent space", health
        parts["reconstructions"] = "Reconstructions", reconstructions
        return parts

    def show(
        self, section: Section, name: str, result: Any, *backend: Any, kind: str, **options: Any
    ) -> None:
        """Put the view of a result into the page, and its figure into `png/`."""
        shown = view(result, *backend, kind=kind, **options)
        show(section, shown, name.replace("_", " "))
        self.figures[name] = on_paper(shown)


# ---- the sections


def introduction(contents: Contents) -> Section:
    """The head of the page in words."""
    section = Section("top", "")
    run = contents.run
    description = schema.describe(run.ds)
    grid = " × ".join(f"{size} {dim}" for dim, size in description["grid"].items())
    pattern = " × ".join(f"{size} {dim}" for dim, size in description["pattern"].items())
    samples = schema.samples_word(run.ds)
    section.say(
        f"Data: {contents.source}, {samples} {grid}, each of {pattern} values ({description['dtype']})."
    )
    for line in repr(run).splitlines()[1:]:
        section.say(f"{line[0].upper()}{line[1:]}.", "note" if line.startswith("warning") else "")
    section.say(f"Report of {now()}, vaearr {versions()['vaearr']}, store {run.path.name}.")
    if contents.middle:
        words = [
            f"{dim} = {float(run.ds[dim][i]):g} {unit(run.ds[dim].attrs)}"
            for dim, i in contents.middle.items()
        ]
        section.say(
            f"Maps show the plane {', '.join(words)}; associations are over the whole volume."
        )
    return section


def overview(contents: Contents, section: Section) -> None:
    """Band contrast, elements, phase; the elements as colours."""
    ds = contents.plane
    contents.show(section, "side_maps", ds, "matplotlib", kind="side_maps", roi=contents.region)
    if n.ELEMENTS in ds and ds.sizes[n.ELEMENT] > 1:
        spread = (
            ds[n.ELEMENTS].std([dim for dim in ds[n.ELEMENTS].dims if dim != n.ELEMENT]).fillna(0)
        )
        most_varied = ds[n.ELEMENT].values[np.argsort(-spread.values, kind="stable")[:3]]
        rgb = element_rgb(ds, [str(element) for element in most_varied], (0.01, 0.99))
        contents.show(section, "elements_rgb", rgb, "matplotlib", kind="rgb", roi=contents.region)
        section.caption(
            "The three elements that vary most as red, green and blue, each from its 1 % to its 99 % quantile."
        )


def maps(contents: Contents, section: Section) -> None:
    """The latent maps, selectable, next to the side maps."""
    ds = contents.plane
    labels = contents.latents[contents.latents.dims[-1]].values.tolist()
    in_order = list(
        dict.fromkeys([*(latent for latent, _ in contents.strongest.values()), *labels])
    )
    count = min(MOST_MAPS, max(1, PACKED_MAPS * len(labels) // contents.latents.size))
    chosen = sorted(in_order[:count])
    latent_maps = [latent_map(ds, contents.run.name, label) for label in chosen]
    section.figure(explorer(side_map_list(ds), latent_maps, contents.region))
    section.caption(
        "Left: side map, right: latent, each chosen above the map; zoom and cross-hair are linked."
    )
    if count < len(labels):
        section.say(
            f"{count} of {len(labels)} latents, among them the strongest of each target.", "note"
        )
    contents.figures["latent_maps"] = view(
        ds[contents.latents.name], "matplotlib", kind="stack", entries=chosen
    )


def linked(contents: Contents, section: Section) -> None:
    """For each target its strongest latent, map and scatter linked: band contrast first, then the
    strongest.
    """
    if not contents.strongest:
        raise NoInputError("no latent has an association with any target.")
    targets = sorted(
        contents.strongest, key=lambda name: (name != n.BC, -abs(contents.strongest[name][1]))
    )
    phases = [target for target in targets if target.startswith(f"{n.PHASE}: ")]
    targets = [
        target for target in targets if target not in phases[1:]
    ]  # of two phases, one mirrors the other
    n_points = contents.plane[n.PATTERNS].sizes[n.Y] * contents.plane[n.PATTERNS].sizes[n.X]
    for target in targets[: int(np.clip(PAIR_PIXELS // n_points, 2, MOST_PAIRS))]:
        latent, _ = contents.strongest[target]
        name = f"latent_{latent}_against_{plain_name(target)}"
        options: dict[str, Any] = {"latent": latent, "target": target, "run": contents.run.name}
        options |= {"roi": contents.region, "most_points": PAIR_POINTS}
        contents.show(section, name, contents.plane, kind="map_scatter", **options)
    section.caption(
        "The latent with the largest association; what is selected in the map is selected in the scatter."
    )


def plain_name(target: str) -> str:
    """A target as part of a file name."""
    letters = [letter if letter.isalnum() and letter.isascii() else "_" for letter in target]
    return "".join(letters).strip("_") or "target"


def association(contents: Contents, section: Section) -> None:
    """Heat maps and ranking table."""
    found = contents.association
    for metric in map(str, found["metric"].values[:MOST_METRICS]):
        contents.show(section, f"association_{metric}", found, kind="association", metric=metric)
    if P_ADJUSTED in found:
        section.say(
            "Dots: adjusted p < 0.05 against surrogate maps of the same smoothness as the target."
        )
    else:
        section.say(
            "No value is a proof: neighbouring scan points are not independent. 'vaearr associate --significance' "
            "tests against surrogate maps of the same smoothness."
        )
    columns = (
        [name for name in contents.rankings[0] if name != "position"] if contents.rankings else []
    )
    section.table(columns, [[row[name] for name in columns] for row in contents.rankings])
    formulas = []
    for metric, definition in found["association"].attrs.get("metrics", {}).items():
        formulas.append(f"{metric}: {definition['formula']} ({definition['reference']})")
    section.folded("How the metrics are defined", "\n".join(formulas))


def clusters(contents: Contents, section: Section) -> None:
    """Cluster maps of the run, each shaded by a latent beside a scatter, in numbers, against the
    phases.
    """
    if not contents.clusterings:
        raise NoInputError("the run has no clusters; 'vaearr cluster STORE' finds some.")
    for name in contents.clusterings[-MOST_CLUSTERINGS:]:
        clustering(contents, section, name)


def clustering(contents: Contents, section: Section, name: str) -> None:
    """One cluster map: the sheet, its clusters in numbers, and its agreement with the phases."""
    ds, labels = contents.plane, contents.plane[name]
    section.say(f"{name}: {labels.attrs['k']} clusters by {labels.attrs['method']}.")
    for note in labels.attrs.get("warnings", []):
        section.say(str(note), "note")
    first, second = ([latent for latent, _ in contents.strongest.values()] + [0, 1])[:2]
    latent = latent_map(ds, contents.run.name, first)
    target = ds[n.BC] if n.BC in ds else latent_map(ds, contents.run.name, second)
    options: dict[str, Any] = {
        "latent": latent,
        "target": target,
        "segments": boundary_segments(labels),
    }
    contents.show(
        section, f"{name}_sheet", labels, kind="clusters", most_points=CLUSTER_POINTS, **options
    )
    numbers = cluster_numbers(contents, name)
    if "summary" in numbers:
        section.folded("The clusters in numbers", "\n".join(describe(numbers["summary"])))
    if "agreement_with_phase" in numbers:
        scores = numbers["agreement_with_phase"]
        section.table(
            ["agreement with the phases", "value"],
            [[key, float(scores[key])] for key in SHOWN_SCORES],
        )
        beside = {name: labels, n.PHASE: ds[n.PHASE]}
        segments = boundary_segments(ds[n.PHASE])
        contents.show(
            section, f"{name}_against_phase", beside, "matplotlib", kind="map", segments=segments
        )


def cluster_numbers(contents: Contents, name: str) -> dict[str, xr.Dataset]:
    """Means of the maps in each cluster, and the agreement with the phases, as far as they are
    known.
    """
    ds = contents.run.ds
    labels, numbers = ds[name].load(), {}
    described_by = [other for other in (n.BC, n.ELEMENTS) if other in ds]
    if described_by and (labels >= 0).any():
        numbers["summary"] = cluster_summary(labels, ds[described_by].load())
    if n.PHASE in ds and ((labels >= 0) & (ds[n.PHASE] >= 0)).any():
        numbers["agreement_with_phase"] = cluster_scores(labels, ds[n.PHASE].load())
    return numbers


def model(contents: Contents, section: Section) -> None:
    """The network as a picture, and its layers."""
    from vaearr.models.card import model_card

    card = model_card(contents.run.model)
    contents.show(section, "model", card, kind="network")
    section.folded(
        "All layers, in order of execution", "\n".join(describe(card, top=card.sizes["layer"]))
    )


def components(contents: Contents, section: Section) -> None:
    """Components of a linear model, and what each of them explains."""
    contents.show(section, "components", contents.run.components, kind="components")
    if "explained_variance_ratio" in contents.run.health:
        contents.show(
            section, "variance", contents.run.health["explained_variance_ratio"], kind="variance"
        )


def training(contents: Contents, section: Section) -> None:
    """Loss curves, and samples that were decoded as the training went on."""
    contents.show(section, "loss_curves", contents.run.history, kind="history")
    if has_table(contents.run.path, contents.run.name, n.SHEETS):
        contents.show(section, "progress", contents.run.table(n.SHEETS), kind="progress")


def health(contents: Contents, section: Section) -> None:
    """KL of each latent."""
    contents.show(section, "latent_health", contents.run.health, kind="run_health")
    section.caption(
        "KL divergence of each latent from the prior; grey: unused, of no variance over the samples."
    )


def reconstructions(contents: Contents, section: Section) -> None:
    """Patterns, reconstructions, residuals."""
    samples = contents.run.example_reconstructions()
    contents.show(section, "reconstructions", samples, kind="reconstruction")


def provenance(contents: Contents) -> Section:
    """Settings and origins, folded."""
    section = Section("provenance", "Parameters and provenance")
    run = contents.run
    parts = {"Run": dict(run.manifest), "Latents": run.latents.attrs, "Dataset": run.ds.attrs}
    for heading, values in parts.items():
        section.folded(heading, json.dumps(values, indent=2, default=str, ensure_ascii=False))
    return section


def record_of(contents: Contents, folder: Path, left_out: dict[str, str]) -> dict[str, Any]:
    """The numbers of the page, and what they were made from, for other programs."""
    run = contents.run
    numbers = {"history": n.HISTORY, "health": n.HEALTH}
    tables = {
        key: run.table(name).to_dict()
        for key, name in numbers.items()
        if has_table(run.path, run.name, name)
    }
    clusters = {}
    for name in contents.clusterings:
        found = {key: table.to_dict() for key, table in cluster_numbers(contents, name).items()}
        clusters[name] = {"attributes": run.ds[name].attrs, **found}
    n_known = int(np.isfinite(contents.latents.values).all(-1).sum())
    return {
        "generator": GENERATOR,
        "created": now(),
        "run": run.name,
        "store": os.path.relpath(run.path, folder),
        "png": {name: f"png/{name}.png" for name in contents.figures},
        "left_out": left_out,
        "training_parameters": run.manifest.get("config"),
        "versions": versions("scipy", "holoviews", "bokeh", "matplotlib"),
        "roi": {"n_points": n_known, "config": run.manifest.get("roi")},
        "rankings": contents.rankings,
        "clusters": clusters,
        **tables,
        "provenance": {
            "dataset": run.ds.attrs,
            "run": dict(run.manifest),
            "latents": run.latents.attrs,
        },
    }
