"""Parts of a user's own package are found by name: on the command line, in Python, in a flow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import UsageError

PACKAGE = Path(__file__).parents[1] / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the package is installed."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PACKAGE, folder / "source")  # pip builds next to the files
    target = folder / "site"
    install = (
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
    )
    subprocess.run(
        [sys.executable, *install, str(target), str(source)], check=True, capture_output=True
    )
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")]),
    }


COMMANDS_AND_VIEWS = """
import json, sys
import vaearr as va
from vaearr.cli import main
store = sys.argv[1]
for words in json.loads(sys.argv[2]):
    sys.argv = ["vaearr", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
ds = va.open_store(store)
result = ds.latents[..., 0].assign_attrs(kind="example")
print(type(va.view(result)).__name__, type(va.view(ds.roi, kind="vaearr_example:show")).__name__)
print(va.load_run(store).decode(ds.latents[:2, :2]).shape)
"""


def output_of(installed: dict[str, str], store: Path, *commands: tuple[object, ...]) -> str:
    """What commands and views print, one after the other in one process."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    python = [sys.executable, "-c", COMMANDS_AND_VIEWS, str(store), words]
    done = subprocess.run(python, env=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_door(installed: dict[str, str], tmp_path: Path) -> None:
    rng, store = np.random.default_rng(0), tmp_path / "scan.zarr"
    patterns = rng.integers(0, 60, (12, 11, 16, 16)).astype(np.uint8)
    patterns[:6] += 100
    with (tmp_path / "scan.stack").open("wb") as file:
        np.save(file, patterns)
    choice = (
        "--model",
        "linear",
        "--set",
        'model.options={"scale": 0.5}',
        "--set",
        "objective.likelihood=cauchy",
    )
    train = ("train", store, *choice, "--epochs", 2, "--set", "model.latent_dim=3")
    ingest = ("ingest", tmp_path / "scan.stack", store)
    np.save(tmp_path / "map.npy", patterns.mean((2, 3)))
    attach = ("attach", store, tmp_path / "map.npy", "--kind", "map", "--name", "brightness")
    associate = (
        "associate",
        store,
        "--metric",
        "agreement",
        "--metric",
        "vaearr_example:agreement",
        "--target",
        "brightness",
    )
    given = 'cluster={"method": "halves", "name": "groups", "run": "vae"}'
    cluster = ("run", "cluster", "-p", f"store={store}", "-p", given)
    steps = (ingest, attach, (*train, "--device", "cpu"), ("encode", store), associate, cluster)
    printed = output_of(installed, store, *steps)
    assert "agreement" in printed
    assert printed.splitlines()[-2:] == ["Curve Curve", "(2, 2, 16, 16)"]
    ds = xr.open_zarr(store)
    np.testing.assert_array_equal(ds.patterns, patterns)
    assert set(np.unique(ds.groups)) <= {0, 1}


def test_functions_in_the_place_of_names(known_template: Path) -> None:
    from sklearn.cluster import AgglomerativeClustering

    def apart(latent: np.ndarray, target: np.ndarray) -> float:
        """Distance of the means."""
        return float(abs(latent.mean() - target.mean()))

    ds = va.open_store(known_template)
    table = va.associate(ds.latents_theirs, ds.BC, ["pearson", apart])
    inside = ds.latents_theirs.notnull().all("latent_theirs") & ds.BC.notnull()
    means = abs(ds.latents_theirs.where(inside).mean(("y", "x")) - ds.BC.where(inside).mean())
    np.testing.assert_allclose(table.sel(metric="apart"), means, rtol=1e-5)
    labels = va.cluster(ds.latents_theirs, AgglomerativeClustering(3))
    assert (labels.attrs["method"], labels.attrs["k"]) == ("AgglomerativeClustering", 3)
    with pytest.raises(UsageError, match="settings of its own"):
        va.cluster(ds.latents_theirs, AgglomerativeClustering(3), k=4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda ds: va.associate(ds.latents_theirs, ds.BC, "no.such:metric"),
            "install its package here",
        ),
        (lambda ds: va.associate(ds.latents_theirs, ds.BC, "speerman"), "spearman"),
        (lambda ds: va.cluster(ds.latents_theirs, "math:no_such"), "cannot be loaded"),
        (lambda ds: va.view(ds.BC, kind="heatmap"), "there is no view"),
        (lambda ds: va.open_source(__file__, format="math"), "there is no format"),
    ],
)
def test_names_that_nothing_has(known_template: Path, call: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call(va.open_store(known_template))  # type: ignore[operator]
