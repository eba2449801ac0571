"""Decoders written down as plain operations: a browser computes what PyTorch does, and the rest is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from tests.contract.browser import CHROMIUM, Page, browser
from vaearr.app.saved_decoder import Program, Unportable, translated
from vaearr.app.saved_machine import MACHINE
from vaearr.models.conv import ConvVAE

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """An empty page that knows how to run programs."""
    with browser(tmp_path_factory.mktemp("profile")) as found:
        found.run(f"{{{MACHINE} window.run = (p, z) => Array.from(machine(p)(Float32Array.from(z))); }}")
        yield found


def program(network: Any, shape: tuple[int, ...]) -> Program:
    with torch.no_grad():
        traced = make_fx(lambda z: network(z))(torch.zeros(shape))
        traced.graph.eliminate_dead_code()
        return translated(traced, shape)


def difference(page: Page, decode: Any, shape: tuple[int, ...]) -> float:
    """Largest difference between browser and PyTorch, over the range of the result."""
    found = program(decode, shape)
    z = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        exact = decode(z).numpy()
    assert found.shape == exact.shape
    made = np.array(page.run(f"run({json.dumps(found.arguments())}, {json.dumps(z.ravel().tolist())})"))
    return float(np.abs(made - exact.ravel()).max() / np.ptp(exact))


def small(**options: Any) -> ConvVAE:
    torch.manual_seed(0)
    shape = options.pop("shape", (1, 19, 22))
    network = ConvVAE(shape, 5, width=8, max_width=16, hidden=24, squeeze=8, **{"coarsest": 3, **options}).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr,operator]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr,operator]
    return network


@needs_browser
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shape": (3, 24, 24), "norm": "group", "activation": "relu", "head": "sigmoid"},
        {"norm": "batch", "upsampling": "nearest", "activation": "gelu", "head": "tanh"},
        {"upsampling": "bilinear", "activation": "elu", "patch": 4},
        {"upsampling": "transpose", "attention": "cbam"},
        {"contrast": True},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "default",
)
def test_vector_networks(page: Page, options: dict[str, Any]) -> None:
    network = small(**options)
    assert difference(page, network.decode, (1, 5)) < 1e-3


@needs_browser
def test_spatial_network_with_attention(page: Page) -> None:
    pytest.importorskip("monai")
    from vaearr.models.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    network = AutoencoderKL((3, 14, 18), 2, channels=(8, 16), groups=4, attention_levels=(False, True)).eval()
    assert difference(page, network.decode, (1, *network.latent_shape)) < 1e-3


OPERATIONS = {
    "reductions": lambda z: z.mean(2, keepdim=True) * z.amax((1, 3), keepdim=True) - z.sum((0, 2), keepdim=True) / 7,
    "order": lambda z: z.permute(0, 3, 1, 2)[:, 1:3, :, ::2].transpose(1, 2) * z[:, :, :2, 1:2],
    "unary": lambda z: torch.log1p(torch.exp(z).sqrt()) + torch.rsqrt(z.abs() + 1) - torch.nn.functional.leaky_relu(-z),
    "softplus": lambda z: torch.nn.functional.softplus(9 * z, beta=3.0, threshold=5.0) + z**3,
    "softmax": lambda z: z.softmax(-1) @ z.transpose(-1, -2).sigmoid(),
    "strides": lambda z: torch.nn.functional.conv2d(z, KERNEL, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
    "transposed": lambda z: torch.nn.functional.conv_transpose2d(z, KERNEL.transpose(0, 1), stride=2, padding=1),
    "growing by a factor": lambda z: torch.nn.functional.interpolate(z, scale_factor=1.3, mode="bilinear"),
    "odd growing": lambda z: torch.nn.functional.interpolate(z, size=(9, 5), mode="bilinear", align_corners=True),
}
KERNEL = torch.linspace(-1, 1, 2 * 3 * 3 * 2).reshape(2, 3, 3, 2)


@needs_browser
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(page: Page, name: str) -> None:
    assert difference(page, OPERATIONS[name], (1, 3, 4, 4)) < 1e-6


def test_what_cannot_be_written_down_is_named() -> None:
    cases = {
        "over 3 dims": (nn.Conv3d(1, 1, 3), (1, 1, 4, 4, 4)),
        "of 2 groups": (nn.Conv2d(4, 4, 3, groups=2), (1, 4, 5, 5)),
        "'cumsum.default'": (lambda z: z.cumsum(1), (1, 4)),
        "does not depend on the latents": (lambda z: torch.ones(3), (1, 4)),
        "no whole number": (nn.Upsample(size=(7, 7)), (1, 1, 5, 5)),
        "by a factor": (nn.Upsample(scale_factor=2.3), (1, 1, 3, 3)),  # to 6 x 6, but not as by 2
        "'cat.default'": (lambda z: torch.cat([z, 2 * z], 1), (1, 4)),
    }
    for words, (network, shape) in cases.items():
        with pytest.raises(Unportable) as caught:
            program(network, shape)
        assert words in str(caught.value)


def test_large_constants_travel_in_half_precision() -> None:
    weights = nn.Linear(64, 64)
    found = program(weights, (1, 64))
    assert sorted(str(c.dtype) for c in found.constants) == ["float16", "float32"]
    assert found.work == 64 * 64
    with torch.no_grad():
        weights.weight[0, 0] = 1e6  # beyond half precision
    assert {str(c.dtype) for c in program(weights, (1, 64)).constants} == {"float32"}
    with torch.no_grad():
        weights.weight.uniform_(-1e-6, 1e-6)  # of which half precision keeps four bits
    assert {str(c.dtype) for c in program(weights, (1, 64)).constants} == {"float32"}
