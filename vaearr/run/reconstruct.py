"""Reconstruct samples of a store, or single files, and compare them with their inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import Block
from vaearr.computing.progress import Progress, showing
from vaearr.config import ReconstructConfig, RoiConfig
from vaearr.errors import NoInputError, UsageError
from vaearr.run import Run
from vaearr.run.evaluation import EXAMPLE, LONG_NAMES, METRIC, Evaluation
from vaearr.run.sample_files import SampleFiles, inside_name
from vaearr.run.step import check_name, is_stored, publish, replaced, step_recipe
from vaearr.run.stream import (
    BlockResult,
    chosen_blocks,
    example_points,
    part_map,
    write_blocks,
)
from vaearr.run.train import resolve_roi
from vaearr.sources.single import output_suffix, read_single, write_sample
from vaearr.store import VariableSpec, pending, publish_staged, staged_variables
from vaearr.store.folders import staged
from vaearr.training import fingerprint

FILE = "file"
RESERVED = (n.RESERVED | {n.SHEETS, n.LATENT_STATISTICS, "layers"}) - {n.RECONSTRUCTION}
RESERVED_BEGINNINGS = ("association", "partitions", f"{n.CLUSTERS}_", *n.OF_LATER_RUNS)


def reconstruct_samples(
    run: Run,
    config: ReconstructConfig,
    *,
    roi: xr.DataArray | RoiConfig | None,
    folder: str | Path | None,
    overwrite: bool,
    progress: Progress,
) -> xr.Dataset:
    """Reconstruct the samples of a store block by block, see `Run.reconstruct`."""
    check_name(config.name, RESERVED, RESERVED_BEGINNINGS)
    _check_settings(run, config, has_files=folder is not None)
    if isinstance(roi, RoiConfig):
        config = config.replace(roi=roi)
    chosen = _chosen_points(run, config, roi)
    inputs = {
        **run.result_attrs,
        "points": fingerprint(chosen.values),
        "data": run.manifest["data"],
    }
    recipe = step_recipe(run, config, [n.PATTERNS, n.run_name(n.ROI, run.name)], inputs)
    variable = n.run_name(config.name, run.name)
    variables = [variable] if config.out else []
    exists = is_stored(run, recipe, variables=variables, tables=[config.name], overwrite=overwrite)
    if exists and folder is None:
        return run.table(config.name)

    evaluation = Evaluation(run, config, chosen.shape)
    provenance = {n.PROVENANCE: recipe.stamp()}
    with ExitStack() as stack:
        files = None
        if folder is not None:
            files = SampleFiles(run.ds, chosen, stack.enter_context(staged(Path(folder))))
        n_blocks, blocks = chosen_blocks(run, chosen)
        results = _reconstruct_blocks(evaluation, blocks, variable, files)
        if exists or not variables:
            with showing(progress, "reconstructing") as show:
                for done, _ in enumerate(results, 1):
                    show(done, n_blocks)
            if exists:
                return run.table(config.name)
            table = _table(evaluation, chosen).assign_attrs(provenance)
            publish(run, tables={config.name: table})
        else:
            dims = (*schema.navigation_dims(run.ds), *schema.signal_dims(run.ds))
            attrs = {"long_name": LONG_NAMES["reconstruction"], **evaluation.scale, **provenance}
            staging = stack.enter_context(
                staged_variables(
                    run.path,
                    {variable: VariableSpec(dims=dims, attrs=attrs)},
                    coords=xr.Dataset(),
                    request={"name": variable, **recipe.as_attrs()},
                    replacing=replaced(run, variables=variables),
                )
            )
            unwritten = pending(staging)  # all blocks are evaluated again
            missing = (result for result in results if result.region in unwritten)
            write_blocks(staging, missing, what="reconstructing", progress=progress)
            table = _table(evaluation, chosen).assign_attrs(provenance)
            old = replaced(run, tables=[config.name])
            publish_staged(staging, run=run.name, tables={config.name: table}, replacing=old)
    return table


def _table(evaluation: Evaluation, chosen: xr.DataArray) -> xr.Dataset:
    """Metrics of the chosen samples of a store, with examples."""
    run = evaluation.run
    config = evaluation.config
    coords = {dim: run.ds[dim] for dim in schema.navigation_dims(run.ds)}
    table = evaluation.table(coords, int(chosen.sum()), run.variable(n.SPLIT).load())
    points = example_points(run, chosen, config.examples, config.seed)
    if len(points):
        table = evaluation.with_examples(table, points, run.patterns_at(points))
    return table


def example_reconstructions(run: Run, count: int, seed: int) -> xr.Dataset:
    """Reconstruct some validation samples, see `Run.example_reconstructions`."""
    run.check_patterns()
    config = ReconstructConfig(run=run.name, units="preprocessed")
    chosen = part_map(run, "all")
    points = example_points(run, chosen, count, seed)
    if not len(points):
        raise NoInputError(
            f"run {run.name!r} of {run.path} has no scan point in its split; train it again."
        )
    patterns = run.patterns_at(points)
    evaluation = Evaluation(run, config, chosen.shape)
    evaluation.add(points, patterns)
    coords = {dim: run.ds[dim] for dim in schema.navigation_dims(run.ds)}
    return evaluation.with_examples(evaluation.table(coords, len(points)), points, patterns)


def reconstruct_files(
    run: Run,
    config: ReconstructConfig,
    paths: Sequence[Path],
    *,
    folder: str | Path | None,
    progress: Progress,
) -> xr.Dataset:
    """Reconstruct single files, see `Run.reconstruct`."""
    _check_files(paths, config, has_files=folder is not None)
    _check_settings(run, config, has_files=folder is not None)
    ds = run.ds
    evaluation = Evaluation(run, config, (len(paths),))
    shape = [ds.sizes[dim] for dim in schema.signal_dims(ds)]
    examples = []
    with ExitStack() as stack:
        target = None
        if folder is not None:
            target = stack.enter_context(staged(Path(folder)))
        show = stack.enter_context(showing(progress, "reconstructing"))
        for number, path in enumerate(paths):
            sample = read_single(ds, path)
            decoded = evaluation.add(np.array([[number]]), np.stack([sample.values]))
            if target is not None:
                file = target / f"{inside_name(path.name)}{output_suffix(ds)}"
                dtype = ds[n.PATTERNS].dtype
                write_sample(file, decoded.reshape(shape), dtype, geometry=sample.geometry)
            if number < config.examples:
                examples.append(sample.values)
            show(number + 1, len(paths))
    coords = {FILE: xr.DataArray([str(path) for path in paths], dims=FILE)}
    table = evaluation.table(coords, len(paths))
    if examples:
        numbers = np.arange(len(examples))[:, None]
        table = evaluation.with_examples(table, numbers, np.stack(examples))
        names = [path.name for path in paths[: len(examples)]]
        table.coords[f"{EXAMPLE}_{FILE}"] = EXAMPLE, names
    return table


def _check_files(paths: Sequence[Path], config: ReconstructConfig, *, has_files: bool) -> None:
    """Raise UsageError for settings of a store's samples, and for files of the same name."""
    default = ReconstructConfig()
    for name in ("roi", "part", "out", "name"):
        if getattr(config, name) != getattr(default, name):
            raise UsageError(
                "part, roi, name and variable are for a store's own samples; leave them out for "
                "single files."
            )
    counts = Counter(inside_name(path.name).lower() for path in paths)
    name, count = counts.most_common(1)[0]
    if has_files and count > 1:
        raise UsageError(
            f"two files would both be written as {name!r}; rename one, or write them separately."
        )


def _check_settings(run: Run, config: ReconstructConfig, *, has_files: bool) -> None:
    """Raise UsageError for settings that do not fit each other, the data or the network."""
    run.check_patterns()
    is_stored_units = config.units == "stored"
    is_integer = run.ds[n.PATTERNS].dtype.kind in "iu"
    if config.data_range == "dtype" and not (is_stored_units and is_integer):
        raise UsageError(
            "data_range 'dtype' is for whole numbers in stored units; give a number or 'sample'."
        )
    if isinstance(config.data_range, float) and config.data_range <= 0:
        raise UsageError(f"data_range is {config.data_range}; it must be a positive number.")
    if (config.lpips_weights is None) != (config.lpips_linear is None):
        raise UsageError(
            "LPIPS takes two files: lpips_weights, of the feature network, and lpips_linear."
        )
    if not is_stored_units and (config.lpips_weights or has_files):
        raise UsageError(
            "LPIPS and files of reconstructions are in stored units; remove units='preprocessed'."
        )


def _chosen_points(
    run: Run, config: ReconstructConfig, roi: xr.DataArray | RoiConfig | None
) -> xr.DataArray:
    """The samples to reconstruct, as a boolean map."""
    chosen = run.variable(n.ROI).load()
    region = config.roi if roi is None else roi
    if region is not None:
        chosen = resolve_roi(run.ds, region)
    if config.part != "all":
        chosen = chosen & part_map(run, config.part)
    if not chosen.any():
        part = f"the {config.part} part of run {run.name!r}"
        raise NoInputError(f"no sample is left to reconstruct: {part} holds none in this region.")
    return chosen.transpose(*schema.navigation_dims(run.ds))


def _reconstruct_blocks(
    evaluation: Evaluation, blocks: Iterable[Block], variable: str, files: SampleFiles | None
) -> Iterator[BlockResult]:
    """Reconstructions of the chosen points of each block, which are also written to files."""
    for block in blocks:
        values = {}
        if len(block.points):
            values[variable] = evaluation.add(block.points, block.stored)
            if files is not None:
                files.write(block.points, values[variable])
        yield BlockResult(block.region, block.inside, values)


def metrics_csv(table: xr.Dataset) -> str:
    """The metrics of all reconstructed files or samples as a CSV table."""
    metrics: list[str] = [str(name) for name in table[METRIC].values]
    dims = list(table[metrics[0]].dims)
    rows = table[metrics].to_dataframe(dim_order=dims)[metrics].astype(float)
    return str(rows.dropna(subset=metrics[:1]).to_csv(lineterminator="\n"))
