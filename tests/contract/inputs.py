"""Small input files of every kind, made from numbers alone; equal calls write equal files."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

NX, NY, STEP = 22, 17, 0.25
MISSING = ((3, 2), (16, 20))  # (row, column) of scan points without an entry
GRAINS = 4


def grains() -> NDArray[np.int64]:
    """Which of four grains each scan point lies in, (NY, NX)."""
    row, column = np.mgrid[:NY, :NX]
    return np.asarray(2 * (row + column // 3 > 9) + (column > 11), dtype=np.int64)


def quality() -> NDArray[np.float64]:
    """A smooth map between 0.3 and 1, (NY, NX)."""
    row, column = np.mgrid[:NY, :NX]
    return np.asarray(0.65 + 0.35 * np.sin(column / 5.0) * np.cos(row / 4.0))


def latents() -> NDArray[np.float32]:
    """Known numbers for all scan points, row by row: like `quality`, like the phases, noise, both,
    the noise again.
    """
    noise = np.random.default_rng(3).normal(size=(3, NY * NX))
    contrast, grain = quality().ravel(), grains().ravel()
    columns = (
        3 * contrast + 0.2 * noise[0],
        (grain > 1) + 0.3 * noise[1],
        noise[2],
        grain - 2 * contrast,
        noise[2],
    )
    return np.stack(columns, axis=1).astype("float32")


def patterns(size: int = 20, seed: int = 0) -> NDArray[np.uint8]:
    """Bands of four orientations, their contrast by `quality`, and noise: (NY, NX, size, size)."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:size, :size] / size - 0.5
    bands = []
    for _ in range(GRAINS):
        angles = rng.uniform(0, np.pi, 4)
        offsets = rng.uniform(-0.3, 0.3, 4)
        bands.append(
            sum(
                np.exp(-(((u * np.cos(a) + v * np.sin(a) - b) / 0.06) ** 2))
                for a, b in zip(angles, offsets, strict=True)
            )
        )
    ideal = np.stack(bands)[grains()] * quality()[..., None, None]
    noisy = 90 + 60 * ideal - 40 * (u**2 + v**2) + rng.normal(0, 6, (NY, NX, size, size))
    return np.asarray(noisy.clip(0, 255), dtype=np.uint8)


def scan_files(folder: Path, *, order: str = "rows", size: int = 20) -> dict[str, Path]:
    """An HDF5 scan with side maps as CSV: `patterns`, `BC`, `elements`, `phase`. Two scan points
    have no pattern.
    """
    folder.mkdir(parents=True, exist_ok=True)
    points = [
        (row, column) for row in range(NY) for column in range(NX) if (row, column) not in MISSING
    ]
    if order == "shuffled":
        points = [points[i] for i in np.random.default_rng(1).permutation(len(points))]
    rows, columns = (np.array(axis) for axis in zip(*points, strict=True))
    with h5py.File(folder / "scan.h5", "w") as file:
        file["images"] = patterns(size)[rows, columns][:, None]
        file["coords"] = np.stack([columns, rows], 1).astype("int32")
    rng = np.random.default_rng(2)
    contrast = np.round(200 * quality() + rng.normal(0, 3, quality().shape)).astype(int)
    share = {"Fe": 70 + 20.0 * (grains() > 1), "Ni": 30 - 20.0 * (grains() > 1)}
    share = {name: values + rng.normal(0, 1, values.shape) for name, values in share.items()}
    phase = np.where((rows + columns) % 29 == 0, -1, (grains() > 1)[rows, columns])
    return {
        "patterns": folder / "scan.h5",
        "BC": _table(
            folder / "bc.csv", ["x", "y", "Band Contrast"], columns, rows, contrast[rows, columns]
        ),
        "elements": _table(
            folder / "elements.csv",
            ["x", "y", "Fe", "Ni"],
            columns,
            rows,
            *(m[rows, columns] for m in share.values()),
        ),
        "phase": _table(
            folder / "phases.csv", ["x_indice", "y_indice", "phase_id"], columns, rows, phase
        ),
    }


def _table(path: Path, header: Sequence[str], *columns: NDArray[np.generic]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
    return path


def picture(kind: int, seed: int, shape: tuple[int, int] = (24, 32)) -> NDArray[np.uint8]:
    """A disc (0), a bar (1) or both (2) of random place and brightness."""
    rng = np.random.default_rng([kind, seed])
    v, u = np.mgrid[: shape[0], : shape[1]]
    image = np.full(shape, 40.0) + rng.normal(0, 4, shape)
    if kind != 1:
        image += 120 * (((v - rng.integers(8, 16)) ** 2 + (u - rng.integers(8, 24)) ** 2) < 25)
    if kind != 0:
        image += 90 * (abs(u - rng.integers(6, 26)) < 3)
    return np.asarray(image.clip(0, 255), dtype=np.uint8)


def image_folder(folder: Path, each: int = 12) -> Path:
    """PNG images in the sub-folders `disc`, `bar` and `both`, 24 x 32 pixels, grey."""
    for kind, label in enumerate(("disc", "bar", "both")):
        (folder / label).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(picture(kind, number)).save(folder / label / f"{number:02d}.png")
    return folder


AFFINE = np.array([[-4.0, 0, 0, 30], [0, 4.0, 0, -40], [0, 0, 4.0, -20], [0, 0, 0, 1]])


def volume_folder(folder: Path, count: int = 16) -> Path:
    """NIfTI volumes of 14 x 16 x 12 voxels of 4 mm, with `cohort.csv` beside them: path, label,
    subject.
    """
    folder.mkdir(parents=True)
    x, y, z = np.mgrid[:14, :16, :12]
    rows = []
    for number in range(count):
        rng = np.random.default_rng(number)
        radius = 3.0 + 1.5 * (number % 2) + rng.uniform(-0.4, 0.4)
        distance = np.sqrt((x - 7) ** 2 + (y - 8) ** 2 + (z - 6) ** 2)
        volume = 100 / (1 + np.exp(2 * (distance - radius))) + rng.normal(0, 2, distance.shape)
        nibabel.Nifti1Image(volume.astype("float32"), AFFINE).to_filename(
            folder / f"v{number:02d}.nii.gz"
        )
        rows.append((f"v{number:02d}.nii.gz", ("small", "large")[number % 2], f"s{number // 2}"))
    with (folder / "cohort.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "subject"), *rows])
    return folder


def settings_file(path: Path, settings: object) -> Path:
    """A JSON file of settings, for `--config`."""
    path.write_text(json.dumps(settings))
    return path
