"""Single files as samples of a store: what ingest makes of them, and back to the pixels of the
file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vaearr.config import IngestConfig
from vaearr.errors import DataError, NoInputError
from vaearr.ingestion.ingest import ingest
from vaearr.sources.images import image_geometry
from vaearr.sources.single import read_sample, restore

from ..data import random_patterns_dataset

RNG = np.random.default_rng(4)
AFFINE = np.array([[2.0, 0, 0, -5], [0, 2, 0, -6], [0, 0, 3, -7], [0, 0, 0, 1]])
VOLUMES = [(7, 8, 9)] * 2


def written(
    folder: Path, shapes: list[tuple[int, ...]], dtype: str = "u1", codes: str = ""
) -> list[Path]:
    """Images, or volumes with these axis codes, of random values."""
    folder.mkdir()
    paths = [
        folder / f"a{i}{'.nii.gz' if codes else '.png' if dtype == 'u1' else '.tif'}"
        for i in range(len(shapes))
    ]
    for path, shape in zip(paths, shapes, strict=True):
        values = RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
        if codes:
            turn = nib.orientations.ornt_transform(
                nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(codes)
            )
            nib.save(nib.Nifti1Image(values, AFFINE).as_reoriented(turn), path)
        else:
            Image.fromarray(values).save(path)
    return paths


@pytest.mark.parametrize(
    ("shapes", "given", "dtype", "codes"),
    [
        ([(12, 10, 3)] * 2, {"channels": "grey"}, "u1", ""),
        ([(12, 10), (30, 7), (8, 9)], {"size": (8, 9), "fit": "pad"}, "u1", ""),
        ([(12, 10, 3), (30, 7, 3)], {"size": (11, 9), "fit": "crop"}, "u1", ""),
        ([(7, 8, 9), (6, 9, 12)], {"size": (6, 7, 8), "fit": "crop"}, "i2", "RAS"),
        (VOLUMES, {"spacing": (2.0, 2.5, 2.5), "size": (9, 9, 9), "fit": "crop"}, "i2", "RAS"),
    ],
)
def test_samples_are_what_ingest_makes(
    shapes: list[tuple[int, ...]], given: dict[str, Any], dtype: str, codes: str, tmp_path: Path
) -> None:
    paths = written(tmp_path / "set", shapes, dtype, codes)
    config = IngestConfig(format="nifti" if codes else "images", **given)
    ds = ingest(tmp_path / "set", tmp_path / "a.zarr", config=config)
    for i, path in enumerate(paths):
        values = read_sample(ds, path)
        assert values.dtype == ds.patterns.dtype
        np.testing.assert_array_equal(values, ds.patterns[i])


def test_refusals(tmp_path: Path) -> None:
    config = IngestConfig(format="images")
    folder = written(tmp_path / "set", [(12, 10)] * 2)[0].parent
    grey, brain, floats = (
        ingest(folder, tmp_path / "a.zarr", config=config),
        ingest(written(tmp_path / "brains", VOLUMES, "i2", "RAS")[0].parent, tmp_path / "b.zarr"),
        random_patterns_dataset({"sample": 3}, {"y": 12, "x": 10}, dtype="f4"),
    )
    other = written(tmp_path / "other", [(12, 10, 3), (4, 10)])[0].parent
    (small,) = written(tmp_path / "small", [(7, 8, 5)], "i2", "RAS")
    Image.fromarray(np.arange(120, dtype=np.uint16).reshape(12, 10) * 900 // 119).save(
        other / "deep.png"
    )
    (other / "text.txt").write_text("no image")
    for name, value in {"half": 0.5, "nan": np.nan}.items():
        np.save(other / f"{name}.npy", np.full((12, 10), value))
    np.save(other / "stack.npy", np.zeros((4, 12, 10), np.uint8))
    for ds, path, match in (
        (
            grey,
            other / "a0.png",
            r"holds uint8 of shape \(3, 12, 10\); the samples of this store are uint8 of 12 y x 10 x, so convert",
        ),
        (
            grey,
            other / "deep.png",
            "holds uint16 from 0 to 544; the samples of this store are uint8",
        ),
        (grey, other / "text.txt", r"is none of \.png.*\.npy; the samples of this store are"),
        (grey, other / "half.npy", "holds float64 from 0.5 to 0.5"),
        (floats, other / "nan.npy", "NaN or infinite"),
        (grey, other / "stack.npy", r"of shape \(4, 12, 10\)"),
        (brain, small, r"of shape \(5, 8, 7\)"),
    ):
        with pytest.raises(DataError, match=match) as caught:
            read_sample(ds, path)
        assert "\n" not in str(caught.value)
    with pytest.raises(NoInputError, match="does not exist"):
        read_sample(grey, other / "none.png")


sides = st.tuples(st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=80, deadline=None)
@given(shape=sides, size=sides, fit=st.sampled_from(["pad", "crop", "squash"]))
def test_restored_images(
    tmp_path_factory: pytest.TempPathFactory, shape: Any, size: Any, fit: Any
) -> None:
    """Shape and level come back whatever the sizes."""
    ds = random_patterns_dataset({"sample": 2}, {"y": size[0], "x": size[1]})
    ds.attrs["provenance"] = {"ingest": IngestConfig(size=size, fit=fit).to_attrs()}
    path = tmp_path_factory.mktemp("image") / "a.png"
    Image.fromarray(np.full(shape, 9, np.uint8)).save(path)
    back = restore(read_sample(ds, path), image_geometry(path, shape, size, fit))
    assert back.shape == shape
    known = np.isfinite(back)
    assert known.all() or fit == "crop"
    np.testing.assert_allclose(back[known], 9, atol=1e-3)
