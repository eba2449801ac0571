"""The first seed's files, read back as its users read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from vaearr.association import associate
from vaearr.attaching import attach
from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.exporting import export
from vaearr.exporting.seed import METRICS
from vaearr.store import create_store, open_store

from ..data import random_patterns_dataset

NAMES = ["pearson", "spearman", "kendall", "mi", "dcorr", "hsic", "pp_spatial"]
DPI = 40  # small pictures are quick


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the export of `out` told."""
    return []


@pytest.fixture(scope="module")
def out(scored: Path, tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Path:
    """The files, exported once."""
    return export(scored, tmp_path_factory.mktemp("seed") / "out", run="b", dpi=DPI, say=said.append)


def _json(path: Path) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{path.name} holds {word}")

    record: dict[str, Any] = json.loads(path.read_text(), parse_constant=refuse)
    return record


def test_every_file_is_there_and_nothing_is_left_out(out: Path, said: list[str]) -> None:
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    maps = "latent_maps_selected_dim_4"
    assert files == {
        "latents_full.npy", "latents_roi.npy", "coords.csv", "coords_roi.csv",
        *(f"{maps}/latent_full_d{d}.{ending}" for d in range(4) for ending in ("png", "csv")),
        "bandcontrast_latent_scores.csv", "report_bandcontrast_multi_metric.json",
        "element_latent_scores.csv", "report_elements_multi_metric__sum-auto.json",
        "cluster_assignments__gmm_k3.csv", "cluster_report__gmm_k3.json", "cluster_latent_bc__gmm_k3.png",
        "report_cluster.json",
    }  # fmt: skip
    assert said == []


def test_arrays_and_latent_maps(out: Path, ds: xr.Dataset) -> None:
    full, own = np.load(out / "latents_full.npy"), np.load(out / "latents_roi.npy")
    coords = pd.read_csv(out / "coords.csv")
    assert full.shape == (168, 4)
    assert full.dtype == np.float32
    assert own.shape == (int(ds["roi_b"].sum()), 4)
    assert list(coords) == ["x", "y"]
    for d in range(4):
        frame = pd.read_csv(out / "latent_maps_selected_dim_4" / f"latent_full_d{d}.csv")
        assert list(frame) == ["x", "y", f"latent_d{d}"]
        np.testing.assert_array_equal(frame[["x", "y"]], coords)
        np.testing.assert_array_equal(frame[f"latent_d{d}"].to_numpy("f4"), full[:, d])


def test_band_contrast_scores_are_those_of_associate(out: Path, ds: xr.Dataset) -> None:
    frame = pd.read_csv(out / "bandcontrast_latent_scores.csv")
    assert list(frame) == ["dim", *NAMES]
    strength = frame["pearson"].abs().to_numpy()
    assert (np.diff(strength[:3]) <= 0).all()
    assert frame["dim"].tolist()[0] == 2  # made of band contrast
    assert frame["dim"].tolist()[-1] == 3  # constant
    assert frame.iloc[-1][["pearson", "spearman"]].isna().all()
    table = associate(ds["latents_b"], ds["BC"], list(METRICS), roi=ds["roi_b"])
    ordered = frame.set_index("dim").sort_index()
    for ours, short in METRICS.items():
        np.testing.assert_allclose(ordered[short], table.sel(metric=ours).values, rtol=1e-12, atol=1e-14)


def test_band_contrast_report(out: Path, ds: xr.Dataset) -> None:
    record = _json(out / "report_bandcontrast_multi_metric.json")
    n_roi = int(ds["roi_b"].sum())
    roi = record["roi"]
    assert (roi["x_range"], roi["y_range"], roi["n"]) == ([10, 22], [22, 34], n_roi)
    assert record["target"] == "BandContrast"
    assert record["metrics"] == NAMES
    assert list(record["rankings"]) == NAMES
    for rows in record["rankings"].values():
        assert len(rows) <= 3
        assert all(isinstance(row["dim"], int) and isinstance(row["score"], float) for row in rows)
    assert record["rankings"]["pearson"][0]["dim"] == 2
    assert record["rankings"]["pearson"][0]["score"] < 0
    assert (record["n"], record["n_finite"]) == (n_roi, n_roi)
    assert {"versions", "seeds", "scaling", "parameters", "about"} <= set(record)


def test_element_report_of_the_sum(out: Path, ds: xr.Dataset) -> None:
    record = _json(out / "report_elements_multi_metric__sum-auto.json")
    assert (record["synth_mode"], record["synth_tag"]) == ("sum", "sum-auto")
    assert record["elements"] == ds["element"].values.tolist()
    assert record["weights"] is None
    assert record["rgb_elements"] is None
    assert record["metrics"] == NAMES
    assert list(record["rankings"]) == NAMES
    assert record["roi"]["n"] == int(ds["roi_b"].sum())
    assert list(pd.read_csv(out / "element_latent_scores.csv")) == ["dim", *NAMES]


@pytest.mark.parametrize(
    ("settings", "tag"),
    [
        ({"elements": ("Fe", "Ni"), "weights": (1.0, 0.25)}, "sum-1.000_0.250"),
        ({"synth_mode": "rgb", "rgb_elements": ("Fe", "Ni", "Cr")}, "rgb-Fe_Ni_Cr"),
        ({"synth_mode": "rgb", "rgb_elements": ("Cr",)}, "rgb-Cr"),
    ],
)
def test_tags_of_other_element_targets(template: Path, tmp_path: Path, settings: dict[str, Any], tag: str) -> None:
    done = export(template, tmp_path / "out", run="b", dpi=DPI, latents=(0,), **settings)
    record = _json(done / f"report_elements_multi_metric__{tag}.json")
    assert (record["synth_mode"], record["synth_tag"]) == (tag.split("-")[0], tag)
    assert record["weights"] == (list(settings["weights"]) if "weights" in settings else None)
    assert record["rgb_elements"] == (list(settings["rgb_elements"]) if "rgb_elements" in settings else None)


def test_clusters_of_each_latent(out: Path) -> None:
    record = _json(out / "report_cluster.json")
    rows = record["top_latent_by_cluster"]
    assert 1 <= len(rows) <= 3
    for row in rows:
        assert [type(row[key]) for key in ("dim", "score", "k_lat", "k_ref")] == [int, float, int, int]
    assert record["reference"] == "pca"


def test_modes_never_overwrite_each_other(template: Path, tmp_path: Path) -> None:
    out = export(template, tmp_path / "out", run="b", dpi=DPI, latents=(0,))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    export(template, out, run="b", dpi=DPI, latents=(0,))  # the same: nothing to do
    with pytest.raises(ExistsError, match=r"element_latent_scores\.csv with other content"):
        export(template, out, run="b", dpi=DPI, latents=(0,), synth_mode="rgb")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_what_the_store_lacks_is_left_out_and_told(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 4, "x": 5}).drop_vars(["BC", "elements", "element", "phase"])
    store = create_store(ds, tmp_path / "scan.zarr")
    attach(store, np.random.default_rng(0).normal(size=(20, 2)), run="b")
    said: list[str] = []
    done = export(store, tmp_path / "out", run="b", dpi=DPI, say=said.append)
    assert not list(done.glob("*.json"))
    assert (done / "latents_full.npy").exists()
    assert [line.split(":")[1] for line in said] == [
        " band contrast",
        " elements",
        " clusters",
        " clusters of each latent",
    ]
    for settings, word in (({"target": "IQ"}, "IQ"), ({"elements": ("Fe",)}, "element"), ({"reference": "nmf"}, "nmf")):
        with pytest.raises(NoInputError, match=word):
            export(store, tmp_path / "more", run="b", dpi=DPI, **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "more").exists()


def test_settings_that_cannot_be_meant(template: Path, tmp_path: Path) -> None:
    def refuse(error: type[Exception], match: str, **settings: Any) -> None:
        with pytest.raises(error, match=match):
            export(template, tmp_path / "out", run="b", dpi=DPI, latents=(0,), **settings)

    refuse(UsageError, "2 weights for 3 elements", weights=(1.0, 2.0))
    refuse(NoInputError, "no element 'Fr'", elements=("Fr",))
    refuse(UsageError, "expected one to 3", synth_mode="rgb", rgb_elements=("Fe", "Ni", "Cr", "Fe"))
    refuse(UsageError, "plain map", target="elements")
    refuse(UsageError, "no cluster map", clusters=("phase",))
    refuse(NoInputError, "no latent 7", latent=7, methods=("kmeans",))
    assert not (tmp_path / "out").exists()


def test_a_volume_is_refused(tmp_path: Path) -> None:
    store = create_store(random_patterns_dataset({"z": 2, "y": 3, "x": 4}), tmp_path / "v.zarr")
    attach(store, np.zeros(24), run="a")
    with pytest.raises(UsageError, match="Use csv or npy"):
        export(store, tmp_path / "out", run="a")


def test_names_of_elements_never_lead_elsewhere(store: Path, tmp_path: Path) -> None:
    ds = open_store(store)
    names = ["../../Fe/Ni", *map(str, ds["element"].values[1:])]
    renamed = ds.load().assign_coords(element=names).drop_encoding()
    other = create_store(renamed[["patterns", "present", "BC", "elements"]], tmp_path / "other.zarr")
    attach(other, ds["latents_b"].values, run="b")
    folder = export(
        other, tmp_path / "a" / "out", run="b", dpi=DPI, latents=(0,), synth_mode="rgb", rgb_elements=(names[0],)
    )
    written = [path.name for path in folder.glob("report_elements*")]
    assert written == ["report_elements_multi_metric__rgb-.._.._Fe_Ni.json"]
    assert _json(folder / written[0])["synth_tag"] == f"rgb-{names[0]}"
