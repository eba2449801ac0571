"""Networks behind one small interface, one registry.

A model is an `nn.Module` made from `input_shape` (channels first), `latent_dim` and its own options, with
`encode(x) -> (mean, logvar)`, each `(B, *latent_shape)`; `decode(z) -> (B, *input_shape)`, without an encode before;
and `forward(x, logits=False) -> (reconstruction, mean, logvar)`, where `logits` leaves out the head of the decoder.
Its `latent_shape` is `(latent_dim,)` for a vector, also where it has none, and `(latent_dim, [lz,] ly, lx)` for spatial
latents. Spatial ones have `stride`, input pixels per latent position, and `pad_before`, pixels that were added in front
of the sample, one number per spatial dim: latent position i begins at pixel `i * stride - pad_before`. Its
`is_deterministic` says that it has no posterior: logvar is -inf then and the KL 0 by definition.

Adding a model is one file and one line in `MODELS`; from a package of your own it is an entry point of the group
`vaearr.models` (of `vaearr.discriminators` for a discriminator):

    [project.entry-points."vaearr.models"]
    mine = "my_package.networks:MyVAE"
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vaearr.config import ModelConfig
from vaearr.errors import UsageError, did_you_mean

# name -> module:what makes it; the module is imported when the network is built
MODELS: dict[str, str] = {
    "conv": "vaearr.models.networks:ConvVAE",
    "conv_ae": "vaearr.models.networks:conv_ae",
    "autoencoder-kl": "vaearr.models.networks:AutoencoderKL",
}
DISCRIMINATORS: dict[str, str] = {
    "patch": "vaearr.models.losses:patch",
    "multiscale": "vaearr.models.losses:multiscale",
    "conv": "vaearr.models.losses:conv",
}
NO_OPTIONS = ("input_shape", "latent_dim", "is_deterministic")  # arguments that are not the user's to give


def maker(kind: str, name: str, options: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """What makes the registered network of a kind, model or discriminator.

    Raises UsageError for an unknown name, and for options that it has not.
    """
    known = {entry.name: entry.value for entry in entry_points(group=f"vaearr.{kind}s")}
    known |= MODELS if kind == "model" else DISCRIMINATORS
    if name not in known:
        raise UsageError(f"there is no {kind} {name!r}.{did_you_mean(name, sorted(known))}")
    make: Callable[..., Any] = EntryPoint(name, known[name], "").load()
    names = [p for p in inspect.signature(make).parameters if p not in NO_OPTIONS]
    for option in options or ():
        if option not in names:
            raise UsageError(f"{kind} {name!r} has no option {option!r}.{did_you_mean(option, names)}")
    return make


def build_model(config: ModelConfig, input_shape: tuple[int, ...]) -> Any:
    """A fresh network for samples of `input_shape` (channels first). Raises UsageError for an unknown option."""
    make = maker("model", config.name, config.options)
    try:
        network = make(input_shape=tuple(input_shape), latent_dim=config.latent_dim, **config.options)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise UsageError(
            f"model {config.name!r} cannot be built for samples of shape {input_shape}: {error}"
        ) from error
    if not hasattr(network, "latent_shape"):
        network.latent_shape = (config.latent_dim,)
    return network


def build_discriminator(name: str, input_shape: tuple[int, ...], **options: Any) -> Any:
    """A fresh discriminator for samples of `input_shape` (channels first); weights follow torch's random state.

    See `vaearr.models.losses`. Raises UsageError for an unknown name or option and for samples that are too small,
    MissingExtraError where it needs MONAI and there is none.
    """
    return maker("discriminator", name, options)(tuple(input_shape), **options)


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
    if "contrast" in inspect.signature(maker("model", config.name)).parameters:
        is_scaled = normalise in ("zscore", "robust") and options.get("head", "identity") == "identity"
        options.setdefault("contrast", is_scaled and config.latent_dim > 1)
    return config.replace(options=options)
