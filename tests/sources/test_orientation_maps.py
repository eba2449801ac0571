"""Orientation maps: every point at its place, whatever the rounding; names and units from the header; refusals."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sources.vendor_files import check_damaged
from vaearr.errors import DataError, NoInputError
from vaearr.ingestion import ingest
from vaearr.provenance import nested
from vaearr.sources import find_source, open_orientation_map, open_source
from vaearr.sources.ebsd_maps import euler_to_quaternion
from vaearr.sources.orientation_maps import side_maps
from vaearr.testing import random_patterns_dataset, write_scan_files

NY, NX, STEP = 4, 5, 1 / 3
ANG_HEADER = """# HEADER: Start
# TEM_PIXperUM          1.000000
#
# Phase 1
# MaterialName  \tNickel super
# Formula     \tNi
# Symmetry              43
#
# Phase 2
# MaterialName  \tTitanium (Alpha)
# Symmetry              62
# GRID: {grid}
# XSTEP: {step}
# YSTEP: {step}
# NCOLS_ODD: {odd}
# NCOLS_EVEN: {even}
# NROWS: {rows}
# {more}
# HEADER: End
"""
CTF_HEADER = """Channel Text File
Prj\ttest
Author\t[Unknown]
JobMode\tGrid
XCells\t5
YCells\t4
XStep\t0.3333
YStep\t0.3333
Euler angles refer to Sample Coordinate system (CS0)!\tMag\t500
Phases\t2
2.866;2.866;2.866\t90;90;90\tIron bcc (old)\t11\t229\t\t\tSome reference
2.95;2.95;4.68\t90;90;120\tTi-Hex\t9\t194\t\t\t
Phase\tX\tY\tBands\tError\tEuler1\tEuler2\tEuler3\tMAD\tBC\tBS
"""


def points(ny: int = NY, nx: int = NX, step: float = STEP) -> list[tuple[int, int, float, float]]:
    return [(i, j, round(j * step, 3), round(i * step, 3)) for i in range(ny) for j in range(nx)]


def ang_line(i: int, j: int, x: float, y: float) -> str:
    ci = -1 if (i, j) == (1, 2) else 0.5
    return f"  0.10000 0.2 {i + j / 10:.5f} {x:.5f} {y:.5f} {100 * i + j}.5 {ci} {1 + (j > 2)} {i} 0.{j}"


def ctf_line(i: int, j: int, x: float, y: float) -> str:
    phase = 0 if (i, j) == (1, 2) else 1 + (j > 2)
    return f"{phase}\t{x:.4f}\t{y:.4f}\t8\t0\t{10 * i}.5\t20\t{30 + j}\t0.{j}\t{100 + 10 * i + j}\t{i}"


def write_ang(path: Path, lines: list[str] | None = None, **header: Any) -> Path:
    given = {"grid": "SqrGrid", "step": f"{STEP:.6f}", "odd": NX, "even": NX, "rows": NY, "more": "", **header}
    body = [ang_line(*point) for point in points()] if lines is None else lines
    path.write_text(ANG_HEADER.format(**given) + "\n".join(body) + "\n")
    return path


def write_ctf(path: Path, lines: list[str] | None = None, header: str = CTF_HEADER) -> Path:
    body = [ctf_line(*point) for point in points()] if lines is None else lines
    path.write_text(header + "\n".join(body) + "\n")
    return path


def test_ang(tmp_path: Path) -> None:
    ds = open_orientation_map(write_ang(tmp_path / "a.ang"))
    i, j = np.mgrid[:NY, :NX]
    expected = np.where((i == 1) & (j == 2), -1, 1 + (j > 2))
    np.testing.assert_array_equal(ds.phase, expected)
    assert ds.phase.attrs["flag_meanings"] == "no_entry not_indexed Nickel_super Titanium_(Alpha)"
    assert nested(ds.phase.attrs, "laue_groups") == {"1": "m-3m", "2": "6/mmm"}
    np.testing.assert_array_equal(ds.iq_hough, 100 * i + j + np.float32(0.5))
    np.testing.assert_allclose(ds.fit, j / 10, rtol=1e-6)
    np.testing.assert_array_equal(ds.sem_signal, i)
    assert float(ds.ci[1, 2]) == -1
    angles = np.stack([np.full(i.shape, 0.1), np.full(i.shape, 0.2), i + j / 10], axis=-1)
    angles[1, 2] = np.nan
    np.testing.assert_allclose(ds.euler, angles, rtol=1e-6)
    np.testing.assert_allclose(ds.quaternion, euler_to_quaternion(angles), atol=1e-6)
    assert ds.x.attrs["units"] == "um"
    np.testing.assert_allclose(ds.x, np.arange(NX) * STEP, atol=1e-3)
    assert ds.attrs == {"source": "a.ang", "n_missing": 0}


def test_ctf(tmp_path: Path) -> None:
    ds = open_orientation_map(write_ctf(tmp_path / "a.ctf"))
    i, j = np.mgrid[:NY, :NX]
    np.testing.assert_array_equal(ds.phase, np.where((i == 1) & (j == 2), -1, 1 + (j > 2)))
    assert ds.phase.attrs["flag_meanings"].split()[2:] == ["Iron_bcc_(old)", "Ti-Hex"]
    assert nested(ds.phase.attrs, "laue_groups") == {"1": "m-3m", "2": "6/mmm"}
    np.testing.assert_array_equal(ds.BC, 100 + 10 * i + j)
    np.testing.assert_array_equal(ds.band_slope, i)
    np.testing.assert_allclose(ds.mad, j / 10, rtol=1e-6)
    np.testing.assert_allclose(ds.euler[2, 3], np.deg2rad([20.5, 20, 33]), rtol=1e-6)
    assert ds.mad.attrs["units"] == "degree"


def test_decimal_commas_in_ctf(tmp_path: Path) -> None:
    plain = open_orientation_map(write_ctf(tmp_path / "a.ctf"))
    text = (tmp_path / "a.ctf").read_text().replace(".", ",")
    (tmp_path / "b.ctf").write_text(text)
    xr.testing.assert_equal(open_orientation_map(tmp_path / "b.ctf"), plain)


def test_makers_have_their_own_columns(tmp_path: Path) -> None:
    lines = [f"0.1 0.2 0.3 {x} {y} {i}.5 0.{j} 1" for i, j, x, y in points()]
    emsoft = open_orientation_map(write_ang(tmp_path / "a.ang", lines, more="EMsoft v. 5_0"))
    assert {"iq_fft", "dot_product"} <= set(emsoft.data_vars)
    astar = open_orientation_map(write_ang(tmp_path / "b.ang", lines, more="File created from ACOM RES results"))
    assert {"correlation_index", "reliability"} <= set(astar.data_vars)
    assert astar.x.attrs["units"] == "nm"
    named = "Column names: phi1, Phi, phi2, x, y, image_quality, my own, phase_id"
    orix = open_orientation_map(write_ang(tmp_path / "c.ang", lines, more=named))
    assert {"iq_hough", "my_own"} <= set(orix.data_vars)
    extra = open_orientation_map(write_ang(tmp_path / "d.ang", [f"{line} 7 8 9" for line in lines]))
    assert extra.attrs["notes"] == ["1 columns without a name are left out."]
    ctf = CTF_HEADER.replace("Prj\ttest", "Prj\tEMsoft v. 4_3")
    assert {"dot_product", "iq_fft"} <= set(open_orientation_map(write_ctf(tmp_path / "a.ctf", header=ctf)).data_vars)


def test_single_phase_of_edax_is_number_zero(tmp_path: Path) -> None:
    lines = [f"0.1 0.2 0.3 {x} {y} 1 0.5 0" for _, _, x, y in points()]
    path = write_ang(tmp_path / "a.ang", lines)
    path.write_text(path.read_text().replace("# Phase 2\n# MaterialName  \tTitanium (Alpha)\n# Symmetry   ", "# "))
    assert open_orientation_map(path).phase.attrs["flag_meanings"].split()[-1] == "Nickel_super"


@settings(max_examples=40, deadline=None)
@given(
    ny=st.integers(1, 7),
    nx=st.integers(1, 30),
    step=st.floats(0.02, 50),
    decimals=st.integers(2, 5),
    seed=st.integers(0, 99),
    share=st.floats(0, 0.4),
)
def test_every_point_finds_its_place(
    tmp_path_factory: pytest.TempPathFactory, ny: int, nx: int, step: float, decimals: int, seed: int, share: float
) -> None:
    """Shuffled, rounded, with points missing: as long as the corners are there, so is every value."""
    rng = np.random.default_rng(seed)
    step = max(step, 4 * 10.0**-decimals)
    kept = rng.random((ny, nx)) >= share
    kept[0], kept[-1], kept[:, 0], kept[:, -1] = True, True, True, True
    places = [(i, j) for i, j in np.argwhere(kept).tolist()]
    rng.shuffle(places)
    lines = [f"0 0 0 {j * step:.{decimals}f} {i * step:.{decimals}f} {i * 100 + j} 1 1" for i, j in places]
    path = write_ang(tmp_path_factory.mktemp("a") / "a.ang", lines, step=f"{step:.6f}")
    ds = open_orientation_map(path)
    i, j = np.mgrid[:ny, :nx]
    np.testing.assert_array_equal(ds.iq_hough, np.where(kept, i * 100 + j, np.nan))
    assert ds.attrs["n_missing"] == (~kept).sum()
    assert ((ds.phase.values == -2) == ~kept).all()


def test_whole_missing_columns_stay_empty(tmp_path: Path) -> None:
    lines = [ang_line(*point) for point in points() if point[1] != 2]
    ds = open_orientation_map(write_ang(tmp_path / "a.ang", lines))
    assert ds.sizes["x"] == NX
    assert ds.iq_hough[:, 2].isnull().all()
    assert ds.attrs["n_missing"] == NY


# beside a scan


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    ds = random_patterns_dataset({"y": NY, "x": NX})
    return write_scan_files(ds.drop_vars("BC", errors="ignore"), tmp_path / "scan", order="shuffled")["patterns"]


@pytest.mark.parametrize("write", [write_ang, write_ctf])
def test_ingest_puts_the_map_beside_the_patterns(scan: Path, tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / ("a.ang" if write is write_ang else "a.ctf"))
    said: list[str] = []
    ds = ingest(scan, tmp_path / "a.zarr", orientations=path, step=0.5, say=said.append)
    alone = open_orientation_map(path)
    assert said == []
    for name in alone.data_vars:
        np.testing.assert_array_equal(ds[name].values, alone[name].values)
    np.testing.assert_allclose(ds.x, np.arange(NX) * 0.5)
    assert ds.phase.attrs["source"] == path.name
    assert nested(ds.attrs, "provenance")["ingest"]["orientations"] == path.name


def test_missing_points_and_own_files_are_said(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "bc.csv").write_text("x,y,BC\n" + "\n".join(f"{j},{i},7" for i, j, _, _ in points()))
    path = write_ctf(tmp_path / "a.ctf", [ctf_line(*point) for point in points() if point[:2] not in [(0, 1), (2, 2)]])
    said: list[str] = []
    ds = ingest(scan, tmp_path / "a.zarr", orientations=path, maps={"BC": tmp_path / "bc.csv"}, say=said.append)
    assert said == [
        "a.ctf: 2 scan points have no entry.",
        "BC: taken from bc.csv; it is also in another of the files.",
    ]
    assert (ds.BC == 7).all()
    assert int((ds.phase == -2).sum()) == 2


def test_other_size_is_refused(scan: Path, tmp_path: Path) -> None:
    path = write_ang(tmp_path / "a.ang", [ang_line(*point) for point in points(ny=3)])
    with pytest.raises(DataError, match=r"map of 3 x 5 points .*, the scan has 4 x 5; export the map of the whole"):
        ingest(scan, tmp_path / "a.zarr", orientations=path)
    assert not (tmp_path / "a.zarr").exists()
    collection = xr.Dataset({"patterns": ("sample", [0])})
    with pytest.raises(DataError, match="a map over y and x, but the data has the dimensions sample"):
        side_maps(path, collection)


# refusals


def refused(path: Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        open_orientation_map(path)
    assert "\n" not in str(caught.value)


def test_without_patterns_it_is_no_source(tmp_path: Path) -> None:
    for path in (write_ang(tmp_path / "a.ang"), write_ctf(tmp_path / "a.ctf")):
        assert find_source(path) == "orientation-map"
        with pytest.raises(
            DataError, match=r"an orientation map without patterns; .*orientations=.*open_orientation_map"
        ):
            open_source(path)


def test_hexagonal_grids(tmp_path: Path) -> None:
    refused(write_ang(tmp_path / "a.ang", grid="HexGrid", even=NX - 1), "on the grid 'HexGrid' with 5 and 4 columns")
    refused(write_ang(tmp_path / "b.ang", even=NX - 1), "with 5 and 4 columns in turn; only square grids")
    shifted = [ctf_line(i, j, x + (i % 2) * 0.1665, y) for i, j, x, y in points(ny=6)]
    header = CTF_HEADER.replace("XStep\t0.3333", "XStep\t0.1665")
    refused(write_ctf(tmp_path / "a.ctf", shifted, header), "every second row is shifted by half a step.*hexagonal")


def test_repeated_points(tmp_path: Path) -> None:
    lines = [ang_line(*point) for point in points()]
    refused(write_ang(tmp_path / "a.ang", [*lines, lines[7]]), r"points 8 and 21 are both at x = 0.667, y = 0.333 \(1 ")


def test_lines_that_are_not_numbers(tmp_path: Path) -> None:
    lines = [ang_line(*point) for point in points()]
    at = ANG_HEADER.count("\n") + 4
    refused(
        write_ang(tmp_path / "a.ang", [*lines[:3], "0.1 0.2", *lines[4:]]), f"line {at} has 2 fields .* expected 10"
    )
    refused(write_ang(tmp_path / "b.ang", [*lines[:3], lines[3].replace("0.2", "oh", 1)]), f"line {at} .* no number")
    refused(write_ang(tmp_path / "c.ang", [*lines[:3], lines[3].replace("0.2", "nan", 1)]), f"line {at} .* finite")
    refused(write_ang(tmp_path / "d.ang", []), "has a header but no points below it")
    refused(write_ang(tmp_path / "e.ang", ["1 2 3 4 5"]), "has 5 columns; expected at least 8")


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x,y\n1,2\n")
    refused(tmp_path / "a.txt", "neither an .ang nor a .ctf file")
    with pytest.raises(NoInputError):
        open_orientation_map(tmp_path / "nothing.ang")
    (tmp_path / "a.ctf").write_text("Channel Text File\nPrj\tx\n")
    refused(tmp_path / "a.ctf", "no line of column names")
    refused(write_ctf(tmp_path / "b.ctf", ["1\t2\t3\t4"]), "has 4 columns under the names phase, x, y, bands")
    scattered = [f"0 0 0 {v} {v * 7 % 101} 1 1 1" for v in range(101)]
    refused(write_ang(tmp_path / "s.ang", scattered, step="1"), "101 points lie scattered over 101 rows")


def test_cut_off_files_fail_in_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for write, name in ((write_ang, "a.ang"), (write_ctf, "a.ctf")):
        whole = write(tmp_path / name).read_bytes()
        for size in rng.integers(1, len(whole), 25):
            (tmp_path / name).write_bytes(whole[: int(size)])
            check_damaged(lambda path=tmp_path / name: open_orientation_map(path))


@pytest.mark.skipif("VAEARR_VENDOR_DATA" not in os.environ, reason="VAEARR_VENDOR_DATA names no folder of real files")
def test_real_maps_against_orix(capsys: pytest.CaptureFixture[str]) -> None:
    io = pytest.importorskip("orix.io")
    found = sorted(Path(os.environ["VAEARR_VENDOR_DATA"]).rglob("*.ang"))
    assert found
    for path in found:
        ds = open_orientation_map(path)
        with pytest.warns(UserWarning, match="Number of columns"):
            xmap = io.load(str(path))
        capsys.readouterr()
        reference = xmap.rotations.data.reshape(*ds.phase.shape, 4)
        same = np.abs((ds.quaternion.values * reference).sum(axis=-1))
        np.testing.assert_allclose(same[ds.phase.values >= 0], 1, atol=1e-6)


@pytest.mark.parametrize(("encoding", "name"), [("utf-8", "Å-α"), ("utf-8-sig", "Å-α"), ("latin-1", "Å-é")])
def test_names_in_any_encoding(encoding: str, name: str, tmp_path: Path) -> None:
    for write in (write_ang, write_ctf):
        file = write(tmp_path / f"{write.__name__}.txt")
        text = file.read_text().replace("Nickel", name).replace("Iron", name)
        assert name in text
        file.write_bytes(text.encode(encoding))
        assert name in open_orientation_map(file)["phase"].attrs["flag_meanings"]


def test_hexagonal_points_below_a_square_header(tmp_path: Path) -> None:
    lines = [ang_line(i, j, (j + 0.5 * (i % 2)) * STEP, i * STEP) for i in range(NY) for j in range(NX)]
    refused(write_ang(tmp_path / "h.ang", lines), "on a hexagonal grid; only square grids")


@pytest.mark.parametrize("number", ["70000", "1.6", "1e30"])
def test_phase_numbers_that_are_none(number: str, tmp_path: Path) -> None:
    lines = [ctf_line(*point) for point in points()]
    lines[1] = "\t".join([number, *lines[1].split("\t")[1:]])
    refused(write_ctf(tmp_path / "a.ctf", lines), "a phase number is .*; expected whole numbers up to 32767")


def test_numbers_too_large_for_a_store(tmp_path: Path) -> None:
    for column in range(3, 8):
        lines = [ctf_line(*point) for point in points()]
        fields = lines[1].split("\t")
        lines[1] = "\t".join([*fields[:column], "1e300", *fields[column + 1 :]])
        refused(write_ctf(tmp_path / "a.ctf", lines), "expected 11 finite numbers")


def test_a_point_far_away_is_refused_or_apart(tmp_path: Path) -> None:
    lines = [ctf_line(*point) for point in points()]
    fields = lines[1].split("\t")
    lines[1] = "\t".join([fields[0], "1e30", *fields[2:]])
    ds = open_orientation_map(write_ctf(tmp_path / "a.ctf", lines))
    assert ds.sizes["x"] == NX + 1


@pytest.mark.parametrize("name", ["patterns", "dx", "x_index", "runs", "latents_b", "quaternion", "angle"])
def test_columns_with_a_meaning_of_their_own(name: str, tmp_path: Path) -> None:
    refused(write_ctf(tmp_path / "a.ctf", header=CTF_HEADER.replace("MAD", name)), f"has a column {name!r}, a name")
