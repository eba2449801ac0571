"""Settings of data: how a source is read, the region of interest, the split."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from vaearr.config.base import Config, Interval, Name, field


class IngestConfig(Config):
    """How a source becomes a store."""

    images: str = field("images", "dataset of the HDF5 file with the patterns")
    coords: str = field("coords", "dataset of the HDF5 file with [x, y] of each pattern")
    step: float | None = field(None, "distance between neighbouring scan points in `units`", gt=0)
    units: str = field("um", "unit of the step; without a step, coordinates are step numbers")
    maps: dict[Name, Path] = field({}, "name -> CSV with x, y and one value column")
    elements: Path | None = field(None, "CSV with x, y and one column per element, or .tsv maps")
    element_units: str = field("wt%", "unit of the element columns")
    phases: Path | None = field(None, "CSV with x, y and a phase number, -1 = not indexed")
    phase_names: dict[int, str] = field({}, "phase number -> name, such as 0=nickel")
    orientations: Path | None = field(
        None, ".ang or .ctf map of the scan: orientations, phases, quality"
    )
    scan: str | None = field(None, "scan of a vendor file that holds several; default: the first")
    nav_shape: tuple[PositiveInt, PositiveInt] | None = field(
        None, "(rows, columns) of a vendor file that does not specify them"
    )
    filenames: str | None = field(
        None,
        "images: how their names give the scan point, such as '{y}_{x}', or a regular expression "
        "with groups x and y; names such as x0_y0 are recognised",
    )
    nonfinite: Literal["error", "mask"] = field(
        "error",
        "patterns with values that are NaN, infinite or too large for float32: refuse the file, or "
        "leave these patterns out",
    )
    format: str | None = field(
        None, "source format, such as images, if the path is recognised as another"
    )
    size: tuple[PositiveInt, ...] | None = field(
        None,
        "collections: (rows, columns) of images, (z, y, x) of volumes, in pixels",
        min_length=2,
        max_length=3,
    )
    fit: Literal["pad", "crop", "squash"] = field(
        "pad",
        "to `size`: images are scaled to fit and padded with 0, cropped, or stretched; volumes "
        "are padded, cropped, or resampled",
    )
    channels: Literal["auto", "grey", "colour"] = field(
        "auto", "images: as they are (all the same), all to grey, or all to RGB"
    )
    masks: str = field("*_mask*", "images: names of mask files, which are left out; '' = none")
    manifest: Path | None = field(
        None, "CSV with path, label and further columns for the files of a folder"
    )
    label_column: str = field("label", "column of the manifest with the label")
    label_map: dict[str, str] = field(
        {}, "collections: label in the source -> label in the store, before `classes`"
    )
    classes: tuple[str, ...] = field((), "labels of the samples to read; empty = all")
    n_samples: PositiveInt | None = field(
        None, "collections: size of a random subset; default: all samples"
    )
    subset_seed: int = field(0, "collections: random seed of that subset", ge=0)
    exclude: tuple[str, ...] = field((), "patterns of paths to leave out, such as '*/old/*'")
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = field(
        None, "volumes: voxel size (z, y, x) in mm to resample to, before `size`"
    )


class RoiConfig(Config):
    """Region of interest: half-open boxes in coordinate units and a condition on maps.

    All of them must hold.
    """

    x: Interval | None = field(None, "x0 <= x < x1, coordinate units")
    y: Interval | None = field(None, "y0 <= y < y1, coordinate units")
    z: Interval | None = field(None, "z0 <= z < z1, coordinate units")
    where: str | None = field(
        None, "condition on maps, such as 'BC > 45 and elements[\"Fe\"] > 20'"
    )

    @model_validator(mode="after")
    def _has_condition(self) -> Self:
        if self.where is not None and not self.where.strip():
            raise ValueError(
                "the condition `where` is blank: write one like 'BC > 45', or leave it out"
            )
        return self


class SplitConfig(Config):
    """Which scan points are used for validation: blocks by default, to keep neighbours together."""

    method: Literal["blocks", "random", "groups", "stratified"] = field(
        "blocks",
        "blocks of scan points, single points, groups with one value of `by`, or a share of each "
        "class",
    )
    fraction: float = field(0.05, "share of the scan points used for validation", ge=0, lt=1)
    block: int = field(4, "side of a block in scan points; below the size of a grain", ge=1)
    by: str | None = field(None, "map or coordinate; default: subject (groups), label (stratified)")
