"""Small files in the layouts of EBSD vendors, for tests: 2 rows of 3 scan points, patterns of 4 x 5
px.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

NY, NX, HEIGHT, WIDTH = 2, 3, 4, 5
N = NY * NX
PATTERNS = np.arange(N * HEIGHT * WIDTH).reshape(N, HEIGHT, WIDTH)
GRID = PATTERNS.reshape(NY, NX, HEIGHT, WIDTH)


def write_h5(path: Path, entries: Mapping[str, Any]) -> Path:
    """A file of datasets; text becomes bytes in an array of one, as vendors write it."""
    with h5py.File(path, "w") as file:
        for name, value in entries.items():
            file[name] = np.array([value.encode()]) if isinstance(value, str) else value
    return path


def edax_h5(path: Path, **changes: Any) -> Path:
    head, data = "Scan 1/EBSD/Header", "Scan 1/EBSD/Data"
    entries = {
        " Manufacturer": "EDAX",
        " Version": "OIM Analysis 7.2.1",
        f"{head}/Grid Type": "SqrGrid",
        f"{head}/nRows": np.array([NY], "i4"),
        f"{head}/nColumns": np.array([NX], "i4"),
        f"{head}/Pattern Height": np.array([HEIGHT], "i4"),
        f"{head}/Pattern Width": np.array([WIDTH], "i4"),
        f"{head}/Step Y": np.array([0.5], "f4"),
        f"{head}/Step X": np.array([0.25], "f4"),
        f"{head}/Phase/1/MaterialName": "Nickel super",
        f"{head}/Phase/1/Symmetry": np.array([43], ">i4"),
        f"{data}/Pattern": PATTERNS.astype("u1"),
        f"{data}/CI": np.array([0.5, 0.6, -1, 0.1, 0.2, 0.3], "f4"),
        f"{data}/IQ": np.arange(N, dtype="f4"),
        f"{data}/Fit": np.arange(N, dtype="f4") / 10,
        f"{data}/SEM Signal": np.arange(N, dtype="i4") * 1000,
        f"{data}/Phase": np.zeros(N, "i1"),
        f"{data}/Phi1": np.linspace(0, 1, N, dtype="f4"),
        f"{data}/Phi": np.linspace(0, 2, N, dtype="f4"),
        f"{data}/Phi2": np.linspace(0, 3, N, dtype="f4"),
        f"{data}/X Position": np.array([0, 1, 2, 0, 1, -1111111.0], "f4"),
    }
    return write_h5(path, _changed(entries, changes))


def oxford(path: Path, **changes: Any) -> Path:
    head, data = "1/EBSD/Header", "1/EBSD/Data"
    entries = {
        "Manufacturer": "Oxford Instruments",
        "Format Version": "7.0",
        "Software Version": "6.2",
        "Index": "1",
        f"{head}/X Cells": np.int32(NX),
        f"{head}/Y Cells": np.int32(NY),
        f"{head}/X Step": np.float32(0.25),
        f"{head}/Y Step": np.float32(0.5),
        f"{head}/Pattern Height": np.int32(HEIGHT),
        f"{head}/Pattern Width": np.int32(WIDTH),
        f"{head}/Tilt Angle": np.float32(np.deg2rad(70)),
        f"{head}/Beam Voltage": np.float32(20),
        f"{head}/Magnification": np.float32(500),
        f"{head}/Working Distance": np.float32(15),
        f"{head}/Processed Static Background": PATTERNS[0].astype("u1"),
        f"{head}/Phases/1/Phase Name": "Ti hcp",
        f"{head}/Phases/1/Laue Group": np.int32(9),
        f"{data}/Processed Patterns": PATTERNS.astype("u1"),
        f"{data}/Unprocessed Patterns": PATTERNS.astype("i2") * 7,
        f"{data}/Band Contrast": np.arange(100, 100 + N, dtype="u1"),
        f"{data}/Band Slope": np.arange(N, dtype="u1"),
        f"{data}/Mean Angular Deviation": np.full((N, 1), np.deg2rad(0.5), "f4"),
        f"{data}/Phase": np.array([1, 1, 0, 1, 1, 1], "u1"),
        f"{data}/Euler": np.linspace(0, 1, 3 * N, dtype="f4").reshape(N, 3),
    }
    return write_h5(path, _changed(entries, changes))


def bruker(path: Path, **changes: Any) -> Path:
    head, data = "Scan 0/EBSD/Header", "Scan 0/EBSD/Data"
    entries = {
        "Manufacturer": "Bruker Nano",
        "Version": "Esprit 2.X",
        f"{head}/Grid Type": "isometric",
        f"{head}/NROWS": np.int32(NY),
        f"{head}/NCOLS": np.int32(NX),
        f"{head}/XSTEP": 0.25,
        f"{head}/YSTEP": 0.5,
        f"{head}/PatternHeight": np.int32(HEIGHT),
        f"{head}/PatternWidth": np.int32(WIDTH),
        f"{head}/Phases/1/Name": "Iron",
        f"{head}/Phases/1/IT": np.int32(229),
        f"{data}/RawPatterns": PATTERNS.astype("u2"),
        f"{data}/MAD": np.arange(N, dtype="f4"),
        f"{data}/RadonQuality": np.arange(N, dtype="f4"),
        f"{data}/Phase": np.array([1, 1, 0, 1, 1, 1], "i4"),
        f"{data}/phi1": np.full(N, 90, "f4"),
        f"{data}/PHI": np.full(N, 45, "f4"),
        f"{data}/phi2": np.full(N, 30, "f4"),
    }
    return write_h5(path, _changed(entries, changes))


def kikuchipy_h5(path: Path, scans: tuple[str, ...] = ("Scan 1", "Scan 2"), **changes: Any) -> Path:
    entries: dict[str, Any] = {"manufacturer": "kikuchipy", "version": "0.13.0"}
    for i, scan in enumerate(scans):
        entries |= {
            f"{scan}/EBSD/Header/n_rows": NY,
            f"{scan}/EBSD/Header/n_columns": NX,
            f"{scan}/EBSD/Header/pattern_height": HEIGHT,
            f"{scan}/EBSD/Header/pattern_width": WIDTH,
            f"{scan}/EBSD/Header/step_x": 0.25,
            f"{scan}/EBSD/Header/step_y": 0.5,
            f"{scan}/EBSD/Header/static_background": PATTERNS[0].astype("u1"),
            f"{scan}/EBSD/Header/grid_type": "square",
            f"{scan}/SEM/Header/beam_energy": 20.0,
            f"{scan}/EBSD/Data/patterns": (PATTERNS + i).astype("u1"),
        }
    return write_h5(path, _changed(entries, changes))


def up(
    path: Path, version: int, dtype: str, hexagonal: bool = False, grid: tuple[int, int] = (NX, NY)
) -> Path:
    offset = 16 if version == 1 else 42
    head = struct.pack("<4I", version, WIDTH, HEIGHT, offset)
    head += b"" if version == 1 else struct.pack("<x2IB2d", *grid, hexagonal, 0.25, 0.5)
    path.write_bytes(head + PATTERNS.astype(dtype).tobytes())
    return path


SETTING = """[NORDIF]\t\t
Software version\t3.1.2\t
\t\t
[Microscope]\t\t
Manufacturer\tHitachi\t
Model\tSU-6600\t
Magnification\t200\t#
Scan direction\tDirect\t
Accelerating voltage\t20\tkV
Working distance\t24.7\tmm
Tilt angle\t70\t\N{DEGREE SIGN}
\t\t
[Electron image]\t\t
Frame rate\t0.25\tfps
Resolution\t1000x1000\tpx
\t\t
[Detector angles]\t\t
Euler 1\t0\t\N{DEGREE SIGN}
Euler 2\t0\t\N{DEGREE SIGN}
Euler 3\t0\t\N{DEGREE SIGN}
Azimuthal\t0\t\N{DEGREE SIGN}
Elevation\t3\t\N{DEGREE SIGN}
\t\t
[Acquisition settings]\t\t
Frame rate\t202\tfps
Resolution\t{width}x{height}\tpx
Exposure time\t3500\t\N{MICRO SIGN}s
\t\t
[Area]\t\t
Top\t89.200 (223)\t\N{MICRO SIGN}m (px)
Left\t60.384 (152)\t\N{MICRO SIGN}m (px)
Width\t4.500 (11)\t\N{MICRO SIGN}m (px)
Height\t4.500 (11)\t\N{MICRO SIGN}m (px)
Step size\t1.500\t\N{MICRO SIGN}m
Number of samples\t{rows}x{columns}\t#
"""


def nordif(folder: Path, rows: int = NY, columns: int = NX) -> Path:
    text = SETTING.format(width=WIDTH, height=HEIGHT, rows=rows, columns=columns)
    (folder / "Setting.txt").write_text(text, encoding="latin-1")
    (folder / "Pattern.dat").write_bytes(PATTERNS.astype("u1").tobytes())
    return folder / "Pattern.dat"


def emsoft(path: Path, **changes: Any) -> Path:
    nml, crystal = "NMLparameters/EBSDNameList", "CrystalData"
    entries = {
        "EMheader/EBSD/ProgramName": "EMEBSD.f90",
        "EMData/EBSD/EBSDPatterns": PATTERNS.astype("u1"),
        "EMData/EBSD/EulerAngles": np.linspace(0, 1, 3 * N, dtype="f4").reshape(N, 3),
        "EMData/EBSD/xtalname": "Ni.xtal",
        f"{nml}/energymax": np.array([20], "f4"),
        f"{nml}/numsx": np.array([WIDTH], "i4"),
        f"{nml}/numsy": np.array([HEIGHT], "i4"),
        f"{nml}/delta": np.array([50], "f4"),
        f"{nml}/binning": np.array([1], "i4"),
        f"{nml}/thetac": np.array([10], "f4"),
        f"{nml}/xpc": np.array([0], "f4"),
        f"{nml}/ypc": np.array([0], "f4"),
        f"{nml}/L": np.array([15000], "f4"),
        f"{crystal}/Natomtypes": np.array([1], "i4"),
        f"{crystal}/Atomtypes": np.array([28], "i4"),
        f"{crystal}/AtomData": np.zeros((5, 1), "f4"),
        f"{crystal}/LatticeParameters": np.array([0.35, 0.35, 0.35, 90, 90, 90]),
        f"{crystal}/SpaceGroupNumber": np.array([225], "i4"),
    }
    return write_h5(path, _changed(entries, changes))


def _changed(entries: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Entries whose last part is a key of `changes` (with _ for spaces) replaced, left out for
    None, or added.
    """
    result = {}
    done = set()
    for name, value in entries.items():
        key = name.rsplit("/", 1)[-1].strip().replace(" ", "_")
        done |= {key} & changes.keys()
        new = changes.get(key, value)
        if new is not None:
            result[name] = new
    assert done == changes.keys(), f"no entry {set(changes) - done}"
    return result
