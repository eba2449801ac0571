"""The result of a step in at most ten lines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr import schema

MAX_ROWS = 6  # of a table
MAX_METRICS = 3  # columns of a table
MAX_CLASSES = 6


def store_lines(ds: xr.Dataset, store: str) -> Iterator[str]:
    """Grid, patterns and maps of a new store."""
    facts = schema.describe(ds)
    grid = " x ".join(f"{size} {dim}" for dim, size in facts["grid"].items())
    sample = " x ".join(map(str, facts["pattern"].values()))
    contents = f"{grid}, {sample} {facts['dtype']}"
    kind = "scan" if facts["kind"] == "scan" else "collection"
    yield f"{store}: {kind} of {contents}"
    for dim, (first, last, units) in facts["extent"].items():
        yield f"  {dim} from {first:g} to {last:g} {units}".rstrip()
    names = [_map_text(ds, name) for name in schema.maps(ds)]
    if n.ELEMENTS in ds:
        elements = ", ".join(map(str, ds[n.ELEMENTS]["element"].values))
        names.append(f"{n.ELEMENTS} ({elements})")
    if names:
        yield f"  maps: {', '.join(names)}"


def _map_text(ds: xr.Dataset, name: str) -> str:
    """The name of a map, with its classes if it has some."""
    if not schema.is_categorical(ds[name]):
        return name
    classes = [str(label) for label in schema.categories(ds[name]).values()]
    if len(classes) > MAX_CLASSES:
        return f"{name} ({len(classes)} classes)"
    return f"{name} ({', '.join(classes)})"


def association_lines(table: xr.Dataset) -> Iterator[str]:
    """The strongest latent for each target by the first metrics, the strongest targets first."""
    metrics = [str(metric) for metric in table["metric"].values]
    rows: list[dict[str, str]] = []
    strengths: list[float] = []
    for target in map(str, table["target"].values):
        strongest = _strongest(table["association"], metrics, target)
        row = {"target": target}
        for metric in metrics[:MAX_METRICS]:
            if metric in strongest:
                number, value = strongest[metric]
                row[metric] = f"latent {number} {value:+.3f}"
                row[metric] += _p_text(table, metric, number, target)
        numbers = [number for number, _ in strongest.values()]
        if len(metrics) > MAX_METRICS and numbers:
            row["all metrics"] = f"{numbers.count(numbers[0])} of {len(numbers)} agree"
        rows.append(row)
        strengths.append(max((abs(value) for _, value in strongest.values()), default=0.0))
    order = np.argsort([-strength for strength in strengths], kind="stable")
    yield "strongest latent of each target"
    yield from _table([rows[i] for i in order], "targets")


def _strongest(
    association: xr.DataArray, metrics: list[str], target: str
) -> dict[str, tuple[int, float]]:
    """Number and value of the strongest latent by each metric that has one."""
    from vaearr.analysis.association import ranking

    strongest = {}
    for metric in metrics:
        first = ranking(association, metric, target, 1)
        if first.sizes["rank"]:
            strongest[metric] = int(first["latent"][0]), float(first["value"][0])
    return strongest


def _p_text(table: xr.Dataset, metric: str, number: int, target: str) -> str:
    if "p_adjusted" not in table:
        return ""
    labels = {"metric": metric, n.LATENT: number, "target": target}
    p_value = float(table["p_adjusted"].sel(labels))
    return f" (p {p_value:.2g})" if np.isfinite(p_value) else ""


def cluster_lines(summary: xr.Dataset, name: str) -> Iterator[str]:
    """Number of clusters, share of noise, sizes."""
    sizes = np.sort(summary["count"].values)[::-1]
    n_noise = int((summary[name] == n.NOISE).sum())
    n_points = int(sizes.sum()) + n_noise
    yield (
        f"{len(sizes)} clusters of {n_points} points, {n_noise} of them noise "
        f"({n_noise / max(n_points, 1):.1%})"
    )
    if len(sizes):
        largest = ", ".join(map(str, sizes[:MAX_CLASSES]))
        more = ", …" if len(sizes) > MAX_CLASSES else ""
        yield f"  sizes: {largest}{more}; the smallest {sizes[-1]}"


def probe_lines(table: xr.Dataset) -> Iterator[str]:
    """The best probe of each target for each set of features."""
    rows = []
    for target in table["target"].values:
        row = {"target": str(target)}
        for features in table["features"].values:
            scores = table.sel(target=target, features=features)
            if not scores["score"].notnull().any():
                continue
            best = scores.isel(probe=int(scores["score"].argmax("probe")))
            interval = f"{float(best['low']):.2f} to {float(best['high']):.2f}"
            row[str(features)] = f"{float(best['score']):.3f} ({interval})"
        rows.append(row)
    left_out = ", ".join(dict.fromkeys(map(str, table["left_out"].values)))
    yield f"R2 of numbers, balanced accuracy of classes (95 % interval); left out: {left_out}"
    yield from _table(rows, "targets")


def reconstruction_lines(result: xr.Dataset) -> Iterator[str]:
    """Means of the metrics over the samples of each part."""
    means = result["summary"].sel(statistic="mean")
    rows = []
    for part in means["part"].values:
        row = {"part": str(part), "samples": str(int(result["count"].sel(part=part).max()))}
        for metric in means["metric"].values:
            row[str(metric)] = f"{float(means.sel(part=part, metric=metric)):.4g}"
        rows.append(row)
    text = f"means over n = {result.attrs['n']} samples, in {result.attrs['scale']} units"
    if result.attrs.get("data_range"):
        text += f", data_range = {result.attrs['data_range']:g}"
    if "compression_ratio" in result.attrs:
        text += f", compression_ratio = {result.attrs['compression_ratio']:.4g}"
    yield text
    yield from _table(rows, "parts")


def _table(rows: list[dict[str, str]], what: str) -> Iterator[str]:
    frame = pd.DataFrame(rows[:MAX_ROWS]).fillna("")
    for line in frame.to_string(index=False).splitlines():
        yield f"  {line.rstrip()}"
    if len(rows) > MAX_ROWS:
        yield f"  and {len(rows) - MAX_ROWS} more {what}"
