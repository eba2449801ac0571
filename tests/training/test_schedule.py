"""The learning rate over a training, and optimizers that do what their names say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vaearr.config import TrainConfig
from vaearr.training.schedule import Average, make_optimizer, rate_at

CONFIG = TrainConfig()


def test_learning_rate_rises_and_falls_over_the_run() -> None:
    rates = [rate_at(update, 100, CONFIG) for update in range(101)]
    assert rates[0] == pytest.approx(1 / 15)
    assert max(rates) == rates[15] == 1.0
    assert rates[15:] == sorted(rates[15:], reverse=True)
    assert rates[-1] == pytest.approx(CONFIG.rate_end)
    assert rate_at(0, 1, CONFIG) == 1.0


def test_restarts_go_back_to_the_highest_rate() -> None:
    config = CONFIG.replace(rise=0.0, restarts=3, rate_end=0.1)
    rates = [rate_at(update, 400, config) for update in range(401)]
    assert [i for i, rate in enumerate(rates) if rate == 1.0] == [0, 100, 200, 300]
    assert rates[99] == pytest.approx(0.1, abs=1e-3)
    assert rates[400] == pytest.approx(0.1)


def test_rate_per_epoch_changes_between_epochs_only() -> None:
    config = CONFIG.replace(schedule_per="epoch", rise=0.0)
    rates = [rate_at(update, 40, config, per_epoch=10) for update in range(40)]
    assert [len(set(rates[i : i + 10])) for i in range(0, 40, 10)] == [1, 1, 1, 1]
    assert len(set(rates)) == 4


def test_constant_rate_stays() -> None:
    config = CONFIG.replace(schedule="constant")
    assert {rate_at(update, 100, config) for update in range(15, 100)} == {1.0}


@pytest.mark.parametrize(("name", "cls"), [("adamw", "AdamW"), ("adam", "Adam"), ("sgd", "SGD")])
def test_optimizers(name: str, cls: str) -> None:
    parameter = nn.Parameter(torch.ones(3))
    config = CONFIG.replace(optimizer=name, learning_rate=0.1, weight_decay=0.5)
    optimizer = make_optimizer([parameter], config)
    assert type(optimizer).__name__ == cls
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    parameter.grad = torch.zeros(3)
    optimizer.step()
    if name == "adamw":  # decay without a gradient: 1 - lr * weight_decay
        torch.testing.assert_close(parameter.detach(), torch.full((3,), 0.95))
    if name == "sgd":  # gradient 0.5, Nesterov: lr * (g + 0.9 g)
        torch.testing.assert_close(parameter.detach(), torch.full((3,), 1 - 0.1 * 0.95))


def test_average_follows_and_swaps() -> None:
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    average = Average(layer, 0.9)
    with torch.no_grad():
        layer.weight.fill_(2.0)
    average.update(10_000)
    torch.testing.assert_close(average.values["weight"], torch.full((1, 2), 1.1))
    average.swap()
    torch.testing.assert_close(layer.weight.detach(), torch.full((1, 2), 1.1))
    average.swap()
    torch.testing.assert_close(layer.weight.detach(), torch.full((1, 2), 2.0))
    early = Average(layer, 0.999)
    with torch.no_grad():
        layer.weight.fill_(4.0)
    early.update(1)  # decay 2 / 11 at first
    torch.testing.assert_close(early.values["weight"], torch.full((1, 2), 4 - 2 * 2 / 11))
