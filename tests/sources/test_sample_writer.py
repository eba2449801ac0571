"""Samples on the pixels of their files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vaearr.config import IngestConfig
from vaearr.sources.images import open_images
from vaearr.sources.sample_writer import restore

sides = st.tuples(st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=80, deadline=None)
@given(shape=sides, size=sides, fit=st.sampled_from(["pad", "crop", "squash"]))
def test_restored_images(
    tmp_path_factory: pytest.TempPathFactory, shape: Any, size: Any, fit: Any
) -> None:
    """Shape and level come back whatever the sizes."""
    path = tmp_path_factory.mktemp("image") / "a.png"
    Image.fromarray(np.full(shape, 9, np.uint8)).save(path)
    config = IngestConfig(size=size, fit=fit)
    sample = open_images(path, config).patterns[0].values
    back = restore(sample, shape, fit)
    assert back.shape == shape
    known = np.isfinite(back)
    assert known.all() or fit == "crop"
    np.testing.assert_allclose(back[known], 9, atol=1e-3)
