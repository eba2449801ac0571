"""The clustering methods by name: plain arrays and settings in, labels and how they came out back.

A kernel gets finite float64 features `(n, f)`, already scaled, and the settings; it returns `(n,)` integers, numbers
0 … k - 1 by falling size and NOISE, with an info dict as the functions in `mixture` and `density` describe it. A
further method is one function under `@method(...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vaearr.analysis.clustering import density, mixture
from vaearr.config import ClusterConfig
from vaearr.errors import UsageError, did_you_mean

Kernel = Callable[[np.ndarray, ClusterConfig], tuple[np.ndarray, dict[str, Any]]]

ALWAYS = ("run", "name", "features", "latents", "method", "scale", "max_points", "seed")


@dataclass(frozen=True, kw_only=True)
class Method:
    """A registered method: the kernel, the settings that it reads beside the common ones, and where it is from."""

    name: str
    kernel: Kernel
    uses: tuple[str, ...]
    reference: str


METHODS: dict[str, Method] = {}


def method(*, uses: tuple[str, ...], reference: str) -> Callable[[Kernel], Kernel]:
    """Register the decorated kernel under its own name."""

    def register(kernel: Kernel) -> Kernel:
        METHODS[kernel.__name__] = Method(name=kernel.__name__, kernel=kernel, uses=uses, reference=reference)
        return kernel

    return register


def choose(name: str) -> Method:
    """The registered method. Raises UsageError for an unknown name."""
    if name not in METHODS:
        raise UsageError(f"no clustering method is named {name!r}.{did_you_mean(name, list(METHODS))}")
    return METHODS[name]


def check_settings(chosen: Method, given: dict[str, Any]) -> None:
    """Raise UsageError for a setting that was given but that the method does not read."""
    for key, value in given.items():
        if value is not None and key in ClusterConfig.model_fields and key not in (*ALWAYS, *chosen.uses):
            raise UsageError(f"method {chosen.name!r} does not use {key!r}; it uses {', '.join(chosen.uses)}.")


@method(
    uses=("k", "k_min", "k_max", "criterion", "covariance"),
    reference="Dempster, Laird & Rubin, J. R. Stat. Soc. B 39, 1 (1977)",
)
def gmm(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """Gaussian mixture, k by BIC, AIC or silhouette."""
    return mixture.gmm(
        values,
        k=config.k,
        k_range=(config.k_min, config.k_max),
        criterion=config.criterion,
        covariance=config.covariance,
        seed=config.seed,
        max_points=config.max_points,
    )


@method(uses=("k", "k_min", "k_max"), reference="Lloyd, IEEE Trans. Inf. Theory 28, 129 (1982)")
def kmeans(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """k-means, k by silhouette whatever `criterion` says."""
    return mixture.kmeans(
        values, k=config.k, k_range=(config.k_min, config.k_max), seed=config.seed, max_points=config.max_points
    )


@method(uses=("eps", "eps_rule", "min_samples"), reference="Ester, Kriegel, Sander & Xu, KDD-96, 226 (1996)")
def dbscan(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """DBSCAN, eps from the k-distance curve."""
    neighbours = config.min_samples or density.NEIGHBOURS
    return density.dbscan(
        values,
        eps=config.eps,
        rule=config.eps_rule,
        min_samples=neighbours,
        seed=config.seed,
        max_points=config.max_points,
    )


@method(
    uses=("min_cluster_size", "min_samples"),
    reference="Campello, Moulavi & Sander, PAKDD 2013, 160, doi:10.1007/978-3-642-37456-2_14",
)
def hdbscan(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """HDBSCAN, the clusters that live over the most densities."""
    return density.hdbscan(
        values,
        min_cluster_size=config.min_cluster_size,
        min_samples=config.min_samples,
        seed=config.seed,
        max_points=config.max_points,
    )
