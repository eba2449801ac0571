"""Settings of training: what the network gets, which network, the loss, the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from vaearr.config.base import DEVICE, Config, Interval, field
from vaearr.config.data import SplitConfig


class PreprocessConfig(Config):
    """How a pattern is preprocessed, on the device, from the stored dtype.

    The settings are recorded with the model.
    """

    without_effect: ClassVar = {"dynamic_background": 0.0}

    bin: PositiveInt | Literal["auto"] = field(
        "auto",
        "side of the blocks of detector pixels that are averaged; auto: for a scan, the largest "
        "that leaves 60 pixels along the shorter side",
    )
    static_background: Literal["auto", "none", "subtract", "divide"] = field(
        "auto", "mean training pattern; auto: divide for a scan, none for a collection"
    )
    normalise: Literal[
        "auto", "none", "zscore", "robust", "minmax", "quantile", "unit", "symmetric"
    ] = field(
        "auto",
        "each pattern: zscore, robust, minmax, quantile (0 to the 99.5 % quantile); all together: "
        "unit (0 to 1), symmetric (-1 to 1); auto: zscore for a scan, symmetric for a collection "
        "of 8-bit samples, else quantile",
    )
    range: Interval | None = field(
        None,
        "stored values that unit and symmetric map to their ends; default: those of an 8-bit type, "
        "else of the data",
    )

    def deciding(self) -> dict[str, Any]:
        """`bin` is left out where it has no effect: recipes of earlier versions lack it."""
        values = super().deciding()
        if self.bin in (1, "auto"):
            del values["bin"]
        return values

    @model_validator(mode="after")
    def _fits_range(self) -> Self:
        is_fixed = self.normalise in ("unit", "symmetric")
        if self.range is not None and not is_fixed and self.normalise != "auto":
            raise ValueError(
                f"a range goes with normalise unit or symmetric, not with {self.normalise}"
            )
        if is_fixed and self.static_background in ("subtract", "divide"):
            raise ValueError(
                f"normalise {self.normalise} is for stored values: set static_background to none"
            )
        return self


class ModelConfig(Config):
    """Which network; `options` are the keyword arguments of the registered model."""

    name: str = field("conv", "conv, conv_ae, pca, nmf, autoencoder-kl, or a registered one")
    latent_dim: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = field(
        32,
        "number of latent dimensions; auto: of pca, those before the knee of the explained "
        "variance",
    )
    options: dict[str, Any] = field({}, "keyword arguments of the model")


class PerceptualConfig(Config):
    """A distance in the features of a frozen network, added to the reconstruction loss.

    See `vaearr.models.perceptual`.
    """

    kind: Literal["lpips", "features", "encoder"] = field(
        "encoder", "lpips: network and linear weights; features: network; encoder: of a trained run"
    )
    weight: float = field(0.3, "relative to the mean reconstruction_nll of a value", ge=0)
    weights: Path | None = field(None, "file of the feature network: alexnet or vgg16")
    linear: Path | None = field(None, "file of the LPIPS weights for that network")
    run: str | None = field(None, "encoder: run of the same store, or a model folder")
    slices: float = field(
        0.25, "volumes in a 2-D network: share of slices along each axis", gt=0, le=1
    )
    chunk: int = field(0, "images at a time, which saves memory and costs time; 0 = all", ge=0)


class AdversarialConfig(Config):
    """A discriminator that learns to distinguish decoded samples from data.

    See `vaearr.models.losses`.
    """

    discriminator: str = field("patch", "registered discriminator: patch, multiscale, conv")
    options: dict[str, Any] = field({}, "keyword arguments of the discriminator")
    kind: Literal["hinge", "bce", "lsgan", "wgan-gp"] = field("hinge", "loss of both networks")
    weight: float = field(0.1, "relative to the mean reconstruction_nll of a value", ge=0)
    start: float = field(0.25, "share of all updates before the discriminator starts", ge=0, lt=1)
    rise: float = field(0.1, "share of all updates over which the weight then rises", ge=0, le=1)
    learning_rate: float | None = field(None, "highest rate; default: that of the VAE", gt=0)


class ObjectiveConfig(Config):
    """The loss in nats per sample: reconstruction_nll + beta * kl, with optional further terms."""

    without_effect: ClassVar = {"capacity": None}

    likelihood: str = field(
        "optimal_sigma",
        "optimal_sigma: Gaussian with fitted variance; gaussian: of variance 1; laplace: absolute "
        "error; bernoulli: values from 0 to 1",
    )
    beta: float = field(1.0, "weight of the KL divergence", ge=0)
    warmup: float = field(0.2, "share of all steps over which beta rises from 0", ge=0, le=1)
    free_bits: float = field(
        0.0, "nats per latent dimension that the KL term does not penalise", ge=0
    )
    input_noise: float | None = field(
        None,
        "standard deviation of noise on the input, preprocessed units; default: 1 for a scan, 0 "
        "for a collection",
        ge=0,
    )
    target: Literal["auto", "self", "unmoved", "neighbour"] = field(
        "auto",
        "predict the pattern itself, the pattern before `augment` moved it, or the pattern at the "
        "end of a random walk over similar neighbours; auto: neighbour for a scan, else self",
    )
    walk: int = field(2, "steps of that walk; more of them average out changes in a grain", ge=1)
    label: str | None = field(
        None, "map of classes, such as phase, that a linear head predicts from the latents"
    )
    label_weight: float = field(
        1.0, "weight of the cross entropy of that head, in nats per sample", ge=0
    )
    perceptual: PerceptualConfig | None = field(
        None, "distance in the features of a frozen network"
    )
    adversarial: AdversarialConfig | None = field(None, "a discriminator trained with the VAE")


class AugmentConfig(Config):
    """Random changes of the training patterns, on the device, never of the validation patterns."""

    without_effect: ClassVar = {"crop": None}

    flip_x: bool = field(False, "mirror left and right, every second pattern")
    flip_y: bool = field(False, "mirror top and bottom, every second pattern")
    rotate: float = field(0.0, "largest rotation to either side, degrees", ge=0, le=180)
    shift: float = field(
        0.0, "largest shift along each axis, as a share of the pattern's side", ge=0, lt=1
    )
    scale: float = field(
        0.0, "largest change of size: factor 1 / (1 + scale) to 1 + scale", ge=0, le=1
    )
    fill: Literal["mean", "edge"] = field(
        "mean", "values beyond the border: the mean, or the nearest pixel"
    )
    noise: float = field(
        0.0, "standard deviation of noise on the input, in addition to input_noise", ge=0
    )
    circle: bool = field(False, "noise inside the detector circle only (the largest that fits)")


class TrainConfig(Config):
    """Everything that decides a training."""

    not_deciding: ClassVar = (
        "device",
        "device_memory",
        "checkpoint_minutes",
        "checkpoint_every",
        "sheets_every",
        "log",
    )
    without_effect: ClassVar = {
        "lanes": 1,
        "accumulate": 1,
        "schedule": "cosine",
        "ema": 0.0,
        "compile": "off",
    }
    shortcuts: ClassVar = {
        "model": "model.name",
        "latent_dim": "model.latent_dim",
        "beta": "objective.beta",
    }

    model: ModelConfig = field(ModelConfig, "which network")
    preprocess: PreprocessConfig = field(PreprocessConfig, "how patterns are preprocessed")
    objective: ObjectiveConfig = field(ObjectiveConfig, "the loss")
    split: SplitConfig = field(SplitConfig, "which scan points are used for validation")
    augment: AugmentConfig = field(AugmentConfig, "random changes of the training patterns")
    balance: str | None = field(
        None, "map of classes that batches are balanced by; rare classes are repeated"
    )
    init: str | None = field(
        None,
        "start (fine-tuning): a run of the same store, or path of a model folder or checkpoint "
        "file",
    )
    epochs: int = field(40, "largest number of epochs", ge=1)
    epoch_samples: int | None = field(
        None,
        "largest number of samples in an epoch, 0 = all; default: all of a collection, half of a "
        "scan but 1408 to 8192",
        ge=0,
    )
    batch_size: int = field(128, "patterns per step, in each process", ge=1)
    optimizer: Literal["adamw", "adam", "sgd"] = field("adamw", "optimizer")
    learning_rate: float = field(
        2e-3, "highest learning rate; the schedule starts and ends lower", gt=0
    )
    schedule_per: Literal["step", "epoch"] = field("step", "when the learning rate changes")
    restarts: int = field(
        0, "number of times that the cosine schedule restarts at the highest rate", ge=0
    )
    rise: float = field(
        0.15, "share of the training over which the learning rate rises", ge=0, le=1
    )
    rate_end: float = field(
        1e-3, "lowest learning rate, as a share of the highest; 1 = constant", ge=0, le=1
    )
    weight_decay: float = field(1e-2, "weight decay in each update", ge=0)
    clip: float = field(1.0, "largest norm of the gradient", gt=0)
    patience: int = field(15, "epochs without a better validation loss before training stops", ge=1)
    min_delta: float = field(0.0, "nats per sample by which it must improve", ge=0)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = field(
        "auto", "number format; auto: bfloat16 if it is fast; float16 scales the gradients"
    )
    deterministic: bool = field(False, "refuse operations whose result differs from run to run")
    device: str = field("auto", DEVICE)
    memory: float = field(2.0, "GiB that patterns may take in memory; more is streamed", gt=0)
    device_memory: float = field(8.0, "GiB that patterns may take on the GPU", ge=0)
    checkpoint_minutes: float = field(
        1.0, "time between checkpoints: the most work that an interruption costs", gt=0
    )
    checkpoint_every: int = field(
        0, "keep the checkpoint of every N-th epoch; 0 = the last only", ge=0
    )
    sheets_every: int = field(0, "keep decoded samples of every N-th epoch; 0 = none", ge=0)
    log: tuple[Literal["tensorboard"], ...] = field(
        (), "loggers in addition to the stored history: tensorboard"
    )
    seed: int = field(0, "random seed of split, weights and order", ge=0)


class ImportConfig(Config):
    """How a checkpoint is read."""

    without_effect: ClassVar = {"model": "autoencoder-kl", "layout": "auto"}
    not_deciding: ClassVar = ("device",)

    prefix: str | None = field(
        None, "prefix of the names of the weights; default: the only one that fits"
    )
    latent_dim: int | None = field(
        None, "number of latent dimensions; default: from the checkpoint"
    )
    options: dict[str, Any] | None = field(None, "keyword arguments of the model, such as `groups`")
    preprocess: PreprocessConfig = field(
        PreprocessConfig, "how patterns were preprocessed; default: as for a training"
    )
    device: str = field("auto", f"for the health of the latents: {DEVICE}")
    seed: int = field(0, "random seed of the samples that the health is measured on")
