"""What is learned, and how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from vaearr.config.base import DEVICE, RUN, Config, field
from vaearr.config.data import RoiConfig, SplitConfig
from vaearr.names import DEFAULT_RUN, RECONSTRUCTION

AUTOENCODER = "autoencoder-kl"


class PreprocessConfig(Config):
    """What the network sees of a pattern; applied on the device, from the stored dtype, and recorded with the model."""

    static_background: Literal["auto", "none", "subtract", "divide"] = field(
        "auto", "mean training pattern; auto: divide for a scan, none for a collection"
    )
    dynamic_background: float = field(
        0.0, "width of the Gaussian low-pass removed from each, as a share of the smaller side; 0 = off", ge=0
    )
    normalise: Literal["auto", "none", "zscore", "robust", "minmax", "quantile", "unit", "symmetric"] = field(
        "auto",
        "of each: zscore, robust, minmax, quantile (0 to the 99.5 % quantile); of all: unit (0 to 1), symmetric (-1 to "
        "1); auto: zscore for a scan, symmetric for a collection of 8-bit samples, else quantile",
    )
    range: tuple[float, float] | None = field(
        None, "of unit and symmetric, in stored units; default: of an 8-bit type, else of the data"
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

    name: str = field("conv", "registered model")
    latent_dim: int = field(32, "latent dimensions", ge=1, le=4096)
    options: dict[str, Any] = field({}, "keyword arguments of the model")


class PerceptualConfig(Config):
    """A distance in the features of a frozen network, beside the reconstruction; see `vaearr.models.perceptual`."""

    kind: Literal["lpips", "features", "encoder"] = field(
        "encoder", "lpips: network and linear weights; features: network; encoder: of a trained run"
    )
    weight: float = field(0.3, "beside the mean reconstruction_nll of a value", ge=0)
    weights: Path | None = field(None, "file of the feature network: alexnet, vgg16 or squeezenet1_1")
    linear: Path | None = field(None, "file of the LPIPS weights for that network")
    run: str | None = field(None, "encoder: run of the same store, or a model folder")
    slices: float = field(0.25, "volumes in a 2-D network: share of slices along each axis, above 1 their number", gt=0)
    chunk: int = field(0, "images at a time, which saves memory and costs time; 0 = all", ge=0)


class AdversarialConfig(Config):
    """A discriminator that learns beside the VAE to tell decoded samples from data; see `vaearr.models.losses`."""

    discriminator: str = field("patch", "registered discriminator: patch, multiscale, conv")
    options: dict[str, Any] = field({}, "keyword arguments of the discriminator")
    kind: Literal["hinge", "bce", "lsgan", "wgan-gp"] = field("hinge", "loss of the two")
    weight: float = field(0.1, "beside the mean reconstruction_nll of a value", ge=0)
    start: float = field(0.25, "share of all updates before the discriminator begins", ge=0, lt=1)
    rise: float = field(0.1, "share of all updates over which the weight then rises", ge=0, le=1)
    learning_rate: float | None = field(None, "highest; default: the VAE's", gt=0)


class ObjectiveConfig(Config):
    """The loss, in nats per sample: loss = reconstruction_nll + beta * kl, with further terms where they are set."""

    likelihood: Literal["optimal_sigma", "gaussian", "laplace", "bernoulli"] = field(
        "optimal_sigma",
        "Gaussian with one analytic variance, of variance 1, Laplace (absolute error), values from 0 to 1",
    )
    beta: float = field(1.0, "weight of the KL divergence", ge=0)
    warmup: float = field(0.2, "share of all steps over which beta, or `capacity`, rises from 0", ge=0, le=1)
    free_bits: float = field(0.0, "nats per latent dimension that the KL term does not punish", ge=0)
    capacity: float | None = field(None, "nats per sample that the KL divergence is held at", ge=0)
    input_noise: float | None = field(
        None, "deviation of noise on the input, preprocessed units; default: 1 for a scan, 0 for a collection", ge=0
    )
    target: Literal["auto", "self", "neighbour"] = field(
        "auto", "predict the own pattern, or where a walk over like neighbours ends; auto: neighbour for a scan"
    )
    walk: int = field(4, "steps of that walk; more even out changes inside a grain", ge=1)
    label: str | None = field(None, "map of classes, such as phase, that a linear head learns from the latents")
    label_weight: float = field(1.0, "weight of that head's cross entropy, in nats per sample", ge=0)
    perceptual: PerceptualConfig | None = field(None, "distance in the features of a frozen network")
    adversarial: AdversarialConfig | None = field(None, "a discriminator that learns beside the VAE")

    @model_validator(mode="after")
    def _one_rule_for_the_kl(self) -> Self:
        if self.capacity is not None and self.free_bits > 0:
            raise ValueError("capacity and free_bits both say how many nats are free: set one of them")
        return self


class AugmentConfig(Config):
    """Random changes of the training patterns, on the device, never of the validation patterns."""

    flip_x: bool = field(False, "mirror left and right, every second pattern")
    flip_y: bool = field(False, "mirror top and bottom, every second pattern")
    rotate: float = field(0.0, "largest rotation to either side, degrees", ge=0, le=180)
    shift: float = field(0.0, "largest shift along each axis, as a share of the pattern's side", ge=0, lt=1)
    scale: float = field(0.0, "largest change of size: factor 1 / (1 + scale) to 1 + scale", ge=0, le=1)
    fill: Literal["mean", "edge"] = field("mean", "what comes in from outside: the mean, or the nearest pixel")
    noise: float = field(0.0, "standard deviation of noise on the input, on top of input_noise", ge=0)
    crop: tuple[int, ...] | None = field(
        None, "pixels per spatial dim: with spatial latents, learn from windows, one place per batch"
    )
    circle: bool = field(False, "noise inside the detector circle only (the largest that fits)")


class TrainConfig(Config):
    """Everything that decides a training."""

    passing: ClassVar = ("device", "device_memory", "checkpoint_minutes", "checkpoint_every", "sheets_every", "log")

    shortcuts: ClassVar = {"model": "model.name", "latent_dim": "model.latent_dim", "beta": "objective.beta"}

    model: ModelConfig = field(ModelConfig(), "which network")
    preprocess: PreprocessConfig = field(PreprocessConfig(), "what the network sees of a pattern")
    objective: ObjectiveConfig = field(ObjectiveConfig(), "the loss")
    split: SplitConfig = field(SplitConfig(), "which scan points validate")
    augment: AugmentConfig = field(AugmentConfig(), "random changes of the training patterns")
    balance: str | None = field(None, "map of classes that batches are balanced by; rare ones come more than once")
    init: str | None = field(
        None, "start (fine-tuning): a run of the same store, or path of a model folder or checkpoint file"
    )
    epochs: int = field(40, "most epochs", ge=1)
    batch_size: int = field(128, "patterns per step, in each process", ge=1)
    accumulate: int = field(1, "batches whose gradients are averaged before each update", ge=1)
    optimizer: Literal["adamw", "adam", "sgd"] = field("adamw", "rule of the updates")
    learning_rate: float = field(2e-3, "the highest; the schedule starts and ends lower", gt=0)
    schedule: Literal["cosine", "constant"] = field("cosine", "of the learning rate, after its rise")
    schedule_per: Literal["step", "epoch"] = field("step", "when the learning rate changes")
    restarts: int = field(0, "how often the cosine starts again at the highest rate", ge=0)
    rise: float = field(0.15, "share of the training over which the learning rate rises", ge=0, le=1)
    rate_end: float = field(1e-3, "lowest learning rate, as a share of the highest", ge=0, le=1)
    weight_decay: float = field(1e-2, "of the weights, in each update", ge=0)
    clip: float = field(1.0, "largest norm of the gradient", gt=0)
    ema: float = field(0.0, "decay per update of averaged weights, used instead; 0 = off", ge=0, lt=1)
    patience: int = field(15, "epochs without a better validation loss before training stops", ge=1)
    min_delta: float = field(0.0, "nats per sample by which it must be better", ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = field("auto", "auto: bfloat16 where it is fast")
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = field(
        "off", "torch.compile mode of the step"
    )
    deterministic: bool = field(False, "refuse operations whose result differs from run to run")
    device: str = field("auto", DEVICE)
    memory: float = field(2.0, "GiB that patterns may take in memory; more is streamed", gt=0)
    device_memory: float = field(8.0, "GiB that patterns may take on the GPU", ge=0)
    checkpoint_minutes: float = field(1.0, "most work that a kill can cost", gt=0)
    checkpoint_every: int = field(0, "keep one of every N-th epoch; 0 = the last only", ge=0)
    sheets_every: int = field(0, "keep decoded samples of every N-th epoch; 0 = none", ge=0)
    log: tuple[str, ...] = field((), "loggers beside the stored history: tensorboard")
    seed: int = field(0, "of split, weights and order", ge=0)

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

    run: str = field(DEFAULT_RUN, RUN)
    batch_size: int = field(1024, "samples at once", ge=1)
    device: str = field("auto", DEVICE)
    precision: Literal["auto", "float32", "bfloat16"] = field("float32", "of the network's numbers")
    mask: str | None = field(None, "boolean variable over pixels; spatial latents without a true pixel are NaN")
    window: tuple[int, ...] | None = field(
        None, "pixels per spatial dim: spatial latents of samples that memory does not hold, piece by piece"
    )
    overlap: float = field(0.25, "share of a window that neighbouring windows have in common", ge=0, lt=1)

    def deciding(self) -> dict[str, Any]:
        """Without windows their overlap decides nothing."""
        return {key: v for key, v in super().deciding().items() if key != "overlap" or self.window is not None}


class ImportConfig(Config):
    """What a checkpoint is read as."""

    passing: ClassVar[tuple[str, ...]] = ("device",)

    layout: Literal["auto", "ldm", "diffusers", "monai", "vaearr"] = field(
        "auto", "auto: told by the names in the checkpoint"
    )
    prefix: str | None = field(None, "what stands before the names; default: found, where only one fits")
    model: str = field(
        AUTOENCODER, "registered model; autoencoder-kl takes from the checkpoint what the next two do not say"
    )
    latent_dim: int | None = field(None, "latent dimensions; default: from the checkpoint")
    options: dict[str, Any] | None = field(None, "keyword arguments of the model, such as `groups`")
    preprocess: PreprocessConfig = field(
        PreprocessConfig(), "what the network was trained to see; default: as for a training"
    )
    device: str = field("auto", f"for the health of the latents: {DEVICE}")
    seed: int = field(0, "of the samples that the health is told from")


class ReconstructConfig(Config):
    """What is reconstructed and how it is judged."""

    passing: ClassVar[tuple[str, ...]] = ("out", "device", "batch_size", "name")

    run: str = field(DEFAULT_RUN, RUN)
    name: str = field(RECONSTRUCTION, "table of the run and, with out, variable of the store")
    out: Literal["variable"] | None = field(None, "variable: the reconstructions are written into the store too")
    roi: RoiConfig | None = field(None, "conditions on scan points; default: the run's region")
    part: Literal["all", "train", "validation"] = field("all", "points of the region, by the run's split")
    units: Literal["stored", "preprocessed"] = field(
        "stored", "of what is given and judged; stored: each pattern gets back its own scale"
    )
    data_range: float | Literal["dtype", "sample"] | None = field(
        None, "of PSNR and SSIM: number, of the stored type, of each input; default: dtype for 8 bits"
    )
    examples: int = field(8, "samples kept as pictures, of the validation part where there is one")
    seed: int = field(0, "of the choice of examples")
    batch_size: int = field(256, "samples at once, fewer where they are large")
    device: str = field("auto", DEVICE)
    window: tuple[int, ...] | None = field(
        None, "pixels per spatial dim: spatial latents of large samples, window by window"
    )
    overlap: float = field(0.25, "share of their length that windows have in common at least")
    lpips_weights: Path | None = field(None, "file of a feature network, to measure LPIPS too")
    lpips_linear: Path | None = field(None, "file of the LPIPS weights on that network")

    def deciding(self) -> dict[str, Any]:
        """Without windows their overlap decides nothing."""
        return {key: v for key, v in super().deciding().items() if key != "overlap" or self.window is not None}
