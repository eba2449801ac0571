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
    yield f"{store}: {facts['contents']}"
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
    from vaearr.analysis.association import P_ADJUSTED, strongest_latents

    strongest = strongest_latents(table, 1)
    strongest["text"] = [
        f"latent {latent} {value:+.3f}"
        for latent, value in zip(strongest[n.LATENT], strongest["value"], strict=True)
    ]
    if P_ADJUSTED in strongest:
        p_words = strongest[P_ADJUSTED].map(" (p {:.2g})".format)
        strongest["text"] += p_words.where(strongest[P_ADJUSTED].notna(), "")
    metrics = table["metric"].values[:MAX_METRICS]
    strengths = strongest["value"].abs().groupby(strongest["target"], sort=False).max()
    rows: list[dict[str, str]] = []
    for target in strengths.sort_values(ascending=False, kind="stable").index:
        of_target = strongest[strongest["target"] == target]
        by_metric = of_target[of_target["metric"].isin(metrics)]
        row = {"target": target} | dict(by_metric[["metric", "text"]].values)
        if len(of_target) > MAX_METRICS:
            latents = of_target[n.LATENT]
            row["strongest by"] = f"{(latents == latents.iloc[0]).sum()} of {len(latents)} metrics"
        rows.append(row)
    yield "strongest latent of each target"
    yield from _table(rows, "targets")


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
