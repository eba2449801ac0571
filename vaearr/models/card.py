"""What a network is made of: its layers in the order in which they are run, their sizes, and counts of parameters.

Found by running a copy of the network that holds shapes and no values, so that a network for large volumes takes
neither memory nor time, and the network itself is not touched.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import torch
import xarray as xr
from torch import nn

from vaearr.errors import SchemaError, UsageError
from vaearr.models.artifacts import TrainedModel
from vaearr.models.hooks import LEAF, watching
from vaearr.names import BLOCK, DECODER, ENCODER, INPUT, LATENT, LAYER, OUTPUT

N_PARAMETERS = "n_parameters"
BY = " x "
COLUMNS = {
    "name": "name of the module",
    "part": "part of the network",
    "kind": "class of the module",
    "shape": "shape of the output of one sample",
    BLOCK: "outermost block that the layer is in",
    "block_kind": "class of that block",
    "block_shape": "shape of the output of that block",
}


def model_card(model: TrainedModel | nn.Module) -> xr.Dataset:
    """The layers of a network, by introspection of one pass of a single sample through encoder and decoder.

    The pass is made by a copy without values; weights, modes, hooks, devices and random numbers stay as they are.

    Parameters
    ----------
    model : a trained model, or a network with `input_shape`, `latent_shape`, `encode` and `decode` (`vaearr.models`)

    Returns
    -------
    xr.Dataset
        Over `layer`, in order of execution, with the input, the latent and the output among them: `n_parameters` (at
        the first call of a layer; 0 later). Coordinates: `layer` (the module's name, `name:2` at its second call),
        `name`, `part` (input, encoder, latent, decoder, output), `kind` (class), `shape` (of the output of one sample,
        channels first), and `block`, `block_kind`, `block_shape`: the outermost residual, attention or other block that
        the layer is in, else the layer itself.
        attrs: `n_parameters`, `n_parameters_encoder`, `n_parameters_decoder`, `n_parameters_heads` (of neither, such as
        a classification head), `n_layers`, `weights_MB` (parameters and buffers, 1 MB = 10^6 bytes), `input_shape`,
        `latent_shape`, `stride` (input pixels per latent position; none for a vector latent), `compression` (values of
        the input per value of the latent), `network` (class).

    Raises UsageError for a module that is no such network, or that cannot be run on shapes alone.
    """
    network: Any = model.network if isinstance(model, TrainedModel) else model
    lacking = [name for name in ("input_shape", "latent_shape", "encode", "decode") if not hasattr(network, name)]
    if lacking:
        raise UsageError(f"{type(network).__name__} has no {', '.join(lacking)}; a card is made of a vaearr network.")
    known: dict[int, Any] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        known[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
    shapes_only: Any = copy.deepcopy(network, known).eval()
    heads = list(model.classifier.parameters()) if isinstance(model, TrainedModel) and model.classifier else []
    rows, used = list[list[str]](), {ENCODER: dict[int, int](), DECODER: dict[int, int]()}
    part, sizes = ENCODER, list[int]()

    def on_layer(name: str, module: nn.Module, output: torch.Tensor) -> None:
        own = {id(p): p.numel() for p in module.parameters()}
        sizes.append(0 if any(name == row[0] for row in rows) else sum(own.values()))
        used[part] |= own
        rows.append([name, part, type(module).__name__, _words(output)])

    def on_block(name: str, module: nn.Module, output: torch.Tensor) -> None:
        used[part] |= {id(p): p.numel() for p in module.parameters()}
        for row in rows:  # those that were run since the block before
            row += [name, type(module).__name__, _words(output)] if len(row) == 4 else []

    def on_end(name: str, batch: torch.Tensor) -> None:
        rows.append([name, name, name, _words(batch), name, name, _words(batch)])
        sizes.append(0)

    x, z = (torch.zeros(1, *shape, device="meta") for shape in (network.input_shape, network.latent_shape))
    try:
        with torch.inference_mode(), watching(shapes_only, LEAF, on_layer), watching(shapes_only, BLOCK, on_block):
            on_end(INPUT, x)
            shapes_only.encode(x)
            on_end(LATENT, z)
            part = DECODER
            on_end(OUTPUT, shapes_only.decode(z))
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"{type(network).__name__} cannot be run on shapes alone ({reason}).") from error
    calls, names = Counter[str](), list[str]()
    for name, *_ in rows:
        calls[name] += 1
        names.append(name if calls[name] == 1 else f"{name}:{calls[name]}")
    columns = zip(COLUMNS.items(), zip(*rows, strict=True), strict=True)
    coords = {name: (LAYER, list(values), {"long_name": words}) for (name, words), values in columns}
    coords[LAYER] = (LAYER, names, {"long_name": "layer, in order of execution"})
    every = {id(p): p.numel() for p in (*shapes_only.parameters(), *heads)}
    of_neither = sum(size for key, size in every.items() if key not in used[ENCODER] | used[DECODER])
    held = {id(t): t.nbytes for t in (*shapes_only.parameters(), *shapes_only.buffers(), *heads)}
    attrs = {
        N_PARAMETERS: sum(every.values()),
        f"{N_PARAMETERS}_{ENCODER}": sum(used[ENCODER].values()),
        f"{N_PARAMETERS}_{DECODER}": sum(used[DECODER].values()),
        f"{N_PARAMETERS}_heads": of_neither,
        "n_layers": len(rows) - 3,
        "weights_MB": sum(held.values()) / 1e6,
        "input_shape": list(network.input_shape),
        "latent_shape": list(network.latent_shape),
        "stride": list(getattr(network, "stride", None) or []),
        "compression": math.prod(network.input_shape) / math.prod(network.latent_shape),
        "network": type(network).__name__,
    }
    counts = (LAYER, sizes, {"long_name": "number of parameters", "units": "1"})
    return xr.Dataset({N_PARAMETERS: counts}, coords, attrs)


def _words(batch: torch.Tensor) -> str:
    """The shape of one sample of a batch."""
    shape = batch.shape[1:] if batch.ndim > 1 and batch.shape[0] == 1 else batch.shape
    return BY.join(map(str, shape))


def sizes_of(words: object) -> tuple[int, ...]:
    """The sizes that the text of a shape names, "64 x 12 x 16"."""
    return tuple(int(size) for size in str(words).split(BY) if size)


def check_card(card: xr.Dataset) -> None:
    """Raise SchemaError unless the Dataset is a model card."""
    if N_PARAMETERS not in card or "block_shape" not in card.coords:
        raise SchemaError("the Dataset is no model card; pass what model_card returned.")


def ratio_words(ratio: float) -> str:
    """A ratio in three digits or, where it is large, as a whole number."""
    return f"{ratio:.3g}" if ratio < 1000 else f"{ratio:,.0f}"


def as_record(card: xr.Dataset) -> dict[str, Any]:
    """A model card as plain JSON: the numbers of the whole, and `layers`. Raises SchemaError for another Dataset."""
    check_card(card)
    columns = {name: card[name].values.tolist() for name in (LAYER, "part", "kind", "shape", BLOCK, N_PARAMETERS)}
    columns["shape"] = [list(sizes_of(words)) for words in columns["shape"]]
    return {
        **card.attrs,
        "layers": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
    }
