"""Two samples through one network, and how far they are apart at each layer."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from vaearr.analysis.layers.measures import LONG_NAMES, MEASURES, measures, squared_map, sums
from vaearr.analysis.layers.steps import Emit, side_by_side
from vaearr.errors import DataError, UsageError, did_you_mean
from vaearr.models.artifacts import TrainedModel
from vaearr.models.hooks import DECODER, ENCODER, INPUT, LATENT, LAYER, LEAF, OUTPUT, evaluating, watching

PAIR = "pair"
PARTS = ("both", ENCODER, DECODER)
OF_THE_NETWORK = (ENCODER, DECODER)  # parts that hold layers; the others are what goes in and comes out
MAP = "difference_map"
TOP = 10


@dataclass(frozen=True, eq=False)
class Layer:
    """What one run of one layer put out for two samples, reduced: `sums`, and `squares` where it has positions."""

    name: str
    call: int
    kind: str
    part: str
    shape: tuple[int, ...]
    sums: torch.Tensor
    squares: torch.Tensor | None

    @property
    def label(self) -> str:
        """The module's name, and from the second call on its number."""
        return self.name if self.call == 1 else f"{self.name}:{self.call}"


@dataclass(frozen=True, eq=False)
class Traced:
    """The layers of one pass in the order in which they were run, and the two samples as they went in and came out."""

    layers: list[Layer]
    seen: tuple[torch.Tensor, torch.Tensor]
    decoded: tuple[torch.Tensor, torch.Tensor] | None


def compare_layers(
    model: TrainedModel,
    a: xr.DataArray | np.ndarray,
    b: xr.DataArray | np.ndarray,
    *,
    part: str = "both",
    level: str = LEAF,
    top: int = TOP,
) -> xr.Dataset:
    """How far two samples are apart at each layer of a trained model, in the order in which the layers are run.

    Both go through preprocessing, encoder, posterior mean (no draw) and decoder, side by side, in float32 and
    evaluation mode. Each layer's output is reduced at once, in float64, and let go; weights, modes and hooks of the
    model are afterwards as they were. Two equal samples differ by exactly 0 everywhere.

    Parameters
    ----------
    a, b : stored patterns `(C, …)`, or `(…)` where there is one channel; DataArrays are read by the names of their dims
    part : both, encoder or decoder
    level : leaf, every module without modules inside that changes values; block, residual and attention blocks as one
        layer each, with the leaves between them
    top : number of layers with the largest `relative_l2` whose difference maps are kept; 0 keeps none

    Returns
    -------
    xr.Dataset
        Over `layer`: l2, rms, relative_l2, cosine, mean_abs, rms_a, rms_b (see `measures.measures`), with coordinates
        `layer` (the module's name, `name:2` at its second call), `name`, `call`, `kind` (class), `part` (input,
        encoder, latent, decoder, output), `order`, `shape` and `n_values`. `difference_map_<order>`: RMS over channels
        of a - b at each position of that layer, on its own grid. `input_a`, `input_b`, `decoded_a`, `decoded_b`: the
        samples as the network sees and decodes them. attrs: `maps`, the variables of the layers, largest first.

    Raises DataError for samples of another shape or with values that are not finite, UsageError for another part or
    level.
    """
    check_part(part, top)
    stored = pair_batch(model, a, b)
    traced = trace(model, stored, part=part, level=level)
    table = layer_table(traced.layers, np.stack([layer.sums.cpu().numpy() for layer in traced.layers]))
    table = with_maps(table, [layer.squares for layer in traced.layers], model, top)
    signal = tuple(model.signal_dims)
    sizes = model.input_shape[-len(signal) :]
    for name, batch, words in (
        (INPUT, traced.seen, "as the network sees it"),
        ("decoded", traced.decoded, "decoded posterior mean"),
    ):
        for i, which in enumerate("ab"):
            if batch is not None:
                values = batch[i].float().cpu().numpy().reshape(sizes)
                table[f"{name}_{which}"] = (signal, values, {"long_name": f"{which}: {words}", "units": "1"})
    return table.assign_attrs({"part": part, "level": level, "top": top, "n": 1})


def check_part(part: str, top: int) -> None:
    """Raise UsageError for a part or number of maps that cannot be."""
    if part not in PARTS:
        raise UsageError(f"there is no part {part!r}.{did_you_mean(part, list(PARTS))}")
    if top < 0:
        raise UsageError(f"top is {top}; it must be 0 or more.")


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
        sample = sample.transpose(*model.signal_dims).values
    values = np.asarray(sample)
    one_channel = model.input_shape[0] == 1
    if values.shape != model.input_shape and not (one_channel and values.shape == model.input_shape[1:]):
        raise DataError(
            f"sample {which} has shape {values.shape}; the model was trained on samples of shape {model.input_shape}."
        )
    if values.dtype.kind not in "uif":
        raise DataError(f"sample {which} has dtype {values.dtype}; expected whole or floating numbers.")
    if not np.isfinite(values).all():
        raise DataError(f"sample {which} holds values that are not finite; choose another one.")
    return values.reshape(model.input_shape)


def trace(model: TrainedModel, stored: torch.Tensor, *, part: str = "both", level: str = LEAF) -> Traced:
    """Two stored samples `(2, C, …)` through the model side by side, every layer reduced as it is run.

    Each in a batch of its own: in one batch the place of a sample may change the last digits of what it gives. Raises
    DataError where the two do not run the same layers.
    """
    layers: list[Layer] = []
    calls: Counter[str] = Counter()
    ends: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    here = threading.local()
    on_output = partial(_emit_layer, here)
    with evaluating(model.network), watching(model.network, level, on_output):
        works = [partial(_run_one, model, sample[None].clone(), part, here) for sample in stored]
        with closing(side_by_side(works)) as outputs:
            for one, two in outputs:
                if (one.name, one.part, one.values.shape) != (two.name, two.part, two.values.shape):
                    raise DataError(f"the samples do not run the same layers: {one.name} and {two.name}.")
                if one.part in (INPUT, OUTPUT):
                    ends[one.part] = one.values[0], two.values[0]
                if one.part == INPUT and part == DECODER:
                    continue
                calls[one.name] += 1
                layers.append(_reduced(one, two.values, calls[one.name], len(model.input_shape)))
    return Traced(layers, ends[INPUT], ends.get(OUTPUT))


@dataclass(frozen=True, eq=False)
class Output:
    """What a layer put out for one sample."""

    name: str
    kind: str
    part: str
    values: torch.Tensor


def _emit_layer(here: Any, name: str, module: nn.Module, output: torch.Tensor) -> None:
    if here.part is not None:
        here.emit(Output(name, type(module).__name__, here.part, output))


def _run_one(model: TrainedModel, stored: torch.Tensor, part: str, here: Any, emit: Emit) -> None:
    """One sample `(1, C, …)` through the model in this thread; `here` tells the hooks where they are."""
    network: Any = model.network
    here.emit, here.part = emit, None
    with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
        seen = model.preprocess(stored.to(model.device))
        emit(Output(INPUT, INPUT, INPUT, seen))
        here.part = None if part == DECODER else ENCODER
        mean = network.encode(seen)[0].float()
        emit(Output(LATENT, LATENT, LATENT, mean))
        if part == ENCODER:
            return
        here.part = DECODER
        decoded = network.decode(mean).float()
        emit(Output(OUTPUT, OUTPUT, OUTPUT, decoded))


@torch.inference_mode()
def _reduced(one: Output, two: torch.Tensor, call: int, n_dims: int) -> Layer:
    a, b = (values[0] if len(values) == 1 else values for values in (one.values, two))
    squares = squared_map(a, b) if a.ndim == n_dims and a.numel() else None
    return Layer(one.name, call, one.kind, one.part, tuple(a.shape), sums(a, b), squares)


def layer_table(layers: Sequence[Layer], found: np.ndarray, pairs: Sequence[str] | None = None) -> xr.Dataset:
    """The numbers of all layers, `(layer, 5)` sums or, with names of pairs, `(pair, layer, 5)`."""
    n_values = np.array([math.prod(layer.shape) for layer in layers], np.int64)
    dims = (LAYER,) if pairs is None else (PAIR, LAYER)
    values = measures(found, n_values)
    table = xr.Dataset(
        {name: (dims, values[name], {"long_name": LONG_NAMES[name], "units": "1"}) for name in MEASURES},
        coords={
            LAYER: (LAYER, [layer.label for layer in layers], {"long_name": "layer, in order of execution"}),
            "name": (LAYER, [layer.name for layer in layers], {"long_name": "name of the module"}),
            "call": (LAYER, np.array([layer.call for layer in layers]), {"long_name": "call of the module"}),
            "kind": (LAYER, [layer.kind for layer in layers], {"long_name": "class of the module"}),
            "part": (LAYER, [layer.part for layer in layers], {"long_name": "part of the network"}),
            "order": (LAYER, np.arange(len(layers)), {"long_name": "place in the order of execution"}),
            "shape": (LAYER, [" x ".join(map(str, layer.shape)) for layer in layers], {"long_name": "shape"}),
            "n_values": (LAYER, n_values, {"long_name": "values of one sample"}),
        },
    )
    return table if pairs is None else table.assign_coords({PAIR: (PAIR, list(pairs), {"long_name": "pair"})})


def top_layers(found: xr.Dataset, top: int = TOP) -> np.ndarray:
    """Positions of the encoder's and decoder's layers with the largest `relative_l2` (mean over pairs), largest first.

    NaN is left out; of equal values the one that is run first comes first.
    """
    score = found["relative_l2_mean" if PAIR in found["relative_l2"].dims else "relative_l2"].values
    inside = np.isin(found["part"].values.astype(str), OF_THE_NETWORK) & np.isfinite(score)
    candidates = np.flatnonzero(inside)
    return candidates[np.argsort(-score[candidates], kind="stable")][:top]


def with_maps(table: xr.Dataset, squares: Sequence[torch.Tensor | None], model: TrainedModel, top: int) -> xr.Dataset:
    """The table with the roots of the mean squares of its `top` layers with positions, and of input and output.

    Each map has dims of its own, `<dim>_<order>`; the attribute `maps` names those of layers, largest difference first.
    """
    has_map = np.array([square is not None for square in squares])
    ranked = [int(i) for i in top_layers(table, table.sizes[LAYER]) if has_map[i]][:top]
    ends = [int(i) for i in np.flatnonzero(has_map & np.isin(table["part"].values.astype(str), (INPUT, OUTPUT)))]
    spatial = model.signal_dims[-(len(model.input_shape) - 1) :]
    found = table.copy()
    for i in ranked + (ends if top else []):
        square = squares[i]
        assert square is not None
        label, kind = str(table[LAYER].values[i]), str(table["kind"].values[i])
        dims = tuple(f"{dim}_{i}" for dim in spatial)
        attrs = {"long_name": "root mean square difference over channels", "units": "1", LAYER: label, "kind": kind}
        found[f"{MAP}_{i}"] = (dims, square.sqrt().numpy(), attrs)
    return found.assign_attrs(maps=[f"{MAP}_{i}" for i in ranked])
