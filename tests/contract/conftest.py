"""Stores that many tests share. Each is made once a run, also over several processes. A test that
writes takes a copy (`trained_store`, not `trained_template`); `_templates_are_unchanged` holds that.
"""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import numpy as np
import pytest

from . import inputs
from .harness import HAS_MONAI, MONAI, TINY, vaearr

CRITIC = 'objective.adversarial.options={"channels": 4, "layers": 1}'
Make = Callable[[Path], None]
States = dict[Path, dict[Path, tuple[int, int]]]
Template = Callable[[str, Make], Path]


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the steps log under `vaearr`, as the command line prints it."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(
                f"{'warning: ' * (record.levelno >= logging.WARNING)}{record.getMessage()}"
            )

    log, handler = logging.getLogger("vaearr"), Lines()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lines
    log.removeHandler(handler)
    log.setLevel(level)


@pytest.fixture
def in_time() -> Iterator[None]:
    """What waits for ever, or walks in circles, ends in an error."""

    def over(number: int, frame: object) -> None:
        pytest.fail("it takes for ever")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c() -> None:
    """A shell that starts the tests in the background has Ctrl-C ignored, and commands would
    rightly keep to that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of the last change of every file below a folder, except locks of writers."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".writer"]
    files = {path: path.stat() for path in paths}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in files.items()}


@pytest.fixture(scope="session")
def template_states() -> States:
    """The files of each template that this process uses, as they were at its first use."""
    return {}


@pytest.fixture(autouse=True)
def _templates_are_unchanged(
    request: pytest.FixtureRequest, template_states: States
) -> Iterator[None]:
    """Fail a test that writes into a template, or that runs while another process does."""
    yield
    if not any(name.endswith("_template") for name in request.fixturenames):
        return
    for folder, state in template_states.items():
        now = _state(folder)
        changed = {path.relative_to(folder) for path, _ in state.items() ^ now.items()}
        template_states[folder] = now
        assert not changed, f"the template {folder.name} was changed: {sorted(changed)[:5]}"


@pytest.fixture(scope="session")
def template(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str, template_states: States
) -> Template:
    """`template("name", make)`: the folder that `make(folder)` filled, once for all processes."""
    base = (
        tmp_path_factory.getbasetemp()
        if worker_id == "master"
        else tmp_path_factory.getbasetemp().parent
    )
    base = base / "contract"
    base.mkdir(exist_ok=True)

    def get(name: str, make: Make) -> Path:
        with filelock.FileLock(base / f"{name}.lock"):
            if not (base / f"{name}.done").exists():
                shutil.rmtree(base / name, ignore_errors=True)
                (base / name).mkdir()
                make(base / name)
                (base / f"{name}.done").touch()
        template_states.setdefault(base / name, _state(base / name))
        return base / name

    return get


@pytest.fixture(scope="session")
def scan_files(template: Template) -> dict[str, Path]:
    """Files of a scan of 22 x 17 points of 20 x 20 pixels: `patterns`, `BC`, `elements`, `phase`."""
    folder = template("scan-files", lambda folder: inputs.scan_files(folder) and None)
    return {
        "patterns": folder / "scan.h5",
        "BC": folder / "bc.csv",
        "elements": folder / "elements.csv",
        "phase": folder / "phases.csv",
    }


@pytest.fixture(scope="session")
def scan_template(template: Template, scan_files: dict[str, Path]) -> Path:
    """That scan as a store: patterns, BC, elements, phase."""

    def make(folder: Path) -> None:
        maps = (
            "--bc",
            scan_files["BC"],
            "--elements",
            scan_files["elements"],
            "--phases",
            scan_files["phase"],
        )
        names = ("--phase", "0=ferrite", "--phase", "1=austenite")
        vaearr(
            "ingest",
            scan_files["patterns"],
            folder / "scan.zarr",
            *maps,
            *names,
            "--step",
            inputs.STEP,
        )

    return template("scan", make) / "scan.zarr"


def linear(store: Path, model: str, n_latents: int) -> None:
    """A run of a linear model, fitted to all points and encoded."""
    numbers = ("--latent-dim", n_latents, "--set", "split.fraction=0")
    vaearr("train", store, "--run", model, "--model", model, *numbers)
    vaearr("encode", store, "--run", model)


@pytest.fixture(scope="session")
def trained_template(template: Template, scan_template: Path) -> Path:
    """The scan with a run `vae` over x < 5 um (20 columns), a run `pca`, `grains` and associations."""

    def make(folder: Path) -> None:
        store = shutil.copytree(scan_template, folder / "scan.zarr")
        vaearr("train", store, "--x", "0:5", "--epochs", 6, "--set", "batch_size=64", *TINY)
        vaearr("encode", store)
        linear(store, "pca", 4)
        vaearr("cluster", store, "--method", "kmeans", "--k", 4, "--name", "grains")
        vaearr("associate", store, "--metric", "all")

    return template("trained", make) / "scan.zarr"


@pytest.fixture(scope="session")
def known_template(template: Template, scan_template: Path) -> Path:
    """The scan with a run `theirs` of known latents (`inputs.latents`), analyses, linear runs:
    equal everywhere.
    """

    def make(folder: Path) -> None:
        store = shutil.copytree(scan_template, folder / "scan.zarr")
        np.save(folder / "theirs.npy", inputs.latents())
        run = ("--run", "theirs")
        vaearr("attach", store, folder / "theirs.npy", *run)
        vaearr("associate", store, *run, "--significance", "--set", "significance.n_surrogates=99")
        linear(store, "pca", 4)
        linear(store, "nmf", 3)
        vaearr(
            "cluster",
            store,
            *run,
            "--k",
            3,
            "--name",
            "three",
            "--latent",
            0,
            "--latent",
            1,
            "--latent",
            3,
        )
        vaearr("cluster", store, *run, "--k", 3, "--name", "contrasts", "--feature", "BC")
        vaearr(
            "cluster",
            store,
            *run,
            "--method",
            "dbscan",
            "--name",
            "dense",
            "--latent",
            0,
            "--latent",
            1,
        )

    return template("known", make) / "scan.zarr"


@pytest.fixture(scope="session")
def images_template(template: Template) -> Path:
    """A folder `pictures` of 36 images in three classes and, beside it, the store `images.zarr`
    with a run, encoded.
    """

    def make(folder: Path) -> None:
        store = folder / "images.zarr"
        vaearr("ingest", inputs.image_folder(folder / "pictures"), store)
        vaearr("train", store, "--epochs", 3, *TINY)
        vaearr("encode", store)

    return template("images", make) / "images.zarr"


@pytest.fixture(scope="session")
def volumes_template(template: Template) -> Path:
    """A folder `volumes` of 16 NIfTI files, and the store `volumes.zarr` with a run of spatial
    latents, encoded.
    """
    if not HAS_MONAI:
        pytest.skip(MONAI)

    def make(folder: Path) -> None:
        store = folder / "volumes.zarr"
        source = inputs.volume_folder(folder / "volumes")
        vaearr("ingest", source, store, "--manifest", source / "cohort.csv")
        small = 'model.options={"channels": [8, 8], "groups": 4, "res_blocks": 1, "mid_attention": false}'
        vaearr(
            "train",
            store,
            "--preset",
            "maisi",
            "--epochs",
            2,
            "--set",
            small,
            "--set",
            CRITIC,
            *TINY[4:],
        )
        vaearr("encode", store)

    return template("volumes", make) / "volumes.zarr"


def _copied(template: Path, folder: Path) -> Path:
    return Path(shutil.copytree(template, folder / template.name))


@pytest.fixture
def scan_store(scan_template: Path, tmp_path: Path) -> Path:
    """A copy of `scan_template` to change."""
    return _copied(scan_template, tmp_path)


@pytest.fixture
def trained_store(trained_template: Path, tmp_path: Path) -> Path:
    """A copy of `trained_template` to change."""
    return _copied(trained_template, tmp_path)


@pytest.fixture
def known_store(known_template: Path, tmp_path: Path) -> Path:
    """A copy of `known_template` to change."""
    return _copied(known_template, tmp_path)


@pytest.fixture
def images_store(images_template: Path, tmp_path: Path) -> Path:
    """A copy of the store of `images_template` to change."""
    return _copied(images_template, tmp_path)


@pytest.fixture
def volumes_store(volumes_template: Path, tmp_path: Path) -> Path:
    """A copy of the store of `volumes_template` to change."""
    return _copied(volumes_template, tmp_path)
