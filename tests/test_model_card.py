"""The card of a network: its layers in order, its parameters, and that the network is left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn.utils import parametrizations

import vaearr as va
from vaearr.config import ModelConfig, PreprocessConfig
from vaearr.errors import SchemaError, UsageError
from vaearr.models.artifacts import TrainedModel
from vaearr.models.card import as_record, model_card, sizes_of

from .conftest import SMALL_NETWORK


def trained(config: ModelConfig, input_shape: tuple[int, ...], **head: Any) -> TrainedModel:
    """A model with a network of its own."""
    preprocess = PreprocessConfig(static_background="none")
    return TrainedModel(
        model=config,
        preprocess=preprocess,
        input_shape=input_shape,
        signal_dims=("dy", "dx"),
        input_dtype="uint8",
        **head,
    ).eval()


def test_shapes_and_counts_are_those_of_a_real_pass() -> None:
    options = {**SMALL_NETWORK, "attention": "cbam", "norm": "batch"}
    model = trained(ModelConfig(name="conv", latent_dim=4, options=options), (2, 19, 33))
    network = model.network
    card, seen = model_card(model), {"input": (2, 19, 33), "latent": (4,), "output": (2, 19, 33)}
    for key, module in network.named_modules():
        module.register_forward_hook(
            lambda _, __, out, key=key: seen.__setitem__(key, out[0].shape if key else None)
        )
    with torch.inference_mode():
        network.decode(network.encode(torch.zeros(1, 2, 19, 33))[0])
    parts = card["part"].values.tolist()
    assert parts == sorted(parts, key=("input", "encoder", "latent", "decoder", "output").index)
    for label, shape in zip(card["layer"].values, card["shape"].values, strict=True):
        assert sizes_of(shape) == seen[label.partition(":")[0]]
    total = sum(p.numel() for p in network.parameters())
    assert card.attrs["n_parameters"] == int(card["n_parameters"].sum()) == total
    assert card.attrs["n_parameters_encoder"] + card.attrs["n_parameters_decoder"] == total


def test_a_head_counts_beside_encoder_and_decoder() -> None:
    config = ModelConfig(name="conv", latent_dim=4, options=SMALL_NETWORK)
    plain = model_card(trained(config, (1, 12, 13)))
    card = model_card(trained(config, (1, 12, 13), label="phase", classes=(0, 1, 2)))
    assert card.attrs["n_parameters_heads"] == 4 * 3 + 3
    assert card.attrs["n_parameters"] == plain.attrs["n_parameters"] + 15
    assert card.attrs["weights_MB"] == pytest.approx(plain.attrs["weights_MB"] + 15 * 4e-6)
    assert "n_parameters_heads = 15" in "\n".join(va.describe(card))


class Shared(nn.Module):
    """One layer, of computed weights, for both ways, run twice while encoding; a parameter beside
    the layers.
    """

    input_shape, latent_shape, stride = (4,), (4,), ()

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


@pytest.fixture
def shared() -> Any:
    """A model whose network is `Shared`."""
    model = trained(ModelConfig(latent_dim=4, options=SMALL_NETWORK), (1, 8, 8))
    model.network = Shared()
    return model


def test_shared_layers_count_once(shared: Any) -> None:
    card = model_card(shared)
    assert " ".join(card["layer"].values) == "input way.layer way.layer:2 latent way.layer:3 output"
    assert card["n_parameters"].values.tolist() == [0, 20, 0, 0, 0, 0]
    assert [card.attrs[f"n_parameters{end}"] for end in ("", "_encoder", "_decoder", "_heads")] == [
        34,
        20,
        20,
        14,
    ]


def test_refusals(shared: Any) -> None:
    with pytest.raises(SchemaError, match="no model card"):
        as_record(xr.Dataset())
    shared.network.decode = lambda z: torch.full((1, 4), float(z.sum().item()))
    with pytest.raises(UsageError, match="Shared cannot be run on shapes alone"):
        model_card(shared)
