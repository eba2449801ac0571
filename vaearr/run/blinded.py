"""Real and made samples that a reader is to tell apart: pictures without a hint, their key, and the reader's score."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError, did_you_mean
from vaearr.run import Run, StoreOrRun, open_run
from vaearr.run.draw import decoded_array, draw_latents, scale_attrs, seen_batch
from vaearr.run.stream import part_map
from vaearr.sources.nifti import AXES
from vaearr.sources.single import as_dtype, stored_affine, write_nifti
from vaearr.store.folders import staged

ANSWERS = REAL, DRAWN = ("real", "drawn")
LEVELS = {2: 2**8, 3: 2**12}  # grey levels of images, of volumes
CUT = (0.005, 0.995)  # quantiles of real samples that become black and white


class Item(NamedTuple):
    """A file of the set: its name, whether its sample is real or drawn, which one, and its point or number."""

    name: str
    truth: str
    origin: str
    where: tuple[int, ...]


def blinded_set(
    store: StoreOrRun,
    run: str,
    out: str | Path,
    *,
    n_real: int = 25,
    n_drawn: int = 25,
    seed: int = 0,
    source: str = "prior",
    part: str = "validation",
    device: str = "cpu",
) -> xr.Dataset:
    """Write real and drawn samples as files that nothing but their content tells apart, and apart from them the key.

    `out/images` is for the reader: files with random names, all of one format, shape, dtype, affine, grey scale, size
    and time of writing, written in random order. `out/key.csv` (name, truth, origin) is not, and
    `out/answers.csv` is a form to fill with real or drawn. Images are PNG and volumes NIfTI (.nii), neither compressed,
    since what is made compresses better. Bytes in stored units are written as they are; of all others the same two
    values become black and white (256 levels, of volumes 4096): the 0.5 and 99.5 % quantiles of the real ones. All
    volumes have the affine of the store's first.

    source: of the draws, prior or fitted. All samples are in stored units where the preprocessing treats all samples
    alike, else as the network sees them. part: of the split that real samples come from. The same seed makes the same
    set. Returns the key, `truth, origin (name)`.

    Raises UsageError for arguments that do not fit or samples that are no pictures, NoInputError where the part has too
    few samples, ExistsError for a folder that is there and not empty.
    """
    opened, folder = open_run(store, run, device=device), Path(out)
    if min(n_real, n_drawn) < 1:
        raise UsageError(f"a set of {n_real} real and {n_drawn} drawn samples cannot be told apart; give 1 or more.")
    ds, shape, signal = opened.ds, opened.model.input_shape, schema.signal_dims(opened.ds)
    is_flat, dtype = len(shape) == 3, ds[n.PATTERNS].dtype
    if shape[0] not in ((1, 3) if is_flat else (1,)):
        raise UsageError(
            f"samples of {shape[0]} channels over {signal} are no pictures: images have 1 or 3, volumes 1."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExistsError(f"{folder} is there and not empty; a set takes a new folder.")
    latents = np.concatenate(list(draw_latents(opened, n_drawn, seed, source)))
    items = _items(opened, n_real, n_drawn, seed, part)
    is_stored = scale_attrs(opened)["scale"] == "stored"

    def picture(item: Item) -> np.ndarray:  # (C, …), in the units of the set
        if item.truth == DRAWN:
            return decoded_array(opened, latents[item.where[0]][None], n.SAMPLE).values.reshape(shape)
        raw = torch.from_numpy(opened.samples([item.where]).reshape(1, *shape))
        return np.asarray(seen_batch(opened, raw)[0].numpy())

    limits = None
    if not (is_stored and dtype == np.uint8 and is_flat):  # bytes of images need no scale
        spans = [np.nanquantile(picture(item), CUT) for item in items if item.truth == REAL]
        limits = float(np.min(spans)), float(np.max(spans))
        if not limits[0] < limits[1]:
            raise DataError("all values of the real samples are equal; there is nothing to see.")
    from PIL import Image

    affine, moment = stored_affine(ds, 0) if signal == AXES else None, time.time()
    with staged(folder) as aside:
        (aside / "images").mkdir()
        for item in items:  # in the order of their names, which is random
            path, values = aside / "images" / item.name, picture(item)
            if dtype.kind in "iu" and is_stored:  # so that real samples do not show gaps that others lack
                values = as_dtype(values, dtype)
            if limits is not None:
                values = _grey(values, *limits)
            if is_flat:
                pixels: Any = np.moveaxis(values, 0, -1) if len(values) == 3 else values[0]
                Image.fromarray(np.ascontiguousarray(pixels)).save(path, compress_level=0)
            else:
                write_nifti(path, values[0], None, affine)
            os.utime(path, (moment, moment))
        key = pd.DataFrame(items)[["name", "truth", "origin"]]
        key.to_csv(aside / "key.csv", index=False)
        key[["name"]].assign(answer="").to_csv(aside / "answers.csv", index=False)
    words = {"truth": "real or drawn", "origin": "sample or draw"}
    return xr.Dataset(
        {column: ("name", key[column].to_list(), {"long_name": text}) for column, text in words.items()},
        coords={"name": key["name"].to_list()},
        attrs={**opened.attrs, "source": source, "part": part, "seed": seed},
    )


def _items(opened: Run, n_real: int, n_drawn: int, seed: int, part: str) -> list[Item]:
    """Names, truths and origins, in the order of the names."""
    rng, nav = np.random.default_rng([seed, 2]), schema.navigation_dims(opened.ds)
    points = np.argwhere(part_map(opened, part).values)
    if len(points) < n_real:
        raise NoInputError(
            f"the {part} part of run {opened.name!r} has {len(points)} samples, the set needs {n_real}; take fewer or "
            "another part (--part)."
        )
    sides: list[tuple[str, str, tuple[int, ...]]] = []
    for point in points[rng.permutation(len(points))[:n_real]].tolist():
        where = ", ".join(f"{d} {opened.ds[d].values[i]}" for d, i in zip(nav, point, strict=True))
        sides.append((REAL, where, tuple(point)))
    sides += [(DRAWN, f"draw {i} of seed {seed}", (i,)) for i in range(n_drawn)]
    suffix = ".png" if len(opened.model.input_shape) == 3 else ".nii"
    codes = rng.choice(16**6, len(sides), replace=False).tolist()
    return sorted(Item(f"{code:06x}{suffix}", *side) for code, side in zip(codes, sides, strict=True))


def _grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """A sample `(C, …)` in the grey levels of the set."""
    top = LEVELS[values.ndim - 1] - 1
    scaled = np.nan_to_num((values.astype(np.float64) - low) / (high - low) * top)
    return as_dtype(np.clip(scaled, 0, top), np.dtype(np.uint8 if top < 2**8 else np.int16))


def score_blinded(key: str | Path, answers: str | Path) -> xr.Dataset:
    """A reader's answers (CSV with name, answer) against the key of a blinded set: `confusion (truth, answer)`.

    Attributes: `accuracy` of the `n` files that were answered (empty answers are `n_unanswered`), `low` and `high` of
    its 95 % Wilson interval; `chance`, the share of the commoner truth; `p_value`, exact binomial test that accuracy is
    above it; `fisher_p`, exact two-sided test that answers depend on the truth, which holds for unequal numbers and
    for a reader who is wrong throughout; `sentence`.

    Raises NoInputError for files that are not there, DataError for files without these columns, names not in the key,
    names given twice, or answers other than real and drawn, and where nothing was answered.
    """
    from scipy.stats import binomtest, fisher_exact

    truths, given = _column(Path(key), "truth"), _column(Path(answers), "answer").str.strip().str.lower()
    if len(unknown := given.index.difference(truths.index)):
        raise DataError(f"{answers} names {unknown[0]!r}, which {key} does not; use the key of this set.")
    told = given[given != ""]
    for where, values in ((key, truths), (answers, told)):
        for name, value in values[~values.isin(ANSWERS)].items():
            raise DataError(f"{where} says {value!r} of {name}.{did_you_mean(value, list(ANSWERS))}")
    if told.empty:
        raise DataError(f"{answers} holds no answer; fill the column 'answer' with {REAL} or {DRAWN}.")
    table = pd.crosstab(truths[told.index], told).reindex(index=ANSWERS, columns=ANSWERS, fill_value=0)
    counts = table.to_numpy()
    total, right = int(counts.sum()), int(np.trace(counts))
    chance, accuracy = float(counts.sum(1).max() / total), right / total
    interval = binomtest(right, total).proportion_ci(method="wilson")
    # of one truth alone nothing can be told; the test would be of a sure thing
    p = float(binomtest(right, total, chance, alternative="greater").pvalue) if chance < 1 else None
    verdict = "The reader tells real from drawn" if p is not None and p < 0.05 else "No sign that the reader can tell"
    return xr.Dataset(
        {"confusion": (("truth", "answer"), counts, {"long_name": "files"})},
        coords={"truth": list(ANSWERS), "answer": list(ANSWERS)},
        attrs={
            "n": total,
            "n_unanswered": len(truths) - len(told),
            "accuracy": accuracy,
            "low": float(interval.low),
            "high": float(interval.high),
            "chance": chance,
            "p_value": p,
            "fisher_p": float(fisher_exact(counts).pvalue),
            "sentence": f"{verdict}: {right} of {total} right, {accuracy:.0%} (95 % interval {interval.low:.0%} to "
            f"{interval.high:.0%}; chance {chance:.0%}).",
        },
    )


def _column(path: Path, column: str) -> pd.Series:
    """A column of a CSV file by its column `name`."""
    try:
        found = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise NoInputError(f"there is no file {path}; give the CSV file with name and {column}.") from None
    except ValueError as error:  # those of pandas and of decoding are of this kind
        raise DataError(f"{path} is not a CSV file ({error}).") from None
    if lacking := [name for name in ("name", column) if name not in found]:
        raise DataError(f"{path} lacks the column {lacking[0]!r}; it has {', '.join(map(str, found)) or 'none'}.")
    values = found.set_index("name")[column].fillna("")
    if values.index.has_duplicates:
        raise DataError(f"{path} names {values.index[values.index.duplicated()][0]!r} twice; keep one.")
    return values
