"""Checkpoints from elsewhere: equal outputs, nothing silently random, every refusal in one line."""

import math

import pytest
import torch
from safetensors.torch import save_file

from tests.contract.ldm import Reference, as_diffusers, random_weights
from vaearr.config import ModelConfig, PreprocessConfig
from vaearr.errors import DataError, UsageError
from vaearr.foreign import infer_options, load_foreign, read_foreign
from vaearr.models import build_model
from vaearr.models.autoencoder_kl import AutoencoderKL

monai = pytest.importorskip("monai.networks.nets")

CHANNELS = (32, 64, 64)
SHAPE = (3, 24, 32)
OTHERS = {
    "model.diffusion_model.time_embed.0.weight": torch.ones(3, 3),
    "cond_stage_model.transformer.weight": torch.ones(2),
    "model_ema.decay": torch.ones(()),
    "betas": torch.ones(5),
    "first_stage_model.loss.logvar": torch.zeros(()),
    "first_stage_model.loss.discriminator.main.0.weight": torch.zeros(4, 3),
}


@pytest.fixture(scope="module")
def weights():
    return random_weights(CHANNELS, attention=(1,))


def made_for(path, shape=SHAPE, **options):
    found = infer_options(path)
    assert (found.n_channels, found.n_spatial_dims) == (shape[0], len(shape) - 1)
    return build_model(found.model.replace(options={**found.model.options, **options}), shape).eval()


def noise(network):
    """Random numbers in all weights, so that what is not loaded shows."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return network


@torch.no_grad()
def assert_same_as_reference(network, weights):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, *SHAPE, generator=generator)
    z = torch.randn(2, *network.latent_shape, generator=generator)
    exact = Reference({name: value.double() for name, value in weights.items()})
    expected = (*exact.encode(x.double()), exact.decode(z.double()))
    assert all(float(e.std()) > 0.05 for e in expected)
    for found, wanted in zip((*network.encode(x), network.decode(z)), expected, strict=True):
        assert found.shape == wanted.shape
        assert float((found - wanted).square().mean().sqrt()) < 1e-5
    network = network.double()  # the network itself, without float32's rounding inside
    for found, wanted in zip((*network.encode(x.double()), network.decode(z.double())), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", ["bare", "full", "safetensors", "module", "old-format", "half"])
def test_stable_diffusion_layout_gives_the_outputs_of_the_original(weights, form, tmp_path):
    path, prefix, n_ignored = tmp_path / "first_stage.ckpt", "", 0
    if form == "full":
        prefix, n_ignored = "state_dict.first_stage_model.", len(OTHERS)
        state = {f"first_stage_model.{name}": value for name, value in weights.items()} | OTHERS
        torch.save({"state_dict": state, "epoch": 3, "global_step": 7, "lr_schedulers": []}, path)
    elif form == "safetensors":
        path, prefix, n_ignored = tmp_path / "sd.safetensors", "first_stage_model.", len(OTHERS)
        save_file({f"{prefix}{name}": value for name, value in weights.items()} | OTHERS, path)
    elif form == "module":
        prefix, n_ignored = "model.module.", 1
        state = {f"module.{name}": value for name, value in weights.items()}
        torch.save({"model": state, "optimizer": {"state": {0: {"step": torch.ones(())}}}, "best": torch.ones(1)}, path)
    elif form == "half":
        weights = {name: value.half().float() for name, value in weights.items()}
        torch.save({name: value.half() for name, value in weights.items()}, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=form == "bare")
    network = noise(made_for(path))
    report = load_foreign(network, path)
    assert (report.layout, report.prefix, report.ignored) == ("ldm", prefix, n_ignored)
    assert report.n_loaded == len(weights) == len(network.state_dict())
    assert (report.missing, report.unexpected, report.added) == ((), (), ())
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert_same_as_reference(network, weights)


@pytest.mark.parametrize("old", [False, True])
def test_diffusers_layout_gives_the_same_outputs(weights, old, tmp_path):
    save_file(
        {name: v.contiguous() for name, v in as_diffusers(weights, old=old).items()}, tmp_path / "vae.safetensors"
    )
    network = noise(made_for(tmp_path / "vae.safetensors"))
    assert load_foreign(network, tmp_path / "vae.safetensors").layout == "diffusers"
    assert_same_as_reference(network, weights)


def test_layouts_without_convolutions_beside_the_latents_get_ones_that_change_nothing(weights, tmp_path):
    short = {name: value for name, value in weights.items() if "quant" not in name}
    torch.save(short, tmp_path / "ae.pt")
    network = noise(made_for(tmp_path / "ae.pt"))
    report = load_foreign(network, tmp_path / "ae.pt")
    assert report.added == ("quant_conv", "post_quant_conv")
    assert "without effect, as the file has none: quant_conv, post_quant_conv" in report.in_words()
    eye = {conv: torch.eye(size)[:, :, None, None] for conv, size in (("quant_conv", 8), ("post_quant_conv", 4))}
    whole = short | {f"{conv}.weight": value for conv, value in eye.items()}
    whole |= {f"{conv}.bias": torch.zeros(len(value)) for conv, value in eye.items()}
    assert_same_as_reference(network, whole)


MONAI = {
    "plain": {"channels": (8, 16), "num_res_blocks": (1, 2), "attention_levels": (False, True)},
    "no-middle": {"channels": (8, 8, 16), "num_res_blocks": (2, 1, 1), "attention_levels": (False, False, True),
                  "with_encoder_nonlocal_attn": False, "with_decoder_nonlocal_attn": False},
    "no-projection": {"channels": (8, 16), "num_res_blocks": (1, 1), "attention_levels": (False, True),
                      "include_fc": False},
    "combined": {"channels": (16, 16), "num_res_blocks": (1, 1), "attention_levels": (True, False),
                 "use_combined_linear": True},
}  # fmt: skip


def monai_network(kind, n_dims=3):
    torch.manual_seed(4)
    network = monai.AutoencoderKL(
        spatial_dims=n_dims, in_channels=1, out_channels=1, latent_channels=3, norm_num_groups=8, **MONAI[kind]
    )
    return noise_norms(network).eval()


@torch.no_grad()
def noise_norms(network):
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.weight.add_(0.2 * torch.randn_like(module.weight))
            module.bias.add_(0.2 * torch.randn_like(module.bias))
    return network


@torch.no_grad()
def assert_same_as_monai(network, theirs, shape):
    x = torch.randn(2, *shape)
    mean, std = theirs.encode(x)
    found, logvar = network.encode(x)
    torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((0.5 * logvar).exp(), std, rtol=1e-5, atol=1e-5)
    z = torch.randn_like(mean)
    torch.testing.assert_close(network.decode(z), theirs.decode(z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", MONAI)
@pytest.mark.parametrize("shape", [(1, 16, 12), (1, 8, 12, 4)], ids=["2-D", "3-D"])
def test_monai_gives_the_same_outputs(kind, shape, tmp_path):
    theirs = monai_network(kind, len(shape) - 1)
    torch.save({"autoencoder": theirs.state_dict()}, tmp_path / "monai.pt")
    network = noise(made_for(tmp_path / "monai.pt", shape, groups=8))
    report = load_foreign(network, tmp_path / "monai.pt")
    assert (report.layout, report.prefix, report.missing, report.unexpected) == ("monai", "autoencoder.", (), ())
    assert bool(report.added) == (kind == "no-projection")
    assert_same_as_monai(network, theirs, shape)


def test_names_of_older_monai_versions(tmp_path):
    theirs = monai_network("plain")
    old = {
        name.replace(".attn.out_proj.", ".proj_attn.").replace(".attn.to_", ".to_").replace("postconv", "conv"): value
        for name, value in theirs.state_dict().items()
    }
    assert old.keys() != theirs.state_dict().keys()
    save_file(old, tmp_path / "old.safetensors")
    network = noise(made_for(tmp_path / "old.safetensors", (1, 8, 8, 12), groups=8))
    assert load_foreign(network, tmp_path / "old.safetensors").added == ()
    assert_same_as_monai(network, theirs, (1, 8, 8, 12))


def test_names_of_maisi(tmp_path):
    theirs = monai_network("no-middle")
    wrapped = {}
    for name, value in theirs.state_dict().items():
        is_conv = value.ndim > 2 or name.replace(".bias", ".weight") in convolutions(theirs)
        name = name.replace("postconv", "conv")
        wrapped[name.replace(".conv.", ".conv.conv.", 1) if is_conv and "quant" not in name else name] = value
    torch.save(wrapped, tmp_path / "maisi.pt")
    assert "encoder.blocks.0.conv.conv.weight" in wrapped
    network = noise(made_for(tmp_path / "maisi.pt", (1, 8, 8, 12), groups=8))
    load_foreign(network, tmp_path / "maisi.pt")
    assert_same_as_monai(network, theirs, (1, 8, 8, 12))


def convolutions(network):
    return {name for name, value in network.state_dict().items() if value.ndim > 2}


@torch.no_grad()
@pytest.mark.parametrize("final_activation", [False, True])
@pytest.mark.parametrize("attention_levels", [(False, False), (False, True)])
@pytest.mark.parametrize("mid_attention", [False, True])
def test_our_own_weights_alone_tell_the_network(final_activation, attention_levels, mid_attention, tmp_path):
    options = {"channels": (8, 16), "res_blocks": (1, 2), "decoder_res_blocks": (2, 2), "groups": 8,
               "final_activation": final_activation, "attention_levels": attention_levels,
               "mid_attention": mid_attention}  # fmt: skip
    network = AutoencoderKL((2, 12, 16), 3, **options).eval()
    save_file({f"network.{name}": value for name, value in network.state_dict().items()}, tmp_path / "own.safetensors")
    found = infer_options(tmp_path / "own.safetensors")
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    assert found.model == ModelConfig(name="autoencoder-kl", latent_dim=3, options=listed)
    other = noise(made_for(tmp_path / "own.safetensors", (2, 12, 16)))
    assert load_foreign(other, tmp_path / "own.safetensors").layout == "vaearr"
    x = torch.randn(2, 2, 12, 16)
    for a, b in zip(network(x), other(x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_weights_of_a_trained_model_of_any_kind_load_by_their_own_names(tmp_path):
    from vaearr.artifacts import TrainedModel, save_weights

    config = ModelConfig(latent_dim=4, options={"width": 8, "hidden": 16})
    model = TrainedModel(model=config, preprocess=PreprocessConfig(static_background="none", normalise="zscore"),
                         input_shape=(1, 12, 13), signal_dims=("dy", "dx"), dtype="uint8")  # fmt: skip
    save_weights(model, tmp_path / "weights.safetensors")
    network = noise(build_model(config, (1, 12, 13)))
    report = load_foreign(network, tmp_path / "weights.safetensors")
    assert (report.layout, report.prefix, report.ignored) == ("vaearr", "network.", 1)
    for a, b in zip(network.state_dict().values(), model.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(UsageError, match="fit the model 'autoencoder-kl' alone"):
        load_foreign(network, tmp_path / "weights.safetensors", layout="ldm")


def changed(weights, kind):
    state = dict(weights)
    if kind == "missing":
        for name in [name for name in state if name.startswith("decoder.mid")]:
            del state[name]
    elif kind == "unexpected":
        state["encoder.extra.weight"] = torch.ones(2)
    elif kind == "shape":
        state["decoder.conv_out.weight"] = torch.ones(3, 32, 1, 1)
    elif kind == "nan":
        state["decoder.conv_out.bias"] = torch.tensor([0.0, math.nan, 0.0])
    elif kind == "integer":
        state["decoder.conv_out.bias"] = torch.ones(3, dtype=torch.int8)
    elif kind == "overflow":
        state["decoder.conv_out.bias"] = torch.full((3,), 1e300, dtype=torch.float64)
    return state


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            "missing",
            r"26 missing in the file: decoder\.mid\.block_1\.norm1\.weight, .* and 22 more\. Nothing was loaded",
        ),
        ("unexpected", r"1 unexpected in it: encoder\.extra\.weight\."),
        ("shape", r"1 of another shape: decoder\.conv_out\.weight \(3, 32, 1, 1\), the network's \(3, 32, 3, 3\)"),
        ("nan", r"not finite in 'decoder\.conv_out\.bias'"),
        ("integer", r"decoder\.conv_out\.bias is torch\.int8, not a floating-point type"),
        ("overflow", r"not finite in 'decoder\.conv_out\.bias'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_nothing_changes(weights, kind, says, tmp_path):
    torch.save(weights, tmp_path / "whole.pt")
    torch.save(changed(weights, kind), tmp_path / "bad.pt")
    network = noise(made_for(tmp_path / "whole.pt"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(DataError, match=says):
        load_foreign(network, tmp_path / "bad.pt")
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_other_options_are_refused(weights, tmp_path):
    torch.save(weights, tmp_path / "sd.pt")
    with pytest.raises(DataError, match=r"missing in the file.*unexpected|unexpected in it"):
        load_foreign(made_for(tmp_path / "sd.pt", res_blocks=1), tmp_path / "sd.pt")
    with pytest.raises(DataError, match="of another shape"):
        load_foreign(AutoencoderKL(SHAPE, 8, channels=CHANNELS, groups=32), tmp_path / "sd.pt")
    torch.save(monai_network("plain", 2).state_dict(), tmp_path / "monai.pt")
    with pytest.raises(DataError, match="layout monai"):
        load_foreign(made_for(tmp_path / "monai.pt", (1, 8, 8), groups=8, final_activation=True), tmp_path / "monai.pt")


def test_allow_lets_named_weights_pass_and_the_report_says_so(weights, tmp_path):
    encoder = {name: value for name, value in weights.items() if not name.startswith(("decoder.", "post_"))}
    torch.save(weights, tmp_path / "whole.pt")
    torch.save(encoder | {"head.weight": torch.ones(1)}, tmp_path / "encoder.pt")
    network = noise(made_for(tmp_path / "whole.pt"))
    kept = network.decoder.blocks[0].conv.weight.clone()
    with pytest.raises(DataError, match=r"1 unexpected in it: head\.weight"):
        load_foreign(network, tmp_path / "encoder.pt", allow=("decoder.*",))
    report = load_foreign(network, tmp_path / "encoder.pt", allow=("decoder.*", "head.*"))
    assert report.unexpected == ("head.weight",)
    assert all(name.startswith("decoder.") for name in report.missing)
    assert "NOT in the file and left as they were: decoder.conv_in.weight" in report.in_words()
    assert torch.equal(network.decoder.blocks[0].conv.weight, kept)
    assert torch.equal(network.encoder.blocks[0].conv.weight, weights["encoder.conv_in.weight"])


def test_several_autoencoders_in_a_file_are_told_apart_by_prefix(weights, tmp_path):
    two = {f"{start}.{name}": value for start in ("vae", "ema") for name, value in weights.items()}
    two["ema.encoder.conv_in.bias"] = torch.full_like(weights["encoder.conv_in.bias"], 2.0)
    torch.save(two, tmp_path / "two.pt")
    with pytest.raises(DataError, match=r"holds 2 autoencoders, under 'vae\.' \(ldm\), 'ema\.' \(ldm\).*prefix"):
        read_foreign(tmp_path / "two.pt")
    assert set(read_foreign(tmp_path / "two.pt", prefix="ema").tensors["encoder.conv_in.bias"].tolist()) == {2.0}
    with pytest.raises(DataError, match=r"no autoencoder .* under the prefix 'unet'"):
        read_foreign(tmp_path / "two.pt", prefix="unet")
    with pytest.raises(DataError, match="no autoencoder in the layout monai"):
        read_foreign(tmp_path / "two.pt", layout="monai", prefix="vae")
    with pytest.raises(UsageError, match=r"no layout 'lmd'\. Did you mean 'ldm'\?"):
        read_foreign(tmp_path / "two.pt", layout="lmd")


def test_files_that_are_no_whole_autoencoder_are_refused(weights, tmp_path):
    torch.save({"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(DataError, match=r"holds 2 tensors and no autoencoder .* names are fc\.weight, fc\.bias"):
        infer_options(tmp_path / "other.pt")
    part = {name: value for name, value in weights.items() if not name.startswith("decoder.")}
    torch.save(part, tmp_path / "part.pt")
    with pytest.raises(DataError, match="not a whole autoencoder in the layout ldm"):
        infer_options(tmp_path / "part.pt")
    torch.save({"encoder.blocks.0.conv.weight": torch.ones(4, 1, 3, 3)}, tmp_path / "start.pt")
    with pytest.raises(DataError, match="not a whole autoencoder in the layout vaearr"):
        infer_options(tmp_path / "start.pt")
