"""How latents are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from vaearr.config.base import DEVICE, RUN, Config, field
from vaearr.names import BC, DEFAULT_RUN, is_valid_name


class SignificanceConfig(Config):
    """How likely an association as strong comes about by chance in maps whose neighbours are alike."""

    method: Literal["spectrum", "blocks"] = field(
        "spectrum", "surrogate maps: random fields with the map's own autocovariance, or shuffled blocks"
    )
    n_surrogates: int = field(199, "surrogate maps per target; the least p-value is 1 / (n + 1)", ge=19)
    block: int | None = field(None, "side of a block in scan points; default: from the correlation", ge=1)
    correction: Literal["max", "fdr", "holm", "none"] = field(
        "max", "per target: Westfall-Young, Benjamini-Yekutieli or Holm (these two need many surrogates), or none"
    )
    seed: int = field(0, "of the surrogate maps", ge=0)


class AssociateConfig(Config):
    """Which metrics against which targets."""

    passing: ClassVar[tuple[str, ...]] = ("name",)

    run: str = field(DEFAULT_RUN, RUN)
    targets: tuple[str, ...] = field((), "variables; empty = BC, every element, phase, as far as present")
    metrics: tuple[str, ...] = field(("pearson", "spearman"), "registered metrics, or 'all'")
    variable: str | None = field(None, "instead of the run's latents: pca, nmf, or any over one further dim")
    significance: SignificanceConfig | None = field(None, "p-values from surrogate maps, if given")
    name: str | None = field(None, "table association_<name> of the run; default: association[_<variable>]")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.name is not None and not is_valid_name(self.name):
            raise ValueError(f"name {self.name!r} must be letters, digits and _ and start with a letter")
        return self


class ClusterConfig(Config):
    """Which points belong together, by which variables."""

    passing: ClassVar[tuple[str, ...]] = ("name",)

    run: str = field(DEFAULT_RUN, "run whose latents and region of interest are used")
    name: str = field("clusters", "variable that the labels are written to")
    features: tuple[str, ...] = field(("latents",), "variables to cluster by: latents, pca, BC, elements, any map")
    latents: tuple[int, ...] = field((), "latent dimensions; empty = all")
    method: str = field("gmm", "registered method: gmm, kmeans, dbscan, hdbscan")
    scale: Literal["standard", "robust", "none"] = field(
        "standard", "to mean 0 and deviation 1, to median 0 and interquartile range 1, or as is"
    )
    k: int | None = field(None, "number of clusters; default: the best of k_min to k_max", ge=1)
    k_min: int = field(2, "least number of clusters that is tried", ge=1)
    k_max: int = field(12, "largest number of clusters that is tried", ge=2)
    criterion: Literal["bic", "aic", "silhouette"] = field("bic", "how k is chosen")
    covariance: Literal["full", "tied", "diag", "spherical"] = field("full", "of the mixture's components")
    eps: float | None = field(None, "DBSCAN's radius, in scaled units; default: k-distance curve", gt=0)
    eps_rule: Literal["quantile", "elbow"] = field(
        "quantile", "DBSCAN's radius: 0.98 quantile or elbow of the k-distance curve"
    )
    min_samples: int | None = field(None, "DBSCAN, HDBSCAN: neighbours of a core point", ge=1)
    min_cluster_size: int = field(20, "HDBSCAN: smallest cluster", ge=2)
    max_points: int = field(
        20_000, "points that slow methods are fitted on; the others get the label of what was found", ge=100
    )
    seed: int = field(0, "of starts and sub-samples", ge=0)

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

    run: str = field(DEFAULT_RUN, "run whose region of interest and preprocessing are used, if it is there")
    method: Literal["pca", "nmf"] = field("pca", "principal components, or non-negative factors with fixed endmembers")
    name: str | None = field(None, "variable that the scores are written to; default: the method's name")
    n_components: int | None = field(32, "components; none = PCA: up to the knee of the variance", ge=1)
    endmembers: tuple[tuple[float, float], ...] = field(
        (), "NMF: (x, y) of reference windows of 3 x 3 points, in coordinate units"
    )
    clusters: str | None = field(None, "NMF: cluster or phase map whose class means are the endmembers")
    elements: float = field(0.0, "NMF: weight of the element maps beside the patterns; 0 = without", ge=0)
    max_points: int = field(50_000, "points that components are found on, spread over the region", ge=100)
    batch_size: int = field(1024, "patterns at once", ge=1)
    device: str = field("auto", DEVICE)
    seed: int = field(0, "of starts and sub-samples", ge=0)

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

    run: str = field(DEFAULT_RUN, RUN)
    out: Path | None = field(None, "folder of the report; default: <store>.reports/<run>")
    max_maps: int = field(64, "most latent maps that the page holds", ge=1)


class ExportConfig(Config):
    """What an export holds."""

    format: str = field("seed0", "registered format: csv, parquet, npy, png, pdf, seed0")
    run: str = field(DEFAULT_RUN, "run whose latents and region are exported")
    variables: tuple[str, ...] = field(
        (), "tables: further columns; pictures: the maps to draw, empty = the sheet of latents"
    )
    points: Literal["roi", "all"] = field("roi", "tables: points of the region, or all")
    latents: tuple[int, ...] = field((), "latent dimensions in tables and maps; empty = all")
    dpi: int = field(300, "of pictures")
    target: str = field(BC, "seed0: band contrast variable")
    clusters: tuple[str, ...] = field((), "seed0: cluster maps of the store; empty = all of this run")
    methods: tuple[str, ...] = field((), "seed0: clusterings to make now, of one latent and the target")
    latent: int | None = field(
        None, "seed0: dimension in cluster files; default: the clustering's only one, else the strongest"
    )
    elements: tuple[str, ...] = field((), "seed0: of the element sum; empty = all")
    weights: tuple[float, ...] = field((), "seed0: of these elements; empty = equal")
    synth_mode: Literal["sum", "rgb"] = field("sum", "seed0: sum of elements, or luminance of one to three")
    rgb_elements: tuple[str, ...] = field((), "seed0: elements that are red, green and blue")
    reference: str | None = field(None, "seed0: scores to compare clusters with; default: pca, else nmf")
    seed: int = field(0, "seed0: of clusterings and mixtures made here")
