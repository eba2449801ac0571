"""Single files as samples of a store: what ingest makes of them, and back to the pixels of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vaearr.config import IngestConfig
from vaearr.errors import DataError, NoInputError
from vaearr.ingestion import ingest
from vaearr.sources.single import read_single, restore
from vaearr.store import create_store, open_store

from ..data import random_patterns_dataset

RNG = np.random.default_rng(4)
AFFINE = np.array([[2.0, 0, 0, -5], [0, 2, 0, -6], [0, 0, 3, -7], [0, 0, 0, 1]])


def images(folder: Path, shapes: list[tuple[int, ...]], dtype: str = "u1", suffix: str = ".png") -> list[Path]:
    folder.mkdir()
    paths = [folder / f"a{i}{suffix}" for i in range(len(shapes))]
    for path, shape in zip(paths, shapes, strict=True):
        Image.fromarray(RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)).save(path)
    return paths


def volumes(folder: Path, shapes: list[tuple[int, ...]], codes: str = "RAS", scale: float = 1.0) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"a{i}.nii.gz" for i in range(len(shapes))]
    wanted = nib.orientations.axcodes2ornt(codes)
    for path, shape in zip(paths, shapes, strict=True):
        values = (RNG.integers(0, 900, shape) * scale).astype(np.int16 if scale == 1 else np.float32)
        image = nib.Nifti1Image(values, AFFINE)
        nib.save(image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(AFFINE), wanted)), path)
    return paths


def read_like(ds: xr.Dataset, paths: list[Path]) -> np.ndarray:
    return np.stack([read_single(ds, path).values for path in paths])


@pytest.mark.parametrize(
    ("shapes", "given"),
    [
        ([(12, 10)] * 3, {}),
        ([(12, 10, 3)] * 2, {}),
        ([(12, 10, 3)] * 2, {"channels": "grey"}),
        ([(12, 10)] * 2, {"channels": "colour"}),
        ([(12, 10), (30, 7), (8, 9)], {"size": (8, 9), "fit": "pad"}),
        ([(12, 10), (30, 7)], {"size": (11, 9), "fit": "crop"}),
        ([(12, 10), (30, 7)], {"size": (11, 9), "fit": "squash"}),
        ([(12, 10), (20, 12)], {"size": (10, 10)}),
    ],
    ids=["plain", "colour", "to grey", "to colour", "pad", "crop", "squash", "16 bits"],
)
def test_images_are_what_ingest_makes(
    shapes: list[tuple[int, ...]], given: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    is_deep = "16 bits" in request.node.name
    paths = images(tmp_path / "set", shapes, "u2" if is_deep else "u1", ".tif" if is_deep else ".png")
    ds = ingest(tmp_path / "set", tmp_path / "a.zarr", config=IngestConfig(format="images", **given))
    found = read_like(ds, paths)
    assert found.dtype == ds.patterns.dtype
    np.testing.assert_array_equal(found, ds.patterns.values)


@pytest.mark.parametrize(
    ("shapes", "given"),
    [
        ([(7, 8, 9)] * 2, {}),
        ([(7, 8, 9), (6, 9, 5)], {"size": (10, 10, 10)}),
        ([(7, 8, 9), (6, 9, 12)], {"size": (6, 7, 8), "fit": "crop"}),
        ([(7, 8, 9)] * 2, {"size": (6, 7, 8), "fit": "squash"}),
        ([(7, 8, 9)] * 2, {"spacing": (2.0, 2.5, 2.5), "size": (9, 9, 9), "fit": "crop"}),
    ],
    ids=["plain", "pad", "crop", "squash", "spacing"],
)
@pytest.mark.parametrize("codes", ["RAS", "LSP"])
def test_volumes_are_what_ingest_makes(
    shapes: list[tuple[int, ...]], given: dict[str, Any], codes: str, tmp_path: Path
) -> None:
    paths = volumes(tmp_path / "set", shapes, codes)
    ds = ingest(tmp_path / "set", tmp_path / "a.zarr", config=IngestConfig(**given))
    np.testing.assert_array_equal(read_like(ds, paths), ds.patterns.values)
    for path, affine in zip(paths, ds.affine.values, strict=True):
        geometry = read_single(ds, path).geometry
        corner = np.array([*np.array(geometry.offset)[::-1], 1.0])  # the first voxel of the sample, in the file
        assert geometry.affine is not None
        np.testing.assert_allclose((geometry.affine @ corner)[:3], affine[:3, 3], atol=1e-9)


def test_scans_take_arrays_and_images(tmp_path: Path) -> None:
    scan = random_patterns_dataset({"y": 3, "x": 2}, {"dy": 8, "dx": 9})
    ds = open_store(create_store(scan, tmp_path / "a.zarr"), chunks=None)
    pattern = scan.patterns[1, 1].values
    np.save(tmp_path / "a.npy", pattern)
    np.save(tmp_path / "b.npy", pattern[None].astype(float))
    Image.fromarray(pattern).save(tmp_path / "c.png")
    found = read_like(ds, [tmp_path / name for name in ("a.npy", "b.npy", "c.png")])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, [pattern] * 3)
    Image.fromarray(pattern[:4]).save(tmp_path / "small.png")
    np.save(tmp_path / "small.npy", pattern[:4])
    for name in ("small.png", "small.npy"):
        with pytest.raises(DataError, match="uint8 of 8 dy x 9 dx"):
            read_single(ds, tmp_path / name)


def test_refusals(tmp_path: Path) -> None:
    grey = ingest(
        images(tmp_path / "set", [(12, 10)] * 2)[0].parent, tmp_path / "a.zarr", config=IngestConfig(format="images")
    )
    brain = ingest(volumes(tmp_path / "brains", [(7, 8, 9)] * 2)[0].parent, tmp_path / "b.zarr")
    other = tmp_path / "other"
    images(other, [(12, 10, 3)])
    Image.fromarray(np.zeros((12, 10), np.uint16)).save(other / "deep.png")
    (other / "cut.png").write_bytes((tmp_path / "set" / "a0.png").read_bytes()[:60])
    (other / "text.txt").write_text("no image")
    (other / "empty.npy").write_bytes(b"")
    np.save(other / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(other / "half.npy", np.full((12, 10), 0.5))
    np.save(other / "large.npy", np.full((12, 10), 300))
    np.save(other / "nan.npy", np.full((12, 10), np.nan))
    np.save(other / "stack.npy", np.zeros((4, 12, 10), np.uint8))
    volumes(tmp_path / "v", [(7, 8, 5)], scale=0.3)
    cases: list[tuple[Any, Path, str]] = [
        (grey, other / "a0.png", "is in colour; the samples of this store are uint8 of 12 y x 10 x, so convert"),
        (grey, other / "deep.png", "holds uint16 from 0 to 0; the samples of this store are uint8"),
        (grey, other / "cut.png", "it is damaged, so fetch it again"),
        (grey, other / "text.txt", r"is none of \.png.*\.npy; the samples of this store are"),
        (grey, tmp_path / "v" / "a0.nii.gz", r"is none of \.png, .*\.npy"),
        (grey, other / "empty.npy", "is empty"),
        (grey, other / "objects.npy", "cannot be read as an array"),
        (grey, other / "half.npy", "holds float64 from 0.5 to 0.5"),
        (grey, other / "large.npy", "from 300 to 300"),
        (grey, other / "nan.npy", "from nan to nan"),
        (grey, other / "stack.npy", r"of shape \(4, 12, 10\)"),
        (brain, tmp_path / "v" / "a0.nii.gz", r"has \(5, 8, 7\) voxels \(z, y, x\)"),
        (brain, other / "a0.png", r"is none of \.nii, \.nii\.gz, \.npy"),
    ]
    for ds, path, match in cases:
        with pytest.raises(DataError, match=match) as caught:
            read_single(ds, path)
        assert "\n" not in str(caught.value)
    with pytest.raises(NoInputError, match="does not exist"):
        read_single(grey, other / "none.png")


def test_nan_in_a_float_store(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"sample": 3}, {"y": 8, "x": 9}, dtype="f4")
    np.save(tmp_path / "a.npy", np.full((8, 9), np.nan))
    with pytest.raises(DataError, match="NaN or infinite"):
        read_single(ds, tmp_path / "a.npy")


sides = st.tuples(st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=80, deadline=None)
@given(shape=sides, size=sides, fit=st.sampled_from(["pad", "crop", "squash"]))
def test_restored_images(tmp_path_factory: pytest.TempPathFactory, shape: Any, size: Any, fit: Any) -> None:
    """Shape and level come back whatever the sizes; a ramp that was enlarged comes back to a rounding."""
    ds = random_patterns_dataset({"sample": 2}, {"y": size[0], "x": size[1]})
    ds.attrs["provenance"] = {"ingest": IngestConfig(size=size, fit=fit).to_attrs()}
    folder = tmp_path_factory.mktemp("image")
    Image.fromarray(np.full(shape, 9, np.uint8)).save(folder / "a.png")
    single = read_single(ds, folder / "a.png")
    back = restore(single.values, single.geometry)
    assert back.shape == shape
    known = np.isfinite(back)
    assert known.all() or fit == "crop"
    np.testing.assert_allclose(back[known], 9, atol=1e-3)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_volumes_come_back_voxel_for_voxel(fit: str, tmp_path: Path) -> None:
    (path,) = volumes(tmp_path / "set", [(7, 8, 9)])
    size = (12, 9, 8) if fit == "pad" else (6, 10, 5)
    ds = ingest(tmp_path / "set", tmp_path / "a.zarr", config=IngestConfig(size=size, fit=fit))
    single = read_single(ds, path)
    back = restore(single.values, single.geometry)
    original = nib.load(path).get_fdata().T
    known = np.isfinite(back)
    assert known.sum() == (9 * 8 * 7 if fit == "pad" else 6 * 8 * 5)
    np.testing.assert_array_equal(back[known], original[known])
