"""What an ingest looks for in each block of patterns, and what the blocks say together.

`look_at` knows one block only, so any process may do it; `Checks` puts the summaries together, in whatever order they
come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError
from vaearr.store import Region

Number = float | int
LEVELS = 16  # float32 numbers, as which networks see patterns, that must lie between the extremes of one of integers


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One block: its extremes (None without a finite pattern), patterns by kind, which are masked, its checksum."""

    low: Number | None
    high: Number | None
    n_constant: int
    n_varying: int
    masked: np.ndarray | None  # over the block's points; None for none
    sha256: bytes


def present_of(ds: xr.Dataset) -> np.ndarray:
    """Which points of the navigation grid have a pattern, a copy."""
    nav = schema.navigation_dims(ds)
    if n.PRESENT in ds:
        return np.array(ds[n.PRESENT].transpose(*nav).values)
    return np.ones(tuple(ds.sizes[dim] for dim in nav), dtype=bool)


def look_at(
    block: np.ndarray, region: Region, ds: xr.Dataset, present: np.ndarray, nonfinite: str
) -> tuple[np.ndarray, Summary]:
    """The block as it is to be written, NaN (of integers 0) where a pattern is masked, and its summary.

    present: of the whole grid. Raises DataError that names the point of the first pattern that is not finite, or that
    float32 cannot hold, unless `nonfinite` is `mask`.
    """
    inside = present[tuple(region.values())]
    flat = np.ascontiguousarray(block).reshape(*inside.shape, -1)
    with np.errstate(invalid="ignore"):
        low, high = flat.min(-1), flat.max(-1)
    masked = None
    bad = inside & ~_fits(low, high)
    if bad.any():
        if nonfinite != "mask":
            raise _refusal(bad, low, high, region, ds)
        empty = np.array(np.nan if block.dtype.kind == "f" else 0, block.dtype)
        block = np.where(bad.reshape(bad.shape + (1,) * (block.ndim - bad.ndim)), empty, block)
        masked, inside = bad, inside & ~bad
    n_constant = int((low == high)[inside].sum())
    return block, Summary(
        low=low[inside].min().item() if inside.any() else None,
        high=high[inside].max().item() if inside.any() else None,
        n_constant=n_constant,
        n_varying=int(inside.sum()) - n_constant,
        masked=masked,
        sha256=hashlib.sha256(np.ascontiguousarray(block).data).digest(),
    )


def _fits(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether patterns with these extremes are finite and float32 can hold them."""
    largest = np.maximum(np.abs(low.astype("f8")), np.abs(high.astype("f8")))
    if low.dtype.kind == "f":
        return np.asarray(largest <= np.finfo("f4").max)  # false for NaN
    step = np.spacing(largest.astype("f4"))
    return np.asarray((step <= 1) | (low == high) | (high.astype("f8") - low.astype("f8") >= LEVELS * step))


def _refusal(bad: np.ndarray, low: np.ndarray, high: np.ndarray, region: Region, ds: xr.Dataset) -> DataError:
    first = np.argwhere(bad)[0]
    place = ", ".join(
        f"{dim} = {ds[dim].values[part.start + int(i)]}" for (dim, part), i in zip(region.items(), first, strict=True)
    )
    count, least, most = int(bad.sum()), low[tuple(first)], high[tuple(first)]
    is_finite = bool(np.isfinite(least) and np.isfinite(most))
    what, how = "NaN or infinite values", "correct the file"
    if is_finite:
        what = f"values from {least} to {most}, which float32 cannot hold or tell apart"
        how = "scale them or take off an offset in the file"
    return DataError(
        f"the pattern at {place} has {what} ({count} such pattern{'s' * (count > 1)} in this block); {how}, or leave "
        "them out with nonfinite='mask'."
    )


@dataclass
class Checks:
    """What all blocks say together: non-finite and constant patterns, extremes, a checksum of the values."""

    ds: xr.Dataset
    nonfinite: str
    low: Number | None = None
    high: Number | None = None
    n_constant: int = 0
    n_varying: int = 0
    n_masked: int = 0
    _seen: dict[tuple[int, ...], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.present = present_of(self.ds)

    def transform(self, block: np.ndarray, region: Region) -> np.ndarray:
        """Look at a block on its way into the store."""
        block, summary = look_at(block, region, self.ds, self.present, self.nonfinite)
        self.add(region, summary)
        return block

    def add(self, region: Region, summary: Summary) -> None:
        """Count a block in, once."""
        self.low = min((v for v in (self.low, summary.low) if v is not None), default=None)
        self.high = max((v for v in (self.high, summary.high) if v is not None), default=None)
        self.n_constant += summary.n_constant
        self.n_varying += summary.n_varying
        if summary.masked is not None:
            self.n_masked += int(summary.masked.sum())
            self.present[tuple(region.values())] &= ~summary.masked
        self._seen[tuple(part.start for part in region.values())] = summary.sha256

    def sha256(self) -> str:
        """Checksum of the checksums of the blocks, in row-major order: see `verifying._is_as_ingested`."""
        return hashlib.sha256(b"".join(self._seen[start] for start in sorted(self._seen))).hexdigest()

    def refuse_useless(self) -> None:
        """Raise DataError where no pattern holds anything to learn from."""
        if self.n_constant + self.n_varying == 0:
            raise DataError("no scan point has a pattern with finite values only; check the source file.")
        if self.n_varying == 0:
            raise DataError(
                f"all {self.n_constant} patterns are constant (every detector pixel has the same value); check the "
                f"source file."
            )

    def findings(self) -> Iterator[str]:
        """What is worth knowing, a line each."""
        if self.n_masked:
            what = "NaN or infinite values, or such as float32 cannot hold,"
            yield f"{self.n_masked} patterns with {what} are left out; {n.PRESENT!r} marks them."
        if self.n_constant:
            what = "patterns" if schema.is_scan(self.ds) else schema.samples_word(self.ds)
            pixel = "detector pixel" if schema.is_scan(self.ds) else "value"
            same = "is the same" if pixel == "value" else "has the same value"
            yield f"{self.n_constant} {what} are constant (every {pixel} {same})."
