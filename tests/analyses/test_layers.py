"""Two samples through a network, layer by layer: exact nulls, a model left alone; pairs and their
tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from vaearr.analysis.layers import compare_layers, compare_pairs
from vaearr.errors import DataError
from vaearr.models.artifacts import TrainedModel

from .conftest import make_model

NULL = {"l2": 0, "rms": 0, "relative_l2": 0, "mean_abs": 0, "cosine": 1}


class Volume(nn.Module):
    """A network for volumes with a spatial latent, whose encoder calls one layer twice."""

    is_deterministic = False

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv3d(1, 4, 2, stride=2)
        self.norm = nn.BatchNorm3d(4)
        self.up = nn.ConvTranspose3d(2, 1, 2, stride=2)
        self.noise = nn.Dropout(0.5)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, logvar = self.noise(self.norm(self.norm(self.down(x)))).chunk(2, 1)
        return mean, logvar

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        return self.up(z)


def volume_model() -> TrainedModel:
    model = make_model((1, 12, 13))
    model.network = Volume()
    model.input_shape, model.signal_dims = (1, 4, 6, 8), ("z", "y", "x")
    return model


@settings(max_examples=12, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(8, 20), st.integers(8, 20)),
    seed=st.integers(0, 99),
    options=st.fixed_dictionaries(
        {
            "attention": st.sampled_from(["none", "cbam"]),
            "norm": st.sampled_from(["group", "batch"]),
        }
    ),
)
def test_any_shape_and_network(shape: tuple[int, ...], seed: int, options: dict[str, str]) -> None:
    model = make_model(shape, **options)
    a, b = np.random.default_rng(seed).integers(0, 256, (2, *shape), dtype=np.uint8)
    found, back, same = (compare_layers(model, *two, top=3) for two in ((a, b), (b, a), (b, b)))
    np.testing.assert_array_equal(found["order"], np.arange(len(set(found["layer"].values))))
    for name, value in NULL.items():
        np.testing.assert_array_equal(same[name], value)
    np.testing.assert_array_equal(found["l2"], back["l2"])
    np.testing.assert_array_equal(found["rms_a"], back["rms_b"])
    for name in found.attrs["maps"]:
        at = found.isel(layer=int(name.rpartition("_")[2]))
        np.testing.assert_allclose(np.sqrt((found[name].values ** 2).mean()), at["rms"], rtol=1e-5)
    top = [
        float(found["relative_l2"][int(name.rpartition("_")[2])]) for name in found.attrs["maps"]
    ]
    assert top == sorted(top, reverse=True)


def test_a_volume_a_layer_called_twice_and_a_model_left_as_it_was() -> None:
    model = volume_model()
    model.network.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    a, b = np.random.default_rng(0).integers(0, 999, (2, 4, 6, 8), dtype=np.int16)
    found = compare_layers(model, a, b)
    assert list(found["layer"].values) == [
        "input",
        "down",
        "norm",
        "norm:2",
        "latent",
        "up",
        "output",
    ]
    assert found["difference_map_1"].dims == ("z_1", "y_1", "x_1")
    np.testing.assert_array_equal(
        compare_layers(model, a, b)["l2"], found["l2"]
    )  # no draw, no dropout

    def broken(z: torch.Tensor) -> torch.Tensor:
        raise ValueError("broken decoder")

    model.network.decode = broken  # type: ignore[assignment]
    with pytest.raises(ValueError, match="broken decoder"):
        compare_layers(model, a, b)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_pairs_are_the_single_comparisons_with_a_paired_test(images: np.ndarray) -> None:
    model = make_model()
    found = compare_pairs(model, images[:4], images[4:8], top=3)
    single = [compare_layers(model, images[i], images[i + 4]) for i in range(4)]
    for name in NULL:
        np.testing.assert_array_equal(found[name], np.stack([one[name] for one in single]))
    one, two = (found[name].values for name in ("rms_a", "rms_b"))
    changes = (np.abs(two - one) > 1e-4 * one).all(0)
    t = stats.ttest_rel(two[:, changes], one[:, changes])
    np.testing.assert_allclose(found["t"][changes], t.statistic)
    np.testing.assert_allclose(found["t_p_value"][changes], t.pvalue)
    tested = np.isfinite(found["t_p_adjusted"].values)
    p = found["t_p_value"].values[tested]
    holm = np.minimum(1, np.maximum.accumulate(np.sort(p) * np.arange(p.size, 0, -1)))
    np.testing.assert_allclose(np.sort(found["t_p_adjusted"].values[tested]), np.sort(holm))
    alone = compare_pairs(model, images[:1], images[1:2])
    assert np.isnan(alone["t_p_value"]).all()
    assert "one pair has no spread" in alone.attrs["warnings"][0]


MODEL, IMAGE = make_model(), np.zeros((3, 12, 13), np.uint8)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: compare_layers(MODEL, IMAGE, IMAGE[0]),
            DataError,
            r"sample b has shape \(12, 13\)",
        ),
        (lambda: compare_layers(MODEL, IMAGE * np.nan, IMAGE), DataError, "not finite"),
        (lambda: compare_layers(MODEL, IMAGE.astype("c8"), IMAGE), DataError, "dtype complex64"),
        (lambda: compare_pairs(MODEL, [], []), DataError, "make no pairs"),
    ],
)
def test_refusals(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_files_of_an_earlier_program(images: np.ndarray, tmp_path: Path) -> None:
    import json

    from vaearr.output.earlier import write_layer_differences

    model = make_model()
    one = compare_layers(model, images[0], images[1])
    write_layer_differences(one, tmp_path)
    rows = json.loads((tmp_path / "layer_differences.json").read_text())
    assert list(rows) == list(one["layer"].values)
    assert rows["latent"]["l2_difference"] == pytest.approx(float(one["l2"].sel(layer="latent")))
    assert (
        rows["input"] | {"shape": [3, 12, 13], "type": "input", "part": "input", "order": 0}
        == rows["input"]
    )
