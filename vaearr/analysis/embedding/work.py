"""What one decomposition of a store works on: its points, its preprocessing, and everything that decides the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.embedding.stream import PatternStream
from vaearr.batching.blocks import Blocks
from vaearr.computing.device import pick_device
from vaearr.config import EmbedConfig, PreprocessConfig
from vaearr.errors import DataError, RoiError, UsageError
from vaearr.models.artifacts import check_fits, load_model
from vaearr.models.preprocess import Preprocess, settled
from vaearr.recipe import Recipe
from vaearr.run.train import data_fingerprint
from vaearr.schema import grid
from vaearr.store import run_manifest, run_names
from vaearr.training import fingerprint


@dataclass(frozen=True, eq=False)
class Work:
    """A decomposition to be made. background: `(C, H, W)` of the run, None where the region's mean is to be taken."""

    ds: xr.Dataset
    settings: EmbedConfig
    name: str
    roi: np.ndarray
    preprocess: PreprocessConfig
    background: torch.Tensor | None
    device: torch.device
    recipe: Recipe

    @property
    def component(self) -> str:
        """Name of the component dim."""
        return f"{self.name}_{n.COMPONENT}"

    @property
    def sample(self) -> np.ndarray:
        """Points that components are found on: all of the region, or `max_points` of them by the seed."""
        inside = np.flatnonzero(self.roi)
        if len(inside) <= self.settings.max_points:
            return self.roi
        drawn = np.random.default_rng(self.settings.seed).choice(inside, self.settings.max_points, replace=False)
        chosen = np.zeros(self.roi.size, bool)
        chosen[drawn] = True
        return chosen.reshape(self.roi.shape)

    def stream(self, background: torch.Tensor) -> PatternStream:
        """The patterns of the region, preprocessed."""
        step = Preprocess(self.preprocess, tuple(background.shape)).to(self.device)
        step.background.copy_(background)
        return PatternStream(
            patterns=Blocks(self.ds[n.PATTERNS], schema.navigation_dims(self.ds)),
            inside=self.roi,
            input_shape=schema.input_shape(self.ds),
            view=step,
            device=self.device,
            batch_size=self.settings.batch_size,
        )

    def still(self) -> torch.Tensor:
        """The static background: the run's, or the mean pattern of the points that components are found on."""
        if self.background is not None:
            return self.background
        shape = schema.input_shape(self.ds)
        if self.preprocess.static_background == "none":
            return torch.ones(shape)
        fitted = Preprocess(self.preprocess, shape)
        fitted.fit(self.stream(torch.ones(shape)).of(self.sample).raw())
        if not bool(torch.isfinite(fitted.background).all()):
            raise DataError("patterns of the region hold NaN or infinite values; leave these points out of the region.")
        return fitted.background


def plan_work(path: Path, ds: xr.Dataset, settings: EmbedConfig) -> Work:
    """Everything that decides a decomposition. Raises NoInputError for a run other than the default that is not there.

    PCA sees patterns as the run's network does, with the default preprocessing where there is none (no run, or one
    whose latents were computed elsewhere); NMF, which needs amounts, sees them divided by the static background (the
    region's mean pattern) and nothing else.
    """
    device = pick_device(settings.device)
    with_run = settings.run in run_names(path) or settings.run != n.DEFAULT_RUN
    request: dict[str, Any] = {"run": None, "weights_sha256": None}
    preprocess, background, roi_name = settled(PreprocessConfig(), ds[n.PATTERNS]), None, None
    if with_run:
        manifest = run_manifest(path, settings.run)
        roi_name = n.run_name(n.ROI, settings.run)
        request["run"] = settings.run
        if settings.method == "pca" and manifest.get("kind") != n.ATTACHED:
            model = load_model(path, settings.run)
            check_fits(ds, manifest, model)
            preprocess, background = model.preprocess_config, model.preprocess.background.detach().clone()
            request["weights_sha256"] = manifest["weights_sha256"]
    if settings.method == "nmf":
        preprocess = PreprocessConfig(static_background="divide", dynamic_background=0.0, normalise="none")
    roi = (ds[roi_name] if roi_name else grid.roi(ds)).transpose(*schema.navigation_dims(ds)).values
    if roi.sum() < 2:
        raise RoiError(f"the region of interest has {int(roi.sum())} scan points; a decomposition needs at least two.")
    request |= {
        "parents": _parents(ds, settings, roi_name),
        "preprocess": preprocess.to_attrs(),
        "data": data_fingerprint(ds),
        "roi": fingerprint(roi),
        "maps": _map_hashes(ds, settings),
        "n": int(roi.sum()),
    }
    name = settings.name or settings.method
    return Work(ds, settings, name, roi, preprocess, background, device, Recipe(settings, request))


def _parents(ds: xr.Dataset, settings: EmbedConfig, roi_name: str | None) -> list[str]:
    maps = [settings.clusters, n.ELEMENTS if settings.elements > 0 else None]
    return [n.PATTERNS, *filter(None, [roi_name, *maps])]


def _map_hashes(ds: xr.Dataset, settings: EmbedConfig) -> dict[str, str]:
    if settings.method == "pca":
        if settings.endmembers or settings.clusters or settings.elements:
            raise UsageError("endmembers, clusters and elements are settings of NMF; set method='nmf' (--method nmf).")
        return {}
    hashes = {}
    if settings.clusters:
        hashes[settings.clusters] = fingerprint(grid.class_map(ds, settings.clusters)[0])
    if settings.elements > 0:
        if n.ELEMENTS not in ds:
            raise UsageError("elements are to be weighed in, but the store has no 'elements'; set elements=0.")
        hashes[n.ELEMENTS] = fingerprint(ds[n.ELEMENTS].values)
    return hashes
