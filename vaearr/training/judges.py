"""The frozen network that the perceptual term of a training looks with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vaearr.artifacts import TrainedModel, load_folder
from vaearr.config import PerceptualConfig
from vaearr.errors import UsageError
from vaearr.models.perceptual import PerceptualLoss, build_perceptual
from vaearr.training.checkpoint import differences

# range of preprocessed values, which image networks take as -1 to 1; of the others, most lie within three deviations
RANGES = {"unit": (0.0, 1.0), "minmax": (0.0, 1.0), "quantile": (0.0, 1.0), "symmetric": (-1.0, 1.0)}
DEVIATIONS = (-3.0, 3.0)


def make_perceptual(
    model: TrainedModel, config: PerceptualConfig | None, folder: Path | None, say: Callable[[str], None]
) -> PerceptualLoss | None:
    """The module that the settings ask for, on the model's device; None where they ask for none.

    folder: of the trained model whose encoder is meant. Raises UsageError for one of other samples, and what
    `build_perceptual` raises.
    """
    if config is None:
        return None
    network = None
    if folder is not None:
        other = load_folder(folder)
        if other.input_shape[0] != model.input_shape[0] or len(other.input_shape) != len(model.input_shape):
            raise UsageError(
                f"objective.perceptual: the model in {folder} knows samples {other.input_shape}, these are "
                f"{model.input_shape}; name a run on samples of this kind."
            )
        if found := differences(other.preprocess_config.to_attrs(), model.preprocess_config.to_attrs()):
            say(f"the encoder of the perceptual term was trained with another preprocessing: {found}")
        network = other.network
    low, high = RANGES.get(model.preprocess_config.normalise, DEVIATIONS)
    built = build_perceptual(
        config.kind,
        weights=config.weights,
        linear=config.linear,
        network=network,
        low=low,
        high=high,
        slices=config.slices,
        chunk=config.chunk,
    )
    return built.to(model.device)
