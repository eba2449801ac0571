"""Perceptual distances: the formula computed again layer by layer, planes of volumes one by one, files refused."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from vaearr.config import ModelConfig
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.models import build_model
from vaearr.models.backbones import BACKBONES, layers_without_weights
from vaearr.perceptual import build_perceptual, lpips

ENCODER = {"width": 8, "max_width": 16, "hidden": 16, "squeeze": 4}


def random_state(name):
    """Weights of about unit gain in the published layout, without the classifier."""
    generator = torch.Generator().manual_seed(7)
    state = {}
    for key, value in layers_without_weights(name).state_dict().items():
        fan = value[0].numel() if value.ndim == 4 else 1
        state[f"features.{key}"] = torch.randn(value.shape, generator=generator) * (2 / fan) ** 0.5
    return state


def random_lines(name):
    generator = torch.Generator().manual_seed(8)
    return {
        f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=generator)
        for i, c in enumerate(BACKBONES[name].channels)
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Random weights of two networks, and of their linear layers, as a user would give them."""
    folder = tmp_path_factory.mktemp("weights")
    for name in ("alexnet", "squeezenet"):
        save_file(random_state(name), folder / f"{name}.safetensors")
        save_file(random_lines(name), folder / f"{name}_lin.safetensors")
    return folder


@pytest.fixture(scope="module")
def squeeze(files):
    return build_perceptual(
        "lpips", weights=files / "squeezenet.safetensors", linear=files / "squeezenet_lin.safetensors"
    )


def lpips_of_alexnet(a, b):
    """LPIPS written out: images `(3, H, W)` in [-1, 1], one position after the other."""
    state, lines = random_state("alexnet"), random_lines("alexnet")
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def stages(x):
        x = ((x.permute(1, 2, 0) - shift) / scale).permute(2, 0, 1)[None].double()
        found = []
        for i, (layer, stride, padding, pool) in enumerate(
            [(0, 4, 2, False), (3, 1, 2, True), (6, 1, 1, True), (8, 1, 1, False), (10, 1, 1, False)]
        ):
            x = F.max_pool2d(x, 3, 2) if pool else x
            weight, bias = state[f"features.{layer}.weight"].double(), state[f"features.{layer}.bias"].double()
            x = F.conv2d(x, weight, bias, stride, padding).clamp_min(0)
            found.append((i, x[0]))
        return found

    total = 0.0
    for (i, first), (_, second) in zip(stages(a), stages(b), strict=True):
        weight = lines[f"lin{i}.model.1.weight"].flatten().double()
        at = []
        for y in range(first.shape[1]):
            for x in range(first.shape[2]):
                u, v = first[:, y, x], second[:, y, x]
                at.append(float((weight * (u / u.norm() - v / v.norm()) ** 2).sum()))
        total += sum(at) / len(at)
    return total


def test_lpips_equals_the_formula_written_out(files):
    network = build_perceptual(
        "lpips", weights=files / "alexnet.safetensors", linear=files / "alexnet_lin.safetensors", low=0, high=255
    )
    target, recon = 255 * torch.rand(2, 2, 3, 40, 37)
    found = network(target, recon)
    assert found.shape == (2,)
    for i in range(2):
        expected = lpips_of_alexnet(target[i] / 127.5 - 1, recon[i] / 127.5 - 1)
        assert float(found[i]) == pytest.approx(expected, rel=1e-4)


def test_without_linear_weights_every_channel_counts_as_one(files):
    plain = build_perceptual("features", weights=files / "squeezenet.safetensors")
    x, y = torch.rand(2, 2, 1, 24, 24)
    expected = 0.0
    for a, b in zip(plain.features(x), plain.features(y), strict=True):
        expected = expected + 2 - 2 * F.cosine_similarity(a, b, dim=1).mean((1, 2))
    torch.testing.assert_close(plain(x, y), expected, rtol=1e-4, atol=1e-5)


def test_grey_is_colour_with_equal_channels(squeeze):
    x, y = torch.rand(2, 2, 1, 24, 31)
    torch.testing.assert_close(squeeze(x, y), squeeze(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)))


@given(height=st.integers(17, 40), width=st.integers(17, 40), channels=st.sampled_from([1, 3]))
@settings(max_examples=10, deadline=None)
def test_a_distance_for_any_size(squeeze, height, width, channels):
    x, y = torch.rand(2, 2, channels, height, width)
    there, back = squeeze(x, y), squeeze(y, x)
    assert bool((there > 0).all())
    torch.testing.assert_close(there, back, rtol=0, atol=0)
    assert not bool(squeeze(x, x.clone()).any())


def encoder_loss(shape, name="conv", **options):
    chosen = ENCODER if name == "conv" else {"channels": (8, 16), "groups": 4}
    network = build_model(ModelConfig(name=name, latent_dim=4, options=chosen), shape)
    return network, build_perceptual("encoder", network=network, **options)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("conv", (1, 30, 33)), ("autoencoder-kl", (2, 30, 33)), ("autoencoder-kl", (1, 9, 10, 11))],
    ids=["vector", "spatial", "volume"],
)
def test_our_own_encoder_in_two_and_three_dimensions(name, shape):
    network, loss = encoder_loss(shape, name)
    x = torch.randn(2, *shape)
    y = torch.randn(2, *shape, requires_grad=True)
    assert not bool(loss(x, x.clone()).any())
    distance = loss(x, y)
    assert distance.shape == (2,)
    assert bool((distance > 0).all())
    sides = [each.shape[2:] for each in loss.features(x)]
    assert len(sides) >= 2
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) == len(sides), "one map per grid"
    distance.sum().backward()
    assert bool(y.grad.any())
    assert all(p.grad is None for p in network.parameters())


def test_the_encoder_is_a_copy():
    network, loss = encoder_loss((1, 24, 24))
    x, y = torch.randn(2, 2, 1, 24, 24)
    before = loss(x, y)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(3).add_(1)
    assert torch.equal(loss(x, y), before)
    assert all(p.requires_grad for p in network.parameters())
    assert not any(p.requires_grad for p in loss.parameters())


def test_one_encoder_for_planes_of_another_size():
    _, loss = encoder_loss((1, 24, 24))
    x, y = torch.randn(2, 1, 1, 10, 13, 17)
    expected = torch.stack([_over_planes(loss, x, y, axis) for axis in (2, 3, 4)]).mean(0)
    torch.testing.assert_close(loss(x, y), expected)


def _over_planes(loss, x, y, axis):
    planes = [loss(x.select(axis, i), y.select(axis, i)) for i in range(x.shape[axis])]
    return torch.stack(planes).mean(0)


def test_a_volume_is_the_mean_over_its_planes(squeeze):
    x, y = torch.rand(2, 2, 1, 17, 18, 19)
    expected = torch.stack([_over_planes(squeeze, x, y, axis) for axis in (2, 3, 4)]).mean(0)
    torch.testing.assert_close(squeeze(x, y), expected)


@pytest.mark.parametrize("shape", [(5, 1, 20, 20), (2, 1, 17, 18, 17)], ids=["images", "volumes"])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_change_nothing(files, squeeze, shape, chunk):
    chunked = build_perceptual(
        "lpips", weights=files / "squeezenet.safetensors", linear=files / "squeezenet_lin.safetensors", chunk=chunk
    )
    target, start = torch.rand(2, *shape)
    results = []
    for network in (squeeze, chunked):
        recon = start.clone().requires_grad_()
        distance = network(target, recon)
        distance.sum().backward()
        results.append((distance.detach(), recon.grad))
    (whole, slope), (parts, slope_in_parts) = results
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=0)
    # convolutions of other batch sizes round otherwise, which moves a gradient here and there from pixel to pixel
    assert float((slope_in_parts - slope).norm() / slope.norm()) < 1e-3


class Kept:
    """What autograd holds, in bytes."""

    now = peak = 0

    def __init__(self, x):
        self.x, self.size = x, 0 if isinstance(x, torch.nn.Parameter) else x.numel() * x.element_size()
        Kept.now += self.size
        Kept.peak = max(Kept.peak, Kept.now)

    def __del__(self):
        Kept.now -= self.size


def test_chunks_hold_less_for_the_gradient(squeeze):
    target, recon = torch.rand(2, 8, 1, 32, 32)
    peaks = {}
    for chunk in (0, 1):
        squeeze.chunk, Kept.now, Kept.peak = chunk, 0, 0
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.x):
            squeeze(target, recon.clone().requires_grad_()).sum().backward()
        peaks[chunk] = Kept.peak
    squeeze.chunk = 0
    assert peaks[1] < peaks[0] / 6


def test_chunks_weigh_samples_as_the_loss_does(squeeze):
    target, start = torch.rand(2, 3, 1, 20, 20)
    weights, slopes = torch.tensor([0.0, 1.0, -2.0]), []
    for chunk in (0, 2):
        squeeze.chunk = chunk
        recon = start.clone().requires_grad_()
        (weights * squeeze(target, recon)).sum().backward()
        slopes.append(recon.grad)
    squeeze.chunk = 0
    assert not bool(slopes[1][0].any())
    assert float((slopes[1] - slopes[0]).norm() / slopes[0].norm()) < 1e-3


@pytest.mark.parametrize(
    ("slices", "expected"),
    [(0.25, [2, 6, 10, 14, 18]), (5, [2, 6, 10, 14, 18]), (0.01, [10]), (1.0, list(range(20))), (99, list(range(20)))],
)
def test_slices_are_spread_evenly(squeeze, slices, expected):
    squeeze.slices = slices
    squeeze.eval()
    try:
        assert squeeze._positions(20) == expected
    finally:
        squeeze.slices = 1.0
        squeeze.train()


@given(size=st.integers(1, 200), slices=st.one_of(st.floats(0.01, 1), st.integers(2, 50)), seed=st.integers(0, 99))
@settings(deadline=None)
def test_slices_while_training_are_distinct_and_inside(squeeze, size, slices, seed):
    squeeze.slices = slices
    try:
        torch.manual_seed(seed)
        chosen = squeeze._positions(size)
        torch.manual_seed(seed)
        assert chosen == squeeze._positions(size)
    finally:
        squeeze.slices = 1.0
    assert len(chosen) == len(set(chosen)) == (max(1, round(slices * size)) if slices <= 1 else min(slices, size))
    assert chosen == sorted(chosen)
    assert chosen[0] >= 0
    assert chosen[-1] < size


def test_every_slice_has_the_same_chance_while_training(squeeze):
    squeeze.slices = 3
    seen = torch.zeros(7)
    for _ in range(3000):
        seen[squeeze._positions(7)] += 1
    squeeze.slices = 1.0
    torch.testing.assert_close(seen / 3000, torch.full((7,), 3 / 7), rtol=0.08, atol=0)


def test_gradients_reach_the_reconstruction_alone(squeeze):
    target = torch.rand(2, 1, 20, 20, requires_grad=True)
    recon = torch.rand(2, 1, 20, 20, requires_grad=True)
    squeeze(target, recon).sum().backward()
    assert target.grad is None
    assert bool(recon.grad.isfinite().all())
    assert bool(recon.grad.any())
    assert all(p.grad is None and not p.requires_grad for p in squeeze.parameters())


@pytest.mark.parametrize("value", [0.0, 1.0, 50.0])
def test_constant_images_have_finite_gradients(squeeze, value):
    recon = torch.full((1, 1, 20, 20), value, requires_grad=True)
    squeeze(torch.rand(1, 1, 20, 20), recon).sum().backward()
    assert bool(recon.grad.isfinite().all())


def test_descending_the_distance_brings_images_closer(squeeze):
    target, recon = torch.rand(1, 1, 24, 24), torch.rand(1, 1, 24, 24).requires_grad_()
    optimizer = torch.optim.Adam([recon], lr=0.02)
    before = float(squeeze(target, recon).detach())
    for _ in range(30):
        optimizer.zero_grad()
        squeeze(target, recon).sum().backward()
        optimizer.step()
    assert float(squeeze(target, recon).detach()) < before / 2


def test_inside_autocast_the_distance_is_float32(squeeze):
    x, y = torch.rand(2, 2, 1, 24, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced, none = squeeze(x, y), squeeze(x, x.clone())
    assert reduced.dtype == torch.float32
    assert not bool(none.any())
    torch.testing.assert_close(reduced, squeeze(x, y), rtol=0.05, atol=0)


def test_training_mode_does_not_reach_the_network():
    network, _ = encoder_loss((1, 24, 24))
    network.encoder.insert(1, torch.nn.Dropout(0.5))
    loss = build_perceptual("encoder", network=network).train()
    x, y = torch.randn(2, 2, 1, 24, 24)
    assert torch.equal(loss(x, y), loss(x, y))


def test_the_metric_takes_no_gradient_and_leaves_the_mode(squeeze):
    x, y = torch.rand(2, 2, 1, 24, 24, requires_grad=True)
    squeeze.train()
    found = lpips(x, y, squeeze)
    assert squeeze.training
    assert not found.requires_grad
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), squeeze(x, y).detach())
    assert not bool(lpips(x, x, squeeze).any())


def test_the_metric_needs_linear_weights(files):
    plain = build_perceptual("features", weights=files / "squeezenet.safetensors")
    with pytest.raises(UsageError, match="needs its linear weights"):
        lpips(torch.rand(1, 1, 20, 20), torch.rand(1, 1, 20, 20), plain)


def test_classifiers_and_half_precision_are_no_hindrance(tmp_path, squeeze):
    path = tmp_path / "vgg.safetensors"
    state = {key: value.half() for key, value in random_state("vgg16").items()}
    save_file({**state, "classifier.0.weight": torch.zeros(2, 2)}, path)
    network = build_perceptual("features", weights=path)
    assert network.features.name == "vgg16"
    x, y = torch.rand(2, 1, 1, 16, 16)
    assert float(network(x, y)) > 0
    assert next(network.parameters()).dtype == torch.float32


def test_a_whole_lpips_checkpoint_serves_as_both(tmp_path, squeeze):
    lines = random_lines("squeezenet")
    cuts = [0, 2, 5, 8, 10, 11, 12, 13]
    whole = {f"lins.{key[3:]}": value.clone() for key, value in lines.items()} | lines
    whole["scaling_layer.shift"] = torch.zeros(1, 3, 1, 1)
    for key, value in random_state("squeezenet").items():
        layer = int(key.split(".")[1])
        part = next(i for i in range(1, 8) if layer < cuts[i])
        whole[f"net.slice{part}.{key.removeprefix('features.')}"] = value
    save_file(whole, tmp_path / "lpips.safetensors")
    path = tmp_path / "lpips.safetensors"
    x, y = torch.rand(2, 1, 3, 20, 20)
    assert torch.equal(build_perceptual("lpips", weights=path, linear=path)(x, y), squeeze(x, y))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.12.expand3x3.bias"), r"1 missing \(12.expand3x3.bias"),
        (lambda s: s.update({"features.30.weight": torch.zeros(3)}), r"1 unexpected \(30.weight"),
        (lambda s: s.update({"layer1.0.weight": torch.zeros(3)}), r"1 unexpected \(layer1.0.weight"),
        (lambda s: s.update({"features.0.bias": torch.zeros(3)}), r"1 of another shape \(0.bias \(3,\) instead of"),
        (lambda s: s["features.0.bias"].fill_(torch.nan), "not finite in '0.bias'"),
    ],
    ids=["missing", "unexpected", "stranger", "shape", "nan"],
)
def test_other_networks_are_refused(tmp_path, change, message):
    state = random_state("squeezenet")
    change(state)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=message):
        build_perceptual("features", weights=tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("lin6.model.1.weight"), "for squeezenet: 1 missing"),
        (lambda s: s.update({"lin7.model.1.weight": torch.zeros(3)}), "1 unexpected"),
        (lambda s: s.update({"lin3.model.1.weight": torch.zeros(1, 512, 1, 1)}), "1 of another shape"),
        (lambda s: s["lin2.model.1.weight"].neg_(), "negative linear weights"),
        (lambda s: s["lin2.model.1.weight"].fill_(torch.inf), "not finite"),
    ],
    ids=["missing", "unexpected", "shape", "negative", "inf"],
)
def test_other_linear_weights_are_refused(files, tmp_path, change, message):
    state = random_lines("squeezenet")
    change(state)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=message):
        build_perceptual("lpips", weights=files / "squeezenet.safetensors", linear=tmp_path / "a.safetensors")


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(NoInputError, match="is not there"):
        build_perceptual("features", weights=tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(DataError, match="not a whole"):
        build_perceptual("features", weights=tmp_path / "cut.safetensors")


def test_files_of_torch_are_read_and_objects_are_not(files, tmp_path, squeeze):
    torch.save(random_state("squeezenet"), tmp_path / "features.pth")
    torch.save(random_lines("squeezenet"), tmp_path / "lines.pth")
    network = build_perceptual("lpips", weights=tmp_path / "features.pth", linear=tmp_path / "lines.pth")
    for path in tmp_path.iterdir():
        path.write_bytes(b"")  # nothing of the files is needed any more
    x, y = torch.rand(2, 1, 1, 20, 20)
    assert torch.equal(network(x, y), squeeze(x, y))
    torch.save(torch.nn.Conv2d(3, 64, 3), tmp_path / "module.pth")
    with pytest.raises(DataError, match="pickled"):
        build_perceptual("features", weights=tmp_path / "module.pth")


@pytest.mark.parametrize(
    ("kind", "given_", "message"),
    [
        ("lpip", {}, r"no perceptual loss 'lpip'\. Did you mean 'lpips'"),
        ("lpips", {"weights": "w"}, "'lpips' needs linear; it takes weights and linear"),
        ("features", {"weights": "w", "linear": "l"}, "'features' has no use for linear"),
        ("encoder", {}, "'encoder' needs network"),
        ("features", {"weights": "w", "low": 1.0}, "high must be above low"),
        ("features", {"weights": "w", "slices": 0.0}, "slices is 0"),
        ("features", {"weights": "w", "slices": 2.5}, "slices is 2.5"),
        ("features", {"weights": "w", "chunk": -1}, "chunk is -1"),
        ("encoder", {"network": torch.nn.Linear(2, 2)}, "Linear has no encoder in stages"),
    ],
)
def test_arguments_are_refused(kind, given_, message):
    with pytest.raises(UsageError, match=message):
        build_perceptual(kind, **given_)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 2, 20, 20), "2 channels; this network takes 1 or 3"),
        ((2, 1, 16, 20), "sides of 17 or more"),
        ((2, 1, 20), "2 or 3 spatial dims"),
    ],
    ids=["channels", "small", "line"],
)
def test_samples_that_do_not_fit_are_refused(squeeze, shape, message):
    with pytest.raises(UsageError, match=message):
        squeeze(torch.rand(shape), torch.rand(shape))


def test_samples_of_two_sizes_are_refused(squeeze):
    with pytest.raises(UsageError, match="differ in shape"):
        squeeze(torch.rand(1, 1, 20, 20), torch.rand(1, 1, 20, 21))


def test_images_do_not_pass_an_encoder_of_volumes():
    _, loss = encoder_loss((1, 9, 10, 11), "autoencoder-kl")
    with pytest.raises(UsageError, match="with 3 spatial dims"):
        loss(torch.rand(1, 1, 10, 11), torch.rand(1, 1, 10, 11))
