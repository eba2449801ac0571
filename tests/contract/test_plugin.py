"""Parts of a user's own package are found by name: on the command line, in Python, in a flow."""

from __future__ import annotations

import json
import os
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
    target = tmp_path_factory.mktemp("site")
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
        [sys.executable, *install, str(target), str(PACKAGE)], check=True, capture_output=True
    )
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")]),
    }


COMMANDS = """
import json, sys
from vaearr.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["vaearr", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
"""
VIEWS = """
import sys, vaearr as va
ds = va.open_store(sys.argv[1])
result = ds.latents[..., 0].assign_attrs(kind="example")
print(type(va.view(result)).__name__, type(va.view(ds.roi, kind="vaearr_example:show")).__name__)
print(va.load_run(sys.argv[1]).decode(ds.latents[:2, :2]).shape)
"""


def python(installed: dict[str, str], script: str, argument: object) -> str:
    """What a script prints in that environment."""
    command = [sys.executable, "-c", script, str(argument)]
    done = subprocess.run(command, env=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(installed: dict[str, str], *commands: tuple[object, ...]) -> str:
    """What commands print, one after the other in one process."""
    return python(
        installed, COMMANDS, json.dumps([[str(word) for word in words] for words in commands])
    )


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
    run(installed, ingest, (*train, "--device", "cpu"), ("encode", store))
    np.testing.assert_array_equal(xr.open_zarr(store).patterns, patterns)
    ds = va.open_store(store)
    bc = xr.DataArray(rng.normal(size=(12, 11)), dims=("y", "x"))
    va.keep(ds, brightness=ds.patterns.mean(("dy", "dx")) + 0 * bc)
    associate = (
        "associate",
        store,
        "--metric",
        "agreement",
        "--metric",
        "vaearr_example:agreement",
    )
    given = 'cluster={"method": "halves", "name": "groups", "run": "vae"}'
    cluster = ("run", "cluster", "-p", f"store={store}", "-p", given)
    assert "agreement" in run(installed, (*associate, "--target", "brightness"), cluster)
    assert set(np.unique(xr.open_zarr(store).groups)) <= {0, 1}
    assert python(installed, VIEWS, store).splitlines() == ["Curve Curve", "(2, 2, 16, 16)"]


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
