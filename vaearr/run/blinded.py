"""Real and made samples that a reader is to tell apart: pictures without a hint, their key, and the reader's score."""

from __future__ import annotations

import csv
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError, did_you_mean
from vaearr.models.preprocess import undo
from vaearr.run import Run, open_run
from vaearr.run.draw import check_draws, decoded_array, draw_latents, scale_attrs, seen_batch
from vaearr.run.stream import part_map
from vaearr.sources.nifti import AFFINE, AXES
from vaearr.sources.outputs import as_dtype, stored_affine, write_nifti
from vaearr.store import read_block
from vaearr.store.folders import staged

KINDS = ("draws", "reconstructions")
REAL, DRAWN = "real", "drawn"
IMAGES, KEY, ANSWERS = "images", "key.csv", "answers.csv"
LEVELS = {2: 2**8, 3: 2**12}  # grey levels of images, of volumes
CUT = (0.005, 0.995)  # quantiles of real samples that become black and white


@dataclass(frozen=True)
class Item:
    """A file of the set: its name, whether its sample is real or drawn, which one, and its point or number."""

    name: str
    truth: str
    origin: str
    where: tuple[int, ...]


def blinded_set(
    store: str | Path | Run,
    run: str,
    out: str | Path,
    *,
    n_real: int = 25,
    n_drawn: int = 25,
    seed: int = 0,
    kind: str = "draws",
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

    kind: draws, decoded latents from `source` (prior or fitted), or reconstructions of samples that are not among the
    real ones, in stored units. Draws and the real samples beside them are in stored units where the preprocessing
    treats all samples alike, else as the network sees them. part: of the split that samples come from. The same seed
    makes the same set. Returns the key, `truth, origin (name)`.

    Raises UsageError for arguments that do not fit or samples that are no pictures, NoInputError where the part has too
    few samples, ExistsError for a folder that is there and not empty.
    """
    opened, folder = open_run(store, run, device=device), Path(out)
    _check(opened, n_real, n_drawn, kind, source)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExistsError(f"{folder} is there and not empty; a set takes a new folder.")
    items = _items(opened, n_real, n_drawn, seed=seed, kind=kind, part=part)
    latents = _latents(opened, n_drawn, seed, source) if kind == "draws" else None
    real = [item for item in items if item.truth == REAL]
    limits = None if _is_plain(opened, kind) else _limits(opened, real, kind)
    affine = stored_affine(_with_affine(opened.ds), 0) if schema.signal_dims(opened.ds) == AXES else None
    moment = time.time()
    with staged(folder) as aside:
        (aside / IMAGES).mkdir()
        for item in items:  # in the order of their names, which is random
            values = _levels(opened, _picture(opened, item, kind, latents), kind, limits)
            path = _write(aside / IMAGES / item.name, values, affine)
            os.utime(path, (moment, moment))
        _write_rows(aside / KEY, ("name", "truth", "origin"), [(i.name, i.truth, i.origin) for i in items])
        _write_rows(aside / ANSWERS, ("name", "answer"), [(item.name, "") for item in items])
    return xr.Dataset(
        {
            "truth": ("name", [item.truth for item in items], {"long_name": "real or drawn"}),
            "origin": ("name", [item.origin for item in items], {"long_name": "sample or draw"}),
        },
        coords={"name": [item.name for item in items]},
        attrs={**opened.attrs, "kind": kind, "source": source, "part": part, "seed": seed},
    )


def score_blinded(key: str | Path, answers: str | Path) -> xr.Dataset:
    """A reader's answers (CSV with name, answer) against the key of a blinded set: `confusion (truth, answer)`.

    Attributes: `accuracy` of the `n` files that were answered (empty answers are `n_unanswered`), `low` and `high` of
    its 95 % Wilson interval; `chance`, the share of the commoner truth; `p_value`, exact binomial test that accuracy is
    above it; `fisher_p`, exact two-sided test that answers depend on the truth, which holds for unequal numbers and
    for a reader who is wrong throughout; `sentence`.

    Raises NoInputError for files that are not there, DataError for files without these columns, names not in the key,
    names given twice, or answers other than real and drawn, and where nothing was answered.
    """
    truths = _column(Path(key), "truth")
    given = _column(Path(answers), "answer")
    if unknown := [name for name in given if name not in truths]:
        raise DataError(f"{answers} names {unknown[0]!r}, which {key} does not; use the key of this set.")
    told = {name: answer.strip().lower() for name, answer in given.items() if answer.strip()}
    for where, values in ((key, truths), (answers, told)):
        for name, value in values.items():
            if value not in (REAL, DRAWN):
                raise DataError(f"{where} says {value!r} of {name}.{did_you_mean(value, [REAL, DRAWN])}")
    if not told:
        raise DataError(f"{answers} holds no answer; fill the column 'answer' with {REAL} or {DRAWN}.")
    order = (REAL, DRAWN)
    counts = np.zeros((2, 2), int)
    for name, answer in told.items():
        counts[order.index(truths[name]), order.index(answer)] += 1
    return xr.Dataset(
        {"confusion": (("truth", "answer"), counts, {"long_name": "files"})},
        coords={"truth": list(order), "answer": list(order)},
        attrs={**_score(counts), "n_unanswered": len(truths) - len(told)},
    )


def _score(counts: np.ndarray) -> dict[str, Any]:
    from scipy.stats import binomtest, fisher_exact

    total, right = int(counts.sum()), int(np.trace(counts))
    chance = float(counts.sum(1).max() / total)
    interval = binomtest(right, total).proportion_ci(method="wilson")
    # of one truth alone nothing can be told; the test would be of a sure thing
    p = float(binomtest(right, total, chance, alternative="greater").pvalue) if chance < 1 else None
    accuracy = right / total
    verdict = "The reader tells real from drawn" if p is not None and p < 0.05 else "No sign that the reader can tell"
    return {
        "n": total,
        "accuracy": accuracy,
        "low": float(interval.low),
        "high": float(interval.high),
        "chance": chance,
        "p_value": p,
        "fisher_p": float(fisher_exact(counts).pvalue),
        "sentence": f"{verdict}: {right} of {total} right, {accuracy:.0%} (95 % interval {interval.low:.0%} to "
        f"{interval.high:.0%}; chance {chance:.0%}).",
    }


def _check(opened: Run, n_real: int, n_drawn: int, kind: str, source: str) -> None:
    if kind not in KINDS:
        raise UsageError(f"there is no kind {kind!r} of blinded set.{did_you_mean(kind, list(KINDS))}")
    if min(n_real, n_drawn) < 1:
        raise UsageError(f"a set of {n_real} real and {n_drawn} drawn samples cannot be told apart; give 1 or more.")
    if kind == "draws":
        check_draws(opened, n_drawn, source)
    channels, *sides = opened.model.input_shape
    if channels not in ((1, 3) if len(sides) == 2 else (1,)):
        raise UsageError(
            f"samples of {channels} channels over {schema.signal_dims(opened.ds)} are no pictures: images have 1 or 3, "
            "volumes 1."
        )


def _items(opened: Run, n_real: int, n_drawn: int, *, seed: int, kind: str, part: str) -> list[Item]:
    """Names, truths and origins, in the order of the names."""
    rng = np.random.default_rng([seed, 2])
    points = [tuple(point) for point in np.argwhere(part_map(opened, part, most=None, seed=seed).values).tolist()]
    needed = n_real + (n_drawn if kind == "reconstructions" else 0)
    if len(points) < needed:
        raise NoInputError(
            f"the {part} part of run {opened.name!r} has {len(points)} samples, the set needs {needed}; take fewer or "
            "another part (--part)."
        )
    chosen = [points[i] for i in rng.permutation(len(points))[:needed]]
    made = chosen[n_real:] or [(i,) for i in range(n_drawn)]
    sides = [(REAL, point, _label(opened, point)) for point in chosen[:n_real]]
    for where in made:
        text = f"draw {where[0]} of seed {seed}" if kind == "draws" else f"reconstruction of {_label(opened, where)}"
        sides.append((DRAWN, where, text))
    suffix = ".png" if len(opened.model.input_shape) == 3 else ".nii"
    codes = rng.choice(16**6, len(sides), replace=False)
    return sorted(
        (
            Item(f"{code:06x}{suffix}", truth, origin, where)
            for code, (truth, where, origin) in zip(codes.tolist(), sides, strict=True)
        ),
        key=lambda item: item.name,
    )


def _label(opened: Run, point: tuple[int, ...]) -> str:
    nav = schema.navigation_dims(opened.ds)
    return ", ".join(f"{dim} {opened.ds[dim].values[i]}" for dim, i in zip(nav, point, strict=True))


def _latents(opened: Run, n_drawn: int, seed: int, source: str) -> np.ndarray:
    return np.concatenate(list(draw_latents(opened, n_drawn, seed, source)))


def _stored(opened: Run, point: tuple[int, ...]) -> torch.Tensor:
    """The sample at a point as it was stored, `(1, C, …)`."""
    place = dict(zip(schema.navigation_dims(opened.ds), (slice(i, i + 1) for i in point), strict=True))
    block = read_block(opened.ds[n.PATTERNS], place)
    plain = np.ascontiguousarray(block).astype(block.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(plain.reshape(1, *opened.model.input_shape)).to(opened.model.device)


def _picture(opened: Run, item: Item, kind: str, latents: np.ndarray | None) -> np.ndarray:
    """A sample `(C, …)` in the units of the set."""
    model = opened.model
    if item.truth == DRAWN and latents is not None:
        return decoded_array(opened, latents[item.where[0]][None], n.SAMPLE).values.reshape(model.input_shape)
    raw = _stored(opened, item.where)
    if item.truth == DRAWN:
        decoded = model.decode_batch(model.encode_batch(raw)[0])
        with torch.inference_mode():
            found = undo(decoded, raw, model.preprocess.background, model.preprocess_config)
    else:
        found = raw.float() if kind == "reconstructions" else seen_batch(opened, raw)
    return np.asarray(found[0].cpu().numpy())


def _is_stored(opened: Run, kind: str) -> bool:
    return kind == "reconstructions" or scale_attrs(opened)["scale"] == "stored"


def _is_plain(opened: Run, kind: str) -> bool:
    """Whether the values are bytes of images already, which need no other scale."""
    is_image = len(opened.model.input_shape) == 3
    return is_image and _is_stored(opened, kind) and opened.ds[n.PATTERNS].dtype == np.uint8


def _limits(opened: Run, real: list[Item], kind: str) -> tuple[float, float]:
    """Values that become black and white."""
    found = [np.nanquantile(_picture(opened, item, kind, None), CUT) for item in real]
    low, high = float(min(pair[0] for pair in found)), float(max(pair[1] for pair in found))
    if not low < high:
        raise DataError("all values of the real samples are equal; there is nothing to see.")
    return low, high


def _levels(opened: Run, values: np.ndarray, kind: str, limits: tuple[float, float] | None) -> np.ndarray:
    """A sample in the grey levels of the set, `(…)` of grey ones and `(3, H, W)` of colours.

    What was stored in whole numbers is rounded to them first, so that real samples do not show gaps that others lack.
    """
    dtype = opened.ds[n.PATTERNS].dtype
    if dtype.kind in "iu" and _is_stored(opened, kind):
        values = as_dtype(values, dtype)
    if limits is not None:
        low, high = limits
        top = LEVELS[values.ndim - 1] - 1
        scaled = (values.astype(np.float64) - low) / (high - low) * top
        values = as_dtype(np.clip(np.nan_to_num(scaled), 0, top), np.dtype(np.uint8 if top < 2**8 else np.int16))
    return values[0] if len(values) == 1 else values


def _write(path: Path, values: np.ndarray, affine: np.ndarray | None) -> Path:
    if path.suffix == ".png":
        from PIL import Image

        pixels: Any = np.ascontiguousarray(np.moveaxis(values, 0, -1) if values.ndim == 3 else values)
        Image.fromarray(pixels).save(path, compress_level=0)
        return path
    write_nifti(path, values, None, affine)
    return path


def _with_affine(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign({AFFINE: ds[AFFINE].load()}) if AFFINE in ds.data_vars else ds


def _write_rows(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _column(path: Path, column: str) -> dict[str, str]:
    """A column of a CSV file by its column `name`."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = reader.fieldnames or []
    except FileNotFoundError:
        raise NoInputError(f"there is no file {path}; give the CSV file with name and {column}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file ({error}).") from None
    if lacking := [name for name in ("name", column) if name not in columns]:
        raise DataError(f"{path} lacks the column {lacking[0]!r}; it has {', '.join(columns) or 'none'}.")
    found: dict[str, str] = {}
    for row in rows:
        if row["name"] in found:
            raise DataError(f"{path} names {row['name']!r} twice; keep one.")
        found[row["name"]] = row[column] or ""
    return found
