"""Settings of the steps that follow a training."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from vaearr.config.base import DEVICE, RUN, Config, Name, Quantiles, field
from vaearr.config.data import RoiConfig
from vaearr.names import DEFAULT_RUN, RECONSTRUCTION

TARGETS = "variables; empty = BC, every element and phase, if present"


METRICS = (
    "'all', or pearson, spearman, kendall, mutual_information, distance_correlation, "
    "distance_correlation_unbiased, hsic, hsic_normalised, hsic_unbiased, partial_pearson, "
    "partial_pearson_2 or _3, or a registered one"
)


class EncodeConfig(Config):
    """How latents are written."""

    not_deciding: ClassVar = ("run", "batch_size", "device")
    effective_with: ClassVar = {"overlap": "window", "seed": "draws"}

    run: str = field(DEFAULT_RUN, RUN)
    batch_size: int = field(1024, "samples at once", ge=1)
    device: str = field("auto", DEVICE)
    precision: Literal["auto", "float32", "bfloat16"] = field(
        "float32", "number format of the network"
    )
    window: tuple[int, ...] | None = field(
        None,
        "pixels per spatial dim: spatial latents of samples that do not fit in memory, window by "
        "window",
    )
    overlap: float = field(
        0.25, "share of a window that neighbouring windows have in common", ge=0, lt=1
    )
    max_points: int | None = field(
        None, "largest number of encoded points, evenly spread over the region", ge=1
    )
    draws: int = field(
        0, "samples of z from the posterior of each point, also written as z_draws", ge=0
    )
    seed: int = field(0, "random seed of these samples", ge=0)


class ReconstructConfig(Config):
    """What is reconstructed and how it is evaluated."""

    not_deciding: ClassVar = ("out", "device", "batch_size", "name")
    effective_with: ClassVar = {"overlap": "window"}

    run: str = field(DEFAULT_RUN, RUN)
    name: str = field(RECONSTRUCTION, "table of the run and, with out, variable of the store")
    out: Literal["variable"] | None = field(
        None, "variable: also write the reconstructions into the store"
    )
    roi: RoiConfig | None = field(None, "conditions on scan points; default: the run's region")
    part: Literal["all", "train", "validation"] = field(
        "all", "points of the region, by the run's split"
    )
    units: Literal["stored", "preprocessed"] = field(
        "stored", "units of the result; stored: the scale of each pattern is restored"
    )
    data_range: float | Literal["dtype", "sample"] | None = field(
        None,
        "range for PSNR and SSIM: a number, that of the stored type, or of each input; default: "
        "dtype for 8 bits",
    )
    examples: int = field(
        8, "samples kept as pictures, of the validation part if there is one", ge=0
    )
    seed: int = field(0, "random seed of the choice of examples")
    batch_size: int = field(256, "samples at once, fewer if they are large", ge=1)
    device: str = field("auto", DEVICE)
    window: tuple[int, ...] | None = field(
        None, "pixels per spatial dim: spatial latents of large samples, window by window"
    )
    overlap: float = field(0.25, "least share of a window that neighbouring windows have in common")
    lpips_weights: Path | None = field(None, "file of a feature network, to measure LPIPS too")
    lpips_linear: Path | None = field(None, "file of the LPIPS weights for that network")


class SignificanceConfig(Config):
    """How likely such a strong association is by chance, in maps with similar neighbours."""

    without_effect: ClassVar = {"method": "spectrum", "block": None, "correction": "max"}

    n_surrogates: int = field(
        199, "surrogate maps per target; the smallest p-value is 1 / (n + 1)", ge=19
    )
    max_points: int = field(
        2500,
        "points, spread over the region, for the tests of all metrics but correlations and their "
        "partial forms",
        ge=100,
    )
    seed: int = field(0, "random seed of the surrogate maps", ge=0)


class AssociateConfig(Config):
    """Which metrics are computed for which targets."""

    not_deciding: ClassVar = ("name",)

    run: str = field(DEFAULT_RUN, RUN)
    targets: tuple[str, ...] = field((), TARGETS)
    metrics: tuple[str, ...] = field(("pearson", "spearman"), METRICS)
    quantiles: Quantiles = field(
        (0.0, 1.0),
        "elements in sums and rgb(...): these quantiles of their values in the region become 0 "
        "and 1",
    )
    significance: SignificanceConfig | None = field(None, "p-values from surrogate maps, if set")
    name: Name | None = field(None, "table association_<name> of the run; default: association")


class ClusterConfig(Config):
    """How points are grouped, and by which variables."""

    not_deciding: ClassVar = ("name",)

    run: str = field(DEFAULT_RUN, "run whose latents and region of interest are used")
    name: Name = field("clusters", "variable that the labels are written to")
    features: tuple[str, ...] = field(
        ("latents",), "variables to cluster by: latents, BC, elements, any map"
    )
    latents: tuple[int, ...] = field((), "latent dimensions; empty = all")
    method: str = field("gmm", "registered method: gmm, kmeans, dbscan, hdbscan")
    scale: Literal["standard", "robust", "none"] = field(
        "standard", "to mean 0 and deviation 1, to median 0 and interquartile range 1, or not"
    )
    k: int | None = field(None, "number of clusters; default: the best of k_min to k_max", ge=1)
    k_min: int = field(2, "smallest number of clusters that is tried", ge=1)
    k_max: int = field(12, "largest number of clusters that is tried", ge=2)
    criterion: Literal["bic", "aic", "silhouette", "hybrid"] = field(
        "bic", "how k of the mixture is chosen; hybrid: by its mean rank in the other three"
    )
    covariance: Literal["full", "tied", "diag", "spherical"] = field(
        "full", "covariance of the components of the mixture"
    )
    eps: float | None = field(
        None, "DBSCAN's radius, in scaled units; default: from the k-distance curve", gt=0
    )
    eps_rule: Literal["quantile", "elbow"] = field(
        "quantile", "DBSCAN's radius: 0.98 quantile or elbow of the k-distance curve"
    )
    min_samples: int | None = field(None, "DBSCAN, HDBSCAN: neighbours of a core point", ge=1)
    min_cluster_size: int = field(20, "HDBSCAN: size of the smallest cluster", ge=2)
    max_points: int = field(
        20_000,
        "largest number of points that slow methods are fitted on; the others are then assigned",
        ge=100,
    )
    seed: int = field(0, "random seed of starts and subsamples", ge=0)

    @model_validator(mode="after")
    def _has_range_of_k(self) -> Self:
        if self.k_min > self.k_max:
            raise ValueError(f"k_min {self.k_min} is above k_max {self.k_max}")
        return self


class ProbeConfig(Config):
    """How well targets can be predicted from features, at points that were left out."""

    not_deciding: ClassVar = ("name",)

    run: str = field(DEFAULT_RUN, RUN)
    targets: tuple[str, ...] = field((), TARGETS)
    features: tuple[str, ...] = field(
        (),
        "variables, each a set: patterns, BC, any map; empty = the latents, and those of a run pca",
    )
    by: str | None = field(
        None,
        "what a fold leaves out: a map or coordinate of groups, blocks, random; default: blocks; "
        "groups of a collection",
    )
    folds: int = field(5, "number of folds", ge=2)
    max_points: int = field(
        5000, "points that probes are trained and evaluated on, sampled from the region", ge=100
    )
    n_permutations: int = field(
        99, "random targets for the p-value, 0 = none; the smallest is 1 / (n + 1)", ge=0
    )
    name: Name | None = field(None, "table probe_<name> of the run; default: probe")
    seed: int = field(0, "random seed of points, folds and random targets", ge=0)
