"""Perceptual distances: how far apart two samples are in the features of a trained network.

`PerceptualLoss` is of one of three kinds. lpips: a feature network and linear weights from the
user's files, the distance of Zhang, Isola, Efros, Shechtman & Wang, "The Unreasonable Effectiveness
of Deep Features as a Perceptual Metric", CVPR 2018, eq. 1. features: the same without linear
weights. encoder: the stages of an encoder that vaearr trained, in 2-D and 3-D, which needs no file.
Volumes pass 2-D networks slice by slice along their three axes (2.5-D).

Feature networks: Krizhevsky, "One weird trick for parallelizing convolutional neural networks",
arXiv:1404.5997 (alexnet); Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale
Image Recognition", ICLR 2015 (vgg16, configuration D).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vaearr.config import PerceptualConfig
from vaearr.errors import DataError, UsageError
from vaearr.models import Network
from vaearr.models.networks import with_edges
from vaearr.models.tensors import Tensors, check_finite, check_fit, named_tensors

EPS = 1e-10  # under the root of a length: bounds the gradient where all features are 0
# mean and standard deviation of natural images, for values in [-1, 1], as LPIPS was made with
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
LINEAR = "lin{}.model.1.weight"
# kind -> arguments
ARGUMENTS = {"lpips": ("weights", "linear"), "features": ("weights",), "encoder": ("network",)}
POOL = ()
Conv = tuple[Any, ...]


class Backbone(NamedTuple):
    """Layers of a network, as torchvision numbers and names them.

    layers: a convolution (channels, side, stride, padding) and its ReLU, or a maximum `POOL`. taps:
    layers after which features are taken, where LPIPS takes them (Zhang et al. 2018, appendix).
    pool: side of a maximum. least: smallest side of an image that reaches the last tap.
    """

    layers: tuple[Conv, ...]
    taps: tuple[int, ...]
    pool: int
    least: int


BACKBONES: dict[str, Backbone] = {
    "alexnet": Backbone(
        layers=(
            (64, 11, 4, 2),
            POOL,
            (192, 5, 1, 2),
            POOL,
            (384, 3, 1, 1),
            (256, 3, 1, 1),
            (256, 3, 1, 1),
        ),
        taps=(1, 4, 7, 9, 11),
        pool=3,
        least=31,
    ),
    "vgg16": Backbone(
        layers=(
            *2 * [(64, 3, 1, 1)],
            POOL,
            *2 * [(128, 3, 1, 1)],
            POOL,
            *3 * [(256, 3, 1, 1)],
            POOL,
            *3 * [(512, 3, 1, 1)],
            POOL,
            *3 * [(512, 3, 1, 1)],
        ),
        taps=(3, 8, 15, 22, 29),
        pool=2,
        least=16,
    ),
}


def layers_without_weights(name: str) -> nn.Sequential:
    """Return the layers of a network on the meta device: without memory and random numbers."""
    channels = 3
    layers = nn.Sequential()
    with torch.device("meta"):
        for layer in BACKBONES[name].layers:
            if layer == POOL:
                layers.append(nn.MaxPool2d(BACKBONES[name].pool, 2))
            else:
                layers.extend([nn.Conv2d(channels, *layer), nn.ReLU()])
                channels = layer[0]
    return layers


class ImageFeatures(nn.Module):
    """Features of an image network at the layers of `BACKBONES`: images `(B, 1 or 3, H, W)` in [-1,
    1] -> list of `(B, c, h, w)`. Grey images are repeated to three channels.
    """

    n_dims = 2
    n_channels: tuple[int, ...] = (1, 3)
    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, name: str, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.name = name
        self.taps = BACKBONES[name].taps
        self.least = BACKBONES[name].least
        self.layers = layers_without_weights(name)
        self.layers.load_state_dict(dict(weights), strict=True, assign=True)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return one map per tap."""
        x = (x.expand(-1, 3, -1, -1) - self.shift) / self.scale
        maps = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in self.taps:
                maps.append(x)
        return maps


class EncoderFeatures(nn.Module):
    """Features of a trained encoder of vaearr on each of its grids: `(B, C, …)` -> list of maps.

    The last activation before each halving of the grid, and the last before the posterior. Samples
    of any size are padded with their edge values to a multiple of the stride. The weights are a
    copy; training the network further does not change them.
    """

    least = 1

    def __init__(self, network: Network) -> None:
        super().__init__()
        stages = list(network.stages)
        if len(stages) < 2:
            raise UsageError(
                f"{type(network).__name__} has no encoder in stages; use a network of "
                "vaearr.models."
            )
        self.n_dims = len(network.input_shape) - 1
        self.n_channels = (network.input_shape[0],)
        self.side_multiple = network.side_multiple
        self.blocks = nn.ModuleList(copy.deepcopy(stages[:-1]))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return one map per grid."""
        x = with_edges(x, [(0, -size % self.side_multiple) for size in x.shape[2:]])
        maps: dict[torch.Size, torch.Tensor] = {}
        for block in self.blocks:
            x = block(x)
            maps[x.shape[2:]] = x
        return list(maps.values())


class PerceptualLoss(nn.Module):
    """Distance of two batches, `forward(target, recon)`: `2 x (B, C, …) -> (B,)`, in the features
    of a frozen network.

    At each layer the features of a position are scaled to length 1, subtracted and squared;
    channels are summed with the linear weights of LPIPS, or with weight 1; positions are averaged,
    layers summed: Zhang et al. 2018, eq. 1. The network computes in the precision around it, the
    distance in float32. Equal samples have distance 0 exactly.

    Parameters
    ----------
    config : PerceptualConfig
        `weights` is a safetensors or pth file with torchvision's state dict of alexnet or vgg16,
        identified by its shapes; `linear` the LPIPS weights for that network, `lin0.model.1.weight`
        and so on. Nothing is unpickled.
    value_range : tuple of float
        Range of the samples, mapped to [-1, 1] for image networks without cutting.
    network : Network, optional
        Network of a trained run, such as `load_model(store).network`, for the kind encoder; trained
        on samples preprocessed as these are.

    Raises
    ------
    UsageError
        If arguments do not fit together.
    NoInputError, DataError
        If files are missing or other than described.
    """

    def __init__(
        self,
        config: PerceptualConfig,
        value_range: tuple[float, float],
        network: Network | None = None,
    ) -> None:
        super().__init__()
        self.slices = config.slices
        self.chunk = config.chunk
        kind = config.kind
        arguments = {"weights": config.weights, "linear": config.linear, "network": network}
        for name, value in arguments.items():
            if (value is not None) != (name in ARGUMENTS[kind]):
                verb = "needs" if value is None else "has no use for"
                raise UsageError(
                    f"the perceptual loss {kind!r} {verb} {name}; it takes "
                    f"{' and '.join(ARGUMENTS[kind])}."
                )
        self.is_image = network is None
        self.low, self.high = value_range
        self.linear = nn.ParameterList()
        self.features: ImageFeatures | EncoderFeatures
        if network is not None:
            self.features = EncoderFeatures(network)
        else:
            self.features = read_features(Path(str(config.weights)))
            if config.linear is not None:
                self.linear.extend(read_linear(config.linear, self.features.name))
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Set the mode, which decides on the choice of slices; the network stays in evaluation."""
        super().train(mode)
        self.features.eval()
        return self

    def forward(self, target: torch.Tensor, recon: torch.Tensor) -> torch.Tensor:
        """Return the distance of each sample, `(B,)`, down is better; gradients flow into `recon`.

        If not all slices of volumes are taken, they lie evenly spaced along each axis; in training
        mode they start at a random position, so that each slice has the same chance (one number per
        axis of torch's CPU generator). Raises UsageError for samples of another kind than the
        network takes.
        """
        self._check(target)
        pair = [target.detach().float(), recon.float()]
        if self.is_image:
            pair = [2 * (x - self.low) / (self.high - self.low) - 1 for x in pair]
        if target.ndim - 2 == self.features.n_dims:
            return self._in_chunks(*pair)
        axes = []
        for axis in range(2, target.ndim):
            chosen = torch.tensor(self._positions(target.shape[axis]), device=target.device)
            planes = [x.index_select(axis, chosen).movedim(axis, 1).flatten(0, 1) for x in pair]
            distances = self._in_chunks(*planes).unflatten(0, (len(target), len(chosen)))
            axes.append(distances.mean(1))
        return torch.stack(axes).mean(0)

    def _positions(self, size: int) -> list[int]:
        count = max(1, round(self.slices * size))
        phase = float(torch.rand(())) if self.training and count < size else 0.5
        return [min(int((i + phase) * size / count), size - 1) for i in range(count)]

    def _in_chunks(self, target: torch.Tensor, recon: torch.Tensor) -> torch.Tensor:
        """Distances of images (or volumes), `chunk` at a time; activations are computed again for
        the gradient instead of being kept.
        """
        if self.chunk == 0 or len(target) <= self.chunk:
            return self._distance(target, recon)
        distance = partial(
            checkpoint, self._distance, use_reentrant=False, preserve_rng_state=False
        )
        chunks = zip(target.split(self.chunk), recon.split(self.chunk), strict=True)
        return torch.cat([distance(*chunk) for chunk in chunks])

    def _distance(self, target: torch.Tensor, recon: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target_maps = self.features(target)
        recon_maps = self.features(recon)
        total = recon.new_zeros(len(recon))
        with torch.autocast(recon.device.type, enabled=False):
            for i, (a, b) in enumerate(zip(target_maps, recon_maps, strict=True)):
                squares = (_unit(a) - _unit(b)).square().flatten(2).mean(2)
                if len(self.linear):
                    squares = squares * self.linear[i]
                total = total + squares.sum(1)
        return total

    def _check(self, target: torch.Tensor) -> None:
        shape = tuple(target.shape[1:])
        features = self.features
        has_kind = features.n_dims < len(shape) < 5 and shape[0] in features.n_channels
        if not has_kind or min(shape[1:]) < features.least:
            raise UsageError(
                f"samples have shape {shape}; this network takes {features.n_channels} channels, "
                f"{features.n_dims} to 3 spatial dims, sides of {features.least} or more; the "
                "encoder of a run takes any."
            )


def lpips(target: torch.Tensor, recon: torch.Tensor, network: PerceptualLoss) -> np.ndarray:
    """Return the LPIPS of each sample, `(B,)`, 0 for equal ones, down is better, without gradient.

    network: of the kind lpips, created with the range of these values; it is left in evaluation
    mode. In float32; of volumes, evenly spaced slices.
    """
    device = next(network.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        distances: torch.Tensor = network.eval()(target.to(device), recon.to(device))
        return distances.double().cpu().numpy()


def read_features(path: Path) -> ImageFeatures:
    """Read a feature network, identified by names and shapes. Raises NoInputError or DataError."""
    tensors = {}
    for key, value in named_tensors(path).items():
        if not key.startswith("classifier."):
            tensors[key.removeprefix("features.")] = value
    layouts = {name: layers_without_weights(name).state_dict() for name in BACKBONES}
    nearest = max(layouts, key=lambda name: len(layouts[name].keys() & tensors.keys()))
    expected = f"{', '.join(BACKBONES)} in torchvision's names ('features.0.weight', …)"
    what = f"{path} holds no weights of {expected}; nearest is {nearest}"
    return ImageFeatures(nearest, _read_weights(path, tensors, layouts[nearest], what))


def read_linear(path: Path, name: str) -> list[torch.Tensor]:
    """Read the linear weights of LPIPS for a feature network, `(c,)` per layer. Raises NoInputError
    or DataError.
    """
    layers = layers_without_weights(name).state_dict()
    expected = {}
    for i, tap in enumerate(BACKBONES[name].taps):
        channels = len(layers[f"{tap - 1}.bias"])  # of the convolution before the tap's ReLU
        expected[LINEAR.format(i)] = torch.empty(1, channels, 1, 1, device="meta")
    what = f"{path} does not hold the linear weights of LPIPS for {name}"
    weights = _read_weights(path, named_tensors(path), expected, what)
    if any(bool((values < 0).any()) for values in weights.values()):
        raise DataError(
            f"{path} holds negative linear weights; LPIPS has none, and a distance would fall "
            "below 0."
        )
    return [weights[key].flatten() for key in expected]


def _read_weights(path: Path, tensors: Tensors, expected: Tensors, what: str) -> Tensors:
    """Copies as float32. Raises DataError unless they are the expected ones, and finite."""
    check_fit(expected, tensors, what)
    plain = {key: value.detach().to(torch.float32, copy=True) for key, value in tensors.items()}
    check_finite(plain, path)
    return plain


def _unit(x: torch.Tensor) -> torch.Tensor:
    """Features of length 1 at each position."""
    x = x.float()
    return x * (x.square().sum(1, keepdim=True) + EPS).rsqrt()
