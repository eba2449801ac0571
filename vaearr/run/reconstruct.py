"""A whole store through a model and back: every sample reconstructed, judged, and on request written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import grid, schema
from vaearr import names as n
from vaearr.artifacts import check_fits, load_model
from vaearr.blocks import Blocks, read_chosen
from vaearr.config import ReconstructConfig, RoiConfig, resolved, settings_as_keywords
from vaearr.errors import NoInputError, UsageError
from vaearr.provenance import nested
from vaearr.quality import compression_ratio
from vaearr.recipe import Recipe, is_made
from vaearr.run import Run, open_run
from vaearr.run.draw import scale_attrs
from vaearr.run.files import reconstruct_files  # noqa: F401
from vaearr.run.quality_of import LONG_NAMES, check_settings, judge_of, judging_attrs, picture_attrs, units_of
from vaearr.run.stream import write_chosen
from vaearr.run.summary import PARTS, file_lines, metrics_csv, reconstruction_lines, summarise  # noqa: F401
from vaearr.run.written import SampleWriter, sample_writer
from vaearr.sources.single import Kept
from vaearr.store import (
    Staging,
    VariableSpec,
    check_patterns,
    has_table,
    open_store,
    open_table,
    pending,
    publish_staged,
    read_block,
    recover,
    run_manifest,
    shown,
    staged_variables,
    write_table,
)
from vaearr.store.remove import removable, remove
from vaearr.training import fingerprint

EXAMPLE = "example"
TABLES = {n.SHEETS, n.LATENT_STATISTICS, "layers"}
TABLE_NAMES = ("association", "partitions", f"{n.CLUSTERS}_")  # how tables of other analyses of a run begin


@dataclass
class Made:
    """What becomes of the samples: their numbers on the grid, and the pictures that are kept."""

    maps: dict[str, np.ndarray] = field(default_factory=dict)
    pictures: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


@settings_as_keywords(ReconstructConfig)
def reconstruct_store(
    store: str | Path | Run,
    run: str | None = None,
    *,
    out: str | None = None,
    roi: xr.DataArray | RoiConfig | None = None,
    config: ReconstructConfig | None = None,
    files: str | Path | None = None,
    dtype: Kept = "float32",
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    on_block: Callable[[int, int], None] | None = None,
    **given: Any,
) -> xr.Dataset:
    """Reconstruct the samples of a store (posterior mean, decoded), shard by shard, and judge each against its input.

    Units are those of the stored patterns: what the preprocessing took from a pattern (its mean and scale, its dynamic
    background) is given back to it, so only the patterns' shape passes the network; with `units="preprocessed"` input
    and reconstruction are compared as the network sees them. Both always have one size and one scale.

    Returns, and keeps as table `config.name` of `/runs/<run>`: `mse`, `mae`, `psnr` (dB) and, where every side of a
    sample is 11 or more, `ssim` over the navigation dims, NaN where nothing was reconstructed; `summary (part, metric,
    statistic)` with `count (part, metric)`, for all points and for those of the run's split; `input` and
    `reconstruction (example, …)` of some samples. Attributes: settings, units, `data_range`, `compression_ratio`.
    out="variable" also writes the reconstructions as float32 variable (`reconstruction`; of a run b
    `reconstruction_b`); nothing is visible before all is written.

    files: folder for a file of each reconstruction, see `vaearr.run.written`; dtype: see `reconstruct_files`.
    roi: map or conditions instead of the run's region. The same call again returns what was made; `overwrite` replaces
    what was made otherwise. Raises ExistsError where the name holds anything else, NoInputError for a run or part that
    is not there, RoiError for an empty region, UsageError for settings that do not fit, DataError for a damaged store
    or model.
    """
    conditions = {"roi": roi} if isinstance(roi, RoiConfig) else {}
    settings = resolved(ReconstructConfig, config, given | conditions | ({"out": out} if out else {}) | {"run": run})
    opened = open_run(store, settings.run, device=settings.device)
    settings = settings.replace(run=opened.name)
    recover(opened.path)
    check_patterns(opened.path)
    _check(opened, settings)
    chosen = _points(opened, settings, roi if isinstance(roi, xr.DataArray) else None)
    recipe, variable = _recipe(opened, settings, chosen), n.run_name(settings.name, settings.run)
    known, has_variable, replacing = _known(opened, settings, recipe, overwrite=overwrite, say=say)
    if known is not None and files is None and (settings.out is None or has_variable):
        return known
    with ExitStack() as stack:
        staging = None
        if settings.out == "variable" and not has_variable:  # after an interruption the table alone is missing
            specs = {variable: _spec(opened, settings, recipe)}
            request = {"name": variable, **recipe.as_attrs()}
            staging = stack.enter_context(
                staged_variables(opened.path, specs, coords=xr.Dataset(), request=request, replacing=replacing)
            )
        writing = sample_writer(opened.ds, chosen, Path(files), settings.units, dtype) if files is not None else None
        write = stack.enter_context(writing) if writing is not None else None
        made = _stream(opened, settings, chosen, staging, write, on_block)
        if staging is not None:
            publish_staged(staging)
        elif replacing:
            remove(opened.path, variables=replacing)
    if known is not None:
        return known
    table = _table(opened, settings, chosen, made).assign_attrs({n.PROVENANCE: recipe.stamp()})
    write_table(opened.path, settings.run, settings.name, table, replace=True)
    return table


def _check(opened: Run, settings: ReconstructConfig) -> None:
    taken = (n.RESERVED | TABLES) - {n.RECONSTRUCTION}
    if settings.name in taken or settings.name.startswith((*n.OF_LATER_RUNS, *TABLE_NAMES)):
        raise UsageError(f"{settings.name!r} has a meaning of its own; choose another name with name='…' (--name).")
    if not n.is_valid_name(settings.name):
        raise UsageError(f"{settings.name!r} cannot be a name; use letters, digits and _, a letter first.")
    check_settings(opened, settings)


def _points(opened: Run, settings: ReconstructConfig, roi: xr.DataArray | None) -> xr.DataArray:
    """The samples that are meant, as a boolean map."""
    ds, run = opened.ds, opened.name
    if roi is not None:
        chosen = grid.check_map(ds, roi)
        if n.PRESENT in ds:
            chosen = chosen & ds[n.PRESENT].load()
    elif settings.roi is not None:
        chosen = grid.roi(ds, config=settings.roi)
    else:
        chosen = ds[n.run_name(n.ROI, run)].load()
    if settings.part != "all":
        chosen = chosen & (ds[n.run_name(n.SPLIT, run)].load() == PARTS[settings.part])
    chosen = chosen.transpose(*schema.navigation_dims(ds))
    if not chosen.any():
        raise NoInputError(
            f"no sample is left to reconstruct: the {settings.part} part of run {run!r} holds none in this region."
        )
    return chosen


def _recipe(opened: Run, settings: ReconstructConfig, chosen: xr.DataArray) -> Recipe:
    """What decides the numbers."""
    return Recipe(settings, {**opened.attrs, "points": fingerprint(chosen.values), "data": opened.manifest["data"]})


def _known(
    opened: Run,
    settings: ReconstructConfig,
    recipe: Recipe,
    *,
    overwrite: bool,
    say: Callable[[str], None] | None,
) -> tuple[xr.Dataset | None, bool, list[str]]:
    """The table made by this recipe, if there is one, whether the variable is there too, and what is to be replaced."""
    name, variable, known = settings.name, n.run_name(settings.name, settings.run), None
    if has_table(opened.path, opened.name, name):
        found = open_table(opened.path, opened.name, name)
        there = f"run {opened.name!r} of {shown(opened.path)} already holds {name!r}"
        if is_made(there, nested(found.attrs, n.PROVENANCE), recipe, overwrite=overwrite, say=say):
            known = found
    has_variable = variable in opened.ds.variables
    if has_variable and (settings.out == "variable" or (known is None and overwrite)):
        made = nested(opened.ds[variable].attrs, n.PROVENANCE)
        there = f"{shown(opened.path)} already holds {variable!r}"
        if not is_made(there, made, recipe, overwrite=overwrite):
            return known, False, removable(opened.path, variables=[variable])
    return known, has_variable, []


def _spec(opened: Run, settings: ReconstructConfig, recipe: Recipe) -> VariableSpec:
    ds = opened.ds
    attrs = {
        "long_name": "decoded posterior mean",
        **scale_attrs(opened, stored=settings.units == "stored"),
        n.PROVENANCE: recipe.stamp(),
    }
    return VariableSpec(dims=(*schema.navigation_dims(ds), *schema.signal_dims(ds)), attrs=attrs)


def _stream(
    opened: Run,
    settings: ReconstructConfig,
    chosen: xr.DataArray,
    staging: Staging | None,
    write: SampleWriter | None,
    on_block: Callable[[int, int], None] | None,
) -> Made:
    """All samples, block by block; a block that an interrupted call has written is judged again but not written."""
    made, wanted, judge = Made(), _example_points(opened, settings, chosen), judge_of(opened, settings)
    batch_size = opened.model.fitting(settings.batch_size)
    blocks = Blocks(opened.ds[n.PATTERNS], schema.navigation_dims(opened.ds))
    unwritten = pending(staging) if staging is not None else []
    for i, block in enumerate(read_chosen(blocks, chosen.values, opened.model.input_shape), 1):
        points, stored = block.points, block.stored
        decoded = []
        for start in range(0, len(stored), batch_size):
            part = slice(start, start + batch_size)
            target, recon, numbers = judge(stored[part])
            where = tuple(points[part].T)
            for name, values in numbers.items():
                made.maps.setdefault(name, np.full(chosen.shape, np.nan, np.float32))[where] = values.cpu().numpy()
            for k, point in enumerate(map(tuple, points[part].tolist())):
                if point in wanted:
                    made.pictures[point] = (target[k].cpu().numpy(), recon[k].cpu().numpy())
            if staging is not None:
                decoded.append(recon.cpu().numpy())
            if write is not None:
                write(points[part], recon.cpu().numpy())
        if staging is not None and block.region in unwritten:
            write_chosen(staging, block, {name: np.concatenate(decoded) for name in staging.arrays if decoded})
        if on_block:
            on_block(i, len(blocks.regions))
    return made


def _example_points(opened: Run, settings: ReconstructConfig, chosen: xr.DataArray) -> list[tuple[int, ...]]:
    """Points whose pictures are kept, row-major: a seeded choice, of the validation part where there is one."""
    held_out = chosen.values & (opened.ds[n.run_name(n.SPLIT, opened.name)].load().values == n.VALIDATION)
    points = np.argwhere(held_out if held_out.any() else chosen.values)
    picked = np.random.default_rng(settings.seed).permutation(len(points))[: settings.examples]
    return [tuple(point) for point in points[np.sort(picked)].tolist()]


def _table(opened: Run, settings: ReconstructConfig, chosen: xr.DataArray, made: Made) -> xr.Dataset:
    ds, nav = opened.ds, schema.navigation_dims(opened.ds)
    scale = scale_attrs(opened, stored=settings.units == "stored")
    maps = {
        name: (nav, values, {"long_name": LONG_NAMES[name], "units": units_of(name, scale["units"])})
        for name, values in made.maps.items()
    }
    table = xr.Dataset(maps, coords={dim: ds[dim] for dim in nav})
    table = table.merge(summarise(table, ds[n.run_name(n.SPLIT, opened.name)].load().transpose(*nav).values))
    points = sorted(made.pictures)
    if points:
        dims = (EXAMPLE, *schema.signal_dims(ds))
        about = picture_attrs(opened) | scale
        table = table.assign_coords({dim: ds[dim] for dim in dims[1:] if dim in ds.coords})
        shape = (len(points), *(ds.sizes[d] for d in dims[1:]))
        for k, (name, text) in enumerate((("input", "pattern"), ("reconstruction", "decoded posterior mean"))):
            values = np.stack([made.pictures[point][k] for point in points]).reshape(shape)
            table[name] = (dims, values, {"long_name": text, **about})
        for i, dim in enumerate(nav):
            table.coords[f"{EXAMPLE}_{dim}"] = (EXAMPLE, ds[dim].values[[p[i] for p in points]], ds[dim].attrs)
        for name in made.maps:
            picked = made.maps[name][tuple(np.array(points).T)]
            table[f"{EXAMPLE}_{name}"] = (EXAMPLE, picked, table[name].attrs)
    return table.assign_attrs(
        **opened.attrs,
        n=int(chosen.sum()),
        **scale,
        compression_ratio=compression_ratio(opened.model.input_shape, ds[n.PATTERNS].dtype, opened.model.latent_shape),
        **judging_attrs(opened, settings),
    )


def reconstruct(store: str | Path, *, run: str = n.DEFAULT_RUN, n_samples: int = 8, seed: int = 0) -> xr.Dataset:
    """Patterns as the network sees them and as it decodes them, for scan points spread over the validation part.

    Variables `input` and `reconstruction`, `(sample, [channel,] dy, dx)`, in preprocessed units; the navigation
    coordinates of each sample as coordinates of `sample`. A seeded choice; posterior mean.
    """
    ds = open_store(store, chunks=None)
    manifest = run_manifest(store, run)
    model = load_model(store, run)
    check_fits(ds, manifest, model)
    parts = ds[n.run_name(n.SPLIT, run)].load()
    candidates = np.argwhere(parts.values == n.VALIDATION)
    if not len(candidates):
        candidates = np.argwhere(parts.values == n.TRAIN)
    if not len(candidates):
        raise NoInputError(f"run {run!r} of {store} has no scan point in its split; train it again.")
    if n_samples < 1:
        raise UsageError(f"n_samples is {n_samples}; it must be at least 1.")
    chosen = np.random.default_rng(seed).permutation(len(candidates))[:n_samples]
    points = candidates[np.sort(chosen)]
    places = [{str(dim): slice(i, i + 1) for dim, i in zip(parts.dims, map(int, p), strict=True)} for p in points]
    stored = np.concatenate([read_block(ds[n.PATTERNS], place) for place in places])
    raw = torch.from_numpy(stored.reshape(-1, *model.input_shape))
    shape = (len(points), *stored.shape[parts.ndim :])
    with torch.inference_mode():
        seen = model.preprocess(raw)
    decoded = torch.cat([model.decode_batch(model.encode_batch(s)[0]) for s in raw.split(model.fitting(len(raw)))])
    coords = {dim: (n.SAMPLE, ds[dim].values[points[:, i]], ds[dim].attrs) for i, dim in enumerate(parts.dims)}
    dims = (n.SAMPLE, *schema.signal_dims(ds))
    return xr.Dataset(
        {
            "input": (dims, seen.numpy().reshape(shape), {"long_name": "pattern as the network sees it"}),
            "reconstruction": (dims, decoded.numpy().reshape(shape), {"long_name": "decoded posterior mean"}),
        },
        coords=coords if n.SAMPLE not in parts.dims else {n.SAMPLE: ds[n.SAMPLE].isel({n.SAMPLE: points[:, 0]})},
        attrs={"run": run, "weights_sha256": manifest["weights_sha256"], "seed": seed},
    )
