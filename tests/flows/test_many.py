"""Fan-out over many scans: what fails is accounted for, the others go on; in processes and on a Dask cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from tests.conftest import TINY_TRAINING
from vaearr.config import IngestConfig
from vaearr.errors import UsageError, VaearrError
from vaearr.flows.serving import run

pytestmark = [
    pytest.mark.slow,
    # of the libraries that Prefect talks to its server with
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.usefixtures("unrecorded")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scans": []}, "scans is empty"),
        ({"scans": [{"source": "a", "store": "s.zarr"}, {"source": "b", "store": "./s.zarr"}]}, "more than one scan"),
        ({"scans": [{"source": "a", "store": "s.zarr"}], "processes": 0}, "processes is 0"),
        ({"scans": [{"source": "a"}]}, "store: Field required"),
        ({"scans": [{"source": "a", "store": "s.zarr", "inges": {}}]}, "inges"),
    ],
    ids=["none", "twice", "processes", "lacking", "unknown"],
)
def test_wrong_lists_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run("analyse-many", given, say=lambda text: None)


@pytest.mark.long
@pytest.mark.parametrize("where", [{"processes": 2}, {"dask": "local:2"}], ids=["processes", "dask"])
@pytest.mark.usefixtures("unrecorded")
def test_side_by_side(
    where: dict[str, Any], scan_files: dict[str, Path], reading: IngestConfig, tmp_path: Path
) -> None:
    scans = [{"source": scan_files["patterns"], "store": tmp_path / f"{n}.zarr", "ingest": reading} for n in "ab"]
    scans.append({"source": tmp_path / "nothing.h5", "store": tmp_path / "c.zarr"})
    given = {"scans": scans, "train": TINY_TRAINING, "associate": {}, "embed": {"n_components": 3}, **where}
    news: list[str] = []
    with pytest.raises(VaearrError, match="1 of 3 scans failed"):
        run(
            "analyse-many", {"scans": scans, "cluster": {"method": "kmeans", "k": 3}, **given, **where}, say=news.append
        )
    assert any(line.startswith(f"{tmp_path / 'c.zarr'}: failed: NoInputError: ") for line in news)
    for name in "ab":
        assert {"latents", "pca", "clusters"} <= set(xr.open_zarr(tmp_path / f"{name}.zarr").data_vars)
        assert (tmp_path / f"{name}.reports" / "vae" / "index.html").is_file()
    assert not (tmp_path / "c.zarr").exists()
