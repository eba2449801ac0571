"""What a network is made of: its layers in the order in which they are run, their sizes, and counts of parameters.

Found by running a copy of the network that holds shapes and no values, so that a network for large volumes takes
neither memory nor time, and the network itself is not touched.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
import xarray as xr
from torch import nn

from vaearr.errors import SchemaError, UsageError
from vaearr.models.artifacts import TrainedModel
from vaearr.models.hooks import BLOCK, DECODER, ENCODER, INPUT, LATENT, LAYER, LEAF, OUTPUT, watching

N_PARAMETERS = "n_parameters"
HEADS = "heads"
BY = " x "
LETTERS = 44  # of a layer's name in text
COLUMNS = {
    "name": "name of the module",
    "part": "part of the network",
    "kind": "class of the module",
    "shape": "shape of the output of one sample",
    BLOCK: "outermost block that the layer is in",
    "block_kind": "class of that block",
    "block_shape": "shape of the output of that block",
}

Call = tuple[str, str, tuple[int, ...]]  # name of a layer or end, part, shape of what it put out


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
    shapes_only = copy.deepcopy(network, known).eval()
    calls, modules = _calls(shapes_only, LEAF), dict(network.named_modules())
    shapes = {name: shape for name, _, shape in _calls(shapes_only, BLOCK)}
    seen: Counter[str] = Counter()
    rows, sizes = {}, []
    for name, part, shape in calls:
        seen[name] += 1
        is_end = part not in (ENCODER, DECODER)
        block = name if name in shapes else next(outer for outer in shapes if name.startswith(f"{outer}."))
        kind, block_kind = (each if is_end else type(modules[each]).__name__ for each in (name, block))
        row = (name, part, kind, _words(shape), block, block_kind, _words(shape if block == name else shapes[block]))
        rows[name if seen[name] == 1 else f"{name}:{seen[name]}"] = row
        sizes.append(0 if is_end or seen[name] > 1 else sum(p.numel() for p in modules[name].parameters()))
    columns = zip(COLUMNS.items(), zip(*rows.values(), strict=True), strict=True)
    coords = {name: (LAYER, list(values), {"long_name": words}) for (name, words), values in columns}
    coords[LAYER] = (LAYER, list(rows), {"long_name": "layer, in order of execution"})
    about = {"long_name": "number of parameters", "units": "1"}
    heads = model.classifier if isinstance(model, TrainedModel) else None
    card = xr.Dataset({N_PARAMETERS: (LAYER, sizes, about)}, coords=coords)
    return card.assign_attrs(_counts(network, calls, [] if heads is None else list(heads.parameters())))


def _calls(network: Any, level: str) -> list[Call]:
    """The calls of all layers, or outermost blocks, in order; what goes in and comes out among them."""
    found: list[Call] = [(INPUT, INPUT, tuple(network.input_shape))]
    part = ENCODER

    def on_output(name: str, module: nn.Module | None, output: torch.Tensor) -> None:
        is_one = output.shape[0] == 1 and output.ndim > 1
        found.append((name, OUTPUT if module is None else part, tuple(output.shape[is_one:])))

    try:
        with torch.inference_mode(), watching(network, level, on_output):
            network.encode(torch.zeros(1, *network.input_shape, device="meta"))
            found.append((LATENT, LATENT, tuple(network.latent_shape)))
            part = DECODER
            on_output(OUTPUT, None, network.decode(torch.zeros(1, *network.latent_shape, device="meta")))
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"{type(network).__name__} cannot be run on shapes alone ({reason}).") from error
    return found


def _counts(network: Any, calls: list[Call], heads: list[nn.Parameter]) -> dict[str, Any]:
    """Counts of parameters; one that several layers share counts once in all, and once in each part that uses it."""
    used = {part: _used(network, [name for name, where, _ in calls if where == part]) for part in (ENCODER, DECODER)}
    every = {id(p): p.numel() for p in (*network.parameters(), *heads)}
    counts = {
        "": every,
        **{f"_{part}": {key: every[key] for key in keys} for part, keys in used.items()},
        f"_{HEADS}": {key: size for key, size in every.items() if key not in used[ENCODER] | used[DECODER]},
    }
    tensors = {id(t): t.nbytes for t in (*network.parameters(), *network.buffers(), *heads)}
    return {
        **{f"{N_PARAMETERS}{end}": sum(sizes.values()) for end, sizes in counts.items()},
        "n_layers": sum(part in (ENCODER, DECODER) for _, part, _ in calls),
        "weights_MB": sum(tensors.values()) / 1e6,
        "input_shape": list(network.input_shape),
        "latent_shape": list(network.latent_shape),
        "stride": list(getattr(network, "stride", None) or []),
        "compression": math.prod(network.input_shape) / math.prod(network.latent_shape),
        "network": type(network).__name__,
    }


def _used(network: nn.Module, names: Iterable[str]) -> set[int]:
    """The parameters of these layers, and those that lie beside them in the modules around, but for the network's."""
    used = [f"{name}." for name in names]
    owners = {name: f"{name.rpartition('.')[0]}." for name, _ in network.named_parameters()}
    return {
        id(parameter)
        for name, parameter in network.named_parameters()
        if owners[name] != "." and any(one.startswith(owners[name]) or owners[name].startswith(one) for one in used)
    }


def _words(shape: tuple[int, ...]) -> str:
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
