"""Vendor files: every format opens as the same labelled scan, its maps under our names, or is refused in words.

Real files are read where the environment variable VAEARR_VENDOR_DATA names a folder of them.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.sources import vendor_files as files
from vaearr import schema
from vaearr.errors import DataError, MissingExtraError, UsageError, VaearrError
from vaearr.ingestion import ingest
from vaearr.provenance import nested
from vaearr.sources import SOURCES, find_source, open_source
from vaearr.sources.vendor_binary import UP_GRID, UP_HEADER

kikuchipy = pytest.importorskip("kikuchipy", reason="the extra [ebsd] is not installed: vendor files are not tested")

MAKERS: dict[str, Any] = {
    "edax-h5": lambda folder: files.edax_h5(folder / "a.h5"),
    "h5oina": lambda folder: files.oxford(folder / "a.h5oina"),
    "bruker-h5": lambda folder: files.bruker(folder / "a.h5"),
    "kikuchipy-h5": lambda folder: files.kikuchipy_h5(folder / "a.h5"),
    "edax-up": lambda folder: files.up(folder / "a.up2", 3, "<u2"),
    "nordif": files.nordif,
    "emsoft-ebsd": lambda folder: files.emsoft(folder / "a.h5"),
}
DTYPES = {"bruker-h5": "u2", "edax-up": "u2"}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_format_is_the_same_scan(kind: str, tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path)
    assert find_source(path) == kind
    settings = {"nav_shape": (2, 3)} if kind == "emsoft-ebsd" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = open_source(path, **settings)
    schema.validate(ds)
    assert ds.patterns.dims == ("y", "x", "dy", "dx")
    assert ds.patterns.dtype == np.dtype(DTYPES.get(kind, "u1"))
    np.testing.assert_array_equal(ds.patterns.values, files.GRID.astype(ds.patterns.dtype))
    np.testing.assert_array_equal(ds.patterns[1, 2, 3].values, files.GRID[1, 2, 3].astype(ds.patterns.dtype))
    assert ds.present.all()
    again = pickle.loads(pickle.dumps(ds.patterns))  # what dask workers in other processes get
    np.testing.assert_array_equal(again.values, ds.patterns.values)
    steps = {"nordif": (1.5, 1.5), "emsoft-ebsd": (1, 1)}.get(kind, (0.5, 0.25))
    np.testing.assert_allclose(ds.y, np.arange(2) * steps[0])
    np.testing.assert_allclose(ds.x, np.arange(3) * steps[1])
    assert ds.x.attrs["units"] == ("step" if kind == "emsoft-ebsd" else "um")
    ds.close()


@pytest.mark.parametrize("kind", MAKERS)
def test_the_patterns_are_those_that_kikuchipy_loads(kind: str, tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signal = kikuchipy.load(str(path))
    expected = signal.data.reshape(-1, files.HEIGHT, files.WIDTH)
    np.testing.assert_array_equal(open_source(path).patterns.values.reshape(expected.shape), expected)


@pytest.mark.parametrize("kind", MAKERS)
def test_every_format_becomes_a_store(kind: str, tmp_path: Path) -> None:
    ds = ingest(MAKERS[kind](tmp_path), tmp_path / "stores" / "a.zarr")
    source = nested(ds.attrs, "provenance")["source"]
    assert source["format"] == kind
    assert nested(ds.attrs, "provenance")["versions"]["kikuchipy"] == kikuchipy.__version__
    flat = ds.patterns.values.reshape(files.PATTERNS.shape)
    np.testing.assert_array_equal(flat, files.PATTERNS.astype(flat.dtype))
    fresh = open_source(MAKERS[kind](tmp_path))
    assert set(ds.data_vars) == set(fresh.data_vars)
    assert nested(ds.attrs, "detector") == nested(fresh.attrs, "detector")


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = files.edax_h5(tmp_path / "a.h5", Pattern=None)
    with h5py.File(path, "a") as file:
        data = file["Scan 1/EBSD/Data"].create_dataset("Pattern", (6, 4, 5), "u1", chunks=(1, 4, 5), compression="gzip")
        data[:5] = 1
        data.id.write_direct_chunk((5, 0, 0), b"not gzip at all")
    ds = open_source(path)
    assert int(ds.patterns[0].sum()) == 3 * 20
    with pytest.raises(DataError, match=r"rows 0 to 5 of .*Pattern.* cannot be read"):
        ds.patterns.load()


# maps


def test_edax_maps(tmp_path: Path) -> None:
    ds = open_source(files.edax_h5(tmp_path / "a.h5"))
    np.testing.assert_array_equal(ds.ci.values[0], np.array([0.5, 0.6, -1], "f4"))
    np.testing.assert_array_equal(ds.iq_hough, [[0, 1, 2], [3, 4, np.nan]])  # the last point has no valid data
    np.testing.assert_array_equal(ds.sem_signal[0], [0, 1000, 2000])
    np.testing.assert_array_equal(ds.phase, [[0, 0, -1], [0, 0, 0]])
    assert ds.phase.attrs["flag_meanings"] == "no_entry not_indexed Nickel_super"
    assert nested(ds.phase.attrs, "laue_groups") == {"0": "m-3m"}
    assert ds.euler.dims == ("y", "x", "angle")
    np.testing.assert_allclose(ds.euler[1, 1], [0.8, 1.6, 2.4], rtol=1e-6)
    assert ds.euler[0, 2].isnull().all()
    assert ds.quaternion[0, 2].isnull().all()
    assert ds.fit.attrs["units"] == "degree"


def test_oxford_maps(tmp_path: Path) -> None:
    ds = open_source(files.oxford(tmp_path / "a.h5oina"))
    np.testing.assert_array_equal(ds.BC, [[100, 101, 102], [103, 104, 105]])
    assert ds.BC.attrs == {"long_name": "band contrast", "units": "1"}
    np.testing.assert_array_equal(ds.band_slope[1], [3, 4, 5])
    np.testing.assert_allclose(ds.mad, 0.5, rtol=1e-6)  # the file has radians
    np.testing.assert_array_equal(ds.phase, [[1, 1, -1], [1, 1, 1]])
    assert ds.phase.attrs["flag_meanings"].split()[-1] == "Ti_hcp"
    assert nested(ds.phase.attrs, "laue_groups") == {"1": "6/mmm"}
    assert ds.euler[0, 2].isnull().all()
    np.testing.assert_array_equal(ds.static_background, files.PATTERNS[0])
    assert nested(ds.attrs, "detector")["sample_tilt"] == pytest.approx(70)
    assert ds.attrs["notes"] == [
        "'Processed Patterns' are read; the file also holds 'Unprocessed Patterns' (images=…)."
    ]


def test_oxford_unprocessed_patterns_on_request(tmp_path: Path) -> None:
    ds = open_source(files.oxford(tmp_path / "a.h5oina"), images="Unprocessed Patterns")
    assert ds.patterns.dtype == np.int16
    np.testing.assert_array_equal(ds.patterns, files.GRID * 7)
    assert "notes" not in ds.attrs
    only = open_source(files.oxford(tmp_path / "b.h5oina", Processed_Patterns=None))
    np.testing.assert_array_equal(only.patterns, files.GRID * 7)
    with pytest.raises(DataError, match=r"no dataset .*Patterns 2"):
        open_source(tmp_path / "a.h5oina", images="Patterns 2")


def test_oxford_element_maps(tmp_path: Path) -> None:
    path = files.oxford(tmp_path / "a.h5oina")
    with h5py.File(path, "a") as file:
        file["1/EDS/Data/Peak Area/Fe K series"] = np.arange(6, dtype="f4")
        file["1/EDS/Data/Peak Area/Ni K series"] = np.arange(6, dtype="f4") * 2
    ds = open_source(path)
    assert ds.element.values.tolist() == ["Fe", "Ni"]
    np.testing.assert_array_equal(ds.elements.sel(element="Ni"), [[0, 2, 4], [6, 8, 10]])
    assert ds.elements.attrs["units"] == "counts/s"


def test_bruker_maps_and_order(tmp_path: Path) -> None:
    path = files.bruker(tmp_path / "a.h5")
    order = np.array([4, 0, 2, 1, 5, 3])
    with h5py.File(path, "a") as file:
        y, x = np.divmod(order, 3)
        file["Scan 0/EBSD/SEM/IX"] = x.astype("i4") + 7
        file["Scan 0/EBSD/SEM/IY"] = y.astype("i4") + 9
        file["Scan 0/EBSD/Data/RawPatterns"][:] = files.PATTERNS[order]
        file["Scan 0/EBSD/Data/MAD"][:] = order
    ds = open_source(path)
    np.testing.assert_array_equal(ds.patterns, files.GRID)
    np.testing.assert_array_equal(ds.mad, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(ds.x_index, [7, 8, 9])
    assert nested(ds.phase.attrs, "laue_groups") == {"1": "m-3m"}
    np.testing.assert_allclose(ds.euler[1, 1], np.deg2rad([90, 45, 30]), rtol=1e-6)


def test_emsoft_orientations(tmp_path: Path) -> None:
    ds = open_source(files.emsoft(tmp_path / "a.h5"), nav_shape=(3, 2))
    assert dict(ds.phase.sizes) == {"y": 3, "x": 2}
    np.testing.assert_allclose(ds.euler.values.reshape(-1, 3)[5], np.linspace(0, 1, 18)[-3:], atol=1e-6)
    assert nested(ds.phase.attrs, "laue_groups") == {"0": "m-3m"}
    assert "the patterns are simulated" in ds.attrs["notes"]


def test_map_that_is_not_of_the_scan_is_left_out(tmp_path: Path) -> None:
    ds = open_source(files.edax_h5(tmp_path / "a.h5", IQ=np.arange(5.0), CI=np.array([b"x"] * 6), Phi1=None))
    assert not {"iq_hough", "ci", "euler"} & set(ds.data_vars)
    assert "fit" in ds


# several scans, shapes


def test_scan_is_chosen_by_name(tmp_path: Path) -> None:
    path = files.kikuchipy_h5(tmp_path / "a.h5")
    first, second = open_source(path), open_source(path, scan="Scan 2")
    np.testing.assert_array_equal(second.patterns, first.patterns + 1)
    assert first.attrs["notes"] == ["'Scan 1' is read; the file also holds 'Scan 2' (scan=…)."]
    with pytest.raises(UsageError, match=r"no scan 'Scan 3'.* Did you mean 'Scan"):
        open_source(path, scan="Scan 3")


def test_up1_has_no_shape(tmp_path: Path) -> None:
    path = files.up(tmp_path / "a.up1", 1, "u1")
    said: list[str] = []
    ds = ingest(path, tmp_path / "a.zarr", say=said.append)
    assert dict(ds.patterns.sizes) == {"y": 1, "x": 6, "dy": 4, "dx": 5}
    assert said == ["a.up1 stores no scan shape: 6 patterns in one row; nav_shape=(rows, columns) sets it."]
    shaped = open_source(path, nav_shape=(2, 3), step=0.1)
    np.testing.assert_array_equal(shaped.patterns, files.GRID)
    assert shaped.x.values[-1] == pytest.approx(0.2)
    with pytest.raises(UsageError, match=r"nav_shape=\(2, 4\) means 2 x 4 = 8 scan points, but .* holds 6 patterns"):
        open_source(path, nav_shape=(2, 4))
    with pytest.raises(UsageError, match="must be two positive numbers"):
        open_source(path, nav_shape=(0, 6))


def test_interrupted_scan_opens_with_its_shape(tmp_path: Path) -> None:
    for path in (files.up(tmp_path / "a.up2", 3, "<u2", grid=(3, 3)), files.nordif(tmp_path, 3, 3)):
        with pytest.raises(DataError, match=r"says 3 x 3 = 9 scan points, but it holds 6 patterns"):
            open_source(path)
        ds = open_source(path, nav_shape=(2, 3))
        np.testing.assert_array_equal(ds.patterns, files.GRID.astype(ds.patterns.dtype))


# refusals


def refused(path: Path, match: str, error: type[VaearrError] = DataError, **settings: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        open_source(path, **settings)
    assert "\n" not in str(caught.value)


def test_master_pattern(tmp_path: Path) -> None:
    path = files.write_h5(tmp_path / "a.h5", {"EMData/EBSDmaster/mLPNH": np.zeros((2, 3, 3))})
    assert find_source(path) == "emsoft-master"
    refused(path, "a master pattern, not a scan")


@pytest.mark.parametrize(
    ("make", "grid"),
    [(files.edax_h5, "HexGrid"), (files.bruker, "hexagonal"), (files.kikuchipy_h5, "hexagonal")],
)
def test_hexagonal_grid(make: Any, grid: str, tmp_path: Path) -> None:
    key = "grid_type" if make is files.kikuchipy_h5 else "Grid_Type"
    refused(make(tmp_path / "a.h5", **{key: grid}), f"on the grid '{grid}'; only square grids")


def test_hexagonal_up2(tmp_path: Path) -> None:
    refused(files.up(tmp_path / "a.up2", 3, "<u2", hexagonal=True), r"hexagonal grid \(3 x 2\); only square grids")


def test_files_without_patterns(tmp_path: Path) -> None:
    refused(files.edax_h5(tmp_path / "a.h5", Pattern=None), r"holds no patterns \('Pattern'\)")
    path = files.write_h5(tmp_path / "b.h5", {"Manufacturer": "EDAX", "Version": "1"})
    refused(path, "holds no scan")
    refused(files.edax_h5(tmp_path / "c.h5", Pattern=np.zeros((6, 20))), r"shape \(6, 20\); expected \(N, dy, dx\)")
    refused(files.edax_h5(tmp_path / "d.h5", Pattern=np.zeros((6, 4, 5), "S1")), r"dtype \|S1; expected an integer")
    refused(files.edax_h5(tmp_path / "e.h5", Pattern=np.zeros((5, 4, 5))), "says 2 x 3 = 6 scan points, but it holds 5")


def test_header_and_patterns_disagree(tmp_path: Path) -> None:
    wrong = np.array([3], "i4")
    refused(files.edax_h5(tmp_path / "a.h5", Pattern_Height=wrong), "cannot be read by kikuchipy|patterns of")
    refused(files.edax_h5(tmp_path / "b.h5", Pattern_Width=None), "cannot be read by kikuchipy .*Pattern Width")


def test_links_to_other_files(tmp_path: Path) -> None:
    path = files.edax_h5(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["Scan 1/EBSD/Header/else"] = h5py.ExternalLink("/etc/passwd", "/")
    refused(path, "is a link to another file")


def test_up_headers(tmp_path: Path) -> None:
    refused(files.up(tmp_path / "a.up2", 2, "<u2"), "version 2 of the EDAX format")
    path = tmp_path / "b.up1"
    path.write_bytes(struct.pack("<4I", 1, 10**6, 4, 16) + bytes(100))
    refused(path, "patterns of 4 x 1000000 px from byte 16 on, which cannot be")
    path.write_bytes(struct.pack("<4I", 1, 5, 4, 16) + bytes(37))
    refused(path, "is truncated: 37 bytes after the header are 1 patterns of 20 bytes and 17 bytes more")
    (tmp_path / "c.up2").write_bytes(struct.pack("<4I", 3, 5, 4, 16) + bytes(20))
    refused(tmp_path / "c.up2", "ends in its header|truncated")
    path.write_bytes(b"PK\x03\x04 this is another format")
    refused(path, "in no format that vaearr reads")


def test_steps_that_are_no_length_are_left_out(tmp_path: Path) -> None:
    path = files.up(tmp_path / "a.up2", 3, "<u2")
    head = bytearray(path.read_bytes())
    struct.pack_into("<2d", head, UP_HEADER.size + UP_GRID.size - 16, np.inf, np.nan)
    path.write_bytes(bytes(head))
    ds = open_source(path)
    assert ds.x.attrs["units"] == "step"
    assert np.isfinite(ds.x).all()


def test_what_the_lock_of_h5py_hides_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where HDF5 fails in a callback, h5py raises a SystemError with the reason as its cause."""
    path = files.oxford(tmp_path / "a.h5oina")

    def broken(file: h5py.File) -> None:
        raise SystemError("returned a result with an exception set") from RuntimeError("bad heap")

    monkeypatch.setattr("vaearr.sources.vendor.refuse_outside_links", broken)
    refused(path, r"cannot be read \(bad heap\); it is damaged")


@pytest.mark.parametrize("number", [1.5, 70000])
def test_phase_numbers_that_are_none(number: float, tmp_path: Path) -> None:
    path = files.edax_h5(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        data = file["Scan 1/EBSD/Data"]
        values = data["Phase"][()].astype("f8")
        values[1] = number
        del data["Phase"]
        data["Phase"] = values
    refused(path, "a phase number is .*; expected whole numbers up to 32767")


def test_nordif_settings(tmp_path: Path) -> None:
    path = files.nordif(tmp_path)
    path.write_bytes(bytes(119))
    refused(path, "is truncated or belongs to another Setting.txt: 119 bytes are 5 patterns of 4 x 5 px and 19")
    setting = tmp_path / "Setting.txt"
    setting.write_text(setting.read_text("latin-1").replace("5x4", "5 by 4"), encoding="latin-1")
    refused(path, r"'Resolution' below \[Acquisition settings\] is '5 by 4'; expected two whole numbers")
    setting.unlink()
    refused(path, "in no format that vaearr reads")


def test_without_kikuchipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.oxford(tmp_path / "a.h5oina")
    monkeypatch.setitem(sys.modules, "kikuchipy", None)
    refused(path, r'not installed: pip install "vaearr\[ebsd\]"', MissingExtraError)


@pytest.mark.parametrize("kind", MAKERS)
def test_truncated_and_damaged_files_fail_in_one_line(kind: str, tmp_path: Path) -> None:
    """Whatever is cut off or overwritten: a VaearrError in one line, or a scan that is valid."""
    path = MAKERS[kind](tmp_path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[: int(size)] for size in rng.integers(1, len(whole), 6)]
    for _ in range(6):
        other = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 4096), 8):
            other[place] = rng.integers(0, 256)
        damaged.append(bytes(other))
    for i, content in enumerate(damaged):
        here = path.with_name(f"damaged{i}{path.suffix}")
        here.write_bytes(content)
        files.check_damaged(lambda path=here: open_source(path).load())


def test_every_format_is_listed() -> None:
    assert set(MAKERS) < set(SOURCES)


REAL = os.environ.get("VAEARR_VENDOR_DATA", "")


@pytest.mark.skipif(not REAL, reason="VAEARR_VENDOR_DATA names no folder of vendor files: real ones are not read")
def test_real_files_open_or_are_refused(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    for path in sorted(Path(REAL).rglob("*")):
        if path.suffix.lower() in (".h5", ".h5oina", ".up1", ".up2", ".dat", ".ang"):
            if find_source(path) in ("emsoft-master", "orientation-map"):
                refused(path, "not a scan|without patterns")
            else:
                ds = ingest(path, tmp_path / f"{path.parent.name}-{path.name}.zarr").load()
                assert ds.patterns.dtype == np.uint8
                counts[find_source(path)] += 1
    assert counts
