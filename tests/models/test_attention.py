"""CBAM: the formula of the paper, weights between 0 and 1, at least one hidden unit."""

import pytest
import torch
import torch.nn.functional as F

from vaearr.models.attention import CBAM


def test_equals_the_formula_of_the_paper():
    block, x = CBAM(32), torch.randn(3, 32, 5, 6)
    first, _, last = block.channel

    def mlp(v):
        return F.linear(F.relu(F.linear(v, first.weight, first.bias)), last.weight, last.bias)

    pooled = mlp(F.adaptive_avg_pool2d(x, 1).flatten(1)) + mlp(F.adaptive_max_pool2d(x, 1).flatten(1))
    refined = x * torch.sigmoid(pooled).view(3, 32, 1, 1)
    maps = torch.stack([refined.mean(1), refined.max(1).values], 1)
    expected = refined * torch.sigmoid(F.conv2d(maps, block.spatial.weight, block.spatial.bias, padding=3))
    torch.testing.assert_close(block(x), expected)
    assert block.spatial.weight.shape == (1, 2, 7, 7)


@pytest.mark.parametrize(("width", "hidden"), [(1, 1), (8, 1), (16, 1), (32, 2), (128, 8)])
def test_the_reduction_leaves_a_channel(width, hidden):
    block = CBAM(width)
    assert block.channel[0].out_features == hidden
    x = torch.randn(2, width, 4, 3)
    assert block(x).shape == x.shape


@torch.no_grad()
def test_weights_lie_between_0_and_1_and_start_open():
    block, x = CBAM(16), torch.randn(4, 16, 6, 6)
    for weights, shape in ((block.channel_weights(x), (4, 16)), (block.pixel_weights(x), (4, 1, 6, 6))):
        assert weights.shape == shape
        assert 0 < float(weights.min()) <= float(weights.max()) < 1
        assert float(weights.mean()) > 0.7


def test_channel_weights_do_not_depend_on_where_things_are():
    block, x = CBAM(16), torch.randn(4, 16, 6, 6)
    torch.testing.assert_close(block.channel_weights(x.flip(2, 3)), block.channel_weights(x))


def test_pixel_weights_do_not_depend_on_the_order_of_channels():
    block, x = CBAM(16), torch.randn(4, 16, 6, 6)
    torch.testing.assert_close(block.pixel_weights(x.flip(1)), block.pixel_weights(x))
