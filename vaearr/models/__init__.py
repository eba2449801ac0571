"""Networks behind one small interface, one registry.

A model is an `nn.Module` made from `input_shape` (channels first), `latent_dim` and its own options, with
`encode(x) -> (mean, logvar)`, each `(B, *latent_shape)`; `decode(z) -> (B, *input_shape)`, without an encode before;
and `forward(x, logits=False) -> (reconstruction, mean, logvar)`, where `logits` leaves out the head of the decoder.
Its `latent_shape` is `(latent_dim,)` for a vector, also where it has none, and `(latent_dim, [lz,] ly, lx)` for spatial
latents. Spatial ones have `stride`, input pixels per latent position, and `pad_before`, pixels that were added in front
of the sample, one number per spatial dim: latent position i begins at pixel `i * stride - pad_before`. Its
`is_deterministic` says that it has no posterior: logvar is -inf then and the KL 0 by definition. Adding a model is one
file and one line in `MODELS`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vaearr.config import ModelConfig
from vaearr.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

# name -> module:what makes the network; the module is imported when the model is built
MODELS: dict[str, str] = {
    "conv": "vaearr.models.conv:ConvVAE",
    "conv_ae": "vaearr.models.conv:conv_ae",
    "autoencoder-kl": "vaearr.models.autoencoder_kl:AutoencoderKL",
}
NO_OPTIONS = ("input_shape", "latent_dim", "is_deterministic")  # arguments that are not the user's to give


def model_class(name: str) -> Callable[..., nn.Module]:
    """What makes the network of a registered model. Raises UsageError for an unknown name."""
    if name not in MODELS:
        raise UsageError(f"there is no model {name!r}.{did_you_mean(name, sorted(MODELS))}")
    module, _, attribute = MODELS[name].partition(":")
    found: Callable[..., nn.Module] = getattr(importlib.import_module(module), attribute)
    return found


def build_model(config: ModelConfig, input_shape: tuple[int, ...]) -> Any:
    """A fresh network for samples of `input_shape` (channels first). Raises UsageError for an unknown option."""
    cls = model_class(config.name)
    known = [p for p in inspect.signature(cls).parameters if p not in NO_OPTIONS]
    for option in config.options:
        if option not in known:
            raise UsageError(f"model {config.name!r} has no option {option!r}.{did_you_mean(option, known)}")
    try:
        network: Any = cls(input_shape=tuple(input_shape), latent_dim=config.latent_dim, **config.options)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise UsageError(
            f"model {config.name!r} cannot be built for samples of shape {input_shape}: {error}"
        ) from error
    if not hasattr(network, "latent_shape"):
        network.latent_shape = (config.latent_dim,)
    return network


def for_training(config: ModelConfig, *, likelihood: str, normalise: str) -> ModelConfig:
    """The model as likelihood and preprocessing need it, with the options that follow from them.

    bernoulli: a sigmoid on the decoder, so that `decode` gives probabilities wherever the model is loaded. contrast,
    for a network that knows it: on where patterns have standard deviation 1, unless the user says otherwise. Raises
    UsageError for a model with another head.
    """
    options = dict(config.options)
    if likelihood == "bernoulli" and options.setdefault("head", "sigmoid") != "sigmoid":
        raise UsageError(
            f"the bernoulli likelihood needs a decoder of probabilities, head='sigmoid', not {options['head']!r}."
        )
    if "contrast" in inspect.signature(model_class(config.name)).parameters:
        is_scaled = normalise in ("zscore", "robust") and options.get("head", "identity") == "identity"
        options.setdefault("contrast", is_scaled and config.latent_dim > 1)
    return config.replace(options=options)
