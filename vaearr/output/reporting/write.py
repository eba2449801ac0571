"""A run as one self-contained HTML page, its main views as PNG, its numbers as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association import P_ADJUSTED, ranking
from vaearr.config import ReportConfig, resolved, settings_as_keywords
from vaearr.errors import DataError, ExistsError, NoInputError
from vaearr.output.reporting.contents import Absent, Contents, LeftOut
from vaearr.output.reporting.sections import PARTS, introduction, provenance
from vaearr.recipe import FINGERPRINTS, Recipe, as_json, nested, versions
from vaearr.run import Run, StoreOrRun
from vaearr.store import check_inputs, open_store, published_at
from vaearr.store.folders import staged
from vaearr.views.page import Section, page, png

GENERATOR = "vaearr report"
RECORD, PAGE = "report.json", "index.html"
PNG_DPI = 300


@settings_as_keywords(ReportConfig)
def report(store: StoreOrRun, run: str | None = None, *, config: ReportConfig | None = None, **settings: Any) -> Path:
    """Write the report of a run: `index.html`, which works offline, `png/` and `report.json`.

    A report that exists in the folder is replaced file by file, its record last, so that a page is always there.

    Parameters
    ----------
    store
        Path of a store, a Run, or a Dataset that was opened from a store.
    run
        Name of the run; default: that of a Run, else that of `config`.
    config, **settings
        See ReportConfig; keywords replace single settings of `config`. The default of `out` is
        `<store without .zarr>.reports/<run>`.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    NoInputError
        If the run does not exist or is not encoded.
    ExistsError
        If the folder holds anything but a report.
    """
    if run is None and isinstance(store, Run):
        run = store.name
    config = resolved(ReportConfig, config, settings | {"run": run})
    contents = Contents(store, config)
    folder = report_folder(contents.store, config)
    fingerprints = check_inputs(contents.store, list(map(str, contents.whole.variables)))
    sections: list[Section] = []
    left_out: dict[str, str] = {}
    for name, (heading, fill) in PARTS.items():
        section = Section(name, heading)
        try:
            fill(contents, section)
        except (NoInputError, DataError, LeftOut) as reason:
            left_out[name] = str(reason)
            section = Section(name, heading)
            section.say(f"Left out: {reason}")
            if isinstance(reason, Absent):
                continue
        sections.append(section)
    heading = f"Latents of run “{config.run}” of {contents.name}"
    text = page(heading, introduction(contents), [*sections, provenance(contents)])
    record = as_json(_record(contents, folder, left_out) | {FINGERPRINTS: fingerprints})
    with staged(folder, last=RECORD) as aside:
        (aside / "png").mkdir()
        for name, figure in contents.figures.items():
            (aside / "png" / f"{name}.png").write_bytes(png(figure, PNG_DPI))
        (aside / PAGE).write_text(text, encoding="utf-8", errors="replace")
        (aside / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False), encoding="utf-8")
    return folder / PAGE


def is_current(store: Path, config: ReportConfig) -> bool:
    """Whether the report of a run is there, by this version with these settings, and nothing was published since."""
    folder = report_folder(store, config)
    found = _record_of(folder)
    if not (found and (folder / PAGE).is_file()) or (folder / RECORD).stat().st_mtime <= published_at(store):
        return False
    made = {"config": found.get("report_parameters"), "vaearr": found.get("versions", {}).get("vaearr")}
    made[FINGERPRINTS] = found.get(FINGERPRINTS)
    present = check_inputs(store, list(map(str, open_store(store, chunks=None).variables)))
    return Recipe(config, {"vaearr": versions()["vaearr"]}, present).differences(made) == ""


def report_folder(store: Path, settings: ReportConfig) -> Path:
    """Where the report goes: next to the store. Raises ExistsError."""
    folder = settings.out or store.with_name(f"{store.name.removesuffix('.zarr')}.reports") / settings.run
    folder = folder.expanduser()
    is_free = not (folder.exists() or folder.is_symlink()) or (folder.is_dir() and not any(folder.iterdir()))
    if not (is_free or _record_of(folder)):
        raise ExistsError(f"{folder} exists and is not a report of vaearr; name another folder with out='…' (--out).")
    return folder.resolve()


def _record_of(folder: Path) -> dict[str, Any] | None:
    """The record of the report in a folder, None where there is none."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("generator") == GENERATOR else None


def _record(contents: Contents, folder: Path, left_out: dict[str, str]) -> dict[str, Any]:
    """Everything of the page that is a number or a name, for other programs."""
    settings = contents.config
    manifest = contents.manifest
    description = schema.describe(contents.whole)
    has_association = contents.has_association
    table = contents.need_association() if has_association else None
    health = contents.health
    clusters = {}
    for name in contents.clusterings:
        clusters[name] = {
            "attributes": contents.whole[name].attrs,
            "summary": _as_dict(contents.cluster_summaries.get(name)),
            "agreement_with_phase": _as_dict(contents.cluster_agreements.get(name)),
        }
    return {
        "generator": GENERATOR,
        "format": 1,
        "created": contents.created,
        "run": settings.run,
        "store": os.path.relpath(contents.store, folder),
        "page": PAGE,
        "png": {name: f"png/{name}.png" for name in contents.figures},
        "left_out": left_out,
        "warnings": [] if health is None else [str(warning) for warning in health.attrs.get("warnings", [])],
        "report_parameters": {key: value for key, value in settings.to_attrs().items() if key != "out"},
        "training_parameters": manifest.get("config"),
        "versions": contents.versions,
        "grid": description["grid"],
        "extent": description["extent"],
        "pattern": description["pattern"],
        "roi": {"n_points": contents.n_roi, "n_grid": contents.n_grid, "config": manifest.get("roi")},
        "n": contents.targets if has_association else {},
        "rankings": _rankings(contents) if has_association else {},
        "tested": _as_dict(table) if table is not None and P_ADJUSTED in table else None,
        "decompositions": {name: rival.to_dict() for name, rival in contents.rivals.items()},
        "clusters": clusters,
        "health": _as_dict(health),
        "history": _as_dict(contents.history),
        "provenance": {
            "dataset": contents.whole.attrs,
            "run": manifest,
            "latents": nested(contents.latents.attrs, n.PROVENANCE),
        },
    }


def _as_dict(numbers: xr.Dataset | None) -> dict[str, Any] | None:
    return None if numbers is None else numbers.to_dict()


def _rankings(contents: Contents) -> dict[str, dict[str, list[dict[Any, Any]]]]:
    """Latents by strength for each metric and target."""
    table = contents.table
    found: dict[str, dict[str, list[dict[Any, Any]]]] = {}
    for metric in map(str, table["metric"].values):
        found[metric] = {}
        for target in contents.targets:
            found[metric][target] = ranking(table, metric, target).to_dataframe().to_dict("records")
    return found
