"""Samples through a model and back, in chosen units, and the numbers that judge them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vaearr import names as n
from vaearr import schema
from vaearr.config import ReconstructConfig
from vaearr.errors import UsageError
from vaearr.models.preprocess import undo
from vaearr.models.windows import decode_windows, encode_windows
from vaearr.quality import SSIM_SIDE, can_ssim, image_metrics
from vaearr.run import Run
from vaearr.sources.nifti import ORIENTATION

GIVEN_BACK = {
    "zscore": "mean and standard deviation",
    "robust": "median and interquartile range",
    "minmax": "smallest and largest value",
    "quantile": "smallest value and 99.5 % quantile",
}
LONG_NAMES = {
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "psnr": "peak signal-to-noise ratio",
    "ssim": "structural similarity",
    "lpips": "learned perceptual image patch similarity",
}

Judge = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]]


def check_settings(opened: Run, settings: ReconstructConfig) -> None:
    """Raise UsageError for settings that do not fit each other, the data or the network."""
    if settings.batch_size < 1 or settings.examples < 0:
        raise UsageError("batch_size must be at least 1 and examples at least 0.")
    wanted, whole = settings.data_range, opened.ds[n.PATTERNS].dtype.kind in "iu"
    if wanted == "dtype" and not (whole and settings.units == "stored"):
        raise UsageError(
            "data_range 'dtype' is for whole numbers in stored units; give a number, or 'sample' for the range of each "
            "input."
        )
    if isinstance(wanted, float) and wanted <= 0:
        raise UsageError(f"data_range is {wanted:g}; it must be a positive number.")
    if (settings.lpips_weights is None) != (settings.lpips_linear is None):
        raise UsageError("LPIPS takes two files: lpips_weights, of the feature network, and lpips_linear.")
    if settings.lpips_weights is not None and settings.units != "stored":
        raise UsageError("LPIPS is measured in stored units; leave units out, or the LPIPS weights.")


def judge_of(opened: Run, settings: ReconstructConfig) -> Judge:
    """A function from stored samples `(B, C, …)` to input and reconstruction in the chosen units, and their numbers.

    Raises UsageError or DataError for LPIPS weights that do not fit.
    """
    distance = _lpips(opened, settings)

    @torch.inference_mode()
    def judge(stored: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        model = opened.model
        raw = stored.to(model.device)
        recon = rebuilt(opened, settings, raw)
        if settings.units == "stored":
            target = raw.float()
            recon = undo(recon, raw, model.preprocess.background, model.preprocess_config)
        else:
            target = model.preprocess(raw)
        numbers = image_metrics(target, recon, data_range(opened, settings, target))
        return target, recon, numbers | ({} if distance is None else {"lpips": distance(target, recon)})

    return judge


def rebuilt(opened: Run, settings: ReconstructConfig, raw: torch.Tensor) -> torch.Tensor:
    """The posterior mean of stored samples decoded, in preprocessed units, whole or by windows."""
    model = opened.model
    if settings.window is None:
        return model.decode_batch(model.encode_batch(raw)[0])
    model.eval()
    with torch.inference_mode():
        seen = model.preprocess(raw)
        mean, _ = encode_windows(model.network, seen, settings.window, settings.overlap)
        return decode_windows(model.network, mean, settings.window, settings.overlap)


def _lpips(opened: Run, settings: ReconstructConfig) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None:
    """LPIPS of stored values, or None without weights. Its range is that of the dtype for 8 bits, else of the store."""
    if settings.lpips_weights is None:
        return None
    from vaearr.models.perceptual import build_perceptual, lpips

    patterns = opened.ds[n.PATTERNS]
    if patterns.dtype in (np.uint8, np.int8):
        low, high = float(np.iinfo(patterns.dtype).min), float(np.iinfo(patterns.dtype).max)
    else:
        low, high = (float(patterns.attrs.get(key, np.nan)) for key in ("value_min", "value_max"))
        if not low < high:
            raise UsageError("the store does not tell its least and largest value, which LPIPS needs; ingest it again.")
    network = build_perceptual(
        "lpips",
        weights=settings.lpips_weights,
        linear=settings.lpips_linear,
        low=low,
        high=high,
        chunk=settings.batch_size,
    ).to(opened.model.device)
    return lambda target, recon: lpips(target, recon, network)


def data_range(opened: Run, settings: ReconstructConfig, target: torch.Tensor) -> float | torch.Tensor:
    """Of PSNR and SSIM: one number, or one for each sample."""
    kind = range_kind(opened, settings)
    if kind == "sample":
        flat = target.flatten(1)
        return flat.amax(1) - flat.amin(1)
    if kind == "dtype":
        limits = np.iinfo(opened.ds[n.PATTERNS].dtype)
        return float(limits.max) - float(limits.min)
    return float(kind)


def range_kind(opened: Run, settings: ReconstructConfig) -> float | str:
    """What the data range is: a number, `dtype` or `sample`."""
    if settings.data_range is not None:
        return settings.data_range
    is_byte = opened.ds[n.PATTERNS].dtype in (np.uint8, np.int8)  # 16 bits are seldom filled
    return "dtype" if settings.units == "stored" and is_byte else "sample"


def units_of(metric: str, unit: str) -> str:
    """Unit of a metric of samples in `unit`."""
    square = f"{unit}^2" if unit != "1" else "1"
    return {"mse": square, "mae": unit, "psnr": "dB"}.get(metric, "1")


def picture_attrs(opened: Run) -> dict[str, Any]:
    """What an array of samples says of its axes."""
    patterns = opened.ds[n.PATTERNS]
    known = {ORIENTATION: patterns.attrs[ORIENTATION]} if ORIENTATION in patterns.attrs else {}
    return {n.SIGNAL_DIMS: list(schema.signal_dims(opened.ds)), **known}


def judging_attrs(opened: Run, settings: ReconstructConfig) -> dict[str, Any]:
    """What a table of numbers says of how they came about."""
    kind, config = range_kind(opened, settings), opened.model.preprocess_config
    limits = data_range(opened, settings, torch.zeros(1, 1)) if kind != "sample" else None
    given = []
    if settings.units == "stored":
        given = [GIVEN_BACK[config.normalise]] if config.normalise in GIVEN_BACK else []
        given += ["dynamic background"] * (config.dynamic_background > 0)
    too_small = f"SSIM needs samples with sides of {SSIM_SIDE} or more, so it is left out."
    return {
        "data_range_is": str(kind) if isinstance(kind, str) else "given",
        "data_range": limits if isinstance(limits, float) else None,
        "given_back": given,
        "window": None if settings.window is None else list(settings.window),
        "warnings": [] if can_ssim(opened.model.input_shape) else [too_small],
    }
