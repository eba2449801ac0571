"""Attention blocks that keep the shape of a feature map."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

OPEN = 2.0  # bias of both gates at the start: sigmoid(2) = 0.88, so that stages do not fade before they have learned


class CBAM(nn.Module):
    """Convolutional block attention: a weight per channel, then a weight per pixel, `(B, C, h, w)` in and out.

    channel: sigmoid(MLP(mean over pixels) + MLP(maximum over pixels)), one MLP `C -> C / reduction -> C` for both.
    spatial: sigmoid(7 x 7 convolution of the mean and the maximum over channels). Woo et al., "CBAM: Convolutional
    Block Attention Module", ECCV 2018, arXiv:1807.06521, eq. 1-3. Two departures: no batch norm on the spatial map, and
    gates that start open.
    """

    def __init__(
        self, width: int, activation: Callable[[], nn.Module] = nn.ReLU, *, reduction: int = 16, kernel: int = 7
    ) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        last = nn.Linear(hidden, width)
        self.channel = nn.Sequential(nn.Linear(width, hidden), activation(), last)
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2)
        nn.init.constant_(last.bias, OPEN / 2)  # the MLP is added twice
        nn.init.constant_(self.spatial.get_parameter("bias"), OPEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape out as in; no value grows."""
        x = x * self.channel_weights(x)[:, :, None, None]
        return x * self.pixel_weights(x)

    def channel_weights(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, C, h, w) -> (B, C)`, between 0 and 1."""
        return torch.sigmoid(self.channel(x.mean((2, 3))) + self.channel(x.amax((2, 3))))

    def pixel_weights(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, C, h, w) -> (B, 1, h, w)`, between 0 and 1."""
        return torch.sigmoid(self.spatial(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))
