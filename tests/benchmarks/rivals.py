"""What `test_quality.py` compares with: principal components."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Patterns = NDArray[np.float32]


@dataclass(frozen=True)
class Representation:
    """What a method made of a scan: `std` is the posterior's where there is one, `n_passed` counts
    patterns in all.
    """

    features: NDArray[Any]
    reconstruction: Patterns
    seconds: float
    n_passed: int
    std: NDArray[Any] | None = None
    is_probabilistic: bool = True
    note: str = ""


def principal_components(seen: Patterns, n_components: int) -> Representation:
    """PCA with randomised SVD; features are scores, not whitened."""
    from sklearn.decomposition import PCA

    flat = seen.reshape(len(seen), -1)
    began = time.perf_counter()
    pca = PCA(n_components, random_state=0).fit(flat)
    seconds = time.perf_counter() - began
    scores = pca.transform(flat)
    back = pca.inverse_transform(scores).astype(np.float32).reshape(seen.shape)
    return Representation(scores, back, seconds, len(seen), is_probabilistic=False)
