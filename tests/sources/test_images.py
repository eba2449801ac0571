"""Folders of images, as collections and as scans: values, places, labels and masks; what cannot be
used is named.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.sources.refusals import refused
from vaearr.config import IngestConfig
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.ingestion.ingest import ingest
from vaearr.schema import categories
from vaearr.sources import detect, open_source
from vaearr.sources.images import refit

CLASSES = ("benign", "malignant", "normal")
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 9, 11), dtype=np.uint8)


def folder_of(path: Path, images: np.ndarray = GREY, suffix: str = ".png") -> Path:
    """Images in one sub-folder for each class, in turn."""
    for i, image in enumerate(images):
        place = path / CLASSES[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"case ({i:02d}){suffix}")
    return path


def png(side: int, *, bits: int = 8, colour: int = 0) -> bytes:
    """A file that declares so many pixels and holds few."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")]
    )


# collections


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    fit=st.sampled_from(["pad", "crop", "squash"]),
    dtype=st.sampled_from(["u1", "u2", "f4"]),
)
def test_any_size_from_any_size(
    shape: tuple[int, int], size: tuple[int, int], fit: Any, dtype: str
) -> None:
    image = np.full(shape, 7, dtype)
    out = refit(image, size, fit)
    assert out.shape == size
    assert out.dtype == image.dtype
    filled = out > 6.9
    assert filled.all() if fit != "pad" else filled.any()
    if fit == "pad":  # the aspect is that of the image, to a pixel, and one side is full
        rows, columns = filled.any(1).sum(), filled.any(0).sum()
        assert rows == size[0] or columns == size[1]
        scale = min(size[0] / shape[0], size[1] / shape[1])
        assert abs(rows - max(1, shape[0] * scale)) <= 1
        assert abs(columns - max(1, shape[1] * scale)) <= 1


def test_masks_are_left_out(tmp_path: Path, said: list[str]) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a (1)", "a (1)_mask", "a (1)_mask_1", "b", "b_mask"):
        Image.fromarray(GREY[0]).save(folder / f"{name}.png")
    ds = ingest(folder, tmp_path / "a.zarr")
    assert list(ds.path.values) == ["a (1).png", "b.png"]
    assert "3 files are masks by their names (*_mask*) and left out." in said
    assert open_source(folder, masks="").sizes["sample"] == 5
    refused(folder, "all 5 images are masks by their names", masks="*")


def test_manifest(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set")
    Image.fromarray(GREY[0]).save(folder / "benign" / "b.png")
    lines = [
        f"{CLASSES[i % 3]}/case ({i:02d}).png;grade {i % 2};00{i // 2};0{i};{0.5 * i};{'north' * (i % 2)}"
        for i in range(6)
    ]
    table = tmp_path / "set" / "list.csv"
    table.write_text(
        "path;label;subject;ward;age;site\n" + "\n".join(lines) + "\nbenign/b.png;;9;07;30,5;x\n"
    )
    ds = open_source(table)
    assert detect(table).format == "images"
    np.testing.assert_array_equal(ds.patterns[:6], GREY[:6])
    assert categories(ds.label) == {0: "grade_0", 1: "grade_1"}
    assert ds.label.values.tolist() == [0, 1, 0, 1, 0, 1, -1]
    assert ds.coords["subject"].values.tolist() == ["000", "000", "001", "001", "002", "002", "9"]
    assert ds.coords["ward"].values.tolist() == ["00", "01", "02", "03", "04", "05", "07"]
    assert ds.age.values.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 30.5]
    assert ds.site.values.tolist() == ["", "north"] * 3 + ["x"]
    assert open_source(table, label_column="site").label.values.tolist() == [-1, 0, -1, 0, -1, 0, 1]
    refused(table, "no column 'grad'.*Known: path, label", UsageError, label_column="grad")
    refused(table, r"no sample has the label 'grade 2'.*grade 0", UsageError, classes=["grade 2"])
    refused(table, "of which exclude=.* leaves none", exclude=["*"])
    refused(table, "describes the files of a folder", UsageError, manifest=table, format="images")
    for text, match in {
        "path,label\nbenign/b.png,1\n./benign/b.png,2\n": "names './benign/b.png' more than once",
        "path,label\n,1\n": "line 2: the path is empty",
        "path,sample\nbenign/b.png,1\n": "column 'sample' has a name that is taken",
        "path,latents_x\nbenign/b.png,1\n": "column 'latents_x' has a name that is taken",
        "path,label\nbenign/z.png,1\nbenign/b.png,2\n": "1 of 2 files .*: benign/z.png: the file does not exist",
        "file,label\nbenign/b.png,1\n": "name the one of files, and no other, 'path'",
    }.items():
        table.write_text(text)
        refused(folder, match, manifest=table)


def test_bad_files_are_named_together(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set")
    (folder / "benign" / "cut.png").write_bytes(
        (folder / "benign" / "case (00).png").read_bytes()[:-40]
    )
    (folder / "benign" / "empty.png").write_bytes(b"")
    Image.new("CMYK", (11, 9)).save(folder / "normal" / "print.jpg")
    Image.new("RGBA", (11, 9)).save(folder / "normal" / "glass.png")
    frames = [Image.fromarray(image) for image in GREY[:2]]
    frames[0].save(folder / "normal" / "pages.tif", save_all=True, append_images=frames[1:])
    (folder / "normal" / "huge.png").write_bytes(png(12000))
    (folder / "normal" / "vast.png").write_bytes(png(2000))
    (folder / "normal" / "deep.png").write_bytes(png(4, bits=16, colour=2))
    with pytest.raises(DataError) as caught:
        ingest(folder, tmp_path / "a.zarr")
    for part in (
        "8 of 20 files cannot be used: benign/cut.png: cannot be read as an image (",
        "benign/empty.png: cannot be read as an image",
        "normal/print.jpg: is an image of mode 'CMYK'",
        "normal/glass.png: has transparent pixels",
        "normal/pages.tif: holds 2 images",
        "normal/huge.png: cannot be read as an image",
        "normal/vast.png: cannot be read as an image",
        "normal/deep.png: is a colour image of 16 bits",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "a.zarr").exists()


def test_which_folder_is_which(tmp_path: Path) -> None:
    for name in ("scan", "plain", "none"):
        (tmp_path / name).mkdir()
    for i in range(4):
        Image.fromarray(GREY[i]).save(tmp_path / "scan" / f"x{i}_y0.png")
        Image.fromarray(GREY[i]).save(tmp_path / "plain" / f"photo{i}.png")
    assert detect(tmp_path / "scan").format == "point-images"
    assert detect(tmp_path / "plain").format == "images"
    assert detect(tmp_path).format == "images"
    assert open_source(tmp_path / "scan", format="images").sizes == {"sample": 4, "y": 9, "x": 11}
    assert open_source(tmp_path / "scan", size=(4, 4)).sizes["sample"] == 4
    for folder, match, error, asked in (
        (
            "none",
            r"is a folder; give a file, or a folder that holds images or volumes \(.png, .*.nii.gz\)",
            DataError,
            {},
        ),
        ("plain", "does not hold both coordinates", UsageError, {"filenames": "photo{x}"}),
        ("plain", "no format 'image'. Did you mean 'images'", UsageError, {"format": "image"}),
        ("plain", "a folder, which format='idx' does not read", UsageError, {"format": "idx"}),
        ("gone", "gone does not exist", NoInputError, {"format": "images"}),
        ("plain", "must be two numbers", UsageError, {"size": (1, 2, 3)}),
    ):
        refused(tmp_path / folder, match, error, **asked)
    for setting in ({"step": 0.5}, {"maps": {"BC": "a.csv"}}):
        with pytest.raises(
            UsageError, match=f"{next(iter(setting))} is for scans, and the source is a collection"
        ):
            ingest(tmp_path / "plain", tmp_path / "a.zarr", config=IngestConfig.from_attrs(setting))
    assert not (tmp_path / "a.zarr").exists()


# scans

NY, NX = 3, 4
SIGNED = ("scan_{y}_-{x}", "scan_-{y}_{x}", "-{y}_{x}", "{y}.5_{x}", "x{x}_y{y}.5", "s {y} _-{x}")
GRID = (np.arange(NY * NX * 30).reshape(NY, NX, 5, 6) * 7 % 251).astype("u1")


def scan_of(folder: Path, name: str = "x{x}_y{y}.png") -> Path:
    folder.mkdir(exist_ok=True)
    for y, x in np.ndindex(NY, NX):
        Image.fromarray(GRID[y, x]).save(folder / name.format(y=y, x=x, i=y * 7 + x))
    return folder


@pytest.mark.parametrize(
    ("name", "template", "match"),
    [
        *((name, None, "12 of 12 image names hold no scan point") for name in SIGNED),
        ("x{x}_y{y}", "{y}_{x}", "12 of 12 image names .* filenames='{y}_{x}'.*and 9 more"),
        ("x{x}_y{y}", "{x}{z}", "does not hold both coordinates; write a template"),
        ("x{x}_y{y}", r"(?P<x>\d+", "cannot be read .*; write a template"),
        ("x{x}_y{y}", "{x}_{x}_{y}", "cannot be read .*; write a template"),
    ],
)
def test_names_that_give_none(name: str, template: str | None, match: str, tmp_path: Path) -> None:
    error = UsageError if "coordinates" in match or "cannot be read" in match else DataError
    refused(scan_of(tmp_path / "images", f"{name}.png"), match, error, filenames=template)


def test_images_that_are_no_scan_point(tmp_path: Path) -> None:
    folder = scan_of(tmp_path / "images")
    one = folder / "x1_y1.png"
    Image.fromarray(GRID[1, 1, :4]).save(one)
    refused(
        folder,
        r"x1_y1.png is 4 x 6 px, uint8, the first image 5 x 6 px, uint8; all images of a scan must agree",
    )
    Image.fromarray(GRID[1, 1].astype("u2")).save(one)
    refused(folder, "x1_y1.png is 5 x 6 px, uint16, the first image")
    one.write_bytes(png(12000))
    refused(folder, "x1_y1.png cannot be read as an image")
    ds = open_source(folder)
    one.unlink()
    with pytest.raises(NoInputError, match=r"x1_y1.png is gone"):
        ds.patterns.load()
    one.symlink_to(tmp_path / "gone.png")
    refused(folder, "x1_y1.png is a link to a file that does not exist", NoInputError)
    one.unlink()
    (folder / "x99999999999999999_y0.png").write_bytes(b"")
    refused(folder, "1 of 12 image names hold no scan point \\(whole step numbers\\)")
    (folder / "x99999999999999999_y0.png").unlink()
    Image.new("RGB", (6, 5)).save(folder / "x0_y0.png")
    refused(folder, "is in colour; expected one grey image of 8 or 16 bits, so convert it")
