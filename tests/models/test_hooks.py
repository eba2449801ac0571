"""Which layers are watched, and in which order."""

from __future__ import annotations

import torch
from torch import nn

from vaearr.models.hooks import LEAF, watching
from vaearr.names import BLOCK


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.act(self.two(self.act(self.one(x))))


class Stage(nn.Module):
    """Two blocks, not run in the order in which they are defined, and attention of several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([Residual(), Residual()])
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.last = nn.Sequential(nn.Identity(), nn.Dropout(0.5), nn.Linear(4, 2), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks[0](self.blocks[1](x))
        found: torch.Tensor = self.last(self.attention(x, x, x)[0])
        return found


def met(network: nn.Module, x: torch.Tensor, level: str) -> list[str]:
    names: list[str] = []
    with watching(network, level, lambda name, module, output: names.append(name)):
        network(x)
    return names


def test_layers_in_order_of_execution_and_twice_where_called_twice() -> None:
    network = nn.ModuleDict({"stage": Stage()}).eval()
    network.forward = network["stage"].forward  # type: ignore[method-assign]
    x, after = torch.ones(1, 3, 4), ["stage.attention", "stage.last.2"]
    one = [f"stage.blocks.{i}.{name}" for i in (1, 0) for name in ("one", "act", "two", "act")]
    assert met(network, x, LEAF) == [*one, *after]
    assert met(network, x, BLOCK) == ["stage.blocks.1", "stage.blocks.0", *after]
