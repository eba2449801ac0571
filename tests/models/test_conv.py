"""ConvVAE: any size, cold decode, gradients everywhere, weights that load into a fresh model."""

import pytest
import torch

from vaearr.config import ModelConfig
from vaearr.errors import UsageError
from vaearr.models import build_model
from vaearr.models.conv import LOGVAR_RANGE, ConvVAE

SHAPES = [(1, 60, 60), (1, 59, 61), (1, 8, 8), (1, 9, 31), (3, 28, 28), (5, 33, 17), (1, 47, 53)]
SMALL = {"width": 8, "max_width": 16, "hidden": 16, "squeeze": 4}


def shape_id(shape):
    return "x".join(map(str, shape))


@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
def test_any_size_round_trip(shape):
    x = torch.randn(3, *shape)
    recon, mean, logvar = ConvVAE(shape, 6)(x)
    assert recon.shape == x.shape
    assert mean.shape == logvar.shape == (3, 6)
    assert all(bool(torch.isfinite(t).all()) for t in (recon, mean, logvar))


def test_large_patterns_do_not_explode_the_parameters():
    n_params = [sum(p.numel() for p in ConvVAE(s).parameters()) for s in [(1, 60, 60), (1, 400, 500)]]
    assert n_params[1] < 2.5 * n_params[0]
    model = ConvVAE((1, 400, 500), **SMALL).eval()
    assert model.decode(torch.zeros(1, 32)).shape == (1, 1, 400, 500)


@pytest.mark.parametrize(
    ("side", "options", "sides"),
    [
        (60, {}, [15, 8]),
        (64, {"patch": 2, "coarsest": 4}, [32, 16, 8, 4]),
        (128, {"patch": 2, "coarsest": 4}, [64, 32, 16, 8, 4]),
        (9, {"patch": 2, "coarsest": 1}, [5, 3, 2, 1]),
    ],
    ids=["default", "64", "128", "to one"],
)
def test_the_grid_is_halved_down_to_the_coarsest(side, options, sides):
    model = ConvVAE((1, side, side), 4, **SMALL, **options)
    assert model.grids == [(s, s) for s in sides]
    strided = [m for m in model.encoder if isinstance(m, torch.nn.Conv2d) and m.stride != (1, 1)]
    assert len(strided) == len(sides)
    assert model(torch.randn(2, 1, side, side))[0].shape == (2, 1, side, side)


@pytest.mark.parametrize("shape", SHAPES[:4], ids=shape_id)
def test_decode_needs_no_encode_and_is_deterministic(shape):
    model = ConvVAE(shape, 4, **SMALL).eval()
    z = torch.randn(2, 4)
    torch.testing.assert_close(model.decode(z), model.decode(z), rtol=0, atol=0)
    assert model.decode(z).shape == (2, *shape)


OPTIONS = [
    *({"upsampling": u} for u in ("nearest", "bilinear", "transpose", "shuffle")),
    *({"norm": n} for n in ("group", "batch", "none")),
    *({"activation": a} for a in ("gelu", "relu", "elu", "silu")),
    {"head": "tanh"},
    {"depth": 0},
    {"depth": 3, "patch": 2},
    {"dropout": 0.5},
    {"coarsest": 4},
    {"coarsest": 1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("shape", [(1, 60, 60), (2, 35, 41)], ids=shape_id)
def test_every_parameter_gets_a_gradient_and_changes(options, shape):
    torch.manual_seed(0)
    model = ConvVAE(shape, 4, **{**SMALL, **options})
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    x = torch.randn(8, *shape)
    recon, mean, logvar = model(x)
    loss = (recon - x).square().sum() + (mean.square() + logvar.exp() - logvar).sum()
    loss.backward()
    optimizer.step()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert bool(p.grad.abs().sum() > 0), name
        assert not torch.equal(p.detach(), before[name]), name


def test_weights_load_into_a_fresh_model():
    model, fresh = (ConvVAE((1, 29, 31), 5, **SMALL).eval() for _ in range(2))
    fresh.load_state_dict(model.state_dict(), strict=True)
    x = torch.randn(4, 1, 29, 31)
    for a, b in zip(model(x), fresh(x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_training_decodes_a_draw_and_evaluation_the_mean():
    model = ConvVAE((1, 16, 16), 4, **SMALL)
    x = torch.randn(2, 1, 16, 16)
    assert not torch.equal(model.train()(x)[0], model(x)[0])
    recon, mean, _ = model.eval()(x)
    torch.testing.assert_close(recon, model.decode(mean))


@torch.inference_mode()
def test_logvar_is_bounded():
    model = ConvVAE((1, 16, 16), 4, **SMALL)
    mean, logvar = model.encode(1e8 * torch.randn(2, 1, 16, 16))
    assert LOGVAR_RANGE[0] <= float(logvar.min())
    assert float(logvar.max()) <= LOGVAR_RANGE[1]
    assert bool(torch.isfinite(model.sample_posterior(mean, logvar)).all())


def test_constant_patterns_stay_finite():
    outputs = ConvVAE((1, 20, 20), 4, **SMALL)(torch.zeros(2, 1, 20, 20))
    assert all(bool(torch.isfinite(t).all()) for t in outputs)


def test_bfloat16_autocast_stays_close_to_float32():
    torch.manual_seed(0)
    model = ConvVAE((1, 24, 24), 4, **SMALL).eval()
    x = torch.randn(4, 1, 24, 24)
    plain = model.encode(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.encode(x)[0]
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"input_shape": (1, 7, 60)}, "at least 8"),
        ({"input_shape": (60, 60)}, "channels"),
        ({"input_shape": (1, 60, 60), "activation": "sine"}, "activation"),
        ({"input_shape": (1, 60, 60), "upsampling": "cubic"}, "upsampling"),
        ({"input_shape": (1, 60, 60), "norm": "layer"}, "norm"),
        ({"input_shape": (1, 60, 60), "head": "relu6"}, "head"),
        ({"input_shape": (1, 60, 60), "coarsest": 0}, "coarsest"),
    ],
    ids=["small", "no-channel", "activation", "upsampling", "norm", "head", "coarsest"],
)
def test_wrong_options_say_what_is_right(arguments, word):
    with pytest.raises(ValueError, match=word):
        ConvVAE(**arguments)


def test_volumes_are_refused_with_what_takes_them() -> None:
    with pytest.raises(UsageError, match="for volumes choose the model 'autoencoder-kl' or the preset 'maisi'"):
        build_model(ModelConfig(), (1, 20, 20, 20))
