"""Runs of one store beside each other: how well each holds up on points it has not seen, and how many dimensions do.

The yardstick is the same for all, whatever they were trained with: the evidence lower bound (ELBO) of the validation
points under a Gaussian of one variance, in nats per sample, from what `encode` wrote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError
from vaearr.store import open_store, open_table, run_manifest

MIN_VARIANCE = 1e-12


def held_out(store: str | Path, run: str) -> dict[str, float | int | None]:
    """`elbo` of a run's validation points, nats per sample, with its standard error `elbo_se`, `n` and `n_groups`.

    ELBO of a sample = -D / 2 log(2 pi s2) - D e / (2 s2) - KL, with its D values, its mean squared error e in
    preprocessed units, KL of its posterior from N(0, 1), and s2 the mean of e over the training points: the variance
    that suits them best (Rybkin, Daniilidis, Levine, "Simple and effective VAE training with calibrated decoders", ICML
    2021, section 4, here of the training points, so that nothing is fitted to the validation points).

    Neighbours on a scan are alike, so the standard error takes the blocks of the split, not their points, as
    independent (all points where the split is not by blocks); None for fewer than two of them. Raises NoInputError for
    a run that is not encoded or that has no validation points.
    """
    ds = open_store(store, chunks=None)
    wanted = [n.run_name(name, run) for name in (n.LATENTS, n.LATENTS_STD, n.RECONSTRUCTION_ERROR, n.SPLIT)]
    if missing := [name for name in wanted if name not in ds]:
        raise NoInputError(f"run {run!r} lacks {', '.join(missing)}: 'vaearr encode {store} --run {run}' writes them.")
    nav = schema.navigation_dims(ds)
    latents, std, error, parts = (ds[name].transpose(*nav, ...).values for name in wanted)
    points = np.argwhere(parts == n.VALIDATION)
    if not len(points):
        raise NoInputError(f"run {run!r} has no validation points; train with split.fraction above 0.")
    size = math.prod(schema.input_shape(ds))
    variance = max(float(error[parts == n.TRAIN].mean(dtype="f8")), MIN_VARIANCE)
    where = tuple(points.T)
    mean, spread = latents[where].reshape(len(points), -1).astype("f8"), std[where].reshape(len(points), -1)
    spread = np.maximum(spread.astype("f8"), MIN_VARIANCE)
    kl = 0.5 * (mean**2 + spread**2 - 1 - 2 * np.log(spread)).sum(1)
    nll = 0.5 * size * (math.log(2 * math.pi * variance) + error[where].astype("f8") / variance)
    elbo = -(nll + kl)
    groups = points // max(int(ds[wanted[3]].attrs.get("block_used") or 1), 1)
    _, label = np.unique(groups, axis=0, return_inverse=True)
    return {"elbo": float(elbo.mean()), "elbo_se": _standard_error(elbo, label.ravel()), "n": len(points),
            "n_groups": int(label.max()) + 1}  # fmt: skip


def _standard_error(values: np.ndarray, label: np.ndarray) -> float | None:
    """Of the mean over groups that are drawn together: a ratio of sums (Cochran, Sampling Techniques, 1977, 6.19)."""
    count = int(label.max()) + 1
    if count < 2:
        return None
    sizes = np.bincount(label, minlength=count)
    rest = np.bincount(label, weights=values - values.mean(), minlength=count)
    return float(math.sqrt(count / (count - 1) * float((rest**2).sum())) / sizes.sum())


def score_run(store: str | Path, run: str) -> dict[str, Any]:
    """What a run is compared by: its settings, held-out ELBO, active dimensions, explained variance, epochs."""
    manifest = run_manifest(store, run)
    health = open_table(store, run, n.HEALTH).attrs
    return {
        "run": run,
        "latent_dim": manifest["config"]["model"]["latent_dim"],
        "beta": manifest["config"]["objective"]["beta"],
        "n_roi": manifest["n_roi"],
        **held_out(store, run),
        "n_active": health["n_active"],
        "kl": health["kl_total"],
        "explained_variance": health["explained_variance"],
        "epochs": manifest["epochs_run"],
    }


def recommend(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row with the fewest latent dimensions whose held-out ELBO is within one standard error of the best one's.

    The rule of one standard error (Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees", 1984,
    section 3.4.3), with the standard error of the best. Of equal sizes the higher ELBO counts. Where the best has no
    standard error (one validation block) it is the best itself. rows: as of `score_run`, of one region.
    """
    if not rows:
        raise NoInputError("there is no run to recommend.")
    best = max(rows, key=lambda row: row["elbo"])
    close = [row for row in rows if row["elbo"] >= best["elbo"] - (best["elbo_se"] or 0.0)]
    return min(close, key=lambda row: (row["latent_dim"], -row["elbo"]))
