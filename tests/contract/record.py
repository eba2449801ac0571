"""What stores looked like on one day, and what was in them: `recorded/stores.tar.xz` and
`recorded/results.json`.

`python -m tests.contract.record` made both, with the program as it was when stores were of schema
1. Do not make them
anew: they show that stores of that day stay readable and give the same numbers (test_recorded.py).
Code for a later schema goes beside them, into a folder of its own.
"""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
from numpy.typing import NDArray

import vaearr as va

from . import inputs
from .harness import TINY, vaearr, zarr

RECORDED = Path(__file__).parent / "recorded"
NY, NX = 12, 10
STORES = ("scan.zarr", "images.zarr", "volumes.zarr")
LEARN = ("--set", "batch_size=32", "--set", "objective.beta=0.3", "--learning-rate", 0.005, *TINY)
CRITIC = 'objective.adversarial.options={"channels": 4, "layers": 1}'
SMALL = 'model.options={"channels": [4, 4], "groups": 2, "res_blocks": 1, "mid_attention": false}'
Table = dict[str, Any]


def make(folder: Path) -> None:
    """The stores `scan.zarr`, `images.zarr` and `volumes.zarr`, made by commands from files that do
    not stay.
    """
    with contextlib.chdir(folder):
        vaearr(
            "ingest",
            *_scan(Path("files")),
            "--phase",
            "0=ferrite",
            "--phase",
            "1=austenite",
            "--step",
            inputs.STEP,
        )
        vaearr("train", "scan.zarr", "--x", "0:2", "--epochs", 40, *LEARN)
        vaearr("encode", "scan.zarr")
        vaearr("embed", "scan.zarr", "--components", 3)  # a command of that day
        vaearr("cluster", "scan.zarr", "--method", "kmeans", "--k", 4, "--name", "grains")
        vaearr("associate", "scan.zarr", "--metric", "all")
        vaearr("reconstruct", "scan.zarr")
        va.load_run("scan.zarr").statistics(write=True)
        vaearr(
            "ingest",
            inputs.image_folder(Path("pictures"), each=6),
            "images.zarr",
            "--size",
            "16x20",
        )
        vaearr("train", "images.zarr", "--epochs", 30, *LEARN)
        vaearr("encode", "images.zarr")
        vaearr(
            "ingest", _volumes(Path("volumes")), "volumes.zarr", "--manifest", "volumes/cohort.csv"
        )
        spatial = ("--preset", "maisi", "--epochs", 2, "--set", SMALL, "--set", CRITIC, *TINY[4:])
        vaearr("train", "volumes.zarr", *spatial, "--set", "model.latent_dim=2")
        vaearr("encode", "volumes.zarr")


def _scan(folder: Path) -> tuple[object, ...]:
    folder.mkdir()
    rows, columns = (axis.ravel() for axis in np.mgrid[:NY, :NX])
    there = (rows != 3) | (columns != 2)
    rows, columns = rows[there], columns[there]
    with h5py.File(folder / "scan.h5", "w") as file:
        file["images"] = inputs.patterns(16)[rows, columns]
        file["coords"] = np.stack([columns, rows], 1).astype("int32")
    grain = inputs.grains()[rows, columns]
    maps = {
        "--bc": {"Band Contrast": np.round(200 * inputs.quality()[rows, columns]).astype(int)},
        "--elements": {
            "Fe": 70 + 20 * (grain > 1) + rows / 8,
            "Ni": 30 - 20 * (grain > 1) + columns / 8,
        },
        "--phases": {"phase": np.where((rows + columns) % 13 == 0, -1, grain > 1)},
    }
    options: list[object] = []
    for option, values in maps.items():
        path = folder / f"{option[2:]}.csv"
        with path.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["x", "y", *values])
            table.writerows(
                zip(*(column.tolist() for column in (columns, rows, *values.values())), strict=True)
            )
        options += [option, path]
    return folder / "scan.h5", "scan.zarr", *options


def _volumes(folder: Path) -> Path:
    folder.mkdir()
    x, y, z = np.mgrid[:11, :12, :13]
    lines = [("path", "label", "subject")]
    for number in range(16):
        radius = 2.5 + number % 2 + number / 40
        inside = (x - 5) ** 2 + (y - 6) ** 2 + (z - 6) ** 2 < radius**2
        values = np.round(20 + 100 * inside + 3 * np.sin(x * y + number)).astype("uint8")
        nibabel.Nifti1Image(values, inputs.AFFINE).to_filename(folder / f"v{number:02d}.nii.gz")
        lines.append((f"v{number:02d}.nii.gz", ("small", "large")[number % 2], f"s{number // 2}"))
    with (folder / "cohort.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder


# ---- results: what the commands give on these stores, as numbers -----------------------------------------------------


def latents(folder: Path, store: str) -> Table:
    """The stored patterns, encoded by the stored weights: all points, in stored order."""
    values = va.load_model(folder / store).encode(va.open_store(folder / store).patterns)
    return {"latents": np.asarray(values)}


def drawn(folder: Path, store: str) -> Table:
    """Four draws of seed 3 and what they decode to."""
    z = va.load_run(folder / store).sample(n_samples=4, seed=3).latents.values
    return {"z": z, "decoded": np.asarray(va.load_model(folder / store).decode(z))}


def way(folder: Path, method: str) -> Table:
    """The latents between two scan points."""
    ends = {"x": 0.0, "y": 0.0}, {"x": 1.75, "y": 2.5}
    return {
        "z": va.load_run(folder / "scan.zarr")
        .interpolate(*ends, steps=5, method=method)
        .latents.values
    }


def fidelity(folder: Path, store: str, *metrics: str) -> Table:
    """PSNR, SSIM, MSE and MAE of each sample's reconstruction, from the table that the command
    keeps.
    """
    vaearr("reconstruct", folder / store, "--name", "again")
    kept = zarr(folder / store, "runs/vae/again")
    return {name: kept[name].values[np.isfinite(kept[name].values)] for name in metrics}


def layers(folder: Path, out: Path) -> Table:
    """How far two scan points are apart at each layer, in the order in which layers are run."""
    vaearr(
        "look",
        "layers",
        folder / "scan.zarr",
        "--a",
        "0:0",
        "--b",
        "1.75:2.5",
        "--out",
        out / "layers",
    )
    file = out / "layers" / "layers.csv"
    return {
        name: read_csv(file, name, exact=True)[:, 0]
        for name in ("l2", "rms", "relative_l2", "cosine")
    }


def explored(
    folder: Path,
    command: str,
    out: Path,
    *options: object,
    store: str = "scan.zarr",
    decoded: str = "decoded",
) -> Table:
    """The latents of an exploring command and what they decode to."""
    vaearr("look", command, folder / store, *options, "--out", out / "arrays.npz")
    with np.load(out / "arrays.npz") as arrays:
        return {"latents": arrays["latents"], "decoded": arrays[decoded]}


def table(folder: Path, command: str, out: Path, *columns: str) -> Table:
    """Columns of the table that a command writes."""
    vaearr("look", command, folder / "scan.zarr", "--out", out / "table.csv")
    return {name: read_csv(out / "table.csv", name, exact=True)[:, 0] for name in columns}


def associations(folder: Path) -> Table:
    """The association of the stored latents with the stored maps."""
    ds = va.open_store(folder / "scan.zarr")
    return {
        name: np.asarray(va.associate(ds.latents, ds[name], metrics="all"))
        for name in ("BC", "phase")
    }


RESULTS: dict[str, Callable[[Path, Path], Table]] = {
    "latents of the scan": lambda folder, out: latents(folder, "scan.zarr"),
    "latents of the images": lambda folder, out: latents(folder, "images.zarr"),
    "latents of the volumes": lambda folder, out: latents(folder, "volumes.zarr"),
    "draws of the scan": lambda folder, out: drawn(folder, "scan.zarr"),
    "draws of the volumes": lambda folder, out: drawn(folder, "volumes.zarr"),
    "lerp": lambda folder, out: way(folder, "lerp"),
    "slerp": lambda folder, out: way(folder, "slerp"),
    "fidelity of the scan": lambda folder, out: fidelity(
        folder, "scan.zarr", "mse", "mae", "psnr", "ssim"
    ),
    "fidelity of the volumes": lambda folder, out: fidelity(
        folder, "volumes.zarr", "mse", "mae", "psnr", "ssim"
    ),
    "layers": layers,
    "traversal": lambda folder, out: explored(
        folder,
        "traverse",
        out,
        *("--dim", 0, "--dim", 1, "--dim", 2, "--steps", 3, "--base", "mean", "--others", "base"),
    ),
    "manifold": lambda folder, out: explored(
        folder, "manifold", out, "--steps", 2, "--dim", 2, "--dim", 0, "--base", "mean"
    ),
    "prototypes of the scan": lambda folder, out: explored(
        folder, "prototypes", out, decoded="decoded_mean"
    ),
    "prototypes of the images": lambda folder, out: explored(
        folder, "prototypes", out, store="images.zarr", decoded="decoded_mean"
    ),
    "description": lambda folder, out: table(
        folder, "describe", out, *("count", "mean", "std", "min", "25%", "50%", "75%", "max")
    ),
    "health": lambda folder, out: table(
        folder,
        "statistics",
        out,
        "kl",
        "is_active",
        "aggregate_mean",
        "aggregate_std",
        "aggregate_kl",
    ),
    "associations": lambda folder, out: associations(folder),
}


def read_csv(path: Path, name: str, *, exact: bool = False) -> NDArray[np.float64]:
    """The columns of a CSV file that begin with `name` (`exact`: that are called so), (rows,
    columns).
    """
    with path.open() as file:
        rows = [
            [
                entry
                for key, entry in row.items()
                if key == name or (not exact and key.startswith(name))
            ]
            for row in csv.DictReader(file)
        ]
    words = {"True": "1", "False": "0", "": "nan"}
    return np.array([[float(words.get(entry, entry)) for entry in row] for row in rows])


def unpack(folder: Path) -> Path:
    """The recorded stores, in `folder`."""
    shutil.unpack_archive(RECORDED / "stores.tar.xz", folder)
    return folder


def recorded() -> dict[str, dict[str, NDArray[np.float64]]]:
    """The recorded results, as arrays."""
    text = json.loads((RECORDED / "results.json").read_text())
    return {
        name: {key: np.array(values, float) for key, values in entry.items()}
        for name, entry in text.items()
    }


def main() -> None:
    if (RECORDED / "results.json").exists():
        sys.exit(
            f"{RECORDED} is there, and is not made anew: it holds what stores of schema 1 were"
        )
    RECORDED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        made, folder = Path(name, "made"), Path(name, "unpacked")
        if not (RECORDED / "stores.tar.xz").exists():
            made.mkdir()
            make(made)
            with tarfile.open(RECORDED / "stores.tar.xz", "w:xz") as archive:
                for store in STORES:
                    archive.add(made / store, store, filter=_anonymous)
        unpack(folder)
        results = {}
        for number, (entry, compute) in enumerate(RESULTS.items()):
            out = folder / f"out{number}"
            out.mkdir()
            values = {key: np.asarray(value, float) for key, value in compute(folder, out).items()}
            results[entry] = {key: _rounded(value) for key, value in values.items()}
            print(entry, {key: value.shape for key, value in values.items()})
        (RECORDED / "results.json").write_text(json.dumps(results).replace('}, "', '},\n"') + "\n")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid, member.gid, member.uname, member.gname = 0, 0, "", ""
    return member


def _rounded(values: NDArray[np.float64]) -> Any:
    """Nested lists of at most seven digits, which is what float32 holds."""
    if values.ndim:
        return [_rounded(value) for value in values]
    return float(f"{values:.7g}")


if __name__ == "__main__":
    main()
