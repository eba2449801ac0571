"""Tables as lines of text for a terminal."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.association.classes import ETA_SQUARED, MUTUAL
from vaearr.association.p_values import HIGH, LOW, P_ADJUSTED
from vaearr.association.partitions import ARI, NMI, TIED
from vaearr.association.table import ASSOCIATION, METRIC, ranking
from vaearr.association.targets import TARGET

NOT_SIGNIFICANT = 0.05


def top_lines(table: xr.DataArray | xr.Dataset, top: int = 3) -> list[str]:
    """One line per target and metric that names the strongest latents; tested ones with interval and adjusted p."""
    values = table[ASSOCIATION] if isinstance(table, xr.Dataset) else table
    labels = [str(name) for name in np.atleast_1d(values[TARGET].values)]
    width = max(map(len, labels))
    lines = []
    for label, n_points in zip(labels, np.atleast_1d(values["n"].values), strict=True):
        for metric in map(str, values[METRIC].values):
            best = ranking(values, metric, label if TARGET in values.dims else None, top)
            where = {METRIC: metric} | ({TARGET: label} if TARGET in values.dims else {})
            parts = [
                f"latent {latent} ({', '.join([short(value), *notes_on(table, where | {n.LATENT: latent}, tied)])})"
                for latent, value, tied in zip(
                    best[n.LATENT].values, best["value"].values, best["is_tied"].values, strict=True
                )
            ]
            lines.append(f"{label:{width}}  {metric}: {', '.join(parts) or 'no value'}  (n = {n_points})")
    return lines


def notes_on(table: xr.DataArray | xr.Dataset, where: dict[str, object], tied: bool) -> list[str]:
    """What is to be said of one value: a tie, its 95 % interval, its adjusted p-value."""
    notes = ["tied"] if tied else []
    if isinstance(table, xr.Dataset) and P_ADJUSTED in table:
        one = table.sel(where)
        if LOW in one and np.isfinite(float(one[LOW])):
            notes.append(f"95 %: {short(float(one[LOW]))} to {short(float(one[HIGH]))}")
        p = float(one[P_ADJUSTED])
        notes.append(f"p = {p:.2g}" if p < NOT_SIGNIFICANT else f"p = {p:.2g} n.s.")
    return notes


def partition_lines(found: xr.Dataset, top: int = 3) -> list[str]:
    """The latents whose clusters agree best with the reference's, and the warnings."""
    order = np.argsort(-found[ARI].fillna(-np.inf).values, kind="stable")
    order = order[np.isfinite(found[ARI].values[order])][:top]
    parts = [
        f"latent {found[n.LATENT].values[i]} (ARI {float(found[ARI][i]):.2f}, NMI {float(found[NMI][i]):.2f}, "
        f"k = {int(found['k'][i])}{', tied' if found[TIED].values[i] else ''})"
        for i in order
    ]
    classes = []
    for name in (ETA_SQUARED, MUTUAL):
        if name in found:
            best = np.argsort(-found[name].fillna(-np.inf).values, kind="stable")[:top]
            words = [f"latent {found[n.LATENT].values[i]} ({float(found[name][i]):.2f})" for i in best]
            classes.append(f"{found.attrs['reference_name']}  {name}: {', '.join(words)}")
    head = f"groups of {found.attrs['reference_name']} (k = {found.attrs['k_reference']})"
    return [
        f"{head}: {', '.join(parts) or 'no value'}",
        *classes,
        *(f"warning: {text}" for text in found.attrs["warnings"]),
    ]


def short(value: float) -> str:
    """A value with its sign, two digits at least."""
    return f"{value:+.2f}" if abs(value) >= 0.1 else f"{value:+.2g}"
