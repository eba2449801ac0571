"""The first seed's cluster files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from vaearr.exporting import export
from vaearr.exporting.seed import TAGS
from vaearr.provenance import nested
from vaearr.store import add_variables

DPI = 40
COMMON = {"n_points": int, "figure": str, "assignments_csv": str, "cluster_colors": list}
OWN: dict[str, dict[str, Any]] = {
    "gmm": {"k": int, "scores": dict},
    "kmeans": {"k": int},
    "dbscan": {"eps": float, "min_samples": int},
    "hdbscan": {"min_cluster_size": int, "min_samples": int, "cluster_selection_epsilon": float},
}


def _reports(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("cluster_report__*.json"))]


def test_assignments_of_a_stored_map(template: Path, ds: xr.Dataset, tmp_path: Path) -> None:
    out = export(template, tmp_path / "out", run="b", dpi=DPI, latents=(0,))
    frame = pd.read_csv(out / "cluster_assignments__gmm_k3.csv")
    assert list(frame) == ["x", "y", "latent", "bandcontrast", "cluster"]
    inside = (ds["roi_b"] & (ds["clusters"] != -2)).values
    np.testing.assert_array_equal(frame["cluster"], ds["clusters"].values[inside])
    np.testing.assert_array_equal(frame["latent"].to_numpy("f4"), ds["latents_b"].values[..., 2][inside])
    np.testing.assert_array_equal(frame["bandcontrast"].to_numpy("f4"), ds["BC"].values[inside])
    (record,) = _reports(out)
    assert record["method"] == "gmm"
    assert record["n_points"] == len(frame)
    assert (record["latent_dim"], record["variable"]) == (2, "clusters")
    assert record["scaling"] == nested(ds["clusters"].attrs, "scaling")
    assert record["about"]["labels"] is not None


@pytest.mark.parametrize("method", list(TAGS))
def test_each_method_has_the_keys_of_the_seed(template: Path, tmp_path: Path, method: str) -> None:
    out = export(template, tmp_path / "out", run="b", dpi=DPI, latents=(0,), methods=(method,))
    (record,) = _reports(out)
    expected = {"method": str} | OWN[method] | COMMON
    assert list(record)[: len(expected)] == list(expected)
    for key, kind in expected.items():
        assert isinstance(record[key], kind), key
    tag = TAGS[method].format(**record)
    assert record["figure"] == f"cluster_latent_bc__{tag}.png"
    assert (out / record["figure"]).stat().st_size > 1000
    frame = pd.read_csv(out / record["assignments_csv"])
    assert len(frame) == record["n_points"]
    assert len(record["cluster_colors"]) > frame["cluster"].max()  # one for each cluster, by its number
    assert all(re.fullmatch("#[0-9a-fA-F]{6}", color) for color in record["cluster_colors"])
    if method == "gmm":
        assert set(record["scores"]) == {"criterion", "value"}


def test_noise_is_minus_one_and_what_is_not_clustered_is_no_row(store: Path, ds: xr.Dataset, tmp_path: Path) -> None:
    labels = ds["clusters"].copy(data=ds["clusters"].values)
    inside = np.argwhere(ds["roi_b"].values)
    labels.values[tuple(inside[0])] = -1
    labels.values[tuple(inside[1])] = -2
    labels.attrs |= {"method": "dbscan", "parameters": {"eps": 0.5, "min_samples": 8}}
    add_variables(store, labels.rename("dense").to_dataset())
    out = export(store, tmp_path / "out", run="b", dpi=DPI, latents=(0,), clusters=("dense",))
    (record,) = _reports(out)
    frame = pd.read_csv(out / "cluster_assignments__dbscan_eps0.5_m8.csv")
    assert record["n_points"] == len(frame) == int((ds["roi_b"] & (labels != -2)).sum())
    assert frame["cluster"].tolist().count(-1) == record["n_noise"] == 1
