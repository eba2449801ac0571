"""Whether draws of a run are copies of its training data: how near they lie to it, beside held-out data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import schema
from vaearr.errors import DataError
from vaearr.names import DEFAULT_RUN
from vaearr.run import Run, open_run
from vaearr.run.draw import BATCH, check_draws, draw_latents
from vaearr.run.features import batches_of, part_map

DRAW, HELD_OUT = "draw", "held_out"
NEAR = 0.05  # quantile of the held-out distances below which a draw counts as near
LEVEL = 0.01
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Nearest:
    """Distance of each query to the nearest row, and the point of that row: `(q,), (q, navigation)`."""

    distances: np.ndarray
    points: np.ndarray


def nearest_rows(queries: np.ndarray, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Nearest:
    """Nearest of many rows `(k, d)`, with points `(k, p)`, to each query `(q, d)`: Euclidean, by blocks, in float64.

    The first of equally near ones. Distances below 1e-8 times the length of the rows are rounding. Raises DataError
    without any row.
    """
    wanted = np.asarray(queries, np.float64)
    lengths = (wanted**2).sum(1)
    best, points = np.full(len(wanted), np.inf), None
    for where, rows in batches:
        for low in range(0, len(rows), ROWS_AT_ONCE):
            block = np.asarray(rows[low : low + ROWS_AT_ONCE], np.float64)
            if points is None:
                points = np.full((len(wanted), where.shape[1]), -1)
            for start in range(0, len(wanted), ROWS_AT_ONCE):
                part = slice(start, start + ROWS_AT_ONCE)
                squares = lengths[part, None] + (block**2).sum(1) - 2 * wanted[part] @ block.T
                index = squares.argmin(1)
                least = squares[np.arange(len(index)), index]
                nearer = np.flatnonzero(least < best[part]) + start
                best[nearer] = least[nearer - start]
                points[nearer] = where[low + index[nearer - start]]
    if points is None:
        raise DataError("there is no row to be near to.")
    return Nearest(np.sqrt(np.maximum(best, 0)), points)


def nearest_training(
    store: str | Path | Run,
    run: str = DEFAULT_RUN,
    *,
    n_samples: int = 1000,
    source: str = "prior",
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = BATCH,
) -> xr.Dataset:
    """Distance of each draw to the nearest training sample, beside that of held-out samples; in latents.

    A draw is decoded and encoded again; distances are Euclidean between posterior means, spatial ones with all their
    positions. Draws are those of `sample_prior` with the same seed; held-out are at most `n_samples` of the validation
    part. `distance (draw)` and `held_out_distance (held_out)`, with coordinates of the nearest training sample
    (`nearest_sample`, or `nearest_y` …) and of the held-out one.

    Attributes: `ratio`, median of the draws over that of held-out samples; `share_near`, share of the draws that lie
    nearer than all but a twentieth of the held-out samples; `p_value`, one-sided Mann-Whitney test that draws lie
    nearer; `conclusion` in words; `warnings`. Draws that are nearer than held-out samples may be copies: the pairs
    have to be looked at, for draws that all lie where the data are dense are near too.

    Raises as `sample_fidelity`, and DataError for a run without training samples.
    """
    opened = open_run(store, run, device=device)
    check_draws(opened, n_samples, source)
    draws = [
        _encoded(opened, opened.model.decode_batch(z))
        for z in draw_latents(opened, n_samples, seed, source, batch_size)
    ]
    held = list(_rows(opened, part_map(opened, "validation", most=n_samples, seed=seed), batch_size))
    queries = np.concatenate([*draws, *(rows for _, rows in held)])
    found = nearest_rows(queries, _rows(opened, part_map(opened, "train", most=None, seed=seed), batch_size))
    nav = schema.navigation_dims(opened.ds)
    own = np.concatenate([points for points, _ in held]) if held else np.zeros((0, len(nav)), int)
    text = "distance to the nearest training latent"
    table = xr.Dataset(
        {
            "distance": (DRAW, found.distances[:n_samples], {"long_name": f"{text}, draws", "units": "1"}),
            "held_out_distance": (
                HELD_OUT,
                found.distances[n_samples:],
                {"long_name": f"{text}, held-out samples", "units": "1"},
            ),
        },
        coords={DRAW: np.arange(n_samples)},
    )
    for i, dim in enumerate(nav):
        values = opened.ds[dim].values
        table.coords[f"nearest_{dim}"] = (DRAW, values[found.points[:n_samples, i]], opened.ds[dim].attrs)
        table.coords[f"held_out_nearest_{dim}"] = (HELD_OUT, values[found.points[n_samples:, i]], opened.ds[dim].attrs)
        table.coords[f"held_out_{dim}"] = (HELD_OUT, values[own[:, i]], opened.ds[dim].attrs)
    return table.assign_attrs(
        **opened.attrs,
        source=source,
        seed=seed,
        **_conclusion(found.distances[:n_samples], found.distances[n_samples:], is_scan=schema.is_scan(opened.ds)),
    )


def _encoded(opened: Run, seen: torch.Tensor) -> np.ndarray:
    """Posterior means of preprocessed samples, flat."""
    with torch.inference_mode():
        mean = opened.model.network.encode(seen)[0]
    return np.asarray(mean.float().flatten(1).cpu().numpy())


def _rows(opened: Run, chosen: xr.DataArray, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for points, stored in batches_of(opened, chosen, batch_size):
        yield points, opened.model.encode_batch(stored)[0].flatten(1).cpu().numpy()


def _conclusion(draws: np.ndarray, held_out: np.ndarray, *, is_scan: bool) -> dict[str, Any]:
    """Numbers and words on two sets of distances."""
    if not len(held_out):
        words = "There are no held-out samples to compare the draws with; look at the nearest pairs."
        return {"ratio": None, "share_near": None, "p_value": None, "conclusion": words, "warnings": []}
    from scipy.stats import mannwhitneyu

    usual = float(np.median(held_out))
    ratio = float(np.median(draws)) / usual if usual else None
    share = float((draws < np.quantile(held_out, NEAR)).mean())
    p = float(mannwhitneyu(draws, held_out, alternative="less").pvalue)
    if p < LEVEL:
        words = (
            "Draws lie nearer to training samples than held-out samples do: they may be copies, or all lie where the "
            "data are dense; look at the nearest pairs."
        )
    else:
        words = "Draws do not lie nearer to training samples than held-out samples do: no sign of copies."
    warnings = []
    if is_scan:
        warnings.append(
            "Held-out points of a scan have neighbours in the training part that look like them, so that copies may "
            "not stand out."
        )
    return {"ratio": ratio, "share_near": share, "p_value": p, "conclusion": words, "warnings": warnings}


def nearest_lines(found: xr.Dataset) -> list[str]:
    """The result in words and numbers."""
    attrs, lines = found.attrs, []
    lines.append(f"nearest training latent: draws at {float(found['distance'].median()):.4g} (median)")
    if found.sizes[HELD_OUT]:
        ratio = "not defined" if attrs["ratio"] is None else f"{attrs['ratio']:.3g}"
        lines[0] += (
            f", held-out samples at {float(found['held_out_distance'].median()):.4g}; ratio {ratio}, p "
            f"{attrs['p_value']:.2g}; {attrs['share_near']:.0%} of the draws nearer than 95% of held-out samples"
        )
    return [*lines, attrs["conclusion"]]
