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
from vaearr.computing.progress import Progress, showing
from vaearr.config import PerceptualConfig, ReconstructConfig, RoiConfig, resolved, settings_as_keywords
from vaearr.errors import NoInputError, UsageError
from vaearr.models.preprocess import undo, value_range
from vaearr.models.quality import SSIM_SIDE, can_ssim, compression_ratio, image_metrics
from vaearr.recipe import Recipe, is_made, nested
from vaearr.run import Run, StoreOrRun, open_run
from vaearr.run.draw import scale_attrs
from vaearr.run.stream import PARTS, Made, chosen_blocks, example_points, through, write_made
from vaearr.run.train import resolve_roi
from vaearr.sources.collection import Geometry
from vaearr.sources.nifti import ORIENTATION
from vaearr.sources.single import NIFTI, output_suffix, read_single, stored_affine, stored_geometry, write_sample
from vaearr.store import (
    Region,
    VariableSpec,
    check_inputs,
    has_table,
    open_table,
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

    files: folder for a file of each reconstruction, PNG, NIfTI or .npy in stored units, in the size and affine of its
    source: collections name them after their files (`path`), scans after the numbers of the point. roi: map or
    conditions instead of the run's region. The same call again returns what was made; `overwrite` replaces what was
    made otherwise. Raises ExistsError where the name holds anything else, NoInputError for a run or part that is not
    there, RoiError for an empty region, UsageError for settings that do not fit, DataError for a damaged store or
    model.
    """
    conditions = {"roi": roi} if isinstance(roi, RoiConfig) else {}
    settings = resolved(ReconstructConfig, config, given | conditions | ({"out": out} if out else {}) | {"run": run})
    opened = open_run(store, settings.run, device=settings.device)
    settings, path, name = settings.replace(run=opened.name), opened.path, settings.name
    fingerprints = check_inputs(path, [n.PATTERNS, n.run_name(n.ROI, opened.name)])
    if name in (n.RESERVED | TABLES) - {n.RECONSTRUCTION} or name.startswith((*n.OF_LATER_RUNS, *TABLE_NAMES)):
        raise UsageError(f"{name!r} has a meaning of its own; choose another name with name='…' (--name).")
    if not n.is_valid_name(name):
        raise UsageError(f"{name!r} cannot be a name; use letters, digits and _, a letter first.")
    _check(opened, settings, has_files=files is not None)
    chosen = _points(opened, settings, roi if isinstance(roi, xr.DataArray) else None)
    made_from = {**opened.attrs, "points": fingerprint(chosen.values), "data": opened.manifest["data"]}
    recipe, variable = Recipe(settings, made_from, fingerprints), n.run_name(name, opened.name)

    def is_same(what: str, found: xr.Dataset | xr.DataArray) -> bool:
        made = nested(found.attrs, n.PROVENANCE)
        return is_made(f"{path} already holds {what}", made, recipe, overwrite=overwrite)

    table = open_table(path, opened.name, name) if has_table(path, opened.name, name) else None
    if table is not None and not is_same(f"{name!r} of run {opened.name!r}", table):
        table = None
    has_variable, old = variable in opened.ds.variables, list[str]()  # old: goes in the step that brings the new one
    if has_variable and (settings.out or (overwrite and table is None)):
        has_variable = is_same(repr(variable), opened.ds[variable])
        old = [] if has_variable else removable(path, variables=[variable])
    is_wanted = settings.out is not None and not has_variable
    if table is not None and files is None and not is_wanted:
        return table
    judged = Judged(opened, settings, chosen.shape, example_points(opened, chosen, settings.examples, settings.seed))
    with ExitStack() as stack:
        aside = None if files is None else stack.enter_context(staged(Path(files)))
        write = None if aside is None else _writer(opened.ds, chosen, aside)
        total, blocks = chosen_blocks(opened, chosen)

        def made() -> Iterator[Made]:
            for block in blocks:
                decoded = []
                for points, recon in judged.rebuilt([(block.points, block.stored)]):
                    decoded.append(recon)
                    if write:
                        write(points, recon)
                yield block.region, block.inside, {variable: np.concatenate(decoded)} if decoded else {}

        if is_wanted:
            dims = (*schema.navigation_dims(opened.ds), *schema.signal_dims(opened.ds))
            about = {"long_name": PICTURES["reconstruction"], **judged.scale, n.PROVENANCE: recipe.stamp()}
            specs, request = {variable: VariableSpec(dims=dims, attrs=about)}, {"name": variable, **recipe.as_attrs()}
            staging = stack.enter_context(
                staged_variables(path, specs, coords=xr.Dataset(), request=request, replacing=old)
            )

            def make(left: Sequence[Region]) -> Iterator[Made]:  # all is judged again, what is written passed over
                return (one for one in made() if one[0] in left)

            write_made(staging, make, what="reconstructing", progress=progress)
        else:
            show = stack.enter_context(showing(progress, "reconstructing"))
            for done, _ in enumerate(made(), 1):
                show(done, total)
        tables, replaced = {}, []
        if table is None:
            coords = {dim: opened.ds[dim] for dim in schema.navigation_dims(opened.ds)}
            table = judged.table(coords, int(chosen.sum()), opened.own(n.SPLIT).load())
            table.attrs[n.PROVENANCE] = recipe.stamp()
            tables = {name: table}
            replaced = [f"{n.RUNS}/{opened.name}/{name}"]
        if is_wanted:
            publish_staged(staging, run=opened.name, tables=tables, replacing=replaced)
        elif tables:
            write_results(path, run=opened.name, tables=tables, replacing=[*replaced, *old])
    return table


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
    """Reconstruct single files (posterior mean, decoded) as the store's samples, and judge each against its input.

    Files are prepared as the ingest of the store prepared its own (`vaearr.sources.single`), and judged at the size
    and scale of its samples, see `reconstruct_store`. Nothing is written into the store.

    Returns `mse`, `mae`, `psnr` (dB), `ssim` where sides are 11 or more and `lpips` where weights are given, over
    `file`, with their `summary (part, metric, statistic)`; `input` and `reconstruction (example, …)` of the
    first files.
    out: folder that gets the reconstructions, PNG of the file's own size or NIfTI of its own grid, axes and affine,
    else .npy, as float32 in stored units; it appears when all are there.

    Raises UsageError for settings that are meant for stores, two files of one name, or no file; NoInputError or
    DataError for a run or file that is missing, damaged or of another kind than the store's samples.
    """
    settings, plain = resolved(ReconstructConfig, config, given | {"run": run}), ReconstructConfig()
    if not files:
        raise UsageError("no file is given; name one or more.")
    if any(getattr(settings, name) != getattr(plain, name) for name in ("roi", "part", "out", "name")):
        raise UsageError("part, roi, name and variable are for a store's own samples; leave them out for single files.")
    opened = open_run(store, settings.run, device=settings.device)
    _check(opened, settings, has_files=out is not None)
    ds, paths = opened.ds, [Path(file) for file in files]
    names = [inside_name(path.name) for path in paths]
    twice = [name for name, count in Counter(name.lower() for name in names).items() if count > 1]
    if out is not None and twice:
        raise UsageError(f"two files would both be written as {twice[0]!r}; rename one, or write them one by one.")
    numbers, size = np.arange(len(paths))[:, None], opened.model.fitting(settings.batch_size)
    judged = Judged(opened, settings, (len(paths),), numbers[: settings.examples])
    shape, stored = [ds.sizes[dim] for dim in schema.signal_dims(ds)], ds[n.PATTERNS].dtype
    geometries: dict[int, Geometry] = {}  # of the files that are read and not yet written

    def read() -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        for start in range(0, len(paths), size):
            singles = [read_single(ds, path) for path in paths[start : start + size]]
            geometries.update(enumerate((single.geometry for single in singles), start))
            values = np.stack([single.values for single in singles])
            yield numbers[start : start + size], torch.from_numpy(values.reshape(-1, *opened.model.input_shape))

    with ExitStack() as stack:
        aside = None if out is None else stack.enter_context(staged(Path(out)))
        show = stack.enter_context(showing(progress, "reconstructing"))
        for places, recon in judged.rebuilt(read()):
            for (i,), values in zip(places.tolist(), recon, strict=True):
                geometry = geometries.pop(i)
                if aside is not None:
                    path = aside / f"{names[i]}{output_suffix(ds)}"
                    write_sample(path, values.reshape(shape), stored, geometry=geometry)
                show(i + 1, len(paths))
    table = judged.table({FILE: xr.DataArray([str(path) for path in paths], dims=FILE)}, len(paths))
    if judged.pictures:
        table.coords[f"{EXAMPLE}_{FILE}"] = (EXAMPLE, [path.name for path in paths[: settings.examples]])
    return table


def reconstruct(store: StoreOrRun, *, run: str = n.DEFAULT_RUN, n_samples: int = 8, seed: int = 0) -> xr.Dataset:
    """Patterns as the network sees them and as it decodes them, for scan points spread over the validation part.

    Variables `input` and `reconstruction`, `(sample, [channel,] dy, dx)`, in preprocessed units; the navigation
    coordinates of each sample as coordinates of `sample`. A seeded choice; posterior mean.
    """
    if n_samples < 1:
        raise UsageError(f"n_samples is {n_samples}; it must be at least 1.")
    opened = open_run(store, run)
    ds, model, nav = opened.ds, opened.model, schema.navigation_dims(opened.ds)
    points = example_points(opened, opened.own(n.SPLIT).load() != n.OUTSIDE, n_samples, seed)
    if not len(points):
        raise NoInputError(f"run {run!r} of {store} has no scan point in its split; train it again.")
    stored = opened.samples(points)
    raw = torch.from_numpy(stored.reshape(-1, *model.input_shape))
    parts = [through(model, some) for some in raw.split(model.fitting(len(raw)))]
    seen, decoded = (model.preprocess.enlarged(torch.cat([part[i] for part in parts])) for i in (0, 3))
    coords = {dim: (n.SAMPLE, ds[dim].values[points[:, i]], ds[dim].attrs) for i, dim in enumerate(nav)}
    words = {"input": "pattern as the network sees it", "reconstruction": "decoded posterior mean"}
    return xr.Dataset(
        {
            name: ((n.SAMPLE, *schema.signal_dims(ds)), values.numpy().reshape(stored.shape), {"long_name": text})
            for (name, text), values in zip(words.items(), (seen, decoded), strict=True)
        },
        coords=coords if n.SAMPLE not in nav else {n.SAMPLE: ds[n.SAMPLE].isel({n.SAMPLE: points[:, 0]})},
        attrs={**opened.attrs, "seed": seed},
    )


def _check(opened: Run, settings: ReconstructConfig, *, has_files: bool) -> None:
    """Raise UsageError for settings that do not fit each other, the data or the network."""
    wanted, stored, net = settings.data_range, settings.units == "stored", settings.lpips_weights
    if wanted == "dtype" and not (stored and opened.ds[n.PATTERNS].dtype.kind in "iu"):
        raise UsageError("data_range 'dtype' is for whole numbers in stored units; give a number or 'sample'.")
    if isinstance(wanted, float) and wanted <= 0:
        raise UsageError(f"data_range is {wanted}; it must be a positive number.")
    if (net is None) != (settings.lpips_linear is None):
        raise UsageError("LPIPS takes two files: lpips_weights, of the feature network, and lpips_linear.")
    if not stored and (net or has_files):
        raise UsageError("LPIPS and files of reconstructions are in stored units; leave units='preprocessed' out.")


class Judged:
    """Samples through the model and back, in the chosen units, and the numbers that judge them, at their places.

    shape: of the places. wanted: places `(k, dims)` whose pictures are kept. Raises UsageError or DataError for LPIPS
    weights that do not fit.
    """

    def __init__(self, opened: Run, settings: ReconstructConfig, shape: tuple[int, ...], wanted: np.ndarray) -> None:
        self.opened, self.settings, self.shape = opened, settings, shape
        self.wanted = set(map(tuple, wanted.tolist()))
        self.scale = scale_attrs(opened, stored=settings.units == "stored")
        self.distance, (self.range_is, self.range) = _lpips(opened, settings), _data_range(opened, settings)
        self.numbers: dict[str, np.ndarray] = {}
        self.pictures: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}  # input and reconstruction

    def rebuilt(self, given: Iterable[tuple[np.ndarray, torch.Tensor]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places `(k, dims)` and reconstructions of samples `(k, C, …)`, as many at once as fit; all are judged."""
        size = self.opened.model.fitting(self.settings.batch_size)
        for places, stored in given:
            for start in range(0, len(places), size):
                part = slice(start, start + size)
                yield places[part], self._judge(places[part], stored[part])

    @torch.inference_mode()
    def _judge(self, places: np.ndarray, stored: torch.Tensor) -> np.ndarray:
        """The reconstructions of stored samples, whose numbers and pictures are kept."""
        model, raw = self.opened.model, stored.to(self.opened.model.device)
        target, _, _, recon = through(model, raw, self.settings.window, self.settings.overlap)
        recon = recon.float()
        if self.settings.units == "stored":
            target, recon = raw.float(), undo(recon, raw, model.preprocess.background, model.preprocess_config)
        flat = target.flatten(1)
        found = image_metrics(target, recon, self.range or flat.amax(1) - flat.amin(1))
        if self.distance is not None:
            found["lpips"] = self.distance(target, recon)
        for name, values in found.items():
            full = self.numbers.setdefault(name, np.full(self.shape, np.nan, np.float32))
            full[tuple(places.T)] = values.cpu().numpy()
        decoded = recon.cpu().numpy()
        for k, place in enumerate(map(tuple, places.tolist())):
            if place in self.wanted:
                both = model.preprocess.enlarged(torch.stack([target[k], recon[k]])).cpu().numpy()
                self.pictures[place] = both[0], both[1]
        return decoded

    def table(self, coords: Mapping[str, xr.DataArray], count: int, split: xr.DataArray | None = None) -> xr.Dataset:
        """Numbers of `count` samples over the dims of `coords`, their summary, and the pictures that were kept."""
        model, patterns, unit = self.opened.model, self.opened.ds[n.PATTERNS], self.scale["units"]
        units = {"mse": f"{unit}^2" if unit != "1" else "1", "mae": unit, "psnr": "dB"}
        columns = {
            name: (tuple(coords), values, {"long_name": LONG_NAMES[name], "units": units.get(name, "1")})
            for name, values in self.numbers.items()
        }
        table = xr.Dataset(columns, coords=coords)
        table = table.merge(summarise(table, split))
        if places := sorted(self.pictures):
            signal, at = schema.signal_dims(self.opened.ds), tuple(np.array(places).T)
            about = {n.SIGNAL_DIMS: list(signal), **self.scale}
            about |= {key: patterns.attrs[key] for key in (ORIENTATION,) if key in patterns.attrs}
            table = table.assign_coords({dim: patterns[dim] for dim in signal if dim in patterns.coords})
            for k, (name, text) in enumerate(PICTURES.items()):
                values = np.stack([self.pictures[place][k] for place in places])
                shape = (len(places), *(patterns.sizes[dim] for dim in signal))
                table[name] = ((EXAMPLE, *signal), values.reshape(shape), {"long_name": text, **about})
            for (dim, coord), where in zip(coords.items(), at, strict=True):
                table.coords[f"{EXAMPLE}_{dim}"] = (EXAMPLE, coord.values[where], coord.attrs)
            for name, values in self.numbers.items():
                table[f"{EXAMPLE}_{name}"] = (EXAMPLE, values[at], table[name].attrs)
        config, given = model.preprocess_config, []
        if self.settings.units == "stored":
            given = [GIVEN_BACK[config.normalise]] if config.normalise in GIVEN_BACK else []
            given += ["dynamic background"] * (config.dynamic_background > 0)
        too_small = f"SSIM needs samples with sides of {SSIM_SIDE} or more, so it is left out."
        return table.assign_attrs(
            **self.opened.attrs,
            **self.scale,
            n=count,
            compression_ratio=compression_ratio(model.input_shape, patterns.dtype, model.latent_shape),
            data_range_is=self.range_is,
            data_range=self.range,
            given_back=given,
            window=None if self.settings.window is None else list(self.settings.window),
            warnings=[] if can_ssim(model.input_shape) else [too_small],
        )


def _lpips(opened: Run, settings: ReconstructConfig) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None:
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
