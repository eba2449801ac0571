"""Analyses of known numbers come to what they came to on the day they were recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from .analyses import CLUSTERS, RECORDED, measure

TOLERANCES = {  # p-values are of 99 surrogate maps, which may be drawn in another order
    "association": {"rtol": 1e-4, "atol": 1e-5},
    "p_value": {"rtol": 0, "atol": 0.15},
    "p_adjusted": {"rtol": 0, "atol": 0.2},
    "n_effective": {"rtol": 0.1, "atol": 0},
    "low": {"rtol": 0, "atol": 0.05},
    "high": {"rtol": 0, "atol": 0.05},
    "pca_explained_variance_ratio": {"rtol": 1e-4, "atol": 0},
    "eps": {"rtol": 1e-5, "atol": 0},
}


def test_numbers(known_template: Path) -> None:
    now, then = measure(known_template), json.loads(RECORDED.read_text())
    assert set(now) == set(then) == {*TOLERANCES, "nmf", "labels"}
    for name, tolerance in TOLERANCES.items():
        np.testing.assert_allclose(
            np.array(now[name], float), np.array(then[name], float), **tolerance, err_msg=name
        )
    assert now["nmf"] == pytest.approx(then["nmf"], rel=1e-3)


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters(known_template: Path, name: str) -> None:
    now, then = (
        record["labels"][name].split()
        for record in (measure(known_template), json.loads(RECORDED.read_text()))
    )
    assert adjusted_rand_score(then, now) > 0.98
    assert [label == "-2" for label in now] == [label == "-2" for label in then]
