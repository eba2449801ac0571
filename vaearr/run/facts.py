"""Facts about a store and its runs, and their description as text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

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

MAX_CLASSES = 12  # classes that a line of text lists
SCAN_POINTS = "scan points"
IN_A_MANIFEST = (
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
    """Collect facts about a store.

    Parameters
    ----------
    store : str or Path
        The store.

    Returns
    -------
    dict
        Grid, patterns, classes, maps, runs and bytes, as plain JSON. A run that cannot be read has
        the single fact ``damaged``, the reason.

    Raises
    ------
    NoInputError
        If the store does not exist.
    """
    path = check_store(store)
    ds = open_store(path, chunks=None)
    variables = {}
    for name, variable in ds.data_vars.items():
        variables[str(name)] = {
            "dims": list(map(str, variable.dims)),
            "dtype": str(variable.dtype),
            "units": str(variable.attrs.get("units", "")),
            "long_name": str(variable.attrs.get("long_name", "")),
        }
    attrs = ds[n.PATTERNS].attrs
    limits = [attrs.get("value_min"), attrs.get("value_max")]
    value_range = None if None in limits else limits  # the ingest did not record them
    return schema.describe(ds) | {
        "store": str(path),
        "stored_bytes": stored_bytes(path),
        "n_present": int(ds[n.PRESENT].values.sum()) if n.PRESENT in ds else None,
        "source": (nested(ds.attrs, n.PROVENANCE) or {}).get("source", {}).get("file"),
        "samples": schema.samples_word(ds),
        "value_range": value_range,
        "classes": {name: _counts(ds, name) for name in class_names(ds)},
        "variables": variables,
        "trained": {run: run_facts(path, ds, run) for run in run_names(path)},
    }


def run_facts(path: str | Path, ds: xr.Dataset, run: str) -> dict[str, Any]:
    """Collect facts about a run.

    Parameters
    ----------
    path : str or Path
        The store.
    ds : xarray.Dataset
        The opened store.
    run : str
        Name of the run.

    Returns
    -------
    dict
        Model (None for attached latents), region, training and health; of a run that cannot be read
        only ``damaged``, the reason.
    """
    latents = n.run_name(n.LATENTS, run)
    try:
        manifest = run_manifest(path, run)
        facts = {
            "kind": manifest.get("kind", "trained"),
            "model": None,
            "latents": latents,
            "encoded": latents in ds,
            "warnings": [],
        }
        facts |= {key: manifest.get(key) for key in IN_A_MANIFEST}
        if facts["kind"] != n.ATTACHED:
            health = open_table(path, run, n.HEALTH).attrs
            facts["model"] = manifest["config"]["model"]
            facts["latent_dim"] = facts["latent_dim"] or facts["model"]["latent_dim"]
            facts["n_active"] = health["n_active"]
            facts["explained_variance"] = health["explained_variance"]
            facts["verdict"] = health.get("verdict")  # None of a run of an earlier version
            facts["warnings"] = list(health["warnings"])
    except KeyError as error:
        return {"damaged": f"it lacks {error}"}
    except (VaearrError, ValueError, TypeError, OSError) as error:
        return {"damaged": " ".join(str(error).split()).removeprefix(f"run {run!r} is damaged: ")}
    return facts


def in_words(facts: dict[str, Any]) -> str:
    """Describe a store.

    Parameters
    ----------
    facts : dict
        Result of `store_facts`.

    Returns
    -------
    str
        Lines of text.
    """
    lines = [*_sample_lines(facts), *_variable_lines(facts)]
    if not facts["trained"]:
        preset = preset_option(facts["samples"])
        return "\n".join([*lines, f"no run yet: 'vaearr train {facts['store']}{preset}'"])
    lines.append("runs")
    for run, about_run in facts["trained"].items():
        first, *others = run_lines(about_run, facts["samples"])
        lines.append(f"  {run}: {first}")
        lines += [f"    {line}" for line in others]
    return "\n".join(lines)


def preset_option(samples: str) -> str:
    """The option of `vaearr train` that samples of this kind need; "" for all but volumes."""
    return " --preset maisi" if samples == "volumes" else ""


def _sample_lines(facts: dict[str, Any]) -> list[str]:
    samples = facts["samples"]
    n_samples = math.prod(facts["grid"].values())
    lines = [f"{facts['store']}: {facts['contents']}"]
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
        low, high = facts["value_range"]
        lines.append(f"  values from {low:g} to {high:g}")
    for name, counts in facts["classes"].items():
        classes = ", ".join(
            f"{label} = {count}" for label, count in list(counts.items())[:MAX_CLASSES]
        )
        if len(counts) > MAX_CLASSES:
            classes += f" and {len(counts) - MAX_CLASSES} more"
        lines.append(f"  {name}: {classes}")
    return lines


def _variable_lines(facts: dict[str, Any]) -> list[str]:
    lines = ["variables"]
    width = max(map(len, facts["variables"]))
    for name, variable in facts["variables"].items():
        dims = ", ".join(variable["dims"])
        line = f"  {name:{width}}  {variable['dtype']:8} ({dims})  {variable['long_name']}"
        if variable["units"] not in ("", "1"):
            line += f" [{variable['units']}]"
        lines.append(line)
    if facts["elements"]:
        lines.append(f"  elements: {', '.join(facts['elements'])}")
    return lines


def run_lines(facts: dict[str, Any], samples: str = SCAN_POINTS) -> list[str]:
    """Describe a run.

    Parameters
    ----------
    facts : dict
        Result of `run_facts`.
    samples : str
        What the samples of the store are called.

    Returns
    -------
    list of str
        Lines of text.
    """
    if "damaged" in facts:
        return [f"damaged: {facts['damaged']}"]
    dims = f"{facts['latent_dim']} latent dimensions"
    if facts["model"] is None:
        return [
            f"{dims} of {facts['n_roi']} {samples}, attached {facts['time']}",
            "network: none",
        ]
    origin = "trained elsewhere, imported" if facts["kind"] == n.IMPORTED else "trained"
    model = f"{facts['model']['name']}, {dims}, {origin} {facts['time']}"
    if facts["epochs_run"]:
        model += f", best epoch {facts['best_epoch']} of {facts['epochs_run']}"
    region = f"ROI of {facts['n_roi']} {samples} ({_roi_words(facts['roi'], samples)})"
    if facts["n_train"]:
        region += f", {facts['n_train']} for training, {facts['n_validation']} for validation"
    health = f"{facts['n_active']} active dimensions"
    if not facts["verdict"]:  # which states the share explained
        share = f"{facts['explained_variance']:.1%}"
        health += f", {share} of the variance explained, noise included"
    latents = f"encoded as {facts['latents']!r}" if facts["encoded"] else "not encoded yet"
    verdict = [facts["verdict"]] if facts["verdict"] else []
    warnings = [f"warning: {text}" for text in facts["warnings"]]
    return [model, *verdict, region, health, latents, *warnings]


def _roi_words(roi: dict[str, Any] | str | None, samples: str) -> str:
    """Describe the `roi` of a manifest: its conditions, a text, or None for all samples."""
    if isinstance(roi, str):
        return roi
    conditions = []
    for key, value in (roi or {}).items():
        if key == "where" and value is not None:
            conditions.append(value)
        elif value is not None:
            conditions.append(f"{key} from {value[0]:g} to below {value[1]:g}")
    if conditions:
        return ", ".join(conditions)
    return "every measured point" if samples == SCAN_POINTS else f"all {samples}"


def _counts(ds: xr.Dataset, name: str) -> dict[str, int]:
    """Number of measured samples of each class."""
    codes, names = class_of_each(ds, name)
    codes = codes[measured(ds)]
    counts = {}
    for code, label in names.items():
        count = int((codes == code).sum())
        if count or code >= 0:
            counts[label] = count
    return counts
