"""Metrics of reconstructions: per sample, summarised, and with example pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import PerceptualConfig, ReconstructConfig
from vaearr.errors import UsageError
from vaearr.models.preprocess import value_range
from vaearr.models.quality import SSIM_SIDE, can_ssim, compression_ratio, image_metrics
from vaearr.run import Run
from vaearr.run.decode import scale_attrs
from vaearr.run.stream import PARTS, encode_and_decode, example_points
from vaearr.sources.nifti import ORIENTATION

EXAMPLE, PART, METRIC, STATISTIC = "example", "part", "metric", "statistic"
STATISTICS = ["mean", "std", "min", "median", "max"]
LONG_NAMES = {
    "input": "pattern",
    "reconstruction": "decoded posterior mean",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "psnr": "peak signal-to-noise ratio",
    "ssim": "structural similarity",
    "lpips": "learned perceptual image patch similarity",
}


class Evaluation:
    """Reconstructs chosen samples of a store, and collects their metrics.

    chosen: boolean map over the navigation dims. Raises UsageError or DataError for LPIPS weights
    that do not fit.
    """

    def __init__(self, run: Run, config: ReconstructConfig, chosen: xr.DataArray) -> None:
        self.run = run
        self.config = config
        self.chosen = chosen
        self.scale = scale_attrs(run, is_stored=config.units == "stored")
        self.lpips = _lpips(run, config)
        self.range_kind, self.range = _data_range(run, config)
        self.metrics: dict[str, np.ndarray] = {}

    def add(self, points: np.ndarray, stored: np.ndarray | torch.Tensor) -> np.ndarray:
        """Reconstruct samples at grid points `(k, navigation)`, and keep their metrics."""
        reconstructions = []
        size = self.run.model.fitting(self.config.batch_size)
        samples = torch.as_tensor(stored).reshape(-1, *self.run.model.input_shape)
        for start in range(0, len(points), size):
            batch = slice(start, start + size)
            target, decoded = self._reconstruct(samples[batch])
            for name, values in self._measure(target, decoded).items():
                if name not in self.metrics:
                    self.metrics[name] = np.full(self.chosen.shape, np.nan, np.float32)
                self.metrics[name][tuple(points[batch].T)] = values
            reconstructions.append(decoded.cpu().numpy())
        return np.concatenate(reconstructions)

    @torch.inference_mode()
    def _reconstruct(self, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples and their reconstructions in the chosen units."""
        model = self.run.model
        raw = samples.to(model.device)
        output = encode_and_decode(model, raw, self.config.window, self.config.overlap)
        decoded = output.decoded.float()
        if self.config.units != "stored":
            return output.target, decoded
        return raw.float(), model.preprocess.undo(decoded, raw)

    @torch.inference_mode()
    def _measure(self, target: torch.Tensor, decoded: torch.Tensor) -> dict[str, np.ndarray]:
        data_range: float | np.ndarray | None = self.range
        if data_range is None:
            flat = target.flatten(1)
            data_range = (flat.amax(1) - flat.amin(1)).cpu().numpy()
        metrics = image_metrics(target, decoded, data_range)
        if self.lpips is not None:
            metrics["lpips"] = self.lpips(target, decoded)
        return metrics

    def table(self) -> xr.Dataset:
        """Metrics over the navigation dims, their summary, and pictures of some samples."""
        ds = self.run.ds
        model = self.run.model
        config = self.config
        dims = schema.navigation_dims(ds)
        unit = self.scale["units"]
        units = {"mse": f"{unit}^2" if unit != "1" else "1", "mae": unit, "psnr": "dB"}
        metrics = {}
        for name, values in self.metrics.items():
            attrs = {"long_name": LONG_NAMES[name], "units": units.get(name, "1")}
            metrics[name] = (dims, values, attrs)
        table = xr.Dataset(metrics, coords={dim: ds[dim] for dim in dims})
        table = table.merge(_summary(table, self.run.variable(n.SPLIT).load()))
        warnings = []
        if not can_ssim(model.input_shape):
            warnings.append(
                f"SSIM needs samples with sides of {SSIM_SIDE} or more, so it is left out."
            )
        table.attrs = {
            **self.run.result_attrs,
            **self.scale,
            "n": int(self.chosen.sum()),
            "compression_ratio": compression_ratio(
                model.input_shape, ds[n.PATTERNS].dtype, model.latent_shape
            ),
            "data_range_is": self.range_kind,
            "data_range": self.range,
            "window": None if config.window is None else list(config.window),
            "warnings": warnings,
        }
        points = example_points(self.run, self.chosen, config.examples, config.seed)
        if len(points):
            self._add_examples(table, points)
        return table

    def _add_examples(self, table: xr.Dataset, points: np.ndarray) -> None:
        """Add pictures of the samples at some grid points, with their positions and metrics."""
        model = self.run.model
        patterns = self.run.ds[n.PATTERNS]
        signal = schema.signal_dims(self.run.ds)
        attrs = {n.SIGNAL_DIMS: list(signal), **self.scale}
        if ORIENTATION in patterns.attrs:
            attrs[ORIENTATION] = patterns.attrs[ORIENTATION]
        for dim in signal:
            if dim in patterns.coords:
                table.coords[dim] = patterns[dim]
        pictures: dict[str, list[torch.Tensor]] = {"input": [], "reconstruction": []}
        samples = torch.as_tensor(self.run.patterns_at(points)).reshape(-1, *model.input_shape)
        for batch in samples.split(model.fitting(len(samples))):
            target, decoded = self._reconstruct(batch)
            pictures["input"].append(target)
            pictures["reconstruction"].append(decoded)
        shape = (len(points), *(patterns.sizes[dim] for dim in signal))
        for name, batches in pictures.items():
            values = model.preprocess.enlarged(torch.cat(batches)).cpu().numpy().reshape(shape)
            table[name] = (EXAMPLE, *signal), values, {"long_name": LONG_NAMES[name], **attrs}
        indices = tuple(points.T)
        for name, metric in self.metrics.items():
            table[f"{EXAMPLE}_{name}"] = EXAMPLE, metric[indices], table[name].attrs
        for dim, index in zip(schema.navigation_dims(self.run.ds), indices, strict=True):
            coordinate = table[dim]
            table.coords[f"{EXAMPLE}_{dim}"] = EXAMPLE, coordinate.values[index], coordinate.attrs


def _lpips(
    run: Run, config: ReconstructConfig
) -> Callable[[torch.Tensor, torch.Tensor], np.ndarray] | None:
    """LPIPS of stored values, scaled by the range of the store; None without weights."""
    if config.lpips_weights is None:
        return None
    from vaearr.models.perceptual import PerceptualLoss, lpips

    limits = value_range(run.ds[n.PATTERNS])
    if limits is None:
        raise UsageError(
            "the store does not state its smallest and largest value, which LPIPS needs; ingest it "
            "again."
        )
    perceptual = PerceptualConfig(
        kind="lpips",
        slices=1,
        chunk=config.batch_size,
        weights=config.lpips_weights,
        linear=config.lpips_linear,
    )
    network = PerceptualLoss(perceptual, limits).to(run.model.device)
    return lambda target, decoded: lpips(target, decoded, network)


def _data_range(run: Run, config: ReconstructConfig) -> tuple[str, float | None]:
    """Data range of PSNR and SSIM: `given`, `dtype` or `sample`, and the number, if it is one."""
    dtype = run.ds[n.PATTERNS].dtype
    kind = config.data_range
    if kind is None:
        is_8_bit = dtype in (np.uint8, np.int8)  # 16 bits are seldom used completely
        kind = "dtype" if config.units == "stored" and is_8_bit else "sample"
    if kind == "sample":
        return kind, None
    if kind == "dtype":
        limits = np.iinfo(dtype)
        return kind, float(limits.max) - float(limits.min)
    return "given", float(kind)


def _summary(maps: xr.Dataset, split: xr.DataArray) -> xr.Dataset:
    """`summary (part, metric, statistic)` and `count (part, metric)` over samples, without NaN."""
    values = maps.to_dataarray(METRIC).astype("f8")
    values_of_parts = {"all": values}
    for name, code in PARTS.items():
        values_of_parts[name] = values.where(split == code)
    stacked = xr.concat(list(values_of_parts.values()), PART).drop_vars(list(maps.coords))
    stacked[PART] = list(values_of_parts)
    dims = list(maps.dims)
    with np.errstate(invalid="ignore"):  # the PSNR of equal samples is infinite
        statistics = [getattr(stacked, name)(dims) for name in STATISTICS]
    summary = xr.concat(statistics, STATISTIC).transpose(PART, METRIC, STATISTIC)
    summary[STATISTIC] = STATISTICS
    return xr.Dataset(
        {
            "summary": summary.assign_attrs(long_name="summary of each metric over samples"),
            "count": stacked.count(dims).assign_attrs(long_name="samples"),
        }
    )
