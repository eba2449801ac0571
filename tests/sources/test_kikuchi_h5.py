"""HDF5 pattern stacks: values land at their coordinates, whatever the file's order; bad files fail in one line."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr import schema
from vaearr.config import IngestConfig
from vaearr.errors import DataError, NoInputError, VaearrError
from vaearr.sources import SOURCES, find_source, lazy, open_source
from vaearr.sources.kikuchi_h5 import KikuchiH5Backend
from vaearr.sources.scan_grid import scan_grid

GZIP = {"chunks": (4, 1, 5, 7), "compression": "gzip"}


def raster(ny: int, nx: int) -> np.ndarray:
    """[x, y] step numbers, x fastest."""
    y, x = np.divmod(np.arange(ny * nx), nx)
    return np.stack([x, y], axis=1)


def patterns_at(coords: np.ndarray, shape: tuple[int, ...] = (1, 5, 7), dtype: Any = "u2") -> np.ndarray:
    """Patterns that tell which scan point and which detector pixel each value belongs to."""
    base = (coords[:, 0] % 10) * 10 + coords[:, 1] % 10
    inner = np.arange(np.prod(shape)).reshape(shape)
    return (base.reshape(-1, *(1,) * len(shape)) + inner % 100).astype(dtype)


def write(path: Path, images: Any, coords: Any, **layout: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **layout)
        file["coords"] = coords
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """4 rows of 6 scan points, 5 x 7 pixels: no two axes alike."""
    coords = raster(4, 6)
    return write(tmp_path / "scan.h5", patterns_at(coords), coords)


# what comes out


def test_axes_are_not_transposed(scan: Path) -> None:
    ds = open_source(scan)
    schema.validate(ds)
    assert dict(ds.sizes) == {"y": 4, "x": 6, "dy": 5, "dx": 7}
    assert int(ds.patterns.sel(x=5, y=2, dy=1, dx=3)) == 52 + 1 * 7 + 3
    assert ds.present.all()
    assert schema.navigation_dims(ds) == ("y", "x")


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4", "f8", ">u2", ">f4", "f2", "i8"])
@pytest.mark.parametrize("layout", [{}, GZIP], ids=["contiguous", "gzip"])
def test_dtype_and_values_are_kept(tmp_path: Path, dtype: str, layout: dict[str, Any]) -> None:
    coords = raster(3, 5)[::-1]
    ds = open_source(write(tmp_path / "a.h5", patterns_at(coords, dtype=dtype), coords, **layout))
    assert ds.patterns.dtype == np.dtype(dtype).newbyteorder("=")
    assert ds.patterns.dtype.isnative
    np.testing.assert_array_equal(ds.patterns.values.reshape(15, 1, 5, 7), patterns_at(raster(3, 5), dtype=dtype))


@pytest.mark.parametrize(
    ("shape", "dims"),
    [((5, 7), ("dy", "dx")), ((1, 5, 7), ("dy", "dx")), ((3, 5, 7), ("channel", "dy", "dx"))],
    ids=["3-D", "one-channel", "three-channels"],
)
def test_signal_dims(tmp_path: Path, shape: tuple[int, ...], dims: tuple[str, ...]) -> None:
    coords = raster(2, 3)
    ds = open_source(write(tmp_path / "a.h5", patterns_at(coords, shape), coords))
    assert schema.signal_dims(ds) == dims
    expected = patterns_at(coords, shape).reshape(2, 3, *(s for s in shape if s > 1))
    np.testing.assert_array_equal(ds.patterns.values, expected)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_values_land_at_their_coordinates(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    ny, nx = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 7))
    n_points = data.draw(st.integers(-(-ny * nx // 4), ny * nx))
    order = data.draw(st.permutations(range(ny * nx)))[:n_points]
    origin = data.draw(st.tuples(st.integers(-5, 5), st.integers(-5, 5)))
    spacing = data.draw(st.integers(1, 3))
    coords = raster(ny, nx)[list(order)] * spacing + origin
    dtype = data.draw(st.sampled_from(["u1", "f4"]))
    layout = data.draw(st.sampled_from([{}, GZIP])) if n_points >= 4 else {}
    path = write(tmp_path_factory.mktemp("h5") / "a.h5", patterns_at(coords, dtype=dtype), coords, **layout)
    with open_source(path) as ds:
        block = ds.patterns.load()
        assert int(ds.present.sum()) == n_points
        for (x, y), pattern in zip(coords, patterns_at(coords, dtype=dtype), strict=True):
            np.testing.assert_array_equal(block.sel(x=x, y=y), pattern[0])
            assert ds.present.sel(x=x, y=y)
        absent = block.values[~ds.present.values]
        assert np.isnan(absent).all() if dtype == "f4" else (absent == 0).all()


@pytest.mark.parametrize("layout", [{}, GZIP], ids=["contiguous", "gzip"])
def test_every_kind_of_index(tmp_path: Path, layout: dict[str, Any]) -> None:
    coords = np.random.default_rng(0).permutation(raster(6, 8))
    ds = open_source(write(tmp_path / "a.h5", patterns_at(coords), coords, **layout))
    whole = ds.patterns.copy(data=ds.patterns.values)
    for index in (
        {"y": 2},
        {"y": slice(1, 3), "x": slice(2, 7)},
        {"y": slice(None, None, -2), "dx": slice(5, 1, -1), "dy": 3},
        {"x": [5, 2, 2], "dy": [4, 0]},
        {"x": slice(0, 0)},
        {"dx": slice(0, 0)},
        {"y": -1, "x": -2},
        {"y": xr.DataArray([0, 5, 3], dims="sample"), "x": xr.DataArray([7, 1, 1], dims="sample")},
    ):
        xr.testing.assert_identical(ds.patterns.isel(index).load(), whole.isel(index))


def test_coordinates_are_step_numbers_without_a_step(scan: Path) -> None:
    ds = open_source(scan)
    assert ds.x.attrs["units"] == "step"
    assert ds.x.dtype.kind == "i"
    np.testing.assert_array_equal(ds.x_index, np.arange(6))


def test_coordinates_carry_the_step(scan: Path) -> None:
    ds = open_source(scan, IngestConfig(units="nm"), step=0.25)
    np.testing.assert_allclose(ds.y, [0, 0.25, 0.5, 0.75])
    assert ds.y.attrs["units"] == "nm"
    np.testing.assert_array_equal(ds.y_index, np.arange(4))


@pytest.mark.parametrize("where", ["/", "coords", "images"])
def test_step_of_the_file(scan: Path, where: str) -> None:
    with h5py.File(scan, "a") as file:
        file[where].attrs.update({"step_size": np.float32(0.5), "unit": b"nm"})
    ds = open_source(scan)
    assert float(ds.x[-1]) == 2.5
    assert ds.x.attrs["units"] == "nm"
    assert float(open_source(scan, step=2.0).x[-1]) == 10


@pytest.mark.parametrize("value", ["half", -1.0, [0.5, 0.25], h5py.Empty("f4")], ids=str)
def test_unusable_step_of_the_file_is_left_aside(scan: Path, value: Any) -> None:
    with h5py.File(scan, "a") as file:
        file.attrs["step"] = value
    assert open_source(scan).x.attrs["units"] == "step"


def test_gaps_leave_a_regular_axis(tmp_path: Path) -> None:
    coords = raster(4, 6) * [2, 3]
    coords = coords[coords[:, 0] != 6]
    ds = open_source(write(tmp_path / "a.h5", patterns_at(coords), coords))
    np.testing.assert_array_equal(ds.x, [0, 2, 4, 6, 8, 10])
    np.testing.assert_array_equal(ds.y, [0, 3, 6, 9])
    assert not ds.present.sel(x=6).any()
    assert (ds.patterns.sel(x=6) == 0).all()


def test_spacing_is_the_common_divisor() -> None:
    grid = scan_grid(np.array([[0, 7], [4, 7], [10, 7], [10, 9]]), "coords")
    np.testing.assert_array_equal(grid.x, [0, 2, 4, 6, 8, 10])
    np.testing.assert_array_equal(grid.rows, [[0, -1, 1, -1, -1, 2], [-1, -1, -1, -1, -1, 3]])


def test_irregular_axis_keeps_what_is_there(tmp_path: Path) -> None:
    coords = raster(3, 4)
    coords[:, 0] = np.array([0, 1, 50, 1001])[coords[:, 0]]
    ds = open_source(write(tmp_path / "a.h5", patterns_at(coords), coords))
    np.testing.assert_array_equal(ds.x, [0, 1, 50, 1001])
    assert ds.present.all()


def test_float_coordinates_that_are_whole(tmp_path: Path) -> None:
    coords = raster(2, 3)
    ds = open_source(write(tmp_path / "a.h5", patterns_at(coords), coords.astype("f4")))
    assert ds.x.dtype == np.int64


def test_other_names(tmp_path: Path) -> None:
    coords = raster(2, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scan/pat"] = patterns_at(coords)
        file["scan/xy"] = coords
        file["alias"] = h5py.SoftLink("/scan/pat")
    assert open_source(tmp_path / "a.h5", images="scan/pat", coords="scan/xy").sizes["x"] == 3
    assert open_source(tmp_path / "a.h5", images="alias", coords="/scan/xy").sizes["x"] == 3


# reading


def shuffled(tmp_path: Path, **layout: Any) -> tuple[Path, Path]:
    coords = raster(24, 20)
    order = np.random.default_rng(1).permutation(len(coords))
    kept = order[:-7]
    plain = write(tmp_path / "raster.h5", patterns_at(coords[np.sort(kept)]), coords[np.sort(kept)], **layout)
    return plain, write(tmp_path / "shuffled.h5", patterns_at(coords[kept]), coords[kept], **layout)


def test_shuffled_rows_are_read_through_a_scratch_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaearr.store.layout.CHUNK_SAMPLES", 64)
    plain, mixed = shuffled(tmp_path, chunks=(16, 1, 5, 7), compression="gzip")
    folder = tmp_path / "scratch"
    folder.mkdir()
    copies: list[int] = []
    copy = lazy._scratch_copy
    monkeypatch.setattr(lazy, "_scratch_copy", lambda *given: copies.append(1) or copy(*given))
    a, b, c = open_source(plain), open_source(mixed, scratch=folder), open_source(mixed)
    xr.testing.assert_identical(a.load(), b.load())
    xr.testing.assert_identical(a.load(), c.load())
    assert copies == [1]
    assert list(folder.iterdir()) == []


def test_no_scratch_copy_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mixed = shuffled(tmp_path, chunks=(16, 1, 5, 7), compression="gzip")
    monkeypatch.setattr("vaearr.store.layout.CHUNK_SAMPLES", 64)
    monkeypatch.setattr("vaearr.sources.lazy.shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(OSError, match=r"need a scratch copy of .* are free"):
        open_source(mixed, scratch=tmp_path).patterns.isel(y=slice(0, 8)).load()


def test_damaged_rows_are_named(tmp_path: Path) -> None:
    coords = raster(4, 6)
    path = write(tmp_path / "a.h5", patterns_at(coords), coords, **GZIP)
    with h5py.File(path) as file:
        chunk = file["images"].id.get_chunk_info(3)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    with pytest.raises(DataError, match=r"rows \d+ to \d+ of '/images' cannot be read .* damaged"):
        open_source(path).patterns.load()


# the xarray engine


def test_engine(scan: Path) -> None:
    with xr.open_dataset(scan, engine="kikuchi-h5") as ds:
        xr.testing.assert_identical(ds.load(), open_source(scan).load())
    with xr.open_dataset(scan, engine="kikuchi-h5", step=0.5, drop_variables="present") as ds:
        assert float(ds.x[1]) == 0.5
        assert "present" not in ds


def test_engine_is_guessed_only_for_its_own_files(scan: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros(3)
    (tmp_path / "text.h5").write_text("no")
    engine = KikuchiH5Backend()
    assert engine.guess_can_open(scan)
    assert engine.guess_can_open(str(scan))
    for other in (tmp_path / "other.h5", tmp_path / "text.h5", tmp_path / "none.h5", tmp_path, b"bytes", 3):
        assert not engine.guess_can_open(other)
    with xr.open_dataset(scan) as ds:
        assert ds.patterns.dims == ("y", "x", "dy", "dx")


def test_engine_with_dask(scan: Path) -> None:
    with xr.open_dataset(scan, engine="kikuchi-h5", chunks={}) as ds:
        assert ds.patterns.chunks is not None
        xr.testing.assert_identical(ds.compute(), open_source(scan).load())
        xr.testing.assert_identical(ds.chunk({"y": 1, "x": 4}).compute(), open_source(scan).load())


@pytest.mark.parametrize("chunks", [None, {}], ids=["lazy", "dask"])
@pytest.mark.parametrize("is_read_before", [False, True])
def test_engine_pickles(scan: Path, chunks: Any, is_read_before: bool) -> None:
    with xr.open_dataset(scan, engine="kikuchi-h5", chunks=chunks, cache=False) as ds:
        if is_read_before:
            ds.patterns[0, 0].values  # noqa: B018
        with pickle.loads(pickle.dumps(ds)) as again:
            xr.testing.assert_identical(again.compute(), open_source(scan).load())


def test_content_decides_not_the_suffix(scan: Path) -> None:
    other = scan.rename(scan.with_suffix(".csv"))
    assert find_source(other) == "kikuchi-h5"
    assert next(iter(SOURCES)) == "kikuchi-h5"


def test_user_block(tmp_path: Path) -> None:
    coords = raster(2, 3)
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=1024) as file:
        file["images"], file["coords"] = patterns_at(coords), coords
    ds = open_source(tmp_path / "a.h5")
    np.testing.assert_array_equal(ds.patterns.values.reshape(6, 1, 5, 7), patterns_at(coords))


# refusals of the file


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_flipped_bytes_never_end_in_another_error(tmp_path: Path, libver: str) -> None:
    coords = raster(4, 6)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("images", data=patterns_at(coords), **GZIP)
        file["coords"] = coords
    raw, rng = path.read_bytes(), np.random.default_rng(0)
    outcomes = []
    for _ in range(150):
        damaged = bytearray(raw)
        damaged[rng.integers(len(raw))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            with open_source(path) as ds:
                ds.patterns.values  # noqa: B018
            outcomes.append("read")
        except VaearrError as error:
            outcomes.append("several lines" if "\n" in str(error) else "refused")
    assert set(outcomes) == {"read", "refused"}


def refused(path: Path, match: str, kind: type[Exception] = DataError, **settings: Any) -> None:
    with pytest.raises(kind, match=match) as caught:
        open_source(path, **settings)
    assert "\n" not in str(caught.value)


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.h5", "does not exist", NoInputError)
    refused(tmp_path, "is a folder; give a file")
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / "zarr.json").write_text("{}")
    refused(tmp_path / "s.zarr", "there is no variable in it; patterns are expected")


def test_refuses_what_is_not_hdf5(tmp_path: Path) -> None:
    (tmp_path / "empty.h5").touch()
    refused(tmp_path / "empty.h5", r"is empty \(0 bytes\)")
    (tmp_path / "a.h5").write_text("x,y,BC\n")
    refused(tmp_path / "a.h5", r"no format that vaearr reads \(it starts with b'x,y,BC")


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_refuses_truncated(scan: Path, share: float) -> None:
    raw = scan.read_bytes()
    scan.write_bytes(raw[: int(len(raw) * share)])
    refused(scan, rf"truncated HDF5 file: it has {int(len(raw) * share)} of {len(raw)} bytes")


def test_refuses_damaged_header(scan: Path) -> None:
    raw = bytearray(scan.read_bytes())
    raw[8:24] = b"\xff" * 16
    scan.write_bytes(raw)
    refused(scan, "cannot be opened as HDF5 .* damaged")


def test_refuses_file_left_open_by_a_writer(tmp_path: Path) -> None:
    coords = raster(2, 3)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["images"], file["coords"] = patterns_at(coords), coords
        file.swmr_mode = True
        file.flush()
        raw = path.read_bytes()
    path.write_bytes(raw)
    refused(path, "marked as open for writing.*h5clear -s a.h5")


def test_refuses_missing_datasets(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"], file["coords"] = np.zeros((2, 3, 3)), [[0, 0], [1, 0]]
    refused(tmp_path / "a.h5", r"no dataset 'images'; choose one with images=… Did you mean 'image'\?.*coords, image")
    refused(tmp_path / "a.h5", r"no dataset 'xy'; choose one with coords=…", images="image", coords="xy")


@pytest.mark.parametrize(
    ("images", "coords", "match"),
    [
        (np.zeros((6, 3)), raster(2, 3), r"'images' has shape \(6, 3\); expected \(N, H, W\)"),
        (np.zeros((6, 3, 3)), raster(2, 2), "'images' holds 6 patterns, 'coords' 4 rows"),
        (np.zeros((0, 3, 3)), np.zeros((0, 2)), "is empty: its shape is"),
        (np.zeros((6, 3, 0)), raster(2, 3), "is empty: its shape is"),
        (np.zeros((6, 3, 3), "c8"), raster(2, 3), "dtype complex64; expected an integer or float"),
        (np.zeros((6, 3, 3), bool), raster(2, 3), "dtype bool; expected an integer or float"),
        (np.zeros((6, 3, 3), "S4"), raster(2, 3), r"dtype \|S4; expected an integer or float"),
        (np.zeros((6, 3, 3)), np.zeros((6, 3)), r"'coords' has shape \(6, 3\); expected \(N, 2\)"),
        (np.zeros((6, 3, 3)), np.zeros(6), r"'coords' has shape \(6,\); expected \(N, 2\)"),
        (np.zeros((6, 3, 3)), raster(2, 3).astype("S2"), r"'coords' has dtype \|S2; expected whole numbers"),
    ],
)
def test_refuses_wrong_shapes_and_types(tmp_path: Path, images: np.ndarray, coords: np.ndarray, match: str) -> None:
    refused(write(tmp_path / "a.h5", images, coords), match)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.nan, r"row 4: \[x, y\] = \[nan, 1.0\] is not a number"),
        (np.inf, r"row 4: \[x, y\] = \[inf, 1.0\] is not a number"),
        (1.5, r"row 4: \[x, y\] = \[1.5, 1.0\] expected whole step numbers; divide positions by the step size"),
        (1e300, r"row 4: .* out of range"),
        (0.0, r"rows 3 and 4 both have \[x, y\] = \[0, 1\] \(1 rows repeat"),
    ],
)
def test_refuses_bad_coordinates(tmp_path: Path, value: float, match: str) -> None:
    coords = raster(2, 3).astype("f8")
    coords[4, 0] = value
    refused(write(tmp_path / "a.h5", patterns_at(raster(2, 3)), coords), match)


def test_refuses_scattered_points(tmp_path: Path) -> None:
    coords = np.stack([np.arange(40), np.random.default_rng(0).permutation(40)], axis=1)
    refused(write(tmp_path / "a.h5", patterns_at(coords), coords), "40 points lie scattered: 40 different x")


def test_far_apart_points_need_no_memory() -> None:
    steps = np.array([[0, 0], [2**52, 0], [0, 2**52], [2**52, 2**52]])
    assert scan_grid(steps, "coords").rows.shape == (2, 2)


@pytest.mark.parametrize("name", ["images", "coords"])
def test_refuses_data_in_other_files(scan: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(1000))
    shape, dtype = ((24, 5, 7), "u1") if name == "images" else ((24, 2), "i4")
    with h5py.File(scan, "a") as file:
        del file[name]
        file[name] = h5py.ExternalLink("other.h5", f"/{name}")
    refused(scan, r"'\w+' is a link to another file \(other.h5\)")
    with h5py.File(scan, "a") as file:
        file["away"] = h5py.ExternalLink("other.h5", "/")
        del file[name]
        file[name] = h5py.SoftLink(f"away/{name}")
        file["here"] = h5py.SoftLink(f"./away/./{name}")
    refused(scan, r"'\w+' is a link to another file \(other.h5\)")
    refused(scan, r"'away' is a link to another file \(other.h5\)", **{name: "here"})
    with h5py.File(scan, "a") as file:
        del file[name], file["away"], file["here"]
        file.create_dataset(name, shape, dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    refused(scan, "keeps its values in another file")
    with h5py.File(scan, "a") as file:
        del file[name]
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource("other.h5", "data", shape)
        file.create_virtual_dataset(name, layout)
    refused(scan, "is virtual, its values lie in other files")


def test_refuses_links_in_a_circle(scan: Path) -> None:
    with h5py.File(scan, "a") as file:
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
    refused(scan, "too many links|no dataset 'a'", images="a")


def test_refuses_sizes_that_cannot_be_true(tmp_path: Path) -> None:
    coords = raster(2, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (6, 60_000, 60_000), "u1")
        file["coords"] = coords
    refused(tmp_path / "a.h5", r"declares 21600000000 bytes .* but the file has \d+")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("images", (6, 60_000, 60_000), "u1", chunks=(1, 100, 100), compression="gzip")
        file["coords"] = coords
    refused(tmp_path / "b.h5", r"declares 21600000000 bytes .* but the file has \d+")


def test_refuses_null_dataset(scan: Path) -> None:
    with h5py.File(scan, "a") as file:
        del file["images"]
        file["images"] = h5py.Empty("f4")
    refused(scan, "null dataset")


def test_refuses_unknown_compression(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(scan, "a") as file:
        del file["images"]
        file.create_dataset("images", data=np.zeros((24, 5, 7)), compression="lzf")
    monkeypatch.setattr("vaearr.sources.hdf5.h5py.h5z.filter_avail", lambda code: False)
    refused(scan, r"compressed with filter 32000 \(lzf\), which this HDF5 lacks")


def test_refuses_unreadable(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*args: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vaearr.sources.hdf5.h5py.File", deny)
    with pytest.raises(NoInputError, match=r"may not be read \(Permission denied\)"):
        open_source(scan)


def test_engine_refuses_open_files(scan: Path) -> None:
    with scan.open("rb") as file, pytest.raises(DataError, match="reads files by path"):
        KikuchiH5Backend().open_dataset(file)  # type: ignore[arg-type]
