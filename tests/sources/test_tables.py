"""Side maps from CSV: tolerant of names and order, strict about values; faults are named by line and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr.errors import DataError, NoInputError
from vaearr.sources.csv_files import plain_name
from vaearr.sources.tables import (
    element_array,
    map_array,
    phase_array,
    place_on_grid,
    read_elements,
    read_map,
    read_phases,
)


@pytest.fixture
def grid() -> xr.Dataset:
    """2 rows of 3 scan points at steps x 0, 2, 4 and y 1, 2."""
    return xr.Dataset(
        {"present": (("y", "x"), np.ones((2, 3), dtype=bool))},
        {
            "x": [0.0, 1.0, 2.0],
            "y": [0.5, 1.0],
            "x_index": ("x", [0, 2, 4]),
            "y_index": ("y", [1, 2]),
        },
    )


def csv(tmp_path: Path, text: object) -> Path:
    path = tmp_path / "map.csv"
    path.write_bytes(text if isinstance(text, bytes) else str(text).encode())
    return path


# names and layouts


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("Band Contrast", "bandcontrast"),
        (" x_position ", "xposition"),
        ("X Pos [µm]", "xpos"),
        ("Fe (wt%)", "fe"),
        ("(x)", "x"),
    ],
)
def test_plain_name(given: str, plain: str) -> None:
    assert plain_name(given) == plain


@pytest.mark.parametrize(
    "header",
    [
        "x,y,bandcontrast",
        "X,Y,BC",
        "x_position,y_position,Band Contrast",
        "X Pos,Y Pos,band_contrast",
        "x_indice,y_indice,BC",
        "x_index,y_index,anything at all",
        '"x","y","bc"',
        "x,y,BC [1]",
        "\ufeffx, y, BC",
    ],
)
def test_headers(tmp_path: Path, header: str) -> None:
    frame = read_map(csv(tmp_path, f"{header}\n0,1,10\n2,1,20\n"), "BC")
    assert list(frame.columns) == ["x", "y", "BC"]
    assert frame["x"].tolist() == [0, 2]
    assert frame["BC"].tolist() == [10, 20]
    assert frame.index.tolist() == [2, 3]


@pytest.mark.parametrize("separator", [",", ";", "\t", ", "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends(tmp_path: Path, separator: str, end: str) -> None:
    rows = [["y", "x", "BC"], ["1", "0", "1.5"], [], ["2", "4", "2.5"]]
    frame = read_map(csv(tmp_path, end.join(separator.join(row) for row in rows)), "BC")
    assert frame["BC"].tolist() == [1.5, 2.5]
    assert frame["x"].tolist() == [0, 4]
    assert frame.index.tolist() == [2, 4]


def test_the_column_that_fits_is_taken(tmp_path: Path) -> None:
    path = csv(tmp_path, "x,y,MAD,Band Contrast,BS\n0,1,0.5,20,30\n")
    assert read_map(path, "BC")["BC"].tolist() == [20]
    assert read_map(path, "mad")["mad"].tolist() == [0.5]
    assert read_map(path, "BC").attrs["column"] == "Band Contrast"
    with pytest.raises(DataError, match=r"no column for 'IQ'; keep one\..*Known: MAD, Band Contrast, BS"):
        read_map(path, "IQ")


def test_steps_win_over_positions(tmp_path: Path) -> None:
    frame = read_map(csv(tmp_path, "x,y,x_index,y_index,BC\n0.25,0.5,1,2,9\n"), "BC")
    assert frame[["x", "y"]].to_numpy().tolist() == [[1, 2]]


def test_latin1_units(tmp_path: Path) -> None:
    frame = read_map(csv(tmp_path, "X (µm),Y (µm),BC\n1,2,9\n".encode("latin-1")), "BC")
    assert frame["x"].tolist() == [1]


def test_whole_numbers_written_as_floats(tmp_path: Path) -> None:
    assert read_map(csv(tmp_path, "x,y,BC\n1.0,2.0,9\n"), "BC")["x"].dtype == np.int64


def test_elements(tmp_path: Path) -> None:
    frame = read_elements(csv(tmp_path, ",x,y,Fe (wt%),Y,Ni\n0,0,1,90.5,1,\n1,2,1,80,2,7\n"))
    assert list(frame.columns) == ["x", "y", "Fe", "Y", "Ni"]
    assert frame["Y"].tolist() == [1, 2]  # yttrium, not a coordinate
    assert np.isnan(frame["Ni"].iloc[0])
    assert frame.attrs["dropped"] == 1


@pytest.mark.parametrize("header", ["x,y,phase", "x_indice,y_indice,phase_id", "X,Y,Phase Index"])
def test_phases(tmp_path: Path, header: str) -> None:
    frame = read_phases(csv(tmp_path, f"{header}\n0,1,-1\n2,1,3\n4,1,\n"))
    assert frame["phase"].tolist() == [-1, 3, -2]
    assert frame["phase"].dtype == np.int16


# refusals

BAD = {
    "text": ("x,y,BC\n0,1,1\n0,2,abc\n", r"line 3, column 'BC': 'abc' is not a number\."),
    "decimal comma": ("x;y;BC\n0;1;1,5\n", r"line 2, column 'BC': '1,5' is not a number \(decimal comma\?"),
    "decimal comma among commas": ("x,y,BC\n0,1,1,5\n", r"line 2 has 4 fields, the header 3 \(decimal commas\?"),
    "all rows shifted": ("y,x,v\n1,0,1,9\n1,1,2,9\n", "line 2 has 4 fields, the header 3"),
    "short row": ("x,y,BC\n0,1,1\n\n0,2\n", "line 4 has 2 fields, the header 3"),
    "long row": ("x,y,BC\n0,1,1\n0,2,1,1\n", "line 3 has 4 fields"),
    "quoted": ('x,y,BC\n"0,5",1,1\n', r"line 2, column 'x': '0,5' is not a number \(decimal comma\?"),
    "NUL": (b"x,y,BC\n0,1,1\n0,2,\x00\n", "line 3 holds a NUL byte"),
    "UTF-16": ("x,y,BC\n0,1,1\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    "empty": ("", r"is empty \(0 bytes\)"),
    "blank": ("\n \n", "holds no text"),
    "header only": ("x,y,BC\n", "has a header but no lines below it"),
    "no header": ("0,1,2\n0,2,3\n", "has no header: its first line holds numbers only"),
    "duplicate header": ("x,y,BC,BC\n0,1,2,3\n", "names column 'BC' 2 times"),
    "one column": ("x y BC\n0 1 2\n", "is one column; expected columns separated by comma"),
    "no x": ("a,y,BC\n0,1,2\n", "has no column for x; expected x or x_index. It has: a, y, BC"),
    "no value column": ("x,y\n0,1\n", "no column for 'BC'"),
    "position": ("x,y,BC\n0,1,1\n0.5,2,1\n", r"line 3, column 'x': 0\.5; expected a whole step number x"),
    "coordinate missing": ("x,y,BC\n0,1,1\n0,,1\n", "line 3, column 'y': empty; expected a whole step number y"),
    "infinite": ("x,y,BC\n0,1,1\n0,2,inf\n", "line 3, column 'BC': inf is infinite or too large"),
    "too large": ("x,y,BC\n0,1,1e300\n", "line 2, column 'BC': 1e.300 is infinite or too large"),
    "coordinate too large": ("x,y,BC\n1e17,1,1\n", "line 2, column 'x': 1e.17; expected a whole step number"),
    "open quote": ('x,y,BC\n0,1,2\n0,2,"3\n', "has quotes that do not close"),
    "quote over lines": ('x,y,BC\n0,1,"2\n"0,2,3\n0,3,4\n', "map.csv"),
    "booleans": ("x,y,BC\n0,1,True\n", "line 2, column 'BC': 'True' is not a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_maps(tmp_path: Path, case: str) -> None:
    text, match = BAD[case]
    with pytest.raises(DataError, match=match) as caught:
        read_map(csv(tmp_path, text), "BC")
    assert "\n" not in str(caught.value)
    assert "map.csv" in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="does not exist"):
        read_map(tmp_path / "none.csv", "BC")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("x,y\n0,1\n", "has no element columns"),
        ("x,y,Fe (wt%),Fe (at%)\n0,1,2,3\n", "two columns are element 'Fe'"),
        ("x,y,Fe,name\n0,1,2,steel\n", "column 'name': 'steel' is not a number"),
    ],
)
def test_bad_elements(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        read_elements(csv(tmp_path, text))


@pytest.mark.parametrize("value", ["1.5", "-2", "40000", "-7"])
def test_bad_phases(tmp_path: Path, value: str) -> None:
    with pytest.raises(DataError, match=r"line 3, column '\w+': .*; expected a phase number, or -1 for not indexed"):
        read_phases(csv(tmp_path, f"x,y,phase\n0,1,1\n2,1,{value}\n"))


# placing


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_order_lands_at_its_place(data: st.DataObject) -> None:
    nx, ny = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    x, y = np.arange(nx) * 3 - 4, np.arange(ny) * 2 + 1
    cells = data.draw(st.permutations(range(nx * ny)))
    kept = cells[: data.draw(st.integers(1, nx * ny))]
    iy, ix = np.divmod(np.array(kept), nx)
    frame = pd.DataFrame({"x": x[ix], "y": y[iy], "v": (ix * 10 + iy).astype("f4")})
    placed = place_on_grid(frame, x, y, file="a.csv")
    assert placed.values["v"].shape == (ny, nx)
    assert np.isfinite(placed.values["v"]).sum() == len(kept)
    np.testing.assert_array_equal(placed.values["v"][iy, ix], ix * 10 + iy)
    assert placed.n_missing == nx * ny - len(kept)


def test_partial_and_outside(tmp_path: Path, grid: xr.Dataset) -> None:
    path = csv(tmp_path, "x,y,BC\n3,1,99\n-1,1,99\n0,1,10\n4,3,99\n4,2,20\n")
    bc = map_array(path, "BC", grid)
    np.testing.assert_array_equal(bc, [[10, np.nan, np.nan], [np.nan, np.nan, 20]])
    assert bc.dtype == np.float32
    assert bc.attrs["units"] == "1"
    assert bc.attrs["n_missing"] == 4
    assert bc.attrs["n_outside"] == 3
    grid["present"][0, 1] = False
    assert map_array(path, "BC", grid).attrs["n_missing"] == 3


def test_duplicates_name_their_lines(tmp_path: Path, grid: xr.Dataset) -> None:
    path = csv(tmp_path, "x,y,BC\n0,1,1\n2,1,1\n\n0,1,1\n0,1,2\n")
    with pytest.raises(DataError, match=r"lines 2 and 5 both have x = 0, y = 1 \(2 lines repeat"):
        map_array(path, "BC", grid)


def test_no_overlap_states_both_ranges(tmp_path: Path, grid: xr.Dataset) -> None:
    path = csv(tmp_path, "x,y,BC\n10,1,1\n12,7,1\n")
    with pytest.raises(DataError, match=r"file covers x 10 to 12, y 1 to 7, the scan x 0 to 4, y 1 to 2"):
        map_array(path, "BC", grid)


def test_element_array(tmp_path: Path, grid: xr.Dataset) -> None:
    elements = element_array(csv(tmp_path, "x,y,Fe,Ni\n0,1,90,10\n4,2,80,20\n"), grid, "at%")
    assert elements.dims == ("element", "y", "x")
    assert elements.sel(element="Ni")[1, 2] == 20
    assert elements.attrs["units"] == "at%"
    assert elements.dtype == np.float32


def test_phase_array(tmp_path: Path, grid: xr.Dataset) -> None:
    path = csv(tmp_path, "x,y,phase_id\n0,1,-1\n2,1,1\n4,1,0\n4,2,\n")
    phase = phase_array(path, grid, {1: "Fe bcc", 5: "ghost"})
    np.testing.assert_array_equal(phase, [[-1, 1, 0], [-2, -2, -2]])
    assert phase.dtype == np.int16
    assert phase.attrs["flag_values"] == [-2, -1, 0, 1, 5]
    assert phase.attrs["flag_meanings"] == "no_entry not_indexed phase_0 Fe_bcc ghost"


def test_other_map_is_named_by_its_column(tmp_path: Path, grid: xr.Dataset) -> None:
    mad = map_array(csv(tmp_path, "x,y,Mean Angular Deviation\n0,1,0.5\n"), "MAD", grid)
    assert mad.attrs["long_name"] == "Mean Angular Deviation"
    assert mad.attrs["source"] == "map.csv"
