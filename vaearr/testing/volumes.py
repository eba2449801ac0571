"""Brains of ellipsoids with known factors, each person seen twice, and their NIfTI files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.sources.sample_writer import stored_affine, write_nifti

Floats = NDArray[np.floating[Any]]
LABELS = ("baseline", "follow_up")  # the visits of a person
FACTORS = {  # name -> least and largest value, long name
    "true_ventricle": (0.6, 1.6, "volume of the ventricles, relative to the mean person"),
    "true_size": (0.94, 1.06, "size of the brain, relative to the mean person"),
    "true_shear": (-0.2, 0.2, "shear of x by z: the brain leans to the right"),
    "true_contrast": (0.2, 0.45, "white matter brighter than grey matter by, of white matter"),
    "true_bias": (-0.5, 0.5, "log of the gain from the left back to the right front"),
}
GROWTH = (1.15, 1.6)  # of the ventricles between the two visits
WHITE, FLUID = 0.9, 0.15  # of the largest value; grey matter follows from the contrast
LARGEST = 1000  # stored value of 1
FOLDS = 8  # waves of the border of the white matter
DEPTH = 0.09  # their height as a share of its radius
# tissue, semi-axes and centre (x, y, z) in mm, x to the right, y to the front, z upwards; painted
# one over the other
PARTS = (
    ("fluid", (65, 85, 67), (0, 0, 0)),  # around the cortex
    ("grey", (63, 83, 65), (0, 0, 0)),
    ("fluid", (2.5, 78, 34), (0, 2, 42)),  # between the hemispheres
    ("folded white", (24, 64, 43), (-28, 2, 8)),
    ("folded white", (24, 64, 43), (28, 2, 8)),
    ("grey", (36, 22, 18), (0, -48, -42)),  # cerebellum
    ("white", (8, 9, 26), (0, -24, -42)),  # brainstem
    ("grey", (9, 15, 9), (-20, 2, -2)),
    ("grey", (9, 15, 9), (20, 2, -2)),
    ("ventricle", (7, 25, 9), (-11, -2, 12)),
    ("ventricle", (7, 25, 9), (11, -2, 12)),
)


def synthetic_volumes(
    n_subjects: int = 20,
    shape: tuple[int, int, int] = (20, 28, 20),
    *,
    spacing: float = 7.0,
    noise: float = 0.02,
    seed: int = 0,
) -> xr.Dataset:
    """Simulate brains like T1-weighted MR volumes without the skull, with known factors.

    Each subject has two samples, `label` baseline and follow_up: the same brain with larger
    ventricles, another bias field and other noise at the follow-up. Borders have
    partial volumes, noise is Rician (Gudbjartsson & Patz, Magn. Reson. Med. 34, 910 (1995)). The
    same arguments give the same Dataset, and a subject does not depend on how many there are.

    Parameters
    ----------
    n_subjects : int
        Number of persons; the result has twice as many samples.
    shape : tuple of int
        Voxels along z, y, x.
    spacing : float
        Distance of voxels in mm; a brain measures about 130 x 170 x 130 mm.
    noise : float
        Standard deviation of each of the two channels, as a share of the largest value.
    seed : int
        Seed of all random numbers.

    Returns
    -------
    xarray.Dataset
        `patterns` (sample, z, y, x) int16, `label` (sample), the coordinates `subject` (sample) and
        z, y, x in mm (RAS+), and the factors (sample): `true_size`, `true_shear`, `true_contrast`
        of the person, `true_ventricle` and `true_bias` of the visit.

    Raises
    ------
    UsageError
        For no subject, a shape that is not three sizes, a spacing that is not positive, or negative
        noise.
    """
    if len(shape) != 3 or min(n_subjects, *shape) < 1:
        raise UsageError(
            f"n_subjects={n_subjects} and the three sizes of shape={shape} must be at least 1."
        )
    if spacing <= 0 or noise < 0:
        raise UsageError(f"spacing={spacing} must be positive, noise={noise} must not be negative.")
    grid = [(np.arange(size) - (size - 1) / 2) * spacing for size in shape]
    patterns = []
    factors = []
    for person in range(n_subjects):
        for visit, volume in _visits(grid, noise, spacing, np.random.default_rng([seed, person])):
            factors.append(visit)
            patterns.append(volume)
    table = pd.DataFrame(factors)
    dims = (n.Z, n.Y, n.X)
    count = len(patterns)
    pattern_attrs = {
        "long_name": "volume",
        "units": "1",
        "orientation": "RAS+",
        n.NAVIGATION_DIMS: [n.SAMPLE],
        n.SIGNAL_DIMS: list(dims),
    }
    label_attrs = {"flag_values": [0, 1], "flag_meanings": " ".join(LABELS)}
    data: dict[str, Any] = {
        n.PATTERNS: ((n.SAMPLE, *dims), np.stack(patterns), pattern_attrs),
        "label": (n.SAMPLE, np.arange(count, dtype=np.int32) % 2, label_attrs),
    }
    for name, (*_, long_name) in FACTORS.items():
        values = table[name].to_numpy(np.float32)
        data[name] = (n.SAMPLE, values, {"long_name": long_name, "units": "1"})
    coords: dict[str, Any] = {
        n.SAMPLE: np.arange(count),
        "subject": (n.SAMPLE, [f"s{i // 2:03d}" for i in range(count)]),
    }
    for dim, positions in zip(dims, grid, strict=True):
        coords[dim] = (dim, positions, {**n.ATTRS[dim], "units": "mm"})
    return xr.Dataset(data, coords, {"title": "synthetic volumes"})


def _visits(
    grid: list[Floats], noise: float, spacing: float, rng: np.random.Generator
) -> Iterator[tuple[dict[str, float], NDArray[np.int16]]]:
    """The factors and the volume of each visit of one person."""
    baseline = {name: rng.uniform(low, high) for name, (low, high, _) in FACTORS.items()}
    follow_up = baseline | {"true_ventricle": baseline["true_ventricle"] * rng.uniform(*GROWTH)}
    waves = rng.normal(size=(FOLDS, 3)) * 6.0
    phases = rng.uniform(0, 2 * np.pi, FOLDS)
    for factors in (baseline, follow_up):
        if factors is follow_up:
            factors["true_bias"] = rng.uniform(*FACTORS["true_bias"][:2])
        clean = _brain(grid, factors, waves, phases, border=spacing)
        real, imaginary = noise * rng.standard_normal((2, *clean.shape))
        values = np.rint(np.hypot(clean + real, imaginary) * LARGEST)
        yield factors, np.clip(values, 0, np.iinfo(np.int16).max).astype(np.int16)


def _brain(
    grid: list[Floats], factors: dict[str, float], waves: Floats, phases: Floats, *, border: float
) -> Floats:
    """One brain without noise (z, y, x), 0 to about 1, at the positions z, y, x (mm) of the grid.

    waves (k, 3), phases (k,): of the border of the white matter, over directions from its centre.
    border: mm over which one tissue becomes the next.
    """
    z, y, x = np.meshgrid(*grid, indexing="ij")
    sheared = np.stack([x - factors["true_shear"] * z, y, z], axis=-1) / factors["true_size"]
    grey = WHITE * (1 - factors["true_contrast"])
    values = {"fluid": FLUID, "ventricle": FLUID, "grey": grey}
    image = np.zeros(x.shape)
    for tissue, axes, centre in PARTS:
        radii = np.array(axes, float)
        if tissue == "ventricle":
            radii *= factors["true_ventricle"] ** (1 / 3)
        offset = (sheared - centre) / radii
        radius = np.maximum(np.linalg.norm(offset, axis=-1), 1e-9)  # 1 on the ellipsoid
        slope = np.maximum(np.linalg.norm(offset / radii, axis=-1) / radius, 1e-9)  # per mm
        surface: Any = 1.0
        if tissue == "folded white":
            folds = np.sin(offset / radius[..., None] @ waves.T + phases).sum(-1)
            surface = 1 + DEPTH * folds / np.sqrt(FOLDS / 2)
        share = np.clip(0.5 - (radius - surface) / slope / border, 0, 1)  # of each voxel
        image += share * (values.get(tissue, WHITE) - image)
    return image * np.exp(factors["true_bias"] * (0.6 * x + 0.8 * y) / 180)


def write_volume_files(ds: xr.Dataset, folder: str | Path) -> Path:
    """Write each volume as `<label>/<subject>.nii.gz`, and a manifest of them.

    Parameters
    ----------
    ds : xarray.Dataset
        Volumes of `synthetic_volumes`.
    folder : str or Path
        Created if it does not exist.

    Returns
    -------
    Path
        Path of volumes.csv with the columns path, label, subject, and the factors as numbers.
    """
    folder = Path(folder)
    for label in LABELS:
        (folder / label).mkdir(parents=True, exist_ok=True)
    table = ds[["subject", *FACTORS]].to_dataframe().reset_index(drop=True)
    labels = [LABELS[code] for code in ds["label"].values]
    paths = [
        f"{label}/{subject}.nii.gz" for label, subject in zip(labels, table["subject"], strict=True)
    ]
    for i, path in enumerate(paths):
        write_nifti(folder / path, ds[n.PATTERNS][i].values, stored_affine(ds, i))
    table.insert(0, "path", paths)
    table.insert(1, "label", labels)
    manifest = folder / "volumes.csv"
    table.to_csv(manifest, index=False, float_format="%.6g")
    return manifest
