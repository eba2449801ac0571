"""The demo: the whole line once, again over its own folder, and never over what is not its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from vaearr.cli.demo import MARK, run_demo
from vaearr.errors import ExistsError

from .conftest import TINY_TRAINING


@pytest.mark.long
def test_the_demo_runs_again_over_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, elsewhere = tmp_path / "deep" / "demo", tmp_path / "elsewhere"
    for path in (folder / "files", folder / ".scan.zarr.staging", elsewhere):
        path.mkdir(parents=True)
    for path in (folder / "files" / "old.csv", folder / MARK, elsewhere / "kept"):
        path.touch()
    (folder / "scan.zarr").symlink_to(elsewhere)
    closing = run_demo(folder, config=TINY_TRAINING, nx=14, ny=11)
    store, page = (Path(line.split(": ", 1)[1].strip()) for line in closing[:2])
    assert page.is_file()
    exec("\n".join(closing[2:]), {})
    assert "latents" in capsys.readouterr().out
    assert xr.open_zarr(store).sizes["x"] == 14
    assert not (folder / "files" / "old.csv").exists()
    assert (elsewhere / "kept").exists()  # only the link to it went
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(ExistsError, match=r"holds thesis\.txt, not the demo's"):
        run_demo(folder)
    assert (folder / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("mine", ExistsError, "holds scan.zarr, not the demo"),
        ("file", ExistsError, "is a file, not a folder"),
        ("link", ExistsError, "is a link, not a folder"),
        ("file/below", OSError, "Not a directory"),
    ],
)
def test_what_is_not_its_own_stays(name: str, error: type[Exception], words: str, tmp_path: Path) -> None:
    (tmp_path / "mine" / "scan.zarr").mkdir(parents=True)
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(error, match=words):
        run_demo(tmp_path / name)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["scan.zarr"]
    assert (tmp_path / "file").read_text() == "text"
