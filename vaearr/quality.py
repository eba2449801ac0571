"""Is the latent space alive? KL per dimension, active units, explained variance, and what they mean in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from vaearr import names as n

if TYPE_CHECKING:
    from vaearr.artifacts import TrainedModel
    from vaearr.batching import PatternBatches

ACTIVE_VARIANCE = 0.01  # Burda, Grosse, Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, section 5.1
FEW = 0.5
MIN_SAMPLES = 64  # fewer tell nothing about variances


def latent_health(model: TrainedModel, batches: PatternBatches) -> xr.Dataset:
    """Per latent dimension: `kl` (nats, mean over samples), `mean_variance` (variance of the posterior mean over the
    data), `std` (root mean square of the posterior standard deviation), `is_active` (mean_variance > 0.01).

    The KL of a deterministic network is 0 by definition and no sign of collapse.

    Attributes: `n_active`, `kl_total` (nats per sample), `explained_variance` (1 - residual / total sum of squares of
    the preprocessed patterns, posterior mean decoded), `n_samples`, `warnings` (a list of sentences).
    """
    from vaearr.objectives import posterior_kl

    latent = model.model_config.latent_dim
    total = np.zeros((4, latent))
    residual = squares = sums = 0.0
    n_samples = n_values = 0
    for stored in batches:
        mean, logvar = model.encode_batch(stored)
        x = model.preprocess(stored.to(model.device))
        residual += float((x - model.decode_batch(mean)).square().sum())
        squares += float(x.square().sum())
        sums += float(x.sum())
        parts = (posterior_kl(model.network, mean, logvar), mean, mean.square(), logvar.exp())
        total += np.stack([part.cpu().double().sum(0).numpy() for part in parts])
        n_samples += len(mean)
        n_values += x.numel()
    kl, first, second, variance = total / n_samples
    spread = np.maximum(second - first**2, 0)
    active = spread > ACTIVE_VARIANCE
    explained = 1 - residual / max(squares - sums**2 / n_values, 1e-30)
    return xr.Dataset(
        {
            "kl": (n.LATENT, kl, {"long_name": "KL divergence", "units": "nats"}),
            "mean_variance": (n.LATENT, spread, {"long_name": "variance of the posterior mean", "units": "1"}),
            "std": (n.LATENT, np.sqrt(variance), {"long_name": "posterior standard deviation (rms)", "units": "1"}),
            "is_active": (n.LATENT, active, {"long_name": f"active unit (variance > {ACTIVE_VARIANCE})"}),
        },
        coords={n.LATENT: np.arange(latent)},
        attrs={
            "n_active": int(active.sum()),
            "kl_total": float(kl.sum()),
            "explained_variance": float(explained),
            "n_samples": n_samples,
            "warnings": health_warnings(
                int(active.sum()), latent, float(explained), is_deterministic=bool(model.network.is_deterministic)
            ),
        },
    )


def health_warnings(n_active: int, latent_dim: int, explained: float, *, is_deterministic: bool = False) -> list[str]:
    """What a user should know about the latent space, in plain words; empty when all is well."""
    warnings = []
    if is_deterministic:
        if n_active < FEW * latent_dim:
            warnings.append(
                f"Only {n_active} of {latent_dim} latent dimensions vary over the patterns (variance > "
                f"{ACTIVE_VARIANCE}): train longer, or fewer dimensions would do."
            )
    elif n_active == 0:
        warnings.append(
            f"Posterior collapse: none of the {latent_dim} latent dimensions carries information about the patterns, "
            "so latent maps show noise only. Lower beta, lengthen the warm-up or train longer."
        )
    elif n_active < FEW * latent_dim:
        warnings.append(
            f"Only {n_active} of {latent_dim} latent dimensions are in use; the others stay at the prior. Fewer "
            "dimensions would do, or lower beta if the reconstructions lack detail."
        )
    if n_active and explained <= 0:
        warnings.append(
            f"The reconstruction explains none of the patterns' variance ({explained:.1%}): train longer or check the "
            "preprocessing."
        )
    return warnings
