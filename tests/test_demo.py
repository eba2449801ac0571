"""The demo: the whole line once, again over its own folder, and never over what is not its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from vaearr.cli.demo import run_demo
from vaearr.errors import ExistsError

from .conftest import TINY_TRAINING


@pytest.mark.long
def test_the_demo_runs_again_over_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "deep" / "demo"
    for nx in (12, 14):
        closing = run_demo(folder, config=TINY_TRAINING, nx=nx, ny=11)
        store, page = (Path(line.split(": ", 1)[1].strip()) for line in closing[:2])
        assert page.is_file()
        exec("\n".join(closing[2:]), {})
        assert "latents" in capsys.readouterr().out
        assert xr.open_zarr(store).sizes["x"] == nx


def test_what_is_not_its_own_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ExistsError, match="something else than a demo"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
