"""Reconstruct samples of a store, and compare them with their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import Block
from vaearr.computing.progress import Progress, showing
from vaearr.config import ReconstructConfig, RoiConfig
from vaearr.errors import NoInputError, UsageError
from vaearr.recipe import Recipe
from vaearr.run import Run
from vaearr.run.evaluation import LONG_NAMES, METRIC, Evaluation
from vaearr.run.sample_files import SampleFiles
from vaearr.run.step import check_name, is_stored, step_recipe, store_result, to_replace
from vaearr.run.stream import (
    BlockResult,
    chosen_blocks,
    example_points,
    part_map,
    write_blocks,
)
from vaearr.run.train import resolve_roi
from vaearr.store import VariableSpec, finish_variables, pending, stage_variables
from vaearr.store.folders import output_folder
from vaearr.training import array_sha256

RESERVED = (n.RESERVED | {n.SHEETS, n.LATENT_STATISTICS, "layers"}) - {n.RECONSTRUCTION}
RESERVED_BEGINNINGS = ("association", "partitions", f"{n.CLUSTERS}_", *n.PREFIXES_OF_RUNS)


def reconstruct(
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
        "points": array_sha256(chosen.values),
        "data": run.manifest["data"],
    }
    recipe = step_recipe(run, config, [n.PATTERNS, n.run_name(n.ROI, run.name)], inputs)
    variable = n.run_name(config.name, run.name)
    variables = [variable] if config.out else []
    exists = is_stored(run, recipe, variables=variables, tables=[config.name], overwrite=overwrite)
    if exists and folder is None:
        return run.table(config.name)
    evaluation = Evaluation(run, config, chosen)
    with ExitStack() as stack:
        files = None
        if folder is not None:
            files = SampleFiles(run.ds, chosen, stack.enter_context(output_folder(Path(folder))))
        n_blocks, blocks = chosen_blocks(run, chosen)
        results = _reconstruct_blocks(evaluation, blocks, variable, files)
        if variables and not exists:
            return _write_variable(evaluation, variable, results, recipe, progress)
        with showing(progress, "reconstructing") as show:
            for done, _ in enumerate(results, 1):
                show(done, n_blocks)
        if exists:
            return run.table(config.name)
        table = evaluation.table().assign_attrs({n.PROVENANCE: recipe.stamp()})
        store_result(run, tables={config.name: table})
    return table


def _write_variable(
    evaluation: Evaluation,
    variable: str,
    results: Iterable[BlockResult],
    recipe: Recipe,
    progress: Progress,
) -> xr.Dataset:
    """Write reconstructions as a variable, publish it with the table of metrics, and return that."""
    run = evaluation.run
    provenance = {n.PROVENANCE: recipe.stamp()}
    name = evaluation.config.name
    dims = (*schema.navigation_dims(run.ds), *schema.signal_dims(run.ds))
    attrs = {"long_name": LONG_NAMES["reconstruction"], **evaluation.scale, **provenance}
    old = to_replace(run, variables=[variable])
    with stage_variables(
        run.path,
        {variable: VariableSpec(dims=dims, attrs=attrs)},
        coords=xr.Dataset(),
        request={"name": variable, **recipe.as_attrs()},
        replacing=old,
    ) as staged:
        unwritten = pending(staged)  # all blocks are evaluated again
        missing = (result for result in results if result.region in unwritten)
        write_blocks(staged, unwritten, missing, what="reconstructing", progress=progress)
        table = evaluation.table().assign_attrs(provenance)
        old += to_replace(run, tables=[name])
        finish_variables(staged, run=run.name, tables={name: table}, replacing=old)
    return table


def example_reconstructions(run: Run, count: int, seed: int) -> xr.Dataset:
    """Reconstruct some validation samples, see `Run.example_reconstructions`."""
    run.check_patterns()
    points = example_points(run, part_map(run, "all"), count, seed)
    if not len(points):
        raise NoInputError(
            f"run {run.name!r} of {run.path} has no scan point in its split; train it again."
        )
    chosen = xr.zeros_like(run.variable(n.SPLIT).load(), bool)
    chosen.values[tuple(points.T)] = True
    config = ReconstructConfig(run=run.name, units="preprocessed", examples=count, seed=seed)
    evaluation = Evaluation(run, config, chosen)
    evaluation.add(points, run.patterns_at(points))
    return evaluation.table()


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
    """Write the metrics of all reconstructed samples as text.

    Parameters
    ----------
    table : xarray.Dataset
        Result of `Run.reconstruct`.

    Returns
    -------
    str
        A CSV table, one row for each sample.
    """
    metrics: list[str] = [str(name) for name in table[METRIC].values]
    rows = table[metrics].to_dataframe(dim_order=list(table[metrics[0]].dims))
    rows = rows[metrics].astype(float).dropna(subset=metrics[:1])
    return str(rows.to_csv(lineterminator="\n"))
