"""Two samples through a network: exact nulls, numbers as by hand, nothing kept and nothing changed."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from vaearr.artifacts import TrainedModel
from vaearr.errors import DataError, UsageError
from vaearr.layers import compare_layers, top_layers

from .conftest import MakeModel

SPREAD = ["l2", "rms", "relative_l2", "mean_abs"]


class Volume(nn.Module):
    """A network for volumes with a spatial latent, whose encoder calls one layer twice."""

    is_deterministic = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv3d(channels, 4, 2, stride=2)
        self.norm = nn.BatchNorm3d(4)
        self.up = nn.ConvTranspose3d(2, channels, 2, stride=2)
        self.noise = nn.Dropout(0.5)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, logvar = self.noise(self.norm(self.norm(self.down(x)))).chunk(2, 1)
        return mean, logvar

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        return self.up(z)


def _volume_model(make_model: MakeModel) -> TrainedModel:
    model = make_model((1, 12, 13))
    model.network = Volume(1)
    model.input_shape, model.signal_dims = (1, 4, 6, 8), ("z", "y", "x")
    return model


def _assert_null(found: xr.Dataset) -> None:
    for name in SPREAD:
        np.testing.assert_array_equal(found[name], 0)
    np.testing.assert_array_equal(found["cosine"], 1)
    np.testing.assert_array_equal(found["rms_a"], found["rms_b"])


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("attention", ["none", "cbam"])
@pytest.mark.parametrize("shape", [(1, 17, 23), (3, 12, 13)], ids=str)
def test_two_equal_samples_differ_by_nothing(
    make_model: MakeModel, shape: tuple[int, ...], attention: str, norm: str
) -> None:
    model = make_model(shape, attention=attention, norm=norm, width=16)
    for sample, other in np.random.default_rng(3).integers(0, 256, (6, 2, *shape), dtype=np.uint8):
        _assert_null(compare_layers(model, sample, sample))
        there, back = compare_layers(model, sample, other), compare_layers(model, other, sample)
        np.testing.assert_array_equal(there["l2"], back["l2"])
        np.testing.assert_array_equal(there["rms_a"], back["rms_b"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.tuples(st.integers(1, 3), st.integers(8, 20), st.integers(8, 20)), seed=st.integers(0, 99))
def test_any_shape(make_model: MakeModel, shape: tuple[int, ...], seed: int) -> None:
    model = make_model(shape)
    a, b = np.random.default_rng(seed).integers(0, 256, (2, *shape), dtype=np.uint8)
    found = compare_layers(model, a, b, top=3)
    assert found.sizes["layer"] == len(set(found["layer"].values))
    np.testing.assert_array_equal(found["order"], np.arange(found.sizes["layer"]))
    assert (found["l2"].sel(layer="output") > 0).all()
    for name in found.attrs["maps"]:
        at = found.isel(layer=int(name.rpartition("_")[2]))
        np.testing.assert_allclose(np.sqrt((found[name].values ** 2).mean()), at["rms"], rtol=1e-5)
    _assert_null(compare_layers(model, b, b))


def test_numbers_are_those_of_the_layers(make_model: MakeModel, images: np.ndarray) -> None:
    model = make_model()
    found = compare_layers(model, images[0], images[1])
    outputs: list[torch.Tensor] = []
    with torch.inference_mode():
        for image in images[:2]:
            seen = model.preprocess(torch.from_numpy(image)[None])
            mean, _ = model.network.encode(seen)
            first = model.network.encoder[0](F.pad(seen, (0, 1)))  # to whole patches
            outputs += [seen, first, mean, model.network.decode(mean)]
    labels = ["input", "encoder.0", "latent", "output"]
    for label, one, two in zip(labels, outputs[:4], outputs[4:], strict=True):
        at = found.sel(layer=label)
        np.testing.assert_allclose(at["l2"], torch.linalg.vector_norm(one - two), rtol=1e-5)
        np.testing.assert_allclose(at["rms_b"], two.square().mean().sqrt(), rtol=1e-5)
        assert int(at["n_values"]) == one.numel()
    np.testing.assert_allclose(found["decoded_b"], outputs[-1][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["input_a"], outputs[0][0], rtol=1e-5, atol=1e-6)
    assert found["input_a"].dims == ("channel", "dy", "dx")
    assert list(found["part"].values[[0, 1, -2, -1]]) == ["input", "encoder", "decoder", "output"]
    assert found["l2"].attrs["units"] == "1"


def test_parts(make_model: MakeModel, images: np.ndarray) -> None:
    model = make_model()
    both = compare_layers(model, *images[:2])
    encoder, decoder = (compare_layers(model, *images[:2], part=part) for part in ("encoder", "decoder"))
    assert set(encoder["part"].values) == {"input", "encoder", "latent"}
    assert set(decoder["part"].values) == {"latent", "decoder", "output"}
    joined = np.concatenate([encoder["layer"], decoder["layer"][1:]])
    np.testing.assert_array_equal(joined, both["layer"])
    np.testing.assert_array_equal(np.concatenate([encoder["l2"], decoder["l2"][1:]]), both["l2"])
    assert "decoded_a" not in encoder


def test_a_volume_with_a_spatial_latent_and_a_layer_called_twice(make_model: MakeModel) -> None:
    model = _volume_model(make_model)
    a, b = np.random.default_rng(0).integers(0, 999, (2, 4, 6, 8), dtype=np.int16)
    found = compare_layers(model, a, b)
    assert list(found["layer"].values) == ["input", "down", "norm", "norm:2", "latent", "up", "output"]
    assert list(found["call"].values) == [1, 1, 1, 2, 1, 1, 1]
    assert found["difference_map_1"].dims == ("z_1", "y_1", "x_1")
    assert found["difference_map_1"].shape == (2, 3, 4)
    assert found["shape"].values[4] == "2 x 2 x 3 x 4"
    assert found["input_a"].dims == ("z", "y", "x")
    _assert_null(compare_layers(model, a, a))
    np.testing.assert_array_equal(compare_layers(model, a, b)["l2"], found["l2"])  # no draw, no dropout


def test_the_model_is_as_it_was(make_model: MakeModel) -> None:
    model = _volume_model(make_model)
    model.network.train()
    model.network.down.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    a, b = np.random.default_rng(0).integers(0, 999, (2, 4, 6, 8), dtype=np.int16)
    compare_layers(model, a, b)

    def broken(z: torch.Tensor) -> torch.Tensor:
        raise ValueError("broken decoder")

    model.network.decode = broken  # type: ignore[assignment]
    with pytest.raises(ValueError, match="broken decoder"):
        compare_layers(model, a, b)
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
        assert value.grad is None


def test_activations_are_let_go(make_model: MakeModel) -> None:
    model = make_model((1, 12, 13))
    alive: list[weakref.ref[Any]] = []
    most = [0]

    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.chain = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(20)])

        def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.chain(x), x

        def decode(self, z: torch.Tensor) -> torch.Tensor:
            return self.chain(z)

    model.network = Long()

    def note(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        alive.append(weakref.ref(output))
        most[0] = max(most[0], sum(ref() is not None for ref in alive))

    for layer in model.network.chain:
        layer.register_forward_hook(note)
    found = compare_layers(model, *np.random.default_rng(0).random((2, 12, 13), dtype="f4"), top=0)
    assert found.sizes["layer"] == 43
    assert len(alive) == 80
    assert most[0] <= 8  # of two passes: what goes in, what comes out, what is being looked at
    assert found.attrs["maps"] == []


def test_top_layers_are_ranked(make_model: MakeModel, images: np.ndarray) -> None:
    found = compare_layers(make_model(), *images[:2], top=4)
    top = top_layers(found, 4)
    values = found["relative_l2"].values
    inside = np.isin(found["part"].values, ["encoder", "decoder"])
    np.testing.assert_array_equal(values[top], np.sort(values[inside])[::-1][:4])
    spread = [float(values[int(name.rpartition("_")[2])]) for name in found.attrs["maps"]]
    assert spread == sorted(spread, reverse=True)
    assert len(spread) == 4
    ends = [v for v in found if v.startswith("difference_map") and v not in found.attrs["maps"]]
    assert ends == ["difference_map_0", f"difference_map_{found.sizes['layer'] - 1}"]


def test_labelled_samples_and_plain_ones_are_alike(make_model: MakeModel, images: np.ndarray) -> None:
    model = make_model()
    a = xr.DataArray(images[0], dims=("channel", "dy", "dx")).transpose("dx", "channel", "dy")
    found = compare_layers(model, a, images[1])
    xr.testing.assert_identical(found, compare_layers(model, images[0], images[1]))
    big = images.astype(">f8")
    np.testing.assert_array_equal(compare_layers(model, *big[:2])["l2"], found["l2"])


def test_samples_that_do_not_fit(make_model: MakeModel, images: np.ndarray) -> None:
    model = make_model()
    with pytest.raises(DataError, match=r"sample b has shape \(12, 13\); the model was trained on .*\(3, 12, 13\)"):
        compare_layers(model, images[0], images[0, 0])
    with pytest.raises(DataError, match=r"sample a has dims \('y', 'x'\); expected one sample"):
        compare_layers(model, xr.DataArray(np.zeros((2, 2)), dims=("y", "x")), images[0])
    broken = images[0].astype("f4")
    broken[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="sample b holds values that are not finite"):
        compare_layers(model, images[0], broken)
    with pytest.raises(DataError, match="sample a has dtype complex64"):
        compare_layers(model, images[0].astype("c8"), images[0])
    with pytest.raises(UsageError, match=r"no part 'encode'. Did you mean 'encoder'"):
        compare_layers(model, *images[:2], part="encode")
    with pytest.raises(UsageError, match="top is -1"):
        compare_layers(model, *images[:2], top=-1)
