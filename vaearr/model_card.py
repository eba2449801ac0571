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

from vaearr.artifacts import TrainedModel
from vaearr.errors import SchemaError, UsageError
from vaearr.models.hooks import BLOCK, DECODER, ENCODER, INPUT, LATENT, LAYER, LEVELS, OUTPUT, watching

PARTS = (INPUT, ENCODER, LATENT, DECODER, OUTPUT)
N_PARAMETERS = "n_parameters"
HEADS = "heads"
BY = " x "
LETTERS = 44  # of a layer's name in text

Run = tuple[str, str, str, tuple[int, ...]]  # part, name, class and output shape of one call of a layer


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
    shapes_only = _without_values(network)
    leaves, blocks = (_runs(shapes_only, level) for level in LEVELS)
    classifier = model.classifier if isinstance(model, TrainedModel) else None
    heads = [] if classifier is None else list(classifier.parameters())
    return _table(network, leaves, _around(leaves, blocks)).assign_attrs(_counts(network, leaves, heads))


def _without_values(network: nn.Module) -> Any:
    """A copy in evaluation mode whose parameters and buffers have shapes and types, but no memory."""
    known: dict[int, Any] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        known[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(network, known).eval()


def _runs(network: Any, level: str) -> list[Run]:
    """The calls of all layers, or outermost blocks, in order; what goes in and comes out among them."""
    found: list[Run] = []
    part = ENCODER

    def on_output(name: str, module: nn.Module, output: torch.Tensor) -> None:
        found.append((part, name, type(module).__name__, _of_one(output)))

    def end(which: str, shape: tuple[int, ...]) -> None:
        found.append((which, which, which, shape))

    try:
        with torch.inference_mode(), watching(network, level, on_output):
            end(INPUT, tuple(network.input_shape))
            network.encode(torch.zeros(1, *network.input_shape, device="meta"))
            end(LATENT, tuple(network.latent_shape))
            part = DECODER
            decoded = network.decode(torch.zeros(1, *network.latent_shape, device="meta"))
            end(OUTPUT, _of_one(decoded))
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"{type(network).__name__} cannot be run on shapes alone ({reason}).") from error
    return found


def _of_one(output: torch.Tensor) -> tuple[int, ...]:
    return tuple(output.shape[1:] if output.shape[0] == 1 and output.ndim > 1 else output.shape)


def _around(leaves: list[Run], blocks: list[Run]) -> list[Run]:
    """For each leaf the block that it is in, or itself: blocks and leaves are run in the same order."""
    found, at = [], 0
    for leaf in leaves:
        while not _is_inside(leaf, blocks[at]):
            at += 1
        found.append(blocks[at])
    return found


def _is_inside(leaf: Run, block: Run) -> bool:
    return leaf[0] == block[0] and f"{leaf[1]}.".startswith(f"{block[1]}.")


def _table(network: nn.Module, leaves: list[Run], around: list[Run]) -> xr.Dataset:
    modules = dict(network.named_modules())
    calls: Counter[str] = Counter()
    labels, sizes = [], []
    for _, name, kind, _ in leaves:
        calls[name] += 1
        labels.append(name if calls[name] == 1 else f"{name}:{calls[name]}")
        is_first = calls[name] == 1 and kind not in PARTS
        sizes.append(sum(p.numel() for p in modules[name].parameters()) if is_first else 0)
    columns = {
        "name": ([run[1] for run in leaves], "name of the module"),
        "part": ([run[0] for run in leaves], "part of the network"),
        "kind": ([run[2] for run in leaves], "class of the module"),
        "shape": ([_words(run[3]) for run in leaves], "shape of the output of one sample"),
        BLOCK: ([run[1] for run in around], "outermost block that the layer is in"),
        "block_kind": ([run[2] for run in around], "class of that block"),
        "block_shape": ([_words(run[3]) for run in around], "shape of the output of that block"),
    }
    coords = {name: (LAYER, values, {"long_name": words}) for name, (values, words) in columns.items()}
    about = {"long_name": "number of parameters", "units": "1"}
    return xr.Dataset(
        {N_PARAMETERS: (LAYER, sizes, about)},
        coords={LAYER: (LAYER, labels, {"long_name": "layer, in order of execution"}), **coords},
    )


def _counts(network: Any, leaves: list[Run], heads: list[nn.Parameter]) -> dict[str, Any]:
    """Counts of parameters; one that several layers share counts once in all, and once in each part that uses it."""
    own = {id(p): p.numel() for p in network.parameters()}
    used = {part: set(_used(network, [run[1] for run in leaves if run[0] == part])) for part in (ENCODER, DECODER)}
    beside = {id(p): p.numel() for p in heads}
    in_parts = used[ENCODER] | used[DECODER]
    counted = {
        N_PARAMETERS: sum({**own, **beside}.values()),
        f"{N_PARAMETERS}_{ENCODER}": sum(own[key] for key in used[ENCODER]),
        f"{N_PARAMETERS}_{DECODER}": sum(own[key] for key in used[DECODER]),
        f"{N_PARAMETERS}_{HEADS}": sum(size for key, size in {**own, **beside}.items() if key not in in_parts),
    }
    tensors = {id(t): t.nbytes for t in (*network.parameters(), *network.buffers(), *heads)}
    stride = getattr(network, "stride", None)
    return {
        **counted,
        "n_layers": sum(run[0] in (ENCODER, DECODER) for run in leaves),
        "weights_MB": sum(tensors.values()) / 1e6,
        "input_shape": list(network.input_shape),
        "latent_shape": list(network.latent_shape),
        "stride": [] if stride is None else list(stride),
        "compression": math.prod(network.input_shape) / math.prod(network.latent_shape),
        "network": type(network).__name__,
    }


def _used(network: nn.Module, names: list[str]) -> Iterable[int]:
    """The parameters of these layers, and those that lie beside them in the modules around, but for the network's."""
    modules = dict(network.named_modules())
    around = {name.rpartition(".")[0] for name in names}
    while outer := {name.rpartition(".")[0] for name in around} - around:
        around |= outer
    for name in names:
        yield from (id(p) for p in modules[name].parameters())
    for name in around - {""}:
        yield from (id(p) for p in modules[name].parameters(recurse=False))


def _words(shape: tuple[int, ...]) -> str:
    return BY.join(map(str, shape))


def sizes_of(words: object) -> tuple[int, ...]:
    """The sizes that the text of a shape names, "64 x 12 x 16"."""
    return tuple(int(size) for size in str(words).split(BY) if size)


def check_card(card: xr.Dataset) -> None:
    """Raise SchemaError unless the Dataset is a model card."""
    if N_PARAMETERS not in card or "block_shape" not in card.coords:
        raise SchemaError("the Dataset is no model card; pass what model_card returned.")


def card_summary(card: xr.Dataset) -> list[str]:
    """The numbers of the whole network in words, a line each."""
    a = card.attrs
    parts = ", ".join(f"{a[f'{N_PARAMETERS}_{part}']:,} in the {part}" for part in (ENCODER, DECODER))
    heads = a[f"{N_PARAMETERS}_{HEADS}"]
    stride = f", {BY.join(map(str, a['stride']))} pixels per position" if a["stride"] else ""
    values = f"{ratio_words(a['compression'])} values of the input per value of the latent"
    return [
        f"{a['network']}: {a['n_layers']} layers, {a[N_PARAMETERS]:,} parameters, {a['weights_MB']:.3g} MB",
        f"  {parts}" + (f", {heads:,} elsewhere (heads)" if heads else ""),
        f"  input {BY.join(map(str, a['input_shape']))}, latent {BY.join(map(str, a['latent_shape']))}{stride}",
        f"  {values}",
    ]


def card_lines(card: xr.Dataset) -> list[str]:
    """A model card as lines of text: the numbers of the whole, then a line for each layer in order of execution.

    Raises SchemaError for another Dataset.
    """
    check_card(card)
    rows = [("layer", "kind", "output", "parameters")]
    parts = card["part"].values.astype(str)
    for i, label in enumerate(card[LAYER].values.astype(str)):
        is_end = parts[i] not in (ENCODER, DECODER)
        count = int(card[N_PARAMETERS].values[i])
        kind = "" if is_end else str(card["kind"].values[i])
        rows.append((_brief(label), kind, str(card["shape"].values[i]), f"{count:,}" if count else ""))
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    lines = [
        f"  {name:{widths[0]}}  {kind:{widths[1]}}  {shape:{widths[2]}}  {count:>{widths[3]}}".rstrip()
        for name, kind, shape, count in rows
    ]
    return [*card_summary(card), *lines]


def ratio_words(ratio: float) -> str:
    """A ratio in three digits or, where it is large, as a whole number."""
    return f"{ratio:.3g}" if ratio < 1000 else f"{ratio:,.0f}"


def _brief(name: str) -> str:
    return name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"


def as_record(card: xr.Dataset) -> dict[str, Any]:
    """A model card as plain JSON: the numbers of the whole, and `layers`. Raises SchemaError for another Dataset."""
    check_card(card)
    columns = {name: card[name].values.tolist() for name in (LAYER, "part", "kind", "shape", BLOCK, N_PARAMETERS)}
    columns["shape"] = [list(sizes_of(words)) for words in columns["shape"]]
    layers = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {**card.attrs, "layers": layers}
