"""Phases told by crystal structure alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vaearr as va
from vaearr import testing
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError

pytest.importorskip("kikuchipy", reason="vaearr[ebsd] is not installed: no simulated crystals")
CIF = """data_{name}
_cell_length_a {a}
_cell_length_b {a}
_cell_length_c {a}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M '{group}'
_symmetry_Int_Tables_number {number}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{element}1 {element} 0 0 0 1
"""
CENTRE = (0.42, 0.22, 0.5)


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("crystals")
    made = []
    for name, a, group, number, element in (
        ("nickel", 3.56, "F m -3 m", 225, "Ni"),
        ("iron", 2.87, "I m -3 m", 229, "Fe"),
    ):
        made.append(folder / f"{name}.cif")
        made[-1].write_text(CIF.format(name=name, a=a, group=group, number=number, element=element))
    return made


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("scan") / "scan.zarr"
    scan = testing.synthetic_scan(nx=30, ny=24, n_grains=14, n_twins=0, pattern_shape=(40, 40), seed=5)
    va.ingest(scan, store)
    va.train(store, epochs=30, roi=va.roi(scan, x=(0, 24)))
    va.encode(store)
    return store


def test_phases_are_told_without_a_label(encoded: Path, crystals: list[Path]) -> None:
    found = va.match_phases(encoded, crystals, projection_centre=CENTRE, resolution=5.0)
    ds = va.open_store(encoded)
    inside, codes = ds.roi.values.astype(bool), ds.phase_matched.values
    assert ds.phase_matched.flag_meanings == "none nickel iron"
    assert ds.phase_matched_correlation.dims == ("phase_matched_crystal", "y", "x")
    assert (codes[~inside] == -1).all()
    assert np.isnan(ds.phase_matched_correlation.values[:, ~inside]).all()
    whole = inside & (ds.own_grain_fraction.values > 0.95)
    recall = [(codes == code)[whole & (ds.true_phase.values == code)].mean() for code in (0, 1)]
    assert min(recall) > 0.85
    again = va.match_phases(encoded, crystals, projection_centre=CENTRE, resolution=5.0)
    np.testing.assert_array_equal(again.phase_matched, found.phase_matched)
    with pytest.raises(ExistsError, match="resolution"):
        va.match_phases(encoded, crystals, projection_centre=CENTRE, resolution=6.0)


def test_what_is_missing_is_said(encoded: Path, crystals: list[Path]) -> None:
    with pytest.raises(UsageError, match="projection_centre"):
        va.match_phases(encoded, crystals)
    with pytest.raises(UsageError, match="two files or more"):
        va.match_phases(encoded, crystals[:1], projection_centre=CENTRE)
    with pytest.raises(NoInputError, match=r"no file .*copper\.cif"):
        va.match_phases(encoded, [*crystals, crystals[0].with_name("copper.cif")], projection_centre=CENTRE)
    with pytest.raises(NoInputError, match="no run 'other'"):
        va.match_phases(encoded, crystals, run="other", projection_centre=CENTRE)
    (broken := crystals[0].with_name("broken.cif")).write_text("data_\n_cell_length_a ?\n")
    with pytest.raises(DataError, match=r"broken\.cif is no CIF file"):
        va.match_phases(encoded, [crystals[0], broken], projection_centre=CENTRE, name="other")
    assert "other" not in va.open_store(encoded)
