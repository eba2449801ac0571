"""Model card: the blocks of a network in the order of execution, their sizes, and parameter counts.

Found by running a copy of the network that holds shapes and no values, so that a network for large
volumes takes neither memory nor time.
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
from vaearr.models.hooks import watching
from vaearr.names import BLOCK, DECODER, ENCODER, INPUT, LATENT, LAYER, OUTPUT

N_PARAMETERS = "n_parameters"
BY = " x "
COLUMNS = {
    LAYER: "block, in order of execution",
    "part": "part of the network",
    "kind": "class of the module",
    "shape": "shape of the output of one sample",
}


def model_card(model: TrainedModel) -> xr.Dataset:
    """Describe the blocks of a network, by one pass of a sample through encoder and decoder.

    The pass is made by a copy without values; the model stays as it is.

    Parameters
    ----------
    model : TrainedModel

    Returns
    -------
    xr.Dataset
        Over `layer`, in order of execution, with the input, the latent and the output among them:
        `n_parameters` (that no block before has). A block is an outermost residual, attention or
        other block, or a layer that lies in none.
        Coordinates: `layer` (the module's name, `name:2` at its second call), `part` (input,
        encoder, latent, decoder, output), `kind` (class), `shape` (of the output of one sample,
        channels first).
        attrs: `n_parameters`, `n_parameters_encoder`, `n_parameters_decoder`, `n_parameters_heads`
        (of neither, such as a classification head), `n_layers`, `weights_MB` (parameters and
        buffers, 1 MB = 10^6 bytes), `input_shape`, `latent_shape`, `stride` (input pixels per
        latent position; none for a vector latent), `compression` (values of the input per value of
        the latent), `network` (class).

    Raises
    ------
    UsageError
        If the network cannot be run on shapes alone.
    """
    network: Any = model.network
    shapes_only: Any = copy.deepcopy(network).to("meta").eval()
    rows: list[tuple[str, str, str, str]] = []
    counts: list[int] = []
    calls: Counter[str] = Counter()
    used: dict[str, dict[int, int]] = {ENCODER: {}, DECODER: {}}  # values of each parameter
    part = ENCODER

    def add(name: str, where: str, kind: str, output: torch.Tensor, count: int = 0) -> None:
        calls[name] += 1
        label = name if calls[name] == 1 else f"{name}:{calls[name]}"
        shape = output.shape[1:] if output.shape[:1] == (1,) else output.shape
        rows.append((label, where, kind, BY.join(map(str, shape))))
        counts.append(count)

    def on_block(name: str, module: nn.Module, output: torch.Tensor) -> None:
        counted = used[ENCODER].keys() | used[DECODER].keys()
        sizes = {id(p): p.numel() for p in module.parameters()}
        count = sum(size for key, size in sizes.items() if key not in counted)
        add(name, part, type(module).__name__, output, count)
        used[part] |= sizes

    x = torch.zeros(1, *network.input_shape, device="meta")
    z = torch.zeros(1, *network.latent_shape, device="meta")
    try:
        with torch.inference_mode(), watching(shapes_only, BLOCK, on_block):
            add(INPUT, INPUT, INPUT, x)
            shapes_only.encode(x)
            add(LATENT, LATENT, LATENT, z)
            part = DECODER
            add(OUTPUT, OUTPUT, OUTPUT, shapes_only.decode(z))
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise UsageError(
            f"{type(network).__name__} cannot be run on shapes alone ({reason})."
        ) from error
    held = nn.ModuleList([network, model.classifier] if model.classifier else [network])
    total = sum(p.numel() for p in held.parameters())
    attrs = {
        N_PARAMETERS: total,
        f"{N_PARAMETERS}_{ENCODER}": sum(used[ENCODER].values()),
        f"{N_PARAMETERS}_{DECODER}": sum(used[DECODER].values()),
        f"{N_PARAMETERS}_heads": total - sum((used[ENCODER] | used[DECODER]).values()),
        "n_layers": len(rows) - 3,
        "weights_MB": sum(t.nbytes for t in (*held.parameters(), *held.buffers())) / 1e6,
        "input_shape": list(network.input_shape),
        "latent_shape": list(network.latent_shape),
        "stride": list(network.stride),
        "compression": math.prod(network.input_shape) / math.prod(network.latent_shape),
        "network": type(network).__name__,
    }
    coords = {}
    for (name, long_name), values in zip(COLUMNS.items(), zip(*rows, strict=True), strict=True):
        coords[name] = (LAYER, list(values), {"long_name": long_name})
    parameters = (LAYER, counts, {"long_name": "number of parameters", "units": "1"})
    return xr.Dataset({N_PARAMETERS: parameters}, coords, attrs)


def sizes_of(text: object) -> tuple[int, ...]:
    """Return the sizes in the text of a shape, such as "64 x 12 x 16"."""
    return tuple(int(size) for size in str(text).split(BY) if size)


def check_card(card: xr.Dataset) -> None:
    """Raise SchemaError unless the Dataset is a model card."""
    if N_PARAMETERS not in card or "shape" not in card.coords:
        raise SchemaError("the Dataset is no model card; pass what model_card returned.")


def ratio_words(ratio: float) -> str:
    """Return a ratio in three digits or, if large, as a whole number."""
    return f"{ratio:.3g}" if ratio < 1000 else f"{ratio:,.0f}"


def as_record(card: xr.Dataset) -> dict[str, Any]:
    """Return a model card as plain JSON: its attributes, and `layers`. Raises SchemaError for
    another Dataset.
    """
    check_card(card)
    layers = card.to_dataframe().reset_index().to_dict("records")
    for layer in layers:
        layer["shape"] = list(sizes_of(layer["shape"]))
    return {**card.attrs, "layers": layers}
