"""The style of a journal holds inside its context only; figures are saved whole or not at all."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.image
import pytest
import xarray as xr

from vaearr import plots
from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.plots import static
from vaearr.plots.paper import WIDTH


def test_style_is_scoped_and_as_journals_ask() -> None:
    before = dict(mpl.rcParams)
    with plots.journal():
        assert mpl.rcParams["pdf.fonttype"] == mpl.rcParams["ps.fonttype"] == 42
        assert (mpl.rcParams["axes.titlesize"], mpl.rcParams["axes.labelsize"], mpl.rcParams["xtick.labelsize"]) == (
            10, 9, 8,
        )  # fmt: skip
        assert mpl.rcParams["savefig.dpi"] == 300
    with pytest.raises(RuntimeError, match="inside"), plots.journal():
        raise RuntimeError("inside")
    assert dict(mpl.rcParams) == before


def test_png_has_300_dpi(ds: xr.Dataset, tmp_path: Path) -> None:
    path = plots.save_figure(static.side_sheet(ds), tmp_path / "maps.png")
    assert matplotlib.image.imread(path).shape[1] == round(WIDTH * 300)


def test_pdf_keeps_letters_and_is_the_same_each_time(ds: xr.Dataset, tmp_path: Path) -> None:
    named = ds.assign(BC=ds["BC"].assign_attrs(long_name="contrast µ ∑ 相"))
    files = [plots.save_figure(static.side_sheet(named), tmp_path / f"{name}.pdf") for name in "ab"]
    first, second = (path.read_bytes() for path in files)
    assert first == second
    assert b"/Type3" not in first
    assert b"/FontFile2" in first


def test_nothing_is_replaced_unless_asked(ds: xr.Dataset, tmp_path: Path) -> None:
    figure = static.map_sheet(ds["BC"])
    path = plots.save_figure(figure, tmp_path / "bc.png", dpi=50)
    with pytest.raises(ExistsError, match="overwrite=True"):
        plots.save_figure(figure, path)
    plots.save_figure(figure, path, dpi=60, overwrite=True)
    with pytest.raises(UsageError, match=r"\.png or \.pdf"):
        plots.save_figure(figure, tmp_path / "bc.tiff")
    with pytest.raises(NoInputError, match="no folder"):
        plots.save_figure(figure, tmp_path / "nowhere" / "bc.png")
    assert [item.name for item in tmp_path.iterdir()] == ["bc.png"]


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        plots.save_figure(object(), tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
