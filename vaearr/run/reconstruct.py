"""Samples through a model and back: whole stores, single files, a few to look at; judged, and on request written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import Block
from vaearr.computing.progress import Progress, showing
from vaearr.config import PerceptualConfig, ReconstructConfig, RoiConfig, resolved, settings_as_keywords
from vaearr.errors import NoInputError, UsageError
from vaearr.models.preprocess import undo, value_range
from vaearr.models.quality import SSIM_SIDE, can_ssim, compression_ratio, image_metrics
from vaearr.recipe import Recipe, is_made, nested
from vaearr.run import Run, StoreOrRun, open_run
from vaearr.run.draw import scale_attrs
from vaearr.run.stream import PARTS, BlockResult, chosen_blocks, example_points, through, write_blocks
from vaearr.run.train import resolve_roi
from vaearr.sources.nifti import ORIENTATION
from vaearr.sources.single import NIFTI, output_suffix, read_single, stored_affine, stored_geometry, write_sample
from vaearr.store import (
    VariableSpec,
    check_inputs,
    has_table,
    open_table,
    pending,
    publish_staged,
    staged_variables,
    write_results,
)
from vaearr.store.folders import staged
from vaearr.store.remove import removable
from vaearr.training import fingerprint

EXAMPLE, FILE, PART, METRIC, STATISTIC = "example", "file", "part", "metric", "statistic"
ENDINGS = (".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy")
TABLES = {n.SHEETS, n.LATENT_STATISTICS, "layers"}
TABLE_NAMES = ("association", "partitions", f"{n.CLUSTERS}_")  # how tables of other analyses of a run begin
STATISTICS = ("mean", "std", "min", "median", "max")
PICTURES = {"input": "pattern", "reconstruction": "decoded posterior mean"}
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

SampleWriter = Callable[[np.ndarray, np.ndarray], None]  # of points (k, navigation) and their samples (k, …)


@settings_as_keywords(ReconstructConfig)
def reconstruct_store(
    store: StoreOrRun,
    run: str | None = None,
    *,
    out: str | None = None,
    roi: xr.DataArray | RoiConfig | None = None,
    config: ReconstructConfig | None = None,
    files: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = True,
    **given: Any,
) -> xr.Dataset:
    """Reconstruct the samples of a store, block by block, and measure how close each is to its input.

    Posterior means are decoded. What the preprocessing took from a pattern (its mean and scale, its
    dynamic background) is given back to it, so that only the patterns' shape passes the network.
    The same call again returns the stored table.

    Parameters
    ----------
    store
        Path of the store, a Dataset that was opened from it, or a Run.
    run
        Name of the run.
    out
        ``"variable"`` also writes the reconstructions as the float32 variable ``reconstruction``
        (of a run b ``reconstruction_b``).
    roi
        Map or conditions, instead of the run's region.
    config
        Settings; keywords replace single ones.
    files
        Folder for a file of each reconstruction: PNG, NIfTI or .npy in stored units, in the size and
        affine of its source. Collections name them after their files, scans after the point.
    overwrite
        Replace a table or variable that was created with different settings.
    progress
        False shows no progress; a function is called with blocks done, blocks in all and a text.

    Returns
    -------
    xarray.Dataset
        Kept as table `config.name` of the run. ``mse``, ``mae``, ``psnr`` (dB) and, where every side
        of a sample is 11 or more, ``ssim`` over the navigation dims, NaN where nothing was
        reconstructed; ``summary (part, metric, statistic)`` and ``count (part, metric)`` for all
        points and the parts of the split; ``input`` and ``reconstruction (example, …)``.

    Raises
    ------
    ExistsError
        If the name holds anything else.
    NoInputError
        If the run or part does not exist.
    RoiError
        If the region is empty.
    UsageError
        If settings do not fit.
    DataError
        If the store or the model is damaged.
    """
    settings = _settings(config, given, run=run, roi=roi, out=out)
    opened = open_run(store, settings.run, device=settings.device)
    settings = settings.replace(run=opened.name)
    path, name = opened.path, settings.name
    fingerprints = check_inputs(path, [n.PATTERNS, n.run_name(n.ROI, opened.name)])
    _check_name(name)
    _check(opened, settings, has_files=files is not None)
    chosen = _points(opened, settings, roi if isinstance(roi, xr.DataArray) else None)
    inputs = {**opened.attrs, "points": fingerprint(chosen.values), "data": opened.manifest["data"]}
    recipe = Recipe(settings, inputs, fingerprints)
    variable = n.run_name(name, opened.name)

    table = _existing_table(opened, name, recipe, overwrite=overwrite)
    has_variable = variable in opened.ds.variables
    replacing: list[str] = []
    if has_variable and (settings.out or (overwrite and table is None)):
        stored = nested(opened.ds[variable].attrs, n.PROVENANCE)
        has_variable = is_made(f"{path} already holds {variable!r}", stored, recipe, overwrite=overwrite)
        if not has_variable:
            replacing = removable(path, [variable])
    writes_variable = settings.out is not None and not has_variable
    if table is not None and files is None and not writes_variable:
        return table

    examples = example_points(opened, chosen, settings.examples, settings.seed)
    evaluation = Evaluation(opened, settings, chosen.shape, examples)
    with ExitStack() as stack:
        write = None
        if files is not None:
            write = _writer(opened.ds, chosen, stack.enter_context(staged(Path(files))))
        n_blocks, blocks = chosen_blocks(opened, chosen)
        results = _reconstruct_blocks(evaluation, blocks, variable, write)
        staging = None
        if writes_variable:
            specs = _variable_spec(opened, evaluation, recipe, variable)
            request = {"name": variable, **recipe.as_attrs()}
            staging = stack.enter_context(
                staged_variables(path, specs, coords=xr.Dataset(), request=request, replacing=replacing)
            )
            left = pending(staging)  # all blocks are evaluated again; those written already stay
            missing = (result for result in results if result.region in left)
            write_blocks(staging, missing, what="reconstructing", progress=progress)
        else:
            show = stack.enter_context(showing(progress, "reconstructing"))
            for done, _ in enumerate(results, 1):
                show(done, n_blocks)
        tables = {}
        replaced_tables = []
        if table is None:
            coords = {dim: opened.ds[dim] for dim in schema.navigation_dims(opened.ds)}
            table = evaluation.table(coords, int(chosen.sum()), opened.own(n.SPLIT).load())
            table.attrs[n.PROVENANCE] = recipe.stamp()
            tables[name] = table
            replaced_tables.append(f"{n.RUNS}/{opened.name}/{name}")
        if staging is not None:
            publish_staged(staging, run=opened.name, tables=tables, replacing=replaced_tables)
        elif tables:
            write_results(path, run=opened.name, tables=tables, replacing=[*replaced_tables, *replacing])
    return table


def _settings(
    config: ReconstructConfig | None,
    given: Mapping[str, Any],
    *,
    run: str | None,
    roi: xr.DataArray | RoiConfig | None,
    out: str | None,
) -> ReconstructConfig:
    """The settings of a call; a region that is given as a map is none of them."""
    changes = {**given, "run": run}
    if isinstance(roi, RoiConfig):
        changes["roi"] = roi
    if out:
        changes["out"] = out
    return resolved(ReconstructConfig, config, changes)


def _check_name(name: str) -> None:
    """Raise UsageError for a name that the table and the variable cannot have."""
    is_taken = name in (n.RESERVED | TABLES) - {n.RECONSTRUCTION}
    if is_taken or name.startswith((*n.OF_LATER_RUNS, *TABLE_NAMES)):
        raise UsageError(f"{name!r} has a meaning of its own; choose another name with name='…' (--name).")
    if not n.is_valid_name(name):
        raise UsageError(f"{name!r} cannot be a name; use letters, digits and _, a letter first.")


def _existing_table(opened: Run, name: str, recipe: Recipe, *, overwrite: bool) -> xr.Dataset | None:
    """The stored table of this recipe; None where there is none, or another one is to be replaced."""
    if not has_table(opened.path, opened.name, name):
        return None
    table = open_table(opened.path, opened.name, name)
    existing = f"{opened.path} already holds {name!r} of run {opened.name!r}"
    if is_made(existing, nested(table.attrs, n.PROVENANCE), recipe, overwrite=overwrite):
        return table
    return None


def _reconstruct_blocks(
    evaluation: Evaluation, blocks: Iterable[Block], variable: str, write: SampleWriter | None
) -> Iterator[BlockResult]:
    """Reconstructions of the chosen points of each block; `write` gets them, too."""
    for block in blocks:
        parts = []
        for points, decoded in evaluation.reconstruct(block.points, block.stored):
            parts.append(decoded)
            if write is not None:
                write(points, decoded)
        values = {variable: np.concatenate(parts)} if parts else {}
        yield BlockResult(block.region, block.inside, values)


def _variable_spec(opened: Run, evaluation: Evaluation, recipe: Recipe, variable: str) -> dict[str, VariableSpec]:
    """Dims and attributes of the reconstructions in the store."""
    attrs = {"long_name": PICTURES["reconstruction"], **evaluation.scale, n.PROVENANCE: recipe.stamp()}
    dims = (*schema.navigation_dims(opened.ds), *schema.signal_dims(opened.ds))
    return {variable: VariableSpec(dims=dims, attrs=attrs)}


def _points(opened: Run, settings: ReconstructConfig, roi: xr.DataArray | None) -> xr.DataArray:
    """The samples that are meant, as a boolean map."""
    wanted = settings.roi if roi is None else roi
    chosen = opened.own(n.ROI).load() if wanted is None else resolve_roi(opened.ds, wanted)
    if settings.part != "all":
        chosen = chosen & (opened.own(n.SPLIT).load() == PARTS[settings.part])
    if not chosen.any():
        part = f"the {settings.part} part of run {opened.name!r}"
        raise NoInputError(f"no sample is left to reconstruct: {part} holds none in this region.")
    return chosen.transpose(*schema.navigation_dims(opened.ds))


@settings_as_keywords(ReconstructConfig)
def reconstruct_files(
    store: StoreOrRun,
    files: Sequence[str | Path],
    run: str | None = None,
    *,
    out: str | Path | None = None,
    config: ReconstructConfig | None = None,
    progress: Progress = True,
    **given: Any,
) -> xr.Dataset:
    """Reconstruct single files like the store's samples, and measure how close each is to its input.

    Files are prepared as the ingest of the store prepared its own (`vaearr.sources.single`).
    Nothing is written into the store.

    Parameters
    ----------
    store
        Path of the store, a Dataset that was opened from it, or a Run.
    files
        Files to reconstruct.
    run
        Name of the run.
    out
        Folder for the reconstructions, as float32 in stored units: PNG of the file's own size, NIfTI
        of its grid, axes and affine, else .npy. It appears when all are complete.
    config
        Settings; keywords replace single ones.
    progress
        False shows no progress; a function is called with files done, files in all and a text.

    Returns
    -------
    xarray.Dataset
        As of `reconstruct_store`, over ``file``; with ``lpips`` where weights are given.

    Raises
    ------
    UsageError
        If settings are meant for stores, two files have one name, or no file is given.
    NoInputError
        If the run or a file does not exist.
    DataError
        If a file is damaged or of another kind than the store's samples.
    """
    settings = resolved(ReconstructConfig, config, {**given, "run": run})
    paths = [Path(file) for file in files]
    _check_files(paths, settings, has_out=out is not None)
    opened = open_run(store, settings.run, device=settings.device)
    _check(opened, settings, has_files=out is not None)
    ds = opened.ds
    evaluation = Evaluation(opened, settings, (len(paths),), np.arange(len(paths))[: settings.examples, None])
    shape = [ds.sizes[dim] for dim in schema.signal_dims(ds)]
    size = opened.model.fitting(settings.batch_size)

    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(staged(Path(out)))
        show = stack.enter_context(showing(progress, "reconstructing"))
        for start in range(0, len(paths), size):
            batch = paths[start : start + size]
            singles = [read_single(ds, path) for path in batch]
            values = np.stack([single.values for single in singles]).reshape(-1, *opened.model.input_shape)
            numbers = np.arange(start, start + len(batch))[:, None]
            for _, decoded in evaluation.reconstruct(numbers, torch.from_numpy(values)):  # one batch
                for path, single, sample in zip(batch, singles, decoded, strict=True):
                    if folder is not None:
                        file = folder / f"{inside_name(path.name)}{output_suffix(ds)}"
                        write_sample(file, sample.reshape(shape), ds[n.PATTERNS].dtype, geometry=single.geometry)
            show(start + len(batch), len(paths))
    table = evaluation.table({FILE: xr.DataArray([str(path) for path in paths], dims=FILE)}, len(paths))
    if evaluation.pictures:
        table.coords[f"{EXAMPLE}_{FILE}"] = (EXAMPLE, [path.name for path in paths[: settings.examples]])
    return table


def _check_files(paths: Sequence[Path], settings: ReconstructConfig, *, has_out: bool) -> None:
    """Raise UsageError for files or settings that `reconstruct_files` cannot take."""
    if not paths:
        raise UsageError("no file is given; name one or more.")
    default = ReconstructConfig()
    if any(getattr(settings, name) != getattr(default, name) for name in ("roi", "part", "out", "name")):
        raise UsageError("part, roi, name and variable are for a store's own samples; leave them out for single files.")
    counts = Counter(inside_name(path.name).lower() for path in paths)
    twice = [name for name, count in counts.items() if count > 1]
    if has_out and twice:
        raise UsageError(f"two files would both be written as {twice[0]!r}; rename one, or write them one by one.")


def reconstruct(store: StoreOrRun, *, run: str = n.DEFAULT_RUN, n_samples: int = 8, seed: int = 0) -> xr.Dataset:
    """Decode the latents of some samples, spread over the validation part, in preprocessed units.

    Parameters
    ----------
    store
        Path of the store, a Dataset that was opened from it, or a Run.
    run
        Name of the run.
    n_samples
        Number of samples.
    seed
        Seed of the choice.

    Returns
    -------
    xarray.Dataset
        ``input`` and ``reconstruction``, each ``(sample, [channel,] dy, dx)``, with the navigation
        coordinates of each sample.
    """
    if n_samples < 1:
        raise UsageError(f"n_samples is {n_samples}; it must be at least 1.")
    opened = open_run(store, run)
    ds, model = opened.ds, opened.model
    nav = schema.navigation_dims(ds)
    points = example_points(opened, opened.own(n.SPLIT).load() != n.OUTSIDE, n_samples, seed)
    if not len(points):
        raise NoInputError(f"run {opened.name!r} of {opened.path} has no scan point in its split; train it again.")
    stored = opened.samples(points)
    batches = torch.from_numpy(stored.reshape(-1, *model.input_shape)).split(model.fitting(len(stored)))
    passed = [through(model, batch) for batch in batches]
    pictures = {
        "input": ("pattern as the network sees it", [part.target for part in passed]),
        "reconstruction": (PICTURES["reconstruction"], [part.decoded for part in passed]),
    }
    dims = (n.SAMPLE, *schema.signal_dims(ds))
    variables = {}
    for name, (long_name, parts) in pictures.items():
        values = model.preprocess.enlarged(torch.cat(parts)).cpu().numpy().reshape(stored.shape)
        variables[name] = (dims, values, {"long_name": long_name})
    coords: dict[str, Any] = {}
    for i, dim in enumerate(nav):
        coords[dim] = (n.SAMPLE, ds[dim].values[points[:, i]], ds[dim].attrs)
    if n.SAMPLE in nav:
        coords = {n.SAMPLE: ds[n.SAMPLE].isel({n.SAMPLE: points[:, 0]})}
    return xr.Dataset(variables, coords, attrs={**opened.attrs, "seed": seed})


def _check(opened: Run, settings: ReconstructConfig, *, has_files: bool) -> None:
    """Raise UsageError for settings that do not fit each other, the data or the network."""
    is_stored = settings.units == "stored"
    is_integer = opened.ds[n.PATTERNS].dtype.kind in "iu"
    if settings.data_range == "dtype" and not (is_stored and is_integer):
        raise UsageError("data_range 'dtype' is for whole numbers in stored units; give a number or 'sample'.")
    if isinstance(settings.data_range, float) and settings.data_range <= 0:
        raise UsageError(f"data_range is {settings.data_range}; it must be a positive number.")
    if (settings.lpips_weights is None) != (settings.lpips_linear is None):
        raise UsageError("LPIPS takes two files: lpips_weights, of the feature network, and lpips_linear.")
    if not is_stored and (settings.lpips_weights or has_files):
        raise UsageError("LPIPS and files of reconstructions are in stored units; leave units='preprocessed' out.")


class Evaluation:
    """Reconstructs samples in the chosen units and keeps what measures them, at their places.

    shape: of the places. examples: places `(k, dims)` whose pictures are kept. Raises UsageError or DataError for LPIPS
    weights that do not fit.
    """

    def __init__(self, opened: Run, settings: ReconstructConfig, shape: tuple[int, ...], examples: np.ndarray) -> None:
        self.opened = opened
        self.settings = settings
        self.shape = shape
        self.examples = set(map(tuple, examples.tolist()))
        self.scale = scale_attrs(opened, stored=settings.units == "stored")
        self.lpips = _lpips(opened, settings)
        self.range_is, self.range = _data_range(opened, settings)
        self.metrics: dict[str, np.ndarray] = {}
        self.pictures: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}  # input and reconstruction

    def reconstruct(self, places: np.ndarray, stored: torch.Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places `(k, dims)` and reconstructions of samples `(k, C, …)`, as many at once as fit."""
        size = self.opened.model.fitting(self.settings.batch_size)
        for start in range(0, len(places), size):
            batch = slice(start, start + size)
            yield places[batch], self._evaluate(places[batch], stored[batch])

    @torch.inference_mode()
    def _evaluate(self, places: np.ndarray, stored: torch.Tensor) -> np.ndarray:
        """Reconstruct a batch; its metrics and examples are kept."""
        model = self.opened.model
        raw = stored.to(model.device)
        passed = through(model, raw, self.settings.window, self.settings.overlap)
        target, decoded = passed.target, passed.decoded.float()
        if self.settings.units == "stored":
            target = raw.float()
            decoded = undo(decoded, raw, model.preprocess.background, model.preprocess_config)
        data_range: float | np.ndarray | None = self.range
        if data_range is None:
            flat = target.flatten(1)
            data_range = (flat.amax(1) - flat.amin(1)).cpu().numpy()
        metrics = image_metrics(target, decoded, data_range)
        if self.lpips is not None:
            metrics["lpips"] = self.lpips(target, decoded)
        for name, values in metrics.items():
            if name not in self.metrics:
                self.metrics[name] = np.full(self.shape, np.nan, np.float32)
            self.metrics[name][tuple(places.T)] = values
        for k, place in enumerate(map(tuple, places.tolist())):
            if place in self.examples:
                pair = model.preprocess.enlarged(torch.stack([target[k], decoded[k]])).cpu().numpy()
                self.pictures[place] = (pair[0], pair[1])
        return decoded.cpu().numpy()

    def table(self, coords: Mapping[str, xr.DataArray], count: int, split: xr.DataArray | None = None) -> xr.Dataset:
        """Metrics of `count` samples over the dims of `coords`, their summary, and the examples."""
        model, patterns = self.opened.model, self.opened.ds[n.PATTERNS]
        unit = self.scale["units"]
        units = {"mse": f"{unit}^2" if unit != "1" else "1", "mae": unit, "psnr": "dB"}
        columns = {}
        for name, values in self.metrics.items():
            attrs = {"long_name": LONG_NAMES[name], "units": units.get(name, "1")}
            columns[name] = (tuple(coords), values, attrs)
        table = xr.Dataset(columns, coords=coords)
        table = table.merge(summarise(table, split))
        if self.pictures:
            table = self._with_examples(table, coords)
        warnings = []
        if not can_ssim(model.input_shape):
            warnings.append(f"SSIM needs samples with sides of {SSIM_SIDE} or more, so it is left out.")
        return table.assign_attrs(
            **self.opened.attrs,
            **self.scale,
            n=count,
            compression_ratio=compression_ratio(model.input_shape, patterns.dtype, model.latent_shape),
            data_range_is=self.range_is,
            data_range=self.range,
            given_back=self._given_back(),
            window=None if self.settings.window is None else list(self.settings.window),
            warnings=warnings,
        )

    def _with_examples(self, table: xr.Dataset, coords: Mapping[str, xr.DataArray]) -> xr.Dataset:
        """The table with the pictures of the examples, their places and their metrics."""
        patterns = self.opened.ds[n.PATTERNS]
        signal = schema.signal_dims(self.opened.ds)
        places = sorted(self.pictures)
        at = tuple(np.array(places).T)
        attrs = {n.SIGNAL_DIMS: list(signal), **self.scale}
        if ORIENTATION in patterns.attrs:
            attrs[ORIENTATION] = patterns.attrs[ORIENTATION]
        table = table.assign_coords({dim: patterns[dim] for dim in signal if dim in patterns.coords})
        shape = (len(places), *(patterns.sizes[dim] for dim in signal))
        for k, (name, long_name) in enumerate(PICTURES.items()):
            values = np.stack([self.pictures[place][k] for place in places]).reshape(shape)
            table[name] = ((EXAMPLE, *signal), values, {"long_name": long_name, **attrs})
        for (dim, coord), where in zip(coords.items(), at, strict=True):
            table.coords[f"{EXAMPLE}_{dim}"] = (EXAMPLE, coord.values[where], coord.attrs)
        for name, values in self.metrics.items():
            table[f"{EXAMPLE}_{name}"] = (EXAMPLE, values[at], table[name].attrs)
        return table

    def _given_back(self) -> list[str]:
        """What each reconstruction has from its input, not from the network."""
        if self.settings.units != "stored":
            return []
        config = self.opened.model.preprocess_config
        given_back = []
        if config.normalise in GIVEN_BACK:
            given_back.append(GIVEN_BACK[config.normalise])
        if config.dynamic_background > 0:
            given_back.append("dynamic background")
        return given_back


def _lpips(opened: Run, settings: ReconstructConfig) -> Callable[[torch.Tensor, torch.Tensor], np.ndarray] | None:
    """LPIPS of stored values, or None without weights. Its range is that of the dtype for 8 bits, else of the store."""
    if settings.lpips_weights is None:
        return None
    from vaearr.models.perceptual import PerceptualLoss, lpips

    limits = value_range(opened.ds[n.PATTERNS])
    if limits is None:
        raise UsageError("the store does not tell its least and largest value, which LPIPS needs; ingest it again.")
    files = {"weights": settings.lpips_weights, "linear": settings.lpips_linear}
    config = PerceptualConfig(kind="lpips", slices=1, chunk=settings.batch_size, **files)
    network = PerceptualLoss(config, limits).to(opened.model.device)
    return lambda target, recon: lpips(target, recon, network)


def _data_range(opened: Run, settings: ReconstructConfig) -> tuple[str, float | None]:
    """Of PSNR and SSIM: what it is, `given`, `dtype` or `sample`, and the number; None for one of each sample."""
    dtype, kind = opened.ds[n.PATTERNS].dtype, settings.data_range
    if kind is None:  # 16 bits are seldom filled
        kind = "dtype" if settings.units == "stored" and dtype in (np.uint8, np.int8) else "sample"
    if kind == "sample":
        return kind, None
    if kind == "dtype":
        return kind, float(np.iinfo(dtype).max) - float(np.iinfo(dtype).min)
    return "given", float(kind)


def summarise(maps: xr.Dataset, split: xr.DataArray | None = None) -> xr.Dataset:
    """`summary (part, metric, statistic)` and `count (part, metric)` of maps, for all points and the parts of a split.

    NaN counts as missing; a statistic over no points is NaN.
    """
    values, dims = maps.to_dataarray(METRIC).astype("f8"), list(maps.dims)
    parts = {"all": values} | ({} if split is None else {k: values.where(split == part) for k, part in PARTS.items()})
    with np.errstate(invalid="ignore"):  # the PSNR of equal samples is infinite
        rows = [[getattr(part, name)(dims).values for name in STATISTICS] for part in parts.values()]
    count = np.stack([part.count(dims).values for part in parts.values()])
    return xr.Dataset(
        {
            "summary": (
                (PART, METRIC, STATISTIC),
                np.moveaxis(np.array(rows), 1, 2),
                {"long_name": "summary of each metric over samples"},
            ),
            "count": ((PART, METRIC), count, {"long_name": "samples"}),
        },
        coords={PART: list(parts), METRIC: [str(name) for name in maps.data_vars], STATISTIC: list(STATISTICS)},
    )


def _writer(ds: xr.Dataset, chosen: xr.DataArray, folder: Path) -> SampleWriter:
    """A function that writes samples `(k, …)` at points `(k, navigation)` as files into a folder."""
    names, suffix, stored = sample_names(ds, chosen), output_suffix(ds), ds[n.PATTERNS].dtype
    shape, about = tuple(ds.sizes[dim] for dim in schema.signal_dims(ds)), ds.copy()
    for name in {"affine", "source_rows", "source_columns"} & set(ds.variables):
        about[name] = about[name].load()

    def write(points: np.ndarray, values: np.ndarray) -> None:
        for point, sample in zip(map(tuple, points.tolist()), values, strict=True):
            write_sample(
                folder / f"{names[point]}{suffix}",
                sample.reshape(shape),
                stored,
                geometry=None if schema.is_scan(ds) else stored_geometry(about, point[0]),
                affine=stored_affine(about, point[0]) if suffix == NIFTI else None,
            )

    return write


def sample_names(ds: xr.Dataset, chosen: xr.DataArray) -> dict[tuple[int, ...], str]:
    """A name for the file of each chosen sample, without its ending; no two are the same, none leaves the folder."""
    nav = schema.navigation_dims(ds)
    width = [len(str(ds.sizes[dim] - 1)) for dim in nav]
    numbers = {
        tuple(point): "_".join(f"{dim}{i:0{w}d}" for dim, i, w in zip(nav, point, width, strict=True))
        for point in np.argwhere(chosen.transpose(*nav).values).tolist()
    }
    if schema.is_scan(ds) or "path" not in ds.coords:
        return numbers
    paths = ds["path"].values
    given = {point: inside_name(str(paths[point[0]])) for point in numbers}
    count = Counter(name.lower() for name in given.values())
    return {
        point: name if name and count[name.lower()] == 1 else f"{name or 'sample'}_{numbers[point]}"
        for point, name in given.items()
    }


def inside_name(path: str) -> str:
    """A path as one that lies inside a folder, without the ending of its file."""
    parts = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    name = "/".join(part.replace(":", "_") for part in parts)
    return name[: len(name) - len(next((end for end in ENDINGS if name.lower().endswith(end)), ""))]


def metrics_csv(found: xr.Dataset) -> str:
    """The numbers of all files or samples as a CSV table; samples where nothing was reconstructed are left out."""
    metrics: list[str] = [str(name) for name in found[METRIC].values]
    rows = found[metrics].to_dataframe(dim_order=list(found[metrics[0]].dims))[metrics].astype(float)
    return str(rows.dropna(subset=metrics[:1]).to_csv(lineterminator="\n"))
