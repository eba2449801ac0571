"""Every registered model: gradients everywhere under every loss, options by name, no KL where there is no posterior."""

import math
from itertools import product

import pytest
import torch

from vaearr.artifacts import TrainedModel
from vaearr.config import ModelConfig, PreprocessConfig
from vaearr.errors import UsageError
from vaearr.models import MODELS, build_model, for_training
from vaearr.models.objectives import LIKELIHOODS, posterior_kl, takes_logits
from vaearr.quality import health_warnings, latent_health

SMALL = {"width": 8, "max_width": 16, "hidden": 16, "squeeze": 4}
SHAPE = (1, 24, 27)
ATTENTIONS = ("none", "cbam")
VECTOR = ("conv", "conv_ae")  # with a vector latent


def small(name="conv", likelihood="gaussian", **options):
    config = ModelConfig(name=name, latent_dim=4, options={**SMALL, **options})
    return build_model(for_training(config, likelihood=likelihood, normalise="zscore"), SHAPE)


@pytest.mark.parametrize(("name", "attention", "likelihood"), list(product(VECTOR, ATTENTIONS, LIKELIHOODS)))
def test_every_parameter_gets_a_gradient_and_changes(name, attention, likelihood):
    network = small(name, likelihood, attention=attention)
    before = {key: p.detach().clone() for key, p in network.named_parameters()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    x = torch.rand(8, *SHAPE)
    recon, mean, logvar = network(x, logits=takes_logits(likelihood))
    loss = LIKELIHOODS[likelihood](x, recon).mean() + posterior_kl(network, mean, logvar).sum(1).mean()
    loss.backward()
    optimizer.step()
    for key, p in network.named_parameters():
        assert bool(p.grad.isfinite().all()), key
        assert bool(p.grad.any()), key
        assert not torch.equal(p.detach(), before[key]), key
    rows = network.to_posterior.weight.grad.abs().sum(1)
    assert bool((rows > 0).all()), "an output of the encoder that nothing depends on"


@pytest.mark.parametrize(("name", "attention"), list(product(VECTOR, ATTENTIONS)))
def test_loss_falls_in_a_few_steps(name, attention):
    network = small(name, attention=attention)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    x = torch.randn(16, *SHAPE)
    losses = []
    for _ in range(40):
        recon, mean, logvar = network(x)
        loss = LIKELIHOODS["gaussian"](x, recon).mean() + posterior_kl(network, mean, logvar).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1


@pytest.mark.parametrize("name", VECTOR)
def test_weights_load_into_a_fresh_model(name):
    network, fresh = (small(name, attention="cbam").eval() for _ in range(2))
    fresh.load_state_dict(network.state_dict(), strict=True)
    x = torch.randn(3, *SHAPE)
    for a, b in zip(network(x), fresh(x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_attention_is_on_every_grid_and_in_the_residual_blocks():
    network = build_model(ModelConfig(options={**SMALL, "attention": "cbam", "depth": 2}), (1, 60, 60))
    found = [key for key, module in network.named_modules() if type(module).__name__ == "CBAM"]
    assert len(found) == len(network.grids) + 2
    assert all(key.startswith("encoder.") for key in found)


def test_without_attention_names_and_sizes_are_those_of_earlier_runs():
    network = build_model(ModelConfig(), (1, 60, 60))
    layers = ["encoder.0", "encoder.3", "encoder.4.block.1", "encoder.4.block.3", "encoder.7", "to_hidden.0"]
    layers += ["to_posterior", "from_latent.0", "from_latent.2", "from_coarse", "up.0.2", "to_pattern.2"]
    assert list(network.state_dict()) == [f"{layer}.{what}" for layer in layers for what in ("weight", "bias")]
    assert sum(p.numel() for p in network.parameters()) == 1_170_960


def test_without_attention_results_are_those_of_earlier_versions():
    """Numbers of the network as it was before attention could be chosen."""
    torch.manual_seed(0)
    network = build_model(ModelConfig(), (1, 60, 60)).eval()
    x = torch.randn(2, 1, 60, 60, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        recon, mean, logvar = network(x)
    found = float(recon.abs().mean()), float(mean.abs().mean()), float(logvar.mean())
    assert found == pytest.approx((0.0348664668, 0.0377927090, -0.0118648705), rel=1e-4)


@torch.no_grad()
def test_bernoulli_decodes_probabilities_and_trains_on_their_logits():
    network = small(likelihood="bernoulli").eval()
    z = 50 * torch.randn(5, 4)
    decoded, logits = network.decode(z), network.decode(z, logits=True)
    assert 0 <= float(decoded.min()) < 0.5 < float(decoded.max()) <= 1
    torch.testing.assert_close(decoded, torch.sigmoid(logits))
    x = torch.rand(5, *SHAPE)
    torch.testing.assert_close(network(x)[0], torch.sigmoid(network(x, logits=True)[0]))


def test_only_bernoulli_asks_for_a_head():
    config = ModelConfig(options=SMALL)
    for likelihood in LIKELIHOODS:
        changed = for_training(config, likelihood=likelihood, normalise="zscore")
        assert changed.options.get("head") == ("sigmoid" if takes_logits(likelihood) else None)
    assert for_training(changed, likelihood=likelihood, normalise="zscore") == changed
    with pytest.raises(UsageError, match=r"sigmoid.*not 'tanh'"):
        for_training(config.replace(options={"head": "tanh"}), likelihood="bernoulli", normalise="minmax")


@pytest.mark.parametrize(
    ("latent_dim", "options", "normalise", "likelihood", "expected"),
    [
        (4, {}, "zscore", "optimal_sigma", True),
        (4, {}, "robust", "laplace", True),
        (4, {}, "minmax", "gaussian", False),
        (4, {}, "none", "gaussian", False),
        (1, {}, "zscore", "gaussian", False),
        (4, {}, "zscore", "bernoulli", False),
        (4, {"head": "tanh"}, "zscore", "gaussian", False),
        (4, {"contrast": False}, "zscore", "gaussian", False),
    ],
)
def test_contrast_is_on_where_patterns_have_standard_deviation_1(latent_dim, options, normalise, likelihood, expected):
    config = ModelConfig(latent_dim=latent_dim, options=options)
    assert for_training(config, likelihood=likelihood, normalise=normalise).options["contrast"] is expected


@pytest.mark.parametrize(("latent_dim", "head"), [(1, "identity"), (4, "tanh")])
def test_contrast_is_refused_where_it_cannot_be(latent_dim, head):
    with pytest.raises(UsageError, match="contrast needs at least 2 latent dimensions and head='identity'"):
        build_model(ModelConfig(latent_dim=latent_dim, options={"contrast": True, "head": head}), SHAPE)


@torch.no_grad()
def test_the_contrast_latent_sets_the_size_and_nothing_else():
    network = small(contrast=True).eval()
    z = torch.randn(6, 4)
    louder = z.clone()
    louder[:, 0] += 2
    one, other = network.decode(z), network.decode(louder)
    size, larger = (x.square().flatten(1).mean(1).sqrt() for x in (one, other))
    assert (larger > size).all()
    torch.testing.assert_close(one / size.view(-1, 1, 1, 1), other / larger.view(-1, 1, 1, 1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(size, torch.nn.functional.softplus(0.6 + 0.3 * z[:, 0], beta=3.0), rtol=0.1, atol=0.02)
    quieter = z.clone()
    quieter[:, 1:] = torch.randn(6, 3)  # another shape, the same size
    torch.testing.assert_close(network.decode(quieter).square().flatten(1).mean(1).sqrt(), size, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("name", VECTOR)
def test_options_are_known_by_name(name):
    with pytest.raises(UsageError, match=r"Did you mean 'attention'.*Known: width"):
        build_model(ModelConfig(name=name, options={"atention": "cbam"}), SHAPE)
    with pytest.raises(UsageError, match="attention is 'se'; use one of none, cbam"):
        build_model(ModelConfig(name=name, options={"attention": "se"}), SHAPE)


@pytest.mark.parametrize("name", VECTOR)
def test_the_registry_alone_makes_a_model_deterministic(name):
    with pytest.raises(UsageError, match="has no option 'is_deterministic'"):
        build_model(ModelConfig(name=name, options={"is_deterministic": True}), SHAPE)


def test_unknown_models_are_refused():
    with pytest.raises(UsageError, match="conv_ae"):
        build_model(ModelConfig(name="convae"), SHAPE)


@torch.no_grad()
def test_the_autoencoder_is_the_same_network_without_a_posterior():
    vae, ae = small("conv"), small("conv_ae").train()
    assert (vae.is_deterministic, ae.is_deterministic) == (False, True)
    shapes = [{key: value.shape for key, value in m.state_dict().items() if "posterior" not in key} for m in (vae, ae)]
    assert shapes[0] == shapes[1]
    x = torch.randn(3, *SHAPE)
    state = torch.get_rng_state()
    recon, mean, logvar = ae(x)
    assert torch.equal(torch.get_rng_state(), state), "no noise is drawn"
    torch.testing.assert_close(recon, ae.decode(mean))
    assert mean.shape == logvar.shape == (3, 4)
    assert float((0.5 * logvar).exp().max()) == 0
    kl = posterior_kl(ae, mean, logvar)
    assert kl.shape == (3, 4)
    assert float(kl.abs().max()) == 0


def trained(name):
    return TrainedModel(
        model=ModelConfig(name=name, latent_dim=4, options=SMALL),
        preprocess=PreprocessConfig(static_background="none", normalise="zscore"),
        input_shape=SHAPE,
        signal_dims=("dy", "dx"),
        dtype="uint8",
    )


def test_health_of_an_autoencoder_has_no_kl_and_no_collapse():
    model = trained("conv_ae")
    with torch.no_grad():
        model.network.to_posterior.weight.mul_(100)
    batches = [torch.randint(0, 255, (16, *SHAPE), dtype=torch.uint8) for _ in range(3)]
    health = latent_health(model, batches)
    assert float(health.kl.sum()) == health.attrs["kl_total"] == 0
    assert float(health["std"].max()) == 0
    mean = torch.cat([model.encode_batch(batch)[0] for batch in batches])
    spread = mean.var(0, correction=0)
    torch.testing.assert_close(torch.from_numpy(health.mean_variance.values).float(), spread, rtol=1e-3, atol=1e-5)
    assert health.attrs["n_active"] == int((spread > 0.01).sum()) == 4
    assert math.isfinite(health.attrs["explained_variance"])
    assert not any("collapse" in warning or "beta" in warning for warning in health.attrs["warnings"])


def test_an_autoencoder_that_uses_few_dimensions_is_told_so_without_the_prior():
    (warning,) = health_warnings(1, 32, 0.4, is_deterministic=True)
    assert "Only 1 of 32" in warning
    assert "prior" not in warning
    (warning,) = health_warnings(0, 32, 0.4, is_deterministic=True)
    assert "collapse" not in warning
    assert health_warnings(32, 32, 0.4, is_deterministic=True) == []


SMALL_OF = {"conv": SMALL, "conv_ae": SMALL, "autoencoder-kl": {"channels": [8, 16], "groups": 4}}


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_every_model_tells_the_shape_of_its_latents(name):
    if name == "autoencoder-kl":
        pytest.importorskip("monai")
    network = build_model(ModelConfig(name=name, latent_dim=4, options=SMALL_OF[name]), SHAPE).eval()
    x = torch.randn(3, *SHAPE)
    mean, logvar = network.encode(x)
    assert mean.shape == logvar.shape == (3, *network.latent_shape)
    assert network.latent_shape[0] == network.latent_dim == 4
    assert network.decode(mean).shape == network.decode(mean, logits=True).shape == x.shape
    assert network.input_shape == SHAPE
    assert [t.dtype for t in network(x)] == [torch.float32] * 3
    if len(network.latent_shape) > 1:
        assert len(network.stride) == len(network.pad_before) == len(network.latent_shape) - 1
