"""Fan-out over many scans: what fails is accounted for, the others go on; in processes and on a Dask cluster."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from tests.conftest import TINY_TRAINING
from tests.contract.prefect_server import Server
from vaearr.config import IngestConfig
from vaearr.errors import DataError, UsageError, VaearrError
from vaearr.flows import many
from vaearr.flows.serving import run

pytestmark = [
    pytest.mark.slow,
    # of the libraries that Prefect talks to its server with
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class _Line:
    """In place of the whole line: what it was asked, and a failure for sources named bad."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def fn(self, source: Path, store: Path, **settings: Any) -> dict[str, str]:
        self.asked.append({"source": source, "store": store, **settings})
        if source.stem.startswith("bad"):
            raise DataError(f"{source} holds nothing")
        return {"page": f"{store}.html"}


@pytest.mark.usefixtures("unrecorded")
def test_failures_are_accounted_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = _Line()
    monkeypatch.setattr(many, "analyse_scan", line)
    scans = [{"source": name, "store": f"{name}.zarr", "ingest": {"step": 0.5}} for name in ("a", "bad", "c")]
    news: list[str] = []
    with pytest.raises(VaearrError, match=r"1 of 3 scans failed: bad\.zarr"):
        run("analyse-many", {"scans": scans, "run": "b"}, say=news.append)
    assert [str(asked["source"]) for asked in line.asked] == ["a", "bad", "c"]
    assert {asked["run"] for asked in line.asked} == {"b"}
    assert all(asked["ingest"].step == 0.5 for asked in line.asked)
    assert "c.zarr: complete" in news
    assert "bad.zarr: failed: DataError: bad holds nothing" in news


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


def _given(files: dict[str, Path], reading: IngestConfig, folder: Path) -> dict[str, Any]:
    scans = [{"source": files["patterns"], "store": folder / f"{name}.zarr", "ingest": reading} for name in "ab"]
    scans.append({"source": folder / "nothing.h5", "store": folder / "c.zarr", "ingest": IngestConfig()})
    return {
        "scans": [many.Scan(**scan) for scan in scans],
        "train": TINY_TRAINING,
        "associate": {},
        "embed": {"n_components": 3},
        "cluster": {"method": "kmeans", "k": 3},
    }


def _check(folder: Path) -> None:
    for name in "ab":
        assert {"latents", "pca", "clusters"} <= set(xr.open_zarr(folder / f"{name}.zarr").data_vars)
        assert (folder / f"{name}.reports" / "vae" / "index.html").is_file()
    assert not (folder / "c.zarr").exists()


@pytest.mark.long
@pytest.mark.parametrize("where", [{"processes": 2}, {"dask": "local:2"}], ids=["processes", "dask"])
@pytest.mark.usefixtures("unrecorded")
def test_processes_of_this_machine(
    where: dict[str, Any], scan_files: dict[str, Path], reading: IngestConfig, tmp_path: Path
) -> None:
    with pytest.raises(VaearrError, match="1 of 3 scans failed"):
        run("analyse-many", _given(scan_files, reading, tmp_path) | where, say=lambda text: None)
    _check(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("where", ["processes", "dask"])
def test_recorded_by_a_server(
    where: str, prefect_server: Server, scan_files: dict[str, Path], reading: IngestConfig, tmp_path: Path
) -> None:
    given = _given(scan_files, reading, tmp_path)
    scans = [scan.to_attrs() for scan in given.pop("scans")]
    values = {"scans": scans, "train": given["train"].to_attrs(), "embed": given["embed"], "cluster": given["cluster"]}
    with ExitStack() as stack:
        if where == "dask":
            distributed = pytest.importorskip("distributed")
            workers = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
            values["dask"] = stack.enter_context(workers).scheduler_address
        else:
            values["processes"] = 2
        words = [word for name, value in values.items() for word in ("-p", f"{name}={json.dumps(value)}")]
        made = prefect_server.command("vaearr", "run", "analyse-many", *words, cwd=tmp_path, seconds=600)
    assert made.returncode == 1, made.stderr
    assert "1 of 3 scans failed" in made.stderr
    _check(tmp_path)
    rows = prefect_server.artifacts()["analyse-many"]["data"]
    assert rows.count("complete") == 2
    assert prefect_server.runs("analyse-many")[0]["state_type"] == "FAILED"
