"""The demo: the whole line once, again over its own folder, and never over what is not its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from vaearr.demo import MARK, run_demo
from vaearr.errors import ExistsError, WriteError

from .conftest import TINY_TRAINING


def demo(folder: Path) -> list[str]:
    """The demo with a scan and a network that take no time."""
    return run_demo(folder, config=TINY_TRAINING, nx=14, ny=11, say=lambda text: None)


@pytest.mark.long
def test_the_demo_ends_in_files_that_exist_and_runs_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "deep" / "demo"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "old.csv").touch()
    (folder / MARK).touch()
    (folder / ".scan.zarr.staging").mkdir()
    for _ in range(2):
        closing = demo(folder)
        store, page = (Path(line.split(": ", 1)[1].strip()) for line in closing[:2])
        assert store == folder / "scan.zarr"
        assert page == folder / "scan.reports" / "vae" / "index.html"
        assert page.is_file()
        exec("\n".join(closing[2:]), {})
        assert "latents" in capsys.readouterr().out
        assert xr.open_zarr(store).sizes["x"] == 14
    assert not (folder / "files" / "old.csv").exists()
    (folder / "thesis.txt").write_text("years of work")
    before = sorted(folder.rglob("*"))
    with pytest.raises(ExistsError, match=r"holds thesis\.txt, not the demo's"):
        demo(folder)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.long
def test_only_the_link_to_a_store_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "demo"
    for path in (elsewhere, folder):
        path.mkdir()
    (elsewhere / "kept").touch()
    (folder / MARK).touch()
    (folder / "scan.zarr").symlink_to(elsewhere)
    demo(folder)
    assert (elsewhere / "kept").exists()
    assert not (folder / "scan.zarr").is_symlink()


def test_a_foreign_folder_is_not_taken(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "scan.zarr").mkdir()
    with pytest.raises(ExistsError, match="was not made by the demo"):
        demo(mine)
    assert [path.name for path in mine.iterdir()] == ["scan.zarr"]


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    for name, kind in (("file", "a file"), ("link", "a link"), ("broken", "a link")):
        with pytest.raises(ExistsError, match=f"{name} is {kind}, not a folder"):
            demo(tmp_path / name)
    with pytest.raises(WriteError, match="Not a directory"):
        demo(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "text"
    assert list((tmp_path / "real").iterdir()) == []
