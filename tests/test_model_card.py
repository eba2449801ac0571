"""The card of a network: its layers in order, its parameters, and that the network is left alone."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

import vaearr as va
from vaearr.config import ModelConfig, PreprocessConfig
from vaearr.errors import SchemaError, UsageError
from vaearr.models import build_model
from vaearr.models.artifacts import TrainedModel
from vaearr.models.card import as_record, model_card, sizes_of

from .conftest import SMALL_NETWORK


def _conv(shape: tuple[int, ...] = (1, 12, 13), name: str = "conv", latent_dim: int = 4, **options: Any) -> Any:
    return build_model(
        ModelConfig(name=name, latent_dim=latent_dim, options={**SMALL_NETWORK, **options}), tuple(shape)
    )


def _spatial(shape: tuple[int, ...], **options: Any) -> Any:
    pytest.importorskip("monai")
    options = {"channels": [8, 16], "groups": 4, **options}
    return build_model(ModelConfig(name="autoencoder-kl", latent_dim=3, options=options), shape)


def test_the_order_is_that_of_the_run() -> None:
    card = model_card(_conv())
    parts = card["part"].values.tolist()
    assert parts == sorted(parts, key=("input", "encoder", "latent", "decoder", "output").index)
    assert [parts.count(end) for end in ("input", "latent", "output")] == [1, 1, 1]
    assert card["shape"].values[0] == card["shape"].values[-1] == "1 x 12 x 13"
    assert card["shape"].values[parts.index("latent")] == "4"
    first = parts.index("encoder")
    assert (card["layer"].values[first], card["kind"].values[first]) == ("encoder.0", "Conv2d")
    assert card["layer"].values[parts.index("latent") - 1] == "to_posterior"
    assert card["layer"].values[parts.index("decoder")] == "from_latent.0"


@settings(max_examples=12, deadline=None)
@given(
    channels=st.integers(1, 3), rows=st.integers(8, 40), columns=st.integers(8, 40),
    attention=st.sampled_from(["none", "cbam"]), norm=st.sampled_from(["none", "group", "batch"]),
    name=st.sampled_from(["conv", "conv_ae"]),
)  # fmt: skip
def test_shapes_and_counts_are_those_of_a_real_pass(
    channels: int, rows: int, columns: int, attention: str, norm: str, name: str
) -> None:
    network = _conv((channels, rows, columns), name, attention=attention, norm=norm).eval()
    card = model_card(network)
    seen = {}
    handles = [
        module.register_forward_hook(lambda _, __, out, key=key: seen.__setitem__(key, tuple(out.shape[1:])))
        for key, module in network.named_modules()
        if key
    ]
    with torch.inference_mode():
        network(torch.zeros(1, channels, rows, columns))
    for handle in handles:
        handle.remove()
    for label, shape, part in zip(card["name"].values, card["shape"].values, card["part"].values, strict=True):
        if part in ("encoder", "decoder"):
            assert sizes_of(shape) == seen[label]
    total = sum(p.numel() for p in network.parameters())
    assert card.attrs["n_parameters"] == int(card["n_parameters"].sum()) == total
    assert card.attrs["n_parameters_encoder"] + card.attrs["n_parameters_decoder"] == total
    assert card.attrs["n_parameters_heads"] == 0


def test_spatial_latents_of_volumes() -> None:
    card = model_card(_spatial((1, 9, 8, 11)))
    assert card.attrs["latent_shape"] == [3, 5, 4, 6]
    assert card.attrs["stride"] == [2, 2, 2]
    assert card.attrs["compression"] == pytest.approx(9 * 8 * 11 / (3 * 5 * 4 * 6))
    assert card.attrs["input_shape"] == [1, 9, 8, 11]
    blocks = dict(zip(card["layer"].values, card["block_kind"].values, strict=True))
    assert blocks["encoder.blocks.1.conv1.conv"] == "AEKLResBlock"
    assert blocks["quant_conv"] == "Conv3d"


def test_a_large_network_for_large_volumes_takes_no_memory() -> None:
    pytest.importorskip("monai")
    with torch.device("meta"):
        network = _spatial((1, 512, 512, 512), channels=[64, 128], groups=16)
    card = model_card(network)
    assert card["shape"].values[1] == "64 x 512 x 512 x 512"


def test_the_network_is_left_alone() -> None:
    network = _conv(norm="batch", dropout=0.5).train()
    network.to_posterior.eval()
    hooked = network.encoder[0].register_forward_hook(lambda *_: None)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    random = torch.get_rng_state()
    model_card(network)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert sum(len(module._forward_hooks) for module in network.modules()) == 1
    assert not any(module._forward_pre_hooks for module in network.modules())
    hooked.remove()


def test_a_head_counts_beside_encoder_and_decoder() -> None:
    model = TrainedModel(
        model=ModelConfig(name="conv", latent_dim=4, options=SMALL_NETWORK),
        preprocess=PreprocessConfig(static_background="none"),
        input_shape=(1, 12, 13), signal_dims=("dy", "dx"), dtype="uint8", label="phase", classes=(0, 1, 2),
    )  # fmt: skip
    card, plain = model_card(model), model_card(model.network)
    assert card.attrs["n_parameters_heads"] == 4 * 3 + 3
    assert card.attrs["n_parameters"] == plain.attrs["n_parameters"] + 15
    assert card.attrs["weights_MB"] == pytest.approx(plain.attrs["weights_MB"] + 15 * 4e-6)
    assert "15 elsewhere (heads)" in "\n".join(va.describe(card, "network"))
    xr.testing.assert_equal(card.drop_attrs(), plain.drop_attrs())


class Shared(nn.Module):
    """One layer, of computed weights, for both ways, run twice while encoding; a parameter beside the layers."""

    input_shape, latent_shape = (4,), (4,)

    def __init__(self) -> None:
        super().__init__()
        self.way = nn.Module()
        self.way.layer = parametrizations.spectral_norm(nn.Linear(4, 4))
        self.way.scale = nn.Parameter(torch.ones(4))
        self.unused = nn.Linear(4, 2)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self.way.layer(self.way.layer(x)) * self.way.scale
        return mean, mean

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = self.way.layer(z)
        return decoded


def test_shared_layers_count_once() -> None:
    card = model_card(Shared())
    assert card["layer"].values.tolist() == [
        "input", "way.layer", "way.layer:2", "latent", "way.layer:3", "output",
    ]  # fmt: skip
    assert card["n_parameters"].values.tolist() == [0, 20, 0, 0, 0, 0]
    assert [card.attrs[f"n_parameters{end}"] for end in ("", "_encoder", "_decoder", "_heads")] == [34, 24, 24, 10]
    assert card.attrs["stride"] == []


def test_in_words_and_as_json() -> None:
    card = model_card(_conv())
    lines = va.describe(card, "network")
    assert lines[0].startswith(f"ConvVAE: {card.attrs['n_layers']} layers, {card.attrs['n_parameters']:,} parameters")
    assert "input 1 x 12 x 13, latent 4" in lines[2]
    assert len(lines) == 5 + card.sizes["layer"]
    assert "Conv2d" in lines[6]
    record = json.loads(json.dumps(as_record(card)))
    assert record["compression"] == 12 * 13 / 4
    assert record["layers"][0]["shape"] == [1, 12, 13]
    assert sum(layer["n_parameters"] for layer in record["layers"]) == record["n_parameters"]
    assert math.prod(record["latent_shape"]) == 4


def test_refusals() -> None:
    with pytest.raises(UsageError, match="Linear has no input_shape, latent_shape, encode, decode"):
        model_card(nn.Linear(2, 2))
    with pytest.raises(SchemaError, match="no model card"):
        va.describe(xr.Dataset(), "network")
    network = Shared()
    network.decode = lambda z: torch.full((1, 4), float(z.sum().item()))  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="Shared cannot be run on shapes alone"):
        model_card(network)
