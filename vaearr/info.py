"""What is in a store, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.data_report import data_facts, data_lines
from vaearr.errors import VaearrError
from vaearr.provenance import nested
from vaearr.store import (
    check_store,
    has_table,
    open_store,
    open_table,
    read_only_url,
    run_manifest,
    run_names,
    shown,
    stored_bytes,
)


def store_facts(store: str | Path) -> dict[str, Any]:
    """Facts about a store as plain JSON: grid, patterns, classes, maps, ROI, runs with training and latents, bytes.

    store: a folder or a URL; the bytes are None for a URL that can only be read.

    A run that cannot be read has the one fact `damaged`, which says why.
    """
    path = read_only_url(store) or check_store(store)
    ds = open_store(path, chunks=None)
    facts = schema.describe(ds)
    source = (nested(ds.attrs, n.PROVENANCE) or {}).get("source", {}).get("file")
    stored = None
    if isinstance(path, Path):
        stored = stored_bytes(store)
    present = int(ds[n.PRESENT].sum()) if n.PRESENT in ds else None
    facts |= {
        "store": shown(path) if isinstance(path, Path) else path,
        "stored_bytes": stored,
        "n_present": present,
        "source": source,
        "samples": schema.samples_word(ds),
        "data": data_facts(ds),
    }
    facts["variables"] = {
        str(name): {
            "dims": [str(d) for d in variable.dims],
            "dtype": str(variable.dtype),
            "units": str(variable.attrs.get("units", "")),
            "long_name": str(variable.attrs.get("long_name", "")),
        }
        for name, variable in ds.data_vars.items()
    }
    facts["trained"] = {run: _run_facts(path, ds, run) for run in run_names(path)}
    return facts


def _run_facts(path: str | Path, ds: xr.Dataset, run: str) -> dict[str, Any]:
    try:
        return _whole_run(path, ds, run)
    except KeyError as error:
        return {"damaged": f"it lacks {error}"}
    except (VaearrError, ValueError, TypeError, OSError) as error:
        return {"damaged": " ".join(str(error).split()).removeprefix(f"run {run!r} is damaged: ")}


def _whole_run(path: str | Path, ds: xr.Dataset, run: str) -> dict[str, Any]:
    manifest = run_manifest(path, run)
    if manifest.get("kind") == n.ATTACHED:
        known = {key: manifest.get(key) for key in ("n_roi", "latent_dim", "time")}
        return known | {"attached": True, "tables": _tables(path, run)}
    health = open_table(path, run, n.HEALTH)
    return {
        "model": manifest["config"]["model"],
        "imported": manifest.get("kind") == n.IMPORTED,
        "n_roi": manifest.get("n_roi"),
        "roi": manifest.get("roi"),
        "n_train": manifest.get("n_train"),
        "n_validation": manifest.get("n_validation"),
        "epochs": manifest.get("epochs_run"),
        "time": manifest.get("time"),
        "n_active": health.attrs["n_active"],
        "explained_variance": health.attrs["explained_variance"],
        "warnings": list(health.attrs["warnings"]),
        "encoded": n.run_name(n.LATENTS, run) in ds,
        "tables": _tables(path, run),
    }


def _tables(path: str | Path, run: str) -> list[str]:
    return [t for t in (n.HISTORY, n.HEALTH, "association") if has_table(path, run, t)]


def in_words(facts: dict[str, Any]) -> str:
    """The facts as lines of text."""
    pattern = " x ".join(str(size) for size in facts["pattern"].values())
    one = facts["samples"]
    many = "patterns" if facts["kind"] == "scan" else one
    if facts["kind"] == "scan":
        grid = " x ".join(f"{size} {dim}" for dim, size in facts["grid"].items())
        lines = [f"{facts['store']}: scan of {grid}, patterns of {pattern} {facts['dtype']}"]
    else:
        lines = [f"{facts['store']}: collection of {facts['grid'][n.SAMPLE]} {one}, {pattern} {facts['dtype']}"]
    if facts["source"]:
        lines.append(f"  from {facts['source']}")
    for dim, (first, last, units) in facts["extent"].items():
        lines.append(f"  {dim} from {first:g} to {last:g} {units}".rstrip())
    on_disk = "" if facts["stored_bytes"] is None else f", {_size(facts['stored_bytes'])} on disk in all"
    lines.append(f"  {_size(facts['nbytes'])} of {many}{on_disk}")
    total = 1
    for size in facts["grid"].values():
        total *= size
    if facts["n_present"] not in (None, total):
        state = "were measured" if facts["kind"] == "scan" else "can be used"
        lines.append(f"  {facts['n_present']} of {total} {one} {state}")
    lines += data_lines(facts["data"], many)
    lines.append("variables")
    width = max(map(len, facts["variables"]))
    for name, v in facts["variables"].items():
        unit = f" [{v['units']}]" if v["units"] not in ("", "1") else ""
        lines.append(f"  {name:{width}}  {v['dtype']:8} ({', '.join(v['dims'])})  {v['long_name']}{unit}")
    if facts["elements"]:
        lines.append(f"  elements: {', '.join(facts['elements'])}")
    lines.append("runs" if facts["trained"] else f"no run yet: 'vaearr train {facts['store']}'")
    for run, r in facts["trained"].items():
        lines += _run_lines(facts["store"], run, r, one, many)
    return "\n".join(lines)


def _run_lines(store: str, run: str, r: dict[str, Any], one: str, many: str) -> list[str]:
    if "damaged" in r:
        return [f"  {run}: damaged: {r['damaged']}"]
    if r.get("attached"):
        return [f"  {run}: {r['latent_dim']} latent dimensions of {r['n_roi']} {one}, attached {r['time']}"]
    state = "encoded" if r["encoded"] else f"not encoded yet: 'vaearr encode {store} --run {run}'"
    model, made = r["model"], "trained elsewhere, taken here" if r["imported"] else "trained"
    here = "" if r["imported"] else f", {r['n_train']} trained, {r['n_validation']} validated, {r['epochs']} epochs"
    return [
        f"  {run}: {model['name']}, {model['latent_dim']} latent dimensions, {made} {r['time']}; {state}",
        f"    ROI of {r['n_roi']} {one} ({roi_words(r['roi'], one)}){here}",
        f"    {r['n_active']} active dimensions, {r['explained_variance']:.1%} of the {many}' variance, noise "
        "included, explained",
        *(f"    warning: {text}" for text in r["warnings"]),
    ]


def roi_words(roi: dict[str, Any] | str | None, one: str = "scan points") -> str:
    """A manifest's `roi` in words: its conditions, text as it is, None for all measured points, or all samples."""
    if isinstance(roi, str):
        return roi
    given = {key: value for key, value in (roi or {}).items() if value is not None}
    parts = [f"{key} from {v[0]:g} to below {v[1]:g}" for key, v in given.items() if key in n.SCAN_DIMS]
    return ", ".join([*parts, *([given["where"]] if "where" in given else [])]) or (
        "every measured point" if one == "scan points" else f"all {one}"
    )


def _size(nbytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"
