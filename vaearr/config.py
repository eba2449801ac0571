"""Frozen, typed settings: the same object drives the Python call, the command line and the Prefect form.

Settings travel with what they produced: `to_attrs` gives plain JSON for the attributes of a store, `from_attrs` reads
it back, and an unknown key is an error that lists the valid ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vaearr.errors import UsageError, did_you_mean
from vaearr.names import DEFAULT_RUN, is_valid_name


class Config(BaseModel):
    """Base of all settings: frozen, no unknown keys, finite numbers only, JSON both ways (which knows no NaN)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def to_attrs(self) -> dict[str, Any]:
        """Plain JSON-ready dict, as stored in attributes."""
        return self.model_dump(mode="json")

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


def _in_words(cls: type[BaseModel], error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or cls.__name__
        if item["type"] == "extra_forbidden":
            parts.append(f"{cls.__name__} has no setting {key!r}.{did_you_mean(key, sorted(cls.model_fields))}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            if item["loc"]:
                parts.append(f"{cls.__name__}.{key}: {message} (got {item['input']!r}).")
            else:  # of several settings together
                parts.append(f"{cls.__name__}: {message}.")
    return " ".join(parts)


Interval = tuple[float, float]


class IngestConfig(Config):
    """How a source becomes a store."""

    images: str = Field("images", description="dataset in the HDF5 file that holds the patterns")
    coords: str = Field("coords", description="dataset in the HDF5 file that holds [x, y] of each pattern")
    step: float | None = Field(None, gt=0, description="distance of neighbouring scan points in `units`")
    units: str = Field("um", description="unit of the step; coordinates are step numbers where no step is known")
    maps: dict[str, Path] = Field(default_factory=dict, description="name -> CSV with x, y and one value column")
    elements: Path | None = Field(None, description="CSV with x, y and one column per element")
    element_units: str = Field("wt%", description="unit of the element columns")
    phases: Path | None = Field(None, description="CSV with x, y and a phase number, -1 = not indexed")
    phase_names: dict[int, str] = Field(default_factory=dict, description="phase number -> name")
    orientations: Path | None = Field(None, description=".ang or .ctf map of the scan: orientations, phases, quality")
    scan: str | None = Field(None, description="scan in a vendor file that holds several; default: the first")
    nav_shape: tuple[int, int] | None = Field(
        None, description="(rows, columns) of the scan, for a vendor file that stores patterns but no scan shape"
    )
    filenames: str | None = Field(
        None,
        description="how names of image files tell the scan point: a template such as 'x{x}_y{y}' or '{y}_{x}', or a "
        "regular expression with the groups x and y",
    )
    crop: dict[Literal["dy", "dx"], tuple[float | None, float | None]] = Field(
        default_factory=dict, description="start <= detector pixel < stop that is kept along dy and dx; none = no limit"
    )
    bin: int = Field(
        1, ge=1, description="side of the blocks of detector pixels that become one, their mean in float32; after crop"
    )
    nonfinite: Literal["error", "mask"] = Field(
        "error", description="patterns with NaN or infinite values: refuse the file, or leave these scan points out"
    )
    format: str | None = Field(
        None, description="name of the source format, such as images, where the path alone would be taken for another"
    )
    size: tuple[int, ...] | None = Field(
        None, description="collections: (rows, columns) of every image, or (z, y, x) of every volume, in pixels"
    )
    fit: Literal["pad", "crop", "squash"] = Field(
        "pad",
        description="how another size becomes `size`. Images: scaled to fit inside and padded with 0, scaled to cover "
        "and cut, or stretched. Volumes: padded, cut and padded, or resampled",
    )
    channels: Literal["auto", "grey", "colour"] = Field(
        "auto", description="images: as they are (all alike), all converted to grey, or all to red, green and blue"
    )
    masks: str = Field("*_mask*", description="names of mask files, * first for the image's own name; '' = no masks")
    manifest: Path | None = Field(None, description="CSV with path, label and further columns for a folder's files")
    label_column: str = Field("label", description="column of the manifest that holds the label")
    classes: tuple[str, ...] = Field((), description="labels of the samples to take; empty = all")
    exclude: tuple[str, ...] = Field((), description="patterns of paths to leave out, such as '*/old/*'")
    spacing: tuple[float, float, float] | None = Field(
        None, description="volumes: distance of voxels (z, y, x) in mm to resample to, before `size`"
    )
    skip_bad: bool = Field(False, description="collections: leave out files that cannot be read, and list them")

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.maps:
            if not is_valid_name(name):
                raise ValueError(f"map name {name!r} must be letters, digits and _ and start with a letter")
        if self.nav_shape is not None and min(self.nav_shape) < 1:
            raise ValueError(f"nav_shape {self.nav_shape} must be two positive numbers, (rows, columns)")
        if self.size is not None and (len(self.size) not in (2, 3) or min(self.size) < 1):
            raise ValueError(f"size {self.size} must be two or three positive numbers")
        if self.spacing is not None and min(self.spacing) <= 0:
            raise ValueError(f"spacing {self.spacing} must be three positive numbers, (z, y, x) in mm")
        if self.masks and not self.masks.startswith("*"):
            raise ValueError(f"masks={self.masks!r} must begin with *, which stands for the image's own name")
        for dim, (start, stop) in self.crop.items():
            if start is not None and stop is not None and not start < stop:
                raise ValueError(f"the window {dim}=({start:g}, {stop:g}) is empty: give start < stop")
        return self


class RoiConfig(Config):
    """Region of interest: half-open boxes in coordinate units and a condition on maps, all of which must hold."""

    x: Interval | None = Field(None, description="x0 <= x < x1, coordinate units")
    y: Interval | None = Field(None, description="y0 <= y < y1, coordinate units")
    z: Interval | None = Field(None, description="z0 <= z < z1, coordinate units")
    where: str | None = Field(None, description="condition on maps, such as 'BC > 45 and elements[\"Fe\"] > 20'")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.where is not None and not self.where.strip():
            raise ValueError("the condition `where` is blank: write one like 'BC > 45', or leave it out")
        return self

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("x", "y", "z"):
            box = getattr(self, name)
            if box is not None and not box[0] < box[1]:
                raise ValueError(f"the box {name}={box} is empty: give start < stop")
        return self


class SplitConfig(Config):
    """Which scan points validate: whole spatial blocks by default, so that neighbours do not leak."""

    method: Literal["blocks", "random", "groups", "stratified"] = Field(
        "blocks",
        description="blocks of scan points, single ones, whole groups with one value of `by` (such as a subject), or "
        "the same share of each class of `by`",
    )
    fraction: float = Field(0.05, ge=0, lt=1, description="share of the scan points kept for validation")
    block: int = Field(4, ge=1, description="side of a block in scan points; below the size of a grain")
    by: str | None = Field(
        None, description="map or coordinate of the groups or classes; default: subject (groups), label (stratified)"
    )


class PreprocessConfig(Config):
    """What the network sees of a pattern; applied on the device, from the stored dtype, and recorded with the model."""

    static_background: Literal["none", "subtract", "divide"] = Field(
        "divide", description="mean pattern over the training points"
    )
    dynamic_background: float = Field(
        0.0,
        ge=0,
        description="standard deviation of the Gaussian low-pass removed from each pattern, as a share of "
        "the pattern's smaller side; 0 = off",
    )
    normalise: Literal["none", "zscore", "robust", "minmax"] = Field("zscore", description="per pattern")


class ModelConfig(Config):
    """Which network; `options` are the keyword arguments of the registered model."""

    name: str = "conv"
    latent_dim: int = Field(32, ge=1, le=4096)
    options: dict[str, Any] = Field(default_factory=dict)


class ObjectiveConfig(Config):
    """The loss, in nats per sample: loss = reconstruction_nll + beta * kl."""

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
    input_noise: float = Field(
        1.0,
        ge=0,
        description="standard deviation of noise added to the network's input in training, preprocessed units",
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
    noise: float = Field(0.0, ge=0, description="standard deviation of noise on the input, on top of input_noise")
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
    init: str | None = Field(None, description="run of the same store whose weights training starts from (fine-tuning)")
    epochs: int = Field(40, ge=1)
    batch_size: int = Field(128, ge=2, description="patterns per step and process")
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
    log: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        (), description="experiment loggers beside the stored history"
    )
    seed: int = Field(0, ge=0)


class EncodeConfig(Config):
    """How latents are written."""

    run: str = DEFAULT_RUN
    batch_size: int = Field(1024, ge=1)
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "float32"


class SignificanceConfig(Config):
    """How likely an association as strong comes about by chance in maps whose neighbours are alike."""

    method: Literal["spectrum", "blocks"] = Field(
        "spectrum", description="surrogate maps: random fields with the map's own autocovariance, or shuffled blocks"
    )
    n_surrogates: int = Field(199, ge=19, description="surrogate maps per target; the least p-value is 1 / (n + 1)")
    block: int | None = Field(None, ge=1, description="side of a block in scan points; default: from the correlation")
    correction: Literal["max", "fdr", "holm", "none"] = Field(
        "max",
        description="over latents and metrics, per target: largest of all in each surrogate map (Westfall-Young), "
        "Benjamini-Yekutieli or Holm, which need many surrogates, or none",
    )
    seed: int = Field(0, ge=0)


class AssociateConfig(Config):
    """Which metrics against which targets."""

    run: str = DEFAULT_RUN
    targets: tuple[str, ...] = Field((), description="variables; empty = BC, every element, phase, as far as present")
    metrics: tuple[str, ...] = Field(("pearson", "spearman"), description="registered metrics, or 'all'")
    variable: str | None = Field(
        None, description="variable to associate instead of the run's latents: pca, nmf, or any over one further dim"
    )
    significance: SignificanceConfig | None = Field(None, description="p-values from surrogate maps, if given")


class ClusterConfig(Config):
    """Which points belong together, by which variables."""

    run: str = Field(DEFAULT_RUN, description="run whose latents and region of interest are used")
    name: str = Field("clusters", description="variable that the labels are written to")
    features: tuple[str, ...] = Field(
        ("latents",), description="variables to cluster by: latents, pca, BC, elements, any map"
    )
    latents: tuple[int, ...] = Field((), description="latent dimensions; empty = all")
    method: str = Field("gmm", description="registered method: gmm, kmeans, dbscan, hdbscan")
    scale: Literal["standard", "robust", "none"] = Field(
        "standard",
        description="each feature to mean 0 and deviation 1, to median 0 and interquartile range 1, or as is",
    )
    k: int | None = Field(None, ge=1, description="number of clusters; default: the best of k_min to k_max")
    k_min: int = Field(2, ge=1)
    k_max: int = Field(12, ge=2)
    criterion: Literal["bic", "aic", "silhouette"] = Field("bic", description="how k is chosen")
    covariance: Literal["full", "tied", "diag", "spherical"] = Field("full", description="of the mixture's components")
    eps: float | None = Field(None, gt=0, description="DBSCAN's radius, in scaled units; default: k-distance curve")
    eps_rule: Literal["quantile", "elbow"] = Field(
        "quantile", description="DBSCAN's radius from the k-distance curve: its 0.98 quantile, or its elbow"
    )
    min_samples: int | None = Field(None, ge=1, description="DBSCAN, HDBSCAN: neighbours of a core point")
    min_cluster_size: int = Field(20, ge=2, description="HDBSCAN: smallest cluster")
    max_points: int = Field(
        20_000,
        ge=100,
        description="points that a method which grows faster than linearly is fitted on; the others get "
        "the label of what was found",
    )
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not is_valid_name(self.name):
            raise ValueError(f"name {self.name!r} must be letters, digits and _ and start with a letter")
        if self.k_min > self.k_max:
            raise ValueError(f"k_min {self.k_min} is above k_max {self.k_max}")
        return self


class EmbedConfig(Config):
    """A linear decomposition of the patterns, beside the latents and on the same footing."""

    run: str = Field(DEFAULT_RUN, description="run whose region of interest and preprocessing are used, if it is there")
    method: Literal["pca", "nmf"] = "pca"
    name: str | None = Field(None, description="variable that the scores are written to; default: the method's name")
    n_components: int | None = Field(32, ge=1, description="components; none = PCA: up to the knee of the variance")
    endmembers: tuple[tuple[float, float], ...] = Field(
        (), description="NMF: (x, y) of the reference points, coordinate units, each the mean of a 3 x 3 window"
    )
    clusters: str | None = Field(None, description="NMF: cluster or phase map whose class means are the endmembers")
    elements: float = Field(0.0, ge=0, description="NMF: weight of the element maps beside the patterns; 0 = without")
    max_points: int = Field(50_000, ge=100, description="points that components are found on, spread over the region")
    batch_size: int = Field(1024, ge=1)
    device: str = "auto"
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.name is not None and not is_valid_name(self.name):
            raise ValueError(f"name {self.name!r} must be letters, digits and _ and start with a letter")
        if self.endmembers and self.clusters:
            raise ValueError("endmembers and clusters both say what the endmembers are: set one of them")
        return self


class ReportConfig(Config):
    """What the report page shows."""

    run: str = DEFAULT_RUN
    out: Path | None = Field(None, description="folder of the report; default: <store>.reports/<run>")
    max_maps: int = Field(64, ge=1, description="most latent maps that the page holds")
