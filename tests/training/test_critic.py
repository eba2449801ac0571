"""A discriminator and a frozen network beside the VAE: both change what is learned, and neither is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaearr as va
from vaearr import names as n
from vaearr.artifacts import TrainedModel
from vaearr.config import AdversarialConfig, AugmentConfig, ObjectiveConfig, PreprocessConfig, TrainConfig
from vaearr.errors import NoInputError, UsageError
from vaearr.models.files import read_tensors
from vaearr.store import create_store, open_table, run_folder
from vaearr.training.critic import Critic
from vaearr.training.processes import Processes
from vaearr.training.step import Step, final_weights

from ..conftest import TINY_TRAINING
from ..data import random_patterns_dataset

SMALL = {"discriminator": "conv", "options": {"channels": 8, "layers": 2}}
CPU = torch.device("cpu")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    ds = random_patterns_dataset({"sample": 40}, {"y": 12, "x": 13})
    return create_store(ds, tmp_path / "images.zarr")


def _config(**objective: Any) -> TrainConfig:
    return TINY_TRAINING.replace(
        objective={"target": "self", "input_noise": 0.0, **objective},
        preprocess={"normalise": "symmetric"},
        split={"method": "random", "fraction": 0.2},
        epochs=4,
    )


def _weights(store: Path, run: str) -> dict[str, torch.Tensor]:
    return read_tensors(run_folder(store, run) / n.MODEL / "last.safetensors")[0]


def _differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys(), "nothing but the VAE is published"
    return any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("kind", ["hinge", "bce", "lsgan", "wgan-gp"])
def test_a_discriminator_learns_and_changes_what_is_learned(images: Path, kind: str) -> None:
    plain = va.train(images, run="plain", config=_config())
    judged = va.train(
        images, run="judged", config=_config(adversarial={**SMALL, "kind": kind, "start": 0.5, "rise": 0})
    )
    terms = judged.history[["adversarial", "critic"]]
    assert bool(terms.isel(epoch=slice(2)).isnull().to_dataarray().all()), "before the discriminator begins"
    assert bool(terms.isel(epoch=slice(2, None)).notnull().to_dataarray().all())
    assert len(set(terms.critic.values[2:].tolist())) == 2, "its loss moves"
    np.testing.assert_array_equal(judged.history.loss[:2], plain.history.loss[:2])
    assert _differ(_weights(images, "plain"), _weights(images, "judged"))
    assert "val_adversarial" not in judged.history


def test_a_weight_of_zero_changes_nothing(images: Path) -> None:
    va.train(images, run="plain", config=_config())
    va.train(images, run="judged", config=_config(adversarial={**SMALL, "weight": 0.0, "start": 0.0}))
    assert not _differ(_weights(images, "plain"), _weights(images, "judged"))


def test_the_encoder_of_another_run_judges_reconstructions(images: Path) -> None:
    va.train(images, run="plain", config=_config())
    judged = va.train(
        images, run="judged", config=_config(perceptual={"kind": "encoder", "run": "plain", "weight": 5.0})
    )
    assert bool(np.isfinite(judged.history[["perceptual", "val_perceptual"]].to_dataarray()).all())
    assert _differ(_weights(images, "plain"), _weights(images, "judged"))
    free = va.train(images, run="free", config=_config(perceptual={"kind": "encoder", "run": "plain", "weight": 0.0}))
    assert float(judged.history.val_perceptual[-1]) < float(free.history.val_perceptual[-1]), "the term is minimised"


SPATIAL = {"name": "autoencoder-kl", "latent_dim": 2, "options": {"channels": [4, 8], "groups": 2}}


def test_windows_are_scaled_up_to_whole_samples(images: Path) -> None:
    config = _config().replace(model=SPATIAL, learning_rate=1e-9)
    whole = va.train(images, run="whole", config=config).history.isel(epoch=-1)
    cut = va.train(images, run="cut", config=config.replace(augment={"crop": (8, 8)})).history.isel(epoch=-1)
    assert float(cut.reconstruction_nll) == pytest.approx(float(whole.reconstruction_nll), rel=0.1)
    assert float(cut.kl) == pytest.approx(float(whole.kl), rel=0.3)
    assert float(cut.val_loss) == pytest.approx(float(whole.val_loss), rel=1e-6), "validation sees whole samples"


def test_windows_go_with_a_discriminator_of_their_size(images: Path) -> None:
    config = _config(adversarial={**SMALL, "start": 0.0}).replace(model=SPATIAL, augment={"crop": (8, 40)})
    assert np.isfinite(va.train(images, config=config).history.critic).all()


@pytest.mark.parametrize(
    ("model", "crop", "match"),
    [
        ({"name": "conv"}, (8, 8), "'conv' takes whole samples"),
        (SPATIAL, (8, 7), r"give 2 multiples of 2"),
        (SPATIAL, (8, 8, 8), r"give 2 multiples of 2"),
    ],
    ids=["conv", "odd", "volume"],
)
def test_windows_that_do_not_fit_are_refused(images: Path, model: dict[str, Any], crop: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        va.train(
            images, config=_config().replace(model={**TINY_TRAINING.model.to_attrs(), **model}, augment={"crop": crop})
        )


def test_what_does_not_fit_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs a trained run: set objective\.perceptual\.run"):
        va.train(images, config=_config(perceptual={"kind": "encoder"}))
    with pytest.raises(NoInputError, match="nowhere"):
        va.train(images, config=_config(perceptual={"kind": "encoder", "run": "nowhere"}))
    other = create_store(random_patterns_dataset({"sample": 30}, {"channel": 3, "y": 9, "x": 9}), tmp_path / "c.zarr")
    va.train(other, config=_config())
    folder = str(run_folder(other, n.DEFAULT_RUN) / n.MODEL)
    with pytest.raises(UsageError, match=r"knows samples \(3, 9, 9\), these are \(1, 12, 13\)"):
        va.train(images, config=_config(perceptual={"kind": "encoder", "run": folder}))
    with pytest.raises(UsageError, match="discriminator"):
        va.train(images, config=_config(adversarial={"discriminator": "patchy"}))
    config = AdversarialConfig(kind="wgan-gp")
    with pytest.raises(UsageError, match="wgan-gp runs in one process"):
        Critic(config, TrainConfig(), (1, 12, 13), CPU, torch.float32, Processes(rank=0, size=2))
    assert not [folder for folder in (images / n.RUNS).iterdir() if folder.is_dir()]
    with pytest.raises(UsageError, match=r"perceptual\.run is for kind 'encoder', not for 'features'"):
        va.train(images, config=_config(perceptual={"kind": "features", "run": "plain"}))


class Looked(torch.nn.Module):
    """Remembers in which mode it was and what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []
        self.shown: list[torch.Tensor] = []

    def forward(self, target: torch.Tensor, recon: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        self.shown += [target, recon]
        return (target - recon).square().flatten(1).mean(1)


def test_the_perceptual_term_trains_again_after_validation(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = Looked()
    monkeypatch.setattr("vaearr.training.job._make_perceptual", lambda *_: looked)
    va.train(images, run="plain", config=_config(perceptual={"kind": "features", "weights": "given"}).replace(epochs=2))
    one = [True] * 2 + [False]  # two batches of 16, one of 8 for validation
    assert looked.modes == one * 2


def test_other_networks_see_probabilities_and_no_logits() -> None:
    model = TrainedModel(
        model=TINY_TRAINING.model.replace(options={**TINY_TRAINING.model.options, "head": "sigmoid"}),
        preprocess=PreprocessConfig(static_background="none", normalise="unit", range=(0, 255)),
        input_shape=(1, 12, 13),
        signal_dims=("y", "x"),
        dtype="uint8",
    )
    looked = Looked()
    objective = ObjectiveConfig(
        likelihood="bernoulli", target="self", input_noise=0.0, perceptual={"kind": "features", "weight": 1.0}
    )
    step = Step(model, objective, AugmentConfig(), torch.float32, perceptual=looked).eval()
    patterns = torch.randint(0, 256, (4, 1, 12, 13), dtype=torch.uint8)
    with torch.inference_mode():
        _, wanted, recon = step(patterns, None, None, final_weights(objective, CPU))
    torch.testing.assert_close(recon, model.decode_batch(model.encode_batch(patterns)[0]))
    assert torch.equal(looked.shown[0], wanted)
    assert torch.equal(looked.shown[1], recon)


def test_the_best_epoch_is_one_with_the_whole_discriminator(images: Path) -> None:
    judged = {**SMALL, "start": 0.5, "rise": 0.0}
    config = _config(adversarial=judged).replace(learning_rate=1e-9, patience=1, min_delta=1e3)
    run = va.train(images, config=config)
    assert run.manifest["best_epoch"] == 3, "the first two cannot be, and no other is better by min_delta"
    assert run.manifest["epochs_run"] == 4 == 3 + config.patience, "patience begins with the discriminator"


def test_whole_samples_are_validated_in_pieces_that_fit(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(likelihood="laplace").replace(model=SPATIAL, augment={"crop": (8, 8)}, epochs=1, sheets_every=1)
    whole = va.train(images, run="whole", config=config)
    monkeypatch.setattr("vaearr.artifacts.VALUES_AT_ONCE", 3 * 12 * 13)
    pieces = va.train(images, run="pieces", config=config)
    assert float(pieces.history.val_loss[0]) == pytest.approx(float(whole.history.val_loss[0]), rel=1e-6)
    assert pieces.health.attrs["kl_total"] == pytest.approx(whole.health.attrs["kl_total"], rel=1e-5)
    one, other = (open_table(images, run, n.SHEETS) for run in ("whole", "pieces"))
    np.testing.assert_allclose(one.reconstruction, other.reconstruction, atol=1e-5)
