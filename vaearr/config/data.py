"""How data come in, and which of them are meant."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from vaearr.config.base import Config, field
from vaearr.names import is_valid_name

Interval = tuple[float, float]


class IngestConfig(Config):
    """How a source becomes a store."""

    images: str = field("images", "dataset in the HDF5 file that holds the patterns")
    coords: str = field("coords", "dataset in the HDF5 file that holds [x, y] of each pattern")
    step: float | None = field(None, "distance of neighbouring scan points in `units`", gt=0)
    units: str = field("um", "unit of the step; coordinates are step numbers where no step is known")
    maps: dict[str, Path] = field({}, "name -> CSV with x, y and one value column")
    elements: Path | None = field(None, "CSV with x, y and one column per element")
    element_units: str = field("wt%", "unit of the element columns")
    phases: Path | None = field(None, "CSV with x, y and a phase number, -1 = not indexed")
    phase_names: dict[int, str] = field({}, "phase number -> name")
    orientations: Path | None = field(None, ".ang or .ctf map of the scan: orientations, phases, quality")
    scan: str | None = field(None, "scan in a vendor file that holds several; default: the first")
    nav_shape: tuple[int, int] | None = field(None, "(rows, columns), for a vendor file without a scan shape")
    filenames: str | None = field(
        None, "how file names tell the scan point: '{y}_{x}', or a regular expression with groups x and y"
    )
    crop: dict[Literal["dy", "dx"], tuple[float | None, float | None]] = field({}, "start <= pixel < stop that is kept")
    bin: int = field(1, "side of the blocks of pixels that become one, their mean in float32; after crop", ge=1)
    nonfinite: Literal["error", "mask"] = field(
        "error", "patterns that float32 cannot hold, NaN or infinite: refuse the file, or leave them out"
    )
    format: str | None = field(None, "source format, such as images, where the path would be taken for another")
    size: tuple[int, ...] | None = field(
        None, "collections: (rows, columns) of images, (z, y, x) of volumes, in pixels"
    )
    fit: Literal["pad", "crop", "squash"] = field(
        "pad", "to `size`. Images: fitted inside and padded with 0, cut, stretched. Volumes: padded, cut, resampled"
    )
    channels: Literal["auto", "grey", "colour"] = field(
        "auto", "images: as they are (all alike), all to grey, or all to RGB"
    )
    masks: str = field("*_mask*", "names of mask files, * first for the image's own name; '' = no masks")
    manifest: Path | None = field(None, "CSV with path, label and further columns for a folder's files")
    label_column: str = field("label", "column of the manifest that holds the label")
    classes: tuple[str, ...] = field((), "labels of the samples to take; empty = all")
    exclude: tuple[str, ...] = field((), "patterns of paths to leave out, such as '*/old/*'")
    spacing: tuple[float, float, float] | None = field(
        None, "volumes: voxels (z, y, x) in mm to resample to, before `size`"
    )
    skip_bad: bool = field(False, "collections: leave out files that cannot be read, and list them")

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.maps:
            if not is_valid_name(name):
                raise ValueError(f"map name {name!r} must be letters, digits and _ and start with a letter")
        if self.nav_shape is not None and min(self.nav_shape) < 1:
            raise ValueError(f"nav_shape {self.nav_shape} must be two positive numbers, (rows, columns)")
        if self.size is not None and (len(self.size) not in (2, 3) or min(self.size) < 1):
            raise ValueError(f"size {self.size} must be two or three positive numbers")
        if self.spacing is not None and min(self.spacing) <= 0:
            raise ValueError(f"spacing {self.spacing} must be three positive numbers, (z, y, x) in mm")
        if self.masks and not self.masks.startswith("*"):
            raise ValueError(f"masks={self.masks!r} must begin with *, which stands for the image's own name")
        for dim, (start, stop) in self.crop.items():
            if start is not None and stop is not None and not start < stop:
                raise ValueError(f"the window {dim}=({start:g}, {stop:g}) is empty: give start < stop")
        return self


class RoiConfig(Config):
    """Region of interest: half-open boxes in coordinate units and a condition on maps, all of which must hold."""

    x: Interval | None = field(None, "x0 <= x < x1, coordinate units")
    y: Interval | None = field(None, "y0 <= y < y1, coordinate units")
    z: Interval | None = field(None, "z0 <= z < z1, coordinate units")
    where: str | None = field(None, "condition on maps, such as 'BC > 45 and elements[\"Fe\"] > 20'")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.where is not None and not self.where.strip():
            raise ValueError("the condition `where` is blank: write one like 'BC > 45', or leave it out")
        return self

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("x", "y", "z"):
            box = getattr(self, name)
            if box is not None and not box[0] < box[1]:
                raise ValueError(f"the box {name}={box} is empty: give start < stop")
        return self


class SplitConfig(Config):
    """Which scan points validate: whole spatial blocks by default, so that neighbours do not leak."""

    method: Literal["blocks", "random", "groups", "stratified"] = field(
        "blocks", "blocks of scan points, single ones, whole groups of one value of `by`, or a share of each class"
    )
    fraction: float = field(0.05, "share of the scan points kept for validation", ge=0, lt=1)
    block: int = field(4, "side of a block in scan points; below the size of a grain", ge=1)
    by: str | None = field(None, "map or coordinate; default: subject (groups), label (stratified)")
