"""Decompositions of a store's patterns: what is asked for, the patterns as often as they are needed, what comes out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.embedding import nmf
from vaearr.analysis.embedding.pca import Pca, fit_pca
from vaearr.batching.blocks import Blocks, in_chunks, read_chosen
from vaearr.computing.device import pick_device
from vaearr.computing.progress import Progress, Show, showing
from vaearr.config import EmbedConfig, PreprocessConfig, refuse_settings_of_stores, resolved, settings_as_keywords
from vaearr.config.parts import trusted_names
from vaearr.errors import DataError, RoiError, UsageError
from vaearr.models.artifacts import check_fits, load_model
from vaearr.models.preprocess import Preprocess, seen_patterns, settled
from vaearr.recipe import Recipe, is_made, nested
from vaearr.run import StoreOrRun, path_of, with_run
from vaearr.run.train import data_fingerprint
from vaearr.schema import grid
from vaearr.store import add_variables, check_inputs, open_store, run_manifest, run_names
from vaearr.store.read import block_shape
from vaearr.store.remove import removable
from vaearr.training import fingerprint

log = logging.getLogger("vaearr")

BATCH_VALUES = 2**23  # values in a batch at most: 64 MiB in float64

SCORES, RESIDUAL = "scores", "residual"

View = Callable[[torch.Tensor], torch.Tensor]
Kernel = Callable[[np.ndarray, torch.Tensor], dict[str, np.ndarray]]


@settings_as_keywords(EmbedConfig)
def embed(
    ds: xr.Dataset,
    config: EmbedConfig | None = None,
    *,
    roi: xr.DataArray | None = None,
    like: Preprocess | None = None,
    progress: Progress = True,
    **given: Any,
) -> xr.Dataset:
    """Decompose the patterns of a Dataset: `ds.patterns` as they are, lazy steps on them included.

    PCA gives `pca (y, x, pca_component)`, `pca_components`, `pca_mean`, `pca_background` and three variables of
    explained variance; NMF `nmf (y, x, nmf_component)`, `nmf_residual (y, x)`, `nmf_components`, `nmf_mean`,
    `nmf_background` and, with elements, `nmf_elements`; for another `name`, these names begin with it. Scores are NaN
    outside the region.

    What components are found on is bounded by `max_points`; patterns are read block by block, only scores are held.

    roi: the points that are decomposed, by default all that were measured. like: how the patterns are seen, such as
    `va.load_run(store).model.preprocess`; by default PCA sees them as a network of default settings does, and NMF,
    which needs amounts, divided by the static background (the region's mean pattern).

    `va.keep(store, pca=result)` writes the result.

    Raises UsageError for settings that do not fit the data, RoiError for a region that is too small, DataError for
    patterns that cannot be decomposed.
    """
    settings = resolved(EmbedConfig, config, given)
    refuse_settings_of_stores(settings, ("run",), "embed")
    return _embedded(schema.as_dataset(ds), settings, roi, like, progress)


def _embedded(
    ds: xr.Dataset, settings: EmbedConfig, roi: xr.DataArray | None, like: Preprocess | None, progress: Progress
) -> xr.Dataset:
    """Decompose patterns with settled settings."""
    inside = _region(ds, grid.roi(ds) if roi is None else roi)
    step = _step(ds, settings, like)
    _maps_of(ds, settings)
    log.info(f"{settings.method} of {int(inside.sum())} scan points: looking for components")
    patterns = Patterns(ds, inside, step, settings)
    patterns.find_background()
    with showing(progress, "embedding") as show:
        found = (_pca if settings.method == "pca" else _nmf)(patterns, show)
    words = {"long_name": "principal component" if settings.method == "pca" else "endmember"}
    found[n.COMPONENT] = xr.DataArray(np.arange(found.sizes[n.COMPONENT]), dims=n.COMPONENT, attrs=words)
    name, dims = settings.name or settings.method, (*schema.navigation_dims(ds), *schema.signal_dims(ds))
    found = found.assign_coords({dim: ds[dim] for dim in dims}).assign_attrs(kind="decomposition", name=name)
    own = [v for v in found.variables if v not in ds.coords]
    return found.rename({str(v): name if v == SCORES else f"{name}_{v}" for v in own})


@settings_as_keywords(EmbedConfig)
def embed_store(
    store: StoreOrRun,
    config: EmbedConfig | None = None,
    *,
    overwrite: bool = False,
    trust: str | Collection[str] = (),
    progress: Progress = True,
    **given: Any,
) -> xr.Dataset:
    """Decompose the patterns of a store's region of interest, see `embed`, and write the scores beside its latents.

    The region is that of the run if it is there, else all measured points; PCA sees the patterns as the run's network
    does. Nothing is visible before all is written. A decomposition that was made already is returned as it is;
    `overwrite` replaces another one of this name. trust: see `va.load_run`.

    Returns the opened store. Raises ExistsError where the name is taken by anything else, NoInputError for a run that
    is not there, DataError for a damaged store, and what `embed` raises.
    """
    settings = resolved(EmbedConfig, config, with_run(store, given))
    path = path_of(store)
    ds = open_store(path, chunks=None)
    name = settings.name or settings.method
    roi, step, recipe = _plan(path, ds, settings, trusted_names(trust))
    taken, replacing = _taken(ds, name), list[str]()
    if taken:
        made = nested(ds[name].attrs, n.PROVENANCE) if name in ds else None
        there = f"{path} already holds {', '.join(taken)}"
        if is_made(there, made, recipe, overwrite=overwrite):
            return open_store(path)
        replacing = removable(path, variables=taken)
    found = _embedded(ds, settings, roi, step, progress)
    for variable in {name, f"{name}_{RESIDUAL}"} & set(found):
        found[variable] = found[variable].assign_attrs({n.PROVENANCE: recipe.stamp("scipy")}).chunk(block_shape(path))
    add_variables(path, found, replacing=replacing)
    return open_store(path)


def _taken(ds: xr.Dataset, name: str) -> list[str]:
    """Variables that stand where those of this name are to go. Raises UsageError for a name that cannot be used."""
    if name in n.RESERVED or name.startswith(n.OF_LATER_RUNS):
        raise UsageError(f"{name!r} has a meaning of its own; choose another name with name='…' (--name).")
    beside = (n.COMPONENT, "mean", "background", "residual", "explained_variance", n.ELEMENTS)
    beginnings = tuple(f"{name}_{part}" for part in beside)
    return [str(v) for v in ds.variables if v == name or str(v).startswith(beginnings)]


def _region(ds: xr.Dataset, roi: xr.DataArray) -> np.ndarray:
    inside: np.ndarray = grid.check_map(ds, roi).values
    if inside.sum() < 2:
        raise RoiError(
            f"the region of interest has {int(inside.sum())} scan points; a decomposition needs at least two."
        )
    return inside


def _step(ds: xr.Dataset, settings: EmbedConfig, like: Preprocess | None) -> Preprocess:
    """How patterns are seen. A background that is to be found yet is NaN."""
    steps = settled(PreprocessConfig(), ds[n.PATTERNS]) if like is None else like.config
    if settings.method == "nmf":
        steps = PreprocessConfig(bin=steps.bin, static_background="divide", dynamic_background=0.0, normalise="none")
    step = Preprocess(steps, schema.input_shape(ds))
    if like is not None and settings.method != "nmf":
        step.background.copy_(like.background.detach())
    elif steps.static_background != "none":
        step.background.fill_(torch.nan)
    return step.to(pick_device(settings.device))


def _plan(
    path: Path, ds: xr.Dataset, settings: EmbedConfig, trust: tuple[str, ...]
) -> tuple[xr.DataArray, Preprocess | None, Recipe]:
    """The region, how the run's network sees patterns, and the recipe. Raises NoInputError for another run that is not
    there."""
    request: dict[str, Any] = {"run": None, "weights_sha256": None}
    like, roi, parents, maps = None, grid.roi(ds), [n.PATTERNS], _maps_of(ds, settings)
    if settings.run in run_names(path) or settings.run != n.DEFAULT_RUN:
        manifest = run_manifest(path, settings.run)
        parents.append(n.run_name(n.ROI, settings.run))
        roi = ds[parents[-1]]
        request["run"] = settings.run
        if settings.method == "pca" and manifest.get("kind") != n.ATTACHED:
            model = load_model(path, settings.run, trust=trust)
            check_fits(ds, manifest, model)
            request["weights_sha256"] = manifest["weights_sha256"]
            like = model.preprocess
    inside = _region(ds, roi)
    request |= {
        "parents": [*parents, *maps],
        "preprocess": _step(ds, settings, like).config.deciding(),
        "data": data_fingerprint(ds),
        "roi": fingerprint(inside),
        "maps": maps,
        "n": int(inside.sum()),
    }
    return roi, like, Recipe(settings, request, check_inputs(path, request["parents"]))


def _maps_of(ds: xr.Dataset, settings: EmbedConfig) -> dict[str, str]:
    """What NMF takes beside the patterns: names of maps and fingerprints of their values."""
    hashes = {}
    if settings.method == "pca" and (settings.endmembers or settings.clusters or settings.elements):
        raise UsageError("endmembers, clusters and elements are settings of NMF; set method='nmf' (--method nmf).")
    if settings.clusters:
        hashes[settings.clusters] = fingerprint(grid.class_map(ds, settings.clusters)[0])
    if settings.elements > 0:
        if n.ELEMENTS not in ds:
            raise UsageError("elements are to be weighed in, but the store has no 'elements'; set elements=0.")
        hashes[n.ELEMENTS] = fingerprint(ds[n.ELEMENTS].values)
    return hashes


@dataclass(frozen=True, eq=False)
class Patterns:
    """The patterns of a region `roi`, preprocessed by `step`, read block by block as often as they are needed."""

    ds: xr.Dataset
    roi: np.ndarray
    step: Preprocess
    settings: EmbedConfig

    @cached_property
    def sample(self) -> np.ndarray:
        """Points that components are found on: all of the region, or `max_points` of them by the seed."""
        inside = np.flatnonzero(self.roi)
        if len(inside) <= self.settings.max_points:
            return self.roi
        drawn = np.random.default_rng(self.settings.seed).choice(inside, self.settings.max_points, replace=False)
        chosen = np.zeros(self.roi.size, bool)
        chosen[drawn] = True
        return chosen.reshape(self.roi.shape)

    def batches(
        self, inside: np.ndarray, view: View | None = None, show: Show | None = None
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """One pass: grid points `(b, n_nav)` and rows of what is seen of their patterns, `(b, values)` float64."""
        still, view = self.step.background, view or self.step
        device, shape = still.device, tuple(still.shape)
        exact = torch.device("cpu") if device.type == "mps" else device  # where float64 is
        nav = schema.navigation_dims(self.ds)
        blocks = Blocks(seen_patterns(in_chunks(self.ds[n.PATTERNS], nav), self.step.config), nav)
        size = max(1, min(self.settings.batch_size, BATCH_VALUES // math.prod(shape)))
        for done, block in enumerate(read_chosen(blocks, inside, shape, device=device), 1):
            points = block.points
            for start in range(0, len(points), size):
                stored = block.stored[start : start + size].to(device, non_blocking=True).float()
                yield points[start : start + size], view(stored).flatten(1).to(exact).double()
            if show:
                show(done, len(blocks.regions))

    def maps(self, kernel: Kernel, view: View | None = None, show: Show | None = None) -> dict[str, np.ndarray]:
        """What a kernel makes of points and rows, on the grid: float32, NaN outside the region."""
        found: dict[str, np.ndarray] = {}
        for points, rows in self.batches(self.roi, view, show):
            for name, values in kernel(points, rows).items():
                if name not in found:
                    found[name] = np.full((*self.roi.shape, *values.shape[1:]), np.nan, np.float32)
                found[name][tuple(points.T)] = values
        return found

    def components(self, k: int | None, view: View | None = None) -> tuple[Pca, Kernel]:
        """Principal components of what is seen of the sample, and what gives the scores of rows."""
        found = fit_pca(
            lambda: (rows for _, rows in self.batches(self.sample, view)),
            n_samples=int(self.sample.sum()),
            n_values=self.step.background.numel(),
            n_components=k,
            seed=self.settings.seed,
        )
        mean, axes = torch.from_numpy(found.mean), torch.from_numpy(found.components.T)

        def scores(_: np.ndarray, rows: torch.Tensor) -> dict[str, np.ndarray]:
            return {SCORES: ((rows - mean.to(rows.device)) @ axes.to(rows.device)).cpu().numpy()}

        return found, scores

    def find_background(self) -> None:
        """The mean pattern of the sample becomes the static background, where none is known yet."""
        still = self.step.background
        if bool(torch.isfinite(still).all()):
            return
        raw = (rows for _, rows in self.batches(self.sample, lambda batch: batch))
        self.step.fit(rows.view(-1, *still.shape) for rows in raw)
        if not bool(torch.isfinite(still).all()):
            raise DataError("patterns of the region hold NaN or infinite values; leave these points out of the region.")

    def image(self, rows: np.ndarray, long_name: str, **attrs: Any) -> tuple[Any, ...]:
        """Rows `(k, values)`, or one `(values,)`, as a variable over the signal dims, in detector pixels."""
        signal, seen = schema.signal_dims(self.ds), torch.from_numpy(rows).view(-1, *self.step.background.shape)
        whole = self.step.enlarged(seen).float().cpu().numpy()
        values = whole.reshape(*rows.shape[:-1], *(self.ds.sizes[dim] for dim in signal))
        return (*[n.COMPONENT] * (rows.ndim - 1), *signal), values, {"long_name": long_name, "units": "1", **attrs}

    def result(self, maps: dict[str, Any], **others: Any) -> xr.Dataset:
        """Maps over the navigation dims (arrays and attributes) and further variables, with the static background."""
        seen = {"preprocess": self.step.config.to_attrs()}
        units = str(self.ds[n.PATTERNS].attrs.get("units", "1"))
        still = self.step.background.cpu().numpy().ravel()
        others["background"] = self.image(still, "static background of the patterns", **seen | {"units": units})
        for name, (values, attrs) in maps.items():
            dims = (*schema.navigation_dims(self.ds), *[n.COMPONENT] * (values.ndim - self.roi.ndim))
            others[name] = dims, values, attrs | (seen if name == SCORES else {})
        return xr.Dataset(others)


def _pca(patterns: Patterns, show: Show | None) -> xr.Dataset:
    """Scores, components and what they explain."""
    found, scores = patterns.components(patterns.settings.n_components)
    facts = found.facts | {"n_fitted": int(patterns.sample.sum()), "total_variance": found.total}
    share = {"units": "1", "comment": "of the total variance of all values"}
    about = {"long_name": "principal component score", "units": "1", "method": "pca", **facts}
    cumulative = np.cumsum(found.ratio), {"long_name": "share of the variance explained up to here", **share}
    return patterns.result(
        {SCORES: (patterns.maps(scores, show=show)[SCORES], about)},
        components=patterns.image(found.components, "principal component, of unit length", **facts),
        mean=patterns.image(found.mean, "mean of the preprocessed patterns"),
        explained_variance=(n.COMPONENT, found.variance, {"long_name": "explained variance", "units": "1"}),
        explained_variance_ratio=(n.COMPONENT, found.ratio, {"long_name": "explained share of the variance", **share}),
        explained_variance_cumulative=(n.COMPONENT, *cumulative),
    )


def _nmf(patterns: Patterns, show: Show | None) -> xr.Dataset:
    """Amounts of the endmembers, the misfit, and the endmembers; with elements, both misfits count by their variance.

    Refuses negative values and endmembers that depend on each other.
    """
    roi, wanted = patterns.roi, patterns.settings.elements
    mean, variance = _statistics(patterns)
    chosen, described = _members(patterns)
    ends = _group_means(patterns, chosen)
    nmf.check_independent(ends @ ends.T)
    gram, share, others = ends @ ends.T, 1.0, {}
    if wanted > 0:
        content, of_ends, attrs = _elements(patterns, chosen)
        others[n.ELEMENTS] = (n.COMPONENT, n.ELEMENT), of_ends, attrs
        weight, share = wanted / (attrs["mean_variance"] * of_ends.shape[1]), 1 / (variance * ends.shape[1])
        gram = gram * share + weight * of_ends @ of_ends.T

    def scores(points: np.ndarray, rows: torch.Tensor) -> dict[str, np.ndarray]:
        axes = torch.from_numpy(ends).to(rows.device)
        products = (rows @ axes.T).cpu().numpy() * share
        known = np.ones(len(points), bool)
        if wanted > 0:
            further = weight * content[(slice(None), *points.T)].T @ of_ends.T
            known = np.isfinite(further).all(1)
            products += np.where(known[:, None], further, 0)
        amounts = nmf.nnls(gram, products)
        misfit = (rows - torch.from_numpy(amounts).to(rows.device) @ axes).square().mean(1).cpu().numpy()
        return {SCORES: np.where(known[:, None], amounts, np.nan), RESIDUAL: np.where(known, misfit, np.nan)}

    maps = patterns.maps(scores, show=show)
    misfit = maps[RESIDUAL][roi].astype("f8")
    known = np.isfinite(misfit)
    mse = float(misfit[known].mean()) if known.any() else float("nan")
    about: dict[str, Any] = {
        "long_name": "amount of the endmember",
        "units": "1",
        "method": "nmf",
        "mse": mse,
        "mean_variance": variance,
        "r2": 1 - mse / variance if variance > 0 else None,
        "r2_comment": "1 - sum of squared residuals / sum of squared distances from the mean pattern of the region",
        "n_fitted": int(known.sum()),
        "endmembers": described,
    }
    if wanted > 0:
        off = content[:, roi].T[known] - maps[SCORES][roi][known].astype("f8") @ of_ends
        about["mse_elements"] = float((off**2).mean())
        about["r2_elements"] = 1 - about["mse_elements"] / attrs["mean_variance"]
    words = {"comment": "mean of the reference points, in preprocessed units", "endmembers": described}
    about_misfit = {"long_name": "mean squared residual per detector pixel", "units": "1"}
    return patterns.result(
        {SCORES: (maps[SCORES], about), RESIDUAL: (maps[RESIDUAL], about_misfit)},
        components=patterns.image(ends, "endmember pattern", mean_variance=variance, **words),
        mean=patterns.image(mean, "mean of the preprocessed patterns"),
        **others,
    )


def _members(patterns: Patterns) -> nmf.Members:
    ds, roi, settings = patterns.ds, patterns.roi, patterns.settings
    if settings.endmembers:
        return nmf.at_coordinates(ds, roi, settings.endmembers)
    if settings.clusters:
        return nmf.of_classes(ds, roi, settings.clusters)
    if settings.n_components is None:
        raise UsageError("say how many endmembers to look for (n_components), or name them (endmembers, clusters).")
    dims = schema.navigation_dims(ds)
    if dims[-2:] != (n.Y, n.X):
        raise UsageError(f"reference windows need a scan over y and x; this one lies over {dims}. Use clusters.")

    def even(batch: torch.Tensor) -> torch.Tensor:
        """Patterns of equal brightness."""
        seen = patterns.step(batch).flatten(1)
        level = seen.mean(1, keepdim=True)
        return torch.where(level > 0, seen / torch.where(level > 0, level, 1.0), 0.0)

    _, scores = patterns.components(max(1, settings.n_components - 1), even)
    return nmf.reference_windows(ds, patterns.maps(scores, even)[SCORES].astype("f8"), settings.n_components)


def _group_means(patterns: Patterns, chosen: np.ndarray) -> np.ndarray:
    """Mean of what is seen at the points of each of k groups, which may overlap: `(k, *grid) -> (k, values)`."""
    total: Any = 0.0
    for points, rows in patterns.batches(np.any(chosen, axis=0)):
        weights = torch.from_numpy(chosen[(slice(None), *points.T)].astype(float)).to(rows.device)
        total += weights @ rows
    means: np.ndarray = total.cpu().numpy() / chosen.reshape(len(chosen), -1).sum(1)[:, None]
    return means


def _statistics(patterns: Patterns) -> tuple[np.ndarray, float]:
    """Mean `(values,)` and mean squared distance from it per value, of all points. Raises DataError below zero."""
    count, squares, low = 0, 0.0, np.inf
    for _, rows in patterns.batches(patterns.roi):
        if not count:
            pilot = rows.mean(0)
            total = torch.zeros_like(pilot)
        off = rows - pilot
        count += len(rows)
        total += off.sum(0)
        squares += float(off.square().sum())
        low = min(low, float(rows.min()))
    shift = total / count
    variance = squares / count - float(shift.square().sum())
    _check_amounts(low if np.isfinite(variance) else np.nan, "preprocessed patterns")
    return (pilot + shift).cpu().numpy(), variance / len(shift)


def _elements(patterns: Patterns, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Element maps `(element, *grid)`, the content of each endmember `(k, element)`, and what to say of it."""
    given = patterns.ds[n.ELEMENTS].transpose(n.ELEMENT, *schema.navigation_dims(patterns.ds))
    content = np.asarray(given.values, np.float64)
    inside = patterns.roi & np.isfinite(content).all(0)
    used = chosen & inside
    if not used.reshape(len(used), -1).any(1).all() or np.ptp(content[:, inside], axis=1).max() == 0:
        raise UsageError(
            "element values are missing at all points of an endmember, or constant in the region: they cannot be "
            "weighed in. Choose other endmembers, or set elements=0."
        )
    _check_amounts(float(content[:, inside].min()), "element maps")
    attrs = {
        "long_name": "element content of the endmember",
        "units": str(given.attrs.get("units", "1")),
        "weight": patterns.settings.elements,
        "mean_variance": float(content[:, inside].var(1).mean()),
        "n_missing": int((patterns.roi & ~inside).sum()),
    }
    return content, np.stack([content[:, part].mean(1) for part in used]), attrs


def _check_amounts(low: float, what: str) -> None:
    """Raise DataError for values that non-negative mixtures cannot give."""
    if not low >= 0:
        raise DataError(
            f"NMF explains by non-negative amounts, but {what} go down to {low:.4g}; use method='pca', store them "
            "without an offset below zero, or leave values that are not finite out of the region."
        )
