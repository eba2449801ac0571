"""Terms beside reconstruction and KL: perceptual distances, discriminators; models of the user's
own.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import vaearr as va

from .conftest import Template
from .harness import (
    BAD_DATA,
    EXISTS,
    HAS_MONAI,
    MONAI,
    NO_INPUT,
    TINY,
    USAGE,
    attributes,
    nested,
    sets,
    vaearr,
    zarr,
)
from .record import read_csv

# vgg16 by torchvision's layer numbers: channels of each convolution; features are taken after the
# ReLUs of `TAPS`
CONVS = {
    0: 64,
    2: 64,
    5: 128,
    7: 128,
    10: 256,
    12: 256,
    14: 256,
    17: 512,
    19: 512,
    21: 512,
    24: 512,
    26: 512,
    28: 512,
}
TAPS = (2, 7, 14, 21, 28)
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def vgg() -> State:
    """Random weights in torchvision's names, of about unit gain."""
    generator = torch.Generator().manual_seed(7)
    state: State = {}
    n_in = 3
    for layer, n_out in CONVS.items():
        gain = (2 / (n_in * 9)) ** 0.5
        state[f"features.{layer}.weight"] = (
            torch.randn(n_out, n_in, 3, 3, generator=generator) * gain
        )
        state[f"features.{layer}.bias"] = torch.randn(n_out, generator=generator)
        n_in = n_out
    return state


@pytest.fixture(scope="module")
def lines() -> State:
    generator = torch.Generator().manual_seed(8)
    return {
        f"lin{i}.model.1.weight": torch.rand(1, CONVS[layer], 1, 1, generator=generator)
        for i, layer in enumerate(TAPS)
    }


@pytest.fixture(scope="module")
def files(vgg: State, lines: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as a user would give them: `vgg.pth` with its classifier, `lin.safetensors`."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(vgg | {"classifier.1.weight": torch.zeros(2, 2)}, folder / "vgg.pth")
    save_file(lines, folder / "lin.safetensors")
    return folder


def features(state: State, x: torch.Tensor) -> list[torch.Tensor]:
    """What vgg16 holds of images (B, 1 or 3, H, W) from -1 to 1 after the layers of `TAPS`, written
    out.
    """
    shift, scale = (
        torch.tensor(v).view(3, 1, 1) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450))
    )
    x = (x.double() - shift) / scale
    found = []
    for layer in CONVS:
        if layer in (5, 10, 17, 24):
            x = F.max_pool2d(x, 2)
        weight, bias = (state[f"features.{layer}.{part}"].double() for part in ("weight", "bias"))
        x = F.conv2d(x, weight, bias, padding=1).clamp_min(0)
        found += [x] if layer in TAPS else []
    return found


def lpips(state: State, lines: State | None, one: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    """Zhang et al. 2018, eq. 1: features of length 1, subtracted, squared, weighted, mean over
    positions, summed.
    """
    total = torch.zeros(len(one), dtype=torch.float64)
    for i, (a, b) in enumerate(zip(features(state, one), features(state, other), strict=True)):
        weight = 1.0 if lines is None else lines[f"lin{i}.model.1.weight"].double()
        total += (
            (weight * (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)) ** 2)
            .sum(1)
            .mean((1, 2))
        )
    return total.numpy()


def images_of(store: Path, variable: str) -> torch.Tensor:
    """Bytes as values from -1 to 1, (sample, 1, y, x)."""
    return torch.from_numpy(zarr(store)[variable].values.astype(float))[:, None] / 127.5 - 1


def test_lpips_of_images(
    files: Path, vgg: State, lines: State, images_store: Path, tmp_path: Path
) -> None:
    given = ("--lpips-weights", files / "vgg.pth", "--lpips-linear", files / "lin.safetensors")
    vaearr("reconstruct", images_store, "--variable", "--out", tmp_path / "out", *given)
    found = read_csv(tmp_path / "out" / "metrics.csv", "lpips")[:, 0]
    one, other = (images_of(images_store, name) for name in ("patterns", "reconstruction"))
    np.testing.assert_allclose(found, lpips(vgg, lines, one, other), rtol=1e-3)
    about = nested(attributes(images_store, "runs/vae/reconstruction")["provenance"])
    assert about["config"]["lpips_weights"] == "vgg.pth"  # where it lay says nothing


@pytest.fixture(scope="module")
def cubes(template: Template) -> Path:
    """Four volumes of 17 x 18 x 19 voxels with a run of spatial latents, over the values 0 to 100."""
    if not HAS_MONAI:
        pytest.skip(MONAI)

    def make(folder: Path) -> None:
        (folder / "volumes").mkdir()
        for number in range(4):
            volume = np.random.default_rng(number).uniform(0, 100, (19, 18, 17)).astype("float32")
            nibabel.Nifti1Image(volume, np.eye(4)).to_filename(
                folder / "volumes" / f"{number}.nii.gz"
            )
        vaearr("ingest", folder / "volumes", folder / "cubes.zarr")
        vaearr("train", folder / "cubes.zarr", *VOLUMES)

    return template("cubes", make)


VOLUMES = (
    *(
        "--model",
        "autoencoder-kl",
        "--epochs",
        1,
        "--latent-dim",
        2,
        *sets("batch_size=2", "device=cpu", "seed=1"),
    ),
    *sets(
        'model.options={"channels": [4, 8], "groups": 2, "mid_attention": false}',
        "preprocess.normalise=unit",
    ),
    *sets("preprocess.range=[0, 100]", "objective.likelihood=laplace"),
)


def test_lpips_of_volumes_is_the_mean_over_the_slices_of_three_axes(
    files: Path, vgg: State, lines: State, cubes: Path, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(cubes / "cubes.zarr", tmp_path / "cubes.zarr"))
    given = ("--lpips-weights", files / "vgg.pth", "--lpips-linear", files / "lin.safetensors")
    vaearr(
        "reconstruct", store, "--variable", "--out", tmp_path / "out", "--data-range", 100, *given
    )
    found = read_csv(tmp_path / "out" / "metrics.csv", "lpips")[:, 0]
    ds = zarr(store)
    assert ds.patterns.shape == (4, 17, 18, 19)
    means = []
    for axis in range(3):
        planes = [
            torch.from_numpy(np.moveaxis(ds[name].values[1], axis, 0)[:, None]) / 50 - 1
            for name in ("patterns", "reconstruction")
        ]
        means.append(lpips(vgg, lines, *planes).mean())
    # 2 %: the range is that of the data, not 0 to 100
    assert found[1] == pytest.approx(np.mean(means), rel=0.02)


def history(store: Path, run: str) -> dict[str, np.ndarray]:
    ds = zarr(store, f"runs/{run}/history")
    return {str(name): ds[name].values for name in ds.data_vars}


STILL = ("--learning-rate", 1e-30, "--set", "weight_decay=0", "--set", "batch_size=8", *TINY)


def trained(
    store: Path, run: str, *settings: str, more: tuple[object, ...] = STILL
) -> dict[str, np.ndarray]:
    vaearr("train", store, "--run", run, "--epochs", 1, *more, *sets(*settings))
    return history(store, run)


def perceptual(files: Path, kind: str) -> list[str]:
    given = {"lpips": ("weights", "linear"), "features": ("weights",), "encoder": ()}[kind]
    paths = {"weights": files / "vgg.pth", "linear": files / "lin.safetensors"}
    return [
        f"objective.perceptual.kind={kind}",
        *(f"objective.perceptual.{key}={paths[key]}" for key in given),
    ]


@pytest.mark.parametrize("kind", ["lpips", "features"])
def test_perceptual_term_of_images(
    kind: str, files: Path, vgg: State, lines: State, images_store: Path
) -> None:
    """The validation's term is the formula over what the model reconstructs; the loss holds it
    times the values.
    """
    settings = (*perceptual(files, kind), "objective.perceptual.weight=0.5", "split.method=random")
    values = trained(images_store, "seen", *settings)
    held = zarr(images_store).split_seen.values == 2
    model = va.load_model(images_store, "seen")
    pictures = np.asarray(
        model.decode(np.asarray(model.encode(zarr(images_store).patterns.values[held])))
    )
    one = images_of(images_store, "patterns")[torch.from_numpy(held)]
    wanted = lpips(
        vgg, lines if kind == "lpips" else None, one, torch.from_numpy(pictures)[:, None]
    )
    np.testing.assert_allclose(values["val_perceptual"], wanted.mean(), rtol=1e-3)
    parts = (
        values["val_reconstruction_nll"]
        + values["val_kl"]
        + 0.5 * 24 * 32 * values["val_perceptual"]
    )
    np.testing.assert_allclose(values["val_loss"], parts, rtol=1e-4)


def test_images_at_a_time_change_nothing(files: Path, images_store: Path) -> None:
    """Neither the term nor, but for rounding, what is learned from it."""
    learning = ("--set", "optimizer=sgd", "--learning-rate", 1e-5, "--set", "batch_size=8", *TINY)
    both = [
        trained(
            images_store,
            run,
            *perceptual(files, "lpips"),
            f"objective.perceptual.chunk={chunk}",
            more=learning,
        )
        for run, chunk in (("whole", 0), ("parts", 3))
    ]
    for name in ("loss", "perceptual", "val_loss", "val_perceptual"):
        np.testing.assert_allclose(both[0][name], both[1][name], rtol=1e-4)
    plain = trained(images_store, "plain", more=learning)
    assert abs(plain["val_reconstruction_nll"] - both[0]["val_reconstruction_nll"]).max() > 0


def test_encoder_of_another_run_looks(images_store: Path) -> None:
    settings = ("objective.perceptual.kind=encoder", "objective.perceptual.run=vae")
    values = trained(images_store, "seen", *settings)
    assert (values["perceptual"] > 0).all()
    parts = (
        values["val_reconstruction_nll"]
        + values["val_kl"]
        + 0.3 * 24 * 32 * values["val_perceptual"]
    )
    np.testing.assert_allclose(values["val_loss"], parts, rtol=1e-4)


def test_perceptual_term_of_volumes(files: Path, cubes: Path, tmp_path: Path) -> None:
    """2.5-D with a share of the slices, drawn anew in training; 3-D by the encoder of a run."""
    store = Path(shutil.copytree(cubes / "cubes.zarr", tmp_path / "cubes.zarr"))
    few = ("objective.perceptual.slices=0.2", "objective.perceptual.chunk=8")
    for run, settings in {
        "planes": (*perceptual(files, "features"), *few),
        "same": (*perceptual(files, "features"), *few),
        "all": (*perceptual(files, "features"), "objective.perceptual.slices=1"),
        "whole": ("objective.perceptual.kind=encoder", "objective.perceptual.run=vae"),
    }.items():
        values = trained(store, run, *settings, more=VOLUMES)
        assert (values["perceptual"] > 0).all()
        assert np.isfinite(values["loss"]).all()
    assert history(store, "planes")["loss"] == history(store, "same")["loss"]
    np.testing.assert_allclose(
        history(store, "planes")["perceptual"], history(store, "all")["perceptual"], rtol=0.2
    )


WRONG: dict[str, tuple[Callable[[State], State], str]] = {
    "missing": (
        lambda s: {k: v for k, v in s.items() if not k.endswith("features.28.bias")},
        "1 missing",
    ),
    "unexpected": (
        lambda s: s | {"features.99.weight": torch.zeros(3)},
        "1 unexpected in it: 99.weight",
    ),
    "stranger": (
        lambda s: s | {"layer1.0.weight": torch.zeros(3)},
        "1 unexpected in it: layer1.0.weight",
    ),
    "shape": (
        lambda s: s | {"features.0.bias": torch.zeros(3)},
        "1 of another shape: 0.bias (3,), the network's",
    ),
    "nan": (lambda s: s | {"features.0.bias": torch.full((64,), np.nan)}, "not finite"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_weights_that_do_not_fit(kind: str, vgg: State, scan_store: Path, tmp_path: Path) -> None:
    change, said = WRONG[kind]
    torch.save(change(vgg), tmp_path / "wrong.pth")
    options = sets(
        "objective.perceptual.kind=features", f"objective.perceptual.weights={tmp_path}/wrong.pth"
    )
    assert said in vaearr("train", scan_store, "--epochs", 1, *TINY, *options, code=BAD_DATA).error
    assert "roi" not in zarr(scan_store)


def test_what_a_perceptual_term_needs(files: Path, lines: State, scan_store: Path) -> None:
    def refused(*settings: str, code: int = USAGE) -> str:
        return vaearr("train", scan_store, "--epochs", 1, *TINY, *sets(*settings), code=code).error

    assert "needs linear" in refused(
        *perceptual(files, "features")[1:], "objective.perceptual.kind=lpips"
    )
    linear = f"objective.perceptual.linear={files / 'lin.safetensors'}"
    assert "no use for linear" in refused(*perceptual(files, "features"), linear)
    assert "slices" in refused(*perceptual(files, "features"), "objective.perceptual.slices=2.5")
    gone = ("objective.perceptual.kind=features", "objective.perceptual.weights=gone.pth")
    assert "gone.pth" in refused(*gone, code=NO_INPUT)
    save_file({name: -value for name, value in lines.items()}, files / "negative.safetensors")
    negative = f"objective.perceptual.linear={files / 'negative.safetensors'}"
    assert "negative" in refused(*perceptual(files, "lpips")[:2], negative, code=BAD_DATA)


CONV = (
    "objective.adversarial.discriminator=conv",
    'objective.adversarial.options={"channels": 4, "layers": 2}',
)


@pytest.mark.parametrize("kind", ["hinge", "bce", "lsgan", "wgan-gp"])
def test_a_discriminator_begins_in_time_and_its_weight_rises(kind: str, scan_store: Path) -> None:
    """Eight updates, two an epoch; it begins at the fifth and has its full weight from the eighth
    on.
    """
    settings = (
        "objective.adversarial.start=0.5",
        "objective.adversarial.rise=0.5",
        "objective.adversarial.weight=2",
    )
    named = (
        *CONV,
        *settings,
        f"objective.adversarial.kind={kind}",
        "objective.warmup=0",
        "batch_size=150",
    )
    options = sets(*named)
    vaearr("train", scan_store, "--epochs", 4, *options, *TINY)
    values = history(scan_store, "vae")
    before, after = slice(0, 2), slice(2, 4)
    assert np.isnan(values["adversarial"][before]).all()
    assert np.isnan(values["critic"][before]).all()
    assert np.isfinite(values["adversarial"][after]).all()
    assert np.isfinite(values["critic"][after]).all()
    rest = (
        values["loss"]
        - values["reconstruction_nll"]
        - values.get("amplitude_nll", 0.0)
        - values["kl"]
    )
    np.testing.assert_allclose(rest[before], 0, atol=1e-2)
    share = rest[after] / (2 * 400 * values["adversarial"][after])
    assert (
        0.25 - 0.2 < share[0] < 0.5 + 0.2
    )  # shares 1/4 and 2/4, then 3/4 and 1 of updates of unlike sizes
    assert share[0] < share[1] < 1.2
    recorded = nested(zarr(scan_store, "runs/vae").attrs["config"])["objective"]["adversarial"]
    assert recorded["kind"] == kind
    assert "val_adversarial" not in values


@pytest.mark.parametrize("name", ["patch", "multiscale", "conv"])
def test_every_discriminator(name: str, images_store: Path) -> None:
    options = {"channels": 4, "layers": 1} | ({"scales": 2} if name == "multiscale" else {})
    settings = (
        f"objective.adversarial.discriminator={name}",
        f"objective.adversarial.options={json.dumps(options)}",
    )
    values = trained(
        images_store,
        "judged",
        *settings,
        "objective.adversarial.start=0",
        more=("--set", "batch_size=8", *TINY),
    )
    assert np.isfinite(values["critic"]).all()
    assert np.isfinite(values["val_loss"]).all()


def test_discriminators_that_cannot_be(images_store: Path) -> None:
    for settings, said in {
        ("objective.adversarial.discriminator=convv",): "Did you mean 'conv'",
        (*CONV[:1], 'objective.adversarial.options={"layer": 2}'): "Did you mean 'layers'",
        (*CONV[:1], 'objective.adversarial.options={"layers": 6}'): "at least 64; set fewer layers",
        (*CONV, "objective.adversarial.kind=gan"): "kind",
    }.items():
        options = [part for setting in settings for part in ("--set", setting)]
        assert (
            said
            in vaearr("train", images_store, "--run", "never", *TINY, *options, code=USAGE).error
        )
    assert "roi_never" not in zarr(images_store)


OWN = '''
import torch
from torch import nn


class Flat(nn.Module):
    """One linear layer each way."""

    is_deterministic = False

    def __init__(self, input_shape, latent_dim=4, *, gain=1.0):
        super().__init__()
        size = input_shape[0] * input_shape[1] * input_shape[2]
        self.input_shape, self.latent_dim, self.latent_shape, self.gain = input_shape, latent_dim, (latent_dim,), gain
        self.down, self.up = nn.Linear(size, 2 * latent_dim), nn.Linear(latent_dim, size)

    def encode(self, x):
        return self.down(x.flatten(1)).float().chunk(2, 1)

    def decode(self, z, *, logits=False):
        return self.gain * self.up(z).float().view(-1, *self.input_shape)

    def forward(self, x, *, logits=False):
        mean, logvar = self.encode(x)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean) if self.training else mean
        return self.decode(z), mean, logvar
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package of the user's own, whose entry point is the model `flat`."""
    about = tmp_path / "package" / "my_networks-1.0.dist-info"
    about.mkdir(parents=True)
    (tmp_path / "package" / "my_networks.py").write_text(OWN)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-networks\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[vaearr.models]\nflat = my_networks:Flat\n")
    monkeypatch.syspath_prepend(tmp_path / "package")
    yield
    sys.modules.pop("my_networks", None)


@pytest.mark.usefixtures("own")
def test_a_model_of_the_users_own(scan_store: Path, images_store: Path) -> None:
    """Trained, encoded, decoded, told, taken to other data, as the models that are there."""
    plain = ("--set", "device=cpu", "--set", "precision=float32", "--epochs", 2, "--latent-dim", 3)
    vaearr("train", scan_store, "--model", "flat", *plain, "--set", "model.options.gain=2")
    vaearr("encode", scan_store)
    ds, model = zarr(scan_store), va.load_model(scan_store)
    inside = ds.roi.values
    assert np.isfinite(ds.latents.values[inside]).all()
    np.testing.assert_allclose(
        model.encode(ds.patterns.values[inside][:5]), ds.latents.values[inside][:5], atol=1e-5
    )
    assert np.asarray(model.decode(np.zeros((2, 3), "float32"))).shape == (2, 20, 20)
    assert nested(zarr(scan_store, "runs/vae").attrs["config"])["model"]["options"] == {"gain": 2}
    weights = scan_store / "runs" / "vae" / "model"
    assert (
        f"n_parameters = {400 * 6 + 6 + 3 * 400 + 400};"
        in vaearr("info", scan_store, "--model").out
    )
    vaearr("reconstruct", scan_store)
    assert "already" in vaearr("encode", scan_store).err
    error = vaearr("import", scan_store, weights, "--run", "vae", code=EXISTS).error
    assert "vae" in error
    error = vaearr(
        "train", images_store, "--run", "b", "--model", "flatt", *plain, code=USAGE
    ).error
    assert "Did you mean 'flat'" in error
    error = vaearr(
        "train",
        images_store,
        "--run",
        "b",
        "--model",
        "flat",
        "--set",
        "model.options.gian=2",
        code=USAGE,
    ).error
    assert "Did you mean 'gain'" in error
