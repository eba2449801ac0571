"""synthetic_volumes(): brains of ellipsoids with known factors, each person seen twice, and their
NIfTI files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vaearr import names as n
from vaearr.errors import SchemaError, UsageError
from vaearr.sources.sample_writer import stored_affine, write_nifti

Floats = NDArray[np.floating[Any]]
LABELS = ("baseline", "follow_up")  # the visits of a person
RANGES = {  # name -> least and largest value, long name, what it belongs to
    "true_ventricle": (0.6, 1.6, "volume of the ventricles, relative to the mean person", "scan"),
    "true_size": (0.94, 1.06, "size of the brain, relative to the mean person", "person"),
    "true_shear": (-0.2, 0.2, "shear of x by z: the brain leans to the right", "person"),
    "true_contrast": (
        0.2,
        0.45,
        "white matter brighter than grey matter by, of white matter",
        "person",
    ),
    "true_bias": (-0.5, 0.5, "log of the gain from the left back to the right front", "scan"),
}
GROWTH = (1.15, 1.6)  # of the ventricles between the two visits
WHITE, FLUID = 0.9, 0.15  # of the largest value; grey matter follows from the contrast
LARGEST = 1000  # stored value of 1
FOLDS, DEPTH = (
    8,
    0.09,
)  # waves of the border of the white matter, and their height as a share of its radius
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
    """Brains like T1-weighted MR volumes without the skull, with known factors: (sample, z, y, x)
    int16.

    Each subject has two samples, `label` baseline and follow_up: the same brain, sheared and folded
    alike, with larger ventricles, another bias field and other noise at the follow-up. Borders have
    partial volumes, noise is Rician (Gudbjartsson & Patz, Magn. Reson. Med. 34, 910 (1995)). The
    same arguments give the same Dataset, and a subject does not depend on how many there are.

    Parameters
    ----------
    n_subjects : persons; the result has twice as many samples
    shape : voxels along z, y, x
    spacing : distance of voxels in mm; a brain measures about 130 x 170 x 130 mm
    noise : standard deviation of each of the two channels, as a share of the largest value
    seed : of all random numbers

    Returns
    -------
    xr.Dataset
        `patterns`, `label`, the coordinate `subject`, z, y, x in mm (RAS+), and over `sample` the
        factors: `true_size`, `true_shear`, `true_contrast` of the person, `true_ventricle` and
        `true_bias` of the scan.
    """
    if n_subjects < 1 or len(shape) != 3 or min(shape) < 1:
        raise UsageError(
            f"n_subjects={n_subjects} and the three sizes of shape={shape} must be at least 1."
        )
    if not (spacing > 0 and noise >= 0):
        raise UsageError(f"spacing={spacing} must be positive, noise={noise} must not be negative.")
    dims = (n.Z, n.Y, n.X)
    grid = [(np.arange(size) - (size - 1) / 2) * spacing for size in shape]
    patterns = []
    factors: list[dict[str, float]] = []
    for person in range(n_subjects):
        rng = np.random.default_rng([seed, person])
        known = {name: float(rng.uniform(low, high)) for name, (low, high, *_) in RANGES.items()}
        grown = known["true_ventricle"] * float(rng.uniform(*GROWTH))
        folds = rng.normal(size=(FOLDS, 3)) * 6.0, rng.uniform(0, 2 * np.pi, FOLDS)
        for visit in range(len(LABELS)):
            if visit:
                low, high, *_ = RANGES["true_bias"]
                known = {
                    **known,
                    "true_ventricle": grown,
                    "true_bias": float(rng.uniform(low, high)),
                }
            clean = brain(grid, known, folds, border=spacing)
            real, imaginary = noise * rng.standard_normal((2, *shape))
            values = np.rint(np.hypot(clean + real, imaginary) * LARGEST)
            patterns.append(np.clip(values, 0, np.iinfo(np.int16).max).astype(np.int16))
            factors.append(known)
    count = len(patterns)
    about = {"long_name": "volume", "units": "1", "orientation": "RAS+"}
    flags = {
        "long_name": "label",
        "flag_values": list(range(len(LABELS))),
        "flag_meanings": " ".join(LABELS),
    }
    data: dict[str, Any] = {
        n.PATTERNS: (
            (n.SAMPLE, *dims),
            np.stack(patterns),
            {**about, n.NAVIGATION_DIMS: [n.SAMPLE], n.SIGNAL_DIMS: list(dims)},
        ),
        "label": (n.SAMPLE, np.arange(count, dtype=np.int32) % len(LABELS), flags),
    }
    for name, (*_, words, whose) in RANGES.items():
        values = np.array([known[name] for known in factors], np.float32)
        data[name] = (n.SAMPLE, values, {"long_name": words, "units": "1", "varies_by": whose})
    coords: dict[str, Any] = {n.SAMPLE: (n.SAMPLE, np.arange(count), {"long_name": "sample"})}
    for dim, places in zip(dims, grid, strict=True):
        coords[dim] = (dim, places, {**n.ATTRS[dim], "units": "mm"})
    coords["subject"] = (
        n.SAMPLE,
        [f"s{i // len(LABELS):03d}" for i in range(count)],
        {"long_name": "subject"},
    )
    return xr.Dataset(data, coords, {"title": "synthetic volumes"})


def brain(
    grid: list[Floats], factors: dict[str, float], folds: tuple[Floats, Floats], *, border: float
) -> Floats:
    """One brain without noise (z, y, x), 0 to about 1, at the positions z, y, x (mm) of the grid.

    factors: as `RANGES` names them. folds: wave vectors (k, 3) and phases (k,) of the border of the
    white matter, over directions from its centre. border: mm over which one tissue becomes the
    next.
    """
    z, y, x = np.meshgrid(*grid, indexing="ij")
    place = np.stack([x - factors["true_shear"] * z, y, z]) / factors["true_size"]
    grey = WHITE * (1 - factors["true_contrast"])
    values = {
        "fluid": FLUID,
        "ventricle": FLUID,
        "grey": grey,
        "white": WHITE,
        "folded white": WHITE,
    }
    image = np.zeros(x.shape)
    for tissue, axes, centre in PARTS:
        scale = factors["true_ventricle"] ** (1 / 3) if tissue == "ventricle" else 1.0
        radii = np.array(axes, float).reshape(3, 1, 1, 1) * scale
        off = (place - np.array(centre, float).reshape(3, 1, 1, 1)) / radii
        length = np.sqrt((off**2).sum(0))
        slope = np.sqrt(((off / radii) ** 2).sum(0)) / np.maximum(
            length, 1e-9
        )  # of `length`, per mm
        edge: Any = 1.0
        if tissue == "folded white":
            direction = off / np.maximum(length, 1e-9)
            waves = np.sin(np.tensordot(folds[0], direction, 1) + folds[1].reshape(-1, 1, 1, 1))
            edge = 1 + DEPTH * waves.sum(0) / np.sqrt(FOLDS / 2)
        inside = np.clip(
            0.5 - (length - edge) / np.maximum(slope, 1e-9) / border, 0, 1
        )  # share of each voxel
        image = image + inside * (values[tissue] - image)
    return image * np.exp(factors["true_bias"] * (0.6 * x + 0.8 * y) / 180)


def write_volume_files(ds: xr.Dataset, folder: str | Path) -> Path:
    """Write each volume as `<label>/<subject>.nii.gz` below `folder`, and `volumes.csv`; returns
    the path of the CSV.

    The CSV is a manifest: path, label, subject, and the factors as numbers. Raises SchemaError for
    a Dataset that has not what `synthetic_volumes` gives.
    """
    lacking = [
        name for name in (n.PATTERNS, "label", "subject", *RANGES) if name not in ds.variables
    ]
    if lacking:
        raise SchemaError(
            f"the Dataset lacks {', '.join(lacking)}; give one made by synthetic_volumes."
        )
    import pandas as pd

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(ds.sizes[n.SAMPLE]):
        one = ds.isel({n.SAMPLE: i})
        label, subject = LABELS[int(one["label"])], str(one["subject"].item())
        path = f"{label}/{subject}.nii.gz"
        values = one[n.PATTERNS].transpose(n.Z, n.Y, n.X).values
        (folder / label).mkdir(exist_ok=True)
        write_nifti(folder / path, values, stored_affine(ds, i))
        rows.append(
            {
                "path": path,
                "label": label,
                "subject": subject,
                **{name: float(one[name]) for name in RANGES},
            }
        )
    manifest = folder / "volumes.csv"
    pd.DataFrame(rows).to_csv(manifest, index=False, float_format="%.6g")
    return manifest
