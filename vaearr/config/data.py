"""How data come in, and which of them are meant."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from vaearr.config.base import Config
from vaearr.names import is_valid_name

Interval = tuple[float, float]


class IngestConfig(Config):
    """How a source becomes a store."""

    images: str = Field(default="images", description="dataset in the HDF5 file that holds the patterns")
    coords: str = Field(default="coords", description="dataset in the HDF5 file that holds [x, y] of each pattern")
    step: float | None = Field(default=None, gt=0, description="distance of neighbouring scan points in `units`")
    units: str = Field(
        default="um", description="unit of the step; coordinates are step numbers where no step is known"
    )
    maps: dict[str, Path] = Field(default_factory=dict, description="name -> CSV with x, y and one value column")
    elements: Path | None = Field(default=None, description="CSV with x, y and one column per element")
    element_units: str = Field(default="wt%", description="unit of the element columns")
    phases: Path | None = Field(default=None, description="CSV with x, y and a phase number, -1 = not indexed")
    phase_names: dict[int, str] = Field(default_factory=dict, description="phase number -> name")
    orientations: Path | None = Field(
        default=None, description=".ang or .ctf map of the scan: orientations, phases, quality"
    )
    scan: str | None = Field(default=None, description="scan in a vendor file that holds several; default: the first")
    nav_shape: tuple[int, int] | None = Field(
        default=None,
        description="(rows, columns) of the scan, for a vendor file that stores patterns but no scan shape",
    )
    filenames: str | None = Field(
        default=None,
        description="how names of image files tell the scan point: a template such as 'x{x}_y{y}' or '{y}_{x}', or a "
        "regular expression with the groups x and y",
    )
    crop: dict[Literal["dy", "dx"], tuple[float | None, float | None]] = Field(
        default_factory=dict, description="start <= detector pixel < stop that is kept along dy and dx; none = no limit"
    )
    bin: int = Field(
        default=1,
        ge=1,
        description="side of the blocks of detector pixels that become one, their mean in float32; after crop",
    )
    nonfinite: Literal["error", "mask"] = Field(
        default="error",
        description="patterns with NaN or infinite values, or such as float32 cannot hold: refuse the file, or leave "
        "these scan points out",
    )
    format: str | None = Field(
        default=None,
        description="name of the source format, such as images, where the path alone would be taken for another",
    )
    size: tuple[int, ...] | None = Field(
        default=None, description="collections: (rows, columns) of every image, or (z, y, x) of every volume, in pixels"
    )
    fit: Literal["pad", "crop", "squash"] = Field(
        default="pad",
        description="how another size becomes `size`. Images: scaled to fit inside and padded with 0, scaled to cover "
        "and cut, or stretched. Volumes: padded, cut and padded, or resampled",
    )
    channels: Literal["auto", "grey", "colour"] = Field(
        default="auto",
        description="images: as they are (all alike), all converted to grey, or all to red, green and blue",
    )
    masks: str = Field(
        default="*_mask*", description="names of mask files, * first for the image's own name; '' = no masks"
    )
    manifest: Path | None = Field(
        default=None, description="CSV with path, label and further columns for a folder's files"
    )
    label_column: str = Field(default="label", description="column of the manifest that holds the label")
    classes: tuple[str, ...] = Field(default=(), description="labels of the samples to take; empty = all")
    exclude: tuple[str, ...] = Field(default=(), description="patterns of paths to leave out, such as '*/old/*'")
    spacing: tuple[float, float, float] | None = Field(
        default=None, description="volumes: distance of voxels (z, y, x) in mm to resample to, before `size`"
    )
    skip_bad: bool = Field(default=False, description="collections: leave out files that cannot be read, and list them")

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

    x: Interval | None = Field(default=None, description="x0 <= x < x1, coordinate units")
    y: Interval | None = Field(default=None, description="y0 <= y < y1, coordinate units")
    z: Interval | None = Field(default=None, description="z0 <= z < z1, coordinate units")
    where: str | None = Field(
        default=None, description="condition on maps, such as 'BC > 45 and elements[\"Fe\"] > 20'"
    )

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

    method: Literal["blocks", "random", "groups", "stratified"] = Field(
        default="blocks",
        description="blocks of scan points, single ones, whole groups with one value of `by` (such as a subject), or "
        "the same share of each class of `by`",
    )
    fraction: float = Field(default=0.05, ge=0, lt=1, description="share of the scan points kept for validation")
    block: int = Field(default=4, ge=1, description="side of a block in scan points; below the size of a grain")
    by: str | None = Field(
        default=None,
        description="map or coordinate of the groups or classes; default: subject (groups), label (stratified)",
    )
