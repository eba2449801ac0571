"""The files of an older program (the first seed): same names, columns and keys, so that its scripts read them.

Its JSON reports keep their keys and types; `about`, `parameters`, `scaling`, `seeds`, `n` and `versions` are added.
Where its numbers differ from ours: a constant latent or target gives null, not 0.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import DamagedError, DataError, NoInputError, RoiError, SchemaError, UsageError, did_you_mean
from vaearr.exporting.arrays import npy
from vaearr.exporting.content import Content
from vaearr.exporting.files import write_json
from vaearr.exporting.formats import fmt
from vaearr.exporting.seed_clusters import write_clusters, write_partitions
from vaearr.exporting.tables import file_name
from vaearr.provenance import versions

# our metrics -> the seed's names, in the seed's order
METRICS = {
    "pearson": "pearson",
    "spearman": "spearman",
    "kendall": "kendall",
    "mutual_information": "mi",
    "distance_correlation": "dcorr",
    "hsic": "hsic",
    "partial_pearson": "pp_spatial",
}
BAND_CONTRAST = "BandContrast"
TOP = 3
MOST_CHANNELS = 3


@fmt("seed0", holds="the first seed's files: arrays, latent maps, cluster, score and ranking files")
def seed0(content: Content, folder: Path) -> None:
    """All of the first seed's files that the store has the data for; `say` tells which are left out, and why.

    `latents_full.npy`, `latents_roi.npy`, `coords.csv`; `latent_maps_selected_dim_<L>/latent_full_d<d>.png`, `.csv`;
    `bandcontrast_latent_scores.csv`, `report_bandcontrast_multi_metric.json`; `element_latent_scores.csv`,
    `report_elements_multi_metric__<synth_tag>.json`; `cluster_assignments__<tag>.csv`, `cluster_report__<tag>.json`,
    `cluster_latent_bc__<tag>.png`; `report_cluster.json`. Asked-for parts that cannot be made are errors.
    """
    content.need_plane()
    settings = content.config
    npy(content, folder)
    _latent_maps(content, folder)
    table = _attempt(content, "band contrast", True, lambda: _band_contrast(content, folder))
    asked = bool(settings.elements or settings.weights or settings.rgb_elements)
    _attempt(content, "elements", asked, lambda: _elements(content, folder))
    asked = bool(settings.clusters or settings.methods)
    _attempt(content, "clusters", asked, lambda: write_clusters(content, folder, table))
    asked = settings.reference is not None
    _attempt(content, "clusters of each latent", asked, lambda: write_partitions(content, folder))


def _attempt(content: Content, part: str, asked: bool, write: Callable[[], Any]) -> Any:
    """Write a part; one that nobody asked for by name may be left out where the data does not allow it."""
    try:
        return write()
    except DamagedError:
        raise
    except (NoInputError, DataError) as reason:
        default_target = part == "band contrast" and content.config.target == n.BC
        if asked and not default_target:
            raise
        content.say(f"left out: {part}: {reason}")
        return None


def _latent_maps(content: Content, folder: Path) -> None:
    import pandas as pd

    from vaearr.views import save

    maps = folder / f"latent_maps_selected_dim_{content.latents.sizes[content.latent_dim]}"
    maps.mkdir()
    steps = content.steps()
    for label in content.chosen():
        one = content.latent(label).where(content.roi)
        column = {f"latent_d{label}": one.values.reshape(-1).astype(np.float32)}
        pd.DataFrame(steps | column).to_csv(maps / f"latent_full_d{label}.csv", index=False, lineterminator="\n")
        outline = None if bool(content.roi.all()) else content.roi
        save(one, maps / f"latent_full_d{label}.png", dpi=content.config.dpi, kind="map", roi=outline)


def _band_contrast(content: Content, folder: Path) -> xr.DataArray:
    """Scores and ranking against band contrast; returns the table."""
    name = content.config.target
    target = content.variable(name)
    if target.ndim != len(content.dims):
        raise UsageError(f"target {name!r} has dims {target.dims}; expected a plain map over {content.dims}.")
    table = scores_of(content, target)
    write_scores(table, folder / "bandcontrast_latent_scores.csv")
    record = {"roi": region(content), "target": BAND_CONTRAST, "metrics": list(METRICS.values())}
    record |= {"rankings": rankings(table), "target_variable": name} | facts(content, table)
    write_json(folder / "report_bandcontrast_multi_metric.json", record)
    return table


def _elements(content: Content, folder: Path) -> None:
    """Scores and ranking against a sum or the luminance of elements."""
    target, record, tag = _composite(content)
    table = scores_of(content, target)
    write_scores(table, folder / "element_latent_scores.csv")
    head = {"synth_mode": record.pop("synth_mode"), "synth_tag": tag, "roi": region(content)}
    head |= {"metrics": list(METRICS.values())} | record | {"rankings": rankings(table)} | facts(content, table)
    head["scaling"] = "each element to 0 … 1 between its least and greatest value in the region; " + (
        "weights divided by the sum of their absolute values"
        if tag.startswith("sum")
        else "then 0.2126 red + 0.7152 green + 0.0722 blue"
    )
    write_json(folder / f"report_elements_multi_metric__{file_name(tag)}.json", head)


def _composite(content: Content) -> tuple[xr.DataArray, dict[str, Any], str]:
    """The element map that latents are compared with, what it is in the seed's keys, and its tag."""
    from vaearr.association import targets_of

    config = content.config
    if n.ELEMENTS not in content.ds:
        raise NoInputError("the store holds no element maps.")
    known = [str(element) for element in content.ds[n.ELEMENT].values]
    for element in (*config.elements, *config.rgb_elements):
        if element not in known:
            raise NoInputError(f"the store has no element {element!r}.{did_you_mean(element, known)}")
    elements = list(config.elements) or known
    if config.synth_mode == "rgb":
        channels = list(config.rgb_elements) or elements[:MOST_CHANNELS]
        if len(channels) > MOST_CHANNELS:
            raise UsageError(f"{len(channels)} elements are given for rgb; expected one to {MOST_CHANNELS}.")
        formula, tag = f"rgb({', '.join(map(repr, channels))})", f"rgb-{'_'.join(channels)}"
        record: dict[str, Any] = {"synth_mode": "rgb", "elements": elements, "rgb_elements": channels, "weights": None}
    else:
        weights = list(config.weights)
        if weights and len(weights) != len(elements):
            raise UsageError(
                f"{len(weights)} weights for {len(elements)} elements ({', '.join(elements)}); give each one."
            )
        factors = weights or [1.0] * len(elements)
        formula = " + ".join(f"{weight!r}*{element!r}" for weight, element in zip(factors, elements, strict=True))
        tag = "sum-auto" if not weights else "sum-" + "_".join(f"{weight:.3f}" for weight in weights)
        record = {"synth_mode": "sum", "elements": elements, "rgb_elements": None, "weights": weights or None}
    target = targets_of(content.ds, [formula], roi=content.roi).isel(target=0, drop=True)
    return target, record | {"formula": formula}, tag


def scores_of(content: Content, target: xr.DataArray) -> xr.DataArray:
    """The seven metrics of all latents with a map, over the ROI: `(metric, latent)`."""
    from vaearr.association import associate

    return associate(content.latents, target, list(METRICS), roi=content.roi)


def write_scores(table: xr.DataArray, path: Path) -> None:
    """CSV with `dim` and the seed's metric names, the largest |pearson| first, latents without one last."""
    import pandas as pd

    values = table.transpose("metric", n.LATENT).values
    columns = {name: values[i] for i, name in enumerate(METRICS.values())}
    frame = pd.DataFrame({"dim": table[n.LATENT].values, **columns})
    order = np.argsort(-np.nan_to_num(frame["pearson"].abs().to_numpy(), nan=-1.0), kind="stable")
    frame.iloc[order].to_csv(path, index=False, lineterminator="\n")


def rankings(table: xr.DataArray) -> dict[str, list[dict[str, Any]]]:
    """The strongest three latents of each metric; `tied` marks a score that another latent shares."""
    from vaearr.association import ranking

    found = {}
    for name, short in METRICS.items():
        best = ranking(table, name, top=TOP)
        rows = zip(best[n.LATENT].values, best["value"].values, best["is_tied"].values, strict=True)
        found[short] = [{"dim": int(dim), "score": float(value), "tied": bool(tied)} for dim, value, tied in rows]
    return found


def region(content: Content) -> dict[str, Any]:
    """The ROI's box in step numbers, half-open, and its number of points."""
    inside = content.roi.values.reshape(-1)
    if not inside.any():
        raise RoiError(f"the region of run {content.run!r} holds no scan point.")
    steps = {dim: values[inside] for dim, values in content.steps().items()}
    box = {f"{dim}_range": [int(values.min()), int(values.max()) + 1] for dim, values in steps.items()}
    return box | {"n": int(inside.sum()), "range_is": "step numbers, start <= step < stop"}


def facts(content: Content, table: xr.DataArray) -> dict[str, Any]:
    """What the seed's reports lack: how the numbers came about."""
    if n.LATENT not in table.dims:
        raise SchemaError(f"the table has dims {table.dims}; expected metric and latent.")
    return {
        "n": int(content.roi.sum()),
        "n_finite": int(table["n"]),
        "parameters": {METRICS[name]: about for name, about in table.attrs["metrics"].items()},
        "scaling": None,  # the metrics are taken of the values as they are
        "seeds": {"mi": 0},
        "about": content.about(),
        "versions": versions("scipy", "scikit-learn"),
    }
