"""What is learned, and how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vaearr.config.base import Config
from vaearr.config.data import SplitConfig
from vaearr.names import DEFAULT_RUN


class PreprocessConfig(Config):
    """What the network sees of a pattern; applied on the device, from the stored dtype, and recorded with the model."""

    static_background: Literal["auto", "none", "subtract", "divide"] = Field(
        "auto", description="mean pattern over the training points; auto: divide for a scan, none for a collection"
    )
    dynamic_background: float = Field(
        0.0,
        ge=0,
        description="standard deviation of the Gaussian low-pass removed from each pattern, as a share of "
        "the pattern's smaller side; 0 = off",
    )
    normalise: Literal["auto", "none", "zscore", "robust", "minmax", "quantile", "unit", "symmetric"] = Field(
        "auto",
        description="per pattern: zscore, robust, minmax, quantile (least value 0, 99.5 % quantile 1); the same for "
        "all: unit, symmetric (`range` becomes 0 to 1, -1 to 1); auto: zscore for a scan, symmetric for a collection "
        "of 8-bit samples whose background stays, quantile for another",
    )
    range: tuple[float, float] | None = Field(
        None,
        description="of unit and symmetric, in stored units; default: all values of an 8-bit type, else from the least "
        "to the largest value of the data",
    )

    @model_validator(mode="after")
    def _fixed_range(self) -> Self:
        fixed = self.normalise in ("unit", "symmetric")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range {self.range} is empty: give low < high")
        if self.range is not None and not fixed and self.normalise != "auto":
            raise ValueError(f"a range goes with normalise unit or symmetric, not with {self.normalise}")
        if fixed and (self.static_background not in ("auto", "none") or self.dynamic_background > 0):
            raise ValueError(f"normalise {self.normalise} is for stored values: set both backgrounds to none")
        return self


class ModelConfig(Config):
    """Which network; `options` are the keyword arguments of the registered model."""

    name: str = "conv"
    latent_dim: int = Field(32, ge=1, le=4096)
    options: dict[str, Any] = Field(default_factory=dict)


class PerceptualConfig(Config):
    """A distance in the features of a frozen network, beside the reconstruction; see `vaearr.perceptual`."""

    kind: Literal["lpips", "features", "encoder"] = Field(
        "encoder",
        description="lpips: feature network and linear weights; features: feature network; encoder: of a trained run",
    )
    weight: float = Field(
        0.3, ge=0, description="beside the mean reconstruction_nll of a value; the loss holds it times the values"
    )
    weights: Path | None = Field(None, description="file of the feature network: alexnet, vgg16 or squeezenet1_1")
    linear: Path | None = Field(None, description="file of the LPIPS weights for that network")
    run: str | None = Field(None, description="encoder: run of the same store, or a model folder")
    slices: float = Field(
        0.25, gt=0, description="volumes in a 2-D network: share of the slices along each axis, or above 1 their number"
    )
    chunk: int = Field(0, ge=0, description="images at a time, which saves memory and costs time; 0 = all")


class AdversarialConfig(Config):
    """A discriminator that learns beside the VAE to tell decoded samples from data; see `vaearr.adversarial`."""

    discriminator: str = Field("patch", description="registered discriminator: patch, multiscale, conv")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the discriminator")
    kind: Literal["hinge", "bce", "lsgan", "wgan-gp"] = "hinge"
    weight: float = Field(
        0.1, ge=0, description="beside the mean reconstruction_nll of a value; the loss holds it times the values"
    )
    start: float = Field(0.25, ge=0, lt=1, description="share of all updates before the discriminator begins")
    rise: float = Field(0.1, ge=0, le=1, description="share of all updates over which the weight then rises from 0")
    learning_rate: float | None = Field(None, gt=0, description="highest, of the discriminator; default: the VAE's")


class ObjectiveConfig(Config):
    """The loss, in nats per sample: loss = reconstruction_nll + beta * kl, with further terms where they are set."""

    likelihood: Literal["optimal_sigma", "gaussian", "laplace", "bernoulli"] = Field(
        "optimal_sigma",
        description="optimal_sigma: Gaussian with one analytic variance; gaussian: variance 1; laplace: scale 1, the "
        "absolute error; bernoulli: patterns between 0 and 1",
    )
    beta: float = Field(1.0, ge=0, description="weight of the KL divergence")
    warmup: float = Field(
        0.2, ge=0, le=1, description="share of all steps over which beta (with `capacity`: the capacity) rises from 0"
    )
    free_bits: float = Field(0.0, ge=0, description="nats per latent dimension that the KL term does not punish")
    capacity: float | None = Field(
        None, ge=0, description="nats per sample that the KL divergence is held at, instead of being kept small"
    )
    input_noise: float | None = Field(
        None,
        ge=0,
        description="standard deviation of noise added to the network's input in training, preprocessed units; "
        "default: 1 for a scan, 0 for a collection",
    )
    target: Literal["auto", "self", "neighbour"] = Field(
        "auto",
        description="pattern to predict: the input's own, or one that a walk through similar grid neighbours ends at; "
        "auto: neighbour for a scan, self for a collection",
    )
    walk: int = Field(4, ge=1, description="steps of that walk; more even out changes inside a grain")
    label: str | None = Field(
        None, description="map of class numbers, such as phase, that a linear head learns to tell from the latents"
    )
    label_weight: float = Field(1.0, ge=0, description="weight of that head's cross entropy, in nats per sample")
    perceptual: PerceptualConfig | None = Field(None, description="distance in the features of a frozen network")
    adversarial: AdversarialConfig | None = Field(None, description="a discriminator that learns beside the VAE")

    @model_validator(mode="after")
    def _one_rule_for_the_kl(self) -> Self:
        if self.capacity is not None and self.free_bits > 0:
            raise ValueError("capacity and free_bits both say how many nats are free: set one of them")
        return self


class AugmentConfig(Config):
    """Random changes of the training patterns, on the device, never of the validation patterns."""

    flip_x: bool = Field(False, description="mirror left and right, every second pattern")
    flip_y: bool = Field(False, description="mirror top and bottom, every second pattern")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation to either side, degrees")
    shift: float = Field(0.0, ge=0, lt=1, description="largest shift along each axis, as a share of the pattern's side")
    scale: float = Field(0.0, ge=0, le=1, description="largest change of size: factor 1 / (1 + scale) to 1 + scale")
    fill: Literal["mean", "edge"] = Field(
        "mean", description="what comes in from outside: the pattern's mean, or its nearest pixel"
    )
    noise: float = Field(0.0, ge=0, description="standard deviation of noise on the input, on top of input_noise")
    crop: tuple[int, ...] | None = Field(
        None,
        description="pixels per spatial dim: networks with spatial latents learn from windows of this size, one place "
        "per batch, instead of whole samples",
    )
    circle: bool = Field(False, description="noise inside the detector circle only (the largest that fits)")


class TrainConfig(Config):
    """Everything that decides a training."""

    model: ModelConfig = ModelConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    split: SplitConfig = SplitConfig()
    augment: AugmentConfig = AugmentConfig()
    balance: str | None = Field(
        None, description="map of class numbers that batches are balanced by; rare classes then come more than once"
    )
    init: str | None = Field(
        None,
        description="what training starts from (fine-tuning): a run of the same store, or the path of a model "
        "folder or checkpoint file",
    )
    epochs: int = Field(40, ge=1)
    batch_size: int = Field(128, ge=1, description="patterns per step, in each process")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are averaged before each update")
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0, description="the highest; the schedule starts and ends lower")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="of the learning rate, after its rise")
    schedule_per: Literal["step", "epoch"] = Field("step", description="when the learning rate changes")
    restarts: int = Field(0, ge=0, description="how often the cosine starts again at the highest rate")
    rise: float = Field(0.15, ge=0, le=1, description="share of the training over which the learning rate rises")
    rate_end: float = Field(1e-3, ge=0, le=1, description="lowest learning rate, as a share of the highest")
    weight_decay: float = Field(1e-2, ge=0)
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.0, ge=0, lt=1, description="decay per update of averaged weights, used instead; 0 = off")
    patience: int = Field(15, ge=1, description="epochs without a better validation loss before training stops")
    min_delta: float = Field(0.0, ge=0, description="nats per sample by which a validation loss must be better")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where it is fast")
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = Field(
        "off", description="torch.compile mode of the step; reduce-overhead uses CUDA graphs"
    )
    deterministic: bool = Field(False, description="refuse operations whose result differs from run to run")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps …")
    memory: float = Field(2.0, gt=0, description="GiB that patterns may take in memory; more is streamed")
    device_memory: float = Field(8.0, ge=0, description="GiB that patterns may take on the GPU, if there is room")
    checkpoint_minutes: float = Field(1.0, gt=0, description="most work that a kill can cost")
    checkpoint_every: int = Field(0, ge=0, description="keep a checkpoint of every N-th epoch; 0 = the last one only")
    sheets_every: int = Field(0, ge=0, description="keep decoded samples of every N-th epoch; 0 = none")
    log: tuple[str, ...] = Field((), description="loggers beside the stored history: tensorboard")
    seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _as_stored_before(cls, values: Any) -> Any:
        """Runs of earlier versions say how many lanes an update had: one."""
        if isinstance(values, Mapping) and values.get("lanes", 0) in (None, 1):
            return {key: value for key, value in values.items() if key != "lanes"}
        return values


class EncodeConfig(Config):
    """How latents are written."""

    run: str = DEFAULT_RUN
    batch_size: int = Field(1024, ge=1)
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    mask: str | None = Field(
        None, description="boolean variable over pixels; a spatial latent is NaN where its pixels hold no true one"
    )
    window: tuple[int, ...] | None = Field(
        None, description="pixels per spatial dim: spatial latents of samples that memory does not hold, piece by piece"
    )
    overlap: float = Field(0.25, ge=0, lt=1, description="share of a window that neighbouring windows have in common")
