"""Files of EBSD vendors: every format becomes the same labelled scan, its maps under our names, or
is refused in words.

The small files are written here in each vendor's layout, one of them by kikuchipy itself.
"""

from __future__ import annotations

import struct
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import VaearrError

from . import vendor_files as files
from .harness import BAD_DATA, attributes, nested, vaearr, zarr

kikuchipy = pytest.importorskip(
    "kikuchipy", reason="KIKUCHIPY IS MISSING: vendor files are not tested at all"
)

pytestmark = pytest.mark.usefixtures("without_compiling")
MAKERS: dict[str, Callable[[Path], Path]] = {
    "edax-h5": lambda folder: files.edax_h5(folder / "a.h5"),
    "h5oina": lambda folder: files.oxford(folder / "a.h5oina"),
    "bruker-h5": lambda folder: files.bruker(folder / "a.h5"),
    "kikuchipy-h5": lambda folder: files.kikuchipy_h5(folder / "a.h5"),
    "edax-up": lambda folder: files.up(folder / "a.up2", 3, "<u2"),
    "nordif": files.nordif,
    "emsoft-ebsd": lambda folder: files.emsoft(folder / "a.h5"),
}
DTYPES = {"bruker-h5": "u2", "edax-up": "u2"}
STEPS = {"nordif": (1.5, 1.5), "emsoft-ebsd": (1, 1)}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_format_is_the_same_scan(kind: str, tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path)
    options = ("--nav-shape", "2x3") if kind == "emsoft-ebsd" else ()
    done = vaearr("ingest", path, tmp_path / "a.zarr", *options)
    assert "Warning" not in done.err
    ds = zarr(tmp_path / "a.zarr")
    assert ds.patterns.dims == ("y", "x", "dy", "dx")
    assert ds.patterns.dtype == DTYPES.get(kind, "u1")
    np.testing.assert_array_equal(ds.patterns, files.GRID)
    assert bool(ds.present.all())
    dy, dx = STEPS.get(kind, (0.5, 0.25))
    np.testing.assert_allclose(ds.y, np.arange(2) * dy)
    np.testing.assert_allclose(ds.x, np.arange(3) * dx)
    assert ds.x.attrs["units"] == ("step" if kind == "emsoft-ebsd" else "um")
    made = nested(attributes(tmp_path / "a.zarr")["provenance"])
    assert made["source"]["format"] == kind
    assert made["versions"]["kikuchipy"] == kikuchipy.__version__


def test_a_file_that_kikuchipy_wrote(tmp_path: Path) -> None:
    """Patterns, grid, detector, background and crystal map survive the way through its own format."""
    from orix.crystal_map import CrystalMap, Phase, PhaseList, create_coordinate_arrays
    from orix.quaternion import Rotation

    coordinates, n_points = create_coordinate_arrays((3, 4), (0.5, 0.25))
    euler = np.stack([np.linspace(0.1, 1, n_points)] * 3, 1)
    xmap = CrystalMap(
        rotations=Rotation.from_euler(euler),
        phase_id=np.arange(n_points) // 6,
        phase_list=PhaseList(
            [Phase("nickel", space_group=225), Phase("titanium", space_group=194)]
        ),
        prop={"scores": np.linspace(0, 1, n_points)},
        **coordinates,
    )
    patterns = np.random.default_rng(0).integers(0, 255, (3, 4, 8, 10), dtype="u1")
    detector = kikuchipy.detectors.EBSDDetector(shape=(8, 10), pc=(0.4, 0.3, 0.6), sample_tilt=69)
    signal = kikuchipy.signals.EBSD(
        patterns, xmap=xmap, detector=detector, static_background=patterns[0, 0]
    )
    for axis, name, scale in zip(signal.axes_manager._axes, ("y", "x"), (0.5, 0.25), strict=False):
        axis.name, axis.scale, axis.units = name, scale, "um"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signal.save(str(tmp_path / "a.h5"))
    ds = va.open_source(tmp_path / "a.h5")
    np.testing.assert_array_equal(ds.patterns, patterns)
    np.testing.assert_allclose(ds.y, [0, 0.5, 1])
    np.testing.assert_array_equal(ds.static_background, patterns[0, 0])
    np.testing.assert_array_equal(ds.phase, np.arange(12).reshape(3, 4) // 6)
    assert ds.phase.attrs["flag_meanings"].split()[-2:] == ["nickel", "titanium"]
    np.testing.assert_allclose(ds.euler.values.reshape(-1, 3), euler, atol=1e-5)
    np.testing.assert_allclose(ds.scores.values.ravel(), np.linspace(0, 1, 12), atol=1e-6)
    about = nested(ds.attrs["detector"])
    assert about["sample_tilt"] == 69
    np.testing.assert_allclose(about["projection_centre"], [0.4, 0.3, 0.6])


def test_a_detector_without_calibration_has_no_projection_centre(tmp_path: Path) -> None:
    path = files.edax_h5(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        for name in ("x-star", "y-star", "z-star"):
            file[f"Scan 1/EBSD/Header/Pattern Center Calibration/{name}"] = np.zeros(1, "f4")
    assert "projection_centre" not in va.open_source(path).attrs["detector"]


def many_patterns(path: Path, rows: int, columns: int) -> Path:
    """An EDAX file of patterns of 48 x 48 px, each a chunk of its own, as vendors write them."""
    small = {"nRows": rows, "nColumns": columns, "Pattern_Height": 48, "Pattern_Width": 48}
    maps = dict.fromkeys(
        ("CI", "IQ", "Fit", "SEM_Signal", "Phase", "Phi1", "Phi", "Phi2", "X_Position")
    )
    changes = (
        {key: np.array([value], "i4") for key, value in small.items()} | maps | {"Pattern": None}
    )
    files.edax_h5(path, **changes)
    with h5py.File(path, "a") as file:
        shape = (rows * columns, 48, 48)
        data = file.create_dataset(
            "Scan 1/EBSD/Data/Pattern", shape, "u1", chunks=(1, 48, 48), compression="lzf"
        )
        for start in range(0, shape[0], columns):
            data[start : start + columns] = np.full((columns, 48, 48), start // columns % 251, "u1")
            data[start : start + columns, 0, 0] = 255
    return path


def test_memory_is_that_of_some_blocks(tmp_path: Path) -> None:
    path = many_patterns(tmp_path / "a.h5", 192, 160)  # 71 MB
    va.ingest(path, tmp_path / "warm.zarr")
    tracemalloc.start()
    ds = va.ingest(path, tmp_path / "a.zarr")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30e6
    np.testing.assert_array_equal(ds.patterns[:, 5, 7, 7], np.arange(192) % 251)


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = many_patterns(tmp_path / "a.h5", 64, 64)
    with h5py.File(path, "a") as file:
        file["Scan 1/EBSD/Data/Pattern"].id.write_direct_chunk(
            (64 * 64 - 1, 0, 0), b"not lzf at all"
        )
    ds = va.open_source(path)
    assert int(ds.patterns[0, 0, 0, 0]) == 255
    with pytest.raises(VaearrError, match=r"Pattern.* cannot be read") as caught:
        ds.patterns.load()
    assert "\n" not in str(caught.value)
    assert "Pattern" in vaearr("ingest", path, tmp_path / "a.zarr", code=BAD_DATA).error
    assert not (tmp_path / "a.zarr").exists()


# maps


def test_edax_maps(tmp_path: Path) -> None:
    ds = va.open_source(files.edax_h5(tmp_path / "a.h5"))
    np.testing.assert_array_equal(ds.ci.values[0], np.array([0.5, 0.6, -1], "f4"))
    np.testing.assert_array_equal(
        ds.iq_hough, [[0, 1, 2], [3, 4, np.nan]]
    )  # the last point has no valid data
    np.testing.assert_array_equal(ds.sem_signal[0], [0, 1000, 2000])
    np.testing.assert_array_equal(ds.phase, [[0, 0, -1], [0, 0, 0]])
    assert ds.phase.attrs["flag_meanings"] == "no_entry not_indexed Nickel_super"
    np.testing.assert_allclose(ds.euler[1, 1], [0.8, 1.6, 2.4], rtol=1e-6)
    assert ds.euler[0, 2].isnull().all()
    assert ds.fit.attrs["units"] == "degree"
    part = va.open_source(
        files.edax_h5(tmp_path / "b.h5", IQ=np.arange(5.0), CI=np.array([b"x"] * 6), Phi1=None)
    )
    assert not {"iq_hough", "ci", "euler"} & set(part.data_vars)  # what is no map of this scan
    assert "fit" in part


def test_oxford_maps(tmp_path: Path) -> None:
    path = files.oxford(tmp_path / "a.h5oina")
    with h5py.File(path, "a") as file:
        file["1/EDS/Data/Peak Area/Fe K series"] = np.arange(6, dtype="f4")
        file["1/EDS/Data/Peak Area/Ni K series"] = np.arange(6, dtype="f4") * 2
    ds = va.open_source(path)
    np.testing.assert_array_equal(ds.BC, [[100, 101, 102], [103, 104, 105]])
    np.testing.assert_array_equal(ds.band_slope[1], [3, 4, 5])
    np.testing.assert_allclose(ds.mad, 0.5, rtol=1e-6)  # the file has radians
    np.testing.assert_array_equal(ds.phase, [[1, 1, -1], [1, 1, 1]])
    assert ds.phase.attrs["flag_meanings"].split()[-1] == "Ti_hcp"
    assert ds.euler[0, 2].isnull().all()
    np.testing.assert_array_equal(ds.static_background, files.PATTERNS[0])
    assert nested(ds.attrs["detector"])["sample_tilt"] == pytest.approx(70)
    assert ds.element.values.tolist() == ["Fe", "Ni"]
    np.testing.assert_array_equal(ds.elements.sel(element="Ni"), [[0, 2, 4], [6, 8, 10]])
    assert ds.elements.attrs["units"] == "counts/s"


def test_oxford_unprocessed_patterns(tmp_path: Path) -> None:
    path = files.oxford(tmp_path / "a.h5oina")
    assert "Unprocessed Patterns" in vaearr("ingest", path, tmp_path / "a.zarr").err
    ds = va.open_source(path, images="Unprocessed Patterns")
    assert ds.patterns.dtype == np.int16
    np.testing.assert_array_equal(ds.patterns, files.GRID * 7)
    only = va.open_source(files.oxford(tmp_path / "b.h5oina", Processed_Patterns=None))
    np.testing.assert_array_equal(only.patterns, files.GRID * 7)


def test_bruker_maps_and_order(tmp_path: Path) -> None:
    path = files.bruker(tmp_path / "a.h5")
    order = np.array([4, 0, 2, 1, 5, 3])
    with h5py.File(path, "a") as file:
        y, x = np.divmod(order, 3)
        file["Scan 0/EBSD/SEM/IX"] = x.astype("i4") + 7
        file["Scan 0/EBSD/SEM/IY"] = y.astype("i4") + 9
        file["Scan 0/EBSD/Data/RawPatterns"][:] = files.PATTERNS[order]
        file["Scan 0/EBSD/Data/MAD"][:] = order
    ds = va.open_source(path)
    np.testing.assert_array_equal(ds.patterns, files.GRID)
    np.testing.assert_array_equal(ds.mad, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(ds.x_index, [7, 8, 9])
    np.testing.assert_allclose(ds.euler[1, 1], np.deg2rad([90, 45, 30]), rtol=1e-6)


def test_emsoft_orientations(tmp_path: Path) -> None:
    path = files.emsoft(tmp_path / "a.h5")
    ds = va.open_source(path, nav_shape=(3, 2))
    assert dict(ds.phase.sizes) == {"y": 3, "x": 2}
    np.testing.assert_allclose(
        ds.euler.values.reshape(-1, 3)[5], np.linspace(0, 1, 18)[-3:], atol=1e-6
    )
    assert "simulated" in vaearr("ingest", path, tmp_path / "a.zarr").err


# several scans, shapes, less of the detector


def test_scan_is_chosen_by_name(tmp_path: Path) -> None:
    path = files.kikuchipy_h5(tmp_path / "a.h5")
    second = va.open_source(path, scan="Scan 2")
    np.testing.assert_array_equal(second.patterns, va.open_source(path).patterns + 1)
    assert "'Scan 2'" in vaearr("ingest", path, tmp_path / "a.zarr").err
    with pytest.raises(VaearrError, match=r"Scan 3.*Did you mean 'Scan"):
        va.open_source(path, scan="Scan 3")


def test_up1_has_no_shape(tmp_path: Path) -> None:
    path = files.up(tmp_path / "a.up1", 1, "u1")
    assert "nav_shape" in vaearr("ingest", path, tmp_path / "a.zarr").err.replace(
        "--nav-shape", "nav_shape"
    )
    ds = zarr(tmp_path / "a.zarr")
    assert dict(ds.patterns.sizes) == {"y": 1, "x": 6, "dy": 4, "dx": 5}
    assert ds.x.attrs["units"] == "step"
    shaped = va.open_source(path, nav_shape=(2, 3), step=0.1)
    np.testing.assert_array_equal(shaped.patterns, files.GRID)
    np.testing.assert_allclose(shaped.x, [0, 0.1, 0.2])
    for wrong in ("2x4", "0x6"):
        told = vaearr("ingest", path, tmp_path / "b.zarr", "--nav-shape", wrong, code=None)
        assert told.error
        assert told.code == 2


def test_interrupted_scan_opens_with_its_shape(tmp_path: Path) -> None:
    path = files.nordif(tmp_path, 3, 3)
    with pytest.raises(VaearrError, match=r"120 bytes, but \[3, 3\] patterns.*are 180"):
        va.open_source(path)
    np.testing.assert_array_equal(va.open_source(path, nav_shape=(2, 3)).patterns, files.GRID)


# refusals


def _links(folder: Path) -> Path:
    path = files.edax_h5(folder / "a.h5")
    with h5py.File(path, "a") as file:
        file["Scan 1/EBSD/Header/else"] = h5py.ExternalLink("/etc/passwd", "/")
    return path


def _raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _short_nordif(folder: Path) -> Path:
    path = files.nordif(folder)
    path.write_bytes(bytes(119))
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "hexagonal EDAX": (
        lambda folder: files.edax_h5(folder / "a.h5", Grid_Type="HexGrid"),
        "HexGrid.*square",
    ),
    "hexagonal Bruker": (
        lambda folder: files.bruker(folder / "a.h5", Grid_Type="hexagonal"),
        "hexagonal.*square",
    ),
    "hexagonal kikuchipy": (
        lambda folder: files.kikuchipy_h5(folder / "a.h5", grid_type="hexagonal"),
        "square",
    ),
    "hexagonal up2": (
        lambda folder: files.up(folder / "a.up2", 3, "<u2", hexagonal=True),
        "hexagonal.*square",
    ),
    "no patterns": (
        lambda folder: files.edax_h5(folder / "a.h5", Pattern=None),
        "patterns.*'Pattern'",
    ),
    "no scan": (
        lambda folder: files.write_h5(folder / "a.h5", {"Manufacturer": "EDAX", "Version": "1"}),
        "no scan",
    ),
    "fewer patterns": (
        lambda folder: files.edax_h5(folder / "a.h5", Pattern=np.zeros((5, 4, 5))),
        "6.*holds 5",
    ),
    "other size": (
        lambda folder: files.edax_h5(folder / "a.h5", Pattern_Height=np.array([3], "i4")),
        "px|kikuchipy",
    ),
    "a link": (_links, "link to another file"),
    "up version 2": (lambda folder: files.up(folder / "a.up2", 2, "<u2"), "version"),
    "up cut off": (
        _raw("a.up2", struct.pack("<4Ix2IB2d", 3, 5, 4, 42, 3, 2, 0, 1, 1) + bytes(37)),
        "kikuchipy",
    ),
    "up that is none": (_raw("a.up1", b"PK\x03\x04 this is another format"), "no format"),
    "nordif cut off": (_short_nordif, "119 bytes"),
    "half a phase": (
        lambda folder: files.edax_h5(folder / "a.h5", Phase=np.linspace(0, 1.5, 6)),
        "phase number",
    ),
}


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # files that kikuchipy leaves open
@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, match = REFUSED[case]
    path = make(tmp_path)
    with pytest.raises(VaearrError, match=match) as caught:
        va.open_source(path)
    assert "\n" not in str(caught.value)
    assert vaearr("ingest", path, tmp_path / "new.zarr", code=BAD_DATA).error
    assert not (tmp_path / "new.zarr").exists()


@pytest.mark.parametrize("kind", MAKERS)
def test_damaged_files_fail_in_one_line(kind: str, tmp_path: Path) -> None:
    """Whatever is cut off or overwritten: an error in one line, or a scan that is valid."""
    path = MAKERS[kind](tmp_path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[: int(size)] for size in rng.integers(1, len(whole), 5)]
    for _ in range(5):
        other: Any = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 4096), 8):
            other[place] = rng.integers(0, 256)
        damaged.append(bytes(other))
    for i, content in enumerate(damaged):
        here = path.with_name(f"damaged{i}{path.suffix}")
        here.write_bytes(content)
        try:
            ds = va.open_source(here).load()
        except VaearrError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert isinstance(ds, xr.Dataset)
