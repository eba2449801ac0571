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
from vaearr.recipe import Recipe, as_json, nested, versions
from vaearr.run import Run, StoreOrRun
from vaearr.store import as_url, beside, published_at
from vaearr.store.folders import staged
from vaearr.views.page import Section, page, png

GENERATOR = "vaearr report"
RECORD, PAGE = "report.json", "index.html"
PNG_DPI = 300


@settings_as_keywords(ReportConfig)
def report(store: StoreOrRun, *runs: str, config: ReportConfig | None = None, **given: Any) -> Path:
    """Write the report of a run: `index.html` (works offline), `png/` and `report.json`. Returns the page's path.

    runs: the run, which may stand second instead of `run=`; of a Run its own. config: settings; keywords replace single
    ones. A report that lies in its folder, by default `<store without .zarr>.reports/<run>`, is replaced file by file,
    its record last, so that a page is always there; a folder with anything else in it is refused (ExistsError). Raises
    NoInputError for a run that is not there or not encoded.
    """
    run = next(iter(runs), given.get("run")) or (store.name if isinstance(store, Run) else None)
    settings = resolved(ReportConfig, config, given | {"run": run})
    contents = Contents(store, settings)
    folder = report_folder(contents.store, settings)
    sections, left_out = list[Section](), dict[str, str]()
    for name, (heading, fill) in PARTS.items():
        section = Section(name, heading)
        try:
            fill(contents, section)
        except (NoInputError, DataError, LeftOut) as reason:
            left_out[name] = str(reason)
            if isinstance(reason, Absent):
                continue
            section = Section(name, heading)
            section.say(f"Left out: {reason}")
        sections.append(section)
    heading = f"Latents of run “{settings.run}” of {contents.name}"
    text = page(heading, introduction(contents), [*sections, provenance(contents)])
    record = as_json(_record(contents, folder, left_out))
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
    return Recipe(config, {"vaearr": versions()["vaearr"]}).differences(made) == ""


def report_folder(store: Path, settings: ReportConfig) -> Path:
    """Where the report goes: beside the store, of one at a URL in the current folder. Raises ExistsError."""
    folder = settings.out or beside(store).with_name(f"{store.name.removesuffix('.zarr')}.reports") / settings.run
    folder = folder.expanduser()
    is_free = not (folder.exists() or folder.is_symlink()) or (folder.is_dir() and not any(folder.iterdir()))
    if not (is_free or _record_of(folder)):
        raise ExistsError(f"{folder} is there and is not a report of vaearr; name another folder with out='…' (--out).")
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
    settings, manifest, about = contents.config, contents.manifest, schema.describe(contents.whole)
    table = contents.association

    def plain(numbers: xr.Dataset | xr.DataArray | None) -> dict[str, Any] | None:
        return None if numbers is None else numbers.to_dict()

    return {
        "generator": GENERATOR,
        "format": 1,
        "created": contents.created,
        "run": settings.run,
        "store": as_url(contents.store) or os.path.relpath(contents.store, folder),
        "page": PAGE,
        "png": {name: f"png/{name}.png" for name in contents.figures},
        "left_out": left_out,
        "warnings": contents.warnings,
        "report_parameters": {key: v for key, v in settings.to_attrs().items() if key != "out"},
        "training_parameters": manifest.get("config"),
        "versions": contents.versions,
        **{key: about[key] for key in ("grid", "extent", "pattern")},
        "roi": {"n_points": contents.n_roi, "n_grid": contents.n_grid, "config": manifest.get("roi")},
        "n": {} if table is None else dict(contents.targets),
        "rankings": {} if table is None else _rankings(contents),
        "tested": plain(table) if table is not None and P_ADJUSTED in table else None,
        "decompositions": {name: rival.to_dict() for name, rival in contents.rivals.items()},
        "clusters": {
            name: {
                "attributes": contents.whole[name].attrs,
                "summary": plain(summary),
                "agreement_with_phase": plain(scores),
            }
            for name, (summary, scores) in contents.clusters.items()
        },
        "health": plain(contents.health),
        "history": plain(contents.history),
        "provenance": {
            "dataset": contents.whole.attrs,
            "run": manifest,
            "latents": nested(contents.latents.attrs, n.PROVENANCE),
        },
    }


def _rankings(contents: Contents) -> dict[str, dict[str, list[dict[Any, Any]]]]:
    table = contents.table
    return {
        metric: {t: ranking(table, metric, t).to_dataframe().to_dict("records") for t, _ in contents.targets}
        for metric in map(str, table["metric"].values)
    }
