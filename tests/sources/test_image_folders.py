"""Image collections: every image a sample, labels and masks found, sizes made alike, what cannot be read is named."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vaearr import grid, schema
from vaearr.categories import categories
from vaearr.config import IngestConfig
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.ingestion import ingest
from vaearr.provenance import nested
from vaearr.sources import find_source, open_source
from vaearr.sources.image_files import MOST_PIXELS, read_image, refit, refit_mask
from vaearr.store import open_store

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


def order(count: int) -> list[int]:
    """Numbers of the images in the order of their paths."""
    return sorted(range(count), key=lambda i: (CLASSES[i % 3], i))


def refused(folder: Path, match: str, error: type[Exception] = DataError, **given: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        open_source(folder, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("dtype", "suffix"), [("u1", ".PNG"), ("u1", ".bmp"), ("u2", ".tif"), ("f4", ".TIFF")])
def test_values_labels_and_paths(dtype: str, suffix: str, tmp_path: Path) -> None:
    images = GREY.astype(dtype) * (200 if dtype != "u1" else 1)
    folder = folder_of(tmp_path / "set", images, suffix)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    assert find_source(folder) == "images"
    ds = open_source(folder)
    schema.validate(ds)
    assert ds.patterns.dims == ("sample", "y", "x")
    assert ds.patterns.dtype == dtype
    np.testing.assert_array_equal(ds.patterns, images[order(12)])
    assert ds.path.values[0] == f"benign/case (00){suffix}"
    assert categories(ds.label) == dict(enumerate(CLASSES))
    np.testing.assert_array_equal(ds.label, np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(ds.patterns[3:8:2, 2, ::3], images[order(12)][3:8:2, 2, ::3])
    np.testing.assert_array_equal(ds.patterns[5], images[order(12)][5])
    np.testing.assert_array_equal(ds.patterns[[1, 7], :, [0, 4]], images[order(12)][[1, 7]][:, :, [0, 4]])


def test_colour_and_grey(tmp_path: Path) -> None:
    colour = RNG.integers(0, 256, (3, 8, 10, 3), dtype=np.uint8)
    folder = folder_of(tmp_path / "set", colour)
    ds = open_source(folder)
    assert ds.patterns.dims == ("sample", "channel", "y", "x")
    assert list(ds.channel.values) == ["red", "green", "blue"]
    np.testing.assert_array_equal(ds.patterns, np.moveaxis(colour, -1, 1))
    grey = open_source(folder, channels="grey").patterns.values
    np.testing.assert_allclose(grey, colour @ [0.299, 0.587, 0.114], atol=0.51)
    Image.fromarray(GREY[0][:8, :10]).save(folder / "normal" / "grey.png")
    refused(folder, r"differ in channels: colour in 3 of 4, but grey in normal/grey.png; convert them with channels=")
    assert open_source(folder, channels="colour").sizes["channel"] == 3
    Image.fromarray(GREY[0][:8, :10].astype("u2") * 9).save(folder / "normal" / "grey.png")
    refused(folder, "differ in bits: uint8 in 3 of 4, but uint16 in normal/grey.png; save them alike", channels="grey")


def test_palette_and_one_bit(tmp_path: Path) -> None:
    Image.fromarray(GREY[0]).convert("P").save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), GREY[0])
    Image.fromarray(GREY[0] > 90).save(tmp_path / "bit.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bit.png"), 255 * (GREY[0] > 90))


def test_sizes_are_made_alike(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set")
    Image.fromarray(np.full((20, 10), 100, np.uint8)).save(folder / "benign" / "tall.png")
    refused(folder, r"differ in size: 9 x 11 px in 12 of 13, but 20 x 10 px in benign/tall.png; give one with size=")
    tall = {fit: open_source(folder, size=(10, 10), fit=fit).patterns[4].values for fit in ("pad", "crop", "squash")}
    assert (tall["crop"] == 100).all()
    assert (tall["squash"] == 100).all()
    np.testing.assert_array_equal(np.flatnonzero(tall["pad"].any(0)), [2, 3, 4, 5, 6])
    ds = open_source(folder, size=(10, 10))
    assert ds.patterns.attrs["fit"] == "pad"
    assert (int(ds.source_rows[4]), int(ds.source_columns[4])) == (20, 10)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    fit=st.sampled_from(["pad", "crop", "squash"]),
    dtype=st.sampled_from(["u1", "u2", "f4"]),
)
def test_any_size_from_any_size(shape: tuple[int, int], size: tuple[int, int], fit: Any, dtype: str) -> None:
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
    np.testing.assert_array_equal(refit_mask(image > 0, size, fit), filled)


def with_masks(folder: Path) -> Path:
    """An image with two masks, one with one, and a last one without."""
    for name, box in {"a (1)_mask": np.s_[1:3, 2:5], "a (1)_mask_1": np.s_[6:8, :2], "b_mask": np.s_[:4, :4]}.items():
        mask = np.zeros((9, 11), bool)
        mask[box] = True
        Image.fromarray(mask).save(folder / f"{name}.png")
    for name in ("a (1)", "b", "c"):
        Image.fromarray(GREY[0]).save(folder / f"{name}.png")
    return folder


def test_masks_are_attached(tmp_path: Path) -> None:
    folder = with_masks(tmp_path)
    ds = open_source(folder)
    assert list(ds.path.values) == ["a (1).png", "b.png", "c.png"]
    assert "label" not in ds
    assert ds.mask.dims == ("sample", "y", "x")
    assert ds.mask.dtype == bool
    assert ds.mask.sum(["y", "x"]).values.tolist() == [6 + 4, 16, 0]
    assert bool(ds.mask[0, 1, 2])
    assert bool(ds.mask[0, 6, 0])
    assert ds.has_mask.values.tolist() == [True, True, False]
    bigger = open_source(folder, size=(18, 22))
    assert bigger.mask.sum(["y", "x"]).values.tolist() == [40, 64, 0]
    assert open_source(folder, masks="").sizes["sample"] == 6
    Image.new("1", (5, 5)).save(folder / "c_mask.png")
    refused(folder, r"c.png: its mask c_mask.png is 5 x 5 px, the image 9 x 11 px; they must agree")
    (folder / "c.png").unlink()
    refused(folder, r"c_mask.png: a mask without its image.*--skip-bad")
    assert open_source(folder, skip_bad=True).attrs["skipped"] == ["c_mask.png: a mask without its image"]


def test_manifest(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set")
    with_masks(folder / "benign")
    lines = [
        f"{CLASSES[i % 3]}/case ({i:02d}).png;grade {i % 2};{i // 2};{0.5 * i};{'north' * (i % 2)}" for i in range(6)
    ]
    table = tmp_path / "set" / "list.csv"
    table.write_text("path;label;subject;age;site\n" + "\n".join(lines) + "\nbenign/b.png;;9;30;x\n")
    ds = open_source(table)
    assert find_source(table) == "images"
    np.testing.assert_array_equal(ds.patterns[:6], GREY[:6])
    assert categories(ds.label) == {0: "grade_0", 1: "grade_1"}
    assert ds.label.values.tolist() == [0, 1, 0, 1, 0, 1, -1]
    assert ds.subject.values.tolist() == ["0", "0", "1", "1", "2", "2", "9"]
    assert "subject" in ds.coords
    assert "age" in ds.data_vars
    assert ds.site.values.tolist() == ["", "north"] * 3 + ["x"]
    assert ds.mask.sum(["y", "x"]).values.tolist() == [0] * 6 + [16]
    again = open_source(folder, manifest=table, classes=["grade 1"], exclude=["*05*"])
    assert [path[-7:-5] for path in again.path.values] == ["01", "03"]
    assert open_source(table, label_column="site").label.values.tolist() == [-1, 0, -1, 0, -1, 0, 1]
    refused(table, "no column 'grad'.*Known: path, label", UsageError, label_column="grad")
    refused(table, r"no sample has the label 'grade 2'.*grade 0", UsageError, classes=["grade 2"])
    for text, match in {
        "path,label\na.png,1\na.png,2\n": "names 'a.png' more than once",
        "path,label\nbenign/b.png,1\n./benign/b.png,2\n": "names './benign/b.png' more than once",
        "path,label\n,1\n": "line 2: the path is empty",
        "path,sample\nbenign/b.png,1\n": "column 'sample' cannot be kept under this name; rename it",
        "path,latents_x\nbenign/b.png,1\n": "begins like the variables of a run; rename it",
        "path,label\nbenign/z.png,1\nbenign/b.png,2\n": "1 of 2 files .*: benign/z.png: there is no such file",
        "file,label\nbenign/b.png,1\n": "has no column 'path'",
    }.items():
        table.write_text(text)
        refused(folder, match, manifest=table)
    refused(table, "describes the files of a folder", UsageError, manifest=table, format="images")


def test_bad_files_are_named_together(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set")
    whole = (folder / "benign" / "case (00).png").read_bytes()
    (folder / "benign" / "cut.png").write_bytes(whole[:-40])
    (folder / "benign" / "empty.png").write_bytes(b"")
    Image.new("CMYK", (11, 9)).save(folder / "normal" / "print.jpg")
    Image.new("RGBA", (11, 9)).save(folder / "normal" / "glass.png")
    frames = [Image.fromarray(image) for image in GREY[:2]]
    frames[0].save(folder / "normal" / "pages.tif", save_all=True, append_images=frames[1:])
    huge = bytearray(whole)
    huge[16:24] = (9000).to_bytes(4, "big") * 2
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    (folder / "normal" / "huge.png").write_bytes(huge)
    assert MOST_PIXELS < 9000**2
    huge[16:24] = (2000).to_bytes(4, "big") * 2
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    (folder / "normal" / "vast.png").write_bytes(huge)
    with pytest.raises(DataError) as caught:
        ingest(folder, tmp_path / "a.zarr")
    message = str(caught.value)
    assert message.startswith("7 of 19 files cannot be used: benign/cut.png: cannot be read as an image (")
    for part in (
        "benign/empty.png: cannot be read as an image",
        "normal/print.jpg: is an image of mode 'CMYK'",
        "normal/glass.png: has transparent pixels",
        "normal/pages.tif: holds 2 images",
        "normal/huge.png: declares 9000 x 9000 px; at most 64 million",
        "normal/vast.png: declares 2000 x 2000 px, more than",
        "skip_bad=True (--skip-bad)",
    ):
        assert part in message
    assert not (tmp_path / "a.zarr").exists()
    said: list[str] = []
    ds = ingest(folder, tmp_path / "a.zarr", config=IngestConfig(skip_bad=True), say=said.append)
    assert ds.sizes["sample"] == 12
    assert said[0] == "left out, 7 in all:"
    assert len(said) == 8
    assert len(ds.attrs["skipped"]) == 7


def test_values_names_and_sizes_that_cannot_be_kept(tmp_path: Path) -> None:
    values = np.ones((9, 11), np.float32)
    for i in range(3):
        Image.fromarray(values * i).save(tmp_path / f"{i}.tif")
    values[2, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tif")
    strange = os.fsdecode(b"bad\xff.tif")
    try:
        (tmp_path / strange).write_bytes((tmp_path / "1.tif").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    refused(
        tmp_path, r"2 of 5 files .*: bad\\udcff.tif: its name is not UTF-8; rename it; nan.tif: has NaN or infinite"
    )
    ds = open_source(tmp_path, skip_bad=True)
    assert ds.path.values.tolist() == ["0.tif", "1.tif", "2.tif"]
    (tmp_path / strange).unlink()
    assert open_source(tmp_path, nonfinite="mask").sizes["sample"] == 4


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see")
    refused(tmp_path, r"is a folder; give a file, or a folder that holds images or volumes \(.png, .*.nii.gz\)")


def test_colour_of_16_bits_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(24) for _ in range(4)))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    refused(tmp_path, "a.png: is a colour image of 16 bits; expected 8 bits")


def test_which_folder_is_which(tmp_path: Path) -> None:
    for name in ("scan", "plain"):
        (tmp_path / name).mkdir()
    for i in range(4):
        Image.fromarray(GREY[i]).save(tmp_path / "scan" / f"x{i}_y0.png")
        Image.fromarray(GREY[i]).save(tmp_path / "plain" / f"photo{i}.png")
    assert find_source(tmp_path / "scan") == "point-images"
    assert find_source(tmp_path / "plain") == "images"
    assert find_source(tmp_path) == "images"
    ds = open_source(tmp_path / "scan", format="images")
    assert ds.sizes == {"sample": 4, "y": 9, "x": 11}
    assert open_source(tmp_path / "scan", size=(4, 4)).sizes["sample"] == 4
    assert open_source(tmp_path / "plain", filenames="photo{x}*", format="images").sizes["sample"] == 4
    refused(tmp_path / "plain", "does not tell both coordinates", UsageError, filenames="photo{x}")
    refused(tmp_path / "plain", "no format 'image'. Did you mean 'images'", UsageError, format="image")
    refused(tmp_path / "plain", "a folder, which format='idx' does not read", UsageError, format="idx")
    refused(tmp_path / "none", "none does not exist", NoInputError, format="images")
    refused(tmp_path / "plain", "must be two numbers", UsageError, size=(1, 2, 3))
    refused(tmp_path / "plain", "must begin with [*]", UsageError, masks="mask")


def test_scan_settings_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set")
    for setting in ({"step": 0.5}, {"bin": 2}, {"crop": {"dy": (0, 4)}}, {"maps": {"BC": "a.csv"}}):
        with pytest.raises(UsageError, match=f"{next(iter(setting))} is for scans, and the source is a collection"):
            ingest(folder, tmp_path / "a.zarr", config=IngestConfig.from_attrs(setting))
    assert not (tmp_path / "a.zarr").exists()


def test_store_has_all_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    with_masks(folder)
    ingest(folder, tmp_path / "a.zarr")
    ds = open_store(tmp_path / "a.zarr")
    np.testing.assert_array_equal(ds.mask, open_source(folder).mask)
    assert ds.path.values.tolist() == ["a (1).png", "b.png", "c.png"]
    assert nested(ds.attrs, "provenance")["source"]["format"] == "images"
    assert nested(ds.attrs, "provenance")["source"]["bytes"] == sum(f.stat().st_size for f in folder.iterdir())
    assert int(grid.roi(ds).sum()) == 3
