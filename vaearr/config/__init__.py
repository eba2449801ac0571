"""Frozen, typed settings: the same object drives the Python call, the command line and the Prefect
form.

Settings travel with what they produced: `to_attrs` gives plain JSON for the attributes of a store,
`from_attrs` reads it back, and an unknown key is an error that lists the valid ones. Every setting
of a step is a keyword of its function
too: its name, type and default are those of the config's field.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from vaearr.errors import UsageError, did_you_mean
from vaearr.names import DEFAULT_RUN, RECONSTRUCTION, is_valid_name

RUN = "name of the run; 'vae' writes `latents`, 'b' writes `latents_b`"
DEVICE = "auto, cpu, cuda, cuda:1, mps …"
MOST_SHOWN = 200  # characters of a value that cannot be meant


def _usable_name(name: str) -> str:
    if not is_valid_name(name):
        raise ValueError(f"name {name!r} must be letters, digits and _ and start with a letter")
    return name


def _not_empty(ends: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    start, stop = ends
    if start is not None and stop is not None and not start < stop:
        raise ValueError("the interval is empty: give start < stop")
    return ends


def _within_one(quantiles: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= quantiles[0] < quantiles[1] <= 1:
        raise ValueError("quantiles are two numbers with 0 <= low < high <= 1")
    return quantiles


Name = Annotated[str, AfterValidator(_usable_name)]
Interval = Annotated[tuple[float, float], AfterValidator(_not_empty)]
Quantiles = Annotated[tuple[float, float], AfterValidator(_within_one)]


def field(default: Any, text: str, **limits: Any) -> Any:
    """A setting: its default, what help and forms say of it, and limits such as `ge=1`."""
    return Field(default, description=text, **limits)


class Config(BaseModel):
    """Base of all settings: frozen, no unknown keys, finite numbers only, JSON both ways (which
    knows no NaN).
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )
    passing: ClassVar[
        tuple[str, ...]
    ] = ()  # settings that say where and how fast, and decide no value
    without_effect: ClassVar[
        Mapping[str, Any]
    ] = {}  # settings of earlier versions -> what each was without effect
    shortcuts: ClassVar[
        Mapping[str, str]
    ] = {}  # short name -> setting of a group, such as beta -> objective.beta

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_number_of_its_own(cls, value: Any, info: ValidationInfo) -> Any:
        """No whole number that the machine has no form for, and no truth value in the place of a
        number.
        """
        expected = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and bool not in (expected, *get_args(expected)):
            raise ValueError("true and false are no values of this setting")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("whole numbers are below 2^63")
        return value

    @model_validator(mode="before")
    @classmethod
    def _without_earlier_settings(cls, values: Any) -> Any:
        """Settings that stores of earlier versions hold, but that decided nothing."""
        if not isinstance(values, Mapping):
            return values
        kept = dict(values)
        for key, usual in cls.without_effect.items():
            if kept.get(key, ...) in (None, usual):
                del kept[key]
        return kept

    def to_attrs(self) -> dict[str, Any]:
        """Plain JSON-ready dict, as stored in attributes."""
        return self.model_dump(mode="json")

    def deciding(self) -> dict[str, Any]:
        """The settings that decide values, JSON-ready; of a file its name, since where it lay says
        nothing.
        """
        named = {
            key: _named(getattr(self, key))
            for key in type(self).model_fields
            if key not in self.passing
        }
        plain: dict[str, Any] = to_jsonable_python(named)
        return plain

    @classmethod
    def from_attrs(cls, attrs: dict[str, Any]) -> Self:
        """Settings from such a dict. Raises UsageError that names each wrong key or value in words."""
        try:
            return cls.model_validate(attrs)
        except ValidationError as error:
            raise UsageError(_in_words(cls, error)) from None

    def replace(self, **changes: Any) -> Self:
        """A copy with the given values; `None` means "leave as it is". Validated like new settings."""
        given = {key: value for key, value in changes.items() if value is not None}
        return self.from_attrs({**self.to_attrs(), **given})


def group_of(field: FieldInfo | None) -> type[Config] | None:
    """The config that a field holds, if it holds one."""
    parts = () if field is None else (field.annotation, *get_args(field.annotation))
    return next(
        (part for part in parts if isinstance(part, type) and issubclass(part, Config)), None
    )


def _named(value: Any) -> Any:
    """A setting with the names of files only, at any depth."""
    if isinstance(value, Config):
        return value.deciding()
    if isinstance(value, dict):
        return {key: _named(item) for key, item in value.items()}
    return value.name if isinstance(value, Path) else value


def _in_words(cls: type[BaseModel], error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or cls.__name__
        if item["type"] == "extra_forbidden":
            owner: type[BaseModel] = cls
            for part in item["loc"][:-1]:
                owner = group_of(owner.model_fields.get(str(part))) or owner
            known = did_you_mean(str(item["loc"][-1]), sorted(owner.model_fields))
            parts.append(f"{cls.__name__} has no setting {key!r}.{known}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            if item["loc"]:
                parts.append(f"{cls.__name__}.{key}: {message} (got {_shortened(item['input'])}).")
            else:  # of several settings together
                parts.append(f"{cls.__name__}: {message}.")
    return " ".join(parts)


def _shortened(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or nested as often
        return f"a {type(value).__name__}"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


# ---- how data come in, and which of them are meant ----


class IngestConfig(Config):
    """How a source becomes a store."""

    images: str = field("images", "dataset in the HDF5 file that holds the patterns")
    coords: str = field("coords", "dataset in the HDF5 file that holds [x, y] of each pattern")
    step: float | None = field(None, "distance of neighbouring scan points in `units`", gt=0)
    units: str = field(
        "um", "unit of the step; coordinates are step numbers where no step is known"
    )
    maps: dict[Name, Path] = field({}, "name -> CSV with x, y and one value column")
    elements: Path | None = field(None, "CSV with x, y and one column per element, or .tsv maps")
    element_units: str = field("wt%", "unit of the element columns")
    phases: Path | None = field(None, "CSV with x, y and a phase number, -1 = not indexed")
    phase_names: dict[int, str] = field({}, "phase number -> name")
    orientations: Path | None = field(
        None, ".ang or .ctf map of the scan: orientations, phases, quality"
    )
    scan: str | None = field(None, "scan in a vendor file that holds several; default: the first")
    nav_shape: tuple[PositiveInt, PositiveInt] | None = field(
        None, "(rows, columns) of a vendor file without them"
    )
    filenames: str | None = field(
        None,
        "how file names tell the scan point: '{y}_{x}', or a regular expression with groups x and y",
    )
    nonfinite: Literal["error", "mask"] = field(
        "error",
        "patterns that float32 cannot hold, NaN or infinite: refuse the file, or leave them out",
    )
    format: str | None = field(
        None, "source format, such as images, where the path would be taken for another"
    )
    size: tuple[PositiveInt, ...] | None = field(
        None,
        "collections: (rows, columns) of images, (z, y, x) of volumes, in pixels",
        min_length=2,
        max_length=3,
    )
    fit: Literal["pad", "crop", "squash"] = field(
        "pad",
        "to `size`. Images: fitted inside and padded with 0, cut, stretched. Volumes: padded, cut, resampled",
    )
    channels: Literal["auto", "grey", "colour"] = field(
        "auto", "images: as they are (all alike), all to grey, or all to RGB"
    )
    masks: str = field("*_mask*", "images: names of mask files, which are left out; '' = none")
    manifest: Path | None = field(
        None, "CSV with path, label and further columns for a folder's files"
    )
    label_column: str = field("label", "column of the manifest that holds the label")
    label_map: dict[str, str] = field(
        {}, "collections: label in the source -> label in the store, before `classes`"
    )
    classes: tuple[str, ...] = field((), "labels of the samples to take; empty = all")
    n_samples: PositiveInt | None = field(
        None, "collections: take a random subset of so many samples; default: all"
    )
    subset_seed: int = field(0, "collections: random seed of that subset", ge=0)
    exclude: tuple[str, ...] = field((), "patterns of paths to leave out, such as '*/old/*'")
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = field(
        None, "volumes: voxels (z, y, x) in mm to resample to, before `size`"
    )


class RoiConfig(Config):
    """Region of interest: half-open boxes in coordinate units and a condition on maps, all of which
    must hold.
    """

    x: Interval | None = field(None, "x0 <= x < x1, coordinate units")
    y: Interval | None = field(None, "y0 <= y < y1, coordinate units")
    z: Interval | None = field(None, "z0 <= z < z1, coordinate units")
    where: str | None = field(
        None, "condition on maps, such as 'BC > 45 and elements[\"Fe\"] > 20'"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.where is not None and not self.where.strip():
            raise ValueError(
                "the condition `where` is blank: write one like 'BC > 45', or leave it out"
            )
        return self


class SplitConfig(Config):
    """Which scan points validate: whole spatial blocks by default, so that neighbours do not leak."""

    method: Literal["blocks", "random", "groups", "stratified"] = field(
        "blocks",
        "blocks of scan points, single ones, whole groups of one value of `by`, or a share of each class",
    )
    fraction: float = field(0.05, "share of the scan points kept for validation", ge=0, lt=1)
    block: int = field(4, "side of a block in scan points; below the size of a grain", ge=1)
    by: str | None = field(None, "map or coordinate; default: subject (groups), label (stratified)")


# ---- what is learned, and how ----


class PreprocessConfig(Config):
    """What the network sees of a pattern; applied on the device, from the stored dtype, and
    recorded with the model.
    """

    bin: PositiveInt | Literal["auto"] = field(
        "auto",
        "side of the blocks of detector pixels whose mean the network sees; auto: of a scan, the largest that leaves "
        "60 pixels along the shorter side",
    )
    static_background: Literal["auto", "none", "subtract", "divide"] = field(
        "auto", "mean training pattern; auto: divide for a scan, none for a collection"
    )
    dynamic_background: float = field(
        0.0,
        "width of the Gaussian low-pass removed from each, as a share of the smaller side; 0 = off",
        ge=0,
    )
    normalise: Literal[
        "auto", "none", "zscore", "robust", "minmax", "quantile", "unit", "symmetric"
    ] = field(
        "auto",
        "of each: zscore, robust, minmax, quantile (0 to the 99.5 % quantile); of all: unit (0 to 1), symmetric (-1 to "
        "1); auto: zscore for a scan, symmetric for a collection of 8-bit samples, else quantile",
    )
    range: Interval | None = field(
        None, "of unit and symmetric, in stored units; default: of an 8-bit type, else of the data"
    )

    def deciding(self) -> dict[str, Any]:
        """Without a `bin` that joins nothing, which earlier versions did not have."""
        return {
            key: v for key, v in super().deciding().items() if key != "bin" or v not in (1, "auto")
        }

    @model_validator(mode="after")
    def _fixed_range(self) -> Self:
        fixed = self.normalise in ("unit", "symmetric")
        if self.range is not None and not fixed and self.normalise != "auto":
            raise ValueError(
                f"a range goes with normalise unit or symmetric, not with {self.normalise}"
            )
        if fixed and (
            self.static_background not in ("auto", "none") or self.dynamic_background > 0
        ):
            raise ValueError(
                f"normalise {self.normalise} is for stored values: set both backgrounds to none"
            )
        return self


class ModelConfig(Config):
    """Which network; `options` are the keyword arguments of the registered model."""

    name: str = field("conv", "registered model")
    latent_dim: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = field(
        32, "latent dimensions; auto: of pca, those before the knee of the explained variance"
    )
    options: dict[str, Any] = field({}, "keyword arguments of the model")


class PerceptualConfig(Config):
    """A distance in the features of a frozen network, beside the reconstruction; see
    `vaearr.models.perceptual`.
    """

    kind: Literal["lpips", "features", "encoder"] = field(
        "encoder", "lpips: network and linear weights; features: network; encoder: of a trained run"
    )
    weight: float = field(0.3, "beside the mean reconstruction_nll of a value", ge=0)
    weights: Path | None = field(None, "file of the feature network: alexnet or vgg16")
    linear: Path | None = field(None, "file of the LPIPS weights for that network")
    run: str | None = field(None, "encoder: run of the same store, or a model folder")
    slices: float = field(
        0.25, "volumes in a 2-D network: share of slices along each axis", gt=0, le=1
    )
    chunk: int = field(0, "images at a time, which saves memory and costs time; 0 = all", ge=0)


class AdversarialConfig(Config):
    """A discriminator that learns beside the VAE to tell decoded samples from data; see
    `vaearr.models.losses`.
    """

    discriminator: str = field("patch", "registered discriminator: patch, multiscale, conv")
    options: dict[str, Any] = field({}, "keyword arguments of the discriminator")
    kind: Literal["hinge", "bce", "lsgan", "wgan-gp"] = field("hinge", "loss of the two")
    weight: float = field(0.1, "beside the mean reconstruction_nll of a value", ge=0)
    start: float = field(0.25, "share of all updates before the discriminator begins", ge=0, lt=1)
    rise: float = field(0.1, "share of all updates over which the weight then rises", ge=0, le=1)
    learning_rate: float | None = field(None, "highest; default: the VAE's", gt=0)


class ObjectiveConfig(Config):
    """The loss, in nats per sample: loss = reconstruction_nll + beta * kl, with further terms where
    they are set.
    """

    without_effect: ClassVar = {"capacity": None}

    likelihood: str = field(
        "optimal_sigma",
        "optimal_sigma, gaussian: of one analytic variance, of variance 1; laplace: absolute error; bernoulli: 0 to 1",
    )
    beta: float = field(1.0, "weight of the KL divergence", ge=0)
    warmup: float = field(0.2, "share of all steps over which beta rises from 0", ge=0, le=1)
    free_bits: float = field(
        0.0, "nats per latent dimension that the KL term does not punish", ge=0
    )
    input_noise: float | None = field(
        None,
        "deviation of noise on the input, preprocessed units; default: 1 for a scan, 0 for a collection",
        ge=0,
    )
    target: Literal["auto", "self", "unmoved", "neighbour"] = field(
        "auto",
        "predict the own pattern, the own before `augment` moved it, or where a walk over like neighbours ends; auto: "
        "neighbour for a scan",
    )
    walk: int = field(2, "steps of that walk; more even out changes inside a grain", ge=1)
    label: str | None = field(
        None, "map of classes, such as phase, that a linear head learns from the latents"
    )
    label_weight: float = field(
        1.0, "weight of that head's cross entropy, in nats per sample", ge=0
    )
    perceptual: PerceptualConfig | None = field(
        None, "distance in the features of a frozen network"
    )
    adversarial: AdversarialConfig | None = field(
        None, "a discriminator that learns beside the VAE"
    )


class AugmentConfig(Config):
    """Random changes of the training patterns, on the device, never of the validation patterns."""

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
        "mean", "what comes in from outside: the mean, or the nearest pixel"
    )
    noise: float = field(
        0.0, "standard deviation of noise on the input, on top of input_noise", ge=0
    )
    crop: tuple[int, ...] | None = field(
        None,
        "pixels per spatial dim: with spatial latents, learn from windows, one place per batch",
    )
    circle: bool = field(False, "noise inside the detector circle only (the largest that fits)")


class TrainConfig(Config):
    """Everything that decides a training."""

    passing: ClassVar = (
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

    model: ModelConfig = field(ModelConfig(), "which network")
    preprocess: PreprocessConfig = field(PreprocessConfig(), "what the network sees of a pattern")
    objective: ObjectiveConfig = field(ObjectiveConfig(), "the loss")
    split: SplitConfig = field(SplitConfig(), "which scan points validate")
    augment: AugmentConfig = field(AugmentConfig(), "random changes of the training patterns")
    balance: str | None = field(
        None, "map of classes that batches are balanced by; rare ones come more than once"
    )
    init: str | None = field(
        None,
        "start (fine-tuning): a run of the same store, or path of a model folder or checkpoint file",
    )
    epochs: int = field(40, "most epochs", ge=1)
    epoch_samples: int | None = field(
        None,
        "samples of an epoch at most, 0 = all; default: all of a collection, half of a scan, there 1408 to 8192",
        ge=0,
    )
    batch_size: int = field(128, "patterns per step, in each process", ge=1)
    optimizer: Literal["adamw", "adam", "sgd"] = field("adamw", "rule of the updates")
    learning_rate: float = field(2e-3, "the highest; the schedule starts and ends lower", gt=0)
    schedule_per: Literal["step", "epoch"] = field("step", "when the learning rate changes")
    restarts: int = field(0, "how often the cosine starts again at the highest rate", ge=0)
    rise: float = field(
        0.15, "share of the training over which the learning rate rises", ge=0, le=1
    )
    rate_end: float = field(
        1e-3, "lowest learning rate, as a share of the highest; 1 = constant", ge=0, le=1
    )
    weight_decay: float = field(1e-2, "of the weights, in each update", ge=0)
    clip: float = field(1.0, "largest norm of the gradient", gt=0)
    patience: int = field(15, "epochs without a better validation loss before training stops", ge=1)
    min_delta: float = field(0.0, "nats per sample by which it must be better", ge=0)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = field(
        "auto", "auto: bfloat16 where it is fast; float16 scales the gradients"
    )
    deterministic: bool = field(False, "refuse operations whose result differs from run to run")
    device: str = field("auto", DEVICE)
    memory: float = field(2.0, "GiB that patterns may take in memory; more is streamed", gt=0)
    device_memory: float = field(8.0, "GiB that patterns may take on the GPU", ge=0)
    checkpoint_minutes: float = field(1.0, "most work that a kill can cost", gt=0)
    checkpoint_every: int = field(0, "keep one of every N-th epoch; 0 = the last only", ge=0)
    sheets_every: int = field(0, "keep decoded samples of every N-th epoch; 0 = none", ge=0)
    log: tuple[Literal["tensorboard"], ...] = field(
        (), "loggers beside the stored history: tensorboard"
    )
    seed: int = field(0, "of split, weights and order", ge=0)


class EncodeConfig(Config):
    """How latents are written."""

    passing: ClassVar[tuple[str, ...]] = ("run", "batch_size", "device")

    run: str = field(DEFAULT_RUN, RUN)
    batch_size: int = field(1024, "samples at once", ge=1)
    device: str = field("auto", DEVICE)
    precision: Literal["auto", "float32", "bfloat16"] = field("float32", "of the network's numbers")
    window: tuple[int, ...] | None = field(
        None,
        "pixels per spatial dim: spatial latents of samples that memory does not hold, piece by piece",
    )
    overlap: float = field(
        0.25, "share of a window that neighbouring windows have in common", ge=0, lt=1
    )
    max_points: int | None = field(
        None, "most points that are encoded, evenly spread over the region", ge=1
    )
    draws: int = field(0, "samples of z from each point's posterior, also written as z_draws", ge=0)
    seed: int = field(0, "of the draws", ge=0)

    def deciding(self) -> dict[str, Any]:
        """Settings that decide values: those without effect are left out."""
        deciding = super().deciding()
        if self.window is None:
            del deciding["overlap"]
        if self.max_points is None:
            del deciding["max_points"]
        if self.draws == 0:
            del deciding["draws"], deciding["seed"]
        return deciding


class ImportConfig(Config):
    """What a checkpoint is read as."""

    without_effect: ClassVar = {"model": "autoencoder-kl", "layout": "auto"}
    passing: ClassVar[tuple[str, ...]] = ("device",)

    prefix: str | None = field(
        None, "what stands before the names; default: found, where only one fits"
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
    out: Literal["variable"] | None = field(
        None, "variable: the reconstructions are written into the store too"
    )
    roi: RoiConfig | None = field(None, "conditions on scan points; default: the run's region")
    part: Literal["all", "train", "validation"] = field(
        "all", "points of the region, by the run's split"
    )
    units: Literal["stored", "preprocessed"] = field(
        "stored", "of what is given and judged; stored: each pattern gets back its own scale"
    )
    data_range: float | Literal["dtype", "sample"] | None = field(
        None,
        "of PSNR and SSIM: number, of the stored type, of each input; default: dtype for 8 bits",
    )
    examples: int = field(
        8, "samples kept as pictures, of the validation part where there is one", ge=0
    )
    seed: int = field(0, "of the choice of examples")
    batch_size: int = field(256, "samples at once, fewer where they are large", ge=1)
    device: str = field("auto", DEVICE)
    window: tuple[int, ...] | None = field(
        None, "pixels per spatial dim: spatial latents of large samples, window by window"
    )
    overlap: float = field(0.25, "share of their length that windows have in common at least")
    lpips_weights: Path | None = field(None, "file of a feature network, to measure LPIPS too")
    lpips_linear: Path | None = field(None, "file of the LPIPS weights on that network")

    def deciding(self) -> dict[str, Any]:
        """Without windows their overlap decides nothing."""
        return {
            key: v
            for key, v in super().deciding().items()
            if key != "overlap" or self.window is not None
        }


# ---- how latents are looked at ----


class SignificanceConfig(Config):
    """How likely an association as strong comes about by chance in maps whose neighbours are alike."""

    without_effect: ClassVar = {"method": "spectrum", "block": None}

    n_surrogates: int = field(
        199, "surrogate maps per target; the least p-value is 1 / (n + 1)", ge=19
    )
    max_points: int = field(
        2500,
        "points, spread over the region, that all metrics but correlations and their partial forms are tested on",
        ge=100,
    )
    correction: Literal["max", "fdr", "holm", "none"] = field(
        "max",
        "per target: Westfall-Young, Benjamini-Yekutieli or Holm (these two need many surrogates), or none",
    )
    seed: int = field(0, "of the surrogate maps", ge=0)


class AssociateConfig(Config):
    """Which metrics against which targets."""

    passing: ClassVar[tuple[str, ...]] = ("name",)

    run: str = field(DEFAULT_RUN, RUN)
    targets: tuple[str, ...] = field(
        (), "variables; empty = BC, every element, phase, as far as present"
    )
    metrics: tuple[str, ...] = field(("pearson", "spearman"), "registered metrics, or 'all'")
    quantiles: Quantiles = field(
        (0.0, 1.0),
        "elements in sums and rgb(...): these quantiles of their values in the region become 0 and 1",
    )
    significance: SignificanceConfig | None = field(None, "p-values from surrogate maps, if given")
    name: Name | None = field(None, "table association_<name> of the run; default: association")


class ClusterConfig(Config):
    """Which points belong together, by which variables."""

    passing: ClassVar[tuple[str, ...]] = ("name",)

    run: str = field(DEFAULT_RUN, "run whose latents and region of interest are used")
    name: Name = field("clusters", "variable that the labels are written to")
    features: tuple[str, ...] = field(
        ("latents",), "variables to cluster by: latents, BC, elements, any map"
    )
    latents: tuple[int, ...] = field((), "latent dimensions; empty = all")
    method: str = field("gmm", "registered method: gmm, kmeans, dbscan, hdbscan")
    scale: Literal["standard", "robust", "none"] = field(
        "standard", "to mean 0 and deviation 1, to median 0 and interquartile range 1, or as is"
    )
    k: int | None = field(None, "number of clusters; default: the best of k_min to k_max", ge=1)
    k_min: int = field(2, "least number of clusters that is tried", ge=1)
    k_max: int = field(12, "largest number of clusters that is tried", ge=2)
    criterion: Literal["bic", "aic", "silhouette", "hybrid"] = field(
        "bic", "how the mixture's k is chosen; hybrid: by the mean of its ranks in the other three"
    )
    covariance: Literal["full", "tied", "diag", "spherical"] = field(
        "full", "of the mixture's components"
    )
    eps: float | None = field(
        None, "DBSCAN's radius, in scaled units; default: k-distance curve", gt=0
    )
    eps_rule: Literal["quantile", "elbow"] = field(
        "quantile", "DBSCAN's radius: 0.98 quantile or elbow of the k-distance curve"
    )
    min_samples: int | None = field(None, "DBSCAN, HDBSCAN: neighbours of a core point", ge=1)
    min_cluster_size: int = field(20, "HDBSCAN: smallest cluster", ge=2)
    max_points: int = field(
        20_000,
        "points that slow methods are fitted on; the others get the label of what was found",
        ge=100,
    )
    seed: int = field(0, "of starts and sub-samples", ge=0)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.k_min > self.k_max:
            raise ValueError(f"k_min {self.k_min} is above k_max {self.k_max}")
        return self


# ---- settings as keywords of a function ----

C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Setting:
    """One setting: its place in the config, such as ("objective", "beta"), and the field that says
    all about it.
    """

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def default(self) -> Any:
        return self.field.get_default(call_default_factory=True)

    @property
    def group(self) -> type[Config] | None:
        """The config that this setting holds, if it holds one."""
        return group_of(self.field)

    @property
    def takes_none(self) -> bool:
        return type(None) in get_args(self.field.annotation)


def settings_of(config: type[Config]) -> dict[str, Setting]:
    """Every field of a config by its name, then its shortcuts: settings of its groups that have a
    name of their own.
    """
    found = {name: Setting((name,), field) for name, field in config.model_fields.items()}
    for name, place in config.shortcuts.items():
        group, _, inner = place.partition(".")
        below = group_of(config.model_fields[group])
        assert below is not None, place
        found[name] = Setting((group, inner), below.model_fields[inner])
    return found


def over(base: Any, changes: Any) -> Any:
    """Settings with others over them: mappings key by key, all else as a whole."""
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    return {**base, **{key: over(base.get(key), value) for key, value in changes.items()}}


def placed(kind: type[Config], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their names as the nested ones that a config is made from; a group also as a
    mapping or config.

    None leaves a setting as it is where it cannot be None itself. Raises UsageError for an unknown
    name.
    """
    known, values = settings_of(kind), dict[str, Any]()
    for name, value in given.items():
        if name not in known:
            raise UsageError(
                f"{kind.__name__} has no setting {name!r}.{did_you_mean(name, list(known))}"
            )
        whole = name in kind.model_fields and isinstance(
            value, Config | Mapping
        )  # `model`: a name, or the group
        path = (name,) if whole else known[name].path
        if value is not None or known[name].takes_none:
            values = over(
                values, functools.reduce(lambda inner, key: {key: inner}, reversed(path), value)
            )
    return values


def resolved(kind: type[C], config: C | None, given: Mapping[str, Any]) -> C:
    """The settings `config`, by default all as they are, with single ones over them, see `placed`."""
    base = {} if config is None else config.model_dump(exclude_unset=True)
    return kind.from_attrs(over(base, placed(kind, given)))


def refuse_settings_of_stores(settings: Config, names: Sequence[str], function: str) -> None:
    """Raise UsageError for settings that a function of arrays has no use for, and that the method
    of Run has.
    """
    usual = type(settings)()
    for name in names:
        if getattr(settings, name) != getattr(usual, name):
            raise UsageError(
                f"{name} is a setting of Run.{function}, which works on a store; va.{function} takes arrays, so "
                f"leave {name} out."
            )


def refuse_unknown(
    function: Callable[..., Any], keywords: type, settings: Mapping[str, Any]
) -> None:
    """Raise UsageError for a keyword that a function does not take.

    keywords: the type of its settings, see `vaearr.config.keywords`.
    """
    names: frozenset[str] = keywords.__optional_keys__  # type: ignore[attr-defined]
    for name in settings:
        if name not in names:
            parameters = inspect.signature(function).parameters
            hint = did_you_mean(name, sorted({*parameters, *names} - {"self", "settings"}))
            raise UsageError(f"{function.__name__} has no argument {name!r}.{hint}")
