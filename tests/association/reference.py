"""The metrics written down as their formulae, with matrices of pairs, and data that try them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.stats

KINDS = (
    "random",
    "dependent",
    "tied",
    "binary",
    "far from zero",
    "heavy tails",
    "other tails",
    "two scales",
    "two clumps",
)


def column(kind: str, n: int = 300) -> np.ndarray:
    """A column of n values; columns of different kinds go with one another to some degree."""
    rng = np.random.default_rng([7, KINDS.index(kind)])
    common = np.random.default_rng(1).normal(size=n)
    z = rng.normal(size=n)
    return {
        "random": z,
        "dependent": common + 0.5 * z,
        "tied": np.round(common + z),
        "binary": (common + z > 0.7).astype(float),
        "far from zero": (common**2 + 0.3 * z) * 1e-3 + 1e4,
        "heavy tails": rng.standard_cauchy(n) + common,
        "other tails": np.exp(3 * z) * common,
        "two scales": np.where(rng.random(n) < 0.75, z * 1e-4, z * 40),
        "two clumps": np.where(rng.random(n) < 0.4, z + 300 + 40 * rng.random(n), 0.1 * z),
    }[kind]


def kendall(x: np.ndarray, y: np.ndarray) -> float:
    return float(scipy.stats.kendalltau(x, y).statistic)


def mutual_information(x: np.ndarray, y: np.ndarray) -> float:
    from sklearn.feature_selection import mutual_info_regression

    return float(mutual_info_regression(x[:, None], y, n_neighbors=7, random_state=0)[0])


def _centred(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(matrix - matrix.mean(axis=0) - matrix.mean(axis=1)[:, None] + matrix.mean())


def _long(values: np.ndarray) -> np.ndarray:
    """With more digits, so that the reference is the better one of the two."""
    return np.asarray(values, dtype=np.longdouble)


def distance_correlation(x: np.ndarray, y: np.ndarray) -> float:
    a, b = (_centred(np.abs(np.subtract.outer(_long(v), _long(v)))) for v in (x, y))
    return float(np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean())))


def gram(x: np.ndarray) -> np.ndarray:
    distance = np.abs(np.subtract.outer(x, x))
    sigma = _long(np.median(distance[distance > 0]))
    return np.asarray(np.exp(-(_long(distance) ** 2) / (2 * sigma**2 + _long(1e-12))))


def hsic(x: np.ndarray, y: np.ndarray) -> float:
    return float((_centred(gram(x)) * _centred(gram(y))).sum() / (x.size - 1) ** 2)


def hsic_normalised(x: np.ndarray, y: np.ndarray) -> float:
    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


def hsic_unbiased(x: np.ndarray, y: np.ndarray) -> float:
    n = x.size
    k, l = (gram(v) - np.eye(n) for v in (x, y))  # noqa: E741
    means = k.sum() * l.sum() / ((n - 1) * (n - 2))
    return float(((k * l).sum() + means - 2 / (n - 2) * (k.sum(axis=0) @ l.sum(axis=0))) / (n * (n - 3)))


def partial_pearson(x: np.ndarray, y: np.ndarray, positions: np.ndarray, degree: int) -> float:
    """Residuals of a least-squares polynomial, column by column."""
    u, v = ((positions - positions.mean(axis=0)) / positions.std(axis=0)).T
    terms = [u**i * v**j for i in range(degree + 1) for j in range(degree + 1 - i)]
    design = np.stack(terms, axis=1)
    left = [w - design @ np.linalg.lstsq(design, w, rcond=None)[0] for w in (x - x.mean(), y - y.mean())]
    return float(scipy.stats.pearsonr(*left).statistic)


PAIRWISE: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "pearson": lambda x, y: float(scipy.stats.pearsonr(x, y).statistic),
    "spearman": lambda x, y: float(scipy.stats.spearmanr(x, y).statistic),
    "kendall": kendall,
    "mutual_information": mutual_information,
    "distance_correlation": distance_correlation,
    "hsic": hsic,
    "hsic_normalised": hsic_normalised,
    "hsic_unbiased": hsic_unbiased,
}
