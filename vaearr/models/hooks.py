"""Hooks that meet what the layers of a network put out, in the order of execution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from vaearr.names import BLOCK

LEAF = "leaf"
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# layers that return the values of their input in evaluation mode, perhaps in another order
PASSES_ON = (
    nn.Identity,
    _DropoutNd,
    nn.Flatten,
    nn.Unflatten,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
)
REARRANGES = "einops."  # layers of this package do the same
WHOLE = (nn.MultiheadAttention,)  # runs its parts without calling them
# torch's child of a layer whose weights are computed, as in spectral norm
PARAMETRIZATIONS = "parametrizations"

OnOutput = Callable[[str, nn.Module, torch.Tensor], None]


def _children(module: nn.Module) -> list[nn.Module]:
    return [child for name, child in module.named_children() if name != PARAMETRIZATIONS]


def is_leaf(module: nn.Module) -> bool:
    """Return whether a module has no modules inside, is not a container, and changes values."""
    rearranges = type(module).__module__.startswith(REARRANGES)
    if rearranges or isinstance(module, (*CONTAINERS, *PASSES_ON)):
        return False
    return isinstance(module, WHOLE) or not _children(module)


def is_block(module: nn.Module) -> bool:
    """Return whether a module is a block, such as a residual or attention block.

    A block is made of other modules. A plain container is none, and neither is a module with a
    container of two or more composite modules: that is a stage, such as a complete encoder.
    """
    if not _is_composite(module) or isinstance(module, WHOLE):
        return False
    for container in module.modules():
        if type(container) in CONTAINERS and sum(map(_is_composite, container.children())) > 1:
            return False
    return True


def _is_composite(module: nn.Module) -> bool:
    return type(module) not in CONTAINERS and bool(_children(module))


@contextmanager
def watching(network: nn.Module, level: str, on_output: OnOutput) -> Iterator[None]:
    """Call `on_output(name, module, output)` for each layer as it is run, with the output's own
    memory.

    level: LEAF, every module without modules inside that changes values (`is_leaf`); BLOCK, every
    outermost block (`is_block`) and the leaves outside of blocks. A layer that is run twice is met
    twice. Of several outputs the first is taken; what is no tensor is left out. The hooks are
    removed afterwards in any case.
    """

    n_running = 0  # blocks

    def enter(module: nn.Module, _: Any) -> None:
        nonlocal n_running
        n_running += 1

    def leave(name: str, block: bool, module: nn.Module, _: Any, output: Any) -> None:
        nonlocal n_running
        n_running -= block
        if isinstance(output, tuple | list) and output:
            output = output[0]
        if not n_running and isinstance(output, torch.Tensor):
            on_output(name, module, output)

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if not name or PARAMETRIZATIONS in name.split("."):
                continue
            block = level == BLOCK and is_block(module)
            if block:
                stack.enter_context(module.register_forward_pre_hook(enter))
            if block or is_leaf(module):
                stack.enter_context(module.register_forward_hook(partial(leave, name, block)))
        yield


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network in evaluation mode; afterwards each module has its mode again."""
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
