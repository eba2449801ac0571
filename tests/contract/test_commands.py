"""Commands as a user meets them: what they print, one line for each mistake with its exit code,
signals, help.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import numpy as np
import pytest

import vaearr as va

from .harness import TINY, command, tree, vaearr, zarr


def test_info_in_words_and_for_programs(trained_template: Path) -> None:
    text = vaearr("info", trained_template).out
    for words in (
        "scan of 17 y x 22 x",
        "20 x 20 uint8",
        "band contrast",
        "elements: Fe",
        "vae: conv, 3 latent",
        "encoded",
    ):
        assert words in text
    facts = json.loads(vaearr("info", trained_template, "--json").out)
    assert facts["trained"]["vae"]["encoded"] is True


def test_stores_below_a_folder_are_listed(trained_template: Path, tmp_path: Path) -> None:
    folder = trained_template.parent
    rows = json.loads(vaearr("list", folder, "--json").out)
    row = next(row for row in rows if row["store"] == str(trained_template))
    assert row["runs"]["vae"] == "trained, encoded"
    assert "17 y x 22 x, patterns of 20 x 20 uint8" in row["contents"]
    assert f"{trained_template}: {row['contents']}; runs: " in vaearr("list", folder).out
    assert "no store below" in vaearr("list", tmp_path).err
    assert "no folder" in vaearr("list", tmp_path / "none", code=66).error


def test_a_store_that_cannot_be_read_is_listed_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    assert "a.zarr: cannot be read: " in vaearr("list", tmp_path).out


def test_doctor_reports_the_machine() -> None:
    lines = vaearr("doctor").out.splitlines()
    assert [line.partition(":")[0] for line in lines[:5]] == [
        *("versions", "system", "device", "threads", "free disk space here"),
    ]
    assert all(line.startswith("not installed: ") for line in lines[5:])


def test_steps_end_with_a_summary_and_the_next_command(trained_store: Path) -> None:
    commands: dict[str, tuple[tuple[object, ...], str, str]] = {
        "associate": (("--metric", "all", "--name", "first"), "strongest latent", "cluster"),
        "probe": (("--target", "BC", "--set", "n_permutations=0"), "balanced accuracy", "report"),
        "cluster": (("--k", 3, "--name", "three"), "3 clusters of", "report"),
        "reconstruct": ((), "means over n = ", "report"),
        "encode": ((), "", "associate"),
    }
    for name, (options, words, next_command) in commands.items():
        done = vaearr(name, trained_store, *options)
        assert words in done.out, name
        assert len(done.out.splitlines()) <= 10, name
        assert f"next: 'vaearr {next_command} {trained_store}" in done.err.splitlines()[-1], name
    table = zarr(trained_store, "runs/vae/association_first").association
    lines = vaearr("associate", trained_store, "--name", "first", "--metric", "all").out
    (row,) = (line.split() for line in lines.splitlines() if line.split()[0] == "BC")
    values = table.sel(metric="pearson", target="BC").values
    strongest = int(np.argmax(np.abs(values)))
    assert row[1:4] == ["latent", str(strongest), f"{values[strongest]:+.3f}"]
    records = json.loads(
        vaearr("associate", trained_store, "--name", "first", "--metric", "all", "--json").out
    )
    assert len(records) == table.size


def test_associate_lists_the_first_ranks(trained_store: Path) -> None:
    words = ("--run", "pca", "--target", "Fe", "--reference", "grains", "--top", 3)
    text = vaearr("associate", trained_store, *words).out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "metric target latent association tied" in lines
    assert any(line.startswith("pearson Fe ") for line in lines)
    assert "k_reference = 4" in text
    assert "reference_name = grains" in text


def test_the_roi_counts_what_each_condition_leaves_out(scan_store: Path) -> None:
    options = ("--x", "2:9", "--where", "BC > 90", "--model", "pca", "--latent-dim", 2)
    lines = vaearr("train", scan_store, *options).err.splitlines()
    ds = zarr(scan_store)
    is_inside = (ds.x >= 2) & (ds.x < 9)
    (line,) = (line for line in lines if line.startswith("ROI: "))
    assert f"2 <= x < 9: {int((~is_inside).sum()) * ds.sizes['y']}" in line
    assert f"BC > 90: {int((~(ds.BC > 90)).sum())}" in line
    assert f"ROI: {int(zarr(scan_store).roi.sum())} of {ds.BC.size} points" in line


@pytest.mark.slow
def test_progress_is_one_line_below_the_log(scan_store: Path) -> None:
    """In a terminal of 80 columns: log lines are complete, the line of progress vanishes."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    words = command("train", scan_store, "--epochs", 3, *TINY)
    with subprocess.Popen(words, stdout=terminal, stderr=terminal, close_fds=True) as process:
        os.close(terminal)
        received = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while block := os.read(controller, 4096):
                received += block
    os.close(controller)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", received.decode()).replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines()]
    assert any("epoch 3/3, loss " in line and "validation" in line for line in lines)
    assert any(line.startswith("training conv (") for line in lines)
    progress = [line for line in lines if "━" in line]
    assert progress
    assert max(map(len, progress)) <= 80
    assert not [line for line in progress if "training conv" in line or "ROI" in line]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["ingest", "nowhere.h5", "out.zarr"], 66, "nowhere.h5"),
        (["ingest", "{files}/scan.h5", "{store}"], 73, "already exists"),
        (["ingest", "{files}/elements.csv", "out.zarr"], 65, "elements.csv"),
        (["ingest", "{files}/scan.h5", "out.zarr", "--set", "images=pictures"], 65, "pictures"),
        (
            ["ingest", "{files}/scan.h5", "out.zarr", "--bc", "{files}/elements.csv"],
            65,
            "elements.csv",
        ),
        (["ingest", "{files}/scan.h5", "out.zarr", "--map", "BC"], 2, "not NAME=VALUE"),
        (
            ["ingest", "{files}/scan.h5", "out.zarr", "--set", "imagse=a"],
            2,
            "Did you mean 'images'",
        ),
        (
            ["ingest", "{files}/scan.h5", "out.zarr", "--map", "a=1.csv", "--map", "a=2.csv"],
            2,
            "a is given twice",
        ),
        (
            ["ingest", "{files}/scan.h5", "out.zarr", "--map", "BC=1.csv", "--bc", "2.csv"],
            2,
            "the same map",
        ),
        (["info", "out.zarr"], 66, "there is no store"),
        (["info", "{files}"], 65, "not a zarr v3 store"),
        (["train", "{store}"], 73, "already has a run 'vae'"),
        (["train", "{store}", "--run", "a/b"], 2, "cannot name a run"),
        (["train", "{store}", "--run", "b", "--where", "BC > 900"], 65, "the ROI is empty"),
        (["train", "{store}", "--run", "b", "--x", "3"], 2, "not START:STOP"),
        (["train", "{store}", "--run", "b", "--x", "3:1"], 2, "give start < stop"),
        (["train", "{store}", "--run", "b", "--set", "epochs=none"], 2, "--epochs: a whole number"),
        (["train", "{store}", "--run", "b", "--config", "none.json"], 2, "no settings file"),
        (
            ["train", "{store}", "--run", "b", "--config", "."],
            2,
            "cannot be read as a settings file: Is a directory",
        ),
        (
            ["train", "{store}", "--run", "b", "--config", "list.json"],
            2,
            "holds a JSON list; settings are an object",
        ),
        (
            [
                "train",
                "{store}",
                "--run",
                "b",
                "--set",
                "model=conv",
                "--set",
                "model.latent_dim=3",
            ],
            2,
            "'model' is set to 'conv' already",
        ),
        (["encode", "{store}", "--config", "b.json"], 66, "no run 'b'"),
        (["associate", "{store}", "--config", "b.json", "--run", "c"], 66, "no run 'c'"),
        (["associate", "{store}", "--metric", "persaon"], 2, "pearson"),
        (["associate", "{store}", "--target", "Band contrast"], 66, "Did you mean 'BC'"),
        (["associate", "{store}", "--reference", "phas"], 66, "Did you mean 'phase'"),
        (["cluster", "{store}", "--method", "kmean", "--name", "c"], 2, "Did you mean 'kmeans'"),
        (["cluster", "{store}", "--feature", "BCC", "--name", "c"], 66, "Did you mean 'BC'"),
        (["cluster", "{store}", "--k", "3", "--name", "grains"], 73, "choose another name"),
        (["attach", "{store}", "none.npy", "--run", "b"], 66, "none.npy"),
        (["attach", "{store}", "{files}/elements.csv"], 2, "run="),
        (["export", "{store}", "out.zarr", "--format", "xls"], 2, "no format is named 'xls'"),
        (["look", "contrast", "{store}", "--map", "BCC"], 66, "Did you mean 'BC'"),
        (["look", "contrast", "{store}", "--keep", "kept.csv"], 2, "give one of them"),
        (
            ["train", "{store}", "--run", "b", "--x", "1:2", "--points", "kept.csv"],
            2,
            "leave out --x",
        ),
        (["ingest", "{files}/scan.h5", "out.zarr", "--nav-shape", "3"], 2, "not ROWSxCOLUMNS"),
        (["report", "{store}", "--run", "b"], 66, "no run 'b'"),
        (["report", "{store}", "--out", "{files}"], 73, ""),
        (["flarn"], 2, "No such command 'flarn'"),
        (["train", "{store}", "--nosuch", "1"], 2, "No such option '--nosuch'"),
        (["train"], 2, "Missing argument"),
        (["settings", "trian"], 2, "Did you mean 'train'"),
        (["look", "traverse", "{store}", "--steps", "many"], 2, "--steps"),
        (["look", "traverse", "{store}", "--steps", "1"], 2, "--steps"),
        (["look", "traverse", "{store}", "--unit", "sd"], 2, "Did you mean 'std'"),
        (["info", "{files}/scan.h5"], 65, "'vaearr ingest"),
        (["train", "{store}", "--run", "b", "--epochs", "0"], 2, "--epochs: a value of 1 or more"),
        (["train", "{store}", "--run", "b", "--precision", "f8"], 2, "--precision: 'auto', "),
        (
            ["train", "{store}", "--run", "b", "--set", "objective.beta=x"],
            2,
            "--set objective.beta: a number is expected",
        ),
        (["train", "{store}", "--run", "b", "--set", "objectve=x"], 2, "no setting 'objectve'"),
        (["associate", "{store}", "--target", "nickel"], 66, "Did you mean 'Ni'"),
        (["look", "scatter", "{store}", "--seed", "-1"], 2, "--seed"),
    ],
    ids=lambda v: "-".join(map(str, v))[:50] if isinstance(v, list) else "",
)
def test_errors_are_one_line_with_a_code(
    trained_template: Path,
    scan_files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    code: int,
    message: str,
) -> None:
    before, folder = tree(trained_template), scan_files["patterns"].parent
    listing = sorted(folder.iterdir())
    (tmp_path / "b.json").write_text('{"run": "b"}')
    (tmp_path / "list.json").write_text("[1, 2]")
    monkeypatch.chdir(tmp_path)
    done = vaearr(*[part.format(files=folder, store=trained_template) for part in args], code=code)
    assert message in done.error
    assert not re.search(r"\w=\S+ \(--", done.error), "an option is named as in Python, too"
    assert tree(trained_template) == before
    assert sorted(folder.iterdir()) == listing
    assert not (tmp_path / "out.zarr").exists()


def test_python_says_what_a_command_prints(trained_template: Path) -> None:
    found = va.load_run(trained_template).traverse(0, steps=3)
    done = vaearr("look", "traverse", trained_template, "--dim", 0, "--steps", 3)
    warnings = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert va.describe(found) == done.out.splitlines() + warnings


def test_debug_shows_where_it_came_from(tmp_path: Path) -> None:
    done = subprocess.run(
        command("info", tmp_path / "none.zarr", "--debug"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" in done.stderr
    assert "NoInputError" in done.stderr


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_signals_end_a_training_cleanly(
    trained_store: Path, number: int, code: int, word: str
) -> None:
    before = tree(trained_store)
    words = command(
        "train", trained_store, "--run", "s", "--epochs", 100_000, "--set", "patience=100000", *TINY
    )
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert any("training conv" in line for line in process.stderr)  # it has begun
            time.sleep(0.5)
            os.kill(process.pid, number)
            process.wait(30)
        finally:
            process.kill()
        rest = process.stderr.read()
    assert process.returncode == code, rest
    assert "Traceback" not in rest
    said = f"vaearr: {word}; nothing unfinished was published, run the same command again"
    assert rest.splitlines()[-1] == said
    assert rest.count("vaearr:") == 1
    assert tree(trained_store) == before


def test_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command stands in the help and has its own."""
    monkeypatch.setenv("COLUMNS", "200")
    text = vaearr("--help").out
    for name in (
        "demo",
        "ingest",
        "info",
        "train",
        "encode",
        "associate",
        "cluster",
        "report",
        "verify",
    ):
        assert f" {name} " in text
        assert vaearr(name, "--help").out
    words = " ".join(vaearr("train", "--help").out.split())
    assert "that of the run 'vae' if there is one, else every measured point" in words
