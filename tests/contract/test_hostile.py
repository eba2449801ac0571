"""Files and settings that mean harm, or nothing: refused at once, in one line, with nothing run and
nothing written.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import subprocess
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

import vaearr as va

from . import inputs
from .harness import BAD_DATA, BUSY, OK, TINY, USAGE, tree, vaearr

pytestmark = pytest.mark.usefixtures("in_time")

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 32 24
%%EndComments
0.5 setgray 0 0 32 24 rectfill
showpage
"""


def test_no_program_is_started_for_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostScript under the name of an image would be given to Ghostscript, a program that can do
    anything.
    """
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


def test_links_in_circles(scan_store: Path) -> None:
    for name in ("a", "b"):
        (scan_store / name).symlink_to(".")
    done = vaearr("verify", scan_store, code=BAD_DATA)
    assert {
        line.split(":")[1].strip() for line in done.out.splitlines() if "symbolic link" in line
    } >= {"a", "b"}
    np.save(scan_store.parent / "m.npy", np.ones((inputs.NY, inputs.NX)))
    vaearr("attach", scan_store, scan_store.parent / "m.npy", "--kind", "map", "--name", "m")
    assert "m" in va.open_store(scan_store)


def deep(levels: int = 100_000) -> str:
    return '{"a":' * levels + "1" + "}" * levels


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


def test_a_safetensors_header_in_itself(trained_store: Path, tmp_path: Path) -> None:
    header = deep(20_000).encode()
    file = tmp_path / "weights.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    assert (
        vaearr(
            "train", trained_store, "--run", "b", "--epochs", 1, "--resume", file, code=None
        ).code
        != OK
    )


def test_a_small_file_that_becomes_a_large_one(tmp_path: Path) -> None:
    """Zeros, packed a thousandfold: refused by its header, before anything is unpacked."""
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
    assert "unpack it first" in said


def test_groups_in_groups(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        small = np.zeros((6, 4, 4), "u1")
        file["images"], file["coords"] = small, np.stack([np.arange(6) % 3, np.arange(6) // 3], 1)
        group = file
        for _ in range(3000):
            group = group.create_group("g")
        file["loop"] = file["g"]  # and a circle
        group["back"] = h5py.SoftLink("/")
    start = time.monotonic()
    assert (
        "nested more than"
        in vaearr("ingest", tmp_path / "deep.h5", tmp_path / "a.zarr", code=BAD_DATA).error
    )
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("name", ["a.npz", "train-images-idx3-ubyte.gz"])
def test_sizes_are_checked_before_anything_is_unpacked(name: str, tmp_path: Path) -> None:
    """400 MB of zeros in a file of less than 1 MB are refused without taking that memory."""
    file, size = tmp_path / name, 400 * 2**20
    if name == "a.npz":
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|u1", "fortran_order": False, "shape": (400, 2**10, 2**10)}
        )
        with (
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("x.npy", "w") as member,
        ):
            member.write(header.getvalue())
            for _ in range(400):
                member.write(bytes(2**20))
    else:
        with gzip.open(file, "wb", 9) as packed:
            packed.write(
                b"\0\0\x08\x03" + b"".join(side.to_bytes(4, "big") for side in (400, 2**10, 2**10))
            )
            for _ in range(400):
                packed.write(bytes(2**20))
    tracemalloc.start()
    said = vaearr("ingest", file, tmp_path / "new.zarr", code=BAD_DATA).error
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert re.search(rf"declares {size}|declares {size + 128}", said), said
    assert peak < size / 4


@pytest.mark.parametrize(
    "condition",
    [
        "not " * 5000 + "BC > 1",
        "-" * 5000 + "1 < BC",
        " and ".join(["BC > 1"] * 3000),
        "not " * 490 + "BC > 1",
        "(" * 900,
    ],
    ids=["not", "minus", "and", "nested", "brackets"],
)
def test_conditions_without_end(condition: str, scan_template: Path) -> None:
    start = time.monotonic()
    options = ("train", scan_template, "--run", "b", "--where", condition, "--epochs", 1, *TINY)
    said = vaearr(*options, code=USAGE).error
    assert len(said) < 500
    assert time.monotonic() - start < 20


def test_messages_stay_short(
    scan_template: Path, scan_files: dict[str, Path], tmp_path: Path
) -> None:
    """A table with thousands of columns is refused in a readable line."""
    names = [f"column_{i}" for i in range(3_000)]
    (tmp_path / "wide.csv").write_text(
        ",".join(["x", "y", *names]) + "\n" + ",".join(["0"] * 3_002) + "\n"
    )
    attach, folder = (
        ("attach", scan_template, tmp_path / "wide.csv"),
        inputs.image_folder(tmp_path / "set", 1),
    )
    for command in (
        (*attach, "--kind", "map", "--name", "m"),
        (*attach, "--kind", "map", "--name", "m", "--column", "column_x"),
        (*attach, "--kind", "map", "--name", "m", "--prefix", "PCA_"),
        (*attach, "--kind", "latents", "--run", "new", "--coords", tmp_path / "wide.csv"),
        ("ingest", scan_files["patterns"], tmp_path / "new.zarr", "--bc", tmp_path / "wide.csv"),
        ("ingest", folder, tmp_path / "new.zarr", "--manifest", tmp_path / "wide.csv"),
    ):
        assert len(vaearr(*command, code=None).error) < 1000


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


class Canary:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_pickles_are_not_run(scan_store: Path, tmp_path: Path) -> None:
    import torch

    canary, new = Canary(tmp_path / "canary"), tmp_path / "new.zarr"
    before = tree(scan_store)
    for name in ("a.pt", "a.pth", "a.ckpt", "a.pkl", "a.safetensors"):
        torch.save({"state_dict": canary}, tmp_path / name)
        for option in (("--set", f"init={tmp_path / name}"), ("--resume", tmp_path / name)):
            assert (
                vaearr(
                    "train", scan_store, "--run", "b", "--epochs", 1, *option, *TINY, code=None
                ).code
                != OK
            )
    np.save(tmp_path / "a.npy", np.array([canary], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([canary], dtype=object))
    for name in ("a.npy", "a.npz"):
        assert vaearr("attach", scan_store, tmp_path / name, "--run", "b", code=None).code != OK
        assert vaearr("ingest", tmp_path / name, new, code=None).code != OK
    assert not canary.path.exists()
    assert not new.exists()
    assert tree(scan_store) == before


def scan_of(images: Callable[[h5py.File, Path], object]) -> Callable[[Path], Path]:
    """An HDF5 scan of 3 x 2 points whose images are made by a function of the file and of a file
    beside it.
    """

    def write(folder: Path) -> Path:
        with h5py.File(folder / "secret.h5", "w") as file:
            file["images"] = np.full((6, 1, 4, 4), 7, "u1")
        with h5py.File(folder / "scan.h5", "w") as file:
            images(file, folder / "secret.h5")
            file["coords"] = np.stack([np.arange(6) % 3, np.arange(6) // 3], 1).astype("i4")
        return folder / "scan.h5"

    return write


def virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout(shape=(6, 1, 4, 4), dtype="u1")
    layout[:] = h5py.VirtualSource(str(secret), "images", shape=(6, 1, 4, 4))
    file.create_virtual_dataset("images", layout)


HUGE: dict[str, Any] = {"shape": (10**6, 1, 800, 800), "dtype": "u1", "chunks": (1, 1, 800, 800)}


def volume_of(shape: tuple[int, ...], name: str) -> Callable[[Path], Path]:
    """A NIfTI file with so large a volume in its header, and 64 bytes."""

    def write(folder: Path) -> Path:
        header = nibabel.Nifti1Header()
        header.set_data_dtype(np.uint8)
        header["dim"][:4], header["pixdim"][:] = (3, *shape), 1
        header["vox_offset"], header["magic"], header["sform_code"] = 352, b"n+1", 1
        header["srow_x"][0] = header["srow_y"][1] = header["srow_z"][2] = 1
        data = header.binaryblock + bytes(4 + 64)
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return folder / name

    return write


def nested_array(name: str) -> Callable[[Path], Path]:
    """Brackets 4000 deep in the header of an array."""

    def write(folder: Path) -> Path:
        shape = "(" * 4_000 + ")" * 4_000
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        data = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header
        if name.endswith(".npy"):
            (folder / name).write_bytes(data)
        else:
            with zipfile.ZipFile(folder / name, "w") as archive:
                archive.writestr("x.npy", data)
        return folder / name

    return write


def text(content: str) -> Callable[[Path], Path]:
    """A table."""

    def write(folder: Path) -> Path:
        (folder / "bc.csv").write_text(content)
        return folder / "bc.csv"

    return write


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.csv")
    return folder / "pipe.csv"


def folder_with_a_pipe(folder: Path) -> Path:
    (folder / "pictures").mkdir()
    os.mkfifo(folder / "pictures" / "a.png")
    return folder / "pictures"


SOURCE, MAP, ATTACHED = (
    "ingest FILE NEW",
    "ingest SCAN NEW --bc FILE",
    "attach STORE FILE --kind map --name m",
)
NOT_A_FILE = "not an ordinary file|no such file"
COLUMNS = (
    ",".join(["x", "y", *(f"c{i}" for i in range(40_000))]) + "\n" + ",".join("1" * 40_002) + "\n"
)
HARM: dict[
    str, tuple[Callable[[Path], Path], str, str]
] = {  # how it is written, who reads it, words of the error
    "a link to another file": (
        scan_of(lambda f, to: f.update(images=h5py.ExternalLink(to, "/images"))),
        SOURCE,
        "",
    ),
    "bytes of another file": (
        scan_of(
            lambda f, to: f.create_dataset(
                "images", (6, 1, 4, 4), "u1", external=[(str(to), 0, 2**20)]
            )
        ),
        *(SOURCE, ""),
    ),
    "a virtual dataset": (scan_of(virtual), SOURCE, ""),
    "640 GB": (
        scan_of(lambda f, to: f.create_dataset("images", compression="gzip", **HUGE)),
        SOURCE,
        "",
    ),
    "16-byte floats": (
        scan_of(lambda f, to: f.update(images=np.zeros((6, 1, 4, 4), "g"))),
        SOURCE,
        "float128",
    ),
    **{
        f"{name} of {shape}": (volume_of(shape, name), SOURCE, "")
        for shape in ((32767, 32767, 32767), (-5, 4, 4), (0, 4, 4))
        for name in ("a.nii", "a.nii.gz")
    },
    "nested npz": (nested_array("a.npz"), SOURCE, ""),
    "nested npy, attached": (nested_array("a.npy"), ATTACHED, ""),
    "a long field": (text('x,y,BC\n0,0,"' + "1" * 200_000 + '"\n'), MAP, ""),
    "many columns": (text(COLUMNS), MAP, ""),
    "a pipe": (pipe, SOURCE, NOT_A_FILE),
    "a device": (lambda folder: Path("/dev/zero"), SOURCE, NOT_A_FILE),
    "a pipe as a volume": (pipe, f"{SOURCE} --set format=nifti", NOT_A_FILE),
    "a pipe as a map": (pipe, MAP, NOT_A_FILE),
    "a pipe as elements": (pipe, "ingest SCAN NEW --elements FILE", NOT_A_FILE),
    "a pipe as orientations": (pipe, "ingest SCAN NEW --orientations FILE", NOT_A_FILE),
    "a pipe in a folder": (folder_with_a_pipe, SOURCE, NOT_A_FILE),
    "a pipe, attached": (pipe, "attach STORE FILE --run other", NOT_A_FILE),
}


@pytest.mark.parametrize("what", HARM)
def test_files_that_lie_lead_out_or_never_end(
    what: str, scan_template: Path, scan_files: dict[str, Path], tmp_path: Path
) -> None:
    write, command, words = HARM[what]
    places = {"FILE": write(tmp_path), "NEW": tmp_path / "new.zarr", "STORE": scan_template}
    places["SCAN"] = scan_files["patterns"]
    before = tree(tmp_path), tree(scan_template)
    said = vaearr(*(places.get(word, word) for word in command.split()), code=BAD_DATA).error
    assert re.search(words, said), said
    assert (tree(tmp_path), tree(scan_template)) == before
    assert not places["NEW"].exists()
