"""Files of reconstructed samples, in the format and geometry of their sources."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.sources.sample_writer import (
    NIFTI,
    PNG,
    on_file_pixels,
    output_suffix,
    stored_affine,
    write_sample,
)

ENDINGS = (".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy")
GEOMETRY = ("affine", "source_rows", "source_columns")


class SampleFiles:
    """Writes reconstructed samples as files into a folder.

    chosen: boolean map of the samples that will be written.
    """

    def __init__(self, ds: xr.Dataset, chosen: xr.DataArray, folder: Path) -> None:
        self.ds = ds.copy()
        for name in GEOMETRY:
            if name in ds.variables:
                self.ds[name] = ds[name].load()
        self.folder = folder
        self.names = sample_names(ds, chosen)
        self.suffix = output_suffix(ds)
        self.shape = [ds.sizes[dim] for dim in schema.signal_dims(ds)]

    def write(self, points: np.ndarray, samples: np.ndarray) -> None:
        """Write samples `(k, …)` in stored units at grid points `(k, navigation)`."""
        for indices, sample in zip(points.tolist(), samples, strict=True):
            values = sample.reshape(self.shape)
            affine = None
            if self.suffix == PNG:
                values = on_file_pixels(self.ds, indices[0], values)
            if self.suffix == NIFTI:
                affine = stored_affine(self.ds, indices[0])
            path = self.folder / f"{self.names[tuple(indices)]}{self.suffix}"
            write_sample(path, values, self.ds[n.PATTERNS].dtype, affine)


def sample_names(ds: xr.Dataset, chosen: xr.DataArray) -> dict[tuple[int, ...], str]:
    """A file name for each chosen sample, without ending; unique, and inside the folder."""
    navigation = schema.navigation_dims(ds)
    points = np.argwhere(chosen.transpose(*navigation).values).tolist()
    names = {tuple(point): _point_name(ds, point) for point in points}
    if schema.is_scan(ds) or n.PATH not in ds.coords:
        return names
    paths = {point: inside_name(str(ds[n.PATH].values[point[0]])) for point in names}
    counts = Counter(path.lower() for path in paths.values())
    for point, path in paths.items():
        if path and counts[path.lower()] == 1:
            names[point] = path
        else:
            names[point] = f"{path or 'sample'}_{names[point]}"
    return names


def _point_name(ds: xr.Dataset, point: list[int]) -> str:
    """Dims and indices of a sample, such as `y03_x07`."""
    parts = []
    for dim, index in zip(schema.navigation_dims(ds), point, strict=True):
        width = len(str(ds.sizes[dim] - 1))
        parts.append(f"{dim}{index:0{width}d}")
    return "_".join(parts)


def inside_name(path: str) -> str:
    """A path that lies inside a folder, without the ending of its file."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    name = "/".join(part.replace(":", "_") for part in parts if part not in ("/", "..", "."))
    for ending in ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name
