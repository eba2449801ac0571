"""What else gives a few numbers per pattern: PCA, NMF, the first seed's recipe, pythae's VAE. For `test_quality.py`.

Each takes the patterns that our network sees, `(point, dy, dx)` float32 after `models.preprocess.preprocess` (static
background divided out, z-scored per pattern), learns from all of them (ours keeps a tenth for validation), and gives a
`Representation`. Times are wall-clock times of the fit alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from vaearr.config import ModelConfig
from vaearr.models import build_model

Patterns = NDArray[np.float32]

LATENT, BATCH, LEARNING_RATE = 32, 128, 1e-3
NMF_SHIFT, NMF_ITERATIONS = 3.0, 200
STAGES, BASE, CAP = 5, 32, 512  # of the first seed's network


@dataclass(frozen=True)
class Representation:
    """What a method made of a scan: `std` is the posterior's where there is one, `n_passed` counts patterns in all."""

    features: NDArray[Any]
    reconstruction: Patterns
    seconds: float
    n_passed: int
    std: NDArray[Any] | None = None
    is_probabilistic: bool = True
    note: str = ""


def principal_components(seen: Patterns, n_components: int) -> Representation:
    """PCA with randomised SVD; features are scores, not whitened."""
    from sklearn.decomposition import PCA

    flat = seen.reshape(len(seen), -1)
    began = time.perf_counter()
    pca = PCA(n_components, random_state=0).fit(flat)
    seconds = time.perf_counter() - began
    scores = pca.transform(flat)
    back = pca.inverse_transform(scores).astype(np.float32).reshape(seen.shape)
    return Representation(scores, back, seconds, len(seen), is_probabilistic=False)


def nonnegative_factors(seen: Patterns, n_components: int) -> Representation:
    """NMF of the same patterns made non-negative: 3 standard deviations are added and what is still below 0 is cut.

    A constant that is the same for every pixel and pattern keeps what PCA and the networks see; it costs NMF about one
    component, and cuts fewer than one value in a thousand. Coordinate descent from a random start, all of 200
    iterations: scikit-learn's tolerance can stop after 24, far too early. Loadings count in components of unit length;
    as they come, their scale is arbitrary and k-means suffers (grain ARI 0.34 instead of 0.9 with both defaults, 64
    components). The shift is taken off the reconstruction again.
    """
    from sklearn.decomposition import NMF

    flat = np.maximum(seen.reshape(len(seen), -1) + np.float32(NMF_SHIFT), 0)
    nmf = NMF(n_components, init="random", solver="cd", max_iter=NMF_ITERATIONS, tol=0, random_state=0)
    began = time.perf_counter()
    loadings = nmf.fit_transform(flat)
    seconds = time.perf_counter() - began
    back = (loadings @ nmf.components_ - NMF_SHIFT).astype(np.float32).reshape(seen.shape)
    features = loadings * np.linalg.norm(nmf.components_, axis=1)
    passed = len(seen) * nmf.n_iter_
    return Representation(features, back, seconds, passed, is_probabilistic=False, note=f"{nmf.n_iter_} iterations")


class SeedVAE(nn.Module):
    """The first seed's network: five stages of stride 2, batch norm, leaky ReLU, decoder of transposed convolutions."""

    def __init__(self, height: int, width: int, latent_dim: int = LATENT) -> None:
        super().__init__()
        widths = [min(BASE * 2**i, CAP) for i in range(STAGES)]
        self.sizes = [(height, width)]
        for _ in widths:
            self.sizes.append((-(-self.sizes[-1][0] // 2), -(-self.sizes[-1][1] // 2)))
        self.coarse = (widths[-1], *self.sizes[-1])
        n_coarse = widths[-1] * self.sizes[-1][0] * self.sizes[-1][1]
        stages: list[nn.Module] = []
        for before, after in pairwise([1, *widths]):
            stages += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
        self.encoder = nn.Sequential(*stages)
        self.bottleneck = nn.ModuleList(
            [nn.Linear(n_coarse, latent_dim), nn.Linear(n_coarse, latent_dim), nn.Linear(latent_dim, n_coarse)]
        )
        back = [*widths[::-1], 1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(before, after, 3, 2, 1) for before, after in pairwise(back))
        self.after = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.LeakyReLU(0.2)) if width > 1 else nn.Sigmoid() for width in back[1:]
        )

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance, float32."""
        flat = self.encoder(x).flatten(1)
        return self.bottleneck[0](flat).float(), self.bottleneck[1](flat).float()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Patterns between 0 and 1."""
        grid = self.bottleneck[2](z).unflatten(1, self.coarse).contiguous(memory_format=torch.channels_last)
        for up, after, size in zip(self.up, self.after, self.sizes[-2::-1], strict=True):
            grid = after(up(grid, output_size=list(size)))
        return grid.float()


def first_seed(seen: Patterns, epochs: int, *, repaired: bool) -> Representation:
    """The first seed's recipe as it was, or repaired.

    Both: patterns min-max scaled to [0, 1] one by one (here after removal of the background, which favours it), Adam
    1e-3, 32 latents, batches of 128 as ours. As it was: mean squared error plus the mean KL over batch and latent (in
    nats per sample, for 60 x 60 pixels: beta 3600 / 2 / 32 = 56), and the layers to the mean, to the log-variance and
    from the latent are made in the first forward pass, after the optimizer, which never sees them. Repaired: all layers
    in the optimizer, half the summed squared error plus the summed KL, beta 1. Unit variance is far too much for
    patterns in [0, 1]: hardly a principal component rises above it, so about a nat is all that is kept. The rival to
    beat is `pythae_vae(own_network=True)`. bfloat16 autocast and channels_last for both: the seed's float32 runs at 136
    patterns/s on two cores.
    """
    torch.manual_seed(0)
    flat = seen.reshape(len(seen), -1)
    low, high = flat.min(axis=1)[:, None], flat.max(axis=1)[:, None]
    x = torch.from_numpy(((flat - low) / np.maximum(high - low, 1e-12)).reshape(len(seen), 1, *seen.shape[1:]))
    x = x.contiguous(memory_format=torch.channels_last)
    network = SeedVAE(*seen.shape[1:])
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    left_out = {id(p) for p in network.bottleneck.parameters()} if not repaired else set()
    optimizer = torch.optim.Adam([p for p in network.parameters() if id(p) not in left_out], lr=LEARNING_RATE)
    network.train()
    began = time.perf_counter()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            batch = x[rows].contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                mean, logvar = network.encode(batch)
                decoded = network.decode(mean + torch.exp(0.5 * logvar) * torch.randn_like(mean))
            kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar)
            if repaired:
                loss = 0.5 * (decoded - batch).square().flatten(1).sum(1).mean() + kl.sum(1).mean()
            else:
                loss = F.mse_loss(decoded, batch) + kl.mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    seconds = time.perf_counter() - began
    network.eval()
    return _represented(network.encode, network.decode, x, seconds, epochs)


def pythae_vae(seen: Patterns, epochs: int, folder: Path, *, own_network: bool = False) -> Representation:
    """pythae's VAE through its training pipeline; raises ImportError where pythae is not installed.

    As it comes: its perceptrons, whose decoder ends in a sigmoid, so patterns min-max scaled to [0, 1] one by one; its
    Adam 1e-4 and batches of 64. `own_network`: its objective and its loop around vaearr's network on the patterns as
    vaearr sees them, batches of 128, Adam 1e-3: what is left of the difference is objective, target, input noise and
    schedule. float32 both, as pythae trains on CPUs.

    `pip install --no-deps --target DIR pythae imageio` and PYTHONPATH=DIR bring it without touching an environment
    (its dependency `dataclasses` must stay away from PYTHONPATH, where it would hide Python's own).
    """
    with _quiet():
        pythae = {name: import_module(f"pythae.{name}") for name in ("models", "models.nn", "pipelines", "trainers")}
        base_dataset = import_module("pythae.data.datasets").BaseDataset
        output = import_module("pythae.models.base.base_utils").ModelOutput
        encoder_class: Any = pythae["models.nn"].BaseEncoder
        decoder_class: Any = pythae["models.nn"].BaseDecoder

        class Encoder(encoder_class):
            def __init__(self, network: Any) -> None:
                super().__init__()
                self.network = network

            def forward(self, x: torch.Tensor) -> Any:
                mean, logvar = self.network.encode(x)
                return output(embedding=mean, log_covariance=logvar)

        class Decoder(decoder_class):
            def __init__(self, decode: Callable[[torch.Tensor], torch.Tensor]) -> None:
                super().__init__()
                self.decode = decode

            def forward(self, z: torch.Tensor) -> Any:
                return output(reconstruction=self.decode(z))

        torch.manual_seed(0)
        shape = (1, *seen.shape[1:])
        x = torch.from_numpy(seen.reshape(len(seen), *shape))
        settings = pythae["models"].VAEConfig(input_dim=shape, latent_dim=LATENT)
        if own_network:
            network = build_model(ModelConfig(latent_dim=LATENT), shape)
            vae = pythae["models"].VAE(settings, Encoder(network), Decoder(network.decode))
            loop: dict[str, float] = {"learning_rate": LEARNING_RATE, "per_device_train_batch_size": BATCH}
        else:
            low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
            x = (x - low) / (high - low).clamp_min(1e-12)
            vae = pythae["models"].VAE(settings)
            loop = {}
        trainer_config = pythae["trainers"].BaseTrainerConfig
        config = trainer_config(output_dir=str(folder), num_epochs=epochs, no_cuda=True, **loop)
        data = base_dataset(x, torch.zeros(len(x)))
        began = time.perf_counter()
        pythae["pipelines"].TrainingPipeline(training_config=config, model=vae)(data)
        seconds = time.perf_counter() - began
        vae.eval()

        def encode(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = vae.encoder(batch)
            return found.embedding, found.log_covariance

        return _represented(encode, lambda z: vae.decoder(z)["reconstruction"], x, seconds, epochs)


@torch.inference_mode()
def _represented(
    encode: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    decode: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    seconds: float,
    epochs: int,
) -> Representation:
    means, stds, decoded = [], [], []
    for batch in x.split(512):
        mean, logvar = encode(batch)
        means.append(mean.float().numpy())
        stds.append(torch.exp(0.5 * logvar.float()).numpy())
        decoded.append(decode(mean).float().reshape(len(batch), *x.shape[2:]).numpy())
    parts = (np.concatenate(part) for part in (means, decoded, stds))
    features, reconstruction, std = parts
    return Representation(features, reconstruction, seconds, len(x) * epochs, std)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pythae prints, logs, warns and sets environment variables: not here."""
    import logging

    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        patch.dict(os.environ),
    ):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)
