"""Samples of a store, or single files, through a network and back, compared with their inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import Block
from vaearr.computing.progress import Progress, showing
from vaearr.config import PerceptualConfig, ReconstructConfig, RoiConfig
from vaearr.errors import NoInputError, UsageError
from vaearr.models.preprocess import undo, value_range
from vaearr.models.quality import SSIM_SIDE, can_ssim, compression_ratio, image_metrics
from vaearr.run import Run
from vaearr.run.decode import scale_attrs
from vaearr.run.step import check_name, is_stored, publish, replaced, step_recipe
from vaearr.run.stream import (
    PARTS,
    BlockResult,
    chosen_blocks,
    example_points,
    through,
    write_blocks,
)
from vaearr.run.train import resolve_roi
from vaearr.sources.nifti import ORIENTATION
from vaearr.sources.single import (
    NIFTI,
    output_suffix,
    read_single,
    stored_affine,
    stored_geometry,
    write_sample,
)
from vaearr.store import VariableSpec, pending, publish_staged, staged_variables
from vaearr.store.folders import staged
from vaearr.training import fingerprint

EXAMPLE, FILE, PART, METRIC, STATISTIC = "example", "file", "part", "metric", "statistic"
ENDINGS = (".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy")
TAKEN = (n.RESERVED | {n.SHEETS, n.LATENT_STATISTICS, "layers"}) - {n.RECONSTRUCTION}
OF_ANALYSES = (
    "association",
    "partitions",
    f"{n.CLUSTERS}_",
    *n.OF_LATER_RUNS,
)  # how names of other results begin
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

SampleWriter = Callable[
    [np.ndarray, np.ndarray], None
]  # of points (k, navigation) and their samples (k, …)


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
    check_name(config.name, TAKEN, OF_ANALYSES)
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
    stamp = {n.PROVENANCE: recipe.stamp()}
    with ExitStack() as stack:
        write = None
        if folder is not None:
            write = _sample_writer(run.ds, chosen, stack.enter_context(staged(Path(folder))))
        n_blocks, blocks = chosen_blocks(run, chosen)
        results = _reconstruct_blocks(evaluation, blocks, variable, write)
        staging = None
        if variables and not exists:
            dims = (*schema.navigation_dims(run.ds), *schema.signal_dims(run.ds))
            attrs = {"long_name": PICTURES["reconstruction"], **evaluation.scale, **stamp}
            staging = stack.enter_context(
                staged_variables(
                    run.path,
                    {variable: VariableSpec(dims=dims, attrs=attrs)},
                    coords=xr.Dataset(),
                    request={"name": variable, **recipe.as_attrs()},
                    replacing=replaced(run, variables=variables),
                )
            )
            left = pending(staging)  # all blocks are evaluated again; those written already stay
            missing = (result for result in results if result.region in left)
            write_blocks(staging, missing, what="reconstructing", progress=progress)
        else:
            show = stack.enter_context(showing(progress, "reconstructing"))
            for done, _ in enumerate(results, 1):
                show(done, n_blocks)
        if exists:
            return run.table(config.name)
        coords = {dim: run.ds[dim] for dim in schema.navigation_dims(run.ds)}
        table = evaluation.table(coords, int(chosen.sum()), run.variable(n.SPLIT).load())
        points = example_points(run, chosen, config.examples, config.seed)
        if len(points):
            table = evaluation.with_examples(table, points, run.patterns_at(points))
        table = table.assign_attrs(stamp)
        if staging is None:
            publish(run, tables={config.name: table})
        else:
            old = replaced(run, tables=[config.name])
            publish_staged(staging, run=run.name, tables={config.name: table}, replacing=old)
    return table


def example_reconstructions(run: Run, count: int, seed: int) -> xr.Dataset:
    """Reconstruct some validation samples, see `Run.example_reconstructions`."""
    run.check_patterns()
    config = ReconstructConfig(run=run.name, units="preprocessed")
    chosen = run.variable(n.SPLIT).load() != n.OUTSIDE
    points = example_points(run, chosen, count, seed)
    if not len(points):
        raise NoInputError(
            f"run {run.name!r} of {run.path} has no scan point in its split; train it again."
        )
    samples = run.patterns_at(points)
    evaluation = Evaluation(run, config, chosen.shape)
    evaluation.add(points, samples)
    table = evaluation.table(
        {dim: run.ds[dim] for dim in schema.navigation_dims(run.ds)}, len(points)
    )
    return evaluation.with_examples(table, points, samples)


def reconstruct_files(
    run: Run,
    config: ReconstructConfig,
    files: Sequence[str | Path],
    *,
    folder: str | Path | None,
    progress: Progress,
) -> xr.Dataset:
    """Reconstruct single files, see `Run.reconstruct`."""
    paths = [Path(file) for file in files]
    _check_files(paths, config, has_files=folder is not None)
    _check_settings(run, config, has_files=folder is not None)
    ds = run.ds
    evaluation = Evaluation(run, config, (len(paths),))
    shape = [ds.sizes[dim] for dim in schema.signal_dims(ds)]
    examples = []
    with ExitStack() as stack:
        target = None if folder is None else stack.enter_context(staged(Path(folder)))
        show = stack.enter_context(showing(progress, "reconstructing"))
        for number, path in enumerate(paths):
            single = read_single(ds, path)
            decoded = evaluation.add(np.array([[number]]), np.stack([single.values]))
            if target is not None:
                file = target / f"{inside_name(path.name)}{output_suffix(ds)}"
                write_sample(
                    file, decoded.reshape(shape), ds[n.PATTERNS].dtype, geometry=single.geometry
                )
            if number < config.examples:
                examples.append(single.values)
            show(number + 1, len(paths))
    table = evaluation.table(
        {FILE: xr.DataArray([str(path) for path in paths], dims=FILE)}, len(paths)
    )
    if examples:
        table = evaluation.with_examples(
            table, np.arange(len(examples))[:, None], np.stack(examples)
        )
        table.coords[f"{EXAMPLE}_{FILE}"] = (
            EXAMPLE,
            [path.name for path in paths[: len(examples)]],
        )
    return table


def _check_files(paths: Sequence[Path], config: ReconstructConfig, *, has_files: bool) -> None:
    """Raise UsageError for files, or settings of a store's samples, that cannot be meant."""
    default = ReconstructConfig()
    if any(
        getattr(config, name) != getattr(default, name) for name in ("roi", "part", "out", "name")
    ):
        raise UsageError(
            "part, roi, name and variable are for a store's own samples; leave them out for single files."
        )
    counts = Counter(inside_name(path.name).lower() for path in paths)
    twice = [name for name, count in counts.items() if count > 1]
    if has_files and twice:
        raise UsageError(
            f"two files would both be written as {twice[0]!r}; rename one, or write them one by one."
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
            "LPIPS and files of reconstructions are in stored units; leave units='preprocessed' out."
        )


def _chosen_points(
    run: Run, config: ReconstructConfig, roi: xr.DataArray | RoiConfig | None
) -> xr.DataArray:
    """The samples that are meant, as a boolean map."""
    wanted = config.roi if roi is None else roi
    chosen = run.variable(n.ROI).load() if wanted is None else resolve_roi(run.ds, wanted)
    if config.part != "all":
        chosen = chosen & (run.variable(n.SPLIT).load() == PARTS[config.part])
    if not chosen.any():
        part = f"the {config.part} part of run {run.name!r}"
        raise NoInputError(f"no sample is left to reconstruct: {part} holds none in this region.")
    return chosen.transpose(*schema.navigation_dims(run.ds))


def _reconstruct_blocks(
    evaluation: Evaluation, blocks: Iterable[Block], variable: str, write: SampleWriter | None
) -> Iterator[BlockResult]:
    """Reconstructions of the chosen points of each block; `write` gets them, too."""
    for block in blocks:
        values = {}
        if len(block.points):
            decoded = evaluation.add(block.points, block.stored)
            values[variable] = decoded
            if write is not None:
                write(block.points, decoded)
        yield BlockResult(block.region, block.inside, values)


class Evaluation:
    """Reconstructs samples in the chosen units, and collects metrics at their places.

    shape: of the places. Raises UsageError or DataError for LPIPS weights that do not fit.
    """

    def __init__(self, run: Run, config: ReconstructConfig, shape: tuple[int, ...]) -> None:
        self.run = run
        self.config = config
        self.shape = shape
        self.scale = scale_attrs(run, is_stored=config.units == "stored")
        self.lpips = _lpips(run, config)
        self.range_is, self.range = _data_range(run, config)
        self.metrics: dict[str, np.ndarray] = {}

    def add(self, places: np.ndarray, stored: np.ndarray | torch.Tensor) -> np.ndarray:
        """Reconstruct samples at places `(k, dims)`; their metrics are kept."""
        parts = []
        size = self.run.model.fitting(self.config.batch_size)
        samples = torch.as_tensor(stored).reshape(-1, *self.run.model.input_shape)
        for start in range(0, len(places), size):
            batch = slice(start, start + size)
            target, decoded = self._pair(samples[batch])
            for name, values in self._measure(target, decoded).items():
                if name not in self.metrics:
                    self.metrics[name] = np.full(self.shape, np.nan, np.float32)
                self.metrics[name][tuple(places[batch].T)] = values
            parts.append(decoded.cpu().numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def _pair(self, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples and their reconstructions in the chosen units."""
        model = self.run.model
        raw = samples.to(model.device)
        passed = through(model, raw, self.config.window, self.config.overlap)
        if self.config.units != "stored":
            return passed.target, passed.decoded.float()
        decoded = undo(
            passed.decoded.float(), raw, model.preprocess.background, model.preprocess_config
        )
        return raw.float(), decoded

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

    def table(
        self, coords: Mapping[str, xr.DataArray], count: int, split: xr.DataArray | None = None
    ) -> xr.Dataset:
        """Metrics of `count` samples over the dims of `coords`, and their summary."""
        model, patterns = self.run.model, self.run.ds[n.PATTERNS]
        unit = self.scale["units"]
        units = {"mse": f"{unit}^2" if unit != "1" else "1", "mae": unit, "psnr": "dB"}
        columns = {}
        for name, values in self.metrics.items():
            attrs = {"long_name": LONG_NAMES[name], "units": units.get(name, "1")}
            columns[name] = (tuple(coords), values, attrs)
        table = xr.Dataset(columns, coords=coords)
        warnings = []
        if not can_ssim(model.input_shape):
            warnings.append(
                f"SSIM needs samples with sides of {SSIM_SIDE} or more, so it is left out."
            )
        return table.merge(_summary(table, split)).assign_attrs(
            **self.run.result_attrs,
            **self.scale,
            n=count,
            compression_ratio=compression_ratio(
                model.input_shape, patterns.dtype, model.latent_shape
            ),
            data_range_is=self.range_is,
            data_range=self.range,
            given_back=self._given_back(),
            window=None if self.config.window is None else list(self.config.window),
            warnings=warnings,
        )

    def with_examples(
        self, table: xr.Dataset, places: np.ndarray, samples: np.ndarray
    ) -> xr.Dataset:
        """The table with pictures of some samples `(k, …)`, their places and their metrics."""
        model, patterns = self.run.model, self.run.ds[n.PATTERNS]
        signal = schema.signal_dims(self.run.ds)
        attrs = {n.SIGNAL_DIMS: list(signal), **self.scale}
        if ORIENTATION in patterns.attrs:
            attrs[ORIENTATION] = patterns.attrs[ORIENTATION]
        table = table.assign_coords(
            {dim: patterns[dim] for dim in signal if dim in patterns.coords}
        )
        shape = (len(places), *(patterns.sizes[dim] for dim in signal))
        batches = (
            torch.as_tensor(samples)
            .reshape(-1, *model.input_shape)
            .split(model.fitting(len(samples)))
        )
        pairs = [self._pair(batch) for batch in batches]
        for parts, (name, long_name) in zip(
            zip(*pairs, strict=True), PICTURES.items(), strict=True
        ):
            values = model.preprocess.enlarged(torch.cat(parts)).cpu().numpy()
            table[name] = (
                (EXAMPLE, *signal),
                values.reshape(shape),
                {"long_name": long_name, **attrs},
            )
        at = tuple(places.T)
        for name, values in self.metrics.items():
            table[f"{EXAMPLE}_{name}"] = (EXAMPLE, values[at], table[name].attrs)
        for dim, where in zip(table[next(iter(self.metrics))].dims, at, strict=True):
            table.coords[f"{EXAMPLE}_{dim}"] = (EXAMPLE, table[dim].values[where], table[dim].attrs)
        return table

    def _given_back(self) -> list[str]:
        """What each reconstruction has from its input, not from the network."""
        if self.config.units != "stored":
            return []
        preprocess = self.run.model.preprocess_config
        given_back = []
        if preprocess.normalise in GIVEN_BACK:
            given_back.append(GIVEN_BACK[preprocess.normalise])
        if preprocess.dynamic_background > 0:
            given_back.append("dynamic background")
        return given_back


def _lpips(
    run: Run, config: ReconstructConfig
) -> Callable[[torch.Tensor, torch.Tensor], np.ndarray] | None:
    """LPIPS of stored values, or None without weights. Its range is that of the dtype for 8 bits,
    else of the store.
    """
    if config.lpips_weights is None:
        return None
    from vaearr.models.perceptual import PerceptualLoss, lpips

    limits = value_range(run.ds[n.PATTERNS])
    if limits is None:
        raise UsageError(
            "the store does not tell its least and largest value, which LPIPS needs; ingest it again."
        )
    files = {"weights": config.lpips_weights, "linear": config.lpips_linear}
    perceptual = PerceptualConfig(kind="lpips", slices=1, chunk=config.batch_size, **files)
    network = PerceptualLoss(perceptual, limits).to(run.model.device)
    return lambda target, recon: lpips(target, recon, network)


def _data_range(run: Run, config: ReconstructConfig) -> tuple[str, float | None]:
    """Of PSNR and SSIM: what it is, `given`, `dtype` or `sample`, and the number; None for one of
    each sample.
    """
    dtype, kind = run.ds[n.PATTERNS].dtype, config.data_range
    if kind is None:  # 16 bits are seldom filled
        kind = "dtype" if config.units == "stored" and dtype in (np.uint8, np.int8) else "sample"
    if kind == "sample":
        return kind, None
    if kind == "dtype":
        return kind, float(np.iinfo(dtype).max) - float(np.iinfo(dtype).min)
    return "given", float(kind)


def _summary(maps: xr.Dataset, split: xr.DataArray | None) -> xr.Dataset:
    """`summary (part, metric, statistic)` and `count (part, metric)` of maps, for all points and
    the parts of a split.

    NaN counts as missing; a statistic over no points is NaN.
    """
    values = maps.to_dataarray(METRIC).astype("f8")
    parts = {"all": values}
    if split is not None:
        parts |= {name: values.where(split == code) for name, code in PARTS.items()}
    of_parts = (
        xr.concat(list(parts.values()), PART)
        .drop_vars(list(maps.coords))
        .assign_coords({PART: list(parts)})
    )
    dims = list(maps.dims)
    with np.errstate(invalid="ignore"):  # the PSNR of equal samples is infinite
        statistics = [getattr(of_parts, name)(dims) for name in STATISTICS]
    summary = (
        xr.concat(statistics, STATISTIC)
        .assign_coords({STATISTIC: list(STATISTICS)})
        .transpose(PART, METRIC, STATISTIC)
    )
    return xr.Dataset(
        {
            "summary": summary.assign_attrs(long_name="summary of each metric over samples"),
            "count": of_parts.count(dims).assign_attrs(long_name="samples"),
        }
    )


def _sample_writer(ds: xr.Dataset, chosen: xr.DataArray, folder: Path) -> SampleWriter:
    """A function that writes samples `(k, …)` at points `(k, navigation)` as files into a folder."""
    names = sample_names(ds, chosen)
    suffix = output_suffix(ds)
    shape = [ds.sizes[dim] for dim in schema.signal_dims(ds)]
    geometries = ds.copy()
    for name in {"affine", "source_rows", "source_columns"} & set(ds.variables):
        geometries[name] = geometries[name].load()

    def write(points: np.ndarray, values: np.ndarray) -> None:
        for point, sample in zip(map(tuple, points.tolist()), values, strict=True):
            write_sample(
                folder / f"{names[point]}{suffix}",
                sample.reshape(shape),
                ds[n.PATTERNS].dtype,
                geometry=None if schema.is_scan(ds) else stored_geometry(geometries, point[0]),
                affine=stored_affine(geometries, point[0]) if suffix == NIFTI else None,
            )

    return write


def sample_names(ds: xr.Dataset, chosen: xr.DataArray) -> dict[tuple[int, ...], str]:
    """A name for the file of each chosen sample, without its ending; no two are the same, none
    leaves the folder.
    """
    nav = schema.navigation_dims(ds)
    width = [len(str(ds.sizes[dim] - 1)) for dim in nav]
    names = {}
    for point in map(tuple, np.argwhere(chosen.transpose(*nav).values).tolist()):
        names[point] = "_".join(
            f"{dim}{i:0{w}d}" for dim, i, w in zip(nav, point, width, strict=True)
        )
    if schema.is_scan(ds) or "path" not in ds.coords:
        return names
    paths = {point: inside_name(str(ds["path"].values[point[0]])) for point in names}
    count = Counter(path.lower() for path in paths.values())
    for point, path in paths.items():
        is_unique = path and count[path.lower()] == 1
        names[point] = path if is_unique else f"{path or 'sample'}_{names[point]}"
    return names


def inside_name(path: str) -> str:
    """A path as one that lies inside a folder, without the ending of its file."""
    parts = [
        part
        for part in PurePosixPath(path.replace("\\", "/")).parts
        if part not in ("/", "..", ".")
    ]
    name = "/".join(part.replace(":", "_") for part in parts)
    return name[: len(name) - len(next((end for end in ENDINGS if name.lower().endswith(end)), ""))]


def metrics_csv(found: xr.Dataset) -> str:
    """The numbers of all files or samples as a CSV table; samples where nothing was reconstructed
    are left out.
    """
    metrics: list[str] = [str(name) for name in found[METRIC].values]
    rows = (
        found[metrics].to_dataframe(dim_order=list(found[metrics[0]].dims))[metrics].astype(float)
    )
    return str(rows.dropna(subset=metrics[:1]).to_csv(lineterminator="\n"))
