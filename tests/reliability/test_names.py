"""Names that become folders, files and variables: none leads out of its folder, whatever it is."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import vaearr as va
from tests.reliability.conftest import Stage
from tests.reliability.jobs import STORE, TRAINING
from tests.reliability.test_kills import hashes
from vaearr.config import ClusterConfig
from vaearr.errors import VaearrError
from vaearr.run.sample_files import inside_name
from vaearr.run.train import train
from vaearr.store import write_results
from vaearr.store.remove import remove

HOSTILE = (
    *(
        "..",
        ".",
        "",
        "/",
        "a/b",
        "../a",
        "a\\b",
        "a\0b",
        "a\nb",
        "\u202eab",
        "zarr.json",
        ".hidden",
        "~",
        "-rf",
        "a b",
    ),
    *(
        "c" * 300,
        "é",
        unicodedata.normalize("NFD", "é"),
        "con.",
        "$HOME",
        "a;b",
        "%2e%2e",
        "\ud7ff",
        "٣a",
    ),
)


def _map(folder: Path, name: str) -> object:
    return va.ingest(
        folder / "scan.h5", folder / "new.zarr", maps={name: folder / "bandcontrast.csv"}
    )


ENTRANCES: dict[str, Callable[[Path, str], object]] = {
    "run to train": lambda folder, name: train(folder / STORE, run=name, config=TRAINING),
    "run to attach": lambda folder, name: va.attach(folder / STORE, folder / "other.npy", run=name),
    "run to encode": lambda folder, name: va.encode(folder / STORE, name),
    "run to associate": lambda folder, name: va.load_run(folder / STORE, name).associate(),
    "run to report": lambda folder, name: va.load_run(folder / STORE, name).report(),
    "map to attach": lambda folder, name: va.attach(
        folder / STORE, folder / "one.npy", kind="map", name=name
    ),
    "map of an ingest": _map,
    "clusters": lambda folder, name: va.load_run(folder / STORE).cluster(
        ClusterConfig.from_attrs({"method": "kmeans", "name": name})
    ),
    "variable": lambda folder, name: write_results(
        folder / STORE, variables=xr.Dataset({name: (("y", "x"), np.zeros((40, 35)))})
    ),
    "run of a table": lambda folder, name: write_results(
        folder / STORE, run=name, tables={"t": xr.Dataset()}
    ),
}


@pytest.fixture(scope="module")
def place(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, and the checksums of all in it."""
    folder = Path(
        shutil.copytree(
            stage(("files", "ingest", "train", "encode")), tmp_path_factory.mktemp("n") / "in"
        )
    )
    np.save(folder / "one.npy", np.arange(40 * 35, dtype=np.float32))
    return folder


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_hostile_names_are_refused(entrance: str, place: Path) -> None:
    before = {
        path: seal for path, seal in hashes(place.parent).items() if not path.endswith(".lock")
    }
    for name in HOSTILE:
        with pytest.raises((VaearrError, ValueError)) as caught:
            ENTRANCES[entrance](place, name)
        assert isinstance(caught.value, VaearrError), f"{name!r}: {caught.value!r}"
        after = {
            path: seal for path, seal in hashes(place.parent).items() if not path.endswith(".lock")
        }
        assert after == before, f"{name!r} changed something"


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
@example("../../etc/passwd")
@example("/etc/passwd.png")
@example("..\\..\\a")
def test_files_of_samples_stay_inside(name: str) -> None:
    assume("\0" not in name)
    root = Path("/somewhere/out").resolve()
    assert (root / inside_name(name)).resolve().is_relative_to(root)


def test_removing_stays_inside(place: Path) -> None:
    outside = place / "keep" / "zarr.json"
    outside.parent.mkdir()
    outside.write_text('{"attributes": {"provenance": {}}}')
    for name in ("../keep", "../../in/keep", "latents/../../keep", "runs/../../keep", "", "."):
        with pytest.raises(VaearrError):
            remove(place / STORE, name)
    assert outside.exists()
    shutil.rmtree(outside.parent)
