"""The command line as a user meets it: whole path, one-line errors, exit codes, store untouched."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from vaearr import cli
from vaearr.testing import synthetic_scan, write_scan_files

from .store.test_store import tree_hash

TINY = ["--set", 'model.options={"width": 8, "hidden": 16}', "--set", "model.latent_dim=3", "--epochs", "2"]


def vaearr(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Run the command; never raises."""
    command = [str(Path(sys.executable).with_name("vaearr")), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    scan = synthetic_scan(nx=14, ny=11, pattern_shape=(16, 16), n_grains=5)
    return write_scan_files(scan, tmp_path_factory.mktemp("files"), order="shuffled")


@pytest.fixture(scope="module")
def store(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store made, trained, encoded, associated and reported by the commands."""
    path = tmp_path_factory.mktemp("cli") / "scan.zarr"
    maps = ["--bc", files["BC"], "--elements", files["elements"], "--phases", files["phase"]]
    commands = [
        ["ingest", files["patterns"], path, *maps, "--phase", "0=austenite", "--step", "0.25"],
        ["train", path, "--x", "0:3", "--where", "BC > 20", *TINY],
        ["encode", path],
        ["embed", path, "--components", "3"],
        ["associate", path, "--metric", "all", "--significance", "--set", "significance.n_surrogates=19"],
        ["cluster", path, "--method", "kmeans", "--k", "3", "--feature", "latents", "--feature", "BC"],
        ["report", path, "--out", path.parent / "report"],
    ]
    for command in commands:
        done = vaearr(*command)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    return path


def test_the_store_holds_everything(store: Path) -> None:
    ds = xr.open_zarr(store)
    wanted = {"patterns", "BC", "elements", "phase", "roi", "split", "latents", "latents_std", "reconstruction_error"}
    wanted |= {"pca", "pca_components", "clusters"}
    assert wanted <= set(ds.data_vars)
    assert ds.x.attrs["units"] == "um"
    assert float(ds.x[1] - ds.x[0]) == pytest.approx(0.25)
    assert (store.parent / "report" / "index.html").exists()


def test_info_in_words_and_for_programs(store: Path) -> None:
    text = vaearr("info", store).stdout
    for words in (
        "scan of 11 y x 14 x",
        "16 x 16 uint8",
        "band contrast",
        "elements: Fe",
        "vae: conv, 3 latent",
        "encoded",
    ):
        assert words in text
    facts = json.loads(vaearr("info", store, "--json").stdout)
    assert facts["trained"]["vae"]["encoded"] is True


def test_associate_prints_the_first_ranks(store: Path) -> None:
    text = vaearr("associate", store).stdout
    assert "BC" in text
    assert "pearson" in text
    text = vaearr("associate", store, "--variable", "pca", "--target", "Fe", "--reference", "clusters").stdout
    assert text.startswith("Fe  pearson: latent")
    assert "groups of clusters (k = 3)" in text


def test_ways_out_and_in(store: Path, tmp_path: Path) -> None:
    own = tmp_path / "scan.zarr"
    shutil.copytree(store, own)
    for command in (
        ["export", own, tmp_path / "csv", "--format", "csv", "--variable", "BC"],
        ["export", own, tmp_path / "npy", "--format", "npy"],
        ["attach", own, tmp_path / "csv" / "latents.csv", "--run", "again", "--prefix", "latent_"],
        ["attach", own, tmp_path / "npy" / "latents_full.npy", "--run", "third"],
        ["contrast", own, "--row", "1", "--where", "BC > 60", "--keep", tmp_path / "kept.csv"],
        ["train", own, "--run", "kept", "--points", tmp_path / "kept.csv", *TINY],
    ):
        done = vaearr(*command)
        assert done.returncode == 0, (command, done.stderr)
    ds = xr.open_zarr(own)
    for name in ("latents_again", "latents_third"):
        np.testing.assert_allclose(ds[name].values, ds["latents"].values, rtol=1e-6)
    assert int(ds["roi_kept"].sum()) == int((ds["BC"] > 60).where(ds["present"], False).sum())


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["ingest", "nowhere.h5", "out.zarr"], 66, "nowhere.h5"),
        (["ingest", "{files}/scan.h5", "{store}"], 73, "already exists"),
        (["ingest", "{files}/elements.csv", "out.zarr"], 65, "elements.csv"),
        (["ingest", "{files}/scan.h5", "out.zarr", "--set", "images=pictures"], 65, "pictures"),
        (["ingest", "{files}/scan.h5", "out.zarr", "--bc", "{files}/elements.csv"], 65, "elements.csv"),
        (["ingest", "{files}/scan.h5", "out.zarr", "--map", "BC"], 2, "not NAME=VALUE"),
        (["ingest", "{files}/scan.h5", "out.zarr", "--set", "imagse=a"], 2, "Did you mean 'images'"),
        (["ingest", "{files}/scan.h5", "out.zarr", "--map", "a=1.csv", "--map", "a=2.csv"], 2, "a is given twice"),
        (["ingest", "{files}/scan.h5", "out.zarr", "--map", "BC=1.csv", "--bc", "2.csv"], 2, "the same map"),
        (["ingest", "{files}/scan.h5", "out.zarr", "--phase", "0=a", "--phase", "0=b"], 2, "0 is given twice"),
        (["ingest", "{files}/scan.h5", "out.zarr", "--set", "step=1", "--set", "step=2"], 2, "step is given twice"),
        (["info", "out.zarr"], 66, "there is no store"),
        (["info", "{files}"], 65, "not a zarr v3 store"),
        (["train", "{store}"], 73, "already has a run 'vae'"),
        (["train", "{store}", "--run", "a/b"], 2, "cannot name a run"),
        (["train", "{store}", "--run", "b", "--where", "BC > 900"], 65, "the ROI is empty"),
        (["train", "{store}", "--run", "b", "--x", "3"], 2, "not START:STOP"),
        (["train", "{store}", "--run", "b", "--x", "3:1"], 2, "give start < stop"),
        (["train", "{store}", "--run", "b", "--set", "epochs=none"], 2, "TrainConfig.epochs"),
        (["train", "{store}", "--run", "b", "--config", "none.json"], 2, "no settings file"),
        (["train", "{store}", "--run", "b", "--config", "."], 2, "cannot be read as a settings file: Is a directory"),
        (["train", "{store}", "--run", "b", "--config", "list.json"], 2, "holds a JSON list; settings are an object"),
        (
            ["train", "{store}", "--run", "b", "--set", "model=conv", "--set", "model.latent_dim=3"],
            2,
            "'model' is set to 'conv' already",
        ),
        (["encode", "{store}", "--config", "b.json"], 66, "no run 'b'"),
        (["associate", "{store}", "--config", "b.json"], 66, "no run 'b'"),
        (["report", "{store}", "--config", "b.json"], 66, "no run 'b'"),
        (["encode", "{store}", "--config", "b.json", "--run", "c"], 66, "no run 'c'"),
        (["associate", "{store}", "--config", "b.json", "--run", "c"], 66, "no run 'c'"),
        (["report", "{store}", "--config", "b.json", "--run", "c"], 66, "no run 'c'"),
        (["encode", "{store}", "--run", "b"], 66, "no run 'b'"),
        (["associate", "{store}", "--run", "b"], 66, "no run 'b'"),
        (["associate", "{store}", "--metric", "persaon"], 2, "pearson"),
        (["associate", "{store}", "--target", "Fee"], 66, "Did you mean 'Fe'"),
        (["associate", "{store}", "--variable", "pcaa"], 66, "Did you mean 'pca'"),
        (["associate", "{store}", "--reference", "phas"], 66, "Did you mean 'phase'"),
        (["cluster", "{store}", "--method", "kmean", "--name", "c"], 2, "Did you mean 'kmeans'"),
        (["cluster", "{store}", "--feature", "BCC", "--name", "c"], 66, "Did you mean 'BC'"),
        (["cluster", "{store}", "--k", "4"], 73, "choose another name"),
        (["embed", "{store}", "--components", "4"], 73, "choose another name"),
        (["embed", "{store}", "--method", "nmf", "--endmember", "3"], 2, "not X:Y"),
        (["attach", "{store}", "none.npy", "--run", "b"], 66, "none.npy"),
        (["attach", "{store}", "{files}/elements.csv"], 2, "run="),
        (["export", "{store}", "out.zarr", "--format", "xls"], 2, "no format is named 'xls'"),
        (["contrast", "{store}", "--map", "BCC"], 66, "Did you mean 'BC'"),
        (["contrast", "{store}", "--keep", "kept.csv"], 2, "give one of them"),
        (["train", "{store}", "--run", "b", "--x", "1:2", "--points", "kept.csv"], 2, "leave out --x"),
        (["ingest", "{files}/scan.h5", "out.zarr", "--nav-shape", "3"], 2, "not ROWSxCOLUMNS"),
        (["report", "{store}", "--run", "b"], 66, "no run 'b'"),
        (["report", "{store}", "--out", "{files}"], 73, ""),
        (["flarn"], 2, "flarn"),
    ],
    ids=lambda v: "-".join(map(str, v))[:50] if isinstance(v, list) else "",
)
def test_errors_are_one_line_with_a_code(
    store: Path, files: dict[str, Path], tmp_path: Path, args: list[str], code: int, message: str
) -> None:
    before, folder = tree_hash(store), files["patterns"].parent
    listing = sorted(folder.iterdir())
    (tmp_path / "b.json").write_text('{"run": "b"}')
    (tmp_path / "list.json").write_text("[1, 2]")
    done = vaearr(*[a.format(files=folder, store=store) for a in args], cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    if args != ["flarn"]:
        assert done.stderr.strip().count("\n") == 0, done.stderr
    assert tree_hash(store) == before
    assert sorted(folder.iterdir()) == listing
    assert not (tmp_path / "out.zarr").exists()


def test_debug_shows_where_it_came_from(tmp_path: Path) -> None:
    done = vaearr("info", tmp_path / "none.zarr", "--debug")
    assert "Traceback" in done.stderr
    assert "NoInputError" in done.stderr


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """`main` with an app that raises the given error; gives the exit code."""
    handlers = {number: signal.getsignal(number) for number in cli.STOPS}

    def run(error: BaseException, *options: str) -> int:
        def app() -> None:
            raise error

        monkeypatch.setattr(cli, "app", app)
        monkeypatch.setattr(sys, "argv", ["vaearr", *options])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert isinstance(stop.value.code, int)
        return stop.value.code

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a.csv"), 66, "cannot read/write a.csv: No such file"),
        (PermissionError(errno.EACCES, "Permission denied", "a.csv"), 74, "cannot read/write a.csv: Permission denied"),
        (OSError("truncated\nfile"), 74, "cannot read/write: truncated file"),
        (KeyError("x"), 70, "internal error: KeyError: 'x'; run again with --debug and report it"),
    ],
    ids=["not there", "not allowed", "without a path", "our mistake"],
)
def test_unforeseen_errors_are_one_line(
    run_main: Callable[..., int], capsys: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    assert run_main(error) == code
    assert capsys.readouterr().err == f"vaearr: {line}\n"
    assert run_main(error, "--debug") == code
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith(f"vaearr: {line}\n")


def test_help_says_whose_roi_a_second_run_gets() -> None:
    text = " ".join(vaearr("train", "--help").stdout.split())
    assert "that of the run 'vae' if there is one, else every measured point" in text


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_end_a_training_cleanly(store: Path, number: int, code: int, word: str) -> None:
    before = tree_hash(store)
    command = [str(Path(sys.executable).with_name("vaearr")), "train", str(store), "--run", "s"]
    with subprocess.Popen([*command, *TINY[:-1], "100000"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("training conv" in line for line in process.stderr)  # it has begun
        time.sleep(0.5)
        os.kill(process.pid, number)
        process.wait(30)
        rest = process.stderr.read()
    assert process.returncode == code, rest
    assert "Traceback" not in rest
    said = f"vaearr: {word}; nothing unfinished was published, run the same command again"
    assert rest.splitlines()[-1] == said
    assert rest.count("vaearr:") == 1
    assert tree_hash(store) == before


def test_every_command_stands_in_one_section_of_the_help() -> None:
    from typer.main import get_command

    from vaearr.cli import app
    from vaearr.cli.common import SECTIONS

    command = get_command(app)
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(command.commands)  # type: ignore[attr-defined]


def test_help_is_quick_and_complete() -> None:
    began = time.perf_counter()
    text = vaearr("--help").stdout
    assert time.perf_counter() - began < 5  # the target is 1 s; a loaded machine may be slow
    for command in ("demo", "ingest", "info", "train", "encode", "associate", "report"):
        assert command in text
        assert vaearr(command, "--help").returncode == 0
