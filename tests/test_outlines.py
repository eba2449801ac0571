"""Borders of cells as lines: where they lie, and how long they are."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vaearr.grid import edges, label_borders, region_outline

CODES = hnp.arrays(np.int16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(-2, 2))


def _places(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return edges(np.arange(shape[1])), edges(np.arange(shape[0]))


def _length(lines: np.ndarray) -> float:
    return float(np.abs(lines[:, 2:] - lines[:, :2]).sum())


def test_edges_lie_half_way() -> None:
    np.testing.assert_allclose(edges(np.array([0.0, 1.0, 3.0])), [-0.5, 0.5, 2.0, 4.0])
    np.testing.assert_allclose(edges(np.array([2, 1])), [2.5, 1.5, 0.5])
    np.testing.assert_allclose(edges(np.array([4.0])), [3.5, 4.5])
    assert edges(np.zeros(0)).size == 0


@settings(max_examples=60, deadline=None)
@given(codes=CODES)
def test_lines_are_as_long_as_the_borders(codes: np.ndarray) -> None:
    lines = label_borders(codes, *_places(codes.shape))
    pairs = [(codes[1:], codes[:-1]), (codes[:, 1:], codes[:, :-1])]
    assert _length(lines) == sum(int(((a != b) & (a >= 0) & (b >= 0)).sum()) for a, b in pairs)
    outline = region_outline(codes >= 0, *_places(codes.shape))
    padded = np.pad(codes >= 0, 1).astype(int)
    assert _length(outline) == np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()


def test_pieces_in_one_line_are_one() -> None:
    x, y = edges(np.array([10.0, 14.0])), edges(np.array([1.0, 1.5, 2.0]))
    np.testing.assert_allclose(label_borders(np.array([[0, 1], [0, 1], [0, -1]]), x, y), [[12, 0.75, 12, 1.75]])
    assert len(region_outline(np.ones((3, 2), bool), x, y)) == 4
    assert region_outline(np.zeros((3, 2), bool), x, y).shape == (0, 4)
