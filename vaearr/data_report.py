"""What the samples of a store are: how many of each class and group, sizes, range of values, masks, splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.categories import is_categorical, meanings
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
    nav = schema.navigation_dims(ds)
    about = ds[n.PATTERNS].attrs
    present = usable(ds)
    low, high = about.get("value_min"), about.get("value_max")
    names = sorted(name for name in map(str, ds.data_vars) if _is_of_run(name, n.SPLIT))
    runs = {_run_of(name, n.SPLIT): _values(ds[name], nav) for name in names}
    has_mask = _values(ds[HAS_MASK], nav) if HAS_MASK in ds else None
    return {
        "value_range": None if low is None or high is None else [_plain(low), _plain(high)],
        "n_constant": about.get("n_constant"),
        "n_nonfinite": about.get("n_masked"),
        "classes": {name: _counts(*class_of_each(ds, name), present) for name in class_names(ds)},
        "groups": {
            name: len(np.unique(_values(ds[name], nav)[present]))
            for name in sorted(map(str, ds.variables))
            if name.lower() in GROUPS and set(ds[name].dims) == set(nav)
        },
        "file_sizes": {
            str(name).removeprefix(SOURCE_SIZES): [int(coord.min()), int(coord.max())]
            for name, coord in ds.coords.items()
            if str(name).startswith(SOURCE_SIZES) and coord.dims == nav and coord.dtype.kind in "iu"
        },
        "n_masks": None if has_mask is None else int(has_mask.sum()),
        "n_without_mask": None if has_mask is None else int((~has_mask & present).sum()),
        "splits": {
            run: {words: int((parts == code).sum()) for code, words in PARTS.items()} for run, parts in runs.items()
        },
        SKIPPED: [str(line) for line in ds.attrs.get(SKIPPED, [])],
    }


def class_names(ds: xr.Dataset) -> list[str]:
    """Variables and coordinates that give each sample a class, as a source brought them: labels, phases; `label` first.

    Numbers with names (`flag_values`), and text with at most 40 different values; ROIs, splits and clusters are none,
    and neither are groups such as subjects.
    """
    nav = schema.navigation_dims(ds)
    made = (n.ROI, n.SPLIT)
    derived = set(schema.cluster_maps(ds))
    found = []
    for name, variable in {**ds.data_vars, **ds.coords}.items():
        word = str(name)
        if set(variable.dims) != set(nav) or word in derived or any(_is_of_run(word, own) for own in made):
            continue
        if is_categorical(variable) or (
            _is_text(variable) and word.lower() not in {*GROUPS, PATH} and _is_few(variable)
        ):
            found.append(word)
    return sorted(found, key=lambda name: (name != "label", name))


def class_of_each(ds: xr.Dataset, name: str) -> tuple[np.ndarray, dict[int, str]]:
    """The class of each sample over the navigation dims, as a code, and code -> name; codes below 0: no class."""
    values = _values(ds[name], schema.navigation_dims(ds))
    if is_categorical(ds[name]):
        return values, meanings(ds[name]) or {int(code): str(code) for code in np.unique(values)}
    words, codes = np.unique(values, return_inverse=True)
    return codes.reshape(values.shape), dict(enumerate(map(str, words)))


def usable(ds: xr.Dataset) -> np.ndarray:
    """Over the navigation dims, whether a sample was measured and has finite values."""
    if n.PRESENT not in ds:
        return np.ones(schema.navigation_shape(ds), bool)
    return _values(ds[n.PRESENT], schema.navigation_dims(ds))


def _counts(codes: np.ndarray, known: dict[int, str], present: np.ndarray) -> dict[str, int]:
    counted = {code: int(((codes == code) & present).sum()) for code in known}
    return {known[code]: count for code, count in counted.items() if count or code >= 0}


def _values(variable: xr.DataArray, nav: tuple[str, ...]) -> np.ndarray:
    values = read_block(variable.transpose(*nav), {})
    return np.array(values.tolist(), dtype=str) if values.dtype.kind in "UTO" else values


def _is_text(variable: xr.DataArray) -> bool:
    return variable.dtype.kind in "UTO" and variable.ndim == 1


def _is_few(variable: xr.DataArray) -> bool:
    """Whether text tells classes apart: at most 40 different ones, and not each sample by its own."""
    different = len(np.unique(_values(variable, tuple(map(str, variable.dims)))))
    return different <= min(MOST_CLASSES, variable.size - 1)


def _is_of_run(name: str, own: str) -> bool:
    return name == own or name.startswith(f"{own}_")


def _run_of(name: str, own: str) -> str:
    return n.DEFAULT_RUN if name == own else name.removeprefix(f"{own}_")


def _plain(value: Any) -> float | int:
    number = float(value)
    return int(number) if number.is_integer() else number


def data_lines(facts: dict[str, Any], one: str) -> list[str]:
    """The facts of `data_facts` as lines of text; one: what the samples are called."""
    lines = []
    if facts["value_range"]:
        low, high = facts["value_range"]
        lines.append(f"  values from {low:g} to {high:g}" + _flaws(facts, one))
    if facts["file_sizes"]:
        sides = (
            f"{low} {words}" if low == high else f"{low} to {high} {words}"
            for words, (low, high) in sorted(facts["file_sizes"].items(), reverse=True)
        )
        lines.append(f"  files of {', '.join(sides)}")
    for name, counts in facts["classes"].items():
        listed = ", ".join(f"{words} = {count}" for words, count in list(counts.items())[:NAMED])
        more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
        lines.append(f"  {name}: {listed}{more}")
    for name, count in facts["groups"].items():
        lines.append(f"  {name}: {count} different")
    if facts["n_masks"] is not None:
        lines.append(f"  masks: {facts['n_masks']} {one} with one, {facts['n_without_mask']} without")
    if facts[SKIPPED]:
        lines.append(f"  left out by ingestion: {len(facts[SKIPPED])}, the first {facts[SKIPPED][0]}")
    for run, parts in facts["splits"].items():
        outside = f", {parts['outside']} outside" if parts["outside"] else ""
        lines.append(f"  split of {run}: {parts['train']} train, {parts['validation']} validation{outside}")
    return lines


def _flaws(facts: dict[str, Any], one: str) -> str:
    words = ""
    if facts["n_constant"]:
        words += f", {facts['n_constant']} constant {one}"
    if facts["n_nonfinite"]:
        words += f", {facts['n_nonfinite']} left out for NaN, infinite or too large values"
    return words
