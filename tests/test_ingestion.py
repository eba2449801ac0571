"""From files to a store: all values arrive, bad input leaves nothing behind, the store says where it came from."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from vaearr import schema
from vaearr.config import IngestConfig
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError, VaearrError, WriteError
from vaearr.ingestion import ingest
from vaearr.provenance import nested
from vaearr.sources.lazy import H5Rows
from vaearr.store import layout

NY, NX = 37, 41  # more than one block each way, the last ones ragged


def raster(ny: int = NY, nx: int = NX) -> np.ndarray:
    y, x = np.divmod(np.arange(ny * nx), nx)
    return np.stack([x, y], axis=1)


def patterns(coords: np.ndarray, dtype: Any = "u1") -> np.ndarray:
    pixels = np.arange(5 * 7).reshape(1, 1, 5, 7)
    return ((coords[:, 0] + 3 * coords[:, 1]).reshape(-1, 1, 1, 1) % 80 + pixels).astype(dtype)


def write(path: Path, images: np.ndarray, coords: np.ndarray, **layout: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **layout)
        file["coords"] = coords
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write(tmp_path / "scan.h5", patterns(raster()), raster())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of the store, empty."""
    (tmp_path / "stores").mkdir()
    return tmp_path / "stores"


def side_files(folder: Path) -> dict[str, Any]:
    coords = raster()
    lines = [f"{x},{y},{x + y}" for x, y in coords[::-1]]
    (folder / "bc.csv").write_text("\n".join(["X,Y,Band Contrast", *lines]))
    (folder / "el.csv").write_text("\n".join(["x,y,Fe,Ni", *(f"{x},{y},{x},{y}" for x, y in coords)]))
    (folder / "ph.csv").write_text("\n".join(["x,y,phase", *(f"{x},{y},{x % 2}" for x, y in coords)]))
    return {"maps": {"BC": folder / "bc.csv"}, "elements": folder / "el.csv", "phases": str(folder / "ph.csv")}


def left(out: Path) -> list[str]:
    """What lies in the folder, but for the lock file, which is empty of meaning once free."""
    return sorted(p.name for p in out.iterdir() if not p.name.endswith(".lock"))


def test_everything_arrives(scan: Path, out: Path, tmp_path: Path) -> None:
    said: list[str] = []
    done: list[tuple[int, int]] = []
    given = side_files(tmp_path)
    ds = ingest(
        scan, out / "a.zarr", step=0.5, units="um", say=said.append, progress=lambda i, n: done.append((i, n)), **given
    )
    schema.validate(ds)
    assert left(out) == ["a.zarr"]
    assert said == []
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    y, x = np.mgrid[:NY, :NX]
    np.testing.assert_array_equal(ds.patterns.values.reshape(-1, 1, 5, 7), patterns(raster()))
    np.testing.assert_array_equal(ds.BC, x + y)
    np.testing.assert_array_equal(ds.elements.sel(element="Ni"), y)
    np.testing.assert_array_equal(ds.phase, x % 2)
    np.testing.assert_allclose(ds.x, np.arange(NX) * 0.5)
    assert ds.x.attrs["units"] == "um"
    assert ds.phase.attrs["flag_meanings"].startswith("no_entry not_indexed phase_0")
    assert ds.patterns.dtype == np.uint8


def test_provenance(scan: Path, out: Path, tmp_path: Path) -> None:
    config = IngestConfig(step=0.5)
    ds = ingest(scan, out / "a.zarr", config=config, maps={"BC": side_files(tmp_path)["maps"]["BC"]})
    origin = nested(ds.attrs, "provenance")
    assert origin["source"]["file"] == "scan.h5"
    assert origin["source"]["bytes"] == scan.stat().st_size
    assert IngestConfig.from_attrs(origin["ingest"]).step == 0.5
    assert origin["versions"]["zarr"]
    assert origin["created"].endswith("+00:00")
    attrs = ds.patterns.attrs
    assert (attrs["value_min"], attrs["value_max"], attrs["n_constant"]) == (0, 79 + 34, 0)
    assert ds.patterns.attrs["navigation_dims"] == ["y", "x"]
    again = ingest(scan, out / "b.zarr")
    assert again.patterns.attrs["sha256"] == attrs["sha256"]


def test_sha256_is_of_the_checksums_of_the_shards(scan: Path, out: Path) -> None:
    ds = ingest(scan, out / "a.zarr")
    values = patterns(raster()).reshape(NY, NX, 5, 7)
    shards = [values[y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
    whole = b"".join(hashlib.sha256(shard.tobytes()).digest() for shard in shards)
    assert ds.patterns.attrs["sha256"] == hashlib.sha256(whole).hexdigest()
    assert ds.patterns.attrs["sha256_of"] == "shards"


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4", "f8"])
def test_dtype_order_and_gaps(tmp_path: Path, out: Path, dtype: str) -> None:
    coords = np.random.default_rng(0).permutation(raster())[:-9]
    said: list[str] = []
    layout = {"chunks": (16, 1, 5, 7), "compression": "gzip"}
    ds = ingest(write(tmp_path / "a.h5", patterns(coords, dtype), coords, **layout), out / "a.zarr", say=said.append)
    assert said == [f"9 of {NY * NX} scan points have no pattern; 'present' marks them."]
    assert left(out) == ["a.zarr"]
    assert ds.patterns.dtype == np.dtype(dtype)
    values, present = ds.patterns.values, ds.present.values
    np.testing.assert_array_equal(values[coords[:, 1], coords[:, 0]], patterns(coords, dtype)[:, 0])
    assert (~present).sum() == 9
    assert present[coords[:, 1], coords[:, 0]].all()
    assert np.isnan(values[~present]).all() if dtype[0] == "f" else (values[~present] == 0).all()
    assert ds.patterns.attrs["n_constant"] == 0


def test_partly_covering_maps_are_said(scan: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "bc.csv").write_text(",x,y,BC\n0,0,0,5\n1,900,0,5\n")
    said: list[str] = []
    ds = ingest(scan, out / "a.zarr", maps={"BC": tmp_path / "bc.csv"}, say=said.append)
    assert said == [
        f"BC: {NY * NX - 1} scan points have no line in bc.csv.",
        "BC: 1 lines of bc.csv lie outside the scan and are left out.",
        "BC: 1 columns of bc.csv without a name are left out.",
    ]
    assert int(ds.BC.count()) == 1


def test_nonfinite_is_refused_by_place(tmp_path: Path, out: Path) -> None:
    images = patterns(raster(), "f4")
    images[5 * NX + 7, 0, 2, 3] = np.nan
    images[6 * NX + 7, 0, 2, 3] = np.inf
    path = write(tmp_path / "a.h5", images, raster())
    with pytest.raises(DataError, match=r"pattern at y = 2\.5, x = 3\.5 has NaN .* \(2 such patterns in this block\)"):
        ingest(path, out / "a.zarr", step=0.5)
    assert left(out) == []


def test_nonfinite_is_masked_on_request(tmp_path: Path, out: Path) -> None:
    images = patterns(raster(), "f4")
    images[5 * NX + 7, 0, 2, 3] = np.nan
    images[-1, 0, 0, 0] = -np.inf
    said: list[str] = []
    config = IngestConfig(nonfinite="mask")
    ds = ingest(write(tmp_path / "a.h5", images, raster()), out / "a.zarr", config=config, say=said.append)
    assert len(said) == 1
    assert said[0].startswith("2 patterns with NaN or infinite values, or such as float32 cannot hold, are left out")
    assert int((~ds.present).sum()) == 2
    assert not ds.present[5, 7]
    assert not ds.present[-1, -1]
    assert ds.patterns[5, 7].isnull().all()
    assert ds.patterns[-1, -1].isnull().all()
    assert int(ds.patterns.isnull().sum()) == 2 * 35
    assert ds.patterns.attrs["value_min"] == 0
    assert ds.patterns.attrs["n_masked"] == 2


def test_nothing_left_after_masking_is_refused(tmp_path: Path, out: Path) -> None:
    path = write(tmp_path / "a.h5", np.full((6, 1, 5, 7), np.nan, "f4"), raster(2, 3))
    with pytest.raises(DataError, match="no scan point has a pattern with finite values"):
        ingest(path, out / "a.zarr", config=IngestConfig(nonfinite="mask"))
    assert left(out) == []


def test_some_constant_patterns_are_counted(tmp_path: Path, out: Path) -> None:
    images = patterns(raster())
    images[[3, 900]] = 7
    said: list[str] = []
    ds = ingest(write(tmp_path / "a.h5", images, raster()), out / "a.zarr", say=said.append)
    assert said == ["2 patterns are constant (every detector pixel has the same value)."]
    assert ds.patterns.attrs["n_constant"] == 2


def test_only_constant_patterns_are_refused(tmp_path: Path, out: Path) -> None:
    images = np.broadcast_to(np.arange(6, dtype="u1").reshape(6, 1, 1, 1), (6, 1, 5, 7))
    with pytest.raises(DataError, match="all 6 patterns are constant"):
        ingest(write(tmp_path / "a.h5", images, raster(2, 3)), out / "a.zarr")
    assert left(out) == []


def test_channels_are_constant_only_together(tmp_path: Path, out: Path) -> None:
    images = np.zeros((6, 2, 5, 7), "u1")
    images[:, 1] = 3
    ds = ingest(write(tmp_path / "a.h5", images, raster(2, 3)), out / "a.zarr")
    assert ds.patterns.dims == ("y", "x", "channel", "dy", "dx")


def test_damage_found_on_the_way_leaves_nothing(tmp_path: Path, out: Path) -> None:
    path = write(tmp_path / "a.h5", patterns(raster()), raster(), chunks=(41, 1, 5, 7), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["images"].id.get_chunk_info(36)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    with pytest.raises(DataError, match="cannot be read"):
        ingest(path, out / "a.zarr")
    assert left(out) == []


def test_source_that_changes_is_refused(scan: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaearr.block_checks import Checks

    transform = Checks.transform

    def touch(self: Any, block: np.ndarray, region: Any) -> np.ndarray:
        os.utime(scan, (1, 1))
        return transform(self, block, region)

    monkeypatch.setattr(Checks, "transform", touch)
    with pytest.raises(DataError, match="changed while it was read"):
        ingest(scan, out / "a.zarr")
    assert left(out) == []


# refused before any work


def refused(out: Path, kind: type[VaearrError], match: str, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(kind, match=match) as caught:
        ingest(*args, **kwargs)
    assert "\n" not in str(caught.value)
    assert sorted(out.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("x,y,BC\n0,0,a\n", "line 2, column 'BC': 'a' is not a number"),
        ("x,y,BC\n0,0,1\n0,0,1\n", "lines 2 and 3 are both the scan point x = 0, y = 0"),
        ("x,y,BC\n-5,-5,1\n", "none lies on the scan"),
        ("x,y,BC\n0,0\n", "line 2 has 2 fields"),
    ],
)
@pytest.mark.parametrize("which", ["maps", "elements", "phases"])
def test_bad_side_maps(scan: Path, out: Path, tmp_path: Path, which: str, text: str, match: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    given = {which: {"BC": path} if which == "maps" else path}
    refused(out, DataError, match, scan, out / "a.zarr", **given)


def test_missing_inputs(scan: Path, out: Path, tmp_path: Path) -> None:
    refused(out, NoInputError, "none.h5 does not exist", tmp_path / "none.h5", out / "a.zarr")
    refused(out, NoInputError, "none.csv does not exist", scan, out / "a.zarr", phases=tmp_path / "none.csv")


OF_A_SOURCE = ["patterns", "present", "phase", "elements", "x", "y", "z", "y_index", "dz", "dy", "dx", "element"]
OF_A_RUN = ["roi", "roi_b", "split", "split_b", "latent", "latent_b", "latents", "latents_std", "latents_b"]
OF_A_RUN += ["latents_std_b", "reconstruction_error", "reconstruction_error_b", "runs", "history", "sample"]


@pytest.mark.parametrize("name", OF_A_SOURCE + OF_A_RUN)
def test_map_names_with_a_meaning(scan: Path, out: Path, tmp_path: Path, name: str) -> None:
    refused(out, UsageError, "cannot name a map", scan, out / "a.zarr", maps={name: side_files(tmp_path)["elements"]})


def test_map_names_that_only_look_like_a_run_s(scan: Path, out: Path, tmp_path: Path) -> None:
    path = side_files(tmp_path)["maps"]["BC"]
    said: list[str] = []
    ds = ingest(scan, out / "a.zarr", maps={"roiness": path, "splits": path, "latency": path}, say=said.append)
    assert {"roiness", "splits", "latency"} <= set(ds.data_vars)


def test_map_names_that_are_no_names(scan: Path, out: Path) -> None:
    refused(out, UsageError, "must be letters, digits", scan, out / "a.zarr", maps={"../a": "bc.csv"})


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_existing_target_is_left_alone(scan: Path, out: Path, kind: str) -> None:
    target = out / "a.zarr"
    if kind == "file":
        target.write_text("mine")
    elif kind == "folder":
        target.mkdir()
        (target / "notes.txt").write_text("mine")
    else:
        target.symlink_to(out / "nowhere")
    before = {p: p.lstat().st_mtime_ns for p in out.rglob("*")}
    with pytest.raises(ExistsError, match="already exists"):
        ingest(scan, target)
    assert {p: p.lstat().st_mtime_ns for p in out.rglob("*")} == before


def test_source_as_target(scan: Path) -> None:
    before = scan.read_bytes()
    with pytest.raises(ExistsError):
        ingest(scan, scan)
    assert scan.read_bytes() == before


def test_full_disk(scan: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaearr.ingestion.shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    refused(out, WriteError, "the patterns need up to .* GB are free", scan, out / "a.zarr")


def test_parent_that_is_a_file(scan: Path, out: Path) -> None:
    with pytest.raises(WriteError, match="is not a folder"):
        ingest(scan, scan / "a.zarr")


def test_new_folders_are_made(scan: Path, out: Path) -> None:
    assert ingest(scan, out / "deep" / "er" / "a.zarr").sizes["x"] == NX


def test_what_a_late_failure_leaves(scan: Path, out: Path, tmp_path: Path) -> None:
    images = patterns(raster(), "f4")
    images[-1] = np.nan
    with pytest.raises(DataError, match="NaN or infinite"):
        ingest(write(tmp_path / "bad.h5", images, raster()), out / "deep" / "er" / "a.zarr")
    there = sorted(p.relative_to(out).as_posix() for p in out.rglob("*"))
    assert there == ["deep", "deep/er", "deep/er/.a.zarr.lock"]
    assert ingest(scan, out / "deep" / "er" / "a.zarr").sizes["x"] == NX


def test_what_an_early_failure_leaves(scan: Path, out: Path, tmp_path: Path) -> None:
    refused(out, NoInputError, "does not exist", scan, out / "deep" / "a.zarr", phases=tmp_path / "none.csv")
    refused(out, UsageError, "finite number", scan, out / "deep" / "a.zarr", step=float("inf"))


def test_no_thread_is_left(scan: Path, out: Path) -> None:
    before = threading.active_count()
    ds = ingest(scan, out / "a.zarr")
    assert isinstance(ds, xr.Dataset)
    assert threading.active_count() <= before + 2  # zarr's own loop


# less of the detector


def test_cropped_and_binned(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coords = np.random.default_rng(0).permutation(raster())[:-9]
    read: list[int] = []
    reading = H5Rows.__call__

    def counted(self: H5Rows, wanted: np.ndarray) -> np.ndarray:
        block = reading(self, wanted)
        read.append(block.nbytes)
        return block

    monkeypatch.setattr(H5Rows, "__call__", counted)
    monkeypatch.setattr(layout, "CHUNK_BYTES", 8 * 8 * 35)
    config = IngestConfig(crop={"dy": (1, None), "dx": (0.5, 6.5)}, bin=2)
    source = write(tmp_path / "a.h5", patterns(coords), coords)
    ds = ingest(source, out / "a.zarr", config=config)
    window = patterns(raster())[:, 0, 1:, 1:].reshape(NY, NX, 2, 2, 3, 2)
    binned = window.mean((3, 5)).astype("f4")
    present = ds.present.values
    assert ds.patterns.dtype == np.float32
    assert (~present).sum() == 9
    np.testing.assert_array_equal(ds.patterns.values[present], binned[present])
    assert np.isnan(ds.patterns.values[~present]).all()
    np.testing.assert_array_equal(ds.dy, [1.5, 3.5])
    np.testing.assert_array_equal(ds.dx, [1.5, 3.5, 5.5])
    steps = nested(ds.patterns.attrs, "steps")
    assert [step["step"] for step in steps] == ["crop", "bin"]
    assert steps[0]["dx"] == [0.5, 6.5]
    recorded = IngestConfig.from_attrs(nested(ds.attrs, "provenance")["ingest"])
    assert (recorded.crop, recorded.bin) == (config.crop, 2)
    assert ds.patterns.attrs["value_max"] == binned[present].max()
    assert ds.patterns.attrs["sha256"]
    assert max(read) <= layout.CHUNK_BYTES  # memory does not grow with the scan
    assert sum(read) == len(coords) * 35  # each pattern once


@pytest.mark.parametrize("dtype", ["u2", "f8"])
def test_cropped_only_keeps_the_dtype(tmp_path: Path, out: Path, dtype: str) -> None:
    source = write(tmp_path / "a.h5", patterns(raster(), dtype), raster())
    ds = ingest(source, out / "a.zarr", config=IngestConfig(crop={"dx": (None, 3)}))
    assert ds.patterns.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(ds.patterns.values.reshape(-1, 5, 3), patterns(raster(), dtype)[:, 0, :, :3])
    np.testing.assert_array_equal(ds.dx, [0, 1, 2])


def test_binned_with_channels(tmp_path: Path, out: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (NY * NX, 3, 4, 6), dtype="u1")
    ds = ingest(write(tmp_path / "a.h5", images, raster()), out / "a.zarr", config=IngestConfig(bin=2))
    binned = images.reshape(NY, NX, 3, 2, 2, 3, 2).mean((4, 6)).astype("f4")
    np.testing.assert_array_equal(ds.patterns, binned)
    assert ds.patterns.dims == ("y", "x", "channel", "dy", "dx")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"crop": {"dy": (10, 20)}}, r"the window dy=\(10.0, 20.0\) holds no detector pixel; dy runs from 0 to 4"),
        ({"bin": 2}, "'dy' has 5 pixels, which is not a multiple of 2; crop to 4 first"),
    ],
)
def test_windows_and_blocks_that_do_not_fit(scan: Path, out: Path, settings: dict[str, Any], match: str) -> None:
    refused(out, UsageError, match, scan, out / "a.zarr", config=IngestConfig(**settings))
