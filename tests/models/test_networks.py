"""Every registered network: any size, windows, latents that lie where they say, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vaearr.config import ModelConfig
from vaearr.config.presets import preset
from vaearr.errors import UsageError
from vaearr.models import MODELS, build_model, for_training
from vaearr.models.losses import posterior_kl
from vaearr.models.networks import CBAM
from vaearr.models.windows import encode_windows

SMALL = {"width": 8, "max_width": 16, "hidden": 16, "squeeze": 4}
TINY = {"channels": (8, 8, 16), "groups": 4}
SHAPE = (1, 24, 27)
OPTIONS = {"conv": SMALL, "conv_ae": SMALL, "autoencoder-kl": TINY}


def made(
    name: str = "conv", shape: tuple[int, ...] = SHAPE, latent_dim: int = 4, **options: Any
) -> Any:
    if name == "autoencoder-kl":
        pytest.importorskip("monai")
    config = ModelConfig(name=name, latent_dim=latent_dim, options={**OPTIONS[name], **options})
    return build_model(config, shape)


CASES = [
    ("conv", shape)
    for shape in ((1, 60, 60), (1, 59, 61), (1, 8, 8), (1, 9, 31), (3, 28, 28), (5, 33, 17))
]
CASES += [("conv_ae", SHAPE)]
CASES += [
    ("autoencoder-kl", shape) for shape in ((1, 24, 27), (3, 16, 16), (2, 9, 11, 6), (1, 5, 1))
]


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_any_size_comes_back_and_every_weight_gets_a_gradient(
    name: str, shape: tuple[int, ...]
) -> None:
    network = made(name, shape)
    assert network.decode(torch.zeros(2, *network.latent_shape)).shape == (
        2,
        *shape,
    )  # without an encode before
    x = torch.randn(4, *shape)
    mean, logvar = network.encode(x)
    recon = network.decode(mean)
    assert recon.shape == x.shape
    assert mean.shape == logvar.shape == (4, *network.latent_shape)
    assert network.latent_shape[0] == network.latent_dim == 4
    assert [t.dtype for t in (recon, mean, logvar)] == [torch.float32] * 3
    (
        (recon - x).square().sum() + posterior_kl(network, mean, logvar).sum() + mean.square().sum()
    ).backward()
    for key, parameter in network.named_parameters():
        assert bool(parameter.grad.isfinite().all()), key
        if min(shape[1:]) > 8 and not key.endswith(
            "to_k.bias"
        ):  # the same for all keys, so softmax does not see it
            assert bool(parameter.grad.any()), key
    assert name in MODELS


def test_attention_equals_the_formula_of_the_paper() -> None:
    block, x = CBAM(32), torch.randn(3, 32, 5, 6)
    first, _, last = block.channel

    def mlp(v: torch.Tensor) -> torch.Tensor:
        return F.linear(F.relu(F.linear(v, first.weight, first.bias)), last.weight, last.bias)

    pooled = mlp(F.adaptive_avg_pool2d(x, 1).flatten(1)) + mlp(
        F.adaptive_max_pool2d(x, 1).flatten(1)
    )
    refined = x * torch.sigmoid(pooled).view(3, 32, 1, 1)
    maps = torch.stack([refined.mean(1), refined.max(1).values], 1)
    expected = refined * torch.sigmoid(
        F.conv2d(maps, block.spatial.weight, block.spatial.bias, padding=3)
    )
    torch.testing.assert_close(block(x), expected)
    assert [CBAM(width).channel[0].out_features for width in (1, 16, 32)] == [1, 1, 2]


@torch.no_grad()
def test_the_contrast_latent_sets_the_size_and_nothing_else() -> None:
    network = made(contrast=True).eval()
    z = torch.randn(6, 4)
    louder = z + torch.tensor([2.0, 0, 0, 0])
    one, other = network.decode(z), network.decode(louder)
    size, larger = (x.square().flatten(1).mean(1).sqrt() for x in (one, other))
    torch.testing.assert_close(
        one / size.view(-1, 1, 1, 1), other / larger.view(-1, 1, 1, 1), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(size, F.softplus(0.6 + 0.3 * z[:, 0], beta=3.0), rtol=0.1, atol=0.02)


@torch.no_grad()
def test_spatial_latents_lie_where_they_say() -> None:
    """Padding continues the edges, evenly; a changed pixel changes the latents that lie over it
    most.
    """
    model, whole = (made("autoencoder-kl", shape).eval() for shape in ((1, 5, 10), (1, 8, 12)))
    whole.load_state_dict(model.state_dict())
    assert model.padding == ((1, 2), (1, 1))
    x = torch.randn(2, 1, 5, 10)
    for a, b in zip(
        model.encode(x), whole.encode(F.pad(x, (1, 1, 1, 2), mode="replicate")), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    z = torch.randn(2, *model.latent_shape)
    torch.testing.assert_close(model.decode(z), whole.decode(z)[:, :, 1:6, 1:11], rtol=0, atol=0)
    model, x = (
        made("autoencoder-kl", (1, 45, 62), mid_attention=False).eval(),
        torch.randn(1, 1, 45, 62),
    )
    for row, column in ((3, 40), (30, 11)):
        changed = x.clone()
        changed[..., row - 1 : row + 2, column - 1 : column + 2] += 30
        off = (model.encode(changed)[0] - model.encode(x)[0]).abs().sum((0, 1))
        place = divmod(int(off.argmax()), off.shape[1])
        for at, found, stride, (before, _) in zip(
            (row, column), place, model.stride, model.padding, strict=True
        ):
            assert abs((found + 0.5) * stride - before - at) <= 1.5 * stride


def test_options_follow_from_likelihood_and_preprocessing() -> None:
    """The decoder of probabilities; a latent for the contrast where patterns have standard
    deviation 1.
    """
    for latent_dim, options, normalise, expected in (
        (4, {}, "zscore", True),
        (4, {}, "minmax", False),
        (1, {}, "robust", False),
        (4, {"head": "tanh"}, "zscore", False),
        (4, {"contrast": False}, "zscore", False),
    ):
        config = ModelConfig(latent_dim=latent_dim, options=options)
        assert (
            for_training(config, likelihood="gaussian", normalise=normalise).options["contrast"]
            is expected
        )
    with pytest.raises(UsageError, match=r"sigmoid.*not 'tanh'"):
        for_training(
            ModelConfig(options={"head": "tanh"}), likelihood="bernoulli", normalise="minmax"
        )


def test_the_presets_are_the_published_networks() -> None:
    pytest.importorskip("monai")
    with torch.device("meta"):
        sd = build_model(preset("sd").model, (3, 256, 256))
    assert sum(p.numel() for p in sd.parameters()) == 83_653_863  # Stable Diffusion's
    assert sd.latent_shape == (4, 32, 32)
    maisi = build_model(preset("maisi").model, (1, 46, 55, 46))
    assert (maisi.latent_shape, maisi.stride) == ((4, 12, 14, 12), (4, 4, 4))
    assert not any(
        type(module).__name__ in ("SpatialAttentionBlock", "SiLU") for module in maisi.modules()
    )


def test_what_cannot_be_is_refused() -> None:
    for name, options, shape, says in (
        ("conv", {}, (1, 7, 60), "at least 8"),
        ("conv", {}, (1, 20, 20, 20), "for volumes choose the model 'pca' or the preset 'maisi'"),
        ("conv", {"attention": "se"}, SHAPE, "attention is 'se'; use one of none, cbam"),
        ("conv", {"coarsest": 0}, SHAPE, "coarsest and patch 1 or more"),
        (
            "conv",
            {"contrast": True, "head": "tanh"},
            SHAPE,
            "needs at least 2 latent dimensions and head=",
        ),
        ("conv", {"atention": "cbam"}, SHAPE, "Did you mean 'attention'.*Known: width"),
        ("conv", {"is_deterministic": True}, SHAPE, "has no option 'is_deterministic'"),
        ("autoencoder-kl", {"groups": 3}, SHAPE, "divisible by num_groups"),
        ("autoencoder-kl", {"res_blocks": (1, 2)}, SHAPE, "one or each of 3"),
        ("autoencoder-kl", {"decoder_res_blocks": 0}, SHAPE, "res_blocks .1 or more"),
        ("autoencoder-kl", {}, (1, 24), "height, width"),
    ):
        with pytest.raises(UsageError, match=says):
            made(name, shape, **options)


def test_windows_that_do_not_fit_are_refused() -> None:
    network, x = made("autoencoder-kl", (1, 9, 8)), torch.zeros(1, 1, 9, 8)
    for window, overlap, match in (
        ((4, 3), 0.2, r"2 multiples of \(4, 4\), the network's stride"),
        ((4, 0), 0.2, "2 multiples"),
        ((4,), 0.2, "2 multiples"),
        ((4, 4), 1.0, "from 0 to below 1"),
    ):
        with pytest.raises(UsageError, match=match):
            encode_windows(network, x, window, overlap)
    with pytest.raises(UsageError, match="need a network with spatial latents"):
        encode_windows(made(), torch.zeros(1, *SHAPE), (4, 4))
