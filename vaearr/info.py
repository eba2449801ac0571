"""What is in a store, in words."""

from __future__ import annotations

import math
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
    open_store,
    open_table,
    read_only_url,
    run_manifest,
    run_names,
    shown,
    stored_bytes,
)

OF_A_RUN = ("roi", "n_roi", "n_train", "n_validation", "best_epoch", "epochs_run", "time")


def store_facts(store: str | Path) -> dict[str, Any]:
    """Facts about a store as plain JSON: grid, patterns, classes, maps, ROI, runs with training and latents, bytes.

    store: a folder or a URL; the bytes are None for a URL that can only be read.

    A run that cannot be read has the one fact `damaged`, which says why.
    """
    path = read_only_url(store) or check_store(store)
    ds = open_store(path, chunks=None)
    is_local = isinstance(path, Path)
    return schema.describe(ds) | {
        "store": shown(path) if is_local else path,
        "stored_bytes": stored_bytes(store) if is_local else None,
        "n_present": int(ds[n.PRESENT].sum()) if n.PRESENT in ds else None,
        "source": (nested(ds.attrs, n.PROVENANCE) or {}).get("source", {}).get("file"),
        "samples": schema.samples_word(ds),
        "data": data_facts(ds),
        "variables": {
            str(name): {"dims": [str(d) for d in variable.dims], "dtype": str(variable.dtype)}
            | {key: str(variable.attrs.get(key, "")) for key in ("units", "long_name")}
            for name, variable in ds.data_vars.items()
        },
        "trained": {run: run_facts(path, ds, run) for run in run_names(path)},
    }


def run_facts(path: str | Path, ds: xr.Dataset, run: str) -> dict[str, Any]:
    """Facts about a run: its model (None where its latents were computed elsewhere), region, training and health."""
    try:
        manifest = run_manifest(path, run)
        kind = manifest.get("kind", "trained")
        facts = {"kind": kind, "model": None, "encoded": n.run_name(n.LATENTS, run) in ds, "warnings": []}
        facts |= {key: manifest.get(key) for key in OF_A_RUN}
        if kind == n.ATTACHED:
            return facts | {"latent_dim": manifest.get("latent_dim")}
        health = open_table(path, run, n.HEALTH).attrs
        known = {"n_active": health["n_active"], "explained_variance": health["explained_variance"]}
        return facts | known | {"model": manifest["config"]["model"], "warnings": list(health["warnings"])}
    except KeyError as error:
        return {"damaged": f"it lacks {error}"}
    except (VaearrError, ValueError, TypeError, OSError) as error:
        return {"damaged": " ".join(str(error).split()).removeprefix(f"run {run!r} is damaged: ")}


def in_words(facts: dict[str, Any]) -> str:
    """The facts as lines of text."""
    pattern, store = " x ".join(map(str, facts["pattern"].values())), facts["store"]
    one, is_scan = facts["samples"], facts["kind"] == "scan"
    many, total = "patterns" if is_scan else one, math.prod(facts["grid"].values())
    grid = " x ".join(f"{size} {dim}" for dim, size in facts["grid"].items())
    what = f"scan of {grid}, patterns of" if is_scan else f"collection of {facts['grid'].get(n.SAMPLE)} {one},"
    lines = [f"{store}: {what} {pattern} {facts['dtype']}"]
    lines += [f"  from {facts['source']}"] if facts["source"] else []
    for dim, (first, last, units) in facts["extent"].items():
        lines.append(f"  {dim} from {first:g} to {last:g} {units}".rstrip())
    on_disk = "" if facts["stored_bytes"] is None else f", {_size(facts['stored_bytes'])} on disk in all"
    lines.append(f"  {_size(facts['nbytes'])} of {many}{on_disk}")
    if facts["n_present"] not in (None, total):
        lines.append(f"  {facts['n_present']} of {total} {one} {'were measured' if is_scan else 'can be used'}")
    lines += [*data_lines(facts["data"], many), "variables"]
    width = max(map(len, facts["variables"]))
    for name, v in facts["variables"].items():
        unit = f" [{v['units']}]" if v["units"] not in ("", "1") else ""
        lines.append(f"  {name:{width}}  {v['dtype']:8} ({', '.join(v['dims'])})  {v['long_name']}{unit}")
    lines += [f"  elements: {', '.join(facts['elements'])}"] if facts["elements"] else []
    lines.append("runs" if facts["trained"] else f"no run yet: 'vaearr train {store}'")
    for run, r in facts["trained"].items():
        head, *more = run_lines(r, one)
        lines += [f"  {run}: {head}", *(f"    {line}" for line in more)]
    return "\n".join(lines)


def run_lines(r: dict[str, Any], one: str = "scan points") -> list[str]:
    """The facts of `run_facts` as lines of text."""
    if "damaged" in r:
        return [f"damaged: {r['damaged']}"]
    if r["model"] is None:
        return [f"{r['latent_dim']} latent dimensions of {r['n_roi']} {one}, attached {r['time']}"]
    made = "trained elsewhere, taken here" if r["kind"] == n.IMPORTED else "trained"
    epochs = f", best epoch {r['best_epoch']} of {r['epochs_run']}" if r["epochs_run"] else ""
    parts = f", {r['n_train']} trained, {r['n_validation']} validated" if r["n_train"] else ""
    return [
        f"{r['model']['name']}, {r['model']['latent_dim']} latent dimensions, {made} {r['time']}{epochs}",
        f"ROI of {r['n_roi']} {one} ({roi_words(r['roi'], one)}){parts}",
        f"{r['n_active']} active dimensions, {r['explained_variance']:.1%} of the variance, noise included, explained",
        "encoded" if r["encoded"] else "not encoded yet: 'vaearr encode STORE'",
        *(f"warning: {text}" for text in r["warnings"]),
    ]


def roi_words(roi: dict[str, Any] | str | None, one: str = "scan points") -> str:
    """A manifest's `roi` in words: its conditions, text as it is, None for all measured points, or all samples."""
    if isinstance(roi, str):
        return roi
    given = {key: value for key, value in (roi or {}).items() if value is not None}
    parts = [v if key == "where" else f"{key} from {v[0]:g} to below {v[1]:g}" for key, v in given.items()]
    return ", ".join(parts) or ("every measured point" if one == "scan points" else f"all {one}")


def _size(nbytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"
