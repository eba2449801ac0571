"""A run as one self-contained HTML page, its main views as PNG, its numbers as JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr.analysis.association import ranking
from vaearr.config import ReportConfig, resolved, settings_as_keywords
from vaearr.errors import DataError, ExistsError, NoInputError, VaearrError, WriteError
from vaearr.output.reporting import analyses
from vaearr.output.reporting import sections as parts
from vaearr.output.reporting.facts import Facts, LeftOut, NoMaps, gather, labels_and_n
from vaearr.recipe import Recipe, as_json, nested, versions
from vaearr.store import as_url, beside, published_at
from vaearr.views.page import Section, page, png

GENERATOR = "vaearr report"
PNG_DPI = 300
Samples = xr.Dataset | Callable[[], xr.Dataset]


@settings_as_keywords(ReportConfig)
def report(
    store: str | Path, *, config: ReportConfig | None = None, samples: Samples | None = None, **given: Any
) -> Path:
    """Write the report of a run: `index.html` (works offline), `png/` and `report.json`. Returns the page's path.

    Parameters
    ----------
    config
        Settings; keywords replace single ones. A report that lies in its folder, by default `<store without
        .zarr>.reports/<run>`, is replaced in one rename; a folder with anything else in it is refused (ExistsError).
    samples
        Patterns and reconstructions to show (`input`, `reconstruction` over `sample, dy, dx`), or a function that
        makes them; by default the run's own model reconstructs a few scan points.
    """
    settings = resolved(ReportConfig, config, given)
    facts = gather(store, settings)
    folder = report_folder(facts.store, settings)
    sections, figures, left_out = _sections(facts, settings, samples)
    introduction = parts.introduction(facts)
    provenance = parts.provenance(facts)
    heading = f"Latents of run “{settings.run}” of {facts.name}"
    record = _record(facts, settings, folder, figures, left_out)
    staged = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(staged, ignore_errors=True)
        (staged / "png").mkdir(parents=True)
        for name, figure in figures.items():
            (staged / "png" / f"{name}.png").write_bytes(png(figure, PNG_DPI))
        (staged / "report.json").write_text(json.dumps(as_json(record), indent=2, ensure_ascii=False), encoding="utf-8")
        text = page(heading, introduction, [*sections, provenance])
        (staged / "index.html").write_text(text, encoding="utf-8", errors="replace")
        _publish(staged, folder)
    except VaearrError:
        raise
    except OSError as error:
        raise WriteError(f"the report cannot be written to {folder}: {error}.") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder / "index.html"


def is_current(store: Path, config: ReportConfig) -> bool:
    """Whether the report of a run is there, by this version with these settings, and nothing was published since."""
    folder = report_folder(store, config)
    record = folder / "report.json"
    if not (record.is_file() and (folder / "index.html").is_file()):
        return False
    found = json.loads(record.read_text(encoding="utf-8"))
    if record.stat().st_mtime <= published_at(store):
        return False
    made = {"config": found.get("report_parameters"), "vaearr": found.get("versions", {}).get("vaearr")}
    return Recipe(config, {"vaearr": versions()["vaearr"]}).differences(made) == ""


def report_folder(store: Path, settings: ReportConfig) -> Path:
    """Where the report goes: beside the store, of one at a URL in the current folder. Raises ExistsError."""
    folder = settings.out or beside(store).with_name(f"{store.name.removesuffix('.zarr')}.reports") / settings.run
    folder = folder.expanduser()
    if folder.is_dir() and (not any(folder.iterdir()) or _is_report(folder)):
        return folder.resolve()
    if folder.exists() or folder.is_symlink():
        raise ExistsError(f"{folder} is there and is not a report of vaearr; name another folder with out='…' (--out).")
    return folder.resolve()


def _is_report(folder: Path) -> bool:
    try:
        found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("generator") == GENERATOR


def _publish(staged: Path, folder: Path) -> None:
    """Rename the finished report in; the one before goes after that."""
    before = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.rename(folder, before)
    os.rename(staged, folder)
    shutil.rmtree(before, ignore_errors=True)


def _sections(
    facts: Facts, settings: ReportConfig, samples: Samples | None
) -> tuple[list[Section], dict[str, Any], dict[str, str]]:
    """The parts of the page, the figures for `png/`, and why parts are left out."""
    figures: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    sections: list[Section] = []
    makers: list[tuple[str, Callable[[], Section]]] = [
        ("overview", lambda: parts.overview(facts, figures)),
        ("maps", lambda: parts.explorer_section(facts, settings.max_maps, figures)),
        ("linked", lambda: parts.linked(facts, figures)),
        ("association", lambda: analyses.association(facts, figures)),
        ("decomposition", lambda: analyses.decomposition(facts, figures)),
        ("clusters", lambda: analyses.clusters(facts, figures)),
        *([("model", lambda: parts.model(facts, figures))] if parts.has_model(facts) else []),
        ("training", lambda: parts.training(facts, figures)),
        ("health", lambda: parts.health(facts, figures)),
        ("reconstructions", lambda: parts.reconstructions(facts, samples, figures)),
    ]
    for name, make in makers:
        try:
            sections.append(make())
        except (NoInputError, DataError, LeftOut) as reason:
            left_out[name] = str(reason)
            if not isinstance(reason, NoMaps):
                section = Section(name, parts.HEADINGS[name])
                section.say(f"Left out: {reason}")
                sections.append(section)
    return sections, figures, left_out


def _record(
    facts: Facts, settings: ReportConfig, folder: Path, figures: dict[str, Any], left_out: dict[str, str]
) -> dict[str, Any]:
    """Everything of the page that is a number or a name, for other programs."""
    table = facts.table
    return {
        "generator": GENERATOR,
        "format": 1,
        "created": facts.created,
        "run": settings.run,
        "store": as_url(facts.store) or os.path.relpath(facts.store, folder),
        "page": "index.html",
        "png": {name: f"png/{name}.png" for name in figures},
        "left_out": left_out,
        "warnings": facts.warnings,
        "report_parameters": {key: v for key, v in settings.to_attrs().items() if key != "out"},
        "training_parameters": facts.manifest.get("config"),
        "versions": facts.versions,
        "grid": facts.description["grid"],
        "extent": facts.description["extent"],
        "pattern": facts.description["pattern"],
        "roi": {"n_points": facts.n_roi, "n_grid": facts.n_grid, "config": facts.manifest.get("roi")},
        "n": {} if table is None else {str(t): int(k) for t, k in zip(*labels_and_n(table), strict=True)},
        "rankings": {} if table is None else _rankings(table),
        "tested": None if facts.tested is None else facts.tested.to_dict(),
        "phases": {name: values.to_dict() for name, values in facts.classes.items()},
        "decompositions": {name: rival.to_dict() for name, rival in facts.rivals.items()},
        "clusters": {
            name: {
                "attributes": facts.ds[name].attrs,
                "summary": None if found.summary is None else found.summary.to_dict(),
                "agreement_with_phase": None if found.scores is None else found.scores.to_dict(),
            }
            for name, found in facts.clusters.items()
        },
        "health": None if facts.health is None else facts.health.to_dict(),
        "history": None if facts.history is None else facts.history.to_dict(),
        "provenance": {
            "dataset": facts.ds.attrs,
            "run": facts.manifest,
            "latents": nested(facts.latents.attrs, n.PROVENANCE),
        },
    }


def _rankings(table: xr.DataArray) -> dict[str, dict[str, list[dict[Any, Any]]]]:
    found: dict[str, dict[str, list[dict[Any, Any]]]] = {}
    for metric in map(str, table["metric"].values):
        found[metric] = {}
        for target in labels_and_n(table)[0]:
            ranked = ranking(table, metric, target if "target" in table.dims else None)
            found[metric][target] = ranked.to_dataframe().to_dict("records")
    return found
