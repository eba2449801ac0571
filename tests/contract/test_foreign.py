"""Checkpoints made elsewhere: three dialects give the outputs of their own network; what does not
fit is refused.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import vaearr as va

from .conftest import Template
from .harness import BAD_DATA, HAS_MONAI, MONAI, NO_INPUT, attributes, nested, tree, vaearr, zarr
from .ldm import Reference, as_diffusers, random_weights

pytestmark = pytest.mark.skipif(not HAS_MONAI, reason=MONAI)
State = dict[str, torch.Tensor]
OTHERS = {
    "model.diffusion_model.out.weight": torch.ones(2, 2),
    "cond_stage_model.bias": torch.ones(3),
}
FIRST_STAGE = "first_stage_model."


@pytest.fixture(scope="module")
def weights() -> State:
    """Of a first stage with attention on the coarse level, in the key layout of Stable Diffusion."""
    return dict(random_weights((32, 64), attention=(1,)))


@pytest.fixture(scope="module")
def colours(template: Template) -> Path:
    """Eight images of three channels, 14 x 17 pixels: `colour.zarr`; the same in grey: `grey.zarr`."""

    def make(folder: Path) -> None:
        images = np.random.default_rng(0).integers(0, 256, (8, 14, 17, 3)).astype(np.uint8)
        for name, part in (("colour", images), ("grey", images[..., 0])):
            np.savez(folder / f"{name}.npz", x=part)
            vaearr("ingest", folder / f"{name}.npz", folder / f"{name}.zarr")

    return template("colours", make)


@pytest.fixture
def colour(colours: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(colours / "colour.zarr", tmp_path / "colour.zarr"))


@pytest.fixture
def grey(colours: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(colours / "grey.zarr", tmp_path / "grey.zarr"))


def contiguous(state: Mapping[str, torch.Tensor]) -> State:
    return {name: value.contiguous() for name, value in state.items()}


def seen(store: Path) -> torch.Tensor:
    """The images from -1 to 1, padded with their edges to multiples of two, evenly: (sample,
    channel, 14, 18).
    """
    patterns = zarr(store).patterns
    flat = (
        torch.from_numpy(patterns.values.reshape(len(patterns), -1, *patterns.shape[-2:])) / 127.5
        - 1
    )
    return torch.nn.functional.pad(flat.float(), (0, 1, 0, 0), mode="replicate")


@torch.no_grad()
def check(
    store: Path,
    encode: Callable[[torch.Tensor], Any],
    decode: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """The run `theirs` gives what the network that the weights are from gives."""
    vaearr("encode", store, "--run", "theirs")
    found = zarr(store).latents_theirs
    assert found.dims == ("sample", "latent_theirs", "ly_theirs", "lx_theirs")
    mean, std = encode(seen(store))
    np.testing.assert_allclose(found, mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(zarr(store).latents_std_theirs, std, rtol=1e-4, atol=1e-4)
    decoded = np.asarray(va.load_model(store, "theirs").decode(found.values))
    expected = decode(torch.from_numpy(found.values))[..., :14, :17].numpy()
    np.testing.assert_allclose(decoded.reshape(expected.shape), expected, rtol=1e-3, atol=1e-4)


def check_ldm(store: Path, state: Mapping[str, torch.Tensor]) -> None:
    reference = Reference(state)

    def encode(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, logvar = reference.encode(x)
        return mean, torch.exp(logvar / 2)

    check(store, encode, reference.decode)


def stable_diffusion(state: State, path: Path) -> None:
    """The whole file: the first stage under its prefix, beside other networks and what a training
    leaves.
    """
    whole = {f"{FIRST_STAGE}{name}": value for name, value in state.items()} | OTHERS
    torch.save({"state_dict": whole, "epoch": 3, "lr_schedulers": []}, path)


FORMS: dict[str, tuple[str, Callable[[State, Path], None], str]] = {  # file, how it is written, what is said of it
    "first-stage": ("sd.ckpt", stable_diffusion, f"layout ldm under 'state_dict.{FIRST_STAGE}'; 2 tensors of other"),
    "bare": ("vae.pt", lambda state, path: torch.save(state, path), "layout ldm"),
    "old-format": (
        "vae.pth",
        lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
        "layout ldm",
    ),
    "module": ("m.pt", lambda state, path: torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, path),
               "layout ldm under 'model.module.'"),
    "diffusers": ("vae.safetensors", lambda state, path: save_file(contiguous(as_diffusers(state)), path),
                  "layout diffusers"),
    "old-diffusers": ("vae.safetensors", lambda state, path: save_file(contiguous(as_diffusers(state, old=True)), path),
                      "layout diffusers"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_stable_diffusion_in_two_dialects(
    form: str, weights: State, colour: Path, tmp_path: Path
) -> None:
    name, write, said = FORMS[form]
    write(weights, tmp_path / name)
    told = vaearr("import", colour, tmp_path / name, "--run", "theirs").err
    assert f"{len(weights)} weights read, {said}" in told
    check_ldm(colour, weights)
    run = attributes(colour / "runs" / "theirs")["config"]
    assert nested(run)["model"]["options"]["channels"] == [32, 64]
    assert nested(run)["imported"]["n_weights_read"] == len(weights)


def test_what_a_training_framework_leaves_beside_is_passed_over(
    weights: State, colour: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Stable Diffusion's own files: objects of a package that is not there when the file is
    read.
    """
    name = "pytorch_lightning.callbacks.model_checkpoint"
    for end in (1, 2, 3):
        part = ".".join(name.split(".")[:end])
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    left = type("ModelCheckpoint", (), {"__module__": name})
    monkeypatch.setattr(sys.modules[name], "ModelCheckpoint", left, raising=False)
    torch.save(
        {"state_dict": weights, "callbacks": {left: {"best": left()}}}, tmp_path / "lightning.ckpt"
    )
    monkeypatch.undo()
    vaearr("import", colour, tmp_path / "lightning.ckpt", "--run", "theirs")
    check_ldm(colour, weights)


def test_half_precision_is_read_as_float32(weights: State, colour: Path, tmp_path: Path) -> None:
    torch.save({name: value.half() for name, value in weights.items()}, tmp_path / "half.pt")
    vaearr("import", colour, tmp_path / "half.pt", "--run", "theirs")
    check_ldm(colour, {name: value.half().float() for name, value in weights.items()})


def test_convolutions_that_a_file_lacks_change_nothing(
    weights: State, colour: Path, tmp_path: Path
) -> None:
    short = {name: value for name, value in weights.items() if "quant" not in name}
    torch.save(short, tmp_path / "ae.pt")
    told = vaearr("import", colour, tmp_path / "ae.pt", "--run", "theirs").err
    assert "without effect, as the file has none: quant_conv, post_quant_conv" in told
    for conv, size in (("quant_conv", 8), ("post_quant_conv", 4)):
        short |= {
            f"{conv}.weight": torch.eye(size)[:, :, None, None],
            f"{conv}.bias": torch.zeros(size),
        }
    check_ldm(colour, short)


MONAI_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"channels": (8, 16), "num_res_blocks": (1, 2), "attention_levels": (False, True)},
    "maisi": {"channels": (8, 16), "num_res_blocks": (2, 1), "attention_levels": (False, False),
              "with_encoder_nonlocal_attn": False, "with_decoder_nonlocal_attn": False},
}  # fmt: skip


def monai_network(kind: str, n_dims: int = 2) -> Any:
    from monai.networks.nets import AutoencoderKL

    torch.manual_seed(4)
    options = {
        "spatial_dims": n_dims,
        "in_channels": 1,
        "out_channels": 1,
        "latent_channels": 3,
        "norm_num_groups": 8,
    }
    network = AutoencoderKL(**options, **MONAI_OPTIONS[kind]).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.weight.add_(0.2 * torch.randn_like(module.weight))
                module.bias.add_(0.2 * torch.randn_like(module.bias))
    return network


def as_maisi(state: Mapping[str, torch.Tensor]) -> State:
    """The names of MAISI: every convolution in a wrapper of its own."""
    found = {}
    for name, value in state.items():
        is_conv = state[name.replace(".bias", ".weight")].ndim > 2
        name = name.replace("postconv", "conv")
        found[
            name.replace(".conv.", ".conv.conv.", 1) if is_conv and "quant" not in name else name
        ] = value
    return found


@pytest.mark.parametrize("kind", MONAI_OPTIONS)
def test_monai(kind: str, grey: Path, tmp_path: Path) -> None:
    theirs = monai_network(kind)
    state = theirs.state_dict()
    if kind == "maisi":
        state = as_maisi(state)
    torch.save({"autoencoder": state}, tmp_path / "monai.pt")
    told = vaearr(
        "import", grey, tmp_path / "monai.pt", "--run", "theirs", "--set", "options.groups=8"
    ).err
    assert "layout monai under 'autoencoder.'" in told
    check(grey, theirs.encode, theirs.decode)


@torch.no_grad()
def test_monai_volumes(volumes_store: Path, tmp_path: Path) -> None:
    theirs = monai_network("plain", 3)
    save_file(theirs.state_dict(), tmp_path / "monai.safetensors")
    seen_as = ("--set", "preprocess.normalise=unit", "--set", "preprocess.range=[0, 100]")
    options = ("--run", "theirs", "--set", "options.groups=8", *seen_as)
    vaearr("import", volumes_store, tmp_path / "monai.safetensors", *options)
    vaearr("encode", volumes_store, "--run", "theirs")
    ds = zarr(volumes_store)
    assert all(size % 2 == 0 for size in ds.patterns.shape[1:])
    mean, std = theirs.encode(torch.from_numpy(ds.patterns.values[:, None]) / 100)
    np.testing.assert_allclose(ds.latents_theirs, mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ds.latents_std_theirs, std, rtol=1e-3, atol=1e-4)


class Trap:
    """Would show if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Trap, "sprung", True))


def without(state: State, start: str) -> State:
    return {name: value for name, value in state.items() if not name.startswith(start)}


BAD: dict[str, tuple[Callable[[State], object], str]] = {  # what is saved, what is said
    "missing": (
        lambda s: without(s, "decoder.mid.block_1"),
        "8 missing in the file: decoder.mid.block_1.norm1.weight, ",
    ),
    "unexpected": (lambda s: s | {"encoder.extra.weight": torch.ones(2)}, "1 unexpected in it: encoder.extra.weight"),
    "shape": (lambda s: s | {"decoder.conv_out.weight": torch.ones(3, 32, 1, 1)},
              "1 of another shape: decoder.conv_out.weight (3, 32, 1, 1), the network's (3, 32, 3, 3)"),
    "nan": (lambda s: s | {"decoder.conv_out.bias": torch.tensor([0, math.nan, 0])}, "not finite"),
    "overflow": (lambda s: s | {"decoder.conv_out.bias": torch.full((3,), 1e300, dtype=torch.float64)}, "not finite"),
    "quantised": (lambda s: s | {"decoder.conv_out.bias": torch.ones(3, dtype=torch.int8)}, "not a floating-point"),
    "half": (lambda s: without(s, "decoder."), "not a complete autoencoder in the layout ldm"),
    "other": (lambda s: {"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}, "no autoencoder in the layout"),
    "nothing": (lambda s: {"epoch": 3}, "holds no named tensors"),
    "trap": (lambda s: {"state_dict": s, "trap": Trap()}, "pickled setattr, not only tensors, and is not opened"),
    "module": (lambda s: torch.nn.Linear(2, 2), "pickled torch.nn.modules.linear.Linear"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_does_not_fit_is_refused_by_name(
    kind: str, weights: State, colour: Path, tmp_path: Path
) -> None:
    """An error and nothing written: never a network with random weights."""
    change, said = BAD[kind]
    torch.save(change(dict(weights)), tmp_path / "bad.pt")
    before = tree(colour)
    assert (
        said
        in vaearr("import", colour, tmp_path / "bad.pt", "--run", "theirs", code=BAD_DATA).error
    )
    assert not hasattr(Trap, "sprung")
    assert tree(colour) == before


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors", "text.ckpt"])
def test_damaged_files(name: str, weights: State, colour: Path, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "whole.pt")
    save_file(weights, tmp_path / "whole.safetensors")
    file = tmp_path / name
    whole = tmp_path / f"whole{file.suffix}"
    file.write_bytes(
        whole.read_bytes()[:-30] if whole.exists() else b"version https://example.org/pointer\n"
    )
    assert (
        f"{name} is not a complete"
        in vaearr("import", colour, file, "--run", "theirs", code=BAD_DATA).error
    )
    assert (
        "does not exist"
        in vaearr("import", colour, tmp_path / "gone.pt", "--run", "theirs", code=NO_INPUT).error
    )


def test_several_autoencoders_in_a_file(weights: State, colour: Path, tmp_path: Path) -> None:
    two = {
        f"{start}.{name}": value + (start == "ema")
        for start in ("vae", "ema")
        for name, value in weights.items()
    }
    torch.save(two, tmp_path / "two.pt")
    given = ("import", colour, tmp_path / "two.pt", "--run", "theirs")
    assert "2 autoencoders, under 'vae.' (ldm), 'ema.' (ldm)" in vaearr(*given, code=BAD_DATA).error
    assert "under the prefix 'unet'" in vaearr(*given, "--prefix", "unet", code=BAD_DATA).error
    vaearr(*given, "--prefix", "vae")
    check_ldm(colour, weights)


def test_options_given_by_hand_have_to_fit(
    weights: State, colour: Path, grey: Path, tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "sd.pt")
    given = ("import", colour, tmp_path / "sd.pt", "--run", "theirs")
    assert (
        "unexpected in it" in vaearr(*given, "--set", "options.res_blocks=1", code=BAD_DATA).error
    )
    assert "of another shape" in vaearr(*given, "--latent-dim", 8, code=BAD_DATA).error
    error = vaearr("import", grey, tmp_path / "sd.pt", "--run", "theirs", code=BAD_DATA).error
    assert "3 channel(s) in 2 dimensions" in error


def test_training_starts_from_a_file(weights: State, colour: Path, tmp_path: Path) -> None:
    """Fine-tuning: the loss of the first epoch, with a learning rate that moves nothing, is that of
    the weights.
    """
    stable_diffusion(weights, tmp_path / "sd.ckpt")
    vaearr("import", colour, tmp_path / "sd.ckpt", "--run", "theirs")
    vaearr("encode", colour, "--run", "theirs")
    options = nested(attributes(colour / "runs" / "theirs")["config"])["model"]["options"]
    given = (
        "--model",
        "autoencoder-kl",
        "--latent-dim",
        4,
        "--set",
        f"model.options={json.dumps(options)}",
    )
    still = (
        "--epochs",
        1,
        "--learning-rate",
        1e-30,
        "--set",
        "weight_decay=0",
        "--set",
        "device=cpu",
    )
    told = vaearr("train", colour, "--run", "tuned", *given, *still, "--init", tmp_path / "sd.ckpt",
                  "--set", "preprocess.normalise=symmetric").err  # fmt: skip
    assert f"{len(weights)} weights read, layout ldm" in told
    vaearr("encode", colour, "--run", "tuned")
    np.testing.assert_allclose(zarr(colour).latents_tuned, zarr(colour).latents_theirs, atol=1e-4)
