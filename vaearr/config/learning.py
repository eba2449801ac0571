"""What is learned, and how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vaearr.config.base import DEVICE, RUN, Config
from vaearr.config.data import RoiConfig, SplitConfig
from vaearr.names import DEFAULT_RUN, RECONSTRUCTION

AUTOENCODER = "autoencoder-kl"


class PreprocessConfig(Config):
    """What the network sees of a pattern; applied on the device, from the stored dtype, and recorded with the model."""

    static_background: Literal["auto", "none", "subtract", "divide"] = Field(
        default="auto",
        description="mean pattern over the training points; auto: divide for a scan, none for a collection",
    )
    dynamic_background: float = Field(
        default=0.0,
        ge=0,
        description="standard deviation of the Gaussian low-pass removed from each pattern, as a share of "
        "the pattern's smaller side; 0 = off",
    )
    normalise: Literal["auto", "none", "zscore", "robust", "minmax", "quantile", "unit", "symmetric"] = Field(
        default="auto",
        description="per pattern: zscore, robust, minmax, quantile (least value 0, 99.5 % quantile 1); the same for "
        "all: unit, symmetric (`range` becomes 0 to 1, -1 to 1); auto: zscore for a scan, symmetric for a collection "
        "of 8-bit samples whose background stays, quantile for another",
    )
    range: tuple[float, float] | None = Field(
        default=None,
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

    name: str = Field(default="conv", description="registered model")
    latent_dim: int = Field(default=32, ge=1, le=4096, description="latent dimensions")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the model")


class PerceptualConfig(Config):
    """A distance in the features of a frozen network, beside the reconstruction; see `vaearr.models.perceptual`."""

    kind: Literal["lpips", "features", "encoder"] = Field(
        default="encoder",
        description="lpips: feature network and linear weights; features: feature network; encoder: of a trained run",
    )
    weight: float = Field(
        default=0.3,
        ge=0,
        description="beside the mean reconstruction_nll of a value; the loss holds it times the values",
    )
    weights: Path | None = Field(
        default=None, description="file of the feature network: alexnet, vgg16 or squeezenet1_1"
    )
    linear: Path | None = Field(default=None, description="file of the LPIPS weights for that network")
    run: str | None = Field(default=None, description="encoder: run of the same store, or a model folder")
    slices: float = Field(
        default=0.25,
        gt=0,
        description="volumes in a 2-D network: share of the slices along each axis, or above 1 their number",
    )
    chunk: int = Field(default=0, ge=0, description="images at a time, which saves memory and costs time; 0 = all")


class AdversarialConfig(Config):
    """A discriminator that learns beside the VAE to tell decoded samples from data; see `vaearr.models.losses`."""

    discriminator: str = Field(default="patch", description="registered discriminator: patch, multiscale, conv")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the discriminator")
    kind: Literal["hinge", "bce", "lsgan", "wgan-gp"] = Field(default="hinge", description="loss of the two")
    weight: float = Field(
        default=0.1,
        ge=0,
        description="beside the mean reconstruction_nll of a value; the loss holds it times the values",
    )
    start: float = Field(default=0.25, ge=0, lt=1, description="share of all updates before the discriminator begins")
    rise: float = Field(
        default=0.1, ge=0, le=1, description="share of all updates over which the weight then rises from 0"
    )
    learning_rate: float | None = Field(
        default=None, gt=0, description="highest, of the discriminator; default: the VAE's"
    )


class ObjectiveConfig(Config):
    """The loss, in nats per sample: loss = reconstruction_nll + beta * kl, with further terms where they are set."""

    likelihood: Literal["optimal_sigma", "gaussian", "laplace", "bernoulli"] = Field(
        default="optimal_sigma",
        description="optimal_sigma: Gaussian with one analytic variance; gaussian: variance 1; laplace: scale 1, the "
        "absolute error; bernoulli: patterns between 0 and 1",
    )
    beta: float = Field(default=1.0, ge=0, description="weight of the KL divergence")
    warmup: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="share of all steps over which beta (with `capacity`: the capacity) rises from 0",
    )
    free_bits: float = Field(
        default=0.0, ge=0, description="nats per latent dimension that the KL term does not punish"
    )
    capacity: float | None = Field(
        default=None, ge=0, description="nats per sample that the KL divergence is held at, instead of being kept small"
    )
    input_noise: float | None = Field(
        default=None,
        ge=0,
        description="standard deviation of noise added to the network's input in training, preprocessed units; "
        "default: 1 for a scan, 0 for a collection",
    )
    target: Literal["auto", "self", "neighbour"] = Field(
        default="auto",
        description="pattern to predict: the input's own, or one that a walk through similar grid neighbours ends at; "
        "auto: neighbour for a scan, self for a collection",
    )
    walk: int = Field(default=4, ge=1, description="steps of that walk; more even out changes inside a grain")
    label: str | None = Field(
        default=None,
        description="map of class numbers, such as phase, that a linear head learns to tell from the latents",
    )
    label_weight: float = Field(
        default=1.0, ge=0, description="weight of that head's cross entropy, in nats per sample"
    )
    perceptual: PerceptualConfig | None = Field(
        default=None, description="distance in the features of a frozen network"
    )
    adversarial: AdversarialConfig | None = Field(
        default=None, description="a discriminator that learns beside the VAE"
    )

    @model_validator(mode="after")
    def _one_rule_for_the_kl(self) -> Self:
        if self.capacity is not None and self.free_bits > 0:
            raise ValueError("capacity and free_bits both say how many nats are free: set one of them")
        return self


class AugmentConfig(Config):
    """Random changes of the training patterns, on the device, never of the validation patterns."""

    flip_x: bool = Field(default=False, description="mirror left and right, every second pattern")
    flip_y: bool = Field(default=False, description="mirror top and bottom, every second pattern")
    rotate: float = Field(default=0.0, ge=0, le=180, description="largest rotation to either side, degrees")
    shift: float = Field(
        default=0.0, ge=0, lt=1, description="largest shift along each axis, as a share of the pattern's side"
    )
    scale: float = Field(
        default=0.0, ge=0, le=1, description="largest change of size: factor 1 / (1 + scale) to 1 + scale"
    )
    fill: Literal["mean", "edge"] = Field(
        default="mean", description="what comes in from outside: the pattern's mean, or its nearest pixel"
    )
    noise: float = Field(
        default=0.0, ge=0, description="standard deviation of noise on the input, on top of input_noise"
    )
    crop: tuple[int, ...] | None = Field(
        default=None,
        description="pixels per spatial dim: networks with spatial latents learn from windows of this size, one place "
        "per batch, instead of whole samples",
    )
    circle: bool = Field(default=False, description="noise inside the detector circle only (the largest that fits)")


class TrainConfig(Config):
    """Everything that decides a training."""

    passing: ClassVar[tuple[str, ...]] = (
        *("device", "device_memory", "checkpoint_minutes", "checkpoint_every", "sheets_every", "log"),
    )

    shortcuts: ClassVar = {"model": "model.name", "latent_dim": "model.latent_dim", "beta": "objective.beta"}

    model: ModelConfig = Field(default=ModelConfig(), description="which network")
    preprocess: PreprocessConfig = Field(default=PreprocessConfig(), description="what the network sees of a pattern")
    objective: ObjectiveConfig = Field(default=ObjectiveConfig(), description="the loss")
    split: SplitConfig = Field(default=SplitConfig(), description="which scan points validate")
    augment: AugmentConfig = Field(default=AugmentConfig(), description="random changes of the training patterns")
    balance: str | None = Field(
        default=None,
        description="map of class numbers that batches are balanced by; rare classes then come more than once",
    )
    init: str | None = Field(
        default=None,
        description="what training starts from (fine-tuning): a run of the same store, or the path of a model "
        "folder or checkpoint file",
    )
    epochs: int = Field(default=40, ge=1, description="most epochs")
    batch_size: int = Field(default=128, ge=1, description="patterns per step, in each process")
    accumulate: int = Field(default=1, ge=1, description="batches whose gradients are averaged before each update")
    optimizer: Literal["adamw", "adam", "sgd"] = Field(default="adamw", description="rule of the updates")
    learning_rate: float = Field(default=2e-3, gt=0, description="the highest; the schedule starts and ends lower")
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="of the learning rate, after its rise"
    )
    schedule_per: Literal["step", "epoch"] = Field(default="step", description="when the learning rate changes")
    restarts: int = Field(default=0, ge=0, description="how often the cosine starts again at the highest rate")
    rise: float = Field(
        default=0.15, ge=0, le=1, description="share of the training over which the learning rate rises"
    )
    rate_end: float = Field(default=1e-3, ge=0, le=1, description="lowest learning rate, as a share of the highest")
    weight_decay: float = Field(default=1e-2, ge=0, description="of the weights, in each update")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="decay per update of averaged weights, used instead; 0 = off"
    )
    patience: int = Field(default=15, ge=1, description="epochs without a better validation loss before training stops")
    min_delta: float = Field(default=0.0, ge=0, description="nats per sample by which a validation loss must be better")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 where it is fast"
    )
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = Field(
        default="off", description="torch.compile mode of the step; reduce-overhead uses CUDA graphs"
    )
    deterministic: bool = Field(default=False, description="refuse operations whose result differs from run to run")
    device: str = Field(default="auto", description=DEVICE)
    memory: float = Field(default=2.0, gt=0, description="GiB that patterns may take in memory; more is streamed")
    device_memory: float = Field(
        default=8.0, ge=0, description="GiB that patterns may take on the GPU, if there is room"
    )
    checkpoint_minutes: float = Field(default=1.0, gt=0, description="most work that a kill can cost")
    checkpoint_every: int = Field(
        default=0, ge=0, description="keep a checkpoint of every N-th epoch; 0 = the last one only"
    )
    sheets_every: int = Field(default=0, ge=0, description="keep decoded samples of every N-th epoch; 0 = none")
    log: tuple[str, ...] = Field(default=(), description="loggers beside the stored history: tensorboard")
    seed: int = Field(default=0, ge=0, description="of split, weights and order")

    @model_validator(mode="before")
    @classmethod
    def _as_stored_before(cls, values: Any) -> Any:
        """Runs of earlier versions say how many lanes an update had: one."""
        if isinstance(values, Mapping) and values.get("lanes", 0) in (None, 1):
            return {key: value for key, value in values.items() if key != "lanes"}
        return values


class EncodeConfig(Config):
    """How latents are written."""

    passing: ClassVar[tuple[str, ...]] = ("run", "batch_size", "device")

    run: str = Field(default=DEFAULT_RUN, description=RUN)
    batch_size: int = Field(default=1024, ge=1, description="samples at once")
    device: str = Field(default="auto", description=DEVICE)
    precision: Literal["auto", "float32", "bfloat16"] = Field(default="float32", description="of the network's numbers")
    mask: str | None = Field(
        default=None,
        description="boolean variable over pixels; a spatial latent is NaN where its pixels hold no true one",
    )
    window: tuple[int, ...] | None = Field(
        default=None,
        description="pixels per spatial dim: spatial latents of samples that memory does not hold, piece by piece",
    )
    overlap: float = Field(
        default=0.25, ge=0, lt=1, description="share of a window that neighbouring windows have in common"
    )

    def deciding(self) -> dict[str, Any]:
        """Without windows their overlap decides nothing."""
        return {key: v for key, v in super().deciding().items() if key != "overlap" or self.window is not None}


class ImportConfig(Config):
    """What a checkpoint is read as."""

    passing: ClassVar[tuple[str, ...]] = ("device",)

    layout: Literal["auto", "ldm", "diffusers", "monai", "vaearr"] = Field(
        default="auto", description="of the names in the checkpoint; auto tells it by them"
    )
    prefix: str | None = Field(
        default=None, description="what stands before the names; default: found, where only one fits"
    )
    model: str = Field(
        default=AUTOENCODER,
        description="registered model; autoencoder-kl takes its options from the shapes in the checkpoint, and "
        "`latent_dim` and `options` replace single ones; others are built from these two alone",
    )
    latent_dim: int | None = Field(default=None, description="latent dimensions; default: from the checkpoint")
    options: dict[str, Any] | None = Field(
        default=None, description="keyword arguments of the model, such as `groups`, which no weight tells"
    )
    preprocess: PreprocessConfig = Field(
        default=PreprocessConfig(),
        description="what the network was trained to see; default: what a training would choose, -1 to 1 for a "
        "collection of 8-bit samples",
    )
    device: str = Field(default="auto", description=f"for the health of the latents: {DEVICE}")
    seed: int = Field(default=0, description="of the samples that the health is told from")


class ReconstructConfig(Config):
    """What is reconstructed and how it is judged."""

    passing: ClassVar[tuple[str, ...]] = ("out", "device", "batch_size", "name")

    run: str = Field(default=DEFAULT_RUN, description=RUN)
    name: str = Field(
        default=RECONSTRUCTION,
        description="table of the run; variable of the store `<name>`, for another run than vae `<name>_<run>`",
    )
    out: Literal["variable"] | None = Field(
        default=None, description="variable: the reconstructions are written into the store too"
    )
    roi: RoiConfig | None = Field(default=None, description="conditions on scan points; default: the run's region")
    part: Literal["all", "train", "validation"] = Field(
        default="all", description="points of the region, by the run's split"
    )
    units: Literal["stored", "preprocessed"] = Field(
        default="stored",
        description="in which reconstructions are given and judged; stored units give back to each pattern its own "
        "scale, see `vaearr.models.preprocess.undo`",
    )
    data_range: float | Literal["dtype", "sample"] | None = Field(
        default=None,
        description="of PSNR and SSIM: a number, dtype = the whole range of the stored whole numbers, sample = largest "
        "- smallest value of each input; default: dtype for 8 bits in stored units, else sample",
    )
    examples: int = Field(default=8, description="samples kept as pictures, of the validation part where there is one")
    seed: int = Field(default=0, description="of the choice of examples")
    batch_size: int = Field(default=256, description="samples at once, fewer where they are large")
    device: str = Field(default="auto", description=DEVICE)
    window: tuple[int, ...] | None = Field(
        default=None, description="pixels per spatial dim: spatial latents of large samples, window by window"
    )
    overlap: float = Field(default=0.25, description="share of their length that windows have in common at least")
    lpips_weights: Path | None = Field(default=None, description="file of a feature network, to measure LPIPS too")
    lpips_linear: Path | None = Field(default=None, description="file of the LPIPS weights on that network")

    def deciding(self) -> dict[str, Any]:
        """Without windows their overlap decides nothing."""
        return {key: v for key, v in super().deciding().items() if key != "overlap" or self.window is not None}
