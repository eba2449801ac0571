"""Layer-wise comparison of two samples, or of many pairs, in the network of a trained model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr.computing.progress import Progress, tracked
from vaearr.errors import DataError
from vaearr.models.artifacts import TrainedModel
from vaearr.models.hooks import watching
from vaearr.names import DECODER, DIFFERENCE_MAP, ENCODER, INPUT, LATENT, LAYER, OUTPUT, PAIR

TOP = 10
BLOCK_VALUES = 2**20  # values in float64 at once
MAX_POSITIONS = 2**20  # of a difference map; larger ones are averaged down
ROUNDING = 1e-5  # smallest relative change of a layer's size, as after a normalisation
MEASURES = {
    "l2": "L2 norm of the difference a - b",
    "rms": "root mean square of the difference a - b",
    "relative_l2": "L2 norm of the difference over that of a",
    "cosine": "cosine similarity",
    "mean_abs": "mean absolute difference",
    "rms_a": "root mean square of a",
    "rms_b": "root mean square of b",
}


class Output(NamedTuple):
    """The output of a layer for one sample `(1, C, …)`."""

    name: str
    kind: str  # class of the module
    part: str
    values: torch.Tensor


class Layer(NamedTuple):
    """The outputs of one run of a layer for two samples, reduced."""

    name: str
    kind: str
    part: str
    shape: tuple[int, ...]
    sums: torch.Tensor  # (5,), see `sums`
    squares: torch.Tensor | None  # see `squared_map`; None for outputs without positions


def compare_layers(
    model: TrainedModel,
    a: xr.DataArray | np.ndarray,
    b: xr.DataArray | np.ndarray,
    *,
    top: int = TOP,
) -> xr.Dataset:
    """Measure how far two samples are apart at each layer of a trained model.

    A layer is a module without modules inside that changes values. The samples pass through
    preprocessing, encoder, posterior mean (nothing is sampled) and decoder, one after the other, in
    float32 and evaluation mode. The outputs for a are kept on the host until those for b are
    compared with them, in float64. The model keeps its weights and is left in evaluation mode. Two
    equal samples differ by exactly 0 everywhere.

    Parameters
    ----------
    model
        The model of a run.
    a, b
        Stored patterns `(C, …)`, or `(…)` with one channel; the dims of DataArrays may be in any
        order.
    top
        Number of layers with the largest `relative_l2` whose difference maps are kept; 0 keeps
        none.

    Returns
    -------
    xarray.Dataset
        Over `layer`, in order of execution: l2, rms, relative_l2, cosine, mean_abs, rms_a, rms_b
        (see `measures`), with coordinates `layer` (the module's name, `name:2` at its second call),
        `name`, `call`, `kind` (class), `part` (input, encoder, latent, decoder, output), `order`,
        `shape` and `n_values`. `difference_map_<order>`: RMS over channels of a - b at each
        position of that layer, on its own grid. `input_a`, `input_b`, `decoded_a`, `decoded_b`: the
        preprocessed samples and their decoded means. attrs: `maps`, the variables of the layers,
        largest first.

    Raises
    ------
    DataError
        For samples of another shape or with values that are not finite.
    """
    layers, ends = trace(model, pair_batch(model, a, b))
    sums_of_layers = torch.stack([layer.sums for layer in layers])
    table = _table(layers, [sums_of_layers], [""]).isel({PAIR: 0}, drop=True)
    squares = [layer.squares for layer in layers]
    table = _with_maps(table, squares, model, top)
    signal = tuple(model.signal_dims)
    shape = model.input_shape[-len(signal) :]
    for part, name, text in (
        (INPUT, "input", "preprocessed"),
        (OUTPUT, "decoded", "decoded mean"),
    ):
        for sample, values in zip("ab", ends[part], strict=True):
            image = model.preprocess.enlarged(values).cpu().numpy().reshape(shape)
            table[f"{name}_{sample}"] = n.named(signal, image, f"{sample}: {text}")
    return table.assign_attrs(top=top, n=1)


def compare_pairs(
    model: TrainedModel,
    a: xr.DataArray | np.ndarray,
    b: xr.DataArray | np.ndarray,
    *,
    top: int = TOP,
    progress: Progress = True,
) -> xr.Dataset:
    """Compare many pairs as `compare_layers` does, with a paired test for each layer.

    The differences l2, rms and so on are distances: they are never negative, so a test against zero
    says nothing. The test asks whether a layer responds more strongly to b than to a: the change
    rms_b - rms_a over the pairs, by the two-sided paired t-test, corrected by Holm over the layers
    of encoder and decoder. The pairs are taken as independent; images of one person are not. A
    change of less than 1e-5 of the size is rounding and counts as 0; if no pair changes, t is 0 and
    p is 1.

    Parameters
    ----------
    model
        The model of a run.
    a, b
        Stored patterns `(pair, …)`, each read in its turn. A coordinate `pair` of `a` names them.
    top
        As for `compare_layers`; the maps are root mean squares over the pairs.
    progress
        Whether to show progress, or a function that is called with (done, total, text).

    Returns
    -------
    xarray.Dataset
        The measures over `(pair, layer)`; `<measure>_mean`, `<measure>_std` (with n - 1) and
        `n_<measure>`, the number of pairs where it is finite, over `layer`; `rms_change_mean`,
        `rms_change_std`, `effect_size`, `t`, and its p-value, plain and adjusted. With one pair,
        spreads and tests are NaN. Coordinates and maps as for `compare_layers`. attrs: `n`,
        `warnings`.

    Raises
    ------
    DataError
        If there is no pair, if a sample does not fit the model, or if a pair runs other layers.
    """
    if len(a) != len(b) or len(a) == 0:
        raise DataError(
            f"{len(a)} samples a and {len(b)} samples b make no pairs; give one b for each a."
        )
    names = [str(i) for i in range(len(a))]
    if isinstance(a, xr.DataArray) and PAIR in a.coords:
        names = a[PAIR].values.tolist()
    sums_of_pairs: list[torch.Tensor] = []
    totals: list[Layer] = []
    for i in tracked(range(len(names)), progress, "comparing"):
        layers, _ = trace(model, pair_batch(model, a[i], b[i]))
        totals = _added(totals, layers, names[i])
        sums_of_pairs.append(torch.stack([layer.sums for layer in layers]))
    table = _table(totals, sums_of_pairs, names)
    table = table.merge(_statistics(table)).merge(_tests(table))
    squares = [None if layer.squares is None else layer.squares / len(names) for layer in totals]
    table = _with_maps(table, squares, model, top)
    notes = []
    if len(names) < 2:
        notes = ["one pair has no spread and allows no test: these are NaN; give two or more."]
    return table.assign_attrs(top=top, n=len(names), warnings=notes)


def _added(totals: list[Layer], layers: list[Layer], pair: str) -> list[Layer]:
    """The layers with their squares added to those of earlier pairs."""
    if not totals:
        return layers
    if [layer.name for layer in totals] != [layer.name for layer in layers]:
        raise DataError(f"pair {pair!r} runs other layers than the first pair; compare it alone.")
    added = []
    for total, layer in zip(totals, layers, strict=True):
        if total.squares is not None and layer.squares is not None:
            total = total._replace(squares=total.squares + layer.squares)
        added.append(total)
    return added


# ---- one pair through the network


def pair_batch(model: TrainedModel, a: Any, b: Any) -> torch.Tensor:
    """Two samples as the batch `(2, C, …)` that the model takes, in their stored type."""
    both = np.stack([_plain(model, a, "a"), _plain(model, b, "b")])
    native = both.dtype.newbyteorder("=")
    return torch.from_numpy(both.astype(native, copy=False))


def _plain(model: TrainedModel, sample: Any, name: str) -> np.ndarray:
    if isinstance(sample, xr.DataArray):
        if set(sample.dims) != set(model.signal_dims):
            raise DataError(
                f"sample {name} has dims {sample.dims}; expected one sample over "
                f"{tuple(model.signal_dims)}."
            )
        sample = sample.transpose(*model.signal_dims)
    values = np.asarray(sample)
    shape = model.input_shape
    shapes = [shape, shape[1:]] if shape[0] == 1 else [shape]
    if values.shape not in shapes:
        raise DataError(
            f"sample {name} has shape {values.shape}; the model was trained on samples of shape "
            f"{shape}."
        )
    if values.dtype.kind not in "uif":
        raise DataError(
            f"sample {name} has dtype {values.dtype}; expected whole or floating numbers."
        )
    if not np.isfinite(values).all():
        raise DataError(f"sample {name} holds values that are not finite; choose another one.")
    return values.reshape(shape)


def trace(
    model: TrainedModel, stored: torch.Tensor
) -> tuple[list[Layer], dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Run two stored samples `(2, C, …)` through the model and reduce the outputs of each layer.

    Each sample is a batch of its own: in one batch the position of a sample may change the last
    digits of its result. Returns the layers in order of execution, and both samples as network
    input and output. Raises DataError if the two do not run the same layers.
    """
    outputs_of_a: list[Output] = []  # on the host, in order of execution
    layers: list[Layer] = []
    ends: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(output: Output) -> None:
        outputs_of_a.append(output._replace(values=output.values.to("cpu", copy=True)))

    def compare(output: Output) -> None:
        if not outputs_of_a:
            raise _other_layers(output)
        a = outputs_of_a.pop(0)
        if a[:3] != output[:3] or a.values.shape != output.values.shape:
            raise _other_layers(output)
        values = a.values.to(output.values.device)
        if output.part in (INPUT, OUTPUT):
            ends[output.part] = values, output.values
        layers.append(_reduced(output, values, len(model.input_shape)))

    model.eval()
    _run(model, stored[:1].clone(), keep)
    _run(model, stored[1:].clone(), compare)
    if outputs_of_a:
        raise _other_layers(outputs_of_a[0])
    return layers, ends


def _other_layers(output: Output) -> DataError:
    return DataError(
        f"the samples do not run the same layers: only one of them runs {output.name!r}."
    )


def _run(model: TrainedModel, sample: torch.Tensor, emit: Callable[[Output], None]) -> None:
    """Run one sample `(1, C, …)` through the model; `emit` gets the output of each layer."""
    network: Any = model.network
    part = ENCODER

    def on_output(name: str, module: nn.Module, values: torch.Tensor) -> None:
        emit(Output(name, type(module).__name__, part, values))

    no_autocast = torch.autocast(model.device.type, enabled=False)
    with torch.inference_mode(), no_autocast, watching(network, on_output):
        network_input = model.preprocess(sample.to(model.device))
        emit(Output(INPUT, INPUT, INPUT, network_input))
        mean = network.encode(network_input)[0].float()
        emit(Output(LATENT, LATENT, LATENT, mean))
        part = DECODER
        emit(Output(OUTPUT, OUTPUT, OUTPUT, network.decode(mean).float()))


@torch.inference_mode()
def _reduced(output_of_b: Output, a: torch.Tensor, n_dims: int) -> Layer:
    name, kind, part, b = output_of_b
    if len(a) == 1:
        a = a[0]
    if len(b) == 1:
        b = b[0]
    squares = squared_map(a, b) if a.ndim == n_dims and a.numel() else None
    return Layer(name, kind, part, tuple(a.shape), sums(a, b), squares)


def sums(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sums `(5,)` of a^2, b^2, a b, (a - b)^2 and |a - b| over all values.

    In float64 where the device supports it. They stay on the device, so that nothing waits for it.
    """
    wide = torch.float32 if a.device.type == "mps" else torch.float64
    total = torch.zeros(5, dtype=wide, device=a.device)
    a_blocks = a.reshape(-1).split(BLOCK_VALUES)
    b_blocks = b.reshape(-1).split(BLOCK_VALUES)
    for a_block, b_block in zip(a_blocks, b_blocks, strict=True):
        x = a_block.to(wide)
        y = b_block.to(wide)
        difference = x - y
        terms = (
            x.square().sum(),
            y.square().sum(),
            (x * y).sum(),
            difference.square().sum(),
            difference.abs().sum(),
        )
        total += torch.stack(terms)
    return total


def squared_map(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean of (a - b)^2 over channels at each position: `2 x (C, *spatial) -> spatial`, float32.

    On the host. A map of more than MAX_POSITIONS positions is averaged down.
    """
    squares = (a.float() - b.float()).square().mean(0)
    if squares.numel() > MAX_POSITIONS:
        shrink = (MAX_POSITIONS / squares.numel()) ** (1 / squares.ndim)
        size = [max(1, math.floor(side * shrink)) for side in squares.shape]
        squares = F.interpolate(squares[None, None], size, mode="area")[0, 0]
    return squares.cpu()


# ---- tables


def measures(sums: np.ndarray, n_values: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of MEASURES from sums `(…, 5)` over so many values `(…)`, float64.

    l2 = |a - b|; rms = l2 / sqrt(n); relative_l2 = l2 / |a|; cosine = a.b / (|a| |b|); mean_abs;
    rms_a and rms_b = |a| / sqrt(n), |b| / sqrt(n). If a and b are equal, zeros too, relative_l2 is
    0 and cosine 1. If only a is all zeros relative_l2 is NaN, and if one of them is, cosine is.
    """
    by_kind = np.moveaxis(sums.astype("f8"), -1, 0)
    a_squares, b_squares, products, squares, absolute = by_kind
    a = np.sqrt(a_squares)
    b = np.sqrt(b_squares)
    l2 = np.sqrt(squares)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative_l2 = np.where(a > 0, l2 / a, np.nan)
        cosine = np.clip(products / (a * b), -1.0, 1.0)
    root = np.sqrt(n_values)
    return {
        "l2": l2,
        "rms": l2 / root,
        "relative_l2": np.where(squares == 0, 0.0, relative_l2),
        "cosine": np.where(squares == 0, 1.0, cosine),
        "mean_abs": absolute / n_values,
        "rms_a": a / root,
        "rms_b": b / root,
    }


def _table(
    layers: Sequence[Layer], sums_of_pairs: Sequence[torch.Tensor], pairs: Sequence[str]
) -> xr.Dataset:
    """The measures over (pair, layer), from the sums `(layer, 5)` of each pair."""
    n_values = np.array([math.prod(layer.shape) for layer in layers])
    names = pd.Series([layer.name for layer in layers])
    calls = names.groupby(names).cumcount() + 1
    labels = names.where(calls == 1, names + ":" + calls.astype(str))
    coords = {
        LAYER: labels.tolist(),
        "name": names.tolist(),
        "call": calls,
        "kind": [layer.kind for layer in layers],
        "part": [layer.part for layer in layers],
        "order": np.arange(len(layers)),
        "shape": [" x ".join(map(str, layer.shape)) for layer in layers],
        "n_values": n_values,
    }
    table = xr.Dataset(coords={name: (LAYER, values) for name, values in coords.items()})
    table = table.assign_coords({PAIR: [*pairs]})
    sums_of_layers = torch.stack([*sums_of_pairs]).cpu().numpy()
    for name, values in measures(sums_of_layers, n_values).items():
        table[name] = n.named((PAIR, LAYER), values, MEASURES[name])
    return table


def top_layers(table: xr.Dataset, top: int = TOP) -> np.ndarray:
    """Positions of the encoder's and decoder's layers with the largest (mean) `relative_l2`.

    Largest first; of equal values the one that is run first. NaN is left out.
    """
    name = "relative_l2_mean" if PAIR in table.dims else "relative_l2"
    score = table[name].values
    is_layer = table["part"].isin([ENCODER, DECODER]).values
    candidates = np.flatnonzero(is_layer & np.isfinite(score))
    return candidates[np.argsort(-score[candidates], kind="stable")][:top]


def _with_maps(
    table: xr.Dataset, squares: Sequence[torch.Tensor | None], model: TrainedModel, top: int
) -> xr.Dataset:
    """The table with difference maps of its `top` layers with positions, and of input and output.

    The maps are roots of the mean squares. Each has dims of its own, `<dim>_<order>`; the attribute
    `maps` names those of layers, largest difference first.
    """
    ranked = [i for i in top_layers(table, len(squares)).tolist() if squares[i] is not None]
    ranked = ranked[:top]
    ends = np.flatnonzero(table["part"].isin([INPUT, OUTPUT])).tolist()
    n_position_dims = len(model.input_shape) - 1
    spatial = model.signal_dims[-n_position_dims:]
    for i in [*ranked, *ends] if top else []:
        square = squares[i]
        if square is None:
            continue
        attrs = {
            "long_name": "root mean square difference over channels",
            "units": "1",
            "layer": str(table[LAYER].values[i]),
            "kind": str(table["kind"].values[i]),
        }
        dims = [f"{dim}_{i}" for dim in spatial]
        table[f"{DIFFERENCE_MAP}_{i}"] = dims, square.sqrt().numpy(), attrs
    return table.assign_attrs(maps=[f"{DIFFERENCE_MAP}_{i}" for i in ranked])


def _statistics(table: xr.Dataset) -> xr.Dataset:
    """Mean, standard deviation and number of finite values of each measure over the pairs."""
    statistics = xr.Dataset()
    for name, text in MEASURES.items():
        finite = table[name].where(np.isfinite(table[name]))
        values = pd.DataFrame(finite.values)
        statistics[f"{name}_mean"] = n.named(LAYER, values.mean(), f"{text}, mean over pairs")
        long_name = f"{text}, standard deviation over pairs"
        statistics[f"{name}_std"] = n.named(LAYER, values.std(), long_name)
        statistics[f"n_{name}"] = n.named(LAYER, values.count(), f"pairs with a finite {text}")
    return statistics


def _tests(table: xr.Dataset) -> xr.Dataset:
    """Two-sided paired t-test of rms_b - rms_a over the pairs for each layer."""
    from scipy import stats

    change = table["rms_b"] - table["rms_a"]
    rounding = ROUNDING * np.maximum(table["rms_a"], table["rms_b"])
    changes = pd.DataFrame(change.where(np.abs(change) > rounding, 0.0).values)
    mean = changes.mean()
    std = changes.std()
    is_same = (mean == 0) & (std == 0)
    t = (mean / std * math.sqrt(len(changes))).mask(is_same, 0.0)
    p_value = 2 * stats.t.sf(t.abs(), len(changes) - 1)
    is_layer = table["part"].isin([ENCODER, DECODER]).values
    adjusted = np.full(p_value.shape, np.nan)
    adjusted[is_layer] = _holm(p_value[is_layer])
    columns = {
        "rms_change_mean": (mean, "mean over pairs of rms_b - rms_a"),
        "rms_change_std": (std, "standard deviation over pairs of rms_b - rms_a"),
        "effect_size": (mean / std, "rms_change_mean / rms_change_std"),
        "t": (t, "paired t statistic of rms_b - rms_a"),
        "t_p_value": (p_value, "two-sided p-value of the paired t-test"),
        "t_p_adjusted": (adjusted, "p-value of the paired t-test, Holm over layers"),
    }
    tests = xr.Dataset()
    for name, (values, text) in columns.items():
        tests[name] = n.named(LAYER, np.asarray(values), text)
    return tests


def _holm(p: np.ndarray) -> np.ndarray:
    """p-values corrected for their number: Holm, Scand. J. Stat. 6, 65 (1979)."""
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(p.size, 0, -1)
    adjusted = np.empty(p.shape)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
