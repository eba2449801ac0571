"""Quality of latents and reconstructions: numbers per dimension and per sample, and warnings.

Image metrics take batches `(B, C, …)` of input and reconstruction of one size, in one unit, and
give float64 `(B,)`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike
from scipy.ndimage import gaussian_filter

from vaearr import names as n
from vaearr.errors import DataError

if TYPE_CHECKING:
    import torch

    from vaearr.models.artifacts import TrainedModel

# Burda, Grosse, Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, section 5.1
ACTIVE_VARIANCE = 0.01
FEW = 0.5  # share of active dimensions below which users are warned
MIN_SAMPLES = 64  # for variances

# Wang, Bovik, Sheikh & Simoncelli, "Image quality assessment: from error visibility to structural
# similarity", IEEE Transactions on Image Processing 13 (2004), section III.B and C: Gaussian window
# 11 wide, constants K1 and K2
SSIM_SIDE, SSIM_SIGMA, SSIM_K1, SSIM_K2 = 11, 1.5, 0.01, 0.03


def latent_health(model: TrainedModel, batches: Iterable[torch.Tensor]) -> xr.Dataset:
    """Measure the latents and the reconstructions of stored patterns.

    Parameters
    ----------
    model : TrainedModel
        The model.
    batches : iterable of torch.Tensor
        Stored patterns `(B, C, …)`.

    Returns
    -------
    xarray.Dataset
        Over `latent`: `kl` (nats, mean over samples), `mean_variance` (variance of the posterior
        mean over the data), `std` (root mean square of the posterior standard deviation),
        `is_active` (mean_variance > 0.01). Of a spatial latent, a dimension is a channel: its KL is
        summed over the positions, its variances are means over them. The KL of a deterministic
        network is 0 by definition and no sign of collapse.
        Attributes: `n_active`, `kl_total` (nats per sample), `explained_variance` (1 - residual /
        total sum of squares of the preprocessed patterns, posterior mean decoded), `n_samples`,
        `warnings` (a list of sentences).
    """
    import torch

    from vaearr.models.losses import posterior_kl

    latent_dim = model.latent_shape[0]
    totals = np.zeros((4, *model.latent_shape))  # KL, mean, its square, posterior variance
    sums = np.zeros(4)  # samples, values, their sum, sum of squares
    residual = 0.0
    for batch in batches:
        for stored in batch.split(model.fitting(len(batch))):
            stored = stored.to(model.device)
            mean, logvar = model.encode_batch(stored)
            x = model.preprocess(stored)
            decoded = model.decode_batch(mean)
            sums += len(mean), x.numel(), float(x.sum()), float(x.square().sum())
            residual += float((x - decoded).square().sum())
            divergence = posterior_kl(model.network, mean, logvar)
            moments = torch.stack([divergence, mean, mean.square(), logvar.exp()])
            totals += moments.cpu().double().sum(1).numpy()
    n_samples, n_values, sum_of_values, squares = sums.tolist()
    kls, first, second, variance = (totals / n_samples).reshape(4, latent_dim, -1)
    kl = kls.sum(1)
    mean_variance = np.maximum(second - first**2, 0).mean(1)
    is_active = mean_variance > ACTIVE_VARIANCE
    n_active = int(is_active.sum())
    explained = 1 - residual / max(squares - sum_of_values**2 / n_values, 1e-30)
    std = np.sqrt(variance.mean(1))
    active_unit = f"active unit (variance > {ACTIVE_VARIANCE})"
    variables = {
        "kl": (n.LATENT, kl, {"long_name": "KL divergence", "units": "nats"}),
        "mean_variance": n.named(n.LATENT, mean_variance, "variance of the posterior mean"),
        "std": n.named(n.LATENT, std, "posterior standard deviation (rms)"),
        "is_active": (n.LATENT, is_active, {"long_name": active_unit}),
    }
    attrs = {
        "n_active": n_active,
        "kl_total": float(kl.sum()),
        "explained_variance": explained,
        "n_samples": int(n_samples),
        "warnings": health_warnings(
            n_active, latent_dim, is_deterministic=model.network.is_deterministic
        ),
    }
    return xr.Dataset(variables, {n.LATENT: np.arange(latent_dim)}, attrs)


def health_warnings(n_active: int, latent_dim: int, *, is_deterministic: bool = False) -> list[str]:
    """Return warnings that the verdict does not contain, in sentences; empty if there are none."""
    in_use = f"Only {n_active} of {latent_dim} latent dimensions"
    is_few = n_active < FEW * latent_dim
    warnings = []
    if is_few and is_deterministic:
        warnings.append(
            f"{in_use} vary over the patterns (variance > {ACTIVE_VARIANCE}): train longer, or "
            "fewer dimensions would do."
        )
    elif is_few and n_active:
        warnings.append(
            f"{in_use} are in use; the others stay at the prior. Fewer dimensions would do, or "
            "lower beta if the reconstructions lack detail."
        )
    return warnings


def image_metrics(
    target: torch.Tensor, recon: torch.Tensor, data_range: float | np.ndarray
) -> dict[str, np.ndarray]:
    """Compute `mse`, `mae`, `psnr` and, for large enough samples, `ssim` of each sample.

    Parameters
    ----------
    target, recon : torch.Tensor
        Samples and their reconstructions, `(B, C, …)`.
    data_range : float or numpy.ndarray
        Largest possible value - smallest, one number or `(B,)`. What needs it is NaN where it is 0.

    Returns
    -------
    dict of str to numpy.ndarray
        Each `(B,)`. mse and mae are means over a sample, in (squared) units of the input. psnr is
        10 log10(data_range^2 / MSE) in dB, infinite for equal samples. ssim is the mean structural
        similarity over an image or volume and its channels, at most 1: population variances under a
        Gaussian window (11 wide, standard deviation 1.5) in each spatial dimension; windows that
        would reach over the border are left out. Wang et al. 2004, eq. 13.
    """
    first, second = (x.double().cpu().numpy() for x in (target, recon))
    over_samples = tuple(range(1, first.ndim))
    difference = first - second
    mse = np.square(difference).mean(over_samples)
    span = np.where(np.asarray(data_range) > 0, data_range, np.nan)
    with np.errstate(divide="ignore"):
        psnr = 10 * np.log10(span**2 / mse)
    metrics = {"mse": mse, "mae": np.abs(difference).mean(over_samples), "psnr": psnr}
    if can_ssim(first.shape[1:]):
        span = np.expand_dims(np.broadcast_to(span, mse.shape), over_samples)
        metrics["ssim"] = _ssim(first, second, span)
    return metrics


def can_ssim(shape: Sequence[int]) -> bool:
    """Return whether samples `(C, …)` are large enough for the window of SSIM."""
    return len(shape) > 1 and min(shape[1:]) >= SSIM_SIDE


def _ssim(a: np.ndarray, b: np.ndarray, span: np.ndarray) -> np.ndarray:
    radius = SSIM_SIDE // 2
    spatial = tuple(range(2, a.ndim))
    inside = (slice(None), slice(None), *[slice(radius, -radius)] * len(spatial))

    def windowed(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, SSIM_SIGMA, radius=radius, axes=spatial)[inside]

    c1, c2 = (SSIM_K1 * span) ** 2, (SSIM_K2 * span) ** 2
    mean_a, mean_b = windowed(a), windowed(b)
    variances = windowed(a * a) - mean_a**2 + windowed(b * b) - mean_b**2
    covariance = windowed(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    similarity = luminance * (2 * covariance + c2) / (variances + c2)
    return similarity.mean(tuple(range(1, a.ndim)))


def frechet_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return MONAI's Fréchet distance of two sets of features, `(n, d)` and `(m, d)`.

    NaN where one has fewer than two samples. Raises DataError where MONAI cannot compute it.
    """
    from monai.metrics import FIDMetric

    if min(len(first), len(second)) < 2:
        return math.nan
    with warnings.catch_warnings():
        # SciPy's, about singular matrices and an argument that MONAI passes
        warnings.simplefilter("ignore")
        try:
            return float(FIDMetric()(first, second))
        except (ValueError, RuntimeError) as error:
            raise DataError(
                f"MONAI cannot compute the Fréchet distance of {len(first)} and {len(second)} "
                f"samples with {first.shape[1]} features ({error}); give more samples, or two or "
                "more and fewer features."
            ) from None


def compression_ratio(shape: Sequence[int], dtype: DTypeLike, latent_shape: Sequence[int]) -> float:
    """Return bytes of a stored sample over bytes of its latents in float32.

    28.125 for 60 x 60 uint8 and 32 latents.
    """
    stored_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    return stored_bytes / (math.prod(latent_shape) * np.dtype(np.float32).itemsize)
