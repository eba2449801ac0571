"""Convolutional layers of three image networks, with the layer numbers and weight names that torchvision gave them.

Only the layers that perceptual distances look at; the weights come from a file of the user's. Krizhevsky, "One weird
trick for parallelizing convolutional neural networks", arXiv:1404.5997 (alexnet); Simonyan & Zisserman, "Very Deep
Convolutional Networks for Large-Scale Image Recognition", ICLR 2015 (vgg16, configuration D); Iandola et al.,
"SqueezeNet", arXiv:1602.07360 (squeezenet, version 1.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Backbone:
    """How a network is built: its layers; after which of them features are taken, and the channels there; the smallest
    side of an image that reaches the last of them."""

    layers: Callable[[], list[nn.Module]]
    taps: tuple[int, ...]
    channels: tuple[int, ...]
    least: int


class Fire(nn.Module):
    """A pointwise convolution that narrows, then a pointwise and a 3 x 3 one side by side: `(B, c, h, w) -> (B, 2 e, h,
    w)`. Iandola et al., section 3.2."""

    def __init__(self, channels: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The two, one after the other in the channels."""
        x = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


def _alexnet() -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for before, after in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return layers


def _vgg16() -> list[nn.Module]:
    layers: list[nn.Module] = []
    before = 3
    for after, n_convs in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers.append(nn.MaxPool2d(2))
        for _ in range(n_convs):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            before = after
    return layers


def _squeezenet() -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU()]
    before = 64
    for narrow, wide, n_fires in ((16, 64, 2), (32, 128, 2)):
        layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        for _ in range(n_fires):
            layers.append(Fire(before, narrow, wide))
            before = 2 * wide
    layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
    for narrow, wide in ((48, 192), (48, 192), (64, 256), (64, 256)):
        layers.append(Fire(before, narrow, wide))
        before = 2 * wide
    return layers


# features are taken where LPIPS takes them (Zhang et al. 2018, appendix)
BACKBONES: dict[str, Backbone] = {
    "alexnet": Backbone(_alexnet, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256), 31),
    "vgg16": Backbone(_vgg16, (3, 8, 15, 22, 29), (64, 128, 256, 512, 512), 16),
    "squeezenet": Backbone(_squeezenet, (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512), 17),
}


def layers_without_weights(name: str) -> nn.Sequential:
    """The layers of a network on the meta device: shapes alone, no memory, no random numbers."""
    with torch.device("meta"):
        return nn.Sequential(*BACKBONES[name].layers())
