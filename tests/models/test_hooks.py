"""Which layers are watched, in which order, and that nothing of it stays behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from vaearr.errors import UsageError
from vaearr.models.hooks import BLOCK, LEAF, evaluating, is_block, is_leaf, watching


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.act(self.two(self.act(self.one(x))))


class Stage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Residual(), Residual()])
        self.last = nn.Sequential(nn.Identity(), nn.Dropout(0.5), nn.Linear(4, 2), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks[::-1]:  # not the order in which they are defined
            x = block(x)
        return self.last(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(4, 4)
        self.stage = Stage()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stage(x)


def _met(network: nn.Module, x: torch.Tensor, level: str) -> list[str]:
    names: list[str] = []
    with watching(network, level, lambda name, module, output: names.append(name)):
        network(x)
    return names


def _n_hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_leaves_in_order_of_execution_and_twice_where_called_twice() -> None:
    found = _met(Net().eval(), torch.ones(1, 4), LEAF)
    one = [f"stage.blocks.{i}.{name}" for i in (1, 0) for name in ("one", "act", "two", "act")]
    assert found == [*one, "stage.last.2"]


def test_blocks_are_the_outermost_ones_and_what_lies_between() -> None:
    assert _met(Net().eval(), torch.ones(1, 4), BLOCK) == ["stage.blocks.1", "stage.blocks.0", "stage.last.2"]


def test_what_counts_as_leaf_and_block() -> None:
    assert is_leaf(nn.ReLU())
    assert is_leaf(nn.MultiheadAttention(4, 2))
    assert not is_leaf(nn.PixelShuffle(2))
    assert not is_leaf(nn.Sequential())
    assert is_leaf(parametrizations.spectral_norm(nn.Linear(3, 3)))
    assert is_block(Residual())
    assert not is_block(Stage())
    assert not is_block(nn.MultiheadAttention(4, 2))
    assert not is_block(nn.Sequential(Residual()))


def test_of_several_outputs_the_first_is_taken() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.odd = nn.MultiheadAttention(4, 2, batch_first=True), Odd()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.odd(x)
            found: torch.Tensor = self.attention(x, x, x)[0]
            return found

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> str:
            return "no tensor"

    shapes = []
    network = Attention().eval()
    with watching(network, LEAF, lambda name, module, output: shapes.append((name, tuple(output.shape)))):
        network(torch.ones(1, 5, 4))
    assert shapes == [("attention", (1, 5, 4))]


@pytest.mark.parametrize("level", [LEAF, BLOCK])
def test_hooks_are_gone_whatever_happens(level: str) -> None:
    network = Net().eval()
    _met(network, torch.ones(1, 4), level)
    assert _n_hooks(network) == 0
    with pytest.raises(RuntimeError, match="shapes"):
        _met(network, torch.ones(1, 5), level)
    assert _n_hooks(network) == 0


def test_each_module_gets_its_mode_back() -> None:
    network = Net().train()
    network.stage.blocks[0].eval()
    before = [m.training for m in network.modules()]
    with evaluating(network):
        assert not any(m.training for m in network.modules())
    assert [m.training for m in network.modules()] == before
    with pytest.raises(RuntimeError, match="shapes"), evaluating(network):
        network(torch.ones(1, 5))
    assert [m.training for m in network.modules()] == before


def test_unknown_level() -> None:
    with pytest.raises(UsageError, match=r"no level 'leafs'. Did you mean 'leaf'"):
        _met(Net(), torch.ones(1, 4), "leafs")
