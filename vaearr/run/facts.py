"""What is in a store, in words: grid, runs, and what the samples are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.utils import format_bytes

from vaearr import names as n
from vaearr import schema
from vaearr.errors import VaearrError
from vaearr.recipe import nested
from vaearr.schema.classes import class_names, class_of_each
from vaearr.schema.grid import measured
from vaearr.store import (
    check_store,
    open_store,
    open_table,
    run_manifest,
    run_names,
    stored_bytes,
)

NAMED = 12  # classes that a line of text lists
OF_A_RUN = (
    "latent_dim",
    "roi",
    "n_roi",
    "n_train",
    "n_validation",
    "best_epoch",
    "epochs_run",
    "time",
)


def store_facts(store: str | Path) -> dict[str, Any]:
    """Facts about a store as plain JSON: grid, patterns, classes, maps, ROI, runs with training and
    latents, bytes.

    A run that cannot be read has the one fact `damaged`, which says why.
    """
    path = check_store(store)
    ds = open_store(path, chunks=None)
    return schema.describe(ds) | {
        "store": str(path),
        "stored_bytes": stored_bytes(path),
        "n_present": int(ds[n.PRESENT].values.sum()) if n.PRESENT in ds else None,
        "source": (nested(ds.attrs, n.PROVENANCE) or {}).get("source", {}).get("file"),
        "samples": schema.samples_word(ds),
        "value_range": _value_range(ds),
        "classes": {name: _counts(ds, name, measured(ds)) for name in class_names(ds)},
        "variables": {
            str(name): {"dims": [str(d) for d in variable.dims], "dtype": str(variable.dtype)}
            | {key: str(variable.attrs.get(key, "")) for key in ("units", "long_name")}
            for name, variable in ds.data_vars.items()
        },
        "trained": {run: run_facts(path, ds, run) for run in run_names(path)},
    }


def run_facts(path: str | Path, ds: xr.Dataset, run: str) -> dict[str, Any]:
    """Facts about a run: its model (None where its latents were computed elsewhere), region,
    training and health.
    """
    try:
        manifest = run_manifest(path, run)
        kind, latents = manifest.get("kind", "trained"), n.run_name(n.LATENTS, run)
        facts = {
            "kind": kind,
            "model": None,
            "latents": latents,
            "encoded": latents in ds,
            "warnings": [],
        }
        facts |= {key: manifest.get(key) for key in OF_A_RUN}
        if kind == n.ATTACHED:
            return facts
        health = open_table(path, run, n.HEALTH).attrs
        known = {"n_active": health["n_active"], "explained_variance": health["explained_variance"]}
        model = manifest["config"]["model"]
        known["latent_dim"] = facts["latent_dim"] or model["latent_dim"]
        return facts | known | {"model": model, "warnings": list(health["warnings"])}
    except KeyError as error:
        return {"damaged": f"it lacks {error}"}
    except (VaearrError, ValueError, TypeError, OSError) as error:
        return {"damaged": " ".join(str(error).split()).removeprefix(f"run {run!r} is damaged: ")}


def in_words(facts: dict[str, Any]) -> str:
    """The facts as lines of text."""
    store, samples = facts["store"], facts["samples"]
    pattern = " x ".join(map(str, facts["pattern"].values()))
    n_samples = math.prod(facts["grid"].values())
    if facts["kind"] == "scan":
        grid = " x ".join(f"{size} {dim}" for dim, size in facts["grid"].items())
        what = f"scan of {grid}, patterns of"
    else:
        what = f"collection of {n_samples} {samples},"
    lines = [f"{store}: {what} {pattern} {facts['dtype']}"]
    if facts["source"]:
        lines.append(f"  from {facts['source']}")
    for dim, (first, last, units) in facts["extent"].items():
        lines.append(f"  {dim} from {first:g} to {last:g} {units}".rstrip())
    lines.append(f"  {format_bytes(facts['nbytes'])} of values")
    if facts["stored_bytes"] is not None:
        lines.append(f"  {format_bytes(facts['stored_bytes'])} on disk in all")
    if facts["n_present"] not in (None, n_samples):
        lines.append(f"  {facts['n_present']} of {n_samples} {samples} can be used")
    if facts["value_range"]:
        lines.append("  values from {:g} to {:g}".format(*facts["value_range"]))
    for name, counts in facts["classes"].items():
        named = [f"{label} = {count}" for label, count in counts.items()][:NAMED]
        more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
        lines.append(f"  {name}: {', '.join(named)}{more}")
    lines.append("variables")
    width = max(map(len, facts["variables"]))
    for name, v in facts["variables"].items():
        unit = f" [{v['units']}]" if v["units"] not in ("", "1") else ""
        lines.append(
            f"  {name:{width}}  {v['dtype']:8} ({', '.join(v['dims'])})  {v['long_name']}{unit}"
        )
    if facts["elements"]:
        lines.append(f"  elements: {', '.join(facts['elements'])}")
    lines.append("runs" if facts["trained"] else f"no run yet: 'vaearr train {store}'")
    for run, r in facts["trained"].items():
        head, *more_lines = run_lines(r, samples)
        lines += [f"  {run}: {head}", *(f"    {line}" for line in more_lines)]
    return "\n".join(lines)


def run_lines(r: dict[str, Any], one: str = "scan points") -> list[str]:
    """The facts of `run_facts` as lines of text."""
    if "damaged" in r:
        return [f"damaged: {r['damaged']}"]
    if r["model"] is None:
        return [
            f"{r['latent_dim']} latent dimensions of {r['n_roi']} {one}, attached {r['time']}",
            "network: none",
        ]
    made = "trained elsewhere, taken here" if r["kind"] == n.IMPORTED else "trained"
    epochs = f", best epoch {r['best_epoch']} of {r['epochs_run']}" if r["epochs_run"] else ""
    parts = f", {r['n_train']} trained, {r['n_validation']} validated" if r["n_train"] else ""
    return [
        f"{r['model']['name']}, {r['latent_dim']} latent dimensions, {made} {r['time']}{epochs}",
        f"ROI of {r['n_roi']} {one} ({roi_words(r['roi'], one)}){parts}",
        f"{r['n_active']} active dimensions, {r['explained_variance']:.1%} of the variance, noise included, explained",
        f"encoded as {r['latents']!r}" if r["encoded"] else "not encoded yet",
        *(f"warning: {text}" for text in r["warnings"]),
    ]


def roi_words(roi: dict[str, Any] | str | None, one: str = "scan points") -> str:
    """A manifest's `roi` in words: its conditions, text as it is, None for all measured points, or
    all samples.
    """
    if isinstance(roi, str):
        return roi
    given = {key: value for key, value in (roi or {}).items() if value is not None}
    parts = [
        v if key == "where" else f"{key} from {v[0]:g} to below {v[1]:g}"
        for key, v in given.items()
    ]
    return ", ".join(parts) or ("every measured point" if one == "scan points" else f"all {one}")


def _value_range(ds: xr.Dataset) -> list[float] | None:
    """Lowest and highest value, whole ones as int; None where ingestion did not note them."""
    about = ds[n.PATTERNS].attrs
    if about.get("value_min") is None or about.get("value_max") is None:
        return None
    ends = [float(about["value_min"]), float(about["value_max"])]
    return [int(end) if end.is_integer() else end for end in ends]


def _counts(ds: xr.Dataset, name: str, present: np.ndarray) -> dict[str, int]:
    codes, known = class_of_each(ds, name)
    counted = {code: int(((codes == code) & present).sum()) for code in known}
    return {known[code]: count for code, count in counted.items() if count or code >= 0}
