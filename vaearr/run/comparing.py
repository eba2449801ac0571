"""Runs compared with each other, such as a VAE with principal components."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association import associate, targets_of
from vaearr.errors import NoInputError
from vaearr.run import Run
from vaearr.store import has_table

LONG_NAMES = {
    "explained_variance": "share of the variance explained",
    "n_active": "active latent dimensions",
    "association": "largest |Pearson r| of a latent",
    "psnr": "PSNR (dB)",
    "score": "score of the probe",
}


def compare(runs: Sequence[Run]) -> xr.Dataset:
    """Compare what runs hold of the same samples.

    Parameters
    ----------
    runs
        Encoded runs, such as `[run, pca]`.

    Returns
    -------
    xarray.Dataset
        Over `run`: `explained_variance` and `n_active` of the health, `association (run, target)`,
        the largest
        |Pearson| of a latent with band contrast, elements and phases; where a run has been reconstructed `psnr` in dB,
        where it has been probed `score (run, target)`. `va.view` shows them.

    Raises
    ------
    NoInputError
        For a run that is not encoded.
    """
    rows = [_numbers(run) for run in runs]
    names = pd.Index([run.name for run in runs], name="run")
    return xr.concat(rows, names, data_vars="all", join="outer")


def _numbers(run: Run) -> xr.Dataset:
    health = run.health.attrs
    numbers = xr.Dataset({name: float(health[name]) for name in ("explained_variance", "n_active")})
    latents = schema.vectors(run.latents)
    try:
        found = associate(latents, targets_of(run.ds), "pearson").squeeze("metric", drop=True)
    except NoInputError:  # no maps to compare with
        found = None
    if found is not None:
        numbers["association"] = abs(found).max(n.LATENT)
    if has_table(run.path, run.name, n.RECONSTRUCTION):
        numbers["psnr"] = run.table(n.RECONSTRUCTION)["psnr"].mean()
    if has_table(run.path, run.name, "probe"):
        numbers["score"] = run.table("probe")["score"].isel(features=0, drop=True).max("probe")
    for name in numbers.data_vars:
        numbers[name].attrs = {"long_name": LONG_NAMES[str(name)]}
    return numbers.reset_coords(drop=True)
