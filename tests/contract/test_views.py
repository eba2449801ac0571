"""Any result as a picture or as text; what a store names is never imported to show it."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import vaearr as va
from vaearr.errors import UsageError

from .harness import vaearr

MARKER = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()
def show(result, **options):
    return result
"""


@pytest.fixture
def hostile_store(trained_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose variables name a view of a module that lies next to it and on the path of imports."""
    (trained_store.parent / "marker.py").write_text(MARKER)
    monkeypatch.syspath_prepend(trained_store.parent)
    monkeypatch.setenv("PYTHONPATH", str(trained_store.parent))
    root = zarr.open_group(trained_store)
    for name in ("BC", "latents", "grains", "elements", "phase", "patterns"):
        root[name].attrs["kind"] = "marker:show"
    with warnings.catch_warnings():  # of the folders of runs, which are no arrays
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(trained_store)
    return trained_store


@pytest.mark.parametrize(
    "args",
    [
        ["info", "{store}"],
        ["info", "{store}", "--out", "samples.png"],
        ["report", "{store}", "--out", "report"],
        ["explore", "{store}", "--save", "page.html"],
        ["export", "{store}", "out", "--format", "png"],
        ["look", "contrast", "{store}", "--out", "bc.png"],
    ],
    ids=lambda args: "-".join(args[:3:2]),
)
def test_commands_do_not_import_what_a_store_names(hostile_store: Path, tmp_path: Path, args: list[str]) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    changed = [str(folder / arg) if "." in arg or arg in ("report", "out") else arg for arg in args[1:]]
    vaearr(args[0], *[hostile_store if "{store}" in arg else arg for arg in changed])
    assert not (hostile_store.parent / "imported").exists()


def test_views_do_not_import_what_a_store_names(hostile_store: Path) -> None:
    ds = va.open_store(hostile_store)
    assert ds.BC.attrs["kind"] == "marker:show"
    for result in (ds, ds.BC, ds.latents, ds.grains, ds.elements, ds.phase, ds.patterns, va.load_run(hostile_store)):
        assert va.view(result) is not result
        assert va.describe(result)
    assert "marker" not in sys.modules
    assert not (hostile_store.parent / "imported").exists()
    assert va.view(ds.BC, kind=lambda result: result).identical(ds.BC)
    assert va.view(ds.BC, kind="marker:show").identical(ds.BC)  # the user's own word
    assert (hostile_store.parent / "imported").exists()


def test_a_view_of_every_part_of_a_store(trained_template: Path, images_template: Path) -> None:
    ds = va.open_store(trained_template)
    shown = va.view(ds)
    titles = [part.opts.get("plot").kwargs["title"] for part in shown]
    for title in ("band contrast", "Fe", "phase", "latent 0"):
        assert any(title in text for text in titles), titles
    assert len(va.view(va.load_run(trained_template))) == len(shown)
    for patterns in (ds.patterns, ds.patterns.isel(x=slice(5)), ds.patterns[0, 0], va.open_store(images_template)):
        assert va.view(patterns) is not None
    assert va.view(ds.patterns, kind="patterns") is not None


def test_text_of_any_result(trained_template: Path) -> None:
    ds = va.open_store(trained_template)
    lines = va.describe(ds.BC)
    numbers = np.asarray(ds.BC.where(ds.BC.notnull()), dtype="f8")
    assert lines[0] == f"map: {ds.sizes['y']} y x {ds.sizes['x']} x"
    assert f"{np.nanmedian(numbers):.4g}" in "\n".join(lines)
    counts = dict(zip(*np.unique(va.cluster(ds.latents, k=3), return_counts=True), strict=True))
    text = "\n".join(va.describe(va.cluster(ds.latents, k=3)))
    for code, count in counts.items():
        assert f"{code}".rjust(5) in text
        assert f" {count}" in text
    table = va.associate(ds.latents, ds[["BC"]], ["pearson", "spearman"])
    strongest = abs(table.sel(metric="pearson", target="BC")).idxmax("latent").astype(int).item()
    (row,) = [line.split() for line in va.describe(table, top=1) if line.split()[:2] == ["pearson", "BC"]]
    assert row[2] == str(strongest)
    warned = xr.DataArray([1.0, 2.0], dims="step", name="a", attrs={"warnings": ["too few points"]})
    assert va.describe(warned)[-1] == "warning: too few points"
    assert va.describe(xr.Dataset())
    assert len(va.describe(va.load_run(trained_template))) < 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nosuch": 1}, "Unexpected option 'nosuch'.*Options of this view: roi, segments"),
        ({"kind": "histogram"}, "shows a result with .*bin, count"),
        ({"kind": "contrast"}, "missing a required argument: 'histogram'"),
        ({"kind": "stak"}, "Did you mean 'stack'"),
    ],
)
def test_options_that_a_view_does_not_have(trained_template: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        va.view(va.open_store(trained_template).BC, **options)


def test_views_and_text_need_no_network_library(trained_template: Path) -> None:
    script = (
        "import sys, vaearr as va; ds = va.open_store(sys.argv[1]); va.view(ds.BC); va.describe(ds.latents);"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(trained_template)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]
