"""Small pictures: our `digits` settings against PCA, and pythae's VAE where it is installed: `make bench`.

VAEARR_BENCH_DIGITS names a folder with an IDX set of 28 x 28 digits and its labels, as shared/data/mnist (8000 digits);
VAEARR_BENCH_EPOCHS=2 makes a smoke run, VAEARR_BENCH_DIMS=10,20,32 sets the latent dimensions. Nothing here can fail on
a number. All on the CPU, so that seconds compare; about 2 minutes of two cores for each number of dimensions.

An eighth of the digits is for testing alone, drawn by `numpy.random.default_rng(0).permutation`. The store that our
network is trained from holds the others and no more; there is no validation part, so that no epoch is chosen and the
network is that of the last. All columns are of the test digits:

`-ELBO` in nats per digit, pixels as probabilities from 0 to 1: binary cross entropy of the decoded digit plus KL.
`draw`: decoded from draws of the posterior (mean of 8), the bound itself; `mean`: decoded from the posterior mean,
which is no bound. `5-NN`: share of labels that 5 nearest neighbours among the training digits name right, between
posterior means (PCA: scores) as they are, unscaled. `PSNR` in dB of the digit decoded from the posterior mean:
10 log10(1 / MSE), the MSE over all pixels of all test digits. `seconds` of training, everything in it; `CPU s` is the
processor time of all threads, to judge by where other programs run. `digits/s`: training digits x epochs / seconds.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

import vaearr as va
from tests.benchmarks.rivals import _quiet as quiet
from vaearr.config.presets import preset
from vaearr.models.losses import kl_divergence
from vaearr.store import create_store

pytestmark = pytest.mark.benchmarks

FOLDER = os.environ.get("VAEARR_BENCH_DIGITS")
EPOCHS = os.environ.get("VAEARR_BENCH_EPOCHS")
DIMS = tuple(map(int, os.environ.get("VAEARR_BENCH_DIMS", "10,20,32").split(",")))
PYTHAE_DIMS, PYTHAE_EPOCHS = 10, 15
TEST_SHARE, DRAWS = 1 / 8, 8
HEAD = (
    f"{'method':26} {'-ELBO: draw':>11} {'mean':>7} {'KL':>6} {'5-NN':>6} {'PSNR':>6} {'seconds':>8} {'CPU s':>7} "
    f"{'digits/s':>9}"
)
ROWS: list[str] = []

Encode = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
Decode = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Digits:
    """Pictures `(digit, 1, H, W)` between 0 and 1 with labels, and a store of the training part."""

    train: torch.Tensor
    test: torch.Tensor
    train_labels: NDArray[Any]
    test_labels: NDArray[Any]
    store: Path


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    if ROWS:
        print(f"\n{torch.get_num_threads()} threads\n{HEAD}\n" + "\n".join(ROWS))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    if FOLDER is None:
        pytest.skip("VAEARR_BENCH_DIGITS does not name a folder with an IDX set of digits and its labels")
    (file,) = [path for path in Path(FOLDER).expanduser().iterdir() if "images-idx3" in path.name]
    folder = tmp_path_factory.mktemp("digits")
    ds = va.ingest(file, folder / "all.zarr")
    order = np.random.default_rng(0).permutation(ds.sizes["sample"])
    n_test = round(TEST_SHARE * len(order))
    train, test = order[:-n_test], order[-n_test:]
    pictures = torch.from_numpy(ds.patterns.values).unsqueeze(1) / 255
    labels = ds.label.values
    store = create_store(ds.isel(sample=np.sort(train)).load(), folder / "train.zarr")
    return Digits(pictures[train], pictures[test], labels[train], labels[test], store)


def row(
    name: str,
    digits: Digits,
    codes: tuple[NDArray[Any], NDArray[Any]],
    decoded: NDArray[Any],
    spent: tuple[float, float],
    n_epochs: int = 0,
    terms: tuple[str, str, str] = ("-",) * 3,
) -> None:
    """codes: of training and test digits. spent: seconds and processor seconds. terms: -ELBO twice and KL."""
    right = KNeighborsClassifier(5).fit(codes[0], digits.train_labels).score(codes[1], digits.test_labels)
    psnr = -10 * math.log10(np.square(decoded - digits.test.numpy().reshape(decoded.shape)).mean())
    numbers = "".join(f" {value:>{width}}" for value, width in zip(terms, (11, 7, 6), strict=True))
    rate = f"{n_epochs * len(digits.train) / spent[0]:9.0f}" if n_epochs else ""
    ROWS.append(f"{name:26}{numbers} {right:6.3f} {psnr:6.2f} {spent[0]:8.1f} {spent[1]:7.1f} {rate}")
    print(f"\n{HEAD}\n{ROWS[-1]}", flush=True)


@torch.inference_mode()
def vae_row(
    name: str, digits: Digits, encode: Encode, decode: Decode, spent: tuple[float, float], n_epochs: int
) -> None:
    """decode: latents to probabilities, as float32."""
    train = torch.cat([encode(part)[0] for part in digits.train.split(500)])
    mean, logvar = encode(digits.test)
    kl = float(kl_divergence(mean, logvar).sum(1).mean())

    def nll(z: torch.Tensor) -> float:
        found = decode(z).reshape(digits.test.shape)
        return float(F.binary_cross_entropy(found, digits.test, reduction="none").flatten(1).sum(1).mean())

    generator = torch.Generator().manual_seed(0)
    draws = [mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=generator) for _ in range(DRAWS)]
    bound = float(np.mean([nll(z) for z in draws])) + kl
    terms = f"{bound:.1f}", f"{nll(mean) + kl:.1f}", f"{kl:.1f}"
    row(name, digits, (train.numpy(), mean.numpy()), decode(mean).numpy(), spent, n_epochs, terms)


@pytest.mark.parametrize("dims", [10, 20, 32])
def test_pca(digits: Digits, dims: int) -> None:
    train, test = (part.flatten(1).numpy() for part in (digits.train, digits.test))
    began, cpu = time.perf_counter(), time.process_time()
    pca = PCA(dims, random_state=0).fit(train)
    spent = time.perf_counter() - began, time.process_time() - cpu
    codes = pca.transform(train), pca.transform(test)
    row(f"PCA, {dims}", digits, codes, pca.inverse_transform(codes[1]), spent)


@pytest.mark.parametrize("dims", DIMS)
def test_ours(digits: Digits, dims: int) -> None:
    given = preset("digits")
    config = given.replace(
        model=given.model.replace(latent_dim=dims).to_attrs(),
        split={"method": "random", "fraction": 0.0},
        epochs=int(EPOCHS) if EPOCHS else None,
        device="cpu",
    )
    began, cpu = time.perf_counter(), time.process_time()
    run = va.train(digits.store, run=f"digits_{dims}", config=config)
    spent = time.perf_counter() - began, time.process_time() - cpu
    model = va.load_model(digits.store, run.name)

    def encode(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return model.encode_batch((pictures * 255).round().to(torch.uint8))

    vae_row(f"vaearr, digits, {dims}", digits, encode, model.decode_batch, spent, config.epochs)


def test_pythae(digits: Digits, tmp_path: Path) -> None:
    """pythae's network for MNIST with its own loop, binary cross entropy; float32, as pythae trains on CPUs."""
    pytest.importorskip("pythae", reason="pythae is not installed; see rivals.pythae_vae")
    with quiet():
        models, networks = import_module("pythae.models"), import_module("pythae.models.nn.benchmarks.mnist")
        trainers, pipelines = import_module("pythae.trainers"), import_module("pythae.pipelines")
        torch.manual_seed(0)
        settings = models.VAEConfig(
            input_dim=tuple(digits.train.shape[1:]), latent_dim=PYTHAE_DIMS, reconstruction_loss="bce"
        )
        vae = models.VAE(settings, networks.Encoder_Conv_VAE_MNIST(settings), networks.Decoder_Conv_AE_MNIST(settings))
        n_epochs = min(int(EPOCHS or PYTHAE_EPOCHS), PYTHAE_EPOCHS)
        config = trainers.BaseTrainerConfig(output_dir=str(tmp_path), num_epochs=n_epochs, no_cuda=True)
        began, cpu = time.perf_counter(), time.process_time()
        pipelines.TrainingPipeline(training_config=config, model=vae)(digits.train)
        spent = time.perf_counter() - began, time.process_time() - cpu
    vae.eval()

    def encode(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = vae.encoder(pictures)
        return found.embedding, found.log_covariance

    vae_row(
        f"pythae, MNIST conv, {PYTHAE_DIMS}",
        digits,
        encode,
        lambda z: vae.decoder(z)["reconstruction"],
        spent,
        n_epochs,
    )
