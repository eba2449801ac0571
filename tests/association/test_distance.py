"""Distance correlation: its formula with matrices, and what it must be for lines and independent columns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vaearr.association.columns import columns_of
from vaearr.association.distance import distance_correlation, distances

from .reference import KINDS, column
from .reference import distance_correlation as by_matrices


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.integers(-3, 3), st.floats(-1e3, 1e3)), st.integers(-4, 4)), min_size=3, max_size=60
    )
)
def test_is_that_of_the_matrices(pairs: list[tuple[float, float]]) -> None:
    x, y = np.array(pairs, float).T
    assume(np.ptp(x) > 1e-6 and np.ptp(y) > 0)
    found = distance_correlation(columns_of(x[:, None]), columns_of(y[:, None])).item()
    assert found == pytest.approx(by_matrices(x, y), rel=1e-9, abs=2e-7)  # the root of a sum that cancels


@pytest.mark.parametrize("kind", KINDS)
def test_means_of_distances(kind: str) -> None:
    values = column(kind)
    scale = np.abs(values - np.median(values)).mean()
    matrix = np.abs(np.subtract.outer(values, values)) / scale
    (found,) = distances(columns_of(values[:, None]))
    assert found.mean == pytest.approx(matrix.mean(), rel=1e-10)
    np.testing.assert_allclose(found.row_means, matrix.mean(axis=0) - matrix.mean(), rtol=1e-8, atol=1e-10)


def test_a_line_is_one_and_a_parabola_is_seen() -> None:
    x = np.linspace(-1, 1, 501)[:, None]
    assert distance_correlation(columns_of(x), columns_of(3 - 2 * x)).item() == pytest.approx(1, abs=1e-12)
    assert 0.4 < distance_correlation(columns_of(x), columns_of(x**2)).item() < 0.6


@pytest.mark.long
def test_agrees_with_an_independent_program_where_matrices_do_not_fit(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=20_000)
    y = np.sin(2 * x) + rng.standard_t(2, size=20_000)
    np.save(tmp_path / "xy.npy", [x, y])
    code = "import dcor, numpy, sys; print(dcor.distance_correlation(*numpy.load(sys.argv[1]), method='mergesort'))"
    command = [sys.executable, "-c", code, tmp_path / "xy.npy"]  # apart: its import changes how many threads torch has
    theirs = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert distance_correlation(columns_of(x[:, None]), columns_of(y[:, None])).item() == pytest.approx(
        theirs, rel=1e-9
    )
