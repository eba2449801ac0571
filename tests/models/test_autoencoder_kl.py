"""AutoencoderKL: any size in 2-D and 3-D, latents that lie where they say, checkpointing that saves memory only."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from vaearr.config import ModelConfig
from vaearr.errors import UsageError
from vaearr.models import build_model
from vaearr.models.autoencoder_kl import LOGVAR_RANGE, AutoencoderKL
from vaearr.presets import preset

pytest.importorskip("monai")

TINY = {"channels": (8, 8, 16), "groups": 4}
SHAPES = [(1, 24, 27), (3, 16, 16), (2, 9, 11, 6)]
OPTIONS = [
    {},
    {"mid_attention": False, "final_activation": False},
    {"attention_levels": (False, True, True), "res_blocks": (1, 1, 2), "decoder_res_blocks": 2},
    {"head": "tanh"},
    {"head": "sigmoid", "checkpointing": True},
]


def tiny(shape=(1, 24, 27), latent_dim=4, seed=0, **options):
    torch.manual_seed(seed)
    return AutoencoderKL(shape, latent_dim, **{**TINY, **options})


@settings(max_examples=40, deadline=None)
@given(
    sides=st.lists(st.integers(1, 19), min_size=2, max_size=3),
    n_channels=st.integers(1, 5),
    latent_dim=st.integers(1, 5),
    n_levels=st.integers(1, 4),
)
def test_any_size_comes_back_and_latents_have_the_shape_that_is_told(sides, n_channels, latent_dim, n_levels):
    shape = (n_channels, *sides)
    model = AutoencoderKL(shape, latent_dim, channels=[4] * n_levels, groups=2).eval()
    recon, mean, logvar = model(torch.randn(2, *shape))
    assert recon.shape == (2, *shape)
    assert mean.shape == logvar.shape == (2, *model.latent_shape)
    assert model.latent_shape[0] == model.latent_dim == latent_dim
    assert model.stride == (2 ** (n_levels - 1),) * len(sides)
    for side, stride, before, size in zip(sides, model.stride, model.pad_before, model.latent_shape[1:], strict=True):
        after = size * stride - side - before
        assert 0 <= before <= after <= before + 1
        assert after < stride
    assert model.decode(torch.zeros(1, *model.latent_shape)).shape == (1, *shape), "without an encode before"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
def test_every_parameter_gets_a_gradient_and_changes(shape, options):
    model = tiny(shape, **options)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    x = torch.rand(2, *shape)
    recon, mean, logvar = model(x)
    ((recon - x).square().sum() + (mean.square() + logvar.exp() - logvar).sum()).backward()
    optimizer.step()
    for name, p in model.named_parameters():
        assert bool(p.grad.isfinite().all()), name
        if not name.endswith("to_k.bias"):  # the same for all keys, so softmax does not see it
            assert bool(p.grad.any()), name
            assert not torch.equal(p.detach(), before[name]), name


@torch.no_grad()
def test_padding_continues_the_edges_and_is_symmetric():
    model = tiny((1, 5, 10)).eval()
    assert (model.padding, model.pad_before) == (((1, 2), (1, 1)), (1, 1))
    x = torch.randn(2, 1, 5, 10)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 2), mode="replicate")
    whole = tiny((1, 8, 12)).eval()
    whole.load_state_dict(model.state_dict())
    for a, b in zip(model.encode(x), whole.encode(padded), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    z = torch.randn(2, *model.latent_shape)
    torch.testing.assert_close(model.decode(z), whole.decode(z)[:, :, 1:6, 1:11], rtol=0, atol=0)


@torch.no_grad()
def test_a_changed_pixel_changes_the_latents_that_lie_over_it_most():
    model = tiny((1, 45, 62), mid_attention=False).eval()
    x = torch.randn(1, 1, 45, 62)
    for row, column in ((3, 40), (30, 11)):
        changed = x.clone()
        changed[..., row - 1 : row + 2, column - 1 : column + 2] += 30
        off = (model.encode(changed)[0] - model.encode(x)[0]).abs().sum((0, 1))
        place = divmod(int(off.argmax()), off.shape[1])
        for at, found, stride, before in zip((row, column), place, model.stride, model.pad_before, strict=True):
            assert abs((found + 0.5) * stride - before - at) <= 1.5 * stride


def test_parameter_count_of_the_sd_preset_is_that_of_stable_diffusion():
    with torch.device("meta"):
        model = build_model(preset("sd").model, (3, 256, 256))
    assert sum(p.numel() for p in model.parameters()) == 83_653_863
    assert model.latent_shape == (4, 32, 32)
    kinds = [type(block).__name__ for block in model.encoder.blocks]
    assert kinds[-6:] == ["AEKLResBlock", "SpatialAttentionBlock", "AEKLResBlock", "GroupNorm", "SiLU", "Convolution"]


def test_the_maisi_preset_is_volumetric():
    model = build_model(preset("maisi").model, (1, 46, 55, 46))
    assert (model.latent_shape, model.stride, model.pad_before) == ((4, 12, 14, 12), (4, 4, 4), (1, 0, 1))
    assert not any(type(module).__name__ in ("SpatialAttentionBlock", "SiLU") for module in model.modules())


def saved_bytes(model, x):
    """Bytes of what the forward pass keeps for the gradient, each storage once; and the gradients."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    model.zero_grad()
    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        recon, mean, logvar = model(x)
    loss = (recon - x).square().mean() + (mean.square() + logvar.exp() - logvar).mean()
    total = sum(size for pointer, size in kept.items() if pointer not in parameters)
    loss.backward()
    return total, float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("shape", [(1, 48, 40), (1, 16, 20, 12)], ids=str)
def test_checkpointing_keeps_less_and_gives_the_same_gradients(shape):
    options = {"channels": (16, 32), "res_blocks": 2, "groups": 8}
    model, frugal = (tiny(shape, **options, checkpointing=c).train() for c in (False, True))
    x = torch.randn(2, *shape)
    kept, loss, gradients = saved_bytes(model, x)
    less, same, others = saved_bytes(frugal, x)
    assert less < 0.4 * kept, (less, kept)
    assert same == loss
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


def test_checkpointing_computes_again_in_training_and_nothing_otherwise():
    counts = {}
    for checkpointing in (False, True):
        model, x = tiny(checkpointing=checkpointing), torch.randn(2, 1, 24, 27)
        with FlopCounterMode(display=False) as counter:
            model(x)[0].sum().backward()
        training = counter.get_total_flops()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x)
        counts[checkpointing] = training, counter.get_total_flops()
    assert counts[True][0] > 1.1 * counts[False][0]
    assert counts[True][1] == counts[False][1]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bfloat16_in_between_and_float32_outside(shape):
    model, x = tiny(shape), torch.randn(2, *shape)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x)
        assert model.decode(found[1]).dtype == torch.float32
    assert [t.dtype for t in found] == [torch.float32] * 3
    found[0].square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        exact = model.eval().encode(x)[0]
    assert float((found[1].detach() - exact).square().mean().sqrt()) < 0.05 * float(exact.square().mean().sqrt())


@torch.no_grad()
@pytest.mark.parametrize(
    ("shape", "form"), [((3, 24, 20), torch.channels_last), ((1, 8, 9, 7), torch.channels_last_3d)], ids=["2-D", "3-D"]
)
def test_memory_formats_give_the_same(shape, form):
    model, x = tiny(shape).eval(), torch.randn(2, *shape)
    expected = model(x)
    found = model.to(memory_format=form)(x.contiguous(memory_format=form))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert a.is_contiguous()


@torch.no_grad()
def test_training_decodes_a_draw_and_evaluation_the_mean():
    model, x = tiny(), torch.randn(2, 1, 24, 27)
    assert not torch.equal(model.train()(x)[0], model(x)[0])
    recon, mean, logvar = model.eval()(x)
    torch.testing.assert_close(recon, model.decode(mean), rtol=0, atol=0)
    draws = torch.stack([model.sample_posterior(mean, logvar) for _ in range(400)])
    torch.testing.assert_close(draws.std(0).mean(), (0.5 * logvar).exp().mean(), rtol=0.02, atol=0)


@torch.no_grad()
def test_logits_leave_out_the_head_and_logvar_is_bounded():
    model = tiny(head="sigmoid").eval()
    z = 5 * torch.randn(2, *model.latent_shape)
    torch.testing.assert_close(model.decode(z), torch.sigmoid(model.decode(z, logits=True)))
    model.quant_conv.weight.mul_(1e4)
    logvar = model.encode(torch.randn(2, 1, 24, 27))[1]
    assert (float(logvar.min()), float(logvar.max())) == LOGVAR_RANGE


def test_weights_follow_from_the_seed_and_the_convolutions_beside_the_latents_begin_as_nothing():
    one, other, third = tiny(seed=1), tiny(seed=1), tiny(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(third.parameters()))
    z = torch.randn(2, *one.latent_shape)
    torch.testing.assert_close(one.post_quant_conv(z), z)
    moments = torch.cat([z, z + 1], 1)
    torch.testing.assert_close(one.quant_conv(moments), moments)


def test_loss_falls_in_a_few_steps():
    model = tiny((1, 16, 16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    x = torch.nn.functional.interpolate(torch.randn(8, 1, 4, 4), scale_factor=4, mode="bilinear")
    losses = []
    for _ in range(40):
        recon, mean, logvar = model(x)
        loss = (recon - x).square().mean() + 1e-4 * (mean.square() + logvar.exp() - logvar).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"groups": 3}, r"channels \(8, 8, 16\) must be one or more positive multiples of groups=3"),
        ({"channels": []}, "channels"),
        ({"res_blocks": (1, 2)}, r"res_blocks is \(1, 2\); give a positive number, or one for each of 3 levels"),
        ({"decoder_res_blocks": 0}, "res_blocks is 0"),
        ({"attention_levels": (True,)}, "attention_levels has 1 entries, channels 3; give one per level"),
        ({"mid_attention": 1}, "mid_attention is 1; use true or false"),
        ({"attention_levels": (0, 0, 1)}, "attention_levels is .; use true or false"),
        ({"head": "softmax"}, "head is 'softmax'; use one of identity, tanh, sigmoid"),
        ({"chanels": (8,)}, "Did you mean 'channels'"),
        ({"channels": (8,) * 6, "groups": 8}, "use fewer groups or fewer levels"),
    ],
)
def test_options_that_cannot_be_are_refused(options, says):
    with pytest.raises(UsageError, match=says):
        build_model(ModelConfig(name="autoencoder-kl", latent_dim=4, options={**TINY, **options}), (1, 24, 27))


@pytest.mark.parametrize("shape", [(24,), (1, 24), (1, 2, 3, 4, 5), (1, 0, 4)], ids=str)
def test_shapes_that_are_no_images_or_volumes_are_refused(shape):
    with pytest.raises(UsageError, match="height, width"):
        build_model(ModelConfig(name="autoencoder-kl", latent_dim=4, options=TINY), shape)
