"""What the layers of a network put out, one after the other as they are run; nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from vaearr.errors import UsageError, did_you_mean
from vaearr.names import BLOCK

LEAF = "leaf"
LEVELS = (LEAF, BLOCK)
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# what gives on, while evaluating, the very values that it is given, if in another order
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
PARAMETRIZATIONS = "parametrizations"  # torch's own child of a layer whose weights are computed, as in spectral norm

OnOutput = Callable[[str, nn.Module, torch.Tensor], None]


def _children(module: nn.Module) -> list[nn.Module]:
    return [child for name, child in module.named_children() if name != PARAMETRIZATIONS]


def is_leaf(module: nn.Module) -> bool:
    """Whether a module has no modules inside, is not a container, and changes the values that it is
    given.
    """
    if isinstance(module, (*CONTAINERS, *PASSES_ON)) or type(module).__module__.startswith(
        REARRANGES
    ):
        return False
    return isinstance(module, WHOLE) or not _children(module)


def is_block(module: nn.Module) -> bool:
    """Whether a module is a block, such as a residual or attention block: made of others, but not a
    row of blocks.

    A plain container is none, and neither is a module with a container of two or more modules that
    are made of others: that is a stage, such as a whole encoder.
    """

    def is_composite(part: nn.Module) -> bool:
        return type(part) not in CONTAINERS and bool(_children(part))

    inside = [list(inner.children()) for inner in module.modules() if type(inner) in CONTAINERS]
    is_row = any(sum(map(is_composite, parts)) > 1 for parts in inside)
    return is_composite(module) and not isinstance(module, WHOLE) and not is_row


@contextmanager
def watching(network: nn.Module, level: str, on_output: OnOutput) -> Iterator[None]:
    """Call `on_output(name, module, output)` for each layer as it is run, with the output's own
    memory.

    level: "leaf", every module without modules inside that changes values (`is_leaf`); "block",
    every outermost block (`is_block`) and the leaves that lie in none. A layer that is run twice is
    met twice. Of several outputs the first is taken, and what is no tensor is left out. The hooks
    are removed afterwards, whatever happened. Raises UsageError for another level.
    """
    if level not in LEVELS:
        raise UsageError(f"there is no level {level!r}.{did_you_mean(level, list(LEVELS))}")
    n_blocks = 0  # blocks that are running

    def enter(module: nn.Module, _: Any) -> None:
        nonlocal n_blocks
        n_blocks += 1

    def leave(name: str, block: bool, module: nn.Module, _: Any, output: Any) -> None:
        nonlocal n_blocks
        n_blocks -= block
        first = output[0] if isinstance(output, tuple | list) and output else output
        if not n_blocks and isinstance(first, torch.Tensor):
            on_output(name, module, first)

    with ExitStack() as stack:
        for name, module in network.named_modules():
            block = level == BLOCK and is_block(module)
            if not name or PARAMETRIZATIONS in name.split(".") or not (block or is_leaf(module)):
                continue
            if block:
                stack.enter_context(module.register_forward_pre_hook(enter))
            stack.enter_context(module.register_forward_hook(partial(leave, name, block)))
        yield


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; each module's own mode comes back."""
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
