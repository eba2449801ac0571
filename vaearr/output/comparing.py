"""Compare runs, such as a VAE with principal components."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association import associate, targets_of
from vaearr.errors import NoInputError
from vaearr.store import has_table

if TYPE_CHECKING:
    from vaearr import Run

LONG_NAMES = {
    "explained_variance": "share of the variance explained",
    "n_active": "active latent dimensions",
    "association": "largest absolute Pearson r of a latent",
    "psnr": "PSNR (dB)",
    "score": "score of the probe",
}


def compare(runs: Sequence[Run]) -> xr.Dataset:
    """Compare scores of runs of the same samples.

    Parameters
    ----------
    runs : sequence of Run
        Encoded runs, such as ``[vae, pca]``.

    Returns
    -------
    xarray.Dataset
        Over ``run``: ``explained_variance`` and ``n_active`` of the health; ``association (run,
        target)``, the largest absolute Pearson r of a latent with each map; ``psnr`` in dB of runs that
        were reconstructed; ``score (run, target)`` of runs that were probed. `va.view` plots it.

    Raises
    ------
    NoInputError
        If a run is not encoded.

    Examples
    --------
    >>> runs = [va.load_run("scan.zarr", name) for name in ("vae", "pca")]
    >>> va.compare(runs).run.values.tolist()
    ['vae', 'pca']
    """
    scores = [_scores(run) for run in runs]
    names = pd.Index([run.name for run in runs], name="run")
    return xr.concat(scores, names, data_vars="all", join="outer")


def _scores(run: Run) -> xr.Dataset:
    health = run.health.attrs
    scores = xr.Dataset({name: float(health[name]) for name in ("explained_variance", "n_active")})
    latents = schema.vectors(run.latents)
    with suppress(NoInputError):  # a store may have no maps
        association = associate(latents, targets_of(run.ds), "pearson").squeeze("metric", drop=True)
        scores["association"] = abs(association).max(n.LATENT)
    if has_table(run.path, run.name, n.RECONSTRUCTION):
        scores["psnr"] = run.table(n.RECONSTRUCTION)["psnr"].mean()
    if has_table(run.path, run.name, "probe"):
        scores["score"] = run.table("probe")["score"].isel(features=0, drop=True).max("probe")
    for name in scores.data_vars:
        scores[name].attrs = {"long_name": LONG_NAMES[str(name)]}
    return scores.reset_coords(drop=True)
