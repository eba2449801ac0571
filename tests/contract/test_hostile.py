"""Files and settings that mean harm, or nothing: refused at once, in one line, with nothing run and nothing written."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vaearr as va

from . import inputs
from .harness import BAD_DATA, BUSY, OK, USAGE, tree, vaearr

SECONDS = 60


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """What waits for ever, or walks in circles, ends in an error."""

    def over(number: int, frame: object) -> None:
        raise TimeoutError("it takes for ever")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 32 24
%%EndComments
0.5 setgray 0 0 32 24 rectfill
showpage
"""


def test_no_program_is_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript under the name of an image would be given to Ghostscript, a program that can do anything."""
    folder, points = inputs.image_folder(tmp_path / "pictures", each=2), tmp_path / "points"
    (folder / "disc" / "00.png").write_bytes(EPS)
    points.mkdir()
    for i in range(4):
        shutil.copy(folder / "bar" / "00.png", points / f"{i % 2}_{i // 2}.png")
    (points / "1_1.png").write_bytes(EPS)
    binaries, ran = tmp_path / "bin", tmp_path / "ran"
    binaries.mkdir()
    for name in ("gs", "gswin32c"):
        (binaries / name).write_text(f"#!/bin/sh\ntouch {ran}\nexit 1\n")
        (binaries / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    for source in (folder, points):
        said = vaearr("ingest", source, tmp_path / "new.zarr", code=BAD_DATA).error
        assert ".png" in said
        assert not (tmp_path / "new.zarr").exists()
    assert not ran.exists()
    assert subprocess.run(["gs"], check=False).returncode == 1  # it would have been found
    assert ran.exists()


def test_links_in_a_store_lead_nowhere(trained_store: Path, tmp_path: Path) -> None:
    """A chunk, a folder of chunks or a variable that is a link: its bytes come out of no reader."""
    for place in ("BC/c/0/0", "BC", "patterns/c/0/0/0/0", "patterns/c"):
        store = Path(shutil.copytree(trained_store, tmp_path / "linked" / "scan.zarr"))
        shutil.move(store / place, tmp_path / "elsewhere")
        (store / place).symlink_to(tmp_path / "elsewhere")
        variable = place.split("/")[0]
        with pytest.raises(ValueError, match="symbolic link"):
            va.open_store(store, chunks=None)[variable].values  # noqa: B018
        if variable == "BC":
            assert "symbolic link" in vaearr("export", store, tmp_path / "out", code=BAD_DATA).error
            assert not (tmp_path / "out").exists()
        assert "symbolic link" in vaearr("verify", store, code=BAD_DATA).out
        shutil.rmtree(tmp_path / "linked")
        shutil.move(tmp_path / "elsewhere", tmp_path / place.replace("/", "-"))


def test_links_in_circles(scan_store: Path) -> None:
    for name in ("a", "b"):
        (scan_store / name).symlink_to(".")
    done = vaearr("verify", scan_store, code=BAD_DATA)
    assert {line.split(":")[1].strip() for line in done.out.splitlines() if "symbolic link" in line} >= {"a", "b"}
    np.save(scan_store.parent / "m.npy", np.ones((inputs.NY, inputs.NX)))
    vaearr("attach", scan_store, scan_store.parent / "m.npy", "--kind", "map", "--name", "m")
    assert "m" in va.open_store(scan_store)


@pytest.mark.parametrize(("name", "kind"), [("config.json", "pipe"), ("weights.safetensors", "link")])
def test_files_of_a_model_are_files(trained_store: Path, tmp_path: Path, kind: str, name: str) -> None:
    file = trained_store / "runs" / "vae" / "model" / name
    shutil.move(file, tmp_path / "elsewhere")
    os.mkfifo(file) if kind == "pipe" else file.symlink_to(tmp_path / "elsewhere")
    assert f"runs/vae/model/{name}" in vaearr("verify", trained_store, code=BAD_DATA).out
    vaearr("look", "sample", trained_store, "--out", tmp_path / "drawn.png", code=BAD_DATA)
    assert not (tmp_path / "drawn.png").exists()


def deep(levels: int = 100_000) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def test_verify_has_a_word_for_any_metadata(trained_store: Path) -> None:
    for file in ("runs/vae/model/config.json", "runs/vae/zarr.json", "zarr.json"):
        good = (trained_store / file).read_bytes()
        for content in (deep(), "null"):
            (trained_store / file).write_text(content)
            assert file in vaearr("verify", trained_store, code=BAD_DATA).out
        (trained_store / file).write_bytes(good)


def test_verify_has_a_word_for_a_manifest_of_another_kind(trained_store: Path) -> None:
    for file in ("runs/vae/zarr.json", "zarr.json"):
        about = json.loads((trained_store / file).read_bytes())
        own = about["consolidated_metadata"]["metadata"]["runs/vae"] if file == "zarr.json" else about
        own["attributes"]["data"] = []
        (trained_store / file).write_text(json.dumps(about))
    vaearr("verify", trained_store, code=BAD_DATA)


@pytest.mark.parametrize(
    "settings",
    [
        "[" * 100_000,
        '{"epochs": 1' + "0" * 400 + "}",
        f'{{"seed": {2**70}}}',
        '{"preprocess": ' + deep() + "}",
    ],
    ids=["nested", "digits", "seed", "nested-setting"],
)
def test_settings_that_cannot_be_meant(scan_template: Path, tmp_path: Path, settings: str) -> None:
    (tmp_path / "settings.json").write_text(settings)
    said = vaearr("train", scan_template, "--config", tmp_path / "settings.json", code=USAGE).error
    assert len(said) < 500
    assert not (scan_template.parent / ".scan.zarr.staging").exists()


def _long_field(file: Path) -> None:
    file.write_text('x,y,BC\n0,0,"' + "1" * 200_000 + '"\n')


def _many_columns(file: Path) -> None:
    file.write_text(",".join(["x", "y", *(f"c{i}" for i in range(40_000))]) + "\n" + ",".join("1" * 40_002) + "\n")


@pytest.mark.parametrize("write", [_long_field, _many_columns])
def test_tables_that_are_none(scan_files: dict[str, Path], tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "bc.csv")
    vaearr("ingest", scan_files["patterns"], tmp_path / "new.zarr", "--bc", tmp_path / "bc.csv", code=BAD_DATA)
    assert not (tmp_path / "new.zarr").exists()


def _npy(header: str) -> bytes:
    data = header.encode()
    return b"\x93NUMPY\x02\x00" + len(data).to_bytes(4, "little") + data


NESTED = "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 4_000 + ")" * 4_000 + ", }\n"


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_that_are_none(scan_template: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"values{suffix}"
    if suffix == ".npz":
        import zipfile

        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x.npy", _npy(NESTED))
    else:
        file.write_bytes(_npy(NESTED))
    before = tree(scan_template)
    vaearr("attach", scan_template, file, "--kind", "map", "--name", "m", code=BAD_DATA)
    if suffix == ".npz":
        vaearr("ingest", file, tmp_path / "new.zarr", code=BAD_DATA)
    assert tree(scan_template) == before


def test_numbers_that_no_store_holds(tmp_path: Path) -> None:
    """Patterns of 16-byte floats, which zarr has no name for."""
    import h5py

    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["images"] = np.zeros((6, 1, 4, 4), np.longdouble)
        file["coords"] = np.stack([np.arange(6) % 3, np.arange(6) // 3], 1).astype("int32")
    said = vaearr("ingest", tmp_path / "scan.h5", tmp_path / "new.zarr", code=BAD_DATA).error
    assert "float128" in said
    assert not (tmp_path / "new.zarr").exists()


def test_chunks_of_no_length(trained_store: Path) -> None:
    grid: dict[str, Any] = {"name": "regular", "configuration": {"chunk_shape": [0, 0]}}
    for file in ("BC/zarr.json", "zarr.json"):
        about = json.loads((trained_store / file).read_bytes())
        own = about["consolidated_metadata"]["metadata"]["BC"] if file == "zarr.json" else about
        own["chunk_grid"] = grid
        (trained_store / file).write_text(json.dumps(about))
    for command in (("verify",), ("look contrast",), ("export", trained_store.parent / "out")):
        vaearr(*str(command[0]).split(), trained_store, *command[1:], code=BAD_DATA)


def test_a_safetensors_header_in_itself(trained_store: Path, tmp_path: Path) -> None:
    header = deep(20_000).encode()
    file = tmp_path / "weights.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    assert vaearr("train", trained_store, "--run", "b", "--epochs", 1, "--resume", file, code=None).code != OK


def test_a_small_file_that_becomes_a_large_one(tmp_path: Path) -> None:
    """Zeros, packed a thousandfold: refused by its header, before anything is unpacked."""
    import nibabel

    folder = inputs.volume_folder(tmp_path / "volumes", 2)
    header = nibabel.Nifti1Header()
    header.set_data_shape((700, 700, 700))
    header.set_data_dtype(np.uint8)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(folder / "v00.nii.gz", "wb", 1) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(70):
            file.write(bytes(4_900_000))
    said = vaearr("ingest", folder, tmp_path / "new.zarr", code=BAD_DATA).error
    assert "v00.nii.gz" in said
    assert "gunzip" in said


def test_a_lock_that_somebody_removed_still_holds(trained_store: Path) -> None:
    vaearr("verify", trained_store, "--remove", "latents")
    tried = []

    def meanwhile(done: int, total: int, text: str) -> None:
        for file in trained_store.parent.glob(".scan.zarr*lock*"):
            file.unlink()
        tried.append(vaearr("encode", trained_store, code=BUSY).error)

    va.encode(trained_store, progress=meanwhile)
    assert tried
    assert "is being written" in tried[0]
    vaearr("verify", trained_store)
