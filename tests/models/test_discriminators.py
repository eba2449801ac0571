"""Discriminators: any size that is large enough, no statistics over the batch, gradients everywhere, refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr.adversarial import discriminator_loss
from vaearr.errors import UsageError
from vaearr.models.discriminators import DISCRIMINATORS, NORMS, build_discriminator

SMALL = {"patch": {"channels": 8}, "multiscale": {"channels": 8}, "conv": {"channels": 8, "max_channels": 32}}
SIZES = [(1, 28, 28), (1, 46, 55, 46), (3, 96, 128), (2, 24, 25), (1, 24, 25, 31)]


def small(name, shape, **options):
    return build_discriminator(name, shape, **{**SMALL[name], **options})


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_maps_of_real_sizes(name, shape):
    maps = small(name, shape)(torch.randn(2, *shape))
    assert len(maps) == (3 if name == "multiscale" else 1)
    for each in maps:
        assert each.shape[:2] == (2, 1)
        assert each.dtype == torch.float32
        assert bool(each.isfinite().all())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", DISCRIMINATORS)
@pytest.mark.parametrize("n_dims", [2, 3])
def test_the_least_side_is_the_least(name, norm, n_dims):
    options = {"layers": 2} if name != "multiscale" else {"layers": 1, "scales": 2}
    network = small(name, (1, *[64 if n_dims == 2 else 32] * n_dims), norm=norm, **options)
    side = network.least
    for each in network(torch.randn(1, 1, *[side] * n_dims)):
        assert each.numel() >= 1
        assert bool(each.isfinite().all())
    with pytest.raises(UsageError, match=rf"at least {side}; set fewer"):
        network(torch.randn(1, 1, side - 1, *[side] * (n_dims - 1)))
    with pytest.raises((RuntimeError, ValueError)):  # what the check stands for
        network.network(torch.randn(1, 1, *[side - 1] * n_dims))


@given(height=st.integers(24, 70), width=st.integers(24, 70))
@settings(max_examples=15, deadline=None)
def test_every_size_from_the_least_on(height, width):
    for name in DISCRIMINATORS:
        network = small(name, (1, 24, 24), **({"channels": 2} if name != "conv" else {"layers": 3}))
        for each in network(torch.randn(1, 1, height, width)):
            assert each.numel() >= 1


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_samples_are_judged_apart(name, norm):
    network = small(name, (1, 32, 30), norm=norm, **({"layers": 3} if name == "conv" else {}))
    real, fake = torch.randn(3, 1, 32, 30), 5 + torch.randn(2, 1, 32, 30)
    together = network(torch.cat([real, fake]))
    for joint, r, f in zip(together, network(real), network(fake), strict=True):
        torch.testing.assert_close(joint, torch.cat([r, f]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"norm": "none"}, {"norm": "instance"}], ids=["group", "none", "instance"])
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_every_parameter_gets_a_gradient(name, options):
    network = small(name, (1, 32, 32), **options)
    real, fake = torch.randn(2, 1, 32, 32), torch.rand(2, 1, 32, 32)
    discriminator_loss(network(real), network(fake), "bce").backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert bool(parameter.grad.isfinite().all()), key
        # a bias before an instance norm, or before groups of one channel, is taken away again
        assert bool(parameter.grad.any()) or ("bias" in key and options.get("norm") == "instance"), key


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_float32_logits_inside_autocast(name):
    network, x = small(name, (1, 32, 32)), torch.randn(2, 1, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = network(x)
    for a, b in zip(reduced, network(x), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_weights_follow_the_seed(name):
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(small(name, (1, 32, 32)).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_a_spectral_critic_is_lipschitz():
    network = small("conv", (1, 32, 32), norm="none", spectral=True, layers=3)
    for _ in range(30):
        network(torch.randn(2, 1, 32, 32))  # the singular vectors settle while training
    network.eval()
    for stage in [*network.network.stages, network.network.score]:
        if isinstance(stage, torch.nn.Conv2d | torch.nn.Linear):
            largest = float(torch.linalg.matrix_norm(stage.weight.detach().flatten(1), ord=2))
            assert largest == pytest.approx(1, abs=0.02)


def test_a_patch_is_seen_and_nothing_else():
    network = small("patch", (1, 96, 96), norm="none")
    x = torch.zeros(1, 1, 96, 96, requires_grad=True)
    logits = network(x)[0]
    logits[0, 0, 5, 5].backward()
    rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == 70


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("pach", (1, 32, 32), {}, "no discriminator 'pach'. Did you mean 'patch'"),
        ("patch", (1, 32, 32), {"layer": 2}, "no option 'layer'. Did you mean 'layers'"),
        ("patch", (1, 20, 32), {}, "at least 24; set fewer layers"),
        ("multiscale", (1, 32, 32), {"scales": 5}, "at least 64; set fewer scales or layers"),
        ("conv", (1, 8, 8, 8), {}, "at least 16; set fewer layers"),
        ("conv", (1, 32), {}, r"take \(C, H, W\) or \(C, D, H, W\)"),
        ("conv", (1, 32, 32), {"norm": "batch"}, "no norm 'batch'"),
        ("patch", (1, 32, 32), {"norm": "batch"}, "no norm 'batch'"),
        ("patch", (1, 32, 32), {"layers": 0}, "layers is 0"),
        ("conv", (1, 32, 32), {"channels": 1.5}, "channels is 1.5"),
    ],
)
def test_refusals(name, shape, options, message):
    with pytest.raises(UsageError, match=message):
        build_discriminator(name, shape, **options)


@pytest.mark.parametrize("shape", [(2, 32, 32), (1, 32, 32, 32)], ids=["channels", "dims"])
def test_other_samples_are_refused(shape):
    with pytest.raises(UsageError, match="takes 1 channels and 2 spatial dims"):
        small("conv", (1, 32, 32))(torch.randn(2, *shape))
