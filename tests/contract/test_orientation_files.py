"""`.ang` and `.ctf` maps beside a scan: every value at its point, names from the header, refusals
in words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

import vaearr as va
from vaearr.errors import VaearrError

from .harness import BAD_DATA, vaearr, zarr

pytest.importorskip("orix", reason="ORIX IS MISSING: .ang and .ctf maps are not tested at all")
pytestmark = pytest.mark.usefixtures("without_compiling")
NY, NX, STEP = 4, 5, 1 / 3
ANG = """# HEADER: Start
# TEM_PIXperUM          1.000000
#
# Phase 1
# MaterialName  \tNickel super
# Formula     \tNi
# Symmetry              43
# LatticeConstants      3.520 3.520 3.520  90.000  90.000  90.000
#
# Phase 2
# MaterialName  \tTitanium (Alpha)
# Formula     \tTi
# Symmetry              62
# LatticeConstants      2.950 2.950 4.680  90.000  90.000 120.000
# GRID: {grid}
# XSTEP: 0.333333
# YSTEP: 0.333333
# NCOLS_ODD: {odd}
# NCOLS_EVEN: {even}
# NROWS: 4
# HEADER: End
"""
CTF = """Channel Text File
Prj\ttest
Author\t[Unknown]
JobMode\tGrid
XCells\t5
YCells\t4
XStep\t0.3333
YStep\t0.3333
AcqE1\t0
AcqE2\t0
AcqE3\t0
Euler angles refer to Sample Coordinate system (CS0)!\tMag\t500
Phases\t2
2.866;2.866;2.866\t90;90;90\tIron bcc (old)\t11\t229\t\t\tSome reference
2.95;2.95;4.68\t90;90;120\tTi-Hex\t9\t194\t\t\t
Phase\tX\tY\tBands\tError\tEuler1\tEuler2\tEuler3\tMAD\tBC\tBS
"""
ROW, COLUMN = np.mgrid[:NY, :NX]
PHASE = np.where((ROW == 1) & (COLUMN == 2), -1, 1 + (COLUMN > 2))


def points() -> list[tuple[int, int, float, float]]:
    return [(i, j, round(j * STEP, 3), round(i * STEP, 3)) for i, j in np.ndindex(NY, NX)]


def ang_line(i: int, j: int, x: float, y: float) -> str:
    ci = -1 if (i, j) == (1, 2) else 0.5
    return f"  0.10000 0.2 {i + j / 10:.5f} {x:.5f} {y:.5f} {100 * i + j}.5 {ci} {1 + (j > 2)} {i} 0.{j}"


def ctf_line(i: int, j: int, x: float, y: float) -> str:
    phase = 0 if (i, j) == (1, 2) else 1 + (j > 2)
    return (
        f"{phase}\t{x:.4f}\t{y:.4f}\t8\t0\t{10 * i}.5\t20\t{30 + j}\t0.{j}\t{100 + 10 * i + j}\t{i}"
    )


def write_ang(
    path: Path, lines: Sequence[str] = (), grid: str = "SqrGrid", odd: int = NX, even: int = NX
) -> Path:
    header = ANG.format(grid=grid, odd=odd, even=even)
    path.write_text(header + "\n".join(lines or [ang_line(*point) for point in points()]) + "\n")
    return path


def write_ctf(path: Path, lines: Sequence[str] = (), header: str = CTF) -> Path:
    path.write_text(header + "\n".join(lines or [ctf_line(*point) for point in points()]) + "\n")
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan of 4 x 5 points of patterns that vary."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["images"] = np.arange(NY * NX * 36, dtype="u2").reshape(-1, 6, 6)
        file["coords"] = np.stack([COLUMN.ravel(), ROW.ravel()], 1)
    return tmp_path / "scan.h5"


def test_ang(scan: Path, tmp_path: Path) -> None:
    path = write_ang(tmp_path / "a.ang")
    done = vaearr("ingest", scan, tmp_path / "a.zarr", "--orientations", path, "--step", 0.5)
    assert "Warning" not in done.err
    assert "Changing Phase" not in done.out + done.err
    ds = zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(ds.phase, PHASE)
    assert ds.phase.attrs["flag_meanings"] == "no_entry not_indexed Nickel_super Titanium_(Alpha)"
    np.testing.assert_array_equal(ds.iq_hough, 100 * ROW + COLUMN + np.float32(0.5))
    np.testing.assert_allclose(ds.fit, COLUMN / 10, rtol=1e-6)
    np.testing.assert_array_equal(ds.sem_signal, ROW)
    assert float(ds.ci[1, 2]) == -1
    angles = np.stack(
        [np.full(ROW.shape, 0.1), np.full(ROW.shape, 0.2), ROW + COLUMN / 10], axis=-1
    )
    angles[1, 2] = np.nan
    np.testing.assert_allclose(ds.euler, angles, atol=2e-6)
    from orix.quaternion import Rotation

    rotations = Rotation.from_euler(ds.euler.values[PHASE > 0])
    np.testing.assert_allclose(rotations.to_euler(), angles[PHASE > 0], atol=1e-5)
    np.testing.assert_allclose(ds.x, np.arange(NX) * 0.5)
    assert ds.phase.attrs["source"] == "a.ang"


def test_ctf(scan: Path, tmp_path: Path) -> None:
    path = write_ctf(tmp_path / "a.ctf")
    ds = va.ingest(scan, tmp_path / "a.zarr", orientations=path)
    np.testing.assert_array_equal(ds.phase, PHASE)
    assert ds.phase.attrs["flag_meanings"].split()[2:] == ["Iron_bcc_(old)", "Ti-Hex"]
    np.testing.assert_array_equal(ds.BC, 100 + 10 * ROW + COLUMN)
    np.testing.assert_array_equal(ds.band_slope, ROW)
    np.testing.assert_allclose(ds.mad, COLUMN / 10, rtol=1e-6)
    np.testing.assert_allclose(ds.euler[2, 3], np.deg2rad([20.5, 20, 33]), rtol=1e-6)
    assert ds.mad.attrs["units"] == "degree"
    commas = tmp_path / "b.ctf"
    commas.write_text(path.read_text().replace(".", ","))
    again = va.ingest(scan, tmp_path / "b.zarr", orientations=commas)
    for name in ("euler", "BC", "mad", "phase"):
        np.testing.assert_array_equal(again[name], ds[name])


def test_more_columns_of_edax(scan: Path, tmp_path: Path) -> None:
    """Version 7 of the format has three further columns."""
    lines = [f"{ang_line(*point)} 7 8 9" for point in points()]
    path = write_ang(tmp_path / "a.ang", lines)
    assert "Warning" not in vaearr("ingest", scan, tmp_path / "a.zarr", "--orientations", path).err
    ds = zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(ds.phase, PHASE)
    np.testing.assert_array_equal(ds.iq_hough, 100 * ROW + COLUMN + np.float32(0.5))
    np.testing.assert_allclose(ds.fit, COLUMN / 10, rtol=1e-6)


def test_a_single_phase_of_edax_is_number_zero(scan: Path, tmp_path: Path) -> None:
    lines = [f"0.1 0.2 0.3 {x} {y} 1 0.5 0 1 1" for _, _, x, y in points()]
    path = write_ang(tmp_path / "a.ang", lines)
    text = path.read_text()
    path.write_text(text[: text.index("# Phase 2")] + text[text.index("# GRID") :])
    ds = va.ingest(scan, tmp_path / "a.zarr", orientations=path)
    assert ds.phase.attrs["flag_meanings"].split()[-1] == "Nickel_super"
    assert (ds.phase == 0).all()


@pytest.mark.parametrize("decimals", [2, 3, 5])
@pytest.mark.parametrize("kind", ["ang", "ctf"])
def test_every_point_finds_its_place(kind: str, decimals: int, scan: Path, tmp_path: Path) -> None:
    """Shuffled, coordinates rounded, with points and a whole column missing: NaN there, and said."""
    line, write = (ang_line, write_ang) if kind == "ang" else (ctf_line, write_ctf)
    gone = (COLUMN == 3) | ((ROW == 2) & (COLUMN == 1))
    kept = [
        (i, j, round(j * STEP, decimals), round(i * STEP, decimals))
        for i, j in np.argwhere(~gone).tolist()
    ]
    np.random.default_rng(0).shuffle(kept)
    path = write(tmp_path / f"a.{kind}", [line(*point) for point in kept])
    done = vaearr("ingest", scan, tmp_path / "a.zarr", "--orientations", path)
    assert f"{gone.sum()} scan points" in done.err
    ds = zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(ds.phase, np.where(gone, -2, PHASE))
    values, name = (
        ((100 * ROW + COLUMN + 0.5), "iq_hough")
        if kind == "ang"
        else ((100 + 10 * ROW + COLUMN), "BC")
    )
    np.testing.assert_array_equal(ds[name], np.where(gone, np.nan, values))
    assert np.isnan(ds.euler.values[gone | (PHASE < 0)]).all()


@pytest.mark.parametrize(
    ("encoding", "name"), [("utf-8", "Å-α"), ("utf-8-sig", "Å-α"), ("latin-1", "Å-é")]
)
@pytest.mark.parametrize("kind", ["ang", "ctf"])
def test_names_in_any_encoding(
    kind: str, encoding: str, name: str, scan: Path, tmp_path: Path
) -> None:
    path = write_ang(tmp_path / "a.ang") if kind == "ang" else write_ctf(tmp_path / "a.ctf")
    path.write_bytes(
        path.read_text().replace("Nickel", name).replace("Iron", name).encode(encoding)
    )
    ds = va.ingest(scan, tmp_path / "a.zarr", orientations=path)
    assert name in ds.phase.attrs["flag_meanings"]


def test_own_files_go_before_it(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "bc.csv").write_text(
        "x,y,BC\n" + "\n".join(f"{j},{i},7" for i, j, _, _ in points())
    )
    path = write_ctf(tmp_path / "a.ctf")
    vaearr("ingest", scan, tmp_path / "a.zarr", "--orientations", path, "--bc", tmp_path / "bc.csv")
    assert (zarr(tmp_path / "a.zarr").BC == 7).all()


def _text(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return make


def _shifted(kind: str) -> Callable[[Path], Path]:
    line, write = (ang_line, write_ang) if kind == "ang" else (ctf_line, write_ctf)
    return lambda folder: write(
        folder / f"a.{kind}", [line(i, j, x + i % 2 * STEP / 2, y) for i, j, x, y in points()]
    )


def _ang(change: Callable[[list[str]], list[str]]) -> Callable[[Path], Path]:
    return lambda folder: write_ang(
        folder / "a.ang", change([ang_line(*point) for point in points()])
    )


def _ctf(column: int, value: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        lines = [ctf_line(*point) for point in points()]
        fields = lines[1].split("\t")
        lines[1] = "\t".join([*fields[:column], value, *fields[column + 1 :]])
        return write_ctf(folder / "a.ctf", lines)

    return make


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "hexagonal by its header": (
        lambda folder: write_ang(folder / "a.ang", grid="HexGrid", even=4),
        "square",
    ),
    "hexagonal points, .ang": (_shifted("ang"), "hexagonal.*square"),
    "hexagonal points, .ctf": (_shifted("ctf"), "hexagonal.*square"),
    "another size": (_ang(lambda lines: lines[: 3 * NX]), "3 x 5.*4 x 5"),
    "a point twice": (_ang(lambda lines: [*lines, lines[7]]), "both"),
    "scattered": (
        _ang(lambda lines: [f"0 0 0 {v} {v * 7 % 101} 1 1 1 1 1" for v in range(101)]),
        "scattered",
    ),
    "a short line": (_ang(lambda lines: [*lines[:3], "0.1 0.2", *lines[4:]]), "a.ang"),
    "no number": (_ang(lambda lines: [*lines[:3], lines[3].replace("0.2", "oh", 1)]), "a.ang"),
    "NaN": (
        _ang(lambda lines: [*lines[:3], lines[3].replace("0.2", "nan", 1), *lines[4:]]),
        "finite",
    ),
    "no points": (_text("a.ang", ANG.format(grid="SqrGrid", odd=5, even=5)), "a.ang"),
    "another file": (_text("a.ang", "x,y\n1,2\n"), "neither"),
    "a number too large": (_ctf(9, "1e300"), "finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case: str, scan: Path, tmp_path: Path) -> None:
    make, match = REFUSED[case]
    path = make(tmp_path)
    with pytest.raises(VaearrError, match=match) as caught:
        va.ingest(scan, tmp_path / "new.zarr", orientations=path)
    assert "\n" not in str(caught.value)
    assert vaearr(
        "ingest", scan, tmp_path / "new.zarr", "--orientations", path, code=BAD_DATA
    ).error
    assert not (tmp_path / "new.zarr").exists()


def test_alone_it_is_no_source(tmp_path: Path) -> None:
    for path in (write_ang(tmp_path / "a.ang"), write_ctf(tmp_path / "a.ctf")):
        assert "orientations" in vaearr("ingest", path, tmp_path / "new.zarr", code=BAD_DATA).error


def test_cut_off_files_fail_in_one_line(scan: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for write, name in ((write_ang, "a.ang"), (write_ctf, "a.ctf")):
        whole = write(tmp_path / name).read_bytes()
        for i, size in enumerate(rng.integers(1, len(whole), 8)):
            (tmp_path / name).write_bytes(whole[: int(size)])
            try:
                va.ingest(scan, tmp_path / f"{name}{i}.zarr", orientations=tmp_path / name)
            except VaearrError as error:
                assert "\n" not in str(error)  # noqa: PT017
            else:
                assert (tmp_path / f"{name}{i}.zarr").exists()
