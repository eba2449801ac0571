"""Hooks that receive the outputs of the layers of a network, in the order of execution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# layers that return the values of their input in evaluation mode, perhaps in another order
PASSES_ON = (nn.Identity, _DropoutNd, nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle)
REARRANGES = "einops."  # layers of this package do the same
# torch's child of a layer whose weights are computed, as in spectral norm
PARAMETRIZATIONS = "parametrizations"

OnOutput = Callable[[str, nn.Module, torch.Tensor], None]


@contextmanager
def watching(network: nn.Module, on_output: OnOutput) -> Iterator[None]:
    """Call `on_output(name, module, output)` after each layer; the output is not copied.

    A layer is a module without modules inside that changes values. A layer that is run twice is
    reported twice. Of several outputs the first is used; what is no tensor is skipped. The hooks
    are removed afterwards in any case.
    """

    def leave(name: str, module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, tuple | list) and output:
            output = output[0]
        if isinstance(output, torch.Tensor):
            on_output(name, module, output)

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if PARAMETRIZATIONS not in name.split(".") and _is_layer(module):
                stack.enter_context(module.register_forward_hook(partial(leave, name)))
        yield


def _is_layer(module: nn.Module) -> bool:
    rearranges = type(module).__module__.startswith(REARRANGES)
    if rearranges or isinstance(module, (*CONTAINERS, *PASSES_ON)):
        return False
    return all(name == PARAMETRIZATIONS for name, _ in module.named_children())
