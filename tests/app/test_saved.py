"""The saved page: what it refuses, what it carries, how large it is."""

from __future__ import annotations

import base64
import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from vaearr.app import saved
from vaearr.app.raster import block_mean
from vaearr.app.saved import save_page
from vaearr.app.saved_figures import as_script
from vaearr.app.saved_points import FINE, as_bytes, layers, map_plan, packed_map, stepped
from vaearr.app.state import open_state
from vaearr.attaching import attach
from vaearr.cli.page import explore
from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.store import create_store, open_store
from vaearr.testing import random_patterns_dataset


@pytest.fixture(scope="module")
def three_dimensional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-D scan with latents that were computed elsewhere."""
    ds = random_patterns_dataset({"z": 6, "y": 9, "x": 8}, missing=2)
    path = create_store(ds, tmp_path_factory.mktemp("three") / "scan.zarr")
    attach(path, np.random.default_rng(1).normal(size=(6, 9, 8, 2)).astype("f4"), run="given")
    return path


def carried(path: Path) -> dict[str, Any]:
    """What the page holds."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)
    return dict(json.loads(found))


def inflated(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def pictures(text: str, shape: list[int]) -> np.ndarray:
    return np.cumsum(np.frombuffer(inflated(text), "u1").reshape(-1, *shape), 2, dtype="u1")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"out": "page.txt"}, UsageError, "must end in .html"),
        ({"out": "nowhere/page.html"}, NoInputError, "make it first"),
        ({"out": "there.html"}, ExistsError, "overwrite=True"),
        ({"steps": 1}, UsageError, "steps is 1"),
        ({"max_points": 1}, UsageError, "at least 2"),
        ({"max_megabytes": 2}, UsageError, "needs 3 or more"),
        ({"max_megabytes": float("nan")}, UsageError, "needs 3 or more"),
        ({"run": "vea"}, NoInputError, "vae"),
        ({"base": "median"}, UsageError, "no base 'median'"),
        ({"base": "prototype:fc"}, UsageError, "Did you mean 'fcc'"),
        ({"dims": [3]}, UsageError, "from 0 to 2"),
        ({"by": "phases"}, NoInputError, "Did you mean 'phase'"),
    ],
)
def test_refusals_leave_nothing(
    trained_template: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    (tmp_path / "there.html").write_text("mine")
    given = {**options, "out": tmp_path / options.get("out", "page.html")}
    with pytest.raises(error, match=re.escape(words)):
        save_page(trained_template, **given)
    assert [p.name for p in tmp_path.iterdir()] == ["there.html"]
    assert (tmp_path / "there.html").read_text() == "mine"


def test_command_replaces_only_when_told(
    trained_template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    out.write_text("mine")
    with pytest.raises(ExistsError):
        explore(trained_template, save=out)
    assert out.read_text() == "mine"
    explore(trained_template, save=out, overwrite=True)
    assert re.search(r"page\.html \(\d\.\d MB\)", "".join(capsys.readouterr()))
    assert carried(out)["layers"]
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_same_call_same_page(trained_template: Path, tmp_path: Path) -> None:
    first, second = (carried(save_page(trained_template, out=tmp_path / f"{i}.html", max_points=90)) for i in (1, 2))
    assert first == second
    assert (
        first["numbers"]
        != carried(save_page(trained_template, out=tmp_path / "3.html", max_points=90, seed=1))["numbers"]
    )


def test_page_carries_the_store(trained_template: Path, tmp_path: Path) -> None:
    ds = open_store(trained_template, chunks=None).load()
    found = carried(save_page(trained_template, out=tmp_path / "page.html"))
    latents = ds["latents"].values.reshape(-1, 3)
    numbers = np.array(found["numbers"])
    np.testing.assert_array_equal(numbers, np.flatnonzero(np.isfinite(latents).all(1)))
    for i, layer in enumerate(found["layers"][:3]):
        codes = np.frombuffer(inflated(layer["points"]), "<u2")
        values = layer["low"] + codes * ((layer["high"] - layer["low"]) / FINE)
        np.testing.assert_allclose(values, latents[numbers, i], atol=np.ptp(latents[numbers, i]) / 5e4)
    shown = found["thumbnails"]
    assert shown["which"] == list(range(len(numbers)))
    images = np.concatenate([pictures(piece, shown["shape"]) for piece in shown["pieces"]])[..., 0]
    expected = np.stack([as_bytes(p) for p in ds["patterns"].values.reshape(-1, 9, 11)[numbers].astype("f4")])
    np.testing.assert_array_equal(images, expected)
    phase = next(item for item in found["layers"] if item["name"] == "phase")
    codes = np.frombuffer(inflated(phase["points"]), "<u2")
    np.testing.assert_array_equal(codes < FINE, ds["phase"].values.ravel()[numbers] >= 0)
    assert phase["names"] == ["fcc", "bcc"]
    assert any(item["title"].startswith("Fe") for item in found["layers"])


def test_size_is_bounded_and_said(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"sample": 700}, {"y": 64, "x": 64})
    path = create_store(ds, tmp_path / "images.zarr")
    attach(path, np.random.default_rng(0).normal(size=(700, 4)).astype("f4"), run="given")
    out = save_page(path, "given", tmp_path / "page.html", max_megabytes=3, max_points=600)
    assert out.stat().st_size <= 3e6
    found = carried(out)
    count = len(found["thumbnails"]["which"])
    assert 100 < count < 600
    assert f"600 of 700 images with latents are shown, drawn by the seed. {count} of them carry" in found["plane_note"]


def test_page_that_cannot_be_small_enough(
    trained_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved, "LEAST_MEGABYTES", 1)
    with pytest.raises(UsageError, match=r"1\.\d MB without any picture, more than max_megabytes=1"):
        save_page(trained_template, out=tmp_path / "page.html", max_megabytes=1)
    assert not list(tmp_path.iterdir())


def test_maps_are_reduced_to_a_budget(three_dimensional: Path) -> None:
    state = open_state(three_dimensional, "given")
    known = layers(state)
    whole = map_plan(state, len(known), 10**6)
    assert (whole["factor"], whole["kept"]) == (1, [0, 1, 2, 3, 4, 5])
    few = map_plan(state, len(known), 150 * len(known))
    assert (few["factor"], few["kept"], few["words"]) == (1, [0, 5], ["z = 0 µm", "z = 2.5 µm"])
    codes = np.cumsum(np.frombuffer(inflated(packed_map(known[0], few)), "u1").reshape(2, 9, 8), 2, dtype="u1")
    values = state.latents[:, 0].reshape(6, 9, 8)[[0, 5]]
    np.testing.assert_array_equal(codes, stepped(values, *known[0].limits(), 254))
    coarse = packed_map(known[0], {**few, "factor": 2, "down": 5, "wide": 4, "kept": [0]})
    codes = np.cumsum(np.frombuffer(inflated(coarse), "u1").reshape(5, 4), 1, dtype="u1")
    np.testing.assert_array_equal(codes, stepped(block_mean(values[0], 2), *known[0].limits(), 254))


def test_run_without_a_network(three_dimensional: Path, tmp_path: Path) -> None:
    found = carried(save_page(three_dimensional, "given", tmp_path / "page.html"))
    assert found["decoding"] is None
    assert found["classes"] is None
    assert "no network" in found["no_network"]
    with pytest.raises(UsageError, match="leave the base out"):
        save_page(three_dimensional, "given", tmp_path / "other.html", base=3)


def test_volumes_show_their_middle_slice(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"sample": 9}, {"z": 5, "y": 8, "x": 7})
    path = create_store(ds, tmp_path / "volumes.zarr")
    attach(path, np.random.default_rng(0).normal(size=(9, 2)).astype("f4"), run="given")
    found = carried(save_page(path, "given", tmp_path / "page.html"))
    assert "the middle slice of their stored volume" in found["plane_note"]
    shown = found["thumbnails"]
    images = pictures(shown["pieces"][0], shown["shape"])[..., 0]
    slices = ds["patterns"].values[:, 2, ::-1].astype("f4")  # y rises to the front, which is on top
    np.testing.assert_array_equal(images, np.stack([as_bytes(image) for image in slices]))


def test_texts_cannot_leave_their_script() -> None:
    texts = ["</script><script>alert(1)</script>", "<!--", "\u2028", "&amp;", 'a"b\\']
    packed = as_script(texts)
    assert not re.search("[<>&\u2028]", packed)
    assert json.loads(packed) == texts


def test_labels_of_any_kind(tmp_path: Path, trained_template: Path) -> None:
    """Texts as classes; constant and unknown maps are left out; codes beyond what colours tell are amounts;
    paths stay behind."""
    path = Path(shutil.copytree(trained_template, tmp_path / "scan.zarr"))
    state = open_state(path)
    nav = ("y", "x")
    shape = state.nav_shape
    names = np.array(["a", "b"], dtype=object)[np.arange(40 * 35) % 2].reshape(shape)
    many = xr.DataArray(np.arange(40 * 35).reshape(shape) % 300, dims=nav, attrs={"flag_values": list(range(300))})
    files = np.array([f"/home/someone/{i % 3}.png" for i in range(40 * 35)], dtype=object).reshape(shape)
    own = np.array([f"file {i}" for i in range(40 * 35)], dtype=object).reshape(shape)
    state.ds = state.ds.assign_coords(kind=(nav, names), path=(nav, files), subject=(nav, own)).assign(
        grain=many, same=xr.zeros_like(many), empty=xr.full_like(many, np.nan, dtype="f4")
    )
    found = {layer.name: layer for layer in layers(state)}
    assert found["kind"].names == ("a", "b")
    np.testing.assert_array_equal(found["kind"].values, np.arange(40 * 35) % 2)
    assert found["grain"].names == ()
    assert found["grain"].values.max() == 299
    assert not {"same", "empty", "path", "subject"} & set(found)
