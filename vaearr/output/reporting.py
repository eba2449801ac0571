"""A run as one self-contained HTML page, its figures as PNG and SVG, its numbers as CSV and JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from vaearr import names as n
from vaearr.errors import DataError, ExistsError, NoInputError
from vaearr.output.contents import Contents
from vaearr.output.exporting import is_encoded, write_json
from vaearr.output.sections import introduction, origins, provenance, section_table
from vaearr.recipe import FINGERPRINTS, nested, now, versions
from vaearr.store import check_inputs, has_table, published_at
from vaearr.store.folders import output_folder
from vaearr.views.common import holoviews
from vaearr.views.page import Section, page

if TYPE_CHECKING:
    from vaearr import Run

GENERATOR = "vaearr report"
RECORD = "report.json"
PAGE = "index.html"
FOLDERS = ("png", "svg", "data")  # of the figures and their tables


def write_report(run: Run, out: str | Path | None) -> Path:
    """Write the report of a run into a folder, see `Run.report`."""
    holoviews()  # fails before any work if it is not installed
    if run.manifest.get("kind") != n.ATTACHED:
        run.model.eval()  # the network is loaded first: it may need the user's trust
    contents = Contents(run)
    folder = report_folder(run.path, run.name, out)
    fingerprints = check_inputs(run.path, _variables_of(run))
    head = introduction(contents)
    sections: list[Section] = []
    left_out: dict[str, str] = {}
    for name, heading, fill in section_table(contents):
        section = Section(name, heading)
        try:
            fill(contents, section)
        except (NoInputError, DataError) as reason:
            left_out[name] = str(reason)
            section = Section(name, heading)
            section.say(f"Left out: {reason}")
        sections.append(section)
    heading = f"Latents of run “{run.name}” of {contents.source}"
    text = page(heading, head, [*sections, provenance(run), files_section(contents)])
    record = record_of(contents, folder, left_out) | {FINGERPRINTS: fingerprints}
    with output_folder(folder, last=RECORD) as temporary:
        for name in FOLDERS:
            (temporary / name).mkdir()
        for path, data in contents.files.items():
            (temporary / path).write_bytes(data)
        (temporary / PAGE).write_text(text, encoding="utf-8", errors="replace")
        write_json(temporary / RECORD, record)
    return folder / PAGE


def files_section(contents: Contents) -> Section:
    """Links to the files next to the page."""
    section = Section("files", "Files")
    section.caption(
        "Next to this page, if its folder was sent with it: figures as PNG and SVG, their numbers "
        "as CSV, and the numbers of the report as JSON. Tables of more than two million values "
        "are left out; 'vaearr export' writes them.",
        {path: path for path in [RECORD, *contents.files]},
    )
    return section


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


def record_of(contents: Contents, folder: Path, left_out: dict[str, str]) -> dict[str, Any]:
    """The numbers of the page and their origin, for other programs."""
    run = contents.run
    clusters = {}
    for name, tables in contents.clusterings.items():
        plain = {key: table.to_dict() for key, table in tables.items()}
        clusters[name] = {"attributes": run.ds[name].attrs, **plain}
    files: dict[str, dict[str, str]] = {name: {} for name in FOLDERS}
    for path in map(PurePosixPath, contents.files):
        files[path.parent.name][path.stem] = str(path)
    record = {
        "generator": GENERATOR,
        "created": now(),
        "run": run.name,
        "store": os.path.relpath(run.path, folder),
        **files,
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
