"""Latents as NumPy arrays, with the step numbers of their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaearr.exporting.content import Content
from vaearr.exporting.formats import fmt

FULL, IN_ROI, COORDS, COORDS_ROI = "latents_full.npy", "latents_roi.npy", "coords.csv", "coords_roi.csv"


@fmt("npy", holds="latents_full.npy, latents_roi.npy (float32, row-major), coords.csv, coords_roi.csv")
def npy(content: Content, folder: Path) -> None:
    """All latents of the run: every scan point, NaN outside the ROI, and the ROI's alone; rows have x fastest.

    `coords.csv` and `coords_roi.csv` hold the step numbers x, y[, z] of the rows.
    """
    import pandas as pd

    inside, n_latents = content.roi.values.reshape(-1), content.latents.sizes[content.latent_dim]
    full = _array(folder / FULL, (inside.size, n_latents))
    own = _array(folder / IN_ROI, (int(inside.sum()), n_latents))
    start = done = 0
    for region in content.blocks(8 * n_latents):
        rows = content.latents.isel(region).values.reshape(-1, n_latents).astype(np.float32)
        here = inside[start : start + len(rows)]
        rows[~here] = np.nan
        full[start : start + len(rows)] = rows
        own[done : done + int(here.sum())] = rows[here]
        start, done = start + len(rows), done + int(here.sum())
    full.flush()
    own.flush()
    coords = pd.DataFrame(content.steps())
    coords.to_csv(folder / COORDS, index=False, lineterminator="\n")
    coords[inside].to_csv(folder / COORDS_ROI, index=False, lineterminator="\n")


def _array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
