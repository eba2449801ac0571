"""Windows: they cover everything, their weights sum to one, and networks that see no borders give the whole back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vaearr.errors import UsageError
from vaearr.models.networks import decode_windows, encode_windows


class Blocks(nn.Module):
    """A latent position is a block of `step` pixels, rearranged: exact both ways, blind for its neighbours."""

    def __init__(self, spatial: tuple[int, ...], step: int = 2) -> None:
        super().__init__()
        self.step, d = step, len(spatial)
        self.input_shape, self.stride = (1, *spatial), (step,) * d
        self.pad_before = tuple(-size % step // 2 for size in spatial)
        self.latent_shape = (step**d, *(-(-size // step) for size in spatial))

    def resized(self, spatial: tuple[int, ...]) -> Blocks:
        return Blocks(spatial, self.step)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for dim, (size, before) in enumerate(zip(self.input_shape[1:], self.pad_before, strict=True), start=2):
            places = torch.arange(self.latent_shape[dim - 1] * self.step) - before
            x = x.index_select(dim, places.clamp(0, size - 1))
        for dim in range(2, x.ndim):
            x = x.unflatten(dim, (-1, self.step)).movedim(dim + 1, 1).flatten(1, 2)
        return x, -x

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        for dim in range(z.ndim - 1, 1, -1):
            z = z.unflatten(1, (self.step, -1)).movedim(1, dim + 1).flatten(dim, dim + 1)
        for dim, (before, size) in enumerate(zip(self.pad_before, self.input_shape[1:], strict=True), start=2):
            z = z.narrow(dim, before, size)
        return z


@settings(max_examples=40, deadline=None)
@given(
    spatial=st.one_of(st.tuples(*[st.integers(1, 13)] * 2), st.tuples(*[st.integers(1, 7)] * 3)),
    sides=st.tuples(*[st.integers(1, 3)] * 3),
    step=st.sampled_from([1, 2]),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.8]),
)
def test_a_network_of_blocks_is_given_back(
    spatial: tuple[int, ...], sides: tuple[int, ...], step: int, overlap: float
) -> None:
    network = Blocks(spatial, step)
    window = [side * step for side in sides[: len(spatial)]]
    x = torch.randn(2, *network.input_shape, generator=torch.Generator().manual_seed(0))
    mean, logvar = encode_windows(network, x, window, overlap)
    torch.testing.assert_close(mean, network.encode(x)[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(logvar, -mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(decode_windows(network, mean, window, overlap), x, atol=1e-6, rtol=1e-5)


def test_refusals() -> None:
    network, x = Blocks((9, 8)), torch.zeros(1, 1, 9, 8)
    for window, overlap, match in (
        ((4, 3), 0.2, r"2 multiples of \(2, 2\), the network's stride"),
        ((4, 0), 0.2, "2 multiples"),
        ((4,), 0.2, "2 multiples"),
        ((4, 4), 1.0, "from 0 to below 1"),
    ):
        with pytest.raises(UsageError, match=match):
            encode_windows(network, x, window, overlap)
    network.latent_shape = (4,)
    with pytest.raises(UsageError, match="need a network with spatial latents"):
        encode_windows(network, x, (4, 4))
