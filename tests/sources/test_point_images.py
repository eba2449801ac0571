"""One image for each scan point: names decide the place, nothing is guessed, grey values arrive as they are."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vaearr import schema
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.ingestion import ingest
from vaearr.provenance import nested
from vaearr.sources import find_source, open_source

NY, NX, HEIGHT, WIDTH = 3, 4, 5, 6


def pattern(i: int, j: int, dtype: str = "u1") -> np.ndarray:
    return ((20 * i + 5 * j + np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)) * (200 if dtype == "u2" else 1)).astype(
        dtype
    )


GRID = np.array([[pattern(i, j) for j in range(NX)] for i in range(NY)])


def write(
    folder: Path, name: Callable[[int, int], str], dtype: str = "u1", skip: tuple[tuple[int, int], ...] = ()
) -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(NY):
        for j in range(NX):
            if (i, j) not in skip:
                Image.fromarray(pattern(i, j, dtype)).save(folder / name(i, j))
    return folder


NAMES: dict[str, tuple[Callable[[int, int], str], str | None]] = {
    "labelled": (lambda i, j: f"x{j}_y{i}.png", None),
    "labelled_padded": (lambda i, j: f"Ni scan X={j:03d} Y={i:03d}.BMP", None),
    "labelled_y_first": (lambda i, j: f"map7-y{i}x{j}.tif", None),
    "plain": (lambda i, j: f"scan2_{i}_{j}.png", None),
    "template": (lambda i, j: f"run5 {j}-{i} b.png", "run5 {x}-{y} b"),
    "template_any": (lambda i, j: f"{i * 7 + j}_{j}_{i}.tiff", "*_{x}_{y}"),
    "regular_expression": (lambda i, j: f"c{j}r{i}q.png", r"c(?P<x>\d+)r(?P<y>\d+)"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_give_the_place(kind: str, tmp_path: Path) -> None:
    name, template = NAMES[kind]
    folder = write(tmp_path / "images", name)
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"")
    assert find_source(folder) == "point-images"
    ds = open_source(folder, filenames=template, step=0.5)
    schema.validate(ds)
    np.testing.assert_array_equal(ds.patterns, GRID)
    assert ds.patterns.dtype == np.uint8
    np.testing.assert_allclose(ds.x, np.arange(NX) * 0.5)
    assert ds.x.attrs["units"] == "um"
    assert bool(ds.attrs) == (kind == "plain")


def test_unlabelled_order_is_said_and_can_be_changed(tmp_path: Path) -> None:
    folder = write(tmp_path / "images", lambda i, j: f"a_{j}_{i}.png")
    said: list[str] = []
    assert ingest(folder, tmp_path / "a.zarr", say=said.append).sizes["y"] == NX
    assert said == ["file names are read as y_x; if they mean x_y, give filenames='*{x}_{y}'."]
    np.testing.assert_array_equal(open_source(folder, filenames="*{x}_{y}").patterns, GRID)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_kept(suffix: str, tmp_path: Path) -> None:
    ds = open_source(write(tmp_path / "images", lambda i, j: f"x{j}y{i}{suffix}", "u2"))
    assert ds.patterns.dtype == np.uint16
    np.testing.assert_array_equal(ds.patterns, GRID.astype("u2") * 200)


def test_folder_becomes_a_store(tmp_path: Path) -> None:
    folder = write(tmp_path / "images", lambda i, j: f"x{j}y{i}.png", skip=((1, 2), (2, 0)))
    said: list[str] = []
    ds = ingest(folder, tmp_path / "a.zarr", say=said.append)
    assert said == ["2 of 12 scan points have no pattern; 'present' marks them."]
    expected = GRID.copy()
    expected[1, 2] = expected[2, 0] = 0
    np.testing.assert_array_equal(ds.patterns, expected)
    source = nested(ds.attrs, "provenance")["source"]
    assert source["file"] == "images"
    assert source["format"] == "point-images"
    assert source["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    assert nested(ds.attrs, "provenance")["versions"]["pillow"]


# refusals


def refused(folder: Path, match: str, error: type[Exception] = DataError, **given: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        open_source(folder, **given).load()
    assert "\n" not in str(caught.value)


def test_names_that_do_not_match(tmp_path: Path) -> None:
    folder = write(tmp_path / "images", lambda i, j: f"x{j}y{i}.png")
    Image.fromarray(pattern(0, 0)).save(folder / "background.png")
    refused(folder, r"1 of 13 image names do not tell their scan point by x and y numbers .*: 'background'; move")
    refused(folder, "13 of 13 image names .* filenames='{y}_{x}'.*and 10 more", filenames="{y}_{x}")
    with pytest.raises(DataError, match="1 of 13"):
        ingest(folder, tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_scan_point_with_two_images(tmp_path: Path) -> None:
    folder = write(tmp_path / "images", lambda i, j: f"x{j}_y{i}.png")
    Image.fromarray(pattern(0, 0)).save(folder / "x02_y1.tif")
    refused(folder, r"'x02_y1.tif' and 'x2_y1.png' are both the scan point \[x, y\] = \[2, 1\]")


def test_templates_that_cannot_be_meant(tmp_path: Path) -> None:
    folder = write(tmp_path / "images", lambda i, j: f"x{j}_y{i}.png")
    for template in ("x{x}", "{x}{z}", r"(?P<x>\d+)"):
        refused(folder, "does not tell both coordinates; write a template", UsageError, filenames=template)
    for template in (r"(?P<x>\d+", "{x}_{x}_{y}"):
        refused(folder, "cannot be read .*; write a template", UsageError, filenames=template)


def test_images_that_differ(tmp_path: Path) -> None:
    folder = write(tmp_path / "images", lambda i, j: f"x{j}_y{i}.png")
    Image.fromarray(pattern(0, 0)[:4]).save(folder / "x1_y1.png")
    refused(folder, r"x1_y1.png is 4 x 6 px, the first image is 5 x 6 px; all images of a scan must agree")
    Image.fromarray(pattern(0, 0, "u2")).save(folder / "x1_y1.png")
    refused(folder, "x1_y1.png holds uint16, the first image uint8; all images")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".jpg"])
def test_damaged_images(suffix: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "images", lambda i, j: f"x{j}_y{i}{suffix}")
    whole = (folder / f"x1_y1{suffix}").read_bytes()
    for size in (0, 5, len(whole) - 30):
        (folder / f"x1_y1{suffix}").write_bytes(whole[:size])
        refused(folder, f"x1_y1{suffix} cannot be read as an image .*; it is damaged")
    (folder / f"x1_y1{suffix}").unlink()


def test_colour_and_stacks_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (6, 5)).save(folder / "x0y0.png")
    refused(folder, "is in colour; expected one grey image of 8 or 16 bits, so convert it")
    (folder / "x0y0.png").unlink()
    pages = [Image.fromarray(pattern(0, k)) for k in range(2)]
    pages[0].save(folder / "x0y0.tif", save_all=True, append_images=pages[1:])
    refused(folder, "holds 2 images; expected one")


def test_image_that_vanishes(tmp_path: Path) -> None:
    folder = write(tmp_path / "images", lambda i, j: f"x{j}_y{i}.png")
    ds = open_source(folder)
    (folder / "x1_y1.png").unlink()
    with pytest.raises(NoInputError, match=r"x1_y1.png is gone"):
        ds.patterns.load()


def test_folders_without_images(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is a folder; give a file")
    (tmp_path / "empty" / "x99999999999999999_y0.png").write_bytes(b"")
    refused(tmp_path / "empty", "too large for a step number")


@pytest.mark.parametrize(
    "name", ["scan_{y}_-{x}", "scan_-{y}_{x}", "-{y}_{x}", "{y}.5_{x}", "x{x}_y{y}.5", "s {y} _-{x}"]
)
def test_signs_and_decimals_are_not_dropped(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "images", lambda i, j: name.format(x=j, y=i) + ".png")
    refused(folder, "12 of 12 image names do not tell their scan point")


@pytest.mark.parametrize("name", ["scan-{y}-{x}", "s {y} {x}", "a.{y}, {x}", "{y} - {x}", "v2.1_{y}_{x}"])
def test_usual_separators(name: str, tmp_path: Path) -> None:
    ds = open_source(write(tmp_path / "images", lambda i, j: name.format(x=j, y=i) + ".png"))
    np.testing.assert_array_equal(ds.patterns, GRID)


def test_expressions_that_take_no_numbers(tmp_path: Path) -> None:
    folder = write(tmp_path / "images", lambda i, j: f"x{j}_y{i}.png")
    refused(folder, r"takes \('x0', 'y0'\) for x and y of 'x0_y0'; expected whole", filenames=r"(?P<x>\w+)_(?P<y>\w+)")
    refused(folder, r"takes \(None, '0'\) for x and y", filenames=r"(?P<x>q)?_y(?P<y>\d+)")


def test_a_link_that_leads_nowhere_is_no_missing_point(tmp_path: Path) -> None:
    folder = write(tmp_path / "images", lambda i, j: f"x{j}_y{i}.png")
    (folder / "x1_y1.png").unlink()
    (folder / "x1_y1.png").symlink_to(tmp_path / "gone.png")
    refused(folder, "x1_y1.png is a link to a file that is not there", NoInputError)


def test_absurd_sizes_are_not_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def declared(side: int) -> bytes:
        head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        body = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(99))), chunk(b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(body)

    folder = write(tmp_path / "images", lambda i, j: f"x{j}_y{i}.png")
    (folder / "x1_y1.png").write_bytes(declared(9000))
    refused(folder, "x1_y1.png declares 9000 x 9000 px")
    (folder / "x0_y0.png").write_bytes(declared(10000))  # Pillow only warns of this many
    refused(folder, "x0_y0.png declares")
