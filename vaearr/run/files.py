"""Single files through a model and back: each reconstructed, judged, and written in its own size and geometry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import ReconstructConfig, resolved, settings_as_keywords
from vaearr.errors import UsageError
from vaearr.quality import compression_ratio
from vaearr.run import Run, open_run
from vaearr.run.draw import scale_attrs
from vaearr.run.quality_of import LONG_NAMES, check_settings, judge_of, judging_attrs, picture_attrs, units_of
from vaearr.run.summary import summarise
from vaearr.run.written import check_written, inside_name
from vaearr.sources.single import Kept, Single, output_suffix, read_single, write_sample
from vaearr.store.folders import staged

FILE, EXAMPLE = "file", "example"


@settings_as_keywords(ReconstructConfig)
def reconstruct_files(
    store: str | Path | Run,
    files: Sequence[str | Path],
    run: str | None = None,
    *,
    out: str | Path | None = None,
    dtype: Kept = "float32",
    config: ReconstructConfig | None = None,
    on_file: Callable[[int, int], None] | None = None,
    **given: Any,
) -> xr.Dataset:
    """Reconstruct single files (posterior mean, decoded) as the store's samples, and judge each against its input.

    Files are prepared as the ingest of the store prepared its own (`vaearr.sources.single`), and judged at the size
    and scale of its samples, see `reconstruct_store`. Nothing is written into the store.

    Returns `mse`, `mae`, `psnr` (dB), `ssim` where sides are 11 or more and `lpips` where weights are given, over
    `file`, with their `summary (part, metric, statistic)`; `input` and `reconstruction (example, …)` of the
    first files.
    out: folder that gets the reconstructions, PNG of the file's own size or NIfTI of its own grid, axes and affine,
    else .npy; it appears when all are there. dtype: of NIfTI and .npy: float32, or source = the stored type.

    Raises UsageError for settings that are meant for stores, two files of one name, or no file; NoInputError or
    DataError for a run or file that is missing, damaged or of another kind than the store's samples.
    """
    settings = resolved(ReconstructConfig, config, given | {"run": run})
    if not files:
        raise UsageError("no file is given; name one or more.")
    if (
        settings.roi is not None
        or settings.part != "all"
        or settings.out is not None
        or settings.name != "reconstruction"
    ):
        raise UsageError("part, roi, name and variable are for a store's own samples; leave them out for single files.")
    if out is not None:
        check_written(settings.units, dtype)
    opened = open_run(store, settings.run, device=settings.device)
    check_settings(opened, settings)
    paths = [Path(file) for file in files]
    with ExitStack() as stack:
        aside = None if out is None else stack.enter_context(staged(Path(out)))
        names = _names(paths) if out is not None else []
        judge, numbers = judge_of(opened, settings), []
        pictures: list[list[np.ndarray]] = []
        step = opened.model.fitting(settings.batch_size)
        for start in range(0, len(paths), step):
            read = [read_single(opened.ds, path) for path in paths[start : start + step]]
            target, recon, found = judge(_batch(opened, read))
            numbers.append({name: values.cpu().numpy() for name, values in found.items()})
            shape = read[0].values.shape
            for i, single in enumerate(read):
                pair = [part[i].cpu().numpy().reshape(shape) for part in (target, recon)]
                if len(pictures) < settings.examples:
                    pictures.append(pair)
                if aside is not None:
                    path = aside / f"{names[start + i]}{output_suffix(opened.ds)}"
                    write_sample(path, pair[1], opened.ds[n.PATTERNS].dtype, geometry=single.geometry, kept=dtype)
                if on_file:
                    on_file(start + i + 1, len(paths))
        joined = {name: np.concatenate([part[name] for part in numbers]) for name in numbers[0]}
    return _table(opened, settings, paths, joined, pictures)


def _batch(opened: Run, read: Sequence[Single]) -> torch.Tensor:
    return torch.from_numpy(np.stack([single.values for single in read]).reshape(-1, *opened.model.input_shape))


def _names(paths: Sequence[Path]) -> list[str]:
    names = [inside_name(path.name) for path in paths]
    if twice := [name for name, count in Counter(name.lower() for name in names).items() if count > 1]:
        raise UsageError(f"two files would both be written as {twice[0]!r}; rename one, or write them one by one.")
    return names


def _table(
    opened: Run,
    settings: ReconstructConfig,
    paths: Sequence[Path],
    numbers: dict[str, np.ndarray],
    pictures: Sequence[Sequence[np.ndarray]],
) -> xr.Dataset:
    ds, scale = opened.ds, scale_attrs(opened, stored=settings.units == "stored")
    columns: dict[str, Any] = {
        name: (FILE, values, {"long_name": LONG_NAMES[name], "units": units_of(name, scale["units"])})
        for name, values in numbers.items()
    }
    table = xr.Dataset(columns, coords={FILE: [str(path) for path in paths]})
    table = table.merge(summarise(table, np.zeros(len(paths), int)).sel(part=["all"]))
    if pictures:
        dims = (EXAMPLE, *schema.signal_dims(ds))
        for k, (name, text) in enumerate((("input", "sample"), ("reconstruction", "decoded posterior mean"))):
            about = {"long_name": text, **picture_attrs(opened), **scale}
            table[name] = (dims, np.stack([pair[k] for pair in pictures]), about)
        table = table.assign_coords({d: ds[d] for d in dims[1:] if d in ds.coords})
        table.coords[f"{EXAMPLE}_{FILE}"] = (EXAMPLE, [path.name for path in paths[: len(pictures)]])
        for name, values in numbers.items():
            table[f"{EXAMPLE}_{name}"] = (EXAMPLE, values[: len(pictures)], table[name].attrs)
    return table.assign_attrs(
        **opened.attrs,
        n=len(paths),
        **scale,
        compression_ratio=compression_ratio(opened.model.input_shape, ds[n.PATTERNS].dtype, opened.model.latent_shape),
        **judging_attrs(opened, settings),
    )
