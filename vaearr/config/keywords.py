"""Types of the settings that are keywords of a function.

Made from `vaearr.config` by `make keywords`; do not edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from vaearr import config


class IngestSettings(TypedDict, total=False):
    """Settings of `IngestConfig`."""

    images: str  # dataset of the HDF5 file with the patterns
    coords: str  # dataset of the HDF5 file with [x, y] of each pattern
    step: float | None  # distance between neighbouring scan points in `units`
    units: str  # unit of the step; without a step, coordinates are step numbers
    maps: Mapping[str, str | Path]  # name -> CSV with x, y and one value column
    elements: str | Path | None  # CSV with x, y and one column per element, or .tsv maps
    element_units: str  # unit of the element columns
    phases: str | Path | None  # CSV with x, y and a phase number, -1 = not indexed
    phase_names: Mapping[int, str]  # phase number -> name, such as 0=nickel
    orientations: str | Path | None  # .ang or .ctf map of the scan: orientations, phases, quality
    scan: str | None  # scan of a vendor file that holds several; default: the first
    nav_shape: Sequence[int] | None  # (rows, columns) of a vendor file that does not specify them
    filenames: str | None
    nonfinite: Literal["error", "mask"]
    format: str | None  # source format, such as images, if the path is recognised as another
    size: Sequence[int] | None
    fit: Literal["pad", "crop", "squash"]
    channels: Literal["auto", "grey", "colour"]
    masks: str  # images: names of mask files, which are left out; '' = none
    manifest: str | Path | None
    label_column: str  # column of the manifest with the label
    label_map: Mapping[str, str]
    classes: Sequence[str]  # labels of the samples to read; empty = all
    n_samples: int | None  # collections: size of a random subset; default: all samples
    subset_seed: int  # collections: random seed of that subset
    exclude: Sequence[str]  # patterns of paths to leave out, such as '*/old/*'
    spacing: Sequence[float] | None


class TrainSettings(TypedDict, total=False):
    """Settings of `TrainConfig`."""

    model: str | config.ModelConfig | Mapping[str, Any]
    preprocess: config.PreprocessConfig | Mapping[str, Any]  # how patterns are preprocessed
    objective: config.ObjectiveConfig | Mapping[str, Any]  # the loss
    split: config.SplitConfig | Mapping[str, Any]  # which scan points are used for validation
    augment: config.AugmentConfig | Mapping[str, Any]  # random changes of the training patterns
    balance: str | None  # map of classes that batches are balanced by; rare classes are repeated
    init: str | None
    epochs: int  # largest number of epochs
    epoch_samples: int | None
    batch_size: int  # patterns per step, in each process
    optimizer: Literal["adamw", "adam", "sgd"]  # optimizer
    learning_rate: float  # highest learning rate; the schedule starts and ends lower
    schedule_per: Literal["step", "epoch"]  # when the learning rate changes
    restarts: int  # number of times that the cosine schedule restarts at the highest rate
    rise: float  # share of the training over which the learning rate rises
    rate_end: float  # lowest learning rate, as a share of the highest; 1 = constant
    weight_decay: float  # weight decay in each update
    clip: float  # largest norm of the gradient
    patience: int  # epochs without a better validation loss before training stops
    min_delta: float  # nats per sample by which it must improve
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    deterministic: bool  # refuse operations whose result differs from run to run
    device: str  # auto, cpu, cuda, cuda:1 or mps
    memory: float  # GiB that patterns may take in memory; more is streamed
    device_memory: float  # GiB that patterns may take on the GPU
    checkpoint_minutes: float  # time between checkpoints: the most work that an interruption costs
    checkpoint_every: int  # keep the checkpoint of every N-th epoch; 0 = the last only
    sheets_every: int  # keep decoded samples of every N-th epoch; 0 = none
    log: Sequence[Literal["tensorboard"]]  # loggers in addition to the stored history: tensorboard
    seed: int  # random seed of split, weights and order
    latent_dim: int | Literal["auto"]
    beta: float  # weight of the KL divergence


class ImportSettings(TypedDict, total=False):
    """Settings of `ImportConfig`."""

    prefix: str | None  # prefix of the names of the weights; default: the only one that fits
    latent_dim: int | None  # number of latent dimensions; default: from the checkpoint
    options: Mapping[str, Any] | None  # keyword arguments of the model, such as `groups`
    preprocess: config.PreprocessConfig | Mapping[str, Any]
    device: str  # for the health of the latents: auto, cpu, cuda, cuda:1 or mps
    seed: int  # random seed of the samples that the health is measured on


class EncodeSettings(TypedDict, total=False):
    """Settings of `EncodeConfig`."""

    batch_size: int  # samples at once
    device: str  # auto, cpu, cuda, cuda:1 or mps
    precision: Literal["auto", "float32", "bfloat16"]  # number format of the network
    window: Sequence[int] | None
    overlap: float  # share of a window that neighbouring windows have in common
    max_points: int | None  # largest number of encoded points, evenly spread over the region
    draws: int  # samples of z from the posterior of each point, also written as z_draws
    seed: int  # random seed of these samples


class ReconstructSettings(TypedDict, total=False):
    """Settings of `ReconstructConfig`."""

    name: str  # table of the run and, with out, variable of the store
    out: Literal["variable"] | None  # variable: also write the reconstructions into the store
    part: Literal["all", "train", "validation"]  # points of the region, by the run's split
    units: Literal["stored", "preprocessed"]
    data_range: float | Literal["dtype", "sample"] | None
    examples: int  # samples kept as pictures, of the validation part if there is one
    seed: int  # random seed of the choice of examples
    batch_size: int  # samples at once, fewer if they are large
    device: str  # auto, cpu, cuda, cuda:1 or mps
    window: Sequence[int] | None
    overlap: float  # least share of a window that neighbouring windows have in common
    lpips_weights: str | Path | None  # file of a feature network, to measure LPIPS too
    lpips_linear: str | Path | None  # file of the LPIPS weights for that network


class AssociateSettings(TypedDict, total=False):
    """Settings of `AssociateConfig`."""

    metrics: Sequence[str]
    quantiles: Sequence[float]
    name: str | None  # table association_<name> of the run; default: association


class ClusterArraySettings(TypedDict, total=False):
    """Settings of `ClusterConfig`."""

    latents: Sequence[int]  # latent dimensions; empty = all
    scale: Literal["standard", "robust", "none"]
    k: int | None  # number of clusters; default: the best of k_min to k_max
    k_min: int  # smallest number of clusters that is tried
    k_max: int  # largest number of clusters that is tried
    criterion: Literal["bic", "aic", "silhouette", "hybrid"]
    covariance: Literal["full", "tied", "diag", "spherical"]
    eps: float | None  # DBSCAN's radius, in scaled units; default: from the k-distance curve
    eps_rule: Literal["quantile", "elbow"]
    min_samples: int | None  # DBSCAN, HDBSCAN: neighbours of a core point
    min_cluster_size: int  # HDBSCAN: size of the smallest cluster
    max_points: int
    seed: int  # random seed of starts and subsamples


class ClusterSettings(ClusterArraySettings, total=False):
    """Settings of `ClusterConfig`."""

    name: str  # variable that the labels are written to
    method: str  # registered method: gmm, kmeans, dbscan, hdbscan


class ProbeArraySettings(TypedDict, total=False):
    """Settings of `ProbeConfig`."""

    folds: int  # number of folds
    max_points: int  # points that probes are trained and evaluated on, sampled from the region
    n_permutations: int  # random targets for the p-value, 0 = none; the smallest is 1 / (n + 1)
    seed: int  # random seed of points, folds and random targets


class ProbeSettings(ProbeArraySettings, total=False):
    """Settings of `ProbeConfig`."""

    features: Sequence[str]
    by: str | None
    name: str | None  # table probe_<name> of the run; default: probe
