"""What the samples of a store are: how many of each class and group, sizes, range of values, masks, splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.categories import is_categorical, meanings
from vaearr.grid import measured
from vaearr.sources.collection import GROUPS, PATH, SKIPPED
from vaearr.sources.images import HAS_MASK
from vaearr.store import read_block

MOST_CLASSES = 40  # of a coordinate of text or numbers that is taken for classes
NAMED = 12  # classes that a line of text lists
SOURCE_SIZES = "source_"  # how coordinates with the size of a sample's file begin
PARTS = {n.TRAIN: "train", n.VALIDATION: "validation", n.OUTSIDE: "outside"}


def data_facts(ds: xr.Dataset) -> dict[str, Any]:
    """Facts about the samples as plain JSON, from attributes and the small variables; no pattern is read.

    `value_range` (lowest and highest value, or None where ingestion did not note them), `n_constant`, `n_nonfinite`;
    `classes`: counts by name for each variable or coordinate of classes, samples that cannot be used left out;
    `groups`: number of different subjects, sites and the like; `file_sizes`: smallest and largest side of the files;
    `n_masks` with `n_without_mask` (None where there are no masks); `splits`: of each run, samples for training and
    validation; `skipped`: files that ingestion left out, with reasons.
    """
    nav, about, present = schema.navigation_dims(ds), ds[n.PATTERNS].attrs, measured(ds)
    over = {str(name): variable for name, variable in sorted(ds.variables.items()) if set(variable.dims) == set(nav)}
    ends = [about.get(f"value_{end}") for end in ("min", "max")]
    n_masks = int(_values(ds, HAS_MASK).sum()) if HAS_MASK in ds else None
    return {
        "value_range": None if None in ends else [int(v) if float(v).is_integer() else float(v) for v in ends],
        "n_constant": about.get("n_constant"),
        "n_nonfinite": about.get("n_masked"),
        "classes": {name: _counts(ds, name, present) for name in class_names(ds)},
        "groups": {name: len(np.unique(_values(ds, name)[present])) for name in over if name.lower() in GROUPS},
        "file_sizes": {
            name.removeprefix(SOURCE_SIZES): [int(coord.min()), int(coord.max())]
            for name, coord in over.items()
            if name.startswith(SOURCE_SIZES) and coord.dtype.kind in "iu"
        },
        "n_masks": n_masks,
        "n_without_mask": None if n_masks is None else int((~_values(ds, HAS_MASK) & present).sum()),
        "splits": {
            name.removeprefix(n.SPLIT).removeprefix("_") or n.DEFAULT_RUN: {
                words: int((_values(ds, name) == code).sum()) for code, words in PARTS.items()
            }
            for name in over
            if _is_of_run(name, n.SPLIT)
        },
        SKIPPED: [str(line) for line in ds.attrs.get(SKIPPED, [])],
    }


def class_names(ds: xr.Dataset) -> list[str]:
    """Variables and coordinates that give each sample a class, as a source brought them: labels, phases; `label` first.

    Numbers with names (`flag_values`), and text with at most 40 different values; ROIs, splits and clusters are none,
    and neither are groups such as subjects.
    """
    nav, derived, found = set(schema.navigation_dims(ds)), set(schema.cluster_maps(ds)), []
    for name in map(str, ds.variables):
        if set(ds[name].dims) != nav or name in derived or any(_is_of_run(name, own) for own in (n.ROI, n.SPLIT)):
            continue
        is_text = ds[name].dtype.kind in "UTO" and len(nav) == 1 and name.lower() not in {*GROUPS, PATH}
        if is_categorical(ds[name]) or (
            is_text and len(np.unique(_values(ds, name))) <= min(MOST_CLASSES, ds[name].size - 1)
        ):
            found.append(name)
    return sorted(found, key=lambda name: (name != "label", name))


def class_of_each(ds: xr.Dataset, name: str) -> tuple[np.ndarray, dict[int, str]]:
    """The class of each sample over the navigation dims, as a code, and code -> name; codes below 0: no class."""
    values = _values(ds, name)
    if is_categorical(ds[name]):
        return values, meanings(ds[name]) or {int(code): str(code) for code in np.unique(values)}
    words, codes = np.unique(values, return_inverse=True)
    return codes.reshape(values.shape), dict(enumerate(map(str, words)))


def _counts(ds: xr.Dataset, name: str, present: np.ndarray) -> dict[str, int]:
    codes, known = class_of_each(ds, name)
    counted = {code: int(((codes == code) & present).sum()) for code in known}
    return {known[code]: count for code, count in counted.items() if count or code >= 0}


def _values(ds: xr.Dataset, name: str) -> np.ndarray:
    values = read_block(ds[name].transpose(*schema.navigation_dims(ds)), {})
    return np.array(values.tolist(), dtype=str) if values.dtype.kind in "UTO" else values


def _is_of_run(name: str, own: str) -> bool:
    return name == own or name.startswith(f"{own}_")


def data_lines(facts: dict[str, Any], one: str) -> list[str]:
    """The facts of `data_facts` as lines of text; one: what the samples are called."""
    lines = []
    if facts["value_range"]:
        flaws = f", {facts['n_constant']} constant {one}" if facts["n_constant"] else ""
        if facts["n_nonfinite"]:
            flaws += f", {facts['n_nonfinite']} left out for NaN, infinite or too large values"
        lines.append("  values from {:g} to {:g}".format(*facts["value_range"]) + flaws)
    if sides := [
        f"{low} {words}" if low == high else f"{low} to {high} {words}"
        for words, (low, high) in sorted(facts["file_sizes"].items(), reverse=True)
    ]:
        lines.append(f"  files of {', '.join(sides)}")
    for name, counts in facts["classes"].items():
        more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
        lines.append(f"  {name}: {', '.join(f'{w} = {count}' for w, count in list(counts.items())[:NAMED])}{more}")
    lines += [f"  {name}: {count} different" for name, count in facts["groups"].items()]
    if facts["n_masks"] is not None:
        lines.append(f"  masks: {facts['n_masks']} {one} with one, {facts['n_without_mask']} without")
    if facts[SKIPPED]:
        lines.append(f"  left out by ingestion: {len(facts[SKIPPED])}, the first {facts[SKIPPED][0]}")
    for run, parts in facts["splits"].items():
        outside = f", {parts['outside']} outside" if parts["outside"] else ""
        lines.append(f"  split of {run}: {parts['train']} train, {parts['validation']} validation{outside}")
    return lines
