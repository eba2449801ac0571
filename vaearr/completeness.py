"""Is a result there already, made from the same data with the same settings? Looked up in its record, nothing computed.

What a step would make is `absent`, the `same` (nothing is left to do), or `other`, with the differences in words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config import EncodeConfig, IngestConfig, ReportConfig, RoiConfig, TrainConfig
from vaearr.errors import ExistsError, UsageError
from vaearr.ingestion import source_state, without_folders
from vaearr.provenance import nested, versions
from vaearr.reporting.write import GENERATOR, report_folder
from vaearr.runs import data_fingerprint, resolve_roi, settled
from vaearr.sources import check_source
from vaearr.store import check_store, open_store, recover, refuse_taken, run_manifest, run_names

OF_LATENTS = ("mask", "window", "overlap", "precision")  # settings of an encoding that say what latents hold


@dataclass(frozen=True)
class Found:
    """What is there of a result. differences: between how it was made and what is asked, "found and asked"."""

    state: Literal["absent", "same", "other"]
    differences: str = ""


ABSENT, SAME = Found("absent"), Found("same")


def _compared(made: Mapping[str, Any], asked: Mapping[str, Any], *further: str) -> Found:
    from vaearr.training.checkpoint import differences

    plain = (json.loads(json.dumps(part, default=str)) for part in (made, asked))
    why = ", ".join(filter(None, [differences(*plain), *further]))
    return Found("other", why) if why else SAME


def ingested(source: str | Path, store: str | Path, config: IngestConfig) -> Found:
    """The store of a source: same file (name, bytes, time of change), same settings.

    Raises NoInputError for a source that is not there, DataError where something else than a store is at the path.
    """
    try:
        refuse_taken(store)
    except ExistsError:
        pass
    else:
        return ABSENT
    file = check_source(source)
    origin = nested(open_store(check_store(store), chunks=None).attrs, n.PROVENANCE)
    if not isinstance(origin, Mapping) or "ingest" not in origin:
        return Found("other", "the store does not say what it was made from")
    size, changed = source_state(file, config)
    mtime = datetime.fromtimestamp(changed / 1e9, UTC).isoformat()
    asked = {"source": {"file": file.name, "bytes": size, "mtime": mtime}, "ingest": without_folders(config)}
    made = {"source": {key: origin["source"].get(key) for key in asked["source"]}}
    try:
        made["ingest"] = without_folders(IngestConfig.from_attrs(dict(origin["ingest"])))
    except UsageError as error:
        return Found("other", str(error))
    return _compared(made, asked)


def trained(store: str | Path, run: str, roi: RoiConfig | xr.DataArray | None, config: TrainConfig) -> Found:
    """A run of a store: same patterns, same region, same settings as far as they decide the weights."""
    from vaearr.training.job import NOT_COMPARED

    path = check_store(store)
    recover(path)  # a publication that a kill cut short counts as there
    if run not in run_names(path):
        return ABSENT
    manifest = run_manifest(path, run)
    if manifest.get("kind") == n.ATTACHED:
        return Found("other", "its latents were attached, not learned here")
    ds = open_store(path, chunks=None)
    further = []
    if dict(manifest.get("data", {})) != data_fingerprint(ds):
        further.append("it was trained on other patterns")
    own, asked_roi = ds[n.run_name(n.ROI, run)].values, resolve_roi(ds, roi).values
    if not np.array_equal(own, asked_roi):
        further.append(f"region of {int(own.sum())} points and another of {int(asked_roi.sum())}")
    try:
        made = TrainConfig.from_attrs(dict(manifest["config"])).to_attrs()
    except UsageError as error:
        return Found("other", str(error))
    asked = settled(config, ds).to_attrs()
    decide = [key for key in asked if key not in NOT_COMPARED]
    return _compared({key: made[key] for key in decide}, {key: asked[key] for key in decide}, *further)


def encoded(store: str | Path, config: EncodeConfig) -> Found:
    """The latents of a run: by the run's present weights, with the same settings as far as they decide values."""
    path = check_store(store)
    manifest = run_manifest(path, config.run)
    ds = open_store(path, chunks=None)
    latents = ds.get(n.run_name(n.LATENTS, config.run))
    if latents is None:
        return ABSENT
    stamp = nested(latents.attrs, n.PROVENANCE)
    if not isinstance(stamp, Mapping) or "config" not in stamp:
        return Found("other", "they do not say how they were made")
    decide = [key for key in OF_LATENTS if key != "overlap" or config.window is not None]
    asked = config.to_attrs()
    return _compared(
        {"weights_sha256": stamp.get("weights_sha256"), **{key: stamp["config"].get(key) for key in decide}},
        {"weights_sha256": manifest.get("weights_sha256"), **{key: asked[key] for key in decide}},
    )


def reported(store: str | Path, config: ReportConfig) -> Found:
    """The report of a run: same settings, by this version, and nothing was published in the store since.

    Raises ExistsError where its folder holds anything else.
    """
    path = check_store(store)
    folder = report_folder(path, config)
    record, page = folder / "report.json", folder / "index.html"
    if not (record.is_file() and page.is_file()):
        return ABSENT
    found = json.loads(record.read_text(encoding="utf-8"))
    if found.get("generator") != GENERATOR:
        return ABSENT
    if record.stat().st_mtime_ns <= (path / "zarr.json").stat().st_mtime_ns:  # its listing, new with each publication
        return Found("other", "the store holds more since")
    asked = {key: value for key, value in config.to_attrs().items() if key != "out"}
    made = found.get("report_parameters", {})
    return _compared(
        {"vaearr": found.get("versions", {}).get("vaearr"), **made}, {"vaearr": versions()["vaearr"], **asked}
    )
