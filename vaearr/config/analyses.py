"""How latents are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from vaearr.config.base import DEVICE, RUN, Config
from vaearr.names import BC, DEFAULT_RUN, is_valid_name


class SignificanceConfig(Config):
    """How likely an association as strong comes about by chance in maps whose neighbours are alike."""

    method: Literal["spectrum", "blocks"] = Field(
        default="spectrum",
        description="surrogate maps: random fields with the map's own autocovariance, or shuffled blocks",
    )
    n_surrogates: int = Field(
        default=199, ge=19, description="surrogate maps per target; the least p-value is 1 / (n + 1)"
    )
    block: int | None = Field(
        default=None, ge=1, description="side of a block in scan points; default: from the correlation"
    )
    correction: Literal["max", "fdr", "holm", "none"] = Field(
        default="max",
        description="over latents and metrics, per target: largest of all in each surrogate map (Westfall-Young), "
        "Benjamini-Yekutieli or Holm, which need many surrogates, or none",
    )
    seed: int = Field(default=0, ge=0, description="of the surrogate maps")


class AssociateConfig(Config):
    """Which metrics against which targets."""

    passing: ClassVar[tuple[str, ...]] = ("name",)

    run: str = Field(default=DEFAULT_RUN, description=RUN)
    targets: tuple[str, ...] = Field(
        default=(), description="variables; empty = BC, every element, phase, as far as present"
    )
    metrics: tuple[str, ...] = Field(default=("pearson", "spearman"), description="registered metrics, or 'all'")
    variable: str | None = Field(
        default=None,
        description="variable to associate instead of the run's latents: pca, nmf, or any over one further dim",
    )
    significance: SignificanceConfig | None = Field(default=None, description="p-values from surrogate maps, if given")
    name: str | None = Field(
        default=None,
        description="kept as table association_<name> of the run; default: association, or association_<variable>",
    )

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.name is not None and not is_valid_name(self.name):
            raise ValueError(f"name {self.name!r} must be letters, digits and _ and start with a letter")
        return self


class ClusterConfig(Config):
    """Which points belong together, by which variables."""

    passing: ClassVar[tuple[str, ...]] = ("name",)

    run: str = Field(default=DEFAULT_RUN, description="run whose latents and region of interest are used")
    name: str = Field(default="clusters", description="variable that the labels are written to")
    features: tuple[str, ...] = Field(
        default=("latents",), description="variables to cluster by: latents, pca, BC, elements, any map"
    )
    latents: tuple[int, ...] = Field(default=(), description="latent dimensions; empty = all")
    method: str = Field(default="gmm", description="registered method: gmm, kmeans, dbscan, hdbscan")
    scale: Literal["standard", "robust", "none"] = Field(
        default="standard",
        description="each feature to mean 0 and deviation 1, to median 0 and interquartile range 1, or as is",
    )
    k: int | None = Field(default=None, ge=1, description="number of clusters; default: the best of k_min to k_max")
    k_min: int = Field(default=2, ge=1, description="least number of clusters that is tried")
    k_max: int = Field(default=12, ge=2, description="largest number of clusters that is tried")
    criterion: Literal["bic", "aic", "silhouette"] = Field(default="bic", description="how k is chosen")
    covariance: Literal["full", "tied", "diag", "spherical"] = Field(
        default="full", description="of the mixture's components"
    )
    eps: float | None = Field(
        default=None, gt=0, description="DBSCAN's radius, in scaled units; default: k-distance curve"
    )
    eps_rule: Literal["quantile", "elbow"] = Field(
        default="quantile", description="DBSCAN's radius from the k-distance curve: its 0.98 quantile, or its elbow"
    )
    min_samples: int | None = Field(default=None, ge=1, description="DBSCAN, HDBSCAN: neighbours of a core point")
    min_cluster_size: int = Field(default=20, ge=2, description="HDBSCAN: smallest cluster")
    max_points: int = Field(
        default=20_000,
        ge=100,
        description="points that a method which grows faster than linearly is fitted on; the others get "
        "the label of what was found",
    )
    seed: int = Field(default=0, ge=0, description="of starts and sub-samples")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not is_valid_name(self.name):
            raise ValueError(f"name {self.name!r} must be letters, digits and _ and start with a letter")
        if self.k_min > self.k_max:
            raise ValueError(f"k_min {self.k_min} is above k_max {self.k_max}")
        return self


class EmbedConfig(Config):
    """A linear decomposition of the patterns, beside the latents and on the same footing."""

    passing: ClassVar[tuple[str, ...]] = ("name", "batch_size", "device")

    run: str = Field(
        default=DEFAULT_RUN, description="run whose region of interest and preprocessing are used, if it is there"
    )
    method: Literal["pca", "nmf"] = Field(
        default="pca", description="principal components, or non-negative factors with fixed endmembers"
    )
    name: str | None = Field(
        default=None, description="variable that the scores are written to; default: the method's name"
    )
    n_components: int | None = Field(
        default=32, ge=1, description="components; none = PCA: up to the knee of the variance"
    )
    endmembers: tuple[tuple[float, float], ...] = Field(
        default=(), description="NMF: (x, y) of the reference points, coordinate units, each the mean of a 3 x 3 window"
    )
    clusters: str | None = Field(
        default=None, description="NMF: cluster or phase map whose class means are the endmembers"
    )
    elements: float = Field(
        default=0.0, ge=0, description="NMF: weight of the element maps beside the patterns; 0 = without"
    )
    max_points: int = Field(
        default=50_000, ge=100, description="points that components are found on, spread over the region"
    )
    batch_size: int = Field(default=1024, ge=1, description="patterns at once")
    device: str = Field(default="auto", description=DEVICE)
    seed: int = Field(default=0, ge=0, description="of starts and sub-samples")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.name is not None and not is_valid_name(self.name):
            raise ValueError(f"name {self.name!r} must be letters, digits and _ and start with a letter")
        if self.endmembers and self.clusters:
            raise ValueError("endmembers and clusters both say what the endmembers are: set one of them")
        return self


class ReportConfig(Config):
    """What the report page shows."""

    passing: ClassVar[tuple[str, ...]] = ("out",)

    run: str = Field(default=DEFAULT_RUN, description=RUN)
    out: Path | None = Field(default=None, description="folder of the report; default: <store>.reports/<run>")
    max_maps: int = Field(default=64, ge=1, description="most latent maps that the page holds")


class ExportConfig(Config):
    """What an export holds."""

    format: str = Field(default="seed0", description="registered format: csv, parquet, npy, png, pdf, seed0")
    run: str = Field(default=DEFAULT_RUN, description="run whose latents and region are exported")
    variables: tuple[str, ...] = Field(
        default=(),
        description="tables: further columns (BC, phase, split, clusters …); pictures: the maps to draw, empty = the "
        "sheet of latents",
    )
    points: Literal["roi", "all"] = Field(default="roi", description="tables: points of the region, or all")
    latents: tuple[int, ...] = Field(default=(), description="latent dimensions in tables and maps; empty = all")
    dpi: int = Field(default=300, description="of pictures")
    target: str = Field(default=BC, description="seed0: band contrast variable")
    clusters: tuple[str, ...] = Field(
        default=(), description="seed0: cluster maps of the store; empty = all that a clustering of this run wrote"
    )
    methods: tuple[str, ...] = Field(
        default=(), description="seed0: clusterings to make now, of one latent and the target"
    )
    latent: int | None = Field(
        default=None,
        description="seed0: dimension beside the target in cluster files; default: the clustering's own if it used "
        "one, else the strongest by |Pearson|",
    )
    elements: tuple[str, ...] = Field(default=(), description="seed0: of the element sum; empty = all")
    weights: tuple[float, ...] = Field(default=(), description="seed0: of these elements; empty = equal")
    synth_mode: Literal["sum", "rgb"] = Field(
        default="sum", description="seed0: sum of elements, or luminance of one to three"
    )
    rgb_elements: tuple[str, ...] = Field(default=(), description="seed0: elements that are red, green and blue")
    reference: str | None = Field(
        default=None,
        description="seed0: scores that clusters of each latent are compared with; default: pca, else nmf, if there",
    )
    seed: int = Field(default=0, description="seed0: of clusterings and mixtures made here")
