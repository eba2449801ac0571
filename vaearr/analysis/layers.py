"""Layer-wise comparison of two samples, or of many pairs, in the encoder and decoder of a trained
model.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr.analysis.association.p_values import adjust
from vaearr.computing.progress import Progress, tracked
from vaearr.config import IngestConfig
from vaearr.errors import DataError, NoInputError, VaearrError
from vaearr.models.artifacts import TrainedModel
from vaearr.models.hooks import LEAF, evaluating, watching
from vaearr.names import DECODER, DIFFERENCE_MAP, ENCODER, INPUT, LATENT, LAYER, OUTPUT, PAIR
from vaearr.recipe import nested
from vaearr.schema.grid import find_point
from vaearr.sources.single import SUFFIXES, read_single
from vaearr.store import read_block

TOP = 10
SHOWN = 8  # names and reasons in an error
PIECE = 2**20  # values in float64 at once
MOST_POSITIONS = 2**20  # of a difference map; larger ones are averaged down
ROUNDING = 1e-5  # relative change of a layer's size that is rounding, as where a normalisation fixes that size
MEASURES = {
    "l2": "L2 norm of the difference a - b",
    "rms": "root mean square of the difference a - b",
    "relative_l2": "L2 norm of the difference over that of a",
    "cosine": "cosine similarity",
    "mean_abs": "mean absolute difference",
    "rms_a": "root mean square of a",
    "rms_b": "root mean square of b",
}
TESTS = {
    "rms_change_mean": "mean over pairs of rms_b - rms_a",
    "rms_change_std": "standard deviation over pairs of rms_b - rms_a",
    "effect_size": "rms_change_mean / rms_change_std",
    "t": "paired t statistic of rms_b - rms_a",
    "t_p_value": "two-sided p-value of the paired t-test",
    "t_p_adjusted": "p-value of the paired t-test, Holm over layers",
}


class Output(NamedTuple):
    """What a layer put out for one sample `(1, C, …)`."""

    name: str
    kind: str
    part: str
    values: torch.Tensor


class Layer(NamedTuple):
    """What one run of a layer put out for two samples, reduced: `sums`, and `squares` where it has
    positions.
    """

    label: str
    name: str
    call: int
    kind: str
    part: str
    shape: tuple[int, ...]
    sums: torch.Tensor
    squares: torch.Tensor | None


class Pair(NamedTuple):
    """Two samples with a name; `read` gives them `(a, b)` when their turn comes."""

    name: str
    read: Callable[[], tuple[Any, Any]]


def compare_layers(
    model: TrainedModel,
    a: xr.DataArray | np.ndarray,
    b: xr.DataArray | np.ndarray,
    *,
    top: int = TOP,
) -> xr.Dataset:
    """How far two samples are apart at each layer of a trained model, in the order in which the
    layers are run.

    A layer is a module without modules inside that changes values.
    Both go through preprocessing, encoder, posterior mean (no draw) and decoder, one after the
    other, in float32 and evaluation mode. What the layers put out for a is kept on the host until b
    is compared with it, in float64; weights, modes and hooks of the model are afterwards as they
    were. Two equal samples differ by exactly 0 everywhere.

    Parameters
    ----------
    a, b : stored patterns `(C, …)`, or `(…)` where there is one channel; DataArrays are read by the
    names of their dims
    top : number of layers with the largest `relative_l2` whose difference maps are kept; 0 keeps
    none

    Returns
    -------
    xr.Dataset
        Over `layer`: l2, rms, relative_l2, cosine, mean_abs, rms_a, rms_b (see `measures`), with
        coordinates `layer` (the module's name, `name:2` at its second call), `name`, `call`, `kind`
        (class), `part` (input, encoder, latent, decoder, output), `order`, `shape` and `n_values`.
        `difference_map_<order>`: RMS over channels of a - b at each position of that layer, on its
        own grid. `input_a`, `input_b`, `decoded_a`, `decoded_b`: the samples as the network sees
        and decodes them. attrs: `maps`, the variables of the layers, largest first.

    Raises DataError for samples of another shape or with values that are not finite.
    """
    layers, ends = trace(model, pair_batch(model, a, b))
    table = _with_maps(
        _table(layers, [layer.sums for layer in layers]),
        [one.squares for one in layers],
        model,
        top,
    )
    signal = tuple(model.signal_dims)
    for which, name, words in (
        (INPUT, "input", "as the network sees it"),
        (OUTPUT, "decoded", "decoded mean"),
    ):
        for side, values in zip("ab", ends[which], strict=True):
            shown = (
                model.preprocess.enlarged(values)
                .cpu()
                .numpy()
                .reshape(model.input_shape[-len(signal) :])
            )
            table[f"{name}_{side}"] = (
                signal,
                shown,
                {"long_name": f"{side}: {words}", "units": "1"},
            )
    return table.assign_attrs(top=top, n=1)


def compare_pairs(
    model: TrainedModel,
    pairs: Sequence[Pair | tuple[Any, Any]],
    *,
    top: int = TOP,
    skip_bad: bool = False,
    progress: Progress = True,
) -> xr.Dataset:
    """`compare_layers` for many pairs, one after the other, with mean, spread and a paired test for
    each layer.

    The differences l2, rms and so on are distances: they are never negative, so that a test of them
    against zero says nothing. What is tested is whether a layer answers more strongly to b than to
    a: the change rms_b - rms_a of its activation's root mean square over the pairs, by the
    two-sided paired t-test, corrected by Holm over the layers of encoder and decoder. The pairs are
    taken as independent; images of one person are not. A change of less than 1e-5 of the size is
    rounding and counts as 0; where no pair changes, t is 0 and p 1.

    Parameters
    ----------
    pairs : `(a, b)` of stored patterns, or a `Pair` each, read in its turn
    top : as for `compare_layers`; the maps are root mean squares over the pairs
    skip_bad : leave out pairs that cannot be read or do not fit

    Returns
    -------
    xr.Dataset
        The measures over `(pair, layer)`; `<measure>_mean`, `<measure>_std` (with n - 1) and
        `n_<measure>`, the number of pairs where it is finite, over `layer`; `rms_change_mean`,
        `rms_change_std`, `effect_size`, `t`, and its p-value, plain and adjusted. With one pair
        spreads and tests are NaN. Coordinates and maps as of `compare_layers`. attrs: `n`, `failed`
        (pairs left out, with the reason), `warnings`.

    Raises DataError where pairs cannot be read or do not fit (all named, unless `skip_bad` and some
    are left), and what `compare_layers` raises.
    """
    named_pairs = [
        pair if isinstance(pair, Pair) else Pair(str(i), partial(tuple, pair))
        for i, pair in enumerate(pairs)
    ]
    names: list[str] = []
    failed: list[str] = []
    sums_of_pairs: list[torch.Tensor] = []
    first_layers: list[Layer] = []
    squares: list[Any] = []
    for pair in tracked(named_pairs, progress, "comparing"):
        try:
            layers, _ = trace(model, pair_batch(model, *pair.read()))
        except (VaearrError, OSError) as error:
            failed.append(f"{pair.name}: {str(error).rstrip('.')}")
            continue
        if not names:
            first_layers, squares = layers, [layer.squares for layer in layers]
        elif [layer.label for layer in layers] != [layer.label for layer in first_layers]:
            raise DataError(
                f"pair {pair.name!r} runs other layers than the first pair; compare it alone."
            )
        else:
            for i, layer in enumerate(layers):
                if layer.squares is not None:
                    squares[i] = squares[i] + layer.squares
        names.append(pair.name)
        sums_of_pairs.append(torch.stack([layer.sums for layer in layers]))
    if failed and not (skip_bad and names):
        then = (
            "correct them, or leave them out with skip_bad=True (--skip-bad)"
            if names
            else "none is left"
        )
        reasons = _listed(failed, "; ")
        raise DataError(
            f"{len(failed)} of {len(named_pairs)} pairs cannot be compared: {reasons}. Of these: {then}."
        )
    if not names:
        raise DataError("there is no pair to compare; give one or more.")
    table = _table(first_layers, sums_of_pairs, names)
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # of one pair, which has no spread
        warnings.simplefilter("ignore", RuntimeWarning)
        table = table.merge(_over_pairs(table)).merge(_tests(table))
    mean_squares = [None if total is None else total / len(names) for total in squares]
    table = _with_maps(table, mean_squares, model, top)
    notes = ["one pair has no spread and allows no test: these are NaN; give two pairs or more."]
    return table.assign_attrs(
        top=top, n=len(names), failed=failed, warnings=notes if len(names) < 2 else []
    )


def _listed(items: Sequence[str], between: str = ", ") -> str:
    return between.join(items[:SHOWN]) + (
        f"{between}and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    )


# ---- one pair through the network -----------------------------------------------------------------------------------


def pair_batch(model: TrainedModel, a: Any, b: Any) -> torch.Tensor:
    """Two samples as the batch `(2, C, …)` that the model takes, in their stored type."""
    both = np.stack([_plain(model, a, "a"), _plain(model, b, "b")])
    return torch.from_numpy(both.astype(both.dtype.newbyteorder("="), copy=False))


def _plain(model: TrainedModel, sample: Any, which: str) -> np.ndarray:
    if isinstance(sample, xr.DataArray):
        if set(sample.dims) != set(model.signal_dims):
            raise DataError(
                f"sample {which} has dims {sample.dims}; expected one sample over {tuple(model.signal_dims)}."
            )
        sample = sample.transpose(*model.signal_dims)
    values, shape = np.asarray(sample), model.input_shape
    if values.shape != shape and (shape[0] != 1 or values.shape != shape[1:]):
        raise DataError(
            f"sample {which} has shape {values.shape}; the model was trained on samples of shape {shape}."
        )
    if values.dtype.kind not in "uif":
        raise DataError(
            f"sample {which} has dtype {values.dtype}; expected whole or floating numbers."
        )
    if not np.isfinite(values).all():
        raise DataError(f"sample {which} holds values that are not finite; choose another one.")
    return values.reshape(shape)


def trace(
    model: TrainedModel, stored: torch.Tensor
) -> tuple[list[Layer], dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Run two stored samples `(2, C, …)` through the model, one after the other, and reduce each
    layer.

    The outputs of the first are kept on the host until those of the second are compared with them.
    Returns the layers in the order of execution, and the samples as they went in and came out. Each
    sample is a batch of its own: in one batch the position of a sample may change the last digits
    of its result. Raises DataError where the two do not run the same layers.
    """
    outputs_of_a: deque[Output] = deque()
    layers: list[Layer] = []
    ends: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    calls: Counter[str] = Counter()

    def keep(output: Output) -> None:
        outputs_of_a.append(output._replace(values=output.values.to("cpu", copy=True)))

    def compare(output: Output) -> None:
        first = outputs_of_a.popleft() if outputs_of_a else None
        if first is None or not _is_same_layer(first, output):
            raise DataError(
                f"the samples do not run the same layers: only one of them runs {output.name!r}."
            )
        values = first.values.to(output.values.device)
        if output.part in (INPUT, OUTPUT):
            ends[output.part] = values, output.values
        calls[output.name] += 1
        layers.append(_reduced(output, values, calls[output.name], len(model.input_shape)))

    with evaluating(model.network):
        _run(model, stored[:1].clone(), keep)
        _run(model, stored[1:].clone(), compare)
    if outputs_of_a:
        raise DataError(
            f"the samples do not run the same layers: only one of them runs {outputs_of_a[0].name!r}."
        )
    return layers, ends


def _run(model: TrainedModel, sample: torch.Tensor, emit: Callable[[Output], None]) -> None:
    """Run one sample `(1, C, …)` through the model; `emit` gets what each layer puts out."""
    network: Any = model.network
    part = ENCODER

    def on_output(name: str, module: nn.Module, values: torch.Tensor) -> None:
        emit(Output(name, type(module).__name__, part, values))

    no_autocast = torch.autocast(model.device.type, enabled=False)
    with torch.inference_mode(), no_autocast, watching(network, LEAF, on_output):
        network_input = model.preprocess(sample.to(model.device))
        emit(Output(INPUT, INPUT, INPUT, network_input))
        mean = network.encode(network_input)[0].float()
        emit(Output(LATENT, LATENT, LATENT, mean))
        part = DECODER
        emit(Output(OUTPUT, OUTPUT, OUTPUT, network.decode(mean).float()))


def _is_same_layer(a: Output, b: Output) -> bool:
    return (a.name, a.part, a.values.shape) == (b.name, b.part, b.values.shape)


@torch.inference_mode()
def _reduced(output_of_b: Output, values_of_a: torch.Tensor, call: int, n_dims: int) -> Layer:
    a, b = (
        values[0] if len(values) == 1 else values for values in (values_of_a, output_of_b.values)
    )
    squares = squared_map(a, b) if a.ndim == n_dims and a.numel() else None
    name, kind, part, _ = output_of_b
    label = name if call == 1 else f"{name}:{call}"
    return Layer(label, name, call, kind, part, tuple(a.shape), sums(a, b), squares)


def sums(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sums of a^2, b^2, a b, (a - b)^2 and |a - b| over all values: `2 x (…) -> (5,)`, float64
    where the device can.

    They stay on the device, so that nothing waits for it.
    """
    wide = torch.float32 if a.device.type == "mps" else torch.float64
    total = torch.zeros(5, dtype=wide, device=a.device)
    for x, y in zip(a.reshape(-1).split(PIECE), b.reshape(-1).split(PIECE), strict=True):
        x, y = x.to(wide), y.to(wide)
        off = x - y
        total += torch.stack(
            [part.sum() for part in (x.square(), y.square(), x * y, off.square(), off.abs())]
        )
    return total


def squared_map(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean of (a - b)^2 over channels at each position: `2 x (C, *spatial) -> spatial`, float32 on
    the host.

    A map of more than 2^20 positions is averaged down to at most that.
    """
    squares = (a.float() - b.float()).square().mean(0)
    if squares.numel() > MOST_POSITIONS:
        shrink = (MOST_POSITIONS / squares.numel()) ** (1 / squares.ndim)
        size = tuple(max(1, math.floor(side * shrink)) for side in squares.shape)
        squares = F.interpolate(squares[None, None], size, mode="area")[0, 0]
    return squares.cpu()


# ---- numbers of layers ----------------------------------------------------------------------------------------------


def measures(found: np.ndarray, n_values: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of `MEASURES` from such sums: `(…, 5), (…) -> (…)` each, float64.

    l2 = |a - b|; rms = l2 / sqrt(n); relative_l2 = l2 / |a|; cosine = a.b / (|a| |b|), the cosine
    of their angle; mean_abs; rms_a and rms_b = |a| / sqrt(n), |b| / sqrt(n). Where a and b are
    equal, zeros too, relative_l2 is 0 and cosine 1. Where only a is all zeros relative_l2 is NaN,
    and where one of them is cosine is.
    """
    aa, bb, ab, dd, absolute = np.moveaxis(np.asarray(found, np.float64), -1, 0)
    same, (a, b, off) = dd == 0, np.sqrt([aa, bb, dd])
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(same, 0.0, np.where(a > 0, off / a, np.nan))
        cosine = np.where(same, 1.0, np.clip(ab / (a * b), -1.0, 1.0))
    root = np.sqrt(n_values)
    return dict(
        zip(
            MEASURES,
            (off, off / root, relative, cosine, absolute / n_values, a / root, b / root),
            strict=True,
        )
    )


def _table(
    layers: Sequence[Layer], found: Sequence[torch.Tensor], pairs: Sequence[str] | None = None
) -> xr.Dataset:
    """The numbers of all layers, of `(layer, 5)` sums or, with names of pairs, of `(pair, layer,
    5)`.
    """
    n_values = np.array([math.prod(layer.shape) for layer in layers], np.int64)
    dims, values = (
        (LAYER,) if pairs is None else (PAIR, LAYER),
        measures(torch.stack([*found]).cpu().numpy(), n_values),
    )
    coords = {
        LAYER: ([layer.label for layer in layers], "layer, in order of execution"),
        "name": ([layer.name for layer in layers], "name of the module"),
        "call": ([layer.call for layer in layers], "call of the module"),
        "kind": ([layer.kind for layer in layers], "class of the module"),
        "part": ([layer.part for layer in layers], "part of the network"),
        "order": (np.arange(len(layers)), "place in the order of execution"),
        "shape": ([" x ".join(map(str, layer.shape)) for layer in layers], "shape"),
        "n_values": (n_values, "values of one sample"),
    }
    table = xr.Dataset(
        {
            name: (dims, values[name], {"long_name": words, "units": "1"})
            for name, words in MEASURES.items()
        },
        coords={
            name: (LAYER, column, {"long_name": words}) for name, (column, words) in coords.items()
        },
    )
    return (
        table
        if pairs is None
        else table.assign_coords({PAIR: (PAIR, [*pairs], {"long_name": "pair"})})
    )


def top_layers(found: xr.Dataset, top: int = TOP) -> np.ndarray:
    """Positions of the encoder's and decoder's layers with the largest `relative_l2` (mean over
    pairs), largest first.

    NaN is left out; of equal values the one that is run first comes first.
    """
    score = found["relative_l2_mean" if PAIR in found["relative_l2"].dims else "relative_l2"].values
    candidates = np.flatnonzero(found["part"].isin([ENCODER, DECODER]).values & np.isfinite(score))
    return candidates[np.argsort(-score[candidates], kind="stable")][:top]


def _with_maps(
    table: xr.Dataset, squares: Sequence[torch.Tensor | None], model: TrainedModel, top: int
) -> xr.Dataset:
    """The table with the roots of the mean squares of its `top` layers with positions, and of input
    and output.

    Each map has dims of its own, `<dim>_<order>`; the attribute `maps` names those of layers,
    largest difference first.
    """
    ranked = [int(i) for i in top_layers(table, table.sizes[LAYER]) if squares[i] is not None][:top]
    ends = np.flatnonzero(table["part"].isin([INPUT, OUTPUT]).values & (top > 0))
    spatial = model.signal_dims[-(len(model.input_shape) - 1) :]
    found = table.copy()
    for i in [*ranked, *ends]:
        if (square := squares[i]) is not None:
            about = {LAYER: str(table[LAYER].values[i]), "kind": str(table["kind"].values[i])}
            attrs = {
                "long_name": "root mean square difference over channels",
                "units": "1",
                **about,
            }
            found[f"{DIFFERENCE_MAP}_{i}"] = (
                tuple(f"{dim}_{i}" for dim in spatial),
                square.sqrt().numpy(),
                attrs,
            )
    return found.assign_attrs(maps=[f"{DIFFERENCE_MAP}_{i}" for i in ranked])


# ---- over many pairs ------------------------------------------------------------------------------------------------


def _over_pairs(table: xr.Dataset) -> xr.Dataset:
    out = xr.Dataset()
    for name, text in MEASURES.items():
        known = table[name].where(np.isfinite(table[name]))
        out[f"{name}_mean"] = known.mean(PAIR).assign_attrs(
            long_name=f"{text}, mean over pairs", units="1"
        )
        std = known.std(PAIR, ddof=1)
        out[f"{name}_std"] = std.assign_attrs(
            long_name=f"{text}, standard deviation over pairs", units="1"
        )
        out[f"n_{name}"] = known.count(PAIR).assign_attrs(
            long_name=f"pairs with a finite {text}", units="1"
        )
    return out


def _tests(table: xr.Dataset) -> xr.Dataset:
    """Two-sided paired t-test of rms_b - rms_a over the pairs for each layer."""
    from scipy import stats

    one, two = (table[name].transpose(PAIR, LAYER).values for name in ("rms_a", "rms_b"))
    change = np.where(np.abs(two - one) <= ROUNDING * np.maximum(one, two), 0.0, two - one)
    mean, std = change.mean(axis=0), change.std(axis=0, ddof=1)
    t, p_value = stats.ttest_1samp(change, 0.0)
    is_same = (mean == 0) & (std == 0)
    t[is_same], p_value[is_same] = 0.0, 1.0
    is_layer = table["part"].isin([ENCODER, DECODER]).values
    adjusted = adjust(np.where(is_layer, p_value, np.nan), "holm")
    columns = zip(TESTS.items(), (mean, std, mean / std, t, p_value, adjusted), strict=True)
    return xr.Dataset(
        {
            name: (LAYER, values, {"long_name": words, "units": "1"})
            for (name, words), values in columns
        }
    )


# ---- where samples come from, and where results go ------------------------------------------------------------------


def sample_of(ds: xr.Dataset, given: str | Path | float | Mapping[str, float]) -> np.ndarray:
    """One sample `(*signal shape)`: of a file as the store's ingest would make it, or a sample of
    the store.

    given: path of a file; coordinates such as `{"x": 2.0, "y": 0.5}`; or, for a collection, the
    value of its coordinate `sample`. Raises NoInputError or DataError for a file that is not there
    or does not fit, UsageError for a point that is not in the store.
    """
    if isinstance(given, str | Path):
        return read_single(ds, given).values
    place = find_point(ds, given)
    return read_block(ds[n.PATTERNS], {dim: slice(i, i + 1) for dim, i in place.items()})[
        (0,) * len(place)
    ]


def pairs_of_folders(
    ds: xr.Dataset, positive: str | Path, negative: str | Path, *, skip_bad: bool = False
) -> tuple[list[Pair], list[str]]:
    """Files of the same name in two folders as pairs `(positive, negative)`, sorted; and the names
    in one only.

    Images, NIfTI volumes and .npy files, without sub-folders; masks, by the name that the store's
    ingest knows them by, are left out. Raises NoInputError for a folder that is not there,
    DataError where no name is in both, and for names in one folder only unless `skip_bad`.
    """
    masks = IngestConfig.from_attrs((nested(ds.attrs, n.PROVENANCE) or {}).get("ingest", {})).masks
    one, two = (_files(Path(folder), masks) for folder in (positive, negative))
    both, alone = sorted(one.keys() & two.keys()), sorted(one.keys() ^ two.keys())
    words = f"{len(alone)} files have no partner of the same name in the other folder: {_listed(alone)}."
    if not both:
        raise DataError(f"no file of {positive} has its partner in {negative}: {words}")
    if alone and not skip_bad:
        raise DataError(
            f"{words} Add their partners, or leave them out with skip_bad=True (--skip-bad)."
        )

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        return read_single(ds, one[name]).values, read_single(ds, two[name]).values

    return [Pair(name, partial(read, name)) for name in both], alone


def _files(folder: Path, masks: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise NoInputError(
            f"there is no folder {folder}; give one that holds the files to compare."
        )
    found = [
        p
        for p in folder.iterdir()
        if p.is_file() and p.name.lower().endswith(SUFFIXES) and p.name[0] != "."
    ]
    return {path.name: path for path in found if not (masks and fnmatch(path.stem, masks))}
