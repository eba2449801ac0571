"""Model card: the layers of a network in the order of execution, their sizes, and parameter counts.

Found by running a copy of the network that holds shapes and no values, so that a network for large
volumes takes neither memory nor time.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import xarray as xr
from torch import nn

from vaearr.errors import SchemaError, UsageError
from vaearr.models.artifacts import TrainedModel
from vaearr.models.hooks import watching
from vaearr.names import DECODER, ENCODER, INPUT, LATENT, LAYER, OUTPUT

N_PARAMETERS = "n_parameters"
BY = " x "
COLUMNS = {
    LAYER: {"long_name": "layer, in order of execution"},
    "part": {"long_name": "part of the network"},
    "kind": {"long_name": "class of the module"},
    "shape": {"long_name": "shape of the output of one sample"},
    N_PARAMETERS: {"long_name": "number of parameters", "units": "1"},
}


def model_card(model: TrainedModel) -> xr.Dataset:
    """Describe the layers of a network, by one pass of a sample through encoder and decoder.

    The pass is made by a copy without values; the model stays as it is.

    Parameters
    ----------
    model : TrainedModel
        The model.

    Returns
    -------
    xarray.Dataset
        Over `layer`, in order of execution, with the input, the latent and the output among them:
        `n_parameters` (that no layer before has). Coordinates: `layer` (the module's name, `name:2`
        at its second call), `part` (input, encoder, latent, decoder, output), `kind` (class),
        `shape` (of the output of one sample, channels first).
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
    rows, used = _rows(network)
    columns = {}
    for i, (name, described) in enumerate(COLUMNS.items()):
        columns[name] = (LAYER, [row[i] for row in rows], described)
    modules = nn.ModuleList([network])
    if model.classifier is not None:
        modules.append(model.classifier)
    n_parameters = sum(p.numel() for p in modules.parameters())
    n_used = sum((used[ENCODER] | used[DECODER]).values())
    n_bytes = sum(values.nbytes for values in (*modules.parameters(), *modules.buffers()))
    attrs = {
        N_PARAMETERS: n_parameters,
        f"{N_PARAMETERS}_{ENCODER}": sum(used[ENCODER].values()),
        f"{N_PARAMETERS}_{DECODER}": sum(used[DECODER].values()),
        f"{N_PARAMETERS}_heads": n_parameters - n_used,
        "n_layers": len(rows) - 3,
        "weights_MB": n_bytes / 1e6,
        "input_shape": list(network.input_shape),
        "latent_shape": list(network.latent_shape),
        "stride": list(network.stride),
        "compression": math.prod(network.input_shape) / math.prod(network.latent_shape),
        "network": type(network).__name__,
    }
    return xr.Dataset(columns, attrs=attrs).set_coords(["part", "kind", "shape"])


def _rows(network: Any) -> tuple[list[tuple[Any, ...]], dict[str, dict[int, int]]]:
    """A row of `COLUMNS` for each layer that is run, and the parameters of each part: id -> size."""
    shapes_only = copy.deepcopy(network).to("meta").eval()
    rows: list[tuple[Any, ...]] = []
    used: dict[str, dict[int, int]] = {ENCODER: {}, DECODER: {}}
    names: list[str] = []
    part = ENCODER

    def add(name: str, part: str, kind: str, output: torch.Tensor, count: int = 0) -> None:
        names.append(name)
        n_calls = names.count(name)
        label = name if n_calls == 1 else f"{name}:{n_calls}"
        shape = output.shape[1:] if output.shape[:1] == (1,) else output.shape
        rows.append((label, part, kind, BY.join(map(str, shape)), count))

    def on_output(name: str, module: nn.Module, output: torch.Tensor) -> None:
        sizes = {id(p): p.numel() for p in module.parameters()}
        new = sizes.keys() - used[ENCODER].keys() - used[DECODER].keys()
        add(name, part, type(module).__name__, output, sum(sizes[key] for key in new))
        used[part].update(sizes)

    x = torch.zeros(1, *network.input_shape, device="meta")
    z = torch.zeros(1, *network.latent_shape, device="meta")
    try:
        with torch.inference_mode(), watching(shapes_only, on_output):
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
    return rows, used


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
