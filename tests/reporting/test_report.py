"""The report: offline, complete, escaped, and never in the way of foreign files."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from vaearr.clustering import cluster_store
from vaearr.config import ClusterConfig, ReportConfig
from vaearr.errors import ExistsError, NoInputError
from vaearr.reporting import report
from vaearr.run.train import train
from vaearr.store import add_variables, create_store, open_store, publish_run, staged_run, write_dataset

from ..conftest import TINY_TRAINING

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> {0} $$x$$ \\(y\\) 'q' \"z\""


def _dataset() -> xr.Dataset:
    rng = np.random.default_rng(0)
    attrs = {"navigation_dims": ["y", "x"], "signal_dims": ["dy", "dx"], "long_name": HOSTILE}
    return xr.Dataset(
        {
            "patterns": (("y", "x", "dy", "dx"), rng.integers(0, 255, (8, 10, 6, 6)).astype("u1"), attrs),
            "BC": (("y", "x"), rng.integers(0, 255, (8, 10)).astype("f4"), {"long_name": HOSTILE, "units": HOSTILE}),
            "elements": (("element", "y", "x"), rng.random((2, 8, 10)).astype("f4"), {"units": "wt%"}),
            "phase": (
                ("y", "x"),
                rng.integers(0, 2, (8, 10)).astype("i2"),
                {
                    "flag_values": [-1, 0, 1],
                    "flag_meanings": "none ni</script> fe_bcc",
                    "laue_groups": {"0": "m-3m", "1": "m-3m"},
                },
            ),
        },
        coords={
            "y": ("y", np.arange(8) * 0.5, {"units": "um"}),
            "x": ("x", np.arange(10) * 0.5, {"units": "um"}),
            "element": ["Fe", "<b>Ni"],
        },
        attrs={"provenance": {"source": {"file": f"/far/away/{HOSTILE}"}}},
    )


def make_store(path: Path, ds: xr.Dataset, warnings: list[str]) -> Path:
    """A store with a trained and encoded run, without a model."""
    create_store(ds, path)
    roi = xr.DataArray(np.ones((8, 10), bool), {"y": ds["y"], "x": ds["x"]}, ("y", "x"), name="roi")
    roi[:2] = False
    names = ["loss", "val_loss", "reconstruction_nll", "val_reconstruction_nll", "kl", "val_kl"]
    history = xr.Dataset({k: ("epoch", [3.0, 2.0, np.nan]) for k in names}, coords={"epoch": [1, 2, 3]})
    health = xr.Dataset(
        {"kl": ("latent", [1.0, 0.5, 0.0]), "mean_variance": ("latent", [1.0, 0.5, 0.0])},
        coords={"latent": [0, 1, 2]},
        attrs={"explained_variance": 0.3, "n_active": 2, "warnings": warnings},
    ).assign(is_active=("latent", [True, True, False]))
    manifest = {"config": {"model": {"name": HOSTILE}}, "roi": {"x": [0, 3], "where": HOSTILE}, "epochs_run": 3}
    with staged_run(path, "vae") as folder:
        write_dataset(history, folder / "history", run="vae")
        write_dataset(health, folder / "health", run="vae")
        publish_run(path, "vae", folder, manifest, roi.to_dataset())
    latents = np.random.default_rng(1).normal(size=(8, 10, 3)).astype("f4")
    latents[:2] = np.nan
    grid = {"y": ds["y"], "x": ds["x"], "latent": np.arange(3)}
    add_variables(path, xr.DataArray(latents, grid, ("y", "x", "latent"), name="latents").to_dataset())
    return path


def analysed(path: Path) -> Path:
    """The store with a decomposition and clusters."""
    rng = np.random.default_rng(2)
    grid = {"y": open_store(path)["y"], "x": open_store(path)["x"], "pca_component": np.arange(2)}
    scores = xr.DataArray(rng.normal(size=(8, 10, 2)).astype("f4"), grid, ("y", "x", "pca_component"), name="pca")
    images = xr.DataArray(rng.normal(size=(2, 6, 6)).astype("f4"), dims=("pca_component", "dy", "dx"))
    ratio = xr.DataArray([0.6, 0.1], dims="pca_component")
    turns = rng.normal(size=(8, 10, 4))
    turns = xr.DataArray(
        (turns / np.linalg.norm(turns, axis=-1, keepdims=True)).astype("f4"), dims=("y", "x", "quaternion_component")
    )
    add_variables(path, turns.rename("quaternion").to_dataset())
    add_variables(path, xr.Dataset({"pca": scores, "pca_components": images, "pca_explained_variance_ratio": ratio}))
    cluster_store(path, ClusterConfig(method="kmeans", k=3))
    return path


def _samples() -> xr.Dataset:
    images = np.random.default_rng(0).normal(size=(2, 2, 6, 6)).astype("f4")
    return xr.Dataset({k: (("sample", "dy", "dx"), images[i]) for i, k in enumerate(("input", "reconstruction"))})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose names try to break out of the page."""
    return analysed(make_store(tmp_path_factory.mktemp("report") / "scan.zarr", _dataset(), [f"collapse {HOSTILE}"]))


@pytest.fixture(scope="module")
def index(store: Path) -> Path:
    """The page of its run."""
    return report(store, samples=_samples)


class _Tags(HTMLParser):
    """Every tag with its attributes, and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.styles = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else self._inside

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.styles += data
        elif not self._inside:
            self.text += data


def _read(index: Path) -> _Tags:
    parser = _Tags()
    parser.feed(index.read_text(encoding="utf-8"))
    return parser


def test_page_loads_nothing_from_elsewhere(index: Path) -> None:
    page = _read(index)
    loading = {"iframe", "object", "embed", "audio", "video", "source", "form", "base"}
    assert not loading & {tag for tag, _ in page.tags}
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            value = attrs.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, (tag, name, value[:80])
    assert "url(" not in page.styles
    assert "@import" not in page.styles


def test_hostile_names_are_text(index: Path) -> None:
    page = _read(index)
    assert sum(tag == "script" for tag, _ in page.tags) == 3  # BokehJS, its widgets, the figures
    assert [attrs for tag, attrs in page.tags if tag == "img" and attrs.get("onerror")] == []
    assert "<script>alert(1)" in page.text  # shown as it is
    figures = index.read_text(encoding="utf-8").rsplit("<script", 1)[-1]
    assert "alert(2)" in figures
    assert "$$x" not in figures  # bokeh would fetch MathJax for it
    assert "(y" in figures
    assert "\\(y" not in figures


def test_page_says_what_it_shows(index: Path) -> None:
    text = _read(index).text
    for words in ("60 of 80 points", "Warning: collapse", "8 (y) × 10 (x)", "nats per sample", "3 latent dimensions"):
        assert words in text
    assert "clusters: 3 clusters of 60 scan points by kmeans" in text
    assert text.count("Left out") == 0


def test_json_is_complete_and_relative(index: Path, store: Path) -> None:
    record: dict[str, Any] = json.loads((index.parent / "report.json").read_text(encoding="utf-8"))
    assert record["roi"] == {"n_points": 60, "n_grid": 80, "config": {"x": [0, 3], "where": HOSTILE}}
    assert record["n"]["BC"] == 60
    assert set(record["rankings"]) == {"pearson", "spearman"}
    assert [entry["position"] for entry in record["rankings"]["pearson"]["Fe"]] == [1, 2, 3]
    assert (index.parent / record["store"]).resolve() == store.resolve()
    assert record["png"]
    for path in record["png"].values():
        assert (index.parent / path).read_bytes().startswith(b"\x89PNG")
    assert {"vaearr", "xarray", "zarr", "bokeh"} <= set(record["versions"])
    assert record["warnings"] == [f"collapse {HOSTILE}"]
    assert record["left_out"] == {}
    assert set(record["decompositions"]) == {"pca"}
    assert len(record["clusters"]["clusters"]["summary"]["coords"]["cluster"]["data"]) == 3
    assert 0 <= record["clusters"]["clusters"]["agreement_with_phase"]["data_vars"]["nmi"]["data"] <= 1
    assert {"elements_rgb", "kernel_average_misorientation", "largest_misorientation"} <= set(record["png"])
    assert {"pca_components", "pca_variance", "clusters_sheet", "clusters_against_phase"} <= set(record["png"])
    assert str(store.parent) not in json.dumps(record)
    assert json.dumps(record, allow_nan=False)


@pytest.mark.long
def test_a_report_is_replaced_a_foreign_folder_is_not(store: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(ExistsError, match="not a report"):
        report(store, out=foreign)
    assert (foreign / "thesis.txt").read_text() == "years of work"
    (foreign / "thesis.txt").unlink()
    first = report(store, config=ReportConfig(out=foreign, max_maps=2), samples=_samples())
    assert "the 2 of 3 latents with the strongest association" in _read(first).text.replace("\n", " ")
    (foreign / "png" / "old.png").write_bytes(b"")
    assert report(store, out=foreign, samples=_samples()) == first
    assert not (foreign / "png" / "old.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_parts_that_cannot_be_made_are_left_out_with_a_reason(tmp_path: Path) -> None:
    bare = _dataset()[["patterns"]]
    store = make_store(tmp_path / "bare.zarr", bare, [])

    def broken() -> xr.Dataset:
        raise NoInputError("the run has no model folder.")

    index = report(store, samples=broken)
    record = json.loads((index.parent / "report.json").read_text(encoding="utf-8"))
    assert set(record["left_out"]) == {
        "overview", "linked", "association", "decomposition", "clusters", "reconstructions"
    }  # fmt: skip
    assert "no model folder" in record["left_out"]["reconstructions"]
    text = _read(index).text
    assert "No sign of posterior collapse: 2 of 3" in text
    assert index == tmp_path / "bare.reports" / "vae" / "index.html"


@pytest.mark.long
def test_the_store_may_be_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "scan.zarr", _dataset(), [])
    monkeypatch.chdir(store)
    assert report(".", samples=_samples()) == tmp_path / "scan.reports" / "vae" / "index.html"
    record = json.loads((tmp_path / "scan.reports" / "vae" / "report.json").read_text(encoding="utf-8"))
    assert record["store"] == "../../scan.zarr"


def test_the_roi_is_in_words(index: Path) -> None:
    assert "60 of 80 points (75.0%): x from 0 to below 3, " in _read(index).text


def test_a_run_that_is_not_encoded_says_the_command(trained_store: Path) -> None:
    train(trained_store, run="b", config=TINY_TRAINING)
    with pytest.raises(NoInputError, match=f"run 'b' is not encoded yet: 'vaearr encode {trained_store} --run b'"):
        report(trained_store, run="b")
    assert not trained_store.with_name("scan.reports").exists()


def test_unknown_run_and_run_without_latents(store: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="'vae'"):
        report(store, run="vaee")
    assert not store.with_name("scan.reports").joinpath("vaee").exists()
