"""Networks behind one small interface, `Network`, and one registry.

Adding a network is one class with `encode` and `decode` and one line: here in `MODELS`, or in a
package of your own an entry point of the group `vaearr.models` (of `vaearr.discriminators` for a
discriminator):

    [project.entry-points."vaearr.models"]
    mine = "my_package.networks:MyVAE"
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from vaearr.config import ModelConfig
from vaearr.config.parts import part
from vaearr.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import torch

# kind -> name -> module:class or function; the module is imported when the network is built
REGISTERED: dict[str, dict[str, str]] = {
    "model": {
        "conv": "vaearr.models.networks:ConvVAE",
        "conv_ae": "vaearr.models.networks:conv_ae",
        "pca": "vaearr.models.linear:PCA",
        "nmf": "vaearr.models.nmf:NMF",
        "autoencoder-kl": "vaearr.models.networks:AutoencoderKL",
    },
    "discriminator": {
        name: f"vaearr.models.losses:{name}" for name in ("patch", "multiscale", "conv")
    },
}
MODELS = REGISTERED["model"]
OF_NEIGHBOURS = {"hidden": 512, "squeeze": 64}
# arguments of a network that users cannot set as options
NO_OPTIONS = ("latent_dim", "is_deterministic")


class Network(Protocol):
    """What vaearr asks of a network: a `torch.nn.Module` with `encode` and `decode`.

    It is created as `MyVAE(input_shape, latent_dim, **options)`, with the shape of a preprocessed
    sample, channels first. All attributes are optional; `build_model` sets those that a network
    does not have to their defaults.

    Attributes
    ----------
    input_shape : tuple of int
        Shape of a sample, channels first. Default: the shape that the network was created with.
    latent_shape : tuple of int
        Shape of the latents of a sample. Default: `(latent_dim,)`, a vector. Spatial latents have
        `(latent_dim, [lz,] ly, lx)`, a `stride`, a `padding` and `resized`.
    is_deterministic : bool
        The network has no posterior: its logvar is -inf, latents are never sampled and the KL
        divergence is 0. Default: False.
    contrast : bool
        Latent 0 alone sets the amplitude of a decoded pattern. When patterns of neighbouring points
        are predicted, the amplitude is then learned from the point's own pattern. Default: False.
    stride : tuple of int
        Pixels per latent position along each spatial dim. With a stride, samples can be cropped and
        encoded in windows. Default: (), vector latents.
    padding : tuple of (int, int)
        Pixels that are added before and after the sample along each spatial dim: latent position i
        begins at pixel `i * stride - padding[dim][0]`. Default: ().
    stages : sequence of torch.nn.Module
        Modules of the encoder in order, but for the last, as features for the perceptual term of
        another run. Default: (), no such features.
    side_multiple : int
        Number that the sides of samples are padded to a multiple of for `stages`. Default: 1.
    elements : tuple of str
        Element maps that the latents explain too. The network then has `content(ds)`, which returns
        them as `(*grid, element)`, and `encode` takes their values of each sample as a second
        argument. Default: ().

    A network with a method `fit(samples)` is fitted by it instead of being trained, see
    `vaearr.models.linear`.
    """

    input_shape: tuple[int, ...]
    latent_shape: tuple[int, ...]
    is_deterministic: bool
    contrast: bool
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    stages: Sequence[torch.nn.Module]
    side_multiple: int
    elements: tuple[str, ...]

    def encode(self, x: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        """Return posterior mean and log-variance of samples, each `(B, *latent_shape)`."""
        ...

    def decode(self, z: torch.Tensor, /, *, logits: bool = False) -> torch.Tensor:
        """Return samples `(B, *input_shape)` for latents, without an encode before.

        `logits=True` leaves out the sigmoid. Only the bernoulli likelihood passes it.
        """
        ...

    def resized(self, sides: Sequence[int], /) -> Network:
        """Return the network for samples of other sides, all weights shared. With a stride only."""
        ...


def _maker(kind: str, name: str, trust: Collection[str]) -> tuple[Callable[..., Any], list[str]]:
    """The class or function of a registered network, and the names of its arguments.

    Raises UsageError for an unknown name.
    """
    make: Callable[..., Any] = part(kind, name, REGISTERED[kind], trust=trust)
    return make, list(inspect.signature(make).parameters)


def build(
    kind: str,
    name: str,
    input_shape: Sequence[int],
    options: Mapping[str, Any],
    *,
    trust: Collection[str] = (),
    **more: Any,
) -> Any:
    """A fresh network of a kind, model or discriminator, for samples of `input_shape` (channels
    first).

    Its weights follow torch's random state. trust: names `package.module:Name` that the user gave
    in this call, see `vaearr.config.parts.part`. Raises UsageError for an unknown name or option
    and for samples that it cannot be made for, UntrustedError for a name that is not trusted,
    MissingExtraError where it needs a package that is not installed.
    """
    make, arguments = _maker(kind, name, trust)
    allowed = [argument for argument in arguments[1:] if argument not in NO_OPTIONS]
    for option in options:
        if option not in allowed:
            raise UsageError(
                f"{kind} {name!r} has no option {option!r}.{did_you_mean(option, allowed)}"
            )
    shape = tuple(input_shape)
    try:
        return make(shape, **more, **options)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise UsageError(
            f"{kind} {name!r} cannot be built for samples of shape {shape}: {error}"
        ) from error


def build_model(
    config: ModelConfig, input_shape: tuple[int, ...], trust: Collection[str] = ()
) -> Any:
    """The network of a model's settings, for samples of `input_shape`; see `build`."""
    network = build(
        "model", config.name, input_shape, config.options, trust=trust, latent_dim=config.latent_dim
    )
    defaults = {
        "input_shape": tuple(input_shape),
        "latent_shape": (config.latent_dim,),
        "is_deterministic": False,
        "contrast": False,
        "stride": (),
        "padding": (),
        "stages": (),
        "side_multiple": 1,
        "elements": (),
    }
    for name, value in defaults.items():
        if not hasattr(network, name):
            setattr(network, name, value)
    return network


def is_fitted(name: str, trust: Collection[str] = ()) -> bool:
    """Whether a registered model is fitted in closed form instead of being trained."""
    return hasattr(_maker("model", name, trust)[0], "fit")


def for_training(
    config: ModelConfig, *, likelihood: str, normalise: str, target: str = "self"
) -> ModelConfig:
    """The settings of a network, with the options that follow from other settings.

    The bernoulli likelihood needs a sigmoid on the decoder, so that `decode` gives probabilities
    wherever the model is loaded. If the network has the option contrast, it is on where patterns
    have standard deviation 1, unless it is set. hidden and squeeze are larger where neighbours are
    predicted, otherwise small rotations inside grains are lost. Raises UsageError for a model with
    another head.
    """
    if config.latent_dim == "auto":
        raise UsageError(
            f"the model {config.name!r} needs a number of latent dimensions; 'auto' is for pca."
        )
    options = dict(config.options)
    if likelihood == "bernoulli" and options.setdefault("head", "sigmoid") != "sigmoid":
        raise UsageError(
            "the bernoulli likelihood needs a decoder with head='sigmoid', not "
            f"{options['head']!r}."
        )
    arguments = _maker("model", config.name, trust=[config.name])[1]
    if target == "neighbour":
        defaults = {name: value for name, value in OF_NEIGHBOURS.items() if name in arguments}
        options = defaults | options
    if "contrast" in arguments:
        is_scaled = normalise in ("zscore", "robust")
        has_head = options.get("head", "identity") != "identity"
        options.setdefault("contrast", is_scaled and not has_head and config.latent_dim != 1)
    return config.replace(options=options)
