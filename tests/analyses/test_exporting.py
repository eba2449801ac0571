"""What leaves a store comes back, never mixes with what is there, and keeps the earlier program's names and keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import vaearr as va
from vaearr.analysis.clustering import cluster_store
from vaearr.config import ClusterConfig
from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.store import add_variables, create_store
from vaearr.store.folders import staged

from ..data import random_patterns_dataset

QUICK: dict[str, Any] = {"run": "b", "dpi": 40, "latents": (0,)}
COMMON = {"n_points": int, "figure": str, "assignments_csv": str, "cluster_colors": list}
OWN: dict[str, dict[str, Any]] = {
    "gmm": {"k": int, "scores": dict},
    "kmeans": {"k": int},
    "dbscan": {"eps": float, "min_samples": int},
    "hdbscan": {"min_cluster_size": int, "min_samples": int, "cluster_selection_epsilon": float},
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """14 x 12 points from step 20, 10 on; run `b` whose latent 2 is band contrast; clusters of the two."""
    ds = random_patterns_dataset({"y": 14, "x": 12}, missing=2, seed=4)
    x, y = np.arange(10, 22), np.arange(20, 34)
    ds = ds.assign_coords(
        x=("x", x * 0.5, ds.x.attrs), y=("y", y * 0.5, ds.y.attrs), x_index=("x", x), y_index=("y", y)
    )
    path = create_store(ds, tmp_path / "scan.zarr")
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(14, 12, 4)).astype("f4")
    latents[..., 2] = -ds["BC"].values / 100 + rng.normal(0, 0.05, (14, 12))
    latents[:2] = np.nan
    va.attach(path, latents, run="b")
    cluster_store(path, ClusterConfig(run="b", features=("latents", "BC"), latents=(2,), k=3, max_points=1000))
    return path


def record_of(path: Path) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{path.name} holds {word}")

    return dict(json.loads(path.read_text(), parse_constant=refuse))


def test_arrays_and_tables_come_back_as_runs(store: Path, tmp_path: Path) -> None:
    out = va.export(store, tmp_path / "out", "npy", run="b")
    table = va.export(store, tmp_path / "table", "csv", run="b")
    coords = pd.read_csv(out / "coords.csv")
    assert coords["x"].tolist()[:13] == [*range(10, 22), 10]  # step numbers, x fastest
    va.attach(store, out / "latents_full.npy", run="full")
    va.attach(store, out / "latents_roi.npy", run="own", roi="b")
    va.attach(store, out / "latents_roi.npy", run="points", coords=out / "coords_roi.csv")
    va.attach(store, table / "latents_b.csv", run="table")
    ds = va.open_store(store)
    for run in ("full", "own", "points", "table"):
        np.testing.assert_array_equal(ds[f"latents_{run}"].values.astype("f4"), ds["latents_b"].values)
    before = (out / "latents_full.npy").read_bytes()
    va.attach(store, np.zeros((14, 12, 4)), run="c")
    with pytest.raises(ExistsError, match=r"coords_roi\.csv, latents_full\.npy"):
        va.export(store, out, "npy", run="c")
    assert (out / "latents_full.npy").read_bytes() == before


def test_collections_and_volumes_as_tables(tmp_path: Path) -> None:
    images = create_store(random_patterns_dataset({"sample": 7}), tmp_path / "c.zarr")
    va.attach(images, np.arange(14.0).reshape(7, 2), run="a")
    out = va.export(images, tmp_path / "c", "csv", run="a", variables=("label",))
    assert list(pd.read_csv(out / "latents_a.csv")) == ["sample", "latent_0", "latent_1", "label"]
    volume = create_store(random_patterns_dataset({"z": 2, "y": 3, "x": 4}), tmp_path / "v.zarr")
    va.attach(volume, np.arange(24.0), run="a")
    frame = pd.read_csv(va.export(volume, tmp_path / "v", "csv", run="a") / "latents_a.csv")
    assert list(frame) == ["x", "y", "z", "latent_0"]
    np.testing.assert_array_equal(frame["latent_0"], np.arange(24))
    for format_, words in (("png", "z, y, x"), ("seed0", "Use csv or npy")):
        with pytest.raises(UsageError, match=words):
            va.export(volume, tmp_path / "no", format_, run="a")


def test_weights_are_in_the_name_and_stay_apart(store: Path, tmp_path: Path) -> None:
    out = va.export(store, tmp_path / "out", **QUICK, elements=("Fe", "Ni"), weights=(1.0, 0.25))
    record = record_of(out / "report_elements_multi_metric__sum-1.000_0.250.json")
    assert (record["synth_mode"], record["weights"]) == ("sum", [1.0, 0.25])
    with pytest.raises(ExistsError, match=r"element_latent_scores\.csv with other content"):
        va.export(store, out, **QUICK)


@pytest.mark.parametrize("method", list(OWN))
def test_each_method_has_the_keys_of_the_seed(store: Path, tmp_path: Path, method: str) -> None:
    cluster_store(store, ClusterConfig(run="b", method=method, name="own", features=("latents",), max_points=1000))
    out = va.export(store, tmp_path / "out", **QUICK, clusters=("own",))
    (record,) = map(record_of, out.glob("cluster_report__*.json"))
    expected = {"method": str} | OWN[method] | COMMON
    assert list(record)[: len(expected)] == list(expected)
    for key, kind in expected.items():
        assert isinstance(record[key], kind), key
    frame = pd.read_csv(out / record["assignments_csv"])
    assert len(frame) == record["n_points"]
    assert len(record["cluster_colors"]) > frame["cluster"].max()
    assert all(re.fullmatch("#[0-9a-fA-F]{6}", color) for color in record["cluster_colors"])


def test_noise_is_minus_one_and_what_is_not_clustered_is_no_row(store: Path, tmp_path: Path) -> None:
    ds = va.open_store(store, chunks=None).load()
    labels = ds["clusters"].copy(deep=True)
    inside = np.argwhere(ds["roi_b"].values)
    labels.values[tuple(inside[0])], labels.values[tuple(inside[1])] = -1, -2
    labels.attrs |= {"method": "dbscan", "parameters": {"eps": 0.5, "min_samples": 8}}
    add_variables(store, labels.rename("dense").to_dataset())
    out = va.export(store, tmp_path / "out", **QUICK, clusters=("dense",))
    frame = pd.read_csv(out / "cluster_assignments__dbscan_eps0.5_m8.csv")
    assert len(frame) == int((ds["roi_b"] & (labels != -2)).sum())
    assert frame["cluster"].tolist().count(-1) == 1


def test_what_the_store_lacks_is_left_out_and_told(tmp_path: Path, said: list[str]) -> None:
    ds = random_patterns_dataset({"y": 4, "x": 5}).drop_vars(["BC", "elements", "element", "phase"])
    store = create_store(ds, tmp_path / "scan.zarr")
    va.attach(store, np.random.default_rng(0).normal(size=(20, 2)), run="b")
    out = va.export(store, tmp_path / "out", run="b", dpi=40)
    assert not list(out.glob("*.json"))
    told = [line.split(":")[1] for line in said if line.startswith("left out")]
    assert told == [" band contrast", " elements", " clusters", " clusters of each latent"]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"weights": (1.0, 2.0)}, UsageError, "2 weights for 3 elements"),
        ({"target": "elements"}, UsageError, "plain map"),
        ({"reference": "nmf"}, NoInputError, "nmf"),
        ({"format": "csv", "variables": ("elements", "Ni")}, UsageError, "two maps would be called 'Ni'"),
    ],
)
def test_refusals(store: Path, tmp_path: Path, settings: dict[str, Any], error: type[Exception], words: str) -> None:
    if "Ni" in settings.get("variables", ()):
        va.attach(store, np.zeros((14, 12)), kind="map", name="Ni")
    with pytest.raises(error, match=words):
        va.export(store, tmp_path / "out", **{**QUICK, **settings})
    assert not (tmp_path / "out").exists()


def test_a_folder_of_ours_is_whole_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a report is written: killed at any rename, a page is there, and its record is new only with all the rest."""
    folder, names = tmp_path / "report", ["index.html", "png/a.png", "report.json"]

    def write(text: str, *files: str) -> None:
        with staged(folder, last="report.json") as aside:
            (aside / "png").mkdir()
            for file in files:
                (aside / file).write_text(text)

    replace = Path.replace
    write("0", *names, "png/old.png")
    for survived in range(3):
        left = iter(range(survived))

        def killed(path: Path, target: Path, left: Iterator[int] = left) -> Path:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write("1", *names)
        monkeypatch.undo()
        assert [(folder / name).read_text() for name in names] == ["1"] * survived + ["0"] * (3 - survived)
    write("1", *names)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["a.png", "index.html", "report.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
