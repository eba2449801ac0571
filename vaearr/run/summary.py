"""The numbers of many samples in few, as a table and in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n

PART, METRIC, STATISTIC = "part", "metric", "statistic"
STATISTICS: dict[str, Callable[[np.ndarray], Any]] = {
    "mean": np.mean, "std": np.std, "min": np.min, "median": np.median, "max": np.max
}  # fmt: skip
PARTS = {"train": n.TRAIN, "validation": n.VALIDATION}


def summarise(maps: xr.Dataset, split: np.ndarray) -> xr.Dataset:
    """`summary (part, metric, statistic)` and `count (part, metric)` of maps, for all points and the parts of a split.

    NaN counts as missing; a statistic over no points is NaN.
    """
    metrics = [str(name) for name in maps.data_vars]
    parts = {"all": np.ones_like(split, bool)} | {name: split == value for name, value in PARTS.items()}
    summary = np.full((len(parts), len(metrics), len(STATISTICS)), np.nan)
    count = np.zeros(summary.shape[:2], int)
    for i, inside in enumerate(parts.values()):
        for j, metric in enumerate(metrics):
            values = maps[metric].values[inside].astype("f8")
            values = values[~np.isnan(values)]
            count[i, j] = len(values)
            if len(values):
                with np.errstate(invalid="ignore"):  # the PSNR of equal samples is infinite
                    summary[i, j] = [statistic(values) for statistic in STATISTICS.values()]
    return xr.Dataset(
        {
            "summary": ((PART, METRIC, STATISTIC), summary, {"long_name": "summary of each metric over samples"}),
            "count": ((PART, METRIC), count, {"long_name": "samples"}),
        },
        coords={PART: list(parts), METRIC: metrics, STATISTIC: list(STATISTICS)},
    )


def reconstruction_lines(found: xr.Dataset) -> list[str]:
    """What `reconstruct_store` returned in a few lines for a terminal."""
    attrs = found.attrs
    span = {"sample": "of each input", "dtype": f"{attrs['data_range']}, of the stored type"}
    lines = [
        f"{attrs['n']} sample{'s' * (attrs['n'] != 1)} of run {attrs['run']!r} in {attrs['scale']} units; data range "
        f"{span.get(attrs['data_range_is'], attrs['data_range'])}; compression {attrs['compression_ratio']:.4g} : 1"
    ]
    if attrs["given_back"]:
        lines.append(f"each reconstruction has from its input, not from the network: {', '.join(attrs['given_back'])}")
    for part in found[PART].values:
        for metric in found[METRIC].values:
            row = found.sel({PART: part, METRIC: metric})
            is_all = part != "all" and int(row["count"]) == int(found["count"].sel({PART: "all", METRIC: metric}))
            if int(row["count"]) and not is_all:
                mean, std = (float(row["summary"].sel({STATISTIC: name})) for name in ("mean", "std"))
                units = found[str(metric)].attrs["units"]
                lines.append(
                    f"{part}: {metric} {mean:.4g} ± {std:.2g}{'' if units == '1' else f' {units}'} "
                    f"(n = {int(row['count'])})"
                )
    return lines + [f"warning: {text}" for text in attrs["warnings"]]


def file_lines(found: xr.Dataset) -> list[str]:
    """What `reconstruct_files` returned, a line for each file under a line of names."""
    metrics = [str(name) for name in found[METRIC].values]
    names = [str(name) for name in found["file"].values]
    width = max(map(len, (*names, "file")))
    lines = [f"{'file':{width}} " + " ".join(f"{name:>10}" for name in metrics)]
    for i, name in enumerate(names):
        lines.append(f"{name:{width}} " + " ".join(f"{float(found[metric][i]):>10.4g}" for metric in metrics))
    return lines


def metrics_csv(found: xr.Dataset) -> str:
    """The numbers of all files or samples as a CSV table; samples where nothing was reconstructed are left out."""
    import csv
    import io

    metrics = [str(name) for name in found[METRIC].values]
    dims = found[metrics[0]].dims
    about = [str(dim) for dim in dims]
    values = np.stack([found[metric].values for metric in metrics], axis=-1)
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow([*about, *metrics])
    for place in np.argwhere(~np.isnan(found[metrics[0]].values)).tolist():
        where = [found[dim].values[i] for dim, i in zip(about, place, strict=True)]
        rows.writerow([*where, *(float(value) for value in values[tuple(place)])])
    return buffer.getvalue()
